"""`costinsights settle dremio` on history that the tests seed, read by the unmodified ADBC driver.

Emulator: that Dremio fills its system tables in this way is not shown.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights.settlement.dremio import DremioHistory
from costinsights.settlement.history import MARK
from costinsights.settlement.settling import SettlementError, WouldWake, settle
from tests.servers.charges import Charges
from tests.servers.dremio_server import Dremio, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

flightsql: Any = import_module("adbc_driver_flightsql.dbapi")

NOW = datetime.now(timezone.utc)
HOUR = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=9)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def server() -> Iterator[Dremio]:
    with serving() as server:
        yield server


def job(
    number: int, start: datetime, seconds: float, cpu_ms: int, **more: object
) -> dict[str, object]:
    begun = int(start.timestamp() * 1000)
    return {
        "job_id": f"job-{number}",
        "status": "COMPLETED",
        "query_type": "ADBC",
        "user_name": "ana",
        "engine": "small",
        "submitted_epoch_millis": begun,
        "final_state_epoch_millis": begun + int(seconds * 1000),
        "rows_returned": 1,
        "bytes_scanned": 4096,
        "execution_cpu_time_ns": cpu_ms * 10**6,
        "query": f"SELECT {number} FROM orders",
        **more,
    }


def usage(start: datetime, minutes: int, dcus: float, engine: str = "e-1") -> dict[str, object]:
    plain = start.replace(tzinfo=None)
    return {
        "replica_id": f"r-{engine}",
        "engine_id": engine,
        "start_time": plain,
        "end_time": plain + timedelta(minutes=minutes),
        "total_usage_dcus": dcus,
    }


def run(server: Dremio, ledger: Path, given: dict[str, object], **more: Any) -> Settled:
    until = HOUR + timedelta(hours=1)
    more = {"config": {}, "since": HOUR, "until": until, "all": True, "now": NOW, **more}
    reader = DremioHistory({"uri": f"grpc://127.0.0.1:{server.port}", **given})
    return settle("dremio", ledger=ledger, history=reader, **more)


def charges_in(ledger: Path) -> list[Charge]:
    latest = {charge.charge_id: charge for charge in Charges(ledger).entries()}
    return list(latest.values())


def total(charges: list[Charge]) -> Decimal:
    return sum((Decimal(charge.amount or 0) for charge in charges), Decimal(0))


def test_dcus_are_split_by_cpu_time(server: Dremio, tmp_path: Path) -> None:
    server.seed("sys.organization.usage", [usage(HOUR, 15, 1.0)])
    server.seed(
        "sys.project.history.jobs",
        [job(1, HOUR, 300, 3000), job(2, HOUR, 300, 1000, status="FAILED")],
    )
    report = run(server, tmp_path, {"edition": "cloud"}, wake=True)
    assert (report.figures, report.added, report.failed) == (2, 2, "")
    found = {charge.vendor_id or charge.operation: charge for charge in charges_in(tmp_path)}
    # A third of the quarter of an hour was busy: 0.20 USD ÷ 3, three to one.
    assert Decimal(found["job-1"].amount or 0) == pytest.approx(
        Decimal("0.05"), rel=Decimal("1e-9")
    )
    assert Decimal(found["job-2"].amount or 0) == pytest.approx(
        Decimal("0.05") / 3, rel=Decimal("1e-9")
    )
    assert found["job-1"].usage["bytes_scanned"] == 4096
    error = found["job-2"].error
    assert error is not None
    assert error.type == "FAILED"
    assert total([*found.values()]) == Decimal("0.20")
    again = run(server, tmp_path, {"edition": "cloud"}, wake=True)
    assert (again.added, again.settled) == (0, 0)


def test_engines_that_are_named_are_split_apart(server: Dremio, tmp_path: Path) -> None:
    server.seed("sys.organization.usage", [usage(HOUR, 60, 1.0), usage(HOUR, 60, 3.0, "e-2")])
    server.seed(
        "sys.project.history.jobs",
        [job(1, HOUR, 3600, 1000), job(2, HOUR, 3600, 1000, engine="large")],
    )
    engines = {"small": "e-1", "large": "e-2"}
    run(server, tmp_path, {"edition": "cloud", "engines": engines}, wake=True)
    found = {charge.vendor_id or charge.operation: charge for charge in charges_in(tmp_path)}
    amounts = {name: Decimal(charge.amount or 0) for name, charge in found.items()}
    assert amounts["job-1"] == Decimal("0.2")
    assert amounts["job-2"] == Decimal("0.6")


def test_software_costs_what_the_user_says(server: Dremio, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(
        '[[capacity]]\nname = "dremio"\nhost = "127.0.0.1"\n'
        'price = "4"\ncurrency = "EUR"\nsource = "two machines"\nas_of = "2026-11"\n',
        encoding="utf-8",
    )
    server.seed("sys.jobs_recent", [job(1, HOUR, 1800, 1000)])
    ledger = tmp_path / "ledger"
    run(server, ledger, {}, config={"price_books": [str(prices)]})
    found = {charge.vendor_id or charge.operation: charge for charge in charges_in(ledger)}
    assert Decimal(found["job-1"].amount or 0) == 2
    assert total([*found.values()]) == 4


def test_a_programs_statement_is_found_without_an_id(server: Dremio, tmp_path: Path) -> None:
    """A job's id does not come with Flight SQL: statement and time tell, where nothing else fits."""
    declared = {"resource": [{"name": "lake", "host": "127.0.0.1", "system": "dremio"}]}
    costinsights.instrument("adbc_flightsql", ledger=tmp_path, exporters=[], config=declared)
    try:
        uri = f"grpc://127.0.0.1:{server.port}"
        with flightsql.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            started = datetime.now(timezone.utc)
            cursor.execute("SELECT 7 AS seven")
            cursor.fetchall()
        recorded = Charges(tmp_path).one()
    finally:
        costinsights.uninstrument()
    assert recorded.vendor_id is None
    text = {"query": "SELECT 7 AS seven"}
    server.seed("sys.jobs_recent", [job(1, started, 0.001, 5, **text)])
    begin = started.replace(minute=0, second=0, microsecond=0)
    report = run(
        server,
        tmp_path,
        {},
        since=begin,
        until=begin + timedelta(hours=1),
        now=NOW + timedelta(hours=9),
        all=False,
    )
    assert (report.figures, report.found) == (1, {"statement": 1})


def test_an_engine_is_not_started_unasked(server: Dremio, tmp_path: Path) -> None:
    with pytest.raises(WouldWake, match="start an engine"):
        run(server, tmp_path, {"edition": "cloud"})
    assert server.requests == []


def test_a_missing_permission_is_named_with_its_grant(server: Dremio, tmp_path: Path) -> None:
    server.refuses.add("sys.jobs_recent")
    with pytest.raises(SettlementError, match="no permission to read") as refused:
        run(server, tmp_path, {"token": "s3cr3t-77ac"})
    assert "VIEW JOB HISTORY" in refused.value.grant
    assert "s3cr3t" not in str(refused.value)


def test_its_own_queries_are_marked(server: Dremio, tmp_path: Path) -> None:
    run(server, tmp_path, {"cpu": "execution_cpu_time_ns"})
    assert server.statements
    assert all(MARK in text for text in server.statements)
