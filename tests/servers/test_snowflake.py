"""The unmodified Snowflake connector on an emulator of its server: one charge a statement."""

from __future__ import annotations

import gc
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import snowflake.connector
from snowflake.connector import DictCursor

import costinsights
from tests.servers.charges import Charges, text_of
from tests.servers.snowflake_fixtures import OPTIONS, VERSION, connect, instrumented, quiet
from tests.servers.snowflake_server import SnowflakeServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS = 50
SECRET = "s3cr3t-3e1d"
TAG = "ci,asset=orders,job=nightly"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet(monkeypatch, tmp_path / "home")


@pytest.fixture
def server() -> Iterator[SnowflakeServer]:
    with SnowflakeServer(chunk_rows=20) as server:
        yield server


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger") as charges:
        yield charges


@pytest.fixture
def connection(charges: Charges, server: SnowflakeServer) -> Iterator[Any]:
    with connect(server) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (a INT, b VARCHAR)")
        cursor.execute("INSERT INTO t SELECT range, 'x' FROM range(50)")
        charges.new()
        yield connection


def newest(server: SnowflakeServer) -> str:
    """Return the id of the query that ran last."""
    found: str = server.account.history.rows("query_history")[-1]["query_id"]
    return found


def test_a_charge_says_what_ran_where(
    connection: Any, charges: Charges, server: SnowflakeServer
) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t WHERE a < %s AND b = 'x'", (10,))
    assert len(cursor.fetchall()) == 10
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("snowflake", "snowflake")
    resource = charge.resource
    assert (resource.address, resource.port) == (server.host, server.port)
    assert (resource.namespace, resource.service) == ("SHOP", "ETL_WH")
    assert text_of(charge) == "SELECT a FROM t WHERE a < %s AND b = ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 10, False)
    assert charge.vendor_id == cursor.sfqid == newest(server)
    assert (charge.amount, charge.basis, charge.tag) == (None, "unknown", None)
    assert SECRET not in charges.text()


