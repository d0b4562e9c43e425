"""What a refresh is made of: lookups for every line, units, tiers, the configuration's one line."""

from __future__ import annotations

import csv
import sys
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights.ledger.store import Period, open_store
from costinsights.pricing import PriceBook, PriceBookError, PriceLine, applying
from costinsights.pricing.files import parse
from costinsights.pricing.refresh import VENDORS, Place, RefreshError, used, wanted_of
from costinsights.pricing.refreshing.findings import DOUBTS, KINDS, TAKEN, findings
from costinsights.pricing.refreshing.lookup import Lookup, load
from costinsights.pricing.refreshing.measures import UNITS, MeasureError, exact, factor
from costinsights.pricing.refreshing.offers import Offer, Refused, Tier, Wanted, lines_of
from costinsights.pricing.refreshing.writing import content, is_ours, vendor_of
from costinsights.pricing.stale import advice, is_stale
from costinsights.records import Resource
from costinsights.report.render import render
from costinsights.report.summary import make
from tests.ledgers import NOON, Program, moment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

BOOK = PriceBook.load()
LINES = {line.key: line for line in BOOK.lines()}
COPY = Path(__file__).parent / "prices_rows.csv"

# -- the shipped book -------------------------------------------------------------------------------

ELSEWHERE = {
    ("Cloud Storage", "Standard class A (see conflict note)", "EU multi-region"): (
        "0.05 is the price of a bucket in one region, by a slip of the source (billing.md 15.3); "
        "Google's page of 2026-10-02 has 0.10 for this one"
    ),
    ("Cloud Storage", "Coldline class A", "ASIA multi-region"): (
        "0.10 is the price of no bucket there; Google's page has 0.40 for this one"
    ),
    ("Dataproc Serverless", "Standard shuffle storage", "us-central1"): (
        "unsourced there; the book has the same price by a second party of 2026-07"
    ),
}
"""Rows of the price list that the book does not have as they are, and why."""


def rows() -> list[dict[str, str]]:
    """The rows of the project's price list; a copy of it stands beside this file."""
    with COPY.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_row_of_the_price_list_is_in_the_book() -> None:
    """With its price, its date and its source; or there is a reason why not."""
    strange: list[str] = []
    for row in rows():
        what = (row["service"], row["sku_or_meter"], row["region"])
        found = [
            line
            for line in LINES.values()
            if (line.service, line.sku, line.region) == what
            and line.price == Decimal(row["price_usd"])
            and line.as_of == (row["as_of"] or "unknown")
            and line.source == row["source_url"]
        ]
        if bool(found) == (what in ELSEWHERE):
            strange.append(f"{what}: {[line.key for line in found]}")
    assert not strange, "\n".join(strange)
    assert len(rows()) == 244


# -- lookups ----------------------------------------------------------------------------------------


def test_every_line_says_how_it_is_found_or_why_it_is_not() -> None:
    silent = [
        line.key
        for vendor in VENDORS
        for line in LINES.values()
        if line.key.partition(".")[0] == vendor
        if load(vendor).of(line) is None
        if not load(vendor).reason(line)
    ]
    assert not silent
    others = {line.key.partition(".")[0] for line in LINES.values()} - set(VENDORS)
    assert others == {"dremio", "snowflake"}


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_is_wanted_has_the_names_of_its_key_filled_in(vendor: str) -> None:
    for region in ("us-east-1", "westeurope", "us-central1", "eu"):
        wanted, _ = wanted_of(BOOK, vendor, [Place(region)])
        for one in wanted:
            said = (*one.lookup.exactly.values(), *one.lookup.like.values())
            names = [text for text in said if "{" in text.replace("{region}", "")]
            assert not names, one.lookup
            assert len({line.key for line in one.lines}) == len(one.lines)
            assert {line.meter for line in one.lines} == {one.lines[0].meter}
            assert one.known <= set(LINES)


