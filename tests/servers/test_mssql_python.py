"""mssql-python, unmodified: one charge a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import costinsights
from tests.backends import require
from tests.servers import tds_fixtures
from tests.servers.charges import Charges, text_of
from tests.servers.tds_clients import as_resource, instrumented, processed
from tests.servers.tds_server import ANSWER, Info, Rows, TdsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# It loads Debian's libltdl7 and libgssapi-krb5-2.
mssql_python = require("mssql_python")
ROWS = tds_fixtures.ROWS
SECRET = "s3cr3t-41fe"


strict, running, server = tds_fixtures.strict, tds_fixtures.running, tds_fixtures.server


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "mssql_python") as charges:
        yield charges


def connect(server: TdsServer, *, autocommit: bool = True) -> Any:
    return mssql_python.connect(
        f"SERVER={server.host},{server.port};DATABASE={server.database};UID={server.user};"
        f"PWD={server.password};Encrypt=yes;TrustServerCertificate=yes",
        autocommit=autocommit,
    )


@pytest.fixture
def connection(charges: Charges, server: TdsServer) -> Iterator[Any]:
    with connect(server) as connection:
        yield connection


def test_a_charge_says_what_ran_where(connection: Any, charges: Charges, server: TdsServer) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT a FROM t WHERE a < ? AND b = 'x'", (3,))
        assert len(cursor.fetchall()) == 3
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("microsoft.sql_server", "mssql_python")
    where = charge.resource
    assert (where.address, where.port, where.namespace) == (server.host, server.port, "shop")
    assert text_of(charge) == "SELECT a FROM t WHERE a < ? AND b = ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 3, False)
    assert server.password not in charges.text()


READS: dict[str, Callable[[Any], int]] = {
    "all": lambda cursor: len(cursor.fetchall()),
    "loop": lambda cursor: sum(1 for _ in cursor),
    "one": lambda cursor: sum(1 for _ in iter(cursor.fetchone, None)),
    "value": lambda cursor: sum(1 for _ in iter(cursor.fetchval, None)),
    "table": lambda cursor: cursor.arrow().num_rows,
    "batches": lambda cursor: sum(batch.num_rows for batch in cursor.arrow_reader(3)),
    "many": lambda cursor: sum(len(rows) for rows in iter(lambda: cursor.fetchmany(3), [])),
}


@pytest.mark.parametrize("how", READS)
def test_rows_are_counted_however_they_are_read(
    connection: Any, charges: Charges, how: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT a FROM t")
        assert charges.one().partial
        assert READS[how](cursor) == ROWS
    charge = charges.one()
    assert (charge.rows, charge.partial, charge.revision) == (ROWS, False, 1)


@pytest.mark.parametrize("how", tds_fixtures.ENDS)
def test_what_is_not_read_to_its_end_is_partial(
    connection: Any, charges: Charges, how: str
) -> None:
    tds_fixtures.leave(connection, how)
    tds_fixtures.says_partial(charges)


def test_what_is_changed_is_counted(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE t SET b = 'y' WHERE a < 4")
        assert charges.one().rows == 4
        cursor.executemany("INSERT INTO t VALUES (?, ?)", [(100, "a"), (101, "b")])
        batch = charges.one()
    assert (batch.operation, batch.rows, batch.usage["batch_size"]) == ("BATCH INSERT", 2, 2)


def test_several_results_are_one_charge(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT a FROM t WHERE a < 2; SELECT a FROM t")
        assert len(cursor.fetchall()) == 2
        assert charges.one().partial
        assert cursor.nextset()
        assert len(cursor.fetchall()) == ROWS
        assert not cursor.nextset()
        charge = charges.one()
    assert (charge.rows, charge.partial) == (2 + ROWS, False)


def test_a_procedure(connection: Any, charges: Charges, server: TdsServer) -> None:
    column = next(iter(server.engine.run("SELECT 1 AS a", [])))
    assert isinstance(column, Rows)
    server.procedure("totals", Rows(column.columns, [[1], [2]]))
    with connection.cursor() as cursor:
        cursor.execute("{CALL totals}")
        assert len(cursor.fetchall()) == 2
        with pytest.raises(mssql_python.NotSupportedError):
            cursor.callproc("totals", ())
    assert charges.one().rows == 2


def test_a_statement_that_fails_costs(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        with pytest.raises(mssql_python.ProgrammingError):
            cursor.execute(f"SELECT '{SECRET}' FROM nowhere")
        charge = charges.one()
        assert charge.error is not None
        assert charge.error.type == "mssql_python.exceptions.ProgrammingError"
        assert charge.rows is None
        cursor.execute("SELECT 1 AS a")
        assert len(cursor.fetchall()) == 1
    assert SECRET not in charges.text()


def test_a_closed_cursor_fails_as_always(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises(mssql_python.Error):
        cursor.execute("SELECT 1")
    assert charges.one().error is not None


def test_data_processed_is_read_from_the_messages(server: TdsServer, tmp_path: Path) -> None:
    serverless = as_resource("azure.synapse_serverless", region="westeurope")
    with instrumented(tmp_path / "ledger", "mssql_python", config=serverless) as charges:
        server.on("before", Info(processed(12, 1)), ANSWER)
        server.on("behind", ANSWER, Info(processed(20)))
        with connect(server) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT a FROM t /* before */").fetchall()
            charge = charges.one()
            assert charge.usage["data_processed_bytes"] == 13 << 20
            assert charge.vendor_id == "6F9619FF-8B86-D011-B42D-00C04FC964FF"
            assert charge.amount == "0.000061988830566"
            cursor.execute("SELECT a FROM t /* behind */").fetchall()
            seen = "20 megabytes" in str(cursor.messages)
            assert ("data_processed_bytes" in charges.one().usage) is seen


def sent(server: TdsServer) -> list[tuple[object, ...]]:
    server.forget()
    with connect(server, autocommit=False) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT a FROM t WHERE a = ?", (1,))
            cursor.fetchall()
            cursor.execute("SELECT a FROM t")
            cursor.fetchone()
        connection.commit()
    return [
        (each.kind, each.text, each.application)
        for each in server.requests
        if "datatype_info" not in each.kind
    ]


@pytest.mark.parametrize("tagging", ["off", "native"])
def test_the_server_sees_the_same_with_and_without_us(
    server: TdsServer, tmp_path: Path, tagging: str
) -> None:
    """The driver names itself on every connection, and lets nobody else."""
    bare = sent(server)
    with instrumented(tmp_path / "ledger", "mssql_python", tagging=tagging) as charges:
        assert sent(server) == bare
        assert {charge.tag for charge in charges.new()} == {None}
    assert {request[-1] for request in bare} == {"MSSQL-Python"}


def test_a_dedicated_pool_gets_labels_where_comments_are_asked_for(
    server: TdsServer, tmp_path: Path
) -> None:
    settings = {"tagging": "comment", "config": as_resource("azure.synapse_dedicated")}
    with instrumented(tmp_path / "ledger", "mssql_python", **settings) as charges:
        with connect(server) as connection, connection.cursor() as cursor:
            server.forget()
            with costinsights.attribute(asset="sales/orders"), pytest.raises(mssql_python.Error):
                cursor.execute("SELECT a FROM nowhere WHERE a = ?", (1,))
        assert [charge.tag for charge in charges.new()] == ["ci_asset_sales_orders"]
    assert server.texts() == [
        "SELECT a FROM nowhere WHERE a = @P1 OPTION (LABEL = 'ci_asset_sales_orders')"
    ]


def test_connections_that_were_made_before_are_seen(server: TdsServer, tmp_path: Path) -> None:
    with connect(server) as connection, connection.cursor() as cursor:
        with instrumented(tmp_path / "ledger", "mssql_python") as charges:
            cursor.execute("SELECT a FROM t")
            assert len(cursor.fetchall()) == ROWS
            charge = charges.one()
        assert (charge.rows, charge.resource.address) == (ROWS, server.host)


def test_catalogue_functions_are_statements(
    connection: Any, charges: Charges, server: TdsServer
) -> None:
    with connection.cursor() as cursor, pytest.raises(mssql_python.Error):
        cursor.tables()  # the server has no such procedure
    charge = charges.one()
    assert (charge.operation, charge.statement) == ("TABLES", None)


def test_pandas_is_counted_once(connection: Any, charges: Charges) -> None:
    with pytest.warns(UserWarning, match="SQLAlchemy"):
        frame = pd.read_sql("SELECT a, b FROM t WHERE a < 3", connection)
    assert (len(frame), charges.one().rows) == (3, 3)
