"""Measures several ways of doing one thing side by side: in one process, in rounds, in random order.

Absolute times on a shared machine swing by half within a minute, so nothing here is worth quoting
but a ratio of two things that ran within milliseconds of each other. In each round every lane runs
once, in random order; a lane's figure in a round is what it added to the mean of the two bare lanes
of that same round; the result is the median over the rounds. The two bare lanes are the same thing
twice: how far they are apart is the noise floor.

The clock is the calling thread's CPU time, so that neither the other programs of the machine nor
our peers' export threads are in it.
"""

from __future__ import annotations

import gc
import random
from itertools import repeat
from statistics import median, quantiles
from time import thread_time_ns
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BARE = "bare"
BARE_AGAIN = "bare, again (A/A)"
OURS = "costinsights"

WARM_UP = 25
"""Calls before the clock starts: caches, and CPython's own specialising of byte code."""


def nothing() -> None:
    """Do nothing before and after a lane's turn."""


class Lane(NamedTuple):
    """One way of doing the work: `call` does it once.

    `enter` and `leave` stand around its turn and outside the clock: what another lane must not
    see is switched on and off there, and what waits in a queue is let go.
    """

    name: str
    call: Callable[[], object]
    enter: Callable[[], object] = nothing
    leave: Callable[[], object] = nothing


class Rounds:
    """Microseconds a call, a round, of each lane."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.taken: dict[str, list[float]] = {name: [] for name in names}

    def base(self) -> list[float]:
        """The bare call in each round."""
        if BARE_AGAIN not in self.taken:
            return self.taken[BARE]
        both = zip(self.taken[BARE], self.taken[BARE_AGAIN], strict=True)
        return [(one + other) / 2 for one, other in both]

    def added(self, name: str) -> list[float]:
        """What the lane added to the bare call in each round."""
        return [t - base for t, base in zip(self.taken[name], self.base(), strict=True)]

    def cost(self, name: str) -> float:
        """What the lane adds to a call: the median over the rounds."""
        return median(self.added(name))

    def ratio(self, name: str, peer: str) -> float:
        """What the lane adds as a part of what `peer` adds."""
        return self.cost(name) / self.cost(peer)

    def spread(self, name: str) -> tuple[float, float]:
        """The quartiles of what the lane adds."""
        low, _, high = quantiles(self.added(name), n=4)
        return low, high

    def noise(self) -> float:
        """How far the two bare lanes are apart in the middle half of the rounds."""
        both = zip(self.taken[BARE], self.taken[BARE_AGAIN], strict=True)
        low, _, high = quantiles([one - other for one, other in both], n=4)
        return (high - low) / 2


def interleave(
    lanes: Sequence[Lane],
    *,
    rounds: int,
    calls: int,
    clock: Callable[[], int] = thread_time_ns,
    warm_up: int = WARM_UP,
) -> Rounds:
    """Run every lane once a round, in random order, and time `calls` of its calls."""
    result = Rounds([lane.name for lane in lanes])
    order = list(lanes)
    shuffle = random.Random(20261122).shuffle
    for number in range(-1, rounds):  # the first round is not counted
        shuffle(order)
        gc.collect()
        for lane in order:
            taken = _turn(lane, calls, clock, warm_up)
            if number >= 0:
                result.taken[lane.name].append(taken)
    return result


def _turn(lane: Lane, calls: int, clock: Callable[[], int], warm_up: int) -> float:
    call = lane.call
    lane.enter()
    try:
        for _ in repeat(None, warm_up):
            call()
        start = clock()
        for _ in repeat(None, calls):
            call()
        return (clock() - start) / calls / 1000
    finally:
        lane.leave()
