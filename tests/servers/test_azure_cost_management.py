"""`costinsights pull azure` with azure-mgmt-costmanagement, against the local server."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import asking
from costinsights.billing import Pulled, open_bill, pull
from costinsights.billing import azure_cost_management as module
from costinsights.billing.azure_cost_management import CostManagementPuller
from costinsights.billing.puller import DAY, PullError
from tests.servers.cost_management_server import (
    BILLING,
    LIMIT,
    OTHER,
    QUERY,
    SUBSCRIPTION,
    TOKEN,
    CostManagement,
    Refusal,
    cost_management_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=timezone.utc)
TODAY = NOW.replace(hour=0, minute=0)
ACCOUNTS = f"{SUBSCRIPTION}/resourceGroups/lake/providers/Microsoft.Storage/storageAccounts/"
MACHINE = f"{SUBSCRIPTION}/resourceGroups/lake/providers/Microsoft.Compute/virtualMachines/vm"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits; what would have been waited for is noted."""
    found: list[float] = []
    monkeypatch.setattr(asking, "sleep", found.append)
    return found


@pytest.fixture
def azure(waits: list[float]) -> Iterator[CostManagement]:
    with cost_management_server() as azure:
        yield azure


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def puller(azure: CostManagement, **more: Any) -> CostManagementPuller:
    options = {
        "scopes": [SUBSCRIPTION],
        "endpoint_url": azure.url,
        "token": TOKEN,
        "qpu_per_10_seconds": 0,
        "qpu_per_minute": 0,
        "qpu_per_hour": 0,
    }
    return CostManagementPuller({**options, **more})


def run(azure: CostManagement, ledger: str, **more: Any) -> Pulled:
    azure.requests.clear()
    source = more.pop("source", "azure.storage")
    options = more.pop("options", {})
    more.setdefault("start", TODAY - DAY)
    more.setdefault("now", NOW)
    return pull(source, ledger=ledger, puller=puller(azure, **options), **more)


def bill(ledger: str, columns: str) -> list[tuple[Any, ...]]:
    with open_bill(ledger) as opened:
        return opened.fetch(f"SELECT {columns} FROM bill ORDER BY ALL")


def total(ledger: str) -> Decimal:
    [(found,)] = bill(ledger, "coalesce(sum(BilledCost), 0)")
    return Decimal(found)


def lake(azure: CostManagement, *, days: int = 1, accounts: int = 3) -> Decimal:
    """Bill some storage, a disk's transfer and a machine; return what is storage's."""
    storage = Decimal(0)
    for back in range(1, days + 1):
        day = TODAY - back * DAY
        for number in range(accounts):
            at = {"ResourceId": f"{ACCOUNTS}lake{number}", "ServiceName": "Storage"}
            for meter, cost in {
                "Hot LRS Data Stored": "1.23456789",
                "Cool LRS Write Operations": "0.00000001",
                "Cool Data Retrieval": "0.25",
            }.items():
                azure.bill(day, cost, Meter=meter, **at)
                storage += Decimal(cost)
            out = {**at, "ServiceName": "Bandwidth", "Meter": "Standard Data Transfer Out"}
            azure.bill(day, "0.087", **out)
            storage += Decimal("0.087")
        azure.bill(day, "0.5", ServiceName="Bandwidth", Meter="x", ResourceId=MACHINE)
        azure.bill(day, "7", ServiceName="Virtual Machines", Meter="D4s v3", ResourceId=MACHINE)
    return storage


# --- what is pulled ------------------------------------------------------------------------------


