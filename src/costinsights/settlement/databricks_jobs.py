"""What Databricks' jobs and pipelines cost: ``system.billing.usage`` by run, at list prices.

On job clusters and on serverless compute, each record of the bill names its run (``job_run_id``) or
its update of a pipeline (``dlt_update_id``): their DBUs, all record types added up, so that
corrections net out, times the list price of the time, are what the run was billed. All attempts and
repairs of a run are in it.

An all-purpose cluster is billed by itself and names no run. An hour of it is split over the tasks of
jobs that ran on it in that hour, by their time; what is left, idle or used by people, is a row of
its own. When runs began and ended, and on which clusters, is in ``system.lakeflow``; without that
schema there is only the bill, and all-purpose clusters are left out.

Tables and columns: docs.databricks.com, admin/system-tables (billing, pricing, jobs).
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights.asking import NoSuchThing, batches, patiently
from costinsights.records import Resource
from costinsights.settlement.databricks_tables import (
    DeniedError,
    SystemTables,
    TableOptions,
    TooLargeError,
    UnreadableError,
    dimensions,
    filled,
    literal,
    moment,
    only,
    tags_of,
)
from costinsights.settlement.history import Figure, Plan, Stated, Stretch
from costinsights.systems.databricks_jobs import GOOD, SYSTEM
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from costinsights.jobs import Waiting
    from costinsights.settlement.databricks_tables import ListPrices, Row
    from costinsights.settlement.history import Meters

BEFORE = timedelta(days=7)
"""So long before the time that is settled, or before the oldest run that waits, a run of it may have
begun: further back nothing is read."""
IDS = 5000
"""Ids in one query."""
OLD = timedelta(days=1)
"""A run that no table has heard of for so long is asked for by itself: is it known at all?"""
MOST_ASKED = 100
"""So many in one settlement."""
NOTHING = (
    "system.billing.usage has nothing of it: it used warehouses, whose charges they are, or nothing"
)
NO_QUANTITY = "a record of system.billing.usage has no quantity"
SEVERAL = "its tasks ran on several all-purpose clusters"
ID = "coalesce(usage_metadata.job_run_id, usage_metadata.dlt_update_id)"
OPERATIONS = {"SUBMIT_RUN": "SUBMIT RUN"}

RUNS = """
SELECT run_id, job_id, max(run_name), max(run_type), unix_micros(min(period_start_time)),
       unix_micros(max(period_end_time)), max_by(coalesce(result_state, ''), period_end_time)
FROM system.lakeflow.job_run_timeline
WHERE period_end_time > TIMESTAMP '{earliest}'{workspaces}
GROUP BY 1, 2
HAVING {which}
/* {mark} */
"""
UPDATES = """
SELECT update_id, pipeline_id, max(pipeline_id), 'UPDATE', unix_micros(min(period_start_time)),
       unix_micros(max(period_end_time)), max_by(coalesce(result_state, ''), period_end_time)
FROM system.lakeflow.pipeline_update_timeline
WHERE period_end_time > TIMESTAMP '{earliest}'{workspaces}
GROUP BY 1, 2
HAVING {which}
/* {mark} */
"""
WITHIN = (
    "min(period_start_time) < TIMESTAMP '{until}' AND max(period_end_time) > TIMESTAMP '{since}'"
)
TASKS = """
SELECT job_run_id, array_join(compute_ids, ','), unix_micros(min(period_start_time)),
       unix_micros(max(period_end_time))
FROM system.lakeflow.job_task_run_timeline
WHERE period_end_time > TIMESTAMP '{earliest}' AND size(compute_ids) > 0{workspaces}
GROUP BY job_run_id, run_id, compute_ids
HAVING {which}
/* {mark} */
"""
USAGE = """
SELECT {id}, max(usage_metadata.job_id), max(usage_metadata.dlt_pipeline_id),
       max(coalesce(usage_metadata.job_name, usage_metadata.run_name)),
       max(identity_metadata.run_as), max(to_json(custom_tags)), usage_metadata.node_type,
       unix_micros(usage_start_time), unix_micros(usage_end_time), sku_name, cloud, usage_unit,
       sum(usage_quantity)
