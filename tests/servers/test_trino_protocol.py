"""Trino's client on an emulator of the wire protocol: what the real server in test_trino is too old
for. Parameters by `EXECUTE IMMEDIATE`, one request and not three, since Trino 418."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers.charges import instrumented, text_of
from tests.servers.trino_emulator import FIGURES, emulating
from tests.servers.trino_proxy import recording

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.trino_server import Coordinator

trino: Any = import_module("trino")
SECRET = "s3cr3t-77ac"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def server() -> Iterator[Coordinator]:
    with emulating("X-Trino") as server:
        yield server


@pytest.mark.parametrize("told", [False, None], ids=["told", "asked"])
def test_execute_immediate_is_one_charge(
    server: Coordinator, tmp_path: Path, told: bool | None
) -> None:
    with instrumented(tmp_path / "ledger", "trino") as charges, recording(server) as proxy:
        with trino.dbapi.connect(
            host="127.0.0.1", port=proxy.port, user="me", legacy_prepared_statements=told
        ) as connection:
            cursor = connection.cursor()
            cursor.execute(
                "select x from (values (1), (2)) t (x) where x < ? or ? = ''", (2, SECRET)
            )
            assert cursor.fetchall() == [[1]]
        charge = charges.one()
        sent = [post.body.decode() for post in proxy.posts()]
        # What the client asks by itself, once for a server, is not the program's statement.
        assert len(sent) == (1 if told is False else 2)
        assert sent[-1].startswith("EXECUTE IMMEDIATE 'select x")
        assert (charge.vendor_id, charge.rows, charge.partial) == (cursor.query_id, 1, False)
        assert text_of(charge) == "select x from (values (?)) t (x) where x < ? or ? = ?"
        assert SECRET not in charges.text()


def test_figures_grow_until_the_last_page(server: Coordinator, tmp_path: Path) -> None:
    with (
        instrumented(tmp_path / "ledger", "trino") as charges,
        trino.dbapi.connect(host=server.host, port=server.port, user="me") as connection,
    ):
        cursor = connection.cursor()
        cursor.execute("select * from range(2000)")
        assert charges.one().usage["cpu_time_ms"] == 0
        assert len(cursor.fetchmany(500)) == 500
        assert charges.new() == []
        assert len(cursor.fetchall()) == 1500
        charge = charges.one()
        assert charge.usage["cpu_time_ms"] == FIGURES["cpuTimeMillis"]
        assert (charge.rows, charge.partial, charge.revision) == (2000, False, 1)
