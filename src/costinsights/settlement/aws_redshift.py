"""Amazon Redshift's history: ``SYS_QUERY_HISTORY``, and what the cluster or workgroup was paid for.

Serverless: each minute of ``SYS_SERVERLESS_USAGE`` (charged RPU-seconds) is split over the queries
that ran in it, by execution time; nothing of a minute with a query in it is idle, because the 60 s
minimum is charged for that query's sake. Provisioned: each hour of all nodes is split by execution
time, and what no query used is idle; Redshift Spectrum's bytes and the transient clusters of
concurrency scaling come on top. Free concurrency scaling (an hour a day) is not known here.

Columns: docs.aws.amazon.com/redshift/latest/dg (SYS_QUERY_HISTORY, SYS_SERVERLESS_USAGE,
SVCS_S3QUERY_SUMMARY, SVCS_CONCURRENCY_SCALING_USAGE). All moments are UTC, all times µs. Of the
values of ``compute_type`` no page of AWS's was found: they are an option.
"""

from __future__ import annotations

import re
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import msgspec

from costinsights.hosts import recognise
from costinsights.records import Resource
from costinsights.settlement.history import (
    MARK,
    Figure,
    History,
    HistoryError,
    Plan,
    Stretch,
    utc,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

SERVERLESS = "aws.redshift_serverless"
NO_LABEL = frozenset(("", "default", "unset"))
DONE = {"success": None, "failed": "FAILED", "canceled": "CANCELED"}
DENIED = "42501"
_STATEMENT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(:\d+)?")
"""What the Data API calls a statement; those of a batch have a number behind it."""
MINIMUM = 60
"""Seconds that a workgroup is charged for at least, each time it is used."""

QUERIES = """
SELECT h.query_id, trim(h.query_label), trim(u.usename), trim(h.database_name),
       trim(h.query_type), trim(h.status), h.result_cache_hit, h.start_time, h.end_time,
       h.elapsed_time, h.queue_time, h.execution_time, h.returned_rows, h.returned_bytes,
       h.query_text, trim(h.compute_type), h.transaction_id, h.session_id
FROM sys_query_history h LEFT JOIN pg_user u ON u.usesysid = h.user_id
WHERE h.start_time < '{until}' AND (h.end_time IS NULL OR h.end_time > '{since}')
"""
SPECTRUM = """
SELECT xid, pid, starttime, s3_scanned_bytes FROM svcs_s3query_summary
WHERE starttime < '{until}' AND endtime > '{since}' AND s3_scanned_bytes > 0
"""
USAGE = """
SELECT start_time, end_time, sum(compute_seconds), sum(charged_seconds)
FROM sys_serverless_usage WHERE start_time < '{until}' AND end_time > '{since}'
GROUP BY start_time, end_time ORDER BY start_time, end_time
"""
SCALING = """
SELECT start_time, end_time, usage_in_seconds FROM svcs_concurrency_scaling_usage
WHERE start_time < '{until}' AND end_time > '{since}' ORDER BY start_time, end_time
"""


class RedshiftOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle."aws.redshift"]``."""

    host: str
    user: str
    password: str = ""
    port: int = 5439
    database: str = "dev"
    ssl: bool = True
    region: str = ""
    """Where the host's name does not say it."""
    serverless: bool | None = None
    """Whether it is a workgroup; None: the host's name says it."""
    rpus: int = 0
    """Base capacity of the workgroup: what waking it costs is said by it."""
    node_type: str = ""
    nodes: int = 0
    """Of a cluster: its hours are priced by the price book. Without them, a ``[[capacity]]`` that
    fits the host says the price of an hour."""
    spectrum: bool = True
    """Whether to read what Redshift Spectrum scanned, of a cluster."""
    concurrency_scaling: bool = False
    """Whether to read the use of transient clusters, which only a superuser may by default."""
    scaling_types: tuple[str, ...] = ("primary-scale", "secondary-scale")
    """Values of ``compute_type`` of queries on transient clusters."""
    data_api: bool = False
    """Whether to ask ``redshift-data:DescribeStatement`` after statements of the Data API that no
    program has asked about: it remembers them for a day."""
    open_hours: int = 6
    """A minute is charged when its transaction ends. One of less age, with work and no charge, is
    left for later; an older one was free."""


