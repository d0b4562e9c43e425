"""Azure Resource Manager over HTTP for unmodified clients: Data Factory, and Synapse's pipelines.

A test says of a pipeline which activities it has; each run of it, started by a client, by a trigger
or by another pipeline, then has activity runs with the outputs that real ones had: `billingReference`
in its forms of 2020, 2021 and now is copied from azure-docs and from outputs that people have
published. Every request is kept; the next ones may be refused, and answers be changed.

    with azure_server() as azure:
        azure.pipeline("load", copy(), lookup())
        client = azure.data_factory()
        client.pipelines.create_run(GROUP, FACTORY, "load")

Emulator: it proves that we read what the clients send and get; that Azure fills the figures in the
same way it cannot prove. Plain HTTP, for which azure-core takes no bearer token: `StaticToken`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

from azure.core.credentials import AccessToken
from azure.core.pipeline.policies import SansIOHTTPPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    Answer = dict[str, Any]
    Where = tuple[str, ...]

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
GROUP = "data"
FACTORY = "shop"
HERE = (SUBSCRIPTION, GROUP, FACTORY)
WORKSPACE: Where = ()
"""Where the runs of the Synapse workspace are."""
TOKEN = "not-a-secret"
PAGE = 100

_FACTORY = re.compile(
    r"^/subscriptions/([^/]+)/resourceGroups/([^/]+)"
    r"/providers/Microsoft\.DataFactory/factories/([^/]+)(/.*)?$",
    re.IGNORECASE,
)


# --- activities, with outputs as they were recorded ----------------------------------------------


class Activity(NamedTuple):
    """An activity of a pipeline: what its run will have."""

    type: str
    output: Any = None
    status: str = "Succeeded"
    input: Any = None
    runs: str = ""
    """The pipeline that it starts."""
    attempts: int = 1
    """How often it is tried; each attempt is an activity run."""


def billed(kind: str, meter: str, duration: object, unit: str, **more: Any) -> Answer:
    """Return a `billingReference` of today."""
    part = {"meterType": meter, "duration": duration, "unit": unit, **more}
    return {"activityType": kind, "billableDuration": [part]}


def copy(duration: object = 0.06666666666666667, **more: Any) -> Activity:
    """Return a copy on Azure, 4 units for a minute (recorded in June 2025)."""
    reference = billed("DataMovement", "AzureIR", duration, "DIUHours")
    reference["totalBillableDuration"] = reference["billableDuration"]
    output = {
        "dataRead": 1024,
        "dataWritten": 33,
        "filesWritten": 1,
        "rowsCopied": 0,
        "copyDuration": 10,
        "usedDataIntegrationUnits": 4,
        "usedParallelCopies": 1,
        "effectiveIntegrationRuntime": "AutoResolveIntegrationRuntime (East US)",
        "billingReference": reference,
        **more,
    }
    return Activity("Copy", output)


def copy_2020() -> Activity:
    """Return a copy with 128 units, whose reference is text (azure-docs, March 2020)."""
    reference = (
        '{"activityType":"DataMovement","billableDuration":[{"Managed":11.733333333333336}]}'
    )
    return Activity("Copy", {"copyDuration": 388, "billingReference": reference})


def batch_2020() -> Activity:
    """Return an activity on Azure Batch, whose durations are no list (recorded in January 2020)."""
    reference = {
        "activityType": "ExternalActivity",
        "billableDuration": {"Managed": 0.016666666666666666},
    }
    return Activity("Custom", {"exitcode": 0, "billingReference": reference})


def lookup(meter: str = "AzureIR", minutes: int = 1) -> Activity:
    """Return a lookup, on Azure or elsewhere (recorded in 2025; the total is as it was)."""
    reference = billed("PipelineActivity", meter, minutes / 60, "Hours")
    total = {"meterType": "AzureIR", "duration": 0.06666666666666667, "unit": "Hours"}
    reference["totalBillableDuration"] = [total]
    return Activity("Lookup", {"count": 10, "value": [], "billingReference": reference})


def notebook(meter: str = "AzureIR") -> Activity:
    """Return a Databricks notebook, of 61 seconds (recorded in 2024)."""
    reference = billed("ExternalActivity", meter, 0.03333333333333333, "Hours")
    output = {"runPageUrl": "https://adb-1/run/1", "billingReference": reference}
    return Activity("DatabricksNotebook", output)


def data_flow(meter: str = "Data Flow", hours: float = 0.08176134266666667) -> Activity:
    """Return a data flow on 8 general cores (recorded in January 2025, and with `General` in 2021)."""
    reference = billed("executedataflow", meter, hours, "coreHour", sessionType="JobCluster")
    runtime = "General-8-1-0dd0d971-3a01-429a-afa0-dd9fbff7a0bb"
    output = {"runStatus": {"integrationRuntimeName": runtime}, "billingReference": reference}
    compute = {"coreCount": 8, "computeType": "General"}
    return Activity("ExecuteDataFlow", output, input={"compute": compute})


def control(kind: str = "SetVariable") -> Activity:
    """Return an activity that runs nowhere."""
    return Activity(kind, {})


def execute(pipeline: str) -> Activity:
    """Return an Execute Pipeline activity."""
    return Activity("ExecutePipeline", {}, runs=pipeline)


# --- the server ----------------------------------------------------------------------------------


class Request(NamedTuple):
    """What came over the wire."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    body: bytes
    headers: Mapping[str, str]

    @property
    def operation(self) -> str:
        """What is asked for: ``createRun``, ``queryActivityruns``, ``pipelineruns`` …"""
        last, before = ([*self.path.split("/")[::-1], "", ""])[:2]
        return before if before in ("pipelineruns", "factories") else last


