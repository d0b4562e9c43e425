"""What figures cost: by the meters that bill them, and by their shares of the hours they ran in."""

from __future__ import annotations

from datetime import timedelta, timezone
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from costinsights.pricing.line import EXACT_PLACES, Price
from costinsights.pricing.pricer import price_of
from costinsights.pricing.units import HOUR
from costinsights.settlement.allocation import Claim, microseconds, split
from costinsights.settlement.history import MARK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    from costinsights.pricing import PriceBook
    from costinsights.records import Basis, Resource
    from costinsights.settlement.history import Figure, Stated, Stretch

RUNS = "still runs"
LATE = "the history of its time is not whole yet"
NOT_FINAL = "the system may still charge for its time"
BESIDE = "a query beside it still runs"
NO_CAPACITY = "nothing is known yet of what its capacity cost in its time"
CUT_OFF = "the history could not be read to its end"

PASSING = frozenset((RUNS, LATE, NOT_FINAL, BESIDE, NO_CAPACITY, CUT_OFF))
"""Reasons that a later run will not find any more."""

_HOUR = HOUR * 10**6
_FEMTO = 10**9
"""10⁻¹⁵ s in a microsecond."""


class Cost(NamedTuple):
    """What one figure costs. `amount` is whole 10⁻¹⁵ of the price's currency, or None: `reason`."""

    amount: int | None = None
    price: Price | None = None
    basis: Basis = "unknown"
    capacity: int = 0
    """Its share of capacity, in 10⁻¹⁵ s."""
    reason: str = ""


class Pool(NamedTuple):
    """What of a stretch is nobody's charge: what was idle, and what settlements used themselves."""

    stretch: Stretch
    number: int
    """Tells stretches apart that are alike in group and time."""
    price: Price
    units: int
    idle: int
    own: int


class Costing(NamedTuple):
    """All costs of one run; `costs` are in the order of the figures."""

    costs: list[Cost]
    pools: list[Pool]
    unpriced: dict[str, int]
    """Why the book could not tell, and how many figures or stretches that were."""


def is_own(figure: Figure) -> bool:
    """Tell whether a settlement asked this query itself."""
    return (
        MARK in (figure.text or "")
        or MARK in (figure.tag or "")
        or any(MARK in item for pair in figure.labels.items() for item in pair)
    )


def costs(
    figures: Sequence[Figure],
    stretches: Sequence[Stretch],
    book: PriceBook,
    system: str,
    *,
    horizon: datetime,
    since: datetime | None = None,
    cut_off: bool = False,
) -> Costing:
    """Price figures and split stretches; the history is whole from `since` up to `horizon`.

    Where it is not, or a query still runs, stretches are left as they are, for shares that are not
    all known would not sum to the price. With `cut_off` that is so for all of them.
    """
    return _Costing(figures, book, system, since, horizon, cut_off=cut_off).work(stretches)


class _Share:
    """What the stretches give to one figure."""

    __slots__ = ("amount", "capacity", "prices")

    def __init__(self) -> None:
        self.amount = 0
        self.capacity = 0
        self.prices: dict[Price, None] = {}


