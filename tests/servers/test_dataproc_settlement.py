"""`costinsights settle gcp.dataproc` and `gcp.dataproc_serverless` on a server of our own."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights import asking
from costinsights.settlement.gcp_dataproc import DataprocHistoryOfClusters
from costinsights.settlement.gcp_dataproc_serverless import DataprocServerlessHistory
from costinsights.settlement.settling import SettlementError, settle
from costinsights.systems.gcp_dataproc import Uptime, uptimes, vcpus_of
from tests.servers.charges import Charges, instrumented
from tests.servers.dataproc_server import PROJECT, REGION, Dataproc, Refusal, dataproc_server, dp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

HOUR = 3600
PARENT = f"projects/{PROJECT}/locations/{REGION}"
WITHIN = f"projects/{PROJECT}/regions/{REGION}"
WHERE = {"project_id": PROJECT, "region": REGION}
JOB = {"placement": {"cluster_name": "etl"}, "pyspark_job": {"main_python_file_uri": "gs://c/o.py"}}
BATCH = {"pyspark_batch": {"main_python_file_uri": "gs://c/o.py"}}
FEE = Decimal("0.24")
"""Of an hour of a cluster of 24 vCPUs."""


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """An error of ours fails the test, and nobody waits for a server that has had enough."""
    slept: list[float] = []
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setattr(asking, "sleep", slept.append)
    return slept


@pytest.fixture(scope="module")
def running() -> Iterator[Dataproc]:
    with dataproc_server() as dataproc:
        yield dataproc


@pytest.fixture
def dataproc(running: Dataproc) -> Iterator[Dataproc]:
    running.forget()
    running.ago = 3 * HOUR
    running.seed("", questions=0)
    yield running
    running.hang_up()


def started(
    dataproc: Dataproc, ledger: Path, count: int = 1, job: Any = JOB, **labels: str
) -> list[str]:
    """Submit jobs in a program that does not wait for them; return their names."""
    names: list[str] = []
    with instrumented(ledger, "dataproc"), costinsights.attribute(**labels):
        jobs = dataproc.client("JobController")
        for _ in range(count):
            found = jobs.submit_job(job=job, **WHERE)
            names.append(f"{WITHIN}/jobs/{found.reference.job_id}")
    return names


def batches(dataproc: Dataproc, ledger: Path, count: int = 1, batch: Any = BATCH) -> list[str]:
    with instrumented(ledger, "dataproc"):
        client = dataproc.client("BatchController")
        for number in range(count):
            client.create_batch(parent=PARENT, batch=batch, batch_id=f"b{number}")
    return [f"{PARENT}/batches/b{number}" for number in range(count)]


def settled(
    dataproc: Dataproc,
    ledger: Path,
    kind: Any = DataprocHistoryOfClusters,
    *,
    options: Mapping[str, object] | None = None,
    rest: bool = False,
    now: datetime | None = None,
    **more: Any,
) -> Settled:
    dataproc.calls.clear()
    now = now or datetime.now(timezone.utc)
    given: dict[str, object] = {
        "projects": [PROJECT],
        "regions": [REGION],
        "endpoint": dataproc.rest if rest else f"grpc://{dataproc.address}",
        **(options or {}),
    }
    return settle(
        kind.system,
        now - timedelta(hours=6),
        ledger=ledger,
        history=kind(given),
        now=now,
        **more,
    )


def latest(ledger: Path) -> list[Charge]:
    found = {charge.charge_id: charge for charge in Charges(ledger).entries()}
    return list(found.values())


def by_id(ledger: Path) -> dict[str | None, Charge]:
    return {charge.vendor_id: charge for charge in latest(ledger) if charge.vendor_id}


def total(charges: Sequence[Charge]) -> Decimal:
    return sum((Decimal(charge.amount or 0) for charge in charges), Decimal(0))


def up(dataproc: Dataproc, seconds: float, vcpus: int = 24) -> Decimal:
    """The fee of so many seconds."""
    return Decimal(vcpus) * Decimal(str(seconds)) / HOUR / 100


# --- jobs share their clusters' hours ------------------------------------------------------------


@pytest.mark.parametrize("rest", [False, True])
def test_jobs_share_the_fee_of_their_cluster_and_idle_stands_alone(
    dataproc: Dataproc, tmp_path: Path, rest: bool
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    dataproc.seed("", questions=0, runs=600, vcores=1000)
    dataproc.seed("large.py", questions=0, runs=600, vcores=3000)
    small = started(dataproc, tmp_path, job=JOB, asset="orders")
    large = {**JOB, "pyspark_job": {"main_python_file_uri": "gs://c/large.py"}}
    others = started(dataproc, tmp_path, job=large, asset="sales")
    report = settled(dataproc, tmp_path, rest=rest)
    assert (report.found, report.settled, report.left) == ({"id": 2}, 2, {})
    assert dataproc.counts() == {"ListClusters": 1, "ListOperations": 1, "ListJobs": 2}
    assert report.requests == 4
    found = by_id(tmp_path)
    one, two = found[small[0]], found[others[0]]
    assert (one.basis, one.partial, one.currency) == ("allocated", False, "USD")
    assert Decimal(two.amount or 0) / Decimal(one.amount or 1) == pytest.approx(
        Decimal(3), abs=Decimal("0.01")
    )
    assert one.usage["yarn_vcore_seconds"] == 1000
    assert one.price is not None
    assert one.price.key == "gcp.dataproc.fee/all"
    # Ten minutes of work; the rest of two hours is nobody's. Together they are the bill, exactly.
    every = latest(tmp_path)
    assert total(every) == pytest.approx(up(dataproc, 2 * HOUR), abs=Decimal("1e-9"))
    idle = [charge for charge in every if charge.operation == "IDLE"]
    assert total(idle) == pytest.approx(up(dataproc, 2 * HOUR - 600), abs=Decimal("1e-4"))
    again = settled(dataproc, tmp_path, rest=rest)
    assert (again.settled, again.added, again.idle) == (0, 0, 0)


def test_with_all_jobs_of_nobody_and_idle_clusters_are_charges(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    dataproc.cluster("unused", ago=4 * HOUR, gone=3 * HOUR)
    labels = {"costinsights-asset": "orders", "team": "x"}
    name = dataproc.ran("elsewhere", ago=3 * HOUR, runs=300, labels=labels)
    started(dataproc, tmp_path)
    report = settled(dataproc, tmp_path, all=True)
    assert (report.settled, report.added) == (1, 1)
    assert total(latest(tmp_path)) == pytest.approx(up(dataproc, 3 * HOUR), abs=Decimal("1e-9"))
    outside = by_id(tmp_path)[name]
    assert (outside.operation, outside.attribution["asset"]) == ("PYSPARK", "orders")
    assert "team" not in outside.attribution
    assert outside.resource.namespace == "etl"
    assert settled(dataproc, tmp_path, all=True).added == 0


def test_what_ended_before_the_time_is_left_out(dataproc: Dataproc, tmp_path: Path) -> None:
    dataproc.cluster("etl", ago=90 * HOUR, gone=2 * HOUR)
    dataproc.ran("long-ago", ago=80 * HOUR)
    with instrumented(tmp_path / "other", "dataproc"):
        dataproc.ago = 70 * HOUR
        client = dataproc.client("WorkflowTemplateService")
        client.instantiate_workflow_template(name=f"{WITHIN}/workflowTemplates/t")
        dataproc.ago = 3 * HOUR
    started(dataproc, tmp_path)
    report = settled(dataproc, tmp_path, all=True)
    assert (report.figures, report.settled, report.added) == (1, 1, 0)
    assert dataproc.counts()["ListJobs"] == 2
    # But what waits from before the time is looked after, with the hours that it ran in.
    dataproc.ago = 50 * HOUR
    old = started(dataproc, tmp_path)[0]
    dataproc.ago = 3 * HOUR
    assert settled(dataproc, tmp_path).settled == 1
    assert by_id(tmp_path)[old].basis == "allocated"


def test_without_yarns_figures_jobs_are_weighed_by_their_time(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    short = dataproc.ran("short", ago=3.5 * HOUR, runs=100, waits=0)
    long = dataproc.ran("long", ago=2.9 * HOUR, runs=300, waits=0)
    settled(dataproc, tmp_path, all=True)
    found = by_id(tmp_path)
    assert float(found[short].amount or 0) == pytest.approx(float(up(dataproc, 100)), rel=1e-3)
    assert float(found[long].amount or 0) == pytest.approx(float(up(dataproc, 300)), rel=1e-3)


def test_a_job_beside_one_that_still_runs_waits_for_it(dataproc: Dataproc, tmp_path: Path) -> None:
    dataproc.cluster("etl", ago=4 * HOUR)
    dataproc.seed("slow.py", questions=10**6)
    slow = {**JOB, "pyspark_job": {"main_python_file_uri": "gs://c/slow.py"}}
    names = [*started(dataproc, tmp_path), *started(dataproc, tmp_path, job=slow)]
    report = settled(dataproc, tmp_path)
    assert report.settled == 0
    assert report.left == {"still runs": 1, "a query beside it still runs": 1}
    dataproc.jobs[names[1].rpartition("/")[2]].figures.questions = 0
    assert settled(dataproc, tmp_path).settled == 2


# --- how large clusters were, and when -----------------------------------------------------------


@pytest.mark.parametrize(
    ("cluster", "fee"),
    [
        # Gone after ten seconds: a minute is charged for.
        ({"ago": 3 * HOUR, "gone": 3 * HOUR - 10}, Decimal(24) * 60 / HOUR / 100),
        # In error it goes on costing; stopped it does not.
        (
            {"ago": 4 * HOUR, "states": [("ERROR", 3.5 * HOUR)], "gone": 2 * HOUR},
            2 * FEE,
        ),
        (
            {
                "ago": 4 * HOUR,
                "states": [
                    ("STOPPING", 3.5 * HOUR),
                    ("STOPPED", 3 * HOUR),
                    ("STARTING", 2.5 * HOUR),
                ],
            },
            None,
        ),
        # Five workers, then one: 24 vCPUs for an hour, and 8 for another.
        ({"ago": 4 * HOUR, "resized": [(3 * HOUR, 1)], "gone": 2 * HOUR}, FEE + FEE / 3),
        ({"ago": 4 * HOUR, "machine": "custom-8-16384", "gone": 3 * HOUR}, 2 * FEE),
        ({"ago": 4 * HOUR, "config": {"engine": "LIGHTNING"}, "gone": 3 * HOUR}, FEE * 5 / 4),
    ],
)
def test_what_clusters_cost(
    dataproc: Dataproc, tmp_path: Path, cluster: dict[str, Any], fee: Decimal | None
) -> None:
    more = cluster.pop("config", {})
    dataproc.cluster("etl", **cluster, **more)
    now = datetime.now(timezone.utc)
    report = settled(dataproc, tmp_path, all=True, now=now)
    assert report.unpriced == {}
    if fee is None:  # it is up: the hour that runs has no end yet
        fee = up(dataproc, HOUR + 2.5 * HOUR - now.minute * 60 - now.second)
        cluster["near"] = Decimal("0.001")
    near = cluster.get("near", Decimal("0.0001"))
    assert total(latest(tmp_path)) == pytest.approx(fee, abs=near)


def test_a_cluster_that_is_forgotten_is_unknown_unless_its_price_is_said(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR, forgotten=True)
    dataproc.seed("", questions=0, runs=600)
    name = started(dataproc, tmp_path)[0]
    report = settled(dataproc, tmp_path)
    assert any("it is gone, and so is the operation" in why for why in report.incomplete)
    charge = by_id(tmp_path)[name]
    assert (charge.amount, charge.basis) == (None, "unknown")
    assert charge.usage["run_time_ms"] == 600_000
    assert any("add a [[capacity]]" in why for why in report.left)
    own = {"system": "gcp.dataproc", "database": "etl", "price": "6", "currency": "EUR"}
    settled(dataproc, tmp_path, config={"capacity": [own]})
    charge = by_id(tmp_path)[name]
    assert (charge.basis, charge.currency) == ("allocated", "EUR")
    assert float(charge.amount or 0) == pytest.approx(1.0)


@pytest.mark.parametrize("known", [{}, {"machine_types": {"a2-highgpu-1g": 12}}])
def test_an_unknown_machine_type_is_said_and_can_be_told(
    dataproc: Dataproc, tmp_path: Path, known: dict[str, Any]
) -> None:
    dataproc.cluster("etl", machine="a2-highgpu-1g", workers=1, ago=4 * HOUR, gone=2 * HOUR)
    name = started(dataproc, tmp_path)[0]
    report = settled(dataproc, tmp_path, options=known)
    charge = by_id(tmp_path)[name]
    said = [why for why in report.incomplete if "a2-highgpu-1g are not known" in why]
    if known:
        assert (charge.basis, said) == ("allocated", [])
        assert total(latest(tmp_path)) == pytest.approx(2 * FEE, abs=Decimal("0.0001"))
    else:
        assert (charge.basis, charge.amount, len(said)) == ("unknown", None, 1)
        assert charge.usage["attempts"] == 1


def test_a_resized_cluster_whose_operations_are_gone_is_unknown_before(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.cluster("etl", ago=5 * HOUR, resized=[(2 * HOUR, 2)], forgotten=True)
    before = dataproc.ran("before", ago=4 * HOUR)
    after = dataproc.ran("after", ago=1.9 * HOUR)
    report = settled(dataproc, tmp_path, all=True)
    assert any("it was resized" in why for why in report.incomplete)
    found = by_id(tmp_path)
    assert found[before].amount is None
    assert total([charge for charge in latest(tmp_path) if charge.amount]) > 0
    assert found.get(after) is None or found[after].basis == "allocated"


def test_the_vms_are_added_where_the_user_says_their_price(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=3 * HOUR)
    own = {"system": "gcp.dataproc", "database": "etl", "price": "1.14", "currency": "USD"}
    config = {"capacity": [own]}
    settled(dataproc, tmp_path, all=True, options={"compute_engine": True}, config=config)
    assert total(latest(tmp_path)) == pytest.approx(FEE + Decimal("1.14"), abs=Decimal("0.0001"))


@pytest.mark.parametrize(
    ("name", "vcpus"),
    [
        ("n1-standard-4", 4),
        ("projects/p/zones/z/machineTypes/n2d-highmem-96", 96),
        ("c3-standard-8-lssd", 8),
        ("custom-6-23040", 6),
        ("n2-custom-4-16384-ext", 4),
        ("e2-medium", 2),
        ("m1-megamem-96", 96),
        ("c3-highcpu-192-metal", 192),
        ("g2-standard-12", 12),
        ("a2-highgpu-1g", None),
        ("a3-megagpu-8g", None),
        ("a2-ultragpu-8", None),
        ("n1-standard", None),
        ("", None),
        ("n1-standard-99999", None),
    ],
)
def test_vcpus_of_machine_types(name: str, vcpus: int | None) -> None:
    assert vcpus_of(name, {}) == vcpus
    assert vcpus_of(name, {name.rpartition("/")[2]: 7}) == 7


def test_uptimes() -> None:
    second = 10**9
    assert uptimes([]) == []
    assert uptimes([(0, 1)]) == []  # no time
    assert uptimes([(5 * second, 1), (9 * second, 2)]) == [Uptime(5 * second, None)]
    assert uptimes([(5 * second, 1)], 10 * second) == [Uptime(5 * second, 65 * second)]
    assert uptimes([(200 * second, 7), (1 * second, 2), (500 * second, 8)], 700 * second) == [
        Uptime(1 * second, 200 * second),
        Uptime(500 * second, 700 * second),
    ]


# --- workflows -----------------------------------------------------------------------------------


def test_a_workflow_is_all_of_its_jobs_and_counts_once(dataproc: Dataproc, tmp_path: Path) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    dataproc.seed("step", questions=0, runs=600, vcores=1200)
    with instrumented(tmp_path, "dataproc"), costinsights.attribute(asset="orders"):
        client = dataproc.client("WorkflowTemplateService")
        future = client.instantiate_workflow_template(name=f"{WITHIN}/workflowTemplates/t")
    beside = dataproc.ran("beside", ago=3 * HOUR, runs=600, vcores=2400)
    reports = [settled(dataproc, tmp_path, all=everything) for everything in (False, True, True)]
    assert [(report.settled, report.added) for report in reports] == [(1, 0), (0, 1), (0, 0)]
    found = by_id(tmp_path)
    assert set(found) == {future.operation.name, beside}
    charge = found[future.operation.name]
    assert (charge.basis, charge.attribution["asset"]) == ("allocated", "orders")
    assert (charge.usage["jobs"], charge.usage["yarn_vcore_seconds"]) == (2, 2400)
    assert total(latest(tmp_path)) == pytest.approx(2 * FEE, abs=Decimal("1e-9"))


def test_without_operations_jobs_are_settled_and_workflows_wait(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR)
    name = started(dataproc, tmp_path)[0]
    with instrumented(tmp_path, "dataproc"):
        client = dataproc.client("WorkflowTemplateService")
        future = client.instantiate_workflow_template(name=f"{WITHIN}/workflowTemplates/t")
    for method in ("ListOperations", "GetOperation"):
        dataproc.refuse(method, Refusal("PERMISSION_DENIED"))
    report = settled(dataproc, tmp_path)
    assert any("no permission to read" in why for why in report.incomplete)
    found = by_id(tmp_path)
    assert found[name].basis == "allocated"
    assert found[future.operation.name].partial


# --- asking --------------------------------------------------------------------------------------


def test_many_jobs_are_a_few_lists(dataproc: Dataproc, tmp_path: Path) -> None:
    dataproc.page = 200
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    names = started(dataproc, tmp_path, 300)
    report = settled(dataproc, tmp_path)
    assert (report.settled, report.incomplete) == (300, [])
    assert dataproc.counts() == {"ListClusters": 1, "ListOperations": 1, "ListJobs": 3}
    found = by_id(tmp_path)
    assert set(found) == set(names)
    assert total(latest(tmp_path)) == pytest.approx(2 * FEE, abs=Decimal("1e-9"))


def test_a_job_that_is_gone_is_said_to_be_and_its_charge_stays(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    names = started(dataproc, tmp_path, 2)
    del dataproc.jobs[names[0].rpartition("/")[2]]
    history = DataprocHistoryOfClusters(
        {"projects": [PROJECT], "regions": [REGION], "endpoint": dataproc.rest}
    )
    now = datetime.now(timezone.utc)
    report = settle(
        "gcp.dataproc",
        now - timedelta(hours=6),
        ledger=tmp_path,
        history=history,
        now=now + timedelta(hours=2),
    )
    assert (report.settled, report.lost) == (1, 1)
    assert set(history.lost) == {names[0]}
    charge = by_id(tmp_path)[names[0]]
    assert charge.partial
    assert "no longer knows" in str(charge.usage["lost"])


@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL"])
def test_throttling_and_errors_that_pass_are_waited_for(
    dataproc: Dataproc, tmp_path: Path, strict: list[float], code: str, rest: bool
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    started(dataproc, tmp_path)
    dataproc.refuse("ListJobs", *[Refusal(code)] * 3)
    dataproc.refuse("ListClusters", Refusal(code))
    assert settled(dataproc, tmp_path, rest=rest).settled == 1
    assert len(strict) == 4


def test_what_does_not_pass_ends_the_run_and_the_next_one_goes_on(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    started(dataproc, tmp_path)
    dataproc.refuse("ListJobs", *[Refusal("UNAVAILABLE")] * asking.ATTEMPTS)
    with pytest.raises(SettlementError, match=f"UNAVAILABLE, {asking.ATTEMPTS} times"):
        settled(dataproc, tmp_path)
    dataproc.refuse("ListClusters", Refusal("PERMISSION_DENIED", "secret principal"))
    with pytest.raises(SettlementError, match="no permission to read list_clusters") as caught:
        settled(dataproc, tmp_path)
    assert "dataproc.jobs.list" in caught.value.grant
    assert "secret" not in str(caught.value)
    assert settled(dataproc, tmp_path).settled == 1


@pytest.mark.parametrize("rest", [False, True])
def test_credentials_that_expire_half_way_are_asked_for_anew(
    dataproc: Dataproc, tmp_path: Path, rest: bool
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    started(dataproc, tmp_path)
    dataproc.refuse("ListJobs", Refusal("UNAUTHENTICATED"))
    report = settled(dataproc, tmp_path, rest=rest)
    assert (report.settled, report.requests) == (1, 5)
    started(dataproc, tmp_path)
    dataproc.refuse("ListJobs", *[Refusal("UNAUTHENTICATED")] * 2)
    with pytest.raises(SettlementError, match="credentials are not valid"):
        settled(dataproc, tmp_path, rest=rest)


def test_page_tokens_that_come_round_again_end_the_list(dataproc: Dataproc, tmp_path: Path) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    started(dataproc, tmp_path)
    dataproc.loop = True
    report = settled(dataproc, tmp_path)
    assert report.settled == 1
    assert any("for the second time" in why for why in report.incomplete)
    assert sum(dataproc.counts().values()) <= 10


def no_times(job: Any) -> None:
    del job.status_history[:]
    job.status.ClearField("state_start_time")


def no_end(job: Any) -> None:
    job.status.ClearField("state_start_time")


def strange(job: Any) -> None:
    job.status.state = 77


@pytest.mark.parametrize("edit", [no_times, no_end, strange])
def test_malformed_jobs_stay_unknown_and_the_others_are_settled(
    dataproc: Dataproc, tmp_path: Path, edit: Any
) -> None:
    dataproc.cluster("etl", ago=4 * HOUR, gone=2 * HOUR)
    dataproc.seed("bad", questions=0, edit=edit)
    bad = {**JOB, "pyspark_job": {"main_python_file_uri": "gs://c/bad-one.py"}}
    name = started(dataproc, tmp_path, job=bad)[0]
    other = started(dataproc, tmp_path)[0]
    report = settled(dataproc, tmp_path)
    found = by_id(tmp_path)
    assert (found[name].amount, found[name].basis) == (None, "unknown")
    if edit is not strange:
        assert any("no time in it" in why for why in report.incomplete)
        assert found[other].basis == "allocated"
    else:  # a state that nobody knows may mean that it runs
        assert report.left["still runs"] == 1


def test_all_needs_to_know_where(dataproc: Dataproc, tmp_path: Path) -> None:
    for kind in (DataprocHistoryOfClusters, DataprocServerlessHistory):
        with pytest.raises(SettlementError, match="for --all say where"):
            settled(dataproc, tmp_path, kind, options={"projects": []}, all=True)


# --- serverless ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [False, True])
def test_batches_get_their_figures_by_name(dataproc: Dataproc, tmp_path: Path, rest: bool) -> None:
    dataproc.seed("", questions=0, milli_dcu_seconds=43_200_000, shuffle_gb_seconds=2_628_000)
    names = batches(dataproc, tmp_path, 3)
    said: list[str] = []
    report = settled(dataproc, tmp_path, DataprocServerlessHistory, rest=rest, said=said.extend)
    assert said == ["3 batches and sessions by their names"]
    assert (report.found, report.settled, report.incomplete) == ({"id": 3}, 3, [])
    assert dataproc.counts() == {"GetBatch": 3}
    found = by_id(tmp_path)
    assert set(found) == set(names)
    assert {(charge.amount, charge.basis, charge.partial) for charge in found.values()} == {
        ("0.760000000000000", "metered", False)
    }
    again = settled(dataproc, tmp_path, DataprocServerlessHistory, rest=rest)
    assert (again.settled, dataproc.counts()) == (0, {})


def test_a_program_that_dies_and_one_that_lives_come_to_the_same(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.seed("", questions=0, milli_dcu_seconds=777_777, shuffle_gb_seconds=4321)
    batches(dataproc, tmp_path / "died", 2)
    settled(dataproc, tmp_path / "died", DataprocServerlessHistory)
    dataproc.batches.clear()
    with instrumented(tmp_path / "lived", "dataproc"):
        client = dataproc.client("BatchController")
        for number in range(2):
            client.create_batch(parent=PARENT, batch=BATCH, batch_id=f"b{number}")
            client.get_batch(name=f"{PARENT}/batches/b{number}")
    died, lived = latest(tmp_path / "died"), latest(tmp_path / "lived")
    assert total(died) == total(lived) > 0
    assert [charge.usage["milli_dcu_seconds"] for charge in died] == [777_777] * 2


def test_many_batches_are_read_from_their_list(dataproc: Dataproc, tmp_path: Path) -> None:
    dataproc.page = 100
    dataproc.seed("", questions=0, milli_dcu_seconds=720_000)
    dataproc.batch_ran("old", ago=40 * HOUR, milli_dcu_seconds=720_000)
    batches(dataproc, tmp_path, 250)
    report = settled(dataproc, tmp_path, DataprocServerlessHistory)
    assert (report.settled, report.outside) == (250, 0)
    assert dataproc.counts() == {"ListBatches": 3}


def test_batches_of_nobody_with_all(dataproc: Dataproc, tmp_path: Path) -> None:
    labelled = {**BATCH, "labels": {"costinsights-asset": "orders"}}
    name = dataproc.batch_ran("x", ago=HOUR, milli_dcu_seconds=43_200_000, batch=labelled)
    with_tier = {
        **BATCH,
        "runtime_config": {"properties": {"dataproc.tier": "premium"}},
    }
    premium = dataproc.batch_ran("y", ago=HOUR, milli_dcu_seconds=43_200_000, batch=with_tier)
    mine = batches(dataproc, tmp_path)
    dataproc.batches[mine[0]].figures.milli_dcu_seconds = 720_000
    alone = settled(dataproc, tmp_path, DataprocServerlessHistory)
    assert (alone.settled, alone.added) == (1, 0)
    report = settled(dataproc, tmp_path, DataprocServerlessHistory, all=True)
    assert (report.settled, report.added) == (0, 2)
    found = by_id(tmp_path)
    assert (found[name].amount, found[name].attribution["asset"]) == ("0.720000000000000", "orders")
    assert found[premium].amount == "1.068000000000000"
    assert found[premium].operation == "PYSPARK"
    assert settled(dataproc, tmp_path, DataprocServerlessHistory, all=True).added == 0


def test_a_batch_that_runs_has_a_figure_so_far_and_then_its_own(
    dataproc: Dataproc, tmp_path: Path
) -> None:
    dataproc.seed("", questions=10**6, milli_dcu_now=12_000, milli_dcu_seconds=7_200_000, waits=0)
    name = batches(dataproc, tmp_path)[0]
    dataproc.batches[name].started -= HOUR
    report = settled(dataproc, tmp_path, DataprocServerlessHistory)
    assert report.running == 1
    charge = by_id(tmp_path)[name]
    assert charge.partial
    assert charge.usage["milli_dcu_now"] == 12_000
    # 12 DCU for an hour.
    assert Decimal(charge.amount or 0) == pytest.approx(Decimal("0.72"), abs=Decimal("0.01"))
    dataproc.batches[name].figures.questions = 0
    assert settled(dataproc, tmp_path, DataprocServerlessHistory).settled == 1
    charge = by_id(tmp_path)[name]
    assert (charge.partial, charge.amount) == (False, "0.120000000000000")


def negative(batch: Any) -> None:
    batch.runtime_info.approximate_usage.shuffle_storage_gb_seconds = -1


def no_batch_times(batch: Any) -> None:
    del batch.state_history[:]
    for field in ("state_time", "create_time"):
        batch.ClearField(field)


def strange_batch(batch: Any) -> None:
    batch.state = 77


@pytest.mark.parametrize("edit", [negative, no_batch_times, strange_batch])
def test_malformed_batches_stay_unknown(dataproc: Dataproc, tmp_path: Path, edit: Any) -> None:
    dataproc.seed("", questions=0, milli_dcu_seconds=720_000, edit=edit)
    name = batches(dataproc, tmp_path)[0]
    report = settled(dataproc, tmp_path, DataprocServerlessHistory)
    charge = by_id(tmp_path)[name]
    assert (charge.amount, charge.basis) == (None, "unknown")
    assert report.left or report.incomplete
    if edit is negative:
        assert charge.usage["reported_milli_dcu_seconds"] == 720_000


def test_a_batch_without_figures_and_one_that_is_gone(dataproc: Dataproc, tmp_path: Path) -> None:
    names = batches(dataproc, tmp_path, 2)
    del dataproc.batches[names[1]]
    dataproc.batches[names[0]].figures.state = "FAILED"
    history = DataprocServerlessHistory({"endpoint": f"grpc://{dataproc.address}"})
    now = datetime.now(timezone.utc)
    report = settle(
        "gcp.dataproc_serverless",
        now - timedelta(hours=6),
        ledger=tmp_path,
        history=history,
        now=now + timedelta(hours=2),
    )
    assert report.lost == 1
    assert any("does not say what they used" in why for why in report.incomplete)
    found = by_id(tmp_path)
    assert found[names[0]].amount is None
    assert "lost" in found[names[1]].usage


def test_a_session_is_settled_as_premium(dataproc: Dataproc, tmp_path: Path) -> None:
    dataproc.seed("", milli_dcu_seconds=43_200_000)
    with instrumented(tmp_path, "dataproc"):
        client = dataproc.client("SessionController")
        client.create_session(parent=PARENT, session=dp.Session(jupyter_session={}), session_id="s")
    assert settled(dataproc, tmp_path, DataprocServerlessHistory).settled == 0
    dataproc.sessions[f"{PARENT}/sessions/s"].figures.questions = 0
    assert settled(dataproc, tmp_path, DataprocServerlessHistory).settled == 1
    assert by_id(tmp_path)[f"{PARENT}/sessions/s"].amount == "1.068000000000000"
