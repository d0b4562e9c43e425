"""Amounts that users set as limits, and what was spent, held against them exactly."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import NamedTuple, TypeAlias

from costinsights.report.money import exact

Amount: TypeAlias = "Decimal | int | float | str"
"""A float stands for the decimal that it is written as: 0.1 is a tenth."""


class Limit(NamedTuple):
    """So much it may be."""

    amount: Decimal
    currency: str

    def __str__(self) -> str:
        return f"{exact(self.amount)} {self.currency}"


def limit(
    max_usd: Amount | None, max_amount: Amount | None = None, currency: str = "USD"
) -> Limit | None:
    """Return the limit that is meant; None for none.

    Raises:
        ValueError: both are given, or one is no amount of money.
    """
    if max_usd is not None and max_amount is not None:
        raise ValueError("give max_usd, or max_amount and its currency")
    if max_usd is not None:
        return Limit(amount(max_usd), "USD")
    return None if max_amount is None else Limit(amount(max_amount), currency.upper())


def amount(said: Amount) -> Decimal:
    """Return an amount exactly.

    Raises:
        ValueError: it is none, or less than nothing.
    """
    try:
        found = Decimal(str(said))
    except InvalidOperation:
        found = Decimal("NaN")
    if not found.is_finite() or found < 0:
        raise ValueError(f"{said!r} is not an amount of money: write 5.00")
    return found
