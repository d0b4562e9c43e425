"""The price book: the user's files over the built-in ones, quotes that never guess, reloading."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights.pricing import PriceBook, PriceBookError

if TYPE_CHECKING:
    from pathlib import Path

BOOK = PriceBook.load()
GLUE = "aws.glue.etl.standard/us-east-1"
RDS = "aws.rds.postgresql.db.m5.large.single_az/us-east-1"
OWN_GLUE = f"""
[[price]]
key = "{GLUE}"
provider = "aws"
service = "AWS Glue"
system = "aws.glue"
meter = "dpu_seconds"
dims = {{ execution_class = "standard" }}
defaults = ["execution_class"]
region = "us-east-1"
unit = "DPU-Hour"
price = "0.40"
currency = "EUR"
as_of = "2026-11-01"
source = "contract"
"""
DISCOUNT = """
[[discount]]
name = "{name}"
system = "aws.glue"
multiplier = "{multiplier}"
"""


def file(tmp_path: Path, text: str, name: str = "own.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


# Layers


def test_own_line_overrides_by_key(tmp_path: Path) -> None:
    book = PriceBook.load(file(tmp_path, OWN_GLUE))
    line = book.get(GLUE)
    assert line is not None
    assert (line.price, line.currency, line.layer) == (Decimal("0.40"), "EUR", 1)
    assert line.origin == f"{tmp_path / 'own.toml'}:2"
    quote = book.quote("aws.glue", {"dpu_hours": 10}, "us-east-1")
    assert (quote.amount, quote.currency) == (Decimal("4.00"), "EUR")
    assert len(book.lines()) == len(BOOK.lines())


def test_own_line_under_another_key_wins_over_the_built_in_one(tmp_path: Path) -> None:
    text = OWN_GLUE.replace(GLUE, "our.glue/us-east-1")
    book = PriceBook.load(file(tmp_path, text))
    assert book.quote("aws.glue", {"dpu_hours": 10}, "us-east-1").currency == "EUR"
    listed = book.get(GLUE)
    assert listed is not None
    assert listed.price == Decimal("0.44")


def test_own_line_for_every_region_and_another_for_one(tmp_path: Path) -> None:
    everywhere = (
        OWN_GLUE.replace(GLUE, "our.glue")
        .replace('region = "us-east-1"', 'region = "all"\nregions = ["*"]')
        .replace("0.40", "0.41")
    )
    book = PriceBook.load(file(tmp_path, everywhere + OWN_GLUE))
    amounts = [
        book.quote("aws.glue", {"dpu_hours": 1}, region).amount
        for region in ("us-east-1", "eu-west-1", None)
    ]
    assert amounts == [Decimal("0.40"), Decimal("0.41"), Decimal("0.41")]


def test_the_later_file_wins(tmp_path: Path) -> None:
    first = file(tmp_path, OWN_GLUE)
    second = file(tmp_path, OWN_GLUE.replace("0.40", "0.35"), "second.toml")
    for files, price in (((first, second), "0.35"), ((second, first), "0.40")):
        line = PriceBook.load(*files).get(GLUE)
        assert line is not None
        assert line.price_text == price


def test_discounts_multiply_exactly_and_are_told(tmp_path: Path) -> None:
    text = DISCOUNT.format(name="agreement", multiplier="0.9") + DISCOUNT.format(
        name="prepaid", multiplier="0.875"
    )
    book = PriceBook.load(file(tmp_path, text))
    for line in (book.get(GLUE), book.lines(text=GLUE)[0]):
        assert line is not None
        assert line.price == Decimal("0.3465")
        assert line.list_price == Decimal("0.44")
        assert line.discounts == ("agreement × 0.9", "prepaid × 0.875")
    quote = book.quote("aws.glue", {"dpu_hours": 1}, "us-east-1")
    assert quote.amount == Decimal("0.3465")
    assert "list 0.44, agreement × 0.9, prepaid × 0.875" in quote.formula
    other = book.get(RDS)
    assert other is not None
    assert other.list_price is None


def test_a_discount_lowers_the_lines_under_its_file_and_not_those_in_it(tmp_path: Path) -> None:
    own = file(tmp_path, OWN_GLUE + DISCOUNT.format(name="all", multiplier="0.5"))
    line = PriceBook.load(own).get(GLUE)
    assert line is not None
    assert line.price == Decimal("0.40")
    above = file(tmp_path, DISCOUNT.format(name="all", multiplier="0.5"), "above.toml")
    line = PriceBook.load(own, above).get(GLUE)
    assert line is not None
    assert line.price == Decimal("0.200")


def test_own_rule_overrides_by_name(tmp_path: Path) -> None:
    usage = {"dpus": 2, "crawl_seconds": 30}
    built_in = BOOK.quote("aws.glue", usage, "us-east-1")
    assert built_in.parts[0].quantity == 2 * 600
    text = """
        [[rule]]
        name = "aws.glue.crawl"
        system = "aws.glue"
        meter = "crawler_dpu_seconds"
        terms = [{ meter = "dpus" }, { meter = "crawl_seconds", minimum = "60" }]
        source = "our bill"
    """
    book = PriceBook.load(file(tmp_path, text))
    assert book.quote("aws.glue", usage, "us-east-1").parts[0].quantity == 2 * 60


def test_version_tells_the_newest_date_and_the_content(tmp_path: Path) -> None:
    newest, plus, digest = BOOK.version.partition("+")
    assert (newest, plus, len(digest)) == ("2026-10-09", "+", 8)
    own = PriceBook.load(file(tmp_path, OWN_GLUE))
    assert own.version.startswith("2026-11-01+")
    entry = {"system": "postgresql", "price": "0.2", "currency": "USD"}
    versions = {
        BOOK.version,
        PriceBook.load().version,
        own.version,
        PriceBook.load(file(tmp_path, OWN_GLUE + "#")).version,
        PriceBook.load(capacities=[entry]).version,
        PriceBook.load(capacities=[{**entry, "price": "0.3"}]).version,
    }
    assert len(versions) == 5


# Looking up


def test_get_and_lines() -> None:
    line = BOOK.get(RDS)
    assert line is not None
    assert line.price == Decimal("0.178")
    assert line.origin.startswith("aws.toml:")
    assert BOOK.get("nonsense") is None
    assert BOOK.get("aws.nonsense/us-east-1") is None
    assert {line.provider for line in BOOK.lines(provider="gcp")} == {"gcp"}
    assert line in BOOK.lines(system="postgresql", region="US-EAST-1")
    assert line in BOOK.lines(system="aws.rds", text="DB.M5.large")
    assert line not in BOOK.lines(system="mysql")
    assert not BOOK.lines(system="nonsense")
    cloud_sql = {line.key for line in BOOK.lines(system="gcp.cloud_sql")}
    for engine in ("mysql", "postgresql"):
        assert cloud_sql <= {line.key for line in BOOK.lines(system=engine)}


def test_meters_say_what_can_be_asked() -> None:
    meters = {meter.name: meter for meter in BOOK.meters("snowflake")}
    assert meters["credits"].kind == "priced"
    assert meters["credits"].units == ("credit",)
    assert meters["credits"].dims == ("edition",)
    assert meters["warehouse_seconds"].gives == ("credits",)
    assert "warehouse_size" in meters["warehouse_seconds"].dims
    assert BOOK.meters("nonsense") == ()
    for system in BOOK.systems():
        assert BOOK.meters(system)


# Quotes


def test_a_quote_tells_formula_rule_line_and_source() -> None:
    quote = BOOK.quote("aws.glue", {"dpus": 6, "execution_minutes": 15}, "us-east-1")
    assert quote.formula == (
        "dpu_seconds = 6 dpus × 900 execution_seconds = 5,400\n"
        "5,400 dpu_seconds ÷ 3,600 = 1.5 DPU-Hour × 0.44 USD = 0.66 USD"
    )
    assert quote.rule == "aws.glue.job_run"
    assert [line.key for line in quote.lines] == [GLUE]
    assert "glue_job_test" in quote.source
    assert quote.book == BOOK.version
    assert quote.parts[0].units == Decimal("1.5")


def test_minimum_and_rounding_of_a_line() -> None:
    mebibyte = 2**20
    quote = BOOK.quote("aws.athena", {"data_scanned_bytes": 0}, "us-east-1")
    assert quote.amount == 0
    for scanned, billed in (
        (1, 10 * mebibyte),
        (10 * mebibyte, 10 * mebibyte),
        (10 * mebibyte + 1, 11 * mebibyte),
    ):
        quote = BOOK.quote("aws.athena", {"data_scanned_bytes": scanned}, "us-east-1")
        assert quote.parts[0].quantity == billed
        assert quote.amount == round(Decimal(5 * billed) / 2**40, 15)
    assert "at least 10,485,760 data_scanned_bytes" in quote.rule
    assert any("2^40" in note for note in quote.notes)


def test_minimum_of_a_rule() -> None:
    quote = BOOK.quote("aws.glue", {"dpus": 2, "execution_seconds": "0.4"}, "us-east-1")
    assert quote.parts[0].quantity == 2 * 60
    assert "(0.4 rounded by the rule)" in quote.formula


def test_tiers_are_climbed() -> None:
    def transfer(gib: int) -> Decimal | None:
        usage = {"transferred_gib": gib}
        return BOOK.quote("aws.data_transfer", usage, "eu-west-1", to="internet").amount

    assert transfer(10_240) == Decimal("921.60")
    assert transfer(10_241) == Decimal("921.685")
    all_tiers = Decimal(10_240) * 90 + 40_960 * 85 + 102_400 * 70 + 50
    assert transfer(153_601) == all_tiers / 1000


def test_above_the_last_tier_of_the_book_is_unknown() -> None:
    """us-east-1 has no price above 150 TB."""
    usage = {"transferred_gib": 153_601}
    quote = BOOK.quote("aws.data_transfer", usage, "us-east-1", to="internet")
    assert quote.amount is None
    assert "no price for transferred_bytes above 153,600 GB" in quote.reason


def test_engine_and_hosting_service_are_two_names_of_a_system() -> None:
    dims = {"instance_class": "db.m5.large", "deployment": "single_az"}
    usage = {"instance_hours": 1}
    by_engine = BOOK.quote("postgresql", usage, "us-east-1", service="aws.rds", **dims)
    by_service = BOOK.quote("aws.rds", usage, "us-east-1", engine="postgresql", **dims)
    assert by_engine.amount == by_service.amount == Decimal("0.178")


UNKNOWN: list[tuple[str, dict[str, int | float | str], str | None, dict[str, str], str]] = [
    ("nonsense", {"x": 1}, None, {}, "no price for the system 'nonsense'; it has aws.athena,"),
    ("aws.glue", {}, "us-east-1", {}, "no usage"),
    ("aws.glue", {"dpu_years": 1}, "us-east-1", {}, "prices no 'dpu_years'"),
    ("aws.glue", {"dpus": 1}, "us-east-1", {}, "dpu_seconds takes dpus and execution_seconds"),
    ("aws.glue", {"dpu_hours": 1}, None, {}, "say a region: dpu_seconds has a price in us-east-1"),
    ("aws.glue", {"dpu_hours": 1}, "mars", {}, "no price in mars; the book has us-east-1"),
    ("aws.glue", {"dpu_hours": -1}, "us-east-1", {}, "a number of 0 or more"),
    ("aws.glue", {"dpu_hours": "NaN"}, "us-east-1", {}, "a number of 0 or more"),
    ("aws.glue", {"dpu_hours": "1e400"}, "us-east-1", {}, "a number of 0 or more"),
    ("aws.glue", {"dpu_hours": float("inf")}, "us-east-1", {}, "a number of 0 or more"),
    ("aws.glue", {"dpu_hours": "many"}, "us-east-1", {}, "is not a number"),
    ("aws.glue", {"dpu_hours": 1, "dpu_seconds": 1}, "us-east-1", {}, "given twice"),
    ("aws.glue", {"dpu_hours": 1, "dpus": 1}, "us-east-1", {}, "dpus alone has no price"),
    ("aws.glue", {"dpu_hours": 1}, "us-east-1", {"colour": "red"}, "depends on 'colour'"),
    ("aws.glue", {"dpu_hours": 1}, "us-east-1", {"execution_class": "fast"}, "(standard, flex)"),
    (
        "aws.glue",
        {"workers": 1, "execution_hours": 1},
        "us-east-1",
        {"worker_type": "Q.9X"},
        "workers alone has no price",
    ),
    (
        "snowflake",
        {"clusters": 1, "warehouse_hours": 1},
        "us-east-1",
        {"edition": "standard", "warehouse_size": "9X-Large"},
        "warehouse_size=9X-Large is not known, only X-Small, XS",
    ),
    ("aws.redshift", {"node_hours": 1}, "us-east-1", {}, "say node_type (ra3.large,"),
    (
        "aws.emr",
        {"instances": 1, "running_hours": 1},
        "us-west-2",
        {"instance_type": "r5.4xlarge", "market": "spot"},
        "say market (on_demand)",
    ),
    ("postgresql", {"instance_hours": 1}, "us-east-1", {}, "say service (aws.rds)"),
    (
        "azure.data_factory",
        {"diu_hours": 1},
        "westeurope",
        {"integration_runtime": "self_hosted"},
        "say integration_runtime (azure)",
    ),
    ("databricks", {"dbus": 1}, "eastus", {"cloud": "azure"}, "has no price in eastus"),
]


@pytest.mark.parametrize(("system", "usage", "region", "dims", "reason"), UNKNOWN)
def test_unknown_is_unknown_and_says_what_to_do(
    system: str,
    usage: dict[str, int | float | str],
    region: str | None,
    dims: dict[str, str],
    reason: str,
) -> None:
    quote = BOOK.quote(system, usage, region, **dims)
    assert quote.amount is None
    assert quote.currency is None
    assert quote.basis == "unknown"
    assert quote.parts == ()
    assert reason in quote.reason


def test_two_currencies_are_not_added(tmp_path: Path) -> None:
    vcpu = BOOK.get("gcp.cloud_sql.vcpu.zonal/us-central1")
    assert vcpu is not None
    text = f"""
        [[price]]
        key = "{vcpu.key}"
        provider = "gcp"
        service = "Cloud SQL"
        system = "postgresql"
        resource_service = "gcp.cloud_sql"
        meter = "vcpu_seconds"
        dims = {{ availability = "zonal" }}
        region = "us-central1"
        unit = "vCPU-hour"
        price = "0.04"
        currency = "EUR"
        as_of = "2026"
        source = "contract"
    """
    usage = {"vcpus": 1, "memory_gb": 1, "running_hours": 1}
    quote = PriceBook.load(file(tmp_path, text)).quote(
        "gcp.cloud_sql", usage, "us-central1", availability="zonal"
    )
    assert quote.amount is None
    assert "in EUR and USD, which cannot be added" in quote.reason


def test_two_lines_that_fit_equally_are_not_chosen_between(tmp_path: Path) -> None:
    one = OWN_GLUE.replace(GLUE, "one/us-east-1")
    two = one.replace("one/", "two/").replace(
        '{ execution_class = "standard" }', '{ execution_class = "standard", team = "a" }'
    )
    book = PriceBook.load(file(tmp_path, one + two))
    assert book.quote("aws.glue", {"dpu_hours": 1}, "us-east-1").amount == Decimal("0.40")
    quote = book.quote("aws.glue", {"dpu_hours": 1}, "us-east-1", team="a")
    assert quote.amount is None
    assert "more than one line prices dpu_seconds: one/us-east-1, two/us-east-1" in quote.reason


def test_a_rule_that_leads_back_to_itself_gives_nothing(tmp_path: Path) -> None:
    rule = """
        [[rule]]
        name = "{name}"
        system = "aws.glue"
        meter = "{meter}"
        terms = [{{ meter = "{term}" }}]
        source = "a mistake"
    """
    text = rule.format(name="a", meter="crawler_dpu_seconds", term="b_seconds") + rule.format(
        name="b", meter="b_seconds", term="crawler_dpu_seconds"
    )
    book = PriceBook.load(file(tmp_path, text))
    quote = book.quote("aws.glue", {"dpu_hours": 1}, "us-east-1")
    assert quote.amount == Decimal("0.44")


def test_a_day_that_is_none_is_unknown() -> None:
    quote = BOOK.quote("aws.glue", {"dpu_hours": 1}, "us-east-1", at="tomorrow")
    assert "is not a day" in quote.reason


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.sampled_from(BOOK.systems()),
    st.dictionaries(
        st.sampled_from([line.meter for line in BOOK.lines()]),
        st.integers(-10, 10**20) | st.just(10**5000) | st.text(max_size=5) | st.floats(),
        max_size=3,
    ),
    st.sampled_from([None, "us-east-1", "westeurope", "us-central1", "x"]),
)
def test_a_quote_never_raises(
    system: str, usage: dict[str, int | float | str], region: str | None
) -> None:
    quote = BOOK.quote(system, usage, region)
    assert (quote.amount is None) == bool(quote.reason)
    if quote.amount is not None:
        assert quote.amount == sum(part.amount for part in quote.parts)
        assert quote.amount >= 0


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_more_usage_never_costs_less(one: int, more: int) -> None:
    amounts = [
        BOOK.quote("aws.data_transfer", {"transferred_bytes": n}, "eu-west-1", to="internet").amount
        for n in (one, one + more)
    ]
    assert amounts[0] is not None
    assert amounts[1] is not None
    assert amounts[0] <= amounts[1]


# Capacities

ORDERS = {
    "name": "orders",
    "system": "postgresql",
    "host": "orders-*.example.com",
    "price": "0.178",
    "currency": "USD",
    "source": "invoice of March",
    "as_of": "2026-03",
}


def test_first_entry_that_fits_and_one_capacity_for_all_that_fits_it() -> None:
    book = PriceBook.load(
        capacities=[
            ORDERS,
            {"system": "postgresql", "database": "ware*", "price": "1", "currency": "EUR"},
            {"system": "mysql", "port": 3307, "line": RDS.replace("postgresql", "mysql")},
            {"service": "aws.rds", "line": RDS, "count": 2},
        ]
    )
    orders = book.capacity_for("postgresql", "orders-1.example.com", 5432, "a")
    assert orders is not None
    assert orders is book.capacity_for("postgresql", "ORDERS-2.example.com", 5432, "b")
    assert orders is book.capacities[0]
    assert orders.currency == "USD"
    assert (orders.line.key, orders.line.source) == ("capacity.orders", "invoice of March")
    assert (orders.line.price, orders.line.unit) == (Decimal("0.178"), "hour")
    warehouse = book.capacity_for("postgresql", None, None, "warehouse")
    assert warehouse is book.capacities[1]
    assert book.capacity_for("postgresql", "elsewhere", 5432, "other") is None
    assert book.capacity_for("mysql", "x", 3306, None) is None
    mysql = book.capacity_for("mysql", "x", 3307, None)
    assert mysql is not None
    assert mysql.line.key == "aws.rds.mysql.db.m5.large.single_az/us-east-1"
    two = book.capacity_for("postgresql", "any", None, None, "aws.rds")
    assert two is not None
    assert (two.line.key, two.line.price) == (RDS, Decimal("0.356"))
    assert two.line.note == "2 × 0.178 USD per instance-hour"


def test_capacity_from_a_discounted_line(tmp_path: Path) -> None:
    text = f"""
        [[discount]]
        name = "agreement"
        key = "aws.rds.*"
        multiplier = "0.5"

        [[capacity]]
        host = "db"
        line = "{RDS}"
    """
    capacity = PriceBook.load(file(tmp_path, text)).capacity_for("postgresql", "db", None, None)
    assert capacity is not None
    assert capacity.line.price == Decimal("0.089")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": 0.178}, "price must be text in quotes"),
        ({"price": "-1"}, "is negative"),
        ({"price": "0"}, "nothing to share"),
        ({"price": None}, 'say price = "0.178"'),
        ({"currency": None}, "the field 'currency' is missing"),
        ({"currency": "EURO"}, "ISO 4217"),
        ({"unit": "GB-month"}, "is not an hour"),
        ({"line": RDS}, "either line or price"),
        ({"price": None, "currency": None, "line": "aws.x"}, "no price line has the key"),
        ({"hosts": "x"}, "unknown field 'hosts'"),
        ({"port": "5432"}, "port '5432' must be a number"),
        ({"count": 0}, "count 0 must be more than 0"),
        ({"count": 1.5}, "count must be text"),
        ({"system": None, "host": None}, "say what runs on it"),
        ({"as_of": "soon"}, "is not a date"),
    ],
)
def test_a_malformed_entry_is_named(change: dict[str, object], reason: str) -> None:
    changed = {**ORDERS, **change}
    entry = {name: value for name, value in changed.items() if value is not None}
    with pytest.raises(PriceBookError) as caught:
        PriceBook.load(capacities=[{**ORDERS, "name": "good"}, entry])
    assert "'orders'" in str(caught.value)
    assert reason in str(caught.value)


def test_two_entries_of_one_name_are_refused() -> None:
    with pytest.raises(PriceBookError, match=r"#2 'orders': the name is taken by .*#1 'orders'"):
        PriceBook.load(capacities=[ORDERS, ORDERS])


def test_many_resources_do_not_fill_the_memory() -> None:
    book = PriceBook.load(capacities=[ORDERS])
    for number in range(3000):
        capacity = book.capacity_for("postgresql", f"orders-{number}.example.com", 5432, "a")
        assert capacity is book.capacities[0]
    assert len(book._found) <= 1024  # pyright: ignore[reportPrivateUsage]


def test_reset_reaches_every_capacity() -> None:
    book = PriceBook.load(capacities=[ORDERS])
    book.capacities[0].enter(1)
    book.reset()
    assert book.capacities[0].number == 0


# Reloading


def test_the_last_good_book_stays(tmp_path: Path) -> None:
    path = file(tmp_path, OWN_GLUE)
    book = PriceBook.load(path)
    assert book.reloaded() == (book, None)
    for text in (OWN_GLUE.replace('"0.40"', '"four"'), OWN_GLUE[:-30], "["):
        path.write_text(text, encoding="utf-8")
        again, error = book.reloaded()
        assert again is book
        assert error is not None
        assert error.path == str(path)
        assert error.line > 0
    path.unlink()
    again, error = book.reloaded()
    assert again is book
    assert error is not None
    path.write_text(OWN_GLUE.replace("0.40", "0.30"), encoding="utf-8")
    again, error = book.reloaded()
    assert error is None
    line = again.get(GLUE)
    assert line is not None
    assert line.price == Decimal("0.30")


def test_a_capacity_keeps_its_clock_when_its_entry_did_not_change(tmp_path: Path) -> None:
    entries = """
        [[capacity]]
        name = "a"
        host = "a"
        price = "1"
        currency = "USD"

        [[capacity]]
        name = "b"
        host = "b"
        price = "1"
        currency = "USD"
    """
    path = file(tmp_path, entries)
    book = PriceBook.load(path, capacities=[ORDERS])
    path.write_text("# moved down\n\n" + entries.replace('"1"', '"2"', 1), encoding="utf-8")
    again, error = book.reloaded()
    assert error is None
    assert again is not book
    assert again.capacities[0] is book.capacities[0]
    assert again.capacities[1] is not book.capacities[1]
    assert again.capacities[2] is book.capacities[2]


# Start-up


def test_a_book_of_own_capacities_parses_no_file() -> None:
    """Neither the TOML parser nor what quoting needs is even imported."""
    script = """
