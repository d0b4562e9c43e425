"""The real orchestrators, run in process, from the statement to its record.

Each brings over fifty packages, and they do not agree with one another: each has an environment of
its own (`tests.environments`), with what of ours it needs.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from costinsights.ledger.reader import read_ledger
from tests.backends import unavailable
from tests.environments import environment, lent
from tests.processes import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

PREAMBLE = """
import os, sqlite3, sys
import costinsights
from costinsights import orchestrators

def query(name):
    assert orchestrators.present() is orchestrators.present()
    connection = sqlite3.connect(":memory:")
    connection.cursor().execute(f"SELECT 1 AS {name}").fetchall()
    connection.close()

costinsights.instrument("sqlite3", ledger=os.environ["LEDGER"], exporters=[])
"""


def run(orchestrator: str, program: str, folder: Path) -> dict[str, list[dict[str, str]]]:
    """Run the program under the orchestrator; return what each statement was attributed to."""
    try:
        interpreter = environment(orchestrator) / "bin" / "python"
    except Unavailable as error:
        unavailable(orchestrator, error)
    home, ledger = folder / "home", folder / "ledger"
    home.mkdir()
    path = home / "program.py"
    path.write_text(PREAMBLE + program)
    variables = {
        **os.environ,
        "PYTHONPATH": str(lent(folder / "packages")),
        "HOME": str(home),
        "LEDGER": str(ledger),
        "DAGSTER_HOME": str(home),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "150",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):  # they talk to servers of their own
        variables.pop(proxy, None)
        variables.pop(proxy.lower(), None)
    done = subprocess.run(
        [interpreter, str(path)],
        cwd=home,
        env=variables,
        capture_output=True,
        check=False,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, list[dict[str, str]]] = {}
    for charge in read_ledger(str(ledger)):
        if charge.revision == 0 and charge.statement is not None and "AS" in charge.statement.text:
            found.setdefault(charge.statement.text.split()[-1], []).append(charge.attribution)
    return found


def shown(attribution: dict[str, str]) -> dict[str, str]:
    """Leave out what is another in every run."""
    return {key: value for key, value in attribution.items() if key not in ("run", "root_run")}


DAGSTER = """
import dagster as dg

days = dg.StaticPartitionsDefinition(["d1", "d2"])

class InputsAndOutputs(dg.IOManager):
    def handle_output(self, context, value): query("stored")
    def load_input(self, context): query("loaded")

@dg.asset(partitions_def=days, owners=["team:growth", "somebody@example.com"])
def orders():
    query("orders")

@dg.asset(key_prefix="mart", partitions_def=days)
def sales(context: dg.AssetExecutionContext, orders):
    query("sales")
    if context.op_execution_context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1)

@dg.multi_asset(specs=[dg.AssetSpec("b"), dg.AssetSpec("a")], can_subset=True)
def several(context):
    query("several")
    for key in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=key)

@dg.asset_check(asset="a")
def is_fine():
    query("checked")
    return dg.AssetCheckResult(passed=True)

@dg.op
def plain():
    query("plain")

@dg.graph
def group():
    plain()

@dg.job
def nightly():
    group()

query("outside")
instance = dg.DagsterInstance.ephemeral()
both = {"io_manager": InputsAndOutputs()}
tags = {"dagster/schedule_name": "daily", "dagster/backfill": "bf", "secret": "s"}
dg.materialize([orders, sales], partition_key="d1", resources=both, instance=instance, tags=tags)
dg.materialize([several, is_fine], instance=instance, resources=both)
dg.materialize([several], selection=["a"], instance=instance, resources=both)
nightly.execute_in_process(instance=instance)
with costinsights.attribute(asset="mine"):
    nightly.execute_in_process(instance=instance)
