"""ADBC's unmodified Flight SQL driver on a server of ours over gRPC (an emulator of Dremio)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import costinsights
from costinsights.records import Resource
from costinsights_instrumentors.adbc_flightsql import ADBCFlightSQLInstrumentor
from tests.servers.charges import Charges, instrumented, text_of
from tests.servers.dremio_server import Dremio, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

flightsql: Any = import_module("adbc_driver_flightsql.dbapi")
manager: Any = import_module("adbc_driver_manager.dbapi")
SECRET = "s3cr3t-77ac"
READS: dict[str, Callable[[Any], int]] = {
    "all": lambda cursor: len(cursor.fetchall()),
    "arrow": lambda cursor: cursor.fetch_arrow_table().num_rows,
    "frame": lambda cursor: len(cursor.fetch_df()),
    "one": lambda cursor: sum(1 for _ in iter(cursor.fetchone, None)),
    "many": lambda cursor: sum(len(rows) for rows in iter(lambda: cursor.fetchmany(700), [])),
    "iterated": lambda cursor: sum(1 for _ in cursor),
}


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def server() -> Iterator[Dremio]:
    with serving() as server:
        yield server


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "adbc_flightsql") as charges:
        yield charges


def connect(server: Dremio) -> Any:
    return flightsql.connect(
        f"grpc://127.0.0.1:{server.port}",
        db_kwargs={"adbc.flight.sql.authorization_header": f"Bearer {SECRET}"},
        autocommit=True,
    )


@pytest.fixture
def connection(charges: Charges, server: Dremio) -> Iterator[Any]:
    with connect(server) as connection:
        yield connection


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_charge_says_what_ran_where(
    connection: Any, charges: Charges, server: Dremio, read: Callable[[Any], int]
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT i FROM range(2500) t(i) WHERE i < ?", (2400,))
        assert read(cursor) == 2400
        charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("other_sql", "adbc_flightsql")
    assert (charge.resource.address, charge.resource.port) == ("127.0.0.1", server.port)
    assert text_of(charge) == "SELECT i FROM range(?) t(i) WHERE i < ?"
    assert (charge.rows, charge.partial) == (2400, False)
    assert charges.new() == []
    assert SECRET not in charges.text()


def test_changes_and_batches(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a INT)")
        cursor.fetchall()  # The driver asks for the result in the background: this waits for it.
        cursor.executemany("INSERT INTO t VALUES (?)", [(1,), (2,), (3,)])
        found = charges.new()
    assert [charge.operation for charge in found] == ["CREATE TABLE", "BATCH INSERT"]
    assert found[1].rows == 3
    assert found[1].usage["batch_size"] == 3


def test_an_error_is_the_drivers(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor, pytest.raises(manager.Error, match="nope"):
        cursor.execute("SELECT nope")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type.endswith("OperationalError")


def test_a_result_that_is_left_early_is_partial(connection: Any, charges: Charges) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT i FROM range(5000) t(i)")
        cursor.fetchmany(10)
    charge = charges.one()
    assert (charge.rows, charge.partial) == (10, True)


def test_pandas_counts_once(connection: Any, charges: Charges) -> None:
    assert len(pd.read_sql("SELECT i FROM range(7) t(i)", connection)) == 7
    charge = charges.one()
    assert (charge.rows, charge.partial) == (7, False)


def session(server: Dremio) -> list[Any]:
    with connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT i FROM range(3) t(i) WHERE i < ?", (2,))
        seen: list[Any] = cursor.fetchall()
        cursor.execute("SELECT 1 AS a")
        return [*seen, cursor.fetch_arrow_table().to_pydict(), cursor.description]


def test_the_server_sees_the_same_with_and_without_us(tmp_path: Path) -> None:
    with serving() as server:
        bare, before = session(server), server.requests
    with serving() as server, instrumented(tmp_path, "adbc_flightsql") as charges:
        assert session(server) == bare
        assert len(charges.new()) == 2
        assert server.requests == before
    assert len(before) > 5


def test_where_a_connection_leads_is_in_its_options_too() -> None:
    class Connection:
        """Stands for one, because a real one would at once ask the server for what it can."""

    connection, ours = Connection(), ADBCFlightSQLInstrumentor()
    options = {"uri": "grpc+tls://data.dremio.cloud:443", "password": SECRET}
    ours.connected((), {"db_kwargs": options}, connection)
    assert ours.resource(connection) == Resource("data.dremio.cloud", 443)


def test_a_server_is_dremio_where_the_configuration_says_so(server: Dremio, tmp_path: Path) -> None:
    declared = {"resource": [{"name": "lake", "host": "127.0.0.1", "system": "dremio"}]}
    costinsights.instrument("adbc_flightsql", ledger=tmp_path, exporters=[], config=declared)
    try:
        with connect(server) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()
        assert Charges(tmp_path).one().system == "dremio"
    finally:
        costinsights.uninstrument()


def test_uninstrumented_means_uncounted(server: Dremio, tmp_path: Path) -> None:
    with connect(server) as connection:
        with instrumented(tmp_path, "adbc_flightsql") as charges, connection.cursor() as cursor:
            costinsights.instrument("adbc_flightsql", ledger=tmp_path, exporters=[])
            cursor.execute("SELECT 1")
            assert cursor.fetchall() == [(1,)]
            assert charges.one().rows == 1
        with connection.cursor() as cursor:
            cursor.execute("SELECT 2")
            assert cursor.fetchall() == [(2,)]
        assert charges.new() == []
