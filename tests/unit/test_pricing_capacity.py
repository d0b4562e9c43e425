"""The fair-share clock: shares never add up to more than the capacity, and fall short by little."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
from decimal import ROUND_DOWN, Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights import quick
from costinsights.clock import Clock
from costinsights.pricing import Capacity, PriceBook, PriceLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

HOUR_NS = 3600 * 10**9
UNIT = 10**6
"""A share of one nanosecond."""


def line(price: str = "0.178") -> PriceLine:
    entry = {"name": "c", "system": "x", "price": price, "currency": "USD"}
    return PriceBook.load(capacities=[entry]).capacities[0].line


LINE = line()
prices = st.decimals("0.000000001", 10**6, places=9, allow_nan=False)


class Call(NamedTuple):
    start: int
    end: int


def _calls(latest: int, longest: int) -> st.SearchStrategy[list[Call]]:
    pairs = st.tuples(st.integers(0, latest), st.integers(0, longest))
    calls = pairs.map(lambda pair: Call(pair[0], sum(pair)))
    return st.lists(calls, min_size=1, max_size=25)


# A few nanoseconds, where rounding is all there is; milliseconds; and days.
calls_strategy = _calls(20, 20) | _calls(10**7, 10**7) | _calls(10**15, 10**14)


def priced(price: Decimal) -> Capacity:
    return Capacity(msgspec.structs.replace(LINE, price=price))


def run(capacity: Capacity, calls: Sequence[Call]) -> list[int]:
    """The shares of calls that begin and end in the order of time."""
    events = sorted(
        [(call.start, 1, number) for number, call in enumerate(calls)]
        + [(call.end, 2, number) for number, call in enumerate(calls)]
    )
    entered: dict[int, int] = {}
    shares = [0] * len(calls)
    for now, kind, number in events:
        if kind == 1:
            entered[number] = capacity.enter(now)
        else:
            shares[number] = capacity.leave(now, entered[number])
    assert capacity.number == 0
    return shares


def busy(calls: Iterable[Call]) -> int:
    """Nanoseconds in which at least one of the calls ran."""
    total, until = 0, 0
    for call in sorted(calls):
        total += max(0, call.end - max(call.start, until))
        until = max(until, call.end)
    return total


def fair(calls: Sequence[Call]) -> list[Fraction]:
    """Each call's exact share of time, by cutting time at every event."""
    cuts = sorted({moment for call in calls for moment in call})
    shares = [Fraction(0)] * len(calls)
    for start, end in pairwise(cuts):
        running = [n for n, call in enumerate(calls) if call.start <= start and call.end >= end]
        for number in running:
            shares[number] += Fraction(end - start, len(running))
    return shares


# What the clock promises


@settings(deadline=None)  # a busy machine is no failure
@given(calls_strategy, prices, st.data())
def test_no_set_of_calls_bears_more_than_the_time_in_which_it_ran(
    calls: list[Call], price: Decimal, data: st.DataObject
) -> None:
    capacity = priced(price)
    shares = run(capacity, calls)
    chosen = data.draw(st.sets(st.sampled_from(range(len(calls)))))
    for some in (set(range(len(calls))), chosen):
        amounts = sum(Decimal(capacity.amount(shares[number])) for number in some)
        cost = Fraction(price) * busy(calls[number] for number in some) / HOUR_NS
        assert Fraction(amounts) <= cost


@settings(deadline=None)  # a busy machine is no failure
@given(calls_strategy, prices)
def test_all_calls_together_fall_short_by_no_more_than_rounding(
    calls: list[Call], price: Decimal
) -> None:
    """Less than 10**-15 for each call, and a unit for each call running at each move of the clock.

    The clock moves twice a call at most, with at most all calls running.
    """
    capacity = priced(price)
    shares = run(capacity, calls)
    amounts = sum(Decimal(capacity.amount(share)) for share in shares)
    cost = Fraction(price) * busy(calls) / HOUR_NS
    lost_units = 2 * len(calls) ** 2
    bound = len(calls) * Fraction(1, 10**15) + Fraction(price) * lost_units / HOUR_NS / UNIT
    assert 0 <= cost - Fraction(amounts) < bound


