"""Hours and days, as settlement counts them: in UTC, and whole."""

from __future__ import annotations

from datetime import datetime, timedelta

HOUR = timedelta(hours=1)


def hour(moment: datetime) -> datetime:
    """Return the beginning of the hour."""
    return moment.replace(minute=0, second=0, microsecond=0)


def hour_after(moment: datetime) -> datetime:
    """Return the next whole hour, or the moment itself where it is one."""
    whole = hour(moment)
    return whole if whole == moment else whole + HOUR


def naive(moment: datetime) -> str:
    """Return a moment in UTC as SQL on the ledger has it."""
    return moment.replace(tzinfo=None).isoformat(" ")


def days(span: timedelta) -> str:
    """Return a span for people."""
    return f"{span.days} days" if span.days != 1 else "a day"
