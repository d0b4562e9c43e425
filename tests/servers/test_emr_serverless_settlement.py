"""`costinsights settle aws.emr_serverless`, by unmodified boto3."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import emr_fixtures
from tests.servers.aws_emr import Attempt, EMRServerless
from tests.servers.aws_server import AWSServer, Refusal
from tests.servers.charges import instrumented
from tests.servers.emr_runs import (
    AMOUNT,
    BILLED,
    HOUR,
    REGION,
    latest,
    settled,
    submit,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


environment, server = emr_fixtures.environment, emr_fixtures.server


@pytest.fixture
def serverless(server: AWSServer) -> EMRServerless:
    return EMRServerless(server)


@pytest.fixture
def jobs(server: AWSServer) -> Iterator[Any]:
    client = server.client("emr-serverless", region_name=REGION)
    yield client
    client.close()


def started(jobs: Any, ledger: Path, application: str, count: int = 1, **more: Any) -> list[str]:
    """Start runs in a program that does not wait for them."""
    with instrumented(ledger, "botocore"):
        return [submit(jobs, application, **more) for _ in range(count)]


def test_serverless_runs_get_what_they_were_billed(
    jobs: Any, server: AWSServer, serverless: EMRServerless, tmp_path: Path
) -> None:
    application = serverless.application()
    serverless.next = [Attempt(dict(BILLED), {"vCPUHour": 1.0, "memoryGBHour": 4.0}, seconds=900)]
    ids = started(jobs, tmp_path, application, 20)
    report = settled("aws.emr_serverless", server, tmp_path)
    assert server.counts(serverless.service) == {"GetJobRun": 20, "GetApplication": 1}
    assert (report.settled, report.requests) == (20, 21)
    found = latest(tmp_path)
    assert set(found) == set(ids)
    assert {(one.amount, one.basis) for one in found.values()} == {(AMOUNT, "metered")}
    assert found[ids[0]].usage["architecture"] == "x86_64"
    assert settled("aws.emr_serverless", server, tmp_path).settled == 0
    assert server.counts(serverless.service) == {}


def test_serverless_attempts_are_added_up(
    jobs: Any, server: AWSServer, serverless: EMRServerless, tmp_path: Path
) -> None:
    application = serverless.application()
    serverless.next = [
        Attempt({"vCPUHour": 0.5, "memoryGBHour": 2.0}, state="FAILED"),
        Attempt({"vCPUHour": 0.25, "memoryGBHour": 1.0}, state="FAILED"),
        Attempt({"vCPUHour": 0.75, "memoryGBHour": 3.0}),
    ]
    [id_] = started(jobs, tmp_path / "one", application)
    settled("aws.emr_serverless", server, tmp_path / "one")
    charge = latest(tmp_path / "one")[id_]
    assert (charge.amount, charge.usage["attempts"]) == (AMOUNT, 3)
    assert server.counts(serverless.service)["GetJobRun"] == 3
    [id_] = started(jobs, tmp_path / "two", application)
    settled("aws.emr_serverless", server, tmp_path / "two", options={"attempts": "last"})
    charge = latest(tmp_path / "two")[id_]
    assert charge.usage["vcpu_seconds"] == 2700
    assert server.counts(serverless.service)["GetJobRun"] == 1


def test_serverless_long_runs_are_settled_so_far_and_then_again(
    jobs: Any, server: AWSServer, serverless: EMRServerless, tmp_path: Path
) -> None:
    application = serverless.application()
    serverless.next = [Attempt({"vCPUHour": 1.0, "memoryGBHour": 0.0})]
    serverless.questions = 10**6
    [id_] = started(jobs, tmp_path, application)
    settled("aws.emr_serverless", server, tmp_path)
    charge = latest(tmp_path)[id_]
    assert (charge.amount, charge.partial) == ("0.052624000000000", True)
    run = serverless.runs[id_]
    run.questions, run.attempts = 0, [Attempt(dict(BILLED), seconds=HOUR)]
    settled("aws.emr_serverless", server, tmp_path)
    charge = latest(tmp_path)[id_]
    assert (charge.amount, charge.partial) == (AMOUNT, False)


def test_serverless_answers_that_are_not_as_they_should_be(
    jobs: Any, server: AWSServer, serverless: EMRServerless, tmp_path: Path
) -> None:
    cases: list[tuple[Attempt, str | None, str]] = [
        (Attempt({"vCPUHour": 1.0}), "X86_64", "without memoryGBHour"),
        (Attempt({**BILLED, "memoryGBHour": -1}), "X86_64", "memoryGBHour that is no number"),
        (Attempt({**BILLED, "vCPUHour": "NaN"}), "X86_64", "vCPUHour that is no number"),
        (Attempt(), "X86_64", "no billedResourceUtilization"),
        (Attempt(dict(BILLED), state="EXPLODED"), "X86_64", "a state that nobody knows"),
        (Attempt({**BILLED, "storageGBHour": 5.0}), "X86_64", "storage_gb_seconds"),
        (Attempt(dict(BILLED)), None, "say architecture"),
        (Attempt(dict(BILLED)), "RISCV", "say architecture"),
    ]
    ids: list[tuple[str, str]] = []
    for attempt, architecture, reason in cases:
        serverless.next = [attempt]
        [id_] = started(jobs, tmp_path, serverless.application(architecture))
        serverless.runs[id_].begun -= HOUR
        ids.append((id_, reason))
    report = settled("aws.emr_serverless", server, tmp_path)
    found = latest(tmp_path)
    for id_, reason in ids:
        assert (found[id_].amount, found[id_].basis) == (None, "unknown")
        said = [str(found[id_].usage.get("unpriced", "")), *report.unpriced]
        assert any(reason in one for one in said), (reason, said)
    assert found[ids[1][0]].usage["billedResourceUtilization.memoryGBHour"] == "-1.0"
    assert found[ids[5][0]].usage["storage_gb_seconds"] == 5 * HOUR


def test_serverless_figures_that_are_late_are_waited_for(
    jobs: Any, server: AWSServer, serverless: EMRServerless, tmp_path: Path
) -> None:
    serverless.next = [Attempt(seconds=0)]
    [id_] = started(jobs, tmp_path, serverless.application())
    report = settled("aws.emr_serverless", server, tmp_path, hours=0.01)
    assert (report.settled, latest(tmp_path)[id_].partial) == (0, True)
    serverless.runs[id_].attempts = [Attempt(dict(BILLED), seconds=0)]
    settled("aws.emr_serverless", server, tmp_path, hours=0.01)
    assert latest(tmp_path)[id_].amount == AMOUNT


def test_serverless_runs_that_are_gone_and_those_of_nobody(
    jobs: Any, server: AWSServer, serverless: EMRServerless, tmp_path: Path
) -> None:
    application = serverless.application()
    serverless.next = [Attempt(dict(BILLED))]
    serverless.page = 2
    gone, kept = started(jobs, tmp_path, application, 2)
    del serverless.runs[gone]
    others = [serverless.run(application, Attempt(dict(BILLED))) for _ in range(4)]
    serverless.run(application, Attempt(dict(BILLED)), ago=3 * 86_400)
    report = settled("aws.emr_serverless", server, tmp_path, all=True)
    assert (report.settled, report.added) == (1, 4)
    found = latest(tmp_path)
    assert "no longer knows" in str(found[gone].usage["lost"])
    assert {found[one.id].amount for one in others} == {AMOUNT}
    assert found[kept].amount == AMOUNT
    # The list tells which have ended before; each of the others is asked for once.
    assert server.counts(serverless.service) == {
        "GetJobRun": 6,
        "GetApplication": 1,
        "ListApplications": 1,
        "ListJobRuns": 3,
    }
    again = settled("aws.emr_serverless", server, tmp_path, all=True)
    assert (again.settled, again.added) == (0, 0)


def test_serverless_permission_and_throttling(
    jobs: Any, server: AWSServer, serverless: EMRServerless, tmp_path: Path
) -> None:
    serverless.next = [Attempt(dict(BILLED))]
    started(jobs, tmp_path, serverless.application())
    denied = Refusal("AccessDeniedException", "secret arn", 403)
    server.refuse(serverless.service, "GetJobRun", denied)
    with pytest.raises(Exception, match="no permission to read get_job_run") as error:
        settled("aws.emr_serverless", server, tmp_path)
    assert "emr-serverless:GetJobRun" in getattr(error.value, "grant", "")
    server.refuse(serverless.service, "GetJobRun", Refusal("ThrottlingException", status=429))
    server.refuse(serverless.service, "GetApplication", denied)
    report = settled("aws.emr_serverless", server, tmp_path)
    assert "architecture" in report.incomplete[0]
    assert settled("aws.emr_serverless", server, tmp_path).settled == 1


SCRIPT = """
import json, os, signal, sys
import boto3, costinsights
access, ledger, application = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
costinsights.instrument(ledger=ledger, exporters=[])
client = boto3.client("emr-serverless", **access)
client.start_job_run(
    applicationId=application,
    executionRoleArn="arn:aws:iam::123456789012:role/x",
    jobDriver={"sparkSubmit": {"entryPoint": "s3://x/j.py"}},
)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_run_of_a_killed_program_is_settled_by_another(
    server: AWSServer, serverless: EMRServerless, tmp_path: Path
) -> None:
    application = serverless.application()
    serverless.next = [Attempt(dict(BILLED))]
    access = json.dumps({**server.access, "region_name": REGION})
    program = subprocess.run(
        [sys.executable, "-c", SCRIPT, access, str(tmp_path / "ledger"), application], check=False
    )
    assert program.returncode == -signal.SIGKILL
    [id_] = serverless.runs
    assert latest(tmp_path / "ledger")[id_].partial
    settled("aws.emr_serverless", server, tmp_path / "ledger")
    assert latest(tmp_path / "ledger")[id_].amount == AMOUNT
