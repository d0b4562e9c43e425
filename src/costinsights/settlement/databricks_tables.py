"""What readers of Databricks' system tables have in common: how a warehouse is asked, and list prices.

All that is asked runs on the warehouse that the options name, in the Statement Execution API, and is
bounded in time. Tables and columns: docs.databricks.com, admin/system-tables.
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
from costinsights.settlement.history import MARK, History, HistoryError, Stretch, utc
from costinsights.tagging import tag_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Row = list[str | None]

AWAKE = frozenset(("RUNNING", "STARTING"))
ENDED = frozenset(("SUCCEEDED", "FAILED", "CANCELED", "CLOSED"))
SHORTEST = timedelta(minutes=1)
PRICES = """
SELECT sku_name, cloud, usage_unit, unix_micros(price_start_time), unix_micros(price_end_time),
       currency_code, coalesce(pricing.effective_list.default, pricing.default)
FROM system.billing.list_prices
WHERE price_end_time IS NULL OR price_end_time > TIMESTAMP '{since}'
ORDER BY 1, 2, 3, 4
/* {mark} */
"""


# A SKU of compute, such as PREMIUM_SERVERLESS_SQL_COMPUTE_US_EAST_N_VIRGINIA.
SKU = re.compile(
    r"(STANDARD|PREMIUM|ENTERPRISE)_"
    r"(SERVERLESS_SQL|SQL_PRO|SQL|ALL_PURPOSE|JOBS_LIGHT|JOBS|DLT_CORE|DLT_PRO)_COMPUTE"
    r"(_\(PHOTON\))?"
)
WORKLOADS = {"SERVERLESS_SQL": "sql_serverless", "SQL": "sql_classic"}


class TableOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the tables. What is left out of the first five, the SDK finds by itself."""

    warehouse: str
    """The id of the warehouse that is asked: it runs our queries, and its time is charged."""
    host: str = ""
    token: str = ""
    client_id: str = ""
    client_secret: str = ""
    profile: str = ""
    """Of ``~/.databrickscfg``."""
    multiplier: Decimal = Decimal(1)
    """What remains of the list price after a discount."""
    dbus_per_hour: dict[str, Decimal] = {}
    """By warehouse or cluster: what it is billed for an hour. With it is known how long it was on
    within an hour, and idle is what was left of that."""
    billing_hours: int = 12
    """How long an hour's records may still come in."""
    timeout: int = 900
    """Seconds that one query of ours may take."""