class _Costing:
    def __init__(
        self,
        figures: Sequence[Figure],
        book: PriceBook,
        system: str,
        since: datetime | None,
        horizon: datetime,
        *,
        cut_off: bool,
    ) -> None:
        self._figures = figures
        self._book = book
        self._system = system
        self._since = since
        self._horizon = horizon
        self._cut_off = cut_off
        self._unpriced: dict[str, int] = {}
        # What takes part in splitting, once; by the hours that it touches, and what still runs.
        self._claims: dict[int, Claim] = {}
        self._hours: dict[tuple[str, int], list[int]] = {}
        self._running: dict[str, list[int]] = {}
        for at, figure in enumerate(figures):
            if figure.group is None:
                continue
            start = microseconds(figure.worked_from or figure.started_at)
            end = start if figure.ended_at is None else microseconds(figure.ended_at)
            key = figure.vendor_id or f"?{at:012d}"
            self._claims[at] = Claim(key, start, end, figure.weight)
            if figure.ended_at is None:
                self._running.setdefault(figure.group, []).append(at)
                continue
            for number in range(start // _HOUR, max(start, end) // _HOUR + 1):
                self._hours.setdefault((figure.group, number), []).append(at)
        self._shares: dict[int, _Share] = {}
        self._left: dict[int, str] = {}
        """Why the shares of a figure are not all known."""
        self._known_until: dict[str, datetime] = {}

    def work(self, stretches: Sequence[Stretch]) -> Costing:
        pools: list[Pool] = []
        alike: dict[tuple[str, datetime, datetime], int] = {}
        for stretch in sorted(stretches, key=_order):
            same = (stretch.group, stretch.started_at, stretch.ended_at)
            alike[same] = number = alike.get(same, 0) + 1
            known = self._known_until.get(stretch.group)
            if known is None or known < stretch.ended_at:
                self._known_until[stretch.group] = stretch.ended_at
            pool = self._split(stretch, number)
            if pool is not None:
                pools.append(pool)
        return Costing(
            [self._cost(at, figure) for at, figure in enumerate(self._figures)],
            pools,
            self._unpriced,
        )

    # -- stretches ------------------------------------------------------------------------------

    def _split(self, stretch: Stretch, number: int) -> Pool | None:
        start, end = microseconds(stretch.started_at), microseconds(stretch.ended_at)
        inside = self._within(stretch.group, start, end)
        reason = self._why_not(stretch, inside)
        priced = None
        if not reason:
            priced = self._price(stretch)
            if isinstance(priced, str):
                self._unpriced[priced] = self._unpriced.get(priced, 0) + 1
                if stretch.apart:
                    return None
                reason = priced
        if reason or priced is None or isinstance(priced, str):
            for at in inside:
                self._left.setdefault(at, reason)
            return None
        units, price = priced
        keys = {self._claims[at].key: at for at in inside}
        found = split(
            units,
            start,
            end,
            [self._claims[at] for at in inside],
            idle=_part(stretch),
            uptime=None if stretch.uptime is None else stretch.uptime // timedelta(microseconds=1),
        )
        own = 0
        for key, amount in found.shares.items():
            at = keys[key]
            if is_own(self._figures[at]):
                own += amount
            share = self._shares.setdefault(at, _Share())
            share.amount += amount
            share.prices[price] = None
            if units:
                share.capacity += (end - start) * _FEMTO * amount // units
        return Pool(stretch, number, price, units, found.idle, own)

    def _why_not(self, stretch: Stretch, inside: Iterable[int]) -> str:
        if self._cut_off:
            return CUT_OFF
        if stretch.ended_at > self._horizon:
            return LATE
        if not stretch.final:
            return NOT_FINAL
        if any(self._figures[at].ended_at is None for at in inside):
            return BESIDE
        return ""

    def _within(self, group: str, start: int, end: int) -> list[int]:
        """Return the figures that run within a stretch, or still run, each once."""
        found: dict[int, None] = {}
        for number in range(start // _HOUR, max(start, end - 1) // _HOUR + 1):
            for at in self._hours.get((group, number), ()):
                _, begun, done, _ = self._claims[at]
                if begun < end and (done > start or begun >= start):
                    found[at] = None
        for at in self._running.get(group, ()):
            if self._claims[at].start < end:
                found[at] = None
        return list(found)

    def _price(self, stretch: Stretch) -> tuple[int, Price] | str:
        """Return the price of a stretch in 10⁻¹⁵ of the currency, or why there is none."""
        day = stretch.started_at.astimezone(timezone.utc).date().isoformat()
        if stretch.amount is not None:
            return _stated(stretch, self._system, day)
        place = stretch.resource
        if stretch.meter is None:
            capacity = self._book.capacity_for(
                self._system, place.address, place.port, place.namespace, place.service
            )
            if capacity is None:
                return (
                    f"nothing says what an hour of {stretch.group} costs: add a [[capacity]] for it"
                )
            line = capacity.line
            span = microseconds(stretch.ended_at) - microseconds(stretch.started_at)
            hours = Fraction(span, _HOUR)
            return (
                round(Fraction(line.price) * hours * 10**EXACT_PLACES),
                Price(
                    line.key,
                    line.price_text,
                    line.unit,
                    line.currency,
                    line.source,
                    str(line.as_of),
                ),
            )
        usage = {stretch.meter: stretch.quantity}
        return self._quote(usage, place, stretch.dimensions, day)

    # -- figures --------------------------------------------------------------------------------

    def _cost(self, at: int, figure: Figure) -> Cost:
        until = figure.ended_at or figure.so_far
        if until is None or (figure.ended_at is None and figure.group is not None):
            return Cost(reason=RUNS)
        if figure.ended_at is not None and not figure.final:
            return Cost(reason=NOT_FINAL)
        if figure.problem:
            self._unpriced[figure.problem] = self._unpriced.get(figure.problem, 0) + 1
            return Cost(reason=figure.problem)
        parts: list[tuple[int, tuple[Price, ...]]] = []
        basis = figure.basis
        capacity = 0
        if figure.group is not None:
            reason = self._left.get(at) or self._without_capacity(figure)
            share = self._shares.get(at)
            if reason or share is None:
                return Cost(reason=reason or NO_CAPACITY)
            basis, capacity = "allocated", share.capacity
            parts.append((share.amount, tuple(share.prices)))
        for one in (figure, *figure.parts):
            if not one.billed:
                continue
            usage = {name: one.meters[name] for name in one.billed if name in one.meters}
            day = (one.ended_at or one.so_far or until).astimezone(timezone.utc).date().isoformat()
            found = self._quote(usage, one.resource, one.dimensions, day)
            if isinstance(found, str):
                self._unpriced[found] = self._unpriced.get(found, 0) + 1
                return Cost(reason=found)
            parts.append((found[0], (found[1],)))
        if figure.stated:
            parts.append(_said(figure.stated, self._system, until))
        if not parts:
            return Cost(reason="the history has no figure that has a price")
        prices = list(dict.fromkeys(price for _, several in parts for price in several))
        if len({price.currency for price in prices}) > 1:
            return Cost(reason="its parts are priced in several currencies")
        return Cost(sum(amount for amount, _ in parts), joined(prices), basis, capacity)

    def _without_capacity(self, figure: Figure) -> str:
        if self._cut_off:
            return CUT_OFF
        known = self._known_until.get(figure.group or "")
        if figure.ended_at is None or figure.ended_at > self._horizon:
            return LATE
        started_at = figure.worked_from or figure.started_at
        if self._since is not None and started_at < self._since:
            return NO_CAPACITY  # the history of its beginning has gone
        return NO_CAPACITY if known is None or known < figure.ended_at else ""

    def _quote(
        self,
        usage: Mapping[str, int | float | str | Decimal],
        place: Resource,
        dimensions: Mapping[str, str],
        day: str,
    ) -> tuple[int, Price] | str:
        found = self._book.quote(self._system, usage, place.region, at=day, **dimensions)
        if found.amount is None:
            return found.reason
        return int(found.amount.scaleb(EXACT_PLACES)), price_of(found)


def joined(prices: Sequence[Price]) -> Price:
    """Return one price for an amount that several made."""
    if len(prices) == 1:
        return prices[0]
    first = prices[0]
    return Price(
        " + ".join(dict.fromkeys(price.key for price in prices)),
        " + ".join(price.unit_price for price in prices),
        " + ".join(dict.fromkeys(price.unit for price in prices)),
        first.currency,
        "; ".join(dict.fromkeys(price.source for price in prices)),
        max(price.as_of for price in prices),
    )


def _said(stated: Sequence[Stated], system: str, until: datetime) -> tuple[int, tuple[Price, ...]]:
    """Take what the system itself says that the parts of a figure cost."""
    amount = sum((Fraction(one.quantity) * Fraction(one.unit_price) for one in stated), Fraction(0))
    day = until.astimezone(timezone.utc).date().isoformat()
    prices = [
        Price(
            f"{system}:{one.what}", f"{one.unit_price:f}", one.unit, one.currency, one.source, day
        )
        for one in stated
    ]
    return round(amount * 10**EXACT_PLACES), tuple(dict.fromkeys(prices))


def _stated(stretch: Stretch, system: str, day: str) -> tuple[int, Price] | str:
    """Take a price as the system itself states it."""
    if stretch.amount is None or not stretch.currency:
        return f"{stretch.group}: an amount without its currency"
    price = Price(
        f"{system}:{stretch.meter or 'capacity'}",
        f"{stretch.unit_price if stretch.unit_price is not None else stretch.amount:f}",
        stretch.unit or (stretch.meter or "stretch"),
        stretch.currency,
        stretch.source or f"the system's own statement ({system})",
        day,
    )
    return round(Fraction(stretch.amount) * 10**EXACT_PLACES), price


def _part(stretch: Stretch) -> Fraction | None:
    """Return which part of a stretch the system says was idle; None where it does not say."""
    if stretch.idle is None:
        return None
    whole, idle = Fraction(stretch.quantity), Fraction(stretch.idle)
    if whole <= 0:
        return Fraction(0)
    return min(max(idle / whole, Fraction(0)), Fraction(1))


def _order(stretch: Stretch) -> tuple[str, datetime, datetime, str, Fraction, str]:
    """Put stretches into one order, however they come: what is alike is numbered by it."""
    quantity = Fraction(stretch.quantity) + Fraction(stretch.amount or 0)
    rest = f"{stretch.idle} {stretch.uptime} {stretch.resource}"
    return (
        stretch.group,
        stretch.started_at,
        stretch.ended_at,
        stretch.meter or "",
        quantity,
        rest,
    )
