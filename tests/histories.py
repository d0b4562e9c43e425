"""A system whose history is seeded: what a reader of a real one would find, given by the test."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights.settlement.history import Figure, History, HistoryError, Plan, Stretch
from tests.ledgers import NOON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SYSTEM = "acme"
AT_NOON = datetime.fromtimestamp(NOON // 10**9, timezone.utc)
PRICES = """
[[price]]
key = "acme.credit"
provider = "own"
service = "ACME"
system = "acme"
meter = "credits"
region = "everywhere"
regions = ["*"]
unit = "credit"
price = "3.00"
currency = "USD"
as_of = "2026-11-01"
source = "our contract with ACME"

[[price]]
key = "acme.scan"
provider = "own"
service = "ACME"
system = "acme"
meter = "scanned_bytes"
region = "everywhere"
regions = ["*"]
unit = "TB"
unit_scale = "1000000000000"
price = "5.00"
minimum = "10000000"
currency = "USD"
as_of = "2026-11-01"
source = "our contract with ACME"
"""


def at(minutes: float) -> datetime:
    """The moment so many minutes after noon, when test ledgers begin."""
    return AT_NOON + timedelta(minutes=minutes)


def ns(minutes: float) -> int:
    """The same as a ledger has it."""
    return NOON + int(minutes * 60 * 10**9)


def query(vendor_id: str | None, begin: float, end: float | None, **more: Any) -> Figure:
    """A figure from `begin` to `end`, in minutes after noon."""
    return Figure(
        vendor_id=vendor_id,
        started_at=at(begin),
        ended_at=None if end is None else at(end),
        **more,
    )


def work(vendor_id: str, begin: float, end: float | None, weight: int = 1, **more: Any) -> Figure:
    """A query that takes its share of the warehouse ``wh``."""
    return query(vendor_id, begin, end, group="wh", weight=weight, **more)


def hour(begin: float, credits: int = 4, **more: Any) -> Stretch:  # noqa: A002  ACME's own word
    """An hour of the warehouse, beginning so many minutes after noon."""
    given: dict[str, Any] = {"group": "wh", "quantity": credits, "meter": "credits", **more}
    return Stretch(started_at=at(begin), ended_at=at(begin + 60), **given)


class SeededHistory(History):
    """Answers with what it was given, as a reader has to: by overlap."""

    system = SYSTEM

    def __init__(
        self,
        figures: Sequence[Figure] = (),
        stretches: Sequence[Stretch] = (),
        *,
        wakes: str | None = None,
        costs: dict[str, int] | None = None,
        fails_after: int | None = None,
        error: Callable[[], Exception] | None = None,
        latency: timedelta = timedelta(0),
        retention: timedelta | None = None,
        options: dict[str, object] | None = None,
    ) -> None:
        super().__init__(options)
        self.figures = list(figures)
        self.stretches = list(stretches)
        self.wakes = wakes
        self.costs = costs or {}
        self.fails_after = fails_after
        self.error = error or (lambda: HistoryError("the connection went away"))
        self.latency = latency  # type: ignore[misc]  # tests have several
        self.retention = retention  # type: ignore[misc]  # as above
        self.asked: list[tuple[datetime, datetime]] = []
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def plan(self, since: datetime, until: datetime) -> Plan:
        return Plan((f"acme.queries from {since:%F %R} to {until:%F %R}",), self.costs, self.wakes)

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        assert self.is_open
        self.asked.append((since, until))
        self.spend(**self.costs)
        for number, figure in enumerate(self.figures):
            if number == self.fails_after:
                raise self.error()
            if figure.started_at < until and (figure.ended_at is None or figure.ended_at >= since):
                yield figure

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        assert self.is_open
        for stretch in self.stretches:
            if stretch.started_at < until and stretch.ended_at > since:
                yield stretch


def price_file(folder: Path) -> str:
    """The prices of ACME, as a file of the user's own."""
    path = folder / "acme.toml"
    path.write_text(PRICES, encoding="utf-8")
    return str(path)


class ScriptOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle.acme]``: what the history is to be like."""

    queries: int = 2
    denied: bool = False
    breaks: bool = False
    sleeps: bool = False
    password: str = ""


class ScriptedHistory(SeededHistory):
    """The same for the command line: so many queries, seeded by its options."""

    Options = ScriptOptions
    options: ScriptOptions
    grants = "GRANT SELECT ON acme.queries\n  TO settlement"

    def __init__(self, options: dict[str, object] | None = None) -> None:
        super().__init__(options=options)
        bytes_: dict[str, Any] = {
            "meters": {"scanned_bytes": 10**12},
            "billed": ("scanned_bytes",),
        }
        self.figures = [query(f"q{n}", n, n + 1, **bytes_) for n in range(self.options.queries)]
        self.wakes = "The warehouse wh is paused." if self.options.sleeps else None
        if self.options.denied:
            self.fails_after, self.error = 0, lambda: self.denied("acme.queries")
        elif self.options.breaks:
            self.fails_after = 1


def entry_points(folder: Path) -> Path:
    """Put the scripted reader on a path as an installed package's, and return that path."""
    metadata = folder / "acme-1.0.dist-info"
    metadata.mkdir(parents=True)
    metadata.joinpath("entry_points.txt").write_text(
        f"[costinsights_history]\n{SYSTEM} = tests.histories:ScriptedHistory\n"
    )
    return folder
