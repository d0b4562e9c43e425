"""AWS Cost Explorer: the bill of any AWS service by day or hour, by usage type and one thing more.

Each page of an answer costs money (USD 0.01), so days are not asked for one by one: a month is one
request, or two, and its days are handed over from the answer. Cost Explorer groups by two things at
most. What the bill is made of has three (what was used, for whom, and whether that is usage, a
credit, a refund, a tax), so the requests are these:

=========================  =================================================================
one service                RECORD_TYPE and USAGE_TYPE: one request
one service, by something  USAGE_TYPE and that, of usage; RECORD_TYPE and that, of all the rest
all services               SERVICE and USAGE_TYPE, of usage; SERVICE and RECORD_TYPE, of the rest
=========================  =================================================================

"All the rest" is what is not usage, so that the two are everything whatever record types there are.
Of the rest the usage type is not known then.

Calls and fields: botocore 1.44.5, service model of ce. Prices and limits:
https://aws.amazon.com/aws-cost-management/aws-cost-explorer/pricing/
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from costinsights.asking import pages
from costinsights.billing.aws import OF_USAGE, AWSOptions, AWSPuller
from costinsights.billing.puller import (
    DAY,
    HOUR,
    Plan,
    Puller,
    PullError,
    days,
    midnight,
    start_of_month,
)
from costinsights.billing.services import AWS, BY_NAME
from costinsights.billing.slices import Slice
from costinsights.billing.units import unit
from costinsights.systems.aws_s3 import SERVICE
from costinsights.systems.aws_s3_usage import usage_type
from costinsights.troubles import trouble_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from costinsights.billing.puller import Loading, Row

HOURS_FOR = timedelta(days=14)
"""So long Cost Explorer keeps hours."""
BY: Mapping[str, str] = {"account": "LINKED_ACCOUNT", "operation": "OPERATION"}
_BILLED, _EFFECTIVE, _NET = "UnblendedCost", "AmortizedCost", "NetUnblendedCost"
_QUANTITY = "UsageQuantity"
_NO_UNIT = ("", "N/A")
_ANSWERED = frozenset(("ResultsByTime", "DimensionValues", "Tags"))


class CostExplorerOptions(AWSOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[pull."aws.cost_explorer"]``. Credentials are boto3's own."""

    tag: str = ""
    """A cost-allocation tag to split by: one that names the bucket gives costs by bucket."""
    by: Literal["", "account", "operation"] = ""
    """What to split by instead. Both need one service: of all services there is no room for it."""
    net: bool = False
    """Also ask for the cost after discounts, which gives ContractedCost."""
    billing_account: str = ""
    """The account that gets the invoice; by default that of the credentials."""
    pages: int = 3
    """How many pages a request for a month may have. What is said to be spent at most rests on it,
    and an answer that has more is an error."""
    months: int = 13
    """How far back the account's history goes; AWS keeps more where that was switched on."""


class Request(NamedTuple):
    """One of the requests that a bill is put together from."""

    groups: tuple[str, str]
    """Dimensions, or ``TAG``."""
    usage: bool | None = None
    """Only usage, or only what is not; None for both."""


class Line(NamedTuple):
    """A group of an answer at one time."""

    start: datetime
    end: datetime
    keys: Mapping[str, str]
    """By what it was grouped."""
    amounts: Mapping[str, Decimal]
    """By metric."""
    currency: str
    unit: str | None


class Chunk:
    """Days that are asked for at once, and what was answered as long as it is needed."""

    def __init__(self, start: datetime, end: datetime, granularity: str) -> None:
        self.start, self.end = start, end
        self.granularity = granularity
        self.wanted: list[Slice] = []
        self.lines: dict[datetime, list[Line]] | None = None
        """By day; None as long as nobody has asked."""
        self.estimated: set[datetime] = set()
        self.names: dict[str, str] = {}
        """What Cost Explorer says of accounts: their names by their ids."""

    @property
    def told(self) -> str:
        """Its days as people read them."""
        return f"{self.start:%Y-%m-%d} to {self.end - DAY:%Y-%m-%d}"


