"""Databricks' bill: ``system.billing.usage`` by hour, at the prices of ``system.billing.list_prices``.

What was used is in one table and what it costs in another. They are joined as Databricks says: by
SKU, cloud and unit, and by the time that a price is valid for. A correction is two more records, a
RETRACTION of what was wrong and a RESTATEMENT of what is right: records that agree in all but their
type are added up, so that the net is left, and what was taken back whole is gone.

Discounts that were negotiated are in no table: `multiplier` says what remains of the list price.
A SKU that has no list price is not free: its day is not pulled, until `prices` says what it costs.

Slices are days of usage (UTC). For all days together, one query says how many records there are and
when the last came in; the list prices they are at belong to a day's `version` as well. All of it
runs on the SQL warehouse of the options, whose time is charged. A warehouse that stands still is
not started, unless `wake` allows it.

Tables and columns: docs.databricks.com, admin/system-tables (billing, pricing).
"""

from __future__ import annotations

import re
import sys
import time
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from hashlib import blake2b
from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, cast

import msgspec

from costinsights import asking
from costinsights.asking import patiently
from costinsights.billing.databricks_lines import Line
from costinsights.billing.puller import (
    DAY,
    Plan,
    Puller,
    PullError,
    Slice,
    days,
    midnight,
)
from costinsights.billing.services import DATABRICKS
from costinsights.records import Resource
from costinsights.settlement.databricks_tables import (
    AWAKE,
    ENDED,
    PRICES,
    ListPrice,
    ListPrices,
    filled,
    moment,
)
from costinsights.settlement.history import MARK
from costinsights.troubles import kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from costinsights.billing.puller import Loading, Row

    Cells = list[str | None]

PAUSE_SECONDS = (0.2, 5.0)
"""Between two looks at a query that runs: at first, and at most."""
SHORTEST = timedelta(minutes=1)
DAY_MICROS = 86_400_000_000

LOOKING = """
SELECT CAST(floor(unix_micros(usage_start_time) / {day}) AS BIGINT), sku_name, cloud, usage_unit,
       unix_micros(max(usage_end_time)), CAST(max(ingestion_date) AS STRING), count(*)
FROM system.billing.usage
WHERE usage_date >= DATE '{first}' AND usage_date <= DATE '{last}'
  AND usage_start_time >= TIMESTAMP '{since}' AND usage_start_time < TIMESTAMP '{until}'{only}
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
/* {mark} */
"""
READING = """
SELECT account_id, workspace_id, sku_name, cloud, usage_unit, unix_micros(usage_start_time),
       unix_micros(usage_end_time), billing_origin_product, usage_type, to_json(custom_tags),
       to_json(usage_metadata), sum(usage_quantity), count(*), count(usage_quantity),
       sum(CASE WHEN record_type = 'ORIGINAL' THEN 0 ELSE 1 END)
FROM system.billing.usage
WHERE usage_date >= DATE '{first}' AND usage_date <= DATE '{last}'
  AND usage_start_time >= TIMESTAMP '{since}' AND usage_start_time < TIMESTAMP '{until}'{only}
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
ORDER BY 6, 2, 3, 10, 11
/* {mark} */
"""

FILTERED = ("warehouse_id", "job_id", "dlt_pipeline_id", "cluster_id")
"""Fields that ``--resource`` looks at."""


class DatabricksBillingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[pull."databricks.billing"]``. What is left out of host to profile, the SDK finds by itself."""

    account: str
    """The account's id, whose bill it is."""
    warehouse: str
    """The id of the warehouse that is asked: it runs our queries, and its time is charged."""
    host: str = ""
    token: str = ""
    client_id: str = ""
    client_secret: str = ""
    profile: str = ""
    """Of ``~/.databrickscfg``."""
    wake: bool = False
    """Whether a warehouse that stands still may be started."""
    multiplier: Decimal = Decimal(1)
    """What remains of the list price after a discount."""
    currency: str = ""
    """Of the list prices that count, where there are several."""
    prices: dict[str, Decimal] = {}
    """What a unit costs of a SKU that has no list price, in `currency`."""
    final_after_days: int = 14
    """Days after a month's end until its days are final. No source says how late Databricks
    corrects: it is our choice."""
    timeout: int = 900
    """Seconds that one query of ours may take."""


