"""Tally files: what `costinsights.tally` keeps on disk before it is an entry, and how it is read.

A tally file has the lines of a segment, a header and definitions, and between them slots: blocks of
two halves, each blank (line feeds) or an entry that is written anew with each call. So it is read
like a segment, once the newer half of each slot has been chosen (`text`). The process that writes it
holds its lock for as long as it lives, as with a segment.

Reading changes nothing. `settle` makes segments of what processes have left that live no more.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from time import time
from typing import TYPE_CHECKING

from costinsights import positions
from costinsights.ledger.manifest import sync_folder
from costinsights.ledger.reader import SegmentReader, is_live
from costinsights.ledger.seal import is_sealed
from costinsights.ledger.writer import (
    SEGMENTS,
    claim,
    make_folder,
    prepare,
    raise_high,
)
from costinsights.records import HeaderLine

if TYPE_CHECKING:
    from collections.abc import Iterator

TALLIES = "tallies"
END = ".jsonl"
HALF = 1024
"""Bytes of half a slot. It divides a page of memory: one `pwrite` of it is whole, or not there."""
SLOT = 2 * HALF
TURN = b'"turn":'
"""Of two halves the one with the greater turn is the newer."""
# An empty file younger than this may belong to a process that has not put its lock on it yet.
MIN_AGE_SECONDS = 2.0

_TURN = re.compile(rb',"c":"([0-9a-f]{20}-\d+)","turn":(\d+),"z":')
_FLAGS = (
    os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
)


def create(directory: str, name: str) -> int:
    """Make a tally file, for this user only, and return its file number; it is held.

    Raises:
        OSError: it cannot be made.
    """
    prepare(directory)
    folder = os.path.join(directory, TALLIES)
    make_folder(folder)
    fd = raise_high(os.open(os.path.join(folder, name + END), _FLAGS, 0o600))
    claim(fd)
    return fd


def remove(directory: str, name: str) -> None:
    """Delete a tally file with nothing in it that is not in the ledger."""
    with suppress(OSError):
        os.unlink(os.path.join(directory, TALLIES, name + END))


def paths(directory: str) -> list[str]:
    """Return the tally files of a ledger."""
    try:
        names = os.listdir(os.path.join(directory, TALLIES))
    except OSError:
        return []
    return sorted(os.path.join(directory, TALLIES, name) for name in names if name.endswith(END))


def text(path: str) -> bytes:
    """Return a tally file as a segment: each charge once, as it stood last; empty without any.

    Raises:
        FileNotFoundError: it is gone.
    """
    with open(path, "rb") as file:
        lines = [line for line in file.read().split(b"\n") if line.strip(b"\0")]
    defined: list[bytes] = []
    newest: dict[bytes, tuple[int, bytes]] = {}
    for line in lines:
        if not is_sealed(line):
            continue  # the call that was under way when the process was killed
        turn = _TURN.search(line)
        if turn is None:
            defined.append(line)
        elif turn[1] not in newest or newest[turn[1]][0] < int(turn[2]):
            newest[turn[1]] = int(turn[2]), line
    if not newest:
        return b""
    return b"".join(line + b"\n" for line in (*defined, *(line for _, line in newest.values())))


def copied(directory: str, scratch: str) -> list[str]:
    """Copy what tally files hold now to segments in `scratch`; return their paths.

    Whoever reads the segments as well copies first: what leaves a tally in between is then found in
    both, and counts once.
    """
    found: list[str] = []
    for path in paths(directory):
        try:
            content = text(path)
        except FileNotFoundError:
            continue
        if content:
            target = os.path.join(scratch, segment_of(path) + END)
            with open(target, "wb") as out:
                out.write(content)
            found.append(target)
    return found


def segment_of(path: str) -> str:
    """Return the name of the segment that is made of a tally file."""
    return os.path.basename(path).removesuffix(END).replace("-", "-t")


def dead(directory: str) -> Iterator[str]:
    """Yield the tally files of processes that live no more."""
    for path in paths(directory):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            continue
        begun = found.st_size or time() - found.st_mtime > MIN_AGE_SECONDS
        if begun and not is_live(path):
            yield path


def settle(directory: str) -> int:
    """Make segments of what dead processes have left in tallies; return how many files that were.

    It can be done again at any moment, by anybody, and be killed in the midst: the charges have
    their ids, and count once.

    Raises:
        OSError: the ledger cannot be written.
    """
    return sum(_settled(directory, path) for path in dead(directory))


def _settled(directory: str, path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return False
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False  # somebody else is at it
        content = text(path)
        if content:
            _publish(directory, segment_of(path), content)
            _owe(directory, segment_of(path))
        os.unlink(path)
    except FileNotFoundError:
        return False
    finally:
        os.close(fd)
    return True


def _publish(directory: str, segment: str, content: bytes) -> None:
    """Put a segment into the ledger, whole."""
    folder = prepare(directory)
    new = os.path.join(directory, TALLIES, f"{segment}.new")
    with open(os.open(new, _FLAGS & ~os.O_EXCL | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(new, os.path.join(folder, segment + END))
    sync_folder(os.path.join(directory, SEGMENTS))


def _owe(directory: str, segment: str) -> None:
    """Have the segment exported by those who export its process; else by those of its service."""
    process, service = f"{segment.partition('-')[0]}-", _service(directory, segment)
    found = list(positions.status(directory))
    own = [each for each in found if each.segment.startswith(process)]
    alike = own or [each for each in found if each.position.service == service]
    for exporter in {each.exporter for each in alike}:
        positions.register(directory, exporter, segment, service)


def _service(directory: str, segment: str) -> str:
    reader = SegmentReader(positions.segment_path(directory, segment))
    for line in reader.lines():
        if isinstance(line, HeaderLine):
            return line.service
    return ""
