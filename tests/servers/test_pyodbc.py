"""pyodbc, unmodified, by FreeTDS and by Microsoft's driver: one charge a statement, and no trace."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd
import pytest
import sqlalchemy

import costinsights
from costinsights_instrumentors._tds import Messages, endpoint, has_several_results, labelled
from costinsights_instrumentors.pyodbc import PyODBCInstrumentor
from tests.backends import require
from tests.servers import tds_fixtures
from tests.servers.charges import Charges, milliseconds, since, text_of
from tests.servers.tds_clients import (
    DRIVERS,
    MICROSOFT,
    as_resource,
    connection_string,
    instrumented,
    odbc,
    processed,
    pyodbc,
)
from tests.servers.tds_server import ANSWER, Info, Pause, Rows, TdsServer
from tests.servers.tds_server import Count as Changed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.backends import Server

driver = pyodbc()
aioodbc: Any = require("aioodbc")
ROWS = tds_fixtures.ROWS
SECRET = "s3cr3t-41fe"


strict, running, server = tds_fixtures.strict, tds_fixtures.running, tds_fixtures.server


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "pyodbc") as charges:
        yield charges


@pytest.fixture(params=DRIVERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connection(charges: Charges, server: TdsServer, name: str) -> Iterator[Any]:
    connection = driver.connect(connection_string(server, name))
    try:
        yield connection
    finally:
        connection.close()


def test_a_charge_says_what_ran_where(connection: Any, charges: Charges, server: TdsServer) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t WHERE a < ? AND b = 'x'", (3,))
    assert len(cursor.fetchall()) == 3
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("microsoft.sql_server", "pyodbc")
    where = charge.resource
    assert (where.address, where.port, where.namespace) == (server.host, server.port, "shop")
    assert text_of(charge) == "SELECT a FROM t WHERE a < ? AND b = ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 3, False)
    assert server.password not in charges.text()


def by_skipping(cursor: Any) -> int:
    cursor.skip(2)
    return len(cursor.fetchall()) + 2


READS: dict[str, tuple[Callable[[Any], int], int]] = {
    "all": (lambda cursor: len(cursor.fetchall()), ROWS),
    "loop": (lambda cursor: sum(1 for _ in cursor), ROWS),
    "one": (lambda cursor: sum(1 for _ in iter(cursor.fetchone, None)), ROWS),
    "value": (lambda cursor: sum(1 for _ in iter(cursor.fetchval, None)), ROWS),
    "many": (lambda cursor: sum(len(rows) for rows in iter(lambda: cursor.fetchmany(3), [])), ROWS),
    "skip": (by_skipping, ROWS - 2),
}


@pytest.mark.parametrize("how", READS)
def test_rows_are_counted_however_they_are_read(
    connection: Any, charges: Charges, how: str
) -> None:
    read, counted = READS[how]
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t")
    assert charges.one().partial
    assert read(cursor) == ROWS
    charge = charges.one()
    assert (charge.rows, charge.partial, charge.revision) == (counted, False, 1)
    assert charges.new() == []


def test_a_connection_runs_statements_too(connection: Any, charges: Charges) -> None:
    assert len(connection.execute("SELECT a FROM t WHERE a > ?", 3).fetchall()) == 3
    charge = charges.one()
    assert (text_of(charge), charge.rows) == ("SELECT a FROM t WHERE a > ?", 3)


@pytest.mark.parametrize("how", ["close", "execute", "end"])
def test_what_is_not_read_to_its_end_is_partial(
    connection: Any, charges: Charges, how: str
) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t")
    cursor.fetchone()
    if how == "close":
        cursor.close()
    elif how == "execute":
        cursor.execute("UPDATE t SET b = 'y' WHERE a = 1")
    else:
        costinsights.uninstrument()
    first = charges.new()[0]
    assert (first.rows, first.partial) == (1, True)


def test_a_dropped_cursor_is_found_out_by_the_next_call(connection: Any, charges: Charges) -> None:
    """pyodbc's cursors have neither weak references nor finalisers."""
    for _ in range(5):
        assert connection.execute("SELECT a FROM t").fetchval() == 0
    assert connection.execute("SELECT count(*) FROM t").fetchall()[0][0] == ROWS
    found = charges.new()
    assert [(charge.rows, charge.partial) for charge in found] == [(1, True)] * 5 + [(1, False)]


