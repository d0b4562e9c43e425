"""What a refresh has found of each line: the same, another price, or something to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costinsights.pricing.refreshing.offers import Refused, lines_of, only

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from decimal import Decimal

    from costinsights.pricing.line import PriceLine
    from costinsights.pricing.refreshing.offers import Offer, Wanted

JUMP = 10
"""A price that is more than so many times the old one, or less than so small a part of it, is not
taken unless somebody says so."""

KINDS: Mapping[str, str] = {
    "same": "as it was",
    "changed": "another price",
    "new": "a line that the book did not have",
    "accepted": "taken because --accept names it",
    "jump": f"more than {JUMP} times as much, or as little: not taken; --accept KEY takes it",
    "zero": "costs nothing now: not taken; --accept KEY takes it",
    "gone": "not found any more: the book keeps its line",
    "absent": "not offered in this region",
    "twice": "found more than once: not taken",
    "unit": "in a unit that is not known: not taken",
    "currency": "in a currency that is not known, or another one: not taken",
    "tiers": "its tiers make no sense: not taken",
}
TAKEN = frozenset(("same", "changed", "new", "accepted"))
DOUBTS = frozenset(KINDS) - TAKEN - {"absent"}
"""Kinds that somebody has to look at."""


class Finding(NamedTuple):
    """One line."""

    kind: str
    """One of `KINDS`."""
    key: str
    region: str
    old: PriceLine | None
    new: PriceLine | None
    """The line as it would be; of a kind in `TAKEN` it goes into the file."""
    why: str = ""

    @property
    def change(self) -> Decimal | None:
        """The new price less the old one, where both are of one unit and currency."""
        old, new = self.old, self.new
        if old is None or new is None or not _alike(old, new):
            return None
        return new.price - old.price


def findings(
    wanted: Wanted,
    offers: Sequence[Offer],
    vendor: str,
    day: str,
    accepted: Collection[str] = (),
) -> Iterator[Finding]:
    """Yield what becomes of the lines that were wanted."""
    old = {line.key: line for line in wanted.lines if line.key in wanted.known}
    try:
        offer = only(offers, wanted)
        lines = lines_of(wanted, offer, vendor, day)
    except Refused as refused:
        first = wanted.lines[0]
        kind = refused.kind
        if kind == "gone" and first.key not in old:
            kind = "absent"
        for key in old or (first.key,):
            yield Finding(kind, key, first.region, old.get(key), None, str(refused))
        return
    for line in lines:
        yield _finding(line, old.get(line.key), accepted)
    for key, line in old.items():
        if all(key != one.key for one in lines):
            why = "the vendor's list has fewer tiers"
            yield Finding("gone", key, line.region, line, None, why)


def _finding(new: PriceLine, old: PriceLine | None, accepted: Collection[str]) -> Finding:
    def found(kind: str, why: str = "") -> Finding:
        if kind not in TAKEN and new.key in accepted:
            kind = "accepted"
        return Finding(kind, new.key, new.region, old, new, why)

    if not new.price and (old is None or old.price):
        return found("zero", "" if old is None else f"was {old.price_text} {old.currency}")
    if old is None:
        return found("new")
    if old.currency != new.currency:
        return found("currency", f"{new.currency} in place of {old.currency}")
    if old.price and not 1 <= new.price / old.price * JUMP <= JUMP * JUMP:
        return found("jump", f"{new.price_text} in place of {old.price_text}")
    same = (old.price, old.tier_from or 0, old.tier_to, old.allowance) == (
        new.price,
        new.tier_from or 0,
        new.tier_to,
        new.allowance,
    )
    if same:
        return found("same")
    return found("changed", "" if old.price != new.price else "other tiers, or another allowance")


def _alike(old: PriceLine, new: PriceLine) -> bool:
    return (old.unit, old.currency) == (new.unit, new.currency)
