"""Says of one charge what it cost and why, in words and numbers."""

from __future__ import annotations

import json
from decimal import Context, Decimal, Inexact
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights.ledger.live import literal
from costinsights.ledger.store import Period, open_store
from costinsights.pricing.stale import WORD, advice, is_stale, today
from costinsights.report.layout import Line, Piece, visible
from costinsights.report.money import UNKNOWN, count, decimals, duration, money, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import date

    from costinsights.records import Charge, Resource

HOUR = 3600
MAX_NAMED = 5
_EXACT = Context(prec=100, traps=[Inexact])

_BASES = {
    "estimated": "what was measured here × the list price",
    "metered": "the system's own usage figure × the price",
    "allocated": "a share of capacity that is paid for as a whole",
    "billed": "from the provider's bill",
    "unknown": "no price is known; that is not zero",
}
_NO_PRICE = (
    "none; costinsights prices meters SYSTEM lists what there is, and [[capacity]] in "
    "costinsights.toml prices what is paid for by the hour"
)
# The order in which attributions are told; other labels follow by name.
_TOLD_FIRST = ("asset", "partition", "job", "run", "team")


class NotFound(LookupError):
    """No charge has this id, or several begin with it; the text says which."""


class Explained(NamedTuple):
    """A charge as it counts, and all its entries, oldest first."""

    charge: Charge
    history: tuple[Charge, ...]


def find(ledger: str, prefix: str | None) -> Explained:
    """Find the charge whose id begins with `prefix`; None asks for the dearest of all.

    Raises:
        NotFound: there is no such charge, or several.
        LedgerError: the ledger is damaged or of a newer version.
        ImportError: DuckDB is not installed.
    """
    with open_store(ledger) as store:
        if prefix is None:
            store.post(Period(), totals=False)
            found = store.connection.execute(
                "SELECT charge_id FROM postings GROUP BY charge_id HAVING sum(calls) > 0 "
                "ORDER BY sum(amount) DESC NULLS LAST, charge_id LIMIT 1"
            ).fetchone()
            if found is None:
                raise NotFound(f"the ledger at {ledger} is empty")
            where = f"charge_id = {literal(found[0])}"
        else:
            # A range, which Parquet's statistics understand; no id has a character behind this.
            where = (
                f"charge_id >= {literal(prefix)} AND charge_id < {literal(prefix)} || chr(1114111)"
            )
        charges = list(_some(store.charges(where)))
        exact = [charge for charge in charges if charge.charge_id == prefix]
        if not charges:
            raise NotFound(f"no charge of the ledger at {ledger} has an id that begins {prefix!r}")
        if len(charges) > 1 and not exact:
            named = ", ".join(sorted(charge.charge_id for charge in charges[:MAX_NAMED]))
            raise NotFound(
                f"{'at least ' if len(charges) > MAX_NAMED else ''}{len(charges)} charges have an "
                f"id that begins {prefix!r}: {named}{' …' if len(charges) > MAX_NAMED else ''}"
            )
        charge = (exact or charges)[0]
        history = store.charges(f"charge_id = {literal(charge.charge_id)}", history=True)
        return Explained(charge, tuple(history))


def _some(charges: Iterator[Charge]) -> Iterator[Charge]:
    for _, charge in zip(range(MAX_NAMED + 1), charges, strict=False):
        yield charge


def formula(charge: Charge) -> str | None:
    """Return how the amount came about, ``quantity × unit price``; None when it is not known."""
    price = charge.price
    if charge.amount is None or price is None:
        return None
    unit = f"{price.unit_price} {charge.currency} per {price.unit}"
    seconds = charge.usage.get("capacity_seconds")
    if seconds is not None:
        return f"{seconds} s of capacity ÷ {HOUR} × {unit}"
    return f"usage × {unit}"


def recomputed(charge: Charge) -> Decimal | None:
    """Return seconds of capacity ÷ 3600 × price, rounded down at the 15th decimal like the ledger.

    None where the amount did not come about that way.
    """
    seconds = charge.usage.get("capacity_seconds")
    if charge.price is None or seconds is None:
        return None
    context = _EXACT.copy()
    context.clear_traps()
    whole = _EXACT.multiply(Decimal(str(seconds)), Decimal(charge.price.unit_price))
    return context.divide(whole, Decimal(HOUR)).quantize(
        Decimal(1).scaleb(-15), rounding="ROUND_FLOOR", context=context
    )


