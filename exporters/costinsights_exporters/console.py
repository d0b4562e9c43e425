"""Prints each charge as one line for people, to standard error.

::

    20:58:54.123  postgresql  SELECT orders  3.2 ms  12 rows  $0.0000000039  asset=orders team=growth
    20:58:54.131  postgresql  DELETE orders  0.9 ms  failed: psycopg.errors.UndefinedTable  —

Times are UTC. A dash is an unknown price; an amount shows its first two figures that are not
zero, and from one cent on, cents. Colours come with a terminal and go with ``NO_COLOR``. Only what
this process records is printed; a charge whose figures came later is printed again, marked
"revised".
"""

from __future__ import annotations

import os
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costinsights.records import Charge

SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹"}
CENT = Decimal("0.01")

_DIM, _BOLD, _RED, _GREEN, _END = "\033[2m", "\033[1m", "\033[31m", "\033[32m", "\033[0m"


class ConsoleExporter:
    """Prints charges to standard error."""

    name = "console"
    follows = "process"

    def export(self, batch: Sequence[Charge]) -> None:
        """Print the charges.

        Raises:
            OSError: standard error takes nothing.
        """
        stream = sys.stderr
        if stream is None:
            return
        colours = not os.environ.get("NO_COLOR") and stream.isatty()
        text = "".join(f"{line(charge, colours=colours)}\n" for charge in batch)
        try:
            fd = stream.fileno()
        except (OSError, ValueError):
            stream.write(text)  # a stream of somebody's own making
            return
        # Straight to the file: a thread that ends with the program must hold no buffer's lock.
        data = memoryview(text.encode("utf-8", "replace"))
        while data:
            data = data[os.write(fd, data) :]

    def shutdown(self) -> None:
        """Nothing is held."""


def line(charge: Charge, *, colours: bool = False) -> str:
    """Return the line for a charge."""
    what = (charge.statement.summary if charge.statement else "") or charge.operation
    parts = [
        (_DIM, charge.started_at[11:23]),
        ("", charge.system),
        (_BOLD, what or "?"),
        ("", duration(charge.duration_ns)),
    ]
    if charge.error is not None:
        parts.append((_RED, f"failed: {charge.error.type}"))
    elif charge.rows is not None:
        parts.append(("", f"{charge.rows} row{'' if charge.rows == 1 else 's'}"))
    parts.append((_GREEN, money(charge.amount, charge.currency)))
    labels = [f"{key}={value}" for key, value in charge.attribution.items() if key != "rule"]
    if labels:
        parts.append(("", " ".join(labels)))
    if charge.revision:
        parts.append(("", "(revised)"))
    return "  ".join(
        f"{colour}{_printable(text)}{_END}" if colours and colour else _printable(text)
        for colour, text in parts
    )


def duration(nanoseconds: int) -> str:
    """Return a duration with its fitting unit and three figures."""
    for limit, divisor, unit in ((10**6, 10**3, "µs"), (10**9, 10**6, "ms")):
        if nanoseconds < limit:
            value = nanoseconds / divisor
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{nanoseconds / 10**9:,.2f} s"


def money(amount: str | None, currency: str | None) -> str:
    """Return an amount: cents, or below one cent the first two figures that are not zero."""
    if amount is None:
        return "—"
    value = Decimal(amount)
    size = abs(value)
    places = 2 if size >= CENT or not size else 1 - size.adjusted()
    figures = f"{size:,.{places}f}" if size else "0"
    symbol = SYMBOLS.get(currency or "", "")
    sign = "-" if value < 0 else ""
    return f"{sign}{symbol}{figures}" if symbol else f"{sign}{figures} {currency or ''}".rstrip()


def _printable(text: str) -> str:
    """Take out what would move the cursor or speak to the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
