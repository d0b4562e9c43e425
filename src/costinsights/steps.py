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
            except BaseException as error:  # noqa: BLE001  the generator's to judge
                with step:
                    item = inner.throw(error)
            else:
                with step:
                    item = inner.send(sent)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def stepping_async(
    function: Callable[P, AsyncGenerator[T, S]],
    step: Callable[[], AbstractContextManager[Any]],
    delivered: Callable[[], None] = _nothing,
) -> Callable[P, AsyncGenerator[T, S]]:
    """Make of an asynchronous generator function one that does what `stepped` does.

    The result is itself an asynchronous generator function, for those who look (frameworks do).
    `step` is called once a generator.
    """

    async def stepping(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[T, S]:
        inner = function(*args, **kwargs)
        around = step()
        try:
            with around:
                item = await inner.__anext__()
            while True:
                delivered()
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

    return stepping


def stepped_async(
    inner: AsyncGenerator[T, S],
    step: AbstractContextManager[Any],
    delivered: Callable[[], None] = _nothing,
) -> AsyncGenerator[T, S]:
    """Do for an asynchronous generator what `stepped` does for a plain one."""
    return stepping_async(lambda: inner, lambda: step, delivered)()
