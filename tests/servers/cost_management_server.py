"""Cost Management's Query over HTTP for the unmodified client: it adds up, pages and throttles.

A test says what was billed, line by line; the server groups and filters it as the posted definition
says, in pages whose ``nextLink`` takes the same body and no other. Every request is kept; the next
ones may be refused, and answers be changed.

    with cost_management_server() as azure:
        azure.bill(day, "1.25", ServiceName="Storage", Meter="Hot LRS Data Stored", ResourceId=…)

Emulator: it proves that we read what the client sends and gets; that Azure answers in the same way
it cannot prove. Plain HTTP, for which azure-core takes no bearer token of a credential: the option
``token``.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    Answer = dict[str, Any]

SUBSCRIPTION = "/subscriptions/11111111-2222-3333-4444-555555555555"
OTHER = "/subscriptions/66666666-7777-8888-9999-000000000000"
BILLING = "/providers/Microsoft.Billing/billingAccounts/1234567"
TOKEN = "not-a-secret"
QUERY = "/providers/Microsoft.CostManagement/query"
LIMIT = "x-ms-ratelimit-microsoft.costmanagement-"
NUMBERS = ("Cost", "PreTaxCost", "UsageDate")
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Request(NamedTuple):
    """What came over the wire."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    body: bytes
    headers: Mapping[str, str]

    @property
    def definition(self) -> Answer:
        """What was asked for."""
        return dict(json.loads(self.body))


class Refusal(NamedTuple):
    """An error to answer with; with `cut` the connection breaks within the answer."""

    status: int
    code: str = "Refused"
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False


@dataclass
class Billed:
    """A line of the bill, as detailed as Azure knows it."""

    scope: str
    day: date
    actual: Decimal
    amortized: Decimal
    currency: str
    dimensions: dict[str, str]
    tags: dict[str, str]


class CostManagement:
    """What the server knows, and what a test tells it."""

    def __init__(self) -> None:
        self.url = ""
        self.page = 1000
        self.lines: list[Billed] = []
        self.requests: list[Request] = []
        self.denied: set[str] = set()
        """Scopes that may not be asked."""
        self.empty_pages = False
        """Whether each page is followed by one without lines."""
        self.columns: Callable[[list[str]], list[str]] = list
        """The order of the columns."""
        self.next_link: Callable[[str | None, int], str | None] = lambda link, _page: link
        """What stands for the next page, given the right one and the number of this."""
        self.edit: Callable[[Answer], object] = lambda answer: answer
        self.hold = threading.Event()
        """What a refusal with status 0 waits for."""
        self._refusals: deque[Refusal | None] = deque()
        self._bodies: dict[str, bytes] = {}
        self._lock = threading.RLock()

    # -- what a test says -----------------------------------------------------------------------

    def bill(
        self,
        day: date,
        actual: str,
        *,
        amortized: str = "",
        currency: str = "EUR",
        scope: str = SUBSCRIPTION,
        **dimensions: str,
    ) -> Billed:
        """Bill something on a day; ``tag_team`` is the tag ``team``."""
        at = day.date() if isinstance(day, datetime) else day
        tags = {
            name.removeprefix("tag_"): value
            for name, value in dimensions.items()
            if name.startswith("tag_")
        }
        effective = Decimal(amortized or actual)
        line = Billed(scope, at, Decimal(actual), effective, currency, dimensions, tags)
        self.lines.append(line)
        return line

    def refuse(self, *refusals: Refusal | None) -> None:
        """Answer the next requests with these errors, one each; None lets one through."""
        self._refusals.extend(refusals)

    def operations(self) -> set[tuple[str, str]]:
        """Which operations there were: method and what is behind the scope."""
        return {
            (
                request.method,
                request.path[request.path.lower().index("/providers/microsoft.cost") :],
            )
            for request in list(self.requests)
        }

    # -- what it answers ------------------------------------------------------------------------

    def answer(self, request: Request) -> tuple[int, object, tuple[tuple[str, str], ...], bool]:
        """Answer one request: status, body, headers, whether the connection is to break."""
        with self._lock:
            self.requests.append(request)
            refusal = self._refusals.popleft() if self._refusals else None
        if refusal is not None and not refusal.status:
            self.hold.wait(30)
            return 500, _error("TooLate"), (), False
        if refusal is not None and not refusal.cut:
            return refusal.status, _error(refusal.code), refusal.headers, False
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, _error("InvalidAuthenticationToken"), (), False
        scope = request.path.removesuffix(QUERY)
        if request.method != "POST" or scope == request.path:
            return 405, _error("MethodNotAllowed"), (), False
        if scope in self.denied:
            return 403, _error("AuthorizationFailed"), (), False
        with self._lock:
            status, found = self._query(request, scope)
        headers = (
            (f"{LIMIT}qpu-consumed", "1"),
            (f"{LIMIT}qpu-remaining", "QueriesPerHour:597,QueriesPerMin:57,QueriesPer10Sec:9"),
        )
        return status, found, headers, refusal is not None

    def _query(self, request: Request, scope: str) -> tuple[int, object]:
        definition = request.definition
        dataset = definition["dataset"]
        if len(dataset["grouping"]) > 2 or len(dataset["aggregation"]) > 2:
            return 400, _error("BadRequest")
        token = request.query.get("$skiptoken", [""])[0]
        if token and self._bodies.get(token) != request.body:
            return 400, _error("BadRequest")  # another question's page
        lines = self._grouped(definition, scope)
        if not lines and not token:
            return 204, b""
        size = min(int(request.query.get("$top", ["1000000"])[0]), self.page)
        at, _, blank = token.rpartition("/")[2].partition("-")
        first = int(at or 0)
        rows = [] if blank else lines[first : first + size]
        after = first + len(rows)
        link = None
        if after < len(lines) or (self.empty_pages and not blank):
            name = f"{id(definition)}/{after}{'-blank' * (self.empty_pages and not blank)}"
            self._bodies[name] = request.body
            version = request.query["api-version"][0]
            link = f"{self.url}{request.path}?api-version={version}&$top={size}&$skiptoken={name}"
        link = self.next_link(link, len(self.requests))
        if link is not None and "$skiptoken=" in link:
            self._bodies.setdefault(link.partition("$skiptoken=")[2], request.body)
        cost = next(iter(dataset["aggregation"]))
        names = [cost, "UsageDate", *_names(dataset["grouping"]), "Currency"]
        order = self.columns(list(names))
        positions = [names.index(name) for name in order]
        answer = {
            "id": f"{scope.strip('/')}{QUERY}/x",
            "name": "x",
            "type": "Microsoft.CostManagement/query",
            "location": None,
            "sku": None,
            "eTag": None,
            "properties": {
                "nextLink": link,
                "columns": [
                    {"name": name, "type": "Number" if name in NUMBERS else "String"}
                    for name in order
                ],
                "rows": [[row[number] for number in positions] for row in rows],
            },
        }
        return 200, self.edit(answer)

    def _grouped(self, definition: Answer, scope: str) -> list[list[object]]:
        period, dataset = definition["timePeriod"], definition["dataset"]
        first, last = (
            datetime.fromisoformat(period[name].replace("Z", "+00:00")).date()
            for name in ("from", "to")
        )
        sums: dict[tuple[object, ...], Decimal] = {}
        for line in self.lines:
            if line.scope != scope or not first <= line.day <= last:
                continue
            if not _meets(line, dataset.get("filter")):
                continue
            values = [value for group in dataset["grouping"] for value in _values(line, group)]
            key = (int(f"{line.day:%Y%m%d}"), *values, line.currency)
            amount = line.actual if definition["type"] == "ActualCost" else line.amortized
            sums[key] = sums.get(key, Decimal(0)) + amount
        return [[amount, *key] for key, amount in sums.items()]


