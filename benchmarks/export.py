"""All CPU from the call to the OTLP request: of the caller and of every thread of the process.

Ours goes by way of the ledger's file and is read back for export; theirs is OpenTelemetry contrib,
a BatchSpanProcessor and the stock OTLP/HTTP exporter. Both send to the same sink in another
process, and both must have delivered every call, or the figures mean nothing.
"""

from __future__ import annotations

from contextlib import ExitStack
from time import process_time_ns
from typing import TYPE_CHECKING, Any

import costinsights
from benchmarks import nulldb, peers
from benchmarks.measuring import BARE, BARE_AGAIN, OURS, Lane, interleave
from benchmarks.ours import NULL, recording
from benchmarks.outcome import Figure, Outcome, Table
from benchmarks.sink import sink

if TYPE_CHECKING:
    from collections.abc import Callable

# Fewer than the 2,048 that a BatchSpanProcessor keeps, so that it drops none.
CALLS = 1500
ROUNDS = 15
QUICK_ROUNDS = 7
TARGET = 0.5
PEER = f"{peers.CONTRIB} + BatchSpanProcessor + OTLP/HTTP"


def measure(*, quick: bool = False) -> Outcome:
    """Measure rounds of calls, each of them exported to its end within the clock."""
    rounds_of = QUICK_ROUNDS if quick else ROUNDS
    with ExitStack() as stack:
        receiver = stack.enter_context(sink())
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        telemetry = peers.OpenTelemetry(
            OTLPSpanExporter(endpoint=f"{receiver.url}/theirs/v1/traces")
        )
        stack.callback(telemetry.provider.shutdown)
        module = nulldb.another("export")
        theirs = peers.contrib_connection(module.connect(), module, NULL, telemetry.provider)
        recorded = stack.enter_context(
            recording(
                NULL,
                NULL,
                exporters=["otlp"],
                exporter_options={"otlp": {"endpoint": f"{receiver.url}/ours"}},
            )
        )
        bare = nulldb.another("bare").connect()
        lanes = [
            Lane(BARE, _calls(bare)),
            Lane(BARE_AGAIN, _calls(bare)),
            Lane(PEER, _exported(_calls(theirs), telemetry.flush)),
            Lane(OURS, _exported(_calls(nulldb.connect()), _flush)),
        ]
        rounds = interleave(lanes, rounds=rounds_of, calls=1, clock=process_time_ns, warm_up=0)
        made = recorded.writer.made
        for name in ("ours", "theirs"):
            assert receiver.spans(name) == made, (name, receiver.spans(name), made)
    rows = [
        (name, f"{rounds.cost(name) / CALLS:.1f}", f"{rounds.ratio(name, PEER):.3f}")
        for name in rounds.names
    ]
    figure = Figure(
        "export", f"CPU from call to OTLP request, ÷ {PEER}", rounds.ratio(OURS, PEER), TARGET
    )
    note = f"{made:,} calls each, all of them delivered"
    table = Table(
        "export: CPU of the whole process, added a call", ("lane", "µs", "÷ peer"), rows, note
    )
    return Outcome([figure], [table])


def _calls(connection: Any) -> Callable[[], None]:
    execute = connection.cursor().execute

    def calls() -> None:
        for number in range(CALLS):
            execute("SELECT id, customer, total FROM bench_orders WHERE id = %s", (number,))

    return calls


def _exported(calls: Callable[[], None], flush: Callable[[], object]) -> Callable[[], None]:
    def exported() -> None:
        calls()
        flush()

    return exported


def _flush() -> None:
    assert costinsights.flush(60), "the export did not come to its end"
