"""Where each exporter is in each segment, on disk, and who is at it now.

Beside ``segments/`` a ledger has ``exporters/<exporter>/``. In it stands, for every segment that
this exporter has to bring to its end, a file ``<segment>.position``. It is there from the moment
in which the segment is opened, so that a process killed in the next instant leaves no doubt about
what is still owed. When all is exported the file is renamed to ``<segment>.done``.

A process that exports a segment holds a lock on ``<segment>.lease``, which goes with the process.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights.ledger.writer import SEGMENTS, raise_high

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPORTERS = "exporters"
POSITION = ".position"
DONE = ".done"
LEASE = ".lease"
REJECTED = "rejected.jsonl"

_FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


class Position(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How far an exporter is in a segment, and what became of the entries up to there.

    ``entries before offset == exported + merged + skipped + rejected + refused``; lines that were
    torn are no entries and are counted in `torn`.
    """

    offset: int = 0
    """Bytes of the segment that are behind us."""
    service: str = ""
    began: int = 0
    """When the segment began, as its header says: a copy of it begins at the same moment."""
    exported: int = 0
    """Charges that the destination has."""
    merged: int = 0
    """Entries that went out within an earlier entry of the same charge."""
    skipped: int = 0
    """Charges that the destination cannot express."""
    rejected: int = 0
    """Charges in ``rejected.jsonl``."""
    refused: int = 0
    """Charges that the destination refused when it took the rest, without saying which."""
    torn: int = 0
    gone: bool = False
    """The segment was deleted before its end was reached."""


class Status(NamedTuple):
    """One exporter in one segment, for those who look from outside."""

    exporter: str
    segment: str
    position: Position
    size: int
    """Bytes that the segment has now; 0 when it is gone."""
    done: bool


def folder(ledger: str, exporter: str) -> str:
    """Return where the positions of an exporter are, whatever characters its name has."""
    safe = "".join(letter if letter in _SAFE else "_" for letter in exporter).lstrip(".")
    return os.path.join(ledger, EXPORTERS, safe or "_")


def segment_name(path: str) -> str:
    """Return the name of the segment at `path`: ``<process>-<number>``."""
    return os.path.basename(path).removesuffix(".jsonl")


def segment_path(ledger: str, segment: str) -> str:
    """Return where the segment of that name is."""
    return os.path.join(ledger, SEGMENTS, f"{segment}.jsonl")


