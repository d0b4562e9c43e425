"""What an invocation of dbt's cost: sums that are exact, a file, and a table."""

from __future__ import annotations

import json
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costinsights.attribution import MAX_VALUE
from costinsights.dbt.adding import Costs, add, plus
from costinsights.dbt.artifact import as_json, write
from costinsights.dbt.nodes import joined, labels_of
from costinsights.dbt.results import Metadata, Result, RunResults, read
from costinsights.dbt.table import MOST, table, text
from costinsights.records import Charge, ErrorInfo, Resource, StatementInfo

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RUN = "0098dcd8-7145-4b57-bb3e-ce2c6a62f7be"


def charge(number: int, node: str | None, amount: str | None = None, **more: Any) -> Charge:
    """A charge of the invocation, a second after the one before."""
    labels = {"rule": "dbt", "dbt.invocation_id": RUN, "dbt.command": "build"}
    if node is not None:
        labels |= {"dbt.node_id": f"model.shop.{node}", "dbt.resource_type": "model"}
    labels |= more.pop("labels", {})
    moment = f"2026-11-23T10:{number // 60 % 60:02}:{number % 60:02}.000000Z"
    return Charge(
        charge_id=more.pop("charge_id", f"{number:020x}-1"),
        system=more.pop("system", "postgresql"),
        resource=Resource(),
        operation="SELECT",
        statement=StatementInfo(more.pop("shape", f"{number:016x}"), "SELECT", "SELECT 1"),
        started_at=moment,
        ended_at=moment,
        duration_ns=more.pop("duration_ns", 1_000_000),
        usage=more.pop("usage", {"time_ns": 1_000_000}),
        rows=more.pop("rows", 1),
        amount=amount,
        currency=more.pop("currency", None if amount is None else "USD"),
        basis=more.pop("basis", "unknown" if amount is None else "estimated"),
        price=None,
        attribution=labels,
        trace_id="0" * 32,
        span_id="0" * 16,
        service="dbt",
        host="here",
        pid=1,
        instrumentor="psycopg2",
        **more,
    )


def named(costs: Costs) -> dict[str, Any]:
    return {node.name: node.figures for node in costs.nodes}


AMOUNTS = st.one_of(
    st.none(), st.decimals(0, 10**9, places=15, allow_nan=False, allow_infinity=False)
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "orders", "sales", "stores"]),
            AMOUNTS,
            st.sampled_from(["USD", "EUR"]),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_nothing_is_lost_in_adding(
    calls: list[tuple[str | None, Decimal | None, str, bool]],
) -> None:
    charges = [
        charge(
            number,
            node,
            None if amount is None else f"{amount:f}",
            currency=None if amount is None else currency,
            error=ErrorInfo("Error") if failed else None,
        )
        for number, (node, amount, currency, failed) in enumerate(calls)
    ]
    costs = add(charges, RUN)
    for currency in ("USD", "EUR"):
        known = [Decimal(c.amount) for c in charges if c.amount and c.currency == currency]
        parts = [node.figures for node in costs.nodes] + [costs.other]
        whole = sum((part.costs.get(currency, Decimal(0)) for part in parts), Decimal(0))
        assert whole == sum(known, Decimal(0)) == costs.total.costs.get(currency, Decimal(0))
        assert costs.total.failed_costs.get(currency, Decimal(0)) <= whole
    assert costs.total.calls == len(charges)
    assert costs.total.unpriced_calls == sum(c.amount is None for c in charges)
    assert costs.total.failed_calls == sum(c.error is not None for c in charges)
    assert plus([*(node.figures for node in costs.nodes), costs.other]) == costs.total
    document = json.loads(as_json(costs))
    assert {t["currency"]: Decimal(t["amount"]) for t in document["totals"]} == costs.total.costs


def test_the_best_entry_of_a_charge_counts_once() -> None:
    charges = [
        charge(1, "orders", "2", charge_id="x", revision=1),
        charge(1, "orders", "1", charge_id="x"),
        charge(1, "orders", "3", charge_id="x", basis="metered"),
        charge(1, "orders", None, charge_id="x", revision=7),
    ]
    costs = add(charges, RUN)
    assert costs.total.costs == {"USD": Decimal(3)}
    assert (costs.total.calls, costs.total.unpriced_calls) == (1, 0)
    assert costs.total.bases == {"metered": 1}


def test_another_invocation_is_another() -> None:
    other = charge(1, "orders", "2", labels={"dbt.invocation_id": "another"})
    assert add([other], RUN).total.calls == 0