READS: dict[str, Callable[[Any], int]] = {
    "all": lambda cursor: len(cursor.fetchall()),
    "loop": lambda cursor: sum(1 for _ in cursor),
    "many": lambda cursor: sum(len(rows) for rows in iter(lambda: cursor.fetchmany(7), [])),
    "one": lambda cursor: sum(1 for _ in iter(cursor.fetchone, None)),
    "frame": lambda cursor: len(cursor.fetch_pandas_all()),
    "frames": lambda cursor: sum(len(frame) for frame in cursor.fetch_pandas_batches()),
    "table": lambda cursor: int(cursor.fetch_arrow_all().num_rows),
    "tables": lambda cursor: sum(table.num_rows for table in cursor.fetch_arrow_batches()),
    "batches": lambda cursor: sum(batch.rowcount for batch in cursor.get_result_batches()),
    "nothing": lambda cursor: ROWS,
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("dictionaries", [False, True], ids=["tuples", "dictionaries"])
def test_rows_are_known_however_they_are_fetched(
    connection: Any, charges: Charges, read: str, dictionaries: bool
) -> None:
    cursor = connection.cursor(DictCursor) if dictionaries else connection.cursor()
    cursor.execute("SELECT a, b FROM t")
    assert READS[read](cursor) == ROWS
    cursor.close()
    charge = charges.one()
    assert (charge.rows, charge.partial, charge.revision) == (ROWS, False, 0)


def test_json_is_read_as_well(charges: Charges) -> None:
    with SnowflakeServer(form="json", chunk_rows=20) as server, connect(server) as connection:
        rows = connection.cursor().execute("SELECT range AS r FROM range(50)").fetchall()
    assert rows == [(number,) for number in range(50)]
    assert charges.one().rows == 50


def test_dml_says_what_it_did(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.execute("INSERT INTO t VALUES (1, 'y'), (2, 'y')")
    cursor.execute("UPDATE t SET b = 'z' WHERE b = 'y'")
    cursor.execute("DELETE FROM t WHERE b = 'z'")
    found = charges.new()
    assert [(charge.operation, charge.rows) for charge in found] == [
        ("INSERT", 2),
        ("UPDATE", 2),
        ("DELETE", 2),
    ]
    done = [
        {name: count for name, count in charge.usage.items() if name.startswith("rows_") and count}
        for charge in found
    ]
    expected = [{"rows_inserted": 2}, {"rows_updated": 2}, {"rows_deleted": 2}]
    assert done == (expected if VERSION >= (4,) else [{}, {}, {}])


@pytest.mark.parametrize("style", ["pyformat", "qmark"])
def test_a_batch_is_one_charge(server: SnowflakeServer, charges: Charges, style: str) -> None:
    mark = "%s" if style == "pyformat" else "?"
    with connect(server, paramstyle=style) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE bulk (a INT, b VARCHAR)")
        charges.new()
        before = len(server.account.history.rows("query_history"))
        cursor.executemany(
            f"INSERT INTO bulk VALUES ({mark}, {mark})", [(number, "x") for number in range(9)]
        )
        assert len(server.account.history.rows("query_history")) == before + 1
        charge = charges.one()
        assert (charge.operation, charge.rows) == ("BATCH INSERT", 9)
        assert charge.usage["batch_size"] == 9
        cursor.executemany(f"UPDATE bulk SET b = {mark} WHERE a = {mark}", [("y", 1), ("z", 2)])
        charge = charges.one()
        assert (charge.operation, charge.rows) == ("BATCH UPDATE", 2)


def test_a_procedure(connection: Any, charges: Charges) -> None:
    connection.cursor().callproc("system$wait", (0.01,))
    charge = charges.one()
    assert (charge.operation, text_of(charge), charge.rows) == ("CALL", "CALL system$wait", 1)


def test_several_statements_in_one_text_are_one_charge(
    connection: Any, charges: Charges, server: SnowflakeServer
) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1; SELECT a FROM t LIMIT 3", num_statements=2)
    assert len(cursor.fetchall()) == 1
    cursor.nextset()
    assert len(cursor.fetchall()) == 3
    charge = charges.one()
    assert charge.rows is None
    whole = {
        row["query_id"]: row["query_text"] for row in server.account.history.rows("query_history")
    }
    assert charge.vendor_id is not None
    text = "SELECT 1; SELECT a FROM t LIMIT 3" if VERSION >= (5,) else "SELECT 1"
    assert whole[charge.vendor_id] == text


def test_a_script_is_one_charge_a_statement(connection: Any, charges: Charges) -> None:
    cursors = list(connection.execute_string("SELECT 1; SELECT a FROM t; DELETE FROM t"))
    assert [charge.rows for charge in charges.new()] == [1, ROWS, ROWS]
    for cursor in cursors:
        cursor.close()


# -- statements that nobody waits for --------------------------------------------------------------


def test_an_asynchronous_statement_is_complete_with_its_result(
    connection: Any, charges: Charges, server: SnowflakeServer
) -> None:
    cursor = connection.cursor()
    query_id = cursor.execute_async("SELECT a FROM t")["queryId"]
    sent = charges.one()
    assert (sent.rows, sent.partial, sent.vendor_id) == (None, True, query_id)
    while connection.is_still_running(connection.get_query_status(query_id)):
        pass
    cursor.query_result(query_id)
    assert len(cursor.fetchall()) == ROWS
    charge = charges.one()
    assert (charge.charge_id, charge.rows, charge.partial) == (sent.charge_id, ROWS, False)
    assert charge.vendor_id == query_id


def test_results_by_query_id(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    query_id = cursor.execute_async("SELECT a FROM t")["queryId"]
    first = charges.one()
    cursor.get_results_from_sfqid(query_id)
    assert len(cursor.fetchall()) == ROWS
    charge = charges.one()
    assert charge.rows == ROWS
    if VERSION >= (5,):
        assert (charge.charge_id, charge.partial) == (first.charge_id, False)
    else:  # these ask by a statement of their own
        assert "result_scan" in text_of(charge)


def test_a_result_that_nobody_wants_stays_partial(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.execute_async("SELECT a FROM t")
    del cursor
    gc.collect()
    assert charges.one().partial


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_statement_that_is_cancelled_is_charged(
    connection: Any, charges: Charges, server: SnowflakeServer, asynchronous: bool
) -> None:
    cursor, other = connection.cursor(), connection.cursor()
    if asynchronous:
        cursor.execute_async("CALL system$wait(60)")
        assert other.abort_query(cursor.sfqid)
        assert charges.one().partial
        return

    def abort() -> None:
        while not any("wait(60)" in query.text for query in list(server.queries.values())):
            pass
        query = next(query for query in server.queries.values() if "wait(60)" in query.text)
        other.abort_query(query.id)

    thread = threading.Thread(target=abort)
    thread.start()
    with pytest.raises(snowflake.connector.errors.ProgrammingError) as caught:
        cursor.execute("CALL system$wait(60)")
    thread.join()
    charge = charges.one()
    assert charge.error is not None
    assert (charge.error.sqlstate, charge.vendor_id) == ("57014", caught.value.sfqid)


# -- what goes wrong -------------------------------------------------------------------------------


def test_a_statement_that_fails_is_charged_under_its_id(
    connection: Any, charges: Charges, server: SnowflakeServer
) -> None:
    with pytest.raises(snowflake.connector.errors.ProgrammingError) as caught:
        connection.cursor().execute(f"SELECT '{SECRET}' FROM nowhere")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "snowflake.connector.errors.ProgrammingError"
    assert charge.error.sqlstate == "42S02"
    assert charge.vendor_id == caught.value.sfqid == newest(server)
    assert SECRET not in charges.text()


def test_what_never_reaches_the_server_has_no_id(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    charges.new()
    with pytest.raises((TypeError, KeyError, snowflake.connector.errors.Error)):
        cursor.execute("SELECT %(nothing)s", {"other": 1})
    charge = charges.one()
    assert charge.error is not None
    assert charge.vendor_id is None


def test_a_session_that_ran_out_is_renewed_within_one_charge(
    connection: Any, charges: Charges, server: SnowflakeServer
) -> None:
    server.expire()
    assert connection.cursor().execute("SELECT 7").fetchall() == [(7,)]
    assert charges.one().rows == 1
    assert any(request.path == "/session/token-request" for request in server.requests)


# -- where it ran, and what that costs -------------------------------------------------------------


def test_the_warehouse_is_that_of_the_moment(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    for text in ("SELECT 1", "/* now */ USE WAREHOUSE small_wh", "SELECT 2"):
        cursor.execute(text)
    assert [charge.resource.service for charge in charges.new()] == ["ETL_WH", "ETL_WH", "SMALL_WH"]


def test_describing_runs_on_no_warehouse(
    connection: Any, charges: Charges, server: SnowflakeServer
) -> None:
    server.account.warehouses["ETL_WH"].state = "SUSPENDED"
    columns = connection.cursor().describe("SELECT a, b FROM t")
    assert [column.name for column in columns] == ["A", "B"]
    charge = charges.one()
    assert (charge.operation, text_of(charge)) == ("DESCRIBE", "SELECT a, b FROM t")
    assert (charge.resource.namespace, charge.resource.service) == ("SHOP", None)
    assert server.account.warehouses["ETL_WH"].state == "SUSPENDED"


def test_a_warehouse_has_its_own_capacity(tmp_path: Path, server: SnowflakeServer) -> None:
    medium = {
        "name": "etl",
        "system": "snowflake",
        "host": server.host,
        "service": "ETL_WH",
        "price": "3.00",  # a credit, Enterprise
        "count": 4,  # Medium
        "currency": "USD",
    }
    with (
        instrumented(tmp_path / "ledger", config={"capacity": [medium]}) as charges,
        connect(server) as connection,
    ):
        cursor = connection.cursor()
        cursor.execute("CALL system$wait(0.05)")
        charge = charges.one()
        assert (charge.basis, charge.currency) == ("estimated", "USD")
        assert charge.price is not None
        assert charge.price.unit_price in ("12", "12.00")
        assert charge.amount is not None
        assert float(charge.amount) == pytest.approx(charge.duration_ns * 12 / 3.6e12, rel=1e-9)
        cursor.execute("USE WAREHOUSE small_wh")
        cursor.execute("SELECT 1")
        assert charges.new()[-1].amount is None
        cursor.describe("SELECT 1")
        assert charges.one().amount is None


def test_a_warehouses_hour_follows_from_its_size(tmp_path: Path, server: SnowflakeServer) -> None:
    declared = {
        "host": server.host,
        "system": "snowflake",
        "region": "us-east-1",
        "dimensions": {"warehouse": "ETL_WH", "warehouse_size": "Large", "edition": "standard"},
    }
    with (
        instrumented(tmp_path / "ledger", config={"resource": [declared]}) as charges,
        connect(server) as connection,
    ):
        cursor = connection.cursor()
        cursor.execute("CALL system$wait(0.05)")
        charge = charges.one()
        assert charge.amount is not None
        hour = 8 * 2.0  # credits of a Large, and what one costs
        assert float(charge.amount) == pytest.approx(charge.duration_ns * hour / 3.6e12, rel=1e-9)
        cursor.execute("USE WAREHOUSE small_wh")
        cursor.execute("SELECT 1")
        assert charges.new()[-1].amount is None


# -- nothing is added ------------------------------------------------------------------------------


def program(server: SnowflakeServer) -> list[Any]:
    """Do a bit of everything; return what came of it."""
    found: list[Any] = []
    with connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE things (a INT, b VARCHAR)")
        cursor.executemany("INSERT INTO things VALUES (%s, %s)", [(1, "x"), (2, "y")])
        found.append(cursor.rowcount)
        found.append(cursor.execute("SELECT a FROM things ORDER BY a").fetchall())
        cursor.execute("USE WAREHOUSE small_wh")
        cursor.execute("SELECT 1; SELECT 2", num_statements=2)
        cursor.execute("SELECT 3", _statement_params={"QUERY_TAG": "mine"})
        found.append([column.name for column in cursor.describe("SELECT a AS z FROM things")])
        with pytest.raises(snowflake.connector.errors.ProgrammingError):
            cursor.execute("SELECT * FROM nowhere")
        cursor.execute_async("SELECT 4")
        cursor.query_result(cursor.sfqid)
        found.append(cursor.fetchall())
    return found


def plain(server: SnowflakeServer) -> list[tuple[str, str, Any]]:
    """Return the requests without what differs from one run to the next."""

    def without(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields: dict[str, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType]  JSON
        return {
            name: without(part)
            for name, part in fields.items()
            if name not in VARYING and not name.startswith("CLIENT_")
        }

    found: list[tuple[str, str, Any]] = []
    for request in server.requests:
        path = request.path
        for query_id in server.queries:
            path = path.replace(query_id, "ID")
        if "telemetry" not in path:
            found.append((request.method, path, without(request.body)))
    return found


VARYING = frozenset(("querySubmissionTime", "sequenceId", "timestamp", "queryContextDTO"))


def reported(server: SnowflakeServer) -> list[str]:
    """Return which uses of its interface the connector reported to Snowflake."""
    logs = [
        log["message"]
        for request in server.requests
        if "telemetry" in request.path
        for log in request.body.get("logs", [])
    ]
    if VERSION < (5,):  # a value is a time
        return [str(log.get("type")) for log in logs]
    return [f"{log.get('type')} {log.get('api_method')} {log.get('api_arguments')}" for log in logs]


@pytest.mark.parametrize("telemetry", [False, True], ids=["quiet", "telemetry"])
def test_nothing_is_added_by_default(tmp_path: Path, telemetry: bool) -> None:
    with SnowflakeServer(telemetry=telemetry) as server:
        bare = program(server)
        before, told = plain(server), reported(server)
    with SnowflakeServer(telemetry=telemetry) as server:
        with instrumented(tmp_path / "ledger") as charges:
            assert program(server) == bare
        assert plain(server) == before
        assert len(reported(server)) == len(told)
        assert sorted(reported(server)) == sorted(told)
        assert len(charges.new()) == 9
    assert bool(told) == telemetry


def test_a_native_tag_adds_no_request(tmp_path: Path) -> None:
    with SnowflakeServer() as server:
        program(server)
        before = [(method, path) for method, path, _ in plain(server)]
    with SnowflakeServer() as server, instrumented(tmp_path / "ledger", tagging="native"):
        with costinsights.attribute(asset="orders", job="nightly"):
            program(server)
        assert [(method, path) for method, path, _ in plain(server)] == before
        tags = server.tags()
    mine = [tag for tag in tags if tag != TAG]
    assert mine == [f"mine,{TAG}"]


@pytest.fixture
def tagging(tmp_path: Path) -> Iterator[Charges]:
    with (
        instrumented(tmp_path / "ledger", tagging="native") as charges,
        costinsights.attribute(asset="orders", job="nightly"),
    ):
        yield charges


def test_the_programs_own_tag_stays_in_front(tagging: Charges, server: SnowflakeServer) -> None:
    with connect(server, session_parameters={"QUERY_TAG": "session"}) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        assert server.tags()[-1] == f"session,{TAG}"
        assert tagging.one().tag == TAG
        cursor.execute("SELECT 1", _statement_params={"QUERY_TAG": "statement"})
        assert server.tags()[-1] == f"statement,{TAG}"
        cursor.execute("ALTER SESSION SET QUERY_TAG = 'changed'")
        cursor.execute_async("SELECT 1")
        cursor.query_result(cursor.sfqid)
        assert server.tags()[-1] == f"changed,{TAG}"
        cursor.execute("SELECT 1", _statement_params={"QUERY_TAG": f"old,{TAG}"})
        assert server.tags()[-1] == f"old,{TAG}"
        cursor.execute("SELECT 1", _statement_params={"QUERY_TAG": "x" * 1990})
        assert server.tags()[-1] == ("x" * 1990 + f",{TAG}")[:2000]
        cursor.execute("SELECT 1", _statement_params={"QUERY_TAG": "x" * 2000})
        assert server.tags()[-1] == "x" * 2000
    assert connection is not None
    assert set(server.tags()[:1]) == {f"session,{TAG}"}


def test_every_statement_of_a_call_is_tagged(tagging: Charges, server: SnowflakeServer) -> None:
    with connect(server) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE u (a INT)")
        cursor.executemany("INSERT INTO u VALUES (%s)", [(1,), (2,)])
        cursor.executemany("UPDATE u SET a = %s WHERE a = %s", [(3, 1), (4, 2)])
        cursor.callproc("system$wait", (0,))
        connection.execute_string("SELECT 1; SELECT 2")
    assert set(server.tags()) == {TAG}
    assert {charge.tag for charge in tagging.new()} == {TAG}


# -- what stands above the connector ---------------------------------------------------------------


def test_sqlalchemy_and_pandas_are_counted_once(charges: Charges, server: SnowflakeServer) -> None:
    pandas = pytest.importorskip("pandas")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    pytest.importorskip("snowflake.sqlalchemy")
    engine = sqlalchemy.create_engine(
        "snowflake://", creator=lambda: connect(server), poolclass=sqlalchemy.pool.NullPool
    )
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE s (a INT)"))
        connection.execute(
            sqlalchemy.text("INSERT INTO s (a) VALUES (:a)"), [{"a": 1}, {"a": 2}, {"a": 3}]
        )
        connection.commit()
        frame = pandas.read_sql(sqlalchemy.text("SELECT a FROM s ORDER BY a"), connection)
    engine.dispose()
    assert list(frame["a"]) == [1, 2, 3]
    found = charges.new()
    assert [charge.operation for charge in found].count("BATCH INSERT") == 1
    assert len(found) == len(server.statements())
    ids = [row["query_id"] for row in server.account.history.rows("query_history")]
    assert [charge.vendor_id for charge in found] == ids


@pytest.mark.filterwarnings("ignore:is_datetime64tz_dtype:DeprecationWarning")
def test_a_frame_is_written_with_one_charge_a_statement(
    charges: Charges, server: SnowflakeServer
) -> None:
    pandas = pytest.importorskip("pandas")
    from snowflake.connector.pandas_tools import write_pandas

    frame = pandas.DataFrame({"A": [1, 2, 3], "B": ["x", "y", "z"]})
    with connect(server) as connection:
        connection.cursor().execute("CREATE TABLE frames (A INT, B VARCHAR)")
        before = len(server.statements())
        charges.new()
        try:
            done = write_pandas(connection, frame, "FRAMES")
        except snowflake.connector.errors.Error:
            assert VERSION >= (5,), "the core of 5.x copies to clouds only, not to a folder"
        else:
            assert done[0]
            assert done[2] == 3
        sent = len(server.statements()) - before
    assert sent >= 2
    # Connector 3 and 4 have a way of their own to PUT the file, which costs nothing that is billed.
    assert len(charges.new()) == (sent if VERSION >= (5,) else sent - 1)


# -- threads, tasks, and being switched on and off -------------------------------------------------


def test_cursors_of_many_threads(connection: Any, charges: Charges) -> None:
    def work(number: int) -> None:
        with closing(connection.cursor()) as cursor:
            assert cursor.execute("SELECT %s", (number,)).fetchall() == [(number,)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = charges.new()
    assert len({charge.vendor_id for charge in found}) == len(found) == 16


async def test_the_asynchronous_connector(charges: Charges, server: SnowflakeServer) -> None:
    aio = pytest.importorskip("snowflake.connector.aio")
    connection = await aio.connect(**server.login(**OPTIONS))
    cursor = connection.cursor()
    await cursor.execute("CREATE TABLE v (a INT)")
    await cursor.executemany("INSERT INTO v VALUES (%s)", [(1,), (2,)])
    await cursor.execute("SELECT a FROM v")
    assert len(await cursor.fetchall()) == 2
    with pytest.raises(snowflake.connector.errors.ProgrammingError):
        await cursor.execute("SELECT * FROM nowhere")
    query_id = (await cursor.execute_async("SELECT a FROM v"))["queryId"]
    await cursor.query_result(query_id)
    await cursor.describe("SELECT a FROM v")
    await connection.close()
    found = charges.new()
    assert [(charge.operation, charge.rows) for charge in found] == [
        ("CREATE TABLE", 1),
        ("BATCH INSERT", 2),
        ("SELECT", 2),
        ("SELECT", None),
        ("SELECT", 2),
        ("DESCRIBE", 0),
    ]
    assert all(charge.vendor_id is not None for charge in found)
    assert {charge.resource.service for charge in found} == {"ETL_WH", None}


def test_switched_on_twice_and_off_again(tmp_path: Path, server: SnowflakeServer) -> None:
    with connect(server) as connection:  # before anything is instrumented
        cursor = connection.cursor()
        kind: Any = snowflake.connector.cursor.SnowflakeCursor
        execute = kind.execute
        with instrumented(tmp_path / "ledger") as charges:
            costinsights.instrument("snowflake")
            cursor.execute("SELECT 1")
            assert charges.one().rows == 1
        cursor.execute("SELECT 2")
        assert charges.new() == []
        assert kind.execute is execute
