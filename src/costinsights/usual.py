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

from costinsights import surroundings
from costinsights.attribution import MAX_UNTOLD, add_up, innermost, root, tell, untold
from costinsights.guard import SUPPRESSED, busy, swallow
from costinsights.instrumentor import UNKNOWN_ROWS
from costinsights.quick import entry
from costinsights.records import MAX_INTEGER
from costinsights.surroundings import is_suppressed, surrounding, traceparent

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.patching import Probe
    from costinsights.usage import Usage


def may_be_usual(probe: Probe) -> bool:
    """Tell whether calls of a hook can be usual ones: one statement, and what it used."""
    return (
        probe.instrumentor.usual
        and probe.plain
        and probe.batch is None
        and not probe.prepares
        and not probe.begins
    )


def usual_wrapper(
    function: Callable[..., Any], probe: Probe, general: Callable[..., Any]
) -> Callable[..., Any]:
    """Return the wrapper that records usual calls, and leaves all others to `general`."""
    name, target_name, leaf = probe.name, probe.hook.target, probe.hook.leaf
    position, lazy, deferred, count = probe.position, probe.lazy, probe.deferred, probe.rows
    instrumentor, connection_of = probe.instrumentor, probe.connection_of
    last = probe.last_statement
    asks = count is None and not probe.counts_rows
    held, hold, release = busy.get, busy.set, busy.reset

    def call(*args: Any, **kwargs: Any) -> Any:
        recorder = probe.recorder
        if recorder is None or (other := held()) is name or other is SUPPRESSED:
            return function(*args, **kwargs)
        cursor: Any = None
        query: Any = None
        known = parent = None
        before = 0
        try:
            cursor, query = args[0], args[position]
            if last:
                before = id(getattr(cursor, last, None))
            connection = connection_of(cursor)
            context = (surroundings.get_current or surrounding)()
            if (
                recorder.plain
                and query.__class__ is str
                and not (context and is_suppressed(context))
                and (known := recorder.targets.get(id(connection))) is not None
            ):
                if known[0]() is not connection:
                    known = None
                elif context:
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
                span.before = before
                recorder.end(span, None, error)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(target_name, ours)
            raise
        ended = perf_counter_ns()
        if token is not None:
            release(token)
        if capacity is not None:
            share = capacity.leave(ended, entered)
        usage: Usage | None = None
        try:
            found = target.texts.get(query)
            if (
                found is not None
                and not found[0].comment
                and len(modules) == recorder.without_orchestrator
                and not (deferred and instrumentor.owed(cursor) != ())
            ):
                scope = innermost() or root
                refers: Any = scope.resolved.get((target, found[1]))
                rows: Any = None
                words: dict[str, Any] | None = None
                usual = refers is not None
                if not usual:
                    pass
                elif asks:
                    try:
                        usage = instrumentor.usage(cursor, result)
                    except Exception as ours:  # noqa: BLE001  the call is charged for all the same
                        swallow(f"the usage of {target_name}", ours)
                    if usage is not None:
                        rows = usage.rows
                        if usage.meters:
                            words = {"u": dict(usage.meters)}
                            usual = target.pricer is None  # which would have a price for them
                        if usage.vendor_id is not None:
                            words = words or {}
                            words["i"] = usage.vendor_id
                elif count is not None:
                    rows = count(cursor, result)
                else:
                    rows = getattr(cursor, "rowcount", None)
                    if rows.__class__ is not int or not 0 <= rows < UNKNOWN_ROWS:
                        rows = None
                if usual:
                    if lazy and instrumentor.has_rows(cursor, result):
                        span = recorder.late(probe, target, args, kwargs, parent, started_at)
                        span.clock(started, ended, share)
                        recorder.leave_open(span, cursor, result, found, scope, refers, rows, words)
                        return result
                    amount = None
                    if capacity is not None:
                        amount = share * capacity.numerator // capacity.denominator
                    if amount is None or amount < MAX_INTEGER:
                        line = entry(
                            next(recorder.calls),
                            started_at,
                            ended - started,
                            refers.text,
                            rows,
                            share,
                            amount,
                            words,
                            b"" if parent is None else b',"x":"%b"' % parent.encode(),
                        )
                        recorder.writer.append(line, refers, refers.definitions)
                        tell((scope, 1, target.currency, amount or 0))
                        if len(untold) > MAX_UNTOLD:
                            add_up()
                        return result
            span = recorder.late(probe, target, args, kwargs, parent, started_at)
            span.clock(started, ended, share)
            recorder.end(span, result, None, usage)
        except Exception as ours:  # noqa: BLE001  ours must not reach the program
            swallow(target_name, ours)
        return result

    return call
