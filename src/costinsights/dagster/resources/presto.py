"""PrestoDB, by its own client."""

from __future__ import annotations

from contextlib import closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from costinsights.dagster.resources.base import needed, switch_on
from costinsights.dagster.resources.coordinator import CoordinatorResource

with needed("presto-python-client"):
    prestodb: Any = import_module("prestodb")

if TYPE_CHECKING:
    from collections.abc import Generator


class PrestoResource(CoordinatorResource):
    """Connections to PrestoDB, and every statement has its cost.

    ::

        with presto.get_connection() as conn:
            cur = conn.cursor()
            cur.execute("SELECT count(*) FROM orders")
            cur.fetchall()
    """

    @contextmanager
    def get_connection(self) -> Generator[Any]:
        """Hand out `prestodb.dbapi.Connection`, and close it after the ``with``."""
        switch_on()
        arguments = self._arguments(prestodb.auth.BasicAuthentication)
        with closing(prestodb.dbapi.connect(**arguments)) as connection:
            yield connection
