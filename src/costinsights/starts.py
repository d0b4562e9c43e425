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

import msgspec

from costinsights.attribution import MAX_UNTOLD, add_up, innermost, root, tell, untold
from costinsights.guard import busy, swallow
from costinsights.ledger.lines import PARTIAL
from costinsights.quick import details, entry
from costinsights.surroundings import is_suppressed, surrounding, traceparent

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.attribution import Scope
    from costinsights.jobs import Asked, Place, Start, Watch
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


def starting_wrapper(
    function: Callable[..., Any],
    probe: Probe,
    general: Callable[..., Any],
    position: int,
    names: frozenset[str],
) -> Callable[..., Any]:
    """Return the wrapper that records usual starts, and leaves all other calls to `general`.

    A start is a call with one of `names` at `position` of its arguments.
    """
    hook, target_name = probe.hook, probe.hook.target
    instrumentor: Any = probe.instrumentor
    operation_of: Callable[..., Asked | None] = instrumentor.operation
    held = busy.get

    def call(*args: Any, **kwargs: Any) -> Any:
        # What stands before the recorder for clients that start jobs.
        watch: Watch | None = probe.recorder  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        if watch is None:
            return function(*args, **kwargs)
        asked: Asked | None = None
        start: Start | None = None
        where: Place | None = None
        known = parent = text = None
        try:
            if (
                args[position] in names
                and watch.plain
                and held() is None
                and (asked := operation_of(hook, args, kwargs)) is not None
            ):
                start = asked.operation.start
                if start is not None and asked.operation.states is None:
                    context = surrounding()
                    if start.placed is None and (context is None or not is_suppressed(context)):
                        where = start.place(asked.client, asked.request)
                        if start.text is not None:
                            text = start.text(asked.request)
                        if context is not None:
                            parent = traceparent(context)
                        known = watch.recorder.targets.get(id(where))
        except Exception:  # noqa: BLE001  the general way comes to it as well, and says so
            known = None
        if known is None or asked is None or start is None or known[0]() is not where:
            return general(*args, **kwargs)
        target = known[1]
        if target.capacity is not None:  # a run takes its share of that until it has ended
            return general(*args, **kwargs)
        started_at = time_ns()
        started = perf_counter_ns()
        try:
            answer = function(*args, **kwargs)
        except BaseException as error:
            ended = perf_counter_ns()
            try:
                given = (where, text, (asked, args, kwargs))
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
                run = None
                if refers is not None:
                    try:
                        (run,) = start.runs(asked.request, answer)
                    except Exception:  # noqa: BLE001  several, or something the general way will say
                        run = None
                if refers is None or run is None or run.text is not None:
                    pass
                elif run.id.__class__ is str:
                    words: dict[str, Any] = {"i": run.id}
                    if run.operation is not None:
                        words["o"] = run.operation
                    if run.meters:
                        words["u"] = dict(run.meters)
                    operation = asked.operation
                    key = operation.system, run.within, run.id
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
                        run.rows,
                        words,
                    )
                    runs = watch.runs
                    if runs.writer is not recorder.writer:  # we are a child that was forked
                        runs = watch.known()
                    if not runs.add(key, pending):
                        return answer  # one that was started before
                    pending.number = number = next(recorder.calls)
                    more = details(words) + PARTIAL
                    if parent is not None:
                        more += b',"x":"%b"' % parent.encode()
                    line = entry(
                        number,
                        started_at,
                        ended - started,
                        refers.text,
                        run.rows,
                        0,
                        None,
                        more,
                    )
                    writer = recorder.writer
                    with writer.lock:
                        writer.append(line, refers, refers.definitions)
                    tell((scope, 1, target.currency, 0))
                    if len(untold) > MAX_UNTOLD:
                        add_up()
                    if operation.follow is not None:
                        runs.follow(key, operation.follow, asked.client, pending, watch)
                    return answer
            given = (where, text, (asked, args, kwargs))
            span = recorder.late(probe, target, given, {}, parent, started_at)
            span.clock(started, ended, 0)
            watch.over(probe, asked, span, answer)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(target_name, ours)
        return answer

    return call
