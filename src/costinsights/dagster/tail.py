"""Follows the ledger's segments as they grow, and adds up by run and step what calls have cost.

In pure Python and in small pieces, because the run's own thread asks as well: what it cannot read
in its few milliseconds is read later, by another thread.
"""

from __future__ import annotations

import os
import threading
from time import thread_time
from typing import TYPE_CHECKING

from costinsights.dagster.figures import Figures
from costinsights.dagster.targets import Who, who
from costinsights.ledger.reader import SegmentReader
from costinsights.ledger.writer import SEGMENTS
from costinsights.records import BASIS_RANK
from costinsights.runtime import active

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from costinsights.records import Charge

PIECE = 64
"""On the run's thread so many charges are read before the clock is looked at."""
LARGE_PIECE = 512
"""Elsewhere so many are read before others get their turn."""
LOCK_SECONDS = 0.005
"""For so long a step's own thread waits for another one that reads."""
MOST_OPEN = 4096
MOST_RUNS = 256
# File systems keep the time of a change to two seconds, and clocks are set.
SLACK_SECONDS = 5.0


class Budget:
    """How much CPU a step's own thread may use for reading.

    Not the time on the wall, in which on a busy machine the thread does not run: that is no work of
    ours, and no reason to leave the cost to a later event.
    """

    def __init__(self, seconds: float) -> None:
        self._end = thread_time() + seconds

    def is_over(self) -> bool:
        """Tell whether to stop."""
        return thread_time() >= self._end


class Tail:
    """The sums of all that this process, and those that it asks about, have written."""

    def __init__(self, ledger: str) -> None:
        self.ledger = ledger
        self.runs: dict[str, dict[Who, Figures]] = {}
        self.unsure: set[str] = set()
        """Runs of which not all is known here: the whole ledger has to be asked."""
        self._lock = threading.Lock()
        self._readers: dict[str, SegmentReader] = {}
        self._open: dict[str, tuple[Who, Charge]] = {}
        """Charges whose figures are not final, by their ids: what comes later takes their place."""

    def own(self) -> list[str]:
        """Return the segments that this process writes."""
        runtime = active()
        if runtime is None or runtime.made is None or runtime.config.ledger != self.ledger:
            return []
        runtime.add_up()
        writer = runtime.made.writer
        folder = os.path.join(self.ledger, SEGMENTS)
        names = [f"{writer.process}-{number + 1}.jsonl" for number in range(writer.segment)]
        return [os.path.join(folder, name) for name in names]

    def others(self, since: float, slack: float = SLACK_SECONDS) -> list[str]:
        """Return the segments that anybody has written to since then, in seconds of the epoch."""
        try:
            with os.scandir(os.path.join(self.ledger, SEGMENTS)) as found:
                return [
                    entry.path
                    for entry in found
                    if entry.name.endswith(".jsonl") and entry.stat().st_mtime >= since - slack
                ]
        except OSError:
            return []

    def catch_up(self, paths: Iterable[str], budget: Budget | None = None) -> bool:
        """Read what has come; False when the `budget` was used up before the end."""
        return all(self._follow(path, budget) for path in paths)

    def _follow(self, path: str, budget: Budget | None) -> bool:
        while (left := self._read(path, budget)) is None:
            continue
        return left

    def _read(self, path: str, budget: Budget | None) -> bool | None:
        """Read a piece; True at the end, False when the time is over, None where more is left."""
        if not self._lock.acquire(timeout=-1 if budget is None else LOCK_SECONDS):
            return False
        try:
            reader = self._readers.get(path)
            if reader is None:
                reader = self._readers[path] = SegmentReader(path)
            if os.stat(path).st_size <= reader.offset:
                return True
            if budget is not None and budget.is_over():
                return False
            piece = LARGE_PIECE if budget is None else PIECE
            charges = reader.read(piece)
            for charge in charges:
                self._take(charge)
        except FileNotFoundError:  # compacted: what it had is asked of the whole ledger
            return True
        else:
            return None if len(charges) >= piece else True
        finally:
            self._lock.release()

    def _take(self, charge: Charge) -> None:
        one = who(charge)
        if one is None:
            return
        sums = self.runs.get(one.run)
        if sums is None:
            sums = self._begin(one.run)
        before = self._open.pop(charge.charge_id, None)
        if before is not None:
            if BASIS_RANK[charge.basis] < BASIS_RANK[before[1].basis]:
                self._open[charge.charge_id] = before
                return
            sums.setdefault(before[0], Figures()).add(before[1], -1)
        elif charge.revision:
            self.unsure.add(one.run)  # later figures of what we have added up long ago
            return
        figures = sums.get(one)
        if figures is None:
            figures = sums[one] = Figures()
        figures.add(charge)
        if charge.partial or (charge.amount is None and len(self._open) < MOST_OPEN):
            self._open[charge.charge_id] = one, charge

    def _begin(self, run: str) -> dict[Who, Figures]:
        sums = self.runs[run] = {}
        if len(self.runs) > MOST_RUNS:
            oldest = next(iter(self.runs))
            del self.runs[oldest]
            self.unsure.add(oldest)
        return sums

    def of(self, run: str, step: str | None = None) -> dict[Who, Figures]:
        """Return the sums of a step, or of all that has no run, by whom they are for."""
        sums: Mapping[Who, Figures] = self.runs.get(run, {})
        return {
            one: figures for one, figures in list(sums.items()) if step is None or one.step == step
        }
