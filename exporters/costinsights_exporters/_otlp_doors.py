"""The way out for OTLP: the connections of OpenTelemetry's own exporters, with our own manners.

The stock exporters read the environment and know proxies, certificates, credentials and
compression, so they are made as they are, and what they send with is used: an HTTP session, or a
gRPC stub. Their own sending is passed by, because it encodes, takes a redirect for success, reads
an answer of any length, and drops a batch after ten seconds. Where a version of theirs has no such
session or stub, their public ``export`` is called with whole spans instead.
"""

from __future__ import annotations

import gzip
import zlib
from email.utils import parsedate_to_datetime
from math import isfinite
from pkgutil import resolve_name
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit

from costinsights.exporter import ExportError, ExporterUnavailable
from costinsights.semconv import attributes, epoch_ns, scope_name, span_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from costinsights.records import Charge
    from costinsights_exporters.otlp import OTLPOptions

Signal = Literal["traces", "logs"]

# Answers that say: these data, never. Whatever else is wrong can be put right at the other end.
HTTP_REFUSED = frozenset({400, 413, 422})
GRPC_REFUSED = frozenset({"INVALID_ARGUMENT"})
# Answers that say: this signal is not taken here at all.
HTTP_NOT_SERVED = frozenset({404, 405, 501})
GRPC_NOT_SERVED = frozenset({"UNIMPLEMENTED", "NOT_FOUND"})

MAX_ANSWER = 64 * 1024

_OTLP = "opentelemetry.exporter.otlp.proto"
STOCK: dict[tuple[str, Signal], str] = {
    ("http", "traces"): f"{_OTLP}.http.trace_exporter:OTLPSpanExporter",
    ("http", "logs"): f"{_OTLP}.http._log_exporter:OTLPLogExporter",
    ("grpc", "traces"): f"{_OTLP}.grpc.trace_exporter:OTLPSpanExporter",
    ("grpc", "logs"): f"{_OTLP}.grpc._log_exporter:OTLPLogExporter",
}
_COLLECTOR = "opentelemetry.proto.collector"
MESSAGES: dict[Signal, str] = {
    "traces": f"{_COLLECTOR}.trace.v1.trace_service_pb2:ExportTraceService",
    "logs": f"{_COLLECTOR}.logs.v1.logs_service_pb2:ExportLogsService",
}


class NotServed(Exception):
    """There is nobody for this signal at the other end."""


class Answer(NamedTuple):
    """What the other end says of a request that it has taken."""

    refused: int = 0
    """So many of the request it did not take; it does not say which."""
    reason: str = ""


