"""Azure SQL, by pyodbc."""

from __future__ import annotations

from costinsights.dagster.resources.odbc import ODBCResource


class AzureSQLResource(ODBCResource):
    """Connections to Azure SQL, and every statement has its cost.

    ::

        with azure_sql.get_connection() as conn:
            conn.execute("SELECT count(*) FROM orders")
    """
