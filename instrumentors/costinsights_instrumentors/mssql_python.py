"""mssql-python: every statement of its cursors, and bulk copies.

Measured: time in the driver, rows returned or affected, errors and cancellation; of connections and
pools made earlier too. An ``executemany`` is one call, and so are a ``bulkcopy`` and each of the
catalogue functions (``tables``, ``columns`` …). Rows are counted while they are read, as rows or as
Arrow's; the charge is completed with the last one, or when the cursor is closed, dropped or used
again. What a serverless pool of Synapse says of the data it processed is read from the cursor's
``messages``. A host name of Azure's makes the system Azure SQL or Synapse.

Not seen: ``commit`` and ``rollback``; results behind a first one that has no rows, and behind that
of a procedure; the asynchronous preview, which the driver keeps to itself (``async_query``). The
driver gives every connection the same program name and refuses another, so there is no native tag.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from costinsights.instrumentor import Hook
from costinsights_instrumentors._tds import (
    CATALOG,
    DATABASE,
    SERVER,
    Place,
    TDSInstrumentor,
    cursor_hooks,
    first,
    words_of,
)

CURSOR = "mssql_python.cursor:Cursor"
OPERATION, TABLE, BULK = (1, "operation"), (1, "table_name"), "INSERT BULK "
NOT_THERE = ("procedureColumns", "tablePrivileges")


def _copied(_: object, result: Any) -> int | None:
    """Count the rows that a bulk copy says it has written."""
    rows: object = getattr(result, "get", dict[str, object]().get)("rows_copied")
    return rows if isinstance(rows, int) else None


class MSSQLPythonInstrumentor(TDSInstrumentor):
    name = "mssql_python"
    driver = "mssql_python"
    supports = ("1.0", "2")
    channel = ""
    verified = "emulator: TDS server"
    hooks = (
        *cursor_hooks(CURSOR, OPERATION),
        Hook(f"{CURSOR}.executemany", statement=OPERATION, batch=(2, "seq_of_parameters")),
        Hook(f"{CURSOR}.scroll", fetch="part", optional=True),
        Hook(f"{CURSOR}.arrow_batch", fetch="many", optional=True),
        Hook(f"{CURSOR}.arrow_reader", fetch="part", optional=True),
        Hook(f"{CURSOR}.arrow", fetch="all", optional=True),
        *(
            Hook(f"{CURSOR}.{name}", statement=TABLE, prefix=BULK, rows=_copied, optional=True)
            for name in ("bulkcopy", "bulkcopy_arrow")
        ),
        *(
            Hook(
                f"{CURSOR}.{name}", statement=None, operation=name.upper(), lazy=True, optional=True
            )
            for name in CATALOG
            if name not in NOT_THERE
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.known_places: WeakKeyDictionary[Any, Place] = WeakKeyDictionary()

    def connection_of(self, instance: Any) -> Place:
        """Return where the driver's own connection string, made of the program's, leads."""
        connection = instance._connection
        place = self.known_places.get(connection)
        if place is None:
            words = words_of(connection.connection_str)
            place = Place(first(words, SERVER), None, first(words, DATABASE))
            self.known_places[connection] = place
        return place

    def unread(self, cursor: Any) -> bool | None:
        """Of a result that is only just there, the count of rows is still that of the one before."""
        recorder = self.recorder()
        span = None if recorder is None else recorder.opened_by(cursor)
        if span is not None and span.rows and not getattr(cursor, "_next_row_index", 1):
            span.rows -= max(cursor.rowcount, 0)
        return super().unread(cursor)
