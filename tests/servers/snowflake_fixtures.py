"""What the tests of Snowflake share: an emulator, and unmodified clients that talk to it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import snowflake.connector

import costinsights
from tests.servers.charges import Charges

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import pytest

    from tests.servers.snowflake_server import SnowflakeServer

VERSION = tuple(int(part) for part in snowflake.connector.__version__.split(".")[:2])
# The connector calls home, looks for a cloud around it, and warns of a change to come.
QUIET = {"SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true"}
OPTIONS: dict[str, Any] = (
    {"enable_server_session_keep_alive_auto_detection": False} if VERSION >= (5,) else {}
)


def quiet(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Keep the connector to itself."""
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SNOWFLAKE_HOME", str(home))
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


def connect(server: SnowflakeServer, **more: Any) -> Any:
    """Return a connection to the emulator."""
    return snowflake.connector.connect(**server.login(**OPTIONS, **more))


@contextmanager
def instrumented(ledger: Path, **options: Any) -> Generator[Charges]:
    """Switch costinsights on for the connector, with nothing exported."""
    costinsights.instrument("snowflake", ledger=ledger, exporters=[], **options)
    try:
        yield Charges(ledger)
    finally:
        costinsights.uninstrument()
