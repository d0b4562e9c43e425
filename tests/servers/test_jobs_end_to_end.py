"""One job of each kind: whoever sees its end, and however its program ends, it costs the same.

`tests/apps/jobs.py` starts them by unmodified clients. Once it is killed by SIGKILL right after the
last start; once it lives and polls them to their ends. Then `costinsights settle`, a process of its
own for each system, asks for what is left. Spark, which is a real engine and not a server, has the
same in `test_spark.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from costinsights.ledger.reader import read_ledger
from tests.servers.aws_athena import Athena
from tests.servers.aws_emr import EMR, Attempt, EMRContainers, EMRServerless, Instance
from tests.servers.aws_glue import Glue
from tests.servers.aws_server import AWSServer, aws_server
from tests.servers.azure_server import FACTORY, TOKEN, Azure, azure_server, copy, lookup
from tests.servers.databricks_server import Workspace, serving
from tests.servers.dataproc_server import PROJECT, REGION, Dataproc, dataproc_server
from tests.servers.test_databricks_jobs_settlement import EACH, NIGHTLY, price, ran, usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from costinsights.records import Charge

ROOT = Path(__file__).parents[2]
SYSTEMS = (
    "aws.athena",
    "aws.emr",
    "aws.emr_containers",
    "aws.emr_serverless",
    "aws.glue",
    "azure.data_factory",
    "databricks.jobs",
    "gcp.dataproc",
    "gcp.dataproc_serverless",
)
# Those whose price is in no answer to this program: it is in hours that were paid for, in a bill, or
# made of what only settlement asks for (the application of EMR Serverless, the pods on EKS).
BY_SETTLEMENT = {
    "aws.emr",
    "aws.emr_containers",
    "aws.emr_serverless",
    "databricks.jobs",
    "gcp.dataproc",
}
CONFIGURATION = """
ledger = "ledger"
exporters = []

[[resource]]
database = "*/{factory}"
region = "westeurope"

[settle."aws.athena"]
regions = ["us-east-1"]
endpoint_url = "{aws}"
[settle."aws.glue"]
regions = ["us-east-1"]
endpoint_url = "{aws}"
[settle."aws.emr"]
regions = ["us-west-2"]
endpoint_url = "{aws}"
[settle."aws.emr_serverless"]
regions = ["us-west-2"]
endpoint_url = "{aws}"
[settle."aws.emr_containers"]
regions = ["us-west-2"]
endpoint_url = "{aws}"
[settle."azure.data_factory"]
endpoint_url = "{azure}"
token = "{token}"
region = "westeurope"
[settle."gcp.dataproc"]
projects = ["{project}"]
regions = ["{region}"]
endpoint = "grpc://{dataproc}"
[settle."gcp.dataproc_serverless"]
projects = ["{project}"]
regions = ["{region}"]
endpoint = "grpc://{dataproc}"
[settle."databricks.jobs"]
host = "{databricks}"
token = "dapi-test"
warehouse = "abc123"
"""


class Clouds:
    """The servers of all vendors."""

    def __init__(
        self, aws: AWSServer, azure: Azure, dataproc: Dataproc, workspace: Workspace
    ) -> None:
        self.aws, self.azure, self.dataproc, self.workspace = aws, azure, dataproc, workspace
        aws.answer("athena", "ListCapacityReservations", lambda _: {"CapacityReservations": []})

    def prepare(self) -> dict[str, Any]:
        """Begin anew; return what a program needs to know."""
        athena = Athena(self.aws)
        athena.seed("", scanned=2**40)
        glue = Glue(self.aws)
        glue.job("orders")
        glue.seed("", seconds=900)
        glue.close()
        self.emr = EMR(self.aws)
        self.cluster = self.emr.start(ago=4 * 3600)
        self.cluster.instances = [Instance("r5.4xlarge", 0) for _ in range(4)]
        self.cluster.end(3600)
        add = self.emr.step

        def timed(cluster: Any, created: float, **more: Any) -> Any:
            return add(cluster, 0, started=600.0, ended=1500.0)

        self.emr.step = timed  # type: ignore[method-assign]  # a step of a quarter of an hour
        serverless, containers = EMRServerless(self.aws), EMRContainers(self.aws)
        serverless.next = [Attempt({"vCPUHour": 1.5, "memoryGBHour": 6.0, "storageGBHour": 0.0})]
        containers.next = {"seconds": 1200.0}
        self.azure.as_before()
        self.azure.pipeline("load", copy(), lookup("SelfhostedIR"), questions=1)
        self.dataproc.forget()
        self.dataproc.ago = 3 * 3600
        self.dataproc.cluster("etl", ago=4 * 3600, gone=2 * 3600)
        used = {"milli_dcu_seconds": 43_200_000, "shuffle_gb_seconds": 90_000}
        self.dataproc.seed("", questions=1, runs=600, vcores=1000, **used)
        self.workspace.jobs.settings[NIGHTLY] = {
            "name": "nightly",
            "tasks": [{"task_key": "load", "new_cluster": {"node_type_id": "x", "num_workers": 1}}],
        }
        self.aws.requests.clear()
        return {
            "aws": self.aws.url,
            "azure": self.azure.url,
            "dataproc": self.dataproc.address,
            "databricks": f"http://127.0.0.1:{self.workspace.port}",
            "cluster": self.cluster.id,
            "application": serverless.application(),
            "virtual": containers.cluster(),
            "job": NIGHTLY,
        }

    def bill(self, run_id: str) -> None:
        """Have Databricks write its bill."""
        self.workspace.seed("billing.usage", [usage(run_id, "2.5")])
        self.workspace.seed("lakeflow.job_run_timeline", [ran(run_id)])


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with ExitStack() as stack:
        workspace = stack.enter_context(serving())
        workspace.seed("billing.list_prices", [price(sku, each) for sku, each in EACH.items()])
        yield Clouds(
            stack.enter_context(aws_server()),
            stack.enter_context(azure_server()),
            stack.enter_context(dataproc_server()),
            workspace,
        )


def environment() -> dict[str, str]:
    access = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    return {**os.environ, **access, "PYTHONPATH": str(ROOT), "GRPC_VERBOSITY": "NONE"}


def play(clouds: Clouds, folder: Path, *, lives: bool) -> dict[str, str]:
    """Run the program; return the ids of its jobs, by system."""
    folder.mkdir()
    given = {**clouds.prepare(), "lives": lives}
    places = {**given, "token": TOKEN, "project": PROJECT, "region": REGION, "factory": FACTORY}
    (folder / "costinsights.toml").write_text(CONFIGURATION.format(**places))
    done = subprocess.run(
        [sys.executable, "-m", "tests.apps.jobs", json.dumps(given)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == (0 if lives else -signal.SIGKILL), done.stderr
    ids: dict[str, str] = json.loads(done.stdout)
    clouds.bill(ids["databricks.jobs"])
    return ids


def costinsights(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "costinsights.cli", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def charges(folder: Path) -> dict[str, Charge]:
    """The jobs' charges by system; without idle capacity and what settling cost."""
    found = {charge.charge_id: charge for charge in read_ledger(str(folder / "ledger"))}
    return {
        charge.system: charge
        for charge in found.values()
        if charge.vendor_id is not None and charge.operation != "IDLE"
    }


