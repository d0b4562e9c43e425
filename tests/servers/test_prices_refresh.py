"""`costinsights prices refresh`, asked for over the wire: files, pages, faults, and what is in doubt."""

from __future__ import annotations

import gc
import json
import os
import sys
import tracemalloc
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from costinsights import asking
from costinsights.cli.prices import prices
from costinsights.pricing import PriceBook
from costinsights.pricing.refresh import Place, RefreshError, base, refresh
from costinsights.pricing.refreshing import azure as azure_prices
from costinsights.pricing.refreshing import gcp as google_prices
from costinsights.pricing.refreshing.aws import AWSPrices
from costinsights.pricing.refreshing.azure import AzurePrices
from costinsights.pricing.refreshing.databricks import DatabricksPrices
from costinsights.pricing.refreshing.fetching import TooMuch
from costinsights.pricing.refreshing.gcp import GooglePrices
from tests.servers.databricks_server import serving
from tests.servers.price_list_server import (
    Answer,
    Asked,
    Fault,
    PriceLists,
    Row,
    catalog,
    item,
    offer_file,
    offer_path,
    price_lists,
    retail,
    sku,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.pricing.refresh import Refreshed

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)
EAST = "us-east-1"
S3 = offer_path("AmazonS3", EAST)
GLACIERS = ("AmazonGlacier", "AmazonS3GlacierDeepArchive")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the test's own, credentials that no vendor has given, and no waiting."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("COSTINSIGHTS_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("GOOGLE_API_KEY", "a-key-of-the-test")
    monkeypatch.setattr(asking, "sleep", list[float]().append)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def lists() -> Iterator[PriceLists]:
    with price_lists() as served:
        yield served


def s3_rows(**prices: str) -> list[Row]:
    """S3's file, cut to some lines; a usage type's price may be said."""
    standard = {"Volume Type": "Standard", "Location": "US East (N. Virginia)"}
    usual = {
        "Requests-Tier1": "0.0000050000",
        "Requests-Tier2": "0.0000004000",
        "Requests-SIA-Tier1": "0.0000100000",
        "Requests-SIA-Tier2": "0.0000010000",
    }
    rows = [
        Row("STD", "TimedStorage-ByteHrs", "0.0230000000", "GB-Mo", "0", "51200", more=standard),
        Row(
            "STD", "TimedStorage-ByteHrs", "0.0220000000", "GB-Mo", "51200", "512000", more=standard
        ),
        Row("STD", "TimedStorage-ByteHrs", "0.0210000000", "GB-Mo", "512000", more=standard),
        Row("TABLES", "Tables-TimedStorage-ByteHrs", "0.0265", "GB-Mo", more=standard),
        Row("OTHER", "USE2-Requests-Tier1", "9", "Requests"),
        Row("RES", "Requests-Tier1", "0.001", "Requests", term="Reserved"),
        Row("TAGS", "Requests-Tier1", "0.002", "Requests", more={"operation": "PutTags"}),
    ]
    return rows + [
        Row(f"SKU-{usage}", usage, price, "Requests")
        for usage, price in {**usual, **prices}.items()
        if price
    ]


def serve_s3(lists: PriceLists, rows: list[Row] | None = None) -> None:
    lists.file(S3, offer_file("AmazonS3", EAST, s3_rows() if rows is None else rows))
    for service in GLACIERS:
        lists.file(offer_path(service, EAST), offer_file(service, EAST, []))


def from_aws(lists: PriceLists, book: PriceBook | None = None, **more: Any) -> Refreshed:
    places = [Place(EAST, "aws.s3")]
    options = {name: more.pop(name) for name in ("most_bytes",) if name in more}
    reader = AWSPrices(endpoint=lists.base, **options)
    return refresh("aws", reader, book or PriceBook.load(), places, now=NOW, **more)


def kinds(found: Refreshed) -> dict[str, str]:
    return {one.key: one.kind for one in found.findings if one.kind != "gone"}