@settings(deadline=None)  # a busy machine is no failure
@given(calls_strategy)
def test_each_share_is_fair(calls: list[Call]) -> None:
    shares = run(Capacity(LINE), calls)
    for share, exact in zip(shares, fair(calls), strict=True):
        assert 0 <= exact * UNIT - share < 2 * len(calls)


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(1, 40), st.integers(0, 10**15), st.integers(0, 10**12))
def test_equal_calls_bear_equally(number: int, start: int, duration: int) -> None:
    shares = run(Capacity(LINE), [Call(start, start + duration)] * number)
    assert len(set(shares)) == 1
    assert shares[0] == (duration * UNIT) // number


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(st.booleans(), st.integers(-(10**6), 10**12)), max_size=60))
def test_a_clock_that_goes_backwards_adds_no_time(moves: list[tuple[bool, int]]) -> None:
    """Whatever order the moments come in, no more is shared out than the clock went forward."""
    capacity = Capacity(LINE)
    running: list[int] = []
    shared = forward = 0
    latest: int | None = None
    for enters, now in moves:
        if not (enters or running):
            continue
        if running and latest is not None:
            forward += max(0, now - latest)
        latest = now if latest is None else max(latest, now)
        if enters:
            running.append(capacity.enter(now))
        else:
            share = capacity.leave(now, running.pop(0))
            assert share >= 0
            shared += share
        assert capacity.number == len(running)
    assert shared <= forward * UNIT


@settings(deadline=None)  # a busy machine is no failure
@given(st.integers(0, 10**40), prices)
def test_an_amount_is_the_share_rounded_down_at_the_fifteenth_decimal(
    share: int, price: Decimal
) -> None:
    capacity = priced(price)
    exact = Fraction(price) * share / HOUR_NS / UNIT
    amount = capacity.amount(share)
    assert len(amount.partition(".")[2]) == 15
    assert Fraction(amount) <= exact < Fraction(amount) + Fraction(1, 10**15)
    with localcontext() as context:
        context.prec = 80
        assert Decimal(capacity.units(share)).scaleb(-15) == Decimal(amount)
        assert Decimal(amount) == Decimal(amount).quantize(Decimal(10) ** -15, ROUND_DOWN)


def test_the_documented_figures() -> None:
    capacity = Capacity(LINE)
    assert capacity.amount(capacity.leave(80_000, capacity.enter(0))) == "0.000000003955555"
    assert capacity.amount(HOUR_NS * UNIT) == "0.178000000000000"
    assert capacity.amount(10 * HOUR_NS * UNIT) == "1.780000000000000"
    assert capacity.amount(0) == "0.000000000000000"
    assert (capacity.currency, capacity.line) == ("USD", LINE)


def test_idle_time_is_nobodys_call() -> None:
    capacity = Capacity(LINE)
    first = capacity.leave(1_000, capacity.enter(0))
    second = capacity.leave(10**12 + 1_000, capacity.enter(10**12))
    assert first == second == 1_000 * UNIT


def test_a_price_by_the_month_is_no_capacity() -> None:
    with pytest.raises(ValueError, match="is not an hour"):
        Capacity(msgspec.structs.replace(LINE, unit="GB-month"))


# Threads, signals, finalizers, forks


# In Python, and compiled where it was: `test_quick` says that it is.
both = pytest.mark.parametrize("kind", [Clock, quick.Clock], ids=["python", "built"])


@both
def test_threads_share_one_clock(kind: type[Clock]) -> None:
    capacity = kind()
    shares: list[int] = []
    began = time.perf_counter_ns()

    def work() -> None:
        mine = 0
        for _ in range(3_000):
            entered = capacity.enter(time.perf_counter_ns())
            mine += capacity.leave(time.perf_counter_ns(), entered)
        shares.append(mine)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter_ns() - began
    assert capacity.number == 0
    assert 0 < sum(shares) <= passed * UNIT


class Interrupted(int):
    """A moment at which something happens while the clock is being moved."""

    happens: Callable[[], object]

    def __sub__(self, other: int) -> int:
        self.happens()
        return int(self) - other


def moment(now: int, happens: Callable[[], object]) -> Interrupted:
    interrupted = Interrupted(now)
    interrupted.happens = happens
    return interrupted


