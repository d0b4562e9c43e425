"""Trino's clients on a real Trino: what is charged is what the coordinator itself says at the end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import sqlalchemy as sa
import trino as untyped
from trino.transaction import IsolationLevel

import costinsights
from tests.servers.charges import Charges, instrumented, text_of
from tests.servers.trino_proxy import path_of, recording
from tests.servers.trino_tpch import TPCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from tests.servers.trino_server import Coordinator

trino: Any = untyped
aiotrino: Any = import_module("aiotrino")
SECRET = "s3cr3t-77ac"
ORDERS = 15_000  # of tpch.tiny


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "trino", "aiotrino") as charges:
        yield charges


def connect(server: Coordinator, **more: Any) -> Any:
    options = {"user": "costinsights", "catalog": "tpch", "schema": "tiny", **more}
    return trino.dbapi.connect(**{"host": server.host, "port": server.port, **options})


@pytest.fixture
def connection(charges: Charges, trino_coordinator: Coordinator) -> Iterator[Any]:
    with connect(trino_coordinator) as connection:
        yield connection


@pytest.fixture(scope="module")
def lines(trino_coordinator: Coordinator) -> Iterator[str]:
    """A table whose bytes are counted: the rows of `tpch` are made up as they are read."""
    table = "memory.default.lines"
    with connect(trino_coordinator) as connection:
        cursor = connection.cursor()
        cursor.execute(f"create table {table} as select * from tpch.tiny.lineitem")
        yield table
        cursor.execute(f"drop table {table}")


def count(charge: Charge, meter: str) -> int:
    quantity = charge.usage[meter]
    assert isinstance(quantity, int)
    return quantity


def agrees(charge: Charge, server: Coordinator, *, rows: bool = True) -> None:
    """Hold a charge against what the server says of its query when it is done."""
    assert charge.vendor_id is not None
    used = charge.usage
    if server.events is None:  # somebody else's server: its page, which rounds to three digits
        stats = server.page(f"/v1/query/{charge.vendor_id}")["queryStats"]
        assert used["cpu_time_ms"] == pytest.approx(milliseconds(stats["totalCpuTime"]), rel=0.01)
        assert used["processed_rows"] == stats["rawInputPositions"]
        return
    event = server.events.of(charge.vendor_id)
    stats = event["statistics"]
    assert used["cpu_time_ms"] == milliseconds(stats["cpuTime"])
    assert used["wall_time_ms"] == milliseconds(stats["scheduledTime"])
    assert used["processed_rows"] == stats["totalRows"]
    assert used["processed_bytes"] == stats["totalBytes"]
    assert used["physical_input_bytes"] == stats["physicalInputBytes"]
    assert used["peak_memory_bytes"] == stats["peakUserMemoryBytes"]
    if rows:
        assert charge.rows == stats["outputRows"]


def milliseconds(duration: str | float) -> int:
    """Read a duration as Trino writes it, in seconds or with its unit."""
    if isinstance(duration, (int, float)):
        return round(duration * 1000)
    units = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}
    number = duration.rstrip("nmush")
    return round(float(number) * units[duration[len(number) :]])


# -- the figures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", TPCH)
def test_tpch_costs_what_the_server_says(
    connection: Any, charges: Charges, trino_coordinator: Coordinator, number: int
) -> None:
    cursor = connection.cursor()
    cursor.execute(TPCH[number])
    rows = cursor.fetchall()
    charge = charges.one()
    assert (charge.vendor_id, charge.rows) == (cursor.query_id, len(rows))
    assert not charge.partial
    assert charge.usage["cpu_time_ms"] == cursor.stats["cpuTimeMillis"] > 0
    assert count(charge, "processed_rows") > 0
    agrees(charge, trino_coordinator)


def test_bytes_are_those_that_were_read(
    connection: Any, charges: Charges, trino_coordinator: Coordinator, lines: str
) -> None:
    cursor = connection.cursor()
    cursor.execute(f"select shipmode, sum(quantity) from {lines} group by shipmode")
    assert len(cursor.fetchall()) == 7
    charge = charges.one()
    assert count(charge, "physical_input_bytes") > 500_000
    assert charge.usage["processed_bytes"] == charge.usage["physical_input_bytes"]
    agrees(charge, trino_coordinator)


def test_memory_is_the_most_that_was_held(
    connection: Any, charges: Charges, trino_coordinator: Coordinator
) -> None:
    cursor = connection.cursor()
    cursor.execute(TPCH[9])
    cursor.fetchall()
    charge = charges.one()
    assert count(charge, "peak_memory_bytes") > 100_000
    agrees(charge, trino_coordinator)


def test_a_charge_says_what_ran_where(
    connection: Any, charges: Charges, trino_coordinator: Coordinator
) -> None:
    cursor = connection.cursor()
    cursor.execute(f"select count(*) from orders where comment = '{SECRET}'")
    cursor.fetchall()
    charge = charges.one()
    assert (charge.system, charge.instrumentor, charge.operation) == ("trino", "trino", "SELECT")
    where = charge.resource
    assert (where.address, where.port) == (trino_coordinator.host, trino_coordinator.port)
    assert where.namespace == "tpch"
    assert text_of(charge) == "select count(*) from orders where comment = ?"
    assert SECRET not in charges.text()
    assert (charge.amount, charge.basis) == (None, "unknown")  # nobody has a price list for it


# -- ways of reading a result ----------------------------------------------------------------------


def one_by_one(cursor: Any) -> int:
    return sum(1 for _ in iter(cursor.fetchone, None))


READS: dict[str, Callable[[Any], int]] = {
    "all": lambda cursor: len(cursor.fetchall()),
    "one": one_by_one,
    "many": lambda cursor: sum(len(rows) for rows in iter(lambda: cursor.fetchmany(999), [])),
    "loop": lambda cursor: sum(1 for _ in cursor),
    "generator": lambda cursor: sum(1 for _ in cursor.genall()),
    "description": lambda cursor: len(cursor.description) and len(cursor.fetchall()),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_however_rows_are_read_they_are_one_charge(
    connection: Any, charges: Charges, trino_coordinator: Coordinator, read: Callable[[Any], int]
) -> None:
    cursor = connection.cursor()
    cursor.execute("select * from orders")
    written = charges.one()
    assert (written.partial, written.vendor_id) == (True, cursor.query_id)
    assert read(cursor) == ORDERS
    charge = charges.one()
    assert (charge.rows, charge.partial, charge.revision) == (ORDERS, False, 1)
    assert charge.duration_ns >= written.duration_ns
    agrees(charge, trino_coordinator)
    cursor.close()
    assert charges.new() == []


@pytest.mark.parametrize("how", ["close", "drop", "execute", "cancel"])
def test_what_is_not_read_to_its_end_is_partial(
    connection: Any, charges: Charges, how: str
) -> None:
    cursor = connection.cursor()
    cursor.execute("select * from lineitem")
    cursor.fetchone()
    query = cursor.query_id
    if how == "close":
        cursor.close()
    elif how == "cancel":
        cursor.cancel()
    elif how == "execute":
        cursor.execute("select 1")
        cursor.fetchall()
    else:
        del cursor
    found = {charge.vendor_id: charge for charge in charges.new()}
    assert len(found) == (2 if how == "execute" else 1)
    charge = found[query]
    assert charge.partial
    assert charge.rows is not None
    assert 0 < charge.rows < 60_175
    assert charge.error is None


def test_a_dropped_cursor_is_let_go_at_once(connection: Any, charges: Charges) -> None:
    """As without us: nothing of ours keeps a cursor until the next collection."""
    gc.disable()
    try:
        cursor = connection.cursor()
        cursor.execute("select * from lineitem")
        gone = weakref.ref(cursor)
        del cursor
        assert gone() is None
    finally:
        gc.enable()
    assert charges.one().partial


def test_rows_are_counted_page_by_page_for_each_of_many_cursors(
    connection: Any, charges: Charges
) -> None:
    cursors = [connection.cursor() for _ in range(3)]
    for cursor in cursors:
        cursor.execute("select * from orders")
    readers = [iter(cursor) for cursor in cursors]
    for rows in zip(*readers, strict=True):
        assert len(rows) == 3
    found = charges.new()
    assert sorted(charge.vendor_id or "" for charge in found) == sorted(
        cursor.query_id for cursor in cursors
    )
    assert [(charge.rows, charge.partial) for charge in found] == [(ORDERS, False)] * 3


# -- kinds of statements ---------------------------------------------------------------------------


def test_statements_that_change_something_say_how_much(
    connection: Any, charges: Charges, trino_coordinator: Coordinator
) -> None:
    table = "memory.default.changed"
    cursor = connection.cursor()
    cursor.execute(f"create table {table} as select orderkey from orders")
    cursor.execute(f"insert into {table} select orderkey from lineitem where linenumber = 1")
    cursor.execute(f"drop table {table}")
    found = charges.new()
    assert [(c.operation, c.rows) for c in found] == [
        ("CREATE TABLE", ORDERS),
        ("INSERT", ORDERS),
        ("DROP TABLE", None),
    ]
    for charge in found:
        assert not charge.partial
        agrees(charge, trino_coordinator, rows=False)


def test_executemany_is_a_charge_for_each_query_of_the_server(
    connection: Any, charges: Charges, trino_coordinator: Coordinator
) -> None:
    cursor = connection.cursor()
    cursor.execute("create table memory.default.many (id integer, name varchar)")
    charges.new()
    cursor.executemany("insert into memory.default.many values (?, ?)", [(1, SECRET), (2, "b")])
    found = charges.new()
    assert [(charge.operation, charge.rows) for charge in found] == [("INSERT", 1)] * 2
    assert len({charge.vendor_id for charge in found}) == 2
    assert SECRET not in charges.text()
    cursor.execute("drop table memory.default.many")


def test_prepared_statements_are_the_query_that_ran(
    charges: Charges, trino_coordinator: Coordinator
) -> None:
    """This server is of before EXECUTE IMMEDIATE; test_trino_protocol has that."""
    with connect(trino_coordinator, legacy_prepared_statements=True) as connection:
        cursor = connection.cursor()
        cursor.execute("select * from orders where orderkey < ? and comment <> ?", (100, SECRET))
        assert len(cursor.fetchall()) == 27
        charge = charges.one()
        assert (charge.vendor_id, charge.operation, charge.rows) == (cursor.query_id, "SELECT", 27)
        assert text_of(charge) == "select * from orders where orderkey < ? and comment <> ?"
        agrees(charge, trino_coordinator)
        with pytest.raises(trino.exceptions.TrinoUserError):
            cursor.execute("select nothing from orders where 1 = ?", (1,))
        failed = charges.one()
        # PREPARE succeeds on anything that parses; the error is the EXECUTE's.
        assert failed.vendor_id not in (None, charge.vendor_id)
        with pytest.raises(trino.exceptions.TrinoUserError):
            cursor.execute("select from where ?", (1,))
        unsent = charges.one()
        assert (unsent.vendor_id, list(unsent.usage)) == (None, ["time_ns"])
    assert SECRET not in charges.text()


def test_describe_is_one_charge(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    assert [column.name for column in cursor.describe("select 1 as x, 2 as y")] == ["x", "y"]
    charge = charges.one()
    assert (charge.operation, charge.rows, charge.vendor_id) == ("DESCRIBE", 2, cursor.query_id)
    assert text_of(charge) == "select ? as x, ? as y"


def test_a_cursor_of_segments_is_seen(connection: Any, charges: Charges) -> None:
    """A server of before the spooling protocol answers it with rows."""
    cursor = connection.cursor("segment")
    cursor.execute("select name from nation")
    assert len(cursor.fetchall()) == 25
    assert (charges.one().operation, cursor.query_id) == ("SELECT", cursor.query_id)


def test_what_a_transaction_sends_itself_is_not_seen(
    charges: Charges, trino_coordinator: Coordinator
) -> None:
    with connect(trino_coordinator, isolation_level=IsolationLevel.READ_COMMITTED) as connection:
        cursor = connection.cursor()
        cursor.execute("select name from region")
        assert len(cursor.fetchall()) == 5
        connection.commit()
    assert text_of(charges.one()) == "select name from region"


# -- errors and cancellation -----------------------------------------------------------------------


def test_an_error_keeps_its_query(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    with pytest.raises(trino.exceptions.TrinoUserError) as raised:
        cursor.execute(f"select nothing from orders where comment = '{SECRET}'")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "trino.exceptions.TrinoUserError"
    assert charge.vendor_id == raised.value.query_id
    assert SECRET not in charges.text()


def test_an_error_while_rows_are_read(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    query = "select if(orderkey = 60000, fail('no'), orderkey) from orders order by orderkey"
    with pytest.raises(trino.exceptions.TrinoUserError):  # noqa: PT012  wherever it comes
        cursor.execute(query.replace("fail('no')", "1 / (orderkey - orderkey)"))
        cursor.fetchall()
    charge = charges.one()
    assert charge.error is not None
    assert charge.vendor_id == cursor.query_id


def test_a_statement_that_another_thread_cancels(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    query = "select count(*) from tpch.sf1.lineitem a, tpch.sf1.lineitem b where a.tax < b.tax"

    def cancel() -> None:
        while cursor.query_id is None:
            time.sleep(0.05)
        time.sleep(0.3)
        cursor.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(trino.exceptions.TrinoUserError, match="USER_CANCELED"):  # noqa: PT012
        cursor.execute(query)
        cursor.fetchall()
    thread.join()
    charge = charges.one()
    assert charge.error is not None
    assert charge.vendor_id == cursor.query_id


def test_a_server_that_is_not_there(charges: Charges) -> None:
    cursor = trino.dbapi.connect(host="127.0.0.1", port=9, user="x", max_attempts=1).cursor()
    with pytest.raises(trino.exceptions.TrinoConnectionError):
        cursor.execute("select 1")
    charge = charges.one()
    assert charge.vendor_id is None
    assert charge.error is not None


# -- beside others ---------------------------------------------------------------------------------


def test_thirty_two_at_once(charges: Charges, trino_coordinator: Coordinator) -> None:
    def run(number: int) -> tuple[str, int]:
        with connect(trino_coordinator) as connection, costinsights.attribute(asset=f"a{number}"):
            cursor = connection.cursor()
            cursor.execute(f"select name from customer limit {number + 1}")
            return cursor.query_id, len(cursor.fetchall())

    with ThreadPoolExecutor(32) as pool:
        expected = list(pool.map(run, range(32)))
    found = {charge.vendor_id: charge for charge in charges.new()}
    assert len(found) == 32
    for number, (query, rows) in enumerate(expected):
        assert (found[query].rows, found[query].partial) == (rows, False)
        assert found[query].attribution["asset"] == f"a{number}"
        agrees(found[query], trino_coordinator)


def test_layers_above_the_driver_count_once(
    charges: Charges, trino_coordinator: Coordinator
) -> None:
    server = trino_coordinator
    engine = sa.create_engine(f"trino://me@{server.host}:{server.port}/tpch/tiny")
    try:
        with engine.connect() as connection:
            charges.new()  # what the dialect asks at first
            rows = connection.execute(
                sa.text("select name from nation where regionkey = :r"), {"r": 1}
            )
            assert len(rows.all()) == 5
            charge = charges.one()
            assert (charge.rows, charge.operation) == (5, "SELECT")
            frame = pd.read_sql_query(sa.text("select * from orders"), connection)
            assert len(frame) == charges.one().rows == ORDERS
    finally:
        engine.dispose()


def test_two_tools_and_uninstrument(tmp_path: Path, trino_coordinator: Coordinator) -> None:
    before = trino.dbapi.Cursor.execute, trino.client.TrinoQuery.fetch
    with instrumented(tmp_path / "ledger", "trino") as charges:
        costinsights.instrument("trino", ledger=tmp_path / "ledger", exporters=[])
        with connect(trino_coordinator) as connection:
            cursor = connection.cursor()
            cursor.execute("select * from orders")
            assert len(cursor.fetchall()) == ORDERS
        assert charges.one().rows == ORDERS
    assert (trino.dbapi.Cursor.execute, trino.client.TrinoQuery.fetch) == before


# -- what the server sees --------------------------------------------------------------------------


def program(port: int, **more: Any) -> None:
    with trino.dbapi.connect(
        **{
            "host": "127.0.0.1",
            "port": port,
            "user": "me",
            "catalog": "tpch",
            "schema": "tiny",
            "legacy_prepared_statements": True,
            **more,
        }
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("select * from orders limit 3000")
        cursor.fetchall()
        cursor.execute("select name from nation where regionkey = ?", (1,))
        cursor.fetchone()
        cursor.close()


def test_by_default_the_server_sees_no_difference(
    tmp_path: Path, trino_coordinator: Coordinator
) -> None:
    seen: list[list[Any]] = []
    names: set[str] = set()
    for on in (False, True):
        with recording(trino_coordinator) as proxy:
            if on:
                with instrumented(tmp_path / "ledger", "trino") as charges:
                    program(proxy.port)
                    assert len(charges.new()) == 2
            else:
                program(proxy.port)
            posts = proxy.posts()
            # A prepared statement has a name of the client's making, new each time.
            names = {post.body.decode().split()[1] for post in posts if b"st_" in post.body[:30]}
            name = next(n for n in names if n.startswith("st_"))
            kept = [
                (post.path, post.body.decode().replace(name, "st_"), clean(post.headers, name))
                for post in posts
            ]
            others = {(request.method, path_of(request.path)) for request in proxy.requests}
            seen.append([kept, others])
    assert seen[0] == seen[1]
    assert len(seen[0][0]) == 4  # SELECT, PREPARE, EXECUTE, DEALLOCATE


def clean(headers: dict[str, str], name: str) -> dict[str, str]:
    return {
        key: value.replace(name, "st_")
        for key, value in headers.items()
        if key not in ("Host", "traceparent")
    }


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"client_tags": ["mine", "also"]},
        {"http_headers": {"X-Trino-Client-Tags": "mine,also"}},
    ],
    ids=["none", "argument", "header"],
)
def test_native_tags_go_with_the_statement(
    tmp_path: Path, trino_coordinator: Coordinator, own: dict[str, Any]
) -> None:
    costinsights.instrument(
        "trino",
        ledger=tmp_path / "ledger",
        exporters=[],
        tagging="native",
        attribution={"job": "nightly"},
    )
    try:
        charges = Charges(tmp_path / "ledger")
        with connect(trino_coordinator, **own) as connection:
            cursor = connection.cursor()
            with costinsights.attribute(asset="shop/orders"):
                cursor.execute("select name from nation")
                cursor.fetchall()
            tags = trino_coordinator.page(f"/v1/query/{cursor.query_id}")["session"]["clientTags"]
            cursor.execute("select name from region")
            cursor.fetchall()
            later = trino_coordinator.page(f"/v1/query/{cursor.query_id}")["session"]["clientTags"]
        given: set[str] = {"mine", "also"} if own else set()
        assert set(tags) == given | {"ci:asset=shop.orders", "ci:job=nightly"}
        assert set(later) == given | {"ci:job=nightly"}
        assert [c.tag for c in charges.new()] == [
            "ci,asset=shop.orders,job=nightly",
            "ci,job=nightly",
        ]
    finally:
        costinsights.uninstrument()


def test_a_tag_adds_no_request_and_changes_no_text(
    tmp_path: Path, trino_coordinator: Coordinator
) -> None:
    bodies: list[list[bytes]] = []
    for tagging in ("off", "native"):
        costinsights.instrument(
            "trino",
            ledger=tmp_path / tagging,
            exporters=[],
            tagging=tagging,
            attribution={"job": "nightly"},
        )
        try:
            with (
                recording(trino_coordinator) as proxy,
                connect(trino_coordinator, host="127.0.0.1", port=proxy.port) as connection,
            ):
                cursor = connection.cursor()
                cursor.execute("select name from nation")
                cursor.fetchall()
                bodies.append([post.body for post in proxy.posts()])
                sent = proxy.posts()[0].headers.get("X-Trino-Client-Tags")
                assert sent == (None if tagging == "off" else "ci:job=nightly")
        finally:
            costinsights.uninstrument()
    assert bodies == [[b"select name from nation"]] * 2


# -- the capacity that the user pays for -----------------------------------------------------------


def test_an_hour_of_the_cluster_is_shared_by_the_clock(
    tmp_path: Path, trino_coordinator: Coordinator
) -> None:
    capacity = {"system": "trino", "price": "36.00", "currency": "USD"}
    costinsights.instrument(
        "trino", ledger=tmp_path / "ledger", exporters=[], config={"capacity": [capacity]}
    )
    try:
        charges = Charges(tmp_path / "ledger")
        with connect(trino_coordinator) as connection:
            cursor = connection.cursor()
            cursor.execute("select * from orders")
            cursor.fetchall()
        charge = charges.one()
    finally:
        costinsights.uninstrument()
    assert charge.basis == "estimated"
    assert charge.amount is not None
    assert float(charge.amount) == pytest.approx(charge.duration_ns / 1e9 * 0.01, rel=1e-6)


# -- aiotrino --------------------------------------------------------------------------------------


async def aconnect(server: Coordinator, **more: Any) -> Any:
    return aiotrino.dbapi.connect(
        host=server.host, port=server.port, user="me", catalog="tpch", schema="tiny", **more
    )


def test_aiotrino_is_charged_alike(charges: Charges, trino_coordinator: Coordinator) -> None:
    async def run() -> None:
        connection = await aconnect(trino_coordinator, legacy_prepared_statements=True)
        try:
            cursor = await connection.cursor()
            await cursor.execute("select * from orders")
            assert charges.one().partial
            assert len(await cursor.fetchall()) == ORDERS
            charge = charges.one()
            assert (charge.instrumentor, charge.rows) == ("aiotrino", ORDERS)
            assert (charge.vendor_id, charge.partial) == (cursor.query_id, False)
            agrees(charge, trino_coordinator)
            await cursor.execute("select * from orders")
            assert len([row async for row in cursor]) == ORDERS
            assert charges.one().rows == ORDERS
            await cursor.execute("select * from orders where orderkey < ?", (100,))
            assert len(await cursor.fetchmany(1000)) == 27
            assert charges.one().rows == 27
            await cursor.execute("select * from lineitem")
            await cursor.fetchone()
            await cursor.cancel()
            assert charges.one().partial
            with pytest.raises(aiotrino.exceptions.TrinoUserError):
                await cursor.execute("select nothing from orders")
            failed = charges.one()
            assert failed.error is not None
            assert failed.vendor_id == cursor.query_id
            assert len(await cursor.describe("select 1 as x")) == 1
            assert charges.one().operation == "DESCRIBE"
        finally:
            await connection.close()

    asyncio.run(run())


def test_aiotrino_tasks_at_once_and_one_that_is_cancelled(
    charges: Charges, trino_coordinator: Coordinator
) -> None:
    async def one(connection: Any, number: int) -> str:
        cursor = await connection.cursor()
        await cursor.execute(f"select * from orders where orderkey % 8 = {number}")
        await cursor.fetchall()
        query: str = cursor.query_id
        return query

    async def run() -> set[str]:
        connection = await aconnect(trino_coordinator)
        try:
            found = set(await asyncio.gather(*(one(connection, n) for n in range(8))))
            cursor = await connection.cursor()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(
                    cursor.execute("select count(*) from tpch.sf1.lineitem a, tpch.sf1.orders b"),
                    0.5,
                )
            await cursor.cancel()
            return found
        finally:
            await connection.close()

    queries = asyncio.run(run())
    found = charges.new()
    assert {charge.vendor_id for charge in found if charge.error is None} == queries
    assert sum(charge.rows or 0 for charge in found if charge.error is None) == ORDERS
    cancelled = [charge for charge in found if charge.error is not None]
    assert [c.error.type for c in cancelled if c.error] == ["asyncio.exceptions.CancelledError"]


def test_aiotrino_native_tags(tmp_path: Path, trino_coordinator: Coordinator) -> None:
    async def run() -> str:
        connection = await aconnect(trino_coordinator, client_tags=["mine"])
        try:
            cursor = await connection.cursor()
            await cursor.execute("select name from nation")
            await cursor.fetchall()
            query: str = cursor.query_id
            return query
        finally:
            await connection.close()

    costinsights.instrument(
        "aiotrino",
        ledger=tmp_path / "ledger",
        exporters=[],
        tagging="native",
        attribution={"job": "nightly"},
    )
    try:
        query = asyncio.run(run())
    finally:
        costinsights.uninstrument()
    page = trino_coordinator.page(f"/v1/query/{query}")
    assert set(page["session"]["clientTags"]) == {"mine", "ci:job=nightly"}
