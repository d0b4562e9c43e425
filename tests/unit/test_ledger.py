"""The ledger's promise: what was acknowledged is there, and what is lost is counted."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costinsights.ledger import writer as writer_module
from costinsights.ledger.reader import SegmentReader, is_live, read_ledger, segments
from costinsights.ledger.seal import SEAL_LENGTH, is_sealed, seal
from costinsights.ledger.segment import Segment
from costinsights.ledger.writer import MAX_HELD, LedgerError, Writer, prepare
from tests.ledgers import NOON, Program, segments_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from costinsights.records import Charge

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount or change owners")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def program(ledger: Path) -> Iterator[Program]:
    program = Program(ledger)
    yield program
    program.writer.abandon()


def charges(ledger: Path) -> list[Charge]:
    return list(read_ledger(str(ledger)))


def ids(ledger: Path) -> list[str]:
    return [charge.charge_id for charge in charges(ledger)]


def torn_and_whole(path: str) -> tuple[int, list[str]]:
    reader = SegmentReader(path)
    found = [charge.charge_id for charge in reader.read(ended=True)]
    return reader.torn, found


def retry_now(program: Program) -> None:
    """Let the second pass in which a failing writer leaves the disk alone."""
    program.writer._retry_at = 0  # pyright: ignore[reportPrivateUsage]


# --- the seal -------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), st.text() | st.integers(), max_size=5))
def test_a_sealed_line_is_json_with_everything_in_it(fields: dict[str, Any]) -> None:
    fields["k"] = "e"
    fields.pop("z", None)
    line = seal(msgspec.json.encode(fields))
    assert line.endswith(b"}\n")
    assert is_sealed(line[:-1])
    decoded = msgspec.json.decode(line)
    assert len(decoded.pop("z")) == SEAL_LENGTH - len(b',"z":""}')
    assert decoded == fields


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_changed_byte_breaks_the_seal(body: bytes, data: st.DataObject) -> None:
    line = bytearray(seal(b"{" + body + b"}")[:-1])
    place = data.draw(st.integers(0, len(line) - 1))
    line[place] ^= data.draw(st.integers(1, 255))
    assert not is_sealed(bytes(line))


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_cut_breaks_the_seal(body: bytes, data: st.DataObject) -> None:
    line = seal(b"{" + body + b"}")[:-1]
    assert not is_sealed(line[: data.draw(st.integers(0, len(line) - 1))])


# --- what is written is there ---------------------------------------------------------------------


def test_an_entry_is_in_the_file_when_append_returns(program: Program, ledger: Path) -> None:
    for _ in range(3):
        charge = program.call()
        assert ids(ledger)[-1] == charge  # nobody has synced, flushed or closed anything
    assert program.balanced
    assert program.begun == 1


def test_a_killed_process_loses_nothing_that_it_acknowledged(ledger: Path) -> None:
    code = (
        "import sys; from tests.ledgers import Program; p = Program(sys.argv[1])\n"
        "while True: print(p.call(), flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(ledger)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().strip() for _ in range(500)]
        child.send_signal(signal.SIGKILL)
        acknowledged += child.stdout.read().splitlines()
    (path,) = segments_of(ledger)
    torn, found = torn_and_whole(path)
    assert torn <= 1
    # The last line may be cut in the pipe, and one more may be written than was told.
    assert found[: len(acknowledged) - 1] == acknowledged[:-1]
    assert not is_live(path)


def test_a_statement_stands_once_a_segment(program: Program, ledger: Path) -> None:
    for _ in range(50):
        program.call()
    (path,) = segments_of(ledger)
    with open(path, "rb") as file:
        assert file.read().count(b"SELECT orders WHERE") == 1


def test_rotation_begins_a_segment_that_stands_alone(
    program: Program, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "ROTATE_BYTES", 2000)
    made = [program.call(labels={"asset": "a"}) for _ in range(40)]
    paths = segments_of(ledger)
    assert len(paths) > 3
    assert sorted(charge for path in paths for charge in torn_and_whole(path)[1]) == sorted(made)
    live = [path for path in paths if is_live(path)]
    assert len(live) <= 1  # the others are ended, though their process lives
    assert all(os.path.getsize(path) < 4000 for path in paths)
    assert program.balanced


def test_a_segment_is_closed_when_it_is_old(
    program: Program, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.call()
    monkeypatch.setattr(writer_module, "ROTATE_NS", 0)
    program.writer.tick()
    (path,) = segments_of(ledger)
    assert not is_live(path)
    program.call()
    assert len(segments_of(ledger)) == 2


def test_a_reader_keeps_its_place(program: Program, ledger: Path) -> None:
    first = program.call()
    (path,) = segments_of(ledger)
    reader = SegmentReader(path)
    assert [charge.charge_id for charge in reader.read()] == [first]
    assert reader.read() == []
    more = [program.call() for _ in range(5)]
    assert [charge.charge_id for charge in reader.read(limit=2)] == more[:2]
    again = SegmentReader(path)
    again.read(limit=1)
    assert [charge.charge_id for charge in reader.read()] == more[2:]


def test_every_field_of_an_entry_comes_back(program: Program, ledger: Path) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    program.call(
        at=NOON + 123_456_789,
        duration=5_000_000,
        amount=3_955_555,
        labels={"asset": "orders", "env": "prod"},
        error=("psycopg.errors.UndefinedTable", "42P01"),
        rows=7,
        revision=2,
        u={"batch_size": 3, "ratio": 0.5},
        o="BATCH INSERT",
        x=f"00-{trace}-b7ad6b7169203331-01",
        l=True,
        y=9_000_000,
        g="tag-1",
        i="vendor-1",
        f=2 * 10**15,
    )
    (charge,) = charges(ledger)
    found = msgspec.to_builtins(charge)
    assert found.pop("span_id")
    assert found == {
        "charge_id": f"{program.process}-1",
        "revision": 2,
        "system": "postgresql",
        "resource": {"address": "db.internal", "port": 5432, "namespace": "app"},
        "operation": "BATCH INSERT",
        "statement": {
            "fingerprint": found["statement"]["fingerprint"],
            "summary": "SELECT orders",
            "text": "SELECT orders WHERE id = ?",
        },
        "started_at": "2026-11-22T12:00:00.123456Z",
        "ended_at": "2026-11-22T12:00:00.132456Z",
        "duration_ns": 5_000_000,
        "usage": {
            "time_ns": 5_000_000,
            "capacity_seconds": "2.000000000000000",
            "batch_size": 3,
            "ratio": 0.5,
        },
        "rows": 7,
        "amount": "0.000000003955555",
        "currency": "USD",
        "basis": "estimated",
        "price": {
            "key": "capacity:db",
            "unit_price": "3.60",
            "unit": "hour",
            "source": "costinsights.toml",
            "as_of": "2026-11-01",
            "book": "2026-11-20+abcdef",
        },
        "attribution": {"rule": "scope", "asset": "orders", "env": "prod"},
        "tag": "tag-1",
        "vendor_id": "vendor-1",
        "trace_id": trace,
        "parent_span_id": "b7ad6b7169203331",
        "trace_flags": 1,
        "error": {"type": "psycopg.errors.UndefinedTable", "sqlstate": "42P01"},
        "partial": True,
        "service": "shop",
        "host": "host-1",
        "pid": 4711,
        "instrumentor": "psycopg",
    }


def test_no_price_is_unknown_and_never_zero(program: Program, ledger: Path) -> None:
    program.call(amount=None)
    program.call(amount=0)
    unknown, free = charges(ledger)
    assert (unknown.amount, unknown.basis, unknown.currency) == (None, "unknown", None)
    assert (free.amount, free.basis, free.currency) == ("0.000000000000000", "estimated", "USD")


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (1, "0.000000000000001"),
        (-1, "-0.000000000000001"),
        (-(10**15) - 5, "-1.000000000000005"),
        (12 * 10**15, "12.000000000000000"),
    ],
)
def test_units_are_written_as_decimals(
    program: Program, ledger: Path, units: int, text: str
) -> None:
    program.call(amount=units)
    assert [charge.amount for charge in charges(ledger)] == [text]


# --- torn lines -----------------------------------------------------------------------------------


def test_a_torn_line_costs_one_entry_and_is_counted(program: Program, ledger: Path) -> None:
    made = [program.call() for _ in range(5)]
    program.close()
    (path,) = segments_of(ledger)
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    lines[-3] = lines[-3][:40] + b"\n"  # cut short
    lines[-1] = lines[-1].replace(b'"d":', b'"d":1', 1)  # altered
    with open(path, "wb") as file:
        file.writelines(lines)
    torn, found = torn_and_whole(path)
    assert torn == 2
    assert found == [made[0], made[1], made[3]]


def test_the_last_line_of_a_living_process_is_not_torn_yet(program: Program, ledger: Path) -> None:
    program.call()
    (path,) = segments_of(ledger)
    with open(path, "ab") as file:
        file.write(b'{"k":"e","n":2')
    reader = SegmentReader(path)
    assert len(reader.read()) == 1
    assert reader.torn == 0
    assert reader.read(ended=True) == []
    assert reader.torn == 1


def test_an_entry_without_its_definition_is_set_aside(program: Program, ledger: Path) -> None:
    program.call(labels={"asset": "a"})
    program.call(labels={"asset": "b"})
    (path,) = segments_of(ledger)
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    kept = [line for line in lines if b'"asset":"a"' not in line]
    assert len(kept) == len(lines) - 1
    with open(path, "wb") as file:
        file.writelines(kept)
    torn, found = torn_and_whole(path)
    assert (torn, len(found)) == (1, 1)


@given(st.binary(max_size=3000))
def test_a_reader_survives_any_bytes(junk: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(junk)
        file.flush()
        reader = SegmentReader(file.name)
        assert reader.read(ended=True) == []
        assert reader.offset == len(junk)


# --- disks that refuse ----------------------------------------------------------------------------


class Disk:
    """Stands before `os.write`: lets so many bytes through, then does what a disk does.

    Entries are appended by the twin in Python, which calls that; `tests/unit/test_segment.py` has a
    real disk that refuses what is compiled.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real = os.write
        self.room: int | None = None
        self.most: int | None = None
        self.error = errno.ENOSPC
        self.asked = 0
        self.before: Callable[[], object] | None = None
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(Writer, "append", Segment.append)

    def write(self, fd: int, data: bytes) -> int:
        self.asked += 1
        if self.before is not None:
            self.before()
        count = len(data)
        if self.most is not None:
            count = min(count, self.most)
        if self.room is not None:
            if not self.room:
                raise OSError(self.error, os.strerror(self.error))
            count = min(count, self.room)
            self.room -= count
        return self.real(fd, data[:count])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_short_writes_are_completed(program: Program, ledger: Path, disk: Disk) -> None:
    made = [program.call()]
    disk.most = 7
    made += [program.call(labels={"asset": f"a{n}"}) for n in range(20)]
    disk.most = None
    retry_now(program)
    made.append(program.call())
    program.writer.tick()
    assert sorted(ids(ledger)) == sorted(made)
    assert program.balanced
    assert program.writer.pending == 0


