"""Puts wrappers on the callables of client libraries, in place, and takes them off again.

`wrap` makes one wrapper a kind of callable; they differ only in how the user's call is made, and
share one body in `Probe`. Together with `costinsights.guard` this is the only place with a
``try`` around users' calls: what the driver returns or raises passes through untouched.
"""

from __future__ import annotations

import sys
from functools import update_wrapper
from operator import attrgetter
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from costinsights.guard import SUPPRESSED, busy, free, swallow
from costinsights.rows import fetch_wrapper
from costinsights.unlocked import unlocked
from costinsights.voices import as_caller, pass_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.factories import Makes
    from costinsights.instrumentor import DBAPIInstrumentor
    from costinsights.recorder import Recorder
    from costinsights.span import CostSpan

Kind = Literal[
    "call",
    "async",
    "generator",
    "async_generator",
    "context",
    "async_context",
    "factory",
    "connect",
]
Fetch = Literal[
    "one", "many", "all", "next", "page", "set", "close", "frame", "part", "arrival", "waiting"
]


class Hook(NamedTuple):
    """One callable of a client library, and what it means when it is called.

    ``target`` is ``"module:Class.method"`` or ``"module:function"``. The other fields say where
    to look: ``statement`` names the argument with the query (its position counts the instance as
    0) or is None where there is none; ``batch`` likewise the sequence of parameter sets of an
    ``executemany``; ``operation`` replaces the operation that the text would give; ``lazy`` says
    that rows are still to come from the server, or from the engine, when the call returns;
    ``fetch`` marks a method that brings such rows, or that ends them: "page" is told how many, None
    for all; "set" goes on to the next result of the same call; "part" works on the call and brings
    no rows. ``deferred`` says that the
    call may return before the server has answered; a method of fetch "arrival" is then called with
    each answer, and one of fetch "waiting" waits for them.
    """

    target: str
    kind: Kind = "call"
    statement: tuple[int, str] | None = (1, "query")
    batch: tuple[int, str] | None = None
    operation: str | None = None
    prefix: str = ""
    """What the library puts before the argument to make a statement of it, such as ``"CALL "``."""
    rows: Callable[[Any, Any], int | None] | None = None
    """Counts the rows, from the instance and what came back, where `rowcount` is not the answer."""
    lazy: bool = False
    deferred: bool = False
    fetch: Fetch | None = None
    of: str = ""
    """With `fetch`: the dotted path from the instance to the cursor that the call was made on."""
    makes: Makes | None = None
    """With kind "factory": what the callable makes. See `costinsights.factories`."""
    leaf: bool = False
    """The callable calls no other hooked one, so nothing need be remembered while it runs."""
    as_caller: Callable[[tuple[Any, ...], dict[str, Any]], bool] | None = None
    """Tells of a call whether it asks the frame that makes it, which must be the program's."""
    instance: Callable[[dict[str, Any]], Any] | None = None
    """Of a module's function: gives, from its keywords, the object whose method it stands for."""
    prepares: bool = False
    """Rows are read from what it returns; or that has yet to be run, by a method that `begins`."""
    begins: bool = False
    """A fetch that is itself the call, unless it goes on with one."""
    optional: bool = False
    """The callable is not in every supported version of the library."""


