"""MySQL Connector/Python on a real MariaDB: pure, in C and asynchronous, one charge a call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import mysql.connector
import mysql.connector.aio
import pytest

from tests.servers.charges import Charges, instrumented, milliseconds, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.backends import Server

SECRET = "s3cr3t-e5d0"
ROWS = 50
KINDS: list[dict[str, bool]] = [
    {},
    {"buffered": True},
    {"raw": True},
    {"dictionary": True},
    {"dictionary": True, "buffered": True},
    {"prepared": True},
]


def name(kind: dict[str, bool]) -> str:
    return "-".join(kind) or "plain"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


def account(server: Server) -> dict[str, Any]:
    return {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": server.database,
    }


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "mysql_connector") as charges:
        yield charges


@pytest.fixture(params=[True, False], ids=["pure", "c"])
def connection(request: pytest.FixtureRequest, charges: Charges, mariadb: Server) -> Iterator[Any]:
    pure: bool = request.param
    if not pure and not mysql.connector.HAVE_CEXT:
        pytest.skip("the connector's C extension does not load here")
    connection: Any = mysql.connector.connect(use_pure=pure, **account(mariadb))
    cursor = connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE t (a INT PRIMARY KEY, b VARCHAR(20))")
    cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(i, "x") for i in range(ROWS)])
    assert [(charge.operation, charge.rows) for charge in charges.new()] == [
        ("CREATE TABLE", 0),
        ("BATCH INSERT", ROWS),
    ]
    yield connection
    connection.close()


@pytest.fixture
async def aconnection(charges: Charges, mariadb: Server) -> AsyncIterator[Any]:
    connection: Any = await mysql.connector.aio.connect(ssl_disabled=True, **account(mariadb))
    cursor = await connection.cursor()
    await cursor.execute("CREATE TEMPORARY TABLE t (a INT PRIMARY KEY, b VARCHAR(20))")
    await cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(i, "x") for i in range(ROWS)])
    assert charges.new()[-1].operation == "BATCH INSERT"
    yield connection
    await connection.close()


def test_a_charge_says_what_ran_where(connection: Any, charges: Charges, mariadb: Server) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t WHERE a < %s AND b = 'x'", (10,))
    assert len(cursor.fetchall()) == 10
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("mariadb", "mysql_connector")
    assert charge.resource.address == mariadb.host
    assert charge.resource.port == mariadb.port
    assert charge.resource.namespace == mariadb.database
    assert text_of(charge) == "SELECT a FROM t WHERE a < %s AND b = ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 10, False)


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_every_cursor_counts_its_rows_once(
    connection: Any, charges: Charges, kind: dict[str, bool]
) -> None:
    cursor = connection.cursor(**kind)
    for _ in range(2):  # the row count of the first must not show in the second
        cursor.execute("SELECT a FROM t ORDER BY a")
        assert cursor.fetchone() is not None
        assert len(cursor.fetchmany(5)) == 5
        assert len(cursor.fetchall()) == ROWS - 6
        charge = charges.one()
        assert (charge.rows, charge.partial) == (ROWS, False)
    cursor.execute("SELECT a FROM t")
    assert sum(1 for _ in cursor) == ROWS
    assert charges.one().rows == ROWS
    cursor.close()


@pytest.mark.parametrize("kind", KINDS, ids=name)
async def test_every_asynchronous_cursor_counts_its_rows_once(
    aconnection: Any, charges: Charges, kind: dict[str, bool]
) -> None:
    cursor = await aconnection.cursor(**kind)
    await cursor.execute("SELECT a FROM t ORDER BY a")
    assert await cursor.fetchone() is not None
    assert len(await cursor.fetchmany(5)) == 5
    assert len(await cursor.fetchall()) == ROWS - 6
    charge = charges.one()
    assert (charge.rows, charge.partial) == (ROWS, False)
    await cursor.close()


async def test_what_is_cancelled_costs(aconnection: Any, charges: Charges) -> None:
    cursor = await aconnection.cursor()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(cursor.execute("SELECT SLEEP(5)"), 0.2)
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "asyncio.exceptions.CancelledError"
    assert 150 <= milliseconds(charge) < 2000


def test_a_batch_that_is_sent_one_by_one_is_still_one_charge(
    connection: Any, charges: Charges
) -> None:
    connection.cursor().executemany("UPDATE t SET b = %s WHERE a = %s", [("y", 1), ("y", 2)])
    charge = charges.one()
    assert (charge.operation, charge.rows, charge.usage["batch_size"]) == ("BATCH UPDATE", 2, 2)


def test_a_procedure_is_one_charge(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE OR REPLACE PROCEDURE first_rows3(n INT) SELECT a FROM t WHERE a < n")
    charges.new()
    cursor.callproc("first_rows3", (4,))
    charge = charges.one()
    assert (charge.operation, text_of(charge)) == ("CALL", "CALL first_rows3")


def test_a_statement_that_fails_costs(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    with pytest.raises(mysql.connector.ProgrammingError) as caught:
        cursor.execute(f"SELECT '{SECRET}' FROM nowhere")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "mysql.connector.errors.ProgrammingError"
    assert charge.error.sqlstate == caught.value.sqlstate == "42S02"
    assert SECRET not in charges.text()
    cursor.close()
    with pytest.raises(mysql.connector.ProgrammingError, match="not connected"):
        cursor.execute("SELECT 1")
    assert charges.one().resource.address is None


def test_a_cursor_that_cannot_be_closed_is_still_open(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t")
    with pytest.raises(mysql.connector.InternalError, match="Unread result"):
        cursor.close()
    assert len(cursor.fetchall()) == ROWS
    charge = charges.one()
    assert (charge.rows, charge.error, charge.partial) == (ROWS, None, False)


def test_its_own_opentelemetry_wrapper_changes_nothing(mariadb: Server, tmp_path: Path) -> None:
    from mysql.connector.opentelemetry.instrumentation import MySQLInstrumentor

    theirs: Any = MySQLInstrumentor()
    with instrumented(tmp_path / "ledger", "mysql_connector") as charges:
        theirs.instrument()
        try:
            connection: Any = mysql.connector.connect(use_pure=True, **account(mariadb))
            charges.new()
            cursor = connection.cursor()
            cursor.execute("SELECT 1 UNION SELECT 2")
            assert cursor.fetchall() == [(1,), (2,)]
            assert charges.one().rows == 2
            connection.close()
        finally:
            theirs.uninstrument()
