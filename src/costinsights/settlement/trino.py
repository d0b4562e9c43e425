"""Trino's history: what an event listener wrote, or what the coordinator still remembers.

Three places have it, and the first of them that is configured is read:

- ``events``: files of query-completed events, one JSON object a line, as the HTTP event listener
  sends them and a collector or Kafka puts them down. The figures are exact.
- ``table``: the table that the MySQL event listener writes, through whatever catalog Trino sees it
  by. It has no column of times: a query's id begins with the moment, in UTC, that it was made.
- otherwise the coordinator's own list, ``/v1/query``: its newest queries, by default a hundred of
  them (``query.max-history``) for a quarter of an hour (``query.min-expire-age``), with figures that
  are rounded to three digits. It forgets none as long as there are no more than that, and all when
  it is started: of the time before, no hour is split.

What a cluster costs only its owner knows: an hour's price is that of the ``[[capacity]]`` that fits,
and it is split by CPU time.

Events, table and list: trino.io/docs/current/admin/event-listeners-http.html, …-mysql.html and
properties-query-management.html; the shapes are those that Trino 368 gives.
"""

from __future__ import annotations

import base64
import glob
import json
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import msgspec

from costinsights.records import Resource
from costinsights.settlement.history import MARK, Figure, History, HistoryError, Plan, Stretch, utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Row = Mapping[str, Any]

LONGEST = timedelta(hours=24)
"""How much earlier than the time to settle a query may have begun, by its id in a table."""
HOUR = timedelta(hours=1)
DONE = frozenset(("FINISHED", "FAILED"))
COLUMNS = (
    *("query_id", "query", "user", "source", "client_tags_json", "catalog", "query_state"),
    *("error_code", "update_type", "cpu_time_millis", "scheduled_time_millis", "wall_time_millis"),
    *("queued_time_millis", "total_rows", "total_bytes", "physical_input_bytes", "written_bytes"),
    *("peak_memory_bytes", "output_rows", "written_rows"),
)
# By our meters: the names in a table, in an event's statistics, and in the coordinator's list.
FIELDS: dict[str, tuple[str, str, str]] = {
    "cpu_time_ms": ("cpu_time_millis", "cpuTime", "totalCpuTime"),
    "wall_time_ms": ("scheduled_time_millis", "scheduledTime", "totalScheduledTime"),
    "elapsed_time_ms": ("wall_time_millis", "wallTime", "elapsedTime"),
    "queued_time_ms": ("queued_time_millis", "queuedTime", "queuedTime"),
    "processed_rows": ("total_rows", "totalRows", "rawInputPositions"),
    "processed_bytes": ("total_bytes", "totalBytes", "rawInputDataSize"),
    "physical_input_bytes": ("physical_input_bytes", "physicalInputBytes", "physicalInputDataSize"),
    "physical_written_bytes": ("written_bytes", "writtenBytes", "physicalWrittenDataSize"),
    "peak_memory_bytes": (
        "peak_memory_bytes",
        "peakUserMemoryBytes",
        "peakUserMemoryReservation",
    ),
}
TIMES = {"ns": "1e-6", "us": "1e-3", "ms": "1", "s": "1e3", "m": "6e4", "h": "3.6e6", "d": "8.64e7"}
SIZES = {unit: 1024**power for power, unit in enumerate(("B", "kB", "MB", "GB", "TB", "PB"))}
_QUANTITY = re.compile(r"([0-9.]+)\s*([a-zA-Z]+)")
_TABLE = re.compile(r'(?:\w+|"[^"]+")(?:\.(?:\w+|"[^"]+")){0,2}')


class TrinoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle.trino]``."""

    url: str
    """The coordinator: ``https://trino.example.com:8443``; by it charges are known as well."""
    user: str = "costinsights"
    password: str = ""
    events: tuple[str, ...] = ()
    """Files of query-completed events; names may have ``*``."""
    table: str = ""
    """The MySQL event listener's table as Trino sees it, ``mysql.history.trino_queries``."""
    history: int = 100
    """How many queries the coordinator keeps: its ``query.max-history``."""
    timeout: float = 60
    """Seconds that a request may take."""


