"""An emulator of the statement protocol that Trino and Presto speak, over DuckDB, in this process.

For what no server here has: `EXECUTE IMMEDIATE` (Trino 418), and Presto where its 1.9 GB were not
fetched. A statement is answered as they do it: queued, then in pages of rows with figures that grow
until the last. The figures are made up, and the same on the query's own page: `FIGURES` is the seam.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, unquote_plus

import duckdb

from tests.servers.trino_server import Coordinator

if TYPE_CHECKING:
    from collections.abc import Generator

PAGE = 400
FIGURES = {
    "cpuTimeMillis": 1234,
    "wallTimeMillis": 4321,
    "elapsedTimeMillis": 5000,
    "queuedTimeMillis": 12,
    "processedBytes": 3 * 2**20,
    "physicalInputBytes": 2 * 2**20,
    "physicalWrittenBytes": 0,
    "peakMemoryBytes": 2**20,
    "spilledBytes": 0,
}
KINDS = {"INTEGER": "integer", "BIGINT": "bigint", "DOUBLE": "double", "BOOLEAN": "boolean"}
TEXT = {"rawType": "varchar", "arguments": [{"kind": "LONG", "value": 2147483647}]}


@dataclass
class Query:
    """A statement, and what became of it."""

    id: str
    text: str
    headers: dict[str, str]
    begun: datetime
    ended: datetime | None = None
    columns: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    rows: list[list[Any]] = field(default_factory=list[list[Any]])
    error: str | None = None
    update: str | None = None
    said: dict[str, str] = field(default_factory=dict[str, str])


class Emulator(http.server.ThreadingHTTPServer):
    """A coordinator, by the protocol of its clients."""

    daemon_threads = True

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.queries: dict[str, Query] = {}
        self.numbers = count()
        self.database = duckdb.connect()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def port(self) -> int:
        return self.server_address[1]

    def run(self, query: Query) -> None:
        """Run a statement to its end."""
        text, given = query.text, None
        name = f"{self.prefix}-Prepared-Statement"
        prepared = dict(
            pair.split("=", 1) for pair in query.headers.get(name, "").split(",") if pair
        )
        if found := re.match(r"PREPARE (\w+) FROM (.*)", text, re.DOTALL):
            query.update = "PREPARE"
            query.said[f"{self.prefix}-Added-Prepare"] = f"{found[1]}={quote_plus(found[2])}"
            return
        if found := re.match(r"DEALLOCATE PREPARE (\w+)", text):
            query.update = "DEALLOCATE"
            query.said[f"{self.prefix}-Deallocated-Prepare"] = found[1]
            return
        if found := re.match(
            r"EXECUTE IMMEDIATE '((?:[^']|'')*)'(?: USING (.*))?", text, re.DOTALL
        ):
            text, given = found[1].replace("''", "'"), found[2]
        elif found := re.match(r"EXECUTE (\w+) USING (.*)", text, re.DOTALL):
            text, given = unquote_plus(prepared[found[1]]), found[2]
        cursor = self.database.cursor()
        try:
            values = cursor.execute(f"select {given}").fetchone() if given else None
            cursor.execute(text, values)
            for column, kind, *_ in cursor.description or ():
                raw = KINDS.get(str(kind), "varchar")
                signature: dict[str, Any] = (
                    TEXT if raw == "varchar" else {"rawType": raw, "arguments": []}
                )
                query.columns.append({"name": column, "type": raw, "typeSignature": signature})
            query.rows = [[_plain(value) for value in row] for row in cursor.fetchall()]
        except duckdb.Error as error:
            query.error = type(error).__name__
        finally:
            cursor.close()


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body go together, or the client's kernel waits for 40 ms

    @property
    def emulator(self) -> Emulator:
        assert isinstance(self.server, Emulator)
        return self.server

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        now = datetime.now(timezone.utc)
        number = next(self.emulator.numbers)
        query = Query(f"{now:%Y%m%d_%H%M%S}_{number:05}_emula", text, dict(self.headers), now)
        self.emulator.queries[query.id] = query
        self._send(self._page(query, -1))

    def do_GET(self) -> None:
        _, _, kind, *rest = self.path.split("/")
        if kind == "info":
            self._send({"starting": False, "uptime": "5.00m"})
        elif kind == "query" and rest:
            self._send(self._shown(self.emulator.queries[rest[0]]))
        elif kind == "query":
            self._send([self._shown(query) for query in list(self.emulator.queries.values())])
        else:
            query, page = self.emulator.queries[rest[1]], int(rest[2])
            if page == 0:
                self.emulator.run(query)
            self._send(self._page(query, page), query.said)

    def do_DELETE(self) -> None:
        self._send(None)

    def _page(self, query: Query, number: int) -> dict[str, Any]:
        """Return what the client gets: -1 is the answer to the statement itself."""
        base = f"http://127.0.0.1:{self.emulator.port}"
        rows = query.rows[number * PAGE : (number + 1) * PAGE] if number >= 0 else []
        last = number >= 0 and (number + 1) * PAGE >= len(query.rows)
        page: dict[str, Any] = {"id": query.id, "infoUri": f"{base}/ui/query.html?{query.id}"}
        if number >= 0 and query.columns:
            page |= {"columns": query.columns, "data": rows}
        if query.update:
            page["updateType"] = query.update
        if query.error and number >= 0:
            page["error"] = {
                "message": query.error,
                "errorCode": 1,
                "errorName": "SYNTAX_ERROR",
                "errorType": "USER_ERROR",
            }
        elif not last:
            page["nextUri"] = f"{base}/v1/statement/executing/{query.id}/{number + 1}"
        if last:
            query.ended = datetime.now(timezone.utc)
        figures = FIGURES if last else dict.fromkeys(FIGURES, 0)
        state = "FAILED" if query.error else "FINISHED" if last else "RUNNING"
        rows_read = len(query.rows) if last else 0
        page["stats"] = {"state": state, "processedRows": rows_read, **figures}
        return page

    def _shown(self, query: Query) -> dict[str, Any]:
        """Return a query's own page, with the figures as they are shown there."""
        prefix = self.emulator.prefix
        seconds = Decimal(FIGURES["cpuTimeMillis"]) / 1000
        stats = {
            "createTime": query.begun.isoformat(),
            "endTime": query.ended.isoformat() if query.ended else None,
            "totalCpuTime": f"{seconds:.2f}s",
            "rawInputPositions": len(query.rows),
            "rawInputDataSize": f"{FIGURES['processedBytes'] // 2**20}MB",
        }
        tags = query.headers.get(f"{prefix}-Client-Tags")
        return {
            "queryId": query.id,
            "query": query.text,
            "state": "FAILED" if query.error else "FINISHED" if query.ended else "RUNNING",
            "session": {
                "user": query.headers.get(f"{prefix}-User"),
                "source": query.headers.get(f"{prefix}-Source"),
                "catalog": query.headers.get(f"{prefix}-Catalog"),
                "clientTags": tags.split(",") if tags else [],
            },
            "queryStats": stats,
        }

    def _send(self, content: Any, headers: dict[str, str] | None = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(204 if content is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        pass


@contextlib.contextmanager
def emulating(prefix: str) -> Generator[Coordinator]:
    """Serve the protocol with headers that begin with `prefix`."""
    with Emulator(prefix) as emulator:
        thread = threading.Thread(target=emulator.serve_forever, args=(0.1,))
        thread.start()
        try:
            yield Coordinator("127.0.0.1", emulator.port, prefix, "emulator", real=False)
        finally:
            emulator.shutdown()
            thread.join()
            emulator.database.close()
