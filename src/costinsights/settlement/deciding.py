"""Decides what becomes of charges when their figures and costs are known. It writes nothing."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from costinsights.pricing.line import EXACT_PLACES
from costinsights.pricing.pricer import price_of
from costinsights.records import BASIS_RANK, Charge, decimal_text
from costinsights.settlement.allocation import MICROSECOND
from costinsights.settlement.charging import LOST, Charging, is_open, plain, text_of
from costinsights.settlement.costing import PASSING, Cost, is_own, joined
from costinsights.settlement.history import utc
from costinsights.settlement.known import charges
from costinsights.settlement.matching import Matches, match
from costinsights.settlement.moments import HOUR, days

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from costinsights.pricing import PriceBook
    from costinsights.pricing.line import Price
    from costinsights.rules import Rule
    from costinsights.settlement.costing import Costing, Pool
    from costinsights.settlement.history import Figure, History
    from costinsights.settlement.known import Known
    from costinsights.settlement.settled import Settled

IDLE = "IDLE"
SELF = "costinsights.self"
"""The label of what settlement itself costs."""
GRACE = timedelta(hours=1)
"""A run that is younger is not taken for lost: the system may not know it yet."""

BETTER = "the charge has a better figure already"
NOT_KNOWN_YET = "the system does not know it yet"
DOUBTFUL = "several calls fit it, and nothing tells which"


class Decisions:
    """What is to be written of one settlement, in `new`, and what it comes to, in `sums`."""

    def __init__(
        self,
        reader: History,
        book: PriceBook,
        rules: Sequence[Rule],
        now: datetime,
        *,
        everything: bool,
        service: str,
    ) -> None:
        """Take what decides; `service` is that of our own charges."""
        self._reader = reader
        self._system = reader.system
        self._book = book
        self._charging = Charging(reader.system, book.version, rules)
        self._now = now
        self._everything = everything
        self._service = service
        self.sums: dict[str, dict[str, int]] = {}
        """By currency, then by what it is for."""
        self.new: dict[str, Charge] = {}
        """What is to be written, by charge id."""

    def settle(
        self, report: Settled, figures: Sequence[Figure], costing: Costing, ledger: str
    ) -> None:
        """Decide about all charges of the time of the report."""
        begin, end = report.since, report.until
        asked = {run.id for run in self._reader.waiting}
        wanted = [
            at
            for at, figure in enumerate(figures)
            if not is_own(figure)
            and figure.started_at < end
            and (
                figure.ended_at is None
                or figure.ended_at > begin
                or figure.started_at >= begin
                or not asked.isdisjoint((figure.vendor_id, *figure.also))
            )
        ]
        figures = [figures[at] for at in wanted]
        prices = [costing.costs[at] for at in wanted]
        known = self._known(begin, end, figures, ledger)
        found = match(figures, known.programs, self._system, self._reader.skew)
        matched = {one.charge.charge_id for one in found.of.values()}
        report.figures = len(figures)
        self._programs(report, figures, prices, found, known.ours)
        self._lost(report, known.programs, matched)
        self._outside(report, figures, prices, found, known.ours)
        for pool in costing.pools:
            if pool.stretch.started_at < end and pool.stretch.ended_at > begin:
                self._pool(report, pool, known.ours)
        within = [
            charge
            for charge in known.programs
            if text_of(begin) <= charge.ended_at and charge.started_at < text_of(end)
        ]
        report.charges = len(within)
        report.without = sum(charge.charge_id not in matched for charge in within)

    def _known(
        self, begin: datetime, end: datetime, figures: Sequence[Figure], ledger: str
    ) -> Known:
        """Return what the ledger has around this time, and of all that was asked for."""
        moments = [begin, *(figure.started_at for figure in figures)]
        moments += [run.started_at for run in self._reader.waiting if run.started_at is not None]
        around = HOUR + self._reader.skew
        return charges(ledger, self._system, min(moments) - around, end + around)

    def expire(self, report: Settled, expired: Sequence[Charge]) -> None:
        """Have the charges of runs say so that the system has kept for as long as it does."""
        kept = self._reader.retention
        for charge in expired:
            report.lost += 1
            why = "older than what the system keeps" + (f", {days(kept)}" if kept else "")
            self._put(msgspec.structs.replace(charge, usage={**charge.usage, LOST: why}))

    def _programs(
        self,
        report: Settled,
        figures: Sequence[Figure],
        prices: Sequence[Cost],
        found: Matches,
        ours: Mapping[str, Charge],
    ) -> None:
        """Give the charges of instrumented programs their later figures."""
        of: dict[str, list[int]] = {}
        for at, one in found.of.items():
            of.setdefault(one.charge.charge_id, []).append(at)
            report.found[one.how] = report.found.get(one.how, 0) + 1
        if found.doubtful:
            report.left[DOUBTFUL] = len(found.doubtful)
        for places in of.values():
            charge = found.of[places[0]].charge
            cost = _together([prices[at] for at in places])
            later = self._charging.later(charge, [figures[at] for at in places], cost)
            if cost.reason:
                _count(report.left, cost.reason)
            if later is None:
                continue
            if BASIS_RANK[later.basis] < BASIS_RANK[charge.basis]:
                _count(report.left, BETTER)
                continue
            self._sum(cost, "charges")
            report.running += later.partial
            if later == charge:
                report.unchanged += 1
            else:
                self._put(later)
                report.settled += not later.partial
            for at in places:
                self._take_back(ours.get(f"{self._system}:{figures[at].vendor_id}"))

    def _lost(self, report: Settled, programs: Sequence[Charge], matched: Collection[str]) -> None:
        """Have the charges of runs say so that the system does not know any more."""
        lost = self._reader.lost
        for charge in programs:
            why = lost.get(charge.vendor_id or "")
            if why is None or charge.charge_id in matched or not is_open(charge):
                continue
            if LOST in charge.usage:
                report.unchanged += 1
                continue
            if self._now - utc(charge.started_at) < GRACE:
                _count(report.left, NOT_KNOWN_YET)
                continue
            report.lost += 1
            self._put(msgspec.structs.replace(charge, usage={**charge.usage, LOST: why}))

    def _take_back(self, charge: Charge | None) -> None:
        """Leave nothing on a charge of `--all` whose query has since come to a program's charge."""
        if charge is not None and charge.amount is not None and Decimal(charge.amount):
            self._put(msgspec.structs.replace(charge, amount=decimal_text(0), usage={"time_ns": 0}))

    def _outside(
        self,
        report: Settled,
        figures: Sequence[Figure],
        prices: Sequence[Cost],
        found: Matches,
        ours: Mapping[str, Charge],
    ) -> None:
        """Write charges for queries that no instrumented program made, or say what they come to."""
        for at, (figure, cost) in enumerate(zip(figures, prices, strict=True)):
            # What is in doubt is probably a program's, and would count twice.
            if at in found.of or at in found.doubtful:
                continue
            report.outside += 1
            if cost.reason in PASSING:
                if self._everything:
                    _count(report.left, cost.reason)
                continue
            self._sum(cost, "outside")
            if not self._everything or figure.vendor_id is None:
                continue
            if cost.reason:
                _count(report.left, cost.reason)
            charge_id = f"{self._system}:{figure.vendor_id}"
            known = ours.get(charge_id)
            charge = self._charging.of_query(figure, charge_id, cost, known)
            if charge == known:
                report.unchanged += 1
            else:
                self._put(charge, first=known is None)
                report.added += 1

    # -- what is nobody's call ------------------------------------------------------------------

    def _pool(self, report: Settled, pool: Pool, ours: Mapping[str, Charge]) -> None:
        """Write what of a stretch was idle, and what we used of it ourselves."""
        stretch = pool.stretch
        seconds = (stretch.ended_at - stretch.started_at) // timedelta(seconds=1)
        number = f"#{pool.number}" if pool.number > 1 else ""
        when = f"{stretch.group}:{stretch.started_at:%Y-%m-%dT%H:%M:%SZ}/{seconds}{number}"
        length = (stretch.ended_at - stretch.started_at) // MICROSECOND * 10**9
        for kind, operation, amount, labels in (
            ("idle", IDLE, pool.idle, {"rule": "idle"}),
            ("self", "SETTLE", pool.own, {SELF: "settle", "rule": "self"}),
        ):
            charge_id = f"{self._system}:{kind}:{when}"
            known = ours.get(charge_id)
            if not amount and known is None:
                continue
            capacity = length * amount // pool.units if pool.units else 0
            cost = Cost(amount, pool.price, "allocated", capacity)
            self._sum(cost, kind)
            usage: dict[str, int | float | str] = {}
            if capacity:
                usage["capacity_seconds"] = decimal_text(capacity)
            charge = self._charging.made(
                charge_id,
                stretch.started_at,
                stretch.ended_at,
                stretch.resource,
                operation,
                labels,
                usage,
                cost,
                known,
            )
            if charge != known:
                self._put(charge, first=known is None)
                report.idle += 1

    def account(self, report: Settled) -> None:
        """Price our own requests; where they are billed each, they are a charge like any other."""
        reader = self._reader
        report.requests = reader.requests
        report.spent = {name: str(quantity) for name, quantity in reader.spent.items()}
        if not reader.spent:
            return
        place, dimensions = reader.place
        day = self._now.date().isoformat()
        found = self._book.quote(self._system, reader.spent, place.region, at=day, **dimensions)
        cost = Cost(reason=found.reason)
        if found.amount is not None:
            amount = int(found.amount.scaleb(EXACT_PLACES))
            report.cost, report.currency = decimal_text(amount), found.currency
            cost = Cost(amount, price_of(found), "metered")
        self._sum(cost, "self")
        charge_id = f"{self._system}:settle:{os.urandom(10).hex()}"
        usage: dict[str, int | float | str] = {"requests": reader.requests}
        usage.update((name, plain(quantity)) for name, quantity in reader.spent.items())
        self._put(
            self._charging.made(
                charge_id,
                self._now,
                self._now,
                place,
                "SETTLE",
                {SELF: "settle", "rule": "self"},
                usage,
                cost,
                None,
                service=self._service,
            ),
            first=True,
        )

    def _put(self, charge: Charge, *, first: bool = False) -> None:
        """Have a charge written: as its `first` entry, or as a later one."""
        self.new[charge.charge_id] = (
            charge if first else msgspec.structs.replace(charge, revision=charge.revision + 1)
        )

    def _sum(self, cost: Cost, kind: str) -> None:
        if cost.amount is not None and cost.price is not None:
            kinds = self.sums.setdefault(cost.price.currency, {})
            kinds[kind] = kinds.get(kind, 0) + cost.amount


def _together(several: Sequence[Cost]) -> Cost:
    """Return what the figures of one charge cost; the first that is not known decides."""
    if len(several) == 1:
        return several[0]
    unknown = next((cost for cost in several if cost.amount is None), None)
    if unknown is not None:
        return Cost(reason=unknown.reason)
    prices: list[Price] = list(
        dict.fromkeys(cost.price for cost in several if cost.price is not None)
    )
    if len({price.currency for price in prices}) != 1:
        return Cost(reason="its parts are priced in several currencies")
    return Cost(
        sum(cost.amount or 0 for cost in several),
        joined(prices),
        "allocated" if any(cost.basis == "allocated" for cost in several) else "metered",
        sum(cost.capacity for cost in several),
    )


def _count(reasons: dict[str, int], reason: str) -> None:
    reasons[reason] = reasons.get(reason, 0) + 1
