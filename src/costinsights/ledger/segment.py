"""Where every entry comes through: one write to a segment that is open.

`costinsights._quick` has the usual case in C, and comes here with the others.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from _thread import RLock

# An empty set is made of it without a call: at the stack's end there is none any more.
_NOTHING: tuple[object, ...] = ()


class Definition(Protocol):
    """What entries refer to by number; `line` is its sealed line."""

    number: int
    line: bytes


Definitions = tuple[Definition | None, ...]


class Segment:
    """The segment that is written. What is to be done when something is amiss, its heir knows."""

    # An RLock, because a signal handler or a finaliser may run a statement of its own while this
    # very thread is inside: it must get through, not wait for itself.
    lock: RLock
    """Held while anything of it changes."""
    made: int = 0
    """Entries that there have been; `written` of them are in a file."""
    written: int = 0
    dirty: bool = False
    """Whether something was written since the disk was last waited for."""
    dropped: dict[str, int]
    """Entries that were lost, by reason; `_unsaid` are those of which the ledger does not tell yet."""
    _unsaid: dict[str, int]
    _torn: bool
    _complete: set[object]
    """Sets of definitions that the open segment has; empty when none is open."""
    _fd: int = -1
    _size: int = 0
    _most: int = 0
    """The size at which another segment begins, in bytes."""

    def append(self, line: bytes, key: object, definitions: Definitions) -> None:
        """Write one entry, and before it the definitions that this segment has not seen yet.

        `key` stands for the set of `definitions`: one look-up tells that all of them are known.
        """
        with self.lock:
            self.made += 1
            if key not in self._complete:
                settled = [False]
                try:
                    self._append_carefully(line, key, definitions, settled)
                except BaseException:
                    if not settled[0]:
                        self._torn, self._complete = True, {*_NOTHING}
                        for counts in (self.dropped, self._unsaid):
                            counts["interrupted"] = (
                                counts["interrupted"] + 1 if "interrupted" in counts else 1
                            )
                    raise
                return
            # The usual case, kept short: the segment is open and has all the definitions.
            try:
                count = os.write(self._fd, line)
            except OSError as error:
                if error.errno == errno.EBADF:
                    # The program closed all its files, as daemons do: begin a new segment at once.
                    self._fd = -1
                    self._complete = set()
                    self._append_carefully(line, key, definitions, [False])
                    return
                self._hold(line, definitions)
                self._failed(error)
                return
            except BaseException:
                # A signal handler of the program's has raised, or the stack has come to its end: nobody
                # can tell whether the entry is in the file, and how much of it.
                self._torn, self._complete = True, {*_NOTHING}
                for counts in (self.dropped, self._unsaid):
                    # Without a call: at the stack's end there is none any more.
                    counts["interrupted"] = (
                        counts["interrupted"] + 1 if "interrupted" in counts else 1
                    )
                raise
            self._size += count
            if count != len(line):
                self._fell_short(count, line, definitions)
                return
            self.written += 1
            self.dirty = True
            if self._size >= self._most:
                self._close()

    # -- of the heir ------------------------------------------------------------------------------

    def _append_carefully(
        self, line: bytes, key: object, definitions: Definitions, settled: list[bool]
    ) -> None:
        """Write an entry where a definition is new, or something is amiss."""
        raise NotImplementedError

    def _fell_short(self, count: int, line: bytes, definitions: Definitions) -> None:
        """Only `count` bytes of a line were written."""
        raise NotImplementedError

    def _hold(self, line: bytes, definitions: Definitions) -> None:
        """Keep an entry in memory until the disk takes it."""
        raise NotImplementedError

    def _failed(self, error: OSError) -> None:
        """The disk has refused."""
        raise NotImplementedError

    def _close(self) -> None:
        """End the segment."""
        raise NotImplementedError
