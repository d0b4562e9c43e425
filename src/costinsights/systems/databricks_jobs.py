"""What Databricks' Jobs and Pipelines APIs say of a run: its end, its size, its time; never its DBUs.

Fields and states: databricks-sdk 0.156, `databricks.sdk.service.jobs` and `.pipelines`. Times are in
milliseconds. What is billed stands in ``system.billing.usage`` alone, hours later; until then there
is the time of the tasks, and how many nodes of which type their clusters were asked to have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from costinsights.instrumentor import UNPRICED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Meters = dict[str, int | float | str]

SYSTEM = "databricks.jobs"
METERS = (
    "node_seconds",
    "least_node_seconds",
    "most_node_seconds",
    "cluster_seconds",
    "serverless_seconds",
    "all_purpose_seconds",
    "task_seconds",
    "tasks",
    "run_seconds",
    "queue_seconds",
    "nodes",
    "least_nodes",
    "most_nodes",
)
"""`node_seconds` is all of a run: it is there only where all its tasks ran on clusters of its own
whose size is fixed and of one node type. `task_seconds` and `tasks` count all attempts."""

LIFE_ENDS = frozenset(("TERMINATED", "SKIPPED", "INTERNAL_ERROR"))
GOOD = frozenset(("SUCCESS", "SUCCEEDED", "SUCCESS_WITH_FAILURES", "COMPLETED", "TERMINATED"))
UPDATE_ENDS = frozenset(("COMPLETED", "FAILED", "CANCELED"))
DURATIONS = ("setup_duration", "execution_duration", "cleanup_duration")
# Tasks that use no cluster of the job: a warehouse, another run or update, or nothing.
ELSEWHERE = (
    "sql_task",
    "run_job_task",
    "pipeline_task",
    "condition_task",
    "for_each_task",
    "dashboard_task",
    "alert_task",
    "power_bi_task",
    "dbt_cloud_task",
    "dbt_platform_task",
)


def ended(run: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Tell whether a run is over, and Databricks' word for an end that is not a good one."""
    status, state = part(run, "status"), part(run, "state")
    life = state.get("life_cycle_state")
    if life not in LIFE_ENDS and status.get("state") != "TERMINATED":
        return False, None
    said = state.get("result_state") or part(status, "termination_details").get("code") or life
    return True, said if isinstance(said, str) and said not in GOOD else None


def elapsed(run: Mapping[str, Any]) -> int | None:
    """Return the nanoseconds from start to end, by Databricks' clock."""
    span = _between(run.get("start_time"), run.get("end_time"))
    return None if not span else span * 10**6


def figures(run: Mapping[str, Any]) -> Meters:
    """Return what a run used, as far as a `Run` says. ``unpriced`` says why there is no price."""
    clusters = _Clusters(run)
    for task in _tasks(run):
        clusters.add(task)
    return {**_times(run), **clusters.meters()}


def size(tasks: object) -> Meters:
    """Return the nodes that a one-time run is to have, of the tasks of a `runs/submit`."""
    found = [
        spec
        for task in _each(tasks)
        if (spec := part(task, "new_cluster")) and nodes_of(spec) is not None
    ]
    if not found:
        return {}
    several = [nodes_of(spec) or (0, 0) for spec in found]
    return {**_nodes(several, ""), **_kinds(found)}


