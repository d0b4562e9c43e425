"""Brings costs that became known late to the assets that they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import AssetExecutionContext, DagsterInstance, SensorEvaluationContext


def tell_late(context: AssetExecutionContext | SensorEvaluationContext, ledger: str) -> None:
    """Report to Dagster what the ledger knows by now and Dagster does not.

    What cannot be told now is told the next time; it is said, and fails nothing.
    """
    try:
        from costinsights.dagster import report_costs

        instance: DagsterInstance = context.instance
        report_costs(instance=instance, ledger=ledger)
    except Exception as error:  # noqa: BLE001  what was pulled or settled is there all the same
        context.log.warning(
            "costs that are known by now could not be reported: %s: %s", type(error).__name__, error
        )
