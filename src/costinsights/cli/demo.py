"""``costinsights demo``: a small pipeline, measured by one line, and its report."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from costinsights.cli.console import EXIT_FAILED, plainly, show, width
from costinsights.demo import CONFIGURATION, LEDGER, PIPELINE, NotOurs, place
from costinsights.report.layout import Line, Piece
from costinsights.report.period import period
from costinsights.report.render import table
from costinsights.report.summary import make

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "costinsights-demo"
_TOP_QUERIES = 8


@click.command()
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help=f"Where to put it.  [default: ./{FOLDER}]",
)
@plainly
def demo(directory: str | None) -> None:
    """Run a small data pipeline on DuckDB, and report what it cost.

    The pipeline and its configuration are put into a folder, where you can read and change them
    and run them again. It takes some seconds and leaves nothing elsewhere.
    """
    if find_spec("duckdb") is None:
        raise click.UsageError("the demo needs DuckDB: run  pip install 'costinsights[cli]'")
    folder = _place(directory)
    shown = os.path.relpath(folder) if _is_below_here(folder) else folder
    show(_introduction(shown))
    done = subprocess.run(
        [sys.executable, PIPELINE], cwd=folder, env=_plain_environment(os.environ), check=False
    )
    if done.returncode:
        click.echo(f"costinsights: the pipeline ended with {done.returncode}", err=True)
        sys.exit(EXIT_FAILED)
    ledger = os.path.join(folder, LEDGER)
    for by, limit in (("asset", None), ("team", None), ("query", _TOP_QUERIES)):
        report = make(ledger, by, period(None, None), limit=limit)
        lines = table(report._replace(ledger=os.path.join(shown, LEDGER)), width())
        # What a report says at its end is the same for all three: the last one says it.
        show([[], *(lines if by == "query" else lines[: lines.index([], 2)])])
    show(_what_next(shown))


def _place(directory: str | None) -> str:
    """Make the folder ready: the one that was named, or the usual one, or a temporary one."""
    folder = os.path.abspath(directory or FOLDER)
    try:
        place(folder)
    except NotOurs as error:
        raise click.UsageError(f"{error}: name another one with --directory") from error
    except OSError as error:
        if directory is not None:
            raise click.UsageError(f"{folder} cannot be used: {error.strerror}") from error
        folder = os.path.join(tempfile.mkdtemp(prefix="costinsights-"), FOLDER)
        place(folder)
    return folder


def _is_below_here(folder: str) -> bool:
    try:
        return os.path.commonpath([os.getcwd(), folder]) == os.getcwd()
    except (OSError, ValueError):
        return False


def _plain_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what would have the demo measured otherwise, or not at all."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith("COSTINSIGHTS_") and name != "OTEL_SDK_DISABLED"
    }


def _introduction(folder: str) -> list[Line]:
    return [
        [Piece("A shop's data pipeline on DuckDB, measured by one line:", "bold")],
        [],
        [Piece("    costinsights.instrument()", "cyan")],
        [],
        [Piece("  program   ", "dim"), Piece(os.path.join(folder, PIPELINE))],
        [
            Piece("  price     ", "dim"),
            Piece(f"an example in {os.path.join(folder, CONFIGURATION)}: 4.80 USD an hour"),
        ],
        [Piece("  ledger    ", "dim"), Piece(os.path.join(folder, LEDGER))],
        [],
    ]


def _what_next(folder: str) -> list[Line]:
    tries = (
        ("costinsights explain", "why the dearest call costs what it does"),
        ("costinsights report --by job", "and by team, system, label:NAME"),
        ("costinsights report --format json", "for programs; csv and md as well"),
        ("costinsights ledger cat | head -1", "one record, as it is exported"),
        ("costinsights doctor", "what would be measured in your programs"),
        ("costinsights run -- python app.py", "your own program, without changing it"),
    )
    left = max(len(command) for command, _ in tries)
    return [
        [],
        [Piece("What to try next", "bold")],
        [],
        [Piece(f"  cd {folder}", "cyan")],
        *(
            [Piece(f"  {command:<{left}}", "cyan"), Piece(f"  {what}", "dim")]
            for command, what in tries
        ),
    ]
