"""Reads segments into DuckDB: every line's seal is looked at, what is whole is read in bulk.

Python checks the seals, which only it can, and hands the entries on as text; DuckDB's reader takes
them apart. What entries refer to is little and is decoded here. A segment in which the two do not
agree (an entry whose definition was torn, a sealed line that is no entry) is read again line by
line, and the lines at fault are set aside.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import msgspec

from costinsights.ledger.columns import COLUMNS, LABELS, MACROS, quoted
from costinsights.ledger.reader import CHUNK, is_live
from costinsights.ledger.seal import MAX_LINE, SEAL_LENGTH
from costinsights.ledger.writer import LedgerError
from costinsights.records import (
    AttributionLine,
    EntryLine,
    HeaderLine,
    Line,
    LossLine,
    PriceLineRef,
    ResourceLine,
    StatementLine,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from duckdb import DuckDBPyConnection

FORMAT = 1
"""The format of segments that this version reads (`HeaderLine.format`)."""

# So much text is handed to DuckDB at once; its reader keeps several times that in memory.
BATCH_BYTES = 256 * 1024 * 1024

_ENTRY = b'{"k":"e",'
_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode

_ENTRY_COLUMNS = {
    "q": "INTEGER",
    "n": "BIGINT",
    "t": "BIGINT",
    "d": "BIGINT",
    "r": "BIGINT",
    "a": "BIGINT",
    "s": "BIGINT",
    "p": "BIGINT",
    "w": "BIGINT",
    "f": "HUGEINT",
    "m": "JSON",
    "b": "VARCHAR",
    "u": "JSON",
    "o": "VARCHAR",
    "x": "VARCHAR",
    "e": "VARCHAR[]",
    "v": "INTEGER",
    "l": "BOOLEAN",
    "y": "BIGINT",
    "c": "VARCHAR",
    "g": "VARCHAR",
    "i": "VARCHAR",
}

# What entries refer to: a table a kind, with the columns that stand for one.
_DEFINED: dict[str, dict[str, str]] = {
    "segments": {"process": "VARCHAR", "service": "VARCHAR", "host": "VARCHAR", "pid": "BIGINT"},
    "statements": dict.fromkeys(("fingerprint", "operation", "summary", "text"), "VARCHAR"),
    "resources": {
        **dict.fromkeys(("system", "instrumentor", "address", "namespace", "service"), "VARCHAR"),
        "region": "VARCHAR",
        "port": "INTEGER",
    },
    "attributions": dict.fromkeys((*LABELS, "labels"), "VARCHAR"),
    "prices": dict.fromkeys(
        ("key", "unit_price", "unit", "currency", "source", "as_of", "book"), "VARCHAR"
    ),
}

_ENTRIES = f"""
CREATE VIEW entries AS SELECT l.rowid AS place, l.first AS first, l.t AS t,
    {", ".join(f"CAST({column.live} AS {column.type}) AS {quoted(column.name)}" for column in COLUMNS)}
FROM lines l
JOIN segments g ON g.q = l.q
JOIN resources r ON r.q = l.q AND r.i = l.r
JOIN attributions a ON a.q = l.q AND a.i = l.a
LEFT JOIN statements s ON s.q = l.q AND s.i = l.s
LEFT JOIN prices p ON p.q = l.q AND p.i = l.p
"""


class Aside(NamedTuple):
    """A line that says nothing: where it stands, what it is, and why it was set aside."""

    path: str
    offset: int
    raw: bytes
    reason: str


class Segment(NamedTuple):
    """A segment as it was met: its length then, and whether its process still writes it."""

    path: str
    size: int
    live: bool

    @property
    def name(self) -> str:
        """Its file name, by which the manifest and exporters' positions know it."""
        return os.path.basename(self.path)


def look_at(paths: Iterable[str]) -> list[Segment]:
    """Return the segments that are still there."""
    found: list[Segment] = []
    for path in paths:
        live = is_live(path)
        try:
            found.append(Segment(path, os.stat(path).st_size, live))
        except FileNotFoundError:
            continue
    return found


