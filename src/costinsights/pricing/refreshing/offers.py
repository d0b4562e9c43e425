"""What a vendor offers, and the line of the book that becomes of it; or why none does."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights.pricing.currencies import CURRENCIES
from costinsights.pricing.fields import region_slug
from costinsights.pricing.refreshing.measures import MeasureError, exact, factor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costinsights.pricing.line import PriceLine
    from costinsights.pricing.refreshing.lookup import Lookup


class Tier(NamedTuple):
    """A price from a quantity on, both in the vendor's unit."""

    start: Decimal
    price: Decimal


class Offer(NamedTuple):
    """One SKU that fits a lookup."""

    name: str
    """What tells it apart: the SKU's id, with what it is called."""
    unit: str
    currency: str
    tiers: tuple[Tier, ...]
    source: str


class Wanted(NamedTuple):
    """A price that is looked for: of one line, or of the tiers of one."""

    lookup: Lookup
    region: str
    """As the vendor has it; empty for all."""
    lines: tuple[PriceLine, ...]
    """A line for each of the lookup's keys, as it would be in this region: the book's own where it
    has one, else one of another region with this one's name."""
    known: frozenset[str]
    """The keys that the book has; others are new."""


class Refused(ValueError):
    """An offer that no line is made of; `kind` is a word of `findings.KINDS`."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def fits(lookup: Lookup, region: str, attributes: Mapping[str, str]) -> bool:
    """Tell whether a SKU is the one that a lookup means. Names are compared without their case.

    An attribute that a SKU does not have is empty.
    """
    for name, value in lookup.exactly.items():
        if attributes.get(plain(name), "") != value.replace("{region}", region):
            return False
    return all(
        re.fullmatch(pattern, attributes.get(plain(name), ""))
        for name, pattern in lookup.like.items()
    )


def plain(name: str) -> str:
    """Return an attribute's name as it is compared: ``Volume Type`` is ``volumeType``."""
    return name.replace(" ", "").lower()


def only(offers: Sequence[Offer], wanted: Wanted) -> Offer:
    """Return the one offer that is meant.

    Raises:
        Refused: there is none, or more than one: both are named.
    """
    left = list(offers)
    if wanted.lookup.priced:
        left = [offer for offer in left if any(tier.price for tier in offer.tiers)]
    if not left:
        raise Refused("gone", "the vendor's list has no such price")
    if len(left) > 1:
        names = " and ".join(sorted(offer.name for offer in left)[:3])
        more = f" and {len(left) - 3} more" if len(left) > 3 else ""
        raise Refused("twice", f"the vendor's list has it twice: {names}{more}")
    return left[0]


def lines_of(wanted: Wanted, offer: Offer, vendor: str, day: str) -> list[PriceLine]:
    """Return the lines that an offer gives: one, or one a tier.

    A first tier that costs nothing, below others that do, is an allowance of the account's month.

    Raises:
        Refused: its unit or its currency is not known, or its tiers make no sense.
    """
    if offer.currency not in CURRENCIES:
        raise Refused("currency", f"{offer.currency!r} is no currency")
    if not offer.name.isprintable() or not offer.source.isprintable():
        raise Refused("unit", "its name holds characters that cannot be printed")
    tiers = sorted(set(offer.tiers))
    if not tiers or tiers[0].start != 0:
        raise Refused("tiers", f"its prices do not begin at 0: {offer.name}")
    if len({tier.start for tier in tiers}) != len(tiers):
        raise Refused("tiers", f"it has two prices for one quantity: {offer.name}")
    if any(tier.price < 0 or not tier.price.is_finite() for tier in tiers):
        raise Refused("tiers", f"it has a price below 0: {offer.name}")
    first = wanted.lines[0]
    try:
        size = factor(vendor, offer.unit, first)
    except MeasureError as error:
        raise Refused("unit", f"{error}: {offer.name}") from None
    allowance = None
    if len(tiers) > 1 and not tiers[0].price:
        allowance = exact(Fraction(tiers[1].start) / size)
        tiers = [Tier(Decimal(0), tiers[1].price), *tiers[2:]]
    tiers = [one for at, one in enumerate(tiers) if at == 0 or one.price != tiers[at - 1].price]
    found: list[PriceLine] = []
    for at, tier in enumerate(tiers):
        template = wanted.lines[at] if at < len(wanted.lines) else _further(first, at)
        price = exact(Fraction(tier.price) * size / Fraction(wanted.lookup.of))
        above = tiers[at + 1].start if at + 1 < len(tiers) else None
        found.append(
            msgspec.structs.replace(
                template,
                price=price,
                currency=offer.currency,
                free=not price,
                unsourced=False,
                tier_from=exact(Fraction(tier.start) / size) if len(tiers) > 1 else None,
                tier_to=None if above is None else exact(Fraction(above) / size),
                allowance=allowance,
                as_of=day,
                source=f"{offer.source}: {offer.name}"[:_LONGEST],
                valid_from="",
                valid_to="",
                list_price=None,
                discounts=(),
            )
        )
    return found


_LONGEST = 1000


def _further(first: PriceLine, at: int) -> PriceLine:
    """Return the line of a tier that the book does not have yet."""
    stem, slash, region = first.key.partition("/")
    return msgspec.structs.replace(first, key=f"{stem}.tier_{at + 1}{slash}{region}")


def in_region(line: PriceLine, region: str) -> PriceLine:
    """Return a line as it would be called in a region."""
    stem = line.key.partition("/")[0]
    return msgspec.structs.replace(
        line, key=f"{stem}/{region_slug(region)}", region=region, regions=()
    )
