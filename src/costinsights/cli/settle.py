"""``costinsights settle``: later, better figures from a system's own history."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import click

from costinsights.cli.console import (
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

    from costinsights.report.layout import Line
    from costinsights.settlement import Settled

_KINDS = {
    "charges": "the programs' charges",
    "outside": "queries outside of them",
    "idle": "idle",
    "self": "asking for all this",
}
_HOW = {"id": "by id", "tag": "by tag", "statement": "by statement and time"}


@click.command()
@click.argument("system")
@click.option(
    "--since", metavar="TIME", help="Where to begin.  [default: where the last run left off]"
)
@click.option("--until", metavar="TIME", help="Where to end.  [default: now]")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also make charges of queries that no instrumented program ran.",
)
@click.option("--dry-run", is_flag=True, help="Read and work out everything, and write nothing.")
@click.option("--wake", is_flag=True, help="Ask the system even if that starts it.")
@click.option(
    "--lost", is_flag=True, help="Ask again for runs that the system did not know any more."
)
@click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@ledger_option
@plainly
def settle(
    system: str,
    since: str | None,
    until: str | None,
    everything: bool,
    dry_run: bool,
    wake: bool,
    lost: bool,
    style: str,
    ledger: str | None,
) -> None:
    """Give charges of SYSTEM the figures of its own history (docs/settlement.md).

    Settling again changes nothing that is settled and goes on with what was left. How SYSTEM is
    reached stands in [settle."SYSTEM"] of the configuration. What will be read, and what that
    costs, is said before it is done.

    Exit code 1: it could not be settled, or not all of it; the next run goes on.
    """
    from costinsights.settlement import NotAsked, SettlementError
    from costinsights.settlement import settle as work

    configuration()  # mistakes in it are said
    begin, end = moment_of("--since", since), moment_of("--until", until)
    try:
        with steps() as progress:
            report = work(
                system,
                begin,
                end,
                all=everything,
                dry_run=dry_run,
                wake=wake,
                lost=lost,
                ledger=ledger,
                said=say_reads,
                progress=progress,
            )
    except NotAsked as error:
        raise click.UsageError(str(error)) from error
    except SettlementError as error:
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


# --- the report ----------------------------------------------------------------------------------


def _table(report: Settled) -> Iterator[Line]:
    dry = "  (dry run: nothing was written)" if report.dry_run else ""
    yield [
        Piece(report.system, "bold"),
        Piece(f"  {report.since:%Y-%m-%d %H:%M} to {report.until:%Y-%m-%d %H:%M} UTC"),
        Piece(dry, "yellow"),
    ]
    if report.resumed is not None:
        yield _note(f"from {report.resumed:%Y-%m-%d %H:%M} on, where an earlier run had left off")
    yield _fact("queries", report.figures, "in the history")
    found = ", ".join(f"{count:,} {_HOW[how]}" for how, count in report.found.items())
    yield _fact("charges", report.charges, f"in the ledger; found {found or 'none of them'}")
    would = "would get" if report.dry_run else "got"
    yield _fact("settled", report.settled, f"{would} a better figure now")
    if report.running:
        yield _fact("running", report.running, f"go on; {would} what they have used so far")
    if report.unchanged:
        yield _fact("unchanged", report.unchanged, "had this figure already")
    if report.outside:
        became = f"; {report.added:,} became charges now" if report.added else ""
        hint = "" if report.added or report.unchanged else "; --all makes charges of them"
        yield _fact("outside", report.outside, f"ran in no instrumented program{became or hint}")
    if report.idle:
        yield _fact("idle", report.idle, "rows of idle capacity and of our own use of it")
    for currency, kinds in report.amounts.items():
        for kind, name in _KINDS.items():
            if kind in kinds:
                amount = Decimal(kinds[kind])
                yield [Piece(f"{amount:>22,.9f} {currency}  ", "bold"), Piece(name)]
    if report.requests:
        yield _fact("requests", report.requests, f"to the system{_cost(report)}")
    for reason, count in report.left.items():
        yield _fact("left", count, reason, "yellow")
    if report.lost:
        text = "the system no longer knows; --lost asks for them again"
        yield _fact("lost", report.lost, text, "red")
    if report.without:
        yield _fact(
            "without", report.without, "charges that the history has nothing about", "yellow"
        )
    for reason, count in report.unpriced.items():
        yield _fact("unpriced", count, reason, "yellow")
    for reason in report.incomplete:
        yield _note(reason, "yellow")
    if report.next_since is not None:
        yield _note(f"The next run goes on from {report.next_since:%Y-%m-%d %H:%M} UTC.")


def _cost(report: Settled) -> str:
    if report.cost is None:
        return ""
    return f", for {Decimal(report.cost):,.9f} {report.currency}"


def _fact(name: str, count: int, text: str, style: str = "") -> Line:
    return [Piece(f"  {name:<10}", "dim"), Piece(f"{count:>10,}  "), Piece(text, style)]


def _note(text: str, style: str = "dim") -> Line:
    return [Piece(f"  {text}", style)]
