"""Azure's bill by Cost Management's Query: what each day cost, in two dimensions.

It needs no set-up and no storage account, and answers for a subscription, a resource group, a
billing account or a management group; in return it adds up: of a day there is one line for each
pair of what was asked by (service and meter; storage account and meter), without quantities and
unit prices. Those are in an export (`costinsights.billing.azure_exports`).

One query covers up to a month, so days are pulled a month at a time and kept on the disk until it is
their turn. Two metrics are asked for: ActualCost is what is billed, AmortizedCost what was effective
after reservations and savings plans have been spread over their term.

Facts: azure-mgmt-costmanagement 4.0 and 5.0 (the method does not follow ``nextLink``, so the same
body is posted there by hand); throttling and its headers, Azure/azqr issues 745 and 1025;
``ClientType``, electrolux-oss/azure-cost-exporter pull request 8; query processing units,
microsoft/AzureTRE issue 2835; how late figures change, learn.microsoft.com cost-management-billing
(understand-cost-mgt-data).
"""

from __future__ import annotations

import os
import re
from collections import deque
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from itertools import islice
from tempfile import TemporaryDirectory
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec

from costinsights import asking
from costinsights.billing.puller import (
    DAY,
    Plan,
    Puller,
    PullError,
    Slice,
    days,
    months,
)
from costinsights.settlement.azure import credential_policy, token_policy
from costinsights.systems import azure_storage as storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.billing.puller import Loading

    Line = dict[str, str | None]

ACTUAL, AMORTIZED = "ActualCost", "AmortizedCost"
DATE, CURRENCY = "UsageDate", "Currency"
AT_ONCE = 5_000
"""Rows that are handed over together."""
TIMEOUT_SECONDS = 120
MOST_DIMENSIONS = 2

CATEGORIES = {
    "Usage": "Usage",
    "Purchase": "Purchase",
    "Credit": "Credit",
    "Tax": "Tax",
    "UnusedReservation": "Usage",
    "UnusedSavingsPlan": "Usage",
    "Refund": "Purchase",
}
"""Azure's ChargeType as FOCUS's ChargeCategory; any other is an ``Adjustment``.
[microsoft/finops-toolkit, docs-mslearn/focus/convert.md]"""
FREQUENCIES = {"OneTime": "One-Time", "Recurring": "Recurring", "UsageBased": "Usage-Based"}
PRICING = {
    "OnDemand": "Standard",
    "Spot": "Dynamic",
    "Reservation": "Committed",
    "SavingsPlan": "Committed",
}
"""Azure's Frequency and PricingModel in the words of FOCUS. [as above]"""

# A dimension, in small letters, and the column that has it.
_COLUMNS = {
    "benefitid": "CommitmentDiscountId",
    "benefitname": "CommitmentDiscountName",
    "chargetype": "x_ChargeType",
    "frequency": "x_Frequency",
    "invoiceid": "InvoiceId",
    "meter": "SkuMeter",
    "metercategory": "x_SkuMeterCategory",
    "meterid": "x_SkuMeterId",
    "metersubcategory": "x_SkuMeterSubcategory",
    "pricingmodel": "x_PricingModel",
    "product": "ChargeDescription",
    "resourcegroup": "x_ResourceGroupName",
    "resourcegroupname": "x_ResourceGroupName",
    "resourceid": "ResourceId",
    "resourcelocation": "RegionName",
    "resourcetype": "x_ResourceType",
    "servicename": "ServiceName",
    "subscriptionid": "x_SubscriptionId",
    "subscriptionname": "SubAccountName",
}
_SERVICE = frozenset({"servicename", "metercategory"})
_SUBSCRIPTION = re.compile(r"/subscriptions/[^/]+", re.IGNORECASE)
_GROUP = re.compile(r"/resourcegroups/([^/]+)", re.IGNORECASE)
_KIND = re.compile(r"/providers/([^/]+/[^/]+)", re.IGNORECASE)
_BILLING = re.compile(
    r"/providers/Microsoft\.Billing/billingAccounts/[^/]+(/billingProfiles/[^/]+)?", re.IGNORECASE
)


class CostManagementOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[pull."azure.cost_management"]``. Credentials are azure-identity's `DefaultAzureCredential`."""

    scopes: tuple[str, ...]
    """``/subscriptions/…``, ``/subscriptions/…/resourceGroups/…``,
    ``/providers/Microsoft.Billing/billingAccounts/…``,
    ``/providers/Microsoft.Management/managementGroups/…``."""
    group_by: tuple[str, ...] = ("ServiceName", "Meter")
    """At most two dimensions, or ``tag:NAME``, for all services; one is ServiceName or
    MeterCategory."""
    service_group_by: tuple[str, ...] = ("ResourceId", "Meter")
    """The same for one service: for storage, an account and a meter."""
    amortized: bool = True
    """Also ask for what was effective, which doubles the queries; without it, EffectiveCost is
    BilledCost."""
    cost: str = "Cost"
    """What is added up; ``PreTaxCost`` where an agreement has that alone."""
    billing_account: str = ""
    """The billing account, as an export calls it; by default what a scope says of it."""
    days_per_query: int = 31
    page_size: int = 0
    """Lines in a page (``$top``); 0 leaves it to Azure."""
    qpu_per_10_seconds: int = 12
    qpu_per_minute: int = 60
    qpu_per_hour: int = 600
    """Query processing units that are used at most, over all scopes; a month costs one. Azure's
    limits as its headers have shown them in 2022; it does not publish them."""
    client_type: str = "costinsights"
    """Sent as ``ClientType``: whoever has a name has a quota of their own."""
    endpoint_url: str = "https://management.azure.com"
    token: str = ""
    """A bearer token to use in place of a credential."""


class _Column(msgspec.Struct):
    name: str


class _Properties(msgspec.Struct, rename="camel"):
    columns: list[_Column] = []
    rows: list[list[Any]] = []
    next_link: str | None = None


class _Answer(msgspec.Struct):
    properties: _Properties


_decode = msgspec.json.Decoder(_Answer, float_hook=Decimal).decode
_decode_line = msgspec.json.Decoder(tuple[str, str, dict[str, str | None]]).decode
_encode = msgspec.json.Encoder().encode


class _Asked(NamedTuple):
    """One query of several that make up a day."""

    metric: str
    service: str
    """The service that is filtered for, and that its lines are of; empty for all."""


