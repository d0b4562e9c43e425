"""FOCUS files for tests: rows with every mandatory column, written as a provider would."""

from __future__ import annotations

import csv
import gzip
import io
from typing import TYPE_CHECKING

import duckdb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Row = Mapping[str, str | None]

MONEY = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost", "PricingQuantity")
BASE: dict[str, str | None] = {
    "BilledCost": "1.5",
    "BillingAccountId": "111122223333",
    "BillingAccountName": "Acme",
    "BillingCurrency": "USD",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeClass": None,
    "ChargeDescription": "storage",
    "ChargePeriodEnd": "2026-10-06T00:00:00Z",
    "ChargePeriodStart": "2026-10-05T00:00:00Z",
    "ContractedCost": "1.5",
    "EffectiveCost": "1.5",
    "InvoiceIssuerName": "AWS",
    "ListCost": "1.5",
    "PricingQuantity": "3",
    "PricingUnit": "GB-Months",
    "ProviderName": "AWS",
    "PublisherName": "AWS",
    "ServiceCategory": "Storage",
    "ServiceName": "Amazon Simple Storage Service",
}


def row(**changed: str | None) -> dict[str, str | None]:
    """A line of storage, with some columns changed or added."""
    return {**BASE, **changed}


def without(*names: str, **changed: str | None) -> dict[str, str | None]:
    """A line that lacks columns."""
    return {name: value for name, value in row(**changed).items() if name not in names}


def november(**changed: str | None) -> dict[str, str | None]:
    """A line of the next billing period."""
    return row(
        BillingPeriodStart="2026-11-01T00:00:00Z",
        BillingPeriodEnd="2026-12-01T00:00:00Z",
        ChargePeriodStart="2026-11-05T00:00:00Z",
        ChargePeriodEnd="2026-11-06T00:00:00Z",
        **changed,
    )


def as_csv(path: Path, rows: Sequence[Row], null: str = "") -> Path:
    """Write rows as CSV, gzipped where the name says so."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    writer.writerows([null if value is None else value for value in one.values()] for one in rows)
    data = text.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def as_parquet(path: Path, rows: Sequence[Row], types: Mapping[str, str] | None = None) -> Path:
    """Write rows as Parquet; money is DECIMAL(38,18) and moments TIMESTAMP, unless `types` says else."""
    known = {
        **dict.fromkeys(MONEY, "DECIMAL(38,18)"),
        **{name: "TIMESTAMP" for name in BASE if name.endswith(("Start", "End"))},
        **(types or {}),
    }
    source = as_csv(path.with_suffix(".tmp"), rows)
    columns = ", ".join(
        f'CAST("{name}" AS {known.get(name, "VARCHAR")}) AS "{name}"' for name in rows[0]
    )
    connection = duckdb.connect()
    connection.execute(
        f"COPY (SELECT {columns} FROM read_csv('{source}', all_varchar = true, header = true)) "
        f"TO '{path}' (FORMAT parquet)"
    )
    connection.close()
    source.unlink()
    return path
