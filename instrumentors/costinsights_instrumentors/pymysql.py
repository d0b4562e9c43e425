"""PyMySQL: every statement of its cursors, buffered and unbuffered.

Measured: time in the driver, rows returned or affected, errors. An ``executemany`` is one call,
whatever it sends. `SSCursor` brings its rows while they are fetched: its charge is completed when
the last row has been read or the cursor is closed.

Not seen: ``Connection.query`` called directly, ``ping``, ``commit`` and ``rollback``, and a
change of database by ``USE``: the charge names the database that the connection was opened with.
"""

from __future__ import annotations

from typing import Any

from costinsights.instrumentor import DBAPIInstrumentor, Hook

CURSOR = "pymysql.cursors:Cursor"
UNBUFFERED = "pymysql.cursors:SSCursor"


class PyMySQLInstrumentor(DBAPIInstrumentor):
    name = "pymysql"
    system = "mysql"
    driver = "pymysql"
    supports = ("1.0", "2")
    hooks = (
        Hook(f"{CURSOR}.execute", lazy=True),
        Hook(f"{CURSOR}.executemany", batch=(2, "args")),
        Hook(f"{CURSOR}.callproc", statement=(1, "procname"), operation="CALL", lazy=True),
        Hook(f"{UNBUFFERED}.fetchone", fetch="one"),
        Hook(f"{UNBUFFERED}.fetchmany", fetch="many"),
        Hook(f"{UNBUFFERED}.fetchall", fetch="all"),
        Hook(f"{UNBUFFERED}.close", fetch="close"),
    )
    facts = {"address": "host", "port": "port", "namespace": "db"}

    def system_of(self, connection: Any) -> str:
        """MariaDB says so in its version."""
        return "mariadb" if "MariaDB" in str(getattr(connection, "server_version", "")) else "mysql"

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """Only an unbuffered result still has rows on the server when the call returns."""
        return bool(getattr(getattr(cursor, "_result", None), "unbuffered_active", False))