def test_only_what_is_used_is_wanted_and_where_it_is_used() -> None:
    places = [Place("us-west-2", "aws.glue"), Place("eu-west-1", "aws.athena")]
    wanted, _ = wanted_of(BOOK, "aws", places)
    keys = {line.key for one in wanted for line in one.lines}
    assert "aws.athena.sql/eu-west-1" in keys
    assert "aws.glue.crawler/us-west-2" in keys
    assert not any(key.startswith(("aws.s3", "aws.athena.sql/us")) for key in keys)
    assert not wanted_of(BOOK, "azure", places)[0]


def test_a_file_of_ones_own_goes_before_the_lookups(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[[lookup]]\nkeys = ["aws.glue.quality"]\nservice = "AWSGlue"\n'
        'exactly = { usagetype = "Quality" }\n'
    )
    line = LINES["aws.glue.quality/us-east-1"]
    found = load("aws", [str(own)]).of(line)
    assert found is not None
    assert found.exactly == {"usagetype": "Quality"}
    for wrong, said in (
        ('[[lookup]]\nkeys = ["a"]\n', "'service' is missing"),
        ('[[lookup]]\nkeys = ["a"]\nservice = "s"\n', "exactly, like or both"),
        ('[[lookup]]\nkeys = ["a"]\nservice = "s"\nlike = { x = "(" }\n', "lookup"),
        ('[[lookup]]\nkeys = ["a"]\nservice = "s"\nexactly = { x = 3 }\n', "text in quotes"),
        ("[[price]]\n", "unknown table 'price'"),
    ):
        own.write_text(wrong)
        with pytest.raises(PriceBookError, match=said):
            load("aws", [str(own)])


def test_the_ledger_says_what_is_used(tmp_path: Path) -> None:
    program = Program(tmp_path)
    program.call(system="aws.athena", resource=Resource(region="us-east-1"))
    program.call(system="postgresql", resource=Resource(service="aws.rds", region="eu-west-1"))
    program.close()
    with open_store(str(tmp_path)) as store:
        assert set(used(store)) == {
            Place("us-east-1", "aws.athena"),
            Place("eu-west-1", "postgresql"),
            Place("eu-west-1", "aws.rds"),
        }


# -- units and tiers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "unit", "key", "per"),
    [
        ("aws", "Requests", "aws.s3.standard.tier1/us-east-1", 1000),
        ("aws", "GB-Mo", "aws.s3.standard.storage/us-east-1", 1),
        ("aws", "Terabytes", "aws.athena.sql/us-east-1", 1),
        ("aws", "GB", "aws.data_transfer.other_zone/us-east-1", 1),
        ("aws", "Hrs", "aws.redshift.node.ra3.4xlarge/us-east-1", 1),
        ("aws", "Second", "aws.redshift.concurrency_scaling.ra3.4xlarge/us-east-1", 1),
        ("azure", "1/Day", "azure.sql.dtu.s1/eastus", Fraction(1, 24)),
        ("azure", "1 Hour", "azure.synapse.dedicated_pool.dwu_100/westeurope", 1),
        ("azure", "10K", "azure.storage.hot.read/westus", 1),
        ("azure", "100 GB/Month", "azure.storage.cool.lrs.storage/westus", Fraction(1, 100)),
        ("gcp", "MiBy", "gcp.bigquery.on_demand/us-central1", 2**20),
        ("gcp", "count", "gcp.storage.standard.class_a/regional", 10_000),
        ("databricks", "DBU", "databricks.aws.premium.jobs/aws-us", 1),
    ],
)
def test_units_of_vendors_in_those_of_the_book(
    vendor: str, unit: str, key: str, per: Fraction | int
) -> None:
    assert factor(vendor, unit, LINES[key]) == per


