"""The parts of Dagster's exporter that know no Dagster: sums, shares, and where costs go."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costinsights.dagster.figures import Figures, number_of, units_of
from costinsights.dagster.tail import Budget, Tail
from costinsights.dagster.targets import Facts, Target, Who, share_out, targets, who
from costinsights.records import Charge, PriceInfo, Resource, StatementInfo
from costinsights.settlement.writing import write

STEP = {"run": "r1", "task": "s", "job": "j", "attempt": "1", "rule": "dagster"}


def charge(amount: str | None = "0.000000000000007", number: int = 1, **changes: object) -> Charge:
    """A charge of a step."""
    fields: dict[str, object] = {
        "charge_id": f"{'a' * 20}-{number}",
        "system": "sqlite",
        "resource": Resource(),
        "operation": "SELECT",
        "statement": StatementInfo("f", "SELECT orders", "SELECT * FROM orders"),
        "started_at": "2026-11-23T10:00:00.000000Z",
        "ended_at": "2026-11-23T10:00:01.000000Z",
        "duration_ns": 10,
        "usage": {"time_ns": 10, "bytes": 5, "capacity_seconds": "0.500000000000000"},
        "rows": 1,
        "amount": amount,
        "currency": None if amount is None else "USD",
        "basis": "unknown" if amount is None else "estimated",
        "price": None if amount is None else PriceInfo("k", "1", "h", "a list", "2026", "b"),
        "attribution": dict(STEP),
        "trace_id": "0" * 32,
        "span_id": "0" * 16,
        "service": "s",
        "host": "h",
        "pid": 1,
        "instrumentor": "sqlite3",
        **changes,
    }
    return Charge(**fields)  # type: ignore[arg-type]


def of(**labels: str) -> Who:
    """Whom a charge with these labels is for."""
    found = who(charge(attribution={**STEP, **labels}))
    assert found is not None
    return found


def nobody(_: str) -> bool:
    return False


@given(
    st.integers(-(10**20), 10**20),
    st.integers(1, 40),
    st.integers(0, 1000),
    st.decimals(-1000, 1000, places=6),
)
def test_shares_add_up(units: int, count: int, calls: int, seconds: Decimal) -> None:
    whole = Figures()
    whole.units["USD"], whole.calls = units, calls
    whole.usage.update(seconds=seconds, bytes=calls)
    share, first = whole.shares(count)
    together = Figures()
    together.merge(first)
    for _ in range(count - 1):
        together.merge(share)
    assert (together.units, together.calls, together.usage) == (
        whole.units,
        whole.calls,
        whole.usage,
    )
    assert abs(first.units["USD"] - share.units["USD"]) < count


def test_a_difference_is_what_was_not_told() -> None:
    spent = Figures()
    for number in range(3):
        spent.add(charge(number=number))
    told = Figures()
    told.add(charge())
    rest = spent.less(told)
    assert (rest.units, rest.calls, rest.duration_ns) == ({"USD": 14}, 2, 20)
    assert rest.usage == {"bytes": 10, "capacity_seconds": 1}
    assert not spent.less(spent)
    taken_back = Figures().less(told)
    assert (taken_back.units, taken_back.calls) == ({"USD": -7}, -1)


def test_roundings_are_no_difference() -> None:
    spent, told = Figures(), Figures()
    spent.usage["seconds"] = Decimal("0.1") * 3
    told.usage["seconds"] = Decimal(repr(0.1 + 0.1 + 0.1))
    assert not spent.less(told)


def test_unknown_is_not_zero() -> None:
    figures = Figures()
    figures.add(charge(None))
    assert (figures.units, figures.unpriced, figures.basis) == ({}, 1, "unknown")
    figures.add(charge())
    assert (figures.units, figures.unpriced, figures.basis) == ({"USD": 7}, 1, "unknown")
    assert figures.sources == {"a list"}


def test_statements_are_bounded_and_the_dearest_stay() -> None:
    figures = Figures()
    for number in range(1000):
        info = StatementInfo(str(number), f"SELECT t{number}", "")
        figures.add(charge(f"0.{number:015d}", number, statement=info))
    assert [dear.summary for dear in figures.dearest(2)] == ["SELECT t999", "SELECT t998"]
    assert len(figures.statements) <= 128
    assert figures.calls == 1000


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), ("0.5", Decimal("0.5")), (0.1, Decimal("0.1")), (True, 1)],
)
def test_meters_that_are_numbers(value: object, number: object) -> None:
    assert number_of(value) == number


@pytest.mark.parametrize("value", ["large", "nan", float("inf"), None])
def test_meters_that_are_none(value: object) -> None:
    assert number_of(value) is None


@given(st.integers(-(10**25), 10**25))
def test_units_of_what_is_written(units: int) -> None:
    from costinsights.records import decimal_text

    assert units_of(decimal_text(units)) == units


# --- where costs go -------------------------------------------------------------------------------

FACTS = Facts("r1", "s", "j", assets={"b": [], "a/x": ["1", "2"]}, partition="1...2")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"asset": "a/x,b"}, [("a/x", "1"), ("a/x", "2"), ("b", None)]),
        ({}, [("a/x", "1"), ("a/x", "2"), ("b", None)]),  # too long for a label
        ({"asset": "a/x"}, [("a/x", "1"), ("a/x", "2")]),
        ({"asset": "a/x", "partition": "2"}, [("a/x", "2")]),
        ({"asset": "b", "partition": "2"}, [("b", None)]),
        ({"asset": "nobody's"}, [("costinsights/job/j", None)]),
        ({"asset": "known", "partition": "9"}, [("known", "9")]),
        ({"asset": "known", "partition": "1...2"}, [("known", None)]),
        ({"asset": "b,nobody's"}, [("costinsights/job/j", None)]),
        ({"dbt.invocation_id": "i", "asset": "a/x,b"}, [("costinsights/job/j", None)]),
    ],
)
def test_targets_of_a_step(labels: dict[str, str], expected: list[tuple[str, str | None]]) -> None:
    assert targets(of(**labels), FACTS, "known".__eq__) == [Target(*one) for one in expected]


def test_nodes_of_dbt_are_assets() -> None:
    facts = Facts("r1", "s", "j", assets={"orders": []}, nodes={"model.shop.o": "orders"})
    model = of(**{"dbt.node_id": "model.shop.o", "asset": "o", "rule": "dbt+dagster"})
    assert targets(model, facts, nobody) == [Target("orders")]
    other = of(**{"dbt.node_id": "operation.shop.hook", "asset": "hook", "rule": "dbt+dagster"})
    assert targets(other, facts, nobody) == [Target("costinsights/job/j")]


def test_without_facts_dagsters_labels_are_believed() -> None:
    assert targets(of(asset="a,b"), None, nobody) == [Target("a"), Target("b")]
    assert targets(of(asset="a", partition="p"), None, nobody) == [Target("a", "p")]
    ranged = of(asset="a", partition="1...3")
    assert targets(ranged, None, nobody, lambda _: ["1", "3"]) == [
        Target("a", "1"),
        Target("a", "3"),
    ]
    scoped = of(asset="a", rule="scope+dagster")
    assert targets(scoped, None, nobody) == [Target("costinsights/job/j")]
    assert targets(scoped, None, "a".__eq__) == [Target("a")]


def test_outside_of_runs() -> None:
    sensor = who(charge(attribution={"sensor": "looks", "job": "looks", "rule": "scope"}))
    assert sensor is not None
    assert sensor.day == "2026-11-23"
    assert targets(sensor, None, nobody) == [Target("costinsights/sensor/looks")]
    launched = of(sensor="looks")
    assert targets(launched, None, nobody) == [Target("costinsights/job/j")]
    assert who(charge(attribution={"job": "j"})) is None


def test_sharing_out_adds_up() -> None:
    figures = Figures()
    figures.add(charge("0.000000000000008"))
    single = Figures()
    single.add(charge("0.000000000000001"))
    places = [Target("a"), Target("b"), Target("c")]
    found = share_out([(figures, places), (single, [Target("b")])])
    assert {place: (part.units["USD"], split) for place, (part, split) in found.items()} == {
        Target("a"): (4, 3),
        Target("b"): (3, 3),
        Target("c"): (2, 3),
    }


# --- following the ledger -------------------------------------------------------------------------


def test_the_tail_counts_each_charge_once(tmp_path: object) -> None:
    ledger = str(tmp_path)
    first = charge(partial=True)
    write(ledger, [first, charge(number=2)])
    tail = Tail(ledger)
    paths = tail.others(0.0)
    assert tail.catch_up(paths)
    assert tail.catch_up(paths)
    (figures,) = tail.of("r1", "s").values()
    assert (figures.calls, figures.units) == (2, {"USD": 14})

    later = charge("0.000000000000009", partial=False, revision=1)
    write(ledger, [later])
    assert tail.catch_up(tail.others(0.0))
    (figures,) = tail.of("r1", "s").values()
    assert (figures.calls, figures.units) == (2, {"USD": 16})
    assert not tail.unsure

    write(ledger, [charge("0.000000000000009", number=2, revision=1)])
    assert tail.catch_up(tail.others(0.0))
    assert tail.unsure == {"r1"}  # it no longer knows what the charge was: the ledger does


def test_the_tail_stops_when_its_time_is_over(tmp_path: object) -> None:
    ledger = str(tmp_path)
    write(ledger, [charge(number=number) for number in range(200)])
    tail = Tail(ledger)
    assert not tail.catch_up(tail.others(0.0), Budget(0.0))
    assert not tail.of("r1")
    assert tail.catch_up(tail.others(0.0))
    (figures,) = tail.of("r1").values()
    assert figures.calls == 200
