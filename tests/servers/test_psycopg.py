"""psycopg 3 on a real PostgreSQL: every way of running a statement, one charge each."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING, Any, cast

import psycopg
import psycopg_pool
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.string import StrDumper

from tests.backends import PASSWORD, USER
from tests.servers.charges import Charges, instrumented, milliseconds, since, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.backends import Server

SECRET = "s3cr3t-9f1c"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "psycopg") as charges:
        yield charges


@pytest.fixture
def connection(charges: Charges, postgres: Server) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("CREATE TEMP TABLE t (a int, b text)")
        connection.execute("INSERT INTO t SELECT i, i::text FROM generate_series(1, 10) i")
        connection.commit()
        charges.new()
        yield connection
        connection.rollback()


@pytest.fixture
async def aconnection(
    charges: Charges, postgres: Server
) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        await connection.execute("CREATE TEMP TABLE t (a int, b text)")
        await connection.execute("INSERT INTO t SELECT i, i::text FROM generate_series(1, 10) i")
        await connection.commit()
        charges.new()
        yield connection
        await connection.rollback()


# --- What a charge says -------------------------------------------------------------------------


def test_a_statement_is_a_charge(
    connection: psycopg.Connection[Any], charges: Charges, postgres: Server
) -> None:
    rows = connection.execute(f"SELECT a, '{SECRET}' FROM t WHERE b <> %s", [SECRET]).fetchall()
    charge = charges.one()
    assert len(rows) == 10
    assert charge.rows == 10
    assert charge.system == "postgresql"
    assert charge.instrumentor == "psycopg"
    assert charge.operation == "SELECT"
    assert text_of(charge) == "SELECT a, ? FROM t WHERE b <> %s"
    assert charge.error is None
    assert not charge.partial
    assert (charge.resource.address, charge.resource.port, charge.resource.namespace) == (
        postgres.host,
        postgres.port,
        postgres.database,
    )
    written = charges.text()
    assert SECRET not in written
    assert PASSWORD not in written
    assert f'"{USER}"' not in written


def test_time_is_that_of_the_server(connection: psycopg.Connection[Any], charges: Charges) -> None:
    began = time.perf_counter()
    connection.execute("SELECT pg_sleep(0.05)")
    time.sleep(0.4)
    assert 50 <= milliseconds(charges.one()) <= since(began) - 400


WAYS: dict[str, tuple[Callable[[psycopg.Connection[Any]], object], int | None]] = {
    "connection": (lambda c: c.execute("SELECT * FROM t"), 10),
    "cursor": (lambda c: c.cursor().execute("SELECT * FROM t LIMIT 3").fetchall(), 3),
    "no row": (lambda c: c.execute("SELECT * FROM t WHERE false").fetchone(), 0),
    "never fetched": (lambda c: c.execute("SELECT * FROM t"), 10),
    "keywords": (lambda c: c.cursor().execute(query="SELECT %s", params=[1]), 1),
    "named parameters": (lambda c: c.execute("SELECT %(a)s", {"a": 1}), 1),
    "binary": (lambda c: c.execute("SELECT 1", binary=True), 1),
    "prepared": (lambda c: c.execute("SELECT 1", prepare=True), 1),
    "update": (lambda c: c.execute("UPDATE t SET a = a + 1"), 10),
    "no rows to count": (lambda c: c.execute("CREATE TEMP TABLE u (a int)"), None),
    "several statements": (lambda c: c.execute("SELECT 1; SELECT 2 UNION SELECT 3"), 3),
    "row factory": (lambda c: c.cursor(row_factory=dict_row).execute("SELECT 1 AS a"), 1),
    "client-side": (lambda c: psycopg.ClientCursor(c).execute("SELECT %s", [1]), 1),
    "raw": (lambda c: psycopg.RawCursor(c).execute("SELECT $1::int", [1]), 1),
    "raw server": (
        lambda c: psycopg.RawServerCursor(c, "raw").execute("SELECT $1::int", [1]).fetchall(),
        1,
    ),
    "bytes": (lambda c: c.execute(b"SELECT 1"), 1),
    "executemany": (lambda c: many(c, [(1,), (2,), (3,)]), 3),
    "executemany of nothing": (lambda c: many(c, []), 0),
    "executemany of a generator": (lambda c: many(c, ((i,) for i in range(4))), 4),
    "executemany returning": (lambda c: many(c, [(1,), (2,), (3,)], returning=True), 3),
    "stream": (lambda c: list(c.cursor().stream("SELECT * FROM t")), 10),
    "stream of nothing": (lambda c: list(c.cursor().stream("SELECT * FROM t WHERE false")), 0),
    "server": (lambda c: c.cursor("s").execute("SELECT * FROM t").fetchall(), 10),
    "scrollable": (lambda c: c.cursor("s", scrollable=True).execute("TABLE t").fetchall(), 10),
}


def many(connection: psycopg.Connection[Any], sets: Any, *, returning: bool = False) -> None:
    ending = b" RETURNING a" if returning else b""
    cursor = connection.cursor()
    cursor.executemany(b"INSERT INTO t (a) VALUES (%s)" + ending, sets, returning=returning)
    while returning and cursor.nextset():
        assert cursor.fetchone() is not None


@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_one_charge_with_its_rows(
    way: str, connection: psycopg.Connection[Any], charges: Charges
) -> None:
    run, rows = WAYS[way]
    run(connection)
    charge = charges.one()
    assert charge.rows == rows
    assert not charge.partial
    assert charge.error is None


def test_a_batch_says_how_many(connection: psycopg.Connection[Any], charges: Charges) -> None:
    many(connection, [(1,), (2,)])
    charge = charges.one()
    assert charge.operation == "BATCH INSERT"
    assert charge.usage["batch_size"] == 2
    many(connection, [(1,)])
    charge = charges.one()
    assert charge.operation == "INSERT"
    assert charge.usage["batch_size"] == 1


# --- Text that is no text -----------------------------------------------------------------------


def test_composed_queries_leave_their_literals_out(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    query = sql.SQL("SELECT {}, {} AS {} FROM t WHERE b <> {}").format(
        sql.SQL(", ").join(map(sql.Identifier, ["a", "b"])),
        sql.Literal(SECRET),
        sql.Identifier('odd "name"'),
        sql.Placeholder(),
    )
    connection.execute(query, ["x"])
    charge = charges.one()
    assert text_of(charge) == 'SELECT "a", "b", ? AS "odd ""name""" FROM t WHERE b <> %s'
    assert SECRET not in charges.text()


