"""Each Dagster resource in a real run: the ordinary client, and a charge for the asset.

The run is in Dagster's own environment; the servers that it talks to are in this process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from costinsights.ledger.reader import read_ledger
from tests.backends import unavailable
from tests.environments import environment, lent
from tests.processes import Unavailable
from tests.servers import azure_server, dataproc_server, lake_server, spark_session, trino_emulator
from tests.servers.aws_athena import Athena
from tests.servers.aws_emr import EMR
from tests.servers.aws_glue import Glue
from tests.servers.aws_server import AWSServer, aws_server
from tests.servers.bigquery_server import bigquery_server
from tests.servers.databricks_server import serving
from tests.servers.emr_runs import FLOW
from tests.servers.gcs_server import gcs_server
from tests.servers.https_tunnel import https_tunnel
from tests.servers.identity_server import identity_server
from tests.servers.redshift_server import redshift
from tests.servers.snowflake_fixtures import QUIET
from tests.servers.snowflake_server import SnowflakeServer
from tests.servers.tds_clients import FREETDS, MICROSOFT, odbc
from tests.servers.tds_server import tds_server

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from costinsights.records import Charge
    from tests.backends import Server
    from tests.servers.trino_server import Coordinator

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "programs"
SECRET: dict[str, str] = {"env": "SECRET"}
REGION = "us-east-1"
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}


class Ran(NamedTuple):
    """What became of a run."""

    client: str
    """The type of the client that the asset got."""
    charges: dict[str, Charge]
    """The asset's charges, by what was done."""


@pytest.fixture
def interpreter() -> Path:
    try:
        return environment("dagster") / "bin" / "python"
    except Unavailable as error:
        unavailable("dagster", error)


