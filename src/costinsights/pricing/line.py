"""The values that a price book is made of and answers with."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

EXACT_PLACES = 15
"""Decimals of every amount in a ledger, a quote and a share of capacity."""


class Discount(msgspec.Struct, frozen=True):
    """A multiplier on the lines that it matches, from a user's file."""

    name: str
    multiplier: Decimal
    match: Mapping[str, str]
    source: str
    as_of: str
    origin: str


class PriceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One dated price: so much money for one `unit` of a system's `meter` in a region.

    `price` is per `unit`; `unit_scale` says how many of `meter` make one unit, so that a price per
    DPU-hour can be held against `dpu_seconds`. `as_of` is as exact as the source is: a day, a
    month, a year, a span of years, or "unknown".
    """

    key: str
    provider: str
    service: str
    sku: str
    """The provider's own word for the meter."""
    system: str
    meter: str
    region: str
    unit: str
    price: Decimal
    currency: str
    as_of: str
    source: str
    unit_scale: Decimal = Decimal(1)
    also: tuple[str, ...] = ()
    """Other systems that the line prices: a Cloud SQL core runs PostgreSQL and MySQL."""
    resource_service: str | None = None
    """The hosting service, `aws.rds`, of a line whose system is the engine, `postgresql`."""
    dims: Mapping[str, tuple[str, ...]] = {}
    """What else must be true of the usage: `{"instance_class": ("db.m5.large",)}`."""
    defaults: tuple[str, ...] = ()
    """The dims that hold when nothing is said."""
    regions: tuple[str, ...] = ()
    """Further names of the region; `*` is every region."""
    minimum: Decimal | None = None
    increment: Decimal | None = None
    tier_from: Decimal | None = None
    tier_to: Decimal | None = None
    allowance: Decimal | None = None
    """What of a month an account has for nothing, in units. Nothing is taken off a single use."""
    valid_from: str = ""
    valid_to: str = ""
    free: bool = False
    unsourced: bool = False
    note: str = ""
    origin: str = ""
    """`file:line` of the entry."""
    layer: int = 0
    """0 for the built-in files, then one for each of the user's; the higher one wins."""
    list_price: Decimal | None = None
    discounts: tuple[str, ...] = ()

    def priced_for(self, system: str) -> bool:
        """Whether the line prices `system`, named by its engine or by its hosting service."""
        return system in (self.system, self.resource_service) or system in self.also

    def holds_in(self, region: str) -> bool:
        """Whether it is the price in `region`, in any of the names that the line gives it."""
        wanted = region.casefold()
        return (
            "*" in self.regions
            or wanted == self.region.casefold()
            or any(wanted == name.casefold() for name in self.regions)
        )

    @property
    def price_text(self) -> str:
        """The price digit for digit, never with an exponent."""
        return f"{self.price:f}"

    @property
    def everywhere(self) -> bool:
        """Whether the price is the same in every region."""
        return "*" in self.regions


class Part(msgspec.Struct, frozen=True):
    """One price line's share of a quote."""

    line: PriceLine
    quantity: Decimal
    """Billed quantity after minimum and rounding, in the line's meter."""
    units: Decimal
    """The same in the line's unit, or what falls into the line's tier."""
    amount: Decimal


class Price(NamedTuple):
    """What an amount was made with. One of several lines joins their texts with " + "."""

    key: str
    unit_price: str
    unit: str
    currency: str
    source: str
    as_of: str


class Quote(msgspec.Struct, frozen=True):
    """What a usage costs, and why. `amount` is None when the book cannot tell; never a guess."""

    system: str
    amount: Decimal | None
    currency: str | None
    basis: str
    """`estimated` or `unknown`."""
    formula: str
    rule: str
    parts: tuple[Part, ...]
    reason: str
    """Why the amount is unknown and what to do about it; empty when it is known."""
    notes: tuple[str, ...]
    book: str

    @property
    def lines(self) -> tuple[PriceLine, ...]:
        """The price lines that the amount comes from."""
        return tuple(part.line for part in self.parts)

    @property
    def source(self) -> str:
        """Where their prices come from."""
        return "; ".join(dict.fromkeys(line.source for line in self.lines))


class Meter(msgspec.Struct, frozen=True):
    """Something that a quote for a system can be asked in."""

    name: str
    kind: str
    """`priced`: a price line counts it. `input`: a rule makes a priced meter of it."""
    units: tuple[str, ...]
    regions: tuple[str, ...]
    dims: tuple[str, ...]
    gives: tuple[str, ...]
    """The meters that a rule makes of an input."""
