"""``costinsights jobs``: states, sums that add up, what a terminal and a pipe get."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costinsights.ledger.compact import compact
from costinsights.records import Resource
from tests.ledgers import HOUR, NOON, UNIT, Program, aged

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "costinsights.cli", "jobs"]


def write(ledger: Path) -> None:
    """Jobs of three systems in every state, and calls that are none."""
    program = Program(ledger)

    def job(id_: str, system: str = "aws.glue", **more: Any) -> str:
        given: dict[str, Any] = {
            "amount": None,
            "system": system,
            "statement": None,
            "o": "JOB",
            "i": id_,
            "l": True,
            "labels": {"asset": "orders", "team": "growth"},
            "resource": Resource("glue.us-east-1.amazonaws.com", namespace="nightly"),
            **more,
        }
        return program.call(**given)

    job("jr_pending")
    running = job("jr_running", at=NOON + HOUR)
    job(
        "jr_running",
        charge_id=running,
        revision=1,
        amount=2 * UNIT,
        basis="metered",
        at=NOON + HOUR,
    )
    done = job("jr_done", at=NOON + 2 * HOUR)
    job("jr_done", charge_id=done, revision=1, amount=UNIT // 4, basis="metered", l=False)
    lost = job("jr_lost")
    job("jr_lost", charge_id=lost, revision=1, u={"lost": "aws.glue no longer knows it"})
    job("jr_failed_at_once", error=("FAILED", None), revision=1)
    job("in-euros", "azure.data_factory", amount=3 * UNIT, currency="EUR", l=False, basis="metered")
    job("no-price", "azure.data_factory", l=False)
    job("step\x1b[2J", "aws.emr", resource=Resource(namespace="j-1"))
    program.call(i="a query of Trino's whose rows were left", l=True, system="trino")
    program.call()
    program.close()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs") / "ledger"
    write(folder)
    return folder


def run(ledger: Path, *words: str, code: int = 0, **more: str) -> str:
    done = subprocess.run(
        [*COMMAND, "--ledger", str(ledger), *words],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if not code else done.stderr


def test_every_state_and_sums_that_add_up(ledger: Path) -> None:
    found = json.loads(run(ledger, "--format", "json"))
    by_system = {one["system"]: one for one in found["systems"]}
    assert set(by_system) == {"aws.emr", "aws.glue", "azure.data_factory"}
    glue = by_system["aws.glue"]
    assert [glue[state] for state in ("pending", "running", "settled", "lost")] == [2, 1, 1, 1]
    assert glue["amounts"] == {"USD": "2.25"}
    assert by_system["azure.data_factory"]["amounts"] == {"EUR": "3"}
    assert by_system["azure.data_factory"]["unpriced"] == 1
    total = found["total"]
    for state in ("pending", "running", "settled", "lost"):
        assert total[state] == sum(one[state] for one in found["systems"])
    assert total["amounts"] == {"USD": "2.25", "EUR": "3"}
    states = {job["id"]: job["state"] for job in found["jobs"]}
    assert states == {
        "jr_pending": "pending",
        "jr_failed_at_once": "pending",
        "jr_running": "running",
        "jr_lost": "lost",
        "step\x1b[2J": "pending",
    }
    amounts = [Decimal(job["amount"]) for job in found["jobs"] if job["amount"]]
    assert amounts == [2]


def test_a_compacted_ledger_says_the_same(ledger: Path, tmp_path: Path) -> None:
    write(tmp_path / "ledger")
    aged(tmp_path / "ledger")
    compact(str(tmp_path / "ledger"))
    before, after = (
        json.loads(run(at, "--format", "json")) for at in (ledger, tmp_path / "ledger")
    )
    for found in (before, after):
        del found["at"]
        for job in found["jobs"]:
            del job["charge_id"], job["age_seconds"]
        found["jobs"] = {job["id"]: job for job in found["jobs"]}
    assert before == after


def test_filters(ledger: Path) -> None:
    text = run(ledger, "--system", "aws.glue", "--state", "settled", "--format", "csv")
    (job,) = csv.DictReader(io.StringIO(text))
    assert (job["id"], job["amount"], job["currency"]) == ("jr_done", "0.25", "USD")
    late = json.loads(run(ledger, "--since", "2026-11-22T12:30", "--format", "json"))
    assert [job["id"] for job in late["jobs"]] == ["jr_running"]
    every = ("--state", "settled", "--state", "running", "--state", "pending")
    dearest = json.loads(run(ledger, *every, "--sort", "amount", "--format", "json"))
    assert [job["amount"] for job in dearest["jobs"]][:4] == ["3", "2", "0.25", None]
    assert "is not a time" in run(ledger, "--since", "soon", code=2)
    assert "no ledger" in run(ledger / "nowhere", code=2)
    assert run(ledger, "--system", "gcp.dataproc") == "No jobs in this ledger and this time.\n"


def test_for_people(ledger: Path) -> None:
    text = run(ledger)
    assert "\x1b" not in text
    (total,) = [line for line in text.splitlines() if line.startswith("total")]
    assert total.split()[1:6] == ["3", "1", "3", "1", "8"]
    assert total.endswith("$2.25 + €3.00")
    (emr,) = [line for line in text.splitlines() if line.startswith("aws.emr ")]
    assert emr.endswith("—")
    assert "jr_running" in text
    assert "orders/growth" in text
    assert "costinsights settle aws.glue --since 7d --lost" in text
    assert "1 of the settled have no price yet" in text
    assert "costinsights settle azure.data_factory --since 7d" in text


@pytest.mark.parametrize("columns", ["60", "100", "200"])
def test_on_a_terminal(ledger: Path, columns: str) -> None:
    coloured = on_a_terminal(ledger, COLUMNS=columns)
    assert "\x1b[33mpending" in coloured
    plain = on_a_terminal(ledger, COLUMNS=columns, NO_COLOR="1", TERM="xterm")
    assert "\x1b" not in plain
    assert "[2J" not in coloured.replace("\N{REPLACEMENT CHARACTER}[2J", "")
    tables = [line for line in plain.splitlines() if not line.startswith("costinsights")]
    assert max(len(line) for line in tables) <= int(columns)


def on_a_terminal(ledger: Path, *words: str, **more: str) -> str:
    main, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "--ledger", str(ledger), *words],
        env={**os.environ, "TERM": "xterm-256color", **more},
        stdout=side,
        stderr=subprocess.DEVNULL,
        close_fds=True,
    )
    os.close(side)
    shown = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(main)
    assert process.wait(60) == 0
    return shown.decode()
