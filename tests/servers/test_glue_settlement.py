"""`costinsights settle aws.glue` by unmodified boto3, against moto's server with figures."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights import asking
from costinsights.settlement import aws_glue
from costinsights.settlement.aws_glue import PAGE, GlueHistory
from costinsights.settlement.settling import settle
from tests.servers.aws_glue import ROLE, Glue
from tests.servers.aws_server import AWSServer, Refusal, aws_server
from tests.servers.charges import Charges, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

TEN_MINUTES = "0.146666666666667"  # of two DPUs
DAY = 86_400


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test; credentials are boto3's own; nobody waits."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(asking, "sleep", at_once)


def at_once(_: float) -> None:
    """Sleep no time."""


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def glue(server: AWSServer) -> Iterator[Glue]:
    glue = Glue(server)
    glue.job("orders")
    glue.seed("", questions=0)
    yield glue
    glue.close()


@pytest.fixture
def client(server: AWSServer, glue: Glue) -> Iterator[Any]:
    client = server.client("glue")
    yield client
    client.close()


def start(client: Any, ledger: Path, count: int = 1, job: str = "orders", **more: Any) -> list[str]:
    """Start runs in a program that does not wait for them."""
    with instrumented(ledger, "botocore"):
        return [client.start_job_run(JobName=job, **more)["JobRunId"] for _ in range(count)]


def settled(
    server: AWSServer, ledger: Path, *, now: datetime | None = None, hours: float = 3, **more: Any
) -> Settled:
    server.requests.clear()
    at = now or datetime.now(timezone.utc)
    options = {"regions": ["us-east-1"], "endpoint_url": server.url, **more.pop("options", {})}
    return settle(
        "aws.glue",
        at - timedelta(hours=hours),
        ledger=ledger,
        history=GlueHistory(options),
        now=at,
        **more,
    )


def latest(ledger: Path) -> dict[str | None, Charge]:
    found: dict[str, Charge] = {}
    for charge in Charges(ledger).entries():
        found[charge.charge_id] = charge
    return {charge.vendor_id: charge for charge in found.values()}


def later(hours: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(hours=hours)


# -- by id ------------------------------------------------------------------------------------------


def test_pending_runs_get_their_figures_in_as_few_calls_as_there_are_pages(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aws_glue, "PAGE", 20)
    glue.job("customers", WorkerType="G.2X", NumberOfWorkers=10)
    ids = start(client, tmp_path, 50)
    ids += start(client, tmp_path, job="customers")
    said: list[str] = []
    report = settled(server, tmp_path, said=said.extend)
    assert said == ["51 runs of 2 jobs, in us-east-1"]
    assert (report.found, report.settled, report.incomplete) == ({"id": 51}, 51, [])
    assert server.counts("glue") == {"GetJobRuns": 3, "GetJobRun": 1}
    assert report.requests == 4
    found = latest(tmp_path)
    assert set(found) == set(ids)
    assert {charge.amount for charge in found.values()} == {TEN_MINUTES, "1.466666666666667"}
    assert {charge.basis for charge in found.values()} == {"metered"}
    assert not any(charge.partial for charge in found.values())
    again = settled(server, tmp_path)
    assert (again.settled, again.added) == (0, 0)
    assert server.counts("glue") == {}


def test_few_among_many_are_asked_for_one_by_one(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    ids = start(client, tmp_path, 2)
    for _ in range(5 * PAGE):
        glue.run("orders", ago=-1)  # and since then many others
    assert settled(server, tmp_path).settled == 2
    # Two pages that had none of them cost no more than asking for each.
    assert server.counts("glue") == {"GetJobRuns": 2, "GetJobRun": 2}
    assert set(latest(tmp_path)) == set(ids)


def test_the_same_by_settlement_as_by_the_programs_own_questions(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    glue.job("flex", ExecutionClass="FLEX", WorkerType="G.2X", NumberOfWorkers=10)
    glue.seed("flex", questions=0, seconds=3600, dpu_seconds=36000.5)
    glue.job("old", GlueVersion="1.0", MaxCapacity=10.0)
    glue.seed("old", questions=0, seconds=7, state="FAILED")
    glue.job("ray", WorkerType="Z.2X", NumberOfWorkers=2)
    glue.job("new", GlueVersion="6.0")
    glue.job("odd", WorkerType="G.1X")
    glue.seed("odd", questions=0, changed={"WorkerType": "G.32X"})
    glue.job("broken")
    glue.seed("broken", questions=0, changed={"ExecutionTime": "ten"})
    jobs = ("orders", "flex", "old", "ray", "new", "odd", "broken")
    with instrumented(tmp_path / "alive", "botocore"):
        for job in jobs:
            id_ = client.start_job_run(JobName=job)["JobRunId"]
            client.get_job_run(JobName=job, RunId=id_)
    for job in jobs:
        start(client, tmp_path / "gone", job=job)
    report = settled(server, tmp_path / "gone")
    assert "ExecutionTime is 'ten', which is not a quantity" in report.unpriced
    assert any("workers alone has no price" in reason for reason in report.unpriced)

    def facts(ledger: Path) -> list[Any]:
        return [
            (
                charge.resource.namespace,
                charge.amount,
                charge.basis,
                charge.partial,
                charge.price and charge.price.key,
                charge.error and charge.error.type,
                {name: value for name, value in charge.usage.items() if name != "time_ns"},
            )
            for charge in latest(ledger).values()
        ]

    assert facts(tmp_path / "gone") == facts(tmp_path / "alive")


def test_what_still_runs_is_settled_so_far_and_again(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    glue.seed("orders", questions=1, so_far=300)
    start(client, tmp_path)
    report = settled(server, tmp_path)
    assert (report.settled, report.running) == (0, 1)
    (charge,) = latest(tmp_path).values()
    assert (charge.amount, charge.partial) == ("0.073333333333333", True)
    assert settled(server, tmp_path).settled == 1
    (charge,) = latest(tmp_path).values()
    assert (charge.amount, charge.partial, charge.basis) == (TEN_MINUTES, False, "metered")


def test_what_has_not_begun_is_left(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    glue.seed("orders", questions=10**6)
    start(client, tmp_path)
    assert settled(server, tmp_path).settled == 0
    (charge,) = latest(tmp_path).values()
    assert (charge.amount, charge.partial, charge.revision) == (None, True, 0)


def test_what_glue_no_longer_knows_is_said_and_not_dropped(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    glue.job("deleted")
    glue.crawler("lake")
    start(client, tmp_path)
    start(client, tmp_path, 3, job="deleted")
    with instrumented(tmp_path, "botocore"):
        client.start_crawler(Name="lake")
        client.create_session(Id="etl", Role=ROLE, Command={"Name": "glueetl"})
    for name in ("orders", "deleted", "lake", "session"):
        glue.forget(name)
    client.delete_job(JobName="deleted")
    glue.deleted("Job", "deleted")
    report = settled(server, tmp_path, now=later(2), hours=4)
    assert (report.settled, report.lost) == (0, 6)
    said = {str(charge.usage["lost"]) for charge in latest(tmp_path).values()}
    assert said == {
        "Glue no longer has a run of this id",
        "Glue no longer has this job, and so none of its runs",
        "Glue has no crawl that began then",
        "Glue no longer has this session, or another one has its name",
    }
    assert all(charge.partial for charge in latest(tmp_path).values())
    settled(server, tmp_path, now=later(2), hours=4)
    assert server.counts("glue") == {}


def test_a_run_elsewhere_is_said(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    start(client, tmp_path)
    report = settled(server, tmp_path, options={"regions": ["eu-west-1"]})
    assert (report.settled, report.requests) == (0, 0)
    assert "1 runs went to us-east-1" in report.incomplete[0]


# -- crawls, sessions, workflows --------------------------------------------------------------------


def test_crawls_sessions_and_statements(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    glue.crawler("lake")
    glue.crawl("lake", ago=300)
    glue.seed("lake", questions=0, seconds=1800, dpu_hours=1.0)
    glue.seed("session", questions=0, seconds=1440.0)
    glue.seed("1/0", questions=0, state="ERROR", seconds=2)
    with instrumented(tmp_path, "botocore"):
        client.start_crawler(Name="lake")
        command = {"Name": "glueetl"}
        size = {"WorkerType": "G.1X", "NumberOfWorkers": 5}
        client.create_session(Id="etl", Role=ROLE, Command=command, **size)
        with costinsights.attribute(asset="orders"):
            client.run_statement(SessionId="etl", Code="1 + 1")
        client.run_statement(SessionId="etl", Code="1/0")
    crawl = glue.crawl("lake", ago=150)
    said: list[str] = []
    report = settled(server, tmp_path, said=said.extend)
    assert said == ["1 crawls of 1 crawlers, 1 sessions, 2 statements, in us-east-1"]
    assert report.settled == 4
    assert server.counts("glue") == {"ListCrawls": 1, "GetSession": 1, "ListStatements": 1}
    found = latest(tmp_path)
    amounts = {charge.operation: charge.amount for charge in found.values()}
    assert amounts == {
        "CRAWL": "0.440000000000000",
        "SESSION": "0.880000000000000",
        "STATEMENT": "0.000000000000000",
    }
    assert found["etl:0"].attribution["asset"] == "orders"
    assert found["etl:1"].usage["statement_run_seconds"] == 2
    assert (found["etl:1"].error and found["etl:1"].error.type) == "ERROR"
    # The crawl's own id from now on: with --all it is not counted again.
    assert crawl not in found
    assert not any("@" in str(id_) for id_, one in found.items() if one.operation == "CRAWL")
    report = settled(server, tmp_path, all=True)
    assert (report.settled, report.added) == (0, 2)
    assert crawl in latest(tmp_path)
    assert settled(server, tmp_path, all=True).added == 0


def test_a_statement_of_a_session_that_has_ended_is_in_its_price(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    with instrumented(tmp_path, "botocore"):
        client.create_session(Id="etl", Role=ROLE, Command={"Name": "glueetl"}, MaxCapacity=2.0)
        client.run_statement(SessionId="etl", Code="1 + 1")
    server.refuse("glue", "ListStatements", Refusal("IllegalSessionStateException"))
    assert settled(server, tmp_path).settled == 2
    amounts = {charge.operation: charge.amount for charge in latest(tmp_path).values()}
    assert amounts == {"SESSION": TEN_MINUTES, "STATEMENT": "0.000000000000000"}


def test_data_quality_in_batches(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    glue.seed("quality", questions=0, seconds=360)
    table = {"GlueTable": {"DatabaseName": "lake", "TableName": "orders"}}
    evaluation = {"DataSource": table, "Role": ROLE, "RulesetNames": ["good"]}
    with instrumented(tmp_path, "botocore"):
        for _ in range(3):
            client.start_data_quality_ruleset_evaluation_run(**evaluation)
        client.start_data_quality_rule_recommendation_run(DataSource=table, Role=ROLE)
    client.start_data_quality_ruleset_evaluation_run(**evaluation)
    glue.of("quality").pop(0)
    report = settled(server, tmp_path)
    assert report.settled == 3
    assert server.counts("glue") == {
        "BatchGetDataQualityRulesetEvaluationRun": 1,
        "GetDataQualityRuleRecommendationRun": 1,
    }
    report = settled(server, tmp_path, all=True)
    assert (report.settled, report.added) == (0, 1)
    amounts = sorted(charge.amount or "" for charge in latest(tmp_path).values())
    assert amounts == ["", *["0.220000000000000"] * 3, "0.366666666666667"]


def test_a_workflow_run_is_the_sum_of_what_it_started(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    glue.job("small", MaxCapacity=0.0625, Command={"Name": "pythonshell"})
    glue.seed("small", questions=0, seconds=3)
    glue.job("flex", ExecutionClass="FLEX")
    glue.crawler("lake")
    glue.seed("lake", questions=0, seconds=60, dpu_hours=0.05)
    glue.workflow("nightly")
    with instrumented(tmp_path, "botocore"), costinsights.attribute(job="nightly"):
        id_ = client.start_workflow_run(Name="nightly")["RunId"]
    glue.adopt("nightly", "orders", "small", "flex", "lake")
    alone = glue.run("orders", ago=30)
    report = settled(server, tmp_path)
    assert (report.settled, report.outside) == (1, 0)
    assert server.counts("glue") == {"GetWorkflowRun": 1, "ListCrawls": 1}
    (charge,) = latest(tmp_path).values()
    # Each with its own minimum and its own price: two DPUs for ten minutes; a sixteenth for one
    # minute, not for three seconds; two of Flex; three of a crawler for ten minutes, not for one.
    wanted = sum(
        Decimal(part)
        for part in (TEN_MINUTES, "0.000458333333333", "0.096666666666667", "0.220000000000000")
    )
    assert (charge.vendor_id, charge.amount, charge.basis) == (id_, f"{wanted}", "metered")
    assert charge.attribution["job"] == "nightly"
    assert charge.usage["runs"] == 4
    assert charge.usage["run_seconds"] == 600 + 3 + 600
    # The children are the workflow's, also with --all; what runs by itself is not.
    report = settled(server, tmp_path, all=True)
    assert (report.settled, report.added) == (0, 1)
    assert set(latest(tmp_path)) == {id_, alone}
    assert settled(server, tmp_path, all=True).added == 0


def test_a_workflow_that_goes_on_or_started_nothing(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    glue.workflow("nightly")
    glue.seed("orders", questions=1, so_far=300)
    with instrumented(tmp_path, "botocore"):
        client.start_workflow_run(Name="nightly")
    glue.adopt("nightly", "orders")
    report = settled(server, tmp_path)
    assert (report.running, report.settled) == (1, 0)
    (charge,) = latest(tmp_path).values()
    assert (charge.partial, charge.amount) == (True, "0.073333333333333")
    with instrumented(tmp_path, "botocore"):
        empty = client.start_workflow_run(Name="nightly")["RunId"]
    assert settled(server, tmp_path).settled == 2
    found = latest(tmp_path)
    assert found.pop(empty).amount == "0.000000000000000"
    (charge,) = found.values()
    assert (charge.partial, charge.amount) == (False, TEN_MINUTES)


def test_a_child_that_nobody_can_price_leaves_the_workflow_unknown(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    glue.workflow("nightly")
    glue.seed("orders", questions=0, changed={"ExecutionTime": "ten"})
    with instrumented(tmp_path, "botocore"):
        client.start_workflow_run(Name="nightly")
    glue.adopt("nightly", "orders")
    settled(server, tmp_path)
    (charge,) = latest(tmp_path).values()
    assert (charge.amount, charge.basis, charge.partial) == (None, "unknown", False)
    assert charge.usage["unpriced"] == "ExecutionTime is 'ten', which is not a quantity"


# -- of nobody --------------------------------------------------------------------------------------


def test_runs_of_nobody_with_all(
    server: AWSServer, glue: Glue, client: Any, tmp_path: Path
) -> None:
    for _ in range(5 * PAGE):  # of a week that nobody asks about
        glue.run("orders", ago=7 * DAY)
    start(client, tmp_path)
    glue.trigger("hourly", "orders")
    client.start_trigger(Name="hourly")
    first = glue.run("orders", ago=600)
    retried = glue.run("orders", ago=300, Attempt=1, PreviousRunId=first)
    long = glue.run("orders", ago=DAY)
    glue.of("orders")[-1].figures.seconds = DAY - 60
    alone = settled(server, tmp_path)
    assert (alone.settled, alone.added) == (1, 0)
    report = settled(server, tmp_path, all=True)
    assert (report.settled, report.added) == (0, 4)
    # The list is not read to its end: newest first, until what comes is too old.
    assert server.counts("glue")["GetJobRuns"] == 1
    found = latest(tmp_path)
    assert {first, retried, long} <= set(found)
    assert found[retried].amount == TEN_MINUTES  # an attempt is a run of its own
    labels = [charge.attribution for charge in found.values()]
    assert {"job": "orders", "trigger": "hourly", "rule": "history"} in labels
    assert settled(server, tmp_path, all=True).added == 0


def test_only_the_jobs_that_are_named(server: AWSServer, glue: Glue, tmp_path: Path) -> None:
    glue.job("customers")
    glue.run("orders", ago=60)
    glue.run("customers", ago=60)
    report = settled(server, tmp_path, all=True, options={"jobs": ["customers"]})
    assert report.added == 1
    assert "ListJobs" not in server.counts("glue")


# -- faults -----------------------------------------------------------------------------------------


def test_throttling_and_what_passes_is_waited_for(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    start(client, tmp_path)
    server.refuse(
        "glue",
        "GetJobRun",
        Refusal("ThrottlingException"),
        Refusal("TooManyRequestsException", status=429, headers=(("Retry-After", "1"),)),
        Refusal("InternalServiceException", status=500),
        Refusal("OperationTimeoutException"),
    )
    report = settled(server, tmp_path)
    assert (report.settled, report.requests) == (1, 5)


def test_without_permission_it_says_which(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    start(client, tmp_path)
    server.refuse("glue", "GetJobRun", Refusal("AccessDeniedException", "secret arn"))
    with pytest.raises(Exception, match="no permission to read get_job_run") as error:
        settled(server, tmp_path)
    assert "glue:GetJobRun" in getattr(error.value, "grant", "")
    assert settled(server, tmp_path).settled == 1


def test_an_error_half_way_loses_nothing(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    start(client, tmp_path, 3)
    glue.job("customers")
    start(client, tmp_path, job="customers")
    server.refuse("glue", "GetJobRun", *(Refusal("InvalidInputException"),))
    report = settled(server, tmp_path)
    assert (report.settled, "InvalidInputException" in report.failed) == (3, True)
    assert settled(server, tmp_path).settled == 1
    assert {charge.amount for charge in latest(tmp_path).values()} == {TEN_MINUTES}


def test_a_page_token_that_comes_again_ends_the_list(
    server: AWSServer, client: Any, glue: Glue, tmp_path: Path
) -> None:
    start(client, tmp_path)
    glue.turning = True
    report = settled(server, tmp_path, all=True)
    assert report.settled == 1
    assert any("for the second time" in why for why in report.incomplete)


SCRIPT = """
import json, sys
import boto3, costinsights
access, ledger = json.loads(sys.argv[1]), sys.argv[2]
costinsights.instrument(ledger=ledger, exporters=[])
client = boto3.client("glue", **access)
client.start_job_run(JobName="orders")
client.start_crawler(Name="lake")
import os; os._exit(9)
"""


def test_who_comes_later_settles_what_another_process_began(
    server: AWSServer, glue: Glue, tmp_path: Path
) -> None:
    glue.crawler("lake")
    program = [sys.executable, "-c", SCRIPT, json.dumps(server.access), str(tmp_path)]
    assert subprocess.run(program, check=False).returncode == 9
    assert settled(server, tmp_path).settled == 2
    assert sum(Decimal(charge.amount or 0) for charge in latest(tmp_path).values()) == Decimal(
        "0.256666666666667"
    )
