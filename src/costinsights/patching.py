"""Puts wrappers on the callables of client libraries, in place, and takes them off again.

`wrap` makes one wrapper a kind of callable; they differ only in how the user's call is made, and
share one body in `Probe`. Together with `costinsights.guard` this is the only place with a
``try`` around users' calls: what the driver returns or raises passes through untouched.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, contextmanager
from functools import update_wrapper
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from costinsights.guard import SUPPRESSED, busy, swallow
from costinsights.steps import stepped, stepped_async

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from costinsights.factories import Makes
    from costinsights.instrumentor import DBAPIInstrumentor
    from costinsights.recorder import Recorder
    from costinsights.span import CostSpan

Kind = Literal[
    "call", "async", "generator", "async_generator", "context", "async_context", "factory"
]
Fetch = Literal["one", "many", "all", "next", "close", "frame"]


class Hook(NamedTuple):
    """One callable of a client library, and what it means when it is called.

    ``target`` is ``"module:Class.method"`` or ``"module:function"``. The other fields say where
    to look: ``statement`` names the argument with the query (its position counts the instance as
    0) or is None where there is none; ``batch`` likewise the sequence of parameter sets of an
    ``executemany``; ``operation`` replaces the operation that the text would give; ``lazy`` says
    that rows are still to come from the server, or from the engine, when the call returns;
    ``fetch`` marks a method that brings such rows, or that ends them.
    """

    target: str
    kind: Kind = "call"
    statement: tuple[int, str] | None = (1, "query")
    batch: tuple[int, str] | None = None
    operation: str | None = None
    lazy: bool = False
    fetch: Fetch | None = None
    makes: Makes | None = None
    """With kind "factory": what the callable makes. See `costinsights.factories`."""
    leaf: bool = False
    """The callable calls no other hooked one, so nothing need be remembered while it runs."""
    optional: bool = False
    """The callable is not in every supported version of the library."""


class Probe:
    """A hook at work. With `recorder` None its wrapper only calls through."""

    __slots__ = (
        "batch",
        "connection_of",
        "counts_rows",
        "hook",
        "instrumentor",
        "lazy",
        "name",
        "operation",
        "recorder",
        "statement",
    )

    def __init__(self, hook: Hook, instrumentor: DBAPIInstrumentor) -> None:
        self.hook = hook
        self.instrumentor = instrumentor
        self.name = instrumentor.name
        # The recorder reads these at each call, and a slot is the quickest to read.
        self.connection_of = instrumentor.connection_of
        self.counts_rows = instrumentor.counts_rows
        self.statement, self.batch = hook.statement, hook.batch
        self.operation, self.lazy = hook.operation, hook.lazy
        self.recorder: Recorder | None = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CostSpan | None:
        """Open a span for the call, or None when something of ours fails."""
        try:
            recorder = self.recorder
            return None if recorder is None else recorder.begin(self, args, kwargs)
        except Exception as error:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, error)
            return None

    def end(
        self, span: CostSpan | None, result: object, error: BaseException | None = None
    ) -> None:
        """Close what `begin` opened."""
        if span is None:
            return
        try:
            span.recorder.end(span, result, error)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)

    def opened(self, args: tuple[Any, ...]) -> CostSpan | None:
        """Return the span whose rows this cursor still has to bring, if there is one."""
        recorder = self.recorder
        if recorder is None or not recorder.opened:
            return None
        try:
            return recorder.opened_by(args[0])
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)
            return None

    def fetched(self, span: CostSpan, result: object, error: BaseException | None = None) -> None:
        """Count what a fetch brought, and complete the span when it was the last."""
        try:
            span.recorder.fetched(span, self.hook.fetch, result, error)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)

    def resume(self, span: CostSpan) -> None:
        """Let the span's clock run again."""
        try:
            span.recorder.resume(span)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)

    def pause(self, span: CostSpan | None) -> None:
        """Stop the span's clock: the caller has the word."""
        if span is None:
            return
        try:
            span.recorder.pause(span)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)

    def delivered(self, span: CostSpan | None) -> None:
        """Count one row of a generator."""
        if span is None:
            return
        try:
            span.recorder.delivered(span)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)

    def complete(
        self, span: CostSpan | None, error: BaseException | None, *, partial: bool = False
    ) -> None:
        """Bring the span to its end; a second end changes nothing."""
        if span is None:
            return
        try:
            span.recorder.complete(span, error, partial=partial)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)

    def tagged(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with a tag in the statement, where the user asked for one."""
        recorder = self.recorder
        if recorder is None or recorder.tagger is None:
            return args, kwargs
        try:
            changed: tuple[tuple[Any, ...], dict[str, Any]] = recorder.tagger(self, args, kwargs)
            return changed
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)
            return args, kwargs


def wrap(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Return the wrapper of `function` that reports to `probe`."""
    if probe.hook.kind == "factory":
        from costinsights.factories import factory_wrapper as make
    else:
        make = _fetch_wrapper if probe.hook.fetch is not None else _call_wrapper
    wrapper = make(function, probe)
    if probe.hook.kind not in ("context", "async_context"):
        _resemble(wrapper, function)
    wrapper.__costinsights__ = probe  # type: ignore[attr-defined]
    return wrapper


def _resemble(wrapper: Callable[..., Any], function: Callable[..., Any]) -> None:
    update_wrapper(wrapper, function)


def _call_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    begin, end, tagged, name = probe.begin, probe.end, probe.tagged, probe.name
    held, hold, release = busy.get, busy.set, busy.reset
    kind = probe.hook.kind

    if kind == "call":
        target, leaf = probe.hook.target, probe.hook.leaf

        # Written out, where the other kinds call `begin` and `end`: this is the hot path.
        def call(*args: Any, **kwargs: Any) -> Any:
            recorder = probe.recorder
            if recorder is None or (other := held()) is name or other is SUPPRESSED:
                return function(*args, **kwargs)
            token = None if leaf else hold(name)
            try:
                span = recorder.begin(probe, args, kwargs)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(target, ours)
                span = None
            try:
                if recorder.tagger is not None:
                    args, kwargs = tagged(args, kwargs)
                result = function(*args, **kwargs)
            except BaseException as error:
                if token is not None:
                    release(token)
                end(span, None, error)
                raise
            if token is not None:
                release(token)
            if span is not None:
                try:
                    recorder.end(span, result, None)
                except Exception as ours:  # noqa: BLE001  ours must not reach the program
                    swallow(target, ours)
            return result

        return call

    if kind == "async":

        async def acall(*args: Any, **kwargs: Any) -> Any:
            recorder = probe.recorder
            if recorder is None or (other := held()) is name or other is SUPPRESSED:
                return await function(*args, **kwargs)
            token = hold(name)
            span = begin(args, kwargs)
            try:
                if recorder.tagger is not None:
                    args, kwargs = tagged(args, kwargs)
                result = await function(*args, **kwargs)
            except BaseException as error:
                release(token)
                end(span, None, error)
                raise
            release(token)
            end(span, result)
            return result

        return acall

    if kind == "generator":

        def generate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            if probe.recorder is None or (other := held()) is name or other is SUPPRESSED:
                inner: Generator[Any, Any, Any] = function(*args, **kwargs)
                return (yield from inner)
            args, kwargs = tagged(args, kwargs)
            steps = _Steps(probe, args, kwargs)
            try:
                return (yield from stepped(function(*args, **kwargs), steps, steps.delivered))
            finally:
                steps.close()

        return generate

    if kind == "async_generator":

        async def agenerate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
            outer = inner = function(*args, **kwargs)
            steps: _Steps | None = None
            if probe.recorder is not None and held() not in (name, SUPPRESSED):
                steps = _Steps(probe, args, kwargs)
                outer = stepped_async(inner, steps, steps.delivered)
            try:
                async for item in outer:
                    yield item
            finally:
                await outer.aclose()
                if steps is not None:
                    steps.close()

        return agenerate

    if kind == "context":

        @contextmanager
        def context(*args: Any, **kwargs: Any) -> Generator[Any]:
            if probe.recorder is None or (other := held()) is name or other is SUPPRESSED:
                with function(*args, **kwargs) as value:
                    yield value
                return
            args, kwargs = tagged(args, kwargs)
            span = begin(args, kwargs)
            try:
                with function(*args, **kwargs) as value:
                    yield value
            except BaseException as error:
                end(span, None, error)
                raise
            end(span, None)

        _resemble(context, function)
        return context

    if kind == "async_context":

        @asynccontextmanager
        async def acontext(*args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
            if probe.recorder is None or (other := held()) is name or other is SUPPRESSED:
                async with function(*args, **kwargs) as value:
                    yield value
                return
            args, kwargs = tagged(args, kwargs)
            span = begin(args, kwargs)
            try:
                async with function(*args, **kwargs) as value:
                    yield value
            except BaseException as error:
                end(span, None, error)
                raise
            end(span, None)

        _resemble(acontext, function)
        return acontext

    raise ValueError(f"no wrapper for a hook of kind {kind!r}")


class _Steps:
    """The span of a generator: its clock runs only while the generator's own code does."""

    __slots__ = ("_args", "_kwargs", "_probe", "_span", "_token")

    def __init__(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._probe, self._args, self._kwargs = probe, args, kwargs
        self._span: CostSpan | None = None
        self._token: Any = None

    def __enter__(self) -> None:
        self._token = busy.set(self._probe.name)
        if self._span is None:
            self._span = self._probe.begin(self._args, self._kwargs)
        else:
            self._probe.resume(self._span)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        busy.reset(self._token)
        if error is None:
            self._probe.pause(self._span)
        elif isinstance(error, (StopIteration, StopAsyncIteration)):
            self._probe.complete(self._span, None)
        else:
            self._probe.complete(self._span, error)

    def delivered(self) -> None:
        """Count a row, and put the span in the ledger before the caller gets the first."""
        self._probe.delivered(self._span)

    def close(self) -> None:
        """The generator is left: what was not read will never be."""
        self._probe.complete(self._span, None, partial=True)


def _fetch_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    name, held, hold, release = probe.name, busy.get, busy.set, busy.reset

    if probe.hook.kind == "async":

        async def afetch(*args: Any, **kwargs: Any) -> Any:
            span = probe.opened(args)
            if span is None or (other := held()) is name or other is SUPPRESSED:
                return await function(*args, **kwargs)
            token = hold(name)
            probe.resume(span)
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                release(token)
                probe.fetched(span, None, error)
                raise
            release(token)
            probe.fetched(span, result)
            return result

        return afetch

    def fetch(*args: Any, **kwargs: Any) -> Any:
        span = probe.opened(args)
        if span is None or (other := held()) is name or other is SUPPRESSED:
            return function(*args, **kwargs)
        token = hold(name)
        probe.resume(span)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            release(token)
            probe.fetched(span, None, error)
            raise
        release(token)
        probe.fetched(span, result)
        return result

    return fetch


class Patch:
    """One attribute that holds our wrapper, and what it held before."""

    __slots__ = ("_inherited", "_name", "_original", "_owner", "_placed", "probe")

    def __init__(self, probe: Probe) -> None:
        """Find the hook's target and put its wrapper there.

        Raises:
            AttributeError: the library has no such callable.
            TypeError: its owner cannot be changed (a C type).
        """
        self.probe = probe
        owner, self._name = owner_of(probe.hook.target)
        self._owner = owner
        self._inherited = self._name not in vars(owner)
        self._original = here(owner, self._name)
        self._placed = self._wrapped(self._original)
        setattr(owner, self._name, self._placed)

    def _wrapped(self, original: Any) -> Any:
        kind: Any = original.__class__
        if kind is staticmethod or kind is classmethod:
            return kind(wrap(original.__func__, self.probe))
        wrapper = wrap(original, self.probe)
        # What everybody can see of a function in C, its type and repr, stays as it is. Nobody looks
        # at a private one, and wrapt takes 130 ms to import.
        if isinstance(original, BuiltinFunctionType) and not self._name.startswith("_"):
            from costinsights.standin import stand_in

            return stand_in(original, wrapper, self.probe.hook.target)
        return wrapper

    @property
    def in_place(self) -> bool:
        """Whether the attribute still holds our wrapper, and not somebody's around it."""
        return here(self._owner, self._name) is self._placed

    def remove(self) -> bool:
        """Put back what was there; False when somebody has since wrapped our wrapper.

        The wrapper that must stay then only calls through, because its probe is switched off.
        """
        self.probe.recorder = None
        if not self.in_place:
            return False
        if self._inherited:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._original)
        return True


def resolve(target: str) -> Any:
    """Return what ``"module:Class.method"`` names; the module has been imported.

    Raises:
        AttributeError: there is no such thing.
    """
    module, _, path = target.partition(":")
    found: Any = sys.modules[module]
    for name in path.split("."):
        found = getattr(found, name)
    return found


def owner_of(target: str) -> tuple[Any, str]:
    """Return the class or module that a hook's `target` is an attribute of, and its name there."""
    module, _, path = target.partition(":")
    owners, _, name = path.rpartition(".")
    return (resolve(f"{module}:{owners}") if owners else sys.modules[module]), name


def here(owner: object, name: str) -> Any:
    """Return what stands in `owner` under `name`, unbound; what it inherits where that is nothing."""
    own = vars(owner)
    return own[name] if name in own else getattr(owner, name)


def probe_of(function: object, name: str) -> Probe | None:
    """Return the probe of instrumentor `name` somewhere in `function`'s chain of wrappers."""
    seen = 0
    current: Any = getattr(function, "__func__", function)
    while current is not None and seen < 32:
        probe = getattr(current, "__costinsights__", None)
        if isinstance(probe, Probe) and probe.name == name:
            return probe
        current = getattr(current, "__wrapped__", None)
        seen += 1
    return None
