"""Worked examples of vendors and of a public price tool, each asked of the price book.

`stated` is what the source prints; where it cuts digits off, or prices with an amount that is not
in the book, the row says so and the exact product is asserted.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import pytest

from costinsights.pricing import PriceBook

if TYPE_CHECKING:
    from pathlib import Path

BOOK = PriceBook.load()


class Example(NamedTuple):
    name: str
    system: str
    usage: dict[str, int | str]
    region: str
    dims: dict[str, str]
    amount: str
    stated: str


EXAMPLES = [
    Example(
        "AWS Glue pricing page: 6 DPU, 15 minutes",
        "aws.glue",
        {"dpus": 6, "execution_minutes": 15},
        "us-east-1",
        {},
        "0.66",
        "0.66",
    ),
    Example(
        "list: 10 workers of G.2X, 60 hours",
        "aws.glue",
        {"workers": 10, "execution_hours": 60},
        "us-east-1",
        {"worker_type": "G.2X"},
        "528.00",
        "528.00",
    ),
    Example(
        "Athena pricing text: 3 TB scanned",
        "aws.athena",
        {"data_scanned_tb": 3},
        "us-east-1",
        {},
        "15.00",
        "15.00",
    ),
    Example(
        "list: 6 nodes of ra3.4xlarge, a month of 730 hours",
        "aws.redshift",
        {"nodes": 6, "running_hours": 730},
        "us-east-1",
        {"node_type": "ra3.4xlarge"},
        "14278.80",
        "14278.80",
    ),
    Example(
        "infracost: 4 nodes of dc2.large, 730 hours",
        "aws.redshift",
        {"nodes": 4, "running_hours": 730},
        "us-east-1",
        {"node_type": "dc2.large"},
        "730.00",
        "730.00",
    ),
    Example(
        "infracost: Redshift Spectrum, half a TB",
        "aws.redshift",
        {"spectrum_scanned_tib": "0.5"},
        "us-east-1",
        {},
        "2.50",
        "2.50",
    ),
    Example(
        "Redshift pricing page: Serverless from 1.50 USD an hour, which is 4 RPU",
        "aws.redshift",
        {"rpus": 4, "serverless_hours": 1},
        "us-east-1",
        {},
        "1.50",
        "1.50",
    ),
    Example(
        "infracost: RDS MySQL db.t3.large Multi-AZ, 730 hours",
        "aws.rds",
        {"instances": 1, "running_hours": 730},
        "us-east-1",
        {"engine": "mysql", "instance_class": "db.t3.large", "deployment": "multi_az"},
        "198.56",
        "198.56",
    ),
    Example(
        "infracost: RDS MariaDB db.t3.large, 730 hours",
        "aws.rds",
        {"instances": 1, "running_hours": 730},
        "us-east-1",
        {"engine": "mariadb", "instance_class": "db.t3.large", "deployment": "single_az"},
        "99.28",
        "99.28",
    ),
    Example(
        "infracost: Extended Support of 2 vCPU, first year, 730 hours",
        "aws.rds",
        {"extended_support_vcpu_hours": 1460},
        "us-east-1",
        {"year": "1"},
        "146.00",
        "146.00",
    ),
    Example(
        "infracost: Azure Database for MySQL, E4ds_v4, 730 hours",
        "azure.mysql",
        {"instance_hours": 730},
        "westus",
        {"instance_class": "Standard_E4ds_v4"},
        "382.52",
        "382.52",
    ),
    Example(
        "infracost: Azure Database for MySQL, D4ds_v4, 730 hours",
        "azure.mysql",
        {"instance_hours": 730},
        "westus",
        {"instance_class": "Standard_D4ds_v4"},
        "284.70",
        "284.70",
    ),
    Example(
        "list: Synapse serverless, 10 TB",
        "azure.synapse",
        {"data_processed_tb": 10},
        "westeurope",
        {},
        "50.00",
        "50.00",
    ),
    Example(
        "Dataproc pricing page: a master and 5 workers, 24 vCPU, 2 hours",
        "gcp.dataproc",
        {"vcpus": 24, "running_hours": 2},
        "us-central1",
        {},
        "0.48",
        "0.48",
    ),
    Example(
        "EMR benchmarking guide: 26 r5.4xlarge, 3 hours, EC2 and EMR",
        "aws.emr",
        {"instances": 26, "running_hours": 3},
        "us-west-2",
        {"instance_type": "r5.4xlarge"},
        "98.28",
        "98.28",
    ),
    Example(
        "list: S3 Standard, 10,000 GB-months",
        "aws.s3",
        {"storage_gb_months": 10_000},
        "us-east-1",
        {"storage_class": "STANDARD"},
        "230.00",
        "230.00",
    ),
    Example(
        "list: S3 Standard, 10,000 PUT",
        "aws.s3",
        {"tier1_requests": 10_000},
        "us-east-1",
        {"storage_class": "STANDARD"},
        "0.05",
        "0.05",
    ),
    Example(
        "list: RDS MySQL db.m5.large single-AZ, 730 hours",
        "aws.rds",
        {"instance_hours": 730},
        "us-east-1",
        {"engine": "mysql", "instance_class": "db.m5.large", "deployment": "single_az"},
        "124.83",
        "124.83",
    ),
    # Data Factory's own page of examples. Its prices are "hypothetical" and equal West Europe's,
    # except for those of data flows. It cuts amounts off instead of rounding them.
    Example(
        "ADF: orchestration of a copy pipeline, 2 runs",
        "azure.data_factory",
        {"activity_runs": 2},
        "westeurope",
        {"integration_runtime": "azure"},
        "0.002",
        "0.002",
    ),
    Example(
        "ADF: a copy of 10 minutes at 4 DIU; 0.166666… stated as 0.166",
        "azure.data_factory",
        {"dius": 4, "copy_minutes": 10},
        "westeurope",
        {},
        "0.166666666666667",
        "0.166",
    ),
    Example(
        "ADF: two such copies; 0.333333… stated as 0.333",
        "azure.data_factory",
        {"copies": 2, "dius": 4, "copy_minutes": 10},
        "westeurope",
        {},
        "0.333333333333333",
        "0.333",
    ),
    Example(
        "ADF: 10 read/write entities",
        "azure.data_factory",
        {"read_write_entities": 10},
        "westeurope",
        {},
        "0.0001",
        "0.0001",
    ),
    Example(
        "ADF: 2 monitoring records",
        "azure.data_factory",
        {"monitoring_entities": 2},
        "westeurope",
        {},
        "0.00001",
        "0.00001",
    ),
    Example(
        "ADF: a Databricks activity of 10 minutes; 0.0000416666… stated as 0.000041",
        "azure.data_factory",
        {"external_activity_minutes": 10},
        "westeurope",
        {"integration_runtime": "azure"},
        "0.000041666666667",
        "0.000041",
    ),
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_quote_gives_the_stated_amount(example: Example) -> None:
    quote = BOOK.quote(example.system, example.usage, example.region, **example.dims)
    assert quote.reason == ""
    assert quote.basis == "estimated"
    assert quote.currency == "USD"
    assert quote.amount == Decimal(example.amount)
    stated = Decimal(example.stated)
    amount = Decimal(example.amount)
    assert stated in (amount.quantize(stated), amount.quantize(stated, rounding="ROUND_DOWN"))


def _own(tmp_path: Path, text: str) -> PriceBook:
    file = tmp_path / "own.toml"
    file.write_text(text, encoding="utf-8")
    return PriceBook.load(file)


def _data_flow_at(price: str, compute_type: str) -> str:
    """The data flow price that Microsoft's example supposes, over the list price of the region."""
    return f"""
        [[price]]
        key = "example.{compute_type}"
        provider = "azure"
        service = "Data Factory v2"
        system = "azure.data_factory"
        meter = "data_flow_vcore_seconds"
        dims = {{ compute_type = "{compute_type}" }}
        region = "westeurope"
        unit = "vCore-hour"
        price = "{price}"
        currency = "USD"
        as_of = "2021-09-07"
        source = "azure-docs, data-factory/pricing-concepts.md"
    """


