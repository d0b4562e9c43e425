"""A Flight SQL server for tests: an emulator of what Dremio speaks, over real gRPC, with DuckDB behind.

What speaks to it is unmodified: `adbc_driver_flightsql` (its Go driver) and plain `pyarrow.flight`.
It knows the commands of Flight SQL that those send for statements (CommandStatementQuery,
CommandStatementUpdate, prepared statements with bound parameters) and, as Dremio does, SQL as the
bare command. Names of commands and fields: arrow.apache.org, format/FlightSql.proto.

The seam for history and figures is `Dremio.seed`: rows of the system tables, which the settlement
reads with a query as any other.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import duckdb

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

pa: Any = import_module("pyarrow")
flight: Any = import_module("pyarrow.flight")

URL = b"type.googleapis.com/arrow.flight.protocol.sql."
BATCH = 1000
"""Rows in a batch."""
JOBS = """
CREATE SCHEMA sys;
CREATE TABLE sys.jobs_recent (
    job_id VARCHAR, status VARCHAR, query_type VARCHAR, user_name VARCHAR, engine VARCHAR,
    queue_name VARCHAR, submitted_epoch_millis BIGINT, execution_start_epoch_millis BIGINT,
    final_state_epoch_millis BIGINT, rows_scanned BIGINT, bytes_scanned BIGINT,
    rows_returned BIGINT, bytes_returned BIGINT, execution_cpu_time_ns BIGINT,
    accelerated BOOLEAN, query VARCHAR
);
CREATE TABLE sys.history_jobs AS FROM sys.jobs_recent;
CREATE TABLE sys.organization_usage (
    replica_id VARCHAR, engine_id VARCHAR, entity_id VARCHAR, entity_type VARCHAR,
    start_time TIMESTAMP, end_time TIMESTAMP, instance_count INTEGER, instance_type VARCHAR,
    instance_hourly_cost_dcus DOUBLE, total_usage_dcus DOUBLE
);
"""
# Names of more parts than DuckDB knows.
NAMES = {
    "sys.project.history.jobs": "sys.history_jobs",
    "sys.organization.usage": "sys.organization_usage",
}


# --- the little of Protocol Buffers that there is in it ----------------------------------------------


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield the fields of a message: numbers as they are, everything else as bytes."""
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = number()
        if tag & 7 == 0:
            yield tag >> 3, number()
        else:
            size = number()
            yield tag >> 3, message[at : at + size]
            at += size


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def packed(name: bytes, value: bytes) -> bytes:
    """Write a message of Flight SQL as the Any that it travels in."""
    return _field(1, URL + name) + _field(2, value)


def opened(message: bytes) -> tuple[str, dict[int, Any]]:
    """Read such an Any: the message's name and fields. What is none is a statement by itself."""
    if not message[2:].startswith(URL):
        return "", {1: message}
    outer = dict(_fields(message))
    return bytes(outer[1])[len(URL) :].decode(), dict(_fields(bytes(outer.get(2, b""))))


def _is_query(text: str) -> bool:
    return text.split(None, 1)[0].upper() in ("SELECT", "WITH", "VALUES")


CHANGED = pa.schema([("Records", pa.int64())])
"""What a statement that changes something gives: how many rows."""


# --- the server ----------------------------------------------------------------------------------------


_Base: Any = flight.FlightServerBase


