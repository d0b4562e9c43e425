"""databricks-sql-connector on a Thrift and REST server of ours (an emulator): one charge a statement."""

from __future__ import annotations

import gc
import threading
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from sqlalchemy import create_engine, text

import costinsights
from tests.servers.charges import Charges, instrumented, text_of
from tests.servers.databricks_server import Workspace, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

sql: Any = import_module("databricks.sql")
Error: type[Exception] = sql.Error
ServerOperationError: type[Exception] = sql.ServerOperationError

SECRET = "dapi-77ac-s3cr3t"
PATH = "/sql/1.0/warehouses/abc123"
BACKENDS = ("thrift", "sea", "sea inline")
LONG = "SELECT count(*) FROM range(1000000) a, range(10000000) b WHERE a.range % 7 = b.range % 11"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with serving() as workspace:
        yield workspace


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "databricks_sql") as charges:
        yield charges


READS: dict[str, Callable[[Any], int]] = {
    "all": lambda cursor: len(cursor.fetchall()),
    "arrow": lambda cursor: cursor.fetchall_arrow().num_rows,
    "one": lambda cursor: sum(1 for _ in iter(cursor.fetchone, None)),
    "many": lambda cursor: sum(len(rows) for rows in iter(lambda: cursor.fetchmany(700), [])),
    "iterated": lambda cursor: sum(1 for _ in cursor),
}


def connect(workspace: Workspace, backend: str = "thrift", **more: Any) -> Any:
    given: dict[str, Any] = {
        "server_hostname": "127.0.0.1" if backend == "thrift" else "http://127.0.0.1",
        "http_path": PATH,
        "access_token": SECRET,
        "enable_telemetry": False,
        "_port": workspace.port,
        "_retry_stop_after_attempts_count": 1,
    }
    if backend == "thrift":
        given["_connection_uri"] = f"http://127.0.0.1:{workspace.port}{PATH}"
    else:
        given["use_sea"] = True
        given["use_cloud_fetch"] = backend == "sea"
    return sql.connect(**given, **more)


@pytest.fixture
def connection(charges: Charges, workspace: Workspace) -> Iterator[Any]:
    with connect(workspace) as connection:
        yield connection


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_charge_says_what_ran_where(charges: Charges, workspace: Workspace, backend: str) -> None:
    with connect(workspace, backend) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT i FROM range(10) t(i) WHERE i < :most AND 'x' = 'x'", {"most": 4})
        statement_id = cursor.query_id
        assert len(cursor.fetchall()) == 4
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("databricks", "databricks_sql")
    assert charge.resource.address == "127.0.0.1"
    assert charge.resource.port == workspace.port
    assert charge.resource.namespace == "abc123"
    assert text_of(charge) == "SELECT i FROM range(?) t(i) WHERE i < :most AND ? = ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 4, False)
    assert charge.vendor_id == statement_id == workspace.statements[0].id
    assert (charge.amount, charge.basis) == (None, "unknown")
    assert SECRET not in charges.text()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_rows_are_counted_however_they_are_read(
    charges: Charges, workspace: Workspace, backend: str, read: Callable[[Any], int]
) -> None:
    rows = 2500 if backend != "thrift" else 2 * 1000 + 1
    with connect(workspace, backend) as connection, connection.cursor() as cursor:
        cursor.arraysize = 1000
        cursor.execute(f"SELECT i FROM range({rows}) t(i)")
        assert read(cursor) == rows
        charge = charges.one()
    assert (charge.rows, charge.partial) == (rows, False)
    assert charges.new() == []  # closing tells nothing more


def test_files_of_cloud_fetch_are_counted(charges: Charges, workspace: Workspace) -> None:
    workspace.cloud_fetch = True
    with connect(workspace) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT i FROM range(25000) t(i)")
        assert charges.one().partial
        assert len(cursor.fetchmany(20000)) == 20000
        assert len(cursor.fetchall()) == 5000
        charge = charges.one()
    assert (charge.rows, charge.partial, charge.revision) == (25000, False, 1)


