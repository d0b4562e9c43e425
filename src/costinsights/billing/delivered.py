"""What one source has delivered so far: of a time, by day, and how far it reaches.

The view ``bill`` counts money once that several sources have. This looks at the slices of one of
them alone, as it delivered them: what a scheduler holds against what it pulled the time before.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.billing import slices as manifests
from costinsights.billing.bill import files
from costinsights.guard import suppressed
from costinsights.ledger.store import connect

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from costinsights.billing.slices import Published, State, Wanted

DAY = timedelta(days=1)
MEMORY = "640MB"
_NOT_SAID = "(not said)"


class Kind(NamedTuple):
    """What one kind of usage came to."""

    kind: str
    currency: str
    billed: Decimal
    lines: int


class Sum(NamedTuple):
    """What a source has billed for a time."""

    rows: int
    billed: Mapping[str, Decimal]
    """The sum of BilledCost by currency."""
    kinds: tuple[Kind, ...]
    """The same by kind of usage, dearest first."""
    state: State | None
    """The least sure of its slices; None where nothing was pulled of this time."""


class Restated(NamedTuple):
    """A day that another pull has changed."""

    day: date
    currency: str
    before: Decimal
    after: Decimal

    @property
    def difference(self) -> Decimal:
        """What came to the bill of this day, or less than nothing."""
        return self.after - self.before


class Delivered:
    """The slices of one source in the ledger at `directory`, at the moment it is made.

    `scopes` are those of `Pulled.scopes`; None takes all that the source has.

    Raises:
        LedgerError: the bill is damaged, or of a newer version.
    """

    def __init__(
        self,
        directory: str,
        source: str,
        wanted: Wanted,
        scopes: Collection[str] | None = None,
    ) -> None:
        manifest = manifests.load(directory)
        self._place = manifests.folder(directory)
        self.slices: tuple[Published, ...] = tuple(
            one
            for one in manifest.slices
            if one.slice.source == source
            and one.slice.wanted == wanted.text
            and (scopes is None or one.slice.scope in scopes)
        )
        self.incomplete: Mapping[str, str] = {
            told: why
            for told, why in manifest.incomplete.items()
            if told.startswith(f"{source} ")
            and told.endswith(wanted.text)
            and (scopes is None or any(f" {scope} " in told for scope in scopes))
        }
        """Why slices could not be pulled to their end the last time, by what they are called."""

    def sum(self, start: datetime, end: datetime) -> Sum:
        """Return what is billed for the charge periods that begin in [`start`, `end`)."""
        touched = [one for one in self.slices if one.slice.start < end and one.slice.end > start]
        found = self._fetch(
            touched,
            "SELECT coalesce(x_UsageKind, ''), BillingCurrency, sum(BilledCost), count(*) "
            f"FROM {{rows}} WHERE {_within(start, end)} GROUP BY 1, 2 ORDER BY 2, 3 DESC, 1",
        )
        kinds = tuple(Kind(kind or _NOT_SAID, *rest) for kind, *rest in found)
        billed: dict[str, Decimal] = {}
        for kind in kinds:
            billed[kind.currency] = billed.get(kind.currency, Decimal(0)) + kind.billed
        states: set[State] = {one.state for one in touched}
        state = min(states, key=manifests.STATES.index, default=None)
        return Sum(sum(kind.lines for kind in kinds), billed, kinds, state)

    def days(self, since: datetime) -> dict[tuple[date, str], Decimal]:
        """Return what is billed for each day from `since` on, by day and currency."""
        touched = [one for one in self.slices if one.slice.end > since]
        found = self._fetch(
            touched,
            "SELECT CAST(ChargePeriodStart AS DATE), BillingCurrency, sum(BilledCost) "
            f"FROM {{rows}} WHERE {_within(since, None)} GROUP BY 1, 2",
        )
        return {(day, currency): amount for day, currency, amount in found}

    def pulled(self) -> frozenset[date]:
        """Return the days that slices of a day have; what is billed for one may be nothing."""
        return frozenset(
            one.slice.start.date() for one in self.slices if one.slice.end - one.slice.start <= DAY
        )

    def newest(self) -> datetime | None:
        """Return up to when there are figures; None where nothing was pulled.

        A slice of a day reaches to its end, whatever is in it. One of a month is there from the
        month's first day on, and reaches as far as its last charge.
        """
        ends = [one.slice.end for one in self.slices if one.slice.end - one.slice.start <= DAY]
        longer = [one for one in self.slices if one.slice.end - one.slice.start > DAY]
        if longer:
            newest = max(one.slice.end for one in longer)
            last = [one for one in longer if one.slice.end == newest]
            found = self._fetch(last, "SELECT max(ChargePeriodEnd) FROM {rows}")
            ends += [at.replace(tzinfo=timezone.utc) for (at,) in found if at is not None]
        return max(ends, default=None)

    def _fetch(self, published: Sequence[Published], query: str) -> list[tuple[Any, ...]]:
        filled = [one for one in published if one.last.rows]
        if not filled:
            return []
        rows = files(filled, self._place)
        with suppressed(), TemporaryDirectory(prefix="costinsights-") as scratch:
            connection = connect(scratch)
            try:
                connection.execute(f"SET memory_limit = '{MEMORY}'")
                return connection.execute(query.format(rows=rows)).fetchall()
            finally:
                connection.close()


def restated(
    before: Mapping[tuple[date, str], Decimal],
    after: Mapping[tuple[date, str], Decimal],
    known: Collection[date],
) -> list[Restated]:
    """Return the days whose figures have changed, of those that were `known` before."""
    return [
        Restated(day, currency, was, now)
        for day, currency in sorted({*before, *after})
        for was in [before.get((day, currency), Decimal(0))]
        for now in [after.get((day, currency), Decimal(0))]
        if day in known and was != now
    ]


def _within(start: datetime, end: datetime | None) -> str:
    condition = f"ChargePeriodStart >= TIMESTAMP '{start:%Y-%m-%d %H:%M:%S}'"
    if end is not None:
        condition += f" AND ChargePeriodStart < TIMESTAMP '{end:%Y-%m-%d %H:%M:%S}'"
    return condition
