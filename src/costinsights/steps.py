"""Runs a generator as it is, with something around each of its steps and nothing in between.

What a caller sends, throws or closes reaches the generator, and what it returns or raises comes
back, so that nobody can tell that we stand between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractContextManager

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")


def stepping(
    function: Callable[P, Generator[T, S, R]], step: Callable[[], AbstractContextManager[Any]]
) -> Callable[P, Generator[T, S, R]]:
    """Return `function` with what `step` gives entered each time that its generators' code runs.

    The result is itself a generator function, for those who look (frameworks do). `step` is called
    once a generator.
    """

    def steps(*args: P.args, **kwargs: P.kwargs) -> Generator[T, S, R]:
        inner, around = function(*args, **kwargs), step()
        try:
            with around:
                item = next(inner)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    with around:
                        inner.close()
                    raise
                except BaseException as error:  # noqa: BLE001  the generator's to judge
                    with around:
                        item = inner.throw(error)
                else:
                    with around:
                        item = inner.send(sent)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    return steps


def stepping_async(
    function: Callable[P, AsyncGenerator[T, S]], step: Callable[[], AbstractContextManager[Any]]
) -> Callable[P, AsyncGenerator[T, S]]:
    """Do for an asynchronous generator function what `stepping` does for a plain one."""

    async def steps(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, S]:
        inner, around = function(*args, **kwargs), step()
        try:
            with around:
                item = await inner.__anext__()
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    with around:
                        await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001  the generator's to judge
                    with around:
                        item = await inner.athrow(error)
                else:
                    with around:
                        item = await inner.asend(sent)
        except StopAsyncIteration:
            return

    return steps