def run(*args: str) -> Any:
    return CliRunner().invoke(prices, ["refresh", *args])


# -- AWS --------------------------------------------------------------------------------------------


def test_aws_files_give_prices_in_the_units_of_the_book(lists: PriceLists) -> None:
    serve_s3(lists, s3_rows(**{"Requests-Tier1": "0.0000060000"}))
    found = from_aws(lists)
    assert kinds(found) == {
        "aws.s3.standard.storage/us-east-1": "same",
        "aws.s3.standard.storage.next_450_tb/us-east-1": "same",
        "aws.s3.standard.storage.over_500_tb/us-east-1": "same",
        "aws.s3.standard.tier1/us-east-1": "changed",
        "aws.s3.standard.tier2/us-east-1": "same",
        "aws.s3.standard_ia.tier1/us-east-1": "same",
        "aws.s3.standard_ia.tier2/us-east-1": "same",
    }
    lines = {line.key: line for line in found.lines}
    tier1 = lines["aws.s3.standard.tier1/us-east-1"]
    assert (tier1.price, tier1.unit, tier1.as_of) == (Decimal("0.006"), "1k requests", "2026-11-23")
    assert "SKU-Requests-Tier1" in tier1.source
    assert "20261120205955" in tier1.source
    top = lines["aws.s3.standard.storage.over_500_tb/us-east-1"]
    assert (top.tier_from, top.tier_to) == (Decimal(512000), None)


def test_the_file_that_is_written_quotes_the_new_price(lists: PriceLists, tmp_path: Path) -> None:
    serve_s3(lists, s3_rows(**{"Requests-Tier1": "0.0000060000"}))
    path = tmp_path / "aws.toml"
    path.write_bytes(from_aws(lists).written)
    quote = PriceBook.load(path).quote("aws.s3", {"tier1_requests": 1000}, EAST)
    assert (quote.amount, quote.lines[0].as_of) == (Decimal("0.006"), "2026-11-23")
    stored = PriceBook.load(path).quote("aws.s3", {"storage_gb_months": 60_000}, EAST)
    assert stored.amount == Decimal(51200) * Decimal("0.023") + 8800 * Decimal("0.022")


def test_a_region_that_the_book_does_not_have_gets_lines_of_its_own(lists: PriceLists) -> None:
    rows = [row._replace(usage=f"EUC1-{row.usage}") for row in s3_rows() if row.sku != "OTHER"]
    for service in ("AmazonS3", *GLACIERS):
        path = offer_path(service, "eu-central-1")
        lists.file(path, offer_file(service, "eu-central-1", rows if service == "AmazonS3" else []))
    reader = AWSPrices(endpoint=lists.base)
    places = [Place("eu-central-1", "aws.s3")]
    found = refresh("aws", reader, PriceBook.load(), places, now=NOW)
    assert {one.kind for one in found.findings} == {"new", "absent"}
    assert "aws.s3.standard.storage.next_450_tb/eu-central-1" in {line.key for line in found.lines}
    assert {line.region for line in found.lines} == {"eu-central-1"}


def test_what_is_in_doubt_is_said_and_left_out_until_it_is_accepted(lists: PriceLists) -> None:
    rows = s3_rows(
        **{
            "Requests-Tier1": "0.0000600000",
            "Requests-Tier2": "0.0000000000",
            "Requests-SIA-Tier1": "",
        }
    )
    rows.append(Row("TWIN", "Requests-SIA-Tier2", "0.000002", "Requests"))
    serve_s3(lists, rows)
    found = from_aws(lists)
    by_key = {one.key.partition("/")[0]: one for one in found.findings}
    assert by_key["aws.s3.standard.tier1"].kind == "jump"
    assert by_key["aws.s3.standard.tier2"].kind == "zero"
    assert by_key["aws.s3.standard_ia.tier1"].kind == "gone"
    twice = by_key["aws.s3.standard_ia.tier2"]
    assert twice.kind == "twice"
    assert "SKU-Requests-SIA-Tier2" in twice.why
    assert "TWIN" in twice.why
    assert not any("tier" in line.key for line in found.lines)
    accepted = ("aws.s3.standard.tier1/us-east-1", "aws.s3.standard.tier2/us-east-1")
    taken = {line.key: line for line in from_aws(lists, accepted=accepted).lines}
    assert taken[accepted[0]].price == Decimal("0.06")
    assert taken[accepted[1]].free