def test_storage_is_broken_down_by_account_and_meter(azure: CostManagement, ledger: str) -> None:
    expected = lake(azure, days=3)
    azure.page = 4
    report = run(azure, ledger, start=TODAY - 3 * DAY)
    assert (report.failed, report.published, report.rows) == ("", 3, 3 * 3 * 4)
    assert report.billed == {"EUR": f"{expected:.18f}"}
    assert report.plan == (f"3 days of {SUBSCRIPTION}, in 4 queries",)
    assert total(ledger) == expected
    found = bill(
        ledger,
        "DISTINCT ResourceName, SkuMeter, x_UsageKind, x_StorageClass, x_System, ServiceName",
    )
    assert [row[1:] for row in found if row[0] == "lake1"] == [
        ("Cool Data Retrieval", "retrieval", "Cool", "azure.storage", "Storage"),
        ("Cool LRS Write Operations", "requests", "Cool", "azure.storage", "Storage"),
        ("Hot LRS Data Stored", "storage", "Hot", "azure.storage", "Storage"),
        ("Standard Data Transfer Out", "transfer_internet", None, "azure.storage", "Bandwidth"),
    ]
    [row] = bill(
        ledger,
        "DISTINCT ProviderName, BillingAccountId, SubAccountId, BillingPeriodStart, ChargeCategory, "
        "x_ResourceGroupName, x_ResourceType",
    )
    assert row == (
        "Microsoft",
        SUBSCRIPTION,
        SUBSCRIPTION,
        datetime(2026, 11, 1),
        "Usage",
        "lake",
        "microsoft.storage/storageaccounts",
    )


def test_only_the_query_is_called_and_every_page_with_the_same_body(
    azure: CostManagement, ledger: str
) -> None:
    lake(azure)
    azure.page = 5
    report = run(azure, ledger, options={"amortized": False, "page_size": 3})
    assert azure.operations() == {("POST", QUERY)}
    assert report.requests == len(azure.requests) == 3 + 2  # 9 and 4 lines, 3 a page
    bodies = [request.body for request in azure.requests]
    assert len(set(bodies)) == 2
    assert {request.headers["clienttype"] for request in azure.requests} == {"costinsights"}
    definition = azure.requests[0].definition
    assert definition == {
        "type": "ActualCost",
        "timeframe": "Custom",
        "timePeriod": {"from": "2026-11-22T00:00:00Z", "to": "2026-11-22T23:59:59Z"},
        "dataset": {
            "granularity": "Daily",
            "aggregation": {"Cost": {"name": "Cost", "function": "Sum"}},
            "grouping": [
                {"type": "Dimension", "name": "ResourceId"},
                {"type": "Dimension", "name": "Meter"},
            ],
            "filter": {
                "dimensions": {"name": "ServiceName", "operator": "In", "values": ["Storage"]}
            },
        },
    }


def test_all_services_are_one_query_a_metric(azure: CostManagement, ledger: str) -> None:
    lake(azure)
    run(azure, ledger, source="azure")
    assert [request.definition["type"] for request in azure.requests] == [
        "ActualCost",
        "AmortizedCost",
    ]
    found = bill(ledger, "DISTINCT ServiceName, x_System, x_UsageKind")
    assert ("Virtual Machines", "Virtual Machines", None) in found
    assert ("Storage", "azure.storage", "retrieval") in found
    assert total(ledger) == sum(line.actual for line in azure.lines)


def test_what_is_billed_and_what_is_effective_stand_in_one_row(
    azure: CostManagement, ledger: str
) -> None:
    """A reservation is billed when it is bought, and effective where it is used."""
    day = TODAY - DAY
    used = {"ServiceName": "Storage", "Meter": "Hot LRS Data Stored", "ResourceId": f"{ACCOUNTS}a"}
    azure.bill(day, "0", amortized="3.5", **used)
    azure.bill(day, "1000", amortized="0", ServiceName="Storage", Meter="Reservation")
    run(azure, ledger)
    assert bill(ledger, "SkuMeter, BilledCost, EffectiveCost") == [
        ("Hot LRS Data Stored", Decimal(0), Decimal("3.5")),
        ("Reservation", Decimal(1000), Decimal(0)),
    ]


