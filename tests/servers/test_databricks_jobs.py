"""databricks-sdk's jobs and pipelines on a server of ours (an emulator): a charge a run."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights import following
from costinsights.systems.databricks_jobs import ended, figures
from tests.servers.charges import Charges, instrumented
from tests.servers.databricks_server import Workspace, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from costinsights.records import Charge

sdk: Any = import_module("databricks.sdk")
jobs: Any = import_module("databricks.sdk.service.jobs")
compute: Any = import_module("databricks.sdk.service.compute")
errors: Any = import_module("databricks.sdk.errors")

TOKEN = "dapi-77ac-s3cr3t"
SECRET = "s3cr3t-parameter"
PIPELINE = "0b7d1a3c-9d6e-4c57-b5c4-0e6a7c9f1d22"
NIGHTLY = 501
CLUSTER = {
    "spark_version": "15.4.x-scala2.12",
    "node_type_id": "i3.xlarge",
    "num_workers": 3,
    "runtime_engine": "STANDARD",
}


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


def job(tasks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"name": "nightly", "tasks": tasks, **more}


def task(key: str = "load", **more: Any) -> dict[str, Any]:
    return {"task_key": key, "notebook_task": {"notebook_path": "/etl"}, **more}


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with serving() as workspace:
        workspace.jobs.settings[NIGHTLY] = job([task(new_cluster=CLUSTER)])
        yield workspace


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "databricks_sdk") as charges:
        yield charges


def client_of(workspace: Workspace) -> Any:
    return sdk.WorkspaceClient(host=f"http://127.0.0.1:{workspace.port}", token=TOKEN)


def used(charge: Charge) -> dict[str, Any]:
    return {name: value for name, value in charge.usage.items() if name != "time_ns"}


# --- from start to end ------------------------------------------------------------------------------


def test_a_run_that_is_started_and_waited_for(charges: Charges, workspace: Workspace) -> None:
    wait = client_of(workspace).jobs.run_now(NIGHTLY, job_parameters={"key": SECRET})
    begun = charges.one()
    assert (begun.system, begun.instrumentor) == ("databricks.jobs", "databricks_sdk")
    assert (begun.operation, begun.vendor_id) == ("RUN JOB", str(wait.run_id))
    assert (begun.partial, begun.amount, begun.basis) == (True, None, "unknown")
    assert (begun.resource.namespace, begun.resource.port) == (str(NIGHTLY), workspace.port)
    assert wait.result().run_id == wait.run_id
    charge = charges.one()
    assert (charge.charge_id, charge.partial, charge.error) == (begun.charge_id, False, None)
    assert used(charge) == {
        "run_seconds": 600,
        "tasks": 1,
        "task_seconds": 600,
        "cluster_seconds": 600,
        "node_seconds": 2400,
        "node_type": "i3.xlarge",
        "workload": "jobs",
    }
    assert charge.amount is None  # no DBUs are in any answer, and none are guessed
    assert SECRET not in charges.text()
    assert TOKEN not in charges.text()


def test_the_methods_that_wait_are_one_start_each(charges: Charges, workspace: Workspace) -> None:
    client = client_of(workspace)
    client.jobs.run_now_and_wait(NIGHTLY)
    ran = charges.one()
    tasks = [
        jobs.SubmitTask(
            task_key="once",
            notebook_task=jobs.NotebookTask(notebook_path="/once"),
            new_cluster=compute.ClusterSpec(**{**CLUSTER, "runtime_engine": None}),
        )
    ]
    client.jobs.submit_and_wait(run_name="once", tasks=tasks)
    submitted = charges.one()
    assert (ran.operation, ran.partial) == ("RUN JOB", False)
    assert (submitted.operation, submitted.partial) == ("SUBMIT RUN", False)
    assert submitted.resource.namespace is None
    assert submitted.usage["nodes"] == 4  # of the request
    assert submitted.usage["node_seconds"] == 2400  # of the answer
    assert workspace.calls().count("POST /api/2.2/jobs/run-now") == 1


def test_a_client_of_before_and_one_that_asks_by_hand(tmp_path: Path, workspace: Workspace) -> None:
    """As Dagster's `get_workspace_client()` has them: made once, long before any run."""
    client = client_of(workspace)
    with instrumented(tmp_path, "databricks_sdk") as charges:
        with costinsights.attribute(asset="mart/orders", partition="2026-11-22"):
            client.jobs.run_now(job_id=NIGHTLY)
        found = charges.one()
        assert found.attribution["asset"] == "mart/orders"
        raw = client.api_client.do("POST", "/api/2.1/jobs/run-now", body={"job_id": NIGHTLY})
        client.api_client.do(
            method="GET", path="/api/2.1/jobs/runs/get", query={"run_id": raw["run_id"]}
        )
        charge = charges.one()
        assert (charge.vendor_id, charge.partial) == (str(raw["run_id"]), False)


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ("FAILED", "FAILED"),
        ("CANCELED", "CANCELED"),
        ("TIMEDOUT", "TIMEDOUT"),
        ("SUCCESS_WITH_FAILURES", None),
    ],
)
def test_other_ends_cost_what_they_cost(
    charges: Charges, workspace: Workspace, result: str, error: str | None
) -> None:
    workspace.jobs.result = result
    client_of(workspace).jobs.run_now_and_wait(NIGHTLY)
    charge = charges.one()
    assert (charge.error.type if charge.error else None) == error
    assert charge.usage["node_seconds"] == 2400


