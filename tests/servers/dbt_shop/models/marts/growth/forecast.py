"""A Python model: of DuckDB only, where it runs in dbt's own process."""

from typing import Any


def model(dbt: Any, session: Any) -> Any:
    """Return the table."""
    dbt.config(materialized="table")
    daily = dbt.ref("revenue_daily")
    return session.sql(f"select avg(cents) as cents from ({daily.sql_query()})")
