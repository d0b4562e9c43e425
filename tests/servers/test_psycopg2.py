"""psycopg2 on a real PostgreSQL, with its C types hooked in place and with subclasses of them."""

from __future__ import annotations

import gc
import io
import pickle
import subprocess
import sys
import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool
import pytest
from psycopg2 import sql

from costinsights import instrumentor, runtime
from tests.backends import PASSWORD
from tests.servers.charges import Charges, instrumented, milliseconds, since, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.backends import Server

    Connection = psycopg2.extensions.connection

SECRET = "s3cr3t-41aa"
# The stubs leave what they take and return open.
extras: Any = psycopg2.extras


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


def cannot(_: object) -> bool:
    return False


@pytest.fixture(params=["in place", "by subclass"])
def charges(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Charges]:
    """Both ways of hooking C types: the second is for a Python that does not let us do the first."""
    if request.param == "by subclass":
        monkeypatch.setattr(instrumentor, "can_unlock", cannot)
    monkeypatch.setattr(runtime, "_instrumentors", {})
    with instrumented(tmp_path / "ledger", "psycopg2") as charges:
        yield charges


@pytest.fixture
def connection(charges: Charges, postgres: Server) -> Iterator[Connection]:
    connection = psycopg2.connect(postgres.dsn)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE t (a int, b text)")
        cursor.execute("INSERT INTO t SELECT i, i::text FROM generate_series(1, 10) i")
    connection.commit()
    charges.new()
    yield connection
    connection.close()


def test_a_statement_is_a_charge(
    connection: Connection, charges: Charges, postgres: Server
) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SELECT pg_sleep(0.05), '{SECRET}' WHERE %s <> ''", [SECRET])
    assert cursor.fetchall() == [("", SECRET)]
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("postgresql", "psycopg2")
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 1, False)
    assert text_of(charge) == "SELECT pg_sleep(?), ? WHERE %s <> ?"
    assert 50 <= milliseconds(charge) < 5_000
    assert (charge.resource.address, charge.resource.port, charge.resource.namespace) == (
        postgres.host,
        postgres.port,
        postgres.database,
    )
    written = charges.text()
    assert SECRET not in written
    assert PASSWORD not in written


def run(connection: Connection, query: Any, values: Any = None, **options: Any) -> list[Any]:
    cursor = connection.cursor(**options)
    cursor.execute(query, values)
    return cursor.fetchall() if cursor.description is not None else []


def page(connection: Connection, kind: Any, **options: Any) -> object:
    """Read a server-side cursor in every way there is, to its end."""
    with connection.cursor("named", cursor_factory=kind, **options) as cursor:
        cursor.itersize = 3
        cursor.execute("SELECT * FROM t ORDER BY a")
        first: Any = cursor.fetchone()
        assert first["a" if kind is psycopg2.extras.RealDictCursor else 0] == 1
        assert len(cursor.fetchmany(2)) == 2
        assert len([next(cursor), *cursor]) == 7
    return None


