"""The Redshift Data API's part of botocore: which operations start statements, which tell the end.

The figures are those of `DescribeStatement`; botocore's model of redshift-data says what they mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Usage
from costinsights.jobs import Operation, Place, Run, Start, State
from costinsights.tagging import tag_of
from costinsights_instrumentors._botocore import where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

SYSTEM = "aws.redshift"
ENDS = frozenset(("FINISHED", "FAILED", "ABORTED"))
METERS = ("result_bytes",)


def figures(statement: Mapping[str, Any]) -> Usage:
    """Return what a statement used; -1 is how the API says that there is no such figure.

    `RedshiftQueryId` is ``SYS_QUERY_HISTORY.query_id``: the charge's id from now on.
    """
    rows, size = statement.get("ResultRows", -1), statement.get("ResultSize", -1)
    query = statement.get("RedshiftQueryId", -1)
    return Usage(
        rows if rows >= 0 else None,
        {"result_bytes": size} if size >= 0 else None,
        str(query) if query > 0 else None,
    )


def state(statement: Mapping[str, Any]) -> State:
    """Return how a statement is; `Duration` is in nanoseconds."""
    word, duration = statement.get("Status"), statement.get("Duration", 0)
    return State(
        statement.get("Id", ""),
        word in ENDS,
        figures(statement),
        None if word == "FINISHED" else word,
        duration if duration > 0 else None,
    )


def _place(client: Any, request: Mapping[str, Any]) -> Place:
    """A session that goes on (`SessionId`) says neither cluster nor workgroup again."""
    workgroup, cluster = request.get("WorkgroupName"), request.get("ClusterIdentifier")
    service = "aws.redshift_serverless" if workgroup else "aws.redshift" if cluster else None
    return where(SYSTEM, client, workgroup or cluster, service)


def _one(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[Run]:
    yield Run(answer.get("Id"))


def _each(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[Run]:
    """A batch's statements are known by its id and their number: ``…:1``, ``…:2``."""
    for number, text in enumerate(request.get("Sqls") or (), 1):
        yield Run(f"{answer.get('Id')}:{number}", text)


def _first(request: Mapping[str, Any]) -> str | None:
    return next(iter(request.get("Sqls") or ()), None)


def _text(request: Mapping[str, Any]) -> str | None:
    return request.get("Sql")


def _rewritten(args: tuple[Any, ...], kwargs: dict[str, Any], text: str) -> Arguments:
    client, operation, request = args
    return (client, operation, {**request, "Sql": text}), kwargs


def _described(_: object, answer: Mapping[str, Any]) -> Iterator[State]:
    parts = answer.get("SubStatements")
    yield from map(state, parts or (answer,))


def _fetched(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[State]:
    """Rows are there, so it has ended; of a program that never asked how it is, that is all."""
    total = answer.get("TotalNumRows")
    if total is not None:
        yield State(request.get("Id", ""), True, Usage(total))


def with_labels(
    args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
) -> Arguments | None:
    """Name a statement that the program gives no name: ``ci,asset=…,job=…``."""
    client, operation, request = args
    if request.get("StatementName"):
        return None
    return (client, operation, {**request, "StatementName": tag_of(words)}), kwargs


OPERATIONS = {
    "ExecuteStatement": Operation(SYSTEM, Start(_place, _one, _text, _rewritten)),
    "BatchExecuteStatement": Operation(SYSTEM, Start(_place, _each, _first)),
    "DescribeStatement": Operation(SYSTEM, states=_described),
    "GetStatementResult": Operation(SYSTEM, states=_fetched),
    "GetStatementResultV2": Operation(SYSTEM, states=_fetched),
}
