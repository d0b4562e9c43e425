"""Ledgers for tests: written by the real writer, entry by entry, with every figure given."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from itertools import count
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights.ledger.seal import seal
from costinsights.ledger.writer import SEGMENTS, Writer
from costinsights.records import (
    AttributionLine,
    EntryLine,
    HeaderLine,
    PriceLineRef,
    Resource,
    ResourceLine,
    StatementLine,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from costinsights.records import Basis

NOON = 1_795_348_800 * 10**9
"""2026-11-22 12:00:00 UTC, in nanoseconds."""
HOUR = 3600 * 10**9
DAY = 24 * HOUR

UNIT = 10**15

RESOURCE = Resource("db.internal", 5432, "app")


class Definition:
    """A definition as the writer takes it."""

    def __init__(self, number: int, line: bytes) -> None:
        self.number = number
        self.line = line


class Program:
    """A program that writes charges. `close` ends it; until then its segments are live."""

    def __init__(self, ledger: str | os.PathLike[str], *, service: str = "shop") -> None:
        self.process = os.urandom(10).hex()
        self.service = service
        self.said: list[str] = []
        self.begun = 0
        self.writer = Writer(
            os.fspath(ledger), self.process, self._header, self.said.append, self._begin
        )
        self._numbers = count(1)
        self._calls = count(1)
        self._known: dict[object, Definition] = {}

    def _begin(self) -> None:
        self.begun += 1

    def _header(self) -> bytes:
        line = HeaderLine(1, self.process, self.service, "host-1", 4711, NOON, "0.1.0")
        return seal(msgspec.json.encode(line))

    def _define(self, key: object, kind: type[Any], *fields: object) -> Definition:
        found = self._known.get(key)
        if found is None:
            number = next(self._numbers)
            line = seal(msgspec.json.encode(kind(number, *fields)))
            found = self._known[key] = Definition(number, line)
        return found

    def call(
        self,
        *,
        at: int = NOON,
        duration: int = 10**9,
        amount: int | str | None = UNIT,
        labels: Mapping[str, str] | None = None,
        statement: str | None = "SELECT orders",
        text: str | None = None,
        fingerprint: str | None = None,
        system: str = "postgresql",
        currency: str = "USD",
        revision: int = 0,
        basis: Basis | None = None,
        rows: int | None = 1,
        error: tuple[str, str | None] | None = None,
        number: int | None = None,
        charge_id: str | None = None,
        resource: Resource = RESOURCE,
        **more: Any,
    ) -> str:
        """Write one entry and return the id of its charge."""
        attributed = {"rule": "scope", **labels} if labels else {"rule": "unattributed"}
        where = self._define(
            ("r", system, resource),
            ResourceLine,
            system,
            "psycopg",
            *msgspec.structs.astuple(resource),
        )
        attribution = self._define(("a", tuple(attributed.items())), AttributionLine, attributed)
        described = None
        if statement is not None:
            described = self._define(
                ("s", statement, text, fingerprint),
                StatementLine,
                fingerprint or f"{abs(hash((statement, text))) & (1 << 64) - 1:016x}",
                statement.partition(" ")[0],
                statement,
                text or f"{statement} WHERE id = ?",
            )
        price = None
        if amount is not None:
            price = self._define(
                ("p", currency),
                PriceLineRef,
                "capacity:db",
                "3.60",
                "hour",
                currency,
                "costinsights.toml",
                "2026-11-01",
                "2026-11-20+abcdef",
            )
        entry = EntryLine(
            n=next(self._calls) if number is None else number,
            t=at,
            d=duration,
            r=where.number,
            a=attribution.number,
            s=described.number if described else 0,
            p=price.number if price else 0,
            m=amount,
            w=rows,
            v=revision,
            b=basis,
            e=error,
            c=charge_id,
            **more,
        )
        self.put(entry, where, attribution, described, price)
        return charge_id or f"{self.process}-{entry.n}"

    def put(self, entry: EntryLine, *definitions: Definition | None) -> None:
        """Write an entry as it is."""
        line = seal(msgspec.json.encode(entry))
        key = tuple(known and known.number for known in definitions)
        self.writer.append(line, key, definitions)

    def close(self) -> None:
        """End the program, as its exit does."""
        self.writer.close()

    @property
    def balanced(self) -> bool:
        """Whether every entry is accounted for."""
        writer = self.writer
        return writer.made == writer.written + writer.pending + sum(writer.dropped.values())


def segments_of(ledger: str | os.PathLike[str]) -> list[str]:
    """Return the paths of all segments, by name."""
    folder = os.path.join(ledger, SEGMENTS)
    return sorted(os.path.join(folder, name) for name in os.listdir(folder))


def aged(ledger: str | os.PathLike[str]) -> None:
    """Make segments look a minute old: compaction leaves the very newest alone."""
    for path in segments_of(ledger):
        found = os.stat(path)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - 60 * 10**9))


def moment(epoch_ns: int) -> datetime:
    """Return nanoseconds since the epoch as the report's naive UTC."""
    return datetime.fromtimestamp(epoch_ns // 10**9, timezone.utc).replace(tzinfo=None)


def files_below(folder: Path, *names: str) -> list[Path]:
    """Return the files below a folder of the ledger, without the locks."""
    return sorted(
        path
        for path in folder.joinpath(*names).rglob("*")
        if path.is_file() and path.name[0] != "."
    )
