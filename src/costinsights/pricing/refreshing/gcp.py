"""Google's Cloud Billing Catalog: a service's SKUs, page by page.

``GET https://cloudbilling.googleapis.com/v1/services`` for the service's id by its name, then
``…/skus``. With an API key in ``GOOGLE_API_KEY``, which goes into a header and into no address, or
else with the credentials that google-auth finds. What it says first of a SKU's prices is what counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from costinsights.pricing.refreshing.fetching import RefreshError, Source
from costinsights.pricing.refreshing.offers import Offer, Tier, fits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from costinsights.pricing.refreshing.offers import Wanted

KEY = "GOOGLE_API_KEY"
SCOPE = "https://www.googleapis.com/auth/cloud-billing.readonly"
MOST_PAGES = 1000
PAGE = 5000
_NANO = Decimal("1e-9")

Sku = Mapping[str, Any]


class GooglePrices(Source):
    """Reads the catalog."""

    system = "gcp.billing_catalog"
    host = "https://cloudbilling.googleapis.com"
    grants = "an API key for the Cloud Billing API, or any account: the catalog is public"
    dependencies = "google-auth requests"
    currency = "USD"

    def __init__(self, **options: Any) -> None:
        """Take the options of every source."""
        super().__init__(**options)
        self._headers: dict[str, str] | None = None
        self._services: dict[str, str] | None = None

    def renew(self) -> None:
        """Log in anew."""
        self._headers = None

    def offers(self, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, list[Offer]]]:
        """Yield each wanted price with all that fits it.

        Raises:
            RefreshError: the catalog cannot be had, or is not as it was.
        """
        services: dict[str, list[Wanted]] = {}
        for one in wanted:
            services.setdefault(one.lookup.service, []).append(one)
        for service, together in services.items():
            found: list[list[Offer]] = [[] for _ in together]
            for sku in self._skus(service):
                try:
                    attributes, regions = _attributes(sku)
                    for one, into in zip(together, found, strict=True):
                        if one.region.casefold() in regions and fits(
                            one.lookup, one.region, attributes
                        ):
                            into.append(_offer(sku, f"{self.host}/v1/{sku.get('name', '')}"))
                except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
                    raise RefreshError(
                        f"{self.base}: a SKU of {service} is not as it was: {type(error).__name__}"
                    ) from None
            yield from zip(together, found, strict=True)

    def _skus(self, service: str) -> Iterator[Sku]:
        if self._services is None:
            self._services = {}
            for one in self._list("/v1/services", "services", {}):
                self._services[str(one.get("displayName"))] = str(one.get("name"))
        name = self._services.get(service)
        if name is None or not name.startswith("services/"):
            raise RefreshError(f"{self.base}: the catalog has no service called {service!r}")
        yield from self._list(f"/v1/{name}/skus", "skus", {"currencyCode": self.currency})

    def _list(self, path: str, what: str, said: Mapping[str, str]) -> Iterator[Sku]:
        seen: set[str] = set()
        token = ""
        while True:
            query = {**said, "pageSize": str(PAGE), **({"pageToken": token} if token else {})}
            page = self._page(f"{self.base}{path}?{urlencode(query)}")
            items = page.get(what, [])
            if not isinstance(items, list) or not all(
                isinstance(item, dict) for item in cast("list[object]", items)
            ):
                raise RefreshError(f"{self.base}: its answers have changed: {what} is no list")
            yield from cast("list[Sku]", items)
            token = page.get("nextPageToken") or ""
            if not token:
                return
            if token in seen or len(seen) >= MOST_PAGES:
                why = "gave a page for the second time"
                if token not in seen:
                    why = f"gave {MOST_PAGES:,} pages and was not done"
                raise RefreshError(f"{self.base}: the list of {what} {why}")
            seen.add(token)

    def _page(self, url: str) -> Mapping[str, Any]:
        with open(self.fetch(url, self._authorised), "rb") as file:
            try:
                page = json.load(file, parse_float=Decimal)
            except (ValueError, RecursionError):
                raise RefreshError(f"{self.base}: its answer is not JSON") from None
        if not isinstance(page, dict):
            raise RefreshError(f"{self.base}: its answers have changed: not an object")
        return cast("Mapping[str, Any]", page)

    def _authorised(self) -> dict[str, str]:
        """Return the headers that say who asks."""
        if self._headers is None:
            key = os.environ.get(KEY, "")
            self._headers = {"X-Goog-Api-Key": key} if key else self._token()
        return self._headers

    def _token(self) -> dict[str, str]:
        try:
            auth: Any = import_module("google.auth")
            transport: Any = import_module("google.auth.transport.requests")
        except ImportError:
            raise RefreshError(
                f"say an API key in {KEY}, or run  pip install {self.dependencies}"
            ) from None
        try:
            credentials, _ = auth.default(scopes=[SCOPE])
            credentials.refresh(transport.Request())
        except Exception as error:  # noqa: BLE001  google-auth has many, and their texts name files
            raise RefreshError(
                f"no credentials of Google's: {type(error).__name__}. Say an API key in {KEY}, or "
                "run  gcloud auth application-default login"
            ) from None
        return {"Authorization": f"Bearer {credentials.token}"}


def _attributes(sku: Sku) -> tuple[dict[str, str], set[str]]:
    category = cast("Mapping[str, Any]", sku.get("category") or {})
    attributes = {
        "description": str(sku.get("description") or ""),
        "skuid": str(sku.get("skuId") or ""),
        "resourcegroup": str(category.get("resourceGroup") or ""),
        "resourcefamily": str(category.get("resourceFamily") or ""),
        "usagetype": str(category.get("usageType") or ""),
    }
    return attributes, {str(region).casefold() for region in sku.get("serviceRegions") or ()}


def _offer(sku: Sku, source: str) -> Offer:
    expression = sku["pricingInfo"][0]["pricingExpression"]
    tiers: list[Tier] = []
    currencies: set[str] = set()
    for rate in expression["tieredRates"]:
        money = rate["unitPrice"]
        currencies.add(str(money["currencyCode"]))
        price = Decimal(str(money.get("units") or 0)) + Decimal(money.get("nanos") or 0) * _NANO
        tiers.append(Tier(Decimal(str(rate.get("startUsageAmount") or 0)), price))
    name = f"SKU {sku['skuId']} ({sku['description']})"
    currency = " and ".join(sorted(currencies))
    return Offer(name, str(expression["usageUnit"]), currency, tuple(tiers), source)
