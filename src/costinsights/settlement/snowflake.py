"""Snowflake's history: what its own attribution gives to each query, and what a warehouse's hours cost.

``ACCOUNT_USAGE.QUERY_HISTORY`` says what ran, ``QUERY_ATTRIBUTION_HISTORY`` how many credits of its
warehouse each query used, with those of a procedure's or a script's statements under the id of the
whole, and ``WAREHOUSE_METERING_HISTORY`` what each hour was charged. An hour's attributed credits
are split over its queries by Snowflake's own figures; the rest of the hour is idle. Queries of 100
ms or less have no figure there: they cost nothing but idle time. Cloud services are charged by the
day, above a tenth of the warehouses' credits: what is charged (``METERING_DAILY_HISTORY``, with its
adjustment) is a row of its own a day.

Columns and delays: docs.snowflake.com/en/sql-reference/account-usage. Credits are credits: what one
costs depends on edition and region, which no view that is open to all says.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights.records import Resource
from costinsights.settlement.history import MARK, Figure, History, HistoryError, Plan, Stretch, utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MINIMUM = 60
"""Seconds that a warehouse is charged for at least, each time it is resumed."""
QUESTIONS = 4
"""Queries on the warehouse, at most: those that began earlier are asked for apart."""
LONGEST = timedelta(days=2)
"""How long a statement may run before Snowflake stops it, by default."""
CLOUD_SERVICES = "cloud services"
# "Does not exist or not authorized" and "insufficient privileges", which Snowflake tells apart or not.
DENIED = frozenset((2003, 2043, 3001))
VIEWS = "snowflake.account_usage"

QUERIES = f"""
WITH attributed AS (
  SELECT query_id, COALESCE(root_query_id, query_id) AS whole, warehouse_name AS warehouse,
         credits_attributed_compute + COALESCE(credits_used_query_acceleration, 0) AS credits
  FROM {VIEWS}.query_attribution_history
  WHERE start_time >= {{begin}} AND start_time < {{until}}
)
SELECT h.query_id, h.query_tag, h.user_name, h.database_name,
       COALESCE(a.warehouse, h.warehouse_name), h.warehouse_size, h.query_type, h.query_text,
       h.execution_status, h.error_code, h.rows_produced, h.bytes_scanned, h.execution_time,
       h.credits_used_cloud_services,
       DATE_PART(epoch_millisecond, h.start_time), DATE_PART(epoch_millisecond, h.end_time),
       a.credits
FROM {VIEWS}.query_history h
LEFT JOIN (
  SELECT whole, MAX(warehouse) AS warehouse, SUM(credits) AS credits FROM attributed GROUP BY whole
) a ON a.whole = h.query_id
LEFT JOIN (SELECT DISTINCT query_id FROM attributed WHERE whole <> query_id) p
  ON p.query_id = h.query_id
WHERE h.start_time >= {{begin}} AND h.start_time < {{until}} AND p.query_id IS NULL
  AND (h.end_time IS NULL OR h.end_time > {{since}})
"""  # noqa: S608  a name of ours; the bounds are moments that we write
HOURS = f"""
SELECT warehouse_name, DATE_PART(epoch_millisecond, start_time),
       DATE_PART(epoch_millisecond, end_time), credits_used_compute,
       credits_attributed_compute_queries
FROM {VIEWS}.warehouse_metering_history
WHERE start_time >= {{since}} AND start_time < {{until}} ORDER BY start_time, warehouse_name
"""  # noqa: S608  as above
DAYS = f"""
SELECT usage_date,
       SUM(credits_used_cloud_services) + SUM(credits_adjustment_cloud_services)
FROM {VIEWS}.metering_daily_history
WHERE usage_date >= '{{first}}' AND usage_date < '{{last}}' GROUP BY usage_date ORDER BY usage_date
"""  # noqa: S608  as above


class SnowflakeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle.snowflake]``."""

    account: str
    user: str
    warehouse: str
    """The one that answers the questions, and is charged for it: an X-Small does."""
    password: str = ""
    token: str = ""
    """A programmatic access token, in place of a password."""
    private_key_file: str = ""
    authenticator: str = ""
    role: str = ""
    host: str = ""
    """The account's host, as charges have it; by default ACCOUNT.snowflakecomputing.com."""
    port: int = 443
    protocol: str = "https"
    edition: str = ""
    """What a credit costs is said by edition and region: ``enterprise`` …"""
    region: str = ""
    timeout: int = 120
    """Seconds after which Snowflake stops a question of ours: a bound to what it costs."""
    cloud_services: bool = True
    """Whether to read what cloud services were charged, a row a day."""