class Refusal(NamedTuple):
    """An error to answer with."""

    status: int
    code: str = "Refused"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None


@dataclass
class PipelineRun:
    """One run of a pipeline, and how many answers it takes to end."""

    id: str
    name: str
    where: Where
    started: datetime
    ended: datetime
    status: str
    questions: int
    invoked_by: Answer
    activities: list[Answer] = field(default_factory=list["Answer"])
    group: str = ""

    def answer(self) -> Answer:
        """Return it as the API does, now."""
        going = self.questions > 0
        return {
            "runId": self.id,
            "debugRunId": None,
            "runGroupId": self.group or self.id,
            "pipelineName": self.name,
            "parameters": {"password": "hunter2"},
            "invokedBy": self.invoked_by,
            "runStart": stamp(self.started),
            "runEnd": None if going else stamp(self.ended),
            "durationInMs": (
                None if going else (self.ended - self.started) // timedelta(milliseconds=1)
            ),
            "status": "InProgress" if going else self.status,
            "message": "secret message",
            "lastUpdated": stamp(self.started if going else self.ended),
            "annotations": [],
            "runDimension": {},
            "isLatest": True,
        }


def stamp(moment: datetime) -> str:
    """Return a moment with the seven digits that Azure gives."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "7Z"


class Azure:
    """What the server knows, and what a test tells it."""

    def __init__(self) -> None:
        self.url = ""
        self.location = "West Europe"
        self.page = PAGE
        self.requests: list[Request] = []
        self.runs: dict[str, PipelineRun] = {}
        self.trigger_runs: list[tuple[Where, datetime, Answer]] = []
        self.repeat_tokens = False
        self._pipelines: dict[str, tuple[tuple[Activity, ...], dict[str, Any]]] = {}
        self._refusals: dict[str, deque[Refusal]] = {}
        self._edits: dict[str, Callable[[Answer], object]] = {}
        self._lock = threading.RLock()

    # -- what a test says -----------------------------------------------------------------------

    def pipeline(
        self, name: str, *activities: Activity, status: str = "Succeeded", questions: int = 0
    ) -> None:
        """Say what a pipeline does; `questions` answers say that its run goes on before it ends."""
        self._pipelines[name] = activities, {"status": status, "questions": questions}

    def start(
        self, name: str, where: Where = HERE, *, ago: float = 60, by: Answer | None = None
    ) -> str:
        """Start a run that no client has asked for; return its id."""
        with self._lock:
            manual = {"id": uuid4().hex, "name": "Manual", "invokedByType": "Manual"}
            activities, how = self._pipelines[name]
            begun = datetime.now(timezone.utc) - timedelta(seconds=ago)
            end = begun + timedelta(seconds=42)
            run = PipelineRun(str(uuid4()), name, where, begun, end, invoked_by=by or manual, **how)
            self.runs[run.id] = run
            for activity in activities:
                for _ in range(activity.attempts):
                    run.activities.append(self._activity(run, activity, ago))
            return run.id

    def fire(
        self, trigger: str, *pipelines: str, where: Where = HERE, ago: float = 60
    ) -> list[str]:
        """Have a trigger start pipelines; return the ids of their runs."""
        id_ = f"0858{uuid4().int % 10**20}CU27"
        by = {"id": id_, "name": trigger, "invokedByType": "ScheduleTrigger"}
        started = {name: self.start(name, where, ago=ago, by=by) for name in pipelines}
        moment = datetime.now(timezone.utc) - timedelta(seconds=ago)
        answer = {
            "triggerName": trigger,
            "triggerRunId": id_,
            "triggerType": "ScheduleTrigger",
            "triggerRunTimestamp": stamp(moment),
            "status": "Succeeded",
            "message": "",
            "properties": {"TriggerTime": "6/16/2018 12:43:15 AM"},
            "triggeredPipelines": started,
        }
        self.trigger_runs.append((where, moment, answer))
        return list(started.values())

    def refuse(self, operation: str, *refusals: Refusal) -> None:
        """Answer the next requests of an operation with these errors, one each."""
        self._refusals.setdefault(operation, deque()).extend(refusals)

    def edit(self, operation: str, edit: Callable[[Answer], object]) -> None:
        """Have `edit` make another answer of each one to an operation."""
        self._edits[operation] = edit

    def as_before(self) -> None:
        """Take back what `refuse` and `edit` have said."""
        self._refusals.clear()
        self._edits.clear()

    def asked(self, operation: str) -> list[Request]:
        """Return the requests of an operation, in their order."""
        return [request for request in list(self.requests) if request.operation == operation]

    def counts(self) -> dict[str, int]:
        """How many requests of each operation there were."""
        return dict(Counter(request.operation for request in list(self.requests)))

    # -- clients --------------------------------------------------------------------------------

    def data_factory(self, *, aio: bool = False, **more: Any) -> Any:
        """Return an unmodified `DataFactoryManagementClient` that talks to this server."""
        library = import_module("azure.mgmt.datafactory" + ".aio" * aio)
        kind = library.DataFactoryManagementClient
        return kind(Credential(), SUBSCRIPTION, base_url=self.url, **{**self.access(), **more})

    def synapse(self, *, aio: bool = False, **more: Any) -> Any:
        """Return an unmodified `ArtifactsClient` that talks to this server."""
        kind = import_module("azure.synapse.artifacts" + ".aio" * aio).ArtifactsClient
        return kind(Credential(), self.url, **{**self.access(), **more})

    def access(self) -> dict[str, Any]:
        """Return what a client needs to be let in over plain HTTP, and to try again at once."""
        return {"authentication_policy": StaticToken(), "retry_backoff_factor": 0}

    # -- what it answers ------------------------------------------------------------------------

    def answer(self, request: Request) -> tuple[int, object, tuple[tuple[str, str], ...]]:
        """Answer one request: status, body, headers."""
        with self._lock:
            self.requests.append(request)
            waiting = self._refusals.get(request.operation)
            if waiting:
                refusal = waiting.popleft()
                error = {"error": {"code": refusal.code, "message": "refused by the test"}}
                return refusal.status, refusal.body or error, refusal.headers
            if request.headers.get("authorization") != f"Bearer {TOKEN}":
                error = {"error": {"code": "InvalidAuthenticationToken", "message": "who are you?"}}
                return 401, error, ()
            found = _FACTORY.match(request.path)
            where: Where = tuple(map(unquote, found.groups()[:3])) if found else WORKSPACE
            rest = (found[4] or "") if found else request.path
            status, answer = self._route(request, where, rest)
            edit = self._edits.get(request.operation)
            if edit is not None and status < 300:
                return status, edit(answer), ()
            return status, answer, ()

    def _route(self, request: Request, where: Where, rest: str) -> tuple[int, Answer]:
        parts = [unquote(part) for part in rest.split("/")[1:]]
        body = cast("Answer", json.loads(request.body or b"{}"))
        if request.method == "GET" and (not parts or parts == ["workspace"]):
            return 200, {"name": "x", "location": self.location, "properties": {}}
        if parts[-1] == "createRun" and parts[1] in self._pipelines:
            id_ = self.start(parts[1], where, ago=0)
            group = request.query.get("referencePipelineRunId", [""])[0]
            self.runs[id_].group = group
            return (200 if where else 202), {"runId": id_}
        if parts[-1] in ("queryPipelineRuns", "queryTriggerRuns"):
            return 200, self._list(parts[-1], where, body)
        if parts[-1] == "rerun":
            self.fire(parts[1], *self._pipelines, where=where, ago=0)
            return 200, {}
        id_ = parts[parts.index("pipelineruns") + 1] if "pipelineruns" in parts else ""
        run = self.runs.get(id_)
        if run is None or run.where != where:
            return 404, {"error": {"code": "PipelineRunNotFound", "message": "secret path"}}
        if parts[-1] == "cancel":
            run.status, run.questions = "Cancelled", 0
            return 200, {}
        if parts[-1] == "queryActivityruns":
            if not where and parts[1] != run.name:
                return 404, {"error": {"code": "PipelineNotFound", "message": "another name"}}
            return 200, self._paged(run.activities, body)
        answer = run.answer()
        run.questions -= run.questions > 0
        return 200, answer

    def _list(self, kind: str, where: Where, body: Answer) -> Answer:
        after, before = (
            datetime.fromisoformat(body[name].replace("Z", "+00:00"))
            for name in ("lastUpdatedAfter", "lastUpdatedBefore")
        )
        if kind == "queryTriggerRuns":
            items = [
                answer
                for place, moment, answer in self.trigger_runs
                if place == where and after <= moment <= before
            ]
        else:
            items = [
                run.answer()
                for run in self.runs.values()
                if run.where == where
                and after <= (run.started if run.questions else run.ended) <= before
            ]
        return self._paged(items, body)

    def _paged(self, items: list[Answer], body: Answer) -> Answer:
        first = int(body.get("continuationToken") or 0)
        found: Answer = {"value": items[first : first + self.page]}
        if first + self.page < len(items) or (self.repeat_tokens and items):
            found["continuationToken"] = str(
                min(first + self.page, (len(items) - 1) // self.page * self.page)
            )
        return found

    def _activity(self, run: PipelineRun, activity: Activity, ago: float) -> Answer:
        id_ = str(uuid4())
        output = activity.output
        if activity.runs:
            by = {
                "id": id_,
                "name": "Execute",
                "invokedByType": "PipelineActivity",
                "pipelineName": run.name,
                "pipelineRunId": run.id,
            }
            child = self.start(activity.runs, run.where, ago=ago, by=by)
            output = {"pipelineName": activity.runs, "pipelineRunId": child}
        return {
            "activityRunId": id_,
            "activityName": f"a {activity.type}",
            "activityType": activity.type,
            "pipelineName": run.name,
            "pipelineRunId": run.id,
            "status": activity.status,
            "activityRunStart": stamp(run.started),
            "activityRunEnd": stamp(run.ended),
            "durationInMs": 42_000,
            "input": activity.input or {"source": {"connection": "password=hunter2"}},
            "output": output,
            "error": {"errorCode": "", "message": "secret message"},
            "retryAttempt": None,
        }


class StaticToken(SansIOHTTPPolicy[Any, Any]):
    """Says who it is, also without TLS."""

    def on_request(self, request: Any) -> None:
        """Put the header on a request."""
        request.http_request.headers["Authorization"] = f"Bearer {TOKEN}"


class Credential:
    """A credential that is never asked, for clients that will not be without one."""

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        """Return a token."""
        return AccessToken(TOKEN, int(time.time()) + 3600)


@contextmanager
def azure_server() -> Generator[Azure]:
    """Run a server that has seen nothing yet, until the block ends."""
    azure = Azure()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            pass

        def handle_one_request(self) -> None:
            """Answer; a client that has gone away is no error of ours."""
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def respond(self) -> None:
            parts = urlsplit(self.path)
            request = Request(
                self.command,
                parts.path,
                parse_qs(parts.query),
                self.rfile.read(int(self.headers.get("Content-Length") or 0)),
                {name.lower(): value for name, value in self.headers.items()},
            )
            status, body, headers = azure.answer(request)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = respond  # noqa: N815  the names that the base looks for

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    azure.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="azure-server", daemon=True)
    thread.start()
    try:
        yield azure
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
