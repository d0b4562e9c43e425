"""Calls whose result is awaited: coroutine functions, and what returns something else to await."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.records import ErrorInfo
from tests.drivers import Connection, charge, hooked, whole

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Cursor:
    """Has each method twice: as a coroutine function, and as one that checks before it gives one."""

    def __init__(self) -> None:
        self.connection = Connection()
        self.rows = [1, 2, 3]

    async def execute(self, query: str) -> Cursor:
        if "fails" in query:
            raise LookupError(query)
        await asyncio.sleep(0)
        return self

    def eager(self, query: str) -> Awaitable[Cursor]:
        if not isinstance(query, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(query)
        return self.execute(query)

    async def fetchone(self) -> int | None:
        if self.rows and self.rows[0] == 0:
            raise LookupError
        return self.rows.pop(0) if self.rows else None

    def eagerone(self) -> Awaitable[int | None]:
        return self.fetchone()


class Rows(DBAPIInstrumentor):
    def has_rows(self, cursor: Any, result: Any) -> bool:
        return True


def hooks(execute: str, fetch: str) -> tuple[Hook, ...]:
    return (
        Hook(f"tinydriver:Cursor.{execute}", "async", lazy=True),
        Hook(f"tinydriver:Cursor.{fetch}", "async", fetch="one"),
    )


WAYS = pytest.mark.parametrize(
    ("execute", "fetch"), [("execute", "fetchone"), ("eager", "eagerone")]
)


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> type[Cursor]:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    return type("Cursor", (Cursor,), dict(vars(Cursor)))


@WAYS
async def test_a_statement_is_charged_when_it_has_been_awaited(
    kind: type[Cursor], execute: str, fetch: str
) -> None:
    with hooked(*hooks(execute, fetch), Cursor=kind, instrumentor=Rows) as (captured, _):
        cursor = kind()
        awaitable = getattr(cursor, execute)("SELECT 1")
        assert captured.charges == []  # nothing has run
        assert await awaitable is cursor
        assert whole(captured) == [charge(1, 0, 1, partial=True)]
        assert [await getattr(cursor, fetch)() for _ in range(4)] == [1, 2, 3, None]
        # The statement, three rows and the end of them: five stretches.
        assert whole(captured) == [charge(1, 0, 5, rows=3, wall_ms=9)]
        assert await getattr(cursor, fetch)() is None  # of no call any more
        assert len(captured.charges) == 1


@WAYS
async def test_an_error_is_the_programs_own(kind: type[Cursor], execute: str, fetch: str) -> None:
    with hooked(*hooks(execute, fetch), Cursor=kind, instrumentor=Rows) as (captured, _):
        with pytest.raises(LookupError, match="SELECT fails"):
            await getattr(kind(), execute)("SELECT fails")
        cursor = kind()
        await getattr(cursor, execute)("SELECT 1")
        cursor.rows = [0]
        with pytest.raises(LookupError):
            await getattr(cursor, fetch)()
        found = whole(captured)
        assert [each.error for each in found] == [ErrorInfo("LookupError")] * 2
        assert [each.partial for each in found] == [False, False]


async def test_what_checks_its_arguments_does_so_at_once(kind: type[Cursor]) -> None:
    with hooked(*hooks("eager", "eagerone"), Cursor=kind) as (captured, _):
        wrong: Any = 7
        with pytest.raises(TypeError):
            kind().eager(wrong)  # not awaited
        assert captured.charges == []


def test_a_coroutine_function_stays_one(kind: type[Cursor]) -> None:
    with hooked(*hooks("execute", "eagerone"), Cursor=kind) as _:
        assert inspect.iscoroutinefunction(kind.execute)
        assert not inspect.iscoroutinefunction(kind.eagerone)
        coroutine = kind().eagerone()
        assert inspect.iscoroutine(coroutine)
        coroutine.close()


async def test_the_coroutine_of_a_call_bears_its_name(kind: type[Cursor]) -> None:
    with hooked(*hooks("eager", "eagerone"), Cursor=kind) as _:
        awaitable: Any = kind().eager("SELECT 1")
        assert awaitable.__qualname__ == "Cursor.eager"
        await awaitable


@WAYS
async def test_a_call_that_is_cancelled_is_charged(
    kind: type[Cursor], execute: str, fetch: str
) -> None:
    async def forever(self: Cursor, query: str) -> Cursor:
        await asyncio.Event().wait()
        return self

    kind.execute = forever  # type: ignore[method-assign]
    with hooked(*hooks(execute, fetch), Cursor=kind) as (captured, _):
        call: Callable[[str], Awaitable[Cursor]] = getattr(kind(), execute)
        task = asyncio.ensure_future(call("SELECT 1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        [found] = whole(captured)
        assert found.error == ErrorInfo("asyncio.exceptions.CancelledError")


@WAYS
async def test_tasks_have_a_charge_each(kind: type[Cursor], execute: str, fetch: str) -> None:
    with hooked(*hooks(execute, fetch), Cursor=kind) as (captured, _):
        await asyncio.gather(*(getattr(kind(), execute)("SELECT 1") for _ in range(20)))
        assert len({each.charge_id for each in captured.charges}) == 20


@WAYS
async def test_switched_off_nothing_is_recorded(
    kind: type[Cursor], execute: str, fetch: str
) -> None:
    original = vars(kind)[execute]
    with hooked(*hooks(execute, fetch), Cursor=kind) as (captured, plugin):
        bound = getattr(kind(), execute)
        plugin.uninstrument()
        assert vars(kind)[execute] is original
        await bound("SELECT 1")
        assert captured.charges == []
