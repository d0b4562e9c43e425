"""A SQL Server on the wire, for tests: real clients log in over TDS 7.4 and TLS and run T-SQL.

The protocol is pysqlbridge's, the answers are DuckDB's (T-SQL is translated by sqlglot), and what a
cloud adds is seeded: tables under ``sys`` (`seed`), messages, delays and errors (`on`), procedures
(`procedure`). Every request that comes over the wire is kept in `requests`, with what the client
called itself, so that a test can compare what the server sees with and without us.

    with tds_server() as server:
        server.seed("sys.dm_pdw_exec_requests", [{"request_id": "QID1", "label": "ci_asset_x"}])
        server.on("openrowset", Info("Total size of data scanned is 12 megabytes, …"), ANSWER)
        pyodbc.connect(f"DRIVER=FreeTDS;SERVER={server.host};PORT={server.port};…")

Not here: MARS, bulk copy, Entra ID logins, transactions (a rollback undoes nothing).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import re
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from unittest.mock import patch

import duckdb
import sqlglot
from pysqlbridge.certificate import self_signed
from pysqlbridge.logins import Login, LoginStore
from pysqlbridge.server import BridgeServer
from pysqlbridge.tds import connection, packet, rpc, token
from pysqlbridge.tds import result as tds
from sqlglot.errors import SqlglotError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from pysqlbridge.certificate import Certificate
    from pysqlbridge.tds.result import Query

USER, PASSWORD, DATABASE = "settler", "hunter2-tds", "shop"

# -- what an answer is made of --------------------------------------------------------------------


class Info(NamedTuple):
    """A message that is no error: what ``PRINT`` and the serverless pool send."""

    text: str
    number: int = 15806


class Fault(NamedTuple):
    """An error; what stands behind it in the answer is not sent."""

    text: str
    number: int = 50000


class Pause(NamedTuple):
    """The server is at work for so many seconds."""

    seconds: float


class Rows(NamedTuple):
    """A result set."""

    columns: list[tds.Column]
    rows: list[list[object]]


class Count(NamedTuple):
    """Rows that a statement changed."""

    rows: int


class Answered(NamedTuple):
    """Stands for what DuckDB answers to the statement itself."""


ANSWER = Answered()
Part = Info | Fault | Pause | Rows | Count | Answered


@dataclass(frozen=True)
class Request:
    """One message of a client: a batch of SQL, or a call of a procedure such as ``sp_prepexec``."""

    kind: str
    text: str
    given: tuple[object, ...]
    application: str
    connection: int


class Answer:
    """Parts of an answer, as tokens of TDS. A call ends with its status and its handle."""

    def __init__(self, parts: Sequence[Part], *, call: bool, handle: int | None = None) -> None:
        self.parts, self.call, self.handle = list(parts), call, handle

    def encode(self, version: int, server: str = "") -> bytes:
        """Return the whole token stream; pysqlbridge cuts it into packets."""
        done = [index for index, part in enumerate(self.parts) if not isinstance(part, Info)]
        out, failed = b"", False
        for index, part in enumerate(self.parts):
            more = token.DoneStatus.MORE if self.call or index != (done or [-1])[-1] else 0
            if isinstance(part, Info):
                out += token.info(part.number, part.text, server=server, tds_version=version)
            elif isinstance(part, Fault):
                out += token.error(part.number, part.text, server=server, tds_version=version)
                out += self._done(version, token.DoneStatus.ERROR | more)
                failed = True
            elif isinstance(part, Rows):
                out += tds.col_metadata(part.columns, version)
                out += b"".join(tds.row(part.columns, row) for row in part.rows)
                out += self._done(version, token.DoneStatus.COUNT | more, 0xC1, len(part.rows))
            elif isinstance(part, Count):
                out += self._done(version, token.DoneStatus.COUNT | more, 0xC3, part.rows)
        if self.call:
            out += self._returned(failed)
        elif not done:
            out += self._done(version, 0)
        return out

    def _done(self, version: int, status: int, command: int = 0, rows: int = 0) -> bytes:
        written = token.done(
            status=token.DoneStatus(status),
            current_command=command,
            row_count=rows,
            tds_version=version,
        )
        return b"\xff" + written[1:] if self.call else written  # DONEINPROC instead of DONE

    def _returned(self, failed: bool) -> bytes:
        handle = b""
        if self.handle is not None:  # RETURNVALUE: parameter 0, an output int
            handle = struct.pack("<BHBBIHBBBi", 0xAC, 0, 0, 1, 0, 0, 0x26, 4, 4, self.handle)
        status = struct.pack("<Bi", 0x79, 1 if failed else 0)
        return status + handle + struct.pack("<BHHQ", 0xFE, 2 if failed else 0, 0, 0)


# -- DuckDB behind it -----------------------------------------------------------------------------

# What clients and SQLAlchemy ask a server about itself when they meet it.
ABOUT_ITSELF = {
    "@@version": "'Microsoft SQL Azure (RTM) - 12.0.2000.8'",
    "@@spid": "51",
    "schema_name()": "'dbo'",
    "serverproperty('productversion')": "'12.0.2000.8'",
    "serverproperty('engineedition')": "5",
}
# Nothing of these has an effect here, and none of them has an answer.
WITHOUT_ANSWER = re.compile(
    r"\s*(set|use|begin\s+tran\w*|commit|rollback|if\s+@@trancount|declare|print|save)\b",
    re.IGNORECASE,
)
EXECUTES = re.compile(r"\s*exec(?:ute)?\s+(\w+)", re.IGNORECASE)
# Ends and beginnings of transactions, and what drivers ask once about types.
NO_STATEMENT = re.compile(rf"{WITHOUT_ANSWER.pattern}|sp_datatype_info", re.IGNORECASE)
OPTION = re.compile(r"\bOPTION\s*\([^()]*(?:\([^()]*\)[^()]*)*\)\s*$", re.IGNORECASE)
CHANGES = re.compile(r"\s*(insert|update|delete|merge)\b", re.IGNORECASE)
WAITS = re.compile(r"\s*waitfor\s+delay\s+'\d+:\d+:([\d.]+)'\s*;?", re.IGNORECASE)
TYPES: tuple[tuple[str, type[tds.ColumnType]], ...] = (
    ("TIMESTAMP", tds.DateTime),
    ("DOUBLE", tds.Float),
    ("FLOAT", tds.Float),
    ("DECIMAL", tds.Float),
    ("BLOB", tds.VarBinary),
    ("BOOLEAN", tds.Bit),
    ("UUID", tds.UniqueIdentifier),
)


def _column(name: str, duck: str) -> tds.Column:
    if duck in ("INTEGER", "SMALLINT", "TINYINT"):
        return tds.Column(name, tds.Integer(4))
    if duck in ("BIGINT", "HUGEINT", "UBIGINT", "UINTEGER"):
        return tds.Column(name, tds.Integer(8))
    for prefix, kind in TYPES:
        if duck.startswith(prefix):
            return tds.Column(name, kind())
    return tds.Column(name, tds.NVarChar(4000))


CALLS = "calls"  # stands for a procedure's name where there are several calls, or one


def parse_calls(payload: bytes, version: int) -> rpc.RpcRequest:
    """Read a message of calls as one call that has them as its arguments.

    An ``executemany`` with parameter arrays comes as one message of many calls, with a byte between
    them; pysqlbridge reads a message of one call only.
    """
    at = int.from_bytes(payload[:4], "little") if version >= packet.TDS_72 else 0
    calls: list[rpc.Parameter] = []
    while at < len(payload):
        length = int.from_bytes(payload[at : at + 2], "little")
        at += 2
        if length == rpc.PROC_ID_SENTINEL:
            known = rpc.ProcId(int.from_bytes(payload[at : at + 2], "little"))
            name, at = f"sp_{known.name.lower()}", at + 2
        else:
            name, at = payload[at : at + 2 * length].decode("utf-16-le"), at + 2 * length
        at += 2  # options
        given: list[rpc.Parameter] = []
        while at < len(payload) and payload[at] not in (0x80, 0xFE, 0xFF):
            size = 2 * payload[at]
            label = payload[at + 1 : at + 1 + size].decode("utf-16-le")
            status, kind = payload[at + 1 + size], payload[at + 2 + size]
            value, at = rpc._read_value(  # pyright: ignore[reportPrivateUsage]  the types of values
                payload, at + 3 + size, kind
            )
            given.append(rpc.Parameter(label, value, status))
        at += 1  # what is between two calls
        calls.append(rpc.Parameter("", rpc.RpcRequest(name, given)))
    return rpc.RpcRequest(CALLS, calls)


class Answers:
    """The answers to several calls, one after the other."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = answers

    def encode(self, version: int, server: str = "") -> bytes:
        """Return their tokens; of all but the last, the end says that more is to come."""
        written = [answer.encode(version, server) for answer in self.answers]
        return b"".join(one[:-12] + b"\x01" + one[-11:] for one in written[:-1]) + written[-1]


