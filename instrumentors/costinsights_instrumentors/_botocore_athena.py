"""Amazon Athena's part of botocore: which operations start a query, and which tell how it ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from costinsights.instrumentor import Usage
from costinsights.jobs import Operation, Place, Run, Start, State
from costinsights_instrumentors._botocore import where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM = "aws.athena"

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


def figures(execution: Mapping[str, Any]) -> Usage | None:
    """Return what a query used, of the `QueryExecution` that tells of its end; None for nothing.

    What Athena does not charge for, DDL and failed queries, has 0 `data_scanned_bytes`, and what it
    scanned as `unbilled_bytes`. Cancelled queries pay for what they scanned.
    Source: https://aws.amazon.com/athena/pricing/
    """
    statistics = _part(execution, "Statistics")
    meters: dict[str, int | float | str] = {}
    for theirs, ours in STATISTICS.items():
        value = statistics.get(theirs)
        if isinstance(value, (int, float)):
            meters[ours] = value
    if not meters:
        return None
    if _part(statistics, "ResultReuseInformation").get("ReusedPreviousResult"):
        meters["result_reused"] = 1
    if _is_free(execution) and "data_scanned_bytes" in meters:
        scanned, meters["data_scanned_bytes"] = meters["data_scanned_bytes"], 0
        if scanned:
            meters["unbilled_bytes"] = scanned
    return Usage(None, meters)


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
    return _part(execution, "Status").get("State")


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = whole.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def state(execution: Mapping[str, Any]) -> State:
    """Return how a query is, of its `QueryExecution`."""
    word = state_of(execution)
    usage = figures(execution)
    total = (usage.meters or {}).get("total_time_ms") if usage is not None else None
    return State(
        execution.get("QueryExecutionId", ""),
        word in ENDS,
        usage,
        None if word == "SUCCEEDED" else word,
        int(total * 10**6) if isinstance(total, (int, float)) and total else None,
    )


def place_of(client: Any, request: Mapping[str, Any]) -> Place:
    """Return the workgroup that a start names, in the region of its client."""
    return where(SYSTEM, client, request.get("WorkGroup") or "primary")


def _started(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[Run]:
    yield Run(answer.get("QueryExecutionId"))


def text(request: Mapping[str, Any]) -> str | None:
    """Return the statement of a start."""
    return request.get("QueryString")


def rewritten(
    args: tuple[Any, ...], kwargs: dict[str, Any], changed: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a start, whose request stands last, with another statement."""
    return (*args[:-1], {**args[-1], "QueryString": changed}), kwargs


def _one(_: object, answer: Mapping[str, Any]) -> Iterator[State]:
    yield state(answer.get("QueryExecution") or {})


def _many(_: object, answer: Mapping[str, Any]) -> Iterator[State]:
    yield from map(state, answer.get("QueryExecutions") or ())


OPERATIONS = {
    "StartQueryExecution": Operation(SYSTEM, Start(place_of, _started, text, rewritten)),
    "GetQueryExecution": Operation(SYSTEM, states=_one),
    "BatchGetQueryExecution": Operation(SYSTEM, states=_many),
}
