"""Glue's runs over moto: a test says what a job, a session or a crawl uses and how it ends.

moto keeps the definitions (jobs, crawlers, workflows, triggers) and their lists. Its runs end at
once, all with 123 seconds, as Glue 0.9 and without `DPUSeconds`, its crawls use nothing, and it has
no statements and no workflow graphs. The overlay therefore keeps what runs: it takes as many
questions as the test wants until a run has ended, with the figures of the test, page by page.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from moto.backends import get_backend

from tests.servers.aws_server import ACCOUNT, REGION, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.servers.aws_server import AWSServer

    Answer = dict[str, Any]

ROLE = "arn:aws:iam::123456789012:role/glue"
PAGE = 200
OPERATIONS = (
    "StartJobRun",
    "GetJobRun",
    "GetJobRuns",
    "BatchStopJobRun",
    "CreateSession",
    "GetSession",
    "ListSessions",
    "StopSession",
    "DeleteSession",
    "RunStatement",
    "GetStatement",
    "ListStatements",
    "StartCrawler",
    "ListCrawls",
    "StartWorkflowRun",
    "ResumeWorkflowRun",
    "GetWorkflowRun",
    "GetWorkflowRuns",
    "StartDataQualityRulesetEvaluationRun",
    "GetDataQualityRulesetEvaluationRun",
    "BatchGetDataQualityRulesetEvaluationRun",
    "ListDataQualityRulesetEvaluationRuns",
    "StartDataQualityRuleRecommendationRun",
    "GetDataQualityRuleRecommendationRun",
)


@dataclass
class Figures:
    """What one run is to use, and how it is to end."""

    seconds: float | None = 600
    dpu_seconds: float | None = None
    state: str | None = None
    """None is the good end of its kind."""
    questions: int = 1
    """How many answers say that it is still running, before the one that says it has ended."""
    so_far: float = 0
    """`ExecutionTime` of those answers."""
    dpu_hours: float | None = 0.25
    """Of a crawl."""
    changed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields as they are to be instead, for answers that are not as they should be; None: none."""


@dataclass
class Run:
    """A run, a session, a statement or a crawl."""

    id: str
    of: str
    """Its job, session, crawler or workflow."""
    request: Answer
    figures: Figures
    begun: float
    answered: int = 0
    children: list[Run] = field(default_factory=lambda: list[Run]())
    """Statements of a session; runs and crawls of a workflow."""

    def runs(self) -> bool:
        """Tell whether the next answer says that it still runs; that is one answer less."""
        self.answered += 1
        return self.answered <= self.figures.questions

    def told(self, said: Answer) -> Answer:
        """Return an answer as the test wants it."""
        found = {**said, **self.figures.changed}
        return {name: value for name, value in found.items() if value is not None}


