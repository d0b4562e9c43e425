"""An OTLP/HTTP collector in a process of its own, which only counts.

What is posted to ``/NAME/v1/traces`` is counted under that name, and ``GET /NAME`` tells how many
spans that were.
"""

from __future__ import annotations

import gzip
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.request import urlopen

from benchmarks.elsewhere import elsewhere

if TYPE_CHECKING:
    from collections.abc import Generator

counted: dict[str, int] = {}


class Handler(BaseHTTPRequestHandler):
    """Counts spans."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        name = self.path.split("/")[1]
        request = ExportTraceServiceRequest.FromString(body)
        spans = sum(
            len(scope.spans) for group in request.resource_spans for scope in group.scope_spans
        )
        counted[name] = counted.get(name, 0) + spans
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"%d" % counted.get(self.path.strip("/"), 0))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


class Sink:
    """Another process's sink."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def spans(self, name: str) -> int:
        """How many spans have come to ``/NAME/v1/traces``."""
        with urlopen(f"{self.url}/{name}") as answer:
            return int(answer.read())


@contextmanager
def sink() -> Generator[Sink]:
    """Give a sink in a process of its own, so that its CPU is not ours."""
    with elsewhere("benchmarks.sink:served") as found:
        yield Sink(found.port)


@contextmanager
def served() -> Generator[dict[str, int]]:
    """Serve here."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"port": server.server_address[1]}