@pytest.mark.parametrize(
    ("vendor", "unit", "key"),
    [
        ("aws", "furlong", "aws.s3.standard.tier1/us-east-1"),
        ("aws", "GB-Mo", "aws.s3.standard.tier1/us-east-1"),
        ("aws", "GB", "aws.s3.standard.storage/us-east-1"),
        ("aws", "DPU-Hour", "aws.redshift.serverless/us-east-1"),
        ("azure", "1 Hour", "azure.storage.hot.read/westus"),
        ("gcp", "h", "gcp.storage.standard.storage/us-central1"),
    ],
)
def test_units_that_do_not_fit_are_refused(vendor: str, unit: str, key: str) -> None:
    with pytest.raises(MeasureError):
        factor(vendor, unit, LINES[key])


def test_every_unit_measures_something() -> None:
    assert all(measure.size > 0 for units in UNITS.values() for measure in units.values())
    assert set(UNITS) == set(VENDORS)


TIER1 = LINES["aws.s3.standard.tier1/us-east-1"]
LOOKUP = Lookup(keys=("aws.s3.standard.tier1",), service="AmazonS3", exactly={"usagetype": "x"})
WANTED = Wanted(LOOKUP, "us-east-1", (TIER1,), frozenset((TIER1.key,)))


def offer(*tiers: tuple[str, str], unit: str = "Requests", currency: str = "USD") -> Offer:
    made = tuple(Tier(Decimal(start), Decimal(price)) for start, price in tiers)
    return Offer("SKU X", unit, currency, made, "a list")


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(
        st.tuples(st.integers(1, 10**9), st.integers(1, 10**6)),
        min_size=1,
        max_size=5,
        unique_by=lambda tier: tier[0],
    )
)
def test_the_tiers_of_an_offer_cost_what_the_offer_says(tiers: list[tuple[int, int]]) -> None:
    """Whatever its tiers, a quantity costs by the lines what it costs by the list."""
    listed = sorted((start if at else 0, price) for at, (start, price) in enumerate(sorted(tiers)))
    made = offer(*((str(start), f"{Decimal(price).scaleb(-9):f}") for start, price in listed))
    lines = lines_of(WANTED, made, "aws", "2026-11-23")
    parse("made", content(lines, "aws", "now"), layer=1)
    for quantity in (1, *(start for start, _ in listed), 2 * 10**9):
        by_list = by_lines = Fraction(0)
        for at, (start, price) in enumerate(listed):
            end = listed[at + 1][0] if at + 1 < len(listed) else quantity
            by_list += max(0, min(quantity, end) - start) * Fraction(price, 10**9)
        units = Fraction(quantity, 1000)
        for line in lines:
            top = units if line.tier_to is None else min(units, Fraction(line.tier_to))
            by_lines += max(Fraction(0), top - Fraction(line.tier_from or 0)) * Fraction(line.price)
        assert by_lines == by_list


def test_a_sku_of_several_units_is_divided() -> None:
    """DW200c is two hundreds of DWUs, a machine of 4 cores four cores."""
    for key, listed, price in (
        ("azure.synapse.dedicated_pool.dwu_100/westeurope", "3.02", "1.51"),
        ("azure.postgresql.general_purpose.dsv3.vcore/westus", "0.39", "0.0975"),
    ):
        line = LINES[key]
        lookup = load("azure").of(line)
        assert lookup is not None
        wanted = Wanted(lookup, line.region, (line,), frozenset((key,)))
        (found,) = findings(wanted, [offer(("0", listed), unit="1 Hour")], "azure", "2026-11-23")
        assert found.new is not None
        assert (found.new.price, found.kind) == (Decimal(price), "same")


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (offer(), "tiers"),
        (offer(("5", "1")), "tiers"),
        (offer(("0", "1"), ("0", "2")), "tiers"),
        (offer(("0", "-1")), "tiers"),
        (offer(("0", "1"), currency="Gold"), "currency"),
        (offer(("0", "1"), unit="GB-Mo"), "unit"),
    ],
)
def test_offers_that_make_no_sense_are_refused(made: Offer, kind: str) -> None:
    with pytest.raises(Refused) as refused:
        lines_of(WANTED, made, "aws", "2026-11-23")
    assert refused.value.kind == kind


