"""psycopg2: every statement of its cursors, whatever class of cursor or connection is asked for.

Measured: time in the driver, rows returned or affected, errors. An ``executemany``, and a call of
``extras.execute_values`` or ``execute_batch``, is one call, whatever it sends; the rows of such a
call are unknown where it sent several statements. A named cursor brings its rows while it is read:
its charge is written when ``execute`` returns and completed when it is exhausted or closed.
``copy_expert``, ``copy_from`` and ``copy_to`` include the time that the file takes.

Connections opened before are seen too: the C types are hooked in place where Python lets us (on
CPython it does). A named cursor is then of a subclass of the class that was asked for, so that the
rows of all others cost nothing more. Where Python does not let us, connections and cursors are of
such subclasses, and those opened before, or made by a function instead of a class, are not seen.

Not seen: ``commit`` and ``rollback``, large objects, replication, and of an asynchronous connection
(``async_=True``) the time until ``poll`` is through. For a Unix socket the address is the socket's
directory.
"""

from __future__ import annotations

from typing import Any, ClassVar

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Makes

CONNECTION = "psycopg2.extensions:connection"
CURSOR = "psycopg2.extensions:cursor"


def count(_: object, result: Any) -> int | None:
    """Count the rows that were asked for; the cursor knows only of the last statement."""
    return None if result is None else len(result)


class Psycopg2Instrumentor(DBAPIInstrumentor):
    name = "psycopg2"
    system = "postgresql"
    systems = ("postgresql", "aws.redshift")
    verified = "PostgreSQL, real engine"
    driver = "psycopg2"
    supports = ("2.9", "3")
    unlocks = True
    hooks = (
        # `connect` calls this one: whoever has imported `connect` before is seen too.
        Hook(
            "psycopg2:_connect",
            "factory",
            makes=Makes(CONNECTION, (1, "connection_factory"), none=True),
        ),
        Hook(
            f"{CONNECTION}.cursor",
            "factory",
            makes=Makes(CURSOR, (2, "cursor_factory"), True, "cursor_factory", fetches=(1, "name")),
        ),
        Hook(f"{CURSOR}.execute", lazy=True, leaf=True),
        Hook(f"{CURSOR}.executemany", batch=(2, "vars_list"), leaf=True),
        Hook(f"{CURSOR}.callproc", statement=(1, "procname"), prefix="CALL ", leaf=True),
        Hook(f"{CURSOR}.copy_expert", statement=(1, "sql"), leaf=True),
        Hook(f"{CURSOR}.copy_from", statement=(2, "table"), prefix="COPY ", leaf=True),
        Hook(f"{CURSOR}.copy_to", statement=(2, "table"), prefix="COPY ", leaf=True),
        Hook(f"{CURSOR}.fetchone", fetch="one", leaf=True),
        Hook(f"{CURSOR}.fetchmany", fetch="many", leaf=True),
        Hook(f"{CURSOR}.fetchall", fetch="all", leaf=True),
        Hook(f"{CURSOR}.__next__", fetch="next", leaf=True),
        Hook(f"{CURSOR}.scroll", fetch="part", leaf=True),
        Hook(f"{CURSOR}.close", fetch="close", leaf=True),
        *(
            Hook(f"psycopg2.extras:{name}", statement=(1, "sql"), batch=(2, "argslist"), rows=count)
            for name in ("execute_values", "execute_batch")
        ),
    )
    facts: ClassVar = {"address": "info.host", "port": "info.port", "namespace": "info.dbname"}

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """Only a named cursor still has rows on the server when `execute` returns."""
        return cursor.name is not None

    def text(self, query: Any, cursor: Any) -> str | None:
        """Put composed queries together without their literals, which would be redacted anyway."""
        from psycopg2 import sql

        if isinstance(query, sql.Composed):
            return "".join(self.text(part, cursor) or "?" for part in query.seq)
        if isinstance(query, sql.Identifier):
            return ".".join('"{}"'.format(name.replace('"', '""')) for name in query.strings)
        if isinstance(query, sql.SQL):
            return query.string
        if isinstance(query, sql.Placeholder):
            return "%s" if query.name is None else f"%({query.name})s"
        return super().text(query, cursor)
