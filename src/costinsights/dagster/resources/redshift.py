"""Redshift, by `dagster_aws`."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-aws[redshift]"):
    import psycopg2
    from dagster_aws.redshift import RedshiftClientResource as Official

if TYPE_CHECKING:
    from collections.abc import Generator

    from dagster_aws.redshift.resources import RedshiftClient
    from psycopg2.extensions import connection as Connection  # noqa: N812  it is a class


class RedshiftResource(Resource, Official):
    """`dagster_aws.redshift.RedshiftClientResource`, and every statement has its cost.

    ::

        redshift.get_client().execute_query("SELECT 1", fetch_results=True)

        with redshift.get_connection() as conn, conn.cursor() as cur:
            cur.execute("SELECT 1")
    """

    def get_client(self) -> RedshiftClient:
        """Return Dagster's client, which connects for each query."""
        switch_on()
        return super().get_client()

    @contextmanager
    def get_connection(self) -> Generator[Connection]:
        """Hand out psycopg2's connection, as the client's own are made.

        What was done is committed at the end of the ``with``, and rolled back after an exception;
        then the connection is closed.
        """
        arguments = self.get_client().conn_args
        with closing(psycopg2.connect(**arguments)) as connection:
            if self.autocommit is not None:
                connection.autocommit = self.autocommit
            with connection:
                yield connection