def test_a_cursor_in_the_place_of_another_is_not_taken_for_it(
    connection: Any, charges: Charges
) -> None:
    kept: list[Any] = []
    for number in range(20):
        cursor = connection.cursor()
        cursor.execute(f"SELECT a FROM t WHERE a >= {number % ROWS}")
        kept.append(cursor.description)  # so that it looks as if the cursor were there
        cursor.fetchone()
        del cursor
    found = charges.new()
    assert len(found) == 20
    assert {charge.rows for charge in found} <= {1, None}


def test_what_is_changed_is_counted(connection: Any, charges: Charges) -> None:
    connection.execute("UPDATE t SET b = 'y' WHERE a < 4")
    charge = charges.one()
    assert (charge.operation, charge.rows, charge.partial) == ("UPDATE", 4, False)


def test_a_batch_is_one_charge(connection: Any, charges: Charges, server: TdsServer) -> None:
    cursor = connection.cursor()
    cursor.executemany("INSERT INTO t VALUES (?, ?)", [(100, "a"), (101, "b")])
    charge = charges.one()
    assert (charge.operation, charge.usage["batch_size"]) == ("BATCH INSERT", 2)
    # An iterator, because with a list pyodbc 5.5.0 itself ends the process here, whoever looks on.
    cursor.fast_executemany = True
    cursor.executemany("INSERT INTO t VALUES (?, ?)", iter([(102, "a"), (103, "b")]))
    assert charges.one().operation == "INSERT"  # nobody knows how many
    assert connection.execute("SELECT count(*) FROM t").fetchval() == ROWS + 4


