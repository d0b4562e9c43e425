"""Which service a host name is: the table, and what the user declares over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costinsights.config import Config, load
from costinsights.hosts import HOSTS, Declared, Recognised, host_of, recognise
from costinsights.records import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES: list[tuple[str, str, str | None]] = [
    ("db1.abc123def.us-east-1.rds.amazonaws.com", "aws.rds", "us-east-1"),
    ("DB1.ABC123DEF.US-EAST-1.RDS.AMAZONAWS.COM.", "aws.rds", "us-east-1"),
    ("shop.proxy-abc123def.eu-west-1.rds.amazonaws.com", "aws.rds", "eu-west-1"),
    ("shop.cluster-abc123def.us-east-2.rds.amazonaws.com", "aws.aurora", "us-east-2"),
    ("shop.cluster-ro-abc123def.us-east-2.rds.amazonaws.com", "aws.aurora", "us-east-2"),
    ("any.cluster-custom-abc123def.us-east-2.rds.amazonaws.com", "aws.aurora", "us-east-2"),
    ("shop.shardgrp-abc123def.us-east-2.rds.amazonaws.com", "aws.aurora", "us-east-2"),
    ("shop.global-abc123def.global.rds.amazonaws.com", "aws.aurora", None),
    ("db1.abc123def.rds.cn-north-1.amazonaws.com.cn", "aws.rds", "cn-north-1"),
    ("db1.abc123def.cn-northwest-1.rds.amazonaws.com.cn", "aws.rds", "cn-northwest-1"),
    ("db1.cluster-abc.rds.cn-north-1.amazonaws.com.cn", "aws.aurora", "cn-north-1"),
    ("db1.abc123def.rds.us-gov-west-1.amazonaws.com", "aws.rds", "us-gov-west-1"),
    ("db1.abc123def.rds.us-iso-east-1.c2s.ic.gov", "aws.rds", "us-iso-east-1"),
    ("db1.abc123def.rds.us-isob-east-1.sc2s.sgov.gov", "aws.rds", "us-isob-east-1"),
    ("dwh.abc123def.eu-central-1.redshift.amazonaws.com", "aws.redshift", "eu-central-1"),
    ("dwh.abc123def.cn-north-1.redshift.amazonaws.com.cn", "aws.redshift", "cn-north-1"),
    (
        "wg.123456789012.us-east-1.redshift-serverless.amazonaws.com",
        "aws.redshift_serverless",
        "us-east-1",
    ),
    (
        "wg.123456789012.cn-north-1.redshift-serverless.amazonaws.com.cn",
        "aws.redshift_serverless",
        "cn-north-1",
    ),
    ("1a23b4cd5e67.1a2b345c6d27.us-central1.sql.goog", "gcp.cloud_sql", "us-central1"),
    ("1a23b4cd5e67.1a2b345c6d27.us-central1.sql-psc.goog", "gcp.cloud_sql", "us-central1"),
    ("1a23b4cd5e67.1a2b345c6d27.global.sql-psa.goog", "gcp.cloud_sql", None),
    ("/cloudsql/shop-prod:europe-west1:orders", "gcp.cloud_sql", "europe-west1"),
    ("/cloudsql/example.com:shop:europe-west1:orders", "gcp.cloud_sql", "europe-west1"),
    ("orders.postgres.database.azure.com", "azure.database", None),
    ("orders.mysql.database.azure.com", "azure.database", None),
    ("orders.mysql.database.chinacloudapi.cn", "azure.database", None),
    ("shop.database.windows.net", "azure.sql", None),
    ("mi.a1b2c3.database.windows.net", "azure.sql", None),
    ("lake-ondemand.sql.azuresynapse.net", "azure.synapse_serverless", None),
    ("lake.sql.azuresynapse.net", "azure.synapse_dedicated", None),
    ("dbc-a1b2345c-d6e7.cloud.databricks.com", "databricks", None),
    ("adb-123456789.12.azuredatabricks.net", "databricks", None),
    ("123456789.1.gcp.databricks.com", "databricks", None),
    ("data.eu.dremio.cloud", "dremio", None),
    ("acme-shop.snowflakecomputing.com", "snowflake", None),
    ("ab12345.eu-central-1.privatelink.snowflakecomputing.com", "snowflake", None),
    ("acme-etl.trino.galaxy.starburst.io", "starburst.galaxy", None),
]
OF_THEIR_OWN = ("aws.redshift", "azure.sql", "azure.synapse", "databricks", "dremio", "snowflake")
NOBODYS: list[str | None] = [
    None,
    "",
    ".",
    "localhost",
    "db.example.com",
    "10.0.0.5",
    "::1",
    "/var/run/postgresql",
    "/cloudsql/",
    "/cloudsql/orders",
    "/cloudsql/project:orders",
    "rds.amazonaws.com",
    "us-east-1.rds.amazonaws.com",
    "abc.us-east-1.rds.amazonaws.com",  # a label is missing
    "a.b.c.us-east-1.rds.amazonaws.com",  # one too many
    "db1.abc.us-east-1.rds.amazonaws.com.example.com",
    "db1.abc.us-east-1.rds.amazonaws.com.evil",
    "redshift.us-east-1.amazonaws.com",  # the API's own endpoint
    "database.windows.net",
    "notdatabase.windows.net.example",
    "x.notsnowflakecomputing.com",
]


@pytest.mark.parametrize(("name", "service", "region"), NAMES)
def test_a_name_says_service_and_region(name: str, service: str, region: str | None) -> None:
    found = recognise("postgresql", Resource(name))
    assert (found.service, found.region) == (service, region)
    of_its_own = [key for key in OF_THEIR_OWN if service.startswith(key)]
    assert found.system == (of_its_own[0] if of_its_own else "postgresql")


@pytest.mark.parametrize("name", NOBODYS)
def test_any_other_name_says_nothing(name: str | None) -> None:
    assert host_of(name) is None
    assert recognise("mysql", Resource(name, 3306, "shop")) == Recognised("mysql")


def test_every_kind_has_an_example_and_a_source() -> None:
    assert all(host.source for host in HOSTS)
    # Kinds of the same service in several zones need one example between them.
    assert {host.service for host in HOSTS} == {service for _, service, _ in NAMES}


def test_the_cloud_of_databricks_sets_its_price() -> None:
    found = recognise("databricks", Resource("adb-1.2.azuredatabricks.net"))
    assert found.dimensions == {"cloud": "azure"}


def test_what_else_is_there_stays_what_it_is() -> None:
    found = recognise("databricks.jobs", Resource("adb-1.2.azuredatabricks.net"))
    assert (found.system, found.dimensions) == ("databricks.jobs", {"cloud": "azure"})
    assert recognise("databricks_like", Resource("a.cloud.databricks.com")).system == "databricks"


def test_what_the_instrumentor_says_of_the_service_stays() -> None:
    resource = Resource("acme.snowflakecomputing.com", service="warehouse_1")
    assert recognise("snowflake", resource).service == "warehouse_1"


def test_the_first_that_says_a_fact_wins_over_the_name() -> None:
    resource = Resource("dwh.abc.us-east-1.redshift.amazonaws.com", 5439, "dev")
    declared = (
        Declared("a", ("dwh.*",), region="us-west-2", dimensions={"node_type": "ra3.4xlarge"}),
        Declared("b", ("other.*",), region="nowhere"),
        Declared("c", port=5439, region="eu-west-1", service="aws.redshift_serverless"),
    )
    assert recognise("postgresql", resource, declared) == Recognised(
        "aws.redshift", "aws.redshift_serverless", "us-west-2", {"node_type": "ra3.4xlarge"}
    )


@pytest.mark.parametrize(
    ("declared", "fits"),
    [
        (Declared("", ("localhost",)), True),
        (Declared("", ("LOCAL*",)), True),
        (Declared("", ("a", "local*")), True),
        (Declared("", ("remote",)), False),
        (Declared("", ("localhost",), port=5433), False),
        (Declared("", port=5432, database="DWH_*"), True),
        (Declared("", database="shop"), False),
    ],
)
def test_patterns(declared: Declared, fits: bool) -> None:
    assert declared.fits(Resource("LocalHost", 5432, "dwh_1")) is fits


def test_a_pattern_of_hosts_does_not_fit_a_call_without_one() -> None:
    assert not Declared("", ("db*",)).fits(Resource())
    assert Declared("", ("*",)).fits(Resource())


@given(st.text(max_size=60) | st.from_regex(r"([a-z0-9*{}-]{0,9}\.){1,9}(com|net|cn)"))
def test_no_text_is_too_strange(name: str) -> None:
    found = recognise("postgresql", Resource(name))
    assert (found.service is None) == (host_of(name) is None and not name.startswith("/cloudsql/"))


# --- the configuration --------------------------------------------------------------------------


def config_with(*tables: Mapping[str, object]) -> Config:
    return load(config={"resource": list(tables)})


def test_a_resource_of_the_configuration() -> None:
    config = config_with(
        {
            "name": "dwh",
            "host": ["dwh.internal", "10.1.*"],
            "port": 5439,
            "database": "dev",
            "system": "aws.redshift",
            "service": "aws.redshift",
            "region": "us-east-1",
            "dimensions": {"node_type": "ra3.4xlarge"},
            "hourly": {"nodes": 6},
        }
    )
    assert config.problems == ()
    assert config.resources == (
        Declared(
            "dwh",
            ("dwh.internal", "10.1.*"),
            5439,
            "dev",
            "aws.redshift",
            "aws.redshift",
            "us-east-1",
            {"node_type": "ra3.4xlarge"},
            {"nodes": "6"},
            "[[resource]]",
        ),
    )


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"host": "a"}, "say what it is: system, service, region, dimensions or hourly"),
    ({"system": "aws.redshift"}, "say which resources are meant: host, port or database"),
    ({"host": 5, "region": "x"}, "host must be text in quotes"),
    ({"host": "", "region": "x"}, "host is empty"),
    ({"port": 0, "region": "x"}, "port must be a number from 1 to 65535"),
    ({"port": "5439", "region": "x"}, "port must be a number"),
    ({"host": "a", "system": "Red shift"}, "small letters, digits, underscores and dots"),
    ({"host": "a", "dimensions": {"node_type": 4}}, "dimensions.node_type must be text"),
    ({"host": "a", "hourly": {"nodes": 1.5}}, "hourly.nodes must be text in quotes"),
    ({"host": "a", "hourly": {"nodes": "0"}}, "hourly.nodes must be more than 0"),
    ({"host": "a", "regoin": "x"}, "unknown field 'regoin'; the fields are name, host"),
]


@pytest.mark.parametrize(("table", "message"), MISTAKES)
def test_a_mistake_is_said_and_the_others_stay(table: dict[str, Any], message: str) -> None:
    config = config_with(table, {"host": "good", "region": "us-east-1"})
    assert [declared.name for declared in config.resources] == ["#2"]
    [problem] = config.problems
    assert "[[resource]]: " in problem
    assert message in problem


def test_the_line_of_a_mistake_is_named(tmp_path: Any) -> None:
    path = tmp_path / "costinsights.toml"
    path.write_text('[[resource]]\nhost = "a"\nport = 99999\nregion = "x"\n')
    [problem] = load(config=str(path)).problems
    assert f"{path}:3: [[resource]]: port must be" in problem