def test_other_dimensions_and_tags_become_the_columns_of_focus(
    azure: CostManagement, ledger: str
) -> None:
    day = TODAY - DAY
    azure.bill(day, "5", ServiceName="Azure Databricks", tag_team="data")
    azure.bill(day, "-2", ServiceName="Azure Databricks")
    by_tag = {"group_by": ["ServiceName", "tag:team"]}
    run(azure, ledger, source="azure", options=by_tag)
    assert bill(ledger, "BilledCost, Tags, x_System") == [
        (Decimal(-2), '{"team":""}', "azure.databricks"),
        (Decimal(5), '{"team":"data"}', "azure.databricks"),
    ]
    azure.lines.clear()
    azure.bill(day, "-1", MeterCategory="Storage", ChargeType="Refund")
    azure.bill(day, "4", MeterCategory="Storage", ChargeType="UnusedReservation")
    azure.bill(day, "0.01", MeterCategory="Storage", ChargeType="RoundingAdjustment")
    by_type = {"group_by": ["MeterCategory", "ChargeType"], "billing_account": "1234567"}
    run(azure, ledger, source="azure", options=by_type)
    assert bill(
        ledger,
        "BilledCost, ServiceName, ChargeCategory, ChargeClass, CommitmentDiscountStatus, "
        "BillingAccountId",
    ) == [
        (Decimal(-1), "Storage", "Purchase", "Correction", None, "1234567"),
        (Decimal("0.01"), "Storage", "Adjustment", None, None, "1234567"),
        (Decimal(4), "Storage", "Usage", None, "Unused", "1234567"),
    ]


def test_one_account_by_its_name_and_by_its_id(
    azure: CostManagement, ledger: str, tmp_path: Path
) -> None:
    lake(azure)
    run(azure, ledger, resource="LAKE1")
    assert {name for (name,) in bill(ledger, "ResourceName")} == {"lake1"}
    other = str(tmp_path / "other")
    run(azure, other, resource=f"{ACCOUNTS}lake1")
    filters = azure.requests[0].definition["dataset"]["filter"]["and"]
    assert [one["dimensions"]["name"] for one in filters] == ["ServiceName", "ResourceId"]
    assert total(other) == total(ledger)
    everything = str(tmp_path / "everything")
    run(azure, everything, source="azure", resource="vm")
    assert {row[0] for row in bill(everything, "ServiceName")} == {"Virtual Machines", "Bandwidth"}


def test_a_scope_without_costs_has_no_rows(azure: CostManagement, ledger: str) -> None:
    """Azure answers 204 then, and the client gives None."""
    report = run(azure, ledger)
    assert (report.failed, report.published, report.rows) == ("", 1, 0)
    assert bill(ledger, "*") == []


def test_columns_come_in_any_order_and_further_ones_are_kept(
    azure: CostManagement, ledger: str
) -> None:
    expected = lake(azure)
    azure.columns = lambda names: names[::-1]

    def wider(answer: dict[str, Any]) -> dict[str, Any]:
        answer["properties"]["columns"].insert(1, {"name": "Sovereign", "type": "String"})
        for row in answer["properties"]["rows"]:
            row.insert(1, "yes")
        return answer

    azure.edit = wider
    run(azure, ledger)
    assert total(ledger) == expected
    assert bill(ledger, "DISTINCT x_Sovereign") == [("yes",)]


def test_each_currency_stays_what_it_is(azure: CostManagement, ledger: str) -> None:
    at = {"ServiceName": "Storage", "Meter": "Hot LRS Data Stored", "ResourceId": f"{ACCOUNTS}a"}
    azure.bill(TODAY - DAY, "1", **at)
    azure.bill(TODAY - DAY, "2", currency="USD", **at)
    report = run(azure, ledger)
    assert report.billed == {"EUR": f"{1:.18f}", "USD": f"{2:.18f}"}


# --- months, states ------------------------------------------------------------------------------


def test_a_month_is_one_query_and_its_days_are_slices(azure: CostManagement, ledger: str) -> None:
    expected = lake(azure, days=27, accounts=1) / 27 * 4
    window = {"start": datetime(2026, 10, 30), "now": datetime(2026, 11, 3, 9, tzinfo=timezone.utc)}
    report = run(azure, ledger, options={"amortized": False}, **window)
    assert report.published == 4
    periods = [
        (request.definition["timePeriod"]["from"][:10], request.definition["timePeriod"]["to"][:10])
        for request in azure.requests
    ]
    assert sorted(set(periods)) == [("2026-10-30", "2026-10-31"), ("2026-11-01", "2026-11-02")]
    assert len(periods) == 4
    assert round(total(ledger), 8) == round(expected, 8)


def test_a_query_of_fewer_days(azure: CostManagement, ledger: str) -> None:
    expected = lake(azure, days=5, accounts=1)
    options = {"amortized": False, "days_per_query": 2}
    report = run(azure, ledger, start=TODAY - 5 * DAY, options=options)
    assert report.plan == (f"5 days of {SUBSCRIPTION}, in 6 queries",)
    assert report.requests == 6
    assert total(ledger) == expected


