"""Calls that go on after they have returned: generators, contexts, iterations."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.records import ErrorInfo
from tests.drivers import Connection, charge, hooked, whole

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


class Cursor:
    """Streams three rows, asks nobody, and remembers how it was left."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.left = ""

    def stream(self, query: str) -> Generator[int, str | None, str]:
        try:
            for row in (1, 2, 3):
                try:
                    heard = yield row
                except KeyError:
                    heard = yield -row
                if heard:
                    yield len(heard)
            if "fails" in query:
                raise LookupError(query)
        except GeneratorExit:
            self.left = "closed"
            raise
        return "done"

    async def astream(self, query: str) -> AsyncGenerator[int, str | None]:
        try:
            for row in (1, 2, 3):
                yield row
            if "fails" in query:
                raise LookupError(query)
        finally:
            self.left = "closed"

    @contextmanager
    def copy(self, query: str) -> Generator[Cursor]:
        yield self
        if "fails" in query:
            raise LookupError(query)

    @asynccontextmanager
    async def acopy(self, query: str) -> AsyncGenerator[Cursor]:
        yield self
        if "fails" in query:
            raise LookupError(query)

    def execute(self, query: str) -> Cursor:
        return self

    def __iter__(self) -> Generator[int]:
        yield from (1, 2, 3)
        if self.left == "fails":
            raise LookupError


class Rows(DBAPIInstrumentor):
    def has_rows(self, cursor: Any, result: Any) -> bool:
        return True

    def unread(self, cursor: Any) -> bool | None:
        return None


HOOKS = (
    Hook("tinydriver:Cursor.stream", "generator"),
    Hook("tinydriver:Cursor.astream", "async_generator"),
    Hook("tinydriver:Cursor.copy", "context"),
    Hook("tinydriver:Cursor.acopy", "async_context"),
    Hook("tinydriver:Cursor.execute", lazy=True),
    Hook("tinydriver:Cursor.__iter__", "generator", fetch="next"),
)
FAILED = ErrorInfo("LookupError")


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> type[Cursor]:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    return type("Cursor", (Cursor,), dict(vars(Cursor)))


def test_a_stream_counts_its_rows_and_the_drivers_time_alone(kind: type[Cursor]) -> None:
    with hooked(*HOOKS, Cursor=kind) as (captured, _):
        stream = kind().stream("SELECT 1")
        assert captured.charges == []  # nothing has run
        assert next(stream) == 1
        # One stretch for the first row; the entry is there before the program has it.
        assert whole(captured) == [charge(1, 0, 1, rows=1, partial=True)]
        assert list(stream) == [2, 3]
        # Four stretches in the driver; the wall stood still beside it.
        assert whole(captured) == [charge(1, 0, 4, rows=3, wall_ms=7)]


def test_what_is_sent_thrown_and_returned_passes_through(kind: type[Cursor]) -> None:
    with hooked(*HOOKS, Cursor=kind) as (captured, _):
        stream = kind().stream("SELECT 1")
        assert next(stream) == 1
        assert stream.send("four") == 4
        assert next(stream) == 2
        assert stream.throw(KeyError()) == -2
        assert next(stream) == 3
        with pytest.raises(StopIteration) as stopped:
            next(stream)
        assert stopped.value.value == "done"
        [found] = whole(captured)
        assert (found.rows, found.partial, found.error) == (5, False, None)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_stream_that_is_left_is_partial(kind: type[Cursor], how: str) -> None:
    with hooked(*HOOKS, Cursor=kind) as (captured, _):
        cursor = kind()
        stream = cursor.stream("SELECT 1")
        next(stream)
        if how == "close":
            stream.close()
        del stream
        assert cursor.left == "closed"
        [found] = whole(captured)
        assert (found.rows, found.partial, found.error) == (1, True, None)


def test_a_stream_that_was_never_begun_is_no_charge(kind: type[Cursor]) -> None:
    with hooked(*HOOKS, Cursor=kind) as (captured, _):
        kind().stream("SELECT 1").close()
        assert captured.charges == []


def test_a_stream_that_fails_says_so(kind: type[Cursor]) -> None:
    with hooked(*HOOKS, Cursor=kind) as (captured, _):
        with pytest.raises(LookupError):
            list(kind().stream("SELECT fails"))
        [found] = whole(captured)
        assert (found.rows, found.partial, found.error) == (3, False, FAILED)


async def test_an_asynchronous_stream(kind: type[Cursor]) -> None:
    with hooked(*HOOKS, Cursor=kind) as (captured, _):
        assert [row async for row in kind().astream("SELECT 1")] == [1, 2, 3]
        assert whole(captured) == [charge(1, 0, 4, rows=3, wall_ms=7)]
        with pytest.raises(LookupError):
            _ = [row async for row in kind().astream("SELECT fails")]
        assert whole(captured)[1].error == FAILED
        cursor = kind()
        stream = cursor.astream("SELECT 1")
        await anext(stream)
        await stream.aclose()
        assert cursor.left == "closed"
        assert whole(captured)[2].partial


def test_a_context_is_one_call(kind: type[Cursor]) -> None:
    with hooked(*HOOKS, Cursor=kind) as (captured, _):
        cursor = kind()
        with cursor.copy("SELECT 1") as inside:
            assert inside is cursor
        # Entered and left: two stretches.
        assert whole(captured) == [charge(1, 0, 2)]
        with pytest.raises(LookupError), cursor.copy("SELECT fails"):
            pass
        with pytest.raises(ZeroDivisionError), cursor.copy("SELECT 1"):
            raise ZeroDivisionError
        failed, interrupted = whole(captured)[1:]
        assert failed.error == FAILED
        assert interrupted.error == ErrorInfo("ZeroDivisionError")


async def test_an_asynchronous_context(kind: type[Cursor]) -> None:
    with hooked(*HOOKS, Cursor=kind) as (captured, _):
        async with kind().acopy("SELECT 1"):
            pass
        assert whole(captured) == [charge(1, 0, 2)]
        with pytest.raises(LookupError):
            async with kind().acopy("SELECT fails"):
                pass
        assert whole(captured)[1].error == FAILED


def test_iterating_brings_the_rows_of_an_earlier_call(kind: type[Cursor]) -> None:
    with hooked(*HOOKS, Cursor=kind, instrumentor=Rows) as (captured, _):
        assert list(kind().execute("SELECT 1")) == [1, 2, 3]
        [found] = whole(captured)
        assert (found.rows, found.partial, found.duration_ns) == (3, False, 5 * 10**6)
        cursor = kind().execute("SELECT 1")
        cursor.left = "fails"
        with pytest.raises(LookupError):
            list(cursor)
        assert whole(captured)[1].error == FAILED
        assert list(kind()) == [1, 2, 3]  # of no call
        assert len(captured.charges) == 2


async def test_switched_off_they_are_what_they_were(kind: type[Cursor]) -> None:
    originals = dict(vars(kind))
    with hooked(*HOOKS, Cursor=kind) as (captured, plugin):
        cursor = kind()
        stream, rows = cursor.stream("SELECT 1"), cursor.astream("SELECT 1")
        plugin.uninstrument()
        assert {name: vars(kind)[name] for name in originals} == originals
        assert list(stream) == [1, 2, 3]
        assert [row async for row in rows] == [1, 2, 3]
        with cursor.copy("SELECT 1"):
            pass
        async with cursor.acopy("SELECT 1"):
            pass
        assert captured.charges == []
