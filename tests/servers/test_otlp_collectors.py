"""Real collectors receive our spans: `rotel` from PyPI, and OpenTelemetry's own where it is built.

OpenTelemetry's Collector has no package that PyPI or Debian would give. Whoever has one with an
OTLP receiver and the debug exporter puts it, or a link to it, at `otelcol/otelcol` in the cache
directory of these tests (`tests/debian.py`); CONTRIBUTING.md has the builder's manifest.
"""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests import debian
from tests.backends import unavailable
from tests.processes import Account, Unavailable, free_port, running
from tests.recording import PARENT_ID, TRACE_ID, Process, entries
from tests.servers.otlp_sink import OTLPSink

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

COUNT = 1000
PARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
SECONDS = 20


class Ports(NamedTuple):
    """Where a collector listens."""

    http: int
    grpc: int

    def point(self, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
        """Have the exporter send there."""
        port = self.http if protocol == "http/protobuf" else self.grpc
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")


def open_ports(ports: Ports) -> bool:
    import socket

    for port in ports:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return False
    return True


@contextmanager
def rotel(directory: Path, sink: OTLPSink) -> Generator[Ports]:
    """A rotel that hands on to `sink` what it receives."""
    found = find_spec("rotel")
    if found is None or found.origin is None:
        raise Unavailable("rotel is not installed")
    ports = Ports(free_port(), free_port())
    with running(
        Account(None, None),
        Path(found.origin).with_name("rotel-agent"),
        "start",
        *("--otlp-http-endpoint", f"127.0.0.1:{ports.http}"),
        *("--otlp-grpc-endpoint", f"127.0.0.1:{ports.grpc}"),
        *("--exporter", "otlp", "--otlp-exporter-protocol", "http"),
        *("--otlp-exporter-endpoint", sink.url),
        *("--pid-file", directory / "pid", "--log-file", directory / "rotel.log"),
        cwd=directory,
        ready=lambda: open_ports(ports),
        stop=signal.SIGTERM,
    ):
        yield ports


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_rotel_receives_and_hands_on_every_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    ledger = tmp_path / "ledger"
    with OTLPSink() as sink:
        try:
            with rotel(tmp_path, sink) as ports:
                ports.point(monkeypatch, protocol)
                with Process(ledger, names=("otlp",)) as process:
                    process.call(parent=PARENT, rows=None, partial=True)
                    process.calls(COUNT - 1)
                    assert process.flush()
                    process.call(parent=PARENT, number=1, revision=1, rows=40)
                    assert process.flush()
                wait_for(lambda: len(sink.spans) >= COUNT and bool(sink.logs))
        except Unavailable as reason:
            unavailable("rotel", reason)
    assert sorted(sink.charge_ids()) == sorted({c.charge_id for c in entries(ledger)})
    [first] = [span for span in sink.spans if span.message.parent_span_id]
    assert first.message.trace_id.hex() == TRACE_ID
    assert first.scope == "costinsights.psycopg"
    assert first.resource["service.name"] == "shop"
    [log] = sink.logs
    assert log.message.span_id == first.message.span_id


CONFIGURATION = """
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{ports.http}"}}
      grpc: {{endpoint: "127.0.0.1:{ports.grpc}"}}
exporters:
  debug: {{verbosity: detailed}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [debug]}}
    logs: {{receivers: [otlp], exporters: [debug]}}
"""


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_opentelemetrys_own_collector_receives_every_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    binary = debian.CACHE / "otelcol" / "otelcol"
    if not binary.exists():
        pytest.skip(f"no OpenTelemetry Collector at {binary}")
    ports = Ports(free_port(), free_port())
    configuration = tmp_path / "collector.yaml"
    configuration.write_text(CONFIGURATION.format(ports=ports))
    ledger, log = tmp_path / "ledger", tmp_path / "log"
    with running(
        Account(None, None),
        binary,
        *("--config", configuration),
        cwd=tmp_path,
        ready=lambda: open_ports(ports),
        stop=signal.SIGTERM,
    ):
        ports.point(monkeypatch, protocol)
        with Process(ledger, names=("otlp",)) as process:
            process.call(parent=PARENT, rows=None, partial=True)
            process.calls(COUNT - 1)
            assert process.flush()
            process.call(parent=PARENT, number=1, revision=1, rows=40)
            assert process.flush()
        wait_for(lambda: log.read_text().count("costinsights.charge_id: Str(") > COUNT)
    text = log.read_text()
    ids = [
        line.partition("Str(")[2].rstrip(")")
        for line in text.splitlines()
        if "costinsights.charge_id: Str(" in line
    ]
    made = {charge.charge_id for charge in entries(ledger)}
    assert set(ids) == made
    assert len(ids) == COUNT + 1  # one of them is that of the log record
    for line in (
        f"    Trace ID       : {TRACE_ID}",
        f"    Parent ID      : {PARENT_ID}",
        "    Name           : SELECT orders",
        "    Kind           : Client",
        "InstrumentationScope costinsights.psycopg 0.1.0",
        "     -> service.name: Str(shop)",
        "     -> costinsights.cost.amount_exact: Str(0.000000003900000)",
        "     -> costinsights.cost.quality: Str(estimated)",
        "EventName: costinsights.charge.revised",
        f"Trace ID: {TRACE_ID}",
    ):
        assert line in text.splitlines(), line