FROM system.billing.usage
WHERE usage_date >= DATE '{earliest}'{workspaces}
  AND {which}
GROUP BY {id}, usage_metadata.node_type, usage_start_time, usage_end_time, sku_name, cloud,
         usage_unit
/* {mark} */
"""
BILLED = """{id} IN (
    SELECT {id} FROM system.billing.usage
    WHERE usage_date >= DATE '{first}' AND usage_date <= DATE '{last}'
      AND usage_start_time < TIMESTAMP '{until}' AND usage_end_time > TIMESTAMP '{since}'
  )"""
CLUSTERS = """
SELECT usage_metadata.cluster_id, unix_micros(usage_start_time), unix_micros(usage_end_time),
       sku_name, cloud, usage_unit, sum(usage_quantity)
FROM system.billing.usage
WHERE usage_date >= DATE '{first}' AND usage_date <= DATE '{last}'
  AND usage_start_time < TIMESTAMP '{until}' AND usage_end_time > TIMESTAMP '{since}'
  AND usage_metadata.job_run_id IS NULL AND usage_metadata.dlt_update_id IS NULL{clusters}
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 1, 2, 3, 4, 5, 6
/* {mark} */
"""


class DatabricksJobsOptions(TableOptions, frozen=True, forbid_unknown_fields=True):
    """``[settle."databricks.jobs"]``."""

    workspaces: tuple[str, ...] = ()
    """Ids of workspaces; empty: all that the tables have."""
    vm_per_dbu: dict[str, Decimal] = msgspec.field(default_factory=dict[str, Decimal])
    """What the cloud charges for the machines behind a DBU of classic compute, by node type, ``*``
    for all others: the machine's price an hour divided by its DBUs an hour."""
    vm_currency: str = "USD"


class Ran(NamedTuple):
    """A run or an update, as ``system.lakeflow`` has it."""

    id: str
    job: str
    name: str | None
    kind: str
    start: datetime
    end: datetime
    """Of one that goes on: up to when the table has it."""
    result: str
    """Empty while it goes on."""


class Used(NamedTuple):
    """A record of the bill: what a run used in an hour, of a SKU."""

    job: str | None
    name: str | None
    user: str | None
    tags: str | None
    node_type: str | None
    start: datetime
    end: datetime
    micros: int
    sku: str
    cloud: str
    unit: str
    quantity: Decimal | None
    """None where the table has none, which is not as it should be."""


class OnCluster(NamedTuple):
    """A task's run on a cluster."""

    cluster: str
    start: datetime
    end: datetime


