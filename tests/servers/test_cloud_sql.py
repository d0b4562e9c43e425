"""Cloud SQL's Python connector, unmodified: which instance its connections lead to.

Emulator: the Admin API and the instance's proxy are ours; behind it are real servers.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
import pytest

import costinsights
from costinsights import hosts
from tests.servers.charges import Charges, instrumented
from tests.servers.cloud_sql_server import NAME, REGION, CloudSQL, cloud_sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from tests.backends import Server

DRIVERS = ("cloud_sql", "psycopg", "asyncpg", "pymysql")
connectors: Any = import_module("google.cloud.sql.connector")
oauth2: Any = import_module("google.oauth2.credentials")

# The connector leaves its event loop and its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def tidy() -> Iterator[None]:
    """Let what the connector has left be collected here, and in no other test."""
    yield
    gc.collect()


@pytest.fixture
def charges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Charges]:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setattr(hosts, "_led", {})
    with instrumented(tmp_path / "ledger", *DRIVERS) as charges:
        yield charges


@pytest.fixture(scope="module")
def postgresql(postgres: Server) -> Iterator[CloudSQL]:
    with cloud_sql(postgres) as server:
        yield server


def connector(server: CloudSQL, **more: Any) -> Any:
    return connectors.Connector(
        credentials=oauth2.Credentials("token"),
        sqladmin_api_endpoint=server.endpoint,
        refresh_strategy="lazy",
        **more,
    )


def account(server: CloudSQL) -> dict[str, str]:
    given = server.server
    return {"user": given.user, "password": given.password, "db": given.database}


def leads_there(charge: Charge, system: str, database: str) -> None:
    assert charge.system == system
    assert charge.resource.address == f"/cloudsql/{NAME}"
    assert (charge.resource.service, charge.resource.region) == ("gcp.cloud_sql", REGION)
    assert charge.resource.namespace == database


def test_psycopg(postgresql: CloudSQL, charges: Charges) -> None:
    with (
        connector(postgresql) as opener,
        closing(opener.connect(NAME, "psycopg", **account(postgresql))) as connection,
    ):
        assert isinstance(connection, psycopg.Connection)
        connection.execute("SELECT 1")
        leads_there(charges.one(), "postgresql", postgresql.server.database)
    # The address itself, without the connector, is nobody's.
    here = postgresql.server
    with psycopg.connect(here.dsn) as connection:
        connection.execute("SELECT 1")
    (charge, *_) = charges.new()
    assert (charge.resource.address, charge.resource.service) == (here.host, None)


async def test_asyncpg(postgresql: CloudSQL, charges: Charges) -> None:
    opener = connector(postgresql, loop=asyncio.get_running_loop())
    try:
        connection = await opener.connect_async(NAME, "asyncpg", **account(postgresql))
        assert await connection.fetchval("SELECT 1") == 1
        leads_there(charges.one(), "postgresql", postgresql.server.database)
        await connection.close()
    finally:
        await opener.close_async()


def test_pymysql(mariadb: Server, charges: Charges) -> None:
    with (
        cloud_sql(mariadb) as server,
        connector(server) as opener,
        closing(opener.connect(NAME, "pymysql", **account(server))) as connection,
    ):
        assert type(connection) is pymysql.connections.Connection
        connection.cursor().execute("SELECT 1")
        leads_there(charges.one(), "mariadb", mariadb.database)


def test_the_connector_asks_what_it_asks_without_us(postgresql: CloudSQL, charges: Charges) -> None:
    def asked() -> list[str]:
        postgresql.asked.clear()
        with connector(postgresql) as opener:
            opener.connect(NAME, "psycopg", **account(postgresql)).close()
        return sorted(postgresql.asked)

    ours = asked()
    costinsights.uninstrument()
    assert asked() == ours == ["connectSettings", "orders:generateEphemeralCert"]


def test_only_so_many_addresses_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_led", {})
    for number in range(5000):
        hosts.leads(f"10.0.0.{number}", "/cloudsql/p:r:i")
    assert hosts.led("10.0.0.0") == "10.0.0.0"
    assert hosts.led("10.0.0.4999") == "/cloudsql/p:r:i"
    assert hosts.led(None) is None
