"""Lines of Google Cloud's billing export, as FOCUS rows.

A line of the standard and of the detailed export has its credits within; here each is a row of its
own, so that all rows add up to the bill. Categories and prices are as in Google's own view of the
export as FOCUS (2024-03-19, cloud.google.com/resources/google-cloud-focus).
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from costinsights.billing.gcp_billing_table import MARKED, utc
from costinsights.billing.puller import DAY, PullError, midnight
from costinsights.billing.units import unit
from costinsights.systems import gcp_storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from costinsights.billing.puller import Row, Value

CATEGORIES = {
    "regular": "Usage",
    "tax": "Tax",
    "adjustment": "Adjustment",
    "rounding_error": "Adjustment",
}
COMMITMENTS = frozenset(("COMMITTED_USAGE_DISCOUNT", "COMMITTED_USAGE_DISCOUNT_DOLLAR_BASE"))
NOBODY = "Google Cloud"
"""The service of a line that is of none: a tax on the whole invoice."""
PREFIXES = {"project_labels": "project/", "tags": "tag/"}
"""FOCUS wants the keys of all schemes of tags but one to begin with the scheme's name."""


def native_rows(row: Mapping[str, Any]) -> Iterator[Row]:
    """Yield a line of the standard or the detailed export, and each of its credits."""
    line = _line(row)
    month = str(row["invoice_month"] or "")
    kind = str(row["cost_type"] or "").lower().replace(" ", "_")
    adjusted = any(row.get(f"adjustment_info_{name}") for name in ADJUSTMENT)
    before = f"{utc(row['usage_start_time']):%Y%m}" < month
    granted = cast("list[dict[str, Any]]", json.loads(row["credits"] or "[]") or [])
    yield {
        **line,
        "BilledCost": row["cost"],
        "ListCost": row.get("cost_at_list"),
        "ChargeCategory": CATEGORIES.get(kind, str(row["cost_type"])),
        "ChargeClass": "Correction" if adjusted or (kind == "adjustment" and before) else None,
        "ChargeDescription": row.get("sku_description"),
        **(_used(row, granted) if kind == "regular" else {}),
        **{
            f"x_Adjustment{name.title()}": row.get(f"adjustment_info_{name}") for name in ADJUSTMENT
        },
    }
    for credit in granted:
        yield {
            **line,
            "BilledCost": number(credit["amount"]),
            "ChargeCategory": "Credit",
            "ChargeDescription": credit.get("full_name") or credit.get("name"),
            "x_CreditId": credit.get("id"),
            "x_CreditName": credit.get("name"),
            "x_CreditType": credit.get("type"),
        }


ADJUSTMENT = ("id", "description", "mode", "type")


def _line(row: Mapping[str, Any]) -> dict[str, Value]:
    """Return what a line and its credits have in common."""
    month = str(row["invoice_month"] or "")
    period = datetime.strptime(month, "%Y%m").replace(tzinfo=timezone.utc) if month else None
    service = row["service_description"] or row.get("service_id") or NOBODY
    name, full = row.get("resource_name"), row.get("resource_global_name")
    transaction = row.get("transaction_type")
    return {
        "BillingAccountId": row["billing_account_id"],
        "BillingAccountType": "Billing Account",
        "BillingCurrency": row["currency"],
        "BillingPeriodStart": period,
        "ChargePeriodStart": utc(row["usage_start_time"]),
        "ChargePeriodEnd": utc(row["usage_end_time"]),
        "ServiceName": service,
        "SubAccountId": row.get("project_id"),
        "SubAccountName": row.get("project_name"),
        "SubAccountType": "Project" if row.get("project_id") else None,
        "RegionId": row.get("location_region"),
        "RegionName": row.get("location_region"),
        "AvailabilityZone": row.get("location_zone"),
        "ResourceId": full or name,
        "ResourceName": name or full,
        "ResourceType": resource_type(full, service) if full or name else None,
        "PublisherName": row.get("seller_name") if transaction not in (None, "GOOGLE") else None,
        "Tags": tags_of({name: row.get(name) for name in ("labels", *PREFIXES)}),
        "x_InvoiceMonth": month or None,
        "x_CostType": row["cost_type"],
        "x_ServiceId": row.get("service_id"),
        "x_Location": row.get("location_location"),
        "x_TransactionType": transaction,
        **_for(service, row.get("sku_description"), row.get("sku_id")),
    }


