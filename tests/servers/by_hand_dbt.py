"""dbt above the warehouses that only emulators stand for: by hand, because dbt takes its time.

    python -m pytest tests/servers/by_hand_dbt.py

dbt-databricks is not here: it speaks TLS only, which a proxy does, but begins with statements on the
catalogue (``SHOW SCHEMAS IN``) that the emulator does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.servers.aws_athena import Athena
from tests.servers.aws_server import REGION, aws_server
from tests.servers.bigquery_server import PROJECT, bigquery_server
from tests.servers.dbt_project import build
from tests.servers.snowflake_server import SnowflakeServer
from tests.servers.test_dbt import agrees, dbt

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["dbt"]  # a fixture for all of these, too


def test_snowflake(tmp_path: Path) -> None:
    quiet = {"SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true", "SNOWFLAKE_HOME": str(tmp_path / "sf")}
    with SnowflakeServer() as server:
        target = {**server.login(), "type": "snowflake", "schema": "DBT"}
        done = build(tmp_path, target, variables=quiet)
        bodies = [request.body for request in server.requests]
        agrees(done, [body["sqlText"] for body in bodies if "sqlText" in body], "snowflake")


def test_bigquery(tmp_path: Path) -> None:
    with bigquery_server() as server:
        target = {"type": "bigquery", "method": "oauth-secrets", "token": "s3cr3t-0b77"}
        place = {"project": PROJECT, "dataset": "dbt", "api_endpoint": server.url}
        done = build(tmp_path, {**target, **place})
        jobs = [request.body for request in server.asked("POST", "/jobs")]
        texts = [job["configuration"]["query"]["query"] for job in jobs]
        agrees(done, texts, "gcp.bigquery")


def test_athena(tmp_path: Path) -> None:
    with aws_server() as aws:
        athena = Athena(aws)
        # What Athena would put into the catalogue.
        glue = aws.client("glue")
        glue.create_database(DatabaseInput={"Name": "dbt"})
        glue.create_table(DatabaseName="dbt", TableInput={"Name": "sales"})
        for word in ("create ", "alter "):
            athena.seed(word, columns=[], rows=[])
        columns = [("failures", "integer"), ("should_warn", "boolean"), ("should_error", "boolean")]
        athena.seed("dbt_internal_test", columns=columns, rows=[(0, "false", "false")])
        athena.seed("nothing", state="FAILED")
        target = {"type": "athena", "region_name": REGION, "schema": "dbt"}
        place = {"database": "awsdatacatalog", "s3_staging_dir": athena.staging}
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        done = build(tmp_path, {**target, **place, **keys}, variables={"AWS_ENDPOINT_URL": aws.url})
        asked = aws.asked("athena", "StartQueryExecution")
        agrees(done, [request.params["QueryString"] for request in asked], "aws.athena")
