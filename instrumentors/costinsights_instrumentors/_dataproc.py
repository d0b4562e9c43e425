"""What Dataproc's requests and answers mean: places, runs, states, labels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Usage, address_of
from costinsights.jobs import Place, Run, State, place
from costinsights.systems import gcp_dataproc as clusters
from costinsights.systems import gcp_dataproc_serverless as serverless
from costinsights.systems.gcp_dataproc import (
    JOB_ENDS,
    got,
    job_figures,
    job_name,
    kind_of,
    moment,
    name_of,
    raw,
    times,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CANCELLED = 1  # google.rpc.Code
TERMINATE = 2  # SessionOperationMetadata.SessionOperationType


# --- where a call goes ---------------------------------------------------------------------------


def where(
    system: str,
    client: Any,
    namespace: str | None,
    region: str | None,
    dimensions: Mapping[str, str] | None = None,
) -> Place:
    """Return the place of runs: of jobs the cluster, of serverless work the project."""
    host: str = client.transport.host
    address, port = address_of(host if "://" in host else f"//{host}")
    return place(
        system,
        address=address,
        port=port,
        namespace=namespace or None,
        region=region or None,
        dimensions=tuple(sorted((dimensions or {}).items())),
    )


def job_place(client: Any, request: Any) -> Place:
    """Return the cluster that a request names."""
    cluster = got(request, "job", "placement", "cluster_name")
    return where(clusters.SYSTEM, client, cluster, got(request, "region"))


def job_placed(client: Any, request: Any, job: Any) -> Place:
    """Return the cluster that Dataproc chose, where the request had labels of clusters only."""
    return where(clusters.SYSTEM, client, raw(job).placement.cluster_name, got(request, "region"))


def workflow_place(client: Any, request: Any) -> Place:
    """Return the region of a workflow; its cluster is known when it has one."""
    name = re.search(r"/regions/([^/]+)", got(request, "name") or got(request, "parent") or "")
    return where(clusters.SYSTEM, client, None, None if name is None else name[1])


def serverless_place(what: str) -> Callable[[Any, Any], Place]:
    """Return what reads the place of a ``batch`` or a ``session``, and its tier."""

    def read(client: Any, request: Any) -> Place:
        parent = (got(request, "parent") or "").split("/")
        project, region = (parent[1], parent[3]) if len(parent) == 4 else (None, None)
        properties: Mapping[str, str] = got(request, what, "runtime_config", "properties") or {}
        dimensions = serverless.dimensions(properties, session=what == "session")
        if got(request, what, "session_template"):
            dimensions.pop("disk_tier", None)  # the template may say it: settlement sees that
        return where(serverless.SYSTEM, client, project, region, dimensions)

    return read


# --- what was started ----------------------------------------------------------------------------


def job_run(request: Any, answer: Any) -> Iterator[Run]:
    """Yield the job of an answer."""
    job = raw(answer)
    yield Run(_job(request, job.reference), operation=kind_of(job, "job"))


def job_operation_run(request: Any, answer: Any) -> Iterator[Run]:
    """Yield the job of an operation; if that does not name it, the operation stands for it."""
    asked, metadata = got(request, "job"), answer.metadata
    id_ = got(metadata, "job_id") or got(asked, "reference", "job_id")
    project, region = got(request, "project_id"), got(request, "region")
    name = job_name(project, region, id_) if id_ else answer.operation.name
    yield Run(name, operation=kind_of(asked if isinstance(asked, dict) else raw(asked), "job"))


def workflow_run(_: Any, answer: Any) -> Iterator[Run]:
    """Yield the workflow, which is known by its operation."""
    yield Run(answer.operation.name, operation="WORKFLOW")


def serverless_run(what: str) -> Callable[[Any, Any], Iterator[Run]]:
    """Return what reads the name of the ``batch`` or ``session`` that was created, and its size."""

    def read(request: Any, answer: Any) -> Iterator[Run]:
        asked = got(request, what)
        name = got(answer.metadata, what)
        id_ = got(request, f"{what}_id")
        if not name and id_:
            plural = "batches" if what == "batch" else "sessions"
            name = f"{got(request, 'parent')}/{plural}/{id_}"
        properties: Mapping[str, str] = got(asked, "runtime_config", "properties") or {}
        kind = kind_of(asked if isinstance(asked, dict) else raw(asked), what)
        operation = kind if what == "batch" else "SESSION"
        yield Run(
            name or answer.operation.name,
            operation=operation,
            meters=serverless.sizes(properties),
        )

    return read


def _job(request: Any, reference: Any) -> str:
    project = reference.project_id or got(request, "project_id")
    return job_name(project, got(request, "region"), reference.job_id)


# --- how it is -----------------------------------------------------------------------------------


def job_state(name: str, job: Any) -> State:
    """Return how a job is. Its price is its share of the cluster: settlement's."""
    word = JOB_ENDS.get(job.status.state)
    if word is None:
        return State(name, False)
    known, meters = times(job), job_figures(job)
    return State(
        name,
        True,
        Usage(None, meters) if meters else None,
        None if word == "DONE" else word,
        known.ended - known.submitted if known.ended and known.submitted else None,
    )