def update_ended(update: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Tell whether a pipeline's update is over, and how, where that was not well."""
    word = update.get("state")
    return word in UPDATE_ENDS, None if word in GOOD else str(word)


def update_figures(update: Mapping[str, Any]) -> Meters:
    """Return what an `UpdateInfo` says of its compute; it has no end and no figure."""
    config = part(update, "config")
    said: Meters = {}
    if isinstance(edition := config.get("edition"), str):
        said["edition"] = edition.lower()
    for name in ("serverless", "photon"):
        if isinstance(config.get(name), bool):
            said[name] = int(config[name])
    return {**said, UNPRICED: "the API tells no DBUs of an update: settle databricks.jobs"}


def nodes_of(cluster: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the least and the most nodes of a cluster, its driver included."""
    workers = _whole(cluster.get("num_workers"))
    scale = part(cluster, "autoscale")
    least, most = _whole(scale.get("min_workers")), _whole(scale.get("max_workers"))
    if least is not None and most is not None:
        return least + 1, most + 1
    return None if workers is None else (workers + 1, workers + 1)


def node_type(cluster: Mapping[str, Any]) -> str | None:
    """Return the type of all nodes of a cluster; with Photon it has other DBUs, and says so."""
    workers = cluster.get("node_type_id")
    driver = cluster.get("driver_node_type_id") or workers
    if not isinstance(workers, str) or driver != workers:
        return None
    return f"{workers} photon" if is_photon(cluster) else workers


def is_photon(cluster: Mapping[str, Any]) -> bool:
    """Tell whether a cluster runs Photon, by its engine or, of old ones, by its version."""
    engine = cluster.get("runtime_engine")
    return engine == "PHOTON" or (not engine and "-photon-" in str(cluster.get("spark_version")))


def part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return what lies within an answer, or an empty one."""
    found = whole.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


class _Cluster(NamedTuple):
    spec: Mapping[str, Any]
    began: int
    ended: int


class _Clusters:
    """Sums up tasks by what they ran on. Tasks may share a cluster, which is there but once."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        self._shared = {
            one.get("job_cluster_key"): part(one, "new_cluster")
            for one in _each(run.get("job_clusters"))
        }
        self._own: dict[object, _Cluster] = {}
        self._sums: Meters = {}
        self._unclear = ""

    def add(self, task: Mapping[str, Any]) -> None:
        """Take a task's run, an attempt of it."""
        time = seconds(task)
        if time is None:
            self._unclear = "a task's times are not numbers"
            return
        self._sum("tasks", 1)
        self._sum("task_seconds", time)
        spec = part(task, "new_cluster") or self._shared.get(task.get("job_cluster_key")) or {}
        if spec or task.get("job_cluster_key"):
            self._on_its_own(task, spec)
        elif task.get("existing_cluster_id"):
            self._sum("all_purpose_seconds", time)
        elif not any(task.get(kind) for kind in ELSEWHERE):
            self._sum("serverless_seconds", time)

    def _sum(self, meter: str, more: float) -> None:
        total = cast("float", self._sums.get(meter, 0)) + more
        self._sums[meter] = int(total) if total == int(total) else total

    def _on_its_own(self, task: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
        cluster = part(task, "cluster_instance").get("cluster_id")
        key = cluster or task.get("job_cluster_key") or task.get("run_id")
        began, over = _whole(task.get("start_time")) or 0, _whole(task.get("end_time")) or 0
        known = self._own.get(key)
        if known is not None:
            began, over = min(began, known.began), max(over, known.ended)
        self._own[key] = _Cluster(spec, began, max(began, over))

    def meters(self) -> Meters:
        """Return all that is known, and why it is not all that would be needed."""
        found, why = dict(self._sums), self._unclear
        times = {key: (one.ended - one.began) / 1000 for key, one in self._own.items()}
        nodes = {key: nodes_of(one.spec) for key, one in self._own.items()}
        specs = [one.spec for one in self._own.values()]
        if times:
            found["cluster_seconds"] = _plain(sum(times.values()))
            found.update(_kinds(specs))
        sized = [(pair, times[key]) for key, pair in nodes.items() if pair is not None]
        if sized:
            each = [(least * time, most * time) for (least, most), time in sized]
            found.update(_nodes(each, "_seconds"))
        for amiss, reason in (
            (found.get("all_purpose_seconds"), "tasks ran on an all-purpose cluster"),
            (found.get("serverless_seconds"), "tasks ran on serverless compute"),
            (len(sized) < len(nodes), "nothing says how many nodes a cluster had"),
            (times and "node_type" not in found, "its nodes are of several types, or of none"),
            (sized and "node_seconds" not in found, "its clusters scale by themselves"),
        ):
            why = why or (reason if amiss else "")
        if why:
            found.pop("node_seconds", None)
            found[UNPRICED] = f"{why}: settle databricks.jobs"
        return found


def seconds(task: Mapping[str, Any]) -> float | None:
    """Return how long a task ran, setup and cleanup included; None where an answer is malformed."""
    spans = [task.get(name) for name in DURATIONS]
    if any(span is not None and _whole(span) is None for span in spans):
        return None
    total = sum(_whole(span) or 0 for span in spans)
    if not total:
        between = _between(task.get("start_time"), task.get("end_time"))
        if between is None:
            return None
        total = between
    return total / 1000


def _tasks(run: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the tasks of a run; one in the format of a single task is its own."""
    tasks = run.get("tasks")
    if tasks:
        yield from _each(tasks)
    elif part(run, "cluster_spec"):
        yield {**run, **part(run, "cluster_spec")}


def _times(run: Mapping[str, Any]) -> Meters:
    span = _between(run.get("start_time"), run.get("end_time"))
    found: Meters = {} if span is None else {"run_seconds": _plain(span / 1000)}
    if queued := _whole(run.get("queue_duration")):
        found["queue_seconds"] = _plain(queued / 1000)
    return found


def _nodes(several: Iterable[tuple[float, float]], unit: str) -> Meters:
    """Return nodes, or the time of nodes: one figure where least and most are the same."""
    least, most = (_plain(sum(side)) for side in zip(*several, strict=True))
    if least == most:
        return {f"node{unit}" if unit else "nodes": least}
    return {f"least_node{unit or 's'}": least, f"most_node{unit or 's'}": most}


def _kinds(clusters: Iterable[Mapping[str, Any]]) -> Meters:
    """Return node type and workload, where all clusters have the same."""
    specs = list(clusters)
    types = {node_type(spec) for spec in specs}
    photon = {is_photon(spec) for spec in specs}
    found: Meters = {}
    if len(types) == 1 and (only := types.pop()) is not None:
        found["node_type"] = only
    if len(photon) == 1:
        found["workload"] = "jobs_photon" if photon.pop() else "jobs"
    return found


def _each(several: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(several, list):
        for one in cast("list[object]", several):
            if isinstance(one, dict):
                yield cast("Mapping[str, Any]", one)


def _between(start: object, end: object) -> int | None:
    began, over = _whole(start), _whole(end)
    return None if began is None or not over or over < began else over - began


def _whole(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value
