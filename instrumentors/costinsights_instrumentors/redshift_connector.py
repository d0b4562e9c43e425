"""redshift_connector: every statement of its cursors, on a provisioned cluster or serverless.

Measured: time in the driver, rows returned or affected, errors; of connections opened earlier too.
The driver reads all rows before ``execute`` returns, so the charge is whole then. The
``BEGIN`` that it sends before the first statement of a transaction is part of that statement. An
``executemany`` is one call, whatever it sends; ``write_dataframe`` is two, its look-up of the table
and its insert, and ``insert_data_bulk`` one a batch, as many as it sends.

The host's name is known where TLS checks it (the driver's default), and for connections opened
while we looked on; of any other the address that it led to.

With ``COSTINSIGHTS_REDSHIFT_QUERY_ID=1`` every statement is followed by
``SELECT pg_last_query_id()`` on the same connection: a round trip each. Its answer is the charge's
``vendor_id``. It is -1 or an older query's where the leader node answered alone or from its cache,
and nobody says that it is the ``query_id`` of ``SYS_QUERY_HISTORY``.

Not seen: ``commit``, ``rollback`` and the ``tpc_`` methods.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from costinsights.guard import suppressed
from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.recorder import Recorder
    from costinsights.records import Resource

CURSOR = "redshift_connector.cursor:Cursor"
OPERATION = (1, "operation")
MAX_HOSTS = 1024


class RedshiftConnectorInstrumentor(DBAPIInstrumentor):
    name = "redshift_connector"
    system = "aws.redshift"
    driver = "redshift_connector"
    supports = ("2.1", "3")
    verified = "emulator: PostgreSQL behind a start-up proxy"
    channel = "query_group, by `costinsights.query_group`"
    connection = "_c"  # of `connection` the driver warns
    hooks = (
        # While a connection is made; a frame around its `__init__` would change its default name.
        Hook(
            "redshift_connector.core:Connection._Connection__get_host_address_info",
            "connect",
            statement=None,
        ),
        Hook(f"{CURSOR}.execute", statement=OPERATION, leaf=True),
        Hook(f"{CURSOR}.executemany", statement=OPERATION, batch=(2, "param_sets")),
        Hook(f"{CURSOR}.callproc", statement=(1, "procname"), prefix="CALL "),
    )

    def __init__(self) -> None:
        super().__init__()
        self.asks = False
        self.hosts: dict[object, str] = {}

    def instrument(self, recorder: Callable[[], Recorder], *, explicit: bool = False) -> None:
        """Look whether each statement's id is to be asked for."""
        self.asks = os.environ.get("COSTINSIGHTS_REDSHIFT_QUERY_ID") == "1"
        super().instrument(recorder, explicit=explicit)

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Remember which name led to an address: the driver keeps neither."""
        if len(self.hosts) >= MAX_HOSTS:
            self.hosts.clear()
        self.hosts[result] = args[0] if args else kwargs["host"]

    def resource(self, connection: Any) -> Resource:
        """Ask the socket: for its name where TLS knows it, else for the address it leads to."""
        from costinsights.records import Resource

        socket = connection._usock
        try:
            peer: Any = socket.getpeername()
        except OSError:  # it is closed
            peer = None
        address, port = (peer[0], peer[1]) if peer.__class__ is tuple else (peer or None, None)
        name = getattr(socket, "server_hostname", None) or self.hosts.get(peer)
        return Resource(name or address, port, connection._database)

    def usage(self, cursor: Any, result: Any) -> Usage:
        """Count as the driver does where the server does not say how many rows a SELECT had."""
        rows = cursor.redshift_rowcount
        return Usage(rows if rows >= 0 else None, None, (self.asks and query_id(cursor._c)) or None)


def query_id(connection: Any) -> str | None:
    """Ask the session for the id of its last query; None where there is none, or no transaction."""
    if not (connection.autocommit or connection.in_transaction):
        return None  # after a commit: asking would open another transaction
    with suppressed(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_last_query_id()")
        found = cursor.fetchone()[0]
    return str(found) if found >= 0 else None
