"""What the Databricks emulator does: statements in DuckDB, their history, and what was asked of it.

The protocols that it is asked in have a file each: `databricks_thrift`, `databricks_statements` and
`databricks_jobs_api`; `databricks_server` puts all of them behind one port.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from importlib import import_module
from time import time_ns
from typing import TYPE_CHECKING, Any
from uuid import UUID

import duckdb

from tests.servers.databricks_jobs_api import Jobs
from tests.servers.databricks_tables import SYSTEM_TABLES, duckdb_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

pa: Any = import_module("pyarrow")  # comes without types

OWNER = "analyst@example.com"
CHUNK_ROWS = 10_000
"""Rows in one answer, one chunk, or one file of CloudFetch."""
PATIENCE = 5.0
"""Seconds that a call waits for a statement before it says that it still runs."""

# DuckDB's types: Thrift's, and the Statement Execution API's where it has another word.
TYPES = {
    "BOOLEAN": ("BOOLEAN_TYPE", "BOOLEAN"),
    "TINYINT": ("TINYINT_TYPE", "BYTE"),
    "SMALLINT": ("SMALLINT_TYPE", "SHORT"),
    "INTEGER": ("INT_TYPE", "INT"),
    "BIGINT": ("BIGINT_TYPE", "LONG"),
    "FLOAT": ("FLOAT_TYPE", "FLOAT"),
    "DOUBLE": ("DOUBLE_TYPE", "DOUBLE"),
    "DATE": ("DATE_TYPE", "DATE"),
    "TIMESTAMP": ("TIMESTAMP_TYPE", "TIMESTAMP"),
    "TIMESTAMP WITH TIME ZONE": ("TIMESTAMP_TYPE", "TIMESTAMP"),
    "BLOB": ("BINARY_TYPE", "BINARY"),
}
CHANGES = {"INSERT": "num_inserted_rows", "UPDATE": "", "DELETE": "", "MERGE": ""}
METADATA = {
    "GetCatalogs": "SELECT 'main' AS TABLE_CAT",
    "GetSchemas": "SELECT schema_name AS TABLE_SCHEM, 'main' AS TABLE_CATALOG"
    " FROM information_schema.schemata WHERE catalog_name = current_database() ORDER BY ALL",
    "GetTables": "SELECT 'main' AS TABLE_CAT, table_schema AS TABLE_SCHEM, table_name AS TABLE_NAME,"
    " 'TABLE' AS TABLE_TYPE, '' AS REMARKS FROM information_schema.tables"
    " WHERE table_catalog = current_database() ORDER BY ALL",
    "GetColumns": "SELECT 'main' AS TABLE_CAT, table_schema AS TABLE_SCHEM, table_name AS TABLE_NAME,"
    " column_name AS COLUMN_NAME, data_type AS TYPE_NAME FROM information_schema.columns"
    " WHERE table_catalog = current_database() ORDER BY ALL",
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")


@dataclass
class Column:
    """A column of a result, with its types' names in either protocol."""

    name: str
    thrift: str
    sea: str
    decimal: tuple[int, int] | None = None

    @classmethod
    def of(cls, name: str, kind: str) -> Column:
        """Describe DuckDB's column."""
        if found := _DECIMAL.fullmatch(kind):
            digits = int(found[1]), int(found[2])
            return cls(name, "DECIMAL_TYPE", "DECIMAL", digits)
        return cls(name, *TYPES.get(kind, ("STRING_TYPE", "STRING")))


@dataclass
class Statement:
    """A statement that was sent, from then until it is forgotten."""

    number: int
    text: str
    warehouse: str
    tags: dict[str, str | None]
    driver: str
    kind: str = ""
    state: str = "PENDING"
    """As the Statement Execution API says it."""
    started: int = field(default_factory=time_ns)
    ended: int = 0
    columns: list[Column] = field(default_factory=list[Column])
    table: Any = None
    changed: int | None = None
    error: str = ""
    position: int = 0
    """Rows that Thrift has handed out."""
    links: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    cancel: Callable[[], None] = lambda: None

    @property
    def guid(self) -> bytes:
        """The id's 16 bytes. A real one is random; this one is the same in every run."""
        return sha256(b"statement %d" % self.number).digest()[:16]

    @property
    def id(self) -> str:
        """The statement's id, as everybody writes it."""
        return str(UUID(bytes=self.guid))

    @property
    def rows(self) -> int:
        """Rows of the result."""
        return 0 if self.table is None else int(self.table.num_rows)

    def values(self, start: int, count: int) -> list[dict[str, Any]]:
        """Return rows as dictionaries by the columns' positions, whose names may be alike."""
        part = self.table.slice(start, count)
        return list(part.rename_columns([str(n) for n in range(part.num_columns)]).to_pylist())

    def texts(self, start: int, count: int) -> list[list[str | None]]:
        """Return rows as the texts that the Statement Execution API gives."""
        return [[_text(value) for value in row.values()] for row in self.values(start, count)]


