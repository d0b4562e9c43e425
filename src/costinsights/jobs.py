"""Jobs: one call starts the work, the vendor does it, and other calls tell how it ended.

The start writes a *pending* charge at once: the vendor's own id of the run, who it is for, what the
request says, `partial`, and no amount. When the program itself asks how the run is getting on, we
read the answer that passes by, which is no request of ours, and complete the same charge with the
figures that are final. A program that never asks, or that ends first, leaves the pending charge in
the ledger, and `costinsights settle` finds the run by its id. In between, `costinsights.following`
asks in the background for runs that the program has not asked for in a while, where an operation
says how (`Follow`).

An instrumentor of such a client says in a table what its operations mean::

    class AcmeInstrumentor(JobInstrumentor):
        name = "acme"
        system = "acme.jobs"
        driver = "acme"
        supports = ("1.0", "2")
        hooks = (Hook("acme.client:Client.request", leaf=True),)
        meters = ("worker_seconds",)

        def operation(self, hook, args, kwargs):
            found = OPERATIONS.get(args[1])                       # by what is asked for
            return None if found is None else Asked(found, args[0], args[2])


    OPERATIONS = {
        "run": Operation("acme.jobs", Start(where, runs), follow=Follow(ours, ask, batch=50)),
        "status": Operation("acme.jobs", states=states),          # `states` reads how it is
    }   # `runs` reads the ids of what was started
"""

from __future__ import annotations

from _thread import RLock
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import msgspec

from costinsights.guard import busy, swallow
from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage
from costinsights.span import CostSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from datetime import datetime

    from costinsights.patching import Probe
    from costinsights.recorder import Recorder
    from costinsights.records import Resource
    from costinsights.starts import Pending, Routes
    from costinsights.tagging import Tagger

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]
    Key = tuple[str, str, str | None]
    """A run: its system, what its id is unique in, its id."""

MOST_RUNS = 8192
"""How many runs are remembered, open ones and ended ones. The charge of one that is forgotten stays
pending, until settlement."""
MOST_PLACES = 1024

__all__ = [
    "Asked",
    "Follow",
    "Hook",
    "JobInstrumentor",
    "Operation",
    "Place",
    "Run",
    "Start",
    "State",
    "Waiting",
    "place",
]


class Place:
    """Where runs go and by what they are priced; `place` makes them, one object for each place."""

    __slots__ = (
        "__weakref__",
        "address",
        "dimensions",
        "namespace",
        "port",
        "region",
        "service",
        "system",
    )

    def __init__(
        self,
        system: str,
        address: str | None,
        port: int | None,
        namespace: str | None,
        region: str | None,
        service: str | None,
        dimensions: tuple[tuple[str, str], ...],
    ) -> None:
        self.system = system
        self.address = address
        self.port = port
        self.namespace = namespace
        self.region = region
        self.service = service
        self.dimensions = dict(dimensions)


_places: dict[tuple[Any, ...], Place] = {}


def place(
    system: str,
    *,
    address: str | None = None,
    port: int | None = None,
    namespace: str | None = None,
    region: str | None = None,
    service: str | None = None,
    dimensions: tuple[tuple[str, str], ...] = (),
) -> Place:
    """Return the place: `namespace` is what shares a price there (a workgroup, a warehouse)."""
    key = (system, address, port, namespace, region, service, dimensions)
    found = _places.get(key)
    if found is None:
        if len(_places) >= MOST_PLACES:
            _places.clear()
        found = _places[key] = Place(*key)
    return found


class Run(msgspec.Struct, frozen=True):
    """One run that a call has started."""

    id: str | None
    """The vendor's id; None where it gives none: the charge is then complete at once."""
    text: str | None = None
    """The statement, where one call starts several; otherwise `Start.text` says."""
    operation: str | None = None
    """What is done, where no statement says it: ``LOAD``, ``JOB``."""
    meters: Mapping[str, int | float | str] | None = None
    """What the request says about its size."""
    within: str = ""
    """What the id is unique in, where that is not the system: a cluster, a project."""
    rows: int | None = None
    """Rows, where the answer to the start tells them."""


class State(NamedTuple):
    """How a run is, as an answer tells it that the program has asked for."""

    id: str
    done: bool
    """Whether it has ended, well or not; what is still under way is not written."""
    usage: Usage | None = None
    """Its final figures; None where this answer has none: the charge is left to settlement."""
    error: str | None = None
    """The vendor's word for an end that is not a good one, such as ``FAILED``; no message."""
    elapsed: int | None = None
    """Nanoseconds from its start to its end by the vendor's clock; None: until it was seen."""
    within: str = ""


