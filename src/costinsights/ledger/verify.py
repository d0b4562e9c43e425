"""Looks at every line and every file of a ledger, and says what is torn and what is damaged.

A torn line is what a killed process or a full disk leaves: it is counted, copied to ``aside/`` and
no cause for alarm. Damage is what should not be: a file that the manifest names and that is not
there or not what was written, a charge that is counted more than once.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from costinsights.guard import suppressed
from costinsights.ledger.compact import ASIDE, set_aside
from costinsights.ledger.manifest import folder
from costinsights.ledger.store import TOTALS_SUMS, open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.ledger.live import Aside
    from costinsights.ledger.manifest import File
    from costinsights.ledger.store import Store


class Torn(NamedTuple):
    """A line that says nothing, and where its copy is."""

    path: str
    offset: int
    length: int
    reason: str
    copy: str


class Verdict(NamedTuple):
    """What was found. `entries` and `charges` are those that are whole, live and compacted."""

    segments: int
    files: int
    entries: int
    charges: int
    torn: tuple[Torn, ...]
    torn_before: int
    """Torn lines in segments that have been compacted since; their copies are in ``aside/``."""
    lost: dict[str, int]
    damage: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether there is no damage. Torn lines are none."""
        return not self.damage


def verify(directory: str, progress: Callable[[int, int], None] | None = None) -> Verdict:
    """Check the ledger at `directory`, and copy its torn lines to ``aside/``.

    Raises:
        LedgerError: the manifest or a segment cannot be read by this version at all.
        ImportError: DuckDB is not installed.
    """
    torn: dict[tuple[str, int], Torn] = {}

    def keep(line: Aside) -> None:
        copy = set_aside(os.path.join(directory, ASIDE), line)
        torn[line.path, line.offset] = Torn(
            line.path, line.offset, len(line.raw), line.reason, copy
        )

    with open_store(directory, aside=keep, progress=progress) as store, suppressed():
        damage = list(_damage(store))
        entries = charges = 0
        if not damage:
            entries, charges = _counted(store)
            damage += _miscounted(store)
        return Verdict(
            segments=len(store.live.segments) if store.live is not None else 0,
            files=len(store.manifest.files),
            entries=entries,
            charges=charges,
            torn=tuple(sorted(torn.values())),
            torn_before=store.manifest.torn,
            lost=store.lost,
            damage=tuple(damage),
        )


def _damage(store: Store) -> list[str]:
    found: list[str] = []
    for file in store.manifest.files:
        path = os.path.join(folder(store.directory), file.path)
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            found.append(f"{path} is missing: {file.rows} rows of {file.kind} are lost")
            continue
        if size != file.size:
            found.append(f"{path} has {size} bytes instead of {file.size}")
        else:
            found += _unreadable(store, file, path)
    return found


def _unreadable(store: Store, file: File, path: str) -> list[str]:
    import duckdb

    # Every column is read, so that every page's checksum and encoding is looked at.
    every = "count(*), bit_xor(hash(t))"
    try:
        row = store.connection.execute(f"SELECT {every} FROM {store.source([file])} t").fetchone()
    except duckdb.Error as error:
        return [f"{path} cannot be read: {str(error).splitlines()[0]}"]
    if row is not None and row[0] != file.rows:
        return [f"{path} has {row[0]} rows instead of {file.rows}"]
    return []


def _counted(store: Store) -> tuple[int, int]:
    entries = sum(
        file.rows for file in store.manifest.of_kind("charges", "revisions", "superseded")
    )
    charges = 0
    revisions = store.parquet("revisions")
    if revisions is not None:
        entries -= _number(store, f"SELECT count(*) FROM {revisions} WHERE calls < 0")
    for rows in (store.parquet("charges", "revisions"), *_live(store)):
        if rows is not None:
            charges += _number(store, f"SELECT sum(calls) FROM {rows}")
    if store.live is not None:
        entries += _number(store, "SELECT count(*) FROM entries")
    return entries, charges


def _miscounted(store: Store) -> list[str]:
    """Find charges that do not count exactly once, and sums that are not those of their rows."""
    found: list[str] = []
    tables = [*_live(store)]
    compacted = store.parquet("charges", "revisions")
    if compacted is not None:
        tables.append(compacted)
    if tables:
        every = " UNION ALL ".join(f"SELECT charge_id, calls FROM {table}" for table in tables)
        wrong = store.connection.execute(
            f"SELECT charge_id, sum(calls) AS n FROM ({every}) "
            "GROUP BY charge_id HAVING n <> 1 ORDER BY charge_id LIMIT 10"
        ).fetchall()
        found += [f"charge {charge_id} counts {n} times" for charge_id, n in wrong]
    by_path = {file.path: file for file in store.manifest.files}
    sums = ", ".join(f'sum("{name}")' for name in TOTALS_SUMS)
    for file in store.manifest.of_kind("totals"):
        rows = by_path.get(file.of or "")
        if rows is None:
            found.append(f"{file.path} sums a file that is not there")
            continue
        both = [
            store.connection.execute(f"SELECT {sums} FROM {store.source([each])}").fetchone()
            for each in (file, rows)
        ]
        if both[0] != both[1]:
            found.append(f"{file.path} is not the sum of {rows.path}")
    return found


def _live(store: Store) -> tuple[str, ...]:
    return ("live", "reversals") if store.live is not None else ()


def _number(store: Store, query: str) -> int:
    row = store.connection.execute(query).fetchone()
    return int(row[0] or 0) if row is not None else 0
