"""Settlement: a system's own history, and later figures for the charges that are in the ledger.

::

    from costinsights.settlement import settle

    report = settle("aws.redshift", since=datetime(2026, 11, 22, tzinfo=timezone.utc))

docs/settlement.md tells what it does; `costinsights.settlement.history` is what a reader of one
system's history is written against.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

_OF_HISTORY = frozenset(("Figure", "History", "HistoryError", "Plan", "Stretch"))


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: a reader is no reason to load all of settlement."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = "history" if name in _OF_HISTORY else "settling"
    return getattr(import_module(f"{__name__}.{module}"), name)