class Engine:
    """Answers what comes over the wire, and remembers it."""

    def __init__(self) -> None:
        self.duck = duckdb.connect()
        self.duck.execute("CREATE SCHEMA sys")
        self.requests: list[Request] = []
        self.answers: list[tuple[re.Pattern[str], tuple[Part, ...]]] = []
        self.procedures: dict[str, tuple[Part, ...]] = {}
        self._handles = itertools.count(1)
        self._statements: dict[object, str] = {}
        self._connections: dict[int, tuple[int, object]] = {}
        self._lock = threading.Lock()

    def __call__(self, query: Query) -> Answer | Answers:
        """Answer one request, as pysqlbridge has read it."""
        if query.procedure == CALLS:
            return Answers([self._call(query, call) for call in query.arguments])
        self._remember(query, "batch", query.sql, [])
        return Answer(self.run(query.sql, []), call=False)

    def _call(self, query: Query, call: Any) -> Answer:
        values = [parameter.value for parameter in call.parameters]
        known = call.procedure.lower().replace("_", "")
        text, handle = "", None
        if known == "spexecutesql":
            text, values = str(values[0]), values[2:]
        elif known in ("spprepexec", "spprepare"):  # behind the handle and the declarations
            text, values = str(values[2]), values[3:] if known == "spprepexec" else []
            handle = next(self._handles)
            self._statements[handle] = text
        elif known == "spexecute":
            text, values = self._statements[values[0]], values[1:]
        elif known == "spunprepare":
            self._statements.pop(values[0], None)
        self._remember(query, call.procedure, text, values)
        if known in ("spprepare", "spunprepare"):
            return Answer([], call=True, handle=handle)
        if text:
            return Answer(self.run(text, values), call=True, handle=handle)
        parts = self.procedures.get(call.procedure.rpartition(".")[2].lower())
        if parts is None:
            parts = (Fault(f"Could not find stored procedure '{call.procedure}'.", 2812),)
        return Answer(parts, call=True)

    def _remember(self, query: Query, name: str, text: str, values: Sequence[object]) -> None:
        with self._lock:
            session = cast("Any", query).session
            known = self._connections.setdefault(id(session), (len(self._connections) + 1, session))
            application = str(session.get("app") or "")
            kind = name or "batch"
            self.requests.append(Request(kind, text, tuple(values), application, known[0]))

    def run(self, text: str, values: Sequence[object]) -> list[Part]:
        """Return the answer to a statement, seeded or DuckDB's."""
        found: tuple[Part, ...] = (ANSWER,)
        for pattern, parts in self.answers:
            if pattern.search(text):
                found = parts
                break
        answer: list[Part] = []
        for part in found:
            if isinstance(part, Pause):
                time.sleep(part.seconds)
            elif isinstance(part, Answered):
                try:
                    answer += self._ask(text, values)
                except duckdb.CatalogException as error:
                    answer.append(Fault(str(error), 208))
                except duckdb.ConstraintException as error:
                    answer.append(Fault(str(error), 2627))
                except (duckdb.Error, SqlglotError) as error:
                    answer.append(Fault(str(error), 102))
            else:
                answer.append(part)
        return answer

    def _ask(self, text: str, values: Sequence[object]) -> list[Part]:
        if (executes := EXECUTES.match(text)) and executes[1].lower() in self.procedures:
            return list(self.procedures[executes[1].lower()])
        if waits := WAITS.match(text):
            time.sleep(float(waits[1]))
            text = text[waits.end() :]
        if not text.strip() or WITHOUT_ANSWER.match(text):
            return []
        text = OPTION.sub("", text)
        for asked, answer in ABOUT_ITSELF.items():
            text = re.sub(re.escape(asked), answer, text, flags=re.IGNORECASE)
        # Of @P1 … and of a client's own names, DuckDB wants numbers in the order of the values.
        names = list(dict.fromkeys(re.findall(r"@(\w+)", text))) if values else []
        numbered = {name: f"$par{number}" for number, name in enumerate(names, 1)}
        text = re.sub(r"@(\w+)", lambda found: numbered.get(found[1], found[0]), text)
        given = {f"par{number}": value for number, value in enumerate(values, 1)}
        parts: list[Part] = []
        for statement in sqlglot.transpile(text, read="tsql", write="duckdb"):
            parts += self._one(re.sub(r"@(par\d+)", r"$\1", statement), given)
        return parts

    def _one(self, statement: str, given: Mapping[str, object]) -> list[Part]:
        used = {name: value for name, value in given.items() if f"${name}" in statement}
        with self._lock, self.duck.cursor() as duck:
            duck.execute(statement, used or None)
            if not duck.description:
                return []
            rows = duck.fetchall()
            if CHANGES.match(statement) and " RETURNING " not in statement.upper():
                return [Count(int(rows[0][0]))]
            if re.match(r"\s*(create|drop|alter)\b", statement, re.IGNORECASE):
                return []
            columns = [_column(column[0], str(column[1])) for column in duck.description]
        return [Rows(columns, [list(row) for row in rows])]


