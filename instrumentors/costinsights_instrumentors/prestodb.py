"""Presto, by the `prestodb` client (presto-python-client): every statement, with Presto's figures.

Measured: the query's id, CPU time, scheduled ("wall") time, elapsed and queued time, rows and bytes
processed, bytes read where the server says so, peak memory, rows returned, errors. This client reads
a result to its end before ``execute`` returns, so the figures are final there.

- Parameters are sent with ``PREPARE``, ``EXECUTE`` and ``DEALLOCATE PREPARE``: the charge is that of
  the ``EXECUTE``.
- With ``tagging = "native"`` a connection made from now on carries the client tag ``ci:job=…`` beside
  those of the program: the client sends one set of headers a connection.

Not seen: those ``PREPARE`` and ``DEALLOCATE``, ``START TRANSACTION``, ``COMMIT``, queries sent with
`prestodb.client` alone, how many rows a statement changed (Presto says so in a row, which is counted
as one), and the figures of an error: what is known is what the page before said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage
from costinsights_instrumentors.trino import STATS, tags_of, with_words

if TYPE_CHECKING:
    from collections.abc import Mapping

TAGS = "X-Presto-Client-Tags"
HEADERS = 8  # the position of `http_headers` among the arguments of a connection


class PrestodbInstrumentor(DBAPIInstrumentor):
    name = "prestodb"
    system = "presto"
    driver = "prestodb"
    supports = ("0.8", "1")
    hooks = (Hook("prestodb.dbapi:Cursor.execute", "call", (1, "operation"), leaf=True),)
    connection = "_connection"
    last_statement = "_query"
    facts: ClassVar = {"address": "host", "port": "port", "namespace": "catalog"}
    naming = (Hook("prestodb.dbapi:Connection.__init__", "connect", None),)
    statement_tags = True
    channel = "client tags, per connection"
    meters = tuple(STATS)
    verified = "Presto 0.283, real engine"

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        """The result is here, and so are the final figures."""
        query = cursor._query
        return figures(query, len(query.result._rows))

    def source(self, cursor: Any, result: Any) -> object | None:
        """It is the query that has the figures."""
        found: object = cursor._query
        return found

    def final(self, source: Any) -> Usage | None:
        """Asked of a statement that failed."""
        return figures(source, None)

    def with_tag(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Add the job to a new connection's headers; of a call, tell whether it has been added."""
        session = getattr(getattr(args[0], "_connection", None), "_client_session", None)
        if session is not None:
            return (args, kwargs) if "ci:" in tags_of(session, TAGS) else None
        lasting = {key: word for key, word in words.items() if key != "asset"}
        if not lasting:
            return None
        given: Any = args[HEADERS] if len(args) > HEADERS else kwargs.get("http_headers")
        headers: dict[str, str] = dict(given or {})
        own = next((key for key in headers if key.lower() == TAGS.lower()), TAGS)
        headers[own] = with_words(headers.get(own, ""), lasting)
        if len(args) > HEADERS:
            return (*args[:HEADERS], headers, *args[HEADERS + 1 :]), kwargs
        return args, {**kwargs, "http_headers": headers}


def figures(query: Any, rows: int | None) -> Usage | None:
    """Return what the coordinator last said of a query; None of one that it never heard of."""
    if query.query_id is None:
        return None
    stats = query.stats
    meters = {meter: stats[name] for meter, name in STATS.items() if name in stats}
    return Usage(rows, meters, query.query_id)
