"""Presto's history: what an event listener wrote, or what the coordinator still remembers.

As Trino's (see `costinsights.settlement.trino`), with Presto's headers. Presto comes without an event
listener of its own: the events and the table are those of a listener that writes them as Trino's do.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from costinsights.settlement.history import MARK
from costinsights.settlement.trino import TrinoHistory


class PrestoHistory(TrinoHistory):
    """Reads the queries of one cluster."""

    system = "presto"
    dependencies = "costinsights[prestodb]"
    verified = "Presto 0.283, real engine"
    header = "X-Presto"

    def _connected(self) -> Any:
        prestodb: Any = import_module("prestodb")
        given = self.options
        login = prestodb.auth.BasicAuthentication(given.user, given.password)
        return prestodb.dbapi.connect(
            host=self._host,
            port=self._port,
            http_scheme="https" if self._secure else "http",
            user=given.user,
            auth=login if given.password else None,
            source=MARK,
            http_headers={"X-Presto-Client-Tags": MARK},
            request_timeout=given.timeout,
        )
