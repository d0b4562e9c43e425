"""PostgreSQL, by psycopg 3. There is no official resource."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("psycopg[binary]"):
    import psycopg

if TYPE_CHECKING:
    from collections.abc import Generator


class PostgreSQLResource(Resource):
    """Connections to PostgreSQL, and every statement has its cost.

    ::

        with postgres.get_connection() as conn:
            with conn.cursor() as cur:
                cur.execute("SELECT * FROM orders")

    RDS, Aurora, Cloud SQL and Azure's PostgreSQL are told by their host names.
    """

    host: str | None = Field(
        default=None,
        description="The server's host name or address, or the folder of its socket. Where nothing "
        "is said here, libpq's own defaults and its variables (PGHOST …) hold.",
    )
    port: int | None = Field(default=None, description="The server's port; 5432 unless said.")
    user: str | None = Field(default=None, description="Who logs in.")
    password: str | None = Field(
        default=None, description='The password: best as EnvVar("POSTGRES_PASSWORD").'
    )
    database: str | None = Field(default=None, description="The name of the database.")
    additional_parameters: dict[str, Any] = Field(
        default={},
        description="More arguments of psycopg.connect(), such as sslmode, options or autocommit.",
    )

    @contextmanager
    def get_connection(self) -> Generator[psycopg.Connection[Any]]:
        """Hand out psycopg's connection as psycopg's own ``with`` does.

        What was done is committed at the end of the ``with``, and rolled back after an exception;
        then the connection is closed.
        """
        switch_on()
        with psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=self.database,
            **self.additional_parameters,
        ) as connection:
            yield connection
