"""`costinsights prices`: the price book on the command line."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal, InvalidOperation
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import click
from rich.text import Text

from costinsights.cli.console import configuration, ledger_at, ledger_option, plainly, progress
from costinsights.cli.tables import count, display, facts, harmless, table_of
from costinsights.pricing import PriceBook, PriceBookError, stale
from costinsights.report.layout import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from costinsights.pricing import PriceLine, Quote

UNKNOWN = "—"

_own_prices = click.option(
    "--prices",
    "own",
    multiple=True,
    metavar="FILE",
    envvar="COSTINSIGHTS_PRICE_BOOK",
    type=click.Path(dir_okay=False),
    help="A price file of your own, over the built-in ones; may be given several times.",
)


def _formats(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--format", "style", type=click.Choice(names), default="table", show_default=True
    )


_FURTHER = {
    "refresh": "costinsights.cli.refresh:refresh_",
    "reprice": "costinsights.cli.reprice:reprice_",
}
"""Commands with a file of their own, loaded when they are used."""


class _Prices(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted((*super().list_commands(ctx), *_FURTHER))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _FURTHER:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _FURTHER[cmd_name].partition(":")
        return cast("click.Command", getattr(import_module(module), attribute))


@click.group(cls=_Prices)
def prices() -> None:
    """Look at the price book, check a price file, ask what a usage would cost."""


@prices.command("list")
@click.option("--system", help="Only what prices this system: aws.glue, postgresql, aws.rds …")
@click.option("--region", help="Only what holds in this region.")
@click.option("--provider", help="Only this provider: aws, azure, gcp, databricks, snowflake.")
@click.argument("text", required=False)
@_formats("table", "json", "csv")
@_own_prices
def list_(
    text: str | None,
    system: str | None,
    region: str | None,
    provider: str | None,
    style: str,
    own: tuple[str, ...],
) -> None:
    """List price lines, those that mention TEXT if it is given."""
    lines = _load(own).lines(system=system, region=region, provider=provider, text=text)
    if style == "json":
        click.echo(json.dumps([_line_fields(line) for line in lines], indent=2, ensure_ascii=False))
    elif style == "csv":
        _write_csv(lines)
    else:
        table = table_of("key", "price", "currency", "per", "as of", right=("price",))
        for line in lines:
            table.add_row(
                *map(Text, (line.key, line.price_text, line.currency, line.unit, _dated(line)))
            )
        if lines:
            display(table)
        old = [line.key for line in lines if stale.is_stale(line.as_of, stale.today())]
        if old:
            click.echo(
                f"{count(old, 'is', 'are')} stale, more than a year old: {stale.advice(old)}"
            )
        click.echo(count(lines, "price line"))


@prices.command()
@click.argument("key")
@_formats("table", "json")
@_own_prices
def show(key: str, style: str, own: tuple[str, ...]) -> None:
    """Show all that the book says about the line KEY."""
    book = _load(own)
    line = book.get(key)
    if line is None:
        raise click.UsageError(f"no price line has the key {key!r}.{_nearest(key, book)}")
    fields = _line_fields(line)
    if style == "json":
        click.echo(json.dumps(fields, indent=2, ensure_ascii=False))
        return
    display(facts(fields))


@prices.command()
@click.argument("system")
@_formats("table", "json")
@_own_prices
def meters(system: str, style: str, own: tuple[str, ...]) -> None:
    """List what a quote for SYSTEM can be asked in."""
    book = _load(own)
    found = book.meters(system)
    if not found:
        raise click.UsageError(
            f"the book has no price for {system!r}; it has {', '.join(book.systems())}"
        )
    if style == "json":
        names = ("name", "kind", "units", "regions", "dims", "gives")
        rows = [{name: getattr(meter, name) for name in names} for meter in found]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = table_of("meter", "priced per", "depends on", "regions")
    for meter in found:
        per = ", ".join(meter.units) if meter.kind == "priced" else f"→ {', '.join(meter.gives)}"
        words = (meter.name, per, ", ".join(meter.dims), ", ".join(meter.regions))
        table.add_row(*map(Text, words))
    display(table)


@prices.command()
@click.argument("service")
@click.option("--region", required=True, help="The cloud's region: us-east-1 …")
@click.option("--account", metavar="NAME", help="Google's project, Azure's subscription.")
@_own_prices
def describe(service: str, region: str, account: str | None, own: tuple[str, ...]) -> None:
    """Ask the cloud what your databases of SERVICE are, and keep that for pricing their hours.

    SERVICE is aws.rds, aws.redshift, aws.redshift_serverless, gcp.cloud_sql, azure.database or
    azure.sql, and must stand in `describe` of the configuration. Asked with the credentials that
    the cloud's own library finds; docs/systems/cloud_databases.md has the permissions.
    """
    from datetime import datetime, timezone

    from costinsights import described, describing, hourly
    from costinsights.config import load

    if service not in load().describe:
        raise click.UsageError(
            f'the configuration does not allow that: write  describe = ["{service}"]  in it'
        )
    try:
        found = describing.describe(service, region, **({"account": account} if account else {}))
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        where = described.keep(described.Answer(service, region, now, found))
    except (describing.DescribeError, OSError) as error:
        raise click.ClickException(str(error)) from None
    book = _load(own)
    table = table_of("name", "host", "size", "an hour", right=("an hour",))
    for one in found:
        prices = hourly.derived([one], book).capacities
        size = " ".join((*one.dimensions.values(), *(f"× {n}" for n in one.hourly.values())))
        hour = f"{prices[0]['price']} {prices[0]['currency']}" if prices else UNKNOWN
        table.add_row(*map(Text, (one.name, "\n".join(one.hosts), size or UNKNOWN, hour)))
    if found:
        display(table)
    click.echo(f"{count(found, 'resource')} kept in {where}")
    for problem in hourly.derived(found, book).problems:
        click.echo(problem, err=True)


@prices.command()
@click.argument("file", type=click.Path(dir_okay=False))
def check(file: str) -> None:
    """Check a price file: say what it holds, or the line that is wrong (exit code 2)."""
    from costinsights.pricing.document import read
    from costinsights.pricing.files import parse

    try:
        book = PriceBook.load(file)
        found = parse(file, read(file), layer=1)
    except PriceBookError as error:
        raise _Refused(str(error)) from None
    built_in = PriceBook.load()
    overridden = sum(1 for key in found.lines if built_in.get(key) is not None)
    counts = (
        f"{count(found.lines, 'price line')} ({overridden} of them over built-in ones)",
        count(found.rules, "rule"),
        count(found.discounts, "discount"),
        count(found.entries, "capacity", "capacities"),
    )
    click.echo(f"{file}: good: {', '.join(counts)}; book {book.version}")


@prices.command()
@click.argument("system")
@click.argument("terms", nargs=-1, required=True, metavar="METER=QUANTITY... [KEY=VALUE]...")
@click.option("--region", help="Where it ran, in the provider's own name.")
@click.option("--at", metavar="DAY", help="Prices that held on this day; today by default.")
@_formats("table", "json")
@_own_prices
def quote(
    system: str,
    terms: tuple[str, ...],
    region: str | None,
    at: str | None,
    style: str,
    own: tuple[str, ...],
) -> None:
    """Say what a usage of SYSTEM costs, by which rule and which price line.

    A METER=QUANTITY is what was used, a KEY=VALUE what else sets the price.
    """
    from costinsights.pricing.quoting import quote as ask

    book = _load(own)
    known = {dim for meter in book.meters(system) for dim in meter.dims} | {"service"}
    usage: dict[str, str] = {}
    dims: dict[str, str] = {}
    for name, value in map(_pair, terms):
        if name == "region":
            region = value
            continue
        kind = dims if name in known or not _is_number(value) else usage
        if name in kind:
            raise click.UsageError(f"{name} is given twice")
        kind[name] = value
    _print_quote(ask(book, system, usage, region, dims, at), style)


@prices.command("missing")
@_formats("table", "json")
@ledger_option
@plainly
def missing_(style: str, ledger: str | None) -> None:
    """List what the ledger's charges have no price for, and what to add.

    Each gap is told once, with the calls that it leaves without a price. Exit code 0, gaps or not.
    """
    from costinsights.ledger.store import open_store
    from costinsights.plugins import HISTORIES, find
    from costinsights.report.missing import missing

    directory = ledger_at(ledger)
    config = configuration()
    try:
        book = PriceBook.load(*config.price_books, capacities=config.capacities)
    except PriceBookError as error:
        raise _Refused(str(error)) from None
    with progress("reading") as advance, open_store(directory, progress=advance) as store:
        found = missing(store, book, tuple(find(HISTORIES)))
    if style == "json":
        click.echo(json.dumps([gap._asdict() for gap in found], indent=2, ensure_ascii=False))
        return
    if not found:
        click.echo("Every charge has a price.")
        return
    table = table_of("system", "where", "missing", "calls", "what to do", right=("calls",))
    for gap in found:
        where = visible(gap.where)
        table.add_row(*map(Text, (gap.system, where, gap.key, f"{gap.calls:,}", gap.add)))
    display(table)


class _Refused(click.ClickException):
    """A price file that is not taken."""

    exit_code = 2


def _load(own: Sequence[str]) -> PriceBook:
    try:
        return PriceBook.load(*own)
    except PriceBookError as error:
        raise _Refused(str(error)) from None


def _pair(term: str) -> tuple[str, str]:
    name, equals, value = term.partition("=")
    if not (name and equals and value):
        raise click.UsageError(f"{term!r} is not METER=QUANTITY or KEY=VALUE")
    return name, value


def _is_number(value: str) -> bool:
    try:
        Decimal(value)
    except InvalidOperation:
        return False
    return True


def _nearest(key: str, book: PriceBook) -> str:
    import difflib

    near = difflib.get_close_matches(key, [line.key for line in book.lines()], n=3)
    return f" Did you mean {', '.join(near)}?" if near else ""


# What is printed


def _print_quote(quote: Quote, style: str) -> None:
    if style == "json":
        click.echo(json.dumps(_quote_fields(quote), indent=2, ensure_ascii=False))
        return
    if quote.amount is None:
        display(facts({"amount": UNKNOWN, "basis": quote.basis, "why": quote.reason}))
        return
    display(
        facts(
            {
                "amount": f"{quote.amount:,f} {quote.currency}",
                "basis": quote.basis,
                "formula": quote.formula,
                "rule": quote.rule,
                "price": [line.key for line in quote.lines],
                "as of": list(dict.fromkeys(line.as_of for line in quote.lines)),
                "source": list(dict.fromkeys(line.source for line in quote.lines)),
                "note": list(quote.notes),
                "book": quote.book,
            }
        )
    )


def _quote_fields(quote: Quote) -> dict[str, object]:
    return {
        "system": quote.system,
        "amount": None if quote.amount is None else f"{quote.amount:f}",
        "currency": quote.currency,
        "basis": quote.basis,
        "formula": quote.formula.splitlines(),
        "rule": quote.rule,
        "reason": quote.reason,
        "notes": quote.notes,
        "parts": [
            {
                "key": part.line.key,
                "quantity": f"{part.quantity:f}",
                "meter": part.line.meter,
                "units": f"{part.units:f}",
                "unit": part.line.unit,
                "unit_price": part.line.price_text,
                "amount": f"{part.amount:f}",
                "as_of": part.line.as_of,
                "source": part.line.source,
            }
            for part in quote.parts
        ],
        "book": quote.book,
    }


def _line_fields(line: PriceLine) -> dict[str, Any]:
    """Every field in the words of a price file, numbers as text."""
    return {
        "key": line.key,
        "provider": line.provider,
        "service": line.service,
        "sku": line.sku,
        "system": line.system,
        "also": line.also,
        "resource_service": line.resource_service,
        "meter": line.meter,
        "dims": line.dims,
        "defaults": line.defaults,
        "region": line.region,
        "regions": line.regions,
        "unit": line.unit,
        "unit_scale": f"{line.unit_scale:f}",
        "price": line.price_text,
        "currency": line.currency,
        "list_price": _number(line.list_price),
        "discounts": line.discounts,
        "minimum": _number(line.minimum),
        "increment": _number(line.increment),
        "tier_from": _number(line.tier_from),
        "tier_to": _number(line.tier_to),
        "allowance": _number(line.allowance),
        "valid_from": line.valid_from,
        "valid_to": line.valid_to,
        "free": line.free,
        "unsourced": line.unsourced,
        "as_of": line.as_of,
        "stale": stale.is_stale(line.as_of, stale.today()),
        "source": line.source,
        "note": line.note,
        "origin": line.origin,
    }


def _dated(line: PriceLine) -> str:
    """Return a line's date, with a word where it is too long ago."""
    is_old = stale.is_stale(line.as_of, stale.today())
    return f"{line.as_of}, {stale.WORD}" if is_old else line.as_of


def _number(number: Decimal | None) -> str | None:
    return None if number is None else f"{number:f}"


def _write_csv(lines: Sequence[PriceLine]) -> None:
    names = "key system provider service meter region unit price currency as_of source".split()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for line in lines:
        fields = _line_fields(line)
        writer.writerow([harmless(str(fields[name])) for name in names])
    click.echo(text.getvalue(), nl=False)
