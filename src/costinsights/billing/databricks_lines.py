"""Lines of ``system.billing.usage``, as FOCUS rows."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import msgspec

from costinsights.billing.services import AWS, AZURE, DATABRICKS, GOOGLE
from costinsights.settlement.databricks_tables import moment

if TYPE_CHECKING:
    from costinsights.billing.puller import Row, Value

    Cells = list[str | None]

HOSTS = {"AWS": AWS, "AZURE": AZURE, "GCP": GOOGLE}
"""Whose machines they are, by ``cloud``."""
ISSUERS = {"AZURE": AZURE}
"""Who writes the invoice, where it is not Databricks: Azure sells it as a service of its own."""
RESOURCES = (
    ("warehouse_id", "warehouse_id", "SQL Warehouse"),
    ("job_id", "job_name", "Job"),
    ("dlt_pipeline_id", "dlt_pipeline_id", "Pipeline"),
    ("endpoint_id", "endpoint_name", "Endpoint"),
    ("endpoint_name", "endpoint_name", "Endpoint"),
    ("database_instance_id", "database_instance_id", "Database Instance"),
    ("app_id", "app_name", "App"),
    ("cluster_id", "cluster_id", "Cluster"),
    ("notebook_id", "notebook_path", "Notebook"),
)
"""What a record is of: the first of these that ``usage_metadata`` has, its name, and its kind. A job's
cluster is the job's."""
KINDS = (
    ("transfer_internet", re.compile(r"INTERNET_EGRESS")),
    ("transfer_zone", re.compile(r"INTER_(AVAILABILITY_)?ZONE")),
    ("transfer_region", re.compile(r"INTER_(REGION|CONTINENTAL)")),
)
"""Data transfer, by the words of its SKU."""
USAGES = {
    "COMPUTE_TIME": "compute",
    "GPU_TIME": "compute",
    "STORAGE_SPACE": "storage",
    "API_OPERATION": "requests",
    "API_CALLS": "requests",
}
"""Everything else, by ``usage_type``."""


class Line(msgspec.Struct):
    """Records that agree in all but their type, added up."""

    account: str
    workspace: str
    sku: str
    cloud: str
    unit: str
    started: int
    ended: int
    product: str
    usage: str
    tags: str
    metadata: str
    quantity: Decimal | None
    records: int
    quantities: int
    """Of the records, those that have a quantity."""
    restated: int
    """Of the records, those that are no originals."""

    @classmethod
    def of(cls, cells: Cells) -> Line:
        """Take a row of `READING`."""
        account, workspace, sku, cloud, unit = (cell or "" for cell in cells[:5])
        started, ended = (int(cell or 0) for cell in cells[5:7])
        product, usage, tags, metadata = (cell or "" for cell in cells[7:11])
        records, quantities, restated = (int(cell or 0) for cell in cells[12:15])
        return cls(
            account=account,
            workspace=workspace,
            sku=sku,
            cloud=cloud,
            unit=unit,
            started=started,
            ended=ended,
            product=product,
            usage=usage,
            tags=tags,
            metadata=metadata,
            quantity=None if cells[11] is None else Decimal(cells[11]),
            records=records,
            quantities=quantities,
            restated=restated,
        )

    def row(self, quantity: Decimal, price: tuple[Decimal, str], multiplier: Decimal) -> Row:
        """Return it as a FOCUS row."""
        each, currency = price
        metadata = _filled(self.metadata)
        field, name, kind = next(
            (one for one in RESOURCES if metadata.get(one[0])), (None, None, None)
        )
        billed = quantity * each * multiplier
        found: dict[str, Value] = {
            "BilledCost": billed,
            "ListCost": quantity * each,
            "ListUnitPrice": each,
            "ContractedUnitPrice": each * multiplier,
            "BillingCurrency": currency,
            "ChargePeriodStart": moment(str(self.started)),
            "ChargePeriodEnd": moment(str(self.ended)),
            "ChargeCategory": "Usage",
            "ChargeDescription": " ".join(filter(None, (self.product, self.sku))),
            "ConsumedQuantity": quantity,
            "ConsumedUnit": self.unit,
            "PricingQuantity": quantity,
            "PricingUnit": self.unit,
            "PricingCategory": "Standard",
            "ServiceName": DATABRICKS,
            "ServiceProviderName": DATABRICKS,
            "HostProviderName": HOSTS.get(self.cloud),
            "InvoiceIssuerName": ISSUERS.get(self.cloud),
            "SkuId": self.sku,
            "SkuMeter": self.usage or self.unit,
            "SubAccountId": self.workspace or None,
            "SubAccountType": "Workspace" if self.workspace else None,
            "ResourceId": metadata.get(field or ""),
            "ResourceName": metadata.get(name or "") or metadata.get(field or ""),
            "ResourceType": kind,
            "Tags": _filled(self.tags) or None,
            "x_UsageKind": self._kind(),
            "x_UsageType": self.usage or None,
            "x_Product": self.product or None,
            "x_UsageMetadata": metadata or None,
            "x_RestatedRecords": str(self.restated) if self.restated else None,
        }
        return found

    def _kind(self) -> str:
        words = self.sku.upper()
        moved = next((kind for kind, pattern in KINDS if pattern.search(words)), None)
        return moved or USAGES.get(self.usage.upper(), "compute" if self.unit == "DBU" else "other")


def _filled(text: str) -> dict[str, str]:
    """Return what a map or a structure has, without what it has not."""
    found = cast("dict[str, object]", json.loads(text or "{}") or {})
    return {name: str(value) for name, value in found.items() if value is not None}
