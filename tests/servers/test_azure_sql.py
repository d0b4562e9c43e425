"""`costinsights settle azure.sql`: Query Store, tiers, and a database that must not be woken.

Emulator: a TDS server; that Azure SQL fills its views in this way is not shown.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pymssql
import pytest
from click.testing import CliRunner

from costinsights.cli.app import cli
from costinsights.settlement.azure_sql import AzureSQLHistory
from costinsights.settlement.history import MARK
from costinsights.settlement.settling import SettlementError, WouldWake, settle
from tests.servers import tds_fixtures
from tests.servers.charges import Charges
from tests.servers.tds_clients import as_resource, instrumented
from tests.servers.tds_fixtures import at
from tests.servers.tds_server import Fault, TdsServer

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

SECOND, HOURS = timedelta(seconds=1), timedelta(hours=1)
NOW = datetime.now(timezone.utc)
HOUR = NOW.replace(minute=0, second=0, microsecond=0) - 9 * HOURS
S1 = Decimal("0.0403")  # an hour, eastus
VCORE, LICENCE = Decimal("0.152215"), Decimal("0.099966")  # a vCore's hour
SERVERLESS = Decimal("0.52176")  # a vCore's hour
ROUNDING = Decimal("1e-12")
DATABASE = "/subscriptions/1/resourceGroups/g/providers/Microsoft.Sql/servers/s/databases/shop"

STATS = {
    "plan_id": "BIGINT",
    "runtime_stats_interval_id": "BIGINT",
    "execution_type": "INTEGER",
    "count_executions": "BIGINT",
    "avg_cpu_time": "DOUBLE",
    "avg_duration": "DOUBLE",
    "avg_logical_io_reads": "DOUBLE",
    "avg_rowcount": "DOUBLE",
    "first_execution_time": "TIMESTAMP",
    "last_execution_time": "TIMESTAMP",
}
USED = {
    "end_time": "TIMESTAMP",
    "avg_cpu_percent": "DOUBLE",
    "avg_memory_usage_percent": "DOUBLE",
    "cpu_limit": "DOUBLE",
}


orders = tds_fixtures.orders


@pytest.fixture
def server(orders: TdsServer) -> TdsServer:
    orders.forget()
    orders.seed("sys.database_service_objectives", [{"service_objective": "S1"}])
    orders.seed("sys.dm_db_resource_stats", [], **USED)
    stored(orders)
    return orders


def stored(server: TdsServer, *queries: dict[str, Any], hour: datetime = HOUR) -> None:
    """Seed Query Store: each query with its text and its sums in one hour."""
    numbered = list(enumerate(queries, 1))
    server.seed(
        "sys.query_store_query_text",
        [{"query_text_id": n, "query_sql_text": query["text"]} for n, query in numbered],
        query_text_id="BIGINT",
        query_sql_text="VARCHAR",
    )
    server.seed(
        "sys.query_store_query",
        [{"query_id": n, "query_text_id": n, "query_hash": bytes([n] * 8)} for n, _ in numbered],
        query_id="BIGINT",
        query_text_id="BIGINT",
        query_hash="BLOB",
    )
    server.seed(
        "sys.query_store_plan",
        [{"plan_id": n, "query_id": n} for n, _ in numbered],
        plan_id="BIGINT",
        query_id="BIGINT",
    )
    server.seed(
        "sys.query_store_runtime_stats_interval",
        [
            {
                "runtime_stats_interval_id": 1,
                "start_time": at(hour),
                "end_time": at(hour + HOURS),
            }
        ],
    )
    server.seed(
        "sys.query_store_runtime_stats",
        [
            {
                "plan_id": n,
                "runtime_stats_interval_id": 1,
                "execution_type": query.get("ended", 0),
                "count_executions": query.get("executions", 1),
                "avg_cpu_time": query["cpu"] * 1e6,
                "avg_duration": query.get("duration", query["cpu"]) * 1e6,
                "avg_logical_io_reads": 10.0,
                "avg_rowcount": 2.0,
                "first_execution_time": at(query["first"]),
                "last_execution_time": at(query.get("last", query["first"])),
            }
            for n, query in numbered
        ],
        **STATS,
    )


def options(server: TdsServer, **more: object) -> dict[str, object]:
    return {
        "host": server.host,
        "database": "shop",
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "trust_certificate": True,
        "region": "eastus",
        **more,
    }


def run(ledger: Path, given: dict[str, object], **more: Any) -> Settled:
    more = {"since": HOUR, "until": HOUR + HOURS, "all": True, "now": NOW, **more}
    return settle("azure.sql", ledger=ledger, history=AzureSQLHistory(given), config={}, **more)


def money(charges: Sequence[Charge]) -> Decimal:
    return sum((Decimal(charge.amount or 0) for charge in charges), Decimal(0))


def test_an_hour_is_split_by_cpu_time(server: TdsServer, tmp_path: Path) -> None:
    stored(
        server,
        {"text": "SELECT 1", "cpu": 30, "first": HOUR, "duration": 1800},
        {"text": "SELECT 2", "cpu": 10, "first": HOUR, "duration": 1800, "ended": 3},
        {
            "text": "SELECT 3",
            "cpu": 4,
            "executions": 5,
            "first": HOUR,
            "last": HOUR + 1800 * SECOND,
        },
        {"text": f"/* {MARK} */ SELECT 4", "cpu": 0, "first": HOUR},
    )
    given = options(server, service_objective="S1")
    report = run(tmp_path, given)
    assert (report.figures, report.failed) == (3, "")
    charges = Charges(tmp_path).new()
    used = S1 / 2  # half of the hour nothing ran
    ran = {
        (charge.vendor_id or "")[:16]: charge for charge in charges if charge.operation != "IDLE"
    }
    assert sorted(ran) == ["01" * 8, "02" * 8]  # the five executions of the third are no one's
    assert abs(Decimal(ran["01" * 8].amount or 0) - used * 30 / 60) < ROUNDING
    assert abs(Decimal(ran["02" * 8].amount or 0) - used * 10 / 60) < ROUNDING
    assert ran["02" * 8].error is not None
    idle = [charge for charge in charges if charge.operation == "IDLE"]
    assert abs(money(idle) - S1 / 2) < ROUNDING
    again = run(tmp_path, given)
    assert (again.added, again.settled, again.idle) == (0, 0, 0)


def test_a_single_execution_finds_its_charge_and_a_sum_finds_none(
    server: TdsServer, tmp_path: Path
) -> None:
    resource = as_resource("azure.sql", "azure.sql")
    with instrumented(tmp_path, "pymssql", config=resource) as charges:
        with (
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
            for text in ("SELECT a FROM orders", "SELECT a FROM orders WHERE a > 1"):
                cursor.execute(text)
                cursor.fetchall()
        once, often = charges.new()
    assert once.system == "azure.sql"
    begun = datetime.fromisoformat(once.started_at.replace("Z", "+00:00"))
    hour = begun.replace(minute=0, second=0, microsecond=0)
    stored(
        server,
        {"text": "SELECT a FROM orders", "cpu": 0.1, "first": begun},
        {
            "text": "SELECT a FROM orders WHERE a > 1",
            "cpu": 0.1,
            "executions": 2,
            "first": begun,
            "last": begun + 20 * SECOND,
        },
        hour=hour,
    )
    given = options(server, service_objective="S1")
    report = run(tmp_path, given, since=hour, until=hour + HOURS, now=hour + 5 * HOURS, all=False)
    assert (report.settled, report.found) == (1, {"statement": 1})
    latest = {charge.charge_id: charge for charge in Charges(tmp_path).entries()}
    assert latest[once.charge_id].basis == "allocated"
    assert latest[once.charge_id].usage["cpu_us"] == 100_000
    assert latest[often.charge_id].amount is None  # as it was


@pytest.mark.parametrize(
    ("objective", "more", "expected"),
    [
        ("GP_Gen5_2", {}, 2 * (VCORE + LICENCE)),
        ("GP_Gen5_2", {"hybrid_benefit": True}, 2 * VCORE),
        ("BC_Gen5_4", {}, 4 * (Decimal("0.304435") + Decimal("0.375"))),
        ("HS_Gen5_2", {}, 2 * (Decimal("0.182658") + LICENCE)),
        ("P6", {}, Decimal("5.00")),
    ],
    ids=["general purpose", "hybrid benefit", "business critical", "hyperscale", "premium"],
)
def test_an_hour_of_each_tier_sums_to_its_price(
    server: TdsServer,
    tmp_path: Path,
    objective: str,
    more: dict[str, object],
    expected: Decimal,
) -> None:
    stored(server, {"text": "SELECT 1", "cpu": 30, "first": HOUR})
    run(tmp_path, options(server, service_objective=objective, **more))
    assert abs(money(Charges(tmp_path).new()) - expected) < ROUNDING


def test_a_tier_that_is_not_said_is_asked_for(server: TdsServer, tmp_path: Path) -> None:
    stored(server, {"text": "SELECT 1", "cpu": 30, "first": HOUR})
    report = run(tmp_path, options(server), wake=True)
    assert abs(money(Charges(tmp_path).new()) - S1) < ROUNDING
    assert any("say service_objective" in said for said in report.incomplete)


# -- serverless -------------------------------------------------------------------------------------


def used(server: TdsServer, *rows: tuple[float, float], limit: float = 4) -> None:
    """Seed an hour of rows of 15 s; the last of `rows` holds to its end."""
    server.seed(
        "sys.dm_db_resource_stats",
        [
            {
                "end_time": at(HOUR + 15 * (number + 1) * SECOND),
                "avg_cpu_percent": rows[min(number, len(rows) - 1)][0],
                "avg_memory_usage_percent": rows[min(number, len(rows) - 1)][1],
                "cpu_limit": limit,
            }
            for number in range(240)
        ],
        **USED,
    )


@pytest.mark.parametrize(
    ("cpu", "memory", "vcores"),
    [(100.0, 75.0, 4), (25.0, 100.0, 4), (25.0, 50.0, 2), (0.0, 0.0, 1)],
)
def test_vcore_seconds_are_the_largest_of_minimum_cores_and_memory(
    server: TdsServer, tmp_path: Path, cpu: float, memory: float, vcores: int
) -> None:
    """Microsoft's example has 1 to 4 vCores and 3 GB at least, and 12 GB are all of 4 vCores'."""
    stored(server, {"text": "SELECT 1", "cpu": 30, "first": HOUR})
    used(server, (cpu, memory))
    given = options(server, service_objective="GP_S_Gen5_4", minimum_vcores=1, minimum_memory_gb=3)
    run(tmp_path, given, wake=True)
    assert abs(money(Charges(tmp_path).new()) - vcores * SERVERLESS) < Decimal("1e-9")


def test_an_hour_that_is_not_whole_is_left_as_it_is(server: TdsServer, tmp_path: Path) -> None:
    stored(server, {"text": "SELECT 1", "cpu": 30, "first": HOUR})
    used(server, (50.0, 50.0))
    server.execute(
        "DELETE FROM sys.dm_db_resource_stats WHERE end_time > (SELECT min(end_time) + INTERVAL 9 MINUTE FROM sys.dm_db_resource_stats)"
    )
    report = run(tmp_path, options(server, service_objective="GP_S_Gen5_4"), wake=True)
    assert any("not whole" in said for said in report.incomplete)
    assert money(Charges(tmp_path).new()) == 0


@pytest.mark.parametrize("objective", ["GP_S_Gen5_2", ""], ids=["serverless", "nobody said"])
def test_a_database_is_not_woken_without_being_told(
    server: TdsServer, tmp_path: Path, objective: str
) -> None:
    said: list[str] = []
    given = options(server, service_objective=objective, minimum_vcores=0.5)
    with pytest.raises(WouldWake, match="--wake"):
        run(tmp_path, given, said=said.extend)
    assert server.logins == []
    assert any("costs" in line for line in said)


@contextmanager
def management(status: int, body: str) -> Generator[tuple[str, list[tuple[str, str]]]]:
    """Azure's management API, as far as one database goes."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as it is called
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "logins"),
    [
        (200, '{"properties": {"status": "Online"}}', 1),
        (200, '{"properties": {"status": "Paused"}}', 0),
        (200, '{"properties": {"status": "Resuming"}}', 0),
        (403, "{}", 0),
        (200, "<html>", 0),
        (200, '["properties"]', 0),
    ],
)
def test_the_management_api_tells_without_waking(
    server: TdsServer, tmp_path: Path, status: int, body: str, logins: int
) -> None:
    stored(server, {"text": "SELECT 1", "cpu": 30, "first": HOUR})
    with management(status, body) as (address, asked):
        given = options(
            server,
            service_objective="GP_S_Gen5_2",
            resource_id=DATABASE,
            token="t0k3n",
            management=address,
        )
        if logins:
            run(tmp_path, given)
        else:
            with pytest.raises(WouldWake) as caught:
                run(tmp_path, given)
            assert "t0k3n" not in str(caught.value)
    assert asked == [(f"{DATABASE}?api-version=2021-11-01", "Bearer t0k3n")]
    assert len(server.logins) == logins


