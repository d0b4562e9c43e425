"""Exporters get every charge once, whatever they do, and never hold anything up."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from costinsights import backoff, follower, followers, positions
from costinsights.config import Config
from costinsights.exporter import Exporter, ExportError, ExporterUnavailable
from costinsights.followers import export_all, make_exporter
from costinsights.guard import SUPPRESSED, busy
from costinsights.ledger.reader import SegmentReader
from costinsights.records import Charge
from costinsights.testing import sample_charges
from tests.recording import Process, entries

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path


class Spy:
    """An exporter that remembers what it took, and does beforehand what it is told."""

    def __init__(
        self, name: str = "spy", act: Callable[[Sequence[Charge]], object] | None = None
    ) -> None:
        self.name = name
        self.act = act
        self.taken: list[Charge] = []
        self.batches: list[int] = []
        self.ended = False

    def export(self, batch: Sequence[Charge]) -> None:
        self.batches.append(len(batch))
        if self.act is not None:
            self.act(batch)
        self.taken.extend(batch)

    def shutdown(self) -> None:
        self.ended = True

    @property
    def ids(self) -> list[str]:
        return [charge.charge_id for charge in self.taken]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.02)
    monkeypatch.setattr(backoff, "LONGEST_SECONDS", 0.1)
    monkeypatch.setattr("costinsights.background.TICK_SECONDS", 0.05)


def accounts(directory: Path, exporter: str) -> Counter[str]:
    """Add up what became of the entries of the whole ledger."""
    total: Counter[str] = Counter()
    for status in positions.status(str(directory)):
        if status.exporter == exporter:
            for name in ("exported", "merged", "skipped", "rejected", "refused"):
                total[name] += getattr(status.position, name)
    return +total  # without the zeros


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


# --- the ordinary way ---------------------------------------------------------------------------


def test_every_charge_arrives_once_and_in_order(tmp_path: Path) -> None:
    spy = Spy()
    with Process(tmp_path, [spy]) as process:
        process.calls(1200)
        assert process.flush()
        assert spy.ids == [charge.charge_id for charge in entries(tmp_path)]
        process.calls(3)
        assert process.flush()
    assert len(spy.ids) == len(set(spy.ids)) == 1203
    assert max(spy.batches) <= follower.BATCH
    assert spy.ended
    assert accounts(tmp_path, "spy") == {"exported": 1203}


def test_what_is_recorded_just_before_the_end_arrives_too(tmp_path: Path) -> None:
    spy = Spy()
    with Process(tmp_path, [spy]) as process:
        process.calls(10)
    assert len(spy.ids) == 10


def test_without_entries_there_is_no_thread_and_no_file(tmp_path: Path) -> None:
    before = threading.active_count()
    with Process(tmp_path / "ledger", [Spy()]):
        assert threading.active_count() == before
    assert not (tmp_path / "ledger").exists()


def test_nobody_follows_where_no_exporter_is_wanted(tmp_path: Path) -> None:
    with Process(tmp_path, names=None) as process:
        process.call()
        assert process.flush()
        assert not [t for t in threading.enumerate() if t.name.startswith("costinsights-")]
    assert not (tmp_path / positions.EXPORTERS).exists()


def test_two_exporters_of_one_name_each_get_everything(tmp_path: Path) -> None:
    first, second = Spy(), Spy()
    with Process(tmp_path, [first, second]) as process:
        process.calls(5)
        assert process.flush()
    assert first.ids == second.ids != []
    assert accounts(tmp_path, "spy") == accounts(tmp_path, "spy-2") == {"exported": 5}


def test_an_idle_end_takes_no_time(tmp_path: Path) -> None:
    process = Process(tmp_path, [Spy()])
    process.call()
    assert process.flush()
    started = time.perf_counter()
    process.close()
    assert time.perf_counter() - started < 0.05


# --- later figures ------------------------------------------------------------------------------


def test_figures_that_come_within_a_batch_are_merged(tmp_path: Path) -> None:
    spy = Spy()
    with Process(tmp_path, [spy]) as process:
        number = process.call(rows=None, partial=True)
        process.call(number=number, revision=1, rows=7, partial=False)
        assert process.flush()
    [charge] = spy.taken
    assert (charge.revision, charge.rows, charge.partial) == (0, 7, False)
    assert accounts(tmp_path, "spy") == {"exported": 1, "merged": 1}


def test_figures_that_come_later_are_handed_on_as_a_revision(tmp_path: Path) -> None:
    spy = Spy()
    with Process(tmp_path, [spy]) as process:
        number = process.call(rows=None, partial=True)
        assert process.flush()
        process.call(number=number, revision=1, rows=3)
        process.call(number=number, revision=2, rows=7)
        assert process.flush()
    first, later = spy.taken
    assert first.charge_id == later.charge_id
    assert (first.revision, first.rows) == (0, None)
    assert later.revision > 0
    assert later.rows == 7
    assert accounts(tmp_path, "spy") == {"exported": 2, "merged": 1}


def test_merging_keeps_the_better_basis() -> None:
    [metered] = sample_charges(1, basis="metered", amount="2")
    [estimated] = sample_charges(1, basis="estimated", amount="1", revision=1)
    assert follower.merge([metered, estimated]) == [metered]
    [merged] = follower.merge([estimated, metered])
    assert (merged.amount, merged.revision) == ("2", 1)


# --- exporters that fail ------------------------------------------------------------------------


def refuse_until(state: dict[str, bool], error: BaseException) -> Callable[[object], None]:
    def act(_: object) -> None:
        if not state.get("open"):
            raise error

    return act


@pytest.mark.parametrize(
    "error",
    [
        ExportError("later", retryable=True),
        ConnectionRefusedError(111, "Connection refused"),
        TimeoutError(),
    ],
    ids=repr,
)
def test_what_fails_for_a_while_arrives_once_afterwards(
    tmp_path: Path, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    state: dict[str, bool] = {}
    spy = Spy(act=refuse_until(state, error))
    with Process(tmp_path, [spy]) as process:
        process.calls(600)
        assert not process.flush(0.3)
        process.calls(600)
        state["open"] = True
        assert process.flush()
    assert len(spy.ids) == len(set(spy.ids)) == 1200
    assert accounts(tmp_path, "spy") == {"exported": 1200}
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "does not get through" in text]) == 1
    assert len([text for text in said if "gets through again" in text]) == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, ValueError])
def test_an_exporter_may_raise_what_it_likes(tmp_path: Path, kind: type[BaseException]) -> None:
    state: dict[str, bool] = {}
    spy, other = Spy(act=refuse_until(state, kind())), Spy("other")
    with Process(tmp_path, [spy, other]) as process:
        process.calls(3)
        wait_for(lambda: len(spy.batches) >= 1)
        state["open"] = True
        assert process.flush()
    assert spy.ids == other.ids
    assert len(spy.ids) == 3


def test_one_that_hangs_holds_up_neither_the_others_nor_the_disk_nor_the_end(
    tmp_path: Path,
) -> None:
    release = threading.Event()
    hanging, other = Spy("hanging", act=lambda _: release.wait(60)), Spy("other")
    process = Process(tmp_path, [hanging, other])
    process.calls(3)
    wait_for(lambda: hanging.batches)
    process.calls(3)
    wait_for(lambda: len(other.ids) == 6)
    wait_for(lambda: not process.writer.dirty)
    started = time.perf_counter()
    process.close()
    assert time.perf_counter() - started < 2.0
    release.set()


def test_while_an_exporter_fails_nothing_piles_up_in_memory(tmp_path: Path) -> None:
    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, Charge) for thing in gc.get_objects())

    before = alive()
    spy = Spy(act=refuse_until({}, ExportError("no", retryable=True)))
    with Process(tmp_path, [spy]) as process:
        process.calls(6000)
        assert not process.flush(0.2)
        assert alive() - before <= follower.BATCH


def test_waits_grow_and_stay_below_their_limit() -> None:
    waits = backoff.Backoff()
    first = [waits.failed() for _ in range(3)]
    assert 0.8 * 0.02 <= first[0] <= 1.2 * 0.02
    assert first[0] < first[1] < first[2]
    for _ in range(100):
        assert waits.failed() <= 1.2 * 0.1
    assert waits.failed(asked=5.0) >= 4.0
    assert waits.failed(asked=99_999_999.0) <= 1.2 * backoff.LONGEST_ASKED_SECONDS
    assert waits.succeeded()
    assert not waits.succeeded()
    assert waits.failed() <= 1.2 * 0.02


# --- what a destination refuses for good --------------------------------------------------------


def rejected(directory: Path, exporter: str = "spy") -> list[follower.Rejected]:
    path = directory / "exporters" / exporter / positions.REJECTED
    if not path.exists():
        return []
    return [
        msgspec.json.decode(line, type=follower.Rejected) for line in path.read_bytes().splitlines()
    ]


def test_what_is_refused_is_found_by_splitting_and_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def act(batch: Sequence[Charge]) -> None:
        if any(charge.rows == 666 for charge in batch):
            raise ExportError("no such rows", retryable=False)

    spy = Spy(act=act)
    with Process(tmp_path, [spy]) as process:
        for number in range(100):
            process.call(rows=666 if number in (17, 18, 80) else 1)
        assert process.flush()
    aside = rejected(tmp_path)
    assert [line.reason for line in aside] == ["no such rows"] * 3
    refused = [line.charge.charge_id for line in aside if line.charge is not None]
    assert sorted(refused + spy.ids) == sorted(c.charge_id for c in entries(tmp_path))
    assert len(spy.ids) == 97
    assert accounts(tmp_path, "spy") == {"exported": 97, "rejected": 3}
    assert len(spy.batches) < 60
    assert len([r for r in caplog.records if "set aside" in r.getMessage()]) == 1


def test_an_error_that_nobody_explains_does_not_block_the_way_for_ever(tmp_path: Path) -> None:
    def act(batch: Sequence[Charge]) -> None:
        if any(charge.rows == 666 for charge in batch):
            raise ZeroDivisionError

    spy = Spy(act=act)
    with Process(tmp_path, [spy]) as process:
        for number in range(10):
            process.call(rows=666 if number == 4 else 1)
        wait_for(lambda: len(spy.ids) == 9)
        assert process.flush()
    assert len(rejected(tmp_path)) == 1
    assert accounts(tmp_path, "spy") == {"exported": 9, "rejected": 1}


def test_a_destination_that_refuses_everything_is_not_stormed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wait in ("FIRST_SECONDS", "LONGEST_SECONDS"):
        monkeypatch.setattr(backoff, wait, 60)
    spy = Spy(act=refuse_until({}, ExportError("never", retryable=False)))
    with Process(tmp_path, [spy]) as process:
        process.calls(2000)
        # One batch goes charge by charge, and then it is left alone.
        wait_for(lambda: accounts(tmp_path, "spy")["rejected"])
        time.sleep(0.1)
        assert len(spy.batches) == 2 * follower.BATCH - 1
        assert accounts(tmp_path, "spy") == {"rejected": follower.BATCH}
        assert len(rejected(tmp_path)) == follower.BATCH


def test_refused_charges_without_names_are_counted(tmp_path: Path) -> None:
    def act(batch: Sequence[Charge]) -> None:
        spy.taken.extend(batch)
        raise ExportError("2 were too old", retryable=False, refused=2)

    spy = Spy(act=act)
    with Process(tmp_path, [spy]) as process:
        process.calls(5)
        assert process.flush()
    [line] = rejected(tmp_path)
    assert (line.count, line.charge, len(line.charge_ids)) == (2, None, 5)
    assert spy.batches == [5]
    assert accounts(tmp_path, "spy") == {"exported": 3, "refused": 2}


def test_skipped_charges_are_counted(tmp_path: Path) -> None:
    class Skipping(Spy):
        skipped = 0

        def export(self, batch: Sequence[Charge]) -> None:
            super().export(batch)
            self.skipped += 1

    with Process(tmp_path, [Skipping()]) as process:
        process.calls(5)
        assert process.flush()
    assert accounts(tmp_path, "spy") == {"exported": 4, "skipped": 1}


# --- exporters that misbehave -------------------------------------------------------------------


def test_an_exporter_that_changes_its_charges_changes_nobody_elses(tmp_path: Path) -> None:
    def act(batch: Sequence[Charge]) -> None:
        for charge in batch:
            charge.attribution.clear()
            charge.usage["time_ns"] = -1

    changing, other = Spy("changing", act=act), Spy("other")
    with Process(tmp_path, [changing, other]) as process:
        process.calls(3)
        assert process.flush()
        process.calls(3)
        assert process.flush()
    assert all(charge.attribution["asset"] == "orders" for charge in other.taken)
    assert all(charge.usage["time_ns"] == 3_200_000 for charge in other.taken)
    # Its own next batch is not that of the last one either.
    assert changing.batches == [3, 3]


def test_what_an_exporter_does_is_our_own_work(tmp_path: Path) -> None:
    seen: list[str | None] = []
    spy = Spy(act=lambda _: seen.append(busy.get()))
    with Process(tmp_path, [spy]) as process:
        process.call()
        assert process.flush()
    assert seen == [SUPPRESSED]


def test_an_exporter_is_not_traced(tmp_path: Path) -> None:
    from opentelemetry.context import get_value

    seen: list[object] = []
    spy = Spy(act=lambda _: seen.append(get_value("suppress_instrumentation")))
    with Process(tmp_path, [spy]) as process:
        process.call()
        assert process.flush()
    assert seen == [True]


def test_a_shutdown_that_fails_or_hangs_does_no_harm(tmp_path: Path) -> None:
    class Clumsy(Spy):
        def shutdown(self) -> None:
            raise KeyboardInterrupt

    class Stuck(Spy):
        def shutdown(self) -> None:
            threading.Event().wait(60)

    process = Process(tmp_path, [Clumsy("a"), Stuck("b")])
    process.call()
    started = time.perf_counter()
    process.close()
    assert time.perf_counter() - started < 2.0


def test_an_exporters_name_cannot_lead_out_of_the_ledger(tmp_path: Path) -> None:
    with Process(tmp_path / "ledger", [Spy("../../evil"), Spy("/etc"), Spy("..")]) as process:
        process.call()
        assert process.flush()
    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]
    assert len(list((tmp_path / "ledger" / "exporters").iterdir())) == 3


# --- processes that die -------------------------------------------------------------------------

RECORD = """
import os, signal, sys, time
from pathlib import Path
from tests.recording import Process