class Dremio(_Base):  # type: ignore[misc]  # pyarrow has no types
    """One server. `requests` are the calls that came, `statements` the texts that ran."""

    def __init__(self) -> None:
        _Base.__init__(self, "grpc://127.0.0.1:0")
        self.database: Any = duckdb.connect()
        self.database.execute(JOBS)
        self.requests: list[tuple[str, bytes]] = []
        self.statements: list[str] = []
        self.refuses: set[str] = set()
        """System tables that the user may not read."""
        self._prepared: dict[bytes, tuple[str, Any]] = {}
        self._lock = threading.Lock()

    def seed(self, table: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Put rows into a system table; what a row does not say is null."""
        for row in rows:
            names, marks = ", ".join(row), ", ".join("?" for _ in row)
            with self._lock:
                self.database.execute(
                    f"INSERT INTO {NAMES.get(table, table)} ({names}) VALUES ({marks})",
                    [*row.values()],
                )

    def _run(self, text: str, parameters: Any = None) -> Any:
        """Run a statement, once for each row of its parameters; return the last result."""
        rows: list[Any] = [None]
        if parameters is not None:
            rows = [[*row.values()] for row in parameters.to_pylist()]
        self.statements += [text] * len(rows)
        text = self._here(text)
        result: Any = None
        with self._lock, self.database.cursor() as cursor:
            for row in rows:
                try:
                    result = cursor.execute(text, row).to_arrow_table()
                except duckdb.Error as error:
                    raise flight.FlightServerError(str(error).splitlines()[0]) from None
        if result is not None and not _is_query(text):
            counts: list[int | None] = result.to_pydict().get("Count", [None])
            return pa.table({"Records": pa.array(counts[:1], pa.int64())})
        return result

    def _here(self, text: str) -> str:
        """Return a statement with the system tables' names as they are here."""
        for name in self.refuses:
            if name in text:
                raise flight.FlightUnauthorizedError(f"PERMISSION ERROR: not authorized: {name}")
        for name, ours in NAMES.items():
            text = text.replace(name, ours)
        return text

    def _described(self, text: str) -> Any:
        """Return the schema of a statement's result without running it."""
        if not _is_query(text):
            return CHANGED
        try:
            with self._lock, self.database.cursor() as cursor:
                plain = self._here(text).replace("?", "NULL")
                found = cursor.execute(f"DESCRIBE {plain}").fetchall()
                columns = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind, *_ in found)
                return cursor.execute(f"SELECT {columns} LIMIT 0").to_arrow_table().schema
        except duckdb.Error as error:
            raise flight.FlightServerError(str(error).splitlines()[0]) from None

    def _text(self, message: bytes) -> tuple[str, Any]:
        """Return the statement and the bound parameters of a command or a ticket."""
        name, fields = opened(message)
        if name.startswith("CommandGet"):
            raise flight.FlightServerError(f"{name} is not emulated")
        if "Prepared" in name:
            return self._prepared[bytes(fields[1])]
        return bytes(fields[1]).decode(), None

    # -- what Flight calls --------------------------------------------------------------------------

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        self.requests.append(("get_flight_info", descriptor.command))
        text, _ = self._text(descriptor.command)
        schema = self._described(text)
        endpoint = flight.FlightEndpoint(descriptor.command, [])
        return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1)

    def do_get(self, context: Any, ticket: Any) -> Any:
        self.requests.append(("do_get", ticket.ticket))
        table = self._run(*self._text(ticket.ticket))
        return flight.GeneratorStream(table.schema, table.to_batches(max_chunksize=BATCH))

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        name, fields = opened(descriptor.command)
        self.requests.append((f"do_put {name}", descriptor.command))
        handle = bytes(fields[1])
        if name == "CommandPreparedStatementQuery":
            self._prepared[handle] = (self._prepared[handle][0], reader.read_all())
            return
        if name == "CommandPreparedStatementUpdate":
            text = self._prepared[handle][0]
            given = reader.read_all()
            self._run(text, given if given.num_columns else None)
            changed = given.num_rows if given.num_columns else 1
        else:
            changed = self._run(handle.decode()).num_rows
        writer.write(pa.py_buffer(b"\x08" + _varint(changed)))

    def do_action(self, context: Any, action: Any) -> list[Any]:
        body = action.body.to_pybytes()
        self.requests.append((f"do_action {action.type}", body))
        _, fields = opened(body)
        if action.type == "CreatePreparedStatement":
            text = bytes(fields[1]).decode()
            schema = self._described(text).serialize().to_pybytes()
            handle = b"prepared %d" % (len(self._prepared) + 1)
            self._prepared[handle] = (text, None)
            made = _field(1, handle) + _field(2, schema)
            return [flight.Result(packed(b"ActionCreatePreparedStatementResult", made))]
        return []


@contextmanager
def serving() -> Generator[Dremio]:
    """Run a server at ``127.0.0.1:{server.port}``."""
    server = Dremio()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(10)
        server.database.close()
