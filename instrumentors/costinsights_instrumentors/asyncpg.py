"""asyncpg: every statement of its connections, prepared statements, cursors and pools.

Measured: time in the driver, rows returned or affected, errors, cancellation and timeouts; of
connections opened earlier too. An ``executemany`` or ``fetchmany`` is one call, whatever it sends.
A cursor brings its rows while it is read: its charge is written when the statement is bound and
completed when the last row has come or the cursor is dropped. ``fetchval`` and ``fetchrow`` ask for
one row; whether there was one is unknown where ``fetchval`` returns None. A connection's ``fetch``
counts the rows returned, which an ``UPDATE`` without ``RETURNING`` has none of. A copy includes the
time that its source or destination takes.

``BEGIN``, ``COMMIT`` and what a pool sends to reset a connection are statements, because asyncpg
runs them as such.

Not seen: the preparing of a statement and the look-ups of types before its first use, outside of a
call that is measured; ``reset_type_codec`` and the like; waiting for a connection of the pool. For
a Unix socket the address is the socket's directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import DBAPIInstrumentor, Hook

if TYPE_CHECKING:
    from costinsights.records import Resource

CONNECTION = "asyncpg.connection:Connection"
PREPARED = "asyncpg.prepared_stmt:PreparedStatement"
CURSOR = "asyncpg.cursor:BaseCursor"


def returned(_: object, result: Any) -> int | None:
    """Count the rows of a result; an ``executemany`` has none to count."""
    return None if result is None else len(result)


def prepared(statement: Any, result: Any) -> int | None:
    """Count what came back or, where nothing is returned, what the statement affected."""
    known = statement._last_status
    return len(result) if result or known is None else status(None, known.decode())


def nothing(_: object, __: object) -> None:
    """Count no rows: none has been asked for yet."""


def row(_: object, result: Any) -> int:
    """Count the one row that there may be."""
    return 0 if result is None else 1


def value(_: object, result: Any) -> int | None:
    """Count the row of a value; None may be its value or say that there is no row."""
    return None if result is None else 1


def status(_: object, result: Any) -> int | None:
    """Read the count at the end of a command's status, such as ``INSERT 0 3``."""
    last = str(result).rpartition(" ")[2]
    return int(last) if last.isdecimal() else None


class AsyncpgInstrumentor(DBAPIInstrumentor):
    name = "asyncpg"
    system = "postgresql"
    verified = "PostgreSQL, real engine"
    driver = "asyncpg"
    supports = ("0.29", "1")
    hooks = (
        Hook(f"{CONNECTION}.execute", "async", rows=status),
        Hook(f"{CONNECTION}.executemany", "async", (1, "command"), (2, "args"), rows=returned),
        Hook(f"{CONNECTION}.fetch", "async", rows=returned),
        Hook(f"{CONNECTION}.fetchrow", "async", rows=row),
        Hook(f"{CONNECTION}.fetchval", "async", rows=value),
        Hook(f"{CONNECTION}.fetchmany", "async", batch=(2, "args"), rows=returned, optional=True),
        Hook(f"{CONNECTION}.copy_from_query", "async", operation="COPY", rows=status),
        *(
            Hook(f"{CONNECTION}.{name}", "async", (1, "table_name"), prefix="COPY ", rows=status)
            for name in ("copy_from_table", "copy_to_table", "copy_records_to_table")
        ),
        # A prepared statement knows its text, and so does a cursor.
        Hook(f"{PREPARED}.fetch", "async", (0, ""), rows=prepared),
        Hook(f"{PREPARED}.fetchrow", "async", (0, ""), rows=row),
        Hook(f"{PREPARED}.fetchval", "async", (0, ""), rows=value),
        Hook(f"{PREPARED}.fetchmany", "async", (0, ""), (1, "args"), rows=returned, optional=True),
        Hook(f"{PREPARED}.executemany", "async", (0, ""), (1, "args"), rows=returned),
        Hook(f"{CURSOR}._bind", "async", (0, ""), rows=nothing, lazy=True),
        Hook(f"{CURSOR}._bind_exec", "async", (0, ""), rows=returned, lazy=True),
        Hook(f"{CURSOR}._exec", "async", fetch="page"),
        Hook("asyncpg.cursor:Cursor.forward", "async", fetch="part"),
        Hook(f"{CURSOR}.__del__", fetch="close"),
    )

    def connection_of(self, instance: Any) -> Any:
        """Of a connection that is itself, of all else the one that it was made on."""
        return getattr(instance, "_connection", instance)

    def resource(self, connection: Any) -> Resource:
        """Split the path of a Unix socket as libpq does, into its directory and its port."""
        from costinsights.hosts import led
        from costinsights.records import Resource

        address = connection._addr
        if isinstance(address, str):
            address = address.rsplit("/.s.PGSQL.", 1)
        host, port = (*address, None)[:2]
        database = connection._params.database
        return Resource(led(host), int(port) if port is not None else None, database)

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """A cursor says when its last row has come."""
        return not cursor._exhausted

    def text(self, query: Any, cursor: Any) -> str | None:
        """Return the text that a prepared statement or a cursor was made from."""
        return super().text(getattr(query, "_query", query), cursor)
