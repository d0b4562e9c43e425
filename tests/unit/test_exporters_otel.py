"""Spans are handed to the application's own provider, and change nothing for its own spans."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from costinsights import provider as providers
from costinsights import semconv
from costinsights.exporter import ExportError
from costinsights.records import ErrorInfo
from costinsights.testing import sample_charges
from costinsights_exporters import otel
from costinsights_exporters.otel import OTelExporter
from tests.recording import PARENT_ID, TRACE_ID, Process

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span


class Application:
    """A program that has set up tracing, with spans kept in memory."""

    def __init__(self, **settings: Any) -> None:
        self.provider = TracerProvider(
            resource=Resource({"service.name": "app"}), shutdown_on_exit=False, **settings
        )
        self.memory = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.memory.get_finished_spans()


@pytest.fixture
def application() -> Generator[Application]:
    made = Application()
    yield made
    made.provider.shutdown()


def span_context(span: ReadableSpan) -> trace.SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def test_a_span_is_what_the_charge_says(application: Application) -> None:
    [charge] = sample_charges(
        trace_id=TRACE_ID,
        parent_span_id=PARENT_ID,
        error=ErrorInfo("psycopg.errors.X", "42P01"),
        pid=os.getpid(),
    )
    OTelExporter(application.provider).export([charge])
    [span] = application.spans
    assert span.name == "SELECT orders"
    assert span.kind is SpanKind.CLIENT
    assert span.start_time == semconv.epoch_ns(charge.started_at)
    assert span.end_time == semconv.epoch_ns(charge.ended_at)
    assert dict(span.attributes or {}) == semconv.attributes(charge)
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "psycopg.errors.X"
    assert span.parent is not None
    assert (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, PARENT_ID)
    assert not span.parent.is_remote
    assert span.resource.attributes["service.name"] == "app"
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "costinsights.psycopg"


def test_ids_are_those_of_the_ledger(application: Application) -> None:
    charges = sample_charges(3)
    OTelExporter(application.provider).export(charges)
    found = [span_context(span) for span in application.spans]
    assert [f"{context.trace_id:032x}" for context in found] == [c.trace_id for c in charges]
    assert [f"{context.span_id:016x}" for context in found] == [c.span_id for c in charges]
    assert all(span.parent is None for span in application.spans)


def test_the_applications_own_ids_are_left_alone(application: Application) -> None:
    OTelExporter(application.provider).export(sample_charges(1))
    with application.provider.get_tracer("app").start_as_current_span("own"):
        pass
    ours, own = application.spans
    assert span_context(own).trace_id != span_context(ours).trace_id
    assert span_context(own).span_id != span_context(ours).span_id


def test_what_is_current_in_the_exporting_thread_is_no_parent(application: Application) -> None:
    with application.provider.get_tracer("app").start_as_current_span("own"):
        OTelExporter(application.provider).export(sample_charges(1))
    assert application.spans[0].parent is None


def test_a_charge_of_another_process_says_of_which(application: Application) -> None:
    OTelExporter(application.provider).export(sample_charges(pid=-1, host="web-7"))
    attributes = application.spans[0].attributes or {}
    assert (attributes["process.pid"], attributes["host.name"]) == (-1, "web-7")


def test_what_the_sampler_leaves_out_is_skipped() -> None:
    application = Application(sampler=ALWAYS_OFF)
    exporter = OTelExporter(application.provider)
    exporter.export(sample_charges(3))
    assert application.spans == ()
    assert exporter.skipped == 3


def test_a_later_figure_goes_to_the_logger_provider(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(SimpleLogRecordProcessor(memory))
    monkeypatch.setattr(otel, "logger_provider", lambda: logs)
    [charge] = sample_charges(revision=1, rows=40)
    exporter = OTelExporter(application.provider)
    exporter.export([charge])
    [found] = memory.get_finished_logs()
    record = found.log_record
    assert record.event_name == semconv.REVISED
    assert (f"{record.trace_id:032x}", f"{record.span_id:016x}") == (
        charge.trace_id,
        charge.span_id,
    )
    assert (record.attributes or {})["db.response.returned_rows"] == 40
    assert exporter.skipped == 0
    assert application.spans == ()


def test_a_later_figure_with_nowhere_to_go_is_skipped(application: Application) -> None:
    exporter = OTelExporter(application.provider)
    exporter.export(sample_charges(revision=1))
    assert exporter.skipped == 1


def test_without_a_provider_charges_wait() -> None:
    with pytest.raises(ExportError, match="no TracerProvider") as raised:
        OTelExporter().export(sample_charges())
    assert raised.value.retryable


def test_a_provider_of_another_make_gets_spans_too() -> None:
    """It has no id generator to ask, and nothing to flush."""
    application = Application()

    class Wrapped(trace.TracerProvider):
        def get_tracer(self, *args: Any, **settings: Any) -> Any:
            inner = application.provider.get_tracer(*args, **settings)

            class Tracer:
                def start_span(self, *args: Any, **settings: Any) -> trace.Span:
                    return inner.start_span(*args, **settings)

            return Tracer()

    exporter = OTelExporter(Wrapped())
    exporter.export(sample_charges(2000))
    assert len(application.spans) == 2000
    exporter.shutdown()


def test_what_was_handed_over_before_an_error_does_not_come_again() -> None:
    class Failing(SpanProcessor):
        left = 3

        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            self.left -= 1
            if not self.left:
                raise RuntimeError

    application = Application()
    application.provider.add_span_processor(Failing())
    exporter = OTelExporter(application.provider)
    charges = sample_charges(5)
    with pytest.raises(RuntimeError):
        exporter.export(charges)
    exporter.export(charges)
    ids = [(span.attributes or {})["costinsights.charge_id"] for span in application.spans]
    assert ids == [charge.charge_id for charge in charges]


# --- the application's spans come first ---------------------------------------------------------


@pytest.mark.parametrize("queue", [2048, 64])
def test_a_backlog_pushes_no_span_of_the_application_out(queue: int) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(
            memory,
            max_queue_size=queue,
            max_export_batch_size=min(512, queue),
            schedule_delay_millis=60_000,
        )
    )
    tracer = provider.get_tracer("app")
    for _ in range(queue // 2):
        with tracer.start_as_current_span("own"):
            pass
    OTelExporter(provider).export(sample_charges(5000))
    provider.force_flush()
    names = [span.name for span in memory.get_finished_spans()]
    assert names.count("own") == queue // 2
    assert names.count("SELECT orders") == 5000
    provider.shutdown()


def test_few_spans_do_not_make_the_provider_flush() -> None:
    flushed: list[object] = []
    application = Application()
    application.provider.force_flush = flushed.append  # type: ignore[method-assign,assignment]
    exporter = OTelExporter(application.provider)
    exporter.export(sample_charges(500))
    assert flushed == []


# --- finding the provider -----------------------------------------------------------------------


class GlobalProvider:
    """Sets and unsets the application's provider."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def set(self, provider: object) -> None:
        self._monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)


