"""What one Spark application did, whoever tells: the driver's listener, its event log, its REST API.

All three count the same tasks, so all three come to the same figures, to the millisecond. What is
charged for is a *unit*: a SQL execution with its jobs or, outside of SQL, one job. Tasks of failed
and repeated stages count, for they had their cores. What executors had of cores and no task used is
the application's own: idle.

Units of measurement: run, deserialisation and GC times are ms, CPU times are ns, moments are ms
since the epoch. Source: https://spark.apache.org/docs/latest/monitoring.html
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from costinsights.attribution import clean_labels
from costinsights.instrumentor import address_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

SYSTEM = "spark"

COUNTED = (
    "executor_run_time_ms",
    "executor_cpu_time_ns",
    "executor_deserialize_time_ms",
    "executor_deserialize_cpu_time_ns",
    "gc_time_ms",
    "input_bytes",
    "output_bytes",
    "shuffle_read_bytes",
    "shuffle_write_bytes",
    "memory_spilled_bytes",
    "disk_spilled_bytes",
    "tasks",
    "failed_tasks",
)
"""What is summed up of tasks; all of them that ran, well or not. Whoever tells, tells in this order."""

ALWAYS = frozenset(("executor_run_time_ms", "executor_cpu_time_ns", "tasks"))
"""Said even where they are 0."""

METERS = (
    "core_seconds",
    *COUNTED,
    "jobs",
    "stages",
    "run_time_ms_by_stage",
    "allocated_core_seconds",
    "busy_core_seconds",
    "executors",
)

MOST_STAGES = 64
"""So many stages of a unit are named one by one, with their run times."""

OURS = "spark.costinsights."
SCOPE = "spark.costinsights.scope"
"""The local property that carries the labels of the enclosing ``attribute(...)``, as JSON."""
EXECUTION = "spark.sql.execution.id"
TAGS = "spark.job.tags"
KEPT = frozenset((EXECUTION, TAGS, "spark.jobGroup.id", "spark.job.description"))
"""Properties of a job that say what it belongs to, beside those that are ours."""

IDLE = "IDLE"
LOST = "LOST"
FAILED = "FAILED"

_OPERATION = re.compile(r"SparkConnect_(?:Execute|Operation)Tag_[^,]*_Operation_([0-9A-Fa-f-]{36})")
"""How Spark Connect tags the jobs of an operation."""

Meters = dict[str, "int | float | str"]

_SQL = re.compile(
    r"\s*(?:/\*.*?\*/\s*)*(?:select|insert|with|create|merge|update|delete|drop|alter|show|describe|"
    r"explain|cache|refresh|analyze|truncate|replace|use|set|load|optimize|vacuum)\b\s*\S",
    re.IGNORECASE | re.DOTALL,
)


class Key(NamedTuple):
    """What a unit is: ``("sql", 3)`` or ``("job", 7)``, by Spark's own numbers."""

    kind: str
    number: int


class Unit:
    """A SQL execution, or a job outside of SQL, and what its tasks have used so far."""

    __slots__ = (
        "by_stage",
        "doubt",
        "ended",
        "error",
        "jobs",
        "key",
        "open",
        "properties",
        "running",
        "stages",
        "started",
        "sums",
    )

    def __init__(self, key: Key, started: int) -> None:
        self.key = key
        self.started = started
        self.ended: int | None = None
        self.error: str | None = None
        self.doubt = ""
        """Why its figures are not whole; empty where they are."""
        self.jobs = 0
        self.open: set[Key] = set()
        """Jobs and the execution that have not ended."""
        self.properties: dict[str, str] = {}
        self.stages: set[int] = set()
        self.running: dict[tuple[int, int], int] = {}
        """By stage and attempt: tasks that run. Some outlive their job: losers of a speculation."""
        self.by_stage: dict[tuple[int, int], int] = {}
        self.sums = [0] * len(COUNTED)

    @property
    def done(self) -> bool:
        """Whether nothing more will come of it."""
        return self.ended is not None and not self.open and not self.running


