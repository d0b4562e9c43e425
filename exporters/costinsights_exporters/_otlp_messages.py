"""Writes OTLP's protobuf messages, with everything that repeats encoded once.

OpenTelemetry's encoder builds an object for each value of each attribute and costs more than all
the rest of exporting. Here an attribute is the bytes that it will be in the message; those of a
resource, a statement, an attribution and a price are kept and joined. What comes out is read with
OpenTelemetry's own protobuf classes in the tests.

Field numbers: https://github.com/open-telemetry/opentelemetry-proto, ``trace.proto``,
``logs.proto``, ``common.proto``, ``resource.proto``.
"""

from __future__ import annotations

from struct import Struct
from time import time_ns
from typing import TYPE_CHECKING

from costinsights import __version__
from costinsights.semconv import REVISED, SECTIONS, epoch_ns, scope_name, span_name

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

    from costinsights.records import Charge
    from costinsights.semconv import Value

# gRPC servers refuse messages over 4 MiB unless told otherwise.
MAX_REQUEST = 3 * 1024 * 1024
MAX_KEPT = 4096
MAX_KEPT_BYTES = 4 * 1024 * 1024

_fixed64 = Struct("<Q").pack
_fixed32 = Struct("<I").pack
_double = Struct("<d").pack
_SMALL = [bytes((number,)) for number in range(128)]
# Attributes' names as they stand in every message.
_names: dict[str, bytes] = {}

_SPAN_KIND_CLIENT = b"\x30\x03"
_STATUS_CODE_ERROR = b"\x18\x02"
_SEVERITY_INFO = b"\x10\x09"
# The parent is known to be of the same process.
_CONTEXT_HAS_IS_REMOTE = 0x100


