"""Databricks SQL connector: every statement of its cursors, over Thrift and over SEA.

Measured: time in the driver, rows returned or changed, errors, and the statement's id, by which
`costinsights settle databricks` finds what the warehouse did for it. One charge a statement: an
``executemany`` sends one for each set of parameters. Listing catalogs, schemas, tables and columns
counts, as do the statements of a transaction that the driver itself sends. A statement of
``execute_async`` is complete when its result has been asked for, and a large result when the last
part of it has been fetched. The resource's namespace is the id of the warehouse, or of the cluster,
as the HTTP path has it: that is what a ``[[capacity]]`` names as its ``database``.

With ``tagging = "native"`` a statement carries `query_tags`, ``ci_asset`` and ``ci_job``, beside
the program's own (connector 4.2.6 or newer).

Not seen: opening and closing of sessions, ``cancel``, the rows changed by a statement over SEA, and
what the program does with ``cursor.backend`` or ``cursor.active_result_set`` itself. The backend in
Rust (``use_kernel=True``) goes through the same methods, but was not tested.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from costinsights.instrumentor import DBAPIInstrumentor, Hook, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.records import Resource

CURSOR = "databricks.sql.client:Cursor"
# What a path leads to: /sql/1.0/warehouses/ID, sql/protocolv1/o/WORKSPACE/CLUSTER.
COMPUTE = re.compile(r"/(?:warehouses|endpoints|o/\d+)/([^/?&]+)")
MOST_TAGS = 20
TAGGED = frozenset((f"{CURSOR}.execute", f"{CURSOR}.execute_async"))


class DatabricksSQLInstrumentor(DBAPIInstrumentor):
    name = "databricks_sql"
    system = "databricks"
    driver = "databricks.sql"
    supports = ("4.1", "5")
    hooks = (
        Hook(f"{CURSOR}.execute", statement=(1, "operation"), lazy=True, leaf=True),
        Hook(f"{CURSOR}.execute_async", statement=(1, "operation"), lazy=True),
        *(
            Hook(f"{CURSOR}.{what}", statement=None, operation=f"LIST {what.upper()}", lazy=True)
            for what in ("catalogs", "schemas", "tables", "columns")
        ),
        # These two tell how a statement is that was not waited for.
        Hook(f"{CURSOR}.get_query_state", fetch="set"),
        Hook(f"{CURSOR}.get_async_execution_result", fetch="set"),
        Hook(f"{CURSOR}.fetchone", fetch="one"),
        Hook(f"{CURSOR}.fetchmany", fetch="many"),
        Hook(f"{CURSOR}.fetchmany_arrow", fetch="many"),
        Hook(f"{CURSOR}.fetchall", fetch="all"),
        Hook(f"{CURSOR}.fetchall_arrow", fetch="all"),
        Hook(f"{CURSOR}.__iter__", "generator", fetch="next"),
        Hook(f"{CURSOR}.close", fetch="close"),
    )
    last_statement = "active_command_id"
    statement_tags = True
    channel = "query_tags of the statement"
    verified = "emulator: unmodified connector 4.9, Thrift and SEA"

    def resource(self, connection: Any) -> Resource:
        """Give the host, and as namespace the warehouse or cluster that the path leads to."""
        from costinsights.records import Resource

        session = connection.session
        found = COMPUTE.search(session.http_path or "")
        host: str = session.host.partition("://")[2] or session.host
        return Resource(host, session.port, found[1] if found else None)

    def usage(self, cursor: Any, result: Any) -> Usage:
        """Give the statement's id; and the rows, where all of them have come."""
        command = cursor.active_command_id
        return Usage(None if self.unread(cursor) else rows(cursor), None, id_of(command))

    def unread(self, cursor: Any) -> bool | None:
        """Tell whether the server works on it, or has rows that were not fetched."""
        found = cursor.active_result_set
        if found is None:
            return cursor.active_command_id is not None
        queue: Any = getattr(found, "results", None)
        if hasattr(queue, "cur_row_index"):  # the rest is in the client's hands
            return bool(found.has_more_rows)
        if hasattr(queue, "table"):  # of files that are fetched one by one
            return bool(found.has_more_rows or queue.table)
        return None

    def source(self, cursor: Any, result: Any) -> ReferenceType[Any] | str | None:
        """Remember the cursor, which has the rows; of what failed the id."""
        return id_of(cursor.active_command_id) if result is None else ref(cursor)

    def final(self, source: ReferenceType[Any] | str) -> Usage | None:
        """Count the rows that came, those in the client's hands included."""
        if isinstance(source, str):
            return Usage(vendor_id=source)
        cursor = source()
        return None if cursor is None else Usage(rows(cursor))

    def takes_tag(self, hook: Hook) -> bool:
        """Statements do, lists of tables do not."""
        return hook.target in TAGGED

    def with_tag(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Put asset and job before the program's own tags, where there is room for both."""
        own: Mapping[str, Any] = kwargs.get("query_tags") or {}
        tags = {**{f"ci_{word}": value for word, value in words.items()}, **own}
        cursor: Any = args[0].__class__
        if len(args) > 4 or len(tags) > MOST_TAGS or not takes_tags(cursor.execute):
            return None
        return args, {**kwargs, "query_tags": tags}


@lru_cache(maxsize=8)
def takes_tags(execute: Any) -> bool:
    """Tell whether this version's method takes tags; an older one would raise TypeError."""
    from inspect import signature

    return "query_tags" in signature(execute).parameters


def id_of(command: Any) -> Any:
    """Write a statement's id as ``cursor.query_id`` does, in a tenth of the time; or None."""
    guid: Any = command and command.guid
    if guid.__class__ is not bytes or len(guid) != 16:
        return command and command.to_hex_guid()
    text = guid.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def rows(cursor: Any) -> int | None:
    """Return how many rows a result has, or a statement changed; None while nobody can say."""
    changed: int = cursor.rowcount
    found = cursor.active_result_set
    if found is None or changed >= 0:
        return changed if changed >= 0 else None
    columns = found.description
    if columns and columns[0][0] == "num_affected_rows":
        return None  # a row that says how many were changed
    manifest: Any = getattr(found, "manifest", None)
    queue: Any = getattr(found, "results", None)
    total: int | None = None
    if manifest is not None:
        total = manifest.total_row_count
    elif not found.has_more_rows and hasattr(queue, "n_valid_rows"):
        total = found.rownumber + queue.n_valid_rows - queue.cur_row_index
    return total
