"""``costinsights ledger``: look at the ledger itself, check it, make it small."""

from __future__ import annotations

import json
import os
import sys
from time import sleep
from typing import TYPE_CHECKING

import click
import msgspec

from costinsights.cli.console import (
    EXIT_FAILED,
    configuration,
    ledger_at,
    ledger_option,
    plainly,
    progress,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costinsights.ledger.reader import SegmentReader
    from costinsights.records import Charge

FOLLOW_SECONDS = 0.5


@click.group()
def ledger() -> None:
    """Look at the ledger itself: print, check, compact."""


@ledger.command()
@ledger_option
def where(ledger: str | None) -> None:
    """Print where the ledger is."""
    click.echo(os.path.abspath(ledger or configuration().ledger))


@ledger.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with what programs write from now on.")
@click.option(
    "--charge", "charge_id", metavar="ID", help="Only this charge; its beginning will do."
)
@ledger_option
@plainly
def cat(follow: bool, charge_id: str | None, ledger: str | None) -> None:
    """Print every entry as one line of JSON (docs/ledger.md says what is in it).

    A charge has an entry for each of its later figures. With the same charge_id, the best basis
    counts, then the highest revision.
    """
    directory = ledger_at(ledger)
    try:
        if follow:
            _print(_followed(directory), charge_id)
        else:
            _print(_everything(directory, charge_id), charge_id)
    except KeyboardInterrupt:
        sys.exit(0)


def _print(charges: Iterator[Charge], prefix: str | None) -> None:
    encode = msgspec.json.Encoder().encode
    out = sys.stdout.buffer
    for charge in charges:
        if prefix is None or charge.charge_id.startswith(prefix):
            out.write(encode(charge) + b"\n")
            if sys.stdout.isatty():
                out.flush()
    out.flush()


def _everything(directory: str, prefix: str | None) -> Iterator[Charge]:
    from costinsights.ledger.live import literal
    from costinsights.ledger.manifest import load
    from costinsights.ledger.reader import read_ledger
    from costinsights.ledger.store import open_store

    if not load(directory).files:
        yield from read_ledger(directory)  # nothing is compacted: DuckDB is not needed
        return
    where = "true" if prefix is None else f"starts_with(charge_id, {literal(prefix)})"
    with open_store(directory) as store:
        yield from store.charges(where, history=True)


def _followed(directory: str) -> Iterator[Charge]:
    """Yield what is written from now on, until the reader is tired of it."""
    from costinsights.ledger.reader import SegmentReader, is_live, segments

    readers: dict[str, SegmentReader] = {}
    for path in segments(directory):
        reader = readers[path] = SegmentReader(path)
        _advance(reader, ended=False)
    while True:
        for path in segments(directory):
            reader = readers.setdefault(path, SegmentReader(path))
            yield from _advance(reader, ended=not is_live(path))
        sys.stdout.flush()
        sleep(FOLLOW_SECONDS)


def _advance(reader: SegmentReader, *, ended: bool) -> list[Charge]:
    try:
        return reader.read(ended=ended)
    except FileNotFoundError:
        return []  # compacted: it had ended, and we had read it


@ledger.command()
@click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@ledger_option
@plainly
def verify(style: str, ledger: str | None) -> None:
    """Check every line and file; copy torn lines to the folder aside/.

    Exit code 0: everything is whole, or only lines are torn, as a killed process or a full disk
    leaves them. 1: something is damaged: a compacted file is missing or is not what was written,
    or a charge does not count exactly once.
    """
    from costinsights.billing.bill import check
    from costinsights.ledger.verify import verify as look

    directory = ledger_at(ledger)
    with progress("verifying") as advance:
        verdict = look(directory, advance)
    slices, wrong = check(directory)
    verdict = verdict._replace(damage=(*verdict.damage, *wrong))
    if style == "json":
        click.echo(
            json.dumps(
                {
                    "sound": verdict.sound,
                    "segments": verdict.segments,
                    "files": verdict.files,
                    "entries": verdict.entries,
                    "charges": verdict.charges,
                    "slices": slices,
                    "torn": [line._asdict() for line in verdict.torn],
                    "torn_before": verdict.torn_before,
                    "lost": verdict.lost,
                    "damage": verdict.damage,
                },
                indent=2,
            )
        )
    else:
        click.echo(
            f"{verdict.entries:,} entries of {verdict.charges:,} charges are whole, in "
            f"{verdict.segments:,} segments and {verdict.files:,} compacted files."
        )
        if slices:
            click.echo(f"{slices:,} slices of the bill are looked at.")
        for line in verdict.torn:
            click.echo(
                f"{line.path}: {line.length} bytes at {line.offset}: {line.reason}; "
                f"copied to {line.copy}"
            )
        if verdict.torn_before:
            click.echo(f"{verdict.torn_before:,} lines were set aside before, in aside/.")
        for reason, count in sorted(verdict.lost.items()):
            click.echo(f"{count:,} entries were lost before they could be written: {reason}.")
        for text in verdict.damage:
            click.echo(f"damaged: {text}", err=True)
    if not verdict.sound:
        sys.exit(EXIT_FAILED)


@ledger.command()
@click.option(
    "--keep-days",
    type=click.IntRange(min=1),
    metavar="N",
    help="Delete compacted days older than this.  [default: the configuration's, else keep all]",
)
@ledger_option
@plainly
def compact(keep_days: int | None, ledger: str | None) -> None:
    """Turn what ended programs have written into Parquet, a file a day.

    Segments that a program still writes, or that an exporter has not finished, stay as they are.
    Doing it again changes nothing; cron may do it every night.
    """
    from costinsights.ledger.compact import Busy
    from costinsights.ledger.compact import compact as work

    directory = ledger_at(ledger)
    if keep_days is None:
        keep_days = getattr(configuration(), "retention_days", None)
    try:
        with progress("compacting") as advance:
            done = work(directory, retention_days=keep_days, progress=advance)
    except Busy as error:
        click.echo(f"costinsights: {error}; it does what there is to do", err=True)
        return
    click.echo(
        f"{done.segments:,} segments with {done.entries:,} entries are now "
        f"{done.charges:,} charges in Parquet."
    )
    if done.torn:
        click.echo(f"{done.torn:,} torn lines are in {os.path.join(directory, 'aside')}.")
    if done.kept.live:
        click.echo(f"{done.kept.live:,} segments are still being written.")
    if done.kept.owed:
        click.echo(
            f"{done.kept.owed:,} segments wait for exporters: costinsights export brings them on."
        )
    if done.expired_days:
        click.echo(
            f"{done.expired_days:,} days with {done.expired_charges:,} charges were older than "
            f"{keep_days} days and are deleted."
        )
