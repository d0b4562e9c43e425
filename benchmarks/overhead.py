"""What a watched call costs the caller: added CPU of the calling thread, against the peers.

Ours is the full path: attribution from a scope, redaction with a warm cache, an amount from a
capacity's price, and the entry in the ledger's file before the call returns. Theirs is a span in
memory; the export comes on top, and is measured in `benchmarks.export`.

A call is an ``execute``; where there are rows it is measured once more with the ``fetchall`` that
reads them, because sqlite3 and DuckDB make rows while they are fetched: the charge is then written
twice, at its start and at its end, and nobody else watches the second half.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.drivers import Driver, driver
from benchmarks.measuring import BARE, BARE_AGAIN, OURS, Lane, Rounds, interleave
from benchmarks.ours import NULL, Recording, recording
from benchmarks.outcome import Figure, Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Callable

OURS_IN_SPAN = "costinsights, inside a span of the program's"
ROUNDS = 60
# By driver, and whether rows are read. sqlite3 makes rows while they are fetched, so with `fetchall`
# a call is two entries; nothing was promised of DuckDB, whose hundred microseconds are its own.
TARGET = 0.25
TARGETS: dict[tuple[str, bool], float | None] = {
    (NULL, False): 0.20,
    ("sqlite3", True): 2 * TARGET,
    ("duckdb", False): None,
    ("duckdb", True): None,
}


def measure(name: str, *, quick: bool = False) -> Outcome:
    """Measure one driver; `quick` with no more peers than the promised ratio needs."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="bench-"))
        found = stack.enter_context(driver(name, folder))
        outcome = Outcome()
        for read in found.reads:
            with ExitStack() as once:
                lanes = _lanes(once, found, quick=quick, read=read)
                rounds = interleave(
                    lanes,
                    rounds=found.quick_rounds if quick else ROUNDS,
                    calls=found.calls,
                    clock=found.clock,
                    warm_up=found.warm_up,
                )
            figure, table = _result(found, rounds, read=read)
            outcome.figures.append(figure)
            outcome.tables.append(table)
    return outcome


def _lanes(stack: ExitStack, found: Driver, *, quick: bool, read: bool) -> list[Lane]:
    telemetry = peers.OpenTelemetry()
    stack.callback(telemetry.provider.shutdown)
    flush = telemetry.flush

    def call(connection: Any) -> Callable[[], object]:
        return found.call(connection, read=read)

    def contrib(*, commenter: bool = False) -> Callable[[], object]:
        return call(found.by_contrib(telemetry.provider, commenter=commenter))

    lanes = [
        Lane(BARE, call(found.connect())),
        Lane(BARE_AGAIN, call(found.connect())),
        Lane(peers.CONTRIB, contrib(), leave=flush),
    ]
    if found.name == "duckdb" or not quick:
        raw = telemetry.span(call(found.connect()), attributes=True)
        lanes.append(Lane(peers.RAW_ATTRIBUTES, raw, leave=flush))
    if not quick:
        raw = telemetry.span(call(found.connect()), attributes=False)
        lanes += [
            Lane(peers.WRAPT, peers.wrapped(call(found.connect()))),
            Lane(peers.RAW, raw, leave=flush),
            Lane(peers.COMMENTER, contrib(commenter=True), leave=flush),
        ]
        stack.enter_context(peers.ddtrace())
        lanes.append(Lane(peers.DDTRACE, call(found.by_ddtrace())))
    ours = stack.enter_context(recording(found.name, found.system))
    watched = call(found.ours())
    on, off = (ours.on, ours.off) if found.shared else (_nothing, _nothing)
    off()
    lanes.append(Lane(OURS, watched, on, off))
    if not quick:
        around = peers.Surrounding(telemetry)

        def enter() -> None:
            on()
            around.enter()

        def leave() -> None:
            around.leave()
            off()

        lanes.append(Lane(OURS_IN_SPAN, watched, enter, leave))
    stack.callback(_check, ours)
    stack.callback(on)
    return lanes


def _nothing() -> None:
    pass


def _check(ours: Recording) -> None:
    """Every call of ours is in the ledger, or the figures mean nothing."""
    writer = ours.writer
    assert writer.made, "nothing was recorded"
    assert writer.made == writer.written, (writer.made, writer.written, writer.dropped)


def added(title: str, rounds: Rounds, peer: str, bare: str) -> Table:
    """Show what each lane has added to a call."""
    return Table(
        f"{title}: added caller CPU a call",
        ("lane", "added µs", "quartiles", f"÷ {peer}"),
        [
            (
                lane,
                f"{rounds.cost(lane):.2f}",
                "{:.2f} to {:.2f}".format(*rounds.spread(lane)),
                f"{rounds.ratio(lane, peer):.3f}",
            )
            for lane in rounds.names
        ],
        f"{bare} {median(rounds.base()):.2f} µs; noise (A/A) ±{rounds.noise():.2f} µs",
    )


def _result(found: Driver, rounds: Rounds, *, read: bool) -> tuple[Figure, Table]:
    work = "execute and fetchall" if read else "execute"
    target = TARGETS.get((found.name, read), TARGET)
    peer = peers.RAW_ATTRIBUTES if found.name == "duckdb" else peers.CONTRIB
    ratio = rounds.ratio(OURS, peer)
    table = added(f"{found.name}, {work}", rounds, peer, f"{found.version()}; bare call")
    figure = Figure(
        f"overhead-{found.name}{'-read' if read else ''}",
        f"caller CPU of {work} on {found.name}, full path with durable write, ÷ {peer}"
        + (" without exporter work" if peer == peers.CONTRIB else ""),
        ratio,
        target,
    )
    return figure, table