# -- the server -----------------------------------------------------------------------------------


@dataclass
class TdsServer:
    """A running server; `host` and `port` are where."""

    engine: Engine
    host: str
    port: int
    logins: list[int] = field(default_factory=list[int])
    """How many connections were made: the length counts."""
    user: str = USER
    password: str = PASSWORD
    database: str = DATABASE

    @property
    def requests(self) -> list[Request]:
        """Every request so far."""
        return self.engine.requests

    def texts(self) -> list[str]:
        """Return the statements so far, without the ends of transactions and of prepared ones."""
        return [
            request.text
            for request in self.requests
            if request.text and not NO_STATEMENT.match(request.text)
        ]

    def forget(self) -> None:
        """Begin the list of requests, and all that was seeded by `on` and `procedure`, anew."""
        self.engine.requests.clear()
        self.engine.answers.clear()
        self.engine.procedures.clear()
        self.logins.clear()

    def on(self, pattern: str, *parts: Part) -> None:
        """Answer statements in which the pattern is found with these parts."""
        self.engine.answers.append((re.compile(pattern, re.IGNORECASE), parts))

    def procedure(self, name: str, *parts: Part) -> None:
        """Answer calls of the procedure with these parts."""
        self.engine.procedures[name.lower()] = parts

    def execute(self, sql: str) -> None:
        """Run DuckDB's SQL, past the wire."""
        with self.engine.duck.cursor() as duck:
            duck.execute(sql)

    def seed(self, table: str, rows: Sequence[Mapping[str, Any]], **types: str) -> None:
        """Make the table anew with these rows. `types` names the columns of an empty one."""
        with self.engine.duck.cursor() as duck:
            duck.execute(f"DROP TABLE IF EXISTS {table}")
            columns = types or {name: _duck_type(name, rows) for name in rows[0]}
            listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
            duck.execute(f"CREATE TABLE {table} ({listed})")
            for row in rows:
                marks = ", ".join("?" for _ in columns)
                values = [row.get(name) for name in columns]
                duck.execute(f"INSERT INTO {table} VALUES ({marks})", values)