def _text(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value)


@dataclass
class Request:
    """What a client sent: the call's name, its target and its body, whole."""

    call: str
    path: str
    body: bytes
    headers: dict[str, str]


def no_figures(_: Statement) -> Mapping[str, object]:
    """The figures of a statement of which nothing was seeded."""
    return {}


def as_it_is(_: str, answer: Any) -> Any:
    """Give an answer as it is."""
    return answer


class Workspace:
    """A workspace with its warehouses: statements, their history, and what was asked of it."""

    def __init__(self, *, warehouses: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.database = duckdb.connect()
        for schema in sorted({name.partition(".")[0] for name in SYSTEM_TABLES}):
            self.database.execute(f"CREATE SCHEMA system_{schema}")
        for name, schema in SYSTEM_TABLES.items():
            self.database.register("empty", schema.empty_table())
            self.database.execute(f"CREATE TABLE system_{name} AS FROM empty")
            self.database.unregister("empty")
        self.warehouses: dict[str, dict[str, Any]] = {
            key: {"state": "RUNNING", **facts}
            for key, facts in (warehouses or {"abc123": {"cluster_size": "Small"}}).items()
        }
        self.statements: list[Statement] = []
        self.requests: list[Request] = []
        self.figures: Callable[[Statement], Mapping[str, object]] = no_figures
        """The seam: what the history says of a statement, by the columns of `SYSTEM_TABLES`."""
        self.refuses: set[str] = set()
        """System tables that the user may not read, such as ``billing.usage``."""
        self.most_rows = 1_000_000
        """Rows of a result that the Statement Execution API gives with its answer (really: MiB)."""
        self.answers: dict[str, tuple[int, object]] = {}
        """What to say instead, by a path's beginning: an HTTP status and a body."""
        self.faults: list[tuple[str, int, str]] = []
        """What to say once, instead of an answer: a path's beginning, a status, an error's code."""
        self.twist: Callable[[str, Any], Any] = as_it_is
        """What is made of an answer of the REST API, by method and path."""
        self.port = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.sessions: dict[str, str] = {}
        self.cloud_fetch = False
        """Whether Thrift hands out results as links to files, to clients that take them."""
        self.arrow = True
        """Whether Thrift's results are in Arrow; the older columns otherwise."""
        self.jobs = Jobs(self)

    # -- the seam ---------------------------------------------------------------------------------

    def seed(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Put rows into a system table, by its name without ``system.``."""
        schema = SYSTEM_TABLES[name]
        filled = [{column: row.get(column) for column in schema.names} for row in rows]
        with self._lock:
            self.database.register("seeds", pa.Table.from_pylist(filled, schema=schema))
            self.database.execute(f"INSERT INTO system_{name} BY NAME FROM seeds")
            self.database.unregister("seeds")

    def calls(self, *, since: int = 0) -> list[str]:
        """Return the names of the calls that came, in their order."""
        return [request.call for request in self.requests[since:]]

    def texts(self) -> list[str]:
        """Return the text of every statement that came."""
        return [statement.text for statement in self.statements]

    # -- statements -------------------------------------------------------------------------------

    def run(
        self,
        text: str,
        warehouse: str,
        *,
        parameters: list[tuple[str | None, str | None, str]] | None = None,
        tags: Mapping[str, str | None] | None = None,
        driver: str,
        metadata: str = "",
    ) -> Statement:
        """Begin a statement in a thread of its own. Parameters have a name, a value and a type."""
        with self._lock:
            statement = Statement(
                len(self.statements) + 1, text, warehouse, dict(tags or {}), driver, kind=metadata
            )
            self.statements.append(statement)
            cursor = self.database.cursor()
        facts = self.warehouses.get(warehouse)
        if facts is not None:
            facts["state"] = "RUNNING"  # it wakes
        statement.cancel = cursor.interrupt
        thread = threading.Thread(
            target=self._execute, args=(statement, cursor, parameters or []), daemon=True
        )
        self._threads.append(thread)
        thread.start()
        return statement

    def _execute(
        self,
        statement: Statement,
        cursor: Any,
        parameters: list[tuple[str | None, str | None, str]],
    ) -> None:
        statement.state = "RUNNING"
        try:
            if statement.kind:
                text = METADATA[statement.kind]
            else:
                statement.kind = statement.text.lstrip("( \n").split(None, 1)[0].upper()
                self._permit(statement.text)
                text = duckdb_sql(statement.text)
            given = _parameters(parameters)
            if statement.kind in CHANGES:
                self._changed(statement, cursor.execute(text, given).fetchone())
            elif (relation := cursor.sql(text, params=given)) is not None:
                statement.columns = [
                    Column.of(name, str(kind))
                    for name, kind in zip(relation.columns, relation.types, strict=True)
                ]
                statement.table = relation.to_arrow_table()
            statement.state = "SUCCEEDED"
        except duckdb.InterruptException:
            statement.state = "CANCELED"
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            statement.state = "FAILED"
            statement.error = f"[{_condition(error)}] {str(error).splitlines()[0]} SQLSTATE: 42000"
        finally:
            cursor.close()
        statement.ended = time_ns()
        self._record(statement)
        statement.done.set()

    def _changed(self, statement: Statement, count: tuple[int]) -> None:
        """Answer with the number of rows that were changed, as a row and as a number."""
        statement.changed = count[0]
        names = [name for name in ("num_affected_rows", CHANGES[statement.kind]) if name]
        statement.columns = [Column(name, "BIGINT_TYPE", "LONG") for name in names]
        statement.table = pa.table({name: [statement.changed] for name in names})

    def _permit(self, text: str) -> None:
        for name in self.refuses:
            if f"system.{name}" in text.lower():
                raise PermissionError(f"User does not have SELECT on Table 'system.{name}'.")

    def _record(self, statement: Statement) -> None:
        took = (statement.ended - statement.started) // 10**6
        self.seed(
            "query.history",
            [
                {
                    "workspace_id": "1234567890",
                    "statement_id": statement.id,
                    "execution_status": "FINISHED"
                    if statement.state == "SUCCEEDED"
                    else statement.state,
                    "compute": {"type": "WAREHOUSE", "warehouse_id": statement.warehouse},
                    "executed_by": OWNER,
                    "executed_as": OWNER,
                    "statement_text": statement.text,
                    "statement_type": statement.kind,
                    "error_message": statement.error or None,
                    "client_driver": statement.driver,
                    "total_duration_ms": took,
                    "start_time": moment(statement.started),
                    "end_time": moment(statement.ended),
                    "produced_rows": statement.rows,
                    "query_tags": list(statement.tags.items()),
                    **self.figures(statement),
                }
            ],
        )

    def find(self, statement_id: str) -> Statement | None:
        """Return a statement by its id."""
        return next((found for found in self.statements if found.id == statement_id), None)

    def link(self, statement: Statement, start: int) -> str:
        """Return where a file of CloudFetch is."""
        return f"http://127.0.0.1:{self.port}/files/{statement.id}/{start}"

    def file(self, statement_id: str, start: int) -> bytes | None:
        """Return a file of CloudFetch."""
        found = self.find(statement_id)
        if found is None:
            return None
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, found.table.schema) as writer:
            writer.write_table(found.table.slice(start, CHUNK_ROWS))
        return bytes(sink.getvalue())

    def close(self) -> None:
        """End what still runs."""
        for statement in self.statements:
            if not statement.done.is_set():
                statement.cancel()
        for thread in self._threads:
            thread.join(10)
        self.database.close()


def moment(epoch_ns: int) -> datetime:
    """Return nanoseconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(0, timezone.utc) + timedelta(microseconds=epoch_ns // 1000)


def _condition(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "INSUFFICIENT_PERMISSIONS"
    return "TABLE_OR_VIEW_NOT_FOUND" if "does not exist" in str(error) else "PARSE_SYNTAX_ERROR"


def _parameters(given: list[tuple[str | None, str | None, str]]) -> Any:
    """Return parameters as DuckDB takes them: by name, or else by position."""
    if not given:
        return None
    read: dict[str, Callable[[str], object]] = {
        "INT": int,
        "BIGINT": int,
        "DOUBLE": float,
        "TIMESTAMP": datetime.fromisoformat,
        "BOOLEAN": lambda text: text.lower() == "true",
    }
    values = [
        None if value is None else read.get(kind.upper(), str)(value) for _, value, kind in given
    ]
    names = [name for name, _, _ in given]
    return dict(zip(names, values, strict=True)) if all(names) else values
