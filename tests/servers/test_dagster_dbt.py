"""dagster-dbt above a real project: what each model costs is told of its own asset, once.

The shop of `dbt_runs` on DuckDB, by dagster-dbt's own command line: dbt is a child process.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.backends import unavailable
from tests.environments import environment, lent
from tests.processes import Unavailable
from tests.servers.dbt_runs import Shop, priced, shop

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.backends import Server

PROGRAMS = Path(__file__).parents[1] / "programs"
SECONDS = 400
EXACT = "costinsights/cost_usd_exact"


@pytest.fixture(scope="module")
def binaries() -> Path:
    try:
        return environment("dagster") / "bin"
    except Unavailable as error:
        unavailable("dagster", error)


def made(folder: Path, binaries: Path, target: Mapping[str, object] | None = None) -> Shop:
    """Make a copy of the project, parsed, with an instance of Dagster's beside it."""
    directory = folder / "shop"
    system = "duckdb" if target is None else "postgresql"
    if target is None:
        target = {"type": "duckdb", "path": str(directory / "shop.duckdb")}
    found = shop(directory, target, prices=priced(system))
    (directory / "home").mkdir()
    done = subprocess.run(
        [binaries / "dbt", "parse"],
        cwd=directory,
        env=found.environment(),
        capture_output=True,
        check=False,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return found


def program(found: Shop, binaries: Path, name: str, word: str) -> Any:
    """Run a program of ours in Dagster's environment, and return the JSON that it prints last."""
    done = subprocess.run(
        [binaries / "python", PROGRAMS / name, word],
        cwd=found.directory,
        env={
            **found.environment(),
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",  # dagster-dbt looks for dbt there
            "PYTHONPATH": str(lent(found.directory / "packages")),
            "DAGSTER_HOME": str(found.directory / "home"),
            "DAGSTER_DISABLE_TELEMETRY": "true",
            "COSTINSIGHTS_LEDGER": str(found.ledger),
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def told(found: Shop, binaries: Path, run: str) -> list[dict[str, Any]]:
    """Return what Dagster's event log tells of a run's costs."""
    events: list[dict[str, Any]] = program(found, binaries, "dagster_costs.py", "told")
    return [event for event in events if event["metadata"].get("costinsights/run") == run]


def by_node(found: Shop, run: str) -> dict[str, Decimal]:
    """Return what the ledger has of a run, by dbt's node; what is no node's under ''."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for charge in found.charges():
        if charge.attribution.get("run") == run:
            assert charge.amount is not None
            sums[charge.attribution.get("dbt.node_id", "")] += Decimal(charge.amount)
    return dict(sums)


def by_asset(events: Iterable[dict[str, Any]]) -> dict[str, Decimal]:
    """Return what events tell, by asset."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for event in events:
        sums[event["asset"]] += Decimal(event["metadata"][EXACT])
    return dict(sums)


def asset_of(node: str, found: Shop) -> str:
    """Return the asset that a node's cost belongs to: of a test that is a check, what it tests.

    dagster-dbt makes no check of a unit test; it belongs to the job.
    """
    manifest = json.loads((found.directory / "target" / "manifest.json").read_text())
    kind, _, *names = node.split(".") if node else ("", "")
    if kind in ("model", "seed", "snapshot"):
        return names[0]
    if kind != "test":
        return ""
    test = manifest["nodes"][node]
    (tested,) = {test.get("attached_node")} - {None} or test["depends_on"]["nodes"]
    return str(tested).split(".")[-1]


def test_assets(tmp_path: Path, binaries: Path) -> None:
    bare = made(tmp_path / "bare", binaries)
    ours = made(tmp_path / "ours", binaries)
    without = program(bare, binaries, "dbt_in_dagster.py", "bare")
    done = program(ours, binaries, "dbt_in_dagster.py", "assets")
    # One model fails: Dagster is told as it is without us, and has the same events.
    assert done["failures"] == without["failures"] == ["DagsterDbtCliRuntimeError"]
    assert done["events"] == without["events"]

    adds_up(ours, binaries, done["run"])


def adds_up(found: Shop, binaries: Path, run: str) -> None:
    """Hold what Dagster was told of each asset against the ledger, node by node."""
    events = told(found, binaries, run)
    nodes = by_node(found, run)
    assert sum(by_asset(events).values()) == sum(nodes.values()) > 0
    expected: dict[str, Decimal] = defaultdict(Decimal)
    for node, amount in nodes.items():
        expected[asset_of(node, found) or "costinsights/job/__ASSET_JOB"] += amount
    assert by_asset(events) == expected
    models = {event["asset"] for event in events if event["kind"] == "made"}
    # What cannot be read within the step's budget comes as an observation: most can.
    assert len(models) > len(set(expected)) / 2
    assert {"orders", "customers", "revenue_daily", "raw_orders"} <= set(by_asset(events))
    # What a model that fails has spent is told as well.
    assert "broken" in {event["asset"] for event in events if event["kind"] == "seen"}


def test_assets_on_postgresql(tmp_path: Path, binaries: Path, postgres: Server) -> None:
    ours = made(
        tmp_path,
        binaries,
        {
            "type": "postgres",
            "host": postgres.host,
            "port": postgres.port,
            "user": postgres.user,
            "password": postgres.password,
            "dbname": postgres.database,
            "schema": "shop_in_dagster",
        },
    )
    with psycopg.connect(postgres.dsn, autocommit=True) as database:
        database.execute("DROP SCHEMA IF EXISTS shop_in_dagster CASCADE")
    done = program(ours, binaries, "dbt_in_dagster.py", "assets")
    assert done["failures"] == ["DagsterDbtCliRuntimeError"]
    adds_up(ours, binaries, done["run"])


def test_an_op(tmp_path: Path, binaries: Path) -> None:
    """In an op dbt's events are no outputs: `with_costs` puts the costs into them."""
    ours = made(tmp_path, binaries)
    done = program(ours, binaries, "dbt_in_dagster.py", "op")
    assert done["success"]
    events = told(ours, binaries, done["run"])
    nodes = by_node(ours, done["run"])
    assert sum(by_asset(events).values()) == sum(nodes.values()) > 0
    made_by_dbt = by_asset(event for event in events if event["kind"] == "made")
    assert made_by_dbt["orders"] == nodes["model.shop.orders"]
    assert "costinsights/job/nightly" in by_asset(events)
