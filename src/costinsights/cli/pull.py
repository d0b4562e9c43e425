"""``costinsights pull``: brings the bill in."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

import click

from costinsights.cli.console import (
    EXIT_LIMIT,
    configuration,
    fail,
    ledger_option,
    moment_of,
    plainly,
    say_reads,
    show,
    steps,
)
from costinsights.cli.export import export_late
from costinsights.report.layout import Piece

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costinsights.billing.pulled import Pulled
    from costinsights.report.layout import Line


@click.command()
@click.argument("source")
@click.argument("path", required=False, default="")
@click.option(
    "--start",
    metavar="TIME",
    help="The first day.  [default: all that the provider may still change]",
)
@click.option(
    "--end", metavar="TIME", help="Where to end; not included.  [default: the last midnight, UTC]"
)
@click.option(
    "--granularity",
    type=click.Choice(["hourly", "daily"]),
    help="For sources that have both.  [default: daily]",
)
@click.option("--service", default="", metavar="NAME", help="Only this service of the provider.")
@click.option("--resource", default="", metavar="NAME", help="Only this bucket or storage account.")
@click.option("--restate", is_flag=True, help="Also pull what is final, and say what has changed.")
@click.option("--cap", metavar="AMOUNT", help="What looking may cost, or none.  [default: 0.20]")
@click.option("--dry-run", is_flag=True, help="Say what would be read and what that costs.")
@click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@ledger_option
@plainly
def pull(
    source: str,
    path: str,
    start: str | None,
    end: str | None,
    granularity: str | None,
    service: str,
    resource: str,
    restate: bool,
    cap: str | None,
    dry_run: bool,
    style: str,
    ledger: str | None,
) -> None:
    """Bring what SOURCE bills into the ledger (docs/bills.md).

    SOURCE is aws.s3, gcp.storage or azure.storage, the whole of a provider (aws, gcp, azure,
    databricks), one service of it (with --service), or focus, with the PATH of a file or folder. Each day is
    replaced whole, so pulling again changes nothing but what the provider has restated. Today is
    never imported. How SOURCE is reached stands in [pull."…"] of the configuration.

    Exit code 1: not all of it could be pulled; the next run goes on. 3: looking would cost more
    than --cap.
    """
    from costinsights.billing.pulled import BillingError, NotAsked, OverCap
    from costinsights.billing.pulling import CAP
    from costinsights.billing.pulling import pull as work

    configuration()  # mistakes in it are said
    try:
        with steps() as progress:
            report = work(
                source,
                moment_of("--start", start),
                moment_of("--end", end),
                service=service,
                resource=resource,
                path=path,
                granularity=granularity,
                restate=restate,
                cap=CAP if cap is None else _amount(cap),
                dry_run=dry_run,
                ledger=ledger,
                said=say_reads,
                progress=progress,
            )
    except NotAsked as error:
        raise click.UsageError(str(error)) from error
    except OverCap as error:
        raise _TooDear(str(error)) from error
    except BillingError as error:
        fail(str(error), error.grant)
    if style == "json":
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        show(list(_table(report)))
    if not dry_run:
        export_late(ledger)
    if report.failed:
        fail(report.failed, report.grant)


class _TooDear(click.ClickException):
    exit_code = EXIT_LIMIT


def _amount(text: str) -> Decimal | None:
    if text == "none":
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise click.BadParameter(f"{text!r} is no amount: 0.50, or none", param_hint="--cap")
    return amount


# --- the report ----------------------------------------------------------------------------------


def _table(report: Pulled) -> Iterator[Line]:
    dry = "  (dry run: nothing was read)" if report.dry_run else ""
    yield [
        Piece(report.source, "bold"),
        Piece(f"  {report.start:%Y-%m-%d} to {report.end:%Y-%m-%d} UTC, {report.granularity}"),
        Piece(f"  by {report.puller}", "dim"),
        Piece(dry, "yellow"),
    ]
    over = f"of {report.accounts:,} accounts" if report.accounts > 1 else "of this time"
    yield _fact("slices", report.slices, over)
    if report.unchanged:
        yield _fact("unchanged", report.unchanged, "are what they were, says the source")
    if report.closed:
        yield _fact("closed", report.closed, "are final; --restate pulls them again")
    if not report.dry_run:
        provisional = f", {report.provisional:,} of them provisional" if report.provisional else ""
        yield _fact("published", report.published, f"count as they are now{provisional}")
        yield _fact("rows", report.rows, "in them")
    if report.held_back:
        yield _fact("held back", report.held_back, "rows of a day that is not over")
    for currency, amount in report.billed.items():
        yield [
            Piece(f"{Decimal(amount):>22,.9f} {currency}  ", "bold"),
            Piece("billed, in what was published"),
        ]
    for change in report.changes:
        differences = ", ".join(
            f"{Decimal(amount):+,.9f} {currency}" for currency, amount in change.difference.items()
        )
        yield [Piece(f"  restated: {change.slice}: {differences}", "yellow")]
    for slice_ in report.moved:
        yield [
            Piece(f"  {slice_} is final here, and another one at the source: --restate", "yellow")
        ]
    if report.requests:
        cost = "" if report.cost is None else f", for {Decimal(report.cost):,.9f} {report.currency}"
        yield _fact("requests", report.requests, f"to the provider{cost}")
    for note in report.notes:
        yield [Piece(f"  {note}", "yellow")]
    for slice_, why in report.incomplete.items():
        yield [Piece(f"  incomplete: {slice_}: {why}", "red")]


def _fact(name: str, count: int, text: str) -> Line:
    return [Piece(f"  {name:<10}", "dim"), Piece(f"{count:>10,}  "), Piece(text)]
