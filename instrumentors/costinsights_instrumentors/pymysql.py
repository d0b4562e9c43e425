"""PyMySQL: every statement of its cursors, buffered and unbuffered.

Measured: time in the driver, rows returned or affected, errors. An ``executemany`` is one call,
whatever it sends. Where rows, or further results of the same call, are still on the server when it
returns (`SSCursor`, several statements in one text, stored procedures), the charge is completed
when the last has been read or the cursor is closed.

Not seen: ``Connection.query`` called directly, ``ping``, ``commit`` and ``rollback``, rows passed
over by an unbuffered ``scroll``, and a change of database by ``USE``: the charge names the database
that the connection was opened with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from costinsights.instrumentor import DBAPIInstrumentor, Hook

if TYPE_CHECKING:
    from types import ModuleType

CURSOR = "pymysql.cursors:Cursor"
UNBUFFERED = "pymysql.cursors:SSCursor"


class PyMySQLInstrumentor(DBAPIInstrumentor):
    name = "pymysql"
    system = "mysql"
    systems = ("mysql", "mariadb")
    verified = "MariaDB 10.11, real engine"
    driver = "pymysql"
    supports = ("1.0", "2")
    hooks = (
        Hook(f"{CURSOR}.execute", lazy=True),
        Hook(f"{CURSOR}.executemany", batch=(2, "args"), lazy=True),
        Hook(f"{CURSOR}.callproc", statement=(1, "procname"), prefix="CALL ", lazy=True),
        Hook(f"{CURSOR}.nextset", fetch="set"),
        Hook(f"{CURSOR}.close", fetch="close"),
        Hook(f"{UNBUFFERED}.fetchone", fetch="one"),
        Hook(f"{UNBUFFERED}.fetchmany", fetch="many"),
        Hook(f"{UNBUFFERED}.fetchall", fetch="all"),
        Hook(f"{UNBUFFERED}.nextset", fetch="set"),
        Hook(f"{UNBUFFERED}.close", fetch="close"),
        Hook(f"{UNBUFFERED}.__del__", fetch="close"),
    )
    facts: ClassVar = {"address": "host", "port": "port", "namespace": "db"}
    application = "program_name"
    channel = "program_name at connect"
    naming = (Hook("pymysql.connections:Connection.__init__", "connect", statement=None),)

    def known_as(self, connection: Any) -> str | None:
        """Return what was sent to the server with the password."""
        sent: dict[str, str] = connection._connect_attrs
        return sent.get("program_name")

    def version(self, driver: ModuleType) -> str | None:
        """What everybody else calls its version is that of the mysqlclient it stands in for."""
        return getattr(driver, "VERSION_STRING", None)

    def system_of(self, connection: Any) -> str:
        """MariaDB says so in its version."""
        return "mariadb" if "MariaDB" in str(getattr(connection, "server_version", "")) else "mysql"

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """It always tells."""
        return self.unread(cursor)

    def unread(self, cursor: Any) -> bool:
        """Only of an unbuffered result, or one with others behind it, is anything left to read."""
        result = cursor._result
        return result is not None and bool(result.unbuffered_active or result.has_next)
