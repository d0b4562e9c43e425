"""Dataproc for the unmodified google-cloud-dataproc: gRPC with the generated messages, and REST.

One set of methods answers both: a call is its name and its request, whichever way it came. A test
says what runs will use (`seed`), lets runs and clusters have happened (`ran`, `cluster`), and looks
at what was asked (`calls`).

    with dataproc_server() as dataproc:
        dataproc.seed("orders.py", runs=600, vcores=4800, questions=2)
        client = dataproc.client("JobController")                       # gRPC
        client = dataproc.client("JobController", transport="rest")

Emulator: it proves that we read what the library sends and gets; that Google fills the figures in
the same way it cannot prove. Its clock may be behind (`ago`), so that what was just started has
ended an hour ago.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

# The libraries have no types of their own, or half of them.
grpc: Any = import_module("grpc")
aio: Any = import_module("grpc.aio")
credentials: Any = import_module("google.auth.credentials")
dp: Any = import_module("google.cloud.dataproc_v1")
operations_pb2: Any = import_module("google.longrunning.operations_pb2")
empty_pb2: Any = import_module("google.protobuf.empty_pb2")
json_format: Any = import_module("google.protobuf.json_format")

PROJECT, REGION = "shop", "us-central1"
SERVICE = "google.cloud.dataproc.v1."
PAGE = 100
HTTP_STATUS = {
    "NOT_FOUND": 404,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "INTERNAL": 500,
    "INVALID_ARGUMENT": 400,
    "ALREADY_EXISTS": 409,
}


class Refusal(Exception):
    """An error to answer with: a name of `grpc.StatusCode`."""

    def __init__(self, code: str, message: str = "refused by the test") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Call(NamedTuple):
    """What came over the wire."""

    method: str
    """``SubmitJob``."""
    request: Any
    """The message."""
    metadata: dict[str, str]
    """Without what is different each time."""


@dataclass
class Figures:
    """What a run is to use, and how it is to end."""

    state: str = ""
    """The name of its last state; by default that of a good end."""
    questions: int = 1
    """How many answers say that it still runs, before the one that says it has ended."""
    waits: float = 5
    """Seconds from its submission until it runs."""
    runs: float = 60
    attempts: int = 1
    """How often a job's driver was started, each for as long."""
    vcores: int = 0
    """YARN's core-seconds of all applications of a job."""
    milli_dcu_seconds: int | None = None
    """None: Google says nothing of what it used."""
    shuffle_gb_seconds: int = 0
    milli_accelerator_seconds: int = 0
    accelerator: str = ""
    milli_dcu_now: int = 0
    """What a snapshot of a batch that runs says; 0: there is none."""
    edit: Callable[[Any], None] | None = None
    """Spoils the protobuf message before it leaves."""


@dataclass
class Run:
    """A job, batch or session as it was asked for."""

    asked: Any
    figures: Figures
    started: float
    uuid: str
    answered: int = 0
    ended: bool = False


