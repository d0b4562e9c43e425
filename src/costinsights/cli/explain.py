"""``costinsights explain``: what one charge cost and why."""

from __future__ import annotations

import click

from costinsights.cli.console import ledger_at, ledger_option, plainly, show
from costinsights.report.explain import NotFound, as_json, as_lines, find


@click.command()
@click.argument("charge_id", required=False)
@click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@ledger_option
@plainly
def explain(charge_id: str | None, style: str, ledger: str | None) -> None:
    """Explain the charge CHARGE_ID; without one, the dearest of the ledger.

    The beginning of an id is enough where only one charge has it. Ids stand in
    ``costinsights ledger cat``, in logs and traces that have them from there.
    """
    try:
        found = find(ledger_at(ledger), charge_id)
    except NotFound as error:
        raise click.UsageError(str(error)) from error
    if style == "json":
        click.echo(as_json(found), nl=False)
    else:
        show(as_lines(found))
