"""`costinsights pull databricks`: ``system.billing.usage``, by the unmodified SDK.

Emulator: that Databricks fills its system tables in this way is not shown.
"""

from __future__ import annotations

import gc
import json
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import asking
from costinsights.billing import BillingError, Pulled, open_bill
from costinsights.billing import pull as pulled
from costinsights.billing.databricks_billing import DatabricksBillingPuller
from costinsights.billing.puller import DAY, HOUR, PullError
from tests.servers import databricks_statements
from tests.servers.databricks_server import Statement, Workspace, serving
from tests.servers.databricks_workspace import as_it_is

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=timezone.utc)
FIRST = datetime(2026, 11, 1, tzinfo=timezone.utc)
ACCOUNT = "23e22ba4-87b9-4cc2-9770-d10b894b7118"
SQL = "PREMIUM_SERVERLESS_SQL_COMPUTE_US_EAST_N_VIRGINIA"
JOBS = "PREMIUM_JOBS_SERVERLESS_COMPUTE_US_EAST_N_VIRGINIA"
STATEMENTS = "/api/2.0/sql/statements"
READ_ONLY = {
    "GET /.well-known/databricks-config",
    "GET /api/2.0/sql/warehouses/abc123",
    f"POST {STATEMENTS}",
    f"GET {STATEMENTS}/…",
    f"GET {STATEMENTS}/…/result/chunks/…",
}


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
def workspace(slept: list[float]) -> Iterator[Workspace]:
    with serving() as workspace:
        workspace.seed("billing.list_prices", [price(SQL, "0.70"), price(JOBS, "0.35")])
        yield workspace
        assert set(workspace.calls()) <= READ_ONLY
        assert all(text.lstrip().startswith("SELECT") for text in workspace.texts())
    gc.collect()


def pull(workspace: Workspace, ledger: Path, **more: Any) -> Pulled:
    options = {
        "account": ACCOUNT,
        "warehouse": "abc123",
        "host": f"http://127.0.0.1:{workspace.port}",
        "token": "dapi-77ac-s3cr3t",
        **more.pop("options", {}),
    }
    more = {"now": NOW, "start": FIRST, "end": FIRST + 2 * DAY, **more}
    puller = DatabricksBillingPuller(options)
    return pulled("databricks", puller=puller, ledger=str(ledger), **more)


