"""Reads ``--since`` and ``--until``: dates, moments, and how people say them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from costinsights.ledger.store import Period

_AGO = re.compile(r"(\d{1,6})\s*(m|min|h|d|w)")
_UNITS = {
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}

FORMS = 'a date (2026-11-01), a moment (2026-11-01T12:00), "7d", "24h", "today" or "yesterday"'


def moment(text: str, now: datetime) -> datetime:
    """Return what `text` means at `now`: naive, in UTC, like all times in the ledger.

    A date is its first moment; "7d" is that long before now. A moment with an offset from UTC is
    converted.

    Raises:
        ValueError: it is none of the forms; the text says which there are.
    """
    said = text.strip().lower()
    if said == "now":
        return now
    if said in _DAYS:
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + timedelta(days=_DAYS[said])
    ago = _AGO.fullmatch(said)
    try:
        if ago is not None:
            return now - int(ago[1]) * _UNITS[ago[2]]
        # Python 3.10 does not know the Z.
        found = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
        if found.tzinfo is not None:
            found = found.astimezone(timezone.utc).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is not a time: write {FORMS}") from None
    return found


def period(since: str | None, until: str | None, now: datetime | None = None) -> Period:
    """Return the period from `since` (included) to `until` (not included), days being UTC's.

    Raises:
        ValueError: a text is no time, or the period ends before it begins.
    """
    at = now or datetime.now(timezone.utc).replace(tzinfo=None)
    begin = moment(since, at) if since is not None else None
    end = moment(until, at) if until is not None else None
    if begin is not None and begin >= (end or at):
        raise ValueError(f"the time ends before it begins: since {begin}, until {end or at}")
    return Period(begin, end)


def before(asked: Period, now: datetime | None = None) -> Period:
    """Return the period of the same length that ends where `asked` begins.

    Raises:
        ValueError: `asked` has no beginning, so nothing is before it.
    """
    if asked.since is None:
        raise ValueError("a comparison needs to know where the time begins: add --since")
    end = asked.until or now or datetime.now(timezone.utc).replace(tzinfo=None)
    return Period(asked.since - (end - asked.since), asked.since)
