"""Reads segments back into whole charges, and says what it had to set aside.

A reader keeps its place: `SegmentReader.read` returns what has come since the last call, so that
a follower, a report and ``costinsights ledger cat`` are one piece of code.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from costinsights.ledger.seal import is_sealed
from costinsights.ledger.writer import SEGMENTS
from costinsights.records import (
    AttributionLine,
    Charge,
    EntryLine,
    ErrorInfo,
    HeaderLine,
    Line,
    LossLine,
    PriceInfo,
    PriceLineRef,
    Resource,
    ResourceLine,
    StatementInfo,
    StatementLine,
    decimal_text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_decode = msgspec.json.Decoder(Line).decode


def segments(directory: str) -> list[str]:
    """Return the paths of a ledger's segments, oldest first; none when there is no ledger."""
    folder = os.path.join(directory, SEGMENTS)
    try:
        with os.scandir(folder) as found:
            entries = [
                (entry.stat().st_mtime_ns, entry.path)
                for entry in found
                if entry.name.endswith(".jsonl")
            ]
    except FileNotFoundError:
        return []
    return [path for _, path in sorted(entries)]


def is_live(path: str) -> bool:
    """Tell whether the process that writes this file, a segment say, still holds it."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def timestamp(epoch_ns: int) -> str:
    """Write nanoseconds since the epoch as RFC 3339 in UTC, to the microsecond."""
    moment = _EPOCH + timedelta(microseconds=epoch_ns // 1000)
    return f"{moment.isoformat(timespec='microseconds')[:26]}Z"


def span_ids(charge_id: str) -> tuple[str, str]:
    """Return the trace id and span id of a charge that had no parent: always the same two."""
    digest = blake2b(charge_id.encode(), digest_size=24).hexdigest()
    return digest[:32], digest[32:]


class SegmentReader:
    """Follows one segment. `torn` counts lines set aside, `lost` what the writer said it lost."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.offset = 0
        self.torn = 0
        self.lost: dict[str, int] = {}
        self.header: HeaderLine | None = None
        self._statements: dict[int, tuple[StatementInfo, str]] = {}
        self._resources: dict[int, tuple[ResourceLine, Resource]] = {}
        self._attributions: dict[int, dict[str, str]] = {}
        self._prices: dict[int, tuple[PriceLineRef, PriceInfo]] = {}

    def read(self, limit: int | None = None, *, ended: bool = False) -> list[Charge]:
        """Return the charges that came since the last call, at most about `limit` of them.

        With `ended`, the writer is known to be dead, and a last line without its end is torn.
        """
        charges: list[Charge] = []
        for line in self.lines(ended=ended):
            if isinstance(line, EntryLine):
                charge = self._charge(line)
                if charge is None:
                    self.torn += 1
                else:
                    charges.append(charge)
                    if limit is not None and len(charges) >= limit:
                        break
        return charges

    def lines(self, *, ended: bool = False) -> Iterator[Line]:
        """Yield each whole line as it stands; `offset` is always just behind the last one."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            rest = b""
            while chunk := file.read(CHUNK):
                parts = (rest + chunk).split(b"\n")
                rest = parts.pop()
                for raw in parts:
                    self.offset += len(raw) + 1
                    if (line := self._line(raw)) is not None:
                        yield line
            if rest and ended:
                self.offset += len(rest)
                if (line := self._line(rest)) is not None:
                    yield line

    def _line(self, raw: bytes) -> Line | None:
        if not raw:
            return None
        if not is_sealed(raw):
            self.torn += 1
            return None
        try:
            line: Line = _decode(raw)
        except msgspec.MsgspecError:
            self.torn += 1
            return None
        if isinstance(line, EntryLine):
            return line
        self._define(line)
        return line

    def _define(self, line: Line) -> None:
        if isinstance(line, StatementLine):
            info = StatementInfo(line.fingerprint, line.summary, line.text)
            self._statements[line.i] = (info, line.operation)
        elif isinstance(line, ResourceLine):
            where = Resource(line.address, line.port, line.namespace, line.service, line.region)
            self._resources[line.i] = (line, where)
        elif isinstance(line, AttributionLine):
            self._attributions[line.i] = line.labels
        elif isinstance(line, PriceLineRef):
            info_ = PriceInfo(
                line.key, line.unit_price, line.unit, line.source, line.as_of, line.book
            )
            self._prices[line.i] = (line, info_)
        elif isinstance(line, HeaderLine):
            self.header = line
        elif isinstance(line, LossLine):
            for reason, count in line.dropped.items():
                self.lost[reason] = self.lost.get(reason, 0) + count

    def _charge(self, line: EntryLine) -> Charge | None:
        header = self.header
        found = self._resources.get(line.r)
        attribution = self._attributions.get(line.a)
        if header is None or found is None or attribution is None:
            return None  # its definition was torn: the entry says nothing any more
        kind, resource = found
        statement, operation = self._statements.get(line.s, (None, ""))
        priced = self._prices.get(line.p)
        charge_id = line.c or f"{header.process}-{line.n}"
        trace_id, span_id = span_ids(charge_id)
        parent, flags = None, 1
        if line.x:
            _, trace_id, parent, flag = line.x.split("-")
            flags = int(flag, 16)
        usage: dict[str, int | float | str] = {"time_ns": line.d}
        if line.f:
            usage["capacity_seconds"] = decimal_text(line.f)
        if line.u:
            usage.update(line.u)
        return Charge(
            charge_id=charge_id,
            revision=line.v,
            system=kind.system,
            resource=resource,
            operation=line.o or operation,
            statement=statement,
            started_at=timestamp(line.t),
            ended_at=timestamp(line.t + (line.y or line.d)),
            duration_ns=line.d,
            usage=usage,
            rows=line.w,
            amount=decimal_text(line.m) if isinstance(line.m, int) else line.m,
            currency=priced[0].currency if priced and line.m is not None else None,
            basis=line.b or ("unknown" if line.m is None else "estimated"),
            price=priced[1] if priced else None,
            attribution=attribution.copy(),  # an exporter may do with it as it likes
            tag=line.g,
            vendor_id=line.i,
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent,
            trace_flags=flags,
            error=ErrorInfo(*line.e) if line.e else None,
            partial=line.l,
            service=header.service,
            host=header.host,
            pid=header.pid,
            instrumentor=kind.instrumentor,
        )


def read_ledger(directory: str) -> Iterator[Charge]:
    """Yield every entry of every segment, revisions and all, and what is still in tallies."""
    from tempfile import TemporaryDirectory

    from costinsights.ledger.tallies import copied, paths

    with TemporaryDirectory(prefix="costinsights-") if paths(directory) else nullcontext() as place:
        tallied = [] if place is None else copied(directory, place)
        for path in (*segments(directory), *tallied):
            reader = SegmentReader(path)
            try:
                yield from reader.read(ended=not is_live(path))
            except FileNotFoundError:
                continue  # compacted while we looked
