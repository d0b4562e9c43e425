"""Lays a table out as plain lines, in the width that there is.

A line is a row of pieces of text with a style each, so that a terminal can colour what a pipe gets
as it is. Text comes from programs and databases: what could steer a terminal is made visible.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = "  "
_SMALLEST = 12


class Piece(NamedTuple):
    """Some text in one style, named as rich does: ``bold``, ``dim``, ``red``."""

    text: str
    style: str = ""


Line = list[Piece]


class Column(NamedTuple):
    """One column: its cells are as many as the table has rows."""

    name: str
    cells: Sequence[Piece]
    right: bool = True
    spare: int = 0
    """Left out where the width does not suffice; the highest first, 0 never."""
    flexible: bool = False
    """Cut to what is left of the width, where cutting is allowed."""


def visible(text: str) -> str:
    """Return `text` without anything that could steer a terminal or break a line."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def width_of(text: str) -> int:
    """Return how many cells of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    try:
        from rich.cells import cell_len
    except ImportError:  # a program that prints a table need not have what commands need
        from unicodedata import east_asian_width

        return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)
    return cell_len(text)


def lay_out(columns: Sequence[Column], width: int | None, *, rule_before: int) -> list[Line]:
    """Return the lines of a table; nothing is cut when `width` is None.

    `rule_before` is the number of the row above which a rule is drawn.
    """
    kept = list(columns)
    if width is not None:
        while _needed(kept) > width and any(column.spare for column in kept):
            kept.remove(max(kept, key=lambda column: column.spare))
    widths = [_width(column) for column in kept]
    if width is not None:
        for number, column in enumerate(kept):
            if column.flexible:
                others = sum(widths) - widths[number] + len(GAP) * (len(kept) - 1)
                least = min(widths[number], _SMALLEST)
                widths[number] = max(least, min(widths[number], width - others))
    lines = [_line([Piece(column.name, "dim") for column in kept], kept, widths)]
    rule = [Piece("─" * (sum(widths) + len(GAP) * (len(kept) - 1)), "dim")]
    lines.append(rule)
    for number in range(len(kept[0].cells)):
        if number == rule_before:
            lines.append(rule)
        lines.append(_line([column.cells[number] for column in kept], kept, widths))
    return lines


def text_of(lines: Sequence[Line]) -> str:
    """Return lines as text, without their styles."""
    return "".join("".join(piece.text for piece in line).rstrip() + "\n" for line in lines)


def _needed(columns: Sequence[Column]) -> int:
    widths = sum(
        min(_width(column), _SMALLEST * 2) if column.flexible else _width(column)
        for column in columns
    )
    return widths + len(GAP) * (len(columns) - 1)


def _width(column: Column) -> int:
    return max(width_of(column.name), *(width_of(cell.text) for cell in column.cells), 0)


def _line(cells: Sequence[Piece], columns: Sequence[Column], widths: Sequence[int]) -> Line:
    line: Line = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        text = _cut(cell.text, width)
        padding = " " * (width - width_of(text))
        if line:
            line.append(Piece(GAP))
        line += [Piece(padding), Piece(text, cell.style)]
        if not column.right:
            line[-2:] = [line[-1], line[-2]]
    return line


def _cut(text: str, width: int) -> str:
    if width_of(text) <= width:
        return text
    while width_of(text) >= width:
        text = text[:-1]
    return f"{text}…"
