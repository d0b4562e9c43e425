"""DuckDB: every statement of a connection, of the module itself, and every relation that is run.

Measured: time in DuckDB, rows returned, errors and interrupts. A result is made while it is
fetched, so the charge of a query is completed when it has been read to its end, or the connection
runs its next statement or is closed. A relation is charged when it is run, by whatever fetches,
shows or writes it, with the time that ``sql`` took to plan it; one that is never run is not.

Not seen: what an Arrow reader does after it was handed out, planning by other methods than ``sql``
and its like (``read_csv``, ``table``, ``filter`` …), the query behind ``shape``, ``commit`` and
``checkpoint``, and how many rows an ``INSERT`` or ``UPDATE`` changed (DuckDB 2 tells). A relation
that was derived from another does not say which database it reads: that is known where the program
has opened only one.
"""

from __future__ import annotations

import sys
from re import sub
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage, file_name, rows_of
from costinsights.voices import always

if TYPE_CHECKING:
    from costinsights.records import Resource

MEMORY = ":memory:"
RANDOM = r"(unnamed_relation|df|__duckdb_source)_[0-9a-f]{12,16}(_\d+)?"


# The default connection as an object, which the program need not keep between two calls.
_kept: list[Any] = [None]


def _connection(keywords: dict[str, Any]) -> Any:
    """The module's functions work on the connection they are given, or on the default one."""
    given = keywords.get("connection")
    if given is None:
        given = _kept[0] = sys.modules["duckdb"].connect(":default:")
    return given


FRAMES = (
    *("df", "fetchdf", "fetch_df", "to_df", "fetchnumpy", "pl", "torch", "tf", "to_dicts"),
    *("arrow", "to_arrow_table", "fetch_arrow_table", "record_batch", "__arrow_c_stream__"),
    *("to_arrow_reader", "fetch_arrow_reader", "fetch_record_batch"),
)
FETCHES = {
    "fetchone": Hook("", fetch="one"),
    **dict.fromkeys(("fetchmany", "fetch_df_chunk"), Hook("", fetch="many")),
    **dict.fromkeys(("fetchall", *FRAMES), Hook("", fetch="all")),
}
PLANS = Hook("", as_caller=always, prepares=True)
CONNECTION = {  # also as functions of the module
    "execute": Hook("", as_caller=always, lazy=True),
    "executemany": Hook("", batch=(2, "parameters"), as_caller=always),
    **dict.fromkeys(("sql", "query", "from_query"), PLANS),
    "append": Hook("", statement=None, operation="APPEND"),
    **FETCHES,
    "close": Hook("", fetch="close"),
    **dict.fromkeys(("cursor", "duplicate"), Hook("", "connect")),
}
RUNS = Hook("", statement=(0, "self"), begins=True)
OPERATIONS = {
    **dict.fromkeys(("show", "__repr__", "__str__", "preview", "__len__", "materialize"), None),
    **dict.fromkeys(("to_table", "create"), "CREATE TABLE"),
    **dict.fromkeys(("insert_into", "insert"), "INSERT"),
    **dict.fromkeys(("to_csv", "write_csv", "to_parquet", "write_parquet"), "COPY"),
    "update": "UPDATE",
    "explain": "EXPLAIN",
}
RELATION = {
    **{n: RUNS._replace(fetch=h.fetch, lazy=h.fetch != "all") for n, h in FETCHES.items()},
    **{n: RUNS._replace(fetch="all", operation=kind) for n, kind in OPERATIONS.items()},
    "execute": RUNS._replace(lazy=True),
    "query": PLANS._replace(statement=(2, "sql_query")),
    "close": Hook("", fetch="close"),
}


def _hooks(owner: str, hooks: dict[str, Hook], **more: Any) -> list[Hook]:
    return [h._replace(target=f"{owner}{n}", optional=True, **more) for n, h in hooks.items()]


class DuckDBInstrumentor(DBAPIInstrumentor):
    name = "duckdb"
    system = "duckdb"
    verified = "DuckDB, real engine"
    driver = "duckdb"
    supports = ("1.1", "3")
    hooks = (
        Hook("duckdb:connect", "connect"),
        *_hooks("duckdb:", CONNECTION, instance=_connection),
        *_hooks("duckdb:DuckDBPyConnection.", CONNECTION),
        *_hooks("duckdb:DuckDBPyRelation.", RELATION),
    )

    def __init__(self) -> None:
        super().__init__()
        self._databases: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._queries: WeakKeyDictionary[Any, str] = WeakKeyDictionary()

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """A cursor is a connection of its own to its parent's database."""
        given = args[0] if args else kwargs.get("database", MEMORY)
        if isinstance(given, type(result)):
            self._databases[result] = self._databases.get(given, MEMORY)
        elif given == ":default:":
            self._databases.setdefault(result, MEMORY)
        else:
            name = file_name(str(given).partition("?")[0])
            self._databases[result] = MEMORY if name.startswith(MEMORY) else name or MEMORY

    def connection_of(self, instance: Any) -> Any:
        """A relation keeps its connection to itself; there may be only one that it can be."""
        if type(instance).__name__ != "DuckDBPyRelation":
            return instance
        known = dict(self._databases)
        return next(iter(known), None) if len(set(known.values())) == 1 else None

    def resource(self, connection: Any) -> Resource:
        """A file is known by its name, without the folders."""
        from costinsights.records import Resource

        return Resource(namespace=self._databases.get(connection, MEMORY))

    def prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
        """A query makes a relation, to be run later; of several statements, all but the last ran."""
        query = args[-1] if len(args) > 1 else kwargs.get("query")
        if result.type == "MATERIALIZED_RELATION":
            return False
        if isinstance(query, str):
            self._queries[result] = query
            return ";" not in query.rstrip("; \t\r\n")
        return True

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        """Of a relation, what it brought at once counts; the rest when it is fetched."""
        if result is cursor:
            return super().usage(cursor, result)
        return Usage(1 if isinstance(result, tuple) else rows_of(result))

    def text(self, query: Any, cursor: Any) -> str | None:
        """A relation's own text names relations that were not given a name at random."""
        if type(query).__name__ == "DuckDBPyRelation":
            return self._queries.get(query) or sub(RANDOM, r"\1", query.sql_query())
        return super().text(getattr(query, "query", query), cursor)

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """What is no query returns, for its result, one column of a fixed name."""
        if result is not cursor:
            return bool(rows_of(result))
        if type(cursor).__name__ == "DuckDBPyRelation":
            return True
        columns = [column[0] for column in cursor.description or ()]
        return bool(columns) and columns not in (["Count"], ["Success"])
