"""A wrapper looks like what it wraps, passes everything through, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import inspect
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import guard
from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.patching import Patch, Probe, owner_of, probe_of, resolve

if TYPE_CHECKING:
    from collections.abc import Callable


class Base:
    def execute(self, query: str, *, times: int = 1) -> list[str]:
        """Run it."""
        return [query] * times

    async def run(self, query: str) -> str:
        if query == "fail":
            raise LookupError(query)
        return query

    @staticmethod
    def static(query: str) -> str:
        return query

    @classmethod
    def made(cls, query: str) -> tuple[type, str]:
        return cls, query


class Derived(Base):
    pass


class Instrumentor(DBAPIInstrumentor):
    name = "testpatching"
    system = "other_sql"
    driver = "testpatching"
    supports = ("1", "2")
    connection = ""
    hooks = (Hook("testpatching:Base.execute"),)


class Calls:
    """Stands where the recorder stands, and notes what it is told."""

    tagger = None

    def __init__(self, failing: str = "") -> None:
        self.noted: list[tuple[str, object]] = []
        self._failing = failing

    def begin(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._note("begin", (args[1:], kwargs))

    def end(self, span: object, result: object, error: BaseException | None) -> None:
        self._note("end", error if error is not None else result)

    def _note(self, what: str, about: object) -> Any:
        self.noted.append((what, about))
        if what == self._failing:
            raise RuntimeError("ours")
        return self

    @property
    def recorder(self) -> Calls:
        return self


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = ModuleType("testpatching")
    vars(found).update(Base=Base, Derived=Derived)
    monkeypatch.setitem(sys.modules, "testpatching", found)
    monkeypatch.delenv("COSTINSIGHTS_STRICT", raising=False)
    return found


def patch(target: str, calls: Calls | None, **facts: Any) -> Patch:
    probe = Probe(Hook(f"testpatching:{target}", **facts), Instrumentor())
    probe.recorder = calls  # type: ignore[assignment]  # it has what the wrapper asks for
    return Patch(probe)


def test_a_call_passes_through_and_is_told_of() -> None:
    calls = Calls()
    placed = patch("Base.execute", calls)
    try:
        assert Base().execute("q", times=2) == ["q", "q"]
    finally:
        placed.remove()
    assert calls.noted == [("begin", (("q",), {"times": 2})), ("end", ["q", "q"])]


@pytest.mark.parametrize("failing", ["begin", "end"])
def test_an_error_of_ours_stays_with_us(failing: str) -> None:
    guard.swallowed.clear()
    placed = patch("Base.execute", Calls(failing))
    try:
        assert Base().execute("q") == ["q"]
        with pytest.raises(TypeError, match="positional"):
            Base().execute()  # type: ignore[call-arg]
    finally:
        placed.remove()
    assert guard.swallowed == {"testpatching:Base.execute: RuntimeError": 2}
    assert guard.busy.get() is None
    guard.swallowed.clear()


def test_an_interrupt_in_ours_leaves_no_mark() -> None:
    """After it, calls are recorded as before."""

    class Interrupted(Calls):
        def begin(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            raise KeyboardInterrupt

    placed = patch("Base.execute", Interrupted())
    try:
        with pytest.raises(KeyboardInterrupt):
            Base().execute("q")
    finally:
        placed.remove()
    assert guard.busy.get() is None


def test_coroutines_stay_coroutines() -> None:
    calls = Calls()
    placed = patch("Base.run", calls, kind="async")
    try:
        assert inspect.iscoroutinefunction(Base.run)
        assert asyncio.run(Base().run("q")) == "q"
        with pytest.raises(LookupError) as caught:
            asyncio.run(Base().run("fail"))
    finally:
        placed.remove()
    assert calls.noted[1] == ("end", "q")
    assert calls.noted[3] == ("end", caught.value)


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("Base.execute", lambda: Base().execute("q")),
        ("Base.static", lambda: Base.static("q")),
        ("Base.made", lambda: Derived.made("q")),
        ("Derived.execute", lambda: Derived().execute("q")),
    ],
)
def test_taken_off_it_is_what_it_was(target: str, call: Callable[[], object]) -> None:
    owner: Any
    owner, _ = owner_of(f"testpatching:{target}")
    before = dict[str, Any](vars(owner))  # pyright: ignore[reportUnknownArgumentType]
    result = call()
    for _ in range(100):
        placed = patch(target, Calls())
        assert call() == result
        assert placed.remove()
        assert dict(vars(owner)) == before  # pyright: ignore[reportUnknownArgumentType]
        now = dict[str, Any](vars(owner))  # pyright: ignore[reportUnknownArgumentType]
        assert all(now[key] is value for key, value in before.items())


def test_a_wrapper_looks_like_what_it_wraps() -> None:
    before = Base.execute
    placed = patch("Base.execute", None)
    try:
        after = Base.execute
        assert after is not before
        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            assert getattr(after, name) == getattr(before, name)
        assert inspect.signature(after) == inspect.signature(before)
        assert probe_of(after, "testpatching") is placed.probe
        assert probe_of(after, "another") is None
    finally:
        placed.remove()


def test_below_somebody_elses_wrapper_ours_stays_and_only_calls_through() -> None:
    calls = Calls()
    placed = patch("Base.execute", calls)
    ours = Base.execute

    def theirs(self: Base, query: str) -> list[str]:
        return ours(self, query)

    Base.execute = theirs  # type: ignore[method-assign,assignment]
    try:
        assert not placed.remove()
        assert Base().execute("q") == ["q"]
        assert calls.noted == []
    finally:
        Base.execute = ours  # type: ignore[method-assign]
        placed.probe.recorder = None
        assert placed.remove()


def test_what_is_not_there_cannot_be_hooked() -> None:
    with pytest.raises(AttributeError):
        patch("Base.nothing", None)
    with pytest.raises(AttributeError):
        resolve("testpatching:Nothing.execute")
