"""google-cloud-bigquery, unmodified, on a server of ours: one charge a job, on every path."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from google.api_core import exceptions
from google.cloud import bigquery
from google.cloud.bigquery import dbapi

import costinsights
from tests.servers.bigquery_server import PROJECT, BigQueryServer, Failure, bigquery_server
from tests.servers.bigquery_storage import storage_server
from tests.servers.charges import Charges, instrumented, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIB = 2**40
PRICE = "6.250000000000000"
FREE = "0.000000000000000"
SECRET = "s3cr3t-77ac"
ROWS = "SELECT range AS a FROM range(2500)"
QUERY: Any = bigquery.QueryJobConfig


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
    return running


@pytest.fixture
def client(server: BigQueryServer) -> Iterator[Any]:
    """A client that was made before anything was instrumented."""
    client = server.client()
    yield client
    client.close()


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "bigquery") as charges:
        yield charges


def test_a_job_is_pending_until_it_is_done(
    client: Any, server: BigQueryServer, charges: Charges
) -> None:
    server.seed("", billed=TIB, processed=TIB - 77, slot_ms=3_600_000, questions=2)
    job = client.query(f"SELECT '{SECRET}' AS a")
    pending = charges.one()
    assert (pending.system, pending.instrumentor) == ("gcp.bigquery", "bigquery")
    assert (pending.vendor_id, pending.partial, pending.amount) == (job.job_id, True, None)
    assert text_of(pending) == "SELECT ? AS a"
    assert (pending.resource.address, pending.resource.namespace) == ("127.0.0.1", PROJECT)
    assert [tuple(row) for row in job.result()] == [(SECRET,)]
    charge = charges.one()
    assert (charge.charge_id, charge.revision, charge.partial) == (pending.charge_id, 1, False)
    assert (charge.amount, charge.basis, charge.currency) == (PRICE, "metered", "USD")
    assert {key: value for key, value in charge.usage.items() if key != "time_ns"} == {
        "billed_bytes": TIB,
        "processed_bytes": TIB - 77,
        "slot_ms": 3_600_000,
    }
    assert charge.usage["billed_bytes"] == job.total_bytes_billed
    assert charge.usage["slot_ms"] == job.slot_millis
    job.reload()
    assert charges.new() == []
    assert SECRET not in charges.text()


@pytest.mark.parametrize(
    ("figures", "amount", "meters"),
    [
        ({"billed": 10 * 2**20, "processed": 5}, "0.000059604644775", {}),
        ({"billed": 0, "processed": 5, "cache_hit": True}, FREE, {"cache_hit": 1}),
        ({"billed": None, "processed": 0}, None, {}),  # row-level security
        (
            {"billed": TIB, "reservation": "admin:US.prod", "slot_ms": 7},
            None,
            {"reservation": "admin:US.prod", "slot_ms": 7},
        ),
        ({"billed": TIB, "statement_type": "SCRIPT"}, PRICE, {}),
    ],
)
def test_what_is_billed(
    client: Any,
    server: BigQueryServer,
    charges: Charges,
    figures: dict[str, Any],
    amount: str | None,
    meters: dict[str, Any],
) -> None:
    server.seed("SELECT", **figures)
    client.query("SELECT 1").result()
    charge = charges.one()
    assert charge.amount == amount
    assert charge.basis == ("unknown" if amount is None else "metered")
    assert {name: charge.usage[name] for name in meters} == meters


def everything(client: Any) -> dict[str, Any]:
    """Run a query on every path there is."""
    job_config = QUERY(labels={"team": "growth"}, use_query_cache=False)
    return {
        "query": [tuple(row) for row in client.query("SELECT 1 AS a").result()],
        "configured": [
            tuple(row) for row in client.query("SELECT 2 AS a", job_config=job_config).result()
        ],
        "by jobs.query": [
            tuple(row) for row in client.query("SELECT 3 AS a", api_method="QUERY").result()
        ],
        "and wait": [tuple(row) for row in client.query_and_wait("SELECT 4 AS a")],
        "arrow": _arrow(client),
        "pages": sum(1 for _ in client.query(ROWS).result(page_size=1000)),
        "dbapi": _dbapi(client, "SELECT 6 AS a"),
        "dry": client.query("SELECT 7 AS a", job_config=QUERY(dry_run=True)).total_bytes_processed,
    }


def _arrow(client: Any) -> dict[str, Any]:
    found = client.query("SELECT 5 AS a").to_arrow(create_bqstorage_client=False)
    return dict(found.to_pydict())


def _dbapi(client: Any, text: str) -> list[tuple[Any, ...]]:
    connect: Any = vars(dbapi)["connect"]  # without types
    cursor = connect(client, prefer_bqstorage_client=False).cursor()
    cursor.execute(text)
    found = [tuple(row.values()) for row in cursor.fetchall()]
    cursor.close()
    return found


def test_every_path_is_one_charge_and_the_server_sees_no_difference(
    client: Any, server: BigQueryServer, tmp_path: Path
) -> None:
    bare = everything(client)
    without = seen(server)
    server.requests.clear()
    with instrumented(tmp_path / "ledger", "bigquery") as charges:
        assert everything(client) == bare
        assert seen(server) == without
        found = charges.new()
    assert len(found) == 8
    by_text = {text_of(charge): charge for charge in found}
    assert len({charge.vendor_id for charge in found}) == 8
    assert not any(charge.error for charge in found)
    # Of a query that jobs.query answers at once, the bytes billed are not known.
    waiting = [charge for charge in found if charge.partial]
    assert {charge.amount for charge in waiting} == {None}
    assert all(charge.usage["processed_bytes"] == TIB - 77 for charge in waiting)
    assert len(waiting) <= 2
    dry = [charge for charge in found if charge.usage.get("dry_run")]
    assert [(charge.amount, charge.vendor_id, charge.partial) for charge in dry] == [
        (FREE, None, False)
    ]
    assert len([charge for charge in found if charge.amount == PRICE]) == 7 - len(waiting)
    assert by_text


def seen(server: BigQueryServer) -> list[tuple[str, str, Any]]:
    """Return the requests, with ids that are different each time made alike."""
    found: list[tuple[str, str, Any]] = []
    for request in server.requests:
        path = "/".join("ID" if len(part) == 36 else part for part in request.path.split("/"))
        body: dict[str, Any] = json.loads(json.dumps(request.body or {}))
        body.get("jobReference", {}).pop("jobId", None)
        body.pop("requestId", None)
        found.append((request.method, path, body))
    return found


def test_a_quick_answer_is_completed_when_the_job_passes_by(
    client: Any, server: BigQueryServer, charges: Charges
) -> None:
    rows = client.query_and_wait("SELECT 1 AS a")
    pending = charges.one()
    assert (pending.partial, pending.amount, pending.rows) == (True, None, 1)
    client.get_job(rows.job_id)
    charge = charges.one()
    assert (charge.charge_id, charge.amount) == (pending.charge_id, PRICE)


def test_a_quick_answer_from_the_cache_is_free(
    client: Any, server: BigQueryServer, charges: Charges
) -> None:
    server.seed("SELECT", cache_hit=True)
    client.query_and_wait("SELECT 1 AS a")
    charge = charges.one()
    assert (charge.amount, charge.partial, charge.usage["cache_hit"]) == (FREE, False, 1)


def test_a_query_without_a_job_has_its_own_id(server: BigQueryServer, charges: Charges) -> None:
    client = server.client(default_job_creation_mode="JOB_CREATION_OPTIONAL")
    rows = client.query_and_wait("SELECT 1 AS a")
    assert rows.job_id is None
    assert charges.one().vendor_id == rows.query_id
    client.close()


@pytest.mark.parametrize("reason", ["invalidQuery", "backendError", "stopped"])
def test_what_ends_badly(
    client: Any, server: BigQueryServer, charges: Charges, reason: str
) -> None:
    server.seed("nowhere", reason=reason, billed=TIB if reason == "stopped" else None)
    job = client.query("SELECT * FROM nowhere", job_retry=None)
    with pytest.raises(exceptions.GoogleAPICallError):
        job.result(retry=None)
    charge = charges.one()
    assert charge.error is not None
    assert (charge.error.type, charge.partial) == (reason, False)
    assert charge.amount == (PRICE if reason == "stopped" else FREE)
    assert "secret" not in charges.text()


def test_what_cannot_be_started(client: Any, charges: Charges) -> None:
    with pytest.raises(exceptions.BadRequest):
        client.query("syntax error")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "google.api_core.exceptions.BadRequest"
    assert (charge.vendor_id, charge.partial) == (None, False)


def test_a_job_that_is_started_again_is_another(
    client: Any, server: BigQueryServer, charges: Charges
) -> None:
    server.seed("SELECT 1", reason="rateLimitExceeded")

    def mend() -> None:
        server.seed("SELECT 1", billed=TIB)

    job = client.query("SELECT 1 AS a")
    mend()
    job.result()
    found = charges.new()
    assert [charge.amount for charge in found] == [FREE, PRICE]
    assert len({charge.vendor_id for charge in found}) == 2


def test_a_request_that_is_sent_again_is_one_charge(
    client: Any, server: BigQueryServer, charges: Charges
) -> None:
    server.refuse("POST", "/jobs", Failure("backendError"))
    client.query("SELECT 1").result()
    assert charges.one().amount == PRICE
    assert len(server.asked("POST", "/jobs")) == 2


def test_cancelled_by_the_program(client: Any, server: BigQueryServer, charges: Charges) -> None:
    server.seed("SELECT", questions=10**6, billed=TIB)
    job = client.query("SELECT 1")
    job.cancel()
    charge = charges.one()
    assert charge.error is not None
    assert (charge.error.type, charge.amount, charge.partial) == ("stopped", PRICE, False)


def test_rows_that_are_changed_are_counted(
    client: Any, server: BigQueryServer, charges: Charges
) -> None:
    server.database.execute("CREATE OR REPLACE TABLE t (a BIGINT)")
    client.query("INSERT INTO t SELECT 1 UNION ALL SELECT 2").result()
    charge = charges.one()
    assert (charge.rows, charge.operation) == (2, "INSERT")


LOADS: dict[str, Callable[[Any], Any]] = {
    "LOAD file": lambda client: client.load_table_from_file(io.BytesIO(b"a\n1\n"), "d.t"),
    "LOAD sized": lambda client: client.load_table_from_file(io.BytesIO(b"a\n1\n"), "d.t", size=4),
    "LOAD uri": lambda client: client.load_table_from_uri("gs://b/x.csv", "d.t"),
    "LOAD rows": lambda client: client.load_table_from_json([{"a": 1}], "d.t"),
    "EXTRACT": lambda client: client.extract_table("d.t", "gs://b/x.csv"),
    "COPY": lambda client: client.copy_table("d.t", "d.u"),
}


@pytest.mark.parametrize("kind", LOADS)
def test_loads_exports_and_copies_are_free(client: Any, charges: Charges, kind: str) -> None:
    job = LOADS[kind](client)
    pending = charges.one()
    job.result()
    charge = charges.new()[0] if pending.partial else pending
    assert (charge.vendor_id, charge.operation) == (job.job_id, kind.split(maxsplit=1)[0])
    assert (charge.amount, charge.basis, charge.partial) == (FREE, "metered", False)
    assert charge.rows == (3 if kind.startswith("LOAD") else None)


def test_another_location(client: Any, charges: Charges, server: BigQueryServer) -> None:
    """The answer says where a job ran; what has no price there is unknown."""
    server.location = "mars-north1"
    client.query("SELECT 1").result()
    assert (charges.one().amount, charges.new()) == (None, [])
    server.location = "us-central1"
    client.query("SELECT 1").result()
    charge = charges.one()
    assert charge.amount == PRICE
    assert charge.price is not None
    assert charge.price.key == "gcp.bigquery.on_demand/us-central1"


def test_slots_that_are_paid_for_by_the_hour(
    client: Any, server: BigQueryServer, tmp_path: Path
) -> None:
    server.seed("SELECT", billed=TIB, reservation="admin:US.prod")
    capacity = {
        "name": "100 slots",
        "system": "gcp.bigquery",
        "database": PROJECT,
        "price": "6.00",
        "unit": "hour",
        "currency": "USD",
    }
    costinsights.instrument(
        "bigquery", ledger=tmp_path / "ledger", exporters=[], config={"capacity": [capacity]}
    )
    try:
        client.query("SELECT 1").result()
        charge = Charges(tmp_path / "ledger").one()
    finally:
        costinsights.uninstrument()
    assert charge.amount is not None
    assert 0 < float(charge.amount) < 1
    assert (charge.basis, charge.usage["reservation"]) == ("estimated", "admin:US.prod")


def test_labels(client: Any, server: BigQueryServer, tmp_path: Path) -> None:
    job_config = QUERY(labels={"team": "growth"})
    costinsights.instrument(
        "bigquery",
        ledger=tmp_path / "ledger",
        exporters=[],
        attribution={"job": "Nightly.Load"},
        tagging="native",
    )
    try:
        with costinsights.attribute(asset="orders/eu"):
            client.query("SELECT 1", job_config=job_config).result()
            client.query_and_wait("SELECT 2")
            client.load_table_from_file(io.BytesIO(b"1"), "d.t").result()
        found = Charges(tmp_path / "ledger").new()
    finally:
        costinsights.uninstrument()
    ours = {"costinsights_asset": "orders_eu", "costinsights_job": "nightly_load"}
    sent = [request.body for request in server.requests if request.method == "POST"]
    assert [body.get("configuration", body)["labels"] for body in sent] == [
        {"team": "growth", **ours},
        ours,
        ours,
    ]
    assert job_config.labels == {"team": "growth"}
    assert {charge.tag for charge in found} == {"ci,asset=orders.eu,job=Nightly.Load"}


def test_thirty_two_at_once(client: Any, charges: Charges) -> None:
    threads = [
        threading.Thread(target=lambda: client.query("SELECT 1").result()) for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = charges.new()
    assert len({charge.vendor_id for charge in found}) == len(found) == 32
    assert {charge.amount for charge in found} == {PRICE}


@pytest.mark.filterwarnings("ignore:Cannot create BigQuery Storage client")
def test_sqlalchemy_and_pandas(client: Any, charges: Charges) -> None:
    import pandas as pd
    from sqlalchemy import create_engine, text

    engine = create_engine(
        f"bigquery://{PROJECT}?user_supplied_client=True", connect_args={"client": client}
    )
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1 AS a")).all() == [(1,)]
        assert len(charges.new()) == 1
        assert len(pd.read_sql(text("SELECT 1 AS a"), connection)) == 1
        assert len(charges.new()) == 1
    engine.dispose()


@pytest.mark.filterwarnings("ignore:Retrieving DataFrames via")
def test_data_frames(client: Any, server: BigQueryServer, charges: Charges) -> None:
    job = client.query("SELECT 5 AS a, 'x' AS b")
    assert job.to_dataframe(create_bqstorage_client=False).to_dict("list") == {"a": [5], "b": ["x"]}
    assert job.to_arrow(create_bqstorage_client=False).to_pydict() == {"a": [5], "b": ["x"]}
    charge = charges.one()
    assert (charge.vendor_id, charge.amount, charge.partial) == (job.job_id, PRICE, False)
    rows = client.query_and_wait("SELECT 6 AS a")
    assert list(rows.to_dataframe(create_bqstorage_client=False)["a"]) == [6]
    charge = charges.one()
    assert (charge.usage["processed_bytes"], charge.rows) == (TIB - 77, 1)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of the libraries' own ways
def test_data_frames_by_the_storage_api(
    client: Any, server: BigQueryServer, charges: Charges
) -> None:
    with storage_server(server) as (storage, reader):
        job = client.query(ROWS)
        assert len(job.to_dataframe(bqstorage_client=reader)) == 2500
        charge = charges.one()
        assert (charge.vendor_id, charge.amount) == (job.job_id, PRICE)
        assert job.to_arrow(bqstorage_client=reader).num_rows == 2500
        assert storage.asked == ["CreateReadSession", "ReadRows"] * 2
        assert charges.new() == []  # it is billed apart, and tells the client nothing of that


def test_what_is_no_job_is_no_charge(client: Any, charges: Charges) -> None:
    with pytest.raises(exceptions.NotFound):
        client.get_table("d.t")
    with pytest.raises(exceptions.NotFound):
        client.get_job("nobody's")
    assert charges.new() == []


SCRIPT = """
import sys
import costinsights
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
costinsights.instrument(ledger=sys.argv[2], exporters=[])
client = bigquery.Client(
    project="p",
    credentials=AnonymousCredentials(),
    client_options={"api_endpoint": sys.argv[1]},
)
print(client.query("SELECT 1").job_id, flush=True)
sys.stdin.read()
"""


def test_a_killed_program_leaves_its_job_pending(server: BigQueryServer, tmp_path: Path) -> None:
    server.seed("SELECT", questions=10**6)
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, server.url, str(tmp_path / "ledger")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COSTINSIGHTS_STRICT": "1"},
    )
    assert program.stdin is not None
    assert program.stdout is not None
    id_ = program.stdout.readline().strip()
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdin.close()
    program.stdout.close()
    charge = Charges(tmp_path / "ledger").one()
    assert (charge.vendor_id, charge.partial, charge.amount) == (id_, True, None)
