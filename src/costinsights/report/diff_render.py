"""Writes a comparison of two runs: a table for people, Markdown for a pull request, CSV and JSON.

Tables round, and say so by how they look; CSV and JSON have every digit, costs as text.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from costinsights.report.diff import Work, reasons
from costinsights.report.layout import Column, Line, Piece, lay_out, text_of, visible
from costinsights.report.money import UNKNOWN, count, decimals, duration, exact, money, percent
from costinsights.report.render import escaped, harmless, heading, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from costinsights.report.diff import Diff, Money, Reason, Row, Side

VERSION = 1
"""Counts up when a field of the JSON changes its meaning or goes."""

FORMATS = ("table", "json", "csv", "md")

_ARROW = "→"
_PLAIN_REASONS = ("calls", "time", "price")


def render(diff: Diff, style: str) -> str:
    """Return the comparison in one of `FORMATS`; a table without colour, as wide as it needs."""
    if style == "table":
        return text_of(table(diff, None))
    return {"md": as_markdown, "json": as_json, "csv": as_csv}[style](diff)


# -- for people ------------------------------------------------------------------------------------


def table(diff: Diff, width: int | None) -> list[Line]:
    """Return the comparison as lines in `width` cells; None cuts nothing, for pipes."""
    lines: list[Line] = [[Piece(_headline(diff), "bold")]]
    lines += [[Piece(text, "dim")] for text in _sides(diff)]
    lines.append([])
    if diff.totals:
        lines += lay_out(_columns(diff), width, rule_before=len(diff.rows))
    footer = _footer(diff)
    lines += [[], *([Piece(text, "dim")] for text in footer)] if footer else []
    return lines


def as_markdown(diff: Diff) -> str:
    """Return the comparison for a pull request: what it comes to, then a table."""
    columns = _columns(diff)
    lines = [f"**{escaped(_headline(diff))}**", ""]
    lines += [f"{escaped(text)}  " for text in _sides(diff)]
    if diff.totals:
        lines.append("")
        lines.append("| " + " | ".join(escaped(column.name) for column in columns) + " |")
        lines.append("|" + "|".join("---:" if column.right else ":---" for column in columns) + "|")
    for number in range(len(columns[0].cells)):
        texts = [escaped(column.cells[number].text) for column in columns]
        if number >= len(diff.rows):
            texts = [f"**{text}**" if text else "" for text in texts]
        lines.append("| " + " | ".join(texts) + " |")
    lines += ["", *(f"{escaped(text)}  " for text in _footer(diff))]
    return "\n".join(lines).rstrip() + "\n"


def _headline(diff: Diff) -> str:
    """Say in one line what it comes to."""
    if not diff.totals:
        return "Cost: neither run has a call"
    places = _places(diff)
    said: list[str] = []
    for total in diff.totals:
        if total.currency is None:
            return "Cost: unknown, no call has a price"
        was, now, change = _amounts(total.money, total.currency, places[total.currency])
        text = f"{was} {_ARROW} {now}"
        if total.money.change is not None:
            share = relative(total.money)
            text += f" ({change}{f', {share}' if share else ''}{_without(total)})"
        said.append(text)
    return f"Cost: {'; '.join(said)}"


def _without(total: Row) -> str:
    if not total.one_sided:
        return ""
    return f"; without {total.one_sided:,} item{'s' * (total.one_sided > 1)} of unknown change"


def _sides(diff: Diff) -> list[str]:
    sides = [
        f"{word}: {visible(', '.join(filter(None, (side.name, side.about))))}"
        for word, side in (("base", diff.base), ("head", diff.head))
    ]
    if diff.base.identity is not None and diff.base.identity == diff.head.identity:
        sides.append("Both are the same run.")
    return sides


def _columns(diff: Diff) -> list[Column]:
    rows = [*diff.rows, *diff.totals]
    shown = len(diff.rows)
    places = _places(diff)
    amounts = [_amounts(row.money, row.currency, places[row.currency], row.status) for row in rows]

    def cells(texts: Sequence[str], style: Callable[[Row], str] = lambda _: "") -> list[Piece]:
        pairs = zip(rows, texts, strict=True)
        return [
            Piece(text, style(row) if number < shown else "bold")
            for number, (row, text) in enumerate(pairs)
        ]

    works = [_works(row, diff) for row in rows]
    columns = [
        Column(
            heading(diff.by),
            cells([_name(row, diff) for row in rows], _dim_unless_named),
            right=False,
            flexible=True,
        ),
        Column("base", cells([was for was, _, _ in amounts])),
        Column("head", cells([now for _, now, _ in amounts])),
        Column("change", cells([change for _, _, change in amounts], _colour)),
        Column("", cells([row.status or relative(row.money) for row in rows], _colour), spare=1),
        Column("calls", cells([_both(work, lambda one: count(one.calls)) for work in works])),
        Column(
            "time",
            cells([_both(work, lambda one: duration(one.duration_ns)) for work in works]),
            spare=4,
        ),
    ]
    if any(work.errors for work in diff.work):
        errors = [_both(work, lambda one: count(one.errors)) for work in works]
        columns.append(Column("errors", cells(errors), spare=3))
    why = ["; ".join(map(_reason, reasons(row))) if row.kind == "item" else "" for row in rows]
    if any(why):
        columns.append(Column("why", cells(why), right=False, spare=5))
    return columns


def _works(row: Row, diff: Diff) -> list[Work]:
    """Return what was done: in the base and in the head, or in the one that the item is in.

    It is empty where another row says it.
    """
    if row.kind == "total":
        return list(diff.work) if len(diff.totals) == 1 else []
    if row.base is None or row.head is None:
        return []
    return {"new": [row.head], "gone": [row.base]}.get(row.status, [row.base, row.head])


def _both(works: Sequence[Work], write: Callable[[Work], str]) -> str:
    return f" {_ARROW} ".join(dict.fromkeys(map(write, works)))


def _amounts(
    amounts: Money, currency: str | None, places: int, status: str = ""
) -> tuple[str, str, str]:
    """Write the base, the head and the change; nothing for a side that the item is not on."""
    return (
        "" if status == "new" else money(amounts.base, currency, places),
        "" if status == "gone" else money(amounts.head, currency, places),
        money(amounts.change, currency, places, sign="+" if amounts.change else ""),
    )


def relative(amounts: Money) -> str:
    """Write the change as a share of what it was: ``+12.5 %``; nothing where it was nothing."""
    if not amounts.change or not amounts.compared:
        return ""
    share = percent(amounts.change, abs(amounts.compared))
    return share if amounts.change < 0 else f"+{share}"


def _reason(reason: Reason) -> str:
    """Write a reason: ``calls +50 %``."""
    name = reason.name if reason.name in _PLAIN_REASONS else visible(reason.name)
    if not reason.base and not reason.head:
        return f"another {name}"
    if not reason.base:
        return f"{name} new"
    share = percent(reason.head - reason.base, abs(reason.base))
    return f"{name} {share if reason.head < reason.base else f'+{share}'}"


def _name(row: Row, diff: Diff) -> str:
    if row.kind == "total":
        return f"total {row.currency}" if row.currency else "total"
    if row.kind == "other":
        return f"other ({row.items:,})"
    if row.kind == "unchanged":
        return f"unchanged ({row.items:,})"
    return name_of(row.item, diff.by)


def _dim_unless_named(row: Row) -> str:
    return "" if row.kind == "item" and row.item is not None else "dim"


def _colour(row: Row) -> str:
    change = row.money.change
    return "" if not change else "red" if change > 0 else "green"


def _places(diff: Diff) -> dict[str | None, int]:
    """Return the decimals of each currency's columns: those of its rows, not of its total."""
    amounts: dict[str | None, list[Decimal | None]] = {}
    for row in (*diff.rows, *diff.totals):
        listed = amounts.setdefault(row.currency, [])
        if row.kind != "total":
            listed += row.money[:3]
    return {currency: decimals(listed) for currency, listed in amounts.items()}


