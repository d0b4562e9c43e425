"""What clouds say of databases, by unmodified boto3 against moto, and what an hour then costs."""

from __future__ import annotations

import os
import stat
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from costinsights import described, hourly
from costinsights.cli.app import cli
from costinsights.config import Config, load
from costinsights.describing import DescribeError, describe
from costinsights.hosts import Declared, recognise
from costinsights.pricing import PriceBook
from costinsights.records import Resource
from tests.servers.aws_server import ACCOUNT, REGION, AWSServer, aws_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ALLOWED = {"describe": ["aws.rds", "aws.redshift"]}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AWSServer]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.chdir(tmp_path)
    with aws_server() as aws:
        monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)
        reset(aws)
        aws.requests.clear()
        yield aws


def reset(aws: AWSServer) -> None:
    """Let moto forget the databases: it keeps them for as long as the process lives."""
    request = urllib.request.Request(f"{aws.url}/moto-api/reset", method="POST")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def make(aws: AWSServer) -> None:
    """Two instances, a cluster of three, a serverless one, and a Redshift cluster."""
    rds = aws.client("rds")
    common = {"MasterUsername": "admin", "MasterUserPassword": "correct-horse"}
    for name, kind, engine, multi in (
        ("orders", "db.m5.large", "postgres", False),
        ("shop", "db.t3.large", "mysql", True),
    ):
        rds.create_db_instance(
            DBInstanceIdentifier=name,
            DBInstanceClass=kind,
            Engine=engine,
            MultiAZ=multi,
            AllocatedStorage=20,
            **common,
        )
    for cluster, sizes in (("lake", ["db.t3.large"] * 3), ("spiky", ["db.serverless"])):
        rds.create_db_cluster(DBClusterIdentifier=cluster, Engine="aurora-postgresql", **common)
        for number, size in enumerate(sizes):
            rds.create_db_instance(
                DBInstanceIdentifier=f"{cluster}-{number}",
                DBClusterIdentifier=cluster,
                DBInstanceClass=size,
                Engine="aurora-postgresql",
            )
    rds.close()
    redshift = aws.client("redshift")
    redshift.create_cluster(
        ClusterIdentifier="dwh",
        NodeType="ra3.4xlarge",
        NumberOfNodes=6,
        ClusterType="multi-node",
        MasterUsername="admin",
        MasterUserPassword="Correct-horse1",
    )
    redshift.close()


def by_name(found: tuple[Declared, ...]) -> dict[str, Declared]:
    return {one.name: one for one in found}


def test_instances_and_clusters_of_rds(aws: AWSServer) -> None:
    make(aws)
    found = by_name(describe("aws.rds", REGION))
    orders, shop = found["orders"], found["shop"]
    assert (orders.system, orders.service, orders.region) == ("postgresql", "aws.rds", REGION)
    assert orders.dimensions["instance_class"] == "db.m5.large"
    assert orders.dimensions["deployment"] == "single_az"
    assert (shop.system, shop.dimensions["deployment"]) == ("mysql", "multi_az")
    assert found["lake"].service == "aws.aurora"
    assert found["spiky"].hourly == {}  # by ACUs, which change from hour to hour
    book = PriceBook.load()
    hours = {
        name: [table["price"] for table in hourly.derived([one], book).capacities]
        for name, one in found.items()
    }
    assert hours["orders"] == ["0.178"]
    assert hours["shop"] == ["0.272"]
    assert hours["lake"] == ["0.164"]
    assert hours["spiky"] == []


def test_readers_are_one_thing_that_is_paid_for(aws: AWSServer) -> None:
    make(aws)
    found = by_name(describe("aws.rds", REGION))
    readers = found.get("lake readers")
    members = [one for one in found if one.startswith("lake")]
    if readers is None:  # moto names all members writers
        assert members == ["lake"]
        assert found["lake"].hourly == {"instances": "3"}
    else:
        assert readers.hourly == {"instances": "2"}


def test_nodes_of_redshift(aws: AWSServer) -> None:
    make(aws)
    [dwh] = describe("aws.redshift", REGION)
    assert dwh.hosts[0].startswith("dwh.")
    assert (dwh.dimensions, dwh.hourly) == ({"node_type": "ra3.4xlarge"}, {"nodes": "6"})
    [hour] = hourly.derived([dwh], PriceBook.load()).capacities
    assert hour["price"] == "19.56"  # 6 × 3.26


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["prices", "describe", *words])
    return done.exit_code, done.output


def allow() -> None:
    Path("costinsights.toml").write_text('describe = ["aws.rds", "aws.redshift"]\n')


def test_nobody_is_asked_unless_the_configuration_allows_it(aws: AWSServer) -> None:
    code, said = run("aws.rds", "--region", REGION)
    assert code == 2
    assert 'describe = ["aws.rds"]' in said
    assert aws.requests == []