def waits(folder: Path) -> set[str]:
    """Return the systems of jobs that have not ended."""
    return {charge.system for charge in charges(folder).values() if charge.partial}


def settle(folder: Path, systems: Sequence[str] = SYSTEMS) -> None:
    """Settle every system, several at once, as crontabs do."""
    with ThreadPoolExecutor(3) as pool:
        done = [
            pool.submit(costinsights, folder, "settle", system, "--since", "3d")
            for system in systems
        ]
        for one in done:
            one.result()


def test_whoever_sees_the_end_the_totals_are_the_same(clouds: Clouds, tmp_path: Path) -> None:
    alive, dead = tmp_path / "alive", tmp_path / "dead"
    ids = play(clouds, alive, lives=True)
    assert set(ids) == set(SYSTEMS)
    polled = charges(alive)
    for system in set(SYSTEMS) - BY_SETTLEMENT:
        assert polled[system].amount is not None, system
        assert not polled[system].partial, system
    settle(alive, [*sorted(BY_SETTLEMENT), "aws.glue", "azure.data_factory"])
    lived = charges(alive)
    for system in set(SYSTEMS) - BY_SETTLEMENT:  # settling what was seen to its end adds nothing
        assert (lived[system].amount, lived[system].basis) == (
            polled[system].amount,
            polled[system].basis,
        )

    play(clouds, dead, lives=False)
    pending = charges(dead)
    assert set(pending) == set(SYSTEMS)
    assert {charge.partial for charge in pending.values()} == {True}
    waiting = json.loads(costinsights(dead, "jobs", "--format", "json"))
    assert (waiting["total"]["pending"], waiting["total"]["settled"]) == (len(SYSTEMS), 0)
    said = [costinsights(dead, "jobs")]
    settle(dead)  # some of them still run: the first question to each vendor says so
    said.append(costinsights(dead, "jobs"))
    settle(dead, sorted(waits(dead)))
    died = charges(dead)
    said += [costinsights(at, "jobs") for at in (dead, alive)]
    print(*said, sep="\n")  # for who runs it with -s

    assert set(died) == set(SYSTEMS)
    for system in SYSTEMS:
        one, other = died[system], lived[system]
        assert one.charge_id == pending[system].charge_id
        assert one.amount is not None, (system, one.usage)
        assert other.amount is not None, (system, other.usage)
        assert abs(Decimal(one.amount) - Decimal(other.amount)) < Decimal("1e-9"), system
        assert (one.basis, one.partial, one.currency) == (other.basis, False, other.currency)
        assert one.attribution["asset"] == other.attribution["asset"] == "orders"
    totals = [json.loads(costinsights(at, "jobs", "--format", "json")) for at in (alive, dead)]
    for found in totals:
        assert [found["total"][state] for state in ("pending", "running", "settled", "lost")] == [
            0,
            0,
            len(SYSTEMS),
            0,
        ]
    entries = len(list(read_ledger(str(dead / "ledger"))))
    settle(dead, ["aws.emr", "gcp.dataproc"])
    again = list(read_ledger(str(dead / "ledger")))
    assert [charge for charge in again[entries:] if charge.vendor_id is not None] == []
