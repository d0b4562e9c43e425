"""Figures as charges: what a program's charge becomes, and what stands for a query of nobody's."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from costinsights.attribution import clean_labels, overlay
from costinsights.comments import attribution
from costinsights.instrumentor import UNPRICED
from costinsights.jobs import Waiting
from costinsights.ledger.reader import span_ids, timestamp
from costinsights.records import (
    BASIS_RANK,
    Charge,
    ErrorInfo,
    PriceInfo,
    Resource,
    StatementInfo,
    decimal_text,
)
from costinsights.settlement.allocation import MICROSECOND, microseconds
from costinsights.settlement.costing import PASSING, Cost
from costinsights.settlement.history import utc
from costinsights.statement import parse
from costinsights.tagging import tag_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from costinsights.rules import Rule
    from costinsights.settlement.history import Figure

INSTRUMENTOR = "settle"
"""What stands for the instrumentor in charges that no instrumented program made."""


LOST = "lost"
"""What stands among the usage of a charge whose run the system no longer knows: why, in words."""


class Charging:
    """Makes charges of a system's figures and costs."""

    def __init__(self, system: str, book: str, rules: Sequence[Rule]) -> None:
        """Take the system's key, the price book's version, and the rules of the configuration."""
        self._system = system
        self._book = book
        self._rules = rules

    def later(self, charge: Charge, figures: Sequence[Figure], cost: Cost) -> Charge | None:
        """Return a program's charge with the figures of the history; None while they are not known."""
        if cost.reason in PASSING or (cost.amount is None and charge.basis != "unknown"):
            return None
        usage = {**charge.usage, **_meters(figures)}
        usage.pop("capacity_seconds", None)
        for word in (LOST, UNPRICED):
            usage.pop(word, None)
        problem = next((figure.problem for figure in figures if figure.problem), "")
        if problem:
            usage[UNPRICED] = problem
        if cost.capacity:
            usage["capacity_seconds"] = decimal_text(cost.capacity)
        rows = [figure.rows for figure in figures if figure.rows is not None]
        errors = [figure.error for figure in figures if figure.error]
        ids = [figure.vendor_id for figure in figures if figure.vendor_id]
        known_as = next((figure.becomes for figure in figures if figure.becomes), charge.vendor_id)
        ended_at = charge.ended_at
        if charge.partial:  # a job whose end nobody waited for, or rows that nobody fetched
            known = (figure.ended_at or figure.so_far for figure in figures)
            ended_at = max([ended_at, *(text_of(moment) for moment in known if moment is not None)])
        return self._priced(
            msgspec.structs.replace(
                charge,
                ended_at=ended_at,
                partial=any(figure.ended_at is None for figure in figures),
                usage=usage,
                rows=sum(rows) if charge.rows is None and rows else charge.rows,
                error=charge.error or (ErrorInfo(errors[0]) if errors else None),
                vendor_id=known_as or (ids[0] if len(ids) == 1 else None),
            ),
            cost,
        )

    def of_query(self, figure: Figure, charge_id: str, cost: Cost, known: Charge | None) -> Charge:
        """Return a query of the history as a charge."""
        statement = parse(figure.text, self._system) if figure.text else None
        words = _words(figure.tag)
        service = words.pop("service", None) or figure.program or ""
        sources: list[tuple[str, Mapping[str, str]]] = [("tag", words)]
        if figure.tag and not words:
            comment = _commented(figure.tag)
            sources.append((comment.pop("rule", "tag"), comment))
        if statement is not None and statement.comment:
            comment = dict(statement.comment)
            sources.append((comment.pop("rule", "comment"), comment))
        sources.append(("history", clean_labels(figure.labels)))
        sources += [
            (f"rule:{rule.name}", rule.labels)
            for rule in self._rules
            if rule.matches(
                self._system,
                figure.resource,
                statement,
                instrumentor=INSTRUMENTOR,
                operation=figure.operation,
                user=figure.user or "",
            )
        ]
        usage = _meters([figure])
        if figure.problem:
            usage[UNPRICED] = figure.problem
        if cost.capacity:
            usage["capacity_seconds"] = decimal_text(cost.capacity)
        return self.made(
            charge_id,
            figure.started_at,
            figure.ended_at or figure.so_far or figure.started_at,
            figure.resource,
            figure.operation or (statement.operation if statement is not None else ""),
            overlay(sources),
            usage,
            cost,
            known,
            statement=None
            if statement is None
            else StatementInfo(statement.fingerprint, statement.summary, statement.text),
            rows=figure.rows,
            error=ErrorInfo(figure.error) if figure.error else None,
            tag=figure.tag,
            vendor_id=figure.vendor_id,
            service=service,
            ran=True,
            partial=figure.ended_at is None,
        )

    def made(
        self,
        charge_id: str,
        started_at: datetime,
        ended_at: datetime,
        resource: Resource,
        operation: str,
        attribution: dict[str, str],
        usage: dict[str, int | float | str],
        cost: Cost,
        known: Charge | None,
        *,
        statement: StatementInfo | None = None,
        rows: int | None = None,
        error: ErrorInfo | None = None,
        tag: str | None = None,
        vendor_id: str | None = None,
        service: str = "",
        ran: bool = False,
        partial: bool = False,
    ) -> Charge:
        """Return a charge that no program made. `known` is what the ledger has of it."""
        duration = (ended_at - started_at) // MICROSECOND * 1000 if ran else 0
        trace_id, span_id = span_ids(charge_id)
        # What is the same as before keeps the price book that it was priced with.
        before = (
            (None, "unknown", None) if known is None else (known.amount, known.basis, known.price)
        )
        charge = Charge(
            charge_id=charge_id,
            revision=0 if known is None else known.revision,
            system=self._system,
            resource=resource,
            operation=operation,
            statement=statement,
            started_at=text_of(started_at),
            ended_at=text_of(max(started_at, ended_at)),
            duration_ns=max(0, duration),
            usage={"time_ns": max(0, duration), **usage},
            rows=rows,
            amount=before[0],
            currency=None if known is None else known.currency,
            basis=before[1],
            price=before[2],
            attribution=attribution,
            tag=tag,
            vendor_id=vendor_id,
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=None,
            error=error,
            partial=partial,
            service=service,
            host="",
            pid=0,
            instrumentor=INSTRUMENTOR,
        )
        return self._priced(charge, cost)

    def _priced(self, charge: Charge, cost: Cost) -> Charge:
        """Return the charge with this cost; with the price as it stands where it is the same."""
        if cost.amount is None or cost.price is None:
            return charge
        price = cost.price
        known = charge.price
        amount = decimal_text(cost.amount)
        same = (charge.amount, charge.basis) == (amount, cost.basis)
        if known is None or not same or (known.key, known.unit_price) != price[:2]:
            known = PriceInfo(
                price.key,
                price.unit_price,
                price.unit,
                price.source,
                price.as_of,
                self._book,
            )
        return msgspec.structs.replace(
            charge, amount=amount, currency=price.currency, basis=cost.basis, price=known
        )


