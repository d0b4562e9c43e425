"""The columns that a charge has in Parquet and in SQL, and the way from an entry to them and back.

One table says all of it: name, SQL type, and where the figure stands among the tables into which
`costinsights.ledger.live` reads segments. docs/ledger.md explains the columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from costinsights.ledger.reader import span_ids
from costinsights.records import (
    BASIS_RANK,
    Charge,
    ErrorInfo,
    PriceInfo,
    Resource,
    StatementInfo,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

AMOUNT = "DECIMAL(38,15)"
"""15 decimals are what the ledger counts in (`costinsights.pricing.line.EXACT_PLACES`)."""

# What reports know by name; any other label stands in the JSON of `labels`.
LABELS = ("asset", "partition", "job", "run", "team", "rule")


class Column(NamedTuple):
    """`live` is what it is among lines l, segments g, resources r, attributions a and so on."""

    name: str
    type: str
    live: str


_RANK = " ".join(f"WHEN '{basis}' THEN {rank}" for basis, rank in BASIS_RANK.items())
BASIS = "coalesce(l.b, CASE WHEN l.m IS NULL THEN 'unknown' ELSE 'estimated' END)"
_HEX = "strpos('0123456789abcdef', l.x[{0}:{0}]) - 1"
ENDED = "CASE WHEN l.y > 0 THEN l.y ELSE l.d END"
COLUMNS = (
    Column("charge_id", "VARCHAR", "l.charge_id"),
    Column("revision", "INTEGER", "l.v"),
    Column("calls", "BIGINT", "1"),
    Column("errors", "BIGINT", "CASE WHEN l.e IS NULL THEN 0 ELSE 1 END"),
    Column("system", "VARCHAR", "r.system"),
    Column("address", "VARCHAR", "r.address"),
    Column("port", "INTEGER", "r.port"),
    Column("namespace", "VARCHAR", "r.namespace"),
    Column("resource_service", "VARCHAR", "r.service"),
    Column("region", "VARCHAR", "r.region"),
    Column("operation", "VARCHAR", "coalesce(nullif(l.o, ''), s.operation, '')"),
    Column("fingerprint", "VARCHAR", "s.fingerprint"),
    Column("summary", "VARCHAR", "s.summary"),
    Column("text", "VARCHAR", "s.text"),
    Column("started_at", "TIMESTAMP", "make_timestamp(l.t // 1000)"),
    Column("ended_at", "TIMESTAMP", f"make_timestamp((l.t + {ENDED}) // 1000)"),
    Column("duration_ns", "BIGINT", "l.d"),
    Column("capacity_seconds", AMOUNT, "CASE WHEN l.f <> 0 THEN units(l.f) END"),
    Column("meters", "VARCHAR", "l.u"),
    Column("rows", "BIGINT", "l.w"),
    Column("amount", AMOUNT, "exact(l.m, l.charge_id)"),
    Column("currency", "VARCHAR", "CASE WHEN l.m IS NOT NULL THEN p.currency END"),
    Column("basis", "VARCHAR", BASIS),
    Column("price_key", "VARCHAR", "p.key"),
    Column("unit_price", "VARCHAR", "p.unit_price"),
    Column("price_unit", "VARCHAR", "p.unit"),
    Column("price_source", "VARCHAR", "p.source"),
    Column("price_as_of", "VARCHAR", "p.as_of"),
    Column("price_book", "VARCHAR", "p.book"),
    *(Column(name, "VARCHAR", f"a.{name}") for name in LABELS),
    Column("labels", "VARCHAR", "a.labels"),
    Column("tag", "VARCHAR", "l.g"),
    Column("vendor_id", "VARCHAR", "l.i"),
    Column("trace_id", "VARCHAR", "l.x[4:35]"),
    Column("parent_span_id", "VARCHAR", "l.x[37:52]"),
    Column(
        "trace_flags",
        "SMALLINT",
        f"CASE WHEN l.x IS NULL THEN 1 ELSE ({_HEX.format(54)}) * 16 + {_HEX.format(55)} END",
    ),
    Column("error_type", "VARCHAR", "l.e[1]"),
    Column("error_sqlstate", "VARCHAR", "l.e[2]"),
    Column("partial", "BOOLEAN", "coalesce(l.l, false)"),
    Column("service", "VARCHAR", "g.service"),
    Column("host", "VARCHAR", "g.host"),
    Column("pid", "BIGINT", "g.pid"),
    Column("instrumentor", "VARCHAR", "r.instrumentor"),
)

NAMES = tuple(column.name for column in COLUMNS)

# Columns that came after the first ledgers, oldest first: files of before lack the later ones
# (`costinsights.ledger.manifest.File.later`).
LATER = ("region",)

# What a row that takes another one back has with the opposite sign.
MEASURES = ("calls", "errors", "duration_ns", "capacity_seconds", "rows", "amount")

# Every figure either fits the column to its last digit or is refused. `figure` is what stands in the
# entry's JSON: a whole number of 10⁻¹⁵ units, or decimal text in its quotes.
MACROS = rf"""
CREATE MACRO units(count) AS
    CAST(CAST(count AS DECIMAL(22,0)) * CAST('0.000000000000001' AS DECIMAL(16,15)) AS {AMOUNT});