class Live:
    """The entries of segments as DuckDB tables: `entries` has the columns of a compacted charge.

    `torn` counts lines set aside, `lost` what writers said they lost. `first` in `entries` tells
    that an entry is the first one of its charge, `place` orders entries as they were met.
    """

    def __init__(
        self,
        connection: DuckDBPyConnection,
        scratch: str,
        aside: Callable[[Aside], None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.torn = 0
        self.lost: dict[str, int] = {}
        self.segments: list[Segment] = []
        self._connection = connection
        self._aside = aside
        self._progress = progress
        self._scratch = scratch
        self._defined: dict[str, dict[tuple[int, int], dict[str, object]]] = {
            name: {} for name in _DEFINED
        }
        columns = ", ".join(f"{name} {kind}" for name, kind in _ENTRY_COLUMNS.items())
        connection.execute(
            f"CREATE TABLE lines (charge_id VARCHAR, first BOOLEAN, {columns}); {MACROS}"
        )

    def load(self, segments: Iterable[Segment]) -> None:
        """Read these segments; `entries` is there afterwards.

        Raises:
            LedgerError: a segment was written in a format that this version does not know.
            FileNotFoundError: a segment has gone since it was looked at.
        """
        self.segments = list(segments)
        batch: list[int] = []
        size = 0
        for number, segment in enumerate(self.segments):
            batch.append(number)
            size += segment.size
            if size >= BATCH_BYTES:
                self._load(batch)
                batch, size = [], 0
        self._load(batch)
        for table in _DEFINED:
            self._table(table)
        again = self._disagreeing()
        if again:
            self._slowly(again)
        self._connection.execute(_ENTRIES)

    # -- the usual way --------------------------------------------------------------------------

    def _load(self, batch: list[int]) -> None:
        import duckdb

        path = os.path.join(self._scratch, "entries.jsonl")
        with open(path, "wb") as out:
            for number in batch:
                separator = b'\n{"q":%d,' % number
                for whole in self._whole(number):
                    out.write(separator)
                    out.write(separator.join(whole))
        try:
            self._insert(path)
        except duckdb.Error:
            # A sealed line is not what we take it for: find it.
            self._slowly(batch, insert_only=True)

    def _whole(self, number: int) -> Iterator[list[bytes]]:
        """Yield the whole entries of a segment, without their first brace; keep the definitions."""
        segment = self.segments[number]
        for offset, end, lines in _chunks(segment):
            whole: list[bytes] = []
            keep = whole.append
            for raw in lines:
                body = raw[:-SEAL_LENGTH]
                if raw[-SEAL_LENGTH:] == b',"z":"%06x%08x"}' % (len(body), crc32(body)):
                    if raw.startswith(_ENTRY):
                        keep(raw[1:])
                    elif not self._define(number, raw):
                        at = offset + sum(len(line) + 1 for line in lines[: lines.index(raw)])
                        self._set_aside(segment, at, raw, "not understood")
            if len(whole) < len(lines):
                self._look_closer(segment, offset, lines)
            if self._progress is not None:
                self._progress(end - offset)
            if whole:
                yield whole

    def _look_closer(self, segment: Segment, offset: int, lines: list[bytes]) -> None:
        for raw in lines:
            if raw and not _is_whole(raw):
                self._set_aside(segment, offset, raw, "torn")
            offset += len(raw) + 1

    def _define(self, number: int, raw: bytes) -> bool:
        """Keep what a line that is no entry says; False when it is not understood."""
        try:
            line: Line = _decode(raw)
        except msgspec.MsgspecError:
            return False
        fields: dict[str, object]
        if isinstance(line, StatementLine):
            table, at, fields = "statements", line.i, msgspec.structs.asdict(line)
        elif isinstance(line, ResourceLine):
            table, at, fields = "resources", line.i, msgspec.structs.asdict(line)
        elif isinstance(line, PriceLineRef):
            table, at, fields = "prices", line.i, msgspec.structs.asdict(line)
        elif isinstance(line, AttributionLine):
            more = {key: value for key, value in line.labels.items() if key not in LABELS}
            table, at = "attributions", line.i
            fields = {name: line.labels.get(name) for name in LABELS}
            fields["labels"] = _encode(more).decode() if more else None
        elif isinstance(line, HeaderLine):
            if line.format != FORMAT:
                raise LedgerError(
                    f"{self.segments[number].path} has format {line.format}, this version reads "
                    f"{FORMAT}: update costinsights"
                )
            table, at, fields = "segments", 0, msgspec.structs.asdict(line)
        elif isinstance(line, LossLine):
            for reason, count in line.dropped.items():
                self.lost[reason] = self.lost.get(reason, 0) + count
            return True
        else:
            return False
        self._defined[table][number, at] = fields
        return True

    def _set_aside(self, segment: Segment, offset: int, raw: bytes, reason: str) -> None:
        self.torn += 1
        if self._aside is not None:
            self._aside(Aside(segment.path, offset, raw, reason))

    def _insert(self, path: str) -> None:
        if not os.path.getsize(path):
            return
        columns = ", ".join(f"{name}: '{kind}'" for name, kind in _ENTRY_COLUMNS.items())
        names = ", ".join(f"l.{name}" for name in _ENTRY_COLUMNS if name != "v")
        self._table("segments")
        self._connection.execute(
            f"INSERT INTO lines BY NAME SELECT {names}, coalesce(l.v, 0) AS v, "
            f"l.c IS NULL AND coalesce(l.v, 0) = 0 AS first, "
            f"coalesce(l.c, g.process || '-' || l.n) AS charge_id "
            f"FROM read_json({literal(path)}, format = 'newline_delimited', "
            f"maximum_object_size = {MAX_LINE}, columns = {{{columns}}}) l "
            f"LEFT JOIN segments g ON g.q = l.q"
        )

    def _table(self, name: str) -> None:
        columns = _DEFINED[name]
        path = os.path.join(self._scratch, f"{name}.jsonl")
        with open(path, "wb") as out:
            for (number, at), fields in self._defined[name].items():
                row = {key: fields[key] for key in columns}
                out.write(_encode({"q": number, "i": at, **row}) + b"\n")
        typed = {"q": "INTEGER", "i": "BIGINT", **columns}
        if self._defined[name]:
            wanted = ", ".join(f"{key}: '{kind}'" for key, kind in typed.items())
            source = (
                f"AS SELECT * FROM read_json({literal(path)}, format = 'newline_delimited', "
                f"maximum_object_size = {MAX_LINE}, columns = {{{wanted}}})"
            )
        else:
            source = f"({', '.join(f'{key} {kind}' for key, kind in typed.items())})"
        self._connection.execute(f"CREATE OR REPLACE TABLE {name} {source}")
        os.unlink(path)

    # -- the careful way ------------------------------------------------------------------------

    def _disagreeing(self) -> list[int]:
        """Return the segments with entries that lack something they refer to."""
        found = self._connection.execute(
            "SELECT DISTINCT l.q FROM lines l LEFT JOIN segments g ON g.q = l.q "
            "LEFT JOIN resources r ON r.q = l.q AND r.i = l.r "
            "LEFT JOIN attributions a ON a.q = l.q AND a.i = l.a "
            "WHERE g.q IS NULL OR r.q IS NULL OR a.q IS NULL "
            "OR l.n IS NULL OR l.t IS NULL OR l.d IS NULL"
        ).fetchall()
        return [number for (number,) in found]

    def _slowly(self, numbers: Iterable[int], *, insert_only: bool = False) -> None:
        """Load segments again, each entry decoded and held against its definitions."""
        path = os.path.join(self._scratch, "entries.jsonl")
        for number in numbers:
            if not insert_only:
                self._connection.execute(f"DELETE FROM lines WHERE q = {number}")
            with open(path, "wb") as out:
                out.writelines(
                    b'{"q":%d,%b\n' % (number, raw[1:]) for raw in self._resolved(number)
                )
            self._insert(path)

    def _resolved(self, number: int) -> Iterator[bytes]:
        segment = self.segments[number]
        resources, attributions = self._defined["resources"], self._defined["attributions"]
        headed = (number, 0) in self._defined["segments"]
        for begin, _, lines in _chunks(segment):
            at = begin
            for raw in lines:
                if raw.startswith(_ENTRY) and _is_whole(raw):
                    try:
                        line = _decode(raw)
                    except msgspec.MsgspecError:
                        self._set_aside(segment, at, raw, "not understood")
                    else:
                        if not isinstance(line, EntryLine):
                            pass
                        elif (
                            headed
                            and (number, line.r) in resources
                            and (number, line.a) in attributions
                        ):
                            yield raw
                        else:
                            self._set_aside(segment, at, raw, "its definition was torn")
                at += len(raw) + 1


def literal(text: str) -> str:
    """Return `text` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _is_whole(raw: bytes) -> bool:
    body = raw[:-SEAL_LENGTH]
    return raw[-SEAL_LENGTH:] == b',"z":"%06x%08x"}' % (len(body), crc32(body))


def _chunks(segment: Segment) -> Iterator[tuple[int, int, list[bytes]]]:
    """Yield lists of lines, and where each list begins and ends; never more than was there."""
    begin, end, rest = 0, 0, b""
    with open(segment.path, "rb") as file:
        while chunk := file.read(min(CHUNK, segment.size - end)):
            end += len(chunk)
            lines = (rest + chunk).split(b"\n")
            rest = lines.pop()
            yield begin, end - len(rest), lines
            begin = end - len(rest)
    if rest and not segment.live:
        yield begin, end, [rest]
