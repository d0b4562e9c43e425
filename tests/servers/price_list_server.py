"""Vendors' price lists on this machine: files with ETags, pages, and the faults that lists have.

    with price_lists() as lists:
        lists.file("/offers/v1.0/aws/AmazonS3/current/us-east-1/index.csv", s3_file())
        lists.fault(Fault(429, {"Retry-After": "1"}))

Emulator: it gives what a test has put there, in the forms that the vendors document. That a vendor's
list of today has these forms it cannot prove.
"""

from __future__ import annotations

import csv
import io
import json
import threading
from collections import deque
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    Page = Callable[["Asked"], "Answer"]


class Asked(NamedTuple):
    """A request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


class Answer(NamedTuple):
    """What a page answers."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}


class Fault(NamedTuple):
    """What the next request is answered in place of its answer."""

    status: int = 503
    headers: Mapping[str, str] = {}
    cut: bool = False
    """The answer itself, but only half of it."""


class PriceLists:
    """What a test puts there, and what was asked."""

    def __init__(self) -> None:
        self.base = ""
        self.asked: list[Asked] = []
        self._pages: dict[str, Page] = {}
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()

    def page(self, path: str, page: Page) -> None:
        """Have `page` answer requests for `path`."""
        self._pages[path] = page

    def file(self, path: str, body: bytes) -> None:
        """Have a file at `path`."""
        self._pages[path] = lambda _: Answer(body)

    def fault(self, *faults: Fault) -> None:
        """Answer the next requests with these, one each."""
        self._faults.extend(faults)

    def answer(self, asked: Asked) -> tuple[Answer, Fault | None]:
        """Answer a request, by the next fault if there is one."""
        with self._lock:
            self.asked.append(asked)
            fault = self._faults.popleft() if self._faults else None
        if fault is not None and not fault.cut:
            return Answer(b'{"error": {"code": 500}}', fault.status, fault.headers), fault
        page = self._pages.get(asked.path)
        if page is None:
            return Answer(b"no such page", 404), fault
        answer = page(asked)
        if answer.status != 200:
            return answer, fault
        etag = f'"{sha256(answer.body).hexdigest()[:16]}"'
        if asked.headers.get("if-none-match") == etag:
            return Answer(b"", 304, {"ETag": etag}), None
        return answer._replace(headers={"ETag": etag, **answer.headers}), fault


@contextmanager
def price_lists() -> Generator[PriceLists]:
    """Serve price lists until the end of the block."""
    lists = PriceLists()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        def _answer(self, body: bytes) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, parts.path, query, headers, body)
            answer, fault = lists.answer(asked)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            cut = fault is not None and fault.cut
            if cut:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
            self.close_connection = cut or self.close_connection

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    lists.base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield lists
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# -- AWS --------------------------------------------------------------------------------------------

COLUMNS = (
    "SKU", "OfferTermCode", "RateCode", "TermType", "PriceDescription", "EffectiveDate",
    "StartingRange", "EndingRange", "Unit", "PricePerUnit", "Currency", "RelatedTo",
    "LeaseContractLength", "PurchaseOption", "OfferingClass", "Product Family", "serviceCode",
    "Location", "Location Type", "Instance Type", "Storage Class", "Volume Type", "Group",
    "Group Description", "Transfer Type", "From Location", "From Location Type", "To Location",
    "To Location Type", "usageType", "operation", "Region Code", "serviceName",
)  # fmt: skip
"""As the files of S3 and of data transfer have them."""


class Row(NamedTuple):
    """One price of one SKU."""

    sku: str
    usage: str
    price: str
    unit: str
    start: str = "0"
    end: str = "Inf"
    term: str = "OnDemand"
    currency: str = "USD"
    more: Mapping[str, str] = {}


def offer_file(
    service: str, region: str, rows: Iterable[Row], columns: Iterable[str] = COLUMNS
) -> bytes:
    """Return a file of the bulk price list."""
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(("FormatVersion", "v1.0"))
    writer.writerow(("Disclaimer", "This pricing list is for informational purposes only."))
    writer.writerow(("Publication Date", "2026-11-20T20:59:55Z"))
    writer.writerow(("Version", "20261120205955"))
    writer.writerow(("OfferCode", service))
    names = tuple(columns)
    writer.writerow(names)
    for row in rows:
        cells = {
            "SKU": row.sku,
            "TermType": row.term,
            "StartingRange": row.start,
            "EndingRange": row.end,
            "Unit": row.unit,
            "PricePerUnit": row.price,
            "Currency": row.currency,
            "EffectiveDate": "2026-11-01",
            "serviceCode": service,
            "usageType": row.usage,
            "Region Code": region,
            **row.more,
        }
        writer.writerow([cells.get(name, "") for name in names])
    return out.getvalue().encode()


