"""The usual start of a job, written out: one run, whose end is asked for later.

`costinsights.jobs` says what a start is and does. This does the same for those that are nearly all,
in one piece: a program that has just waited for a vendor finds nothing of ours in the processor's
caches, and then each function and each object that is touched counts. The span of such a run is
made when something is heard of it (`Pending.span`). Whatever turns out to be out of the ordinary
goes the general way.
"""

from __future__ import annotations

from sys import modules
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any
from weakref import ref

import msgspec

from costinsights import surroundings
from costinsights.attribution import MAX_UNTOLD, add_up, innermost, root, tell, untold
from costinsights.guard import busy, swallow
from costinsights.jobs import MOST_PLACES, Asked, One, Operation, Place, Start
from costinsights.ledger.lines import PARTIAL
from costinsights.quick import entry
from costinsights.surroundings import is_suppressed, surrounding, traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costinsights.attribution import Scope
    from costinsights.jobs import Watch
    from costinsights.patching import Probe
    from costinsights.recorder import Recorder, References, Target
    from costinsights.span import CostSpan

_NO_STATEMENT = (None, None)


class Pending(msgspec.Struct):
    """A run that was started in the usual way, and of which nothing has been heard yet."""

    recorder: Recorder
    probe: Probe
    target: Target
    scope: Scope
    refers: References
    parent: str | None
    started_at: int
    """Wall clock, ns since the epoch; the other two are by the monotonic clock."""
    started: int
    ended: int
    rows: int | None
    extra: dict[str, Any]
    """What its entry says beside the usual, as `CostSpan.extra` has it."""
    number: int = 0

    def span(self) -> CostSpan:
        """Return the span as the general way would have left it."""
        refers = self.refers
        span = self.recorder.late(self.probe, self.target, (), {}, self.parent, self.started_at)
        span.clock(self.started, self.ended, 0)
        span.args = span.kwargs = None
        span.number, span.scope, span.refers = self.number, self.scope, refers
        span.attribution, span.definition = refers.who, refers.definitions[2]
        span.rows, span.extra = self.rows, self.extra
        span.partial = span.rare = True
        span.counted = 0
        return span


class Route(msgspec.Struct):
    """Where starts go, which need not be found out again."""

    operation: Operation
    start: Start
    place: Place
    target: Target


class Routes(msgspec.Struct):
    """The routes of a client's starts by one name, by what their requests say in `Start.by`."""

    client: ref[Any]
    by: str
    known: dict[object, Route]


def one_of(
    start: Start, request: Any, answer: Any
) -> tuple[str, str | None, Mapping[str, int | float | str] | None, str, int | None] | None:
    """Return a start's one run: its id, operation, meters, what its id is unique in, and rows.

    None where there are several, or where the general way has something to say.
    """
    reads = start.runs
    try:
        if isinstance(reads, One):
            id_ = answer.get(reads.id)
            meters = None if reads.meters is None else reads.meters(request)
            return (id_, reads.operation, meters, "", None) if isinstance(id_, str) else None
        (run,) = reads(request, answer)
    except Exception:  # noqa: BLE001  the general way comes to it as well
        return None
    if run.text is not None or not isinstance(run.id, str):
        return None
    return run.id, run.operation, run.meters, run.within, run.rows


