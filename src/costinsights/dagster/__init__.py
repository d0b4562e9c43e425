"""What Dagster users import: resources, cost metadata, scheduled assets, checks, sensors.

::

    import dagster as dg
    from costinsights.dagster import CostInsightsResource

    defs = dg.Definitions(assets=[...], resources={"costinsights": CostInsightsResource()})

docs/dagster.md shows all of it. Importing this imports neither Dagster nor any client: a name is
looked up where it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costinsights.later import later

if TYPE_CHECKING:
    from costinsights.dagster.budget import create_budget_sensor, create_cost_observations_sensor
    from costinsights.dagster.checks import build_cost_checks
    from costinsights.dagster.component import CostInsightsComponent
    from costinsights.dagster.cost_report import create_cost_report_asset
    from costinsights.dagster.dbt_events import with_costs
    from costinsights.dagster.reporting import report_costs
    from costinsights.dagster.resources.adls import ADLSResource
    from costinsights.dagster.resources.athena import AthenaResource
    from costinsights.dagster.resources.azure_sql import AzureSQLResource
    from costinsights.dagster.resources.bigquery import BigQueryResource
    from costinsights.dagster.resources.costinsights import CostInsightsResource
    from costinsights.dagster.resources.data_factory import DataFactoryResource
    from costinsights.dagster.resources.databricks import DatabricksResource
    from costinsights.dagster.resources.dataproc import DataprocResource
    from costinsights.dagster.resources.duckdb import DuckDBResource
    from costinsights.dagster.resources.emr import EMRResource
    from costinsights.dagster.resources.gcs import GCSResource
    from costinsights.dagster.resources.glue import GlueResource
    from costinsights.dagster.resources.mysql import MySQLResource
    from costinsights.dagster.resources.postgresql import PostgreSQLResource
    from costinsights.dagster.resources.presto import PrestoResource
    from costinsights.dagster.resources.redshift import RedshiftResource
    from costinsights.dagster.resources.s3 import S3Resource
    from costinsights.dagster.resources.snowflake import SnowflakeResource
    from costinsights.dagster.resources.spark import SparkResource
    from costinsights.dagster.resources.synapse import SynapseResource
    from costinsights.dagster.resources.trino import TrinoResource
    from costinsights.dagster.scheduled import (
        create_adls_insights_asset_and_schedule,
        create_aws_insights_asset_and_schedule,
        create_azure_insights_asset_and_schedule,
        create_bill_asset_and_schedule,
        create_databricks_insights_asset_and_schedule,
        create_focus_insights_asset_and_schedule,
        create_gcp_insights_asset_and_schedule,
        create_gcs_insights_asset_and_schedule,
        create_s3_insights_asset_and_schedule,
        get_cost_data_for_day,
        get_cost_data_for_hour,
    )
    from costinsights.dagster.settled import create_settlement_asset_and_schedule

__all__ = [
    "ADLSResource",
    "AthenaResource",
    "AzureSQLResource",
    "BigQueryResource",
    "CostInsightsComponent",
    "CostInsightsResource",
    "DataFactoryResource",
    "DatabricksResource",
    "DataprocResource",
    "DuckDBResource",
    "EMRResource",
    "GCSResource",
    "GlueResource",
    "MySQLResource",
    "PostgreSQLResource",
    "PrestoResource",
    "RedshiftResource",
    "S3Resource",
    "SnowflakeResource",
    "SparkResource",
    "SynapseResource",
    "TrinoResource",
    "build_cost_checks",
    "create_adls_insights_asset_and_schedule",
    "create_aws_insights_asset_and_schedule",
    "create_azure_insights_asset_and_schedule",
    "create_bill_asset_and_schedule",
    "create_budget_sensor",
    "create_cost_observations_sensor",
    "create_cost_report_asset",
    "create_databricks_insights_asset_and_schedule",
    "create_focus_insights_asset_and_schedule",
    "create_gcp_insights_asset_and_schedule",
    "create_gcs_insights_asset_and_schedule",
    "create_s3_insights_asset_and_schedule",
    "create_settlement_asset_and_schedule",
    "get_cost_data_for_day",
    "get_cost_data_for_hour",
    "report_costs",
    "with_costs",
]

# Where each public name is; a module is named as it is called within this package.
_PLACES = {
    "ADLSResource": "resources.adls",
    "AthenaResource": "resources.athena",
    "AzureSQLResource": "resources.azure_sql",
    "BigQueryResource": "resources.bigquery",
    "CostInsightsComponent": "component",
    "CostInsightsResource": "resources.costinsights",
    "DataFactoryResource": "resources.data_factory",
    "DatabricksResource": "resources.databricks",
    "DataprocResource": "resources.dataproc",
    "DuckDBResource": "resources.duckdb",
    "EMRResource": "resources.emr",
    "GCSResource": "resources.gcs",
    "GlueResource": "resources.glue",
    "MySQLResource": "resources.mysql",
    "PostgreSQLResource": "resources.postgresql",
    "PrestoResource": "resources.presto",
    "RedshiftResource": "resources.redshift",
    "S3Resource": "resources.s3",
    "SnowflakeResource": "resources.snowflake",
    "SparkResource": "resources.spark",
    "SynapseResource": "resources.synapse",
    "TrinoResource": "resources.trino",
    "build_cost_checks": "checks",
    "create_adls_insights_asset_and_schedule": "scheduled",
    "create_aws_insights_asset_and_schedule": "scheduled",
    "create_azure_insights_asset_and_schedule": "scheduled",
    "create_bill_asset_and_schedule": "scheduled",
    "create_budget_sensor": "budget",
    "create_cost_observations_sensor": "budget",
    "create_cost_report_asset": "cost_report",
    "create_databricks_insights_asset_and_schedule": "scheduled",
    "create_focus_insights_asset_and_schedule": "scheduled",
    "create_gcp_insights_asset_and_schedule": "scheduled",
    "create_gcs_insights_asset_and_schedule": "scheduled",
    "create_s3_insights_asset_and_schedule": "scheduled",
    "create_settlement_asset_and_schedule": "settled",
    "get_cost_data_for_day": "scheduled",
    "get_cost_data_for_hour": "scheduled",
    "report_costs": "reporting",
    "with_costs": "dbt_events",
}


__getattr__ = later(__name__, _PLACES)


def __dir__() -> list[str]:
    # `dg` imports what stands here, and looks which of it is a component: what needs a client that
    # is not installed would be an error in every project. Editors read `__all__`.
    return sorted({*globals(), "CostInsightsComponent"})
