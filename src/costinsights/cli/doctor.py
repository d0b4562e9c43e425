"""``costinsights doctor``: whether everything works here, and what will not be seen."""

from __future__ import annotations

import textwrap
from decimal import Decimal
from typing import TYPE_CHECKING

import click
import msgspec

from costinsights.cli.checkup import GENERAL_LIMITS, examine
from costinsights.cli.console import ledger_option, plainly, progress, show, width
from costinsights.report.layout import Line, Piece, visible
from costinsights.report.money import UNKNOWN, count, money

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costinsights.cli.checkup import (
        Checkup,
        Driver,
        ExporterState,
        LedgerState,
        Prices,
        PullerState,
        ReaderState,
    )

_GOOD, _OFF, _BAD = Piece("  ✓ ", "green"), Piece("  · ", "dim"), Piece("  ✗ ", "red")
_MARKS = {"hooked": _GOOD, "not installed": _OFF, "disabled": _OFF, "skipped": _BAD, "broken": _BAD}
_INDENT = 4
_IN_PYTHON = (
    "what each call does most runs in Python: with a C compiler there,  "
    "pip install --force-reinstall --no-binary costinsights costinsights  compiles it"
)
_PIPE_WIDTH = 100


@click.command()
@click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True
)
@ledger_option
@plainly
def doctor(style: str, ledger: str | None) -> None:
    """Say what is hooked, what is not and why, and how the ledger and its exporters are.

    It imports every driver that is installed and hooks it, in its own process. To see whom a
    program shares its drivers with, start it as that program is started:

    \b
      opentelemetry-instrument costinsights doctor
    """  # noqa: D301  \b is click's mark for a block that keeps its lines
    with progress("reading the ledger") as advance:
        found = examine(ledger, advance)
    if style == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        return
    show(list(_lines(found, min(width() or _PIPE_WIDTH, _PIPE_WIDTH))))


def _lines(found: Checkup, columns: int) -> Iterator[Line]:
    yield [Piece(f"costinsights {found.version}", "bold"), Piece(f"  Python {found.python}", "dim")]
    for text in found.warnings:
        yield from _wrapped(Piece("  ! ", "yellow"), text, columns)
    if not found.compiled:
        yield from _wrapped(_OFF, _IN_PYTHON, columns)
    yield from _headed("Drivers")
    for driver in found.drivers:
        yield from _driver(driver, columns)
    yield from _headed("Exporters")
    for exporter in found.exporters:
        yield _exporter(exporter)
    yield from _headed("History readers")
    for reader in found.histories:
        yield from _reader(reader, columns)
    yield from _headed("Pullers of the bill")
    for puller in found.pullers:
        yield from _puller(puller, columns)
    yield from _headed("Jobs in the background")
    yield from _jobs(found, columns)
    yield from _headed("Ledger")
    yield from _ledger(found.ledger, columns)
    yield from _headed("Prices")
    yield from _prices(found.prices, columns)
    yield from _headed("Configuration")
    for setting in found.settings:
        if setting.source != "default" or setting.name in ("ledger", "service", "tagging"):
            value = setting.value if isinstance(setting.value, str) else _compact(setting.value)
            yield [
                _OFF,
                Piece(f"{setting.name} = {visible(value)}"),
                Piece(f"  ({setting.source})", "dim"),
            ]
    for text in found.problems:
        yield from _wrapped(_BAD, text, columns)
    yield from _headed("Not seen")
    for driver in found.drivers:
        if driver.state == "hooked" and driver.not_seen:
            yield from _wrapped(_OFF, f"{driver.name}: {driver.not_seen}", columns)
    for text in GENERAL_LIMITS:
        yield from _wrapped(_OFF, text, columns)


def _headed(title: str) -> Iterator[Line]:
    yield []
    yield [Piece(title, "bold")]


def _driver(driver: Driver, columns: int) -> Iterator[Line]:
    name = Piece(f"{driver.name:<20}", "" if driver.state == "hooked" else "dim")
    if driver.state == "hooked":
        version = f"{driver.version or 'version unknown'} ({driver.supports})"
        text = f"{version}, {driver.hooks} callables hooked"
        yield [_MARKS[driver.state], name, Piece(text)]
    else:
        version = f" {driver.version}" if driver.version else ""
        yield from _wrapped(
            _MARKS[driver.state], f"{name.text}{driver.state}{version}: {driver.reason}", columns
        )
    for other in driver.also_wrapped_by:
        text = f"{other} has wrapped it too; each counts a call once, in its own spans"
        yield from _wrapped(Piece("      "), text, columns, "dim")
    for other in driver.also_measured_by:
        if not driver.also_wrapped_by:
            text = f"{other} is installed and wraps it too where it is switched on"
            yield from _wrapped(Piece("      "), text, columns, "dim")


def _exporter(exporter: ExporterState) -> Line:
    name = Piece(f"{exporter.name:<20}", "" if exporter.configured else "dim")
    if not exporter.installed:
        return [_BAD, name, Piece("not installed", "red")]
    if not exporter.configured and not exporter.exported and not exporter.segments_left:
        return [_OFF, name, Piece("not used", "dim")]
    text = f"{count(exporter.exported)} charges exported"
    if exporter.rejected:
        text += f", {count(exporter.rejected)} refused (rejected.jsonl)"
    if exporter.segments_left:
        text += f", {_bytes(exporter.bytes_left)} in {exporter.segments_left} segments to go"
    return [_GOOD if exporter.configured else _OFF, name, Piece(text)]


