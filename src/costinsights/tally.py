"""The tally: calls that are too many for an entry each are added up, durably, for at most a second.

Calls of one kind and one attribution make one *aggregate*. It has the number of its charge from its
first call on, and a slot in the process's tally file, ``tallies/<process>-<n>.jsonl``: before a call
returns to the program, the entry that would be written now stands whole in the slot, put there by
one ``pwrite``. After a second the aggregate is an ordinary entry of the ledger, and its slot is free.

What a killed process leaves in its slots is read with the ledger, and made entries of by whoever
tends it next (`costinsights.ledger.tallies`). A slot has two halves that take turns, so that one of
them is whole at any moment; and it says the charge's id, so that an aggregate that is found both in
its slot and in the ledger counts once.

While the disk takes nothing, aggregates grow on in memory; they are few, however many the calls.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from sys import modules
from time import monotonic_ns, perf_counter_ns
from typing import TYPE_CHECKING

import msgspec

from costinsights.attribution import MAX_UNTOLD, add_up, innermost, root, tell, untold
from costinsights.guard import say
from costinsights.ledger.tallies import HALF, SLOT, TURN, create, remove
from costinsights.ledger.writer import RETRY_NS
from costinsights.pricing.adding import Adding, Priced
from costinsights.quick import Sums
from costinsights.records import MAX_INTEGER, Resource, decimal_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.attribution import Scope
    from costinsights.pricing.line import Price
    from costinsights.recorder import Definition, Recorder, References, Target
    from costinsights.storage import Kind

_encode = msgspec.json.Encoder().encode

SECOND = 10**9
_DAY = 24 * 3600 * SECOND
ROTATE_BYTES = 4 * 1024 * 1024
MAX_COUNTERS = MAX_ATTRIBUTIONS = 4096
_FREE = b"\n" * SLOT

TRANSFERS: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "aws.s3": (
        "aws.data_transfer",
        "transferred_bytes",
        "to",
        {"internet": "internet", "region": "other_region", "zone": "other_zone"},
    ),
    # Between regions Google's price depends on both continents, which one word does not say.
    "gcp.storage": ("gcp.storage", "egress_bytes", "to", {"internet": "worldwide"}),
}
"""Where the price of bytes that leave storage stands, by system: system, meter, and the dimension
with its value for each word that a ``[[resource]]`` may have for `transfer`."""
TRANSFER = "transfer"
UNKNOWN = "unknown"
"""How bytes travel cannot be seen from inside of the program."""


class Aggregate(Sums):
    """The sums of calls that are no entry yet."""

    __slots__ = ("amount", "began", "slot")

    def __init__(self, number: int, started_at: int, began: int) -> None:
        super().__init__(number, started_at)
        self.began = began  # by the monotonic clock
        self.amount: int | None = 0  # 10⁻¹⁵ units; None without a price
        self.slot = -1  # its offset in the file; -1 while it is in memory only


class Counter:
    """Adds to the calls of one kind, for one attribution: all that can be known once, ready."""

    __slots__ = (
        "_attribution",
        "_day",
        "_each",
        "_parts",
        "_price",
        "_rate",
        "_reads",
        "_recorder",
        "_tally",
        "_target",
        "_words",
        "aggregate",
        "refers",
    )

    def __init__(
        self, tally: Tally, recorder: Recorder, kind: Kind, target: Target, attribution: Definition
    ) -> None:
        self._tally = tally
        self._recorder = recorder
        self._target = target
        self._attribution = attribution
        self._rate = None if kind.unpriced else _rate(recorder, kind, target)
        # Whether bytes that are received have a price.
        self._reads = self._rate is not None and self._rate.reads
        self._price: Price | None = None
        # The day on which a request costs `_each`, in 10⁻¹⁵, and nothing else does.
        self._day, self._each = -1, 0
        self._words = _words(kind, target)
        # Of the line that stands in its slot.
        self._parts = (recorder.refer(target, attribution).text, *self._words, *tally.mark)
        self.refers: References = recorder.refer(target, attribution)
        """What its entries refer to now."""
        self.aggregate: Aggregate | None = None

    def add(
        self,
        scope: Scope,
        calls: int,
        requests: int,
        sent: int,
        received: int,
        retries: int,
        errors: int,
        started_at: int,
        duration: int,
    ) -> None:
        """Add calls (0 for what comes after one), and tell `scope`; it is on disk afterwards.

        `started_at` is in ns since the epoch, `duration` the time in the client in ns; `sent` and
        `received` are bytes.
        """
        tally = self._tally
        with tally.lock:
            if tally.abandoned:
                return  # a forked child is at work on what its parent has begun
            now = perf_counter_ns()
            one = self.aggregate
            if one is not None and now - one.began >= SECOND:
                tally.write(self)
                one = self.aggregate
            if one is None:
                one = self.aggregate = tally.begin(self, started_at, now)
            before, told = one.amount or 0, 0
            currency = None
            rate, day = self._rate, started_at // _DAY
            kept: int | None = None
            # As nearly always: a request has its price, bytes have none, and a slot is there.
            if (
                day == self._day
                and one.slot >= 0
                and not (self._reads and (received or one.received))
            ):
                tally.turn = turn = tally.turn + 1
                try:
                    kept = one.keep(
                        tally.fd,
                        one.slot + HALF * (turn & 1),
                        HALF,
                        turn,
                        self._parts,
                        self._each,
                        calls,
                        requests,
                        sent,
                        received,
                        retries,
                        errors,
                        started_at,
                        duration,
                    )
                except OSError:  # of which `Tally.keep` will hear as well
                    kept = None
                if kept is None:
                    # It may have come to half a line: the other half of the slot is what is whole.
                    tally.turn = turn - 1
            if kept is not None:
                one.amount = kept
                currency, told = self._target.currency, kept - before
            else:
                one.add(calls, requests, sent, received, retries, errors, started_at, duration)
                priced = None if rate is None else rate(one.requests, one.received, day)
                if rate is None or priced is None:
                    one.amount = None
                else:
                    one.amount, price = priced
                    if price is not self._price:
                        self._at(price)
                    each = rate.each
                    self._day, self._each = (-1, 0) if each is None else (day, each)
                    currency, told = self._target.currency, one.amount - before
                tally.keep(self, one)
        tell((scope, calls, currency, told))
        if len(untold) > MAX_UNTOLD:
            add_up()

    def _at(self, price: Price) -> None:
        """Refer to another price from now on."""
        self._price = price
        self._target = self._recorder.priced(self._target, price)
        self.refers = self._recorder.refer(self._target, self._attribution)
        self._parts = (self.refers.text, *self._words, *self._tally.mark)

    def line(self, one: Aggregate, more: bytes = b"") -> bytes:
        """Return an aggregate's entry; `more` is what stands in a slot only."""
        amount = one.amount
        if amount is not None and amount >= MAX_INTEGER:
            more = b',"m":"%b"%b' % (decimal_text(amount).encode(), more)
            amount = None
        return one.line(self.refers.text, *self._words, amount, more)


