"""Cost Management's exports as files: runs of parts and manifests, in the documented layouts.

A test says which lines a run has; `Container.run` writes them as Azure does: CSV with a byte order
mark, gzip or not, or Parquet, in parts, each with its rows and bytes in ``manifest.json``. The columns
are those of a FOCUS 1.2 export (not all of them), of a Microsoft Customer Agreement as the Cost
Details API gave them in 2026, and of an Enterprise Agreement (schema 2024-08-01).

Emulator: it proves that we read what is documented; what a real account has may differ.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BILLING = "/providers/Microsoft.Billing/billingAccounts/1234567"
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
LAKE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/lake/providers/Microsoft.Storage"
    "/storageAccounts/lake1"
)
MACHINE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/lake/providers/Microsoft.Compute"
    "/virtualMachines/vm"
)
OCTOBER = {
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
}
MCA = (
    "invoiceId,previousInvoiceId,billingAccountId,billingAccountName,billingProfileId,"
    "billingProfileName,invoiceSectionId,invoiceSectionName,resellerName,resellerMpnId,costCenter,"
    "billingPeriodEndDate,billingPeriodStartDate,servicePeriodEndDate,servicePeriodStartDate,date,"
    "serviceFamily,productOrderId,productOrderName,consumedService,meterId,meterName,meterCategory,"
    "meterSubCategory,meterRegion,ProductId,ProductName,SubscriptionId,subscriptionName,"
    "publisherType,publisherId,publisherName,resourceGroupName,ResourceId,resourceLocation,location,"
    "effectivePrice,quantity,unitOfMeasure,chargeType,billingCurrency,pricingCurrency,"
    "costInBillingCurrency,costInPricingCurrency,costInUsd,paygCostInBillingCurrency,paygCostInUsd,"
    "exchangeRatePricingToBilling,exchangeRateDate,isAzureCreditEligible,serviceInfo1,serviceInfo2,"
    "additionalInfo,tags,PayGPrice,frequency,term,reservationId,reservationName,pricingModel,"
    "unitPrice,costAllocationRuleName,benefitId,benefitName,provider"
).split(",")
EA = (
    "InvoiceSectionName,AccountName,AccountOwnerId,SubscriptionId,SubscriptionName,ResourceGroup,"
    "ResourceLocation,Date,ProductName,MeterCategory,MeterSubCategory,MeterId,MeterName,MeterRegion,"
    "UnitOfMeasure,Quantity,EffectivePrice,CostInBillingCurrency,CostCenter,ConsumedService,"
    "ResourceId,Tags,OfferId,AdditionalInfo,ServiceInfo1,ServiceInfo2,ResourceName,ReservationId,"
    "ReservationName,UnitPrice,ProductOrderId,ProductOrderName,Term,PublisherType,PublisherName,"
    "ChargeType,Frequency,PricingModel,AvailabilityZone,BillingAccountId,BillingAccountName,"
    "BillingCurrencyCode,BillingPeriodStartDate,BillingPeriodEndDate,BillingProfileId,"
    "BillingProfileName,InvoiceSectionId,IsAzureCreditEligible,PartNumber,PayGPrice,PlanName,"
    "ServiceFamily,CostAllocationRuleName,benefitId,benefitName"
).split(",")


def focus(day: date, cost: str, **more: str) -> dict[str, str]:
    """Return a line of a FOCUS export."""
    return {
        "BilledCost": cost,
        "BillingAccountId": BILLING,
        "BillingAccountName": "Contoso",
        "BillingAccountType": "Billing Account",
        "BillingCurrency": "EUR",
        "BillingPeriodEnd": "2026-11-30T23:59:59.999Z",
        "BillingPeriodStart": "2026-11-01T00:00Z",
        "ChargeCategory": "Usage",
        "ChargeClass": "",
        "ChargeDescription": "Azure Data Lake Storage Gen2",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": f"{day + timedelta(days=1)}T00:00Z",
        "ChargePeriodStart": f"{day}T00:00Z",
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": "Microsoft",
        "ListCost": cost,
        "PricingQuantity": "1",
        "PricingUnit": "GB-Months",
        "ProviderName": "Microsoft",
        "PublisherName": "Microsoft",
        "ResourceId": LAKE.lower(),
        "ResourceName": "lake1",
        "ServiceCategory": "Storage",
        "ServiceName": "Storage Accounts",
        "SkuMeter": "Hot LRS Data Stored",
        "SubAccountId": f"/subscriptions/{SUBSCRIPTION}",
        "Tags": '{"team":"data"}',
        "x_SkuMeterCategory": "Storage",
        "x_SkuMeterSubcategory": "Azure Data Lake Storage Gen2 Hierarchical Namespace",
        "x_ResourceGroupName": "lake",
        **more,
    }


def classic(header: Sequence[str], day: date, cost: str, **more: str) -> dict[str, str]:
    """Return a line of an actual or amortized export; names in whatever case."""
    mca = header is MCA
    line = {
        "billingAccountId": "1234567",
        "billingProfileId": "ABCD-EFGH" if mca else "1234567",
        "billingAccountName": "Contoso",
        "billingProfileName": "Contoso IT",
        "billingPeriodStartDate": "11/01/2026" if mca else "2026-11-01",
        "billingPeriodEndDate": "11/30/2026" if mca else "2026-11-30",
        "date": f"{day:%m/%d/%Y}" if mca else f"{day:%Y-%m-%d}",
        "billingCurrency" if mca else "billingCurrencyCode": "EUR",
        "costInBillingCurrency": cost,
        "chargeType": "Usage",
        "pricingModel": "OnDemand",
        "frequency": "UsageBased",
        "quantity": "2.5",
        "unitOfMeasure": "1 GB/Month",
        "meterCategory": "Storage",
        "meterSubCategory": "General Block Blob v2",
        "meterName": "Hot LRS Data Stored",
        "consumedService": "Microsoft.Storage",
        "SubscriptionId": SUBSCRIPTION,
        "subscriptionName": "Data",
        "resourceGroupName" if mca else "ResourceGroup": "lake",
        "ResourceId": LAKE,
        "resourceLocation": "West Europe",
        "tags": '"team": "data"',
        "unitPrice": "0.5",
        "PayGPrice": "0.6",
        **({"paygCostInBillingCurrency": cost, "exchangeRatePricingToBilling": "1"} if mca else {}),
        **more,
    }
    named = {name.lower(): name for name in header}
    return {named[name.lower()]: value for name, value in line.items()}


@dataclass
class Container:
    """A container as a folder on the disk, into which exports are written."""

    root: Path
    made: int = 0

    def run(
        self,
        kind: str,
        *parts: Sequence[dict[str, str]],
        export: str = "",
        scope: str = BILLING,
        start: str = "2026-11-01",
        end: str = "2026-11-22",
        submitted: str = "2026-11-23T04:06:31.2765449Z",
        form: str = "csv.gz",
        header: Sequence[str] = (),
        overwrite: bool = False,
        edit: Any = None,
    ) -> Path:
        """Write a run of an export; return its folder."""
        self.made += 1
        export = export or f"{kind.lower()}-daily"
        id_ = f"00000000-0000-0000-0000-{self.made:012}"
        period = f"{start.replace('-', '')}-20261130".replace("-20261130", "-" + _month_end(start))
        name = f"exports/{export}/{period}/{id_ if not overwrite else 'run'}"
        folder = self.root / name
        if overwrite and folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        blobs: list[dict[str, Any]] = []
        for number, rows in enumerate(parts):
            path = folder / f"part_{number}_0001.{form}"
            _write(path, header or list(rows[0]), rows, form)
            blobs.append(
                {
                    "blobName": f"{name}/{path.name}",
                    "byteCount": path.stat().st_size,
                    "dataRowCount": len(rows),
                }
            )
        manifest: dict[str, Any] = {
            "manifestVersion": "2024-04-01",
            "byteCount": sum(blob["byteCount"] for blob in blobs),
            "blobCount": len(blobs),
            "dataRowCount": sum(map(len, parts)),
            "exportConfig": {
                "exportName": export,
                "resourceId": f"{scope}/providers/Microsoft.CostManagement/exports/{export}",
                "dataVersion": "1.2",
                "apiVersion": "2025-03-01",
                "type": kind,
                "timeFrame": "MonthToDate",
                "granularity": "Daily",
            },
            "deliveryConfig": {"partitionData": True, "fileFormat": "Csv"},
            "runInfo": {
                "executionType": "Scheduled",
                "submittedTime": submitted,
                "runId": id_,
                "startDate": f"{start}T00:00:00",
                "endDate": f"{end}T00:00:00+00:00",
            },
            "blobs": blobs,
        }
        if edit is not None:
            edit(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder


def _month_end(start: str) -> str:
    first = date.fromisoformat(start).replace(day=1)
    return f"{(first + timedelta(days=32)).replace(day=1) - timedelta(days=1):%Y%m%d}"


def _write(path: Path, header: Sequence[str], rows: Sequence[dict[str, str]], form: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, restval="")
    writer.writeheader()
    writer.writerows(rows)
    data = ("\ufeff" + text.getvalue()).encode()  # Azure's begin with a mark
    if form == "csv.gz":
        data = gzip.compress(data)
    if form != "snappy.parquet":
        path.write_bytes(data)
        return
    plain = path.with_suffix(".csv")
    plain.write_bytes(data)
    connection = duckdb.connect(":memory:")
    numbers = "BilledCost ContractedCost EffectiveCost ListCost PricingQuantity".split()
    moments = "BillingPeriodEnd BillingPeriodStart ChargePeriodEnd ChargePeriodStart".split()
    casts = [f"CAST({name} AS DECIMAL(38,18)) AS {name}" for name in numbers]
    casts += [f"CAST(rtrim(replace({n}, 'T', ' '), 'Z') AS TIMESTAMP) AS {n}" for n in moments]
    connection.execute(
        f"COPY (SELECT * REPLACE ({', '.join(casts)}) FROM read_csv('{plain}', all_varchar=true)) "
        f"TO '{path}' (FORMAT parquet, COMPRESSION snappy)"
    )
    connection.close()
    plain.unlink()


def day(number: int, month: int = 11) -> date:
    return date(2026, month, number)
