"""The table at the end of dbt's output: what each node cost, and what that leaves open.

The dearest come first, and the sums are those of the ledger. An amount that is not known is a dash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costinsights.dbt.adding import Figures, plus
from costinsights.plugins import HISTORIES, find
from costinsights.report.layout import Column, Line, Piece, lay_out, text_of, visible
from costinsights.report.money import UNKNOWN, count, decimals, duration, money, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal

    from costinsights.dbt.adding import Costs, NodeCosts

MOST = 20
"""Nodes that are named; the others are one row."""

# The meters of bytes that an engine has read for a statement, the most telling first.
_SCANNED = ("billed_bytes", "data_scanned_bytes", "processed_bytes", "data_read_bytes")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_BAD = ("error", "fail", "runtime error", "partial success")
# How a terminal is told of a style.
_STYLES = {"bold": "1", "dim": "2", "red": "31"}


class _Row(NamedTuple):
    name: str
    kind: str
    status: str
    figures: Figures
    style: str = ""


def table(costs: Costs, width: int | None = None) -> list[Line]:
    """Return the table as lines in `width` cells; None cuts nothing, for pipes."""
    rows = _rows(costs)
    totals = [_Row(name, "", "", figures, "bold") for name, figures in _totals(costs)]
    lines: list[Line] = [[], [Piece(_title(costs), "bold")], []]
    lines += lay_out(_columns(costs, [*rows, *totals]), width, rule_before=len(rows))
    lines.append([])
    lines += [[Piece(text, "dim")] for text in _advice(costs)]
    return lines


def text(lines: Sequence[Line], *, in_colour: bool) -> str:
    """Return lines as they are printed."""
    if not in_colour:
        return text_of(lines)
    return "".join("".join(map(_coloured, line)).rstrip() + "\n" for line in lines)


def _coloured(piece: Piece) -> str:
    code = _STYLES.get(piece.style)
    return piece.text if code is None else f"\x1b[{code}m{piece.text}\x1b[0m"


def _title(costs: Costs) -> str:
    where = [f"target {costs.target}" if costs.target else "", costs.project or ""]
    words = ", ".join(filter(None, reversed(where)))
    return f"Cost of dbt {visible(costs.command or '')}: {visible(words)}".rstrip(": ")


def _rows(costs: Costs) -> list[_Row]:
    named = costs.nodes if len(costs.nodes) <= MOST + 1 else costs.nodes[:MOST]
    rows = [
        _Row(visible(node.name), _kind(node), node.status or "", node.figures) for node in named
    ]
    rest = costs.nodes[len(named) :]
    if rest:
        bad = sum(node.status in _BAD for node in rest)
        status = f"{bad} failed" if bad else ""
        rows.append(
            _Row(f"{len(rest)} others", "", status, plus(node.figures for node in rest), "dim")
        )
    if costs.other.calls:
        rows.append(_Row("(no node)", "", "", costs.other, "dim"))
    return rows


def _kind(node: NodeCosts) -> str:
    """Return what a node is: how it is materialized says more than that it is a model."""
    if node.resource_type == "model" and node.materialized:
        return visible(node.materialized)
    return visible(node.resource_type or "")


def _totals(costs: Costs) -> list[tuple[str, Figures]]:
    total = costs.total
    found = [("total", total)]
    if total.failed_calls:
        failed = Figures(costs=total.failed_costs, calls=total.failed_calls)
        found.append(("of it failed", failed))
    if total.retried_costs:
        found.append(("of it sent again", Figures(costs=total.retried_costs)))
    return found


def _columns(costs: Costs, rows: Sequence[_Row]) -> list[Column]:
    places = _places(rows)
    whole = costs.total.costs

    def cells(
        write: Callable[[_Row], str], style: Callable[[_Row], str] = lambda _: ""
    ) -> list[Piece]:
        return [Piece(write(row), style(row) or row.style) for row in rows]

    def share(row: _Row) -> str:
        if len(whole) != 1:
            return ""
        ((currency, sum_),) = whole.items()
        part = row.figures.costs.get(currency)
        return UNKNOWN if part is None else percent(part, sum_)

    def bad(row: _Row) -> str:
        return "red" if row.status in _BAD or row.status.endswith("failed") else "dim"

    columns = [
        Column("node", cells(lambda row: row.name), right=False, flexible=True),
        Column("", cells(lambda row: row.kind, lambda _: "dim"), right=False, spare=3),
        Column("cost", cells(lambda row: _cost(row.figures.costs, places))),
    ]
    if len(whole) == 1:
        columns.append(Column("share", cells(share), spare=2))
    columns.append(Column("calls", cells(lambda row: _calls(row.figures)), spare=1))
    columns.append(Column("time", cells(lambda row: _time(row.figures))))
    columns.append(Column("rows", cells(lambda row: _counted(row.figures)), spare=5))
    if _scanned(costs.total):
        columns.append(Column("scanned", cells(lambda row: _bytes(row.figures)), spare=4))
    columns.append(Column("status", cells(lambda row: row.status, bad), right=False))
    return columns


def _places(rows: Sequence[_Row]) -> Mapping[str, int]:
    """Return the decimals of each currency: those that its rows need, the totals left aside."""
    amounts: dict[str, list[Decimal | None]] = {}
    for row in rows:
        if row.style != "bold":
            for currency, amount in row.figures.costs.items():
                amounts.setdefault(currency, []).append(amount)
    return {currency: decimals(found) for currency, found in amounts.items()}


def _cost(costs: Mapping[str, Decimal], places: Mapping[str, int]) -> str:
    written = [money(costs[name], name, places[name]) for name in sorted(costs)]
    return " + ".join(written) or UNKNOWN


def _calls(figures: Figures) -> str:
    return count(figures.calls) if figures.calls else ""


def _time(figures: Figures) -> str:
    return duration(figures.duration_ns) if figures.duration_ns else ""


def _counted(figures: Figures) -> str:
    return count(figures.rows) if figures.duration_ns else ""


def _scanned(figures: Figures) -> int | float | None:
    return next((figures.usage[meter] for meter in _SCANNED if meter in figures.usage), None)


def _bytes(figures: Figures) -> str:
    size = _scanned(figures)
    if size is None:
        return UNKNOWN if figures.duration_ns else ""
    power = 0
    while size >= 999.5 and power < len(_UNITS) - 1:
        size, power = size / 1000, power + 1
    digits = 1 if power and size < 99.95 else 0
    return f"{size:.{digits}f} {_UNITS[power]}"


def _advice(costs: Costs) -> list[str]:
    """Say what the figures leave open, and what to do next."""
    total = costs.total
    said = _unpriced(costs) if total.unpriced_calls else []
    bases = [f"{basis} {number:,}" for basis, number in total.bases.items() if basis != "unknown"]
    if bases:
        said.append(f"How the amounts are known: {', '.join(bases)} of {total.calls:,} statements.")
    said.append("More: costinsights report --by dbt.node, and costs.json beside run_results.json.")
    return said


def _unpriced(costs: Costs) -> list[str]:
    total = costs.total
    systems = sorted(costs.unpriced)
    what = (
        f"{total.unpriced_calls:,} of {total.calls:,} statements have no price, and are in no sum."
    )
    if total.unpriced_calls == total.calls:
        what = "No statement has a price yet."
    hours = f"what an hour of {' and '.join(systems)} costs (docs/prices.md)."
    histories = find(HISTORIES)
    return [
        f"{what} Say in [[capacity]] of costinsights.toml {hours}",
        *(
            f"What {system} itself knows of them: costinsights settle {system}"
            for system in systems
            if system in histories
        ),
    ]
