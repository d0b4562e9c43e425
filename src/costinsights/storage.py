"""Operations on object storage: many small calls, added up for at most a second before they are an entry.

An instrumentor of such a client says what a call is (`asked`) and what it turned out to be
(`counted`); who it is for, its price, and that nothing of it is lost when the process is killed, is
done here and in `costinsights.tally`::

    class AcmeInstrumentor(StorageInstrumentor):
        name = "acme_storage"
        system = "acme.storage"
        driver = "acme.storage"
        supports = ("1.0", "2")
        hooks = (
            Hook("acme.storage:Client.request", leaf=True),
            Hook("acme.storage:AsyncClient.request", kind="async"),
            Hook("acme.storage:Body.read", kind="connect"),
        )

        def asked(self, hook, args, kwargs):
            return CLASSES.get(args[1])                 # None: no operation, and left alone

        def counted(self, asked, args, kwargs, result, error):
            kind = Kind(self.system, f"{asked}_requests", asked.upper(), bucket=args[2])
            return StorageCall(kind, sent=len(args[3]), failed=error is not None)

Calls of one `Kind`, and for one attribution, are added up: requests (those that are billed: also
those that were tried again, as far as the provider bills them), bytes, errors, retries, calls, and
the time in the client.

A body that is streamed is counted as it is read. `counted` then begins with what is known, and
keeps what adds to it for as long as the body lives, never on the body itself::

            self.streams.follow(result.body, self.adder(kind))

and a hook of kind "connect" on the body's `read` tells of each part; it may be an asynchronous one::

        def connected(self, args, kwargs, result):
            self.streams.read(args[0], len(result))

What has no call to hang it on is added with ``self.adder(kind).add(requests=1, sent=…)``; `adder`
is None where we are switched off, or told to be silent.
"""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast
from weakref import ref

import msgspec

from costinsights import surroundings
from costinsights.guard import SUPPRESSED, busy, swallow
from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.surroundings import is_suppressed, surrounding

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar, Token

    from costinsights.attribution import Scope
    from costinsights.patching import Probe
    from costinsights.recorder import Recorder
    from costinsights.tally import Counter

    Asked = Callable[[Hook, tuple[Any, ...], dict[str, Any]], Any]
    Counted = Callable[
        [Any, tuple[Any, ...], dict[str, Any], Any, BaseException | None], "StorageCall | None"
    ]

__all__ = ["Adder", "Counting", "Hook", "Kind", "StorageCall", "StorageInstrumentor", "Streams"]


class Kind(NamedTuple):
    """What calls have in common that are added up."""

    system: str
    """The price book's key: ``aws.s3``."""
    meter: str
    """The price book's meter of the requests: ``tier1_requests``."""
    operation: str
    """What reports show as the operation: the class that is billed, ``TIER1``."""
    bucket: str | None
    """The bucket, container or file system; None where a call is about none."""
    region: str | None = None
    """As the price book names it."""
    address: str | None = None
    """The host that requests go to; where there is an account, it is in its name."""
    port: int | None = None
    words: tuple[tuple[str, str], ...] = ()
    """What else sets the price, in the price book's words, and stands among the usage:
    ``(("storage_class", "STANDARD_IA"),)``."""
    retrieval: str = ""
    """The price book's meter of bytes that are read, where reading is billed by them as well."""
    unpriced: str = ""
    """Why such calls have no price, where something that sets it cannot be known."""


class StorageCall(msgspec.Struct, frozen=True):
    """One call of the client, when it has returned."""

    kind: Kind
    requests: int = 1
    """Requests that are billed."""
    sent: int = 0
    """Bytes of the request's body."""
    received: int = 0
    """Bytes of the answer's body, as far as it has been read."""
    retries: int = 0
    """Requests after the first one, billed or not."""
    failed: bool = False
    body: object = None
    """What is still to be read of the answer: that is added when it is. See `Streams`."""
    total: Callable[[], int] | None = None
    """Tells how much of `body` was read in all."""


class Adder:
    """Adds to the calls of one kind, for who was at work when it was made; in any thread."""

    __slots__ = ("_counter", "_scope")

    def __init__(self, counter: Counter, scope: Scope) -> None:
        self._counter = counter
        self._scope = scope

    def add(
        self,
        *,
        requests: int = 0,
        sent: int = 0,
        received: int = 0,
        retries: int = 0,
        errors: int = 0,
    ) -> None:
        """Add; it is on disk when this returns, and nothing of ours is raised."""
        try:
            self._counter.add(
                self._scope, 0, requests, sent, received, retries, errors, time_ns(), 0
            )
        except Exception as error:  # noqa: BLE001  ours must not reach the program
            swallow("a storage operation", error)


