"""Settlement: a system's own history, and later figures for the charges that are in the ledger.

::

    from costinsights.settlement import settle

    report = settle("aws.redshift", since=datetime(2026, 11, 22, tzinfo=timezone.utc))

docs/settlement.md tells what it does; `costinsights.settlement.history` is what a reader of one
system's history is written against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.later import later

if TYPE_CHECKING:
    from costinsights.settlement.history import Figure, History, HistoryError, Plan, Stretch
    from costinsights.settlement.settling import (
        NotAsked,
        Settled,
        SettlementError,
        WouldWake,
        settle,
    )

__all__ = [
    "Figure",
    "History",
    "HistoryError",
    "NotAsked",
    "Plan",
    "Settled",
    "SettlementError",
    "Stretch",
    "WouldWake",
    "settle",
]

# A reader is no reason to load all of settlement.
_PLACES = {
    "Figure": "history",
    "History": "history",
    "HistoryError": "history",
    "NotAsked": "settling",
    "Plan": "history",
    "Settled": "settling",
    "SettlementError": "settling",
    "Stretch": "history",
    "WouldWake": "settling",
    "settle": "settling",
}
__getattr__ = later(__name__, _PLACES)