def as_json(explained: Explained) -> str:
    """Return the charge, how its amount came about, and its entries as JSON."""
    charge, history = explained
    document = {
        "charge": msgspec.to_builtins(charge),
        "formula": formula(charge),
        "basis_means": _BASES[charge.basis],
        "history": [
            {
                "revision": entry.revision,
                "basis": entry.basis,
                "amount": entry.amount,
                "currency": entry.currency,
                "ended_at": entry.ended_at,
                "counts": entry == charge,
            }
            for entry in history
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def as_lines(explained: Explained, day: date | None = None) -> list[Line]:
    """Return the explanation as lines with their styles; `day` is today, if nobody says."""
    charge, history = explained
    facts: list[tuple[str, str, str]] = [
        ("what", _what(charge), "bold"),
        ("where", _where(charge.system, charge.resource), ""),
        ("when", _when(charge), ""),
        ("for", _who(charge), ""),
        ("decided by", charge.attribution.get("rule", "unattributed").replace("+", ", then "), ""),
        ("measured", _measured(charge), ""),
    ]
    if charge.error is not None:
        state = f", SQLSTATE {charge.error.sqlstate}" if charge.error.sqlstate else ""
        facts.append(("failed", f"{charge.error.type}{state}; it still costs", "red"))
    if charge.partial:
        facts.append(("partial", "the result was not read to its end", ""))
    for name, value in (("tag", charge.tag), ("vendor's id", charge.vendor_id)):
        if value:
            facts.append((name, value, ""))
    cost = [
        ("cost", _cost(charge), "bold"),
        ("", _formula_line(charge), ""),
        ("share", _share(charge), ""),
        ("basis", f"{charge.basis}: {_BASES[charge.basis]}", ""),
        *_price(charge, day or today()),
    ]
    lines: list[Line] = [[Piece(f"Charge {charge.charge_id}", "bold")], []]
    lines += _facts(facts)
    lines.append([])
    lines += _facts(cost)
    if len(history) > 1:
        lines += [[], *_history(charge, history)]
    if charge.statement is not None:
        lines += [[], [Piece(f"fingerprint {charge.statement.fingerprint}", "dim")]]
        lines += [[Piece(visible(text))] for text in charge.statement.text.splitlines()]
    return lines


def _facts(facts: Sequence[tuple[str, str, str]]) -> Iterator[Line]:
    for name, text, style in facts:
        if text:
            yield [Piece(f"  {name:<12}", "dim"), Piece(visible(text), style)]


def _what(charge: Charge) -> str:
    return charge.statement.summary if charge.statement is not None else charge.operation


def _where(system: str, resource: Resource) -> str:
    place = resource.address or resource.service or ""
    if resource.port is not None:
        place += f":{resource.port}"
    if resource.namespace:
        place += f"/{resource.namespace}" if place else resource.namespace
    where = f"{system} at {place}" if place else system
    return f"{where} in {resource.region}" if resource.region else where


def _when(charge: Charge) -> str:
    started = charge.started_at.replace("T", " ").replace("Z", " UTC")
    return f"{started}, for {duration(charge.duration_ns)} in the driver"


def _who(charge: Charge) -> str:
    labels = charge.attribution
    names = [name for name in _TOLD_FIRST if name in labels]
    names += sorted(name for name in labels if name not in _TOLD_FIRST and name != "rule")
    return ", ".join(f"{name} {labels[name]}" for name in names) or "nobody: (unattributed)"


def _measured(charge: Charge) -> str:
    parts = [f"{count(charge.rows)} rows"] if charge.rows is not None else []
    parts += [
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in charge.usage.items()
        if name not in ("time_ns", "capacity_seconds")
    ]
    return ", ".join(parts)


def _cost(charge: Charge) -> str:
    if charge.amount is None:
        return UNKNOWN
    amount = Decimal(charge.amount)
    short = money(amount, charge.currency, decimals([amount]))
    return f"{short}  (exactly {charge.amount} {charge.currency})"


def _formula_line(charge: Charge) -> str:
    found = formula(charge)
    return f"= {found}" if found is not None else ""


def _share(charge: Charge) -> str:
    seconds = charge.usage.get("capacity_seconds")
    if seconds is None or not charge.duration_ns:
        return ""
    held, whole = Decimal(str(seconds)), _EXACT.scaleb(Decimal(charge.duration_ns), -9)
    if held >= whole:
        return f"all of the capacity for {duration(charge.duration_ns)}: nothing ran beside it"
    return (
        f"{percent(held, whole)} of the capacity during its {duration(charge.duration_ns)}: "
        "the rest went to calls that ran beside it"
    )


def _price(charge: Charge, day: date) -> Iterator[tuple[str, str, str]]:
    price = charge.price
    if price is None:
        yield "price", _NO_PRICE, ""
        return
    yield "price", f"{price.unit_price} {charge.currency or ''} per {price.unit} ({price.key})", ""
    yield "source", f"{price.source}, as of {price.as_of}", ""
    if is_stale(price.as_of, day):
        yield WORD, f"more than a year old; for a newer one: {advice([price.key])}", "yellow"
    yield "price book", price.book, ""


def _history(charge: Charge, history: Sequence[Charge]) -> Iterator[Line]:
    yield [Piece(f"Its {len(history)} entries; the best basis counts, then the last revision:")]
    for entry in history:
        amount = UNKNOWN if entry.amount is None else f"{entry.amount} {entry.currency}"
        text = f"  revision {entry.revision}: {amount}, {entry.basis}, ended {entry.ended_at}"
        counts = entry == charge
        yield [Piece(text + ("  ← counts" if counts else ""), "" if counts else "dim")]