class Dataproc:
    """All of Dataproc, in one process."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.ago = 0.0
        """So many seconds the clock is behind."""
        self._lock = threading.RLock()
        self._seeds: list[tuple[str, dict[str, Any]]] = []
        self._refusals: dict[str, deque[Refusal]] = {}
        self.loop = False
        """Whether lists give the same page token again and again."""
        self.jobs: dict[str, Run] = {}
        self.batches: dict[str, Run] = {}
        self.sessions: dict[str, Run] = {}
        self.clusters: dict[str, Any] = {}
        self.gone: dict[str, str] = {}
        """The ids of clusters that were deleted, by name."""
        self.operations: dict[str, Callable[[], Any]] = {}
        self.page = PAGE
        self.grpc_port = 0
        self.rest_port = 0
        self._channels: list[Any] = []

    # -- what a test says -----------------------------------------------------------------------

    def seed(self, words: str, **figures: Any) -> None:
        """Say what runs will use in whose request `words` stand; the last that fits counts."""
        self._seeds.append((words, figures))

    def refuse(self, method: str, *refusals: Refusal) -> None:
        """Answer the next calls of a method with these errors, one each."""
        self._refusals.setdefault(method, deque()).extend(refusals)

    def forget(self) -> None:
        """Begin anew."""
        keep = self.grpc_port, self.rest_port, self._channels
        self.__init__()  # type: ignore[misc]  # a server's state is all there is of it
        self.grpc_port, self.rest_port, self._channels = keep

    def counts(self) -> dict[str, int]:
        """How many calls of each method there were."""
        found: dict[str, int] = {}
        for call in list(self.calls):
            found[call.method] = found.get(call.method, 0) + 1
        return found

    def ran(
        self,
        id_: str,
        cluster: str = "etl",
        *,
        ago: float,
        labels: Mapping[str, str] | None = None,
        **figures: Any,
    ) -> str:
        """Let a job have run that no program of ours has submitted; return its full name."""
        job = dp.Job(
            reference={"project_id": PROJECT, "job_id": id_},
            placement={"cluster_name": cluster},
            pyspark_job={"main_python_file_uri": "gs://bucket/elsewhere.py"},
            labels=dict(labels or {}),
        )
        given: dict[str, Any] = {"questions": 0, **figures}
        run = self._submitted(job, Figures(**given))
        run.started = time.time() - ago
        return f"projects/{PROJECT}/regions/{REGION}/jobs/{id_}"

    def batch_ran(self, id_: str, *, ago: float, batch: Any = None, **figures: Any) -> str:
        """The same of a batch."""
        name = f"projects/{PROJECT}/locations/{REGION}/batches/{id_}"
        found = dp.Batch(batch or {"pyspark_batch": {"main_python_file_uri": "gs://b/e.py"}})
        found.name = name
        given: dict[str, Any] = {"questions": 0, **figures}
        self.batches[name] = Run(found, Figures(**given), time.time() - ago, str(uuid4()))
        return name

    def cluster(
        self,
        name: str = "etl",
        machine: str = "n1-standard-4",
        workers: int = 5,
        *,
        ago: float,
        states: Sequence[tuple[str, float]] = (),
        gone: float | None = None,
        resized: Sequence[tuple[float, int]] = (),
        forgotten: bool = False,
        **config: Any,
    ) -> Any:
        """Let there be a cluster of a master and workers, created so many seconds ago.

        `states` are further ones, each with how long ago it began; `gone` is when it was deleted,
        and `resized` when it got how many workers. All of that stands in operations, unless they
        were `forgotten`.
        """
        now = time.time()
        uri = f"https://www.googleapis.com/compute/v1/projects/{PROJECT}/zones/z/machineTypes/"

        def shaped(count: int) -> Any:
            return dp.Cluster(
                project_id=PROJECT,
                cluster_name=name,
                cluster_uuid=f"uuid-{name}-{int(ago)}",
                config={
                    "master_config": {"num_instances": 1, "machine_type_uri": uri + machine},
                    "worker_config": {"num_instances": count, "machine_type_uri": uri + machine},
                    **config,
                },
            )

        def operation(kind: str, at: float, after: Any) -> None:
            metadata = dp.ClusterOperationMetadata(
                cluster_name=name,
                cluster_uuid=f"uuid-{name}-{int(ago)}",
                operation_type=kind,
                status={"state": "DONE", "state_start_time": stamp(at)},
                status_history=[{"state": "PENDING", "state_start_time": stamp(at)}],
            )
            found = self._operation(metadata, after)
            if not forgotten:
                self.operations[found.name] = lambda: found

        history = [("CREATING", ago), ("RUNNING", ago - 1)]
        operation("CREATE", now - ago, shaped(workers))
        for at, count in resized:
            workers = count
            history += [("UPDATING", at), ("RUNNING", at - 1)]
            operation("UPDATE", now - at + 1, shaped(workers))
        history += states
        history.sort(key=lambda each: -each[1])
        found = shaped(workers)
        every = [
            dp.ClusterStatus(state=state, state_start_time=stamp(now - at)) for state, at in history
        ]
        found.status, found.status_history = every[-1], every[:-1]
        if gone is None:
            self.clusters[name] = found
        else:
            self.gone[name] = found.cluster_uuid
            operation("DELETE", now - gone, None)
        return found

    # -- what a program needs -------------------------------------------------------------------

    def client(self, kind: str, transport: str = "grpc", **more: Any) -> Any:
        """Return an unmodified client that talks to this server; ``grpc_asyncio`` in a loop only."""
        suffix = "AsyncClient" if transport == "grpc_asyncio" else "Client"
        made = getattr(dp, kind + suffix)
        way = made.get_transport_class(transport)
        if transport == "rest":
            return made(
                transport=way(
                    host=self.rest, credentials=credentials.AnonymousCredentials(), **more
                )
            )
        if transport == "grpc_asyncio":
            return made(
                transport=way(channel=aio.insecure_channel(self.address), host=self.address)
            )
        channel = grpc.insecure_channel(self.address)
        self._channels.append(channel)
        return made(transport=way(channel=channel, host=self.address))

    @property
    def address(self) -> str:
        """Where gRPC is."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def rest(self) -> str:
        """Where REST is."""
        return f"http://127.0.0.1:{self.rest_port}"

    def hang_up(self) -> None:
        """Close the channels of the clients."""
        while self._channels:
            self._channels.pop().close()

    # -- answering ------------------------------------------------------------------------------

    def answer(self, method: str, request: Any, metadata: Iterable[tuple[str, str]]) -> Any:
        """Answer a call with a protobuf message.

        Raises:
            Refusal: with an error instead.
        """
        known = {
            key: value for key, value in metadata if key in ("x-goog-request-params", "user-agent")
        }
        with self._lock:
            self.calls.append(Call(method, request, known))
            waiting = self._refusals.get(method)
            if waiting:
                raise waiting.popleft()
            found = getattr(self, f"_{method}")(request)
        return plain(found)

    def _figures(self, asked: Any) -> Figures:
        text = str(asked)
        figures: dict[str, Any] = {}
        for words, seeded in self._seeds:
            if words in text:
                figures = seeded
        return Figures(**figures)

    def _now(self) -> float:
        return time.time() - self.ago

    # jobs

    def _submitted(self, job: Any, figures: Figures) -> Run:
        id_ = job.reference.job_id or f"job-{uuid4().hex[:8]}"
        job.reference.job_id = id_
        if id_ in self.jobs:
            raise Refusal("ALREADY_EXISTS", f"Already exists: job {id_}")
        run = self.jobs[id_] = Run(job, figures, self._now(), str(uuid4()))
        return run

    def _SubmitJob(self, request: Any) -> Any:  # noqa: N802  the method's name
        if "bad.py" in str(request):
            raise Refusal("INVALID_ARGUMENT", "no such file: secret 'path'")
        run = self._submitted(dp.Job(request.job), self._figures(request))
        run.asked.reference.project_id = request.project_id
        return self._job(run, still=True)

    def _SubmitJobAsOperation(self, request: Any) -> Any:  # noqa: N802  the method's name
        run = self._submitted(dp.Job(request.job), self._figures(request))
        run.asked.reference.project_id = request.project_id
        id_ = run.asked.reference.job_id
        name = f"projects/{request.project_id}/regions/{request.region}/operations/{uuid4()}"

        def state() -> Any:
            job = self._job(run)
            metadata = dp.JobMetadata(job_id=id_, status=job.status, operation_type="SUBMIT")
            if not run.ended:
                return self._operation(metadata, name=name)
            if job.status.state.name != "DONE":
                return self._operation(metadata, name=name, error="job failed: secret 'reason'")
            return self._operation(metadata, job, name=name)

        self.operations[name] = state
        return self._operation(dp.JobMetadata(job_id=id_, operation_type="SUBMIT"), name=name)

    def _GetJob(self, request: Any) -> Any:  # noqa: N802  the method's name
        return self._job(self._known(self.jobs, request.job_id))

    def _CancelJob(self, request: Any) -> Any:  # noqa: N802  the method's name
        run = self._known(self.jobs, request.job_id)
        run.figures.state, run.figures.questions = "CANCELLED", 0
        return self._job(run)

    def _ListJobs(self, request: Any) -> Any:  # noqa: N802  the method's name
        runs = self._since("insertTime", self.jobs, request)
        if request.cluster_name:
            runs = [run for run in runs if run.asked.placement.cluster_name == request.cluster_name]
        if "status.state = ACTIVE" in request.filter:
            runs = [run for run in runs if run.answered < run.figures.questions]
        found, token = self._page(runs, request)
        return dp.ListJobsResponse(jobs=[self._job(run) for run in found], next_page_token=token)

    def _job(self, run: Run, *, still: bool = False) -> Any:
        run.ended = not still and run.answered >= run.figures.questions
        run.answered += not still
        figures = run.figures
        at, states = run.started, [("PENDING", run.started)]
        at += figures.waits
        for attempt in range(figures.attempts):
            states.append(("RUNNING", at))
            at += figures.runs
            if attempt + 1 < figures.attempts:
                states.append(("ATTEMPT_FAILURE", at))
        states.append((figures.state or "DONE", at))
        if not run.ended:
            states = states[: 1 if still else 2]
        every = [dp.JobStatus(state=word, state_start_time=stamp(when)) for word, when in states]
        job = dp.Job(run.asked)
        job.job_uuid, job.status, job.status_history = run.uuid, every[-1], every[:-1]
        cluster = self.clusters.get(job.placement.cluster_name)
        if cluster is not None:
            job.placement.cluster_uuid = cluster.cluster_uuid
        elif job.placement.cluster_name:
            job.placement.cluster_uuid = self.gone.get(job.placement.cluster_name, "")
        else:
            job.placement.cluster_name = "chosen"
        if run.ended and figures.vcores:
            job.yarn_applications = [
                {"name": "app", "state": "FINISHED", "vcore_seconds": figures.vcores}
            ]
        if figures.edit is not None and run.ended:
            figures.edit(dp.Job.pb(job))
        return job

    # batches and sessions

    def _CreateBatch(self, request: Any) -> Any:  # noqa: N802  the method's name
        id_ = request.batch_id or f"batch-{uuid4().hex[:8]}"
        name = f"{request.parent}/batches/{id_}"
        batch = dp.Batch(request.batch)
        batch.name = name
        run = self.batches[name] = Run(batch, self._figures(request), self._now(), str(uuid4()))
        metadata = dp.BatchOperationMetadata(batch=name, operation_type="BATCH")
        return self._long(request.parent, metadata, lambda: self._batch(run), run, "SUCCEEDED")

    def _GetBatch(self, request: Any) -> Any:  # noqa: N802  the method's name
        return self._batch(self._known(self.batches, request.name))

    def _ListBatches(self, request: Any) -> Any:  # noqa: N802  the method's name
        found, token = self._page(self._since("create_time", self.batches, request), request)
        return dp.ListBatchesResponse(
            batches=[self._batch(run) for run in found], next_page_token=token
        )

    def _CreateSession(self, request: Any) -> Any:  # noqa: N802  the method's name
        name = f"{request.parent}/sessions/{request.session_id}"
        session = dp.Session(request.session)
        session.name = name
        run = self.sessions[name] = Run(session, self._figures(request), self._now(), str(uuid4()))
        run.figures.questions = 10**9  # until it is terminated
        metadata = dp.SessionOperationMetadata(session=name, operation_type="CREATE")
        found = self._operation(metadata, self._session(run), parent=request.parent)
        self.operations[found.name] = lambda: found
        return found

    def _GetSession(self, request: Any) -> Any:  # noqa: N802  the method's name
        return self._session(self._known(self.sessions, request.name))

    def _ListSessions(self, request: Any) -> Any:  # noqa: N802  the method's name
        found, token = self._page(self._since("create_time", self.sessions, request), request)
        return dp.ListSessionsResponse(
            sessions=[self._session(run) for run in found], next_page_token=token
        )

    def _TerminateSession(self, request: Any) -> Any:  # noqa: N802  the method's name
        run = self._known(self.sessions, request.name)
        run.figures.questions = 0
        metadata = dp.SessionOperationMetadata(session=request.name, operation_type="TERMINATE")
        parent = request.name.rpartition("/sessions/")[0]
        return self._long(parent, metadata, lambda: self._session(run), run, "TERMINATED")

    def _batch(self, run: Run) -> Any:
        return self._workload(dp.Batch(run.asked), run, "SUCCEEDED", "RUNNING")

    def _session(self, run: Run) -> Any:
        return self._workload(dp.Session(run.asked), run, "TERMINATED", "ACTIVE")

    def _workload(self, found: Any, run: Run, good: str, running: str) -> Any:
        run.ended = run.answered >= run.figures.questions
        run.answered += 1
        figures = run.figures
        found.uuid, found.create_time = run.uuid, stamp(run.started)
        at = run.started + figures.waits
        past = dp.Batch.StateHistory
        if good != "SUCCEEDED":
            past = dp.Session.SessionStateHistory
        found.state, found.state_time = running, stamp(at)
        if run.ended:
            found.state_history = [past(state=running, state_start_time=stamp(at))]
            found.state = figures.state or good
            found.state_time = stamp(at + figures.runs)
            if figures.milli_dcu_seconds is not None:
                usage = dp.UsageMetrics(milli_dcu_seconds=figures.milli_dcu_seconds)
                usage.shuffle_storage_gb_seconds = figures.shuffle_gb_seconds
                usage.milli_accelerator_seconds = figures.milli_accelerator_seconds
                usage.accelerator_type = figures.accelerator
                found.runtime_info.approximate_usage = usage
        elif figures.milli_dcu_now:
            found.runtime_info.current_usage = dp.UsageSnapshot(
                milli_dcu=figures.milli_dcu_now, snapshot_time=stamp(self._now())
            )
        properties = found.runtime_config.properties
        for key in list(properties):  # as Google answers
            properties[f"spark:{key}"] = properties.pop(key)
        if figures.edit is not None and run.ended:
            figures.edit(plain(found))
        return found

    def _since(self, field: str, runs: dict[str, Run], request: Any) -> list[Run]:
        """Return the runs that a list's filter leaves, the newest first."""
        since = re.search(rf'{field} >= "([^"]+)Z"', request.filter)
        first = datetime.fromisoformat(since[1] + "+00:00").timestamp() if since else 0
        return [run for run in reversed(runs.values()) if run.started >= first]

    # workflows

    def _InstantiateWorkflowTemplate(self, request: Any) -> Any:  # noqa: N802  the method's name
        within = request.name.rpartition("/workflowTemplates/")[0]
        jobs = [{"pyspark_job": {"main_python_file_uri": f"gs://b/step-{n}.py"}} for n in (1, 2)]
        return self._workflow(within, [dp.Job(job) for job in jobs], {}, "etl")

    def _InstantiateInlineWorkflowTemplate(self, request: Any) -> Any:  # noqa: N802  its name
        template = request.template
        jobs = [dp.Job(pyspark_job=step.pyspark_job) for step in template.jobs]
        return self._workflow(request.parent, jobs, dict(template.labels), "etl")

    def _workflow(
        self, parent: str, jobs: Sequence[Any], labels: Mapping[str, str], cluster: str
    ) -> Any:
        runs: list[Run] = []
        for job in jobs:
            job.placement.cluster_name = cluster
            job.reference.project_id = PROJECT
            job.labels.update(labels)
            runs.append(self._submitted(job, self._figures(job)))
        name, begun = f"{parent}/operations/{uuid4()}", self._now()
        metadata = dp.WorkflowMetadata(state="PENDING", cluster_name="")

        def state() -> Any:
            done = [self._job(run) for run in runs]
            ends = [run.started + run.figures.waits + run.figures.runs for run in runs]
            known = dp.WorkflowMetadata(
                state="DONE" if all(run.ended for run in runs) else "RUNNING",
                cluster_name=cluster,
                start_time=stamp(begun),
                graph={
                    "nodes": [
                        {"step_id": f"step-{number}", "job_id": job.reference.job_id}
                        for number, job in enumerate(done)
                    ]
                },
            )
            if known.state.name == "RUNNING":
                return self._operation(known, name=name)
            known.end_time = stamp(max(ends))
            return self._operation(known, empty_pb2.Empty(), name=name)

        self.operations[name] = state
        return self._operation(metadata, name=name)

    # clusters

    def _CreateCluster(self, request: Any) -> Any:  # noqa: N802  the method's name
        self.clusters[request.cluster.cluster_name] = request.cluster
        metadata = dp.ClusterOperationMetadata(
            cluster_name=request.cluster.cluster_name, operation_type="CREATE"
        )
        parent = f"projects/{request.project_id}/regions/{request.region}"
        found = self._operation(metadata, request.cluster, parent=parent)
        self.operations[found.name] = lambda: found
        return found

    def _DeleteCluster(self, request: Any) -> Any:  # noqa: N802  the method's name
        del self.clusters[request.cluster_name]
        metadata = dp.ClusterOperationMetadata(
            cluster_name=request.cluster_name, operation_type="DELETE"
        )
        parent = f"projects/{request.project_id}/regions/{request.region}"
        return self._operation(metadata, empty_pb2.Empty(), parent=parent)

    def _GetCluster(self, request: Any) -> Any:  # noqa: N802  the method's name
        return self._known(self.clusters, request.cluster_name)

    def _ListClusters(self, request: Any) -> Any:  # noqa: N802  the method's name
        found, token = self._page(list(self.clusters.values()), request)
        return dp.ListClustersResponse(clusters=found, next_page_token=token)

    # operations

    def _GetOperation(self, request: Any) -> Any:  # noqa: N802  the method's name
        return self._known(self.operations, request.name)()

    def _ListOperations(self, request: Any) -> Any:  # noqa: N802  the method's name
        every = [
            operation
            for name, state in list(self.operations.items())
            if name.startswith(request.name) and (operation := state()) is not None
        ]
        found, token = self._page(every, request)
        return operations_pb2.ListOperationsResponse(operations=found, next_page_token=token)

    def _long(
        self, parent: str, metadata: Any, state: Callable[[], Any], run: Run, good: str
    ) -> Any:
        name = f"{parent}/operations/{uuid4()}"

        def operation() -> Any:
            workload = state()
            if not run.ended:
                return self._operation(metadata, name=name)
            if workload.state.name != good:
                return self._operation(metadata, name=name, error="failed: secret 'reason'")
            return self._operation(metadata, workload, name=name)

        self.operations[name] = operation
        return self._operation(metadata, name=name)

    def _operation(
        self,
        metadata: Any,
        response: Any = None,
        *,
        name: str = "",
        parent: str = f"projects/{PROJECT}/regions/{REGION}",
        error: str = "",
    ) -> Any:
        found = operations_pb2.Operation(name=name or f"{parent}/operations/{uuid4()}")
        found.metadata.Pack(plain(metadata))
        if error:
            found.done = True
            found.error.code, found.error.message = 2, error
        elif response is not None:
            found.done = True
            found.response.Pack(plain(response))
        return found

    # all

    def _known(self, among: Mapping[str, Any], name: str) -> Any:
        if name not in among:
            raise Refusal("NOT_FOUND", f"Not found: {name}")
        return among[name]

    def _page(self, every: Sequence[Any], request: Any) -> tuple[Sequence[Any], str]:
        start = int(request.page_token or 0)
        end = start + min(request.page_size or self.page, self.page)
        if self.loop:
            return every[:end], "0"
        return every[start:end], str(end) if end < len(every) else ""


