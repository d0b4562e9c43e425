"""Entries are appended alike by what is compiled and by its twin, also where the disk refuses them."""

from __future__ import annotations

import os
import resource
import threading
from typing import TYPE_CHECKING

import pytest

from costinsights import quick
from costinsights.ledger import segment
from costinsights.ledger.reader import read_ledger
from costinsights.ledger.writer import Writer
from tests.ledgers import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAYS = {"built": quick.Segment.append, "python": segment.Segment.append}


@pytest.fixture(params=WAYS)
def program(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Program]:
    """One that writes by each of the two; they are one where nothing was built."""
    monkeypatch.setattr(Writer, "append", WAYS[request.param])
    found = Program(str(tmp_path / "ledger"))
    yield found
    found.writer.close()


def told(program: Program) -> list[str]:
    """Return the ids of the charges that can be read, in order."""
    return [charge.charge_id for charge in read_ledger(program.writer.directory)]


def recovered(program: Program) -> list[str]:
    """Let the writer try again at once, and return what can be read then."""
    program.writer._retry_at = 0  # pyright: ignore[reportPrivateUsage]
    program.writer.tick()
    assert program.balanced
    assert (program.writer.pending, program.writer.dropped) == (0, {})
    return told(program)


def test_entries_stand_in_the_file_when_append_returns(program: Program) -> None:
    writer = program.writer
    made: list[str] = []
    for number in range(1, 6):
        made.append(program.call())
        assert told(program) == made
        assert (writer.made, writer.written, writer.dirty) == (number, number, True)
        assert writer.path is not None
        assert writer._size == os.path.getsize(writer.path)  # pyright: ignore[reportPrivateUsage]


def test_what_a_full_disk_refuses_is_written_when_there_is_room(program: Program) -> None:
    made = [program.call()]
    fd = program.writer._fd  # pyright: ignore[reportPrivateUsage]
    file, device = os.dup(fd), os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, fd)
    made += [program.call() for _ in range(3)]
    assert program.balanced
    assert program.writer.pending == 3
    os.dup2(file, fd)
    os.close(file)
    os.close(device)
    assert recovered(program) == made


def test_a_file_that_was_closed_behind_our_back_is_followed_by_another(program: Program) -> None:
    made = [program.call()]
    os.close(program.writer._fd)  # pyright: ignore[reportPrivateUsage]
    made += [program.call() for _ in range(3)]
    assert program.writer.segment == 2
    assert recovered(program) == made


@pytest.mark.parametrize("short", [1, 7, 100, -1])
def test_what_the_disk_takes_in_part_is_there_once(program: Program, short: int) -> None:
    """By the limit of a file's size: a write up to it falls short, the next one is refused."""
    made = [program.call(), program.call()]
    path = program.writer.path
    assert path is not None
    before = os.path.getsize(path)
    with open(path, "rb") as file:
        line = len(file.readlines()[-1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (before + short % line, limits[1]))
    try:
        made.append(program.call())
        assert os.path.getsize(path) == before + short % line
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert program.balanced
    made.append(program.call())
    assert sorted(recovered(program)) == sorted(made)


def test_another_segment_begins_when_one_is_full(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costinsights.ledger.writer.ROTATE_BYTES", 2000)
    made = [program.call() for _ in range(60)]
    assert program.writer.segment > 3
    assert sorted(told(program)) == sorted(made)


def test_threads_do_not_write_into_each_other(program: Program) -> None:
    writer = program.writer

    def work() -> None:
        for _ in range(500):
            program.call()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (writer.made, writer.written) == (2000, 2000)
    assert len(set(told(program))) == 2000


def test_the_lock_is_free_again_after_an_error(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program.call()

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "_append_carefully", stops)
    with pytest.raises(KeyboardInterrupt):
        program.writer.append(b"", object(), ())
    assert program.writer.dropped == {"interrupted": 1}
    free: list[bool] = []

    def take() -> None:
        free.append(program.writer.lock.acquire(timeout=5))
        program.writer.lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    assert free == [True]


@pytest.mark.parametrize("args", [(), (b"",), (b"", 1), (b"", 1, (), 1), ("text", 1, ())])
def test_what_is_no_entry_is_refused(program: Program, args: tuple[object, ...]) -> None:
    made = program.call()
    with pytest.raises(TypeError):
        program.writer.append(*args)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert told(program) == [made]
