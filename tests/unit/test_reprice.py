"""`costinsights prices reprice`: charges priced again, by another book, and once only."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights.cli.prices import prices
from costinsights.ledger.compact import compact
from costinsights.ledger.store import open_store
from costinsights.pricing import PriceBook
from costinsights.pricing.pricer import price_of
from costinsights.pricing.reprice import (
    BILLED,
    CURRENCY,
    NO_LINE,
    NO_USAGE,
    SHARED,
    UNCLEAR,
    UNPRICED,
    Repriced,
    reprice,
)
from costinsights.records import Charge, PriceInfo, Resource, decimal_text
from costinsights.report.summary import make
from costinsights.settlement.writing import write
from tests.examples import examples
from tests.ledgers import aged

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from costinsights.ledger.store import Period
    from costinsights.records import Basis

SINCE = datetime(2026, 11, 1)
SHIPPED = PriceBook.load()
TB = 2**40


def own(folder: Path, key: str, price: str, currency: str = "USD") -> Path:
    """A price file with one line of the shipped book at another price."""
    line = SHIPPED.get(key)
    assert line is not None
    dims = ", ".join(f'{name} = "{value[0]}"' for name, value in line.dims.items())
    path = folder / "own.toml"
    fields = {
        "key": line.key, "provider": line.provider, "service": line.service,
        "system": line.system, "meter": line.meter, "region": line.region, "unit": line.unit,
        "price": price, "currency": currency, "as_of": "2026-11-20", "source": "a test",
    }  # fmt: skip
    text = "[[price]]\n" + "".join(f'{name} = "{value}"\n' for name, value in fields.items())
    text += f"dims = {{ {dims} }}\n" if dims else ""
    text += f'defaults = ["{line.defaults[0]}"]\n' if line.defaults else ""
    for name in ("unit_scale", "minimum", "increment"):
        value = getattr(line, name)
        if value is not None and (name != "unit_scale" or line.meter.endswith("_bytes")):
            text += f'{name} = "{value:f}"\n'
    path.write_text(text)
    return path


def charge(
    number: int,
    system: str,
    usage: dict[str, int | float | str],
    *,
    basis: Basis = "estimated",
    day: int = 10,
    region: str | None = "us-east-1",
    service: str | None = None,
    amount: str | None = None,
    calls: int = 1,
    dims: dict[str, str] | None = None,
    **more: Any,
) -> Charge:
    """A charge as a program would have made it by the shipped book."""
    known = {meter.name for meter in SHIPPED.meters(service or system)}
    counted = {name: value for name, value in usage.items() if name in known}
    quote = SHIPPED.quote(service or system, counted, region, **(dims or {}))
    info = currency = None
    if quote.amount is not None:
        price = price_of(quote)
        info = PriceInfo(*price[:3], price.source, price.as_of, SHIPPED.version)
        currency = price.currency
        amount = amount or decimal_text(int(quote.amount.scaleb(15)) * calls)
    at = f"2026-11-{day:02d}T10:00:00.000000Z"
    fields: dict[str, Any] = {
        "charge_id": f"charge-{number}", "system": system,
        "resource": Resource(region=region, service=service), "operation": "run",
        "statement": None, "started_at": at, "ended_at": at, "duration_ns": 0,
        "usage": {"time_ns": 0, **usage}, "rows": None, "amount": amount, "currency": currency,
        "basis": basis, "price": info, "attribution": {"rule": "unattributed"},
        "trace_id": f"{number:032x}", "span_id": f"{number:016x}", "parent_span_id": None,
        "service": "shop", "host": "host", "pid": 1, "instrumentor": "test",
    }  # fmt: skip
    return Charge(**{**fields, **more})


def run(ledger: Path, book: PriceBook, *, dry_run: bool = False) -> Repriced:
    with open_store(str(ledger)) as store:
        return reprice(store, book, SINCE, dry_run=dry_run)


def totals(ledger: Path) -> dict[str | None, Decimal | None]:
    from costinsights.ledger.store import Period

    everything: Period = Period()
    report = make(str(ledger), "system", everything)
    return {row.item: row.now.amount for row in report.rows}


SCAN = "aws.athena.sql/us-east-1"


def test_a_change_is_said_first_and_written_once(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    write(
        str(ledger),
        [
            charge(1, "aws.athena", {"data_scanned_bytes": TB}),
            charge(2, "aws.athena", {"data_scanned_bytes": 1}, basis="metered"),
            charge(3, "aws.athena", {"data_scanned_bytes": 3 * TB}, day=20),
            charge(4, "aws.glue", {"dpu_seconds": 3600}),
        ],
    )
    book = PriceBook.load(own(tmp_path, SCAN, "6.00"))
    dry = run(ledger, book, dry_run=True)
    (change,) = dry.changes
    assert (change.system, change.key, change.charges) == ("aws.athena", SCAN, 3)
    assert change.before == Decimal("20.000047683715820")
    assert change.difference == change.before / 5
    assert (dry.same, dry.written, dict(dry.left)) == (1, 0, {})
    assert totals(ledger)["aws.athena"] == change.before
    wet = run(ledger, book)
    assert (wet.changes, wet.written) == (dry.changes, 3)
    assert totals(ledger)["aws.athena"] == change.after
    again = run(ledger, book)
    assert (again.changes, again.same, again.written) == ((), 4, 0)
    with open_store(str(ledger)) as store:
        entries = {(one.charge_id, one.revision): one for one in store.charges(history=True)}
        metered = entries["charge-2", 1]
        assert (metered.basis, metered.usage) == ("metered", entries["charge-2", 0].usage)
        assert metered.price is not None
        assert (metered.price.unit_price, metered.price.book) == ("6.00", book.version)


def test_the_short_way_comes_to_the_same_as_the_long_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = [0, 1, 10 * 2**20 + 1, TB, TB // 3, 7 * TB + 12345]
    book = PriceBook.load(own(tmp_path, SCAN, "6.07"))
    found: list[Repriced] = []
    for name in ("short", "long"):
        ledger = tmp_path / name
        charges = [charge(n, "aws.athena", {"data_scanned_bytes": s}) for n, s in enumerate(scans)]
        write(str(ledger), charges)
        if name == "long":
            monkeypatch.setattr("costinsights.pricing.reprice._MOST_KINDS", 0)
        found.append(run(ledger, book))
    assert found[0] == found[1]
    assert found[0].written == len(scans) - 1  # nothing scanned costs nothing


def test_it_goes_back_as_well_and_compacted_charges_are_charges(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    write(str(ledger), [charge(1, "aws.athena", {"data_scanned_bytes": TB})])
    aged(ledger)
    compact(str(ledger))
    run(ledger, PriceBook.load(own(tmp_path, SCAN, "6.00")))
    assert totals(ledger)["aws.athena"] == 6
    run(ledger, SHIPPED)
    assert totals(ledger)["aws.athena"] == 5


def test_only_the_time_that_is_asked_for(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    scans = [charge(day, "aws.athena", {"data_scanned_bytes": TB}, day=day) for day in (9, 10, 11)]
    write(str(ledger), scans)
    until = datetime(2026, 11, 11)
    with open_store(str(ledger)) as store:
        book = PriceBook.load(own(tmp_path, SCAN, "6.00"))
        found = reprice(store, book, until.replace(day=10), until)
    assert [change.charges for change in found.changes] == [1]


def test_what_is_never_touched_is_said(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    scanned: dict[str, int | float | str] = {"data_scanned_bytes": TB}
    one = charge(1, "aws.athena", scanned)
    write(
        str(ledger),
        [
            charge(2, "aws.athena", scanned, basis="billed"),
            charge(3, "aws.athena", scanned, basis="allocated"),
            charge(4, "aws.athena", {**scanned, "capacity_seconds": "3.5"}),
            charge(5, "aws.athena", scanned, price=None, amount="5.000000000000000"),
            charge(6, "aws.athena", scanned, region="eu-nowhere-1"),
            charge(7, "aws.athena", scanned, price=_called("own.scan", one)),
            charge(8, "aws.athena", {"rows": 3}, price=one.price, amount="5", currency="USD"),
            charge(9, "aws.redshift", {"node_seconds": 1}, price=_called(SCAN, one), amount="5",
                   currency="USD"),
        ],
    )  # fmt: skip
    found = run(ledger, PriceBook.load(own(tmp_path, SCAN, "6.00")))
    assert found.left == {BILLED: 1, SHARED: 2, UNPRICED: 2, NO_LINE: 1, NO_USAGE: 2}
    assert (found.changes, found.written) == ((), 0)


def _called(key: str, like: Charge) -> PriceInfo:
    price = like.price
    assert price is not None
    return PriceInfo(key, price.unit_price, price.unit, price.source, price.as_of, price.book)


def test_another_currency_is_left_alone(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    write(str(ledger), [charge(1, "aws.athena", {"data_scanned_bytes": TB})])
    found = run(ledger, PriceBook.load(own(tmp_path, SCAN, "6.00", "EUR")))
    assert found.left == {CURRENCY: 1}


def test_a_sum_of_calls_goes_by_the_ratio_of_the_prices(tmp_path: Path) -> None:
    """Ten scans of a byte are billed for ten megabytes each: no quote of their sum says that."""
    ledger = tmp_path / "ledger"
    write(str(ledger), [charge(1, "aws.athena", {"data_scanned_bytes": 1}, calls=10)])
    book = PriceBook.load(own(tmp_path, SCAN, "6.00"))
    (change,) = run(ledger, book).changes
    assert abs(change.after - change.before * Decimal("1.2")) <= Decimal("1e-15")
    assert run(ledger, book).changes == ()


def test_an_amount_that_follows_from_nothing_stays(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    tier = "aws.s3.standard.storage/us-east-1"
    write(str(ledger), [charge(1, "aws.s3", {"storage_gb_months": 5}, amount="7.000000000000000")])
    text = own(tmp_path, tier, "0.03").read_text() + 'tier_from = "0"\ntier_to = "51200"\n'
    (tmp_path / "own.toml").write_text(text)
    found = run(ledger, PriceBook.load(tmp_path / "own.toml"))
    assert found.left == {UNCLEAR: 1}


def test_words_that_only_the_line_knows_are_taken_from_it(tmp_path: Path) -> None:
    """What a database's hour depends on stood in no charge: the line that priced it has it."""
    ledger = tmp_path / "ledger"
    key = "aws.rds.postgresql.db.m5.large.single_az/us-east-1"
    dims = {"engine": "postgresql", "instance_class": "db.m5.large", "deployment": "single_az"}
    usage: dict[str, int | float | str] = {"instance_seconds": 7200}
    write(str(ledger), [charge(1, "postgresql", usage, service="aws.rds", dims=dims)])
    text = own(tmp_path, key, "0.2").read_text() + 'resource_service = "aws.rds"\n'
    (tmp_path / "own.toml").write_text(text)
    (change,) = run(ledger, PriceBook.load(tmp_path / "own.toml")).changes
    assert (change.before, change.after) == (Decimal("0.356"), Decimal("0.4"))


