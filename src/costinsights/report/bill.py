"""The bill, added up: by service, by what was used, by bucket, by day; and how much of it is explained.

What calls and jobs cost (measured here) is held against what the provider billed, a system at a
time: *explained* is the part of the bill that charges stand for, never more than was billed.
"""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from costinsights.billing.bill import open_bill
from costinsights.billing.columns import USAGE_KINDS
from costinsights.guard import suppressed
from costinsights.ledger.store import open_store
from costinsights.report.layout import Column, Line, Piece, lay_out, visible
from costinsights.report.money import UNKNOWN, count, decimals, exact, money, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from costinsights.billing.slices import Manifest
    from costinsights.ledger.store import Period

VERSION = 1
DIMENSIONS: dict[str, str] = {
    "system": "x_System",
    "service": "ServiceName",
    "kind": "x_UsageKind",
    "class": "x_StorageClass",
    "resource": "coalesce(ResourceName, ResourceId)",
    "account": "coalesce(SubAccountName, SubAccountId, BillingAccountName, BillingAccountId)",
    "region": "RegionId",
    "category": "ChargeCategory",
    "day": "strftime(ChargePeriodStart, '%Y-%m-%d')",
    "month": "strftime(BillingPeriodStart, '%Y-%m')",
}
"""What a bill can be added up by, and the SQL for it on the view ``bill``."""


class Row(NamedTuple):
    """One item in one currency. `item` is None for lines that do not say."""

    item: str | None
    currency: str
    billed: Decimal
    lines: int
    measured: Decimal | None = None
    """What the charges of calls and jobs come to; None where there are none with a price."""

    @property
    def explained(self) -> Decimal:
        """How much of what was billed is measured as well."""
        if self.measured is None or self.billed <= 0:
            return Decimal(0)
        return min(self.measured, self.billed)


class BillReport(NamedTuple):
    """What `make_bill` gives. Every line of the bill in the period is in exactly one row."""

    by: str
    system: str | None
    rows: tuple[Row, ...]
    totals: tuple[Row, ...]
    """One a currency."""
    explained: dict[str, Decimal]
    """How much of each currency's total is measured as well."""
    states: dict[str, int]
    """How many slices are provisional, open and final."""
    incomplete: dict[str, str]


def make_bill(directory: str, by: str, period: Period, *, system: str | None = None) -> BillReport:
    """Add up the bill of the ledger at `directory`, dearest first.

    Raises:
        KeyError: a bill cannot be added up by that.
        LedgerError: the ledger or the bill is damaged.
    """
    conditions = [period.condition.replace("ended_at", "ChargePeriodStart")]
    values: list[object] = []
    if system is not None:
        conditions.append("x_System = ?")
        values.append(system)
    with open_bill(directory) as bill, suppressed():
        found = bill.connection.execute(
            f"SELECT {DIMENSIONS[by]}, BillingCurrency, sum(BilledCost), count(*) FROM bill "
            f"WHERE {' AND '.join(conditions)} GROUP BY 1, 2",
            values,
        ).fetchall()
        billed = bill.connection.execute(
            "SELECT x_System, BillingCurrency, sum(BilledCost), count(*) FROM bill "
            f"WHERE {' AND '.join(conditions)} GROUP BY 1, 2",
            values,
        ).fetchall()
        manifest = bill.manifest
    measured = _measured(directory, period)
    systems = [
        Row(item, currency, amount, lines, measured.get((item, currency)))
        for item, currency, amount, lines in billed
    ]
    rows = systems if by == "system" else [Row(*row) for row in found]
    rows.sort(key=lambda row: (row.currency, -row.billed, row.item or ""))
    currencies = sorted({row.currency for row in rows})
    return BillReport(
        by,
        system,
        tuple(rows),
        tuple(_total(currency, rows) for currency in currencies),
        {
            currency: sum(
                (row.explained for row in systems if row.currency == currency), Decimal(0)
            )
            for currency in currencies
        },
        _states(manifest),
        dict(manifest.incomplete),
    )


def _measured(directory: str, period: Period) -> dict[tuple[str, str], Decimal]:
    """Return what charges of calls and jobs come to, by system and currency."""
    with open_store(directory) as store, suppressed():
        store.post(period)
        found = store.connection.execute(
            "SELECT system, currency, sum(amount) FROM postings "
            "WHERE amount IS NOT NULL GROUP BY 1, 2"
        ).fetchall()
    return {(str(system), str(currency)): amount for system, currency, amount in found}


