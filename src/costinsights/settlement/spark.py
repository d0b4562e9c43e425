"""Spark's history: event logs, or the REST API of the history server or of a live application.

Both count the same tasks as the listener in an instrumented driver, so the figures are the same, to
the millisecond, and so are the ids: the application's, with the number of the SQL execution or job.

Spark has no price. Either the price book has one for ``core_seconds``: then every execution and job
costs its own, and what the application's executors had beside that is a charge of the application's
own. Or the hours of a cluster are paid for, as a ``[[capacity]]`` says, and `cores` says how many
cores that is: each hour is then shared by core-seconds, and what nobody had is idle.

Sources: https://spark.apache.org/docs/latest/monitoring.html and `costinsights.systems.spark_log`.
"""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

import msgspec

from costinsights.asking import NoSuchThing, patiently
from costinsights.records import Resource
from costinsights.settlement.history import Figure, History, HistoryError, Plan, Stretch, utc
from costinsights.systems.spark import IDLE, METERS, SYSTEM
from costinsights.systems.spark_log import EventLog, LogError, logs_in
from costinsights.systems.spark_rest import Malformed, begun, moment, rows, tell, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costinsights.systems.spark import Application, Unit
    from costinsights.systems.spark_log import Log

    Row = Mapping[str, Any]

HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
PAGE = 500
"""SQL executions to a request."""
CLUSTER = "cluster"
_UNIT = re.compile(r"/(sql|job)/\d+$")


class SparkOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle.spark]``."""

    logs: tuple[str, ...] = ()
    """Event logs, and folders of them: ``spark.eventLog.dir``, as this machine sees it."""
    url: str = ""
    """The history server, ``http://history:18080``, or a driver's UI, ``http://driver:4040``."""
    token: str = ""
    """Sent as a bearer's, where something before the server asks for it."""
    cores: int = 0
    """How many cores the ``[[capacity]]`` pays for. 0: core-seconds are priced by the book."""
    abandoned_hours: float = 1
    """A log without an end that was not written to for so long is of a driver that was killed."""
    timeout: float = 60
    """Seconds that a request may take."""


