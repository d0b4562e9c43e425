"""aiomysql: every statement of its cursors, of a connection or of a pool's, awaited to the end.

Measured: time in the driver (that of other tasks in between included, as the call sees it), rows
returned or affected, errors and cancellation. An ``executemany`` is one call, whatever it sends.
Where rows, or further results of the same call, are still on the server when it returns
(`SSCursor`, several statements in one text, stored procedures), the charge is completed when the
last has been read or the cursor is closed.

Not seen: ``Connection.query`` awaited directly, ``ping``, ``commit`` and ``rollback``, rows passed
over by an unbuffered ``scroll``, and a change of database by ``USE``: the charge names the database
that the connection was opened with.
"""

from __future__ import annotations

from typing import Any, ClassVar

from costinsights.instrumentor import DBAPIInstrumentor, Hook

CURSOR = "aiomysql.cursors:Cursor"
UNBUFFERED = "aiomysql.cursors:SSCursor"


class AiomysqlInstrumentor(DBAPIInstrumentor):
    name = "aiomysql"
    system = "mysql"
    systems = ("mysql", "mariadb")
    verified = "MariaDB 10.11, real engine"
    driver = "aiomysql"
    supports = ("0.2", "1")
    hooks = (
        Hook(f"{CURSOR}.execute", "async", lazy=True),
        Hook(f"{CURSOR}.executemany", "async", batch=(2, "args"), lazy=True),
        Hook(f"{CURSOR}.callproc", "async", statement=(1, "procname"), prefix="CALL ", lazy=True),
        Hook(f"{CURSOR}.nextset", "async", fetch="set"),
        Hook(f"{CURSOR}.close", "async", fetch="close"),
        Hook(f"{UNBUFFERED}.fetchone", "async", fetch="one"),
        Hook(f"{UNBUFFERED}.fetchmany", "async", fetch="many"),
        Hook(f"{UNBUFFERED}.fetchall", "async", fetch="all"),
        Hook(f"{UNBUFFERED}.close", "async", fetch="close"),
    )
    facts: ClassVar = {"address": "host", "port": "port", "namespace": "db"}

    def system_of(self, connection: Any) -> str:
        """MariaDB says so in its version."""
        return "mariadb" if "MariaDB" in str(getattr(connection, "server_version", "")) else "mysql"

    def unread(self, cursor: Any) -> bool:
        """Only of an unbuffered result, or one with others behind it, is anything left to read."""
        result = cursor._result
        return result is not None and bool(result.unbuffered_active or result.has_next)
