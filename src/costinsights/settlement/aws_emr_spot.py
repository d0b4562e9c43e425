"""What machines on the spot market cost: EC2's own history of their prices, where that is wanted.

`DescribeSpotPriceHistory` tells each change of a type's price in a zone, in USD for an hour. AWS does
not say to which moment of its history the second is that it charges; here each moment has the price
that stood then.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.settlement.history import utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MICROSECOND = timedelta(microseconds=1)


class Prices(NamedTuple):
    """The prices of one type in one zone, from the moments on at which they began to hold."""

    moments: Sequence[datetime]
    prices: Sequence[Decimal]

    def over(self, start: datetime, end: datetime) -> Decimal | None:
        """Return the price of an hour, averaged over a time; None where some of it has none."""
        at = bisect_right(self.moments, start) - 1
        if at < 0 or end <= start:
            return None
        total, reached = Decimal(0), start
        while reached < end:
            last = at + 1 >= len(self.moments)
            until = end if last else min(end, self.moments[at + 1])
            total += self.prices[at] * ((until - reached) // MICROSECOND)
            reached, at = until, at + 1
        return total / ((end - start) // MICROSECOND)


def prices_in(rows: Iterable[Mapping[str, Any]], zone: str) -> dict[str, Prices]:
    """Return the prices of each type, of a history's rows; one that cannot be read is no price."""
    found: dict[str, dict[datetime, Decimal]] = {}
    for row in rows:
        kind, moment = row.get("InstanceType"), row.get("Timestamp")
        if row.get("AvailabilityZone") != zone or not isinstance(kind, str):
            continue
        try:
            price = Decimal(str(row.get("SpotPrice")))
        except InvalidOperation:
            continue
        if isinstance(moment, datetime) and price.is_finite() and price >= 0:
            found.setdefault(kind, {})[utc(moment)] = price
    return {
        kind: Prices(sorted(several), [several[moment] for moment in sorted(several)])
        for kind, several in found.items()
    }