class Interpolation:
    """As in Python 3.14's `string.templatelib`."""

    def __init__(self, value: object, format_spec: str = "") -> None:
        self.value, self.format_spec = value, format_spec


class Template(list[Any]):
    interpolations = ()


def test_template_strings_leave_their_values_out() -> None:
    """psycopg runs them on Python 3.14 only; their text can be had on any."""
    from costinsights_instrumentors.psycopg import PsycopgInstrumentor

    inner = Template([" AND b = ", Interpolation(SECRET)])
    outer = Template(
        [
            "SELECT ",
            Interpolation('a"', "i"),
            " FROM ",
            Interpolation(sql.Identifier("t")),
            " WHERE c = ",
            Interpolation(SECRET, "l"),
            Interpolation(inner, "q"),
        ]
    )
    found = PsycopgInstrumentor().text(outer, None)
    assert found == 'SELECT "a""" FROM "t" WHERE c = ? AND b = ?'


@pytest.mark.parametrize("query", [None, 7, object(), [], b"\xff\xfe", "SELECT '\ud800'"])
def test_what_is_no_query_fails_as_without_us(
    query: Any, postgres: Server, connection: psycopg.Connection[Any], charges: Charges
) -> None:
    with psycopg.connect(postgres.dsn) as other, pytest.raises(Exception) as ours:
        other.execute(query)
    assert charges.one().error is not None
    original = inspect.unwrap(psycopg.Cursor.execute)
    with pytest.raises(type(ours.value)) as bare:
        original(connection.cursor(), query)
    assert str(bare.value) == str(ours.value)


# --- Results that come later --------------------------------------------------------------------