def test_operations_on_storage_are_priced_by_requests_and_bytes(tmp_path: Path) -> None:
    """As the tally writes them: bytes are counted once, for the retrieval and for the way out."""
    ledger = tmp_path / "ledger"
    keys = (
        "aws.s3.standard_ia.tier2/us-east-1",
        "aws.s3.standard_ia.retrieval/us-east-1",
        "aws.data_transfer.other_region/us-east-1",
    )
    lines = [line for line in map(SHIPPED.get, keys) if line is not None]
    price = PriceInfo(
        " + ".join(keys),
        " + ".join(line.price_text for line in lines),
        " + ".join(line.unit for line in lines),
        "a test", "2026", SHIPPED.version,
    )  # fmt: skip
    usage: dict[str, int | float | str] = {
        "calls": 1000, "tier2_requests": 1000, "sent_bytes": 7, "received_bytes": 2**30,
        "storage_class": "STANDARD_IA", "transfer": "region",
    }  # fmt: skip
    amount = "0.031000000000000"  # 0.001 and 0.01 and 0.02
    write(str(ledger), [charge(1, "aws.s3", usage, price=price, amount=amount, currency="USD")])
    book = PriceBook.load(own(tmp_path, keys[1], "0.03"))
    assert run(ledger, SHIPPED).same == 1
    (change,) = run(ledger, book).changes
    assert (change.before, change.after) == (Decimal("0.031"), Decimal("0.051"))
    assert run(ledger, book).changes == ()


