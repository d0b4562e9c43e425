"""Writes each charge as one line of JSON, to a file or to standard output.

::

    [exporters.jsonl]
    path = "/var/log/app/charges.jsonl"   # "-" is standard output
    max_bytes = 67108864                  # then the file becomes charges.jsonl.1, and so on
    files = 5                             # so many of these are kept

Without a path it is ``charges.jsonl`` beside the ledger's directory. A line holds the whole charge
as docs/ledger.md describes it, with nothing to look up elsewhere. A later figure for a charge is a
further line with the same ``charge_id`` and a higher ``revision``. The file is its owner's only
(mode 0600); several processes may write to the same one. A line that a crash cut short is removed,
and what had been written before the crash is not written again.
"""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager, suppress
from select import select
from typing import TYPE_CHECKING

import msgspec

from costinsights.exporter import ExporterUnavailable

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from costinsights.records import Charge

# How far from its end a file is searched for what a process that crashed had already written: more
# than the largest batch.
TAIL_BYTES = 16 * 1024 * 1024

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_encode = msgspec.json.Encoder().encode


class JSONLOptions(msgspec.Struct, frozen=True):
    """Options of the jsonl exporter."""

    path: str = ""
    max_bytes: int = 64 * 1024 * 1024
    files: int = 5
    ledger: str = ""


class _Key(msgspec.Struct):
    charge_id: str
    revision: int = 0


class JSONLExporter:
    """Appends charges to a file of JSON lines."""

    name = "jsonl"
    Options = JSONLOptions

    def __init__(self, options: JSONLOptions | None = None) -> None:
        self._options = options or JSONLOptions()
        path = self._options.path
        if not path:
            if not self._options.ledger:
                raise ExporterUnavailable('it needs a path; "-" is standard output')
            path = os.path.join(
                os.path.dirname(os.path.abspath(self._options.ledger)), "charges.jsonl"
            )
        self.path = path
        # What stands in the file already of each process that we have met, by its line's hash.
        self._known: dict[str, dict[tuple[str, int], int]] = {}

    def export(self, batch: Sequence[Charge]) -> None:
        """Append the charges, all of them or none.

        Raises:
            OSError: the file could not be written.
        """
        if self.path == "-":
            _put(sys.stdout.fileno(), b"".join(_encode(charge) + b"\n" for charge in batch))
            return
        with self._opened() as fd:
            data = b"".join(self._line(charge) for charge in batch)
            if data:
                self._append(fd, data)

    def shutdown(self) -> None:
        """Nothing is held between two batches."""

    @contextmanager
    def _opened(self) -> Generator[int]:
        """Open the file for us alone, rotated if it is full and without a torn last line."""
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), mode=0o700, exist_ok=True)
        while True:
            fd = os.open(self.path, _FLAGS, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                with suppress(FileNotFoundError):
                    if os.stat(self.path).st_ino == os.fstat(fd).st_ino:
                        if os.fstat(fd).st_size < self._options.max_bytes:
                            _mend(fd)
                            yield fd
                            return
                        self._rotate()
            finally:
                os.close(fd)

    def _rotate(self) -> None:
        """Move the file, and those moved before, one number up; the last is overwritten."""
        if self._options.files < 1:
            os.unlink(self.path)
            return
        for number in range(self._options.files - 1, 0, -1):
            with suppress(FileNotFoundError):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        os.replace(self.path, f"{self.path}.1")

    def _append(self, fd: int, data: bytes) -> None:
        size = os.fstat(fd).st_size
        try:
            _put(fd, data)
        except OSError:
            os.ftruncate(fd, size)
            raise

    def _line(self, charge: Charge) -> bytes:
        """Return the charge's line; nothing if it stands there since before a crash."""
        process = charge.charge_id.rpartition("-")[0]
        known = self._known.get(process)
        if known is None:
            known = self._known[process] = self._search(process)
        line = _encode(charge) + b"\n"
        if known:
            while (found := known.get((charge.charge_id, charge.revision))) is not None:
                if found == hash(line):
                    return b""
                # It stands there with what was known when we crashed: this is a later figure.
                charge = msgspec.structs.replace(charge, revision=charge.revision + 1)
                line = _encode(charge) + b"\n"
        return line

    def _search(self, process: str) -> dict[tuple[str, int], int]:
        """Return what the files' ends hold of a process that we have not met before."""
        found: dict[tuple[str, int], int] = {}
        needle = f'"{process}-'.encode()
        for path in (f"{self.path}.1", self.path):
            try:
                with open(path, "rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                    for line in file:
                        if needle in line:
                            with suppress(msgspec.MsgspecError):
                                key = msgspec.json.decode(line, type=_Key)
                                found[key.charge_id, key.revision] = hash(line)
            except FileNotFoundError:
                continue
        return found


def _mend(fd: int) -> None:
    """Cut off a last line that has no end: its writer died, and its charge comes again."""
    size = os.fstat(fd).st_size
    while size:
        start = max(0, size - 65536)
        end = os.pread(fd, size - start, start).rfind(b"\n")
        if end >= 0:
            if start + end + 1 < os.fstat(fd).st_size:
                os.ftruncate(fd, start + end + 1)
            return
        size = start
    if os.fstat(fd).st_size:
        os.ftruncate(fd, 0)


def _put(fd: int, data: bytes) -> None:
    """Write all of it, straight to the file: at exit nothing may be left in, or wait for, a buffer."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            select([], [fd], [], 1.0)
