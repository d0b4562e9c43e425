"""EMR Serverless's part of botocore: which operation starts a job run, which tells how it ended.

The price depends on the application's architecture, which no answer about a run has: it is read
from the program's own questions about applications, as far as they pass by while a run is open.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Usage
from costinsights.jobs import Operation, Place, Run, Start, State
from costinsights.systems.aws_emr_serverless import (
    ENDS,
    METERS,
    SYSTEM,
    architecture_of,
    attempt_of,
    billed,
    dimensions,
    problem,
    used,
)
from costinsights_instrumentors._botocore import follow, where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.jobs import Waiting

__all__ = ["METERS", "OPERATIONS", "SYSTEM"]

MOST_APPLICATIONS = 1024

architectures: OrderedDict[str, str] = OrderedDict()


def _place(client: Any, request: Mapping[str, Any]) -> Place:
    return where(SYSTEM, client, request.get("applicationId"))


def _started(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[Run]:
    yield Run(answer.get("jobRunId"), operation="JOB", within=request.get("applicationId") or "")


def _described(request: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[State]:
    """An attempt of several tells of itself only, and an earlier one not even of the end."""
    run: Mapping[str, Any] = answer.get("jobRun") or {}
    if "attempt" not in request:
        yield state(run)


def state(run: Mapping[str, Any]) -> State:
    """Return how a run is; with its figures where one attempt made them all."""
    word = run.get("state")
    created, ended = run.get("createdAt"), run.get("endedAt")
    whole = None
    if created is not None and ended is not None:
        whole = int(max((ended - created).total_seconds(), 0) * 10**9)
    application = run.get("applicationId") or ""
    known = attempt_of(run) == 1 and not problem(run)
    sets = dimensions(run, architectures.get(application))
    return State(
        run.get("jobRunId") or "",
        word in ENDS,
        Usage(None, {**billed(run), **used(run), **sets}) if known else None,
        None if word == "SUCCESS" else word,
        whole,
        application,
    )


def _application(_: object, answer: Mapping[str, Any]) -> Iterator[State]:
    _learn("applicationId", answer.get("application") or {})
    yield from ()


def _applications(_: object, answer: Mapping[str, Any]) -> Iterator[State]:
    for one in answer.get("applications") or ():
        _learn("id", one)
    yield from ()


def _learn(name: str, application: Mapping[str, Any]) -> None:
    id_, architecture = application.get(name), architecture_of(application)
    if id_ and architecture is not None:
        architectures[id_] = architecture
        if len(architectures) > MOST_APPLICATIONS:
            architectures.popitem(last=False)


def _ask(client: Any, waiting: Sequence[Waiting]) -> Iterator[State]:
    """Ask after a run and, when it has figures, once after its application."""
    for run in waiting:
        application = run.namespace or ""
        found: Mapping[str, Any] = (
            client.get_job_run(applicationId=application, jobRunId=run.id).get("jobRun") or {}
        )
        if not problem(found) and application not in architectures:
            try:
                answer = client.get_application(applicationId=application)
                _learn("applicationId", answer.get("application") or {})
            except client.exceptions.ClientError:
                pass  # not allowed, perhaps: its price is settlement's then
        yield state(found)


OPERATIONS = {
    "StartJobRun": Operation(SYSTEM, Start(_place, _started), follow=follow(_ask, requests=2)),
    "GetJobRun": Operation(SYSTEM, states=_described),
    "GetApplication": Operation(SYSTEM, states=_application),
    "ListApplications": Operation(SYSTEM, states=_applications),
}