def plain(message: Any) -> Any:
    """Return the protobuf message below one of the library's."""
    kind = message.__class__
    return kind.pb(message) if hasattr(kind, "pb") else message


def stamp(seconds: float) -> dict[str, int]:
    """Return a `Timestamp`."""
    return {"seconds": int(seconds), "nanos": int(seconds % 1 * 10**6) * 1000}


# --- the ways to it ------------------------------------------------------------------------------

METHODS = {
    "JobController": {
        "SubmitJob": dp.SubmitJobRequest,
        "SubmitJobAsOperation": dp.SubmitJobRequest,
        "GetJob": dp.GetJobRequest,
        "ListJobs": dp.ListJobsRequest,
        "CancelJob": dp.CancelJobRequest,
    },
    "BatchController": {
        "CreateBatch": dp.CreateBatchRequest,
        "GetBatch": dp.GetBatchRequest,
        "ListBatches": dp.ListBatchesRequest,
    },
    "SessionController": {
        "CreateSession": dp.CreateSessionRequest,
        "GetSession": dp.GetSessionRequest,
        "ListSessions": dp.ListSessionsRequest,
        "TerminateSession": dp.TerminateSessionRequest,
    },
    "WorkflowTemplateService": {
        "InstantiateWorkflowTemplate": dp.InstantiateWorkflowTemplateRequest,
        "InstantiateInlineWorkflowTemplate": dp.InstantiateInlineWorkflowTemplateRequest,
    },
    "ClusterController": {
        "CreateCluster": dp.CreateClusterRequest,
        "DeleteCluster": dp.DeleteClusterRequest,
        "GetCluster": dp.GetClusterRequest,
        "ListClusters": dp.ListClustersRequest,
    },
}
OPERATIONS = {
    "GetOperation": operations_pb2.GetOperationRequest,
    "ListOperations": operations_pb2.ListOperationsRequest,
}
IN = r"/v1/projects/(?P<project_id>[^/]+)/regions/(?P<region>[^/]+)"
PARENT = r"/v1/(?P<parent>projects/[^/]+/(?:locations|regions)/[^/]+)"
NAMED = r"/v1/(?P<name>projects/[^/]+/(?:locations|regions)/[^/]+"
# Method, path, what it is called, and the part of the request that is the body.
ROUTES = (
    ("POST", rf"{IN}/jobs:submit", "SubmitJob", "*"),
    ("POST", rf"{IN}/jobs:submitAsOperation", "SubmitJobAsOperation", "*"),
    ("POST", rf"{IN}/jobs/(?P<job_id>[^/]+):cancel", "CancelJob", "*"),
    ("GET", rf"{IN}/jobs/(?P<job_id>[^/]+)", "GetJob", ""),
    ("GET", rf"{IN}/jobs", "ListJobs", ""),
    ("POST", rf"{IN}/clusters", "CreateCluster", "cluster"),
    ("DELETE", rf"{IN}/clusters/(?P<cluster_name>[^/]+)", "DeleteCluster", ""),
    ("GET", rf"{IN}/clusters/(?P<cluster_name>[^/]+)", "GetCluster", ""),
    ("GET", rf"{IN}/clusters", "ListClusters", ""),
    ("POST", rf"{PARENT}/batches", "CreateBatch", "batch"),
    ("GET", rf"{PARENT}/batches", "ListBatches", ""),
    ("GET", rf"{NAMED}/batches/[^/]+)", "GetBatch", ""),
    ("POST", rf"{PARENT}/sessions", "CreateSession", "session"),
    ("GET", rf"{PARENT}/sessions", "ListSessions", ""),
    ("GET", rf"{NAMED}/sessions/[^/]+)", "GetSession", ""),
    ("POST", rf"{NAMED}/sessions/[^/]+):terminate", "TerminateSession", "*"),
    (
        "POST",
        rf"{PARENT}/workflowTemplates:instantiateInline",
        "InstantiateInlineWorkflowTemplate",
        "template",
    ),
    (
        "POST",
        rf"{NAMED}/workflowTemplates/[^/]+):instantiate",
        "InstantiateWorkflowTemplate",
        "*",
    ),
    ("GET", rf"{NAMED}/operations/[^/]+)", "GetOperation", ""),
    ("GET", rf"{NAMED}/operations)", "ListOperations", ""),
)
REQUESTS: dict[str, Any] = {
    **{name: kind for methods in METHODS.values() for name, kind in methods.items()},
    **OPERATIONS,
}


