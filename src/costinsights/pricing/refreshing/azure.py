"""Azure Retail Prices: a service's items of a region, page by page, without credentials.

``GET https://prices.azure.com/api/retail/prices``, filtered by serviceName, armRegionName and
priceType, and by productName where a lookup says it; ``NextPageLink`` until there is none. Only the
primary meters of type Consumption that are in force count; tiers are items of one meter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode

from costinsights.pricing.refreshing.fetching import RefreshError, Source, same_host
from costinsights.pricing.refreshing.offers import Offer, Tier, fits, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from costinsights.pricing.refreshing.offers import Wanted

VERSION = "2023-01-01-preview"
MOST_PAGES = 1000
_TEXTS = ("serviceName", "productName", "skuName", "meterName", "productId", "armSkuName")

Item = Mapping[str, Any]


class AzurePrices(Source):
    """Reads the retail prices."""

    system = "azure.retail_prices"
    host = "https://prices.azure.com"
    currency = "USD"
    now: datetime | None = None

    def offers(self, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, list[Offer]]]:
        """Yield each wanted price with all that fits it.

        Raises:
            RefreshError: the list cannot be had, or is not as it was.
        """
        places: dict[tuple[str, str, str], list[Wanted]] = {}
        for one in wanted:
            product = one.lookup.exactly.get("productName", "")
            places.setdefault((one.lookup.service, one.region, product), []).append(one)
        for (service, region, product), together in places.items():
            found: list[dict[str, list[Item]]] = [{} for _ in together]
            for item in self._items(service, region, product):
                attributes = {plain(name): str(item.get(name) or "") for name in _TEXTS}
                for one, into in zip(together, found, strict=True):
                    if fits(one.lookup, region, attributes):
                        into.setdefault(str(item.get("meterId")), []).append(item)
            for one, meters in zip(together, found, strict=True):
                yield one, [self._offer(items) for items in meters.values()]

    def _items(self, service: str, region: str, product: str) -> Iterator[Item]:
        said = {
            "serviceName": service,
            "armRegionName": region,
            "priceType": "Consumption",
            **({"productName": product} if product else {}),
        }
        words = " and ".join(f"{name} eq '{_doubled(value)}'" for name, value in said.items())
        query = {
            "api-version": VERSION,
            "currencyCode": f"'{self.currency}'",
            "$filter": words,
        }
        url = f"{self.base}/api/retail/prices?{urlencode(query, quote_via=quote)}"
        seen: set[str] = set()
        while url:
            if url in seen or len(seen) >= MOST_PAGES:
                why = "gave a page for the second time"
                if url not in seen:
                    why = f"gave {MOST_PAGES:,} pages and was not done"
                raise RefreshError(f"{self.base}: the list of {service} in {region} {why}")
            seen.add(url)
            page = self._page(url)
            items = page.get("Items")
            if not isinstance(items, list):
                raise RefreshError(f"{self.base}: its answers have changed: there are no Items")
            for item in cast("list[object]", items):
                if not isinstance(item, dict):
                    raise RefreshError(
                        f"{self.base}: its answers have changed: an item is no object"
                    )
                if self._counts(cast("Item", item)):
                    yield cast("Item", item)
            following = page.get("NextPageLink") or ""
            if following and not (isinstance(following, str) and same_host(following, self.base)):
                raise RefreshError(f"{self.base}: its next page is on another host: refused")
            url = following

    def _page(self, url: str) -> Mapping[str, Any]:
        with open(self.fetch(url), "rb") as file:
            try:
                page = json.load(file, parse_float=Decimal, parse_int=Decimal)
            except (ValueError, RecursionError):
                raise RefreshError(f"{self.base}: its answer is not JSON") from None
        if not isinstance(page, dict):
            raise RefreshError(f"{self.base}: its answers have changed: not an object")
        return cast("Mapping[str, Any]", page)

    def _counts(self, item: Item) -> bool:
        if item.get("type") != "Consumption" or item.get("isPrimaryMeterRegion") is False:
            return False
        start = str(item.get("effectiveStartDate") or "")[:10]
        now = self.now or datetime.now(timezone.utc)
        return start <= now.date().isoformat()

    def _offer(self, items: Sequence[Item]) -> Offer:
        first = items[0]
        units = sorted({str(item.get("unitOfMeasure")) for item in items})
        currencies = sorted({str(item.get("currencyCode")) for item in items})
        # A meter may have a price from an earlier day beside the one in force.
        newest: dict[Decimal, Item] = {}
        for item in sorted(items, key=lambda one: str(one.get("effectiveStartDate") or "")):
            start = self._number(item.get("tierMinimumUnits", Decimal(0)))
            before = newest.get(start)
            same_day = before is not None and before.get("effectiveStartDate") == item.get(
                "effectiveStartDate"
            )
            if (
                same_day
                and before is not None
                and before.get("retailPrice") != item.get("retailPrice")
            ):
                raise RefreshError(
                    f"{self.base}: meter {item.get('meterId')} has two prices for one quantity"
                )
            newest[start] = item
        tiers = tuple(
            Tier(start, self._number(item.get("retailPrice"))) for start, item in newest.items()
        )
        name = (
            f"meter {first.get('meterId')} ({first.get('productName')}, {first.get('meterName')})"
        )
        return Offer(
            name,
            " and ".join(units),
            " and ".join(currencies),
            tiers,
            f"{self.base}/api/retail/prices",
        )

    def _number(self, value: object) -> Decimal:
        try:
            if isinstance(value, Decimal):
                return value
            return Decimal(cast("str", value))
        except (InvalidOperation, TypeError, ValueError):
            raise RefreshError(f"{self.base}: {str(value)[:40]!r} is no number") from None


def _doubled(text: str) -> str:
    """Return text as it stands between quotes of an OData filter."""
    return text.replace("'", "''")