def _values(line: Billed, group: Mapping[str, str]) -> list[str]:
    if group["type"] == "TagKey":
        return [group["name"], line.tags.get(group["name"], "")]
    return [line.dimensions.get(group["name"], "")]


def _names(grouping: list[dict[str, str]]) -> list[str]:
    names: list[str] = []
    for group in grouping:
        names += ["TagKey", "TagValue"] if group["type"] == "TagKey" else [group["name"]]
    return names


def _meets(line: Billed, wanted: Answer | None) -> bool:
    if not wanted:
        return True
    if "and" in wanted:
        return all(_meets(line, one) for one in wanted["and"])
    one = wanted["dimensions"]
    return line.dimensions.get(one["name"], "").lower() in [each.lower() for each in one["values"]]


def _error(code: str) -> Answer:
    return {"error": {"code": code, "message": "refused by the test, secret message"}}


@contextmanager
def cost_management_server() -> Generator[CostManagement]:
    """Run a server that has seen nothing yet, until the block ends."""
    azure = CostManagement()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
            pass

        def handle_one_request(self) -> None:
            """Answer; a client that has gone away is no error of ours."""
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def respond(self) -> None:
            parts = urlsplit(self.path)
            request = Request(
                self.command,
                unquote(parts.path),
                parse_qs(parts.query),
                self.rfile.read(int(self.headers.get("Content-Length") or 0)),
                {name.lower(): value for name, value in self.headers.items()},
            )
            status, body, headers, cut = azure.answer(request)
            content = body if isinstance(body, bytes) else _encode(body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            if cut:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                # Gone without a good-bye: a reset, and not an end.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                return
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond  # noqa: N815  the base's names

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

    server = Server(("127.0.0.1", 0), Handler)
    azure.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(
        target=server.serve_forever, args=(0.02,), name="cost-management", daemon=True
    )
    thread.start()
    try:
        yield azure
    finally:
        azure.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
