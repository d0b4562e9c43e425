"""A driver in pipeline mode: calls return before the server answers, and the answers come in order."""

from __future__ import annotations

import gc
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.records import ErrorInfo
from tests.drivers import Connection, charge, hooked, whole

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable


class Pipeline:
    """Has a queue of tokens, one for each answer that is owed."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.queue: deque[tuple[Cursor, int]] = deque()
        self.breaks = False

    def wait(self) -> Generator[None, None, None]:
        """Wait for all answers, and take each as it comes."""
        while self.queue:
            yield
            if self.breaks:
                raise ConnectionError
            token = self.queue.popleft()
            self.process(token, token[1])

    def process(self, token: tuple[Cursor, int], answer: int) -> None:
        if answer < 0:
            raise LookupError


class Cursor:
    """Sends a statement and does not wait; `answers` are the rows of what will come for it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.connection = pipeline.connection
        self.pipeline = pipeline

    def execute(self, query: str, answers: Iterable[int]) -> Cursor:
        self.pipeline.queue.extend((self, rows) for rows in answers)
        return self


def rows_of(_: Any, answer: Any) -> int | None:
    return int(answer)


class Instrumentor(DBAPIInstrumentor):
    def owed(self, cursor: Any) -> Iterable[object]:
        return (token for token in reversed(cursor.pipeline.queue) if token[0] is cursor)

    def next_answer(self, source: Any) -> object:
        return source.queue[0] if source.queue else None


HOOKS = (
    Hook("tinydriver:Cursor.execute", deferred=True),
    Hook("tinydriver:Pipeline.wait", "generator", fetch="waiting"),
    Hook("tinydriver:Pipeline.process", fetch="arrival", rows=rows_of),
)
NOBODY = ErrorInfo("LookupError")


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    return {
        kind.__name__: type(kind.__name__, (kind,), dict(vars(kind))) for kind in (Cursor, Pipeline)
    }


def test_a_call_is_complete_with_its_last_answer(kinds: dict[str, Any]) -> None:
    with hooked(*HOOKS, instrumentor=Instrumentor, **kinds) as (captured, _):
        pipeline = kinds["Pipeline"]()
        cursor = kinds["Cursor"](pipeline)
        cursor.execute("SELECT 1", [2, 3])
        assert whole(captured) == [charge(1, 0, 1, partial=True)]
        assert list(pipeline.wait()) == [None, None]
        [found] = whole(captured)
        assert (found.rows, found.partial, found.error) == (5, False, None)
        assert found.duration_ns == 3 * 10**6  # sending, and the wait for each answer


def test_the_clock_runs_for_the_call_whose_answer_is_next(kinds: dict[str, Any]) -> None:
    with hooked(*HOOKS, instrumentor=Instrumentor, **kinds) as (captured, _):
        pipeline = kinds["Pipeline"]()
        cursors = [kinds["Cursor"](pipeline) for _ in range(2)]
        for cursor, answers in zip(cursors, ([1], [2, 4, 8]), strict=True):
            cursor.execute("SELECT 1", answers)
        list(pipeline.wait())
        found = whole(captured)
        assert [each.rows for each in found] == [1, 14]
        assert [each.duration_ns // 10**6 for each in found] == [2, 4]
        assert not any(each.partial for each in found)


def test_an_answer_that_is_an_error_ends_its_call_alone(kinds: dict[str, Any]) -> None:
    with hooked(*HOOKS, instrumentor=Instrumentor, **kinds) as (captured, _):
        pipeline = kinds["Pipeline"]()
        first, second = (kinds["Cursor"](pipeline) for _ in range(2))
        first.execute("SELECT 1", [-1])
        second.execute("SELECT 1", [7])
        with pytest.raises(LookupError):
            list(pipeline.wait())
        list(pipeline.wait())
        assert [(each.error, each.rows) for each in whole(captured)] == [(NOBODY, None), (None, 7)]


def test_a_connection_that_breaks_ends_the_call_that_was_next(kinds: dict[str, Any]) -> None:
    with hooked(*HOOKS, instrumentor=Instrumentor, **kinds) as (captured, _):
        pipeline = kinds["Pipeline"]()
        first, second = (kinds["Cursor"](pipeline) for _ in range(2))
        first.execute("SELECT 1", [1])
        second.execute("SELECT 1", [1])
        pipeline.breaks = True
        with pytest.raises(ConnectionError):
            list(pipeline.wait())
        found = whole(captured)
        assert [each.error for each in found] == [ErrorInfo("ConnectionError"), None]
        assert [each.partial for each in found] == [False, True]


def test_one_cursor_may_owe_several_calls(kinds: dict[str, Any]) -> None:
    with hooked(*HOOKS, instrumentor=Instrumentor, **kinds) as (captured, _):
        pipeline = kinds["Pipeline"]()
        cursor = kinds["Cursor"](pipeline)
        cursor.execute("SELECT 1", [1])
        cursor.execute("SELECT 1", [2, 3])
        list(pipeline.wait())
        assert [each.rows for each in whole(captured)] == [1, 5]


def test_a_cursor_that_is_dropped_leaves_its_call_partial(kinds: dict[str, Any]) -> None:
    with hooked(*HOOKS, instrumentor=Instrumentor, **kinds) as (captured, plugin):
        pipeline = kinds["Pipeline"]()
        kinds["Cursor"](pipeline).execute("SELECT 1", [1])
        active = plugin.recorder()
        assert active is not None
        assert len(active.owed.spans) == 1
        pipeline.queue.clear()
        gc.collect()
        assert whole(captured) == [charge(1, 0, 1, partial=True)]
        assert active.owed.spans == {}


def test_a_call_that_owes_nothing_is_complete_at_once(kinds: dict[str, Any]) -> None:
    with hooked(*HOOKS, instrumentor=Instrumentor, **kinds) as (captured, _):
        pipeline = kinds["Pipeline"]()
        kinds["Cursor"](pipeline).execute("SELECT 1", [])
        assert whole(captured) == [charge(1, 0, 1)]
        assert list(pipeline.wait()) == []
        assert len(captured.charges) == 1
