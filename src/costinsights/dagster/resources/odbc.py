"""SQL Server's kind, by pyodbc: what Azure SQL and Synapse have in common."""

from __future__ import annotations

from contextlib import closing, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import Field

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("pyodbc"):
    pyodbc: Any = import_module("pyodbc")

if TYPE_CHECKING:
    from collections.abc import Generator

    from pyodbc import Connection


class ODBCResource(Resource):
    """Connections to a server of SQL Server's kind; there is no official resource."""

    server: str = Field(description="The server's host name, as shop.database.windows.net.")
    database: str = Field(description="The name of the database or pool.")
    port: int = Field(default=1433, description="The server's port.")
    user: str | None = Field(default=None, description="Who logs in.")
    password: str | None = Field(
        default=None, description='The password: best as EnvVar("MSSQL_PASSWORD").'
    )
    driver: str = Field(
        default="ODBC Driver 18 for SQL Server",
        description="The ODBC driver, by its name in odbcinst.ini or the path of its library.",
    )
    additional_parameters: dict[str, str] = Field(
        default={},
        description="More of the connection string, such as Authentication, Encrypt or Timeout.",
    )

    @contextmanager
    def get_connection(self) -> Generator[Connection]:
        """Hand out pyodbc's connection.

        What was done is committed at the end of the ``with``, and rolled back after an exception;
        then the connection is closed.
        """
        switch_on()
        # pyodbc's own `with` commits, and leaves the connection open.
        with closing(pyodbc.connect(self._connection_string())) as connection, connection:
            yield connection

    def _connection_string(self) -> str:
        words = {"DRIVER": self.driver, **self._address(), "DATABASE": self.database}
        if self.user is not None:
            words["UID"] = self.user
        if self.password is not None:
            words["PWD"] = self.password
        words |= self.additional_parameters
        return ";".join(f"{name}={_quoted(value)}" for name, value in words.items())

    def _address(self) -> dict[str, str]:
        """Microsoft's drivers want the port behind a comma, FreeTDS wants it by itself."""
        if "tds" in self.driver.lower():
            return {"SERVER": self.server, "PORT": str(self.port)}
        return {"SERVER": f"{self.server},{self.port}"}


def _quoted(value: str) -> str:
    """A value in braces is taken as it is; a closing brace in it is doubled."""
    return "{" + value.replace("}", "}}") + "}" if set(value) & set(" ;{}=[]()?*!@") else value
