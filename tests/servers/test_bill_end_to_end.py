"""The bills of three clouds in one ledger, by the command line alone, and out again as FOCUS.

The clients are unmodified and what they ask is on this machine; the validator is FOCUS's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from costinsights.records import PriceInfo
from costinsights.settlement.writing import write
from tests.backends import unavailable
from tests.drivers import charge
from tests.focus_validator import NOT_INVOICED, failures
from tests.processes import Unavailable
from tests.servers.aws_server import ACCOUNT, aws_server
from tests.servers.cost_explorer_server import CostExplorer
from tests.servers.cost_management_server import SUBSCRIPTION, TOKEN, cost_management_server
from tests.servers.gcp_billing_server import billing_server, line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DAY = timedelta(days=1)
# Far enough from now for a run that meets midnight, and from the first day that is restated.
FIRST = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0) - 9 * DAY
DAYS = 3
TABLE = "billing.bills.gcp_billing_export_v1_01ABCD_234567_89EFAB"
LAKE = f"{SUBSCRIPTION}/resourceGroups/lake/providers/Microsoft.Storage/storageAccounts/lake"
SAMPLE = Path(__file__).parents[1] / "data" / "focus_sample_1.0.csv"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A folder whose configuration knows three clouds, each with three days of a bill."""
    with (
        aws_server() as aws,
        cost_management_server() as azure,
        billing_server() as google,
    ):
        amazon = CostExplorer(aws)
        google.export(TABLE)
        for number in range(DAYS):
            at = FIRST + number * DAY
            amazon.add(at, "TimedStorage-ByteHrs", "1.25", quantity="54.3", unit="GB-Month")
            amazon.add(at, "DataTransfer-Out-Bytes", "0.36", quantity="4", unit="GB")
            amazon.add(at, "TimedStorage-ByteHrs", "-0.11", record_type="Credit")
            azure.bill(
                at,
                "2.50000001",
                currency="USD",
                ResourceId=LAKE,
                ServiceName="Storage",
                Meter="Hot LRS Data Stored",
            )
            google.bill(
                TABLE,
                line(at, cost=0.125, credits=[{"name": "free", "amount": -0.025, "id": "f"}]),
                line(at, "BigQuery", "Analysis", 3.5),
            )
        options: Mapping[str, Mapping[str, object]] = {
            "aws.cost_explorer": {"endpoint_url": aws.url, "billing_account": ACCOUNT},
            "azure.cost_management": {
                "scopes": [SUBSCRIPTION],
                "endpoint_url": azure.url,
                "token": TOKEN,
            },
            "gcp.billing_export": {
                "project": "tools",
                "tables": [TABLE],
                "endpoint_url": google.url,
            },
        }
        tables = [
            f'[pull."{key}"]\n'
            + "".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items())
            for key, given in options.items()
        ]
        (tmp_path / "costinsights.toml").write_text('ledger = "ledger"\n' + "\n".join(tables))
        yield tmp_path
        amazon.close()


def costinsights(home: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "costinsights.cli", *words],
        cwd=home,
        env={**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_three_clouds_in_one_ledger_and_out_again(home: Path) -> None:
    window = ("--start", f"{FIRST:%Y-%m-%d}", "--end", f"{FIRST + DAYS * DAY:%Y-%m-%d}")
    for source in ("aws.s3", "azure.storage", "gcp"):
        told = json.loads(costinsights(home, "pull", source, *window, "--format", "json"))
        assert (told["published"], told["incomplete"], told["failed"]) == (DAYS, {}, "")
    ended = FIRST + timedelta(hours=10)
    write(
        str(home / "ledger"),
        [
            charge(
                1,
                0,
                1,
                system="gcp.bigquery",
                amount="7.25",
                currency="USD",
                basis="metered",
                price=PriceInfo("gcp.bigquery.scan", "6.25", "TiB", "list", "2026", "1"),
                started_at=f"{ended:%Y-%m-%dT%H:%M:%S}.000000Z",
                ended_at=f"{ended:%Y-%m-%dT%H:%M:%S}.000001Z",
            )
        ],
    )
    told = json.loads(costinsights(home, "bill", "--format", "json"))
    bill: dict[str, Any] = {row["item"]: row for row in told["rows"]}
    # Looking at Amazon's bill had a price, which no bill shows yet.
    assert {name: Decimal(row["billed"]) for name, row in bill.items()} == {
        "aws.s3": DAYS * Decimal("1.50"),
        "azure.storage": DAYS * Decimal("2.50000001"),
        "gcp.bigquery": DAYS * Decimal("3.5"),
        "gcp.storage": DAYS * Decimal("0.1"),
    }
    assert bill["gcp.bigquery"]["measured"] == "7.25"
    assert told["totals"][0]["explained"] == "7.25"
    before = told["totals"][0]["billed"]

    costinsights(home, "pull", "focus", str(SAMPLE), "--start", "2024-09-01", "--end", "2025-01-01")
    costinsights(home, "export", "focus", "--out", "focus")
    months = sorted((home / "focus").glob("BILLING_PERIOD=*/focus.parquet"))
    assert len(months) >= 2
    [(exported,)] = duckdb.execute(
        f"SELECT sum(BilledCost) FROM read_parquet('{home}/focus/*/*.parquet') "
        f"WHERE ChargePeriodStart >= '{FIRST:%Y-%m-%d}'"
    ).fetchall()
    assert exported == Decimal(before)
    try:
        for month in months:
            if month.parent.name >= f"BILLING_PERIOD={FIRST:%Y-%m}":
                assert failures(month) <= NOT_INVOICED
    except Unavailable as reason:
        unavailable("FOCUS's validator", reason)
