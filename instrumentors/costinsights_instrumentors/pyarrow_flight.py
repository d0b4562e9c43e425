"""Plain Arrow Flight, as Dremio is asked with it: every stream of a `pyarrow.flight` client.

Measured: each ``do_get``, with the statement that its ticket was given for by ``get_flight_info``
(SQL as the bare command, or in a command of Flight SQL), the time until the stream has been read by
``read_all`` or ``read_pandas``, and its rows. The system is ``dremio`` where the host is of
dremio.cloud, or where a ``[[resource]]`` of the configuration says so; else it is ``other_sql``.

Not seen: a Dremio job's id (Flight does not give it: settlement finds a job by its statement and
time); rows that are read chunk by chunk, or by a reader that was made of the stream: such a charge
stays partial; the planning in ``get_flight_info``, and a statement that is refused there; ``do_put``
and actions; and where clients lead that were made before costinsights was switched on.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage, address_of

if TYPE_CHECKING:
    from types import ModuleType

    from costinsights.records import Resource

CLIENT = "pyarrow.flight:FlightClient"
STREAM = "pyarrow.flight:FlightStreamReader"
# How a command of Flight SQL begins, in the Any of Protocol Buffers that it travels in.
FLIGHT_SQL = b"type.googleapis.com/arrow.flight.protocol.sql."
STATEMENT = FLIGHT_SQL + b"CommandStatementQuery"
MOST_TICKETS = 1024


class PyArrowFlightInstrumentor(DBAPIInstrumentor):
    name = "pyarrow_flight"
    system = "other_sql"
    systems = ("dremio", "other_sql")
    driver = "pyarrow.flight"
    supports = ("12", "27")
    unlocks = True
    connection = ""
    hooks = (
        Hook(f"{CLIENT}.__init__", "connect", statement=None),
        Hook(f"{CLIENT}.get_flight_info", "connect", statement=None),
        Hook(f"{CLIENT}.do_get", statement=(1, "ticket"), prepares=True),
        Hook(f"{STREAM}.read_chunk", fetch="part"),
        Hook(f"{STREAM}.read_all", fetch="all"),
        Hook(f"{STREAM}.cancel", fetch="close"),
    )
    verified = "emulator: unmodified pyarrow 26 over gRPC"

    def __init__(self) -> None:
        super().__init__()
        self._places: WeakKeyDictionary[Any, tuple[str | None, int | None]] = WeakKeyDictionary()
        self._statements: OrderedDict[bytes, str] = OrderedDict()

    def version(self, driver: ModuleType) -> str | None:
        """Flight has the version of Arrow."""
        found = getattr(sys.modules.get("pyarrow"), "__version__", None)
        return found if isinstance(found, str) else None

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Remember where a client leads; and of what statement a ticket is."""
        client, *given = args
        if result is None:
            location: Any = given[0] if given else kwargs.get("location", "")
            uri = getattr(location, "uri", location)
            if isinstance(location, tuple):  # host and port, as older versions take them
                uri = f"grpc://{location[0]}:{location[1]}"
            self._places[client] = address_of(uri.decode() if isinstance(uri, bytes) else uri)
            return
        descriptor: Any = given[0] if given else kwargs.get("descriptor")
        text = statement_in(getattr(descriptor, "command", None))
        for endpoint in result.endpoints if text else ():
            self._statements[endpoint.ticket.ticket] = text or ""
            if len(self._statements) > MOST_TICKETS:
                self._statements.popitem(last=False)

    def text(self, query: Any, cursor: Any) -> str | None:
        """Give the statement that a ticket is for."""
        return self._statements.get(query.ticket)

    def resource(self, connection: Any) -> Resource:
        """Give host and port of the location."""
        from costinsights.records import Resource

        return Resource(*self._places.get(connection, (None, None)))

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        """Nothing is known of a stream before it has been read."""
        return None

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """A stream is still to be read, all of it."""
        return True


def statement_in(command: bytes | None) -> str | None:
    """Return the statement of a command; None where it has none."""
    if not command:
        return None
    start = command.find(STATEMENT)
    if start >= 0:
        # The query is the first field of the message that stands behind the type's name.
        rest = command[start + len(STATEMENT) :]
        at = _past_number(rest, _past_number(rest, 1) + 1)
        size = _number(rest, _past_number(rest, 1) + 1)
        return rest[at : at + size].decode("utf-8", "replace")
    return None if FLIGHT_SQL in command else command.decode("utf-8", "replace")


def _number(message: bytes, at: int) -> int:
    value = shift = 0
    while True:
        value |= (message[at] & 127) << shift
        if message[at] < 128:
            return value
        at, shift = at + 1, shift + 7


def _past_number(message: bytes, at: int) -> int:
    while message[at] > 127:
        at += 1
    return at + 1
