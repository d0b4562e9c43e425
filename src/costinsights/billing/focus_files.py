"""Reads FOCUS files: CSV and Parquet, of versions 1.0 to 1.4, several of them in one folder.

    load(into, [File("/tmp/x/part-0.parquet")], where="ProviderName = 'AWS'")

Their columns are taken by name, whatever the order; what a version calls otherwise is in `FOLLOWS`,
what FOCUS does not know is kept under ``x_``. In CSV, NULL is an empty field or the word NULL, quoted
or not, and a moment has a ``T`` and a ``Z`` or has them not; other time zones are refused.

What is wrong is an error that names file, column and row. Looking for the row is a second reading,
which nobody pays for whose files are right.

Facts: FOCUS specification, tags v1.0 to v1.2; of 1.3 and 1.4, FOCUS_Spec pull requests 1677 and 2485.
"""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, NamedTuple

from costinsights.billing.columns import COLUMNS, MONEY
from costinsights.billing.puller import PullError
from costinsights.ledger.columns import quoted
from costinsights.ledger.live import literal
from costinsights.ledger.store import unglobbed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from duckdb import DuckDBPyConnection

    from costinsights.billing.columns import Kind
    from costinsights.billing.puller import Loading

Form = Literal["csv", "gzip", "parquet"]

SUFFIXES = (".csv", ".csv.gz", ".parquet")
"""The names of FOCUS files end so; what is in them is seen by their first bytes."""

FOLLOWS = {
    "ProviderName": "ServiceProviderName",  # deprecated by 1.3, gone in 1.4
    "PublisherName": "ServiceProviderName",  # the same
}
"""What may be missing because a later version has it under another name."""
MAY_LACK = frozenset(
    {
        "ServiceCategory",  # Google's FOCUS export (preview, 2026-06) has none
        "HostProviderName",  # mandatory since 1.3
        "ServiceProviderName",
    }
)
NEEDED = tuple(
    column.name for column in COLUMNS if column.level == "mandatory" and column.name not in MAY_LACK
)
"""What every version demands of a file; `MAY_LACK` says why not more."""
FILLED = (
    "BilledCost",
    "BillingAccountId",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ProviderName",
    "ServiceName",
)
"""What every row needs: without it nobody knows what is billed, to whom, when and for what."""

ASKED_FOR = ("ResourceId", "ResourceName")
"""What a condition may ask for, and a file need not have."""

_KINDS: dict[str, Kind] = {column.name: column.kind for column in COLUMNS}
_NAMES = {column.name.lower(): column.name for column in COLUMNS}
# A moment without another time zone than UTC: DuckDB would take the time and drop the zone.
_MOMENT = r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?( ?(Z|UTC|[+]00(:?00)?))?"
_NUMBERS = ("DECIMAL", "DOUBLE", "FLOAT", "BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT")
_SHOWN = 40
_GZIP = b"\x1f\x8b"
_PIECE = 1024 * 1024
UNREADABLE = (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error)
"""What `header_of` raises of a file that is none, or not all of one."""
_NULL = "is NULL"


class File(NamedTuple):
    """A FOCUS file: where it is on this machine, and what it is called where it came from."""

    path: str
    name: str = ""

    @property
    def told(self) -> str:
        """Its name for messages."""
        return self.name or self.path


class Period(NamedTuple):
    """One billing period of one billing account of one provider."""

    provider: str
    account: str
    start: datetime
    end: datetime


class Group(NamedTuple):
    """Files of one form with the same columns, which are read as one."""

    form: Form
    header: tuple[str, ...]
    files: tuple[File, ...]

    @property
    def names(self) -> dict[str, str]:
        """The columns by the names that they get: FOCUS's, or ours with ``x_``."""
        return {_named(raw): raw for raw in self.header}