@pytest.mark.parametrize(
    ("price", "kind"),
    [
        ("0.000005", "same"),
        ("0.00005", "changed"),
        ("0.0000500001", "jump"),
        ("0.0000005", "changed"),
        ("0.0000004999", "jump"),
        ("0", "zero"),
    ],
)
def test_a_price_may_be_ten_times_what_it_was_and_no_more(price: str, kind: str) -> None:
    (found,) = findings(WANTED, [offer(("0", price))], "aws", "2026-11-23")
    assert found.kind == kind
    (accepted,) = findings(WANTED, [offer(("0", price))], "aws", "2026-11-23", [TIER1.key])
    assert accepted.kind in TAKEN
    assert set(KINDS) == TAKEN | DOUBTS | {"absent"}


@settings(deadline=None)  # a busy machine is no failure
@given(st.fractions(0, 10**6))
def test_numbers_are_written_as_the_book_reads_them(number: Fraction) -> None:
    written = exact(number)
    assert abs(Fraction(written) - number) <= Fraction(1, 10**18)
    assert "E" not in f"{written:f}"


# -- files ------------------------------------------------------------------------------------------


def test_every_line_of_the_book_can_be_written_and_read_again() -> None:
    for vendor in VENDORS:
        lines = [line for line in LINES.values() if line.key.startswith(f"{vendor}.")]
        known = [line for line in lines if not line.unsourced]
        again = parse("again", content(known, vendor, "2026-11-23T12:00:00Z"), layer=0).lines
        for line in known:
            assert _plain(again[line.key]) == _plain(line)


def _plain(line: PriceLine) -> tuple[object, ...]:
    fields = ("key", "system", "also", "meter", "dims", "defaults", "region", "regions", "unit")
    numbers = ("unit_scale", "price", "minimum", "increment", "tier_from", "tier_to", "allowance")
    return tuple(getattr(line, name) for name in (*fields, *numbers, "free", "note", "source"))


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    path = tmp_path / "aws-2026-11-23.toml"
    path.write_bytes(content([TIER1], "aws", "2026-11-23T12:00:00Z"))
    return path


@pytest.mark.parametrize(
    ("name", "before", "rest"),
    [
        ("costinsights.toml", "", {}),
        ("costinsights.toml", '[labels]\nteam = "x"\n', {"labels": {"team": "x"}}),
        ("costinsights.toml", 'price_books = "own.toml"\n# end', {}),
        ("costinsights.toml", 'price_books = [\r\n "a]b", # ]\r\n]\r\nservice = "s"\r\n', {"service": "s"}),
        ("pyproject.toml", '[project]\nname = "p"\n', {}),
        ("pyproject.toml", '[tool.costinsights]\nservice = "s"\n[tool.x]\ny = 1\n', {"service": "s"}),
        ("pyproject.toml", "[tool.costinsights]\nprice_books = []\n", {}),
    ],
)  # fmt: skip
def test_one_value_of_the_configuration_is_replaced(
    tmp_path: Path, fresh: Path, name: str, before: str, rest: dict[str, object]
) -> None:
    path = tmp_path / name
    path.write_bytes(before.encode())
    applying.put(str(path), [str(fresh)])
    written = path.read_bytes().decode()
    found = tomllib.loads(written)
    table = found["tool"]["costinsights"] if name == "pyproject.toml" else found
    assert table == {**rest, "price_books": [str(fresh)]}
    kept = [row for row in before.splitlines() if "price_books" not in row and "]b" not in row]
    assert all(row in written.splitlines() for row in kept if row not in ("]", ""))


def test_a_configuration_that_cannot_be_edited_safely_is_left_alone(
    tmp_path: Path, fresh: Path
) -> None:
    path = tmp_path / "pyproject.toml"
    text = '[tool]\ncostinsights = { service = "s" }\n'
    path.write_text(text)
    with pytest.raises(RefreshError, match="cannot be edited safely"):
        applying.put(str(path), [str(fresh)])
    assert path.read_text() == text


