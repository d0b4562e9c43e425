"""An emulator of Snowflake for tests: its wire protocol over HTTP, its SQL on DuckDB.

`SnowflakeServer` is started on a free port of this machine, and the unmodified connector talks to
it::

    with SnowflakeServer() as server, snowflake.connector.connect(**server.login()) as connection:
        ...

It answers log-ins, statements (several in one text, bound values, rows in JSON or Arrow, in the
response or in chunks), asynchronous statements and questions after them, cancelling, the renewal
and the end of sessions, heartbeats and telemetry. `requests` holds what clients sent, for counting
and comparing; `account.history` is where figures are seeded. Every statement that ran is in
``SNOWFLAKE.ACCOUNT_USAGE.QUERY_HISTORY``, with its tag, as it would be an hour later in the real one.

It proves that a client is understood on the wire. It does not prove that Snowflake fills in the
same figures.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

import sqlglot

from tests.servers import snowflake_results as results
from tests.servers.snowflake_sql import (
    CHANGES,
    MULTIPLE,
    SELECT,
    WITHOUT_WAREHOUSE,
    Account,
    Result,
    Session,
    SQLError,
    now,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

JSON = dict[str, Any]

# Codes that say something other than "it failed".
IN_PROGRESS, IN_PROGRESS_ASYNC, EXPIRED, GONE = "333333", "333334", "390112", "390111"

_PARAMETERS: dict[str, Any] = {
    "AUTOCOMMIT": True,
    "TIMEZONE": "UTC",
    "TIMESTAMP_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF3",
    "CLIENT_PREFETCH_THREADS": 2,
    "CLIENT_SESSION_KEEP_ALIVE": False,
    "CLIENT_SESSION_KEEP_ALIVE_HEARTBEAT_FREQUENCY": 3600,
    "CLIENT_STAGE_ARRAY_BINDING_THRESHOLD": 0,  # bound values come inline, never over a stage
    "CLIENT_RESULT_CHUNK_SIZE": 160,
    "QUERY_CONTEXT_CACHE_SIZE": 5,
}


@dataclass(frozen=True)
class Request:
    """One request as it came: the body decoded, without headers."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: JSON

    @property
    def statement(self) -> str | None:
        """The SQL of a request that runs some."""
        return self.body.get("sqlText") if self.path.endswith("query-request") else None


@dataclass
class Query:
    """A statement under way, and what became of it."""

    id: str
    text: str
    request_id: str
    form: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    answer: Future[JSON] = field(default_factory=Future[JSON])


