"""Turns ended segments into Parquet, partitioned by day, and lets old days go.

A segment is consumed when its process no longer writes it and no exporter needs it any more. Its
entries go into new Parquet files; then the manifest that names the files and the segments is
published; then the segments are deleted. Each step is on the disk before the next begins, so that
a crash anywhere leaves every charge readable, once. What a crashed compaction left lying is no part
of the ledger and is removed by the next.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from datetime import datetime, timedelta, timezone
from tempfile import TemporaryDirectory
from time import time
from typing import TYPE_CHECKING, NamedTuple

from costinsights import positions
from costinsights.guard import suppressed
from costinsights.ledger import manifest as manifests
from costinsights.ledger import tallies
from costinsights.ledger.columns import LATER, listed, quoted
from costinsights.ledger.live import Aside, Segment, literal
from costinsights.ledger.manifest import File, Manifest, sync_folder
from costinsights.ledger.once import choose
from costinsights.ledger.reader import segments
from costinsights.ledger.store import (
    TOTALS_KEYS,
    TOTALS_SUMS,
    connect,
    read_segments,
    source,
    unglobbed,
)
from costinsights.ledger.writer import SEGMENTS, LedgerError, make_folder, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from duckdb import DuckDBPyConnection

ASIDE = "aside"
LOCK = ".lock"

# What is consumed before each publication: it bounds memory, and what a crash has to do again.
BATCH_BYTES = 512 * 1024 * 1024
BATCH_SEGMENTS = 256
# A segment younger than this may belong to a process that has not put its lock on it yet.
MIN_AGE_SECONDS = 2.0
# Sums of a day are kept when they are so many times fewer than the charges.
WORTH_SUMMING = 4


class Kept(NamedTuple):
    """Segments that were not consumed, and why."""

    live: int = 0
    """Their process still writes them."""
    owed: int = 0
    """An exporter has not finished them."""


class Compacted(NamedTuple):
    """What a compaction did. `entries` are lines, of which `charges` is what counts."""

    segments: int = 0
    entries: int = 0
    charges: int = 0
    torn: int = 0
    kept: Kept = Kept()
    expired_days: int = 0
    expired_charges: int = 0


class Busy(LedgerError):
    """Another compaction of this ledger is at work."""


def compact(
    directory: str,
    *,
    retention_days: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Compacted:
    """Consume every segment that can be, then delete the days that are older than wanted.

    Args:
        directory: The ledger.
        retention_days: Delete compacted days of which every moment is longer ago than this; None
            keeps everything.
        progress: Gets the bytes read and those to read.

    Raises:
        Busy: another compaction is at work.
        LedgerError: the ledger is damaged, of a newer version, or holds an amount with more
            digits than Parquet's decimals: nothing is rounded, the segments stay as they are.
        OSError: the disk refuses.
    """
    if not os.path.isdir(os.path.join(directory, SEGMENTS)) and not os.path.isdir(
        manifests.folder(directory)
    ):
        return Compacted()
    prepare(directory)
    folder = manifests.folder(directory)
    make_folder(folder)
    with _alone(folder), suppressed():
        manifest = manifests.load(directory)
        _clear_away(directory, manifest)
        tallies.settle(directory)  # these segments are young: the next compaction consumes them
        done = Compacted()
        with ExitStack() as locks:
            ready, kept = _ready(directory, manifest, locks)
            total = sum(segment.size for segment in ready)
            read = 0

            def advanced(count: int, _: int) -> None:
                if progress is not None:
                    progress(read + count, total)

            for batch in _batches(ready):
                try:
                    part = _consume(directory, manifest, batch, advanced)
                except BaseException:
                    _clear_away(directory, manifests.load(directory))
                    raise
                read += sum(segment.size for segment in batch)
                done = done._replace(
                    segments=done.segments + part.segments,
                    entries=done.entries + part.entries,
                    charges=done.charges + part.charges,
                    torn=done.torn + part.torn,
                )
        done = done._replace(kept=kept)
        if retention_days is not None:
            days, charges = _expire(directory, manifest, retention_days)
            done = done._replace(expired_days=days, expired_charges=charges)
        return done


# -- which segments -------------------------------------------------------------------------------


def _alone(folder: str) -> ExitStack:
    fd = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    stack = ExitStack()
    stack.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stack.close()
        raise Busy(f"another compaction of {os.path.dirname(folder)} is at work") from error
    except OSError:
        pass  # a file system without locks: there is no better than to believe we are alone
    return stack


def _ready(directory: str, manifest: Manifest, locks: ExitStack) -> tuple[list[Segment], Kept]:
    """Return the segments to consume, each locked against a writer that would begin late."""
    ready: list[Segment] = []
    live = owed = 0
    consumed = set(manifest.consumed)
    newest = time() - MIN_AGE_SECONDS
    for path in segments(directory):
        if os.path.basename(path) in consumed:
            continue
        if positions.is_owed(directory, positions.segment_name(path)):
            owed += 1
            continue
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        found = os.fstat(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            live += 1
            continue
        if found.st_mtime > newest:
            os.close(fd)
            live += 1
            continue
        if len(ready) < BATCH_SEGMENTS:
            locks.callback(os.close, fd)
        else:
            os.close(fd)
        ready.append(Segment(path, found.st_size, live=False))
    return ready, Kept(live, owed)


def _batches(ready: Sequence[Segment]) -> Iterator[list[Segment]]:
    batch: list[Segment] = []
    size = 0
    for segment in ready:
        if batch and (size + segment.size > BATCH_BYTES or len(batch) >= BATCH_SEGMENTS):
            yield batch
            batch, size = [], 0
        batch.append(segment)
        size += segment.size
    if batch:
        yield batch


# -- one batch ------------------------------------------------------------------------------------


def _consume(
    directory: str,
    manifest: Manifest,
    batch: Sequence[Segment],
    progress: Callable[[int, int], None],
) -> Compacted:
    import duckdb

    asides = _Asides(directory)
    with TemporaryDirectory(prefix="costinsights-", ignore_cleanup_errors=True) as scratch:
        connection = connect(scratch)
        try:
            live = read_segments(connection, scratch, batch, asides.keep, progress)
            compacted = {
                kind: source(directory, manifest.of_kind(kind)) for kind in ("charges", "revisions")
            }
            choose(connection, compacted["charges"], compacted["revisions"])
            files, counts, newest = _write(directory, connection, manifest.generation + 1)
        except duckdb.Error as error:
            raise LedgerError(f"nothing was compacted: {_said(error)}") from error
        finally:
            connection.close()
    asides.close()
    manifest.files = [*manifest.files, *files]
    manifest.consumed = [*manifest.consumed, *(segment.name for segment in batch)]
    manifest.newest = max(manifest.newest or "", newest or "") or None
    manifest.torn += live.torn
    for reason, count in live.lost.items():
        manifest.lost[reason] = manifest.lost.get(reason, 0) + count
    manifests.publish(directory, manifest)
    _delete(directory, manifest, [segment.path for segment in batch])
    return Compacted(len(batch), counts.entries, counts.charges, live.torn)


class _Counts(NamedTuple):
    entries: int
    charges: int


_OUTCOME = """
CREATE TABLE outcome AS
SELECT e.place, CAST(e.ended_at AS DATE) AS day,
    CASE WHEN l.place IS NOT NULL THEN 'superseded'
         WHEN a.charge_id IS NOT NULL THEN 'revisions'
         ELSE 'charges' END AS kind
