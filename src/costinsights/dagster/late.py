"""Brings costs that became known late to the assets that they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.dagster.reporting import report_costs

if TYPE_CHECKING:
    from dagster import AssetExecutionContext, DagsterInstance, SensorEvaluationContext


def tell_late(context: AssetExecutionContext | SensorEvaluationContext, ledger: str) -> str:
    """Report to Dagster what the ledger knows by now and Dagster does not; return what was done.

    What cannot be told now is told the next time; it is said, and fails nothing.
    """
    try:
        instance: DagsterInstance = context.instance
        return str(report_costs(instance, ledger))
    except Exception as error:  # noqa: BLE001  what was pulled or settled is there all the same
        said = f"costs could not be reported: {type(error).__name__}: {error}"
        context.log.warning("%s", said)
        return said