class SnowflakeServer:
    """The emulator. `chunk_rows` splits larger results; `patience` is how long a client waits."""

    def __init__(
        self,
        *,
        form: str = "arrow",
        chunk_rows: int | None = None,
        patience: float = 30.0,
        telemetry: bool = False,
    ) -> None:
        self.form, self.chunk_rows, self.patience = form, chunk_rows, patience
        self.telemetry = telemetry
        self.refused = False
        """Whether log-ins fail, as with a wrong password."""
        self.requests: list[Request] = []
        self.account = Account()
        self.sessions: dict[str, Session] = {}
        self.expired: set[str] = set()
        self.queries: dict[str, Query] = {}
        self.chunks: dict[str, bytes] = {}
        self._folder = TemporaryDirectory(prefix="snowflake-")
        self._numbers = count(1)
        self._pool = ThreadPoolExecutor(64, thread_name_prefix="snowflake")
        self._http = _HTTPServer(("127.0.0.1", 0), self)
        self.host, self.port = "127.0.0.1", self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> SnowflakeServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering, and forget everything."""
        for query in list(self.queries.values()):
            query.cancelled.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._pool.shutdown()
        self.account.close()
        self._folder.cleanup()

    def login(self, **more: Any) -> dict[str, Any]:
        """Return what a client's ``connect`` needs to come here."""
        return {
            "user": "tester",
            "password": "s3cr3t-3e1d",
            "account": "acme",
            "host": self.host,
            "port": self.port,
            "protocol": "http",
            "database": self.account.database,
            "schema": "PUBLIC",
            "warehouse": self.account.warehouse,
            **more,
        }

    def statements(self) -> list[str]:
        """Return the SQL that was sent, in order."""
        return [found for request in self.requests if (found := request.statement) is not None]

    def tags(self) -> list[str | None]:
        """Return the tag of each query in the history, in order."""
        return [row["query_tag"] for row in self.account.history.rows("query_history")]

    def expire(self) -> None:
        """Let every session's token run out: clients renew it, and ask again."""
        self.expired.update(self.sessions)

    # -- what is answered -----------------------------------------------------------------------

    def answer(self, request: Request, token: str) -> JSON | bytes:
        """Answer one request."""
        for method, pattern, respond in _ROUTES:
            if method == request.method and (found := pattern.fullmatch(request.path)):
                if respond in _WITHOUT_SESSION:
                    return respond(self, request, token, *found.groups())
                if token in self.expired:
                    return _failed(EXPIRED, "Session token expired")
                if token not in self.sessions:
                    return _failed(GONE, "Session no longer exists")
                return respond(self, request, token, *found.groups())
        return _failed("000404", f"the emulator does not know {request.method} {request.path}")

    def log_in(self, request: Request, _: str) -> JSON:
        """Open a session."""
        if self.refused:
            return _failed("390100", "Incorrect username or password was specified.")
        given: JSON = request.body["data"].get("SESSION_PARAMETERS") or {}
        parameters = {**_PARAMETERS, "PYTHON_CONNECTOR_QUERY_RESULT_FORMAT": self.form.upper()}
        parameters["CLIENT_TELEMETRY_ENABLED"] = self.telemetry
        session = Session(self.account, Path(self._folder.name), {**parameters, **given})
        place = {name: values[0] for name, values in request.query.items()}
        session.place(place.get("databaseName"), place.get("schemaName"), place.get("warehouse"))
        token = f"session-{uuid.uuid4()}"
        self.sessions[token] = session
        return _fine(
            token=token,
            masterToken=f"master-{token}",
            validityInSeconds=3600,
            masterValidityInSeconds=14400,
            displayUserName="TESTER",
            serverVersion="10.1.0",
            firstLogin=False,
            remMeToken=None,
            healthCheckInterval=45,
            sessionId=next(self._numbers),
            parameters=_listed(session.parameters),
            sessionInfo={
                "databaseName": session.database,
                "schemaName": session.schema,
                "warehouseName": session.warehouse,
                "roleName": session.role,
            },
        )

    def renew(self, _: Request, token: str) -> JSON:
        """Give a session a new token for the one that ran out, or for its master."""
        old = token.removeprefix("master-")
        session = self.sessions.pop(old, None)
        if session is None:
            return _failed(GONE, "Session no longer exists")
        self.expired.discard(old)
        fresh = f"session-{uuid.uuid4()}"
        self.sessions[fresh] = session
        return _fine(
            sessionToken=fresh,
            validityInSecondsST=3600,
            masterToken=f"master-{fresh}",
            validityInSecondsMT=14400,
            sessionId=1,
        )

    def end(self, request: Request, token: str) -> JSON:
        """Close a session, where that is asked."""
        if request.query.get("delete") == ["true"]:
            self.sessions.pop(token, None)
        return _fine()

    def nothing(self, *_: object) -> JSON:
        """Answer what needs no answer: heartbeats, telemetry."""
        return _fine()

    def run(self, request: Request, token: str) -> JSON:
        """Run a statement; say that it still runs where it takes too long, or nobody waits."""
        session, asked = self.sessions[token], request.body
        parameters: JSON = asked.get("parameters") or {}
        chosen = {**session.parameters, **parameters}
        query = Query(
            self._id(),
            asked["sqlText"],
            (request.query.get("requestId") or [""])[0],
            str(chosen["PYTHON_CONNECTOR_QUERY_RESULT_FORMAT"]).lower(),
        )
        self.queries[query.id] = query
        self._pool.submit(self._work, query, session, asked, chosen)
        if asked.get("asyncExec"):
            return self._wait(query, IN_PROGRESS_ASYNC)
        try:
            return query.answer.result(self.patience)
        except StillRunning:
            return self._wait(query, IN_PROGRESS)

    def result(self, _: Request, token: str, query_id: str) -> JSON:
        """Give the result of an earlier query, or say that it is not there yet."""
        query = self.queries.get(query_id)
        if query is None:
            return _failed("000709", f"Statement {query_id} not found")
        try:
            return query.answer.result(self.patience)
        except StillRunning:
            return self._wait(query, IN_PROGRESS)

    def status(self, _: Request, token: str, query_id: str) -> JSON:
        """Say how a query stands."""
        query = self.queries.get(query_id)
        if query is None:
            return _fine(queries=[])
        answer = query.answer.result() if query.answer.done() else None
        if answer is None:
            status = "RUNNING"
        elif answer["success"]:
            status = "SUCCESS"
        else:
            status = "FAILED_WITH_ERROR"
        found: JSON = {"id": query.id, "status": status, "sqlText": query.text}
        if answer is not None and not answer["success"]:
            found |= {"errorCode": answer["code"], "errorMessage": answer["message"]}
        return _fine(queries=[found])

    def abort(self, _: Request, token: str, query_id: str) -> JSON:
        """Cancel a query by its id."""
        query = self.queries.get(query_id)
        if query is None or query.answer.done():
            return _failed("000605", "Identified SQL statement is not currently executing.")
        query.cancelled.set()
        return _fine()

    def abort_request(self, request: Request, _: str) -> JSON:
        """Cancel a query by the id of the request that sent it."""
        wanted = request.body.get("requestId")
        for query in list(self.queries.values()):
            if query.request_id == wanted:
                query.cancelled.set()
        return _fine()

    def chunk(self, _: Request, token: str, name: str) -> bytes:
        """Give the rest of a result."""
        return self.chunks[name]

    # -- how a statement is run -----------------------------------------------------------------

    def _id(self) -> str:
        # As they look in the real one: a UUID whose first part counts up.
        return f"{next(self._numbers):08x}-{str(uuid.uuid4())[9:]}"

    def _wait(self, query: Query, code: str) -> JSON:
        data = {
            "queryId": query.id,
            "getResultUrl": f"/queries/{query.id}/result",
            "queryAbortsAfterSecs": 300,
            "progressDesc": None,
        }
        message = "Query execution in progress."
        return {"data": data, "code": code, "message": message, "success": True}

    def _work(self, query: Query, session: Session, asked: JSON, chosen: JSON) -> None:
        try:
            answer = self._run(query, session, asked, chosen)
        except Exception as error:  # noqa: BLE001  a client must not wait for ever
            answer = _failed("000603", f"the emulator failed: {error!r}")
        query.answer.set_result(answer)

    def _run(self, query: Query, session: Session, asked: JSON, chosen: JSON) -> JSON:
        number = int(chosen.get("MULTI_STATEMENT_COUNT") or 1)
        try:
            if asked.get("describeOnly"):
                result = session.describe(query.text)
                answer = self._told(query, session, result)
                answer["data"]["numberOfBinds"] = query.text.count("?")
                answer["data"]["arrayBindSupported"] = result.kind in CHANGES
                return answer
            texts = _split(query.text) if number != 1 else [query.text]
            if number > 1 and len(texts) != number:
                raise SQLError(  # noqa: TRY301  it becomes an answer, like any other
                    "000008",
                    "0A000",
                    f"Actual statement count {len(texts)} did not match the desired {number}.",
                )
            if number != 1:
                return self._several(query, texts, session, chosen)
            result = self._measured(query, session, asked.get("bindings"), chosen)
            self.account.results[query.id] = result
            return self._told(query, session, result)
        except SQLError as error:
            data = {"queryId": query.id, "errorCode": error.code, "sqlState": error.state}
            return {"data": data, "code": error.code, "message": str(error), "success": False}

    def _several(self, query: Query, texts: list[str], session: Session, chosen: JSON) -> JSON:
        children: list[Query] = []
        kinds: list[str] = []
        for text in texts:
            child = Query(self._id(), text, "", query.form, query.cancelled)
            self.queries[child.id] = child
            result = self._measured(child, session, None, chosen)
            self.account.history.roots[child.id] = query.id
            self.account.results[child.id] = result
            child.answer.set_result(self._told(child, session, result))
            children.append(child)
            kinds.append(str(result.kind))
        said = results.body(_MULTIPLE.table, "json")
        data = self._told(query, session, _MULTIPLE)["data"]
        data |= {"resultIds": ",".join(child.id for child in children), **said}
        data["resultTypes"] = ",".join(kinds)
        self._remember(query, session, chosen, now(), MULTIPLE, None, None)
        return {"data": data, "code": None, "message": None, "success": True}

    def _measured(
        self,
        query: Query,
        session: Session,
        bindings: JSON | None,
        chosen: JSON,
    ) -> Result:
        begun = now()
        result: Result | None = None
        failed: str | None = None
        try:
            for values in _bound(bindings):
                brought = session.run(query.text, values, query.cancelled)
                result = brought if result is None else _added(result, brought)
        except SQLError as error:
            failed = error.code
            raise
        finally:
            kind = SELECT if result is None else result.kind
            rows = None if result is None else result.table.num_rows
            self._remember(query, session, chosen, begun, kind, rows, failed)
        assert result is not None
        return result

    def _remember(
        self,
        query: Query,
        session: Session,
        chosen: JSON,
        begun: Any,
        kind: int,
        rows: int | None,
        failed: str | None,
    ) -> None:
        ended = now()
        elapsed = int((ended - begun).total_seconds() * 1000)
        used = kind not in WITHOUT_WAREHOUSE and session.warehouse is not None
        warehouse = self.account.warehouses[session.warehouse] if session.warehouse else None
        self.account.history.add(
            "query_history",
            query_id=query.id,
            query_text=query.text,
            query_type=query.text.split(None, 1)[0].upper() if query.text.strip() else "",
            query_tag=str(chosen.get("QUERY_TAG") or ""),
            user_name=session.user,
            role_name=session.role,
            database_name=session.database,
            schema_name=session.schema,
            warehouse_name=session.warehouse if used else None,
            warehouse_size=warehouse.size if used and warehouse else None,
            warehouse_type="STANDARD",
            cluster_number=1 if used else None,
            execution_status="SUCCESS" if failed is None else "FAIL",
            error_code=failed,
            start_time=begun,
            end_time=ended,
            total_elapsed_time=elapsed,
            execution_time=elapsed if used else 0,
            compilation_time=1,
            bytes_scanned=0,
            rows_produced=rows,
            credits_used_cloud_services=0.00001,
        )

    def _told(self, query: Query, session: Session, result: Result) -> JSON:
        if result.upload is not None:
            return _fine(queryId=query.id, statementTypeId=result.kind, **result.upload)
        table, chunks = result.table, list[JSON]()
        form = query.form if result.kind == SELECT else "json"
        if self.chunk_rows is not None and result.kind == SELECT:
            for at in range(self.chunk_rows, table.num_rows, self.chunk_rows):
                part = table.slice(at, self.chunk_rows)
                content = results.chunk(part, form)
                name = f"{query.id}-{at}"
                self.chunks[name] = content
                chunks.append(
                    {
                        "url": f"http://{self.host}:{self.port}/chunks/{name}",
                        "rowCount": part.num_rows,
                        "uncompressedSize": len(content),
                        "compressedSize": len(content),
                    }
                )
            first = table.slice(0, self.chunk_rows)
        else:
            first = table
        answer = _fine(
            queryId=query.id,
            sqlState="00000",
            statementTypeId=result.kind,
            parameters=_listed(session.parameters),
            rowtype=results.rowtype(table),
            total=table.num_rows,
            returned=table.num_rows,
            finalDatabaseName=session.database,
            finalSchemaName=session.schema,
            finalWarehouseName=session.warehouse,
            finalRoleName=session.role,
            numberOfBinds=0,
            arrayBindSupported=False,
            version=1,
            **results.body(first, form),
        )
        if chunks:
            answer["data"] |= {"chunks": chunks, "chunkHeaders": {"x-from": "emulator"}}
        if result.stats:
            answer["data"]["stats"] = result.stats
        return answer