def job_states(request: Any, answer: Any) -> Iterator[State]:
    """Yield the state of one job."""
    job = raw(answer)
    yield job_state(_job(request, job.reference), job)


def listed_jobs(request: Any, answer: Any) -> Iterator[State]:
    """Yield those of a list's first page; the others come without another call of the client's."""
    for job in raw(answer._response).jobs:
        yield job_state(_job(request, job.reference), job)


def serverless_state(workload: Any) -> State:
    """Return how a batch or session is, by its kind of name."""
    batch = "/batches/" in workload.name
    word = (serverless.BATCH_ENDS if batch else serverless.SESSION_ENDS).get(workload.state)
    if word is None:
        return State(workload.name, False)
    meters = serverless.usage(workload)
    ended, created = moment(workload.state_time), moment(workload.create_time)
    return State(
        workload.name,
        True,
        Usage(None, meters) if meters else None,
        None if word in serverless.GOOD else word,
        ended - created if ended and created else None,
    )


def serverless_states(_: Any, answer: Any) -> Iterator[State]:
    """Yield the state of one batch or session."""
    yield serverless_state(raw(answer))


def listed(field: str) -> Callable[[Any, Any], Iterator[State]]:
    """Return what reads the first page of a list of ``batches`` or ``sessions``."""

    def read(_: Any, answer: Any) -> Iterator[State]:
        yield from map(serverless_state, getattr(raw(answer._response), field))

    return read


# --- operations ----------------------------------------------------------------------------------

TYPES = "google.cloud.dataproc.v1."
# What the metadata of an operation is, and the field that names what it is about.
OPERATIONS = {
    f"{TYPES}JobMetadata": "job_id",
    f"{TYPES}BatchOperationMetadata": "batch",
    f"{TYPES}SessionOperationMetadata": "session",
    f"{TYPES}WorkflowMetadata": "",
}


def about(future: Any) -> str | None:
    """Return the type of an operation's metadata, if it is about a run of ours."""
    kind: str = future.operation.metadata.type_url.rpartition("/")[2]
    return kind if kind in OPERATIONS else None


def operation_states(future: Any, _: Any) -> Iterator[State]:
    """Yield how the run of an operation is: that it goes on, or how it ended."""
    operation, kind = future.operation, about(future)
    if kind is None:
        return
    field, within = OPERATIONS[kind], name_of(operation.name)
    if operation.HasField("response") and field:
        found = raw(future._result_type.deserialize(operation.response.value))
        if field != "job_id":
            yield serverless_state(found)
        elif within is not None:
            project = found.reference.project_id or within.project
            yield job_state(job_name(project, within.region, found.reference.job_id), found)
        return
    metadata = future.metadata
    id_: str = (got(metadata, field) if field else "") or operation.name
    if field == "job_id" and within is not None and id_ != operation.name:
        id_ = job_name(within.project, within.region, id_)
    word = None
    # That a session could not be terminated is not its end.
    if operation.HasField("error") and got(metadata, "operation_type") != TERMINATE:
        word = "CANCELLED" if operation.error.code == CANCELLED else "FAILED"
    yield State(id_, word is not None, None, word)
