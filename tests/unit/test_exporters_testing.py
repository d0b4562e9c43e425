"""What the package offers for other people's tests."""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Any

import pytest

import costinsights
from costinsights import recorder
from costinsights.runtime import active
from costinsights.testing import FIXED_PROCESS, Clock, capture, sample_charges

PRICED: dict[str, Any] = {"capacity": [{"system": "sqlite", "price": "3.6", "currency": "USD"}]}


def work() -> None:
    connection = sqlite3.connect(":memory:")
    with costinsights.attribute(asset="orders"):
        connection.execute("SELECT 1").fetchall()
        connection.execute("SELECT 2").fetchall()
    connection.close()


def test_what_is_called_in_the_block_is_captured() -> None:
    with capture("sqlite3") as captured:
        work()
        assert len(captured.charges) == 2
    assert [charge.attribution["asset"] for charge in captured.charges] == ["orders"] * 2
    assert active() is None


def test_nothing_is_left_behind() -> None:
    with capture("sqlite3"):
        work()
        runtime = active()
        assert runtime is not None
        ledger = runtime.config.ledger
        assert os.path.exists(ledger)
    assert not os.path.exists(ledger)


def test_with_a_clock_whole_charges_are_the_same_each_time() -> None:
    found: list[list[costinsights.Charge]] = []
    for _ in range(2):
        with capture("sqlite3", clock=Clock(), config=PRICED) as captured:
            work()
        found.append(captured.charges)
    first, second = found
    assert first == second
    assert first[0].charge_id == f"{FIXED_PROCESS}-1"
    assert first[0].started_at.startswith("2026-01-01T00:00:00")
    assert first[0].amount is not None
    assert vars(recorder)["time_ns"] is time.time_ns


def test_a_program_that_is_switched_on_stays_so(tmp_path: Any) -> None:
    costinsights.instrument("sqlite3", ledger=tmp_path, exporters=())
    try:
        work()
        with capture() as captured:
            work()
        assert len(captured.charges) == 2
        assert active() is not None
        with pytest.raises(RuntimeError, match="switched on already"), capture("sqlite3"):
            pass
    finally:
        costinsights.uninstrument()


def test_sample_charges_have_the_fields_that_are_asked_for() -> None:
    charges = sample_charges(3, rows=7)
    assert len({charge.charge_id for charge in charges}) == 3
    assert {charge.rows for charge in charges} == {7}
