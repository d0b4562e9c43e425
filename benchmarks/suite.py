"""All benchmarks by name, in the order of the README's table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import overhead, startup, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.outcome import Outcome


def _overhead(name: str) -> Callable[[bool], Outcome]:
    return lambda quick: overhead.measure(name, quick=quick)


BENCHMARKS: dict[str, Callable[[bool], Outcome]] = {
    **{name: _overhead(name) for name in ("nulldb", "sqlite3", "duckdb", "psycopg", "pymysql")},
    "texts": lambda quick: texts.measure(quick=quick),
    "startup": lambda quick: startup.measure(quick=quick),
}
