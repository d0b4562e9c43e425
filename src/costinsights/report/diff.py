"""Holds two runs against each other: what costs more, what less, and whether it did more work.

Nothing is read here: `costinsights.report.sides` does that. What comes out adds up: every item of
either side is in exactly one row, and each column's rows sum to its total, to the last digit.

An unknown cost is never 0. Where an item's cost is known on one side only, its difference is
unknown, and the total's difference is that of all the others.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple

from costinsights.report.summary import EXACT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["item", "other", "unchanged", "total"]

NOTHING = Decimal(0)


class Work(NamedTuple):
    """What calls did, whatever they cost: that more was done explains a higher cost."""

    calls: int = 0
    unpriced: int = 0
    errors: int = 0
    duration_ns: int = 0
    rows: int | None = None
    usage: Mapping[str, Decimal] = {}
    """The systems' own meters, added up."""
    bases: Mapping[str, int] = {}
    """How many calls have each basis."""

    def plus(self, other: Work) -> Work:
        """Return the sum of two."""
        return Work(
            self.calls + other.calls,
            self.unpriced + other.unpriced,
            self.errors + other.errors,
            self.duration_ns + other.duration_ns,
            other.rows if self.rows is None else self.rows + (other.rows or 0),
            {
                meter: EXACT.add(self.usage.get(meter, NOTHING), other.usage.get(meter, NOTHING))
                for meter in {**self.usage, **other.usage}
            },
            {
                basis: self.bases.get(basis, 0) + other.bases.get(basis, 0)
                for basis in {**self.bases, **other.bases}
            },
        )


class Item(NamedTuple):
    """What one asset, node … cost on one side. A currency without an amount is not in `costs`."""

    costs: Mapping[str, Decimal] = {}
    work: Work = Work()

    def plus(self, other: Item) -> Item:
        """Return the sum of two."""
        return Item(added(self.costs, other.costs), self.work.plus(other.work))

    def amount(self, currency: str | None) -> Decimal | None:
        """Return the cost in `currency`; None when it is unknown.

        Whose calls all have a price, in other currencies or because there are none, costs nothing
        in this one.
        """
        if currency is None:
            return None
        return self.costs.get(currency, None if self.work.unpriced else NOTHING)


