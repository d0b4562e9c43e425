"""Glue by unmodified boto3, against moto's server with figures: one charge a run, no request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

import costinsights
from costinsights import background, following
from costinsights.ledger.reader import read_ledger
from costinsights.pricing import PriceBook
from costinsights.systems import aws_glue
from tests.servers.aws_glue import ROLE, Glue
from tests.servers.aws_server import AWSServer, Refusal, aws_server
from tests.servers.charges import Charges, instrumented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "s3cr3t-77ac"
STARTED = "0.146666666666667"  # two DPUs for ten minutes
FREE = "0.000000000000000"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def glue(server: AWSServer) -> Iterator[Glue]:
    glue = Glue(server)
    glue.job("orders")
    server.requests.clear()
    yield glue
    glue.close()


@pytest.fixture
def client(server: AWSServer, glue: Glue) -> Iterator[Any]:
    """A client that was made before anything was instrumented."""
    client = server.client("glue")
    yield client
    client.close()


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "botocore") as charges:
        yield charges


def start(client: Any, job: str = "orders", **more: Any) -> str:
    id_: str = client.start_job_run(JobName=job, **more)["JobRunId"]
    return id_


def wait(client: Any, id_: str, job: str = "orders") -> str:
    while True:
        found: dict[str, Any] = client.get_job_run(JobName=job, RunId=id_)["JobRun"]
        if found["JobRunState"] != "RUNNING":
            return str(found["JobRunState"])


def used(charge: Any) -> dict[str, Any]:
    return {name: value for name, value in charge.usage.items() if name != "time_ns"}


# -- job runs ---------------------------------------------------------------------------------------


def test_a_job_run_is_one_charge_that_its_end_completes(
    client: Any, glue: Glue, charges: Charges
) -> None:
    glue.seed("orders", seconds=900, questions=2)
    with costinsights.attribute(asset="orders", team="sales"):
        id_ = start(client, Arguments={"--password": SECRET})
    pending = charges.one()
    assert (pending.system, pending.instrumentor) == ("aws.glue", "botocore")
    assert (pending.vendor_id, pending.partial, pending.amount) == (id_, True, None)
    assert (pending.operation, pending.statement) == ("JOB", None)
    assert (pending.resource.address, pending.resource.namespace) == ("127.0.0.1", "orders")
    assert pending.resource.region == "us-east-1"
    assert wait(client, id_) == "SUCCEEDED"
    charge = charges.one()
    assert (charge.charge_id, charge.revision, charge.partial) == (pending.charge_id, 1, False)
    assert (charge.amount, charge.basis) == ("0.220000000000000", "metered")
    assert charge.price is not None
    assert charge.price.key == "aws.glue.etl.standard/us-east-1"
    assert used(charge) == {"execution_seconds": 900, "workers": 2, "worker_type": "G.1X"}
    assert charge.attribution["asset"] == "orders"
    assert SECRET not in charges.text()
    wait(client, id_)
    client.get_job_runs(JobName="orders")
    assert charges.new() == []


@pytest.mark.parametrize(
    ("job", "figures", "amount"),
    [
        # A minute at least, and whole seconds.
        ({}, {"seconds": 7}, "0.014666666666667"),
        ({}, {"seconds": 0, "state": "EXPIRED"}, FREE),
        ({"WorkerType": "G.025X", "NumberOfWorkers": 2}, {"seconds": 3600}, "0.220000000000000"),
        ({"WorkerType": "G.16X", "NumberOfWorkers": 2}, {"seconds": 3600}, "14.080000000000000"),
        # What failed, was stopped or took too long costs what it used.
        ({}, {"state": "FAILED"}, STARTED),
        ({}, {"state": "STOPPED"}, STARTED),
        ({}, {"state": "TIMEOUT"}, STARTED),
        ({}, {"state": "ERROR"}, STARTED),
        # Python shell: a sixteenth of a DPU, or one; of any version, a minute at least.
        (
            {"MaxCapacity": 0.0625, "Command": {"Name": "pythonshell"}, "GlueVersion": "3.0"},
            {"seconds": 3600},
            "0.027500000000000",
        ),
        (
            {"MaxCapacity": 1.0, "Command": {"Name": "pythonshell"}, "GlueVersion": "1.0"},
            {"seconds": 7},
            "0.007333333333333",
        ),
        # Spark of Glue 1.0: ten minutes at least.
        ({"MaxCapacity": 10.0, "GlueVersion": "1.0"}, {"seconds": 7}, "0.733333333333333"),
        (
            {"WorkerType": "G.1X", "NumberOfWorkers": 10, "GlueVersion": "0.9"},
            {"seconds": 601},
            "0.734555555555556",
        ),
        # Flex and auto scaling: what Glue itself has counted.
        (
            {"ExecutionClass": "FLEX", "NumberOfWorkers": 10, "WorkerType": "G.2X"},
            {"seconds": 3600, "dpu_seconds": 36000.5},
            "2.900040277777778",
        ),
        (
            {"ExecutionClass": "FLEX", "NumberOfWorkers": 10, "WorkerType": "G.2X"},
            {"seconds": 3600},
            "5.800000000000000",
        ),
        (
            {"DefaultArguments": {"--enable-auto-scaling": "true"}},
            {"seconds": 3600, "dpu_seconds": 1800.25},
            "0.220030555555556",
        ),
        # Memory-optimised workers, Ray, and Glue 6.0 have prices of their own.
        ({"WorkerType": "R.4X", "NumberOfWorkers": 3}, {"seconds": 3600}, "6.240000000000000"),
        (
            {"WorkerType": "R.4X", "NumberOfWorkers": 3},
            {"seconds": 3600, "dpu_seconds": 3600.0},
            "0.520000000000000",
        ),
        ({"WorkerType": "Z.2X", "NumberOfWorkers": 2}, {"seconds": 3600}, "1.760000000000000"),
        ({"GlueVersion": "6.0"}, {"seconds": 3600}, "0.616000000000000"),
        ({"GlueVersion": "6.0", "ExecutionClass": "FLEX"}, {"seconds": 3600}, "0.406000000000000"),
        # A worker type that nobody knows: DPUs as Glue states them.
        (
            {"WorkerType": "G.1X", "NumberOfWorkers": 2},
            {"seconds": 3600, "changed": {"WorkerType": "G.32X", "MaxCapacity": 64.0}},
            "28.160000000000000",
        ),
    ],
)
def test_what_is_billed(
    client: Any,
    glue: Glue,
    charges: Charges,
    job: dict[str, Any],
    figures: dict[str, Any],
    amount: str,
) -> None:
    glue.job("this one", **job)
    glue.seed("this one", **figures)
    state = wait(client, start(client, "this one"), "this one")
    charge = charges.one()
    assert (charge.amount, charge.currency, charge.basis) == (amount, "USD", "metered")
    assert (charge.error.type if charge.error is not None else None) == (
        None if state == "SUCCEEDED" else state
    )
    assert "unpriced" not in charge.usage
    assert "reason" not in charges.text()


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"changed": {"ExecutionTime": "ten"}}, "ExecutionTime is 'ten', which is not a quantity"),
        ({"changed": {"ExecutionTime": "600"}}, "ExecutionTime is '600', which is not a quantity"),
        ({"changed": {"ExecutionTime": True}}, "ExecutionTime is True, which is not a quantity"),
        ({"changed": {"ExecutionTime": -4}}, "ExecutionTime is -4, which is not a quantity"),
        ({"changed": {"ExecutionTime": 10**400}}, "which is not a quantity"),
        ({"changed": {"DPUSeconds": float("nan")}}, "DPUSeconds is nan, which is not a quantity"),
        ({"changed": {"NumberOfWorkers": "2"}}, "NumberOfWorkers is '2'"),
        ({"changed": {"ExecutionTime": None}}, "ExecutionTime is missing"),
        (
            {"changed": {"NumberOfWorkers": None}},
            "neither MaxCapacity nor NumberOfWorkers and WorkerType",
        ),
        ({"changed": {"WorkerType": None}}, "neither MaxCapacity nor"),
        ({"changed": {"JobRunState": "PAUSED"}}, "JobRunState is 'PAUSED', which nobody knows"),
        ({"changed": {"GlueVersion": "next"}}, "GlueVersion is 'next'"),
        (
            {"changed": {"Arguments": {"--enable-auto-scaling": "true"}}},
            "auto scaling is on, and DPUSeconds is missing",
        ),
    ],
)
def test_an_answer_that_is_not_as_it_should_be(
    client: Any, glue: Glue, charges: Charges, figures: dict[str, Any], said: str
) -> None:
    glue.seed("orders", questions=0, **figures)
    id_ = start(client)
    client.get_job_run(JobName="orders", RunId=id_)
    charge = charges.one()
    assert (charge.amount, charge.basis, charge.partial) == (None, "unknown", False)
    assert said in str(charge.usage["unpriced"])
    assert len(used(charge)) > 1  # what figures there were


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"WorkerType": "G.32X"}, "workers alone has no price: dpus takes workers and worker_type"),
        ({"ExecutionClass": "TURBO"}, "execution_class (standard, flex)"),
        ({"GlueVersion": "7.0"}, "generation (gen1, gen2)"),
    ],
)
def test_what_the_price_book_does_not_know_is_unknown_and_said(
    client: Any,
    glue: Glue,
    charges: Charges,
    caplog: pytest.LogCaptureFixture,
    changed: dict[str, Any],
    said: str,
) -> None:
    glue.seed("orders", changed=changed)
    wait(client, start(client))
    charge = charges.one()
    assert (charge.amount, charge.basis, charge.partial) == (None, "unknown", False)
    assert used(charge)["execution_seconds"] == 600
    assert any(said in record.getMessage() for record in caplog.records)


def test_a_worker_type_of_the_users_own_rule(client: Any, glue: Glue, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        """
        [[rule]]
        name = "aws.glue.workers"
        system = "aws.glue"
        meter = "dpus"
        terms = [
            { meter = "workers" },
            { dimension = "worker_type", table = { "G.1X" = "1", "G.32X" = "32" } },
        ]
        source = "our account manager"
        """
    )
    glue.seed("orders", seconds=3600, questions=0, changed={"WorkerType": "G.32X"})
    costinsights.instrument(
        "botocore", ledger=tmp_path / "ledger", exporters=[], price_book=str(own)
    )
    try:
        wait(client, start(client))
        assert Charges(tmp_path / "ledger").one().amount == "28.160000000000000"
    finally:
        costinsights.uninstrument()


def test_whether_a_failed_run_is_billed_is_a_rule(client: Any, glue: Glue, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        """
        [[rule]]
        name = "aws.glue.job_run"
        system = "aws.glue"
        meter = "dpu_seconds"
        terms = [
            { meter = "dpus" },
            { meter = "execution_seconds", minimum = "60", increment = "1" },
            { dimension = "ended", table = { "FAILED" = "0" }, default = "1" },
        ]
        source = "our bill of October"
        """
    )
    glue.job("bad")
    glue.job("late")
    glue.seed("bad", state="FAILED")
    glue.seed("late", state="TIMEOUT")
    costinsights.instrument(
        "botocore", ledger=tmp_path / "ledger", exporters=[], price_book=str(own)
    )
    try:
        for job in ("orders", "bad", "late"):
            wait(client, start(client, job), job)
        amounts = [charge.amount for charge in Charges(tmp_path / "ledger").new()]
        assert amounts == [STARTED, FREE, STARTED]
    finally:
        costinsights.uninstrument()


def test_a_region_without_prices_is_unknown(
    server: AWSServer, glue: Glue, charges: Charges, caplog: pytest.LogCaptureFixture
) -> None:
    client = server.client("glue", region_name="mars-north-1")
    for _ in range(3):
        wait(client, start(client))
    client.close()
    assert {(charge.amount, charge.basis) for charge in charges.new()} == {(None, "unknown")}
    said = [record for record in caplog.records if "mars-north-1" in record.getMessage()]
    assert len(said) == 1


def test_the_size_that_the_request_says_is_kept_while_it_is_pending(
    client: Any, glue: Glue, charges: Charges
) -> None:
    start(client, WorkerType="G.2X", NumberOfWorkers=10, ExecutionClass="FLEX")
    assert used(charges.one()) == {
        "requested_worker_type": "G.2X",
        "requested_workers": 10,
        "requested_class": "FLEX",
    }


def test_several_are_told_of_at_once(client: Any, glue: Glue, charges: Charges) -> None:
    glue.seed("orders", questions=0)
    ids = {start(client) for _ in range(30)}
    assert all(charge.partial for charge in charges.new())
    client.get_job_runs(JobName="orders")
    done = charges.new()
    assert {charge.vendor_id for charge in done} == ids
    assert {charge.amount for charge in done} == {STARTED}


def test_runs_that_somebody_else_started_are_nobodys_charge(
    client: Any, glue: Glue, charges: Charges
) -> None:
    glue.trigger("hourly", "orders")
    client.start_trigger(Name="hourly")
    theirs = glue.run("orders", Attempt=1, PreviousRunId="jr_0")
    assert len(client.get_job_runs(JobName="orders")["JobRuns"]) == 2
    client.get_job_run(JobName="orders", RunId=theirs)
    client.batch_get_jobs(JobNames=["orders"])
    assert charges.new() == []


def test_a_run_that_is_stopped_costs_what_it_used(
    client: Any, glue: Glue, charges: Charges
) -> None:
    glue.seed("orders", seconds=120, questions=10**6)
    id_ = start(client)
    client.batch_stop_job_run(JobName="orders", JobRunIds=[id_])
    wait(client, id_)
    charge = charges.one()
    assert (charge.amount, charge.error and charge.error.type) == ("0.029333333333333", "STOPPED")


def test_a_throttled_start_is_tried_again_by_botocore_and_is_one_charge(
    client: Any, server: AWSServer, glue: Glue, charges: Charges
) -> None:
    server.refuse("glue", "StartJobRun", Refusal("ThrottlingException"))
    wait(client, start(client))
    assert charges.one().amount == STARTED
    assert server.counts("glue")["StartJobRun"] == 2


def test_a_start_that_is_refused_is_an_error_and_no_run(
    client: Any, server: AWSServer, glue: Glue, charges: Charges
) -> None:
    server.refuse("glue", "StartJobRun", Refusal("ConcurrentRunsExceededException", SECRET))
    with pytest.raises(ClientError, match="ConcurrentRunsExceeded"):
        start(client)
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "botocore.errorfactory.ConcurrentRunsExceededException"
    assert (charge.vendor_id, charge.partial, charge.amount) == (None, False, None)
    assert SECRET not in charges.text()


# -- sessions, statements, crawls, workflows --------------------------------------------------------


def session(client: Any, name: str, **more: Any) -> str:
    size = {"WorkerType": "G.1X", "NumberOfWorkers": 5}
    command = {"Name": "glueetl", "PythonVersion": "3"}
    client.create_session(Id=name, Role=ROLE, Command=command, **{**size, **more})
    return name


def test_a_session_is_billed_once_and_its_statements_are_in_it(
    client: Any, glue: Glue, charges: Charges
) -> None:
    glue.seed("session", seconds=1440.0, questions=10**6)
    session(client, "etl")
    pending = charges.one()
    assert (pending.operation, pending.resource.namespace) == ("SESSION", "session/etl")
    assert (pending.partial, pending.amount) == (True, None)
    with costinsights.attribute(asset="orders"):
        number = client.run_statement(SessionId="etl", Code=f"x = '{SECRET}'")["Id"]
    assert charges.one().vendor_id == f"etl:{number}"
    for _ in range(3):
        client.get_statement(SessionId="etl", Id=number)
    charge = charges.one()
    assert (charge.operation, charge.amount, charge.basis) == ("STATEMENT", FREE, "metered")
    assert used(charge) == {"statements": 1, "statement_run_seconds": 3}
    assert charge.attribution["asset"] == "orders"
    glue.seed("1/0", state="ERROR")
    fails = client.run_statement(SessionId="etl", Code="1/0")["Id"]
    for _ in range(2):
        client.list_statements(SessionId="etl")
    failed = charges.one()
    assert (failed.vendor_id, failed.amount) == (f"etl:{fails}", FREE)
    assert (failed.error and failed.error.type) == "ERROR"
    client.get_session(Id="etl")
    assert charges.new() == []
    client.stop_session(Id="etl")
    client.get_session(Id="etl")
    charge = charges.one()
    assert charge.charge_id == pending.charge_id
    # AWS's own example: five DPUs for 24 minutes.
    assert (charge.amount, charge.basis, charge.partial) == ("0.880000000000000", "metered", False)
    assert charge.error is None
    assert SECRET not in charges.text()


def test_a_session_is_told_from_a_later_one_of_its_name(
    client: Any, glue: Glue, charges: Charges
) -> None:
    glue.seed("session", seconds=60.0, questions=0)
    for _ in range(2):
        session(client, "etl")
        client.list_sessions()
        client.delete_session(Id="etl")
        time.sleep(1.1)  # its age is told in seconds
    found = charges.new()
    assert len({charge.charge_id for charge in found}) == 2
    assert [charge.amount for charge in found] == ["0.036666666666667"] * 2


@pytest.mark.parametrize(
    ("asked", "figures", "amount"),
    [
        ({}, {"seconds": 4.2}, "0.036666666666667"),  # a minute at least
        ({}, {"seconds": 90.2}, "0.055611111111111"),  # whole seconds
        ({"MaxCapacity": 2.0}, {"seconds": 3600.0, "dpu_seconds": 7200.0}, "2.200000000000000"),
        # Less than its size by its time: that is what it has used.
        ({"MaxCapacity": 5.0}, {"seconds": 3600.0, "dpu_seconds": 3600.0}, "0.440000000000000"),
        ({}, {"seconds": None, "dpu_seconds": 3600.0}, "0.440000000000000"),
        ({"GlueVersion": "6.0"}, {"seconds": 3600.0}, None),
        ({}, {"seconds": 3600.0, "state": "TIMEOUT"}, "2.200000000000000"),
    ],
)
def test_what_a_session_is_billed(
    client: Any,
    glue: Glue,
    charges: Charges,
    asked: dict[str, Any],
    figures: dict[str, Any],
    amount: str | None,
) -> None:
    glue.seed("session", questions=0, **figures)
    session(client, "etl", **asked)
    client.get_session(Id="etl")
    charge = charges.one()
    assert charge.amount == amount
    assert (charge.error and charge.error.type) == figures.get("state")


def test_a_crawl_is_completed_by_the_list_of_crawls(
    client: Any, glue: Glue, charges: Charges
) -> None:
    glue.crawler("lake")
    glue.seed("lake", seconds=1800, dpu_hours=1.0)
    for _ in range(2):
        client.start_crawler(Name="lake")
        pending = charges.one()
        assert (pending.operation, pending.resource.namespace) == ("CRAWL", "crawler/lake")
        assert str(pending.vendor_id).startswith("lake@20")
        client.get_crawler(Name="lake")
        client.list_crawls(CrawlerName="lake")
        assert charges.new() == []
        crawl = client.list_crawls(CrawlerName="lake")["Crawls"][0]
        charge = charges.one()
        assert (charge.charge_id, charge.vendor_id) == (pending.charge_id, crawl["CrawlId"])
        assert (charge.amount, charge.basis) == ("0.440000000000000", "metered")
        assert used(charge) == {"crawl_dpu_hours": 1.0, "crawl_seconds": 1800, "dpus": 2}
        time.sleep(1.1)  # the next one is another one, however soon it begins


@pytest.mark.parametrize(
    ("figures", "amount"),
    [
        ({"seconds": 60, "dpu_hours": 0.05}, "0.220000000000000"),  # three DPUs for ten minutes
        ({"seconds": 700, "dpu_hours": 0.333}, "0.146520000000000"),  # to the last digit
        ({"seconds": 30, "dpu_hours": 0.0}, FREE),
        ({"seconds": 1800, "dpu_hours": 1.0, "state": "FAILED"}, "0.440000000000000"),
        ({"dpu_hours": None}, None),
        ({"changed": {"DPUHour": "much"}}, None),
        ({"changed": {"EndTime": None}}, None),
        ({"changed": {"State": "LOST"}}, None),
    ],
)
def test_what_a_crawl_is_billed(
    client: Any, glue: Glue, charges: Charges, figures: dict[str, Any], amount: str | None
) -> None:
    glue.crawler("lake")
    glue.seed("lake", questions=0, **figures)
    client.start_crawler(Name="lake")
    client.list_crawls(CrawlerName="lake")
    charge = charges.one()
    assert (charge.amount, charge.partial) == (amount, False)
    assert ("unpriced" in charge.usage) is (amount is None)


def test_a_crawler_that_runs_already_is_an_error(client: Any, glue: Glue, charges: Charges) -> None:
    glue.crawler("lake")
    client.start_crawler(Name="lake")
    charges.new()
    with pytest.raises(ClientError, match="already started"):
        client.start_crawler(Name="lake")
    assert (charges.one().vendor_id, charges.ledger.exists()) == (None, True)


TABLE = {"GlueTable": {"DatabaseName": "lake", "TableName": "orders"}}


def test_runs_of_data_quality_one_by_one_and_in_batches(
    client: Any, glue: Glue, charges: Charges
) -> None:
    glue.seed("quality", questions=0, seconds=360)
    glue.seed("advice", questions=0, seconds=90, state="FAILED")
    first, second = (
        client.start_data_quality_ruleset_evaluation_run(
            DataSource=TABLE, Role=ROLE, RulesetNames=["good orders"], **more
        )["RunId"]
        for more in ({"NumberOfWorkers": 10}, {})
    )
    third = client.start_data_quality_rule_recommendation_run(DataSource=TABLE, Role=ROLE)["RunId"]
    pending = charges.new()
    assert [charge.vendor_id for charge in pending] == [first, second, third]
    assert pending[0].resource.namespace == "dataQualityRuleset/good orders"
    client.batch_get_data_quality_ruleset_evaluation_run(RunIds=[first, "dqrun-0"])
    charge = charges.one()
    assert (charge.amount, charge.basis) == ("0.440000000000000", "metered")
    assert (charge.operation, charge.usage["quality_seconds"]) == ("DATA QUALITY", 360)
    client.get_data_quality_ruleset_evaluation_run(RunId=second)
    assert charges.one().amount == "0.220000000000000"
    client.get_data_quality_rule_recommendation_run(RunId=third)
    charge = charges.one()
    assert (charge.amount, charge.error and charge.error.type) == ("0.055000000000000", "FAILED")


def test_a_workflow_run_stays_pending_until_settlement(
    client: Any, glue: Glue, charges: Charges
) -> None:
    glue.workflow("nightly")
    id_ = client.start_workflow_run(Name="nightly")["RunId"]
    glue.adopt("nightly", "orders")
    charge = charges.one()
    assert (charge.operation, charge.vendor_id, charge.partial) == ("WORKFLOW", id_, True)
    for _ in range(3):
        client.get_workflow_run(Name="nightly", RunId=id_, IncludeGraph=True)
    assert charges.new() == []
    again = client.resume_workflow_run(Name="nightly", RunId=id_, NodeIds=["node_1"])["RunId"]
    assert charges.one().vendor_id == again


# -- what the server and the program see ------------------------------------------------------------


def use_everything(client: Any, glue: Glue) -> list[Any]:
    """Use each operation; return what came back, without what is different each time."""
    found: list[Any] = []
    id_ = start(client, Arguments={"--day": "1"}, WorkerType="G.2X", NumberOfWorkers=3)
    found.append(wait(client, id_))
    found.append(len(client.get_job_runs(JobName="orders", MaxResults=5)["JobRuns"]))
    session(client, "etl")
    client.run_statement(SessionId="etl", Code="1 + 1")
    found.append(client.get_statement(SessionId="etl", Id=0)["Statement"]["State"])
    found.append(client.list_statements(SessionId="etl")["Statements"][0]["State"])
    client.stop_session(Id="etl")
    found.append(client.get_session(Id="etl")["Session"]["Status"])
    found.append(len(client.list_sessions()["Ids"]))
    client.delete_session(Id="etl")
    client.start_crawler(Name="lake")
    found.append(client.list_crawls(CrawlerName="lake")["Crawls"][0]["State"])
    run = client.start_workflow_run(Name="nightly")["RunId"]
    found.append(client.get_workflow_run(Name="nightly", RunId=run)["Run"]["Status"])
    client.batch_stop_job_run(JobName="orders", JobRunIds=[id_])
    with pytest.raises(ClientError) as caught:
        start(client, "nowhere")
    found.append((type(caught.value).__name__, str(caught.value)))
    return found


def seen(server: AWSServer) -> list[tuple[str, Any]]:
    """Return the requests and their bodies, the ids of runs made alike."""
    bodies: list[tuple[str, Any]] = []
    for request in server.asked("glue"):
        params = request.params
        for name in ("RunId", "JobRunIds"):
            if name in params:
                params[name] = "…"
        bodies.append((request.operation, params))
    return bodies


def test_the_server_sees_what_it_would_see_without_us(
    client: Any, server: AWSServer, tmp_path: Path
) -> None:
    def fresh() -> Glue:
        glue = Glue(server)
        glue.job("orders")
        glue.crawler("lake")
        glue.workflow("nightly")
        server.requests.clear()
        return glue

    before = fresh()
    bare = use_everything(client, before)
    without = seen(server)
    before.close()
    after = fresh()
    with instrumented(tmp_path / "ledger", "botocore") as charges:
        assert use_everything(client, after) == bare
        assert seen(server) == without
        # A run, a session, a statement, a crawl, a workflow, and the start that was refused.
        assert len(charges.new()) == 6
    after.close()


@pytest.mark.parametrize("mode", ["native", "comment"])
def test_nothing_is_tagged(client: Any, server: AWSServer, tmp_path: Path, mode: str) -> None:
    """A run of Glue has no tags of its own, and its arguments are the job's."""
    glue = Glue(server)
    glue.job("orders")
    server.requests.clear()
    costinsights.instrument(
        "botocore",
        ledger=tmp_path / "ledger",
        exporters=[],
        attribution={"job": "nightly"},
        tagging=mode,
    )
    try:
        request = {"JobName": "orders", "Arguments": {"--day": "1"}}
        client.start_job_run(**request)
        assert server.asked("glue", "StartJobRun")[0].params == request
        assert Charges(tmp_path / "ledger").one().tag is None
    finally:
        costinsights.uninstrument()
        glue.close()


