"""`costinsights settle snowflake` on statements that the emulator ran, with figures that tests seed.

Emulator: that Snowflake fills its views in this way is not shown.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import costinsights
from costinsights.cli.app import cli
from costinsights.settlement.history import MARK, HistoryError
from costinsights.settlement.settling import SettlementError, WouldWake, settle
from costinsights.settlement.snowflake import SnowflakeHistory
from tests.servers.charges import Charges
from tests.servers.snowflake_fixtures import connect, instrumented, quiet
from tests.servers.snowflake_server import SnowflakeServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

CREDIT = Decimal("3.00")  # Enterprise, us-east-1
HOUR = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)
LATER = HOUR + timedelta(hours=12)
"""When this hour is past all lateness."""
PLAIN = HOUR.replace(tzinfo=None)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    quiet(monkeypatch, tmp_path / "home")


@pytest.fixture
def server() -> Iterator[SnowflakeServer]:
    with SnowflakeServer() as server:
        yield server


def options(server: SnowflakeServer, **more: object) -> dict[str, object]:
    return {
        "account": "acme",
        "user": "settlement",
        "password": "s3cr3t-91fa",
        "warehouse": "SMALL_WH",
        "host": server.host,
        "port": server.port,
        "protocol": "http",
        "edition": "enterprise",
        "region": "us-east-1",
        **more,
    }


def run(server: SnowflakeServer, ledger: Path, **more: Any) -> Settled:
    history = SnowflakeHistory(more.pop("given", None) or options(server))
    period: dict[str, Any] = {
        "since": HOUR,
        "until": HOUR + timedelta(hours=2),
        "now": LATER,
        **more,
    }
    return settle("snowflake", ledger=ledger, history=history, config={}, **period)


@pytest.fixture
def ledger(server: SnowflakeServer, tmp_path: Path) -> Path:
    """Run a program's statements in the hour, and say what they used."""
    with (
        instrumented(tmp_path / "ledger"),
        costinsights.attribute(asset="orders"),
        connect(server) as connection,
    ):
        cursor = connection.cursor()
        for number, (text, used) in enumerate(
            (
                ("CREATE TABLE t (a INT)", None),
                ("INSERT INTO t VALUES (1)", 0.25),
                ("SELECT 1", 0.5),
            )
        ):
            cursor.execute(text)
            server.account.history.ran(cursor.sfqid, PLAIN + timedelta(minutes=10 * number), 60)
            if used is not None:
                server.account.history.attribute(cursor.sfqid, used)
    server.account.history.meter("ETL_WH", PLAIN, 1.0, 0.75, cloud=0.01)
    return tmp_path / "ledger"


def latest(ledger: Path) -> list[Charge]:
    return Charges(ledger).new()


def money(charges: list[Charge]) -> Decimal:
    return sum((Decimal(charge.amount or 0) for charge in charges), Decimal(0))


def test_an_hours_credits_go_to_its_queries_and_the_rest_is_idle(
    server: SnowflakeServer, ledger: Path
) -> None:
    before = latest(ledger)
    report = run(server, ledger)
    assert (report.settled, report.added, report.idle, report.failed) == (3, 0, 1, "")
    found = {charge.operation: charge for charge in latest(ledger)}
    assert Decimal(found["INSERT"].amount or 0) == Decimal("0.25") * CREDIT
    assert Decimal(found["SELECT"].amount or 0) == Decimal("0.5") * CREDIT
    assert Decimal(found["IDLE"].amount or 0) == Decimal("0.25") * CREDIT
    assert Decimal(found["CREATE TABLE"].amount or -1) == 0  # cloud services alone
    assert money(list(found.values())) == CREDIT
    charge = found["SELECT"]
    assert charge.charge_id in {each.charge_id for each in before}
    assert (charge.basis, charge.attribution["asset"]) == ("allocated", "orders")
    assert charge.usage["credits_attributed"] == 0.5
    assert charge.price is not None
    assert charge.price.key == "snowflake.credit.enterprise/aws-us-east-1-us-west-2"
    assert found["IDLE"].resource.service == "ETL_WH"


def test_settling_twice_changes_nothing(server: SnowflakeServer, ledger: Path) -> None:
    run(server, ledger)
    first = latest(ledger)
    again = run(server, ledger)
    assert (again.settled, again.added, again.idle) == (0, 0, 0)
    assert latest(ledger) == first


def test_queries_of_others_take_their_part_and_become_charges_when_asked(
    server: SnowflakeServer, ledger: Path
) -> None:
    history = server.account.history
    begun = PLAIN + timedelta(minutes=40)
    for id_, used, tag in (("other", 0.2, "ci,asset=stock"), ("own", 0.05, MARK)):
        shared: dict[str, object] = {"query_id": id_, "query_tag": tag, "warehouse_name": "ETL_WH"}
        shared |= {"start_time": begun, "end_time": begun + timedelta(minutes=1)}
        history.add(
            "query_history",
            query_text="SELECT count(*) FROM stock",
            execution_status="SUCCESS",
            **shared,
        )
        history.add("query_attribution_history", credits_attributed_compute=used, **shared)
    history.set("warehouse_metering_history", credits_attributed_compute_queries=1.0)
    report = run(server, ledger, all=True)
    assert (report.settled, report.added) == (3, 1)
    found = {charge.vendor_id or charge.operation: charge for charge in latest(ledger)}
    other = found["other"]
    assert other.attribution["asset"] == "stock"
    assert Decimal(other.amount or 0) == Decimal("0.2") * CREDIT
    assert money(list(found.values())) == CREDIT
    assert "own" not in found


