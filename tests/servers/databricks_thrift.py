"""Thrift, as databricks-sql-connector speaks it to a warehouse of the emulator."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib import import_module
from time import time_ns
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tests.servers.databricks_workspace import CHUNK_ROWS, METADATA, PATIENCE, Column, Statement

if TYPE_CHECKING:
    from tests.servers.databricks_workspace import Workspace

# These come without types.
_protocol: Any = import_module("thrift.protocol.TBinaryProtocol")
_transport: Any = import_module("thrift.transport.TTransport")
_service: Any = import_module("databricks.sql.thrift_api.TCLIService.TCLIService")
t: Any = import_module("databricks.sql.thrift_api.TCLIService.ttypes")

# The Thrift column for each kind of value, its field in the union, and what stands for a null.
COLUMNS = {
    "BOOLEAN_TYPE": ("TBoolColumn", "boolVal", False),
    "TINYINT_TYPE": ("TByteColumn", "byteVal", 0),
    "SMALLINT_TYPE": ("TI16Column", "i16Val", 0),
    "INT_TYPE": ("TI32Column", "i32Val", 0),
    "BIGINT_TYPE": ("TI64Column", "i64Val", 0),
    "DOUBLE_TYPE": ("TDoubleColumn", "doubleVal", 0.0),
}


def answered(workspace: Workspace, path: str, body: bytes) -> bytes:
    """Answer a message that came to `path`, which names the warehouse."""
    sent = _transport.TMemoryBuffer()
    _service.Processor(Thrift(workspace, path)).process(
        _protocol.TBinaryProtocol(_transport.TMemoryBuffer(body)),
        _protocol.TBinaryProtocol(sent),
    )
    return bytes(sent.getvalue())


def method_of(body: bytes) -> str:
    """Return which call a message is."""
    return str(_protocol.TBinaryProtocol(_transport.TMemoryBuffer(body)).readMessageBegin()[0])


class Thrift:
    """What the generated processor calls, for one request."""

    def __init__(self, workspace: Workspace, path: str) -> None:
        self._workspace = workspace
        self._warehouse = path.rsplit("/", 1)[-1]

    def OpenSession(self, request: Any) -> Any:  # noqa: N802  Thrift's name
        version = t.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7
        handle = t.TSessionHandle(
            sessionId=self._handle("session", len(self._workspace.sessions)),
            serverProtocolVersion=version,
        )
        self._workspace.sessions[handle.sessionId.guid.hex()] = ""
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
        statement = self._workspace.run(
            request.statement,
            self._warehouse,
            parameters=parameters,
            tags=tags_in(overlay.get("query_tags", "")),
            driver="Databricks SQL Connector for Python",
        )
        statement.links = bool(request.canDownloadResult) and self._workspace.cloud_fetch
        return t.TExecuteStatementResp(
            status=_OK,
            operationHandle=self._operation(statement),
            directResults=self._direct(statement, request),
        )

    def _metadata(self, name: str, request: Any, response: Any) -> Any:
        statement = self._workspace.run(
            f"Listing: {name}", self._warehouse, driver="", metadata=name
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
        found = self._workspace.find(str(UUID(bytes=request.operationHandle.operationId.guid)))
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
        if statement.kind in METADATA or not self._workspace.arrow or not statement.columns:
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
                    fileLink=self._workspace.link(statement, at),
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


def tags_in(text: str) -> dict[str, str | None]:
    """Read tags as Thrift carries them: ``k1:v1,k2``, with a backslash before ``\\ : ,``."""
    tags: dict[str, str | None] = {}
    for part in re.findall(r"(?:\\.|[^,\\])+", text):
        key, colon, value = re.sub(r"\\\\", "\0", part).partition(":")
        tags[key] = re.sub(r"\\(.)", r"\1", value).replace("\0", "\\") if colon else None
    return tags


def _primitive(column: Column) -> Any:
    qualifiers = None
    if column.decimal is not None:
        precision, scale = (t.TTypeQualifierValue(i32Value=digits) for digits in column.decimal)
        qualifiers = t.TTypeQualifiers({"precision": precision, "scale": scale})
    return t.TPrimitiveTypeEntry(getattr(t.TTypeId, column.thrift), qualifiers)


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
