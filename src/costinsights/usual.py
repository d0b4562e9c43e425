"""The usual call, written out: a statement that was seen before, on a connection that is known.

`costinsights.recorder` says what a call is and does; this does the same for the calls that are
nearly all calls, in one piece and without a span, at two thirds of the time. In between a driver's
waits for its server the processor's caches go cold, and then each function and each object that is
touched counts. Whatever turns out to be out of the ordinary goes the general way.
"""

from __future__ import annotations

from sys import modules
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any

from costinsights.attribution import MAX_UNTOLD, add_up, innermost, root, tell, untold
from costinsights.guard import SUPPRESSED, busy, swallow
from costinsights.instrumentor import UNKNOWN_ROWS
from costinsights.quick import entry
from costinsights.records import MAX_INTEGER
from costinsights.surroundings import is_suppressed, surrounding, traceparent

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.patching import Probe


def may_be_usual(probe: Probe) -> bool:
    """Tell whether calls of a hook can be usual ones: nothing but rows is asked about them."""
    return (
        probe.instrumentor.usual
        and probe.plain
        and probe.batch is None
        and not probe.prepares
        and not probe.begins
        and (probe.counts_rows or probe.rows is not None)
    )


def usual_wrapper(
    function: Callable[..., Any], probe: Probe, general: Callable[..., Any]
) -> Callable[..., Any]:
    """Return the wrapper that records usual calls, and leaves all others to `general`."""
    name, target_name, leaf = probe.name, probe.hook.target, probe.hook.leaf
    position, lazy, deferred, count = probe.position, probe.lazy, probe.deferred, probe.rows
    instrumentor, connection_of = probe.instrumentor, probe.connection_of
    held, hold, release = busy.get, busy.set, busy.reset

    def call(*args: Any, **kwargs: Any) -> Any:
        recorder = probe.recorder
        if recorder is None or (other := held()) is name or other is SUPPRESSED:
            return function(*args, **kwargs)
        cursor: Any = None
        query: Any = None
        known = parent = None
        try:
            cursor, query = args[0], args[position]
            connection = connection_of(cursor)
            context = surrounding()
            if (
                recorder.plain
                and query.__class__ is str
                and (context is None or not is_suppressed(context))
                and (known := recorder.targets.get(id(connection))) is not None
            ):
                if known[0]() is not connection:
                    known = None
                elif context is not None:
                    parent = traceparent(context)
                if lazy and recorder.opened:
                    recorder.supersede(cursor)
        except (AttributeError, IndexError, ReferenceError):
            known = None  # a cursor that is closed, a query that is given by its name
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(target_name, ours)
            known = None
        if known is None:
            return general(*args, **kwargs)
        target = known[1]
        capacity = target.capacity
        token = None if leaf else hold(name)
        try:
            started_at = time_ns()
            started = perf_counter_ns()
            entered = 0 if capacity is None else capacity.enter(started)
        except BaseException:  # a signal handler's: the call is not made
            if token is not None:
                release(token)
            raise
        share = 0
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            ended = perf_counter_ns()
            if token is not None:
                release(token)
            if capacity is not None:
                share = capacity.leave(ended, entered)
            try:
                span = recorder.late(probe, target, args, kwargs, parent, started_at)
                span.clock(started, ended, share)
                recorder.end(span, None, error)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(target_name, ours)
            raise
        ended = perf_counter_ns()
        if token is not None:
            release(token)
        if capacity is not None:
            share = capacity.leave(ended, entered)
        try:
            found = target.texts.get(query)
            if (
                found is not None
                and not found[0].comment
                and len(modules) == recorder.without_orchestrator
                and not (deferred and instrumentor.owed(cursor) != ())
            ):
                scope = innermost() or root
                refers = scope.resolved.get((target, found[1]))
                rows: Any = cursor.rowcount if count is None else count(cursor, result)
                if refers is None:
                    pass
                elif lazy and instrumentor.has_rows(cursor, result):
                    if not probe.follows:
                        span = recorder.late(probe, target, args, kwargs, parent, started_at)
                        span.clock(started, ended, share)
                        recorder.leave_open(span, cursor, found, scope, refers, rows)
                        return result
                elif rows.__class__ is int and 0 <= rows < UNKNOWN_ROWS:
                    number = next(recorder.calls)
                    if capacity is None:
                        amount = 0
                    else:
                        amount = share * capacity.numerator // capacity.denominator
                    if amount < MAX_INTEGER:
                        line = entry(
                            number,
                            started_at,
                            ended - started,
                            refers.text,
                            rows,
                            share,
                            None if capacity is None else amount,
                            None,
                            b"" if parent is None else b',"x":"%b"' % parent.encode(),
                        )
                        recorder.writer.append(line, refers, refers.definitions)
                        tell((scope, 1, target.currency, amount))
                        if len(untold) > MAX_UNTOLD:
                            add_up()
                        return result
            span = recorder.late(probe, target, args, kwargs, parent, started_at)
            span.clock(started, ended, share)
            recorder.end(span, result, None)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(target_name, ours)
        return result

    return call
