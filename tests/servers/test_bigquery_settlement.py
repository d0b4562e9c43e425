"""`costinsights settle gcp.bigquery` by the unmodified client, on a server of ours."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
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
    server: BigQueryServer,
    ledger: Path,
    *,
    config: Any = None,
    later: int = 0,
    options: Any = None,
    **more: Any,
) -> Settled:
    now = datetime.now(timezone.utc) + timedelta(minutes=later)
    place: dict[str, object] = {"project": PROJECT, "endpoint_url": server.url, **(options or {})}
    return settle(
        "gcp.bigquery",
        now - timedelta(hours=3),
        ledger=ledger,
        history=BigQueryHistory(place),
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


@pytest.mark.parametrize(
    ("shared", "small", "large", "idle"),
    [(False, "0.1016666667", "0.9150000000", "5.0833333333"), (True, "0.01", "0.09", "6.00")],
)
def test_a_reservations_timeline_says_what_its_hours_cost(
    server: BigQueryServer, tmp_path: Path, shared: bool, small: str, large: str, idle: str
) -> None:
    """100 slots all the hour and 6,000 slot-seconds of autoscaling: 366,000 at 0.06 USD an hour."""
    name = "admin:US.prod"
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
    hour -= timedelta(hours=2)
    for minute in range(60):
        autoscaled = 6000 if minute == 15 else 0
        at = hour + timedelta(minutes=minute)
        server.minute(name, at, slots_assigned=100, period_autoscale_slot_seconds=autoscaled)
        elsewhere = {"slots_assigned": 100, "is_creation_region": False}
        server.minute(name, at, **elsewhere)  # a failover's other side is not billed for it
        server.minute("admin:US.other", at, slots_assigned=500)  # nothing of ours ran there
    for size, slot_ms in (("small", 600_000), ("large", 5_400_000)):
        server.seed(size, billed=TIB, reservation=name, slot_ms=slot_ms, seconds=600.0)
        server.run(f"SELECT 1 AS {size}").began = (hour + timedelta(minutes=10)).timestamp()
    options = {"admin_project": "admin", "shared": shared}
    report = settled(server, tmp_path, all=True, later=1, options=options)
    found = {
        charge.operation if charge.statement is None else charge.statement.text: charge
        for charge in Charges(tmp_path).entries()
        if charge.price is not None and charge.price.key.startswith("gcp.bigquery.slot.enterprise/")
    }
    amounts = {words: Decimal(charge.amount or 0) for words, charge in found.items()}
    assert sum(amounts.values()) == Decimal("6.10")
    assert {words: round(amount, 10) for words, amount in amounts.items()} == {
        "SELECT ? AS small": Decimal(small),
        "SELECT ? AS large": Decimal(large),
        "IDLE": Decimal(idle),
    }
    assert {charge.basis for charge in found.values()} == {"allocated"}
    assert report.requests == 2
    assert settled(server, tmp_path, all=True, later=1, options=options).settled == 0


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