def test_days_are_final_on_the_fifth_day_after_their_month(azure: CostManagement) -> None:
    asked = puller(azure)
    [slice_] = asked.slices(datetime(2026, 10, 30, tzinfo=timezone.utc), TODAY - 23 * DAY)
    states = [
        asked.state(slice_, datetime(2026, *at, tzinfo=timezone.utc))
        for at in ((10, 31, 3), (11, 1, 3), (11, 5, 23), (11, 6, 0))
    ]
    assert states == ["provisional", "open", "open", "final"]
    sixth = datetime(2026, 11, 6, 3, tzinfo=timezone.utc)
    assert asked.window(sixth)[0] == datetime(2026, 10, 1, tzinfo=timezone.utc)
    assert asked.window(sixth + DAY)[0] == datetime(2026, 11, 1, tzinfo=timezone.utc)


def test_a_restated_day_is_replaced_and_the_difference_is_said(
    azure: CostManagement, ledger: str
) -> None:
    at = {"ServiceName": "Storage", "Meter": "Hot LRS Data Stored", "ResourceId": f"{ACCOUNTS}a"}
    day = datetime(2026, 10, 21, tzinfo=timezone.utc)
    azure.bill(day, "3", **at)
    window = {"start": day, "end": day + DAY}
    run(azure, ledger, **window)
    azure.bill(day, "-0.5", ServiceName="Storage", Meter="Credit", ResourceId=f"{ACCOUNTS}a")
    assert run(azure, ledger, **window).closed == 1
    assert total(ledger) == 3
    report = run(azure, ledger, restate=True, **window)
    assert [change.difference for change in report.changes] == [{"EUR": f"{Decimal('-0.5'):.18f}"}]
    assert total(ledger) == Decimal("2.5")


# --- what goes wrong -----------------------------------------------------------------------------


def test_throttling_is_waited_for_as_long_as_the_longest_limit_says(
    azure: CostManagement, ledger: str, waits: list[float]
) -> None:
    expected = lake(azure)
    azure.page = 2
    limits = ((f"{LIMIT}qpu-retry-after", "12"), (f"{LIMIT}entity-retry-after", "40"))
    azure.refuse(
        Refusal(429, "429", limits),
        Refusal(429, "429"),
        None,
        Refusal(429, "429", (("Retry-After", "1e12"),)),
        Refusal(429, "429", (("Retry-After", "a moment"),)),
        Refusal(503, "ServiceUnavailable", (("Retry-After", "20"),)),
        Refusal(500, "InternalServerError"),
    )  # fmt: skip
    report = run(azure, ledger)
    assert report.failed == ""
    assert total(ledger) == expected
    assert len(waits) == 6
    assert [wait > floor for wait, floor in zip(waits, (30, 0, 200, 0, 15, 0), strict=True)] == [
        True
    ] * 6
    assert max(waits) < 400


def test_a_broken_and_a_late_answer_are_asked_for_again(
    azure: CostManagement, ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 2)
    expected = lake(azure)
    azure.page = 2
    azure.refuse(None, Refusal(200, cut=True), None, Refusal(0))
    report = run(azure, ledger)
    assert report.failed == ""
    assert total(ledger) == expected


def test_credentials_that_expire_between_pages_are_renewed_once(
    azure: CostManagement, ledger: str
) -> None:
    expected = lake(azure)
    azure.page = 2
    azure.refuse(None, None, Refusal(401, "ExpiredAuthenticationToken"))
    assert run(azure, ledger).failed == ""
    assert total(ledger) == expected


def fails(azure: CostManagement, ledger: str, word: str, *, again: bool = True) -> None:
    """Pull in vain: nothing counts that was not there before, and the next run has all of it."""
    expected = sum(
        line.actual
        for line in azure.lines
        if line.scope == SUBSCRIPTION and "/Microsoft.Storage/" in line.dimensions["ResourceId"]
    )
    report = run(azure, ledger)
    assert (report.published, len(report.incomplete)) == (0, 1)
    assert word in report.failed
    assert "secret" not in report.failed
    assert bill(ledger, "*") == []
    if not again:
        return
    azure.edit, azure.next_link = lambda answer: answer, lambda link, _page: link
    report = run(azure, ledger)
    assert (report.failed, report.incomplete, total(ledger)) == ("", {}, expected)


