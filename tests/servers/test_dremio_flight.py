"""Plain `pyarrow.flight` on a server of ours over gRPC (an emulator of Dremio)."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from costinsights_instrumentors.pyarrow_flight import statement_in
from tests.servers.charges import Charges, instrumented, text_of
from tests.servers.dremio_server import Dremio, packed, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

flight: Any = import_module("pyarrow.flight")


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
    with instrumented(tmp_path / "ledger", "pyarrow_flight") as charges:
        yield charges


def ask(client: Any, command: str | bytes) -> Any:
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command))
    return client.do_get(info.endpoints[0].ticket)


def flight_sql(text: str) -> bytes:
    return packed(b"CommandStatementQuery", b"\n" + bytes([len(text)]) + text.encode())


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "flight sql"])
def test_a_charge_says_what_ran_where(charges: Charges, server: Dremio, wrapped: bool) -> None:
    text = "SELECT i FROM range(2500) t(i) WHERE i < 2400"
    with flight.FlightClient(f"grpc://127.0.0.1:{server.port}") as client:
        reader = ask(client, flight_sql(text) if wrapped else text)
        assert charges.one().partial
        assert reader.read_all().num_rows == 2400
        charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("other_sql", "pyarrow_flight")
    assert (charge.resource.address, charge.resource.port) == ("127.0.0.1", server.port)
    assert text_of(charge) == "SELECT i FROM range(?) t(i) WHERE i < ?"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 2400, False)


def test_other_ways_of_reading(charges: Charges, server: Dremio) -> None:
    with flight.connect(("127.0.0.1", server.port)) as client:
        assert len(ask(client, "SELECT i FROM range(5) t(i)").read_pandas()) == 5
        frame = charges.one()
        chunks = [chunk.data.num_rows for chunk in ask(client, "SELECT i FROM range(2500) t(i)")]
        assert sum(chunks) == 2500
        gc.collect()
        chunked = charges.one()
    assert (frame.rows, frame.partial) == (5, False)
    assert (chunked.rows, chunked.partial) == (None, True)


def test_an_error_is_the_clients(charges: Charges, server: Dremio) -> None:
    with flight.FlightClient(f"grpc://127.0.0.1:{server.port}") as client:
        with pytest.raises(flight.FlightError, match="nope"):
            ask(client, "SELECT nope")
        assert charges.new() == []  # it was refused when it was planned


def session(server: Dremio) -> list[Any]:
    with flight.FlightClient(f"grpc://127.0.0.1:{server.port}") as client:
        seen = [ask(client, "SELECT 1 AS a").read_all().to_pydict()]
        return [*seen, repr(client.__class__), flight.FlightClient.__name__]


def test_the_server_sees_the_same_with_and_without_us(tmp_path: Path) -> None:
    with serving() as server:
        bare, before = session(server), server.requests
    with serving() as server, instrumented(tmp_path, "pyarrow_flight") as charges:
        assert session(server) == bare
        assert len(charges.new()) == 1
        assert server.requests == before
    assert len(before) == 2


def test_what_is_in_a_command() -> None:
    assert statement_in(b"SELECT 1") == "SELECT 1"
    assert statement_in(flight_sql("SELECT 2")) == "SELECT 2"
    assert statement_in(packed(b"CommandGetTables", b"")) is None
    assert statement_in(None) is None
