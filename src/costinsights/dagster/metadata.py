"""The metadata that costs become on Dagster's events, and the way back from events to costs.

The keys are fixed for good: plots and custom metrics are built on them. docs/exporters.md says what
each is. Numbers are numbers, what has to be exact is text besides, and no key has an id in it.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from dagster import MetadataValue, TableColumn, TableRecord, TableSchema

from costinsights.dagster.figures import Figures, number_of, units_of
from costinsights.records import decimal_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeAlias

    Value: TypeAlias = MetadataValue[Any]

PREFIX = "costinsights/"
EXACT = "_exact"
COST = f"{PREFIX}cost_"
USAGE = f"{PREFIX}usage/"
CALLS = f"{PREFIX}calls"
UNPRICED = f"{PREFIX}unpriced_calls"
FAILED = f"{PREFIX}failed_calls"
DURATION = f"{PREFIX}duration_seconds"
RUN = f"{PREFIX}run"
STEP = f"{PREFIX}step"
DAY = f"{PREFIX}day"
CORRECTION = f"{PREFIX}correction"

STATEMENTS_SHOWN = 10
_NANO = 10**9
_SCHEMA = TableSchema(
    columns=[
        TableColumn("statement", "string"),
        TableColumn("cost", "string"),
        TableColumn("calls", "int"),
        TableColumn("seconds", "float"),
        TableColumn("system", "string"),
        TableColumn("basis", "string"),
    ]
)


class About(NamedTuple):
    """What an event is about, beside its asset and partition."""

    run: str
    step: str
    job: str
    check: str = ""
    day: str = ""


def described(
    figures: Figures,
    about: About,
    asset: str,
    *,
    split: int = 1,
    correction: bool = False,
    report_url: str = "",
) -> dict[str, Value]:
    """Return the metadata of `figures`: what was spent, or for a correction, the difference."""
    found: dict[str, Value] = {}

    def number(key: str, value: float) -> None:
        if isinstance(value, int):
            found[key] = MetadataValue.int(value)
        elif math.isfinite(value):
            found[key] = MetadataValue.float(value)

    for currency, units in sorted(figures.units.items()):
        if correction and not units:
            continue
        text = decimal_text(units)
        key = f"{COST}{currency.lower()}"
        number(key, float(text))
        found[key + EXACT] = MetadataValue.text(text)
    number(CALLS, figures.calls)
    number(UNPRICED, figures.unpriced)
    number(FAILED, figures.failed)
    number(DURATION, figures.duration_ns / _NANO)
    for meter, value in sorted(figures.usage.items()):
        if value or not correction:
            number(USAGE + meter, value if isinstance(value, int) else float(value))
    found[f"{PREFIX}basis"] = MetadataValue.text(figures.basis)
    if figures.sources:
        found[f"{PREFIX}price_source"] = MetadataValue.text(", ".join(sorted(figures.sources)))
    if not correction and figures.statements:
        found[f"{PREFIX}statements"] = _statements(figures)
    if about.step:
        found[STEP] = MetadataValue.text(about.step)
    if about.run:
        found[RUN] = MetadataValue.dagster_run(about.run)
        number(f"{PREFIX}attempts", max(1, len(figures.attempts)))
    if about.day:
        found[DAY] = MetadataValue.text(about.day)
    if about.check:
        found[f"{PREFIX}check"] = MetadataValue.text(about.check)
    if split > 1:
        found[f"{PREFIX}split"] = MetadataValue.text(f"1 of {split} equal shares")
    if correction:
        found[CORRECTION] = MetadataValue.bool(True)
    found[f"{PREFIX}report"] = _report(about, asset, report_url)
    return found


def _statements(figures: Figures) -> Value:
    records = [
        TableRecord(
            {
                "statement": dear.summary,
                "cost": f"{decimal_text(dear.units)} {dear.currency}" if dear.currency else "—",
                "calls": dear.calls,
                "seconds": dear.duration_ns / _NANO,
                "system": dear.system,
                "basis": dear.basis,
            }
        )
        for dear in figures.dearest(STATEMENTS_SHOWN)
    ]
    return MetadataValue.table(records, _SCHEMA)


def _report(about: About, asset: str, url: str) -> Value:
    if not url:
        return MetadataValue.text("costinsights report --by asset")
    for name, value in (("run", about.run), ("asset", asset), ("job", about.job)):
        url = url.replace(f"{{{name}}}", quote(value, safe=""))
    return MetadataValue.url(url)


class Told(NamedTuple):
    """What an event has told, and of what."""

    run: str
    step: str
    day: str
    figures: Figures


def told(metadata: Mapping[str, Value]) -> Told | None:
    """Return what an event's metadata tells; None when none of it is ours."""
    if CALLS not in metadata:
        return None
    figures = Figures()
    for key, entry in metadata.items():
        if not key.startswith(PREFIX):
            continue
        value: object = entry.value
        if key.startswith(COST):
            if key.endswith(EXACT) and isinstance(value, str):
                currency = key[len(COST) : -len(EXACT)].upper()
                figures.units[currency] = units_of(value)
        elif key.startswith(USAGE):
            figures.usage[key[len(USAGE) :]] = number_of(value) or 0
        elif key == DURATION:
            figures.duration_ns = round(Decimal(str(value)) * _NANO)
    figures.calls = _whole(metadata, CALLS)
    figures.unpriced = _whole(metadata, UNPRICED)
    figures.failed = _whole(metadata, FAILED)
    return Told(_text(metadata, RUN), _text(metadata, STEP), _text(metadata, DAY), figures)


def _whole(metadata: Mapping[str, Value], key: str) -> int:
    entry = metadata.get(key)
    value: object = None if entry is None else entry.value
    return value if isinstance(value, int) else 0


def _text(metadata: Mapping[str, Value], key: str) -> str:
    entry = metadata.get(key)
    value: object = None if entry is None else entry.value
    return value if isinstance(value, str) else ""
