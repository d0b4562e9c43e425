"""Cost Explorer over the wire, for unmodified boto3: it pages, throttles, restates and goes wrong.

moto's Cost Explorer gives back what was seeded, whatever was asked. This one has lines of a bill,
and answers what is asked of them: period, filter, groups, metrics, pages that are as small as the
test wants, tokens that hold for the very same request only. STS and S3 are moto's.

    with aws_server() as aws:
        bill = CostExplorer(aws)
        bill.add("2026-11-01", "TimedStorage-ByteHrs", "1.25", quantity="54.3", unit="GB-Month")

Emulator. Shapes and errors: botocore 1.44.5, service model of ce.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from tests.servers.aws_server import ACCOUNT, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.servers.aws_server import AWSServer, Request

    Answer = dict[str, Any]
    Twist = Callable[[int, Answer], Answer | Refusal | None]
    """Gets the number of a page, from 1 on, and what would be answered; says what is, or nothing."""

S3 = "Amazon Simple Storage Service"
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Item:
    """A line of the bill."""

    start: datetime
    usage_type: str
    amount: Decimal
    quantity: Decimal = Decimal(0)
    unit: str = "N/A"
    service: str = S3
    record_type: str = "Usage"
    account: str = ACCOUNT
    operation: str = ""
    currency: str = "USD"
    amortized: Decimal | None = None
    tags: dict[str, str] = field(default_factory=dict[str, str])

    def dimension(self, key: str) -> str:
        """Return its value of a dimension of Cost Explorer's."""
        return {
            "SERVICE": self.service,
            "USAGE_TYPE": self.usage_type,
            "RECORD_TYPE": self.record_type,
            "LINKED_ACCOUNT": self.account,
            "OPERATION": self.operation,
        }[key]


