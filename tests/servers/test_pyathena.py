"""PyAthena, unmodified, against moto's server with figures: one charge a query on every path."""

from __future__ import annotations

import asyncio
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from pyathena import error
from pyathena.aio.connection import AioConnection
from pyathena.arrow.cursor import ArrowCursor
from pyathena.async_cursor import AsyncCursor, AsyncDictCursor
from pyathena.cursor import Cursor, DictCursor
from pyathena.pandas.async_cursor import AsyncPandasCursor
from pyathena.pandas.cursor import PandasCursor
from pyathena.s3fs.cursor import S3FSCursor

import costinsights
from tests.servers.aws_athena import Athena
from tests.servers.aws_server import AWSServer, aws_server
from tests.servers.charges import Charges, instrumented, text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# What has no types, or few.
CONNECT: Any = vars(import_module("pyathena"))["connect"]
FS: Any = import_module("pyarrow.fs")
TB = 2**40
FIVE = "5.000000000000000"
ROWS = [(number, f"n{number}") for number in range(2500)]
SECRET = "s3cr3t-77ac"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def athena(server: AWSServer, monkeypatch: pytest.MonkeyPatch) -> Athena:
    # PyAthena gives its endpoint to Athena's client only.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    # Arrow's own file system goes by no variable.
    address = server.url.partition("//")[2]
    here: Any = partial(FS.S3FileSystem, endpoint_override=address, scheme="http")
    monkeypatch.setattr(FS, "S3FileSystem", here)
    athena = Athena(server)
    columns = (("a", "integer"), ("b", "varchar"))
    athena.seed("", scanned=TB, columns=columns, rows=ROWS, questions=2)
    return athena


@pytest.fixture(params=["alone", "over botocore"])
def charges(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Charges]:
    """Whether botocore's instrumentor is on as well makes no difference."""
    names = ("pyathena",) if request.param == "alone" else ("botocore", "pyathena")
    with instrumented(tmp_path / "ledger", *names) as charges:
        yield charges


def access(server: AWSServer) -> dict[str, Any]:
    return {
        **server.access,
        "s3_staging_dir": "s3://results/out/",
        "poll_interval": 0.01,
        "schema_name": "default",
    }


@pytest.fixture
def connection(server: AWSServer, athena: Athena) -> Iterator[Any]:
    with CONNECT(**access(server)) as connection:
        yield connection


def rows_of(cursor: Any) -> int:
    return sum(1 for _ in cursor)


def frame_of(cursor: Any) -> int:
    return len(cursor.as_pandas())


def table_of(cursor: Any) -> int:
    return int(cursor.as_arrow().num_rows)


PATHS: list[tuple[type[Any], Callable[[Any], int]]] = [
    (Cursor, rows_of),
    (DictCursor, rows_of),
    (PandasCursor, frame_of),
    (ArrowCursor, table_of),
    (S3FSCursor, rows_of),
]


@pytest.mark.parametrize(("kind", "read"), PATHS, ids=[kind.__name__ for kind, _ in PATHS])
def test_every_cursor(
    connection: Any, charges: Charges, kind: type[Any], read: Callable[[Any], int]
) -> None:
    with connection.cursor(kind) as cursor:
        cursor.execute("SELECT a, b FROM orders WHERE b = %(b)s", {"b": SECRET})
        charge = charges.one()
        assert charge.vendor_id == cursor.query_id
        assert charge.usage["data_scanned_bytes"] == cursor.data_scanned_in_bytes == TB
        assert charge.usage["engine_time_ms"] == cursor.engine_execution_time_in_millis
        assert read(cursor) == len(ROWS)
    assert charges.new() == []
    assert (charge.system, charge.instrumentor) == ("aws.athena", "pyathena")
    assert (charge.amount, charge.basis, charge.partial) == (FIVE, "metered", False)
    assert text_of(charge) == "SELECT a, b FROM orders WHERE b = ?"
    assert charge.resource.namespace == "primary"
    assert SECRET not in charges.text()


def test_it_is_pending_while_pyathena_waits(connection: Any, charges: Charges) -> None:
    seen: list[Any] = []

    def started(_: str) -> None:
        seen.append(charges.one())

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1", on_start_query_execution=started)
        (pending,) = seen
        assert (pending.partial, pending.vendor_id) == (True, cursor.query_id)
        (done,) = charges.entries()
    assert (done.charge_id, done.revision, done.partial) == (pending.charge_id, 1, False)


@pytest.mark.parametrize("kind", [AsyncCursor, AsyncDictCursor, AsyncPandasCursor])
def test_threads(connection: Any, charges: Charges, kind: type[Any]) -> None:
    with connection.cursor(kind) as cursor:
        started = [cursor.execute(f"SELECT {number}") for number in range(8)]
        for _, future in started:
            future.result()
    found = charges.new()
    assert {charge.vendor_id for charge in found} == {id_ for id_, _ in started}
    assert {charge.amount for charge in found} == {FIVE}


