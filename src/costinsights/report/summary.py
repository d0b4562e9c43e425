"""Makes a report of a ledger: what each asset, job, team or query cost, and how sure that is.

The figures come from the views in ``views.sql``; here they are put in order, cut to the wanted
length without losing anything, and held against the time before.
"""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Context, Decimal, Inexact
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from costinsights.guard import suppressed
from costinsights.ledger.store import open_store
from costinsights.ledger.writer import LedgerError
from costinsights.report.period import before
from costinsights.report.stale import stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from duckdb import DuckDBPyConnection

    from costinsights.ledger.store import Period, Store
    from costinsights.report.stale import Stale

Kind = Literal["item", "other", "total"]

DIMENSIONS = ("asset", "job", "team", "system", "query")
LABEL = "label:"

# Labels that are asked for so often that they go without ``label:``. The label has all tags of a
# node, and a set of tags is one item: what a node costs stands in one row, whatever its tags.
DBT = {"dbt.node": "dbt.node_id", "dbt.tag": "dbt.tags", "dbt.owner": "dbt.owner"}

# Python's own context rounds at 28 digits; here a sum is exact or an error.
EXACT = Context(prec=100, traps=[Inexact])


class Figures(NamedTuple):
    """Sums over calls. `amount` is of those `priced`, None when none is."""

    calls: int = 0
    priced: int = 0
    errors: int = 0
    amount: Decimal | None = None
    duration_ns: int = 0
    rows: int | None = None

    def plus(self, other: Figures) -> Figures:
        """Return the sum of two; unknown and known is what is known."""
        return Figures(
            self.calls + other.calls,
            self.priced + other.priced,
            self.errors + other.errors,
            _sum(self.amount, other.amount),
            self.duration_ns + other.duration_ns,
            _count(self.rows, other.rows),
        )


class Row(NamedTuple):
    """One line: an item, the sum of `others` that are not named, or a total.

    `item` is None for calls that are nobody's. `currency` is None where no call has a price.
    """

    item: str | None
    detail: str | None
    currency: str | None
    now: Figures
    previous: Figures | None = None
    others: int = 0
    kind: Kind = "item"

    @property
    def change(self) -> Decimal | None:
        """What the item costs more than before; None where there is nothing to compare."""
        if self.previous is None or (self.now.amount is None and self.previous.amount is None):
            return None
        return EXACT.subtract(self.now.amount or Decimal(0), self.previous.amount or Decimal(0))

    @property
    def status(self) -> str:
        """``new`` when there were no calls before, ``gone`` when there are none now."""
        if self.previous is None or (self.previous.calls and self.now.calls):
            return ""
        return "new" if self.now.calls else "gone"


class Report(NamedTuple):
    """What `make` gives. Every call of the period is in exactly one of `rows`."""

    by: str
    ledger: str
    period: Period
    compared_with: Period | None
    made_at: datetime
    rows: tuple[Row, ...]
    totals: tuple[Row, ...]
    """One a currency, and one for calls without a price where there is nothing else."""
    calls: int
    priced: int
    bases: tuple[tuple[str, int], ...]
    """How many calls have each basis, most trusted first."""
    newest: str | None
    """When the last call in the whole ledger ended, RFC 3339."""
    torn: int
    lost: dict[str, int]
    expired_charges: int
    expired_until: str | None
    stale: tuple[Stale, ...] = ()
    """Price lines of the period's calls that are more than a year old."""


class _Line(NamedTuple):
    """A row of one of the views ``cost_by_…``."""

    period: int
    item: str | None
    detail: str | None
    currency: str | None
    basis: str
    calls: int
    errors: int
    amount: Decimal | None
    duration_ns: int
    rows: int | None


