"""Fixtures that the tests of SQL Server's clients, and of its cloud's histories, have in common.

A test module takes what it wants: ``server = tds_fixtures.server``.
"""

from __future__ import annotations

import gc
from datetime import timezone
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from tests.servers.tds_server import TdsServer, tds_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from tests.servers.charges import Charges

ROWS = 7
"""Rows of the table `t`."""


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture(scope="module")
def running() -> Iterator[TdsServer]:
    """A server with an empty table `t`, the same for a module."""
    with tds_server() as server:
        server.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, b VARCHAR)")
        yield server


@pytest.fixture
def server(running: TdsServer) -> TdsServer:
    """The server, as good as new, with the `ROWS` rows of `t`."""
    running.forget()
    running.execute("DELETE FROM t")
    running.execute(f"INSERT INTO t SELECT range, 'x' FROM range({ROWS})")
    return running


@pytest.fixture(scope="module")
def orders() -> Iterator[TdsServer]:
    """A server with a table `orders` of seven rows, for those whose histories matter."""
    with tds_server() as server:
        server.execute(
            "CREATE TABLE orders (a INTEGER); INSERT INTO orders SELECT range FROM range(7)"
        )
        yield server


def at(moment: datetime) -> datetime:
    """Return a moment as Azure's views have it: UTC, and no word of that."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


ENDS = ("close", "drop", "execute", "end")
"""How a program leaves a result that it has not read."""


def leave(connection: Any, how: str) -> None:
    """Read one row of `t`, and leave the rest."""
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t")
    cursor.fetchone()
    if how == "close":
        cursor.close()
    elif how == "execute":
        cursor.execute("UPDATE t SET b = 'y' WHERE a = 1")
    elif how == "drop":
        del cursor
        gc.collect()
    else:
        costinsights.uninstrument()


def says_partial(charges: Charges) -> None:
    """Check that the first charge says that one row of it was read, and no more."""
    first = charges.new()[0]
    assert (first.rows, first.partial) == (1, True)
