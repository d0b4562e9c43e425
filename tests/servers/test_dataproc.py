"""Dataproc by the unmodified google-cloud-dataproc, over gRPC and REST: a charge a run, no request."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights import following
from costinsights.ledger.reader import read_ledger
from costinsights_instrumentors import _dataproc_follow as follow
from tests.servers.charges import Charges, instrumented
from tests.servers.dataproc_server import (
    PROJECT,
    REGION,
    Dataproc,
    Refusal,
    dataproc_server,
    dp,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from costinsights.records import Charge

errors: Any = import_module("google.api_core.exceptions")
retries: Any = import_module("google.api_core.retry")

SECRET = "s3cr3t-91ab"
PARENT = f"projects/{PROJECT}/locations/{REGION}"
WITHIN = f"projects/{PROJECT}/regions/{REGION}"
JOB = {
    "placement": {"cluster_name": "etl"},
    "pyspark_job": {
        "main_python_file_uri": "gs://code/orders.py",
        "args": [f"--password={SECRET}"],
        "properties": {"spark.secret": SECRET},
    },
}
BATCH = {
    "pyspark_batch": {"main_python_file_uri": "gs://code/orders.py", "args": [SECRET]},
    "runtime_config": {
        "properties": {"spark.executor.instances": "2", "spark.executor.cores": "4"}
    },
}
WHERE = {"project_id": PROJECT, "region": REGION}
BOTH = pytest.mark.parametrize("transport", ["grpc", "rest"])
QUICK = retries.Retry(initial=0.01, maximum=0.02)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture(scope="module")
def running() -> Iterator[Dataproc]:
    with dataproc_server() as dataproc:
        yield dataproc


@pytest.fixture
def dataproc(running: Dataproc) -> Iterator[Dataproc]:
    running.forget()
    yield running
    running.hang_up()


@pytest.fixture
def charges(tmp_path: Path) -> Iterator[Charges]:
    with instrumented(tmp_path / "ledger", "dataproc") as charges:
        yield charges


@contextmanager
def client(dataproc: Dataproc, kind: str, transport: str = "grpc") -> Generator[Any]:
    made = dataproc.client(kind, transport)
    try:
        yield made
    finally:
        made.transport.close()


def wait_for(jobs: Any, job: Any) -> Any:
    while True:
        found = jobs.get_job(job_id=job.reference.job_id, **WHERE)
        if found.status.state.name in ("DONE", "ERROR", "CANCELLED"):
            return found


def figures(charge: Charge) -> dict[str, Any]:
    return {name: value for name, value in charge.usage.items() if name != "time_ns"}


# --- jobs on clusters ----------------------------------------------------------------------------


@BOTH
def test_a_job_is_one_charge_that_the_programs_questions_complete(
    dataproc: Dataproc, charges: Charges, transport: str
) -> None:
    dataproc.seed("orders.py", runs=600, vcores=4800, questions=2)
    with client(dataproc, "JobController", transport) as jobs:
        job = jobs.submit_job(job=JOB, **WHERE)
        pending = charges.one()
        name = f"{WITHIN}/jobs/{job.reference.job_id}"
        assert (pending.system, pending.instrumentor) == ("gcp.dataproc", "dataproc")
        assert (pending.vendor_id, pending.operation) == (name, "PYSPARK")
        assert (pending.partial, pending.amount, pending.basis) == (True, None, "unknown")
        place = pending.resource
        assert (place.address, place.namespace, place.region) == ("127.0.0.1", "etl", REGION)
        wait_for(jobs, job)
    charge = charges.one()
    assert (charge.charge_id, charge.revision, charge.partial) == (pending.charge_id, 1, False)
    assert figures(charge) == {"run_time_ms": 600_000, "attempts": 1, "yarn_vcore_seconds": 4800}
    # A job on a cluster has no price of its own.
    assert (charge.amount, charge.basis, charge.error) == (None, "unknown", None)
    assert SECRET not in charges.text()
    assert "orders.py" not in charges.text()


def forms() -> Iterator[Any]:
    request = {"job": JOB, **WHERE}
    yield pytest.param((), {"request": request}, id="dictionary")
    yield pytest.param((request,), {}, id="dictionary, by position")
    yield pytest.param((dp.SubmitJobRequest(request),), {}, id="message")
    yield pytest.param((), {"request": dp.SubmitJobRequest(request)}, id="message, by name")
    yield pytest.param((plain(dp.SubmitJobRequest(request)),), {}, id="protobuf's own message")
    yield pytest.param((), {"job": dp.Job(JOB), **WHERE}, id="keywords with a message")
    nested = {**JOB, "placement": dp.JobPlacement(cluster_name="etl")}
    yield pytest.param((), {"job": nested, **WHERE}, id="keywords, mixed")


@pytest.mark.parametrize(("args", "named"), list(forms()))
def test_every_form_of_a_request_is_read(
    dataproc: Dataproc, charges: Charges, args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    with client(dataproc, "JobController") as jobs:
        jobs.submit_job(*args, **named)
        charge = charges.one()
        assert (charge.operation, charge.resource.namespace) == ("PYSPARK", "etl")
        assert charge.resource.region == REGION
        jobs.submit_job_as_operation(*args, **named)
        again = charges.one()
        assert (again.operation, again.resource) == (charge.operation, charge.resource)
        assert "/jobs/" in (again.vendor_id or "")


@pytest.mark.parametrize(
    ("seeded", "error"),
    [
        ({"state": "ERROR", "runs": 30}, "ERROR"),
        ({"state": "CANCELLED", "runs": 30}, "CANCELLED"),
        ({"attempts": 3, "runs": 10}, None),
    ],
)
def test_failed_cancelled_and_restarted_jobs_used_what_they_used(
    dataproc: Dataproc, charges: Charges, seeded: dict[str, Any], error: str | None
) -> None:
    dataproc.seed("", **seeded)
    with client(dataproc, "JobController") as jobs:
        wait_for(jobs, jobs.submit_job(job=JOB, **WHERE))
    charge = charges.one()
    assert figures(charge) == {"run_time_ms": 30_000, "attempts": seeded.get("attempts", 1)}
    assert (charge.error and charge.error.type) == error


def test_the_end_is_seen_in_lists_in_cancelling_and_by_operations(
    dataproc: Dataproc, charges: Charges
) -> None:
    dataproc.seed("", questions=0)
    dataproc.seed("slow.py", questions=10**6)
    with client(dataproc, "JobController") as jobs:
        jobs.submit_job(job=JOB, **WHERE)
        assert charges.one().partial
        assert len(list(jobs.list_jobs(**WHERE))) == 1
        assert not charges.one().partial
        slow = {**JOB, "pyspark_job": {"main_python_file_uri": "gs://code/slow.py"}}
        job = jobs.submit_job(job=slow, **WHERE)
        assert charges.one().partial
        jobs.cancel_job(job_id=job.reference.job_id, **WHERE)
        cancelled = charges.one()
        assert cancelled.error is not None
        assert cancelled.error.type == "CANCELLED"
        future = jobs.submit_job_as_operation(job=JOB, **WHERE)
        pending = charges.one()
        assert future.result(timeout=30).status.state.name == "DONE"
        done = charges.one()
        assert (done.vendor_id, done.partial) == (pending.vendor_id, False)
        assert future.done()
        assert charges.new() == []


def test_an_operation_that_fails_raises_as_ever_and_its_charge_waits_for_figures(
    dataproc: Dataproc, charges: Charges
) -> None:
    dataproc.seed("", state="ERROR", questions=0)
    with client(dataproc, "JobController") as jobs:
        future = jobs.submit_job_as_operation(job=JOB, **WHERE)
        pending = charges.one()
        with pytest.raises(errors.Unknown, match="secret"):
            future.result(timeout=30)
    charge = charges.one()
    assert (charge.vendor_id, charge.partial) == (pending.vendor_id, True)
    assert charge.error is not None
    assert charge.error.type == "FAILED"
    assert "secret" not in charges.text()


def test_a_cluster_that_dataproc_chooses_is_the_place(dataproc: Dataproc, charges: Charges) -> None:
    labels = {**JOB, "placement": {"cluster_labels": {"env": "prod"}}}
    with client(dataproc, "JobController") as jobs:
        jobs.submit_job(job=labels, **WHERE)
    assert charges.one().resource.namespace == "chosen"


def test_the_price_of_a_cluster_of_ones_own_is_an_estimate_until_settlement(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    capacity = {"system": "gcp.dataproc", "database": "etl", "price": "2.40", "currency": "USD"}
    dataproc.seed("", questions=0)
    with switched_on(tmp_path / "ledger", config={"capacity": [capacity]}) as charges:
        with client(dataproc, "JobController") as jobs:
            wait_for(jobs, jobs.submit_job(job=JOB, **WHERE))
        charge = charges.one()
    assert charge.basis == "estimated"
    assert charge.amount is not None


# --- serverless ----------------------------------------------------------------------------------

HOUR_OF_12 = {"milli_dcu_seconds": 12 * 3600 * 1000, "questions": 0}
PREMIUM = {
    f"spark.dataproc.{role}.{what}.tier": "premium"
    for role in ("driver", "executor")
    for what in ("compute", "disk")
}


def batch_with(**properties: str) -> dict[str, Any]:
    return {**BATCH, "runtime_config": {"properties": properties}}


@BOTH
def test_a_batch_is_priced_by_its_approximate_usage(
    dataproc: Dataproc, charges: Charges, transport: str
) -> None:
    # Google's own example: 12 DCU and 25 GB for a day in us-central1 are $17.31.
    dataproc.seed(
        "orders.py",
        milli_dcu_seconds=12 * 86_400 * 1000,
        shuffle_gb_seconds=25 * 86_400,
        runs=86_400,
        questions=1,
    )
    with client(dataproc, "BatchController", transport) as batches:
        batches.create_batch(parent=PARENT, batch=BATCH, batch_id="b1")
        pending = charges.one()
        assert pending.system == "gcp.dataproc_serverless"
        assert pending.vendor_id == f"{PARENT}/batches/b1"
        assert (pending.operation, pending.resource.namespace) == ("PYSPARK", PROJECT)
        assert figures(pending) == {"executors": 2, "executor_cores": 4}
        assert (pending.partial, pending.amount) == (True, None)
        for _ in range(2):
            batches.get_batch(name=f"{PARENT}/batches/b1")
    charge = charges.one()
    assert (charge.charge_id, charge.partial) == (pending.charge_id, False)
    assert (charge.amount, charge.basis) == ("17.312876712328767", "metered")
    assert SECRET not in charges.text()


@pytest.mark.parametrize(
    ("properties", "used", "amount"),
    [
        ({}, {}, "0.720000000000000"),
        ({"dataproc.tier": "premium"}, {}, "1.068000000000000"),
        (PREMIUM, {}, "1.068000000000000"),
        (PREMIUM, {"shuffle_gb_seconds": 2_628_000}, "1.168000000000000"),
        ({}, {"shuffle_gb_seconds": 2_628_000}, "0.760000000000000"),
        # A minute of 12 DCU at least; nothing used is nothing.
        ({}, {"milli_dcu_seconds": 1}, "0.012000000000000"),
        ({}, {"milli_dcu_seconds": 0}, "0.000000000000000"),
        # Nobody says how much the driver and how much the executors used.
        ({"spark.dataproc.driver.compute.tier": "premium"}, {}, None),
        ({"spark.dataproc.driver.compute.tier": "platinum"}, {}, None),
        # No price of accelerators in this region.
        (
            {**PREMIUM, "spark.dataproc.executor.resource.accelerator.type": "l4"},
            {"milli_accelerator_seconds": 120_000, "accelerator": "l4"},
            None,
        ),
        ({}, {"milli_dcu_seconds": -5}, None),
        ({}, {"shuffle_gb_seconds": -5}, None),
    ],
)
def test_what_a_batch_costs(
    dataproc: Dataproc,
    charges: Charges,
    properties: dict[str, str],
    used: dict[str, Any],
    amount: str | None,
) -> None:
    dataproc.seed("", **{**HOUR_OF_12, **used})
    with client(dataproc, "BatchController") as batches:
        batches.create_batch(parent=PARENT, batch=batch_with(**properties), batch_id="b")
        batches.get_batch(name=f"{PARENT}/batches/b")
    charge = charges.one()
    assert charge.amount == amount
    assert charge.basis == ("unknown" if amount is None else "metered")
    if -5 in used.values():
        assert "= -5" in str(charge.usage["malformed"])
    else:
        assert charge.usage["milli_dcu_seconds"] == used.get("milli_dcu_seconds", 43_200_000)


def test_accelerators_where_the_book_has_their_price(dataproc: Dataproc, charges: Charges) -> None:
    seoul = f"projects/{PROJECT}/locations/asia-northeast3"
    dataproc.seed(
        "",
        milli_dcu_seconds=720_000,
        shuffle_gb_seconds=72_000,
        milli_accelerator_seconds=120_000,
        accelerator="l4",
        questions=0,
    )
    kind = {"spark.dataproc.executor.resource.accelerator.type": "l4"}
    with client(dataproc, "BatchController") as batches:
        batches.create_batch(parent=seoul, batch=batch_with(**PREMIUM, **kind), batch_id="b")
        batches.get_batch(name=f"{seoul}/batches/b")
    assert charges.one().amount == "0.055165977168949"


def test_a_batch_that_google_says_nothing_of_stays_pending(
    dataproc: Dataproc, charges: Charges
) -> None:
    dataproc.seed("", state="FAILED", questions=0)
    with client(dataproc, "BatchController") as batches:
        future = batches.create_batch(parent=PARENT, batch=BATCH)
        assert (charges.one().vendor_id or "").startswith(f"{PARENT}/batches/batch-")
        with pytest.raises(errors.Unknown):
            future.result(timeout=30)
    charge = charges.one()
    assert (charge.amount, charge.partial) == (None, True)
    assert charge.error is not None
    assert charge.error.type == "FAILED"


def test_the_operation_of_a_batch_has_its_figures(dataproc: Dataproc, charges: Charges) -> None:
    dataproc.seed("", **HOUR_OF_12)
    with client(dataproc, "BatchController") as batches:
        future = batches.create_batch(parent=PARENT, batch=BATCH, batch_id="b")
        charges.new()
        assert future.result(timeout=30).state.name == "SUCCEEDED"
        assert charges.one().amount == "0.720000000000000"
        list(batches.list_batches(parent=PARENT))
        assert charges.new() == []


def test_a_session_is_premium_and_ends_when_it_is_terminated(
    dataproc: Dataproc, charges: Charges
) -> None:
    dataproc.seed("", **HOUR_OF_12)
    session = {"jupyter_session": {"kernel": "PYTHON"}}
    with client(dataproc, "SessionController") as sessions:
        future = sessions.create_session(parent=PARENT, session=session, session_id="s")
        assert future.result(timeout=30).state.name == "ACTIVE"
        pending = charges.one()
        name = f"{PARENT}/sessions/s"
        assert (pending.vendor_id, pending.operation) == (name, "SESSION")
        assert pending.partial
        sessions.get_session(name=name)
        assert charges.new() == []
        sessions.terminate_session(name=name).result(timeout=30)
    charge = charges.one()
    assert (charge.amount, charge.basis, charge.error) == ("1.068000000000000", "metered", None)


def test_a_session_that_could_not_be_terminated_has_not_ended_by_that(
    dataproc: Dataproc, charges: Charges
) -> None:
    dataproc.seed("", **HOUR_OF_12, state="FAILED")
    session = {"jupyter_session": {"kernel": "PYTHON"}}
    with client(dataproc, "SessionController") as sessions:
        sessions.create_session(parent=PARENT, session=session, session_id="s")
        charges.new()
        with pytest.raises(errors.Unknown):
            sessions.terminate_session(name=f"{PARENT}/sessions/s").result(timeout=30)
        assert charges.new() == []
        sessions.get_session(name=f"{PARENT}/sessions/s")
    charge = charges.one()
    assert (charge.amount, charge.error and charge.error.type) == ("1.068000000000000", "FAILED")


def test_the_disk_tier_of_a_sessions_template_is_not_guessed(
    dataproc: Dataproc, charges: Charges
) -> None:
    dataproc.seed("", **HOUR_OF_12, shuffle_gb_seconds=5)
    template = {"session_template": f"{PARENT}/sessionTemplates/t"}
    with client(dataproc, "SessionController") as sessions:
        sessions.create_session(parent=PARENT, session=template, session_id="s")
        sessions.terminate_session(name=f"{PARENT}/sessions/s").result(timeout=30)
    charge = charges.one()
    assert (charge.amount, charge.usage["shuffle_storage_gb_seconds"]) == (None, 5)


# --- workflows, clusters, async ------------------------------------------------------------------


@BOTH
def test_a_workflow_is_one_charge_that_settlement_completes(
    dataproc: Dataproc, charges: Charges, transport: str
) -> None:
    dataproc.seed("", questions=0)
    template = {"jobs": [{"step_id": "a", "pyspark_job": JOB["pyspark_job"]}]}
    with client(dataproc, "WorkflowTemplateService", transport) as workflows:
        future = workflows.instantiate_workflow_template(name=f"{WITHIN}/workflowTemplates/t")
        first = charges.one()
        assert first.vendor_id == future.operation.name
        assert (first.operation, first.partial, first.resource.region) == (
            "WORKFLOW",
            True,
            REGION,
        )
        future.result(timeout=30)
        workflows.instantiate_inline_workflow_template(parent=WITHIN, template=template)
        assert charges.one().operation == "WORKFLOW"


@BOTH
def test_clusters_come_and_go_without_a_charge(
    dataproc: Dataproc, charges: Charges, transport: str
) -> None:
    cluster: dict[str, Any] = {"project_id": PROJECT, "cluster_name": "new", "config": {}}
    with client(dataproc, "ClusterController", transport) as clusters:
        made = clusters.create_cluster(cluster=cluster, **WHERE).result(timeout=30)
        assert made.cluster_name == "new"
        assert clusters.get_cluster(cluster_name="new", **WHERE).cluster_name == "new"
        assert [each.cluster_name for each in clusters.list_clusters(**WHERE)] == ["new"]
        clusters.delete_cluster(cluster_name="new", **WHERE).result(timeout=30)
    assert charges.new() == []


def test_async_clients(dataproc: Dataproc, charges: Charges) -> None:
    dataproc.seed("", vcores=60, questions=0, milli_dcu_seconds=720_000)

    async def work() -> None:
        jobs = dataproc.client("JobController", "grpc_asyncio")
        batches = dataproc.client("BatchController", "grpc_asyncio")
        job = await jobs.submit_job(job=JOB, **WHERE)
        assert charges.one().partial
        await jobs.get_job(job_id=job.reference.job_id, **WHERE)
        assert figures(charges.one())["yarn_vcore_seconds"] == 60
        await jobs.submit_job(request={"job": JOB, **WHERE})
        charges.new()
        pager = await jobs.list_jobs(**WHERE)
        assert len([each async for each in pager]) == 2
        assert not charges.one().partial
        future = await batches.create_batch(parent=PARENT, batch=BATCH, batch_id="b")
        assert charges.one().partial
        assert (await future.result()).state.name == "SUCCEEDED"
        assert charges.one().amount == "0.012000000000000"
        many = await asyncio.gather(*(jobs.submit_job(job=JOB, **WHERE) for _ in range(20)))
        assert {charge.vendor_id for charge in charges.new()} == {
            f"{WITHIN}/jobs/{each.reference.job_id}" for each in many
        }
        await jobs.transport.close()
        await batches.transport.close()

    asyncio.run(work())


# --- nothing else changes ------------------------------------------------------------------------


def run_everything(dataproc: Dataproc, transport: str) -> list[str]:
    """Use each method; return what came back, without what is different each time."""
    dataproc.forget()
    dataproc.seed("", vcores=5, questions=0, milli_dcu_seconds=720_000)
    found: list[str] = []
    with client(dataproc, "JobController", transport) as jobs:
        job = jobs.submit_job(job={**JOB, "reference": {"job_id": "j1"}}, **WHERE)
        found.append(type(job).__name__)
        found.append(jobs.get_job(job_id="j1", **WHERE).status.state.name)
        found += [each.reference.job_id for each in jobs.list_jobs(**WHERE)]
        found.append(jobs.cancel_job(job_id="j1", **WHERE).status.state.name)
        again = {**JOB, "reference": {"job_id": "j2"}}
        future: Any = jobs.submit_job_as_operation(job=again, **WHERE)
        found.append(f"{future.__class__} {future.result(timeout=30).reference.job_id}")
        bad = {**JOB, "pyspark_job": {"main_python_file_uri": "gs://code/bad.py"}}
        with pytest.raises(errors.GoogleAPICallError) as caught:
            jobs.submit_job(job=bad, **WHERE)
        found.append(f"{type(caught.value)} {caught.value.message}")
        with pytest.raises(ValueError, match="request"):
            jobs.submit_job(request={"job": JOB}, **WHERE)
    with client(dataproc, "BatchController", transport) as batches:
        request = {"parent": PARENT, "batch": BATCH, "batch_id": "b", "request_id": "x"}
        future = batches.create_batch(request)
        found.append(future.result(timeout=30).name)
        found += [each.name for each in batches.list_batches(parent=PARENT)]
    with client(dataproc, "WorkflowTemplateService", transport) as workflows:
        name = f"{WITHIN}/workflowTemplates/t"
        future = workflows.instantiate_workflow_template(name=name)
        found.append(f"{future.__class__}")
    return found


def seen(dataproc: Dataproc) -> list[tuple[str, bytes, tuple[tuple[str, str], ...]]]:
    """Return the requests as they came; names of operations are different each time."""
    return [
        (
            call.method,
            b"" if "Operation" in call.method[:12] else plain(call.request).SerializeToString(),
            tuple(
                (key, value)
                for key, value in sorted(call.metadata.items())
                if "operations" not in value
            ),
        )
        for call in dataproc.calls
        if call.method != "GetOperation"
    ]


@BOTH
@pytest.mark.parametrize("mode", ["off", "comment"])
def test_the_server_sees_what_it_would_see_without_us(
    dataproc: Dataproc, tmp_path: Path, transport: str, mode: str
) -> None:
    bare = run_everything(dataproc, transport)
    without, asked = seen(dataproc), dataproc.counts()
    with switched_on(tmp_path / "ledger", tagging=mode):
        assert run_everything(dataproc, transport) == bare
        assert seen(dataproc) == without
        assert dataproc.counts() == asked
    assert len(without) >= 6


def test_a_start_that_is_refused_is_an_error_and_no_run(
    dataproc: Dataproc, charges: Charges
) -> None:
    bad = {**JOB, "pyspark_job": {"main_python_file_uri": "gs://code/bad.py"}}
    with (
        client(dataproc, "JobController") as jobs,
        pytest.raises(errors.InvalidArgument, match="secret 'path'"),
    ):
        jobs.submit_job(job=bad, **WHERE)
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "google.api_core.exceptions.InvalidArgument"
    assert (charge.vendor_id, charge.partial, charge.amount) == (None, False, None)
    assert "path" not in charges.text()


def test_a_start_that_the_library_tries_again_is_one_charge(
    dataproc: Dataproc, charges: Charges
) -> None:
    dataproc.seed("", questions=0)
    dataproc.refuse("SubmitJob", Refusal("UNAVAILABLE"), Refusal("UNAVAILABLE"))
    dataproc.refuse("GetJob", Refusal("UNAVAILABLE"))
    with client(dataproc, "JobController") as jobs:
        job = jobs.submit_job(job=JOB, retry=QUICK, **WHERE)
        assert charges.one().partial
        jobs.get_job(job_id=job.reference.job_id, retry=QUICK, **WHERE)
        dataproc.refuse("GetJob", Refusal("RESOURCE_EXHAUSTED"))
        with pytest.raises(errors.ResourceExhausted):
            jobs.get_job(job_id=job.reference.job_id, retry=None, **WHERE)
    assert not charges.one().partial
    assert dataproc.counts()["SubmitJob"] == 3


def no_times(job: Any) -> None:
    del job.status_history[:]
    job.status.ClearField("state_start_time")


def strange_state(job: Any) -> None:
    job.status.state = 77


def negative(job: Any) -> None:
    for application in job.yarn_applications:
        application.vcore_seconds = -7


@pytest.mark.parametrize(
    ("edit", "partial", "known"),
    [
        (no_times, True, {}),
        (strange_state, True, {}),
        (negative, False, {"run_time_ms": 60_000, "attempts": 1}),
    ],
)
def test_malformed_answers_leave_the_charge_unknown(
    dataproc: Dataproc,
    charges: Charges,
    edit: Callable[[Any], None],
    partial: bool,
    known: dict[str, Any],
) -> None:
    def spoil(job: Any) -> None:
        edit(job)
        for application in job.yarn_applications:
            if edit is not negative:
                application.vcore_seconds = 0

    dataproc.seed("", questions=0, vcores=9, edit=spoil)
    with client(dataproc, "JobController") as jobs:
        job = jobs.submit_job(job=JOB, **WHERE)
        jobs.get_job(job_id=job.reference.job_id, **WHERE)
    charge = charges.one()
    assert (charge.partial, charge.amount, charge.basis) == (partial, None, "unknown")
    assert figures(charge) == known


def test_a_rest_answer_that_is_no_number_is_the_librarys_error_and_never_ours(
    dataproc: Dataproc, charges: Charges
) -> None:
    """REST gives 64-bit numbers as texts, and the library itself refuses what is none."""
    dataproc.seed("", questions=0, milli_dcu_seconds=2**62)
    with client(dataproc, "BatchController", "rest") as batches:
        batches.create_batch(parent=PARENT, batch=BATCH, batch_id="b")
        batches.get_batch(name=f"{PARENT}/batches/b")
    assert charges.one().usage["milli_dcu_seconds"] == 2**62


# --- labels --------------------------------------------------------------------------------------


@contextmanager
def switched_on(ledger: Path, **more: Any) -> Generator[Charges]:
    costinsights.instrument("dataproc", ledger=ledger, exporters=[], **more)
    try:
        yield Charges(ledger)
    finally:
        costinsights.uninstrument()


OURS = {"costinsights-job": "nightly", "costinsights-asset": "orders-daily"}


@pytest.mark.parametrize(("args", "named"), list(forms()))
def test_native_tags_are_labels_beside_the_programs_own(
    dataproc: Dataproc, tmp_path: Path, args: tuple[Any, ...], named: dict[str, Any]
) -> None:
    before = repr((args, named))
    with (
        switched_on(tmp_path, attribution={"job": "Nightly"}, tagging="native") as charges,
        client(dataproc, "JobController") as jobs,
        costinsights.attribute(asset="orders_daily"),
    ):
        jobs.submit_job(*args, **named)
        charge = charges.one()
    assert repr((args, named)) == before
    sent = dataproc.calls[-1].request
    assert dict(sent.job.labels) == OURS
    assert charge.tag is not None
    assert dict(sent.job.pyspark_job.properties) == {"spark.secret": SECRET}


def test_labels_of_batches_sessions_and_templates(dataproc: Dataproc, tmp_path: Path) -> None:
    dataproc.seed("", questions=0)
    own = {"team": "shop", "costinsights-job": "mine"}
    full = {f"l{number}": "x" for number in range(31)}
    template = {"jobs": [{"step_id": "a", "pyspark_job": JOB["pyspark_job"]}], "labels": own}
    with (
        switched_on(tmp_path, attribution={"job": "7-of-9."}, tagging="native"),
        costinsights.attribute(asset="a/b"),
    ):
        with client(dataproc, "BatchController") as batches:
            batches.create_batch(parent=PARENT, batch={**BATCH, "labels": own}, batch_id="b")
            assert dict(dataproc.calls[-1].request.batch.labels) == {
                **own,
                "costinsights-asset": "a-b",
            }
            batches.create_batch(parent=PARENT, batch={**BATCH, "labels": full}, batch_id="c")
            assert dict(dataproc.calls[-1].request.batch.labels) == full  # there is no room
        with client(dataproc, "SessionController") as sessions:
            request = dp.CreateSessionRequest(
                parent=PARENT, session_id="s", session={"jupyter_session": {}}
            )
            sessions.create_session(request)
            assert not request.session.labels
            assert dict(dataproc.calls[-1].request.session.labels) == {
                "costinsights-job": "x-7-of-9",
                "costinsights-asset": "a-b",
            }
        with client(dataproc, "WorkflowTemplateService") as workflows:
            workflows.instantiate_inline_workflow_template(parent=WITHIN, template=template)
            assert dataproc.calls[-1].request.template.labels["team"] == "shop"
            assert dataproc.calls[-1].request.template.labels["costinsights-asset"] == "a-b"
            workflows.instantiate_workflow_template(name=f"{WITHIN}/workflowTemplates/t")


# --- in the background, twice, and never again ---------------------------------------------------


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_what_the_program_does_not_ask_for_is_followed(
    dataproc: Dataproc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr(following, "PACE", following.Pace(quiet=0.05, apart=0.001))
    dataproc.seed("", questions=2, vcores=77, milli_dcu_seconds=720_000, milli_dcu_now=12_000)
    with (
        switched_on(tmp_path) as charges,
        client(dataproc, "JobController", transport) as jobs,
        client(dataproc, "BatchController", transport) as batches,
    ):
        jobs.submit_job(job=JOB, **WHERE)
        batches.create_batch(parent=PARENT, batch=BATCH, batch_id="b")
        latest: dict[str, Charge] = {}
        end = time.monotonic() + 30
        while time.monotonic() < end and not (
            len(latest) == 2 and not any(charge.partial for charge in latest.values())
        ):
            time.sleep(0.05)
            latest.update((charge.charge_id, charge) for charge in charges.entries())
        job, batch = sorted(latest.values(), key=lambda charge: charge.system)
        assert (job.partial, job.usage["yarn_vcore_seconds"]) == (False, 77)
        assert (batch.partial, batch.amount) == (False, "0.012000000000000")
        # The program's own client goes on as ever.
        assert jobs.list_jobs(**WHERE).jobs
    assert dataproc.counts()["GetJob"] == 3
    assert dataproc.counts()["GetBatch"] == 3


def test_our_client_has_the_programs_credentials_and_host_and_a_channel_of_its_own(
    dataproc: Dataproc,
) -> None:
    anonymous: Any = import_module("google.auth.credentials").AnonymousCredentials()
    host = "us-central1-dataproc.googleapis.com:443"
    given = {"credentials": anonymous, "client_options": {"api_endpoint": host}}
    theirs = dp.JobControllerClient(**given)

    async def beside_an_async_one() -> None:
        client = dp.JobControllerAsyncClient(**given)
        ours = follow.JOBS.client(client)
        assert type(ours) is dp.JobControllerClient
        assert ours.transport._credentials is anonymous
        follow.JOBS.close(ours)
        await client.transport.close()
        bare = dataproc.client("JobController", "grpc_asyncio")
        with pytest.raises(RuntimeError, match="the program's alone"):
            follow.JOBS.client(bare)
        await bare.transport.close()

    ours = follow.JOBS.client(theirs)
    assert type(ours) is type(theirs)
    assert (ours.transport.host, ours.transport._credentials) == (host, anonymous)
    assert ours.transport.grpc_channel is not theirs.transport.grpc_channel
    assert follow.JOBS.same(theirs) == follow.JOBS.same(dp.JobControllerClient(**given))
    follow.JOBS.close(ours)
    theirs.transport.close()
    asyncio.run(beside_an_async_one())


def test_off_and_on_again(dataproc: Dataproc, tmp_path: Path) -> None:
    dataproc.seed("", questions=0)
    original = dp.JobControllerClient.submit_job
    with client(dataproc, "JobController") as jobs:
        for number in range(3):
            with switched_on(tmp_path / str(number)) as charges:
                costinsights.instrument(
                    "dataproc", ledger=tmp_path / str(number), exporters=[]
                )  # twice
                jobs.submit_job(job=JOB, **WHERE)
                assert charges.one().partial
        assert dp.JobControllerClient.submit_job is original
        before = list(read_ledger(str(tmp_path / "2")))
        jobs.submit_job(job=JOB, **WHERE)
        assert list(read_ledger(str(tmp_path / "2"))) == before


KILLED = """
import os, sys
import costinsights
costinsights.instrument("dataproc", ledger=sys.argv[1], exporters=[])
import grpc
from google.cloud import dataproc_v1 as dp
way = dp.JobControllerClient.get_transport_class("grpc")
jobs = dp.JobControllerClient(transport=way(channel=grpc.insecure_channel(sys.argv[2])))
job = {"placement": {"cluster_name": "etl"}, "pyspark_job": {"main_python_file_uri": "gs://x"}}
print(jobs.submit_job(project_id="shop", region="us-central1", job=job).reference.job_id, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_program_that_is_killed_leaves_its_job_in_the_ledger(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), dataproc.address],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
    charge = Charges(tmp_path).one()
    assert charge.vendor_id == f"{WITHIN}/jobs/{result.stdout.strip()}"
    assert charge.partial
