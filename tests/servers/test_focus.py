"""FOCUS before the judge and over the wire: the official validator, and files in object storage.

S3 is moto's under unmodified boto3, and for what moto does not do wrong a small one of the test's
own (`tests.servers.s3_pages`).
"""

from __future__ import annotations

import os
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from costinsights.billing import Pulled, open_bill, pull
from costinsights_exporters.focus import FOCUSExporter, FOCUSOptions
from tests.backends import unavailable
from tests.focus_ledger import bills, calls
from tests.focus_rows import as_csv, as_parquet, november, row
from tests.focus_validator import NOT_INVOICED, PARTLY_INVOICED, failures, installed
from tests.processes import Unavailable
from tests.pullers import NOW
from tests.servers import azurite_server as azurite
from tests.servers.aws_server import REGION, aws_server
from tests.servers.gcs_server import gcs_server
from tests.servers.s3_pages import S3Pages, Trouble, s3_pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "bills"
OCTOBER = "focus/BILLING_PERIOD=2026-10/a.csv.gz"
NOVEMBER = "focus/BILLING_PERIOD=2026-11/b.parquet"
# What FOCUS asks of providers that have such a thing, as the ledger of the test has all of them.
# Not here: COMMITMENT_DISCOUNT_ and CAPACITY_RESERVATION_SUPPORTED, whose rules the validator has
# wrong (it looks at rows *without* an id), PUBLIC_PRICE_LIST_SUPPORTED, for which it asks for prices
# in another currency, and those of which our ledger has nothing: names and kinds of accounts,
# currencies that differ or are virtual.
CRITERIA = (
    "AVAILABILITY_ZONE_SUPPORTED",
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED",
    "MULTIPLE_PRICING_CATEGORIES_SUPPORTED",
    "REGION_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "SUB_ACCOUNT_SUPPORTED",
    "TAGGING_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
)


# -- the validator --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a ledger with every kind of charge."""
    try:
        installed()
    except Unavailable as reason:
        unavailable("FOCUS's validator", reason)
    place = tmp_path_factory.mktemp("focus")
    ledger = str(place / "ledger")
    calls(ledger)
    bills(ledger)
    FOCUSExporter(FOCUSOptions(str(place), ("parquet",), ledger)).write()
    (path,) = place.glob("*/focus.parquet")
    categories = duckdb.execute(
        f"SELECT list(DISTINCT ChargeCategory), list(DISTINCT x_Basis), list(DISTINCT ProviderName), "
        f"count(ChargeClass), count(DISTINCT CommitmentDiscountStatus) FROM '{path}'"
    ).fetchone()
    assert categories is not None
    assert set(categories[0]) == {"Usage", "Purchase", "Tax", "Credit", "Adjustment"}
    assert set(categories[1]) == {"estimated", "metered", "allocated", "billed", "unknown"}
    assert {"AWS", "Microsoft", "Google Cloud", "Self-hosted"} <= set(categories[2])
    assert categories[3:] == (1, 2)
    return path


def test_the_official_validator_finds_nothing(exported: Path) -> None:
    assert failures(exported, *CRITERIA) == NOT_INVOICED


def test_what_is_wrong_is_found_and_invoices_on_some_rows_are_a_false_alarm(exported: Path) -> None:
    path = exported.with_name("wrong.parquet")
    duckdb.execute(
        f"COPY (SELECT * REPLACE (CASE WHEN BilledCost > 0 THEN 'i-1' END AS InvoiceId, "
        f"'Sometimes' AS ChargeFrequency) FROM '{exported}') TO '{path}' (FORMAT parquet)"
    )
    found = failures(path)
    assert found > PARTLY_INVOICED
    assert {rule.partition("-")[0] for rule in found - PARTLY_INVOICED} == {"ChargeFrequency"}


# -- object storage -------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-77ac")
    monkeypatch.setattr("costinsights.asking.sleep", at_once)
    return str(tmp_path / "ledger")


def at_once(_seconds: float) -> None:
    """Wait for nothing."""


def run(ledger: str, url: str, path: str = f"s3://{BUCKET}/focus", **more: Any) -> Pulled:
    options = {"endpoint_url": url, "region": REGION}
    return pull(
        "focus", path=path, ledger=ledger, now=NOW, config={"pull": {"focus": options}}, **more
    )


