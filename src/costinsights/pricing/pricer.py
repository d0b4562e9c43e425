"""Prices what calls used, at the end of each call: a quote of the book, made quick.

The first call of a kind (a system, a region, what was counted) is answered by `PriceBook.quote`.
A word among the usage that prices depend on, such as the worker type that a job turns out to have
run on, goes with it. Where a quote took one line and no more than its minimum and rounding, as with bytes scanned, the calls
after it are a multiplication of whole numbers with the same result to the last digit.
"""

from __future__ import annotations

from fractions import Fraction
from time import gmtime, strftime, time
from typing import TYPE_CHECKING, NamedTuple

from costinsights.instrumentor import UNPRICED
from costinsights.pricing.line import EXACT_PLACES, Price

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from costinsights.pricing.book import PriceBook
    from costinsights.pricing.line import Meter, PriceLine, Quote

    Quantity = int | float | str
    Quick = Callable[[int], int]

_DAY = 24 * 3600
_MOST_KINDS = 256
_MOST_REASONS = 1024


class Priced(NamedTuple):
    """An amount in whole 10⁻¹⁵ of the price's currency."""

    amount: int
    price: Price


class Pricer:
    """Prices the usage of one kind of resource: a system, in a region, with what else sets it."""

    def __init__(
        self,
        book: PriceBook,
        system: str,
        region: str | None,
        dimensions: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._book = book
        self._system = system
        self._region = region
        self._dimensions = dict(dimensions)
        self._say = say
        self._known: frozenset[str] | None = None
        self._words: frozenset[str] = frozenset()
        self._day = -1
        self._at = ""
        self._quick: dict[str, tuple[Quick, Price]] = {}
        self._said: set[str] = set()

    def __call__(self, meters: Mapping[str, Quantity]) -> Priced | None:
        """Return what `meters` cost at today's prices, or None: the reason is said once."""
        day = int(time() // _DAY)
        if day != self._day:
            self._day, self._at = day, strftime("%Y-%m-%d", gmtime(day * _DAY))
            self._quick.clear()
        if self._known is None:  # the built-in prices are read when something has been used
            known = self._book.meters(self._system)
            self._words = words_of(known)
            self._known = frozenset(meter.name for meter in known)
        counted = {name: meters[name] for name in meters if name in self._known}
        if not counted or UNPRICED in meters:
            return None
        said = {} if self._words.isdisjoint(meters) else said_in(meters, self._words)
        only, quantity = next(iter(counted.items()))
        if len(counted) == 1 and not said:
            quick = self._quick.get(only)
            if quick is not None and isinstance(quantity, int) and quantity >= 0:
                return Priced(quick[0](quantity), quick[1])
        dimensions = {**self._dimensions, **said} if said else self._dimensions
        found = self._book.quote(self._system, counted, self._region, at=self._at, **dimensions)
        if found.amount is None:
            self._missing(found.reason)
            return None
        price = price_of(found)
        if len(counted) == 1 and len(found.parts) == 1 and not said:
            self._remember(only, found.parts[0].line, price)
        return Priced(int(found.amount.scaleb(EXACT_PLACES)), price)

    def _missing(self, reason: str) -> None:
        if reason not in self._said and len(self._said) < _MOST_REASONS:
            self._said.add(reason)
            self._say(f"{self._system} is not priced: {reason}")

    def _remember(self, name: str, line: PriceLine, price: Price) -> None:
        """Keep the short way for a line that is all there is to the price of its own meter."""
        plain = line.meter == name and line.tier_from is None and line.tier_to is None
        if plain and len(self._quick) < _MOST_KINDS:
            self._quick[name] = quick_of(line), price


def words_of(meters: Iterable[Meter]) -> frozenset[str]:
    """Return what prices depend on beside quantities: ``worker_type``, ``edition``."""
    return frozenset(name for meter in meters for name in meter.dims)


def said_in(meters: Mapping[str, Quantity], words: Collection[str]) -> dict[str, str]:
    """Return the words among a usage that prices depend on."""
    return {
        name: value for name, value in meters.items() if isinstance(value, str) and name in words
    }


def price_of(quote: Quote) -> Price:
    """Return what a quote was made with, as the ledger keeps it."""
    lines = list({line.key: line for line in quote.lines}.values())

    def joined(texts: list[str]) -> str:
        return " + ".join(texts)

    return Price(
        joined([line.key for line in lines]),
        joined([line.price_text for line in lines]),
        joined([line.unit for line in lines]),
        lines[0].currency,
        "; ".join(dict.fromkeys(line.source for line in lines)),
        max(line.as_of for line in lines),
    )


def quick_of(line: PriceLine) -> Quick:
    """Return the line's price of a whole quantity of its meter, in 10⁻¹⁵ rounded half to even.

    The result is `PriceBook.quote`'s, and a property test holds it to that.
    """
    rate = Fraction(line.price) * 10**EXACT_PLACES / Fraction(line.unit_scale)
    increment = Fraction(line.increment) if line.increment is not None else None
    least = Fraction(line.minimum) if line.minimum is not None else Fraction(0)
    # All in one unit that makes them whole: quantities of `1 / common`.
    common = least.denominator if increment is None else least.denominator * increment.denominator
    step = 0 if increment is None else int(increment * common)
    minimum = int(least * common)
    numerator: int = rate.numerator
    denominator: int = rate.denominator * common

    def units(quantity: int) -> int:
        if not quantity:
            return 0
        billed = quantity * common
        if step:
            billed = -(-billed // step) * step
        whole, rest = divmod(max(billed, minimum) * numerator, denominator)
        up = rest * 2 > denominator or (rest * 2 == denominator and whole % 2 == 1)
        return whole + up

    return units
