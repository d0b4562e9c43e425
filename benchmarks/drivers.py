"""The drivers that are measured: how each connects, what it is asked, and who else wraps it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib import import_module
from time import thread_time_ns
from typing import TYPE_CHECKING, Any

from benchmarks import nulldb, peers
from benchmarks.measuring import WARM_UP
from benchmarks.ours import NULL

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from opentelemetry.sdk.trace import TracerProvider

    from tests.backends import Server

TABLE = "CREATE TABLE bench_orders (id INTEGER PRIMARY KEY, customer VARCHAR(40), total INTEGER)"
ROWS = ", ".join(f"({number}, 'customer {number}', {number * 7})" for number in range(100))


class Driver:
    """A client library, with a database behind it."""

    name: str
    system: str
    query = "SELECT id, customer, total FROM bench_orders WHERE id = %s"
    calls = 200
    """How often it is called in a round."""
    warm_up = WARM_UP
    quick_rounds = 25
    clock: Callable[[], int] = staticmethod(thread_time_ns)
    """What is measured, ns."""
    reads: tuple[bool, ...] = (False, True)
    """Whether a call reads its rows; each of these is measured."""
    contrib = True
    """OpenTelemetry contrib has an instrumentor of that name."""
    shared = True
    """Hooks are placed on classes that all lanes share, and taken away for the others' turns."""

    def __init__(self) -> None:
        self.module: Any = import_module(self.name)

    def connect(self) -> Any:
        """Return a connection of this driver, as it now is."""
        raise NotImplementedError

    def version(self) -> str:
        """Return the versions that the figures depend on."""
        return f"{self.name} {self.module.__version__}"

    def ours(self) -> Any:
        """Return a connection whose calls are recorded while our hooks are in place."""
        return self.connect()

    def by_contrib(self, provider: TracerProvider, *, commenter: bool = False) -> Any:
        """Return a connection that OpenTelemetry's instrumentation watches."""
        if not self.contrib:
            return peers.contrib_connection(
                self.connect(), self.module, self.system, provider, commenter=commenter
            )
        with peers.contrib(self.name, provider, commenter=commenter):
            return self.connect()

    def by_ddtrace(self) -> Any:
        """Return a connection that ddtrace watches, by its integration or what that is made of."""
        return peers.ddtrace_connection(self.connect(), self.system)

    def prepare(self) -> None:
        """Make the table that is read."""
        cursor = self.connect().cursor()
        cursor.execute("DROP TABLE IF EXISTS bench_orders")
        cursor.execute(TABLE)
        cursor.execute(f"INSERT INTO bench_orders VALUES {ROWS}")

    def call(self, connection: Any, *, read: bool) -> Callable[[], object]:
        """Return what runs the query once and, with `read`, fetches its row."""
        cursor = connection.cursor()
        query = self.query

        def run() -> None:
            cursor.execute(query, (7,))

        def run_and_read() -> None:
            cursor.execute(query, (7,))
            cursor.fetchall()

        return run_and_read if read else run


class Null(Driver):
    """The driver that does nothing: what is added to it is nearly all there is."""

    name = NULL
    system = NULL
    shared = False
    reads = (False,)
    contrib = False

    def __init__(self) -> None:
        self.module = nulldb
        self._copies = 0

    def connect(self) -> Any:
        self._copies += 1
        return nulldb.another(f"copy{self._copies}").connect()

    def ours(self) -> Any:
        return nulldb.connect()

    def version(self) -> str:
        return "the null driver of benchmarks/nulldb.py"

    def prepare(self) -> None:
        pass


class SQLite(Driver):
    name = "sqlite3"
    system = "sqlite"
    query = "SELECT id, customer, total FROM bench_orders WHERE id = ?"

    def __init__(self, folder: str) -> None:
        super().__init__()
        self._path = os.path.join(folder, "bench.sqlite")

    def connect(self) -> Any:
        return self.module.connect(self._path, isolation_level=None)

    def version(self) -> str:
        return f"SQLite {self.module.sqlite_version}"

    def by_contrib(self, provider: TracerProvider, *, commenter: bool = False) -> Any:
        if commenter:  # its own instrumentor has no such option
            return peers.contrib_connection(
                self.connect(), self.module, self.system, provider, commenter=True
            )
        return super().by_contrib(provider)


class DuckDB(Driver):
    name = "duckdb"
    system = "duckdb"
    query = "SELECT id, customer, total FROM bench_orders WHERE id = ?"
    contrib = False

    def __init__(self) -> None:
        super().__init__()
        # One thread, because only the calling thread's CPU is measured.
        self._home = self.module.connect(":memory:bench", config={"threads": 1})

    def connect(self) -> Any:
        return self.module.connect(":memory:bench", config={"threads": 1})


class Psycopg(Driver):
    name = "psycopg"
    system = "postgresql"

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._dsn = server.dsn

    def connect(self) -> Any:
        return self.module.connect(self._dsn, autocommit=True)

    def version(self) -> str:
        return f"{super().version()} ({self.module.pq.__impl__})"


class PyMySQL(Driver):
    name = "pymysql"
    system = "mysql"

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def connect(self) -> Any:
        server = self._server
        return self.module.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            database=server.database,
            autocommit=True,
        )


NAMES = (NULL, "sqlite3", "duckdb", "psycopg", "pymysql")
WAREHOUSES = ("trino", "redshift_connector", "databricks_sql", "snowflake", "pyodbc")


@contextmanager
def driver(name: str, folder: str) -> Generator[Driver]:
    """Give the driver of that name, with a server where it needs one.

    Raises:
        tests.processes.Unavailable: there is no way to such a server here.
        ImportError: the driver is not installed.
    """
    from benchmarks.warehouses import CLIENTS

    with ExitStack() as stack:
        found: Driver
        if name == NULL:
            found = Null()
        elif name == "sqlite3":
            found = SQLite(folder)
        elif name == "duckdb":
            found = DuckDB()
        elif name in CLIENTS:
            found = CLIENTS[name](stack)
        else:
            kind = {"psycopg": Psycopg, "pymysql": PyMySQL}[name]
            found = kind(stack.enter_context(_server(name)))
        found.prepare()
        yield found


def _server(name: str) -> AbstractContextManager[Server]:
    from tests import backends

    given = os.environ.get(SERVER + name)
    if given:
        return nullcontext(unpack(given))
    return backends.postgres() if name == "psycopg" else backends.mariadb()


# A server that the parent process has started for several benchmarks in a row.
SERVER = "COSTINSIGHTS_BENCH_SERVER_"


def pack(server: Server) -> str:
    """Write a server down for a child process."""
    import msgspec

    return msgspec.json.encode(server).decode()


def unpack(text: str) -> Server:
    """Read what `pack` wrote."""
    import msgspec

    from tests.backends import Server

    return msgspec.json.decode(text, type=Server)
