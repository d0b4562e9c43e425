"""A stand-in for Redshift: real PostgreSQL behind a proxy that speaks Redshift's start-up.

The proxy drops the start-up parameters that PostgreSQL refuses, says Redshift's version and
protocol, gives ``query_group`` the dotted name that PostgreSQL wants of a setting of its own, and
looks for the views of Redshift's catalogue where they can be made.
All else passes through, and what the client sends is kept: `Redshift.messages`.

``sys_query_history`` and its like are tables; `Redshift.seed` fills them. That Redshift fills its
own in the same way is not shown by this.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tests.backends import Server

# PostgreSQL refuses a start-up with anything that it does not know.
KNOWN = frozenset(
    b"user database options replication application_name client_encoding datestyle timezone "
    b"extra_float_digits search_path statement_timeout".split()
)
SSL_REQUEST, CANCEL_REQUEST, SASL = 80877103, 80877102, 10
VERSION = b"8.0.2"  # what every Redshift says that it is

# Columns and types of engines.md, section 3; texts are char(n) there, padded with blanks.
TABLES = """
CREATE TABLE sys_query_history (
    user_id int, query_id bigint, query_label char(320), transaction_id bigint, session_id int,
    database_name char(128), query_type char(32), status char(10), result_cache_hit boolean,
    start_time timestamp, end_time timestamp, elapsed_time bigint, queue_time bigint,
    execution_time bigint, error_message char(512), returned_rows bigint, returned_bytes bigint,
    query_text char(4000), compute_type varchar(32), username varchar(255));
CREATE TABLE sys_serverless_usage (
    start_time timestamp, end_time timestamp, compute_seconds double precision,
    compute_capacity double precision, data_storage int, cross_region_transferred_data int,
    charged_seconds int);
CREATE TABLE svcs_concurrency_scaling_usage (
    start_time timestamp, end_time timestamp, queries bigint, usage_in_seconds bigint);
CREATE TABLE svcs_s3query_summary (
    userid int, query int, xid bigint, pid int, segment int, starttime timestamp,
    endtime timestamp, s3_scanned_rows bigint, s3_scanned_bytes bigint);
CREATE VIEW svv_all_tables AS SELECT table_schema AS schema_name, table_name
    FROM information_schema.tables;
CREATE VIEW svv_all_columns AS SELECT table_schema AS schema_name, table_name, column_name
    FROM information_schema.columns;
CREATE FUNCTION pg_last_query_id() RETURNS bigint LANGUAGE sql AS
    $$ SELECT coalesce(current_setting('rs.last_query_id', true), '-1')::bigint $$;
"""


class Message(NamedTuple):
    """What a client has sent: its start-up's bytes under ``startup``, or a message by its letter."""

    kind: str
    body: bytes


