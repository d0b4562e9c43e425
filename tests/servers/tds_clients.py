"""How the clients of SQL Server are had here, and how they reach a test's server."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import costinsights
from tests.backends import require, unavailable
from tests.servers.charges import Charges

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.servers.tds_server import TdsServer

FREETDS, MICROSOFT = "FreeTDS", "Microsoft's ODBC driver 18"
DRIVERS = (FREETDS, MICROSOFT)


def pyodbc() -> Any:
    """Import pyodbc; Debian's unixodbc has the library that its wheel leaves out."""
    return require("pyodbc")


def odbc(name: str) -> str:
    """Return what stands under DRIVER= for an ODBC driver; skips, or fails in CI, without it."""
    if name != MICROSOFT:
        if name not in pyodbc().drivers():
            unavailable(
                f"the ODBC driver {name}", "Debian: tdsodbc, libsqliteodbc, odbc-postgresql"
            )
        return name
    package = importlib.util.find_spec("mssql_python_odbc")
    if package is None or package.origin is None:
        unavailable(MICROSOFT, "PyPI: mssql-python-odbc")
    libraries = Path(package.origin).parent / "libs" / "linux" / "debian_ubuntu"
    found = sorted(libraries.rglob("libmsodbcsql-*.so*"))
    if not found:
        unavailable(MICROSOFT, f"no library below {libraries}")
    return f"{{{found[0]}}}"


def connection_string(server: TdsServer, name: str = FREETDS, **more: str) -> str:
    """Return an ODBC connection string for the server."""
    where = (
        f"SERVER={server.host};PORT={server.port};TDS_Version=7.4"
        if name == FREETDS
        else f"SERVER={server.host},{server.port};Encrypt=yes;TrustServerCertificate=yes"
    )
    account = f"UID={server.user};PWD={server.password};DATABASE={server.database}"
    words = "".join(f";{key}={value}" for key, value in more.items())
    return f"DRIVER={odbc(name)};{where};{account}{words}"


@contextmanager
def instrumented(ledger: Path, name: str, **settings: Any) -> Generator[Charges]:
    """Switch costinsights on for a test, with these settings."""
    costinsights.instrument(name, ledger=ledger, exporters=[], **settings)
    try:
        yield Charges(ledger)
    finally:
        costinsights.uninstrument()


def as_resource(service: str, system: str = "azure.synapse", **more: Any) -> dict[str, Any]:
    """Return a configuration that says what a test's server stands for."""
    return {"resource": [{"host": "127.0.0.1", "system": system, "service": service, **more}]}


def processed(scanned: int, moved: int = 0, written: int = 0, statement: str = "") -> str:
    """Return the message of a serverless pool, in megabytes."""
    return (
        f"Statement ID: {{{statement or '6F9619FF-8B86-D011-B42D-00C04FC964FF'}}} | Query hash: "
        f"0xC0FFEE | Distributed request ID: {{6BC9E4B0-0000-0000-0000-000000000000}}. Total size "
        f"of data scanned is {scanned} megabytes, total size of data moved is {moved} megabytes, "
        f"total size of data written is {written} megabytes."
    )
