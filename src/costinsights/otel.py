"""The door for ``opentelemetry-instrument``: one entry point that calls `costinsights.instrument`.

It never raises: OpenTelemetry's loader would stop at the first error and leave the program's
other instrumentors out.
"""

from __future__ import annotations

from typing import Any

from costinsights.guard import swallow
from costinsights.runtime import instrument, uninstrument


class CostInsightsInstrumentor:
    """Shaped like OpenTelemetry's ``BaseInstrumentor``, of which the loader calls `instrument`.

    It is no subclass, so that the bare package needs no part of OpenTelemetry.
    """

    def instrumentation_dependencies(self) -> tuple[str, ...]:
        """Return nothing: each driver is looked for by its own plug-in."""
        return ()

    def instrument(self, **options: Any) -> None:
        """Switch costinsights on as the environment and the configuration file say."""
        try:
            instrument()
        except Exception as error:  # noqa: BLE001  see the module's docstring
            swallow("opentelemetry-instrument", error)

    def uninstrument(self, **options: Any) -> None:
        """Switch costinsights off."""
        uninstrument()
