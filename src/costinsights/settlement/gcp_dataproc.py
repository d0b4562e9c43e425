"""Dataproc on clusters: jobs, and what the clusters that they ran on cost by the hour.

A job has no price of its own: what is paid for is the cluster, its vCPUs by the second, busy or
idle. So all jobs of the clusters in question are listed, whoever started them, and each takes its
share of the hours it ran in, by YARN's core-seconds or, where a job has none, by its run time.
A cluster that is gone, or was resized, is rebuilt from the operations that created, changed and
deleted it, for as long as Google keeps those. A workflow is one figure: all of its jobs.

The price is Dataproc's own fee. Compute Engine bills the VMs apart: with ``compute_engine = true``
the ``[[capacity]]`` that names the cluster as its `database` says what they cost an hour.

Messages: google-cloud-dataproc 5.32. Asking is free.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  msgspec reads the options' types
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from costinsights.asking import NoSuchThing
from costinsights.settlement.gcp import (
    FEW,
    PAGE,
    DataprocHistory,
    DataprocOptions,
    attribution,
    nanoseconds,
    stamp,
    time_of,
)
from costinsights.settlement.history import Figure, Plan, Stretch
from costinsights.systems.gcp_dataproc import (
    JOB_ENDS,
    JOB_METERS,
    SECOND,
    SYSTEM,
    Size,
    job_figures,
    job_name,
    kind_of,
    moment,
    name_of,
    size_of,
    times,
    weight,
)
from costinsights.systems.gcp_dataproc_clusters import FORGOTTEN, Life, group_of, lives
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from costinsights.jobs import Waiting

LONGEST = timedelta(days=7)
"""Jobs that were submitted so long before the time to settle, and had ended in it, are not seen."""
HOUR = timedelta(hours=1)
JOBS, CLUSTERS = "JobController", "ClusterController"
DONE = 3
"""WorkflowMetadata.State."""


class DataprocClusterOptions(DataprocOptions, frozen=True, forbid_unknown_fields=True):
    """``[settle."gcp.dataproc"]``."""

    machine_types: Mapping[str, int] = {}
    """vCPUs of machine types that are not known by their names: ``{"a2-highgpu-1g" = 12}``."""
    compute_engine: bool = False
    """Whether the ``[[capacity]]`` of a cluster is the price of its VMs, to be added to the fee."""


class _Place(NamedTuple):
    """What is known of a project's region, once it was asked."""

    clusters: dict[str, Life]
    """By group."""
    workflows: dict[str, Any]
    """WorkflowMetadata by the name of the operation."""
    steps: dict[str, str]
    """By name of a job: the operation of its workflow."""
    submitted: dict[str, str]
    """By name of a job: the operation that it was submitted as."""


