"""pymssql: every statement of its cursors, procedures by ``callproc`` and ``bulk_copy``.

Measured: time in the driver, rows returned or affected, errors and cancellation; an ``executemany``
is one call, in batches or not. Rows are counted while they are read: the charge is completed with
the last one, or when the cursor is closed, dropped or used again. A host name of Azure's makes the
system Azure SQL or Synapse.

Not seen: ``commit`` and ``rollback``; results behind the first one of a call; what is sent by ``_mssql`` directly. What the server says beside the rows, pymssql
shows to a handler only, and that is the program's: what a serverless pool of Synapse has processed
comes with settlement. Of a connection that was made before we looked on, nobody knows the host.
"""

from __future__ import annotations

from typing import Any

from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights_instrumentors._tds import Place, TDSInstrumentor, cursor_hooks

CONNECTION, CURSOR = "pymssql._pymssql:Connection", "pymssql._pymssql:Cursor"
# The arguments of `connect`, in their order, as far as they say where it leads.
ARGUMENTS = (
    "server user password database timeout login_timeout charset as_dict host appname port".split()
)


def _nobody_says(_: Any, __: Any) -> int | None:
    return None


class PyMSSQLInstrumentor(TDSInstrumentor):
    name = "pymssql"
    driver = "pymssql"
    supports = ("2.2", "3")
    unlocks = True
    types = CURSOR
    # What the server says goes to the program's handler, so there are no messages to read.
    meters = ()
    usage, source, final = (
        DBAPIInstrumentor.usage,
        DBAPIInstrumentor.source,
        DBAPIInstrumentor.final,
    )
    application = "appname"
    channel = "appname at connect"
    verified = "emulator: TDS server"
    hooks = (
        Hook("pymssql:connect", "connect", statement=None),
        Hook("pymssql._pymssql:connect", "connect", statement=None),
        *cursor_hooks(CURSOR, (1, "operation"), leaf=True),
        Hook(f"{CURSOR}.executemany", statement=(1, "operation"), batch=(2, "seq_of_parameters")),
        Hook(f"{CURSOR}.callproc", statement=(1, "procname"), prefix="EXEC ", lazy=True, leaf=True),
        Hook(f"{CURSOR}.__next__", fetch="next", leaf=True),
        Hook(
            f"{CONNECTION}.bulk_copy",
            statement=(1, "table_name"),
            prefix="INSERT BULK ",
            batch=(2, "elements"),
            rows=_nobody_says,
            leaf=True,
        ),
    )

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Remember where a new connection leads."""
        given = {**dict(zip(ARGUMENTS, args, strict=False)), **kwargs}
        server, port = given.get("host") or given.get("server", "."), given.get("port", "1433")
        name = given.get("appname")
        self.places[id(result)] = Place(server, port, given.get("database"), application=name)

    def own_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return the keyword's value; a name by position stays as it is."""
        if len(args) > ARGUMENTS.index("appname"):
            raise LookupError("the name is given by position")
        return kwargs.get("appname")

    def known_as(self, connection: Place) -> str | None:
        """Return the name that was given when the connection was made."""
        return connection.application

    def has_further(self, cursor: Any) -> bool | None:
        """Behind the last result a cursor looks as it did before."""
        return None

    def connection_of(self, instance: Any) -> Place:
        """Return what stands for a cursor's connection, or for a connection."""
        connection = getattr(instance, "connection", instance)
        return self.places.get(id(connection)) or Place()
