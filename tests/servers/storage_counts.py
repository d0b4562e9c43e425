"""What a test of object storage looks at: the sums that came to the ledger, once we are off."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import costinsights
from costinsights.ledger.reader import read_ledger

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from costinsights.records import Charge


def counted(ledger: Path) -> list[Charge]:
    """Switch off, so that all that was added up is in the ledger, and return it."""
    costinsights.uninstrument()
    return list(read_ledger(str(ledger)))


def number(charge: Charge, name: str) -> int:
    """Return one figure of a charge; 0 where it has none."""
    found = charge.usage.get(name, 0)
    assert isinstance(found, int)
    return found


def total(charges: Iterable[Charge], name: str) -> int:
    """Add a figure up."""
    return sum(number(charge, name) for charge in charges)


def requests(charges: Iterable[Charge]) -> dict[str, int]:
    """Return billed requests, by meter."""
    found: dict[str, int] = {}
    for charge in charges:
        for name in charge.usage:
            if name.endswith("_operations"):
                found[name] = found.get(name, 0) + number(charge, name)
    return {name: count for name, count in found.items() if count}


def amounts(charges: Iterable[Charge]) -> dict[str, Decimal | None]:
    """Return what each class of operations costs; None where not all of them have a price."""
    found: dict[str, Decimal | None] = {}
    for charge in charges:
        before = found.get(charge.operation, Decimal(0))
        amount = None if charge.amount is None else Decimal(charge.amount)
        found[charge.operation] = None if before is None or amount is None else before + amount
    return found
