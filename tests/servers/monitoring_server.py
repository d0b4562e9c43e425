"""Cloud Monitoring, Azure Monitor and what they are asked beside, over HTTP, for `storage size`.

A test says what there is: buckets with figures by class and day, storage accounts by tier. Each
request is kept; the next ones to a path may be answered with an error, or with nothing at all.
Answers have the form of the REST references (monitoring v3 ``projects.timeSeries.list``, storage v1
``objects.list``, Microsoft.Storage ``storageAccounts``, Microsoft.Insights ``metrics``).

Emulator: it proves that we ask and read as the references have it.
"""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Generator

    Table = dict[str, Any]

PROJECT = "shop"
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"


class Asked(NamedTuple):
    """A request that came over the wire."""

    method: str
    path: str
    query: dict[str, list[str]]

    def one(self, name: str) -> str:
        return self.query[name][0]


class Refusal(NamedTuple):
    """An error to answer with; status 0 hangs up without a word."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    code: str = "Refused"


class Series(NamedTuple):
    """The figures of one class of one bucket: by the end of the interval."""

    storage_class: str
    kind: str
    sizes: dict[str, int]
    counts: dict[str, int]


class Tier(NamedTuple):
    """The figures of one tier of an account, by the hour; None is an hour without one."""

    tier: str
    blob_type: str
    sizes: dict[str, float | None]
    counts: dict[str, float | None]


@dataclass
class Monitoring:
    """What there is."""

    port: int = 0
    url: str = ""
    buckets: dict[str, tuple[str, list[Series]]] = field(
        default_factory=dict[str, "tuple[str, list[Series]]"]
    )
    """By name: location, and its series."""
    objects: dict[str, list[tuple[int, str]]] = field(
        default_factory=dict[str, "list[tuple[int, str]]"]
    )
    """By bucket: size and class of each object."""
    accounts: list[Table] = field(default_factory=list["Table"])
    tiers: dict[str, list[Tier]] = field(default_factory=dict[str, "list[Tier]"])
    page: int = 1000
    asked: list[Asked] = field(default_factory=list[Asked])
    refusals: dict[str, deque[Refusal]] = field(default_factory=dict[str, "deque[Refusal]"])
    tokens: set[str] = field(default_factory=set[str])
    """The bearer tokens that came."""

    def refuse(self, path: str, *refusals: Refusal) -> None:
        """Answer the next requests whose path has this in it with these errors, one each."""
        self.refusals.setdefault(path, deque()).extend(refusals)

    def refusal(self, path: str) -> Refusal | None:
        for part, waiting in self.refusals.items():
            if part in path and waiting:
                return waiting.popleft()
        return None

    def account(
        self, name: str, location: str, sku: str = "Standard_LRS", *, hns: bool = False
    ) -> None:
        """Have a storage account."""
        id_ = (
            f"/subscriptions/{SUBSCRIPTION}/resourceGroups/data/providers/Microsoft.Storage"
            f"/storageAccounts/{name}"
        )
        self.accounts.append(
            {
                "id": id_,
                "name": name,
                "location": location,
                "sku": {"name": sku},
                "kind": "StorageV2",
                "properties": {"isHnsEnabled": hns, "accessTier": "Hot"},
            }
        )

    def answer(self, asked: Asked) -> Table | None:
        for pattern, method in _ROUTES:
            found = re.fullmatch(pattern, asked.path)
            if found is not None:
                answer: Table | None = getattr(self, method)(asked, *found.groups())
                return answer
        return None

    # -- Google ---------------------------------------------------------------------------------

    def time_series(self, asked: Asked, project: str) -> Table | None:
        if project != PROJECT:
            return None
        terms = dict(re.findall(r'([\w.]+)="([^"]+)"', asked.one("filter")))
        assert terms["resource.type"] == "gcs_bucket"
        location, series = self.buckets.get(terms["resource.labels.bucket_name"], ("", []))
        counting = terms["metric.type"].endswith("total_count")
        since, until = asked.one("interval.startTime"), asked.one("interval.endTime")
        found = [
            {
                "metric": {
                    "type": terms["metric.type"],
                    "labels": {"storage_class": one.storage_class, "type": one.kind},
                },
                "resource": {
                    "type": "gcs_bucket",
                    "labels": {"location": location, "project_id": PROJECT},
                },
                "points": [
                    {
                        "interval": {"startTime": at, "endTime": at},
                        "value": {"int64Value": str(number)}
                        if counting
                        else {"doubleValue": number},
                    }
                    for at, number in sorted((one.counts if counting else one.sizes).items())[::-1]
                    if since <= at <= until
                ],
            }
            for one in series
        ]
        return self._google_page(asked, "timeSeries", found)

    def bucket(self, asked: Asked, name: str) -> Table | None:
        return {"location": self.buckets[name][0].upper()} if name in self.objects else None

    def listed(self, asked: Asked, name: str) -> Table | None:
        if name not in self.objects:
            return None
        items = [{"size": str(size), "storageClass": kind} for size, kind in self.objects[name]]
        return self._google_page(asked, "items", items)

    def _google_page(self, asked: Asked, name: str, items: list[Table]) -> Table:
        first = int(asked.query.get("pageToken", ["0"])[0])
        answer: Table = {name: items[first : first + self.page]} if items else {}
        if first + self.page < len(items):
            answer["nextPageToken"] = str(first + self.page)
        return answer

    # -- Azure ----------------------------------------------------------------------------------

    def storage_accounts(self, asked: Asked, subscription: str) -> Table | None:
        if subscription != SUBSCRIPTION:
            return None
        first = int(asked.query.get("$skiptoken", ["0"])[0])
        answer: Table = {"value": self.accounts[first : first + self.page]}
        if first + self.page < len(self.accounts):
            answer["nextLink"] = (
                f"{self.url}{asked.path}?api-version=1&$skiptoken={first + self.page}"
            )
        return answer

    def metrics(self, asked: Asked, account: str) -> Table | None:
        assert asked.one("$filter") == "BlobType eq '*' and Tier eq '*'"
        since, until = asked.one("timespan").split("/")

        def metric(name: str, which: str) -> Table:
            series = [
                {
                    "metadatavalues": [
                        {"name": {"value": "blobtype"}, "value": one.blob_type},
                        {"name": {"value": "tier"}, "value": one.tier},
                    ],
                    "data": [
                        {"timeStamp": at} | ({} if number is None else {"average": number})
                        for at, number in getattr(one, which).items()
                        if since <= at <= until
                    ],
                }
                for one in self.tiers.get(account, [])
            ]
            return {"name": {"value": name}, "timeseries": series}

        return {"value": [metric("BlobCapacity", "sizes"), metric("BlobCount", "counts")]}


_ROUTES = (
    (r"/v3/projects/([^/]+)/timeSeries", "time_series"),
    (r"/storage/v1/b/([^/]+)", "bucket"),
    (r"/storage/v1/b/([^/]+)/o", "listed"),
    (r"/subscriptions/([^/]+)/providers/Microsoft.Storage/storageAccounts", "storage_accounts"),
    (
        r".*/storageAccounts/([^/]+)/blobServices/default/providers/Microsoft.Insights/metrics",
        "metrics",
    ),
)


@contextmanager
def monitoring_server() -> Generator[Monitoring]:
    """Run the server for the length of the block."""
    there = Monitoring()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = Asked("GET", unquote(parts.path), parse_qs(parts.query))
            there.asked.append(asked)
            there.tokens.add(self.headers.get("Authorization", ""))
            refusal = there.refusal(asked.path)
            if refusal is not None and not refusal.status:
                self.close_connection = True
                return
            if refusal is not None:
                self._send(refusal.status, {"error": {"code": refusal.code}}, refusal.headers)
                return
            answer = there.answer(asked)
            if answer is None:
                self._send(404, {"error": {"code": 404, "message": "Not found"}})
            else:
                self._send(200, answer)

        def _send(
            self, status: int, answer: Table, headers: tuple[tuple[str, str], ...] = ()
        ) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in (("Content-Type", "application/json"), *headers):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    there.port = server.server_address[1]
    there.url = f"http://127.0.0.1:{there.port}"
    try:
        yield there
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
