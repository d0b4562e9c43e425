"""Brings costs to the assets of Dagster that they are for.

Inside a run the cost of a step is metadata of the materialisations that it makes. What comes later,
or belongs to a step that has failed, is an observation of the asset; a correction has the
difference, so that sums over all events are right. What belongs to no asset is told of an asset
that stands for its job: ``costinsights/job/<job>``.

::

    costinsights.instrument(exporters=["dagster"])

``costinsights export dagster`` tells what has come after the end of runs: of settlement, and of
steps that were killed. It needs ``DAGSTER_HOME``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from costinsights.exporter import ExporterUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costinsights.dagster.seam import Seam
    from costinsights.records import Charge

    Progress = Callable[[str, int, int | None], None]


class DagsterOptions(msgspec.Struct, frozen=True):
    """Options of the dagster exporter."""

    report_url: str = ""
    """A page of costs, to which each event links: ``{run}``, ``{asset}`` and ``{job}`` are put in."""
    ledger: str = ""


class DagsterExporter:
    """Follows the ledger for the steps of this process, and tells later figures when asked."""

    name = "dagster"
    Options = DagsterOptions
    follows = "process"
    late = True
    """It is to be asked again after settlement."""

    def __init__(self, options: DagsterOptions | None = None) -> None:
        self._options = options or DagsterOptions()

    def export(self, batch: Sequence[Charge]) -> None:
        """Have read what has come, so that a step that ends has little left to read."""
        seam = _seam()
        if batch and seam is not None:
            seam.tail.catch_up(seam.tail.own())

    def shutdown(self) -> None:
        """Nothing is held."""

    def write(self, out: str = "", progress: Progress | None = None) -> str:
        """Tell Dagster what it does not know yet of finished runs, and say what that was.

        Raises:
            ExporterUnavailable: Dagster or DuckDB is not installed, or ``DAGSTER_HOME`` not set.
        """
        try:
            from costinsights.dagster.reporting import report_costs
        except ImportError as error:
            raise ExporterUnavailable(
                f"it needs Dagster ({error}): run  pip install 'costinsights[dagster]'"
            ) from error
        options = self._options
        return str(
            report_costs(
                ledger=options.ledger or None, report_url=options.report_url, progress=progress
            )
        )


def _seam() -> Seam | None:
    """Return what works inside this process's runs, where Dagster has been imported."""
    module = sys.modules.get("costinsights.dagster.seam")
    return None if module is None else module.current
