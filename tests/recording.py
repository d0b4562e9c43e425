"""A process that records calls, without any driver: the real ledger and background, made-up calls."""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from costinsights.background import Background
from costinsights.config import Config
from costinsights.followers import Followers
from costinsights.guard import say
from costinsights.ledger.reader import SegmentReader
from costinsights.ledger.seal import seal
from costinsights.ledger.writer import Writer
from costinsights.records import (
    AttributionLine,
    Charge,
    EntryLine,
    HeaderLine,
    PriceLineRef,
    ResourceLine,
    StatementLine,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from costinsights.exporter import Exporter
    from costinsights.ledger.segment import Definition

START = 1_700_000_000_000_000_000  # 2023-11-14T22:13:20Z
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"


@dataclass
class Defined:
    """A definition line, as the recorder makes them."""

    number: int
    line: bytes


def _defined(line: StatementLine | ResourceLine | AttributionLine | PriceLineRef) -> Defined:
    return Defined(line.i, seal(msgspec.json.encode(line)))


STATEMENT = StatementLine(
    1, "0123456789abcdef", "SELECT", "SELECT orders", "SELECT * FROM orders WHERE id = ?"
)
RESOURCE = ResourceLine(2, "postgresql", "psycopg", "db.example", 5432, "shop")
LABELS = {"asset": "orders", "team": "growth", "rule": "scope"}
PRICE = PriceLineRef(
    4,
    "aws.rds.db.t4g.medium",
    "0.065",
    "hour",
    "USD",
    "https://aws.example/rds",
    "2026-11-01",
    "builtin-2026.11",
)


def _no_options() -> dict[str, Mapping[str, object]]:
    return {}


@dataclass
class Process:
    """Records calls into the ledger in `directory`, followed by exporters."""

    directory: Path
    exporters: Sequence[Exporter] = ()
    names: tuple[str, ...] | None = ()
    options: Mapping[str, Mapping[str, object]] = field(default_factory=_no_options)
    service: str = "shop"

    def __post_init__(self) -> None:
        self.process = secrets.token_hex(10)
        config = Config(
            ledger=str(self.directory),
            exporters=self.names,
            exporter_options=self.options,
            service=self.service,
        )
        self.writer = Writer(
            config.ledger,
            self.process,
            self._header,
            say,
            lambda: self.background.start(),
        )
        self.background = Background(
            self.writer, lambda: Followers(config, self.exporters, self.writer)
        )
        self._calls = 0

    def _header(self) -> bytes:
        line = HeaderLine(
            1,
            self.process,
            self.service,
            socket.gethostname(),
            os.getpid(),
            time.time_ns(),
            "0.1.0",
        )
        return seal(msgspec.json.encode(line))

    def call(
        self,
        *,
        amount: int | str | None = 3_900_000,
        rows: int | None = 12,
        error: tuple[str, str | None] | None = None,
        parent: str | None = None,
        partial: bool = False,
        number: int = 0,
        revision: int = 0,
        usage: dict[str, int | float | str] | None = None,
        statement: StatementLine = STATEMENT,
        labels: Mapping[str, str] = LABELS,
        duration: int = 3_200_000,
    ) -> int:
        """Record one call, or a later entry of call `number`; return its number."""
        if not number:
            self._calls += 1
            number = self._calls
        attribution = AttributionLine(100 + hash(tuple(labels.items())) % 10**9, dict(labels))
        definitions: list[Definition | None] = [
            _defined(statement),
            _defined(RESOURCE),
            _defined(attribution),
        ]
        if amount is not None:
            definitions.append(_defined(PRICE))
        entry = EntryLine(
            n=number,
            t=START + number * 10_000_000,
            d=duration,
            r=RESOURCE.i,
            a=attribution.i,
            s=statement.i,
            p=PRICE.i if amount is not None else 0,
            w=rows,
            m=amount,
            e=error,
            l=partial,
            u=usage,
            v=revision,
            x=parent,
        )
        self.writer.append(
            seal(msgspec.json.encode(entry)),
            (statement.i, attribution.i, amount is None),
            tuple(definitions),
        )
        return number

    def calls(self, count: int) -> None:
        """Record `count` calls."""
        for _ in range(count):
            self.call()

    def flush(self, seconds: float = 10.0) -> bool:
        """Have everything exported."""
        return self.background.flush(seconds)

    def close(self) -> None:
        """End as a process does: the followers first, then the segment."""
        self.background.close()
        self.writer.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def entries(directory: Path) -> list[Charge]:
    """Return every entry of the ledger, segment by segment."""
    found: list[Charge] = []
    for path in sorted((directory / "segments").glob("*.jsonl")):
        found += SegmentReader(str(path)).read(ended=True)
    return found
