"""`costinsights bill`: the bill added up, and held against what was measured."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from costinsights.billing import pull
from costinsights.ledger.store import Period
from costinsights.records import PriceInfo
from costinsights.report.bill import DIMENSIONS, bill_table, make_bill
from costinsights.report.layout import text_of
from costinsights.settlement.writing import write
from tests.drivers import charge
from tests.pullers import NOW, Acme, AcmePuller, day, line, refused

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    acme = Acme()
    store = {"service": "AmazonS3", "x_UsageKind": "storage", "ResourceName": "lake"}
    acme.pages[day(3)] = [
        [
            line(day(3), "2.50", **store, RegionId="eu-west-1"),
            line(day(3), "1.25", **{**store, "x_UsageKind": "transfer_internet"}),
            line(day(3), "4.00", service="AmazonAthena", x_UsageKind="compute"),
            line(day(3), "-0.75", service="AmazonAthena", ChargeCategory="Credit"),
            line(day(3), "3.00", service="=cmd|calc", BillingCurrency="EUR"),
        ]
    ]
    acme.fails = lambda at, _page: refused() if at == day(2) else None
    acme.bill(day(2), "1")
    folder = str(tmp_path / "ledger")
    pull("acme", day(3), ledger=folder, puller=AcmePuller(acme), now=NOW)
    measured = [("aws.athena", "3.00"), ("aws.s3", "9.00"), ("postgresql", "1.00")]
    write(
        folder,
        [
            charge(
                number,
                0,
                1,
                system=system,
                amount=amount,
                currency="USD",
                basis="estimated",
                price=PriceInfo("own.price", "1", "call", "our contract", "2026-11", "1"),
                started_at="2026-11-20T10:00:00.000000Z",
                ended_at="2026-11-20T10:00:01.000000Z",
            )
            for number, (system, amount) in enumerate(measured)
        ],
    )
    return folder


def test_it_is_held_against_what_was_measured(ledger: str) -> None:
    found = make_bill(ledger, "system", Period())
    assert [(row.item, row.currency, row.billed, row.measured) for row in found.rows] == [
        ("=cmd|calc", "EUR", Decimal(3), None),
        ("aws.s3", "USD", Decimal("3.75"), Decimal(9)),
        ("aws.athena", "USD", Decimal("3.25"), Decimal(3)),
    ]
    # Not more of S3 than was billed, and nothing of what nobody billed.
    assert found.explained == {"EUR": Decimal(0), "USD": Decimal("6.75")}
    assert text_of(bill_table(found, None)) == (
        """\
system     billed  share  measured  explained  lines
────────────────────────────────────────────────────
=cmd|calc   €3.00  100 %         —        0 %      1
────────────────────────────────────────────────────
total EUR   €3.00  100 %         —        0 %      1

system      billed   share  measured  explained  lines
──────────────────────────────────────────────────────
aws.s3       $3.75  53.6 %     $9.00      100 %      2
aws.athena   $3.25  46.4 %     $3.00     92.3 %      2
──────────────────────────────────────────────────────
total USD    $7.00   100 %    $12.00     96.4 %      4

Slices of the bill: 1 open.
Incomplete: acme.bills acme-1 2026-11-21: acme.bills: Throttled, 8 times
"""
    )


@pytest.mark.parametrize("by", sorted(DIMENSIONS))
def test_every_way_of_adding_up_gives_the_same_total(ledger: str, by: str) -> None:
    found = make_bill(ledger, by, Period())
    assert {row.currency: row.billed for row in found.totals} == {
        "EUR": Decimal(3),
        "USD": Decimal(7),
    }
    for limit in (None, 1):
        text = text_of(bill_table(found, 80, limit=limit))
        assert "total USD" in text


def test_kinds_are_said_in_words(ledger: str) -> None:
    text = text_of(bill_table(make_bill(ledger, "kind", Period(), system="aws.s3"), None))
    assert text.startswith(
        """\
kind                               billed   share  lines
────────────────────────────────────────────────────────
capacity, by class                  $2.50  66.7 %      1
data transfer out to the internet   $1.25  33.3 %      1
"""
    )


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "costinsights.cli", "bill", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_programs_get_every_digit(ledger: str) -> None:
    told = json.loads(run("--by", "service", "--format", "json", "--ledger", ledger).stdout)
    whole = {"item": None, "measured": None}
    assert told["totals"] == [
        {**whole, "currency": "EUR", "billed": "3", "lines": 1, "explained": "0"},
        {**whole, "currency": "USD", "billed": "7", "lines": 4, "explained": "6.75"},
    ]
    found = run("--format", "csv", "--ledger", ledger)
    rows = list(csv.DictReader(found.stdout.splitlines()))
    assert [row["item"] for row in rows] == ["'=cmd|calc", "aws.s3", "aws.athena"]


def test_a_time_without_a_bill_says_how_to_get_one(ledger: str) -> None:
    found = run("--until", "2026-11-02", "--ledger", ledger)
    assert (found.returncode, "costinsights pull SOURCE" in found.stdout) == (0, True)
    found = run("--since", "gestern", "--ledger", ledger)
    assert (found.returncode, "'gestern' is not a time" in found.stderr) == (2, True)