class Application:
    """One run of a driver: its executors, and its units until they are taken with `finished`."""

    def __init__(
        self,
        id_: str,
        started: int,
        *,
        attempt: str | None = None,
        name: str = "",
        conf: Mapping[str, str] | None = None,
    ) -> None:
        """Take what is known at its start; `conf` may come later, with `configured`."""
        # On YARN in cluster mode an application may be tried again: each attempt has its own numbers.
        self.id = f"{id_}/{attempt}" if attempt else id_
        self.name = name
        self.started = started
        self.ended: int | None = None
        self.latest = started
        """The latest moment that anything was said of."""
        self.master = ""
        self.cpus = 1
        self.properties: dict[str, str] = {}
        self.units: dict[Key, Unit] = {}
        self.sums = [0] * len(COUNTED)
        self.executors: dict[str, list[int | None]] = {}
        """By id: cores, when it was there, when it was no more."""
        self._unit_of: dict[int, Key] = {}
        """The units of stages. A stage belongs to the first job that needs it, as for Spark."""
        self._jobs: dict[int, Key] = {}
        self.configured(conf or {})

    def configured(self, conf: Mapping[str, str]) -> None:
        """Take what matters of the application's configuration, and nothing else."""
        self.master = conf.get("spark.master", self.master)
        self.name = conf.get("spark.app.name", self.name)
        cpus = conf.get("spark.task.cpus", "")
        self.cpus = int(cpus) if cpus.isdigit() and int(cpus) else self.cpus
        self.properties.update(
            (name, value) for name, value in conf.items() if name.startswith(OURS)
        )

    # -- what is told, in the order in which it happens -----------------------------------------

    def sql_started(self, number: int, at: int) -> None:
        """Take note that a SQL execution begins."""
        key = Key("sql", number)
        self._unit(key, at).open.add(key)

    def sql_ended(self, number: int, at: int, *, well: bool) -> None:
        """Take note that a SQL execution has ended."""
        key = Key("sql", number)
        self._ends(self._unit(key, at), key, at, well=well)

    def job_started(
        self, number: int, at: int, stages: Iterable[int], properties: Mapping[str, str]
    ) -> None:
        """Take note that a job begins, with the stages that it may need."""
        execution = properties.get(EXECUTION, "")
        job = Key("job", number)
        key = Key("sql", int(execution)) if execution.isdigit() else job
        unit = self._unit(key, at)
        unit.jobs += 1
        unit.open.add(job)
        unit.properties.update(
            (name, value)
            for name, value in properties.items()
            if name in KEPT or name.startswith(OURS)
        )
        self._jobs[number] = key
        for stage in stages:
            if self._unit_of.setdefault(stage, key) == key:
                unit.stages.add(stage)

    def job_ended(self, number: int, at: int, *, well: bool) -> None:
        """Take note that a job has ended."""
        key = self._jobs.pop(number, None)
        unit = None if key is None else self.units.get(key)
        if unit is not None:
            self._ends(unit, Key("job", number), at, well=well)

    def task_started(self, stage: int, attempt: int) -> None:
        """Take note that a task of a stage runs."""
        unit = self._of_stage(stage)
        if unit is not None:
            unit.running[stage, attempt] = unit.running.get((stage, attempt), 0) + 1

    def task_ended(self, stage: int, attempt: int, sums: Sequence[int]) -> None:
        """Take note that a task has ended, and of what it used."""
        unit = self._of_stage(stage)
        running = 0 if unit is None else unit.running.get((stage, attempt), 0)
        self.used(stage, attempt, sums, max(0, running - 1))

    def used(self, stage: int, attempt: int, sums: Sequence[int], running: int) -> None:
        """Add what tasks of a stage have used; `running` of them still run."""
        unit = self._of_stage(stage)
        for at, value in enumerate(sums):
            self.sums[at] += value
        if unit is None:
            return  # of a job that began before anybody listened: it is no idle time, and no unit's
        for at, value in enumerate(sums):
            unit.sums[at] += value
        if sums[TASKS]:
            unit.by_stage[stage, attempt] = unit.by_stage.get((stage, attempt), 0) + sums[0]
        if running > 0:
            unit.running[stage, attempt] = running
        else:
            unit.running.pop((stage, attempt), None)

    def doubt(self, stage: int, reason: str) -> None:
        """Take note that something of a stage could not be read."""
        unit = self._of_stage(stage)
        if unit is not None:
            unit.doubt = unit.doubt or reason

    def executor_added(self, id_: str, at: int, cores: int) -> None:
        """Take note of an executor; of the driver in local mode as well."""
        self._seen(at)
        known = self.executors.get(id_)
        if known is None:
            self.executors[id_] = [cores, at, None]
        else:
            known[0] = max(cores, known[0] or 0)
            known[1] = min(at, known[1] or at)

    def executor_removed(self, id_: str, at: int) -> None:
        """Take note that an executor has gone."""
        self._seen(at)
        if id_ in self.executors:
            self.executors[id_][2] = at

    def end(self, at: int) -> None:
        """Take note that the application has ended, and with it whatever was still under way."""
        self._seen(at)
        self.ended = at
        for unit in self.units.values():
            if unit.ended is None or unit.open:
                unit.ended, unit.error = at, unit.error or LOST
            unit.open.clear()
            unit.running.clear()

    # -- what came of it ------------------------------------------------------------------------

    def finished(self) -> Iterator[Unit]:
        """Yield the units that are done, each once; nothing of them is kept."""
        for unit in [unit for unit in self.units.values() if unit.done]:
            del self.units[unit.key]
            for stage in unit.stages:
                self._unit_of.pop(stage, None)
            yield unit

    def vendor_id(self, unit: Unit | None = None) -> str:
        """Return the id of a unit's charge, or of the one for what was idle: the application's."""
        return self.id if unit is None else f"{self.id}/{unit.key.kind}/{unit.key.number}"

    def meters(self, unit: Unit) -> Meters:
        """Return what a unit has used."""
        found: Meters = {"core_seconds": seconds(unit.sums[0] * self.cpus)}
        found.update(
            (name, value)
            for name, value in zip(COUNTED, unit.sums, strict=True)
            if value or name in ALWAYS
        )
        found["jobs"], found["stages"] = unit.jobs, len(unit.by_stage)
        if unit.by_stage:
            stages = sorted(unit.by_stage.items())[:MOST_STAGES]
            found["run_time_ms_by_stage"] = " ".join(
                f"{stage}.{attempt}={run}" for (stage, attempt), run in stages
            )
        return found

    def idle(self, until: int) -> Meters:
        """Return the core-seconds that executors had until then and no task used."""
        allocated = 0
        for cores, added, removed in self.executors.values():
            gone = until if removed is None else min(removed, until)
            allocated += (cores or 0) * max(0, gone - (added or 0))
        used = self.sums[0] * self.cpus
        return {
            "core_seconds": seconds(max(0, allocated - used)),
            "allocated_core_seconds": seconds(allocated),
            "busy_core_seconds": seconds(used),
            "executors": sum(1 for cores, *_ in self.executors.values() if cores),
        }

    def labels(self, unit: Unit | None = None) -> dict[str, str]:
        """Return who a unit is for, as far as Spark itself has been told."""
        return labels({} if unit is None else unit.properties, self.properties)

    def text(self, unit: Unit) -> str | None:
        """Return the statement, where the description is one, as of a Thrift server."""
        return statement(unit.properties)

    def operations(self, unit: Unit) -> tuple[str, ...]:
        """Return the id of the Spark Connect operation that a unit belongs to, if it does."""
        return tuple(dict.fromkeys(_OPERATION.findall(unit.properties.get(TAGS, ""))))

    def address(self) -> tuple[str | None, int | None]:
        """Return where the cluster is: the master's host and port, or ``local``, ``yarn``."""
        master = self.master.removeprefix("k8s://")
        if "://" not in master:
            return (re.split(r"[\[:,]", master, maxsplit=1)[0] or None), None
        try:
            return address_of(master.partition(",")[0])
        except ValueError:
            return None, None

    # -- within ---------------------------------------------------------------------------------

    def _unit(self, key: Key, at: int) -> Unit:
        self._seen(at)
        found = self.units.get(key)
        if found is None:
            found = self.units[key] = Unit(key, at)
        return found

    def _of_stage(self, stage: int) -> Unit | None:
        key = self._unit_of.get(stage)
        return None if key is None else self.units.get(key)

    def _ends(self, unit: Unit, what: Key, at: int, *, well: bool) -> None:
        self._seen(at)
        unit.open.discard(what)
        if what == unit.key:
            # A job that failed is no failed execution: Spark may have gone another way.
            unit.ended, unit.error = at, None if well else FAILED

    def _seen(self, at: int) -> None:
        self.latest = max(self.latest, at)


