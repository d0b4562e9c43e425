"""`costinsights settle aws.emr`, by unmodified boto3."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import emr_fixtures
from tests.servers.aws_emr import EMR, Instance
from tests.servers.aws_server import MODELS, AWSServer, Refusal
from tests.servers.charges import instrumented
from tests.servers.emr_runs import (
    HOUR,
    R5,
    REGION,
    STEPS,
    amount_of,
    idle_of,
    latest,
    launch,
    near,
    settled,
)

if TYPE_CHECKING:
    from pathlib import Path


environment, server = emr_fixtures.environment, emr_fixtures.server
emr, client = emr_fixtures.emr, emr_fixtures.client


def test_a_cluster_is_its_steps_and_idle(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path)
    first, second = cluster.steps
    first.started, first.ended = 600, 1500
    second.started, second.ended, second.state = 1500, 3300, "FAILED"
    cluster.end(HOUR)
    cluster.normalized_hours = 96
    said: list[str] = []
    report = settled("aws.emr", server, tmp_path, said=said.extend)
    assert said == [f"3 steps and clusters by id in {REGION}, of 1 clusters"]
    assert server.counts(emr.service) == {
        "DescribeCluster": 1,
        "ListSteps": 1,
        "ListInstances": 1,
    }
    assert (report.settled, report.found, report.failed) == (3, {"id": 3}, "")
    found = latest(tmp_path)
    whole = 4 * R5
    one, two, itself = found[first.id], found[second.id], found[cluster.id]
    assert {charge.basis for charge in (one, two, itself)} == {"allocated"}
    assert amount_of(itself) == 0
    assert itself.usage["normalized_instance_hours"] == 96
    assert two.error is not None
    assert float(amount_of(one)) == pytest.approx(float(whole) / 4, rel=1e-3)
    assert float(amount_of(two)) == pytest.approx(float(whole) / 2, rel=1e-3)
    assert near(amount_of(one) + amount_of(two) + idle_of(found), whole)
    assert (one.usage["step_seconds"], one.usage["queue_seconds"]) == (900, 600)
    again = settled("aws.emr", server, tmp_path)
    assert (again.settled, again.added, again.idle) == (0, 0, 0)
    assert server.counts(emr.service) == {}
    # What `--all` finds are the same steps, by whichever name.
    every = settled("aws.emr", server, tmp_path, all=True)
    assert (every.outside, every.added) == (0, 0)
    assert latest(tmp_path).keys() == found.keys()


def test_steps_that_waited_for_hours_are_found(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path, steps=0)
    with instrumented(tmp_path, "botocore"):
        client.add_job_flow_steps(JobFlowId=cluster.id, Steps=STEPS)
        [step] = cluster.steps
        step.started, step.ended = 4 * HOUR, 5 * HOUR
        client.describe_step(ClusterId=cluster.id, StepId=step.id)
    assert "unpriced" in latest(tmp_path)[step.id].usage
    cluster.end(5 * HOUR)
    settled("aws.emr", server, tmp_path)
    found = latest(tmp_path)
    assert near(amount_of(found[step.id]), 4 * R5)
    assert near(idle_of(found), 16 * R5)
    assert "unpriced" not in found[step.id].usage
    assert found[step.id].usage["queue_seconds"] == pytest.approx(4 * HOUR, abs=5)


def test_what_ran_beside_takes_its_share_and_is_nobodys(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path, steps=1)
    cluster.steps[0].started, cluster.steps[0].ended = 0, HOUR
    other = emr.step(cluster, 0, started=0, ended=HOUR)
    never = emr.step(cluster, 0, ended=HOUR + 600, state="CANCELLED")
    cluster.end(HOUR)
    report = settled("aws.emr", server, tmp_path)
    assert (report.outside, report.added) == (2, 0)
    found = latest(tmp_path)
    assert near(amount_of(found[cluster.steps[0].id]), 2 * R5)
    assert other.id not in found
    assert settled("aws.emr", server, tmp_path, all=True).added == 2
    found = latest(tmp_path)
    assert near(amount_of(found[other.id]), 2 * R5)
    assert (found[never.id].amount, found[never.id].basis) == ("0.000000000000000", "allocated")


def test_shares_by_core_seconds_where_they_are_counted(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DATA_PATH", str(MODELS))  # else it is not told of applications
    ledger, counts = tmp_path / "ledger", tmp_path / "cores.json"
    cluster = launch(client, emr, ledger)
    for step, name in zip(cluster.steps, ("application_1_0001", "application_1_0002"), strict=True):
        step.started, step.ended, step.applications = 0, HOUR, (name,)
    cluster.end(HOUR)
    counts.write_text('{"application_1_0001": 1000.0, "application_1_0002": 3000}')
    options = {"core_seconds": str(counts)}
    settled("aws.emr", server, ledger, options=options)
    found = latest(ledger)
    shares = [float(amount_of(found[step.id])) for step in cluster.steps]
    assert shares == pytest.approx([float(R5), float(3 * R5)], rel=1e-12)
    counts.write_text('{"application_1_0001": "many"}')
    with pytest.raises(Exception, match="'application_1_0001' is not a number"):
        settled("aws.emr", server, ledger, options=options)
    counts.write_text('{"application_1_0001": 1}')
    ledger = tmp_path / "again"
    cluster = launch(client, emr, ledger)
    cluster.steps[0].applications = ("application_1_0001",)
    for step in cluster.steps:
        step.started, step.ended = 0, HOUR
    cluster.end(HOUR)
    report = settled("aws.emr", server, ledger, options=options)
    assert "nobody has counted" in report.incomplete[0]


def test_a_machine_that_came_for_one_step_is_that_ones(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path)
    first, second = cluster.steps
    first.started, first.ended = 0, 2 * HOUR
    second.started, second.ended = 2 * HOUR, 4 * HOUR
    cluster.instances += [Instance("r5.4xlarge", 2 * HOUR, 4 * HOUR) for _ in range(96)]
    cluster.end(4 * HOUR)
    settled("aws.emr", server, tmp_path)
    found = latest(tmp_path)
    assert server.counts(emr.service)["ListInstances"] == 2
    assert float(amount_of(found[first.id])) == pytest.approx(float(8 * R5), rel=0.06)
    total = amount_of(found[first.id]) + amount_of(found[second.id]) + idle_of(found)
    assert near(total, 16 * R5 + 192 * R5)


def test_a_minute_is_the_least_and_seconds_are_whole(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path, steps=1)
    cluster.steps[0].started, cluster.steps[0].ended = 0, 10
    cluster.instances = [Instance("r5.4xlarge", 0, 10), Instance("r5.4xlarge", 0, 70.5)]
    cluster.end(70.5)
    settled("aws.emr", server, tmp_path)
    found = latest(tmp_path)
    total = amount_of(found[cluster.steps[0].id]) + idle_of(found)
    assert float(total) == pytest.approx(float(R5 * (60 + 71) / HOUR), rel=1e-9)


def test_spot_machines_without_a_price_leave_emrs_part(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path, steps=1)
    cluster.steps[0].started, cluster.steps[0].ended = 0, HOUR
    cluster.instances = [Instance("r5.4xlarge", 0), Instance("r5.4xlarge", 0, market="SPOT")]
    cluster.end(HOUR)
    report = settled("aws.emr", server, tmp_path)
    assert near(amount_of(latest(tmp_path)[cluster.steps[0].id]), R5 + Decimal("0.252"))
    [reason] = report.unpriced
    assert "ec2_instance_seconds" in reason
    assert "market=spot" in reason
    own = tmp_path / "own.toml"
    own.write_text(
        '[[price]]\nkey = "own.spot/us-west-2"\nprovider = "aws"\nservice = "Amazon EC2"\n'
        'system = "aws.emr"\nmeter = "ec2_instance_seconds"\nregion = "us-west-2"\n'
        'dims = { instance_type = "r5.4xlarge", market = "spot" }\nunit = "instance-hour"\n'
        'price = "0.40"\ncurrency = "USD"\nas_of = "2026-11"\nsource = "our spot history"\n'
    )
    again = tmp_path / "again"
    cluster = launch(client, emr, again, steps=1)
    cluster.steps[0].started, cluster.steps[0].ended = 0, HOUR
    cluster.instances = [Instance("r5.4xlarge", 0, market="SPOT")]
    cluster.end(HOUR)
    report = settled("aws.emr", server, again, config={"price_books": [str(own)]})
    assert report.unpriced == {}
    assert near(amount_of(latest(again)[cluster.steps[0].id]), Decimal("0.652"))


def test_what_goes_on_is_left_for_later(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path)
    first, second = cluster.steps
    first.started, first.ended = 10, 1800
    report = settled("aws.emr", server, tmp_path, hours=0.01)
    assert report.settled == 0
    assert all(one.partial for one in latest(tmp_path).values() if one.operation != "IDLE")
    # An hour later its slice is whole; the second step and the cluster go on.
    settled("aws.emr", server, tmp_path, hours=3)
    found = latest(tmp_path)
    assert found[first.id].basis == "allocated"
    assert found[f"{cluster.id}:2"].partial
    assert found[cluster.id].partial
    second.started, second.ended = 4 * HOUR, 5 * HOUR
    cluster.end(5 * HOUR)
    settled("aws.emr", server, tmp_path)
    found = latest(tmp_path)
    total = amount_of(found[first.id]) + amount_of(found[second.id]) + idle_of(found)
    assert near(total, 20 * R5)


def test_hours_that_cannot_be_told(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cases = {
        "an instance without its type": [Instance(None, 0)],
        "an instance without the time of its creation": [Instance("r5.4xlarge", None)],
        "EMR lists no instance of its cluster": [],
    }
    steps: dict[str, str] = {}
    for problem, instances in cases.items():
        cluster = launch(client, emr, tmp_path, steps=1)
        cluster.steps[0].started, cluster.steps[0].ended = 0, HOUR
        cluster.instances = instances
        cluster.end(HOUR)
        steps[problem] = cluster.steps[0].id
    report = settled("aws.emr", server, tmp_path)
    found = latest(tmp_path)
    for problem, id_ in steps.items():
        assert (found[id_].amount, found[id_].basis) == (None, "unknown")
        assert problem in str(found[id_].usage["unpriced"])
        assert found[id_].usage["step_seconds"] == HOUR
    assert report.failed == ""


def test_another_machine_type_has_no_price(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path, steps=1)
    cluster.steps[0].started, cluster.steps[0].ended = 0, HOUR
    cluster.instances.append(Instance("x9.imaginary", 0))
    cluster.end(HOUR)
    report = settled("aws.emr", server, tmp_path)
    assert latest(tmp_path)[cluster.steps[0].id].amount is None
    assert any("x9.imaginary" in reason for reason in report.unpriced)


def test_a_cluster_that_emr_no_longer_knows(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path, steps=1)
    with instrumented(tmp_path, "botocore"):
        client.add_job_flow_steps(JobFlowId=cluster.id, Steps=STEPS)
    emr.clusters.clear()
    settled("aws.emr", server, tmp_path)
    found = latest(tmp_path)
    assert len(found) == 3
    assert all("no longer knows" in str(one.usage["lost"]) for one in found.values())
    settled("aws.emr", server, tmp_path)
    assert server.counts(emr.service) == {}


def test_many_steps_take_as_many_calls_as_their_list_has_pages(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path, steps=120)
    for number, step in enumerate(cluster.steps):
        step.started, step.ended = 30 * number, 30 * number + 30
    cluster.end(HOUR)
    report = settled("aws.emr", server, tmp_path)
    assert report.settled == 121
    assert server.counts(emr.service) == {
        "DescribeCluster": 1,
        "ListSteps": 3,
        "ListInstances": 1,
    }
    found = latest(tmp_path)
    assert near(sum((amount_of(one) for one in found.values()), start=Decimal(0)), 4 * R5)


def test_pages_that_come_round_again_are_said(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    cluster = launch(client, emr, tmp_path, steps=1)
    cluster.steps[0].started, cluster.steps[0].ended = 0, HOUR
    cluster.end(HOUR)
    answers = cluster.instances[0].answer(cluster.begun)
    server.answer(
        emr.service, "ListInstances", lambda _: {"Instances": [answers], "Marker": "again"}
    )
    report = settled("aws.emr", server, tmp_path)
    assert any("for the second time" in said for said in report.incomplete)


def test_throttling_is_waited_for_and_a_permission_is_named(
    client: Any, server: AWSServer, emr: EMR, tmp_path: Path
) -> None:
    operation = "ListSteps"
    cluster = launch(client, emr, tmp_path, steps=1)
    cluster.steps[0].started, cluster.steps[0].ended = 0, HOUR
    cluster.end(HOUR)
    server.refuse(emr.service, operation, Refusal("AccessDeniedException", "secret arn"))
    with pytest.raises(Exception, match="no permission to read") as error:
        settled("aws.emr", server, tmp_path)
    assert f"elasticmapreduce:{operation}" in getattr(error.value, "grant", "")
    server.refuse(emr.service, operation, Refusal("ThrottlingException"), Refusal("X", status=503))
    assert settled("aws.emr", server, tmp_path).settled == 2
    assert server.counts(emr.service)[operation] == 3
