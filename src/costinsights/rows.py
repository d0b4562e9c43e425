"""Hooks the fetches of C types, which run once a row: as little as can be around each.

They call no other hooked callable, so the cursor alone says which span they work for. Each row's
time in the engine is measured, because any one, and most of all the step after the last, may be
the one that scans a table.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.patching import Probe
    from costinsights.span import CostSpan


def fetch_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Return the wrapper of a fetch in C that brings one row, or several, or ends them."""
    if probe.hook.fetch == "next":
        return _next_wrapper(function, probe)
    if probe.hook.fetch == "one":
        return _one_wrapper(function, probe)

    def fetch(*args: Any, **kwargs: Any) -> Any:
        recorder = probe.recorder
        if recorder is None or (span := recorder.opened.get(id(args[0]))) is None:
            return function(*args, **kwargs)
        probe.resume(span)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            probe.fetched(span, args, kwargs, None, error)
            raise
        probe.fetched(span, args, kwargs, result)
        return result

    return fetch


# These two are alike, and written out with their clock in them: at a million rows each call counts.
# Where time has a price, the span's own clock runs, which knows how to share it.


def _next_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    def advance(cursor: Any) -> Any:
        recorder = probe.recorder
        if recorder is None or (span := recorder.opened.get(id(cursor))) is None:
            return function(cursor)
        if span.target.capacity is None:
            now = perf_counter_ns()
        else:
            now = 0
            probe.resume(span)
        try:
            row = function(cursor)
        except BaseException as error:
            _tell(probe, span, now, (cursor,), None, error)
            raise
        if rows := span.rows:
            if now:
                span.ended = ended = perf_counter_ns()
                span.duration += ended - now
            else:
                probe.pause(span)
            span.rows = rows + 1
        else:
            _tell(probe, span, now, (cursor,), row)
        return row

    return advance


def _one_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    def fetch(*args: Any, **kwargs: Any) -> Any:
        recorder = probe.recorder
        if recorder is None or (span := recorder.opened.get(id(args[0]))) is None:
            return function(*args, **kwargs)
        if span.target.capacity is None:
            now = perf_counter_ns()
        else:
            now = 0
            probe.resume(span)
        try:
            row = function(*args, **kwargs)
        except BaseException as error:
            _tell(probe, span, now, args, None, error)
            raise
        if row is not None and (rows := span.rows):
            if now:
                span.ended = ended = perf_counter_ns()
                span.duration += ended - now
            else:
                probe.pause(span)
            span.rows = rows + 1
        else:
            _tell(probe, span, now, args, row)
        return row

    return fetch


def _tell(
    probe: Probe,
    span: CostSpan,
    started: int,
    args: tuple[Any, ...],
    row: object,
    error: BaseException | None = None,
) -> None:
    """Report the first row, which often is the only one, or what came instead of another."""
    if started:
        span.resumed, span.running = started, True
    probe.fetched(span, args, {}, row, error)
