"""Switching on and off: once, for all, from any thread, and in children as a process of their own."""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

import costinsights
from costinsights import runtime
from costinsights.ledger.reader import read_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def off_again() -> Iterator[None]:
    assert runtime.active() is None
    yield
    costinsights.uninstrument()


def test_switching_on_twice_changes_nothing(tmp_path: Path) -> None:
    before = sqlite3.Cursor.execute
    costinsights.instrument("sqlite3", ledger=tmp_path / "first")
    hooked, first = sqlite3.Cursor.execute, runtime.active()
    costinsights.instrument("sqlite3", ledger=tmp_path / "second")
    assert sqlite3.Cursor.execute is hooked is not before
    assert runtime.active() is first
    assert first is not None
    assert first.config.ledger == str(tmp_path / "first")
    costinsights.uninstrument()
    costinsights.uninstrument()
    assert sqlite3.Cursor.execute is before
    assert runtime.active() is None


def test_many_threads_switch_on_at_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(16)
    seen: list[object] = []

    def switch_on() -> None:
        barrier.wait()
        costinsights.instrument("sqlite3", ledger=tmp_path)
        seen.append(runtime.active())

    threads = [threading.Thread(target=switch_on) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 16
    assert set(seen) == {runtime.active()}
    connection = sqlite3.connect(":memory:")
    connection.execute("SELECT 1").fetchall()
    connection.close()
    costinsights.uninstrument()
    assert len({charge.charge_id for charge in read_ledger(str(tmp_path))}) == 1


def test_an_unknown_name_is_said_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(costinsights.NotEnabled, match=r"no instrumentor 'sqlite4'.*sqlite3"):
        costinsights.instrument("sqlite4", ledger=tmp_path)
    assert runtime.active() is None


def test_without_anything_switched_on_there_is_nothing_to_do() -> None:
    assert costinsights.flush() is True
    costinsights.uninstrument()


def test_disabled_in_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTINSIGHTS_DISABLED_INSTRUMENTORS", "sqlite3,duckdb")
    before = sqlite3.Cursor.execute
    costinsights.instrument(ledger=tmp_path)
    active = runtime.active()
    assert active is not None
    assert sqlite3.Cursor.execute is before
    assert {"sqlite3", "duckdb"} == {
        name for name, why in active.skipped.items() if why == "disabled by the configuration"
    }


def test_a_forked_child_is_a_process_of_its_own(tmp_path: Path) -> None:
    costinsights.instrument("sqlite3", ledger=tmp_path)
    connection = sqlite3.connect(":memory:")
    connection.execute("SELECT 1").fetchall()
    child = os.fork()
    if child == 0:
        connection.execute("SELECT 1").fetchall()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    connection.close()
    costinsights.uninstrument()
    charges = [charge for charge in read_ledger(str(tmp_path)) if not charge.revision]
    assert sorted(charge.pid for charge in charges) == sorted([os.getpid(), child])
    assert len({charge.charge_id.partition("-")[0] for charge in charges}) == 2
