"""Trino, by its own client."""

from __future__ import annotations

from contextlib import closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from costinsights.dagster.resources.base import needed, switch_on
from costinsights.dagster.resources.coordinator import CoordinatorResource

with needed("trino"):
    auth: Any = import_module("trino.auth")
    dbapi: Any = import_module("trino.dbapi")

if TYPE_CHECKING:
    from collections.abc import Generator

    from trino.dbapi import Connection


class TrinoResource(CoordinatorResource):
    """Connections to Trino or Starburst, and every statement has its cost.

    ::

        with trino.get_connection() as conn:
            cur = conn.cursor()
            cur.execute("SELECT count(*) FROM orders")
            cur.fetchall()
    """

    @contextmanager
    def get_connection(self) -> Generator[Connection]:
        """Hand out Trino's connection, and close it after the ``with``."""
        switch_on()
        arguments = self._arguments(auth.BasicAuthentication)
        with closing(dbapi.connect(**arguments)) as connection:
            yield connection