class CostManagementPuller(Puller):
    """Asks one scope; `accounts` gives one for each."""

    system = "azure.cost_management"
    provider = "Microsoft"
    answers: ClassVar[Mapping[str, str]] = {"azure": "", storage.SYSTEM: storage.STORAGE}
    rank = 0
    configured_by = "scopes"
    restated = timedelta(days=5)
    grants = (
        "az role definition create --role-definition "
        '\'{"Name": "costinsights billing", "AssignableScopes": ["/subscriptions/…"], '
        '"Actions": ["Microsoft.CostManagement/query/read", '
        '"Microsoft.CostManagement/query/action"]}\'; '
        'of a billing account: the role "Billing account reader" (MCA) or "Enterprise administrator (read only)" (EA)'
    )
    by_resource = "yes"
    verified = "emulator: own wire server"
    dependencies = "costinsights[azure_costmanagement]"
    Options = CostManagementOptions
    options: CostManagementOptions

    def __init__(
        self,
        options: Mapping[str, object] | None = None,
        *,
        scope: str = "",
        quota: _Quota | None = None,
    ) -> None:
        """Take the options.

        Raises:
            PullError: they are wrong.
        """
        super().__init__(options)
        self._given = options
        self._look_at_the_options()
        self._scope = scope or self.options.scopes[0]
        self._quota = quota or _Quota(
            (10, self.options.qpu_per_10_seconds),
            (60, self.options.qpu_per_minute),
            (3600, self.options.qpu_per_hour),
        )
        self._client: Any = None
        self._credential: Any = None
        self._spool: TemporaryDirectory[str] | None = None
        self._there: set[datetime] = set()
        """Days that are on the disk."""
        self._ranges: list[tuple[datetime, datetime]] = []
        """What is fetched together, as planned."""

    def _look_at_the_options(self) -> None:
        place = f'[pull."{self.system}"]'
        if not self.options.scopes:
            raise PullError(f"{place}: scopes is empty: name what is to be asked for")
        for scope in self.options.scopes:
            if not scope.lower().startswith(("/subscriptions/", "/providers/microsoft.")):
                raise PullError(
                    f"{place}: {scope!r} in scopes is no scope: /subscriptions/… is one"
                )
        for name in ("group_by", "service_group_by"):
            if len(cast("tuple[str, ...]", getattr(self.options, name))) > MOST_DIMENSIONS:
                raise PullError(f"{place}: {name}: a query takes {MOST_DIMENSIONS} at most")
        if not _SERVICE & {name.lower() for name in self.options.group_by}:
            raise PullError(f"{place}: group_by needs ServiceName or MeterCategory")
        if self.options.days_per_query < 1:
            raise PullError(f"{place}: days_per_query is 1 at least")

    # -- what there is --------------------------------------------------------------------------

    def accounts(self) -> Sequence[Puller]:
        """Return a puller for each scope; they keep to the limits together."""
        return [
            type(self)(self._given, scope=scope, quota=self._quota)
            for scope in dict.fromkeys(self.options.scopes)
        ]

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        """Return a slice for each day.

        Raises:
            PullError: what is wanted cannot be told from other things.
        """
        self._dimensions()
        return [
            Slice(self.system, self._scope, *bounds, self.wanted.text)
            for bounds in days(start, end)
        ]

    def plan(self, slices: Sequence[Slice]) -> Plan:
        """Say how many queries there will be; Azure takes no money for them."""
        self._ranges = list(self._together([slice_.start for slice_ in slices]))
        queries = len(self._ranges) * len(self._queries())
        return Plan((f"{len(slices)} days of {self._scope}, in {queries} queries",))

    def _together(self, wanted: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
        """Yield what is fetched by one query each: within a month, as many days as it may."""
        if not wanted:
            return
        for first, last in months(min(wanted), max(wanted) + DAY):
            left = sorted(day for day in wanted if first <= day < last)
            while left:
                until = left[0] + self.options.days_per_query * DAY
                yield left[0], min(max(day for day in left if day < until) + DAY, last)
                left = [day for day in left if day >= until]

    def _queries(self) -> list[_Asked]:
        services = [self.wanted.service]
        if self.wanted.service == storage.STORAGE and "ResourceId" in self.options.service_group_by:
            services.append(storage.BANDWIDTH)  # of storage accounts: told by the resource
        metrics = [ACTUAL, AMORTIZED] if self.options.amortized else [ACTUAL]
        return [_Asked(metric, service) for service in services for metric in metrics]

    def _dimensions(self) -> tuple[str, ...]:
        if self.wanted.service:
            found = self.options.service_group_by
        else:
            found = self.options.group_by
            if self.wanted.resource:
                found = ("ServiceName", "ResourceId")
        if self.wanted.resource and "ResourceId" not in found:
            raise PullError(
                f"{self.system}: a resource can be told by the dimension ResourceId alone: put it "
                "into service_group_by"
            )
        return found

    # -- coming and going -----------------------------------------------------------------------

    def open(self) -> None:
        """Make the client. Nothing is asked yet.

        Raises:
            PullError: azure-mgmt-costmanagement or azure-identity is missing.
        """
        try:
            library: Any = import_module("azure.mgmt.costmanagement")
            policies: Any = import_module("azure.core.pipeline.policies")
            if self.options.token:
                static: Any = import_module("azure.core.credentials")
                # Asked of nobody: the client wants a credential, whatever its policies are.
                self._credential = static.AzureKeyCredential("none")
                lets_in = token_policy(self.options.token)
            else:
                identity: Any = import_module("azure.identity")
                self._credential = identity.DefaultAzureCredential()
                scope = self.options.endpoint_url.rstrip("/") + "/.default"
                lets_in = credential_policy(self._credential, scope)
        except ImportError:
            raise PullError(f"{self.system}: run  pip install {self.dependencies}") from None
        # Its own list would try again by itself, and register the resource provider where it is
        # missing, which is a write.
        self._client = library.CostManagementClient(
            self._credential,
            base_url=self.options.endpoint_url.rstrip("/"),
            authentication_policy=lets_in,
            policies=[
                policies.RequestIdPolicy(),
                policies.UserAgentPolicy("costinsights"),
                policies.ContentDecodePolicy(),
                lets_in,
            ],
            connection_timeout=TIMEOUT_SECONDS,
            read_timeout=TIMEOUT_SECONDS,
        )

    def close(self) -> None:
        """Hang up, and forget what was fetched."""
        self._hang_up()
        if self._spool is not None:
            self._spool.cleanup()
            self._spool = None
        self._there.clear()

    def renew(self) -> None:
        """Connect anew; what was fetched stays."""
        self._hang_up()
        self.open()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        if hasattr(self._credential, "close"):
            self._credential.close()
        self._credential = None

    # -- pulling --------------------------------------------------------------------------------

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002  the word of the design
        """Hand over the lines of a day; the first of a month fetches them all.

        Raises:
            PullError: what came is not what was asked for, or comes twice.
        """
        if slice.start not in self._there:
            self._fetch(slice.start)
        rows = self._rows(slice.start)
        while page := list(islice(rows, AT_ONCE)):
            into.rows(page)
        self._there.discard(slice.start)

    def _fetch(self, day: datetime) -> None:
        first, end = next((one for one in self._ranges if one[0] <= day < one[1]), (day, day + DAY))
        if self._spool is None:
            self._spool = TemporaryDirectory(prefix="costinsights-azure-")
        wanted = [start for start, _ in days(first, end)]
        for start in wanted:
            self._put(start, b"", "wb")
        for asked in self._queries():
            for page in self._pages(asked, first, end):
                lines: dict[datetime, list[bytes]] = {}
                for at, amount, dimensions in self._lines(page, (first, end)):
                    lines.setdefault(at, []).append(
                        _encode((asked.metric, amount, {**dimensions, "": asked.service}))
                    )
                for at, found in lines.items():
                    self._put(at, b"".join(line + b"\n" for line in found), "ab")
        self._there.update(wanted)

    def _put(self, day: datetime, data: bytes, mode: str) -> None:
        with open(self._file(day), mode) as file:
            file.write(data)

    def _file(self, day: datetime) -> str:
        return os.path.join(self._spool.name if self._spool else "", f"{day:%Y%m%d}.jsonl")

    # -- one query ------------------------------------------------------------------------------

    def _pages(self, asked: _Asked, first: datetime, end: datetime) -> Iterator[_Properties]:
        body = _encode(self._definition(asked, first, end))
        what = f"query {asked.metric} of {self._scope}"

        def ask(link: str | None) -> _Properties:
            self._quota.take()
            return self._read(what, self._post(body, link))

        found = asking.pages(self, what, ask, lambda page: page.next_link, whole=True)
        for count, page in enumerate(found, 1):
            self.progress(f"pages of {first:%Y-%m}", count, None)
            yield page

    def _definition(self, asked: _Asked, first: datetime, end: datetime) -> dict[str, Any]:
        last = end - timedelta(seconds=1)
        dataset: dict[str, Any] = {
            "granularity": "Daily",
            "aggregation": {self.options.cost: {"name": self.options.cost, "function": "Sum"}},
            "grouping": [_grouping(name) for name in self._dimensions()],
        }
        filters = [_filter("ServiceName", asked.service)] if asked.service else []
        if self.wanted.resource.startswith("/"):
            filters.append(_filter("ResourceId", self.wanted.resource))
        if filters:
            dataset["filter"] = filters[0] if len(filters) == 1 else {"and": filters}
        return {
            "type": asked.metric,
            "timeframe": "Custom",
            "timePeriod": {
                "from": f"{first:%Y-%m-%dT%H:%M:%SZ}",
                "to": f"{last:%Y-%m-%dT%H:%M:%SZ}",
            },
            "dataset": dataset,
        }

    def _post(self, body: bytes, link: str | None) -> str:
        """Return the text of an answer; empty where there is nothing (204)."""
        headers = {"ClientType": self.options.client_type} if self.options.client_type else {}
        if link is None:
            params = {"$top": str(self.options.page_size)} if self.options.page_size else {}
            return str(
                self._client.query.usage(
                    self._scope.strip("/"),
                    body,
                    content_type="application/json",
                    headers=headers,
                    params=params,
                    cls=_text,  # the text, so that amounts stay what they are in it
                )
            )
        if urlsplit(link)[:2] != urlsplit(self.options.endpoint_url)[:2]:
            raise PullError(f"{self.system}: the next page is at another host: it is not asked for")
        http: Any = import_module("azure.core.rest")
        headers["Content-Type"] = headers["Accept"] = "application/json"
        request = http.HttpRequest("POST", link, content=body, headers=headers)
        # 4.x has it under another name.
        send = getattr(self._client, "send_request", None) or self._client._send_request  # noqa: SLF001
        response = send(request)
        response.raise_for_status()
        return str(response.text())

    def _read(self, what: str, text: str) -> _Properties:
        if not text:
            return _Properties()
        try:
            return _decode(text).properties
        except msgspec.MsgspecError:
            raise PullError(f"{self.system}: {what}: the answer is not as it has to be") from None

    def _lines(
        self, page: _Properties, period: tuple[datetime, datetime]
    ) -> Iterator[tuple[datetime, str, Line]]:
        """Yield the lines of a page: day, cost, and dimensions with the currency."""
        names = [column.name for column in page.columns]
        by_name = {name.lower(): number for number, name in enumerate(names)}
        if page.rows:
            self._complete(by_name)
        for row in page.rows:
            if len(row) != len(names):
                raise self._doubt(f"a line has {len(row)} values of {len(names)}")
            day = _day(row[by_name[DATE.lower()]])
            if day is None or not period[0] <= day < period[1]:
                raise self._doubt("a line is of another day than was asked for")
            cost = row[by_name[self.options.cost.lower()]]
            if isinstance(cost, bool) or not isinstance(cost, (int, Decimal)):
                raise self._doubt("a line has no cost")
            rest = {
                names[number]: _worded(value)
                for number, value in enumerate(row)
                if names[number].lower() not in (DATE.lower(), self.options.cost.lower())
            }
            yield day, f"{Decimal(cost):f}", rest

    def _complete(self, have: Mapping[str, int]) -> None:
        wanted = [self.options.cost, DATE, CURRENCY]
        for name in self._dimensions():
            wanted += ["TagKey", "TagValue"] if name.startswith("tag:") else [name]
        lacking = [name for name in wanted if name.lower() not in have]
        if lacking:
            raise self._doubt(f"the answer has no column {', '.join(lacking)}")

    def _doubt(self, what: str) -> PullError:
        return PullError(f"{self.system}: {self._scope}: {what}: nothing of it can be relied upon")

    # -- one day --------------------------------------------------------------------------------

    def _rows(self, day: datetime) -> Iterator[dict[str, Any]]:
        """Yield FOCUS rows: what was billed and what was effective, of the same dimensions."""
        found: dict[tuple[tuple[str, str | None], ...], dict[str, str]] = {}
        with open(self._file(day), "rb") as file:
            for line in file:
                metric, amount, dimensions = _decode_line(line)
                costs = found.setdefault(tuple(sorted(dimensions.items())), {})
                if metric in costs:
                    raise self._doubt(f"a line of {day:%Y-%m-%d} came twice")
                costs[metric] = amount
        for key, costs in found.items():
            row = self._row(day, dict(key))
            if row is None:
                continue
            row["BilledCost"] = costs.get(ACTUAL, "0")
            if self.options.amortized:
                row["EffectiveCost"] = costs.get(AMORTIZED, "0")
            yield row

    def _row(self, day: datetime, dimensions: Line) -> dict[str, Any] | None:
        """Return the row of some dimensions, without its costs; None for one that is not wanted."""
        service = dimensions.pop("")
        row: dict[str, Any] = {
            "BillingAccountId": self.options.billing_account or _billing_account(self._scope),
            "ChargePeriodStart": day,
            "ChargePeriodEnd": day + DAY,
            "BillingCurrency": dimensions.pop(CURRENCY, None),
        }
        tag = {name: dimensions.pop(name, None) for name in ("TagKey", "TagValue")}
        if tag["TagKey"]:
            row["Tags"] = {tag["TagKey"]: tag["TagValue"] or ""}
        for name, value in dimensions.items():
            row[_COLUMNS.get(name.lower(), f"x_{name}")] = value
        row["ServiceName"] = row.get("ServiceName") or service or row.get("x_SkuMeterCategory")
        _charge(row)
        _placed(row, self._scope)
        return row if self._wants(row, service or "") else None

    def _wants(self, row: Mapping[str, Any], service: str) -> bool:
        resource = str(row.get("ResourceId") or "")
        if self.wanted.resource and not self.wanted.resource.startswith("/"):
            name = resource.rpartition("/")[2]
            if name.lower() != self.wanted.resource.lower():
                return False
        alone = self.wanted.service == storage.STORAGE and service == storage.BANDWIDTH
        return not alone or storage.of_storage(resource)


class _Quota:
    """Keeps to so many query processing units in so many seconds, over all threads of a run."""

    def __init__(self, *limits: tuple[int, int]) -> None:
        self._limits = [limit for limit in limits if limit[1] > 0]
        self._taken: deque[float] = deque(maxlen=max((most for _, most in self._limits), default=1))
        self._lock = Lock()

    def take(self) -> None:
        """Take a unit, and wait until it may be used."""
        with self._lock:
            now = at = monotonic()
            for seconds, most in self._limits:
                if len(self._taken) >= most:
                    at = max(at, self._taken[-most] + seconds)
            self._taken.append(at)
        if at > now:
            asking.sleep(at - now)


def _text(response: Any, _deserialized: object, _headers: object) -> str:
    return str(response.http_response.text() or "")


def _grouping(name: str) -> dict[str, str]:
    if name.startswith("tag:"):
        return {"type": "TagKey", "name": name.removeprefix("tag:")}
    return {"type": "Dimension", "name": name}


def _filter(name: str, value: str) -> dict[str, Any]:
    return {"dimensions": {"name": name, "operator": "In", "values": [value]}}


def _day(value: object) -> datetime | None:
    """Return the day of a ``UsageDate``, which is a number (20261101) or begins like a date."""
    digits = str(value)[:10].replace("-", "")
    try:
        return datetime.strptime(digits, "%Y%m%d").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def _worded(value: object) -> str | None:
    return None if value is None or value == "" else str(value)


def _billing_account(scope: str) -> str:
    found = _BILLING.match(scope) or _SUBSCRIPTION.match(scope)
    return found[0] if found else scope


def _charge(row: dict[str, Any]) -> None:
    """Say in the words of FOCUS what kind of charge it is, where the dimensions tell."""
    kind = row.get("x_ChargeType")
    if kind:
        row["ChargeCategory"] = CATEGORIES.get(kind, "Adjustment")
        if kind == "Refund":
            row["ChargeClass"] = "Correction"
        if kind.startswith("Unused"):
            row["CommitmentDiscountStatus"] = "Unused"
    frequency, model = row.get("x_Frequency"), row.get("x_PricingModel")
    if frequency:
        row["ChargeFrequency"] = FREQUENCIES.get(frequency, "Other")
    if model in PRICING:
        row["PricingCategory"] = PRICING[model]


def _placed(row: dict[str, Any], scope: str) -> None:
    """Say which resource, in which subscription, and what its meter is for."""
    resource = str(row.get("ResourceId") or "")
    subscription = row.get("x_SubscriptionId")
    found = _SUBSCRIPTION.match(resource) or _SUBSCRIPTION.match(scope)
    row["SubAccountId"] = f"/subscriptions/{subscription}" if subscription else found and found[0]
    if resource:
        row["ResourceName"] = resource.rpartition("/")[2]
        group, kind = _GROUP.search(resource), _KIND.search(resource)
        row.setdefault("x_ResourceGroupName", group and group[1])
        row.setdefault("x_ResourceType", kind and kind[1].lower())
    if row.get("RegionName"):
        row["RegionId"] = str(row["RegionName"]).lower().replace(" ", "")
    meter, service = row.get("SkuMeter"), str(row.get("ServiceName") or "")
    row["x_UsageType"] = meter
    if meter and service in (storage.STORAGE, storage.BANDWIDTH):
        subcategory = str(row.get("x_SkuMeterSubcategory") or "")
        row["x_UsageKind"] = storage.usage_kind(service, subcategory, meter)
        row["x_StorageClass"] = storage.storage_class(subcategory, meter)
        if storage.of_storage(resource):
            row["x_System"] = storage.SYSTEM