def billed(ledger: str) -> list[tuple[Any, ...]]:
    with open_bill(ledger) as found:
        return found.fetch("SELECT count(*), sum(BilledCost) FROM bill")


def test_files_in_s3_are_listed_fetched_and_known_the_next_time(
    ledger: str, tmp_path: Path
) -> None:
    with aws_server() as aws:
        client = aws.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for key, path in {
            OCTOBER: as_csv(tmp_path / "a.csv.gz", [row(), row()]),
            NOVEMBER: as_parquet(tmp_path / "b.parquet", [november()]),
            "focus/metadata/manifest.json": as_csv(tmp_path / "c.csv", [row()]),
            "focus/_partial/d.csv": tmp_path / "c.csv",
            "focus-old/e.csv": tmp_path / "c.csv",
        }.items():
            client.upload_file(str(path), BUCKET, key)
        aws.requests.clear()
        report = run(ledger, aws.url, restate=True)
        assert (report.slices, report.rows, report.requests) == (2, 3, 3)
        assert billed(ledger) == [(3, Decimal("4.5"))]
        seen = [request.operation for request in aws.asked("s3")]
        assert seen == [f"GET /{BUCKET}", f"GET /{BUCKET}/{OCTOBER}", f"GET /{BUCKET}/{NOVEMBER}"]
        # Unchanged: listed, and not read.
        aws.requests.clear()
        report = run(ledger, aws.url, restate=True)
        assert (report.unchanged, report.published) == (2, 0)
        assert [request.operation for request in aws.asked("s3")] == [f"GET /{BUCKET}"]
        client.upload_file(
            str(as_csv(tmp_path / "a.csv.gz", [row()])),
            BUCKET,
            OCTOBER,
        )
        report = run(ledger, aws.url, restate=True)
        assert (report.unchanged, report.published) == (1, 1)
        assert billed(ledger) == [(2, Decimal(3))]
        # One object alone, by its whole name.
        assert run(ledger, aws.url, f"s3://{BUCKET}/focus-old/e.csv").slices == 1
        assert "NoSuchBucket" in run(ledger, aws.url, "s3://nobodys/focus").failed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[S3Pages]:
    """Seven files of a day each, two to a page."""
    with s3_pages(page=2) as found:
        for number in range(7):
            path = as_csv(tmp_path / f"{number}.csv", [november(BilledCost=str(number))])
            found.objects[f"focus/{number}.csv"] = path.read_bytes()
        yield found


WHOLE = [(7, Decimal(21))]
NOTHING = [(0, None)]


def test_pages_are_followed_to_their_end(ledger: str, store: S3Pages) -> None:
    assert run(ledger, store.url).rows == 7
    assert billed(ledger) == WHOLE
    assert store.operations() == {"list": 4, "get": 7}
    assert set(store.methods) == {"GET"}


# None is an answer as it should be. Each request is tried eight times.
PASSING = (
    Trouble(429, "TooManyRequests", after="0"),
    Trouble(429, "TooManyRequests"),
    Trouble(503, "SlowDown", after="99999999"),
    Trouble(503, "SlowDown", after="yesterday"),
    None,
    *[Trouble(500, "InternalError")] * 5,
    None,
    Trouble(0, "reset"),
    Trouble(200, "cut"),
    None,
    Trouble(403, "ExpiredToken"),
)


@pytest.mark.parametrize("where", ["list", "get"])
def test_what_passes_changes_nothing(ledger: str, store: S3Pages, where: str) -> None:
    store.troubles[where] = list(PASSING)
    report = run(ledger, store.url)
    assert not report.failed, report.failed
    assert not store.troubles[where]
    assert billed(ledger) == WHOLE


def test_what_does_not_pass_is_said_and_the_next_run_goes_on(ledger: str, store: S3Pages) -> None:
    store.troubles["get"] = [Trouble(503, "SlowDown")] * 8
    assert "SlowDown, 8 times" in run(ledger, store.url).failed
    assert billed(ledger) == NOTHING
    assert run(ledger, store.url).rows == 7
    assert billed(ledger) == WHOLE