def register(ledger: str, exporter: str, segment: str, service: str) -> None:
    """Note that `exporter` has to export `segment`, from its beginning.

    Raises:
        OSError: it could not be written.
    """
    place = folder(ledger, exporter)
    path = os.path.join(place, segment + POSITION)
    data = msgspec.json.encode(Position(service=service))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    except FileNotFoundError:
        os.makedirs(place, mode=0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
    except FileExistsError:
        return
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def load(ledger: str, exporter: str, segment: str) -> Position | None:
    """Return the position, or None where there is none.

    A file that a power failure emptied counts as the beginning: rather twice than never.
    """
    try:
        with open(os.path.join(folder(ledger, exporter), segment + POSITION), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(data, type=Position)
    except msgspec.MsgspecError:
        return Position()


def store(ledger: str, exporter: str, segment: str, position: Position) -> None:
    """Write the position so that at all times the old one or the new one stands there.

    Raises:
        OSError: it could not be written.
    """
    place = folder(ledger, exporter)
    path = os.path.join(place, segment + POSITION)
    new = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _FLAGS
    try:
        fd = os.open(new, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(place, mode=0o700, exist_ok=True)
        fd = os.open(new, flags, 0o600)
    try:
        os.write(fd, msgspec.json.encode(position))
        os.fdatasync(fd)
    finally:
        os.close(fd)
    os.replace(new, path)


def finish(ledger: str, exporter: str, segment: str) -> None:
    """Note that nothing of the segment is owed to the exporter any more."""
    path = os.path.join(folder(ledger, exporter), segment)
    with suppress(FileNotFoundError):
        os.replace(path + POSITION, path + DONE)


def owed(ledger: str, exporter: str) -> list[str]:
    """Return the names of the segments that `exporter` has not brought to their end."""
    return _named(folder(ledger, exporter), POSITION)


def is_done(ledger: str, exporter: str, segment: str) -> bool:
    """Tell whether `exporter` has the whole segment."""
    return os.path.exists(os.path.join(folder(ledger, exporter), segment + DONE))


def is_owed(ledger: str, segment: str) -> bool:
    """Tell whether any exporter still needs the segment: whoever deletes it asks this first."""
    return any(
        os.path.exists(os.path.join(place, segment + POSITION)) for place in _exporters(ledger)
    )


def forget(ledger: str, segment: str, exporter: str | None = None) -> None:
    """Remove what is noted about a segment that was deleted or compacted, for one exporter or all."""
    for place in _exporters(ledger) if exporter is None else [folder(ledger, exporter)]:
        for end in (POSITION, DONE):
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(place, segment + end))


def status(ledger: str) -> Iterator[Status]:
    """Yield how far every exporter is in every segment that it has, or had, to export."""
    for place in sorted(_exporters(ledger)):
        for end in (POSITION, DONE):
            for segment in _named(place, end):
                try:
                    with open(os.path.join(place, segment + end), "rb") as file:
                        position = msgspec.json.decode(file.read(), type=Position)
                except (OSError, msgspec.MsgspecError):
                    continue
                try:
                    size = os.stat(segment_path(ledger, segment)).st_size
                except OSError:
                    size = 0
                yield Status(os.path.basename(place), segment, position, size, end == DONE)


def set_aside(ledger: str, exporter: str, lines: bytes) -> None:
    """Append whole lines to the exporter's ``rejected.jsonl``, and bring them to the disk.

    Raises:
        OSError: they could not be written.
    """
    place = folder(ledger, exporter)
    os.makedirs(place, mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _FLAGS
    fd = os.open(os.path.join(place, REJECTED), flags, 0o600)
    try:
        while lines:
            lines = lines[os.write(fd, lines) :]
        os.fdatasync(fd)
    finally:
        os.close(fd)


def _exporters(ledger: str) -> list[str]:
    try:
        with os.scandir(os.path.join(ledger, EXPORTERS)) as found:
            return [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _named(place: str, end: str) -> list[str]:
    try:
        return sorted(name.removesuffix(end) for name in os.listdir(place) if name.endswith(end))
    except FileNotFoundError:
        return []


class Lease:
    """The right of this process to export one segment; no other process has it meanwhile."""

    __slots__ = ("__weakref__", "_fd", "_inode", "_path")

    def __init__(self, path: str, fd: int, inode: int) -> None:
        self._path = path
        self._fd = fd
        self._inode = inode

    @classmethod
    def take(cls, ledger: str, exporter: str, segment: str) -> Lease | None:
        """Return the lease, or None while another process has it.

        Raises:
            OSError: there can be no lease: the ledger cannot be written.
        """
        place = folder(ledger, exporter)
        path = os.path.join(place, segment + LEASE)
        os.makedirs(place, mode=0o700, exist_ok=True)
        for _ in range(3):
            fd = raise_high(os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600))
            inode = os.fstat(fd).st_ino
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            except OSError:
                pass  # a file system without locks: there is no better than to believe we are alone
            lease = cls(path, fd, inode)
            if lease.held():
                _held.add(lease)
                return lease
            os.close(fd)  # whoever had it has just removed it: this lock is on nothing
        return None

    def held(self) -> bool:
        """Tell whether the lease is still what others find at its place."""
        try:
            return os.stat(self._path).st_ino == self._inode
        except OSError:
            return False

    def release(self) -> None:
        """Give the lease back."""
        if self in _held:
            _held.discard(self)
            if self.held():
                with suppress(OSError):
                    os.unlink(self._path)
            self.close()

    def close(self) -> None:
        """Close the file, and leave the lease to whoever else has it open: a parent process."""
        # A program that closed "all its files" may have its own behind this number by now.
        with suppress(OSError):
            if os.fstat(self._fd).st_ino == self._inode:
                os.close(self._fd)


_held: set[Lease] = set()


def _forked() -> None:
    """Close the parent's leases in a child, or they would outlive the parent there."""
    for lease in _held:
        lease.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