@pytest.mark.parametrize("room", range(1200))
def test_a_disk_that_fills_up_at_any_byte_loses_nothing(
    program: Program, ledger: Path, disk: Disk, room: int
) -> None:
    disk.room = room
    made = [program.call(labels={"asset": f"a{n}"}) for n in range(6)]
    assert program.balanced
    disk.room = None
    retry_now(program)
    made.append(program.call())
    assert program.balanced
    assert program.writer.pending == 0
    assert sorted(ids(ledger)) == sorted(made)


@pytest.mark.parametrize("error", [errno.EIO, errno.EBADF, errno.EROFS, errno.EDQUOT])
def test_whatever_the_disk_says_nothing_is_lost_when_it_recovers(
    program: Program, ledger: Path, disk: Disk, error: int
) -> None:
    made = [program.call()]
    disk.room, disk.error = 60, error
    made += [program.call() for _ in range(5)]
    assert program.balanced
    disk.room = None
    retry_now(program)
    made.append(program.call())
    assert sorted(ids(ledger)) == sorted(made)
    assert program.balanced


def test_a_dead_disk_is_said_once_and_its_return_once(program: Program, disk: Disk) -> None:
    disk.room = 0
    for _ in range(50):
        program.call()
        retry_now(program)
    disk.room = None
    program.call()
    program.call()
    assert len(program.said) == 2
    assert "cannot be written" in program.said[0]
    assert "written again" in program.said[1]


