"""The others: OpenTelemetry's spans and its own instrumentation, ddtrace, and a bare wrapt wrapper.

Each is set up the way its documentation says, with work behind it that costs nothing: spans go to
a null exporter behind OpenTelemetry's BatchSpanProcessor, ddtrace's are dropped by a filter. So
what is measured of them is what they cost the caller, and their exporters' work is not in it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

CONTRIB = "OpenTelemetry contrib"
COMMENTER = "OpenTelemetry contrib + sqlcommenter"
RAW = "raw OpenTelemetry span"
RAW_ATTRIBUTES = "raw OpenTelemetry span, 5 attributes"
DDTRACE = "ddtrace"
WRAPT = "bare wrapt.FunctionWrapper"


class NullExporter(SpanExporter):
    """Takes every span, counts it, and forgets it."""

    def __init__(self) -> None:
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


class OpenTelemetry:
    """A TracerProvider with the stock BatchSpanProcessor, set for nobody but those given it."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self.exporter = NullExporter()
        self.processor = BatchSpanProcessor(exporter or self.exporter)
        self.provider = TracerProvider()
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("benchmarks")

    def flush(self) -> None:
        """Let go of what is queued, so that nothing is dropped and nobody else pays for it."""
        self.processor.force_flush()

    def span(self, call: Callable[[], object], attributes: bool) -> Callable[[], object]:
        """Return `call` in a span that is made with nothing but the SDK."""
        start = self.tracer.start_as_current_span
        client = trace.SpanKind.CLIENT
        if not attributes:

            def bare() -> None:
                with start("SELECT", kind=client):
                    call()

            return bare

        def described() -> None:
            with start("SELECT", kind=client) as span:
                span.set_attribute("db.system", "nulldb")
                span.set_attribute("db.name", "shop")
                span.set_attribute("db.statement", "SELECT 1")
                span.set_attribute("net.peer.name", "db.example")
                span.set_attribute("net.peer.port", 5432)
                call()

        return described


class Surrounding:
    """A span of the program's own, around what is measured."""

    def __init__(self, telemetry: OpenTelemetry) -> None:
        self._telemetry = telemetry
        self._token: Any = None

    def enter(self) -> None:
        span = self._telemetry.tracer.start_span("request")
        self._token = context.attach(trace.set_span_in_context(span))

    def leave(self) -> None:
        context.detach(self._token)


@contextmanager
def contrib(name: str, provider: TracerProvider, *, commenter: bool = False) -> Generator[None]:
    """Have OpenTelemetry's instrumentor of that name wrap the connections made meanwhile."""
    module: Any = import_module(f"opentelemetry.instrumentation.{name}")
    kind = {"sqlite3": "SQLite3", "psycopg": "Psycopg", "pymysql": "PyMySQL"}[name]
    instrumentor = getattr(module, f"{kind}Instrumentor")()
    options = {"enable_commenter": True} if commenter else {}
    instrumentor.instrument(tracer_provider=provider, **options)
    try:
        yield
    finally:
        instrumentor.uninstrument()


def contrib_connection(
    connection: Any,
    module: Any,
    system: str,
    provider: TracerProvider,
    *,
    commenter: bool = False,
) -> Any:
    """Return `connection` in the proxy that all of contrib's DB-API instrumentors put around it."""
    dbapi: Any = import_module("opentelemetry.instrumentation.dbapi")
    return dbapi.instrument_connection(
        "benchmarks",
        connection,
        system,
        {"host": "host", "port": "port", "database": "db", "user": "user"},
        tracer_provider=provider,
        connect_module=module,
        enable_commenter=commenter,
    )


@contextmanager
def ddtrace() -> Generator[Any]:
    """Give ddtrace, sending nothing to anybody; it is imported here and not before."""
    os.environ.update(
        DD_TRACE_STARTUP_LOGS="false",
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_TRACE_COMPUTE_STATS="false",
        DD_RUNTIME_METRICS_ENABLED="false",
    )
    module: Any = import_module("ddtrace.trace")

    class Drop(module.TraceFilter):  # type: ignore[misc]
        def process_trace(self, trace: object) -> None:
            return None

    module.tracer.configure(trace_processors=[Drop()])
    try:
        yield module.tracer
    finally:
        module.tracer.shutdown(timeout=0)


def ddtrace_connection(connection: Any, system: str) -> Any:
    """Return `connection` in the proxy of ddtrace's DB-API integrations."""
    dbapi: Any = import_module("ddtrace.contrib.dbapi")
    return dbapi.TracedConnection(connection, db_tags={"db.system": system})


def wrapped(call: Callable[..., object]) -> Callable[..., object]:
    """Return `call` in a wrapt wrapper that does nothing but call through."""
    wrapt: Any = import_module("wrapt")

    def through(function: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        return function(*args, **kwargs)

    wrapper: Callable[..., object] = wrapt.FunctionWrapper(call, through)
    return wrapper
