"""`costinsights prices missing`: each gap once, with the calls that it leaves without a price."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from costinsights.cli.prices import prices
from costinsights.ledger.compact import compact
from costinsights.ledger.store import open_store
from costinsights.pricing import PriceBook
from costinsights.records import Resource
from costinsights.report.missing import CAPACITY, FIGURES, NOTHING, REGION, Missing, missing
from tests.ledgers import UNIT, Program, aged

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    ledger = tmp_path / "ledger"
    program = Program(ledger)

    def call(times: int, system: str, place: Resource, **meters: Any) -> None:
        for _ in range(times):
            program.call(system=system, amount=None, resource=place, u=meters or None)

    call(5, "postgresql", Resource("db.example", 5432, "shop"))
    call(2, "postgresql", Resource("db.example", 5432, "shop"), batch_size=3)
    call(4, "aws.athena", Resource(region="eu-nowhere-1"), data_scanned_bytes=10**9)
    call(3, "aws.athena", Resource(region="us-east-1"), data_scanned_bytes=10**9)
    call(1, "snowflake", Resource("acme.snowflakecomputing.com", region="us-east-1"), credits=2)
    call(9, "acme.db", Resource("acme.example"), parts=7)
    program.call(amount=UNIT)
    program.close()
    return ledger


def found(ledger: Path, book: PriceBook | None = None, *settled: str) -> list[Missing]:
    with open_store(str(ledger)) as store:
        return missing(store, book or PriceBook.load(), settled)


def test_each_gap_is_told_once_with_its_calls(ledger: Path) -> None:
    gaps = {(gap.system, gap.key): gap for gap in found(ledger, None, "acme.db")}
    assert [gap.calls for gap in gaps.values()] == [9, 7, 4, 3, 1]
    assert 'host = "db.example"' in gaps["postgresql", CAPACITY].add
    assert gaps["acme.db", FIGURES].add.startswith("run  costinsights settle acme.db")
    assert "has no price in eu-nowhere-1" in gaps["aws.athena", REGION].add
    assert "prices calls from now on" in gaps["aws.athena", NOTHING].add
    (snowflake,) = (gap for gap in gaps.values() if gap.system == "snowflake")
    assert "edition" in snowflake.key


def test_words_and_reasons_among_the_usage_count(tmp_path: Path) -> None:
    """A job says what its price depends on, or why nothing can be said of it."""
    program = Program(tmp_path)
    here = Resource(namespace="orders", region="us-east-1")
    for usage in (
        {"workers": 2, "worker_type": "G.1X", "execution_seconds": 60},
        {"workers": 2, "worker_type": "G.32X", "old_execution_seconds": 60},
        {"workers": 2, "max_workers": 2, "unpriced": "ExecutionTime is 'ten'"},
    ):
        program.call(system="aws.glue", amount=None, resource=here, u=usage)
    program.close()
    gaps = {gap.key: gap.add for gap in found(tmp_path)}
    assert gaps[NOTHING].startswith("aws.glue.etl.standard/us-east-1 prices calls from now on")
    assert gaps[FIGURES] == "ExecutionTime is 'ten'"
    assert any("dpus takes workers and worker_type" in add for add in gaps.values())


def test_what_has_a_price_now_is_told_apart(ledger: Path) -> None:
    book = PriceBook.load(
        capacities=[{"name": "db", "host": "db.*", "price": "1.20", "currency": "USD"}]
    )
    (gap,) = (gap for gap in found(ledger, book) if gap.system == "postgresql")
    assert gap.key == NOTHING
    assert gap.add == "capacity.db prices calls from now on"


def test_charges_that_got_a_price_later_are_not_in_it(ledger: Path) -> None:
    """Neither while they are live, nor when the compacted row is taken back."""
    program = Program(ledger)
    charge = program.call(system="acme.late", amount=None)
    program.close()
    for squeeze in (False, True):
        assert "acme.late" in {gap.system for gap in found(ledger)}
        if squeeze:
            aged(ledger)
            compact(str(ledger))
    later = Program(ledger)
    later.call(charge_id=charge, revision=1, amount=UNIT, basis="metered", system="acme.late")
    later.close()
    for _ in range(2):
        assert "acme.late" not in {gap.system for gap in found(ledger)}
        aged(ledger)
        compact(str(ledger))
    assert sum(gap.calls for gap in found(ledger)) == 24


def test_the_command(ledger: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    result = run(prices, ["missing", "--ledger", str(ledger)])
    assert result.exit_code == 0
    assert result.output.split()[:6] == ["system", "where", "missing", "calls", "what", "to"]
    assert "db.example" in result.output
    result = run(prices, ["missing", "--ledger", str(ledger), "--format", "json"])
    assert sum(gap["calls"] for gap in json.loads(result.output)) == 24
    program = Program(tmp_path / "other")
    program.call(amount=UNIT)
    program.close()
    result = run(prices, ["missing", "--ledger", str(tmp_path / "other")])
    assert result.output == "Every charge has a price.\n"