def test_a_run_that_is_cancelled_by_the_program(charges: Charges, workspace: Workspace) -> None:
    workspace.jobs.polls = -1  # it goes on for as long as nobody ends it
    client = client_of(workspace)
    run_id = client.jobs.run_now(NIGHTLY).run_id
    client.jobs.get_run(run_id)
    begun = charges.one()
    assert begun.partial
    client.jobs.cancel_run(run_id)
    client.jobs.get_run(run_id)
    charge = charges.one()
    assert (charge.charge_id, charge.partial) == (begun.charge_id, False)
    assert charge.error is not None


def test_a_token_and_a_repair_start_no_second_run(charges: Charges, workspace: Workspace) -> None:
    workspace.jobs.result = "FAILED"
    client = client_of(workspace)
    first = client.jobs.run_now(NIGHTLY, idempotency_token="once")
    assert client.jobs.run_now(NIGHTLY, idempotency_token="once").run_id == first.run_id
    first.result()
    ran = charges.one()
    client.jobs.repair_run(first.run_id, rerun_all_failed_tasks=True)
    assert charges.new() == []  # it is the same run's: settlement adds it up
    workspace.jobs.end(first.run_id)
    assert ran.vendor_id == str(first.run_id)


def test_a_repair_of_a_run_of_nobody_here(charges: Charges, workspace: Workspace) -> None:
    client = client_of(workspace)
    costinsights.uninstrument()
    workspace.jobs.result = "FAILED"
    run_id = client.jobs.run_now_and_wait(NIGHTLY).run_id
    costinsights.instrument("databricks_sdk", ledger=charges.ledger, exporters=[])
    workspace.jobs.result = "SUCCESS"
    client.jobs.repair_run_and_wait(run_id, rerun_all_failed_tasks=True)
    charge = charges.one()
    assert (charge.operation, charge.vendor_id) == ("REPAIR RUN", str(run_id))
    assert charge.usage["tasks"] == 2  # the attempt that failed, and the one that did not


def test_runs_of_a_list_with_their_tasks(charges: Charges, workspace: Workspace) -> None:
    client = client_of(workspace)
    ids = [client.jobs.run_now(NIGHTLY).run_id for _ in range(3)]
    assert len(charges.new()) == 3
    for run_id in ids:
        workspace.jobs.end(run_id)
    assert len(list(client.jobs.list_runs(job_id=NIGHTLY, limit=2))) == 3
    assert charges.new() == []  # such a list says how they ended, and nothing of what they used
    assert len(list(client.jobs.list_runs(job_id=NIGHTLY, limit=2, expand_tasks=True))) == 3
    assert {charge.vendor_id for charge in charges.new()} == {str(run_id) for run_id in ids}


def test_a_run_of_many_tasks_comes_in_pages(charges: Charges, workspace: Workspace) -> None:
    workspace.jobs.settings[502] = job(
        [task(f"part-{number}", job_cluster_key="shared") for number in range(230)],
        job_clusters=[{"job_cluster_key": "shared", "new_cluster": CLUSTER}],
    )
    run = client_of(workspace).jobs.run_now_and_wait(502)
    assert len(run.tasks) == 230
    assert workspace.calls().count("GET /api/2.2/jobs/runs/get") == 3
    charge = charges.one()
    assert charge.usage["tasks"] == 230
    assert charge.usage["task_seconds"] == 230 * 600
    assert charge.usage["cluster_seconds"] == 600  # all on one cluster, at the same time
    assert charge.usage["node_seconds"] == 2400


