"""databricks-sdk's Statement Execution API on a server of ours (an emulator): a charge a statement."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from tests.servers.charges import Charges, instrumented, text_of
from tests.servers.databricks_server import Workspace, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

sdk: Any = import_module("databricks.sdk")
sql: Any = import_module("databricks.sdk.service.sql")

TOKEN = "dapi-77ac-s3cr3t"
LONG = "SELECT count(*) FROM range(1000000) a, range(10000000) b WHERE a.range % 7 = b.range % 11"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with serving() as workspace:
        yield workspace


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "databricks_sdk") as charges:
        yield charges


def statements_of(workspace: Workspace) -> Any:
    client = sdk.WorkspaceClient(host=f"http://127.0.0.1:{workspace.port}", token=TOKEN)
    return client.statement_execution


def ended(statements: Any, statement_id: str, workspace: Workspace) -> Any:
    found = workspace.find(statement_id)
    assert found is not None
    assert found.done.wait(30)
    return statements.get_statement(statement_id)


def test_a_statement_that_is_waited_for(charges: Charges, workspace: Workspace) -> None:
    statements = statements_of(workspace)
    answer = statements.execute_statement("SELECT i FROM range(12000) t(i)", "abc123")
    assert answer.manifest.total_row_count == 12000
    charge = charges.one()
    assert (charge.system, charge.instrumentor) == ("databricks", "databricks_sdk")
    assert charge.resource.address == "127.0.0.1"
    assert charge.resource.port == workspace.port
    assert charge.resource.namespace == "abc123"
    assert text_of(charge) == "SELECT i FROM range(?) t(i)"
    assert (charge.operation, charge.rows, charge.partial) == ("SELECT", 12000, False)
    assert charge.vendor_id == answer.statement_id
    statements.get_statement(answer.statement_id)
    statements.get_statement_result_chunk_n(answer.statement_id, 1)
    assert charges.new() == []
    assert TOKEN not in charges.text()


def test_one_that_is_asked_for_later(charges: Charges, workspace: Workspace) -> None:
    statements = statements_of(workspace)
    answer = statements.execute_statement(statement=LONG, warehouse_id="abc123", wait_timeout="0s")
    begun = charges.one()
    assert (begun.partial, begun.rows, begun.vendor_id) == (True, None, answer.statement_id)
    statements.get_statement(answer.statement_id)  # it still runs
    assert charges.new() == []
    statements.cancel_execution(answer.statement_id)
    assert ended(statements, answer.statement_id, workspace).status.state.value == "CANCELED"
    charge = charges.one()
    assert (charge.charge_id, charge.partial) == (begun.charge_id, False)
    assert charge.error is not None
    assert charge.error.type == "CANCELED"


def test_an_error_and_a_change(charges: Charges, workspace: Workspace) -> None:
    statements = statements_of(workspace)
    failed = statements.execute_statement("SELECT nope", "abc123")
    assert failed.status.state.value == "FAILED"
    statements.execute_statement("CREATE TABLE t (a INT)", "abc123")
    statements.execute_statement("INSERT INTO t VALUES (1), (2)", "abc123")
    error, create, insert = charges.new()
    assert error.error is not None
    assert (error.error.type, error.vendor_id, error.partial) == (
        "FAILED",
        failed.statement_id,
        False,
    )
    assert (create.rows, insert.rows) == (0, 2)


def test_a_request_that_is_refused_is_a_charge_of_nothing_started(
    charges: Charges, workspace: Workspace
) -> None:
    statements = statements_of(workspace)
    workspace.answers["/api/2.0/sql/statements"] = (
        403,
        {"error_code": "PERMISSION_DENIED", "message": "no"},
    )
    with pytest.raises(import_module("databricks.sdk.errors").PermissionDenied):
        statements.execute_statement("SELECT 1", "abc123")
    charge = charges.one()
    assert charge.error is not None
    assert (charge.vendor_id, charge.partial) == (None, False)


def session(workspace: Workspace) -> list[Any]:
    statements = statements_of(workspace)
    tag = sql.QueryTag(key="team", value="growth")
    first = statements.execute_statement("SELECT 1 AS a", "abc123", query_tags=[tag])
    second = statements.execute_statement("SELECT 2 AS a", "abc123", wait_timeout="0s")
    return [
        first.as_dict(),
        second.statement_id,
        ended(statements, second.statement_id, workspace).as_dict(),
    ]


def test_the_server_sees_the_same_bytes_with_and_without_us(tmp_path: Path) -> None:
    with serving() as workspace:
        port, bare = workspace.port, session(workspace)
        before = [(one.call, one.path, one.body) for one in workspace.requests]
    with serving(port=port) as workspace, instrumented(tmp_path, "databricks_sdk") as charges:
        assert session(workspace) == bare
        assert len(charges.new()) == 2
        after = [(one.call, one.path, one.body) for one in workspace.requests]
    assert after == before
    assert len(after) > 3


def test_native_tags_travel_with_the_statement(workspace: Workspace, tmp_path: Path) -> None:
    own = [sql.QueryTag(key="team", value="growth")]
    costinsights.instrument("databricks_sdk", ledger=tmp_path, exporters=[], tagging="native")
    try:
        statements = statements_of(workspace)
        with costinsights.attribute(asset="mart/orders", job="nightly"):
            statements.execute_statement("SELECT 1", "abc123", query_tags=own)
            statements.execute_statement("SELECT 2", "abc123")
            many = [sql.QueryTag(key=f"k{number}", value="v") for number in range(19)]
            statements.execute_statement("SELECT 3", "abc123", query_tags=many)
        charge = Charges(tmp_path).new()[0]
    finally:
        costinsights.uninstrument()
    ours = {"ci_asset": "mart.orders", "ci_job": "nightly"}
    tags = [statement.tags for statement in workspace.statements]
    assert tags[:2] == [{**ours, "team": "growth"}, ours]
    assert len(tags[2]) == 19  # there was no room
    assert [tag.key for tag in own] == ["team"]
    assert charge.tag == "ci,asset=mart.orders,job=nightly"
