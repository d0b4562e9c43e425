"""asyncpg on a real PostgreSQL: connections, prepared statements, cursors, copies and pools."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import time
import traceback
import weakref
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from tests.backends import PASSWORD
from tests.servers.charges import Charges, instrumented, milliseconds, since, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from tests.backends import Server

# It has no types of its own.
asyncpg: Any = import_module("asyncpg")

SECRET = "s3cr3t-77d0"
SERIES = "SELECT generate_series(1, 120)"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "asyncpg") as charges:
        yield charges


@pytest.fixture
async def connection(charges: Charges, postgres: Server) -> AsyncIterator[Any]:
    connection: Any = await asyncpg.connect(postgres.dsn)
    await connection.execute("CREATE TEMP TABLE t (a int)")
    await connection.execute("INSERT INTO t SELECT generate_series(1, 10)")
    charges.new()
    yield connection
    await connection.close()


async def test_a_statement_is_a_charge(connection: Any, charges: Charges, postgres: Server) -> None:
    await connection.fetch(f"SELECT pg_sleep(0.05), '{SECRET}' WHERE $1 <> ''", SECRET)
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("postgresql", "asyncpg")
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 1, False)
    assert text_of(charge) == "SELECT pg_sleep(?), ? WHERE $1 <> ?"
    assert 50 <= milliseconds(charge) < 5_000
    assert (charge.resource.address, charge.resource.port, charge.resource.namespace) == (
        postgres.host,
        postgres.port,
        postgres.database,
    )
    written = charges.text()
    assert SECRET not in written
    assert PASSWORD not in written


WAYS: dict[str, tuple[Callable[[Any], Awaitable[object]], int | None]] = {
    "execute": (lambda c: c.execute("UPDATE t SET a = a + 1"), 10),
    "execute with arguments": (lambda c: c.execute("DELETE FROM t WHERE a > $1", 7), 3),
    "execute without a count": (lambda c: c.execute("CREATE TEMP TABLE u (a int)"), None),
    "fetch": (lambda c: c.fetch("SELECT * FROM t"), 10),
    "fetch nothing": (lambda c: c.fetch("SELECT * FROM t WHERE a > $1", 99), 0),
    "fetchrow": (lambda c: c.fetchrow("SELECT * FROM t"), 1),
    "fetchrow without one": (lambda c: c.fetchrow("SELECT * FROM t WHERE false"), 0),
    "fetchval": (lambda c: c.fetchval("SELECT ARRAY[1, 2, 3]"), 1),
    "fetchval of NULL": (lambda c: c.fetchval("SELECT NULL"), None),
    "keywords": (lambda c: c.fetch(query="SELECT 1"), 1),
    "executemany": (lambda c: c.executemany("INSERT INTO t VALUES ($1)", [(1,), (2,)]), None),
    "fetchmany": (lambda c: c.fetchmany("INSERT INTO t VALUES ($1) RETURNING a", [(1,), (2,)]), 2),
    "copy_from_table": (lambda c: c.copy_from_table("t", output=io.BytesIO()), 10),
    "copy_from_query": (
        lambda c: c.copy_from_query("SELECT a FROM t WHERE a > $1", 5, output=io.BytesIO()),
        5,
    ),
    "copy_to_table": (lambda c: c.copy_to_table("t", source=io.BytesIO(b"1\n2\n")), 2),
    "copy_records_to_table": (lambda c: c.copy_records_to_table("t", records=[(1,)]), 1),
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_is_one_charge_with_its_rows(
    way: str, connection: Any, charges: Charges
) -> None:
    run, rows = WAYS[way]
    await run(connection)
    charge = charges.one()
    assert charge.rows == rows
    assert charge.error is None
    assert not charge.partial


async def test_batches_and_copies_say_what_they_are(connection: Any, charges: Charges) -> None:
    await connection.executemany("INSERT INTO t VALUES ($1)", [(1,), (2,)])
    charge = charges.one()
    assert (charge.operation, charge.usage["batch_size"]) == ("BATCH INSERT", 2)
    await connection.copy_records_to_table("t", records=[(1,)])
    charge = charges.one()
    assert (charge.operation, text_of(charge)) == ("COPY", "COPY t")
    await connection.copy_from_query("SELECT a FROM t", output=io.BytesIO())
    charge = charges.one()
    assert (charge.operation, text_of(charge)) == ("COPY", "SELECT a FROM t")


async def test_prepared_statements(connection: Any, charges: Charges) -> None:
    prepared = await connection.prepare("SELECT a FROM t WHERE a > $1")
    assert not charges.new()
    await prepared.fetch(4)
    charge = charges.one()
    assert (text_of(charge), charge.rows) == ("SELECT a FROM t WHERE a > $1", 6)
    await prepared.fetchrow(99)
    assert charges.one().rows == 0
    await prepared.fetchval(4)
    assert charges.one().rows == 1
    insert = await connection.prepare("INSERT INTO t VALUES ($1) RETURNING a")
    await insert.executemany([(1,), (2,)])
    charge = charges.one()
    assert (charge.operation, charge.usage["batch_size"]) == ("BATCH INSERT", 2)
    await insert.fetchmany([(1,), (2,), (3,)])
    assert charges.one().rows == 3
    update = await connection.prepare("UPDATE t SET a = a + 1 WHERE a > $1")
    assert await update.fetch(8) == []
    assert charges.one().rows == 2
    assert await update.fetch(999) == []
    assert charges.one().rows == 0
    await prepared.explain(1)
    assert charges.one().operation == "EXPLAIN"


async def test_a_cursor_is_completed_when_it_is_exhausted(
    connection: Any, charges: Charges
) -> None:
    async with connection.transaction():
        charges.new()
        began = time.perf_counter()
        rows = aiter(connection.cursor(SERIES))
        await rows.__anext__()
        [first] = charges.entries()
        assert (first.rows, first.partial) == (50, True)
        await asyncio.sleep(0.4)  # the program's own time
        assert len([row async for row in rows]) == 119
        [last] = charges.entries()
        assert (last.charge_id, last.rows, last.partial) == (first.charge_id, 120, False)
        assert milliseconds(last) <= since(began) - 400


async def test_a_cursor_that_is_awaited(connection: Any, charges: Charges) -> None:
    async with connection.transaction():
        prepared = await connection.prepare(SERIES)
        charges.new()
        for source in (connection.cursor(SERIES), prepared.cursor()):
            cursor = await source
            await cursor.forward(10)
            assert len(await cursor.fetch(20)) == 20
            assert await cursor.fetchrow() is not None
            assert len(await cursor.fetch(100)) == 89
            charge = charges.one()
            assert (charge.rows, charge.partial) == (110, False)


async def test_a_cursor_that_is_dropped_is_partial(connection: Any, charges: Charges) -> None:
    async with connection.transaction():
        charges.new()
        async for _ in connection.cursor(SERIES):
            break
        gc.collect()
        charge = charges.one()
        assert (charge.rows, charge.partial) == (50, True)
        cursor = await connection.cursor(SERIES)
        await cursor.fetch(7)
        del cursor
        gc.collect()
        charge = charges.one()
        assert (charge.rows, charge.partial) == (7, True)


async def test_errors_are_the_drivers_own(connection: Any, charges: Charges) -> None:
    with pytest.raises(asyncpg.UndefinedColumnError) as caught:
        await connection.fetch(f"SELECT nope, '{SECRET}'")
    ours = len(traceback.extract_tb(caught.value.__traceback__))
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "asyncpg.exceptions.UndefinedColumnError"
    assert charge.error.sqlstate == "42703"
    assert SECRET not in charges.text()
    bare = inspect.unwrap(asyncpg.Connection.fetch)
    with pytest.raises(asyncpg.UndefinedColumnError) as caught:
        await bare(connection, "SELECT nope")
    assert ours <= len(traceback.extract_tb(caught.value.__traceback__)) + 1


async def test_timeouts_and_cancellation_still_cost(connection: Any, charges: Charges) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await connection.fetch("SELECT pg_sleep(30)", timeout=0.1)
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type.endswith("TimeoutError")
    assert 80 <= milliseconds(charge) < 10_000
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(connection.fetch("SELECT pg_sleep(30)"), 0.1)
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "asyncio.exceptions.CancelledError"
    task = asyncio.create_task(connection.fetch("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.05)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == ("enough",)
    assert charges.one().error is not None


async def test_what_raises_before_it_is_awaited_still_does(
    charges: Charges, postgres: Server
) -> None:
    async with asyncpg.create_pool(postgres.dsn, min_size=1, max_size=1) as pool:
        async with pool.acquire() as connection:
            prepared = await connection.prepare("SELECT 1")
            async with connection.transaction():
                cursor = await connection.cursor("SELECT 1")
        for method, arguments in (
            (prepared.fetch, ()),
            (cursor.fetch, (1,)),
            (cursor.forward, (1,)),
        ):
            with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                method(*arguments)


def test_functions_are_what_they_were(charges: Charges) -> None:
    assert inspect.iscoroutinefunction(asyncpg.Connection.fetch)
    assert not inspect.iscoroutinefunction(asyncpg.prepared_stmt.PreparedStatement.fetch)
    signature = inspect.signature(asyncpg.Connection.fetch)
    assert [*signature.parameters] == ["self", "query", "args", "timeout", "record_class"]


async def test_a_pool_and_its_resets(charges: Charges, postgres: Server) -> None:
    async with asyncpg.create_pool(postgres.dsn, min_size=1, max_size=2) as pool:
        await pool.fetch("SELECT 1 AS mine")
        async with pool.acquire() as connection:
            assert type(connection).__name__ == "PoolConnectionProxy"
            await connection.fetchval("SELECT 2 AS mine")
    texts = [text_of(charge) for charge in charges.new()]
    assert texts.count("SELECT ? AS mine") == 2
    assert all("mine" in text or "RESET ALL" in text for text in texts)


async def test_connections_opened_before_are_seen(postgres: Server, tmp_path: Path) -> None:
    connection: Any = await asyncpg.connect(postgres.dsn)
    with instrumented(tmp_path, "asyncpg") as charges:
        await connection.fetch("SELECT 1")
        assert charges.one().rows == 1
    await connection.fetch("SELECT 1")
    assert not charges.new()
    await connection.close()


async def test_a_closed_connection_fails_as_ever(charges: Charges, postgres: Server) -> None:
    connection: Any = await asyncpg.connect(postgres.dsn)
    await connection.close()
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await connection.fetch("SELECT 1")
    assert charges.one().error is not None


async def test_parameters_are_not_kept_alive(connection: Any, charges: Charges) -> None:
    class Parameter(str):
        __slots__ = ("__weakref__",)

    parameter = Parameter(SECRET)
    alive = weakref.ref(parameter)
    async with connection.transaction():
        await connection.fetch("SELECT $1::text", parameter)
        del parameter
        gc.collect()
        assert alive() is None


def test_a_unix_sockets_path_is_its_directory_and_port() -> None:
    """As libpq, and so psycopg, says it."""
    from costinsights_instrumentors.asyncpg import AsyncpgInstrumentor

    class Parameters:
        database = "shop"

    class Connection:
        _addr: object = "/run/postgresql/.s.PGSQL.5433"
        _params = Parameters()

    found = AsyncpgInstrumentor().resource(Connection())
    assert (found.address, found.port, found.namespace) == ("/run/postgresql", 5433, "shop")
