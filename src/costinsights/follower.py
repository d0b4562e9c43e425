"""One exporter on its way through the ledger: read a batch, hand it on, note how far we are.

Nothing here knows threads or clocks. `Follower.advance` does one step; what it raises says why
there can be no next one yet. Until the exporter has acknowledged a batch the position stays before
it, and the charges stay where they are: on disk.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights import positions
from costinsights.exporter import ExportError, ExporterUnavailable
from costinsights.ledger.reader import SegmentReader, is_live, segments
from costinsights.positions import Lease, Position
from costinsights.records import BASIS_RANK, Charge
from costinsights.surroundings import untraced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from costinsights.exporter import Exporter

BATCH = 512
# How often an error that an exporter does not explain may come back before it is taken for good.
PATIENCE = 5


class Own(NamedTuple):
    """The segments that this process writes: ``<process>-1`` to ``<process>-<last>``."""

    process: str
    last: int


class Rejected(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of ``rejected.jsonl``.

    Either one charge that the destination does not take, or `count` unnamed ones among those with
    the `charge_ids`, which it otherwise took.
    """

    reason: str
    charge: Charge | None = None
    count: int = 1
    charge_ids: tuple[str, ...] = ()


def merge(charges: Iterable[Charge]) -> list[Charge]:
    """Make one of all entries of a charge: the latest figures under the first entry's revision.

    An entry whose basis is worse than that of the one before adds nothing.
    """
    found: dict[str, Charge] = {}
    for charge in charges:
        first = found.get(charge.charge_id)
        if first is None:
            found[charge.charge_id] = charge
        elif BASIS_RANK[charge.basis] >= BASIS_RANK[first.basis]:
            found[charge.charge_id] = msgspec.structs.replace(charge, revision=first.revision)
    return list(found.values())


class Track:
    """One segment, whose lease we have, and the batch of it that is under way."""

    def __init__(self, path: str, position: Position, lease: Lease) -> None:
        self.path = path
        self.segment = positions.segment_name(path)
        self.position = position
        self.lease = lease
        self.parts: list[list[Charge]] = []
        """What of the batch is still to be taken; the last part is next."""
        self.attempts = 0
        """How often the part that is next has failed in a way that nobody explained."""
        self.accepted = self.skipped = self.rejected = self.refused = 0
        """What has become of the parts before."""
        self.aside: list[Rejected] = []
        """What of the batch is to be set aside."""
        self.unsaved = False
        self._merged = 0
        self._reader: SegmentReader | None = None
        self._torn = 0

    def read(self, *, ended: bool) -> bool:
        """Read the next batch; False when there is nothing new.

        Raises:
            FileNotFoundError: the segment has been deleted.
        """
        reader = self._reader
        if reader is None:
            reader = self._resume()
        charges = reader.read(BATCH, ended=ended)
        self._reader = reader
        if reader.header is not None:
            self.position.began = reader.header.started_at
        if not charges:
            return False
        batch = merge(charges)
        self.parts = [batch]
        self._merged = len(charges) - len(batch)
        return True

    def is_at_end(self) -> bool:
        """Tell, without reading, whether a segment that has ended is behind us already."""
        return not self.parts and os.stat(self.path).st_size <= self.position.offset

    def _resume(self) -> SegmentReader:
        reader = SegmentReader(self.path)
        if self.position.offset:
            for _ in reader.lines():  # for the definitions that stand among what is behind us
                if reader.offset >= self.position.offset:
                    break
            self._torn = reader.torn
        return reader

    def passed(self) -> None:
        """Move the position behind the batch, of which nothing is left."""
        reader, position = self._reader, self.position
        if reader is not None:
            position.offset = max(reader.offset, position.offset)
            position.torn += reader.torn - self._torn
            self._torn = reader.torn
        position.exported += self.accepted - self.skipped
        position.merged += self._merged
        position.skipped += self.skipped
        position.rejected += self.rejected
        position.refused += self.refused
        self._merged = self.attempts = 0
        self.accepted = self.skipped = self.rejected = self.refused = 0
        self.unsaved = True

    def move(self, path: str, lease: Lease) -> None:
        """Go on in a copy of the segment."""
        self.lease.release()
        self.path, self.segment, self.lease = path, positions.segment_name(path), lease
        if self._reader is not None:
            self._reader.path = path
        self.unsaved = True