def test_an_update_of_a_pipeline(charges: Charges, workspace: Workspace) -> None:
    workspace.jobs.pipelines[PIPELINE] = {"serverless": True, "edition": "ADVANCED"}
    workspace.jobs.polls = 1
    client = client_of(workspace)
    update = client.pipelines.start_update(PIPELINE, full_refresh=True).update_id
    begun = charges.one()
    assert (begun.operation, begun.vendor_id) == ("UPDATE PIPELINE", update)
    assert (begun.resource.namespace, begun.partial) == (PIPELINE, True)
    assert client.pipelines.get_update(PIPELINE, update).update.state.value == "RUNNING"
    assert charges.new() == []
    client.pipelines.get_update(PIPELINE, update)
    charge = charges.one()
    assert (charge.charge_id, charge.partial, charge.amount) == (begun.charge_id, False, None)
    assert (charge.usage["serverless"], charge.usage["edition"]) == (1, "advanced")


@pytest.mark.parametrize("way", ["stop_and_wait", "get", "list_updates"])
def test_other_ways_to_learn_of_an_update(charges: Charges, workspace: Workspace, way: str) -> None:
    workspace.jobs.result = "FAILED"
    client = client_of(workspace)
    update = client.pipelines.start_update(PIPELINE).update_id
    assert charges.one().partial
    getattr(client.pipelines, way)(PIPELINE)
    charge = charges.one()
    assert (charge.vendor_id, charge.partial) == (update, False)
    assert charge.error is not None
    assert charge.error.type == "FAILED"


def test_what_is_refused_has_started_nothing(charges: Charges, workspace: Workspace) -> None:
    client = client_of(workspace)
    with pytest.raises(errors.DatabricksError, match=r"Job 999 does not exist") as refused:
        client.jobs.run_now(999)
    charge = charges.one()
    assert (charge.vendor_id, charge.partial) == (None, False)
    assert charge.error is not None
    assert charge.error.type.endswith(f".{type(refused.value).__name__}")
    client.jobs.run_now(NIGHTLY)
    assert charges.one().partial
    with pytest.raises(errors.DatabricksError):
        client.jobs.get_run(1)
    assert charges.new() == []


# --- it changes nothing -----------------------------------------------------------------------------


def session(workspace: Workspace) -> list[Any]:
    client = client_of(workspace)
    tasks = [jobs.SubmitTask(task_key="once", environment_key="default")]
    ran = client.jobs.run_now(NIGHTLY, job_parameters={"day": "2026-11-22"})
    assert type(ran).__module__ == "databricks.sdk.service._internal"
    submitted = client.jobs.submit_and_wait(tasks=tasks)
    update = client.pipelines.start_update(PIPELINE).update_id
    client.pipelines.get_update(PIPELINE, update)
    repaired = client.jobs.repair_run(ran.result().run_id, rerun_tasks=["load"])
    listed = [run.run_id for run in client.jobs.list_runs(expand_tasks=True)]
    return [ran.run_id, ran.response.as_dict(), submitted.run_id, update, repaired.bind(), listed]


def test_the_server_sees_the_same_bytes_with_and_without_us(tmp_path: Path) -> None:
    def seen(workspace: Workspace) -> tuple[list[Any], list[Any]]:
        workspace.jobs.settings[NIGHTLY] = job([task(new_cluster=CLUSTER)])
        answers = session(workspace)
        kept = ("Content-Type", "Accept", "User-Agent", "Authorization")
        return answers, [
            (one.call, one.path, one.body, [one.headers.get(name) for name in kept])
            for one in workspace.requests
        ]

    with serving() as workspace:
        port, (bare, before) = workspace.port, seen(workspace)
    costinsights.instrument("databricks_sdk", ledger=tmp_path, exporters=[], tagging="native")
    try:
        with serving(port=port) as workspace, costinsights.attribute(asset="orders", job="nightly"):
            with_us, after = seen(workspace)
        assert len(Charges(tmp_path).new()) == 3
    finally:
        costinsights.uninstrument()
    assert with_us == bare
    assert after == before  # neither a tag, nor a request of ours
    assert len(after) >= 8


