"""EMR on EC2's history: clusters with their steps and instances, and the hours of the latter.

No API says what a step has cost. A cluster is paid for by the machine and the second, EC2's price
and EMR's on top; each piece of its time is split over the steps that ran in it: by executor
core-seconds where somebody has counted them (`core_seconds`), otherwise by time. What no step used
is a row of its own. A cluster that some charge waits for is read whole, because what ran beside a
step decides about its share: three lists, whatever the number of its steps.

A machine on the spot market has the price of EC2's own history, where asking for that is switched on
(`spot_history`), or else the one that the price book says for ``market = "spot"``; where neither is
known EMR's part is still split, and the report says what is missing. EBS volumes are not in these
answers.

Calls and fields: docs.aws.amazon.com/emr/latest/APIReference. EMR keeps clusters for two months, and
lists machines that are gone for 30 days, 2,000 of a cluster at most.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.asking import NoSuchThing
from costinsights.records import Resource
from costinsights.settlement.aws import AWSHistory, AWSOptions
from costinsights.settlement.aws_emr_files import numbers_in
from costinsights.settlement.aws_emr_hours import Machine, Slice, machine_of, slices
from costinsights.settlement.aws_emr_spot import Prices, prices_in
from costinsights.settlement.history import Figure, Plan, Stretch
from costinsights.systems.aws_emr import (
    CLUSTER_ENDS,
    GOOD,
    METERS,
    STEP_ENDS,
    STEP_WAITS,
    SYSTEM,
    applications,
    cluster_meters,
    cluster_of,
    numbered,
    state_of,
    step_meters,
    times_of,
)
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.jobs import Waiting

NO_SUCH_CLUSTER = ("InvalidRequestException",)
"""EMR's word for a cluster that it does not know, or no longer; our requests have no other fault."""
NEXT = "Marker"
MOST_MACHINES = 2000
MOMENT = timedelta(microseconds=1)
EC2, EMR = "ec2_instance_seconds", "emr_instance_seconds"


class EMROptions(AWSOptions, frozen=True, forbid_unknown_fields=True):
    """``[settle."aws.emr"]``. Credentials are boto3's own."""

    core_seconds: str = ""
    """A JSON file, ``{"application_1700000000000_0001": core-seconds}``: the executor core-seconds
    of YARN's applications, as Spark's event logs tell them. A step's own id may stand there too."""
    spot_history: bool = False
    """Whether to ask ``ec2:DescribeSpotPriceHistory`` what machines on the spot market cost."""


class Cluster(NamedTuple):
    """What EMR says of a cluster."""

    id: str
    region: str
    found: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    """The first one first."""
    machines: Sequence[Machine]
    problem: str
    """Why its hours cannot be told."""