def test_a_call_begun_while_the_clock_moves_is_not_counted() -> None:
    capacity = Clock()
    inner: list[int] = []

    def query() -> None:
        entered = capacity.enter(50)
        inner.append(capacity.leave(90, entered))

    entered = capacity.enter(0)
    share = capacity.leave(moment(100, query), entered)
    assert inner == [0]
    assert share == 100 * UNIT
    assert capacity.number == 0


def test_a_call_that_outlives_the_moment_it_was_begun_in_is_not_counted() -> None:
    capacity = Clock()
    inner: list[int] = []
    outer = capacity.enter(moment(0, lambda: inner.append(capacity.enter(0))))
    assert capacity.number == 1
    assert capacity.leave(100, inner[0]) == 0
    assert capacity.leave(100, outer) == 100 * UNIT


def test_a_call_ended_while_the_clock_moves_is_counted_out() -> None:
    capacity = Clock()
    early = capacity.enter(0)
    inner: list[int] = []
    late = capacity.enter(moment(100, lambda: inner.append(capacity.leave(100, early))))
    assert capacity.number == 1
    share = capacity.leave(200, late)
    assert share == 100 * UNIT
    assert sum(inner) + share <= 200 * UNIT


@pytest.mark.parametrize("at", ["enter", "leave"])
def test_an_interrupt_while_the_clock_moves_leaves_it_usable(at: str) -> None:
    capacity = Clock()

    def interrupt() -> None:
        raise KeyboardInterrupt

    running = capacity.enter(0)
    now = moment(10, interrupt)
    with pytest.raises(KeyboardInterrupt):
        _ = capacity.enter(now) if at == "enter" else capacity.leave(now, running)
    assert capacity.number == 1
    shares: list[int] = []
    other = threading.Thread(target=lambda: shares.append(capacity.leave(100, running)))
    other.start()
    other.join(5)
    assert shares == [100 * UNIT]


@both
def test_a_signal_handler_may_query(kind: type[Clock]) -> None:
    capacity = kind()
    shares: list[int] = []

    def query(*_: object) -> None:
        entered = capacity.enter(time.perf_counter_ns())
        shares.append(capacity.leave(time.perf_counter_ns(), entered))

    before = signal.signal(signal.SIGALRM, query)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    began = time.perf_counter_ns()
    try:
        while time.perf_counter_ns() - began < 300_000_000:
            entered = capacity.enter(time.perf_counter_ns())
            shares.append(capacity.leave(time.perf_counter_ns(), entered))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    passed = time.perf_counter_ns() - began
    assert capacity.number == 0
    assert sum(shares) <= passed * UNIT


class Cursor:
    """Ends its call when it is collected, as a cursor that was never closed does."""

    def __init__(self, capacity: Clock, shares: list[int]) -> None:
        self.itself = self
        self.capacity = capacity
        self.shares = shares
        self.entered = capacity.enter(time.perf_counter_ns())

    def __del__(self) -> None:
        self.shares.append(self.capacity.leave(time.perf_counter_ns(), self.entered))


@both
def test_a_finalizer_may_end_a_call(kind: type[Clock]) -> None:
    capacity = kind()
    shares: list[int] = []
    thresholds = gc.get_threshold()
    gc.set_threshold(3, 2, 2)
    began = time.perf_counter_ns()
    try:
        for _ in range(2_000):
            Cursor(capacity, shares)
            entered = capacity.enter(time.perf_counter_ns())
            shares.append(capacity.leave(time.perf_counter_ns(), entered))
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    passed = time.perf_counter_ns() - began
    assert capacity.number == 0
    assert len(shares) == 4_000
    assert sum(shares) <= passed * UNIT


def test_after_a_fork_the_parents_calls_stay_the_parents() -> None:
    capacity = Clock()
    parents = capacity.enter(0)
    inside, go_on = threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        go_on.wait()

    thread = threading.Thread(target=lambda: capacity.enter(moment(0, stay)))
    thread.start()
    inside.wait()  # in the child, that thread will never let go of the clock
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside a thread
        child = os.fork()
    if child == 0:
        signal.alarm(10)  # a child that waits for the lost thread dies of it
        capacity.reset()
        own = capacity.enter(100)
        stale = capacity.leave(150, parents)
        share = capacity.leave(200, own)
        good = (stale, share, capacity.number) == (0, 100 * UNIT, 0)
        os._exit(0 if good else 1)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert capacity.leave(300, parents) == 150 * UNIT  # two calls run in the parent
