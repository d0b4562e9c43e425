"""`costinsights settle aws.redshift` on real statements, and on history that the tests seed.

Emulator: PostgreSQL behind a start-up proxy; that Redshift fills its views in this way is not shown.
"""

from __future__ import annotations

import gc
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import redshift_connector
from psycopg import sql

import costinsights
from costinsights.settlement.aws_redshift import RedshiftHistory
from costinsights.settlement.history import MARK, HistoryError
from costinsights.settlement.settling import SettlementError, WouldWake, settle
from tests.servers.aws_server import aws_server
from tests.servers.charges import Charges, instrumented
from tests.servers.redshift_data import RedshiftData
from tests.servers.redshift_server import Redshift, redshift

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled
    from tests.backends import Server

SECOND, MICRO = timedelta(seconds=1), 10**6
NOW = datetime.now(timezone.utc)
HOUR = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=9)
"""The beginning of an hour that is past all lateness."""
RPU, NODE = Decimal("0.375"), Decimal("3.26")  # an hour of each, us-east-1


@pytest.fixture(scope="module")
def server(postgres: Server) -> Iterator[Redshift]:
    with redshift(postgres) as server:
        yield server


@pytest.fixture(autouse=True)
def clean(server: Redshift) -> None:
    server.clear()


def options(server: Redshift, **more: object) -> dict[str, object]:
    return {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": server.database,
        "ssl": False,
        "region": "us-east-1",
        **more,
    }


def serverless(server: Redshift, **more: object) -> dict[str, object]:
    return options(server, serverless=True, rpus=8, **more)


def cluster(server: Redshift, **more: object) -> dict[str, object]:
    return options(server, node_type="ra3.4xlarge", nodes=2, **more)