def _grpc_handlers(dataproc: Dataproc) -> list[Any]:
    def handler(method: str, kind: Any) -> Any:
        def answer(request: Any, context: Any) -> Any:
            try:
                return dataproc.answer(method, request, context.invocation_metadata())
            except Refusal as refusal:
                context.abort(grpc.StatusCode[refusal.code], refusal.message)

        read = kind.FromString if hasattr(kind, "FromString") else kind.deserialize
        return grpc.unary_unary_rpc_method_handler(answer, read, _bytes)

    services: dict[str, Mapping[str, Any]] = {
        **{SERVICE + name: methods for name, methods in METHODS.items()},
        "google.longrunning.Operations": OPERATIONS,
    }
    return [
        grpc.method_handlers_generic_handler(
            service, {name: handler(name, kind) for name, kind in methods.items()}
        )
        for service, methods in services.items()
    ]


def _bytes(message: Any) -> bytes:
    found: bytes = message.SerializeToString()
    return found


class _Rest(BaseHTTPRequestHandler):
    """JSON over HTTP, as googleapis' annotations have it."""

    dataproc: Dataproc
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        pass

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def do_DELETE(self) -> None:
        self._do()

    def _do(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body: dict[str, Any] = json.loads(self.rfile.read(size) or b"{}") if size else {}
        try:
            self._say(200, self._answer(body))
        except Refusal as refusal:
            status = HTTP_STATUS[refusal.code]
            error = {"code": status, "status": refusal.code, "message": refusal.message}
            self._say(status, json.dumps({"error": error}))

    def _answer(self, body: dict[str, Any]) -> str:
        url = urlsplit(self.path)
        for method, pattern, name, part in ROUTES:
            found = re.fullmatch(pattern, url.path)
            if self.command != method or found is None:
                continue
            plus = hasattr(REQUESTS[name], "pb")
            request = REQUESTS[name]()
            raw = REQUESTS[name].pb(request) if plus else request
            given: dict[str, Any] = {
                key: value for key, value in parse_qsl(url.query) if key[0] != "$"
            }
            given.update(body if part == "*" else {part: body} if part else {})
            json_format.ParseDict(given, raw, ignore_unknown_fields=True)
            for key, value in found.groupdict().items():
                setattr(raw, key, value)
            answer = self.dataproc.answer(name, request, self.headers.items())
            text: str = json_format.MessageToJson(answer)
            return text
        raise Refusal("NOT_FOUND", f"no such path: {url.path}")

    def _say(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def dataproc_server() -> Generator[Dataproc]:
    """Run a server, both ways, until the block ends."""
    dataproc = Dataproc()
    pool = futures.ThreadPoolExecutor(4, thread_name_prefix="dataproc-grpc")
    server = grpc.server(pool)
    server.add_generic_rpc_handlers(tuple(_grpc_handlers(dataproc)))
    dataproc.grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    handler = type("Rest", (_Rest,), {"dataproc": dataproc})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    dataproc.rest_port = http.server_port
    thread = threading.Thread(target=http.serve_forever, name="dataproc-rest", daemon=True)
    thread.start()
    try:
        yield dataproc
    finally:
        dataproc.hang_up()
        http.shutdown()
        thread.join()
        http.server_close()
        server.stop(0).wait()
        pool.shutdown()
