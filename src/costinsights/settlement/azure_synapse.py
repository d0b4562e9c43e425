"""Azure Synapse's history: of a dedicated pool its requests, of the serverless pool its bytes.

Dedicated: ``sys.dm_pdw_exec_requests`` has each request with its label. A pool is paid for by the
hour while it is online, whatever runs, so each hour is split by run time, and what no request used
is idle. Serverless: ``sys.dm_exec_requests_history`` has the data that each query processed, which
is what it is billed by: ``metered``.

Columns: MicrosoftDocs/sql-docs, sys-dm-pdw-exec-requests-transact-sql.md. Of
``sys.dm_exec_requests_history`` no page of Microsoft's was found; its columns are those that a
public profiler of migrations reads (engines.md 5), and how long it is kept nobody says. That an
hour is charged whole, and that a paused pool has no requests, are from general knowledge.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from costinsights.records import Resource
from costinsights.settlement.history import Figure, HistoryError, Plan, Stretch, utc
from costinsights.settlement.tds import Account, TdsHistory, moment, plain
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

MEGABYTE = 1 << 20
KEPT = 10_000
"""Requests that a dedicated pool remembers."""
CUT = 4000
"""Characters of a statement that it remembers."""
DONE = {"completed": None, "failed": "FAILED", "cancelled": "CANCELLED"}
SUCCEEDED = frozenset(("succeeded", "completed", "success", ""))
HOUR = timedelta(hours=1)
FREE = frozenset(("CREATE", "ALTER", "DROP", "USE", "SET", "DECLARE", "GRANT", "REVOKE", "DENY"))
"""What is free (MicrosoftDocs/azure-docs, sql/data-processed.md), CREATE STATISTICS excepted."""

REQUESTS = """
SELECT r.request_id, r.[label], r.status, r.submit_time, r.start_time, r.end_time,
       r.total_elapsed_time, r.resource_class, r.command, r.result_cache_hit,
       s.login_name, s.app_name
FROM sys.dm_pdw_exec_requests r
LEFT JOIN sys.dm_pdw_exec_sessions s ON s.session_id = r.session_id
WHERE r.submit_time < '{until}' AND (r.end_time IS NULL OR r.end_time > '{since}')
"""
OLDEST = "SELECT COUNT(*), MIN(submit_time) FROM sys.dm_pdw_exec_requests"
OBJECTIVE = "SELECT service_objective FROM sys.database_service_objectives"
PROCESSED = """
SELECT distributed_statement_id, status, login_name, start_time, end_time, command, query_text,
       total_elapsed_time_ms, data_processed_mb, error_code
FROM sys.dm_exec_requests_history WHERE start_time < '{until}' AND end_time > '{since}'
"""


class SynapseOptions(Account, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[settle."azure.synapse"]``: one workspace, with either pool or both."""

    dedicated: str = ""
    """The host of the dedicated pool, ``WORKSPACE.sql.azuresynapse.net``; empty for none."""
    pool: str = ""
    """Its name, which is that of its database."""
    serverless: str = ""
    """The host of the serverless pool, ``WORKSPACE-ondemand.sql.azuresynapse.net``."""
    dwu: int = 0
    """The dedicated pool's size, 200 for DW200c; 0 asks it for its size of this moment."""
    always_on: bool = False
    """Whether the pool is never paused. Otherwise only hours with a request in them are known to
    have been paid for."""
    weights: dict[str, float] = {}  # noqa: RUF012  msgspec copies it for each
    """Weights of resource classes, ``{largerc = 4}``: a request bears by its run time times that of
    its class. Without them all classes weigh the same."""


