"""Two runs of the real dbt, compared: by what each has left behind, and by what the ledger has."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from costinsights.report import make, period
from tests.backends import unavailable
from tests.environments import environment
from tests.processes import Unavailable
from tests.servers.dbt_runs import priced, shop, total

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.dbt_runs import Shop


@pytest.fixture(autouse=True)
def dbt() -> None:
    try:
        environment("dbt")
    except Unavailable as reason:
        unavailable("dbt", reason)


def compared(one: Shop, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "costinsights.cli", "diff", "--ledger", str(one.ledger)]
    done = subprocess.run(
        [*command, *words], cwd=one.directory, capture_output=True, check=False, text=True
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def figures(output: str) -> dict[str | None, tuple[Any, ...]]:
    """What is compared of each item; times are floats in one source and exact in the other."""
    rows = json.loads(output)["rows"]
    assert {row["kind"] for row in rows} <= {"item", "unchanged"}
    return {
        row["item"]: (
            *(row[name] for name in ("status", "currency", "base_cost", "head_cost", "change")),
            *(row[side][name] for side in ("base", "head") for name in ("calls", "errors", "rows")),
        )
        for row in rows
        if row["kind"] == "item"
    }


def test_two_branches(tmp_path: Path) -> None:
    target = {"type": "duckdb", "path": str(tmp_path / "shop" / "shop.duckdb")}
    one = shop(tmp_path / "shop", target, prices=priced("duckdb", "0.4"))
    runs: dict[str, dict[str, Any]] = {}
    for branch, selected in (("main", "+orders"), ("feature", "+orders +customers")):
        one.variables["GITHUB_REF_NAME"] = branch
        one.variables["GITHUB_ACTIONS"] = "true"
        runs[branch] = one.run("build", "--select", *selected.split()).costs()
        (one.directory / branch).mkdir()
        shutil.copy(one.directory / "target" / "costs.json", one.directory / branch)
    spent = {branch: total(costs["totals"]) for branch, costs in runs.items()}
    more = spent["feature"] - spent["main"]

    files = compared(one, "main/costs.json", "feature", "--format", "json").stdout
    branches = ("branch=main", "branch=feature", "--by", "dbt.node", "--format", "json")
    ledger = compared(one, *branches).stdout
    mixed = compared(one, "main/costs.json", "branch=feature", "--format", "json").stdout
    assert figures(files) == figures(ledger) == figures(mixed)
    for output in (files, ledger, mixed):
        (sum_,) = json.loads(output)["totals"]
        assert [Decimal(sum_[name]) for name in ("base_cost", "head_cost", "change")] == [
            spent["main"],
            spent["feature"],
            more,
        ]
    rows = figures(files)
    assert rows["model.shop.customers"][0] == "new"
    assert "model.shop.orders" in rows
    invocations = (f"dbt.invocation_id={runs[branch]['invocation_id']}" for branch in runs)
    assert figures(compared(one, *invocations, "--format", "json").stdout) == rows

    # What a pull request and its CI see.
    dearer = compared(
        one, "main", "feature", "--format", "md", "--fail-over=0", code=3 * (more > 0)
    )
    assert "| model.shop.customers |" in dearer.stdout
    assert (f"{more.normalize():f} USD more than the base" in dearer.stderr) == (more > 0)
    assert "dbt build of shop to here" in dearer.stdout
    assert "branch main" in dearer.stdout

    # The same costs by what the nodes have in common, each once.
    for by in ("dbt.node", "dbt.tag", "dbt.owner"):
        report = make(str(one.ledger), by, period(None, None))
        assert sum(row.now.amount or 0 for row in report.rows) == sum(spent.values())
        assert len({row.item for row in report.rows}) > 1
