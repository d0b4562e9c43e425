"""google-cloud-dataproc: jobs on clusters, serverless batches and sessions, workflows; gRPC and REST.

Measured: ``submit_job`` and ``submit_job_as_operation``, ``create_batch``, ``create_session``,
``instantiate_workflow_template`` and its inline twin, of the clients and the async clients. The
charge is written when Dataproc has answered: the run's full name (``projects/…/jobs/…``), cluster or
project, region, kind of job, and of a batch the size that its properties ask for. It is completed by
the answers of the program's own ``get_…``, ``list_…`` and ``cancel_job``, and of the operation that
it waits for (``result()``, ``done()``). What the program does not ask for in a while is asked for in
the background, on a client of ours (``follow_jobs = false`` ends that); async clients whose channel
the program made itself are left alone.

- Serverless: DCU, shuffle storage and accelerator seconds of ``approximate_usage``, at the tier that
  the properties name, are priced at once. Sessions are premium.
- A job on a cluster has no price of its own. It gets run time and YARN's core-seconds, and its share
  of the cluster's service fee by ``costinsights settle gcp.dataproc``; until then the price is a
  ``[[capacity]]`` with ``database`` = the cluster, if there is one.
- A workflow is one charge: that of all its jobs, by settlement.

With ``tagging="native"`` a job, batch, session or inline template has the labels
``costinsights-asset`` and ``costinsights-job`` beside the program's own.

Not seen: further pages of a list, arguments and texts of jobs (never recorded), what Compute Engine,
disks and Cloud Storage bill, clusters on GKE, jobs that ``gcloud``, a schedule or ``googleapiclient``
starts (settlement with ``--all`` finds them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.jobs import Asked, Hook, JobInstrumentor, Operation, Start
from costinsights.systems import gcp_dataproc as clusters
from costinsights.systems import gcp_dataproc_serverless as serverless
from costinsights.systems.gcp_dataproc import raw
from costinsights_instrumentors import _dataproc as dp
from costinsights_instrumentors import _dataproc_follow as follow
from costinsights_instrumentors._dataproc_labels import labelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = "google.cloud.dataproc_v1.services"
CLUSTERS, SERVERLESS = clusters.SYSTEM, serverless.SYSTEM
JOBS, BATCHES = "job_controller:JobController", "batch_controller:BatchController"
SESSIONS = "session_controller:SessionController"
WORKFLOWS = "workflow_template_service:WorkflowTemplateService"

_JOB = Start(dp.job_place, dp.job_run, placed=dp.job_placed)
_JOB_OPERATION = Start(dp.job_place, dp.job_operation_run)
_BATCH = Start(dp.serverless_place("batch"), dp.serverless_run("batch"))
_SESSION = Start(dp.serverless_place("session"), dp.serverless_run("session"))
_WORKFLOW = Start(dp.workflow_place, dp.workflow_run)


class Method(NamedTuple):
    service: str
    operation: Operation
    labels: str = ""
    """The part of its request that takes labels."""


METHODS: Mapping[str, Method] = {
    "submit_job": Method(JOBS, Operation(CLUSTERS, _JOB, follow=follow.JOBS), "job"),
    "submit_job_as_operation": Method(
        JOBS, Operation(CLUSTERS, _JOB_OPERATION, follow=follow.JOBS), "job"
    ),
    "get_job": Method(JOBS, Operation(CLUSTERS, states=dp.job_states)),
    "cancel_job": Method(JOBS, Operation(CLUSTERS, states=dp.job_states)),
    "list_jobs": Method(JOBS, Operation(CLUSTERS, states=dp.listed_jobs)),
    "create_batch": Method(BATCHES, Operation(SERVERLESS, _BATCH, follow=follow.BATCHES), "batch"),
    "get_batch": Method(BATCHES, Operation(SERVERLESS, states=dp.serverless_states)),
    "list_batches": Method(BATCHES, Operation(SERVERLESS, states=dp.listed("batches"))),
    "create_session": Method(
        SESSIONS, Operation(SERVERLESS, _SESSION, follow=follow.SESSIONS), "session"
    ),
    "get_session": Method(SESSIONS, Operation(SERVERLESS, states=dp.serverless_states)),
    "list_sessions": Method(SESSIONS, Operation(SERVERLESS, states=dp.listed("sessions"))),
    "instantiate_workflow_template": Method(WORKFLOWS, Operation(CLUSTERS, _WORKFLOW)),
    "instantiate_inline_workflow_template": Method(
        WORKFLOWS, Operation(CLUSTERS, _WORKFLOW), "template"
    ),
}
HOLDERS = {id(method.operation): method.labels for method in METHODS.values()}
ENDED = {
    f"{dp.TYPES}{kind}": Operation(system, states=dp.operation_states)
    for kind, system in (
        ("JobMetadata", CLUSTERS),
        ("WorkflowMetadata", CLUSTERS),
        ("BatchOperationMetadata", SERVERLESS),
        ("SessionOperationMetadata", SERVERLESS),
    )
}


def _hooks() -> Iterator[Hook]:
    for name, (service, _, _) in METHODS.items():
        folder, kind = service.split(":")
        yield Hook(f"{ROOT}.{folder}.client:{kind}Client.{name}", leaf=True)
        yield Hook(f"{ROOT}.{folder}.async_client:{kind}AsyncClient.{name}", "async")
    yield Hook("google.api_core.operation:Operation.done", leaf=True)
    yield Hook("google.api_core.operation_async:AsyncOperation.done", "async")


class DataprocInstrumentor(JobInstrumentor):
    name = "dataproc"
    system = CLUSTERS
    systems = (CLUSTERS, SERVERLESS)
    driver = "google.cloud.dataproc_v1"
    supports = ("5.10", "6")
    hooks = tuple(_hooks())
    meters = (*clusters.JOB_METERS, *serverless.METERS)
    basis = "metered"
    statement_tags = True
    channel = "labels of jobs, batches, sessions"
    verified = "emulator: own gRPC and REST server"

    def operation(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        """Tell by the method; of an operation by what its metadata are."""
        method, first = hook.target.rpartition(".")[2], args[0]
        if method == "done":
            kind = dp.about(first)
            return None if kind is None else Asked(ENDED[kind], None, first)
        request = args[1] if len(args) > 1 else kwargs.get("request")
        request = kwargs if request is None else raw(request)
        return Asked(METHODS[method].operation, first, request)

    def with_labels(
        self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Give a copy of the request the labels."""
        holder = HOLDERS.get(id(asked.operation))
        return labelled(holder, args, kwargs, words) if holder else None