class SystemTables(History):
    """Asks a warehouse for rows of ``system``."""

    verified = "emulator: unmodified databricks-sdk 0.156"
    dependencies = "costinsights[databricks_sdk]"
    options: Any
    pause: ClassVar[float] = 1.0
    """Seconds between two looks at a query of ours that still runs."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        super().__init__(options)
        self._client: Any = None
        self.place = (Resource(namespace=self.options.warehouse), {})

    def open(self) -> None:
        """Nothing is opened: the API has no sessions."""

    def close(self) -> None:
        """Let go of the client."""
        self._client = None

    def renew(self) -> None:
        """Log in anew, and keep what was read."""
        self.close()

    def now(self) -> datetime:
        """Return the moment by which an hour's bill is young or old."""
        return datetime.now(timezone.utc)

    def settled(self) -> datetime:
        """Return up to when the bill is whole."""
        return self.now() - timedelta(hours=self.options.billing_hours)

    def wakes(self) -> str | None:
        """Say what asking would start; the management API is asked, which wakes nothing."""
        warehouse = self.called("warehouses.get", self.options.warehouse)
        state = warehouse.state.value if warehouse.state is not None else "unknown"
        if state in AWAKE:
            return None
        size = f" ({warehouse.cluster_size})" if warehouse.cluster_size else ""
        stop = warehouse.auto_stop_mins
        return (
            f"Warehouse {self.options.warehouse}{size} is {state.lower()}: to ask it starts it, "
            "and it is charged for until it stops"
            + (f", {stop} minutes after the last query at the earliest." if stop else " again.")
        )

    def prices(self, since: datetime, until: datetime) -> ListPrices:
        """Read the list prices of a time."""
        query = filled(PRICES, since, until)
        rows = self.ask(query, "list_prices")
        # Without a price or a currency a line says nothing, and surely not that it is free.
        return ListPrices(ListPrice(*row) for row in rows if row[5] and row[6])

    def stretch(self, group: str, billed: Row, prices: ListPrices) -> Iterator[Stretch]:
        """Yield what was billed for a warehouse or cluster; nothing if all of it was taken back.

        `billed` is start and end (µs), SKU, cloud, unit and quantity.
        """
        start, end, sku, cloud, unit, quantity = billed
        dbus, begun, ended = Decimal(quantity or 0), moment(start), moment(end)
        if not dbus:
            return
        stretch = Stretch(
            group=group,
            started_at=begun,
            ended_at=ended,
            quantity=dbus,
            uptime=self.uptime(group, dbus, ended - begun),
            final=ended <= self.settled(),
            resource=Resource(namespace=group),
        )
        price = prices.of(sku, cloud, unit, int(end or 0))
        if price is None:
            self.missing(f"system.billing.list_prices has no price of {sku}")
            yield msgspec.structs.replace(stretch, meter="dbus", dimensions=dimensions(sku, cloud))
            return
        each = price.each * self.options.multiplier
        yield msgspec.structs.replace(
            stretch,
            amount=dbus * each,
            currency=price.currency,
            unit_price=each,
            unit=unit or "DBU",
            source=f"system.billing.list_prices: {sku}",
        )

    def uptime(self, name: str, dbus: Decimal, most: timedelta) -> timedelta | None:
        """Return how long something was on that was billed `dbus`, where its rate is known."""
        each = self.options.dbus_per_hour.get(name)
        return None if not each else min(timedelta(hours=float(dbus / each)), most)

    # -- asking ---------------------------------------------------------------------------------

    def in_parts(
        self,
        query: Callable[[datetime, datetime], str],
        since: datetime,
        until: datetime,
        what: str,
    ) -> Iterator[list[Row]]:
        """Ask for a time, and for ever smaller parts of it where that is too much for one answer.

        Yields the rows of each part that was answered, in order.
        """
        try:
            rows = list(self.ask(query(since, until), what))
        except TooLargeError:
            if until - since <= SHORTEST:
                raise
            middle = since + (until - since) / 2
            yield from self.in_parts(query, since, middle, what)
            yield from self.in_parts(query, middle, until, what)
            return
        yield rows

    def ask(self, query: str, what: str) -> Iterator[Row]:
        """Run a query of ours to its end, and yield its rows."""
        answer = self._finished(query)
        state, error = answer.status.state.value, answer.status.error
        said = "" if error is None or error.message is None else str(error.message)
        if "EXTERNAL_LINKS" in said or (answer.manifest is not None and answer.manifest.truncated):
            raise TooLargeError(f"{self.system}: {what} is too large for one answer")
        if any(word in said for word in ("INSUFFICIENT_PERMISSIONS", "does not have", "DENIED")):
            refused = self.denied(what)
            raise DeniedError(str(refused), grant=refused.grant)
        if state != "SUCCEEDED":
            raise UnreadableError(f"{self.system}: reading {what} ended as {state}: {said[:300]}")
        chunk = answer.result
        while chunk is not None:
            yield from chunk.data_array or ()
            number = chunk.next_chunk_index
            if number is None:
                return
            chunk = self.called(
                "statement_execution.get_statement_result_chunk_n", answer.statement_id, number
            )

    def _finished(self, query: str) -> Any:
        from databricks.sdk.service.sql import QueryTag

        answer = self.called(
            "statement_execution.execute_statement",
            query,
            self.options.warehouse,
            wait_timeout="30s",
            query_tags=[QueryTag(key=MARK, value="1")],
        )
        waited = 0.0
        while answer.status.state.value not in ENDED:
            if waited > self.options.timeout:
                self.called("statement_execution.cancel_execution", answer.statement_id)
                raise HistoryError(f"{self.system}: no answer within {self.options.timeout} s")
            sleep(self.pause)
            waited += self.pause
            answer = self.called("statement_execution.get_statement", answer.statement_id)
        return answer

    def called(self, method: str, *args: object, **kwargs: object) -> Any:
        """Make one request, and say what is wrong without a secret."""
        errors: Any = import_module("databricks.sdk.errors")
        self.spend()
        try:
            return attrgetter(method)(self.client())(*args, **kwargs)
        except errors.PermissionDenied:
            raise self.denied(f"with warehouse {self.options.warehouse}") from None
        except errors.Unauthenticated:
            raise HistoryError(f"{self.system}: the workspace does not accept the login") from None
        except errors.DatabricksError as error:
            raise HistoryError(f"{self.system}: {type(error).__name__}: {error}") from None

    def client(self) -> Any:
        """Return our client of the workspace."""
        if self._client is None:
            self._client = self._connected()
        return self._client

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
            raise HistoryError(f"{self.system}: {str(error).splitlines()[0]}") from None


