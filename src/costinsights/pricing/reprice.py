"""`costinsights prices reprice`: what charges in the ledger would cost by another price book.

A charge keeps its usage, so its amount can be worked out again. It is quoted anew where the quote of
its own price line gives the amount that the ledger has, to the last digit; where the amount is a sum
of several calls' or of several attempts' rounding, it goes with the ratio of the two prices. What
neither does is left as it is, and said. Three kinds are never touched: what the provider has billed;
shares of capacity, which sum to an hour's price only together; and what has no price.

A change is a later entry of the charge: the next revision, the same basis, the new line, the book's
version. Nothing is edited, and doing it twice is doing it once.
"""

from __future__ import annotations

import os
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights.pricing.line import EXACT_PLACES
from costinsights.pricing.pricer import price_of, quick_of, said_in, words_of
from costinsights.pricing.rules import Resolver
from costinsights.records import PriceInfo, decimal_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from costinsights.ledger.store import Store
    from costinsights.pricing.book import PriceBook
    from costinsights.pricing.line import Price, PriceLine, Quote
    from costinsights.pricing.pricer import Quick
    from costinsights.records import Charge

BATCH = 20_000
"""Charges that are written at a time, so that a long ledger needs no more memory than a short one."""

BILLED = "billed by the provider: a bill is not repriced"
SHARED = "a share of capacity: the shares of an hour are priced together, by settlement"
UNPRICED = "has no price yet: costinsights prices missing says why"
NO_LINE = "its price line is not in this book"
NO_USAGE = "its usage does not hold what the line counts"
UNCLEAR = "its amount does not follow from its usage and its price line"
CURRENCY = "this book's line is in another currency"

_MOST_KINDS = 10_000
_ONE = Fraction(1, 10**EXACT_PLACES)
_COUNTED_AS = {"retrieved_bytes": "received_bytes", "transferred_bytes": "received_bytes"}
"""Meters of storage that a program counts once, as what it received."""


class Change(NamedTuple):
    """What all charges of one system and price line would change by."""

    system: str
    key: str
    currency: str
    charges: int
    before: Decimal
    after: Decimal

    @property
    def difference(self) -> Decimal:
        """More, or less, by the new book."""
        return self.after - self.before


class Repriced(NamedTuple):
    """What a run has found, and written."""

    book: str
    changes: tuple[Change, ...]
    """The largest first; only what changes."""
    same: int
    """Charges that cost by this book what the ledger says."""
    left: dict[str, int]
    """Charges that were not touched, by why."""
    written: int


class _Sum:
    def __init__(self) -> None:
        self.charges, self.before, self.after = 0, 0, 0


