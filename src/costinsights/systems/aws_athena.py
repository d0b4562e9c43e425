"""What Athena's `QueryExecution` says: for those who see it pass by, and for who asks for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from costinsights.troubles import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ENDS = frozenset(("SUCCEEDED", "FAILED", "CANCELLED"))

# How Athena calls a figure of `QueryExecutionStatistics`, and how we do.
STATISTICS = {
    "DataScannedInBytes": "data_scanned_bytes",
    "EngineExecutionTimeInMillis": "engine_time_ms",
    "QueryPlanningTimeInMillis": "planning_time_ms",  # a part of the engine's time
    "QueryQueueTimeInMillis": "queue_time_ms",
    "ServicePreProcessingTimeInMillis": "preprocessing_time_ms",
    "ServiceProcessingTimeInMillis": "service_time_ms",
    "TotalExecutionTimeInMillis": "total_time_ms",
    "DpuCount": "dpu_count",
}
METERS = (*STATISTICS.values(), "result_reused", "unbilled_bytes")

# A table made of a query is DDL to Athena, and is charged for what the query scans.
_MADE_OF_A_QUERY = re.compile(
    r"\bcreate\s+table\b.*?\bas\s*[\s(]\s*(select|with)\b", re.IGNORECASE | re.DOTALL
)


def figures(execution: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Return what a query used, of the `QueryExecution` that tells of its end; empty for nothing.

    What Athena does not charge for, DDL and failed queries, has 0 `data_scanned_bytes`, and what it
    scanned as `unbilled_bytes`. Cancelled queries pay for what they scanned.
    Source: https://aws.amazon.com/athena/pricing/
    """
    statistics = part(execution, "Statistics")
    meters: dict[str, int | float | str] = {}
    for theirs, ours in STATISTICS.items():
        value = statistics.get(theirs)
        if isinstance(value, (int, float)):
            meters[ours] = value
    scanned = meters.get("data_scanned_bytes")
    if not scanned:
        if meters and part(statistics, "ResultReuseInformation").get("ReusedPreviousResult"):
            meters["result_reused"] = 1
    elif _is_free(execution):
        meters["data_scanned_bytes"], meters["unbilled_bytes"] = 0, scanned
    return meters


def _is_free(execution: Mapping[str, Any]) -> bool:
    if state_of(execution) == "FAILED":
        return True
    if execution.get("StatementType") != "DDL":
        return False
    kind: str | None = execution.get("SubstatementType")
    if kind:
        return kind != "CREATE_TABLE_AS_SELECT"
    return _MADE_OF_A_QUERY.search(execution.get("Query") or "") is None


def state_of(execution: Mapping[str, Any]) -> str | None:
    """Return ``SUCCEEDED``, ``RUNNING`` …, None where there is none."""
    return part(execution, "Status").get("State")


def forgotten(answer: Mapping[str, Any]) -> Iterator[str]:
    """Yield the ids that a `BatchGetQueryExecution` does not know (any more).

    An id may also stand among the unprocessed because something went wrong; its code says so.
    """
    for missed in answer.get("UnprocessedQueryExecutionIds") or ():
        code = str(missed.get("ErrorCode", ""))
        if kind_of(code) in (None, "unknown") and (found := missed.get("QueryExecutionId")):
            yield found


def part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return what lies within an answer, or an empty one."""
    found = whole.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}
