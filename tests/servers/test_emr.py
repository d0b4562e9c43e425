"""EMR on EC2, Serverless and on EKS by unmodified boto3: pending at the start, no request of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

import costinsights
from costinsights.jobs import Waiting
from costinsights_instrumentors import (
    _botocore_emr,
    _botocore_emr_containers,
    _botocore_emr_serverless,
)
from tests.servers.aws_emr import EMR, Attempt, EMRContainers, EMRServerless, Instance
from tests.servers.aws_server import MODELS, AWSServer, Refusal, aws_server, boto3
from tests.servers.charges import Charges, instrumented
from tests.servers.emr_runs import (
    AMOUNT,
    BILLED,
    DRIVER,
    FLOW,
    REGION,
    SECRET,
    STEPS,
    submit,
    submit_pods,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test; what another test has seen of applications is forgotten."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    _botocore_emr_serverless.architectures.clear()
    _botocore_emr.first_steps.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "botocore") as charges:
        yield charges


@pytest.fixture
def emr(server: AWSServer) -> EMR:
    server.requests.clear()
    return EMR(server)


@pytest.fixture
def serverless(server: AWSServer) -> EMRServerless:
    server.requests.clear()
    return EMRServerless(server)


@pytest.fixture
def containers(server: AWSServer) -> EMRContainers:
    server.requests.clear()
    return EMRContainers(server)


@pytest.fixture
def client(server: AWSServer) -> Iterator[Any]:
    client = server.client("emr", region_name=REGION)
    yield client
    client.close()


@pytest.fixture
def jobs(server: AWSServer) -> Iterator[Any]:
    client = server.client("emr-serverless", region_name=REGION)
    yield client
    client.close()


@pytest.fixture
def pods(server: AWSServer) -> Iterator[Any]:
    client = server.client("emr-containers", region_name=REGION)
    yield client
    client.close()


def by_id(charges: Charges) -> dict[str | None, Charge]:
    return {charge.vendor_id: charge for charge in charges.new()}


# --- on EC2 --------------------------------------------------------------------------------------


def test_a_cluster_and_its_steps_are_pending_from_their_start(
    client: Any, emr: EMR, charges: Charges
) -> None:
    id_ = client.run_job_flow(**FLOW, Steps=STEPS * 2)["JobFlowId"]
    found = by_id(charges)
    assert set(found) == {id_, f"{id_}:1", f"{id_}:2"}
    assert {(charge.system, charge.partial, charge.amount) for charge in found.values()} == {
        ("aws.emr", True, None)
    }
    assert {charge.resource.namespace for charge in found.values()} == {id_}
    assert {charge.resource.region for charge in found.values()} == {REGION}
    assert [found[name].operation for name in (id_, f"{id_}:1")] == ["CLUSTER", "STEP"]
    assert found[id_].usage["requested_instances"] == 5
    added = client.add_job_flow_steps(JobFlowId=id_, Steps=STEPS * 3)["StepIds"]
    assert set(by_id(charges)) == set(added)
    assert SECRET not in charges.text()
    assert emr.aws.counts(emr.service) == {"RunJobFlow": 1, "AddJobFlowSteps": 1}


def test_the_programs_own_question_tells_the_time_of_a_step(
    client: Any, emr: EMR, charges: Charges
) -> None:
    id_ = client.run_job_flow(**FLOW)["JobFlowId"]
    [step] = client.add_job_flow_steps(JobFlowId=id_, Steps=STEPS)["StepIds"]
    charges.new()
    client.describe_step(ClusterId=id_, StepId=step)
    assert charges.new() == []  # it waits
    begun = emr.clusters[id_].steps[0]
    begun.started, begun.ended, begun.state = begun.created + 20, begun.created + 110, "FAILED"
    client.describe_step(ClusterId=id_, StepId=step)
    charge = charges.one()
    assert (charge.vendor_id, charge.partial, charge.basis) == (step, False, "unknown")
    assert (charge.usage["step_seconds"], charge.usage["queue_seconds"]) == (90, 20)
    assert (
        charge.usage["unpriced"] == "its share of the cluster's hours is not known: settle aws.emr"
    )
    assert charge.error is not None
    assert charge.error.type == "FAILED"
    client.describe_step(ClusterId=id_, StepId=step)
    assert charges.new() == []


def test_the_first_steps_are_known_from_a_whole_list(
    client: Any, emr: EMR, charges: Charges
) -> None:
    id_ = client.run_job_flow(**FLOW, Steps=STEPS * 2)["JobFlowId"]
    charges.new()
    cluster = emr.clusters[id_]
    first, second = cluster.steps
    first.started, first.ended = 10, 40
    client.list_steps(ClusterId=id_, StepIds=[first.id])
    assert charges.new() == []  # of a part of the list nobody knows which they are
    client.list_steps(ClusterId=id_)
    assert charges.one().vendor_id == f"{id_}:1"
    second.started, second.ended = 40, 45
    client.describe_step(ClusterId=id_, StepId=second.id)
    charge = charges.one()
    assert (charge.vendor_id, charge.usage["step_seconds"]) == (f"{id_}:2", 5)
    cluster.end(60)
    cluster.normalized_hours = 130
    client.describe_cluster(ClusterId=id_)
    charge = charges.one()
    assert (charge.vendor_id, charge.usage["normalized_instance_hours"]) == (id_, 130)
    assert charge.amount is None


def test_fleets_are_counted_in_units_and_nonsense_is_not_counted(
    client: Any, emr: EMR, charges: Charges
) -> None:
    fleets = [
        {"InstanceFleetType": "CORE", "TargetOnDemandCapacity": 2, "TargetSpotCapacity": 6},
        {"InstanceFleetType": "MASTER", "TargetOnDemandCapacity": 1},
    ]
    client.run_job_flow(**{**FLOW, "Instances": {"InstanceFleets": fleets}})
    assert charges.one().usage["requested_instances"] == 9
    with pytest.raises(ClientError, match="no instances"):
        client.run_job_flow(**{**FLOW, "Instances": {}})
    charge = charges.one()
    assert (charge.vendor_id, charge.partial) == (None, False)
    assert charge.error is not None
    assert emr.aws.counts(emr.service)["RunJobFlow"] == 2


# --- Serverless ------------------------------------------------------------------------------------


def test_a_run_is_completed_by_what_was_billed(
    jobs: Any, serverless: EMRServerless, charges: Charges
) -> None:
    application = serverless.application()
    serverless.questions = 2
    serverless.next = [Attempt(dict(BILLED), {"vCPUHour": 1.2, "memoryGBHour": 4.75}, seconds=900)]
    id_ = submit(jobs, application)
    pending = charges.one()
    assert (pending.system, pending.vendor_id) == ("aws.emr_serverless", id_)
    assert (pending.partial, pending.amount) == (True, None)
    assert (pending.resource.namespace, pending.resource.region) == (application, REGION)
    jobs.get_application(applicationId=application)
    for _ in range(3):
        jobs.get_job_run(applicationId=application, jobRunId=id_)
    charge = charges.one()
    assert (charge.charge_id, charge.revision) == (pending.charge_id, 1)
    assert (charge.amount, charge.currency, charge.basis) == (AMOUNT, "USD", "metered")
    assert {key: value for key, value in charge.usage.items() if key != "time_ns"} == {
        "vcpu_seconds": 5400,
        "memory_gb_seconds": 21600,
        "total_vcpu_seconds": 4320,
        "total_memory_gb_seconds": 17100,
        "execution_seconds": 900,
        "queued_ms": 1500,
        "architecture": "x86_64",
    }
    assert not charge.partial
    assert "s3cr3t" not in charges.text()
    jobs.get_job_run(applicationId=application, jobRunId=id_)
    assert charges.new() == []


@pytest.mark.parametrize(
    ("attempt", "amount", "partial"),
    [
        (Attempt(dict(BILLED), state="FAILED"), AMOUNT, False),
        (Attempt(dict(BILLED), state="CANCELLED"), AMOUNT, False),
        (Attempt({"vCPUHour": 0.0, "memoryGBHour": 0.0}), "0.000000000000000", False),
        # Storage above what is free has no price with a source, so the whole has none.
        (Attempt({**BILLED, "storageGBHour": 2.0}), None, False),
        (Attempt(), None, True),
        (Attempt({"memoryGBHour": 6.0}), None, True),
        (Attempt({**BILLED, "vCPUHour": "NaN"}), None, True),
        (Attempt({**BILLED, "vCPUHour": -1.5}), None, True),
        (Attempt(dict(BILLED), state="EXPLODED"), None, True),
    ],
)
def test_what_is_billed(
    jobs: Any,
    serverless: EMRServerless,
    charges: Charges,
    attempt: Attempt,
    amount: str | None,
    partial: bool,
) -> None:
    application = serverless.application()
    serverless.next = [attempt]
    id_ = submit(jobs, application)
    jobs.list_applications()
    jobs.get_job_run(applicationId=application, jobRunId=id_)
    charge = charges.one()
    assert (charge.amount, charge.partial) == (amount, partial)
    assert (charge.error.type if charge.error else None) == (
        attempt.state if attempt.state in ("FAILED", "CANCELLED") else None
    )


def test_several_attempts_and_an_unknown_architecture_are_settlements(
    jobs: Any, serverless: EMRServerless, charges: Charges
) -> None:
    application = serverless.application()
    serverless.next = [Attempt(dict(BILLED), state="FAILED"), Attempt(dict(BILLED))]
    id_ = submit(jobs, application)
    jobs.get_job_run(applicationId=application, jobRunId=id_, attempt=1)
    jobs.get_job_run(applicationId=application, jobRunId=id_)
    assert charges.one().partial
    serverless.next = [Attempt(dict(BILLED))]
    id_ = submit(jobs, application)
    jobs.get_job_run(applicationId=application, jobRunId=id_)
    charge = charges.one()  # the figures are there, and nobody has said which price
    assert (charge.amount, charge.basis, charge.partial) == (None, "unknown", False)
    assert charge.usage["vcpu_seconds"] == 5400


@pytest.fixture
def newest(server: AWSServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client that knows Flex."""
    monkeypatch.setenv("AWS_DATA_PATH", str(MODELS))
    session: Any = boto3().Session()
    client = session.client("emr-serverless", **server.access)
    yield client
    client.close()


