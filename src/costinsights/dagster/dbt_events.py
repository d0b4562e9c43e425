"""The costs of dbt's nodes on the events that dagster-dbt makes of them.

::

    @dg.op
    def build(context: dg.OpExecutionContext, dbt: DbtCliResource):
        yield from with_costs(dbt.cli(["build"], manifest=manifest, context=context).stream())

In an asset (``@dbt_assets``) the events are outputs, and get their costs like all outputs do; in an
op they are whole events, and this puts the costs into them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dagster import AssetMaterialization, AssetObservation, OpExecutionContext

from costinsights import orchestrators
from costinsights.dagster.figures import Figures
from costinsights.dagster.metadata import described
from costinsights.dagster.step import budget
from costinsights.guard import say, suppressed, swallow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costinsights.dagster.seam import Seam
    from costinsights.dagster.step import Step

E = TypeVar("E")
Stream = TypeVar("Stream", bound="Iterator[Any]")

_UNIQUE_ID = "unique_id"
"""Where dagster-dbt says, in the metadata of its events, which node an event is of."""


def with_costs(events: Stream) -> Stream:
    """Return dagster-dbt's stream of events with the costs of their nodes on them.

    It is of the same kind as `events`, so that it can be put before or behind
    ``fetch_row_counts()`` and the like; order and errors are those of `events`. Where nothing is
    measured it says what to do, once, and changes nothing.
    """
    seam = _seam()
    step = None if seam is None else _step(seam)
    if seam is None or step is None:
        say(
            "costinsights.dagster.with_costs: dbt is not measured here; "
            'put resources={"costinsights": CostInsightsResource()} into the Definitions'
        )
        return events
    measured: Any = _measured(seam, step, events)
    # What can be chained is the stream's own class, which knows its invocation under no public
    # name; without one the events are all that there is.
    invocation = getattr(events, "_dbt_cli_invocation", None)
    if invocation is not None:
        kind: Any = type(events)
        measured = kind(events=measured, dbt_cli_invocation=invocation)
    return cast("Stream", measured)


def _seam() -> Seam | None:
    module = sys.modules.get("costinsights.dagster.seam")
    return None if module is None else module.current


def _step(seam: Seam) -> Step | None:
    """Return the step that is running; dbt has been started in it already."""
    context = orchestrators.present()
    if context is None or context.rule != "dagster":
        return None
    task, mapping = context.labels.get("task", ""), context.labels.get("mapping")
    name = f"{task}[{mapping}]" if mapping else task
    return seam.step_of(OpExecutionContext.get().run_id, name)


def _measured(seam: Seam, step: Step, events: Iterator[E]) -> Iterator[E]:
    known = len(step.facts.nodes)
    try:
        for event in events:
            if isinstance(event, AssetMaterialization | AssetObservation):
                yield _with_cost(seam, step, event)  # type: ignore[misc]  # one of the two
            else:
                yield event
    finally:
        if step.hold is not None and len(step.facts.nodes) > known:
            step.hold.note(step.facts)


def _with_cost(
    seam: Seam, step: Step, event: AssetMaterialization | AssetObservation
) -> AssetMaterialization | AssetObservation:
    try:
        with suppressed():
            node = event.metadata[_UNIQUE_ID].value if _UNIQUE_ID in event.metadata else None
            if not isinstance(node, str):
                return event
            asset = event.asset_key.to_user_string()
            step.facts.nodes.setdefault(node, asset)
            tail = seam.tail
            if not tail.catch_up(tail.others(step.since), budget()):
                return event  # told when the step is over
            figures = Figures()
            for one, spent in tail.of(step.facts.run, step.facts.step).items():
                if one.node == node and one.attempt == str(step.attempt):
                    figures.merge(spent)
            if not figures:
                return event
            metadata = described(figures, seam.about(step), asset, report_url=seam.report_url)
            return event.with_metadata({**event.metadata, **metadata})
    except Exception as error:  # noqa: BLE001  dbt's events go on
        swallow("with_costs", error)
        return event
