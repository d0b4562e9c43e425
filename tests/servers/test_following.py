"""Athena's queries that nobody asks for, by unmodified boto3: asked for in the background."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import background, followed, following
from costinsights.ledger.reader import read_ledger
from tests.servers.aws_athena import Athena
from tests.servers.aws_server import AWSServer, Refusal, aws_server
from tests.servers.charges import Charges, instrumented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from costinsights.records import Charge

TB = 2**40
FIVE = "5.000000000000000"


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute is long for a test; an error of ours fails it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setattr(following, "PACE", following.Pace(quiet=0.3, apart=0.01))
    monkeypatch.setattr(background, "TICK_SECONDS", 0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def athena(server: AWSServer) -> Athena:
    athena = Athena(server)
    athena.seed("", scanned=TB, questions=1)
    return athena


@pytest.fixture
def client(server: AWSServer, athena: Athena) -> Iterator[Any]:
    client = server.client("athena")
    yield client
    client.close()


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def latest(charges: Charges) -> list[Charge]:
    """Return all charges with their latest figures."""
    return list({entry.charge_id: entry for entry in read_ledger(str(charges.ledger))}.values())


def ended(charges: Charges) -> bool:
    return not any(charge.partial for charge in latest(charges))


def test_queries_that_nobody_asks_for_are_followed(
    server: AWSServer, client: Any, tmp_path: Path
) -> None:
    with instrumented(tmp_path, "botocore") as charges:
        for number in range(60):
            client.start_query_execution(QueryString=f"SELECT {number}")
        until(lambda: ended(charges))
        found = latest(charges)
    assert {(charge.amount, charge.basis) for charge in found} == {(FIVE, "metered")}
    assert len(found) == 60
    counts = server.counts("athena")
    asked = counts.pop("BatchGetQueryExecution")
    assert counts == {"StartQueryExecution": 60}
    assert 4 <= asked <= 20  # in batches: each query takes two questions until it has ended
    (sums,) = followed.asked(str(tmp_path))
    assert (sums.system, sums.region, sums.requests) == ("aws.athena", "us-east-1", asked)


def test_our_client_is_like_the_programs_and_not_the_programs(
    server: AWSServer, client: Any, tmp_path: Path
) -> None:
    used: list[str] = []

    def sent(**about: Any) -> None:
        used.append(about["event_name"])

    client.meta.events.register("before-send", sent)
    with instrumented(tmp_path, "botocore") as charges:
        client.start_query_execution(QueryString="SELECT 1")
        assert len(used) == 1
        until(lambda: ended(charges))
    assert len(used) == 1  # every further request was by a client of ours
    theirs, *ours = server.asked("athena")
    for request in ours:
        assert request.operation == "BatchGetQueryExecution"
        assert "costinsights" in request.headers["user-agent"]
        assert "Credential=test/" in request.headers["authorization"]
    assert "costinsights" not in theirs.headers["user-agent"]


def test_a_program_that_polls_makes_all_the_requests(
    server: AWSServer, athena: Athena, client: Any, tmp_path: Path
) -> None:
    athena.seed("long", scanned=TB, questions=20)
    with instrumented(tmp_path, "botocore") as charges:
        id_ = client.start_query_execution(QueryString="SELECT long")["QueryExecutionId"]
        for _ in range(21):
            client.get_query_execution(QueryExecutionId=id_)
            time.sleep(0.02)
        until(lambda: ended(charges))
    assert server.counts("athena") == {"StartQueryExecution": 1, "GetQueryExecution": 21}


def test_a_program_that_is_not_to_be_followed(
    server: AWSServer, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTINSIGHTS_FOLLOW_JOBS", "false")
    with instrumented(tmp_path, "botocore"):
        client.start_query_execution(QueryString="SELECT 1")
        time.sleep(1)
    assert server.counts("athena") == {"StartQueryExecution": 1}


def test_throttling_is_waited_for_and_a_refusal_ends_it(
    server: AWSServer, client: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch = "BatchGetQueryExecution"
    server.refuse(
        "athena",
        batch,
        Refusal("ThrottlingException"),
        Refusal("InternalServerException", status=500),
    )
    with instrumented(tmp_path, "botocore") as charges:
        client.start_query_execution(QueryString="SELECT 1")
        until(lambda: ended(charges))
        assert server.counts("athena")[batch] == 4
        server.refuse("athena", batch, Refusal("AccessDeniedException", "secret arn"))
        client.start_query_execution(QueryString="SELECT 2")
        until(lambda: any("AccessDenied" in record.getMessage() for record in caplog.records))
        assert not ended(charges)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "AccessDeniedException" in said
    assert "secret" not in said


def test_nothing_is_left_of_it(client: Any, tmp_path: Path) -> None:
    with instrumented(tmp_path, "botocore") as charges:
        client.start_query_execution(QueryString="SELECT 1")
        until(lambda: ended(charges))
    assert "costinsights-jobs" not in {thread.name for thread in threading.enumerate()}