def _table_of(column: str, text: str) -> Any:
    return results.pa.Table.from_pylist([{column: text}])


_MULTIPLE = Result(
    MULTIPLE,
    _table_of("multiple statement execution", "Multiple statements executed successfully."),
)


def _split(text: str) -> list[str]:
    return [
        part.sql("snowflake") for part in sqlglot.parse(text, read="snowflake") if part is not None
    ]


def _added(first: Result, second: Result) -> Result:
    """Return one result for a statement that was run with several sets of values."""
    name = next(iter(first.stats))
    rows = first.stats[name] + second.stats.get(name, 0)
    column = first.table.column_names[0]
    return Result(first.kind, results.pa.Table.from_pylist([{column: rows}]), {name: rows})


def _bound(bindings: JSON | None) -> list[Sequence[object]]:
    """Return the sets of values that a statement is run with."""
    if not bindings:
        return [()]
    columns = [bindings[str(place)] for place in range(1, len(bindings) + 1)]
    if any(isinstance(column["value"], list) for column in columns):
        return [
            [_value(column["type"], value) for column, value in zip(columns, row, strict=True)]
            for row in zip(*(column["value"] for column in columns), strict=True)
        ]
    return [[_value(column["type"], column["value"]) for column in columns]]


def _value(kind: str, value: str | None) -> object:
    if value is None:
        return None
    if kind == "FIXED":
        return int(value) if re.fullmatch(r"-?\d+", value) else value
    if kind == "BOOLEAN":
        return value.lower() == "true"
    return float(value) if kind == "REAL" else value


