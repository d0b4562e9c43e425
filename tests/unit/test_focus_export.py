"""``costinsights export focus``: the whole ledger as FOCUS, and the way back from it."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights.billing import pull
from costinsights.billing.columns import COLUMNS
from costinsights.cli.app import cli
from costinsights.config import load
from costinsights.exporter import Exporter, ExporterUnavailable, WholeExporter
from costinsights.followers import make_exporter
from costinsights.ledger.store import open_store
from costinsights_exporters._focus_services import service_of, unit_of
from costinsights_exporters.focus import FOCUSExporter, FOCUSOptions
from tests.examples import examples
from tests.focus_ledger import BILLS, CALLS, bills, calls
from tests.focus_rows import as_csv, as_parquet, november, row
from tests.ledgers import DAY, NOON, UNIT, Program
from tests.pullers import NOW

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE = Path(__file__).parents[1] / "data" / "focus_sample_1.0.csv"
MONTH = "BILLING_PERIOD=2026-11"


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def write(ledger: str, out: Path, formats: Sequence[Any] = ("parquet", "csv")) -> str:
    exporter = FOCUSExporter(FOCUSOptions(str(out), tuple(formats), ledger))
    return exporter.write().replace(str(out), "OUT")


def rows(out: Path, columns: str = "*", where: str = "true") -> list[dict[str, Any]]:
    """What is in the Parquet files, by column."""
    found = duckdb.execute(
        f"SELECT {columns} FROM read_parquet('{out}/*/*.parquet', hive_partitioning = false) "
        f"WHERE {where} ORDER BY ALL"
    )
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, one, strict=True)) for one in found.fetchall()]


# -- what is in it --------------------------------------------------------------------------------


def test_every_charge_is_there_once_with_its_amount(ledger: str, out: Path) -> None:
    calls(ledger)
    bills(ledger)
    lines = sum(map(len, BILLS.values()))
    assert write(ledger, out) == f"1 of 1 billing periods written, {CALLS + lines} rows, in OUT"
    with open_store(ledger) as store:
        charges = {charge.charge_id: charge for charge in store.charges()}
    found = {
        one["x_ChargeId"]: one
        for one in rows(out, where="x_Basis <> 'billed' OR x_ChargeId IS NOT NULL")
    }
    assert found.keys() == charges.keys()
    assert len(found) == CALLS
    for charge_id, charge in charges.items():
        one = found[charge_id]
        amount = None if charge.amount is None else Decimal(charge.amount)
        assert (one["x_EstimatedCost"], one["x_Basis"]) == (amount, charge.basis)
        assert one["ListCost"] == one["ContractedCost"] == one["EffectiveCost"] == (amount or 0)
        assert one["BilledCost"] == 0
        assert (one["x_TraceId"], one["x_SpanId"]) == (charge.trace_id, charge.span_id)
        assert one["BillingAccountId"] == "costinsights"
        assert one["x_System"] == charge.system
        if charge.price is not None:
            assert one["SkuId"] == charge.price.key
            assert one["x_PriceAsOf"] == charge.price.as_of


def test_the_bill_is_there_as_it_was_pulled(ledger: str, out: Path) -> None:
    bills(ledger)
    write(ledger, out)
    expected = Counter(
        (provider, Decimal(line["BilledCost"]), line.get("ChargeCategory", "Usage"))
        for provider, lines in BILLS.items()
        for line in lines
    )
    found = rows(out, "ProviderName, BilledCost, ChargeCategory")
    assert Counter(tuple(one.values()) for one in found) == expected
    assert {one["x_Basis"] for one in rows(out)} == {"billed"}


def test_attribution_becomes_tags(ledger: str, out: Path) -> None:
    calls(ledger)
    write(ledger, out)
    tags = [json.loads(one["Tags"]) for one in rows(out, "Tags", "Tags IS NOT NULL")]
    assert tags == [{"asset": "orders", "job": "nightly", "team": "shop", "cost centre": "7"}] * 2


def test_a_charge_says_what_was_consumed_and_priced(ledger: str, out: Path) -> None:
    calls(ledger)
    write(ledger, out)
    (scan,) = rows(out, where="x_System = 'aws.athena'")
    assert (scan["ConsumedQuantity"], scan["ConsumedUnit"]) == (12_345_678, "B")
    assert (scan["ServiceName"], scan["ServiceCategory"]) == ("Amazon Athena", "Analytics")
    first = rows(out, where="x_System = 'postgresql' AND RegionId IS NULL")[0]
    assert (first["ConsumedQuantity"], first["ConsumedUnit"]) == (1, "Seconds")
    assert (first["PricingUnit"], first["SkuMeter"], first["ListUnitPrice"]) == (
        "Hours",
        "hour",
        Decimal("3.6"),
    )
    assert first["PricingQuantity"] * first["ListUnitPrice"] == pytest.approx(first["ListCost"])
    assert (first["ProviderName"], first["ServiceName"]) == ("Self-hosted", "PostgreSQL")
    (managed,) = rows(out, where="RegionId = 'eu-west-1'")
    assert (managed["ProviderName"], managed["ServiceName"]) == (
        "AWS",
        "Amazon Relational Database Service",
    )
    (unknown,) = rows(out, where="x_System = 'trino'")
    assert unknown["x_EstimatedCost"] is None
    assert unknown["ListUnitPrice"] is None
    assert unknown["SkuPriceId"] is None


def test_every_column_of_focus_is_there_in_its_order(ledger: str, out: Path) -> None:
    calls(ledger)
    write(ledger, out)
    (first, *_) = rows(out)
    names = [column.name for column in COLUMNS]
    assert list(first)[: len(names)] == names
    assert all(name.startswith("x_") for name in list(first)[len(names) :])
    described = duckdb.execute(f"DESCRIBE SELECT * FROM '{out}/{MONTH}/focus.parquet'").fetchall()
    kinds = {name: kind for name, kind, *_ in described}
    assert {kinds[column.name] for column in COLUMNS if column.kind == "number"} == {
        "DECIMAL(38,18)"
    }


def test_an_empty_ledger_has_no_periods(ledger: str, out: Path) -> None:
    assert write(ledger, out) == "0 of 0 billing periods written, 0 rows, in OUT"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("hour", "Hours"),
        ("DPU-Hour", "Hours"),
        ("GB-month", "GB-Months"),
        ("GiB", "GiB"),
        ("10k operations", "10000 Requests"),
        ("100 operations", "100 Requests"),
        ("1k runs", "1000 Units"),
        ("credit", "Units"),
        ("request", "Requests"),
    ],
)
def test_units_are_written_as_focus_has_them(text: str, unit: str) -> None:
    assert unit_of(text) == unit


def test_a_system_that_nobody_knows_is_somebodys() -> None:
    assert service_of("aws.brand_new", None)[:3] == ("AWS", "aws.brand_new", "Other")
    assert service_of("my.db", None)[:3] == ("Self-hosted", "my.db", "Other")
    assert service_of("aws.emr_serverless", None).provider == "AWS"


# -- only what has changed ------------------------------------------------------------------------


def stamps(out: Path) -> dict[str, int]:
    """Which file each path is now."""
    return {str(path.relative_to(out)): path.stat().st_ino for path in sorted(out.glob("*/*"))}


def test_what_has_not_changed_is_not_written_again(ledger: str, out: Path) -> None:
    calls(ledger)
    bills(ledger)
    write(ledger, out)
    before = stamps(out)
    assert write(ledger, out) == "0 of 1 billing periods written, 0 rows, in OUT"
    assert stamps(out) == before
    assert set(before) == {f"{MONTH}/focus.parquet", f"{MONTH}/focus.csv"}


def test_a_further_charge_and_a_later_figure_write_their_period_alone(
    ledger: str, out: Path
) -> None:
    program = Program(ledger)
    charge = program.call(at=NOON - 40 * DAY)
    program.call()
    write(ledger, out)
    before = stamps(out)
    at = NOON - 40 * DAY
    program.call(at=at, charge_id=charge, revision=1, basis="metered", amount=7 * UNIT)
    assert write(ledger, out).startswith("1 of 2 billing periods written, 1 rows")
    assert rows(out, "EffectiveCost", "x_Basis = 'metered'") == [{"EffectiveCost": 7}]
    changed = {name for name, inode in stamps(out).items() if before[name] != inode}
    assert {name.partition("/")[0] for name in changed} == {"BILLING_PERIOD=2026-10"}
    program.close()


def test_a_restated_slice_writes_its_period_alone(ledger: str, out: Path, tmp_path: Path) -> None:
    path = as_csv(tmp_path / "bill.csv", [row(), november()])
    pull("focus", path=str(path), ledger=ledger, now=NOW)
    assert write(ledger, out).startswith("2 of 2 billing periods written, 2 rows")
    as_csv(path, [row(), november(BilledCost="9")])
    pull("focus", path=str(path), ledger=ledger, now=NOW)
    assert write(ledger, out).startswith("1 of 2 billing periods written, 1 rows")
    assert rows(out, "sum(BilledCost) AS billed") == [{"billed": Decimal("10.5")}]


def test_a_file_that_somebody_has_changed_or_deleted_is_written_again(
    ledger: str, out: Path
) -> None:
    calls(ledger)
    write(ledger, out)
    path = out / MONTH / "focus.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert write(ledger, out).startswith("1 of 1")
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())
    path.unlink()
    assert write(ledger, out).startswith("1 of 1")


def test_a_form_that_is_wanted_no_more_goes_with_its_period(ledger: str, out: Path) -> None:
    calls(ledger)
    write(ledger, out)
    assert write(ledger, out, ["parquet"]).startswith("1 of 1")
    assert [path.name for path in (out / MONTH).iterdir()] == ["focus.parquet"]


def test_what_is_killed_half_way_leaves_whole_files(
    ledger: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls(ledger)
    write(ledger, out)
    whole = {path: path.read_bytes() for path in out.glob("*/*")}
    program = Program(ledger)
    program.call(at=NOON + 1)
    program.close()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("costinsights_exporters.focus.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(ledger, out)
    assert {path: path.read_bytes() for path in whole} == whole
    assert write(ledger, out).startswith("1 of 1")
    assert len(rows(out)) == CALLS + 1
    assert not list(out.glob("*/*.new"))


def test_files_are_their_owners_only(ledger: str, out: Path) -> None:
    calls(ledger)
    write(ledger, out)
    for path in [out, *out.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


# -- the command line and programs ----------------------------------------------------------------


def test_the_command_writes_and_says_so(ledger: str, out: Path) -> None:
    calls(ledger)
    done = CliRunner().invoke(
        cli, ["export", "focus", "--out", str(out), "--ledger", ledger], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert f"focus: 1 of 1 billing periods written, {CALLS} rows, in {out}" in done.stderr
    # No charge is handed to it one by one, and nothing notes that one was.
    assert not os.path.exists(os.path.join(ledger, "exporters", "focus"))


def test_the_command_needs_to_know_where_to(ledger: str) -> None:
    calls(ledger)
    done = CliRunner().invoke(cli, ["export", "focus", "--ledger", ledger])
    assert done.exit_code == 2
    assert "costinsights export focus --out DIR" in done.stderr
    done = CliRunner().invoke(cli, ["export", "null", "--out", "x", "--ledger", ledger])
    assert done.exit_code == 2
    assert "--out is for" in done.stderr


def test_a_program_hands_it_charges_and_waits_for_nothing(ledger: str, out: Path) -> None:
    config = load(ledger=ledger, config={"exporter": {"focus": {"out": str(out)}}})
    exporter = make_exporter("focus", config)
    assert isinstance(exporter, WholeExporter)
    assert isinstance(exporter, Exporter)
    exporter.export([])
    exporter.shutdown()
    assert not out.exists()
    calls(ledger)
    assert exporter.write().startswith("1 of 1")
    with pytest.raises(ExporterUnavailable, match="it needs a folder"):
        FOCUSExporter().write()


# -- there and back -------------------------------------------------------------------------------


def fetched(source: str) -> list[dict[str, Any]]:
    """All rows of a source of DuckDB, by column."""
    found = duckdb.execute(f"SELECT * FROM {source}")
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, one, strict=True)) for one in found.fetchall()]


def test_the_public_sample_loses_nothing(ledger: str, out: Path) -> None:
    """Totals to the last digit, and every value of every row."""
    report = pull("focus", path=str(SAMPLE), ledger=ledger, now=NOW)
    assert (report.rows, report.slices) == (1000, 4)
    write(ledger, out)
    for form, source in (
        ("parquet", f"read_parquet('{out}/*/focus.parquet', hive_partitioning = false)"),
        ("csv", f"read_csv('{out}/*/focus.csv', all_varchar = true, hive_partitioning = false)"),
    ):
        _same_totals(source, form)
        _same_rows(source)


MONEY_COLUMNS = ("BilledCost", "EffectiveCost", "ListCost")
AS_GIVEN = f"read_csv('{SAMPLE}', all_varchar = true, nullstr = ['NULL', ''], header = true)"
KEYS = "ProviderName, ServiceName, ServiceCategory, CAST(BillingPeriodStart AS TIMESTAMP)"


def _same_totals(source: str, form: str) -> None:
    sums = ", ".join(f"sum(CAST({name} AS DECIMAL(38,18)))" for name in MONEY_COLUMNS)
    query = f"SELECT {KEYS}, count(*), {sums} FROM {{}} GROUP BY 1, 2, 3, 4 ORDER BY ALL"
    expected = duckdb.execute(query.format(AS_GIVEN)).fetchall()
    assert len(expected) == 35
    assert duckdb.execute(query.format(source)).fetchall() == expected, form


def _same_rows(source: str) -> None:
    kinds = {column.name: column.kind for column in COLUMNS}
    exported = {one["x_Id"]: one for one in fetched(source)}
    assert len(exported) == 1000
    completed: Counter[str] = Counter()
    for given_row in fetched(AS_GIVEN):
        back = exported[given_row["Id"]]
        for name, text in given_row.items():
            value = back["x_Id" if name == "Id" else name]
            if text is None and value is not None:
                completed[name] += 1
            else:
                assert _value(value, kinds.get(name)) == _value(text, kinds.get(name)), name
    # FOCUS allows no NULL there, and the sample has it all the same: Oracle's.
    assert completed == {"ContractedCost": 7}


def _value(value: object, kind: str | None) -> object:
    if value is None:
        return None
    if kind == "number":
        return Decimal(str(value))
    if kind == "moment":
        return str(value).replace("T", " ").rstrip("Z")
    if kind == "json":
        return json.loads(str(value))
    return str(value)


AMOUNTS = st.decimals(
    min_value=Decimal("-9e19"), max_value=Decimal("9e19"), places=18
) | st.decimals(min_value=-1, max_value=1, places=18)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20
).filter(lambda text: text.strip() == text and text != "NULL")


@settings(max_examples=examples(10), deadline=None)
@given(
    lines=st.lists(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, TEXTS), min_size=1, max_size=6),
    parquet=st.booleans(),
)
def test_any_rows_survive_there_and_back(
    lines: list[tuple[Decimal, Decimal, Decimal, str]], parquet: bool
) -> None:
    with TemporaryDirectory() as folder:
        ledger, out = os.path.join(folder, "ledger"), Path(folder, "out")
        put = as_parquet if parquet else as_csv
        source = put(
            Path(folder, "rows.parquet"),
            [
                row(
                    BilledCost=f"{billed:f}",
                    EffectiveCost=f"{effective:f}",
                    PricingQuantity=f"{quantity:f}",
                    ChargeDescription=text,
                    x_Number=str(number),
                )
                for number, (billed, effective, quantity, text) in enumerate(lines)
            ],
        )
        pull("focus", path=str(source), ledger=ledger, now=NOW)
        write(ledger, out)
        names = ("BilledCost", "EffectiveCost", "PricingQuantity", "ChargeDescription")
        expected = {str(number): line for number, line in enumerate(lines)}
        for one in rows(out):
            assert tuple(one[name] for name in names) == expected.pop(one["x_Number"])
        assert not expected
        # And what was exported can be pulled again: once more the same.
        again = os.path.join(folder, "again")
        report = pull(
            "focus", path=str(out / "BILLING_PERIOD=2026-10" / "focus.csv"), ledger=again, now=NOW
        )
        assert report.rows == len(lines)
        billed = sum((line[0] for line in lines), Decimal(0))
        assert Decimal(report.billed["USD"]) == billed
