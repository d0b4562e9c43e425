"""What starting up costs: CPU of a fresh interpreter, against importing OpenTelemetry's SDK."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.outcome import Figure, Outcome, Table

NOTHING = "nothing"
PEER = "import opentelemetry.sdk.trace"
IMPORT = "import costinsights"
INSTRUMENT = "import costinsights; costinsights.instrument()"
PROGRAMS = {NOTHING: "pass", PEER: PEER, IMPORT: IMPORT, INSTRUMENT: INSTRUMENT}
TARGETS = {IMPORT: 0.35, INSTRUMENT: 0.8}
ROUNDS = 15
QUICK_ROUNDS = 9


def measure(*, quick: bool = False) -> Outcome:
    """Start interpreters in turn, in random order; each figure is the median over the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    order = list(PROGRAMS)
    shuffle = random.Random(20261122).shuffle
    with TemporaryDirectory(prefix="bench-") as folder:
        for number in range(-1, QUICK_ROUNDS if quick else ROUNDS):
            shuffle(order)
            for name in order:
                spent = _cpu(PROGRAMS[name], folder)
                if number >= 0:  # the first round compiles what nobody has imported yet
                    taken[name].append(spent)
    base = median(taken[NOTHING])
    added = {name: median(times) - base for name, times in taken.items()}
    rows = [
        (name, f"{added[name]:.1f}", f"{added[name] / added[PEER]:.3f}")
        for name in PROGRAMS
        if name != NOTHING
    ]
    figures = [
        Figure(f"startup-{'import' if name == IMPORT else 'instrument'}",
               f"`{name}` with no driver imported, ÷ `{PEER}`",
               added[name] / added[PEER], target)
        for name, target in TARGETS.items()
    ]  # fmt: skip
    note = f"an interpreter that does nothing: {base:.1f} ms"
    return Outcome(figures, [Table("start-up: added CPU", ("program", "ms", "÷ peer"), rows, note)])


def _cpu(program: str, folder: str) -> float:
    """Milliseconds of CPU that an interpreter took for `program`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {"PATH": "/usr/bin:/bin", "HOME": folder, "COSTINSIGHTS_LEDGER": folder}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=folder, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return (user + system) * 1000