@pytest.fixture
def global_provider(monkeypatch: pytest.MonkeyPatch) -> GlobalProvider:
    found = GlobalProvider(monkeypatch)
    found.set(None)
    return found


def test_a_provider_is_one_only_if_spans_go_somewhere(
    global_provider: GlobalProvider, application: Application
) -> None:
    assert providers.tracer_provider() is None
    global_provider.set(trace.NoOpTracerProvider())
    assert providers.tracer_provider() is None
    global_provider.set(application.provider)
    assert providers.tracer_provider() is application.provider


def test_looking_for_a_provider_makes_none(
    global_provider: GlobalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "sdk_tracer_provider")
    assert providers.tracer_provider() is None
    assert vars(trace)["_TRACER_PROVIDER"] is None
    monkeypatch.delattr(trace, "_TRACER_PROVIDER")
    assert providers.tracer_provider() is None


def test_without_opentelemetry_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert providers.tracer_provider() is None


@pytest.mark.parametrize("names", [None, ("otel",)])
def test_following_begins_when_the_provider_is_there(
    tmp_path: Path,
    global_provider: GlobalProvider,
    application: Application,
    names: tuple[str, ...] | None,
) -> None:
    with Process(tmp_path, names=names) as process:
        process.calls(3)
        assert process.flush()
        assert not application.spans
        global_provider.set(application.provider)
        process.calls(2)
        assert process.flush()
        assert len(application.spans) == 5
        process.calls(1)
    assert len(application.spans) == 6


def test_a_program_that_names_exporters_gets_no_other(
    tmp_path: Path, global_provider: GlobalProvider, application: Application
) -> None:
    global_provider.set(application.provider)
    with Process(tmp_path, names=()) as process:
        process.call()
        assert process.flush()
    assert not application.spans
    assert not [t for t in threading.enumerate() if t.name.startswith("costinsights-")]