def reprice(
    store: Store,
    book: PriceBook,
    since: datetime,
    until: datetime | None = None,
    *,
    dry_run: bool = True,
    exporters: Collection[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Repriced:
    """Work out what the charges that ended from `since` on, and before `until`, cost by `book`.

    Args:
        store: The ledger, opened.
        book: The prices that are to hold.
        since: Where to begin, naive UTC.
        until: Where to end, naive UTC; None goes to the end.
        dry_run: Write nothing.
        exporters: Those that are to bring the new entries to their destinations.
        progress: Gets how many charges were looked at.

    Raises:
        LedgerError: the ledger is damaged, or entries could not be written.
    """
    from costinsights.settlement.writing import units, write

    where = f"ended_at >= TIMESTAMP '{since}'"
    if until is not None:
        where += f" AND ended_at < TIMESTAMP '{until}'"
    sums: dict[tuple[str, str, str], _Sum] = {}
    left: dict[str, int] = {}
    same = written = looked_at = 0
    batch: list[Charge] = []
    pricing = _Pricing(book)
    for charge in store.charges(where):
        looked_at += 1
        if progress is not None and looked_at % 1000 == 0:
            progress(looked_at)
        again = pricing.again(charge)
        if isinstance(again, str):
            left[again] = left.get(again, 0) + 1
            continue
        if again.amount == charge.amount:
            same += 1
            continue
        key = "" if again.price is None else again.price.key
        total = sums.setdefault((charge.system, key, again.currency or ""), _Sum())
        total.charges += 1
        total.before += units(charge.amount or "0")
        total.after += units(again.amount or "0")
        if not dry_run:
            batch.append(again)
            if len(batch) >= BATCH:
                written += write(store.directory, batch, exporters=exporters)
                batch.clear()
    if batch:
        written += write(store.directory, batch, exporters=exporters)
    changes = [
        Change(*key, one.charges, _decimal(one.before), _decimal(one.after))
        for key, one in sums.items()
    ]
    changes.sort(key=lambda change: (-abs(change.difference), change[:3]))
    return Repriced(book.version, tuple(changes), same, left, written)


class _Pricing:
    """Prices charges again, by one book."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._words: dict[str, frozenset[str]] = {}
        self._quick: dict[object, tuple[str, Quick, Quick, Price]] = {}

    def again(self, charge: Charge) -> Charge | str:
        """Return a charge as it would be by the book, or why it cannot be told."""
        if charge.basis == "billed":
            return BILLED
        if charge.amount is None or charge.price is None:
            return UNPRICED
        if charge.basis == "allocated" or "capacity_seconds" in charge.usage:
            return SHARED
        lines = [self._book.get(key) for key in dict.fromkeys(charge.price.key.split(" + "))]
        known = [line for line in lines if line is not None]
        if len(known) < len(lines):
            return NO_LINE
        quick = self._quickly(charge)
        if quick is not None:
            return quick
        quote = self._quote(charge, known)
        if isinstance(quote, str):
            return quote
        self._remember(charge, quote)
        if quote.currency != charge.currency:
            return CURRENCY
        amount, price = quote.amount or Decimal(0), price_of(quote)
        if (price.key, price.unit_price) == (charge.price.key, charge.price.unit_price):
            return charge  # the same price, whatever it was rounded by
        if not _reproduces(charge, quote, price):
            scaled = _scaled(charge, quote)
            if scaled is None:
                return UNCLEAR
            amount = scaled
        return self._made(charge, int(amount.scaleb(EXACT_PLACES)), price)

    def _made(self, charge: Charge, units: int, price: Price) -> Charge:
        info = PriceInfo(
            price.key, price.unit_price, price.unit, price.source, price.as_of, self._book.version
        )
        return msgspec.structs.replace(
            charge,
            revision=charge.revision + 1,
            amount=decimal_text(units),
            currency=price.currency,
            price=info,
        )

    def _remember(self, charge: Charge, quote: Quote) -> None:
        """Keep the short way for charges like this one, where one line is all there is to it."""
        if len(quote.parts) != 1 or charge.price is None or quote.currency != charge.currency:
            return
        line = quote.parts[0].line
        tiered = line.tier_from is not None or line.tier_to is not None
        if tiered or line.meter not in charge.usage or line.unit != charge.price.unit:
            return
        if len(self._quick) < _MOST_KINDS:
            before = msgspec.structs.replace(line, price=Decimal(charge.price.unit_price))
            short = (line.meter, quick_of(before), quick_of(line), price_of(quote))
            self._quick[_kind(charge)] = short

    def _quickly(self, charge: Charge) -> Charge | None:
        """Return a charge by the short way, if its amount is by the old price what it says."""
        known = self._quick.get(_kind(charge))
        if known is None or charge.price is None:
            return None
        meter, before, after, price = known
        quantity = charge.usage.get(meter)
        if not isinstance(quantity, int) or quantity < 0:
            return None
        if decimal_text(before(quantity)) != charge.amount:
            return None
        if (price.key, price.unit_price) == (charge.price.key, charge.price.unit_price):
            return charge
        return self._made(charge, after(quantity), price)

    def _quote(self, charge: Charge, lines: Sequence[PriceLine]) -> Quote | str:
        """Return what the charge's usage costs by these lines, as one quote, or why it has none."""
        systems: dict[str, list[PriceLine]] = {}
        for line in lines:
            names = (charge.resource.service or charge.system, charge.system, line.system)
            system = next(name for name in names if line.priced_for(name))
            systems.setdefault(system, []).append(line)
        whole: Quote | None = None
        for system, of in systems.items():
            quote = self._quote_of(charge, system, of)
            if isinstance(quote, str):
                return quote
            if whole is not None:
                if quote.currency != whole.currency:
                    return CURRENCY
                amount = (whole.amount or Decimal(0)) + (quote.amount or Decimal(0))
                parts = (*whole.parts, *quote.parts)
                quote = msgspec.structs.replace(whole, amount=amount, parts=parts)
            whole = quote
        return whole or NO_LINE

    def _quote_of(self, charge: Charge, system: str, lines: Sequence[PriceLine]) -> Quote | str:
        first = lines[0]
        dims = {dim: values[0] for line in lines for dim, values in line.dims.items()}
        if first.resource_service not in (None, system):
            dims["service"] = first.resource_service or ""
        dims.update(said_in(charge.usage, self._words_of(system)))
        usage = dict(charge.usage)
        for line in lines:
            if line.meter not in usage and _COUNTED_AS.get(line.meter, "") in usage:
                usage[line.meter] = usage[_COUNTED_AS[line.meter]]
        given = {
            name: Fraction(str(value))
            for name, value in usage.items()
            if not isinstance(value, str)
        }
        resolver = Resolver(given, dims, self._book.rules(system))
        used: set[str] = set()
        for line in lines:
            found = resolver.find(line.meter)
            if found is None:
                return NO_USAGE
            used |= found.used
        counted = {name: value for name, value in usage.items() if name in used & set(given)}
        region = charge.resource.region or (None if first.everywhere else first.region)
        quote = self._book.quote(system, counted, region, at=charge.ended_at[:10], **dims)
        return NO_LINE if quote.amount is None else quote

    def _words_of(self, system: str) -> frozenset[str]:
        if system not in self._words:
            self._words[system] = words_of(self._book.meters(system))
        return self._words[system]


def _kind(charge: Charge) -> object:
    """Return what the price of charges depends on, but for the numbers in their usage."""
    place, price = charge.resource, charge.price
    words = tuple(
        (name, value if isinstance(value, str) else "") for name, value in charge.usage.items()
    )
    paid = None if price is None else (price.key, price.unit_price, price.unit)
    return (
        charge.system,
        place.service,
        place.region,
        charge.ended_at[:10],
        charge.currency,
        paid,
        words,
    )


def _reproduces(charge: Charge, quote: Quote, price: Price) -> bool:
    """Tell whether the charge's own prices give its amount, by the quantities of the quote."""
    if charge.price is None:
        return False
    old = dict(
        zip(charge.price.key.split(" + "), charge.price.unit_price.split(" + "), strict=False)
    )
    units_of = dict(
        zip(charge.price.key.split(" + "), charge.price.unit.split(" + "), strict=False)
    )
    if set(old) != {part.line.key for part in quote.parts}:
        # Another line for the same thing: a region's own in place of one for several regions.
        if len(old) != 1 or len(quote.parts) != 1:
            return False
        old = {quote.parts[0].line.key: charge.price.unit_price}
        units_of = {quote.parts[0].line.key: charge.price.unit}
    total = Fraction(0)
    for part in quote.parts:
        if units_of.get(part.line.key) != part.line.unit:
            return False
        units = Fraction(part.quantity) / Fraction(part.line.unit_scale)
        amount = units * Fraction(old[part.line.key])
        total += Fraction(round(amount / _ONE)) * _ONE
    return abs(total - Fraction(charge.amount or 0)) <= _ONE * len(quote.parts) and bool(price.key)


def _scaled(charge: Charge, quote: Quote) -> Decimal | None:
    """Return the charge's amount by the ratio of the new price to the old one, of one line."""
    if charge.price is None or len(quote.parts) != 1 or " + " in charge.price.key:
        return None
    line, old = quote.parts[0].line, Fraction(charge.price.unit_price)
    if line.unit != charge.price.unit or not old:
        return None
    if line.tier_from is not None or line.tier_to is not None:
        return None
    amount = Fraction(charge.amount or 0) * Fraction(line.price) / old
    return _decimal(round(amount / _ONE))


def _decimal(units: int) -> Decimal:
    return Decimal(units).scaleb(-EXACT_PLACES)


def book_for(
    said: Sequence[str],
    price_books: Sequence[str],
    capacities: Sequence[Mapping[str, object]],
    folder: str,
) -> PriceBook:
    """Return the book that is meant: files, a version that was in force once, or the present one.

    Raises:
        PriceBookError: a file is not as documented.
        ValueError: no such version is known, or its files have changed.
    """
    from costinsights.pricing.applying import book_of
    from costinsights.pricing.book import PriceBook

    if not said:
        return PriceBook.load(*price_books, capacities=capacities)
    if len(said) == 1 and not os.path.exists(said[0]) and "+" in said[0]:
        found = book_of(folder, said[0], capacities)
        if found is None:
            raise ValueError(
                f"there is no book {said[0]} to be had: the files that made it are not known, or have "
                "changed, or the shipped prices have"
            )
        return found
    return PriceBook.load(*said, capacities=capacities)