def test_an_unknown_unit_and_another_currency_are_refused(lists: PriceLists) -> None:
    rows = [
        Row("A", "Requests-Tier1", "0.000005", "Bushels"),
        Row("B", "Requests-Tier2", "0.0000004", "Requests", currency="CNY"),
        Row("C", "Requests-SIA-Tier1", "0.00001", "GB-Mo"),
    ]
    serve_s3(lists, rows)
    found = kinds(from_aws(lists))
    assert found["aws.s3.standard.tier1/us-east-1"] == "unit"
    assert found["aws.s3.standard.tier2/us-east-1"] == "currency"
    assert found["aws.s3.standard_ia.tier1/us-east-1"] == "unit"


def test_a_first_tier_for_nothing_is_an_allowance(lists: PriceLists) -> None:
    rows = [
        Row("A", "Requests-Tier1", "0", "Requests", "0", "2000"),
        Row("A", "Requests-Tier1", "0.000005", "Requests", "2000"),
    ]
    serve_s3(lists, rows)
    (line,) = from_aws(lists).lines
    assert (line.price, line.allowance, line.tier_from) == (Decimal("0.005"), Decimal(2), None)


def test_a_second_run_asks_whether_anything_has_changed(lists: PriceLists) -> None:
    serve_s3(lists)
    first = from_aws(lists)
    before = len(lists.asked)
    reader = AWSPrices(endpoint=lists.base)
    second = refresh("aws", reader, PriceBook.load(), [Place(EAST, "aws.s3")], now=NOW)
    assert all("if-none-match" in asked.headers for asked in lists.asked[before:])
    assert (reader.unchanged, reader.read) == (3, 0)
    assert second.written == first.written
    serve_s3(lists, s3_rows(**{"Requests-Tier1": "0.000006"}))
    assert kinds(from_aws(lists))["aws.s3.standard.tier1/us-east-1"] == "changed"


def test_what_is_kept_is_the_users_alone_and_a_broken_copy_is_fetched_anew(
    lists: PriceLists, tmp_path: Path
) -> None:
    serve_s3(lists)
    whole = from_aws(lists).written
    kept = sorted((tmp_path / "cache" / "costinsights" / "prices").iterdir())
    assert {oct(path.stat().st_mode & 0o777) for path in kept} == {"0o600"}
    for path in kept:
        path.write_bytes(path.read_bytes()[:-20])
    assert from_aws(lists).written == whole


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(429)],
        [Fault(429, {"Retry-After": "1"})],
        [Fault(429, {"Retry-After": "99999999999"}), Fault(429, {"Retry-After": "soon"})],
        [Fault(500), Fault(502), Fault(503)],
        [Fault(cut=True)],
    ],
)
def test_faults_that_pass_change_nothing(lists: PriceLists, faults: list[Fault]) -> None:
    serve_s3(lists)
    undisturbed = from_aws(lists).written
    serve_s3(lists, [*s3_rows(), Row("MORE", "Nothing-Of-Ours", "1", "Requests")])
    lists.fault(*faults)
    assert from_aws(lists).written == undisturbed