def test_switched_off_again(client: Any, glue: Glue, charges: Charges) -> None:
    id_ = start(client)
    costinsights.uninstrument()
    wait(client, id_)
    start(client)
    assert charges.one().partial


def test_sixteen_at_once(server: AWSServer, glue: Glue, charges: Charges) -> None:
    client = server.client("glue")
    threads = [threading.Thread(target=lambda: wait(client, start(client))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    found = charges.new()
    assert len({charge.vendor_id for charge in found}) == len(found) == 16
    assert {charge.amount for charge in found} == {STARTED}


SCRIPT = """
import json, sys
import boto3, costinsights
access, ledger = json.loads(sys.argv[1]), sys.argv[2]
costinsights.instrument(ledger=ledger, exporters=[])
client = boto3.client("glue", **access)
print(client.start_job_run(JobName="orders")["JobRunId"], flush=True)
sys.stdin.read()
"""


def test_a_killed_program_leaves_its_run_pending(
    server: AWSServer, glue: Glue, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(server.access), str(ledger)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COSTINSIGHTS_STRICT": "1"},
    )
    assert program.stdout is not None
    assert program.stdin is not None
    id_ = program.stdout.readline().strip()
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    program.stdin.close()
    charge = Charges(ledger).one()
    assert (charge.vendor_id, charge.partial, charge.amount) == (id_, True, None)


# -- in the background ------------------------------------------------------------------------------


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_what_nobody_asks_for_is_followed(
    client: Any, server: AWSServer, glue: Glue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PACE", following.Pace(quiet=0.3, apart=0.01))
    monkeypatch.setattr(background, "TICK_SECONDS", 0.05)
    glue.crawler("lake")
    glue.seed("lake", seconds=1800, dpu_hours=1.0)
    glue.seed("session", seconds=1440.0)
    glue.seed("orders", so_far=300)
    server.requests.clear()
    with instrumented(tmp_path, "botocore") as charges:
        start(client)
        client.start_crawler(Name="lake")
        session(client, "etl")
        asked = len(server.asked("glue"))

        def ended() -> bool:
            return not any(charge.partial for charge in latest(charges))

        until(ended)
        found = {charge.operation: charge for charge in latest(charges)}
        revisions = [entry for entry in read_ledger(str(tmp_path)) if entry.operation == "JOB"]
    assert {name: charge.amount for name, charge in found.items()} == {
        "JOB": STARTED,
        "CRAWL": "0.440000000000000",
        "SESSION": "0.880000000000000",
    }
    # It told in between what the run had used so far.
    assert [(entry.amount, entry.partial) for entry in revisions] == [
        (None, True),
        ("0.073333333333333", True),
        (STARTED, False),
    ]
    ours = server.asked("glue")[asked:]
    assert {request.operation for request in ours} == {"GetJobRun", "ListCrawls", "GetSession"}
    assert all("costinsights" in request.headers["user-agent"] for request in ours)


def latest(charges: Charges) -> list[Any]:
    return list({entry.charge_id: entry for entry in read_ledger(str(charges.ledger))}.values())


# -- facts that stand twice -------------------------------------------------------------------------


def test_the_price_book_knows_the_worker_types() -> None:
    tables = {
        rule.name: {kind for term in rule.terms for kind in term.table}
        for rule in PriceBook.load().rules("aws.glue")
    }
    assert tables["aws.glue.memory_workers"] == aws_glue.MEMORY
    assert tables["aws.glue.workers"] | aws_glue.MEMORY == aws_glue.WORKERS
    known = {meter.name for meter in PriceBook.load().meters("aws.glue")}
    assert known >= aws_glue.BILLED


def test_an_id_that_was_made_up_is_read_again() -> None:
    name, moment = aws_glue.read_id("a@b@2026-11-23T04:05:06Z")
    assert (name, f"{moment:%H:%M:%S %z}") == ("a@b", "04:05:06 +0000")
    assert aws_glue.read_id("a@b") == ("a@b", None)
    assert aws_glue.id_at(name, moment) == "a@b@2026-11-23T04:05:06Z"
