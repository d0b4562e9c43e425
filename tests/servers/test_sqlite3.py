"""sqlite3: every way of running a statement, one charge each, and nothing changed."""

from __future__ import annotations

import gc
import sqlite3
import sys
import threading
import time
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from tests.backends import unavailable
from tests.processes import Unavailable
from tests.servers.charges import Charges, instrumented, milliseconds, since, text_of
from tests.servers.suites import sqlite3 as suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "s3cr3t-1b7e"
ROWS = 1000


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "sqlite3") as charges:
        yield charges


@pytest.fixture
def connection(charges: Charges) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, str(i)) for i in range(ROWS)])
    connection.commit()  # or a backup would wait for it
    charges.new()
    yield connection
    connection.close()


def slow(connection: sqlite3.Connection, seconds: float) -> None:
    """Give SQL a function `slow(x)` that takes its time."""

    def function(value: Any) -> Any:
        time.sleep(seconds)
        return value

    connection.create_function("slow", 1, function)


# --- What a charge says -------------------------------------------------------------------------


def test_a_charge_says_what_ran_where(connection: sqlite3.Connection, charges: Charges) -> None:
    cursor = connection.execute("UPDATE t SET b = 'x' WHERE a < 10")
    charge = charges.one()
    assert (charge.system, charge.instrumentor, charge.operation) == (
        "sqlite",
        "sqlite3",
        "UPDATE",
    )
    assert charge.resource.namespace == ":memory:"
    assert text_of(charge) == "UPDATE t SET b = ? WHERE a < ?"
    assert charge.rows == cursor.rowcount == 10
    assert charge.error is None
    assert not charge.partial