class Waiting(NamedTuple):
    """A run whose end nobody has seen: what a question about it needs."""

    id: str
    """The vendor's id of the run."""
    within: str = ""
    """`Run.within`. Empty in settlement: there the id and the place have to do."""
    namespace: str | None = None
    """What its place says: the cluster, the application, the factory, the job."""
    region: str | None = None
    started_at: datetime | None = None
    """When it was started, by the program's clock, in UTC."""
    address: str | None = None
    """The host that the start was sent to."""
    service: str | None = None
    meters: Mapping[str, int | float | str] = {}
    """What is known of it already: what the request said about its size."""


def _let_be(client: Any) -> None:
    """Leave a client that needs no hanging up."""


class Follow(NamedTuple):
    """How to ask for runs that the program does not ask for. All of it is called in the background."""

    client: Callable[[Any], Any]
    """From the program's client: one of our own, with the same credentials and endpoint."""
    ask: Callable[[Any, Sequence[Waiting]], Iterable[State]]
    """From our client and runs that are open: how they are. One request, or the few it needs.

    A state that is not `State.done` and has `State.usage` is a figure of a run that goes on: its
    charge gets it now, and again. What is not known to the vendor (yet) is left out. Errors are
    for the client library to raise: one about a permission ends the asking at this place.
    """
    batch: int = 1
    """How many runs one `ask` takes at most."""
    close: Callable[[Any], None] = _let_be
    """Hangs our client up."""
    same: Callable[[Any], Hashable] = id
    """From the program's client: those with the same are asked through one client of ours."""
    requests: int = 1
    """How many requests one `ask` makes at most: so many are counted."""
    meter: str = ""
    """The price book's meter of such a request; empty where they are free."""


class One(msgspec.Struct, frozen=True):
    """Reads a call that starts one run, as `Start.runs`."""

    id: str
    """Where in the answer the vendor's id stands."""
    operation: str | None = None
    """`Run.operation`."""
    meters: Callable[[Any], Mapping[str, int | float | str] | None] | None = None
    """From the request: `Run.meters`."""

    def __call__(self, request: Any, answer: Any) -> tuple[Run]:
        """Return the run."""
        meters = None if self.meters is None else self.meters(request)
        return (Run(answer.get(self.id), None, self.operation, meters),)


class Start(NamedTuple):
    """How to read a call that starts runs. `request` is what `Asked` has."""

    place: Callable[[Any, Any], Place]
    """From the client and the request: where the runs go."""
    runs: Callable[[Any, Any], Iterable[Run]]
    """From the request and the answer: what was started."""
    text: Callable[[Any], str | None] | None = None
    """From the request: the statement."""
    rewrite: Callable[[tuple[Any, ...], dict[str, Any], str], Arguments] | None = None
    """Returns a call's arguments with another statement in it, for ``tagging="comment"``."""
    placed: Callable[[Any, Any, Any], Place] | None = None
    """From client, request and answer: where the runs went, where only the answer can tell."""
    by: str | None = None
    """The request's field that, with the client, says the place, where it is one that does."""


class Operation(NamedTuple):
    """What a call means: it starts runs, its answer tells of runs, or both."""

    system: str
    start: Start | None = None
    states: Callable[[Any, Any], Iterable[State]] | None = None
    """From the request and the answer: how the runs are. Of a start as well, where it may wait."""
    follow: Follow | None = None
    """Of a start: how to ask for its runs when the program does not."""


class Asked(msgspec.Struct, frozen=True):
    """A call that is about a job: what it means, by which client, with what request."""

    operation: Operation
    client: Any
    request: Any


