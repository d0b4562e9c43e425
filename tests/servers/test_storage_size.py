"""`costinsights storage size`: CloudWatch on moto, Cloud Monitoring and Azure Monitor on the wire."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from costinsights import asking
from costinsights.buckets import Sized, sizes
from costinsights.buckets.aws_s3 import TYPES
from costinsights.buckets.places import place_of
from costinsights.cli.app import cli
from costinsights.config import load
from costinsights.pricing import PriceBook
from costinsights.vendor import VendorError
from tests.servers.aws_server import AWSServer, aws_server
from tests.servers.aws_server import Refusal as AWSRefusal
from tests.servers.monitoring_server import (
    SUBSCRIPTION,
    Monitoring,
    Refusal,
    Series,
    Tier,
    monitoring_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GIB = 2**30
NOW = datetime(2026, 11, 20, 12, 30, tzinfo=timezone.utc)
TODAY, BEFORE = "2026-11-20T00:00:00Z", "2026-11-19T00:00:00Z"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(asking, "sleep", list[float]().append)


@pytest.fixture(scope="module")
def aws() -> Iterator[AWSServer]:
    with aws_server() as server:
        yield server


@pytest.fixture
def there() -> Iterator[Monitoring]:
    with monitoring_server() as server:
        yield server


def options(aws_url: str = "", url: str = "", **more: Any) -> dict[str, Any]:
    return {
        "aws.s3": {"endpoint_url": aws_url, "region": "us-east-1"},
        "gcp.storage": {
            "project": "shop",
            "monitoring_url": url,
            "storage_url": url,
            "token": "not-a-secret",
        },
        "azure.storage": {
            "subscriptions": [SUBSCRIPTION],
            "endpoint_url": url,
            "token": "not-a-secret",
        },
        **more,
    }


def asked(*urls: str, aws_url: str = "", url: str = "", **more: Any) -> list[Sized]:
    config = load(config={"storage": options(aws_url, url)})
    assert not config.problems
    return list(sizes(urls, config=config, now=more.pop("now", NOW), **more))


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "system", "name", "container"),
    [
        ("s3://lake", "aws.s3", "lake", ""),
        ("s3a://lake/raw/2026", "aws.s3", "lake", ""),
        ("gs://logs", "gcp.storage", "logs", ""),
        ("az://account1", "azure.storage", "account1", ""),
        ("az://raw@account1", "azure.storage", "account1", "raw"),
        ("abfss://raw@account1.dfs.core.windows.net/x/y", "azure.storage", "account1", "raw"),
        ("https://account1.blob.core.windows.net/raw/x", "azure.storage", "account1", "raw"),
        ("wasbs://raw@account1.blob.core.chinacloudapi.cn", "azure.storage", "account1", "raw"),
    ],
)
def test_addresses(url: str, system: str, name: str, container: str) -> None:
    assert place_of(url) == (url, system, name, container)


@pytest.mark.parametrize(
    "url", ["lake", "ftp://lake", "s3://", "az://A_B", "https://example.com/raw", "az://a"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(VendorError, match="s3://BUCKET"):
        place_of(url)


# --- S3 ------------------------------------------------------------------------------------------


def seed(
    aws: AWSServer, figures: dict[str, float], objects: float | None, at: datetime = NOW
) -> None:
    """Have CloudWatch answer with these, by storage type, as of the midnight before `at`."""
    midnight = at.replace(hour=0, minute=0, second=0)
    metrics = [("BucketSizeBytes", kind, size) for kind, size in figures.items()]
    if objects is not None:
        metrics.append(("NumberOfObjects", "AllStorageTypes", objects))

    def list_metrics(request: dict[str, Any]) -> Any:
        assert request["Namespace"] == "AWS/S3"
        bucket = request["Dimensions"][0]["Value"]
        first = int(request.get("NextToken", "0"))
        page: dict[str, Any] = {
            "Metrics": [
                {
                    "Namespace": "AWS/S3",
                    "MetricName": name,
                    "Dimensions": [
                        {"Name": "StorageType", "Value": kind},
                        {"Name": "BucketName", "Value": bucket},
                    ],
                }
                for name, kind, _ in metrics[first : first + 2]
            ]
        }
        if first + 2 < len(metrics):
            page["NextToken"] = str(first + 2)
        return page

    def statistics(request: dict[str, Any]) -> Any:
        kind = next(one["Value"] for one in request["Dimensions"] if one["Name"] == "StorageType")
        size = next(
            size for name, of, size in metrics if (name, of) == (request["MetricName"], kind)
        )
        points = [(midnight - timedelta(days=1), size / 2), (midnight, size)]
        return {
            "Label": request["MetricName"],
            "Datapoints": [
                {"Timestamp": moment.timestamp(), "Average": value, "Unit": "Bytes"}
                for moment, value in points
            ],
        }

    aws.answer("monitoring", "ListMetrics", list_metrics)
    aws.answer("monitoring", "GetMetricStatistics", statistics)


@pytest.fixture
def lake(aws: AWSServer) -> str:
    client = aws.client("s3")
    client.create_bucket(Bucket="lake")
    client.close()
    aws.requests.clear()
    return "s3://lake"


def test_s3_by_class_from_cloudwatch(aws: AWSServer, lake: str) -> None:
    seed(
        aws, {"StandardStorage": 100 * GIB, "StandardIAStorage": 10 * GIB, "GlacierStorage": 0}, 42
    )
    (found,) = asked(lake, aws_url=aws.url)
    assert (found.source, found.region, found.objects) == ("CloudWatch", "us-east-1", 42)
    assert found.at == NOW.replace(hour=0, minute=0)
    assert [(one.name, one.bytes, one.amount) for one in found.held] == [
        ("GlacierStorage", 0, "0.00"),
        ("StandardIAStorage", 10 * GIB, "0.125"),
        ("StandardStorage", 100 * GIB, "2.30"),
    ]
    assert found.amounts == {"USD": Decimal("2.425")}
    # One HEAD, two pages of metrics, and a figure for each: nothing was listed.
    assert aws.counts("monitoring") == {"ListMetrics": 2, "GetMetricStatistics": 4}
    assert [one.operation for one in aws.asked("s3")] == ["HEAD /lake"]
    assert found.requests == 7


def test_every_storage_type_of_cloudwatch_is_priced_as_a_class(aws: AWSServer, lake: str) -> None:
    seed(aws, {**dict.fromkeys(TYPES, float(GIB)), "TypeOfTomorrow": GIB}, None)
    (found,) = asked(lake, aws_url=aws.url)
    amounts = {one.name: one.amount for one in found.held}
    assert set(amounts) == {*TYPES, "TypeOfTomorrow"}
    assert amounts["TypeOfTomorrow"] is None
    assert amounts["GlacierS3ObjectOverhead"] == amounts["StandardStorage"] == "0.023"
    assert amounts["IntelligentTieringIAStorage"] == "0.0125"
    reasons = {one.name: one.reason for one in found.held}
    assert "TypeOfTomorrow" in reasons["TypeOfTomorrow"]
    assert found.objects is None


def test_what_was_emptied_has_no_figure(aws: AWSServer, lake: str) -> None:
    seed(aws, {}, None)
    (found,) = asked(lake, aws_url=aws.url)
    assert (found.bytes, found.at, found.held) == (None, None, ())
    assert "no figure" in found.notes[0]


def test_a_bucket_that_is_not_there(aws: AWSServer) -> None:
    aws.requests.clear()
    (found,) = asked("s3://nobodys", aws_url=aws.url)
    assert found.error == "there is no bucket nobodys"
    assert not found.whole
    assert aws.counts("monitoring") == {}


def test_cloudwatch_is_asked_again_when_it_is_busy(aws: AWSServer, lake: str) -> None:
    seed(aws, {"StandardStorage": GIB}, 1)
    aws.refuse("monitoring", "ListMetrics", AWSRefusal("ThrottlingException", status=400))
    aws.refuse("monitoring", "GetMetricStatistics", AWSRefusal("InternalServiceError", status=500))
    (found,) = asked(lake, aws_url=aws.url)
    assert found.amounts == {"USD": Decimal("0.023")}
    assert found.requests == 1 + 2 + 3


def test_without_permission_the_exact_policy_is_said(aws: AWSServer, lake: str) -> None:
    aws.refuse("monitoring", "ListMetrics", AWSRefusal("AccessDeniedException"))
    (found,) = asked(lake, aws_url=aws.url)
    assert "no permission" in found.error
    assert "cloudwatch:GetMetricStatistics" in found.grant


def test_a_list_of_s3_says_before_what_it_takes(aws: AWSServer, lake: str) -> None:
    client = aws.client("s3")
    for number in range(7):
        client.put_object(
            Bucket="lake",
            Key=str(number),
            Body=b"x" * 100,
            StorageClass="STANDARD" if number else "STANDARD_IA",
        )
    client.close()
    seed(aws, {"StandardStorage": 700}, 2500)
    aws.requests.clear()
    said: list[str] = []
    (found,) = asked(lake, aws_url=aws.url, listing=True, cap=2, said=said.append)
    assert "".join(said) == (
        "s3://lake: 2,500 objects; a list takes 2 requests, for 0.00001 USD and is cut off there: "
        "whole it takes 3"
    )
    assert [(one.name, one.bytes, one.objects) for one in found.held] == [
        ("STANDARD", 600, 6),
        ("STANDARD_IA", 100, 1),
    ]
    assert found.whole  # there are fewer than CloudWatch said yesterday
    assert sum(
        "list-type" in one.operation or one.operation == "GET /lake" for one in aws.asked("s3")
    )


def test_a_list_of_s3_is_cut_off_by_its_cap(
    aws: AWSServer, lake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costinsights.buckets.aws_s3.S3Size.page_size", 2)
    client = aws.client("s3")
    for number in range(7):
        client.put_object(Bucket="lake", Key=str(number), Body=b"x")
    client.close()
    seed(aws, {}, None)
    for cap, objects, whole in ((3, 6, False), (4, 7, True)):
        aws.requests.clear()
        (found,) = asked(lake, aws_url=aws.url, listing=True, cap=cap)
        assert (found.objects, found.whole) == (objects, whole)
        assert len([one for one in aws.asked("s3") if one.operation.startswith("GET")]) == cap
        assert ("cut off" in found.notes[0]) is not whole


# --- Cloud Storage -------------------------------------------------------------------------------


def test_cloud_storage_by_class_from_cloud_monitoring(there: Monitoring) -> None:
    there.buckets["logs"] = (
        "europe-west1",
        [
            Series("STANDARD", "live-object", {BEFORE: GIB, TODAY: 50 * GIB}, {TODAY: 5}),
            Series("NEARLINE", "live-object", {TODAY: 10 * GIB}, {TODAY: 7}),
            Series("NEARLINE", "noncurrent-object", {TODAY: 2 * GIB}, {TODAY: 2}),
            Series("COLDLINE", "live-object", {BEFORE: 3 * GIB}, {BEFORE: 1}),  # gone since
        ],
    )
    there.page = 2
    (found,) = asked("gs://logs", url=there.url)
    assert (found.source, found.region, found.objects) == ("Cloud Monitoring", "europe-west1", 14)
    assert [(one.name, one.bytes, one.objects, one.amount) for one in found.held] == [
        ("NEARLINE", 10 * GIB, 7, "0.10"),
        ("NEARLINE (noncurrent-object)", 2 * GIB, 2, "0.02"),
        ("STANDARD", 50 * GIB, 5, "1.00"),
    ]
    assert found.requests == 4  # two pages each of sizes and counts
    assert there.tokens == {"Bearer not-a-secret"}


def test_a_bucket_that_cloud_monitoring_does_not_know(there: Monitoring) -> None:
    (found,) = asked("gs://nobodys", url=there.url)
    assert (found.bytes, found.error) == (None, "")
    assert "another project's" in found.notes[0]


@pytest.mark.parametrize("first", [429, 500, 503, 0])
def test_cloud_monitoring_is_asked_again(there: Monitoring, first: int) -> None:
    there.buckets["logs"] = (
        "us-east4",
        [Series("STANDARD", "live-object", {TODAY: GIB}, {TODAY: 1})],
    )
    there.refuse("timeSeries", Refusal(first, (("Retry-After", "99999999"),)))
    (found,) = asked("gs://logs", url=there.url)
    assert found.amounts == {"USD": Decimal("0.023")}
    assert found.requests == 3


def test_cloud_monitoring_may_refuse(there: Monitoring) -> None:
    there.refuse("timeSeries", Refusal(403))
    (found,) = asked("gs://logs", url=there.url)
    assert "no permission" in found.error
    assert "roles/monitoring.viewer" in found.grant
    assert "not-a-secret" not in found.error


def test_a_list_of_cloud_storage(there: Monitoring) -> None:
    there.buckets["logs"] = ("us-east4", [])
    there.objects["logs"] = [(100, "STANDARD")] * 5 + [(7, "ARCHIVE")]
    there.page = 2
    said: list[str] = []
    (found,) = asked("gs://logs", url=there.url, listing=True, cap=2, said=said.append)
    assert said[0].startswith("gs://logs: how many objects it has is not known; a list takes 2 ")
    assert (found.objects, found.whole, found.region) == (4, False, "us-east4")
    (found,) = asked("gs://logs", url=there.url, listing=True, cap=3)
    assert (found.objects, found.whole) == (6, True)
    assert [(one.name, one.bytes) for one in found.held] == [("ARCHIVE", 7), ("STANDARD", 500)]


# --- Azure ---------------------------------------------------------------------------------------


def hours(*figures: float | None) -> dict[str, float | None]:
    return {f"2026-11-20T{10 + number:02}:00:00Z": size for number, size in enumerate(figures)}


def test_azure_by_tier_from_azure_monitor(there: Monitoring) -> None:
    there.account("elsewhere", "northeurope")
    there.account("account1", "westus")
    there.tiers["account1"] = [
        Tier("Hot", "BlockBlob", hours(GIB, 100 * GIB, None), hours(1, 3, None)),
        Tier("Hot", "AppendBlob", hours(0, GIB, None), hours(0, 1, None)),
        Tier("Cool", "BlockBlob", hours(GIB, 10 * GIB, None), hours(1, 2, None)),
        Tier("Untiered", "PageBlob", hours(None, GIB, None), hours(None, 1, None)),
    ]
    there.page = 1
    (found,) = asked("az://account1", url=there.url)
    assert (found.source, found.region, found.objects) == ("Azure Monitor", "westus", 7)
    assert found.at == datetime(2026, 11, 20, 11, tzinfo=timezone.utc)
    assert [(one.name, one.bytes, one.objects, one.amount) for one in found.held] == [
        ("Cool", 10 * GIB, 2, "0.115"),
        ("Hot", 101 * GIB, 4, "2.1008"),
        ("Untiered", GIB, 1, None),
    ]
    assert found.requests == 3
    assert [one.path.rpartition("/")[2] for one in there.asked] == [
        "storageAccounts",
        "storageAccounts",
        "metrics",
    ]


def test_a_container_is_not_what_azure_monitor_knows(there: Monitoring) -> None:
    there.account("account1", "westus", hns=True)
    there.tiers["account1"] = [Tier("Hot", "BlockBlob", hours(GIB), hours(1))]
    (found,) = asked("abfss://raw@account1.dfs.core.windows.net", url=there.url)
    assert "not its containers" in found.notes[0]
    assert found.held[0].amount is None  # the book has no price of a hierarchical one in westus
    assert found.held[0].reason


def test_an_account_that_is_nowhere(there: Monitoring) -> None:
    (found,) = asked("az://account1", url=there.url)
    assert "there is no storage account account1" in found.error


@pytest.mark.parametrize("first", [429, 500, 0])
def test_azure_monitor_is_asked_again(there: Monitoring, first: int) -> None:
    there.account("account1", "westus")
    there.tiers["account1"] = [Tier("Hot", "BlockBlob", hours(GIB), hours(1))]
    there.refuse("metrics", Refusal(first, (("Retry-After", "-5"),)))
    (found,) = asked("az://account1", url=there.url)
    assert found.amounts == {"USD": Decimal("0.0208")}


def test_the_list_of_accounts_does_not_lead_elsewhere(there: Monitoring) -> None:
    there.account("one", "westus")
    there.account("two", "westus")
    there.page = 1
    there.url = "http://169.254.169.254"  # where its next link now points to
    (found,) = asked("az://account1", url=f"http://127.0.0.1:{there.port}")
    assert "another host" in found.error


# --- several, and the command --------------------------------------------------------------------


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], *arguments: str
) -> Any:
    lines = [
        f'[storage."{system}"]\n'
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for system, table in settings.items()
    ]
    (tmp_path / "costinsights.toml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return CliRunner().invoke(cli, ["storage", "size", *arguments])


def test_the_command(
    aws: AWSServer, lake: str, there: Monitoring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(timezone.utc)
    at = now.replace(minute=0, second=0, microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ")
    seed(aws, {"StandardStorage": 100 * GIB, "TypeOfTomorrow": GIB}, 42, at=now)
    there.buckets["logs"] = (
        "us-east4",
        [Series("STANDARD", "live-object", {at: 10 * GIB}, {at: 3})],
    )
    settings = options(aws.url, there.url)
    done = run(tmp_path, monkeypatch, settings, lake, "gs://logs")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.output.splitlines() if " " in line]
    assert ["s3://lake", "StandardStorage", "us-east-1", "—", "100.0", "GiB", "$2.30"] in rows
    assert ["s3://lake", "TypeOfTomorrow", "us-east-1", "—", "1.0", "GiB", "—"] in rows
    assert ["gs://logs", "STANDARD", "us-east4", "3", "10.0", "GiB", "$0.23"] in rows
    assert ["total", "111.0", "GiB", "$2.53"] in rows
    assert "— has no price, and is not in the total" in done.output
    ends = [
        len(line) for line in done.output.splitlines() if line.endswith(("$2.30", "$0.23", "$2.53"))
    ]
    assert len(ends) == 3
    assert len(set(ends)) == 1  # money is right-aligned

    done = run(tmp_path, monkeypatch, settings, lake, "gs://logs", "--format", "json")
    found = json.loads(done.output)
    assert [one["url"] for one in found] == [lake, "gs://logs"]
    assert found[0]["held"][0]["amount"] == "2.30"
    assert found[0]["bytes"] == 101 * GIB
    assert found[1]["held"][0]["price"] == "gcp.storage.standard.storage/us-east4"

    done = run(tmp_path, monkeypatch, settings, "s3://nobodys", "gs://logs")
    assert done.exit_code == 1
    assert "there is no bucket nobodys" in done.output
    assert "$0.23" in done.output  # the other one is told all the same


def test_usage_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(tmp_path, monkeypatch, {}, "lake")
    assert (done.exit_code, "'lake' is no bucket" in done.output) == (2, True)
    done = run(tmp_path, monkeypatch, {"aws.s3": {"regoin": "x"}}, "s3://lake")
    assert done.exit_code == 2
    assert "regoin" in done.output


def test_a_price_of_the_question_itself_is_used_where_a_book_has_one(
    aws: AWSServer, lake: str, tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        """
[[price]]
key = "own.cloudwatch"
provider = "aws"
service = "CloudWatch"
system = "aws.cloudwatch"
meter = "requests"
region = "everywhere"
regions = ["*"]
unit = "1k requests"
price = "0.01"
currency = "USD"
as_of = "2026-11-01"
source = "a test"
""",
        encoding="utf-8",
    )
    seed(aws, {"StandardStorage": GIB}, 1)
    (found,) = asked(lake, aws_url=aws.url, book=PriceBook.load(str(own)))
    # Three of CloudWatch, and one HEAD of the bucket.
    assert found.cost is not None
    assert Decimal(found.cost) == 3 * Decimal("0.00001") + Decimal("0.0000004")
    (found,) = asked(lake, aws_url=aws.url)
    assert found.cost is None