@pytest.mark.parametrize("faults", [[Fault(503)] * 8, [Fault(403)], [Fault(cut=True)] * 8])
def test_faults_that_stay_are_said_and_no_file_is_written(
    lists: PriceLists, faults: list[Fault], tmp_path: Path
) -> None:
    serve_s3(lists)
    lists.fault(*faults)
    result = run("aws", "--region", EAST, "--system", "aws.s3", "--endpoint", lists.base)
    assert result.exit_code == 1
    assert "aws.price_list" in result.output
    assert not (tmp_path / "config").exists()
    cache = tmp_path / "cache" / "costinsights" / "prices"
    assert not any(path.name.count(".") > 1 for path in cache.iterdir())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is empty"),
        (b"<html>maintenance</html>\n", "no line that begins with SKU"),
        (
            offer_file("AmazonS3", EAST, s3_rows(), ("SKU", "TermType", "Unit")),
            "columns have changed",
        ),
        (offer_file("AmazonS3", EAST, s3_rows())[:-9], "ends in the middle of a line"),
        (offer_file("AmazonS3", EAST, s3_rows()) + b'"A","B"\n', "is not whole"),
        (
            offer_file("AmazonS3", EAST, s3_rows(**{"Requests-Tier1": "cheap"})),
            "'cheap' is no number",
        ),
        (offer_file("AmazonS3", EAST, s3_rows()) + b"\xff\n", "UTF-8"),
    ],
)
def test_a_list_that_is_not_as_it_was_is_refused(lists: PriceLists, body: bytes, said: str) -> None:
    serve_s3(lists)
    lists.file(S3, body)
    with pytest.raises(RefreshError, match=said):
        from_aws(lists)


def test_the_limit_of_bytes_holds_and_has_an_exit_code_of_its_own(lists: PriceLists) -> None:
    serve_s3(lists)
    with pytest.raises(TooMuch):
        from_aws(lists, most_bytes=1000)
    arguments = ("aws", "--region", EAST, "--system", "aws.s3", "--endpoint", lists.base)
    result = run(*arguments, "--max-bytes", "1000")
    assert (result.exit_code, "more than 1,000 bytes" in result.output) == (3, True)


def test_a_redirect_to_another_host_is_refused(lists: PriceLists) -> None:
    with price_lists() as elsewhere:
        serve_s3(elsewhere)
        lists.page(S3, lambda _: Answer(b"", 302, {"Location": elsewhere.base + S3}))
        with pytest.raises(RefreshError, match="another host"):
            from_aws(lists)
        assert not elsewhere.asked
    with pytest.raises(RefreshError, match="over https only"):
        AWSPrices(endpoint="http://prices.example")


def test_a_long_list_needs_no_more_memory_than_a_short_one(lists: PriceLists) -> None:
    rows = [Row(f"N{n}", f"BoxUsage:m{n}.large", "0.1", "Hrs") for n in range(30_000)]
    serve_s3(lists, [*rows, *s3_rows()])
    book, places = PriceBook.load(), [Place(EAST, "aws.s3")]
    reader = AWSPrices(endpoint=lists.base)
    refresh("aws", reader, book, places, now=NOW)  # it is in the cache now, and the book is read
    assert reader.read > 5_000_000
    tracemalloc.start()
    try:
        found = refresh("aws", AWSPrices(endpoint=lists.base), book, places, now=NOW)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "same" in kinds(found).values()
    assert peak < 2_500_000


def product(number: str, price: str, **attributes: str) -> str:
    """A product as the query API gives it, which is JSON in a text."""
    machine = {
        "instanceType": "r5.4xlarge",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "licenseModel": "No License required",
        "regionCode": "us-west-2",
        "usagetype": "USW2-BoxUsage:r5.4xlarge",
    }
    dimension = {
        "rateCode": f"{number}.JRTCKXETXF.6YS6EN2CT7",
        "beginRange": "0",
        "endRange": "Inf",
        "unit": "Hrs",
        "pricePerUnit": {"USD": price},
    }
    term = {"priceDimensions": {f"{number}.JRTCKXETXF.6YS6EN2CT7": dimension}, "sku": number}
    return json.dumps(
        {
            "product": {
                "productFamily": "Compute Instance",
                "attributes": {**machine, **attributes},
                "sku": number,
            },
            "serviceCode": "AmazonEC2",
            "terms": {"OnDemand": {f"{number}.JRTCKXETXF": term}},
        }
    )