def test_credentials_that_stay_expired(azure: CostManagement, ledger: str) -> None:
    lake(azure)
    azure.page = 2
    expired = Refusal(401, "ExpiredAuthenticationToken")
    azure.refuse(None, expired, expired)
    fails(azure, ledger, "the credentials are not valid")


def test_a_service_that_stays_down(azure: CostManagement, ledger: str) -> None:
    lake(azure)
    azure.page = 2
    azure.refuse(None, None, *[Refusal(503, "ServiceUnavailable")] * asking.ATTEMPTS)
    fails(azure, ledger, "ServiceUnavailable, 8 times")


def test_the_same_page_twice(azure: CostManagement, ledger: str) -> None:
    lake(azure)
    azure.page = 2
    kept: list[str] = []

    def stuck(link: str | None, _page: int) -> str | None:
        kept.append(link or "")
        return kept[0]

    azure.next_link = stuck
    fails(azure, ledger, "gave a page for the second time")


def test_a_cycle_of_three_pages(azure: CostManagement, ledger: str) -> None:
    lake(azure)
    azure.page = 2
    kept: list[str] = []

    def round_and_round(link: str | None, page: int) -> str | None:
        if len(kept) < 3:
            kept.append(link or "")
        return kept[(page - 1) % 3]

    azure.next_link = round_and_round
    fails(azure, ledger, "gave a page for the second time")


