"""`costinsights pull aws.s3` from Data Exports, in folders and, by unmodified boto3, in moto's S3."""

from __future__ import annotations

import json
import urllib.request
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import asking
from costinsights.billing import Pulled, get_cost_data_for_hour, open_bill, pull
from costinsights.billing import slices as manifests
from costinsights.billing.aws_data_exports import DataExportsPuller
from costinsights.billing.aws_usage_report import NEEDED
from tests.focus_rows import november
from tests.servers.aws_exports import BUCKET, NAME, PREFIX, URL, Export, line
from tests.servers.aws_server import ACCOUNT, AWSServer, Refusal, aws_server
from tests.servers.cost_explorer_server import S3, CostExplorer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW = datetime(2026, 11, 5, 8, 30, tzinfo=timezone.utc)
FIRST = datetime(2026, 11, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MANIFEST = f"/{BUCKET}/{PREFIX}/metadata/BILLING_PERIOD=2026-11/{NAME}-Manifest.json"


@pytest.fixture(scope="module")
def loader() -> Any:
    """Botocore's models of services, read once for all sessions."""
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
def started() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def server(started: AWSServer) -> AWSServer:
    """A server with nothing in its S3."""
    reset = urllib.request.Request(f"{started.url}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()
    return started


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


@pytest.fixture
def export(tmp_path: Path) -> Export:
    return Export(tmp_path / NAME)


def month() -> list[dict[str, Any]]:
    """Four days of two buckets and of a machine, with a credit and a tax; they sum up to `TOTAL`."""
    rows: list[dict[str, Any]] = []
    for number in range(4):
        day = FIRST + number * DAY
        for bucket, share in (("lake", 3), ("logs", 1)):
            of: dict[str, Any] = {"resource_id": bucket, "resource_tags": {"user_team": bucket}}
            stored = {"usage_amount": "0.5", "pricing_unit": "GB-Months", **of}
            rows.append(line(day, "TimedStorage-ByteHrs", f"{share}.25", **stored))
            put = {"usage_amount": "1000", "operation": "PutObject", **of}
            rows.append(line(day, "EU-Requests-SIA-Tier1", f"0.{share}", **put))
    ec2: dict[str, Any] = {
        "product_code": "AmazonEC2",
        "product": {"product_name": "Amazon Elastic Compute Cloud"},
    }
    rows += [
        line(FIRST, "DataTransfer-Regional-Bytes", "1.5", product_region_code="us-west-2", **ec2),
        line(FIRST, "TimedStorage-ByteHrs", "-3.1", line_item_type="Credit"),
        line(FIRST, "", "2.5", line_item_type="Tax", usage_end_date=FIRST + 30 * DAY),
    ]
    return rows


TOTAL = 4 * Decimal("4.9") + Decimal("0.9")


def run(ledger: str, url: Path | str, source: str = "aws", **more: Any) -> Pulled:
    more.setdefault("now", NOW)
    start, end = more.pop("start", FIRST), more.pop("end", None)
    options = {"url": str(url), **more.pop("options", {})}
    return pull(
        source, start, end, ledger=ledger, config={"pull": {"aws.data_exports": options}}, **more
    )


def bucket(ledger: str, server: AWSServer, source: str = "aws", **more: Any) -> Pulled:
    """Pull from moto's S3."""
    options = {"endpoint_url": server.url, **more.pop("options", {})}
    server.requests.clear()
    report = run(ledger, URL, source, options=options, **more)
    # Objects are asked for by name. Nothing is listed, and nothing is written.
    verbs = {request.operation.partition(" ")[0] for request in server.asked("s3")}
    assert verbs <= {"HEAD", "GET"}
    assert not any("list-type" in request.operation for request in server.asked("s3"))
    return report


def rows(ledger: str, columns: str, condition: str = "true") -> list[tuple[Any, ...]]:
    with open_bill(ledger) as opened:
        return opened.fetch(f"SELECT {columns} FROM bill WHERE {condition} ORDER BY ALL")


def total(ledger: str) -> Decimal:
    [(found,)] = rows(ledger, "coalesce(sum(BilledCost), 0)")
    return Decimal(found)


# --- the usage report ------------------------------------------------------------------------------


def test_a_usage_report_becomes_focus(ledger: str, export: Export) -> None:
    export.deliver(month())
    said: list[str] = []
    report = run(ledger, export.root, said=said.extend)
    assert (report.published, report.rows, report.incomplete) == (1, 19, {})
    assert said == [f"{export.root}: 2026-11, the files that its manifest names"]
    assert total(ledger) == TOTAL
    found = rows(
        ledger,
        "ChargeCategory, ServiceName, x_System, x_UsageKind, x_StorageClass, x_RequestClass, "
        "RegionId, ResourceId, Tags, ConsumedQuantity::DOUBLE, ConsumedUnit, BilledCost::DOUBLE",
        "ChargePeriodStart = TIMESTAMP '2026-11-01' AND (ResourceId = 'lake' OR ResourceId IS NULL)",
    )
    ec2 = "Amazon Elastic Compute Cloud"
    tags = '{"user_team":"lake"}'
    east = "us-east-1"
    assert found == [
        ("Credit", S3, "aws.s3", "storage", "STANDARD", None, east, None, None, None, None, -3.1),
        ("Tax", S3, "aws.s3", None, None, None, None, None, None, None, None, 2.5),
        (
            *("Usage", ec2, "aws.ec2", "transfer_zone", None, None),
            *("us-west-2", None, None, None, None, 1.5),
        ),
        (
            *("Usage", S3, "aws.s3", "requests", "STANDARD_IA", "Tier1"),
            *("eu-west-1", "lake", tags, 1000, None, 0.3),
        ),
        (
            *("Usage", S3, "aws.s3", "storage", "STANDARD", None),
            *(east, "lake", tags, 0.5, "GB-Months", 3.25),
        ),
    ]
    people = rows(
        ledger, "DISTINCT BillingAccountId, SubAccountId, InvoiceIssuerName, ProviderName"
    )
    assert people == [(ACCOUNT, "222222222222", "Amazon Web Services EMEA SARL", "AWS")]


def test_commitments_are_effective_when_they_are_used(ledger: str, export: Export) -> None:
    plan, reserved = "arn:aws:savingsplans::1:savingsplan/a", "arn:aws:ec2:eu-west-1:1:ri/b"
    ec2: dict[str, Any] = {"product_code": "AmazonEC2", "product": None}
    of_plan = {"savings_plan_savings_plan_a_r_n": plan, **ec2}
    covered = {"savings_plan_savings_plan_effective_cost": "0.6", **of_plan}
    fee = {
        "savings_plan_total_commitment_to_date": "1.0",
        "savings_plan_used_commitment": "0.6",
        **of_plan,
    }
    of_ri = {"reservation_reservation_a_r_n": reserved, **ec2}
    word = "BoxUsage:m5.large"
    export.deliver(
        [
            line(FIRST, word, "1", line_item_type="SavingsPlanCoveredUsage", **covered),
            line(FIRST, word, "-1", line_item_type="SavingsPlanNegation", **of_plan),
            line(FIRST, word, "1", line_item_type="SavingsPlanRecurringFee", **fee),
            line(
                *(FIRST, word, "0"),
                line_item_type="DiscountedUsage",
                reservation_effective_cost="0.2",
                **of_ri,
            ),
            line(FIRST, word, "50", line_item_type="Fee", **of_ri),
            line(FIRST, word, "-2", line_item_type="Refund", **ec2),
            line(FIRST, word, "-3", line_item_type="EdpDiscount", **ec2),
            line(
                *(FIRST, word, "1"),
                pricing_public_on_demand_cost="1.25",
                net_unblended_cost="0.9",
                **ec2,
            ),
        ]
    )
    run(ledger, export.root)
    found = rows(
        ledger,
        "coalesce(x_RecordType, 'Usage'), ChargeCategory, ChargeClass, ChargeFrequency, "
        "CommitmentDiscountType, CommitmentDiscountStatus, PricingCategory, "
        "BilledCost::DOUBLE, EffectiveCost::DOUBLE",
    )
    recurring, once, used = "Recurring", "One-Time", "Usage-Based"
    sp, ri, yes = "Savings Plan", "Reserved Instance", "Committed"
    assert found == [
        ("DiscountedUsage", "Usage", None, used, ri, "Used", yes, 0, 0.2),
        ("EdpDiscount", "Adjustment", None, once, None, None, None, -3, -3),
        ("Fee", "Purchase", None, once, ri, None, None, 50, 0),
        ("Refund", "Adjustment", "Correction", once, None, None, None, -2, -2),
        ("SavingsPlanCoveredUsage", "Usage", None, used, sp, "Used", yes, 1, 0.6),
        ("SavingsPlanNegation", "Usage", None, used, sp, None, "Standard", -1, 0),
        ("SavingsPlanRecurringFee", "Purchase", None, recurring, sp, None, None, 1, 0.4),
        ("Usage", "Usage", None, used, None, None, "Standard", 1, 1),
    ]
    [prices] = rows(ledger, "ListCost::DOUBLE, ContractedCost::DOUBLE", "ListCost > BilledCost")
    assert prices == (1.25, 0.9)
    assert rows(ledger, "DISTINCT ServiceName") == [("Amazon Elastic Compute Cloud",)]


@pytest.mark.parametrize("create_new", [False, True], ids=["overwrite", "create new"])
def test_csv_in_s3_is_what_parquet_in_a_folder_is(
    server: AWSServer, tmp_path: Path, export: Export, create_new: bool
) -> None:
    lines = month()
    export.deliver(lines)
    run(str(tmp_path / "folder"), export.root)
    other = Export(tmp_path / "other", form="csv", create_new=create_new)
    other.deliver(lines[:7], lines[7:])
    other.upload(server)
    report = bucket(str(tmp_path / "bucket"), server)
    assert (report.published, report.rows) == (1, 19)
    # JSON of a map may have a space where that of text has none.
    columns = "* REPLACE (Tags->>'user_team' AS Tags)"
    assert rows(str(tmp_path / "bucket"), columns) == rows(str(tmp_path / "folder"), columns)


def test_replication_is_told_by_the_operation(ledger: str, export: Export) -> None:
    export.deliver(
        [
            line(FIRST, "USE1-USW2-AWS-Out-Bytes", "2", operation="UploadPartForRepl"),
            line(FIRST, "USE1-USW2-AWS-Out-Bytes", "3", operation="GetObject"),
        ]
    )
    run(ledger, export.root)
    assert rows(ledger, "x_UsageKind, x_OtherRegion, BilledCost::INT") == [
        ("replication", "us-west-2", 2),
        ("transfer_region", "us-west-2", 3),
    ]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_a_report_of_few_columns_is_a_bill(ledger: str, tmp_path: Path, form: str) -> None:
    export = Export(tmp_path / NAME, form=form)
    export.deliver([{name: one[name] for name in NEEDED} for one in month()])
    report = run(ledger, export.root)
    assert (report.failed, report.rows) == ("", 19)
    assert total(ledger) == TOTAL
    assert rows(ledger, "DISTINCT ServiceName, x_UsageKind, ResourceId, Tags, RegionId") == [
        ("Amazon Elastic Compute Cloud", None, None, None, None),
        (S3, None, None, None, None),
    ]


# --- FOCUS -----------------------------------------------------------------------------------------


def focus_lines() -> list[dict[str, str | None]]:
    """Rows as AWS exports FOCUS, with its own columns."""
    own = {"x_ServiceCode": "AmazonS3", "x_Operation": "PutObject", "RegionId": "eu-west-1"}
    day = {
        "ChargePeriodStart": "2026-11-02T00:00:00Z",
        "ChargePeriodEnd": "2026-11-03T00:00:00Z",
    }
    return [
        {**november(**own, x_UsageType=word, ResourceId=resource, Tags="{}"), **day}
        for word, resource in (
            ("EU-Requests-SIA-Tier1", "lake"),
            ("EU-TimedStorage-ByteHrs", "logs"),
        )
    ]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_focus_exports_pass_through(ledger: str, tmp_path: Path, form: str) -> None:
    export = Export(tmp_path / NAME, form=form)
    export.types = {}
    export.deliver(focus_lines())
    report = run(ledger, export.root)
    assert (report.failed, report.rows) == ("", 2)
    found = rows(
        ledger,
        "x_UsageKind, x_StorageClass, RegionId, ResourceId, x_ServiceCode, BilledCost::DOUBLE",
    )
    assert found == [
        ("requests", "STANDARD_IA", "eu-west-1", "lake", "AmazonS3", 1.5),
        ("storage", "STANDARD", "eu-west-1", "logs", "AmazonS3", 1.5),
    ]


def test_focus_without_usage_types_has_no_kinds(ledger: str, export: Export) -> None:
    export.types = {}
    export.deliver([{k: v for k, v in one.items() if k[0] != "x"} for one in focus_lines()])
    run(ledger, export.root)
    assert rows(ledger, "x_UsageKind, BilledCost::DOUBLE") == [(None, 1.5)] * 2


# --- what is wanted --------------------------------------------------------------------------------


def test_one_service_and_one_bucket(ledger: str, export: Export) -> None:
    export.deliver(month())
    run(ledger, export.root, "aws.s3")
    assert total(ledger) == TOTAL - Decimal("1.5")
    run(f"{ledger}-2", export.root, "aws.s3", resource="logs")
    assert total(f"{ledger}-2") == 4 * Decimal("1.35")


def test_a_misspelt_service_is_noticed(ledger: str, export: Export) -> None:
    export.deliver(month())
    report = run(ledger, export.root, service="Amazon Elastic Compute")
    assert "did you mean 'Amazon Elastic Compute Cloud'?" in report.failed
    assert report.published == 0
    report = run(ledger, export.root, service="AWS Glue")
    assert (report.published, report.rows, report.failed) == (1, 0, "")


def test_hours_where_the_export_has_them(ledger: str, export: Export) -> None:
    hour = FIRST + 5 * HOUR
    requests = line(hour, "Requests-Tier1", "0.25", usage_end_date=hour + HOUR)
    export.deliver([requests, line(FIRST, "TimedStorage-ByteHrs", "1")])
    options = {"pull": {"aws.data_exports": {"url": str(export.root)}}}
    found = get_cost_data_for_hour("aws", hour, ledger=ledger, config=options, now=NOW)
    assert found.billed == {"USD": Decimal("0.25")}
    export.deliver(month())
    report = run(ledger, export.root, granularity="hourly")
    assert "it has days, and no hours" in report.failed


def test_an_export_goes_before_cost_explorer(
    server: AWSServer, ledger: str, export: Export
) -> None:
    bill = CostExplorer(server)
    bill.add(FIRST, "TimedStorage-ByteHrs", "99")
    options: dict[str, dict[str, Any]] = {"aws.cost_explorer": {"endpoint_url": server.url}}
    pull("aws.s3", FIRST, ledger=ledger, config={"pull": options}, now=NOW)
    assert total(ledger) == 99
    export.deliver(month())
    options["aws.data_exports"] = {"url": str(export.root)}
    report = pull("aws.s3", FIRST, ledger=ledger, config={"pull": options}, now=NOW)
    assert report.puller == "aws.data_exports"
    # The same money is in slices of both, and counts once.
    assert total(ledger) == TOTAL - Decimal("1.5")


def test_several_exports(ledger: str, tmp_path: Path) -> None:
    urls: list[str] = []
    for name in ("a", "b"):
        export = Export(tmp_path / name / NAME)
        lines = [{**one, "bill_payer_account_id": name * 12} for one in month()]
        export.deliver(lines)
        urls.append(str(export.root))
    report = pull(
        "aws", FIRST, ledger=ledger, now=NOW, config={"pull": {"aws.data_exports": {"url": urls}}}
    )
    assert (report.accounts, report.published) == (2, 2)
    assert total(ledger) == 2 * TOTAL


# --- time ------------------------------------------------------------------------------------------


def test_what_has_not_changed_is_not_read(server: AWSServer, ledger: str, export: Export) -> None:
    export.deliver(month())
    export.upload(server)
    bucket(ledger, server)
    before = rows(ledger, "*")
    again = bucket(ledger, server)
    assert (again.published, again.unchanged) == (0, 1)
    assert {request.operation for request in server.asked("s3")} == {f"HEAD {MANIFEST}"}
    assert rows(ledger, "*") == before
    assert run(f"{ledger}-2", export.root).published == 1
    assert run(f"{ledger}-2", export.root).unchanged == 1


@pytest.mark.parametrize("create_new", [False, True], ids=["overwrite", "create new"])
def test_a_new_delivery_takes_the_place_of_the_old_one(
    ledger: str, tmp_path: Path, create_new: bool
) -> None:
    export = Export(tmp_path / NAME, create_new=create_new)
    export.deliver(month(), month())
    run(ledger, export.root)
    assert total(ledger) == 2 * TOTAL
    # It has become smaller; the second file still lies there, and is not named any more.
    export.deliver([*month(), line(FIRST, "Requests-Tier2", "0.000000000000000001")])
    report = run(ledger, export.root)
    assert (report.published, report.rows) == (1, 20)
    assert total(ledger) == TOTAL + Decimal("0.000000000000000001")


def test_today_is_held_back_and_comes_tomorrow(ledger: str, export: Export) -> None:
    export.deliver(month())
    early = FIRST + 3 * DAY + 5 * HOUR
    report = run(ledger, export.root, now=early)
    assert (report.held_back, report.rows) == (4, 15)
    report = run(ledger, export.root, now=early + DAY)
    assert (report.published, report.rows) == (1, 19)
    assert total(ledger) == TOTAL


def test_months_are_slices_and_those_that_are_not_there_are_named(
    ledger: str, export: Export
) -> None:
    october = FIRST - 10 * DAY
    export.deliver([line(october, "Requests-Tier1", "7")], period="2026-10")
    export.deliver(month())
    report = run(ledger, export.root, start=FIRST - 60 * DAY)
    assert report.published == 2
    assert report.notes == [f"{export.root} has nothing of 2026-09"]
    assert total(ledger) == TOTAL + 7
    states = {one.slice.start.month: one.state for one in manifests.load(ledger).slices}
    assert states == {10: "open", 11: "provisional"}
    # Two weeks after its end AWS is done with a month.
    late = FIRST + 14 * DAY
    run(ledger, export.root, start=october, end=FIRST, now=late)
    assert manifests.load(ledger).slices[0].state == "final"


def test_no_manifest_at_all(server: AWSServer, ledger: str, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    report = run(ledger, tmp_path / NAME)
    assert "has no manifest of 2026-11: is that the export's folder" in report.failed
    assert "is no folder" in run(ledger, tmp_path / "nowhere").failed
    Export(tmp_path / NAME).upload(server)
    assert "has no manifest of 2026-11" in bucket(ledger, server).failed
    assert "neither s3:// nor a folder" in run(ledger, "https://bucket/x").failed


# --- faults ----------------------------------------------------------------------------------------


def cut(path: Path, lost: int) -> None:
    path.write_bytes(path.read_bytes()[:-lost])


def changed(name: str, value: Any) -> Callable[[Export], None]:
    def change(export: Export) -> None:
        lines = month()
        lines[3] = {**lines[3], name: value}
        export.deliver(lines)

    return change


def said(**more: Any) -> Callable[[Export], None]:
    return lambda export: _said(export, more)


def _said(export: Export, more: dict[str, Any]) -> None:
    export.deliver(month(), **more)


def without_a_file(export: Export) -> None:
    paths = export.deliver(month(), month())
    paths[1].unlink()


def broken_off(export: Export) -> None:
    cut(export.deliver(month())[0], 500)


def without_a_column(export: Export) -> None:
    lines = [{k: v for k, v in one.items() if k != "line_item_currency_code"} for one in month()]
    export.deliver(lines)


def listed(
    path: str = f"data/BILLING_PERIOD=2026-11/{NAME}-00001.snappy.parquet", **more: Any
) -> Any:
    return said(dataFiles=[{"key": path, **more}])


FAULTS: dict[str, tuple[Callable[[Export], None], str]] = {
    "a file is missing": (without_a_file, "is not there, and the manifest names it"),
    "a file breaks off": (broken_off, "cannot be read"),
    "a file of another size": (listed(size=17), "and the manifest says 17"),
    "fewer rows": (listed(rowCount=20), "has 19 rows, and the manifest says 20"),
    "another period": (
        listed(f"data/BILLING_PERIOD=2026-10/{NAME}-00001.snappy.parquet"),
        "which is not of it",
    ),
    "a path that leads out": (
        listed("data/BILLING_PERIOD=2026-11/../../../secret.parquet"),
        "which is not of it",
    ),
    "no files": (said(dataFiles=[]), "names no files"),
    "a file twice": (
        said(dataFiles=[f"{URL}/data/BILLING_PERIOD=2026-11/{NAME}-00001.snappy.parquet"] * 2),
        "names a file twice",
    ),
    "a column is missing": (said(columns=[{"name": "x_new"}]), "has no x_new, and the manifest"),
    "no bill": (without_a_column, "line_item_currency_code: it has no such column"),
    "no JSON": (lambda export: _no_json(export), "is no JSON"),
    "no manifest": (lambda export: _no_manifest(export), "is no manifest"),
    "no cost": (changed("line_item_unblended_cost", None), "a row has no BilledCost"),
    "no currency": (changed("line_item_currency_code", ""), "a row has no BillingCurrency"),
    "no account": (changed("bill_payer_account_id", None), "a row has no BillingAccountId"),
}


def _no_json(export: Export) -> None:
    export.deliver(month())
    export.manifest("<Error><Code>NoSuchKey</Code></Error>")


def _no_manifest(export: Export) -> None:
    export.deliver(month())
    export.manifest(["data"])


HEALED = ("a file is missing", "no cost")
"""After these it is shown that the next delivery counts; after the others nothing is different."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_doubt_publishes_nothing_and_the_next_delivery_heals_it(
    ledger: str, export: Export, fault: str
) -> None:
    spoil, why = FAULTS[fault]
    spoil(export)
    report = run(ledger, export.root)
    assert report.published == 0
    assert list(report.incomplete) == [f"aws.data_exports {export.root} 2026-11-01 to 2026-12-01"]
    assert why in report.failed
    assert total(ledger) == 0
    if fault in HEALED:
        export.deliver(month())
        report = run(ledger, export.root)
        assert (report.published, report.incomplete, total(ledger)) == (1, {}, TOTAL)
        assert manifests.load(ledger).incomplete == {}


@pytest.mark.parametrize("lost", [5, 600])
def test_a_gzipped_file_that_breaks_off_is_no_whole_one(
    ledger: str, tmp_path: Path, lost: int
) -> None:
    export = Export(tmp_path / NAME, form="csv")
    [path] = export.deliver(month() * 20)
    cut(path, lost)
    assert "cannot be read: EOFError" in run(ledger, export.root).failed


def test_a_number_that_is_none(ledger: str, tmp_path: Path) -> None:
    export = Export(tmp_path / NAME, form="csv")
    changed("line_item_unblended_cost", "12,5")(export)
    report = run(ledger, export.root)
    assert report.published == 0
    assert "12,5" in report.failed


def test_a_delivery_that_is_under_way(server: AWSServer, ledger: str, export: Export) -> None:
    paths = export.deliver(month())
    export.upload(server)
    later = "Thu, 01 Jan 2099 00:00:00 GMT"
    data = f"/{BUCKET}/{PREFIX}/{paths[0].relative_to(export.root)}"
    with newer(server, data, later):
        report = bucket(ledger, server)
    assert "is newer than its manifest: a delivery is under way" in report.failed
    assert total(ledger) == 0
    assert bucket(ledger, server).published == 1
    assert total(ledger) == TOTAL


def test_a_manifest_that_changes_while_its_files_are_read(
    server: AWSServer, ledger: str, export: Export
) -> None:
    export.deliver(month())
    export.upload(server)
    calls: list[str] = []

    class Watching(DataExportsPuller):
        def pull(self, *args: Any, **more: Any) -> None:
            super().pull(*args, **more)
            if not calls:
                calls.append("delivered anew")
                export.deliver([*month(), line(FIRST, "Requests-Tier1", "1")])
                export.upload(server)

    puller = Watching({"url": URL, "endpoint_url": server.url})
    report = pull("aws", FIRST, ledger=ledger, now=NOW, puller=puller)
    assert "has changed while it was read" in report.failed
    assert total(ledger) == 0
    assert bucket(ledger, server).published == 1
    assert total(ledger) == TOTAL + 1


PASSING = {
    "slow down": [Refusal("SlowDown", status=503)] * 3,
    "500s": [Refusal("InternalError", status=500)] * 5,
    "429": [Refusal("Throttling", status=429, headers=(("Retry-After", "999999999"),))] * 2,
    "credentials that expire": [Refusal("ExpiredToken", status=401)],
}


@pytest.mark.parametrize(
    ("fault", "verb"), [*((fault, "GET") for fault in PASSING), ("slow down", "HEAD")]
)
def test_what_passes_changes_nothing(
    server: AWSServer, ledger: str, export: Export, fault: str, verb: str
) -> None:
    [path] = export.deliver(month())
    export.upload(server)
    at = MANIFEST if verb == "HEAD" else f"/{BUCKET}/{PREFIX}/{path.relative_to(export.root)}"
    server.refuse("s3", f"{verb} {at}", *PASSING[fault])
    report = bucket(ledger, server)
    assert (report.published, report.failed, total(ledger)) == (1, "", TOTAL)


def test_a_transfer_that_breaks_off_is_begun_anew(
    server: AWSServer, ledger: str, export: Export
) -> None:
    [path] = export.deliver(month())
    export.upload(server)
    with breaking_off(server, f"/{BUCKET}/{PREFIX}/{path.relative_to(export.root)}", 2):
        report = bucket(ledger, server)
    assert (report.published, report.failed, total(ledger)) == (1, "", TOTAL)
    assert len([one for one in server.asked("s3") if one.operation.startswith("GET")]) == 4


def test_a_missing_permission_names_the_policy(
    server: AWSServer, ledger: str, export: Export
) -> None:
    export.deliver(month())
    export.upload(server)
    server.refuse("s3", f"HEAD {MANIFEST}", Refusal("AccessDenied", status=403))
    report = bucket(ledger, server)
    assert "no permission to read HeadObject" in report.failed
    assert report.grant == DataExportsPuller.grants
    allowed = json.loads(report.grant)["Statement"]
    assert [one["Action"] for one in allowed] == ["s3:GetObject", "s3:ListBucket"]


# --- the wire --------------------------------------------------------------------------------------


class changing:  # noqa: N801  it stands behind `with`
    """Change the headers of a server's answers to one object, or how much comes of it."""

    def __init__(self, server: AWSServer, path: str) -> None:
        self.server, self.path = server, f"GET {path}"
        self.respond = server.respond

    def __enter__(self) -> None:
        setattr(self.server, "respond", self.responding)  # noqa: B010  a method, put back below

    def __exit__(self, *_: object) -> None:
        setattr(self.server, "respond", self.respond)  # noqa: B010  a method

    def headers(self, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return found

    def body(self, whole: bytes) -> bytes:
        return whole

    def responding(self, request: Any, refusal: Any, environ: Any, start_response: Any) -> Any:
        if request.operation != self.path:
            return self.respond(request, refusal, environ, start_response)

        def start(status: str, headers: Any, *more: Any) -> Any:
            return start_response(status, self.headers(list(headers)), *more)

        return [self.body(b"".join(self.respond(request, refusal, environ, start)))]


class newer(changing):  # noqa: N801  as above
    def __init__(self, server: AWSServer, path: str, when: str) -> None:
        super().__init__(server, path)
        self.when = when

    def headers(self, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(k, self.when if k.lower() == "last-modified" else v) for k, v in found]


class breaking_off(changing):  # noqa: N801  as above
    def __init__(self, server: AWSServer, path: str, times: int) -> None:
        super().__init__(server, path)
        self.times = times

    def body(self, whole: bytes) -> bytes:
        self.times -= 1
        return whole if self.times < 0 else whole[: len(whole) // 2]
