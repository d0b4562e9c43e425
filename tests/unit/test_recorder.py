"""Whole charges, as a fixed clock and fixed ids make them, of a driver of a dozen lines."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights import guard, recorder, runtime
from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.records import Charge, ErrorInfo, PriceInfo, Resource, StatementInfo
from costinsights.testing import FIXED_HOST, FIXED_PID, FIXED_PROCESS, Clock, capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from costinsights.testing import Captured


class Connection:
    host, port, database = "db.example", "5432", b"shop"


class DriverError(Exception):
    sqlstate = "42P01"


class Cursor:
    """Knows one statement that fails, and three rows."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.rowcount = -1
        self.description: object = None
        self._rows: list[int] = []

    def execute(self, query: Any, parameters: object = None) -> Cursor:
        if "nowhere" in str(query):
            raise DriverError(f"no such table in {query}")
        self._rows, self.description = [1, 2, 3], ()
        return self

    def executemany(self, query: str, sets: list[object]) -> None:
        self.rowcount = len(sets)
        for one in sets:
            self.execute(query, one)

    def fetchone(self) -> int | None:
        return self._rows.pop(0) if self._rows else None

    def close(self) -> None:
        self._rows.clear()


class Instrumentor(DBAPIInstrumentor):
    name = "testdriver"
    system = "postgresql"
    driver = "testdriver"
    supports = ("1", "2")
    facts = {"address": "host", "port": "port", "namespace": "database"}
    hooks = (
        Hook("testdriver:Cursor.execute", lazy=True),
        Hook("testdriver:Cursor.executemany", batch=(2, "sets")),
        Hook("testdriver:Cursor.fetchone", fetch="one"),
        Hook("testdriver:Cursor.close", fetch="close"),
    )


CAPACITY = {"system": "postgresql", "price": "3.60", "currency": "USD", "name": "db"}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> type[Cursor]:
    """A fresh class, in a module of its own, as a driver's import would make it."""
    module = ModuleType("testdriver")
    kind = type("Cursor", (Cursor,), dict(vars(Cursor)))
    vars(module)["Cursor"] = kind
    monkeypatch.setitem(sys.modules, "testdriver", module)
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    return kind


@pytest.fixture
def captured(driver: type[Cursor]) -> Iterator[Captured]:
    """What the driver's calls become, priced by a capacity, at one millisecond a call."""
    instrumentor = Instrumentor()
    settings: dict[str, Any] = {"config": {"capacity": [CAPACITY]}}
    assert recorder.Recorder is not None  # loaded, or there is no clock yet to be set
    with capture("sqlite3", clock=Clock(), **settings) as found:
        active = runtime.active()
        assert active is not None
        instrumentor.instrument(active.recorder)
        yield found
        instrumentor.uninstrument()


def expected(number: int, start: str, end: str, **changes: Any) -> Charge:
    from costinsights.ledger.reader import span_ids

    charge_id = f"{FIXED_PROCESS}-{number}"
    trace_id, span_id = span_ids(charge_id)
    fields: dict[str, Any] = {
        "charge_id": charge_id,
        "system": "postgresql",
        "resource": Resource("db.example", 5432, "shop"),
        "operation": "SELECT",
        "started_at": f"2026-01-01T00:00:00.{start}Z",
        "ended_at": f"2026-01-01T00:00:00.{end}Z",
        "rows": None,
        "price": None,
        "currency": "USD",
        "basis": "estimated",
        "attribution": {"rule": "unattributed"},
        "trace_id": trace_id,
        "span_id": span_id,
        "service": "service",
        "host": FIXED_HOST,
        "pid": FIXED_PID,
        "instrumentor": "testdriver",
    }
    return Charge(**{**fields, **changes})


def same(charge: Charge, wanted: Charge) -> None:
    """Compare all but what a test fixes elsewhere: the price line and the statement's fingerprint."""
    import msgspec

    assert charge.price is not None
    assert isinstance(charge.price, PriceInfo)
    assert charge.statement is not None
    replaced = {"price": charge.price, "service": charge.service}
    assert charge == msgspec.structs.replace(wanted, **replaced)