@settings(max_examples=examples(8), deadline=None)
@given(
    st.lists(st.integers(0, 5 * TB), min_size=1, max_size=8),
    st.decimals("0.01", "49.99", places=2),
)
def test_the_sum_of_what_changes_is_what_the_ledger_has_more(
    tmp_path_factory: pytest.TempPathFactory, scans: list[int], price: Decimal
) -> None:
    folder = tmp_path_factory.mktemp("reprice")
    ledger = folder / "ledger"
    charges = [charge(n, "aws.athena", {"data_scanned_bytes": s}) for n, s in enumerate(scans)]
    write(str(ledger), charges)
    book = PriceBook.load(own(folder, SCAN, f"{price}"))
    before = totals(ledger)["aws.athena"] or Decimal(0)
    found = run(ledger, book)
    after = totals(ledger)["aws.athena"] or Decimal(0)
    assert sum((one.difference for one in found.changes), Decimal(0)) == after - before
    quotes = [book.quote("aws.athena", {"data_scanned_bytes": s}, "us-east-1") for s in scans]
    assert Fraction(after) == sum(Fraction(quote.amount or 0) for quote in quotes)
    assert run(ledger, book).changes == ()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    ledger = str(tmp_path / "ledger")
    write(ledger, [charge(1, "aws.athena", {"data_scanned_bytes": TB})])
    path = str(own(tmp_path, SCAN, "6.00"))
    arguments = ["reprice", "--since", "2026-11-01", "--ledger", ledger, "--book", path]
    dry = CliRunner().invoke(prices, [*arguments, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "1 would be another amount, 0 stay the same" in dry.output
    assert "In all +1.000000000000000 USD" in dry.output
    wet = CliRunner().invoke(prices, arguments)
    assert "Entries written: 1." in wet.output
    unknown = CliRunner().invoke(prices, [*arguments[:-1], "2020-01-01+00000000", "--dry-run"])
    assert (unknown.exit_code, "there is no book" in unknown.output) == (2, True)
    shipped = CliRunner().invoke(prices, [*arguments[:-1], SHIPPED.version, "--dry-run"])
    assert "In all -1.000000000000000 USD" in shipped.output