class Probe:
    """A hook at work. With `recorder` None its wrapper only calls through."""

    __slots__ = (
        "batch",
        "begins",
        "connection_of",
        "counts_rows",
        "deferred",
        "follows",
        "hook",
        "instrumentor",
        "last_statement",
        "lazy",
        "name",
        "of",
        "operation",
        "plain",
        "position",
        "prefix",
        "prepares",
        "recorder",
        "rows",
        "statement",
    )

    def __init__(self, hook: Hook, instrumentor: DBAPIInstrumentor) -> None:
        self.hook = hook
        self.instrumentor = instrumentor
        self.name = instrumentor.name
        # The recorder reads these at each call, and a slot is the quickest to read.
        self.connection_of = instrumentor.connection_of
        self.counts_rows = instrumentor.counts_rows
        self.follows = instrumentor.follows
        self.last_statement = instrumentor.last_statement
        self.statement, self.batch = hook.statement, hook.batch
        self.operation, self.lazy, self.prefix = hook.operation, hook.lazy, hook.prefix
        # Whether the argument is the statement, and all that is said of it.
        self.plain = hook.statement is not None and not hook.prefix and hook.operation is None
        self.position = hook.statement[0] if hook.statement is not None else 0
        self.rows, self.deferred = hook.rows, hook.deferred
        self.prepares, self.begins = hook.prepares, hook.begins
        self.of = attrgetter(hook.of) if hook.of else None
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
            return recorder.opened_by(args[0] if self.of is None else self.of(args[0]))
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)
            return None

    def fetched(
        self,
        span: CostSpan,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: object,
        error: BaseException | None = None,
    ) -> None:
        """Count what a fetch brought, and complete the span when it was the last."""
        try:
            span.recorder.fetched(span, self.hook.fetch, args, kwargs, result, error)
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

    def lend(self, span: CostSpan | None) -> None:
        """Let the other methods of the cursor's work run the span's clock, until `end`."""
        if span is None:
            return
        try:
            span.recorder.lend(span)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)

    def arrived(self, args: tuple[Any, ...], error: BaseException | None = None) -> None:
        """Hand an answer, or the error that it became, to the call that waits for it."""
        try:
            if self.recorder is not None:
                self.recorder.owed.arrived(self, args[0], args[1], args[2], error)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)

    def waits(self, source: object) -> None:
        """The driver begins to wait for answers; the clock of the call that is next runs."""
        try:
            if self.recorder is not None:
                self.recorder.owed.waits(self, source)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(self.hook.target, ours)

    def waited(self, source: object, error: BaseException | None = None) -> None:
        """The driver waits no more."""
        try:
            if self.recorder is not None:
                self.recorder.owed.waited(source, error)
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
    hook = probe.hook
    make: Callable[[Callable[..., Any], Probe], Callable[..., Any]]
    inner = function if hook.as_caller is None else as_caller(function, hook.as_caller)
    if hook.instance is not None:
        inner = _without_instance(inner)
    if hook.kind == "factory":
        from costinsights.factories import factory_wrapper

        make = factory_wrapper
    elif hook.kind == "connect":
        make = _connect_wrapper
    elif hook.begins:
        make = _beginning_wrapper
    elif hook.fetch is not None and hook.leaf:
        make = fetch_wrapper
    elif hook.kind == "call" and hook.fetch is None:
        make = _statement_wrapper
    elif hook.kind == "call" and hook.fetch != "arrival":
        make = _fetch_wrapper
    elif hook.kind == "async":
        from costinsights.awaited import call_wrapper
        from costinsights.awaited import fetch_wrapper as async_fetch_wrapper

        make = call_wrapper if hook.fetch is None else async_fetch_wrapper
    else:
        from costinsights.prolonged import wrapper_of

        make = wrapper_of(hook)
    wrapper = make(inner, probe)
    if hook.instance is not None:
        wrapper = _with_instance(wrapper, function, probe, hook.instance)
    wrapper = update_wrapper(wrapper, function)
    pass_over(wrapper)
    wrapper.__costinsights__ = probe  # type: ignore[attr-defined]
    return wrapper


def _call_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    end, tagged, name = probe.end, probe.tagged, probe.name
    held, hold, release = busy.get, busy.set, busy.reset

    target, leaf = probe.hook.target, probe.hook.leaf

    # Written out, where the other kinds call `begin` and `end`: many calls come this way.
    def call(*args: Any, **kwargs: Any) -> Any:
        recorder = probe.recorder
        if recorder is None or (other := held()) is name or other is SUPPRESSED:
            return function(*args, **kwargs)
        token = None if leaf else hold(name)
        try:
            try:
                span = recorder.begin(probe, args, kwargs)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(target, ours)
                span = None
        except BaseException:  # a signal handler's: the call is not made
            if token is not None:
                release(token)
            raise
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


def _statement_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    general = _call_wrapper(function, probe)
    pass_over(general)
    return probe.instrumentor.shortened(function, probe, general)


def _fetch_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    name, held, hold = probe.name, busy.get, busy.set

    def fetch(*args: Any, **kwargs: Any) -> Any:
        span = probe.opened(args)
        if span is None or (other := held()) is name or other is SUPPRESSED:
            return function(*args, **kwargs)
        token = hold(name)
        probe.resume(span)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            free(token)
            probe.fetched(span, args, kwargs, None, error)
            raise
        free(token)
        probe.fetched(span, args, kwargs, result)
        return result

    return fetch


def _beginning_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    call, fetch = _call_wrapper(function, probe), _fetch_wrapper(function, probe)

    def begin(*args: Any, **kwargs: Any) -> Any:
        return (call if probe.opened(args) is None else fetch)(*args, **kwargs)

    return begin


def _with_instance(
    wrapper: Callable[..., Any],
    function: Callable[..., Any],
    probe: Probe,
    instance: Callable[[dict[str, Any]], Any],
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if probe.recorder is None:
            return function(*args, **kwargs)
        try:
            found = instance(kwargs)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(probe.hook.target, ours)
            return function(*args, **kwargs)
        return wrapper(found, *args, **kwargs)

    return call


def _without_instance(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(_: object, /, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def _connect_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    def connect(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = probe.tagged(args, kwargs)
        result = function(*args, **kwargs)
        if probe.recorder is not None:
            try:
                probe.instrumentor.connected(args, kwargs, result)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(probe.hook.target, ours)
        return result

    return connect


_REMADE: dict[type, Callable[[Any], Any]] = {
    staticmethod: staticmethod,
    classmethod: classmethod,
}


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
        with unlocked(owner):
            setattr(owner, self._name, self._placed)

    def _wrapped(self, original: Any) -> Any:
        remake = _REMADE.get(original.__class__)
        if remake is not None:
            return remake(wrap(original.__func__, self.probe))
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
        with unlocked(self._owner):
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
