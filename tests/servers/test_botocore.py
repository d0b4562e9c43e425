"""Athena by unmodified boto3, against moto's server with figures: one charge a query, no request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

import costinsights
from tests.servers.aws_athena import Athena
from tests.servers.aws_server import REGION, AWSServer, Refusal, aws_server, boto3
from tests.servers.charges import Charges, instrumented, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "s3cr3t-77ac"
TB = 2**40
STATES = ("SUCCEEDED", "FAILED", "CANCELLED")


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def athena(server: AWSServer) -> Athena:
    server.requests.clear()
    return Athena(server)


@pytest.fixture
def client(server: AWSServer, athena: Athena) -> Iterator[Any]:
    """A client that was made before anything was instrumented."""
    client = server.client("athena")
    yield client
    client.close()


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "botocore") as charges:
        yield charges


def start(client: Any, text: str, **more: Any) -> str:
    id_: str = client.start_query_execution(QueryString=text, **more)["QueryExecutionId"]
    return id_


def wait(client: Any, id_: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = client.get_query_execution(QueryExecutionId=id_)["QueryExecution"]
        if found["Status"]["State"] in STATES:
            return found


def test_a_query_is_one_charge_that_its_end_completes(
    client: Any, athena: Athena, charges: Charges
) -> None:
    athena.seed("orders", scanned=3 * TB, engine_ms=12_000, questions=2, dpus=8.5)
    id_ = start(client, f"SELECT * FROM orders WHERE name = '{SECRET}'", WorkGroup="etl")
    pending = charges.one()
    assert (pending.system, pending.instrumentor) == ("aws.athena", "botocore")
    assert (pending.vendor_id, pending.partial, pending.amount) == (id_, True, None)
    assert text_of(pending) == "SELECT * FROM orders WHERE name = ?"
    assert (pending.resource.address, pending.resource.namespace) == ("127.0.0.1", "etl")
    wait(client, id_)
    charge = charges.one()
    assert (charge.charge_id, charge.revision, charge.partial) == (pending.charge_id, 1, False)
    assert (charge.amount, charge.currency, charge.basis) == (
        "15.000000000000000",
        "USD",
        "metered",
    )
    assert charge.price is not None
    assert charge.price.key == "aws.athena.sql/us-east-1"
    assert {key: value for key, value in charge.usage.items() if key != "time_ns"} == {
        "data_scanned_bytes": 3 * TB,
        "engine_time_ms": 12_000,
        "planning_time_ms": 120,
        "queue_time_ms": 40,
        "service_time_ms": 10,
        "total_time_ms": 12_050,
        "dpu_count": 8.5,
    }
    assert SECRET not in charges.text()
    client.get_query_results(QueryExecutionId=id_)
    wait(client, id_)
    assert charges.new() == []


FREE = "0.000000000000000"
LEAST = "0.000047683715820"  # 10 MB


@pytest.mark.parametrize(
    ("text", "figures", "amount"),
    [
        ("SELECT 1", {"scanned": 0}, FREE),
        ("SELECT a FROM t", {"scanned": 1}, LEAST),
        ("SELECT a FROM t", {"scanned": 10 * 2**20 + 1}, "0.000052452087402"),
        ("SELECT a FROM t", {"scanned": 0, "reused": True}, FREE),
        ("SELECT a FROM t", {"scanned": 5 * 2**30, "state": "FAILED"}, FREE),
        ("SELECT a FROM t", {"scanned": TB, "state": "CANCELLED"}, "5.000000000000000"),
        ("MSCK REPAIR TABLE t", {"scanned": 77}, FREE),
        ("CREATE EXTERNAL TABLE t (a int) LOCATION 's3://x'", {"scanned": 0}, FREE),
        ("CREATE TABLE t AS SELECT * FROM u", {"scanned": TB}, "5.000000000000000"),
        (
            "CREATE TABLE t WITH (format = 'ORC') AS\nWITH x AS (SELECT 1) SELECT * FROM x",
            {"scanned": TB, "substatement": "CREATE_TABLE_AS_SELECT"},
            "5.000000000000000",
        ),
        ("EXECUTE mine USING 1", {"scanned": TB}, "5.000000000000000"),
        ("SELECT a FROM t", {"scanned": None}, None),
    ],
)
def test_what_is_billed(
    client: Any,
    athena: Athena,
    charges: Charges,
    text: str,
    figures: dict[str, Any],
    amount: str | None,
) -> None:
    athena.seed("", **figures)
    wait(client, start(client, text))
    charge = charges.one()
    assert charge.amount == amount
    assert charge.basis == ("unknown" if amount is None else "metered")
    assert charge.usage.get("result_reused") == (1 if figures.get("reused") else None)
    if amount == FREE and figures["scanned"]:
        assert charge.usage["data_scanned_bytes"] == 0
        assert charge.usage["unbilled_bytes"] == figures["scanned"]
    state = figures.get("state")
    assert (charge.error.type if charge.error is not None else None) == state
    assert "reason" not in charges.text()


def test_many_are_asked_after_at_once(client: Any, athena: Athena, charges: Charges) -> None:
    athena.seed("", scanned=TB, questions=0)
    ids = [start(client, f"SELECT {number}") for number in range(50)]
    assert all(charge.partial for charge in charges.new())
    client.batch_get_query_execution(QueryExecutionIds=ids)
    done = charges.new()
    assert {charge.vendor_id for charge in done} == set(ids)
    assert not any(charge.partial for charge in done)
    assert {charge.amount for charge in done} == {"5.000000000000000"}


def run_everything(client: Any, athena: Athena) -> list[Any]:
    """Use each operation; return what came back, without what is different each time."""
    athena.seed("", scanned=TB)
    id_ = start(client, "SELECT 1", ClientRequestToken="t" * 40)
    found: list[Any] = [wait(client, id_)["Statistics"]]
    found.append(client.get_query_results(QueryExecutionId=id_)["ResultSet"])
    found.append(
        client.batch_get_query_execution(QueryExecutionIds=[id_])["QueryExecutions"][0]["Query"]
    )
    client.stop_query_execution(QueryExecutionId=id_)
    found.append(len(client.list_query_executions(MaxResults=5)["QueryExecutionIds"]))
    with pytest.raises(ClientError) as caught:
        start(client, "syntax error")
    found.append((type(caught.value).__name__, str(caught.value)))
    return found


def seen(server: AWSServer) -> list[tuple[str, Any]]:
    """Return the requests and their bodies, ids and tokens made alike."""
    bodies: list[tuple[str, Any]] = []
    for request in server.asked("athena"):
        params = request.params
        for name in ("QueryExecutionId", "QueryExecutionIds"):
            params.pop(name, None)
        if params.get("ClientRequestToken") != "t" * 40:
            params.pop("ClientRequestToken", None)
        bodies.append((request.operation, params))
    return bodies


def test_the_server_sees_what_it_would_see_without_us(
    client: Any, server: AWSServer, tmp_path: Path
) -> None:
    bare = run_everything(client, Athena(server))
    without = seen(server)
    with instrumented(tmp_path / "ledger", "botocore") as charges:
        assert run_everything(client, Athena(server)) == bare
        assert seen(server) == without
        assert len(without) == 8
        assert [charge.partial for charge in charges.new()] == [False, False]
        # The interpreter cannot tell us from botocore either.
        assert client.start_query_execution.__name__ == "start_query_execution"


def test_an_idempotent_start_is_one_charge(client: Any, athena: Athena, charges: Charges) -> None:
    athena.seed("", scanned=TB)
    first = start(client, "SELECT 1", ClientRequestToken="a" * 32)
    assert start(client, "SELECT 1", ClientRequestToken="a" * 32) == first
    wait(client, first)
    assert start(client, "SELECT 1", ClientRequestToken="a" * 32) == first
    assert charges.one().amount == "5.000000000000000"


def test_a_throttled_start_is_tried_again_by_botocore_and_is_one_charge(
    client: Any, server: AWSServer, athena: Athena, charges: Charges
) -> None:
    refusal = Refusal("ThrottlingException", headers=(("Retry-After", "0"),))
    server.refuse("athena", "StartQueryExecution", refusal)
    wait(client, start(client, "SELECT 1"))
    assert not charges.one().partial
    assert server.counts("athena")["StartQueryExecution"] == 2


def test_what_is_no_query_is_no_charge(
    client: Any, server: AWSServer, athena: Athena, charges: Charges
) -> None:
    client.create_named_query(Name="n", Database="d", QueryString="SELECT 1")
    client.list_work_groups()
    storage = server.client("s3")
    storage.put_object(Bucket="results", Key="k", Body=b"x")
    assert storage.get_object(Bucket="results", Key="k")["Body"].read() == b"x"
    storage.close()
    assert charges.new() == []


def test_a_start_that_is_refused_is_an_error_and_no_query(
    client: Any, athena: Athena, charges: Charges
) -> None:
    with pytest.raises(ClientError, match="mismatched input"):
        start(client, "syntax error")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "botocore.errorfactory.InvalidRequestException"
    assert (charge.vendor_id, charge.partial, charge.amount) == (None, False, None)


def test_another_region_is_unknown_and_said_once(
    server: AWSServer, athena: Athena, charges: Charges, caplog: pytest.LogCaptureFixture
) -> None:
    athena.seed("", scanned=TB)
    client = server.client("athena", region_name="mars-north-1")
    for _ in range(3):
        wait(client, start(client, "SELECT 1"))
    client.close()
    assert {(charge.amount, charge.basis) for charge in charges.new()} == {(None, "unknown")}
    said = [record for record in caplog.records if "mars-north-1" in record.getMessage()]
    assert len(said) == 1


def test_a_reserved_workgroup_is_not_priced_by_bytes(
    client: Any, athena: Athena, tmp_path: Path
) -> None:
    athena.seed("", scanned=TB)
    capacity = {
        "name": "24 DPUs",
        "system": "aws.athena",
        "database": "reserved",
        "price": "7.20",
        "unit": "hour",
        "currency": "USD",
    }
    costinsights.instrument(
        "botocore", ledger=tmp_path / "ledger", exporters=[], config={"capacity": [capacity]}
    )
    try:
        charges = Charges(tmp_path / "ledger")
        wait(client, start(client, "SELECT 1", WorkGroup="reserved"))
        charge = charges.one()
        assert charge.amount is not None
        assert 0 < float(charge.amount) < 1
        assert (charge.basis, charge.usage["data_scanned_bytes"]) == ("estimated", TB)
        wait(client, start(client, "SELECT 1"))
        assert charges.one().amount == "5.000000000000000"
    finally:
        costinsights.uninstrument()


def test_thirty_two_at_once(server: AWSServer, athena: Athena, charges: Charges) -> None:
    athena.seed("", scanned=TB)
    client = server.client("athena")
    threads = [
        threading.Thread(target=lambda: wait(client, start(client, "SELECT 1"))) for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    found = charges.new()
    assert len(found) == 32
    assert len({charge.vendor_id for charge in found}) == 32
    assert {charge.amount for charge in found} == {"5.000000000000000"}


@pytest.mark.parametrize("mode", ["native", "comment"])
def test_tags(client: Any, server: AWSServer, tmp_path: Path, mode: str) -> None:
    """Athena has no channel of its own: only who asks for a comment gets one."""
    athena = Athena(server)
    server.requests.clear()
    costinsights.instrument(
        "botocore",
        ledger=tmp_path / "ledger",
        exporters=[],
        attribution={"job": "nightly"},
        tagging=mode,
    )
    try:
        request = {"QueryString": "SELECT 1", "WorkGroup": "primary"}
        given = dict(request)
        client.start_query_execution(**request)
        assert request == given
        sent = server.asked("athena", "StartQueryExecution")[0].params["QueryString"]
        tag = Charges(tmp_path / "ledger").one().tag
    finally:
        costinsights.uninstrument()
    assert athena.aws is server
    if mode == "comment":
        assert (sent, tag) == ("SELECT 1 /*ci,job=nightly*/", "ci,job=nightly")
    else:
        assert (sent, tag) == ("SELECT 1", None)


def test_switched_off_again(client: Any, athena: Athena, charges: Charges) -> None:
    id_ = start(client, "SELECT 1")
    costinsights.uninstrument()
    wait(client, id_)
    start(client, "SELECT 2")
    assert charges.one().partial


def test_opentelemetrys_wrapper_changes_nothing(
    client: Any, athena: Athena, charges: Charges
) -> None:
    """Other tools wrap the same method; ours stays below and counts once."""
    wrapt = pytest.importorskip("wrapt")
    base: Any = import_module("botocore.client").BaseClient

    def theirs(wrapped: Any, _: object, args: Any, kwargs: Any) -> Any:
        return wrapped(*args, **kwargs)

    ours = base._make_api_call
    base._make_api_call = wrapt.FunctionWrapper(ours, theirs)
    try:
        wait(client, start(client, "SELECT 1"))
    finally:
        base._make_api_call = ours
    assert not charges.one().partial


SCRIPT = """
import json, sys
import boto3, costinsights
access, ledger = json.loads(sys.argv[1]), sys.argv[2]
costinsights.instrument(ledger=ledger, exporters=[])
client = boto3.client("athena", **access)
print(client.start_query_execution(QueryString="SELECT 1")["QueryExecutionId"], flush=True)
sys.stdin.read()
"""


def test_a_killed_program_leaves_its_query_pending(
    server: AWSServer, athena: Athena, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(server.access), str(ledger)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COSTINSIGHTS_STRICT": "1"},
    )
    assert program.stdout is not None
    assert program.stdin is not None
    id_ = program.stdout.readline().strip()
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    program.stdin.close()
    charge = Charges(ledger).one()
    assert (charge.vendor_id, charge.partial, charge.amount) == (id_, True, None)


def test_a_session_of_its_own_is_seen(server: AWSServer, athena: Athena, charges: Charges) -> None:
    session = boto3().Session(aws_access_key_id="a", aws_secret_access_key="b", region_name=REGION)
    client = session.client("athena", endpoint_url=server.url)
    wait(client, start(client, "SELECT 1"))
    client.close()
    assert not charges.one().partial


def test_names_that_tell_of_jobs_are_none_of_s3s(server: AWSServer) -> None:
    from costinsights_instrumentors.botocore import NAMES, NOT_S3

    client = server.client("s3")
    names = set(client.meta.service_model.operation_names)
    client.close()
    assert NOT_S3.isdisjoint(names)
    assert NAMES - names == NOT_S3