class Door(Protocol):
    """One way to one destination for one signal."""

    is_stuck: bool
    """After an error: it is better to open a new one."""

    def send(self, request: bytes, charges: Sequence[Charge]) -> Answer:
        """Send an encoded request.

        Raises:
            ExportError: it did not arrive, or was refused.
            NotServed: there is nobody for it.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


def open_door(signal: Signal, protocol: str, options: OTLPOptions) -> Door:
    """Return the door for a signal, as OpenTelemetry's variables and `options` say.

    Raises:
        ExporterUnavailable: OpenTelemetry's exporter is not installed, or refuses its settings.
    """
    openers: dict[str, Callable[[Signal, OTLPOptions], Door]] = {
        "http/protobuf": _open_http,
        "grpc": _open_grpc,
    }
    if protocol not in openers:
        raise ExporterUnavailable(
            f"the protocol {protocol!r} is not one of {' and '.join(openers)}"
        )
    try:
        return openers[protocol](signal, options)
    except ImportError as error:
        raise ExporterUnavailable(
            f"{error.name or 'OpenTelemetry'} is not installed; "
            "run pip install 'costinsights[otlp]'"
        ) from error
    except Exception as error:
        raise ExporterUnavailable(f"{type(error).__name__}: {error}") from error


# --- HTTP ---------------------------------------------------------------------------------------


def _open_http(signal: Signal, options: OTLPOptions) -> Door:
    settings = _settings(options)
    if options.endpoint:
        settings["endpoint"] = f"{options.endpoint.rstrip('/')}/v1/{signal}"
    if options.compression:
        compression = resolve_name("opentelemetry.exporter.otlp.proto.http:Compression")
        settings["compression"] = compression(options.compression)
    stock = resolve_name(STOCK["http", signal])(**settings)
    try:
        return HTTPDoor(signal, stock)
    except AttributeError:
        return PublicDoor(signal, stock)


class HTTPDoor:
    """Sends with the session of a stock exporter.

    Raises:
        AttributeError: this version of it has no such session.
    """

    def __init__(self, signal: Signal, stock: Any) -> None:
        # Since 1.44 what sends is in objects of its own, before it was in the exporter itself.
        client = getattr(stock, "_client", stock)
        transport = getattr(client, "_transport", client)
        self._session = transport._session  # noqa: SLF001  see the module's docstring
        self._post = self._session.post
        # Passed each time, or REQUESTS_CA_BUNDLE would go before OpenTelemetry's variable.
        self._verify: dict[str, str] = {}
        if isinstance(self._session.verify, str):
            self._verify["verify"] = self._session.verify
        self._url: str = client._endpoint  # noqa: SLF001
        self._timeout = float(client._timeout)  # noqa: SLF001
        self._headers: dict[str, str] = dict(client._headers)  # noqa: SLF001
        self._compression = str(client._compression.value)  # noqa: SLF001
        if self._compression not in ("none", ""):
            self._headers["Content-Encoding"] = self._compression
        self._response = resolve_name(MESSAGES[signal] + "Response")
        self._place = _place(self._url)
        self.is_stuck = False

    def send(self, request: bytes, charges: Sequence[Charge]) -> Answer:
        del charges
        deadline = monotonic() + self._timeout
        try:
            response = self._post(
                self._url,
                data=_compressed(request, self._compression),
                headers=self._headers,
                timeout=self._timeout,
                allow_redirects=False,  # they would take the headers, and secrets in them, along
                stream=True,
                **self._verify,
            )
        except Exception as error:
            raise ExportError(f"{self._place}: {_cause(error)}", retryable=True) from error
        with response:
            status: int = response.status_code
            if 200 <= status < 300:
                return _answer(self._response, beginning(response, deadline))
            raise self._refusal(status, response.headers)

    def _refusal(self, status: int, headers: Mapping[str, str]) -> Exception:
        text = f"{self._place} answers {status}"
        if status in HTTP_NOT_SERVED:
            return NotServed(text)
        if 300 <= status < 400:
            text += ", a redirect, which is not followed: set the endpoint to where it leads"
        return ExportError(
            text,
            retryable=status not in HTTP_REFUSED,
            retry_after=retry_after_seconds(headers.get("Retry-After")),
        )

    def close(self) -> None:
        self._session.close()


def _compressed(data: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(data, 6)
    if how == "deflate":
        return zlib.compress(data)
    return data


def beginning(response: Any, deadline: float) -> bytes:
    """Return the beginning of an answer, uncompressed; empty when it is long in coming."""
    raw = response.raw
    read = getattr(raw, "read1", raw.read)
    data = b""
    try:
        while len(data) < MAX_ANSWER and monotonic() < deadline:
            chunk = read(4096, decode_content=False)
            if not chunk:
                break
            data += chunk
        if response.headers.get("Content-Encoding") == "gzip":
            data = zlib.decompressobj(31).decompress(data, MAX_ANSWER)
    except Exception:  # noqa: BLE001  the status says that the request was taken
        return b""
    return data


def retry_after_seconds(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, whichever of its two forms."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, seconds) if isfinite(seconds) else None


def _place(url: str) -> str:
    """Return host and port of an address, without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _cause(error: BaseException) -> str:
    """Return what is behind an error of the HTTP library, without the address in its text."""
    found: Any = error
    for _ in range(10):
        if not isinstance(found, BaseException):
            break
        if isinstance(found, OSError) and found.errno and found.strerror:
            return found.strerror
        inside = [part for part in found.args if isinstance(part, BaseException)]
        reason = getattr(found, "reason", None)
        found = next(iter(inside), reason or found.__cause__ or found.__context__)
    return type(error).__name__


# --- gRPC ---------------------------------------------------------------------------------------


def _open_grpc(signal: Signal, options: OTLPOptions) -> Door:
    settings = _settings(options)
    if options.endpoint:
        settings["endpoint"] = options.endpoint
    if options.compression:
        compression = resolve_name("grpc:Compression")
        settings["compression"] = {
            "none": compression.NoCompression,
            "gzip": compression.Gzip,
            "deflate": compression.Deflate,
        }[options.compression]
    stock = resolve_name(STOCK["grpc", signal])(**settings)
    try:
        return GRPCDoor(signal, stock)
    except AttributeError:
        return PublicDoor(signal, stock)


