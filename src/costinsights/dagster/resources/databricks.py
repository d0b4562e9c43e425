"""Databricks, by `dagster_databricks` and by databricks-sql-connector."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import Field

from costinsights.dagster.resources.base import Resource, needed, switch_on

with needed("dagster-databricks"):
    from dagster_databricks import DatabricksClientResource as Official

if TYPE_CHECKING:
    from dagster_databricks import DatabricksClient
    from databricks.sdk import WorkspaceClient
    from databricks.sql.client import Connection


class DatabricksResource(Resource, Official):
    """`dagster_databricks.DatabricksClientResource`, and each statement and job run has its cost.

    ::

        with databricks.get_sql_client() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")

        databricks.get_workspace_client().jobs.run_now(501).result()
    """

    http_path: str | None = Field(
        default=None,
        description="The warehouse or cluster of get_sql_client(): /sql/1.0/warehouses/….",
    )
    sql_parameters: dict[str, Any] = Field(
        default={},
        description="More arguments of databricks.sql.connect(), such as catalog or schema.",
    )

    def get_client(self) -> DatabricksClient:
        """Return Dagster's client; `get_workspace_client` is what it works with."""
        switch_on()
        return super().get_client()

    def get_workspace_client(self) -> WorkspaceClient:
        """Return databricks-sdk's client."""
        return self.get_client().workspace_client

    def get_sql_client(self) -> Connection:
        """Return databricks-sql-connector's connection, which ``with`` closes."""
        with needed("databricks-sql-connector"):
            sql: Any = import_module("databricks.sql")

        if not self.http_path:
            raise ValueError("get_sql_client() needs DatabricksResource(http_path=...)")
        settings = self.get_workspace_client().config
        arguments: dict[str, Any] = {
            "server_hostname": settings.hostname,
            "http_path": self.http_path,
            # The SDK's own, whatever it is: a token, OAuth, Azure's service principal.
            "credentials_provider": lambda: settings.authenticate,
        }
        connection: Connection = sql.connect(**arguments | self.sql_parameters)
        return connection
