"""A report over ten million compacted charges, against the bare DuckDB query for the same sums.

The ledger is made by DuckDB in the layout that compaction writes, once, and kept in the user's
cache. The promise is held where it is hardest: without the days' sums that compaction adds, so that
the report has to read every charge, as the bare query does. How much those sums help is shown.
"""

from __future__ import annotations

import os
import shutil
from hashlib import sha256
from pathlib import Path
from statistics import median
from time import perf_counter_ns, process_time_ns
from typing import TYPE_CHECKING

import duckdb

from benchmarks.measuring import Lane, interleave
from benchmarks.outcome import Figure, Outcome, Table
from costinsights.ledger import manifest as manifests
from costinsights.ledger.columns import COLUMNS, quoted
from costinsights.ledger.manifest import File, Manifest
from costinsights.ledger.store import TOTALS_KEYS, TOTALS_SUMS, Period
from costinsights.report import make, render

if TYPE_CHECKING:
    from collections.abc import Callable

DAYS = 10
CHARGES_A_DAY = 1_000_000
ROUNDS = 5
QUICK_ROUNDS = 3
TARGET = 2.0
BARE = "bare DuckDB query"
REPORT = "report --by asset"
WITH_SUMS = "report --by asset, with the days' sums"

# A day of a warehouse: 40 assets of 12 jobs of 5 teams, 200 statements, 1 call in 50 without a
# price and 1 in 500 that fails. Everything follows from the row's number, `i`.
_VALUES = {
    "charge_id": "concat(substr(md5(concat('{day}', i // 50000)), 1, 20), '-', i)",
    "revision": "0",
    "calls": "1",
    "errors": "CASE WHEN i % 500 = 0 THEN 1 ELSE 0 END",
    "system": "CASE WHEN i % 3 = 0 THEN 'duckdb' ELSE 'postgresql' END",
    "address": "'db.example'",
    "port": "5432",
    "namespace": "'shop'",
    "operation": "CASE WHEN i % 4 = 0 THEN 'INSERT' ELSE 'SELECT' END",
    "fingerprint": "substr(md5(CAST(hash(i) % 200 AS VARCHAR)), 1, 16)",
    "summary": "concat('SELECT table_', hash(i) % 200)",
    "text": "concat('SELECT a, b, sum(c) FROM table_', hash(i) % 200, ' WHERE id = ? GROUP BY ?, ?')",
    "started_at": "TIMESTAMP '{day}' + to_microseconds(i * 86000)",
    "ended_at": "TIMESTAMP '{day}' + to_microseconds(i * 86000 + CAST(hash(i) % 90000 AS BIGINT))",
    "duration_ns": "CAST(hash(i) % 90000000 AS BIGINT)",
    "rows": "CAST(hash(i) % 1000 AS BIGINT)",
    "amount": "CASE WHEN i % 50 <> 0 THEN CAST(hash(i) % 90000000 AS DECIMAL(38,15)) * 1e-12 END",
    "currency": "CASE WHEN i % 50 <> 0 THEN 'USD' END",
    "basis": "CASE WHEN i % 50 <> 0 THEN 'estimated' ELSE 'unknown' END",
    "price_key": "CASE WHEN i % 50 <> 0 THEN 'capacity' END",
    "asset": "concat('asset_', hash(i) % 40)",
    "job": "concat('job_', hash(i) % 12)",
    "team": "concat('team_', hash(i) % 5)",
    "rule": "'scope'",
    "trace_flags": "1",
    "partial": "false",
    "service": "'pipeline'",
    "host": "'worker-1'",
    "pid": "4242",
    "instrumentor": "'psycopg'",
}


def measure(*, quick: bool = False) -> Outcome:
    """Run the reports and the query in turn."""
    whole, summed = ledger(totals=False), ledger(totals=True)
    lanes = [
        Lane(BARE, lambda: _query(whole)),
        Lane(REPORT, lambda: _report(whole)),
        Lane(WITH_SUMS, lambda: _report(summed)),
    ]
    spent: dict[str, tuple[float, float]] = {}
    times: dict[str, dict[str, float]] = {}
    clocks: dict[str, Callable[[], int]] = {"CPU": process_time_ns, "wall": perf_counter_ns}
    for name, clock in clocks.items():
        rounds = interleave(
            lanes, rounds=QUICK_ROUNDS if quick else ROUNDS, calls=1, clock=clock, warm_up=0
        )
        times[name] = {lane.name: median(rounds.taken[lane.name]) for lane in lanes}
    for lane in lanes:
        spent[lane.name] = times["CPU"][lane.name], times["wall"][lane.name]
    rows = [
        (
            name,
            f"{cpu / 1e6:.2f}",
            f"{cpu / spent[BARE][0]:.2f}",
            f"{wall / 1e6:.2f}",
            f"{wall / spent[BARE][1]:.2f}",
        )
        for name, (cpu, wall) in spent.items()
    ]
    count = DAYS * CHARGES_A_DAY
    figure = Figure(
        "report", f"`report` over {count:,} entries (Parquet), ÷ {BARE}",
        spent[REPORT][0] / spent[BARE][0], TARGET,
    )  # fmt: skip
    size = sum(file.size for file in manifests.load(whole).files) / count
    note = f"{count:,} charges, {size:.0f} bytes each in Parquet, DuckDB {duckdb.__version__}"
    columns = ("what", "CPU s", "÷ bare", "wall s", "÷ bare")
    return Outcome([figure], [Table("a report over ten million charges", columns, rows, note)])


