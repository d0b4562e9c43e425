"""A statement whose text nobody has seen before: redaction and fingerprint each time.

Every call has other literals, as a program without parameters sends them. What one entry takes on
the disk is counted in the same run.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING

from benchmarks import nulldb, peers
from benchmarks.measuring import BARE, BARE_AGAIN, OURS, Lane, interleave
from benchmarks.ours import NULL, recording
from benchmarks.outcome import Figure, Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 200
ROUNDS = 40
QUICK_ROUNDS = 20
TARGET = 1.0
BYTES_TARGET = 300


def measure(*, quick: bool = False) -> Outcome:
    """Measure ours against OpenTelemetry's DB-API instrumentation, on a driver that does nothing."""
    with ExitStack() as stack:
        telemetry = peers.OpenTelemetry()
        stack.callback(telemetry.provider.shutdown)
        plain = nulldb.connect().cursor()
        module = nulldb.another("texts")
        contrib = peers.contrib_connection(
            module.connect(), module, NULL, telemetry.provider
        ).cursor()
        ours = stack.enter_context(recording(NULL, NULL))
        watched = nulldb.connect().cursor()
        ours.off()
        lanes = [
            Lane(BARE, _new_text(plain.execute)),
            Lane(BARE_AGAIN, _new_text(plain.execute)),
            Lane(peers.CONTRIB, _new_text(contrib.execute), leave=telemetry.flush),
            Lane(OURS, _new_text(lambda text: watched.execute(text)), ours.on, ours.off),
        ]
        rounds = interleave(lanes, rounds=QUICK_ROUNDS if quick else ROUNDS, calls=CALLS)
        path, written = ours.writer.path, ours.writer.written
        assert path is not None
        size = os.path.getsize(path) / written
        stack.callback(ours.on)
    ratio = rounds.ratio(OURS, peers.CONTRIB)
    rows = [
        (name, f"{rounds.cost(name):.2f}", f"{rounds.ratio(name, peers.CONTRIB):.3f}")
        for name in rounds.names
    ]
    return Outcome(
        [
            Figure("new-texts", f"every statement text new, ÷ {peers.CONTRIB}", ratio, TARGET),
            Figure("bytes", "an entry on the disk", size, BYTES_TARGET, "bytes"),
        ],
        [Table("every text new: added caller CPU", ("lane", "µs", "÷ contrib"), rows)],
    )


def _new_text(execute: Callable[[str], object]) -> Callable[[], object]:
    numbers = count()

    def call() -> object:
        number = next(numbers)
        return execute(
            "SELECT o.id, o.total, sum(l.amount) FROM orders o JOIN lines l ON l.order_id = o.id "
            f"WHERE o.id = {number} AND o.name = 'n{number}' GROUP BY 1, 2"
        )

    return call