class Streams:
    """Bodies that are still being read, each with what adds to the call that has brought it."""

    def __init__(self) -> None:
        self._followed: dict[int, tuple[ref[Any], Adder, list[int], Callable[[], int] | None]] = {}

    def follow(self, body: object, adder: Adder, total: Callable[[], int] | None = None) -> None:
        """Follow a body until it dies; `total` tells, then, how much of it was read in all.

        What `total` says is more than `read` was told: it was read by some other way.
        """
        key, read = id(body), [0]

        def gone(_: object) -> None:
            self._followed.pop(key, None)
            try:
                missed = 0 if total is None else total() - read[0]
            except Exception:  # noqa: BLE001  a stream that is closed may have nothing to say
                return
            if missed > 0:
                adder.add(received=missed)

        try:
            self._followed[key] = ref(body, gone), adder, read, total
        except TypeError:
            return  # one that cannot be followed

    def read(self, body: object, count: int | None = None) -> None:
        """Add what was just read of a body, `count` or what its `total` says; nothing of others."""
        known = self._followed.get(id(body))
        if known is None or known[0]() is not body:
            return
        _, adder, read, total = known
        if count is None:
            count = 0 if total is None else total() - read[0]
        if count > 0:
            read[0] += count
            adder.add(received=count)


class Under:
    """One call under way."""

    __slots__ = ("args", "asked", "kwargs", "probe", "recorder", "started", "started_at", "token")

    token: Token[Any] | None

    def __init__(
        self,
        recorder: Counting,
        probe: Probe,
        asked: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        # A hook's wrapper hands the end of a call to `recorder` of what `begin` has given.
        self.recorder = recorder
        self.probe = probe
        self.asked = asked
        self.args = args
        self.kwargs = kwargs
        self.started_at = time_ns()
        self.started = perf_counter_ns()


class Counting:
    """Stands before the recorder, and counts a client's calls in its tally.

    What `asked` has returned stands in `under` while the call is made, for hooks of what the client
    calls: that is where it can be seen how often a request was tried.
    """

    tagger = None

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        asked: Asked,
        counted: Counted,
        under: ContextVar[Any] | None = None,
        streams: Streams | None = None,
    ) -> None:
        self.recorder = recorder
        self.labels = recorder.labels
        self.counting = self  # what `counting_wrapper` asks of whatever stands before the recorder
        self.opened: dict[int, Any] = {}  # what a hook of a fetch asks for: there is none here
        self._name = name
        self.asked = asked
        self.under = under
        self._counted = counted
        self._streams = streams or Streams()
        # Now, and not with the first call: a child that is forked while another thread imports
        # would wait for ever for what it needs.
        recorder.tallied()

    def begin(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Under | None:
        """Look at a call before it is made; None where it is not to be counted."""
        asked = self.asked(probe.hook, args, kwargs)
        if asked is None or _silent():
            return None
        token = None if self.under is None else self.under.set(asked)
        call = Under(self, probe, asked, args, kwargs)
        call.token = token
        return call

    def end(self, call: Under, result: Any, error: BaseException | None) -> None:
        """Count what came of it: it is on disk when this returns."""
        duration = perf_counter_ns() - call.started
        if call.token is not None and self.under is not None:
            try:
                self.under.reset(call.token)
            except ValueError:  # a coroutine that is closed in another context
                call.token = None
        self.over(call.asked, call.args, call.kwargs, result, error, call.started_at, duration)

    def over(
        self,
        asked: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        error: BaseException | None,
        started_at: int,
        duration: int,
    ) -> None:
        """Count a call that is over."""
        found = self._counted(asked, args, kwargs, result, error)
        if found is not None:
            tally = self.recorder.tally or self.recorder.tallied()
            counter, scope = tally.counter(self._name, found.kind)
            if found.body is not None:
                self._streams.follow(found.body, Adder(counter, scope), found.total)
            counter.add(
                scope,
                1,
                found.requests,
                found.sent,
                found.received,
                found.retries,
                found.failed,
                started_at,
                duration,
            )

    def adder(self, kind: Kind) -> Adder | None:
        """Return what adds to calls of a kind, for who is at work now; None: we are to be silent."""
        if busy.get() is SUPPRESSED or _silent():
            return None
        return Adder(*self.recorder.tallied().counter(self._name, kind))


def counting_wrapper(
    function: Callable[..., Any],
    probe: Probe,
    general: Callable[..., Any],
    others: frozenset[object] = frozenset(),
) -> Callable[..., Any]:
    """Return the wrapper that counts operations, and leaves all other calls to `general`.

    It is the general way, written out: of calls that are many each step counts. What stands before
    the recorder has what counts as its `counting`. Calls with one of `others` behind the instance
    are known by that to be no operations.
    """
    hook, target_name, leaf, name = probe.hook, probe.hook.target, probe.hook.leaf, probe.name
    held, hold, release = busy.get, busy.set, busy.reset

    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) > 1 and args[1].__class__ is str and args[1] in others:
            return general(*args, **kwargs)
        before: Any = probe.recorder
        if before is None or (other := held()) is name or other is SUPPRESSED:
            return function(*args, **kwargs)
        counting: Any = None
        under = asked = None
        try:
            counting = before.counting
            asked = counting.asked(hook, args, kwargs)
            if asked is not None:
                context = (surroundings.get_current or surrounding)()
                if context and is_suppressed(context):
                    return function(*args, **kwargs)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(target_name, ours)
        if asked is None or counting is None:
            return general(*args, **kwargs)
        under = counting.under
        token = None if leaf else hold(name)
        within = None if under is None else under.set(asked)
        started_at = time_ns()
        started = perf_counter_ns()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            duration = perf_counter_ns() - started
            if within is not None and under is not None:
                under.reset(within)
            if token is not None:
                release(token)
            try:
                counting.over(asked, args, kwargs, None, error, started_at, duration)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(target_name, ours)
            raise
        duration = perf_counter_ns() - started
        if within is not None and under is not None:
            under.reset(within)
        if token is not None:
            release(token)
        try:
            counting.over(asked, args, kwargs, result, None, started_at, duration)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(target_name, ours)
        return result

    return call