def _listed(parameters: JSON) -> list[JSON]:
    return [{"name": name, "value": value} for name, value in parameters.items()]


def _fine(**data: Any) -> JSON:
    return {"data": data, "code": None, "message": None, "success": True}


def _failed(code: str, message: str) -> JSON:
    return {"data": None, "code": code, "message": message, "success": False}


_ROUTES: tuple[tuple[str, re.Pattern[str], Callable[..., JSON | bytes]], ...] = (
    ("POST", re.compile("/session/v1/login-request"), SnowflakeServer.log_in),
    ("POST", re.compile("/session/token-request"), SnowflakeServer.renew),
    ("POST", re.compile("/session/heartbeat"), SnowflakeServer.nothing),
    ("POST", re.compile("/session"), SnowflakeServer.end),
    ("POST", re.compile("/telemetry/send(?:/sessionless)?"), SnowflakeServer.nothing),
    ("POST", re.compile("/queries/v1/query-request"), SnowflakeServer.run),
    ("POST", re.compile("/queries/v1/abort-request"), SnowflakeServer.abort_request),
    ("POST", re.compile("/queries/([0-9a-f-]+)/abort-request"), SnowflakeServer.abort),
    ("GET", re.compile("/queries/([0-9a-f-]+)/result"), SnowflakeServer.result),
    ("GET", re.compile("/monitoring/queries//?([0-9a-f-]+)"), SnowflakeServer.status),
    ("GET", re.compile("/chunks/([0-9a-f-]+)"), SnowflakeServer.chunk),
)
_WITHOUT_SESSION = (SnowflakeServer.log_in, SnowflakeServer.renew, SnowflakeServer.chunk)


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], emulator: SnowflakeServer) -> None:
        super().__init__(address, _Handler)
        self.emulator = emulator
        self.open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Close the connections that clients keep open, too."""
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body go together, or the client's kernel waits for 40 ms

    def do_POST(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        emulator = cast("_HTTPServer", self.server).emulator
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        parts = urlsplit(self.path)
        body: JSON = json.loads(content) if content.strip() else {}
        request = Request(self.command, parts.path, parse_qs(parts.query), body)
        emulator.requests.append(request)
        given = re.search(r'Token="([^"]*)"', self.headers.get("Authorization") or "")
        answer = emulator.answer(request, given[1] if given else "")
        if isinstance(answer, bytes):
            sent, kind = answer, "application/octet-stream"
        else:
            sent, kind = json.dumps(answer).encode(), "application/json"
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its base's name
        """Say nothing."""