class SparkHistory(History):
    """Reads the applications of a folder of event logs, and of a server."""

    system = SYSTEM
    by_id = True
    latency = timedelta(0)
    grants = "read access to spark.eventLog.dir; to the UI, an account of spark.ui.view.acls"
    meters = METERS
    verified = "PySpark 3.5 and 4.3, real engine"
    dependencies = "pyarrow"
    Options = SparkOptions
    options: SparkOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        given = self.options
        if not given.logs and not given.url:
            raise HistoryError(
                'nobody has said where Spark\'s history is: put  logs = ["/path/of/eventLog.dir"]'
                "  or  url = …  into [settle.spark] of costinsights.toml (docs/systems/spark.md)"
            )
        parts = urlsplit(given.url)
        if given.url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise HistoryError("[settle.spark]: url is not like http://history:18080")
        if given.token and parts.scheme != "https":
            raise HistoryError("[settle.spark]: a token is sent by https only")
        self._shared: dict[str, Figure] = {}
        """With `cores`: what takes its share of hours, by its id."""
        self._found: set[str] = set()
        self._whole: set[str] = set()
        """Applications that have ended, and whose logs have all that they did."""

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what is read; it is free."""
        which = "all applications" if self.everything else f"{len(self._wanted())} applications"
        span = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
        reads = [f"event logs of {which} {span}, in {path}" for path in self.options.logs]
        if self.options.url:
            reads.append(f"{which} {span}, as {urlsplit(self.options.url).netloc} has them")
        return Plan(tuple(reads))

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the executions and jobs of the applications that are wanted, and their idle time."""
        for figure in self._figures(since):
            if figure.started_at < until and (figure.ended_at or until) >= since:
                if figure.group is not None and figure.vendor_id is not None:
                    self._shared[figure.vendor_id] = figure
                yield figure
        for id_ in self.pending:
            if _UNIT.sub("", id_) in self._whole and id_ not in self._found:
                self.gone(id_, "its application has ended, and its log has nothing of it")

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the hours of a cluster that is paid for by the hour; `cores` says how much it has."""
        shared = list(self._shared.values())
        while shared and since < until:
            end, capacity = since + HOUR, self.options.cores * 3600
            busy = sum(_share(figure, since, end) for figure in shared)
            yield Stretch(
                group=CLUSTER,
                started_at=since,
                ended_at=end,
                quantity=capacity,
                idle=max(0, capacity - round(busy)),
                resource=Resource(shared[0].resource.address, shared[0].resource.port),
            )
            since = end

    # -- which ----------------------------------------------------------------------------------

    def _wanted(self) -> set[str]:
        """Return the applications that charges wait for."""
        return {_UNIT.sub("", id_) for id_ in self.pending}

    def _figures(self, since: datetime) -> Iterator[Figure]:
        wanted = self._wanted()
        for path in self.options.logs:
            try:
                for log in logs_in(path):
                    ours = self.everything and utc(log.modified) >= since
                    if ours or log.name in {id_.replace("/", "_") for id_ in wanted}:
                        yield from self._of_log(log)
            except LogError as error:
                self.missing(str(error))
        if self.options.url:
            yield from self._of_server(since, wanted)

    # -- event logs -----------------------------------------------------------------------------

    def _of_log(self, log: Log) -> Iterator[Figure]:
        self.spend()
        read = EventLog(log)
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            self.progress("reading event logs (bytes)", done, log.size)

        try:
            for unit in read.units(advance):
                if read.application is not None:
                    yield self._figure(read.application, unit)
        except LogError as error:
            self.missing(str(error))
        if read.broken:
            self.missing(f"{log.name} has {read.broken} lines that are not as Spark writes them")
        if log.compacted:
            self.missing(
                f"{log.name} was compacted: jobs that were done are not in it any more "
                "(spark.history.fs.eventLog.rolling.maxFilesToRetain)"
            )
        if read.application is None:
            self.missing(f"{log.name} has no SparkListenerApplicationStart")
            return
        idle_for = time.time() - log.modified
        if read.application.ended is None and idle_for > self.options.abandoned_hours * 3600:
            read.application.end(read.application.latest)
        if read.application.ended is not None and not log.compacted and not read.broken:
            self._whole.add(read.application.id)
        yield from self._rest(read.application, read.application.latest)

    # -- REST -----------------------------------------------------------------------------------

    def _of_server(self, since: datetime, wanted: set[str]) -> Iterator[Figure]:
        for found in self._applications(since, wanted):
            for attempt in rows(found.get("attempts"), "attempts"):
                number = attempt.get("attemptId")
                id_ = f"{found.get('id')}/{number}" if number else str(found.get("id"))
                if not self.everything and id_ not in wanted:
                    continue
                try:
                    yield from self._of_attempt(id_, found, attempt)
                except Malformed as error:
                    self.missing(f"{id_}: {error}")

    def _applications(self, since: datetime, wanted: set[str]) -> Iterator[Row]:
        if self.everything:
            named = {"minEndDate": f"{since:%Y-%m-%dT%H:%M:%S}.000GMT"}
            yield from rows(self._ask("/applications", **named), "applications")
            return
        for id_ in sorted({id_.partition("/")[0] for id_ in wanted}):
            try:
                yield cast("Row", self._ask(f"/applications/{quote(id_)}"))
            except NoSuchThing:
                self.missing(f"{urlsplit(self.options.url).netloc} does not know {id_}")

    def _of_attempt(self, id_: str, found: Row, attempt: Row) -> Iterator[Figure]:
        path = f"/applications/{quote(id_)}"
        application = begun(found, attempt, cast("Row", self._ask(f"{path}/environment")))
        jobs = rows(self._ask(f"{path}/jobs"), "jobs")
        tell(
            application,
            jobs,
            self._executions(path),
            rows(self._ask(f"{path}/stages"), "stages"),
            rows(self._ask(f"{path}/allexecutors"), "executors"),
        )
        if jobs and min(whole(job, "jobId") for job in jobs) > 0:
            self.missing(
                f"{id_}: the UI has forgotten its first jobs (spark.ui.retainedJobs, "
                "…retainedStages): the event log has them"
            )
        ended = moment(attempt, "endTime") if attempt.get("completed") else None
        until = int(time.time() * 1000) if ended is None else ended
        if ended is not None:
            application.end(ended)
        for unit in application.finished():
            yield self._figure(application, unit)
        yield from self._rest(application, until)

    def _executions(self, path: str) -> Iterator[Row]:
        offset = 0
        while True:
            page = rows(
                self._ask(
                    f"{path}/sql",
                    details="false",
                    planDescription="false",
                    offset=str(offset),
                    length=str(PAGE),
                ),
                "executions",
            )
            yield from page
            offset += len(page)
            if len(page) < PAGE:
                return

    def _ask(self, path: str, **query: str) -> object:
        given = self.options
        headers = {"Accept": "application/json"}
        if given.token:
            headers["Authorization"] = f"Bearer {given.token}"
        url = f"{given.url.rstrip('/')}/api/v1{path}"
        request = Request(f"{url}?{urlencode(query)}" if query else url, headers=headers)  # noqa: S310  http(s), by __init__

        def call() -> object:
            with urlopen(request, timeout=given.timeout) as answer:  # noqa: S310  as above
                return json.load(answer)

        try:
            return patiently(self, path, call)
        except (ValueError, RecursionError):
            raise HistoryError(f"{self.system}: {path} is answered with no JSON") from None

    # -- figures --------------------------------------------------------------------------------

    def _rest(self, application: Application, until: int) -> Iterator[Figure]:
        """Yield what is left of an application: units under way, and its own idle time."""
        for unit in [*application.finished(), *application.units.values()]:
            yield self._figure(application, unit)
        meters = application.idle(until)
        self._found.add(application.id)
        yield self._made(
            application,
            application.id,
            application.started,
            application.ended,
            max(until, application.latest),
            meters,
            operation=IDLE,
            labels=application.labels(),
        )

    def _figure(self, application: Application, unit: Unit) -> Figure:
        vendor_id = application.vendor_id(unit)
        self._found.add(vendor_id)
        text = application.text(unit)
        return self._made(
            application,
            vendor_id,
            unit.started,
            unit.ended if unit.done else None,
            application.latest,
            application.meters(unit),
            operation=None if text else unit.key.kind.upper(),
            labels=application.labels(unit),
            text=text,
            error=unit.error,
            problem=unit.doubt,
            also=application.operations(unit),
        )

    def _made(
        self,
        application: Application,
        vendor_id: str,
        started: int,
        ended: int | None,
        latest: int,
        meters: Mapping[str, int | float | str],
        **more: Any,
    ) -> Figure:
        address, port = application.address()
        shared = self.options.cores > 0
        return Figure(
            vendor_id=vendor_id,
            started_at=_at(started),
            ended_at=None if ended is None else _at(ended),
            so_far=_at(latest) if ended is None else None,
            meters=meters,
            billed=() if shared else ("core_seconds",),
            group=CLUSTER if shared else None,
            weight=round(float(meters["core_seconds"]) * 1000),
            resource=Resource(address, port, application.name or None),
            program=application.name or None,
            **more,
        )


def _share(figure: Figure, start: datetime, end: datetime) -> Fraction:
    """Return the core-seconds of a figure's work that lie in an hour, in proportion to its time."""
    last = figure.ended_at or figure.started_at
    work, length = Fraction(figure.weight) / 1000, last - figure.started_at
    if length <= timedelta(0):
        return work if start <= figure.started_at < end else Fraction(0)
    inside = max(timedelta(0), min(end, last) - max(start, figure.started_at))
    return work * (inside // MICROSECOND) / (length // MICROSECOND)


def _at(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