@pytest.mark.parametrize("arrow", [True, False])
def test_changes_count_the_rows_that_they_changed(
    connection: Any, charges: Charges, workspace: Workspace, arrow: bool
) -> None:
    workspace.arrow = arrow
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (a INT)")
    cursor.execute("INSERT INTO t VALUES (1), (2), (3)")
    cursor.execute("UPDATE t SET a = 0 WHERE a > 1")
    cursor.execute("DELETE FROM t WHERE a = 5")
    found = [(charge.operation, charge.rows, charge.partial) for charge in charges.new()]
    assert found == [
        ("CREATE TABLE", 0, False),
        ("INSERT", 3, False),
        ("UPDATE", 2, False),
        ("DELETE", 0, False),
    ]


def test_each_statement_of_an_executemany_is_a_charge_with_its_own_id(
    connection: Any, charges: Charges, workspace: Workspace
) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (a INT)")
    charges.new()
    cursor.executemany("INSERT INTO t VALUES (:a)", [{"a": 1}, {"a": 2}, {"a": 3}])
    assert cursor.rowcount == 3
    found = charges.new()
    assert [charge.rows for charge in found] == [1, 1, 1]
    assert [charge.vendor_id for charge in found] == [s.id for s in workspace.statements[1:]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_statement_that_is_not_waited_for(
    charges: Charges, workspace: Workspace, backend: str
) -> None:
    with connect(workspace, backend) as connection, connection.cursor() as cursor:
        cursor.ASYNC_DEFAULT_POLLING_INTERVAL = 0.05
        cursor.execute_async("SELECT i FROM range(3) t(i)")
        begun = charges.one()
        assert (begun.partial, begun.rows, begun.vendor_id) == (True, None, cursor.query_id)
        cursor.get_async_execution_result()
        assert len(cursor.fetchall()) == 3
        done = charges.one()
    assert (done.partial, done.rows, done.charge_id) == (False, 3, begun.charge_id)
    assert charges.new() == []


def test_one_that_fails_while_nobody_waits(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.ASYNC_DEFAULT_POLLING_INTERVAL = 0.05
    cursor.execute_async("SELECT nope")
    with pytest.raises(ServerOperationError):
        cursor.get_async_execution_result()
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "databricks.sql.exc.ServerOperationError"
    assert not charge.partial


@pytest.mark.parametrize("backend", BACKENDS)
def test_lists_of_tables_are_charges(charges: Charges, workspace: Workspace, backend: str) -> None:
    with connect(workspace, backend) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a INT)")
        cursor.catalogs().fetchall()
        cursor.schemas(catalog_name="main").fetchall()
        cursor.tables(catalog_name="main").fetchall()
        cursor.columns(catalog_name="main").fetchall()
    found = charges.new()[1:]
    assert [charge.operation for charge in found] == [
        "LIST CATALOGS",
        "LIST SCHEMAS",
        "LIST TABLES",
        "LIST COLUMNS",
    ]
    assert [charge.vendor_id for charge in found] == [s.id for s in workspace.statements[1:]]
    assert found[0].rows == 1
    assert all(not charge.partial for charge in found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_is_the_drivers_and_its_statement_is_found_again(
    charges: Charges, workspace: Workspace, backend: str
) -> None:
    with connect(workspace, backend) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        with pytest.raises(ServerOperationError, match="nope"):
            cursor.execute("SELECT nope FROM range(3)")
    _, charge = charges.new()
    assert charge.error is not None
    assert charge.error.type == "databricks.sql.exc.ServerOperationError"
    assert charge.vendor_id == workspace.statements[1].id
    assert "referenced" not in charges.text().lower()  # an error's text may hold data


def test_what_never_reached_the_server_takes_nobodys_id(
    connection: Any, charges: Charges, workspace: Workspace
) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    workspace.answers["/sql"] = (400, {"message": "no"})
    with pytest.raises(Error):
        cursor.execute("SELECT 2")
    workspace.answers.clear()
    first, second = charges.new()
    assert first.vendor_id is not None
    assert second.error is not None
    assert second.vendor_id is None


def test_a_cancelled_statement_is_one_charge(
    connection: Any, charges: Charges, workspace: Workspace
) -> None:
    cursor = connection.cursor()

    def cancel() -> None:
        while not workspace.statements or cursor.active_command_id is None:
            threading.Event().wait(0.05)
        cursor.cancel()

    def run() -> None:
        cursor.execute(LONG)
        cursor.fetchall()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Exception):  # noqa: B017  whatever this version makes of it
        run()
    thread.join(30)
    assert workspace.statements[0].state == "CANCELED"
    charge = charges.one()
    assert charge.vendor_id == workspace.statements[0].id


def test_a_result_that_is_left_early_is_partial(
    connection: Any, charges: Charges, workspace: Workspace
) -> None:
    cursor = connection.cursor()
    cursor.arraysize = 1000
    cursor.execute("SELECT i FROM range(5000) t(i)")
    cursor.fetchmany(10)
    cursor.close()
    charge = charges.one()
    assert (charge.rows, charge.partial) == (10, True)


def test_the_next_statement_ends_the_one_before(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.arraysize = 1000
    cursor.execute("SELECT i FROM range(5000) t(i)")
    cursor.execute("SELECT 1")
    first, second = charges.new()
    assert (first.partial, second.partial) == (True, False)


def test_a_dropped_cursor_leaves_nothing_open(charges: Charges, workspace: Workspace) -> None:
    connection = connect(workspace)
    cursor = connection.cursor()
    cursor.arraysize = 1000
    cursor.execute("SELECT i FROM range(5000) t(i)")
    del cursor
    connection.close()
    del connection
    gc.collect()
    assert charges.one().partial


# --- above the driver ------------------------------------------------------------------------------


@pytest.fixture
def engine(charges: Charges, workspace: Workspace) -> Iterator[Any]:
    engine = create_engine(
        f"databricks://token:{SECRET}@127.0.0.1?http_path={PATH}&catalog=main&schema=main",
        connect_args={
            "enable_telemetry": False,
            "_port": workspace.port,
            "_retry_stop_after_attempts_count": 1,
            "_connection_uri": f"http://127.0.0.1:{workspace.port}{PATH}",
        },
    )
    yield engine
    engine.dispose()


def test_sqlalchemy_and_pandas_count_once(
    engine: Any, charges: Charges, workspace: Workspace
) -> None:
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))  # the dialect's own first statements
        charges.new()
        sent = len(workspace.statements)
        found = connection.execute(text("SELECT i FROM range(10) t(i) WHERE i < :n"), {"n": 4})
        assert len(found.fetchall()) == 4
        assert pd.read_sql_query(text("SELECT i FROM range(7) t(i)"), connection).shape == (7, 1)
        found = charges.new()
        assert [charge.rows for charge in found] == [4, 7]
        assert [charge.vendor_id for charge in found] == [s.id for s in workspace.statements[sent:]]


