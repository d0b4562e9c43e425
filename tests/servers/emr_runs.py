"""What tests of EMR have in common: requests, and settlement as if it were later."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from costinsights.settlement.aws_emr import EMRHistory
from costinsights.settlement.aws_emr_containers import EMRContainersHistory
from costinsights.settlement.aws_emr_serverless import EMRServerlessHistory
from costinsights.settlement.settling import settle
from tests.servers.aws_emr import Instance
from tests.servers.charges import Charges, instrumented

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled
    from tests.servers.aws_emr import EMR, Cluster
    from tests.servers.aws_server import AWSServer

SECRET = "s3cr3t-argument"
REGION = "us-west-2"
STEPS = [{"Name": "etl", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": [SECRET]}}]
FLOW: dict[str, Any] = {
    "Name": "nightly",
    "ReleaseLabel": "emr-7.9.0",
    "Instances": {
        "InstanceGroups": [
            {"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1},
            {"InstanceRole": "CORE", "InstanceType": "r5.4xlarge", "InstanceCount": 4},
        ],
        "KeepJobFlowAliveWhenNoSteps": True,
    },
    "JobFlowRole": "x",
    "ServiceRole": "y",
}
BILLED = {"vCPUHour": 1.5, "memoryGBHour": 6.0, "storageGBHour": 0.0}
AMOUNT = "0.113607000000000"  # 1.5 × 0.052624 + 6 × 0.0057785
SUBMIT = (
    "--conf spark.executor.instances=4 --conf spark.executor.cores=2 --executor-memory 8g "
    f"--driver-cores 1 --driver-memory=2g --conf spark.password={SECRET} --class x"
)
DRIVER = {"sparkSubmitJobDriver": {"entryPoint": "s3://x/job.py", "sparkSubmitParameters": SUBMIT}}


HOUR = 3600
READERS = {
    "aws.emr": EMRHistory,
    "aws.emr_serverless": EMRServerlessHistory,
    "aws.emr_containers": EMRContainersHistory,
}
R5 = Decimal("1.26")
"""An hour of an r5.4xlarge in us-west-2: EC2's 1.008 and EMR's 0.252."""


def launch(client: Any, emr: EMR, ledger: Path, steps: int = 2) -> Cluster:
    """Start a cluster with steps in a program that does not wait for them; four machines come."""
    with instrumented(ledger, "botocore"):
        id_ = client.run_job_flow(**FLOW, Steps=STEPS * steps)["JobFlowId"]
    cluster = emr.clusters[id_]
    cluster.instances = [Instance("r5.4xlarge", 0) for _ in range(4)]
    return cluster


def submit(jobs: Any, application: str, **more: Any) -> str:
    id_: str = jobs.start_job_run(
        applicationId=application,
        executionRoleArn="arn:aws:iam::123456789012:role/x",
        jobDriver={"sparkSubmit": {"entryPoint": "s3://x/j.py", "entryPointArguments": [SECRET]}},
        **more,
    )["jobRunId"]
    return id_


def submit_pods(pods: Any, cluster: str, driver: Any = DRIVER, **more: Any) -> str:
    id_: str = pods.start_job_run(
        virtualClusterId=cluster,
        executionRoleArn="arn:aws:iam::123456789012:role/x",
        releaseLabel="emr-7.9.0-latest",
        jobDriver=driver,
        **more,
    )["id"]
    return id_


def at_once(_seconds: float) -> None:
    """Stand for the waiting of a reader that was throttled."""


def settled(
    system: str,
    server: AWSServer,
    ledger: Path,
    *,
    hours: float = 6,
    options: Mapping[str, object] | None = None,
    config: Any = None,
    **more: Any,
) -> Settled:
    """Settle as if it were `hours` later."""
    server.requests.clear()
    now = datetime.now(timezone.utc)
    given = {"regions": [REGION], "endpoint_url": server.url, **(options or {})}
    return settle(
        system,
        now - timedelta(hours=2),
        ledger=ledger,
        history=READERS[system](given),
        config=config,
        now=now + timedelta(hours=hours),
        **more,
    )


def latest(ledger: Path) -> dict[str, Charge]:
    """Return the charges by the vendor's id, rows of idle by their own."""
    newest = {one.charge_id: one for one in Charges(ledger).entries()}
    return {one.vendor_id or one.charge_id: one for one in newest.values()}


def amount_of(charge: Charge) -> Decimal:
    assert charge.amount is not None, charge.usage
    return Decimal(charge.amount)


def near(one: Decimal, other: Decimal) -> bool:
    """Tell whether two amounts are the same but for the rounding of each slice to 10⁻¹⁵."""
    return abs(one - other) < Decimal("1e-12")


def idle_of(found: Mapping[str, Charge]) -> Decimal:
    return sum(
        (amount_of(one) for one in found.values() if one.operation == "IDLE"), start=Decimal(0)
    )