import sys
from costinsights.pricing import PriceBook
entry = {"system": "postgresql", "host": "db", "price": "0.178", "currency": "USD"}
book = PriceBook.load(capacities=[entry])
capacity = book.capacity_for("postgresql", "db", 5432, "orders")
capacity.amount(capacity.leave(2, capacity.enter(1)))
mine = {"costinsights.pricing.files", "costinsights.pricing.quoting"}
assert not mine & set(sys.modules), mine & set(sys.modules)
book.version
assert "tomllib" not in sys.modules and "tomli" not in sys.modules
assert not mine & set(sys.modules), mine & set(sys.modules)
"""
    subprocess.run([sys.executable, "-I", "-c", script], check=True)


def test_a_line_is_looked_up_in_its_own_file() -> None:
    script = """
from costinsights.pricing import PriceBook, builtin
book = PriceBook.load()
assert book.get("snowflake.credit.standard/aws-eu-west-1-dublin") is not None
assert list(builtin._parsed) == ["snowflake"]
quote = book.quote("gcp.dataproc", {"vcpu_hours": 1}, "europe-west1")
assert str(quote.amount) == "0.01", quote
assert sorted(builtin._parsed) == ["gcp", "snowflake"]
"""
    subprocess.run([sys.executable, "-I", "-c", script], check=True)