CREATE MACRO exact(figure, charge_id) AS CASE
    WHEN figure IS NULL THEN NULL
    WHEN regexp_full_match(figure, '-?[0-9]{{1,22}}') THEN units(CAST(figure AS HUGEINT))
    WHEN regexp_full_match(figure, '"-?[0-9]{{1,23}}(\.[0-9]{{1,15}}0*)?"')
        THEN CAST(trim(figure, '"') AS {AMOUNT})
    ELSE error(concat('the amount ', figure, ' of charge ', charge_id,
        ' has more digits than {AMOUNT} holds, and is not rounded'))
    END
"""

_MOMENT = "strftime({0}, '%Y-%m-%dT%H:%M:%S.%fZ')"
_READ_AS = {
    "TIMESTAMP": _MOMENT,
    AMOUNT: "CAST({0} AS VARCHAR)",
}


def quoted(name: str) -> str:
    """Return a column's name as SQL has it; some are words of the language."""
    return f'"{name}"'


def listed(*, alias: str = "", negated: bool = False) -> str:
    """Return all columns for a SELECT; `negated` turns the signs of the measures."""
    parts: list[str] = []
    for name in NAMES:
        column = f"{alias}{quoted(name)}"
        if negated and name in MEASURES:
            column = f"-{column} AS {quoted(name)}"
        parts.append(column)
    return ", ".join(parts)


def better(left: str, right: str) -> str:
    """Return the SQL condition that the row `left` is a better entry of a charge than `right`.

    The better basis decides, then the later revision, then the later end of the call.
    """
    orders = [f"row({rank(f'{a}.basis')}, {a}.revision, {a}.ended_at)" for a in (left, right)]
    return " > ".join(orders)


def rank(basis: str) -> str:
    """Return the SQL expression for how much a figure of this basis can be trusted."""
    return f"CASE {basis} {_RANK} ELSE 0 END"


def selection() -> str:
    """Return the columns as `charge_of` wants them: moments and money as the record has them."""
    return ", ".join(
        _READ_AS.get(column.type, "{0}").format(quoted(column.name)) for column in COLUMNS
    )


def charge_of(row: Sequence[Any]) -> Charge:
    """Return the record that a row of `selection` stands for."""
    of = dict(zip(NAMES, row, strict=True))
    usage: dict[str, int | float | str] = {"time_ns": of["duration_ns"]}
    if of["capacity_seconds"] is not None:
        usage["capacity_seconds"] = of["capacity_seconds"]
    if of["meters"] is not None:
        usage.update(_decode_meters(of["meters"]))
    attribution = {name: of[name] for name in LABELS if of[name] is not None}
    if of["labels"] is not None:
        attribution.update(_decode_labels(of["labels"]))
    trace_id, span_id = span_ids(of["charge_id"])
    return Charge(
        charge_id=of["charge_id"],
        revision=of["revision"],
        system=of["system"],
        resource=Resource(
            of["address"], of["port"], of["namespace"], of["resource_service"], of["region"]
        ),
        operation=of["operation"],
        statement=None
        if of["fingerprint"] is None
        else StatementInfo(of["fingerprint"], of["summary"], of["text"]),
        started_at=of["started_at"],
        ended_at=of["ended_at"],
        duration_ns=of["duration_ns"],
        usage=usage,
        rows=of["rows"],
        amount=of["amount"],
        currency=of["currency"],
        basis=of["basis"],
        price=None
        if of["price_key"] is None
        else PriceInfo(
            of["price_key"],
            of["unit_price"],
            of["price_unit"],
            of["price_source"],
            of["price_as_of"],
            of["price_book"],
        ),
        attribution=attribution,
        tag=of["tag"],
        vendor_id=of["vendor_id"],
        trace_id=of["trace_id"] or trace_id,
        span_id=span_id,
        parent_span_id=of["parent_span_id"],
        trace_flags=of["trace_flags"],
        error=None
        if of["error_type"] is None
        else ErrorInfo(of["error_type"], of["error_sqlstate"]),
        partial=of["partial"],
        service=of["service"],
        host=of["host"],
        pid=of["pid"],
        instrumentor=of["instrumentor"],
    )


_decode_meters = msgspec.json.Decoder(dict[str, int | float | str]).decode
_decode_labels = msgspec.json.Decoder(dict[str, str]).decode
