"""`costinsights prices reprice`: what charges would cost by another price book."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal

import click
from rich.text import Text

from costinsights.cli.console import (
    configuration,
    ledger_at,
    ledger_option,
    plainly,
    progress,
    steps,
)
from costinsights.cli.tables import display, table_of
from costinsights.pricing import PriceBookError
from costinsights.pricing.refresh import default_folder
from costinsights.pricing.reprice import Repriced, book_for, reprice
from costinsights.report.money import decimals, money
from costinsights.report.period import FORMS, period

LOCK = "reprice"


@click.command("reprice")
@click.option("--since", required=True, metavar="TIME", help=f"Where to begin: {FORMS}.")
@click.option("--until", metavar="TIME", help="Where to end.  [default: now]")
@click.option(
    "--book",
    "books",
    multiple=True,
    metavar="FILE|VERSION",
    help="Price files over the shipped ones, or a version of the book.  [default: the one in force]",
)
@click.option("--dry-run", is_flag=True, help="Say what would change, and write nothing.")
@ledger_option
@plainly
def reprice_(
    since: str, until: str | None, books: tuple[str, ...], dry_run: bool, ledger: str | None
) -> None:
    """Price the ledger's charges again, by the book in force or by another one.

    A charge that comes out different gets a later entry, with the same basis. What was billed, what
    is a share of capacity, and what has no price stays as it is; that is said.
    """
    from costinsights.ledger.store import open_store
    from costinsights.settlement.state import Busy, alone

    directory = ledger_at(ledger)
    config = configuration()
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    try:
        time = period(since, until, now)
        book = book_for(books, config.price_books, config.capacities, default_folder())
    except (ValueError, PriceBookError) as error:
        raise click.UsageError(str(error)) from None
    try:
        with (
            alone(directory, LOCK),
            progress("reading") as advance,
            open_store(directory, progress=advance) as store,
            steps() as shown,
        ):
            found = reprice(
                store,
                book,
                time.since or now,
                time.until,
                dry_run=dry_run,
                exporters=config.exporters or (),
                progress=None if shown is None else lambda done: shown("pricing", done, None),
            )
    except Busy as error:
        raise click.ClickException(str(error)) from None
    _tell(found, dry_run=dry_run)


def _tell(found: Repriced, *, dry_run: bool) -> None:
    if found.changes:
        table = table_of(
            "system",
            "price",
            "charges",
            "before",
            "after",
            "difference",
            right=("charges", "before", "after", "difference"),
        )
        for one in found.changes:
            places = decimals([one.before, one.after])
            words = (
                one.system,
                one.key,
                f"{one.charges:,}",
                money(one.before, one.currency, places),
                money(one.after, one.currency, places),
                money(one.difference, one.currency, places, sign="+"),
            )
            table.add_row(*map(Text, words))
        display(table)
    changed = sum(one.charges for one in found.changes)
    would = "would be another amount" if dry_run else "are another amount now"
    click.echo(f"Charges, by book {found.book}: {changed:,} {would}, {found.same:,} stay the same.")
    for currency in dict.fromkeys(one.currency for one in found.changes):
        total = sum(
            (one.difference for one in found.changes if one.currency == currency), Decimal(0)
        )
        click.echo(f"In all {total:+f} {currency}.")
    for why, number in sorted(found.left.items(), key=lambda item: -item[1]):
        click.echo(f"Left as they are: {number:,}: {why}.")
    if not dry_run:
        click.echo(f"Entries written: {found.written:,}.")
