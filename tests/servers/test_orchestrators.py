"""The real orchestrators, run in process, from the statement to its record.

Each brings over fifty packages, and they do not agree with one another: each has an environment of
its own (`tests.environments`), with what of ours it needs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from textwrap import indent
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.ledger.reader import read_ledger
from tests.backends import unavailable
from tests.environments import ROOT, environment, lent
from tests.processes import Account, Unavailable, answers, free_port, running

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
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


class Place(NamedTuple):
    """Where an orchestrator's program runs: its interpreter, its home, what it is told."""

    interpreter: Path
    home: Path
    ledger: Path
    variables: dict[str, str]

    def run(self, *words: str | Path, seconds: float = 400) -> str:
        """Run a program of the environment to its end; return what it said."""
        done = subprocess.run(
            words,
            cwd=self.home,
            env=self.variables,
            capture_output=True,
            check=False,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    def found(self) -> dict[str, list[dict[str, str]]]:
        """Return what each statement was attributed to, by the name that it gives its column."""
        found: dict[str, list[dict[str, str]]] = {}
        for charge in read_ledger(str(self.ledger)):
            text = charge.statement.text if charge.statement is not None else ""
            if charge.revision == 0 and "AS" in text:
                found.setdefault(text.split()[-1], []).append(charge.attribution)
        return found


def place(orchestrator: str, folder: Path) -> Place:
    """The environment of `orchestrator`, with a home and a ledger in `folder`."""
    try:
        interpreter = environment(orchestrator) / "bin" / "python"
    except Unavailable as error:
        unavailable(orchestrator, error)
    home, ledger = folder / "home", folder / "ledger"
    home.mkdir()
    variables = {
        **os.environ,
        "PATH": f"{interpreter.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(lent(folder / "packages")),
        "HOME": str(home),
        "LEDGER": str(ledger),
        "COSTINSIGHTS_LEDGER": str(ledger),
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
    return Place(interpreter, home, ledger, variables)


def run(orchestrator: str, program: str, folder: Path) -> dict[str, list[dict[str, str]]]:
    """Run the program under the orchestrator; return what each statement was attributed to."""
    there = place(orchestrator, folder)
    path = there.home / "program.py"
    path.write_text(PREAMBLE + program)
    there.run(there.interpreter, path)
    return there.found()


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

@flow(retries=1)
def twice():
    query("twice")
    if len(failed) < 2:
        failed.append(2)
        raise ValueError

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
twice()
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
    assert [one["attempt"] for one in found["twice"]] == ["1", "2"]
    assert [shown(one) for one in found["async_task"]] == [
        {**nightly, "job": "concurrent", "task": "later"}
    ] * 2
    assert found["outside"] == [{"rule": "unattributed"}] * 2
    assert found["flow"][0]["run"] == found["task"][0]["run"] != found["inner"][0]["run"]
    assert "s3cr3t" not in json.dumps(found)


PREFECT_FLOWS = """
import os, sqlite3
from prefect import flow, task

def query(name):
    connection = sqlite3.connect(":memory:")
    connection.cursor().execute(f"SELECT 1 AS {name}").fetchall()
    connection.close()

@task(retries=1)
def load(password, failed=[]):
    query("task")
    if not failed:
        failed.append(1)
        raise ValueError

@flow
def inner():
    query("inner")

@flow(name="nightly")
def outer(way):
    if way == "measured":
        import costinsights
        costinsights.instrument("sqlite3", ledger=os.environ["LEDGER"], exporters=[])
    if way == "asking":
        from prefect.runtime import deployment
        assert deployment.name == "daily"
    query("flow")
    load("s3cr3t")
    inner()
"""

PREFECT_RUNNER = """
import asyncio, os, sys
from flows import outer
from prefect.client.orchestration import get_client
from prefect.runner import Runner

def said(): print(os.path.getsize(sys.argv[1]))

async def main():
    for way in ("bare", "measured", "asking"):
        runner = Runner(query_seconds=1, pause_on_shutdown=False)
        deployment = await runner.add_flow(outer, name="daily")
        async with get_client() as client:
            asked = {"parameters": {"way": way}, "tags": ["nightly"]}
            await client.create_flow_run_from_deployment(deployment, **asked)
        said()
        await runner.start(run_once=True)
        said()

if __name__ == "__main__":  # each run's process loads this program as well
    asyncio.run(main())
"""


def test_prefect_deployment(tmp_path: Path) -> None:
    """A server, a deployment, and a runner that starts each run in a process of its own."""
    there = place("prefect", tmp_path)
    (there.home / "flows.py").write_text(PREFECT_FLOWS)
    program = there.home / "program.py"
    program.write_text(PREFECT_RUNNER)
    port = free_port()
    there.variables["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    there.variables["PREFECT_SERVER_LOGGING_LEVEL"] = "INFO"  # it lists the requests
    server = ("-m", "prefect", "server", "start", "--no-services")
    with running(
        Account(None, None),
        there.interpreter,
        *server,
        *("--host", "127.0.0.1", "--port", str(port)),
        cwd=there.home,
        env=there.variables,
        ready=lambda: answers(port, HEALTH.format("/api/health").encode(), b"HTTP/1.1 200"),
        stop=signal.SIGTERM,
    ):
        log = there.home / "log"
        marks = [int(mark) for mark in there.run(there.interpreter, program, log).split()]
        content = log.read_text()
    found = there.found()
    nightly = {
        "job": "nightly",
        "attempt": "1",
        "deployment": "daily",
        "deployment_id": found["flow"][0]["deployment_id"],
        "tags": "nightly",
        "rule": "prefect",
    }
    load = {**nightly, "task": "load"}
    assert [shown(one) for one in found["flow"]] == [nightly]
    assert [shown(one) for one in found["task"]] == [load, {**load, "attempt": "2"}]
    # A flow that another one calls is part of the deployment's run; id and tags are the run's alone.
    assert [shown(one) for one in found["inner"]] == [
        {"job": "inner", "attempt": "1", "deployment": "daily", "rule": "prefect"}
    ]
    assert re.fullmatch(r"[0-9a-f-]{36}", nightly["deployment_id"])
    assert "s3cr3t" not in json.dumps(found)

    # What the server was asked: the same with and without us. That asking would be seen is shown
    # by the run whose flow asks for the deployment's name.
    bare, measured, asking = (
        requests(content[since:until]) for since, until in zip(marks[::2], marks[1::2], strict=True)
    )
    assert bare["POST /api/flow_runs/ID/set_state"] >= 4
    assert measured == bare
    assert asking - bare == Counter({"GET /api/deployments/ID": 1})


HEALTH = "GET {} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def requests(log: str) -> Counter[str]:
    """Count what a run asked of Prefect's server; its logs and the client's greetings aside."""
    lines = re.findall(r'"(\w+ /api/\S+) HTTP', re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", log))
    of_runs = re.compile(r"\w+ /api/(flow_runs|task_runs|flows|deployments|variables|work)\b")
    return Counter(line for line in lines if of_runs.match(line))


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


AIRFLOW_DAG = """
import datetime
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import dag, task

def quietly(name):
    '''A statement asks nobody: not the supervisor, and through it not Airflow's server.'''
    from airflow.sdk.execution_time import task_runner
    asked, comms = [], type(task_runner.SUPERVISOR_COMMS)
    send = comms.send
    comms.send = lambda *words, **named: (asked.append(words), send(*words, **named))[1]
    query(name)
    assert not asked, asked
    return asked

@dag(
    dag_id="nightly",
    start_date=datetime.datetime(2026, 1, 1),
    schedule="@once",
    is_paused_upon_creation=False,
    default_args={
        "owner": "growth",
        "email": "somebody@example.com",
        "email_on_failure": False,
        "email_on_retry": False,
    },
)
def pipeline():
    @task(retries=1, retry_delay=datetime.timedelta(0))
    def load(password):
        from airflow.sdk import get_current_context
        asked = quietly("load")
        get_current_context()["ti"].xcom_push("key", "value")
        assert asked, "this would have been seen"
        if os.environ["AIRFLOW_CTX_TRY_NUMBER"] == "1":
            raise ValueError

    @task(owner="airflow")
    def each(table):
        query(table)

    command = f"{sys.executable} -m costinsights.cli run -- {sys.executable} $AIRFLOW_HOME/child"
    BashOperator(task_id="shell", bash_command=command)
    load("s3cr3t")
    each.expand(table=["one", "two"])

pipeline()
"""

AIRFLOW_CHILD = """
import sqlite3
sqlite3.connect(":memory:").execute("SELECT 1 AS child").fetchall()
"""

AIRFLOW_SETTINGS = """\
def get_airflow_context_vars(context):
    return {"map_index": str(context["ti"].map_index)}
"""


@contextmanager
def airflow_services(there: Place) -> Generator[None]:
    """Airflow as it is deployed: a server for the tasks, a reader of DAG files, a scheduler."""
    port = free_port()
    variables = {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": "no secret, and long enough to be one: "
        + "0123456789" * 4,
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    }
    there.variables.update(variables)
    there.run(there.interpreter, "-m", "airflow", "db", "migrate")

    def is_up() -> bool:
        return answers(port, HEALTH.format("/execution/health").encode(), b"HTTP/1.1 200")

    services: dict[str, tuple[tuple[str, ...], Callable[[], bool]]] = {
        "dag-processor": ((), lambda: True),
        "api-server": (("--apps", "execution"), is_up),
        "scheduler": ((), lambda: True),
    }
    with ExitStack() as started:
        for name, (options, ready) in services.items():
            (there.home / name).mkdir()
            started.enter_context(
                running(
                    Account(None, None),
                    there.interpreter,
                    *("-m", "airflow", name, *options),
                    cwd=there.home / name,
                    env=there.variables,
                    ready=ready,
                    stop=signal.SIGTERM,
                )
            )
        yield


def test_airflow_scheduler(tmp_path: Path) -> None:
    """A run that the scheduler starts: each task in a process that the executor makes for it."""
    page = (ROOT / "docs" / "attribution.md").read_text(encoding="utf-8")
    assert indent(AIRFLOW_SETTINGS, "  ") in page
    there = place("airflow", tmp_path)
    (there.home / "dags").mkdir()
    (there.home / "config").mkdir()
    (there.home / "dags" / "program.py").write_text(PREAMBLE + AIRFLOW_DAG)
    (there.home / "child").write_text(AIRFLOW_CHILD)
    (there.home / "config" / "airflow_local_settings.py").write_text(AIRFLOW_SETTINGS)
    there.variables["AIRFLOW__CORE__DAGS_FOLDER"] = str(there.home / "dags")
    with airflow_services(there):
        state = ended(there.home / "airflow.db", seconds=180)
    logs = "".join(path.read_text() for path in there.home.glob("logs/**/attempt=*.log"))
    assert state == "success", [line for line in logs.splitlines() if "error_detail" in line]
    found = there.found()
    nightly = {"job": "nightly", "attempt": "1", "rule": "airflow"}
    load = {**nightly, "task": "load", "team": "growth"}
    assert [shown(one) for one in found["load"]] == [load, {**load, "attempt": "2"}]
    each = {**nightly, "task": "each"}
    assert [shown(one) for one in found["one"]] == [{**each, "mapping": "0"}]
    assert [shown(one) for one in found["two"]] == [{**each, "mapping": "1"}]
    (child,) = found["child"]
    assert {k: v for k, v in shown(child).items() if k != "rule"} == {
        "job": "nightly",
        "attempt": "1",
        "task": "shell",
        "team": "growth",
    }
    runs = {one["run"] for several in found.values() for one in several}
    assert runs == {"scheduled__2026-01-01T00:00:00+00:00"}
    assert "somebody" not in json.dumps(found)
    assert "s3cr3t" not in json.dumps(found)


def ended(database: Path, *, seconds: float) -> str:
    """Wait for the end of the one DAG run; return its state."""
    deadline = time.monotonic() + seconds
    found = "no run"
    while time.monotonic() < deadline and found not in ("success", "failed"):
        time.sleep(0.5)
        connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        try:
            (found,) = connection.execute("SELECT state FROM dag_run").fetchone() or ("no run",)
        except sqlite3.OperationalError as error:
            found = str(error)  # locked
        finally:
            connection.close()
    return found