class DeniedError(HistoryError):
    """A table may not be read."""


class UnreadableError(HistoryError):
    """A table cannot be read: its schema is not enabled, or it is another one than we know."""


class TooLargeError(HistoryError):
    """An answer does not fit into the API's limit for one that comes with the response."""


class ListPrice:
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
        self.what = (sku, cloud, unit)
        self._start, self._end = int(start or 0), None if end is None else int(end)
        self.currency = currency or ""
        self.each = Decimal(each or 0)

    def holds(self, ended: int) -> bool:
        """Tell whether it is the price of what was used until `ended` (µs)."""
        return ended >= self._start and (self._end is None or ended < self._end)


class ListPrices:
    """The lines of ``system.billing.list_prices``, by what they price."""

    def __init__(self, lines: Iterable[ListPrice]) -> None:
        self._lines: dict[tuple[str | None, ...], list[ListPrice]] = {}
        for line in lines:
            self._lines.setdefault(line.what, []).append(line)

    def of(
        self, sku: str | None, cloud: str | None, unit: str | None, ended: int
    ) -> ListPrice | None:
        """Return the price of what was used until `ended` (µs), as Databricks joins the two."""
        found = self._lines.get((sku, cloud, unit), ())
        return next((line for line in found if line.holds(ended)), None)


def filled(query: str, since: datetime, until: datetime, **words: str) -> str:
    """Return a query of ours with the time that it is about."""
    return query.format(
        since=literal(since),
        until=literal(until),
        first=f"{since - timedelta(days=1):%Y-%m-%d}",
        last=f"{until:%Y-%m-%d}",
        mark=MARK,
        **words,
    )


def only(column: str, names: Iterable[str], word: str = "AND") -> str:
    """Return a condition for a few names; nothing for none."""
    quoted = ", ".join("'{}'".format(name.replace("'", "")) for name in names)
    return f"\n  {word} {column} IN ({quoted})" if quoted else ""


def dimensions(sku: str | None, cloud: str | None) -> dict[str, str]:
    """Return the price book's words for a SKU that has no list price."""
    found = SKU.match((sku or "").upper())
    words = {"cloud": (cloud or "").lower()}
    if found is not None:
        workload = WORKLOADS.get(found[2], found[2].lower())
        words.update(plan=found[1].lower(), workload=f"{workload}_photon" if found[3] else workload)
    return words


def moment(microseconds: str | None) -> datetime:
    """Return microseconds since the epoch as a moment, exactly."""
    return utc(0) + timedelta(microseconds=int(microseconds or 0))


def literal(at: datetime) -> str:
    """Return a moment as it stands in a query."""
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def tags_of(text: str | None) -> tuple[str | None, dict[str, str]]:
    """Return our own tag and the other tags, of a map in JSON."""
    tags: dict[str, str | None] = json.loads(text or "{}") or {}
    ours = {key[3:]: value for key, value in tags.items() if key.startswith("ci_")}
    labels = {key: value for key, value in tags.items() if value and not key.startswith("ci_")}
    return tag_of({key: ours.get(key) for key in ("asset", "job", "service")}), labels
