"""The one writer a process: an entry is in the file before the user's call returns.

Every append is one ``write`` to a file opened for appending, so that a killed process leaves at
most one torn line, and a dead disk costs the program nothing but the count of what was lost.

The accounts hold at all times: ``made == written + pending + dropped``. `pending` are entries
that wait in memory, bounded, for a disk that refused them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections import deque
from contextlib import suppress
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING

from costinsights.ledger.seal import seal
from costinsights.quick import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costinsights.ledger.segment import Definition, Definitions

SEGMENTS = "segments"
ROTATE_BYTES = 64 * 1024 * 1024
ROTATE_NS = 3600 * 10**9
RETRY_NS = 10**9
MAX_HELD = 4096
# A file number that no program reaches by opening files: one that closes "all its files" when it
# turns into a daemon, and then opens its own, must not find ours behind one of its numbers.
HIGH_FD = 768

_OPEN_FLAGS = (
    os.O_RDWR
    | os.O_CREAT
    | os.O_EXCL
    | os.O_APPEND
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
)


class LedgerError(OSError):
    """The ledger directory cannot be used, and what to do about it."""


def prepare(directory: str) -> str:
    """Make the segments' directory, for this user only, and return its path.

    Raises:
        LedgerError: another user owns the directory or anyone may write to it.
        OSError: it cannot be made.
    """
    segments = os.path.join(directory, SEGMENTS)
    make_folder(segments)
    for path in (directory, segments):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) and path == segments:
            raise LedgerError(f"{path} is a symbolic link: give the ledger a directory of its own")
        found = os.stat(path)
        if hasattr(os, "geteuid") and found.st_uid not in (os.geteuid(), 0):
            raise LedgerError(f"{path} belongs to another user: set COSTINSIGHTS_LEDGER")
        if found.st_mode & stat.S_IWOTH:
            raise LedgerError(f"{path} is writable by everyone: run chmod o-w {path}")
    return segments


def make_folder(folder: str) -> None:
    """Make a folder, and those above it, for this user only: `os.makedirs` leaves these open.

    A program that has become a daemon often has no umask that would help.
    """
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
    except FileNotFoundError:
        above = os.path.dirname(folder)
        if above == folder:
            raise
        make_folder(above)
        make_folder(folder)


class Writer(Segment):
    """Appends entries to segments under `directory`; safe between threads, signals and forks.

    `header` gives the sealed first line of a new segment. `say` gets one message when writing
    starts to fail and one when it works again. `begun` is called when a segment has been opened:
    from then on somebody must call `tick` about every second.
    """

    def __init__(
        self,
        directory: str,
        process: str,
        header: Callable[[], bytes],
        say: Callable[[str], None],
        begun: Callable[[], None],
    ) -> None:
        self.directory = directory
        self.process = process
        self.dropped: dict[str, int] = {}
        self.lock = threading.RLock()
        self.segment = 0
        self.path: str | None = None
        self._header = header
        self._say = say
        self._begun = begun
        self._fd = -1
        self._seen: set[int] = set()
        self._complete: set[object] = set()
        self._opened_at = 0
        self._torn = False
        self._held: deque[tuple[bytes, Definitions]] = deque()
        self._retry_at = 0
        self._unsaid: dict[str, int] = {}
        self._failing = False
        # While this thread writes carefully, a call of a finaliser's on top of it waits its turn.
        self._careful = False

    @property
    def pending(self) -> int:
        """Entries that wait in memory for the disk."""
        return len(self._held)

    def _append_carefully(
        self,
        line: bytes,
        key: object,
        definitions: Definitions,
        settled: list[bool],
    ) -> None:
        if self._careful or (self._failing and monotonic_ns() < self._retry_at):
            self._hold(line, definitions)
            settled[0] = True
            return
        self._careful = True
        try:
            if self._failing or self._held or self._unsaid:
                self._recover()
            self._write(line, definitions)
        except OSError as error:
            self._hold(line, definitions)
            settled[0] = True
            self._failed(error)
        else:
            self.written += 1
            settled[0] = True
            if self._fd >= 0:
                self._complete.add(key)
        finally:
            self._careful = False
        if self._held and not self._failing:
            self._try_again()

    def _try_again(self) -> None:
        """Write what waits in memory, unless this thread is at it already."""
        if self._careful:
            return
        self._careful = True
        try:
            self._recover()
        except OSError as error:
            self._failed(error)
        finally:
            self._careful = False

    def tick(self) -> None:
        """Do, off the caller's thread, what need not be done at once: fsync, retry, rotate."""
        with self.lock:
            fd, dirty, self.dirty = self._fd, self.dirty, False
            if self._held and not (self._failing and monotonic_ns() < self._retry_at):
                self._try_again()
            if fd < 0:
                return
            self._rescue()
            if self._size >= self._most or (
                self._size and time_ns() - self._opened_at >= ROTATE_NS
            ):
                self._close()
                return
            try:
                fd = os.dup(self._fd) if dirty and self._fd >= 0 else -1
            except OSError:
                return
        if fd >= 0:  # outside the lock: a slow disk must not hold the callers up
            try:
                os.fdatasync(fd)
            except OSError:
                self.dirty = True
            finally:
                os.close(fd)

    def sync(self) -> None:
        """Bring what is written to the disk now."""
        self.dirty = True
        self.tick()

    def close(self) -> None:
        """End this writer: what still waits in memory is tried once more, then counted as lost."""
        with self.lock:
            if self._held:
                self._try_again()
                for _ in range(len(self._held)):
                    self._held.popleft()
                    self._drop("closed")
            self.sync()
            self._close()

    def abandon(self) -> None:
        """Forget the parent's segment in a forked child; the parent goes on writing it."""
        self.lock = threading.RLock()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._complete = set()

    # -- the file -------------------------------------------------------------------------------

    def _fell_short(self, count: int, line: bytes, definitions: Definitions) -> None:
        self._torn = True
        self._complete = set()  # the next entry takes the careful way
        if count < len(line) - 1:
            self._hold(line, definitions)
            return
        # Only the line feed is missing, and the next entry will begin with one.
        self.written += 1
        self.dirty = True

    def _write(self, line: bytes, definitions: Sequence[Definition | None]) -> None:
        if self._fd < 0:
            self._open()
        seen = self._seen
        new = [known for known in definitions if known is not None and known.number not in seen]
        data = b"".join([*[known.line for known in new], line]) if new else line
        self._put(data)
        for known in new:
            seen.add(known.number)
        self.dirty = True
        if self._size >= self._most:
            self._close()

    def _put(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        count = os.write(self._fd, data)
        self._size += count
        if count == len(data):
            self._torn = False
            return
        self._torn = True
        while count < len(data):
            data = data[count:]
            try:
                count = os.write(self._fd, data)
            except OSError:
                if data == b"\n":  # the entry is whole, and what comes next begins with one
                    return
                raise
            if not count:
                raise OSError(errno.EIO, "the disk takes no more bytes")
            self._size += count
        self._torn = False

    def _open(self) -> None:
        directory = prepare(self.directory)
        header = self._header()
        self.segment += 1
        path = os.path.join(directory, f"{self.process}-{self.segment}.jsonl")
        low = os.open(path, _OPEN_FLAGS, 0o600)
        fd = raise_high(low)
        claim(fd)
        self.path, self._fd = path, fd
        self._size, self._most = 0, ROTATE_BYTES
        self._opened_at, self._torn = time_ns(), False
        self._seen = set()
        self._complete = set()
        try:
            self._put(header)
        except OSError:
            # Without its first line nothing in a segment can be read: there must be none such.
            self._give_up()
            raise
        self._begun()

    def _give_up(self) -> None:
        """Remove the segment that was just opened, and forget its number."""
        fd, self._fd, self._torn = self._fd, -1, False
        os.close(fd)
        if self.path is not None:
            os.unlink(self.path)
            self.path = None
        self.segment -= 1

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self._complete = set()
        if fd >= 0:
            try:
                os.fdatasync(fd)
            except OSError:
                pass
            finally:
                os.close(fd)

    def _rescue(self) -> None:
        """Bring a segment back that someone deleted while it was open: nothing is lost with it.

        Where that cannot be done yet, writing goes on in what was deleted.
        """
        try:
            found = os.fstat(self._fd)
        except OSError:
            return
        if found.st_nlink or not found.st_size or self._careful:
            return
        old, seen, complete = self._fd, self._seen, self._complete
        size, opened_at, sent = self._size, self._opened_at, 0
        self._careful = True
        try:
            self._fd = -1
            self._open()
            os.ftruncate(self._fd, 0)  # the old header comes with the old lines
            self._size = 0
            while part := os.pread(old, 1 << 20, sent):
                self._put(part)
                sent += len(part)
            os.close(old)
        except OSError:
            if self._fd >= 0:
                self._give_up()
            self._fd, self._size, self._opened_at = old, size, opened_at
        finally:
            self._careful = False
        self._seen, self._complete = seen, complete

    # -- when the disk refuses ------------------------------------------------------------------

    def _hold(self, line: bytes, definitions: Definitions) -> None:
        self._held.append((line, definitions))
        if len(self._held) > MAX_HELD:
            self._held.popleft()
            self._drop("disk")

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self._unsaid[reason] = self._unsaid.get(reason, 0) + 1

    def _failed(self, error: OSError) -> None:
        self._retry_at = monotonic_ns() + RETRY_NS
        self._complete = set()
        if not self._failing:
            self._failing = True
            self._say(
                f"the ledger at {self.directory} cannot be written ({error}); "
                f"the last {MAX_HELD} entries wait in memory, older ones are counted as dropped"
            )
        if self._fd >= 0 and getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):
            # The file itself may be gone or not ours any more (EBADF): begin a new segment.
            if getattr(error, "errno", None) != errno.EBADF:
                with suppress(OSError):
                    os.close(self._fd)
            self._fd = -1

    def _recover(self) -> None:
        if self._unsaid:
            import msgspec

            from costinsights.records import LossLine

            if self._fd < 0:
                self._open()
            self._put(seal(msgspec.json.encode(LossLine(at=time_ns(), dropped=self._unsaid))))
            self._unsaid = {}
        while self._held:
            line, definitions = self._held[0]
            self._write(line, definitions)
            self.written += 1
            self._held.popleft()
        if self._failing:
            self._failing = False
            self._say(f"the ledger at {self.directory} is written again; dropped: {self.dropped}")


def raise_high(fd: int) -> int:
    """Give a file a number above those that programs close or take over when they become daemons."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, HIGH_FD)
    except OSError:
        return fd  # fewer files allowed than that
    os.close(fd)
    return high


def claim(fd: int) -> None:
    """Hold the segment for as long as this process lives: that is how others know it does."""
    for _ in range(20):  # a reader that looks whether we live holds the lock for microseconds
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            return  # a file system without locks
        return
