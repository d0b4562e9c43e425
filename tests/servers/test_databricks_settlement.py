"""`costinsights settle databricks` on statements that ran, and on history that the tests seed.

Emulator: that Databricks fills its system tables in this way is not shown.
"""

from __future__ import annotations

import gc
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights.settlement.databricks import DatabricksHistory
from costinsights.settlement.history import MARK
from costinsights.settlement.settling import SettlementError, WouldWake, settle
from tests.servers.charges import Charges, instrumented
from tests.servers.databricks_server import Statement, Workspace, moment, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

sql: Any = import_module("databricks.sql")

NOW = datetime.now(timezone.utc)
HOUR = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
"""The beginning of an hour that is past all lateness."""
PATH = "/sql/1.0/warehouses/abc123"
SKU = "PREMIUM_SERVERLESS_SQL_COMPUTE_US_EAST_N_VIRGINIA"
EACH = Decimal("0.70")


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with serving() as workspace:
        yield workspace
    gc.collect()


class Later(DatabricksHistory):
    """The reader, two days from now: what ran a moment ago is history, and its hours are billed."""

    pause = 0.05

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + timedelta(days=2)


def options(workspace: Workspace, **more: object) -> dict[str, object]:
    return {
        "host": f"http://127.0.0.1:{workspace.port}",
        "token": "dapi-77ac-s3cr3t",
        "warehouse": "abc123",
        **more,
    }


def run(
    workspace: Workspace, ledger: Path, *, given: Mapping[str, object] | None = None, **more: Any
) -> Settled:
    more = {"since": HOUR, "until": HOUR + timedelta(hours=1), "all": True, "now": NOW, **more}
    reader = Later(options(workspace, **(given or {})))
    return settle("databricks", ledger=ledger, history=reader, config={}, **more)


def query(
    number: int, start: datetime, seconds: float, task_ms: int, **more: object
) -> dict[str, object]:
    return {
        "statement_id": f"01ef0000-0000-0000-0000-{number:012d}",
        "execution_status": "FINISHED",
        "compute": {"type": "WAREHOUSE", "warehouse_id": "abc123"},
        "executed_by": "ana@example.com",
        "statement_text": f"SELECT {number} FROM orders",
        "statement_type": "SELECT",
        "start_time": plain(start),
        "end_time": plain(start + timedelta(seconds=seconds)),
        "total_task_duration_ms": task_ms,
        "execution_duration_ms": int(seconds * 1000),
        "read_bytes": 4096,
        "produced_rows": 1,
        "from_result_cache": False,
        **more,
    }


def usage(start: datetime, dbus: str, kind: str = "ORIGINAL", **more: object) -> dict[str, object]:
    return {
        "record_id": f"{kind}-{start}",
        "sku_name": SKU,
        "cloud": "AWS",
        "usage_start_time": plain(start),
        "usage_end_time": plain(start + timedelta(hours=1)),
        "usage_date": start.date(),
        "usage_unit": "DBU",
        "usage_quantity": Decimal(dbus),
        "usage_metadata": {"warehouse_id": "abc123"},
        "record_type": kind,
        **more,
    }


def price(
    each: Decimal = EACH, start: datetime = HOUR - timedelta(days=900), **more: object
) -> dict[str, object]:
    return {
        "sku_name": SKU,
        "cloud": "AWS",
        "currency_code": "USD",
        "usage_unit": "DBU",
        "price_start_time": plain(start),
        "pricing": {"default": each, "effective_list": {"default": each}},
        **more,
    }