def _total(currency: str, rows: Sequence[Row]) -> Row:
    mine = [row for row in rows if row.currency == currency]
    measured = [row.measured for row in mine if row.measured is not None]
    return Row(
        None,
        currency,
        sum((row.billed for row in mine), Decimal(0)),
        sum(row.lines for row in mine),
        sum(measured, Decimal(0)) if measured else None,
    )


def _states(manifest: Manifest) -> dict[str, int]:
    states: dict[str, int] = {}
    for one in manifest.slices:
        states[one.state] = states.get(one.state, 0) + 1
    return states


# -- for people -----------------------------------------------------------------------------------


def bill_table(found: BillReport, width: int | None, *, limit: int | None = None) -> list[Line]:
    """Return lines of `width` cells; None cuts nothing, for pipes."""
    if not found.rows:
        return [[Piece("Nothing is billed in this ledger and this time: costinsights pull SOURCE")]]
    lines: list[Line] = []
    for total in found.totals:
        rows = [row for row in found.rows if row.currency == total.currency]
        shown = rows if limit is None else rows[:limit]
        if len(shown) < len(rows):
            rest = _total(total.currency, rows[len(shown) :])
            shown = [*shown, rest._replace(item=f"other ({len(rows) - len(shown):,})")]
        if lines:
            lines.append([])
        lines += lay_out(
            _columns(found, shown, total, total.currency), width, rule_before=len(shown)
        )
    lines.append([])
    lines += [[Piece(text, style)] for text, style in _notes(found)]
    return lines


def _columns(found: BillReport, shown: Sequence[Row], total: Row, currency: str) -> list[Column]:
    every = [*shown, total]
    places = decimals(row.billed for row in every)

    def cells(write: Callable[[Row], str]) -> list[Piece]:
        return [Piece(visible(write(row)), "bold" if row is total else "") for row in every]

    def named(row: Row) -> str:
        if row is total:
            return f"total {currency}"
        if row.item is None:
            return "(not said)"
        return USAGE_KINDS.get(row.item, row.item) if found.by == "kind" else row.item

    columns = [
        Column(found.by, cells(named), right=False, flexible=True),
        Column("billed", cells(lambda row: money(row.billed, currency, places))),
        Column("share", cells(lambda row: percent(row.billed, total.billed)), spare=2),
    ]
    if found.by == "system":
        measured = decimals([places_of.measured for places_of in every])
        columns += [
            Column("measured", cells(lambda row: money(row.measured, currency, measured))),
            Column(
                "explained",
                cells(
                    lambda row: (
                        percent(
                            found.explained[currency] if row is total else row.explained, row.billed
                        )
                        if row.billed > 0
                        else UNKNOWN
                    )
                ),
            ),
        ]
    return [*columns, Column("lines", cells(lambda row: count(row.lines)), spare=1)]


def _notes(found: BillReport) -> Iterable[tuple[str, str]]:
    if found.by != "system":
        for total in found.totals:
            if total.billed > 0:
                share = percent(found.explained[total.currency], total.billed)
                yield f"{share} of {total.currency} is explained by charges: --by system", "dim"
    slices = ", ".join(f"{number:,} {state}" for state, number in sorted(found.states.items()))
    yield f"Slices of the bill: {slices}.", "dim"
    for slice_, why in found.incomplete.items():
        yield f"Incomplete: {slice_}: {why}", "red"


# -- for programs ---------------------------------------------------------------------------------


def _record(row: Row) -> dict[str, object]:
    return {
        "item": row.item,
        "currency": row.currency,
        "billed": exact(row.billed),
        "lines": row.lines,
        "measured": exact(row.measured),
    }


def bill_json(found: BillReport) -> str:
    """Return rows and totals, every digit of them."""
    content = {
        "version": VERSION,
        "by": found.by,
        "system": found.system,
        "rows": [_record(row) for row in found.rows],
        "totals": [
            {**_record(row), "explained": exact(found.explained[row.currency])}
            for row in found.totals
        ],
        "slices": found.states,
        "incomplete": found.incomplete,
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def bill_csv(found: BillReport) -> str:
    """Return the rows, one a line; no text begins as a spreadsheet's formula does."""
    text = io.StringIO()
    names = list(_record(found.rows[0])) if found.rows else ["item", "currency", "billed"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in found.rows:
        record = _record(row)
        if row.item and row.item[0] in "=+-@\t\r":
            record["item"] = f"'{row.item}"
        writer.writerow(record)
    return text.getvalue()
