"""Reads what is compared: a ``costs.json`` that a dbt run left, or a run in the ledger.

A ``costs.json`` is version 1 of what docs/dbt.md describes. In a ledger a run is found by its
labels, ``run=…`` or ``branch=main``; of a label that many runs share, the latest run is meant.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from costinsights.guard import suppressed
from costinsights.ledger.columns import LABELS, quoted
from costinsights.ledger.live import literal
from costinsights.ledger.store import open_store
from costinsights.ledger.writer import LedgerError
from costinsights.report.diff import Item, Side, Work, added
from costinsights.report.summary import DBT, DIMENSIONS, label_of, not_by

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from costinsights.ledger.store import Store

VERSION = 1
"""Of costs.json: it counts up when a field changes its meaning or goes."""

FILE = "costs.json"

FORMS = "write the path of a costs.json, or LABEL=VALUE: run=…, dbt.invocation_id=…, branch=main"

# What tells one run from another; where a call has several of them, the widest.
_RUNS = ("run", "dbt.invocation_id")
# Labels whose calls belong together: who names one of them means all of its calls.
_WHOLE = frozenset((*_RUNS, "root_run", "backfill"))

_SELECTOR = re.compile(r"[\w.\-/]+=.*", re.DOTALL)
_NEXT = re.compile(r",(?=[\w.\-/]+=)")


class SideError(ValueError):
    """What was asked for is not there; the text says what can be asked for."""


class CostsError(ValueError):
    """A file is no costs.json, or one that this version cannot read."""


def is_file(name: str) -> bool:
    """Tell whether the user means a file with `name`, and not a run in the ledger.

    Raises:
        SideError: it can be neither.
    """
    if os.path.exists(name):
        return True
    if _SELECTOR.fullmatch(name):
        return False
    raise SideError(f"there is no file {name!r}: {FORMS}")


def usual_dimension(names: tuple[str, str]) -> str:
    """Return what runs named like these are compared by when nobody says."""
    dbt = any(is_file(name) or name.startswith("dbt.") for name in names)
    return "dbt.node" if dbt else "asset"


# -- costs.json ------------------------------------------------------------------------------------

# Digits of which the sums cannot be too long: what a ledger's column holds (DECIMAL(38,15)).
_Amount = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,23}(\.[0-9]{1,30})?$")]
_Count = Annotated[int, msgspec.Meta(ge=0)]


class _Cost(msgspec.Struct, frozen=True):
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
    amount: _Amount


class _Figures(msgspec.Struct, frozen=True, kw_only=True):
    costs: tuple[_Cost, ...] = ()
    calls: _Count = 0
    unpriced_calls: _Count = 0
    failed_calls: _Count = 0
    duration_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e10)] = 0.0
    rows: int | None = None
    usage: dict[str, int | float | str] = {}
    bases: dict[str, _Count] = {}


class _Node(_Figures, frozen=True, kw_only=True):
    unique_id: str
    tags: tuple[str, ...] = ()
    owner: str | None = None
    team: str | None = None


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    nodes: tuple[_Node, ...]
    totals: tuple[_Cost, ...]
    other: _Figures = _Figures()
    invocation_id: str | None = None
    command: str | None = None
    target: str | None = None
    project: str | None = None
    branch: str | None = None
    commit: str | None = None
    started_at: str | None = None


class _Version(msgspec.Struct, frozen=True):
    version: int


_TIME = "time_ns"
# What fits DECIMAL(38, 9), and below what Python's own 28 digits can hold.
_SMALLEST = Decimal("1e-9")
_TOO_MUCH = Decimal("1e18")

_ITEMS: Mapping[str, Callable[[_Node], str | None]] = {
    "dbt.node": lambda node: node.unique_id,
    "dbt.tag": lambda node: ",".join(sorted(node.tags)) or None,
    "dbt.owner": lambda node: node.owner,
    "team": lambda node: node.team,
}


def read_costs(path: str, by: str) -> Side:
    """Read a ``costs.json``, or the one in the folder `path`.

    Raises:
        SideError: there is none, or it does not know `by`.
        CostsError: it is damaged, or of another version.
    """
    item_of = _ITEMS.get(by)
    if item_of is None:
        raise SideError(f"a costs.json knows {', '.join(_ITEMS)}, not {by!r}")
    found = os.path.join(path, FILE) if os.path.isdir(path) else path
    try:
        with open(found, "rb") as file:
            content = file.read()
    except OSError as error:
        raise SideError(f"{found}: {error.strerror or error}") from None
    document = _document(found, content)
    items: dict[str | None, Item] = {}
    for node in document.nodes:
        item = item_of(node) or None
        items[item] = items.get(item, Item()).plus(_item(node))
    items[None] = items.get(None, Item()).plus(_item(document.other))
    said: dict[str, Decimal] = _sums(document.totals)
    total: dict[str, Decimal] = {}
    for figures in items.values():
        total = added(total, figures.costs)
    if _known(said) != _known(total):
        raise CostsError(f"{found} is damaged: its nodes do not add up to its total")
    invocation = document.invocation_id
    identity = ("dbt.invocation_id", invocation) if invocation else None
    return Side(path, _about(document), items, identity)


def _document(path: str, content: bytes) -> _Document:
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version != VERSION:
            raise CostsError(
                f"{path} is of version {version}, and this costinsights reads version {VERSION}: "
                f"{'update it' if version > VERSION else 'make the file anew'}"
            )
        return msgspec.json.decode(content, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CostsError(f"{path} is no costs.json: {error}") from None


def _item(figures: _Figures) -> Item:
    usage = {
        meter: quantity
        for meter, figure in figures.usage.items()
        if meter != _TIME and (quantity := _quantity(figure)) is not None
    }
    work = Work(
        calls=figures.calls,
        unpriced=figures.unpriced_calls,
        errors=figures.failed_calls,
        duration_ns=round(Decimal(str(figures.duration_seconds)).scaleb(9)),
        rows=figures.rows,
        usage=usage,
        bases=figures.bases,
    )
    return Item(_sums(figures.costs), work)


def _quantity(figure: float | str) -> Decimal | None:
    """Return what a meter says, with as many decimals as a ledger's are added up with."""
    quantity = None if isinstance(figure, str) else Decimal(str(figure))
    if quantity is None or abs(quantity) >= _TOO_MUCH:
        return None
    return quantity.quantize(_SMALLEST)


