"""sqlite3: every statement of the standard library's module, also by ``connection.execute``.

Measured: time in SQLite, rows returned or affected, errors and interrupts. SQLite makes rows while
they are fetched, so the charge of a ``SELECT`` is completed when the last row has been read, or the
cursor is closed, dropped or used again. Each row's time counts: a loop over a cursor takes about
0.3 µs a row longer, ``fetchmany`` and ``fetchall`` do not. A ``backup`` is a charge of its own.

Not seen: ``commit`` and ``rollback``, the ``with connection:`` that does either, incremental blob
access, ``serialize``, and what extensions and other programs do. A connection that was opened
before is seen, but not which file it leads to.
"""

from __future__ import annotations

import sys
from gc import get_referents
from os import fsdecode
from typing import TYPE_CHECKING, Any, ClassVar

from costinsights.factories import Makes
from costinsights.instrumentor import DBAPIInstrumentor, Hook, file_name

if TYPE_CHECKING:
    from types import ModuleType

CONNECTION, CURSOR = "sqlite3:Connection", "sqlite3:Cursor"
SQL = (1, "sql")  # all take it by position only
MEMORY = ":memory:"
PYTHON = sys.version_info[:2]


def _mixed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return len(args) > 2 and args[2].__class__ is not dict and ":" in args[1]


def _positional(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return len(args) > 2


# What C code warns of, in the name of whoever called it: named placeholders with a sequence, and
# more than one positional argument.
WARNS_OF_MIXED = _mixed if (3, 12) <= PYTHON < (3, 14) else None
WARNS_OF_POSITIONAL = _positional if PYTHON >= (3, 13) else None


def _count(cursor: Any, result: object) -> int | None:
    """Rows changed; none yet of a query; nothing is known of what is neither."""
    changed: int = cursor.rowcount
    return changed if changed >= 0 else None if cursor.description is None else 0


def _no_rows(cursor: Any, result: object) -> None:
    """After a script or a backup, the row count is still that of an earlier statement."""


# From Python 3.11 on, a connection's own do not ask the cursor that they return for its method.
OF_CONNECTIONS = (
    Hook(f"{CONNECTION}.execute", prepares=True, lazy=True, rows=_count, as_caller=WARNS_OF_MIXED),
    Hook(f"{CONNECTION}.executemany", prepares=True, batch=(2, "parameters")),
)


class Database:
    """Where a connection leads: a file's name. It stands for one, which allows no weak reference."""

    def __init__(self, name: str | None) -> None:
        self.name = name


class SQLite3Instrumentor(DBAPIInstrumentor):
    name = "sqlite3"
    system = "sqlite"
    verified = "SQLite, real engine"
    driver = "sqlite3"
    supports = ("3.10", "3.15")
    facts: ClassVar = {"namespace": "name"}
    unlocks = True
    hooks = (
        Hook(f"{CONNECTION}.__init__", "connect", as_caller=WARNS_OF_POSITIONAL),
        Hook(
            f"{CURSOR}.execute",
            statement=SQL,
            lazy=True,
            rows=_count,
            leaf=True,
            as_caller=WARNS_OF_MIXED,
        ),
        Hook(f"{CURSOR}.executemany", statement=SQL, batch=(2, "parameters"), leaf=True),
        Hook(f"{CURSOR}.executescript", statement=SQL, rows=_no_rows, leaf=True),
        Hook(f"{CURSOR}.fetchone", fetch="one", leaf=True),
        Hook(f"{CURSOR}.fetchmany", fetch="many", leaf=True),
        Hook(f"{CURSOR}.fetchall", fetch="all", leaf=True),
        Hook(f"{CURSOR}.__next__", fetch="next", leaf=True),
        Hook(f"{CURSOR}.close", fetch="close", leaf=True),
        Hook(f"{CONNECTION}.backup", statement=None, operation="BACKUP", rows=_no_rows, leaf=True),
        *(hook._replace(statement=SQL, leaf=True) for hook in OF_CONNECTIONS if PYTHON >= (3, 11)),
        # Where the classes cannot be changed, the program gets subclasses of them.
        Hook("sqlite3:connect", "factory", makes=Makes(CONNECTION, (5, "factory"))),
        Hook("sqlite3.dbapi2:connect", "factory", makes=Makes(CONNECTION, (5, "factory"))),
        Hook(f"{CONNECTION}.cursor", "factory", makes=Makes(CURSOR, (1, "factory"))),
    )

    def __init__(self) -> None:
        super().__init__()
        self._databases: dict[int, Database] = {}
        self._unknown = Database(None)

    def version(self, driver: ModuleType) -> str | None:
        """The module is part of Python."""
        return ".".join(map(str, sys.version_info[:3]))

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Remember the file by the connection's address, which only a new connection can take."""
        connection, *others = args
        database = others[0] if others else kwargs["database"]
        uri = others[7] if len(others) > 7 else kwargs.get("uri", False)
        self._databases[id(connection)] = Database(_name(fsdecode(database), uri=bool(uri)))

    def uninstrument(self) -> None:
        """What is opened from now on may take the address of what was open before."""
        super().uninstrument()
        self._databases.clear()

    def connection_of(self, instance: Any) -> Any:
        """Of a cursor as of a connection: the database."""
        connection = getattr(instance, "connection", instance)
        return self._databases.get(id(connection), self._unknown)

    def unread(self, cursor: Any) -> bool | None:
        """A cursor holds on to its statement, behind all else, for as long as that has rows."""
        if cursor.description is None:
            return False
        held = get_referents(cursor)
        return type(held[-1]).__name__ == "Statement" or type(held[-2]).__name__ == "Statement"


def _name(database: str, *, uri: bool) -> str | None:
    if uri and database.startswith("file:"):
        from urllib.parse import unquote

        database, _, options = database[5:].partition("#")[0].partition("?")
        if "mode=memory" in options:
            return MEMORY
        database = unquote(database)
    return MEMORY if MEMORY in database else file_name(database) or None
