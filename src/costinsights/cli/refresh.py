"""`costinsights prices refresh`: the vendors' prices of today, held against the book's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from rich.text import Text

from costinsights.cli.console import EXIT_LIMIT, configuration, ledger_option, plainly, progress
from costinsights.cli.tables import count, display, table_of
from costinsights.pricing import PriceBook, PriceBookError, applying
from costinsights.pricing.refresh import (
    VENDORS,
    Place,
    RefreshError,
    base,
    default_folder,
    keep,
    reader,
    refresh,
    used,
    wanted_of,
)
from costinsights.pricing.refreshing.fetching import MOST_BYTES, TooMuch
from costinsights.pricing.refreshing.findings import DOUBTS, KINDS

if TYPE_CHECKING:
    from costinsights.config import Config
    from costinsights.pricing.refresh import Refreshed
    from costinsights.pricing.refreshing.findings import Finding

NOTHING = "—"


@click.command("refresh")
@click.argument("vendor", required=False, type=click.Choice(VENDORS))
@click.option("--region", "regions", multiple=True, help="This region; may be given several times.")
@click.option("--system", "systems", multiple=True, help="Only what prices this system: aws.s3 …")
@click.option("--out", metavar="DIR", help="The folder of the new file.  [default: your own]")
@click.option("--apply", "--yes", "apply", is_flag=True, help="Put the new file into force.")
@click.option(
    "--accept", "accepted", multiple=True, metavar="KEY", help="Take this line, doubts or not."
)
@click.option("--lookups", multiple=True, metavar="FILE", help="How further lines are found.")
@click.option("--currency", default="USD", show_default=True, help="Of Azure and Google.")
@click.option("--query", is_flag=True, help="AWS: ask the query API and read no files.")
@click.option("--max-bytes", default=MOST_BYTES, show_default=True, help="Read no more than this.")
@click.option("--endpoint", default="", metavar="URL", help="Ask there: a mirror, a test.")
@ledger_option
@plainly
def refresh_(
    vendor: str | None,
    regions: tuple[str, ...],
    systems: tuple[str, ...],
    out: str | None,
    apply: bool,
    accepted: tuple[str, ...],
    lookups: tuple[str, ...],
    currency: str,
    query: bool,
    max_bytes: int,
    endpoint: str,
    ledger: str | None,
) -> None:
    """Ask VENDOR for today's prices of the lines that the book has, and show what has changed.

    Looked for is what the ledger's charges use, where they use it, or what --region and --system
    say; without a VENDOR, at all of whom something is used. The prices go into a new file; with
    --apply the configuration names it in price_books, without it nothing uses it. What is in doubt
    is said and left out: a price that is not found any more, that costs nothing now, that is ten
    times what it was, that is there twice.
    """
    if endpoint and vendor is None:
        raise click.UsageError("--endpoint is of one vendor: say which")
    config = configuration()
    places = _places(config, ledger, regions, systems)
    books = list(config.price_books)
    paths: list[str] = []
    try:
        before = base(config.price_books)
        for name in (vendor,) if vendor else _used_vendors(config, before, places):
            with progress(f"asking {name}") as advance:
                prices = reader(
                    name,
                    endpoint=endpoint,
                    most_bytes=max_bytes,
                    currency=currency,
                    query=query,
                    settlement=config.settlement,
                    progress=advance,
                )
                found = refresh(name, prices, before, places, accepted=accepted, own=lookups)
            _tell(found)
            if found.lines:
                paths.append(keep(found, os.path.abspath(out or default_folder())))
                books = applying.in_force(books, paths[-1])
        if not paths:
            raise click.ClickException("no price was taken, so no file was written")
        _put(config, paths, books, apply=apply)
    except TooMuch as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(EXIT_LIMIT) from None
    except RefreshError as error:
        needed = f"\n\nWhat is needed:\n{error.grant}" if error.grant else ""
        raise click.ClickException(f"{error}{needed}") from None
    except PriceBookError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise click.ClickException(str(error)) from None


def _used_vendors(config: Config, book: PriceBook, places: list[Place]) -> list[str]:
    """Return those of whom something is used; Databricks only where it is said how to ask it."""
    return [
        name
        for name in VENDORS
        if (name != "databricks" or "databricks" in config.settlement)
        and wanted_of(book, name, places)[0]
    ]


def _places(
    config: Config, ledger: str | None, regions: tuple[str, ...], systems: tuple[str, ...]
) -> list[Place]:
    """Return what is looked for: what is said, or what is used."""
    if regions:
        return [Place(region, system) for region in regions for system in systems or ("",)]
    directory = ledger or config.ledger
    found: list[Place] = []
    if os.path.isdir(directory):
        from costinsights.ledger.store import open_store

        with open_store(directory) as store:
            found = [place for place in used(store) if not systems or place.system in systems]
    found += [
        Place(resource.region, resource.service or "")
        for resource in config.resources
        if resource.region and resource.service
    ]
    if not found:
        raise click.UsageError(
            "neither the ledger nor the configuration says what is used: say --region, and --system "
            "for less than everything"
        )
    return found


def _put(config: Config, paths: list[str], books: list[str], *, apply: bool) -> None:
    click.echo("")
    for path in paths:
        click.echo(f"{path} has the new prices.")
    if not apply:
        click.echo(
            "Nothing uses it yet. To put it into force, do the same with --apply, or write into the "
            f"configuration:\n\n  {applying.line_of(books)}"
        )
        return
    folder = default_folder()
    old = PriceBook.load(*config.price_books, capacities=config.capacities)
    new = PriceBook.load(*books, capacities=config.capacities)
    applying.note(folder, old, config.price_books)
    applying.note(folder, new, books)
    where = applying.put(config.path, books)
    click.echo(f"In force from now on, by price_books in {where}.")
    click.echo(f"The book is {new.version}; it was {old.version}.")
    if os.environ.get("COSTINSIGHTS_PRICE_BOOK"):
        click.echo("But COSTINSIGHTS_PRICE_BOOK is set, and goes over the configuration.", err=True)


# -- what is said -----------------------------------------------------------------------------------


def _tell(found: Refreshed) -> None:
    shown = [one for one in found.findings if one.kind not in ("same", "absent")]
    if shown:
        table = table_of("key", "old", "new", "change", "per", "", right=("old", "new", "change"))
        for one in shown:
            table.add_row(*map(Text, _row(one)))
        display(table)
    kinds: dict[str, int] = {}
    for one in found.findings:
        kinds[one.kind] = kinds.get(one.kind, 0) + 1
    said = [f"{n} {kind}" for kind, n in sorted(kinds.items(), key=lambda item: item[0])]
    click.echo(f"{count(found.findings, 'price')}: {', '.join(said) or 'none'}.")
    doubts = sum(n for kind, n in kinds.items() if kind in DOUBTS)
    if doubts:
        click.echo(f"{doubts} of them were not taken: look at the table.", err=True)
    for why, keys in found.unfound.items():
        names = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        click.echo(f"Not looked for: {names}: {why}.", err=True)


def _row(one: Finding) -> tuple[str, ...]:
    old = NOTHING if one.old is None else one.old.price_text
    new = NOTHING if one.new is None else one.new.price_text
    change = ""
    if one.old is not None and one.change is not None and one.old.price:
        change = f"{one.change / one.old.price * 100:+.1f} %" if one.change else ""
    line = one.new or one.old
    per = "" if line is None else f"{line.currency} per {line.unit}"
    what = KINDS[one.kind] if not one.why else f"{KINDS[one.kind]} ({one.why})"
    return one.key, old, new, change, per, what