def _report(directory: str) -> None:
    made = make(directory, "asset", Period())
    assert made.calls == DAYS * CHARGES_A_DAY, made.calls
    render(made, "csv")


def _query(directory: str) -> None:
    folder = os.path.join(manifests.folder(directory), "charges")
    connection = duckdb.connect()
    try:
        found = connection.execute(
            "SELECT asset, currency, basis, sum(calls), sum(errors), sum(amount), "
            "sum(duration_ns), sum(rows) "
            f"FROM read_parquet('{folder}/*/*.parquet') GROUP BY ALL"
        ).fetchall()
    finally:
        connection.close()
    assert found


# -- the ledger -----------------------------------------------------------------------------------


def ledger(*, totals: bool) -> str:
    """Return the directory of the ledger; it is made where the cache does not have it yet."""
    recipe = f"{COLUMNS} {_VALUES} {TOTALS_KEYS} {TOTALS_SUMS} {DAYS} {CHARGES_A_DAY}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "costinsights-benchmarks" / sha256(recipe.encode()).hexdigest()[:12]
    directory = place / ("summed" if totals else "whole")
    if directory.is_dir():
        return str(directory)
    fresh = place / f"{directory.name}.{os.getpid()}"
    try:
        _make(fresh, linked=Path(ledger(totals=False)) if totals else None)
        fresh.rename(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return str(directory)


def _make(directory: Path, *, linked: Path | None) -> None:
    """Write the charges; where another ledger has them, `linked`, write the sums of each day."""
    folder = Path(manifests.folder(str(directory)))
    files: list[File] = []
    connection = duckdb.connect()
    for number in range(DAYS):
        day = f"2026-10-{number + 1:02d}"
        name = f"charges/date={day}/000001-{number:08x}.parquet"
        if linked is None:
            query = f"SELECT {_charges(day)} FROM range({CHARGES_A_DAY}) numbers(i)"
            files.append(_file(connection, folder, name, "charges", day, query))
            continue
        source = Path(manifests.folder(str(linked))) / name
        (folder / name).parent.mkdir(parents=True)
        (folder / name).hardlink_to(source)
        files.append(
            File(path=name, kind="charges", day=day, rows=CHARGES_A_DAY, size=source.stat().st_size)
        )
        keys = ", ".join(quoted(key) for key in TOTALS_KEYS)
        sums = ", ".join(
            f"CAST(sum({quoted(key)}) AS {'DECIMAL(38,15)' if key == 'amount' else 'BIGINT'}) "
            f"AS {quoted(key)}"
            for key in TOTALS_SUMS
        )
        query = f"SELECT {keys}, {sums}, max(ended_at) AS ended_at FROM '{source}' GROUP BY {keys}"
        files.append(_file(connection, folder, f"totals/{name}", "totals", day, query, of=name))
    connection.close()
    newest = f"{files[-1].day}T23:59:59.000000Z"
    manifests.publish(str(directory), Manifest(files=files, newest=newest))


def _charges(day: str) -> str:
    return ", ".join(
        f"CAST({_VALUES.get(column.name, 'NULL').format(day=day)} AS {column.type}) "
        f"AS {quoted(column.name)}"
        for column in COLUMNS
    )


def _file(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    name: str,
    kind: manifests.Kind,
    day: str,
    query: str,
    *,
    of: str | None = None,
) -> File:
    path = folder / name
    path.parent.mkdir(parents=True)
    connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION zstd)")
    counted = connection.execute(f"SELECT count(*) FROM '{path}'").fetchone()
    assert counted is not None
    return File(path=name, kind=kind, day=day, rows=counted[0], size=path.stat().st_size, of=of)
