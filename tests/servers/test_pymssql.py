"""pymssql, unmodified: one charge a statement, its C types hooked in place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pymssql
import pytest
import sqlalchemy

import costinsights
from tests.servers import tds_fixtures
from tests.servers.charges import Charges, text_of
from tests.servers.tds_clients import as_resource, instrumented
from tests.servers.tds_server import ANSWER, Info, Rows, TdsServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ROWS = tds_fixtures.ROWS
SECRET = "s3cr3t-41fe"


strict, running, server = tds_fixtures.strict, tds_fixtures.running, tds_fixtures.server


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "pymssql") as charges:
        yield charges


def connect(server: TdsServer, **more: Any) -> Any:
    more = {"autocommit": True, **more}
    make: Any = pymssql.connect
    return make(
        server.host, server.user, server.password, server.database, port=str(server.port), **more
    )


@pytest.fixture
def connection(charges: Charges, server: TdsServer) -> Iterator[Any]:
    with connect(server) as connection:
        yield connection


def test_a_charge_says_what_ran_where(connection: Any, charges: Charges, server: TdsServer) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT a FROM t WHERE a < %s AND b = 'x'", (3,))
        assert len(cursor.fetchall()) == 3
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("microsoft.sql_server", "pymssql")
    where = charge.resource
    assert (where.address, where.port, where.namespace) == (server.host, server.port, "shop")
    assert text_of(charge) == "SELECT a FROM t WHERE a < %s AND b = ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 3, False)
    assert server.password not in charges.text()


READS: dict[str, Callable[[Any], int]] = {
    "all": lambda cursor: len(cursor.fetchall()),
    "loop": lambda cursor: sum(1 for _ in cursor),
    "one": lambda cursor: sum(1 for _ in iter(cursor.fetchone, None)),
    "many": lambda cursor: sum(len(rows) for rows in iter(lambda: cursor.fetchmany(3), [])),
}


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize("how", READS)
def test_rows_are_counted_however_they_are_read(
    connection: Any, charges: Charges, how: str, as_dict: bool
) -> None:
    with connection.cursor(as_dict=as_dict) as cursor:
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
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(100, "a"), (101, "b")])
        batch = charges.one()
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(102, "a"), (103, "b")], batch_size=2)
    assert (batch.operation, batch.rows, batch.usage["batch_size"]) == ("BATCH INSERT", 2, 2)
    assert charges.one().operation == "BATCH INSERT"


def test_a_procedure(connection: Any, charges: Charges, server: TdsServer) -> None:
    column = next(iter(server.engine.run("SELECT 1 AS a", [])))
    assert isinstance(column, Rows)
    server.procedure("totals", Rows(column.columns, [[1], [2]]))
    with connection.cursor() as cursor:
        cursor.callproc("totals", ())
        assert cursor.fetchall() == [(1,), (2,)]
    charge = charges.one()
    assert (charge.operation, text_of(charge), charge.rows) == ("EXEC", "EXEC totals", 2)


def test_a_statement_that_fails_costs(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        with pytest.raises(pymssql.ProgrammingError) as caught:
            cursor.execute(f"SELECT '{SECRET}' FROM nowhere")
        assert caught.value.args[0] == 208
        charge = charges.one()
        assert charge.error is not None
        assert charge.error.type == "pymssql.exceptions.ProgrammingError"
        assert charge.rows is None
        cursor.execute("SELECT 1 AS a")
        assert cursor.fetchall() == [(1,)]
    assert SECRET not in charges.text()


def test_a_closed_cursor_fails_as_always(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises(pymssql.InterfaceError, match="closed"):
        cursor.execute("SELECT 1")
    assert charges.one().error is not None


def test_the_programs_own_handler_of_messages_is_left_alone(
    connection: Any, charges: Charges, server: TdsServer
) -> None:
    server.on("said", Info("Total size of data scanned is 12 megabytes"), ANSWER)
    heard: list[str] = []

    def hear(*said: Any) -> None:
        heard.append(said[-1].decode())

    connection._conn.set_msghandler(hear)
    with connection.cursor() as cursor:
        cursor.execute("SELECT a FROM t /* said */")
        cursor.fetchall()
    assert heard == ["Total size of data scanned is 12 megabytes"]
    assert "data_processed_bytes" not in charges.one().usage


def sent(server: TdsServer, **more: Any) -> list[tuple[object, ...]]:
    server.forget()
    with connect(server, appname="mine", autocommit=False, **more) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT a FROM t WHERE a = %s", (1,))
            cursor.fetchall()
            cursor.execute("SELECT a FROM t")
            cursor.fetchone()
        connection.commit()
    assert len(server.logins) == 1
    return [(each.kind, each.text, each.given, each.application) for each in server.requests]


def test_the_server_sees_the_same_with_and_without_us(server: TdsServer, tmp_path: Path) -> None:
    bare = sent(server)
    with instrumented(tmp_path / "ledger", "pymssql") as charges:
        assert sent(server) == bare
        assert len(charges.new()) == 2
    job = {"job": "nightly"}
    with instrumented(tmp_path / "l", "pymssql", tagging="native", attribution=job) as charges:
        tagged = sent(server)
        assert {charge.tag for charge in charges.new()} == {"ci,job=nightly"}
    assert [request[:-1] for request in tagged] == [request[:-1] for request in bare]
    assert {request[-1] for request in tagged} == {"mine,ci,job=nightly"}


def test_a_dedicated_pool_gets_labels_where_comments_are_asked_for(
    server: TdsServer, tmp_path: Path
) -> None:
    settings = {"tagging": "comment", "config": as_resource("azure.synapse_dedicated")}
    with instrumented(tmp_path / "ledger", "pymssql", **settings) as charges:
        with connect(server) as connection, connection.cursor() as cursor:
            server.forget()
            with costinsights.attribute(asset="sales/orders"), pytest.raises(pymssql.Error):
                cursor.execute("SELECT a FROM nowhere WHERE a = %s", (1,))
        assert [charge.tag for charge in charges.new()] == ["ci_asset_sales_orders"]
    assert server.texts() == [
        "SELECT a FROM nowhere WHERE a = 1 OPTION (LABEL = 'ci_asset_sales_orders')"
    ]


def test_types_are_untouched(server: TdsServer, tmp_path: Path) -> None:
    owners: tuple[type, ...] = (pymssql.Connection, pymssql.Cursor)
    before = [dict[str, object](vars(owner)) for owner in owners]
    connection = connect(server)  # before we look on
    cursor = connection.cursor()
    with instrumented(tmp_path / "ledger", "pymssql") as charges:
        assert type(cursor) is pymssql.Cursor
        assert type(connect(server)) is pymssql.Connection
        cursor.execute("SELECT a FROM t")
        assert len(cursor.fetchall()) == ROWS
        assert charges.one().resource.address is None  # nobody knows
    assert [dict[str, object](vars(owner)) for owner in owners] == before
    cursor.close()
    connection.close()


def test_sqlalchemy_and_pandas_are_counted_once(charges: Charges, server: TdsServer) -> None:
    url = sqlalchemy.URL.create(
        "mssql+pymssql", server.user, server.password, server.host, server.port, server.database
    )
    engine = sqlalchemy.create_engine(url, connect_args={"autocommit": True})
    with engine.connect() as connection:
        charges.new()
        server.requests.clear()
        assert len(connection.execute(sqlalchemy.text("SELECT a FROM t")).fetchall()) == ROWS
        assert (charges.one().rows, len(server.texts())) == (ROWS, 1)
        frame = pd.read_sql(sqlalchemy.text("SELECT a, b FROM t WHERE a < 3"), connection)
        assert (len(frame), charges.one().rows) == (3, 3)
    engine.dispose()
