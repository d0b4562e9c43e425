"""Snowflake: every statement of the connector's cursors, synchronous and asynchronous.

Measured: time in the driver, rows returned or changed, errors, the query id (``vendor_id``, also of
a statement that failed), and of DML the rows inserted, updated and deleted where the connector
tells (4.0 and later). Account host, database and warehouse stand in the resource as ``address``,
``namespace`` and ``service``, as they are when the statement is sent: ``USE`` changes them.

- Snowflake says no price with a statement. The estimate is the fair share of the warehouse's hour,
  where a ``[[capacity]]`` names host and warehouse; settlement replaces it.
- An ``executemany`` is one call, whatever it sends, and so is a text of several statements, under
  the id of the whole; its rows are not counted. ``execute_string`` and ``execute_stream`` are one
  call a statement, ``write_pandas`` one for each statement that it makes.
- ``execute_async`` is charged when it is sent, as ``partial``, and completed when the same cursor
  has the result. Time in which nobody waits is not in the estimate; settlement knows it.
- ``describe`` runs on no warehouse: it is recorded without one.

With ``tagging = "native"`` each statement has a ``QUERY_TAG`` of its own in the request; the
program's tag, of the statement or of the session, stays in front. No request is added.

Not seen: ``abort_query``, questions for a query's status, files that PUT and GET move, chunks that
are fetched from a ``ResultBatch``, ``connection.cmd_query`` called directly, and all but the last
query id of an ``executemany`` that sends several. Connector 3 and 4 keep the first id of several
statements instead of the whole's, and run a statement of their own for ``get_results_from_sfqid``,
which is a call like any other. Between a stored procedure's change of warehouse and the end of its
call, calls of other cursors name the old one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any
from weakref import ref

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Remembered, Usage, recall, remember
from costinsights.tagging import native_tag, tag_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.patching import Kind
    from costinsights.records import Resource

# After these, a session is where it was; after USE, CREATE, CALL, a block … it may not be.
STAYING = frozenset(("SEL", "INS", "UPD", "DEL", "MER", "WIT", "COP", "SHO", "DES", "PUT", "GET"))


def hooks(where: str, words: tuple[str, ...], kind: Kind = "call") -> tuple[Hook, ...]:
    """Return the hooks of the class that defines a version's cursor methods."""
    text, sets, *sending = words
    cursor = f"snowflake.connector.{where}"
    return (
        Hook(f"{cursor}.execute", kind, statement=(1, text), leaf=True),
        Hook(f"{cursor}.executemany", kind, statement=(1, text), batch=(2, sets)),
        Hook(f"{cursor}.callproc", kind, statement=(1, "procname"), prefix="CALL "),
        Hook(f"{cursor}.describe", kind, statement=(1, text), operation="DESCRIBE"),
        Hook(f"{cursor}.execute_async", kind, statement=(1, "command"), lazy=True),
        Hook(f"{cursor}.get_results_from_sfqid", kind, fetch="part"),
        Hook(f"{cursor}.query_result", kind, fetch="all"),
        *(Hook(f"{cursor}.{method}", "connect", statement=None) for method in sending),
    )


EARLIER = ("command", "seqparams", "_execute_helper")
LATER = ("operation", "seq_of_parameters", "_execute", "_execute_async")
BASE = "cursor:SnowflakeCursorBase"
VERSIONS = {
    3: hooks("cursor:SnowflakeCursor", EARLIER),
    4: (*hooks(BASE, EARLIER), *hooks("aio._cursor:SnowflakeCursorBase", EARLIER, "async")),
    5: (*hooks(BASE, LATER), *hooks(f"aio.{BASE}", LATER, "async")),
}
EVERY = tuple(dict.fromkeys(hook for version in VERSIONS.values() for hook in version))


class Place:
    """Where a session's statements go at this moment. The recorder knows it by its identity."""

    def __init__(self, facts: list[Any]) -> None:
        self.facts = facts


