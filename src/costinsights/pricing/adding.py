"""Prices sums that grow: the same as a quote of the book, made quick enough for every call.

A quote is asked for once a day and a kind; after that a price is a multiplication of whole numbers a
meter, with the quote's result to the last digit. Tiers are counted from nothing, as a quote counts
them, and a sum of a second's calls does not leave the first one.
"""

from __future__ import annotations

from time import gmtime, strftime, time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights.pricing import document, files, quoting
from costinsights.pricing.pricer import price_of, quick_of, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costinsights.pricing.book import PriceBook
    from costinsights.pricing.line import Price, Quote

    Quick = Callable[[int], int]

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
        self._reads = any(part.received for part in parts)
        self._known: dict[bool, tuple[tuple[Quick, ...], tuple[Quick, ...], Price] | None] = {}

    def __call__(self, requests: int, received: int) -> tuple[int, Price] | None:
        """Return the amount in 10⁻¹⁵ and what it was made with; None: the reason is said once."""
        day = int(time() // _DAY)
        if day != self._day:
            self._day = day
            self._known.clear()
        reads = self._reads and received > 0
        try:
            found = self._known[reads]
        except KeyError:
            found = self._known[reads] = self._look_up(reads=reads)
        if found is None:
            return None
        by_requests, by_received, price = found
        amount = 0
        for quick in by_requests:
            amount += quick(requests)
        for quick in by_received:
            amount += quick(received)
        return amount, price

    def _look_up(self, *, reads: bool) -> tuple[tuple[Quick, ...], tuple[Quick, ...], Price] | None:
        whole: Quote | None = None
        quick: dict[bool, list[Quick]] = {False: [], True: []}
        for part in self._parts:
            wanted = [name for name in (part.requests, part.received if reads else "") if name]
            if not wanted:
                continue
            quote = self._quote(part, wanted)
            if quote.amount is None:
                self._missing(part.system, quote.reason)
                return None
            for line in quote.lines:
                quick[line.meter == part.received].append(quick_of(line))
            if whole is not None:
                quote = msgspec.structs.replace(whole, parts=(*whole.parts, *quote.parts))
            whole = quote
        if whole is None:
            return None
        return tuple(quick[False]), tuple(quick[True]), price_of(whole)

    def _quote(self, part: Priced, meters: list[str]) -> Quote:
        known = words_of(self._book.meters(part.system))
        words = {name: value for name, value in part.words.items() if name in known}
        at = strftime("%Y-%m-%d", gmtime(self._day * _DAY))
        return self._book.quote(part.system, dict.fromkeys(meters, 1), self._region, at=at, **words)

    def _missing(self, system: str, reason: str) -> None:
        if reason not in _said and len(_said) < _MOST_REASONS:
            _said.add(reason)
            self._say(f"{system} is not priced: {reason}")