@pytest.mark.parametrize(
    ("database", "uri", "name"),
    [
        (":memory:", False, ":memory:"),
        ("shop.db", False, "shop.db"),
        ("file:shop.db?mode=rwc", True, "shop.db"),
        ("file:a%20b.db", True, "a b.db"),
        ("file::memory:?cache=shared", True, ":memory:"),
        ("file:name?mode=memory&cache=shared", True, ":memory:"),
        (b"bytes.db", False, "bytes.db"),
        ("", False, None),
    ],
)
def test_a_database_is_known_by_its_file(
    charges: Charges,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database: Any,
    uri: bool,
    name: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    connection = sqlite3.connect(database, uri=uri)
    connection.execute("CREATE TABLE t (a)")
    assert charges.one().resource.namespace == name
    connection.close()


def test_a_path_that_is_no_text_is_still_charged(charges: Charges, tmp_path: Path) -> None:
    connection = sqlite3.connect(bytes(tmp_path) + b"/w\xff.db")
    connection.execute("CREATE TABLE t (a)")
    assert charges.one().resource.namespace == "w�.db"
    connection.close()


def test_addresses_that_are_used_again_lead_where_they_lead_now(
    charges: Charges, tmp_path: Path
) -> None:
    for number in range(20):
        connection = sqlite3.connect(tmp_path / f"{number}.db")
        connection.execute("CREATE TABLE t (a)")
        assert charges.one().resource.namespace == f"{number}.db"
        connection.close()
        del connection


# --- Every way of running something ---------------------------------------------------------------

WAYS: list[tuple[str, Callable[[sqlite3.Connection], object], str, int | None]] = [
    ("execute", lambda c: c.cursor().execute("DELETE FROM t WHERE a < 5"), "DELETE", 5),
    ("connection", lambda c: c.execute("DELETE FROM t WHERE a < 5"), "DELETE", 5),
    (
        "executemany",
        lambda c: c.cursor().executemany("DELETE FROM t WHERE a = ?", [(1,), (2,), (3,)]),
        "BATCH DELETE",
        3,
    ),
    (
        "connection executemany",
        lambda c: c.executemany("DELETE FROM t WHERE a = ?", iter([(1,), (2,)])),
        "DELETE",
        2,
    ),
    ("script", lambda c: c.cursor().executescript("CREATE TABLE u (a);"), "CREATE TABLE", None),
    ("connection script", lambda c: c.executescript("CREATE TABLE u (a);"), "CREATE TABLE", None),
    ("returning", lambda c: c.execute("DELETE FROM t WHERE a < 3 RETURNING a").fetchall(), "DELETE", 3),
    ("fetchall", lambda c: c.execute("SELECT a FROM t").fetchall(), "SELECT", ROWS),
    ("loop", lambda c: list(c.execute("SELECT a FROM t")), "SELECT", ROWS),
    ("nothing", lambda c: c.execute("SELECT a FROM t WHERE 0").fetchall(), "SELECT", 0),
    ("one", lambda c: c.execute("SELECT count(*) FROM t").fetchone(), "SELECT", 1),
]  # fmt: skip


@pytest.mark.parametrize(("run", "operation", "rows"), [way[1:] for way in WAYS], ids=[way[0] for way in WAYS])  # fmt: skip
def test_every_way_is_one_charge(
    connection: sqlite3.Connection,
    charges: Charges,
    run: Callable[[sqlite3.Connection], object],
    operation: str,
    rows: int | None,
) -> None:
    result = run(connection)
    charge = charges.one()
    assert (charge.operation, charge.rows, charge.error) == (operation, rows, None)
    if sys.version_info >= (3, 11) or operation != "SELECT":
        assert not charge.partial
    del result


def test_fetches_add_up(connection: sqlite3.Connection, charges: Charges) -> None:
    cursor = connection.execute("SELECT a FROM t")
    assert charges.one().partial, "durable before the rows are read"
    assert cursor.fetchone() == (0,)
    assert next(cursor) == (1,)
    assert len(cursor.fetchmany(10)) == 10
    assert len(cursor.fetchall()) == ROWS - 12
    charge = charges.one()
    assert (charge.rows, charge.partial) == (ROWS, False)
    assert cursor.fetchone() is None
    assert charges.new() == []


@pytest.mark.parametrize("how", ["close", "drop", "execute"])
def test_what_is_not_read_to_its_end_is_partial(
    connection: sqlite3.Connection, charges: Charges, how: str
) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t")
    cursor.fetchmany(3)
    if how == "close":
        cursor.close()
    elif how == "execute":
        cursor.execute("SELECT 1 WHERE 0")
    else:
        del cursor
        gc.collect()
    first = charges.new()[0]
    assert (first.rows, first.partial) == (3, True)


def test_two_cursors_do_not_mix(connection: sqlite3.Connection, charges: Charges) -> None:
    outer, inner = connection.cursor(), connection.cursor()
    outer.execute("SELECT a FROM t WHERE a < 3")
    for (a,) in outer:
        assert len(inner.execute("SELECT b FROM t WHERE a <= ?", (a,)).fetchall()) == a + 1
    assert sorted(charge.rows or 0 for charge in charges.new()) == [1, 2, 3, 3]


def test_backup_and_dump(connection: sqlite3.Connection, charges: Charges) -> None:
    target = sqlite3.connect(":memory:")
    connection.backup(target)
    charge = charges.one()
    assert (charge.operation, charge.statement, charge.rows) == ("BACKUP", None, None)
    assert target.execute("SELECT count(*) FROM t").fetchone() == (ROWS,)
    charges.new()
    assert "CREATE TABLE t" in "\n".join(connection.iterdump())
    assert {charge.operation for charge in charges.new()} >= {"SELECT"}
    target.close()


def test_the_connection_as_a_context_is_what_it_was(
    connection: sqlite3.Connection, charges: Charges
) -> None:
    connection.commit()

    def undone() -> None:
        with connection:
            connection.execute("DELETE FROM t")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        undone()
    with connection as same:
        assert same is connection
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (ROWS,)
    assert [charge.operation for charge in charges.new()] == ["DELETE", "SELECT"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="sqlite3 has no blobs before Python 3.11")
def test_blobs_work(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE blobs (b BLOB)")
    connection.execute("INSERT INTO blobs VALUES (zeroblob(4))")
    opened: Any = connection
    with opened.blobopen("blobs", "b", 1) as blob:
        blob.write(b"abcd")
    assert connection.execute("SELECT b FROM blobs").fetchone() == (b"abcd",)


# --- Time, errors and interrupts ------------------------------------------------------------------


def test_time_is_that_in_sqlite_and_not_the_programs(
    connection: sqlite3.Connection, charges: Charges
) -> None:
    slow(connection, 0.01)
    began = time.perf_counter()
    for _ in connection.execute("SELECT slow(a) FROM t WHERE a < 6"):
        time.sleep(0.1)
    charge = charges.one()
    assert 60 <= milliseconds(charge) <= since(began) - 600
    assert charge.rows == 6


def test_the_step_after_the_last_row_counts(
    connection: sqlite3.Connection, charges: Charges
) -> None:
    slow(connection, 0.1)
    rows = connection.execute("SELECT a FROM t WHERE CASE WHEN a < 50 THEN 1 WHEN a = 999 THEN slow(0) ELSE 0 END")  # fmt: skip
    assert sum(1 for _ in rows) == 50
    assert milliseconds(charges.one()) >= 100


def test_a_statement_that_fails_costs(connection: sqlite3.Connection, charges: Charges) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere") as caught:
        connection.execute("SELECT * FROM nowhere WHERE a = 'secret'")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "sqlite3.OperationalError"
    assert type(caught.value) is sqlite3.OperationalError
    assert caught.value.__context__ is None
    with pytest.raises(sqlite3.IntegrityError):
        connection.executescript("CREATE TABLE k (a UNIQUE); INSERT INTO k VALUES (1), (1);")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "sqlite3.IntegrityError"


def test_a_row_that_fails_ends_the_charge(connection: sqlite3.Connection, charges: Charges) -> None:
    error = ValueError("not this one")

    def fail(value: int) -> int:
        if value == 5:
            raise error
        return value

    connection.create_function("fail", 1, fail)
    cursor = connection.execute("SELECT fail(a) FROM t")
    with pytest.raises(sqlite3.OperationalError):
        list(cursor)
    charge = charges.one()
    assert charge.rows in (4, 5)  # Python before 3.11 makes a row ahead
    assert charge.error is not None
    assert charge.error.type == "sqlite3.OperationalError"


def test_an_interrupt_is_an_error_of_the_statement(charges: Charges, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "shop.db", check_same_thread=False)
    timer = threading.Timer(0.1, connection.interrupt)
    timer.start()
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        ).fetchall()
    timer.join()
    charge = charges.one()
    assert charge.error is not None
    assert milliseconds(charge) >= 80
    connection.close()


def test_warnings_name_the_programs_line(connection: sqlite3.Connection) -> None:
    def convert(value: bytes) -> bytes:
        warnings.warn("converted", UserWarning, stacklevel=2)
        return value

    sqlite3.register_converter("noisy", convert)
    noisy = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES)
    noisy.execute("CREATE TABLE n (x noisy)")
    noisy.execute("INSERT INTO n VALUES (1)")
    with pytest.warns(UserWarning, match="converted") as caught:
        noisy.execute("SELECT x FROM n").fetchall()
    assert {warning.filename for warning in caught} == {__file__}
    noisy.close()