def test_what_a_dead_disk_costs_is_bounded_and_counted(
    program: Program, ledger: Path, disk: Disk
) -> None:
    program.call()
    disk.room = 0
    for _ in range(MAX_HELD + 100):
        program.call()
    assert program.writer.pending == MAX_HELD
    assert program.writer.dropped == {"disk": 100}
    assert program.balanced
    disk.room = None
    retry_now(program)
    program.writer.tick()
    assert program.balanced
    assert len(ids(ledger)) == MAX_HELD + 1
    (path,) = segments_of(ledger)
    reader = SegmentReader(path)
    reader.read()
    assert reader.lost == {"disk": 100}  # the ledger itself says what it lacks


def test_a_failing_disk_is_left_alone_for_a_second(program: Program, disk: Disk) -> None:
    disk.room = 0
    program.call()
    asked = disk.asked
    for _ in range(100):
        program.call()
    assert disk.asked == asked


def test_closing_on_a_dead_disk_counts_what_it_loses(program: Program, disk: Disk) -> None:
    program.call()
    disk.room = 0
    program.call()
    program.call()
    program.close()
    assert program.writer.dropped == {"closed": 2}
    assert program.balanced


@root_only
def test_a_full_file_system(tmp_path: Path) -> None:
    """The same on a real one, of 64 KiB, filled to its last byte."""
    code = """
import os, sys
from tests.ledgers import Program
place = sys.argv[1]
program = Program(os.path.join(place, "ledger"))
with open(os.path.join(place, "ballast"), "wb") as ballast:
    ballast.write(b"x" * 20_000)
made = [program.call(labels={"asset": f"a{n}"}) for n in range(400)]
assert program.writer.pending, "the disk never filled up"
assert program.balanced
os.unlink(os.path.join(place, "ballast"))
program.writer._retry_at = 0
program.call()
from costinsights.ledger.reader import read_ledger
found = [charge.charge_id for charge in read_ledger(os.path.join(place, "ledger"))]
assert len(found) == len(set(found)) == program.writer.written
assert program.balanced
print(len(found), "written,", program.writer.pending, "pending")
"""
    mount = f"mount -t tmpfs -o size=64k tmpfs {tmp_path} && exec {sys.executable} -c '{code}' {tmp_path}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "written," in done.stdout


