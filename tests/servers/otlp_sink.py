"""An OTLP/HTTP collector that keeps what it gets, and fails in every way that collectors fail.

    with OTLPSink() as sink:
        ... export to sink.url ...
        sink.mode = "503"
        sink.spans, sink.logs, sink.requests

Modes: ``ok``; ``hang`` (reads the request, never answers); ``late`` (takes it, and answers after
`delay`); ``slow`` (answers a byte at a time); ``reset`` (closes in the middle of the request);
``garbage`` (200 and nonsense); ``flood`` (200 and 100 MB of answer); ``bomb`` (200 and 100 MB of
zeros, compressed); ``partial`` (takes all but `refused`); ``picky`` (400 for requests with a span
that `refuses` says true of); ``small`` (413 for more than `limit` spans); or a status, ``503``, with
`headers`. ``with sink.down():`` nobody listens at all.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Generator, Iterable, Mapping

Value = str | int | float | bool


class Received(NamedTuple):
    """A span or log record, with where it stood."""

    resource: dict[str, Value]
    scope: str
    attributes: dict[str, Value]
    message: Any


def read_traces(data: bytes) -> list[Received]:
    """Decode an ``ExportTraceServiceRequest``."""
    return [
        Received(
            _values(group.resource.attributes), scoped.scope.name, _values(span.attributes), span
        )
        for group in ExportTraceServiceRequest.FromString(data).resource_spans
        for scoped in group.scope_spans
        for span in scoped.spans
    ]


def read_logs(data: bytes) -> list[Received]:
    """Decode an ``ExportLogsServiceRequest``."""
    return [
        Received(
            _values(group.resource.attributes),
            scoped.scope.name,
            _values(record.attributes),
            record,
        )
        for group in ExportLogsServiceRequest.FromString(data).resource_logs
        for scoped in group.scope_logs
        for record in scoped.log_records
    ]


def _values(attributes: Iterable[Any]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for pair in attributes:
        assert pair.key not in found, f"{pair.key} stands there twice"
        found[pair.key] = getattr(pair.value, pair.value.WhichOneof("value"))
    return found


@functools.cache
def bomb() -> bytes:
    """100 MB of zeros, compressed; that takes a second, so have it done beforehand."""
    return gzip.compress(bytes(100 * 1024 * 1024), 1)


class OTLPSink:
    """A collector on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.headers: dict[str, str] = {}
        self.refused = 0
        self.limit = 1
        self.delay = 0.0
        self.refuses: Callable[[Received], bool] = lambda span: False
        self.spans: list[Received] = []
        self.logs: list[Received] = []
        self.requests: list[Mapping[str, str]] = []
        """The headers of every request, in lower case."""
        self.arrived = threading.Condition()
        self._ending = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self)
        self.port = self._server.server_address[1]
        self._serve()

    @property
    def url(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` is to be."""
        return f"http://127.0.0.1:{self.port}"

    def charge_ids(self) -> list[str]:
        """The charges whose spans have come, once for each time."""
        return [str(span.attributes["costinsights.charge_id"]) for span in self.spans]

    def wait(self, spans: int, seconds: float = 10.0) -> bool:
        """Wait until so many spans are there."""
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.spans) >= spans, seconds)

    @contextlib.contextmanager
    def down(self) -> Generator[None]:
        """Refuse connections for a while."""
        self.stop()
        try:
            yield
        finally:
            self._server = _Server(("127.0.0.1", self.port), self)
            self._serve()

    def _serve(self) -> None:
        self._ending.clear()
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def use_tls(self, context: ssl.SSLContext) -> None:
        """Speak HTTPS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def stop(self) -> None:
        """Stop for good: nobody listens any more."""
        self._ending.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> OTLPSink:
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()

    # -- answers --------------------------------------------------------------------------------

    def answer(self, request: _Handler) -> None:
        """Do with a request as `mode` says."""
        self.requests.append({name.lower(): value for name, value in request.headers.items()})
        mode = self.mode
        if mode == "reset":
            request.close_connection = True
            request.connection.close()
            return
        body = request.rfile.read(int(request.headers["Content-Length"]))
        match request.headers.get("Content-Encoding"):
            case "gzip":
                body = gzip.decompress(body)
            case "deflate":
                body = zlib.decompress(body)
            case _:
                pass
        traces = request.path == "/v1/traces"
        items = read_traces(body) if traces else read_logs(body)
        if mode == "hang":
            self._ending.wait(60)
            request.close_connection = True
        elif mode == "picky" and any(map(self.refuses, items)):
            request.reply(400)
        elif mode == "small" and len(items) > self.limit:
            request.reply(413)
        elif mode.isdigit():
            request.reply(int(mode), headers=self.headers)
        else:
            self._take(request, mode, items, traces=traces)

    def _take(self, request: _Handler, mode: str, items: list[Received], *, traces: bool) -> None:
        kept = items[self.refused :] if mode == "partial" else items
        with self.arrived:
            (self.spans if traces else self.logs).extend(kept)
            self.arrived.notify_all()
        answer: Any = ExportTraceServiceResponse() if traces else ExportLogsServiceResponse()
        headers: dict[str, str] = {}
        data = b""
        if mode == "late":
            self._ending.wait(self.delay)
        elif mode == "partial":
            answer.partial_success.rejected_spans = self.refused
            answer.partial_success.error_message = "too old"
        elif mode == "garbage":
            data = b"\xff\xfe<html>it works</html>"
        elif mode == "flood":
            data = bytes(100 * 1024 * 1024)
        elif mode == "bomb":
            data = bomb()
            headers["Content-Encoding"] = "gzip"
        request.reply(200, data or answer.SerializeToString(), headers, slowly=mode == "slow")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], sink: OTLPSink) -> None:
        self.sink = sink
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the play."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.sink.answer(self)

    def reply(
        self,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        slowly: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        if slowly:
            body = bytes(50)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if not slowly:
            self.wfile.write(body)
            return
        for byte in body:
            self.wfile.write(bytes((byte,)))
            time.sleep(0.1)

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the base class's name
        """Say nothing."""
