"""aiomysql on a real MariaDB: every way of awaiting a statement, one charge each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiomysql
import pytest

import costinsights
from tests.servers.charges import Charges, instrumented, milliseconds, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.backends import Server

SECRET = "s3cr3t-51f8"
ROWS = 50


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "aiomysql") as charges:
        yield charges


@pytest.fixture
async def pool(charges: Charges, mariadb: Server) -> AsyncIterator[Any]:
    connect: Any = aiomysql
    pool: Any = await connect.create_pool(
        host=mariadb.host,
        port=mariadb.port,
        user=mariadb.user,
        password=mariadb.password,
        db=mariadb.database,
        maxsize=4,
    )
    yield pool
    pool.terminate()
    await pool.wait_closed()


@pytest.fixture
async def connection(pool: Any, charges: Charges) -> AsyncIterator[Any]:
    async with pool.acquire() as connection:
        async with connection.cursor() as cursor:
            await cursor.execute("CREATE TEMPORARY TABLE t (a INT PRIMARY KEY, b VARCHAR(20))")
            await cursor.executemany(
                "INSERT INTO t VALUES (%s, %s)", [(i, "x") for i in range(ROWS)]
            )
        assert [(charge.operation, charge.rows) for charge in charges.new()] == [
            ("CREATE TABLE", 0),
            ("BATCH INSERT", ROWS),
        ]
        yield connection


async def test_a_charge_says_what_ran_where(
    connection: Any, charges: Charges, mariadb: Server
) -> None:
    async with connection.cursor(aiomysql.DictCursor) as cursor:
        await cursor.execute("SELECT a FROM t WHERE a < %s AND b = 'x'", (10,))
        assert len(await cursor.fetchall()) == 10
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("mariadb", "aiomysql")
    assert charge.resource.address == mariadb.host
    assert charge.resource.port == mariadb.port
    assert charge.resource.namespace == mariadb.database
    assert text_of(charge) == "SELECT a FROM t WHERE a < %s AND b = ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 10, False)


@pytest.mark.parametrize("how", ["all", "loop", "many"])
async def test_unbuffered_rows_complete_the_charge(
    connection: Any, charges: Charges, how: str
) -> None:
    async with connection.cursor(aiomysql.SSCursor) as cursor:
        await cursor.execute("SELECT a FROM t")
        assert charges.one().partial
        if how == "all":
            assert len(await cursor.fetchall()) == ROWS
        elif how == "loop":
            assert len([row async for row in cursor]) == ROWS
        else:
            while len(await cursor.fetchmany(7)) == 7:
                pass
        charge = charges.one()
    assert (charge.rows, charge.partial) == (ROWS, False)


async def test_what_is_not_read_to_its_end_is_partial(connection: Any, charges: Charges) -> None:
    async with connection.cursor(aiomysql.SSCursor) as cursor:
        await cursor.execute("SELECT a FROM t")
        await cursor.fetchone()
    charge = charges.one()
    assert (charge.rows, charge.partial) == (1, True)


async def test_a_procedure(connection: Any, charges: Charges) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute(
            "CREATE OR REPLACE PROCEDURE first_rows4(n INT) SELECT a FROM t WHERE a < n"
        )
        charges.new()
        await cursor.callproc("first_rows4", (4,))
        assert len(await cursor.fetchall()) == 4
    charge = charges.one()
    assert (charge.operation, text_of(charge), charge.rows) == ("CALL", "CALL first_rows4", 4)


async def test_what_is_cancelled_costs(pool: Any, charges: Charges) -> None:
    async with pool.acquire() as connection, connection.cursor() as cursor:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(cursor.execute("SELECT SLEEP(5)"), 0.2)
    charge = charges.new()[0]
    assert charge.error is not None
    assert charge.error.type == "asyncio.exceptions.CancelledError"
    assert 150 <= milliseconds(charge) < 2000


async def test_a_statement_that_fails_costs(connection: Any, charges: Charges) -> None:
    async with connection.cursor() as cursor:
        with pytest.raises(aiomysql.ProgrammingError) as caught:
            await cursor.execute(f"SELECT '{SECRET}' FROM nowhere")
    assert caught.value.args[0] == 1146
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "pymysql.err.ProgrammingError"
    assert SECRET not in charges.text()


async def test_tasks_do_not_mix(pool: Any, charges: Charges) -> None:
    async def work(number: int) -> None:
        with costinsights.attribute(job=f"job{number}"):
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute("SELECT SLEEP(0.1)")

    await asyncio.gather(*(work(number) for number in range(4)))
    found = charges.new()
    assert sorted(charge.attribution["job"] for charge in found) == [f"job{n}" for n in range(4)]
    assert all(100 <= milliseconds(charge) < 1000 for charge in found)
