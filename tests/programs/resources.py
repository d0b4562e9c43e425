"""One resource in a real Dagster run: `python resources.py NAME`, its fields as JSON in $FIELDS.

The asset `orders` uses the resource as its users do, and prints the type of the client that it got.
A field {"env": "SECRET"} is an EnvVar.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import dagster as dg

import costinsights.dagster as ours

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.dagster import (
        ADLSResource,
        AthenaResource,
        AzureSQLResource,
        BigQueryResource,
        DatabricksResource,
        DataFactoryResource,
        DataprocResource,
        DuckDBResource,
        EMRResource,
        GCSResource,
        GlueResource,
        MySQLResource,
        PostgreSQLResource,
        PrestoResource,
        RedshiftResource,
        S3Resource,
        SnowflakeResource,
        SparkResource,
        SynapseResource,
        TrinoResource,
    )

ONE = "SELECT 1 AS one"


def adls(resource: ADLSResource) -> object:
    lake: Any = resource.adls2_client
    lake.create_file_system("lake")
    lake.get_file_client("lake", "orders").upload_data(b"7", overwrite=True)
    return lake


def athena(resource: AthenaResource) -> object:
    client: Any = resource.get_client()
    client.execute_query("SELECT 1 AS waited")
    with resource.get_connection() as connection:
        asked: Any = connection
        asked.cursor().execute(ONE)
        return connection


def azure_sql(resource: AzureSQLResource | SynapseResource) -> object:
    with resource.get_connection() as connection:
        cursor: Any = connection.cursor()
        assert [tuple(row) for row in cursor.execute(ONE).fetchall()] == [(1,)]
        return connection


def bigquery(resource: BigQueryResource) -> object:
    with resource.get_client() as client:
        asked: Any = client
        assert len(list(asked.query(ONE).result())) == 1
        return client


def databricks(resource: DatabricksResource) -> object:
    workspace: Any = resource.get_workspace_client()
    workspace.jobs.run_now(501).result()
    with resource.get_sql_client() as connection:
        cursor: Any = connection.cursor()
        cursor.execute(ONE)
        assert len(cursor.fetchall()) == 1
        return connection


def data_factory(resource: DataFactoryResource) -> object:
    with resource.get_client() as client:
        # The emulator speaks plain HTTP.
        asked: Any = client.pipelines
        asked.create_run("data", "shop", "load", enforce_https=False)
        return client


def dataproc(resource: DataprocResource) -> object:
    job = {"placement": {"cluster_name": "etl"}, "pyspark_job": {"main_python_file_uri": "gs://x"}}
    with resource.get_job_client(transport="rest") as client:
        asked: Any = client
        asked.submit_job(project_id=resource.project_id, region=resource.region, job=job)
        return client


def duckdb(resource: DuckDBResource) -> object:
    with resource.get_connection() as connection:
        assert connection.execute(ONE).fetchall() == [(1,)]
        return connection


def emr(resource: EMRResource) -> object:
    with resource.get_client() as client:
        asked: Any = client
        (cluster,) = asked.list_clusters()["Clusters"]
        step = {"Name": "etl", "HadoopJarStep": {"Jar": "command-runner.jar"}}
        asked.add_job_flow_steps(JobFlowId=cluster["Id"], Steps=[step])
        return client


def gcs(resource: GCSResource) -> object:
    client: Any = resource.get_client()
    client.create_bucket("lake").blob("orders").upload_from_string("7")
    return client


def glue(resource: GlueResource) -> object:
    with resource.get_client() as client:
        asked: Any = client
        asked.start_job_run(JobName="my_job")
        return client


def mysql(resource: MySQLResource) -> object:
    with resource.get_connection() as connection:
        cursor: Any = connection.cursor()
        cursor.execute(ONE)
        assert cursor.fetchall() == [(1,)]
        return connection


def postgresql(resource: PostgreSQLResource) -> object:
    with resource.get_connection() as conn, conn.cursor() as cur:
        cur.execute("CREATE TEMPORARY TABLE t (a int)")
        assert cur.execute(ONE).fetchall() == [(1,)]
        return conn


def query_engine(resource: TrinoResource | PrestoResource) -> object:
    with resource.get_connection() as connection:
        cursor: Any = connection.cursor()
        cursor.execute(ONE)
        assert [tuple(row) for row in cursor.fetchall()] == [(1,)]
        return connection


def redshift(resource: RedshiftResource) -> object:
    client: Any = resource.get_client()
    assert client.execute_query(ONE, fetch_results=True) == [(1,)]
    with resource.get_connection() as conn, conn.cursor() as cur:
        cur.execute(ONE)
        assert cur.fetchall() == [(1,)]
        return conn


def s3(resource: S3Resource) -> object:
    client: Any = resource.get_client()
    client.put_object(Bucket="lake", Key="orders", Body=b"7")
    return client


def snowflake(resource: SnowflakeResource) -> object:
    with resource.get_connection() as connection:
        assert connection.cursor().execute(ONE).fetchall() == [(1,)]
        return connection


def spark(resource: SparkResource) -> object:
    session: Any = resource.spark_session
    assert session.range(7).count() == 7
    return session


USES: dict[str, Callable[[Any], object]] = {
    "ADLSResource": adls,
    "AthenaResource": athena,
    "AzureSQLResource": azure_sql,
    "BigQueryResource": bigquery,
    "DataFactoryResource": data_factory,
    "DatabricksResource": databricks,
    "DataprocResource": dataproc,
    "DuckDBResource": duckdb,
    "EMRResource": emr,
    "GCSResource": gcs,
    "GlueResource": glue,
    "MySQLResource": mysql,
    "PostgreSQLResource": postgresql,
    "PrestoResource": query_engine,
    "RedshiftResource": redshift,
    "S3Resource": s3,
    "SnowflakeResource": snowflake,
    "SparkResource": spark,
    "SynapseResource": azure_sql,
    "TrinoResource": query_engine,
}


def main(name: str, fields: dict[str, Any]) -> None:
    """Materialise the asset; print what client it got, and how the resource shows itself."""
    kind: Any = getattr(ours, name)
    if name == "ADLSResource":
        from dagster_azure.adls2 import ADLS2Key

        fields["credential"] = ADLS2Key(key=dg.EnvVar("SECRET"))
    resource = kind(
        **{
            field: dg.EnvVar(value["env"]) if value == {"env": "SECRET"} else value
            for field, value in fields.items()
        }
    )

    def orders(resource: Any) -> None:
        print("shown", resource)
        client = USES[name](resource)
        print("client", f"{type(client).__module__}.{type(client).__qualname__}")

    orders.__annotations__["resource"] = kind
    orders.__annotations__["return"] = None
    dg.materialize([dg.asset(orders)], resources={"resource": resource})
    if name == "SparkResource":
        resource.spark_session.stop()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(os.environ["FIELDS"]))
