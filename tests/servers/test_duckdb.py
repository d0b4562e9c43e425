"""DuckDB: a charge a query, and one a relation when it is run."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import pytest

from tests.servers.charges import Charges, instrumented, milliseconds, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "s3cr3t-d0cc"
ROWS = 5
at_module_level = pd.DataFrame({"g": [1, 2, 3]})


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "duckdb") as charges:
        yield charges


@pytest.fixture
def connection(charges: Charges, tmp_path: Path) -> Iterator[Any]:
    connection: Any = duckdb.connect(str(tmp_path / "shop.duckdb"))
    connection.execute("CREATE TABLE t (a INTEGER, b VARCHAR)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(i, str(i)) for i in range(ROWS)])
    found = charges.new()
    assert [(charge.operation, charge.partial) for charge in found] == [
        ("CREATE TABLE", False),
        ("BATCH INSERT", False),
    ]
    assert found[1].usage["batch_size"] == ROWS
    yield connection
    connection.close()


def test_a_charge_says_what_ran_where(connection: Any, charges: Charges) -> None:
    assert connection.execute("SELECT a FROM t WHERE a > ? AND b <> 'x'", [1]) is connection
    assert charges.one().partial, "durable before the rows are read"
    assert len(connection.fetchall()) == 3
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("duckdb", "duckdb")
    assert charge.resource.namespace == "shop.duckdb"
    assert text_of(charge) == "SELECT a FROM t WHERE a > ? AND b <> ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 3, False)


@pytest.mark.parametrize(
    ("database", "name"),
    [(":memory:", ":memory:"), (":memory:named", ":memory:"), ("", ":memory:")],
)
def test_a_database_in_memory(charges: Charges, database: str, name: str) -> None:
    with duckdb.connect(database) as connection:
        connection.execute("SELECT 1").fetchall()
        assert charges.one().resource.namespace == name


# --- Fetches of a connection ----------------------------------------------------------------------

FETCHES: dict[str, Callable[[Any], object]] = {
    "fetchall": lambda of: of.fetchall(),
    "fetchone": lambda of: list(iter(of.fetchone, None)),
    "fetchmany": lambda of: list(iter(lambda: of.fetchmany(2), [])),
    "df": lambda of: of.df(),
    "fetchdf": lambda of: of.fetchdf(),
    "fetchnumpy": lambda of: of.fetchnumpy(),
    "to_arrow_table": lambda of: of.to_arrow_table(),
}


@pytest.mark.parametrize("how", FETCHES)
def test_every_fetch_counts_its_rows(connection: Any, charges: Charges, how: str) -> None:
    FETCHES[how](connection.execute("SELECT * FROM t"))
    charge = charges.one()
    assert (charge.rows, charge.partial) == (ROWS, False)


def test_a_reader_is_handed_out_and_ends_the_charge(connection: Any, charges: Charges) -> None:
    reader = connection.execute("SELECT * FROM t").to_arrow_reader()
    charge = charges.one()
    assert (charge.rows, charge.partial) == (None, False)
    assert reader.read_all().num_rows == ROWS


@pytest.mark.parametrize("how", ["close", "drop", "execute"])
def test_what_is_not_read_to_its_end_is_partial(
    connection: Any, charges: Charges, how: str
) -> None:
    cursor: Any = connection.cursor()
    cursor.execute("SELECT * FROM range(100000)").fetchone()
    if how == "close":
        cursor.close()
    elif how == "execute":
        cursor.execute("SELECT 1")
    else:
        del cursor
        gc.collect()
    first = charges.new()[0]
    assert (first.rows, first.partial) == (1, True)
    assert first.resource.namespace == "shop.duckdb"


# --- Relations ------------------------------------------------------------------------------------


def test_a_relation_that_is_never_run_is_not_charged(connection: Any, charges: Charges) -> None:
    relation = connection.sql("SELECT * FROM t")
    assert relation.columns == ["a", "b"]
    del relation
    gc.collect()
    assert charges.new() == []


@pytest.mark.parametrize("how", FETCHES)
def test_a_relation_is_one_charge_when_it_is_run(
    connection: Any, charges: Charges, how: str
) -> None:
    FETCHES[how](connection.sql("SELECT * FROM t -- rows of it all"))
    charge = charges.one()
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", ROWS, False)
    assert charge.resource.namespace == "shop.duckdb"
    assert text_of(charge) == "SELECT * FROM t"


def test_running_it_again_costs_again_under_the_same_name(
    connection: Any, charges: Charges
) -> None:
    relation = connection.sql("SELECT a FROM t WHERE a > 1")
    assert relation.fetchall() == relation.fetchall()
    first, second = charges.new()
    assert first.statement == second.statement
    assert first.rows == second.rows == 3


def test_a_derived_relation_is_one_charge(connection: Any, charges: Charges) -> None:
    texts: set[str] = set()
    for _ in range(2):
        assert connection.sql("SELECT * FROM t").filter("a > 1").aggregate("sum(a)").fetchall() == [
            (9,)
        ]
        charge = charges.one()
        assert (charge.rows, charge.resource.namespace) == (1, "shop.duckdb")
        texts.add(text_of(charge))
    assert len(texts) == 1, "DuckDB names what has no name at random"


def test_planning_counts(connection: Any, charges: Charges) -> None:
    with pytest.raises(duckdb.CatalogException):
        connection.sql("SELECT * FROM nowhere")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type.endswith("CatalogException")


def test_what_a_relation_does_at_once_is_charged_at_once(connection: Any, charges: Charges) -> None:
    connection.sql("CREATE TABLE u AS SELECT * FROM t")
    assert charges.one().operation == "CREATE TABLE"
    relation = connection.sql("CREATE TABLE v (a INTEGER); SELECT 42")
    charge = charges.one()
    assert (charge.operation, charge.partial) == ("CREATE TABLE", True)
    assert relation.fetchall() == [(42,)]
    again = charges.one()
    assert (again.charge_id, again.revision, again.rows) == (charge.charge_id, 1, 1)


RUNS: dict[str, tuple[Callable[[Any, Path], object], str]] = {
    "parquet": (lambda relation, path: relation.to_parquet(str(path / "t.parquet")), "COPY"),
    "csv": (lambda relation, path: relation.to_csv(str(path / "t.csv")), "COPY"),
    "create": (lambda relation, _: relation.create("copied"), "CREATE TABLE"),
    "insert": (lambda relation, _: relation.insert_into("t"), "INSERT"),
    "show": (lambda relation, _: relation.show(), "SELECT"),
    "repr": (lambda relation, _: repr(relation), "SELECT"),
    "len": (lambda relation, _: len(relation), "SELECT"),
    "explain": (lambda relation, _: relation.explain(), "EXPLAIN"),
}


@pytest.mark.parametrize(("run", "operation"), RUNS.values(), ids=RUNS)
def test_whatever_runs_a_relation_is_one_charge(
    connection: Any,
    charges: Charges,
    tmp_path: Path,
    run: Callable[[Any, Path], object],
    operation: str,
) -> None:
    run(connection.sql("SELECT * FROM t"), tmp_path)
    charge = charges.one()
    assert (charge.operation, charge.rows, charge.partial) == (operation, None, False)


# --- The module's own functions, frames and other sources -----------------------------------------


def test_the_modules_functions_are_those_of_a_connection(connection: Any, charges: Charges) -> None:
    assert duckdb.execute("SELECT 5").fetchall() == [(5,)]
    charge = charges.one()
    assert (charge.rows, charge.resource.namespace) == (1, ":memory:")
    duckdb.execute("SELECT 6")
    assert duckdb.fetchall() == [(6,)]
    assert charges.one().rows == 1
    assert duckdb.sql("SELECT count(*) FROM t", connection=connection).fetchall() == [(ROWS,)]
    assert charges.one().resource.namespace == "shop.duckdb"


def test_frames_of_the_program_are_found_as_always(connection: Any, charges: Charges) -> None:
    local = pd.DataFrame({"x": [1, 2]})
    assert len(local) == 2
    assert connection.execute("SELECT * FROM local").fetchall() == [(1,), (2,)]
    assert connection.sql("SELECT sum(x) FROM local").fetchall() == [(3,)]
    assert duckdb.sql("SELECT sum(x) FROM local").fetchall() == [(3,)]
    assert connection.query("SELECT sum(g) FROM at_module_level").fetchall() == [(6,)]
    assert [charge.rows for charge in charges.new()] == [2, 1, 1, 1]

    def elsewhere() -> None:
        connection.execute("SELECT * FROM local")

    with pytest.raises(duckdb.CatalogException):
        elsewhere()


def test_a_relation_over_a_frame(connection: Any, charges: Charges) -> None:
    frame = pd.DataFrame({"x": [1, 2]})
    assert connection.from_df(frame).filter("x > 1").fetchall() == [(2,)]
    charge = charges.one()
    assert (charge.operation, charge.rows) == ("SELECT", 1)


# --- Time, errors and interrupts ------------------------------------------------------------------


def test_a_statement_that_fails_costs(connection: Any, charges: Charges) -> None:
    with pytest.raises(duckdb.CatalogException, match="nowhere") as caught:
        connection.execute(f"SELECT '{SECRET}' FROM nowhere")
    assert caught.value.__context__ is None
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type.endswith("CatalogException")
    assert SECRET not in charges.text()


def test_an_interrupt_is_an_error_of_the_statement(connection: Any, charges: Charges) -> None:
    timer = threading.Timer(0.2, connection.interrupt)
    timer.start()
    with pytest.raises(duckdb.InterruptException):
        connection.execute(
            "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range < b.range"
        ).fetchall()
    timer.join()
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type.endswith("InterruptException")
    assert milliseconds(charge) >= 100


# --- Nothing is changed ---------------------------------------------------------------------------


def test_types_and_identities_stay_what_they_are(tmp_path: Path) -> None:
    before = dict(vars(duckdb.DuckDBPyConnection)), dict(vars(duckdb.DuckDBPyRelation))
    functions = duckdb.execute, duckdb.sql, duckdb.connect
    with instrumented(tmp_path / "ledger", "duckdb"):
        connection: Any = duckdb.connect()
        assert type(connection) is duckdb.DuckDBPyConnection
        assert type(connection.sql("SELECT 1")) is duckdb.DuckDBPyRelation
        assert connection.execute("SELECT 1") is connection
        assert repr(duckdb.execute) == repr(functions[0])
        connection.close()
    assert (dict(vars(duckdb.DuckDBPyConnection)), dict(vars(duckdb.DuckDBPyRelation))) == before
    assert functions == (duckdb.execute, duckdb.sql, duckdb.connect)


def test_connections_of_before_are_seen(tmp_path: Path) -> None:
    connection: Any = duckdb.connect()
    with instrumented(tmp_path / "ledger", "duckdb") as charges:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]
        assert charges.one().rows == 1
    connection.close()


def test_parameters_are_not_kept(connection: Any, charges: Charges) -> None:
    class Parameter(str):
        __slots__ = ("__weakref__",)

    parameter = Parameter(SECRET)
    gone = weakref.ref(parameter)
    connection.execute("SELECT ?", [parameter])
    del parameter
    gc.collect()
    assert gone() is None
    assert connection.fetchall() == [(SECRET,)]
    assert SECRET not in charges.text()


def test_arguments_that_are_wrong_are_refused_in_the_same_words(charges: Charges) -> None:
    with instrumented(charges.ledger, "duckdb"), pytest.raises(TypeError) as ours:
        duckdb.execute()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert "execute(): incompatible function arguments" in str(ours.value)
    assert "self" not in str(ours.value).partition("Invoked")[0]