def test_a_process_without_free_files_goes_on(program: Program, ledger: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        made = [program.call() for _ in range(3)]
        assert program.writer.pending == 3
        os.close(opened.pop())
        os.close(opened.pop())
        retry_now(program)
        program.writer.tick()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in opened:
            os.close(fd)
    assert ids(ledger) == made
    assert program.balanced


# --- what others do to the files ------------------------------------------------------------------


def test_a_deleted_ledger_comes_back_with_everything(program: Program, ledger: Path) -> None:
    import shutil

    made = [program.call(labels={"asset": f"a{n}"}) for n in range(5)]
    shutil.rmtree(ledger)
    made.append(program.call())
    program.writer.tick()
    made.append(program.call(labels={"asset": "a0"}))
    assert ids(ledger) == made
    assert program.balanced


def test_a_deleted_ledger_that_cannot_come_back_yet_is_kept(program: Program, ledger: Path) -> None:
    import shutil

    made = [program.call(labels={"asset": f"a{n}"}) for n in range(5)]
    shutil.rmtree(ledger)
    ledger.write_text("a file where the folder was")
    program.writer.tick()
    made.append(program.call())
    program.writer.tick()
    ledger.unlink()
    program.writer.tick()
    made.append(program.call(labels={"asset": "a0"}))
    assert ids(ledger) == made
    assert program.balanced


def test_a_program_that_closes_all_its_files_loses_nothing(program: Program, ledger: Path) -> None:
    """A program that turns into a daemon closes every file number that it may have."""
    made = [program.call()]
    os.close(program.writer._fd)  # pyright: ignore[reportPrivateUsage]
    made.append(program.call())
    assert sorted(ids(ledger)) == sorted(made)  # at once, not when the disk is tried again
    assert program.balanced


def test_files_are_for_the_user_only(program: Program, ledger: Path) -> None:
    old = os.umask(0)
    try:
        program.call()
    finally:
        os.umask(old)
    (path,) = segments_of(ledger)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(ledger).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(ledger / "segments").st_mode) == 0o700