def _words(kind: Kind, target: Target) -> tuple[bytes, bytes, bytes]:
    """Return what stands in an entry of such calls around its figures: see `Sums.line`."""
    words = {**dict(kind.words), TRANSFER: target.words.get(TRANSFER, UNKNOWN)}
    if kind.unpriced:
        words["unpriced"] = kind.unpriced
    operation, meter, rest = map(_encode, (kind.operation, kind.meter, words))
    return b',"o":%b,"u":{"calls":' % operation, b",%b:" % meter, b",%b" % rest[1:]


def _rate(recorder: Recorder, kind: Kind, target: Target) -> Adding:
    """Return what prices such calls: their requests, and their bytes where it is known how they go."""
    words = {**target.words, **dict(kind.words)}
    parts = [Priced(kind.system, kind.meter, kind.retrieval, words)]
    system, meter, dimension, ways = TRANSFERS.get(kind.system, ("", "", "", {}))
    way = ways.get(target.words.get(TRANSFER, UNKNOWN))
    if way is not None:
        parts.append(Priced(system, "", meter, {dimension: way}))
    return Adding(recorder.book, tuple(parts), target.resource.region, say)


class Tally:
    """The aggregates of one process, and its file.

    `header` gives the sealed first line of the file, `awake` sees to it that `tick` is called.
    """

    def __init__(
        self, recorder: Recorder, header: Callable[[], bytes], awake: Callable[[], None]
    ) -> None:
        # An RLock, as the writer's: a finaliser may run in the midst of a call of this very thread.
        self.lock = threading.RLock()
        self.abandoned = False
        self._recorder = recorder
        self._writer = recorder.writer
        self._header = header
        self._awake = awake
        self.mark = b',"c":"%b-' % self._writer.process.encode(), b'",%b' % TURN
        """What stands in a slot before and behind the number of the charge."""
        self._counters: dict[tuple[Definition, str, Kind], Counter] = {}
        self._open: dict[Counter, Aggregate] = {}
        self._leaving: list[Aggregate] = []
        """Those whose entries wait in the writer's memory: their slots are kept until these are
        written."""
        self._file = 0
        self.fd = -1
        self._end = 0
        self._seen: set[int] = set()
        self._complete: set[References] = set()
        self._free: list[int] = []
        self.turn = 0
        self._retry_at = 0

    def counter(self, name: str, kind: Kind) -> tuple[Counter, Scope]:
        """Return the counter of such calls for who is at work here and now, and their scope.

        `name` is the instrumentor's.
        """
        recorder = self._recorder
        scope = innermost() or root
        context = None if len(modules) == recorder.without_orchestrator else recorder.orchestrator()
        resolved = scope.resolved
        # By the object first: most instrumentors have one for each kind.
        known = resolved.get(id(kind))
        if (
            known is not None
            and known[0] is kind
            and known[1] is self
            and known[2] is context
            and known[3] is name
        ):
            return known[4], scope
        key = (self, name, kind, context)
        found = resolved.get(key)
        if found is None:
            found = self._counter(scope, context, name, kind)
            if len(resolved) >= MAX_ATTRIBUTIONS:
                resolved.clear()
            resolved[key] = found
            resolved[id(kind)] = kind, self, context, name, found
        return found, scope

    def _counter(self, scope: Scope, context: object, name: str, kind: Kind) -> Counter:
        with self.lock:
            recorder = self._recorder
            resource = Resource(kind.address, kind.port, kind.bucket, None, kind.region)
            target = recorder.place(name, kind.system, resource)
            attribution = recorder.who(scope, context, target, name, kind.operation)
            key = (attribution, name, kind)
            found = self._counters.get(key)
            if found is None:
                if len(self._counters) >= MAX_COUNTERS:
                    self._counters = {
                        known: each
                        for known, each in self._counters.items()
                        if each.aggregate is not None
                    }
                found = Counter(self, recorder, kind, target, attribution)
                self._counters[key] = found
            return found

    # -- one aggregate; the caller holds the lock -------------------------------------------------

    def begin(self, counter: Counter, started_at: int, now: int) -> Aggregate:
        """Return a new aggregate, with the number of its charge."""
        one = Aggregate(next(self._recorder.calls), started_at, now)
        self._open[counter] = one
        return one

    def keep(self, counter: Counter, one: Aggregate) -> None:
        """Have the entry that would be written now stand in the aggregate's slot."""
        self.turn = turn = self.turn + 1
        mark, between = self.mark
        line = counter.line(one, b"%b%d%b%d" % (mark, one.number, between, turn))
        size = len(line)
        if size <= HALF:
            for _ in range(2):
                try:
                    if one.slot < 0 or counter.refers not in self._complete:
                        self._place(counter, one)
                    # What is left behind it of a longer one is no line with a seal.
                    if os.pwrite(self.fd, line, one.slot + HALF * (turn & 1)) == size:
                        return
                    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError as failed:
                    error = failed
                if not self._begins_anew(error):
                    break
        # Without a slot: into the ledger at once, or, while that takes nothing, in memory only.
        self.write(counter)

    def write(self, counter: Counter, *, last: bool = False) -> None:
        """Make an entry of the counter's aggregate; the `last` ones even while the disk refuses."""
        one, writer = counter.aggregate, self._writer
        if one is None or (writer.pending and not last):
            return
        counter.aggregate = None
        del self._open[counter]
        writer.append(counter.line(one), counter.refers, counter.refers.definitions)
        if writer.pending:
            self._leaving.append(one)
        else:
            self._release(one)

    def _release(self, one: Aggregate) -> None:
        """Free the slot of an aggregate that is in the ledger. If that fails, it is there twice."""
        if one.slot < 0:
            return
        with suppress(OSError):
            os.pwrite(self.fd, _FREE, one.slot)
        self._free.append(one.slot)
        one.slot = -1

    # -- the file ---------------------------------------------------------------------------------

    def _place(self, counter: Counter, one: Aggregate) -> None:
        """Give an aggregate a slot, in a file that has what its entry refers to.

        Raises:
            OSError: the disk refuses, or has done so a moment ago.
        """
        if self.fd < 0:
            if monotonic_ns() < self._retry_at:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._file += 1
            directory = self._writer.directory
            self.fd = create(directory, f"{self._writer.process}-{self._file}")
            self._end = 0
            self._append(self._header())
            self._awake()
        if counter.refers not in self._complete:
            for known in counter.refers.definitions:
                if known is not None and known.number not in self._seen:
                    self._append(known.line)
                    self._seen.add(known.number)
            self._complete.add(counter.refers)
        if one.slot < 0:
            one.slot = self._free.pop() if self._free else self._new_slot()

    def _append(self, data: bytes) -> None:
        _put(self.fd, data, self._end)
        self._end += len(data)

    def _new_slot(self) -> int:
        """Return the offset of a new slot. Its halves each lie within one page of memory."""
        self._append(b"\n" * (-self._end % HALF + SLOT))
        return self._end - SLOT

    def _begins_anew(self, error: OSError) -> bool:
        """Give the file up after an error; tell whether it is worth opening another one at once."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            self._retry_at = monotonic_ns() + RETRY_NS
            return False
        closed = error.errno == errno.EBADF  # by the program, as those do that become daemons
        self._forget()
        if not closed:
            self._retry_at = monotonic_ns() + RETRY_NS
            with suppress(OSError):
                os.close(fd)
        return closed

    def _forget(self) -> None:
        self._complete.clear()
        self._seen.clear()
        self._free.clear()
        self._leaving.clear()
        for one in self._open.values():
            one.slot = -1

    def _end_file(self) -> None:
        """Remove the file, if nothing is in it that is not in the ledger."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        if not self._leaving and all(one.slot < 0 for one in self._open.values()):
            remove(self._writer.directory, f"{self._writer.process}-{self._file}")
        self._forget()
        with suppress(OSError):
            os.close(fd)

    # -- from outside -----------------------------------------------------------------------------

    def tick(self) -> None:
        """Make entries of all aggregates: about every second, and before anybody looks."""
        with self.lock:
            if self.abandoned:
                return
            if self._leaving and not self._writer.pending:
                for one in self._leaving:
                    self._release(one)
                self._leaving.clear()
            for counter in list(self._open):
                self.write(counter)
            if self.fd >= 0 and (self._end >= ROTATE_BYTES or self._is_gone()):
                self._end_file()

    def _is_gone(self) -> bool:
        """Tell whether someone has deleted the file."""
        try:
            return not os.fstat(self.fd).st_nlink
        except OSError:
            return True

    def close(self) -> None:
        """Make entries of all; what comes later is kept in a new file."""
        with self.lock:
            if self.abandoned:
                return
            self.tick()
            for counter in list(self._open):
                self.write(counter, last=True)
            self._end_file()

    def abandon(self) -> None:
        """Forget everything in a forked child; the parent goes on."""
        self.abandoned = True
        self.lock = threading.RLock()
        if self.fd >= 0:
            os.close(self.fd)


def _put(fd: int, data: bytes, offset: int) -> None:
    """Write all of it.

    Raises:
        OSError: the disk took a part of it, or nothing.
    """
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
