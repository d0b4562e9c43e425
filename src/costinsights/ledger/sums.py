"""The sums of calls that are added up, and the entry that they make.

`costinsights._quick` has the same in C.
"""

from __future__ import annotations

import errno
import os

from costinsights.ledger.seal import sealed

MOST = 2**63  # what a number that is written must be less than
_ENTRY = (
    b'{"k":"e","n":%d,"t":%d,"d":%d,"y":%d%b%b%d%b%d'
    b',"sent_bytes":%d,"received_bytes":%d,"retries":%d,"errors":%d%b%b'
)


class Sums:
    """What calls have come to so far. Moments are nanoseconds since the epoch."""

    __slots__ = (
        "calls",
        "duration",
        "ended_at",
        "errors",
        "number",
        "received",
        "requests",
        "retries",
        "sent",
        "started_at",
    )

    def __init__(self, number: int, started_at: int) -> None:
        self.number = number
        """Of the charge."""
        self.started_at = self.ended_at = started_at
        self.calls = self.requests = self.sent = self.received = 0
        self.retries = self.errors = self.duration = 0

    def add(
        self,
        calls: int,
        requests: int,
        sent: int,
        received: int,
        retries: int,
        errors: int,
        started_at: int,
        duration: int,
    ) -> None:
        """Add calls: `sent` and `received` are bytes, `duration` is nanoseconds in the client."""
        self.calls += calls
        self.requests += requests
        self.sent += sent
        self.received += received
        self.retries += retries
        self.errors += errors
        self.duration += duration
        self.ended_at = max(self.ended_at, started_at + duration)
        self.started_at = min(self.started_at, started_at)

    def line(
        self,
        refers: bytes,
        before: bytes,
        meter: bytes,
        after: bytes,
        amount: int | None,
        more: bytes,
    ) -> bytes:
        """Return the sealed line of their entry, by `records.EntryLine`'s names.

        `refers` is what it refers to; `before` ends where the calls stand, `meter` where the requests
        do, `after` follows the errors; `more` stands behind the amount. All of them are text.

        Raises:
            OverflowError: a number has more than 63 bits, in C only.
            ValueError: it is too long for a seal.
        """
        if amount is not None:
            after += b',"m":%d' % amount
        elapsed = self.ended_at - self.started_at or 1
        return sealed(
            _ENTRY
            % (
                self.number,
                self.started_at,
                self.duration,
                elapsed,
                refers,
                before,
                self.calls,
                meter,
                self.requests,
                self.sent,
                self.received,
                self.retries,
                self.errors,
                after,
                more,
            )
        )

    def keep(
        self,
        fd: int,
        offset: int,
        most: int,
        turn: int,
        parts: tuple[bytes, bytes, bytes, bytes, bytes, bytes],
        each: int,
        calls: int,
        requests: int,
        sent: int,
        received: int,
        retries: int,
        errors: int,
        started_at: int,
        duration: int,
    ) -> int | None:
        """Add calls of which a request costs `each`, and have their line stand in a file at `offset`.

        `parts` are the first four of `line`, and what stands before and behind the charge's number in
        the line's mark, which ends with `turn`. Return what all of them cost; None, and nothing is
        added, where that is no number of 63 bits, or the line is longer than `most` bytes.

        Raises:
            OSError: the disk takes it not, or not all of it. Nothing is added.
        """
        before = [getattr(self, name) for name in Sums.__slots__]
        self.add(calls, requests, sent, received, retries, errors, started_at, duration)
        amount = self.requests * each
        kept = False
        try:
            if each < MOST and -MOST <= amount < MOST:
                refers, opening, meter, after, mark, between = parts
                more = b"%b%d%b%d" % (mark, self.number, between, turn)
                line = self.line(refers, opening, meter, after, amount, more)
                if len(line) <= most:
                    if os.pwrite(fd, line, offset) != len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    kept = True
        finally:
            if not kept:
                for name, value in zip(Sums.__slots__, before, strict=True):
                    setattr(self, name, value)
        return amount if kept else None
