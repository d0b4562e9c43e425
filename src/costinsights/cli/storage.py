"""``costinsights storage``: what lies in buckets, and what a month of it costs."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from costinsights.cli.console import EXIT_FAILED, configuration, plainly, show, width
from costinsights.report.layout import Column, Piece, lay_out
from costinsights.report.money import UNKNOWN, decimals, money

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from costinsights.buckets import Held, Sized
    from costinsights.report.layout import Line

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_STEP = 1024


@click.group()
def storage() -> None:
    """See what lies in buckets, and what a month of it costs."""


@storage.command()
@click.argument("buckets", nargs=-1, required=True, metavar="BUCKET…")
@click.option(
    "--list", "listing", is_flag=True, help="List the buckets, which costs a request for each page."
)
@click.option(
    "--cap",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="How many pages a list of one bucket takes at most.",
)
@click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@plainly
def size(buckets: tuple[str, ...], listing: bool, cap: int, style: str) -> None:
    """Say how large each BUCKET is now, by class (docs/storage.md).

    BUCKET is s3://BUCKET, gs://BUCKET, az://ACCOUNT or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net.
    The cloud's own monitoring is asked: CloudWatch, Cloud Monitoring, Azure Monitor. Nothing is
    listed without --list, which says before how many requests it takes.

    Exit code 1: the size of a bucket could not be told, or not of all of it.
    """
    from costinsights.buckets import sizes
    from costinsights.vendor import VendorError

    config = configuration()
    try:
        found = list(
            sizes(
                buckets,
                listing=listing,
                cap=cap,
                config=config,
                said=lambda text: click.echo(text, err=True),
            )
        )
    except VendorError as error:
        raise click.UsageError(str(error)) from error
    if style == "json":
        import msgspec

        rows = [{**msgspec.structs.asdict(one), "bytes": one.bytes} for one in found]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    else:
        show(list(_report(found)))
    for one in found:
        if one.error:
            click.echo(f"Error: {one.url}: {one.error}", err=True)
            if one.grant:
                click.echo(f"It needs:\n\n    {one.grant}", err=True)
    if not all(one.whole for one in found):
        sys.exit(EXIT_FAILED)


# --- the table -----------------------------------------------------------------------------------


def _report(found: Sequence[Sized]) -> Iterator[Line]:
    rows = [(one, held) for one in found for held in one.held]
    if rows:
        yield from _table(rows)
    for one in found:
        if not one.error:
            yield [Piece(f"{one.url}  ", "bold"), Piece(_told(one))]
            for note in one.notes:
                yield [Piece(f"  {note}", "dim")]
            for reason in dict.fromkeys(held.reason for held in one.held if held.reason):
                yield [Piece(f"  {reason}", "yellow")]


def _table(rows: Sequence[tuple[Sized, Held]]) -> Iterator[Line]:
    amounts = [None if held.amount is None else Decimal(held.amount) for _, held in rows]
    totals: dict[str, Decimal] = {}
    for (_, held), amount in zip(rows, amounts, strict=True):
        if amount is not None and held.currency is not None:
            totals[held.currency] = totals.get(held.currency, Decimal(0)) + amount
    unknown = any(amount is None for amount in amounts)
    places = decimals([*amounts, *totals.values()])
    sums = [money(total, currency, places) for currency, total in totals.items()] or [UNKNOWN]
    blank = [Piece("")] * (len(sums) - 1)
    counts = [held.objects for _, held in rows]
    columns = [
        Column(
            "bucket",
            [*(Piece(one.url) for one, _ in rows), Piece("total", "bold"), *blank],
            False,
            flexible=True,
        ),
        Column("class", [*(Piece(held.name) for _, held in rows), Piece(""), *blank], False),
        Column(
            "region",
            [*(Piece(one.region or UNKNOWN) for one, _ in rows), Piece(""), *blank],
            False,
            spare=1,
        ),
        Column(
            "objects", [*(Piece(_count(number)) for number in counts), Piece(""), *blank], spare=2
        ),
        Column(
            "size",
            [
                *(Piece(_size(held.bytes)) for _, held in rows),
                Piece(_size(sum(held.bytes for _, held in rows)), "bold"),
                *blank,
            ],
        ),
        Column(
            "a month",
            [
                *(
                    Piece(money(amount, held.currency, places))
                    for (_, held), amount in zip(rows, amounts, strict=True)
                ),
                *(Piece(text, "bold") for text in sums),
            ],
        ),
    ]
    yield []
    yield from lay_out(columns, width(), rule_before=len(rows))
    if unknown and totals:
        yield [Piece(f"{UNKNOWN} has no price, and is not in the total", "yellow")]
    yield []


def _told(one: Sized) -> str:
    """Return who says it, as of when, and what the question cost."""
    when = f"as of {one.at:%Y-%m-%d %H:%M} UTC" if one.at is not None else "no figure"
    number = f", {one.objects:,} objects" if one.objects is not None else ""
    requests = "1 request" if one.requests == 1 else f"{one.requests} requests"
    cost = (
        "whose price is not in the book"
        if one.cost is None
        else f"for {money(Decimal(one.cost), one.cost_currency, 7)}"
    )
    return f"{one.source}, {when}{number}; asked with {requests}, {cost}"


def _size(size: int) -> str:
    number, unit = float(size), 0
    while number >= _STEP and unit < len(_UNITS) - 1:
        number, unit = number / _STEP, unit + 1
    return f"{number:,.1f} {_UNITS[unit]}" if unit else f"{size} B"


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"
