"""What the readers of Synapse and of Azure SQL have in common: a connection, and how it is asked."""

from __future__ import annotations

import re
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from costinsights.settlement.history import MARK, History, HistoryError

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime

DENIED = ("297", "300", "371", "229", "permission")
"""Numbers of SQL Server's errors about permissions, and the word in their text."""
UNPOOLED = {"_enabled": False, "_initialized": True}
"""How mssql-python's switches stand where connections are not pooled."""
_NUMBER = re.compile(r"\((\d+)\)")
_DECLARED = re.compile(r"\s*\((?:@\w+ [^()@]+(?:\([\w, ]*\))?,?\s*)+\)\s*(?=\w)")
_MARKER = re.compile(r"@P\d+\b", re.IGNORECASE)
_OUR_LABEL = re.compile(
    r"\s*OPTION\s*\(LABEL = 'ci_\w*'\)\s*$|, LABEL = 'ci_\w*'(?=\)\s*$)", re.IGNORECASE
)


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a database is reached: the options of ``[settle."azure.sql"]``, and more of each."""

    user: str = ""
    password: str = ""
    authentication: str = ""
    """``ActiveDirectoryDefault`` and its like, instead of a password."""
    port: int = 1433
    driver: str = "mssql_python"
    """``mssql_python``, which brings all it needs, or ``pyodbc`` with `odbc_driver`."""
    odbc_driver: str = "ODBC Driver 18 for SQL Server"
    trust_certificate: bool = False
    """Whether any certificate will do: only for a server of one's own."""
    region: str = ""
    """The region, as the price book names it: no host name says it."""


def connection_string(given: Account, host: str, database: str) -> str:
    """Return the ODBC connection string for an account."""
    words = {
        "Server": f"{host},{given.port}",
        "Database": database,
        "UID": given.user,
        "PWD": given.password,
        "Authentication": given.authentication,
        "Encrypt": "yes",
        "TrustServerCertificate": "yes" if given.trust_certificate else "",
    }
    if given.driver == "pyodbc":
        words = {"Driver": given.odbc_driver, "APP": MARK, **words}
    return ";".join(
        f"{name}={{{value.replace('}', '}}')}}}" for name, value in words.items() if value
    )


def plain(text: str) -> str:
    """Return a statement as the program wrote it: markers, declarations and labels taken back."""
    text = _OUR_LABEL.sub("", text.rstrip())
    return _MARKER.sub("?", _DECLARED.sub("", text, count=1))


class TdsHistory(History):
    """Asks databases by TDS; one connection at a time, closed as soon as it was asked."""

    dependencies: ClassVar[str] = "costinsights[mssql_python]"
    options: Any

    def connect(self, host: str, database: str) -> Any:
        """Return a connection, which nothing keeps open in a pool when it is closed.

        Raises:
            HistoryError: the driver is missing, or there is no connection.
        """
        given: Account = self.options
        string = connection_string(given, host, database)
        try:
            driver = _driver(given.driver)
        except ImportError as error:
            raise HistoryError(
                f"{self.system}: {error}: run  pip install 'costinsights[{given.driver}]'"
            ) from None
        try:
            with _without_pool(given.driver):
                return driver.connect(string, autocommit=True)
        except Exception as error:  # noqa: BLE001  each driver's own
            # Neither the driver's nor the server's words: they may repeat what was given.
            raise HistoryError(
                f"{self.system}: no connection to {host}, database {database}, as the user of "
                f'[settle."{self.system}"] ({type(error).__name__}{_state(error)})'
            ) from None

    def ask(self, connection: Any, view: str, query: str, *, label: bool = False) -> list[Any]:
        """Return the rows of one of our own queries.

        Raises:
            HistoryError: with the grant where a permission is missing.
        """
        text = f"/* {MARK} */ {query.strip()}"
        if label:
            text += f" OPTION (LABEL = '{MARK}')"
        self.spend()
        cursor = connection.cursor()
        try:
            cursor.execute(text)
            return list(cursor.fetchall())
        except Exception as error:  # noqa: BLE001  each driver's own
            said = str(error).lower()
            if "permission" in said or any(found in DENIED for found in _NUMBER.findall(said)):
                raise self.denied(view) from None
            raise HistoryError(
                f"{self.system}: {view} cannot be read ({type(error).__name__}{_state(error)})"
            ) from None
        finally:
            cursor.close()


def moment(at: datetime) -> str:
    """Write a moment as T-SQL reads it in every language: ``2026-11-23T02:10:00.123``."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}"


def _driver(name: str) -> Any:
    if name == "pyodbc":
        driver: Any = import_module(name)
        driver.pooling = False  # unless a connection was made before, which then decides
        return driver
    if name != "mssql_python":
        raise HistoryError(f"driver is mssql_python or pyodbc, not {name!r}")
    return import_module(name)


@contextmanager
def _without_pool(name: str) -> Generator[None]:
    """Keep mssql-python from pooling what is connected here; the program's pools are left alone."""
    if name != "mssql_python":
        yield
        return
    pools: Any = import_module("mssql_python.pooling").PoolingManager
    before = {switch: getattr(pools, switch) for switch in UNPOOLED}
    try:
        for switch, value in UNPOOLED.items():
            setattr(pools, switch, value)
        yield
    finally:
        for switch, value in before.items():
            setattr(pools, switch, value)


def _state(error: BaseException) -> str:
    first: Any = error.args[0] if error.args else None
    return f" {first}" if isinstance(first, str) and re.fullmatch(r"[0-9A-Z]{5}", first) else ""
