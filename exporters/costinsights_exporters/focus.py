"""Writes the whole ledger as FOCUS files: charges of calls, and the bill that was pulled.

::

    [exporter.focus]
    out = "/data/focus"                    # costinsights export focus --out has it as well
    formats = ["parquet", "csv"]

FOCUS 1.2 with the names that 1.3 adds beside them, in a folder a billing period::

    /data/focus/BILLING_PERIOD=2026-11/focus.parquet
    /data/focus/BILLING_PERIOD=2026-11/focus.csv

A file is replaced whole, in one step, and only where the period's contents have changed. It is made
of the ledger and not of one charge after another, because a later figure changes a row that was
written before: so ``costinsights export focus`` writes it, from cron for example. Named in
`exporters`, it lets a program go on: the ledger has its charges.
"""

from __future__ import annotations

import csv
import fcntl
import os
from contextlib import contextmanager, suppress
from hashlib import blake2b
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import msgspec

import costinsights
from costinsights.billing.bill import attach
from costinsights.billing.columns import COLUMNS
from costinsights.exporter import ExporterUnavailable
from costinsights.guard import suppressed
from costinsights.ledger.columns import quoted
from costinsights.ledger.live import literal
from costinsights.ledger.manifest import sync_folder
from costinsights.ledger.reader import span_ids
from costinsights.ledger.store import open_store
from costinsights.ledger.writer import make_folder
from costinsights_exporters._focus_rows import arranged, billed, calls, name_services

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from costinsights.ledger.store import Store
    from costinsights.records import Charge

    Progress = Callable[[str, int, int | None], None]

Format = Literal["parquet", "csv"]

STATE = ".costinsights.json"
MEMORY = "640MB"
RECIPE = f"1 {costinsights.__version__}"
"""How rows are made: where that has changed, every period is written again."""
ROWS_AT_ONCE = 10_000
_MONTH = "strftime({0}, '%Y-%m')"
# A charge changes by a further entry, which has a better basis, a later revision or a later end.
_ENTRY = "hash(charge_id, revision, basis, amount, currency, ended_at)"


class FOCUSOptions(msgspec.Struct, frozen=True):
    """Options of the focus exporter."""

    out: str = ""
    formats: tuple[Format, ...] = ("parquet", "csv")
    ledger: str = ""


class File(msgspec.Struct, frozen=True):
    """A file of a period as it was written."""

    size: int
    rows: int


class Contents(msgspec.Struct, frozen=True):
    """Stands for what a period has: another one means that it has changed."""

    calls: str = ""
    bill: str = ""


class Period(msgspec.Struct):
    """What was written of a billing period, and of what."""

    of: Contents
    files: dict[str, File] = {}


class State(msgspec.Struct):
    """What is in the folder. A file that it does not name is none of ours."""

    recipe: str = ""
    bill: str = ""
    """The slices that the bill was made of."""
    periods: dict[str, Period] = {}


class FOCUSExporter:
    """Writes FOCUS files, a folder a billing period."""

    name = "focus"
    Options = FOCUSOptions

    def __init__(self, options: FOCUSOptions | None = None) -> None:
        self._options = options or FOCUSOptions()

    def export(self, batch: Sequence[Charge]) -> None:
        """Let the program go on: `write` takes what is in the ledger."""

    def shutdown(self) -> None:
        """Nothing is held."""

    def write(self, out: str = "", progress: Progress | None = None) -> str:
        """Write what has changed of the ledger, and say what that was.

        Args:
            out: The folder; that of the options by default.
            progress: Gets what is being done, how much of it, and of how much.

        Raises:
            ExporterUnavailable: nobody has said where to, or DuckDB is missing.
            LedgerError: the ledger or the bill is damaged.
            OSError: the folder cannot be written.
        """
        place = out or self._options.out
        if not place or not self._options.ledger:
            raise ExporterUnavailable("it needs a folder: costinsights export focus --out DIR")
        make_folder(place)
        with _alone(place), suppressed(), open_store(self._options.ledger) as store:
            return _Export(store, place, self._options.formats, progress or _nothing).work()


