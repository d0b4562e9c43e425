"""psycopg 3: every statement of its cursors, in whichever of its many ways it is run.

Measured: time in the driver, rows returned or affected, errors and cancellation; of plain,
client-side, raw and server-side cursors, synchronous and asynchronous, of connections and pools,
those opened earlier included. An ``executemany`` is one call, and so is a text of several
statements: all their results count.

- A server-side cursor brings its rows while it is read, and a pipeline its answers when it waits
  for them. The charge is written when the call returns and completed when the last row or answer
  has come, or the cursor is closed. What a pipeline waits counts for the statement whose answer
  comes next; a server that holds its answers back lets that be the first of several.
- ``stream`` is completed when it has been read, or is left.
- ``copy`` is one call. The time that the program takes between its reads and writes is not counted,
  nor is the driver's formatting of rows before it sends them.

Not seen: what psycopg sends of its own accord (``BEGIN``, ``COMMIT``, ``ROLLBACK``, savepoints,
look-ups of types, a pool's checks), ``Connection.notifies``, and what is done with
``connection.pgconn``. For a Unix socket the address is the socket's directory.
"""

from __future__ import annotations

import os
from itertools import takewhile
from typing import TYPE_CHECKING, Any, ClassVar

from costinsights.instrumentor import DBAPIInstrumentor, Hook

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costinsights.patching import Kind


def count(cursor: Any, _: object) -> int | None:
    """Count the rows of all results of a call; None when there is no count."""
    if len(cursor._results) > 1:
        return count_answer(cursor, cursor._results)
    rows: int = cursor._rowcount
    return rows if rows >= 0 else None


def count_answer(_: object, results: Any) -> int | None:
    """Count the rows that results brought, or that their statements affected."""
    counts = [result.command_tuples for result in results]
    return sum(rows or 0 for rows in counts) if counts != [None] * len(counts) else None


def hooks(a: str, call: Kind, generator: Kind, context: Kind) -> tuple[Hook, ...]:
    """Return the hooks of the synchronous classes or, with "Async", of their twins."""
    cursor, server, pipeline = (
        f"psycopg:{a}{name}" for name in ("Cursor", "ServerCursor", "Pipeline")
    )
    return (
        Hook(f"{cursor}.execute", call, rows=count, deferred=True, leaf=True),
        Hook(f"{cursor}.executemany", call, batch=(2, "params_seq"), rows=count, deferred=True),
        Hook(f"{cursor}.stream", generator),
        Hook(f"{cursor}.copy", context, statement=(1, "statement")),
        Hook(f"psycopg:{a}Copy.read", call, fetch="part", of="cursor"),
        Hook(f"psycopg:{a}Copy.read_row", call, fetch="part", of="cursor"),
        Hook(f"psycopg.copy:{a}LibpqWriter.write", call, fetch="part", of="cursor"),
        Hook(f"{server}.execute", call, lazy=True),
        Hook(f"{server}._fetch_gen", "generator", fetch="page"),
        Hook(f"{server}.scroll", call, fetch="part"),
        Hook(f"{server}.close", call, fetch="close"),
        Hook(f"{pipeline}._fetch_gen", "generator", fetch="waiting"),
        Hook(f"{pipeline}._process_results", fetch="arrival", rows=count_answer),
    )


class PsycopgInstrumentor(DBAPIInstrumentor):
    name = "psycopg"
    system = "postgresql"
    systems = ("postgresql", "aws.redshift")
    verified = "PostgreSQL, real engine"
    driver = "psycopg"
    supports = ("3.1", "4")
    hooks = (
        *hooks("", "call", "generator", "context"),
        *hooks("Async", "async", "async_generator", "async_context"),
    )
    application = "application_name"
    channel = "application_name at connect"
    naming = tuple(
        Hook(f"psycopg:{target}", "connect", statement=None)
        for target in ("connect", "Connection.connect", "AsyncConnection.connect")
    )
    connection = "_conn"
    facts: ClassVar = {"address": "info.host", "port": "info.port", "namespace": "info.dbname"}

    def own_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Read the connection string as the driver will, and the environment behind it."""
        from psycopg.conninfo import conninfo_to_dict

        string = kwargs.get("conninfo") or next((arg for arg in args if isinstance(arg, str)), "")
        given = conninfo_to_dict(string)
        if kwargs.get("service") or given.get("service") or os.environ.get("PGSERVICE"):
            raise LookupError("a service file may name the program, and only libpq can read it")
        name = kwargs.get("application_name") or given.get("application_name")
        return str(name) if name else os.environ.get("PGAPPNAME")

    def known_as(self, connection: Any) -> str | None:
        """Return what the server last said: it reports a change by ``SET`` as well."""
        name: str | None = connection.info.parameter_status("application_name")
        return name

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """A server-side cursor is only declared when `execute` returns."""
        return True

    def owed(self, cursor: Any) -> Iterable[object]:
        """Give the end of the pipeline's queue, which holds one entry an answer."""
        pipeline = cursor._conn._pipeline
        if pipeline is None:  # as nearly always
            return ()
        # None is the answer to something of the pipeline's own.

        def is_mine(entry: Any) -> bool:
            return entry[0] is cursor

        return takewhile(is_mine, filter(None, reversed(pipeline.result_queue)))

    def next_answer(self, source: Any) -> object:
        """Return the pipeline's first entry that is a statement's."""
        return next((entry for entry in source.result_queue if entry is not None), None)

    def text(self, query: Any, cursor: Any) -> str | None:
        """Put composed queries together without their literals, which would be redacted anyway."""
        from psycopg import sql

        if isinstance(query, sql.Composed):
            return "".join(self.text(part, cursor) or "?" for part in query)
        if isinstance(query, sql.Identifier):
            names: tuple[str, ...] = vars(query)["_obj"]
            return ".".join(quoted(name) for name in names)
        if isinstance(query, (sql.SQL, sql.Placeholder)):
            return query.as_string(None)
        if hasattr(query, "interpolations"):  # a template string
            return "".join(self._part(part, cursor) for part in query)
        return super().text(query, cursor)

    def _part(self, part: Any, cursor: Any) -> str:
        if isinstance(part, str):
            return part
        if part.format_spec == "i" and isinstance(part.value, str):
            return quoted(part.value)
        nested = part.format_spec in ("i", "q") or hasattr(part.value, "as_string")
        return (self.text(part.value, cursor) if nested else None) or "?"


def quoted(name: str) -> str:
    """Write an identifier as PostgreSQL does."""
    return '"{}"'.format(name.replace('"', '""'))
