"""Full, gone and forbidden disks, storms of threads, forks, signals and cancellations.

Whatever happens, the program's own results stay what they are, the accounts
``made == written + pending + dropped`` are exact, and what is wrong is said once.
"""

# The writer's own clock and file are where its faults are made.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights import runtime
from costinsights.ledger.reader import SegmentReader, read_ledger, segments
from costinsights.ledger.segment import Segment
from costinsights.ledger.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from tests.backends import Server

# Every program below begins with this: a query that the ledger must not disturb, and the accounts.
BEGINNING = """
import os, sys, json, logging, sqlite3, threading, time, signal, errno
said = []
class Keep(logging.Handler):
    def emit(self, record): said.append(record.getMessage())
logging.getLogger("costinsights").addHandler(Keep())
logging.getLogger("costinsights").propagate = False
import costinsights
from costinsights import guard, runtime
LEDGER = sys.argv[1]

def query(number, connection=None):
    connection = connection or sqlite3.connect(":memory:")
    assert connection.execute(f"SELECT {number} AS c{number}").fetchall() == [(number,)]

def accounts():
    writer = runtime.active().made.writer
    with writer.lock:
        lost = sum(writer.dropped.values())
        assert writer.made == writer.written + writer.pending + lost, vars(writer)
        return writer.made, writer.written, writer.pending, lost

def wait_for(done, seconds=10):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, accounts()
        time.sleep(0.02)

def fill(place):
    ballast = os.open(os.path.join(place, "ballast"), os.O_WRONLY | os.O_CREAT)
    try:
        while True: os.write(ballast, bytes(4096))
    except OSError as error:
        assert error.errno == errno.ENOSPC
    os.close(ballast)

def report():
    print(json.dumps({"accounts": accounts(), "said": said, "swallowed": guard.swallowed}))
"""


