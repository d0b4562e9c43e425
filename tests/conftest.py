"""What every test runs in: a fixed environment, no network, and real servers on request."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import hypothesis
import pytest

from tests import backends, network
from tests.backends import Server, unavailable
from tests.processes import Unavailable
from tests.servers import trino_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.trino_server import Coordinator

# How long an example takes is the machine's affair; what takes too long is for the benchmarks.
hypothesis.settings.register_profile("costinsights", deadline=None, max_examples=100)
# What holds for hundreds on one Python is only looked at on the others: `--hypothesis-profile=few`.
hypothesis.settings.register_profile("few", deadline=None, max_examples=10)
hypothesis.settings.load_profile("costinsights")

# What would make the same test pass here and fail there: our settings and OpenTelemetry's, those of
# the orchestrators that attribution reads, those of the drivers, and how a terminal looks.
FOREIGN_SETTINGS = (
    "COSTINSIGHTS_",
    "OTEL_",
    "AIRFLOW_",
    "DAGSTER_",
    "PREFECT_",
    "DBT_",
    "DD_",
    "PG",
    "MYSQL_",
    "MARIADB_",
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "PYTHONWARNINGS",
    "PYTHONDONTWRITEBYTECODE",
    "XDG_",
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "COLUMNS",
    "LINES",
)


def pytest_configure(config: pytest.Config) -> None:
    """Fix the environment before any test module is imported."""
    for name in [name for name in os.environ if name.startswith(FOREIGN_SETTINGS)]:
        del os.environ[name]
    home = tempfile.TemporaryDirectory(prefix="home-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    os.environ.update(
        HOME=home.name,  # default ledgers, and drivers' password files, are nobody's
        TZ="Asia/Kathmandu",  # UTC+05:45: what takes local time for UTC is wrong by a strange amount
        LC_ALL="C.UTF-8",
        # `costinsights`, `python`, `opentelemetry-instrument` are those of this environment.
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        **network.PROXIES,
    )
    network.guard()
    # Its C library wants a place that is soon taken, by DuckDB's or Arrow's: first come, first served.
    with contextlib.suppress(ImportError):
        importlib.import_module("_mysql_connector")


@pytest.fixture(autouse=True)
def fixed_environment() -> Iterator[None]:
    """A variable that a test sets is gone after it."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Fail a test during which anything tried to reach another machine."""
    yield
    attempts = network.refused()
    if attempts:
        pytest.fail(f"reached for another machine: {', '.join(attempts)}", pytrace=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, the same for the whole session."""
    yield from _session("PostgreSQL", backends.postgres())


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """A MariaDB server, the same for the whole session."""
    yield from _session("MariaDB", backends.mariadb())


@pytest.fixture(scope="session")
def trino_coordinator() -> Iterator[Coordinator]:
    """A Trino server, the same for the whole session."""
    yield from _session("Trino", trino_server.trino())


class _Somewhere(Protocol):
    @property
    def host(self) -> str: ...


_Found = TypeVar("_Found", bound=_Somewhere)


def _session(name: str, source: contextlib.AbstractContextManager[_Found]) -> Iterator[_Found]:
    try:
        server = source.__enter__()
    except Unavailable as reason:
        unavailable(name, reason)
    try:
        network.allow(server.host)
        yield server
    finally:
        source.__exit__(None, None, None)
