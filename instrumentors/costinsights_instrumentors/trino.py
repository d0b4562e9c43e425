"""Trino and Starburst, by the `trino` client: every statement, with the coordinator's own figures.

Measured: the query's id, CPU time, scheduled ("wall") time, elapsed and queued time, rows and bytes
processed, bytes read and written, peak memory and spilled bytes, rows returned or changed, errors;
time in the client, page by page. The coordinator counts while rows are fetched: the charge is
written when ``execute`` returns and completed with the page that ends the query, however the rows
are then taken (``fetchone`` … ``fetchall``, iteration, pandas). A cursor that is closed, dropped or
used again before is ``partial``, with what was known by then.

- ``executemany`` runs one query a set of parameters, each with an id and a charge of its own.
- Parameters are sent with ``EXECUTE IMMEDIATE``; on servers before 418 the client sends ``PREPARE``
  and ``DEALLOCATE PREPARE`` around its ``EXECUTE``, and the charge is that of the ``EXECUTE``.
- With ``tagging = "native"`` each statement carries the client tags ``ci:asset=…`` and ``ci:job=…``
  beside those of the program, in the header that it sends anyway.

Not seen: what the client asks of its own accord (that ``PREPARE`` and ``DEALLOCATE``, ``START
TRANSACTION``, ``COMMIT``, and once an hour whether ``EXECUTE IMMEDIATE`` is known), queries sent with
`trino.client` alone, and how many rows a spooled result had that was fetched in segments. An error
comes without figures: what is known is what the page before said.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary, ref

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage, rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.patching import Kind

# Trino's StatementStats. Wall time is the time that splits were scheduled for, over all threads.
STATS = {
    "cpu_time_ms": "cpuTimeMillis",
    "wall_time_ms": "wallTimeMillis",
    "elapsed_time_ms": "elapsedTimeMillis",
    "queued_time_ms": "queuedTimeMillis",
    "processed_rows": "processedRows",
    "processed_bytes": "processedBytes",
    "physical_input_bytes": "physicalInputBytes",
    "physical_written_bytes": "physicalWrittenBytes",
    "peak_memory_bytes": "peakMemoryBytes",
    "spilled_bytes": "spilledBytes",
}
ALL = itemgetter(*STATS.values())
TAGS = "X-Trino-Client-Tags"


def hooks(package: str, kind: Kind) -> tuple[Hook, ...]:
    """Return the hooks of the client or, with "async", of its twin."""
    cursor = f"{package}.dbapi:Cursor"
    operation = (1, "operation")
    return (
        Hook(f"{cursor}.execute", kind, operation, lazy=True, leaf=True),
        Hook(f"{package}.dbapi:SegmentCursor.execute", kind, operation, lazy=True, optional=True),
        Hook(f"{cursor}.describe", kind, (1, "sql"), operation="DESCRIBE"),
        Hook(f"{cursor}.cancel", kind, None, fetch="close"),
        Hook(f"{package}.client:TrinoQuery.fetch", kind, None, fetch="all"),
    )


def tags_of(session: Any, header: str) -> str:
    """Return the client tags that the program itself sends, as they stand in `header`."""
    if tags := getattr(session, "client_tags", None):
        return ",".join(tags)
    given: Mapping[str, str] = session.headers or {}
    return next((given[name] for name in given if name.lower() == header.lower()), "")


def with_words(own: str, words: Mapping[str, str]) -> str:
    """Return client tags with `words` behind them. A prefix keeps them from selecting anything."""
    return ",".join([*filter(None, [own]), *(f"ci:{key}={word}" for key, word in words.items())])


class TrinoInstrumentor(DBAPIInstrumentor):
    name = "trino"
    system = "trino"
    driver = "trino"
    supports = ("0.333", "1")
    hooks = hooks("trino", "call")
    connection = "_connection"
    last_statement = "_query"
    facts: ClassVar = {"address": "host", "port": "port", "namespace": "catalog"}
    naming = (Hook("trino.client:TrinoRequest.post", "connect", None),)
    statement_tags = True
    channel = "client tags, per statement"
    meters = tuple(STATS)
    verified = "Trino 368, real engine"

    def __init__(self) -> None:
        super().__init__()
        # Whose page it is that a query fetches.
        self._cursors: WeakKeyDictionary[Any, ref[Any]] = WeakKeyDictionary()

    def _hook(self, hook: Hook) -> None:
        super()._hook(hook)
        if hook.fetch == "all":  # a query does not know its cursor: there is no path to follow
            probe: Any = self.patches[-1].probe
            probe.of = self._cursor_of

    def _cursor_of(self, query: Any) -> Any:
        known = self._cursors.get(query)
        return None if known is None else known()

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        """Return what is known by the first page of rows."""
        query = cursor._query
        rows = query.result.rows if result is cursor else result
        return figures(query, len(rows) if rows.__class__ is list else rows_of(rows))

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """Of a short result the first page is the last. To ask for columns would fetch pages."""
        return not cursor._query.finished

    def unread(self, cursor: Any) -> bool:
        """It is the query that fetches, and it knows when the server has no more."""
        return not cursor.finished

    def source(self, cursor: Any, result: Any) -> object | None:
        """It is the query that has the figures."""
        query: object = cursor._query
        self._cursors[query] = ref(cursor)
        return query

    def final(self, source: Any) -> Usage | None:
        """The rows were counted page by page."""
        return figures(source, None)

    def with_tag(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Add the words to the headers of a request; a cursor's call stays as it is."""
        request = next(iter(args))
        if not hasattr(request, "post"):
            return args, kwargs
        given: Any = args[2] if len(args) > 2 else kwargs.get("additional_http_headers")
        headers: dict[str, str] = dict(given or {})
        headers[TAGS] = with_words(
            headers.get(TAGS) or tags_of(request._client_session, TAGS), words
        )
        return args[:2], {**kwargs, "additional_http_headers": headers}


def figures(query: Any, rows: int | None) -> Usage | None:
    """Return what the coordinator last said of a query; None of one that it never heard of."""
    if query is None or query.query_id is None:
        return None
    stats = query.stats
    if query.update_type is not None:
        rows = query.update_count
    try:
        meters = dict(zip(STATS, ALL(stats), strict=True))
    except KeyError:  # an older coordinator, or one that has only just heard of it
        meters = {meter: stats[name] for meter, name in STATS.items() if name in stats}
    return Usage(rows, meters, query.query_id)
