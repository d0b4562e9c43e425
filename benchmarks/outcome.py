"""What a benchmark gives: figures that are held against a target, and tables that show the rest."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003  msgspec looks for it

import msgspec


class Figure(msgspec.Struct):
    """One promised figure. It holds when it is at most `target`; some have none and are shown.

    `key` names it in one word, for the gate's line and the command line.
    """

    key: str
    text: str
    value: float
    target: float | None = None
    unit: str = ""
    """What it is counted in; a ratio has no unit."""

    def shown(self) -> str:
        """The value as a table has it."""
        return _number(self.value, self.unit)

    def wanted(self) -> str:
        """The target as a table has it."""
        return "—" if self.target is None else f"≤ {_number(self.target, self.unit)}"


class Table(msgspec.Struct):
    """Everything that was measured beside one another, for people."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Outcome(msgspec.Struct):
    """What one benchmark found. `skipped` says why it found nothing."""

    figures: list[Figure] = []
    tables: list[Table] = []
    skipped: str = ""


def _number(value: float, unit: str) -> str:
    digits = 2 if not unit else 0 if abs(value) >= 100 or value == int(value) else 1
    return f"{value:.{digits}f}{' ' if unit else ''}{unit}"


def plain(table: Table) -> str:
    """Write a table for a terminal."""
    rows = [list(table.columns), *map(list, table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.columns))]
    lines = [table.title]
    for row in rows:
        first, *others = (
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join([first, *others]).rstrip())
    if table.note:
        lines.append(f"  ({table.note})")
    return "\n".join(lines)


def markdown(table: Table) -> str:
    """Write a table for the README."""
    lines = [
        f"| {' | '.join(table.columns)} |",
        f"|---|{'---:|' * (len(table.columns) - 1)}",
        *(f"| {' | '.join(row)} |" for row in table.rows),
    ]
    if table.note:
        lines += ["", table.note]
    return "\n".join(lines)
