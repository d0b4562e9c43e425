"""`costinsights pull gcp`: the billing export, by the unmodified client of BigQuery.

Emulator: that Google fills its tables, and leaves partitions out, in the same way is not shown.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import asking
from costinsights.billing import BillingError, OverCap, Pulled, get_cost_data_for_hour, open_bill
from costinsights.billing import pull as pulled
from costinsights.billing.gcp_billing_export import BillingExportPuller
from costinsights.billing.puller import DAY, HOUR, PullError
from tests.servers.bigquery_server import Failure
from tests.servers.gcp_billing_server import (
    DETAILED,
    FOCUS,
    STANDARD,
    BillingServer,
    billing_server,
    line,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.bigquery_server import Request

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=timezone.utc)
TODAY = datetime(2026, 11, 23, tzinfo=timezone.utc)
FIRST = datetime(2026, 11, 1, tzinfo=timezone.utc)
TABLE = "billing.bills.gcp_billing_export_v1_01ABCD_234567_89EFAB"
RESOURCES = "billing.bills.gcp_billing_export_resource_v1_01ABCD_234567_89EFAB"
FOCUSED = "billing.gcp_billing_immutable_01ABCD_EU.gcp_billing_export_focus_01ABCD_234567_89EFAB"
OTHER = "billing.bills.gcp_billing_export_v1_0FFFFF_234567_89EFAB"
READ_ONLY = {
    "POST jobs",
    "GET jobs",
    "GET datasets/tables",
    "GET datasets/tables/data",
}
"""Queries are jobs: they change nothing but what they put into a result of our own."""


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was waited for, without waiting."""
    found: list[float] = []
    monkeypatch.setattr(asking, "sleep", found.append)
    return found


@pytest.fixture
def server(slept: list[float]) -> Iterator[BillingServer]:
    with billing_server() as server:
        server.export(TABLE)
        yield server
        assert server.operations() <= READ_ONLY


def puller(server: BillingServer, *tables: str, **options: object) -> BillingExportPuller:
    return BillingExportPuller(
        {
            "project": "tools",
            "tables": tables or (TABLE,),
            "endpoint_url": server.url,
            "page_rows": 4,
            **options,
        }
    )


def pull(
    server: BillingServer, ledger: Path, *tables: str, source: str = "gcp", **more: Any
) -> Pulled:
    options = more.pop("options", {})
    more = {"now": NOW, "cap": None, "start": FIRST, "end": FIRST + 2 * DAY, **more}
    return pulled(
        source,
        puller=puller(server, *tables, **options),
        ledger=str(ledger),
        **more,
    )