@pytest.mark.parametrize("where", ["list", "get"])
def test_a_missing_permission_is_named_and_nothing_counts(
    ledger: str, store: S3Pages, where: str
) -> None:
    store.troubles[where] = [Trouble(403, "AccessDenied")]
    report = run(ledger, store.url)
    assert "no permission" in report.failed
    assert "s3:ListBucket" in report.grant
    assert "s3cr3t" not in str(report)
    assert billed(ledger) == NOTHING
    assert run(ledger, store.url).rows == 7
    assert billed(ledger) == WHOLE


@pytest.mark.parametrize("tokens", [["t1", "t1"], ["t1", "t2", "t3", "t1"]], ids=["same", "cycle"])
def test_a_list_that_comes_round_is_no_list(ledger: str, store: S3Pages, tokens: list[str]) -> None:
    store.tokens = tokens
    assert "for the second time" in run(ledger, store.url).failed
    assert billed(ledger) == NOTHING


def test_a_list_that_breaks_off_is_no_list(ledger: str, store: S3Pages) -> None:
    store.tokens = ["t1", ""]
    assert "breaks off" in run(ledger, store.url).failed
    assert billed(ledger) == NOTHING


def test_an_empty_page_with_a_token_is_not_the_end(ledger: str, store: S3Pages) -> None:
    store.empty_first = True
    assert run(ledger, store.url).rows == 7
    assert billed(ledger) == WHOLE


def test_an_object_that_changes_after_it_was_listed_is_no_part_of_it(
    ledger: str, store: S3Pages
) -> None:
    store.changing = "focus/3.csv"
    report = run(ledger, store.url)
    assert "PreconditionFailed" in report.failed
    assert billed(ledger) == NOTHING
    assert run(ledger, store.url).rows == 7
    assert billed(ledger) == [(7, Decimal("22.5"))]


def test_what_was_fetched_is_gone_in_the_end(
    ledger: str, store: S3Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    run(ledger, store.url)
    assert os.listdir(scratch) == []


# -- the other clouds -----------------------------------------------------------------------------


def test_files_in_cloud_storage(
    ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        with gcs_server() as proxy:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
            monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
            storage: Any = import_module("google.cloud.storage")
            bucket = storage.Client().create_bucket(BUCKET)
            for key, data in files(tmp_path).items():
                bucket.blob(key).upload_from_string(data)
            proxy.seen.clear()
            _pulled_twice(ledger, f"gs://{BUCKET}/focus")
            assert {request.method for request in proxy.seen} == {"GET"}
    except Unavailable as reason:
        unavailable("fake-gcs-server", reason)


def test_files_in_azure(ledger: str, tmp_path: Path) -> None:
    try:
        with azurite.azurite_server() as proxy:
            connection = (
                f"DefaultEndpointsProtocol=http;AccountName={azurite.ACCOUNT};"
                f"AccountKey={azurite.KEY};BlobEndpoint={proxy.url}/{azurite.ACCOUNT};"
            )
            blob: Any = import_module("azure.storage.blob")
            container = blob.BlobServiceClient.from_connection_string(connection)
            container = container.create_container(BUCKET)
            for key, data in files(tmp_path).items():
                container.upload_blob(key, data)
            proxy.seen.clear()
            options = {"pull": {"focus": {"connection_string": connection}}}
            _pulled_twice(ledger, f"az://{BUCKET}/focus", config=options)
            assert {request.method for request in proxy.seen} == {"GET"}
            assert "account_url" in pull("focus", path="az://x/y", ledger=ledger, now=NOW).failed
    except Unavailable as reason:
        unavailable("Azurite", reason)


def files(place: Path) -> dict[str, bytes]:
    """Two files of a folder, and one that is beside it."""
    october = as_csv(place / "a.csv.gz", [row(), row()]).read_bytes()
    november_ = as_parquet(place / "b.parquet", [november()]).read_bytes()
    return {OCTOBER: october, NOVEMBER: november_, "focus-old/a.csv.gz": october}


def _pulled_twice(ledger: str, path: str, **more: Any) -> None:
    report = pull("focus", path=path, ledger=ledger, now=NOW, restate=True, **more)
    assert (report.failed, report.slices, report.rows) == ("", 2, 3)
    assert billed(ledger) == [(3, Decimal("4.5"))]
    report = pull("focus", path=path, ledger=ledger, now=NOW, restate=True, **more)
    assert (report.unchanged, report.published, report.requests) == (2, 0, 1)
