"""The clients of warehouses and query engines, each unmodified, on the servers that the tests use.

A call is a statement from its `execute` to its last row: what such a client has to say is final only
then, so that most of them write an entry at the start and one at the end.

Such a client takes milliseconds for a statement, and no two of them the same: what anybody adds
would drown in that. So the clock stands still inside of the client's own methods (`Inside`); what it
shows is the work of whoever has wrapped them, and the loop's.
"""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager, suppress
from functools import wraps
from importlib import import_module
from inspect import isfunction, ismethoddescriptor
from time import thread_time_ns
from typing import TYPE_CHECKING, Any

from benchmarks.drivers import Driver
from benchmarks.elsewhere import elsewhere
from benchmarks.ours import instrumentor_of, places
from costinsights.unlocked import unlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Inside:
    """A clock of this thread's CPU that stands still while a client's own methods run."""

    def __init__(self) -> None:
        self._spent = 0
        self._depth = 0

    def __call__(self) -> int:
        """Read the clock, ns."""
        return thread_time_ns() - self._spent

    def shim(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, with the clock stopped in it."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return function(*args, **kwargs)
            self._depth = 1
            began = thread_time_ns()
            try:
                return function(*args, **kwargs)
            finally:
                self._spent += thread_time_ns() - began
                self._depth = 0

        return timed

    def place(self, name: str, connection: Any, stack: ExitStack) -> None:
        """Stop the clock in what a call calls, and in all that our instrumentor would hook."""
        found = places(instrumentor_of(name))
        with closing(connection), closing(connection.cursor()) as cursor:
            called: list[tuple[type[Any], str]] = [(type(connection), "cursor")]
            called += [(type(cursor), method) for method in ("execute", "fetchall", "close")]
            for kind, attribute in called:
                owner = next(each for each in kind.__mro__ if attribute in vars(each))
                found[owner, attribute] = True, vars(owner)[attribute]
        for (owner, attribute), (own, value) in found.items():
            if own and (isfunction(value) or ismethoddescriptor(value)):
                with unlocked(owner):
                    setattr(owner, attribute, self.shim(value))
                stack.callback(_put_back, owner, attribute, value)


def _put_back(owner: Any, attribute: str, value: Any) -> None:
    with unlocked(owner):
        setattr(owner, attribute, value)


class Warehouse(Driver):
    """A client whose server is started for it, and ended by `stack`."""

    calls = 12
    warm_up = 3
    quick_rounds = 9
    reads = (True,)
    contrib = False
    query = "SELECT range AS id, 'x' AS customer FROM range(3)"
    module_name: str

    distribution: str

    def __init__(self, stack: ExitStack) -> None:
        self.module: Any = import_module(self.module_name)
        self.server: Any = stack.enter_context(elsewhere("benchmarks.warehouses:served", self.name))
        self._stack = stack
        self.clock = Inside()
        self.clock.place(self.name, self.open(), stack)

    def connect(self) -> Any:
        connection = self.open()
        self._stack.callback(_close, connection)
        return connection

    def open(self) -> Any:
        """Connect to the server."""
        raise NotImplementedError

    @staticmethod
    def serve(stack: ExitStack) -> dict[str, Any]:
        """Start the server, and say what `open` needs to know of it."""
        raise NotImplementedError

    def version(self) -> str:
        from importlib.metadata import version

        return f"{self.distribution} {version(self.distribution)}, on the tests' server"

    def prepare(self) -> None:
        pass

    def call(self, connection: Any, *, read: bool) -> Callable[[], object]:
        query = self.query

        def run_and_read() -> None:
            cursor = connection.cursor()
            cursor.execute(query)
            cursor.fetchall()
            cursor.close()

        return run_and_read


def _close(connection: Any) -> None:
    with suppress(Exception):
        connection.close()


class Trino(Warehouse):
    name = system = "trino"
    module_name = "trino.dbapi"
    distribution = "trino"

    @staticmethod
    def serve(stack: ExitStack) -> dict[str, Any]:
        from tests.servers.trino_emulator import emulating

        server = stack.enter_context(emulating("X-Trino-"))
        return {"host": server.host, "port": server.port}

    def open(self) -> Any:
        server = self.server
        return self.module.connect(host=server.host, port=server.port, user="bench")


class Redshift(Warehouse):
    name = "redshift_connector"
    system = "aws.redshift"
    module_name = distribution = "redshift_connector"
    query = "SELECT generate_series(1, 3) AS id, 'x' AS customer"

    @staticmethod
    def serve(stack: ExitStack) -> dict[str, Any]:
        from tests import backends
        from tests.servers.redshift_server import redshift

        server = stack.enter_context(redshift(stack.enter_context(backends.postgres())))
        words = ("host", "port", "user", "password", "database")
        return {word: getattr(server, word) for word in words}

    def open(self) -> Any:
        connection = self.module.connect(**vars(self.server), ssl=False)
        connection.autocommit = True
        return connection


class Databricks(Warehouse):
    name = "databricks_sql"
    system = "databricks"
    module_name = "databricks.sql"
    distribution = "databricks-sql-connector"

    @staticmethod
    def serve(stack: ExitStack) -> dict[str, Any]:
        from tests.servers.databricks_server import serving

        return {"port": stack.enter_context(serving()).port}

    def open(self) -> Any:
        path = "/sql/1.0/warehouses/bench"
        return self.module.connect(
            server_hostname="127.0.0.1",
            http_path=path,
            access_token="bench",
            enable_telemetry=False,
            _port=self.server.port,
            _connection_uri=f"http://127.0.0.1:{self.server.port}{path}",
        )


class Snowflake(Warehouse):
    name = system = "snowflake"
    module_name = "snowflake.connector"
    distribution = "snowflake-connector-python"

    @staticmethod
    def serve(stack: ExitStack) -> dict[str, Any]:
        from tests.servers.snowflake_server import SnowflakeServer

        return stack.enter_context(SnowflakeServer()).login()

    def open(self) -> Any:
        from tests.servers.snowflake_fixtures import OPTIONS

        return self.module.connect(**vars(self.server), **OPTIONS)


class PyODBC(Warehouse):
    name = "pyodbc"
    system = "azure.sql"
    module_name = distribution = "pyodbc"
    query = "SELECT 1 AS id, 'x' AS customer"

    @staticmethod
    def serve(stack: ExitStack) -> dict[str, Any]:
        from tests.servers.tds_clients import connection_string
        from tests.servers.tds_server import tds_server

        return {"dsn": connection_string(stack.enter_context(tds_server()))}

    def open(self) -> Any:
        return self.module.connect(self.server.dsn, autocommit=True)


CLIENTS: dict[str, type[Warehouse]] = {
    kind.name: kind for kind in (Trino, Redshift, Databricks, Snowflake, PyODBC)
}


@contextmanager
def served(name: str) -> Generator[dict[str, Any]]:
    """Run the server of a client."""
    with ExitStack() as stack:
        yield CLIENTS[name].serve(stack)
