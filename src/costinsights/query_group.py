"""Redshift's own tag, ``query_group``: only for those who ask for it, at the price of round trips.

``query_group`` is also what workload management (WLM) routes queries by: a label that is in its
configuration sends them to another queue. So a value that somebody has set is never touched.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from costinsights.attribution import active_scope
from costinsights.guard import suppressed
from costinsights.orchestrators import present
from costinsights.tagging import tag_of

if TYPE_CHECKING:
    from collections.abc import Generator

UNSET = frozenset(("", "unset", "default"))
"""What ``SHOW query_group`` says where nobody has set it."""
MAX_LABEL = 320
"""Characters that ``SYS_QUERY_HISTORY.query_label`` keeps; STL_QUERY keeps 30."""


@contextmanager
def query_group(connection: Any) -> Generator[str | None]:
    """Label what runs on `connection` inside with asset and job of now: ``ci,asset=…,job=…``.

    Sends ``SHOW query_group`` and, where nobody has set it, ``SET query_group`` and at the end
    ``RESET query_group``: three round trips. Gives the label, or None where it left things alone:
    there is no asset and no job, or the program has a query group of its own.

    `connection` is any DB-API connection to Redshift. The session should be in a transaction or in
    autocommit; a ``SET`` in a transaction that is rolled back is undone with it.
    """
    tag = tag_of({key: _label(key) for key in ("asset", "job")})
    if tag is None or _show(connection).strip().lower() not in UNSET:
        yield None
        return
    tag = tag[:MAX_LABEL]
    _run(connection, f"SET query_group TO '{tag}'")  # letters, digits and ,=_.- only
    try:
        yield tag
    finally:
        _run(connection, "RESET query_group")


def _label(key: str) -> str | None:
    """Ask who speaks first: the scope, the orchestrator, what holds for the whole process."""
    if (found := active_scope().labels.get(key)) is not None:
        return found
    if (context := present()) is not None and (found := context.labels.get(key)) is not None:
        return found
    from costinsights.runtime import active

    runtime = active()
    return None if runtime is None else runtime.config.labels.get(key)


def _show(connection: Any) -> str:
    with suppressed():
        cursor = connection.cursor()
        try:
            cursor.execute("SHOW query_group")
            row = cursor.fetchone()
        finally:
            cursor.close()
    return str(row[0]) if row and row[0] is not None else ""


def _run(connection: Any, statement: str) -> None:
    with suppressed():
        cursor = connection.cursor()
        try:
            cursor.execute(statement)
        finally:
            cursor.close()
