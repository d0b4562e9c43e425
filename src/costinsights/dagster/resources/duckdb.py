"""DuckDB, by `dagster_duckdb`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-duckdb"):
    from dagster_duckdb import DuckDBResource as Official

if TYPE_CHECKING:
    from collections.abc import Generator

    import duckdb


class DuckDBResource(Resource, Official):
    """`dagster_duckdb.DuckDBResource`, and every statement has its cost.

    ::

        with duckdb.get_connection() as connection:
            connection.execute("SELECT 1")
    """

    @contextmanager
    def get_connection(self) -> Generator[duckdb.DuckDBPyConnection]:
        """Hand out a connection to the database, for as long as the ``with`` lasts."""
        switch_on()
        with super().get_connection() as connection:
            yield connection