def test_what_is_sent_again() -> None:
    failed = ErrorInfo("Error")
    costs = add(
        [
            charge(1, "lock", "1", shape="a", error=failed),
            charge(2, "lock", "2", shape="a"),
            charge(3, "lock", "4", shape="b"),
            charge(4, "other", "8", shape="a"),
            charge(5, "repeated", "16", labels={"dbt.retried": "true"}),
            charge(6, "second", "32", labels={"attempt": "2"}),
            charge(7, "first", "64", labels={"attempt": "1"}),
        ],
        RUN,
    )
    figures = named(costs)
    assert figures["lock"].retried_costs == {"USD": Decimal(2)}
    assert figures["lock"].failed_costs == {"USD": Decimal(1)}
    assert figures["other"].retried_costs == {}
    assert costs.total.retried_costs == {"USD": Decimal(2 + 16 + 32)}


def test_meters_are_added_and_words_are_not() -> None:
    costs = add(
        [
            charge(1, "a", usage={"time_ns": 1, "billed_bytes": 10, "state": "DONE"}),
            charge(2, "a", usage={"billed_bytes": 5, "capacity_seconds": "0.25", "slots": 1.5}),
            charge(3, "b", usage={"capacity_seconds": "0.5", "word": "NaN"}),
        ],
        RUN,
    )
    assert named(costs)["a"].usage == {"billed_bytes": 15, "capacity_seconds": 0.25, "slots": 1.5}
    assert costs.total.usage == {"billed_bytes": 15, "capacity_seconds": 0.75, "slots": 1.5}


def test_results_of_another_run_say_nothing() -> None:
    results = [Result("model.shop.orders", "error")]
    ours, others = (RunResults(Metadata(run), results, 1.5) for run in (RUN, "another"))
    charges = [charge(1, "orders")]
    assert add(charges, RUN, ours).nodes[0].status == "error"
    assert add(charges, RUN, ours).elapsed_seconds == 1.5
    assert add(charges, RUN, others).nodes[0].status is None
    assert add(charges, RUN, others, 2.5).elapsed_seconds == 2.5


@pytest.mark.parametrize("content", ["", "[]", '{"results": 3}', "{", '{"metadata": null}'])
def test_results_that_cannot_be_read(tmp_path: Path, content: str) -> None:
    assert read(str(tmp_path)) is None
    (tmp_path / "run_results.json").write_text(content)
    assert read(str(tmp_path)) is None


# --- the file ------------------------------------------------------------------------------------


def test_the_file_is_as_open_as_the_results(tmp_path: Path) -> None:
    costs = add([charge(1, "orders", "0.100000000000000")], RUN)
    path = write(costs, str(tmp_path))
    assert (tmp_path / "costs.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "run_results.json").write_text("{}")
    (tmp_path / "run_results.json").chmod(0o640)
    assert write(costs, str(tmp_path)) == path
    assert (tmp_path / "costs.json").stat().st_mode & 0o777 == 0o640
    assert sorted(one.name for one in tmp_path.iterdir()) == ["costs.json", "run_results.json"]
    document = json.loads((tmp_path / "costs.json").read_text())
    assert document["version"] == 1
    assert document["totals"] == [{"currency": "USD", "amount": "0.1"}]
    assert document["nodes"][0]["costs"] == [{"currency": "USD", "amount": "0.1"}]
    assert document["other"]["calls"] == 0


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"costs\.json"):
        write(add([], RUN), str(tmp_path / "nowhere"))


# --- the table -----------------------------------------------------------------------------------


def shown(charges: Sequence[Charge], width: int | None = None) -> list[str]:
    return text(table(add(charges, RUN), width), in_colour=False).splitlines()


def test_the_dearest_come_first_and_the_rest_is_one_row() -> None:
    charges = [charge(n, f"node_{n:02}", f"{n}.5") for n in range(1, 31)]
    lines = shown([*charges, charge(40, None, "0.25")])
    names = [line.split()[0] for line in lines[5:-6]]
    assert names[:MOST] == [f"node_{n:02}" for n in range(30, 10, -1)]
    assert lines[5 + MOST].startswith("10 others")
    assert "$60.00" in lines[5 + MOST]  # 1.5 + … + 10.5
    assert lines[6 + MOST].startswith("(no node)")
    assert "$480.25" in next(line for line in lines if line.startswith("total"))