def test_several_results_are_one_charge(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t WHERE a < 2; UPDATE t SET b = 'z'; SELECT a FROM t")
    assert len(cursor.fetchall()) == 2
    assert charges.one().partial
    assert cursor.nextset()
    assert cursor.nextset()
    assert len(cursor.fetchall()) == ROWS
    assert not cursor.nextset()
    charge = charges.one()
    assert (charge.rows, charge.partial) == (2 + ROWS + ROWS, False)


def test_a_procedure(connection: Any, charges: Charges, server: TdsServer) -> None:
    column = next(iter(server.engine.run("SELECT 1 AS a", [])))
    assert isinstance(column, Rows)
    server.procedure("totals", Rows(column.columns, [[1], [2]]), Changed(5))
    assert len(connection.execute("{CALL totals}").fetchall()) == 2
    charge = charges.one()
    assert (charge.rows, charge.partial) == (2, False)


def test_a_catalogue_function_is_a_statement(
    connection: Any, charges: Charges, server: TdsServer
) -> None:
    with pytest.raises(driver.Error):
        connection.cursor().tables()  # the server has no such procedure
    charge = charges.one()
    assert (charge.operation, charge.statement) == ("TABLES", None)
    assert charge.error is not None


def test_a_statement_that_fails_costs(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    with pytest.raises(driver.ProgrammingError) as caught:
        cursor.execute(f"SELECT '{SECRET}' FROM nowhere")
    assert caught.value.args[0] == "42S02"
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "pyodbc.ProgrammingError"
    assert charge.error.sqlstate == "42S02"
    assert charge.rows is None
    assert SECRET not in charges.text()
    assert cursor.execute("SELECT 1 AS a").fetchall()[0][0] == 1


def test_a_call_that_is_cancelled_costs(
    connection: Any, charges: Charges, server: TdsServer
) -> None:
    server.on("slow", Pause(1.0), ANSWER)
    cursor = connection.cursor()
    timer = threading.Timer(0.3, cursor.cancel)
    timer.start()
    try:
        cursor.execute("SELECT a FROM t /* slow */").fetchall()
        stopped = False
    except driver.Error:
        stopped = True
    timer.join()
    charge = charges.new()[0]
    assert (charge.error is not None) == stopped
    assert milliseconds(charge) > 250


def test_a_time_limit_costs(charges: Charges, server: TdsServer) -> None:
    server.on("slow", Pause(2.0), ANSWER)
    connection = driver.connect(connection_string(server, MICROSOFT))
    try:
        connection.timeout = 1
        with pytest.raises(driver.OperationalError) as caught:
            connection.execute("SELECT a FROM t /* slow */")
        assert caught.value.args[0] == "HYT00"
        charge = charges.one()
        assert charge.error is not None
        assert milliseconds(charge) >= 1000
    finally:
        connection.close()


def test_a_closed_cursor_fails_as_always(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises(driver.ProgrammingError, match="closed"):
        cursor.execute("SELECT 1")
    assert charges.one().error is not None


# -- what a serverless pool says --------------------------------------------------------------------


def test_data_processed_is_read_from_the_messages_and_priced(
    server: TdsServer, tmp_path: Path, name: str
) -> None:
    serverless = as_resource("azure.synapse_serverless", region="westeurope")
    with instrumented(tmp_path / "ledger", "pyodbc", config=serverless) as charges:
        server.on("openrowset", Info(processed(12, 1)), ANSWER)
        server.on("small", Info(processed(1)), ANSWER)
        server.on("nothing", Info(processed(0)), ANSWER)
        connection = driver.connect(connection_string(server, name))
        cursor = connection.cursor()
        cursor.execute("SELECT a FROM t /* openrowset */")
        assert "12 megabytes" in cursor.messages[0][1]
        cursor.fetchall()
        large = charges.one()
        cursor.execute("SELECT a FROM t /* small */").fetchall()
        small = charges.one()
        cursor.execute("SELECT a FROM t /* nothing */").fetchall()
        none = charges.one()
        connection.close()
    assert large.system == "azure.synapse"
    assert large.vendor_id == "6F9619FF-8B86-D011-B42D-00C04FC964FF"
    assert large.usage["data_scanned_bytes"] == 12 << 20
    assert large.usage["data_processed_bytes"] == 13 << 20
    assert large.amount is not None
    assert small.amount is not None
    assert abs(Decimal(large.amount) - Decimal(13) / 2**20 * 5) < Decimal("1e-15")
    assert abs(Decimal(small.amount) - Decimal(10) / 2**20 * 5) < Decimal("1e-15")  # the minimum
    # It may be free, or less than the message shows.
    assert "data_processed_bytes" not in none.usage
    assert none.amount is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (processed(1_204, 3, 2), 1_209 << 20),
        ("Total size of data scanned is 1,204 megabytes", 1_204 << 20),
        ("TOTAL SIZE OF DATA SCANNED IS 0.5 MB.", 1 << 19),
        ("total size of data moved is .. megabytes", None),
        ("total size of data scanned is many megabytes", None),
        ("data scanned is 12 gigabytes", None),
        ("(7 rows affected)", None),
        ("", None),
    ],
)
def test_messages_are_read_with_care(text: str, expected: int | None) -> None:
    usage = Messages().add([("[01000] (15806)", text)]).usage()
    found = None if usage is None or usage.meters is None else usage.meters["data_processed_bytes"]
    assert found == expected


# -- tags -------------------------------------------------------------------------------------------


def sent(server: TdsServer, name: str) -> list[tuple[object, ...]]:
    """What the server sees of a small program; numbers of statements and connections begin anew."""
    server.forget()
    connection = driver.connect(connection_string(server, name, APP="mine"))
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t WHERE a = ?", 1)
    cursor.fetchall()
    cursor.execute("SELECT a FROM t")
    cursor.fetchone()
    cursor.executemany("UPDATE t SET b = ? WHERE a = ?", [("p", 1), ("q", 2)])
    connection.commit()
    connection.close()
    assert len(server.logins) == 1
    return [
        (request.kind, request.text, request.application)
        if "prepare" in request.kind
        else (request.kind, request.text, request.given, request.application)
        for request in server.requests
        if "datatype_info" not in request.kind + request.text  # asked once a connection string
    ]


def test_the_server_sees_the_same_with_and_without_us(
    server: TdsServer, tmp_path: Path, name: str
) -> None:
    bare = sent(server, name)
    with instrumented(tmp_path / "ledger", "pyodbc") as charges:
        assert sent(server, name) == bare
        assert len(charges.new()) == 3
    assert len(bare) >= 6


def test_a_native_tag_stands_behind_the_programs_own_name(
    server: TdsServer, tmp_path: Path, name: str
) -> None:
    bare = sent(server, name)
    job = {"job": "nightly"}
    with instrumented(tmp_path / "l", "pyodbc", tagging="native", attribution=job) as charges:
        tagged = sent(server, name)
        assert {charge.tag for charge in charges.new()} == {"ci,job=nightly"}
        assert {request[-1] for request in tagged} == {"mine,ci,job=nightly"}
        assert [request[:-1] for request in tagged] == [request[:-1] for request in bare]
        with driver.connect(connection_string(server, name), APP="kept") as connection:
            connection.execute("SELECT 1 AS a").fetchall()
        connection.close()
        assert server.requests[-1].application == "kept,ci,job=nightly"
        with driver.connect(connection_string(server, name)) as connection:
            connection.execute("SELECT 1 AS a").fetchall()
        connection.close()
        assert server.requests[-1].application == "ci,job=nightly"


def test_a_dedicated_pool_gets_labels_where_comments_are_asked_for(
    server: TdsServer, tmp_path: Path, name: str
) -> None:
    dedicated = as_resource("azure.synapse_dedicated")
    with instrumented(
        tmp_path / "ledger", "pyodbc", tagging="comment", config=dedicated
    ) as charges:
        connection = driver.connect(connection_string(server, name))
        cursor = connection.cursor()
        with (
            costinsights.attribute(asset="sales/orders", job="nightly"),
            pytest.raises(driver.Error),
        ):
            cursor.execute("SELECT a FROM nowhere")
        connection.close()
    [charge] = charges.new()
    assert charge.tag == "ci_asset_sales_orders_job_nightly"
    text = "SELECT a FROM nowhere OPTION (LABEL = 'ci_asset_sales_orders_job_nightly')"
    assert server.texts() == [text]
    assert text_of(charge) == "SELECT a FROM nowhere"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT 1", "SELECT 1 OPTION (LABEL = 'ci_asset_x')"),
        (
            "insert into t select a from u",
            "insert into t select a from u OPTION (LABEL = 'ci_asset_x')",
        ),
        ("INSERT INTO t (a) SELECT 1", "INSERT INTO t (a) SELECT 1 OPTION (LABEL = 'ci_asset_x')"),
        ("DELETE FROM t", "DELETE FROM t OPTION (LABEL = 'ci_asset_x')"),
        ("SELECT 1 OPTION (HASH JOIN)", "SELECT 1 OPTION (HASH JOIN, LABEL = 'ci_asset_x')"),
        (
            "SELECT 1 OPTION (USE HINT('A'), MAXDOP 1) ",
            "SELECT 1 OPTION (USE HINT('A'), MAXDOP 1, LABEL = 'ci_asset_x') ",
        ),
        ("SELECT 1 OPTION (LABEL = 'mine')", None),
        ("INSERT INTO t VALUES (1)", None),
        ("SELECT option FROM t", None),
        ("SELECT 1; SELECT 2", None),
        ("SELECT 1 -- OPTION (", None),
        ("SELECT 1 /* why */", None),
        ("CREATE TABLE t (a INT)", None),
        ("EXEC p", None),
        ("COPY INTO t FROM 'https://x'", None),
        (b"SELECT 2", b"SELECT 2 OPTION (LABEL = 'ci_asset_x')"),
    ],
)
def test_a_label_is_merged_or_left(query: str | bytes, expected: str | bytes | None) -> None:
    found = labelled(query, "ci,asset=x")
    assert found == (None if expected is None else (expected, "ci_asset_x"))


