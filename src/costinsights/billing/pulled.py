"""What a pull did, and why it could not."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  msgspec needs it to read a report back

import msgspec


class BillingError(Exception):
    """Nothing can be pulled; the text says why and what to do. `grant` is what is missing."""

    def __init__(self, message: str, *, grant: str = "") -> None:
        super().__init__(message)
        self.grant = grant


class NotAsked(BillingError):
    """What was asked for cannot be: there is no such source, or no such time."""


class OverCap(BillingError):
    """Looking would cost more than it may."""


class Change(msgspec.Struct, frozen=True):
    """A slice that has become another one after it was final."""

    slice: str
    before: dict[str, str]
    """The sum of BilledCost by currency, as decimal text."""
    after: dict[str, str]
    difference: dict[str, str]


class Pulled(msgspec.Struct, kw_only=True):
    """What a pull did, or with `dry_run` would do."""

    source: str
    puller: str
    start: datetime
    end: datetime
    granularity: str
    dry_run: bool = False
    plan: tuple[str, ...] = ()
    accounts: int = 0
    scopes: list[str] = []
    """Whose bills these are, as slices name them: accounts, exports, deliveries of a folder."""
    slices: int = 0
    """All of the time that was asked for."""
    published: int = 0
    """Those that were pulled and count now."""
    unchanged: int = 0
    """Those of which the source says that they are what they were."""
    closed: int = 0
    """Those that are final, and were left alone."""
    provisional: int = 0
    """Those published that are bound to change: yesterday, or estimated by the source."""
    rows: int = 0
    """Rows of what was published."""
    held_back: int = 0
    """Rows of today, which come tomorrow."""
    billed: dict[str, str] = {}
    """The sum of BilledCost of what was published, by currency, as decimal text."""
    changes: list[Change] = []
    """Slices that were final and have changed."""
    moved: list[str] = []
    """Slices that are final, and of which the source has another version by now."""
    incomplete: dict[str, str] = {}
    """Why slices could not be pulled to their end: the next run takes them up."""
    notes: list[str] = []
    requests: int = 0
    spent: dict[str, str] = {}
    """What looking used, in the price book's meters."""
    cost: str | None = None
    currency: str | None = None
    failed: str = ""
    grant: str = ""