def _footer(diff: Diff) -> list[str]:
    lines: list[str] = []
    for word, work in zip(("base", "head"), diff.work, strict=True):
        if work.unpriced:
            lines.append(
                f"{count(work.unpriced)} of {count(work.calls)} calls of the {word} have no price: "
                "what they cost is in no figure."
            )
    if diff.one_sided:
        many = "item has" if diff.one_sided == 1 else "items have"
        lines.append(
            f"{count(diff.one_sided)} {many} a known cost in one run only: "
            f"the difference is unknown ({UNKNOWN}), and not part of the change."
        )
    bases = [_bases(work) for work in diff.work]
    if bases[0] != bases[1] and all(bases):
        lines.append(f"By basis: {bases[0]} {_ARROW} {bases[1]}.")
    return lines


def _bases(work: Work) -> str:
    """Say how the costs of a side are known, where they are."""
    priced = {basis: n for basis, n in work.bases.items() if n and basis != "unknown"}
    whole = sum(priced.values())
    return ", ".join(f"{percent(n, whole)} {visible(basis)}" for basis, n in sorted(priced.items()))


# -- for programs ----------------------------------------------------------------------------------

_CSV = (
    "kind item status currency base_cost head_cost change base_calls head_calls "
    "base_unpriced_calls head_unpriced_calls base_errors head_errors base_time_ns head_time_ns "
    "base_rows head_rows"
).split()