class EMRHistory(AWSHistory):
    """Reads one account, in one region or several."""

    system = SYSTEM
    client_name = "emr"
    by_id = True
    retention = timedelta(days=30)
    grants = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": ['
        '"elasticmapreduce:DescribeCluster", "elasticmapreduce:ListSteps", '
        '"elasticmapreduce:ListInstances", "elasticmapreduce:ListClusters"]}]}'
    )
    meters = METERS
    Options = EMROptions
    options: EMROptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._clusters: dict[tuple[str, str], Cluster | None] = {}
        """By region and id; None: EMR does not know it."""
        self._lists: dict[str, Sequence[Mapping[str, Any]]] = {}
        """All clusters by region; a settlement reads twice, the second time from further back."""
        self._counted: Mapping[str, Decimal] = {}
        self._from = datetime.max.replace(tzinfo=timezone.utc)
        """Where the time begins that is settled: steps of before need nobody's counting."""

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what will be asked for; all of it is free."""
        where = ", ".join(self.options.regions) or "the default region"
        clusters = {cluster_of(run.id, run.namespace) for run in self.waiting}
        reads = [
            f"{len(self.pending)} steps and clusters by id in {where}, of {len(clusters)} clusters"
        ]
        if self.everything:
            reads.append(f"each cluster in {where} from {since:%Y-%m-%d %H:%M} UTC on")
        return Plan(tuple(reads))

    def open(self) -> None:
        """Find out which regions to ask, and read what was counted of executors."""
        super().open()
        if self.options.core_seconds:
            self._counted = numbers_in(self.options.core_seconds, self.system)

    # -- reading --------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the steps of each cluster that a charge waits for; with ``--all`` of all clusters."""
        self._from = min(self._from, since)
        for region, waiting in self.by_region(self.waiting).items():
            wanted: dict[str, list[Waiting]] = {}
            for run in waiting:
                id_ = cluster_of(run.id, run.namespace)
                if id_ is None:
                    self.missing(f"of {run.id} nobody has noted the cluster")
                else:
                    wanted.setdefault(id_, []).append(run)
            for id_, runs in wanted.items():
                yield from self._figures(region, id_, runs, since)
        for region in self.regions if self.everything else ():
            for id_ in self._listed(region, since, until):
                yield from self._figures(region, id_, (), since)

    def _listed(self, region: str, since: datetime, until: datetime) -> Iterator[str]:
        if region not in self._lists:
            self._lists[region] = [
                one
                for page in self.pages(region, "list_clusters", token=NEXT, CreatedBefore=until)
                for one in page.get("Clusters") or ()
            ]
        for one in self._lists[region]:
            ended = times_of(one).ended
            if state_of(one) not in CLUSTER_ENDS or ended is None or ended >= since:
                yield one["Id"]

    def _figures(
        self, region: str, id_: str, waiting: Sequence[Waiting], since: datetime
    ) -> Iterator[Figure]:
        key = region, id_
        if key not in self._clusters:
            try:
                self._clusters[key] = self._ask_for(region, id_)
            except NoSuchThing as error:
                self._clusters[key] = None
                for run in waiting:
                    self.gone(run.id, f"{self.system} no longer knows the cluster ({error.code})")
        cluster = self._clusters[key]
        if cluster is None:
            return
        known = {id_}
        weights = self._weights(cluster)
        for number, step in enumerate(cluster.steps, 1):
            name = numbered(id_, number)
            known.update((step.get("Id") or "", name))
            figure = _of_step(cluster, step, name, weights.get(step.get("Id") or "", Decimal(0)))
            if figure is None:
                self.missing(f"a step of {id_} does not say when it was created")
            elif figure.ended_at is None or figure.ended_at >= since:
                yield figure
        whole = _of_cluster(cluster)
        if whole is not None:
            yield whole
        for run in waiting:
            if run.id not in known:
                self.gone(run.id, f"the cluster {id_} has no such step")

    def _ask_for(self, region: str, id_: str) -> Cluster:
        answer = self.ask(region, "describe_cluster", unknown=NO_SUCH_CLUSTER, ClusterId=id_)
        found: Mapping[str, Any] = answer.get("Cluster") or {}
        steps = [
            step
            for page in self.pages(region, "list_steps", token=NEXT, ClusterId=id_)
            for step in page.get("Steps") or ()
        ]
        instances = [
            one
            for page in self.pages(region, "list_instances", token=NEXT, ClusterId=id_)
            for one in page.get("Instances") or ()
        ]
        over = state_of(found) in CLUSTER_ENDS
        ended = times_of(found).ended if over else None
        machines: list[Machine] = []
        problem = ""
        for one in instances:
            machine = machine_of(one, ended)
            if isinstance(machine, str):
                problem = f"the hours of its cluster cannot be told: {machine}"
            elif machine is not None:
                machines.append(machine)
        if not machines and over:
            problem = problem or "EMR lists no instance of its cluster (any more)"
        if len(instances) >= MOST_MACHINES:
            problem = f"EMR lists {MOST_MACHINES} instances of a cluster at most, and it had more"
        # Newest first; those of one moment as they are numbered, which is the list turned round.
        return Cluster(id_, region, found, steps[::-1], machines, problem)

    def _weights(self, cluster: Cluster) -> dict[str, Decimal]:
        """Return the work of each step: core-seconds where all are counted, otherwise seconds."""
        times: dict[str, Decimal] = {}
        counted: dict[str, Decimal] = {}
        for step in cluster.steps:
            id_, (_, started, ended) = step.get("Id") or "", times_of(step)
            if started is None or ended is None or ended < self._from:
                continue
            times[id_] = Decimal(max(0, (ended - started) // MOMENT)) / 10**6
            names = [name for name in (id_, *applications(step)) if name in self._counted]
            if names:
                counted[id_] = sum((self._counted[name] for name in names), Decimal(0))
        if counted and len(counted) < len(times):
            self.missing(
                f"of {len(times) - len(counted)} steps of {cluster.id} nobody has counted executor "
                "core-seconds: all of its steps share by time"
            )
        return counted if counted and len(counted) == len(times) else times

    # -- what was paid for ----------------------------------------------------------------------

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the time of each cluster's machines, by type and market."""
        for cluster in self._clusters.values():
            if cluster is not None and not cluster.problem:
                yield from self._stretches(cluster, since, until)

    def _stretches(self, cluster: Cluster, since: datetime, until: datetime) -> Iterator[Stretch]:
        spot = self._spot(cluster, until)
        for piece in slices(cluster.machines, since, until):
            for (kind, market), used in sorted(piece.used.items()):
                # On demand EC2's price and EMR's come together; on the spot market one is known.
                if market != "spot":
                    yield _stretch(cluster, piece, kind, market, used, "instance_seconds")
                    continue
                yield _stretch(cluster, piece, kind, market, used, EMR)
                known = spot.get(kind)
                hour = None if known is None else known.over(piece.started_at, piece.ended_at)
                yield _stretch(cluster, piece, kind, market, used, EC2, hour)

    def _spot(self, cluster: Cluster, until: datetime) -> Mapping[str, Prices]:
        """Return the prices of the cluster's machines on the spot market, as EC2 knows them."""
        machines = [one for one in cluster.machines if one.market == "spot"]
        place: Mapping[str, Any] = cluster.found.get("Ec2InstanceAttributes") or {}
        zone = place.get("Ec2AvailabilityZone")
        if not machines or not self.options.spot_history or not zone:
            return {}
        try:
            rows = [
                row
                for page in self.pages(
                    cluster.region,
                    "describe_spot_price_history",
                    service="ec2",
                    InstanceTypes=sorted({one.type for one in machines}),
                    ProductDescriptions=["Linux/UNIX"],
                    AvailabilityZone=zone,
                    StartTime=min(one.started_at for one in machines),
                    EndTime=max(one.ended_at or until for one in machines),
                )
                for row in page.get("SpotPriceHistory") or ()
            ]
        except VendorError as error:
            self.missing(f"spot prices of {cluster.id} are not known: {error}")
            return {}
        return prices_in(rows, zone)


def _of_step(
    cluster: Cluster, step: Mapping[str, Any], name: str, weight: Decimal
) -> Figure | None:
    word, times = state_of(step), times_of(step)
    if times.created is None:
        return None
    done = word in STEP_ENDS
    problem = cluster.problem
    if not done and word not in (*STEP_WAITS, "RUNNING", "CANCEL_PENDING"):
        done, problem = True, "a state that nobody knows"
    elif done and times.started is not None and times.ended is None:
        problem = "a step that has ended, without the time of its end"
    ended = times.ended or times.started or times.created
    group = None if problem or (word in STEP_WAITS) else cluster.id
    begun = times.started
    if done and begun is None:  # it never ran; a moment of its cluster, so that it costs nothing
        begun = ended = _within(cluster, ended)
    meters = step_meters(times)
    return Figure(
        vendor_id=step.get("Id"),
        also=(name,),
        becomes=step.get("Id"),
        started_at=min(times.created, begun or times.created),
        ended_at=max(ended, times.created) if done else None,
        worked_from=begun,
        operation="STEP",
        meters=meters,
        problem=problem if done else "",
        error=None if word in GOOD or not done else word,
        resource=_place(cluster),
        group=group,
        weight=weight,
    )


def _of_cluster(cluster: Cluster) -> Figure | None:
    """Return the cluster itself, once it has ended: its hours are its steps' and idle's."""
    word, times = state_of(cluster.found), times_of(cluster.found)
    if times.created is None:
        return None
    done = word in CLUSTER_ENDS
    if not done:
        return Figure(
            vendor_id=cluster.id,
            started_at=times.created,
            ended_at=None,
            operation="CLUSTER",
            resource=_place(cluster),
        )
    last = _within(cluster, times.ended or times.created)
    return Figure(
        vendor_id=cluster.id,
        started_at=min(times.created, last),
        ended_at=last,
        worked_from=last,
        operation="CLUSTER",
        meters=cluster_meters(cluster.found),
        problem=cluster.problem,
        error=None if word in GOOD else word,
        resource=_place(cluster),
        group=None if cluster.problem else cluster.id,
    )


def _within(cluster: Cluster, moment: datetime) -> datetime:
    """Return the moment, or the nearest one in which the cluster had machines."""
    if not cluster.machines:
        return moment
    first = min(one.started_at for one in cluster.machines)
    ends = [one.ended_at for one in cluster.machines if one.ended_at is not None]
    last = max(ends) if len(ends) == len(cluster.machines) else moment
    return max(first, min(moment, last - MOMENT))


def _stretch(
    cluster: Cluster,
    piece: Slice,
    kind: str,
    market: str,
    used: timedelta,
    meter: str,
    hour: Decimal | None = None,
) -> Stretch:
    """Return what machines of one kind were paid for; `hour` is the price that EC2 states of one."""
    seconds = Decimal(used // MOMENT) / 10**6
    return Stretch(
        group=cluster.id,
        started_at=piece.started_at,
        ended_at=piece.ended_at,
        quantity=seconds,
        meter=meter,
        amount=None if hour is None else hour * seconds / 3600,
        currency=None if hour is None else "USD",
        unit_price=None if hour is None else round(hour, 10),
        unit="" if hour is None else "instance-hour",
        source="" if hour is None else "ec2:DescribeSpotPriceHistory",
        apart=meter == EC2,
        resource=_place(cluster),
        dimensions={"instance_type": kind, "market": market},
    )


def _place(cluster: Cluster) -> Resource:
    address = f"elasticmapreduce.{cluster.region}.amazonaws.com"
    return Resource(address, None, cluster.id, None, cluster.region)