class DataprocHistoryOfClusters(DataprocHistory):
    """Reads the jobs of the clusters on which runs wait or, with ``--all``, of all."""

    system = SYSTEM
    meters = (*JOB_METERS, "jobs")
    grants = (
        "gcloud iam roles create costinsightsSettlement --project=PROJECT --permissions="
        "dataproc.jobs.get,dataproc.jobs.list,dataproc.clusters.list,"
        "dataproc.operations.get,dataproc.operations.list\n"
        "gcloud projects add-iam-policy-binding PROJECT --member=serviceAccount:ACCOUNT "
        "--role=projects/PROJECT/roles/costinsightsSettlement"
    )
    Options = DataprocClusterOptions
    options: DataprocClusterOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._known: dict[tuple[str, str], _Place] = {}
        self._used: dict[str, Life] = {}
        """By group: the clusters that jobs were read of."""

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what will be asked for; all of it is free."""
        places = ", ".join(f"{project}/{region}" for project, region in self.places())
        beside = f"jobs that ran beside them, clusters and operations of {places or 'nowhere'}"
        span = f"{since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
        return Plan((f"{len(self.waiting)} jobs and workflows that wait", f"{beside}, {span}"))

    # -- jobs -----------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield all jobs of the time on the clusters in question, and the jobs that wait."""
        for (project, region), runs in self.places().items():
            known = self._place(project, region)
            wanted = dict.fromkeys(run.id for run in runs)
            left = dict(wanted)
            over = {
                id_
                for id_, metadata in known.workflows.items()
                if id_ not in wanted and 0 < moment(metadata.end_time) <= nanoseconds(since)
            }
            parts: dict[str, list[Any]] = {}
            for job in self._jobs(project, region, runs, since):
                name = job_name(project, region, job.reference.job_id)
                left.pop(name, None)
                if name in known.steps:
                    if known.steps[name] not in over:
                        parts.setdefault(known.steps[name], []).append(job)
                    continue
                if known.submitted.get(name) in left:
                    name = known.submitted[name]
                    del left[name]
                if name not in wanted and 0 < times(job).ended <= nanoseconds(since):
                    continue
                yield from self._figure(known, region, name, job)
            for id_ in list(left):
                if id_ not in known.workflows:
                    yield from self._alone(known, region, id_)
            for id_, metadata in known.workflows.items():
                if id_ in left or id_ in parts:
                    yield from self._workflow(known, region, id_, metadata, parts.get(id_, []))

    def _jobs(
        self, project: str, region: str, runs: Sequence[Waiting], since: datetime
    ) -> Iterator[Any]:
        """Yield jobs once each: those submitted since, and those that run from before."""
        oldest = [run.started_at for run in runs if run.started_at is not None]
        begin = min([since - LONGEST, *(moment - HOUR for moment in oldest)])
        clusters = sorted({run.namespace or "" for run in runs})
        if self.everything or len(clusters) > FEW or "" in clusters:
            clusters = [""]
        seen: set[str] = set()
        for cluster in clusters:
            # The times in a filter are of submission, and the API has no "or".
            for condition in (f'insertTime >= "{stamp(begin)}"', "status.state = ACTIVE"):
                request = {
                    "project_id": project,
                    "region": region,
                    "cluster_name": cluster,
                    "page_size": PAGE,
                    "filter": condition,
                }
                for page in self.pages(JOBS, region, "list_jobs", request):
                    for job in page.jobs:
                        if job.reference.job_id not in seen:
                            seen.add(job.reference.job_id)
                            yield job

    def _alone(self, known: _Place, region: str, id_: str) -> Iterator[Figure]:
        """Ask for one that no list had."""
        name = name_of(id_)
        if name is None:
            return
        try:
            if name.kind == "operations":
                # If it is there, no list says what it has become: the next run looks.
                self.ask(JOBS, region, "get_operation", {"name": id_})
                return
            request = {"project_id": name.project, "region": region, "job_id": name.id}
            yield from self._figure(known, region, id_, self.ask(JOBS, region, "get_job", request))
        except NoSuchThing:
            self.gone(id_)
        except VendorError as error:
            if name.kind != "operations":
                raise
            self.missing(str(error))  # the jobs' hours can be split all the same

    def _figure(self, known: _Place, region: str, id_: str, job: Any) -> Iterator[Figure]:
        at = times(job)
        started = at.ran or at.submitted
        word = JOB_ENDS.get(job.status.state)
        if not started or (word and not at.ended):
            self.missing(f"{id_}: its answer has no time in it")
            return
        meters = job_figures(job)
        cluster = job.placement.cluster_name
        yield Figure(
            vendor_id=id_,
            started_at=time_of(started),
            ended_at=time_of(at.ended) if word else None,
            labels=attribution(job.labels),
            operation=kind_of(job, "job"),
            meters=meters,
            error=None if word is None or word == "DONE" else word,
            resource=self.at(region, cluster or None),
            group=self._group(known, region, job, started, at.ended),
            weight=weight(meters),
        )

    def _group(self, known: _Place, region: str, job: Any, started: int, ended: int) -> str:
        """Return the cluster that a job ran on, and remember it for `capacity`."""
        placement = job.placement
        group = group_of(region, placement.cluster_name, placement.cluster_uuid)
        life = known.clusters.get(group) or self._used.get(group)
        if life is None:
            life = Life(placement.cluster_name, region, [(0, Size(0, FORGOTTEN))], [])
        life.saw(started, ended)
        self._used[group] = life
        return group

    def _workflow(
        self, known: _Place, region: str, id_: str, metadata: Any, jobs: Sequence[Any]
    ) -> Iterator[Figure]:
        """Yield a workflow: its time is its own, its work that of its jobs."""
        started, ended = moment(metadata.start_time), moment(metadata.end_time)
        figures = [figure for job in jobs for figure in self._figure(known, region, id_, job)]
        if not started:
            self.missing(f"{id_}: its answer has no time in it")
            return
        done = metadata.state == DONE and ended and all(one.ended_at is not None for one in figures)
        meters: dict[str, int | float | str] = {"jobs": len(figures)}
        for name in JOB_METERS:
            found = [one.meters[name] for one in figures if name in one.meters]
            if found:
                meters[name] = sum(value for value in found if not isinstance(value, str))
        bad = [figure.error for figure in figures if figure.error]
        labels = [figure.labels for figure in figures if figure.labels]
        yield Figure(
            vendor_id=id_,
            started_at=time_of(started),
            ended_at=time_of(ended) if done else None,
            labels=labels[0] if labels else {},
            operation="WORKFLOW",
            meters=meters,
            error=bad[0] if bad else None,
            resource=self.at(region, metadata.cluster_name or None),
            group=figures[0].group if figures else None,
            weight=sum(figure.weight for figure in figures),
        )

    # -- clusters -------------------------------------------------------------------------------

    def _place(self, project: str, region: str) -> _Place:
        if (project, region) in self._known:
            return self._known[project, region]
        within = {"project_id": project, "region": region, "page_size": PAGE}
        clusters = [
            cluster
            for page in self.pages(CLUSTERS, region, "list_clusters", within)
            for cluster in page.clusters
        ]
        request = {"name": f"projects/{project}/regions/{region}/operations", "page_size": PAGE}
        operations: list[Any] = []
        try:
            for page in self.pages(JOBS, region, "list_operations", request):
                operations += page.operations
        except VendorError as error:
            self.missing(f"clusters that are gone, and workflows, are not known ({error})")
        found = self._sorted(project, region, operations, clusters)
        self._known[project, region] = found
        if self.everything:
            self._used.update(found.clusters)
        return found

    def _sorted(
        self, project: str, region: str, operations: Sequence[Any], clusters: Sequence[Any]
    ) -> _Place:
        of_clusters: list[tuple[Any, Any]] = []
        workflows: dict[str, Any] = {}
        steps: dict[str, str] = {}
        submitted: dict[str, str] = {}
        kinds = {
            "ClusterOperationMetadata": self.library.ClusterOperationMetadata,
            "WorkflowMetadata": self.library.WorkflowMetadata,
            "JobMetadata": self.library.JobMetadata,
        }
        for operation in operations:
            kind = operation.metadata.type_url.rpartition(".")[2]
            if kind not in kinds:
                continue
            metadata = self._read(kinds[kind], operation.metadata.value)
            if kind == "WorkflowMetadata":
                workflows[operation.name] = metadata
                for node in metadata.graph.nodes:
                    if node.job_id:
                        steps[job_name(project, region, node.job_id)] = operation.name
            elif kind == "JobMetadata":
                submitted[job_name(project, region, metadata.job_id)] = operation.name
            else:
                after = operation.response
                is_cluster = after.type_url.endswith(".Cluster")
                cluster = self._read(self.library.Cluster, after.value) if is_cluster else None
                of_clusters.append((metadata, cluster))
        sizes = self.options.machine_types
        found = lives(region, clusters, of_clusters, lambda cluster: size_of(cluster, sizes))
        return _Place(found, workflows, steps, submitted)

    def _read(self, kind: Any, value: bytes) -> Any:
        return kind.pb(kind.deserialize(value))

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the hours of the clusters in use, as far as they were up, cut where they changed."""
        for group, life in self._used.items():
            place = self.at(life.region, life.name)
            for start, end, size in life.stretches(since, until):
                stretch = Stretch(
                    group=group, started_at=time_of(start), ended_at=time_of(end), resource=place
                )
                if size.unknown:
                    self.missing(
                        f"{life.name}: {size.unknown}; its hours have no price, unless a "
                        "[[capacity]] says one"
                    )
                    yield stretch
                    continue
                used = Decimal(size.vcpus * (end - start)) / SECOND
                yield msgspec.structs.replace(stretch, quantity=used, meter="vcpu_seconds")
                if size.lightning:
                    yield msgspec.structs.replace(
                        stretch, quantity=used, meter="lightning_vcpu_seconds"
                    )
                if self.options.compute_engine:
                    yield stretch
