"""Data Exports as AWS delivers them: CUR 2.0 and FOCUS, in a folder and from there into moto's S3.

Synthetic: columns and layout as AWS documents them; that AWS fills them in the same way it cannot
prove.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import TYPE_CHECKING, Any

import duckdb

from tests.servers.aws_server import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.servers.aws_server import AWSServer

    Row = Mapping[str, Any]

BUCKET = "billing-bucket"
NAME = "costs"
PREFIX = f"exports/{NAME}"
URL = f"s3://{BUCKET}/{PREFIX}"
DAY = timedelta(days=1)

# The columns of the report that are read, and some that are not, with their types in Parquet.
TYPES: dict[str, str] = {
    "bill_bill_type": "VARCHAR",
    "bill_billing_entity": "VARCHAR",
    "bill_billing_period_end_date": "TIMESTAMP",
    "bill_billing_period_start_date": "TIMESTAMP",
    "bill_invoice_id": "VARCHAR",
    "bill_invoicing_entity": "VARCHAR",
    "bill_payer_account_id": "VARCHAR",
    "bill_payer_account_name": "VARCHAR",
    "identity_line_item_id": "VARCHAR",
    "identity_time_interval": "VARCHAR",
    "line_item_availability_zone": "VARCHAR",
    "line_item_currency_code": "VARCHAR",
    "line_item_legal_entity": "VARCHAR",
    "line_item_line_item_description": "VARCHAR",
    "line_item_line_item_type": "VARCHAR",
    "line_item_net_unblended_cost": "DOUBLE",
    "line_item_operation": "VARCHAR",
    "line_item_product_code": "VARCHAR",
    "line_item_resource_id": "VARCHAR",
    "line_item_unblended_cost": "DOUBLE",
    "line_item_usage_account_id": "VARCHAR",
    "line_item_usage_account_name": "VARCHAR",
    "line_item_usage_amount": "DOUBLE",
    "line_item_usage_end_date": "TIMESTAMP",
    "line_item_usage_start_date": "TIMESTAMP",
    "line_item_usage_type": "VARCHAR",
    "pricing_public_on_demand_cost": "DOUBLE",
    "pricing_rate_code": "VARCHAR",
    "pricing_unit": "VARCHAR",
    "product": "MAP(VARCHAR, VARCHAR)",
    "product_region_code": "VARCHAR",
    "product_sku": "VARCHAR",
    "reservation_effective_cost": "DOUBLE",
    "reservation_reservation_a_r_n": "VARCHAR",
    "resource_tags": "MAP(VARCHAR, VARCHAR)",
    "savings_plan_savings_plan_a_r_n": "VARCHAR",
    "savings_plan_savings_plan_effective_cost": "DOUBLE",
    "savings_plan_total_commitment_to_date": "DOUBLE",
    "savings_plan_used_commitment": "DOUBLE",
}
_numbers = count(1)


def line(day: datetime, usage_type: str, cost: str, **more: Any) -> dict[str, Any]:
    """A line of a usage report: of S3 and a day, unless `more` says else; names may be short."""
    start = day.replace(day=1)
    row: dict[str, Any] = {
        **dict.fromkeys(TYPES),
        "bill_bill_type": "Anniversary",
        "bill_billing_entity": "AWS",
        "bill_billing_period_start_date": start,
        "bill_billing_period_end_date": (start + 32 * DAY).replace(day=1),
        "bill_payer_account_id": ACCOUNT,
        "bill_invoicing_entity": "Amazon Web Services EMEA SARL",
        "identity_line_item_id": f"{os.urandom(8).hex()}-{next(_numbers)}",
        "line_item_currency_code": "USD",
        "line_item_line_item_type": "Usage",
        "line_item_product_code": "AmazonS3",
        "line_item_unblended_cost": cost,
        "line_item_usage_account_id": "222222222222",
        "line_item_usage_start_date": day,
        "line_item_usage_end_date": day + DAY,
        "line_item_usage_type": usage_type,
        "product": {"product_name": "Amazon Simple Storage Service"},
    }
    for name, value in more.items():
        [full] = [one for one in TYPES if one in (name, f"line_item_{name}")]
        row[full] = value
    return row


def as_csv(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows as AWS writes CSV: moments with T and Z, maps as JSON, gzipped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        writer.writerows([_text(value) for value in row.values()] for row in rows)
    return path


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value)
    return f"{value:%Y-%m-%dT%H:%M:%S.000Z}" if isinstance(value, datetime) else str(value)


def as_parquet(path: Path, rows: Sequence[Row], types: Mapping[str, str] = TYPES) -> Path:
    """Write rows as Parquet with the report's types; columns that have none in `types` are text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(":memory:")
    names = list(rows[0])
    columns = ", ".join(f'"{name}" {types.get(name, "VARCHAR")}' for name in names)
    connection.execute(f"CREATE TABLE lines ({columns})")
    values = [[_plain(row[name]) for name in names] for row in rows]
    connection.executemany(f"INSERT INTO lines VALUES ({', '.join('?' * len(names))})", values)
    connection.execute(f"COPY lines TO '{path}' (FORMAT parquet)")
    connection.close()
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(timezone.utc).replace(tzinfo=None)
    return value


class Export:
    """An export that is delivered again and again."""

    def __init__(self, root: Path, *, form: str = "parquet", create_new: bool = False) -> None:
        self.root = root
        self.form = form
        self.create_new = create_new
        self.types: Mapping[str, str] = TYPES
        self._executions = count(1)

    def deliver(self, *files: Sequence[Row], period: str = "2026-11", **said: Any) -> list[Path]:
        """Write files of a billing period, and then the manifest; `said` is added to it."""
        partition = f"BILLING_PERIOD={period}"
        execution = f"2026-11-{next(self._executions):02}T04:00:00.000Z-1f2e3d"
        folder = self.root / "data" / partition
        if self.create_new:
            folder /= execution
        suffix = "snappy.parquet" if self.form == "parquet" else "csv.gz"
        paths: list[Path] = []
        for number, rows in enumerate(files, 1):
            path = folder / f"{NAME}-{number:05}.{suffix}"
            if self.form == "parquet":
                as_parquet(path, rows, self.types)
            else:
                as_csv(path, rows)
            paths.append(path)
        manifest: dict[str, Any] = {
            "exportArn": f"arn:aws:bcm-data-exports:us-east-1:{ACCOUNT}:export/{NAME}-1",
            "executionId": execution,
            "columns": [{"name": name, "type": "string"} for name in files[0][0]],
            "dataFiles": [f"{URL}/{path.relative_to(self.root)}" for path in paths],
            **said,
        }
        self.manifest(manifest, period)
        return paths

    def manifest(self, said: object, period: str = "2026-11") -> Path:
        """Write the manifest of a period."""
        path = self.root / "metadata" / f"BILLING_PERIOD={period}" / f"{NAME}-Manifest.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said if isinstance(said, str) else json.dumps(said))
        return path

    def upload(self, server: AWSServer) -> None:
        """Put all of it into moto's S3, manifests last, as AWS does."""
        client = server.client("s3")
        try:
            client.create_bucket(Bucket=BUCKET)
            files = sorted(path for path in self.root.rglob("*") if path.is_file())
            for path in sorted(files, key=lambda path: "metadata" in path.parts):
                key = f"{PREFIX}/{path.relative_to(self.root)}"
                client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        finally:
            client.close()
