"""Snowflake, by `dagster_snowflake`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-snowflake"):
    from dagster_snowflake import SnowflakeResource as Official

if TYPE_CHECKING:
    from collections.abc import Generator

    from snowflake.snowpark import Session


class SnowflakeResource(Resource, Official):
    """`dagster_snowflake.SnowflakeResource`, and every statement has its cost.

    ::

        with snowflake.get_connection() as conn:
            conn.cursor().execute("SELECT 1")

    With ``connector="adbc"`` the official class does not use snowflake.connector, and what it sends
    has no charge.
    """

    @contextmanager
    def get_connection(self, raw_conn: bool = True) -> Generator[Any]:
        """Hand out snowflake.connector's connection, or that of the `connector` asked for."""
        switch_on()
        with super().get_connection(raw_conn) as connection:
            yield connection

    @contextmanager
    def create_snowpark_session(self) -> Generator[Session]:
        """Hand out Snowpark's session, whose connection is snowflake.connector's."""
        switch_on()
        with super().create_snowpark_session() as session:
            yield session
