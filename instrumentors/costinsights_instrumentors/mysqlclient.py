"""mysqlclient (MySQLdb): every statement of its cursors, buffered and unbuffered.

Measured: time in the driver, rows returned or affected, errors. An ``executemany`` is one call,
whatever it sends. Where rows, or further results of the same call, are still on the server when it
returns (`SSCursor`, several statements in one text, stored procedures), the charge is completed
when the last has been read or the cursor is closed.

Not seen: ``Connection.query`` called directly, ``ping``, ``commit`` and ``rollback``, and a change
of database by ``USE``: the charge names the database that the connection was opened with, which
mysqlclient tells from 2.2.7 on. Before 2.3 further results of the same call are not seen either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from costinsights.instrumentor import DBAPIInstrumentor, Hook

if TYPE_CHECKING:
    from costinsights.records import Resource

CURSOR = "MySQLdb.cursors:BaseCursor"
UNBUFFERED = "MySQLdb.cursors:CursorUseResultMixIn"


class MySQLClientInstrumentor(DBAPIInstrumentor):
    name = "mysqlclient"
    system = "mysql"
    systems = ("mysql", "mariadb")
    verified = "MariaDB 10.11, real engine"
    driver = "MySQLdb"
    supports = ("2.2", "3")
    hooks = (
        Hook(f"{CURSOR}.execute", lazy=True),
        Hook(f"{CURSOR}.executemany", batch=(2, "args"), lazy=True),
        Hook(f"{CURSOR}.callproc", statement=(1, "procname"), prefix="CALL ", lazy=True),
        Hook(f"{CURSOR}.nextset", fetch="set"),
        Hook(f"{CURSOR}.close", fetch="close"),
        Hook(f"{UNBUFFERED}.fetchone", fetch="one"),
        Hook(f"{UNBUFFERED}.fetchmany", fetch="many"),
        Hook(f"{UNBUFFERED}.fetchall", fetch="all"),
    )
    facts: ClassVar = {"address": "host", "port": "port", "namespace": "db"}

    def system_of(self, connection: Any) -> str:
        """MariaDB says so in its version, which came with the server's greeting."""
        return "mariadb" if "MariaDB" in connection.get_server_info() else "mysql"

    def resource(self, connection: Any) -> Resource:
        """Without a host of its own the connection still knows which one it leads to."""
        known = super().resource(connection)
        if known.address is not None:
            return known
        from msgspec.structs import replace

        return replace(known, address=connection.get_host_info().partition(" via ")[0])

    def unread(self, cursor: Any) -> bool | None:
        """An unbuffered result does not tell how far it has been read."""
        if cursor._result is not None:
            return None
        further = getattr(cursor.connection, "more_results", None)
        return further is not None and bool(further())