class RedshiftHistory(History):
    """Reads one cluster or workgroup."""

    system = "aws.redshift"
    latency = timedelta(minutes=10)
    retention = timedelta(days=7)
    by_id = True
    grants = "GRANT ROLE sys:monitor TO settlement;"
    meters = (
        "elapsed_us",
        "queue_us",
        "execution_us",
        "result_bytes",
        "result_cache_hit",
        "spectrum_scanned_bytes",
        "unbilled_bytes",
    )
    verified = "emulator: PostgreSQL behind a start-up proxy"
    dependencies = "costinsights[redshift_connector]"
    Options = RedshiftOptions
    options: RedshiftOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Find out from the host's name what it is, where no option says so."""
        super().__init__(options)
        given = self.options
        found = recognise(self.system, Resource(given.host))
        serverless = found.service == SERVERLESS if given.serverless is None else given.serverless
        self.serverless = serverless
        self.resource = Resource(
            given.host,
            given.port,
            None,
            SERVERLESS if serverless else "aws.redshift",
            given.region or found.region,
        )
        self.dimensions = {"node_type": given.node_type} if given.node_type else {}
        self.place = (self.resource, self.dimensions)
        self._connection: Any = None

    # -- what is going to happen ----------------------------------------------------------------

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say which views are read; of a workgroup also what waking it costs."""
        views = ["sys_query_history"]
        if self.serverless:
            views.append("sys_serverless_usage")
        else:
            views += ["svcs_s3query_summary"] * self.options.spectrum
            views += ["svcs_concurrency_scaling_usage"] * self.options.concurrency_scaling
        span = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC, on {self.options.host}"
        reads = tuple(f"{view} {span}" for view in views)
        if not self.serverless:
            return Plan(reads)
        # Nothing tells whether a workgroup is at work without using it, so it may always sleep.
        rpus = self.options.rpus
        size = f"{rpus} RPU" if rpus else "its base capacity (say rpus)"
        wakes = (
            f"Nothing may be running on the workgroup {self.options.host}: a query starts it, and "
            f"that is charged for {MINIMUM} s of {size} at least."
        )
        meters = {"rpus": rpus, "serverless_seconds": MINIMUM} if rpus else {}
        return Plan(reads, meters, wakes)

    # -- asking ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, with the clock in UTC and our own queries marked."""
        try:
            import redshift_connector
        except ImportError:
            raise HistoryError(f"{self.system}: run  pip install '{self.dependencies}'") from None
        given = self.options
        try:
            self._connection = redshift_connector.connect(
                host=given.host,
                port=given.port,
                user=given.user,
                password=given.password,
                database=given.database,
                ssl=given.ssl,
                application_name=MARK,
            )
        except Exception as error:  # noqa: BLE001  the driver's own errors, the socket's, TLS's
            # Neither the driver's nor the server's words: they may repeat what was given.
            raise HistoryError(
                f"{self.system}: no connection to {given.host}:{given.port} as the user of "
                f'[settle."{self.system}"] ({type(error).__name__})'
            ) from None
        self._connection.autocommit = True

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, view: str, query: str, since: datetime, until: datetime) -> list[Any]:
        text = query.format(since=_text(since), until=_text(until))
        with self._understood(view), closing(self._connection.cursor()) as cursor:
            self.spend()
            cursor.execute(f"/* {MARK} */ {text.strip()}")
            rows: tuple[Any, ...] = cursor.fetchall()
        return list(rows)

    @contextmanager
    def _understood(self, view: str) -> Generator[None]:
        from redshift_connector.error import Error, ProgrammingError

        try:
            yield
        except ProgrammingError as error:
            found: object = error.args[0] if error.args else None
            state = cast("dict[str, str]", found).get("C") if isinstance(found, dict) else None
            if state == DENIED:
                raise self.denied(view) from None
            raise HistoryError(f"{self.system}: {view} cannot be read ({state})") from None
        except Error as error:
            raise HistoryError(f"{self.system}: {view}: {type(error).__name__}") from None

    # -- queries --------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the queries; of a cluster also what Spectrum scanned for them."""
        rows = self._ask("sys_query_history", QUERIES, since, until)
        scanned: dict[Any, int] = {}
        if self.options.spectrum and not self.serverless:
            scanned = self._scanned(rows, since, until)
        names = self._statements()
        for row in rows:
            yield self._figure(row, scanned.get(row[0], 0), names.get(row[0]))

    def _statements(self) -> dict[int, str]:
        """Return what the Data API calls queries whose charges still have its name of them."""
        wanted = [id_ for id_ in self.pending if _STATEMENT.fullmatch(id_)]
        if not wanted or not self.options.data_api:
            return {}
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        make: Any = boto3  # it is not typed
        found: dict[int, str] = {}
        with closing(make.client("redshift-data", region_name=self.resource.region)) as client:
            for id_ in wanted:
                self.spend()
                try:
                    query = client.describe_statement(Id=id_).get("RedshiftQueryId", 0)
                except (BotoCoreError, ClientError) as error:
                    self.missing(f"statements of the Data API: {type(error).__name__}")
                    continue
                if query > 0:
                    found[query] = id_
        return found

    def _figure(self, row: Any, scanned: int, name: str | None) -> Figure:
        (id_, label, user, database, kind, status, cached, start, end, *times) = row[:12]
        returned, size, text, compute = row[12:16]
        elapsed, queue, execution = (int(time or 0) for time in times)
        meters: dict[str, int | float | str] = {
            "elapsed_us": elapsed,
            "queue_us": queue,
            "execution_us": execution,
            "result_bytes": int(size or 0),
        }
        if cached:
            meters["result_cache_hit"] = 1
        if scanned:
            # A query that fails is free, whatever it scanned (repost.aws: Spectrum query charges).
            failed = status == "failed"
            meters["spectrum_scanned_bytes"] = 0 if failed else scanned
            meters.update({"unbilled_bytes": scanned} if failed else {})
        return Figure(
            started_at=utc(start),
            ended_at=utc(end) if status in DONE and end is not None else None,
            vendor_id=name or str(id_),
            tag=label if label and label not in NO_LABEL else None,
            user=user,
            text=(text or "").rstrip(),
            meters=meters,
            billed=("spectrum_scanned_bytes",) if scanned and status != "failed" else (),
            # What an INSERT or UPDATE did is not told here: it returns no rows.
            rows=int(returned) if kind == "SELECT" and returned is not None else None,
            error=DONE.get(status),
            resource=msgspec.structs.replace(self.resource, namespace=database),
            dimensions=self.dimensions,
            group=self._group(compute in self.options.scaling_types),
            weight=0 if cached else execution,
        )

    def _group(self, scaled: bool) -> str:
        name = self.options.host
        scaled = scaled and not self.serverless and self.options.concurrency_scaling
        return f"{name} (concurrency scaling)" if scaled else name

    def _scanned(self, rows: list[Any], since: datetime, until: datetime) -> dict[Any, int]:
        """Return Spectrum's bytes by query: by transaction, session and time.

        The two views number queries differently, so their ids are not compared.
        """
        queries: dict[tuple[Any, Any], list[Any]] = {}
        for row in sorted(rows, key=lambda row: row[7]):
            queries.setdefault((row[16], row[17]), []).append(row)
        found: dict[Any, int] = {}
        for xid, pid, begun, size in self._ask("svcs_s3query_summary", SPECTRUM, since, until):
            before = [row for row in queries.get((xid, pid), ()) if row[7] <= begun]
            if before:
                id_ = before[-1][0]
                found[id_] = found.get(id_, 0) + int(size)
            else:
                self.missing("Spectrum scans of queries that are not in sys_query_history")
        return found

    # -- what was paid for ----------------------------------------------------------------------

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the workgroup's minutes, or the cluster's hours and transient clusters."""
        if self.serverless:
            yield from self._minutes(since, until)
            return
        yield from self._hours(since, until)
        if self.options.concurrency_scaling:
            yield from self._transient(since, until)

    def _minutes(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        reached = since
        young = datetime.now(timezone.utc) - timedelta(hours=self.options.open_hours)
        for start, end, compute, charged in self._ask("sys_serverless_usage", USAGE, since, until):
            begun, done = utc(start), utc(end)
            if begun > reached:  # nothing ran, and nothing is charged
                yield self._rpus(reached, begun, 0)
            yield self._rpus(
                begun, done, int(charged or 0), final=bool(charged) or not compute or begun < young
            )
            reached = max(reached, done)
        if reached < until:
            yield self._rpus(reached, until, 0)

    def _rpus(self, start: datetime, end: datetime, seconds: int, *, final: bool = True) -> Stretch:
        return Stretch(
            group=self.options.host,
            started_at=start,
            ended_at=end,
            quantity=seconds,
            meter="rpu_seconds",
            idle=0,
            final=final,
            resource=self.resource,
        )

    def _hours(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        known = bool(self.options.node_type and self.options.nodes)
        start = since
        while start < until:
            end = min(start + timedelta(hours=1), until)
            seconds = (end - start) // timedelta(seconds=1)
            yield Stretch(
                group=self.options.host,
                started_at=start,
                ended_at=end,
                quantity=seconds * self.options.nodes,
                meter="node_seconds" if known else None,
                resource=self.resource,
                dimensions=self.dimensions,
            )
            start = end

    def _transient(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        rows = self._ask("svcs_concurrency_scaling_usage", SCALING, since, until)
        for start, end, seconds in rows:
            yield Stretch(
                group=self._group(True),
                started_at=utc(start),
                ended_at=utc(end),
                quantity=Decimal(seconds) * max(1, self.options.nodes),
                meter="concurrency_scaling_node_seconds",
                idle=0,
                resource=self.resource,
                dimensions=self.dimensions,
            )


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"