def rows(ledger: Path) -> list[dict[str, Any]]:
    with open_bill(str(ledger)) as bill:
        cursor = bill.connection.execute(
            "SELECT * FROM bill ORDER BY ChargePeriodStart, BilledCost, ResourceId"
        )
        names = [one[0] for one in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def total(ledger: Path) -> Decimal:
    return sum((row["BilledCost"] for row in rows(ledger)), Decimal(0))


def usage(
    at: datetime, dbus: str | None, kind: str = "ORIGINAL", sku: str = SQL, **more: Any
) -> dict[str, object]:
    return {
        "record_id": f"{kind}-{at}-{sku}",
        "account_id": ACCOUNT,
        "workspace_id": "1234567890",
        "sku_name": sku,
        "cloud": "AWS",
        "usage_start_time": plain(at),
        "usage_end_time": plain(at + HOUR),
        "usage_date": at.date(),
        "usage_unit": "DBU",
        "usage_quantity": None if dbus is None else Decimal(dbus),
        "usage_metadata": {"warehouse_id": "abc123"},
        "custom_tags": [("team", "shop")],
        "record_type": kind,
        "ingestion_date": (at + DAY).date(),
        "billing_origin_product": "SQL",
        "usage_type": "COMPUTE_TIME",
        **more,
    }


def price(
    sku: str, each: str, start: datetime = FIRST - 900 * DAY, **more: Any
) -> dict[str, object]:
    amount = Decimal(each)
    return {
        "sku_name": sku,
        "cloud": "AWS",
        "currency_code": "USD",
        "usage_unit": "DBU",
        "price_start_time": plain(start),
        "pricing": {"default": amount, "effective_list": {"default": amount}},
        **more,
    }


def plain(moment: datetime) -> datetime:
    """A moment as the emulator's tables have it: UTC, and no word of that."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


def hours(workspace: Workspace, *, days: int = 2, each: int = 10) -> Decimal:
    """Bill some hours of the first days of the month, and return the sum."""
    dbus = [Decimal(hour + 1) / 8 for hour in range(each)]
    workspace.seed(
        "billing.usage",
        [
            usage(FIRST + day * DAY + hour * HOUR, str(quantity))
            for day in range(days)
            for hour, quantity in enumerate(dbus)
        ],
    )
    return days * sum(dbus, Decimal(0)) * Decimal("0.70")


# --- what is in it -------------------------------------------------------------------------------


def test_a_record_is_a_whole_focus_row(workspace: Workspace, tmp_path: Path) -> None:
    workspace.seed("billing.usage", [usage(FIRST, "2.123456789012345678")])
    report = pull(workspace, tmp_path, options={"multiplier": "0.9"})
    assert (report.failed, report.incomplete, report.published) == ("", {}, 2)
    (row,) = rows(tmp_path)
    listed = Decimal("2.123456789012345678") * Decimal("0.70")
    expected = {
        "BilledCost": round(listed * Decimal("0.9"), 18),
        "EffectiveCost": round(listed * Decimal("0.9"), 18),
        "ListCost": round(listed, 18),
        "ListUnitPrice": Decimal("0.70"),
        "ContractedUnitPrice": Decimal("0.63"),
        "BillingAccountId": ACCOUNT,
        "BillingCurrency": "USD",
        "BillingPeriodStart": datetime(2026, 11, 1),
        "ChargePeriodStart": datetime(2026, 11, 1),
        "ChargePeriodEnd": datetime(2026, 11, 1, 1),
        "ChargeCategory": "Usage",
        "ConsumedQuantity": Decimal("2.123456789012345678"),
        "ConsumedUnit": "DBU",
        "ServiceName": "Databricks",
        "ServiceCategory": "Analytics",
        "ServiceProviderName": "Databricks",
        "HostProviderName": "AWS",
        "ProviderName": "Databricks",
        "SkuId": SQL,
        "SubAccountId": "1234567890",
        "SubAccountType": "Workspace",
        "ResourceId": "abc123",
        "ResourceName": "abc123",
        "ResourceType": "SQL Warehouse",
        "x_System": "databricks",
        "x_UsageKind": "compute",
        "x_UsageType": "COMPUTE_TIME",
        "x_Product": "SQL",
    }
    assert {name: row[name] for name in expected} == expected
    assert json.loads(row["Tags"]) == {"team": "shop"}


def test_what_was_restated_is_net(workspace: Workspace, tmp_path: Path) -> None:
    other: Any = {"custom_tags": [("team", "data")]}
    workspace.seed(
        "billing.usage",
        [
            # Five DBUs were two.
            usage(FIRST, "5"),
            usage(FIRST, "-5", "RETRACTION"),
            usage(FIRST, "2", "RESTATEMENT"),
            # And these were another team's.
            usage(FIRST + HOUR, "3"),
            usage(FIRST + HOUR, "-3", "RETRACTION"),
            usage(FIRST + HOUR, "3", "RESTATEMENT", **other),
        ],
    )
    pull(workspace, tmp_path)
    first, second = rows(tmp_path)
    assert (first["BilledCost"], first["x_RestatedRecords"]) == (Decimal("1.40"), "2")
    assert (second["BilledCost"], second["Tags"]) == (Decimal("2.10"), '{"team":"data"}')
    assert total(tmp_path) == Decimal("3.50")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"job_id": "7", "job_name": "load", "cluster_id": "c1"}, ("7", "load", "Job")),
        ({"job_id": "7"}, ("7", "7", "Job")),
        ({"cluster_id": "c1", "node_type": "i3.xlarge"}, ("c1", "c1", "Cluster")),
        ({"dlt_pipeline_id": "p1"}, ("p1", "p1", "Pipeline")),
        ({"endpoint_name": "bert"}, ("bert", "bert", "Endpoint")),
        ({}, (None, None, None)),
        (None, (None, None, None)),
    ],
)
def test_what_a_record_is_of(
    workspace: Workspace, tmp_path: Path, metadata: Any, expected: tuple[str | None, ...]
) -> None:
    workspace.seed("billing.usage", [usage(FIRST, "1", usage_metadata=metadata, custom_tags=None)])
    pull(workspace, tmp_path, end=FIRST + DAY)
    (row,) = rows(tmp_path)
    assert (row["ResourceId"], row["ResourceName"], row["ResourceType"]) == expected
    assert row["Tags"] is None


def test_clouds_and_kinds(workspace: Workspace, tmp_path: Path) -> None:
    egress, storage = "DATABRICKS_INTER_REGION_EGRESS_EUROPE", "PREMIUM_DATABRICKS_STORAGE"
    workspace.seed(
        "billing.list_prices",
        [
            price(egress, "0.02", cloud="AZURE", usage_unit="GB"),
            price(storage, "0.023", cloud="GCP", usage_unit="DSU"),
        ],
    )
    azure = {"cloud": "AZURE", "usage_unit": "GB", "usage_type": "NETWORK_BYTES"}
    google = {"cloud": "GCP", "usage_unit": "DSU", "usage_type": "STORAGE_SPACE"}
    workspace.seed(
        "billing.usage",
        [usage(FIRST, "100", sku=egress, **azure), usage(FIRST + HOUR, "1", sku=storage, **google)],
    )
    pull(workspace, tmp_path)
    moved, kept = rows(tmp_path)
    assert (moved["HostProviderName"], moved["InvoiceIssuerName"]) == ("Microsoft", "Microsoft")
    assert (moved["x_UsageKind"], moved["BilledCost"]) == ("transfer_region", 2)
    assert (kept["HostProviderName"], kept["InvoiceIssuerName"]) == ("Google Cloud", "Databricks")
    assert kept["x_UsageKind"] == "storage"


def test_a_price_holds_for_its_time(workspace: Workspace, tmp_path: Path) -> None:
    change = FIRST + DAY
    sku = "ENTERPRISE_JOBS_COMPUTE"
    workspace.seed(
        "billing.list_prices",
        [
            price(sku, "0.10", FIRST - DAY, price_end_time=plain(change)),
            price(sku, "0.20", change),
        ],
    )
    workspace.seed("billing.usage", [usage(FIRST, "1", sku=sku), usage(change, "1", sku=sku)])
    pull(workspace, tmp_path)
    assert [row["BilledCost"] for row in rows(tmp_path)] == [Decimal("0.10"), Decimal("0.20")]


def test_what_has_no_price_is_not_free(workspace: Workspace, tmp_path: Path) -> None:
    workspace.seed("billing.usage", [usage(FIRST, "3", sku="PRIVATE_PREVIEW")])
    report = pull(workspace, tmp_path)
    assert "list_prices has no price of PRIVATE_PREVIEW (DBU, AWS)" in report.failed
    assert rows(tmp_path) == []
    own = {"prices": {"PRIVATE_PREVIEW": "0.05"}, "currency": "USD"}
    assert pull(workspace, tmp_path, options=own).failed == ""
    assert total(tmp_path) == Decimal("0.15")
    with pytest.raises(PullError, match="say which one"):
        pull(workspace, tmp_path, options={"prices": {"A": "1"}})


def test_two_currencies_are_not_guessed_between(workspace: Workspace, tmp_path: Path) -> None:
    hours(workspace, days=1, each=1)
    workspace.seed("billing.list_prices", [price(SQL, "0.60", currency_code="EUR")])
    report = pull(workspace, tmp_path)
    assert "list_prices has EUR and USD: say currency" in report.failed
    pull(workspace, tmp_path, options={"currency": "EUR"})
    assert pull(workspace, tmp_path, options={"currency": "EUR"}).unchanged == 2
    assert [row["BillingCurrency"] for row in rows(tmp_path)] == ["EUR"]


def test_one_resource_alone(workspace: Workspace, tmp_path: Path) -> None:
    hours(workspace, days=1, each=2)
    workspace.seed("billing.usage", [usage(FIRST, "8", usage_metadata={"job_id": "7"})])
    pull(workspace, tmp_path, resource="7")
    assert total(tmp_path) == Decimal("5.60")
    with pytest.raises(BillingError, match="there is no source"):
        pulled("databrick", ledger=str(tmp_path), now=NOW)
    assert "one service is Databricks" in pull(workspace, tmp_path, service="SQL").failed


# --- again, and later ----------------------------------------------------------------------------


def test_days_that_have_not_moved_are_not_read_again(workspace: Workspace, tmp_path: Path) -> None:
    expected = hours(workspace)
    first = pull(workspace, tmp_path)
    assert (first.published, first.rows) == (2, 20)
    assert "2 days in 2 queries on warehouse abc123" in first.plan[0]
    assert total(tmp_path) == expected
    before = len(workspace.texts())
    assert pull(workspace, tmp_path).unchanged == 2
    assert len(workspace.texts()) == before + 2  # the days, and the prices
    workspace.seed("billing.usage", [usage(FIRST, "-0.125", "RETRACTION")])
    later = pull(workspace, tmp_path)
    assert (later.published, later.unchanged) == (1, 1)
    assert total(tmp_path) == expected - Decimal("0.125") * Decimal("0.70")
    # Another discount is another bill.
    cheaper = pull(workspace, tmp_path, options={"multiplier": "0.5"})
    assert cheaper.published == 2
    daily = pull(workspace, tmp_path / "b", granularity="daily")
    assert daily.rows == 19
    assert {row["ChargePeriodEnd"] - row["ChargePeriodStart"] for row in rows(tmp_path / "b")} == {
        DAY
    }


def test_a_month_is_final_after_some_days(workspace: Workspace, tmp_path: Path) -> None:
    hours(workspace, days=1)
    later = datetime(2026, 12, 16, tzinfo=timezone.utc)
    pull(workspace, tmp_path, now=later)
    workspace.seed("billing.usage", [usage(FIRST, "-0.125", "RETRACTION")])
    closed = pull(workspace, tmp_path, now=later)
    assert (closed.closed, len(closed.moved)) == (2, 1)
    anew = pull(workspace, tmp_path, now=later, restate=True)
    assert [change.difference for change in anew.changes] == [{"USD": "-0.087500000000000000"}]


# --- what is not as it should be -----------------------------------------------------------------


def test_a_warehouse_that_stands_still_is_not_woken(workspace: Workspace, tmp_path: Path) -> None:
    hours(workspace, days=1)
    workspace.warehouses["abc123"]["state"] = "STOPPED"
    report = pull(workspace, tmp_path)
    assert "warehouse abc123 is stopped: to ask it starts it" in report.failed
    assert workspace.texts() == []
    assert pull(workspace, tmp_path, options={"wake": True}).failed == ""


def test_without_a_permission_it_says_which(workspace: Workspace, tmp_path: Path) -> None:
    hours(workspace, days=1)
    workspace.refuses = {"billing.usage"}
    report = pull(workspace, tmp_path)
    assert report.failed == "databricks.billing: no permission to read usage"
    assert "GRANT SELECT ON TABLE system.billing.usage" in report.grant
    assert rows(tmp_path) == []


def test_a_record_without_a_quantity_is_not_taken_for_nothing(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.seed("billing.usage", [usage(FIRST, "1"), usage(FIRST, None)])
    assert "has no quantity" in pull(workspace, tmp_path).failed
    assert rows(tmp_path) == []


def test_another_accounts_records_are_not_taken(workspace: Workspace, tmp_path: Path) -> None:
    workspace.seed("billing.usage", [usage(FIRST, "1", account_id="somebody-else")])
    assert "has records of account somebody-else" in pull(workspace, tmp_path).failed


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([(429, "RESOURCE_EXHAUSTED")] * 2, id="throttled with Retry-After"),
        pytest.param([(503, "TEMPORARILY_UNAVAILABLE")] * 5, id="a burst"),
        pytest.param([(500, "INTERNAL_ERROR"), (401, "UNAUTHENTICATED")], id="a login expired"),
    ],
)
@pytest.mark.parametrize("path", ["/api/2.0/sql/warehouses", STATEMENTS, "chunks"])
def test_what_passes_is_waited_for(
    workspace: Workspace,
    slept: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    faults: list[tuple[int, str]],
) -> None:
    expected = hours(workspace, days=1)
    monkeypatch.setattr(databricks_statements, "CHUNK_ROWS", 4)
    if path == "chunks":
        # The second part of the first day: its statement is the third one.
        third = "/api/2.0/sql/statements/" + statement_id(3)
        workspace.faults = [(f"{third}/result", *fault) for fault in faults]
    else:
        workspace.faults = [(path, *fault) for fault in faults]
    report = pull(workspace, tmp_path)
    assert (report.failed, workspace.faults) == ("", [])
    assert total(tmp_path) == expected
    assert report.rows == 10
    if faults[0][0] == 429:
        assert [0.5 < pause < 2 for pause in slept] == [True, True]


def statement_id(number: int) -> str:
    return Statement(number, "", "", {}, "").id


def test_a_server_that_is_never_well_again(workspace: Workspace, tmp_path: Path) -> None:
    hours(workspace, days=1)
    workspace.faults = [(STATEMENTS, 503, "TEMPORARILY_UNAVAILABLE")] * asking.ATTEMPTS
    assert "8 times" in pull(workspace, tmp_path).failed
    assert rows(tmp_path) == []
    assert pull(workspace, tmp_path).failed == ""


def test_a_statement_that_fails_for_a_reason_that_passes_is_run_again(
    workspace: Workspace, tmp_path: Path
) -> None:
    expected = hours(workspace, days=1)
    failures = iter(range(2))

    def failing(call: str, answer: Any) -> Any:
        if call != f"POST {STATEMENTS}" or next(failures, None) is None:
            return answer
        error = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "later"}
        return {"statement_id": "1", "status": {"state": "FAILED", "error": error}}

    workspace.twist = failing
    assert pull(workspace, tmp_path).failed == ""
    assert total(tmp_path) == expected


@pytest.mark.parametrize(
    ("twist", "why"),
    [
        pytest.param({"next_chunk_index": 1}, "came for the second time", id="a cycle"),
        pytest.param({"next_chunk_index": None}, "rows came of 10", id="the end too soon"),
        pytest.param(
            {"data_array": [], "next_chunk_index": 2}, "rows came of 10", id="an empty part"
        ),
    ],
)
def test_parts_that_are_not_right_are_never_a_whole_day(
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    twist: dict[str, Any],
    why: str,
) -> None:
    expected = hours(workspace, days=1)
    monkeypatch.setattr(databricks_statements, "CHUNK_ROWS", 4)
    workspace.twist = lambda call, answer: (
        {**answer, **twist} if call.endswith("/result/chunks/1") else answer
    )
    report = pull(workspace, tmp_path)
    workspace.twist = as_it_is
    assert why in report.failed
    assert rows(tmp_path) == []
    again = pull(workspace, tmp_path)
    assert (again.failed, again.rows) == ("", 10)
    assert total(tmp_path) == expected


def test_a_day_that_is_too_much_for_one_answer_comes_in_parts(
    workspace: Workspace, tmp_path: Path
) -> None:
    expected = hours(workspace, days=1)
    workspace.most_rows = 3
    report = pull(workspace, tmp_path, end=FIRST + DAY)
    assert (report.failed, report.rows) == ("", 10)
    assert total(tmp_path) == expected


def test_records_that_come_while_a_day_is_read_are_not_half_taken(
    workspace: Workspace, tmp_path: Path
) -> None:
    expected = hours(workspace, days=1)

    def late(_: str, answer: Any) -> Any:
        if len(workspace.texts()) == 2:  # the days are known, and the prices
            workspace.seed("billing.usage", [usage(FIRST, "1")])
        return answer

    workspace.twist = late
    report = pull(workspace, tmp_path)
    workspace.twist = as_it_is
    assert "11 records came of 10" in report.failed
    assert rows(tmp_path) == []
    assert pull(workspace, tmp_path).failed == ""
    assert total(tmp_path) == expected + Decimal("0.70")


def test_options_that_are_missing_are_said(tmp_path: Path) -> None:
    with pytest.raises(BillingError, match="put  account = …  into"):
        pulled("databricks", config={}, ledger=str(tmp_path), now=NOW)
