"""`costinsights settle aws.athena` by unmodified boto3, against moto's server with figures."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import asking
from costinsights.ledger.reader import read_ledger
from costinsights.records import Resource
from costinsights.settlement.aws_athena import BATCH, AthenaHistory
from costinsights.settlement.settling import settle
from tests.ledgers import Program
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


# --- very many, and everything that can go wrong with them ----------------------------------------

MANY = 10_000
FEWER = 2_000


def wait(athena: Athena, ledger: Path, many: int) -> None:
    """So many queries that a program has started that is no more."""
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(many)]
    athena.remember(ids, scanned=TB)
    program = Program(ledger)
    begun = int((time.time() - 3600) * 10**9)
    place = Resource("athena.us-east-1.amazonaws.com", None, "primary", None, "us-east-1")
    for number, id_ in enumerate(ids):
        program.call(
            system="aws.athena",
            at=begun + number,
            amount=None,
            rows=None,
            resource=place,
            i=id_,
            l=True,
        )
    program.close()


def sums(ledger: Path) -> tuple[int, set[str | None], int]:
    """How many charges there are, what they cost, and how many entries that took."""
    entries = list(read_ledger(str(ledger)))
    latest = {entry.charge_id: entry for entry in entries}
    return len(latest), {charge.amount for charge in latest.values()}, len(entries)


def test_ten_thousand_take_two_hundred_calls_through_every_fault(
    server: AWSServer, athena: Athena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait(athena, tmp_path, MANY)
    slept: list[float] = []
    monkeypatch.setattr(asking, "sleep", slept.append)
    faults = {
        5: Refusal("ThrottlingException", headers=(("Retry-After", "3"),)),
        6: Refusal("TooManyRequestsException", status=429),
        20: Refusal("InternalServerException", status=500),
        30: Refusal("ServiceUnavailable", status=503),
        90: Refusal("ExpiredTokenException"),
    }
    answer = server.answers("athena", "BatchGetQueryExecution")
    calls = count(1)

    def failing(request: dict[str, Any]) -> dict[str, Any] | Refusal:
        return faults.get(next(calls)) or answer(request)

    server.answer("athena", "BatchGetQueryExecution", failing)
    read: list[tuple[int, int | None]] = []

    def seen(what: str, done: int, total: int | None) -> None:
        if what == "reading the history":
            read.append((done, total))

    report = settled(server, tmp_path, progress=seen)
    assert (report.settled, report.failed) == (MANY, "")
    assert server.counts("athena") == {
        "ListCapacityReservations": 1,
        "BatchGetQueryExecution": MANY // BATCH + len(faults),
    }
    assert report.requests == MANY // BATCH + len(faults) + 1  # each try is counted
    assert len(slept) == 4
    assert slept[0] >= 0.8 * 3
    assert sums(tmp_path) == (MANY, {FIVE}, 2 * MANY)
    assert read[0][1] == MANY  # the bar knows its end
    assert len(read) >= MANY / 500
    assert settled(server, tmp_path).settled == 0
    assert "BatchGetQueryExecution" not in server.counts("athena")


def test_credentials_that_stay_expired_leave_the_rest_for_the_next_run(
    server: AWSServer, athena: Athena, tmp_path: Path
) -> None:
    wait(athena, tmp_path, FEWER)
    answer = server.answers("athena", "BatchGetQueryExecution")
    calls = count(1)

    def expiring(request: dict[str, Any]) -> dict[str, Any] | Refusal:
        return answer(request) if next(calls) <= 15 else Refusal("ExpiredTokenException")

    server.answer("athena", "BatchGetQueryExecution", expiring)
    report = settled(server, tmp_path)
    assert report.settled == 15 * BATCH
    assert "the credentials are not valid: ExpiredTokenException" in report.failed
    server.answer("athena", "BatchGetQueryExecution", answer)
    assert settled(server, tmp_path).settled == FEWER - 15 * BATCH
    assert server.counts("athena")["BatchGetQueryExecution"] == FEWER // BATCH - 15
    assert sums(tmp_path) == (FEWER, {FIVE}, 2 * FEWER)


@pytest.mark.parametrize("when", ["reading", "writing"])
def test_killed_half_way(server: AWSServer, athena: Athena, tmp_path: Path, when: str) -> None:
    """SIGKILL of the command itself, while it reads and while it writes."""
    wait(athena, tmp_path, FEWER)
    (tmp_path / "costinsights.toml").write_text(
        f'ledger = "."\n[settle."aws.athena"]\nregions = ["us-east-1"]\n'
        f'endpoint_url = "{server.url}"\n'
    )
    command = [sys.executable, "-m", "costinsights.cli", "settle", "aws.athena", "--since", "3h"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    segments = tmp_path / "segments"
    before = sum(path.stat().st_size for path in segments.iterdir())
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        asked = server.counts("athena").get("BatchGetQueryExecution", 0)
        written = sum(path.stat().st_size for path in segments.iterdir()) - before
        if (when == "reading" and asked >= 15) or (when == "writing" and written > 100_000):
            process.kill()
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL
    done = sum(1 for entry in read_ledger(str(tmp_path)) if not entry.partial)
    assert (done == 0) if when == "reading" else (0 < done < FEWER)
    assert settled(server, tmp_path).settled == FEWER - done
    assert sums(tmp_path) == (FEWER, {FIVE}, 2 * FEWER)