def query_api(lists: PriceLists, *pages: list[str], token: str | None = None) -> None:
    def answer(asked: Asked) -> Answer:
        assert asked.headers["x-amz-target"] == "AWSPriceListService.GetProducts"
        at = int(json.loads(asked.body).get("NextToken", "0"))
        more = {"NextToken": token or str(at + 1)} if token or at + 1 < len(pages) else {}
        body = {"FormatVersion": "aws_v1", "PriceList": pages[at], **more}
        return Answer(
            json.dumps(body).encode(), headers={"Content-Type": "application/x-amz-json-1.1"}
        )

    lists.page("/", answer)


def machines(lists: PriceLists) -> Refreshed:
    reader = AWSPrices(endpoint=lists.base)
    reader.query = True
    book = PriceBook.load()
    return refresh("aws", reader, book, [Place("us-west-2", "aws.emr")], now=NOW)


def test_the_query_api_is_asked_by_unmodified_boto3(lists: PriceLists) -> None:
    lists.fault(Fault(500))
    query_api(
        lists,
        [product("WIN", "2.0", operatingSystem="Windows")],
        [product("LINUX", "1.0000000000"), product("HOST", "0", tenancy="Host")],
    )
    (line,) = machines(lists).lines
    assert (line.key, line.price) == ("aws.emr.ec2.r5.4xlarge/us-west-2", Decimal(1))
    request = json.loads(lists.asked[-1].body)
    assert request["ServiceCode"] == "AmazonEC2"
    assert {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "us-west-2"} in request["Filters"]


def test_the_query_api_may_not_go_round_in_circles_or_change_its_form(lists: PriceLists) -> None:
    query_api(lists, [product("LINUX", "1.0")], token="0")
    with pytest.raises(RefreshError, match="for the second time"):
        machines(lists)
    query_api(lists, ['{"product": {"attributes": 3}}'])
    with pytest.raises(RefreshError, match="not as it was"):
        machines(lists)


# -- Azure ------------------------------------------------------------------------------------------


def blobs(**more: Any) -> list[dict[str, Any]]:
    hot, v2 = "Blob Storage", "General Block Blob v2"
    return [
        item(hot, "Hot LRS", "Hot LRS Data Stored", 0.0196, "1 GB/Month"),
        item(hot, "Hot LRS", "Hot LRS Data Stored", 0.0188, "1 GB/Month", 51200.0),
        item(hot, "Hot LRS", "Hot LRS Data Stored", 0.0181, "1 GB/Month", 512000.0),
        item(hot, "Hot LRS", "Hot LRS Write Operations", 0.054, "10K", **more),
        item(hot, "Hot LRS", "Hot LRS Write Operations", 0.01, "10K", type="DevTestConsumption"),
        item(hot, "Hot LRS", "Hot Read Operations", 0.0043, "10K"),
        item(hot, "Hot LRS", "Hot Read Operations", 9, "10K", isPrimaryMeterRegion=False),
        item(hot, "Hot LRS", "Hot Read Operations", 8, "10K", effectiveStartDate="2027-01-01"),
        item(v2, "Cool LRS", "Cool Data Retrieval", 0.01, "1 GB"),
        item(v2, "Cool LRS", "Cool LRS Write Operations", 0.1, "10K", armRegionName="westus"),
    ]


def from_azure(lists: PriceLists, region: str = "westeurope") -> Refreshed:
    reader = AzurePrices(endpoint=lists.base)
    reader.now = NOW
    return refresh("azure", reader, PriceBook.load(), [Place(region, "azure.storage")], now=NOW)


