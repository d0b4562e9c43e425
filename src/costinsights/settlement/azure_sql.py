"""Azure SQL Database's history: Query Store, and the hours or seconds that a database was paid for.

Query Store keeps sums a plan and interval, never single executions. What ran once in an interval is
found among the charges by statement and time, and is named by its query hash and that time. What
ran more often takes its share of the hour by CPU time, and that share is no charge's: the calls in
it keep their estimates. What nobody used is idle.

DTU and provisioned vCore: the database is paid for by the hour that it exists. Serverless: by the
vCore-second, the largest of minimum and use of cores and memory (3 GB count as one); what was used
is read from ``sys.dm_db_resource_stats``, a row each 15 s, which is kept for an hour. So settle a
serverless database each hour, or leave its amounts as they were.

Source: MicrosoftDocs/sql-docs (sys-dm-db-resource-stats, query-store views,
azure-sql/database/serverless-tier-overview.md). ``sys.database_service_objectives`` is asked for the
tier where no option says it; that a paused database has no rows is from general knowledge.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from costinsights.records import Resource
from costinsights.settlement.history import MARK, Figure, HistoryError, Plan, Stretch, utc
from costinsights.settlement.tds import Account, TdsHistory, moment, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

HOUR = timedelta(hours=1)
ROW = timedelta(seconds=15)
MICROSECOND = timedelta(microseconds=1)
ENDED = {0: None, 3: "ABORTED", 4: "EXCEPTION"}
TIERS = {"GP": "general_purpose", "BC": "business_critical", "HS": "hyperscale"}
_VCORE = re.compile(r"(GP|BC|HS)_(S_)?([A-Za-z]+\d*)_(\d+)$")

QUERIES = """
SELECT q.query_hash, qt.query_sql_text, rs.execution_type, i.start_time, i.end_time,
       SUM(rs.count_executions) AS executions,
       SUM(rs.count_executions * rs.avg_cpu_time) AS cpu_us,
       SUM(rs.count_executions * rs.avg_duration) AS elapsed_us,
       SUM(rs.count_executions * rs.avg_logical_io_reads) AS pages,
       SUM(rs.count_executions * rs.avg_rowcount) AS number_of_rows,
       MIN(rs.first_execution_time) AS first_time, MAX(rs.last_execution_time) AS last_time
FROM sys.query_store_runtime_stats rs
JOIN sys.query_store_runtime_stats_interval i
  ON i.runtime_stats_interval_id = rs.runtime_stats_interval_id
JOIN sys.query_store_plan p ON p.plan_id = rs.plan_id
JOIN sys.query_store_query q ON q.query_id = p.query_id
JOIN sys.query_store_query_text qt ON qt.query_text_id = q.query_text_id
WHERE i.start_time < '{until}' AND i.end_time > '{since}'
GROUP BY q.query_hash, qt.query_sql_text, rs.execution_type, i.start_time, i.end_time
"""
USED = """
SELECT end_time, avg_cpu_percent, avg_memory_usage_percent, cpu_limit
FROM sys.dm_db_resource_stats WHERE end_time > '{since}' AND end_time <= '{until}'
"""
OBJECTIVE = "SELECT service_objective FROM sys.database_service_objectives"


class DatabaseOptions(Account, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[settle."azure.sql"]``: one database."""

    host: str
    database: str
    service_objective: str = ""
    """``S1``, ``P6``, ``GP_Gen5_4``, ``GP_S_Gen5_2`` (serverless); empty asks the database."""
    hybrid_benefit: bool = False
    """Whether the SQL licence is one's own and not charged for."""
    minimum_vcores: float = 0
    """Of a serverless database: it is charged for these at least while it is online."""
    minimum_memory_gb: float = 0
    auto_pause_minutes: int = 60
    resource_id: str = ""
    """``/subscriptions/…/databases/NAME``: with `token`, the management API is asked whether a
    serverless database is paused, which does not wake it."""
    token: str = ""
    management: str = "https://management.azure.com"