def _duck_type(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    value = next((row[name] for row in rows if row.get(name) is not None), "")
    kinds = {"int": "BIGINT", "float": "DOUBLE", "datetime": "TIMESTAMP", "bytes": "BLOB"}
    return kinds.get(type(value).__name__, "VARCHAR")


class _Listener(BridgeServer):
    """Counts connections; its threads end with the test that they belong to."""

    logins_seen: list[int]

    def verify_request(self, request: Any, client_address: Any) -> bool:
        self.logins_seen.append(1)
        return True


@functools.cache
def _certificate() -> Certificate:
    """Make one certificate for all servers of a test run: its key takes more than a second."""
    return self_signed()


@contextlib.contextmanager
def tds_server() -> Generator[TdsServer]:
    """Run a server until the block ends."""
    logging.getLogger("pysqlbridge").setLevel(logging.CRITICAL)
    engine = Engine()
    account = Login(user=USER, secret=PASSWORD, hashed=False, source="test")
    listener = _Listener(
        "127.0.0.1",
        0,
        query_handler=engine,
        certificate=_certificate(),
        database=DATABASE,
        logins=LoginStore([account]),
    )
    server = TdsServer(engine, *listener.address)
    listener.logins_seen = server.logins
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        with patch.object(connection, "parse_rpc", parse_calls):
            yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()
        engine.duck.close()