# --- Nothing is changed ---------------------------------------------------------------------------


class MyCursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = ()) -> MyCursor:
        super().execute(sql, parameters)
        return self


class MyConnection(sqlite3.Connection):
    def cursor(self, factory: Any = MyCursor) -> Any:
        return super().cursor(factory)


def test_types_stay_what_they_are(connection: sqlite3.Connection) -> None:
    assert type(connection) is sqlite3.Connection
    assert type(connection.cursor()) is sqlite3.Cursor
    cursor = connection.execute("SELECT 1")
    assert iter(cursor) is cursor
    assert not hasattr(cursor, "__dict__")
    assert weakref.ref(cursor)() is cursor
    assert repr(sqlite3.connect).startswith("<built-in function")
    with pytest.raises(TypeError, match="immutable"):
        setattr(sqlite3.Cursor, "execute", None)  # noqa: B010  a type checker sees the point


def make(connection: sqlite3.Connection) -> MyCursor:
    return MyCursor(connection)


def test_the_programs_own_classes_and_functions_are_seen(charges: Charges) -> None:
    connection = sqlite3.connect(":memory:", factory=MyConnection)
    cursor = connection.cursor()
    assert (type(connection), type(cursor)) == (MyConnection, MyCursor)
    assert cursor.execute("SELECT 1").fetchall() == [(1,)]
    assert charges.one().rows == 1
    made = connection.cursor(make)
    assert type(made) is MyCursor
    made.execute("CREATE TABLE t (a)")
    assert charges.one().operation == "CREATE TABLE"
    sqlite3.Cursor.execute(made, "DROP TABLE t")
    assert charges.one().operation == "DROP TABLE"
    connection.close()