def test_the_configuration_may_say_the_architecture(
    newest: Any, serverless: EMRServerless, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = newest
    application = serverless.application()
    serverless.next = [Attempt(dict(BILLED))]
    sets = {"architecture": "x86_64"}
    resource = {"system": "aws.emr_serverless", "database": application, "dimensions": sets}
    config = {"resource": [resource]}
    costinsights.instrument("botocore", ledger=tmp_path / "l", exporters=[], config=config)
    try:
        id_ = submit(jobs, application)
        jobs.get_job_run(applicationId=application, jobRunId=id_)
        assert Charges(tmp_path / "l").one().amount == AMOUNT
        assert "has no price" not in caplog.text
        flex = submit(jobs, application, flexExecution={"enabled": True})
        jobs.get_job_run(applicationId=application, jobRunId=flex)
        charge = {one.vendor_id: one for one in Charges(tmp_path / "l").new()}[flex]
        assert (charge.amount, charge.usage["execution_class"]) == (None, "flex")
    finally:
        costinsights.uninstrument()


def test_a_start_that_is_repeated_is_one_charge(
    jobs: Any, serverless: EMRServerless, charges: Charges
) -> None:
    application = serverless.application()
    first = submit(jobs, application, clientToken="t" * 40)
    assert submit(jobs, application, clientToken="t" * 40) == first
    assert charges.one().vendor_id == first


def test_a_throttled_start_is_one_charge_and_a_refused_one_an_error(
    jobs: Any, server: AWSServer, serverless: EMRServerless, charges: Charges
) -> None:
    server.refuse(serverless.service, "StartJobRun", Refusal("ThrottlingException", status=429))
    submit(jobs, serverless.application())
    assert charges.one().partial
    with pytest.raises(ClientError, match="no such application"):
        submit(jobs, "00fdead")
    charge = charges.one()
    assert (charge.partial, charge.vendor_id) == (False, None)


# --- on EKS ----------------------------------------------------------------------------------------


def test_a_run_on_eks_says_what_its_pods_request(
    pods: Any, containers: EMRContainers, charges: Charges
) -> None:
    cluster = containers.cluster()
    containers.next = {"seconds": 1200.0, "attempts": 2}
    id_ = submit_pods(pods, cluster)
    pending = charges.one()
    assert (pending.system, pending.vendor_id, pending.partial) == ("aws.emr_containers", id_, True)
    sizes = {
        "driver_cores": 1,
        "driver_memory_gb": 2.7998046875,  # 2 GB and 0.4 of it, for Python
        "executors": 4,
        "executor_cores": 2,
        "executor_memory_gb": 11.19921875,
    }
    assert {key: value for key, value in pending.usage.items() if key != "time_ns"} == sizes
    pods.describe_job_run(id=id_, virtualClusterId=cluster)
    charge = charges.one()
    assert (charge.amount, charge.basis, charge.partial) == (None, "unknown", False)
    assert (charge.usage["run_seconds"], charge.usage["attempts"]) == (1200, 2)
    assert charge.usage["executors"] == 4
    assert "s3cr3t" not in charges.text()


def test_what_the_request_does_not_say_is_left_out(
    pods: Any, containers: EMRContainers, charges: Charges
) -> None:
    cluster = containers.cluster()
    containers.next = {"state": "RUNNING", "seconds": None}
    for parameters in ("--conf", "--class 'unbalanced", "--conf spark.executor.cores=many"):
        driver = {
            "sparkSubmitJobDriver": {"entryPoint": "x.jar", "sparkSubmitParameters": parameters}
        }
        id_ = submit_pods(pods, cluster, driver)
        pods.describe_job_run(id=id_, virtualClusterId=cluster)
        assert set(charges.one().usage) == {"time_ns"}


# --- of all ----------------------------------------------------------------------------------------


def everything(server: AWSServer) -> list[Any]:
    """Use each operation; return what came back, without what is different each time."""
    emr, serverless, containers = EMR(server), EMRServerless(server), EMRContainers(server)
    found: list[Any] = []
    client = server.client("emr", region_name=REGION)
    id_ = client.run_job_flow(**FLOW, Steps=STEPS)["JobFlowId"]
    steps = client.add_job_flow_steps(JobFlowId=id_, Steps=STEPS)["StepIds"]
    emr.clusters[id_].instances.append(Instance("m5.xlarge", 0))
    found.append(client.describe_step(ClusterId=id_, StepId=steps[0])["Step"]["Name"])
    found.append(len(client.list_steps(ClusterId=id_)["Steps"]))
    found.append(client.describe_cluster(ClusterId=id_)["Cluster"]["Status"]["State"])
    found.append(len(client.list_instances(ClusterId=id_)["Instances"]))
    client.close()
    client = server.client("emr-serverless", region_name=REGION)
    application = serverless.application()
    run = submit(client, application, clientToken="t" * 40)
    answer = client.get_job_run(applicationId=application, jobRunId=run)
    found.append(answer["jobRun"]["state"])
    client.close()
    client = server.client("emr-containers", region_name=REGION)
    cluster = containers.cluster()
    run = submit_pods(client, cluster, clientToken="t" * 40)
    answer = client.describe_job_run(id=run, virtualClusterId=cluster)
    found.append(answer["jobRun"]["state"])
    client.close()
    return found


def bodies(server: AWSServer) -> list[tuple[str, Any]]:
    """Return the requests that were seen, without the ids of this time."""
    return [
        (
            one.operation,
            {
                key: value
                for key, value in one.params.items()
                if not key.lower().endswith(("id", "ids"))
            },
        )
        for one in list(server.requests)
    ]


def test_the_server_sees_what_it_would_see_without_us(server: AWSServer, tmp_path: Path) -> None:
    server.requests.clear()
    bare, without = everything(server), bodies(server)
    server.requests.clear()
    with instrumented(tmp_path / "ledger", "botocore") as charges:
        assert everything(server) == bare
        assert bodies(server) == without
        assert len(without) == 10
        assert len(charges.new()) == 5
    server.requests.clear()
    assert everything(server) == bare
    assert charges.new() == []


def test_what_the_background_asks(
    client: Any,
    jobs: Any,
    pods: Any,
    emr: EMR,
    serverless: EMRServerless,
    containers: EMRContainers,
) -> None:
    """`Follow.ask`, on a client of ours, over the wire."""
    cluster = emr.start()
    one, two = emr.step(cluster, 0, started=5, ended=9), emr.step(cluster, 1, started=9)
    steps = _botocore_emr.OPERATIONS["AddJobFlowSteps"].follow
    assert steps is not None
    own = steps.client(client)
    names = (one.id, two.id, f"{cluster.id}:1", cluster.id)
    asked = [list(steps.ask(own, [Waiting(name, namespace=cluster.id)])) for name in names]
    assert [[state.done for state in states] for states in asked] == [
        [True],
        [],
        [True, True],
        [],
    ]
    assert {state.id for state in asked[2]} == {one.id, f"{cluster.id}:1"}
    cluster.end(10)
    [state] = steps.ask(own, [Waiting(cluster.id, namespace=cluster.id)])
    assert (state.id, state.done) == (cluster.id, True)
    steps.close(own)

    application = serverless.application("ARM64")
    run = serverless.run(application, Attempt(dict(BILLED)))
    run.questions = 1
    runs = _botocore_emr_serverless.OPERATIONS["StartJobRun"].follow
    assert runs is not None
    own = runs.client(jobs)
    waiting = [Waiting(run.id, application, application)]
    [going], [ended] = list(runs.ask(own, waiting)), list(runs.ask(own, waiting))
    assert (going.done, ended.done) == (False, True)
    assert going.usage is not None
    assert ended.usage is not None
    assert (ended.usage.meters or {})["architecture"] == "arm64"
    assert serverless.aws.counts(serverless.service) == {"GetJobRun": 2, "GetApplication": 1}
    runs.close(own)

    job = containers.run(containers.cluster(), {"jobDriver": DRIVER}, state="FAILED")
    tells = _botocore_emr_containers.OPERATIONS["StartJobRun"].follow
    assert tells is not None
    own = tells.client(pods)
    [state] = tells.ask(own, [Waiting(job.id, job.cluster, job.cluster)])
    assert (state.done, state.error, state.within) == (True, "FAILED", job.cluster)
    job.state, job.seconds = "RUNNING", None
    [state] = tells.ask(own, [Waiting(job.id, job.cluster, job.cluster)])
    assert (state.done, state.usage) == (False, None)
    tells.close(own)
