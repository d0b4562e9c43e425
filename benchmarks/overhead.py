"""What a watched call costs the caller: added CPU of the calling thread, against the peers.

Ours is the full path: attribution from a scope, redaction with a warm cache, an amount from a
capacity's price, and the entry in the ledger's file before the call returns. Theirs is a span in
memory; the export comes on top, and is measured in `benchmarks.export`.
"""

from __future__ import annotations

from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks import peers
from benchmarks.drivers import Driver, driver
from benchmarks.measuring import BARE, BARE_AGAIN, OURS, Lane, Rounds, interleave
from benchmarks.ours import NULL, Recording, recording
from benchmarks.outcome import Figure, Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Callable

OURS_IN_SPAN = "costinsights, inside a span of the program's"
CALLS = 200
ROUNDS = 60
QUICK_ROUNDS = 25
TARGETS = {NULL: 0.20}
TARGET = 0.25


def measure(name: str, *, quick: bool = False) -> Outcome:
    """Measure one driver; `quick` with no more peers than the promised ratio needs."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="bench-"))
        found = stack.enter_context(driver(name, folder))
        lanes = _lanes(stack, found, quick=quick)
        rounds = interleave(lanes, rounds=QUICK_ROUNDS if quick else ROUNDS, calls=CALLS)
    return _outcome(found, rounds)


def _lanes(stack: ExitStack, found: Driver, *, quick: bool) -> list[Lane]:
    telemetry = peers.OpenTelemetry()
    stack.callback(telemetry.provider.shutdown)
    flush = telemetry.flush
    plain = found.call(found.connect())

    def contrib(*, commenter: bool = False) -> Callable[[], object]:
        return found.call(found.by_contrib(telemetry.provider, commenter=commenter))

    lanes = [
        Lane(BARE, plain),
        Lane(BARE_AGAIN, found.call(found.connect())),
        Lane(peers.CONTRIB, contrib(), leave=flush),
    ]
    if not found.contrib or not quick:
        raw = telemetry.span(found.call(found.connect()), attributes=True)
        lanes.append(Lane(peers.RAW_ATTRIBUTES, raw, leave=flush))
    if not quick:
        raw = telemetry.span(found.call(found.connect()), attributes=False)
        cursor = found.connect()
        lanes += [
            Lane(peers.WRAPT, peers.wrapped(found.call(cursor))),
            Lane(peers.RAW, raw, leave=flush),
            Lane(peers.COMMENTER, contrib(commenter=True), leave=flush),
        ]
        stack.enter_context(peers.ddtrace())
        lanes.append(Lane(peers.DDTRACE, found.call(found.by_ddtrace())))
    ours = stack.enter_context(recording(found.name, found.system))
    call = found.call(found.ours())
    on, off = (ours.on, ours.off) if found.shared else (_nothing, _nothing)
    off()
    lanes.append(Lane(OURS, call, on, off))
    if not quick:
        around = peers.Surrounding(telemetry)

        def enter() -> None:
            on()
            around.enter()

        def leave() -> None:
            around.leave()
            off()

        lanes.append(Lane(OURS_IN_SPAN, call, enter, leave))
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


def _outcome(found: Driver, rounds: Rounds) -> Outcome:
    target = TARGETS.get(found.name, TARGET)
    peer = peers.CONTRIB if found.contrib or found.name == NULL else peers.RAW_ATTRIBUTES
    ratio = rounds.ratio(OURS, peer)
    table = Table(
        f"{found.name}: added caller CPU a call",
        ("lane", "added µs", "quartiles", f"÷ {peer}"),
        [
            (
                name,
                f"{rounds.cost(name):.2f}",
                "{:.2f} to {:.2f}".format(*rounds.spread(name)),
                f"{rounds.ratio(name, peer):.3f}",
            )
            for name in rounds.names
        ],
        f"{found.version()}; bare call {_middle(rounds.base()):.2f} µs; "
        f"noise (A/A) ±{rounds.noise():.2f} µs",
    )
    figure = Figure(
        f"overhead-{found.name}",
        f"caller CPU on {found.name}, full path with durable write, ÷ {peer}"
        + (" without exporter work" if peer == peers.CONTRIB else ""),
        ratio,
        target,
    )
    return Outcome([figure], [table])


def _middle(values: list[float]) -> float:
    from statistics import median

    return median(values)