def test_a_directory_that_anyone_may_write_is_refused(ledger: Path, program: Program) -> None:
    ledger.mkdir()
    ledger.chmod(0o777)
    with pytest.raises(LedgerError, match="chmod o-w"):
        prepare(str(ledger))
    program.call()
    assert program.writer.pending == 1
    assert "writable by everyone" in program.said[0]
    ledger.chmod(0o700)
    retry_now(program)
    program.call()
    assert len(ids(ledger)) == 2


@root_only
def test_another_users_directory_is_refused(ledger: Path) -> None:
    ledger.mkdir()
    os.chown(ledger, 65534, 65534)
    with pytest.raises(LedgerError, match="belongs to another user"):
        prepare(str(ledger))


def test_a_symbolic_link_for_the_segments_is_refused(ledger: Path, tmp_path: Path) -> None:
    ledger.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (ledger / "segments").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="symbolic link"):
        prepare(str(ledger))


def test_a_planted_link_is_not_written_through(
    program: Program, ledger: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    prepare(str(ledger))
    (ledger / "segments" / f"{program.process}-1.jsonl").symlink_to(victim)
    program.call()
    assert victim.read_text() == "mine"
    retry_now(program)
    program.call()
    assert program.writer.pending == 0  # in the next segment
    assert victim.read_text() == "mine"


# --- threads, forks, finalisers -------------------------------------------------------------------


def test_threads_share_a_writer(program: Program, ledger: Path) -> None:
    made: list[str] = []

    def work(number: int) -> None:
        made.extend(program.call(labels={"asset": f"a{number}"}) for _ in range(200))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        program.writer.tick()
    for thread in threads:
        thread.join()
    assert sorted(ids(ledger)) == sorted(made)
    assert program.balanced


def test_a_forked_child_leaves_the_parents_segment_alone(ledger: Path) -> None:
    """In a process of its own, because pytest's is not one to fork."""
    code = """
import os, sys
from tests.ledgers import Program, segments_of
from costinsights.ledger.reader import is_live, read_ledger
parent = Program(sys.argv[1])
made = [parent.call()]
pid = os.fork()
if not pid:
    parent.writer.abandon()
    child = Program(sys.argv[1])
    child.call()
    os._exit(0)
os.waitpid(pid, 0)
made.append(parent.call())
paths = segments_of(sys.argv[1])
assert len(paths) == 2
assert [is_live(path) for path in paths] == [path.endswith(f"{parent.process}-1.jsonl") for path in paths]
found = [charge.charge_id for charge in read_ledger(sys.argv[1])]
assert len(found) == 3 and set(made) < set(found)
"""
    subprocess.run([sys.executable, "-c", code, str(ledger)], check=True)


def test_a_call_inside_of_a_call_gets_through(program: Program, ledger: Path, disk: Disk) -> None:
    """As when the garbage collector finalises a cursor while the writer recovers."""
    made = [program.call()]
    disk.room = 0
    made += [program.call() for _ in range(5)]
    disk.room = None
    retry_now(program)
    left = 4

    def finalise() -> None:
        nonlocal left
        if left:
            left -= 1
            made.append(program.call())

    disk.before = finalise
    made.append(program.call())
    assert not left
    assert sorted(ids(ledger)) == sorted(made)
    assert len(set(made)) == len(made)
    assert program.balanced
    assert program.writer.pending == 0


def test_segments_are_listed_oldest_first(ledger: Path) -> None:
    assert segments(str(ledger)) == []
    programs = [Program(ledger) for _ in range(3)]
    for program in programs:
        program.call()
        time.sleep(0.01)
    listed = [os.path.basename(path) for path in segments(str(ledger))]
    assert listed == [f"{program.process}-1.jsonl" for program in programs]
    for program in programs:
        program.close()


def test_a_segment_is_live_as_long_as_its_process(program: Program, ledger: Path) -> None:
    program.call()
    (path,) = segments_of(ledger)
    assert is_live(path)
    program.close()
    assert not is_live(path)
    assert not is_live(str(ledger / "segments" / "none.jsonl"))
