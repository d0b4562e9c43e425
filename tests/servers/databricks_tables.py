"""The system tables of the Databricks emulator, and Databricks' SQL as DuckDB reads it.

Column names are those of Databricks' documentation (admin/system-tables: query-history, billing,
pricing, jobs), as far as anything here reads them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import sqlglot
from sqlglot import exp

pa: Any = import_module("pyarrow")  # comes without types

_TAGS = pa.map_(pa.string(), pa.string())
_PERIOD = [("period_start_time", pa.timestamp("us")), ("period_end_time", pa.timestamp("us"))]

SYSTEM_TABLES = {
    "query.history": pa.schema(
        [
            ("workspace_id", pa.string()),
            ("statement_id", pa.string()),
            ("session_id", pa.string()),
            ("execution_status", pa.string()),
            ("compute", pa.struct([("type", pa.string()), ("warehouse_id", pa.string())])),
            ("executed_by", pa.string()),
            ("executed_as", pa.string()),
            ("statement_text", pa.string()),
            ("statement_type", pa.string()),
            ("error_message", pa.string()),
            ("client_application", pa.string()),
            ("client_driver", pa.string()),
            ("total_duration_ms", pa.int64()),
            ("waiting_for_compute_duration_ms", pa.int64()),
            ("waiting_at_capacity_duration_ms", pa.int64()),
            ("execution_duration_ms", pa.int64()),
            ("compilation_duration_ms", pa.int64()),
            ("total_task_duration_ms", pa.int64()),
            ("result_fetch_duration_ms", pa.int64()),
            ("start_time", pa.timestamp("us")),
            ("end_time", pa.timestamp("us")),
            ("update_time", pa.timestamp("us")),
            ("read_rows", pa.int64()),
            ("produced_rows", pa.int64()),
            ("read_bytes", pa.int64()),
            ("spilled_local_bytes", pa.int64()),
            ("written_bytes", pa.int64()),
            ("shuffle_read_bytes", pa.int64()),
            ("from_result_cache", pa.bool_()),
            ("query_tags", _TAGS),
        ]
    ),
    "billing.usage": pa.schema(
        [
            ("record_id", pa.string()),
            ("account_id", pa.string()),
            ("workspace_id", pa.string()),
            ("sku_name", pa.string()),
            ("cloud", pa.string()),
            ("usage_start_time", pa.timestamp("us")),
            ("usage_end_time", pa.timestamp("us")),
            ("usage_date", pa.date32()),
            ("usage_unit", pa.string()),
            ("usage_quantity", pa.decimal128(38, 18)),
            (
                "usage_metadata",
                pa.struct(
                    [
                        ("warehouse_id", pa.string()),
                        ("cluster_id", pa.string()),
                        ("job_id", pa.string()),
                        ("job_run_id", pa.string()),
                        ("job_name", pa.string()),
                        ("run_name", pa.string()),
                        ("node_type", pa.string()),
                        ("dlt_pipeline_id", pa.string()),
                        ("dlt_update_id", pa.string()),
                        ("endpoint_id", pa.string()),
                        ("endpoint_name", pa.string()),
                    ]
                ),
            ),
            ("custom_tags", _TAGS),
            ("identity_metadata", pa.struct([("run_as", pa.string())])),
            ("record_type", pa.string()),
            ("ingestion_date", pa.date32()),
            ("billing_origin_product", pa.string()),
            ("usage_type", pa.string()),
        ]
    ),
    "billing.list_prices": pa.schema(
        [
            ("price_start_time", pa.timestamp("us")),
            ("price_end_time", pa.timestamp("us")),
            ("sku_name", pa.string()),
            ("cloud", pa.string()),
            ("currency_code", pa.string()),
            ("usage_unit", pa.string()),
            (
                "pricing",
                pa.struct(
                    [
                        ("default", pa.decimal128(38, 18)),
                        ("effective_list", pa.struct([("default", pa.decimal128(38, 18))])),
                    ]
                ),
            ),
        ]
    ),
    "lakeflow.job_run_timeline": pa.schema(
        [
            ("workspace_id", pa.string()),
            ("job_id", pa.string()),
            ("run_id", pa.string()),
            *_PERIOD,
            ("run_type", pa.string()),
            ("run_name", pa.string()),
            ("result_state", pa.string()),
            ("termination_code", pa.string()),
        ]
    ),
    "lakeflow.job_task_run_timeline": pa.schema(
        [
            ("workspace_id", pa.string()),
            ("job_id", pa.string()),
            ("run_id", pa.string()),
            ("job_run_id", pa.string()),
            *_PERIOD,
            ("task_key", pa.string()),
            ("compute_ids", pa.list_(pa.string())),
            ("result_state", pa.string()),
        ]
    ),
    "lakeflow.pipeline_update_timeline": pa.schema(
        [
            ("workspace_id", pa.string()),
            ("pipeline_id", pa.string()),
            ("update_id", pa.string()),
            *_PERIOD,
            ("result_state", pa.string()),
        ]
    ),
}

# The same, as SEA's clients ask for it: with statements, whose columns have other names.
SHOWS = {
    "SHOW CATALOGS": "SELECT 'main' AS catalog",
    "SHOW SCHEMAS": "SELECT schema_name AS databaseName, 'main' AS catalogName"
    " FROM information_schema.schemata WHERE catalog_name = current_database() ORDER BY ALL",
    "SHOW TABLES": "SELECT table_schema AS namespace, table_name AS tableName, false AS isTemporary,"
    " '' AS information, 'main' AS catalogName, 'TABLE' AS tableType FROM information_schema.tables"
    " WHERE table_catalog = current_database() ORDER BY ALL",
    "SHOW COLUMNS": "SELECT column_name AS col_name, 'main' AS catalogName,"
    " table_schema AS namespace, table_name AS tableName, data_type AS columnType"
    " FROM information_schema.columns WHERE table_catalog = current_database() ORDER BY ALL",
}


def duckdb_sql(text: str) -> str:
    """Write Databricks' SQL as DuckDB's, with its system tables where ours are."""
    if show := SHOWS.get(" ".join(text.split()[:2]).upper()):
        return show
    tree = sqlglot.parse_one(text, read="databricks")
    for table in tree.find_all(exp.Table):
        if table.catalog.lower() == "system":
            table.set("catalog", None)
            table.set("db", exp.to_identifier(f"system_{table.db.lower()}"))
    for kind in tree.find_all(exp.DataType):
        if kind.this == exp.DataType.Type.TIMESTAMPTZ:  # the tables have UTC, and say nothing of it
            kind.set("this", exp.DataType.Type.TIMESTAMP)
    return tree.sql(dialect="duckdb")