class CostExplorer:
    """A bill, and the service that tells of it."""

    def __init__(self, server: AWSServer, *, page: int = 1000) -> None:
        self.server = server
        self.page = page
        """So many groups are on a page."""
        self.items: list[Item] = []
        self.names: dict[str, str] = {}
        """Of accounts."""
        self.estimated_from: datetime | None = None
        self.hours = True
        """Whether hourly figures were switched on."""
        self.twist: Twist | None = None
        self.closed_roles = False
        """Whether nobody may assume a role."""
        self.truncated = 0
        """So many answers break off in the middle."""
        self._lock = threading.Lock()
        self._pages = 0
        server.answer("ce", "GetCostAndUsage", self._get_cost_and_usage)
        server.answer("ce", "GetDimensionValues", self._get_dimension_values)
        server.answer("ce", "GetTags", self._get_tags)
        self._respond = server.respond
        server.respond = self._responding  # type: ignore[method-assign]

    # -- what a test says -----------------------------------------------------------------------

    def add(self, day: str | datetime, usage_type: str, amount: str, **more: Any) -> None:
        """Put a line on the bill; `day` is a day, or an hour of one."""
        start = datetime.fromisoformat(day) if isinstance(day, str) else day
        for name in ("quantity", "amortized"):
            if name in more:
                more[name] = Decimal(more[name])
        start = start.replace(tzinfo=timezone.utc)
        self.items.append(Item(start, usage_type, Decimal(amount), **more))

    def begin_anew(self) -> None:
        """Answer as if nobody had asked yet, and without faults."""
        self._pages, self.twist, self.truncated = 0, None, 0

    def total(self) -> Decimal:
        """Return the sum of all lines."""
        return sum((item.amount for item in self.items), Decimal(0))

    @property
    def asked(self) -> list[Answer]:
        """What GetCostAndUsage was asked."""
        return [request.params for request in self.server.asked("ce", "GetCostAndUsage")]

    @property
    def operations(self) -> set[str]:
        """Every operation that the server was asked for, of any service."""
        return {
            dict(parse_qsl(request.body.decode()))["Action"]
            if request.service == "sts"
            else request.operation
            for request in self.server.requests
        }

    def close(self) -> None:
        """Let the server answer as it did before."""
        self.server.respond = self._respond  # type: ignore[method-assign]

    # -- the operations -------------------------------------------------------------------------

    def _get_cost_and_usage(self, params: Answer) -> Answer | Refusal:
        with self._lock:
            self._pages += 1
            number = self._pages
        answer = self._page(params)
        if self.twist is None:
            return answer
        twisted = self.twist(number, answer if isinstance(answer, dict) else {})
        return answer if twisted is None else twisted

    def _page(self, params: Answer) -> Answer | Refusal:
        period, hourly = params["TimePeriod"], params["Granularity"] == "HOURLY"
        if hourly and not self.hours:
            return Refusal("ValidationException", "hourly data is not enabled for this account")
        arguments = {key: value for key, value in params.items() if key != "NextPageToken"}
        digest = blake2b(json.dumps(arguments, sort_keys=True).encode(), digest_size=6).hexdigest()
        offset = 0
        if "NextPageToken" in params:
            of, _, at = params["NextPageToken"].partition(":")
            if not at.isdigit():
                return Refusal("InvalidNextTokenException")
            if of != digest:
                return Refusal("RequestChangedException")
            offset = int(at)
        results = list(self._results(params, _moment(period["Start"]), _moment(period["End"])))
        answer: Answer = {"GroupDefinitions": params.get("GroupBy", []), "ResultsByTime": []}
        answer["DimensionValueAttributes"] = [
            {"Value": account, "Attributes": {"description": name}}
            for account, name in self.names.items()
        ]
        here = 0
        position = 0
        for result in results:
            groups = result["Groups"]
            first, last = position, position + max(1, len(groups))
            position = last
            if last <= offset or here >= self.page:
                continue
            begin = max(0, offset - first)
            taken = groups[begin : begin + self.page - here]
            answer["ResultsByTime"].append({**result, "Groups": taken})
            here += max(1, len(taken))
        if offset + here < position:
            answer["NextPageToken"] = f"{digest}:{offset + here}"
        return answer

    def _results(self, params: Answer, start: datetime, end: datetime) -> Iterable[Answer]:
        step = HOUR if params["Granularity"] == "HOURLY" else DAY
        wanted = [item for item in self.items if _fits(item, params.get("Filter"))]
        form = "%Y-%m-%dT%H:%M:%SZ" if step == HOUR else "%Y-%m-%d"
        while start < end:
            found: dict[tuple[str, ...], list[Item]] = {}
            for item in wanted:
                if start <= item.start < start + step:
                    keys = tuple(_key(item, group) for group in params.get("GroupBy", ()))
                    found.setdefault(keys, []).append(item)
            estimated = self.estimated_from is not None and start >= self.estimated_from
            yield {
                "TimePeriod": {"Start": f"{start:{form}}", "End": f"{start + step:{form}}"},
                "Total": {},
                "Groups": [
                    {"Keys": list(keys), "Metrics": _metrics(items, params["Metrics"])}
                    for keys, items in sorted(found.items())
                ],
                "Estimated": estimated,
            }
            start += step

    def _get_dimension_values(self, params: Answer) -> Answer:
        values = sorted({item.dimension(params["Dimension"]) for item in self._of(params)})
        size = len(values)
        return {
            "DimensionValues": [{"Value": value, "Attributes": {}} for value in values],
            "ReturnSize": size,
            "TotalSize": size,
        }

    def _get_tags(self, params: Answer) -> Answer:
        values = sorted({item.tags.get(params["TagKey"], "") for item in self._of(params)})
        return {"Tags": values, "ReturnSize": len(values), "TotalSize": len(values)}

    def _of(self, params: Answer) -> list[Item]:
        period = params["TimePeriod"]
        start, end = _moment(period["Start"]), _moment(period["End"])
        return [item for item in self.items if start <= item.start < end]

    # -- the wire -------------------------------------------------------------------------------

    def _responding(
        self,
        request: Request,
        refusal: Refusal | None,
        environ: dict[str, Any],
        start_response: Callable[..., Any],
    ) -> Iterable[bytes]:
        if self.closed_roles and b"Action=AssumeRole" in request.body:
            start_response("403 Forbidden", [("Content-Type", "text/xml")])
            return [b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>"]
        if request.operation != "GetCostAndUsage" or refusal is not None or not self.truncated:
            return self._respond(request, refusal, environ, start_response)
        self.truncated -= 1

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            longer = [(name, "99999" if name == "Content-Length" else v) for name, v in headers]
            return start_response(status, longer, *more)

        whole = b"".join(self._respond(request, refusal, environ, start))
        return [whole[: len(whole) // 2]]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "")).replace(tzinfo=timezone.utc)


def _fits(item: Item, expression: Answer | None) -> bool:
    if not expression:
        return True
    if "And" in expression:
        return all(_fits(item, one) for one in expression["And"])
    if "Or" in expression:
        return any(_fits(item, one) for one in expression["Or"])
    if "Not" in expression:
        return not _fits(item, expression["Not"])
    if "Tags" in expression:
        tag = expression["Tags"]
        return item.tags.get(tag["Key"], "") in tag["Values"]
    dimension = expression["Dimensions"]
    return item.dimension(dimension["Key"]) in dimension["Values"]


def _key(item: Item, group: Answer) -> str:
    if group["Type"] == "TAG":
        return f"{group['Key']}${item.tags.get(group['Key'], '')}"
    return item.dimension(group["Key"])


def _metrics(items: list[Item], names: list[str]) -> Answer:
    found: Answer = {}
    for name in names:
        if name == "UsageQuantity":
            units = {item.unit for item in items}
            amount = sum((item.quantity for item in items), Decimal(0))
            unit = units.pop() if len(units) == 1 else "N/A"
        else:
            amount = sum((_cost(item, name) for item in items), Decimal(0))
            unit = items[0].currency
        found[name] = {"Amount": f"{amount:f}", "Unit": unit}
    return found


def _cost(item: Item, metric: str) -> Decimal:
    if "Amortized" in metric and item.amortized is not None:
        return item.amortized
    return item.amount