# -- nothing changes --------------------------------------------------------------------------------


def attributes() -> dict[tuple[str, str], object]:
    owners: tuple[type, ...] = (driver.Connection, driver.Cursor)
    return {
        (owner.__name__, name): value
        for owner in owners
        for name, value in cast("dict[str, object]", vars(owner)).items()
    }


def test_types_are_untouched(server: TdsServer, tmp_path: Path, name: str) -> None:
    methods = attributes()
    connection = driver.connect(connection_string(server, name))  # before we look on
    cursor = connection.cursor()
    names = dir(cursor)
    with instrumented(tmp_path / "ledger", "pyodbc") as charges:
        assert type(connection) is driver.Connection
        assert type(cursor) is driver.Cursor
        assert isinstance(connection.cursor(), driver.Cursor)
        assert set(dir(cursor)) - set(names) <= {"__del__"}
        with pytest.raises(TypeError):
            driver.Cursor.execute = None
        assert cursor.execute("SELECT a FROM t") is cursor
        assert tuple(cursor.fetchone()) == (0,)
        cursor.cancel()
        charge = charges.one()
        assert charge.resource.namespace == "shop"  # as the driver says
    after = attributes()
    assert all(after[method] is methods[method] for method in methods)
    assert set(after) == set(methods)
    connection.close()
    del connection, cursor
    gc.collect()


