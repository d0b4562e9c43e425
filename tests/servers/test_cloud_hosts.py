"""Every driver of the spine at a cloud's host name: what it says of its connection is recognised.

The names lead to the test's own servers: libpq is given name and address apart, and what Python
looks up is looked up here. mysqlclient looks names up in C, so its words are put into its mouth.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import aiomysql
import asyncpg
import mysql.connector
import psycopg
import psycopg2
import pymysql
import pytest

from costinsights.hosts import Recognised, recognise
from costinsights_instrumentors.aiomysql import AiomysqlInstrumentor
from costinsights_instrumentors.asyncpg import AsyncpgInstrumentor
from costinsights_instrumentors.duckdb import DuckDBInstrumentor
from costinsights_instrumentors.mysql_connector import MySQLConnectorInstrumentor
from costinsights_instrumentors.mysqlclient import MySQLClientInstrumentor
from costinsights_instrumentors.psycopg import PsycopgInstrumentor
from costinsights_instrumentors.psycopg2 import Psycopg2Instrumentor
from costinsights_instrumentors.pymysql import PyMySQLInstrumentor
from costinsights_instrumentors.sqlite3 import SQLite3Instrumentor

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.instrumentor import DBAPIInstrumentor
    from tests.backends import Server

RDS = "orders.abc123def.eu-west-1.rds.amazonaws.com"
AURORA = "orders.cluster-abc123def.us-east-1.rds.amazonaws.com"
REDSHIFT = "dwh.abc123def.us-east-1.redshift.amazonaws.com"
CLOUD_SQL = "1a23b4cd5e67.1a2b345c6d27.us-central1.sql.goog"
AZURE_PG, AZURE_MY = "orders.postgres.database.azure.com", "orders.mysql.database.azure.com"
POSTGRES: dict[str, tuple[str, str, str | None]] = {
    RDS: ("postgresql", "aws.rds", "eu-west-1"),
    AURORA: ("postgresql", "aws.aurora", "us-east-1"),
    REDSHIFT: ("aws.redshift", "aws.redshift", "us-east-1"),
    CLOUD_SQL: ("postgresql", "gcp.cloud_sql", "us-central1"),
    AZURE_PG: ("postgresql", "azure.database", None),
}
MYSQL: dict[str, tuple[str, str, str | None]] = {
    RDS: ("mariadb", "aws.rds", "eu-west-1"),
    AURORA: ("mariadb", "aws.aurora", "us-east-1"),
    CLOUD_SQL: ("mariadb", "gcp.cloud_sql", "us-central1"),
    AZURE_MY: ("mariadb", "azure.database", None),
}


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Python look clouds' names up here."""
    look_up = socket.getaddrinfo

    def here(host: Any, *args: Any, **kwargs: Any) -> Any:
        known = {*POSTGRES, *MYSQL}
        text = host.decode() if isinstance(host, bytes) else host
        return look_up("127.0.0.1" if text in known else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", here)


def seen(instrumentor: DBAPIInstrumentor, connection: Any) -> tuple[str, str | None, str | None]:
    found: Recognised = recognise(
        instrumentor.system_of(connection), instrumentor.resource(connection)
    )
    return found.system, found.service, found.region


def account(server: Server, database: str) -> dict[str, Any]:
    return {
        "port": server.port,
        "user": server.user,
        "password": server.password,
        database: server.database,
    }


@pytest.mark.parametrize("host", POSTGRES)
@pytest.mark.parametrize(
    ("connect", "instrumentor"),
    [(psycopg.connect, PsycopgInstrumentor), (psycopg2.connect, Psycopg2Instrumentor)],
    ids=["psycopg", "psycopg2"],
)
def test_libpq(
    postgres: Server,
    host: str,
    connect: Callable[..., Any],
    instrumentor: type[DBAPIInstrumentor],
) -> None:
    given = account(postgres, "dbname")
    with closing(connect(host=host, hostaddr=postgres.host, **given)) as connection:
        assert seen(instrumentor(), connection) == POSTGRES[host]


@pytest.mark.parametrize("host", POSTGRES)
async def test_asyncpg(postgres: Server, names: None, host: str) -> None:
    driver: Any = asyncpg
    connection = await driver.connect(host=host, **account(postgres, "database"))
    try:
        assert seen(AsyncpgInstrumentor(), connection) == POSTGRES[host]
    finally:
        await connection.close()


@pytest.mark.parametrize("host", MYSQL)
def test_pymysql(mariadb: Server, names: None, host: str) -> None:
    with pymysql.connect(host=host, **account(mariadb, "database")) as connection:
        assert seen(PyMySQLInstrumentor(), connection) == MYSQL[host]


@pytest.mark.parametrize("host", MYSQL)
async def test_aiomysql(mariadb: Server, names: None, host: str) -> None:
    driver: Any = aiomysql
    connection = await driver.connect(host=host, **account(mariadb, "db"))
    try:
        assert seen(AiomysqlInstrumentor(), connection) == MYSQL[host]
    finally:
        connection.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("host", MYSQL)
def test_mysql_connector(mariadb: Server, names: None, host: str) -> None:
    given = account(mariadb, "database")
    with closing(mysql.connector.connect(host=host, use_pure=True, **given)) as connection:
        assert seen(MySQLConnectorInstrumentor(), connection) == MYSQL[host]


@pytest.mark.parametrize("host", MYSQL)
def test_mysqlclient(host: str) -> None:
    """It looks names up in C and keeps them; what it says of its connection is said here."""

    class Connection:
        def get_server_info(self) -> str:
            return "11.8.3-MariaDB"

        def get_host_info(self) -> str:
            return f"{host} via TCP/IP"

    assert seen(MySQLClientInstrumentor(), Connection()) == MYSQL[host]


@pytest.mark.parametrize("kind", [SQLite3Instrumentor, DuckDBInstrumentor])
def test_without_a_host_there_is_no_service(kind: type[DBAPIInstrumentor]) -> None:
    class File:
        name = ":memory:"

    assert seen(kind(), File()) == (kind.system, None, None)