def starting_wrapper(
    function: Callable[..., Any],
    probe: Probe,
    general: Callable[..., Any],
    names: frozenset[str],
) -> Callable[..., Any]:
    """Return the wrapper that records usual starts, and leaves all other calls to `general`.

    Calls are of a client, a name and a request; a start's name is one of `names`.
    """
    hook, target_name = probe.hook, probe.hook.target
    instrumentor: Any = probe.instrumentor
    operation_of: Callable[..., Asked | None] = instrumentor.operation
    held = busy.get

    def route_of(watch: Watch, args: tuple[Any, ...]) -> Route | None:
        asked = operation_of(hook, args, {})
        start = None if asked is None else asked.operation.start
        if asked is None or start is None or asked.operation.states is not None:
            return None
        if start.placed is not None:
            return None
        where = start.place(asked.client, asked.request)
        known = watch.recorder.targets.get(id(where))
        if known is None or known[0]() is not where or known[1].capacity is not None:
            return None  # of a capacity a run takes its share until it has ended
        route = Route(asked.operation, start, where, known[1])
        if start.by is not None:
            client, name, request = args
            if len(watch.routes) >= MOST_PLACES:
                watch.routes.clear()
            routes = watch.routes.get((id(client), name))
            if routes is None or routes.client() is not client or len(routes.known) >= MOST_PLACES:
                routes = watch.routes[id(client), name] = Routes(ref(client), start.by, {})
            routes.known[request.get(start.by)] = route
        return route

    def call(*args: Any, **kwargs: Any) -> Any:
        # What stands before the recorder for clients that start jobs.
        watch: Watch | None = probe.recorder  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        if watch is None:
            return function(*args, **kwargs)
        route: Route | None = None
        client = request = parent = text = None
        try:
            client, name, request = args
            if name in names and watch.plain and held() is None:
                context = (surroundings.get_current or surrounding)()
                if not (context and is_suppressed(context)):
                    known = watch.routes.get((id(client), name))
                    if known is not None and known.client() is client:
                        route = known.known.get(request.get(known.by))
                    if route is None:
                        route = route_of(watch, args)
                    if route is not None and route.start.text is not None:
                        text = route.start.text(request)
                    if context:
                        parent = traceparent(context)
        except Exception:  # noqa: BLE001  the general way comes to it as well, and says so
            route = None
        if route is None or kwargs:
            return general(*args, **kwargs)
        target, start = route.target, route.start
        started_at = time_ns()
        started = perf_counter_ns()
        try:
            answer = function(*args, **kwargs)
        except BaseException as error:
            ended = perf_counter_ns()
            try:
                asked = Asked(route.operation, client, request)
                given = (route.place, text, (asked, args, kwargs))
                span = watch.recorder.late(probe, target, given, {}, parent, started_at)
                span.clock(started, ended, 0)
                watch.recorder.end(span, None, error)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(target_name, ours)
            raise
        ended = perf_counter_ns()
        try:
            recorder = watch.recorder
            found: Any = _NO_STATEMENT
            if text is not None:
                found = target.texts.get(text) if text.__class__ is str else None
            if (
                found is not None
                and (text is None or not found[0].comment)
                and len(modules) == recorder.without_orchestrator
            ):
                scope = innermost() or root
                refers = scope.resolved.get((target, found[1]))
                run = None if refers is None else one_of(start, request, answer)
                if refers is not None and run is not None:
                    id_, word, used, within, rows = run
                    words: dict[str, Any] = {"i": id_}
                    if word is not None:
                        words["o"] = word
                    if used:
                        words["u"] = dict(used)
                    operation = route.operation
                    key = operation.system, within, id_
                    pending = Pending(
                        recorder,
                        probe,
                        target,
                        scope,
                        refers,
                        parent,
                        started_at,
                        started,
                        ended,
                        rows,
                        words,
                    )
                    runs = watch.runs
                    if runs.writer is not recorder.writer:  # we are a child that was forked
                        runs = watch.known()
                    if not runs.add(key, pending):
                        return answer  # one that was started before
                    pending.number = number = next(recorder.calls)
                    more = PARTIAL
                    if parent is not None:
                        more += b',"x":"%b"' % parent.encode()
                    line = entry(
                        number,
                        started_at,
                        ended - started,
                        refers.text,
                        rows,
                        0,
                        None,
                        words,
                        more,
                    )
                    recorder.writer.append(line, refers, refers.definitions)
                    tell((scope, 1, target.currency, 0))
                    if len(untold) > MAX_UNTOLD:
                        add_up()
                    if operation.follow is not None and runs.follows is not False:
                        runs.follow(key, operation.follow, client, pending, watch)
                    return answer
            asked = Asked(route.operation, client, request)
            given = (route.place, text, (asked, args, kwargs))
            span = recorder.late(probe, target, given, {}, parent, started_at)
            span.clock(started, ended, 0)
            watch.over(probe, asked, span, answer)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(target_name, ours)
        return answer

    return call