def test_switched_off_nothing_is_recorded(server: TdsServer, tmp_path: Path) -> None:
    with instrumented(tmp_path / "ledger", "pyodbc") as charges:
        connection = driver.connect(connection_string(server))
        cursor = connection.execute("SELECT a FROM t")
        cursor.fetchone()
    assert len(cursor.fetchall()) == ROWS - 1
    assert len(connection.execute("SELECT a FROM t").fetchall()) == ROWS
    connection.close()
    assert len(charges.new()) == 1


# -- above the driver -------------------------------------------------------------------------------


def test_sqlalchemy_and_pandas_are_counted_once(
    charges: Charges, server: TdsServer, name: str
) -> None:
    url = sqlalchemy.URL.create(
        "mssql+pyodbc", query={"odbc_connect": connection_string(server, name)}
    )
    engine = sqlalchemy.create_engine(url, connect_args={"autocommit": True})
    with engine.connect() as connection:
        charges.new()
        server.requests.clear()
        assert len(connection.execute(sqlalchemy.text("SELECT a FROM t")).fetchall()) == ROWS
        assert (charges.one().rows, len(server.texts())) == (ROWS, 1)
        frame = pd.read_sql(sqlalchemy.text("SELECT a, b FROM t WHERE a < 3"), connection)
        assert (len(frame), charges.one().rows) == (3, 3)
        assert len(server.texts()) == 2
    engine.dispose()


async def odbc_program(server: TdsServer) -> int:
    async with (
        aioodbc.connect(dsn=connection_string(server)) as connection,
        connection.cursor() as cursor,
    ):
        with costinsights.attribute(asset="orders"):
            await cursor.execute("SELECT a FROM t WHERE a < ?", 5)
        return len(await cursor.fetchall())


def test_aioodbc_runs_in_threads_for_whom_it_was_called(
    charges: Charges, server: TdsServer
) -> None:
    assert asyncio.run(odbc_program(server)) == 5
    charge = charges.one()
    assert (charge.rows, charge.partial) == (5, False)
    assert charge.attribution["asset"] == "orders"


def test_aioodbc_is_put_back(server: TdsServer, tmp_path: Path) -> None:
    owner: Any = aioodbc.connection.Connection
    original = owner._execute
    for _ in range(2):
        with instrumented(tmp_path / "ledger", "pyodbc"):
            assert owner._execute is not original
        assert owner._execute is original


def test_other_systems_go_by_what_their_driver_says(charges: Charges, tmp_path: Path) -> None:
    file = tmp_path / "secret-folder" / "shop.db"
    file.parent.mkdir()
    connection = driver.connect(f"DRIVER={odbc('SQLite3')};Database={file}", autocommit=True)
    connection.execute("CREATE TABLE t (a INTEGER)")
    connection.execute("INSERT INTO t VALUES (1), (2)")
    assert len(connection.execute("SELECT a FROM t").fetchall()) == 2
    connection.close()
    *_, charge = charges.new()
    assert (charge.system, charge.rows) == ("sqlite", 2)
    assert (charge.resource.address, charge.resource.namespace) == (None, "shop.db")
    assert "secret-folder" not in charges.text()


def test_a_driver_that_would_ask_its_server_for_its_name_is_not_asked(
    charges: Charges, tmp_path: Path
) -> None:
    """By the name of its file, for Dremio's own driver cannot be had: behind it is SQLite's."""
    odbc("SQLite3")
    found = next(Path("/usr/lib").glob("*/odbc/libsqlite3odbc.so"))
    library = tmp_path / "libarrow-flight-sql-odbc.so.1"
    library.symlink_to(found)
    file = tmp_path / "shop.db"
    place = f"HOST=data.dremio.cloud;PORT=443;Database={file}"
    connection = driver.connect(f"DRIVER={library};{place}", autocommit=True)
    connection.execute("SELECT 1").fetchall()
    connection.close()
    charge = charges.one()
    assert (charge.system, charge.resource.address) == ("dremio", "data.dremio.cloud")
    assert (charge.resource.port, charge.resource.service) == (443, "dremio")


