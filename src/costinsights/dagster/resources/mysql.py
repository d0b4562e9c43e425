"""MySQL and MariaDB, by `dagster_mysql`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-mysql"):
    from dagster_mysql import MySQLResource as Official

if TYPE_CHECKING:
    from collections.abc import Generator

    from mysql.connector.abstracts import MySQLConnectionAbstract
    from mysql.connector.pooling import PooledMySQLConnection


class MySQLResource(Resource, Official):
    """`dagster_mysql.MySQLResource`, and every statement has its cost.

    ::

        with mysql.get_connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    """

    @contextmanager
    def get_connection(self) -> Generator[PooledMySQLConnection | MySQLConnectionAbstract]:
        """Hand out mysql.connector's connection, and close it after the ``with``.

        As the official resource's, it commits where the program does.
        """
        switch_on()
        with super().get_connection() as connection:
            yield connection