def test_connections_of_before_are_seen_and_are_bare_again_afterwards(tmp_path: Path) -> None:
    connection = sqlite3.connect(":memory:")
    cursor = connection.cursor()
    before = {name: vars(sqlite3.Cursor)[name] for name in ("execute", "fetchone", "__next__")}
    with instrumented(tmp_path / "ledger", "sqlite3") as charges:
        cursor.execute("CREATE TABLE t (a)")
        charge = charges.one()
        assert (charge.operation, charge.resource.namespace) == ("CREATE TABLE", None)
    assert all(vars(sqlite3.Cursor)[name] is value for name, value in before.items())
    cursor.execute("INSERT INTO t VALUES (1)")
    assert charges.new() == []
    connection.close()


def test_parameters_are_neither_kept_nor_written(
    connection: sqlite3.Connection, charges: Charges
) -> None:
    class Parameter:
        def __conform__(self, protocol: Any) -> str:
            return SECRET

    parameter = Parameter()
    gone = weakref.ref(parameter)
    cursor = connection.execute("SELECT ?, a FROM t", (parameter,))
    del parameter
    assert gone() is None
    assert cursor.fetchone() == (SECRET, 0)
    with pytest.raises(sqlite3.OperationalError):
        connection.execute(f"SELECT '{SECRET}' FROM nowhere")
    cursor.close()
    assert SECRET not in charges.text()


def test_the_statement_cache_is_used_as_before(tmp_path: Path) -> None:
    def prepared(connection: sqlite3.Connection) -> int:
        actions: list[int] = []

        def authorize(action: int, *_: object) -> int:
            actions.append(action)  # asked whenever a statement is compiled, and not when reused
            return sqlite3.SQLITE_OK

        connection.set_authorizer(authorize)
        for _ in range(20):
            connection.execute("SELECT 1").fetchall()
        return len(actions)

    bare = prepared(sqlite3.connect(":memory:"))
    with instrumented(tmp_path / "ledger", "sqlite3"):
        assert prepared(sqlite3.connect(":memory:")) == bare == 1


def test_threads_each_have_their_own(charges: Charges, tmp_path: Path) -> None:
    def work(number: int) -> None:
        connection = sqlite3.connect(tmp_path / f"{number}.db")
        with costinsights.attribute(job=f"job{number}"):
            for _ in range(50):
                assert connection.execute("SELECT 1 UNION SELECT 2").fetchall() == [(1,), (2,)]
        connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = charges.new()
    assert len(found) == 200
    assert all(charge.rows == 2 and not charge.partial for charge in found)
    assert all(
        charge.resource.namespace == f"{charge.attribution['job'][3:]}.db" for charge in found
    )


# --- Others above and below -----------------------------------------------------------------------


@pytest.mark.parametrize("ours_first", [True, False])
def test_opentelemetrys_wrapper_changes_nothing(tmp_path: Path, ours_first: bool) -> None:
    from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor

    theirs = SQLite3Instrumentor()
    if not ours_first:
        theirs.instrument()
    with instrumented(tmp_path / "ledger", "sqlite3") as charges:
        if ours_first:
            theirs.instrument()
        try:
            connection: Any = sqlite3.connect(":memory:")
            cursor = connection.cursor()
            cursor.execute("SELECT 1 UNION SELECT 2")
            assert list(cursor) == [(1,), (2,)]
            charge = charges.one()
            assert (charge.rows, text_of(charge)) == (2, "SELECT ? UNION SELECT ?")
            connection.close()
        finally:
            theirs.uninstrument()


def test_sqlalchemy_gives_one_charge_a_statement(charges: Charges, tmp_path: Path) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    table = sqlalchemy.Table("t", sqlalchemy.MetaData(), sqlalchemy.Column("a", sqlalchemy.Integer))
    with engine.begin() as connection:
        table.create(connection)
        charges.new()
        connection.execute(table.insert(), [{"a": 1}, {"a": 2}])
        inserted = charges.one()
        assert connection.execute(sqlalchemy.select(table.c.a)).all() == [(1,), (2,)]
    assert (inserted.operation, inserted.usage["batch_size"]) == ("BATCH INSERT", 2)
    selected = charges.one()
    assert (selected.operation, selected.rows, selected.resource.namespace) == (
        "SELECT",
        2,
        "shop.db",
    )
    engine.dispose()


def test_cpythons_own_suite_has_no_new_failure() -> None:
    try:
        result = suite.compare()
    except Unavailable as reason:
        unavailable("CPython's own tests of sqlite3", reason)
    assert result.differences == {}
    assert result.ours.swallowed == {}
    # Both ran, and we looked on.
    assert list(result.ours.found.values()).count("passed") >= suite.LEAST
    assert result.bare.calls == 0
    assert result.ours.calls >= suite.LEAST
