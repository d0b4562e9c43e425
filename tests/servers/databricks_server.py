"""A Databricks SQL warehouse for tests: an emulator of its wire protocols, with DuckDB behind them.

What speaks to it is unmodified: databricks-sql-connector over Thrift and over the Statement
Execution API (SEA), databricks-sqlalchemy, and databricks-sdk. It proves that we work with the real
clients and their wire format, and nothing about what Databricks itself counts or charges.

One `Workspace` is one server. Statements run in DuckDB, written anew by sqlglot, each in a thread of
its own, so that they can be slow, be asked about, and be cancelled. Ids are counted and not random:
two workspaces that are asked the same give the same answers, byte for byte, so what a client sends
with and without us can be compared whole (`Workspace.requests`).

The seam for history and figures:

- every statement that runs is a row of ``system.query.history`` and of the query history API, with
  the metrics that `Workspace.figures` gives for it;
- `Workspace.seed` puts rows into ``system.query.history``, ``system.billing.usage`` and
  ``system.billing.list_prices``; what a row does not say is null.

Column names are those of Databricks' documentation, as far as anything here reads them.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from time import time_ns
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import duckdb
import sqlglot
from sqlglot import exp

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

# These come without types; all but the first are the Thrift compiler's.
pa: Any = import_module("pyarrow")
_protocol: Any = import_module("thrift.protocol.TBinaryProtocol")
_transport: Any = import_module("thrift.transport.TTransport")
_service: Any = import_module("databricks.sql.thrift_api.TCLIService.TCLIService")
t: Any = import_module("databricks.sql.thrift_api.TCLIService.ttypes")

OWNER = "analyst@example.com"
CHUNK_ROWS = 10_000
"""Rows in one answer, one chunk, or one file of CloudFetch."""
PATIENCE = 5.0
"""Seconds that a call waits for a statement before it says that it still runs."""

SYSTEM_TABLES = {
    "query.history": pa.schema(
        [
            ("workspace_id", pa.string()),
            ("statement_id", pa.string()),
            ("session_id", pa.string()),
            ("execution_status", pa.string()),
            ("compute", pa.struct([("type", pa.string()), ("warehouse_id", pa.string())])),
            ("executed_by", pa.string()),
            ("executed_as", pa.string()),
            ("statement_text", pa.string()),
            ("statement_type", pa.string()),
            ("error_message", pa.string()),
            ("client_application", pa.string()),
            ("client_driver", pa.string()),
            ("total_duration_ms", pa.int64()),
            ("waiting_for_compute_duration_ms", pa.int64()),
            ("waiting_at_capacity_duration_ms", pa.int64()),
            ("execution_duration_ms", pa.int64()),
            ("compilation_duration_ms", pa.int64()),
            ("total_task_duration_ms", pa.int64()),
            ("result_fetch_duration_ms", pa.int64()),
            ("start_time", pa.timestamp("us")),
            ("end_time", pa.timestamp("us")),
            ("update_time", pa.timestamp("us")),
            ("read_rows", pa.int64()),
            ("produced_rows", pa.int64()),
            ("read_bytes", pa.int64()),
            ("spilled_local_bytes", pa.int64()),
            ("written_bytes", pa.int64()),
            ("shuffle_read_bytes", pa.int64()),
            ("from_result_cache", pa.bool_()),
            ("query_tags", pa.map_(pa.string(), pa.string())),
        ]
    ),
    "billing.usage": pa.schema(
        [
            ("record_id", pa.string()),
            ("workspace_id", pa.string()),
            ("sku_name", pa.string()),
            ("cloud", pa.string()),
            ("usage_start_time", pa.timestamp("us")),
            ("usage_end_time", pa.timestamp("us")),
            ("usage_date", pa.date32()),
            ("usage_unit", pa.string()),
            ("usage_quantity", pa.decimal128(38, 18)),
            (
                "usage_metadata",
                pa.struct(
                    [
                        ("warehouse_id", pa.string()),
                        ("cluster_id", pa.string()),
                        ("job_id", pa.string()),
                        ("job_run_id", pa.string()),
                    ]
                ),
            ),
            ("record_type", pa.string()),
            ("billing_origin_product", pa.string()),
        ]
    ),
    "billing.list_prices": pa.schema(
        [
            ("price_start_time", pa.timestamp("us")),
            ("price_end_time", pa.timestamp("us")),
            ("sku_name", pa.string()),
            ("cloud", pa.string()),
            ("currency_code", pa.string()),
            ("usage_unit", pa.string()),
            (
                "pricing",
                pa.struct(
                    [
                        ("default", pa.decimal128(38, 18)),
                        ("effective_list", pa.struct([("default", pa.decimal128(38, 18))])),
                    ]
                ),
            ),
        ]
    ),
}

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
# The same, as SEA's clients ask for it: with statements, whose columns have other names.
SHOWS = {
    "SHOW CATALOGS": "SELECT 'main' AS catalog",
    "SHOW SCHEMAS": "SELECT schema_name AS databaseName, 'main' AS catalogName"
    " FROM information_schema.schemata WHERE catalog_name = current_database() ORDER BY ALL",
    "SHOW TABLES": "SELECT table_schema AS namespace, table_name AS tableName, false AS isTemporary,"
    " '' AS information, 'main' AS catalogName, 'TABLE' AS tableType FROM information_schema.tables"
    " WHERE table_catalog = current_database() ORDER BY ALL",
    "SHOW COLUMNS": "SELECT column_name AS col_name, 'main' AS catalogName,"
    " table_schema AS namespace, table_name AS tableName, data_type AS columnType"
    " FROM information_schema.columns WHERE table_catalog = current_database() ORDER BY ALL",
}
# The Thrift column for each kind of value, its field in the union, and what stands for a null.
COLUMNS = {
    "BOOLEAN_TYPE": ("TBoolColumn", "boolVal", False),
    "TINYINT_TYPE": ("TByteColumn", "byteVal", 0),
    "SMALLINT_TYPE": ("TI16Column", "i16Val", 0),
    "INT_TYPE": ("TI32Column", "i32Val", 0),
    "BIGINT_TYPE": ("TI64Column", "i64Val", 0),
    "DOUBLE_TYPE": ("TDoubleColumn", "doubleVal", 0.0),
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")


def duckdb_sql(text: str) -> str:
    """Write Databricks' SQL as DuckDB's, with its system tables where ours are."""
    if show := SHOWS.get(" ".join(text.split()[:2]).upper()):
        return show
    tree = sqlglot.parse_one(text, read="databricks")
    for table in tree.find_all(exp.Table):
        if table.catalog.lower() == "system":
            table.set("catalog", None)
            table.set("db", exp.to_identifier(f"system_{table.db.lower()}"))
    for kind in tree.find_all(exp.DataType):
        if kind.this == exp.DataType.Type.TIMESTAMPTZ:  # the tables have UTC, and say nothing of it
            kind.set("this", exp.DataType.Type.TIMESTAMP)
    return tree.sql(dialect="duckdb")


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


class Workspace:
    """A workspace with its warehouses: statements, their history, and what was asked of it."""

    def __init__(self, *, warehouses: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.database = duckdb.connect()
        self.database.execute("CREATE SCHEMA system_query; CREATE SCHEMA system_billing")
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
        self.port = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._sessions: dict[str, str] = {}

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

    def close(self) -> None:
        """End what still runs."""
        for statement in self.statements:
            if not statement.done.is_set():
                statement.cancel()
        for thread in self._threads:
            thread.join(10)
        self.database.close()

    # -- Thrift: what the generated processor calls -------------------------------------------------

    def OpenSession(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        version = t.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7
        handle = t.TSessionHandle(
            sessionId=self._handle("session", len(self._sessions)), serverProtocolVersion=version
        )
        self._sessions[handle.sessionId.guid.hex()] = ""
        return t.TOpenSessionResp(
            status=_OK,
            serverProtocolVersion=version,
            sessionHandle=handle,
            configuration={},
            canUseMultipleCatalogs=True,
            initialNamespace=request.initialNamespace,
        )

    def CloseSession(self, _: Any) -> Any:  # noqa: N802  Thrift's name
        return t.TCloseSessionResp(status=_OK)

    def ExecuteStatement(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        sent: list[Any] = request.parameters or []
        parameters: list[tuple[str | None, str | None, str]] = [
            (given.name, given.value and given.value.stringValue, given.type) for given in sent
        ]
        overlay: dict[str, str] = request.confOverlay or {}
        statement = self.run(
            request.statement,
            self.path.rsplit("/", 1)[-1],
            parameters=parameters,
            tags=tags_in(overlay.get("query_tags", "")),
            driver="Databricks SQL Connector for Python",
        )
        statement.links = bool(request.canDownloadResult) and self.cloud_fetch
        return t.TExecuteStatementResp(
            status=_OK,
            operationHandle=self._operation(statement),
            directResults=self._direct(statement, request),
        )

    def _metadata(self, name: str, request: Any, response: Any) -> Any:
        statement = self.run(
            f"Listing: {name}", self.path.rsplit("/", 1)[-1], driver="", metadata=name
        )
        return response(
            status=_OK,
            operationHandle=self._operation(statement),
            directResults=self._direct(statement, request),
        )

    def GetCatalogs(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        return self._metadata("GetCatalogs", request, t.TGetCatalogsResp)

    def GetSchemas(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        return self._metadata("GetSchemas", request, t.TGetSchemasResp)

    def GetTables(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        return self._metadata("GetTables", request, t.TGetTablesResp)

    def GetColumns(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        return self._metadata("GetColumns", request, t.TGetColumnsResp)

    def GetOperationStatus(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        statement = self._asked(request)
        statement.done.wait(0.2)  # as the real one, which answers slowly while it runs
        return self._status(statement)

    def GetResultSetMetadata(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        return self._described(self._asked(request))

    def FetchResults(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        statement = self._asked(request)
        statement.done.wait(PATIENCE)
        return self._fetched(statement, request.maxRows)

    def CloseOperation(self, _: Any) -> Any:  # noqa: N802  Thrift's name
        return t.TCloseOperationResp(status=_OK)

    def CancelOperation(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        self._asked(request).cancel()
        return t.TCancelOperationResp(status=_OK)

    cloud_fetch = False
    """Whether results are handed out as links to files, to clients that take them."""
    arrow = True
    """Whether results are in Arrow; the older columns otherwise."""
    path = ""
    """Of the request that is being answered: one at a time, under the server's lock."""

    def _handle(self, kind: str, number: int) -> Any:
        digest = sha256(f"{kind} {number}".encode()).digest()
        return t.THandleIdentifier(guid=digest[:16], secret=digest[16:])

    def _operation(self, statement: Statement) -> Any:
        return t.TOperationHandle(
            operationId=t.THandleIdentifier(guid=statement.guid, secret=statement.guid),
            operationType=t.TOperationType.EXECUTE_STATEMENT,
            hasResultSet=True,
        )

    def _asked(self, request: Any) -> Statement:
        found = self.find(str(UUID(bytes=request.operationHandle.operationId.guid)))
        assert found is not None
        return found

    def _direct(self, statement: Statement, request: Any) -> Any:
        """Answer with the result at once, where it is wanted and there is one by then."""
        wanted = request.getDirectResults
        if not wanted or not statement.done.wait(PATIENCE):
            return None
        status = self._status(statement)
        if statement.state != "SUCCEEDED":
            return t.TSparkDirectResults(operationStatus=status)
        return t.TSparkDirectResults(
            operationStatus=status,
            resultSetMetadata=self._described(statement),
            resultSet=self._fetched(statement, wanted.maxRows),
        )

    def _status(self, statement: Statement) -> Any:
        state = t.TOperationState
        failed = statement.state == "FAILED"
        return t.TGetOperationStatusResp(
            status=_OK,
            operationState={
                "PENDING": state.PENDING_STATE,
                "RUNNING": state.RUNNING_STATE,
                "SUCCEEDED": state.FINISHED_STATE,
                "CANCELED": state.CANCELED_STATE,
                "FAILED": state.ERROR_STATE,
            }[statement.state if statement.done.is_set() else "RUNNING"],
            sqlState="42000" if failed else None,
            errorMessage=statement.error or None,
            displayMessage=statement.error or None,
            numModifiedRows=statement.changed,
        )

    def _form(self, statement: Statement) -> Any:
        kind = t.TSparkRowSetType
        if statement.kind in METADATA or not self.arrow or not statement.columns:
            return kind.COLUMN_BASED_SET
        return kind.URL_BASED_SET if statement.links else kind.ARROW_BASED_SET

    def _described(self, statement: Statement) -> Any:
        if statement.state != "SUCCEEDED":
            return t.TGetResultSetMetadataResp(status=_NO_RESULT)
        columns = [
            t.TColumnDesc(
                columnName=column.name,
                position=at,
                comment="",
                typeDesc=t.TTypeDesc([t.TTypeEntry(primitiveEntry=_primitive(column))]),
            )
            for at, column in enumerate(statement.columns, 1)
        ]
        form = self._form(statement)
        return t.TGetResultSetMetadataResp(
            status=_OK,
            schema=t.TTableSchema(columns=columns),
            resultFormat=form,
            lz4Compressed=False,
            isStagingOperation=False,
            arrowSchema=None
            if form == t.TSparkRowSetType.COLUMN_BASED_SET
            else statement.table.schema.serialize().to_pybytes(),
        )

    def _fetched(self, statement: Statement, most: int) -> Any:
        if statement.state != "SUCCEEDED":
            return t.TFetchResultsResp(status=_NO_RESULT)
        start = statement.position
        form = self._form(statement)
        links = form == t.TSparkRowSetType.URL_BASED_SET
        count = statement.rows - start if links else min(most, CHUNK_ROWS, statement.rows - start)
        statement.position += count
        rows = t.TRowSet(startRowOffset=start, rows=[])
        if links:
            rows.resultLinks = [
                t.TSparkArrowResultLink(
                    fileLink=self._link(statement, at),
                    expiryTime=(time_ns() + 900 * 10**9) // 10**6,
                    startRowOffset=at,
                    rowCount=min(CHUNK_ROWS, statement.rows - at),
                    bytesNum=1,
                    httpHeaders={},
                )
                for at in range(start, statement.rows, CHUNK_ROWS)
            ]
        elif form == t.TSparkRowSetType.ARROW_BASED_SET:
            rows.arrowBatches = [
                t.TSparkArrowBatch(
                    batch=batch.serialize().to_pybytes(), rowCount=int(batch.num_rows)
                )
                for batch in statement.table.slice(start, count).combine_chunks().to_batches()
            ]
        else:
            rows.columns = _columns(statement, start, count)
        return t.TFetchResultsResp(
            status=_OK,
            hasMoreRows=statement.position < statement.rows,
            results=rows,
            resultSetMetadata=self._described(statement),
        )

    def _link(self, statement: Statement, start: int) -> str:
        return f"http://127.0.0.1:{self.port}/files/{statement.id}/{start}"

    # -- REST ---------------------------------------------------------------------------------------

    def rest(self, method: str, path: str, body: Any, query: Mapping[str, list[str]]) -> Any:
        """Answer a call of the REST API; None for what there is not."""
        parts = path.removeprefix("/api/2.0/sql/").strip("/").split("/")
        match method, parts:
            case "POST", ["sessions"]:
                self._sessions[f"sea-{len(self._sessions)}"] = body["warehouse_id"]
                return {"session_id": list(self._sessions)[-1]}
            case "DELETE", ["sessions", _] | ["statements", _]:
                return {}
            case "POST", ["statements"]:
                return self._sent(body)
            case "GET", ["statements", statement_id] if found := self.find(statement_id):
                found.done.wait(0.2)
                return self._answer(found)
            case "POST", ["statements", statement_id, "cancel"] if found := self.find(statement_id):
                found.cancel()
                return {}
            case "GET", ["statements", statement_id, "result", "chunks", chunk]:
                found = self.find(statement_id)
                return None if found is None else self._chunk(found, int(chunk))
            case "GET", ["warehouses", name] if name in self.warehouses:
                return {"id": name, "name": name, **self.warehouses[name]}
            case "GET", ["history", "queries"]:
                return self._history(body or {}, query)
            case _:
                return None

    def _sent(self, body: Mapping[str, Any]) -> dict[str, Any]:
        statement = self.run(
            body["statement"],
            body["warehouse_id"],
            parameters=[
                (given.get("name"), given.get("value"), given.get("type", "STRING"))
                for given in body.get("parameters", [])
            ],
            tags={tag["key"]: tag.get("value") for tag in body.get("query_tags", [])},
            driver="",
        )
        statement.links = body.get("disposition", "INLINE") == "EXTERNAL_LINKS"
        patience = float(body.get("wait_timeout", "10s").rstrip("s"))
        if not statement.done.wait(patience) and body.get("on_wait_timeout") == "CANCEL":
            statement.cancel()
            statement.done.wait(PATIENCE)
        return self._answer(statement)

    def _answer(self, statement: Statement) -> dict[str, Any]:
        state = statement.state if statement.done.is_set() else "RUNNING"
        if state == "SUCCEEDED" and not statement.links and statement.rows > self.most_rows:
            state = "FAILED"
            statement.error = (
                "Inline byte limit exceeded. Statements executed with disposition=INLINE can have a "
                "result size of at most 26214400 bytes: use disposition=EXTERNAL_LINKS"
            )
        status: dict[str, Any] = {"state": state}
        if state == "FAILED":
            status["error"] = {"error_code": "BAD_REQUEST", "message": statement.error}
            status["sql_state"] = "42000"
        answer: dict[str, Any] = {"statement_id": statement.id, "status": status}
        if state == "SUCCEEDED":
            chunks = max(1, -(-statement.rows // CHUNK_ROWS)) if statement.columns else 0
            answer["manifest"] = {
                "format": "ARROW_STREAM" if statement.links else "JSON_ARRAY",
                "schema": {
                    "column_count": len(statement.columns),
                    "columns": [_sea(at, column) for at, column in enumerate(statement.columns)],
                },
                "total_chunk_count": chunks,
                "total_row_count": statement.rows,
                "total_byte_count": 0,
                "truncated": False,
            }
            answer["result"] = self._chunk(statement, 0)
        return answer

    def _chunk(self, statement: Statement, number: int) -> dict[str, Any]:
        start = number * CHUNK_ROWS
        rows = max(0, min(CHUNK_ROWS, statement.rows - start))
        more = number + 1 if start + rows < statement.rows else None
        chunk: dict[str, Any] = {"chunk_index": number, "row_offset": start, "row_count": rows}
        if more is not None:
            chunk["next_chunk_index"] = more
        if not statement.links:
            return {**chunk, "data_array": statement.texts(start, rows) if rows else []}
        return {
            "external_links": [
                {
                    **chunk,
                    "byte_count": 1,
                    "external_link": self._link(statement, start),
                    "expiration": moment(time_ns() + 900 * 10**9).isoformat(),
                }
            ]
        }

    def _history(self, body: Mapping[str, Any], query: Mapping[str, list[str]]) -> dict[str, Any]:
        """The query history API: of the statements asked for, or of all."""
        asked = [
            *body.get("filter_by", {}).get("statement_ids", []),
            *query.get("filter_by.statement_ids", []),
        ]
        metrics = query.get("include_metrics", ["false"])[0].lower() == "true"
        return {
            "has_next_page": False,
            "res": [
                {
                    "query_id": found.id,
                    "status": "FINISHED" if found.state == "SUCCEEDED" else found.state,
                    "query_text": found.text,
                    "warehouse_id": found.warehouse,
                    "user_name": OWNER,
                    "rows_produced": found.rows,
                    "query_start_time_ms": found.started // 10**6,
                    "query_end_time_ms": found.ended // 10**6,
                    **({"metrics": dict(self.figures(found))} if metrics else {}),
                }
                for found in self.statements
                if found.done.is_set() and (not asked or found.id in asked)
            ],
        }

    def file(self, statement_id: str, start: int) -> bytes | None:
        """Return a file of CloudFetch."""
        found = self.find(statement_id)
        if found is None:
            return None
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, found.table.schema) as writer:
            writer.write_table(found.table.slice(start, CHUNK_ROWS))
        return bytes(sink.getvalue())


def moment(epoch_ns: int) -> datetime:
    """Return nanoseconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(0, timezone.utc) + timedelta(microseconds=epoch_ns // 1000)


def tags_in(text: str) -> dict[str, str | None]:
    """Read tags as Thrift carries them: ``k1:v1,k2``, with a backslash before ``\\ : ,``."""
    tags: dict[str, str | None] = {}
    for part in re.findall(r"(?:\\.|[^,\\])+", text):
        key, colon, value = re.sub(r"\\\\", "\0", part).partition(":")
        tags[key] = re.sub(r"\\(.)", r"\1", value).replace("\0", "\\") if colon else None
    return tags


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


def _primitive(column: Column) -> Any:
    qualifiers = None
    if column.decimal is not None:
        precision, scale = (t.TTypeQualifierValue(i32Value=digits) for digits in column.decimal)
        qualifiers = t.TTypeQualifiers({"precision": precision, "scale": scale})
    return t.TPrimitiveTypeEntry(getattr(t.TTypeId, column.thrift), qualifiers)


def _sea(position: int, column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": column.name,
        "position": position,
        "type_name": column.sea,
        "type_text": column.sea,
    }
    if column.decimal is not None:
        described["type_precision"], described["type_scale"] = column.decimal
    return described


def _columns(statement: Statement, start: int, count: int) -> list[Any]:
    rows = statement.values(start, count) if count else []
    columns: list[Any] = []
    for at, column in enumerate(statement.columns):
        kind, member, empty = COLUMNS.get(column.thrift, ("TStringColumn", "stringVal", ""))
        found = [row[str(at)] for row in rows]
        nulls = bytearray((len(found) + 7) // 8)
        for place, value in enumerate(found):
            if value is None:
                nulls[place // 8] |= 1 << place % 8
        values = [
            empty if value is None else str(value) if empty == "" else value for value in found
        ]
        columns.append(t.TColumn(**{member: getattr(t, kind)(values=values, nulls=bytes(nulls))}))
    return columns


_OK = t.TStatus(statusCode=t.TStatusCode.SUCCESS_STATUS)
_NO_RESULT = t.TStatus(
    statusCode=t.TStatusCode.ERROR_STATUS,
    sqlState="HY008",
    errorMessage="The operation has no result: it was cancelled, or it failed.",
)


class _Handler(BaseHTTPRequestHandler):
    """Takes requests of all three kinds apart, and keeps them."""

    protocol_version = "HTTP/1.1"

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
        call = f"{self.command} {_plain(url.path)}" if rest else _method_of(body)
        workspace.requests.append(Request(call, self.path, body, dict(self.headers)))
        for path, (status, given) in workspace.answers.items():
            if url.path.startswith(path):
                self._reply(status, json.dumps(given).encode(), "application/json")
                return
        if url.path.startswith("/files/"):
            _, _, statement_id, start = url.path.split("/")
            found = workspace.file(statement_id, int(start))
            self._reply(404 if found is None else 200, found or b"", "application/octet-stream")
        elif rest:
            answer = workspace.rest(
                self.command, url.path, json.loads(body) if body else None, parse_qs(url.query)
            )
            missing = {"error_code": "NOT_FOUND", "message": f"no {url.path}"}
            said = json.dumps(missing if answer is None else answer).encode()
            self._reply(404 if answer is None else 200, said, "application/json")
        else:
            self._reply(200, self._thrift(workspace, url.path, body), "application/x-thrift")

    def _thrift(self, workspace: Workspace, path: str, body: bytes) -> bytes:
        sent = _transport.TMemoryBuffer()
        handler = _At(workspace, path)
        _service.Processor(handler).process(
            _protocol.TBinaryProtocol(_transport.TMemoryBuffer(body)),
            _protocol.TBinaryProtocol(sent),
        )
        return bytes(sent.getvalue())

    def _reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _At:
    """The workspace, as asked at a path, which names the warehouse."""

    def __init__(self, workspace: Workspace, path: str) -> None:
        self._workspace, self._path = workspace, path

    def __getattr__(self, name: str) -> Any:
        method = getattr(Workspace, name)
        here = _Bound(self._workspace, self._path)

        def called(request: Any) -> Any:
            return method(here, request)

        return called


class _Bound:
    """A workspace with the path of one request."""

    def __init__(self, workspace: Workspace, path: str) -> None:
        self._workspace, self.path = workspace, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workspace, name)


def _method_of(body: bytes) -> str:
    return str(_protocol.TBinaryProtocol(_transport.TMemoryBuffer(body)).readMessageBegin()[0])


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