def varint(number: int) -> bytes:
    """Encode a whole number, 0 ≤ number < 2⁶⁴."""
    if number < 128:
        return _SMALL[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def nested(tag: bytes, body: bytes) -> bytes:
    """Encode a string, bytes or message behind its tag."""
    size = len(body)
    return tag + (_SMALL[size] if size < 128 else varint(size)) + body


def utf8(text: str) -> bytes:
    """Encode text; what is no character becomes a question mark, as the message must be valid."""
    return text.encode("utf-8", "replace")


def any_value(value: Value) -> bytes:
    """Encode an ``AnyValue``; a whole number beyond 64 bits as text."""
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            return b"\x18" + varint(value & 0xFFFF_FFFF_FFFF_FFFF)
        value = str(value)
    if isinstance(value, float):
        return b"\x21" + _double(value)
    return nested(b"\x0a", utf8(value))


def key_values(tag: bytes, pairs: Iterable[tuple[str, Value]]) -> bytes:
    """Encode attributes, each a ``KeyValue`` behind `tag`."""
    parts: list[bytes] = []
    for name, value in pairs:
        key = _names.get(name)
        if key is None:
            key = nested(b"\x0a", utf8(name)) + b"\x12"
            if len(_names) < MAX_KEPT:
                _names[name] = key
        inner = any_value(value)
        length = varint(len(inner))
        parts += (tag, varint(len(key) + len(length) + len(inner)), key, length, inner)
    return b"".join(parts)


class Messages:
    """Encodes charges as export requests.

    Args:
        resource: Returns the attributes of the resource (service, host, process) of a charge.
    """

    def __init__(self, resource: Callable[[Charge], Mapping[str, Value]]) -> None:
        self._resource = resource
        self._kept: dict[Hashable, bytes] = {}
        self._kept_bytes = 0

    def traces(self, charges: Sequence[Charge]) -> Iterator[tuple[list[Charge], bytes]]:
        """Yield ``ExportTraceServiceRequest``s of limited size, each with the charges in it."""
        return self._requests(charges, self.span)

    def logs(self, charges: Sequence[Charge]) -> Iterator[tuple[list[Charge], bytes]]:
        """Yield ``ExportLogsServiceRequest``s likewise."""
        return self._requests(charges, self.log_record)

    def _requests(
        self, charges: Sequence[Charge], encode: Callable[[Charge], bytes]
    ) -> Iterator[tuple[list[Charge], bytes]]:
        # Messages for traces and for logs are nested alike, under the same numbers.
        groups: dict[tuple[str, str, int, str], list[bytes]] = {}
        within: list[Charge] = []
        size = 0
        for charge in charges:
            item = nested(b"\x12", encode(charge))
            if within and size + len(item) > MAX_REQUEST:
                yield within, self._request(groups, within)
                groups, within, size = {}, [], 0
            process = (charge.service, charge.host, charge.pid, charge.instrumentor)
            group = groups.get(process)
            if group is None:
                group = groups[process] = []
            group.append(item)
            within.append(charge)
            size += len(item)
        if within:
            yield within, self._request(groups, within)

    def _request(
        self, groups: dict[tuple[str, str, int, str], list[bytes]], charges: list[Charge]
    ) -> bytes:
        samples = {
            (charge.service, charge.host, charge.pid, charge.instrumentor): charge
            for charge in charges
        }
        request: list[bytes] = []
        for process, items in groups.items():
            sample = samples[process]
            resource = key_values(b"\x0a", self._resource(sample).items())
            scope = nested(b"\x0a", utf8(scope_name(sample)))
            scope += nested(b"\x12", utf8(__version__))
            scoped = nested(b"\x0a", scope) + b"".join(items)
            request.append(nested(b"\x0a", nested(b"\x0a", resource) + nested(b"\x12", scoped)))
        return b"".join(request)

    def span(self, charge: Charge) -> bytes:
        """Encode a ``Span``."""
        parent = charge.parent_span_id
        error = charge.error
        return b"".join(
            (
                b"\x0a\x10",
                bytes.fromhex(charge.trace_id),
                b"\x12\x08",
                bytes.fromhex(charge.span_id),
                b"\x22\x08" + bytes.fromhex(parent) if parent else b"",
                nested(b"\x2a", utf8(span_name(charge))),
                _SPAN_KIND_CLIENT,
                b"\x39",
                _fixed64(epoch_ns(charge.started_at)),
                b"\x41",
                _fixed64(epoch_ns(charge.ended_at)),
                self._attributes(charge),
                nested(b"\x7a", nested(b"\x12", utf8(error.type)) + _STATUS_CODE_ERROR)
                if error
                else b"",
                b"\x85\x01",
                _fixed32(charge.trace_flags | _CONTEXT_HAS_IS_REMOTE),
            )
        )

    def _attributes(self, charge: Charge) -> bytes:
        parts: list[bytes] = []
        for number, section in enumerate(SECTIONS):
            if section.key is None:
                parts.append(key_values(b"\x4a", section.read(charge)))
                continue
            key = (number, section.key(charge))
            kept = self._kept.get(key)
            if kept is None:
                kept = key_values(b"\x4a", section.read(charge))
                self._keep(key, kept)
            parts.append(kept)
        return b"".join(parts)

    def _keep(self, key: Hashable, fragment: bytes) -> None:
        self._kept_bytes += len(fragment)
        if len(self._kept) >= MAX_KEPT or self._kept_bytes > MAX_KEPT_BYTES:
            self._kept.clear()
            self._kept_bytes = len(fragment)
        self._kept[key] = fragment

    def log_record(self, charge: Charge) -> bytes:
        """Encode a ``LogRecord`` that carries later figures for a span that is out."""
        attributes = (pair for section in SECTIONS for pair in section.read(charge))
        return b"".join(
            (
                b"\x09",
                _fixed64(epoch_ns(charge.ended_at)),
                _SEVERITY_INFO,
                nested(b"\x2a", any_value(f"later figures for {span_name(charge)}")),
                key_values(b"\x32", attributes),
                b"\x45",
                _fixed32(charge.trace_flags),
                b"\x4a\x10",
                bytes.fromhex(charge.trace_id),
                b"\x52\x08",
                bytes.fromhex(charge.span_id),
                b"\x59",
                _fixed64(time_ns()),
                nested(b"\x62", utf8(REVISED)),
            )
        )
