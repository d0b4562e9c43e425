"""``costinsights diff``: what a run costs more or less than another one."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from decimal import Decimal
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
from costinsights.report.diff import compare
from costinsights.report.diff_render import FORMATS, relative, render, table
from costinsights.report.money import exact
from costinsights.report.sides import (
    CostsError,
    SideError,
    is_file,
    open_runs,
    read_costs,
    usual_dimension,
)
from costinsights.report.summary import EXACT

if TYPE_CHECKING:
    from costinsights.report.diff import Diff, Side

# What fits on a terminal and into a comment of a pull request.
_LIMIT = {"table": 25, "md": 25}


class Percent(Amount):
    """A share of what it was."""

    name = "percent"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Decimal:
        """Read ``10`` or ``10%``."""
        return super().convert(str(value).removesuffix("%").strip(), param, ctx)


@click.command()
@click.argument("base")
@click.argument("head")
@click.option(
    "--by",
    metavar="dbt.node|dbt.tag|dbt.owner|asset|job|team|system|query|label:NAME",
    help="What to compare.  [default: dbt.node for dbt's runs, asset for others]",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help="Name the N largest changes, add the others up; 0 names all.  "
    "[default: 25 on a terminal and in Markdown]",
)
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
@ledger_option
@click.option(
    "--fail-over",
    "most",
    type=Amount(),
    metavar="AMOUNT",
    help="Exit with 3 when the head costs more than this above the base, in any one currency.",
)
@click.option(
    "--fail-over-percent",
    "most_percent",
    type=Percent(),
    metavar="PERCENT",
    help="Exit with 3 when it costs more than this share of the base above it.",
)
@plainly
def diff(
    base: str,
    head: str,
    by: str | None,
    limit: int | None,
    style: str,
    ledger: str | None,
    most: Decimal | None,
    most_percent: Decimal | None,
) -> None:
    """Compare what two runs cost: BASE, the one before, and HEAD, the new one.

    Each is the costs.json of a dbt run, or a run in the ledger by its labels. Of a label that many
    runs share, the latest run is meant.

    \b
      costinsights diff main/costs.json target/costs.json --format md
      costinsights diff branch=main branch=feature --fail-over-percent 10
      costinsights diff run=4f1d… run=9a3c… --by query
    """  # noqa: D301  \b is click's mark for a block that keeps its lines
    columns = width()
    if limit is None and (style == "md" or (style == "table" and columns is not None)):
        limit = _LIMIT[style]
    try:
        dimension = by or usual_dimension((base, head))
        sides = _read((base, head), dimension, ledger)
    except SideError as error:
        raise click.UsageError(str(error)) from error
    except CostsError as error:
        raise click.ClickException(str(error)) from error
    made = compare(sides[0], sides[1], dimension, limit=limit or None)
    if style == "table":
        show(table(made, columns))
    else:
        click.echo(render(made, style), nl=False)
    _hold(made, most, most_percent)


def _read(names: tuple[str, str], by: str, ledger: str | None) -> list[Side]:
    with ExitStack() as opened:
        runs = None
        if not all(is_file(name) for name in names):
            advance = opened.enter_context(progress("reading the ledger"))
            runs = opened.enter_context(open_runs(ledger_at(ledger), progress=advance))
        return [
            read_costs(name, by) if runs is None or is_file(name) else runs.side(name, by)
            for name in names
        ]


def _hold(made: Diff, most: Decimal | None, most_percent: Decimal | None) -> None:
    """Exit with 3 when the head is too dear, and say why; say what could not be held."""
    if most is None and most_percent is None:
        return
    exceeded = [
        f"{exact(total.money.change)} {total.currency} more than the base "
        f"({relative(total.money) or 'which cost nothing'}) is over the limit of {limit}"
        for total in made.totals
        if total.money.change is not None and total.money.change > 0
        for limit in _exceeded(total.money.change, total.money.compared, most, most_percent)
    ]
    reasons = list(exceeded)
    unpriced = sum(work.unpriced for work in made.work)
    if unpriced:
        have = "call has" if unpriced == 1 else "calls have"
        reasons.append(f"{unpriced:,} {have} no price and cannot be held against a limit")
    for reason in reasons:
        click.echo(f"costinsights: {reason}", err=True)
    if exceeded:
        sys.exit(EXIT_LIMIT)


def _exceeded(
    change: Decimal, compared: Decimal | None, most: Decimal | None, most_percent: Decimal | None
) -> list[str]:
    limits: list[str] = []
    if most is not None and change > most:
        limits.append(f"{most:f}")
    # Without a division nothing is rounded, and more than nothing is more than any share of it.
    if most_percent is not None and EXACT.multiply(change, Decimal(100)) > EXACT.multiply(
        most_percent, abs(compared or Decimal(0))
    ):
        limits.append(f"{most_percent:f} %")
    return limits
