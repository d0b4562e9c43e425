"""`settle`: from a seeded history to later figures in real ledgers, once and without a gap."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costinsights import plugins
from costinsights.ledger.compact import compact
from costinsights.ledger.reader import read_ledger
from costinsights.ledger.store import Period, open_store
from costinsights.ledger.verify import verify
from costinsights.records import Resource
from costinsights.settlement import (
    HistoryError,
    NotAsked,
    Settled,
    SettlementError,
    WouldWake,
    settle,
    settling,
)
from costinsights.settlement.history import MARK, utc
from costinsights.settlement.settling import SELF
from costinsights.statement import parse
from tests.histories import (
    SYSTEM,
    SeededHistory,
    at,
    hour,
    ns,
    price_file,
    query,
    work,
)
from tests.ledgers import UNIT, Program, aged

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from costinsights.records import Charge

ORDERS = "SELECT * FROM orders WHERE id = 7"
SCAN = {"meters": {"scanned_bytes": 10**12}, "billed": ("scanned_bytes",)}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@contextmanager
def program(ledger: Path, **options: Any) -> Generator[Program]:
    found = Program(ledger, **options)
    yield found
    found.close()


def call(program: Program, minute: float, vendor_id: str | None = None, **more: Any) -> str:
    """One call of an instrumented program, as its client knows it: no price."""
    given: dict[str, Any] = {
        "at": ns(minute),
        "amount": None,
        "system": SYSTEM,
        "statement": "SELECT orders",
        "text": "SELECT * FROM orders WHERE id = ?",
        "fingerprint": parse(ORDERS, SYSTEM).fingerprint,
        "labels": {"asset": "orders"},
        "i": vendor_id,
        "resource": Resource("acme.example", namespace="shop"),
        **more,
    }
    return program.call(**given)


def run(ledger: Path, history: SeededHistory, **more: Any) -> Settled:
    given: dict[str, Any] = {
        "since": at(0),
        "until": at(120),
        "now": at(180),
        "config": {"price_books": [price_file(ledger.parent)]},
        **more,
    }
    return settle(SYSTEM, ledger=str(ledger), history=history, **given)


def counted(ledger: Path) -> dict[str, Charge]:
    with open_store(str(ledger)) as store:
        found = {charge.charge_id: charge for charge in store.charges()}
        store.post(Period(), totals=False)
        row = store.connection.execute("SELECT sum(calls) FROM postings").fetchone()
    assert row is not None
    assert (row[0] or 0) == len(found)
    return found


def entries(ledger: Path) -> int:
    return sum(1 for _ in read_ledger(str(ledger)))


def money(charges: Sequence[Charge]) -> Decimal:
    return sum((Decimal(charge.amount) for charge in charges if charge.amount), Decimal(0))


# --- the charges of instrumented programs ---------------------------------------------------------


def test_a_charge_gets_the_figures_of_the_history(ledger: Path) -> None:
    with program(ledger, service="shop") as shop:
        charge_id = call(shop, 10, "q1", u={"batch_size": 3}, x=f"00-{'a' * 32}-{'b' * 16}-01")
    (before,) = read_ledger(str(ledger))
    history = SeededHistory([query("q1", 10, 11, rows=99, error="TIMEOUT", **SCAN)])
    report = run(ledger, history)
    assert (report.settled, report.found, report.left) == (1, {"id": 1}, {})
    assert report.amounts == {"USD": {"charges": "5.000000000000000"}}
    after = counted(ledger)[charge_id]
    assert (after.amount, after.currency, after.basis) == ("5.000000000000000", "USD", "metered")
    assert after.price is not None
    assert after.price.key == "acme.scan"
    assert after.revision == 1
    assert after.usage == {"time_ns": 10**9, "batch_size": 3, "scanned_bytes": 10**12}
    assert after.rows == 1  # the client's own count stays
    assert after.error is not None
    assert after.error.type == "TIMEOUT"
    # All else is what the program said: who it was, when, and for whom.
    for name in ("service", "host", "pid", "instrumentor", "attribution", "statement", "resource"):
        assert getattr(after, name) == getattr(before, name), name
    for name in (
        "started_at",
        "ended_at",
        "duration_ns",
        "trace_id",
        "parent_span_id",
        "vendor_id",
    ):
        assert getattr(after, name) == getattr(before, name), name
    assert verify(str(ledger)).sound


def test_settling_twice_changes_nothing(ledger: Path) -> None:
    with program(ledger) as shop:
        call(shop, 10, "q1")
        call(shop, 70, "q2")
    figures = [work("q1", 10, 40, 3), work("q2", 30, 90, 5), work("other", 0, 120, 1)]
    history = SeededHistory(figures, [hour(0), hour(60)])
    first = run(ledger, history, all=True)
    assert (first.settled, first.added, first.unchanged) == (2, 1, 0)
    written = entries(ledger)
    for compacts in (False, True):
        if compacts:
            aged(ledger)
            compact(str(ledger))
            written = entries(ledger)
        again = run(ledger, SeededHistory(figures[::-1], history.stretches[::-1]), all=True)
        assert (again.settled, again.added, again.idle, again.unchanged) == (0, 0, 0, 3)
        assert again.amounts == first.amounts
        assert entries(ledger) == written


def test_a_share_is_allocated_and_the_hour_adds_up(ledger: Path) -> None:
    with program(ledger) as shop:
        ids = [call(shop, 10, "q1"), call(shop, 30, "q2")]
    history = SeededHistory(
        [work("q1", 10, 40, 1), work("q2", 20, 50, 2), work("bi", 20, 50, 3)], [hour(0, 4)]
    )
    run(ledger, history, all=True)
    found = counted(ledger)
    assert [found[id_].basis for id_ in ids] == ["allocated", "allocated"]
    assert money(list(found.values())) == 12
    idle = found[f"{SYSTEM}:idle:wh:2026-11-22T12:00:00Z/3600"]
    assert (idle.amount, idle.operation) == ("4.000000000000000", "IDLE")
    assert idle.attribution == {"rule": "idle"}
    assert idle.usage["capacity_seconds"] == "1200.000000000000000"
    thirds = Decimal(found[ids[1]].amount or 0) * 3
    assert abs(thirds - 8) < Decimal("1e-14")


def test_an_estimate_of_shared_capacity_is_replaced(ledger: Path) -> None:
    with program(ledger) as shop:
        charge_id = call(shop, 10, "q1", amount=7 * UNIT, f=600 * UNIT)
    run(ledger, SeededHistory([work("q1", 0, 60)], [hour(0, 1)]))
    charge = counted(ledger)[charge_id]
    assert (charge.amount, charge.basis) == ("3.000000000000000", "allocated")
    assert charge.usage["capacity_seconds"] == "3600.000000000000000"
    run(ledger, SeededHistory([query("q1", 0, 60, **SCAN)]))
    charge = counted(ledger)[charge_id]
    assert (charge.amount, charge.basis, charge.revision) == ("5.000000000000000", "metered", 2)
    assert "capacity_seconds" not in charge.usage


def test_a_better_figure_is_never_replaced_by_a_worse_one(ledger: Path) -> None:
    with program(ledger) as shop:
        charge_id = call(shop, 10, "q1", amount=7 * UNIT, basis="billed")
    report = run(ledger, SeededHistory([query("q1", 10, 11, **SCAN)]))
    assert report.left == {"the charge has a better figure already": 1}
    assert counted(ledger)[charge_id].amount == "7.000000000000000"
    assert entries(ledger) == 1


def test_a_restated_history_restates_the_charge(ledger: Path) -> None:
    with program(ledger) as shop:
        charge_id = call(shop, 10, "q1")
    for number, size in enumerate((10**12, 3 * 10**12, 2 * 10**12), 1):
        figure = query("q1", 10, 11, meters={"scanned_bytes": size}, billed=("scanned_bytes",))
        assert run(ledger, SeededHistory([figure])).settled == 1
        charge = counted(ledger)[charge_id]
        assert (charge.revision, Decimal(charge.amount or 0)) == (
            number,
            Decimal(5 * size) / 10**12,
        )


def test_what_has_no_price_keeps_its_basis_and_gets_its_meters(ledger: Path) -> None:
    with program(ledger) as shop:
        unknown = call(shop, 10, "q1")
        estimated = call(shop, 11, "q2", amount=UNIT)
    meters: dict[str, Any] = {"meters": {"slots": 7}, "billed": ("slots",)}
    history = SeededHistory([query("q1", 10, 11, **meters), query("q2", 11, 12, **meters)])
    report = run(ledger, history)
    assert sum(report.unpriced.values()) == 2
    assert "no 'slots'" in next(iter(report.unpriced))
    found = counted(ledger)
    assert (found[unknown].amount, found[unknown].basis) == (None, "unknown")
    assert found[unknown].usage["slots"] == 7
    assert (found[estimated].amount, found[estimated].basis) == ("1.000000000000000", "estimated")
    assert run(ledger, history).settled == 0


# --- how charges are found ------------------------------------------------------------------------


def test_by_tag_the_nearest_of_equal_calls_is_taken(ledger: Path) -> None:
    tag = "ci,asset=orders,job=nightly"
    with program(ledger) as shop:
        first, second = call(shop, 10, g=tag), call(shop, 12, g=tag)
        other = call(shop, 10, g="ci,asset=refunds")
        elsewhere = call(shop, 12, g=tag, resource=Resource("acme.example", namespace="hr"))
    shared: dict[str, Any] = {**SCAN, "text": ORDERS, "resource": Resource(namespace="SHOP")}
    history = SeededHistory(
        [
            query("a", 12, 12.01, tag=f"app,{tag}", **shared),
            query("b", 10, 10.01, tag=tag, **shared),
            query("far", 40, 41, tag=tag, **shared),
            query("else", 10, 11, tag=tag, **{**shared, "text": "DELETE FROM orders"}),
        ]
    )
    report = run(ledger, history)
    assert report.found == {"tag": 2}
    assert (report.outside, report.without) == (2, 2)
    found = counted(ledger)
    assert [found[id_].vendor_id for id_ in (first, second, other, elsewhere)] == [
        "b",
        "a",
        None,
        None,
    ]


def test_by_statement_only_what_is_certain_is_taken(ledger: Path) -> None:
    with program(ledger) as shop:
        alone = call(shop, 10)
        twins = [call(shop, 30), call(shop, 30.01, labels={"asset": "refunds"})]
        once = call(shop, 70)
        there = call(shop, 90, resource=Resource("other.example"))
    history = SeededHistory(
        [
            query("a", 10, 10.01, text=ORDERS.replace("7", "8"), **SCAN),
            query("b", 30, 30.01, text=ORDERS, **SCAN),
            query("c", 50, 50.01, text=ORDERS, **SCAN),
            # Another program has run it as well.
            query("d", 70, 70.01, text=ORDERS, **SCAN),
            query("e", 70.01, 70.02, text=ORDERS, **SCAN),
            query("f", 90, 90.01, text=ORDERS, resource=Resource("acme.example"), **SCAN),
        ]
    )
    report = run(ledger, history, all=True)
    assert report.found == {"statement": 1}
    assert report.left == {"several calls fit it, and nothing tells which": 3}
    found = counted(ledger)
    assert found[alone].vendor_id == "a"
    assert [found[id_].vendor_id for id_ in (*twins, once, there)] == [None] * 4
    # What is in doubt is no charge of its own either: it would count twice.
    assert {id_ for id_ in found if id_.startswith("acme:")} == {"acme:c", "acme:f"}


def test_equal_calls_for_the_same_get_a_figure_each(ledger: Path) -> None:
    """As a loop makes them: whichever it is, it is for the same asset."""
    with program(ledger) as shop:
        ids = [call(shop, 10 + n / 60, duration=5 * 10**8) for n in range(20)]
    figures = [
        query(f"q{n:02}", 10 + (n + 0.1) / 60, 10 + (n + 0.4) / 60, text=ORDERS, **SCAN)
        for n in range(20)
    ]
    for settled in (20, 0):
        report = run(ledger, SeededHistory(figures[::-1]))
        assert (sum(report.found.values()), report.settled) == (20, settled)
        found = counted(ledger)
        assert [found[id_].vendor_id for id_ in ids] == [f"q{n:02}" for n in range(20)]


def test_a_batch_has_as_many_figures_as_statements(ledger: Path) -> None:
    with program(ledger) as shop:
        charge_id = call(shop, 10, duration=60 * 10**9, o="BATCH INSERT", g="ci,job=x")
    figures = [query(f"q{n}", 10 + n / 10, 10.1 + n / 10, tag="ci,job=x", **SCAN) for n in range(3)]
    report = run(ledger, SeededHistory(figures))
    assert (report.settled, report.found) == (1, {"tag": 3})
    charge = counted(ledger)[charge_id]
    assert charge.amount == "15.000000000000000"
    assert charge.usage["scanned_bytes"] == 3 * 10**12
    assert charge.vendor_id is None
    # While one of them is not known, none is.
    assert run(ledger, SeededHistory([*figures[:2], query("q2", 10.2, None, tag="ci,job=x")])).left


def test_a_pending_job_gets_its_end(ledger: Path) -> None:
    with program(ledger) as shop:
        charge_id = call(shop, 10, "run-1", l=True, rows=None)
    run(ledger, SeededHistory([query("run-1", 10, 50, rows=5, **SCAN)]))
    charge = counted(ledger)[charge_id]
    assert (charge.partial, charge.rows) == (False, 5)
    assert charge.ended_at == "2026-11-22T12:50:00.000000Z"
    assert charge.duration_ns == 10**9


def test_a_service_that_hosts_another_systems_engine(ledger: Path) -> None:
    """``aws.rds`` settles the charges of ``postgresql`` whose resource says so."""
    hosted = Resource("db.example", 5432, "shop", SYSTEM)
    with program(ledger) as shop:
        there = call(shop, 10, "q1", system="postgresql", resource=hosted)
        elsewhere = call(shop, 10, "q1", system="postgresql")
    assert run(ledger, SeededHistory([query("q1", 10, 11, **SCAN)])).charges == 1
    found = counted(ledger)
    assert (found[there].system, found[there].basis) == ("postgresql", "metered")
    assert found[elsewhere].basis == "unknown"


# --- queries outside of any program ---------------------------------------------------------------


def test_all_makes_charges_of_what_ran_elsewhere(ledger: Path) -> None:
    tag = query("t", 1, 2, tag="ci,asset=orders,job=nightly,service=etl", **SCAN)
    dbt = query(
        "d",
        3,
        4,
        text='/* {"app": "dbt", "node_id": "model.shop.customers"} */ SELECT secret = \'s3cr3t\'',
        program="dbt 1.9",
        **SCAN,
    )
    account = query("u", 5, 6, user="ETL_NIGHTLY", operation="COPY", rows=3, **SCAN)
    own = query("own", 5, 6, text=f"SELECT 1 /* {MARK} */", **SCAN)
    history = SeededHistory([tag, dbt, account, own, query(None, 7, 8, user="totals", **SCAN)])
    rules = [{"name": "etl", "match": {"user": "etl_*"}, "labels": {"team": "growth"}}]
    config = {"price_books": [price_file(ledger.parent)], "rule": rules}
    listed = run(ledger, history, config=config)
    assert (listed.outside, listed.added) == (4, 0)
    assert listed.amounts == {"USD": {"outside": "20.000000000000000"}}
    assert not ledger.joinpath("segments").exists()
    report = run(ledger, history, config=config, all=True)
    assert (report.outside, report.added) == (4, 3)
    found = counted(ledger)
    assert set(found) == {"acme:t", "acme:d", "acme:u"}
    assert found["acme:t"].attribution == {"asset": "orders", "job": "nightly", "rule": "tag"}
    assert found["acme:t"].service == "etl"
    assert found["acme:d"].attribution == {
        "asset": "customers",
        "dbt.node_id": "model.shop.customers",
        "rule": "dbt",
    }
    assert found["acme:d"].service == "dbt 1.9"
    assert found["acme:u"].attribution == {"team": "growth", "rule": "rule:etl"}
    assert (found["acme:u"].operation, found["acme:u"].rows) == ("COPY", 3)
    assert found["acme:u"].duration_ns == 60 * 10**9
    assert {charge.revision for charge in found.values()} == {0}
    everything = "".join(path.read_text() for path in ledger.joinpath("segments").iterdir())
    assert "s3cr3t" not in everything
    assert "ETL_NIGHTLY" not in everything  # an account is a rule's business, and not kept


def test_a_query_that_turns_out_to_be_a_programs_counts_once(ledger: Path) -> None:
    history = SeededHistory([query("q1", 10, 11, **SCAN)])
    run(ledger, history, all=True)
    with program(ledger) as late:  # its ledger was on another machine
        charge_id = call(late, 10, "q1")
    run(ledger, history, all=True)
    found = counted(ledger)
    assert Decimal(found["acme:q1"].amount or 0) == 0
    assert found[charge_id].amount == "5.000000000000000"
    assert run(ledger, history, all=True).unchanged == 1


def test_two_figures_of_one_query_are_one(ledger: Path) -> None:
    history = SeededHistory([query("q", 1, None), query("q", 1, 3, **SCAN), query("q", 1, 2)])
    assert run(ledger, history, all=True).added == 1
    assert counted(ledger)["acme:q"].ended_at == "2026-11-22T12:03:00.000000Z"


# --- hours ----------------------------------------------------------------------------------------


def test_a_query_from_the_hour_before_is_split_with_what_ran_beside_it_there(ledger: Path) -> None:
    with program(ledger) as shop:
        charge_id = call(shop, 30, "long")
    history = SeededHistory(
        [work("long", 30, 90, 2), work("before", 0, 60, 1)], [hour(0, 1), hour(60, 1)]
    )
    report = run(ledger, history, since=at(60))
    assert history.asked == [(at(60), at(120)), (at(0), at(60))]
    assert report.figures == 1  # the other one only takes its share
    # Half of the first hour's 3 USD, and the busy half of the second's.
    assert counted(ledger)[charge_id].amount == "3.000000000000000"
    assert "acme:idle:wh:2026-11-22T13:00:00Z/3600" in counted(ledger)


def test_history_of_long_ago_is_settled_as_well(ledger: Path) -> None:
    history = SeededHistory([work("q", 30, 90, 1)], [hour(0, 1), hour(60, 1)])
    report = run(ledger, history, since=at(60), now=at(60 * 24 * 100), all=True)
    assert (report.added, report.left) == (1, {})
    assert report.next_since == at(60 * 24 * 93)  # what has long been closed is not read again


def test_an_hour_settled_in_pieces_is_settled_as_in_one(tmp_path: Path) -> None:
    figures = [work(f"q{n}", n * 7, n * 7 + 20 + n, n + 1) for n in range(14)]
    stretches = [hour(60 * n, 2 + n) for n in range(3)]
    found: list[dict[str, str | None]] = []
    for number, windows in enumerate(([(0, 180)], [(0, 60), (60, 120), (120, 180)])):
        ledger = tmp_path / f"ledger-{number}"
        for begin, end in windows:
            run(
                ledger,
                SeededHistory(figures, stretches),
                since=at(begin),
                until=at(end),
                all=True,
                now=at(300),
            )
        found.append({id_: charge.amount for id_, charge in counted(ledger).items()})
        assert money(list(counted(ledger).values())) == 27
    assert found[0] == found[1]


def test_the_share_of_our_own_queries_has_a_row_of_its_own(ledger: Path) -> None:
    own = work("own", 0, 60, 1, tag=MARK)
    run(ledger, SeededHistory([own, work("q", 0, 60, 2)], [hour(0, 1)]), all=True)
    found = counted(ledger)
    row = found["acme:self:wh:2026-11-22T12:00:00Z/3600"]
    assert (row.amount, row.attribution) == (
        "1.000000000000000",
        {SELF: "settle", "rule": "self"},
    )
    assert set(found) == {"acme:q", row.charge_id}


# --- what is not there yet ------------------------------------------------------------------------


def test_what_is_left_is_said_and_the_next_run_goes_on(ledger: Path) -> None:
    with program(ledger) as shop:
        ids = [call(shop, 10, "done"), call(shop, 130, "running"), call(shop, 135, "beside")]
    figures = [
        work("done", 10, 20),
        work("running", 130, None),
        work("beside", 135, 140),
        query("metered", 50, 51, **SCAN),
    ]
    history = SeededHistory(figures, [hour(0), hour(60), hour(120)])
    report = run(ledger, history, until=None)
    assert report.left == {"still runs": 1, "a query beside it still runs": 1}
    assert report.next_since == at(130)
    assert report.without == 0
    found = counted(ledger)
    assert [found[id_].basis for id_ in ids] == ["allocated", "unknown", "unknown"]
    # Later it has ended, and nobody has to say since when.
    history = SeededHistory(
        [figures[0], work("running", 130, 200), figures[2]], [*history.stretches, hour(180)]
    )
    report = run(ledger, history, since=None, until=None, now=at(300))
    assert history.asked[0] == (at(120), at(300))
    assert (report.left, report.settled, report.next_since) == ({}, 2, at(300))
    found = counted(ledger)
    assert [found[id_].basis for id_ in ids] == ["allocated"] * 3


def test_a_run_with_its_own_since_still_brings_up_what_was_left(ledger: Path) -> None:
    with program(ledger) as shop:
        call(shop, 10, "q1")
    run(ledger, SeededHistory([work("q1", 10, None)], [hour(0)]), until=None)
    history = SeededHistory([work("q1", 10, 20)], [hour(0), hour(60)])
    report = run(ledger, history, since=at(120), until=None)
    assert (report.resumed, report.settled) == (at(10), 1)


def test_history_younger_than_its_latency_is_left(ledger: Path) -> None:
    with program(ledger) as shop:
        old, young = call(shop, 10, "old"), call(shop, 100, "young")
    history = SeededHistory(
        [work("old", 10, 20), work("young", 100, 110)],
        [hour(0), hour(60)],
        latency=timedelta(minutes=90),
    )
    report = run(ledger, history)
    assert report.left == {"the history of its time is not whole yet": 1}
    found = counted(ledger)
    assert (found[old].basis, found[young].basis) == ("allocated", "unknown")


def test_history_that_has_expired_is_said(ledger: Path) -> None:
    history = SeededHistory(retention=timedelta(hours=1))
    report = run(ledger, history, until=None)
    assert history.asked == [(at(120), at(180))]
    assert "keeps its history" in report.incomplete[0]


def test_an_hour_that_has_expired_in_part_is_not_split_again(ledger: Path) -> None:
    figures = [work("gone", 0, 30, 1), work("long", 20, 70, 1)]
    stretches = [hour(0, 1), hour(60, 1)]
    run(ledger, SeededHistory(figures, stretches), all=True)
    before = counted(ledger)
    # At half past one, what ended before half past twelve is in no history any more.
    late = SeededHistory(figures[1:], stretches, retention=timedelta(minutes=150))
    report = run(ledger, late, since=at(0), all=True)
    assert late.asked == [(at(60), at(120))]
    assert report.left == {"nothing is known yet of what its capacity cost in its time": 1}
    assert counted(ledger) == before


def test_a_history_that_breaks_off_settles_what_is_certain(ledger: Path) -> None:
    with program(ledger) as shop:
        ids = [call(shop, 10, "bytes"), call(shop, 11, "share")]
    figures = [query("bytes", 10, 11, **SCAN), work("share", 11, 12), work("unread", 11, 12)]
    history = SeededHistory(figures, [hour(0)], fails_after=2)
    report = run(ledger, history)
    assert report.failed == "the connection went away"
    assert report.left == {"the history could not be read to its end": 1}
    assert report.next_since == at(0)
    found = counted(ledger)
    assert [found[id_].basis for id_ in ids] == ["metered", "unknown"]
    assert not history.is_open
    assert run(ledger, SeededHistory(figures, [hour(0)])).settled == 1


def test_a_missing_permission_is_one_message_with_its_grant(ledger: Path) -> None:
    def denied() -> Exception:
        return HistoryError("no permission to read acme.queries", grant="GRANT SELECT ON queries")

    history = SeededHistory([query("q", 1, 2)], fails_after=0, error=denied)
    with pytest.raises(SettlementError, match="no permission") as caught:
        run(ledger, history)
    assert caught.value.grant == "GRANT SELECT ON queries"
    assert not history.is_open


def test_a_drivers_error_is_said_without_secrets(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        password: str

    class Broken(SeededHistory):
        Options = BrokenOptions

        def __init__(self) -> None:
            super().__init__(options={"password": "${ACME_PASSWORD}"})

        def open(self) -> None:
            raise OSError(f"cannot connect with password={self.options.password}\nmore")

    monkeypatch.setenv("ACME_PASSWORD", "hunter2")
    with pytest.raises(SettlementError, match=r"^OSError: cannot connect with password=…$"):
        run(ledger, Broken())
    monkeypatch.delenv("ACME_PASSWORD")
    with pytest.raises(HistoryError, match=r"\$\{ACME_PASSWORD\}, which is not set"):
        Broken()


# --- interrupted ----------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_interrupted_anywhere_the_next_run_leaves_no_gap_and_no_duplicate(tmp_path: Path) -> None:
    figures = [work(f"q{n}", n * 5, n * 5 + 10, n + 1) for n in range(5)]
    stretches = [hour(0, 4)]

    def make(name: str) -> Path:
        ledger = tmp_path / name
        for number in range(3):  # several programs, so several segments
            with program(ledger, service=f"s{number}") as some:
                call(some, number * 5, f"q{number}")
        return ledger

    whole = make("whole")
    run(whole, SeededHistory(figures, stretches), all=True)
    expected = sorted(
        (charge.amount or "", charge.basis, charge.service) for charge in counted(whole).values()
    )
    total = len(expected)
    for stop in range(total):
        ledger = make(f"killed-{stop}")

        def killed(what: str, done: int, _total: int | None, stop: int = stop) -> None:
            if what == "writing" and done > stop:
                raise Killed

        with pytest.raises(Killed):
            run(ledger, SeededHistory(figures, stretches), all=True, progress=killed)
        report = run(ledger, SeededHistory(figures, stretches), all=True)
        assert report.settled + report.added + report.idle == total - stop - 1
        assert expected == sorted(
            (charge.amount or "", charge.basis, charge.service)
            for charge in counted(ledger).values()
        )
        assert verify(str(ledger)).sound


def test_two_settlements_do_not_work_at_once(ledger: Path) -> None:
    class Nested(SeededHistory):
        def open(self) -> None:
            with pytest.raises(SettlementError, match="another settlement of acme is at work"):
                run(ledger, SeededHistory())
            super().open()

    run(ledger, Nested())


# --- beforehand -----------------------------------------------------------------------------------


def test_the_plan_is_said_before_anything_is_asked(ledger: Path) -> None:
    history = SeededHistory(costs={"scanned_bytes": 10**9})
    heard: list[str] = []

    def said(lines: Sequence[str]) -> None:
        assert not history.asked
        heard.extend(lines)

    report = run(ledger, history, said=said)
    assert heard == [
        "acme.queries from 2026-11-22 12:00 to 2026-11-22 14:00",
        "That costs 0.005 USD at most.",
    ]
    assert tuple(heard) == report.plan
    # And what it did cost is a charge like any other.
    assert (report.requests, report.cost) == (1, "0.005000000000000")
    (charge,) = counted(ledger).values()
    assert charge.attribution == {SELF: "settle", "rule": "self"}
    assert charge.usage == {"time_ns": 0, "requests": 1, "scanned_bytes": 10**9}
    assert (charge.amount, charge.basis) == ("0.005000000000000", "metered")


def test_a_paused_system_is_not_woken(ledger: Path) -> None:
    history = SeededHistory([query("q", 1, 2, **SCAN)], wakes="The warehouse wh is paused.")
    with pytest.raises(WouldWake, match=r"The warehouse wh is paused\..*--wake"):
        run(ledger, history)
    assert not history.asked
    assert run(ledger, history, wake=True).outside == 1


def test_a_dry_run_writes_nothing(ledger: Path) -> None:
    with program(ledger) as shop:
        call(shop, 10, "q1")
    history = SeededHistory([query("q1", 10, 11, **SCAN)], costs={"scanned_bytes": 1})
    report = run(ledger, history, dry_run=True, all=True)
    assert (report.settled, report.dry_run, report.next_since) == (1, True, None)
    assert entries(ledger) == 1
    with pytest.raises(NotAsked, match="nothing of acme has been settled"):
        run(ledger, history, since=None)


def test_what_cannot_be_asked_is_said(ledger: Path) -> None:
    with pytest.raises(NotAsked, match="ends before it begins"):
        run(ledger, SeededHistory(), since=at(60), until=at(0))
    with pytest.raises(NotAsked, match="no reader for the history of 'acmee'"):
        settle("acmee", since=at(0), ledger=str(ledger))
    bad = ledger.parent / "own.toml"
    bad.write_text("[[price]]\nkey = 7\n")
    with pytest.raises(SettlementError, match=r"own\.toml"):
        run(ledger, SeededHistory(), config={"price_books": [str(bad)]})


def test_a_reader_that_does_not_load_is_said(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(_: str) -> dict[str, plugins.PlugIn]:
        return {"acme": plugins.PlugIn("acme", "no.such.module:History")}

    monkeypatch.setattr(settling, "find", found)
    with pytest.raises(SettlementError, match="does not load: ModuleNotFoundError"):
        settle("acme", since=at(0), ledger=str(ledger))
    with pytest.raises(NotAsked, match="did you mean acme"):
        settle("acne", since=at(0), ledger=str(ledger))


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("2026-11-22 12:00:00", 0),
        ("2026-11-22T12:00:00Z", 0),
        ("2026-11-22T14:30:00.5+02:30", 0.5 / 60),
        ("2026-11-22 11:00:00.123456789-0100", 0.123456 / 60),
        ("2026-11-22 12:01:00.1 UTC", 1 + 0.1 / 60),
        ("2026-11-22 14:00+02", 0),
        ("2026-11-22", -720),
        (ns(3) // 10**9, 3),
        (at(4).replace(tzinfo=None), 4),
        (at(5), 5),
    ],
)
def test_whatever_a_driver_gives_for_a_moment(given_: Any, expected: float) -> None:
    assert abs(utc(given_) - at(expected)) < timedelta(microseconds=2)
    assert utc(given_).utcoffset() == timedelta(0)


def test_settled_charges_go_to_the_exporters_of_their_service(ledger: Path) -> None:
    with program(ledger, service="shop") as shop:
        call(shop, 10, "q1")
    config = {"price_books": [price_file(ledger.parent)], "exporters": ["jsonl"]}
    run(ledger, SeededHistory([query("q1", 10, 11, **SCAN)]), config=config)
    (owed,) = ledger.joinpath("exporters", "jsonl").glob("*.position")
    assert json.loads(owed.read_text())["service"] == "shop"


def test_what_is_written_is_private(ledger: Path) -> None:
    run(ledger, SeededHistory([query("q1", 10, 11, **SCAN)]), all=True)
    for path in ledger.rglob("*"):
        assert os.stat(path).st_mode & 0o077 == 0, path


# --- whatever the history is ----------------------------------------------------------------------

queries = st.tuples(
    st.integers(0, 170),  # minute of its start
    st.integers(0, 100),  # minutes
    st.integers(0, 9),  # its work
    st.integers(0, 2),  # the run by which it has arrived
    st.booleans(),  # an instrumented program's
)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(queries, max_size=8), st.booleans())
def test_late_arrivals_or_not_the_ledger_holds_the_price_of_the_hours(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[int, ...]], squeeze: bool
) -> None:
    """After every run: each query once, and the shares of all hours sum to their price exactly."""
    ledger = tmp_path_factory.mktemp("random") / "ledger"
    stretches = [hour(60 * n, 1 + n * n) for n in range(5)]
    with program(ledger) as shop:
        for number, (begin, *_, mine) in enumerate(history):
            if mine:
                call(shop, begin, f"q{number}")
    for at_run in range(3):
        figures = [
            work(f"q{number}", begin, begin + length, weight)
            for number, (begin, length, weight, arrives, _) in enumerate(history)
            if arrives <= at_run
        ]
        once = SeededHistory(figures, stretches)
        for again in (False, True):
            report = run(ledger, once, until=at(300), now=at(400), all=True)
            assert report.left == {}
            if again:
                assert (report.settled, report.added, report.idle) == (0, 0, 0)
        found = counted(ledger)
        assert money(list(found.values())) == 3 * sum(1 + n * n for n in range(5))
        allocated = [charge for charge in found.values() if charge.basis == "allocated"]
        idle = [charge for charge in allocated if charge.operation == "IDLE"]
        assert len(allocated) - len(idle) == len(figures)
        if squeeze:
            aged(ledger)
            compact(str(ledger))
    assert verify(str(ledger)).sound