_NO_METERS = ("time_ns", "capacity_seconds", LOST, UNPRICED)


def is_open(charge: Charge) -> bool:
    """Tell whether a charge waits for the figures of its run."""
    return charge.vendor_id is not None and (
        charge.partial or BASIS_RANK[charge.basis] <= BASIS_RANK["estimated"]
    )


def waiting_of(charge: Charge) -> Waiting:
    """Return a pending charge as what its reader asks by."""
    place = charge.resource
    return Waiting(
        charge.vendor_id or "",
        namespace=place.namespace,
        region=place.region,
        started_at=utc(charge.started_at),
        address=place.address,
        service=place.service,
        meters={name: value for name, value in charge.usage.items() if name not in _NO_METERS},
    )


def plain(value: float | str | Decimal) -> int | float | str:
    """Return a quantity as JSON has it, whole where it is."""
    if not isinstance(value, Decimal):
        return value
    return int(value) if value == value.to_integral_value() else float(value)


def text_of(moment: datetime) -> str:
    """Return a moment as charges have it."""
    return timestamp(microseconds(moment) * 1000)


def _meters(figures: Sequence[Figure]) -> dict[str, int | float | str]:
    """Return the meters of one figure, or the sums of several."""
    if len(figures) == 1:
        return {name: plain(value) for name, value in figures[0].meters.items()}
    sums: dict[str, Decimal] = {}
    for figure in figures:
        for name, value in figure.meters.items():
            if isinstance(value, (int, float)):
                sums[name] = sums.get(name, Decimal(0)) + Decimal(str(value))
    return {name: plain(value) for name, value in sums.items()}


def _words(tag: str | None) -> dict[str, str]:
    """Read a tag of ours, ``ci,asset=orders,job=nightly``, back into labels."""
    found = tag_in(tag)
    if found is None:
        return {}
    pairs = (word.partition("=") for word in found.split(",")[1:])
    return clean_labels({key: value for key, _, value in pairs if key and value})


def _commented(tag: str) -> dict[str, str]:
    """Read a tag that another tool wrote: dbt puts its comment into Snowflake's query tag."""
    return attribution((f"/* {tag} */",)) or {}
