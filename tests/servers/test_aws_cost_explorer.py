"""`costinsights pull aws.s3` from Cost Explorer, by unmodified boto3, on moto's and on our server."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import asking
from costinsights.billing import (
    BillingError,
    OverCap,
    Pulled,
    get_cost_data_for_hour,
    open_bill,
    pull,
)
from costinsights.billing import slices as manifests
from costinsights.billing.aws_cost_explorer import CostExplorerPuller
from tests.servers.aws_server import ACCOUNT, AWSServer, Refusal, aws_server
from tests.servers.cost_explorer_server import S3, CostExplorer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Answer = dict[str, Any]

NOW = datetime(2026, 11, 5, 8, 30, tzinfo=timezone.utc)
FIRST = datetime(2026, 11, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
DAYS = 4
"""From the first to yesterday."""
TWO = FIRST + 2 * DAY
TWO_DAYS = 2 * Decimal("4.9") - Decimal("0.6")
"""What the first two days cost."""
READS = {"GetCostAndUsage", "GetDimensionValues", "GetTags", "GetCallerIdentity", "AssumeRole"}


@pytest.fixture(scope="module")
def loader() -> Any:
    """Botocore's models of services, read once for all sessions: that takes longer than a pull."""
    loaders: Any = import_module("botocore.loaders")
    return loaders.create_loader()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, loader: Any) -> None:
    """Credentials are boto3's own; nobody waits for a throttled service."""

    def shared(_path: str | None) -> Any:
        return loader

    def waited(_seconds: float) -> None:
        pass

    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(asking, "sleep", waited)
    monkeypatch.setattr("botocore.session.create_loader", shared)


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def bill(server: AWSServer) -> Iterator[CostExplorer]:
    """A month of S3, in two buckets, with a credit and a tax."""
    server.requests.clear()
    bill = CostExplorer(server)
    for number in range(DAYS):
        day = FIRST + number * DAY
        for bucket, share in (("lake", 3), ("logs", 1)):
            more: dict[str, Any] = {"tags": {"bucket": bucket}}
            bill.add(
                day,
                "TimedStorage-ByteHrs",
                f"{share}.25",
                quantity="54.3",
                unit="GB-Months",
                **more,
            )
            bill.add(
                day,
                "EU-Requests-SIA-Tier1",
                f"0.{share}",
                quantity="100000",
                unit="Requests",
                operation="PutObject",
                **more,
            )
    bill.add(FIRST, "TimedStorage-ByteHrs", "-3.1", record_type="Credit", tags={"bucket": "lake"})
    bill.add(FIRST, "", "2.5", record_type="Tax")
    yield bill
    bill.close()
    assert bill.operations <= READS


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def pulled(
    server: AWSServer, ledger: str, source: str = "aws.s3", *, options: Any = None, **more: Any
) -> Pulled:
    more.setdefault("now", NOW)
    start = more.pop("start", FIRST)
    end = more.pop("end", None)
    known = {"endpoint_url": server.url, "billing_account": ACCOUNT}
    more["config"] = {"pull": {"aws.cost_explorer": {**known, **(options or {})}}}
    return pull(source, start, end, ledger=ledger, **more)


def rows(ledger: str, columns: str, condition: str = "true") -> list[tuple[Any, ...]]:
    with open_bill(ledger) as opened:
        return opened.fetch(f"SELECT {columns} FROM bill WHERE {condition} ORDER BY ALL")


def total(ledger: str) -> Decimal:
    [(found,)] = rows(ledger, "coalesce(sum(BilledCost), 0)")
    return Decimal(found)


def everything(ledger: str) -> list[tuple[Any, ...]]:
    return rows(ledger, "*")


# --- what is asked, and what comes of it -----------------------------------------------------------