def test_azure_pages_are_read_to_their_end(lists: PriceLists) -> None:
    retail(lists, blobs())
    lines = {line.key: line for line in from_azure(lists).lines}
    assert {key: line.price_text for key, line in lines.items()} == {
        "azure.storage.hot.lrs.storage.first_50_tb/westeurope": "0.0196",
        "azure.storage.hot.lrs.storage.next_450_tb/westeurope": "0.0188",
        "azure.storage.hot.lrs.storage.over_500_tb/westeurope": "0.0181",
        "azure.storage.hot.lrs.write/westeurope": "0.054",
        "azure.storage.hot.read/westeurope": "0.0043",
        "azure.storage.cool.retrieval/westeurope": "0.01",
    }
    middle = lines["azure.storage.hot.lrs.storage.next_450_tb/westeurope"]
    assert (middle.tier_from, middle.tier_to) == (Decimal(51200), Decimal(512000))
    assert all("api-version" in asked.query or "$skip" in asked.query for asked in lists.asked)


def test_azure_meters_that_are_two_are_named(lists: PriceLists) -> None:
    twin = item("Blob Storage", "Hot LRS", "Hot LRS Write Operations", 0.06, "10K", meterId="twin")
    retail(lists, [*blobs(), twin])
    (found,) = [one for one in from_azure(lists).findings if ".hot.lrs.write/" in one.key]
    assert found.kind == "twice"
    assert "meter twin" in found.why


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (b"[]", "not an object"),
        (b"{", "not JSON"),
        (b'{"items": []}', "no Items"),
        (b'{"Items": [3]}', "no object"),
        (b'{"Items": [], "NextPageLink": "https://elsewhere.example/next"}', "another host"),
        (b'{"Items": [], "NextPageLink": 7}', "another host"),
    ],
)
def test_azure_answers_that_are_not_as_they_were(lists: PriceLists, page: bytes, said: str) -> None:
    lists.file("/api/retail/prices", page)
    with pytest.raises(RefreshError, match=said):
        from_azure(lists)


def test_azure_pages_that_never_end_do(lists: PriceLists, monkeypatch: pytest.MonkeyPatch) -> None:
    def same(_: Asked) -> Answer:
        link = f"{lists.base}/api/retail/prices?page=1"
        return Answer(json.dumps({"Items": [], "NextPageLink": link}).encode())

    lists.page("/api/retail/prices", same)
    with pytest.raises(RefreshError, match="for the second time"):
        from_azure(lists)

    def onward(asked: Asked) -> Answer:
        link = f"{lists.base}/api/retail/prices?page={int(asked.query.get('page', '0')) + 1}"
        return Answer(json.dumps({"Items": [], "NextPageLink": link}).encode())

    monkeypatch.setattr(azure_prices, "MOST_PAGES", 20)
    lists.page("/api/retail/prices", onward)
    with pytest.raises(RefreshError, match="20 pages and was not done"):
        from_azure(lists)


def test_azure_faults_half_way_change_nothing(lists: PriceLists) -> None:
    retail(lists, blobs())
    undisturbed = from_azure(lists).written
    retail(lists, blobs(skuId="another"))
    lists.fault(Fault(429, {"Retry-After": "2"}), Fault(cut=True), Fault(502))
    assert from_azure(lists).written == undisturbed


# -- Google -----------------------------------------------------------------------------------------