class Redshift:
    """The stand-in; `host`, `port` and an account for it, and all that clients have sent."""

    def __init__(self, server: Server, database: str) -> None:
        self.host, self.port = "127.0.0.1", 0
        self.user, self.password, self.database = server.user, server.password, database
        self.messages: list[Message] = []
        self._server = server

    def direct(self) -> psycopg.Connection[Any]:
        """Connect past the proxy, as the test."""
        return psycopg.connect(
            host=self._server.host,
            port=self._server.port,
            user=self.user,
            password=self.password,
            dbname=self.database,
            autocommit=True,
        )

    def seed(self, table: str, *rows: Mapping[str, object]) -> None:
        """Put rows into one of the system tables."""
        with self.direct() as connection:
            for row in rows:
                connection.execute(
                    sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                        sql.Identifier(table),
                        sql.SQL(", ").join(map(sql.Identifier, row)),
                        sql.SQL(", ").join(sql.Placeholder() * len(row)),
                    ),
                    list(row.values()),
                )

    def clear(self) -> None:
        """Empty the system tables, and forget what was sent."""
        self.messages.clear()
        with self.direct() as connection:
            connection.execute(
                "TRUNCATE sys_query_history, sys_serverless_usage, svcs_concurrency_scaling_usage,"
                " svcs_s3query_summary"
            )

    def statements(self) -> list[str]:
        """Return the text of every statement that was parsed or asked for, in their order."""
        found: list[str] = []
        for kind, body in self.messages:
            if kind == "P":
                found.append(body.split(b"\0")[1].decode())
            elif kind == "Q":
                found.append(body.rstrip(b"\0").decode())
        return found

    def round_trips(self) -> int:
        """Return how often clients have waited for an answer."""
        return sum(kind in "QS" for kind, _ in self.messages)

    # -- the proxy ------------------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await _startup(reader)
        while _code(body) == SSL_REQUEST:
            writer.write(b"N")
            body = await _startup(reader)
        upstream, down = await asyncio.open_connection(self._server.host, self._server.port)
        try:
            if _code(body) == CANCEL_REQUEST:
                down.write(struct.pack(">I", len(body) + 4) + body)
                await down.drain()
                return
            self.messages.append(Message("startup", body))
            down.write(_accepted(body))
            own = b"\0driver_version\0" in body
            await asyncio.gather(_answers(upstream, writer, own), self._requests(reader, down))
        finally:
            down.close()

    async def _requests(self, reader: asyncio.StreamReader, down: asyncio.StreamWriter) -> None:
        try:
            while True:
                kind = await reader.readexactly(1)
                size = struct.unpack(">I", await reader.readexactly(4))[0]
                body = await reader.readexactly(size - 4)
                if kind != b"p":  # the password
                    self.messages.append(Message(kind.decode(), body))
                if kind in b"PQ":
                    body = body.replace(b"query_group", b"rs.query_group")
                    body = body.replace(b"pg_catalog.svv_", b"public.svv_")
                down.write(kind + struct.pack(">I", len(body) + 4) + body)
                await down.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            down.close()


def _code(body: bytes) -> int:
    code: int = struct.unpack(">I", body[:4])[0]
    return code


async def _startup(reader: asyncio.StreamReader) -> bytes:
    size = struct.unpack(">I", await reader.readexactly(4))[0]
    return await reader.readexactly(size - 4)


def _accepted(body: bytes) -> bytes:
    """Return the start-up as PostgreSQL takes it."""
    words = body[4:].rstrip(b"\0").split(b"\0")
    pairs = list(zip(words[::2], words[1::2], strict=False))
    kept = [pair for pair in pairs if pair[0].lower() in KNOWN]
    kept.append((b"rs.query_group", b"unset"))
    out = body[:4] + b"".join(b"%b\0%b\0" % pair for pair in kept) + b"\0"
    return struct.pack(">I", len(out) + 4) + out


async def _answers(upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, own: bool) -> None:
    """Pass on what the server says; `own` says that the client is Redshift's own driver."""
    try:
        announced = False
        while True:
            head = await upstream.readexactly(5)
            body = await upstream.readexactly(struct.unpack(">I", head[1:])[0] - 4)
            if head[:1] == b"S" and not announced:
                writer.write(_parameter(b"server_protocol_version", b"0"))
                announced = True
            if head[:1] == b"S" and body.startswith(b"server_version\0"):
                writer.write(_parameter(b"server_version", VERSION))
            elif own and head[:1] == b"R" and _code(body) == SASL:
                # That driver takes the list's end for the name of another mechanism.
                body = body.rstrip(b"\0") + b"\0"
                writer.write(b"R" + struct.pack(">I", len(body) + 4) + body)
            else:
                writer.write(head + body)
            await writer.drain()
            if head[:1] == b"Z":
                break
        while data := await upstream.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def _parameter(name: bytes, value: bytes) -> bytes:
    body = name + b"\0" + value + b"\0"
    return b"S" + struct.pack(">I", len(body) + 4) + body


@contextlib.contextmanager
def redshift(server: Server) -> Generator[Redshift]:
    """Run the proxy before `server`, over a database of its own."""
    database = f"redshift_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    found = Redshift(server, database)
    with found.direct() as connection:
        connection.execute(TABLES)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="redshift-proxy", daemon=True)
    thread.start()
    listening = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(found.serve, found.host, 0), loop
    ).result(10)
    found.port = listening.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        asyncio.run_coroutine_threadsafe(_close(listening), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database))
            )


async def _close(listening: asyncio.Server) -> None:
    listening.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)  # the transports' last callbacks
