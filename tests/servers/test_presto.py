"""The unmodified `prestodb` client, on a real Presto 0.283 where that was fetched
(`python -m tests.servers.trino_server presto`), otherwise on an emulator of the wire protocol."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import costinsights
from costinsights.settlement.presto import PrestoHistory
from costinsights.settlement.settling import settle
from tests.processes import Unavailable
from tests.servers import trino_server
from tests.servers.charges import Charges, instrumented, text_of
from tests.servers.trino_emulator import FIGURES, emulating
from tests.servers.trino_proxy import recording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.trino_server import Coordinator

prestodb: Any = import_module("prestodb")
SECRET = "s3cr3t-77ac"
DIGITS = "(values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))"
THOUSAND = f"select a.n, b.n, c.n from {DIGITS} a (n), {DIGITS} b (n), {DIGITS} c (n)"
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture(scope="module", params=["real", "emulator"])
def server(request: pytest.FixtureRequest) -> Iterator[Coordinator]:
    if request.param == "emulator":
        with emulating("X-Presto") as server:
            yield server
        return
    try:
        source = trino_server.presto()
        server = source.__enter__()
    except Unavailable as reason:  # the emulator stands for it, also in CI: it is 1.9 GB
        pytest.skip(f"Presto cannot be had here, and its emulator stands for it: {reason}")
    try:
        yield server
    finally:
        source.__exit__(None, None, None)


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "prestodb") as charges:
        yield charges


def connect(server: Coordinator, **more: Any) -> Any:
    return prestodb.dbapi.connect(
        **{"host": server.host, "port": server.port, "user": "me", "catalog": "tpch", **more}
    )


def test_a_statement_costs_what_the_server_says(server: Coordinator, charges: Charges) -> None:
    cursor = connect(server).cursor()
    cursor.execute(THOUSAND)
    charge = charges.one()
    assert len(cursor.fetchall()) == charge.rows == 1000
    assert (charge.system, charge.instrumentor, charge.operation) == (
        "presto",
        "prestodb",
        "SELECT",
    )
    assert (charge.resource.address, charge.resource.port) == (server.host, server.port)
    assert charge.resource.namespace == "tpch"
    assert (charge.vendor_id, charge.partial) == (cursor.stats["queryId"], False)
    assert charge.usage["cpu_time_ms"] == cursor.stats["cpuTimeMillis"]
    assert charge.usage["processed_bytes"] == cursor.stats["processedBytes"]
    shown = server.page(f"/v1/query/{charge.vendor_id}")["queryStats"]
    assert charge.usage["processed_rows"] == shown["rawInputPositions"]
    if not server.real:
        assert charge.usage["cpu_time_ms"] == FIGURES["cpuTimeMillis"]
        assert charge.usage["peak_memory_bytes"] == FIGURES["peakMemoryBytes"]
    assert charges.new() == []


def test_tpch_on_the_real_server(server: Coordinator, charges: Charges) -> None:
    if not server.real:
        pytest.skip("the emulator has no tpch catalog; test_a_statement… is its part")
    cursor = connect(server, schema="tiny").cursor()
    cursor.execute("select returnflag, count(*) from lineitem group by returnflag")
    charge = charges.one()
    assert charge.rows == len(cursor.fetchall()) == 3
    shown = server.page(f"/v1/query/{charge.vendor_id}")["queryStats"]
    assert charge.usage["processed_rows"] == shown["rawInputPositions"] == 60_175
    assert charge.usage["cpu_time_ms"] > 0  # type: ignore[operator]  # whole milliseconds


@pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy")
def test_pandas(server: Coordinator, charges: Charges) -> None:
    assert len(pd.read_sql(THOUSAND, connect(server))) == 1000
    assert charges.one().rows == 1000


def test_parameters_are_the_query_that_ran(server: Coordinator, charges: Charges) -> None:
    cursor = connect(server).cursor()
    cursor.execute(f"select n from {DIGITS} t (n) where n < ? and ? <> 'x'", (4, SECRET))
    assert len(cursor.fetchall()) == 4
    charge = charges.one()
    assert (charge.rows, charge.vendor_id) == (4, cursor.stats["queryId"])
    assert text_of(charge).endswith("where n < ? and ? <> ?")
    assert SECRET not in charges.text()


def test_an_error_keeps_its_query(server: Coordinator, charges: Charges) -> None:
    cursor = connect(server).cursor()
    cursor.execute("select 1")
    before = charges.one()
    with pytest.raises(prestodb.exceptions.PrestoUserError) as raised:
        cursor.execute(f"select nothing from {DIGITS} t (n) where '{SECRET}' = 'x'")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "prestodb.exceptions.PrestoUserError"
    assert charge.vendor_id == raised.value.query_id != before.vendor_id
    with pytest.raises(AssertionError, match="params must be"):
        cursor.execute("select ?", 1)
    unsent = charges.one()
    assert (unsent.vendor_id, list(unsent.usage)) == (None, ["time_ns"])
    assert SECRET not in charges.text()


def test_eight_at_once(server: Coordinator, charges: Charges) -> None:
    def run(number: int) -> tuple[str, int]:
        cursor = connect(server).cursor()
        cursor.execute(f"{THOUSAND} where a.n < {number}")
        return cursor.stats["queryId"], len(cursor.fetchall())

    with ThreadPoolExecutor(8) as pool:
        expected = dict(pool.map(run, range(1, 9)))
    assert {charge.vendor_id: charge.rows for charge in charges.new()} == expected


def test_by_default_the_server_sees_no_difference(server: Coordinator, tmp_path: Path) -> None:
    seen: list[list[Any]] = []
    for on in (False, True):
        with recording(server) as proxy:
            if on:
                with instrumented(tmp_path / "ledger", "prestodb") as charges:
                    connect(server, host="127.0.0.1", port=proxy.port).cursor().execute("select 1")
                    charges.one()
            else:
                connect(server, host="127.0.0.1", port=proxy.port).cursor().execute("select 1")
            seen.append(
                [
                    (post.body, {k: v for k, v in post.headers.items() if k != "Host"})
                    for post in proxy.posts()
                ]
            )
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1


@pytest.mark.parametrize("own", [None, {"X-Presto-Client-Tags": "mine"}])
def test_native_tags_go_with_the_connection(
    server: Coordinator, tmp_path: Path, own: dict[str, str] | None
) -> None:
    costinsights.instrument(
        "prestodb",
        ledger=tmp_path / "ledger",
        exporters=[],
        tagging="native",
        attribution={"job": "nightly"},
    )
    try:
        connection = connect(server, http_headers=own)
        assert own in (None, {"X-Presto-Client-Tags": "mine"})  # the program's own, as it was
        cursor = connection.cursor()
        with costinsights.attribute(asset="orders"):
            cursor.execute("select 1")
        tags = server.page(f"/v1/query/{cursor.stats['queryId']}")["session"]["clientTags"]
        assert set(tags) == {"ci:job=nightly", *(["mine"] if own else [])}
        assert Charges(tmp_path / "ledger").one().tag is not None
    finally:
        costinsights.uninstrument()


def test_settlement_splits_the_hour_by_cpu_time(server: Coordinator, tmp_path: Path) -> None:
    begun = datetime.now(timezone.utc)
    ledger = tmp_path / "ledger"
    with instrumented(ledger, "prestodb") as charges:
        cursor = connect(server).cursor()
        cursor.execute(THOUSAND)
        before = charges.one()
    settle(
        "presto",
        begun,
        begun + HOUR,
        all=True,
        ledger=ledger,
        history=PrestoHistory({"url": server.url}),
        config={"capacity": [{"system": "presto", "price": "18.00", "currency": "USD"}]},
        now=begun + 3 * HOUR,
    )
    found = charges.new()
    mine = next(charge for charge in found if charge.charge_id == before.charge_id)
    assert (mine.basis, mine.rows) == ("allocated", 1000)
    total = sum((Decimal(charge.amount or 0) for charge in found), Decimal(0))
    # From the server's start: two hours at most, and both whole where it was before their first.
    assert 0 < Decimal(mine.amount or 0) < total <= 36
