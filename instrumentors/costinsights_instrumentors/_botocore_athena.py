"""Amazon Athena's part of botocore: which operations start a query, and which tell how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Usage
from costinsights.jobs import One, Operation, Place, Start, State
from costinsights.systems.aws_athena import ENDS, METERS, figures, state_of
from costinsights_instrumentors._botocore import follow, where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.jobs import Waiting

__all__ = ["METERS", "OPERATIONS", "SYSTEM", "place_of", "rewritten", "state", "text"]

SYSTEM = "aws.athena"


def state(execution: Mapping[str, Any]) -> State:
    """Return how a query is, of its `QueryExecution`."""
    word = state_of(execution)
    if word not in ENDS:
        return State(execution.get("QueryExecutionId", ""), False)
    meters = figures(execution)
    total = meters.get("total_time_ms")
    return State(
        execution.get("QueryExecutionId", ""),
        True,
        Usage(None, meters) if meters else None,
        None if word == "SUCCEEDED" else word,
        int(total * 10**6) if isinstance(total, (int, float)) and total else None,
    )


def place_of(client: Any, request: Mapping[str, Any]) -> Place:
    """Return the workgroup that a start names, in the region of its client."""
    return where(SYSTEM, client, request.get("WorkGroup") or "primary")


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


def _ask(client: Any, waiting: Sequence[Waiting]) -> Iterator[State]:
    ids = [run.id for run in waiting]
    yield from _many(None, client.batch_get_query_execution(QueryExecutionIds=ids))


OPERATIONS = {
    "StartQueryExecution": Operation(
        SYSTEM,
        Start(place_of, One("QueryExecutionId"), text, rewritten, by="WorkGroup"),
        follow=follow(_ask, batch=50),
    ),
    "GetQueryExecution": Operation(SYSTEM, states=_one),
    "BatchGetQueryExecution": Operation(SYSTEM, states=_many),
}