def offer_path(service: str, region: str) -> str:
    """Return where the file of a service and region stands."""
    return f"/offers/v1.0/aws/{service}/current/{region}/index.csv"


# -- Azure ------------------------------------------------------------------------------------------


def item(
    product: str, sku: str, meter: str, price: float, unit: str, start: float = 0.0, **more: Any
) -> dict[str, Any]:
    """Return an item of the retail prices."""
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": start,
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": "westeurope",
        "location": "EU West",
        "effectiveStartDate": "2023-05-01T00:00:00Z",
        "meterId": sha256(f"{product}{sku}{meter}".encode()).hexdigest()[:8],
        "meterName": meter,
        "productId": "DZH318Z0BNXN",
        "skuId": "DZH318Z0BNXN/0015",
        "productName": product,
        "skuName": sku,
        "serviceName": "Storage",
        "serviceFamily": "Storage",
        "unitOfMeasure": unit,
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": "",
        **more,
    }


def retail(lists: PriceLists, items: Iterable[dict[str, Any]], size: int = 2) -> None:
    """Serve items page by page, filtered as the API filters them."""
    known = list(items)

    def page(asked: Asked) -> Answer:
        words = asked.query["$filter"].split(" and ")
        wanted = dict(word.split(" eq ", 1) for word in words)
        fitting = [
            one
            for one in known
            if all(
                str(one.get("type" if name == "priceType" else name))
                == value.strip("'").replace("''", "'")
                for name, value in wanted.items()
            )
        ]
        skip = int(asked.query.get("$skip", "0"))
        more = skip + size < len(fitting)
        query = asked.query["$filter"].replace(" ", "%20")
        following = f"{lists.base}{asked.path}?$filter={query}&$skip={skip + size}"
        return Answer(
            json.dumps(
                {
                    "BillingCurrency": "USD",
                    "CustomerEntityId": "Default",
                    "CustomerEntityType": "Retail",
                    "Items": fitting[skip : skip + size],
                    "NextPageLink": following if more else None,
                    "Count": len(fitting[skip : skip + size]),
                }
            ).encode()
        )

    lists.page("/api/retail/prices", page)


# -- Google -----------------------------------------------------------------------------------------


def sku(
    description: str,
    regions: Iterable[str],
    unit: str,
    *rates: tuple[float, str],
    group: str = "RegionalOps",
    number: str = "4DBF-185F-A415",
) -> dict[str, Any]:
    """Return a SKU of the catalog; a rate is where it begins, and its price."""

    def money(price: str) -> dict[str, Any]:
        whole, _, decimals = price.partition(".")
        return {
            "currencyCode": "USD",
            "units": whole,
            "nanos": int(decimals[:9].ljust(9, "0") or 0),
        }

    return {
        "name": f"services/95FF-2EF5-5EA1/skus/{number}",
        "skuId": number,
        "description": description,
        "category": {
            "serviceDisplayName": "Cloud Storage",
            "resourceFamily": "Storage",
            "resourceGroup": group,
            "usageType": "OnDemand",
        },
        "serviceRegions": list(regions),
        "pricingInfo": [
            {
                "effectiveTime": "2026-11-20T08:00:00Z",
                "pricingExpression": {
                    "usageUnit": unit,
                    "displayQuantity": 10000,
                    "tieredRates": [
                        {"startUsageAmount": start, "unitPrice": money(price)}
                        for start, price in rates
                    ],
                },
            }
        ],
        "serviceProviderName": "Google",
    }


def catalog(lists: PriceLists, skus: Iterable[dict[str, Any]], size: int = 2) -> None:
    """Serve one service's SKUs page by page."""
    known = list(skus)
    services = {
        "services": [
            {
                "name": "services/95FF-2EF5-5EA1",
                "serviceId": "95FF-2EF5-5EA1",
                "displayName": "Cloud Storage",
            }
        ]
    }
    lists.file("/v1/services", json.dumps(services).encode())

    def page(asked: Asked) -> Answer:
        at = int(asked.query.get("pageToken", "0"))
        following = str(at + size) if at + size < len(known) else ""
        body = {"skus": known[at : at + size], "nextPageToken": following}
        return Answer(json.dumps(body).encode())

    lists.page("/v1/services/95FF-2EF5-5EA1/skus", page)
