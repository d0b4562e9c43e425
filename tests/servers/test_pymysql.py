"""PyMySQL on a real MariaDB: every way of running a statement, one charge each."""

from __future__ import annotations

import gc
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pymysql
import pytest
from pymysql.constants import CLIENT
from pymysql.cursors import DictCursor, SSCursor, SSDictCursor

from tests.backends import PASSWORD, PYMYSQL_SUITE
from tests.servers.charges import Charges, instrumented, milliseconds, since, text_of
from tests.servers.suites import pymysql as suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.backends import Server

SECRET = "s3cr3t-77ac"
ROWS = 50


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "pymysql") as charges:
        yield charges


def connect(server: Server, **more: Any) -> Any:
    return pymysql.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=server.database,
        **more,
    )


@pytest.fixture
def connection(charges: Charges, mariadb: Server) -> Iterator[Any]:
    with connect(mariadb, client_flag=CLIENT.MULTI_STATEMENTS) as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE t (a INT PRIMARY KEY, b VARCHAR(20))")
            cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(i, "x") for i in range(ROWS)])
        charges.new()
        yield connection


def test_a_charge_says_what_ran_where(connection: Any, charges: Charges, mariadb: Server) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT a FROM t WHERE a < %s AND b = 'x'", (10,))
        assert len(cursor.fetchall()) == 10
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("mariadb", "pymysql")
    assert charge.resource.address == mariadb.host
    assert charge.resource.port == mariadb.port
    assert charge.resource.namespace == mariadb.database
    assert text_of(charge) == "SELECT a FROM t WHERE a < %s AND b = ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 10, False)