def buckets() -> list[dict[str, Any]]:
    regional = ("Regional Standard Class A Operations", ["global"], "count")
    return [
        sku(*regional, (0, "0"), (5000, "0.000006")),
        sku("Regional Standard Tagging Class A Operations", ["global"], "count", (0, "0.000009")),
        sku("Standard Storage Iowa", ["us-central1"], "GiBy.mo", (0, "0"), (5, "0.021"),
            group="RegionalStorage", number="A"),
        sku("Standard Storage Iowa Dual-region", ["us-central1"], "GiBy.mo", (0, "0.022"),
            group="RegionalStorage", number="B"),
        sku("Nearline Storage Iowa", ["us-central1"], "GiBy.mo", (0, "0.010"),
            group="NearlineStorage", number="C"),
        sku("Nearline Storage Belgium", ["europe-west1"], "GiBy.mo", (0, "0.5"),
            group="NearlineStorage", number="D"),
        sku("Coldline Storage Iowa", ["us-central1"], "furlong", (0, "0.004"),
            group="ColdlineStorage", number="E"),
    ]  # fmt: skip


def from_google(lists: PriceLists) -> Refreshed:
    reader = GooglePrices(endpoint=lists.base)
    places = [Place("us-central1", "gcp.storage")]
    return refresh("gcp", reader, PriceBook.load(), places, now=NOW)


def test_googles_catalog_is_read_by_service_region_and_description(lists: PriceLists) -> None:
    catalog(lists, buckets())
    found = from_google(lists)
    lines = {line.key: line for line in found.lines}
    writes = lines["gcp.storage.standard.class_a/regional"]
    assert (writes.price, writes.allowance) == (Decimal("0.06"), Decimal("0.5"))
    assert writes.holds_in("us-central1")
    stored = lines["gcp.storage.standard.storage/us-central1"]
    assert (stored.price, stored.allowance) == (Decimal("0.021"), Decimal(5))
    assert kinds(found)["gcp.storage.nearline.storage/us-central1"] == "same"
    assert kinds(found)["gcp.storage.coldline.storage/us-central1"] == "unit"
    assert {asked.headers["x-goog-api-key"] for asked in lists.asked} == {"a-key-of-the-test"}


def test_the_key_stands_in_no_address_and_in_no_file(lists: PriceLists, tmp_path: Path) -> None:
    catalog(lists, buckets())
    from_google(lists)
    assert not any("a-key" in value for asked in lists.asked for value in asked.query.values())
    for path in (tmp_path / "cache").rglob("*"):
        assert path.is_dir() or b"a-key" not in path.read_bytes()


def test_googles_pages_that_come_again_and_skus_that_have_changed(
    lists: PriceLists, monkeypatch: pytest.MonkeyPatch
) -> None:
    skus = "/v1/services/95FF-2EF5-5EA1/skus"
    catalog(lists, buckets())
    lists.file(skus, b'{"skus": [], "nextPageToken": "again"}')
    with pytest.raises(RefreshError, match="for the second time"):
        from_google(lists)
    lists.page(skus, lambda asked: Answer(
        json.dumps({"skus": [], "nextPageToken": asked.query.get("pageToken", "") + "x"}).encode()
    ))  # fmt: skip
    monkeypatch.setattr(google_prices, "MOST_PAGES", 20)
    with pytest.raises(RefreshError, match="20 pages"):
        from_google(lists)
    changed = buckets()[2]
    changed["pricingInfo"] = []
    catalog(lists, [changed])
    with pytest.raises(RefreshError, match="not as it was: IndexError"):
        from_google(lists)
    lists.file("/v1/services", b'{"services": [{"displayName": "Another", "name": "services/1"}]}')
    with pytest.raises(RefreshError, match="no service called 'Cloud Storage'"):
        from_google(lists)


# -- Databricks -------------------------------------------------------------------------------------


