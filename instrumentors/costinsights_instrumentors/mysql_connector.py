"""MySQL Connector/Python: every statement of its cursors, in pure Python, in C and asynchronous.

Measured: time in the driver, rows returned or affected, errors and cancellation. An
``executemany`` is one call, whatever it sends. Rows that an unbuffered cursor reads later, and
further results of the same call, complete the charge when the last has been read or the cursor is
closed. The connector's own OpenTelemetry wrapper above these cursors changes nothing.

Not seen: what a connection does without a cursor (``cmd_query``, ``info_query``, ``ping``,
``commit`` and ``rollback``), and a change of database by ``USE``: the charge names the database
that the connection was opened with. The rows of a stored procedure's results are not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage

if TYPE_CHECKING:
    from costinsights.patching import Kind

METHODS = {
    "execute": Hook("", statement=(1, "operation"), lazy=True),
    "executemany": Hook("", statement=(1, "operation"), batch=(2, "seq_params"), lazy=True),
    "callproc": Hook("", statement=(1, "procname"), prefix="CALL ", lazy=True),
    "nextset": Hook("", fetch="set"),
    "close": Hook("", fetch="close"),
    "fetchone": Hook("", fetch="one"),
    "fetchmany": Hook("", fetch="many"),
    "fetchall": Hook("", fetch="all"),
}
# What each kind of cursor does in a way of its own, and does not inherit.
CURSORS = {
    "": tuple(METHODS),
    "Prepared": tuple(name for name in METHODS if name != "nextset"),
    "PreparedDict": ("fetchmany",),
    "Dict": ("fetchone", "fetchall"),
    "Raw": ("fetchone", "fetchall"),
}
C_CURSORS = {
    "": CURSORS[""],
    "Prepared": CURSORS["Prepared"],
    "Dict": ("fetchone", "fetchmany", "fetchall"),
}


def _hooks(base: str, cursors: dict[str, tuple[str, ...]], kind: Kind = "call") -> list[Hook]:
    return [
        METHODS[name]._replace(target=f"mysql.connector.{base}{cursor}.{name}", kind=kind)
        for cursor, names in cursors.items()
        for name in names
    ]


class MySQLConnectorInstrumentor(DBAPIInstrumentor):
    name = "mysql_connector"
    system = "mysql"
    systems = ("mysql", "mariadb")
    verified = "MariaDB 10.11, real engine"
    driver = "mysql.connector"
    supports = ("9.3", "27")
    hooks = (
        *_hooks("cursor:MySQLCursor", CURSORS),
        *_hooks("cursor_cext:CMySQLCursor", C_CURSORS),
        *_hooks("aio.cursor:MySQLCursor", CURSORS, "async"),
    )
    facts: ClassVar = {"address": "server_host", "port": "server_port", "namespace": "_database"}

    def connection_of(self, instance: Any) -> Any:
        """Cursors hold a weak proxy of their connection, which tells whom it stands for."""
        return None if instance._connection is None else instance._connection.get_self()

    def system_of(self, connection: Any) -> str:
        """MariaDB says so in its version, which came with the server's greeting."""
        return "mariadb" if "MariaDB" in str(connection.server_info) else "mysql"

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        """Before its rows are read, a cursor still shows the count of its statement before."""
        connection = cursor._connection
        return None if connection.unread_result else super().usage(cursor, result)

    def unread(self, cursor: Any) -> bool | None:
        """Connections know what is left on the server, but the C one not of prepared statements."""
        prepared = getattr(cursor, "_stmt", None)
        if prepared is not None:
            return None if prepared.have_result_set else False
        connection = cursor._connection
        further = getattr(connection, "more_results", None) or connection.have_next_result
        return bool(connection.unread_result or further)