def test_data_flow_of_ten_minutes_and_ten_minutes_time_to_live(tmp_path: Path) -> None:
    book = _own(tmp_path, _data_flow_at("0.274", "general"))
    usage = {"vcores": 16, "data_flow_execution_minutes": 10, "time_to_live_minutes": 10}
    quote = book.quote("azure.data_factory", usage, "westeurope", compute_type="general")
    assert quote.amount == Decimal("1.461333333333333")  # stated: 1.461


@pytest.mark.parametrize(
    ("hours", "compute_type", "price", "amount"),
    [
        (8, "compute_optimised", "0.193", "12.352"),  # stated: 12.35
        (1, "general", "0.274", "2.192"),  # stated: 2.19
    ],
)
def test_data_flow_debugging(
    tmp_path: Path, hours: int, compute_type: str, price: str, amount: str
) -> None:
    book = _own(tmp_path, _data_flow_at(price, compute_type))
    usage = {"vcores": 8, "data_flow_execution_hours": hours}
    quote = book.quote("azure.data_factory", usage, "westeurope", compute_type=compute_type)
    assert quote.amount == Decimal(amount)


def test_copies_one_after_the_other_are_rounded_up_to_the_minute_each() -> None:
    first = {"copies": 2, "dius": 4, "copy_seconds": 40}
    second = {"copies": 4, "dius": 8, "copy_seconds": 80}
    quotes = [BOOK.quote("azure.data_factory", usage, "westeurope") for usage in (first, second)]
    units = sum(quote.parts[0].units for quote in quotes)
    assert round(units, 12) == Decimal("1.2")
    assert [quote.parts[0].quantity for quote in quotes] == [2 * 4 * 60, 4 * 8 * 120]


