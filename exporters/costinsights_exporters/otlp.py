"""Sends each charge as a span to an OpenTelemetry Collector, or anything else that speaks OTLP.

::

    pip install 'costinsights[otlp]'
    OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318 COSTINSIGHTS_EXPORTERS=otlp python app.py

Connections are those of OpenTelemetry's own OTLP exporters, set up by its own variables:
``OTEL_EXPORTER_OTLP_ENDPOINT``, ``_PROTOCOL`` (``http/protobuf``, the default, or ``grpc``),
``_HEADERS``, ``_TIMEOUT``, ``_COMPRESSION``, ``_CERTIFICATE``, ``_CLIENT_KEY``,
``_CLIENT_CERTIFICATE``, ``_INSECURE``, and their ``_TRACES_`` and ``_LOGS_`` forms. The options
``endpoint``, ``protocol``, ``headers``, ``timeout`` (seconds) and ``compression`` say the same in
costinsights' configuration, and go before the variables.

A span cannot be changed once it is out. A later figure for its charge goes out as a log record
with the span's trace id and span id, named ``costinsights.charge.revised``; a collector that takes
no logs makes it a skipped one. Every call goes out, whether or not its trace was sampled: the
sampled flag is in the span's flags.

What happens to answers: 2xx is taken; 400, 413 and 422 are refused for good, and so is gRPC's
``INVALID_ARGUMENT``; everything else is tried again, wrong addresses and expired passwords
included, until it works. No redirect is followed, and of an answer at most 64 KiB are read.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from costinsights import __version__
from costinsights.exporter import ExportError, ExporterUnavailable, Progress
from costinsights_exporters._otlp_doors import Door, NotServed, open_door
from costinsights_exporters._otlp_messages import Messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from costinsights.records import Charge
    from costinsights.semconv import Value

Signal = Literal["traces", "logs"]


class OTLPOptions(msgspec.Struct, frozen=True):
    """Options of the otlp exporter; what is empty is taken from OpenTelemetry's variables."""

    endpoint: str = ""
    protocol: Literal["", "http/protobuf", "grpc"] = ""
    headers: dict[str, str] = {}
    timeout: float | None = None
    compression: Literal["", "none", "gzip", "deflate"] = ""


class OTLPExporter:
    """Exports charges as spans, and their later figures as log records, over OTLP."""

    name = "otlp"
    Options = OTLPOptions

    def __init__(self, options: OTLPOptions | None = None) -> None:
        self._options = options or OTLPOptions()
        self._environment = _environment_resource()
        self._messages = Messages(self._resource)
        self._doors: dict[Signal, Door] = {}
        self._pid = os.getpid()
        self._progress = Progress()
        self._refused = 0
        self._refusal = ""
        self.skipped = 0
        """Later figures that the collector does not take."""

    def export(self, batch: Sequence[Charge]) -> None:
        """Send the charges.

        Raises:
            ExportError: they, or some of them, did not arrive or were refused.
            ExporterUnavailable: OpenTelemetry's OTLP exporters are not installed, or cannot be
                set up as the environment says.
        """
        if self._pid != os.getpid():  # a parent's connections are the parent's
            self._doors.clear()
            self._pid = os.getpid()
        new: list[Charge] = []
        later: list[Charge] = []
        for charge in self._progress.rest(batch):
            (later if charge.revision else new).append(charge)
        if new:
            self._send("traces", self._messages.traces(new))
        if later:
            self._send("logs", self._messages.logs(later))
        self._progress.passed(batch)
        refused, self._refused = self._refused, 0
        if refused:
            raise ExportError(self._refusal, retryable=False, refused=refused)

    def _send(self, signal: Signal, requests: Iterable[tuple[list[Charge], bytes]]) -> None:
        for charges, request in requests:
            door = self._doors.get(signal)
            if door is None:
                door = self._doors[signal] = open_door(
                    signal, self._protocol(signal), self._options
                )
            try:
                answer = door.send(request, charges)
            except NotServed as error:
                if signal == "traces":
                    raise ExportError(str(error), retryable=True) from error
                self.skipped += len(charges)
            except ExportError:
                if door.is_stuck:
                    del self._doors[signal]
                    door.close()
                raise
            else:
                self._refused += min(answer.refused, len(charges))
                self._refusal = answer.reason or self._refusal
            self._progress.took(charges)

    def _protocol(self, signal: Signal) -> str:
        variables = (
            f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        )
        given = next((value for name in variables if (value := os.environ.get(name))), "")
        return self._options.protocol or given.strip() or "http/protobuf"

    def _resource(self, charge: Charge) -> Mapping[str, Value]:
        """Return the resource of the process that recorded the charge, which may be a dead one."""
        resource: dict[str, Value] = {
            "telemetry.sdk.language": "python",
            "telemetry.sdk.name": "costinsights",
            "telemetry.sdk.version": __version__,
            **self._environment,
            "host.name": charge.host,
            "process.pid": charge.pid,
        }
        if charge.service:
            resource["service.name"] = charge.service
        return resource

    def shutdown(self) -> None:
        """Close the connections."""
        for door in self._doors.values():
            door.close()
        self._doors.clear()


def _environment_resource() -> dict[str, Value]:
    """Return what ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME`` say."""
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector
    except ImportError as error:
        raise ExporterUnavailable(missing(error)) from error
    found: dict[str, Any] = dict(OTELResourceDetector().detect().attributes)
    return {"service.name": "unknown_service", **found}


def missing(error: ImportError) -> str:
    """Return what to do about a part of OpenTelemetry that is not there."""
    return f"{error.name or 'OpenTelemetry'} is not installed; run pip install 'costinsights[otlp]'"