def test_databricks_is_asked_as_settlement_asks() -> None:
    new_year = datetime(2026, 1, 1)

    def price(name: str, amount: str, ended: datetime | None = None) -> dict[str, object]:
        return {
            "sku_name": name,
            "cloud": "AWS",
            "usage_unit": "DBU",
            "price_start_time": new_year,
            "price_end_time": ended,
            "currency_code": "USD",
            "pricing": {
                "default": Decimal(amount),
                "effective_list": {"default": Decimal(amount)},
            },
        }

    with serving() as workspace:
        workspace.seed(
            "billing.list_prices",
            [
                price("PREMIUM_JOBS_COMPUTE", "0.99", new_year.replace(month=2)),
                price("PREMIUM_JOBS_COMPUTE", "0.17"),
                price("PREMIUM_JOBS_COMPUTE_(PHOTON)", "0.5"),
                price("PREMIUM_ALL_PURPOSE_COMPUTE", "0.55"),
            ],
        )
        host = f"http://127.0.0.1:{workspace.port}"
        options = {"warehouse": "abc123", "host": host, "token": "dapi-77ac-s3cr3t"}
        reader = DatabricksPrices(options, NOW)
        places = [Place("us-east-1", "databricks")]
        result = refresh("databricks", reader, PriceBook.load(), places, now=NOW)
    gc.collect()
    prices_of = {line.key: line.price_text.rstrip("0") for line in result.lines}
    assert prices_of == {
        "databricks.aws.premium.all_purpose/aws-us": "0.55",
        "databricks.aws.premium.jobs/aws-us": "0.17",
    }


# -- the command ------------------------------------------------------------------------------------


def test_the_new_file_counts_when_it_is_applied_and_not_before(
    lists: PriceLists, tmp_path: Path
) -> None:
    serve_s3(lists, s3_rows(**{"Requests-Tier1": "0.000006"}))
    own = tmp_path / "here" / "own.toml"
    own.write_text("# nothing of our own\n")
    config = tmp_path / "here" / "costinsights.toml"
    config.write_text('# ours\nprice_books = [\n  "own.toml", # rates\n]\n\n[labels]\nteam = "x"\n')
    arguments = ("aws", "--region", EAST, "--system", "aws.s3", "--endpoint", lists.base)
    aside = run(*arguments)
    assert aside.exit_code == 0, aside.output
    assert "Nothing uses it yet" in aside.output
    assert "+20.0 %" in aside.output
    assert "own.toml" in config.read_text()
    assert tomllib.loads(config.read_text())["price_books"] == ["own.toml"]
    applied = run(*arguments, "--apply")
    assert applied.exit_code == 0, applied.output
    first = tomllib.loads(config.read_text())
    assert first["labels"] == {"team": "x"}
    assert config.read_text().startswith("# ours\n")
    fresh, mine = first["price_books"]
    assert os.path.dirname(fresh) == str(tmp_path / "config" / "costinsights" / "prices")
    assert mine == str(own)
    tier1 = PriceBook.load(*first["price_books"]).get("aws.s3.standard.tier1/us-east-1")
    assert tier1 is not None
    assert tier1.price == Decimal("0.006")
    assert run(*arguments, "--apply").exit_code == 0
    third = tomllib.loads(config.read_text())["price_books"]
    assert len(third) == 2
    assert third[0] != fresh
    assert os.path.exists(fresh)


def test_a_later_refresh_keeps_what_an_earlier_one_found_elsewhere(
    lists: PriceLists, tmp_path: Path
) -> None:
    serve_s3(lists, s3_rows(**{"Requests-Tier1": "0.000006"}))
    first = tmp_path / "first.toml"
    first.write_bytes(from_aws(lists).written)
    serve_s3(lists, s3_rows(**{"Requests-Tier1": ""}))
    second = tmp_path / "second.toml"
    found = from_aws(lists, base([str(first), str(tmp_path / "none.toml")]))
    second.write_bytes(found.written)
    line = PriceBook.load(second).get("aws.s3.standard.tier1/us-east-1")
    assert line is not None
    assert (line.price, line.as_of) == (Decimal("0.006"), "2026-11-23")


def test_without_a_region_the_ledger_says_what_is_used(lists: PriceLists) -> None:
    result = run("aws", "--endpoint", lists.base)
    assert (result.exit_code, "say --region" in result.output) == (2, True)
    assert not lists.asked
