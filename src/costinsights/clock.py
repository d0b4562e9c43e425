"""A virtual clock that shares a capacity fairly. `costinsights._quick` has the same in C.

While n calls run, each bears 1/n of the time. A clock that runs at 1/n of real time says it in O(1):
a call's share is how far the clock went between its entry and its end. Idle time moves no clock, so
it is nobody's call.

The clock counts in units of 10**-15 s and always rounds down, so the shares of any set of calls
never add up to more than the time in which at least one call ran. All calls together fall short
of that time by less than n units at each entry or end that found n calls running.
"""

from __future__ import annotations

from threading import RLock

UNITS_PER_NS = 10**6
"""A share is in units of 10**-15 s; at a price of 1,000,000 an hour one of them is 3 × 10**-13."""

_UNCOUNTED = -1
_BEFORE_ALL_TIME = -(1 << 80)


class Clock:
    """The clock of one capacity; thread-safe.

    A signal handler or a finalizer may run a query of its own while this very thread is inside
    `enter` or `leave`. The lock lets it in, `_moving` tells it that the clock is being moved: a
    call that begins there is not counted and bears nothing, one that ends there is counted out as
    soon as the clock stands again. Either way nobody bears more than the whole.
    """

    __slots__ = ("_ended", "_first", "_last", "_lock", "_moving", "_reading", "number")

    def __init__(self) -> None:
        self.number = 0
        """Calls that run at this moment."""
        self._last = _BEFORE_ALL_TIME
        self._reading = 0
        self._first = 0
        self._moving = False
        self._ended: list[int] = []
        self._lock = RLock()

    def enter(self, now_ns: int) -> int:
        """A call begins. Gives the reading of the clock, to be handed to `leave`.

        `now_ns` is of a monotonic clock; one that is earlier than the last counts as no time.
        """
        with self._lock:
            if self._moving:
                return _UNCOUNTED
            try:
                self._moving = True
                self._move(now_ns)
                self.number += 1
                return self._reading
            finally:
                self._moving = False
                self._count_out()

    def leave(self, now_ns: int, entered: int) -> int:
        """A call that `entered` ends. Gives its share of the time, in units of 10**-15 s."""
        with self._lock:
            if entered < self._first:  # not counted, or begun before a fork
                return 0
            if self._moving:
                self._ended.append(entered)
                return max(0, self._reading - entered)
            try:
                self._moving = True
                self._move(now_ns)
                if self.number:
                    self.number -= 1
                return self._reading - entered
            finally:
                self._moving = False
                self._count_out()

    def _move(self, now_ns: int) -> None:
        passed = now_ns - self._last
        if passed > 0:
            if self.number:
                self._reading += passed * UNITS_PER_NS // self.number
            self._last = now_ns

    def reset(self) -> None:
        """Forget the calls that run, in the child after a fork: they go on in the parent."""
        self._lock = RLock()  # the parent's other threads may have held it
        self._ended = []
        self._moving = False
        self.number = 0
        self._reading += 1
        self._first = self._reading

    def _count_out(self) -> None:
        while self._ended:
            try:
                self._moving = True
                self._ended.pop()
                self.number -= 1
            finally:
                self._moving = False