def run(body: str, ledger: Path, *, wrapper: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run a program with its ledger there, and return what it reported."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", BEGINNING + textwrap.dedent(body), str(ledger)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    reported: dict[str, Any] = json.loads(done.stdout)
    assert reported["swallowed"] == {}
    return reported


def names(ledger: Path, *, torn: int = 0) -> Counter[str]:
    """Return how often each statement's own name is in the ledger; so many lines may be torn."""
    found: Counter[str] = Counter()
    for path in segments(str(ledger)):
        reader = SegmentReader(path)
        for charge in reader.read(ended=True):
            if charge.revision == 0 and charge.statement is not None:
                found[charge.statement.text.rpartition(" ")[2]] += 1
        assert reader.torn <= torn, path
    return found


def each_once(*numbers: int) -> Counter[str]:
    return Counter(f"c{number}" for number in numbers)


# -- disks ---------------------------------------------------------------------------------------


def can_mount() -> bool:
    unshare = shutil.which("unshare")
    return (
        unshare is not None
        and subprocess.run(
            [unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"],
            capture_output=True,
            check=False,
        ).returncode
        == 0
    )


MOUNTED = pytest.mark.skipif(not can_mount(), reason="no mount namespaces here: unshare -rm")


@MOUNTED
def test_a_full_disk(tmp_path: Path) -> None:
    """Entries wait in memory; once there is space again all of them are written, in their order."""
    where = tmp_path / "small"
    where.mkdir()
    reported = run(
        """
        costinsights.instrument("sqlite3", ledger=LEDGER)
        connection = sqlite3.connect(":memory:")
        place = os.path.dirname(LEDGER)
        query(0, connection)
        fill(place)
        for number in range(1, 200):
            query(number, connection)
            accounts()
        made, written, pending, lost = accounts()
        assert pending > 0 and lost == 0, accounts()
        os.unlink(os.path.join(place, "ballast"))
        wait_for(lambda: accounts()[2] == 0)
        query(200, connection)
        costinsights.flush()
        report()
        costinsights.uninstrument()
        """
        + COPY_OUT,
        where / "ledger",
        wrapper=mounted(where, "size=256k"),
    )
    made, written, pending, lost = reported["accounts"]
    assert (pending, lost) == (0, 0)
    assert made == written
    assert len(reported["said"]) == 2
    assert "cannot be written" in reported["said"][0]
    assert "written again" in reported["said"][1]
    # The last one that went on the disk in part is there again, whole.
    assert names(tmp_path / "kept", torn=1) == each_once(*range(201))


# A tmpfs is gone with its namespace: what is in it is sent out through the parent folder, which the
# mount does not cover.
COPY_OUT = """
        import shutil
        shutil.copytree(LEDGER, os.path.join(place, "..", "kept"))
        """


def mounted(where: Path, options: str) -> tuple[str, ...]:
    script = f'mount -t tmpfs -o {options} none "{where}" && exec "$@"'
    return ("unshare", "-rm", "sh", "-c", script, "sh")


@MOUNTED
def test_more_than_memory_may_hold_is_counted(tmp_path: Path) -> None:
    where = tmp_path / "small"
    where.mkdir()
    reported = run(
        """
        from costinsights.ledger import writer
        writer.MAX_HELD = 50
        costinsights.instrument("sqlite3", ledger=LEDGER)
        connection = sqlite3.connect(":memory:")
        place = os.path.dirname(LEDGER)
        query(0, connection)
        costinsights.flush()
        fill(place)
        for number in range(1, 400):
            query(number, connection)
            accounts()
        assert accounts()[3] > 0
        os.unlink(os.path.join(place, "ballast"))
        wait_for(lambda: accounts()[2] == 0)
        report()
        costinsights.uninstrument()
        """
        + COPY_OUT,
        where / "ledger",
        wrapper=mounted(where, "size=256k"),
    )
    made, written, _, lost = reported["accounts"]
    assert lost > 0
    assert made == written + lost
    assert len(reported["said"]) == 2
    lost_on_disk: Counter[str] = Counter()
    entries = 0
    for path in segments(str(tmp_path / "kept")):
        reader = SegmentReader(path)
        entries += len(reader.read(ended=True))
        lost_on_disk.update(reader.lost)
    assert lost_on_disk == {"disk": lost}, "the ledger itself says what is missing"
    assert entries == written


@MOUNTED
def test_a_read_only_disk(tmp_path: Path) -> None:
    where = tmp_path / "fixed"
    where.mkdir()
    reported = run(
        """
        costinsights.instrument("sqlite3", ledger=LEDGER)
        for number in range(30):
            query(number)
        report()
        """,
        where / "ledger",
        wrapper=mounted(where, "ro"),
    )
    made, written, pending, lost = reported["accounts"]
    assert written == 0
    assert made == pending + lost
    assert made >= 30
    assert len(reported["said"]) == 1
    assert "Read-only file system" in reported["said"][0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_folder_that_we_may_not_write_to(tmp_path: Path) -> None:
    """The program becomes nobody when all its modules are loaded: nobody may not read them here."""
    reported = run(
        """
        costinsights.instrument("sqlite3", ledger=LEDGER + "-before")
        query(0)
        costinsights.flush()
        costinsights.uninstrument()
        os.setresuid(65534, 65534, 65534)
        costinsights.instrument("sqlite3", ledger=LEDGER)
        for number in range(10):
            query(number)
        report()
        """,
        tmp_path / "ledger",
    )
    made, written, pending, lost = reported["accounts"]
    assert (written, lost) == (0, 0)
    assert made == pending >= 10
    assert len(reported["said"]) == 1
    assert "Permission denied" in reported["said"][0]


def test_a_folder_deleted_under_us(tmp_path: Path) -> None:
    """The open segment is brought back with all that was in it."""
    reported = run(
        """
        import shutil
        costinsights.instrument("sqlite3", ledger=LEDGER)
        connection = sqlite3.connect(":memory:")
        for number in range(20):
            query(number, connection)
        shutil.rmtree(LEDGER)
        for number in range(20, 40):
            query(number, connection)
        wait_for(lambda: os.path.isdir(os.path.join(LEDGER, "segments")))
        query(40, connection)
        report()
        """,
        tmp_path / "ledger",
    )
    assert reported["said"] == []
    assert names(tmp_path / "ledger") == each_once(*range(41))


def test_a_segment_that_was_cut_short(tmp_path: Path) -> None:
    """What was there is gone; what comes is whole, and neither is taken for the other."""
    run(
        """
        costinsights.instrument("sqlite3", ledger=LEDGER)
        connection = sqlite3.connect(":memory:")
        query(0, connection); query(1, connection)
        path = runtime.active().made.writer.path
        os.truncate(path, os.path.getsize(path) - 30)
        query(2, connection)
        report()
        """,
        tmp_path / "ledger",
    )
    (path,) = segments(str(tmp_path / "ledger"))
    reader = SegmentReader(path)
    charges = reader.read(ended=True)
    texts = [charge.statement.text for charge in charges if charge.statement is not None]
    assert reader.torn == 1
    assert "SELECT ? AS c0" in texts


def test_no_file_number_left(tmp_path: Path) -> None:
    """The program gets the last one; we write when there is one again."""
    reported = run(
        """
        import resource
        costinsights.instrument("sqlite3", ledger=LEDGER)
        connection = sqlite3.connect(":memory:")
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
        taken = []
        try:
            while True: taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE
        for number in range(10):
            query(number, connection)
        assert accounts()[1] == 0
        for fd in taken: os.close(fd)
        time.sleep(1.1)
        query(10, connection)
        wait_for(lambda: accounts()[2] == 0)
        report()
        """,
        tmp_path / "ledger",
    )
    assert len(reported["said"]) == 2
    assert "Too many open files" in reported["said"][0]
    assert names(tmp_path / "ledger") == each_once(*range(11))


def test_segments_are_not_followed_through_a_link(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    elsewhere = tmp_path / "elsewhere"
    ledger.mkdir(mode=0o700)
    elsewhere.mkdir()
    (ledger / "segments").symlink_to(elsewhere)
    reported = run(
        """
        costinsights.instrument("sqlite3", ledger=LEDGER)
        query(1)
        report()
        """,
        ledger,
    )
    assert list(elsewhere.iterdir()) == []
    assert "symbolic link" in reported["said"][0]
    assert len(reported["said"]) == 1


def test_files_are_the_users_own(tmp_path: Path) -> None:
    run(
        "costinsights.instrument('sqlite3', ledger=LEDGER); query(1); report()", tmp_path / "ledger"
    )
    modes = {
        path.name: oct(path.stat().st_mode & 0o777)
        for path in (tmp_path / "ledger", *(tmp_path / "ledger").iterdir())
    }
    assert set(modes.values()) == {"0o700"}
    for path in segments(str(tmp_path / "ledger")):
        assert os.stat(path).st_mode & 0o777 == 0o600


# -- processes -----------------------------------------------------------------------------------


def test_64_threads_with_1000_queries_each(tmp_path: Path) -> None:
    reported = run(
        """
        costinsights.instrument("sqlite3", ledger=LEDGER)
        def work():
            connection = sqlite3.connect(":memory:")
            for number in range(1000):
                connection.execute("SELECT 1 AS c1").fetchall()
        threads = [threading.Thread(target=work) for _ in range(64)]
        [thread.start() for thread in threads]; [thread.join() for thread in threads]
        report()
        """,
        tmp_path / "ledger",
    )
    made, written, pending, lost = reported["accounts"]
    assert (pending, lost) == (0, 0)
    assert made == written
    charges = [charge for charge in read_ledger(str(tmp_path / "ledger")) if not charge.revision]
    assert len(charges) == len({charge.charge_id for charge in charges}) == 64_000


def test_forks_while_other_threads_write(tmp_path: Path) -> None:
    """A child must not wait for a lock that a thread of its parent's held: 200 rounds.

    The driver is pure Python, because SQLite has locks of its own that a fork may leave held.
    """
    reported = run(
        """
        import types
        from costinsights import DBAPIInstrumentor, Hook

        class Connection:
            host = "here"
        class Cursor:
            connection, rowcount, description = Connection(), 1, None
            def execute(self, query): return self
        driver = types.ModuleType("puredb")
        driver.Cursor, driver.__spec__ = Cursor, None
        sys.modules["puredb"] = driver
        class Pure(DBAPIInstrumentor):
            name = system = driver = "puredb"
            supports = ("0", "9")
            hooks = (Hook("puredb:Cursor.execute"),)
            facts = {"address": "host"}

        costinsights.instrument("sqlite3", ledger=LEDGER)
        pure = Pure()
        pure.instrument(runtime.active().recorder)
        ending = False
        def write():
            cursor = Cursor()
            while not ending:
                cursor.execute("SELECT 1 AS noise")
        threads = [threading.Thread(target=write, daemon=True) for _ in range(4)]
        [thread.start() for thread in threads]
        for number in range(200):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                Cursor().execute(f"SELECT {number} AS c{number}")
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0, number
        ending = True
        [thread.join() for thread in threads]
        report()
        """,
        tmp_path / "ledger",
    )
    made, written, pending, lost = reported["accounts"]
    assert (pending, lost) == (0, 0)
    assert made == written
    found = names(tmp_path / "ledger")
    del found["noise"]
    assert found == each_once(*range(200))


def test_a_signal_handler_that_queries_in_the_middle_of_ours(tmp_path: Path) -> None:
    reported = run(
        """
        from itertools import count
        costinsights.instrument("sqlite3", ledger=LEDGER)
        connections = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
        numbers, inner, inside = count(100_000), [], []
        def handle(*_):
            if inside: return  # on a slow machine the next one comes before this one is done
            inside.append(1)
            number = next(numbers)
            connections[1].execute(f"SELECT {number} AS inner{number}").fetchall()
            inner.append(number)
            inside.clear()
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
        end, number = time.monotonic() + 3, 0
        while time.monotonic() < end:
            query(number, connections[0]); number += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(inner) > 50, len(inner)
        report()
        said.clear()
        print(json.dumps([number, inner]), file=open(LEDGER + ".json", "w"))
        """,
        tmp_path / "ledger",
    )
    made, written, pending, lost = reported["accounts"]
    assert (pending, lost) == (0, 0)
    assert made == written
    outer, inner = json.loads((tmp_path / "ledger.json").read_text(encoding="utf-8"))
    expected = each_once(*range(outer)) + Counter(f"inner{number}" for number in inner)
    assert names(tmp_path / "ledger") == expected


def test_a_time_limit_that_is_raised_in_the_middle_of_ours(tmp_path: Path) -> None:
    """The program gets its exception, and the accounts are exact all the same."""
    reported = run(
        """
        costinsights.instrument("sqlite3", ledger=LEDGER)
        class TimeLimit(Exception): pass
        raised = caught = unraisable = 0
        def hook(_):
            global unraisable
            unraisable += 1  # in a finaliser Python lets nothing out, whoever's it is
        sys.unraisablehook = hook
        def handle(*_):
            global raised
            raised += 1
            raise TimeLimit
        signal.signal(signal.SIGALRM, handle)
        connection = sqlite3.connect(":memory:")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0007)
                    for number in range(1000):
                        connection.execute("SELECT 1 AS limited").fetchall()
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except TimeLimit:
                caught += 1
        # Where one strikes while another is being dealt with, it may still be taken for ours.
        assert 0 <= raised - caught - unraisable <= raised / 100, (raised, caught, unraisable)
        assert caught > 100
        import gc
        gc.collect()  # what exceptions still held on to ends now, and not behind the report
        query(1, connection)
        report()
        """,
        tmp_path / "ledger",
    )
    made, written, pending, lost = reported["accounts"]
    assert pending == 0
    assert made == written + lost
    entries = [
        (charge.charge_id, charge.revision)
        for path in segments(str(tmp_path / "ledger"))
        for charge in SegmentReader(path).read(ended=True)
    ]
    # One that was struck between its write and its count may be written again: it is the same
    # charge and revision, and counts once wherever charges are read.
    assert written <= len(entries)
    assert len(set(entries)) <= made


def test_a_finaliser_that_queries_while_rubbish_is_collected(tmp_path: Path) -> None:
    """Collections start anywhere, also between two lines of ours."""
    reported = run(
        """
        import gc
        costinsights.instrument("sqlite3", ledger=LEDGER)
        connections = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
        finalised = 0
        class Rubbish:
            def __init__(self): self.me = self
            def __del__(self):
                global finalised
                finalised += 1
                connections[1].execute("SELECT 1 AS finaliser").fetchall()
        gc.set_threshold(20, 2, 2)
        for number in range(2000):
            Rubbish()
            query(number, connections[0])
        gc.set_threshold(700, 10, 10)
        gc.collect()
        assert finalised == 2000, finalised
        report()
        """,
        tmp_path / "ledger",
    )
    made, written, pending, lost = reported["accounts"]
    assert (pending, lost) == (0, 0)
    assert made == written
    expected = each_once(*range(2000)) + Counter(finaliser=2000)
    assert names(tmp_path / "ledger") == expected


# -- the disk's lesser evils, in this process ----------------------------------------------------


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """An instrumented connection with a ledger in `tmp_path`, which is open."""
    costinsights.instrument("sqlite3", ledger=tmp_path / "ledger")
    opened = sqlite3.connect(":memory:")
    opened.execute("SELECT 0 AS c0").fetchall()
    yield opened
    opened.close()
    costinsights.uninstrument()


def writer_now() -> Writer:
    active = runtime.active()
    assert active is not None
    assert active.made is not None
    return active.made.writer


def settle(writer: Writer) -> None:
    """Have the writer try again now, and hold the accounts against each other."""
    writer._retry_at = 0
    writer.tick()
    assert writer.made == writer.written + writer.pending + sum(writer.dropped.values())


@pytest.mark.parametrize("most", [1, 7, 64])
def test_short_writes(
    most: int, connection: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, writer = os.write, writer_now()

    def short(fd: int, data: bytes) -> int:
        return real(fd, data[:most] if fd == writer._fd else data)

    monkeypatch.setattr(os, "write", short)
    monkeypatch.setattr(Writer, "append", Segment.append)  # which calls that
    for number in range(1, 20):
        assert connection.execute(f"SELECT {number} AS c{number}").fetchall() == [(number,)]
    monkeypatch.undo()
    settle(writer)
    assert (writer.pending, writer.dropped) == (0, {})
    found: Counter[str] = Counter()
    for charge in read_ledger(str(tmp_path / "ledger")):
        if charge.revision == 0 and charge.statement is not None:
            found[charge.statement.text.rpartition(" ")[2]] += 1
    assert found == each_once(*range(20))


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EBADF, errno.EFBIG]
)
def test_a_write_that_fails(
    number: int,
    connection: sqlite3.Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real, writer = os.write, writer_now()
    failing = {writer._fd}

    def fail(fd: int, data: bytes) -> int:
        if fd in failing:
            raise OSError(number, os.strerror(number))
        return real(fd, data)

    monkeypatch.setattr(os, "write", fail)
    monkeypatch.setattr(Writer, "append", Segment.append)  # which calls that
    for index in range(1, 6):
        assert connection.execute(f"SELECT {index} AS c{index}").fetchall() == [(index,)]
    monkeypatch.undo()
    settle(writer)
    assert (writer.pending, writer.dropped) == (0, {})
    found = Counter(
        charge.statement.text.rpartition(" ")[2]
        for charge in read_ledger(str(tmp_path / "ledger"))
        if charge.revision == 0 and charge.statement is not None
    )
    assert found == each_once(*range(6))
    assert len([r for r in caplog.records if "cannot be written" in r.message]) <= 1


# -- asyncio -------------------------------------------------------------------------------------


async def cancel_while_it_runs(connection: Any) -> BaseException:
    task = asyncio.ensure_future(connection.execute("SELECT pg_sleep(30) AS cancelled"))
    await asyncio.sleep(0.2)
    task.cancel("the program's own words")
    try:
        await task
    except asyncio.CancelledError as error:
        return error
    raise AssertionError("it was not cancelled")


async def give_up_waiting(connection: Any) -> BaseException:
    try:
        await asyncio.wait_for(connection.execute("SELECT pg_sleep(30) AS too_long"), 0.2)
    except asyncio.TimeoutError as error:
        return error
    raise AssertionError("it did not time out")


async def fail_beside(connection: Any) -> BaseException:
    """Like a TaskGroup, which Python has from 3.11 on: one fails, and the other is cancelled."""

    async def fail() -> None:
        await asyncio.sleep(0.2)
        raise LookupError("beside")

    other = asyncio.ensure_future(connection.execute("SELECT pg_sleep(30) AS beside"))
    try:
        await asyncio.gather(fail(), other)
    except LookupError as error:
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        return error
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(
    ("ending", "kind", "name"),
    [
        (cancel_while_it_runs, asyncio.CancelledError, "cancelled"),
        (give_up_waiting, asyncio.TimeoutError, "too_long"),
        (fail_beside, LookupError, "beside"),
    ],
)
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_given_up_while_the_server_works(
    driver: str,
    ending: Any,
    kind: type[BaseException],
    name: str,
    postgres: Server,
    tmp_path: Path,
) -> None:
    """One charge with the error's type, the error itself untouched, and the connection usable."""

    async def program() -> BaseException:
        opened: Any
        if driver == "psycopg":
            import psycopg

            opened = await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True)
        else:
            import asyncpg

            untyped: Any = asyncpg
            opened = await untyped.connect(postgres.dsn)
        error: BaseException = await ending(opened)
        await opened.execute("SELECT 1 AS afterwards")
        await opened.close()
        return error

    costinsights.instrument(driver, ledger=tmp_path / "ledger")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "was never awaited"
            error = asyncio.run(program())
    finally:
        costinsights.uninstrument()
    assert isinstance(error, kind)
    if name == "cancelled":
        assert error.args == ("the program's own words",)
    latest: dict[str, Charge] = {}
    for charge in read_ledger(str(tmp_path / "ledger")):
        latest[charge.charge_id] = charge
    found = {
        charge.statement.text.rpartition(" ")[2]: charge
        for charge in latest.values()
        if charge.statement is not None
    }
    assert set(found) == {name, "afterwards"}
    assert len(latest) == 2
    assert found["afterwards"].error is None
    given_up = found[name].error
    assert given_up is not None
    assert given_up.type.rpartition(".")[2] in ("CancelledError", "QueryCanceled")
    assert found[name].duration_ns > 150_000_000
    assert found[name].rows is None