def plain(moment: datetime) -> datetime:
    """A moment as Redshift's views have it: UTC, and no word of that."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


def query(
    id_: int, start: datetime, seconds: float, text: str = "SELECT 1", **more: object
) -> dict[str, object]:
    micro = int(seconds * MICRO)
    return {
        "user_id": 10,
        "query_id": id_,
        "query_label": "default",
        "transaction_id": 100 + id_,
        "session_id": 7,
        "database_name": "dev",
        "query_type": "SELECT",
        "status": "success",
        "result_cache_hit": False,
        "start_time": plain(start),
        "end_time": plain(start + timedelta(microseconds=micro)),
        "elapsed_time": micro,
        "queue_time": 0,
        "execution_time": micro,
        "returned_rows": 1,
        "returned_bytes": 8,
        "query_text": text,
        "compute_type": "primary",
        **more,
    }


def minute(start: datetime, charged: int, compute: float | None = None) -> dict[str, object]:
    return {
        "start_time": plain(start),
        "end_time": plain(start + 60 * SECOND),
        "compute_seconds": float(charged) if compute is None else compute,
        "compute_capacity": 8.0,
        "charged_seconds": charged,
    }


def run(server: Redshift, ledger: Path, given: dict[str, object], **more: Any) -> Settled:
    more = {"since": HOUR, "until": HOUR + timedelta(hours=1), "all": True, "wake": True, **more}
    return settle(
        "aws.redshift", ledger=ledger, history=RedshiftHistory(given), config={}, now=NOW, **more
    )


def by_id(ledger: Path) -> dict[str, Charge]:
    return {charge.vendor_id or charge.operation: charge for charge in Charges(ledger).new()}


def money(charges: Sequence[Charge]) -> Decimal:
    return sum((Decimal(charge.amount or 0) for charge in charges), Decimal(0))


# --- serverless ---------------------------------------------------------------------------------


def test_a_minutes_rpus_are_split_by_execution_time(server: Redshift, tmp_path: Path) -> None:
    server.seed(
        "sys_query_history",
        query(1, HOUR, 10),
        query(2, HOUR + 5 * SECOND, 30),
        query(3, HOUR + 50 * SECOND, 20),  # half of it in the next minute
    )
    server.seed("sys_serverless_usage", minute(HOUR, 480), minute(HOUR + 60 * SECOND, 480))
    report = run(server, tmp_path, serverless(server))
    assert (report.figures, report.added, report.failed) == (3, 3, "")
    found = by_id(tmp_path)
    a_minute = 480 * RPU / 3600
    assert Decimal(found["1"].amount or 0) == pytest.approx(
        a_minute * 10 / 50, abs=Decimal("1e-15")
    )
    assert Decimal(found["2"].amount or 0) == pytest.approx(
        a_minute * 30 / 50, abs=Decimal("1e-15")
    )
    # The second minute is all its own: the minimum is charged for its sake, and none is idle.
    assert Decimal(found["3"].amount or 0) == pytest.approx(
        a_minute * 10 / 50 + a_minute, abs=Decimal("1e-15")
    )
    assert money(list(found.values())) == 2 * a_minute
    assert {charge.basis for charge in found.values()} == {"allocated"}
    charge = found["1"]
    assert charge.resource.service == "aws.redshift_serverless"
    assert (charge.resource.region, charge.resource.namespace) == ("us-east-1", "dev")
    assert charge.usage["execution_us"] == 10 * MICRO
    again = run(server, tmp_path, serverless(server))
    assert (again.added, again.settled, again.idle) == (0, 0, 0)


def test_what_is_charged_without_a_query_is_idle(server: Redshift, tmp_path: Path) -> None:
    server.seed("sys_serverless_usage", minute(HOUR, 480))
    assert run(server, tmp_path, serverless(server)).idle == 1
    [idle] = Charges(tmp_path).new()
    assert (idle.operation, Decimal(idle.amount or 0)) == ("IDLE", 480 * RPU / 3600)


def test_a_cache_hit_bears_nothing(server: Redshift, tmp_path: Path) -> None:
    server.seed(
        "sys_query_history",
        query(1, HOUR, 10),
        query(2, HOUR, 1, result_cache_hit=True),
        query(3, HOUR + timedelta(minutes=30), 1, result_cache_hit=True),  # nothing was on
    )
    server.seed("sys_serverless_usage", minute(HOUR, 480))
    run(server, tmp_path, serverless(server))
    found = by_id(tmp_path)
    assert [Decimal(found[name].amount or -1) for name in ("1", "2", "3")] == [
        480 * RPU / 3600,
        0,
        0,
    ]
    assert found["2"].usage["result_cache_hit"] == 1


def test_a_transaction_that_goes_on_is_left_for_later(server: Redshift, tmp_path: Path) -> None:
    young = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    server.seed("sys_query_history", query(1, young, 10))
    server.seed("sys_serverless_usage", minute(young, 0, compute=80.0))
    period = {"since": young, "until": young + timedelta(hours=1)}
    report = run(server, tmp_path, serverless(server), **period)
    assert sum(report.left.values()) == 1
    assert all(charge.amount is None for charge in Charges(tmp_path).new())
    with server.direct() as connection:
        connection.execute("UPDATE sys_serverless_usage SET charged_seconds = 480")
    run(server, tmp_path, serverless(server), **period)
    assert Decimal(by_id(tmp_path)["1"].amount or 0) == 480 * RPU / 3600


def test_a_workgroup_is_not_woken_unless_told_to(server: Redshift, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(WouldWake, match="charged for 60 s of 8 RPU at least"):
        run(server, tmp_path, serverless(server), wake=False, said=said.extend)
    assert server.messages == []
    assert any("0.05 USD at most" in line for line in said)  # 8 RPU × 60 s × 0.375 ÷ 3600


def test_a_host_says_what_it_is() -> None:
    name = "nightly.123456789012.us-east-1.redshift-serverless.amazonaws.com"
    reader = RedshiftHistory({"host": name, "user": "settlement"})
    assert reader.serverless
    assert reader.resource.region == "us-east-1"
    name = "dwh.abc123def.eu-west-1.redshift.amazonaws.com"
    assert not RedshiftHistory({"host": name, "user": "settlement"}).serverless


# --- provisioned --------------------------------------------------------------------------------


def test_an_hour_of_nodes_is_split_and_the_rest_is_idle(server: Redshift, tmp_path: Path) -> None:
    server.seed("sys_query_history", query(1, HOUR, 900), query(2, HOUR + 600 * SECOND, 300))
    run(server, tmp_path, cluster(server))
    found = by_id(tmp_path)
    hour = 2 * NODE
    assert Decimal(found["1"].amount or 0) == pytest.approx(hour / 4 * 3 / 4, abs=Decimal("1e-15"))
    assert Decimal(found["2"].amount or 0) == pytest.approx(hour / 4 * 1 / 4, abs=Decimal("1e-15"))
    assert money(list(found.values())) == hour


def test_without_nodes_the_users_capacity_is_the_price(server: Redshift, tmp_path: Path) -> None:
    server.seed("sys_query_history", query(1, HOUR, 3600))
    capacity = {"host": server.host, "price": "1.20", "currency": "EUR", "system": "aws.redshift"}
    settle(
        "aws.redshift",
        HOUR,
        HOUR + timedelta(hours=1),
        all=True,
        ledger=tmp_path,
        history=RedshiftHistory(options(server)),
        config={"capacity": [capacity]},
        now=NOW,
    )
    charge = by_id(tmp_path)["1"]
    assert (Decimal(charge.amount or 0), charge.currency) == (Decimal("1.20"), "EUR")


def scan(xid: int, pid: int, start: datetime, size: int) -> dict[str, object]:
    return {
        "query": 99999,  # numbered differently
        "xid": xid,
        "pid": pid,
        "starttime": plain(start),
        "endtime": plain(start + SECOND),
        "s3_scanned_bytes": size,
    }


def test_spectrum_is_billed_by_bytes_on_top(server: Redshift, tmp_path: Path) -> None:
    server.seed(
        "sys_query_history",
        query(1, HOUR, 10),
        query(2, HOUR + 20 * SECOND, 10, transaction_id=101),  # the same transaction as the first
    )
    terabyte = 2**40
    server.seed(
        "svcs_s3query_summary",
        scan(101, 7, HOUR + SECOND, terabyte // 2),
        scan(101, 7, HOUR + 21 * SECOND, terabyte // 4),
        scan(101, 7, HOUR + 22 * SECOND, terabyte // 4),
        scan(555, 8, HOUR + SECOND, 1000),
    )
    report = run(server, tmp_path, cluster(server))
    found = by_id(tmp_path)
    assert found["1"].usage["spectrum_scanned_bytes"] == terabyte // 2
    assert found["2"].usage["spectrum_scanned_bytes"] == terabyte // 2
    assert money(list(found.values())) == 2 * NODE + 5
    assert report.incomplete == ["Spectrum scans of queries that are not in sys_query_history"]


def test_spectrum_is_free_for_a_query_that_fails(server: Redshift, tmp_path: Path) -> None:
    server.seed(
        "sys_query_history",
        query(1, HOUR, 10, status="failed"),
        query(2, HOUR, 10, transaction_id=102, session_id=8),
    )
    server.seed(
        "svcs_s3query_summary",
        scan(101, 7, HOUR + SECOND, 2**40),
        scan(102, 8, HOUR + SECOND, 1),  # a query pays for 10 MB at least
    )
    run(server, tmp_path, cluster(server))
    found = by_id(tmp_path)
    assert found["1"].usage["unbilled_bytes"] == 2**40
    assert found["1"].usage["spectrum_scanned_bytes"] == 0
    least = Decimal("0.000047683715820")  # 10 MB at 5 USD a TB, to the 15th decimal
    assert money(list(found.values())) == 2 * NODE + least


def test_concurrency_scaling_is_a_capacity_of_its_own(server: Redshift, tmp_path: Path) -> None:
    server.seed(
        "sys_query_history",
        query(1, HOUR, 3600),
        query(2, HOUR + 60 * SECOND, 100, compute_type="primary-scale"),
    )
    server.seed(
        "svcs_concurrency_scaling_usage",
        {
            "start_time": plain(HOUR + 60 * SECOND),
            "end_time": plain(HOUR + 160 * SECOND),
            "queries": 1,
            "usage_in_seconds": 100,
        },
    )
    run(server, tmp_path, cluster(server, concurrency_scaling=True))
    found = by_id(tmp_path)
    assert Decimal(found["1"].amount or 0) == 2 * NODE
    assert Decimal(found["2"].amount or 0) == 2 * 100 * Decimal("0.0009")


# --- what is said of a query --------------------------------------------------------------------


def test_ends_labels_and_users(server: Redshift, tmp_path: Path) -> None:
    server.seed(
        "sys_query_history",
        query(1, HOUR, 1, query_label="ci,asset=orders,job=nightly"),
        query(2, HOUR, 1, status="failed", error_message="secret text"),
        query(3, HOUR, 1, status="canceled"),
        query(5, HOUR, 1, "INSERT INTO t VALUES ('s3cr3t')", query_type="INSERT"),
        query(6, HOUR, 1, f"/* {MARK} */ SELECT 1"),
    )
    server.seed("sys_serverless_usage", minute(HOUR, 480))
    run(server, tmp_path, serverless(server))
    found = {id_: charge for id_, charge in by_id(tmp_path).items() if id_.isdigit()}
    assert sorted(found) == ["1", "2", "3", "5"]  # one is our own
    assert found["1"].attribution["asset"] == "orders"
    assert found["1"].attribution["job"] == "nightly"
    errors = {name: charge.error and charge.error.type for name, charge in found.items()}
    assert errors == {"1": None, "2": "FAILED", "3": "CANCELED", "5": None}
    assert (found["1"].rows, found["5"].rows) == (1, None)
    text = Charges(tmp_path).text()
    assert "s3cr3t" not in text
    assert "secret text" not in text
    # Our own query has its share as well, and it is ours.
    assert money(list(found.values())) + own(tmp_path) == 480 * RPU / 3600


def own(ledger: Path) -> Decimal:
    return money([c for c in Charges(ledger).new() if "costinsights.self" in c.attribution])


def test_nothing_is_split_beside_a_query_that_still_runs(server: Redshift, tmp_path: Path) -> None:
    server.seed(
        "sys_query_history",
        query(1, HOUR, 1),
        query(2, HOUR, 1, status="running", end_time=None),
    )
    server.seed("sys_serverless_usage", minute(HOUR, 480))
    report = run(server, tmp_path, serverless(server))
    assert Charges(tmp_path).new() == []
    assert sum(report.left.values()) == 2


def test_a_programs_own_charges_get_their_share(server: Redshift, tmp_path: Path) -> None:
    account: dict[str, Any] = {"user": server.user, "password": server.password}
    account["database"] = server.database
    with (
        instrumented(tmp_path, "redshift_connector") as charges,
        redshift_connector.connect(
            host=server.host, port=server.port, ssl=False, **account
        ) as connection,
        costinsights.attribute(asset="orders"),
    ):
        connection.autocommit = True
        cursor: Any = connection.cursor()
        cursor.execute("SELECT 41 AS shop")
        cursor.execute("SELECT count(*) FROM pg_class WHERE relname = %s", ("t",))
        first, second = charges.new()
    begun = datetime.fromisoformat(first.started_at.replace("Z", "+00:00"))
    hour = begun.replace(minute=0, second=0, microsecond=0)
    where = {"database_name": server.database}
    prepared = "SELECT count(*) FROM pg_class WHERE relname = $1"
    server.seed(
        "sys_query_history",
        query(1, begun, 1, "SELECT 41 AS shop", **where),
        query(2, begun + SECOND, 1, prepared, **where),
    )
    server.seed("sys_serverless_usage", minute(begun.replace(second=0, microsecond=0), 480))
    later = begun + timedelta(hours=2)
    report = settle(
        "aws.redshift",
        hour,
        hour + timedelta(hours=2),
        wake=True,
        ledger=tmp_path,
        history=RedshiftHistory(serverless(server)),
        config={},
        now=later,
    )
    assert report.settled == 2, report
    settled = {charge.charge_id: charge for charge in Charges(tmp_path).new()}
    assert {first.charge_id, second.charge_id} <= set(settled)
    assert settled[first.charge_id].basis == "allocated"
    assert settled[first.charge_id].attribution["asset"] == "orders"
    assert settled[first.charge_id].vendor_id == "1"


def test_a_statement_of_the_data_api_that_nobody_asked_about(
    server: Redshift, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with aws_server() as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        data = RedshiftData(aws)
        client = aws.client("redshift-data")
        with instrumented(tmp_path, "botocore") as charges:
            client.execute_statement(Sql="SELECT 7", WorkgroupName="nightly", Database="dev")
            [pending] = charges.new()
        client.close()
        assert pending.partial
        data.ends_with("SELECT 7", RedshiftQueryId=31)
        begun = datetime.fromisoformat(pending.started_at.replace("Z", "+00:00"))
        server.seed("sys_query_history", query(31, begun, 1, "SELECT 7"))
        server.seed("sys_serverless_usage", minute(begun.replace(second=0, microsecond=0), 480))
        report = settle(
            "aws.redshift",
            begun,
            begun + timedelta(hours=1),
            wake=True,
            ledger=tmp_path,
            history=RedshiftHistory(serverless(server, data_api=True)),
            config={},
            now=begun + timedelta(hours=2),
        )
    assert report.settled == 1, report
    [settled] = [c for c in Charges(tmp_path).new() if c.charge_id == pending.charge_id]
    assert not settled.partial
    assert Decimal(settled.amount or 0) == 480 * RPU / 3600


# --- what can go wrong --------------------------------------------------------------------------


def test_a_missing_permission_names_the_grant(server: Redshift, tmp_path: Path) -> None:
    role = sql.Identifier("nobody_rs")
    with server.direct() as connection:
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(server.password))
        )
    try:
        with pytest.raises(SettlementError, match="no permission to read") as caught:
            run(server, tmp_path, serverless(server, user="nobody_rs"))
        assert caught.value.grant == "GRANT ROLE sys:monitor TO settlement;"
    finally:
        with server.direct() as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


# The driver leaves the socket to the garbage when it is turned away.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_connection_is_said_without_secrets(server: Redshift, tmp_path: Path) -> None:
    with pytest.raises(SettlementError, match="no connection to") as caught:
        run(server, tmp_path, serverless(server, password="wr0ng-secret", user="nobody_there"))
    assert "wr0ng-secret" not in str(caught.value)
    assert "nobody_there" not in str(caught.value)
    del caught
    gc.collect()


def test_options_are_checked() -> None:
    with pytest.raises(HistoryError, match=r"put  user = …  into \[settle\.\"aws\.redshift\"\]"):
        RedshiftHistory({"host": "x"})
    with pytest.raises(HistoryError, match="unknown field `hots`"):
        RedshiftHistory({"host": "x", "user": "u", "hots": 1})


def test_it_reads_each_view_once_and_marks_its_queries(server: Redshift, tmp_path: Path) -> None:
    run(server, tmp_path, serverless(server))
    asked = [text for text in server.statements() if "sys_" in text]
    assert len(asked) == 2
    assert all(MARK in text for text in asked)
