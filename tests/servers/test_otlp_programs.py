"""Whole programs, started as people start them: spans go out, once, and the end is not held up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.otlp_sink import OTLPSink

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

PROVIDER = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""
INSTRUMENT = "import costinsights; costinsights.instrument('sqlite3')\n"
WORK = """
import sqlite3
from opentelemetry import trace

with trace.get_tracer("app").start_as_current_span("own"):
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE orders (id)")
    connection.execute("SELECT * FROM orders").fetchall()
"""


@pytest.fixture
def sink() -> Generator[OTLPSink]:
    with OTLPSink() as sink:
        yield sink


def run(
    tmp_path: Path, sink: OTLPSink, program: str, *starter: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "app.py"
    path.write_text(program)
    done = subprocess.run(
        [*starter, sys.executable, path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={
            **os.environ,
            "COSTINSIGHTS_LEDGER": str(tmp_path / "ledger"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr
    return done


def assert_ours_are_below_its_own(sink: OTLPSink) -> None:
    [own] = [span.message for span in sink.spans if span.message.name == "own"]
    ours = [span for span in sink.spans if span.scope == "costinsights.sqlite3"]
    assert len(ours) == len({span.message.span_id for span in ours}) == 2
    assert {span.message.parent_span_id for span in ours} == {own.span_id}
    assert {span.message.trace_id for span in ours} == {own.trace_id}


@pytest.mark.parametrize(
    "program",
    [PROVIDER + INSTRUMENT + WORK, INSTRUMENT + PROVIDER + WORK],
    ids=["provider first", "instrument first"],
)
def test_spans_go_out_before_the_provider_shuts_down(
    tmp_path: Path, sink: OTLPSink, program: str
) -> None:
    run(tmp_path, sink, program)
    assert_ours_are_below_its_own(sink)


def test_opentelemetry_instrument_needs_the_environment_alone(
    tmp_path: Path, sink: OTLPSink
) -> None:
    run(
        tmp_path,
        sink,
        WORK,
        "opentelemetry-instrument",
        OTEL_TRACES_EXPORTER="otlp",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="sqlite3",
    )
    assert_ours_are_below_its_own(sink)


def test_opentelemetry_instrument_prints_ours_on_its_console(
    tmp_path: Path, sink: OTLPSink
) -> None:
    done = run(
        tmp_path,
        sink,
        WORK,
        "opentelemetry-instrument",
        OTEL_TRACES_EXPORTER="console",
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="sqlite3",
    )
    decoder, text = json.JSONDecoder(), done.stdout.strip()
    spans: list[dict[str, Any]] = []
    while text:
        span, end = decoder.raw_decode(text)
        spans.append(span)
        text = text[end:].strip()
    ours = [span for span in spans if "costinsights.charge_id" in span["attributes"]]
    assert len(ours) == 2
    assert len(spans) == 3


def test_a_plain_program_sends_over_otlp_alone(tmp_path: Path, sink: OTLPSink) -> None:
    run(tmp_path, sink, INSTRUMENT + WORK, COSTINSIGHTS_EXPORTERS="otlp")
    assert len({span.message.span_id for span in sink.spans}) == len(sink.spans) == 2


@pytest.mark.parametrize("mode", ["hang", "503", "reset"])
def test_a_plain_program_ends_in_time_whatever_the_collector_does(
    tmp_path: Path, sink: OTLPSink, mode: str
) -> None:
    timed = "import atexit, time\natexit.register(lambda: print(time.monotonic() - ended))\n"
    program = timed + INSTRUMENT + WORK + "\nended = time.monotonic()\n"
    sink.mode = mode
    started = time.monotonic()
    done = run(tmp_path, sink, program, COSTINSIGHTS_EXPORTERS="otlp")
    assert float(done.stdout) < 2.0
    assert time.monotonic() - started < 10
    assert "Fatal" not in done.stderr
