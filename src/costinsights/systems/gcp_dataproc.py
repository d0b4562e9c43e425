"""What Dataproc's `Job` and `Cluster` say: for those who see them pass by, and for who asks for them.

Everything here reads protobuf messages as google-cloud-dataproc 5.32 describes them, those below
the library's own classes (`raw`). Times are in nanoseconds since the epoch.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SYSTEM = "gcp.dataproc"

# JobStatus.State. After an attempt that failed (9) the driver is started again.
RUNNING = 2
JOB_ENDS = {4: "CANCELLED", 5: "DONE", 6: "ERROR"}
JOB_METERS = ("run_time_ms", "attempts", "yarn_vcore_seconds", "yarn_memory_mb_seconds")

# ClusterStatus.State: a cluster that is stopped has no VM that runs; one in ERROR goes on costing
# (cloud.google.com/dataproc/pricing).
STOPPED = 7
LIGHTNING = 2
"""ClusterConfig.Engine."""
LEAST = 60 * 10**9
"""A minute is charged for at least."""

SECOND = 10**9
MILLISECOND = 10**6


def raw(message: Any) -> Any:
    """Return the protobuf message below one of the library's, which is many times as quick to read."""
    kind = message.__class__
    return kind.pb(message) if hasattr(kind, "pb") else message


def got(thing: Any, *names: str) -> Any:
    """Return what lies within a request, which may be a message, a dictionary, or both mixed."""
    for name in names:
        if thing is None:
            return None
        thing = thing.get(name) if thing.__class__ is dict else getattr(thing, name, None)
    return thing


def table_of(thing: Any) -> dict[str, Any] | None:
    """Return what is a dictionary; None for anything else."""
    return cast("dict[str, Any]", thing) if isinstance(thing, dict) else None


def moment(timestamp: Any) -> int:
    """Return a `Timestamp` in nanoseconds; 0 where it says nothing."""
    return int(timestamp.seconds * SECOND + timestamp.nanos)


# --- names ---------------------------------------------------------------------------------------

NAME = re.compile(r"projects/([^/]+)/(?:regions|locations)/([^/]+)/([a-z]+)/(.+)$")


class Name(NamedTuple):
    """What a full name says: ``projects/p/regions/r/jobs/j``."""

    project: str
    region: str
    kind: str
    id: str


def name_of(text: str | None) -> Name | None:
    """Take a full name apart; None where it is none."""
    found = NAME.search(text or "")
    return None if found is None else Name(*found.groups())


def job_name(project: str, region: str, job: str) -> str:
    """Return a job's name as our charges have it: its id is unique in a project and region only."""
    return f"projects/{project}/regions/{region}/jobs/{job}"


# --- jobs ----------------------------------------------------------------------------------------


class Times(NamedTuple):
    """When a job was submitted, first ran and ended, and for how long its driver ran."""

    submitted: int
    ran: int
    ended: int
    running: int


def statuses(job: Any) -> list[Any]:
    """Return all statuses that have a time, the first one first."""
    known = [status for status in job.status_history if moment(status.state_start_time)]
    if moment(job.status.state_start_time):
        known.append(job.status)
    return sorted(known, key=lambda status: moment(status.state_start_time))


def times(job: Any) -> Times:
    """Return the times of a job by its statuses; 0 for what they do not say."""
    every = statuses(job)
    begun = [moment(status.state_start_time) for status in every]
    ran = [at for status, at in zip(every, begun, strict=True) if status.state == RUNNING]
    running = sum(
        begun[at + 1] - begun[at] for at in range(len(every) - 1) if every[at].state == RUNNING
    )
    ended = begun[-1] if every and every[-1].state in JOB_ENDS else 0
    return Times(begun[0] if begun else 0, ran[0] if ran else 0, ended, running)


def job_figures(job: Any) -> dict[str, int | float | str]:
    """Return what a job used. It has no price of its own: it takes its share of the cluster."""
    known = times(job)
    meters: dict[str, int | float | str] = {}
    if known.ended:
        meters["run_time_ms"] = known.running // MILLISECOND
    attempts = sum(status.state == RUNNING for status in statuses(job))
    if attempts:
        meters["attempts"] = attempts
    for theirs, ours in (
        ("vcore_seconds", "yarn_vcore_seconds"),
        ("memory_mb_seconds", "yarn_memory_mb_seconds"),
    ):
        used = sum(
            value
            for application in job.yarn_applications
            if (value := getattr(application, theirs, 0)) > 0  # not in every version
        )
        if used:
            meters[ours] = used
    return meters


def weight(meters: Mapping[str, int | float | str]) -> int:
    """Return a job's work in core-milliseconds, by which the cluster's hours are split.

    YARN's core-seconds where the job has them. Else its driver is taken for one core, for as long
    as it ran: so a cluster whose jobs have none is split by their run time.
    """
    cores = meters.get("yarn_vcore_seconds")
    if isinstance(cores, (int, float)) and cores:
        return int(cores * 1000)
    time = meters.get("run_time_ms", 0)
    return int(time) if isinstance(time, (int, float)) else 0


