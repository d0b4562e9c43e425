"""Wrappers of calls that go on after they have returned: generators, contexts, pipelines.

The span's clocks run only while the driver has the word, not while the program looks at what it
got. Each wrapper stands in a traceback once, as the wrappers of plain calls do.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from costinsights.guard import SUPPRESSED, busy, free

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from costinsights.patching import Hook, Probe
    from costinsights.span import CostSpan

    Wrapper = Callable[[Callable[..., Any], Probe], Callable[..., Any]]


def wrapper_of(hook: Hook) -> Wrapper:
    """Return the function that makes the wrapper of a hook of one of these kinds."""
    return _FETCHES[hook.fetch] if hook.fetch is not None else _KINDS[hook.kind]


class Steps:
    """The span of a generator or a context: its clocks run only while the driver's code does."""

    __slots__ = ("_args", "_kwargs", "_probe", "_span", "_token")

    def __init__(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._probe, self._args, self._kwargs = probe, args, kwargs
        self._span: CostSpan | None = None
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = busy.set(self._probe.name)
        if self._span is None:
            self._span = self._probe.begin(self._args, self._kwargs)
            self._args, self._kwargs = (), {}  # from here on they are the span's
        else:
            self._probe.resume(self._span)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        free(self._token)
        if error is None:
            self._probe.pause(self._span)
        elif isinstance(error, (StopIteration, StopAsyncIteration)):
            if self._span is not None:
                self._span.rows = self._span.rows or 0
            self._probe.complete(self._span, None)
        else:
            self._probe.complete(self._span, error)

    def delivered(self) -> None:
        """Count a row, and put the span in the ledger before the caller gets the first."""
        self._probe.delivered(self._span)

    def lend(self) -> None:
        """Let the methods of what the context gave, which do the work, run the clocks."""
        self._probe.lend(self._span)

    def end(self, error: BaseException | None = None) -> None:
        """The context is left, and the cursor knows what came of it."""
        self._probe.end(self._span, None, error)

    def close(self) -> None:
        """The generator is left: what was not read will never be."""
        self._probe.complete(self._span, None, partial=True)


def _is_off(probe: Probe) -> bool:
    """Tell whether a call is not to be counted: switched off, or part of one that is."""
    return probe.recorder is None or busy.get() in (probe.name, SUPPRESSED)


def _generator(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Wrap a generator function that runs a statement and yields its rows."""

    def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        if _is_off(probe):
            bare: Generator[Any, Any, Any] = function(*args, **kwargs)
            return (yield from bare)
        steps = Steps(probe, args, kwargs)
        args, kwargs = probe.tagged(args, kwargs)
        inner: Generator[Any, Any, Any] = function(*args, **kwargs)
        del args, kwargs
        try:
            with steps:
                item = next(inner)
            while True:
                steps.delivered()
                try:
                    sent = yield item
                except GeneratorExit:
                    with steps:
                        inner.close()
                    raise
                except BaseException as error:  # noqa: BLE001  the generator's to judge
                    with steps:
                        item = inner.throw(error)
                else:
                    with steps:
                        item = inner.send(sent)
        except StopIteration as stop:
            return stop.value
        finally:
            steps.close()

    return generate


def _async_generator(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Wrap an asynchronous generator function that runs a statement and yields its rows."""

    async def agenerate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        if _is_off(probe):
            async for item in function(*args, **kwargs):
                yield item
            return
        steps = Steps(probe, args, kwargs)
        args, kwargs = probe.tagged(args, kwargs)
        inner: AsyncGenerator[Any, Any] = function(*args, **kwargs)
        del args, kwargs
        try:
            with steps:
                item = await inner.__anext__()
            while True:
                steps.delivered()
                try:
                    sent = yield item
                except GeneratorExit:
                    with steps:
                        await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001  the generator's to judge
                    with steps:
                        item = await inner.athrow(error)
                else:
                    with steps:
                        item = await inner.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            steps.close()

    return agenerate


def _context(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Wrap a callable that returns a context, in which one statement does its work."""

    @contextmanager
    def context(*args: Any, **kwargs: Any) -> Generator[Any]:
        if _is_off(probe):
            with function(*args, **kwargs) as value:
                yield value
            return
        steps = Steps(probe, args, kwargs)
        args, kwargs = probe.tagged(args, kwargs)
        manager = function(*args, **kwargs)
        with steps:
            value = manager.__enter__()
        steps.lend()
        try:
            yield value
        except BaseException as error:
            with steps:
                handled = manager.__exit__(type(error), error, error.__traceback__)
            steps.end(error)
            if not handled:
                raise
        else:
            with steps:
                manager.__exit__(None, None, None)
            steps.end()

    return context


def _async_context(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Wrap a callable that returns an asynchronous context."""

    @asynccontextmanager
    async def acontext(*args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        if _is_off(probe):
            async with function(*args, **kwargs) as value:
                yield value
            return
        steps = Steps(probe, args, kwargs)
        args, kwargs = probe.tagged(args, kwargs)
        manager = function(*args, **kwargs)
        with steps:
            value = await manager.__aenter__()
        steps.lend()
        try:
            yield value
        except BaseException as error:
            with steps:
                handled = await manager.__aexit__(type(error), error, error.__traceback__)
            steps.end(error)
            if not handled:
                raise
        else:
            with steps:
                await manager.__aexit__(None, None, None)
            steps.end()

    return acontext


def _fetching(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Wrap a generator function that waits for rows and returns them: the driver's own wait."""

    def fetching(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner: Generator[Any, Any, Any] = function(*args, **kwargs)
        span = probe.opened(args)
        if span is None or _is_off(probe):
            return (yield from inner)
        probe.resume(span)
        try:
            result = yield from inner
        except BaseException as error:
            probe.fetched(span, args, kwargs, None, error)
            raise
        probe.fetched(span, args, kwargs, result)
        return result

    return fetching


def _iteration(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Wrap a generator function that yields the rows which an earlier call left to fetch."""

    def iterate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner: Generator[Any, Any, Any] = function(*args, **kwargs)
        while True:
            span = probe.opened(args)
            if span is None or _is_off(probe):
                return (yield from inner)
            token = busy.set(probe.name)
            probe.resume(span)
            try:
                row = next(inner)
            except BaseException as error:
                free(token)
                probe.fetched(span, args, kwargs, None, error)
                if isinstance(error, StopIteration):
                    return error.value
                raise
            free(token)
            probe.fetched(span, args, kwargs, row)
            yield row

    return iterate


def _arrival(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Wrap a method that the driver calls with each answer it gets, ``(self, token, answer)``."""

    def arrive(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            probe.arrived(args, error)
            raise
        probe.arrived(args)
        return result

    return arrive


def _waiting(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Wrap a generator function that waits for answers owed to calls that have returned."""

    def waiting(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner: Generator[Any, Any, Any] = function(*args, **kwargs)
        if _is_off(probe):
            return (yield from inner)
        probe.waits(args[0])
        try:
            result = yield from inner
        except BaseException as error:
            probe.waited(args[0], error)
            raise
        probe.waited(args[0])
        return result

    return waiting


_KINDS: dict[str, Wrapper] = {
    "generator": _generator,
    "async_generator": _async_generator,
    "context": _context,
    "async_context": _async_context,
}
_FETCHES: dict[str, Wrapper] = {
    "page": _fetching,
    "next": _iteration,
    "arrival": _arrival,
    "waiting": _waiting,
}