def test_a_program_that_never_asks_is_asked_for(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PACE", following.Pace(quiet=0.05, apart=0.001))
    workspace.jobs.polls = 1
    workspace.jobs.settings[503] = job(
        [task(f"t{number}", new_cluster=CLUSTER) for number in range(130)]
    )
    with instrumented(tmp_path, "databricks_sdk") as charges:
        client = client_of(workspace)
        ran = [client.jobs.run_now(which).run_id for which in (NIGHTLY, 503)]
        update = client.pipelines.start_update(PIPELINE).update_id
        waits = {str(run_id) for run_id in ran} | {update}
        done: dict[str, Charge] = {}
        deadline = time.monotonic() + 60
        while waits - done.keys() and time.monotonic() < deadline:
            time.sleep(0.05)
            done |= {one.vendor_id or "": one for one in charges.new() if not one.partial}
        assert done.keys() == waits
        assert done[str(ran[0])].usage["node_seconds"] == 2400
        assert done[str(ran[1])].usage["tasks"] == 130
    assert TOKEN not in charges.text()


# --- prices -----------------------------------------------------------------------------------------

PRICES = """
[[rule]]
name = "databricks.job_cluster"
system = "databricks.jobs"
meter = "dbus"
terms = [
    { dimension = "node_type", table = { "i3.xlarge" = "1.00", "i3.xlarge photon" = "2.90" } },
    { meter = "node_seconds", divide = "3600" },
]
source = "https://www.databricks.com/product/pricing, our reading of it"

[[price]]
key = "own.databricks.jobs"
provider = "databricks"
service = "Databricks"
system = "databricks.jobs"
meter = "dbus"
dims = { workload = "jobs" }
region = "everywhere"
regions = ["*"]
unit = "DBU"
price = "0.12"
currency = "USD"
as_of = "2026-11"
source = "our contract"
"""


def test_with_the_dbus_of_a_node_told_there_is_an_estimate(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "own.toml").write_text(PRICES)
    workspace.jobs.settings[504] = job([task(new_cluster={**CLUSTER, "runtime_engine": "PHOTON"})])
    workspace.jobs.settings[505] = job([task(environment_key="default")])
    workspace.jobs.settings[506] = job([task(new_cluster={**CLUSTER, "node_type_id": "m7.huge"})])
    costinsights.instrument(
        "databricks_sdk",
        ledger=tmp_path / "ledger",
        exporters=[],
        price_book=tmp_path / "own.toml",
    )
    try:
        client = client_of(workspace)
        for job_id in (NIGHTLY, 504, 505, 506):
            client.jobs.run_now_and_wait(job_id)
        plain, fast, serverless, other = Charges(tmp_path / "ledger").new()
    finally:
        costinsights.uninstrument()
    assert (plain.basis, plain.amount) == ("estimated", "0.080000000000000")  # 4 nodes, 10 minutes
    assert plain.price is not None
    assert plain.price.key == "own.databricks.jobs"
    for charge in (fast, serverless, other):  # another workload, another compute, another node
        assert (charge.basis, charge.amount) == ("unknown", None)


# --- what answers say -------------------------------------------------------------------------------

HOUR = 3_600_000


def ran(key: str, start: int, end: int, **more: Any) -> dict[str, Any]:
    return {"task_key": key, "start_time": start, "end_time": end, **more}


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        pytest.param(
            {"tasks": [ran("a", 1, 1 + HOUR, new_cluster={"autoscale": {"min_workers": 1, "max_workers": 7}, "node_type_id": "m5.large"})]},
            {"least_node_seconds": 7200, "most_node_seconds": 28800, "node_type": "m5.large"},
            id="a cluster that scales",
        ),
        pytest.param(
            {"tasks": [ran("a", 1, 1 + HOUR, new_cluster={**CLUSTER, "driver_node_type_id": "m5.4xlarge"})]},
            {"cluster_seconds": 3600, "workload": "jobs"},
            id="nodes of two types",
        ),
        pytest.param(
            {"tasks": [ran("a", 1, 1 + HOUR, new_cluster={"node_type_id": "i3.xlarge", "num_workers": "3"})]},
            {"cluster_seconds": 3600, "node_type": "i3.xlarge"},
            id="a number that is none",
        ),
        pytest.param(
            {"tasks": [ran("a", 1, HOUR, new_cluster=CLUSTER, setup_duration="long")]},
            {},
            id="a time that is none",
        ),
        pytest.param(
            {"tasks": [ran("a", 1, 1 + HOUR, existing_cluster_id="1122-abc")]},
            {"all_purpose_seconds": 3600},
            id="all-purpose",
        ),
        pytest.param(
            {"tasks": [ran("a", 1, 1 + HOUR, environment_key="default")]},
            {"serverless_seconds": 3600},
            id="serverless",
        ),
        pytest.param(
            {"tasks": [ran("a", 1, 1 + HOUR, new_cluster=CLUSTER), ran("b", 1, 1 + HOUR, notebook_task={})]},
            {"cluster_seconds": 3600, "serverless_seconds": 3600, "node_type": "i3.xlarge"},
            id="in part serverless",
        ),
    ],
)  # fmt: skip
def test_what_is_not_all_known_has_no_price(run: dict[str, Any], expected: dict[str, Any]) -> None:
    found = figures(run)
    assert "node_seconds" not in found
    assert found["unpriced"]
    assert expected.items() <= found.items()


