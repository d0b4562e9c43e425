"""Databricks SQL's history: ``system.query.history``, and the warehouse-hours of the bill.

No query of a SQL warehouse has a price of its own: what is billed is the warehouse, by the hour. An
hour's DBUs (``system.billing.usage``, all record types added up, so that corrections net out) times
the list price (``system.billing.list_prices``) are split over the queries of the hour by
``total_task_duration_ms``; what no query used is idle. Discounts that were negotiated are in no
system table: `multiplier` says what remains of the list price.

Tables and columns: docs.databricks.com, admin/system-tables (query-history, billing, pricing). All
that is asked runs on the warehouse that the options name, in the Statement Execution API, and is
bounded in time.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from operator import attrgetter
from time import sleep
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from costinsights.records import Resource
from costinsights.settlement.history import MARK, Figure, History, HistoryError, Plan, Stretch, utc
from costinsights.tagging import tag_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Row = list[str | None]

LONGEST = timedelta(days=2)
"""A statement's time limit on a warehouse, if nobody sets another (STATEMENT_TIMEOUT)."""
SLICE = timedelta(days=1)
SHORTEST = timedelta(minutes=1)
REDACTED = "<REDACTED>"
AWAKE = frozenset(("RUNNING", "STARTING"))
ENDED = frozenset(("SUCCEEDED", "FAILED", "CANCELED", "CLOSED"))
TEXT = 16_384
"""Characters of a statement that are read: redacted, more is not kept either."""

METERS = (
    "total_task_duration_ms",
    "execution_duration_ms",
    "compilation_duration_ms",
    "waiting_for_compute_duration_ms",
    "waiting_at_capacity_duration_ms",
    "result_fetch_duration_ms",
    "read_bytes",
    "read_rows",
    "written_bytes",
    "spilled_local_bytes",
    "shuffle_read_bytes",
)
QUERIES = """
SELECT statement_id, compute.warehouse_id, executed_by, statement_type, execution_status,
       unix_micros(start_time), unix_micros(end_time), produced_rows, from_result_cache,
       coalesce(client_application, client_driver), to_json(query_tags),
       left(statement_text, {text}), {meters}
FROM system.query.history
WHERE start_time >= TIMESTAMP '{earliest}' AND start_time < TIMESTAMP '{until}'
  AND (end_time IS NULL OR end_time > TIMESTAMP '{since}')
  AND compute.warehouse_id IS NOT NULL{only}
/* {mark} */
"""
USAGE = """
SELECT usage_metadata.warehouse_id, unix_micros(usage_start_time), unix_micros(usage_end_time),
       sku_name, cloud, usage_unit, sum(usage_quantity)
FROM system.billing.usage
WHERE usage_date >= DATE '{first}' AND usage_date <= DATE '{last}'
  AND usage_start_time < TIMESTAMP '{until}' AND usage_end_time > TIMESTAMP '{since}'
  AND usage_metadata.warehouse_id IS NOT NULL{only}
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY 1, 2, 3, 4, 5, 6
/* {mark} */
"""
PRICES = """
SELECT sku_name, cloud, usage_unit, unix_micros(price_start_time), unix_micros(price_end_time),
       currency_code, pricing.effective_list.default
FROM system.billing.list_prices
WHERE price_end_time IS NULL OR price_end_time > TIMESTAMP '{since}'
ORDER BY 1, 2, 3, 4
/* {mark} */
"""
# A SKU of a warehouse, such as PREMIUM_SERVERLESS_SQL_COMPUTE_US_EAST_N_VIRGINIA.
SKU = re.compile(r"(STANDARD|PREMIUM|ENTERPRISE)_(SERVERLESS_SQL|SQL_PRO|SQL)_COMPUTE")
WORKLOADS = {"SERVERLESS_SQL": "sql_serverless", "SQL_PRO": "sql_pro", "SQL": "sql_classic"}


class DatabricksOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle.databricks]``. What is left out of the first five, the SDK finds by itself."""

    warehouse: str
    """The id of the warehouse that is asked: it runs our queries, and its time is charged."""
    host: str = ""
    token: str = ""
    client_id: str = ""
    client_secret: str = ""
    profile: str = ""
    """Of ``~/.databrickscfg``."""
    warehouses: tuple[str, ...] = ()
    """Only what ran on these; empty: on all that the system tables know of."""
    multiplier: Decimal = Decimal(1)
    """What remains of the list price after a discount."""
    dbus_per_hour: dict[str, Decimal] = {}
    """By warehouse: what it is billed for an hour. With it is known how long it was on within an
    hour, and idle is what was left of that."""
    billing_hours: int = 12
    """How long an hour's records may still come in."""
    timeout: int = 900
    """Seconds that one query of ours may take."""


class DatabricksHistory(History):
    """Reads the SQL warehouses of an account's region."""

    system = "databricks"
    latency = timedelta(hours=1)
    retention = timedelta(days=365)
    grants = """\
GRANT USE CATALOG ON CATALOG system TO `settlement`;
GRANT USE SCHEMA ON SCHEMA system.query TO `settlement`;
GRANT SELECT ON TABLE system.query.history TO `settlement`;
GRANT USE SCHEMA ON SCHEMA system.billing TO `settlement`;
GRANT SELECT ON TABLE system.billing.usage TO `settlement`;
GRANT SELECT ON TABLE system.billing.list_prices TO `settlement`;
-- and the permission CAN USE on the SQL warehouse that is asked"""
    meters = (*METERS, "from_result_cache")
    verified = "emulator: unmodified databricks-sdk 0.156"
    dependencies = "costinsights[databricks_sdk]"
    Options = DatabricksOptions
    options: DatabricksOptions
    pause: ClassVar[float] = 1.0
    """Seconds between two looks at a query of ours that still runs."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        super().__init__(options)
        self._client: Any = None
        self.place = (Resource(namespace=self.options.warehouse), {})

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what is read; and ask the management API, which wakes nothing, whether it sleeps."""
        warehouse = self._called("warehouses.get", self.options.warehouse)
        state = warehouse.state.value if warehouse.state is not None else "unknown"
        span = f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}"
        reads = (
            f"system.query.history {span}, on warehouse {self.options.warehouse}",
            f"system.billing.usage {span}, and system.billing.list_prices",
        )
        wakes = None
        if state not in AWAKE:
            size = f" ({warehouse.cluster_size})" if warehouse.cluster_size else ""
            stop = warehouse.auto_stop_mins
            wakes = (
                f"Warehouse {self.options.warehouse}{size} is {state.lower()}: to ask it starts it, "
                "and it is charged for until it stops"
                + (f", {stop} minutes after the last query at the earliest." if stop else " again.")
            )
        return Plan(reads, wakes=wakes)

    def open(self) -> None:
        """Nothing is opened: the API has no sessions."""

    def close(self) -> None:
        """Let go of the client."""
        self._client = None

    # -- queries --------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Read the history a day at a time, or in smaller parts where a day is too much."""
        begin = since
        while begin < until:
            end = min(begin + SLICE, until)
            # What began before is read with the first slice only.
            earliest = since - LONGEST if begin == since else begin
            yield from self._slice(earliest, begin, end)
            begin = end

    def _slice(self, earliest: datetime, since: datetime, until: datetime) -> Iterator[Figure]:
        query = QUERIES.format(
            earliest=_literal(earliest),
            since=_literal(since),
            until=_literal(until),
            only=self._only("compute.warehouse_id"),
            meters=", ".join(METERS),
            text=TEXT,
            mark=MARK,
        )
        try:
            rows = list(self._ask(query, "system.query.history"))
        except _TooLargeError:
            middle = since + (until - since) / 2
            if until - since <= SHORTEST:
                raise
            yield from self._slice(earliest, since, middle)
            yield from self._slice(middle, middle, until)
            return
        for row in rows:
            yield _figure(row)

    # -- hours ----------------------------------------------------------------------------------

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Read what each warehouse was billed for, an hour at a time, and the list prices."""
        prices = [
            _ListPrice(*row) for row in self._ask(_query(PRICES, since, until), "list_prices")
        ]
        usage = _query(USAGE, since, until, only=self._only("usage_metadata.warehouse_id"))
        settled = self.now() - timedelta(hours=self.options.billing_hours)
        for warehouse, start, end, sku, cloud, unit, quantity in self._ask(usage, "usage"):
            dbus = Decimal(quantity or 0)
            if not dbus:
                continue  # all of it was taken back
            begun, ended = _moment(start), _moment(end)
            price = next((one for one in prices if one.fits(sku, cloud, unit, int(end or 0))), None)
            stretch = Stretch(
                group=warehouse or "",
                started_at=begun,
                ended_at=ended,
                quantity=dbus,
                uptime=self._uptime(warehouse or "", dbus, ended - begun),
                final=ended <= settled,
                resource=Resource(namespace=warehouse),
            )
            if price is not None:
                each = price.each * self.options.multiplier
                yield msgspec.structs.replace(
                    stretch,
                    amount=dbus * each,
                    currency=price.currency,
                    unit_price=each,
                    unit=unit or "DBU",
                    source=f"system.billing.list_prices: {sku}",
                )
            else:
                self.missing(f"system.billing.list_prices has no price of {sku}")
                yield msgspec.structs.replace(
                    stretch, meter="dbus", dimensions=_dimensions(sku or "", cloud or "")
                )

    def now(self) -> datetime:
        """Return the moment by which an hour's bill is young or old."""
        return datetime.now(timezone.utc)

    def _uptime(self, warehouse: str, dbus: Decimal, most: timedelta) -> timedelta | None:
        each = self.options.dbus_per_hour.get(warehouse)
        return None if not each else min(timedelta(hours=float(dbus / each)), most)

    # -- asking ---------------------------------------------------------------------------------

    def _only(self, column: str) -> str:
        names = ", ".join("'{}'".format(name.replace("'", "")) for name in self.options.warehouses)
        return f"\n  AND {column} IN ({names})" if names else ""

    def _ask(self, query: str, what: str) -> Iterator[Row]:
        """Run a query of ours to its end, and yield its rows."""
        answer = self._finished(query)
        state, error = answer.status.state.value, answer.status.error
        said = "" if error is None or error.message is None else str(error.message)
        if "EXTERNAL_LINKS" in said or (answer.manifest is not None and answer.manifest.truncated):
            raise _TooLargeError(f"databricks: {what} is too large for one answer")
        if any(word in said for word in ("INSUFFICIENT_PERMISSIONS", "does not have", "DENIED")):
            raise self.denied(what)
        if state != "SUCCEEDED":
            raise HistoryError(f"databricks: reading {what} ended as {state}: {said[:300]}")
        chunk = answer.result
        while chunk is not None:
            yield from chunk.data_array or ()
            number = chunk.next_chunk_index
            if number is None:
                return
            chunk = self._called(
                "statement_execution.get_statement_result_chunk_n", answer.statement_id, number
            )

    def _finished(self, query: str) -> Any:
        from databricks.sdk.service.sql import QueryTag

        answer = self._called(
            "statement_execution.execute_statement",
            query,
            self.options.warehouse,
            wait_timeout="30s",
            query_tags=[QueryTag(key=MARK, value="1")],
        )
        waited = 0.0
        while answer.status.state.value not in ENDED:
            if waited > self.options.timeout:
                self._called("statement_execution.cancel_execution", answer.statement_id)
                raise HistoryError(f"databricks: no answer within {self.options.timeout} s")
            sleep(self.pause)
            waited += self.pause
            answer = self._called("statement_execution.get_statement", answer.statement_id)
        return answer

    def _called(self, method: str, *args: object, **kwargs: object) -> Any:
        """Make one request, and say what is wrong without a secret."""
        errors: Any = import_module("databricks.sdk.errors")
        self.spend()
        try:
            if self._client is None:
                self._client = self._connected()
            return attrgetter(method)(self._client)(*args, **kwargs)
        except errors.PermissionDenied:
            raise self.denied(f"with warehouse {self.options.warehouse}") from None
        except errors.Unauthenticated:
            raise HistoryError("databricks: the workspace does not accept the login") from None
        except errors.DatabricksError as error:
            raise HistoryError(f"databricks: {type(error).__name__}: {error}") from None

    def _connected(self) -> Any:
        from databricks.sdk import WorkspaceClient

        given = {
            name: getattr(self.options, name)
            for name in ("host", "token", "client_id", "client_secret", "profile")
            if getattr(self.options, name)
        }
        try:
            return WorkspaceClient(product="costinsights", **given)
        except ValueError as error:
            raise HistoryError(f"databricks: {str(error).splitlines()[0]}") from None


