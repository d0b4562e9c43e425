"""The Jobs API (2.1, 2.2) and the Pipelines API of the Databricks emulator.

A run ends by itself when it has been asked about `Jobs.polls` times, or with `Jobs.end`; it then has
taken `Jobs.lasts` seconds by the server's clock. Nothing runs. What a job is, is put into
`Jobs.settings` by its id, in the words of the API. The history comes late, as the real one's does:
`Jobs.record` puts a run into ``system.lakeflow``, and a test seeds ``system.billing`` itself.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import count
from time import time_ns
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.servers.databricks_workspace import Workspace

    Json = dict[str, Any]
    Query = Mapping[str, list[str]]

OVER = frozenset(("TERMINATED", "SKIPPED", "INTERNAL_ERROR"))
CLUSTERS = ("new_cluster", "existing_cluster_id", "job_cluster_key")
WORDS = {"SUCCESS": "SUCCEEDED", "CANCELED": "CANCELLED", "TIMEDOUT": "TIMED_OUT"}
"""Results as ``system.lakeflow`` has them, where that is another word."""


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, message: str, code: str = "INVALID_PARAMETER_VALUE") -> None:
        super().__init__(message)
        self.body = {"error_code": code, "message": message}


class Jobs:
    """The jobs and pipelines of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.settings: dict[int, Json] = {}
        self.runs: dict[int, Json] = {}
        self.updates: dict[str, Json] = {}
        self.pipelines: dict[str, Json] = {}
        self.polls = 0
        self.lasts = 600
        """Seconds."""
        self.result = "SUCCESS"
        self.most_tasks = 100
        """Tasks to a page."""
        self._ids = count(900_100)
        self._asked: dict[int | str, int] = {}
        self._tokens: dict[str, int] = {}

    # -- the seam ---------------------------------------------------------------------------------

    def end(self, run_id: int, result: str = "", *, started: int = 0, seconds: int = 0) -> Json:
        """End a run. `started` is when it began, in ms since the epoch."""
        run, result = self.runs[run_id], result or self.result
        lasted = (seconds or self.lasts) * 1000
        run["start_time"] = started or run["start_time"]
        run.update(end_time=run["start_time"] + lasted, run_duration=lasted)
        for one in (run, *(task for task in run["tasks"] if not task["end_time"])):
            one["state"] = {"life_cycle_state": "TERMINATED", "result_state": result}
            details = {"code": "SUCCESS" if result == "SUCCESS" else "RUN_EXECUTION_ERROR"}
            one["status"] = {"state": "TERMINATED", "termination_details": details}
        for task in run["tasks"]:
            if not task["end_time"]:
                task.update(
                    start_time=started or task["start_time"],
                    setup_duration=lasted // 4,
                    execution_duration=lasted - lasted // 4,
                    cleanup_duration=0,
                )
                task["end_time"] = task["start_time"] + lasted
        return run

    def record(self, run_id: int) -> None:
        """Put a run that has ended into the system tables, an hour at most to a row."""
        run = self.runs[run_id]
        result = run.get("state", {}).get("result_state")
        facts = {"workspace_id": "1234567890", "job_id": str(run["job_id"])}
        word = WORDS.get(result, result)
        self._workspace.seed(
            "lakeflow.job_run_timeline",
            [
                {
                    **facts,
                    "run_id": str(run_id),
                    "run_name": run["run_name"],
                    "run_type": run["run_type"],
                    "result_state": None if end < run["end_time"] or not result else word,
                    **_period(start, end),
                }
                for start, end in _hours(run["start_time"], run["end_time"])
            ],
        )
        self._workspace.seed(
            "lakeflow.job_task_run_timeline",
            [
                {
                    **facts,
                    "run_id": str(task["run_id"]),
                    "job_run_id": str(run_id),
                    "task_key": task["task_key"],
                    "compute_ids": [task["cluster_instance"]["cluster_id"]]
                    if "cluster_instance" in task
                    else None,
                    "result_state": word,
                    **_period(start, end),
                }
                for task in run["tasks"]
                for start, end in _hours(task["start_time"], task["end_time"])
            ],
        )

    # -- the API ----------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: Any, query: Query) -> Any:
        """Answer a call; None for what there is not.

        Raises:
            Refused: the answer is an error.
        """
        match method, path.split("/")[3:]:
            case "POST", ["jobs", "create"]:
                job_id = next(self._ids)
                self.settings[job_id] = body
                return {"job_id": job_id}
            case "POST", ["jobs", "run-now"]:
                return self._run_now(body)
            case "POST", ["jobs", "runs", "submit"]:
                return {"run_id": self._once(body, next(self._ids), body, "SUBMIT_RUN")}
            case "POST", ["jobs", "runs", "repair"]:
                return self._repair(body)
            case "POST", ["jobs", "runs", "cancel"]:
                self.end(self._known(body["run_id"])["run_id"], "CANCELED")
                return {}
            case "GET", ["jobs", "runs", "get"]:
                return self._page(self._known(int(query["run_id"][0])), query)
            case "GET", ["jobs", "runs", "list"]:
                return self._list(query)
            case "POST", ["pipelines", pipeline, "updates"]:
                return self._update(pipeline, body or {})
            case "POST", ["pipelines", _, "stop"]:
                return {}
            case "GET", ["pipelines", pipeline]:
                return {"pipeline_id": pipeline, "state": "IDLE", **self._of(pipeline, "latest_")}
            case "GET", ["pipelines", pipeline, "updates"]:
                return self._of(pipeline, "")
            case "GET", ["pipelines", pipeline, "updates", update]:
                return {"update": self._looked_at(pipeline, update)}
            case _:
                return None

    def _run_now(self, body: Json) -> Json:
        settings = self.settings.get(body["job_id"])
        if settings is None:
            raise Refused(f"Job {body['job_id']} does not exist.")
        run_id = self._once(body, body["job_id"], settings, "JOB_RUN")
        return {"run_id": run_id, "number_in_job": run_id}

    def _once(self, body: Json, job_id: int, settings: Json, kind: str) -> int:
        """Start a run, or find the one that was started with the same token."""
        token = body.get("idempotency_token")
        if token in self._tokens:
            return self._tokens[token]
        run_id = next(self._ids)
        if token:
            self._tokens[token] = run_id
        now = time_ns() // 10**6
        self.runs[run_id] = {
            "run_id": run_id,
            "job_id": job_id,
            "number_in_job": run_id,
            "original_attempt_run_id": run_id,
            "run_name": body.get("run_name") or settings.get("name") or "Untitled",
            "run_type": kind,
            "creator_user_name": "analyst@example.com",
            "start_time": now,
            "end_time": 0,
            "setup_duration": 0,
            "execution_duration": 0,
            "cleanup_duration": 0,
            "run_duration": 0,
            "state": {"life_cycle_state": "RUNNING", "state_message": ""},
            "status": {"state": "RUNNING"},
            "job_clusters": settings.get("job_clusters", []),
            "tasks": [self._task(task, now) for task in settings.get("tasks", [])],
        }
        return run_id

    def _task(self, settings: Json, now: int, attempt: int = 0) -> Json:
        run_id = next(self._ids)
        task: Json = {
            **{key: value for key, value in settings.items() if key != "depends_on"},
            "run_id": run_id,
            "attempt_number": attempt,
            "start_time": now,
            "end_time": 0,
            "setup_duration": 0,
            "execution_duration": 0,
            "cleanup_duration": 0,
            "state": {"life_cycle_state": "RUNNING"},
        }
        if any(key in settings for key in CLUSTERS):
            shared = settings.get("existing_cluster_id") or settings.get("job_cluster_key")
            cluster = settings.get("existing_cluster_id") or f"1122-{shared or run_id}-abcdefgh"
            task["cluster_instance"] = {"cluster_id": cluster, "spark_context_id": "1"}
        return task

    def _repair(self, body: Json) -> Json:
        run = self._known(body["run_id"])
        if run["state"]["life_cycle_state"] not in OVER:
            raise Refused("The run must not be in progress.", "INVALID_STATE")
        again = body.get("rerun_tasks") or [
            task["task_key"]
            for task in run["tasks"]
            if task["state"].get("result_state") != "SUCCESS"
        ]
        now = run["end_time"]
        run["tasks"] += [
            self._task(task, now, task["attempt_number"] + 1)
            for task in list(run["tasks"])
            if task["task_key"] in again
        ]
        run.update(state={"life_cycle_state": "RUNNING"}, status={"state": "RUNNING"}, end_time=0)
        self._asked.pop(run["run_id"], None)
        return {"repair_id": next(self._ids)}

    def _known(self, run_id: int) -> Json:
        run = self.runs.get(run_id)
        if run is None:
            raise Refused(f"Run {run_id} does not exist.")
        return run

    def _page(self, run: Json, query: Query) -> Json:
        start = int(query.get("page_token", ["0"])[0])
        asked = self._asked[run["run_id"]] = self._asked.get(run["run_id"], 0) + (start == 0)
        if run["state"]["life_cycle_state"] not in OVER and asked > self.polls >= 0:
            self.end(run["run_id"])
        end = start + self.most_tasks
        page = {**run, "tasks": run["tasks"][start:end]}
        if end < len(run["tasks"]):
            page["next_page_token"] = str(end)
        if start:
            page["job_clusters"] = []
        return page

    def _list(self, query: Query) -> Json:
        wanted = int(query.get("job_id", ["0"])[0])
        expanded = query.get("expand_tasks", ["false"])[0] == "true"
        start, limit = int(query.get("page_token", ["0"])[0]), int(query.get("limit", ["20"])[0])
        found = [run for run in self.runs.values() if wanted in (0, run["job_id"])][::-1]
        part = found[start : start + limit]
        runs = [run if expanded else {**run, "tasks": None} for run in part]
        more = {"next_page_token": str(start + limit)} if start + limit < len(found) else {}
        return {"runs": runs, **more}

    # -- pipelines --------------------------------------------------------------------------------

    def _update(self, pipeline: str, body: Json) -> Json:
        number = len(self.updates)
        update = str(UUID(bytes=sha256(b"update %d" % number).digest()[:16]))
        self.updates[update] = {
            "pipeline_id": pipeline,
            "update_id": update,
            "state": "RUNNING",
            "creation_time": time_ns() // 10**6,
            "full_refresh": body.get("full_refresh", False),
            "config": self.pipelines.get(pipeline, {}),
        }
        return {"update_id": update}

    def _of(self, pipeline: str, prefix: str) -> Json:
        names = [name for name, one in self.updates.items() if one["pipeline_id"] == pipeline]
        return {f"{prefix}updates": [self._looked_at(pipeline, name) for name in reversed(names)]}

    def _looked_at(self, pipeline: str, update: str) -> Json:
        found = self.updates.get(update)
        if found is None or found["pipeline_id"] != pipeline:
            raise Refused(
                f"The specified update {update} was not found.", "RESOURCE_DOES_NOT_EXIST"
            )
        asked = self._asked[update] = self._asked.get(update, 0) + 1
        if found["state"] == "RUNNING" and asked > self.polls >= 0:
            found["state"] = "COMPLETED" if self.result == "SUCCESS" else self.result
        return found


def _hours(start: int, end: int) -> list[tuple[int, int]]:
    """Cut a time in ms at whole hours, as the timeline tables do."""
    parts: list[tuple[int, int]] = []
    while start < end:
        stop = min(end, (start // 3_600_000 + 1) * 3_600_000)
        parts.append((start, stop))
        start = stop
    return parts


def _period(start: int, end: int) -> Json:
    from tests.servers.databricks_workspace import moment

    return {
        "period_start_time": moment(start * 10**6).replace(tzinfo=None),
        "period_end_time": moment(end * 10**6).replace(tzinfo=None),
    }