class Glue:
    """Glue on an `AWSServer`."""

    def __init__(self, aws: AWSServer) -> None:
        self.aws = aws
        self._definitions: dict[tuple[str, str], Answer] = {}
        self._seeds: list[tuple[str, dict[str, Any]]] = []
        self._runs: dict[str, list[Run]] = {}
        """Of each job, crawler and workflow, oldest first; all sessions under their own key."""
        self._lock = threading.RLock()
        self.turning = False
        """Whether the pages of a job's runs begin anew for ever."""
        get_backend("glue")[ACCOUNT][REGION].reset()
        for operation in OPERATIONS:
            aws.answer("glue", operation, self._locked(getattr(self, f"_{operation}")))
        for kind in ("Job", "Crawler", "Workflow", "Trigger"):
            aws.edit("glue", f"Create{kind}", self._remembers(kind))
        aws.edit("glue", "StartTrigger", self._fired)
        self._client = aws.client("glue")
        aws.requests.clear()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    # -- what a test says -----------------------------------------------------------------------

    def job(self, name: str, **more: Any) -> str:
        """Define a job: two G.1X workers of Glue 4.0, if nothing else is said."""
        size = {"WorkerType": "G.1X", "NumberOfWorkers": 2} if "MaxCapacity" not in more else {}
        defined = {"Role": ROLE, "Command": {"Name": "glueetl"}, "GlueVersion": "4.0", **size}
        self._client.create_job(Name=name, **{**defined, **more})
        return name

    def crawler(self, name: str) -> str:
        """Define a crawler."""
        self._client.create_crawler(
            Name=name, Role=ROLE, Targets={"S3Targets": [{"Path": "s3://x"}]}
        )
        return name

    def workflow(self, name: str) -> str:
        """Define a workflow; its runs have the children that `adopt` gives them."""
        self._client.create_workflow(Name=name)
        return name

    def trigger(self, name: str, *jobs: str) -> str:
        """Define a trigger that starts jobs when it is started itself."""
        actions = [{"JobName": job} for job in jobs]
        self._client.create_trigger(Name=name, Type="ON_DEMAND", Actions=actions)
        return name

    def seed(self, name: str, **figures: Any) -> None:
        """Say what runs of a job (a session, a crawler …) use whose name has `name` in it."""
        self._seeds.append((name, figures))

    def run(self, job: str, *, ago: float = 0, ended: bool = True, **request: Any) -> str:
        """Have a job run that no program of ours has started; return its id."""
        run = self._begin(job, f"jr_{uuid4().hex * 2}", request, ago)
        run.answered = run.figures.questions if ended else 0
        return run.id

    def crawl(self, crawler: str, *, ago: float = 0) -> str:
        """Have a crawler run that no program of ours has started; return the crawl's id."""
        run = self._begin(crawler, str(uuid4()), {}, ago)
        run.answered = run.figures.questions
        return run.id

    def adopt(self, workflow: str, *names: str) -> list[str]:
        """Have the last run of a workflow run these jobs and crawlers; return their ids."""
        parent = self._runs[workflow][-1]
        for name in names:
            more = {"--WORKFLOW_NAME": workflow, "--WORKFLOW_RUN_ID": parent.id}
            made = str(uuid4()) if self._is("Crawler", name) else f"jr_{uuid4().hex * 2}"
            run = self._begin(name, made, {"Arguments": more, "TriggerName": "start"}, 0)
            run.begun = parent.begun + 1
            parent.children.append(run)
        return [run.id for run in parent.children]

    def forget(self, name: str) -> None:
        """Forget the runs of a job, a crawler, a workflow or a session."""
        self._runs.pop(name, None)

    def deleted(self, kind: str, name: str) -> None:
        """Take note that a definition has been deleted, with all of its runs."""
        del self._definitions[kind, name]

    def of(self, name: str) -> list[Run]:
        """Return the runs of a job, a crawler or a workflow, oldest first."""
        return self._runs[name]

    # -- definitions ----------------------------------------------------------------------------

    def _remembers(self, kind: str) -> Callable[[Answer, Answer], None]:
        def remember(request: Answer, _: Answer) -> None:
            self._definitions[kind, request["Name"]] = request

        return remember

    def _is(self, kind: str, name: str) -> bool:
        return (kind, name) in self._definitions

    def _locked(self, operation: Callable[[Answer], Any]) -> Callable[[Answer], Any]:
        def answer(request: Answer) -> Any:
            with self._lock:
                return operation(request)

        return answer

    def _fired(self, request: Answer, _: Answer) -> None:
        name = request["Name"]
        for action in self._definitions.get(("Trigger", name), {}).get("Actions", ()):
            self.run(action["JobName"], TriggerName=name)

    def _begin(self, of: str, id_: str, request: Answer, ago: float) -> Run:
        figures = Figures()
        for name, seeded in self._seeds:
            if name in of:
                figures = Figures(**seeded)
        run = Run(id_, of, request, figures, time.time() - ago)
        self._runs.setdefault(of, []).append(run)
        return run

    def _find(self, of: str, id_: str) -> Run | Refusal:
        for run in self._runs.get(of, ()):
            if run.id == id_:
                return run
        return _unknown(id_)

    # -- job runs -------------------------------------------------------------------------------

    def _StartJobRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        job = request["JobName"]
        if not self._is("Job", job):
            return _unknown(job)
        return {"JobRunId": self._begin(job, f"jr_{uuid4().hex * 2}", request, 0).id}

    def _GetJobRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._find(request["JobName"], request["RunId"])
        return run if isinstance(run, Refusal) else {"JobRun": self._job_run(run)}

    def _GetJobRuns(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        if not self._is("Job", request["JobName"]):
            return _unknown(request["JobName"])
        runs = sorted(self._runs.get(request["JobName"], ()), key=lambda run: -run.begun)
        page, more = _page(runs, request)
        more = {"NextToken": "0"} if self.turning else more
        return {"JobRuns": [self._job_run(run) for run in page], **more}

    def _BatchStopJobRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        for run in self._runs[request["JobName"]]:
            if run.id in request["JobRunIds"]:
                run.figures.state, run.figures.questions = "STOPPED", 0
        stopped = [{"JobName": request["JobName"], "JobRunId": id_} for id_ in request["JobRunIds"]]
        return {"SuccessfulSubmissions": stopped, "Errors": []}

    def _job_run(self, run: Run) -> Answer:
        job = self._definitions["Job", run.of]
        asked, figures, running = run.request, run.figures, run.runs()
        said: Answer = {
            "Id": run.id,
            "JobName": run.of,
            "Attempt": asked.get("Attempt", 0),
            "StartedOn": run.begun,
            "JobRunState": "RUNNING" if running else figures.state or "SUCCEEDED",
            "ExecutionTime": figures.so_far if running else figures.seconds,
            "GlueVersion": job.get("GlueVersion"),
            "Arguments": {**job.get("DefaultArguments", {}), **asked.get("Arguments", {})},
        }
        for name in ("WorkerType", "NumberOfWorkers", "MaxCapacity", "ExecutionClass"):
            said[name] = asked.get(name, job.get(name))
        for name in ("TriggerName", "PreviousRunId"):
            said[name] = asked.get(name)
        if not running:
            said["CompletedOn"] = run.begun + (figures.seconds or 0) + 20
            said["DPUSeconds"] = figures.dpu_seconds
            if figures.state == "FAILED":
                said["ErrorMessage"] = "secret 'reason'"
        return run.told(said)

    # -- sessions -------------------------------------------------------------------------------

    def _CreateSession(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        if not isinstance(self._session(request["Id"]), Refusal):
            return Refusal("AlreadyExistsException", "there is such a session")
        run = self._begin("session", request["Id"], request, 0)
        return {"Session": self._session_told(run, running=True)}

    def _session(self, id_: str) -> Run | Refusal:
        found = [run for run in self._runs.get("session", ()) if run.id == id_]
        return found[-1] if found else _unknown(id_)

    def _session_told(self, run: Run, *, running: bool) -> Answer:
        asked, figures = run.request, run.figures
        said: Answer = {
            "Id": run.id,
            "CreatedOn": run.begun,
            "Status": "READY" if running else figures.state or "STOPPED",
            "ExecutionTime": figures.so_far if running else figures.seconds,
            "GlueVersion": asked.get("GlueVersion", "4.0"),
        }
        for name in ("WorkerType", "NumberOfWorkers", "MaxCapacity"):
            said[name] = asked.get(name)
        if not running:
            said["CompletedOn"] = run.begun + (figures.seconds or 0)
            said["DPUSeconds"] = figures.dpu_seconds
        return run.told(said)

    def _GetSession(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._session(request["Id"])
        if isinstance(run, Refusal):
            return run
        return {"Session": self._session_told(run, running=run.runs())}

    def _ListSessions(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        page, more = _page(self._runs.get("session", ()), request)
        told = [self._session_told(run, running=run.runs()) for run in page]
        return {"Ids": [run.id for run in page], "Sessions": told, **more}

    def _StopSession(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._session(request["Id"])
        if isinstance(run, Refusal):
            return run
        run.answered = run.figures.questions
        return {"Id": run.id}

    def _DeleteSession(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._session(request["Id"])
        if isinstance(run, Refusal):
            return run
        self._runs["session"].remove(run)
        return {"Id": run.id}

    def _RunStatement(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._session(request["SessionId"])
        if isinstance(run, Refusal):
            return run
        number = len(run.children)
        figures = Figures(3)
        for name, seeded in self._seeds:
            if name in request["Code"]:
                figures = Figures(**seeded)
        run.children.append(Run(str(number), run.id, request, figures, time.time()))
        return {"Id": number}

    def _GetStatement(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._session(request["SessionId"])
        if isinstance(run, Refusal):
            return run
        return {"Statement": self._statement_told(run.children[int(request["Id"])])}

    def _ListStatements(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._session(request["SessionId"])
        if isinstance(run, Refusal):
            return run
        page, more = _page(run.children, request)
        told = [self._statement_told(one) for one in page]
        return {"Statements": told, **more}

    def _statement_told(self, run: Run) -> Answer:
        running, figures = run.runs(), run.figures
        said: Answer = {"Id": int(run.id), "Code": run.request["Code"]}
        said["State"] = "RUNNING" if running else figures.state or "AVAILABLE"
        said["StartedOn"] = int(run.begun * 1000)
        if not running:
            said["CompletedOn"] = int((run.begun + (figures.seconds or 0)) * 1000)
        return run.told(said)

    # -- crawls ---------------------------------------------------------------------------------

    def _StartCrawler(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        name = request["Name"]
        if not self._is("Crawler", name):
            return _unknown(name)
        last = self._runs.get(name, [])[-1:]
        if last and last[0].answered < last[0].figures.questions:
            return Refusal("CrawlerRunningException", f"Crawler {name} has already started")
        self._begin(name, str(uuid4()), request, 0)
        return {}

    def _ListCrawls(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        name = request["CrawlerName"]
        if not self._is("Crawler", name):
            return _unknown(name)
        since = 0.0
        for asked in request.get("Filters", ()):
            assert (asked["FieldName"], asked["FilterOperator"]) == ("START_TIME", "GE")
            since = int(asked["FieldValue"]) / 1000
        runs = [run for run in reversed(self._runs.get(name, [])) if run.begun >= since]
        page, more = _page(runs, {"MaxResults": 20, **request}, most=100)
        return {"Crawls": [self._crawl_told(run) for run in page], **more}

    def _crawl_told(self, run: Run) -> Answer:
        running, figures = run.runs(), run.figures
        said: Answer = {"CrawlId": run.id, "StartTime": run.begun, "DPUHour": 0.0}
        said["State"] = "RUNNING" if running else figures.state or "COMPLETED"
        if not running:
            said["EndTime"] = run.begun + (figures.seconds or 0)
            said["DPUHour"] = figures.dpu_hours
        return run.told(said)

    # -- workflows ------------------------------------------------------------------------------

    def _StartWorkflowRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        if not self._is("Workflow", request["Name"]):
            return _unknown(request["Name"])
        return {"RunId": self._begin(request["Name"], f"wr_{uuid4().hex}", request, 0).id}

    def _ResumeWorkflowRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        return {**self._StartWorkflowRun(request), "NodeIds": request["NodeIds"]}

    def _GetWorkflowRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._find(request["Name"], request["RunId"])
        if isinstance(run, Refusal):
            return run
        return {"Run": self._workflow_told(run, request)}

    def _GetWorkflowRuns(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        runs = list(reversed(self._runs.get(request["Name"], [])))
        page, more = _page(runs, request)
        return {"Runs": [self._workflow_told(run, request) for run in page], **more}

    def _workflow_told(self, run: Run, request: Answer) -> Answer:
        running = run.runs()
        said: Answer = {"Name": run.of, "WorkflowRunId": run.id, "StartedOn": run.begun}
        said["Status"] = "RUNNING" if running else run.figures.state or "COMPLETED"
        if not running:
            said["CompletedOn"] = run.begun + (run.figures.seconds or 0)
        if request.get("IncludeGraph"):
            said["Graph"] = {"Nodes": [self._node(child) for child in run.children]}
        return run.told(said)

    def _node(self, run: Run) -> Answer:
        if self._is("Job", run.of):
            found = {"Type": "JOB", "JobDetails": {"JobRuns": [self._job_run(run)]}}
        else:
            told = self._crawl_told(run)
            crawl = {"State": "SUCCEEDED", "StartedOn": told["StartTime"]}
            found = {"Type": "CRAWLER", "CrawlerDetails": {"Crawls": [crawl]}}
        return {"Name": run.of, "UniqueId": f"node_{run.id}", **found}

    # -- Data Quality ---------------------------------------------------------------------------

    def _StartDataQualityRulesetEvaluationRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        return {"RunId": self._begin("quality", f"dqrun-{uuid4().hex}", request, 0).id}

    def _StartDataQualityRuleRecommendationRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        return {"RunId": self._begin("advice", f"dqrun-{uuid4().hex}", request, 0).id}

    def _GetDataQualityRulesetEvaluationRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._find("quality", request["RunId"])
        return run if isinstance(run, Refusal) else self._quality_told(run)

    def _GetDataQualityRuleRecommendationRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        run = self._find("advice", request["RunId"])
        return run if isinstance(run, Refusal) else self._quality_told(run)

    def _BatchGetDataQualityRulesetEvaluationRun(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        assert len(request["RunIds"]) <= 100
        found = [self._find("quality", id_) for id_ in request["RunIds"]]
        runs = [run for run in found if isinstance(run, Run)]
        missing = {*request["RunIds"]} - {run.id for run in runs}
        told = [self._quality_told(run) for run in runs]
        return {"Runs": told, **({"RunsNotFound": sorted(missing)} if missing else {})}

    def _ListDataQualityRulesetEvaluationRuns(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        page, more = _page(self._runs.get("quality", ()), request)
        return {"Runs": [{"RunId": run.id, "StartedOn": run.begun} for run in page], **more}

    def _quality_told(self, run: Run) -> Answer:
        running, figures = run.runs(), run.figures
        said: Answer = {"RunId": run.id, "StartedOn": run.begun}
        said["Status"] = "RUNNING" if running else figures.state or "SUCCEEDED"
        said["ExecutionTime"] = figures.so_far if running else figures.seconds
        said["NumberOfWorkers"] = run.request.get("NumberOfWorkers", 5)
        said["RulesetNames"] = run.request.get("RulesetNames")
        if not running:
            said["CompletedOn"] = run.begun + (figures.seconds or 0)
        return run.told(said)


def _unknown(name: str) -> Refusal:
    return Refusal("EntityNotFoundException", f"there is no {name}")


def _page(runs: Sequence[Run], request: Answer, most: int = PAGE) -> tuple[Sequence[Run], Answer]:
    start = int(request.get("NextToken") or 0)
    end = start + min(request.get("MaxResults", most), most)
    return runs[start:end], {"NextToken": str(end)} if end < len(runs) else {}


__all__ = ["Figures", "Glue", "Run"]