def test_asyncio(server: AWSServer, athena: Athena, charges: Charges) -> None:
    async def run() -> int:
        connection: Any = await AioConnection.create(**access(server))
        async with connection, connection.cursor() as cursor:
            with costinsights.attribute(asset="orders"):
                await cursor.execute("SELECT a FROM t")
            return len(await cursor.fetchall())

    assert asyncio.run(run()) == len(ROWS)
    charge = charges.one()
    assert (charge.amount, charge.attribution["asset"]) == (FIVE, "orders")


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_what_ends_badly(connection: Any, athena: Athena, charges: Charges, state: str) -> None:
    athena.seed("nowhere", scanned=TB, state=state)
    with connection.cursor() as cursor, pytest.raises(error.OperationalError):
        cursor.execute("SELECT * FROM nowhere")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == state
    assert charge.amount == ("0.000000000000000" if state == "FAILED" else FIVE)


def test_what_cannot_be_started(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor, pytest.raises(error.DatabaseError):
        cursor.execute("syntax error")
    charge = charges.one()
    assert charge.error is not None
    assert (charge.error.type, charge.vendor_id) == ("pyathena.error.DatabaseError", None)


def test_cancelled_by_the_program(connection: Any, athena: Athena, charges: Charges) -> None:
    athena.seed("long", scanned=TB, questions=10**6)
    with connection.cursor(AsyncCursor) as cursor:
        id_, future = cursor.execute("SELECT long")
        cursor.cancel(id_).result()
        assert future.result().state == "CANCELLED"
    charge = charges.one()
    assert charge.error is not None
    assert (charge.error.type, charge.amount) == ("CANCELLED", FIVE)


def test_pyathenas_own_cache_is_no_query(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT a FROM t")
        first = cursor.query_id
        assert charges.one().vendor_id == first
        cursor.execute("SELECT a FROM t", cache_size=10)
        assert cursor.query_id == first
    assert charges.new() == []


def test_a_batch_is_a_query_for_each_set(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO t VALUES (%(a)d)", [{"a": 1}, {"a": 2}, {"a": 3}])
    assert len(charges.new()) == 3


def test_a_query_that_is_started_here_may_be_asked_after_by_boto3(
    server: AWSServer, connection: Any, tmp_path: Path
) -> None:
    with instrumented(tmp_path / "ledger", "botocore", "pyathena") as charges:
        client = server.client("athena")
        id_ = client.start_query_execution(QueryString="SELECT 1")["QueryExecutionId"]
        assert charges.one().instrumentor == "botocore"
        with connection.cursor(AsyncCursor) as cursor:
            cursor.poll(id_).result()
        client.close()
        assert (charges.one().amount, charges.new()) == (FIVE, [])


def test_sqlalchemy_and_pandas(server: AWSServer, athena: Athena, charges: Charges) -> None:
    import pandas as pd
    from sqlalchemy import create_engine, text

    athena.seed("SELECT", scanned=TB, columns=(("a", "integer"),), rows=[(1,), (2,)])
    url = "awsathena+rest://:@athena.us-east-1.amazonaws.com:443/default"
    engine = create_engine(url, connect_args=access(server))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT a FROM t")).all() == [(1,), (2,)]
        assert charges.one().amount == FIVE
        assert len(pd.read_sql(text("SELECT a FROM t"), connection)) == 2
        assert charges.one().amount == FIVE
    engine.dispose()


def everything(server: AWSServer) -> list[tuple[str, Any]]:
    """Do a bit of everything; return what the server saw of it."""
    athena = Athena(server)
    athena.seed("", scanned=TB, questions=2)
    with CONNECT(**access(server)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1").fetchall()
            cursor.execute("SELECT %(a)d", {"a": 1}, cache_size=5).fetchall()
        with connection.cursor(PandasCursor) as cursor:
            cursor.execute("SELECT 2").as_pandas()
    seen: list[tuple[str, Any]] = []
    for request in server.asked("athena"):
        params = request.params
        for name in ("QueryExecutionId", "QueryExecutionIds", "ClientRequestToken"):
            params.pop(name, None)
        seen.append((request.operation, params))
    return seen


def test_the_server_sees_what_it_would_see_without_us(
    server: AWSServer, athena: Athena, tmp_path: Path
) -> None:
    assert athena.aws is server
    server.requests.clear()
    bare = everything(server)
    with instrumented(tmp_path / "ledger", "botocore", "pyathena") as charges:
        server.requests.clear()
        assert everything(server) == bare
        assert len(charges.new()) == 2  # one was found in PyAthena's cache


def test_a_comment_only_when_asked_for(server: AWSServer, connection: Any, tmp_path: Path) -> None:
    costinsights.instrument(
        "pyathena",
        ledger=tmp_path / "ledger",
        exporters=[],
        attribution={"job": "nightly"},
        tagging="comment",
    )
    try:
        server.requests.clear()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        (sent,) = server.asked("athena", "StartQueryExecution")
        assert sent.params["QueryString"] == "SELECT 1 /*ci,job=nightly*/"
        assert Charges(tmp_path / "ledger").one().tag == "ci,job=nightly"
    finally:
        costinsights.uninstrument()
