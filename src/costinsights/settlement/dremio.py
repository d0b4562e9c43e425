"""Dremio's history: its jobs, and the DCUs of its engines.

Cloud: the DCUs of each replica of an engine (``sys.organization.usage``) are split over the jobs of
their time (``sys.project.history.jobs``) by CPU time; what no job used is idle. Software is licensed
and has no meter: each hour costs what the ``[[capacity]]`` says that fits the host, and is split over
``sys.jobs_recent`` in the same way. All is read with Flight SQL.

Columns: docs.dremio.com, sql/system-tables (jobs_recent, jobs-historical, usage). Of
``sys.project.history.jobs`` the columns in milliseconds are taken to be those of ``jobs_recent``.
How an engine's name (of a job) and its id (of the usage) belong together no page was found to say:
without `engines` all of them are one capacity.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from costinsights.records import Resource
from costinsights.settlement.history import MARK, Figure, History, HistoryError, Plan, Stretch, utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONGEST = timedelta(days=1)
"""A job that began earlier is not looked for."""
ROWS = 10_000
EVERYTHING = "dremio"
FAILED = frozenset(("FAILED", "CANCELED", "INVALID_STATE"))
METERS = ("execution_cpu_time_ns", "rows_scanned", "bytes_scanned", "bytes_returned")
TABLES = {"software": "sys.jobs_recent", "cloud": "sys.project.history.jobs"}

JOBS = """
SELECT job_id, status, query_type, user_name, engine, submitted_epoch_millis,
       final_state_epoch_millis, rows_returned, query, {cpu}, rows_scanned, bytes_scanned,
       bytes_returned
FROM {table}
WHERE submitted_epoch_millis >= {earliest} AND submitted_epoch_millis < {until}
  AND (final_state_epoch_millis IS NULL OR final_state_epoch_millis >= {since})
/* {mark} */
"""
USAGE = """
SELECT engine_id, start_time, end_time, total_usage_dcus
FROM sys.organization.usage
WHERE start_time < TIMESTAMP '{until}' AND end_time > TIMESTAMP '{since}'
ORDER BY engine_id, start_time, end_time, replica_id
/* {mark} */
"""
# CPU time in nanoseconds, by the column that a version has for it.
CPU = {
    "execution_cpu_time_ns": "execution_cpu_time_ns",
    "execution_cpu_time_millis": "execution_cpu_time_millis * 1000000",
}


class DremioOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle.dremio]``."""

    uri: str
    """Where Flight SQL is: ``grpc+tls://data.dremio.cloud:443``, ``grpc+tls://dremio.example:32010``."""
    token: str = ""
    user: str = ""
    password: str = ""
    edition: Literal["software", "cloud"] = "software"
    cpu: Literal["execution_cpu_time_ns", "execution_cpu_time_millis"] = "execution_cpu_time_ns"
    """The column of CPU time: Dremio Software 25 has it in milliseconds."""
    engines: dict[str, str] = {}
    """Of Cloud: the id of each engine, by its name. With them each engine is split on its own."""


class DremioHistory(History):
    """Reads one Dremio, or one project of Dremio Cloud."""

    system = "dremio"
    latency = timedelta(hours=2)
    retention = timedelta(days=365)
    grants = (
        "GRANT VIEW JOB HISTORY ON SYSTEM TO USER settlement\n"
        "-- or the role ADMIN, where a version has no such privilege"
    )
    meters = METERS
    verified = "emulator: Flight SQL server over gRPC"
    dependencies = "costinsights[adbc_flightsql]"
    Options = DremioOptions
    options: DremioOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        super().__init__(options)
        self.cloud = self.options.edition == "cloud"
        host, _, port = self.options.uri.rpartition("://")[2].partition("/")[0].partition(":")
        self.resource = Resource(host, int(port) if port.isdigit() else None)
        self.place = (self.resource, {})
        self._connection: Any = None

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say which tables are read. Whether an engine of Cloud runs, nobody can be asked."""
        tables = [TABLES[self.options.edition], *(("sys.organization.usage",) * self.cloud)]
        span = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}"
        wakes = (
            "A query may start an engine of Dremio Cloud, which is charged for in DCUs until it "
            "stops; whether one runs cannot be asked without a query."
        )
        return Plan(tuple(f"{table} {span}" for table in tables), wakes=wakes * self.cloud or None)

    def open(self) -> None:
        """Connect.

        Raises:
            HistoryError: the server cannot be reached, or does not accept the login.
        """
        flightsql: Any = import_module("adbc_driver_flightsql.dbapi")
        given = self.options
        login: dict[str, str] = {}
        if given.token:
            login["adbc.flight.sql.authorization_header"] = f"Bearer {given.token}"
        elif given.user:
            login = {"username": given.user, "password": given.password}
        try:
            self._connection = flightsql.connect(given.uri, db_kwargs=login, autocommit=True)
        except flightsql.Error as error:
            raise HistoryError(f"dremio: {type(error).__name__} at {given.uri}") from None

    def close(self) -> None:
        """Close the connection, where there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Read the jobs."""
        query = JOBS.format(
            table=TABLES[self.options.edition],
            cpu=CPU[self.options.cpu],
            earliest=_millis(since - LONGEST),
            since=_millis(since),
            until=_millis(until),
            mark=MARK,
        )
        for row in self._ask(query, TABLES[self.options.edition]):
            yield self._figure(row)

    def _figure(self, row: tuple[Any, ...]) -> Figure:
        job, status, kind, user, engine, start, end, returned, text = row[:9]
        meters = {
            name: int(value)
            for name, value in zip(METERS, row[9:], strict=True)
            if value is not None
        }
        return Figure(
            vendor_id=str(job),
            started_at=_moment(start),
            ended_at=None if not end else _moment(end),
            user=user,
            program=kind,
            text=text,
            meters=meters,
            rows=None if returned is None else int(returned),
            error=status if status in FAILED else None,
            resource=self.resource,
            group=self.options.engines.get(engine or "", EVERYTHING),
            weight=meters.get("execution_cpu_time_ns", 0),
        )

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Read the DCUs of Cloud's engines; of Software, each hour is what the user says."""
        if not self.cloud:
            hours = (until - since) // timedelta(hours=1)
            for hour in range(hours):
                begun = since + timedelta(hours=hour)
                yield Stretch(
                    group=EVERYTHING,
                    started_at=begun,
                    ended_at=begun + timedelta(hours=1),
                    resource=self.resource,
                )
            return
        query = USAGE.format(since=_literal(since), until=_literal(until), mark=MARK)
        known = frozenset(self.options.engines.values())
        for engine, start, end, dcus in self._ask(query, "sys.organization.usage"):
            yield Stretch(
                group=engine if engine in known else EVERYTHING,
                started_at=utc(start),
                ended_at=utc(end),
                quantity=Decimal(str(dcus)),
                meter="dcus",
                resource=self.resource,
            )

    def _ask(self, query: str, what: str) -> Iterator[tuple[Any, ...]]:
        """Run a query, and yield its rows."""
        manager: Any = import_module("adbc_driver_manager.dbapi")
        self.spend()
        with self._connection.cursor() as cursor:
            try:
                cursor.execute(query)
                while rows := cursor.fetchmany(ROWS):
                    yield from rows
            except manager.Error as error:
                said = str(error)
                if "PERMISSION" in said.upper() or "NOT AUTHORIZED" in said.upper():
                    raise self.denied(what) from None
                raise HistoryError(f"dremio: reading {what}: {said.splitlines()[0]}") from None


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment(millis: int) -> datetime:
    return utc(0) + timedelta(milliseconds=int(millis))


def _literal(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
