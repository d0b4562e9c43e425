"""``costinsights export``: brings to exporters what ended programs have left in the ledger."""

from __future__ import annotations

import sys
from contextlib import suppress
from time import monotonic

import click

from costinsights.cli.console import (
    EXIT_FAILED,
    configuration,
    ledger_at,
    ledger_option,
    plainly,
    steps,
)


@click.command()
@click.argument("names", nargs=-1, metavar="[EXPORTER]...")
@click.option("--out", default="", metavar="DIR", help="Where focus writes its files.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop after this long.  [default: when all is done, or one keeps failing]",
)
@ledger_option
@plainly
def export(names: tuple[str, ...], out: str, timeout: float | None, ledger: str | None) -> None:
    """Export what ended programs have left: to EXPORTER..., or to those of the configuration.

    What a program that still runs writes, it exports itself. Each exporter keeps its place, so
    nothing goes twice. focus writes the whole ledger, with the bill, to --out: of that, what has
    changed. Exit code 1: something is left.
    """
    from costinsights.exporter import ExporterUnavailable, WholeExporter
    from costinsights.followers import export_all, make_exporter
    from costinsights.ledger import tallies

    config = configuration()
    directory = ledger_at(ledger)
    wanted = names or config.exporters or ()
    if not wanted:
        raise click.UsageError(
            "name an exporter (costinsights doctor lists them), or set exporters in "
            "costinsights.toml or COSTINSIGHTS_EXPORTERS"
        )
    try:
        exporters = [
            make_exporter(name, config._replace(ledger=directory)) for name in dict.fromkeys(wanted)
        ]
    except ExporterUnavailable as error:
        raise click.UsageError(str(error)) from error
    with suppress(OSError):  # of a ledger that is not ours to write, segments can be exported
        tallies.settle(directory)
    whole = [exporter for exporter in exporters if isinstance(exporter, WholeExporter)]
    if out and len(whole) != 1:
        raise click.UsageError("--out is for one exporter that writes the whole ledger: focus")
    named = config.exporters or ()
    followed = [
        # Programs hand charges to those that are named, so dead ones may have left some to them.
        exporter
        for exporter in exporters
        if exporter not in whole or exporter.name in named
    ]
    deadline = None if timeout is None else monotonic() + timeout
    finished = True
    for summary in export_all(directory, followed, deadline):
        finished &= summary.finished
        refused = f", {summary.rejected:,} refused" if summary.rejected else ""
        problem = "" if summary.finished else f"; not finished: {summary.problem}"
        if not any(summary.exporter == exporter.name for exporter in whole):
            line = f"{summary.exporter}: {summary.exported:,} charges{refused}{problem}"
            click.echo(line, err=True)
    for exporter in whole:
        try:
            with steps() as progress:
                done = exporter.write(out, progress)
        except ExporterUnavailable as error:
            raise click.UsageError(f"{exporter.name}: {error}") from error
        except OSError as error:
            raise click.ClickException(f"{exporter.name}: {error}") from error
        click.echo(f"{exporter.name}: {done}", err=True)
    if not finished:
        sys.exit(EXIT_FAILED)


def export_late(ledger: str | None) -> None:
    """Have later figures told where an exporter of the configuration waits for them: dagster.

    That it cannot be done now is said, and done by ``costinsights export`` or the next time.
    """
    from costinsights import config as configured
    from costinsights.exporter import ExporterUnavailable, WholeExporter
    from costinsights.followers import make_exporter
    from costinsights.plugins import EXPORTERS, find

    config = configured.load()  # mistakes in it have been said
    known = find(EXPORTERS)
    for name in dict.fromkeys(config.exporters or ()):
        try:
            if name not in known or not getattr(known[name].load(), "late", False):
                continue
            exporter = make_exporter(name, config._replace(ledger=ledger or config.ledger))
            if isinstance(exporter, WholeExporter):
                click.echo(f"{name}: {exporter.write()}", err=True)
        except (ImportError, ExporterUnavailable, OSError) as error:
            click.echo(f"{name}: {error}", err=True)