query("outside")
"""


def test_dagster(tmp_path: Path) -> None:
    found = run("dagster", DAGSTER, tmp_path)
    started = {
        "job": "__ephemeral_asset_job__",
        "attempt": "1",
        "schedule": "daily",
        "backfill": "bf",
        "partition": "d1",
        "rule": "dagster",
    }
    orders = {**started, "task": "orders", "asset": "orders", "team": "growth"}
    sales = {**started, "task": "mart__sales", "asset": "mart/sales"}
    assert [shown(one) for one in found["orders"]] == [orders]
    # An I/O manager works for the asset whose value it loads or stores.
    assert [shown(one) for one in found["stored"]][:2] == [orders, {**sales, "attempt": "2"}]
    assert [shown(one) for one in found["sales"]] == [sales, {**sales, "attempt": "2"}]
    assert [shown(one) for one in found["loaded"]] == [sales, {**sales, "attempt": "2"}]
    assert [one["asset"] for one in found["several"]] == ["a,b", "a"]
    assert [(one["asset"], one["check"]) for one in found["checked"]] == [("a", "is_fine")]
    plain = {"job": "nightly", "task": "group.plain", "attempt": "1", "rule": "dagster"}
    assert [shown(one) for one in found["plain"]] == [
        plain,
        {**plain, "asset": "mine", "rule": "scope+dagster"},
    ]
    assert found["outside"] == [{"rule": "unattributed"}] * 2
    everything = [one for several in found.values() for one in several]
    assert len({one["run"] for one in everything if "run" in one}) == 5
    assert "somebody" not in json.dumps(everything)
    assert "secret" not in json.dumps(everything)


PREFECT = """
import asyncio
from prefect import flow, task
from prefect.assets import materialize

failed = []

@task(retries=1)
def load(password):
    query("task")
    if not failed:
        failed.append(1)
        raise ValueError

@materialize("postgres://warehouse/orders")
def orders():
    query("asset")

@flow
def inner():
    query("inner")

@flow(name="nightly")
def outer():
    query("flow")
    load("s3cr3t")
    load.submit("s3cr3t").result()
    orders()
    inner()

@task
async def later():
    await asyncio.sleep(0)
    query("async_task")

@flow
async def concurrent():
    await asyncio.gather(later(), later())

query("outside")
outer()
asyncio.run(concurrent())
query("outside")
"""


def test_prefect(tmp_path: Path) -> None:
    found = run("prefect", PREFECT, tmp_path)
    nightly = {"job": "nightly", "attempt": "1", "rule": "prefect"}
    load = {**nightly, "task": "load"}
    assert [shown(one) for one in found["flow"]] == [nightly]
    assert [shown(one) for one in found["task"]] == [load, {**load, "attempt": "2"}, load]
    assert [shown(one) for one in found["asset"]] == [
        {**nightly, "task": "orders", "asset": "postgres://warehouse/orders"}
    ]
    assert [shown(one) for one in found["inner"]] == [{**nightly, "job": "inner"}]
    assert [shown(one) for one in found["async_task"]] == [
        {**nightly, "job": "concurrent", "task": "later"}
    ] * 2
    assert found["outside"] == [{"rule": "unattributed"}] * 2
    assert found["flow"][0]["run"] == found["task"][0]["run"] != found["inner"][0]["run"]
    assert "s3cr3t" not in json.dumps(found)


AIRFLOW = """
import datetime
from airflow.sdk import dag, task

@dag(
    dag_id="nightly",
    start_date=datetime.datetime(2026, 1, 1),
    schedule=None,
    default_args={"owner": "growth", "email": "somebody@example.com"},
)
def pipeline():
    @task
    def load(password):
        query("load")

    @task(owner="airflow")
    def report():
        query("report")

    load("s3cr3t") >> report()

nightly = pipeline()

if __name__ == "__main__":
    import subprocess, sys

    query("outside")
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True)
    nightly.test()
"""


def test_airflow(tmp_path: Path) -> None:
    found = run("airflow", AIRFLOW, tmp_path)
    nightly = {"job": "nightly", "attempt": "1", "rule": "airflow"}
    load: list[dict[str, Any]] = [shown(one) for one in found["load"]]
    assert load == [{**nightly, "task": "load", "team": "growth"}]
    assert [shown(one) for one in found["report"]] == [{**nightly, "task": "report"}]
    assert found["load"][0]["run"] == found["report"][0]["run"]
    assert found["outside"] == [{"rule": "unattributed"}]
    assert "somebody" not in json.dumps(found)
    assert "s3cr3t" not in json.dumps(found)