def _reader(reader: ReaderState, columns: int) -> Iterator[Line]:
    if reader.state == "broken":
        yield from _wrapped(_BAD, f"{reader.system:<24}{reader.reason}", columns)
        return
    used = reader.state == "configured" or reader.settled_to is not None
    text = f"next run from {reader.settled_to}" if reader.settled_to else reader.state
    yield [
        _GOOD if used else _OFF,
        Piece(f"{reader.system:<24}", "" if used else "dim"),
        Piece(text, "" if used else "dim"),
        Piece(f"  {reader.verified}", "dim"),
    ]


def _puller(puller: PullerState, columns: int) -> Iterator[Line]:
    if puller.reason:
        yield from _wrapped(_BAD, f"{puller.puller:<24}{puller.reason}", columns)
        return
    used = puller.state == "configured" or bool(puller.slices)
    text = puller.state
    if puller.slices:
        slices = ", ".join(f"{count(number)} {state}" for state, number in puller.slices.items())
        text = f"slices: {slices}; until {puller.newest}"
    if puller.incomplete:
        text += f"; {count(puller.incomplete)} incomplete: pull again"
    yield [
        _BAD if puller.incomplete else _GOOD if used else _OFF,
        Piece(f"{puller.puller:<24}", "" if used else "dim"),
        Piece(text, "" if used else "dim"),
        Piece(f"  {puller.verified}", "dim"),
    ]


def _jobs(found: Checkup, columns: int) -> Iterator[Line]:
    if not found.follow_jobs:
        yield [_OFF, Piece("off (follow_jobs = false)", "dim")]
    for one in found.followed:
        where = f"{one.system} {one.region or ''}".rstrip()
        cost = (
            "free"
            if one.amount == "0"
            else money(None if one.amount is None else Decimal(one.amount), one.currency, 6)
        )
        text = f"{where:<30}  {count(one.requests)} requests, {cost}; the last {one.last}"
        failed = ", ".join(f"{number} {visible(code)}" for code, number in one.failed.items())
        yield from _wrapped(
            _BAD if sum(one.failed.values()) >= one.requests else _GOOD,
            f"{text}; failed: {failed}" if failed else text,
            columns,
        )
    if found.followed:
        yield [Piece("    in the last 31 days, by all programs that write here", "dim")]
    elif found.follow_jobs:
        yield [_OFF, Piece("no job has been asked for", "dim")]


def _ledger(ledger: LedgerState, columns: int) -> Iterator[Line]:
    if not ledger.exists:
        text = f"{ledger.path} is not there yet: the first measured call makes it"
        yield from _wrapped(_OFF, text, columns)
        return
    mark = _BAD if ledger.problem else _GOOD
    yield [mark, Piece(visible(ledger.path)), Piece(f"  {_bytes(ledger.bytes)}", "dim")]
    if ledger.problem:
        yield from _wrapped(_BAD, ledger.problem, columns)
    if ledger.entries is not None:
        newest = ledger.newest or UNKNOWN
        yield [
            _OFF,
            Piece(
                f"{count(ledger.entries)} entries of {count(ledger.charges)} charges, newest {newest}"
            ),
        ]
    yield [
        _OFF,
        Piece(
            f"segments: {ledger.live_segments} being written, {ledger.ended_segments} ended; "
            f"{ledger.compacted_files} compacted files"
        ),
    ]
    if ledger.left_tallies:
        left = f"tallies that programs have left which were killed: {ledger.left_tallies}"
        yield from _wrapped(_OFF, f"{left}; costinsights ledger compact tidies up", columns)
    for reason, number in sorted(ledger.lost.items()):
        yield [_BAD, Piece(f"{count(number)} entries were lost: {reason}")]
    if ledger.torn:
        yield [_OFF, Piece(f"{count(ledger.torn)} torn lines: costinsights ledger verify")]
    if ledger.expired_charges:
        yield [_OFF, Piece(f"{count(ledger.expired_charges)} charges are deleted by retention")]


def _prices(prices: Prices, columns: int) -> Iterator[Line]:
    yield [_GOOD, Piece(f"book {prices.version}, {count(prices.lines)} lines")]
    if prices.problem:
        yield from _wrapped(_BAD, prices.problem, columns)
    for path in prices.files:
        yield [_OFF, Piece(visible(path))]
    for capacity in prices.capacities:
        yield from _wrapped(_OFF, capacity, columns)
    if not prices.capacities:
        text = "no [[capacity]]: databases that are paid for by the hour have no price (docs/prices.md)"
        yield from _wrapped(_OFF, text, columns)


def _wrapped(mark: Piece, text: str, columns: int, style: str = "") -> Iterator[Line]:
    room = max(20, columns - len(mark.text))
    lines = textwrap.wrap(visible(text), room, break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines or [""]):
        yield [mark if not number else Piece(" " * len(mark.text)), Piece(line, style)]


def _compact(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1024
    return ""