def as_csv(diff: Diff) -> str:
    """Return the rows as CSV; no cell of it is taken for a formula by a spreadsheet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([diff.by if name == "item" else name for name in _CSV])
    for row in diff.rows:
        record: dict[str, object] = {
            "kind": row.kind,
            "item": row.item or _name(row, diff),
            "status": row.status,
            "currency": row.currency,
            "base_cost": exact(row.money.base),
            "head_cost": exact(row.money.head),
            "change": exact(row.money.change),
        }
        for side, work in (("base", row.base), ("head", row.head)):
            if work is not None:
                record |= {f"{side}_{name}": value for name, value in _figures(work).items()}
        writer.writerow([harmless(record.get(name)) for name in _CSV])
    return out.getvalue()


def as_json(diff: Diff) -> str:
    """Return all figures as JSON, costs as decimal text."""
    document = {
        "version": VERSION,
        "by": diff.by,
        "base": _side(diff.base, diff.work[0]),
        "head": _side(diff.head, diff.work[1]),
        "rows": [_record(row) for row in diff.rows],
        "totals": [_record(row) for row in diff.totals],
        "one_sided_items": diff.one_sided,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _side(side: Side, work: Work) -> dict[str, Any]:
    identity = None if side.identity is None else {side.identity[0]: side.identity[1]}
    return {
        "name": side.name,
        "about": side.about,
        "run": identity,
        **_figures(work),
        "by_basis": dict(work.bases),
    }


def _record(row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {"kind": row.kind}
    if row.kind == "item":
        record |= {"item": row.item, "status": row.status or None}
    else:
        record["items"] = row.items
    record |= {
        "currency": row.currency,
        "base_cost": exact(row.money.base),
        "head_cost": exact(row.money.head),
        "change": exact(row.money.change),
    }
    if row.kind == "total":
        return record
    if row.base is not None and row.head is not None:
        usage = {**row.base.usage, **row.head.usage}
        record["base"] = _figures(row.base)
        record["head"] = _figures(row.head)
        record["usage"] = {
            meter: {
                "base": exact(row.base.usage.get(meter)),
                "head": exact(row.head.usage.get(meter)),
            }
            for meter in sorted(usage)
        }
    return record


def _figures(work: Work) -> dict[str, Any]:
    return {
        "calls": work.calls,
        "unpriced_calls": work.unpriced,
        "errors": work.errors,
        "time_ns": work.duration_ns,
        "rows": work.rows,
    }
