"""Importing a large FOCUS export: against a bare ``INSERT … SELECT`` of DuckDB, in one run.

The export is made here, in the cache directory, once: Parquet, a folder a billing period, four files
in each, of one organisation with a hundred accounts under it. What is compared is the CPU time of a
process of its own, from the first import on; peak memory is what that process had at most.

The gate imports 300,000 rows. ``python -m benchmarks bills --rows 10000000`` is the promise.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import msgspec

from benchmarks.outcome import Figure, Outcome, Table

ROWS = 300_000
ROWS_SET = "COSTINSIGHTS_BENCH_ROWS"
PERIODS = ("2026-07", "2026-08", "2026-09", "2026-10")
FILES = 4
ROUNDS = 3
TARGET = 2.0
MEMORY_TARGET = 1024.0

BARE = "bare INSERT … SELECT"
OURS = "costinsights pull focus"
AGAIN = "the same again, unchanged"
SPLIT = "one file of many slices"

# A line of an organisation's bill; everything follows from the row's number, `i`.
_MONEY = "CAST(CAST(hash({0}) % 100000000 AS DECIMAL(18,0)) / 1e10 AS DECIMAL(38,18))"
VALUES = {
    "AvailabilityZone": "CASE WHEN i % 3 = 0 THEN concat('use1-az', i % 6) END",
    "BilledCost": _MONEY.format("i"),
    "BillingAccountId": "'123456789012'",
    "BillingAccountName": "'Acme'",
    "BillingCurrency": "'USD'",
    "BillingPeriodEnd": "TIMESTAMP '{start}' + INTERVAL 1 MONTH",
    "BillingPeriodStart": "TIMESTAMP '{start}'",
    "ChargeCategory": "CASE WHEN i % 997 = 0 THEN 'Tax' ELSE 'Usage' END",
    "ChargeClass": "NULL",
    "ChargeDescription": "concat('$0.023 per GB - first 50 TB / month, ', hash(i) % 900)",
    "ChargeFrequency": "'Usage-Based'",
    "ChargePeriodEnd": "TIMESTAMP '{start}' + to_hours(i % 672 + 1)",
    "ChargePeriodStart": "TIMESTAMP '{start}' + to_hours(i % 672)",
    "ConsumedQuantity": _MONEY.format("i + 1"),
    "ConsumedUnit": "CASE WHEN i % 2 = 0 THEN 'GB-Months' ELSE 'Requests' END",
    "ContractedCost": _MONEY.format("i + 2"),
    "ContractedUnitPrice": "CAST('0.023' AS DECIMAL(38,18))",
    "EffectiveCost": _MONEY.format("i + 3"),
    "InvoiceId": "'{start}'",
    "InvoiceIssuerName": "'AWS'",
    "ListCost": _MONEY.format("i + 4"),
    "ListUnitPrice": "CAST('0.025' AS DECIMAL(38,18))",
    "PricingCategory": "'Standard'",
    "PricingQuantity": _MONEY.format("i + 1"),
    "PricingUnit": "CASE WHEN i % 2 = 0 THEN 'GB-Months' ELSE 'Requests' END",
    "ProviderName": "'AWS'",
    "PublisherName": "'AWS'",
    "RegionId": "concat('us-east-', i % 3)",
    "RegionName": "concat('US East ', i % 3)",
    "ResourceId": "concat('arn:aws:s3:::bucket-', hash(i) % 5000)",
    "ResourceName": "concat('bucket-', hash(i) % 5000)",
    "ResourceType": "'Bucket'",
    "ServiceCategory": "'Storage'",
    "ServiceName": "'Amazon Simple Storage Service'",
    "ServiceSubcategory": "'Object Storage'",
    "SkuId": "concat('SKU', hash(i) % 900)",
    "SkuMeter": "concat('TimedStorage-', hash(i) % 90)",
    "SkuPriceId": "concat('SKU', hash(i) % 900, '.JRTCKXETXF')",
    "SubAccountId": "concat('2222000000', i % 100)",
    "SubAccountName": "concat('account ', i % 100)",
    "Tags": "concat('{{\"team\": \"team ', i % 40, '\"}}')",
    "x_Operation": "CASE WHEN i % 2 = 0 THEN 'StandardStorage' ELSE 'GetObject' END",
    "x_UsageType": "concat('USE1-TimedStorage-ByteHrs-', i % 50)",
}


class Spent(msgspec.Struct):
    """What a process took: CPU and wall seconds, mebibytes at most."""

    cpu: float
    wall: float
    memory: float


def measure(*, quick: bool = False) -> Outcome:
    """Import the export in every way, in turn."""
    rows = int(os.environ.get(ROWS_SET) or ROWS)
    source, single = export(rows), export(rows, single=True)
    spent: dict[str, list[Spent]] = {name: [] for name in (BARE, OURS, AGAIN, SPLIT)}
    for _ in range(1 if quick or rows > ROWS else ROUNDS):
        with TemporaryDirectory(prefix="bench-") as place:
            spent[BARE].append(_run("bare", source, place, rows))
            spent[OURS].append(_run("ours", source, place, rows))
            spent[AGAIN].append(_run("again", source, place, 0))
        with TemporaryDirectory(prefix="bench-") as place:
            spent[SPLIT].append(_run("ours", single, place, rows))
    cpu = {name: median(one.cpu for one in found) for name, found in spent.items()}
    wall = {name: median(one.wall for one in found) for name, found in spent.items()}
    memory = {name: max(one.memory for one in found) for name, found in spent.items()}
    figures = [
        Figure("bills", f"`pull focus` of {rows:,} rows (Parquet), ÷ {BARE}",
               cpu[OURS] / cpu[BARE], TARGET),
        Figure("bills-memory", f"`pull focus` of {rows:,} rows, peak memory",
               memory[OURS], MEMORY_TARGET, "MiB"),
    ]  # fmt: skip
    lines = [
        (
            name,
            f"{cpu[name]:.2f}",
            f"{cpu[name] / cpu[BARE]:.2f}",
            f"{wall[name]:.2f}",
            f"{wall[name] / wall[BARE]:.2f}",
            f"{memory[name]:.0f}",
        )
        for name in spent
    ]
    size = sum(path.stat().st_size for path in source.rglob("*.parquet")) / 1e6
    note = f"{rows:,} rows of {len(VALUES)} columns, {size:,.0f} MB of Parquet in {len(PERIODS)} periods"
    columns = ("what", "CPU s", "÷ bare", "wall s", "÷ bare", "MiB")
    return Outcome(figures, [Table("a large FOCUS export", columns, lines, note)])


def _run(way: str, source: Path, place: str, rows: int) -> Spent:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bills", way, str(source), place, str(rows)],
        check=True,
        stdout=subprocess.PIPE,
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Spent)


# -- one process ----------------------------------------------------------------------------------


def bare(source: Path, place: Path, rows: int) -> None:
    """Insert the columns into a table of DuckDB, on disk."""
    import duckdb

    connection = duckdb.connect(str(place / "bare.duckdb"), config={"memory_limit": "640MB"})
    connection.execute("SET preserve_insertion_order = false")
    files = f"read_parquet('{source}/**/*.parquet', hive_partitioning = false)"
    columns = ", ".join(VALUES)
    connection.execute(f"CREATE TABLE bill AS SELECT {columns} FROM {files} LIMIT 0")
    connection.execute(f"INSERT INTO bill SELECT {columns} FROM {files}")
    counted = connection.execute("SELECT count(*) FROM bill").fetchone()
    assert counted == (rows,), counted
    connection.close()


def ours(source: Path, place: Path, rows: int) -> None:
    """Pull the files into a ledger; nothing is pulled where it is there already."""
    from datetime import datetime, timezone

    from costinsights.billing import pull

    now = datetime(2026, 11, 23, tzinfo=timezone.utc)
    report = pull("focus", path=str(source), ledger=str(place / "ledger"), now=now, restate=True)
    assert not report.failed, report.failed
    assert report.rows == rows, report


WAYS = {"bare": bare, "ours": ours, "again": ours}


def main() -> None:
    """Do it in one way, and print what it took."""
    way, source, place, rows = sys.argv[1:]
    began = perf_counter()
    WAYS[way](Path(source), Path(place), int(rows))
    used = getrusage(RUSAGE_SELF)
    spent = Spent(used.ru_utime + used.ru_stime, perf_counter() - began, used.ru_maxrss / 1024)
    print(msgspec.json.encode(spent).decode())


# -- the export -----------------------------------------------------------------------------------


def export(rows: int, *, single: bool = False) -> Path:
    """Return the folder of the export; `single` has all periods in one file, row by row."""
    recipe = f"{VALUES} {PERIODS} {FILES} {rows} {single}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "costinsights-benchmarks" / f"bills-{sha256(recipe.encode()).hexdigest()[:12]}"
    if place.is_dir():
        return place
    fresh = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        _make(fresh, rows, single=single)
        fresh.rename(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place


def _make(place: Path, rows: int, *, single: bool) -> None:
    import duckdb

    connection = duckdb.connect(config={"memory_limit": "1GB"})
    connection.execute("SET preserve_insertion_order = false")
    each = rows // (len(PERIODS) * FILES)
    parts: list[str] = []
    for number, period in enumerate(PERIODS):
        values = ", ".join(
            f"{text.format(start=f'{period}-01')} AS {name}" for name, text in VALUES.items()
        )
        for file in range(FILES):
            first = (number * FILES + file) * each
            last = rows if number + 1 == len(PERIODS) and file + 1 == FILES else first + each
            query = f"SELECT {values} FROM range({first}, {last}) numbers(i)"
            parts.append(query)
            if not single:
                folder = place / f"BILLING_PERIOD={period}"
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"part-{file}.snappy.parquet"
                connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    if single:
        place.mkdir(parents=True)
        path = place / "all.snappy.parquet"
        connection.execute(f"COPY ({' UNION ALL '.join(parts)}) TO '{path}' (FORMAT parquet)")
    connection.close()


if __name__ == "__main__":
    main()
