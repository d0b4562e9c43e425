"""AWS Glue's part of botocore: which operations start runs, and which answers tell of them.

A job run and a workflow run have ids of their own. A crawl has none that its start would tell, and
the name of a session may be used again: theirs is the name with the moment. What Glue says is read
in `costinsights.systems.aws_glue`.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from costinsights.jobs import One, Operation, Place, Run, Start, State
from costinsights.systems import aws_glue as glue
from costinsights_instrumentors._botocore import follow, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from costinsights.jobs import Waiting

    Table = Mapping[str, Any]

__all__ = ["METERS", "OPERATIONS", "SYSTEM"]

SYSTEM = glue.SYSTEM
NEWEST = 3
"""Crawls of a list that are looked at: what the program waits for is the newest."""

# What a request says of the size. It is not what is billed, and not called so.
REQUESTED = {
    "WorkerType": "requested_worker_type",
    "NumberOfWorkers": "requested_workers",
    "MaxCapacity": "requested_dpus",
    "ExecutionClass": "requested_class",
}
_SIZES = frozenset(REQUESTED)
METERS = (*glue.METERS, *REQUESTED.values())
_NOTHING: Table = {}


def _at(field: str, runs: Callable[[Any, Any], Iterable[Run]], kind: str = "") -> Start:
    """Return a start whose runs go to the job by its name, or as AWS names other resources."""

    def place(client: Any, request: Table) -> Place:
        return where(SYSTEM, client, f"{kind}{request.get(field) or ''}" or None)

    return Start(place, runs, by=field)


def _size(request: Table) -> dict[str, int | float | str] | None:
    if _SIZES.isdisjoint(request):  # as mostly: the job says it
        return None
    return {ours: request[theirs] for theirs, ours in REQUESTED.items() if theirs in request}


def _ruleset(client: Any, request: Table) -> Place:
    return where(SYSTEM, client, f"dataQualityRuleset/{(request.get('RulesetNames') or ('',))[0]}")


def _session(request: Table, answer: Table) -> Iterator[Run]:
    made = answer.get("Session") or {"Id": request.get("Id")}
    yield Run(glue.session_id(made), operation="SESSION", meters=_size(request))


def _statement(request: Table, answer: Table) -> Iterator[Run]:
    yield Run(f"{request.get('SessionId')}:{answer.get('Id')}", operation="STATEMENT")


def _crawl(request: Table, answer: Table) -> Iterator[Run]:
    from email.utils import parsedate_to_datetime  # 20 ms of every start-up, otherwise

    about: Table = answer.get("ResponseMetadata") or _NOTHING
    headers: Table = about.get("HTTPHeaders") or _NOTHING
    dated = headers.get("date")
    moment = parsedate_to_datetime(dated) if dated else datetime.now(timezone.utc)
    yield Run(glue.id_at(str(request.get("Name")), moment), operation="CRAWL")


def _found(answer: Table, one: str, several: str) -> Sequence[Table]:
    """Return what an answer tells of: the one that was asked for, or a page of them."""
    return answer.get(several) or (answer.get(one) or _NOTHING,)


def _runs(_: Table, answer: Table) -> Iterator[State]:
    for found in _found(answer, "JobRun", "JobRuns"):
        yield glue.job_run(found).state(found.get("Id", ""))


def _sessions(_: Table, answer: Table) -> Iterator[State]:
    for found in _found(answer, "Session", "Sessions"):
        yield glue.session(found).state(glue.session_id(found))


def _statements(request: Table, answer: Table) -> Iterator[State]:
    for found in _found(answer, "Statement", "Statements"):
        yield glue.statement(found).state(f"{request.get('SessionId')}:{found.get('Id')}")


def _qualities(_: Table, answer: Table) -> Iterator[State]:
    for found in answer.get("Runs") or (answer,):
        yield glue.quality(found).state(found.get("RunId", ""))


def _crawls(request: Table, answer: Table) -> Iterator[State]:
    newest = (answer.get("Crawls") or ())[:NEWEST]
    yield from glue.crawl_states(str(request.get("CrawlerName")), newest)


def _asks(
    name: str, request: Callable[[Waiting], Table], read: Callable[[Table, Table], Iterator[State]]
) -> Callable[[Any, Sequence[Waiting]], Iterator[State]]:
    """Return what asks after a run in the background, one request each."""

    def ask(client: Any, waiting: Sequence[Waiting]) -> Iterator[State]:
        for run in waiting:
            asked = request(run)
            try:
                answer = getattr(client, name)(**asked)
            except client.exceptions.EntityNotFoundException:
                continue
            yield from read(asked, answer)

    return ask


_job_asked = _asks("get_job_run", lambda run: {"JobName": run.namespace, "RunId": run.id}, _runs)
_session_asked = _asks("get_session", lambda run: {"Id": glue.read_id(run.id)[0]}, _sessions)
_crawl_asked = _asks("list_crawls", lambda run: {"CrawlerName": glue.read_id(run.id)[0]}, _crawls)


def _qualities_asked(client: Any, waiting: Sequence[Waiting]) -> Iterator[State]:
    ids = [run.id for run in waiting]
    return _qualities({}, client.batch_get_data_quality_ruleset_evaluation_run(RunIds=ids))


_QUALITY = One("RunId", "DATA QUALITY", _size)

OPERATIONS = {
    "StartJobRun": Operation(
        SYSTEM, _at("JobName", One("JobRunId", "JOB", _size)), follow=follow(_job_asked)
    ),
    "GetJobRun": Operation(SYSTEM, states=_runs),
    "GetJobRuns": Operation(SYSTEM, states=_runs),
    "StartWorkflowRun": Operation(SYSTEM, _at("Name", One("RunId", "WORKFLOW"), "workflow/")),
    "ResumeWorkflowRun": Operation(SYSTEM, _at("Name", One("RunId", "WORKFLOW"), "workflow/")),
    "StartCrawler": Operation(SYSTEM, _at("Name", _crawl, "crawler/"), follow=follow(_crawl_asked)),
    "ListCrawls": Operation(SYSTEM, states=_crawls),
    "CreateSession": Operation(
        SYSTEM, _at("Id", _session, "session/"), follow=follow(_session_asked)
    ),
    "GetSession": Operation(SYSTEM, states=_sessions),
    "ListSessions": Operation(SYSTEM, states=_sessions),
    "RunStatement": Operation(SYSTEM, _at("SessionId", _statement, "session/")),
    "GetStatement": Operation(SYSTEM, states=_statements),
    "ListStatements": Operation(SYSTEM, states=_statements),
    "StartDataQualityRulesetEvaluationRun": Operation(
        SYSTEM, Start(_ruleset, _QUALITY), follow=follow(_qualities_asked, batch=100)
    ),
    "StartDataQualityRuleRecommendationRun": Operation(
        SYSTEM, _at("CreatedRulesetName", _QUALITY, "dataQualityRecommendation/")
    ),
    "GetDataQualityRulesetEvaluationRun": Operation(SYSTEM, states=_qualities),
    "GetDataQualityRuleRecommendationRun": Operation(SYSTEM, states=_qualities),
    "BatchGetDataQualityRulesetEvaluationRun": Operation(SYSTEM, states=_qualities),
}
