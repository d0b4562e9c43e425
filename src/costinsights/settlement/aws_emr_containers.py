"""EMR on EKS's history: job runs by their ids, and an estimate of what their pods were charged.

EMR tells nothing of what a run has used. Its price, an uplift on vCPUs and memory that the pods
request, is rebuilt from the run's own Spark properties and its time from creation to end; with
Spark's event log at hand, from the seconds that executors really lived (`executor_seconds`). The
charge is `estimated`, and ``unknown`` with the reason where the properties do not say enough. EKS,
and the machines or Fargate below it, are charged for apart.

Several runs of one virtual cluster are read from its list, which tells as much of each.

Calls and fields: docs.aws.amazon.com/emr-on-eks/latest/APIReference.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights.asking import NoSuchThing
from costinsights.records import Resource
from costinsights.settlement.aws import AWSHistory, AWSOptions
from costinsights.settlement.aws_emr_files import numbers_in
from costinsights.settlement.history import Figure, Plan
from costinsights.systems.aws_emr_containers import (
    BILLED,
    ENDS,
    METERS,
    NEVER_RAN,
    STATES,
    SYSTEM,
    Unknown,
    attempts_of,
    is_python,
    meters_of,
    pods,
    properties,
    sizes,
    times_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from decimal import Decimal

    from costinsights.jobs import Waiting

FEW = 3
"""So many runs of a virtual cluster are asked for one by one; more are read from its list."""
NEXT = "nextToken"
LONGEST = timedelta(days=7)
"""How long a run may have gone on to be found with ``--all``."""


class EMRContainersOptions(AWSOptions, frozen=True, forbid_unknown_fields=True):
    """``[settle."aws.emr_containers"]``. Credentials are boto3's own."""

    virtual_clusters: tuple[str, ...] = ()
    """Ids of those that ``--all`` reads; by default all of a region."""
    defaults: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Spark properties that hold where a run does not say: those of your image."""
    executor_seconds: str = ""
    """A JSON file, ``{"job run id": seconds}``: how long all executors of a run have lived together,
    as Spark's event log tells it."""


class EMRContainersHistory(AWSHistory):
    """Reads one account, in one region or several."""

    system = SYSTEM
    client_name = "emr-containers"
    by_id = True
    grants = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": ['
        '"emr-containers:DescribeJobRun", "emr-containers:ListJobRuns", '
        '"emr-containers:ListVirtualClusters"]}]}'
    )
    meters = METERS
    Options = EMRContainersOptions
    options: EMRContainersOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._seen: set[tuple[str, str]] = set()
        self._counted: Mapping[str, Decimal] = {}

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what will be asked for; all of it is free."""
        where = ", ".join(self.options.regions) or "the default region"
        groups = {run.namespace for run in self.waiting}
        reads = [f"{len(self.pending)} job runs of {len(groups)} virtual clusters, in {where}"]
        if self.everything:
            which = ", ".join(self.options.virtual_clusters) or "each virtual cluster"
            reads.append(f"job runs of {which} back to {since:%Y-%m-%d %H:%M} UTC, in {where}")
        return Plan(tuple(reads))

    def open(self) -> None:
        """Find out which regions to ask, and read what was counted of executors."""
        super().open()
        if self.options.executor_seconds:
            self._counted = numbers_in(self.options.executor_seconds, self.system)

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the runs that charges wait for and, with ``--all``, all runs of the time."""
        for region, waiting in self.by_region(self.waiting).items():
            clusters: dict[str, list[Waiting]] = {}
            for run in waiting:
                if run.namespace is None:
                    self.missing(f"of {run.id} nobody has noted the virtual cluster")
                else:
                    clusters.setdefault(run.namespace, []).append(run)
            for cluster, runs in clusters.items():
                yield from self._wanted(region, cluster, runs)
        for region in self.regions if self.everything else ():
            for cluster in self._clusters(region):
                for found in self._listed(region, cluster, since - LONGEST, until):
                    _, finished = times_of(found)
                    if finished is None or finished >= since:
                        yield from self._once(region, cluster, found)

    # -- asking ---------------------------------------------------------------------------------

    def _wanted(self, region: str, cluster: str, runs: Sequence[Waiting]) -> Iterator[Figure]:
        left = {run.id for run in runs if (region, run.id) not in self._seen}
        moments = [run.started_at for run in runs if run.started_at is not None]
        if len(left) > FEW and len(moments) == len(runs):
            first, last = min(moments) - timedelta(hours=1), max(moments) + timedelta(hours=1)
            for run in self._listed(region, cluster, first, last):
                if run.get("id") in left and run.get("jobDriver"):
                    left.discard(run["id"])
                    yield from self._once(region, cluster, run)
        for id_ in sorted(left):
            try:
                answer = self.ask(region, "describe_job_run", id=id_, virtualClusterId=cluster)
            except NoSuchThing as error:
                self.gone(id_, f"{self.system} no longer knows it ({error.code})")
                continue
            yield from self._once(region, cluster, answer.get("jobRun") or {})

    def _listed(
        self, region: str, cluster: str, since: datetime, until: datetime
    ) -> Iterator[Mapping[str, Any]]:
        for page in self.pages(
            region,
            "list_job_runs",
            token=NEXT,
            virtualClusterId=cluster,
            createdAfter=since,
            createdBefore=until,
        ):
            yield from page.get("jobRuns") or ()

    def _clusters(self, region: str) -> Iterator[str]:
        if self.options.virtual_clusters:
            yield from self.options.virtual_clusters
            return
        for page in self.pages(region, "list_virtual_clusters", token=NEXT):
            for one in page.get("virtualClusters") or ():
                yield one["id"]

    # -- one run --------------------------------------------------------------------------------

    def _once(self, region: str, cluster: str, run: Mapping[str, Any]) -> Iterator[Figure]:
        id_ = run.get("id") or ""
        if (region, id_) in self._seen:
            return
        self._seen.add((region, id_))
        created, finished = times_of(run)
        if created is None:
            self.missing(f"the answer about {id_} does not say when it was created")
            return
        word = run.get("state")
        done = word in ENDS or word not in STATES
        meters, problem = self._estimate(id_, run, created, finished)
        if done and word not in STATES:
            problem = "a state that nobody knows"
        yield Figure(
            vendor_id=id_,
            started_at=created,
            ended_at=(finished or datetime.now(timezone.utc)) if done else None,
            operation="JOB",
            meters=meters,
            billed=tuple(name for name in BILLED if name in meters),
            basis="estimated",
            problem=problem if done else "",
            error=None if word == "COMPLETED" or not done else str(word),
            resource=Resource(
                f"emr-containers.{region}.amazonaws.com", None, cluster, None, region
            ),
        )

    def _estimate(
        self, id_: str, run: Mapping[str, Any], created: datetime, finished: datetime | None
    ) -> tuple[dict[str, int | float | str], str]:
        """Return what a run must have been charged for, or why that cannot be told."""
        meters: dict[str, int | float | str] = dict(attempts_of(run))
        driver = run.get("jobDriver")
        found = {
            **self.options.defaults,
            **properties(driver, run.get("configurationOverrides")),
        }
        if finished is None:
            return meters, "a run that has ended, without the time of its end"
        lived = max(finished - created, timedelta(0))
        meters["run_seconds"] = lived.total_seconds()
        if run.get("failureReason") in NEVER_RAN:
            return meters, f"it failed before it had pods ({run['failureReason']})"
        try:
            size = pods(found, python=is_python(driver))
            meters.update(sizes(size))
            meters.update(meters_of(size, lived, self._counted.get(id_)))
        except Unknown as error:
            return meters, str(error)
        return meters, ""
