"""What a settlement did, and why it could not."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  msgspec needs it to read a report back

import msgspec


class SettlementError(Exception):
    """Nothing can be settled; the text says why and what to do. `grant` is what is missing."""

    def __init__(self, message: str, *, grant: str = "") -> None:
        super().__init__(message)
        self.grant = grant


class NotAsked(SettlementError):
    """What was asked for cannot be: there is no such reader, or no such time."""


class WouldWake(SettlementError):
    """The system sleeps, and asking it would start it."""


class Settled(msgspec.Struct, kw_only=True):
    """What a settlement did, or with `dry_run` would do."""

    system: str
    since: datetime
    until: datetime
    dry_run: bool = False
    resumed: datetime | None = None
    """From where an earlier run had left something, before `since`."""
    plan: tuple[str, ...] = ()
    figures: int = 0
    """Queries in the history, our own not counted."""
    charges: int = 0
    """Charges of the ledger in this time that instrumented programs made."""
    found: dict[str, int] = {}
    """How the charges of figures were found: by id, tag or statement."""
    settled: int = 0
    """Charges that got a later figure now."""
    unchanged: int = 0
    """Charges that had this very figure already."""
    outside: int = 0
    """Queries that no instrumented program made."""
    added: int = 0
    """Those of them that became charges now."""
    running: int = 0
    """Charges of runs that go on, which got what they have used so far."""
    lost: int = 0
    """Charges of runs that the system no longer knows: they say so now, and are not asked for."""
    without: int = 0
    """Charges that the history has nothing about."""
    idle: int = 0
    """Rows of idle capacity, and of our own share of it, that are new or changed."""
    amounts: dict[str, dict[str, str]] = {}
    """What all of this comes to: by currency, of ``charges``, ``outside``, ``idle``, ``self``."""
    left: dict[str, int] = {}
    """Why figures were left for later or for good, and how many."""
    unpriced: dict[str, int] = {}
    """What the price book could not tell."""
    incomplete: list[str] = []
    """What the reader says of its history."""
    failed: str = ""
    """Why the history could not be read to its end."""
    grant: str = ""
    requests: int = 0
    spent: dict[str, str] = {}
    cost: str | None = None
    """What the requests of this run cost; None where nobody knows."""
    currency: str | None = None
    next_since: datetime | None = None
    """Where the next run begins by itself."""
