"""`costinsights settle gcp.bigquery` by the unmodified client, on a server of ours."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights.settlement.gcp_bigquery import BigQueryHistory
from costinsights.settlement.history import HistoryError
from costinsights.settlement.settling import SettlementError, settle
from tests.servers.bigquery_server import PROJECT, BigQueryServer, Failure, bigquery_server
from tests.servers.charges import Charges, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

TIB = 2**40
LEAST = 10 * 2**20
PRICE = "6.250000000000000"
JOBS = "INFORMATION_SCHEMA"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture(scope="module")
def running() -> Iterator[BigQueryServer]:
    with bigquery_server() as server:
        yield server


@pytest.fixture
def server(running: BigQueryServer) -> BigQueryServer:
    running.forget()
    running.seed("", billed=TIB, processed=TIB - 77, slot_ms=3_600_000)
    running.seed(JOBS, billed=LEAST, processed=4096, slot_ms=50)
    return running


@pytest.fixture
def client(server: BigQueryServer) -> Iterator[Any]:
    client = server.client()
    yield client
    client.close()


def settled(
    server: BigQueryServer, ledger: Path, *, config: Any = None, later: int = 0, **more: Any
) -> Settled:
    now = datetime.now(timezone.utc) + timedelta(minutes=later)
    options = {"project": PROJECT, "endpoint_url": server.url}
    return settle(
        "gcp.bigquery",
        now - timedelta(hours=3),
        ledger=ledger,
        history=BigQueryHistory(options),
        config=config,
        now=now,
        **more,
    )


def latest(ledger: Path) -> dict[str | None, Charge]:
    return {charge.vendor_id: charge for charge in Charges(ledger).entries()}


def test_quick_answers_get_the_bytes_billed(
    server: BigQueryServer, client: Any, tmp_path: Path
) -> None:
    with instrumented(tmp_path, "bigquery"):
        ids = {client.query_and_wait(f"SELECT {number}").job_id for number in range(5)}
    assert {charge.amount for charge in latest(tmp_path).values()} == {None}
    said: list[str] = []
    report = settled(server, tmp_path, said=said.extend, later=1)
    assert "billed for 10 MiB at least, refused beyond 1024 MiB" in said[0]
    assert said[1] == "That costs 0.006103515625 USD at most."
    assert (report.found, report.settled, report.added) == ({"id": 5}, 5, 0)
    found = latest(tmp_path)
    assert {found[id_].amount for id_ in ids} == {PRICE}
    assert {found[id_].basis for id_ in ids} == {"metered"}
    asked = server.asked("POST", "/jobs")[-1].body["configuration"]
    assert asked["query"]["maximumBytesBilled"] == str(2**30)
    assert asked["labels"] == {"costinsights_settlement": "1"}
    # What it cost itself: 10 MiB.
    assert report.spent == {"billed_bytes": str(LEAST)}
    assert report.cost is not None
    assert float(report.cost) == pytest.approx(6.25 * LEAST / TIB)
    again = settled(server, tmp_path, later=1)
    assert (again.settled, again.added, again.unchanged) == (0, 0, 5)


def test_jobs_of_nobody_with_all(server: BigQueryServer, client: Any, tmp_path: Path) -> None:
    server.seed("nowhere", reason="invalidQuery", billed=None)
    server.seed("cached", billed=0, cache_hit=True)
    server.run("SELECT 1 AS a", labels={"costinsights_asset": "orders", "team": "growth"})
    server.run("SELECT * FROM nowhere")
    server.run("SELECT 2 AS cached")
    server.run("SELECT 3 AS a", ago=2 * 86400)
    report = settled(server, tmp_path, all=True, later=1)
    assert (report.settled, report.added) == (0, 3)
    found = {
        charge.statement.text: charge
        for charge in latest(tmp_path).values()
        if charge.statement is not None and JOBS not in charge.statement.text
    }
    assert {text: charge.amount for text, charge in found.items()} == {
        "SELECT ? AS a": PRICE,
        "SELECT * FROM nowhere": "0.000000000000000",
        "SELECT ? AS cached": "0.000000000000000",
    }
    assert found["SELECT ? AS a"].attribution["asset"] == "orders"
    assert settled(server, tmp_path, all=True, later=1).added == 0


def test_what_nobody_knows_the_bytes_of_stays_unknown(
    server: BigQueryServer, client: Any, tmp_path: Path
) -> None:
    server.seed("hidden", billed=None, processed=0)
    with instrumented(tmp_path, "bigquery"):
        client.query("SELECT 1 AS hidden").result()
    settled(server, tmp_path, later=1)
    (charge,) = [
        charge
        for charge in latest(tmp_path).values()
        if charge.statement is not None and "hidden" in charge.statement.text
    ]
    assert (charge.amount, charge.basis) == (None, "unknown")


def test_a_reservations_hours_are_shared_by_slot_time(
    server: BigQueryServer, client: Any, tmp_path: Path
) -> None:
    capacity = {
        "name": "100 slots",
        "system": "gcp.bigquery",
        "database": PROJECT,
        "price": "6.00",
        "unit": "hour",
        "currency": "USD",
    }
    server.seed("small", billed=TIB, reservation="admin:US.prod", slot_ms=1000)
    server.seed("large", billed=TIB, reservation="admin:US.prod", slot_ms=9000)
    for size in ("small", "large"):
        server.run(f"SELECT 1 AS {size}", ago=7200)
    settled(server, tmp_path, all=True, later=1, config={"capacity": [capacity]})
    amounts = {
        charge.statement.text: float(charge.amount or 0)
        for charge in latest(tmp_path).values()
        if charge.statement is not None
    }
    assert amounts["SELECT ? AS large"] == pytest.approx(9 * amounts["SELECT ? AS small"])
    assert 0 < amounts["SELECT ? AS large"] < 6


def test_without_permission_it_says_which(
    server: BigQueryServer, client: Any, tmp_path: Path
) -> None:
    with instrumented(tmp_path, "bigquery"):
        client.query_and_wait("SELECT 1")
    server.refuse("POST", "/jobs", Failure("accessDenied"))
    with pytest.raises(SettlementError, match="no permission to read") as caught:
        settled(server, tmp_path, later=1)
    assert "roles/bigquery.resourceViewer" in caught.value.grant
    assert settled(server, tmp_path, later=1).settled == 1


def test_beyond_the_cap_nothing_is_paid(server: BigQueryServer, tmp_path: Path) -> None:
    costinsights.uninstrument()
    server.refuse("POST", "/jobs", Failure("bytesBilledLimitExceeded"))
    with pytest.raises(SettlementError, match="is maximum_bytes_billed enough"):
        settled(server, tmp_path)
    with pytest.raises(HistoryError, match="10485760 at least"):
        BigQueryHistory({"project": PROJECT, "maximum_bytes_billed": 1})
