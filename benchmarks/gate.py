"""`python -m benchmarks.gate`: what CI holds. Ratios only, never a time.

A figure that misses its target is measured again, at most twice: another program on the machine
can make a ratio worse for a moment, but nothing makes it better than it is. What is still over its
target is said; it fails only when it is over by more than `MARGIN`, which is what a busy machine of
two cores was seen to add.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks import suite

if TYPE_CHECKING:
    from benchmarks.outcome import Figure

TRIES = 3
MARGIN = 1.5
# These two miss their promise: a SELECT whose rows come while they are fetched is written twice,
# at its start and at its end. CI keeps them from getting worse until they are mended.
OWED = {"overhead-sqlite3": 0.9, "overhead-duckdb": 2.0}


def main() -> int:
    """Measure everything quickly; 1 and a line for each promise that is not kept."""
    missed: list[str] = []
    for name, run in suite.BENCHMARKS.items():
        best: dict[str, Figure] = {}
        for attempt in range(1, TRIES + 1):
            outcome = run(True)
            if outcome.skipped:
                print(f"{name}: left out, {outcome.skipped}", flush=True)
                break
            for figure in outcome.figures:
                known = best.get(figure.key)
                if known is None or figure.value < known.value:
                    best[figure.key] = figure
            again = [figure.key for figure in best.values() if not holds(figure)]
            if not again:
                break
            if attempt < TRIES:
                print(f"{name}: measured again for {', '.join(again)}", flush=True)
        for figure in best.values():
            failed = not holds(figure, MARGIN) and figure.value > OWED.get(figure.key, 0)
            mark = "FAILED" if failed else "holds" if holds(figure) else "over"
            print(f"{mark:6} {figure.shown():>12} {figure.wanted():>12}  {figure.text}", flush=True)
            if failed:
                missed.append(figure.key)
    if missed:
        print(f"promised ratios that do not hold here: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def holds(figure: Figure, margin: float = 1.0) -> bool:
    """Whether the promise is kept, give or take `margin`."""
    return figure.target is None or figure.value <= figure.target * margin


if __name__ == "__main__":
    sys.exit(main())