TASKS = COUNTED.index("tasks")


def seconds(milliseconds: int) -> int | float:
    """Return ms as seconds, whole where they are: exact to the ms as long as they fit a float."""
    whole, rest = divmod(milliseconds, 1000)
    return milliseconds / 1000 if rest else whole


def statement(properties: Mapping[str, str]) -> str | None:
    """Return a description that is a statement."""
    description = properties.get("spark.job.description", "")
    return description if _SQL.match(description) else None


def labels(properties: Mapping[str, str], conf: Mapping[str, str]) -> dict[str, str]:
    """Return who work is for, strongest first: scope, job's properties, group, application's.

    ``spark.costinsights.asset``, ``….team`` and so on are labels, as local properties of a job or
    in the application's configuration.
    """
    found = {
        **_named(conf),
        "job_group": properties.get("spark.jobGroup.id"),
        "description": None if statement(properties) else properties.get("spark.job.description"),
        **_named(properties),
        **scope_of(properties),
    }
    return clean_labels({name: value for name, value in found.items() if value})


def scope_of(properties: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of the scope that a job was started in."""
    from json import loads  # not for programs that have no Spark

    try:
        found: object = loads(properties.get(SCOPE) or "{}")
    except (ValueError, RecursionError):
        return {}
    return clean_labels(cast("dict[str, Any]", found)) if isinstance(found, dict) else {}


def _named(properties: Mapping[str, str]) -> dict[str, str]:
    return {
        name[len(OURS) :]: value
        for name, value in properties.items()
        if name.startswith(OURS) and name != SCOPE
    }