class Follower:
    """Brings all that one exporter has to export to the exporter.

    Args:
        ledger: The ledger's directory.
        name: The exporter's name, unique in this process.
        exporter: Where the charges go.
        service: What dead processes must have been called for us to finish their work; None:
            anything, and whether or not they knew this exporter.
        own: Gives the segments of this process, or None when it writes none.
        say: Gets one message when charges begin to be set aside.
    """

    def __init__(
        self,
        ledger: str,
        name: str,
        exporter: Exporter,
        *,
        service: str | None,
        own: Callable[[], Own | None],
        say: Callable[[str], None],
    ) -> None:
        self.ledger = ledger
        self.name = name
        self.exporter = exporter
        self.exported = 0
        """Charges that the destination has taken since we follow."""
        self.set_aside = 0
        """Charges that it has refused since."""
        self._service = service
        self._alone = getattr(exporter, "follows", "service") == "process"
        self._own = own
        self._say = say
        self._tracks: dict[str, Track] = {}
        self._followed = 0
        self._strangers: set[str] = set()

    # -- which segments -------------------------------------------------------------------------

    def look_for_own(self) -> None:
        """Take up the segments that this process has opened since.

        Raises:
            OSError: the ledger cannot be written.
        """
        own = self._own()
        while own is not None and self._followed < own.last:
            if not self._take_up(f"{own.process}-{self._followed + 1}"):
                return
            self._followed += 1

    def look_for_orphans(self) -> None:
        """Take up what processes have left behind that live no more.

        Raises:
            OSError: the ledger cannot be read or written.
        """
        everything = self._service is None
        for segment in self._candidates(everything=everything):
            if is_live(positions.segment_path(self.ledger, segment)):
                continue
            if everything:
                if not positions.is_done(self.ledger, self.name, segment):
                    self._take_up(segment)
                continue
            position = positions.load(self.ledger, self.name, segment)
            if position is None:
                continue  # somebody else has just finished it
            if self._alone:  # it was for the eyes of a process that is no more
                positions.forget(self.ledger, segment, self.name)
            elif position.service != self._service:
                self._strangers.add(segment)
            else:
                self._take_up(segment)

    def _candidates(self, *, everything: bool) -> Iterator[str]:
        own = self._own()
        if everything:
            names = [positions.segment_name(path) for path in segments(self.ledger)]
        else:
            names = positions.owed(self.ledger, self.name)
        for name in names:
            if (
                name not in self._tracks
                and name not in self._strangers
                and (own is None or name.rpartition("-")[0] != own.process)
            ):
                yield name

    def _take_up(self, segment: str) -> bool:
        """Begin to follow a segment; False while another process does."""
        lease = Lease.take(self.ledger, self.name, segment)
        if lease is None:
            return False
        path = positions.segment_path(self.ledger, segment)
        position = positions.load(self.ledger, self.name, segment)
        if position is None and positions.is_done(self.ledger, self.name, segment):
            lease.release()
            return True
        if position is None:
            position = Position(service=self._service or "")
        original = self._copied(path) if not position.offset else None
        if original is None:
            self._tracks[segment] = Track(path, position, lease)
        else:
            del self._tracks[original.segment]
            positions.forget(self.ledger, original.segment, self.name)
            original.move(path, lease)
            self._tracks[segment] = original
        return True

    def _copied(self, path: str) -> Track | None:
        """Return the track of the segment that the one at `path` is a copy of.

        When someone deletes a segment that is being written, the writer puts its lines into the
        next one: the same header, with the same moment in it, stands in both.
        """
        began = _began(path)
        for track in self._tracks.values():
            if began and track.position.began == began and not os.path.exists(track.path):
                return track
        return None

    # -- one step -------------------------------------------------------------------------------

    def advance(self, *, own: bool = False) -> bool:
        """Hand on one batch of each segment, or of our `own` ones; False when nothing was left.

        Raises:
            ExportError: the destination takes nothing now; its `retry_after` may say for how long.
            OSError: the ledger cannot be read, or the position cannot be written.
        """
        progress = False
        for track in list(self._tracks.values()):
            if not own or self._number(track) is not None:
                progress |= self._advance(track)
        return progress

    def _number(self, track: Track) -> int | None:
        """Return the number of one of our own segments."""
        own = self._own()
        process, _, number = track.segment.rpartition("-")
        return int(number) if own is not None and process == own.process else None

    def _advance(self, track: Track) -> bool:
        if not track.lease.held() and not self._again(track):
            return False
        if track.unsaved:
            self._save(track)
        if not track.parts and not track.aside:
            ended = self._has_ended(track)
            try:
                if (ended and track.is_at_end()) or not track.read(ended=ended):
                    if ended:
                        self._finish(track)
                    return False
            except FileNotFoundError:
                if ended:
                    track.position.gone = True
                    self._finish(track)
                return False
        while track.parts:
            self._hand_on(track)
        if track.aside:
            self._set_aside(track.aside)
            track.aside = []
        hopeless = track.rejected and not track.accepted
        self.exported += track.accepted - track.skipped
        track.passed()
        self._save(track)
        if hopeless:
            # All of it refused looks like a destination that is set up wrongly: no storm of
            # single charges on it.
            raise ExportError("it refuses every charge", retryable=True)
        return True

    def _has_ended(self, track: Track) -> bool:
        """Tell whether nothing more will be written to the segment."""
        number = self._number(track)
        return not is_live(track.path) if number is None else number < self._followed

    def _save(self, track: Track) -> None:
        positions.store(self.ledger, self.name, track.segment, track.position)
        track.unsaved = False

    def _finish(self, track: Track) -> None:
        track.passed()
        self._save(track)
        positions.finish(self.ledger, self.name, track.segment)
        track.lease.release()
        del self._tracks[track.segment]

    def _again(self, track: Track) -> bool:
        """Someone deleted the file of our lease: get it back, or leave the segment to them."""
        lease = Lease.take(self.ledger, self.name, track.segment)
        track.lease.release()
        if lease is None:
            del self._tracks[track.segment]
            return False
        track.lease = lease
        return True

    # -- one batch ------------------------------------------------------------------------------

    def _hand_on(self, track: Track) -> None:
        part = track.parts[-1]
        skipped = _skipped(self.exporter)
        try:
            self._export(track, part)
        except ExportError as error:
            if error.retryable:
                raise
            if not error.refused and len(part) > 1:
                middle = len(part) // 2
                track.parts[-1:] = [part[middle:], part[:middle]]
                return
            self._refuse(track, part, error)
        else:
            track.accepted += len(part)
        track.parts.pop()
        track.skipped += _skipped(self.exporter) - skipped

    def _export(self, track: Track, part: Sequence[Charge]) -> None:
        try:
            with untraced():
                self.exporter.export(part)
        except (ExportError, ExporterUnavailable):
            raise
        except OSError as error:
            raise ExportError(error.strerror or type(error).__name__, retryable=True) from error
        except BaseException as error:
            track.attempts += 1
            message = f"it fails with {type(error).__name__}"
            raise ExportError(message, retryable=track.attempts < PATIENCE) from error

    def _refuse(self, track: Track, part: Sequence[Charge], error: ExportError) -> None:
        if error.refused:
            count = min(error.refused, len(part))
            ids = tuple(charge.charge_id for charge in part)
            track.aside.append(Rejected(str(error), count=count, charge_ids=ids))
            track.refused += count
            track.accepted += len(part) - count
        else:
            track.aside.append(Rejected(str(error), part[0]))
            track.rejected += 1

    def _set_aside(self, lines: list[Rejected]) -> None:
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        positions.set_aside(self.ledger, self.name, data)
        if not self.set_aside:
            place = os.path.join(positions.folder(self.ledger, self.name), positions.REJECTED)
            self._say(
                f"costinsights: the exporter {self.name} is refused charges "
                f"({lines[0].reason}); they are set aside in {place}"
            )
        self.set_aside += sum(line.count for line in lines)

    # -- the end --------------------------------------------------------------------------------

    def release(self) -> None:
        """Let others have our segments."""
        for track in self._tracks.values():
            track.lease.release()
        self._tracks.clear()


def _skipped(exporter: Exporter) -> int:
    count = getattr(exporter, "skipped", 0)
    return count if isinstance(count, int) else 0


class _Header(msgspec.Struct):
    started_at: int = 0


def _began(path: str) -> int:
    """Return the moment in a segment's header, or 0."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.readline(), type=_Header).started_at
    except (OSError, msgspec.MsgspecError):
        return 0