def questions(connection: Any) -> int:
    """How many statements of this session the server has seen; this one too."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Questions'")
        return int(cursor.fetchone()[1])


def test_a_bulk_insert_is_one_charge_and_one_statement_on_the_server(
    mariadb: Server, tmp_path: Path
) -> None:
    def insert(connection: Any) -> int:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE bulk (a INT)")
            before = questions(connection)
            cursor.executemany("INSERT INTO bulk VALUES (%s)", [(i,) for i in range(1000)])
            return questions(connection) - before

    with connect(mariadb) as connection:
        bare = insert(connection)
    with instrumented(tmp_path / "ledger", "pymysql") as charges, connect(mariadb) as connection:
        assert insert(connection) == bare == 2  # the insert, and the question itself
        found = [charge for charge in charges.new() if charge.operation == "BATCH INSERT"]
    assert [(charge.rows, charge.usage["batch_size"]) for charge in found] == [(1000, 1000)]


def test_a_batch_that_is_sent_one_by_one_is_still_one_charge(
    connection: Any, charges: Charges
) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE t SET b = %s WHERE a = %s", [("y", 1), ("y", 2)])
    charge = charges.one()
    assert (charge.operation, charge.rows, charge.usage["batch_size"]) == ("BATCH UPDATE", 2, 2)


def test_dictionaries_are_rows(connection: Any, charges: Charges) -> None:
    with connection.cursor(DictCursor) as cursor:
        cursor.execute("SELECT a FROM t WHERE a = 1")
        assert cursor.fetchall() == [{"a": 1}]
    assert charges.one().rows == 1


READS: list[tuple[str, Callable[[Any], int]]] = [
    ("all", lambda cursor: len(cursor.fetchall())),
    ("loop", lambda cursor: sum(1 for _ in cursor)),
    ("unbuffered", lambda cursor: sum(1 for _ in cursor.fetchall_unbuffered())),
    ("many", lambda cursor: sum(len(rows) for rows in iter(lambda: cursor.fetchmany(7), ()))),
]


@pytest.mark.parametrize("kind", [SSCursor, SSDictCursor])
@pytest.mark.parametrize("read", [read[1] for read in READS], ids=[read[0] for read in READS])
def test_unbuffered_rows_complete_the_charge(
    connection: Any, charges: Charges, kind: type[SSCursor], read: Callable[[Any], int]
) -> None:
    with connection.cursor(kind) as cursor:
        cursor.execute("SELECT a, b FROM t")
        assert charges.one().partial
        assert read(cursor) == ROWS
        charge = charges.one()
    assert (charge.rows, charge.partial, charge.revision) == (ROWS, False, 1)
    assert charges.new() == []


@pytest.mark.parametrize("how", ["close", "drop", "execute"])
def test_what_is_not_read_to_its_end_is_partial(
    connection: Any, charges: Charges, how: str
) -> None:
    cursor = connection.cursor(SSCursor)
    cursor.execute("SELECT a FROM t")
    cursor.fetchone()
    if how == "close":
        cursor.close()
    elif how == "execute":
        for _ in range(ROWS):
            cursor.fetchone()
        cursor.execute("DO 1")
    else:
        del cursor
        gc.collect()
    first = charges.new()[0]
    assert (first.rows, first.partial) == ((ROWS, False) if how == "execute" else (1, True))


def test_several_results_are_one_charge(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 2 UNION SELECT 3")
        assert cursor.fetchall() == ((1,),)
        assert cursor.nextset()
        assert cursor.fetchall() == ((2,), (3,))
        assert not cursor.nextset()
    charge = charges.one()
    assert (charge.rows, charge.partial) == (3, False)


def test_a_procedure(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE PROCEDURE first_rows(n INT) SELECT a FROM t WHERE a < n")
        charges.new()
        cursor.callproc("first_rows", (4,))
        assert len(cursor.fetchall()) == 4
    charge = charges.one()
    assert (charge.operation, text_of(charge), charge.rows) == ("CALL", "CALL first_rows", 4)


def test_time_is_that_in_the_driver(connection: Any, charges: Charges) -> None:
    began = time.perf_counter()
    with connection.cursor() as cursor:
        cursor.execute("SELECT SLEEP(0.1)")
        time.sleep(0.4)
        cursor.fetchall()
    assert 100 <= milliseconds(charges.one()) <= since(began) - 400


def test_a_statement_that_fails_costs(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        with pytest.raises(pymysql.err.ProgrammingError) as caught:
            cursor.execute(f"SELECT '{SECRET}' FROM nowhere")
        charge = charges.one()
        assert charge.error is not None
        assert charge.error.type == "pymysql.err.ProgrammingError"
        assert charge.error.sqlstate in (None, "42S02")  # older ones do not keep it
        assert caught.value.args[0] == 1146
        with pytest.raises(pymysql.err.IntegrityError):
            cursor.execute("INSERT INTO t VALUES (1, 'again')")
    assert charges.one().error is not None
    assert SECRET not in charges.text()


def test_a_closed_cursor_fails_as_always(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    cursor.close()
    with pytest.raises(pymysql.err.ProgrammingError, match="Cursor closed"):
        cursor.execute("SELECT 1")
    charge = charges.one()
    assert charge.error is not None
    assert charge.resource.address is None


def quoted(value: object, _: object = None) -> str:
    return f"'{value}'"


def test_parameters_are_neither_kept_nor_written(connection: Any, charges: Charges) -> None:
    class Parameter(str):
        __slots__ = ("__weakref__",)

    parameter = Parameter(SECRET)
    gone = weakref.ref(parameter)
    connection.encoders = {**connection.encoders, Parameter: quoted}
    with connection.cursor(SSCursor) as cursor:
        cursor.execute("SELECT %s", (parameter,))
        del parameter
        assert gone() is None
        assert cursor.fetchall() == [(SECRET,)]
    text = charges.text()
    assert SECRET not in text
    assert PASSWORD not in text


def test_warnings_name_the_programs_line(connection: Any) -> None:
    with connection.cursor() as cursor:
        if tuple(map(int, pymysql.VERSION_STRING.split("."))) < (1, 2):
            pytest.skip("it warns of single arguments from 1.2 on")
        with pytest.warns(DeprecationWarning, match="single argument") as caught:
            cursor.execute("SELECT %s", 1)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("ours_first", [True, False])
def test_opentelemetrys_wrapper_changes_nothing(
    mariadb: Server, tmp_path: Path, ours_first: bool
) -> None:
    from opentelemetry.instrumentation.pymysql import PyMySQLInstrumentor

    theirs = PyMySQLInstrumentor()
    if not ours_first:
        theirs.instrument()
    with instrumented(tmp_path / "ledger", "pymysql") as charges:
        if ours_first:
            theirs.instrument()
        try:
            connection = connect(mariadb)
            cursor = connection.cursor()
            cursor.execute("SELECT 1 UNION SELECT 2")
            assert cursor.fetchall() == ((1,), (2,))
            assert charges.one().rows == 2
            cursor.close()
            connection.close()
        finally:
            theirs.uninstrument()


@pytest.mark.slow
def test_pymysqls_own_suite_has_no_new_failure(mariadb: Server) -> None:
    if not PYMYSQL_SUITE:
        pytest.skip("PyMySQL's suite is in its repository only: $COSTINSIGHTS_PYMYSQL_SUITE")
    result = suite.compare(Path(PYMYSQL_SUITE), mariadb)
    assert result.differences == {}
    assert result.ours.swallowed == {}
    # Both ran, and we looked on.
    assert list(result.ours.found.values()).count("passed") >= suite.LEAST
    assert result.bare.calls == 0
    assert result.ours.calls >= suite.LEAST
