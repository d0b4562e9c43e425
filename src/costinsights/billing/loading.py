"""Takes the rows of one slice, and makes typed FOCUS rows of them when all are there.

Pages are kept on the disk as they come, each with how to go on after it, so that a pull which is
killed, throttled or thrown out half-way is taken up where it stood. None of it is part of the bill:
`Work.finish` turns the whole of it into one Parquet file, checks it, and only then it may be
published.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from time import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from costinsights.billing.columns import BY_NAME, COLUMNS, MONEY, TYPES
from costinsights.billing.puller import PullError
from costinsights.billing.services import SERVICES
from costinsights.ledger.columns import quoted
from costinsights.ledger.live import literal
from costinsights.ledger.store import unglobbed
from costinsights.ledger.writer import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from duckdb import DuckDBPyConnection

    from costinsights.billing.puller import Row
    from costinsights.billing.slices import Slice

PLACES = Decimal(1).scaleb(-18)
MAX_ROW = 16 * 1024 * 1024
CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")
RESUMED_SECONDS = 3600
"""For so long a pull that was broken off is taken up where it was: providers restate every few hours."""
_STATE = "state.json"
_encode = msgspec.json.Encoder().encode

# What follows from what where a source does not say it: first from its own columns and from the
# table of services, then from these.
_FIRST: dict[str, str] = {
    "BillingPeriodStart": "date_trunc('month', ChargePeriodStart)",
    "EffectiveCost": "BilledCost",
    "ListCost": "BilledCost",
    "ContractedCost": "BilledCost",
    "ProviderName": "{provider}",
    "ChargeCategory": "'Usage'",
    "ServiceCategory": "coalesce(services.category, 'Other')",
    "ServiceSubcategory": (
        "CASE WHEN coalesce(ServiceCategory, services.category) = services.category "
        "THEN services.subcategory ELSE 'Other (' || coalesce(ServiceCategory, 'Other') || ')' END"
    ),
    "x_System": "coalesce(services.system, ServiceName)",
}
_SECOND: dict[str, str] = {
    "BillingPeriodEnd": "date_trunc('month', BillingPeriodStart) + INTERVAL 1 MONTH",
    "PublisherName": "ProviderName",
    "InvoiceIssuerName": "ProviderName",
    "ServiceProviderName": "ProviderName",
    "HostProviderName": "ProviderName",
    "ChargeFrequency": "CASE ChargeCategory WHEN 'Usage' THEN 'Usage-Based' ELSE 'One-Time' END",
}

# What every row has to have, and why it cannot be of the slice without.
_DEMANDS = {
    "has no BilledCost": "BilledCost IS NULL",
    "has no BillingCurrency": "BillingCurrency IS NULL",
    "has no BillingAccountId": "BillingAccountId IS NULL",
    "has no ServiceName": "ServiceName IS NULL",
    "has no charge period": "ChargePeriodStart IS NULL OR ChargePeriodEnd IS NULL",
    "ends before it begins": "ChargePeriodEnd < ChargePeriodStart",
    "has a ChargeCategory that FOCUS does not know": (
        f"ChargeCategory NOT IN ({', '.join(map(literal, CATEGORIES))})"
    ),
    "is of another period than was asked for": (
        "(ChargePeriodStart < {start} OR ChargePeriodStart >= {end}) "
        "AND (BillingPeriodStart < {start} OR BillingPeriodStart >= {end})"
    ),
}


class _State(msgspec.Struct):
    """What is there of a slice that is not whole yet."""

    pages: int = 0
    next: str | None = None
    provisional: bool = False
    version: str | None = None
    at: float = 0
    """When its last page was taken, in seconds since the epoch."""


class Finished(NamedTuple):
    """A slice's file, before it is published."""

    path: str
    rows: int
    held_back: int
    """Rows of today, which are left for tomorrow."""
    billed: dict[str, str]
    """The sum of BilledCost by currency, as decimal text."""
    provisional: bool


