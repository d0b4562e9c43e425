"""Wrappers of callables whose result is awaited.

A coroutine function gets a coroutine function. Anything else that returns something to be awaited
is called at once, because it may raise at once: libraries check their arguments in this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.guard import SUPPRESSED, busy, free
from costinsights.voices import pass_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.patching import Probe

_CO_COROUTINE = 0x80  # as in `inspect`, which takes 10 ms to import


def _is_coroutine_function(function: object) -> bool:
    return bool(getattr(getattr(function, "__code__", None), "co_flags", 0) & _CO_COROUTINE)


def call_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Return the wrapper of a callable that runs a statement."""
    begin, end, tagged, name = probe.begin, probe.end, probe.tagged, probe.name
    held, hold = busy.get, busy.set

    async def call(*args: Any, **kwargs: Any) -> Any:
        recorder = probe.recorder
        if recorder is None or (other := held()) is name or other is SUPPRESSED:
            return await function(*args, **kwargs)
        token = hold(name)
        try:
            span = begin(args, kwargs)
        except BaseException:  # a signal handler's: the call is not made
            free(token)
            raise
        try:
            if recorder.tagger is not None:
                args, kwargs = tagged(args, kwargs)
            result = await function(*args, **kwargs)
        except BaseException as error:
            free(token)
            end(span, None, error)
            raise
        free(token)
        end(span, result)
        return result

    async def awaiting(awaitable: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        token = hold(name)
        span = begin(args, kwargs)
        try:
            result = await awaitable
        except BaseException as error:
            free(token)
            end(span, None, error)
            raise
        free(token)
        end(span, result)
        return result

    def eager(*args: Any, **kwargs: Any) -> Any:
        if probe.recorder is None or held() in (name, SUPPRESSED):
            return function(*args, **kwargs)
        given, named = tagged(args, kwargs)
        return awaiting(function(*given, **named), args, kwargs)

    if _is_coroutine_function(function):
        return call
    return _named_like(function, awaiting, eager)


def fetch_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Return the wrapper of a callable that brings rows of a statement that ran before."""
    name, held, hold = probe.name, busy.get, busy.set

    async def fetch(*args: Any, **kwargs: Any) -> Any:
        span = probe.opened(args)
        if span is None or (other := held()) is name or other is SUPPRESSED:
            return await function(*args, **kwargs)
        token = hold(name)
        probe.resume(span)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            free(token)
            probe.fetched(span, args, kwargs, None, error)
            raise
        free(token)
        probe.fetched(span, args, kwargs, result)
        return result

    async def awaiting(awaitable: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        span = probe.opened(args)
        if span is None:
            return await awaitable
        token = hold(name)
        probe.resume(span)
        try:
            result = await awaitable
        except BaseException as error:
            free(token)
            probe.fetched(span, args, kwargs, None, error)
            raise
        free(token)
        probe.fetched(span, args, kwargs, result)
        return result

    def eager(*args: Any, **kwargs: Any) -> Any:
        awaitable = function(*args, **kwargs)
        if probe.opened(args) is None or held() in (name, SUPPRESSED):
            return awaitable
        return awaiting(awaitable, args, kwargs)

    if _is_coroutine_function(function):
        return fetch
    return _named_like(function, awaiting, eager)


def _named_like(
    function: Callable[..., Any], awaiting: Callable[..., Any], eager: Callable[..., Any]
) -> Callable[..., Any]:
    """Have the coroutines that `eager` returns bear the name of those of `function`."""
    awaiting.__name__, awaiting.__qualname__ = function.__name__, function.__qualname__
    pass_over(awaiting)
    return eager
