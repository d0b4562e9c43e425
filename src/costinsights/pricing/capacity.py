"""The fair share of a capacity that is paid for by the hour, by a virtual clock.

While n calls run on a resource, each bears 1/n of the price of the moment. A clock that runs at
1/n of real time says it in O(1): a call's share is how far the clock went between its entry and
its end. Idle time moves no clock, so it is nobody's call.

The clock counts in units of 10**-15 s and always rounds down, so the shares of any set of calls
never add up to more than the time in which at least one call ran. All calls together fall short
of that time by less than n units at each entry or end that found n calls running, and every amount
falls short of its share's price by less than 10**-15.
"""

from __future__ import annotations

from math import gcd
from threading import RLock

from costinsights.pricing.line import EXACT_PLACES, PriceLine
from costinsights.pricing.units import HOUR, is_hourly

UNITS_PER_NS = 10**6
"""A share is in units of 10**-15 s; at a price of 1,000,000 an hour one of them is 3 × 10**-13."""

_UNCOUNTED = -1
_BEFORE_ALL_TIME = -(1 << 80)
_MONEY = 10**EXACT_PLACES


class Capacity:
    """One paid-for resource and its clock; thread-safe.

    A signal handler or a finalizer may run a query of its own while this very thread is inside
    `enter` or `leave`. The lock lets it in, `_moving` tells it that the clock is being moved: a
    call that begins there is not counted and bears nothing, one that ends there is counted out as
    soon as the clock stands again. Either way nobody bears more than the whole.

    `acquire` and `release` inside `try` instead of `with`: as safe against an exception out of a
    signal handler, and 0.3 µs a call cheaper.
    """

    __slots__ = (
        "_ended",
        "_first",
        "_last",
        "_lock",
        "_moving",
        "_reading",
        "currency",
        "denominator",
        "line",
        "number",
        "numerator",
    )

    def __init__(self, line: PriceLine) -> None:
        """Raises ValueError where the line's unit is not an hour of something."""
        if not is_hourly(line.unit):
            raise ValueError(f"{line.key} is per {line.unit}, which is not an hour")
        self.line = line
        self.currency = line.currency
        self.number = 0
        """Calls that run at this moment."""
        # A share of 1 costs price ÷ (3600 s × 10**15), here in 10**-15 of the currency.
        price, per = line.price.as_integer_ratio()
        numerator = price * _MONEY
        denominator = per * HOUR * 10**9 * UNITS_PER_NS
        common = gcd(numerator, denominator)
        # Public for the recorder, which writes `units` out.
        self.numerator: int = numerator // common
        self.denominator: int = denominator // common
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
        try:
            self._lock.acquire()
            if self._moving:
                return _UNCOUNTED
            try:
                self._moving = True
                number = self.number
                passed = now_ns - self._last
                if passed > 0:
                    if number == 1:
                        self._reading += passed * UNITS_PER_NS
                    elif number:
                        self._reading += passed * UNITS_PER_NS // number
                    self._last = now_ns
                self.number = number + 1
                return self._reading
            finally:
                self._moving = False
                if self._ended:
                    self._count_out()
        finally:
            try:  # noqa: SIM105  suppress() costs more than all of the rest
                self._lock.release()
            except RuntimeError:  # interrupted while it waited for the lock
                pass

    def leave(self, now_ns: int, entered: int) -> int:
        """A call that `entered` ends. Gives its share of the time, in units of 10**-15 s."""
        try:
            self._lock.acquire()
            if entered < self._first:  # not counted, or begun before a fork
                return 0
            if self._moving:
                self._ended.append(entered)
                return max(0, self._reading - entered)
            try:
                self._moving = True
                number = self.number
                passed = now_ns - self._last
                if passed > 0:
                    if number == 1:
                        self._reading += passed * UNITS_PER_NS
                    elif number:
                        self._reading += passed * UNITS_PER_NS // number
                    self._last = now_ns
                if number:
                    self.number = number - 1
                return self._reading - entered
            finally:
                self._moving = False
                if self._ended:
                    self._count_out()
        finally:
            try:  # noqa: SIM105  suppress() costs more than all of the rest
                self._lock.release()
            except RuntimeError:  # interrupted while it waited for the lock
                pass

    def units(self, share: int) -> int:
        """What a share costs, in 10**-15 of the currency, rounded down."""
        return share * self.numerator // self.denominator

    def amount(self, share: int) -> str:
        """What a share costs, rounded down at the 15th decimal: `0.000000003955555`."""
        units = share * self.numerator // self.denominator
        if units < _MONEY:  # almost every call; the general way takes twice as long
            return "0." + str(units).rjust(EXACT_PLACES, "0")
        whole, rest = divmod(units, _MONEY)
        return f"{whole}.{rest:015d}"

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
