"""What the database notices: counters that must be the same with us and without.

- psycopg prepares a statement by itself once it was run often enough: how many the server keeps.
- PyMySQL turns an ``executemany`` of an INSERT into one statement: how many the server was sent.
- sqlite3 keeps compiled statements: how often SQLite asked its authorizer, which it does to compile.
- DuckDB: how many queries it logged, and with which texts.
"""

from __future__ import annotations

from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks import peers
from benchmarks.drivers import driver
from benchmarks.measuring import BARE, OURS
from benchmarks.ours import recording
from benchmarks.outcome import Figure, Outcome, Table

if TYPE_CHECKING:
    from collections.abc import Callable

    # Given how to connect and what to ask.
    Count = Callable[[Callable[[], Any], str], object]

TIMES = 20
ROWS = 1000


def measure(*, quick: bool = False) -> Outcome:
    """Run the same work bare and recorded; a figure counts the drivers where they differ."""
    rows: list[tuple[str, ...]] = []
    missing: list[str] = []
    different = 0
    for name, (text, count) in COUNTERS.items():
        try:
            found = _counts(name, count)
        except Exception as error:
            if type(error).__name__ not in ("Unavailable", "ModuleNotFoundError"):
                raise
            missing.append(name)
            continue
        different += found[0] != found[1]
        rows.append((text, *map(str, found)))
    note = f"not measured here: {', '.join(missing)}" if missing else ""
    return Outcome(
        [
            Figure("server-side", "drivers whose server-side counters differ with us",
                   different, 0, "drivers"),
        ],
        [Table("server-side effect", ("counter", BARE, OURS, peers.COMMENTER), rows, note)],
    )  # fmt: skip


def _counts(name: str, count: Count) -> tuple[object, object, object]:
    """Return what is counted bare, with us, and with OpenTelemetry's comments in the text."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="bench-"))
        found = stack.enter_context(driver(name, folder))
        telemetry = peers.OpenTelemetry()
        stack.callback(telemetry.provider.shutdown)
        bare = count(found.connect, found.query)
        commented = count(lambda: found.by_contrib(telemetry.provider, commenter=True), found.query)
        with recording(name, found.system) as recorded:
            ours = count(found.connect, found.query)
            assert recorded.writer.made > 0, f"{name}: nothing was recorded"
        return bare, ours, commented


def _prepared(connect: Callable[[], Any], query: str) -> object:
    cursor = connect().cursor()
    for number in range(TIMES):
        cursor.execute(query, (number,))
    cursor.execute("SELECT count(*) FROM pg_prepared_statements")
    return cursor.fetchone()[0]


def _sent(connect: Callable[[], Any], query: str) -> object:
    cursor = connect().cursor()
    cursor.execute("CREATE TEMPORARY TABLE bench_bulk (a INTEGER, b VARCHAR(20))")
    before = _questions(cursor)
    cursor.executemany(
        "INSERT INTO bench_bulk (a, b) VALUES (%s, %s)", [(n, f"row {n}") for n in range(ROWS)]
    )
    return _questions(cursor) - before - 1  # the second question is one too


def _questions(cursor: Any) -> int:
    cursor.execute("SHOW SESSION STATUS LIKE 'Questions'")
    return int(cursor.fetchone()[1])


def _compiled(connect: Callable[[], Any], query: str) -> object:
    connection = connect()
    asked = 0

    def authorize(*details: object) -> int:
        nonlocal asked
        asked += 1
        return 0  # SQLITE_OK

    connection.set_authorizer(authorize)
    cursor = connection.cursor()
    for number in range(TIMES):
        cursor.execute(query, (number,))
        cursor.fetchall()
    return asked


def _logged(connect: Callable[[], Any], query: str) -> object:
    cursor = connect().cursor()
    cursor.execute("CALL enable_logging('QueryLog')")
    cursor.execute("CALL truncate_duckdb_logs()")
    for number in range(TIMES):
        cursor.execute(query, (number,))
        cursor.fetchall()
    cursor.execute("SELECT count(DISTINCT message) FROM duckdb_logs WHERE message LIKE '%bench_%'")
    return cursor.fetchone()[0]


COUNTERS: dict[str, tuple[str, Count]] = {
    "psycopg": (f"PostgreSQL: statements it keeps prepared after {TIMES} runs", _prepared),
    "pymysql": (f"MariaDB: statements sent for {ROWS} rows by executemany", _sent),
    "sqlite3": (f"SQLite: questions of its compiler in {TIMES} runs", _compiled),
    "duckdb": (f"DuckDB: different texts in its log after {TIMES} runs", _logged),
}