def _sums(costs: tuple[_Cost, ...]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for cost in costs:
        sums = added(sums, {cost.currency: Decimal(cost.amount)})
    return sums


def _known(costs: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {currency: amount for currency, amount in costs.items() if amount}


def _about(document: _Document) -> str:
    words = [
        f"dbt {document.command}" if document.command else "dbt",
        f"of {document.project}" if document.project else "",
        f"to {document.target}" if document.target else "",
    ]
    parts = [
        " ".join(word for word in words if word),
        f"{document.started_at[:16].replace('T', ' ')} UTC" if document.started_at else "",
        f"branch {document.branch}" if document.branch else "",
        f"commit {document.commit[:8]}" if document.commit else "",
        f"invocation {document.invocation_id}" if document.invocation_id else "",
    ]
    return ", ".join(part for part in parts if part)


# -- the ledger ------------------------------------------------------------------------------------


class _Run(NamedTuple):
    label: str
    value: str
    others: int
    """How many earlier runs the selector fits."""


class Runs:
    """The runs of one ledger, at one moment: two that are compared are of the same one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def side(self, selector: str, by: str) -> Side:
        """Return what the run that `selector` means cost by `by`.

        Raises:
            SideError: no call of the ledger is of such a run, or `by` is not known.
            LedgerError: the ledger is damaged.
        """
        import duckdb

        item = _item_of(by)
        try:
            with suppressed():
                return self._side(selector, item)
        except duckdb.Error as error:
            said = str(error).strip().splitlines()[0]
            raise LedgerError(f"{self._store.directory}: {said}") from error

    def _side(self, selector: str, item: str) -> Side:
        given = dict(_pair(part) for part in _NEXT.split(selector))
        wanted = {name: self._whole(name, value) for name, value in given.items()}
        where = " AND ".join(f"{_label(name)} = {literal(value)}" for name, value in wanted.items())
        run = None if _WHOLE & wanted.keys() else self._latest(where)
        if run is not None:
            where += f" AND {_label(run.label)} = {literal(run.value)}"
        calls, since, until = self._chosen(where, item)
        if not calls:
            raise SideError(
                f"no call in the ledger has {selector}: costinsights report --by "
                f"label:{next(iter(wanted))} lists what there is"
            )
        said = [f"{name} {value}" for name, value in wanted.items() if value != given[name]]
        identity = next(((name, wanted[name]) for name in _RUNS if name in wanted), None)
        if run is not None:
            identity = (run.label, run.value)
            latest = f"the latest of {run.others + 1:,}" if run.others else "the only one"
            said.append(f"{run.label} {run.value} ({latest})")
        said.append(f"{since if since == until else f'{since} to {until}'} UTC")
        said.append(f"{calls:,} call{'s' if calls > 1 else ''}")
        return Side(selector, ", ".join(said), self._items(), identity)

    def _whole(self, name: str, value: str) -> str:
        """Return the id of which the user gave the beginning; what is no id stays as it is."""
        label = _label(name)
        relation = self._store.relation(f"starts_with({label}, {literal(value)})")
        if name not in _WHOLE or relation is None:
            return value
        found = self._rows(f"SELECT DISTINCT {label} AS id FROM {relation} ORDER BY id LIMIT 3")
        ids = [str(row[0]) for row in found]
        if len(ids) < 2 or value in ids:
            return value if value in ids or not ids else ids[0]
        raise SideError(f"{name}={value} is the beginning of several: {', '.join(ids)}")

    def _latest(self, where: str) -> _Run | None:
        """Return the run of the latest call; None where no call is of any run."""
        relation = self._store.relation(where)
        if relation is None:
            return None
        own = ", ".join(f"{_label(name)} AS {quoted(name)}" for name in _RUNS)
        label = "CASE " + " ".join(f"WHEN {quoted(n)} IS NOT NULL THEN {literal(n)}" for n in _RUNS)
        value = f"coalesce({', '.join(quoted(name) for name in _RUNS)})"
        found = self._rows(f"""
            SELECT label, value, count(*) OVER () - 1
            FROM (
                SELECT {label} END AS label, {value} AS value, max(ended_at) AS latest
                FROM (SELECT {own}, ended_at FROM {relation})
                GROUP BY ALL
            )
            WHERE value IS NOT NULL
            ORDER BY latest DESC, value
            LIMIT 1
        """)
        return _Run(*found[0]) if found else None

    def _chosen(self, where: str, item: str) -> tuple[int, str, str]:
        """Make the table ``chosen`` of the calls that are meant; say how many, and when."""
        relation = self._store.relation(where)
        if relation is None:
            return 0, "", ""
        self._store.connection.execute(f"""
            CREATE OR REPLACE TEMP TABLE chosen AS
            SELECT
                nullif({item}, '') AS item, currency, basis, calls, errors, amount, duration_ns,
                "rows", capacity_seconds, meters, started_at, ended_at
            FROM {relation}
        """)
        moment = "coalesce(strftime({0}, '%Y-%m-%d %H:%M'), '')"
        calls, since, until = self._rows(f"""
            SELECT
                coalesce(sum(calls), 0), {moment.format("min(started_at)")},
                {moment.format("max(ended_at)")}
            FROM chosen
        """)[0]
        return int(calls), since, until

    def _items(self) -> dict[str | None, Item]:
        items: dict[str | None, Item] = {}

        def add(name: str | None, item: Item) -> None:
            items[name] = items.get(name, Item()).plus(item)

        for name, currency, basis, calls, errors, amount, duration, rows in self._rows("""
            SELECT
                item, currency, basis, sum(calls), sum(errors), sum(amount), sum(duration_ns),
                sum("rows")
            FROM chosen
            GROUP BY item, currency, basis
        """):
            work = Work(
                calls=int(calls),
                unpriced=int(calls) if currency is None else 0,
                errors=int(errors),
                duration_ns=int(duration),
                rows=None if rows is None else int(rows),
                bases={basis: int(calls)},
            )
            add(name, Item({currency: amount} if currency is not None else {}, work))
        for name, meter, figure in self._rows("""
            WITH figures AS (
                SELECT item, unnest(map_entries(CAST(CAST(meters AS JSON) AS
                    MAP(VARCHAR, VARCHAR)))) AS figure
                FROM chosen
                WHERE meters IS NOT NULL
            )
            SELECT item, figure.key AS meter, sum(TRY_CAST(figure.value AS DECIMAL(38, 9))) AS total
            FROM figures
            GROUP BY item, meter
            HAVING total IS NOT NULL
            UNION ALL
            SELECT item, 'capacity_seconds', sum(capacity_seconds)
            FROM chosen
            WHERE capacity_seconds IS NOT NULL
            GROUP BY item
        """):
            add(name, Item(work=Work(usage={meter: figure})))
        return items

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._store.connection.execute(query).fetchall()


@contextmanager
def open_runs(
    ledger: str, *, progress: Callable[[int, int], None] | None = None
) -> Generator[Runs]:
    """Open the ledger at `ledger`, live or compacted.

    Raises:
        LedgerError: the ledger is damaged or of a newer version.
        ImportError: DuckDB is not installed.
    """
    with open_store(ledger, progress=progress) as store:
        yield Runs(store)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not value or not _SELECTOR.fullmatch(text):
        raise SideError(f"{text!r} does not say which run is meant: {FORMS}")
    return DBT.get(name, name), value


def _label(name: str) -> str:
    """Return the SQL expression for a label of a call."""
    if name in LABELS:
        return quoted(name)
    return f"CAST(CAST(labels AS JSON) AS MAP(VARCHAR, VARCHAR))[{literal(name)}]"


def _item_of(by: str) -> str:
    """Return the SQL expression for the item that a call belongs to."""
    if label := label_of(by):
        return _label(label)
    if by == "query":  # its summary is for people; the fingerprint tells two of them apart
        return "summary || ' (' || fingerprint[:8] || ')'"
    if by in DIMENSIONS:
        return quoted(by)
    raise SideError(not_by(by))