class GRPCDoor:
    """Calls the stub of a stock exporter.

    Raises:
        AttributeError: this version of it has no such stub.
    """

    def __init__(self, signal: Signal, stock: Any) -> None:
        self._stock = stock
        self._call = stock._client.Export  # noqa: SLF001  see the module's docstring
        self._headers = tuple(stock._headers or ())  # noqa: SLF001
        self._timeout = float(stock._timeout)  # noqa: SLF001
        self._place = str(stock._endpoint)  # noqa: SLF001
        self._message = resolve_name(MESSAGES[signal] + "Request")
        self._failure: type[Exception] = resolve_name("grpc:RpcError")
        self.is_stuck = False

    def send(self, request: bytes, charges: Sequence[Charge]) -> Answer:
        del charges
        try:
            answer = self._call(
                self._message.FromString(request), metadata=self._headers, timeout=self._timeout
            )
        except self._failure as error:
            raise self._refusal(error) from error
        return _partial(answer)

    def _refusal(self, error: Any) -> Exception:
        code: str = error.code().name
        text = f"{self._place} answers {code}"
        if code in GRPC_NOT_SERVED:
            return NotServed(text)
        too_large = code == "RESOURCE_EXHAUSTED" and "larger than max" in (error.details() or "")
        # A channel that could not connect waits for up to two minutes before it tries again.
        self.is_stuck = code == "UNAVAILABLE"
        return ExportError(
            text,
            retryable=code not in GRPC_REFUSED and not too_large,
            retry_after=_retry_delay(error),
        )

    def close(self) -> None:
        self._stock.shutdown()


def _retry_delay(error: Any) -> float | None:
    trailer: dict[str, Any] = dict(error.trailing_metadata() or ())
    found = trailer.get("google.rpc.retryinfo-bin")
    if found is None:
        return None
    delay = resolve_name("google.rpc.error_details_pb2:RetryInfo").FromString(found).retry_delay
    return max(0.0, float(delay.seconds + delay.nanos / 10**9))


# --- what both have in common -------------------------------------------------------------------


def _settings(options: OTLPOptions) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if options.headers:
        settings["headers"] = dict(options.headers)
    if options.timeout is not None:
        settings["timeout"] = options.timeout
    return settings


def _answer(kind: Any, data: bytes) -> Answer:
    try:
        return _partial(kind.FromString(data))
    except Exception:  # noqa: BLE001  no answer of OTLP's, but the status says that it was taken
        return Answer()


def _partial(message: Any) -> Answer:
    partial = message.partial_success
    # Traces have one of these fields, logs the other.
    count = getattr(partial, "rejected_spans", 0) or getattr(partial, "rejected_log_records", 0)
    return Answer(max(0, int(count)), "the collector took the rest of the batch")


class PublicDoor:
    """Calls the stock exporter's public ``export``: dearer, and with less to say about failures."""

    def __init__(self, signal: Signal, stock: Any) -> None:
        self._signal = signal
        self._stock = stock
        self.is_stuck = False

    def send(self, request: bytes, charges: Sequence[Charge]) -> Answer:
        """Send the charges as spans that the stock exporter encodes; `request` is not used."""
        del request
        if self._signal == "logs":
            raise NotServed("this version of OpenTelemetry's exporter takes no log records of ours")
        result = self._stock.export([readable(charge) for charge in charges])
        if result.name != "SUCCESS":
            raise ExportError("OpenTelemetry's exporter reports a failure", retryable=True)
        return Answer()

    def close(self) -> None:
        """Shut the stock exporter down."""
        self._stock.shutdown()


def readable(charge: Charge) -> Any:
    """Return the charge as the SDK's own kind of finished span."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    flags = TraceFlags(charge.trace_flags)
    trace_id = int(charge.trace_id, 16)
    parent = charge.parent_span_id
    return ReadableSpan(
        name=span_name(charge),
        context=SpanContext(trace_id, int(charge.span_id, 16), is_remote=False, trace_flags=flags),
        parent=SpanContext(trace_id, int(parent, 16), is_remote=False, trace_flags=flags)
        if parent
        else None,
        resource=OTELResourceDetector()
        .detect()
        .merge(
            Resource(
                {
                    "service.name": charge.service or "unknown_service",
                    "host.name": charge.host,
                    "process.pid": charge.pid,
                }
            )
        ),
        attributes=attributes(charge),
        kind=SpanKind.CLIENT,
        status=Status(StatusCode.ERROR, charge.error.type) if charge.error else Status(),
        start_time=epoch_ns(charge.started_at),
        end_time=epoch_ns(charge.ended_at),
        instrumentation_scope=InstrumentationScope(scope_name(charge)),
    )