class _Export:
    """One time that the files are brought up to date."""

    def __init__(
        self, store: Store, place: str, formats: Sequence[Format], progress: Progress
    ) -> None:
        self._store = store
        self._connection = store.connection
        self._place = place
        self._formats = formats
        self._progress = progress
        self._connection.execute(f"SET memory_limit = '{MEMORY}'")
        self._connection.execute("SET preserve_insertion_order = false")
        self._bill = attach(self._connection, store.directory)

    def work(self) -> str:
        """Write every period that has changed; see `FOCUSExporter.write`."""
        state = self._load()
        found = self._contents(state)
        changed = [
            month
            for month, contents in sorted(found.items())
            if not self._is_written(month, state.periods.get(month), contents)
        ]
        relation = self._store.relation()
        if relation is not None and changed:
            name_services(self._connection, relation)
        rows = 0
        for number, month in enumerate(changed):
            self._progress(f"writing {month}", number, len(changed))
            before = state.periods.pop(month, None)
            files = self._write(month)
            rows += max((file.rows for file in files.values()), default=0)
            for name in set(before.files if before else ()) - set(files):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._place, name))
            state.periods[month] = Period(found[month], files)
            self._save(state)
        state.bill = self._slices()
        self._save(state)
        return (
            f"{len(changed):,} of {len(found):,} billing periods written, "
            f"{rows:,} rows, in {self._place}"
        )

    # -- what has changed -----------------------------------------------------------------------

    def _load(self) -> State:
        try:
            with open(os.path.join(self._place, STATE), "rb") as file:
                state = msgspec.json.decode(file.read(), type=State)
        except (FileNotFoundError, msgspec.MsgspecError):
            state = State()
        return state if state.recipe == RECIPE else State(recipe=RECIPE)

    def _save(self, state: State) -> None:
        path = os.path.join(self._place, STATE)
        with _fresh(path) as temporary, open(temporary, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(state), indent=1))

    def _slices(self) -> str:
        paths = sorted(one.path for one in self._bill.slices)
        return blake2b("\n".join(paths).encode(), digest_size=16).hexdigest()

    def _contents(self, state: State) -> dict[str, Contents]:
        """Return what the months have now; the bill is looked at where a slice has changed."""
        calls: dict[str, str] = {}
        relation = self._store.relation()
        if relation is not None:
            month = _MONTH.format("started_at")
            calls = self._digests(f"SELECT {month}, count(*), sum({_ENTRY}) FROM {relation}")
        if state.bill == self._slices():
            bill = {month: period.of.bill for month, period in state.periods.items()}
        else:
            month = _MONTH.format("BillingPeriodStart")
            bill = self._digests(f"SELECT {month}, count(*), sum(hash(b)) FROM bill b")
        months = {*calls, *(month for month, digest in bill.items() if digest)}
        return {month: Contents(calls.get(month, ""), bill.get(month, "")) for month in months}

    def _digests(self, query: str) -> dict[str, str]:
        rows = self._connection.execute(f"{query} GROUP BY 1").fetchall()
        return {month: f"{count}-{total:x}" for month, count, total in rows}

    def _is_written(self, month: str, period: Period | None, contents: Contents) -> bool:
        if period is None or period.of != contents:
            return False
        if set(period.files) != {_name(month, form) for form in self._formats}:
            return False
        return all(
            _size(os.path.join(self._place, name)) == file.size
            for name, file in period.files.items()
        )

    # -- writing --------------------------------------------------------------------------------

    def _write(self, month: str) -> dict[str, File]:
        where = f"{_MONTH.format('started_at')} = {literal(month)}"
        relation = self._store.relation(where)
        parts = [
            billed(
                f"(SELECT * FROM bill WHERE {_MONTH.format('BillingPeriodStart')} = {literal(month)})"
            )
        ]
        if relation is not None:
            self._identify(relation)
            parts.append(calls(relation, "ids"))
        rows = arranged(self._connection, parts)
        found: dict[str, File] = {}
        for form in self._formats:
            name = _name(month, form)
            path = os.path.join(self._place, name)
            make_folder(os.path.dirname(path))
            with _fresh(path) as temporary:
                query, options = _FORMATS[form](rows)
                written = self._connection.execute(
                    f"COPY ({query}) TO {literal(temporary)} ({options})"
                ).fetchone()
                size = os.path.getsize(temporary)
            found[name] = File(size, int(written[0]) if written else 0)
        return found

    def _identify(self, relation: str) -> None:
        """Create the table ``ids``: the ids that charges without a span have in traces."""
        cursor = self._connection.cursor()
        cursor.execute(f"SELECT charge_id FROM {relation}")
        with TemporaryDirectory(prefix="costinsights-") as scratch:
            path = os.path.join(scratch, "ids.csv")
            with open(path, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                while rows := cursor.fetchmany(ROWS_AT_ONCE):
                    writer.writerows((charge_id, *span_ids(charge_id)) for (charge_id,) in rows)
            columns = ", ".join(f"'{name}': 'VARCHAR'" for name in _IDS)
            self._connection.execute(
                "CREATE OR REPLACE TEMP TABLE ids AS SELECT * FROM read_csv("
                f"{literal(path)}, auto_detect = false, header = false, delim = ',', "
                f"quote = '\"', escape = '\"', columns = {{{columns}}})"
            )


_IDS = ("charge_id", "trace_id", "span_id")


def _parquet(rows: str) -> tuple[str, str]:
    return rows, "FORMAT parquet, COMPRESSION zstd"


def _csv(rows: str) -> tuple[str, str]:
    moments = ", ".join(
        f"strftime({quoted(column.name)}, '%Y-%m-%dT%H:%M:%SZ') AS {quoted(column.name)}"
        for column in COLUMNS
        if column.kind == "moment"
    )
    return f"SELECT * REPLACE ({moments}) FROM ({rows})", "FORMAT csv, HEADER"


_FORMATS: dict[Format, Callable[[str], tuple[str, str]]] = {"parquet": _parquet, "csv": _csv}
"""Each gives the query and the options of a COPY."""


def _name(month: str, form: Format) -> str:
    return f"BILLING_PERIOD={month}/focus.{form}"


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None


@contextmanager
def _fresh(path: str) -> Generator[str]:
    """Give the name of a new file, for its owner only, which takes the place of `path` at the end."""
    temporary = f"{path}.new"
    yield temporary
    fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fchmod(fd, 0o600)  # DuckDB makes its files itself, in a folder that is its owner's
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    sync_folder(os.path.dirname(path))


@contextmanager
def _alone(place: str) -> Generator[None]:
    """Keep another export off the same folder, and wait for one that is at it."""
    fd = os.open(os.path.join(place, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _nothing(_what: str, _done: int, _total: int | None) -> None:
    """Nobody watches."""