def test_the_command_keeps_what_it_hears(aws: AWSServer) -> None:
    make(aws)
    allow()
    code, said = run("aws.rds", "--region", REGION)
    assert (code, "0.178 USD" in said) == (0, True), said
    file = Path(described.path())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "correct-horse" not in file.read_text()
    assert ACCOUNT not in file.read_text()
    run("aws.redshift", "--region", REGION)
    run("aws.rds", "--region", REGION)  # again: it replaces what was said before
    assert [answer.service for answer in described.answers()] == ["aws.redshift", "aws.rds"]


def test_a_program_uses_what_was_heard(aws: AWSServer) -> None:
    make(aws)
    allow()
    run("aws.rds", "--region", REGION)
    aws.requests.clear()
    config = load()
    resources = hourly.resources_of(config)
    [address] = by_name(resources)["orders"].hosts
    found = recognise("postgresql", Resource(address, 5432, "shop"), resources)
    assert (found.service, found.region) == ("aws.rds", REGION)
    book, _ = hourly.price_book((), (), resources)
    capacity = book.capacity_for("postgresql", address, 5432, "shop", found.service)
    assert capacity is not None
    assert capacity.line.price_text == "0.178"
    # The user's own word goes first.
    own = {"host": address, "price": "0.10", "currency": "EUR"}
    book, _ = hourly.price_book((), [own], resources)
    capacity = book.capacity_for("postgresql", address, 5432, "shop", found.service)
    assert capacity is not None
    assert capacity.line.price_text == "0.10"
    assert aws.requests == []  # nobody was asked anything
    assert hourly.resources_of(Config("ledger")) == ()


class Denies(BaseHTTPRequestHandler):
    """AWS, to an account without any permission."""

    def do_POST(self) -> None:
        body = (
            b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
            b"<Message>User 123456789012 may not</Message></Error></ErrorResponse>"
        )
        self.send_response(403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as its base has it
        pass


def test_without_permission_it_says_what_is_missing(aws: AWSServer) -> None:
    with HTTPServer(("127.0.0.1", 0), Denies) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(DescribeError, match="AccessDenied; it needs rds:Descr") as caught:
                describe("aws.rds", REGION, endpoint_url=f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert ACCOUNT not in str(caught.value)
    with pytest.raises(DescribeError, match="nothing here can describe 'trino'"):
        describe("trino", REGION)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'[{"service": 5}]'])
def test_a_cache_that_is_broken_is_no_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = Path(described.path())
    os.makedirs(file.parent)
    file.write_bytes(content)
    assert described.resources(["aws.rds"]) == ()
    described.keep(described.Answer("aws.rds", "x", "now", (Declared("a", ("h",)),)))
    assert described.resources(["aws.rds"]) == (Declared("a", ("h",)),)


# --- an hour of what is declared ----------------------------------------------------------------

HOURS: list[tuple[dict[str, Any], str]] = [
    (
        {
            "host": "db1.abc.us-east-1.rds.amazonaws.com",
            "dimensions": {"instance_class": "db.t3.large", "deployment": "single_az"},
        },
        "0.145",
    ),
    (
        {
            "host": "orders.internal",
            "service": "aws.rds",
            "system": "mysql",
            "region": "us-east-1",
            "dimensions": {"instance_class": "db.t3.large", "deployment": "multi_az"},
        },
        "0.272",
    ),
    (
        {"host": "a.cluster-abc.us-east-1.rds.amazonaws.com", "hourly": {"acus": "2.5"}},
        "0.300",
    ),
    (
        {
            "host": "localhost",
            "port": 5439,
            "system": "aws.redshift",
            "region": "us-east-1",
            "dimensions": {"node_type": "dc2.large"},
            "hourly": {"nodes": 4},
        },
        "1.00",
    ),
    (
        {
            "host": "nightly.1.us-east-1.redshift-serverless.amazonaws.com",
            "hourly": {"rpus": 8},
        },
        "3.00",
    ),
    (
        {
            "host": "10.9.*",
            "service": "gcp.cloud_sql",
            "region": "us-central1",
            "dimensions": {"availability": "regional"},
            "hourly": {"vcpus": 2, "memory_gb": "7.5"},
        },
        "0.2702",
    ),
    (
        {
            "host": "shop.mysql.database.azure.com",
            "region": "westus",
            "dimensions": {"instance_class": "Standard_B1ms"},
        },
        "0.022",
    ),
]


@pytest.mark.parametrize(("table", "price"), HOURS)
def test_an_hour_of_what_is_declared(table: dict[str, Any], price: str) -> None:
    config = load(config={"resource": [table]})
    assert config.problems == ()
    found = hourly.derived(config.resources, PriceBook.load())
    assert found.problems == ()
    assert float(str(found.capacities[0]["price"])) == float(price)
    book, problems = hourly.price_book((), (), config.resources)
    assert problems == ()
    assert len(book.capacities) == len(found.capacities)


def test_what_has_no_price_is_said() -> None:
    table = {
        "host": "db1.abc.us-east-1.rds.amazonaws.com",
        "dimensions": {"instance_class": "db.q9.huge", "deployment": "single_az"},
    }
    [problem] = hourly.derived(
        load(config={"resource": [table]}).resources, PriceBook.load()
    ).problems
    assert problem.startswith("[[resource]] '#1' has no price: ")
    assert "db.q9.huge" in problem
