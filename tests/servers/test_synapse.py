"""`costinsights settle azure.synapse`, on what real clients did and on history that tests seed.

Emulator: a TDS server; that Synapse fills its views in this way is not shown.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pymssql
import pytest
from click.testing import CliRunner

import costinsights
from costinsights.cli.app import cli
from costinsights.settlement.azure_synapse import KEPT, SynapseHistory
from costinsights.settlement.history import MARK, HistoryError
from costinsights.settlement.settling import SettlementError, settle
from costinsights.settlement.tds import plain
from tests.servers import tds_fixtures
from tests.servers.charges import Charges
from tests.servers.tds_clients import as_resource, instrumented
from tests.servers.tds_fixtures import at
from tests.servers.tds_server import Fault, TdsServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

SECOND, HOURS = timedelta(seconds=1), timedelta(hours=1)
NOW = datetime.now(timezone.utc)
HOUR = NOW.replace(minute=0, second=0, microsecond=0) - 9 * HOURS
"""The beginning of an hour that is past all lateness."""
DW200C, TB = Decimal("3.02"), Decimal("5.00")  # an hour; processed; West Europe
ROUNDING = Decimal("1e-12")

REQUESTS = {
    "request_id": "VARCHAR",
    "session_id": "VARCHAR",
    "label": "VARCHAR",
    "status": "VARCHAR",
    "submit_time": "TIMESTAMP",
    "start_time": "TIMESTAMP",
    "end_time": "TIMESTAMP",
    "total_elapsed_time": "INTEGER",
    "resource_class": "VARCHAR",
    "command": "VARCHAR",
    "result_cache_hit": "INTEGER",
    "error_id": "VARCHAR",
}
SESSIONS = {"session_id": "VARCHAR", "login_name": "VARCHAR", "app_name": "VARCHAR"}
PROCESSED = {
    "distributed_statement_id": "VARCHAR",
    "status": "VARCHAR",
    "login_name": "VARCHAR",
    "start_time": "TIMESTAMP",
    "end_time": "TIMESTAMP",
    "command": "VARCHAR",
    "query_text": "VARCHAR",
    "total_elapsed_time_ms": "INTEGER",
    "data_processed_mb": "BIGINT",
    "error_code": "INTEGER",
}


orders = tds_fixtures.orders


@pytest.fixture
def server(orders: TdsServer) -> TdsServer:
    orders.forget()
    dedicated(orders)
    orders.seed("sys.dm_pdw_exec_sessions", [], **SESSIONS)
    orders.seed("sys.database_service_objectives", [{"service_objective": "DW200c"}])
    serverless(orders)
    return orders


def dedicated(server: TdsServer, *rows: dict[str, object]) -> None:
    server.seed("sys.dm_pdw_exec_requests", rows, **REQUESTS)


def serverless(server: TdsServer, *rows: dict[str, object]) -> None:
    server.seed("sys.dm_exec_requests_history", rows, **PROCESSED)


def request(number: int, start: datetime, seconds: float, **more: object) -> dict[str, object]:
    end = start + timedelta(seconds=seconds)
    return {
        "request_id": f"QID{number}",
        "session_id": "SID1",
        "label": None,
        "status": "Completed",
        "submit_time": at(start),
        "start_time": at(start),
        "end_time": at(end),
        "total_elapsed_time": int(seconds * 1000),
        "resource_class": "smallrc",
        "command": f"SELECT {number}",
        "result_cache_hit": 0,
        **more,
    }


def statement(id_: str, start: datetime, megabytes: int, **more: object) -> dict[str, object]:
    return {
        "distributed_statement_id": f"{{{id_}}}",
        "status": "Succeeded",
        "login_name": "analyst",
        "start_time": at(start),
        "end_time": at(start + 2 * SECOND),
        "command": "SELECT",
        "query_text": f"SELECT a FROM OPENROWSET(BULK 'x', FORMAT = 'PARQUET') AS r WHERE a = {id_[0]}",
        "total_elapsed_time_ms": 2000,
        "data_processed_mb": megabytes,
        **more,
    }


def options(server: TdsServer, **more: object) -> dict[str, object]:
    return {
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "trust_certificate": True,
        "region": "westeurope",
        **more,
    }


def both(server: TdsServer, **more: object) -> dict[str, object]:
    pools = {"dedicated": server.host, "pool": "shop", "serverless": "localhost"}
    return options(server, **pools, **more)


def run(ledger: Path, given: dict[str, object], **more: Any) -> Settled:
    more = {"since": HOUR, "until": HOUR + HOURS, "all": True, "now": NOW, **more}
    return settle("azure.synapse", ledger=ledger, history=SynapseHistory(given), config={}, **more)


def by_id(ledger: Path) -> dict[str, Charge]:
    return {charge.vendor_id or charge.operation: charge for charge in Charges(ledger).new()}


def money(charges: Sequence[Charge]) -> Decimal:
    return sum((Decimal(charge.amount or 0) for charge in charges), Decimal(0))


# -- dedicated pool ---------------------------------------------------------------------------------


def test_an_hour_of_the_pool_is_split_by_run_time(server: TdsServer, tmp_path: Path) -> None:
    server.seed(
        "sys.dm_pdw_exec_sessions",
        [{"session_id": "SID1", "login_name": "etl", "app_name": "loader"}],
    )
    dedicated(
        server,
        request(1, HOUR, 1200),
        request(2, HOUR, 600, status="Failed"),
        request(3, HOUR + 30 * SECOND, 60, result_cache_hit=1),
        request(4, HOUR, 900, command=f"/* {MARK} */ SELECT 1", label=MARK),
    )
    report = run(tmp_path, both(server))
    assert (report.figures, report.added, report.failed) == (3, 3, "")
    found = by_id(tmp_path)
    used = DW200C / 3
    # Nothing ran for 40 minutes; our own share is on no program's bill.
    assert abs(money(list(found.values())) - DW200C) < ROUNDING
    assert abs(Decimal(found["QID1"].amount or 0) - used * 1200 / 2700) < ROUNDING
    assert abs(Decimal(found["QID2"].amount or 0) - used * 600 / 2700) < ROUNDING
    assert Decimal(found["QID3"].amount or 1) == 0
    assert found["QID2"].error is not None
    assert found["QID1"].basis == "allocated"
    assert abs(Decimal(found["IDLE"].amount or 0) - DW200C * 2 / 3) < ROUNDING
    price = found["QID1"].price
    assert price is not None
    assert price.key == "azure.synapse.dedicated_pool.dwu_100/westeurope"
    again = run(tmp_path, both(server))
    assert (again.added, again.settled, again.idle) == (0, 0, 0)


def test_resource_classes_weigh_what_the_user_says(server: TdsServer, tmp_path: Path) -> None:
    dedicated(server, request(1, HOUR, 600), request(2, HOUR, 600, resource_class="largerc"))
    run(tmp_path, both(server, weights={"largerc": 3}))
    found = by_id(tmp_path)
    one, two = (Decimal(found[name].amount or 0) for name in ("QID1", "QID2"))
    assert abs(two - 3 * one) < ROUNDING


def test_a_label_finds_the_charge_of_a_program(server: TdsServer, tmp_path: Path) -> None:
    settings = {"tagging": "comment", "config": as_resource("azure.synapse_dedicated")}
    with instrumented(tmp_path, "pymssql", **settings) as charges:
        with (
            costinsights.attribute(asset="orders", job="nightly"),
            pymssql.connect(
                server.host,
                server.user,
                server.password,
                "shop",
                port=str(server.port),
                autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT a FROM orders WHERE a < 5")
            assert len(cursor.fetchall()) == 5
        [charge] = charges.new()
    started = datetime.fromisoformat(charge.started_at.replace("Z", "+00:00"))
    hour = started.replace(minute=0, second=0, microsecond=0)
    assert charge.tag == "ci_asset_orders_job_nightly"
    [text] = server.texts()
    dedicated(
        server,
        request(7, started, 0.25, label=charge.tag, command=text),
        request(
            8, started, 0.25, label="somebody_elses", command="SELECT a FROM orders WHERE a < 5"
        ),
    )
    report = run(tmp_path, both(server), since=hour, until=hour + HOURS, now=hour + 5 * HOURS)
    assert (report.settled, report.added, report.found) == (1, 1, {"tag": 1})
    *_, settled = [one for one in Charges(tmp_path).new() if one.charge_id == charge.charge_id]
    assert (settled.revision, settled.basis, settled.vendor_id) == (2, "allocated", "QID7")
    assert settled.attribution["asset"] == "orders"
    assert Decimal(settled.amount or 0) > 0


def test_hours_without_a_request_are_not_known_to_be_paid_for(
    server: TdsServer, tmp_path: Path
) -> None:
    dedicated(server, request(1, HOUR, 60))
    run(tmp_path / "a", both(server), until=HOUR + 3 * HOURS)
    assert abs(money(Charges(tmp_path / "a").new()) - DW200C) < ROUNDING
    run(tmp_path / "b", both(server, always_on=True, dwu=400), until=HOUR + 3 * HOURS)
    assert abs(money(Charges(tmp_path / "b").new()) - 3 * 2 * DW200C) < ROUNDING


def test_what_the_pool_has_forgotten_is_said(server: TdsServer, tmp_path: Path) -> None:
    server.execute(
        "INSERT INTO sys.dm_pdw_exec_requests SELECT 'QID' || range, 'SID1', NULL, 'Completed',"
        f" TIMESTAMP '{at(HOUR + 1800 * SECOND)}' + range * INTERVAL 100 MILLISECOND,"
        f" TIMESTAMP '{at(HOUR + 1800 * SECOND)}' + range * INTERVAL 100 MILLISECOND,"
        f" TIMESTAMP '{at(HOUR + 1801 * SECOND)}' + range * INTERVAL 100 MILLISECOND,"
        f" 1000, 'smallrc', 'SELECT 1', 0, NULL FROM range({KEPT})"
    )
    report = run(tmp_path, both(server), dry_run=True)
    assert any("remembers its last 10000 requests" in said for said in report.incomplete)
    assert report.added == 0  # shares of an hour that is half forgotten are not known


# -- serverless pool --------------------------------------------------------------------------------


def test_data_processed_is_metered_with_its_minimum(server: TdsServer, tmp_path: Path) -> None:
    serverless(
        server,
        statement("1F9619FF-8B86-D011-B42D-00C04FC964FF", HOUR, 1_048_576),
        statement("2f9619ff-8b86-d011-b42d-00c04fc964ff", HOUR + 60 * SECOND, 3),
        statement("3F9619FF-8B86-D011-B42D-00C04FC964FF", HOUR + 120 * SECOND, 0),
        statement(
            "4F9619FF-8B86-D011-B42D-00C04FC964FF",
            HOUR + 180 * SECOND,
            0,
            command="CREATE VIEW",
            query_text="CREATE VIEW v AS SELECT 1 AS a",
        ),
        statement(
            "5F9619FF-8B86-D011-B42D-00C04FC964FF",
            HOUR + 240 * SECOND,
            40,
            query_text=f"/* {MARK} */ SELECT 1",
        ),
    )
    report = run(tmp_path, options(server, serverless=server.host))
    assert (report.figures, report.failed) == (4, "")
    found = by_id(tmp_path)
    one, two = (
        found["1F9619FF-8B86-D011-B42D-00C04FC964FF"],
        found["2F9619FF-8B86-D011-B42D-00C04FC964FF"],
    )
    assert (Decimal(one.amount or 0), one.basis) == (TB, "metered")
    assert abs(Decimal(two.amount or 0) - TB * 10 / 2**20) < Decimal("1e-14")
    assert any("0 MB" in said for said in report.incomplete)
    view = found.get("4F9619FF-8B86-D011-B42D-00C04FC964FF")
    assert view is not None
    assert Decimal(view.amount or 1) == 0
    again = run(tmp_path, options(server, serverless=server.host))
    assert (again.added, again.settled) == (0, 0)


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        (
            "(@P1 int,@P2 nvarchar(4000))SELECT a FROM t WHERE b = @P1 AND c = @p2",
            "SELECT a FROM t WHERE b = ? AND c = ?",
        ),
        ("SELECT 1 OPTION (LABEL = 'ci_asset_orders')", "SELECT 1"),
        ("SELECT 1 OPTION (HASH JOIN, LABEL = 'ci_x')", "SELECT 1 OPTION (HASH JOIN)"),
        ("SELECT 1 OPTION (LABEL = 'mine')", "SELECT 1 OPTION (LABEL = 'mine')"),
        ("(SELECT 1)", "(SELECT 1)"),
    ],
)
def test_statements_are_taken_back_to_what_the_program_wrote(sent: str, written: str) -> None:
    assert plain(sent) == written


# -- asking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["mssql_python", "pyodbc"])
def test_the_command_line(
    server: TdsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    dedicated(server, request(1, HOUR, 1200))
    monkeypatch.setenv("SYNAPSE_PASSWORD", server.password)
    configuration = tmp_path / "costinsights.toml"
    configuration.write_text(
        f'ledger = "{tmp_path / "ledger"}"\n[settle."azure.synapse"]\n'
        f'dedicated = "{server.host}"\npool = "shop"\nport = {server.port}\n'
        f'user = "{server.user}"\npassword = "${{SYNAPSE_PASSWORD}}"\nregion = "westeurope"\n'
        f'trust_certificate = true\ndwu = 200\ndriver = "{driver}"\nodbc_driver = "FreeTDS"\n'
    )
    monkeypatch.setenv("COSTINSIGHTS_CONFIG", str(configuration))
    since, until = f"{HOUR:%Y-%m-%dT%H:%M}", f"{HOUR + HOURS:%Y-%m-%dT%H:%M}"
    result = CliRunner().invoke(
        cli,
        [
            "settle",
            "azure.synapse",
            "--since",
            since,
            "--until",
            until,
            "--all",
            "--format",
            "json",
        ],
    )
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["added"], said["requests"]) == (1, 2)
    assert server.password not in result.output
    assert all(MARK in text for text in server.texts())
    if driver == "pyodbc":
        assert {request.application for request in server.requests} == {MARK}


def test_a_missing_permission_names_the_grant(server: TdsServer, tmp_path: Path) -> None:
    server.on("dm_pdw_exec_requests", Fault("VIEW DATABASE STATE permission was denied.", 300))
    with pytest.raises(SettlementError) as caught:
        run(tmp_path, both(server))
    assert "GRANT VIEW DATABASE STATE" in caught.value.grant


def test_a_server_that_is_not_there_is_said_without_secrets(
    server: TdsServer, tmp_path: Path
) -> None:
    with pytest.raises(SettlementError, match="no connection to") as caught:
        run(tmp_path, both(server, password="not-this-one"))
    assert "not-this-one" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "neither dedicated nor serverless"),
        ({"dedicated": "x.sql.azuresynapse.net"}, "pool names"),
        ({"pol": "x"}, "pol"),
        ({"dwu": "large"}, "int"),
    ],
)
def test_wrong_options_are_said(given: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises((HistoryError, SettlementError), match=said):
        run(tmp_path, given)