class CostExplorerPuller(AWSPuller):
    """Pulls one account, or several beside each other."""

    system = "aws.cost_explorer"
    answers: ClassVar[Mapping[str, str]] = {"aws": "", "aws.s3": SERVICE}
    granularities = ("daily", "hourly")
    grants = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": ['
        '"ce:GetCostAndUsage", "ce:GetDimensionValues", "ce:GetTags"]}]}'
    )
    by_resource = "by a cost-allocation tag"
    verified = "emulator: moto 5, and a server of our own that pages, throttles and restates"
    Options = CostExplorerOptions
    options: CostExplorerOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._account = ""
        self._now: datetime | None = None
        self._chunks: dict[Slice, Chunk] = {}
        self._left = 0
        """Pages that may still be asked for, of what was said beforehand."""
        self._known: set[str] = set()
        """Names of services and values of tags that were looked up, and are there."""

    # -- what there is --------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, and ask whose credentials these are."""
        self.connect()
        self._account = self.options.billing_account or self.caller()

    def window(self, now: datetime) -> tuple[datetime, datetime]:
        """Return what may have changed; of hours, no more than there are."""
        self._now = now
        start, end = super().window(now)
        if self.granularity == "hourly":
            start = max(start, midnight(now) - HOURS_FOR + DAY)
        return start, end

    def accounts(self) -> tuple[Puller, ...]:
        """Return a puller for each profile and role."""
        found = super().accounts()
        for one in found:
            if isinstance(one, CostExplorerPuller):
                one._now = self._now  # noqa: SLF001  of the same class
        return found

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        """Return the days.

        Raises:
            PullError: Cost Explorer does not keep them any more, or cannot split as it is asked to.
        """
        self._check()
        if self._now is not None:
            if self.granularity == "hourly" and start < self._now - HOURS_FOR:
                raise PullError(
                    f"{self.system}: hours are kept for {HOURS_FOR.days} days, and only where they "
                    "were switched on in Cost Explorer's preferences: ask for "
                    f"{midnight(self._now) - HOURS_FOR + DAY:%Y-%m-%d} or later, or for days"
                )
            first = start_of_month(self._now)
            for _ in range(self.options.months - 1):
                first = start_of_month(first - DAY)
            if start < first:
                raise PullError(
                    f"{self.system}: the history begins on {first:%Y-%m-%d}; where more was "
                    f'switched on, say  months = …  in [pull."{self.system}"]'
                )
        return [Slice(self.system, self._account, *day, self._asked()) for day in days(start, end)]

    def _check(self) -> None:
        options, service = self.options, self.wanted.service
        if options.tag and options.by:
            raise PullError(f'[pull."{self.system}"]: tag and by: Cost Explorer has room for one')
        if self.wanted.resource and not options.tag:
            raise PullError(
                f"{self.system}: Cost Explorer knows buckets by a cost-allocation tag only: say "
                f'tag = "…"  in [pull."{self.system}"], or pull an export (aws.data_exports)'
            )
        if options.by and not service:
            self.missing(f"by = {options.by} is of use only where one service is asked for")
        if options.tag and not service:
            self.missing(f"the tag {options.tag} is of use only where one service is asked for")

    def _asked(self) -> str:
        return self.wanted.text

    # -- what will be asked ---------------------------------------------------------------------

    def requests_of(self) -> tuple[Request, ...]:
        """Return the requests that are made for each month."""
        if not self.wanted.service:
            return (
                Request(("SERVICE", "USAGE_TYPE"), usage=True),
                Request(("SERVICE", "RECORD_TYPE"), usage=False),
            )
        split = "TAG" if self.options.tag else BY.get(self.options.by)
        if split is None:
            return (Request(("RECORD_TYPE", "USAGE_TYPE")),)
        return Request(("USAGE_TYPE", split), usage=True), Request(("RECORD_TYPE", split), False)

    def plan(self, slices: Sequence[Slice]) -> Plan:
        """Say which months are asked for, and what that costs."""
        self._chunks = {}
        chunks = self._chunked(slices)
        each = len(self.requests_of())
        checks = bool(self.wanted.service) + bool(self.wanted.resource)
        self._left = len(chunks) * each * self.options.pages
        what = self.wanted.service or "all services"
        asked = f"in {each} request{'s' * (each > 1)}, of {self.options.pages} pages at most each"
        lines = [f"{self._account} {chunk.told}: {what}, {asked}" for chunk in chunks]
        return Plan(tuple(lines), {"api_requests": self._left + checks})

    def _chunked(self, slices: Sequence[Slice]) -> list[Chunk]:
        """Put days together that are asked for at once: those of a month, of one granularity."""
        found: dict[tuple[datetime, str], Chunk] = {}
        for one in sorted(slices):
            granularity = self._granularity(one)
            key = start_of_month(one.start), granularity
            chunk = found.setdefault(key, Chunk(one.start, one.end, granularity))
            chunk.end = one.end
            chunk.wanted.append(one)
            self._chunks[one] = chunk
        return list(found.values())

    def _granularity(self, slice_: Slice) -> str:
        """Return ``daily`` for a day whose hours are gone: it is better known so than not at all."""
        gone = self._now is not None and slice_.start < self._now - HOURS_FOR
        if self.granularity == "hourly" and gone:
            self.missing(
                f"hours are kept for {HOURS_FOR.days} days: the days before are pulled as days"
            )
            return "daily"
        return self.granularity

    # -- asking ---------------------------------------------------------------------------------

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002
        """Hand over the rows of a day, from the answer for its month."""
        chunk = self._chunks.pop(slice, None) or self._alone(slice)
        if chunk.lines is None:
            # Each page is held against the cap when it is handed over, so an empty one is.
            chunk.lines = self._answered(chunk, lambda: into.rows(()))
        lines = chunk.lines.pop(slice.start)
        if slice.start in chunk.estimated:
            into.provisional()
        into.rows(self._row(line, chunk) for line in lines)

    def _alone(self, slice_: Slice) -> Chunk:
        """Return the chunk of a day that nobody has planned."""
        self._left += len(self.requests_of()) * self.options.pages
        self._chunked([slice_])
        return self._chunks.pop(slice_)

    def _answered(self, chunk: Chunk, looked: Callable[[], None]) -> dict[datetime, list[Line]]:
        """Ask for all of a chunk, and return its lines by day.

        Raises:
            PullError: an answer is not whole, or contradicts itself.
        """
        wanted = {one.start for one in chunk.wanted}
        found: dict[datetime, list[Line]] = {start: [] for start in wanted}
        chunk.estimated.clear()
        empty = True
        tagged = not self.options.tag
        for request in self.requests_of():
            for line in self._lines(chunk, request, looked):
                empty = False
                tagged = tagged or bool(line.keys.get("TAG", ""))
                day = midnight(line.start)
                if day in found:
                    found[day].append(line)
        if empty:
            self._make_sure(chunk)
        elif not tagged and self.wanted.service:
            self.missing(
                f"nothing has a value of the tag {self.options.tag}: is it activated as a "
                "cost-allocation tag?"
            )
        return found

    def _lines(self, chunk: Chunk, request: Request, looked: Callable[[], None]) -> Iterator[Line]:
        hourly = chunk.granularity == "hourly"
        periods: set[datetime] = set()
        seen: set[tuple[datetime, tuple[str, ...]]] = set()
        for answer in self._pages(chunk, request):
            looked()
            chunk.names.update(_names(answer))
            for result in answer.get("ResultsByTime") or ():
                period = _moment(result["TimePeriod"]["Start"])
                end = _moment(result["TimePeriod"]["End"])
                periods.add(period)
                if result.get("Estimated"):
                    chunk.estimated.add(midnight(period))
                for group in result.get("Groups") or ():
                    line = self._line(period, end, group, request)
                    key = period, tuple(line.keys.values())
                    if key in seen:
                        raise PullError(
                            f"{self.system}: GetCostAndUsage gave the same group twice, of "
                            f"{period:%Y-%m-%d %H:%M}: nothing of it can be relied upon"
                        )
                    seen.add(key)
                    yield line
        step = HOUR if hourly else DAY
        at = chunk.start
        while at < chunk.end:
            if at not in periods:
                raise PullError(
                    f"{self.system}: GetCostAndUsage for {chunk.told} says nothing of "
                    f"{at:%Y-%m-%d %H:%M}: the answer is not whole"
                )
            at += step

    def _pages(self, chunk: Chunk, request: Request) -> Iterator[Any]:
        """Yield the pages of an answer: the same arguments each time, as Cost Explorer demands."""
        form = "%Y-%m-%dT%H:%M:%SZ" if chunk.granularity == "hourly" else "%Y-%m-%d"
        arguments: dict[str, Any] = {
            "TimePeriod": {"Start": f"{chunk.start:{form}}", "End": f"{chunk.end:{form}}"},
            "Granularity": chunk.granularity.upper(),
            "Metrics": self._metrics(),
            "GroupBy": [self._group(name) for name in request.groups],
        }
        filtered = self._filter(request)
        if filtered is not None:
            arguments["Filter"] = filtered

        def ask(token: str | None) -> Any:
            more = {} if token is None else {"NextPageToken": token}
            return self._call("get_cost_and_usage", **arguments, **more)

        def following(answer: Any) -> str | None:
            found: str | None = answer.get("NextPageToken")
            return found

        try:
            for answer in pages(self, "GetCostAndUsage", ask, following, whole=True):
                self._left -= 1
                yield answer
                if following(answer):
                    self._go_on(chunk)
        except PullError as error:
            if chunk.granularity == "hourly" and not error.grant:
                raise PullError(
                    f"{error}. Hours are there for {HOURS_FOR.days} days, and only where they were "
                    "switched on in Cost Explorer's preferences"
                ) from None
            raise

    def _go_on(self, chunk: Chunk) -> None:
        """Make sure that there may be another page.

        Raises:
            PullError: there are more than was said beforehand.
        """
        if self._left <= 0:
            raise PullError(
                f"{self.system}: the answer for {chunk.told} has more pages than was said "
                f'beforehand: say  pages = {self.options.pages * 2}  in [pull."{self.system}"]'
            )

    def _call(self, operation: str, **arguments: Any) -> Any:
        self.spend(0, api_requests=1)
        try:
            answer = getattr(self.client("ce"), operation)(**arguments)
        except Exception as error:
            # Its word for "too many calls in a short time"; other services mean a quota by it.
            if trouble_of(error).code == "LimitExceededException":
                raise _Throttled from error
            raise
        if not answer.keys() & _ANSWERED:
            raise _BrokenOff  # botocore takes text that is no JSON for an answer without anything
        return answer

    def _metrics(self) -> list[str]:
        found = [_BILLED, _EFFECTIVE, _QUANTITY]
        return [*found, _NET] if self.options.net else found

    def _group(self, name: str) -> dict[str, str]:
        if name == "TAG":
            return {"Type": "TAG", "Key": self.options.tag}
        return {"Type": "DIMENSION", "Key": name}

    def _filter(self, request: Request) -> dict[str, Any] | None:
        found: list[dict[str, Any]] = []
        if self.wanted.service:
            found.append({"Dimensions": {"Key": "SERVICE", "Values": [self.wanted.service]}})
        if self.wanted.resource:
            tag = {"Key": self.options.tag, "Values": [self.wanted.resource]}
            found.append({"Tags": tag})
        if request.usage is not None:
            of: dict[str, Any] = {"Dimensions": {"Key": "RECORD_TYPE", "Values": list(OF_USAGE)}}
            found.append(of if request.usage else {"Not": of})
        if len(found) > 1:
            return {"And": found}
        return found[0] if found else None

    # -- answers --------------------------------------------------------------------------------

    def _line(
        self, start: datetime, end: datetime, group: Mapping[str, Any], request: Request
    ) -> Line:
        keys: dict[str, str] = dict(zip(request.groups, group.get("Keys") or (), strict=False))
        if len(keys) != len(request.groups):
            raise PullError(f"{self.system}: a group of {start:%Y-%m-%d} has not all of its keys")
        if "TAG" in keys:
            keys["TAG"] = keys["TAG"].removeprefix(f"{self.options.tag}$")
        if request.usage:
            keys["RECORD_TYPE"] = "Usage"
        metrics: Mapping[str, Any] = group.get("Metrics") or {}
        amounts: dict[str, Decimal] = {}
        units: dict[str, str] = {}
        for name in self._metrics():
            metric: Mapping[str, Any] = metrics.get(name) or {}
            amounts[name] = self._amount(start, name, metric.get("Amount"))
            units[name] = metric.get("Unit") or ""
        counted_in = units.pop(_QUANTITY)
        currencies = set(units.values())
        if len(currencies) != 1 or "" in currencies:
            raise PullError(
                f"{self.system}: the amounts of a group of {start:%Y-%m-%d} are in "
                f"{' and '.join(sorted(currencies)) or 'no currency'}"
            )
        return Line(
            start,
            end,
            keys,
            amounts,
            currencies.pop(),
            counted_in if counted_in not in _NO_UNIT else None,
        )

    def _amount(self, start: datetime, name: str, text: object) -> Decimal:
        try:
            found = Decimal(text) if isinstance(text, str) else None
        except InvalidOperation:
            found = None
        if found is None or not found.is_finite():
            raise PullError(f"{self.system}: a group of {start:%Y-%m-%d} has no {name}")
        return found

    def _row(self, line: Line, chunk: Chunk) -> Row:
        keys, amounts = line.keys, line.amounts
        record_type = keys["RECORD_TYPE"]
        record = self.record(record_type)
        service = keys.get("SERVICE") or self.wanted.service
        row: dict[str, Any] = {
            "BilledCost": amounts[_BILLED],
            "EffectiveCost": amounts[_EFFECTIVE],
            "ContractedCost": amounts.get(_NET),
            "BillingCurrency": line.currency,
            "BillingAccountId": self._account,
            "ChargePeriodStart": line.start,
            "ChargePeriodEnd": line.end,
            "ChargeCategory": record.category,
            "ChargeClass": "Correction" if record.correction else None,
            "ChargeFrequency": record.frequency,
            "ServiceName": service,
            "x_RecordType": None if record_type == "Usage" else record_type,
            "x_Operation": keys.get("OPERATION"),
        }
        account = keys.get("LINKED_ACCOUNT")
        if account:
            row["SubAccountId"] = account
            row["SubAccountName"] = chunk.names.get(account)
        if keys.get("TAG"):
            row["Tags"] = {self.options.tag: keys["TAG"]}
        word = keys.get("USAGE_TYPE")
        if word:
            row.update(self._used(word, line, service, keys.get("OPERATION") or ""))
            if record.category == "Usage" and line.unit is not None:
                row["ConsumedQuantity"] = amounts[_QUANTITY]
                row["ConsumedUnit"] = unit(line.unit)
        return row

    @staticmethod
    def _used(word: str, line: Line, service: str, operation: str) -> dict[str, str | None]:
        found = usage_type(word, service, operation)
        return {
            "x_UsageType": word,
            "x_UsageKind": found.kind,
            "x_StorageClass": found.storage_class,
            "x_RequestClass": found.request_class,
            "x_AccessTier": found.access_tier,
            "x_OtherRegion": found.other_region,
            "RegionId": found.region,
        }

    # -- free of doubt --------------------------------------------------------------------------

    def _make_sure(self, chunk: Chunk) -> None:
        """Find out whether an empty answer is true: a misspelt name gets none either.

        Raises:
            PullError: Cost Explorer does not know the service or the value of the tag.
        """
        service, resource = self.wanted.service, self.wanted.resource
        known = BY_NAME.get(service)
        if service and service not in self._known:
            # One that we know is spelt right, and has cost nothing.
            if (known is None or known.provider != AWS) or resource:
                self._look_up(chunk, "service", service)
            self._known.add(service)
        if resource and resource not in self._known:
            self._look_up(chunk, f"value of the tag {self.options.tag}", resource)
            self._known.add(resource)

    def _look_up(self, chunk: Chunk, what: str, name: str) -> None:
        period = {"Start": f"{chunk.start:%Y-%m-%d}", "End": f"{chunk.end:%Y-%m-%d}"}

        def ask(token: str | None) -> Any:
            more = {} if token is None else {"NextPageToken": token}
            if what == "service":
                return self._call(
                    "get_dimension_values", TimePeriod=period, Dimension="SERVICE", **more
                )
            return self._call("get_tags", TimePeriod=period, TagKey=self.options.tag, **more)

        found: list[str] = []
        asked = "GetDimensionValues" if what == "service" else "GetTags"
        for answer in pages(
            self, asked, ask, lambda answer: answer.get("NextPageToken"), whole=True
        ):
            found += [one["Value"] for one in answer.get("DimensionValues") or ()]
            found += answer.get("Tags") or ()
        if name in found:
            return
        near = get_close_matches(name, found, 1)
        hint = f"did you mean {near[0]!r}?" if near else "it may have cost nothing in that time"
        raise PullError(f"{self.system}: {chunk.told}: there is no {what} {name!r}; {hint}")


class _BrokenOff(Exception):
    """An answer is none."""

    error_code = "IncompleteRead"


class _Throttled(Exception):
    """Cost Explorer wants to be left alone for a while."""

    error_code = "Throttling"


def _names(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of accounts that an answer tells of."""
    found: dict[str, str] = {}
    for one in answer.get("DimensionValueAttributes") or ():
        attributes: Mapping[str, str] = one.get("Attributes") or {}
        if attributes.get("description"):
            found[one["Value"]] = attributes["description"]
    return found


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)