def make(
    ledger: str,
    by: str,
    period: Period,
    *,
    compare: bool = False,
    limit: int | None = None,
    now: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read the ledger at `ledger` and report its cost by `by` in `period`.

    Args:
        ledger: The ledger's directory, live or compacted.
        by: One of `DIMENSIONS` or of `DBT`, or ``label:`` and the name of a label.
        period: Which calls, by when they ended.
        compare: Add the time of the same length before `period`.
        limit: How many items to name for each currency; the others are one row.
        now: The present, naive UTC.
        progress: Gets the bytes read and those to read.

    Raises:
        ValueError: `by` is nothing that costs can be reported by, or `period` cannot be compared.
        LedgerError: the ledger is damaged or of a newer version.
        ImportError: DuckDB is not installed.
    """
    view, label = _view(by)
    at = now or datetime.now(timezone.utc).replace(tzinfo=None)
    previous = before(period, at) if compare else None
    with open_store(ledger, progress=progress) as store:
        store.post(period, previous, totals=label is None)
        lines = _read(store, view, label)
        newest = store.newest()
        old = stale(store, period, at.date())
        manifest = store.manifest
        torn, lost = store.torn, store.lost
    rows = _rows(lines, compare=compare)
    present = [line for line in lines if line.period == 0]
    bases: dict[str, int] = {}
    for line in present:
        bases[line.basis] = bases.get(line.basis, 0) + line.calls
    return Report(
        by=by,
        ledger=ledger,
        period=period,
        compared_with=previous,
        made_at=at,
        rows=tuple(_limited(rows, limit)),
        totals=tuple(_totals(rows)),
        calls=sum(line.calls for line in present),
        priced=sum(line.calls for line in present if line.currency is not None),
        bases=tuple(sorted(((b, n) for b, n in bases.items() if n), key=_trust)),
        newest=newest,
        torn=torn,
        lost=lost,
        expired_charges=manifest.expired_charges,
        expired_until=manifest.expired_until,
        stale=old,
    )


def define_views(connection: DuckDBPyConnection, label: str | None = None) -> None:
    """Create the views of ``views.sql`` over the ``postings`` of a `Store`."""
    from importlib.resources import files

    with suppressed():
        connection.execute("CREATE OR REPLACE TABLE asked (label VARCHAR)")
        connection.execute("INSERT INTO asked VALUES (?)", [label])
        connection.execute(
            files("costinsights.report").joinpath("views.sql").read_text(encoding="utf-8")
        )


def _view(by: str) -> tuple[str, str | None]:
    if by in DIMENSIONS:
        return f"cost_by_{by}", None
    if label := label_of(by):
        return "cost_by_label", label
    raise ValueError(not_by(by))


def label_of(by: str) -> str | None:
    """Return the label that costs are to be reported by; None when `by` means no label."""
    return DBT.get(by) or (by.removeprefix(LABEL) if by.startswith(LABEL) else "") or None


def not_by(by: str) -> str:
    """Say what costs are reported by, to who asked for something else."""
    known = ", ".join((*DIMENSIONS, *DBT))
    return f"costs are reported by {known} or label:NAME, not by {by!r}"


def _read(store: Store, view: str, label: str | None) -> list[_Line]:
    import duckdb

    columns = ", ".join(f'"{name}"' for name in _Line._fields)
    try:
        define_views(store.connection, label)
        with suppressed():
            found: list[tuple[Any, ...]] = store.connection.execute(
                f"SELECT {columns} FROM {view}"
            ).fetchall()
    except duckdb.Error as error:
        raise LedgerError(f"{store.directory}: {str(error).strip().splitlines()[0]}") from error
    # A reversal and the figure that it takes back leave nothing.
    return [line for line in map(_Line._make, found) if line.calls or line.amount]


def _rows(lines: Iterable[_Line], *, compare: bool) -> list[Row]:
    """Add the lines up to one row an item and currency, dearest first."""
    sums: dict[tuple[str | None, str | None], dict[str | None, list[Figures]]] = {}
    for line in lines:
        currencies = sums.setdefault((line.item or None, line.detail), {})
        pair = currencies.setdefault(line.currency, [Figures(), Figures()])
        priced = line.calls if line.currency is not None else 0
        pair[line.period] = pair[line.period].plus(
            Figures(line.calls, priced, line.errors, line.amount, line.duration_ns, line.rows)
        )
    rows: list[Row] = []
    for (item, detail), currencies in sums.items():
        if None in currencies and len(currencies) == 2:
            # Calls without a price stand with their item's others, where that is one row.
            unpriced = currencies.pop(None)
            (pair,) = currencies.values()
            pair[:] = [known.plus(unknown) for known, unknown in zip(pair, unpriced, strict=True)]
        for currency, (now, previous) in currencies.items():
            rows.append(Row(item, detail, currency, now, previous if compare else None))
    return sorted(rows, key=_order)


def _order(row: Row) -> tuple[bool, str, bool, Decimal, str, str]:
    amount = row.now.amount
    return (
        row.currency is None,
        row.currency or "",
        amount is None,
        (amount or Decimal(0)).copy_negate(),
        row.item or "",
        row.detail or "",
    )


def _trust(basis: tuple[str, int]) -> tuple[int, str]:
    from costinsights.records import BASIS_RANK

    ranks: dict[str, int] = {str(name): rank for name, rank in BASIS_RANK.items()}
    return -ranks.get(basis[0], 0), basis[0]


def _limited(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """Keep the first `limit` rows of each currency, and add the others up to one."""
    if limit is None:
        return list(rows)
    kept: list[Row] = []
    for currency in dict.fromkeys(row.currency for row in rows):
        same = [row for row in rows if row.currency == currency]
        kept += same[:limit]
        if others := same[limit:]:
            kept.append(_added(others, "other"))
    return kept


def _totals(rows: Sequence[Row]) -> list[Row]:
    currencies = dict.fromkeys(row.currency for row in rows)
    return [_added([row for row in rows if row.currency == c], "total") for c in currencies]


def _added(rows: Sequence[Row], kind: Kind) -> Row:
    now, previous = Figures(), Figures()
    for row in rows:
        now = now.plus(row.now)
        previous = previous.plus(row.previous or Figures())
    first = rows[0]
    compared = previous if first.previous is not None else None
    return Row(None, None, first.currency, now, compared, len(rows), kind)


def _sum(left: Decimal | None, right: Decimal | None) -> Decimal | None:
    return right if left is None else left if right is None else EXACT.add(left, right)


def _count(left: int | None, right: int | None) -> int | None:
    return right if left is None else left if right is None else left + right
