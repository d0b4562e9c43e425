"""Sees to it that costs get into Dagster once a program imports it, and to nothing before.

The plug-in ``dagster`` of the group ``costinsights_framework``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights import children
from costinsights.imports import forget, when_imported

if TYPE_CHECKING:
    from types import ModuleType

    from costinsights.config import Config
    from costinsights.dagster.quiet import Quiet
    from costinsights.dagster.seam import Seam
    from costinsights.dagster.ticks import Ticks

EXPORTER = "dagster"


class DagsterWatch:
    """Made once a process."""

    def __init__(self) -> None:
        self._config: Config | None = None
        self.seam: Seam | None = None
        self._quiet: Quiet | None = None
        self._ticks: Ticks | None = None

    def watch(self, config: Config) -> None:
        """Wait for Dagster."""
        self._config = config
        when_imported("dagster", self._begin)

    def unwatch(self) -> None:
        """Put everything back."""
        forget(self._begin)
        children.instrument_inside("dagster", None)
        seam, self.seam = self.seam, None
        if seam is not None:
            seam.end()
        quiet, self._quiet = self._quiet, None
        if quiet is not None:
            quiet.end()
        ticks, self._ticks = self._ticks, None
        if ticks is not None:
            ticks.end()

    def _begin(self, module: ModuleType) -> None:
        config = self._config
        if config is None or self._quiet is not None:
            return
        from costinsights.dagster.quiet import Quiet
        from costinsights.dagster.ticks import Place, Ticks

        self._quiet = Quiet(module.DagsterInstance)
        self._quiet.begin()
        places = (
            Place(module.SensorDefinition, "sensor"),
            Place(module.ScheduleDefinition, "schedule"),
        )
        self._ticks = Ticks(places)
        self._ticks.begin()
        # dbt, and what else a step starts, is a part of the step.
        children.instrument_inside("dagster", config)
        if EXPORTER not in (config.exporters or ()):
            return
        from costinsights.dagster.seam import Seam

        url = config.exporter_options.get(EXPORTER, {}).get("report_url", "")
        self.seam = Seam(config.ledger, str(url))
        self.seam.begin()
