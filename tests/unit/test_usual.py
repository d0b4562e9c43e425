"""The usual call says what the general one does: of the same call made twice, the first is general.

A text that was not seen before goes the general way, the same text once more the short one.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import costinsights
from costinsights import guard, recorder, runtime, usual
from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage
from costinsights.testing import Clock, capture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from costinsights.records import Charge
    from costinsights.testing import Captured

SYSTEM = "aws.athena"
CAPACITY = {"system": SYSTEM, "price": "3.60", "currency": "USD"}
SCANNED = {"data_scanned_bytes": 2**30}


class Connection:
    pass


class Cursor:
    def __init__(self) -> None:
        self.connection = Connection()
        self.used: Usage | None = None
        self.left = 0
        self.asked = 0
        self.statement: object = None
        self.fails: str | None = None

    def execute(self, query: str) -> Cursor:
        if self.fails == "before it is sent":
            raise ValueError(self.fails)
        self.statement = object()
        if self.fails is not None:
            raise ValueError(self.fails)
        return self

    def fetchone(self) -> int | None:
        self.left -= 1
        return self.left if self.left >= 0 else None


class Instrumentor(DBAPIInstrumentor):
    name = driver = "testdriver"
    system = SYSTEM
    supports = ("1", "2")
    meters = ("data_scanned_bytes",)
    basis = "metered"
    last_statement = "statement"
    hooks = (
        Hook("testdriver:Cursor.execute", lazy=True, leaf=True),
        Hook("testdriver:Cursor.fetchone", fetch="one"),
    )

    def region(self, connection: Any) -> str:
        return "us-east-1"

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        cursor.asked += 1
        if cursor.used == Usage(-1):
            raise RuntimeError("this driver has no figures today")
        used: Usage | None = cursor.used
        return used

    def has_rows(self, cursor: Any, result: Any) -> bool:
        return bool(cursor.left)

    def source(self, cursor: Any, result: Any) -> object:
        return cursor.connection

    def final(self, source: Any) -> Usage:
        return Usage(None, {"data_scanned_bytes": 2**31}, "last")


@pytest.fixture(params=[[], [CAPACITY]], ids=["by what it used", "by the hour"])
def driver(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[type[Cursor], Captured]]:
    module = ModuleType("testdriver")
    kind = type("Cursor", (Cursor,), dict(vars(Cursor)))
    vars(module)["Cursor"] = kind
    monkeypatch.setitem(sys.modules, "testdriver", module)
    monkeypatch.setattr(guard, "swallowed", {})
    assert recorder.Recorder is not None  # loaded, or there is no clock yet to be set
    assert usual.usual_wrapper is not None
    instrumentor = Instrumentor()
    with capture("sqlite3", clock=Clock(), config={"capacity": request.param}) as found:
        active = runtime.active()
        assert active is not None
        instrumentor.instrument(active.recorder)
        yield kind, found
        instrumentor.uninstrument()


@pytest.fixture
def lates(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The spans that usual calls have come to need, by how they were told of."""
    made: list[str] = []
    for name in ("end", "leave_open"):
        original = getattr(recorder.Recorder, name)

        def noted(
            *args: Any, _original: Callable[..., Any] = original, _name: str = name, **kw: Any
        ) -> Any:
            made.append(_name)
            return _original(*args, **kw)

        monkeypatch.setattr(recorder.Recorder, name, noted)
    return made


def alike(charges: list[Charge]) -> list[Charge]:
    """Return charges without what no two of them share."""
    each = {"charge_id": "", "started_at": "", "ended_at": "", "trace_id": "", "span_id": ""}
    return [msgspec.structs.replace(charge, **each) for charge in charges]


USED = {
    "nothing": None,
    "rows": Usage(3),
    "meters": Usage(3, SCANNED),
    "an id": Usage(None, None, "query-1"),
    "all": Usage(0, SCANNED, 'query "1"'),
    "no meters, though it has some": Usage(None, {}),
}


@pytest.mark.parametrize("used", USED.values(), ids=USED)
def test_what_a_call_used_is_told_alike(
    driver: tuple[type[Cursor], Captured], lates: list[str], used: Usage | None
) -> None:
    kind, captured = driver
    with costinsights.attribute(asset="orders") as scope:
        cursor = kind()
        cursor.used = used
        for _ in range(3):
            cursor.execute("SELECT 1")
        cost = scope.cost()
    first, *others = alike(captured.charges)
    assert others == [first, first]
    assert cursor.asked == 3, "a driver was asked twice about one call"
    assert (first.vendor_id, first.rows) == (
        (None, None) if used is None else (used.vendor_id, used.rows)
    )
    assert cost.calls == 3
    # What has a price of its own is priced in one place.
    priced = used is not None and bool(used.meters) and first.basis == "metered"
    assert lates == ["end"] * (3 if priced else 1)
    assert not guard.swallowed


def test_a_driver_that_fails_at_its_figures_loses_them_and_no_call(
    driver: tuple[type[Cursor], Captured],
) -> None:
    kind, captured = driver
    cursor = kind()
    cursor.used = Usage(-1)
    for _ in range(3):
        cursor.execute("SELECT 1")
    first, *others = alike(captured.charges)
    assert others == [first, first]
    assert guard.swallowed == {"the usage of testdriver:Cursor.execute: RuntimeError": 3}


def test_what_leaves_rows_is_completed_with_the_last(
    driver: tuple[type[Cursor], Captured], lates: list[str]
) -> None:
    kind, captured = driver
    cursor = kind()
    cursor.used = Usage(None, None, "first")
    for _ in range(3):
        cursor.left = 2
        cursor.execute("SELECT 1")
        while cursor.fetchone() is not None:
            pass
    first, *others = alike(captured.charges)
    assert others == [first, first]
    assert (first.rows, first.vendor_id, first.partial) == (2, "last", False)
    assert first.usage["data_scanned_bytes"] == 2**31
    assert lates == ["end", "leave_open", "leave_open"]


@pytest.mark.parametrize("earlier", [False, True], ids=["the first", "not the first"])
@pytest.mark.parametrize("fails", ["before it is sent", "at the server"])
def test_only_what_was_sent_has_an_id_and_figures(
    driver: tuple[type[Cursor], Captured], fails: str, earlier: bool
) -> None:
    kind, captured = driver
    cursor = kind()
    cursor.used = Usage(None, None, "earlier")
    if earlier:
        cursor.execute("SELECT 1")
    cursor.fails = fails
    for query in ("SELECT 2", "SELECT 2", "SELECT 1"):
        with pytest.raises(ValueError, match=fails):
            cursor.execute(query)
    failed = captured.charges[earlier:]
    sent = fails == "at the server"
    assert [charge.vendor_id for charge in failed] == ["last" if sent else None] * 3
    assert ["data_scanned_bytes" in charge.usage for charge in failed] == [sent] * 3
    assert not guard.swallowed
