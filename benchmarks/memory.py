"""What a million calls take of memory while nobody takes their charges: a collector that is down.

Each program runs in an interpreter of its own, makes the calls, and tells the most memory that it
ever had. `python -m benchmarks.memory costinsights 1000000` is one of them.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from resource import RUSAGE_SELF, getrusage

from benchmarks import nulldb
from benchmarks.measuring import BARE, OURS
from benchmarks.outcome import Figure, Outcome, Table

CALLS = 1_000_000
TARGET = 32.0
CONTRIB = "contrib"


def measure(*, quick: bool = False) -> Outcome:
    """Run the programs one after the other."""
    names = [BARE, OURS] if quick else [BARE, OURS, CONTRIB]
    used = {name: _run(name) for name in names}
    added = {name: used[name] - used[BARE] for name in names}
    rows = [(name, f"{used[name]:.1f}", f"{added[name]:.1f}") for name in names]
    figure = Figure(
        "memory", f"memory for {CALLS:,} entries with a dead exporter, over bare",
        added[OURS], TARGET, "MiB",
    )  # fmt: skip
    note = f"{CALLS:,} calls, OTLP to a port where nobody listens; contrib keeps the last 2,048"
    table = Table("memory: the most a process had", ("program", "MiB", "over bare"), rows, note)
    return Outcome([figure], [table])


def _run(name: str) -> float:
    """Mebibytes that the program had at most."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", name, str(CALLS)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # where the exporters say that nobody listens
        text=True,
    )
    return int(done.stdout.split()[-1]) / 1024


def _calls(connection: nulldb.Connection, count: int) -> None:
    execute = connection.cursor().execute
    for number in range(count):
        execute("SELECT id, customer, total FROM bench_orders WHERE id = %s", (number,))


def _nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def main() -> None:
    """Make the calls in one way, and print the most memory that was had, in KiB."""
    name, count = sys.argv[1], int(sys.argv[2])
    if name == BARE:
        _calls(nulldb.connect(), count)
    elif name == OURS:
        from benchmarks.ours import NULL, recording

        options: dict[str, dict[str, object]] = {"otlp": {"endpoint": _nobody()}}
        with recording(NULL, NULL, exporters=["otlp"], exporter_options=options) as recorded:
            _calls(nulldb.connect(), count)
            assert recorded.writer.written == count, recorded.writer.dropped
            print(getrusage(RUSAGE_SELF).ru_maxrss, flush=True)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from benchmarks import peers

        telemetry = peers.OpenTelemetry(OTLPSpanExporter(endpoint=f"{_nobody()}/v1/traces"))
        _calls(
            peers.contrib_connection(nulldb.connect(), nulldb, "nulldb", telemetry.provider), count
        )
    print(getrusage(RUSAGE_SELF).ru_maxrss, flush=True)
    os._exit(0)  # nothing is left to be measured, and shutting down waits for the dead


if __name__ == "__main__":
    main()
