"""How our own assets say their figures: money as a number for plots, and exactly, as text.

What is not known has no key: a plot of it has a gap, and not a zero.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import dagster as dg

from costinsights.report.money import exact

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal

    Metadata = dict[str, dg.MetadataValue[Any]]

PREFIX = "costinsights/"


def money(name: str, amounts: Mapping[str, Decimal]) -> Metadata:
    """Return ``costinsights/<name>_usd`` as a number and ``…_usd_exact`` as text, by currency."""
    found: Metadata = {}
    for currency, amount in sorted(amounts.items()):
        key = f"{PREFIX}{name}_{currency.lower()}"
        if isfinite(float(amount)):
            found[key] = dg.MetadataValue.float(float(amount))
        found[f"{key}_exact"] = dg.MetadataValue.text(f"{exact(amount)} {currency}")
    return found


def counts(numbers: Mapping[str, int]) -> Metadata:
    """Return counts under ``costinsights/<name>``."""
    return {f"{PREFIX}{name}": dg.MetadataValue.int(number) for name, number in numbers.items()}


def texts(words: Mapping[str, str]) -> Metadata:
    """Return what there is to say under ``costinsights/<name>``; nothing is left out."""
    return {f"{PREFIX}{name}": dg.MetadataValue.text(text) for name, text in words.items() if text}


def lines(name: str, said: Iterable[str]) -> Metadata:
    """Return several things to say, a line each."""
    return texts({name: "\n".join(said)})


def table(
    name: str, columns: Sequence[str], rows: Iterable[Sequence[str | float | bool | None]]
) -> Metadata:
    """Return a table under ``costinsights/<name>``; one without rows is left out."""
    records = [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows]
    if not records:
        return {}
    schema = dg.TableSchema([dg.TableColumn(column) for column in columns])
    return {f"{PREFIX}{name}": dg.MetadataValue.table(records, schema=schema)}


def failure(error: Exception, *, passing: bool = True) -> dg.Failure:
    """Return what fails a run with an error's text, and with the permission that is missing.

    `passing` is whether trying again may help.
    """
    grant = str(getattr(error, "grant", "")).strip()
    return failed(str(error), grant, passing=passing)


def failed(why: str, grant: str, *, passing: bool = True) -> dg.Failure:
    """Return what fails a run, why, and which permission is missing."""
    description = f"{why}\n\nIt needs:\n\n{grant}" if grant else why
    return dg.Failure(description, metadata=texts({"grant": grant}), allow_retries=passing)