class SnowflakeHistory(History):
    """Reads one account."""

    system = "snowflake"
    latency = timedelta(hours=8)
    retention = timedelta(days=365)
    grants = (
        "GRANT DATABASE ROLE SNOWFLAKE.GOVERNANCE_VIEWER TO ROLE settlement;\n"
        "GRANT DATABASE ROLE SNOWFLAKE.USAGE_VIEWER TO ROLE settlement;\n"
        "GRANT USAGE ON WAREHOUSE settlement_wh TO ROLE settlement;"
    )
    meters = (
        "credits_attributed",
        "credits_used_cloud_services",
        "data_scanned_bytes",
        "execution_ms",
    )
    verified = "emulator: unmodified connector 3.18, 4.8 and 5.2"
    dependencies = "costinsights[snowflake]"
    Options = SnowflakeOptions
    options: SnowflakeOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Work out the account's host."""
        super().__init__(options)
        given = self.options
        host = given.host or f"{given.account.lower()}.snowflakecomputing.com"
        self.resource = Resource(host, given.port, None, None, given.region or None)
        self.dimensions = {"edition": given.edition} if given.edition else {}
        self.place = (self._at(given.warehouse), self.dimensions)
        self._connection: Any = None
        self._used: set[str] = set()
        """Groups that queries were read of."""

    def _at(self, warehouse: str | None, database: str | None = None) -> Resource:
        return msgspec.structs.replace(self.resource, namespace=database, service=warehouse)

    # -- what is going to happen ----------------------------------------------------------------

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say which views are read; ask cloud services, which wakes nothing, how the warehouse is."""
        span = (
            f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC, on {self.resource.address}"
        )
        views = ["query_history", "query_attribution_history", "warehouse_metering_history"]
        views += ["metering_daily_history"] * self.options.cloud_services
        reads = tuple(f"account_usage.{view} {span}" for view in views)
        name = self.options.warehouse
        try:
            state, size = self._warehouse(name)
        finally:
            self.close()  # whether it goes on is not known here
        self.place = (self._at(name), {**self.dimensions, "warehouse_size": size})
        wakes = None
        if state != "STARTED":
            wakes = (
                f"The warehouse {name} ({size}) is {state.lower()}: a query resumes it, and that is "
                f"charged for {MINIMUM} s at least."
            )
        seconds = max(MINIMUM, QUESTIONS * self.options.timeout)
        return Plan(reads, {"warehouse_seconds": seconds}, wakes)

    def _warehouse(self, name: str) -> tuple[str, str]:
        """Return the state and the size of a warehouse."""
        like = name.replace("'", "''")
        cursor = self._run("SHOW WAREHOUSES", f"SHOW WAREHOUSES LIKE '{like}'")
        names = [column[0].lower() for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        cursor.close()
        for row in rows:
            if str(row["name"]).upper() == name.upper():
                return str(row["state"]).upper(), str(row["size"])
        raise HistoryError(f"{self.system}: the role sees no warehouse {name}", grant=self.grants)

    # -- asking ---------------------------------------------------------------------------------

    def open(self) -> None:
        """Use the warehouse from now on; asking for its state did without."""
        name = self.options.warehouse.replace('"', '""')
        quoted = f'"{name}"' if name != name.upper() or '"' in name else name
        self._run("the warehouse", f"USE WAREHOUSE {quoted}").close()

    def close(self) -> None:
        """Hang up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> Any:
        if self._connection is not None:
            return self._connection
        try:
            import snowflake.connector as driver
        except ImportError:
            raise HistoryError(f"{self.system}: run  pip install '{self.dependencies}'") from None
        given = self.options
        words = (
            "user",
            "account",
            "password",
            "token",
            "private_key_file",
            "authenticator",
            "role",
        )
        asked: dict[str, Any] = {name: getattr(given, name) for name in words}
        if int(driver.__version__.partition(".")[0]) >= 5:  # it warns without
            asked["enable_server_session_keep_alive_auto_detection"] = False
        try:
            self._connection = driver.connect(
                **{name: value for name, value in asked.items() if value != ""},
                host=self.resource.address,
                port=given.port,
                protocol=given.protocol,
                session_parameters={
                    "QUERY_TAG": MARK,
                    "STATEMENT_TIMEOUT_IN_SECONDS": given.timeout,
                },
            )
        except Exception as error:  # noqa: BLE001  the driver's own errors, and its core's
            # Neither the driver's nor the server's words: they may repeat what was given.
            raise HistoryError(
                f"{self.system}: no connection to {self.resource.address} as the user of "
                f"[settle.{self.system}] ({type(error).__name__})"
            ) from None
        return self._connection

    def _run(self, what: str, text: str) -> Any:
        connection = self._connected()
        from snowflake.connector.errors import Error

        self.spend()
        cursor = connection.cursor()
        try:
            cursor.execute(text)
        except Error as error:
            cursor.close()
            if error.errno in DENIED:
                raise self.denied(what) from None
            raise HistoryError(f"{self.system}: {what} cannot be read ({error.sqlstate})") from None
        return cursor

    def _ask(self, view: str, text: str, **bounds: str) -> list[Any]:
        cursor = self._run(f"account_usage.{view}", text.format(**bounds).strip())
        try:
            rows: list[Any] = cursor.fetchall()
        finally:
            cursor.close()
        return rows

    # -- queries --------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the queries with the credits that Snowflake attributed to them."""
        rows = self._ask(
            "query_history or query_attribution_history",
            QUERIES,
            since=_moment(since),
            until=_moment(until),
            begin=_moment(since - LONGEST),
        )
        for row in rows:
            figure = self._figure(row)
            self._used.add(figure.group or CLOUD_SERVICES)
            yield figure

    def _figure(self, row: Any) -> Figure:
        id_, tag, user, database, warehouse, size, kind, text, status, code = row[:10]
        rows, scanned, execution, services, started, ended, credits_ = row[10:]
        used = _decimal(credits_)
        meters: dict[str, int | float | str] = {
            "credits_attributed": float(used),
            "credits_used_cloud_services": float(services or 0),
            "data_scanned_bytes": int(scanned or 0),
            "execution_ms": int(execution or 0),
        }
        if size:
            meters["warehouse_size"] = size
        return Figure(
            started_at=utc(int(started) / 1000),
            ended_at=None if ended is None or status == "RUNNING" else utc(int(ended) / 1000),
            vendor_id=id_,
            tag=tag or None,
            user=user,
            text=text or None,
            operation=kind,
            meters=meters,
            rows=None if rows is None else int(rows),
            error=None if status == "SUCCESS" else str(code or status),
            resource=self._at(warehouse, database),
            dimensions=self.dimensions,
            group=warehouse or CLOUD_SERVICES,
            weight=used,
        )

    # -- what was paid for ----------------------------------------------------------------------

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the warehouses' hours, also those in which none ran, and the days' cloud services."""
        bounds = {"since": _moment(since), "until": _moment(until)}
        hours = self._ask("warehouse_metering_history", HOURS, **bounds)
        charged: dict[str, dict[datetime, Stretch]] = {}
        for name, start, end, used, attributed in hours:
            begun, done = utc(int(start) / 1000), utc(int(end) / 1000)
            credits_, given = _decimal(used), _decimal(attributed)
            charged.setdefault(name, {})[begun] = self._credits(
                name, begun, done, credits_, max(credits_ - given, Decimal(0))
            )
        for name in sorted({*charged, *self._used}):
            known = charged.get(name, {})
            yield from known.values()
            yield from self._free(name, set(known), since, until)
        if self.options.cloud_services:
            yield from self._days(since, until)

    def _free(
        self, group: str, charged: set[datetime], since: datetime, until: datetime
    ) -> Iterator[Stretch]:
        """Yield the hours for which nothing was charged: whatever ran then was free."""
        hour = since
        while hour < until:
            if hour not in charged:
                yield self._credits(group, hour, hour + timedelta(hours=1), Decimal(0), Decimal(0))
            hour += timedelta(hours=1)

    def _days(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        first, last = f"{since:%Y-%m-%d}", f"{until:%Y-%m-%d}"
        for day, billed in self._ask("metering_daily_history", DAYS, first=first, last=last):
            begun = datetime(day.year, day.month, day.day, tzinfo=timezone.utc)
            credits_ = max(_decimal(billed), Decimal(0))
            done = begun + timedelta(days=1)
            if credits_:
                yield self._credits(f"{CLOUD_SERVICES} of the day", begun, done, credits_, credits_)

    def _credits(
        self, group: str, start: datetime, end: datetime, used: Decimal, idle: Decimal
    ) -> Stretch:
        return Stretch(
            group=group,
            started_at=start,
            ended_at=end,
            quantity=used,
            meter="credits",
            idle=idle,
            resource=self._at(None if group.startswith(CLOUD_SERVICES) else group),
            dimensions=self.dimensions,
        )


def _moment(when: datetime) -> str:
    return f"TO_TIMESTAMP_LTZ('{when.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}Z')"


def _decimal(value: object) -> Decimal:
    """Return a number of a column of credits, which Snowflake keeps as binary fractions."""
    return (
        Decimal(0)
        if value is None
        else Decimal(repr(value) if isinstance(value, float) else str(value))
    )
