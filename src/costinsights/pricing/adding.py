"""Prices sums that grow: the same as a quote of the book, made quick enough for every call.

A quote is asked for once a day and a kind; after that a price is a multiplication of whole numbers a
meter, with the quote's result to the last digit. Tiers are counted from nothing, as a quote counts
them, and a sum of a second's calls does not leave the first one.
"""

from __future__ import annotations

from fractions import Fraction
from time import gmtime, strftime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights.pricing import document, files, quoting
from costinsights.pricing.line import EXACT_PLACES
from costinsights.pricing.pricer import price_of, quick_of, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costinsights.pricing.book import PriceBook
    from costinsights.pricing.line import Price, PriceLine, Quote

    Quick = Callable[[int], int]
    _Found = tuple[int, tuple[Quick, ...], tuple[Quick, ...], Price]
    """What a request costs in whole 10⁻¹⁵, what else prices requests, and bytes; the price."""

_DAY = 24 * 3600
_said: set[str] = set()
# What the book would import with the first question: see `costinsights.storage.Counting`.
_NEEDED = (document, files, quoting)
_MOST_REASONS = 1024


class Priced(NamedTuple):
    """Where one part of a price stands in the book."""

    system: str
    requests: str
    """The meter of requests; empty for none."""
    received: str
    """The meter of bytes received; empty for none."""
    words: Mapping[str, str]
    """What else sets it; what no price of the system depends on does not count."""


class Adding:
    """Prices requests and bytes received, for one kind of call."""

    def __init__(
        self,
        book: PriceBook,
        parts: tuple[Priced, ...],
        region: str | None,
        say: Callable[[str], None],
    ) -> None:
        self._book = book
        self._parts = parts
        self._region = region
        self._say = say
        self._day = -1
        self.reads = any(part.received for part in parts)
        """Whether bytes received have a price."""
        self._known: dict[bool, _Found | None] = {}

    @property
    def each(self) -> int | None:
        """What a request costs that brings no bytes, in whole 10⁻¹⁵; None where it is not so simple."""
        found = self._known.get(False)
        return None if found is None or found[1] or found[2] else found[0]

    def __call__(self, requests: int, received: int, day: int) -> tuple[int, Price] | None:
        """Return the amount in 10⁻¹⁵ and what it was made with; None: the reason is said once.

        `day` is that of the prices, counted from 1970.
        """
        if day != self._day:
            self._day = day
            self._known.clear()
        reads = self.reads and received > 0
        try:
            found = self._known[reads]
        except KeyError:
            found = self._known[reads] = self._look_up(reads=reads)
        if found is None:
            return None
        each, by_requests, by_received, price = found
        amount = requests * each
        for quick in by_requests:
            amount += quick(requests)
        for quick in by_received:
            amount += quick(received)
        return amount, price

    def _look_up(self, *, reads: bool) -> _Found | None:
        whole: Quote | None = None
        quick: dict[bool, list[Quick]] = {False: [], True: []}
        each = 0
        for part in self._parts:
            wanted = [name for name in (part.requests, part.received if reads else "") if name]
            if not wanted:
                continue
            quote = self._quote(part, wanted)
            if quote.amount is None:
                self._missing(part.system, quote.reason)
                return None
            for line in quote.lines:
                if line.meter == part.requests and (whole_price := _each(line)) is not None:
                    each += whole_price
                else:
                    quick[line.meter == part.received].append(quick_of(line))
            if whole is not None:
                quote = msgspec.structs.replace(whole, parts=(*whole.parts, *quote.parts))
            whole = quote
        if whole is None:
            return None
        return each, tuple(quick[False]), tuple(quick[True]), price_of(whole)

    def _quote(self, part: Priced, meters: list[str]) -> Quote:
        known = words_of(self._book.meters(part.system))
        words = {name: value for name, value in part.words.items() if name in known}
        at = strftime("%Y-%m-%d", gmtime(self._day * _DAY))
        return self._book.quote(part.system, dict.fromkeys(meters, 1), self._region, at=at, **words)

    def _missing(self, system: str, reason: str) -> None:
        if reason not in _said and len(_said) < _MOST_REASONS:
            _said.add(reason)
            self._say(f"{system} is not priced: {reason}")


def _each(line: PriceLine) -> int | None:
    """Return the price of one, where it is a whole number of 10⁻¹⁵ and there is no rounding."""
    rate = Fraction(line.price) * 10**EXACT_PLACES / Fraction(line.unit_scale)
    if rate.denominator != 1 or line.minimum is not None or line.increment is not None:
        return None
    return int(rate)
