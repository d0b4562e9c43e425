"""Which system of ours a provider's service is, and where FOCUS puts it.

Sources call a service differently: Cost Explorer by its full name, the usage report by its product
code. Categories are FOCUS 1.2's, chosen as billing.md 13.4 and the FinOps toolkit's table of
services (microsoft/finops-toolkit, Services.csv, 2026-05) have them. A service that is not here
keeps its provider's name as its system, and its category is ``Other`` where the source has none.
"""

from __future__ import annotations

from typing import NamedTuple

AWS = "AWS"
AZURE = "Microsoft"
GOOGLE = "Google Cloud"
DATABRICKS = "Databricks"
SNOWFLAKE = "Snowflake"
DREMIO = "Dremio"


class Service(NamedTuple):
    """`names` are what the provider calls it, the first as it stands on the invoice."""

    system: str
    provider: str
    names: tuple[str, ...]
    category: str
    subcategory: str


_WAREHOUSE = ("Databases", "Data Warehouses")
_RELATIONAL = ("Databases", "Relational Databases")
_PROCESSING = ("Analytics", "Data Processing")
_OBJECTS = ("Storage", "Object Storage")
_ORCHESTRATION = ("Integration", "Workflow Orchestration")
_COSTS = ("Management and Governance", "Cost Management")
_NETWORK = ("Networking", "Network Connectivity")

SERVICES = (
    Service("aws.s3", AWS, ("Amazon Simple Storage Service", "AmazonS3", "Amazon S3"), *_OBJECTS),
    Service(
        "aws.athena", AWS, ("Amazon Athena", "AmazonAthena"), "Analytics", "Analytics Platforms"
    ),
    Service("aws.glue", AWS, ("AWS Glue", "AWSGlue"), *_PROCESSING),
    Service(
        "aws.emr",
        AWS,
        ("Amazon Elastic MapReduce", "ElasticMapReduce", "Amazon EMR"),
        *_PROCESSING,
    ),
    Service("aws.redshift", AWS, ("Amazon Redshift", "AmazonRedshift"), *_WAREHOUSE),
    Service("aws.rds", AWS, ("Amazon Relational Database Service", "AmazonRDS"), *_RELATIONAL),
    Service(
        "aws.ec2",
        AWS,
        (
            "Amazon Elastic Compute Cloud",
            "AmazonEC2",
            "Amazon Elastic Compute Cloud - Compute",
            "EC2 - Other",
        ),
        "Compute",
        "Virtual Machines",
    ),
    Service("aws.data_transfer", AWS, ("AWS Data Transfer", "AWSDataTransfer"), *_NETWORK),
    Service("aws.cost_explorer", AWS, ("AWS Cost Explorer", "AWSCostExplorer"), *_COSTS),
    Service("azure.storage", AZURE, ("Storage", "Storage Accounts", "Azure Storage"), *_OBJECTS),
    Service("azure.bandwidth", AZURE, ("Bandwidth",), *_NETWORK),
    Service(
        "azure.data_factory",
        AZURE,
        ("Azure Data Factory v2", "Azure Data Factory", "Data Factory"),
        *_ORCHESTRATION,
    ),
    Service("azure.synapse", AZURE, ("Azure Synapse Analytics",), *_WAREHOUSE),
    Service("azure.sql", AZURE, ("SQL Database", "Azure SQL Database"), *_RELATIONAL),
    Service(
        "azure.database",
        AZURE,
        ("Azure Database for PostgreSQL", "Azure Database for MySQL"),
        *_RELATIONAL,
    ),
    Service("azure.databricks", AZURE, ("Azure Databricks",), *_PROCESSING),
    Service("gcp.storage", GOOGLE, ("Cloud Storage",), *_OBJECTS),
    Service("gcp.bigquery", GOOGLE, ("BigQuery", "BigQuery Reservation API"), *_WAREHOUSE),
    Service("gcp.dataproc", GOOGLE, ("Cloud Dataproc", "Dataproc"), *_PROCESSING),
    Service("gcp.cloud_sql", GOOGLE, ("Cloud SQL",), *_RELATIONAL),
    Service("gcp.compute", GOOGLE, ("Compute Engine",), "Compute", "Virtual Machines"),
    Service("databricks", DATABRICKS, ("Databricks",), *_PROCESSING),
    Service("snowflake", SNOWFLAKE, ("Snowflake",), *_WAREHOUSE),
    Service("dremio", DREMIO, ("Dremio",), "Analytics", "Analytics Platforms"),
)

BY_SYSTEM = {service.system: service for service in SERVICES}
BY_NAME = {name: service for service in SERVICES for name in service.names}
