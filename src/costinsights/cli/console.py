"""What all commands share: where the ledger is, how output looks, how mistakes are said.

On a terminal there is colour and a width; a pipe gets plain text, nothing of it cut.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import click

from costinsights.ledger.writer import LedgerError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from costinsights.config import Config
    from costinsights.report.layout import Line

F = TypeVar("F", bound="Callable[..., Any]")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_LIMIT = 3

# Work on less than this is over before a progress bar could be read.
_BAR_FROM_BYTES = 32 * 1024 * 1024

ledger_option = click.option(
    "--ledger",
    "ledger",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="The ledger's folder.  [default: COSTINSIGHTS_LEDGER, the configuration, or your own]",
)


def configuration() -> Config:
    """Return the configuration in force; mistakes in it are said on stderr."""
    from costinsights import config

    loaded = config.load()
    for problem in loaded.problems:
        click.echo(f"costinsights: {problem}", err=True)
    return loaded


def ledger_at(given: str | None) -> str:
    """Return the folder of the ledger that is meant.

    Raises:
        click.UsageError: there is none.
    """
    directory = given or configuration().ledger
    if not os.path.isdir(directory):
        raise click.UsageError(
            f"there is no ledger at {directory}. A program makes one that calls "
            "costinsights.instrument(), or runs under  costinsights run -- …"
        )
    return directory


def plainly(function: F) -> F:
    """Let a command say what went wrong in one line, instead of a traceback."""

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except LedgerError as error:
            raise click.ClickException(str(error)) from error
        except ImportError as error:
            if (error.name or "duckdb") != "duckdb" and "pip install" not in str(error):
                raise
            raise click.UsageError(str(error)) from error

    return cast("F", command)


def width() -> int | None:
    """Return the width of the terminal (``COLUMNS`` overrides it); None where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def in_colour() -> bool:
    """Tell whether output is for a terminal that shows colour, and the user wants it."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR"))


def show(lines: Sequence[Line]) -> None:
    """Print lines, in colour where that is wanted."""
    from costinsights.report.layout import text_of

    if not in_colour():
        click.echo(text_of(lines), nl=False)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(force_terminal=True, highlight=False, markup=False)
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True)


@contextmanager
def progress(doing: str) -> Generator[Callable[[int, int], None]]:
    """Give a function that shows bytes done and to do, as a bar on stderr's terminal.

    Nothing is shown where stderr is no terminal, or the work is short.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(doing, total=None, visible=False)

    def advance(done: int, total: int) -> None:
        if total >= _BAR_FROM_BYTES:
            if not bar.live.is_started:
                bar.start()
            bar.update(task, completed=done, total=total, visible=done < total)

    try:
        yield advance
    finally:
        bar.stop()


@contextmanager
def steps() -> Generator[Callable[[str, int, int | None], None] | None]:
    """Give a function that shows what is being done, where stderr is a terminal; else None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    tasks: dict[str, TaskID] = {}

    def advance(what: str, done: int, total: int | None) -> None:
        if not bar.live.is_started:
            bar.start()
        if what not in tasks:
            for task in tasks.values():
                bar.update(task, visible=False)
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done, total=total)

    try:
        yield advance
    finally:
        bar.stop()


def say_reads(lines: Sequence[str]) -> None:
    """Say beforehand what will be read; a line that is a sentence is said as it is."""
    for line in lines:
        click.echo(f"reads {line}" if not line.endswith(".") else line, err=True)


def moment_of(option: str, text: str | None) -> datetime | None:
    """Return the moment that an option means, in UTC; None where it was not given.

    Raises:
        click.BadParameter: it is none.
    """
    if text is None:
        return None
    from costinsights.report.period import FORMS, moment

    now = datetime.now(timezone.utc).replace(tzinfo=None)
    try:
        return moment(text, now).replace(tzinfo=timezone.utc)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a time: write {FORMS}", param_hint=option
        ) from None


def fail(why: str, grant: str = "") -> NoReturn:
    """Say why it did not work, and which permission is missing, and end with that exit code."""
    click.echo(f"Error: {why}", err=True)
    if grant:
        needed = "\n".join(f"    {line}" for line in grant.strip().splitlines())
        click.echo(f"It needs:\n\n{needed}", err=True)
    sys.exit(EXIT_FAILED)
