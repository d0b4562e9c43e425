"""mysqlclient on a real MariaDB: every way of running a statement, one charge each."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from tests.backends import require
from tests.servers.charges import Charges, instrumented, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.backends import Server

MySQLdb: Any = require("MySQLdb")
cursors: Any = require("MySQLdb.cursors")
SECRET = "s3cr3t-0c41"
ROWS = 50


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


def connect(server: Server) -> Any:
    return MySQLdb.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=server.database,
    )


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "mysqlclient") as charges:
        yield charges


@pytest.fixture
def connection(charges: Charges, mariadb: Server) -> Iterator[Any]:
    with connect(mariadb) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TEMPORARY TABLE t (a INT PRIMARY KEY, b VARCHAR(20))")
        cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(i, "x") for i in range(ROWS)])
        found = charges.new()
        assert [(charge.operation, charge.rows) for charge in found] == [
            ("CREATE TABLE", 0),
            ("BATCH INSERT", ROWS),
        ]
        yield connection


def test_a_charge_says_what_ran_where(connection: Any, charges: Charges, mariadb: Server) -> None:
    cursor = connection.cursor(cursors.DictCursor)
    cursor.execute("SELECT a FROM t WHERE a < %s AND b = 'x'", (10,))
    assert len(cursor.fetchall()) == 10
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("mariadb", "mysqlclient")
    assert charge.resource.address == mariadb.host
    assert charge.resource.port == mariadb.port
    assert charge.resource.namespace in (mariadb.database, None)  # None before mysqlclient 2.2.7
    assert text_of(charge) == "SELECT a FROM t WHERE a < %s AND b = ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 10, False)


@pytest.mark.parametrize("how", ["all", "loop", "many"])
def test_unbuffered_rows_complete_the_charge(connection: Any, charges: Charges, how: str) -> None:
    cursor = connection.cursor(cursors.SSCursor)
    cursor.execute("SELECT a FROM t")
    assert charges.one().rows is None, "the server has not said yet"
    if how == "all":
        assert len(cursor.fetchall()) == ROWS
    elif how == "loop":
        assert sum(1 for _ in cursor) == ROWS
    else:
        while len(cursor.fetchmany(7)) == 7:
            pass
    charge = charges.one()
    assert (charge.rows, charge.partial) == (ROWS, False)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_what_is_not_read_to_its_end_is_partial(
    connection: Any, charges: Charges, how: str
) -> None:
    cursor = connection.cursor(cursors.SSCursor)
    cursor.execute("SELECT a FROM t")
    cursor.fetchone()
    if how == "close":
        cursor.close()
    else:
        del cursor
        gc.collect()
    charge = charges.one()
    assert (charge.rows, charge.partial) == (1, True)


def test_several_results_are_one_charge(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT 1; SELECT 2 UNION SELECT 3")
    assert cursor.nextset()
    assert not cursor.nextset()
    charge = charges.one()
    assert charge.rows == (3 if hasattr(connection, "more_results") else 1)
    assert not charge.partial


def test_a_procedure(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.execute("CREATE OR REPLACE PROCEDURE first_rows2(n INT) SELECT a FROM t WHERE a < n")
    charges.new()
    cursor.callproc("first_rows2", (4,))
    assert len(cursor.fetchall()) == 4
    cursor.close()
    charge = charges.one()
    assert (charge.operation, text_of(charge), charge.rows) == ("CALL", "CALL first_rows2", 4)


def test_a_statement_that_fails_costs(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    with pytest.raises(MySQLdb.ProgrammingError) as caught:
        cursor.execute(f"SELECT '{SECRET}' FROM nowhere")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "MySQLdb.ProgrammingError"
    assert caught.value.args[0] == 1146
    assert SECRET not in charges.text()
    cursor.close()
    with pytest.raises(MySQLdb.ProgrammingError, match="cursor closed"):
        cursor.execute("SELECT 1")
    assert charges.one().resource.address is None