class AzureSQLHistory(TdsHistory):
    """Reads one database."""

    system = "azure.sql"
    latency = timedelta(minutes=15)
    """Query Store flushes each 15 minutes; what it has in memory is read with the rest."""
    retention = timedelta(days=30)
    """Its default policy."""
    grants = "GRANT VIEW DATABASE STATE TO [settlement];"
    meters = ("executions", "cpu_us", "elapsed_us", "logical_read_kb")
    verified = "emulator: TDS server"
    Options: ClassVar = DatabaseOptions
    options: DatabaseOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Find out from the options what is paid for."""
        super().__init__(options)
        given = self.options
        self.resource = Resource(
            given.host, given.port, given.database, "azure.sql", given.region or None
        )
        self._objective = given.service_objective
        self._used: list[tuple[datetime, Decimal]] = []

    @property
    def serverless(self) -> bool:
        """Whether what is known of the tier says so."""
        found = _VCORE.match(self._objective)
        return found is not None and found[2] is not None

    # -- what is going to happen ----------------------------------------------------------------

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what is read, and whether that would start a paused database."""
        given = self.options
        span = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
        reads = [f"Query Store of {given.database} on {given.host} {span}"]
        if self._objective and not self.serverless:
            return Plan(tuple(reads))
        reads.append(f"sys.dm_db_resource_stats of {given.database}, the last hour")
        state = self._state()
        if state == "Online":
            return Plan(tuple(reads))
        least = max(given.minimum_vcores, given.minimum_memory_gb / 3)
        known = f"it is {state}" if state else "it may be paused (say resource_id and token)"
        wakes = (
            f"The database {given.database} is serverless, or nobody said that it is not, and "
            f"{known}: a login starts it, and it is charged for its minimum for "
            f"{given.auto_pause_minutes} minutes at least."
        )
        seconds = least * given.auto_pause_minutes * 60
        meters = {"serverless_vcore_seconds": f"{seconds:.0f}"} if least else {}
        return Plan(tuple(reads), meters, wakes)

    def _state(self) -> str | None:
        """Return the database's status as the management API has it; None where nobody can ask."""
        given = self.options
        if not given.resource_id or not given.token:
            return None
        import json
        from urllib.request import Request, urlopen

        url = f"{given.management}{given.resource_id}?api-version=2021-11-01"
        if not url.startswith(("https://", "http://127.0.0.1:")):
            raise HistoryError("azure.sql: management is an address that begins with https://")
        request = Request(url, headers={"Authorization": f"Bearer {given.token}"})  # noqa: S310  the line above
        try:
            with urlopen(request, timeout=30) as answer:  # noqa: S310  the same
                found = json.load(answer)["properties"]["status"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.missing(f"the management API does not tell the status ({type(error).__name__})")
            return None
        return str(found)

    # -- what ran -------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield a figure for each query, interval and way of ending."""
        given = self.options
        connection = self.connect(given.host, given.database)
        try:
            if not self._objective:
                self._objective = str(
                    self.ask(connection, "sys.database_service_objectives", OBJECTIVE)[0][0]
                )
                self.missing("the tier is that of this moment: say service_objective")
            query = QUERIES.format(since=moment(since), until=moment(until))
            rows = self.ask(connection, "Query Store", query)
            if self.serverless:
                query = USED.format(since=moment(since), until=moment(until))
                used = self.ask(connection, "sys.dm_db_resource_stats", query)
                self._used += [self._vcores(*row) for row in used]
        finally:
            connection.close()  # an open session keeps the database awake
        yield from map(self._figure, rows)

    def _figure(self, row: Any) -> Figure:
        (hash_, text, ended, _, until, executions, cpu, elapsed, pages, number, first, last) = row
        begun, count = utc(first), int(executions)
        end = begun + int(elapsed) * MICROSECOND if count == 1 else max(utc(last), begun)
        own = MARK in (text or "")
        return Figure(
            started_at=begun,
            ended_at=min(end, max(utc(until), begun)),
            vendor_id=f"{bytes(hash_).hex()}@{begun:%Y-%m-%dT%H:%M:%S.%f}" if count == 1 else None,
            # A sum of several executions is no single charge's: nothing is to be found by its text.
            text=plain(text or "") if count == 1 or own else None,
            meters={
                "executions": count,
                "cpu_us": round(cpu),
                "elapsed_us": round(elapsed),
                "logical_read_kb": round(pages) * 8,
            },
            rows=round(number) if number is not None and count == 1 else None,
            error=ENDED.get(int(ended), "UNKNOWN"),
            resource=self.resource,
            dimensions=self._dimensions(),
            group=f"{self.options.host}/{self.options.database}",
            weight=round(cpu),
        )

    # -- what was paid for ----------------------------------------------------------------------

    def _dimensions(self) -> dict[str, str]:
        found = _VCORE.match(self._objective)
        if found is None:
            return {"service_objective": self._objective} if self._objective else {}
        return {"tier": TIERS[found[1]], "hardware": found[3].lower()}

    def _vcores(self, end: Any, cpu: Any, memory: Any, limit: Any) -> tuple[datetime, Decimal]:
        """Return the vCores that a row of 15 s is charged for."""
        given, most = self.options, Decimal(str(limit or 0))
        used = max(
            Decimal(str(given.minimum_vcores)),
            Decimal(str(given.minimum_memory_gb)) / 3,
            most * Decimal(str(cpu or 0)) / 100,
            most * Decimal(str(memory or 0)) / 100,  # at most 3 GB a vCore, and 3 GB are a vCore
        )
        return utc(end), used

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the hours; of a serverless database those whose every 15 s are known."""
        found = _VCORE.match(self._objective)
        start = since
        while start < until:
            end = min(start + HOUR, until)
            seconds = (end - start) // timedelta(seconds=1)
            if found is None:
                yield self._stretch(start, end, seconds, "database_seconds")
            elif found[2]:
                yield from self._by_use(start, end)
            else:
                vcores = seconds * int(found[4])
                yield self._stretch(start, end, vcores, "vcore_seconds")
                if not self.options.hybrid_benefit:
                    yield self._stretch(start, end, vcores, "licence_vcore_seconds", ("tier",))
            start = end

    def _by_use(self, start: datetime, end: datetime) -> Iterator[Stretch]:
        rows = {at: used for at, used in self._used if start < at <= end}
        if len(rows) < (end - start) // ROW - 1:
            if rows:
                self.missing(
                    "of an hour that was not whole in sys.dm_db_resource_stats, which keeps one "
                    "hour, the amounts stay as they are"
                )
            return
        seconds = sum(rows.values(), Decimal(0)) * 15
        yield self._stretch(start, end, seconds, "serverless_vcore_seconds")

    def _stretch(
        self,
        start: datetime,
        end: datetime,
        quantity: int | Decimal,
        meter: str,
        dimensions: tuple[str, ...] = (),
    ) -> Stretch:
        known = self._dimensions()
        return Stretch(
            group=f"{self.options.host}/{self.options.database}",
            started_at=start,
            ended_at=end,
            quantity=quantity,
            meter=meter,
            resource=self.resource,
            dimensions={name: known[name] for name in dimensions or known if name in known},
        )
