"""The driver of ACME DB, a made-up warehouse: not part of the example, but what it is for.

A "host" is a file. In it, ACME keeps the tables, and in ``acme_queries`` what it knows of every
query: the client learns no more than the query's id.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Sequence

__version__ = "1.4.0"

apilevel = "2.0"
paramstyle = "qmark"
Error = sqlite3.Error

_HISTORY = """
CREATE TABLE IF NOT EXISTS acme_queries (
    id TEXT, account TEXT, text TEXT, began TEXT, ended TEXT, result_rows INTEGER, bytes INTEGER)
"""
BYTES_A_STATEMENT = 2 * 10**9


def connect(host: str, *, user: str = "", database: str = "main") -> Connection:
    """Connect to a host."""
    return Connection(host, user, database)


class Connection:
    """A session; every statement is a transaction of its own."""

    def __init__(self, host: str, user: str, database: str) -> None:
        self.host, self.user, self.database = host, user, database
        self.session = sqlite3.connect(host, isolation_level=None)
        self.session.execute(_HISTORY)

    def cursor(self) -> Cursor:
        return Cursor(self)

    def close(self) -> None:
        self.session.close()


class Cursor:
    """A cursor; `query_id` is what ACME calls the last query."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.query_id: str | None = None
        self.rowcount = -1
        self.description: Any = None
        self._rows: list[Any] = []

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Cursor:
        self.query_id = uuid4().hex
        began = _now()
        done = self.connection.session.execute(statement, parameters)
        self._rows, self.description = done.fetchall(), done.description
        self.rowcount = len(self._rows) if done.description else done.rowcount
        self.connection.session.execute(
            "INSERT INTO acme_queries VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                self.query_id,
                self.connection.user,
                statement,
                began,
                _now(),
                self.rowcount,
                BYTES_A_STATEMENT,
            ),
        )
        return self

    def fetchall(self) -> list[Any]:
        rows, self._rows = self._rows, []
        return rows

    def close(self) -> None:
        self._rows = []


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