class SynapseHistory(TdsHistory):
    """Reads one workspace."""

    system = "azure.synapse"
    latency = timedelta(minutes=10)
    """The serverless pool's minutes are unsourced."""
    skew = timedelta(seconds=5)
    grants = (
        "-- in the dedicated pool's database:\n"
        "GRANT VIEW DATABASE STATE TO [settlement];\n"
        "-- in master of the serverless pool:\n"
        "GRANT VIEW SERVER STATE TO [settlement];"
    )
    meters = ("run_ms", "queue_ms", "result_cache_hit", "data_processed_bytes")
    verified = "emulator: TDS server"
    Options: ClassVar = SynapseOptions
    options: SynapseOptions

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say which views are read. Neither is billed, and a paused pool is not started by it."""
        given = self.options
        if not given.dedicated and not given.serverless:
            raise HistoryError('[settle."azure.synapse"] names neither dedicated nor serverless')
        if given.dedicated and not given.pool:
            raise HistoryError('[settle."azure.synapse"]: pool names the dedicated pool')
        span = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
        reads = [f"sys.dm_pdw_exec_requests of {given.pool} {span}"] * bool(given.dedicated)
        reads += [f"sys.dm_exec_requests_history of {given.serverless} {span}"] * bool(
            given.serverless
        )
        return Plan(tuple(reads))

    def open(self) -> None:
        """Nothing is held open: each reading has a connection of its own."""
        self._used: set[datetime] = set()
        self._oldest: datetime | None = None
        self._dwu = self.options.dwu

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the requests of both pools."""
        given = self.options
        if given.dedicated:
            yield from self._requests(since, until)
        if given.serverless:
            connection = self.connect(given.serverless, "master")
            try:
                query = PROCESSED.format(since=moment(since), until=moment(until))
                rows = self.ask(connection, "sys.dm_exec_requests_history", query)
            finally:
                connection.close()
            yield from map(self._processed, rows)

    # -- the serverless pool --------------------------------------------------------------------

    def _processed(self, row: Any) -> Figure:
        id_, status, user, start, end, command, text, elapsed, megabytes, code = row
        size = None if megabytes is None else round(float(megabytes) * MEGABYTE)
        words = (text or "").split(None, 2)
        free = bool(words) and words[0].upper() in FREE and words[1:2] != ["STATISTICS"]
        if not size and not free:
            # Either nothing but metadata, which is free, or less than the column shows.
            self.missing("of queries with 0 MB it is not known whether they were free")
            size = None
        return Figure(
            started_at=utc(start),
            ended_at=None if end is None else utc(end),
            vendor_id=str(id_).strip("{}").upper(),
            user=user,
            text=plain(text or ""),
            operation=command or None,
            meters={
                "run_ms": int(elapsed or 0),
                **({} if size is None else {"data_processed_bytes": size}),
            },
            billed=() if size is None else ("data_processed_bytes",),
            error=None if str(status or "").lower() in SUCCEEDED else str(code or status),
            resource=Resource(
                address=self.options.serverless,
                port=self.options.port,
                service="azure.synapse_serverless",
                region=self.options.region or None,
            ),
        )

    # -- the dedicated pool ---------------------------------------------------------------------

    def _requests(self, since: datetime, until: datetime) -> Iterator[Figure]:
        given = self.options
        connection = self.connect(given.dedicated, given.pool)
        try:
            query = REQUESTS.format(since=moment(since), until=moment(until))
            rows = self.ask(connection, "sys.dm_pdw_exec_requests", query, label=True)
            [(count, oldest)] = self.ask(connection, "sys.dm_pdw_exec_requests", OLDEST, label=True)
            if not self._dwu:
                self._dwu = self._asked_size(connection)
        finally:
            connection.close()
        if oldest is not None and count >= KEPT:
            self._oldest = utc(oldest)
            if self._oldest > since:
                self.missing(
                    f"the pool remembers its last {KEPT} requests: what was before "
                    f"{self._oldest:%Y-%m-%d %H:%M} is lost"
                )
        for row in rows:
            yield self._request(row)

    def _asked_size(self, connection: Any) -> int:
        """Return the pool's size of this moment; 0 where it cannot be told."""
        try:
            [(objective,)] = self.ask(connection, "sys.database_service_objectives", OBJECTIVE)
            digits = str(objective).upper().removeprefix("DW").removesuffix("C")
            self.missing("the pool's size is that of this moment: say dwu if it was another")
            return int(digits)
        except (VendorError, ValueError):
            self.missing("the pool does not tell its size: say dwu")
            return 0

    def _request(self, row: Any) -> Figure:
        (id_, label, status, submitted, start, end, elapsed, kind, text, cached) = row[:10]
        begun = utc(start if start is not None else submitted)
        done = utc(end) if end is not None and str(status).lower() in DONE else None
        queued = max(0, (begun - utc(submitted)) // timedelta(milliseconds=1))
        run = int(elapsed or 0)
        self._used.add(begun.replace(minute=0, second=0, microsecond=0))
        if done is not None:
            hour = begun.replace(minute=0, second=0, microsecond=0)
            while hour < done:
                self._used.add(hour)
                hour += HOUR
        return Figure(
            started_at=begun,
            ended_at=done,
            vendor_id=str(id_),
            tag=label or None,
            user=row[10],
            program=row[11],
            text=plain(text) if text and len(text) < CUT else None,
            meters={
                "run_ms": run,
                "queue_ms": queued,
                **({"result_cache_hit": 1} if cached == 1 else {}),
            },
            error=DONE.get(str(status).lower()),
            resource=self._resource(),
            group=self._group(),
            weight=0 if cached == 1 else self._weight(run, kind),
        )

    def _weight(self, run: int, kind: str | None) -> int:
        # In thousandths, so that a weight of 1.5 counts as such.
        return round(run * 1000 * self.options.weights.get(str(kind or "").lower(), 1.0))

    def _group(self) -> str:
        return f"{self.options.dedicated}/{self.options.pool}"

    def _resource(self) -> Resource:
        return Resource(
            address=self.options.dedicated,
            port=self.options.port,
            namespace=self.options.pool,
            service="azure.synapse_dedicated",
            region=self.options.region or None,
        )

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the hours of the dedicated pool that are known to have been paid for."""
        if not self.options.dedicated:
            return
        start = since
        while start < until:
            end = min(start + HOUR, until)
            lost = self._oldest is not None and self._oldest > start
            if not lost and (self.options.always_on or start in self._used):
                seconds = (end - start) // timedelta(seconds=1)
                yield Stretch(
                    group=self._group(),
                    started_at=start,
                    ended_at=end,
                    quantity=seconds * self._dwu,
                    meter="dwu_seconds" if self._dwu else None,
                    resource=self._resource(),
                )
            start = end
