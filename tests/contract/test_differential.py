"""Bare against instrumented: the same results, errors and side effects, whatever comes in."""

from __future__ import annotations

import inspect
import sqlite3
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import costinsights
from costinsights import guard
from costinsights.unlocked import unlocked
from costinsights_instrumentors.sqlite3 import SQLite3Instrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# 2,000 rounds of 50 calls are the 10**5 cases that CI runs.
ROUNDS, CALLS = 2_000, 50


class HostileText(str):
    """A str that misbehaves wherever somebody else than the driver looks at it."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("__str__")

    def __len__(self) -> int:
        raise RuntimeError("__len__")

    def __getitem__(self, key: Any) -> str:
        raise RuntimeError("__getitem__")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("__eq__")

    def __hash__(self) -> int:
        raise RuntimeError("__hash__")


TEXTS = st.one_of(
    st.sampled_from(
        [
            "",
            "  ",
            ";",
            "-- nothing",
            "/* nothing */",
            "/* never ends",
            "SELECT 1",
            "SELECT 'it''s', 2.5e3, x'00ff', NULL",
            "SELECT * FROM t",
            "SELECT id, name FROM t WHERE id = ?",
            "SELECT id FROM t WHERE name = :name",
            "INSERT INTO t (name) VALUES (?)",
            "INSERT INTO t (name) VALUES ('a'), ('b') RETURNING id",
            "UPDATE t SET name = name || '!'",
            "DELETE FROM t WHERE id % 2",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
            "SELECT 1; SELECT 2",
            "SELEC 1",
            "SELECT * FROM nowhere",
            "PRAGMA user_version",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
            "SELECT '\x00'",
            "SELECT '\ud800'",
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 20) SELECT x FROM c",
        ]
    ),
    st.text(max_size=40),
)
STATEMENTS: st.SearchStrategy[Any] = st.one_of(
    TEXTS,
    TEXTS.map(HostileText),
    TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([None, 7, 1.5, b"", [], object]),
)
VALUES = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.binary(max_size=10),
    st.booleans(),
)
PARAMETERS = st.one_of(
    st.just(()),
    st.tuples(VALUES),
    st.dictionaries(st.sampled_from(["name", "id"]), VALUES, max_size=2),
    st.sampled_from([None, 3, "ab"]),
)
HOW = st.sampled_from(
    ["all", "one", "many", "iterate", "nothing", "connection", "executemany", "script", "keyword"]
)
PLAN = st.lists(st.tuples(HOW, STATEMENTS, PARAMETERS), min_size=CALLS, max_size=CALLS)


def outcome(connection: sqlite3.Connection, how: str, statement: Any, parameters: Any) -> object:
    """Do one thing and return all that a program can see of it."""
    cursor = connection.cursor()
    try:
        if how == "connection":
            rows: Any = connection.execute(statement, parameters).fetchall()
        elif how == "executemany":
            rows = cursor.executemany(statement, [parameters, parameters]).rowcount
        elif how == "script":
            rows = type(connection.executescript(statement)).__name__
        elif how == "keyword":
            rows = cursor.execute(sql=statement)  # type: ignore[call-arg]
        else:
            chained = cursor.execute(statement, parameters)
            assert chained is cursor
            rows = None
            if how == "all":
                rows = cursor.fetchall()
            elif how == "one":
                rows = [cursor.fetchone(), cursor.fetchone()]
            elif how == "many":
                rows = [cursor.fetchmany(2), cursor.fetchmany()]
            elif how == "iterate":
                rows = list(cursor)
    except Exception as error:  # noqa: BLE001  what it raises is what we compare
        return type(error), error.args if how != "keyword" else None, connection.in_transaction
    return (
        repr(rows),  # pyright: ignore[reportUnknownArgumentType]
        cursor.description,
        cursor.rowcount,
        cursor.lastrowid,
        connection.in_transaction,
        connection.total_changes,
    )


class Hooks:
    """sqlite3's own callables and ours, which stand in the same places: one set at a time."""

    def __init__(self) -> None:
        self._places = [(sqlite3.Connection, "__init__"), (sqlite3.Connection, "backup")] + [
            (sqlite3.Cursor, hook.target.rpartition(".")[2])
            for hook in SQLite3Instrumentor.hooks
            if hook.target.startswith("sqlite3:Cursor.")
        ]
        self._bare = self._standing()
        self._ours: list[Any] = []

    def _standing(self) -> list[Any]:
        return [vars(owner)[name] for owner, name in self._places]

    def hooked(self) -> None:
        """Note what stands there now that costinsights is switched on."""
        self._ours = self._standing()
        assert all(ours is not bare for ours, bare in zip(self._ours, self._bare, strict=True))

    def put(self, *, ours: bool) -> None:
        """Put one of the two sets in place."""
        for (owner, name), value in zip(
            self._places, self._ours if ours else self._bare, strict=True
        ):
            with unlocked(owner):
                setattr(owner, name, value)


