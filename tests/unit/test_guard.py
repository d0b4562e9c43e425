"""Our own errors are counted, said once, and kept from the program; what is the program's is not."""

from __future__ import annotations

import contextlib
import logging
import signal
from contextvars import copy_context
from typing import TYPE_CHECKING, NoReturn

import pytest

from costinsights import guard

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("COSTINSIGHTS_STRICT", raising=False)
    guard.swallowed.clear()
    yield
    guard.swallowed.clear()


def test_an_error_is_counted_each_time_and_said_once_a_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for error in (ValueError("1"), ValueError("2"), KeyError("3")):
        guard.swallow("here", error)
    guard.swallow("there", ValueError("4"))
    assert guard.swallowed == {"here: ValueError": 2, "here: KeyError": 1, "there: ValueError": 1}
    assert [record.getMessage() for record in caplog.records] == [
        f"an error of costinsights' own in {kind} was kept from the program"
        for kind in ("here: ValueError", "here: KeyError", "there: ValueError")
    ]
    assert {(record.name, record.levelno) for record in caplog.records} == {
        ("costinsights", logging.WARNING)
    }


def test_strict_raises_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    with pytest.raises(ValueError, match="as it is"):
        guard.swallow("here", ValueError("as it is"))
    assert guard.swallowed == {}


def test_a_logging_handler_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise RuntimeError

    monkeypatch.setattr(logging.Logger, "warning", fail)
    guard.swallow("here", ValueError())
    guard.say("anything")
    assert guard.swallowed == {"here: ValueError": 1}


def test_what_a_signal_handler_raises_is_the_programs() -> None:
    """A time limit that strikes while we are at work must not be taken for an error of ours."""

    class TimeLimitError(Exception):
        pass

    def strike(*_: object) -> NoReturn:
        raise TimeLimitError

    def at_work() -> None:
        try:
            signal.raise_signal(signal.SIGUSR1)
        except Exception as error:  # noqa: BLE001  as our own code does
            guard.swallow("here", error)

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        with pytest.raises(TimeLimitError):
            at_work()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert guard.swallowed == {}


def test_suppressed_nests_and_ends() -> None:
    assert guard.busy.get() is None
    with guard.suppressed():
        with guard.suppressed():
            assert guard.busy.get() is guard.SUPPRESSED
        assert guard.busy.get() is guard.SUPPRESSED
        with contextlib.suppress(LookupError), guard.suppressed():
            raise LookupError
        assert guard.busy.get() is guard.SUPPRESSED
    assert guard.busy.get() is None


def test_free_minds_no_foreign_context() -> None:
    """A coroutine that nobody awaits is closed wherever it is collected."""
    token = guard.busy.set("psycopg")
    copy_context().run(guard.free, token)
    assert guard.busy.get() == "psycopg"
    guard.free(token)
    assert guard.busy.get() is None
