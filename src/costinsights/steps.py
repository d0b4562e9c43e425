"""Runs a generator as it is, with something around each of its steps and nothing in between.

What a caller sends, throws or closes reaches the generator, and what it returns or raises comes
back, so that nobody can tell that we stand between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextlib import AbstractContextManager

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")


def _nothing() -> None:
    """Nobody wants to know of each item."""


def stepped(
    inner: Generator[T, S, R],
    step: AbstractContextManager[Any],
    delivered: Callable[[], None] = _nothing,
) -> Generator[T, S, R]:
    """Yield from `inner`, with `step` entered each time that its code runs.

    `delivered` is called for each item, before the caller gets it.
    """
    try:
        with step:
            item = next(inner)
        while True:
            delivered()
            try:
                sent = yield item
            except GeneratorExit:
                with step:
                    inner.close()
                raise
            except BaseException as error:
                with step:
                    item = inner.throw(error)
            else:
                with step:
                    item = inner.send(sent)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def stepped_async(
    inner: AsyncGenerator[T, S],
    step: AbstractContextManager[Any],
    delivered: Callable[[], None] = _nothing,
) -> AsyncGenerator[T, S]:
    """Do for an asynchronous generator what `stepped` does for a plain one."""
    try:
        with step:
            item = await inner.__anext__()
        while True:
            delivered()
            try:
                sent = yield item
            except GeneratorExit:
                with step:
                    await inner.aclose()
                raise
            except BaseException as error:
                with step:
                    item = await inner.athrow(error)
            else:
                with step:
                    item = await inner.asend(sent)
    except StopAsyncIteration:
        return
