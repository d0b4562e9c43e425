"""What the applications do about tracing, as any application might: nothing of it is costinsights'.

With ``APP_SPANS`` an application sets a TracerProvider of its own, whose spans are written to that
file; `tell` writes down a span of the application's, for the test to find.
"""

from __future__ import annotations

import atexit
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer


def tracer(name: str) -> Tracer:
    """Return the application's tracer, of its own provider where it has one."""
    file = os.environ.get("APP_SPANS")
    if file is not None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

        provider = TracerProvider()
        stream = Path(file).open("a", encoding="utf-8")  # noqa: SIM115  open as long as we live
        exporter = ConsoleSpanExporter(
            out=stream, formatter=lambda span: f"{json.dumps(json.loads(span.to_json()))}\n"
        )
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)

        def kept() -> None:
            assert trace.get_tracer_provider() is provider

        atexit.register(kept)
    return trace.get_tracer(name)


def tell(name: str, span: Span) -> None:
    """Note the ids of one of the application's own spans."""
    context = span.get_span_context()
    line = {"name": name, "trace": f"{context.trace_id:032x}", "span": f"{context.span_id:016x}"}
    with Path(os.environ["APP_TOLD"]).open("a", encoding="utf-8") as file:
        file.write(f"{json.dumps(line)}\n")