FROM entries e
LEFT JOIN losers l ON l.place = e.place
LEFT JOIN apart a ON a.charge_id = e.charge_id
"""


def _write(
    directory: str, connection: DuckDBPyConnection, generation: int
) -> tuple[list[File], _Counts, str | None]:
    """Write the files of a batch, and hold their rows against the entries that went in.

    Raises:
        LedgerError: they do not agree.
    """
    connection.execute(_OUTCOME)
    entries = _number(connection, "SELECT count(*) FROM lines")
    charges = _number(connection, "SELECT count(*) FROM outcome WHERE kind <> 'superseded'")
    reversals = _number(connection, "SELECT count(*) FROM reversals")
    files: list[File] = []
    for kind in ("charges", "revisions", "superseded"):
        rows = (
            f"SELECT {listed(alias='e.')}, o.day FROM entries e "
            f"JOIN outcome o ON o.place = e.place WHERE o.kind = '{kind}'"
        )
        if kind == "revisions":
            rows += f" UNION ALL SELECT {listed()}, CAST(ended_at AS DATE) AS day FROM reversals"
        for (day,) in connection.execute(
            f"SELECT DISTINCT CAST(day AS VARCHAR) FROM ({rows}) ORDER BY 1"
        ).fetchall():
            query = f"SELECT {listed()} FROM ({rows}) WHERE day = DATE '{day}'"
            files.append(_file(directory, connection, kind, day, generation, query))
    written = sum(file.rows for file in files)
    if written != entries + reversals:
        raise LedgerError(
            f"nothing was compacted: {entries} entries and {reversals} reversals became "
            f"{written} rows"
        )
    files += _totals(directory, connection, generation, files)
    newest = connection.execute(
        "SELECT strftime(max(ended_at), '%Y-%m-%dT%H:%M:%S.%fZ') FROM entries"
    ).fetchone()
    return files, _Counts(entries, charges), newest[0] if newest else None


def _totals(
    directory: str, connection: DuckDBPyConnection, generation: int, files: Sequence[File]
) -> Iterator[File]:
    """Write the sums of each file of charges, where that makes a report much faster."""
    keys = ", ".join(quoted(name) for name in TOTALS_KEYS)
    sums = ", ".join(
        f"CAST(sum({quoted(name)}) AS {'DECIMAL(38,15)' if name == 'amount' else 'BIGINT'}) "
        f"AS {quoted(name)}"
        for name in TOTALS_SUMS
    )
    for file in files:
        if file.kind != "charges":
            continue
        rows = source(directory, [file])
        # Whether there is an amount is a key as well: an unknown price must not vanish in a sum.
        query = (
            f"SELECT {keys}, {sums}, max(ended_at) AS ended_at FROM {rows} "
            f"GROUP BY {keys}, amount IS NULL"
        )
        groups = _number(connection, f"SELECT count(*) FROM ({query})")
        if groups * WORTH_SUMMING <= file.rows:
            summed = _file(directory, connection, "totals", file.day, generation, query)
            yield File(
                path=summed.path,
                kind="totals",
                day=summed.day,
                rows=summed.rows,
                size=summed.size,
                of=file.path,
            )


def _file(
    directory: str,
    connection: DuckDBPyConnection,
    kind: manifests.Kind,
    day: str,
    generation: int,
    query: str,
) -> File:
    """Write one Parquet file, for this user only, and bring it to the disk."""
    folder = manifests.folder(directory)
    place = os.path.join(kind, f"date={day}")
    make_folder(os.path.join(folder, place))
    name = os.path.join(place, f"{generation:06d}-{os.urandom(4).hex()}.parquet")
    path = os.path.join(folder, name)
    connection.execute(f"COPY ({query}) TO {literal(path)} (FORMAT parquet, COMPRESSION zstd)")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        os.fsync(fd)
        size = os.fstat(fd).st_size
    finally:
        os.close(fd)
    for parent in (os.path.join(folder, place), os.path.join(folder, kind), folder):
        sync_folder(parent)
    rows = _number(connection, f"SELECT count(*) FROM read_parquet({literal(unglobbed(path))})")
    return File(path=name, kind=kind, day=day, rows=rows, size=size, later=len(LATER))


def _delete(directory: str, manifest: Manifest, paths: Sequence[str]) -> None:
    """Delete consumed segments, and what exporters noted about them."""
    for path in paths:
        with suppress(FileNotFoundError):
            os.unlink(path)
        positions.forget(directory, positions.segment_name(path))
    sync_folder(os.path.join(directory, SEGMENTS))
    left = {os.path.basename(path) for path in segments(directory)}
    # Gone for good, so that the manifest need not remember; the next publication says so.
    manifest.consumed = [name for name in manifest.consumed if name in left]


class _Asides:
    """Copies of the lines that were set aside, one file each, on the disk when closed."""

    def __init__(self, directory: str) -> None:
        self._folder = os.path.join(directory, ASIDE)
        self._used = False

    def keep(self, line: Aside) -> None:
        """Copy one line; doing so again changes nothing."""
        set_aside(self._folder, line)
        self._used = True

    def close(self) -> None:
        """Bring the names to the disk."""
        if self._used:
            sync_folder(self._folder)
            sync_folder(os.path.dirname(self._folder))


def set_aside(folder: str, line: Aside) -> str:
    """Copy a line that says nothing to `folder`, and return where it is now."""
    make_folder(folder)
    name = f"{positions.segment_name(line.path)}-{line.offset}.torn"
    path = os.path.join(folder, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(line.raw)
        file.flush()
        os.fsync(file.fileno())
    return path


# -- letting go -----------------------------------------------------------------------------------


def _expire(directory: str, manifest: Manifest, days: int) -> tuple[int, int]:
    """Delete the days before the last `days`; a day goes with its revisions and its history."""
    first = (datetime.now(timezone.utc) - timedelta(days=days)).date().isoformat()
    old = [file for file in manifest.files if file.day < first]
    if not old:
        return 0, 0
    connection = connect(manifests.folder(directory))
    try:
        rows = source(directory, [file for file in old if file.kind in ("charges", "revisions")])
        charges = _number(connection, f"SELECT sum(calls) FROM {rows}") if rows else 0
    finally:
        connection.close()
    gone = {file.path for file in old}
    manifest.files = [file for file in manifest.files if file.path not in gone]
    manifest.expired_charges += charges
    manifest.expired_until = max(manifest.expired_until or "", *(file.day for file in old))
    manifests.publish(directory, manifest)
    _clear_away(directory, manifest)
    return len({file.day for file in old}), charges


def _clear_away(directory: str, manifest: Manifest) -> None:
    """Delete what a compaction that died has left: Parquet of no manifest, consumed segments."""
    folder = manifests.folder(directory)
    named = {os.path.join(folder, file.path) for file in manifest.files}
    for kind in manifests.KINDS:
        for place, folders, files in os.walk(os.path.join(folder, kind), topdown=False):
            for name in files:
                path = os.path.join(place, name)
                if path not in named and name.endswith(".parquet"):
                    os.unlink(path)
            for name in folders:
                with suppress(OSError):  # it is not empty
                    os.rmdir(os.path.join(place, name))
    if manifest.consumed:
        consumed = set(manifest.consumed)
        _delete(
            directory,
            manifest,
            [path for path in segments(directory) if os.path.basename(path) in consumed],
        )


def _number(connection: DuckDBPyConnection, query: str) -> int:
    found = connection.execute(query).fetchone()
    return int(found[0] or 0) if found else 0


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