def load(into: Loading, files: Iterable[File], *, where: str = "true", provider: str = "") -> None:
    """Hand over the rows of FOCUS files, those that meet `where`.

    Args:
        into: Where they go.
        files: On this machine.
        where: A condition of SQL on the columns of FOCUS; moments are TIMESTAMPs.
        provider: Whose files they are, where they do not say it (1.0 to 1.3 have to).

    Raises:
        PullError: a file is none, lacks a column, has one twice, or has a value of the wrong type.
    """
    for group in grouped(files, provider=provider):
        selected = query(into.connection, group, where=where)
        try:
            into.select(selected)
        except PullError as error:
            explain(group)
            raise PullError(f"{group.files[0].told}: {error}") from None


def periods(connection: DuckDBPyConnection, group: Group) -> list[Period]:
    """Return the billing periods that the files have rows of; reads four columns of them.

    Raises:
        PullError: a row does not say whose or of which period it is.
    """
    try:
        rows = connection.execute(
            "SELECT ProviderName, BillingAccountId, BillingPeriodStart, max(BillingPeriodEnd) "
            f"FROM ({query(connection, group)}) GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    except duckdb_error() as error:
        explain(group)
        raise PullError(f"{group.files[0].told}: {first_line(error)}") from None
    found = [
        Period(
            provider, account, start.replace(tzinfo=timezone.utc), end.replace(tzinfo=timezone.utc)
        )
        for provider, account, start, end in rows
    ]
    for one in found:
        if one.end <= one.start:
            raise PullError(f"{group.files[0].told}: a billing period ends before it begins")
    return found


def grouped(files: Iterable[File], *, provider: str = "") -> list[Group]:
    """Put files together that have the same columns, and look at these.

    Raises:
        PullError: a file cannot be read, lacks a column, or has one twice.
    """
    found: dict[tuple[Form, tuple[str, ...]], list[File]] = {}
    for file in files:
        try:
            form, header = header_of(file.path)
        except UNREADABLE as error:
            raise PullError(f"{file.told} cannot be read: {type(error).__name__}") from None
        _check(file, header, provider)
        found.setdefault((form, header), []).append(file)
    return [Group(form, header, tuple(same)) for (form, header), same in found.items()]


def query(connection: DuckDBPyConnection, group: Group, *, where: str = "true") -> str:
    """Return the SELECT that gives the rows of a group under FOCUS's names.

    Raises:
        PullError: a column of a Parquet file has a type that its values cannot have.
    """
    return f"SELECT * FROM ({_named_rows(connection, group)}) WHERE {where}"


def explain(group: Group) -> None:
    """Look for the first value that is not what its column is for.

    Raises:
        PullError: it was found; file, column and row are named.
    """
    import duckdb

    connection = duckdb.connect(":memory:")  # one that keeps rows in their order
    try:
        for file in group.files:
            _explain(connection, file, group._replace(files=(file,)))
    except duckdb.Error as error:
        raise PullError(f"{group.files[0].told}: {first_line(error)}") from None
    finally:
        connection.close()


def _explain(connection: DuckDBPyConnection, file: File, group: Group) -> None:
    types = _types(connection, group)
    wrong = {name: _wrong(name, quoted(raw), types[raw]) for name, raw in group.names.items()}
    tests = {name: test for name, test in wrong.items() if test}
    found = connection.execute(
        f"SELECT row, {', '.join(f'({test})' for test in tests.values())}, "
        f"{', '.join(f'CAST({quoted(group.names[name])} AS VARCHAR)' for name in tests)} "
        f"FROM {source(group, numbered=True)} "
        f"WHERE {' OR '.join(f'({test})' for test in tests.values())} ORDER BY row LIMIT 1"
    ).fetchone()
    if found is None:
        return
    row, *rest = found
    for number, name in enumerate(tests):
        if rest[number]:
            value = rest[len(tests) + number]
            what = _NULL if value is None else f"is {_short(value)}, no {_KINDS[name]}"
            raise PullError(f"{file.told}, row {row}: {group.names[name]} {what}")


# -- headers --------------------------------------------------------------------------------------


def header_of(path: str) -> tuple[Form, tuple[str, ...]]:
    """Return what a file is, and the names of its columns as they stand in it.

    Raises:
        OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error: it cannot be read, or breaks off.
    """
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return "parquet", _parquet_header(path)
    form: Form = "gzip" if magic[:2] == _GZIP else "csv"
    if form == "gzip":
        _whole(path)
    opened = gzip.open if form == "gzip" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as text:
        return form, tuple(next(csv.reader(text), ()))


def _whole(path: str) -> None:
    """Read a gzip file to its end: of one that breaks off, DuckDB 1.5 takes what there is, silently.

    Raises:
        OSError, EOFError, zlib.error: it is not whole.
    """
    with gzip.open(path, "rb") as file:
        while file.read(_PIECE):
            pass


def _parquet_header(path: str) -> tuple[str, ...]:
    """Return the names as they stand in the file, where DuckDB would rename one that comes twice."""
    import duckdb

    connection = duckdb.connect(":memory:")
    try:
        rows = connection.execute(
            "SELECT name, num_children FROM parquet_schema(?)", [unglobbed(path)]
        ).fetchall()
    except duckdb.Error as error:
        raise OSError(first_line(error)) from None
    finally:
        connection.close()
    return tuple(_top(iter(rows)))


def _top(rows: Iterable[tuple[str, int | None]]) -> list[str]:
    """Return the columns of the first level of a schema, which is a list in depth-first order."""
    found: list[str] = []
    left = [1]
    """How many elements are still to come, of each that is open."""
    for name, children in rows:
        if len(left) == 2:
            found.append(name)
        left[-1] -= 1
        left.append(children or 0)
        while left and not left[-1]:
            left.pop()
    return found


def _named(raw: str) -> str:
    known = _NAMES.get(raw.lower())
    if known is not None:
        return known
    return raw if raw.lower().startswith("x_") else f"x_{raw}"


def _check(file: File, header: Sequence[str], provider: str) -> None:
    seen: set[str] = set()
    for raw in header:
        if not raw.strip():
            raise PullError(f"{file.told}: a column has no name")
        name = _named(raw)
        if name.lower() in seen:
            raise PullError(f"{file.told}: it has the column {raw} twice")
        seen.add(name.lower())
    lacking = [
        name
        for name in NEEDED
        if name.lower() not in seen
        and not (name in FOLLOWS and (provider or FOLLOWS[name].lower() in seen))
    ]
    if lacking:
        raise PullError(
            f"{file.told}: {', '.join(lacking)}: it has no such column, and FOCUS demands it"
        )


# -- queries --------------------------------------------------------------------------------------


def _named_rows(connection: DuckDBPyConnection, group: Group) -> str:
    names = group.names
    types = _types(connection, group)
    columns: list[str] = []
    for name, raw in names.items():
        value = quoted(raw)
        kind = types[raw]
        _check_type(group.files[0], name, raw, kind)
        if _KINDS.get(name) == "moment":
            value = moment(value, kind)
        elif _KINDS.get(name) == "text" and kind != "VARCHAR":
            value = f"CAST({value} AS VARCHAR)"
        if name in FILLED:
            value = f"coalesce({value}, error({literal(f'{raw} {_NULL}')}))"
        columns.append(f"{value} AS {quoted(name)}")
    for name, other in FOLLOWS.items():
        if name not in names and other in names:
            columns.append(f"{quoted(names[other])} AS {quoted(name)}")
    columns += [f"CAST(NULL AS VARCHAR) AS {name}" for name in ASKED_FOR if name not in names]
    return f"SELECT {', '.join(columns)} FROM {source(group)}"


def moment(value: str, kind: str) -> str:
    """Return the SQL that makes a naive TIMESTAMP in UTC of a column of this type."""
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"timezone('UTC', {value})"
    if kind != "VARCHAR":
        return f"CAST({value} AS TIMESTAMP)"
    return (
        f"CASE WHEN {value} IS NULL OR regexp_full_match({value}, {literal(_MOMENT)}) "
        f"THEN CAST(rtrim({value}, 'ZUTC ') AS TIMESTAMP) ELSE error('no moment of UTC') END"
    )


def _types(connection: DuckDBPyConnection, group: Group) -> dict[str, str]:
    if group.form != "parquet":
        return dict.fromkeys(group.header, "VARCHAR")
    rows = connection.execute(f"DESCRIBE SELECT * FROM {source(group)}").fetchall()
    return {raw: str(row[1]) for raw, row in zip(group.header, rows, strict=True)}


def _check_type(file: File, name: str, raw: str, kind: str) -> None:
    wanted = _KINDS.get(name, "json")
    fits = {
        "number": kind.removeprefix("U").startswith(_NUMBERS),
        "moment": kind.startswith("TIMESTAMP") or kind == "DATE",
        "text": not kind.startswith(("MAP", "STRUCT", "BLOB")) and not kind.endswith("[]"),
        "json": kind != "BLOB",
    }
    if kind != "VARCHAR" and not fits[wanted]:
        raise PullError(f"{file.told}: the column {raw} is {kind}, no {wanted}")


def source(group: Group, *, numbered: bool = False) -> str:
    """Return what stands behind FROM; with `numbered` it has the column ``row``, from 1."""
    paths = ", ".join(literal(unglobbed(file.path)) for file in group.files)
    if group.form == "parquet":
        options = "hive_partitioning = false"
        if numbered:
            options += ", file_row_number = true"
            return f"(SELECT *, file_row_number + 1 AS row FROM read_parquet([{paths}], {options}))"
        return f"read_parquet([{paths}], {options})"
    columns = ", ".join(f"{literal(raw)}: 'VARCHAR'" for raw in group.header)
    # Nothing is sniffed: a column of digits stays the text that it is, and what was fetched has no
    # name that would tell how it is compressed.
    compression = "gzip" if group.form == "gzip" else "none"
    reading = (
        f"read_csv([{paths}], auto_detect = false, header = true, delim = ',', quote = '\"', "
        f"compression = '{compression}', "
        f"escape = '\"', nullstr = ['', 'NULL'], columns = {{{columns}}}, hive_partitioning = false)"
    )
    return f"(SELECT row_number() OVER () AS row, * FROM {reading})" if numbered else reading


def _wrong(name: str, value: str, kind: str) -> str:
    """Return the condition under which a value is not what its column is for; empty for none."""
    wanted = _KINDS.get(name)
    test = ""
    if wanted == "number" and kind in ("VARCHAR", "DOUBLE", "FLOAT"):
        test = (
            f"{value} IS NOT NULL AND TRY_CAST(trim(CAST({value} AS VARCHAR)) AS {MONEY}) IS NULL"
        )
    elif wanted == "moment" and kind == "VARCHAR":
        test = f"NOT regexp_full_match({value}, {literal(_MOMENT)})"
    if name in FILLED:
        test = f"({test}) OR {value} IS NULL" if test else f"{value} IS NULL"
    return test


def _short(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")


def first_line(error: Exception) -> str:
    """Return the first line of what DuckDB says, without its kind."""
    line = str(error).partition("\n")[0]
    return line.partition(": ")[2] or line


def duckdb_error() -> type[Exception]:
    """Return the class of DuckDB's errors."""
    import duckdb

    return duckdb.Error


def matching(values: Mapping[str, str]) -> str:
    """Return the condition that columns have just these values."""
    return " AND ".join(f"{quoted(n)} = {literal(v)}" for n, v in values.items()) or "true"


def files_in(folder: str) -> list[File]:
    """Return the FOCUS files in a folder and the folders in it, by name; hidden ones are left out."""
    found: list[File] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        found += [
            File(os.path.join(place, name))
            for name in sorted(names)
            if name[0] not in "._" and name.lower().endswith(SUFFIXES)
        ]
    return found