def test_a_copy_of_25_seconds_is_billed_as_recorded_outputs_say() -> None:
    """The activity's own `billableDuration` of such a copy is 0.0666… DIUHours."""
    usage = {"dius": 4, "copy_seconds": 25}
    measured = BOOK.quote("azure.data_factory", usage, "westeurope")
    recorded = BOOK.quote("azure.data_factory", {"diu_hours": "0.06666666666666667"}, "westeurope")
    assert measured.parts[0].units == Decimal("0.066666666666667")
    assert measured.amount is not None
    assert recorded.amount is not None
    assert round(measured.amount, 14) == round(recorded.amount, 14)


def test_fifty_parallel_copies_are_charged_independently() -> None:
    usage = {"copies": 50, "dius": 4, "copy_seconds": 40}
    quote = BOOK.quote("azure.data_factory", usage, "westeurope")
    assert quote.parts[0].quantity == 50 * 4 * 60


def test_six_external_activities_of_nearly_ten_minutes_are_ten_minutes_each() -> None:
    usage = {"external_activities": 6, "each_external_activity_seconds": 580}
    quote = BOOK.quote("azure.data_factory", usage, "westeurope", integration_runtime="azure")
    assert quote.parts[0].quantity == 6 * 600


def test_azure_sql_serverless_for_a_day(tmp_path: Path) -> None:
    """An hour at 4 vCores, one at 12 GB, six idle, then paused: 50,400 vCore-seconds."""
    book = _own(
        tmp_path,
        """
        [[price]]
        key = "example.serverless"
        provider = "azure"
        service = "Azure SQL Database"
        system = "azure.sql"
        meter = "serverless_vcore_seconds"
        region = "eastus"
        unit = "vCore-second"
        price = "0.000145"
        currency = "USD"
        as_of = "2024"
        source = "sql-docs, serverless-tier-overview.md"
        """,
    )
    least = {"minimum_vcores": 1, "minimum_memory_gb": 3}
    day: list[dict[str, int | str]] = [
        {**least, "used_vcores": 4, "used_memory_gb": 9, "online_hours": 1},
        {**least, "used_vcores": 1, "used_memory_gb": 12, "online_hours": 1},
        {**least, "used_vcores": 0, "used_memory_gb": 0, "online_hours": 6},
    ]
    quotes = [book.quote("azure.sql", usage, "eastus") for usage in day]
    assert [quote.parts[0].quantity for quote in quotes] == [14_400, 14_400, 21_600]
    total = sum(quote.amount for quote in quotes if quote.amount is not None)
    assert total == Decimal("7.308")  # stated: about 7.31
    listed = BOOK.quote("azure.sql", day[0], "eastus", tier="general_purpose")
    assert listed.amount == Decimal("2.08704")  # 4 vCore-hours at the list price of 0.52176