def test_pandas_on_the_bare_connection(
    connection: Any, charges: Charges, recwarn: pytest.WarningsRecorder
) -> None:
    with pytest.warns(UserWarning, match="SQLAlchemy"):
        frame = pd.read_sql("SELECT i FROM range(5) t(i)", connection)
    assert len(frame) == 5
    assert charges.one().rows == 5


# --- what the server sees ---------------------------------------------------------------------------


def session(workspace: Workspace, backend: str) -> list[Any]:
    """A program of several kinds of statements; returns all that it saw."""
    seen: list[Any] = []
    with connect(workspace, backend, catalog="main") as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1 AS a, 'x' AS b", query_tags={"team": "growth"})
        seen += cursor.fetchall()
        cursor.execute("SELECT i FROM range(12000) t(i) WHERE i > :a", {"a": 3})
        seen += [len(cursor.fetchall()), cursor.description, cursor.query_id]
        cursor.tables(catalog_name="main")
        seen += [cursor.fetchone()]
        try:
            cursor.execute("SELECT nope")
        except Error as error:
            seen.append(str(error))
        cursor.execute_async("SELECT 2")
        workspace.statements[-1].done.wait(10)
        seen += cursor.get_async_execution_result().fetchall()
        seen += [repr(cursor.__class__), repr(connection.__class__)]
    return seen


def sent(workspace: Workspace) -> list[tuple[str, str, bytes]]:
    return [(request.call, request.path, request.body) for request in workspace.requests]