def after_wrapper(
    function: Callable[..., Any], probe: Probe, after: Callable[[tuple[Any, ...], Any], None]
) -> Callable[..., Any]:
    """Return the wrapper of what is called often and is no operation: `after` looks at what came of it.

    It gets the arguments and the result. A hook of kind "connect" does the same, in more steps.
    """
    target_name = probe.hook.target

    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if probe.recorder is not None:
            try:
                after(args, result)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(target_name, ours)
        return result

    return call


def under_wrapper(
    function: Callable[..., Any],
    probe: Probe,
    under: ContextVar[Any],
    after: Callable[[Any, tuple[Any, ...], Any], None],
) -> Callable[..., Any]:
    """Return the wrapper of what calls consist of, and others than ours do: `after` looks at it.

    It gets what stands in `under`, the arguments and the result; not asked where nothing does.
    """
    target_name, found_in = probe.hook.target, under.get

    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        asked = found_in()
        if asked is not None and probe.recorder is not None:
            try:
                after(asked, args, result)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(target_name, ours)
        return result

    return call


def _silent() -> bool:
    """Tell whether we are inside somebody's own "do not trace me"."""
    context = surrounding()
    return context is not None and is_suppressed(context)


class StorageInstrumentor(DBAPIInstrumentor):
    """Wraps a client of object storage."""

    connection = ""
    usual = False
    under: ClassVar[ContextVar[Any] | None] = None
    """Where what `asked` returned stands while a call is made: see `Counting`."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = Streams()
        self._counting: Counting | None = None

    def asked(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return something that stands for the operation; None, quickly, where it is none."""
        raise NotImplementedError

    def counted(
        self,
        asked: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        error: BaseException | None,
    ) -> StorageCall | None:
        """Return what a call turned out to be; None where nothing is to be counted."""
        raise NotImplementedError

    def adder(self, kind: Kind) -> Adder | None:
        """See `Counting.adder`; None as well where we are switched off."""
        return None if self._counting is None else self._counting.adder(kind)

    # -- what the base makes of it --------------------------------------------------------------

    def shortened(
        self, function: Callable[..., Any], probe: Probe, general: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return the wrapper of calls that need not be awaited."""
        return counting_wrapper(function, probe, general)

    def instrument(self, recorder: Callable[[], Recorder], *, explicit: bool = False) -> None:
        """Hook the client; its calls go to the tally."""

        def counting() -> Recorder:
            # A hook's wrapper asks its recorder for `begin`, `end` and `tagger` only.
            return cast("Recorder", self._counting_for(recorder()))

        super().instrument(counting, explicit=explicit)

    def _counting_for(self, recorder: Recorder) -> Counting:
        if self._counting is None or self._counting.recorder is not recorder:
            self._counting = Counting(
                recorder, self.name, self.asked, self.counted, self.under, self.streams
            )
        return self._counting

    def uninstrument(self) -> None:
        """Put everything back."""
        super().uninstrument()
        self._counting = None