def added(left: Mapping[str, Decimal], right: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """Return sums a currency, exact."""
    return {
        currency: EXACT.add(left.get(currency, NOTHING), right.get(currency, NOTHING))
        for currency in {**left, **right}
    }


class Side(NamedTuple):
    """One of the two: as the user named it, what that turned out to be, and what it cost."""

    name: str
    about: str
    items: Mapping[str | None, Item]
    """None is for the calls that are nobody's."""
    identity: tuple[str, str] | None = None
    """What tells this run from others: ``("run", …)``; None where it is not one run."""


class Money(NamedTuple):
    """Amounts in one currency; `compared` is the part of `base` that `change` was made with."""

    base: Decimal | None = None
    head: Decimal | None = None
    change: Decimal | None = None
    compared: Decimal | None = None

    @classmethod
    def of(cls, base: Decimal | None, head: Decimal | None) -> Money:
        """Hold two amounts against each other."""
        if base is None or head is None:
            return cls(base, head)
        return cls(base, head, EXACT.subtract(head, base), base)

    def plus(self, other: Money) -> Money:
        """Return the sum of two; unknown and known is what is known."""
        return Money(*(_sum(left, right) for left, right in zip(self, other, strict=True)))


class Row(NamedTuple):
    """One line: an item in one currency, the sum of `items` that are not named, or a total.

    An item that costs in several currencies has a row for each, and its work stands in the first:
    in the others `base` and `head` are None.
    """

    kind: Kind
    item: str | None
    status: str
    """``new`` where it is only in the head, ``gone`` where it is only in the base."""
    currency: str | None
    money: Money
    base: Work | None
    head: Work | None
    items: int = 1
    one_sided: int = 0
    """How many items have a known cost on one side only."""


class Diff(NamedTuple):
    """What `compare` gives."""

    by: str
    base: Side
    head: Side
    rows: tuple[Row, ...]
    totals: tuple[Row, ...]
    """One a currency; one without a currency where no cost is known."""
    work: tuple[Work, Work]
    """Of all calls of the base and of the head."""

    @property
    def one_sided(self) -> int:
        """How many items have a known cost on one side only: their difference is unknown."""
        return sum(row.one_sided for row in self.totals)


def compare(base: Side, head: Side, by: str, *, limit: int | None = None) -> Diff:
    """Hold `head` against `base`, the largest differences first.

    Args:
        base: The side that was before.
        head: The side that is new.
        by: What the items of both sides are.
        limit: How many changed items to name for each currency; the others are one row.
    """
    rows: list[Row] = []
    for item in {**base.items, **head.items}:
        rows += _rows(item, base.items.get(item, Item()), head.items.get(item, Item()))
    currencies: list[str | None] = []
    currencies += sorted({row.currency for row in rows if row.currency is not None})
    kept: list[Row] = []
    for currency in (*currencies, None):
        same = [row for row in rows if row.currency == currency]
        changed = sorted((row for row in same if not _is_unchanged(row)), key=_order)
        unchanged = [row for row in same if _is_unchanged(row)]
        named = len(changed) if limit is None else limit
        kept += changed[:named]
        kept += _together("other", changed[named:])
        kept += _together("unchanged", unchanged)
    totals = [
        total
        for currency in currencies or [None]
        for total in _together("total", [row for row in rows if row.currency == currency])
    ]
    work = tuple(_work(side.items.values()) for side in (base, head))
    return Diff(by, base, head, tuple(kept), tuple(totals), (work[0], work[1]))


def _rows(item: str | None, before: Item, after: Item) -> list[Row]:
    status = "new" if not _is_there(before) else "gone" if not _is_there(after) else ""
    if status == "new" and not _is_there(after):
        return []  # a node that sent no statement, in neither run
    rows: list[Row] = []
    currencies: list[str | None] = []
    currencies += sorted({**before.costs, **after.costs})
    for currency in currencies or [None]:
        money = Money.of(before.amount(currency), after.amount(currency))
        one_sided = int((money.base is None) != (money.head is None))
        base_work, head_work = (None, None) if rows else (before.work, after.work)
        rows.append(
            Row("item", item, status, currency, money, base_work, head_work, one_sided=one_sided)
        )
    return rows


def _is_there(item: Item) -> bool:
    return bool(item.work.calls or any(item.costs.values()))


def _is_unchanged(row: Row) -> bool:
    """Whether it costs the same; where that is unknown, whether it did the same.

    How long calls took is another in every run, and counts where it costs.
    """
    if row.status:
        return False
    if row.money.change is not None:
        return not row.money.change
    if row.one_sided or row.base is None or row.head is None:
        return False
    return (row.base.calls, row.base.usage) == (row.head.calls, row.head.usage)


def _order(row: Row) -> tuple[bool, Decimal, int, str]:
    change = row.money.change
    longer = (row.head or Work()).duration_ns - (row.base or Work()).duration_ns
    return (
        change is None,
        (change or NOTHING).copy_abs().copy_negate(),
        -abs(longer),
        row.item or "",
    )


def _together(kind: Kind, rows: Sequence[Row]) -> list[Row]:
    """Return one row for these, none for none."""
    if not rows:
        return []
    money = rows[0].money
    for row in rows[1:]:
        money = money.plus(row.money)
    base, head = Work(), Work()
    for row in rows:
        base, head = base.plus(row.base or Work()), head.plus(row.head or Work())
    one_sided = sum(row.one_sided for row in rows)
    return [Row(kind, None, "", rows[0].currency, money, base, head, len(rows), one_sided)]


def _work(items: Iterable[Item]) -> Work:
    work = Work()
    for item in items:
        work = work.plus(item.work)
    return work


def _sum(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    return right if left is None else left if right is None else EXACT.add(left, right)


# -- why -------------------------------------------------------------------------------------------

_MOST_REASONS = 2


class Reason(NamedTuple):
    """What the head did more or less of: ``calls``, ``time`` or a meter.

    ``price`` says that as much was done as before, at another price; it has no figures.
    """

    name: str
    base: Decimal = NOTHING
    head: Decimal = NOTHING

    @property
    def share(self) -> Decimal:
        """How much of the larger figure is new or gone, from 0 to 1."""
        larger = max(abs(self.base), abs(self.head))
        return abs(self.head - self.base) / larger if larger else NOTHING


def reasons(row: Row) -> list[Reason]:
    """Return why an item costs something else than before, the largest difference first."""
    base, head = row.base, row.head
    if base is None or head is None or row.status or not row.money.change:
        return []
    meters = {**base.usage, **head.usage}
    compared = [Reason("calls", Decimal(base.calls), Decimal(head.calls))]
    compared += [
        Reason(meter, base.usage.get(meter, NOTHING), head.usage.get(meter, NOTHING))
        for meter in sorted(meters)
    ]
    if not meters:
        compared.append(Reason("time", Decimal(base.duration_ns), Decimal(head.duration_ns)))
    found = [reason for reason in compared if reason.base != reason.head]
    found.sort(key=lambda reason: -reason.share)
    return found[:_MOST_REASONS] or [Reason("price")]
