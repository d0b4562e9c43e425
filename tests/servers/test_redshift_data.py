"""The Redshift Data API by unmodified boto3: from start to final figures. Emulator: moto 5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from tests.servers.aws_server import AWSServer, aws_server
from tests.servers.charges import Charges, instrumented, text_of
from tests.servers.redshift_data import SERVICE, RedshiftData

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MS = 10**6
WHERE = {"WorkgroupName": "nightly", "Database": "dev"}


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def aws() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def data(aws: AWSServer) -> RedshiftData:
    return RedshiftData(aws)


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "botocore") as charges:
        yield charges


@pytest.fixture
def client(aws: AWSServer) -> Iterator[Any]:
    client = aws.client(SERVICE)
    yield client
    client.close()


def test_a_statement_from_start_to_end(client: Any, data: RedshiftData, charges: Charges) -> None:
    text = "SELECT * FROM orders WHERE id = 7"
    started = client.execute_statement(Sql=text, **WHERE)
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("aws.redshift", "botocore")
    assert charge.resource.namespace == "nightly"
    assert charge.resource.service == "aws.redshift_serverless"
    assert charge.resource.region == "us-east-1"
    assert text_of(charge) == "SELECT * FROM orders WHERE id = ?"
    assert (charge.vendor_id, charge.partial, charge.rows) == (started["Id"], True, None)
    client.describe_statement(Id=started["Id"])
    assert charges.new() == []  # it still runs
    data.ends_with(text, Duration=1500 * MS, ResultRows=12, ResultSize=3400, RedshiftQueryId=987654)
    client.describe_statement(Id=started["Id"])
    charge = charges.one()
    assert (charge.vendor_id, charge.partial, charge.rows) == ("987654", False, 12)
    assert charge.usage["result_bytes"] == 3400
    client.describe_statement(Id=started["Id"])
    assert charges.new() == []


def test_a_cluster_is_the_provisioned_service(
    client: Any, data: RedshiftData, charges: Charges
) -> None:
    client.execute_statement(Sql="SELECT 1", ClusterIdentifier="dwh", Database="dev", DbUser="etl")
    resource = charges.one().resource
    assert (resource.namespace, resource.service) == ("dwh", "aws.redshift")


@pytest.mark.parametrize("status", ["FAILED", "ABORTED"])
def test_an_end_that_is_not_good(
    client: Any, data: RedshiftData, charges: Charges, status: str
) -> None:
    started = client.execute_statement(Sql="SELECT nope", **WHERE)
    data.ends_with("SELECT nope", Status=status, Error="column 'secret' does not exist")
    client.describe_statement(Id=started["Id"])
    charge = charges.new()[0]
    assert charge.error is not None
    assert charge.error.type == status
    assert "secret" not in charges.text()


def test_rows_that_are_fetched_say_that_it_has_ended(
    client: Any, aws: AWSServer, charges: Charges
) -> None:
    started = client.execute_statement(Sql="SELECT * FROM street", **WHERE)
    assert charges.one().partial
    client.get_statement_result(Id=started["Id"])
    # moto says TotalNumberRows where AWS says TotalNumRows: nothing is known yet
    assert charges.new() == []
    aws.answer(SERVICE, "GetStatementResult", lambda _: {"Records": [], "TotalNumRows": 3})
    client.get_statement_result(Id=started["Id"])
    charge = charges.one()
    assert (charge.rows, charge.partial, charge.vendor_id) == (3, False, started["Id"])


def test_each_statement_of_a_batch_is_a_charge(
    client: Any, data: RedshiftData, charges: Charges
) -> None:
    texts = ["INSERT INTO a SELECT 1", "SELECT * FROM a"]
    started = client.batch_execute_statement(Sqls=texts, **WHERE)
    found = charges.new()
    assert [text_of(charge) for charge in found] == ["INSERT INTO a SELECT ?", "SELECT * FROM a"]
    assert [charge.vendor_id for charge in found] == [f"{started['Id']}:{n}" for n in (1, 2)]
    data.ends_with(texts[0], Duration=5 * MS, ResultRows=1, RedshiftQueryId=11)
    client.describe_statement(Id=started["Id"])
    assert charges.one().vendor_id == "11"
    data.ends_with(texts[1], Duration=7 * MS, ResultRows=4, RedshiftQueryId=12)
    client.describe_statement(Id=started["Id"])
    charge = charges.one()
    assert (charge.vendor_id, charge.rows) == ("12", 4)


def bodies(aws: AWSServer) -> list[dict[str, Any]]:
    # botocore makes a ClientToken of its own for each start.
    return [{**r.params, "ClientToken": None} for r in aws.asked(SERVICE)]


def script(client: Any) -> None:
    started = client.execute_statement(Sql="SELECT 1", StatementName="mine", **WHERE)
    client.describe_statement(Id=started["Id"])
    client.execute_statement(Sql="SELECT 2", **WHERE)


def test_requests_are_what_they_are_without_us(
    client: Any, aws: AWSServer, data: RedshiftData, tmp_path: Path
) -> None:
    script(client)
    bare = [{**body, "Id": None} for body in bodies(aws)]
    aws.requests.clear()
    with instrumented(tmp_path, "botocore"):
        script(client)
    assert [{**body, "Id": None} for body in bodies(aws)] == bare


@pytest.mark.parametrize("tagging", ["native", "comment"])
def test_a_tag_only_for_those_who_ask(
    client: Any, aws: AWSServer, data: RedshiftData, tmp_path: Path, tagging: str
) -> None:
    costinsights.instrument("botocore", ledger=tmp_path, exporters=[], tagging=tagging)
    try:
        with costinsights.attribute(asset="orders"):
            script(client)
    finally:
        costinsights.uninstrument()
    starts = [r.params for r in aws.asked(SERVICE, "ExecuteStatement")]
    tag = "ci,asset=orders"
    if tagging == "native":
        assert [start.get("StatementName") for start in starts] == ["mine", tag]
        assert [start["Sql"] for start in starts] == ["SELECT 1", "SELECT 2"]
        assert [charge.tag for charge in Charges(tmp_path).new()] == [None, tag]
    else:
        assert [start["Sql"] for start in starts] == [f"SELECT {n} /*{tag}*/" for n in (1, 2)]
