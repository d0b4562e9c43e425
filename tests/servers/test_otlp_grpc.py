"""The same over gRPC: every charge reaches a collector once, whatever the collector does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from costinsights import backoff, positions
from costinsights.exporter import ExportError
from costinsights.testing import sample_charges
from costinsights_exporters import _otlp_doors
from costinsights_exporters.otlp import OTLPExporter
from tests.recording import Process, entries
from tests.servers.grpc_sink import GRPCSink

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture
def sink() -> Generator[GRPCSink]:
    with GRPCSink() as sink:
        yield sink


@pytest.fixture(autouse=True)
def environment(sink: GRPCSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(backoff, "LONGEST_SECONDS", 0.1)
    monkeypatch.setattr("costinsights.background.TICK_SECONDS", 0.05)


def totals(directory: Path) -> dict[str, int]:
    [status] = positions.status(str(directory))
    figures = msgspec.structs.asdict(status.position)
    names = ("exported", "merged", "skipped", "rejected", "refused")
    return {name: figures[name] for name in names if figures[name]}


def assert_all_arrived_once(directory: Path, sink: GRPCSink) -> None:
    made = {charge.charge_id for charge in entries(directory)}
    assert len(sink.charge_ids()) == len(set(sink.charge_ids()))
    assert set(sink.charge_ids()) == made


def test_spans_and_later_figures_arrive(
    tmp_path: Path, sink: GRPCSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with Process(tmp_path, names=("otlp",)) as process:
        number = process.call(rows=None, partial=True)
        process.calls(1500)
        assert process.flush()
        process.call(number=number, revision=1, rows=40)
        assert process.flush()
    assert_all_arrived_once(tmp_path, sink)
    assert sink.requests[0]["x-key"] == "a secret"
    [log] = sink.logs
    assert log.message.span_id == sink.spans[0].message.span_id
    assert log.attributes["db.response.returned_rows"] == 40


def test_options_go_before_the_variables(
    tmp_path: Path, sink: GRPCSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    options = {"endpoint": sink.url, "protocol": "grpc", "headers": {"x-key": "k"}}
    with Process(
        tmp_path, names=("otlp",), options={"otlp": {**options, "compression": "gzip"}}
    ) as process:
        process.call()
        assert process.flush()
    assert sink.requests[0]["x-key"] == "k"


@pytest.mark.parametrize(
    "status",
    [
        "UNAVAILABLE",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
        "INTERNAL",
        "UNKNOWN",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    ],
)
def test_all_arrive_once_when_the_trouble_is_over(
    tmp_path: Path, sink: GRPCSink, status: str, caplog: pytest.LogCaptureFixture
) -> None:
    sink.status = status
    with Process(tmp_path, names=("otlp",)) as process:
        process.calls(600)
        assert not process.flush(0.3)
        assert sink.spans == []
        sink.status = ""
        process.calls(600)
        assert process.flush()
    assert_all_arrived_once(tmp_path, sink)
    assert totals(tmp_path) == {"exported": 1200}
    [said] = [r.getMessage() for r in caplog.records if "does not get through" in r.getMessage()]
    assert f"127.0.0.1:{sink.port} answers {status}" in said


def test_all_arrive_once_when_somebody_listens_again(tmp_path: Path, sink: GRPCSink) -> None:
    with Process(tmp_path, names=("otlp",)) as process:
        with sink.down():
            process.calls(10)
            assert not process.flush(0.5)
        process.calls(10)
        started = time.monotonic()
        assert process.flush()
        # gRPC's own channel would have waited for longer.
        assert time.monotonic() - started < 5
    assert_all_arrived_once(tmp_path, sink)


def test_what_is_refused_for_good_is_set_aside(tmp_path: Path, sink: GRPCSink) -> None:
    sink.status = "INVALID_ARGUMENT"
    with Process(tmp_path, names=("otlp",)) as process:
        process.calls(3)
        process.flush(0.5)
        sink.status = ""
        process.calls(3)
        assert process.flush()
    assert totals(tmp_path) == {"exported": 3, "rejected": 3}


def test_a_message_that_is_too_large_is_split(sink: GRPCSink) -> None:
    sink.status = "RESOURCE_EXHAUSTED"
    sink.details = "grpc: received message larger than max (3 vs. 2)"
    with pytest.raises(ExportError) as raised:
        OTLPExporter().export(sample_charges())
    assert not raised.value.retryable


def test_a_delay_that_the_server_asks_for_is_kept(sink: GRPCSink) -> None:
    sink.status, sink.retry_seconds = "RESOURCE_EXHAUSTED", 17
    with pytest.raises(ExportError) as raised:
        OTLPExporter().export(sample_charges())
    assert (raised.value.retryable, raised.value.retry_after) == (True, 17.0)


def test_a_partial_success_is_not_sent_again_and_counted(tmp_path: Path, sink: GRPCSink) -> None:
    sink.refused = 2
    with Process(tmp_path, names=("otlp",)) as process:
        process.calls(10)
        assert process.flush()
    assert len(sink.requests) == 1
    assert totals(tmp_path) == {"exported": 8, "refused": 2}


def test_a_server_without_logs_makes_later_figures_skipped(tmp_path: Path, sink: GRPCSink) -> None:
    with Process(tmp_path, names=("otlp",)) as process:
        number = process.call(rows=None, partial=True)
        assert process.flush()
        sink.status = "UNIMPLEMENTED"
        process.call(number=number, revision=1, rows=40)
        assert process.flush()
    assert totals(tmp_path) == {"exported": 1, "skipped": 1}


def test_without_its_inner_parts_the_stock_exporter_is_used_as_it_is(
    tmp_path: Path, sink: GRPCSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*_: object) -> None:
        raise AttributeError("_client")

    monkeypatch.setattr(_otlp_doors, "GRPCDoor", changed)
    with Process(tmp_path, names=("otlp",)) as process:
        process.calls(10)
        assert process.flush()
    assert_all_arrived_once(tmp_path, sink)


HANG = """
import sys, time
from pathlib import Path
from tests.recording import Process

process = Process(Path(sys.argv[1]), names=("otlp",))
process.calls(10)
process.flush(0.5)
started = time.perf_counter()
process.close()
print(time.perf_counter() - started)
"""


def test_a_program_ends_in_time_and_cleanly_while_a_call_hangs(
    tmp_path: Path, sink: GRPCSink
) -> None:
    sink.hangs = True
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANG, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OTEL_EXPORTER_OTLP_TIMEOUT": "60"},
    )
    assert (done.returncode, done.stderr.count("Fatal")) == (0, 0), done.stderr
    assert float(done.stdout) < 2.0
    assert time.monotonic() - started < 8
