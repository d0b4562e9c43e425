"""``costinsights report``: what each asset, job, team, system or query cost."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from costinsights.cli.amount import Amount
from costinsights.cli.console import (
    EXIT_LIMIT,
    ledger_at,
    ledger_option,
    plainly,
    progress,
    show,
    width,
)
from costinsights.report.period import period
from costinsights.report.render import FORMATS, render, table
from costinsights.report.summary import make

if TYPE_CHECKING:
    from decimal import Decimal

    from costinsights.report.summary import Report

# What fits on a terminal; a pipe gets everything.
_LIMIT_ON_TERMINAL = 25


@click.command()
@click.option(
    "--by",
    default="asset",
    show_default=True,
    metavar="asset|job|team|system|query|dbt.node|dbt.tag|dbt.owner|label:NAME",
    help="What to report the cost of.",
)
@click.option("--since", metavar="TIME", help='From then on: 2026-11-01, 7d, 24h, "yesterday".')
@click.option("--until", metavar="TIME", help="Up to then, not included. Days are UTC's.")
@click.option(
    "--compare",
    type=click.Choice(["previous"]),
    help="Add the time of the same length before it, and what has changed.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help="Name the N dearest, add the others up; 0 names all.  [default: 25 on a terminal]",
)
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
@ledger_option
@click.option(
    "--fail-over",
    "most",
    type=Amount(),
    metavar="AMOUNT",
    help="Exit with 3 when the total is over this, in any one currency.",
)
@plainly
def report(
    by: str,
    since: str | None,
    until: str | None,
    compare: str | None,
    limit: int | None,
    style: str,
    ledger: str | None,
    most: Decimal | None,
) -> None:
    """Report what each asset, job, team, system or query cost.

    \b
      costinsights report --by team --since 7d --compare previous
      costinsights report --by query --since yesterday --limit 10
      costinsights report --by dbt.node --since yesterday
      costinsights report --by label:env --format csv > costs.csv
    """  # noqa: D301  \b is click's mark for a block that keeps its lines
    columns = width()
    if limit is None and style == "table" and columns is not None:
        limit = _LIMIT_ON_TERMINAL
    directory = ledger_at(ledger)
    try:
        with progress("reading the ledger") as advance:
            made = make(
                directory,
                by,
                period(since, until),
                compare=compare is not None,
                limit=limit or None,
                progress=advance,
            )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    again = _options({"--since": since, "--until": until, "--ledger": ledger})
    if style == "table":
        show(table(made, columns, options=again))
    else:
        click.echo(render(made, style, options=again), nl=False)
    if most is not None:
        _hold(made, most)


def _options(given: dict[str, str | None]) -> str:
    return shlex.join(part for name, value in given.items() if value for part in (name, value))


def _hold(made: Report, most: Decimal) -> None:
    """Exit with 3 when the total of some currency is over `most`."""
    for total in made.totals:
        amount = total.now.amount
        if amount is not None and amount > most:
            unpriced = made.calls - made.priced
            without = f"; {unpriced:,} calls have no price" if unpriced else ""
            click.echo(
                f"costinsights: {amount:f} {total.currency} is over the limit of {most:f}{without}",
                err=True,
            )
            sys.exit(EXIT_LIMIT)
