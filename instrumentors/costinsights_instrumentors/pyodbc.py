"""pyodbc: every statement of its cursors, over any ODBC driver, and by ``connection.execute``.

Measured: time in the driver, rows returned or affected, errors and cancellation; of connections and
cursors made earlier too, and of ``aioodbc``, which runs pyodbc in threads: there its calls are for
whom they were made, as everywhere. The system is what the
driver says of the server (SQL Server, PostgreSQL, SQLite …), without asking the server; a host name
of Azure's makes it Azure SQL or Synapse, and a driver for Arrow Flight SQL, which would ask, is
taken for Dremio's. An ``executemany`` is one call, ``fast_executemany`` or
not, and so is each of the catalogue functions (``tables``, ``columns`` …). Rows are counted while
they are read: the charge is completed with the last one, or when the cursor is closed or used
again. What a serverless pool of Synapse says of the data it processed is read from the cursor's
``messages``.

Of a cursor that is dropped with rows unread, pyodbc tells nobody: its charge says ``partial`` from
the beginning, and is brought up to date with the next call that finds it gone, or when the program
ends.

Not seen: ``commit`` and ``rollback``; results behind a first one that has no rows, and behind that
of a procedure; a message behind the last row, which pyodbc does not show. ``fetchval`` of a NULL
counts as no row. Of a connection that was made before, or by a name that was imported before, host
and database are what the driver says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Hook, file_name
from costinsights.tagging import native_tag, tag_of
from costinsights_instrumentors._tds import (
    CATALOG,
    DATABASE,
    SERVER,
    Place,
    TDSInstrumentor,
    asks,
    cursor_hooks,
    first,
    system_named,
    with_word,
    words_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

CONNECTION, CURSOR = "pyodbc:Connection", "pyodbc:Cursor"
# Of ODBC's SQLGetInfo; what a driver knows without asking the server.
DRIVER_NAME, DATABASE_NAME, SERVER_NAME, DBMS_NAME = 6, 16, 13, 17
NAMED = ("sql server", "freetds", "tdsodbc", "msodbcsql")  # drivers that tell the program's name
LONGEST_NAME = 128  # of sys.dm_exec_sessions.program_name, nvarchar(128)


class PyODBCInstrumentor(TDSInstrumentor):
    name = "pyodbc"
    driver = "pyodbc"
    supports = ("5.0", "6")
    unlocks = True
    types = CURSOR
    threads = "aioodbc.connection:Connection._execute"
    statement_tags = True
    application = "APP"
    channel = "APP= at connect"
    verified = "emulator: TDS server, by FreeTDS and Microsoft's ODBC driver 18"
    hooks = (
        Hook("pyodbc:connect", "connect", statement=None),
        Hook(f"{CONNECTION}.cursor", "connect", statement=None),
        Hook(f"{CONNECTION}.execute", statement=(1, "sql"), prepares=True, lazy=True, leaf=True),
        *cursor_hooks(CURSOR, (1, "sql"), leaf=True),
        Hook(f"{CURSOR}.executemany", statement=(1, "sql"), batch=(2, "params"), leaf=True),
        Hook(f"{CURSOR}.fetchval", fetch="one", leaf=True),
        Hook(f"{CURSOR}.__next__", fetch="next", leaf=True),
        Hook(f"{CURSOR}.skip", fetch="part", leaf=True),
        *(
            Hook(
                f"{CURSOR}.{name}",
                statement=None,
                operation=name.upper(),
                lazy=True,
                leaf=True,
                optional=True,
            )
            for name in CATALOG
        ),
    )

    def version(self, driver: ModuleType) -> str | None:
        """It is called otherwise than elsewhere."""
        return getattr(driver, "version", None)

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Remember where a new connection leads. A new cursor has the address of one that is gone."""
        if args and not isinstance(args[0], str):
            self.forget(id(result))
            return
        words = {**words_of(args[0] if args else ""), **_texts(kwargs)}
        place = _place(result, words)
        place.handle = _handle(result)
        self.places[id(result)] = place

    def connection_of(self, instance: Any) -> Place:
        """Return what stands for a cursor's connection; of one not seen before, what it says."""
        connection = getattr(instance, "connection", instance)
        place = self.places.get(id(connection))
        if place is None or place.handle != _handle(connection):
            return _place(connection, {})
        return place

    def own_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Leave all that is to be named to `with_tag`."""
        raise LookupError("a keyword would come behind what the connection string says")

    def known_as(self, connection: Place) -> str | None:
        """Return the name that was given when the connection was made."""
        return connection.application

    def with_tag(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Name a new connection after its job; of two names, drivers differ which counts."""
        if not args or not isinstance(args[0], str):
            return None
        given = {**words_of(args[0]), **_texts(kwargs)}
        if not any(name in given.get("driver", "").lower() for name in NAMED):
            return None  # a data source of its own, or a driver without this keyword
        keyword = next((name for name in ("app", "application name") if name in given), None)
        tag = tag_of({key: word for key, word in words.items() if key != "asset"})
        name = native_tag(given.get(keyword or ""), LONGEST_NAME, tag or "ci")
        if name is None or any(char in name for char in "{};"):
            return None
        if keyword is None:
            return (f"APP={name};{args[0]}", *args[1:]), kwargs
        if keyword in words_of(args[0]):
            return (with_word(args[0], keyword, name), *args[1:]), kwargs
        return args, {**kwargs, next(key for key in kwargs if key.lower() == keyword): name}

    def sqlstate(self, error: BaseException) -> str | None:
        """It is the first of an error's arguments."""
        found = error.args[0] if type(error).__module__ == "pyodbc" and error.args else None
        return found if isinstance(found, str) and len(found) == 5 else None

    def has_further(self, cursor: Any) -> bool | None:
        """Behind the last result there is neither a description nor a count."""
        return cursor.description is not None or cursor.rowcount >= 0


def _texts(kwargs: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in kwargs.items() if isinstance(value, str)}


def _handle(connection: Any) -> object:
    return getattr(getattr(connection, "hdbc", None), "value", None)


def _place(connection: Any, words: dict[str, str]) -> Place:
    """Return where a connection leads: its own words, and behind them what its driver says."""
    if asks(f"{words.get('driver', '')} {connection.getinfo(DRIVER_NAME)}"):
        return Place(first(words, SERVER), words.get("port"), first(words, DATABASE), "dremio")
    system = system_named(str(connection.getinfo(DBMS_NAME)))
    database = first(words, DATABASE) or str(connection.getinfo(DATABASE_NAME))
    if system == "sqlite":
        return Place(None, None, file_name(database), system)
    server = first(words, SERVER) or str(connection.getinfo(SERVER_NAME))
    return Place(server, words.get("port"), database, system, first(words, "app|application name"))
