"""``costinsights jobs``: which jobs wait for their figures, go on, are settled, are lost."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from costinsights.cli.console import ledger_at, ledger_option, plainly, progress, show, width
from costinsights.report.jobs import OPEN, STATES, as_csv, as_json, by_amount, look, table
from costinsights.report.period import FORMS, moment

_LIMIT_ON_TERMINAL = 20


@click.command()
@click.option("--system", metavar="SYSTEM", help="Of this system only: aws.glue.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="List those; may be given several times.  [default: pending, running, lost]",
)
@click.option("--since", metavar="TIME", help='Started from then on: 2026-11-01, 7d, "yesterday".')
@click.option(
    "--sort",
    type=click.Choice(["age", "amount"]),
    default="age",
    show_default=True,
    help="The oldest first, or the dearest.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help="List the first N; 0 lists all.  [default: 20 on a terminal]",
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
def jobs(
    system: str | None,
    states: tuple[str, ...],
    since: str | None,
    sort: str,
    limit: int | None,
    style: str,
    ledger: str | None,
) -> None:
    """Say what has become of jobs: by system, by age, by amount.

    \b
      pending   started, and nobody has seen its figures yet
      running   goes on; what it has used so far is known
      settled   its figures are final
      lost      the system no longer knows it; its charge stays, without them
    """  # noqa: D301  \b is click's mark for a block that keeps its lines
    from costinsights.ledger.store import open_store

    begin = None
    if since is not None:
        try:
            begin = moment(since, datetime.now(timezone.utc).replace(tzinfo=None))
        except ValueError:
            raise click.BadParameter(
                f"{since!r} is not a time: write {FORMS}", param_hint="--since"
            ) from None
    columns = width()
    if limit is None and columns is not None and style == "table":
        limit = _LIMIT_ON_TERMINAL
    directory = ledger_at(ledger)
    with (
        progress("reading the ledger") as advance,
        open_store(directory, progress=advance) as store,
    ):
        found = look(store, system=system, states=states or OPEN, since=begin)
    if sort == "amount":
        found = by_amount(found)
    if style == "table":
        show(table(found, columns, limit=limit or None))
    else:
        click.echo((as_json if style == "json" else as_csv)(found), nl=False)