def statement(charge: Charge, summary: str, text: str) -> StatementInfo:
    assert charge.statement is not None
    assert len(charge.statement.fingerprint) == 16
    return StatementInfo(charge.statement.fingerprint, summary, text)


def test_a_statement_whose_rows_are_read_to_the_end(
    driver: type[Cursor], captured: Captured
) -> None:
    with costinsights.attribute(asset="orders", team="growth"):
        cursor = driver()
        assert cursor.execute("SELECT id FROM orders WHERE name = 'secret'", ()) is cursor
        assert [cursor.fetchone() for _ in range(4)] == [1, 2, 3, None]
    (charge,) = captured.charges
    assert charge.duration_ns == 5_000_000
    same(
        charge,
        expected(
            1,
            "000000",
            "009000",
            duration_ns=5_000_000,
            usage={"time_ns": 5_000_000, "capacity_seconds": "0.005000000000000"},
            rows=3,
            amount="0.000005000000000",
            statement=statement(charge, "SELECT orders", "SELECT id FROM orders WHERE name = ?"),
            attribution={"asset": "orders", "team": "growth", "rule": "scope"},
        ),
    )


def test_a_statement_that_fails_costs_all_the_same(
    driver: type[Cursor], captured: Captured
) -> None:
    with pytest.raises(DriverError, match="secret"):
        driver().execute("SELECT 'secret' FROM nowhere")
    (charge,) = captured.charges
    same(
        charge,
        expected(
            1,
            "000000",
            "001000",
            duration_ns=1_000_000,
            usage={"time_ns": 1_000_000, "capacity_seconds": "0.001000000000000"},
            amount="0.000001000000000",
            statement=statement(charge, "SELECT nowhere", "SELECT ? FROM nowhere"),
            error=ErrorInfo(f"{__name__}.DriverError", "42P01"),
        ),
    )
    assert "secret" not in repr(charge)


def test_a_batch_is_one_charge(driver: type[Cursor], captured: Captured) -> None:
    driver().executemany("INSERT INTO orders VALUES (%s)", [1, 2, 3])
    (charge,) = captured.charges
    same(
        charge,
        expected(
            1,
            "000000",
            "001000",
            operation="BATCH INSERT",
            duration_ns=1_000_000,
            usage={
                "time_ns": 1_000_000,
                "capacity_seconds": "0.001000000000000",
                "batch_size": 3,
            },
            rows=3,
            amount="0.000001000000000",
            statement=statement(charge, "INSERT orders", "INSERT INTO orders VALUES (%s)"),
        ),
    )


def closed(cursor: Cursor) -> None:
    cursor.close()


def used_again(cursor: Cursor) -> None:
    with pytest.raises(DriverError):
        cursor.execute("SELECT * FROM nowhere")


def dropped(cursor: Cursor) -> None:
    """The test itself lets go of it."""


@pytest.mark.parametrize("leave", [closed, used_again, dropped])
def test_rows_left_unread_make_a_charge_partial(
    leave: Callable[[Cursor], None], driver: type[Cursor], captured: Captured
) -> None:
    cursor = driver()
    cursor.execute("SELECT id FROM orders")
    assert cursor.fetchone() == 1
    leave(cursor)
    del cursor
    charge = captured.charges[0]
    assert (charge.partial, charge.rows) == (True, 1)


def test_nothing_is_recorded_of_our_own_work(driver: type[Cursor], captured: Captured) -> None:
    with guard.suppressed():
        driver().execute("SELECT 1")
    assert captured.charges == []
    assert guard.busy.get() is None


def test_scopes_are_told_what_was_spent(driver: type[Cursor], captured: Captured) -> None:
    with costinsights.attribute(asset="orders"):
        driver().executemany("INSERT INTO orders VALUES (1)", [1])
        driver().executemany("INSERT INTO orders VALUES (2)", [1])
        spent = costinsights.current()
    assert spent.calls == 2
    assert str(spent.amount) == "0.000002000000000"
    first, second = captured.charges
    assert first.statement == second.statement
