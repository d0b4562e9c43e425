"""`costinsights settle aws.emr_containers`, by unmodified boto3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import emr_fixtures
from tests.servers.aws_emr import EMRContainers
from tests.servers.aws_server import AWSServer, Refusal
from tests.servers.charges import instrumented
from tests.servers.emr_runs import (
    DRIVER,
    REGION,
    amount_of,
    latest,
    settled,
    submit_pods,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


environment, server = emr_fixtures.environment, emr_fixtures.server


@pytest.fixture
def containers(server: AWSServer) -> EMRContainers:
    return EMRContainers(server)


@pytest.fixture
def pods(server: AWSServer) -> Iterator[Any]:
    client = server.client("emr-containers", region_name=REGION)
    yield client
    client.close()


def begun(pods: Any, ledger: Path, cluster: str, count: int = 1, **more: Any) -> list[str]:
    """Start runs in a program that does not wait for them."""
    with instrumented(ledger, "botocore"):
        return [submit_pods(pods, cluster, **more) for _ in range(count)]


def test_runs_on_eks_are_an_estimate_of_their_pods(
    pods: Any, server: AWSServer, containers: EMRContainers, tmp_path: Path
) -> None:
    cluster = containers.cluster()
    containers.next = {"seconds": 1200.0}
    ids = begun(pods, tmp_path, cluster, 2)
    settled("aws.emr_containers", server, tmp_path)
    assert server.counts(containers.service) == {"DescribeJobRun": 2}
    charge = latest(tmp_path)[ids[0]]
    assert (charge.basis, charge.partial) == ("estimated", False)
    # A driver of 1 vCPU and 2.8 GB, 4 executors of 2 vCPUs and 11.2 GB, for 20 minutes.
    assert charge.usage["vcpu_seconds"] == 9 * 1200
    assert charge.usage["memory_gb_seconds"] == (2.7998046875 + 4 * 11.19921875) * 1200
    assert float(amount_of(charge)) == pytest.approx(
        9 / 3 * 0.01012 + (2.7998046875 + 4 * 11.19921875) / 3 * 0.00111125, rel=1e-9
    )
    again = settled("aws.emr_containers", server, tmp_path)
    assert (again.settled, again.unchanged) == (0, 2)


def test_several_runs_on_eks_are_read_from_their_list(
    pods: Any, server: AWSServer, containers: EMRContainers, tmp_path: Path
) -> None:
    cluster = containers.cluster()
    ids = begun(pods, tmp_path, cluster, 60)
    gone = ids[7]
    del containers.runs[gone]
    report = settled("aws.emr_containers", server, tmp_path)
    assert server.counts(containers.service) == {"ListJobRuns": 2, "DescribeJobRun": 1}
    assert report.settled == 59
    found = latest(tmp_path)
    assert "no longer knows" in str(found[gone].usage["lost"])
    assert sum(one.basis == "estimated" for one in found.values()) == 59
    containers.brief = True
    ids = begun(pods, tmp_path / "brief", cluster, 5)
    assert settled("aws.emr_containers", server, tmp_path / "brief").settled == 5
    assert server.counts(containers.service)["DescribeJobRun"] == 5


def test_runs_on_eks_that_cannot_be_rebuilt(
    pods: Any, server: AWSServer, containers: EMRContainers, tmp_path: Path
) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("--conf spark.dynamicAllocation.enabled=true", {}, "dynamic allocation"),
        ("--conf spark.executor.memory=lots", {}, "spark.executor.memory is no size"),
        ("--conf spark.driver.cores=1.2.3", {}, "spark.driver.cores is no number"),
        ("", {"state": "FAILED", "reason": "VALIDATION_ERROR"}, "before it had pods"),
        ("", {"seconds": None}, "without the time of its end"),
        ("", {"state": "EXPLODED"}, "a state that nobody knows"),
    ]
    cluster, ids = containers.cluster(), dict[str, str]()
    for parameters, answer, reason in cases:
        containers.next = answer
        submitted = {**DRIVER["sparkSubmitJobDriver"]}
        submitted["sparkSubmitParameters"] += f" {parameters}"
        driver = {"sparkSubmitJobDriver": submitted}
        ids[reason] = begun(pods, tmp_path, cluster, driver=driver)[0]
    containers.next = {}
    driver = {"sparkSubmitJobDriver": {"entryPoint": "s3://x/job.jar"}}
    ids["spark.executor.instances is not said"] = begun(pods, tmp_path, cluster, driver=driver)[0]
    settled("aws.emr_containers", server, tmp_path)
    found = latest(tmp_path)
    for reason, id_ in ids.items():
        charge = found[id_]
        assert (charge.amount, charge.basis) == (None, "unknown")
        assert reason in str(charge.usage["unpriced"])
        assert "s3cr3t" not in json.dumps(dict(charge.usage))


def test_what_the_image_has_and_what_somebody_has_counted(
    pods: Any, server: AWSServer, containers: EMRContainers, tmp_path: Path
) -> None:
    containers.next = {"seconds": 600.0}
    driver = {
        "sparkSubmitJobDriver": {
            "entryPoint": "s3://x/job.jar",
            "sparkSubmitParameters": "--conf spark.dynamicAllocation.enabled=true --class x",
        }
    }
    overrides = {
        "applicationConfiguration": [
            {
                "classification": "spark-defaults",
                "properties": {
                    "spark.kubernetes.executor.request.cores": "500m",
                    "spark.executor.memoryOverhead": "1g",
                    "spark.driver.memory": "10g",
                },
            }
        ]
    }
    ledger = tmp_path / "ledger"
    [id_] = begun(
        pods, ledger, containers.cluster(), driver=driver, configurationOverrides=overrides
    )
    counted = tmp_path / "executors.json"
    counted.write_text(json.dumps({id_: 3600}))
    options = {
        "executor_seconds": str(counted),
        "defaults": {"spark.driver.cores": "1", "spark.executor.memory": "1g"},
    }
    settled("aws.emr_containers", server, ledger, options=options)
    charge = latest(ledger)[id_]
    assert charge.usage["vcpu_seconds"] == 600 + 0.5 * 3600
    assert charge.usage["memory_gb_seconds"] == 11 * 600 + 2 * 3600
    assert charge.basis == "estimated"


def test_runs_on_eks_that_go_on_and_those_of_nobody(
    pods: Any, server: AWSServer, containers: EMRContainers, tmp_path: Path
) -> None:
    cluster = containers.cluster()
    containers.next = {"seconds": None, "state": "RUNNING"}
    [id_] = begun(pods, tmp_path, cluster)
    other = containers.run(cluster, {"jobDriver": DRIVER}, seconds=1.0)
    report = settled("aws.emr_containers", server, tmp_path, all=True)
    assert (report.settled, report.added) == (0, 1)
    found = latest(tmp_path)
    assert found[id_].partial
    assert found[other.id].usage["vcpu_seconds"] == 9 * 60  # a minute is the least
    denied = Refusal("AccessDeniedException", "secret arn", 403)
    server.refuse(containers.service, "DescribeJobRun", denied)
    with pytest.raises(Exception, match="no permission to read describe_job_run") as error:
        settled("aws.emr_containers", server, tmp_path)
    assert "emr-containers:DescribeJobRun" in getattr(error.value, "grant", "")
