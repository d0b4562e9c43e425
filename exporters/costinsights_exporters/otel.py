"""Hands each charge, as a finished span, to the application's own OpenTelemetry tracing.

It is the default where the application has set a ``TracerProvider``, under
``opentelemetry-instrument`` above all: spans with costs then go where the application's spans go,
below the span that was current when the call was made. It never makes a provider, and while there
is none the charges wait in the ledger.

What the provider decides holds: its resource, its sampler (a span that it does not record counts
as skipped), its limits, its processors. So that a backlog of ours cannot push the application's
spans out of a processor's queue, at most a quarter of it is handed over before the provider is
asked to flush. At exit ours are handed over before the provider shuts down; how long that takes is
the provider's affair.

A span cannot be changed once it is out: a later figure for its charge goes to the application's
``LoggerProvider`` as a log record named ``costinsights.charge.revised``, with the span's ids where
the SDK let us set them, and is skipped where there is no such provider.
"""

from __future__ import annotations

import os
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from costinsights import __version__
from costinsights.exporter import ExportError, Progress
from costinsights.provider import logger_provider, tracer_provider
from costinsights.semconv import REVISED, attributes, epoch_ns, scope_name, span_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costinsights.records import Charge
    from costinsights.semconv import Value

# A batch span processor's queue when nobody says otherwise, and how often it empties it.
QUEUE = 2048
EMPTIED_SECONDS = 5.0
FLUSH_MILLIS = 10_000


class OTelExporter:
    """Hands charges to a ``TracerProvider``: the application's, or the one given."""

    name = "otel"
    last_words = True

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._progress = Progress()
        self._tracers: dict[str, tuple[Any, _Ids | None]] = {}
        self._tracers_of: object = None
        self._room = 0
        self._since_empty = 0
        self._emptied_at = 0.0
        self.skipped = 0
        """Spans that the provider's sampler left out, and later figures with nowhere to go."""

    def export(self, batch: Sequence[Charge]) -> None:
        """Hand the charges over.

        Raises:
            ExportError: there is no provider (yet).
        """
        provider = self._provider or tracer_provider()
        if provider is None:
            raise ExportError("the application has set no TracerProvider", retryable=True)
        if provider is not self._tracers_of:
            self._tracers, self._tracers_of = {}, provider
            self._room = _room(provider)
        for charge in self._progress.rest(batch):
            self._make_room(provider)
            if charge.revision:
                self._log(provider, charge)
            else:
                self._span(provider, charge)
            self._progress.took((charge,))
        self._progress.passed(batch)

    def _make_room(self, provider: Any) -> None:
        now = monotonic()
        if now - self._emptied_at >= EMPTIED_SECONDS:
            self._since_empty, self._emptied_at = 0, now
        elif self._since_empty >= self._room:
            flush = getattr(provider, "force_flush", None)
            if callable(flush):
                flush(FLUSH_MILLIS)
            self._since_empty, self._emptied_at = 0, monotonic()
        self._since_empty += 1

    def _span(self, provider: Any, charge: Charge) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, Status, StatusCode

        tracer, ids = self._tracer(provider, scope_name(charge))
        if ids is not None:
            ids.trace_id = int(charge.trace_id, 16)
            ids.span_id = int(charge.span_id, 16)
        parent = charge.parent_span_id
        span = tracer.start_span(
            span_name(charge),
            context=_context(charge, parent) if parent else Context(),
            kind=SpanKind.CLIENT,
            attributes=_attributes(charge),
            start_time=epoch_ns(charge.started_at),
        )
        if not span.is_recording():
            self.skipped += 1
            return
        if charge.error is not None:
            span.set_status(Status(StatusCode.ERROR, charge.error.type))
        span.end(end_time=epoch_ns(charge.ended_at))

    def _tracer(self, provider: Any, scope: str) -> tuple[Any, _Ids | None]:
        known = self._tracers.get(scope)
        if known is None:
            tracer = provider.get_tracer(scope, __version__)
            ids = None
            # The SDK's tracer asks this for ids. The tracer is ours alone, as its scope is.
            if hasattr(getattr(tracer, "id_generator", None), "generate_span_id"):
                ids = tracer.id_generator = _Ids(tracer.id_generator)
            known = self._tracers[scope] = (tracer, ids)
        return known

    def _log(self, tracer_provider: Any, charge: Charge) -> None:
        provider = logger_provider()
        if provider is None:
            self.skipped += 1
            return
        from opentelemetry._logs import LogRecord, SeverityNumber
        from opentelemetry.context import Context

        _, ids = self._tracer(tracer_provider, scope_name(charge))
        settings: dict[str, Any] = {
            "timestamp": epoch_ns(charge.ended_at),
            "context": Context() if ids is None else _context(charge, charge.span_id),
            "severity_number": SeverityNumber.INFO,
            "body": f"later figures for {span_name(charge)}",
            "attributes": _attributes(charge),
        }
        try:
            record = LogRecord(**settings, event_name=REVISED)
        except TypeError:  # before 1.35 the API had no such record
            self.skipped += 1
            return
        provider.get_logger(scope_name(charge), __version__).emit(record)

    def shutdown(self) -> None:
        """Leave the provider alone: it is the application's."""


class _Ids:
    """Gives a tracer the ids that stand in the ledger, so that the two can be held together."""

    def __init__(self, original: Any) -> None:
        self._original = original
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id or int(self._original.generate_trace_id())

    def generate_span_id(self) -> int:
        return self.span_id or int(self._original.generate_span_id())

    def is_trace_id_random(self) -> bool:
        return False


def _context(charge: Charge, span_id: str) -> Any:
    """Return a context whose current span is `span_id` in the charge's trace."""
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    span = SpanContext(
        int(charge.trace_id, 16),
        int(span_id, 16),
        is_remote=False,  # it was current in the process that made the call
        trace_flags=TraceFlags(charge.trace_flags),
    )
    return set_span_in_context(NonRecordingSpan(span), Context())


def _attributes(charge: Charge) -> dict[str, Value]:
    found = attributes(charge)
    if charge.pid != os.getpid():  # the provider's resource names this process, not that one
        found["process.pid"] = charge.pid
        found["host.name"] = charge.host
    return found


def _room(provider: Any) -> int:
    """Return how many spans can be handed over before the application's may be pushed out."""
    sizes = [QUEUE]
    with suppress(KeyError, ValueError):
        sizes.append(int(os.environ["OTEL_BSP_MAX_QUEUE_SIZE"]))
    group = getattr(provider, "_active_span_processor", None)
    for processor in getattr(group, "_span_processors", ()):
        inner = getattr(processor, "_batch_processor", processor)
        size = getattr(inner, "_max_queue_size", getattr(inner, "max_queue_size", None))
        if isinstance(size, int):
            sizes.append(size)
    return max(1, min(sizes) // 4)
