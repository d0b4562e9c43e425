"""`costinsights settle aws.athena` by unmodified boto3, against moto's server with figures."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from costinsights.settlement.aws_athena import BATCH, AthenaHistory
from costinsights.settlement.settling import settle
from tests.servers.aws_athena import Athena
from tests.servers.aws_server import AWSServer, Refusal, aws_server
from tests.servers.charges import Charges, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

TB = 2**40
FIVE = "5.000000000000000"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test; credentials are boto3's own."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def athena(server: AWSServer) -> Athena:
    athena = Athena(server)
    athena.seed("", scanned=TB, questions=0)
    server.answer("athena", "ListCapacityReservations", lambda _: {"CapacityReservations": []})
    return athena


@pytest.fixture
def client(server: AWSServer, athena: Athena) -> Iterator[Any]:
    client = server.client("athena")
    yield client
    client.close()


def start(client: Any, ledger: Path, count: int = 1, **more: Any) -> list[str]:
    """Start queries in a program that does not wait for them."""
    with instrumented(ledger, "botocore"):
        return [
            client.start_query_execution(QueryString=f"SELECT {number}", **more)["QueryExecutionId"]
            for number in range(count)
        ]


def settled(
    server: AWSServer,
    ledger: Path,
    *,
    config: Any = None,
    now: datetime | None = None,
    **more: Any,
) -> Settled:
    server.requests.clear()
    now = now or datetime.now(timezone.utc)
    options = {"regions": ["us-east-1"], "endpoint_url": server.url}
    return settle(
        "aws.athena",
        now - timedelta(hours=3),
        ledger=ledger,
        history=AthenaHistory(options),
        config=config,
        now=now,
        **more,
    )


def latest(ledger: Path) -> dict[str | None, Charge]:
    return {charge.vendor_id: charge for charge in Charges(ledger).entries()}


def test_pending_queries_get_their_figures(server: AWSServer, client: Any, tmp_path: Path) -> None:
    ids = start(client, tmp_path, 120)
    said: list[str] = []
    report = settled(server, tmp_path, said=said.extend)
    assert said == ["120 queries by id in us-east-1, in 3 calls"]
    assert (report.found, report.settled, report.incomplete) == ({"id": 120}, 120, [])
    assert server.counts("athena") == {"ListCapacityReservations": 1, "BatchGetQueryExecution": 3}
    assert report.requests == 4
    found = latest(tmp_path)
    assert set(found) == set(ids)
    assert {(charge.amount, charge.basis) for charge in found.values()} == {(FIVE, "metered")}
    assert not any(charge.partial for charge in found.values())
    again = settled(server, tmp_path)
    assert (again.settled, again.added) == (0, 0)
    assert server.counts("athena") == {"ListCapacityReservations": 1}


def test_what_athena_forgot_or_still_runs_is_left(
    server: AWSServer, client: Any, tmp_path: Path
) -> None:
    old = Athena(server)
    old.seed("", scanned=TB, questions=0)
    start(client, tmp_path)
    athena = Athena(server)  # it has forgotten the first
    athena.seed("", scanned=TB, questions=10**6)
    start(client, tmp_path)
    report = settled(server, tmp_path)
    assert (report.settled, report.lost) == (0, 0)
    assert report.left == {"still runs": 1, "the system does not know it yet": 1}
    later = settled(server, tmp_path, now=datetime.now(timezone.utc) + timedelta(hours=2))
    assert (later.settled, later.lost, later.left) == (0, 1, {"still runs": 1})
    found = list(latest(tmp_path).values())
    assert all(charge.partial for charge in found)
    assert sorted(charge.usage.get("lost", "") for charge in found) == [
        "",
        "aws.athena no longer knows it",
    ]
    assert settled(server, tmp_path).charges == 2
    asked = [request.params["QueryExecutionIds"] for request in server.asked("athena")[1:]]
    assert [len(ids) for ids in asked] == [1]  # not the one that is lost


def test_queries_of_nobody_with_all(
    server: AWSServer, athena: Athena, client: Any, tmp_path: Path
) -> None:
    for _ in range(5 * BATCH):  # of a day that nobody asks about
        athena.run("SELECT 1", ago=2 * 86400)
    start(client, tmp_path)
    athena.seed("nowhere", scanned=TB, state="FAILED")
    for number in range(3 * BATCH):
        athena.run(f"SELECT {number} FROM elsewhere", ago=60)
    athena.run("SELECT 1 FROM nowhere", ago=60)
    alone = settled(server, tmp_path)
    assert (alone.settled, alone.added) == (1, 0)
    report = settled(server, tmp_path, all=True)
    assert (report.settled, report.added) == (0, 3 * BATCH + 1)
    assert report.amounts["USD"]["outside"] == "750.000000000000000"
    # The list is not read to its end: newest first, until what comes is too old.
    assert server.counts("athena")["ListQueryExecutions"] <= 8
    assert settled(server, tmp_path, all=True).added == 0


def test_reserved_workgroups_share_their_hours(
    server: AWSServer, athena: Athena, client: Any, tmp_path: Path
) -> None:
    server.answer(
        "athena",
        "ListCapacityReservations",
        lambda _: {
            "CapacityReservations": [
                {
                    "Name": "etl",
                    "Status": "ACTIVE",
                    "TargetDpus": 24,
                    "AllocatedDpus": 24,
                    "CreationTime": 1.0,
                }
            ]
        },
    )
    server.answer(
        "athena",
        "GetCapacityAssignmentConfiguration",
        lambda _: {
            "CapacityAssignmentConfiguration": {
                "CapacityReservationName": "etl",
                "CapacityAssignments": [{"WorkGroupNames": ["reserved"]}],
            }
        },
    )
    capacity = {
        "name": "24 DPUs",
        "system": "aws.athena",
        "database": "reserved",
        "price": "7.20",
        "unit": "hour",
        "currency": "USD",
    }
    client.create_work_group(Name="reserved")
    athena.seed("small", scanned=TB, dpus=4, questions=0, engine_ms=60_000)
    athena.seed("large", scanned=TB, dpus=12, questions=0, engine_ms=60_000)
    for size in ("small", "large"):
        athena.run(f"SELECT {size}", workgroup="reserved", ago=7200)
    report = settled(server, tmp_path, all=True, config={"capacity": [capacity]})
    found = latest(tmp_path)
    amounts = {
        charge.statement.text: float(charge.amount or 0)
        for charge in found.values()
        if charge.statement is not None
    }
    assert amounts["SELECT large"] == pytest.approx(3 * amounts["SELECT small"])
    assert report.amounts["USD"]["outside"] != "10.000000000000000"
    assert 0 < sum(amounts.values()) < 7.2


def test_without_permission_it_says_which(server: AWSServer, client: Any, tmp_path: Path) -> None:
    start(client, tmp_path)
    denied = Refusal("AccessDeniedException", "secret arn")
    server.refuse("athena", "BatchGetQueryExecution", denied)
    with pytest.raises(Exception, match="no permission to read batch_get_query_execution") as error:
        settled(server, tmp_path)
    assert "athena:BatchGetQueryExecution" in getattr(error.value, "grant", "")
    assert settled(server, tmp_path).settled == 1


def test_reservations_that_may_not_be_seen_are_said(
    server: AWSServer, client: Any, tmp_path: Path
) -> None:
    start(client, tmp_path)
    server.refuse("athena", "ListCapacityReservations", Refusal("AccessDeniedException"))
    report = settled(server, tmp_path)
    assert report.settled == 1
    assert "priced by what they scanned" in report.incomplete[0]


def test_throttling_is_waited_for(server: AWSServer, client: Any, tmp_path: Path) -> None:
    start(client, tmp_path)
    server.refuse("athena", "BatchGetQueryExecution", Refusal("ThrottlingException"))
    assert settled(server, tmp_path).settled == 1