class DatabricksJobsHistory(SystemTables):
    """Reads the runs of an account's jobs and pipelines."""

    system = SYSTEM
    latency = timedelta(hours=1)
    retention = timedelta(days=365)
    grants = """\
GRANT USE CATALOG ON CATALOG system TO `settlement`;
GRANT USE SCHEMA ON SCHEMA system.billing TO `settlement`;
GRANT SELECT ON TABLE system.billing.usage TO `settlement`;
GRANT SELECT ON TABLE system.billing.list_prices TO `settlement`;
GRANT USE SCHEMA ON SCHEMA system.lakeflow TO `settlement`;
GRANT SELECT ON TABLE system.lakeflow.job_run_timeline TO `settlement`;
GRANT SELECT ON TABLE system.lakeflow.job_task_run_timeline TO `settlement`;
GRANT SELECT ON TABLE system.lakeflow.pipeline_update_timeline TO `settlement`;
-- and the permission CAN USE on the SQL warehouse that is asked"""
    meters = ("dbus", "run_seconds", "all_purpose_seconds")
    by_id = True
    Options = DatabricksJobsOptions
    options: DatabricksJobsOptions

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what is read, and what that wakes."""
        wakes = self.wakes()
        span = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}"
        waits = f", and of {len(self.waiting)} that wait" if self.waiting else ""
        reads = (
            f"system.billing.usage {span} by run{waits}, on warehouse {self.options.warehouse}",
            f"system.lakeflow {span}, and system.billing.list_prices",
        )
        return Plan(reads, wakes=wakes)

    def open(self) -> None:
        """Begin anew: nothing is connected, for the API has no sessions."""
        self._runs: dict[str, Ran] = {}
        self._used: dict[str, list[Used]] = {}
        self._tasks: dict[str, dict[OnCluster, None]] = defaultdict(dict)
        self._shared: set[str] = set()
        self._asked: set[str] = set()
        self._prices: ListPrices | None = None

    # -- runs -----------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the runs of the time, and those that wait wherever they are."""
        starts = [run.started_at for run in self.waiting if run.started_at is not None]
        earliest = min([since, *starts]) - BEFORE
        self._take(earliest, since, until, None)
        for some in batches([run.id for run in self._not_found()], IDS):
            self._take_some(earliest, since, until, some)
        self._find_shared(since, until)
        self._prices = self.prices(earliest, until)
        for id_ in sorted({**self._runs, **self._used}):
            figure = self._figure(id_, self._prices)
            if figure is not None:
                yield figure
        self._ask_for_lost()

    def _not_found(self) -> list[Waiting]:
        known = self._runs.keys() | self._used.keys()
        return [run for run in self.waiting if run.id not in known]

    def _take_some(
        self, earliest: datetime, since: datetime, until: datetime, ids: Sequence[str]
    ) -> None:
        """Read what the tables have of these ids; of half as many where that is too much."""
        try:
            self._take(earliest, since, until, ids)
        except TooLargeError:
            if len(ids) == 1:
                raise
            middle = len(ids) // 2
            self._take_some(earliest, since, until, ids[:middle])
            self._take_some(earliest, since, until, ids[middle:])

    def _take(
        self, earliest: datetime, since: datetime, until: datetime, ids: Sequence[str] | None
    ) -> None:
        """Read what the tables have: of the time, or else of these ids."""

        def asking(query: str, which: str, id_: str) -> Callable[[datetime, datetime], str]:
            def of(begin: datetime, end: datetime) -> str:
                date = f"{earliest:%Y-%m-%d}" if id_ == ID else literal(earliest)
                if ids is None:
                    wanted = filled(which, begin, end, id=id_)
                else:
                    wanted = only(id_, ids, "").strip()
                return filled(
                    query,
                    begin,
                    end,
                    id=id_,
                    earliest=date,
                    which=wanted,
                    workspaces=only("workspace_id", self.options.workspaces),
                )

            return of

        def parts(query: str, which: str, id_: str, what: str) -> Iterable[list[Row]]:
            of = asking(query, which, id_)
            if ids is None:
                return self.in_parts(of, since, until, what)
            return [list(self.ask(of(since, until), what))]

        self._used.update(self._usage(parts(USAGE, BILLED, ID, "usage")))
        for table, query, id_ in (
            ("job_run_timeline", RUNS, "run_id"),
            ("pipeline_update_timeline", UPDATES, "update_id"),
            ("job_task_run_timeline", TASKS, "job_run_id"),
        ):
            try:
                for rows in parts(query, WITHIN, id_, f"system.lakeflow.{table}"):
                    for row in rows:
                        self._task(row) if query is TASKS else self._run(row)
            except (UnreadableError, DeniedError) as error:
                grant = f"; it takes: {error.grant}" if error.grant else ""
                self.missing(f"there is the bill alone, without {table}: {error}{grant}")

    def _run(self, row: Row) -> None:
        id_, job, name, kind, start, end, result = row
        run = Ran(id_ or "", job or "", name, kind or "", moment(start), moment(end), result or "")
        self._runs[run.id] = run

    def _usage(self, parts: Iterable[list[Row]]) -> dict[str, list[Used]]:
        """Return the records of each run; each part of an answer has all of a run's."""
        found: dict[str, list[Used]] = {}
        for rows in parts:
            part: dict[str, list[Used]] = {}
            for row in rows:
                run, job, pipeline, name, user, tags, node, start, end, sku, cloud, unit, dbus = row
                used = Used(
                    job or pipeline,
                    name,
                    user,
                    tags,
                    node,
                    moment(start),
                    moment(end),
                    int(end or 0),
                    sku or "",
                    cloud or "",
                    unit or "DBU",
                    None if dbus is None else Decimal(dbus),
                )
                part.setdefault(run or "", []).append(used)
            found.update(part)
        return found

    def _task(self, row: Row) -> None:
        run, clusters, start, end = row
        for cluster in (clusters or "").split(","):
            self._tasks[run or ""][OnCluster(cluster, moment(start), moment(end))] = None

    # -- all-purpose clusters -------------------------------------------------------------------

    def _find_shared(self, since: datetime, until: datetime) -> None:
        """Find which of the clusters are billed by themselves."""
        tasks = list(chain.from_iterable(self._tasks.values()))
        names = {task.cluster for task in tasks} - self._shared
        if not names:
            return
        begin = min(since, *(task.start for task in tasks))
        for some in batches(sorted(names), IDS):
            self._shared.update(row[0] or "" for row in self._clusters(begin, until, some))

    def _clusters(self, since: datetime, until: datetime, names: Iterable[str]) -> Iterator[Row]:
        clusters = only("usage_metadata.cluster_id", names)
        return self.ask(filled(CLUSTERS, since, until, clusters=clusters), "usage")

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the hours of all-purpose clusters in which tasks of jobs ran on them."""
        if not self._shared:
            return
        prices = self._prices or self.prices(since, until)
        tasks: dict[str, list[OnCluster]] = defaultdict(list)
        for task in chain.from_iterable(self._tasks.values()):
            tasks[task.cluster].append(task)
        for cluster, *billed in self._clusters(since, until, sorted(self._shared)):
            for stretch in self.stretch(cluster or "", billed, prices):
                if any(
                    task.start < stretch.ended_at and task.end > stretch.started_at
                    for task in tasks[stretch.group]
                ):
                    yield stretch

    # -- figures --------------------------------------------------------------------------------

    def _figure(self, id_: str, prices: ListPrices) -> Figure | None:
        ran = self._runs.get(id_)
        # Always in the same order: what is the same as before is not written again.
        used = sorted(self._used.get(id_, ()), key=_order)
        start = ran.start if ran else min(record.start for record in used)
        last = max((record.end for record in used), default=None)
        # Without `system.lakeflow` a run is over when nothing more of it can be on the way.
        over = ran.end if ran and ran.result else last if ran is None else None
        settled = self.settled()
        shared = [task for task in self._tasks.get(id_, ()) if task.cluster in self._shared]
        clusters = {task.cluster for task in shared}
        stated, rest = self._billed(used, prices)
        tag, labels = tags_of(next((record.tags for record in used if record.tags), None))
        job = next((record.job for record in used if record.job), ran.job if ran else None)
        name = (
            next((record.name for record in used if record.name), ran.name if ran else None) or job
        )
        broken = any(record.quantity is None for record in used)
        nothing = over is not None and not (used or clusters)
        problem = NO_QUANTITY if broken else SEVERAL if len(clusters) > 1 else ""
        return Figure(
            vendor_id=id_,
            started_at=start,
            ended_at=over,
            so_far=last if over is None else None,
            tag=tag,
            user=next((record.user for record in used if record.user), None),
            labels={**labels, **({"job": name} if name else {})},
            operation=OPERATIONS.get(ran.kind if ran else "", "RUN JOB")
            if id_.isdigit()
            else "UPDATE PIPELINE",
            meters=_meters(ran, used, shared),
            stated=stated,
            parts=rest,
            problem=problem or (NOTHING if nothing else ""),
            final=over is None or over <= settled,
            error=ran.result if ran and ran.result and ran.result not in GOOD else None,
            resource=Resource(namespace=job, service=SYSTEM),
            group=clusters.pop() if len(clusters) == 1 else None,
            weight=sum(_micros(task) for task in shared),
            worked_from=min((task.start for task in shared), default=None),
        )

    def _billed(
        self, used: Iterable[Used], prices: ListPrices
    ) -> tuple[tuple[Stated, ...], tuple[Figure, ...]]:
        """Return what has a list price, with what the user says of machines, and what has none."""
        stated: dict[tuple[str, ...], Stated] = {}
        rest: list[Figure] = []
        for record in used:
            price = prices.of(record.sku, record.cloud, record.unit, record.micros)
            if price is None:
                self.missing(f"system.billing.list_prices has no price of {record.sku}")
                rest.append(_unpriced(record))
                continue
            each = price.each * self.options.multiplier
            source = f"system.billing.list_prices: {record.sku}"
            found = [(record.sku, each, price.currency, source)]
            machine = self._machine(record)
            if machine is not None:
                kind = f"vm:{record.node_type or 'any'}"
                source = f'[settle."{SYSTEM}"] vm_per_dbu'
                found.append((kind, machine, self.options.vm_currency, source))
            for what, unit_price, currency, source in found:
                key = (what, record.unit, currency, str(unit_price))
                before = stated[key].quantity if key in stated else Decimal(0)
                quantity = before + (record.quantity or 0)
                stated[key] = Stated(what, quantity, unit_price, currency, record.unit, source)
        return tuple(stated.values()), tuple(rest)

    def _machine(self, record: Used) -> Decimal | None:
        """Return what the machines behind a DBU cost, where they are charged apart and it is said."""
        if "SERVERLESS" in record.sku.upper():
            return None
        rates = self.options.vm_per_dbu
        return rates.get(record.node_type or "", rates.get("*"))

    # -- runs that no table has -----------------------------------------------------------------

    def _ask_for_lost(self) -> None:
        """Ask for the oldest of the runs that no table has heard of: Databricks may not either."""
        before = self.now() - OLD
        left = [
            run
            for run in self._not_found()
            if run.started_at and run.started_at < before and run.id not in self._asked
        ]
        here = self.client().config.host if left else ""
        for run in left[: MOST_ASKED - len(self._asked)]:
            self._asked.add(run.id)
            if run.address is not None and run.address not in here:
                continue  # another workspace's
            try:
                self._look_up(run)
            except NoSuchThing as error:
                self.gone(run.id, f"Databricks does not know it: {error.code}")
            except VendorError as error:
                self.missing(f"{error}")
                return

    def _look_up(self, run: Waiting) -> None:
        def call() -> object:
            client = self.client()
            if run.id.isdigit():
                return client.jobs.get_run(int(run.id))
            return client.pipelines.get_update(run.namespace or "", run.id)

        patiently(self, f"run {run.id}", call)


def _order(record: Used) -> tuple[datetime, str, str]:
    return record.start, record.sku, record.node_type or ""


def _meters(ran: Ran | None, used: Iterable[Used], shared: Iterable[OnCluster]) -> Meters:
    meters: dict[str, int | float | str] = {}
    dbus = [record.quantity for record in used if record.unit == "DBU" and record.quantity]
    if dbus:
        meters["dbus"] = _plain(sum(dbus, Decimal(0)))
    if ran is not None and ran.result:
        meters["run_seconds"] = _plain(Decimal((ran.end - ran.start) / timedelta(seconds=1)))
    if time := sum(_micros(task) for task in shared):
        meters["all_purpose_seconds"] = _plain(Decimal(time) / 10**6)
    return meters


def _unpriced(record: Used) -> Figure:
    """Return a record without a list price, for the price book."""
    return Figure(
        started_at=record.start,
        ended_at=record.end,
        meters={"dbus": _plain(record.quantity or Decimal(0))},
        billed=("dbus",),
        dimensions=dimensions(record.sku, record.cloud),
    )


def _micros(task: OnCluster) -> int:
    return (task.end - task.start) // timedelta(microseconds=1)


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
