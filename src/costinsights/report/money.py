"""How figures look: money with the same decimals down a column, and never a zero that is none."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, localcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

UNKNOWN = "—"
# Signs that stand for one currency only. Where a sign is shared, its best known currency has it.
_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "KRW": "₩"}
_CENTS = 2
_SIGNIFICANT = 3
_MOST = 15


def decimals(amounts: Iterable[Decimal | None]) -> int:
    """Return how many decimals a column of amounts needs: cents, or more where all are less.

    The largest of them keeps three significant digits.
    """
    largest = max(
        (amount.copy_abs() for amount in amounts if amount is not None), default=Decimal(0)
    )
    if not largest or largest >= 1:
        return _CENTS
    return min(_MOST, max(_CENTS, _SIGNIFICANT - 1 - largest.adjusted()))


def money(amount: Decimal | None, currency: str | None, places: int, *, sign: str = "") -> str:
    """Write an amount with `places` decimals: ``$1,234.50``, ``<$0.01``, ``—`` when unknown.

    `sign` is what stands before an amount that is not negative.
    """
    if amount is None:
        return UNKNOWN
    smallest = Decimal(1).scaleb(-places)
    if amount and amount.copy_abs() < smallest:
        least = _with_currency(f"{smallest:f}", currency)
        return f"<{sign}{least}" if amount > 0 else f">-{least}"
    with localcontext() as context:
        context.prec = 60
        rounded = amount.copy_abs().quantize(smallest, ROUND_HALF_UP)
    return f"{'-' if amount < 0 else sign}{_with_currency(f'{rounded:,f}', currency)}"


def _with_currency(figure: str, currency: str | None) -> str:
    if currency in _SIGNS:
        return f"{_SIGNS[currency]}{figure}"
    return f"{figure} {currency}" if currency else figure


def exact(amount: Decimal | None) -> str | None:
    """Write an amount to its last digit, without zeros behind it: for programs."""
    if amount is None:
        return None
    text = f"{amount:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def percent(part: Decimal | int, whole: Decimal | int) -> str:
    """Write a share: ``12.3 %``; never 100 % or 0 % of what is only nearly so."""
    if not whole:
        return UNKNOWN
    with localcontext() as context:
        context.prec = 60
        share = Decimal(part) * 100 / Decimal(whole)
        rounded = share.quantize(Decimal("0.1"), ROUND_HALF_EVEN)
        if not rounded and share:
            return "<0.1 %" if share > 0 else ">-0.1 %"
        if rounded == 100 and share < 100:
            return ">99.9 %"
        return f"{rounded} %" if rounded % 100 else f"{rounded:.0f} %"


def count(number: int | None) -> str:
    """Write a count: ``1,234``; ``—`` when unknown."""
    return UNKNOWN if number is None else f"{number:,}"


def duration(nanoseconds: int) -> str:
    """Write a duration with about three digits: ``850 µs``, ``12.3 s``, ``4m 05s``, ``3h 12m``."""
    if nanoseconds < 0:
        return f"-{duration(-nanoseconds)}"
    seconds = nanoseconds / 1e9
    for limit, factor, unit in ((0.9995e-3, 1e6, "µs"), (0.9995, 1e3, "ms"), (59.95, 1, "s")):
        if seconds < limit:
            figure = seconds * factor
            return f"{figure:.{0 if figure >= 99.95 else 1}f} {unit}"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 100:
        return f"{hours}h {minutes:02d}m"
    return f"{round(hours / 24):,} days"