def test_one_node_too_many_is_named_too() -> None:
    lines = shown([charge(n, f"node_{n}", "1") for n in range(MOST + 1)])
    assert not any("others" in line for line in lines)


def test_what_is_not_known_is_a_dash_and_not_zero() -> None:
    lines = shown([charge(1, "dear", "1.5"), charge(2, "unknown")])
    row = next(line for line in lines if line.startswith("unknown"))
    assert "—" in row
    assert "0.00" not in row
    advice = next(line for line in lines if line.startswith("1 of 2 statements have no price"))
    assert "what an hour of postgresql costs" in advice
    assert not any("settle" in line for line in lines)
    lines = shown([charge(1, "unknown", system="snowflake")])
    assert any(line.startswith("No statement has a price yet.") for line in lines)
    assert "What snowflake itself knows of them: costinsights settle snowflake" in lines


def test_currencies_are_not_added() -> None:
    lines = shown([charge(1, "a", "1.5"), charge(2, "a", "2.5", currency="EUR")])
    assert "€2.50 + $1.50" in next(line for line in lines if line.startswith("total"))


def test_failed_and_repeated_spend_are_told() -> None:
    lines = shown(
        [
            charge(1, "a", "1", shape="x", error=ErrorInfo("Error")),
            charge(2, "a", "2", shape="x"),
        ]
    )
    assert next(line for line in lines if line.startswith("of it failed")).split()[3] == "$1.00"
    assert "$2.00" in next(line for line in lines if line.startswith("of it sent again"))


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_table_keeps_to_the_width(width: int) -> None:
    charges = [
        charge(n, "long_" * n, f"{n}.5", usage={"billed_bytes": 10**n}) for n in range(1, 16)
    ]
    lines = shown(charges, width)
    assert all(len(line) <= width for line in lines[3:-4]), lines


def test_a_name_cannot_steer_the_terminal() -> None:
    evil = charge(1, "a\x1b[2J", "1")
    lines = text(table(add([evil], RUN)), in_colour=True)
    assert "\x1b[2J" not in lines
    assert "\x1b[1m" in lines


# --- what a node says of itself ------------------------------------------------------------------


def node(**facts: Any) -> Any:
    config = SimpleNamespace(materialized="table", meta=facts.pop("meta", {}))
    return SimpleNamespace(
        unique_id="model.shop.orders", resource_type="model", tags=[], config=config, **facts
    )


def test_addresses_are_nobodys_name() -> None:
    group = SimpleNamespace(name="g", owner=SimpleNamespace(email="a@b.c", name=None))
    manifest = SimpleNamespace(groups={"group.shop.g": group}, nodes={})
    assert labels_of(node(group="g"), manifest)["dbt.owner"] is None
    assert labels_of(node(group="g"), manifest)["team"] == "g"
    assert labels_of(node(meta={"owner": "a@b.c"}), None)["dbt.owner"] is None
    assert labels_of(node(meta={"owner": {"email": "a@b.c", "name": "Ann"}}), None)["team"] == "Ann"
    group.owner.name = "The team"
    found = labels_of(node(group="g", meta={"owner": 3}), manifest)
    assert (found["dbt.owner"], found["team"]) == ("The team", "g")


def test_labels_of_the_users_own() -> None:
    meta = {
        "costinsights": {
            "asset": "theirs",
            "tier": 1,
            "list": [1],
            "none": None,
            3: "three",
            "rule": "x",
            "run": "y",
            "dbt.node_id": "z",
        }
    }
    found = labels_of(node(meta=meta), None)
    assert found["asset"] == "theirs"
    assert (found["tier"], found["3"]) == (1, "three")
    assert found["dbt.node_id"] == "model.shop.orders"
    assert not {"list", "none", "rule", "run"} & found.keys()
    assert labels_of(node(meta={"costinsights": "words"}), None)["asset"] == "orders"


@given(st.lists(st.text(alphabet="abc", max_size=90), max_size=12))
def test_only_whole_tags_are_kept(tags: list[str]) -> None:
    kept = joined(tags)
    if kept is None:
        assert not any(tags)
        return
    assert len(kept) <= MAX_VALUE
    assert set(kept.split(",")) <= set(tags)
    assert kept.split(",") == sorted(set(kept.split(",")))


def test_names_are_there_without_dbt() -> None:
    import costinsights.dbt

    assert set(costinsights.dbt.__all__) <= set(dir(costinsights.dbt))
    assert costinsights.dbt.Costs is Costs
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = costinsights.dbt.nothing
