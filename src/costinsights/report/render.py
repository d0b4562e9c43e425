"""Writes a report: a table for people, Markdown, CSV and JSON.

Tables round, and say so by how they look; CSV and JSON have every digit, costs as text.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.pricing.stale import advice
from costinsights.report.layout import Column, Line, Piece, lay_out, text_of, visible
from costinsights.report.money import UNKNOWN, count, decimals, duration, exact, money, percent
from costinsights.report.summary import EXACT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from costinsights.ledger.store import Period
    from costinsights.report.summary import Report, Row

VERSION = 1
"""Counts up when a field of the JSON changes its meaning or goes."""

FORMATS = ("table", "json", "csv", "md", "html")

UNATTRIBUTED = "(unattributed)"
# What stands for calls that are nobody's, where that is not the word for it.
_NOBODY = {
    "query": "(no statement)",
    "system": "(unknown)",
    "dbt.node": "(no node)",
    "dbt.tag": "(no tag)",
    "dbt.owner": "(no owner)",
}
# What the title says where the dimension alone does not.
_MEANT = {"dbt.tag": "dbt.tag (a node's tags together)"}
_HOW_TO_PRICE = (
    "Say in [[capacity]] of costinsights.toml what an hour of the database costs (docs/prices.md)."
)
_MOST_STALE = 3
"""Lines that are named; the JSON has all."""
_BAR_CELLS = 8
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_INERT = str.maketrans(
    {char: f"\\{char}" for char in "\\`*_[]|~$"}
    | {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@&#8203;", "#": "#&#8203;"}
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render(report: Report, style: str, *, options: str = "") -> str:
    """Return the report in one of `FORMATS`; a table without colour and as wide as it needs.

    `options` are those to be given again to drill down in the same calls: ``--since 7d``.
    """
    if style == "table":
        return text_of(table(report, None, options=options))
    if style == "md":
        return as_markdown(report, options=options)
    if style == "html":
        from costinsights.report.page import page

        return page("Costs", [section(report, options=options)])
    return {"json": as_json, "csv": as_csv}[style](report)


# -- for people -----------------------------------------------------------------------------------


def table(report: Report, width: int | None, *, options: str = "") -> list[Line]:
    """Return the report as lines in `width` cells; None cuts nothing, for pipes."""
    lines: list[Line] = [[Piece(_title(report), "bold")], []]
    if report.calls or any(row.now.amount for row in report.rows) or report.rows:
        lines += lay_out(_columns(report, width), width, rule_before=len(report.rows))
    else:
        lines.append([Piece("No calls in this time.")])
    lines.append([])
    lines += [[Piece(text, "dim")] for text in _footer(report, options)]
    return lines


def _columns(report: Report, width: int | None) -> list[Column]:
    rows = [*report.rows, *report.totals]
    shown = len(report.rows)
    sums = {total.currency: total.now.amount for total in report.totals}
    places = _places(report)

    def cells(
        write: Callable[[Row], str], style: Callable[[Row], str] = lambda _: ""
    ) -> list[Piece]:
        return [
            Piece(write(row), style(row) if number < shown else "bold")
            for number, row in enumerate(rows)
        ]

    def cost(row: Row) -> str:
        if row.status == "gone":
            return ""
        return money(row.now.amount, row.currency, places[row.currency])

    def share(row: Row) -> str:
        whole = sums[row.currency]
        amount = row.now.amount
        if amount is None or not whole or whole < 0 or row.status == "gone":
            return "" if row.status == "gone" else UNKNOWN
        return percent(amount, whole)

    columns = [
        Column(
            heading(report.by),
            cells(lambda row: _name(row, report.by), lambda row: "dim" if row.item is None else ""),
            right=False,
            flexible=True,
        )
    ]
    if report.by == "query":
        fingerprints = cells(lambda row: row.detail or "", lambda _: "dim")
        columns.append(Column("fingerprint", fingerprints, right=False, spare=4))
        if width is not None:
            short = cells(lambda row: (row.detail or "")[:8], lambda _: "dim")
            if width < 110:
                columns[-1] = Column("fingerp.", short, right=False, spare=1)
    columns.append(Column("cost", cells(cost, lambda row: "" if row.now.amount else "dim")))
    columns.append(Column("share", cells(share), spare=2))
    if width is not None:
        bars = [Piece(_bar(row, sums[row.currency]), "cyan") for row in report.rows]
        blanks = [Piece("") for _ in report.totals]
        columns.append(Column(" " * _BAR_CELLS, [*bars, *blanks], right=False, spare=9))
    if report.compared_with is not None:
        columns += _comparison(cells, places)
    columns.append(Column("calls", cells(lambda row: count(row.now.calls))))
    columns.append(Column("time", cells(lambda row: duration(row.now.duration_ns)), spare=5))
    columns.append(Column("rows", cells(lambda row: count(row.now.rows)), spare=7))
    columns.append(
        Column(
            "errors",
            cells(
                lambda row: count(row.now.errors), lambda row: "red" if row.now.errors else "dim"
            ),
            spare=3,
        )
    )
    if any(row.now.priced < row.now.calls and row.now.priced for row in rows):
        priced = cells(lambda row: percent(row.now.priced, row.now.calls))
        columns.append(Column("priced", priced, spare=6))
    return columns


def _comparison(cells: Callable[..., list[Piece]], places: dict[str | None, int]) -> list[Column]:
    def was(row: Row) -> str:
        if row.previous is None or row.status == "new":
            return ""
        return money(row.previous.amount, row.currency, places[row.currency])

    def change(row: Row) -> str:
        return money(row.change, row.currency, places[row.currency], sign="+")

    def relative(row: Row) -> str:
        if row.status or row.previous is None or not row.previous.amount or row.change is None:
            return row.status
        share = percent(row.change, row.previous.amount)
        return share if share.startswith(("-", ">-")) else f"+{share}"

    def colour(row: Row) -> str:
        return "" if not row.change else "red" if row.change > 0 else "green"

    return [
        Column("before", cells(was), spare=8),
        Column("change", cells(change, colour)),
        Column("", cells(relative, colour), spare=2),
    ]


def _places(report: Report) -> dict[str | None, int]:
    """Return the decimals of each currency's column: those of its rows, not of its total."""
    places: dict[str | None, int] = {}
    for total in report.totals:
        amounts: list[Decimal | None] = []
        for row in report.rows:
            if row.currency == total.currency:
                amounts += [row.now.amount, row.previous.amount if row.previous else None]
        places[total.currency] = decimals(amounts)
    return places


