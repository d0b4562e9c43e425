"""Asks OpenTelemetry, where the program uses it, which span we are in and whether to be silent.

OpenTelemetry is never imported for this: a program that has not loaded it is in no span.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    Context = Mapping[str, Any]

# What OpenTelemetry is asked, once it is there. Where calls are many it is asked without `surrounding`
# around it: then an empty context is to be taken for none.
get_current: Callable[[], Context] | None = None
# The last span context and what it reads as: statements in one span come in a row.
_last: tuple[object, str | None] = (None, None)


def surrounding() -> Context | None:
    """Return the current OpenTelemetry context; None when there is none or it is empty."""
    global get_current
    if get_current is None:
        module = sys.modules.get("opentelemetry.context")
        found = getattr(module, "get_current", None)  # None while it is being imported
        if found is None:
            return None
        # Two calls less, where the context is kept as it mostly is.
        runtime = getattr(module, "_RUNTIME_CONTEXT", None)
        variable = getattr(runtime, "_current_context", None)
        if isinstance(variable, ContextVar):
            found = cast("ContextVar[Context]", variable).get
        get_current = cast("Callable[[], Context]", found)
    return get_current() or None


def is_suppressed(context: Context) -> bool:
    """Tell whether somebody said not to instrument what happens in `context`."""
    return bool(context.get("suppress_instrumentation"))


@contextmanager
def untraced() -> Generator[None]:
    """Keep OpenTelemetry's instrumentation of HTTP and gRPC clients away from our own calls."""
    if "opentelemetry.context" not in sys.modules:
        yield
        return
    from opentelemetry.context import attach, detach, set_value

    token = attach(set_value("suppress_instrumentation", True))
    try:
        yield
    finally:
        detach(token)


def traceparent(context: Context) -> str | None:
    """Return the span of `context` as a W3C traceparent, or None when it has none."""
    global _last
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span(context).get_span_context()
    known, text = _last
    if known is not span:
        text = (
            f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
            if span.is_valid
            else None
        )
        _last = span, text
    return text