@pytest.fixture
def hooks(tmp_path: Path) -> Iterator[Hooks]:
    """Switch costinsights on, with a way to have the bare driver back for a moment."""
    found = Hooks()
    costinsights.instrument("sqlite3", ledger=tmp_path / "ledger")
    found.hooked()
    yield found
    found.put(ours=True)
    costinsights.uninstrument()


def run(plan: list[tuple[str, Any, Any]]) -> list[object]:
    """Do all of a plan on a fresh database and return what was seen at each step."""
    connection = sqlite3.connect(":memory:")
    try:
        return [outcome(connection, *step) for step in plan]
    finally:
        connection.close()


def test_the_same_whatever_comes_in(hooks: Hooks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSTINSIGHTS_STRICT", raising=False)
    calls = 0

    @settings(
        max_examples=ROUNDS,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(plan=PLAN)
    def compare(plan: list[tuple[str, Any, Any]]) -> None:
        nonlocal calls
        calls += len(plan)
        hooks.put(ours=False)
        bare = run(plan)
        hooks.put(ours=True)
        assert run(plan) == bare

    compare()
    assert calls >= 100_000
    assert costinsights.current().calls >= 50_000, "the hooks were not in place"


SABOTAGED = [
    "costinsights.recorder:Recorder.begin",
    "costinsights.recorder:Recorder.end",
    "costinsights.recorder:Recorder.pause",
    "costinsights.recorder:Recorder.resume",
    "costinsights.recorder:Recorder.fetched",
    "costinsights.recorder:Recorder.complete",
    "costinsights.recorder:Recorder._describe",
    "costinsights.recorder:Recorder._statement",
    "costinsights.recorder:Recorder._target",
    "costinsights.recorder:Recorder._attribute",
    "costinsights.recorder:Recorder._write",
    "costinsights.recorder:Recorder._open",
    "costinsights.recorder:parse",
    "costinsights.recorder:active_scope",
    "costinsights.recorder:surrounding",
    "costinsights.recorder:time_ns",
    "costinsights.recorder:CostSpan",
    "costinsights.ledger.writer:Writer.append",
    "costinsights.ledger.writer:Writer._open",
    "costinsights.ledger.writer:prepare",
    "costinsights.instrumentor:DBAPIInstrumentor.resource",
    "costinsights.orchestrators:present",
    "costinsights.guard:say",
]


@pytest.mark.parametrize("target", SABOTAGED)
@pytest.mark.parametrize("error", [Exception, RecursionError, MemoryError])
def test_an_error_of_ours_never_reaches_the_program(
    target: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each function of the hot path fails in turn; the program's rows stay what they are."""

    def sabotage(*args: object, **kwargs: object) -> object:
        raise error("sabotage")

    module, _, path = target.partition(":")
    owner: Any = import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    assert inspect.isroutine(getattr(owner, name)) or inspect.isclass(getattr(owner, name))
    monkeypatch.delenv("COSTINSIGHTS_STRICT", raising=False)
    guard.swallowed.clear()
    costinsights.instrument("sqlite3", ledger=tmp_path / "ledger")
    monkeypatch.setattr(owner, name, sabotage)
    try:
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE t (id INTEGER)")
        connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
        cursor = connection.cursor()
        assert cursor.execute("SELECT id FROM t ORDER BY id") is cursor
        assert cursor.fetchone() == (1,)
        assert cursor.fetchall() == [(2,)]
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            cursor.execute("SELECT * FROM nowhere")
        connection.close()
    finally:
        costinsights.uninstrument()
