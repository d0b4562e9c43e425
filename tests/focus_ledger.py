"""A ledger with every kind of charge that there is: of calls, and of the bills of three clouds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.billing import pull
from costinsights.billing.puller import DAY, Plan, Puller, Slice, days
from costinsights.records import Resource
from tests.ledgers import HOUR, NOON, UNIT, Program
from tests.pullers import NOW, day

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from costinsights.billing.puller import Loading

RUN = Resource(address="glue.us-east-1.amazonaws.com", namespace="nightly", region="us-east-1")
MANAGED = Resource("shop.abc.eu-west-1.rds.amazonaws.com", 5432, "shop", "aws.rds", "eu-west-1")
CALLS = 11
"""Charges of calls that `calls` writes."""


def calls(ledger: str) -> None:
    """Have a program write statements and jobs, at every basis, with and without a price."""
    program = Program(ledger)
    owned = {"asset": "orders", "job": "nightly", "team": "shop", "cost centre": "7"}
    program.call(labels=owned)
    program.call(labels=owned, resource=MANAGED, amount=UNIT // 3)
    program.call(system="aws.athena", basis="metered", u={"data_scanned_bytes": 12_345_678})
    program.call(system="aws.redshift", basis="allocated", duration=HOUR // 7)
    # What nobody used of capacity that was paid for.
    program.call(
        system="aws.redshift", basis="allocated", statement=None, o="IDLE", labels={"rule": "idle"}
    )
    program.call(system="trino", amount=None, error=("TrinoQueryError", "USER_ERROR"))
    program.call(system="duckdb", amount=0, rows=None)
    program.call(
        system="aws.glue", statement=None, o="JOB", resource=RUN, basis="metered", i="jr_1"
    )
    # A job that goes on: its amount comes later.
    program.call(system="aws.glue", statement=None, o="JOB", resource=RUN, amount=None, i="jr_2")
    program.call(system="someones.own", statement=None, o="THING", resource=Resource())
    # An estimate, and then a better figure under the same id.
    first = program.call(system="gcp.bigquery", amount=5 * UNIT, at=NOON - HOUR)
    program.call(
        system="gcp.bigquery", amount=3 * UNIT, charge_id=first, revision=1, basis="billed"
    )
    program.close()


class CloudPuller(Puller):
    """Gives what it was given: lines as the puller of a cloud gives them."""

    system = "seeded"
    provider = "Seeded"
    answers = {}

    def __init__(self, provider: str, lines: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.account = provider
        self.lines = lines

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        return [Slice(self.system, self.account, *bounds) for bounds in days(start, end)]

    def plan(self, slices: Sequence[Slice]) -> Plan:
        return Plan((f"{len(slices)} days",))

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002
        into.rows(
            {"ProviderName": self.account, **one}
            for one in self.lines
            if one["ChargePeriodStart"] == slice.start
        )


def line(cost: str, service: str, account: str, **more: Any) -> dict[str, Any]:
    """A line of yesterday's but one, with what every puller gives."""
    return {
        "BilledCost": cost,
        "BillingCurrency": "USD",
        "BillingAccountId": account,
        "ChargePeriodStart": day(2),
        "ChargePeriodEnd": day(2) + DAY,
        "ServiceName": service,
        **more,
    }


def used(
    cost: str, service: str, account: str, quantity: str, unit: str, **more: Any
) -> dict[str, Any]:
    """A line of usage."""
    measured = {"ConsumedQuantity": quantity, "ConsumedUnit": unit}
    return line(cost, service, account, **measured, **more)


AMAZON = "123456789012"
PLAN = {
    "CommitmentDiscountCategory": "Spend",
    "CommitmentDiscountId": "sp-1",
    "CommitmentDiscountType": "Savings Plan",
}
AWS_LINES = (
    used(
        "0.023",
        "Amazon Simple Storage Service",
        AMAZON,
        "1.5",
        "GB-Months",
        ResourceId="arn:aws:s3:::bucket",
        ResourceType="Bucket",
        x_UsageKind="storage",
        x_UsageType="TimedStorage-ByteHrs",
    ),
    used(
        "0.0004",
        "Amazon Simple Storage Service",
        AMAZON,
        "1000",
        "Requests",
        SkuId="S1",
        SkuPriceId="S1.P1",
        SkuMeter="Requests-Tier1",
        x_UsageKind="requests",
        RegionId="us-east-1",
        RegionName="N. Virginia",
    ),
    line(
        "-1.25",
        "Amazon Simple Storage Service",
        AMAZON,
        ChargeCategory="Credit",
        ChargeDescription="a credit",
    ),
    line("0.19", "Amazon Simple Storage Service", AMAZON, ChargeCategory="Tax"),
    used("-0.5", "AWS Glue", AMAZON, "1", "Hours", ChargeClass="Correction"),
    # A commitment is paid for, used and, in part, not used.
    line(
        "24",
        "Amazon Elastic Compute Cloud",
        AMAZON,
        ChargeCategory="Purchase",
        ChargeFrequency="Recurring",
        EffectiveCost="0",
        PricingQuantity="24",
        PricingUnit="Hours",
        PricingCategory="Standard",
        **PLAN,
    ),
    used(
        "0",
        "Amazon Elastic Compute Cloud",
        AMAZON,
        "20",
        "Hours",
        EffectiveCost="20",
        ListCost="30",
        ContractedCost="30",
        PricingCategory="Committed",
        CommitmentDiscountStatus="Used",
        CommitmentDiscountQuantity="20",
        CommitmentDiscountUnit="USD",
        **PLAN,
    ),
    line(
        "0",
        "Amazon Elastic Compute Cloud",
        AMAZON,
        EffectiveCost="4",
        ListCost="0",
        ContractedCost="0",
        PricingQuantity="4",
        PricingUnit="Hours",
        PricingCategory="Committed",
        CommitmentDiscountStatus="Unused",
        CommitmentDiscountQuantity="4",
        CommitmentDiscountUnit="USD",
        **PLAN,
    ),
)
AZURE_LINES = (
    used(
        "0.02",
        "Storage",
        "/billingAccounts/1",
        "10",
        "10000 Requests",
        SubAccountId="/sub/1",
        SubAccountName="dev",
        SubAccountType="Subscription",
        PricingQuantity="1",
        PricingUnit="10000 Requests",
        x_UsageKind="requests",
    ),
    line(
        "-3",
        "Storage",
        "/billingAccounts/1",
        ChargeCategory="Adjustment",
        ChargeDescription="rounding",
    ),
)
GOOGLE_LINES = (
    used(
        "0.026",
        "Cloud Storage",
        "0A-1B-2C",
        "1",
        "GiB-Months",
        SubAccountId="shop",
        SubAccountName="The shop",
        Tags={"team": "shop"},
    ),
    line(
        "-0.026",
        "Cloud Storage",
        "0A-1B-2C",
        ChargeCategory="Credit",
        ChargeDescription="promotion",
    ),
)
BILLS = {"AWS": AWS_LINES, "Microsoft": AZURE_LINES, "Google Cloud": GOOGLE_LINES}


def bills(ledger: str) -> None:
    """Pull the bills of three clouds."""
    for provider, lines in BILLS.items():
        report = pull(
            "focus", day(2), day(1), puller=CloudPuller(provider, lines), ledger=ledger, now=NOW
        )
        assert report.rows == len(lines), report