def _used(row: Mapping[str, Any], granted: Iterable[Mapping[str, Any]]) -> dict[str, Value]:
    """Return what a line of usage has beside its cost."""
    description, id_ = str(row.get("sku_description") or ""), row.get("sku_id")
    committed = description.lower().startswith("commitment") or any(
        credit.get("type") in COMMITMENTS for credit in granted
    )
    tier = row.get("price_tier_start_amount")
    return {
        "ContractedCost": row["cost"],
        "ContractedUnitPrice": row.get("price_effective_price"),
        "ConsumedQuantity": row.get("usage_amount"),
        "ConsumedUnit": unit(row.get("usage_unit")),
        "PricingQuantity": row.get("usage_amount_in_pricing_units"),
        "PricingUnit": unit(row.get("usage_pricing_unit")),
        "PricingCategory": "Committed" if committed else "Standard",
        "SkuId": id_,
        "SkuMeter": description or None,
        "SkuPriceId": None if tier is None else f"{id_}/{tier.normalize():f}",
        "x_CurrencyConversionRate": row.get("currency_conversion_rate"),
    }


def focus_rows(row: Mapping[str, Any]) -> Iterator[Row]:
    """Yield a line of the FOCUS export; its cost is after credits already."""
    found: dict[str, Value] = dict(row)
    labels = {
        "Tags": row.get("Tags"),
        "labels": row.get("x_Labels"),
        "project_labels": row.get("x_ProjectLabels"),
        "tags": row.get("x_Tags"),
    }
    service = row["ServiceName"] or row.get("x_ServiceId") or NOBODY
    found["ServiceName"] = service
    found["Tags"] = tags_of(labels)
    for name in ("ChargeCategory", "ChargeClass", "PricingCategory"):
        word = row.get(name)
        found[name] = word.capitalize() if isinstance(word, str) else None
    found |= _for(service, row.get("ChargeDescription"), row.get("SkuId"))
    yield found


def _for(service: str, description: str | None, sku_id: str | None) -> dict[str, Value]:
    """Return what a line is for, by its SKU: all of Cloud Storage, and data transfer of all."""
    if service != gcp_storage.SERVICE:
        return {"x_UsageKind": gcp_storage.transfer(description or "")}
    sku = gcp_storage.sku(description, sku_id)
    return {
        "x_UsageKind": sku.kind,
        "x_StorageClass": sku.storage_class,
        "x_Operation": None if sku.operation is None else f"Class {sku.operation}",
    }


def in_days(row: Row) -> Row:
    """Return a row whose charge period is the whole day."""
    start = cast("datetime", row["ChargePeriodStart"])
    return {**row, "ChargePeriodStart": midnight(start), "ChargePeriodEnd": midnight(start) + DAY}


def resource_type(full: str | None, service: str) -> str | None:
    """Return the kind of a resource: what stands before the last part of its full name."""
    if full and "/" in full.strip("/"):
        return full.rstrip("/").rsplit("/", 2)[-2]
    return "buckets" if service == gcp_storage.SERVICE else None


def tags_of(labels: Mapping[str, str | None]) -> dict[str, str] | None:
    """Return labels of a resource, of its project and from the Resource Manager as tags."""
    found: dict[str, str] = {}
    for scheme, text in labels.items():
        listed = cast("list[dict[str, Any]]", json.loads(text or "[]") or [])
        for one in listed:
            plain = {key.lower(): value for key, value in one.items()}
            if plain.get("key") is not None:
                found[f"{PREFIXES.get(scheme, '')}{plain['key']}"] = str(plain.get("value") or "")
    return found or None


def number(text: str | None) -> Decimal | None:
    """Return a number of the export: the shortest text of what is binary, all of what is decimal.

    Raises:
        PullError: it is none.
    """
    if text is None:
        return None
    try:
        binary = text.startswith(MARKED)
        found = Decimal(repr(float(text.removeprefix(MARKED)))) if binary else Decimal(text)
    except (ArithmeticError, ValueError):
        raise PullError("what stands for an amount in the export is no number") from None
    if not found.is_finite():
        raise PullError("an amount of the export is not finite")
    return found