def test_own_rates_stay_over_what_is_refreshed(tmp_path: Path, fresh: Path) -> None:
    own, old, other = (str(tmp_path / name) for name in ("own.toml", "old.toml", "azure.toml"))
    Path(own).write_text("# mine\n")
    Path(old).write_bytes(fresh.read_bytes())
    line = LINES["azure.storage.hot.read/westus"]
    Path(other).write_bytes(content([line], "azure", "2026-11-23T12:00:00Z"))
    assert applying.in_force([], str(fresh)) == [str(fresh)]
    assert applying.in_force([own], str(fresh)) == [str(fresh), own]
    assert applying.in_force([other, old, own], str(fresh)) == [other, str(fresh), own]
    assert (is_ours(own), vendor_of(old), vendor_of(own)) == (False, "aws", "")


def test_a_version_of_the_book_can_be_had_again(tmp_path: Path, fresh: Path) -> None:
    book = PriceBook.load(fresh)
    applying.note(str(tmp_path), book, [str(fresh)])
    again = applying.book_of(str(tmp_path), book.version)
    assert again is not None
    assert again.version == book.version
    shipped = applying.book_of(str(tmp_path), BOOK.version)
    assert shipped is not None
    fresh.write_bytes(fresh.read_bytes().replace(b"0.005", b"0.006"))
    assert applying.book_of(str(tmp_path), book.version) is None


# -- stale ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("as_of", "last", "first"),
    [
        ("2025-11-23", "2026-11-23", "2026-11-24"),
        ("2024-02-29", "2025-02-28", "2025-03-01"),
        ("2025-10", "2026-10-31", "2026-11-01"),
        ("2025", "2026-12-31", "2027-01-01"),
        ("2016-2025", "2026-12-31", "2027-01-01"),
    ],
)
def test_a_price_is_stale_a_year_after_its_date(as_of: str, last: str, first: str) -> None:
    assert not is_stale(as_of, date.fromisoformat(last))
    assert is_stale(as_of, date.fromisoformat(first))


@settings(deadline=None)  # a busy machine is no failure
@given(st.dates(date(1991, 1, 1), date(2900, 1, 1)), st.dates(date(1991, 1, 1), date(2900, 1, 1)))
def test_what_is_stale_stands_before_the_day_a_year_ago(dated: date, day: date) -> None:
    """`costinsights.report.stale` leaves the others out by their text alone."""
    before = f"{day.year - 1:04}-{day.month:02}-{day.day:02}"
    exact_day = dated.isoformat()
    for as_of in (exact_day, exact_day[:7], exact_day[:4], f"1990-{dated.year:04}"):
        assert not is_stale(as_of, day) or as_of < before


def test_a_date_that_nobody_knows_is_not_stale() -> None:
    assert not is_stale("unknown", date(2026, 11, 23))
    assert advice(["aws.s3.x/y", "capacity:db"]) == (
        "costinsights prices refresh aws or a newer date in your own price file"
    )


def test_a_report_says_what_is_stale(tmp_path: Path) -> None:
    """The lines of these charges are as of 2026-11-01: stale on the second of November after it."""
    program = Program(tmp_path)
    program.call()
    program.call()
    program.call(at=NOON - 40 * 86_400 * 10**9)
    program.close()

    def made(now: datetime, period: Period) -> Iterator[str]:
        report = make(str(tmp_path), "system", period, now=now)
        return (line for line in render(report, "table").splitlines() if line.startswith("Stale"))

    year_later = datetime(2027, 11, 2)
    everything, since = Period(), Period(moment(NOON - 10**9))
    assert not list(made(year_later.replace(day=1), everything))
    (said,) = made(year_later, everything)
    assert "prices of 3 calls are more than a year old: capacity:db (as of 2026-11-01)" in said
    (said,) = made(year_later, since)
    assert "Stale: prices of 2 calls" in said
