"""The resource that switches costinsights on for a whole code location."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

import costinsights
from costinsights.dagster.resources.base import EXPORTER, Resource
from costinsights.guard import say, swallow

if TYPE_CHECKING:
    from collections.abc import Generator

    from typing_extensions import Self

    from costinsights.attribution import Cost


class CostInsightsResource(Resource):
    """Puts a cost on every statement and job of a code location, and shows it in Dagster.

    ::

        defs = dg.Definitions(assets=[...], resources={"costinsights": CostInsightsResource()})

    No step has to ask for it. Dagster initialises a resource only for the steps that do, so
    this one switches costinsights on when it is made, which every process does that loads the
    definitions, the workers of steps included; and again, which changes nothing, where a step asks
    for it. What is said in an `EnvVar` is looked up when it is made: one that is not set is a
    message, and the code location is loaded all the same.

    The first `costinsights.instrument()` of a process decides. With ``COSTINSIGHTS_DISABLED=true``
    nothing is switched on.
    """

    ledger: str | None = Field(
        default=None,
        description="The folder of the ledger. Default: COSTINSIGHTS_LEDGER, the configuration "
        "file, or ~/.local/state/costinsights/ledger.",
    )
    price_book: str | None = Field(
        default=None,
        description="A price file that overrides and adds to the built-in prices.",
    )
    exporters: list[str] = Field(
        default=[EXPORTER],
        description="Where costs go besides the ledger: names of exporters.",
    )
    tagging: str | None = Field(
        default=None, description="off, native or comment (docs/attribution.md); off unless said."
    )
    labels: dict[str, str] = Field(
        default={}, description='Labels for every call of the code location, as {"team": "growth"}.'
    )
    config: str | None = Field(
        default=None,
        description="A configuration file, in place of costinsights.toml or pyproject.toml.",
    )

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        self._switch_on()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Switch costinsights on, unless that was done when the resource was made."""
        self._switch_on()

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Self]:
        """Count the step that asks for the resource by itself, for `cost`."""
        with costinsights.attribute(), super().yield_for_execution(context):
            yield self

    def cost(self) -> Cost:
        """Return what the step that is running has cost so far: `costinsights.current()`."""
        return costinsights.current()

    def _switch_on(self) -> None:
        try:
            costinsights.instrument(
                ledger=_value("ledger", self.ledger),
                price_book=_value("price_book", self.price_book),
                exporters=[name for one in self.exporters if (name := _value("exporters", one))],
                tagging=_value("tagging", self.tagging),
                attribution={name: _value("labels", label) for name, label in self.labels.items()},
                config=_value("config", self.config),
            )
        except Exception as error:  # noqa: BLE001  a mistake of ours stops no code location
            swallow("CostInsightsResource", error)


def _value(field: str, given: str | None) -> str | None:
    """Return what was given, or what the variable holds that it stands for."""
    if not isinstance(given, dg.EnvVar):
        return given
    value = given.get_value()
    if value is None:
        say(
            f"costinsights: {given.env_var_name} is not set: CostInsightsResource does without "
            f"its {field}"
        )
    return value
