"""``costinsights bill``: the bill, added up and held against what was measured."""

from __future__ import annotations

import click

from costinsights.cli.console import ledger_at, ledger_option, plainly, show, width
from costinsights.report.bill import DIMENSIONS, bill_csv, bill_json, bill_table, make_bill
from costinsights.report.period import period

_LIMIT_ON_TERMINAL = 30


@click.command()
@click.option(
    "--by",
    type=click.Choice(list(DIMENSIONS)),
    default="system",
    show_default=True,
    help="What to add it up by.",
)
@click.option("--system", metavar="SYSTEM", help="Of this system only: aws.s3.")
@click.option("--since", metavar="TIME", help="Charge periods from then on: 2026-11-01, 7d.")
@click.option("--until", metavar="TIME", help="Charge periods before then.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help="Name the first N; 0 names all.  [default: 30 on a terminal]",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
)
@ledger_option
@plainly
def bill(
    by: str,
    system: str | None,
    since: str | None,
    until: str | None,
    limit: int | None,
    style: str,
    ledger: str | None,
) -> None:
    """Add up what was billed (costinsights pull brings it in), and say how much is explained.

    By system, "measured" is what the charges of calls and jobs come to, and "explained" the part
    of the bill that they stand for.
    """
    try:
        wanted = period(since, until)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    columns = width()
    if limit is None and columns is not None:
        limit = _LIMIT_ON_TERMINAL
    found = make_bill(ledger_at(ledger), by, wanted, system=system)
    if style == "table":
        show(bill_table(found, columns, limit=limit or None))
    else:
        click.echo((bill_json if style == "json" else bill_csv)(found), nl=False)
