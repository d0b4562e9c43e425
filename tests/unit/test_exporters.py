"""The exporters that need nothing but the standard library."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costinsights.exporter import ExporterUnavailable, Progress
from costinsights.records import ErrorInfo
from costinsights.testing import sample_charges
from costinsights_exporters import console
from costinsights_exporters.console import ConsoleExporter
from costinsights_exporters.jsonl import JSONLExporter, JSONLOptions
from costinsights_exporters.memory import MemoryExporter, MemoryOptions
from costinsights_exporters.null import NullExporter
from tests.recording import Process

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def jsonl(path: Path, **options: Any) -> JSONLExporter:
    return JSONLExporter(JSONLOptions(path=str(path), **options))


# --- jsonl --------------------------------------------------------------------------------------


def test_jsonl_writes_a_whole_charge_a_line(tmp_path: Path) -> None:
    path = tmp_path / "charges.jsonl"
    exporter = jsonl(path)
    exporter.export(sample_charges(2))
    exporter.export(sample_charges(1, revision=1, rows=99))
    exporter.shutdown()
    first, second, later = read(path)
    assert first["charge_id"] != second["charge_id"]
    assert (later["charge_id"], later["revision"], later["rows"]) == (first["charge_id"], 1, 99)
    assert first["resource"] == {"address": "db.example", "port": 5432, "namespace": "shop"}
    assert first["amount"] == "0.0000000039"
    assert first["attribution"]["asset"] == "orders"


def test_jsonl_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "charges.jsonl"
    jsonl(path).export(sample_charges())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_jsonl_stands_beside_the_ledger_where_nobody_says() -> None:
    assert JSONLExporter(JSONLOptions(ledger="/data/ledger")).path == "/data/charges.jsonl"
    with pytest.raises(ExporterUnavailable, match="needs a path"):
        JSONLExporter()


def test_jsonl_rotates_by_size_and_keeps_so_many(tmp_path: Path) -> None:
    path = tmp_path / "charges.jsonl"
    exporter = jsonl(path, max_bytes=3000, files=2)
    for number in range(40):
        exporter.export(sample_charges(charge_id=f"p-{number}"))
    assert sorted(found.name for found in tmp_path.iterdir()) == [
        "charges.jsonl",
        "charges.jsonl.1",
        "charges.jsonl.2",
    ]
    kept = [
        line["charge_id"]
        for name in ("charges.jsonl.2", "charges.jsonl.1", "charges.jsonl")
        for line in read(tmp_path / name)
    ]
    assert kept == [f"p-{number}" for number in range(40 - len(kept), 40)]


def test_jsonl_without_files_to_keep_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "charges.jsonl"
    exporter = jsonl(path, max_bytes=1, files=0)
    exporter.export(sample_charges(charge_id="p-1"))
    exporter.export(sample_charges(charge_id="p-2"))
    assert [line["charge_id"] for line in read(path)] == ["p-2"]
    assert [found.name for found in tmp_path.iterdir()] == ["charges.jsonl"]


@pytest.mark.parametrize("cut", [1, 30, 10_000])
def test_jsonl_writes_nothing_twice_after_a_crash(tmp_path: Path, cut: int) -> None:
    """The process wrote a batch, the last line perhaps not to its end, and died."""
    path = tmp_path / "charges.jsonl"
    charges = sample_charges(10)
    jsonl(path).export(charges[:6])
    if cut < 10_000:
        path.write_bytes(path.read_bytes()[:-cut])
    jsonl(path).export(charges)
    assert [line["charge_id"] for line in read(path)] == [c.charge_id for c in charges]


def test_jsonl_looks_into_the_rotated_file_too(tmp_path: Path) -> None:
    path = tmp_path / "charges.jsonl"
    charges = sample_charges(10)
    jsonl(path).export(charges[:6])
    path.rename(tmp_path / "charges.jsonl.1")
    jsonl(path).export(charges)
    assert len(read(path)) == 4


def test_jsonl_does_not_lose_what_became_known_between_crash_and_recovery(tmp_path: Path) -> None:
    path = tmp_path / "charges.jsonl"
    jsonl(path).export(sample_charges(rows=None, partial=True))
    # Read again after the crash, the entries of before and after it are merged into one.
    jsonl(path).export(sample_charges(rows=7))
    first, later = read(path)
    assert first["charge_id"] == later["charge_id"]
    assert (later["revision"], later["rows"]) == (1, 7)


def test_jsonl_mends_a_line_that_another_process_left_torn(tmp_path: Path) -> None:
    path = tmp_path / "charges.jsonl"
    path.write_bytes(b'{"charge_id":"q-1"}\n{"charge_id":"q-')
    jsonl(path).export(sample_charges())
    assert len(read(path)) == 2
    path.write_bytes(b'{"charge_id":"q-')
    jsonl(path).export(sample_charges(charge_id="r-1"))
    assert [line["charge_id"] for line in read(path)] == ["r-1"]


def write_many(path: Path, process: int) -> None:
    exporter = jsonl(path, max_bytes=20_000, files=1000)
    for number in range(0, 200, 10):
        exporter.export(
            [sample_charges(charge_id=f"p{process}-{number + i}")[0] for i in range(10)]
        )


def test_jsonl_is_shared_by_processes(tmp_path: Path) -> None:
    path = tmp_path / "charges.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=write_many, args=(path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    ids = [line["charge_id"] for found in tmp_path.iterdir() for line in read(found)]
    assert len(ids) == len(set(ids)) == 800


def test_jsonl_takes_back_what_a_full_disk_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "charges.jsonl"
    exporter = jsonl(path)
    exporter.export(sample_charges(charge_id="p-1"))
    real = os.write
    room = [100]

    def write(fd: int, data: Any) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        size = min(room[0], len(data))
        room[0] -= size
        return real(fd, data[:size])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        exporter.export(sample_charges(charge_id="p-2"))
    monkeypatch.setattr(os, "write", real)
    assert [line["charge_id"] for line in read(path)] == ["p-1"]
    exporter.export(sample_charges(charge_id="p-2"))
    assert [line["charge_id"] for line in read(path)] == ["p-1", "p-2"]


def test_jsonl_does_not_follow_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "charges.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        jsonl(tmp_path / "charges.jsonl").export(sample_charges())


def test_jsonl_writes_to_standard_output() -> None:
    script = (
        "from costinsights_exporters.jsonl import JSONLExporter, JSONLOptions\n"
        "from costinsights.testing import sample_charges\n"
        "JSONLExporter(JSONLOptions(path='-')).export(sample_charges(300))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 300


# --- console ------------------------------------------------------------------------------------


def test_console_prints_what_happened_to_whom_and_for_how_much() -> None:
    [charge] = sample_charges()
    assert console.line(charge) == (
        "00:00:01.000  postgresql  SELECT orders  3.20 ms  12 rows  $0.0000000039"
        "  asset=orders team=growth"
    )


def test_console_says_what_failed_and_what_is_unknown() -> None:
    [charge] = sample_charges(
        amount=None, currency=None, error=ErrorInfo("X.Y", "42P01"), statement=None, revision=2
    )
    assert console.line(charge) == (
        "00:00:01.000  postgresql  SELECT  3.20 ms  failed: X.Y  —  asset=orders team=growth"
        "  (revised)"
    )


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("0.0000000039", "USD", "$0.0000000039"),
        ("0.000000003900000", "USD", "$0.0000000039"),
        ("0.00312345", "USD", "$0.0031"),
        ("0.01", "EUR", "€0.01"),
        ("0.0149", "USD", "$0.01"),
        ("1234567.891", "USD", "$1,234,567.89"),
        ("0", "USD", "$0"),
        ("0.000000000000000", "USD", "$0"),
        ("-0.5", "USD", "-$0.50"),
        ("3", "CHF", "3.00 CHF"),
        ("3", None, "3.00"),
        ("1e40", "USD", "$" + f"{10**40:,}.00"),
        (None, "USD", "—"),
    ],
)
def test_console_shows_money_of_any_size(
    amount: str | None, currency: str | None, text: str
) -> None:
    assert console.money(amount, currency) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0.00 µs"),
        (900, "0.90 µs"),
        (12_345, "12.3 µs"),
        (999_600, "1000 µs"),
        (3_200_000, "3.20 ms"),
        (61_500_000_000, "61.50 s"),
    ],
)
def test_console_shows_durations(nanoseconds: int, text: str) -> None:
    assert console.duration(nanoseconds) == text


@given(st.text())
def test_console_prints_one_line_that_moves_no_cursor(text: str) -> None:
    for colours in (False, True):
        printed = console.line(sample_charges(attribution={text: text})[0], colours=colours)
        for colour in ("\033[1m", "\033[2m", "\033[32m", "\033[0m"):
            printed = printed.replace(colour, "")
        assert printed.isprintable()


def test_console_prints_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    exporter = ConsoleExporter()
    exporter.export(sample_charges(2))
    exporter.shutdown()
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 2)
    assert "\033" not in err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_console_has_colours_on_a_terminal_unless_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    ConsoleExporter().export(sample_charges())
    assert "\033[" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    ConsoleExporter().export(sample_charges())
    assert "\033[" not in terminal.getvalue()


def test_console_is_silent_where_there_is_no_standard_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    ConsoleExporter().export(sample_charges())


# --- memory, null -------------------------------------------------------------------------------


def test_memory_keeps_the_latest_figures_of_the_newest_charges() -> None:
    memory = MemoryExporter(MemoryOptions(limit=3))
    memory.export(sample_charges(3))
    memory.export(sample_charges(1, revision=1, rows=99))
    assert [charge.rows for charge in memory.charges] == [99, 12, 12]
    memory.export(sample_charges(1, charge_id="p-9"))
    assert len(memory.charges) == 3
    assert memory.charges[-1].charge_id == "p-9"
    assert memory.forgotten == 1
    memory.shutdown()
    assert memory.charges
    memory.clear()
    assert memory.charges == []


def test_null_takes_everything(tmp_path: Path) -> None:
    exporter = NullExporter()
    with Process(tmp_path, [exporter]) as process:
        process.calls(10)
        assert process.flush()


# --- what exporters are built with ----------------------------------------------------------------


def test_progress_remembers_what_has_arrived_of_a_batch() -> None:
    progress = Progress()
    batch = sample_charges(4)
    assert progress.rest(batch) == batch
    progress.took(batch[:3])
    assert progress.rest(batch) == batch[3:]
    assert progress.rest(batch[2:]) == batch[3:]
    progress.took(batch[3:])
    progress.passed(batch)
    assert progress.rest(batch) == batch