def test_a_script_has_the_credits_of_all_its_statements(
    server: SnowflakeServer, tmp_path: Path
) -> None:
    history = server.account.history
    with instrumented(tmp_path / "ledger") as charges, connect(server) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1; SELECT 2", num_statements=2)
        ids = [row["query_id"] for row in history.rows("query_history")]
        whole = charges.one().vendor_id
    for id_ in ids:
        history.ran(id_, PLAIN, 60)
        if id_ in history.roots:
            history.attribute(id_, 0.25)
    history.meter("ETL_WH", PLAIN, 0.5, 0.5)
    run(server, tmp_path / "ledger", all=True)
    found = [charge for charge in latest(tmp_path / "ledger") if charge.amount is not None]
    assert money(found) == Decimal("0.5") * CREDIT
    if whole not in history.roots:  # connector 3 and 4 know the first statement's id only
        assert [charge.vendor_id for charge in found if Decimal(charge.amount or 0)] == [whole]


def test_cloud_services_are_a_row_of_their_day(server: SnowflakeServer, tmp_path: Path) -> None:
    day = (PLAIN - timedelta(days=2)).replace(hour=0)
    for kind, used, adjustment in (("WAREHOUSE_METERING", 1.5, -1.0), ("PIPE", 0.25, 0.0)):
        server.account.history.add(
            "metering_daily_history",
            service_type=kind,
            usage_date=day.date(),
            credits_used_cloud_services=used,
            credits_adjustment_cloud_services=adjustment,
        )
    begin = day.replace(tzinfo=timezone.utc)
    run(server, tmp_path, since=begin, until=begin + timedelta(days=1, hours=2))
    [row] = [charge for charge in latest(tmp_path) if Decimal(charge.amount or 0)]
    assert Decimal(row.amount or 0) == Decimal("0.75") * CREDIT
    assert (row.operation, row.resource.service) == ("IDLE", None)


def test_a_suspended_warehouse_is_not_resumed_unless_told_to(
    server: SnowflakeServer, ledger: Path
) -> None:
    warehouse = server.account.warehouses["SMALL_WH"]
    warehouse.state = "SUSPENDED"
    said: list[str] = []
    with pytest.raises(WouldWake, match="a query resumes it, and that is charged for 60 s"):
        run(server, ledger, said=said.extend)
    assert any("0.80 USD at most" in line for line in said)  # Small: 2 credits × 4 × 120 s
    assert (warehouse.state, warehouse.resumed) == ("SUSPENDED", 0)
    assert run(server, ledger, wake=True).settled == 3
    assert (warehouse.state, warehouse.resumed) == ("STARTED", 1)


def test_what_is_young_is_left_for_later(server: SnowflakeServer, ledger: Path) -> None:
    report = run(server, ledger, now=HOUR + timedelta(hours=3))
    assert (report.settled, report.idle) == (0, 0)
    assert run(server, ledger).settled == 3


@pytest.mark.parametrize("view", ["query_attribution_history", "warehouse_metering_history"])
def test_a_permission_that_is_missing_is_named(
    server: SnowflakeServer, ledger: Path, view: str
) -> None:
    server.account.history.forbidden.add(view)
    try:
        report = run(server, ledger)
    except SettlementError as error:
        why, grant = str(error), error.grant
    else:
        why, grant = report.failed, report.grant
    assert f"no permission to read account_usage.{view}" in why.replace("query_history or ", "")
    assert "GRANT DATABASE ROLE SNOWFLAKE.USAGE_VIEWER" in grant
    server.account.history.forbidden.clear()
    assert run(server, ledger).settled == 3


def test_an_unknown_edition_is_named(server: SnowflakeServer, ledger: Path) -> None:
    report = run(server, ledger, given=options(server, edition=""))
    assert any("edition" in reason for reason in report.unpriced)
    assert all(charge.amount is None for charge in latest(ledger))


def test_an_unknown_warehouse_is_named(server: SnowflakeServer, ledger: Path) -> None:
    with pytest.raises(SettlementError, match="no warehouse NOWHERE") as caught:
        run(server, ledger, given=options(server, warehouse="NOWHERE"))
    assert "GRANT USAGE ON WAREHOUSE" in caught.value.grant


def test_a_wrong_password_is_not_repeated(server: SnowflakeServer, tmp_path: Path) -> None:
    server.refused = True
    with pytest.raises(SettlementError, match="no connection to") as caught:
        run(server, tmp_path)
    assert "s3cr3t-91fa" not in str(caught.value)


def test_options_are_checked(server: SnowflakeServer) -> None:
    with pytest.raises(HistoryError, match="warehouse"):
        SnowflakeHistory({"account": "acme", "user": "settlement"})


def test_its_own_requests_are_marked_and_counted(server: SnowflakeServer, ledger: Path) -> None:
    before = len(server.statements())
    report = run(server, ledger)
    assert report.requests == len(server.statements()) - before
    assert set(server.tags()[before:]) == {MARK}
    login = [each.body for each in server.requests if each.path.endswith("login-request")][-1]
    assert login["data"]["SESSION_PARAMETERS"]["STATEMENT_TIMEOUT_IN_SECONDS"] in (120, "120")


def test_on_the_command_line(
    server: SnowflakeServer, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["[settle.snowflake]"]
    lines += [
        f"{name} = {value}" if isinstance(value, int) else f'{name} = "{value}"'
        for name, value in options(server, password="${SETTLEMENT_PASSWORD}").items()
    ]
    path = tmp_path / "costinsights.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setenv("COSTINSIGHTS_CONFIG", str(path))
    monkeypatch.setenv("SETTLEMENT_PASSWORD", "s3cr3t-91fa")
    arguments = ["settle", "snowflake", "--since", "2d", "--ledger", str(ledger)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "account_usage.query_history" in result.output
    assert "That costs 0.80 USD at most." in result.output
    assert "s3cr3t" not in result.output