def kind_of(thing: Any, group: str) -> str:
    """Return ``PYSPARK`` of what has a `pyspark_job`; ``JOB`` where it does not say.

    `group` is how such fields end, and how their group is called: ``job`` of `type_job`.
    """
    suffix = f"_{group}"
    table = table_of(thing)
    if table is not None:
        names: Iterable[str] = table
    elif hasattr(thing, "ListFields"):
        names = (field.name for field, _ in thing.ListFields())
    else:
        return group.upper()
    found = next((name for name in names if name.endswith(suffix)), None)
    return group.upper() if found is None else found.removesuffix(suffix).upper()


# --- clusters ------------------------------------------------------------------------------------

# Compute Engine's names say the number of vCPUs last: n1-standard-4, c3d-highmem-8-lssd; a custom
# machine says vCPUs and megabytes: custom-4-16384, n2-custom-4-16384-ext. The rest is here.
# Source: cloud.google.com/compute/docs/general-purpose-machines
SHARED_CORES = {"f1-micro": 1, "g1-small": 1, "e2-micro": 2, "e2-small": 2, "e2-medium": 2}
_CUSTOM = re.compile(r"(?:[a-z]\w+-)?custom-(\d+)-\d+(?:-ext)?$")
_SIZED = re.compile(r"[a-z]\w+-[a-z]+-(\d+)(?:-(?:lssd|metal|nolssd|standardlssd|highlssd))?$")
# Their last number counts something else: GPUs.
_COUNTS_GPUS = re.compile(r"a[234][a-z]?-")
_MOST = 1024


def vcpus_of(machine: str, own: Mapping[str, int]) -> int | None:
    """Return the vCPUs of a machine type, by its name or URI; None where nobody knows.

    `own` is what the user says, and goes first.
    """
    name = machine.rpartition("/")[2]
    known = own.get(name, SHARED_CORES.get(name))
    if known is not None:
        return known
    found = None if _COUNTS_GPUS.match(name) else _CUSTOM.match(name) or _SIZED.match(name)
    if found is None:
        return None
    number = int(found[1])
    return number if 0 < number <= _MOST else None


class Size(NamedTuple):
    """How large a cluster is."""

    vcpus: int
    """Of all nodes, masters included."""
    unknown: str = ""
    """Why that is not known."""
    lightning: bool = False


def groups(config: Any) -> Iterator[Any]:
    """Yield the `InstanceGroupConfig` of all groups of nodes."""
    yield config.master_config
    yield config.worker_config
    yield config.secondary_worker_config
    for auxiliary in getattr(config, "auxiliary_node_groups", ()):
        yield auxiliary.node_group.node_group_config


def size_of(cluster: Any, own: Mapping[str, int]) -> Size:
    """Return how large a cluster is by its configuration."""
    if cluster.HasField("virtual_cluster_config"):
        return Size(0, "it runs on GKE: the API does not say its nodes")
    total, config = 0, cluster.config
    for group in groups(config):
        policy = getattr(group, "instance_flexibility_policy", None)
        picked = () if policy is None else policy.instance_selection_results
        # Of groups that may have several machine types the API says how many it took of each.
        machines = [(one.machine_type, one.vm_count) for one in picked]
        for machine, count in machines or [(group.machine_type_uri, group.num_instances)]:
            if not count:
                continue
            vcpus = vcpus_of(machine, own)
            if vcpus is None:
                name = machine.rpartition("/")[2] or "no name"
                return Size(0, f"the vCPUs of the machine type {name} are not known")
            total += vcpus * count
    for role in ("master", "worker", "secondary_worker"):
        flexible = getattr(config, f"{role}_flexible_config", None)
        if flexible is not None:
            total += flexible.core_count * max(flexible.num_instances, 1)
    if not total:
        return Size(0, "its configuration does not say its nodes")
    return Size(total, lightning=getattr(config, "engine", 0) == LIGHTNING)


class Uptime(NamedTuple):
    """A time in which a cluster's VMs ran; `end` is None while they do."""

    start: int
    end: int | None


def uptimes(states: Iterable[tuple[int, int]], deleted: int | None = None) -> list[Uptime]:
    """Return when a cluster was charged for, of its states: (since when, which).

    It is from its creation to its deletion, but for the time that it was stopped, and whatever else
    its state was. A stretch of less than a minute is charged for as one.
    """
    found: list[Uptime] = []
    since: int | None = None
    for at, state in sorted(states):
        if not at or (deleted is not None and at >= deleted):
            continue
        if state == STOPPED:
            if since is not None:
                found.append(Uptime(since, max(at, since + LEAST)))
            since = None
        elif since is None:
            since = at
    if since is not None:
        found.append(Uptime(since, None if deleted is None else max(deleted, since + LEAST)))
    return found