def test_a_token_goes_nowhere_but_by_https(server: TdsServer, tmp_path: Path) -> None:
    given = options(server, resource_id=DATABASE, token="t0k3n", management="http://example.com")
    with pytest.raises(SettlementError, match="https"):
        run(tmp_path, given)


def test_no_session_is_left_open(server: TdsServer, tmp_path: Path) -> None:
    """An open session keeps a serverless database awake, and charged for."""
    stored(server, {"text": "SELECT 1", "cpu": 30, "first": HOUR})
    for _ in range(2):
        run(tmp_path, options(server, service_objective="S1"))
    assert len(server.logins) == 2


def test_a_missing_permission_names_the_grant(server: TdsServer, tmp_path: Path) -> None:
    server.on("query_store", Fault("VIEW DATABASE STATE permission denied in database.", 262))
    with pytest.raises(SettlementError) as caught:
        run(tmp_path, options(server, service_objective="S1"))
    assert caught.value.grant == "GRANT VIEW DATABASE STATE TO [settlement];"


def test_the_command_line(
    server: TdsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(server, {"text": "SELECT 1", "cpu": 30, "first": HOUR})
    configuration = tmp_path / "costinsights.toml"
    configuration.write_text(
        f'ledger = "{tmp_path / "ledger"}"\n[settle."azure.sql"]\n'
        f'host = "{server.host}"\ndatabase = "shop"\nport = {server.port}\n'
        f'user = "{server.user}"\npassword = "{server.password}"\nregion = "eastus"\n'
        'trust_certificate = true\nservice_objective = "S1"\n'
    )
    monkeypatch.setenv("COSTINSIGHTS_CONFIG", str(configuration))
    since, until = f"{HOUR:%Y-%m-%dT%H:%M}", f"{HOUR + HOURS:%Y-%m-%dT%H:%M}"
    period = ["--since", since, "--until", until]
    result = CliRunner().invoke(cli, ["settle", "azure.sql", *period, "--format", "json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["requests"] == 1
    assert server.password not in result.output