class Work:
    """What a puller hands over of one slice; see `costinsights.billing.puller.Loading`."""

    def __init__(
        self,
        slice_: Slice,
        folder: str,
        connection: DuckDBPyConnection,
        provider: str,
        version: str | None,
        checked: Callable[[], None],
    ) -> None:
        """Take up what an earlier pull has left in `folder`; `checked` is called with each page."""
        self._slice = slice_
        self._version = version
        self._folder = folder
        self._provider = provider
        self._checked = checked
        self.connection = connection
        self._selected: list[str] = []
        make_folder(folder)
        self._state = self._read()

    # -- what a puller uses ---------------------------------------------------------------------

    @property
    def resumed(self) -> str | None:
        """Where an earlier pull of this slice broke off."""
        return self._state.next

    @property
    def scratch(self) -> str:
        """A folder for what has to be fetched first."""
        path = os.path.join(self._folder, "scratch")
        make_folder(path)
        return path

    def restart(self) -> None:
        """Throw away what an earlier pull left of this slice."""
        shutil.rmtree(self._folder)
        make_folder(self._folder)
        self._state = _State()
        self._selected.clear()

    def provisional(self) -> None:
        """Note that the source itself says that these figures are not final."""
        self._state.provisional = True

    def rows(self, rows: Iterable[Row], next: str | None = None) -> None:  # noqa: A002
        """Take a page; how to go on after it, where another process could."""
        data = b"".join(_encode(_plain(row)) + b"\n" for row in rows)
        path = os.path.join(self._folder, f"page-{self._state.pages:06}.jsonl")
        _put(path, data)
        self._state.pages += 1
        self._state.next = next
        self._state.version, self._state.at = self._version, time()
        _put(os.path.join(self._folder, _STATE), _encode(self._state))
        self._checked()

    def select(self, query: str) -> None:
        """Take what a query gives on `connection`."""
        path = os.path.join(self._folder, f"select-{len(self._selected):06}.parquet")
        source = f"({query})"
        try:
            self._copy(source, self._have(source), path)
        except _duckdb_error() as error:
            raise PullError(f"{self._slice.told()}: {_first_line(error)}") from error
        self._selected.append(path)
        self._checked()

    # -- what the engine uses -------------------------------------------------------------------

    def finish(self, path: str, today: datetime) -> Finished:
        """Write the whole slice to `path`, checked.

        Raises:
            PullError: a row is not as it has to be.
        """
        try:
            held_back = self._write(path, today)
            return self._look_at(path, held_back)
        except _duckdb_error() as error:
            raise PullError(f"{self._slice.told()}: {_first_line(error)}") from error

    def forget(self) -> None:
        """Remove what was kept of the slice: it is published."""
        shutil.rmtree(self._folder, ignore_errors=True)

    # -- within ---------------------------------------------------------------------------------

    def _read(self) -> _State:
        try:
            with open(os.path.join(self._folder, _STATE), "rb") as file:
                state = msgspec.json.decode(file.read(), type=_State)
        except (FileNotFoundError, msgspec.MsgspecError):
            state = None
        if (
            state is None
            or state.next is None
            or state.version != self._version
            or time() - state.at > RESUMED_SECONDS
        ):
            # Broken off within its first page, by a source that cannot go on, or so long ago that
            # the rest may be of another bill: from the beginning.
            shutil.rmtree(self._folder)
            make_folder(self._folder)
            return _State()
        return state

    def _have(self, source: str) -> dict[str, str]:
        """Return the columns of a source with their types."""
        found = self.connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
        return {str(name): str(kind) for name, kind, *_ in found}

    def _pages(self) -> str | None:
        paths = [
            os.path.join(self._folder, f"page-{number:06}.jsonl")
            for number in range(self._state.pages)
        ]
        filled = [literal(unglobbed(path)) for path in paths if os.path.getsize(path)]
        if not filled:
            return None
        # Every value is text: nothing passes through binary floating point.
        columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in self._named(paths))
        return (
            f"read_json([{', '.join(filled)}], format = 'newline_delimited', "
            f"maximum_object_size = {MAX_ROW}, columns = {{{columns}}})"
        )

    def _named(self, paths: Sequence[str]) -> list[str]:
        """Return the names of all columns that the pages have, in the order of the table."""
        names: set[str] = set()
        for path in paths:
            with open(path, "rb") as file:
                for line in file:
                    names.update(_decode_names(line))
        return sorted(names)

    def _copy(self, source: str, have: Mapping[str, str], path: str) -> None:
        self.connection.execute(
            f"COPY ({typed(source, have, self._provider)}) TO {literal(path)} "
            "(FORMAT parquet, COMPRESSION zstd)"
        )
        os.chmod(path, 0o600)

    def _write(self, path: str, today: datetime) -> int:
        pages = self._pages()
        if pages is not None:
            whole = os.path.join(self._folder, "pages.parquet")
            self._copy(pages, self._have(pages), whole)
            self._selected.append(whole)
        if not self._selected:
            empty = "(SELECT NULL AS BilledCost WHERE false)"
            self._copy(empty, {"BilledCost": "VARCHAR"}, path)
            return 0
        moment = f"TIMESTAMP '{today:%Y-%m-%d}'"
        held_back = 0
        if self._slice.end > today:
            held_back = int(
                self._one(
                    f"SELECT count(*) FROM {_files(self._selected)} WHERE ChargePeriodStart >= {moment}"
                )[0]
            )
        if len(self._selected) == 1 and not held_back:
            os.replace(self._selected[0], path)
            return 0
        self.connection.execute(
            f"COPY (SELECT * FROM {_files(self._selected)} WHERE ChargePeriodStart < {moment} "
            f"OR ChargePeriodStart IS NULL OR NOT {bool(held_back)}) TO {literal(path)} "
            "(FORMAT parquet, COMPRESSION zstd)"
        )
        os.chmod(path, 0o600)
        return held_back

    def _look_at(self, path: str, held_back: int) -> Finished:
        """Check the file, and add it up."""
        start, end = (f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S}'" for moment in self._bounds())
        counts = ", ".join(
            f"count(*) FILTER ({condition.format(start=start, end=end)})"
            for condition in _DEMANDS.values()
        )
        rows, *wrong = self._one(f"SELECT count(*), {counts} FROM {_files([path])}")
        for what, count in zip(_DEMANDS, wrong, strict=True):
            if count:
                raise PullError(f"{self._slice.told()}: {count:,} of {rows:,} rows: a row {what}")
        sums = self.connection.execute(
            f"SELECT BillingCurrency, sum(BilledCost)::VARCHAR FROM {_files([path])} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        billed = {str(currency): str(amount) for currency, amount in sums}
        return Finished(path, int(rows), held_back, billed, self._state.provisional)

    def _bounds(self) -> tuple[datetime, datetime]:
        return self._slice.start, self._slice.end

    def _one(self, query: str) -> tuple[Any, ...]:
        found = self.connection.execute(query).fetchone()
        return found or ()


def typed(source: str, have: Mapping[str, str], provider: str) -> str:
    """Return the SELECT that makes FOCUS rows, typed and complete, of a source's columns.

    `have` are its columns with their types. What is missing is NULL, or follows from others.

    Raises:
        PullError: a column has a name that FOCUS does not know and that does not begin with ``x_``.
    """
    unknown = [name for name in have if name not in BY_NAME and not name.startswith("x_")]
    if unknown:
        raise PullError(
            f"{', '.join(sorted(unknown))}: no column of FOCUS; names of others begin with x_"
        )
    first: list[str] = []
    for column in COLUMNS:
        value = f"s.{quoted(column.name)}"
        kind = have.get(column.name)
        expression = "NULL" if kind is None else _cast(value, kind, column.kind)
        first.append(f"CAST({expression} AS {TYPES[column.kind]}) AS {quoted(column.name)}")
    extra = sorted(name for name in have if name not in BY_NAME)
    first += [f"{_text(f's.{quoted(name)}', have[name])} AS {quoted(name)}" for name in extra]
    inner = f"SELECT {', '.join(first)} FROM {source} s"
    rows = ", ".join(
        f"({', '.join(map(literal, (name, one.system, one.category, one.subcategory)))})"
        for one in SERVICES
        for name in one.names
    )
    return (
        f"SELECT c.* REPLACE ({_filled(_SECOND)}) FROM ("
        f"SELECT b.* REPLACE ({_filled(_FIRST).format(provider=literal(provider))}) FROM ({inner}) b "
        f"LEFT JOIN (VALUES {rows}) services(name, system, category, subcategory) "
        "ON services.name = b.ServiceName) c"
    )


def _filled(defaults: Mapping[str, str]) -> str:
    return ", ".join(
        f"coalesce({quoted(name)}, {value}) AS {quoted(name)}" for name, value in defaults.items()
    )


def _cast(value: str, kind: str, wanted: str) -> str:
    if wanted == "number":
        return f"CAST({exact(value, kind)} AS {MONEY})"
    if wanted == "moment":
        if kind == "TIMESTAMP WITH TIME ZONE":
            return f"timezone('UTC', {value})"
        if kind == "VARCHAR":
            text = f"rtrim(replace(nullif(trim({value}), ''), 'T', ' '), 'Z')"
            return f"CAST({text} AS TIMESTAMP)"
        return value
    return _text(value, kind)


def exact(value: str, kind: str) -> str:
    """Return a number as the decimal that is meant: of binary floating point, its shortest text.

    Of a number with ten decimals and fifteen digits at most that is the only decimal with as few,
    and is had by arithmetic, which is up to fifty times faster than by text.
    """
    if kind == "VARCHAR":
        return f"CAST(nullif(trim({value}), '') AS {MONEY})"
    if kind != "DOUBLE":
        return f"CAST(CAST({value} AS VARCHAR) AS {MONEY})" if kind == "FLOAT" else value
    tenths = f"round({value} * 1e10)"
    return (
        f"CASE WHEN abs({value}) < 1e5 AND {tenths} / 1e10 = {value} "
        f"THEN CAST(CAST({tenths} AS BIGINT) * CAST('0.0000000001' AS DECIMAL(11, 10)) AS {MONEY}) "
        f"ELSE CAST(CAST({value} AS VARCHAR) AS {MONEY}) END"
    )


def _text(value: str, kind: str) -> str:
    if kind.startswith(("MAP", "STRUCT")) or kind.endswith("[]"):
        value = f"CAST(to_json({value}) AS VARCHAR)"
    return f"nullif(CAST({value} AS VARCHAR), '')"


def _plain(row: Row) -> dict[str, str | None]:
    return {name: _worded(value) for name, value in row.items()}


def _worded(value: object) -> str | None:
    """Return a value as text, exactly.

    Raises:
        PullError: it is no value of a row.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return value or None
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(timezone.utc).replace(tzinfo=None)
        return value.isoformat(" ")
    if isinstance(value, Mapping):
        return _encode(dict(sorted(value.items()))).decode()  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]  any mapping of text
    if isinstance(value, (int, float, Decimal)):
        return number(value)
    raise PullError(f"{type(value).__name__} is no value of a row")


def number(value: str | float | Decimal) -> str:
    """Return a number as plain decimal text of at most 18 decimals.

    Raises:
        PullError: it is no number.
    """
    try:
        exact = Decimal(repr(value) if isinstance(value, float) else value)
        exponent = exact.as_tuple().exponent
        if not isinstance(exponent, int):
            raise PullError(f"{value} is no amount")
        if exponent < -18:
            exact = exact.quantize(PLACES, rounding=ROUND_HALF_EVEN)
    except InvalidOperation as error:
        raise PullError("what stands for an amount is no number") from error
    return f"{exact:f}"


def _decode_names(line: bytes) -> Iterable[str]:
    return msgspec.json.decode(line, type=dict[str, str | None])


def _files(paths: Sequence[str]) -> str:
    listed = ", ".join(literal(unglobbed(path)) for path in paths)
    return f"read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"


def _put(path: str, data: bytes) -> None:
    """Write a file whole or not at all, for its owner only."""
    temporary = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(data)
    os.replace(temporary, path)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _duckdb_error() -> type[Exception]:
    import duckdb

    return duckdb.Error