WAYS: dict[str, tuple[Callable[[Connection], object], int | None]] = {
    "default": (lambda c: run(c, "SELECT * FROM t"), 10),
    "no rows": (lambda c: run(c, "SELECT * FROM t WHERE false"), 0),
    "update": (lambda c: run(c, "UPDATE t SET a = a + 1"), 10),
    "bytes": (lambda c: run(c, b"SELECT 1"), 1),
    "keywords": (lambda c: c.cursor().execute(query="SELECT %s", vars=[1]), 1),
    "dict": (lambda c: run(c, "TABLE t", cursor_factory=psycopg2.extras.DictCursor), 10),
    "real dict": (lambda c: run(c, "TABLE t", cursor_factory=psycopg2.extras.RealDictCursor), 10),
    "named tuple": (
        lambda c: run(c, "TABLE t", cursor_factory=psycopg2.extras.NamedTupleCursor),
        10,
    ),
    "executemany": (lambda c: c.cursor().executemany("INSERT INTO t VALUES (%s)", [[1], [2]]), 2),
    "callproc": (lambda c: c.cursor().callproc("pg_sleep", [0.001]), 1),
    "copy_expert": (
        lambda c: c.cursor().copy_expert("COPY t FROM STDIN", io.StringIO("1\tx\n2\ty\n")),
        2,
    ),
    "copy_from": (lambda c: c.cursor().copy_from(io.StringIO("1\tx\n2\ty\n"), "t"), 2),
    "copy_to": (lambda c: c.cursor().copy_to(io.StringIO(), "t"), 10),
    "execute_values": (
        lambda c: extras.execute_values(
            c.cursor(), "INSERT INTO t VALUES %s", [(i, "x") for i in range(250)]
        ),
        None,
    ),
    "execute_values fetching": (
        lambda c: extras.execute_values(
            c.cursor(),
            "INSERT INTO t (a) VALUES %s RETURNING a",
            [(i,) for i in range(250)],
            fetch=True,
        ),
        250,
    ),
    "execute_batch": (
        lambda c: extras.execute_batch(
            c.cursor(), "INSERT INTO t (a) VALUES (%s)", [(i,) for i in range(250)]
        ),
        None,
    ),
    "named": (lambda c: page(c, None), 10),
    "named dict": (lambda c: page(c, psycopg2.extras.DictCursor), 10),
    "named real dict": (lambda c: page(c, psycopg2.extras.RealDictCursor), 10),
    "named named tuple": (lambda c: page(c, psycopg2.extras.NamedTupleCursor), 10),
    "named with options": (lambda c: page(c, None, withhold=True, scrollable=True), 10),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_one_charge_with_its_rows(
    way: str, connection: Connection, charges: Charges
) -> None:
    do, rows = WAYS[way]
    do(connection)
    charge = charges.one()
    assert charge.rows == rows
    assert charge.error is None
    assert not charge.partial


def test_batches_and_copies_say_what_they_are(connection: Connection, charges: Charges) -> None:
    cursor = connection.cursor()
    extras.execute_values(cursor, "INSERT INTO t (a) VALUES %s", [(1,), (2,)])
    charge = charges.one()
    assert (charge.operation, charge.usage["batch_size"]) == ("BATCH INSERT", 2)
    assert text_of(charge) == "INSERT INTO t (a) VALUES %s"
    cursor.copy_to(io.StringIO(), "t")
    charge = charges.one()
    assert (charge.operation, text_of(charge)) == ("COPY", "COPY t")
    cursor.callproc("now")
    charge = charges.one()
    assert (charge.operation, text_of(charge)) == ("CALL", "CALL now")


def test_composed_queries_leave_their_literals_out(
    connection: Connection, charges: Charges
) -> None:
    query = sql.SQL("SELECT {}, {} AS {} FROM t WHERE b <> {} AND b <> {}").format(
        sql.Identifier("t", "a"),
        sql.Literal(SECRET),
        sql.Identifier('odd "name"'),
        sql.Placeholder(),
        sql.SQL("{}").format(sql.Literal(SECRET)),
    )
    run(connection, query, ["x"])
    expected = 'SELECT "t"."a", ? AS "odd ""name""" FROM t WHERE b <> %s AND b <> ?'
    assert text_of(charges.one()) == expected
    assert SECRET not in charges.text()


# --- Server-side cursors ------------------------------------------------------------------------


def test_a_named_cursor_is_completed_when_it_is_exhausted(
    connection: Connection, charges: Charges
) -> None:
    cursor = connection.cursor("named")
    cursor.itersize = 4
    cursor.execute("SELECT a, pg_sleep(0.005) FROM t")
    [first] = charges.entries()
    assert (first.rows, first.partial) == (None, True)
    assert len(list(cursor)) == 10
    [last] = charges.entries()
    assert (last.charge_id, last.rows, last.partial) == (first.charge_id, 10, False)
    assert milliseconds(last) >= 50
    cursor.close()
    assert not charges.entries()


def test_a_named_cursor_left_early_is_partial(connection: Connection, charges: Charges) -> None:
    began = time.perf_counter()
    with connection.cursor("named", scrollable=True) as cursor:
        cursor.execute("SELECT * FROM t")
        cursor.fetchmany(3)
        cursor.scroll(2)
        cursor.fetchone()
        time.sleep(0.4)
    charge = charges.one()
    assert (charge.rows, charge.partial) == (4, True)
    assert milliseconds(charge) <= since(began) - 400


def test_a_dropped_cursor_is_partial(connection: Connection, charges: Charges) -> None:
    cursor = connection.cursor("named")
    cursor.execute("SELECT * FROM t")
    cursor.fetchone()
    del cursor
    gc.collect()
    charge = charges.one()
    assert (charge.rows, charge.partial) == (1, True)


# --- The program's own classes ------------------------------------------------------------------


class Mine(psycopg2.extensions.cursor):
    """Overrides what it inherits, as a program may."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002
        super().execute(query + b" -- mine", vars)


class MyConnection(psycopg2.extensions.connection):
    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("cursor_factory", Mine)
        return super().cursor(*args, **kwargs)


def test_a_cursor_factory_at_connect_and_at_cursor(charges: Charges, postgres: Server) -> None:
    connection = psycopg2.connect(postgres.dsn, cursor_factory=Mine)
    assert connection.cursor_factory is Mine
    assert isinstance(connection.cursor(), Mine)
    run(connection, b"SELECT 1")
    assert charges.one().rows == 1
    run(connection, "SELECT 1", cursor_factory=psycopg2.extensions.cursor)
    assert charges.one().rows == 1
    connection.close()


def test_a_connection_factory(charges: Charges, postgres: Server) -> None:
    connection = psycopg2.connect(postgres.dsn, connection_factory=MyConnection)
    assert isinstance(connection, MyConnection)
    cursor = connection.cursor()
    assert isinstance(cursor, Mine)
    assert cursor.connection is connection
    cursor.execute(b"SELECT 1")
    assert charges.one().rows == 1
    connection.close()
    for kind in ("Dict", "RealDict", "NamedTuple"):
        factory = getattr(psycopg2.extras, f"{kind}Connection")
        connection = psycopg2.connect(postgres.dsn, connection_factory=factory)
        rows: Any = run(connection, "SELECT 1 AS a")
        assert (rows[0].a if kind == "NamedTuple" else rows[0]["a"]) == 1
        assert charges.one().rows == 1
        connection.close()


def test_what_is_no_class_is_refused_as_ever(connection: Any, charges: Charges) -> None:
    with pytest.raises(TypeError):
        connection.cursor(cursor_factory=int)
    with pytest.raises(TypeError):
        connection.cursor(cursor_factory=7)
    assert not charges.new()


# --- It changes nothing -------------------------------------------------------------------------


def test_objects_pass_every_check(connection: Any, charges: Charges) -> None:
    cursor = connection.cursor()
    for thing, kind in (
        (connection, psycopg2.extensions.connection),
        (cursor, psycopg2.extensions.cursor),
    ):
        assert isinstance(thing, kind)
    assert type(cursor).__qualname__ == "cursor"
    assert type(cursor).__module__ == "psycopg2.extensions"
    assert repr(cursor).startswith("<cursor object at 0x")
    assert connection.cursor_factory is None
    psycopg2.extensions.register_type(psycopg2.extensions.UNICODE, connection)
    psycopg2.extensions.register_type(psycopg2.extensions.UNICODE, cursor)
    extras.register_uuid(conn_or_curs=connection)
    assert sql.Identifier("a").as_string(connection) == '"a"'
    with pytest.raises(AttributeError):
        connection.anything = 1
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(connection)
    assert pickle.loads(pickle.dumps(psycopg2.connect)) is psycopg2.connect
    assert type(psycopg2.connect).__name__ == "function"


def test_in_place_means_the_very_types_and_what_was_opened_before(
    postgres: Server, tmp_path: Path
) -> None:
    connection = psycopg2.connect(postgres.dsn)
    cursor = connection.cursor()
    with instrumented(tmp_path, "psycopg2") as charges:
        cursor.execute("SELECT 1")
        assert charges.one().rows == 1
        assert type(connection.cursor()) is psycopg2.extensions.cursor
        assert type(psycopg2.connect(postgres.dsn)) is psycopg2.extensions.connection
        assert psycopg2.extensions.cursor.fetchone.__name__ == "fetchone"
        assert not hasattr(psycopg2.extensions.cursor.fetchone, "__costinsights__")
    cursor.execute("SELECT 2")
    assert not charges.new()
    with pytest.raises(TypeError, match="immutable type"):
        psycopg2.extensions.cursor.execute = None  # type: ignore[assignment,method-assign]
    connection.close()


def test_connect_that_was_imported_before(postgres: Server, tmp_path: Path) -> None:
    connect = psycopg2.connect
    with instrumented(tmp_path, "psycopg2") as charges:
        run(connect(postgres.dsn), "SELECT 1")
        assert charges.one().rows == 1


def test_errors_are_the_drivers_own(connection: Connection, charges: Charges) -> None:
    with pytest.raises(psycopg2.errors.UndefinedColumn) as caught:
        connection.cursor().execute(f"SELECT nope, '{SECRET}'")
    assert len(traceback.extract_tb(caught.value.__traceback__)) <= 2
    charge = charges.one()
    assert charge.error is not None
    assert (charge.error.type, charge.error.sqlstate) == (
        "psycopg2.errors.UndefinedColumn",
        "42703",
    )
    assert SECRET not in charges.text()


def test_a_cancelled_statement_still_costs(connection: Connection, charges: Charges) -> None:
    timer = threading.Timer(0.1, connection.cancel)
    timer.start()
    with pytest.raises(psycopg2.errors.QueryCanceled):
        run(connection, "SELECT pg_sleep(30)")
    timer.join()
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.sqlstate == "57014"
    assert 80 <= milliseconds(charge) < 10_000


def test_a_closed_connection_fails_as_ever(connection: Connection, charges: Charges) -> None:
    cursor = connection.cursor()
    connection.close()
    with pytest.raises(psycopg2.InterfaceError, match="closed"):
        cursor.execute("SELECT 1")
    assert charges.one().error is not None


def test_parameters_are_not_kept_alive(connection: Connection, charges: Charges) -> None:
    class Parameter(str):
        __slots__ = ("__weakref__",)

    parameter = Parameter(SECRET)
    alive = weakref.ref(parameter)
    with connection.cursor("named") as cursor:
        cursor.execute("SELECT %s", [parameter])
        del parameter
        gc.collect()
        assert alive() is None
    assert SECRET not in charges.text()


def test_a_pool(charges: Charges, postgres: Server) -> None:
    pool = psycopg2.pool.ThreadedConnectionPool(1, 2, postgres.dsn)
    connection = pool.getconn()
    run(connection, "SELECT 1")
    pool.putconn(connection)
    assert charges.one().rows == 1
    pool.closeall()


OTHER_PYTHONS = """
import sys
sys.path[:0] = sys.argv[3:]
import psycopg2, psycopg2.extras, costinsights
connection = psycopg2.connect(sys.argv[1])
before = psycopg2.extensions.cursor.execute
costinsights.instrument("psycopg2", ledger=sys.argv[2], exporters=[])
cursor = connection.cursor()
cursor.execute("SELECT 1")
assert cursor.fetchall() == [(1,)]
assert type(cursor) is psycopg2.extensions.cursor
costinsights.uninstrument()
assert psycopg2.extensions.cursor.execute is before
"""


def test_in_a_process_of_its_own(postgres: Server, tmp_path: Path) -> None:
    """Nothing but the driver and us: the types are changed and put back without a crash."""
    subprocess.run(
        [sys.executable, "-X", "dev", "-c", OTHER_PYTHONS, postgres.dsn, str(tmp_path)], check=True
    )
    assert Charges(tmp_path).one().rows == 1
