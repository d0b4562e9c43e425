"""An OTLP/gRPC collector that keeps what it gets, or answers with a status.

with GRPCSink() as sink:
    ... export to sink.url ...
    sink.status = "UNAVAILABLE"
"""

from __future__ import annotations

import contextlib
import threading
from concurrent import futures
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tests.servers.otlp_sink import Received, read_logs, read_traces

if TYPE_CHECKING:
    from collections.abc import Generator

grpc: Any = resolve_name("grpc")
SERVICE = "opentelemetry.proto.collector"


class GRPCSink:
    """A collector on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self.status = ""
        self.details = ""
        self.retry_seconds = 0
        self.refused = 0
        self.hangs = False
        self.spans: list[Received] = []
        self.logs: list[Received] = []
        self.requests: list[dict[str, str]] = []
        """The metadata of every request."""
        self._ending = threading.Event()
        self.port = 0
        self._start()

    @property
    def url(self) -> str:
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` is to be."""
        return f"http://127.0.0.1:{self.port}"

    def charge_ids(self) -> list[str]:
        """The charges whose spans have come, once for each time."""
        return [str(span.attributes["costinsights.charge_id"]) for span in self.spans]

    @contextlib.contextmanager
    def down(self) -> Generator[None]:
        """Refuse connections for a while."""
        self._server.stop(None).wait()
        try:
            yield
        finally:
            self._start()

    def _start(self) -> None:
        def plain(data: bytes) -> bytes:
            return data

        methods = {
            f"{SERVICE}.trace.v1.TraceService": self._traces,
            f"{SERVICE}.logs.v1.LogsService": self._logs,
        }
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        for service, method in methods.items():
            handler = grpc.unary_unary_rpc_method_handler(method, plain, plain)
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {"Export": handler}),)
            )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def __enter__(self) -> GRPCSink:
        return self

    def __exit__(self, *details: object) -> None:
        self._ending.set()
        self._server.stop(None).wait()

    def _traces(self, request: bytes, context: Any) -> bytes:
        self._answer(context)
        self.spans.extend(read_traces(request)[self.refused :])
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans = self.refused
        return bytes(answer.SerializeToString())

    def _logs(self, request: bytes, context: Any) -> bytes:
        self._answer(context)
        self.logs.extend(read_logs(request))
        return bytes(ExportLogsServiceResponse().SerializeToString())

    def _answer(self, context: Any) -> None:
        self.requests.append(dict(context.invocation_metadata()))
        if self.hangs:
            self._ending.wait(60)
        if self.status:
            if self.retry_seconds:
                retry = resolve_name("google.rpc.error_details_pb2:RetryInfo")()
                retry.retry_delay.seconds = self.retry_seconds
                detail = retry.SerializeToString()
                context.set_trailing_metadata((("google.rpc.retryinfo-bin", detail),))
            context.abort(getattr(grpc.StatusCode, self.status), self.details)
