"""Exports to nowhere: to measure what exporting costs, or to let go of what has piled up.

Everything recorded counts as exported, and is in the ledger all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costinsights.records import Charge


class NullExporter:
    """Takes every batch and does nothing with it."""

    name = "null"

    def export(self, batch: Sequence[Charge]) -> None:
        """Do nothing."""

    def shutdown(self) -> None:
        """Do nothing."""