class JobInstrumentor(DBAPIInstrumentor):
    """Wraps a client library whose calls start jobs and ask after them."""

    connection = ""
    usual = False  # a call is looked through first (`Watch`)

    def __init__(self) -> None:
        super().__init__()
        self.watcher: Watch | None = None
        """What its calls are looked through by, while it is switched on."""

    def operation(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        """Return what a call means; None, quickly, where it has to do with no job."""
        raise NotImplementedError

    def with_labels(
        self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> Arguments | None:
        """Return the arguments of a start with `words` in the vendor's own channel.

        Asked where `statement_tags` is set. The program's own tags stay, and so do its objects:
        what changes is a copy. None leaves the call as it is.
        """
        return None

    def starts(self, hook: Hook) -> frozenset[str]:
        """Return the names of what starts jobs, where calls are of a client, a name and a request.

        They then have a short way (`costinsights.starts`). Empty where calls of this hook are no
        such ones, or it is no leaf.
        """
        return frozenset()

    # -- what the base makes of it --------------------------------------------------------------

    def shortened(
        self, function: Callable[..., Any], probe: Probe, general: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return the wrapper of calls: `general`, or one with a short way for usual starts."""
        starts = self.starts(probe.hook)
        if not starts:
            return general
        from costinsights.starts import starting_wrapper  # with the recorder, and not before

        return starting_wrapper(function, probe, general, starts)

    def instrument(self, recorder: Callable[[], Recorder], *, explicit: bool = False) -> None:
        """Hook the client; its calls are looked through before they reach the recorder."""

        def watched() -> Recorder:
            # A hook's wrapper asks its recorder for `begin`, `end` and `tagger` only.
            return cast("Recorder", self._watching_over(recorder()))

        super().instrument(watched, explicit=explicit)

    def _watching_over(self, recorder: Recorder) -> Watch:
        if self.watcher is None or self.watcher.recorder is not recorder:
            self.watcher = self.watch(recorder)
        return self.watcher

    def watch(self, recorder: Recorder) -> Watch:
        """Return what looks through its calls."""
        return Watch(self, recorder)

    def uninstrument(self) -> None:
        """Put everything back, and forget the runs that are open: they stay pending."""
        super().uninstrument()
        self.watcher = None

    def resource(self, connection: Place) -> Resource:
        """Return where the run goes."""
        from costinsights.records import Resource

        return Resource(
            address=connection.address,
            port=connection.port,
            namespace=connection.namespace,
            service=connection.service,
            region=connection.region,
        )

    def system_of(self, connection: Place) -> str:
        """One client may speak to several systems."""
        return connection.system

    def region(self, connection: Place) -> str | None:
        """Return the region as the place has it."""
        return connection.region

    def dimensions(self, connection: Place) -> Mapping[str, str]:
        """Return what else sets the price."""
        return connection.dimensions

    def final(self, source: Usage) -> Usage | None:
        """Return the figures that came with the answer that the run has ended."""
        return source

    def with_tag(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> Arguments | None:
        """Tag a start; asked again of the span's own arguments, for the record."""
        asked, args, kwargs = args[_GIVEN]
        return self.with_labels(asked, args, kwargs, words)


# A call reaches the recorder as the statement of a place: (place, text, what was really called).
_GIVEN = 2


class Watch:
    """Stands before the recorder, and makes starts and ends of runs out of a client's calls."""

    def __init__(self, instrumentor: JobInstrumentor, recorder: Recorder) -> None:
        self.recorder = recorder
        self.labels = recorder.labels
        self.plain = recorder.plain
        self.runs = runs_of(recorder)
        self.routes: dict[tuple[int, str], Routes] = {}
        """Where starts have led to so far, by client and name."""
        self.tagger = None if recorder.tagger is None else Tags(instrumentor, recorder.tagger)
        self._instrumentor = instrumentor

    def begin(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Look at a call before it is made; None where it is about no job of ours."""
        instrumentor = self._instrumentor
        asked = instrumentor.operation(probe.hook, args, kwargs)
        if asked is None or busy.get() not in (None, instrumentor.name):
            return None  # the latter: what another instrumentor's call does is that call's
        start = asked.operation.start
        if start is None:
            return Call(self, probe, asked, None) if self.known().open else None
        where = start.place(asked.client, asked.request)
        text = None if start.text is None else start.text(asked.request)
        if text is not None and start.rewrite is None and self.tagger is not None:
            text = Fixed(text)
        given = (where, text, (asked, args, kwargs))
        span = self.recorder.begin(probe, given, {})
        return None if span is None else Call(self, probe, asked, span)

    def known(self) -> Runs:
        """Return the runs of this process: in a forked child none of its parent's."""
        if self.runs.writer is not self.recorder.writer:
            self.runs = runs_of(self.recorder)
        return self.runs

    def end(self, call: Call, answer: Any, error: BaseException | None) -> None:
        """Look at what came of it."""
        span, operation, request = call.span, call.asked.operation, call.asked.request
        if error is not None:
            if span is not None:  # nothing was started, or nobody was told what
                self.recorder.end(span, None, error)
            return
        read, system = operation.states, operation.system
        if operation.start is None or span is None:
            for state in () if read is None else read(request, answer):
                if _tells(state):
                    self.ends(system, state)
                else:
                    self.runs.heard((system, state.within, state.id))
            return
        ended: dict[tuple[str, str], State] = {}
        try:
            for state in () if read is None else read(request, answer):
                if _tells(state):
                    ended[state.within, state.id] = state
            runs = list(operation.start.runs(request, answer))
        except Exception as ours:  # noqa: BLE001  what was started is charged for all the same
            swallow(f"the answer to {call.probe.hook.target}", ours)
            runs = [Run(None)]
        self._starts(call, answer, runs, ended)
        for state in ended.values():
            self.ends(system, state)

    def over(self, probe: Probe, asked: Asked, span: CostSpan, answer: Any) -> None:
        """Look at what came of a start that turned out not to be a usual one."""
        self.end(Call(self, probe, asked, span), answer, None)

    def ends(self, system: str, state: State) -> None:
        """Complete the charge of a run that is open, if it is one."""
        with self.runs.lock:
            span = self.runs.take((system, state.within, state.id))
            if span is not None:
                self._finish(span, state)

    def goes_on(self, system: str, state: State) -> None:
        """Write what an open run has used so far."""
        with self.runs.lock:
            span = self.runs.span((system, state.within, state.id))
            if span is None or span.target.capacity is not None:
                return  # its share of a capacity is known at its end
            span.source, span.changed = state.usage, True
            self.recorder.complete(span, None, partial=True)
            span.done = False

    def _starts(
        self, call: Call, answer: Any, runs: Iterable[Run], ended: Mapping[tuple[str, str], State]
    ) -> None:
        """Write a charge for each run that the call has started."""
        spare, (where, text, really) = call.span, call.given
        start = call.asked.operation.start
        if start is not None and start.placed is not None and spare is not None:
            where, before = start.placed(call.asked.client, call.asked.request, answer), where
            if where is not before:
                spare = self._moved(spare, call.probe, (where, text, really))
        for run in runs:
            if spare is None:  # a further run of the same call
                spare = self.recorder.begin(call.probe, (where, run.text, really), {})
            if spare is None:
                return
            state = ended.get((run.within, run.id or ""))
            if self._start(call.asked, spare, run, state):
                spare = None
        if spare is not None:  # no run came of it, or one that was started before
            self.recorder.pause(spare)

    def _moved(self, span: CostSpan, probe: Probe, given: tuple[Any, ...]) -> CostSpan | None:
        """Return a span like this one, of another place."""
        self.recorder.pause(span)
        found = self.recorder.begin(probe, given, {})
        if found is not None:
            found.started_at, found.started, found.resumed = (
                span.started_at,
                span.started,
                span.started,
            )
        return found

    def _start(self, asked: Asked, span: CostSpan, run: Run, ended: State | None) -> bool:
        """Write the charge of a run; False where the vendor answered with a run we know."""
        key = (asked.operation.system, run.within, run.id)
        if run.id is not None and not self.known().add(key, None if ended is not None else span):
            return False
        if span.args is not None and run.text is not None:
            span.args = (span.args[0], run.text, span.args[_GIVEN])
        if run.id is not None:
            span.note("i", run.id)
        if run.operation is not None:
            span.note("o", run.operation)
        if run.meters:
            span.note("u", dict(run.meters))
        span.rows = run.rows
        if ended is not None:
            self._finish(span, ended)
            return True
        span.partial = span.rare = run.id is not None
        self.recorder.end(span, None, None)
        if span.partial and span.target.capacity is not None:
            self.recorder.resume(span)  # it takes its share of the capacity until it has ended
        if span.partial and asked.operation.follow is not None:
            self.runs.follow(key, asked.operation.follow, asked.client, span, self)
        return True

    def _finish(self, span: CostSpan, state: State) -> None:
        recorder, spent = self.recorder, span.duration
        if span.counted is None:
            recorder.pause(span)
        else:
            recorder.resume(span)
            recorder.pause(span)
            span.duration = spent  # what the client took; how long the run did is in the times
        if state.elapsed is not None:
            span.ended = max(span.started + state.elapsed, span.started + span.duration)
        if state.error is not None:
            span.note("e", (state.error, None))
        span.source = state.usage
        span.changed = True
        # Without figures it is still to be settled, whatever is known of its end.
        recorder.complete(span, None, partial=state.usage is None)


def _tells(state: State) -> bool:
    """Tell whether there is anything to write of a run."""
    return state.done and (state.usage is not None or state.error is not None)


class Fixed(str):
    """A statement that gets no comment: taggers change a plain `str` only, and say so of it."""

    __slots__ = ()


class Call:
    """One call under way that is about a job."""

    __slots__ = ("asked", "given", "probe", "recorder", "span")

    def __init__(self, watch: Watch, probe: Probe, asked: Asked, span: CostSpan | None) -> None:
        # A hook's wrapper hands the end of a call to `recorder` of what `begin` has given.
        self.recorder = watch
        self.probe = probe
        self.asked = asked
        self.span = span
        self.given: tuple[Any, ...] = (span and span.args) or ()


class Begun(NamedTuple):
    """A run that may have to be asked for in the background."""

    key: Key
    follow: Follow
    client: Any
    """The program's."""
    span: CostSpan | Pending
    watch: Watch


class Runs:
    """The runs of this process, by system and id: open ones with their span, ended ones without.

    Shared by all instrumentors of a recorder: whichever sees the end completes the charge. Those
    that ended are remembered because an idempotent start answers with them again.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.writer = recorder.writer
        self._ended = 0
        self._pause = recorder.pause
        self._known: dict[Key, CostSpan | Pending | None] = {}
        self._order: deque[Key] = deque()
        self.lock = RLock()
        """Held while a charge of an open run is written: for the time of a write to the disk."""
        self.begun: deque[Begun] = deque(maxlen=MOST_RUNS)
        """What is to be followed, for who does that (`costinsights.following`)."""
        self.asked: dict[Key, float] = {}
        """When the program has last asked for a run that is followed, in monotonic seconds."""
        self.follows: bool | None = None
        """Whether runs are followed; None until that is asked for the first time."""

    def follow(
        self, key: Key, follow: Follow, client: Any, span: CostSpan | Pending, watch: Watch
    ) -> None:
        """Hand a run to the background, where that is switched on."""
        if self.follows is None:
            from costinsights.runtime import active

            runtime = active()
            self.follows = runtime is not None and runtime.config.follow_jobs
        if self.follows:
            self.asked[key] = 0.0
            self.begun.append(Begun(key, follow, client, span, watch))

    def heard(self, key: Key) -> None:
        """Note that the program has asked for a run itself, and that it goes on."""
        if key in self.asked:
            self.asked[key] = monotonic()

    @property
    def open(self) -> int:
        """How many there are that nobody has seen the end of."""
        return len(self._known) - self._ended

    def is_open(self, key: Key) -> bool:
        """Tell whether nobody has seen the end of a run yet."""
        return self._known.get(key) is not None

    def span(self, key: Key) -> CostSpan | None:
        """Return the span of a run that is open. The caller holds `lock`."""
        found = self._known.get(key)
        if found is None or isinstance(found, CostSpan):
            return found
        span = self._known[key] = found.span()
        return span

    def add(self, key: Key, span: CostSpan | Pending | None) -> bool:
        """Remember a run; False where it is known."""
        if span is None:
            with self.lock:
                if key in self._known:
                    return False
                self._known[key] = None
                self._ended += 1
        elif self._known.setdefault(key, span) is not span:  # one step: nothing comes in between
            return False
        self._order.append(key)
        if len(self._known) > MOST_RUNS:
            self._forget()
        return True

    def _forget(self) -> None:
        """Forget the oldest run."""
        with self.lock:
            key = self._order.popleft()
            forgotten = self._known.pop(key)
            self._ended -= forgotten is None
            self.asked.pop(key, None)
        if isinstance(forgotten, CostSpan):
            self._pause(forgotten)

    def take(self, key: Key) -> CostSpan | None:
        """Return the span of an open run, once: from now on it has ended."""
        with self.lock:
            self.asked.pop(key, None)
            span = self.span(key)
            if span is not None:
                self._known[key] = None
                self._ended += 1
            return span


_runs: WeakKeyDictionary[Recorder, Runs] = WeakKeyDictionary()


def runs_known(recorder: Recorder) -> Runs | None:
    """Return the runs that a recorder has begun in this process; None where there are none."""
    found = _runs.get(recorder)
    return None if found is None or found.writer is not recorder.writer else found


def runs_of(recorder: Recorder) -> Runs:
    """Return the runs that a recorder has begun in this process."""
    found = _runs.get(recorder)
    if found is None or found.writer is not recorder.writer:
        found = _runs[recorder] = Runs(recorder)
    return found


class Tags:
    """Hands a start to the tagger as the statement that it is; all other calls pass."""

    def __init__(self, instrumentor: JobInstrumentor, tagger: Tagger) -> None:
        self.native = tagger.native
        self._instrumentor = instrumentor
        self._tagger = tagger

    def __call__(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments that the client is to get."""
        asked = self._instrumentor.operation(probe.hook, args, kwargs)
        start = None if asked is None else asked.operation.start
        if asked is None or start is None or busy.get() not in (None, probe.name):
            return args, kwargs
        text = None if start.text is None else start.text(asked.request)
        given: tuple[Any, ...] = (None, text, (asked, args, kwargs))
        changed, named = self._tagger(probe, given, {})
        if changed is given:
            return args, kwargs
        if self.native:
            return changed, named
        return (args, kwargs) if start.rewrite is None else start.rewrite(args, kwargs, changed[1])
