"""What Google Cloud, Azure and Redshift Serverless say of databases, and what an hour then costs.

Emulators: an Admin API and a Resource Manager of ours, in the shapes of their references; boto3 is
unmodified, and so are azure-core and requests.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from click.testing import CliRunner

from costinsights import hourly
from costinsights.cli.app import cli
from costinsights.describing import DescribeError, describe
from costinsights.pricing import PriceBook
from tests.servers.aws_server import REGION, aws_server

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from costinsights.hosts import Declared

    Answer = Callable[[str, dict[str, list[str]]], Any]

SUBSCRIPTION = "0b1f6471-1bf0-4dda-aec3-111122223333"
ARM = f"/subscriptions/{SUBSCRIPTION}/providers"
azure: Any = import_module("azure.core.credentials")


class API(ThreadingHTTPServer):
    """Answers GET with what a test says, and keeps what was asked."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        api = self.server
        assert isinstance(api, API)
        parts = urlsplit(self.path)
        api.asked.append((parts.path, self.headers.get("Authorization")))
        said = api.answer(parts.path, parse_qs(parts.query))
        code = said if isinstance(said, int) else 200
        text = json.dumps({} if isinstance(said, int) else said).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        pass


@contextmanager
def serving(answer: Answer) -> Generator[API]:
    with API(answer) as api:
        thread = threading.Thread(target=api.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield api
        finally:
            api.shutdown()
            thread.join()


def hours(found: tuple[Declared, ...]) -> dict[str, float | str]:
    """Return what an hour of each costs, or why that is not known."""
    book = PriceBook.load()
    prices: dict[str, float | str] = {}
    for one in found:
        derived = hourly.derived([one], book)
        amounts = [float(str(table["price"])) for table in derived.capacities]
        prices[one.name] = amounts[0] if amounts else " ".join(derived.problems)
    return prices


# --- Cloud SQL -----------------------------------------------------------------------------------


def instance(name: str, tier: str, region: str = "us-central1", **settings: Any) -> dict[str, Any]:
    return {
        "name": name,
        "connectionName": f"shop-prod:{region}:{name}",
        "region": region,
        "databaseVersion": "POSTGRES_17",
        "ipAddresses": [{"type": "PRIVATE", "ipAddress": "10.9.0.3"}],
        "dnsName": f"{name}abc.def.{region}.sql.goog.",
        "rootPassword": "s3cr3t-0b77",
        "settings": {
            "tier": tier,
            "availabilityType": "REGIONAL",
            "dataDiskType": "PD_SSD",
            "dataDiskSizeGb": "250",
            **settings,
        },
    }


def test_instances_of_cloud_sql() -> None:
    pages = {
        "1": {"items": [instance("orders", "db-custom-2-7680")], "nextPageToken": "2"},
        "2": {
            "items": [
                instance("plus", "db-perf-optimized-N-2", edition="ENTERPRISE_PLUS"),
                instance("elsewhere", "db-custom-2-7680", "europe-west4"),
                {**instance("licensed", "db-custom-2-7680"), "databaseVersion": "SQLSERVER_2022"},
            ]
        },
    }

    def answer(path: str, query: dict[str, list[str]]) -> Any:
        return pages[query.get("pageToken", ["1"])[0]]

    with serving(answer) as api:
        found = describe(
            "gcp.cloud_sql",
            "us-central1",
            account="shop-prod",
            endpoint_url=api.url,
            session=requests.Session(),
        )
        assert {path for path, _ in api.asked} == {"/v1/projects/shop-prod/instances"}
    orders, plus, licensed = found
    assert (licensed.hourly, licensed.dimensions) == ({}, {})
    assert orders.hosts == (
        "/cloudsql/shop-prod:us-central1:orders",
        "ordersabc.def.us-central1.sql.goog",
        "10.9.0.3",
    )
    assert (orders.system, orders.service) == ("postgresql", "gcp.cloud_sql")
    assert orders.hourly == {"vcpus": "2", "memory_gb": "7.5"}
    assert orders.facts == {"storage_type": "ssd", "storage_gb": "250"}
    assert plus.facts["edition"] == "enterprise_plus"
    prices = hours(found)
    assert prices["orders"] == 0.2702
    assert "db-perf-optimized-N-2" in str(prices["plus"])  # not priced as something else
    assert "s3cr3t" not in repr(found)


# --- Azure ---------------------------------------------------------------------------------------


class Credential:
    """What azure-identity would find."""

    def get_token(self, *scopes: str, **_: object) -> Any:
        assert scopes == ("https://management.azure.com/.default",)
        return azure.AccessToken("a-token", 4_000_000_000)


def server(name: str, sku: str, mode: str = "Disabled", **storage: int) -> dict[str, Any]:
    return {
        "name": name,
        "location": "West US",
        "sku": {"name": sku, "tier": "GeneralPurpose"},
        "properties": {
            "fullyQualifiedDomainName": f"{name}.postgres.database.azure.com",
            "administratorLogin": "s3cr3t-0b77",
            "highAvailability": {"mode": mode},
            "storage": {"storageSizeGB": 128, **storage},
        },
    }


def asked_azure(service: str, region: str, answer: Answer) -> tuple[tuple[Declared, ...], API]:
    with serving(answer) as api:
        found = describe(
            service,
            region,
            account=SUBSCRIPTION,
            endpoint_url=api.url,
            credential=Credential(),
        )
    return found, api


def test_flexible_servers() -> None:
    def answer(path: str, query: dict[str, list[str]]) -> Any:
        assert query["api-version"]
        if path == f"{ARM}/Microsoft.DBforPostgreSQL/flexibleServers":
            more = {**server("twice", "Standard_B1ms", "ZoneRedundant")}
            return {"value": [server("orders", "Standard_B1ms", iops=500), more]}
        assert path == f"{ARM}/Microsoft.DBforMySQL/flexibleServers"
        return {"value": [{**server("far", "Standard_B1ms"), "location": "East US"}]}

    found, api = asked_azure("azure.database", "westus", answer)
    orders, _ = found
    assert orders.hosts == ("orders.postgres.database.azure.com",)
    assert (orders.system, orders.dimensions) == ("postgresql", {"instance_class": "Standard_B1ms"})
    assert orders.facts == {"tier": "GeneralPurpose", "storage_gb": "128", "iops": "500"}
    prices = hours(found)
    assert isinstance(prices["orders"], float)
    assert "high_availability" in str(prices["twice"])  # never the price of one of its two
    assert {token for _, token in api.asked} == {"Bearer a-token"}
    assert "s3cr3t" not in repr(found)


def database(name: str, sku: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {"name": name, "location": "eastus", "sku": sku, "properties": facts}


def test_databases_of_azure_sql() -> None:
    home = f"{ARM}/Microsoft.Sql/servers/shop"
    vcores = {"name": "GP_Gen5", "tier": "GeneralPurpose", "family": "Gen5", "capacity": 4}
    serverless = {**vcores, "name": "GP_S_Gen5"}
    dtu = {"name": "Standard", "tier": "Standard", "capacity": 20}
    rows = [
        database("master", dtu, currentServiceObjectiveName="System0"),
        database("small", dtu, currentServiceObjectiveName="S1"),
        database("orders", vcores),
        database("sleepy", serverless, minCapacity=0.5),
        database("pooled", {**dtu, "name": "ElasticPool"}, elasticPoolId=f"{home}/elasticPools/p"),
    ]

    def answer(path: str, query: dict[str, list[str]]) -> Any:
        if path == f"{ARM}/Microsoft.Sql/servers":
            name = {"fullyQualifiedDomainName": "shop.database.windows.net"}
            return {"value": [{"name": "shop", "id": home, "location": "x", "properties": name}]}
        assert path == f"{home}/databases"
        return {"value": rows}

    found, _ = asked_azure("azure.sql", "eastus", answer)
    assert [one.name.partition("/")[2] for one in found] == ["small", "orders", "sleepy", "pooled"]
    assert {(one.system, one.hosts, one.region) for one in found} == {
        ("azure.sql", ("shop.database.windows.net",), "eastus")
    }
    assert [one.database for one in found] == ["small", "orders", "sleepy", "pooled"]
    prices = hours(found)
    book = PriceBook.load()
    four = {"provisioned_vcores": "4", "existing_seconds": "3600"}
    quote = book.quote("azure.sql", four, "eastus", tier="general_purpose", hardware="gen5")
    assert quote.amount
    assert prices["shop/orders"] == float(quote.amount)
    assert isinstance(prices["shop/small"], float)
    # What is billed by use, or with others, has no hour of its own.
    assert (prices["shop/sleepy"], prices["shop/pooled"]) == ("", "")


def refuse(path: str, query: dict[str, list[str]]) -> int:
    return 403


@pytest.mark.parametrize(
    ("service", "region", "grant"),
    [
        ("gcp.cloud_sql", "us-central1", "says 403; it needs cloudsql.instances.list"),
        ("azure.database", "westus", "says 403; it needs Microsoft.DBforPostgreSQL"),
        ("azure.sql", "eastus", "says 403; it needs Microsoft.Sql/servers/read"),
    ],
)
def test_without_permission_it_says_what_is_missing(service: str, region: str, grant: str) -> None:
    with serving(refuse) as api:
        access: dict[str, Any] = {"credential": Credential()}
        if service == "gcp.cloud_sql":
            access = {"session": requests.Session()}
        with pytest.raises(DescribeError, match=grant):
            describe(service, region, account="a", endpoint_url=api.url, **access)


@pytest.mark.parametrize("answer", ["[]", '{"items": 5}', '{"items": [{"region": "us-central1"}]}'])
def test_an_answer_of_another_shape_is_no_answer(answer: str) -> None:
    def say(path: str, query: dict[str, list[str]]) -> Any:
        return json.loads(answer)

    with serving(say) as api:
        access: dict[str, Any] = {"account": "a", "endpoint_url": api.url}
        access["session"] = requests.Session()
        with pytest.raises(DescribeError, match="no answer"):
            describe("gcp.cloud_sql", "us-central1", **access)


# --- Redshift Serverless, and the command --------------------------------------------------------


def test_workgroups_of_redshift_serverless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "costinsights.toml").write_text('describe = ["aws.redshift_serverless"]\n')
    host = f"nightly.123456789012.{REGION}.redshift-serverless.amazonaws.com"
    group = {
        "workgroupName": "nightly",
        "baseCapacity": 8,
        "maxCapacity": 64,
        "port": 5439,
        "endpoint": {"address": host, "port": 5439},
    }
    coming = {"workgroupName": "coming", "baseCapacity": 8}
    with aws_server() as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        aws.answer(
            "redshift-serverless", "ListWorkgroups", lambda _: {"workgroups": [group, coming]}
        )
        (found,) = describe("aws.redshift_serverless", REGION)
        assert (found.hosts, found.port) == ((host,), 5439)
        assert (found.hourly, found.facts) == ({"rpus": "8"}, {"max_rpus": "64"})
        assert hours((found,)) == {"nightly": 3.0}  # 8 × 0.375
        words = ["prices", "describe", "aws.redshift_serverless", "--region", REGION]
        done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "3.00 USD" in done.output
    assert "1 resource kept" in done.output


def test_the_command_says_what_it_cannot_know(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "costinsights.toml").write_text('describe = ["azure.sql"]\n')
    done = CliRunner().invoke(cli, ["prices", "describe", "azure.sql", "--region", "eastus"])
    assert done.exit_code == 1
    assert "--account SUBSCRIPTION, or AZURE_SUBSCRIPTION_ID" in done.output