def test_a_driver_that_knows_the_number_of_rows_beforehand(
    charges: Charges, postgres: Server
) -> None:
    connection = driver.connect(
        f"DRIVER={odbc('PostgreSQL Unicode')};SERVER={postgres.host};PORT={postgres.port};"
        f"DATABASE={postgres.database};UID={postgres.user};PWD={postgres.password}"
    )
    cursor = connection.execute("SELECT generate_series(1, ?)", 3)
    assert len(cursor.fetchall()) == 3
    connection.close()
    charge = charges.one()
    assert (charge.system, charge.rows, charge.partial) == ("postgresql", 3, False)
    assert (charge.resource.address, charge.resource.port) == (postgres.host, postgres.port)


@pytest.mark.parametrize(
    ("server_name", "expected"),
    [
        ("tcp:shop.database.windows.net,1433", ("shop.database.windows.net", "1433")),
        ("db", ("db", None)),
        ("db:1444", ("db", "1444")),
        (r"db\INSTANCE", ("db", None)),
        (r"db\INSTANCE,1435", ("db", None)),
        ("fe80::1", ("fe80::1", None)),
        ("", (None, None)),
    ],
)
def test_a_servers_name(server_name: str, expected: tuple[str | None, str | None]) -> None:
    assert endpoint(server_name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT a FROM t", False),
        ("SELECT a FROM t;", False),
        ("SET NOCOUNT ON; SELECT a FROM t", False),
        ("SET NOCOUNT ON; INSERT INTO t VALUES (?); SELECT a FROM t", False),
        ("INSERT INTO t VALUES (?); SELECT a FROM t", True),
        ("DECLARE @a INT; SELECT a FROM t", False),
        ("WITH x AS (SELECT ?) SELECT a FROM x", False),
        ("SELECT ?; EXEC p", True),
    ],
)
def test_several_results_are_told_by_the_text(text: str, expected: bool) -> None:
    assert has_several_results(text) is expected


def test_every_statement_of_a_cursor_is_hooked() -> None:
    """A method that a new version of the driver adds is looked at before it is missed."""
    hooked = {hook.target for hook in PyODBCInstrumentor.hooks}
    known = {"setinputsizes", "setoutputsize", "commit", "rollback", "cancel"}
    for (owner, method), value in attributes().items():
        if owner == "Cursor" and callable(value) and not method.startswith("_"):
            assert f"pyodbc:Cursor.{method}" in hooked or method in known


def test_time_is_that_in_the_driver(connection: Any, charges: Charges, server: TdsServer) -> None:
    server.on("slow", Pause(0.1), ANSWER)
    began = time.perf_counter()
    cursor = connection.execute("SELECT a FROM t /* slow */")
    time.sleep(0.5)
    cursor.fetchall()
    charge = charges.one()
    assert 100 <= milliseconds(charge) <= since(began) - 500


def test_many_threads(charges: Charges, server: TdsServer) -> None:
    """Each with a connection of its own; cursors come and go at the same addresses."""

    def work() -> None:
        connection = driver.connect(connection_string(server))
        for number in range(10):
            connection.execute("SELECT a FROM t").fetchval()
            assert len(connection.execute("SELECT a FROM t WHERE a < ?", number).fetchall()) <= ROWS
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    costinsights.uninstrument()  # what is open is completed
    found = charges.new()
    assert len(found) == 6 * 10 * 2
    assert {charge.rows for charge in found if "WHERE" not in text_of(charge)} == {1}
    assert all(not charge.partial for charge in found if "WHERE" in text_of(charge))


@pytest.mark.parametrize(
    ("service", "more", "expected"),
    [
        ("azure.synapse_dedicated", {"hourly": {"dwus": "200"}}, "3.02"),
        ("azure.sql", {"dimensions": {"service_objective": "S1"}}, "0.0403"),
    ],
)
def test_an_hour_is_shared_where_the_size_is_declared(
    server: TdsServer, tmp_path: Path, service: str, more: dict[str, Any], expected: str
) -> None:
    system = service.removesuffix("_dedicated")
    region = "westeurope" if system == "azure.synapse" else "eastus"
    declared = as_resource(service, system, region=region, **more)
    with instrumented(tmp_path / "ledger", "pyodbc", config=declared) as charges:
        connection = driver.connect(connection_string(server))
        connection.execute("SELECT a FROM t").fetchall()
        connection.close()
        charge = charges.one()
    assert (charge.system, charge.resource.service) == (system, service)
    assert charge.basis == "estimated"
    share = Decimal(charge.duration_ns) / 10**9 / 3600 * Decimal(expected)
    assert abs(Decimal(charge.amount or 0) - share) < Decimal("1e-12")