class SnowflakeInstrumentor(DBAPIInstrumentor):
    name = "snowflake"
    system = "snowflake"
    driver = "snowflake.connector"
    supports = ("3.18", "6")
    hooks = tuple(hook for hook in EVERY if hook.kind != "connect")
    naming = tuple(hook for hook in EVERY if hook.kind == "connect")
    meters = ("rows_inserted", "rows_updated", "rows_deleted")
    statement_tags = True
    channel = "QUERY_TAG of the statement"
    verified = "emulator: unmodified connector 3.18, 4.8 and 5.2"

    def __init__(self) -> None:
        super().__init__()
        self._places: Remembered[tuple[Place, Place]] = {}

    def _wanted(self) -> tuple[Hook, ...]:
        major = (self.version(sys.modules[self.driver]) or "5").partition(".")[0]
        return tuple(hook for hook in super()._wanted() if hook in VERSIONS[int(major)])

    def _hook(self, hook: Hook) -> None:
        super()._hook(hook)
        for patch in self.patches:
            if patch.probe.operation == "DESCRIBE":
                patch.probe.connection_of = self.without_warehouse

    def connection_of(self, instance: Any) -> Any:
        """Return the place of the cursor's session."""
        connection = instance._connection
        return (recall(self._places, connection) or self._look(connection))[0]

    def without_warehouse(self, instance: Any) -> Any:
        """Return the place of what cloud services answer alone."""
        return self._look(instance._connection)[1]

    def _look(self, connection: Any) -> tuple[Place, Place]:
        """Note where the session is now: not by properties, which 5.x reports to Snowflake."""
        names = ("host", "port", "database", "warehouse")
        info = getattr(connection, "_connection_info", None)
        facts = [getattr(connection, name) if info is None else info[name] for name in names]
        facts[1] = int(facts[1] or 0) or None
        known = recall(self._places, connection)
        if known is None or known[0].facts != facts:
            known = remember(self._places, connection, (Place(facts), Place([*facts[:3], None])))
        return known

    def resource(self, connection: Any) -> Resource:
        """Return account host, database and, as the service, the warehouse."""
        from costinsights.records import Resource

        return Resource(*connection.facts)

    def usage(self, cursor: Any, result: Any) -> Usage:
        """Return the query id, the rows and what DML did."""
        known = getattr(cursor, "_query_result", cursor)  # 5.x, or earlier
        whole = getattr(cursor, "_multi_statement", None)
        several = whole or (known is cursor and cursor.multi_statement_savedIds)
        if (word := (known.query or "")[:3].upper()) not in STAYING or several:
            self._look(cursor._connection)
        rows = None if several or (known.rowcount or 0) < 0 else known.rowcount
        stats: Any = getattr(known, "stats", None) if rows and word != "SEL" else None
        counts = {n: getattr(stats, f"num_{n}", 0) or 0 for n in self.meters} if stats else {}
        counts = counts if stats and sum(counts.values()) == rows else {}  # not those of the last
        return Usage(rows, counts, whole.parent_qid if whole else known.sfqid)

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """Tell whether the call returned before the statement was done."""
        return isinstance(result, dict)

    def source(self, cursor: Any, result: Any) -> object | None:
        """Return the cursor of a statement that still runs, or the id of one that failed."""
        return ref(cursor) if result else getattr(sys.exc_info()[1], "sfqid", None)

    def final(self, source: Any) -> Usage | None:
        """Return what the cursor has by now, where it is still there, or the id."""
        if isinstance(source, str):
            return Usage(vendor_id=source)
        cursor = source()
        return None if cursor is None else self.usage(cursor, None)

    def takes_tag(self, hook: Hook) -> bool:
        """Tell whether a request's parameters can be had: not those of ``describe``."""
        return hook.operation is None

    def with_tag(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Put the tag behind the program's own, among the parameters of the request."""
        name = next((n for n in ("statement_parameters", "statement_params") if n in kwargs), None)
        if name is None or kwargs.get("describe_only"):
            return args, kwargs  # the program's call: what sends its requests comes here, too
        given: dict[str, Any] = kwargs[name] or {}
        parameters = {**getattr(args[0], "_statement_parameters", {}), **given}
        parameters.setdefault("QUERY_TAG", args[0]._connection._session_parameters.get("QUERY_TAG"))
        tag = native_tag(str(parameters["QUERY_TAG"] or ""), 2000, str(tag_of(words)))
        if tag is None:
            return None
        return args, {**kwargs, name: {**given, "QUERY_TAG": tag}}
