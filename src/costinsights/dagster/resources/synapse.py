"""Synapse's SQL pools, by pyodbc."""

from __future__ import annotations

from costinsights.dagster.resources.odbc import ODBCResource


class SynapseResource(ODBCResource):
    """Connections to a dedicated or serverless pool, and every statement has its cost.

    ::

        with synapse.get_connection() as conn:
            conn.execute("SELECT count(*) FROM orders")

    The server of a dedicated pool is shop.sql.azuresynapse.net, the serverless one's
    shop-ondemand.sql.azuresynapse.net.
    """