def test_a_server_side_cursor_is_completed_when_it_is_exhausted(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    with connection.cursor("s") as cursor:
        cursor.itersize = 4
        cursor.execute("SELECT *, pg_sleep(0.005) FROM t")
        first = charges.entries()
        assert [(entry.rows, entry.partial) for entry in first] == [(None, True)]
        assert len(list(cursor)) == 10
        last = charges.entries()
        assert [(entry.rows, entry.partial) for entry in last] == [(10, False)]
        assert last[0].charge_id == first[0].charge_id
        assert milliseconds(last[0]) >= 50
    assert not charges.entries()


def test_a_server_side_cursor_left_early_is_partial(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    began = time.perf_counter()
    with connection.cursor("s") as cursor:
        cursor.execute("SELECT * FROM t")
        assert len(cursor.fetchmany(3)) == 3
        cursor.scroll(2)
        assert cursor.fetchone() == (6, "6")
        time.sleep(0.4)
    charge = charges.one()
    assert (charge.rows, charge.partial) == (4, True)
    assert milliseconds(charge) <= since(began) - 400


def test_a_server_side_cursor_used_again(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    with connection.cursor("s") as cursor:
        cursor.execute("SELECT * FROM t").fetchone()
        cursor.execute("SELECT 1").fetchall()
    first, second = charges.new()
    assert (first.rows, first.partial) == (1, True)
    assert (second.rows, second.partial) == (1, False)


def test_a_failing_fetch_ends_the_charge_with_its_error(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    with connection.cursor("s") as cursor:
        cursor.execute("SELECT 10 / (a - 5) FROM t")
        with pytest.raises(psycopg.errors.DivisionByZero):
            cursor.fetchall()
        connection.rollback()
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.sqlstate == "22012"


def test_a_stream_that_is_left_is_partial(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    began = time.perf_counter()
    stream = connection.cursor().stream("SELECT * FROM t")
    next(stream)
    [entry] = charges.entries()
    assert (entry.rows, entry.partial) == (1, True)
    next(stream)
    time.sleep(0.4)
    cast("Any", stream).close()
    [entry] = charges.entries()
    assert (entry.revision, entry.rows, entry.partial) == (1, 2, True)
    assert milliseconds(entry) <= since(began) - 400


def test_copy_counts_the_servers_time_and_not_the_programs(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    began = time.perf_counter()
    with connection.cursor().copy("COPY t (a) FROM STDIN") as copy:
        for number in range(1000):
            copy.write_row((number,))
        copy.write("7\n")
        time.sleep(0.4)
    charge = charges.one()
    assert (charge.operation, charge.rows, charge.partial) == ("COPY", 1001, False)
    assert milliseconds(charge) <= since(began) - 400

    began = time.perf_counter()
    with connection.cursor().copy("COPY t TO STDOUT") as copy:
        assert sum(1 for _ in copy.rows()) == 1011
        time.sleep(0.4)
    charge = charges.one()
    assert (charge.rows, charge.partial) == (1011, False)
    assert milliseconds(charge) <= since(began) - 400

    with connection.cursor().copy("COPY (SELECT pg_sleep(0.05)) TO STDOUT") as copy:
        assert copy.read()
        assert not copy.read()
    assert milliseconds(charges.one()) >= 50


def test_copy_that_fails(connection: psycopg.Connection[Any], charges: Charges) -> None:
    class Mine(Exception):
        pass

    mine = Mine()
    with pytest.raises(Mine) as caught, connection.cursor().copy("COPY t FROM STDIN"):
        raise mine
    assert caught.value is mine
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type.endswith("Mine")
    connection.rollback()
    with (
        pytest.raises(psycopg.errors.UndefinedTable),
        connection.cursor().copy("COPY no TO STDOUT"),
    ):
        pass
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.sqlstate == "42P01"


# --- Pipelines ----------------------------------------------------------------------------------


def test_a_pipelined_statement_is_completed_when_its_answer_comes(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    with connection.pipeline() as pipeline:
        # Half a second: an answer that is there already need not be waited for.
        cursor = connection.execute("SELECT *, pg_sleep(0.05) FROM t")
        [sent] = charges.entries()
        assert (sent.rows, sent.partial) == (None, True)
        pipeline.sync()
        [answered] = charges.entries()
        assert (answered.charge_id, answered.rows, answered.partial) == (sent.charge_id, 10, False)
        assert answered.ended_at > sent.ended_at
        assert len(cursor.fetchall()) == 10
    assert not charges.entries()


def test_a_pipelines_waiting_is_counted(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    with connection.pipeline():
        connection.execute("SELECT pg_sleep(0.25)")
        connection.execute("SELECT pg_sleep(0.25)")
    assert 500 <= sum(map(milliseconds, charges.new())) < 1000


def test_one_cursor_for_many_pipelined_statements(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    with connection.pipeline():
        cursor = connection.cursor()
        for count in range(5):
            cursor.execute("SELECT * FROM t LIMIT %s", [count])
        cursor.executemany("INSERT INTO t (a) VALUES (%s)", [(i,) for i in range(30)])
        cursor.execute("SELECT * FROM t")
        assert len(cursor.fetchall()) == 40
    assert [charge.rows for charge in charges.new()] == [0, 1, 2, 3, 4, 30, 40]
    assert not charges.entries()


def test_a_failing_pipeline_tells_which_statement_failed(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    def run() -> None:
        with connection.pipeline():
            connection.execute("SELECT 1")
            connection.execute("SELECT 1 / 0")
            connection.execute("SELECT 3")

    with pytest.raises(psycopg.errors.DivisionByZero):
        run()
    first, failed, aborted = charges.new()
    assert first.error is None
    assert failed.error is not None
    assert (failed.error.type, failed.error.sqlstate) == (
        "psycopg.errors.DivisionByZero",
        "22012",
    )
    # Where the server is quick, psycopg raises the error of the second from the third's `execute`.
    assert aborted.error is not None
    assert aborted.error.type in {
        "psycopg.errors.PipelineAborted",
        "psycopg.errors.DivisionByZero",
    }


def test_a_pipeline_whose_connection_dies_leaves_nothing_open(
    connection: psycopg.Connection[Any], charges: Charges, postgres: Server
) -> None:
    from costinsights.runtime import active

    def run() -> None:
        with psycopg.connect(postgres.dsn, autocommit=True) as other, other.pipeline():
            other.execute("SELECT 1")
            other.execute("SELECT pg_sleep(10)")
            connection.execute("SELECT pg_terminate_backend(%s)", [other.info.backend_pid])

    with pytest.raises(psycopg.OperationalError):
        run()
    errors = [charge.error for charge in charges.new()]
    assert any(errors)
    gc.collect()
    runtime = active()
    assert runtime is not None
    assert runtime.made is not None
    assert not runtime.made.owed.spans
    assert not runtime.made.opened


# --- Errors and cancellation --------------------------------------------------------------------


def test_an_error_is_the_drivers_own(connection: psycopg.Connection[Any], charges: Charges) -> None:
    with pytest.raises(psycopg.errors.UndefinedColumn) as caught:
        connection.cursor().execute(f"SELECT nope, '{SECRET}'")
    ours = len(traceback.extract_tb(caught.value.__traceback__))
    charge = charges.one()
    assert charge.rows is None
    assert charge.error is not None
    assert (charge.error.type, charge.error.sqlstate) == ("psycopg.errors.UndefinedColumn", "42703")
    assert SECRET not in charges.text()

    connection.rollback()
    original = inspect.unwrap(psycopg.Cursor.execute)
    with pytest.raises(psycopg.errors.UndefinedColumn) as caught:
        original(connection.cursor(), "SELECT nope")
    assert ours <= len(traceback.extract_tb(caught.value.__traceback__)) + 1


def test_a_cancelled_statement_still_costs(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    timer = threading.Timer(0.1, connection.cancel)
    timer.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute("SELECT pg_sleep(30)")
    timer.join()
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.sqlstate == "57014"
    assert 80 <= milliseconds(charge) < 10_000


def test_a_closed_connection_fails_as_ever(charges: Charges, postgres: Server) -> None:
    connection = psycopg.connect(postgres.dsn)
    cursor = connection.cursor()
    connection.close()
    with pytest.raises(psycopg.OperationalError, match="closed"):
        cursor.execute("SELECT 1")
    charge = charges.one()
    assert charge.error is not None
    assert charge.resource.address is None


# --- It changes nothing -------------------------------------------------------------------------


def test_types_and_signatures_are_untouched(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    cursor = connection.cursor()
    assert type(connection) is psycopg.Connection
    assert type(cursor) is psycopg.Cursor
    assert cursor.execute("SELECT 1") is cursor
    assert type(cursor.stream("SELECT 1")).__name__ == "generator"
    assert repr(cursor).startswith("<psycopg.Cursor [TUPLES_OK]")
    assert [*inspect.signature(psycopg.Cursor.execute).parameters][:3] == [
        "self",
        "query",
        "params",
    ]
    assert inspect.iscoroutinefunction(psycopg.AsyncCursor.execute)
    assert inspect.isasyncgenfunction(psycopg.AsyncCursor.stream)
    assert inspect.isgeneratorfunction(psycopg.Cursor.stream)


def test_connections_opened_before_are_seen(postgres: Server, tmp_path: Path) -> None:
    with psycopg.connect(postgres.dsn) as connection, connection.cursor() as cursor:
        with instrumented(tmp_path, "psycopg") as charges:
            cursor.execute("SELECT 1")
            assert charges.one().rows == 1
        cursor.execute("SELECT 2")
        assert not charges.new()


def test_a_subclass_of_the_programs_own(charges: Charges, postgres: Server) -> None:
    class Mine(psycopg.Cursor[Any]):
        def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            return super().execute(query + " -- mine", *args, **kwargs)

    with psycopg.connect(postgres.dsn, cursor_factory=Mine) as connection:
        connection.execute("SELECT 1")
        assert charges.one().rows == 1
        assert type(connection.cursor()) is Mine


def test_parameters_are_not_kept_alive(
    connection: psycopg.Connection[Any], charges: Charges
) -> None:
    class Parameter(str):
        __slots__ = ("__weakref__",)

    connection.adapters.register_dumper(Parameter, StrDumper)
    one, other = Parameter(SECRET), Parameter(SECRET)
    refs = [weakref.ref(one), weakref.ref(other)]
    cursor = connection.cursor()
    cursor.execute("SELECT %s", [one])
    cursor.executemany("SELECT %s", [[other]])
    with connection.cursor("s") as server:
        server.execute("SELECT %s", [one])
        del one, other
        gc.collect()
        assert [ref() for ref in refs] == [None, None]
    assert SECRET not in charges.text()


COUNTS = """
    SELECT name, regexp_replace(statement, '\\s+', ' ', 'g'), calls
    FROM (SELECT name, statement, generic_plans + custom_plans AS calls FROM pg_prepared_statements) p
    ORDER BY name
"""


def prepared_after_use(postgres: Server) -> list[Any]:
    """Use a connection so that some statements are prepared, and return what the server has."""
    with psycopg.connect(postgres.dsn, prepare_threshold=3) as connection:
        connection.execute("CREATE TEMP TABLE t (a int)", prepare=False)
        for number in range(10):
            connection.execute("SELECT %s::int", [number])
            connection.execute(f"SELECT {number}".encode())
            connection.execute(sql.SQL("SELECT {} FROM t").format(sql.Identifier("a")))
        connection.cursor().executemany("SELECT %s::text", [("a",), ("b",)])
        with connection.pipeline():
            for number in range(5):
                connection.execute("SELECT %s::bigint", [number])
        return connection.execute(COUNTS.encode()).fetchall()


def test_the_server_prepares_the_same_statements(postgres: Server, tmp_path: Path) -> None:
    bare = prepared_after_use(postgres)
    with instrumented(tmp_path, "psycopg") as charges:
        ours = prepared_after_use(postgres)
        assert len(charges.new()) == 38
    assert len(bare) == 4
    assert ours == bare


# --- Pools --------------------------------------------------------------------------------------


def test_a_pool_is_seen_and_its_checks_are_not(charges: Charges, postgres: Server) -> None:
    with psycopg_pool.ConnectionPool(
        postgres.dsn, min_size=1, max_size=2, check=psycopg_pool.ConnectionPool.check_connection
    ) as pool:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        with pool.connection() as connection:
            connection.execute("SELECT 2")
    texts = [text_of(charge) for charge in charges.new()]
    assert texts.count("SELECT ?") == 2


# --- The same, asynchronously -------------------------------------------------------------------


async def test_async_ways(aconnection: psycopg.AsyncConnection[Any], charges: Charges) -> None:
    cursor = aconnection.cursor()
    assert await cursor.execute("SELECT * FROM t") is cursor
    assert charges.one().rows == 10

    await cursor.executemany("INSERT INTO t (a) VALUES (%s)", [(1,), (2,)])
    charge = charges.one()
    assert (charge.operation, charge.rows) == ("BATCH INSERT", 2)

    assert len([row async for row in cursor.stream("SELECT * FROM t")]) == 12
    charge = charges.one()
    assert (charge.rows, charge.partial) == (12, False)

    began = time.perf_counter()
    async with cursor.copy("COPY t (a) FROM STDIN") as copy:
        await copy.write_row((1,))
        await asyncio.sleep(0.4)
    charge = charges.one()
    assert (charge.operation, charge.rows) == ("COPY", 1)
    assert milliseconds(charge) <= since(began) - 400

    async with cursor.copy("COPY t TO STDOUT") as copy:
        assert len([row async for row in copy.rows()]) == 13
    assert charges.one().rows == 13

    async with aconnection.cursor("s") as server:
        await server.execute("SELECT * FROM t")
        assert charges.one().partial
        assert len([row async for row in server]) == 13
    charge = charges.one()
    assert (charge.rows, charge.partial) == (13, False)


async def test_async_stream_left_early(
    aconnection: psycopg.AsyncConnection[Any], charges: Charges
) -> None:
    stream = aconnection.cursor().stream("SELECT * FROM t")
    async for _ in stream:
        break
    await cast("Any", stream).aclose()
    charge = charges.one()
    assert (charge.rows, charge.partial) == (1, True)


async def test_async_pipeline(aconnection: psycopg.AsyncConnection[Any], charges: Charges) -> None:
    async with aconnection.pipeline() as pipeline:
        began = time.perf_counter()
        await aconnection.execute("SELECT pg_sleep(0.05)")
        cursor = await aconnection.execute("SELECT * FROM t")
        assert all(charge.partial for charge in charges.new())
        before = since(began)  # the server sleeps since it was sent
        await pipeline.sync()
        first, second = charges.new()
        assert (first.rows, second.rows) == (1, 10)
        assert before + milliseconds(first) + milliseconds(second) >= 50
        assert len(await cursor.fetchall()) == 10
    assert not charges.new()


async def test_statements_that_run_at_the_same_time(charges: Charges, postgres: Server) -> None:
    """Each is measured by itself, and belongs to the scope of its own task."""
    import costinsights

    async def one(team: str) -> None:
        with costinsights.attribute(team=team):
            async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
                await connection.execute("SELECT pg_sleep(0.1)")

    await asyncio.gather(*(one(f"team-{number}") for number in range(5)))
    found = charges.new()
    assert sorted(charge.attribution["team"] for charge in found) == [f"team-{n}" for n in range(5)]
    assert all(100 <= milliseconds(charge) < 5_000 for charge in found)


async def test_a_timeout_still_costs(
    aconnection: psycopg.AsyncConnection[Any], charges: Charges
) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(aconnection.execute("SELECT pg_sleep(30)"), 0.1)
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "asyncio.exceptions.CancelledError"
    assert 80 <= milliseconds(charge) < 10_000


async def test_a_cancelled_task_gets_its_own_cancellation(
    aconnection: psycopg.AsyncConnection[Any], charges: Charges
) -> None:
    task = asyncio.create_task(aconnection.execute("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.05)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.args == ("enough",)
    assert charges.one().error is not None


async def test_async_pool(charges: Charges, postgres: Server) -> None:
    async with (
        psycopg_pool.AsyncConnectionPool(postgres.dsn, min_size=1, open=False) as pool,
        pool.connection() as connection,
    ):
        await connection.execute("SELECT 1")
    assert charges.one().rows == 1


def test_a_coroutine_that_nobody_awaits_any_more(
    charges: Charges, postgres: Server, recwarn: pytest.WarningsRecorder
) -> None:
    """An event loop that ends in the middle of a statement: nothing of ours gets in the way."""

    async def run() -> None:
        connection = await psycopg.AsyncConnection.connect(postgres.dsn)
        execution = connection.execute("SELECT pg_sleep(0.5)")
        pending = asyncio.ensure_future(execution)
        await asyncio.sleep(0.05)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await connection.close()

    asyncio.run(run())
    assert charges.one().error is not None
    assert not [warning for warning in recwarn if "costinsights" in str(warning.message)]