process = Process(Path(sys.argv[1]), names=tuple(sys.argv[3].split(",")), service=sys.argv[4])
process.calls(int(sys.argv[2]))
print(process.process, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def record_and_die(
    directory: Path, count: int, exporter: str = "spy", service: str = "shop"
) -> str:
    """Have a process record calls and be killed before it exports one; return its id."""
    done = subprocess.run(
        [sys.executable, "-c", RECORD, str(directory), str(count), exporter, service],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.strip()


def test_a_living_process_takes_over_what_a_killed_one_left(tmp_path: Path) -> None:
    dead = record_and_die(tmp_path, 700)
    spy = Spy()
    with Process(tmp_path, [spy]) as process:
        process.calls(2)
        assert process.flush()
    assert len(spy.ids) == len(set(spy.ids)) == 702
    assert sum(charge.charge_id.startswith(dead) for charge in spy.taken) == 700
    assert positions.is_done(str(tmp_path), "spy", f"{dead}-1")
    assert not positions.is_owed(str(tmp_path), f"{dead}-1")


def test_it_goes_on_where_the_killed_one_was(tmp_path: Path) -> None:
    dead = record_and_die(tmp_path, 700)
    first = Spy(act=stop_after(1))
    follow(tmp_path, first)
    assert len(first.ids) == follower.BATCH
    second = Spy()
    follow(tmp_path, second)
    assert len(second.ids) == 700 - follower.BATCH
    assert not set(first.ids) & set(second.ids)
    # What was defined before the place is known behind it.
    assert all(charge.attribution["asset"] == "orders" for charge in second.taken)
    assert accounts(tmp_path, "spy") == {"exported": 700}
    assert positions.is_done(str(tmp_path), "spy", f"{dead}-1")


def stop_after(batches: int) -> Callable[[object], None]:
    left = [batches]

    def act(_: object) -> None:
        if not left[0]:
            raise ExportError("no more", retryable=True)
        left[0] -= 1

    return act


def follow(directory: Path, exporter: Exporter, service: str | None = "shop") -> None:
    """Do what a living process does for dead ones, once."""
    one = follower.Follower(
        str(directory), exporter.name, exporter, service=service, own=lambda: None, say=print
    )
    one.look_for_orphans()
    try:
        while one.advance():
            pass
    except ExportError:
        pass
    finally:
        one.release()


def test_what_another_service_left_is_left_to_it(tmp_path: Path) -> None:
    record_and_die(tmp_path, 3, service="billing")
    spy = Spy()
    follow(tmp_path, spy)
    assert spy.ids == []
    follow(tmp_path, spy, service="billing")
    assert len(spy.ids) == 3


def test_what_was_never_meant_for_an_exporter_does_not_come_to_it(tmp_path: Path) -> None:
    record_and_die(tmp_path, 3, exporter="another")
    spy = Spy()
    follow(tmp_path, spy)
    assert spy.ids == []


def test_a_segment_of_a_living_process_is_left_to_it(tmp_path: Path) -> None:
    spy, other = Spy(), Spy()
    with Process(tmp_path, [spy]) as process:
        process.calls(3)
        follow(tmp_path, other)
        assert process.flush()
    assert (len(spy.ids), len(other.ids)) == (3, 0)


def test_what_was_for_the_eyes_of_a_dead_process_is_let_go(tmp_path: Path) -> None:
    record_and_die(tmp_path, 3)

    class Private(Spy):
        follows = "process"

    spy = Private()
    follow(tmp_path, spy)
    assert spy.ids == []
    assert list(positions.status(str(tmp_path))) == []


def test_two_processes_at_one_segment_share_nothing(tmp_path: Path) -> None:
    record_and_die(tmp_path, 2000)
    spies = [Spy() for _ in range(4)]
    threads = [threading.Thread(target=follow, args=(tmp_path, spy)) for spy in spies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [charge_id for spy in spies for charge_id in spy.ids]
    assert len(ids) == len(set(ids)) == 2000


def test_a_fork_leaves_the_parents_segments_to_the_parent(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from tests.recording import Process
from costinsights_exporters.jsonl import JSONLExporter, JSONLOptions

directory, out = Path(sys.argv[1]), sys.argv[2]
parent = Process(directory, [JSONLExporter(JSONLOptions(path=out))])
parent.calls(5)
if (pid := os.fork()) == 0:
    parent.writer.abandon()
    child = Process(directory, [JSONLExporter(JSONLOptions(path=out))])
    child.calls(7)
    assert child.flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
parent.calls(5)
parent.close()
"""
    out = tmp_path / "out.jsonl"
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "ledger"), str(out)], check=True)
    ids = [msgspec.json.decode(line)["charge_id"] for line in out.read_bytes().splitlines()]
    assert len(ids) == len(set(ids)) == 17


def test_a_childs_copy_of_a_lease_does_not_outlive_the_parents_claim(tmp_path: Path) -> None:
    lease = positions.Lease.take(str(tmp_path), "spy", "a-1")
    assert lease is not None
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    try:
        assert positions.Lease.take(str(tmp_path), "spy", "a-1") is None
        lease.release()
        again = positions.Lease.take(str(tmp_path), "spy", "a-1")
        assert again is not None
        again.release()
    finally:
        os.write(write, b"x")
        os.waitpid(pid, 0)


# --- ledgers that change under our feet ---------------------------------------------------------


def test_a_segment_that_is_rotated_away_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costinsights.ledger.writer.ROTATE_BYTES", 20_000)
    spy = Spy()
    with Process(tmp_path, [spy]) as process:
        process.calls(700)
        assert process.flush()
        assert process.writer.segment > 2
        assert positions.is_done(str(tmp_path), "spy", f"{process.process}-1")
    assert len(spy.ids) == len(set(spy.ids)) == 700


def test_a_segment_deleted_while_it_is_written_comes_back_and_goes_out_once(
    tmp_path: Path,
) -> None:
    spy = Spy()
    with Process(tmp_path, [spy]) as process:
        process.calls(10)
        assert process.flush()
        for path in (tmp_path / "segments").iterdir():
            path.unlink()
        process.calls(10)
        assert process.flush()
        assert process.writer.segment == 2
        process.calls(10)
        assert process.flush()
    assert len(spy.ids) == len(set(spy.ids)) == 30


def test_a_ledger_deleted_as_a_whole_comes_back_and_goes_out_once(tmp_path: Path) -> None:
    spy = Spy()
    with Process(tmp_path / "ledger", [spy]) as process:
        process.calls(10)
        assert process.flush()
        shutil.rmtree(tmp_path / "ledger")
        process.calls(10)
        assert process.flush()
        process.calls(10)
        assert process.flush()
    assert len(spy.ids) == len(set(spy.ids)) == 30


def test_a_torn_line_is_counted_and_nothing_else_is_lost(tmp_path: Path) -> None:
    dead = record_and_die(tmp_path, 5)
    path = tmp_path / "segments" / f"{dead}-1.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    spy = Spy()
    follow(tmp_path, spy)
    assert len(spy.ids) == 4
    [status] = positions.status(str(tmp_path))
    assert (status.position.torn, status.done) == (1, True)


def test_a_position_that_a_power_failure_emptied_counts_as_the_beginning(tmp_path: Path) -> None:
    dead = record_and_die(tmp_path, 5)
    place = tmp_path / "exporters" / "spy" / f"{dead}-1.position"
    place.write_bytes(b"")
    assert positions.load(str(tmp_path), "spy", f"{dead}-1") == positions.Position()


def test_a_position_that_cannot_be_written_brings_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = positions.store
    full = [True]

    def store(*args: Any) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        real(*args)

    monkeypatch.setattr(positions, "store", store)
    spy = Spy()
    with Process(tmp_path, [spy]) as process:
        process.calls(5)
        assert not process.flush(0.2)
        full[0] = False
        process.calls(5)
        assert process.flush()
    assert len(spy.ids) == len(set(spy.ids)) == 10
    assert accounts(tmp_path, "spy") == {"exported": 10}


def test_files_are_their_owners_only(tmp_path: Path) -> None:
    with Process(tmp_path / "ledger", [Spy(act=stop_after(0))]) as process:
        process.call()
        process.flush(0.05)
        for path in (tmp_path / "ledger" / "exporters").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path


# --- choosing exporters -------------------------------------------------------------------------


def test_an_unknown_exporter_is_one_clear_message_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spy = Spy()
    with Process(tmp_path, [spy], names=("nope",)) as process:
        process.call()
        assert process.flush()
        process.call()
        assert process.flush()
    assert len(spy.ids) == 2
    [said] = [r.getMessage() for r in caplog.records if "nope" in r.getMessage()]
    assert "there is no exporter 'nope'; known are: " in said
    assert "jsonl" in said


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("jsonl", {"pathh": "x"}, "no option 'pathh'; it has: path, max_bytes, files"),
        ("jsonl", {"max_bytes": "much"}, "wrong option: .*max_bytes"),
        ("null", {"a": 1}, "it has no options, but a is set"),
        ("otlp", {"protocol": "carrier pigeon"}, "wrong option: .*protocol"),
    ],
)
def test_a_wrong_option_is_said(name: str, options: dict[str, object], message: str) -> None:
    config = Config(ledger="ledger", exporter_options={name: options})
    with pytest.raises(ExporterUnavailable, match=message):
        make_exporter(name, config)


def test_options_arrive_also_as_text(tmp_path: Path) -> None:
    config = Config(
        ledger=str(tmp_path / "ledger"),
        exporter_options={"jsonl": {"max_bytes": "123", "path": str(tmp_path / "x")}},
    )
    made = make_exporter("jsonl", config)
    assert isinstance(made, Exporter)
    assert made.name == "jsonl"


def test_every_exporter_of_ours_is_one(tmp_path: Path) -> None:
    for name in ("console", "jsonl", "memory", "null", "otel", "otlp"):
        made = make_exporter(name, Config(ledger=str(tmp_path)))
        assert isinstance(made, Exporter)
        assert made.name == name


# --- `export_all` -------------------------------------------------------------------------------


def test_export_all_brings_everything_that_the_dead_left(tmp_path: Path) -> None:
    record_and_die(tmp_path, 600, exporter="another", service="billing")
    record_and_die(tmp_path, 2)
    spy = Spy()
    [summary] = export_all(str(tmp_path), [spy])
    assert summary == ("spy", 602, 0, True, "")
    assert len(set(spy.ids)) == 602
    assert spy.ended
    [again] = export_all(str(tmp_path), [Spy()])
    assert again == ("spy", 0, 0, True, "")


def test_export_all_says_what_it_could_not_do(tmp_path: Path) -> None:
    record_and_die(tmp_path, 2)
    spy = Spy(act=refuse_until({}, ExportError("nobody is there", retryable=True)))
    [summary] = export_all(str(tmp_path), [spy])
    assert summary == ("spy", 0, 0, False, "nobody is there")
    assert len(spy.batches) == followers.TRIES


def test_export_all_keeps_its_deadline(tmp_path: Path) -> None:
    record_and_die(tmp_path, 2)
    stuck, spy = Spy("stuck", act=lambda _: threading.Event().wait(60)), Spy()
    started = time.monotonic()
    summaries = export_all(str(tmp_path), [stuck, spy], deadline=started + 0.5)
    assert time.monotonic() - started < 1.5
    assert [summary.finished for summary in summaries] == [False, True]


def test_export_all_of_no_ledger_is_nothing(tmp_path: Path) -> None:
    [summary] = export_all(str(tmp_path / "none"), [Spy()])
    assert summary == ("spy", 0, 0, True, "")


# --- the accounts -------------------------------------------------------------------------------


def test_the_accounts_hold_in_the_middle_of_it_all(tmp_path: Path) -> None:
    """made == exported + merged + skipped + rejected + refused + pending, at any moment."""

    def act(batch: Sequence[Charge]) -> None:
        if any(charge.rows == 666 for charge in batch):
            raise ExportError("never", retryable=False)
        if len(spy.batches) % 3 == 0:
            raise ExportError("not now", retryable=True)

    spy = Spy(act=act)
    with Process(tmp_path, [spy]) as process:
        for round_ in range(8):
            for number in range(100):
                call = process.call(rows=666 if number == 50 else None, partial=True)
                if number % 2:
                    process.call(number=call, revision=1, rows=666 if number == 50 else 1)
            process.flush(0.05)
            with paused(process):
                assert_accounts(tmp_path, process.writer.written, round_)
        wait_for(lambda: process.flush(1.0))
        assert_accounts(tmp_path, process.writer.written, -1)


@contextmanager
def paused(process: Process) -> Generator[None]:
    """Hold the writer still; the exporters may go on."""
    with process.writer.lock:
        yield


def assert_accounts(directory: Path, written: int, moment: int) -> None:
    [status] = positions.status(str(directory))
    reader = SegmentReader(positions.segment_path(str(directory), status.segment))
    passed = 0
    while reader.offset < status.position.offset and reader.read(1):
        passed += 1
    pending = len(reader.read())
    figures = msgspec.structs.asdict(status.position)
    counted = sum(
        figures[name] for name in ("exported", "merged", "skipped", "rejected", "refused")
    )
    assert (counted, counted + pending) == (passed, written), f"round {moment}"