class TrinoHistory(History):
    """Reads the queries of one cluster."""

    system = "trino"
    latency = timedelta(minutes=1)
    grants = """\
-- of the coordinator's list, in the rules of a file-based access control:
{"queries": [{"user": "costinsights", "allow": ["view"]}]}
-- of an event listener's table:
GRANT SELECT ON mysql.history.trino_queries TO USER costinsights;"""
    meters = tuple(FIELDS)
    verified = "Trino 368, real engine"
    dependencies = "costinsights[trino]"
    Options = TrinoOptions
    options: TrinoOptions
    header: ClassVar[str] = "X-Trino"

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        parts = urlsplit(self.options.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HistoryError(f"[settle.{self.system}]: url is not like https://host:8443")
        if self.options.table and not _TABLE.fullmatch(self.options.table):
            raise HistoryError(f"[settle.{self.system}]: table is not like catalog.schema.table")
        if self.options.password and parts.scheme != "https":
            raise HistoryError(f"[settle.{self.system}]: a password is sent by https only")
        self._secure = parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._host = parts.hostname
        self.place = (self._resource(None), {})
        self._listed: tuple[list[dict[str, Any]], datetime] | None = None

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what is read."""
        span = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC"
        given = self.options
        if given.events:
            return Plan((f"events {span}, in {', '.join(given.events)}",))
        if given.table:
            return Plan((f"{given.table} {span}, by one query on {self._host}:{self._port}",))
        return Plan((f"the queries that {self._host}:{self._port} remembers, {span}",))

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Read the place that is configured."""
        if self.options.events:
            found = self._of_files()
        elif self.options.table:
            found = self._of_table(since, until)
        else:
            found = self._of_list(since)
        for figure in found:
            if figure.started_at < until and (figure.ended_at or until) > since:
                yield figure

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield each hour of which the history is whole: the cluster is taken to be paid for."""
        given = self.options
        whole = since if given.events or given.table else self._list()[1]
        while since < until:
            end = since + HOUR
            if whole < end:
                yield Stretch(
                    group=self._group,
                    started_at=max(since, whole),
                    ended_at=end,
                    quantity=1,
                    resource=self._resource(None),
                )
            since = end

    @property
    def _group(self) -> str:
        return f"{self._host}:{self._port}"

    def _resource(self, catalog: str | None) -> Resource:
        return Resource(address=self._host, port=self._port, namespace=catalog)

    # -- events ---------------------------------------------------------------------------------

    def _of_files(self) -> Iterator[Figure]:
        paths = [path for name in self.options.events for path in sorted(glob.glob(name))]
        if not paths:
            raise HistoryError(f"{self.system}: no file is there of {self.options.events}")
        for path in paths:
            self.spend()
            broken = 0
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    try:
                        event = json.loads(line)
                        if "endTime" in event:  # of a query that is done
                            yield self._event(event)
                    except (ValueError, KeyError, TypeError):
                        broken += 1
            if broken:
                self.missing(f"{path} has {broken} lines that are no events")

    def _event(self, event: Row) -> Figure:
        metadata, context, used = event["metadata"], event["context"], event["statistics"]
        failure: Row = event.get("failureInfo") or {}
        code: Row = failure.get("errorCode") or {}
        update = metadata.get("updateType") is not None
        return self._figure(
            metadata["queryId"],
            utc(event["createTime"]),
            utc(event["endTime"]),
            {meter: _event_value(meter, used.get(names[1])) for meter, names in FIELDS.items()},
            user=context.get("user"),
            program=context.get("source"),
            tags=context.get("clientTags") or (),
            text=metadata.get("query"),
            catalog=context.get("catalog"),
            rows=used.get("writtenRows" if update else "outputRows"),
            error=code.get("name"),
        )

    # -- the table ------------------------------------------------------------------------------

    def _of_table(self, since: datetime, until: datetime) -> Iterator[Figure]:
        columns = ", ".join(f'"{name}"' for name in COLUMNS)
        query = (
            f"SELECT {columns} FROM {self.options.table} "  # noqa: S608  a name, and moments
            f"WHERE query_id >= '{since - LONGEST:%Y%m%d_%H%M%S}' "
            f"AND query_id < '{until:%Y%m%d_%H%M%S}' /* {MARK} */"
        )
        for row in self._ask(query):
            yield self._row(dict(zip(COLUMNS, row, strict=True)))

    def _row(self, row: Row) -> Figure:
        start = _made(row["query_id"])
        written = row["update_type"] is not None
        return self._figure(
            row["query_id"],
            start,
            start + timedelta(milliseconds=row["wall_time_millis"]),
            {meter: row[names[0]] for meter, names in FIELDS.items()},
            user=row["user"],
            program=row["source"],
            tags=json.loads(row["client_tags_json"] or "[]"),
            text=row["query"],
            catalog=row["catalog"],
            rows=row["written_rows" if written else "output_rows"],
            error=row["error_code"],
        )

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query of ours to its end."""
        self.spend()
        connection = self._connected()
        try:
            cursor = connection.cursor()
            cursor.execute(query)
            rows = cursor.fetchall()
        except Exception as error:  # noqa: BLE001  two drivers' errors, and requests' own
            if getattr(error, "error_name", "") == "PERMISSION_DENIED":
                raise self.denied(self.options.table) from None
            said = self.without_secrets(str(getattr(error, "message", error)))
            raise HistoryError(f"{self.system}: {type(error).__name__}: {said[:300]}") from None
        finally:
            connection.close()
        return [tuple(row) for row in rows]

    def _connected(self) -> Any:
        trino: Any = import_module("trino")
        given = self.options
        login = trino.auth.BasicAuthentication(given.user, given.password)
        return trino.dbapi.connect(
            host=self._host,
            port=self._port,
            http_scheme="https" if self._secure else "http",
            user=given.user,
            auth=login if given.password else None,
            source=MARK,
            client_tags=[MARK],
            request_timeout=given.timeout,
        )

    # -- the coordinator's list -----------------------------------------------------------------

    def _of_list(self, since: datetime) -> Iterator[Figure]:
        queries, whole = self._list()
        if whole > since:
            self.missing(
                f"{self._group} remembers its queries from {whole:%Y-%m-%d %H:%M} UTC on: "
                "settle more often, or have an event listener"
            )
        for query in queries:
            session, used = query["session"], query["queryStats"]
            code: Row = query.get("errorCode") or {}
            done = query["state"] in DONE
            yield self._figure(
                query["queryId"],
                utc(used["createTime"]),
                utc(used["endTime"]) if done else None,
                {meter: _shown(used.get(names[2])) for meter, names in FIELDS.items()},
                user=session.get("user"),
                program=session.get("source"),
                tags=session.get("clientTags") or (),
                text=query.get("query"),
                catalog=session.get("catalog"),
                rows=None,
                error=code.get("name"),
            )

    def _list(self) -> tuple[list[dict[str, Any]], datetime]:
        """Return what the coordinator remembers, and since when that is all there was."""
        if self._listed is None:
            up = _shown(self._page("/v1/info").get("uptime")) or 0
            queries: list[dict[str, Any]] = self._page("/v1/query")
            whole = datetime.now(timezone.utc) - timedelta(milliseconds=up)
            if len(queries) >= self.options.history:
                made = [utc(one["queryStats"]["createTime"]) for one in queries]
                whole = max(whole, min(made))
            self._listed = queries, whole
        return self._listed

    def _page(self, path: str) -> Any:
        given = self.options
        headers = {f"{self.header}-User": given.user, f"{self.header}-Source": MARK}
        if given.password:
            login = base64.b64encode(f"{given.user}:{given.password}".encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        request = Request(f"{given.url.rstrip('/')}{path}", headers=headers)  # noqa: S310  http(s)
        self.spend()
        try:
            with urlopen(request, timeout=given.timeout) as answer:  # noqa: S310  as above
                return json.load(answer)
        except HTTPError as error:
            error.close()
            if error.code in (401, 403):
                raise self.denied(f"{path} of {self._group}: HTTP {error.code}") from None
            raise HistoryError(f"{self.system}: {self._group}: HTTP {error.code}") from None
        except (URLError, OSError, ValueError) as error:
            raise HistoryError(f"{self.system}: {self._group} does not answer: {error}") from None

    # -- what they have in common ---------------------------------------------------------------

    def _figure(
        self,
        query_id: str,
        start: datetime,
        end: datetime | None,
        meters: Mapping[str, int | None],
        *,
        user: str | None,
        program: str | None,
        tags: Any,
        text: str | None,
        catalog: str | None,
        rows: int | None,
        error: str | None,
    ) -> Figure:
        known = {name: quantity for name, quantity in meters.items() if quantity is not None}
        return Figure(
            vendor_id=query_id,
            started_at=start,
            ended_at=end,
            tag=_tag(tags),
            user=user,
            program=program,
            text=text,
            meters=known,
            rows=rows,
            error=error,
            resource=self._resource(catalog),
            group=self._group,
            weight=known.get("cpu_time_ms", 0),
        )


def _tag(tags: list[str]) -> str | None:
    """Return the tag as the ledger has it, of client tags ``ci:asset=orders``, ``ci:job=…``."""
    ours = sorted(tag.removeprefix("ci:") for tag in tags if tag.startswith("ci:"))
    return ",".join(["ci", *ours]) if ours else ",".join(sorted(tags)) or None


def _made(query_id: str) -> datetime:
    """Return when a query's id was made: ``20261123_010659_00001_sqrpc``."""
    return datetime.strptime(query_id[:15], "%Y%m%d_%H%M%S").replace(tzinfo=timezone.utc)


def _event_value(meter: str, value: int | float | None) -> int | None:
    """Return whole milliseconds of seconds, and all else as it is."""
    if value is None:
        return None
    return round(Decimal(str(value)) * (1000 if meter.endswith("_ms") else 1))


def _shown(value: int | str | None) -> int | None:
    """Return milliseconds or bytes of what a page shows, ``5.94s`` or ``1.81MB``."""
    if value is None or isinstance(value, int):
        return value
    found = _QUANTITY.fullmatch(value)
    if found is None:
        return None
    number, unit = Decimal(found[1]), found[2]
    return round(number * (SIZES[unit] if unit in SIZES else Decimal(TIMES[unit])))
