"""Splits a stretch of paid-for capacity over what ran on it: exactly, with idle on its own.

Money is whole 10⁻¹⁵ of a currency and time whole microseconds, so nothing is lost and nothing is
made: the shares of a stretch, idle included, sum to its price to the last unit, whatever the
history looks like. Each share is cut by cumulative rounding, so it is less than one unit off.

The same figures give the same shares in whatever order they come.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# Weights are cut to whole numbers of this part of theirs, once for each stretch: exact fractions
# of thousands of queries would have a common denominator of as many digits.
_FINENESS = 10**18


def microseconds(moment: datetime) -> int:
    """Return a moment as microseconds since the epoch."""
    return (moment - _EPOCH) // MICROSECOND


class Claim(NamedTuple):
    """What ran: from `start` to `end` (µs), having done `weight` of work in all of that time.

    An `end` before the `start`, as a clock that was set back leaves it, is a moment: `start`.
    """

    key: str
    start: int
    end: int
    weight: int | Decimal | Fraction


class Split(NamedTuple):
    """The price of a stretch: what each claim bears, by its key, and what nobody used."""

    shares: dict[str, int]
    idle: int


def split(
    units: int,
    start: int,
    end: int,
    claims: Iterable[Claim],
    *,
    idle: Fraction | None = None,
    uptime: int | None = None,
) -> Split:
    """Split `units` of money for the time from `start` to `end` over the claims in it.

    Each claim bears by its weight times the part of its time that lies in the stretch. Before
    that, idle is taken off: the part `idle` where the system says so itself, and otherwise the part
    of `uptime` (µs; all of the stretch where None) in which nothing ran. What did no work bears
    nothing, and where nobody did any, all is idle.

    Two claims with one key bear as one.
    """
    present = sorted(claim for claim in claims if _overlap(claim, start, end) is not None)
    weights = [_weight(claim, start, end) for claim in present]
    total = sum(weights)
    shares: dict[str, int] = {}
    if not total:
        return Split({claim.key: 0 for claim in present}, units)
    if idle is None:
        paid = end - start if uptime is None else uptime
        idle = Fraction(max(0, paid - busy(present, start, end)), paid) if paid > 0 else Fraction(0)
    unused = units * idle.numerator // idle.denominator
    used = units - unused
    before = reached = 0
    for claim, weight in zip(present, weights, strict=True):
        reached += weight
        upto = used * reached // total
        shares[claim.key] = shares.get(claim.key, 0) + upto - before
        before = upto
    return Split(shares, unused)


def busy(claims: Iterable[Claim], start: int, end: int) -> int:
    """Return how long, within the stretch, at least one of the claims ran (µs)."""
    total, reached = 0, start
    for claim in sorted(claims, key=lambda claim: claim.start):
        begun, until = max(claim.start, reached), min(claim.end, end)
        if until > begun:
            total += until - begun
            reached = until
    return total


def _overlap(claim: Claim, start: int, end: int) -> int | None:
    """Return how much of the claim's time (µs) lies in the stretch; None for one that does not.

    A moment lies in the stretch in which it begins.
    """
    if claim.end <= claim.start:
        return 0 if start <= claim.start < end else None
    length = min(claim.end, end) - max(claim.start, start)
    return length if length > 0 else None


def _weight(claim: Claim, start: int, end: int) -> int:
    whole = Fraction(claim.weight) * _FINENESS
    if whole <= 0:
        return 0
    length = claim.end - claim.start
    inside = _overlap(claim, start, end)
    if length <= 0 or inside is None:
        return int(whole)
    return int(whole * inside / length)