@pytest.mark.parametrize(
    ("seconds", "burnt"),
    [
        (1, "0.017"),
        (60, "0.017"),
        (61, "0.017"),
        (120, "0.033"),
        (600, "0.167"),
        (3600, "1.000"),
    ],
)
def test_snowflake_credits_of_an_extra_small_warehouse(seconds: int, burnt: str) -> None:
    quote = BOOK.quote(
        "snowflake",
        {"warehouse_seconds": seconds},
        "us-east-1",
        warehouse_size="X-Small",
        edition="standard",
    )
    assert round(quote.parts[0].quantity, 3) == Decimal(burnt)
    assert quote.amount == round(max(seconds, 60) * Decimal(2) / 3600, 15)


@pytest.mark.parametrize(
    ("size", "an_hour", "a_second"),
    [
        ("X-Small", 1, "0.0003"),
        ("Small", 2, "0.0006"),
        ("Medium", 4, "0.0011"),
        ("Large", 8, "0.0022"),
        ("X-Large", 16, "0.0044"),
        ("2X-Large", 32, "0.0089"),
        ("3X-Large", 64, "0.0178"),
        ("4X-Large", 128, "0.0356"),
        ("5X-Large", 256, "0.0711"),
        ("6X-Large", 512, "0.1422"),
    ],
)
def test_snowflake_credits_by_size(size: str, an_hour: int, a_second: str) -> None:
    """As stated: docs.snowflake.com/en/user-guide/warehouses-overview, both columns."""
    dims = {"warehouse_size": size, "edition": "enterprise"}
    hour = BOOK.quote("snowflake", {"warehouse_hours": 1}, "us-east-1", **dims)
    assert hour.parts[0].quantity == an_hour
    assert hour.amount == an_hour * 3
    # The list rounds; the second of an hour is what it rounds.
    more = BOOK.quote("snowflake", {"warehouse_seconds": 3601}, "us-east-1", **dims)
    second = more.parts[0].quantity - hour.parts[0].quantity
    assert second.quantize(Decimal("0.0001")) == Decimal(a_second)


def test_snowflake_clusters_multiply() -> None:
    """ "Multi-cluster: × running clusters", each with a minute at least (same page)."""
    quote = BOOK.quote(
        "snowflake",
        {"warehouse_seconds": 30, "clusters": 3},
        "eu-west-1",
        warehouse_size="Medium",
        edition="business_critical",
    )
    assert quote.amount == round(3 * 4 * Decimal(60) / 3600 * Decimal("5.20"), 15)


def test_bigquery_on_demand() -> None:
    """100.3 TiB at 6.25: the list says 626.875; rounding up to the MiB adds a millionth."""
    quote = BOOK.quote("gcp.bigquery", {"billed_tib": "100.3"}, "us-central1")
    assert quote.amount is not None
    exact, one_mebibyte = Decimal("626.875"), Decimal("6.25") / 2**20
    assert exact <= quote.amount < exact + one_mebibyte
    assert quote.amount.quantize(Decimal("0.01")) == Decimal("626.88")


def test_dataproc_serverless_driver_of_4_vcpu_and_16_gb_is_4_dcu() -> None:
    usage = {"vcpus": 4, "memory_gb": 16, "running_hours": 1}
    quote = BOOK.quote("gcp.dataproc_serverless", usage, "us-central1", tier="standard")
    assert quote.parts[0].units == 4
    assert quote.amount == Decimal("0.24")


def test_dataproc_serverless_memory_above_8_gb_a_vcpu_counts_twice() -> None:
    usage = {"vcpus": 4, "memory_gb": 40, "running_hours": 1}
    quote = BOOK.quote("gcp.dataproc_serverless", usage, "us-central1", tier="standard")
    expected = Decimal("0.6") * 4 + Decimal("0.1") * 32 + Decimal("0.2") * 8
    assert quote.parts[0].units == expected


def test_cloud_sql_is_vcpu_and_memory() -> None:
    usage = {"vcpus": 4, "memory_gb": 15, "running_hours": 730}
    quote = BOOK.quote("gcp.cloud_sql", usage, "us-central1", availability="zonal")
    assert [part.amount for part in quote.parts] == [Decimal("120.596"), Decimal("76.65")]
    assert [round(part.amount, 2) for part in quote.parts] == [
        Decimal("120.60"),
        Decimal("76.65"),
    ]
    assert quote.amount == Decimal("197.246")