def test_a_month_of_s3_is_one_request(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    said: list[str] = []
    report = pulled(server, ledger, said=said.extend)
    assert (report.slices, report.published, report.incomplete) == (DAYS, DAYS, {})
    assert said == [
        f"{ACCOUNT} 2026-11-01 to 2026-11-04: {S3}, in 1 request, of 3 pages at most each",
        "That costs 0.04 USD at most.",
    ]
    [asked] = bill.asked
    assert asked["TimePeriod"] == {"Start": "2026-11-01", "End": "2026-11-05"}
    assert asked["Filter"] == {"Dimensions": {"Key": "SERVICE", "Values": [S3]}}
    assert [group["Key"] for group in asked["GroupBy"]] == ["RECORD_TYPE", "USAGE_TYPE"]
    assert total(ledger) == bill.total()
    assert (report.spent, report.cost) == ({"api_requests": "1"}, "0.010000000000000")
    found = rows(
        ledger,
        "ChargeCategory, x_UsageKind, x_StorageClass, x_RequestClass, RegionId, ConsumedUnit, x_System",
        "ChargePeriodStart = TIMESTAMP '2026-11-01'",
    )
    assert found == [
        ("Credit", "storage", "STANDARD", None, "us-east-1", None, "aws.s3"),
        ("Tax", None, None, None, None, None, "aws.s3"),
        ("Usage", "requests", "STANDARD_IA", "Tier1", "eu-west-1", "Requests", "aws.s3"),
        ("Usage", "storage", "STANDARD", None, "us-east-1", "GB-Months", "aws.s3"),
    ]
    [(units,)] = rows(ledger, "sum(ConsumedQuantity)", "ConsumedUnit = 'Requests'")
    assert units == DAYS * 200_000


def test_credits_refunds_and_fees_are_kept_apart(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    bill.add("2026-11-02", "", "-4", record_type="Refund")
    bill.add("2026-11-02", "", "7", record_type="Recurring")
    bill.add("2026-11-02", "", "-1", record_type="Enterprise Discount Program Discount")
    bill.add("2026-11-02", "", "-2", record_type="Something of 2027")
    pulled(server, ledger)
    found = rows(
        ledger,
        "ChargeCategory, ChargeClass, ChargeFrequency, x_RecordType, BilledCost::DOUBLE",
        "ChargePeriodStart = TIMESTAMP '2026-11-02' AND ChargeCategory <> 'Usage'",
    )
    assert found == [
        ("Adjustment", "Correction", "One-Time", "Refund", -4),
        ("Adjustment", None, "One-Time", "Enterprise Discount Program Discount", -1),
        ("Adjustment", None, "One-Time", "Something of 2027", -2),
        ("Purchase", None, "Recurring", "Recurring", 7),
    ]
    pulled(server, ledger, options={"record_types": {"Something of 2027": "Credit"}})
    assert rows(ledger, "x_RecordType", "ChargeCategory = 'Credit'") == [
        ("Credit",),
        ("Something of 2027",),
    ]
    assert total(ledger) == bill.total()


def test_buckets_are_told_apart_by_their_tag(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    pulled(server, ledger, options={"tag": "bucket"})
    assert len(bill.asked) == 2
    for asked in bill.asked:
        assert {"Type": "TAG", "Key": "bucket"} in asked["GroupBy"]
    found = rows(
        ledger,
        "Tags->>'bucket', ChargeCategory, x_UsageKind, BilledCost::DOUBLE",
        "ChargePeriodStart = TIMESTAMP '2026-11-01'",
    )
    assert found == [
        ("lake", "Credit", None, -3.1),
        ("lake", "Usage", "requests", 0.3),
        ("lake", "Usage", "storage", 3.25),
        ("logs", "Usage", "requests", 0.1),
        ("logs", "Usage", "storage", 1.25),
        (None, "Tax", None, 2.5),
    ]
    assert total(ledger) == bill.total()


def test_one_bucket_alone(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    pulled(server, ledger, options={"tag": "bucket"}, resource="logs")
    assert total(ledger) == DAYS * Decimal("1.35")
    wanted = {"Tags": {"Key": "bucket", "Values": ["logs"]}}
    assert all(wanted in asked["Filter"]["And"] for asked in bill.asked)
    report = pulled(server, ledger, resource="logs")
    assert "by a cost-allocation tag only" in report.failed


def test_accounts_of_an_organisation(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    bill.names["222222222222"] = "analytics"
    bill.add("2026-11-02", "DataTransfer-Out-Bytes", "9", account="222222222222")
    pulled(server, ledger, options={"by": "account"})
    found = rows(
        ledger,
        "SubAccountId, SubAccountName, x_UsageKind",
        "ChargePeriodStart = TIMESTAMP '2026-11-02'",
    )
    assert ("222222222222", "analytics", "transfer_internet") in found
    assert {account for account, *_ in found} == {ACCOUNT, "222222222222"}
    assert total(ledger) == bill.total()


def test_replication_is_seen_by_operation(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    bill.add("2026-11-02", "USE1-USW2-AWS-Out-Bytes", "2", operation="UploadPartForRepl")
    bill.add("2026-11-02", "USE1-USW2-AWS-Out-Bytes", "3", operation="GetObject")
    pulled(server, ledger, options={"by": "operation"})
    found = rows(
        ledger, "x_UsageKind, x_Operation, x_OtherRegion, BilledCost::INT", "x_OtherRegion <> ''"
    )
    assert found == [
        ("replication", "UploadPartForRepl", "us-west-2", 2),
        ("transfer_region", "GetObject", "us-west-2", 3),
    ]


def test_all_services(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    ec2 = {"service": "EC2 - Other"}
    bill.add("2026-11-03", "DataTransfer-Regional-Bytes", "1.5", **ec2)
    bill.add("2026-11-03", "EUC1-DataTransfer-Out-Bytes", "2.5", **ec2)
    bill.add("2026-11-03", "", "0.7", service="Tax", record_type="Tax")
    pulled(server, ledger, "aws")
    assert len(bill.asked) == 2
    found = rows(
        ledger,
        "ServiceName, x_System, x_UsageKind, ChargeCategory, BilledCost::DOUBLE",
        "ChargePeriodStart = TIMESTAMP '2026-11-03' AND ServiceName <> 'Amazon Simple Storage Service'",
    )
    assert found == [
        ("EC2 - Other", "aws.ec2", "transfer_internet", "Usage", 2.5),
        ("EC2 - Other", "aws.ec2", "transfer_zone", "Usage", 1.5),
        ("Tax", "Tax", None, "Tax", 0.7),
    ]
    assert total(ledger) == bill.total()


def test_amortized_cost_is_the_effective_one(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    ec2 = {"service": "Amazon Elastic Compute Cloud - Compute", "amortized": "0.4"}
    bill.add("2026-11-03", "BoxUsage:m5.large", "0", record_type="DiscountedUsage", **ec2)
    pulled(server, ledger, "aws", options={"net": True})
    found = rows(ledger, "BilledCost::DOUBLE, EffectiveCost::DOUBLE", "x_UsageKind = 'compute'")
    assert found == [(0, 0.4)]
    assert all("NetUnblendedCost" in asked["Metrics"] for asked in bill.asked)


def test_any_service_by_its_name(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    bill.add("2026-11-03", "ETL-DPU-Hour", "4.4", service="AWS Glue", unit="DPU-Hour")
    pulled(server, ledger, "aws", service="AWS Glue")
    assert rows(ledger, "x_System, x_UsageKind, BilledCost::DOUBLE") == [
        ("aws.glue", "compute", 4.4)
    ]


# --- pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "options"), [(1, {}), (3, {}), (2, {"tag": "bucket"})])
def test_small_pages_change_nothing(
    server: AWSServer, bill: CostExplorer, tmp_path: Path, size: int, options: Any
) -> None:
    pulled(server, str(tmp_path / "one"), options=options)
    whole = len(bill.asked)
    bill.page = size
    server.requests.clear()
    report = pulled(server, str(tmp_path / "many"), options={**options, "pages": 200}, cap=None)
    assert not report.incomplete
    assert everything(str(tmp_path / "many")) == everything(str(tmp_path / "one"))
    asked = bill.asked
    assert len(asked) > whole
    assert report.spent == {"api_requests": str(len(asked))}
    # All pages of a request were asked for with the same arguments.
    plain = {json.dumps({**one, "NextPageToken": ""}, sort_keys=True) for one in asked}
    assert len(plain) == whole


def test_more_pages_than_was_said_are_not_paid_for(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    bill.page = 2
    report = pulled(server, ledger)
    assert "has more pages than was said beforehand: say  pages = 6" in report.failed
    assert len(bill.asked) == 3
    assert (report.published, total(ledger)) == (0, Decimal(0))
    report = pulled(server, ledger, options={"pages": 100}, cap=Decimal(5))
    assert report.published == DAYS
    assert total(ledger) == bill.total()


def test_the_cap(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    with pytest.raises(OverCap, match=r"up to 0\.04 USD"):
        pulled(server, ledger, cap=Decimal("0.03"))
    assert bill.asked == []
    # Tries that fail are counted as well, and the cap holds while it goes on.
    refusals = [Refusal("ThrottlingException")] * 5
    server.refuse("ce", "GetCostAndUsage", *refusals)
    report = pulled(server, ledger, cap=Decimal("0.04"))
    assert "looking has cost 0.06 USD so far" in report.failed
    assert total(ledger) == 0


# --- names that are wrong --------------------------------------------------------------------------


def test_a_misspelt_service_is_noticed(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    bill.add("2026-11-03", "ETL-DPU-Hour", "4.4", service="AWS Glue")
    report = pulled(server, ledger, "aws", service="AWS Gleu")
    assert "there is no service 'AWS Gleu'; did you mean 'AWS Glue'?" in report.failed
    assert report.published == 0
    report = pulled(server, ledger, "aws", service="Quantum Ledgers")
    assert "it may have cost nothing in that time" in report.failed


def test_a_service_that_cost_nothing_cost_nothing(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    bill.items.clear()
    report = pulled(server, ledger)
    assert (report.published, report.rows, report.failed) == (DAYS, 0, "")
    assert server.counts("ce") == {"GetCostAndUsage": 1}


def test_a_misspelt_bucket_is_noticed(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    report = pulled(server, ledger, options={"tag": "bucket"}, resource="laek")
    assert "there is no value of the tag bucket 'laek'; did you mean 'lake'?" in report.failed
    assert report.published == 0
    report = pulled(server, ledger, options={"tag": "Bucket"})
    assert report.notes == [
        "nothing has a value of the tag Bucket: is it activated as a cost-allocation tag?"
    ]


# --- time ------------------------------------------------------------------------------------------


def test_estimated_days_are_provisional(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    bill.estimated_from = FIRST + 2 * DAY
    report = pulled(server, ledger)
    assert report.provisional == 2
    states = [one.state for one in manifests.load(ledger).slices]
    assert states == ["open", "open", "provisional", "provisional"]


def test_what_was_restated_takes_the_place_of_what_was(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    pulled(server, ledger)
    before = everything(ledger)
    pulled(server, ledger)
    assert everything(ledger) == before
    bill.items = [item for item in bill.items if item.record_type != "Credit"]
    bill.add("2026-11-03", "Requests-Tier2", "11")
    pulled(server, ledger)
    assert total(ledger) == bill.total()
    # Three weeks into December November is closed, and stays so unless one asks.
    late = NOW + timedelta(days=45)
    pulled(server, ledger, end=FIRST + DAYS * DAY, now=late)
    bill.add("2026-11-02", "Requests-Tier2", "-5", record_type="Refund")
    closed = pulled(server, ledger, end=FIRST + DAYS * DAY, now=late)
    assert (closed.closed, closed.published) == (DAYS, 0)
    restated = pulled(server, ledger, end=FIRST + DAYS * DAY, now=late, restate=True)
    [change] = restated.changes
    assert change.difference == {"USD": "-5.000000000000000000"}
    assert total(ledger) == bill.total()


def hours_of(bill: CostExplorer, day: datetime) -> None:
    for hour in range(24):
        bill.add(day + timedelta(hours=hour), "Requests-Tier1", f"0.{hour:02}1", unit="Requests")


def test_hours(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    bill.items.clear()
    hours_of(bill, FIRST + 2 * DAY)
    options = {"endpoint_url": server.url}
    data = get_cost_data_for_hour(
        "aws.s3",
        FIRST + 2 * DAY + timedelta(hours=5),
        ledger=ledger,
        now=NOW,
        config={"pull": {"aws.cost_explorer": options}},
    )
    assert data.billed == {"USD": Decimal("0.051")}
    [asked] = bill.asked
    assert asked["Granularity"] == "HOURLY"
    period = {"Start": "2026-11-03T00:00:00Z", "End": "2026-11-04T00:00:00Z"}
    assert asked["TimePeriod"] == period
    assert total(ledger) == bill.total()


def test_hours_are_there_for_14_days_and_where_they_were_switched_on(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    october = FIRST - 12 * DAY
    report = pulled(server, ledger, granularity="hourly", start=october)
    assert "hours are kept for 14 days" in report.failed
    assert "ask for 2026-10-23 or later" in report.failed
    bill.hours = False
    report = pulled(server, ledger, granularity="hourly")
    assert "switched on in Cost Explorer's preferences" in report.failed
    assert total(ledger) == 0
    bill.hours = True
    # Without a beginning, what there is; days that are not final and have no hours come as days.
    bill.add(october, "Requests-Tier1", "3")
    pulled(server, ledger, start=october, end=october + DAY)
    bill.add(october, "Requests-Tier1", "4")
    report = pulled(server, ledger, granularity="hourly", start=None)
    assert report.notes == ["hours are kept for 14 days: the days before are pulled as days"]
    assert (report.start, report.failed) == (FIRST - 9 * DAY, "")
    assert total(ledger) == bill.total()


def test_the_history_has_a_beginning(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    long_ago = datetime(2025, 10, 31, tzinfo=timezone.utc)
    report = pulled(server, ledger, start=long_ago)
    assert "the history begins on 2025-11-01" in report.failed
    assert bill.asked == []
    report = pulled(server, ledger, start=long_ago, end=long_ago + DAY, options={"months": 38})
    assert report.published == 1


# --- faults ----------------------------------------------------------------------------------------


def refusing(*refusals: Refusal) -> Callable[[AWSServer, CostExplorer], None]:
    return lambda server, _bill: server.refuse("ce", "GetCostAndUsage", *refusals)


def breaking_off(_server: AWSServer, bill: CostExplorer) -> None:
    bill.truncated = 2


def empty_page(_server: AWSServer, bill: CostExplorer) -> None:
    """Give a page that has nothing but a token, in between."""

    def twist(number: int, answer: Answer) -> Answer | None:
        if number != 2:
            return None
        digest, _, at = answer["NextPageToken"].partition(":")
        return {"ResultsByTime": [], "NextPageToken": f"{digest}:0{int(at) - bill.page}"}

    bill.twist = twist


def more_fields(_server: AWSServer, bill: CostExplorer) -> None:
    """Give what is not in the model of the service that boto3 has."""

    def twist(_number: int, answer: Answer) -> Answer:
        for result in answer["ResultsByTime"]:
            for group in result["Groups"]:
                group["Forecast"] = group["Metrics"]["Forecast"] = {"Amount": "9", "Unit": "USD"}
        return {**answer, "Extra": {"new": 1}}

    bill.twist = twist


PASSING = {
    "429": refusing(Refusal("ThrottlingException", status=429)),
    "429 with a wait": refusing(
        Refusal("ThrottlingException", status=429, headers=(("Retry-After", "3"),))
    ),
    "429 with an absurd wait": refusing(
        Refusal("ThrottlingException", status=429, headers=(("Retry-After", "99999999999"),)),
        Refusal("ThrottlingException", status=429, headers=(("Retry-After", "-7"),)),
        Refusal("ThrottlingException", status=429, headers=(("Retry-After", "soon"),)),
    ),
    "its own word": refusing(*[Refusal("LimitExceededException")] * 4),
    "a burst of 500s": refusing(*[Refusal("InternalServerError", status=500)] * 5),
    "503": refusing(*[Refusal("ServiceUnavailable", status=503)] * 3),
    "credentials that expire": refusing(Refusal("ExpiredTokenException")),
    "an answer that breaks off": breaking_off,
    "an empty page with a token": empty_page,
    "more fields than are known": more_fields,
}


def test_what_passes_changes_nothing(
    server: AWSServer, bill: CostExplorer, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    pulled(server, str(tmp_path / "calm"), end=TWO)
    calm = everything(str(tmp_path / "calm"))
    bill.page = 3
    more: dict[str, Any] = {"options": {"pages": 50}, "cap": None, "end": TWO}
    for number, (fault, goes_wrong) in enumerate(PASSING.items()):
        with subtests.test(fault):
            bill.begin_anew()
            goes_wrong(server, bill)
            report = pulled(server, str(tmp_path / str(number)), **more)
            assert (report.incomplete, report.failed) == ({}, "")
            assert everything(str(tmp_path / str(number))) == calm


def test_credentials_that_expire_between_pages(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    bill.page = 5
    bill.twist = lambda number, _answer: Refusal("ExpiredTokenException") if number == 3 else None
    report = pulled(server, ledger, options={"pages": 50}, cap=None)
    assert report.failed == ""
    assert total(ledger) == bill.total()


def tokens(following: Callable[[int], str]) -> Callable[[int, Answer], Answer]:
    """Return what gives pages without anything on them, and other tokens."""
    empty: list[Answer] = [
        {"TimePeriod": {"Start": f"2026-11-0{number}", "End": "2026-11-05"}, "Groups": []}
        for number in range(1, 1 + DAYS)
    ]

    def twist(number: int, _answer: Answer) -> Answer:
        return {"ResultsByTime": empty, "NextPageToken": following(number)}

    return twist


def changed_metric(name: str, **metric: Any) -> Callable[[int, Answer], Answer | None]:
    def twist(number: int, answer: Answer) -> Answer | None:
        if number != 2:
            return None
        groups = next(one["Groups"] for one in answer["ResultsByTime"] if one["Groups"])
        groups[0]["Metrics"][name] = metric
        return answer

    return twist


def without_a_day(number: int, answer: Answer) -> Answer | None:
    kept = [one for one in answer["ResultsByTime"] if one["TimePeriod"]["Start"] != "2026-11-02"]
    return {**answer, "ResultsByTime": kept}


def twice(number: int, answer: Answer) -> Answer | None:
    return {**answer, "ResultsByTime": [*answer["ResultsByTime"], *answer["ResultsByTime"]]}


def refusal(code: str) -> Callable[[int, Answer], Refusal | None]:
    return lambda number, _answer: Refusal(code) if number > 1 else None


DOUBTS: dict[str, tuple[Callable[[int, Answer], Any], str]] = {
    "the same token": (tokens(lambda _: "a"), "gave a page for the second time"),
    "a cycle of three": (tokens(lambda n: "abc"[n % 3]), "gave a page for the second time"),
    "a list without end": (tokens(str), "has more pages than was said"),
    "a day is missing": (without_a_day, "says nothing of 2026-11-02"),
    "a group twice": (twice, "gave the same group twice"),
    "no amount": (changed_metric("UnblendedCost", Amount=None, Unit="USD"), "no UnblendedCost"),
    "no number": (changed_metric("AmortizedCost", Amount="NaN", Unit="USD"), "no AmortizedCost"),
    "no metric": (changed_metric("UnblendedCost"), "has no UnblendedCost"),
    "two currencies": (changed_metric("UnblendedCost", Amount="1", Unit="EUR"), "EUR and USD"),
    "another request": (refusal("RequestChangedException"), "RequestChangedException"),
    "no permission": (refusal("AccessDeniedException"), "no permission to read GetCostAndUsage"),
    "no end of throttling": (refusal("ThrottlingException"), "ThrottlingException, 8 times"),
    "not there yet": (refusal("DataUnavailableException"), "DataUnavailableException"),
}


GOES_ON = ("a cycle of three", "a day is missing", "no end of throttling")
"""After these it is shown that the next run goes on; after the others nothing is different."""


@pytest.mark.parametrize("doubt", DOUBTS)
def test_a_doubt_publishes_nothing_and_the_next_run_goes_on(
    server: AWSServer, bill: CostExplorer, ledger: str, doubt: str
) -> None:
    bill.page = 3
    twist, why = DOUBTS[doubt]
    bill.twist = twist
    more: dict[str, Any] = {"options": {"pages": 60}, "cap": None, "end": TWO}
    report = pulled(server, ledger, **more)
    assert report.published == 0
    [(incomplete, said)] = report.incomplete.items()
    assert incomplete.startswith(f"aws.cost_explorer {ACCOUNT} 2026-11-01")
    assert why in said
    assert manifests.load(ledger).incomplete
    assert total(ledger) == 0
    if doubt in GOES_ON:
        bill.twist = None
        report = pulled(server, ledger, **more)
        assert (report.published, report.incomplete) == (2, {})
        assert manifests.load(ledger).incomplete == {}
        assert total(ledger) == TWO_DAYS


def test_a_missing_permission_names_the_policy(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    server.refuse("ce", "GetCostAndUsage", Refusal("AccessDeniedException"))
    report = pulled(server, ledger)
    assert report.grant == CostExplorerPuller.grants
    actions = json.loads(report.grant)["Statement"][0]["Action"]
    assert {f"ce:{name}" for name in READS if name[0] != "A"} >= set(actions)


def test_the_currency_may_change_within_a_month(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    bill.items = [
        item if item.start < FIRST + 2 * DAY else replace(item, currency="EUR")
        for item in bill.items
    ]
    pulled(server, ledger)
    found = rows(ledger, "BillingCurrency, sum(BilledCost) OVER (PARTITION BY BillingCurrency)")
    sums = {currency: Decimal(amount) for currency, amount in found}
    each = {"EUR": 2 * Decimal("4.9"), "USD": 2 * Decimal("4.9") - Decimal("0.6")}
    assert sums == each


# --- accounts --------------------------------------------------------------------------------------

ROLES = [f"arn:aws:iam::{number * 12}:role/costs" for number in "12"]
EACH = {"roles": ROLES, "billing_account": ""}


def test_several_accounts_by_their_roles(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    report = pulled(server, ledger, options=EACH)
    assert (report.accounts, report.published) == (2, 2 * DAYS)
    found = rows(ledger, "DISTINCT BillingAccountId")
    assert found == [("111111111111",), ("222222222222",)]
    assert total(ledger) == 2 * bill.total()


def test_one_account_of_several_refuses(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    server.refuse("ce", "GetCostAndUsage", Refusal("AccessDeniedException"))
    report = pulled(server, ledger, options=EACH)
    assert report.published == DAYS
    assert len(report.incomplete) == 1
    assert "no permission" in report.failed
    assert total(ledger) == bill.total()
    report = pulled(server, ledger, options=EACH)
    assert report.incomplete == {}
    assert total(ledger) == 2 * bill.total()


def test_a_role_that_may_not_be_assumed(server: AWSServer, bill: CostExplorer, ledger: str) -> None:
    bill.closed_roles = True
    report = pulled(server, ledger, options={"role": ROLES[0]})
    assert "sts:AssumeRole" in report.grant
    assert ROLES[0] in report.failed


def test_profiles_are_boto3s(
    server: AWSServer,
    bill: CostExplorer,
    ledger: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "config"
    file.write_text(
        "[profile prod]\naws_access_key_id = AKIAPROD\naws_secret_access_key = x\nregion = eu-west-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    pulled(server, ledger, options={"profile": "prod"})
    assert total(ledger) == bill.total()
    assert "AKIAPROD" in server.asked("ce")[0].headers["authorization"]
    report = pulled(server, ledger, options={"profile": "prdo"})
    assert "prdo" in report.failed


# --- moto's own ------------------------------------------------------------------------------------


def test_motos_cost_explorer(tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger")
    days = [FIRST + number * DAY for number in range(3)]
    results: list[Answer] = [
        {
            "TimePeriod": {"Start": f"{day:%Y-%m-%d}", "End": f"{day + DAY:%Y-%m-%d}"},
            "Total": {},
            "Estimated": False,
            "Groups": [
                {
                    "Keys": ["Usage", "TimedStorage-GlacierByteHrs"],
                    "Metrics": {
                        "UnblendedCost": {"Amount": "0.0000300172", "Unit": "USD"},
                        "AmortizedCost": {"Amount": "0.0000300172", "Unit": "USD"},
                        "UsageQuantity": {"Amount": "0.01", "Unit": "GB-Months"},
                    },
                }
            ],
        }
        for day in days
    ]
    with aws_server() as moto:
        page = {"ResultsByTime": results[:2], "NextPageToken": "second"}
        last = {"ResultsByTime": results[2:]}
        request = urllib.request.Request(
            f"{moto.url}/moto-api/static/ce/cost-and-usage-results",
            json.dumps({"results": [page, last]}).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request).close()
        report = pulled(moto, ledger, end=days[-1] + DAY)
        assert report.published == 3
        assert moto.counts("ce") == {"GetCostAndUsage": 2}
    found = rows(ledger, "BilledCost::VARCHAR, x_StorageClass, x_UsageKind")
    assert found == [("0.000030017200000000", "GLACIER", "storage")] * 3


def test_options_that_contradict_each_other(
    server: AWSServer, bill: CostExplorer, ledger: str
) -> None:
    report = pulled(server, ledger, options={"tag": "bucket", "by": "account"})
    assert "has room for one" in report.failed
    with pytest.raises(BillingError, match="unknown field"):
        pulled(server, ledger, options={"bucket": "x"})
    assert bill.asked == []