class Used(NamedTuple):
    """What one SKU has on one day."""

    sku: str
    cloud: str
    unit: str
    ended: int
    """The latest end, in microseconds since the epoch."""
    ingested: str
    records: int


class DatabricksBillingPuller(Puller):
    """Pulls the usage of one account."""

    system = "databricks.billing"
    provider = DATABRICKS
    answers: ClassVar[Mapping[str, str]] = {"databricks": ""}
    configured_by = "account"
    restated = timedelta(days=14)
    granularities = ("hourly", "daily")
    grants = """\
GRANT USE CATALOG ON CATALOG system TO `billing`;
GRANT USE SCHEMA ON SCHEMA system.billing TO `billing`;
GRANT SELECT ON TABLE system.billing.usage TO `billing`;
GRANT SELECT ON TABLE system.billing.list_prices TO `billing`;
-- and the permission CAN USE on the SQL warehouse that is asked"""
    by_resource = "warehouses, clusters, jobs"
    verified = "emulator: unmodified databricks-sdk 0.156"
    dependencies = "costinsights[databricks_sdk]"
    Options = DatabricksBillingOptions
    options: DatabricksBillingOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options.

        Raises:
            PullError: one is missing or wrong.
        """
        super().__init__(options)
        self.restated = timedelta(days=self.options.final_after_days)  # type: ignore[misc]  # an option says otherwise
        if self.options.prices and not self.options.currency:
            raise PullError(f'[pull."{self.system}"]: prices are in a currency: say which one')
        self.place = (Resource(namespace=self.options.warehouse), {})
        self._client: Any = None
        self._days: dict[datetime, list[Used]] = {}
        self._prices: ListPrices | None = None
        self._since: datetime | None = None

    # -- what the engine asks -------------------------------------------------------------------

    def open(self) -> None:
        """Look whether the warehouse is awake; that wakes nothing.

        Raises:
            PullError: the SDK is not installed, or the warehouse stands still and may not be woken.
        """
        if self.wanted.service not in ("", DATABRICKS):
            raise PullError(f"{self.system}: its one service is {DATABRICKS}")
        name = self.options.warehouse
        warehouse = self._called("warehouses.get", name)
        state = "unknown" if warehouse.state is None else str(warehouse.state.value)
        if state not in AWAKE and not self.options.wake:
            raise PullError(
                f"{self.system}: warehouse {name} is {state.lower()}: to ask it starts it, and it "
                f'is charged for. Start it, or put  wake = true  into [pull."{self.system}"]'
            )

    def renew(self) -> None:
        """Log in anew."""
        self._client = None

    def close(self) -> None:
        """Let go of the client: the API has no sessions."""
        self._client = None

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        """Return a slice for each day of usage."""
        self._look(start, end)
        return [
            Slice(self.system, self.options.account, *bounds, self.wanted.text)
            for bounds in days(start, end)
        ]

    def version(self, slice: Slice) -> str | None:  # noqa: A002  the word of the design
        """Return how many records a day has, when the last came in, and what prices they are at."""
        used = self._of(slice)
        prices = [self._price(one.sku, one.cloud, one.unit, one.ended) for one in used]
        told = repr((self.options.multiplier, used, prices)).encode()
        last = max((one.ingested for one in used), default="never")
        records = sum(one.records for one in used)
        return f"{last} {records} {blake2b(told, digest_size=8).hexdigest()}"

    def plan(self, slices: Sequence[Slice]) -> Plan:
        """Say what is read. What it costs is the warehouse's time, which is on its own bill."""
        filled_days = sum(bool(self._of(one)) for one in slices)
        return Plan(
            (
                (
                    f"system.billing.usage: {len(slices)} days in {filled_days} queries on "
                    f"warehouse {self.options.warehouse}, whose time is charged as ever"
                ),
            )
        )

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002
        """Read a day's records.

        Raises:
            PullError: not all of them came, or one has no quantity or no price.
        """
        into.restart()
        used, came = self._of(slice), 0
        if not used:
            into.rows(())
            return
        for part in self._parts(slice.start, slice.end):
            lines = [Line.of(cells) for cells in part]
            came += sum(line.records for line in lines)
            into.rows(self._rows(lines))
        expected = sum(one.records for one in used)
        if came != expected:
            into.restart()
            raise PullError(
                f"{self.system}: {slice.told()}: {came:,} records came of {expected:,}: the next "
                "run reads them again"
            )

    # -- days and prices ------------------------------------------------------------------------

    def _of(self, slice_: Slice) -> list[Used]:
        if slice_.start not in self._days:
            self._look(slice_.start, slice_.end)
        return self._days[slice_.start]

    def _look(self, start: datetime, end: datetime) -> None:
        """Find out what there is of each day, and at which prices."""
        bounds = days(start, end)
        since, until = bounds[0][0], bounds[-1][1]
        found: dict[datetime, list[Used]] = {begin: [] for begin, _ in bounds}
        query = filled(LOOKING, since, until, day=str(DAY_MICROS), only=self._only())
        for day, sku, cloud, unit, ended, ingested, records in self._ask(query, "usage"):
            begin = moment(str(int(day or 0) * DAY_MICROS))
            found[begin].append(
                Used(
                    sku or "",
                    cloud or "",
                    unit or "",
                    int(ended or 0),
                    ingested or "",
                    int(records or 0),
                )
            )
        self._days.update(found)
        if self._since is None or since < self._since:
            self._since = since
            lines = self._ask(filled(PRICES, since, until), "list_prices")
            self._prices = ListPrices(ListPrice(*line) for line in self._priced(lines))

    def _priced(self, lines: Iterable[Cells]) -> list[Cells]:
        """Return the lines that have a price, in one currency."""
        wanted = self.options.currency
        found = [line for line in lines if line[6] and line[5] and wanted in ("", line[5])]
        currencies = sorted({str(line[5]) for line in found})
        if len(currencies) > 1:
            raise PullError(
                f"{self.system}: system.billing.list_prices has {' and '.join(currencies)}: say "
                f'currency = …  in [pull."{self.system}"]'
            )
        return found

    def _price(self, sku: str, cloud: str, unit: str, ended: int) -> tuple[Decimal, str] | None:
        """Return what a unit costs by the list, and in which currency."""
        found = None if self._prices is None else self._prices.of(sku, cloud, unit, ended)
        if found is not None:
            return found.each, found.currency
        own = self.options.prices.get(sku)
        return None if own is None else (own, self.options.currency)

    def _only(self) -> str:
        """Return the condition for one resource; Databricks' ids have no other characters."""
        word = re.sub(r"[^\w.:@ -]", "", self.wanted.resource)
        if not word:
            return ""
        listed = " OR ".join(f"usage_metadata.{field} = '{word}'" for field in FILTERED)
        return f"\n  AND ({listed})"

    # -- rows -----------------------------------------------------------------------------------

    def _rows(self, lines: Iterable[Line]) -> Iterator[Row]:
        daily = self.granularity == "daily"
        for line in lines:
            if line.account not in ("", self.options.account):
                raise PullError(
                    f"{self.system}: system.billing.usage has records of account {line.account}, "
                    f"and the options say {self.options.account}"
                )
            if line.quantity is None or line.quantities != line.records:
                raise PullError(
                    f"{self.system}: a record of {line.sku} in system.billing.usage has no quantity"
                )
            if not line.quantity and line.records > 1:
                continue  # it was taken back whole
            price = self._price(line.sku, line.cloud, line.unit, line.ended)
            if price is None:
                raise PullError(
                    f"{self.system}: system.billing.list_prices has no price of {line.sku} "
                    f"({line.unit}, {line.cloud}): what it costs is not known. If you know it, put "
                    f'it into [pull."{self.system}".prices]'
                )
            row = line.row(line.quantity, price, self.options.multiplier)
            if daily:
                start = midnight(moment(str(line.started)))
                row = {**row, "ChargePeriodStart": start, "ChargePeriodEnd": start + DAY}
            yield {**row, "BillingAccountId": self.options.account}

    def _parts(self, since: datetime, until: datetime) -> Iterator[list[Cells]]:
        """Yield the lines of a time, in ever smaller parts where they are too many for an answer."""
        try:
            found = self._ask(filled(READING, since, until, only=self._only()), "usage")
        except TooLargeError:
            if until - since <= SHORTEST:
                raise
            middle = since + (until - since) / 2
            yield from self._parts(since, middle)
            yield from self._parts(middle, until)
            return
        yield found

    # -- asking ---------------------------------------------------------------------------------

    def _ask(self, query: str, what: str) -> list[Cells]:
        """Run a query to its end, and return all of its rows.

        Raises:
            TooLargeError: they do not fit into the API's answers.
            PullError: they may not be read, or are not all there.
        """
        answer = patiently(self, what, partial(self._finished, query, what))
        manifest, chunk, seen = answer.manifest, answer.result, -1
        if manifest is None or manifest.truncated:
            raise TooLargeError(f"{self.system}: {what} is too large for one answer")
        rows: list[Cells] = []
        while chunk is not None:
            rows += cast("list[Cells]", chunk.data_array or [])
            number = chunk.next_chunk_index
            if number is None:
                break
            if number <= seen:
                raise PullError(f"{self.system}: {what}: part {number} came for the second time")
            seen = int(number)
            chunk = self._called(
                "statement_execution.get_statement_result_chunk_n", answer.statement_id, number
            )
        promised = int(manifest.total_row_count or 0)
        if len(rows) != promised:
            raise PullError(
                f"{self.system}: {what}: {len(rows):,} rows came of {promised:,}: the next run "
                "reads them again"
            )
        return rows

    def _finished(self, query: str, what: str) -> Any:
        tag = import_module("databricks.sdk.service.sql").QueryTag
        answer = self._called(
            "statement_execution.execute_statement",
            query,
            self.options.warehouse,
            wait_timeout="30s",
            query_tags=[tag(key=MARK, value="1")],
        )
        waited, pause = 0.0, PAUSE_SECONDS[0]
        while answer.status.state.value not in ENDED:
            if waited > self.options.timeout:
                self._called("statement_execution.cancel_execution", answer.statement_id)
                raise PullError(f"{self.system}: no answer within {self.options.timeout} s")
            asking.sleep(pause)
            waited += pause
            pause = min(pause * 2, PAUSE_SECONDS[1])
            answer = self._called("statement_execution.get_statement", answer.statement_id)
        if answer.status.state.value != "SUCCEEDED":
            self._failed(what, answer.status)
        return answer

    def _failed(self, what: str, status: Any) -> NoReturn:
        error = status.error
        said = "" if error is None or error.message is None else str(error.message)
        code = "" if error is None or error.error_code is None else str(error.error_code.value)
        if "EXTERNAL_LINKS" in said:
            raise TooLargeError(f"{self.system}: {what} is too large for one answer")
        if any(word in said for word in ("INSUFFICIENT_PERMISSIONS", "does not have", "DENIED")):
            raise self.denied(what)
        if kind_of(code) in ("throttled", "passing"):
            raise EndedError(code)
        raise PullError(
            f"{self.system}: reading {what} ended as {status.state.value}: {said[:300]}"
        )

    def _called(self, method: str, *args: object, **kwargs: object) -> Any:
        """Make a request, with patience."""
        what = method.rpartition(".")[2]
        return patiently(self, what, lambda: attrgetter(method)(self._connected())(*args, **kwargs))

    def _connected(self) -> Any:
        if self._client is not None:
            return self._client
        try:
            sdk = import_module("databricks.sdk")
            config = import_module("databricks.sdk.core").Config
        except ImportError:
            raise PullError(f"{self.system}: run  pip install {self.dependencies}") from None
        given = {
            name: getattr(self.options, name)
            for name in ("host", "token", "client_id", "client_secret", "profile")
            if getattr(self.options, name)
        }
        try:
            self._client = sdk.WorkspaceClient(
                config=config(product="costinsights", clock=Impatience(), **given)
            )
        except ValueError as error:
            raise PullError(f"{self.system}: {str(error).splitlines()[0]}") from None
        return self._client


class TooLargeError(PullError):
    """An answer does not fit into the API's limit for one that comes with the response."""


class EndedError(Exception):
    """A query ended for a reason that passes."""

    def __init__(self, code: str) -> None:
        """Take it as `costinsights.troubles` looks at errors."""
        super().__init__(code)
        self.error_code = code


class Impatience:
    """The SDK's clock, without its waiting: who is patient here is `costinsights.asking`.

    The SDK waits as long as a server says, however absurd that is.
    """

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Raise what it was that the SDK wants to wait for."""
        error = sys.exc_info()[1]
        if error is not None:
            raise error
        asking.sleep(seconds)
