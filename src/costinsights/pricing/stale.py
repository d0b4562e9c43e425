"""When a price is too old to be believed: a year after its date, and what to do about it."""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import TYPE_CHECKING

from costinsights.pricing.fields import newest_of

if TYPE_CHECKING:
    from collections.abc import Iterable

WORD = "stale"
REFRESHED = ("aws", "azure", "databricks", "gcp")
"""Vendors whose prices can be looked up: `costinsights.pricing.refreshing.lookup.VENDORS`."""


def today() -> date:
    """Return the day, UTC."""
    return datetime.now(timezone.utc).date()


def is_stale(as_of: str, day: date) -> bool:
    """Tell whether a price of that date is more than a year old on `day`.

    A month or a year counts from its end; ``unknown``, which own rates may have, from nothing.
    """
    newest = newest_of(as_of)
    if not newest:
        return False
    year, *rest = map(int, newest.split("-"))
    month = rest[0] if rest else 12
    if len(rest) == 2:
        return (year + 1, month, rest[1]) < (day.year, day.month, day.day)
    return (year + 1, month) < (day.year, day.month)


def advice(keys: Iterable[str]) -> str:
    """Say how newer prices are had in place of lines of these keys."""
    vendors = sorted({key.partition(".")[0] for key in keys})
    commands = [f"costinsights prices refresh {name}" for name in vendors if name in REFRESHED]
    if len(commands) < len(vendors):
        commands.append("a newer date in your own price file")
    return " or ".join(commands)
