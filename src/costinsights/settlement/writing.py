"""Writes whole charges into the ledger, as later entries of what is there or as new ones.

The entries of one program's charges go into a segment that names this program, so that a settled
charge keeps its service, host and process, and the exporters of that service find it.
"""

from __future__ import annotations

import os
from itertools import count
from time import time_ns
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights import __version__, positions
from costinsights.guard import say
from costinsights.ledger.seal import seal
from costinsights.ledger.writer import LedgerError, Writer
from costinsights.records import (
    DECIMALS,
    MAX_INTEGER,
    AttributionLine,
    Charge,
    EntryLine,
    HeaderLine,
    PriceLineRef,
    ResourceLine,
    StatementLine,
)
from costinsights.semconv import epoch_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_OURS = ("time_ns", "capacity_seconds")
"""What of a charge's usage has a place of its own in an entry."""

_encode = msgspec.json.Encoder().encode


def write(
    directory: str,
    charges: Iterable[Charge],
    *,
    exporters: Iterable[str] = (),
    progress: Callable[[int], None] | None = None,
) -> int:
    """Write each charge as an entry, and return how many; they are on the disk when this returns.

    `exporters` are those that are to bring the entries to their destinations.

    Raises:
        LedgerError: some could not be written; those that were are whole.
    """
    programs: dict[tuple[str, str, int], list[Charge]] = {}
    for charge in charges:
        programs.setdefault((charge.service, charge.host, charge.pid), []).append(charge)
    done = 0
    for (service, host, pid), same in sorted(programs.items(), key=lambda item: item[0]):
        segment = _Segment(directory, service, host, pid, tuple(exporters))
        try:
            for charge in same:
                segment.put(charge)
                done += 1
                if progress is not None:
                    progress(done)
        finally:
            segment.close()
    return done


def units(amount: str) -> int:
    """Return a charge's amount, or capacity, as whole 10⁻¹⁵."""
    whole, _, decimals = amount.lstrip("-").partition(".")
    found = int(whole + decimals[:DECIMALS].ljust(DECIMALS, "0"))
    return -found if amount.startswith("-") else found


class _Definition:
    def __init__(self, number: int, line: bytes) -> None:
        self.number = number
        self.line = line


class _Segment:
    """The segments of one program's charges."""

    def __init__(
        self, directory: str, service: str, host: str, pid: int, exporters: tuple[str, ...]
    ) -> None:
        self._program = (service, host, pid)
        self._exporters = exporters
        self._numbers = count(1)
        self._known: dict[object, _Definition] = {}
        self._process = os.urandom(10).hex()
        self._writer = Writer(directory, self._process, self._header, say, self._begun)

    def _header(self) -> bytes:
        return seal(_encode(HeaderLine(1, self._process, *self._program, time_ns(), __version__)))

    def _begun(self) -> None:
        path = self._writer.path
        for exporter in self._exporters:
            if path is not None:
                segment = positions.segment_name(path)
                positions.register(self._writer.directory, exporter, segment, self._program[0])

    def put(self, charge: Charge) -> None:
        where = self._define(
            ResourceLine,
            charge.system,
            charge.instrumentor,
            *msgspec.structs.astuple(charge.resource),
        )
        labels = self._define(AttributionLine, charge.attribution)
        statement = price = None
        if charge.statement is not None:
            shape = charge.statement
            statement = self._define(
                StatementLine, shape.fingerprint, charge.operation, shape.summary, shape.text
            )
        if charge.price is not None:
            paid = charge.price
            price = self._define(
                PriceLineRef,
                paid.key,
                paid.unit_price,
                paid.unit,
                charge.currency or "",
                paid.source,
                paid.as_of,
                paid.book,
            )
        entry = entry_of(charge)
        entry.n = next(self._numbers)
        entry.r, entry.a = where.number, labels.number
        entry.s = 0 if statement is None else statement.number
        entry.p = 0 if price is None else price.number
        definitions = (where, labels, statement, price)
        key = tuple(0 if known is None else known.number for known in definitions)
        self._writer.append(seal(_encode(entry)), key, definitions)

    def _define(self, kind: type[Any], *fields: object) -> _Definition:
        key = (kind, _encode(fields))
        found = self._known.get(key)
        if found is None:
            number = next(self._numbers)
            found = self._known[key] = _Definition(number, seal(_encode(kind(number, *fields))))
        return found

    def close(self) -> None:
        """End the segment.

        Raises:
            LedgerError: the disk refused some of the entries.
        """
        writer = self._writer
        writer.close()
        if writer.dropped:
            lost = sum(writer.dropped.values())
            raise LedgerError(
                f"{lost} entries could not be written to {writer.directory}: make room, and settle "
                "again"
            )


def entry_of(charge: Charge) -> EntryLine:
    """Return a charge as an entry under its whole id, without the numbers that it refers to."""
    start = epoch_ns(charge.started_at)
    elapsed = epoch_ns(charge.ended_at) - start
    amount = None if charge.amount is None else units(charge.amount)
    usual = "unknown" if amount is None else "estimated"
    parent = None
    if charge.parent_span_id is not None:
        parent = f"00-{charge.trace_id}-{charge.parent_span_id}-{charge.trace_flags:02x}"
    capacity = charge.usage.get("capacity_seconds")
    meters = {name: value for name, value in charge.usage.items() if name not in _OURS}
    error = charge.error
    return EntryLine(
        n=0,
        t=start,
        d=charge.duration_ns,
        r=0,
        a=0,
        w=charge.rows,
        f=0 if capacity is None else units(str(capacity)),
        m=amount if amount is None or abs(amount) < MAX_INTEGER else charge.amount,
        b=None if charge.basis == usual else charge.basis,
        u=meters or None,
        o=charge.operation or None,
        x=parent,
        e=None if error is None else (error.type, error.sqlstate),
        v=charge.revision,
        l=charge.partial,
        y=elapsed if elapsed > 0 and elapsed != charge.duration_ns else 0,
        c=charge.charge_id,
        g=charge.tag,
        i=charge.vendor_id,
    )
