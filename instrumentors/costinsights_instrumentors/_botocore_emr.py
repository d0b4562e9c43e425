"""EMR on EC2's part of botocore: which operations start clusters and steps, which tell the end.

A cluster that is started with steps gets a charge for itself and one for each of them. The answer
has no ids of these steps: they are the cluster's first ones, `j-…:1` and so on, until an answer to
the program's own `ListSteps`, if it is a whole list, shows what they are called.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Usage
from costinsights.jobs import Operation, Place, Run, Start, State
from costinsights.systems.aws_emr import (
    CLUSTER_ENDS,
    GOOD,
    METERS,
    PENDING,
    STEP_ENDS,
    SYSTEM,
    Times,
    cluster_meters,
    cluster_of,
    numbered,
    requested,
    state_of,
    step_meters,
    times_of,
)
from costinsights_instrumentors._botocore import follow, where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.jobs import Waiting

__all__ = ["METERS", "OPERATIONS", "SYSTEM"]

MOST_STEPS = 4096
FILTERS = ("StepStates", "StepIds", "Marker")

# What the first steps of clusters are called, as far as it has been seen: `s-…` as `j-…:1`.
first_steps: OrderedDict[str, str] = OrderedDict()


def _place(client: Any, request: Mapping[str, Any]) -> Place:
    return where(SYSTEM, client, request.get("JobFlowId"))


def _placed(client: Any, request: Mapping[str, Any], answer: Mapping[str, Any]) -> Place:
    return where(SYSTEM, client, answer.get("JobFlowId"))


def _cluster(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[Run]:
    id_ = answer.get("JobFlowId") or ""
    yield Run(id_ or None, operation="CLUSTER", meters=requested(request))
    for number in range(1, len(request.get("Steps") or ()) + 1) if id_ else ():
        yield Run(numbered(id_, number), operation="STEP")


def _steps(_: object, answer: Mapping[str, Any]) -> Iterator[Run]:
    for id_ in answer.get("StepIds") or ():
        yield Run(id_, operation="STEP")


def _ended(id_: str, word: str, times: Times, meters: dict[str, Any]) -> State:
    created, _, ended = times
    whole = None if created is None or ended is None else (ended - created).total_seconds()
    return State(
        id_,
        True,
        Usage(None, {**meters, **PENDING}),
        None if word in GOOD else word,
        None if whole is None else int(max(whole, 0) * 10**9),
    )


def _step(step: Mapping[str, Any]) -> Iterator[State]:
    """Yield how a step is, under each of the names that it may have here."""
    id_, word = step.get("Id") or "", state_of(step)
    if word not in STEP_ENDS:
        return
    times = times_of(step)
    for name in (id_, first_steps.get(id_)):
        if name:
            yield _ended(name, word, times, step_meters(times))


def _described(_: object, answer: Mapping[str, Any]) -> Iterator[State]:
    yield from _step(answer.get("Step") or {})


def _listed(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[State]:
    """A list goes from the newest step to the first one; a part of it does not tell the numbers."""
    steps = answer.get("Steps") or ()
    if not answer.get("Marker") and not any(request.get(name) for name in FILTERS):
        for number, step in enumerate(reversed(steps), 1):
            first_steps[step.get("Id") or ""] = numbered(request.get("ClusterId") or "", number)
        while len(first_steps) > MOST_STEPS:
            first_steps.popitem(last=False)
    for step in steps:
        yield from _step(step)


def _cluster_described(_: object, answer: Mapping[str, Any]) -> Iterator[State]:
    cluster: Mapping[str, Any] = answer.get("Cluster") or {}
    word = state_of(cluster)
    if word in CLUSTER_ENDS:
        yield _ended(cluster.get("Id") or "", word, times_of(cluster), cluster_meters(cluster))


def _ask(client: Any, waiting: Sequence[Waiting]) -> Iterator[State]:
    """Ask after one step, or one cluster; the first steps of a cluster are found in its list."""
    for run in waiting:
        cluster = cluster_of(run.id, run.namespace) or ""
        if run.id == cluster:
            yield from _cluster_described(None, client.describe_cluster(ClusterId=cluster))
        elif run.id.startswith(cluster):
            steps = [
                step
                for page in client.get_paginator("list_steps").paginate(ClusterId=cluster)
                for step in page.get("Steps") or ()
            ]
            yield from _listed({"ClusterId": cluster}, {"Steps": steps})
        else:
            yield from _step(
                client.describe_step(ClusterId=cluster, StepId=run.id).get("Step") or {}
            )


OPERATIONS = {
    "RunJobFlow": Operation(SYSTEM, Start(_place, _cluster, placed=_placed), follow=follow(_ask)),
    "AddJobFlowSteps": Operation(SYSTEM, Start(_place, _steps), follow=follow(_ask)),
    "DescribeStep": Operation(SYSTEM, states=_described),
    "ListSteps": Operation(SYSTEM, states=_listed),
    "DescribeCluster": Operation(SYSTEM, states=_cluster_described),
}