class _TooLargeError(HistoryError):
    """An answer does not fit into the API's limit for one that comes with the response."""


class _ListPrice:
    """A line of ``system.billing.list_prices``."""

    def __init__(
        self,
        sku: str | None,
        cloud: str | None,
        unit: str | None,
        start: str | None,
        end: str | None,
        currency: str | None,
        each: str | None,
    ) -> None:
        self._what = (sku, cloud, unit)
        self._start, self._end = int(start or 0), None if end is None else int(end)
        self.currency = currency or "USD"
        self.each = Decimal(each or 0)

    def fits(self, sku: str | None, cloud: str | None, unit: str | None, ended: int) -> bool:
        """Tell whether it prices what was used until `ended` (µs), as Databricks joins the two."""
        return (
            self._what == (sku, cloud, unit)
            and ended >= self._start
            and (self._end is None or ended < self._end)
        )


def _query(query: str, since: datetime, until: datetime, only: str = "") -> str:
    return query.format(
        since=_literal(since),
        until=_literal(until),
        first=f"{since - timedelta(days=1):%Y-%m-%d}",
        last=f"{until:%Y-%m-%d}",
        only=only,
        mark=MARK,
    )


def _figure(row: Row) -> Figure:
    (statement_id, warehouse, user, kind, status, start, end, produced, cached, program) = row[:10]
    tags: dict[str, str | None] = json.loads(row[10] or "{}") or {}
    text, counted = row[11], zip(METERS, row[12:], strict=True)
    meters: dict[str, int | float | str] = {
        name: int(value) for name, value in counted if value is not None
    }
    if cached is not None:
        meters["from_result_cache"] = int(cached == "true")
    ours = {key[3:]: value for key, value in tags.items() if key.startswith("ci_")}
    return Figure(
        vendor_id=statement_id,
        started_at=_moment(start),
        ended_at=None if end is None else _moment(end),
        tag=tag_of({key: ours.get(key) for key in ("asset", "job", "service")}),
        user=user,
        program=program,
        text=None if text == REDACTED else text,
        labels={key: value for key, value in tags.items() if value and not key.startswith("ci_")},
        operation=kind,
        meters=meters,
        rows=None if produced is None else int(produced),
        error=status if status in ("FAILED", "CANCELED") else None,
        resource=Resource(namespace=warehouse),
        group=warehouse,
        weight=int(meters.get("total_task_duration_ms", 0)),
    )


def _dimensions(sku: str, cloud: str) -> dict[str, str]:
    """Return the price book's words for a SKU that has no list price."""
    found = SKU.match(sku.upper())
    words = {"cloud": cloud.lower()}
    if found is not None:
        words.update(plan=found[1].lower(), workload=WORKLOADS[found[2]])
    return words


def _moment(microseconds: str | None) -> datetime:
    """Return microseconds since the epoch as a moment, exactly."""
    return utc(0) + timedelta(microseconds=int(microseconds or 0))


def _literal(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"
