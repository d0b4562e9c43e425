"""EMR on EKS's part of botocore: which operation starts a job run, which tells how it ended.

No answer says what was used. What the run's own properties say of its pods is kept with the charge;
settlement makes an estimate of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Usage
from costinsights.jobs import Operation, Place, Run, Start, State
from costinsights.systems.aws_emr_containers import (
    ENDS,
    METERS,
    PENDING,
    SYSTEM,
    Unknown,
    attempts_of,
    is_python,
    pods,
    properties,
    sizes,
    times_of,
)
from costinsights_instrumentors._botocore import follow, where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.jobs import Waiting

__all__ = ["METERS", "OPERATIONS", "SYSTEM"]


def _place(client: Any, request: Mapping[str, Any]) -> Place:
    return where(SYSTEM, client, request.get("virtualClusterId"))


def _started(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[Run]:
    driver = request.get("jobDriver")
    found = properties(driver, request.get("configurationOverrides"))
    try:
        size = sizes(pods(found, python=is_python(driver)))
    except Unknown:
        size = {}  # the run's description may have more: of a template, for instance
    yield Run(answer.get("id"), operation="JOB", meters=size, within=_within(request))


def _within(thing: Mapping[str, Any]) -> str:
    return thing.get("virtualClusterId") or ""


def _described(_: object, answer: Mapping[str, Any]) -> Iterator[State]:
    yield state(answer.get("jobRun") or {})


def _listed(_: object, answer: Mapping[str, Any]) -> Iterator[State]:
    yield from map(state, answer.get("jobRuns") or ())


def state(run: Mapping[str, Any]) -> State:
    """Return how a run is: how long it took, from its creation to its end."""
    word = run.get("state")
    created, finished = times_of(run)
    seconds = None
    meters = attempts_of(run)
    if created is not None and finished is not None:
        seconds = max((finished - created).total_seconds(), 0)
        meters["run_seconds"] = int(seconds) if seconds.is_integer() else seconds
    return State(
        run.get("id") or "",
        word in ENDS,
        Usage(None, {**meters, **PENDING}) if word in ENDS else None,
        None if word == "COMPLETED" else word,
        None if seconds is None else int(seconds * 10**9),
        _within(run),
    )


def _ask(client: Any, waiting: Sequence[Waiting]) -> Iterator[State]:
    for run in waiting:
        answer = client.describe_job_run(id=run.id, virtualClusterId=run.namespace)
        yield state(answer.get("jobRun") or {})


OPERATIONS = {
    "StartJobRun": Operation(SYSTEM, Start(_place, _started), follow=follow(_ask)),
    "DescribeJobRun": Operation(SYSTEM, states=_described),
    "ListJobRuns": Operation(SYSTEM, states=_listed),
}