def rows(ledger: Path, columns: str = "*", where: str = "true") -> list[dict[str, Any]]:
    with open_bill(str(ledger)) as bill:
        cursor = bill.connection.execute(
            f"SELECT {columns} FROM bill WHERE {where} ORDER BY ChargePeriodStart, BilledCost"
        )
        names = [one[0] for one in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def total(ledger: Path) -> Decimal:
    return sum(
        (row["BilledCost"] for row in rows(ledger, "BilledCost, ChargePeriodStart")), Decimal(0)
    )


def hours(server: BillingServer, table: str = TABLE, *, days: int = 2, each: int = 10) -> Decimal:
    """Bill some hours of the first days of the month, and return the sum."""
    costs = [0.1 + hour / 1000 for hour in range(each)]
    server.bill(
        table,
        *(
            line(FIRST + day * DAY + hour * HOUR, cost=cost)
            for day in range(days)
            for hour, cost in enumerate(costs)
        ),
    )
    return days * sum((Decimal(repr(cost)) for cost in costs), Decimal(0))


# --- what is in it -------------------------------------------------------------------------------


def test_a_month_is_pulled_to_the_last_digit(server: BillingServer, tmp_path: Path) -> None:
    # Of these, %.15g or NUMERIC would lose digits: the shortest text of each is what it is.
    costs = [0.1, 0.2, 1e-10, 5.123456789012345e-7, 0.30000000000000004, 1234567.1234567891]
    server.bill(TABLE, *(line(FIRST + at * HOUR, cost=cost) for at, cost in enumerate(costs)))
    report = pull(server, tmp_path)
    assert (report.failed, report.incomplete, report.rows) == ("", {}, len(costs))
    assert (report.slices, report.published) == (2, 2)
    exact = sum((round(Decimal(repr(cost)), 18) for cost in costs), Decimal(0))
    assert total(tmp_path) == exact
    assert report.billed == {"USD": f"{exact:.18f}"}


def test_a_line_is_a_whole_focus_row(server: BillingServer, tmp_path: Path) -> None:
    server.export(RESOURCES, DETAILED)
    server.bill(RESOURCES, line(FIRST, bucket="shop-images", cost=0.5, cost_at_list=0.75))
    pull(server, tmp_path, RESOURCES)
    (row,) = rows(tmp_path)
    expected = {
        "BilledCost": Decimal("0.5"),
        "EffectiveCost": Decimal("0.5"),
        "ContractedCost": Decimal("0.5"),
        "ContractedUnitPrice": Decimal("0.020000001"),
        "ListCost": Decimal("0.75"),
        "BillingAccountId": "01ABCD-234567-89EFAB",
        "BillingCurrency": "USD",
        "BillingPeriodStart": datetime(2026, 11, 1),
        "BillingPeriodEnd": datetime(2026, 12, 1),
        "ChargePeriodStart": datetime(2026, 11, 1),
        "ChargePeriodEnd": datetime(2026, 11, 1, 1),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": "Standard Storage Belgium",
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": Decimal(3600),
        "ConsumedUnit": "B-Seconds",
        "PricingQuantity": Decimal("0.25"),
        "PricingUnit": "GiB-Months",
        "PricingCategory": "Standard",
        "ProviderName": "Google Cloud",
        "PublisherName": "Google Cloud",
        "InvoiceIssuerName": "Google Cloud",
        "HostProviderName": "Google Cloud",
        "ServiceName": "Cloud Storage",
        "ServiceCategory": "Storage",
        "ServiceSubcategory": "Object Storage",
        "RegionId": "europe-west1",
        "ResourceId": "//storage.googleapis.com/projects/_/buckets/shop-images",
        "ResourceName": "shop-images",
        "ResourceType": "buckets",
        "SkuId": "SKU-Standard",
        "SkuMeter": "Standard Storage Belgium",
        "SkuPriceId": "SKU-Standard/0",
        "SubAccountId": "shop-prod",
        "SubAccountName": "Shop",
        "SubAccountType": "Project",
        "x_System": "gcp.storage",
        "x_UsageKind": "storage",
        "x_StorageClass": "STANDARD",
        "x_InvoiceMonth": "202611",
        "x_CostType": "regular",
    }
    assert {name: row[name] for name in expected} == expected
    assert json.loads(row["Tags"]) == {"env": "prod", "project/team": "shop"}


def test_credits_are_rows_of_their_own_and_the_sum_is_exact(
    server: BillingServer, tmp_path: Path
) -> None:
    granted = [
        {"name": "Free tier", "full_name": "Free tier: 5 GB", "amount": -0.1, "type": "FREE_TIER"},
        {"name": "cud", "id": "c-1", "amount": -0.03, "type": "COMMITTED_USAGE_DISCOUNT"},
    ]
    server.bill(TABLE, line(FIRST, cost=0.3, credits=granted), line(FIRST + HOUR, cost=-0.02))
    pull(server, tmp_path)
    found = rows(tmp_path)
    assert total(tmp_path) == Decimal("0.3") - Decimal("0.1") - Decimal("0.03") - Decimal("0.02")
    assert [(row["ChargeCategory"], row["BilledCost"]) for row in found] == [
        ("Credit", Decimal("-0.1")),
        ("Credit", Decimal("-0.03")),
        ("Usage", Decimal("0.3")),
        ("Usage", Decimal("-0.02")),
    ]
    first, second, usage, _ = found
    assert (first["ChargeDescription"], first["x_CreditType"]) == ("Free tier: 5 GB", "FREE_TIER")
    assert (second["x_CreditId"], second["x_UsageKind"]) == ("c-1", "storage")
    assert (first["ConsumedQuantity"], first["ChargeFrequency"]) == (None, "One-Time")
    assert usage["PricingCategory"] == "Committed"


def test_adjustments_and_taxes_say_what_they_are(server: BillingServer, tmp_path: Path) -> None:
    # The last day of October, on November's invoice.
    october = FIRST - DAY
    adjusted = {"id": "a1", "description": "overcharge", "mode": "PARTIAL_CORRECTION", "type": "X"}
    nobody = {"id": None, "description": None}
    server.bill(
        TABLE,
        line(october, cost=-1.5, cost_type="adjustment", month="202611", adjustment_info=adjusted),
        line(october, cost=-2.5, cost_type="adjustment", month="202611"),
        line(
            october + HOUR, cost=0.19, cost_type="tax", sku="Tax", service="Invoice", project=None
        ),
        line(october + HOUR, cost=0.01, cost_type="rounding error", service="Invoice"),
        line(october + HOUR, cost=0.02, cost_type="tax") | {"service": nobody},
    )
    pull(server, tmp_path, start=october)
    found = {row["BilledCost"]: row for row in rows(tmp_path)}
    told = {
        cost: (row["ChargeCategory"], row["ChargeClass"], row["ServiceName"])
        for cost, row in found.items()
    }
    assert told == {
        Decimal("-1.5"): ("Adjustment", "Correction", "Cloud Storage"),
        Decimal("-2.5"): ("Adjustment", "Correction", "Cloud Storage"),
        Decimal("0.19"): ("Tax", None, "Invoice"),
        Decimal("0.01"): ("Adjustment", None, "Invoice"),
        Decimal("0.02"): ("Tax", None, "Google Cloud"),
    }
    correction = found[Decimal("-1.5")]
    # It is of a day in October, and on the invoice of November.
    assert correction["ChargePeriodStart"] == datetime(2026, 10, 31)
    assert correction["BillingPeriodStart"] == datetime(2026, 11, 1)
    assert correction["x_AdjustmentDescription"] == "overcharge"
    assert found[Decimal("0.19")]["SubAccountId"] is None


def test_storage_is_broken_down_by_what_it_is_for(server: BillingServer, tmp_path: Path) -> None:
    skus = (
        "Coldline Storage Belgium",
        "Regional Standard Class A Operations",
        "Regional Standard Class B Operations",
        "Coldline Data Retrieval",
        "Coldline Storage Belgium (Early Delete)",
        "Networking Traffic Egress GCP Replication within Europe",
        "Download Worldwide Destinations (excluding Asia & Australia)",
        "Network Data Transfer GCP Inter Region within Europe",
    )
    server.bill(TABLE, *(line(FIRST, sku=sku, cost=1.0) for sku in skus))
    server.bill(TABLE, line(FIRST, service="Compute Engine", sku="Network Inter Zone Egress"))
    pull(server, tmp_path)
    found = {row["ChargeDescription"]: row for row in rows(tmp_path)}
    told = [
        (row["x_UsageKind"], row["x_StorageClass"], row["x_Operation"])
        for row in map(found.__getitem__, skus)
    ]
    assert told == [
        ("storage", "COLDLINE", None),
        ("requests", "STANDARD", "Class A"),
        ("requests", "STANDARD", "Class B"),
        ("retrieval", "COLDLINE", None),
        ("early_delete", "COLDLINE", None),
        ("replication", None, None),
        ("transfer_internet", None, None),
        ("transfer_region", None, None),
    ]
    zone = found["Network Inter Zone Egress"]
    assert (zone["x_System"], zone["x_UsageKind"]) == ("gcp.compute", "transfer_zone")


def test_one_service_and_one_bucket_alone(server: BillingServer, tmp_path: Path) -> None:
    server.export(RESOURCES, DETAILED)
    server.bill(
        RESOURCES,
        line(FIRST, cost=1.0, bucket="ours"),
        line(FIRST, cost=2.0, bucket="theirs"),
        line(FIRST, cost=4.0, bucket="vm", service="Compute Engine", sku="N1 Core"),
    )
    pull(server, tmp_path / "a", RESOURCES, source="gcp.storage")
    assert total(tmp_path / "a") == 3
    pull(server, tmp_path / "b", RESOURCES, source="gcp.storage", resource="ours")
    assert total(tmp_path / "b") == 1
    nothing = pull(server, tmp_path / "c", RESOURCES, service="Cloud Storrage")
    assert "has no line of service=Cloud Storrage" in nothing.notes[0]
    # The word came as a parameter.
    assert not any("Storrage" in query for query in server.queries())
    refused = pull(server, tmp_path / "d", source="gcp.storage", resource="ours")
    assert "detailed and in the FOCUS export only" in refused.failed


def test_the_focus_export_is_taken_as_it_is(server: BillingServer, tmp_path: Path) -> None:
    server.export(FOCUSED, FOCUS)
    server.bill(
        FOCUSED,
        {
            "BilledCost": Decimal("0.123456789"),
            "EffectiveCost": Decimal("0.123456789"),
            "ListCost": Decimal("0.2"),
            "ContractedCost": Decimal("0.15"),
            "BillingAccountId": "01ABCD-234567-89EFAB",
            "BillingCurrency": "EUR",
            "BillingPeriodStart": FIRST,
            "BillingPeriodEnd": datetime(2026, 12, 1, tzinfo=timezone.utc),
            "ChargeCategory": "usage",
            "ChargeDescription": "Nearline Data Retrieval",
            "ChargePeriodStart": FIRST,
            "ChargePeriodEnd": FIRST + HOUR,
            "ServiceName": "Cloud Storage",
            "SubAccountId": "shop-prod",
            "x_CostType": "regular",
            "x_Credits": [{"Name": "Free", "Amount": Decimal("-0.026543211")}],
            "x_CurrencyConversionRate": 0.92,
            "x_ExportTime": FIRST + 5 * HOUR,
            "x_Labels": [{"Key": "env", "Value": "prod"}],
            "x_ProjectLabels": [{"Key": "team", "Value": "shop"}],
        },
    )
    report = pull(server, tmp_path, FOCUSED)
    assert f"{FOCUSED} (focus)" in report.plan[0]
    (row,) = rows(tmp_path)
    # The credit is within, and is not taken off a second time.
    assert (row["BilledCost"], row["BillingCurrency"]) == (Decimal("0.123456789"), "EUR")
    assert (row["ChargeCategory"], row["ServiceCategory"]) == ("Usage", "Storage")
    assert (row["x_UsageKind"], row["x_StorageClass"]) == ("retrieval", "NEARLINE")
    assert json.loads(row["Tags"]) == {"env": "prod", "project/team": "shop"}
    assert row["x_CurrencyConversionRate"] == "0.92"
    assert json.loads(row["x_Credits"]) == [{"Name": "Free", "Amount": -0.026543211}]


def test_an_hour_and_a_day(server: BillingServer, tmp_path: Path) -> None:
    hours(server, each=3)
    config = {
        "pull": {
            "gcp.billing_export": {
                "project": "tools",
                "tables": [TABLE],
                "endpoint_url": server.url,
            }
        }
    }
    found = get_cost_data_for_hour(
        "gcp.storage", FIRST + HOUR, ledger=str(tmp_path), config=config, now=NOW, cap=None
    )
    assert found.billed == {"USD": Decimal("0.101")}
    pull(server, tmp_path / "daily", granularity="daily")
    told = rows(tmp_path / "daily", "ChargePeriodStart, ChargePeriodEnd, BilledCost")
    assert {row["ChargePeriodEnd"] - row["ChargePeriodStart"] for row in told} == {DAY}
    assert len(told) == 6


# --- what it costs to look -----------------------------------------------------------------------


def test_only_the_partitions_of_a_day_are_read(server: BillingServer, tmp_path: Path) -> None:
    hours(server, days=3, each=4)
    # A row of the second day that came a fortnight later.
    late = FIRST + 15 * DAY
    server.bill(TABLE, line(FIRST + DAY, cost=0.5, exported=late))
    report = pull(server, tmp_path, end=FIRST + 3 * DAY)
    looking, *reading = server.queries()
    assert "WHERE _PARTITIONTIME >= TIMESTAMP '2026-11-01 00:00:00.000000+00:00'" in looking
    assert "_PARTITIONTIME <" not in looking
    assert len(reading) == 3
    assert "_PARTITIONTIME IN (TIMESTAMP '2026-11-02 00:00:00.000000+00:00', " in reading[1]
    assert "TIMESTAMP '2026-11-16 00:00:00.000000+00:00')" in reading[1]
    assert report.rows == 13
    # 10 MiB each is what so little costs.
    assert (
        "3 days of usage in 3 queries, 30 MiB; each is refused beyond 10,240 MiB" in report.plan[0]
    )
    assert report.spent == {"billed_bytes": str(40 * 2**20)}


def test_what_it_costs_is_a_charge_and_has_a_cap(server: BillingServer, tmp_path: Path) -> None:
    server.location = "US"
    hours(server)
    report = pull(server, tmp_path, cap=Decimal("0.20"))
    assert report.plan[-1] == "That costs 0.000119209289551 USD at most."
    assert (report.cost, report.currency) == ("0.000178813934326", "USD")
    with pytest.raises(OverCap, match=r"more than the 0\.0001 that it may"):
        pull(server, tmp_path / "other", cap=Decimal("0.0001"))
    # A location without a price is not free.
    server.location = "EU"
    unknown = pull(server, tmp_path / "eu")
    assert (unknown.cost, unknown.spent) == (None, {"billed_bytes": str(30 * 2**20)})


def test_a_query_that_would_read_too_much_is_refused(server: BillingServer, tmp_path: Path) -> None:
    server.seed(
        "SELECT billing_account_id", billed=None, processed=2**34, reason="bytesBilledLimitExceeded"
    )
    hours(server, days=1)
    report = pull(server, tmp_path)
    assert "would read more than maximum_bytes_billed" in report.failed
    assert rows(tmp_path) == []
    with pytest.raises(PullError, match="10485760 at least"):
        puller(server, maximum_bytes_billed=1)


def test_without_partitions_it_says_that_all_is_read(server: BillingServer, tmp_path: Path) -> None:
    server.export(OTHER, timePartitioning=None)
    expected = hours(server, OTHER)
    report = pull(server, tmp_path, OTHER)
    assert "reads all of its time" in report.plan[1]
    assert not any("_PARTITIONTIME" in query for query in server.queries())
    assert total(tmp_path) == expected


@pytest.mark.parametrize("field", ["export_time", "usage_start_time"])
def test_a_table_partitioned_by_a_column_is_asked_by_it(
    server: BillingServer, tmp_path: Path, field: str
) -> None:
    server.export(OTHER, partitioning={"type": "MONTH", "field": field})
    expected = hours(server, OTHER)
    pull(server, tmp_path, OTHER, start=FIRST + DAY)
    asked = f"WHERE {field} >= TIMESTAMP '2026-11-01 00:00:00.000000+00:00'"
    assert all(asked in query for query in server.queries())
    assert total(tmp_path) == expected / 2


# --- again, and later ----------------------------------------------------------------------------


def test_days_that_have_not_moved_are_not_read_again(server: BillingServer, tmp_path: Path) -> None:
    expected = hours(server)
    pull(server, tmp_path)
    before = len(server.queries())
    again = pull(server, tmp_path)
    assert (again.published, again.unchanged) == (0, 2)
    assert len(server.queries()) == before + 1
    # A correction of the second day: a new row, never a changed one.
    server.bill(TABLE, line(FIRST + DAY, cost=-0.05, exported=FIRST + 9 * DAY, month="202612"))
    later = pull(server, tmp_path)
    assert (later.published, later.unchanged) == (1, 1)
    assert total(tmp_path) == expected - Decimal("0.05")


def test_a_closed_month_is_reported_and_not_touched(server: BillingServer, tmp_path: Path) -> None:
    hours(server, days=1)
    later = NOW + 30 * DAY
    first = pull(server, tmp_path, end=FIRST + DAY, now=later)
    assert (first.published, first.provisional) == (1, 0)
    before = total(tmp_path)
    server.bill(TABLE, line(FIRST, cost=0.7, exported=later - DAY))
    closed = pull(server, tmp_path, end=FIRST + DAY, now=later)
    assert (closed.published, closed.closed) == (0, 1)
    assert closed.moved == ["gcp.billing_export 01ABCD-234567-89EFAB 2026-11-01"]
    assert total(tmp_path) == before
    anew = pull(server, tmp_path, end=FIRST + DAY, now=later, restate=True)
    assert [change.difference for change in anew.changes] == [{"USD": "0.700000000000000000"}]
    assert total(tmp_path) == before + Decimal("0.7")


def test_yesterday_is_provisional_and_today_is_not_there(
    server: BillingServer, tmp_path: Path
) -> None:
    server.bill(TABLE, line(TODAY - HOUR), line(TODAY, cost=9.0))
    report = pull(server, tmp_path, start=TODAY - 2 * DAY, end=None)
    assert report.provisional == 1
    assert total(tmp_path) == Decimal("0.1")
    # What is looked at where nobody says: from the month of 40 days ago on.
    looked = pull(server, tmp_path, start=None, end=None, dry_run=True)
    assert (looked.start, looked.end) == (datetime(2026, 10, 1, tzinfo=timezone.utc), TODAY)


def test_days_before_the_export_was_there_are_unknown_and_not_free(
    server: BillingServer, tmp_path: Path
) -> None:
    server.export(OTHER, created=FIRST + 10 * DAY)
    # Google fills in from the month before, but not all of it.
    server.bill(OTHER, line(FIRST + 8 * DAY, exported=FIRST + 10 * DAY))
    report = pull(server, tmp_path, OTHER, end=FIRST + 12 * DAY)
    assert report.slices == 12 - 9
    assert "has nothing of 9 days from 2026-11-01 on" in report.notes[0]


def test_several_billing_accounts_and_one_that_may_not_be_read(
    server: BillingServer, tmp_path: Path
) -> None:
    server.export(OTHER)
    server.denied.add(OTHER)
    expected = hours(server)
    hours(server, OTHER)
    report = pull(server, tmp_path, TABLE, OTHER)
    assert total(tmp_path) == expected
    assert "no permission for tables.get" in report.failed
    assert f"ON TABLE `{OTHER}` TO" in report.grant
    assert "projects add-iam-policy-binding tools " in report.grant
    server.denied.clear()
    again = pull(server, tmp_path, TABLE, OTHER)
    assert (again.failed, again.accounts, again.unchanged) == ("", 2, 2)
    assert total(tmp_path) == 2 * expected


def test_the_same_bill_in_two_forms_is_refused(server: BillingServer) -> None:
    with pytest.raises(PullError, match="the same bill, which would count twice"):
        puller(server, TABLE, RESOURCES)


def test_the_detailed_export_takes_the_place_of_the_standard_one(
    server: BillingServer, tmp_path: Path
) -> None:
    expected = hours(server)
    pull(server, tmp_path)
    server.export(RESOURCES, DETAILED)
    hours(server, RESOURCES)
    changed = pull(server, tmp_path, RESOURCES)
    assert changed.unchanged == 0
    assert total(tmp_path) == expected


# --- what is not as it should be -----------------------------------------------------------------


def test_columns_that_are_new_or_gone(server: BillingServer, tmp_path: Path) -> None:
    fewer = tuple(
        one for one in STANDARD if one[0] not in ("tags", "transaction_type", "seller_name")
    )
    server.export(OTHER, (*fewer, ("brand_new", "STRING")))
    server.bill(
        OTHER,
        {
            name: value
            for name, value in line(FIRST, brand_new="?").items()
            if name != "transaction_type"
        },
    )
    assert pull(server, tmp_path, OTHER).failed == ""
    assert total(tmp_path) == Decimal("0.1")
    server.export("billing.bills.orders", (("id", "STRING"), ("at", "TIMESTAMP")))
    wrong = pull(server, tmp_path / "b", "billing.bills.orders")
    assert "is no export of the bill: it has no billing_account_id, " in wrong.failed
    nowhere = pull(server, tmp_path / "c", "billing.bills.nowhere")
    assert nowhere.failed == "gcp.billing_export: there is no table billing.bills.nowhere"


def test_a_line_without_a_cost_is_not_taken_for_free(server: BillingServer, tmp_path: Path) -> None:
    server.bill(TABLE, line(FIRST, cost=None))
    report = pull(server, tmp_path, end=FIRST + DAY)
    assert "a row has no BilledCost" in report.failed
    assert rows(tmp_path) == []
    server.bill(TABLE, line(FIRST + DAY, cost=float("nan")))
    report = pull(server, tmp_path, start=FIRST + DAY)
    assert "not finite" in report.failed


def test_two_currencies_are_never_added(server: BillingServer, tmp_path: Path) -> None:
    server.bill(TABLE, line(FIRST, cost=1.0), line(FIRST + HOUR, cost=2.0, currency="EUR"))
    assert pull(server, tmp_path).billed == {
        "EUR": "2.000000000000000000",
        "USD": "1.000000000000000000",
    }


# --- faults --------------------------------------------------------------------------------------

SLOW = Failure("rateLimitExceeded", headers=(("Retry-After", "7"),))
ABSURD = Failure("rateLimitExceeded", headers=(("Retry-After", "99999999"),))


@pytest.mark.parametrize("path", ["/tables/" + TABLE.rpartition(".")[2], "/jobs", "/data"])
@pytest.mark.parametrize(
    "failures",
    [
        pytest.param([Failure("rateLimitExceeded"), *[Failure("backendError")] * 5], id="a burst"),
        pytest.param([SLOW] * 2, id="throttled with Retry-After"),
        pytest.param([ABSURD], id="throttled with an absurd Retry-After"),
        pytest.param([Failure("internalError"), Failure("authError")], id="credentials expired"),
    ],
)
def test_what_passes_is_waited_for(
    server: BillingServer,
    slept: list[float],
    tmp_path: Path,
    failures: list[Failure],
    path: str,
) -> None:
    expected = hours(server, days=1)
    for failure in failures:
        server.refuse("POST" if path == "/jobs" else "GET", path, failure)
    report = pull(server, tmp_path)
    assert (report.failed, report.incomplete) == ("", {})
    assert total(tmp_path) == expected
    assert max(slept, default=0) <= 400
    if SLOW in failures:
        assert [5 < pause < 9 for pause in slept] == [True, True]


def test_a_connection_that_breaks_in_a_page(server: BillingServer, tmp_path: Path) -> None:
    expected = hours(server)
    server.tears = 3
    report = pull(server, tmp_path)
    assert report.failed == ""
    assert total(tmp_path) == expected
    assert report.rows == 20


def test_a_job_whose_answer_got_lost_is_not_paid_twice(
    server: BillingServer, tmp_path: Path
) -> None:
    hours(server, days=1)
    insert, lost = server.insert, [True]

    def losing(call: Any) -> Any:
        found = insert(call)
        if lost and not call.body["configuration"].get("dryRun"):
            lost.pop()
            return Failure("backendError")
        return found

    server.insert = losing  # type: ignore[method-assign]  # the server's answer is the test's
    report = pull(server, tmp_path)
    assert (report.failed, len(server.queries())) == ("", 2)
    assert report.spent == {"billed_bytes": str(20 * 2**20)}


def test_a_query_that_takes_its_time(
    server: BillingServer, slept: list[float], tmp_path: Path
) -> None:
    hours(server, days=1)
    server.seed("SELECT billing_account_id", questions=3, billed=2**20)
    assert pull(server, tmp_path).failed == ""
    assert slept[:3] == [0.2, 0.4, 0.8]
    server.seed("SELECT billing_account_id", questions=10**6, billed=2**20)
    late = pull(server, tmp_path / "b", options={"timeout": 20})
    assert "no answer of" in late.failed
    assert server.asked("POST", "/cancel")
    server.requests = [one for one in server.requests if not one.path.endswith("/cancel")]


def test_a_query_that_fails_for_a_reason_that_passes_is_run_again(
    server: BillingServer, tmp_path: Path
) -> None:
    hours(server, days=1)
    server.seed("SELECT billing_account_id", reason="jobBackendError")
    report = pull(server, tmp_path)
    assert report.failed.endswith("ended as jobBackendError")
    assert sum("SELECT billing_account_id" in query for query in server.queries()) == 3


def same(token: str) -> Any:
    """Give this token with the page, whatever comes after it."""

    def twist(answer: dict[str, Any], _: Request) -> dict[str, Any]:
        return {**answer, "pageToken": token}

    return twist


def empty(answer: dict[str, Any], request: Request) -> dict[str, Any]:
    """Give no rows, and a token with which they come."""
    at = request.query.get("pageToken", "0")
    return {"totalRows": answer["totalRows"], "pageToken": at if at != "0" else "00"}


def short(answer: dict[str, Any], _: Request) -> dict[str, Any]:
    """Leave rows out."""
    return {**answer, "rows": answer["rows"][:-2]}


def ended(answer: dict[str, Any], _: Request) -> dict[str, Any]:
    """Say that there is nothing more."""
    return {name: value for name, value in answer.items() if name != "pageToken"}


def grown(answer: dict[str, Any], _: Request) -> dict[str, Any]:
    """Say that there is more than there was."""
    return {**answer, "totalRows": str(int(answer["totalRows"]) + 1)}


def fine(answer: dict[str, Any], _: Request) -> dict[str, Any]:
    """Leave it as it is."""
    return answer


@pytest.mark.parametrize(
    ("twists", "why"),
    [
        pytest.param([same("4"), same("4")], "for the second time", id="the same token twice"),
        pytest.param(
            [same("4"), same("0"), same("04"), same("4")], "come twice", id="a cycle of three"
        ),
        pytest.param([short], "and no more", id="a page shorter than promised"),
        pytest.param([fine, ended], "and no more", id="the end too soon"),
        pytest.param([grown], "were counted", id="more than there was"),
        pytest.param([fine, grown], "were counted", id="more than there was, later"),
    ],
)
def test_pages_that_are_not_right_are_never_a_whole_day(
    server: BillingServer, tmp_path: Path, twists: list[Any], why: str
) -> None:
    expected = hours(server)
    server.twisted = [fine, *twists]  # the first is that of the days
    report = pull(server, tmp_path)
    assert why in report.failed
    assert list(report.incomplete) == ["gcp.billing_export 01ABCD-234567-89EFAB 2026-11-01"]
    assert rows(tmp_path) == []
    server.twisted = []
    again = pull(server, tmp_path)
    assert (again.failed, again.rows) == ("", 20)
    assert total(tmp_path) == expected


def test_an_empty_page_with_a_token_is_not_the_end(server: BillingServer, tmp_path: Path) -> None:
    expected = hours(server)
    server.twisted = [fine, empty]
    assert pull(server, tmp_path).failed == ""
    assert total(tmp_path) == expected


def test_a_list_that_never_ends(
    server: BillingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MOST_PAGES", 20)
    hours(server)
    counter = iter(range(10**6))

    def forever(answer: dict[str, Any], _: Request) -> dict[str, Any]:
        return {"totalRows": answer["totalRows"], "pageToken": f"{10**6 + next(counter)}"}

    server.twisted = [fine, *[forever] * 100]
    report = pull(server, tmp_path)
    assert "20 pages and was not done" in report.failed
    assert rows(tmp_path) == []


def test_pages_of_their_own_size(server: BillingServer, tmp_path: Path) -> None:
    expected = hours(server)
    server.most_rows = 3
    report = pull(server, tmp_path)
    assert (report.failed, report.rows) == ("", 20)
    assert total(tmp_path) == expected


def test_a_pull_that_was_thrown_out_goes_on_where_it_was_and_pays_no_second_time(
    server: BillingServer, tmp_path: Path
) -> None:
    expected = hours(server, days=1)
    for _ in range(asking.ATTEMPTS):
        server.refuse("GET", "/data", Failure("backendError"))
    good = server.refused
    pages = iter(range(10**6))

    def later(request: Request) -> Failure | None:
        # The pages of the days, and two of the first day, come well.
        if request.path.endswith("/data") and next(pages) < 3:
            return None
        return good(request)

    server.refused = later  # type: ignore[method-assign]  # the server's answer is the test's
    first = pull(server, tmp_path)
    assert "backendError, 8 times" in first.failed
    assert rows(tmp_path) == []
    queries = len(server.queries())
    again = pull(server, tmp_path)
    assert (again.failed, again.rows) == ("", 10)
    assert total(tmp_path) == expected
    # One query for the days, and none for the day: its result was still there.
    assert len(server.queries()) == queries + 1
    # If it is not, the day is begun anew.
    server.bill(TABLE, line(FIRST, cost=0.5, exported=FIRST + 3 * DAY))
    assert pull(server, tmp_path).rows == 11


def test_rows_that_come_while_a_day_is_read_are_left_for_the_next_run(
    server: BillingServer, tmp_path: Path
) -> None:
    expected = hours(server, days=1)

    def more(answer: dict[str, Any], _: Request) -> dict[str, Any]:
        # Into a partition that is read.
        server.bill(TABLE, line(FIRST, cost=0.5, exported=FIRST + 23 * HOUR))
        return answer

    server.twisted = [more]
    assert pull(server, tmp_path).failed == ""
    assert total(tmp_path) == expected
    assert pull(server, tmp_path).published == 1
    assert total(tmp_path) == expected + Decimal("0.5")


def test_without_a_permission_it_says_which(server: BillingServer, tmp_path: Path) -> None:
    hours(server)
    server.refuse("POST", "/jobs", Failure("accessDenied"))
    report = pull(server, tmp_path)
    assert "no permission for jobs.insert" in report.failed
    assert "roles/bigquery.jobUser" in report.grant
    assert rows(tmp_path) == []


def test_options_that_are_wrong_are_said(server: BillingServer) -> None:
    for tables, why in (
        ((), "say where the bill is"),
        (("a; DROP",), "is no project.dataset.table"),
    ):
        with pytest.raises(PullError, match=why):
            BillingExportPuller({"project": "p", "tables": tables})
    with pytest.raises(BillingError, match="put  tables = …  into"):
        pulled("gcp", config={}, ledger="/nowhere", now=NOW)


def test_two_orders_of_overlapping_windows_are_the_same_bill(
    server: BillingServer, tmp_path: Path
) -> None:
    hours(server, days=4, each=2)
    windows = [(0, 2), (1, 4), (0, 3)]
    told: list[Any] = []
    for number, order in enumerate((windows, windows[::-1])):
        ledger = tmp_path / str(number)
        for first, last in order:
            pull(server, ledger, start=FIRST + first * DAY, end=FIRST + last * DAY)
        told.append(rows(ledger))
    assert told[0] == told[1]
    assert len(told[0]) == 8


def test_what_is_kept_says_nothing_of_how_often_it_was_asked(
    server: BillingServer, tmp_path: Path
) -> None:
    hours(server, days=2)
    report = pull(server, tmp_path)
    # tables.get; for the days a job and its page; for each of two days a dry run, a job, 3 pages.
    assert report.requests == 1 + 2 + 2 * (1 + 1 + 3)
    assert timedelta(days=10) == BillingExportPuller.restated
