"""Tables and facts of the commands about prices: for a terminal, and plain lines for a pipe."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence, Sized

    from rich.console import RenderableType

PIPE_WIDTH = 10_000
"""Wide enough that no line is folded where a program reads it."""


def count(things: Sized, one: str, many: str = "") -> str:
    """Say how many: `1 line`, `2 lines`."""
    return f"{len(things)} {one if len(things) == 1 else many or one + 's'}"


def harmless(text: str) -> str:
    """A spreadsheet takes a cell that begins like this for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def facts(said: Mapping[str, object]) -> Table:
    """Names on the left, what is to be said on the right, nothing for what is empty."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in said.items():
        text = _words(value)
        if text:
            table.add_row(Text(name), Text(text))
    return table


def _words(value: object) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return "yes"
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return ", ".join(f"{name} = {_words(item)}" for name, item in items)
    if isinstance(value, (list, tuple)):
        return "\n".join(str(item) for item in cast("Sequence[object]", value))
    return str(value)


def table_of(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return a table with these columns, those of `right` for numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(
            Text(column), justify="right" if column in right else "left", overflow="fold"
        )
    return table


def display(what: RenderableType) -> None:
    """To the terminal at its width and in its colours; to anything else in full, plain lines."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(what)
        return
    plain = Console(highlight=False, width=PIPE_WIDTH, file=io.StringIO(), color_system=None)
    with plain.capture() as captured:
        plain.print(what)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
