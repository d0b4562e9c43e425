"""Shares of paid-for hours: whatever the history looks like, they sum to the price exactly."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from costinsights.pricing import PriceBook
from costinsights.settlement.allocation import Claim, busy, split
from costinsights.settlement.costing import BESIDE, LATE, NO_CAPACITY, NOT_FINAL, costs
from costinsights.settlement.history import MARK, Figure, Stretch
from tests.examples import examples
from tests.histories import at, hour, price_file, query, work

if TYPE_CHECKING:
    from pathlib import Path

MINUTE = 60 * 10**6
HOUR = 60 * MINUTE
UNIT = 10**15

moments = st.integers(-2 * HOUR, 3 * HOUR)
weights = st.one_of(
    st.integers(0, 10**12), st.decimals(0, 10**6, places=6, allow_nan=False, allow_infinity=False)
)


@st.composite
def claims(draw: Any) -> list[Claim]:
    """Overlapping, far apart, empty, and some with an end before their start (a clock set back)."""
    found: list[Claim] = []
    for number in range(draw(st.integers(0, 12))):
        start = draw(moments)
        length = draw(st.one_of(st.just(0), st.integers(-MINUTE, 2 * HOUR), st.integers(1, 1000)))
        found.append(Claim(f"q{number}", start, start + length, draw(weights)))
    return found


@settings(max_examples=examples(400), deadline=None)
@given(
    st.integers(-(10**20), 10**20),
    claims(),
    st.none() | st.fractions(0, 1),
    st.none() | st.integers(0, HOUR),
)
def test_the_shares_of_an_hour_sum_to_its_price(
    units: int, ran: list[Claim], idle: Fraction | None, uptime: int | None
) -> None:
    found = split(units, 0, HOUR, ran, idle=idle, uptime=uptime)
    assert sum(found.shares.values()) + found.idle == units
    if units >= 0:
        assert found.idle >= 0
        assert all(share >= 0 for share in found.shares.values())
    # The same history in another order gives the same shares.
    assert split(units, 0, HOUR, ran[::-1], idle=idle, uptime=uptime) == found


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 10**18), claims())
def test_each_share_is_the_fair_one_to_the_last_unit(units: int, ran: list[Claim]) -> None:
    found = split(units, 0, HOUR, ran, idle=Fraction(0))
    fair: dict[str, Fraction] = {}
    for claim in ran:
        length = claim.end - claim.start
        inside = min(claim.end, HOUR) - max(claim.start, 0)
        if length <= 0:
            part = Fraction(0 <= claim.start < HOUR)
        else:
            part = Fraction(max(0, inside), length)
        fair[claim.key] = Fraction(claim.weight) * part
    total = sum(fair.values())
    # A weight is cut to 10⁻¹⁸ of its unit, once for each claim.
    for key, share in found.shares.items():
        if total > Fraction(1, 1000):
            assert abs(share - units * fair[key] / total) <= 1 + units * Fraction(len(ran), 10**14)
    if not total:
        assert found.idle == units


def test_idle_is_the_time_in_which_nothing_ran() -> None:
    ran = [Claim("a", 0, 10 * MINUTE, 3), Claim("b", 5 * MINUTE, 15 * MINUTE, 1)]
    assert busy(ran, 0, HOUR) == 15 * MINUTE
    found = split(4 * UNIT, 0, HOUR, ran)
    assert found.idle == 3 * UNIT
    assert found.shares == {"a": UNIT * 3 // 4, "b": UNIT // 4}


def test_idle_is_of_the_time_that_was_paid_for() -> None:
    ran = [Claim("a", 0, 10 * MINUTE, 3)]
    found = split(4 * UNIT, 0, HOUR, ran, uptime=20 * MINUTE)
    assert found.idle == 2 * UNIT
    # Longer busy than it was switched on, as rounded clocks have it: nothing is idle.
    assert split(4 * UNIT, 0, HOUR, ran, uptime=5 * MINUTE).idle == 0


def test_what_did_no_work_bears_nothing() -> None:
    ran = [Claim("cached", 0, HOUR, 0), Claim("a", 0, HOUR, 1)]
    assert split(UNIT, 0, HOUR, ran).shares == {"a": UNIT, "cached": 0}
    assert split(UNIT, 0, HOUR, ran[:1]).idle == UNIT


def test_a_query_over_two_hours_is_in_both_by_its_time() -> None:
    ran = [Claim("a", HOUR // 2, HOUR + HOUR // 4, 3)]
    other = [*ran, Claim("b", 0, HOUR, 2)]
    first, second = split(3 * UNIT, 0, HOUR, other), split(UNIT, HOUR, 2 * HOUR, ran)
    assert first.idle == 0
    assert first.shares["a"] == first.shares["b"] == 3 * UNIT // 2  # two thirds of 3 against 2
    assert second.shares["a"] == UNIT // 4
    assert second.idle == UNIT * 3 // 4


# --- whole histories -----------------------------------------------------------------------------


@st.composite
def histories(draw: Any) -> tuple[list[Figure], list[Stretch]]:
    """Several hours over the end of a month, of one or two clusters, with gaps and overlaps."""
    month_end = timedelta(days=8, hours=10)  # from the noon of test ledgers to 30 November, 22:00
    figures: list[Figure] = []
    for number in range(draw(st.integers(0, 10))):
        begin = draw(st.integers(0, 5 * 60 * 60))
        length = draw(st.integers(0, 3 * 60 * 60))
        moment = at(0) + month_end + timedelta(seconds=begin)
        own = draw(st.integers(0, 9)) == 0
        figures.append(
            Figure(
                vendor_id=f"q{number}",
                started_at=moment,
                ended_at=moment + timedelta(seconds=length, microseconds=draw(st.integers(0, 999))),
                group=draw(st.sampled_from(["wh", "other"])),
                weight=draw(st.integers(0, 10**9)),
                text=f"SELECT 1 /* {MARK} */" if own else None,
            )
        )
    stretches: list[Stretch] = []
    for group in ("wh", "other"):
        for number in range(9):
            begin = at(0) + month_end + timedelta(hours=number)
            stretches += [
                Stretch(
                    group=group,
                    started_at=begin,
                    ended_at=begin + timedelta(hours=1),
                    quantity=draw(st.decimals(0, 100, places=9)),
                    meter="credits",
                    idle=draw(st.none() | st.integers(0, 100)),
                )
                for _ in range(draw(st.integers(1, 2)))
            ]
    return figures, stretches


BOOK: dict[str, PriceBook] = {}


def book(folder: Path) -> PriceBook:
    if not BOOK:
        BOOK["acme"] = PriceBook.load(price_file(folder))
    return BOOK["acme"]


@settings(max_examples=examples(60), deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_a_whole_history_adds_up(
    tmp_path_factory: Any, history: tuple[list[Figure], list[Stretch]], random: Any
) -> None:
    figures, stretches = history
    prices = book(tmp_path_factory.getbasetemp())
    found = costs(figures, stretches, prices, "acme", horizon=at(10**6))
    assert all(cost.amount is not None for cost in found.costs)
    paid = sum(round(Fraction(stretch.quantity) * 3 * UNIT) for stretch in stretches)
    shares = sum(cost.amount or 0 for cost in found.costs)
    assert shares + sum(pool.idle for pool in found.pools) == paid
    assert sum(pool.units for pool in found.pools) == paid
    own = sum(
        cost.amount or 0
        for cost, figure in zip(found.costs, figures, strict=True)
        if MARK in (figure.text or "")
    )
    assert own == sum(pool.own for pool in found.pools)
    # In whatever order it comes.
    pairs = list(zip(figures, found.costs, strict=True))
    random.shuffle(pairs)
    random.shuffle(stretches)
    again = costs([figure for figure, _ in pairs], stretches, prices, "acme", horizon=at(10**6))
    assert again.costs == [cost for _, cost in pairs]
    assert again.pools == found.pools


def test_a_query_that_comes_late_leaves_the_sum_as_it_is(tmp_path: Path) -> None:
    prices = book(tmp_path)
    ran = [work("a", 0, 30, 2), work("b", 10, 60, 5)]
    for figures in (ran, [*ran, work("late", 20, 50, 11)]):
        found = costs(figures, [hour(0, 4)], prices, "acme", horizon=at(60))
        assert sum(cost.amount or 0 for cost in found.costs) == 12 * UNIT
        assert [pool.idle for pool in found.pools] == [0]


def test_an_hour_that_is_not_whole_is_left_as_it_is(tmp_path: Path) -> None:
    prices = book(tmp_path)
    both = [work("a", 10, 20), work("b", 70, 80)]
    running = [work("a", 10, 20), work("b", 15, None)]
    cases: list[tuple[list[Figure], list[Stretch], float, list[str]]] = [
        (both, [hour(0), hour(60)], 120, ["", ""]),
        (both, [hour(0), hour(60)], 119, ["", LATE]),
        (both, [hour(0), hour(60, final=False)], 120, ["", NOT_FINAL]),
        (both, [hour(0)], 120, ["", NO_CAPACITY]),
        (running, [hour(0), hour(60)], 120, [BESIDE, "still runs"]),
    ]
    for figures, stretches, until, reasons in cases:
        found = costs(figures, stretches, prices, "acme", horizon=at(until))
        assert [cost.reason for cost in found.costs] == reasons
        assert [cost.amount is None for cost in found.costs] == [bool(r) for r in reasons]


def test_meters_that_are_billed_come_on_top_of_the_share(tmp_path: Path) -> None:
    figures = [
        work("both", 0, 60, meters={"scanned_bytes": 10**12}, billed=("scanned_bytes",)),
        query("bytes", 0, 60, meters={"scanned_bytes": 1}, billed=("scanned_bytes",)),
        query("free", 0, 60, meters={"scanned_bytes": 0}, billed=("scanned_bytes",)),
        query("nothing", 0, 60, meters={"scanned_bytes": 5}),
    ]
    found = costs(figures, [hour(0, 1)], book(tmp_path), "acme", horizon=at(60)).costs
    assert [cost.amount for cost in found] == [8 * UNIT, UNIT // 20_000, 0, None]
    assert [cost.basis for cost in found] == ["allocated", "metered", "metered", "unknown"]
    assert found[0].price is not None
    assert found[0].price.key == "acme.credit + acme.scan"
    assert found[0].capacity == 3600 * UNIT


def test_what_the_system_itself_says_an_hour_cost_is_believed(tmp_path: Path) -> None:
    stretch = hour(
        0,
        3,
        meter="dbu",
        amount=Decimal("2.1"),
        currency="EUR",
        unit_price=Decimal("0.70"),
        unit="DBU",
        source="system.billing.list_prices",
    )
    found = costs([work("a", 0, 60)], [stretch], book(tmp_path), "acme", horizon=at(60))
    (cost,) = found.costs
    assert cost.amount == 21 * UNIT // 10
    assert cost.price is not None
    assert cost.price[:4] == ("acme:dbu", "0.70", "DBU", "EUR")


def test_an_hour_without_a_price_list_is_priced_by_the_users_capacity(tmp_path: Path) -> None:
    own = PriceBook.load(
        price_file(tmp_path),
        capacities=[
            {"name": "cluster", "system": "acme", "host": "*", "price": "7.20", "currency": "USD"}
        ],
    )
    stretch = hour(0, 0, meter=None)
    found = costs([work("a", 0, 30)], [stretch], own, "acme", horizon=at(60))
    assert [cost.amount for cost in found.costs] == [36 * UNIT // 10]
    assert found.pools[0].idle == 36 * UNIT // 10
    # And where there is none, nothing is guessed.
    none = costs([work("a", 0, 30)], [stretch], book(tmp_path), "acme", horizon=at(60))
    assert none.costs[0].amount is None
    assert "add a [[capacity]]" in none.costs[0].reason
    assert list(none.unpriced.values()) == [1]
