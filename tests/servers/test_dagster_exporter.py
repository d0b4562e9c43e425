"""The exporter ``dagster`` in real runs: every dollar is told once, of the right asset.

Dagster runs in an environment of its own (`tests.environments`). What its event log tells is held
against the ledger, to the last digit.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from costinsights.follower import merge
from costinsights.ledger.reader import read_ledger
from costinsights.settlement.writing import write
from tests.backends import unavailable
from tests.environments import environment, lent
from tests.processes import Unavailable

if TYPE_CHECKING:
    from costinsights.records import Charge
    from tests.backends import Server

PROGRAM = Path(__file__).parents[1] / "programs" / "dagster_costs.py"
CONFIG = """
[[capacity]]
system = "sqlite"
price = "3.60"
currency = "USD"
source = "a test"
as_of = "2026-11"

[exporter.dagster]
report_url = "https://costs.example/{job}/{run}?asset={asset}"
"""
EXACT = "costinsights/cost_usd_exact"
DIALECTS = {"postgres": "postgresql+psycopg2", "mysql": "mysql+mysqlconnector"}
"""What Dagster's integrations speak to their servers by."""


class Event(NamedTuple):
    """One event of Dagster's that tells a cost."""

    kind: str
    asset: str
    partition: str | None
    metadata: dict[str, Any]

    @property
    def cost(self) -> Decimal:
        """What it tells."""
        return Decimal(self.metadata.get(EXACT, "0"))