def test_a_cluster_is_there_once_however_many_tasks_share_it() -> None:
    shared = {"job_cluster_key": "k", "cluster_instance": {"cluster_id": "1122-k"}}
    tasks = [
        ran("a", 0, HOUR, **shared),
        ran("b", HOUR // 2, 2 * HOUR, **shared),
        ran("b", 2 * HOUR, 3 * HOUR, attempt_number=1, **shared),
        ran("q", 0, HOUR, sql_task={"warehouse_id": "w"}),
        ran("own", 0, HOUR, new_cluster={**CLUSTER, "num_workers": 0}),
    ]
    found = figures(
        {"tasks": tasks, "job_clusters": [{"job_cluster_key": "k", "new_cluster": CLUSTER}]}
    )
    assert found["node_seconds"] == 3 * 3600 * 4 + 3600
    assert found["tasks"] == 5
    assert "unpriced" not in found


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ({"state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}}, (True, None)),
        ({"status": {"state": "TERMINATED", "termination_details": {"code": "DRIVER_ERROR"}}}, (True, "DRIVER_ERROR")),
        ({"state": {"life_cycle_state": "SKIPPED"}}, (True, "SKIPPED")),
        ({"state": {"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED"}}, (True, "FAILED")),
        ({"state": {"life_cycle_state": "TERMINATING"}}, (False, None)),
        ({"state": {"life_cycle_state": "WAITING_FOR_RETRY"}}, (False, None)),
        ({"state": {"life_cycle_state": "DREAMING"}}, (False, None)),
        ({"state": None, "status": "TERMINATED"}, (False, None)),
        ({}, (False, None)),
    ],
)  # fmt: skip
def test_only_what_is_over_is_over(run: dict[str, Any], expected: tuple[bool, str | None]) -> None:
    assert ended(run) == expected


def test_a_malformed_answer_reaches_nobody(charges: Charges, workspace: Workspace) -> None:
    client = client_of(workspace)
    run_id = client.jobs.run_now(NIGHTLY).run_id
    charges.one()
    broken = {
        "run_id": run_id,
        "start_time": "noon",
        "tasks": [{"task_key": "a", "start_time": None, "new_cluster": [1]}],
        "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"},
    }
    workspace.answers["/api/2.2/jobs/runs/get"] = (200, broken)
    assert client.api_client.do(
        "GET", "/api/2.2/jobs/runs/get", query={"run_id": run_id}
    ) == json.loads(json.dumps(broken))
    charge = charges.one()
    assert (charge.amount, charge.basis, charge.partial) == (None, "unknown", False)
    assert "not numbers" in str(charge.usage["unpriced"])


def test_it_is_all_gone_afterwards(workspace: Workspace, tmp_path: Path) -> None:
    core: Any = import_module("databricks.sdk.core")
    before = core.ApiClient.do
    with instrumented(tmp_path, "databricks_sdk") as charges:
        assert core.ApiClient.do is not before
        costinsights.instrument("databricks_sdk", ledger=tmp_path, exporters=[])
        client_of(workspace).jobs.run_now(NIGHTLY).result(timeout=timedelta(seconds=30))
        charges.one()
    assert core.ApiClient.do is before
    client_of(workspace).jobs.run_now(NIGHTLY)
    assert charges.new() == []