class Runs:
    """Runs resources in a folder."""

    def __init__(self, interpreter: Path, folder: Path) -> None:
        self.interpreter = interpreter
        self.folder = folder

    def python(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Dagster's interpreter, with this package lent to it."""
        given = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        given |= {
            "PYTHONPATH": str(lent(self.folder / "packages")),
            "HOME": str(self.folder),
            "COSTINSIGHTS_LEDGER": str(self.folder / "ledger"),
            "COSTINSIGHTS_EXPORTERS": "none",
            "COSTINSIGHTS_STRICT": "1",
            **variables,
        }
        return subprocess.run(
            [self.interpreter, *words],
            cwd=self.folder,
            env=given,
            capture_output=True,
            check=False,
            text=True,
            timeout=300,
        )

    def __call__(
        self,
        name: str,
        fields: dict[str, Any],
        secret: str = "s3cr3t-77ac",
        rules: Collection[str] = ("dagster",),
        **variables: str,
    ) -> Ran:
        """Run an asset that uses the resource; all of its charges must be the asset's."""
        program = str(PROGRAMS / "resources.py")
        given = {**variables, "FIELDS": json.dumps(fields), "SECRET": secret}
        done = self.python(program, name, **given)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        assert secret not in done.stdout + done.stderr
        latest = {charge.charge_id: charge for charge in read_ledger(str(self.folder / "ledger"))}
        assert len({charge.attribution.pop("run") for charge in latest.values()}) == 1
        assert {charge.attribution.pop("rule") for charge in latest.values()} == {*rules}
        for charge in latest.values():
            assert charge.attribution == {
                "job": "__ephemeral_asset_job__",
                "task": "orders",
                "asset": "orders",
                "attempt": "1",
            }
        ledger = [path for path in (self.folder / "ledger").rglob("*") if path.is_file()]
        assert not [path for path in ledger if secret.encode() in path.read_bytes()]
        said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        return Ran(said["client"], {what(charge): charge for charge in latest.values()})


def what(charge: Charge) -> str:
    """Name a charge by its statement, or by the operation."""
    return charge.operation if charge.statement is None else charge.statement.text


@pytest.fixture
def ran(interpreter: Path, tmp_path: Path) -> Runs:
    return Runs(interpreter, tmp_path)


@pytest.fixture(scope="module")
def aws() -> Iterator[AWSServer]:
    with aws_server() as server:
        yield server


def where(server: Server) -> dict[str, Any]:
    account = {"user": server.user, "password": SECRET, "database": server.database}
    return {"host": server.host, "port": server.port, **account}


def stands_for(folder: Path, system: str) -> None:
    """Say what a server here stands for, which elsewhere its host name says."""
    text = f'[[resource]]\nhost = "127.0.0.1"\nsystem = "{system}"\n'
    (folder / "costinsights.toml").write_text(text, encoding="utf-8")


ONE = "SELECT ? AS one"


# --- real servers --------------------------------------------------------------------------------


def test_postgresql(ran: Runs, postgres: Server) -> None:
    found = ran("PostgreSQLResource", where(postgres), postgres.password)
    assert found.client == "psycopg.Connection"
    assert found.charges.keys() == {"CREATE TEMPORARY TABLE t (a int)", ONE}
    assert {charge.system for charge in found.charges.values()} == {"postgresql"}


def test_mysql(ran: Runs, mariadb: Server) -> None:
    found = ran("MySQLResource", where(mariadb), mariadb.password)
    assert found.client == "mysql.connector.connection_cext.CMySQLConnection"
    assert found.charges[ONE].system == "mariadb"


def test_duckdb(ran: Runs) -> None:
    found = ran("DuckDBResource", {"database": ":memory:"})
    assert found.client == "_duckdb.DuckDBPyConnection"
    assert found.charges[ONE].system == "duckdb"


def test_trino(ran: Runs, trino_coordinator: Coordinator) -> None:
    fields = {"host": trino_coordinator.host, "port": trino_coordinator.port, "user": "me"}
    found = ran("TrinoResource", {**fields, "catalog": "tpch"})
    assert found.client == "trino.dbapi.Connection"
    assert (found.charges[ONE].system, found.charges[ONE].rows) == ("trino", 1)


def test_spark(ran: Runs) -> None:
    try:
        spark = spark_session.spark("4")
    except Unavailable as reason:
        unavailable("Spark", reason)
    variables = {
        "PYSPARK_PYTHON": str(ran.interpreter),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    if spark.java_home is not None:
        variables["JAVA_HOME"] = spark.java_home
    fields = {"spark_config": {"spark.master": "local[1]", "spark.ui.enabled": "false"}}
    # An action is charged when Spark tells of its end, to whom it was begun for.
    found = ran("SparkResource", fields, rules=("dagster", "scope"), **variables)
    assert found.client == "pyspark.sql.session.SparkSession"
    assert {charge.system for charge in found.charges.values()} == {"spark"}


@pytest.mark.parametrize("name", ["DuckDBResource", "PostgreSQLResource"])
def test_the_oldest_dagster(tmp_path: Path, postgres: Server, name: str) -> None:
    try:
        ran = Runs(environment("dagster111") / "bin" / "python", tmp_path)
    except Unavailable as error:
        unavailable("dagster111", error)
    fields = {"database": ":memory:"} if name == "DuckDBResource" else where(postgres)
    assert ONE in ran(name, fields, postgres.password).charges


# --- AWS, on moto --------------------------------------------------------------------------------


def at(server: AWSServer) -> dict[str, Any]:
    account = {"aws_access_key_id": "test", "aws_secret_access_key": SECRET}
    return {"endpoint_url": server.url, "region_name": REGION, **account}


def test_glue(ran: Runs, aws: AWSServer) -> None:
    glue = Glue(aws)
    glue.job("my_job")
    found = ran("GlueResource", at(aws))
    assert found.client == "botocore.client.Glue"
    charge = found.charges["JOB"]
    assert (charge.system, charge.resource.namespace) == ("aws.glue", "my_job")
    assert charge.partial  # nobody has waited for it
    glue.close()


def test_emr(ran: Runs, aws: AWSServer) -> None:
    EMR(aws)
    aws.client("emr").run_job_flow(**FLOW)
    found = ran("EMRResource", at(aws))
    assert found.client == "botocore.client.EMR"
    (charge,) = found.charges.values()
    assert (charge.system, charge.partial) == ("aws.emr", True)


def test_athena(ran: Runs, aws: AWSServer) -> None:
    Athena(aws).seed("", scanned=2**40, columns=(("one", "integer"),), rows=[(1,)])
    fields = {"region_name": REGION, "polling_interval": 0, "s3_staging_dir": "s3://results/"}
    found = ran("AthenaResource", fields, AWS_ENDPOINT_URL=aws.url, **AWS)
    assert found.client == "pyathena.connection.Connection"
    assert found.charges.keys() == {ONE, "SELECT ? AS waited"}
    assert {charge.amount for charge in found.charges.values()} == {"5.000000000000000"}


def test_s3(ran: Runs, aws: AWSServer) -> None:
    aws.client("s3").create_bucket(Bucket="lake")
    found = ran("S3Resource", at(aws))
    assert found.client == "botocore.client.S3"
    (charge,) = found.charges.values()
    assert (charge.system, charge.resource.namespace) == ("aws.s3", "lake")


def test_redshift(ran: Runs, tmp_path: Path, postgres: Server) -> None:
    stands_for(tmp_path, "aws.redshift")
    with redshift(postgres) as server:
        fields: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "user": server.user,
            "password": SECRET,
            "database": server.database,
            "sslmode": "disable",
        }
        found = ran("RedshiftResource", fields, server.password)
    assert found.client == "psycopg2.extensions.connection"
    assert found.charges[ONE].system == "aws.redshift"
    assert len(found.charges) == 1


# --- Google, on our servers ----------------------------------------------------------------------


def test_gcs(ran: Runs) -> None:
    try:
        with gcs_server() as server:
            fields = {"project": "shop"}
            found = ran("GCSResource", fields, STORAGE_EMULATOR_HOST=server.url)
    except Unavailable as reason:
        unavailable("Cloud Storage", reason)
    assert found.client == "google.cloud.storage.client.Client"
    assert {charge.system for charge in found.charges.values()} == {"gcp.storage"}


def test_bigquery(ran: Runs) -> None:
    with bigquery_server() as server, identity_server("x") as variables:
        server.seed("", billed=2**40, processed=2**40, slot_ms=7)
        fields = {"project": "analytics"}
        found = ran("BigQueryResource", fields, BIGQUERY_EMULATOR_HOST=server.url, **variables)
    assert found.client == "google.cloud.bigquery.client.Client"
    charge = found.charges[ONE]
    assert (charge.system, charge.amount) == ("gcp.bigquery", "6.250000000000000")


def test_dataproc(ran: Runs) -> None:
    with dataproc_server.dataproc_server() as server, identity_server("x") as variables:
        fields = {
            "project_id": dataproc_server.PROJECT,
            "region": dataproc_server.REGION,
            "cluster_name": "etl",
            "api_endpoint": server.rest,
        }
        found = ran("DataprocResource", fields, **variables)
    kind = "google.cloud.dataproc_v1.services.job_controller.client.JobControllerClient"
    assert found.client == kind
    (charge,) = found.charges.values()
    assert (charge.system, charge.partial) == ("gcp.dataproc", True)


# --- Azure, on our servers -----------------------------------------------------------------------


TDS = {
    FREETDS: {"TDS_Version": "7.4"},
    MICROSOFT: {"Encrypt": "yes", "TrustServerCertificate": "yes"},
}


@pytest.mark.parametrize(
    ("name", "system", "driver"),
    [
        ("AzureSQLResource", "azure.sql", MICROSOFT),
        ("SynapseResource", "azure.synapse", FREETDS),
    ],
)
def test_sql_servers(ran: Runs, tmp_path: Path, name: str, system: str, driver: str) -> None:
    stands_for(tmp_path, system)
    with tds_server() as server:
        fields: dict[str, Any] = {
            "server": server.host,
            "port": server.port,
            "user": server.user,
            "password": SECRET,
            "database": server.database,
            "driver": odbc(driver).strip("{}"),
            "additional_parameters": TDS[driver],
        }
        found = ran(name, fields, server.password)
    assert found.client == "pyodbc.Connection"
    assert found.charges[ONE].system == system


def test_data_factory(ran: Runs) -> None:
    with (
        azure_server.azure_server() as server,
        identity_server(azure_server.TOKEN) as variables,
    ):
        server.pipeline("load", azure_server.copy())
        fields = {
            "subscription_id": azure_server.SUBSCRIPTION,
            "additional_parameters": {"base_url": server.url},
        }
        found = ran("DataFactoryResource", fields, azure_server.TOKEN, **variables)
    assert found.client == "azure.mgmt.datafactory._client.DataFactoryManagementClient"
    (charge,) = found.charges.values()
    assert (charge.system, charge.partial) == ("azure.data_factory", True)


def test_adls(ran: Runs, tmp_path: Path) -> None:
    account = lake_server.ACCOUNT
    names = [f"{account}.{kind}.core.windows.net" for kind in ("dfs", "blob")]
    fields = {"storage_account": account, "credential": SECRET}
    with (
        lake_server.lake_server() as server,
        https_tunnel(tmp_path, server.port, *names, prefix=f"/{account}") as variables,
    ):
        found = ran("ADLSResource", fields, lake_server.KEY, **variables)
    kind = "azure.storage.filedatalake._data_lake_service_client.DataLakeServiceClient"
    assert found.client == kind
    assert {charge.system for charge in found.charges.values()} == {"azure.storage"}


# --- others, on our servers ----------------------------------------------------------------------


def test_presto(ran: Runs) -> None:
    with trino_emulator.emulating("X-Presto") as server:
        fields = {"host": server.host, "port": server.port, "user": "me", "catalog": "tpch"}
        found = ran("PrestoResource", fields)
    assert found.client == "prestodb.dbapi.Connection"
    assert found.charges[ONE].system == "presto"


def test_databricks(ran: Runs) -> None:
    with serving() as workspace:
        workspace.jobs.settings[501] = {
            "name": "nightly",
            "tasks": [{"task_key": "load", "notebook_task": {"notebook_path": "/etl"}}],
        }
        url, path = f"http://127.0.0.1:{workspace.port}", "/sql/1.0/warehouses/abc123"
        parameters: dict[str, Any] = {
            "enable_telemetry": False,
            "_port": workspace.port,
            "_connection_uri": f"{url}{path}",
            "_retry_stop_after_attempts_count": 1,
        }
        fields = {"host": url, "token": SECRET, "http_path": path, "sql_parameters": parameters}
        found = ran("DatabricksResource", fields)
    assert found.client == "databricks.sql.client.Connection"
    assert found.charges[ONE].system == "databricks"
    assert found.charges["RUN JOB"].system == "databricks.jobs"


def test_snowflake(ran: Runs) -> None:
    with SnowflakeServer() as server:
        login = server.login()
        kept = ("user", "account", "database", "schema", "warehouse")
        fields: dict[str, Any] = {name: login[name] for name in kept}
        fields["password"] = SECRET
        more = {name: login[name] for name in ("host", "port", "protocol")}
        more["enable_server_session_keep_alive_auto_detection"] = False
        fields["additional_snowflake_connection_args"] = more
        found = ran("SnowflakeResource", fields, login["password"], **QUIET)
    assert found.client == "snowflake.connector.connection.SnowflakeConnection"
    assert found.charges[ONE].system == "snowflake"


# --- what holds for all --------------------------------------------------------------------------

WITHOUT = """
import json, sys
import costinsights.dagster as ours

OTHERS = ("azure", "boto3", "prestodb", "psycopg", "psycopg2", "pyodbc", "trino")

class Missing:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first in OTHERS or first.startswith("dagster_") and first != "dagster_shared":
            raise ModuleNotFoundError(f"No module named {name!r}", name=first)

import dagster
sys.meta_path.insert(0, Missing())
said = {}
for name in ours.__all__:
    if name.endswith("Resource"):
        try:
            getattr(ours, name)
        except ModuleNotFoundError as error:
            said[name] = str(error)
print(json.dumps(said))
"""
PAGE = ROOT / "docs" / "dagster" / "resources.md"


def test_every_resource_is_as_the_page_says(ran: Runs) -> None:
    done = ran.python(str(PROGRAMS / "resource_facts.py"))
    assert done.returncode == 0, done.stderr[-4000:]
    facts: dict[str, dict[str, Any]] = json.loads(done.stdout)
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (?:`[\w.]+\.(\w+)`)? ?\|", page, re.MULTILINE)
    facts.pop("CostInsightsResource")
    assert {name: fact.pop("official") or "" for name, fact in facts.items()} == dict(rows)
    assert {name for name, fact in facts.items() if not fact["is_ours"]} == set()
    assert {name for name, fact in facts.items() if not fact["described"]} == set()
    assert {name: fact["undescribed"] for name, fact in facts.items() if fact["undescribed"]} == {}


def test_a_missing_package_is_named(ran: Runs) -> None:
    done = ran.python("-c", WITHOUT)
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, str] = json.loads(done.stdout)
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` .*\| `([^`]+)`[^|]* \|$", page, re.MULTILINE)
    assert said.keys() == dict(rows).keys()  # CostInsightsResource needs nothing but Dagster
    for name, package in rows:
        quoted = f"'{package}'" if "[" in package else package
        assert f" is not installed: pip install {quoted}" in said[name]


def test_secrets_are_not_shown(ran: Runs) -> None:
    program = """
import costinsights.dagster as ours

print(ours.PostgreSQLResource(host="db", password="s3cr3t", additional_parameters={"x": "s3cr3t"}))
print(repr(ours.S3Resource(region_name="mars", aws_secret_access_key="s3cr3t")))
print(ours.SnowflakeResource(account="acme", user="me", password="s3cr3t", private_key_password="s3cr3t"))
print(ours.DatabricksResource(host="adb", token="s3cr3t", sql_parameters={"access_token": "s3cr3t"}))
"""
    done = ran.python("-c", program)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "s3cr3t" not in done.stdout
    assert [word in done.stdout for word in ("db", "mars", "acme", "adb")] == [True] * 4


# --- the resource that switches on ---------------------------------------------------------------

SWITCHED_ON = """
import os, sqlite3
import dagster as dg
from costinsights.dagster import CostInsightsResource
from costinsights.runtime import active

def query():
    connection = sqlite3.connect(":memory:")
    connection.cursor().execute("SELECT 1 AS one").fetchall()
    connection.close()

@dg.asset
def asks_for_nothing():
    query()

@dg.asset(deps=[asks_for_nothing])
def asks(costinsights: CostInsightsResource):
    query()
    print("calls", costinsights.cost().calls)

defs = dg.Definitions(
    assets=[asks_for_nothing, asks],
    resources={"costinsights": CostInsightsResource(
        ledger=dg.EnvVar("LEDGER"), exporters=["memory"], labels={"team": dg.EnvVar("TEAM")},
    )},
    jobs=[dg.define_asset_job("every")],
)
print("on", active() is not None and active().config.exporters)

def every():
    return defs.resolve_job_def("every")

if __name__ == "__main__":
    instance = dg.DagsterInstance.get()
    print("once", every().execute_in_process(instance=instance).success)
    # Each step in a process of its own, which loads the definitions anew.
    workers = dg.reconstructable(every)
    print("workers", dg.execute_job(workers, instance=instance).success)
"""


def test_one_line_switches_a_code_location_on(ran: Runs, tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text(SWITCHED_ON, encoding="utf-8")
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    done = ran.python(
        str(program), LEDGER=str(tmp_path / "mine"), TEAM="growth", DAGSTER_HOME=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "on ('memory',)" in done.stdout
    assert "once True" in done.stdout
    assert "workers True" in done.stdout
    assert "calls 1" in done.stdout
    charges = {charge.charge_id: charge for charge in read_ledger(str(tmp_path / "mine"))}.values()
    asked = Counter(charge.attribution["asset"] for charge in charges if what(charge) == ONE)
    assert asked == {"asks_for_nothing": 2, "asks": 2}
    assert {charge.attribution["team"] for charge in charges} == {"growth"}
    assert not (tmp_path / "ledger").exists()


def test_a_variable_that_is_not_set_does_not_break_the_code_location(ran: Runs) -> None:
    done = ran.python("-c", SWITCHED_ON.partition("if __name__")[0], TEAM="growth")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "on ('memory',)" in done.stdout
    assert "LEDGER is not set" in done.stderr


ALONE = """
import dagster as dg
from costinsights.dagster import DuckDBResource

@dg.asset
def orders(duckdb: DuckDBResource):
    with duckdb.get_connection() as connection:
        connection.execute("SELECT 1 AS one")

instance = dg.DagsterInstance.ephemeral()
resources = {"duckdb": DuckDBResource(database=":memory:")}
assert dg.materialize([orders], resources=resources, instance=instance).success
told = [
    event.asset_materialization or event.asset_observation
    for found in (instance.fetch_materializations, instance.fetch_observations)
    for event in found(dg.AssetKey("orders"), limit=9).records
]
print(sum(one.metadata["costinsights/calls"].value for one in told if "costinsights/calls" in one.metadata))
"""


def test_a_resource_alone_tells_dagster(ran: Runs) -> None:
    done = ran.python("-c", ALONE, COSTINSIGHTS_EXPORTERS="")
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == ["1"]