class Runs:
    """Dagster in a folder, with a ledger."""

    def __init__(self, name: str, folder: Path) -> None:
        try:
            self.interpreter = environment(name) / "bin" / "python"
        except Unavailable as error:
            unavailable(name, error)
        self.folder = folder
        self.ledger = folder / "ledger"
        (folder / "home").mkdir()
        (folder / "home" / "dagster.yaml").touch()
        (folder / "costinsights.toml").write_text(CONFIG)

    def python(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Dagster's interpreter, with this package lent to it."""
        given = {
            **os.environ,
            "PYTHONPATH": str(lent(self.folder / "packages")),
            "HOME": str(self.folder),
            "DAGSTER_HOME": str(self.folder / "home"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "COSTINSIGHTS_LEDGER": str(self.ledger),
            "COSTINSIGHTS_CONFIG": str(self.folder / "costinsights.toml"),
            "COSTINSIGHTS_STRICT": "1",
            **variables,
        }
        done = subprocess.run(
            [self.interpreter, *words],
            cwd=self.folder,
            env=given,
            capture_output=True,
            check=False,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done

    def run(self, *scenarios: str, **variables: str) -> list[str]:
        """Run jobs; return the ids of their runs."""
        done = self.python(str(PROGRAM), *scenarios, **variables)
        assert "costs could not be told" not in done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"job"')]
        assert len(lines) == len(scenarios)
        return [json.loads(line)["run"] for line in lines]

    def export(self) -> str:
        """Do what ``costinsights export dagster`` does."""
        done = self.python("-m", "costinsights.cli", "export", "dagster")
        return done.stderr.strip().splitlines()[-1]

    def told(self) -> list[Event]:
        """All events with costs."""
        done = self.python(str(PROGRAM), "told", COSTINSIGHTS_DISABLED="true")
        events = [Event(**event) for event in json.loads(done.stdout.splitlines()[-1])]
        return [event for event in events if event.metadata]

    def charges(self) -> list[Charge]:
        """The charges of runs, each once."""
        found = merge(sorted(read_ledger(str(self.ledger)), key=lambda one: one.revision))
        return [charge for charge in found if "run" in charge.attribution]

    def check(self) -> list[Event]:
        """Everything that a run has cost is told once: the sums are equal to the last digit."""
        events = self.told()
        spent: dict[str, Decimal] = defaultdict(Decimal)
        calls: dict[str, int] = defaultdict(int)
        for charge in self.charges():
            assert charge.amount is not None
            spent[charge.attribution["run"]] += Decimal(charge.amount)
            calls[charge.attribution["run"]] += 1
        told: dict[str, Decimal] = defaultdict(Decimal)
        counted: dict[str, int] = defaultdict(int)
        for event in events:
            told[event.metadata["costinsights/run"]] += event.cost
            counted[event.metadata["costinsights/run"]] += event.metadata["costinsights/calls"]
        assert told == spent
        assert counted == calls
        assert min(spent.values()) > 0
        return events


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs("dagster", tmp_path)


def of(events: list[Event], run: str) -> dict[tuple[str, str, str | None], int]:
    """How many calls each kind of event of a run tells, by asset and partition."""
    found: dict[tuple[str, str, str | None], int] = defaultdict(int)
    for event in events:
        if event.metadata["costinsights/run"] == run:
            key = (event.kind, event.asset, event.partition)
            found[key] += event.metadata["costinsights/calls"]
    return dict(found)


@pytest.mark.parametrize("version", ["dagster", "dagster111"])
def test_in_one_process(version: str, tmp_path: Path) -> None:
    runs = Runs(version, tmp_path)
    whole, ops, ranged, crossed, failed = runs.run("in_process", "ops", "range", "cross", "fails")
    events = runs.check()
    # Nothing of Dagster's own is there: not its event log's, nor its telemetry's.
    assert all("run" in charge.attribution for charge in read_ledger(str(runs.ledger)))

    # What each asset has cost, wherever it was told; the last op of a graph makes its asset.
    found = of(events, whole)
    calls: dict[str, int] = defaultdict(int)
    for (_, asset, _), count in found.items():
        calls[asset] += count
    assert calls == {
        "mart/plain": 4,
        "left": 1,
        "right": 1,
        "graphed": 2,
        "dynamic": 3,
        "flaky": 6,
        "child": 1,
        "piped": 1,
    }
    assert ("seen", "flaky", None) in found  # the attempts that failed
    checks = [event for event in events if event.metadata.get("costinsights/check")]
    assert {(e.asset, e.metadata["costinsights/check"]) for e in checks} == {
        ("mart/plain", "is_fine")
    }

    assert of(events, ops) == {
        ("seen", "costinsights/job/plainly", None): 2,
        ("seen", "mart/plain", None): 1,
    }
    parts = {asset: part for _, asset, part in of(events, crossed)}
    assert parts == {"crossed": "b|2"}
    assert {part for _, _, part in of(events, ranged)} == {"a", "b", "c"}
    shares = [e for e in events if e.asset == "ranged"]
    assert {e.metadata["costinsights/split"] for e in shares} == {"1 of 3 equal shares"}
    assert max(e.cost for e in shares) - min(e.cost for e in shares) < Decimal("3e-15")
    assert of(events, failed)["seen", "failing", None] == 2

    # Another look finds nothing to tell, whether by what this process or what Dagster knows.
    if version == "dagster":
        assert "0 observations added" in runs.export()
        (state,) = (runs.ledger / "exporters" / "dagster").glob("told-*.json")
        state.unlink()
        assert "5 runs compared, 0 observations added" in runs.export()


def test_metadata(runs: Runs) -> None:
    (run,) = runs.run("cross")
    (event,) = runs.check()
    assert event[:3] == ("made", "crossed", "b|2")
    metadata = event.metadata
    exact = metadata.pop(EXACT)
    assert metadata.pop("costinsights/cost_usd") == float(exact)
    assert len(exact.partition(".")[2]) == 15
    assert metadata.pop("costinsights/duration_seconds") > 0
    assert metadata.pop("costinsights/usage/capacity_seconds") > 0
    assert metadata == {
        "costinsights/attempts": 1,
        "costinsights/basis": "estimated",
        "costinsights/calls": 1,
        "costinsights/failed_calls": 0,
        "costinsights/price_source": "a test",
        "costinsights/report": f"https://costs.example/cross/{run}?asset=crossed",
        "costinsights/run": run,
        "costinsights/statements": 1,
        "costinsights/step": "crossed",
        "costinsights/unpriced_calls": 0,
    }


def test_workers_of_their_own_and_one_that_is_killed(runs: Runs) -> None:
    whole, died = runs.run("multiprocess", "dies")
    events = runs.told()
    assert sum(of(events, whole).values()) == 13  # one of them is the check's
    assert of(events, whole)["seen", "flaky", None] == 4
    assert ("seen", "killed", None) not in of(events, died)
    assert "1 observations added" in runs.export()
    assert of(runs.check(), died)["seen", "killed", None] == 2

    (again,) = runs.run(f"dies:{died}", SPARE="yes")
    assert again != died
    assert of(runs.check(), again) == {("made", "killed", None): 2}


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_an_event_log_on_a_server(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As a deployment has it. What Dagster asks that server for itself is nobody's cost."""
    server: Server = request.getfixturevalue({"mysql": "mariadb"}.get(kind, kind))
    runs = Runs("dagster", tmp_path)
    _, _, place = server.dsn.partition(":")
    dsn = f"{DIALECTS[kind]}:{place}"
    storage = f"storage: {{{kind}: {{{kind}_url: {json.dumps(dsn)}}}}}\n"
    (tmp_path / "home" / "dagster.yaml").write_text(storage)
    (whole,) = runs.run("multiprocess")
    assert of(runs.check(), whole)["seen", "flaky", None] == 4
    assert "0 observations added" in runs.export()
    assert {charge.system for charge in read_ledger(str(runs.ledger))} == {"sqlite"}


def test_later_figures(runs: Runs) -> None:
    """A correction has the difference: the sum over all events is what the call has cost."""
    runs.run("ops", "range")
    before = runs.check()
    later = [
        msgspec.structs.replace(
            charge, revision=charge.revision + 1, basis="metered", amount="0.123456789012345"
        )
        for charge in runs.charges()
        if charge.attribution.get("asset") in ("ranged", "nowhere")
    ]
    assert len(later) == 2
    write(str(runs.ledger), later)
    assert "2 runs compared, 4 observations added" in runs.export()
    events = runs.check()
    added = [event for event in events if event.metadata.get("costinsights/correction")]
    assert len(events) == len(before) + 4
    assert {(event.asset, event.partition) for event in added} == {
        ("costinsights/job/plainly", None),
        ("ranged", "a"),
        ("ranged", "b"),
        ("ranged", "c"),
    }
    assert {event.metadata["costinsights/calls"] for event in added} == {0}
    assert {e.metadata["costinsights/basis"] for e in added if e.partition} == {"metered"}
    assert "0 runs compared, 0 observations added" in runs.export()
    write(str(runs.ledger), later)  # settled again, with the same figures
    assert "0 observations added" in runs.export()


def test_an_event_log_that_fails_fails_no_step(runs: Runs) -> None:
    done = runs.python("-c", BROKEN)
    assert "costs could not be told to Dagster (OSError: no disk)" in done.stderr
    assert done.stdout.splitlines()[-1] == "True"


BROKEN = """
import sqlite3
import costinsights
costinsights.instrument("sqlite3", exporters=["dagster"])
import dagster as dg

@dg.op
def spends():
    sqlite3.connect(":memory:").execute("SELECT 1").fetchall()

@dg.job
def job():
    spends()

def fail(*args, **kwargs):
    raise OSError("no disk")

instance = dg.DagsterInstance.ephemeral()
instance.report_runless_asset_event = fail
print(job.execute_in_process(instance=instance).success)
"""


def test_sensors_and_schedules_have_their_own(runs: Runs) -> None:
    done = runs.python("-c", TICKS)
    assert done.stdout.splitlines()[-1] == "evaluated"
    assert "2 observations added" in runs.export()
    events = runs.told()
    assert {(e.asset, e.metadata["costinsights/calls"]) for e in events} == {
        ("costinsights/sensor/looks", 2),
        ("costinsights/schedule/nightly", 1),
    }
    charges = merge(read_ledger(str(runs.ledger)))
    spent = sum(
        Decimal(charge.amount or "")
        for charge in charges
        if charge.attribution.get("job") in ("looks", "nightly")
    )
    assert sum(event.cost for event in events) == spent > 0
    assert all(event.metadata["costinsights/day"] for event in events)
    assert "0 observations added" in runs.export()


TICKS = """
import sqlite3
import costinsights
costinsights.instrument("sqlite3", exporters=["dagster"])
import dagster as dg

def spend():
    sqlite3.connect(":memory:").execute("SELECT 1").fetchall()

@dg.op
def nothing(): ...

@dg.job
def job():
    nothing()

@dg.sensor(job=job)
def looks():
    spend()
    yield dg.SkipReason("nothing new")

@dg.schedule(job=job, cron_schedule="@daily", name="nightly")
def nightly(context):
    spend()
    return dg.SkipReason("no")

with dg.DagsterInstance.get() as instance:
    for _ in range(2):
        looks.evaluate_tick(dg.build_sensor_context(instance))
    nightly.evaluate_tick(dg.build_schedule_context(instance))
print("evaluated")
"""


def test_nothing_is_left_behind(runs: Runs) -> None:
    done = runs.python("-c", PUT_BACK)
    assert done.stdout.splitlines()[-1] == "as before"


PUT_BACK = """
import dagster as dg
instance = dg.DagsterInstance.ephemeral()
KINDS = (
    dg.DagsterInstance, dg.OutputContext, dg.SensorDefinition, dg.ScheduleDefinition,
    type(instance.run_storage), type(instance.event_log_storage),
)
before = [dict(vars(kind)) for kind in KINDS]
import costinsights
for _ in range(2):
    costinsights.instrument("sqlite3", exporters=["dagster"])
    instance.run_storage, instance.event_log_storage
    assert all(dict(vars(kind)) != old for kind, old in zip(KINDS, before))
    costinsights.uninstrument()
    assert [dict(vars(kind)) for kind in KINDS] == before
print("as before")
"""