def test_a_list_that_never_ends(
    azure: CostManagement, ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake(azure)
    monkeypatch.setattr(asking, "MOST_PAGES", 20)
    azure.next_link = lambda _link, page: (
        f"{azure.url}{SUBSCRIPTION}{QUERY}?api-version=2025-03-01&$skiptoken=x/{page}-blank"
    )
    fails(azure, ledger, "20 pages and was not done")


def test_empty_pages_with_a_next_one_are_passed_over(azure: CostManagement, ledger: str) -> None:
    expected = lake(azure)
    azure.page, azure.empty_pages = 4, True
    assert run(azure, ledger).failed == ""
    assert total(ledger) == expected


def test_a_line_that_comes_twice(azure: CostManagement, ledger: str) -> None:
    """Pages that overlap: nobody can tell which of them is right."""
    lake(azure)
    azure.page = 2

    def overlapping(answer: dict[str, Any]) -> dict[str, Any]:
        rows = answer["properties"]["rows"]
        rows += rows[-1:]
        return answer

    azure.edit = overlapping
    fails(azure, ledger, "came twice")


def without(name: str) -> Any:
    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        properties = answer["properties"]
        at = [column["name"] for column in properties["columns"]].index(name)
        del properties["columns"][at]
        for row in properties["rows"]:
            del row[at]
        return answer

    return edit


def with_value(name: str, value: object) -> Any:
    def edit(answer: dict[str, Any]) -> dict[str, Any]:
        properties = answer["properties"]
        at = [column["name"] for column in properties["columns"]].index(name)
        properties["rows"][-1][at] = value
        return answer

    return edit


def shorter(answer: dict[str, Any]) -> dict[str, Any]:
    answer["properties"]["rows"][-1].pop()
    return answer


def instead(answer: object) -> Any:
    def edit(_: object) -> object:
        return answer

    return edit


WRONG: dict[str, tuple[Any, str]] = {
    "no currency": (without("Currency"), "no column Currency"),
    "no dimension": (without("ResourceId"), "no column ResourceId"),
    "no date": (without("UsageDate"), "no column UsageDate"),
    "no cost": (without("Cost"), "no column Cost"),
    "cost is null": (with_value("Cost", None), "has no cost"),
    "cost is text": (with_value("Cost", "1.0"), "has no cost"),
    "cost is not a number": (with_value("Cost", "NaN"), "has no cost"),
    "currency is null": (with_value("Currency", None), "BillingCurrency"),
    "a day before": (with_value("UsageDate", 20261121), "another day"),
    "a day after": (with_value("UsageDate", 20261123), "another day"),
    "date is null": (with_value("UsageDate", None), "another day"),
    "a short line": (shorter, "has 4 values of 5"),
    "another schema": (instead({"properties": {"rows": {}}}), "not as it has to be"),
    "a list": (instead([]), "not as it has to be"),
    "no JSON": (instead(b'{"properties": {"rows": [[1.'), "DecodeError"),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_answer_that_is_not_as_it_has_to_be(
    azure: CostManagement, ledger: str, what: str
) -> None:
    edit, word = WRONG[what]
    lake(azure, accounts=1)
    azure.edit = edit
    fails(azure, ledger, word, again=False)


def test_the_next_page_of_another_host_is_not_asked_for(azure: CostManagement, ledger: str) -> None:
    """A token is for Azure, not for whomever an answer names."""
    lake(azure)
    with cost_management_server() as other:
        azure.next_link = lambda _link, _page: f"{other.url}{SUBSCRIPTION}{QUERY}?$skiptoken=1"
        fails(azure, ledger, "at another host")
        assert other.requests == []


def test_one_scope_of_several_is_denied(azure: CostManagement, ledger: str) -> None:
    expected = lake(azure)
    azure.bill(
        TODAY - DAY,
        "3",
        scope=BILLING,
        ServiceName="Storage",
        Meter="Hot LRS Data Stored",
        ResourceId=f"{ACCOUNTS}z",
    )
    azure.denied.add(OTHER)
    scopes = {"scopes": [OTHER, SUBSCRIPTION, BILLING, SUBSCRIPTION]}
    report = run(azure, ledger, options=scopes)
    assert (report.accounts, report.published) == (3, 2)
    assert "no permission to read query ActualCost of " + OTHER in report.failed
    assert '"Microsoft.CostManagement/query/action"' in report.grant
    assert [slice_.split()[1] for slice_ in report.incomplete] == [OTHER]
    assert total(ledger) == expected + 3
    assert (BILLING, Decimal(3)) in bill(ledger, "BillingAccountId, BilledCost")


def test_a_scope_that_is_not_there(azure: CostManagement, ledger: str) -> None:
    azure.refuse(Refusal(404, "SubscriptionNotFound"))
    report = run(azure, ledger)
    assert "SubscriptionNotFound" in report.failed
    assert report.published == 0


# --- limits, options -----------------------------------------------------------------------------


def test_all_scopes_keep_to_the_limits_together(
    azure: CostManagement, ledger: str, waits: list[float]
) -> None:
    """Nobody waits here, so that what is counted is how long each would have had to."""
    options = {
        "scopes": [SUBSCRIPTION, OTHER],
        "amortized": False,
        "qpu_per_10_seconds": 2,
        "qpu_per_minute": 3,
    }
    run(azure, ledger, source="azure.storage", options=options)
    assert len(azure.requests) == 4
    short, long = sorted(waits)
    assert 0 < short <= 10 < long <= 60


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "scopes"),
        ({"scopes": []}, "scopes is empty"),
        ({"scopes": ["1111"]}, "'1111' in scopes is no scope"),
        ({"scopes": [SUBSCRIPTION], "group_by": ["A", "B", "ServiceName"]}, "2 at most"),
        ({"scopes": [SUBSCRIPTION], "group_by": ["Meter"]}, "needs ServiceName"),
        ({"scopes": [SUBSCRIPTION], "days_per_query": 0}, "1 at least"),
        ({"scopes": [SUBSCRIPTION], "token": "${NO_SUCH_VARIABLE}"}, "not set"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], word: str) -> None:
    with pytest.raises(PullError, match=word):
        CostManagementPuller(options)


def test_an_account_cannot_be_told_without_its_dimension(
    azure: CostManagement, ledger: str
) -> None:
    options = {"service_group_by": ["ResourceGroup", "Meter"]}
    report = run(azure, ledger, resource="lake1", options=options)
    assert "put it into service_group_by" in report.failed
    assert azure.requests == []


def test_nothing_is_asked_by_looking_only(azure: CostManagement, ledger: str) -> None:
    report = run(azure, ledger, dry_run=True)
    assert report.plan == (f"1 days of {SUBSCRIPTION}, in 4 queries",)
    assert azure.requests == []
