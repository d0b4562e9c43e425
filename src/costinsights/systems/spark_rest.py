"""Reads what Spark's REST API says of an application: the live UI's, or the history server's.

What it has is what the UI has kept: ``spark.ui.retainedJobs``, ``….retainedStages`` and
``spark.sql.ui.retainedExecutions`` (1,000 each) bound it. Local properties of jobs it does not tell.
Source: https://spark.apache.org/docs/latest/monitoring.html#rest-api
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

from costinsights.systems.spark import COUNTED, EXECUTION, TAGS, Application

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Row = Mapping[str, Any]

# By our meters, but for tasks: the fields of a stage.
STAGE = {
    "executor_run_time_ms": "executorRunTime",
    "executor_cpu_time_ns": "executorCpuTime",
    "executor_deserialize_time_ms": "executorDeserializeTime",
    "executor_deserialize_cpu_time_ns": "executorDeserializeCpuTime",
    "gc_time_ms": "jvmGcTime",
    "input_bytes": "inputBytes",
    "output_bytes": "outputBytes",
    "shuffle_read_bytes": "shuffleReadBytes",
    "shuffle_write_bytes": "shuffleWriteBytes",
    "memory_spilled_bytes": "memoryBytesSpilled",
    "disk_spilled_bytes": "diskBytesSpilled",
}
BAD_TASKS = ("numFailedTasks", "numKilledTasks")
MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})(?:GMT|Z)")


class Malformed(Exception):
    """An answer is not as Spark gives it; the text says which field, and not what it had."""


def moment(row: Row, name: str) -> int | None:
    """Return a time, ``2026-11-23T04:24:47.932GMT``, in ms; None where there is none."""
    value = row.get(name)
    if value is None:
        return None
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise Malformed(f"{name} is no time")
    try:
        at = datetime.fromisoformat(found[1]).replace(tzinfo=timezone.utc)
    except ValueError:
        raise Malformed(f"{name} is no time") from None
    return (at - _EPOCH) // MILLISECOND


def whole(row: Row, name: str, usual: int | None = None) -> int:
    """Return a whole number.

    Raises:
        Malformed: it is none, or it is not there and there is no `usual`.
    """
    value = row.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Malformed(f"{name} is no whole number")
    return value


def rows(answer: object, what: str) -> list[Row]:
    """Return a list of objects.

    Raises:
        Malformed: it is none.
    """
    if not isinstance(answer, list):
        raise Malformed(f"{what} are no list")
    found = cast("list[object]", answer)
    if not all(isinstance(row, dict) for row in found):
        raise Malformed(f"{what} are not all objects")
    return cast("list[Row]", found)


def begun(application: Row, attempt: Row, environment: Row) -> Application:
    """Return an application without its work."""
    given = environment.get("sparkProperties")
    pairs = cast("list[list[object]]", given) if isinstance(given, list) else []
    conf = {str(pair[0]): str(pair[1]) for pair in pairs if len(pair) == 2}
    started = moment(attempt, "startTime")
    if started is None:
        raise Malformed("startTime is no time")
    return Application(
        str(application.get("id")),
        started,
        attempt=attempt.get("attemptId"),
        name=str(application.get("name") or ""),
        conf=conf,
    )


def tell(
    into: Application,
    jobs: Iterable[Row],
    executions: Iterable[Row],
    stages: Iterable[Row],
    executors: Iterable[Row],
) -> None:
    """Tell an application what it did, in the order in which its log would.

    Raises:
        Malformed: a job or an execution is not as Spark gives it. Of stages and executors it is
            remembered whose figures that leaves incomplete.
    """
    for row in executors:
        id_, added = str(row.get("id")), moment(row, "addTime")
        if added is not None:
            into.executor_added(id_, added, whole(row, "totalCores"))
        removed = moment(row, "removeTime")
        if removed is not None:
            into.executor_removed(id_, removed)
    of: dict[int, int] = {}
    ended: list[tuple[int, int, bool]] = []
    for row in executions:
        number, at = whole(row, "id"), moment(row, "submissionTime")
        if at is None:
            raise Malformed("submissionTime is no time")
        into.sql_started(number, at)
        for name in ("runningJobIds", "successJobIds", "failedJobIds"):
            of.update((job, number) for job in row.get(name) or () if isinstance(job, int))
        if row.get("status") != "RUNNING":
            ended.append((number, at + whole(row, "duration"), row.get("status") == "COMPLETED"))
    for row in sorted(jobs, key=lambda row: whole(row, "jobId")):
        _job(into, row, of)
    for row in stages:
        _stage(into, row)
    for number, at, well in ended:
        into.sql_ended(number, at, well=well)


def _job(into: Application, row: Row, of: Mapping[int, int]) -> None:
    number, at = whole(row, "jobId"), moment(row, "submissionTime")
    said = {
        "spark.jobGroup.id": row.get("jobGroup"),
        "spark.job.description": row.get("description"),
        EXECUTION: of.get(number),
        TAGS: ",".join(map(str, row.get("jobTags") or ())) or None,
    }
    into.job_started(
        number,
        into.started if at is None else at,
        [stage for stage in row.get("stageIds") or () if isinstance(stage, int)],
        {name: str(value) for name, value in said.items() if value is not None},
    )
    done = moment(row, "completionTime")
    if done is not None:
        into.job_ended(number, done, well=row.get("status") == "SUCCEEDED")


def _stage(into: Application, row: Row) -> None:
    number, attempt = whole(row, "stageId"), whole(row, "attemptId", 0)
    sums, running = [0] * len(COUNTED), 0
    try:
        sums[: len(STAGE)] = [whole(row, name) for name in STAGE.values()]
        failed = sum(whole(row, name, 0) for name in BAD_TASKS)
        sums[-2:] = [whole(row, "numCompleteTasks") + failed, failed]
        running = whole(row, "numActiveTasks", 0)
    except Malformed as error:
        into.doubt(number, f"stage {number}: {error}")
    if any(sums) or running:
        into.used(number, attempt, sums, running)
