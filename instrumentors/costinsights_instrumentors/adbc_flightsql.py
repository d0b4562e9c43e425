"""ADBC to Flight SQL servers, Dremio above all: every statement of the DB-API's cursors.

Measured: time in the driver, rows fetched or changed, errors. A result comes while it is fetched,
so the charge is completed when it has been read to its end, or the cursor is closed. The system is
``dremio`` where the host is of dremio.cloud, or where a ``[[resource]]`` of the configuration says
so; any other server is ``other_sql``: to ask one for its name would be a request.

Not seen: a Dremio job's id (Flight SQL does not give it: settlement finds a job by its statement
and time), what an Arrow reader does after it was handed out (``fetch_record_batch``,
``fetch_arrow``), preparing, lists of tables, ``adbc_get_info``, and connections that were opened
before costinsights was switched on: their statements are charges without a host. ADBC's cursors are
one class for all its drivers, so once this one is imported those of others are charges of
``other_sql`` too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage, address_of, rowcount

if TYPE_CHECKING:
    from types import ModuleType

    from costinsights.records import Resource

CURSOR = "adbc_driver_manager.dbapi:Cursor"
WHOLE = ("fetchall", "fetch_arrow_table", "fetch_df", "fetch_polars", "fetch_record_batch")


class ADBCFlightSQLInstrumentor(DBAPIInstrumentor):
    name = "adbc_flightsql"
    system = "other_sql"
    systems = ("dremio", "other_sql")
    driver = "adbc_driver_flightsql.dbapi"
    supports = ("1.0", "2")
    hooks = (
        Hook("adbc_driver_flightsql.dbapi:connect", "connect", statement=None),
        Hook("adbc_driver_manager.dbapi:connect", "connect", statement=None),
        Hook(f"{CURSOR}.execute", statement=(1, "operation"), lazy=True),
        Hook(f"{CURSOR}.executemany", statement=(1, "operation"), batch=(2, "seq_of_parameters")),
        Hook(f"{CURSOR}.executescript", statement=(1, "operation"), optional=True),
        Hook(f"{CURSOR}.adbc_execute_partitions", statement=(1, "operation"), optional=True),
        Hook(f"{CURSOR}.adbc_ingest", statement=None, operation="INGEST", optional=True),
        Hook(f"{CURSOR}.fetchone", fetch="one"),
        Hook(f"{CURSOR}.fetchmany", fetch="many"),
        *(Hook(f"{CURSOR}.{name}", fetch="all", optional=True) for name in WHOLE),
        Hook(f"{CURSOR}.fetch_arrow", fetch="all", optional=True),
        Hook(f"{CURSOR}.close", fetch="close"),
    )
    verified = "emulator: unmodified adbc-driver-flightsql 1.13 over gRPC"

    def __init__(self) -> None:
        super().__init__()
        self._places: WeakKeyDictionary[Any, tuple[str | None, int | None]] = WeakKeyDictionary()

    def version(self, driver: ModuleType) -> str | None:
        """The DB-API's module has no version, its package has."""
        import adbc_driver_flightsql

        found = getattr(adbc_driver_flightsql, "__version__", None)
        return found if isinstance(found, str) else None

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Remember where a connection leads; all else in it is nobody's business."""
        options: dict[str, Any] = kwargs.get("db_kwargs") or {}
        given: list[object] = [*args, kwargs.get("uri"), options.get("uri")]
        uri = next((text for text in given if isinstance(text, str) and "://" in text), "")
        self._places[result] = address_of(uri)

    def resource(self, connection: Any) -> Resource:
        """Give host and port of the URI."""
        from costinsights.records import Resource

        return Resource(*self._places.get(connection, (None, None)))

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        """Of what leaves rows to fetch, those count that are fetched."""
        if isinstance(result, int):  # of an ingestion
            return Usage(result if result >= 0 else None)
        return None if self.has_rows(cursor, result) else Usage(rowcount(cursor))

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """A result has a description as well, but to ask for it waits for its first rows."""
        return cursor._results is not None