def plain(moment: datetime) -> datetime:
    """A moment as the emulator's tables have it: UTC, and no word of that."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


def charges_in(ledger: Path) -> list[Charge]:
    latest = {charge.charge_id: charge for charge in Charges(ledger).entries()}
    return list(latest.values())


def total(charges: list[Charge]) -> Decimal:
    return sum((Decimal(charge.amount or 0) for charge in charges), Decimal(0))


def test_an_hour_is_split_by_task_time_and_idle_stands_alone(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.seed("billing.usage", [usage(HOUR, "6.00000000000000123")])
    workspace.seed("billing.list_prices", [price()])
    workspace.seed(
        "query.history",
        [
            query(1, HOUR, 900, 3000),
            query(2, HOUR, 900, 1000),
            query(3, HOUR + timedelta(minutes=20), 1, 0, from_result_cache=True),
        ],
    )
    report = run(workspace, tmp_path)
    assert (report.figures, report.added, report.failed) == (3, 3, "")
    found = {charge.vendor_id or charge.operation: charge for charge in charges_in(tmp_path)}
    first, second, cached = (found[f"01ef0000-0000-0000-0000-{n:012d}"] for n in (1, 2, 3))
    assert first.amount is not None
    assert second.amount is not None
    assert Decimal(first.amount) == pytest.approx(3 * Decimal(second.amount), rel=Decimal("1e-9"))
    assert Decimal(cached.amount or 0) < Decimal("0.01")
    assert first.usage["total_task_duration_ms"] == 3000
    assert first.usage["read_bytes"] == 4096
    assert cached.usage["from_result_cache"] == 1
    assert first.price is not None
    assert first.price.source == f"system.billing.list_prices: {SKU}"
    idle = found["IDLE"]
    assert Decimal(idle.amount or 0) > Decimal("2.7")  # of 45 minutes
    assert total(list(found.values())) == Decimal("4.200000000000001")  # exact to 10⁻¹⁵


def test_settling_twice_changes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    workspace.seed("billing.usage", [usage(HOUR, "6")])
    workspace.seed("billing.list_prices", [price()])
    workspace.seed("query.history", [query(1, HOUR, 900, 3000)])
    run(workspace, tmp_path)
    before = charges_in(tmp_path)
    again = run(workspace, tmp_path)
    assert (again.added, again.settled) == (0, 0)
    later = [charge for charge in charges_in(tmp_path) if charge.operation != "costinsights.self"]
    assert total(later) == total(before) == Decimal("4.2")


def test_corrections_of_the_bill_net_out(workspace: Workspace, tmp_path: Path) -> None:
    workspace.seed(
        "billing.usage",
        [
            usage(HOUR, "6"),
            usage(HOUR, "-6", "RETRACTION"),
            usage(HOUR, "5", "RESTATEMENT"),
            usage(HOUR + timedelta(hours=1), "6"),
            usage(HOUR + timedelta(hours=1), "-6", "RETRACTION"),
        ],
    )
    workspace.seed("billing.list_prices", [price()])
    run(workspace, tmp_path, until=HOUR + timedelta(hours=2))
    assert total(charges_in(tmp_path)) == Decimal("3.5")


def test_a_price_holds_from_its_hour_on_and_a_discount_is_taken_off(
    workspace: Workspace, tmp_path: Path
) -> None:
    change = HOUR + timedelta(hours=1)
    workspace.seed("billing.usage", [usage(HOUR - timedelta(hours=1), "1"), usage(change, "1")])
    workspace.seed(
        "billing.list_prices",
        [price(price_end_time=plain(change)), price(Decimal("0.90"), change)],
    )
    run(
        workspace,
        tmp_path,
        given={"multiplier": "0.5"},
        since=HOUR - timedelta(hours=1),
        until=HOUR + timedelta(hours=2),
    )
    assert total(charges_in(tmp_path)) == Decimal("0.35") + Decimal("0.45")


def test_with_the_rate_known_only_the_time_it_was_on_is_idle(
    workspace: Workspace, tmp_path: Path
) -> None:
    # 3 DBU at 12 an hour: it was on for a quarter of an hour, and busy for 10 minutes of that.
    workspace.seed("billing.usage", [usage(HOUR, "3")])
    workspace.seed("billing.list_prices", [price()])
    workspace.seed("query.history", [query(1, HOUR, 600, 3000)])
    run(workspace, tmp_path, given={"dbus_per_hour": {"abc123": "12"}})
    idle = next(charge for charge in charges_in(tmp_path) if charge.operation == "IDLE")
    assert Decimal(idle.amount or 0) == pytest.approx(Decimal("0.70"), rel=Decimal("1e-9"))


def test_queries_of_others_are_attributed_by_their_tags(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.seed("billing.usage", [usage(HOUR, "6")])
    workspace.seed("billing.list_prices", [price()])
    workspace.seed(
        "query.history",
        [
            query(1, HOUR, 60, 10, query_tags=[("ci_asset", "orders"), ("ci_job", "nightly")]),
            query(2, HOUR, 60, 10, query_tags=[("team", "growth")], statement_text="<REDACTED>"),
            query(3, HOUR, 60, 10, query_tags=[(MARK, "1")]),
        ],
    )
    report = run(workspace, tmp_path)
    assert report.figures == 2  # our own are not counted
    found = {charge.vendor_id or "": charge for charge in charges_in(tmp_path)}
    first = found["01ef0000-0000-0000-0000-000000000001"].attribution
    assert (first["asset"], first["job"]) == ("orders", "nightly")
    second = found["01ef0000-0000-0000-0000-000000000002"]
    assert second.attribution["team"] == "growth"
    assert "REDACTED" not in Charges(tmp_path).text()


def test_what_programs_ran_gets_its_share_by_the_statements_id(
    workspace: Workspace, tmp_path: Path
) -> None:
    def figures(statement: Statement) -> Mapping[str, object]:
        weight = 1000 if MARK not in statement.text else 0
        return {"total_task_duration_ms": weight, "read_bytes": 77}

    workspace.figures = figures
    with instrumented(tmp_path, "databricks_sql") as charges:
        with sql.connect(
            server_hostname="127.0.0.1",
            http_path=PATH,
            access_token="x",
            enable_telemetry=False,
            _port=workspace.port,
            _connection_uri=f"http://127.0.0.1:{workspace.port}{PATH}",
        ) as connection:
            cursor = connection.cursor()
            with costinsights.attribute(asset="orders"):
                cursor.execute("SELECT 1")
            cursor.execute("SELECT 2")
            cursor.close()
        charges.new()
    ran = [moment(statement.started) for statement in workspace.statements]
    begin = ran[0].replace(minute=0, second=0, microsecond=0)
    hours = [begin, begin + timedelta(hours=1)]  # the second, should one just begin
    workspace.seed("billing.usage", [usage(hour, "6") for hour in hours])
    workspace.seed("billing.list_prices", [price()])
    report = run(
        workspace,
        tmp_path,
        since=begin,
        until=begin + timedelta(hours=2),
        now=NOW + timedelta(days=2),
        all=False,
    )
    assert report.found == {"id": 2}
    assert report.settled == 2
    found = [charge for charge in charges_in(tmp_path) if charge.instrumentor == "databricks_sql"]
    assert len(found) == 2
    assert {charge.attribution.get("asset") for charge in found} == {"orders", None}
    assert all(charge.usage["read_bytes"] == 77 for charge in found)
    assert all(charge.basis != "unknown" and charge.amount is not None for charge in found)


def test_a_day_that_is_too_much_is_read_in_parts(workspace: Workspace, tmp_path: Path) -> None:
    workspace.most_rows = 7
    workspace.seed("billing.usage", [usage(HOUR, "6")])
    workspace.seed("billing.list_prices", [price()])
    workspace.seed(
        "query.history",
        [query(n, HOUR + timedelta(minutes=2 * n), 30, 10) for n in range(25)],
    )
    report = run(workspace, tmp_path)
    assert (report.figures, report.added, report.failed) == (25, 25, "")


# --- what it does not do ----------------------------------------------------------------------------


def test_a_warehouse_that_sleeps_is_not_woken(workspace: Workspace, tmp_path: Path) -> None:
    workspace.warehouses["abc123"].update(state="STOPPED", auto_stop_mins=10)
    with pytest.raises(WouldWake, match=r"abc123 \(Small\) is stopped.*10 minutes"):
        run(workspace, tmp_path)
    assert workspace.statements == []
    assert workspace.calls()[-1] == "GET /api/2.0/sql/warehouses/abc123"
    run(workspace, tmp_path, wake=True)
    assert workspace.warehouses["abc123"]["state"] == "RUNNING"


def test_a_missing_permission_is_named_with_its_grant(workspace: Workspace, tmp_path: Path) -> None:
    workspace.refuses.add("query.history")
    with pytest.raises(SettlementError, match="no permission") as refused:
        run(workspace, tmp_path)
    assert "GRANT SELECT ON TABLE system.query.history" in refused.value.grant


def test_without_the_bill_the_charges_stay_as_they_are(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.refuses.add("billing.usage")
    workspace.seed("query.history", [query(1, HOUR, 60, 10)])
    report = run(workspace, tmp_path)
    assert "no permission to read" in report.failed
    assert "system.billing.usage" in report.grant
    assert total(charges_in(tmp_path)) == 0


def test_a_young_hour_is_left_for_later(workspace: Workspace, tmp_path: Path) -> None:
    young = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=4)
    workspace.seed("billing.usage", [usage(young, "6")])
    workspace.seed("billing.list_prices", [price()])
    workspace.seed("query.history", [query(1, young, 60, 10)])
    reader = DatabricksHistory(options(workspace))
    report = settle(
        "databricks",
        young,
        young + timedelta(hours=1),
        ledger=tmp_path,
        history=reader,
        config={},
        now=NOW,
        all=True,
    )
    assert report.added == 0
    assert report.left


def test_a_sku_without_a_list_price_is_named(workspace: Workspace, tmp_path: Path) -> None:
    workspace.seed("billing.usage", [usage(HOUR, "6")])
    report = run(workspace, tmp_path)
    assert any(SKU in why for why in report.incomplete)
    assert total(charges_in(tmp_path)) == 0


def test_the_login_is_not_in_what_is_said(workspace: Workspace, tmp_path: Path) -> None:
    workspace.answers["/api/2.0/sql/warehouses"] = (
        401,
        {"error_code": "UNAUTHENTICATED", "message": "dapi-77ac-s3cr3t"},
    )
    with pytest.raises(SettlementError, match="does not accept the login") as refused:
        run(workspace, tmp_path)
    assert "s3cr3t" not in str(refused.value)


def test_its_own_queries_are_marked_and_bounded(workspace: Workspace, tmp_path: Path) -> None:
    run(workspace, tmp_path)
    assert len(workspace.statements) >= 3
    for statement in workspace.statements:
        assert MARK in statement.text
        assert statement.tags == {MARK: "1"}
        assert "TIMESTAMP '" in statement.text
