"""``costinsights run``: runs a program with costinsights switched on, without changing it.

The program's Python, and every Python that it starts in turn, finds a ``sitecustomize`` of ours
first on its path (`costinsights.cli.site`). The command then becomes the program: the same
process, its signals, its exit code. Only to hold a limit does it stay and wait for the end.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import click

from costinsights.children import instrumented
from costinsights.cli.amount import Amount
from costinsights.cli.console import EXIT_LIMIT, ledger_option, plainly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal
    from types import FrameType
    from typing import NoReturn

RUN_LABEL = "costinsights_run"

# What a shell answers for a command that cannot be started.
_CANNOT_EXECUTE = 126
_NOT_FOUND = 127
# The wall clock may be set back a little while the program runs.
_SLACK = timedelta(hours=1)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--limit",
    "most",
    type=Amount(),
    metavar="AMOUNT",
    help="Exit with 3 when the program, with all that it started, cost more than this.",
)
@ledger_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@plainly
def run(most: Decimal | None, ledger: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND with every statement measured, in the Pythons that it starts as well.

    \b
      costinsights run -- python app.py --verbose
      costinsights run --limit 5.00 -- dbt build

    Its output is all that there is, and its exit code is its own, unless a limit was exceeded.
    Not measured are Pythons that ignore the environment (python -I, -E, -S), and those in which
    costinsights is not installed.
    """  # noqa: D301  \b is click's mark for a block that keeps its lines
    environment = instrumented(os.environ, ledger)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        if most is None:
            os.execvpe(command[0], command, environment)  # noqa: S606  the program's own words
        _limited(command, environment, most)
    except OSError as error:
        click.echo(f"costinsights: {command[0]}: {error.strerror or error}", err=True)
        missing = isinstance(error, FileNotFoundError)
        sys.exit(_NOT_FOUND if missing else _CANNOT_EXECUTE)


def _limited(command: Sequence[str], environment: dict[str, str], most: Decimal) -> NoReturn:
    """Run the program to its end, and then hold what it cost against the limit."""
    name = os.urandom(6).hex()
    labels = environment.get("COSTINSIGHTS_LABELS", "")
    environment["COSTINSIGHTS_LABELS"] = ",".join(filter(None, (labels, f"{RUN_LABEL}={name}")))
    began = datetime.now(timezone.utc).replace(tzinfo=None)
    code = _wait(command, environment)
    exceeded = _exceeded(environment, name, began, most)
    sys.exit(EXIT_LIMIT if exceeded else code)


def _wait(command: Sequence[str], environment: dict[str, str]) -> int:
    import subprocess

    process = subprocess.Popen(command, env=environment)

    def hand_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    # Control-C reaches the program itself, from the terminal; it decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, hand_on)
    code = process.wait()
    return 128 - code if code < 0 else code


def _exceeded(environment: dict[str, str], name: str, began: datetime, most: Decimal) -> bool:
    """Tell whether the run cost more than the limit, with one line if it did."""
    from costinsights import config
    from costinsights.ledger.store import Period
    from costinsights.report.summary import make

    os.environ.update(environment)
    directory = config.load().ledger
    made = make(directory, f"label:{RUN_LABEL}", Period(began - _SLACK))
    ours = [row for row in made.rows if row.item == name]
    calls = sum(row.now.calls for row in ours)
    unpriced = calls - sum(row.now.priced for row in ours)
    without = f"{unpriced:,} of {calls:,} calls have no price"
    for row in ours:
        if row.now.amount is not None and row.now.amount > most:
            more = f"; {without}" if unpriced else ""
            click.echo(
                f"costinsights: the run cost {row.now.amount:f} {row.currency}, over the limit of "
                f"{most:f}{more}",
                err=True,
            )
            return True
    if unpriced:
        click.echo(f"costinsights: {without}, so the limit held for the others only", err=True)
    return False
