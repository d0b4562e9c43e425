"""Dagster by hand: what the exporter ``dagster`` adds to a step on the run's own thread.

    python -m benchmarks.dagster [ASSETS] [ROUNDS]

It is no part of `make bench`: it takes its minutes. A run of 1,000 assets that have 100 partitions
each, in one process and with a real instance: bare, with costinsights alone, and with the exporter.
They take turns; figures are medians, and what is more is the median of the rounds' differences. The
CPU of the run's thread is what the exporter costs it; the wall time has what our other threads take
of the same core and lock as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.outcome import Table, plain
from tests.environments import environment, lent

ASSETS, ROUNDS = 1000, 3
RANGED = 20
PARTITIONS = 100
MODES = {"bare": "bare", "off": "costinsights", "on": "with the exporter"}
TARGET_MS = 5.0
PROGRAM = Path(__file__).parent / "programs" / "dagster_steps.py"


def run(mode: str, assets: int, partitions: int, folder: Path) -> dict[str, float]:
    """Run once, with a home and a ledger that are new."""
    packages = lent(folder / "packages")
    with tempfile.TemporaryDirectory(dir=folder) as home:
        Path(home, "dagster.yaml").touch()
        done = subprocess.run(
            [
                environment("dagster") / "bin" / "python",
                str(PROGRAM),
                mode,
                str(assets),
                str(partitions),
            ],
            env={
                **os.environ,
                "PYTHONPATH": str(packages),
                "DAGSTER_HOME": home,
                "DAGSTER_DISABLE_TELEMETRY": "yes",
                "COSTINSIGHTS_LEDGER": str(Path(home, "ledger")),
            },
            capture_output=True,
            check=False,
            text=True,
        )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    taken: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return taken


def measure(assets: int, partitions: int, rounds: int, folder: Path) -> Table:
    """Run all modes in turn."""
    taken: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    modes = list(MODES)
    for number in range(rounds):
        first = number % len(modes)  # each is as often the first as the others
        for mode in modes[first:] + modes[:first]:
            taken[mode].append(run(mode, assets, partitions, folder))
    rows: list[tuple[str, ...]] = []
    for mode, name in MODES.items():
        figures: list[str] = []
        for kind in ("cpu", "wall"):
            mine = [one[kind] / assets * 1000 for one in taken[mode]]
            bare = [one[kind] / assets * 1000 for one in taken["bare"]]
            more = median(one - other for one, other in zip(mine, bare, strict=True))
            figures += [f"{median(mine):.2f}", f"{more:+.2f}", f"{min(mine):.2f}"]
        rows.append((name, *figures))
    return Table(
        f"{assets:,} assets of {PARTITIONS} partitions, {partitions} a step: ms a step on the run's "
        f"thread (target of the exporter: {TARGET_MS:g} more)",
        ("", "CPU", "more", "least", "wall", "more", "least"),
        rows,
    )


def main() -> int:
    """Measure a partition a step, and all of them in one."""
    assets = int(sys.argv[1]) if len(sys.argv) > 1 else ASSETS
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        print(plain(measure(assets, 1, rounds, Path(folder))), end="\n\n", flush=True)
        print(plain(measure(min(assets, RANGED), PARTITIONS, rounds, Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
