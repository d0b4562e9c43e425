"""The fair share of a capacity that is paid for by the hour, and what it costs.

While n calls run on a resource, each bears 1/n of the price of the moment: `costinsights.clock` tells
how. Every amount falls short of its share's price by less than 10**-15.
"""

from __future__ import annotations

from math import gcd

from costinsights.clock import UNITS_PER_NS
from costinsights.pricing.line import EXACT_PLACES, PriceLine
from costinsights.pricing.units import HOUR, is_hourly
from costinsights.quick import Clock

_MONEY = 10**EXACT_PLACES


class Capacity(Clock):
    """One paid-for resource and its clock; thread-safe."""

    __slots__ = ("currency", "denominator", "line", "numerator")

    def __init__(self, line: PriceLine) -> None:
        """Raises ValueError where the line's unit is not an hour of something."""
        super().__init__()
        if not is_hourly(line.unit):
            raise ValueError(f"{line.key} is per {line.unit}, which is not an hour")
        self.line = line
        self.currency = line.currency
        # A share of 1 costs price ÷ (3600 s × 10**15), here in 10**-15 of the currency.
        price, per = line.price.as_integer_ratio()
        numerator = price * _MONEY
        denominator = per * HOUR * 10**9 * UNITS_PER_NS
        common = gcd(numerator, denominator)
        # Public for the recorder, which writes `units` out.
        self.numerator: int = numerator // common
        self.denominator: int = denominator // common

    def units(self, share: int) -> int:
        """What a share costs, in 10**-15 of the currency, rounded down."""
        return share * self.numerator // self.denominator

    def amount(self, share: int) -> str:
        """What a share costs, rounded down at the 15th decimal: `0.000000003955555`."""
        units = share * self.numerator // self.denominator
        if units < _MONEY:  # almost every call; the general way takes twice as long
            return "0." + str(units).rjust(EXACT_PLACES, "0")
        whole, rest = divmod(units, _MONEY)
        return f"{whole}.{rest:015d}"
