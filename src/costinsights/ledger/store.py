"""A ledger as tables of DuckDB: what is live and what is compacted, each charge once.

`open_store` gives the state of one moment, also while programs write and a compaction works.
docs/ledger.md shows how to query it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from costinsights.guard import suppressed
from costinsights.ledger import manifest as manifests
from costinsights.ledger.columns import LABELS, LATER, NAMES, charge_of, quoted, selection
from costinsights.ledger.live import Aside, Live, Segment, literal, look_at
from costinsights.ledger.once import choose
from costinsights.ledger.reader import segments
from costinsights.ledger.tallies import copied
from costinsights.ledger.writer import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from datetime import datetime

    from duckdb import DuckDBPyConnection

    from costinsights.ledger.manifest import File, Manifest
    from costinsights.records import Charge

ATTEMPTS = 5
ROWS_AT_ONCE = 10_000

# What the sums of a day's charges keep apart, and what they add up.
TOTALS_KEYS = ("system", "asset", "job", "team", "fingerprint", "summary", "currency", "basis")
TOTALS_SUMS = ("calls", "errors", "amount", "duration_ns", "rows")

# The columns of ``postings``. A row of totals stands for many charges and lacks what is theirs.
_ONE_CHARGE = ("charge_id", "revision", *(n for n in LABELS if n not in TOTALS_KEYS), "labels")
_POSTED = (*TOTALS_KEYS, *TOTALS_SUMS, "ended_at", *_ONE_CHARGE)


class Period(NamedTuple):
    """From `since` (included) to `until` (not included), naive UTC; None is without end."""

    since: datetime | None = None
    until: datetime | None = None

    @property
    def condition(self) -> str:
        """The SQL condition on ``ended_at``."""
        parts: list[str] = []
        if self.since is not None:
            parts.append(f"ended_at >= TIMESTAMP '{self.since.isoformat(' ')}'")
        if self.until is not None:
            parts.append(f"ended_at < TIMESTAMP '{self.until.isoformat(' ')}'")
        return " AND ".join(parts) or "true"

    def touches(self, day: str) -> bool:
        """Tell whether some moment of the UTC `day` is in the period."""
        return (self.since is None or f"{day}T99" > self.since.isoformat()) and (
            self.until is None or f"{day}T00:00:00" < self.until.isoformat()
        )

    def covers(self, day: str) -> bool:
        """Tell whether every moment of the UTC `day` is in the period."""
        return (self.since is None or f"{day}T00:00:00" >= self.since.isoformat()) and (
            self.until is None or f"{day}T99" < self.until.isoformat()
        )


class Store:
    """See `open_store`. `live` is None when nothing but Parquet was there to read."""

    def __init__(
        self, directory: str, connection: DuckDBPyConnection, manifest: Manifest, live: Live | None
    ) -> None:
        self.directory = directory
        self.connection = connection
        self.manifest = manifest
        self.live = live
        self.torn = manifest.torn + (live.torn if live else 0)
        self.lost = dict(manifest.lost)
        for reason, count in (live.lost if live else {}).items():
            self.lost[reason] = self.lost.get(reason, 0) + count

    def parquet(self, *kinds: manifests.Kind) -> str | None:
        """Return the SQL source of all compacted rows of these kinds; None when there are none."""
        return self.source(self.manifest.of_kind(*kinds))

    def source(self, files: Sequence[File]) -> str | None:
        """Return the SQL source of these files."""
        return source(self.directory, files)

    def newest(self) -> str | None:
        """Return when the last call in the ledger ended, RFC 3339 in UTC; None when it is empty."""
        newest = self.manifest.newest
        if self.live is not None:
            found = self.connection.execute(
                "SELECT strftime(max(ended_at), '%Y-%m-%dT%H:%M:%S.%fZ') FROM entries"
            ).fetchone()
            if found is not None and found[0] is not None:
                newest = max(newest or "", str(found[0]))
        return newest

    def post(self, period: Period, previous: Period | None = None, *, totals: bool = True) -> None:
        """Create the view ``postings``: what counts in `period`, and in `previous` apart from it.

        Its column ``period`` is 0 for `period` and 1 for `previous`. With `totals` a row may
        stand for all alike charges of a day; without, every row is of one charge.
        """
        parts: list[str] = []
        for number, wanted in enumerate((period, previous)):
            if wanted is not None:
                parts += self._posted(number, wanted, totals=totals)
        if not parts:
            parts.append(self._nothing())
        self.connection.execute(f"CREATE OR REPLACE VIEW postings AS {' UNION ALL '.join(parts)}")

    def _posted(self, number: int, period: Period, *, totals: bool) -> Iterator[str]:
        def of(source: str | None, columns: str = _columns(_POSTED), where: str = "true") -> None:
            if source is not None:
                found.append(f"SELECT {number} AS period, {columns} FROM {source} WHERE {where}")

        found: list[str] = []
        sums = {file.of: file for file in self.manifest.of_kind("totals")}
        summed: list[File] = []
        whole: list[File] = []
        edges: list[File] = []
        for file in self.manifest.of_kind("charges", "revisions"):
            if not period.touches(file.day):
                continue
            if not period.covers(file.day):
                edges.append(file)
            elif totals and file.path in sums:
                summed.append(sums[file.path])
            else:
                whole.append(file)
        absent = ", ".join(f"NULL AS {quoted(name)}" for name in _ONE_CHARGE)
        kept = (*TOTALS_KEYS, *TOTALS_SUMS, "ended_at")
        of(self.source(summed), f"{_columns(kept)}, {absent}")
        of(self.source(whole))
        of(self.source(edges), where=period.condition)
        if self.live is not None:
            of("live", where=period.condition)
            of("reversals", where=period.condition)
        yield from found

    def _nothing(self) -> str:
        from costinsights.ledger.columns import COLUMNS

        types = {column.name: column.type for column in COLUMNS}
        columns = ", ".join(f"CAST(NULL AS {types[name]}) AS {quoted(name)}" for name in _POSTED)
        return f"SELECT 0 AS period, {columns} WHERE false"

    # -- whole charges --------------------------------------------------------------------------

    def charges(self, where: str = "true", *, history: bool = False) -> Iterator[Charge]:
        """Yield each charge once, as it counts; with `history` all its entries, oldest first.

        `where` is an SQL condition on the columns of a charge. The order is that of the ledger:
        what is compacted first.
        """
        relation = self.relation(where, history=history)
        if relation is None:
            return
        query = f"SELECT {selection()} FROM {relation}"
        if history:
            query += " ORDER BY charge_id, revision"
        cursor = self.connection.cursor()
        with suppressed():
            cursor.execute(query)
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            for row in rows:
                yield charge_of(row)

    def relation(self, where: str = "true", *, history: bool = False) -> str | None:
        """Return the SQL source of the same charges, with the columns `NAMES`; None for an empty one."""
        kinds: tuple[manifests.Kind, ...] = ("charges", "revisions")
        if history:
            kinds = ("superseded", *kinds)
        compacted = self.parquet(*kinds)
        parts: list[str] = []
        if compacted is not None:
            condition = f"({where}) AND calls > 0"
            if not history:
                condition += self._not_taken_back()
            parts.append(f"SELECT {_columns(NAMES)} FROM {compacted} c WHERE {condition}")
        if self.live is not None:
            table = "entries" if history else "live"
            parts.append(f"SELECT {_columns(NAMES)} FROM {table} WHERE ({where})")
        return f"({' UNION ALL '.join(parts)})" if parts else None

    def _not_taken_back(self) -> str:
        sources: list[str] = []
        revisions = self.parquet("revisions")
        if revisions is not None:
            sources.append(f"SELECT {_TAKEN_BACK} FROM {revisions} WHERE calls < 0")
        if self.live is not None:
            sources.append(f"SELECT {_TAKEN_BACK} FROM reversals")
        if not sources:
            return ""
        return (
            f" AND NOT EXISTS (SELECT 1 FROM ({' UNION ALL '.join(sources)}) r "
            "WHERE r.charge_id = c.charge_id AND r.revision = c.revision AND r.basis = c.basis "
            "AND r.ended_at = c.ended_at)"
        )


_TAKEN_BACK = "charge_id, revision, basis, ended_at"


def _columns(names: Sequence[str]) -> str:
    return ", ".join(quoted(name) for name in names)


@contextmanager
def open_store(
    directory: str,
    *,
    aside: Callable[[Aside], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Generator[Store]:
    """Open the ledger at `directory` for queries, as it is now.

    `aside` gets each line that had to be set aside, `progress` the bytes read and those to read.

    Raises:
        LedgerError: the ledger is damaged, or of a newer version.
        ImportError: DuckDB is not installed.
    """
    with TemporaryDirectory(prefix="costinsights-", ignore_cleanup_errors=True) as scratch:
        for attempt in range(ATTEMPTS):
            connection = connect(scratch)
            try:
                with suppressed():
                    store = _read(directory, connection, scratch, aside, progress)
            except FileNotFoundError:
                store = None
            except BaseException:
                connection.close()
                raise
            if store is None or manifests.load(directory).generation != store.manifest.generation:
                connection.close()  # compacted while we looked: look again
                if attempt + 1 < ATTEMPTS:
                    continue
                raise LedgerError(f"{directory} kept changing while it was read: try again")
            try:
                yield store
            finally:
                connection.close()
            return


def _read(
    directory: str,
    connection: DuckDBPyConnection,
    scratch: str,
    aside: Callable[[Aside], None] | None,
    progress: Callable[[int, int], None] | None,
) -> Store:
    manifest = manifests.load(directory)
    consumed = set(manifest.consumed)
    tallied = copied(directory, scratch)
    written = (path for path in segments(directory) if os.path.basename(path) not in consumed)
    found = look_at((*tallied, *written))
    live = read_segments(connection, scratch, found, aside, progress) if found else None
    store = Store(directory, connection, manifest, live)
    if live is not None:
        choose(connection, store.parquet("charges"), store.parquet("revisions"))
    return store


def read_segments(
    connection: DuckDBPyConnection,
    scratch: str,
    found: Sequence[Segment],
    aside: Callable[[Aside], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Live:
    """Load segments into `connection`; see `Live`."""
    total = sum(segment.size for segment in found)
    done = 0

    def advanced(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    live = Live(connection, scratch, aside, advanced)
    live.load(found)
    return live


def connect(scratch: str) -> DuckDBPyConnection:
    """Open a DuckDB that keeps to itself: it loads nothing from anywhere.

    Raises:
        ImportError: DuckDB is not installed; the text names the pip command.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ImportError(
            "reading a ledger with SQL needs DuckDB: run  pip install 'costinsights[cli]'"
        ) from error
    with suppressed():
        return duckdb.connect(
            ":memory:",
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "temp_directory": scratch,
            },
        )


def source(directory: str, files: Sequence[File]) -> str | None:
    """Return the SQL source of Parquet files of the ledger at `directory`; None for no files."""
    kinds: dict[int, list[File]] = {}
    for file in files:
        kinds.setdefault(0 if file.kind == "totals" else len(LATER) - file.later, []).append(file)
    parts: list[str] = []
    for lacking, same in sorted(kinds.items()):
        paths = ", ".join(
            literal(unglobbed(os.path.join(manifests.folder(directory), file.path)))
            for file in same
        )
        part = f"read_parquet([{paths}], hive_partitioning = false)"
        if lacking:
            absent = ", ".join(f"CAST(NULL AS VARCHAR) AS {name}" for name in LATER[-lacking:])
            part = f"(SELECT *, {absent} FROM {part})"
        parts.append(part)
    if len(parts) < 2:
        return parts[0] if parts else None
    return f"({' UNION ALL BY NAME '.join(f'SELECT * FROM {part}' for part in parts)})"


def unglobbed(path: str) -> str:
    """Return a path that DuckDB takes as it stands: its wildcards match themselves."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in path)
