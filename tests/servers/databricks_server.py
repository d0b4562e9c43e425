"""A Databricks workspace for tests: an emulator of its wire protocols, with DuckDB behind them.

What speaks to it is unmodified: databricks-sql-connector over Thrift and over the Statement
Execution API (SEA), databricks-sqlalchemy, and databricks-sdk with its jobs. It proves that we work
with the real clients and their wire format, and nothing about what Databricks counts or charges.

One `Workspace` is one server. Statements run in DuckDB, written anew by sqlglot, each in a thread of
its own, so that they can be slow, be asked about, and be cancelled. Ids are counted and not random:
two workspaces that are asked the same give the same answers, byte for byte, so what a client sends
with and without us can be compared whole (`Workspace.requests`).

The seam for history and figures:

- every statement that runs is a row of ``system.query.history`` and of the query history API, with
  the metrics that `Workspace.figures` gives for it;
- `Workspace.seed` puts rows into ``system.query.history``, ``system.billing.usage``,
  ``system.billing.list_prices`` and ``system.lakeflow``; what a row does not say is null;
- `Workspace.jobs` has the jobs, their runs and the pipelines (`databricks_jobs_api.Jobs`).

Column names are those of Databricks' documentation, as far as anything here reads them.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

from tests.servers.databricks_jobs_api import Refused
from tests.servers.databricks_statements import Statements
from tests.servers.databricks_thrift import answered, method_of
from tests.servers.databricks_workspace import Request, Statement, Workspace, moment

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Request", "Statement", "Workspace", "moment", "serving"]


class _Handler(BaseHTTPRequestHandler):
    """Takes requests of all three kinds apart, and keeps them."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body go together, or the client's kernel waits for 40 ms

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the base's name
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        workspace = cast("_Server", self.server).workspace
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        rest = not url.path.startswith("/sql/")
        call = f"{self.command} {_plain(url.path)}" if rest else method_of(body)
        workspace.requests.append(Request(call, self.path, body, dict(self.headers)))
        for path, (status, given) in workspace.answers.items():
            if url.path.startswith(path):
                self._reply(status, json.dumps(given).encode(), "application/json")
                return
        for fault in workspace.faults:
            path, status, code = fault
            if url.path.startswith(path):
                workspace.faults.remove(fault)
                said = {"error_code": code, "message": "a fault"}
                self._reply(status, json.dumps(said).encode(), "application/json")
                return
        if url.path.startswith("/files/"):
            _, _, statement_id, start = url.path.split("/")
            found = workspace.file(statement_id, int(start))
            self._reply(404 if found is None else 200, found or b"", "application/octet-stream")
        elif rest:
            given = json.loads(body) if body else None
            self._rest(workspace, url.path, given, parse_qs(url.query))
        else:
            self._reply(200, answered(workspace, url.path, body), "application/x-thrift")

    def _rest(
        self, workspace: Workspace, path: str, body: Any, query: dict[str, list[str]]
    ) -> None:
        api = Statements(workspace) if path.startswith("/api/2.0/sql/") else workspace.jobs
        status = 200
        try:
            answer = api.answer(self.command, path, body, query)
        except Refused as refused:
            status, answer = 400, refused.body
        if answer is None:
            status, answer = 404, {"error_code": "NOT_FOUND", "message": f"no {path}"}
        answer = workspace.twist(f"{self.command} {path}", answer)
        self._reply(status, json.dumps(answer).encode(), "application/json")

    def _reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _plain(path: str) -> str:
    """Return a path without its ids."""
    return re.sub(r"/(?:[0-9a-f-]{36}|sea-\d+|\d+)(?=/|$)", "/…", path)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    workspace: Workspace


@contextmanager
def serving(*, port: int = 0, **facts: Any) -> Generator[Workspace]:
    """Run a workspace at ``127.0.0.1:{workspace.port}``."""
    workspace = Workspace(**facts)
    with _Server(("127.0.0.1", port), _Handler) as server:
        server.workspace = workspace
        workspace.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield workspace
        finally:
            server.shutdown()
            thread.join(10)
            workspace.close()
