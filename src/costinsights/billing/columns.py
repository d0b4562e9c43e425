"""The columns of a bill: FOCUS 1.2, the names that 1.3 adds, and a few of ours.

One table says it all, for what is imported and for what is exported. Columns and rules: FOCUS
specification, tag v1.2 (focus.finops.org); those of 1.3: FOCUS_Spec pull requests 1677 and 2485.
A source may have further columns, whose names begin with ``x_``; they are kept as they come.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

MONEY = "DECIMAL(38,18)"
"""Money and quantities of a bill: 18 decimals, which is more than any provider states in decimals.
What a provider states in binary floating point is taken by its shortest text and rounded there."""

Kind = Literal["text", "number", "moment", "json"]
Level = Literal["mandatory", "recommended", "conditional", "ours"]

TYPES: dict[Kind, str] = {
    "text": "VARCHAR",
    "number": MONEY,
    "moment": "TIMESTAMP",
    "json": "VARCHAR",
}


class Column(NamedTuple):
    """`nullable` is whether FOCUS 1.2 allows NULL; `since` the first version that has it."""

    name: str
    kind: Kind
    level: Level
    nullable: bool
    since: str = "1.0"


COLUMNS = (
    Column("AvailabilityZone", "text", "recommended", True),
    Column("BilledCost", "number", "mandatory", False),
    Column("BillingAccountId", "text", "mandatory", False),
    Column("BillingAccountName", "text", "mandatory", True),
    Column("BillingAccountType", "text", "conditional", False, "1.2"),
    Column("BillingCurrency", "text", "mandatory", False),
    Column("BillingPeriodEnd", "moment", "mandatory", False),
    Column("BillingPeriodStart", "moment", "mandatory", False),
    Column("CapacityReservationId", "text", "conditional", True, "1.1"),
    Column("CapacityReservationStatus", "text", "conditional", True, "1.1"),
    Column("ChargeCategory", "text", "mandatory", False),
    Column("ChargeClass", "text", "mandatory", True),
    Column("ChargeDescription", "text", "mandatory", True),
    Column("ChargeFrequency", "text", "recommended", False),
    Column("ChargePeriodEnd", "moment", "mandatory", False),
    Column("ChargePeriodStart", "moment", "mandatory", False),
    Column("CommitmentDiscountCategory", "text", "conditional", True),
    Column("CommitmentDiscountId", "text", "conditional", True),
    Column("CommitmentDiscountName", "text", "conditional", True),
    Column("CommitmentDiscountQuantity", "number", "conditional", True, "1.1"),
    Column("CommitmentDiscountStatus", "text", "conditional", True),
    Column("CommitmentDiscountType", "text", "conditional", True),
    Column("CommitmentDiscountUnit", "text", "conditional", True, "1.1"),
    Column("ConsumedQuantity", "number", "conditional", True),
    Column("ConsumedUnit", "text", "conditional", True),
    Column("ContractedCost", "number", "mandatory", False),
    Column("ContractedUnitPrice", "number", "conditional", True),
    Column("EffectiveCost", "number", "mandatory", False),
    Column("InvoiceId", "text", "recommended", True, "1.2"),
    Column("InvoiceIssuerName", "text", "mandatory", False),
    Column("ListCost", "number", "mandatory", False),
    Column("ListUnitPrice", "number", "conditional", True),
    Column("PricingCategory", "text", "conditional", True),
    Column("PricingCurrency", "text", "conditional", True, "1.2"),
    Column("PricingCurrencyContractedUnitPrice", "number", "conditional", True, "1.2"),
    Column("PricingCurrencyEffectiveCost", "number", "conditional", True, "1.2"),
    Column("PricingCurrencyListUnitPrice", "number", "conditional", True, "1.2"),
    Column("PricingQuantity", "number", "mandatory", True),
    Column("PricingUnit", "text", "mandatory", True),
    Column("ProviderName", "text", "mandatory", False),
    Column("PublisherName", "text", "mandatory", False),
    Column("RegionId", "text", "conditional", True),
    Column("RegionName", "text", "conditional", True),
    Column("ResourceId", "text", "conditional", True),
    Column("ResourceName", "text", "conditional", True),
    Column("ResourceType", "text", "conditional", True),
    Column("ServiceCategory", "text", "mandatory", False),
    Column("ServiceName", "text", "mandatory", False),
    Column("ServiceSubcategory", "text", "recommended", False, "1.1"),
    Column("SkuId", "text", "conditional", True),
    Column("SkuMeter", "text", "conditional", True, "1.1"),
    Column("SkuPriceDetails", "json", "conditional", True, "1.1"),
    Column("SkuPriceId", "text", "conditional", True),
    Column("SubAccountId", "text", "conditional", True),
    Column("SubAccountName", "text", "conditional", True),
    Column("SubAccountType", "text", "conditional", True, "1.2"),
    Column("Tags", "json", "conditional", True),
    # Names of 1.3, beside those of 1.2 that they are to replace.
    Column("AllocatedMethodId", "text", "conditional", True, "1.3"),
    Column("AllocatedMethodDetails", "json", "recommended", True, "1.3"),
    Column("AllocatedResourceId", "text", "conditional", True, "1.3"),
    Column("AllocatedResourceName", "text", "conditional", True, "1.3"),
    Column("AllocatedTags", "json", "conditional", True, "1.3"),
    Column("ContractApplied", "json", "conditional", True, "1.3"),
    Column("HostProviderName", "text", "mandatory", True, "1.3"),
    Column("ServiceProviderName", "text", "mandatory", False, "1.3"),
    # Ours.
    Column("x_System", "text", "ours", True),
    Column("x_UsageKind", "text", "ours", True),
    Column("x_StorageClass", "text", "ours", True),
    Column("x_UsageType", "text", "ours", True),
    Column("x_Operation", "text", "ours", True),
)
"""``x_System`` is our key of the system (``aws.s3``); ``x_UsageKind`` one of `USAGE_KINDS`;
``x_StorageClass`` the provider's own word; ``x_UsageType`` and ``x_Operation`` the provider's words
for what was used, where FOCUS has no column for them."""

NAMES = tuple(column.name for column in COLUMNS)
BY_NAME = {column.name: column for column in COLUMNS}

USAGE_KINDS: dict[str, str] = {
    "storage": "capacity, by class",
    "requests": "requests, by class",
    "retrieval": "retrieval from colder classes, and what was scanned and returned there",
    "replication": "copies to other regions and accounts",
    "early_delete": "objects deleted before their minimum duration",
    "management": "inventory, analytics, tags, monitoring",
    "transfer_internet": "data transfer out to the internet",
    "transfer_region": "data transfer between regions",
    "transfer_zone": "data transfer between zones of a region",
    "transfer_service": "data transfer between services",
    "transfer_in": "data transfer in",
    "compute": "compute",
    "other": "anything else",
}
"""What a billed line is for: the words of ``x_UsageKind``."""