def without_downloads(requests: list[tuple[str, str, bytes]]) -> list[tuple[str, str, bytes]]:
    """Leave out what the driver's own threads send, in the order in which they happen to run."""
    return [one for one in requests if "/files/" not in one[1] and "/chunks/" not in one[1]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_server_sees_the_same_bytes_with_and_without_us(tmp_path: Path, backend: str) -> None:
    with serving() as workspace:
        port, bare = workspace.port, session(workspace, backend)
        before = sent(workspace)
    with serving(port=port) as workspace, instrumented(tmp_path, "databricks_sql") as charges:
        assert session(workspace, backend) == bare
        assert len(charges.new()) == 5
        after = sent(workspace)
    assert len(after) == len(before) > 8
    assert without_downloads(after) == without_downloads(before)


# --- tags -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_native_tags_travel_with_the_statement(
    workspace: Workspace, tmp_path: Path, backend: str
) -> None:
    costinsights.instrument("databricks_sql", ledger=tmp_path, exporters=[], tagging="native")
    try:
        charges = Charges(tmp_path)
        with connect(workspace, backend) as connection, connection.cursor() as cursor:
            with costinsights.attribute(asset="mart/orders", job="nightly"):
                cursor.execute("SELECT 1", query_tags={"team": "a,b:c"})
                cursor.executemany("SELECT :a", [{"a": 1}])
                cursor.tables(catalog_name="main")
            requests = len(workspace.requests)
    finally:
        costinsights.uninstrument()
    ours: dict[str, str | None] = {"ci_asset": "mart.orders", "ci_job": "nightly"}
    tags = [statement.tags for statement in workspace.statements]
    assert tags == [{**ours, "team": "a,b:c"}, ours, {}]
    assert [charge.tag for charge in charges.new()][:2] == ["ci,asset=mart.orders,job=nightly"] * 2
    assert requests <= 12


def test_there_is_no_room_beside_twenty_tags(workspace: Workspace, tmp_path: Path) -> None:
    own: dict[str, str | None] = {f"k{number}": "v" for number in range(19)}
    costinsights.instrument("databricks_sql", ledger=tmp_path, exporters=[], tagging="native")
    try:
        with (
            connect(workspace) as connection,
            connection.cursor() as cursor,
            costinsights.attribute(asset="orders", job="nightly"),
        ):
            cursor.execute("SELECT 1", query_tags=own)
    finally:
        costinsights.uninstrument()
    assert workspace.statements[0].tags == own


# --- what it costs ------------------------------------------------------------------------------------


def test_the_hour_of_a_warehouse_is_shared(workspace: Workspace, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(
        '[[capacity]]\nname = "bi"\nsystem = "databricks"\ndatabase = "abc123"\n'
        'price = "8.40"\ncurrency = "USD"\nsource = "12 DBU at 0.70"\nas_of = "2026-11"\n',
        encoding="utf-8",
    )
    costinsights.instrument(
        "databricks_sql", ledger=tmp_path / "ledger", exporters=[], price_book=prices
    )
    try:
        with connect(workspace) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        charge = Charges(tmp_path / "ledger").one()
    finally:
        costinsights.uninstrument()
    assert charge.basis == "estimated"
    assert charge.amount is not None
    # One statement alone bears the whole price of its time.
    assert Decimal(charge.amount) == pytest.approx(
        Decimal("8.40") * charge.duration_ns / (3600 * 10**9), rel=Decimal("1e-6")
    )


def test_the_hour_follows_from_what_is_declared(workspace: Workspace, tmp_path: Path) -> None:
    declared = {
        "host": "127.0.0.1",
        "database": "abc123",
        "system": "databricks",
        "region": "aws us",
        "dimensions": {"cloud": "aws", "plan": "premium", "workload": "sql_serverless"},
        "hourly": {"dbus_per_hour": 12},
    }
    costinsights.instrument(
        "databricks_sql", ledger=tmp_path, exporters=[], config={"resource": [declared]}
    )
    try:
        with connect(workspace) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        charge = Charges(tmp_path).one()
    finally:
        costinsights.uninstrument()
    assert charge.price is not None
    assert (charge.price.unit_price, charge.price.unit) == ("8.40", "hour")
    assert Decimal(charge.amount or 0) > 0


# --- switching on and off ------------------------------------------------------------------------------


def test_instrumented_twice_is_counted_once_and_uninstrumented_not_at_all(
    workspace: Workspace, tmp_path: Path
) -> None:
    with connect(workspace) as connection:
        cursor = connection.cursor()
        with instrumented(tmp_path, "databricks_sql") as charges:
            costinsights.instrument("databricks_sql", ledger=tmp_path, exporters=[])
            cursor.execute("SELECT 1")  # of a cursor that was there before
            assert charges.one().rows == 1
        cursor.execute("SELECT 2")
        assert charges.new() == []