def _bar(row: Row, whole: Decimal | None) -> str:
    if not row.now.amount or not whole or whole <= 0 or row.now.amount <= 0:
        return ""
    eighths = round(float(row.now.amount / whole) * _BAR_CELLS * 8)
    full, rest = divmod(max(1, eighths), 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def heading(by: str) -> str:
    """Return what a column is called that has the items."""
    return by.removeprefix("label:")


def _name(row: Row, by: str) -> str:
    if row.kind == "total":
        return f"total {row.currency}" if row.currency else "total"
    if row.kind == "other":
        return f"other ({row.others:,})"
    return name_of(row.item, by)


def name_of(item: str | None, by: str) -> str:
    """Return how an item is called before people; calls that are nobody's have a name as well."""
    return visible(item or "") or _NOBODY.get(by, UNATTRIBUTED)


def _title(report: Report) -> str:
    by = _MEANT.get(report.by) or heading(report.by)
    title = f"Cost by {by}, {_span(report.period)}"
    if report.compared_with is not None:
        title += f", against {_span(report.compared_with)}"
    return title


def _span(period: Period) -> str:
    if period.since is not None and period.until is not None:
        return f"{_moment(period.since)} to {_moment(period.until)} UTC"
    if period.since is not None:
        return f"since {_moment(period.since)} UTC"
    return "all time" if period.until is None else f"until {_moment(period.until)} UTC"


def _moment(moment: datetime) -> str:
    if moment.time() == datetime.min.time():
        return moment.date().isoformat()
    return moment.isoformat(" ", "minutes")


def _footer(report: Report, options: str) -> list[str]:
    lines: list[str] = []
    if report.calls:
        bases = ", ".join(f"{percent(n, report.calls)} {basis}" for basis, n in report.bases)
        lines.append(
            f"{percent(report.priced, report.calls)} of {count(report.calls)} calls have a price. "
            f"By basis: {bases}."
        )
    if report.calls and not report.priced:
        lines.append(_HOW_TO_PRICE)
    newest = "The ledger is empty" if report.newest is None else f"Newest entry {_age(report)}"
    lines.append(f"{newest}; ledger: {visible(report.ledger)}")
    lines += _stale(report)
    lines += _losses(report)
    lines.append(f"To drill: {_drill(report, options)}")
    return lines


def _age(report: Report) -> str:
    newest = datetime.fromisoformat((report.newest or "").replace("Z", ""))
    age = report.made_at - newest
    moment = f"{newest:%Y-%m-%d %H:%M:%S} UTC"
    if age < timedelta(0):
        return f"at {moment}"
    if age < timedelta(minutes=2):
        return f"{age.total_seconds():.0f} s ago ({moment})"
    if age < timedelta(days=2):
        hours, minutes = divmod(int(age.total_seconds()) // 60, 60)
        return f"{f'{hours} h {minutes:02d}' if hours else minutes} min ago ({moment})"
    return f"{age.days} days ago ({moment})"


def _stale(report: Report) -> list[str]:
    """Say which prices are too old to be believed, and how newer ones are had."""
    if not report.stale:
        return []
    calls = sum(line.calls for line in report.stale)
    named = ", ".join(f"{line.key} (as of {line.as_of})" for line in report.stale[:_MOST_STALE])
    more = len(report.stale) - _MOST_STALE
    rest = f" and {more} more" if more > 0 else ""
    said = (
        f"Stale: prices of {count(calls)} calls are more than a year old: {visible(named)}"
        f"{rest}. Newer ones: {advice(line.key for line in report.stale)}."
    )
    return [said]


def _losses(report: Report) -> list[str]:
    lines: list[str] = []
    if report.lost:
        lost = ", ".join(f"{count(n)} ({reason})" for reason, n in sorted(report.lost.items()))
        lines.append(f"Lost before they could be written: {lost} entries.")
    if report.torn:
        lines.append(
            f"{count(report.torn)} torn line{'s' if report.torn > 1 else ''} set aside; "
            "costinsights ledger verify says where."
        )
    if report.expired_until is not None:
        lines.append(
            f"{count(report.expired_charges)} charges up to {report.expired_until} are no more, "
            "by the retention that was set."
        )
    return lines


def _drill(report: Report, options: str) -> str:
    by = next(by for by in ("query", "asset") if by != report.by)
    given = f" {options}" if options else ""
    ledger = f" --ledger {report.ledger}" if "--ledger" in options else ""
    return f"costinsights report --by {by}{given}, costinsights explain{ledger} [CHARGE_ID]"


class Section(NamedTuple):
    """A report as pages have it: a table, with what is to be said of it."""

    title: str
    columns: Sequence[Column]
    items: int
    """So many rows come before those with totals."""
    footer: Sequence[str]


def section(report: Report, *, options: str = "") -> Section:
    """Return the report as a section of a page."""
    columns = _columns(report, None)
    return Section(_title(report), columns, len(report.rows), _footer(report, options))


def as_markdown(report: Report, *, options: str = "") -> str:
    """Return the report as a table of GitHub's Markdown."""
    title, columns, items, footer = section(report, options=options)
    lines = [f"**{escaped(title)}**", ""]
    lines.append("| " + " | ".join(escaped(column.name) for column in columns) + " |")
    lines.append("|" + "|".join("---:" if column.right else ":---" for column in columns) + "|")
    for number in range(items + len(report.totals)):
        texts = [escaped(column.cells[number].text) for column in columns]
        if number >= items:
            texts = [f"**{text}**" if text else "" for text in texts]
        lines.append("| " + " | ".join(texts) + " |")
    lines += ["", *(f"{escaped(text)}  " for text in footer)]
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """Return `text` as Markdown that shows it and does nothing: no markup, no HTML, no mention.

    The character without a width keeps ``@team`` and ``#1`` from notifying people and from links.
    """
    return text.translate(_INERT)


# -- for programs ---------------------------------------------------------------------------------


def as_csv(report: Report) -> str:
    """Return the rows as CSV; no cell of it is taken for a formula by a spreadsheet."""
    records = _records(report)
    out = io.StringIO()
    names = ["item", "fingerprint", "currency", "cost", "share", "calls", "priced_calls"]
    names += ["time_ns", "rows", "errors"]
    if report.by != "query":
        names.remove("fingerprint")
    if report.compared_with is not None:
        names += ["previous_cost", "change", "status"]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([report.by if name == "item" else name for name in names])
    for record, row in zip(records, report.rows, strict=True):
        record["item"] = row.item or _name(row, report.by)
        writer.writerow([harmless(record.get(name)) for name in names])
    return out.getvalue()


def harmless(value: object) -> object:
    """Keep a spreadsheet from computing a text; numbers, also negative ones, stay as they are."""
    if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return "" if value is None else value


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdecimal()


def as_json(report: Report) -> str:
    """Return all figures as JSON, costs as decimal text."""
    document = {
        "version": VERSION,
        "by": report.by,
        "ledger": report.ledger,
        "since": _stamp(report.period.since),
        "until": _stamp(report.period.until),
        "made_at": _stamp(report.made_at),
        "compared_with": None
        if report.compared_with is None
        else {
            "since": _stamp(report.compared_with.since),
            "until": _stamp(report.compared_with.until),
        },
        "rows": _records(report),
        "totals": _records(report, report.totals),
        "coverage": {
            "calls": report.calls,
            "priced_calls": report.priced,
            "by_basis": dict(report.bases),
        },
        "newest": report.newest,
        "torn_lines": report.torn,
        "lost": report.lost,
        "stale_prices": [line._asdict() for line in report.stale],
        "expired": None
        if report.expired_until is None
        else {"charges": report.expired_charges, "until": report.expired_until},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _records(report: Report, rows: Iterable[Row] | None = None) -> list[dict[str, Any]]:
    sums = {total.currency: total.now.amount for total in report.totals}
    totals = rows is not None
    records: list[dict[str, Any]] = []
    for row in report.rows if rows is None else rows:
        record: dict[str, Any] = {}
        if not totals:
            record = {"kind": row.kind, "item": row.item}
            if row.kind == "other":
                record["items"] = row.others
            if report.by == "query":
                record["fingerprint"] = row.detail
        record |= {
            "currency": row.currency,
            "cost": exact(row.now.amount),
            "share": _fraction(row.now.amount, sums[row.currency]),
            "calls": row.now.calls,
            "priced_calls": row.now.priced,
            "time_ns": row.now.duration_ns,
            "rows": row.now.rows,
            "errors": row.now.errors,
        }
        if row.previous is not None:
            record |= {
                "previous_cost": exact(row.previous.amount),
                "previous_calls": row.previous.calls,
                "change": exact(row.change),
                "status": row.status or None,
            }
        records.append(record)
    return records


def _fraction(part: Decimal | None, whole: Decimal | None) -> str | None:
    if part is None or not whole or whole < 0:
        return None
    context = EXACT.copy()
    context.clear_traps()
    return str(context.divide(part, whole).quantize(Decimal("0.000001")))


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment.isoformat(timespec='microseconds')}Z"
