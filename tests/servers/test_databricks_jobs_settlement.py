"""`costinsights settle databricks.jobs` on runs that were started, and on history that tests seed.

Emulator: that Databricks fills its system tables in this way is not shown.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import costinsights
from costinsights.settlement import databricks_jobs
from costinsights.settlement.charging import text_of
from costinsights.settlement.databricks_jobs import DatabricksJobsHistory
from costinsights.settlement.history import MARK
from costinsights.settlement.settling import SettlementError, WouldWake, settle
from costinsights.settlement.writing import write
from tests.servers.charges import Charges, instrumented
from tests.servers.databricks_server import Workspace, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

sdk: Any = import_module("databricks.sdk")

NOW = datetime.now(timezone.utc)
HOUR = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=30)
"""The beginning of an hour that is past all lateness."""
JOBS = "PREMIUM_JOBS_COMPUTE"
SERVERLESS = "PREMIUM_JOBS_SERVERLESS_COMPUTE_US_EAST_N_VIRGINIA"
ALL_PURPOSE = "PREMIUM_ALL_PURPOSE_COMPUTE"
EACH = {JOBS: "0.15", SERVERLESS: "0.35", ALL_PURPOSE: "0.55"}
NIGHTLY = 501
PIPELINE = "0b7d1a3c-9d6e-4c57-b5c4-0e6a7c9f1d22"
TOKEN = "dapi-77ac-s3cr3t"


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with serving() as workspace:
        workspace.jobs.settings[NIGHTLY] = {
            "name": "nightly",
            "tasks": [{"task_key": "load", "new_cluster": {"node_type_id": "x", "num_workers": 1}}],
        }
        workspace.seed("billing.list_prices", [price(sku, each) for sku, each in EACH.items()])
        yield workspace


class Later(DatabricksJobsHistory):
    """The reader, two days from now: what ran a moment ago is history, and its hours are billed."""

    pause = 0.05

    def now(self) -> datetime:
        return datetime.now(timezone.utc) + timedelta(days=2)


def run(
    workspace: Workspace, ledger: Path, *, given: Mapping[str, object] | None = None, **more: Any
) -> Settled:
    options = {
        "host": f"http://127.0.0.1:{workspace.port}",
        "token": TOKEN,
        "warehouse": "abc123",
        **(given or {}),
    }
    more = {"since": HOUR, "now": NOW, **more}
    reader = more.pop("reader", Later)(options)
    return settle("databricks.jobs", ledger=ledger, history=reader, config={}, **more)


def usage(
    run_id: object,
    dbus: str,
    *,
    start: datetime = HOUR,
    sku: str = JOBS,
    kind: str = "ORIGINAL",
    metadata: Mapping[str, object] | None = None,
    **more: object,
) -> dict[str, object]:
    return {
        "workspace_id": "1234567890",
        "sku_name": sku,
        "cloud": "AWS",
        "usage_start_time": plain(start),
        "usage_end_time": plain(start + timedelta(hours=1)),
        "usage_date": start.date(),
        "usage_unit": "DBU",
        "usage_quantity": Decimal(dbus),
        "usage_metadata": {
            "job_id": str(NIGHTLY),
            "job_run_id": None if run_id is None else str(run_id),
            **(metadata or {}),
        },
        "record_type": kind,
        "billing_origin_product": "JOBS",
        **more,
    }


def price(sku: str, each: str, **more: object) -> dict[str, object]:
    return {
        "sku_name": sku,
        "cloud": "AWS",
        "currency_code": "USD",
        "usage_unit": "DBU",
        "price_start_time": plain(HOUR - timedelta(days=900)),
        "pricing": {"default": Decimal(each), "effective_list": {"default": Decimal(each)}},
        **more,
    }


def ran(
    run_id: object, start: datetime = HOUR, minutes: float = 30, result: str | None = "SUCCEEDED"
) -> dict[str, object]:
    return {
        "workspace_id": "1234567890",
        "job_id": str(NIGHTLY),
        "run_id": str(run_id),
        "run_name": "nightly",
        "run_type": "JOB_RUN",
        "period_start_time": plain(start),
        "period_end_time": plain(start + timedelta(minutes=minutes)),
        "result_state": result,
    }


def task(
    run_id: object, cluster: str, start: datetime = HOUR, minutes: float = 30, number: int = 1
) -> dict[str, object]:
    return {
        "workspace_id": "1234567890",
        "job_id": str(NIGHTLY),
        "run_id": f"{run_id}{number}",
        "job_run_id": str(run_id),
        "task_key": f"t{number}",
        "compute_ids": [cluster],
        "period_start_time": plain(start),
        "period_end_time": plain(start + timedelta(minutes=minutes)),
    }


def plain(moment: datetime) -> datetime:
    """A moment as the emulator's tables have it: UTC, and no word of that."""
    return moment.astimezone(timezone.utc).replace(tzinfo=None)


def start_some(workspace: Workspace, ledger: Path, count: int = 1, job: int = NIGHTLY) -> list[int]:
    """Start runs in an instrumented program that does not wait for them."""
    with instrumented(ledger, "databricks_sdk"):
        client = sdk.WorkspaceClient(host=f"http://127.0.0.1:{workspace.port}", token=TOKEN)
        with costinsights.attribute(asset="orders"):
            return [client.jobs.run_now(job).run_id for _ in range(count)]


def charges_in(ledger: Path) -> dict[str, Charge]:
    return {
        charge.vendor_id or charge.operation: charge
        for charge in {one.charge_id: one for one in Charges(ledger).entries()}.values()
    }


def total(charges: dict[str, Charge]) -> Decimal:
    return sum((Decimal(charge.amount or 0) for charge in charges.values()), Decimal(0))


# --- what runs were billed --------------------------------------------------------------------------


def test_a_run_that_nobody_waited_for_gets_what_it_was_billed(
    workspace: Workspace, tmp_path: Path
) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    begun = charges_in(tmp_path)[str(run_id)]
    workspace.seed(
        "billing.usage",
        [
            usage(run_id, "2.5"),
            usage(run_id, "1.25", start=HOUR + timedelta(hours=1)),
            usage(run_id, "0.5", sku=SERVERLESS),
        ],
    )
    workspace.seed("lakeflow.job_run_timeline", [ran(run_id, minutes=60, result=None)])
    workspace.seed("lakeflow.job_run_timeline", [ran(run_id, HOUR + timedelta(hours=1), 30)])
    report = run(workspace, tmp_path)
    assert (report.found, report.settled, report.outside, report.failed) == ({"id": 1}, 1, 0, "")
    charge = charges_in(tmp_path)[str(run_id)]
    assert (charge.charge_id, charge.basis, charge.partial) == (begun.charge_id, "metered", False)
    assert charge.attribution["asset"] == "orders"
    # 3.75 × 0.15 + 0.5 × 0.35
    assert charge.amount == "0.737500000000000"
    assert charge.usage["dbus"] == 4.25
    assert charge.usage["run_seconds"] == 5400
    assert charge.price is not None
    assert charge.price.key == f"databricks.jobs:{JOBS} + databricks.jobs:{SERVERLESS}"
    assert charge.price.unit_price == "0.150000000000000000 + 0.350000000000000000"
    assert f"system.billing.list_prices: {JOBS}" in charge.price.source
    again = run(workspace, tmp_path)
    assert (again.settled, again.unchanged) == (0, 1)


def test_corrections_retries_and_repairs_are_all_in_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    cluster = {"cluster_id": "1122-first"}
    workspace.seed(
        "billing.usage",
        [
            usage(run_id, "6", metadata=cluster),
            usage(run_id, "-6", kind="RETRACTION", metadata=cluster),
            usage(run_id, "5", kind="RESTATEMENT", metadata=cluster),
            usage(run_id, "1", metadata={"cluster_id": "1122-second-attempt"}),
        ],
    )
    workspace.seed("lakeflow.job_run_timeline", [ran(run_id, minutes=20, result="FAILED")])
    run(workspace, tmp_path)
    failed = charges_in(tmp_path)[str(run_id)]
    assert failed.amount == "0.900000000000000"
    assert failed.error is not None
    assert failed.error.type == "FAILED"
    # Repaired two hours later: the same run, which costs more now.
    later = HOUR + timedelta(hours=2)
    workspace.seed("billing.usage", [usage(run_id, "2", start=later)])
    workspace.seed("lakeflow.job_run_timeline", [ran(run_id, later, 30)])
    report = run(workspace, tmp_path, since=later)
    assert report.settled == 1
    assert charges_in(tmp_path)[str(run_id)].amount == "1.200000000000000"


def test_a_price_holds_from_its_hour_on_and_a_discount_is_taken_off(
    workspace: Workspace, tmp_path: Path
) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    change = HOUR + timedelta(hours=1)
    workspace.seed(
        "billing.list_prices",
        [
            price("ENTERPRISE_JOBS_COMPUTE", "0.20", price_end_time=plain(change + timedelta(minutes=30))),
            price("ENTERPRISE_JOBS_COMPUTE", "0.30", price_start_time=plain(change + timedelta(minutes=30))),
            price("ENTERPRISE_JOBS_COMPUTE", "9.99", cloud="AZURE"),
            price("ENTERPRISE_JOBS_COMPUTE", "9.99", usage_unit="GB"),
        ],
    )  # fmt: skip
    rows = [usage(run_id, "1", start=at, sku="ENTERPRISE_JOBS_COMPUTE") for at in (HOUR, change)]
    workspace.seed("billing.usage", rows)
    run(workspace, tmp_path, given={"multiplier": "0.5"})
    assert charges_in(tmp_path)[str(run_id)].amount == "0.250000000000000"


def test_the_machines_where_the_user_says_what_they_cost(
    workspace: Workspace, tmp_path: Path
) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    workspace.seed(
        "billing.usage",
        [
            usage(run_id, "2", metadata={"node_type": "i3.xlarge"}),
            usage(run_id, "1", sku=SERVERLESS, metadata={"node_type": None}),
        ],
    )
    # 0.312 USD and 1 DBU an hour
    run(workspace, tmp_path, given={"vm_per_dbu": {"i3.xlarge": "0.312"}})
    charge = charges_in(tmp_path)[str(run_id)]
    assert charge.amount == "1.274000000000000"  # 2 × (0.15 + 0.312) + 0.35
    assert charge.price is not None
    assert "vm:i3.xlarge" in charge.price.key
    assert "vm_per_dbu" in charge.price.source


def test_updates_of_pipelines(workspace: Workspace, tmp_path: Path) -> None:
    with instrumented(tmp_path, "databricks_sdk"):
        client = sdk.WorkspaceClient(host=f"http://127.0.0.1:{workspace.port}", token=TOKEN)
        update = client.pipelines.start_update(PIPELINE).update_id
    named = {"job_id": None, "dlt_pipeline_id": PIPELINE, "dlt_update_id": update}
    workspace.seed("billing.list_prices", [price("PREMIUM_DLT_CORE_COMPUTE", "0.20")])
    workspace.seed(
        "billing.usage", [usage(None, "3", sku="PREMIUM_DLT_CORE_COMPUTE", metadata=named)]
    )
    times = ran("", minutes=45, result="COMPLETED")
    workspace.seed(
        "lakeflow.pipeline_update_timeline",
        [{**times, "pipeline_id": PIPELINE, "update_id": update}],
    )
    assert run(workspace, tmp_path).found == {"id": 1}
    charge = charges_in(tmp_path)[update]
    assert (charge.amount, charge.basis, charge.error) == ("0.600000000000000", "metered", None)
    assert charge.usage["run_seconds"] == 2700


# --- runs of others ---------------------------------------------------------------------------------


def test_runs_of_schedules_and_bundles_are_found_by_their_tags(
    workspace: Workspace, tmp_path: Path
) -> None:
    tags = [("ci_asset", "mart.orders"), ("team", "growth"), ("bundle", "etl")]
    workspace.seed(
        "billing.usage",
        [usage(7001, "2", custom_tags=tags, identity_metadata={"run_as": "etl@example.com"})],
    )
    workspace.seed("lakeflow.job_run_timeline", [ran(7001), ran(7002, minutes=1)])
    assert run(workspace, tmp_path).added == 0
    report = run(workspace, tmp_path, all=True)
    assert (report.outside, report.added) == (2, 2)
    found = charges_in(tmp_path)
    scheduled, free = found["7001"], found["7002"]
    assert (scheduled.system, scheduled.operation) == ("databricks.jobs", "RUN JOB")
    assert (
        scheduled.attribution.items()
        >= {
            "asset": "mart.orders",
            "team": "growth",
            "bundle": "etl",
            "job": "nightly",
        }.items()
    )
    assert (scheduled.amount, scheduled.resource.namespace) == ("0.300000000000000", str(NIGHTLY))
    # Nothing was billed to the other: that is not known to be 0, a warehouse may have done its work.
    assert (free.amount, free.basis) == (None, "unknown")
    assert "system.billing.usage has nothing" in str(free.usage["unpriced"])
    assert "etl@example.com" not in Charges(tmp_path).text()
    assert run(workspace, tmp_path, all=True).added == 0


# --- all-purpose clusters ---------------------------------------------------------------------------


def test_an_all_purpose_cluster_is_shared_by_the_time_of_tasks(
    workspace: Workspace, tmp_path: Path
) -> None:
    shared = {"job_id": None, "cluster_id": "1122-shared"}
    workspace.seed(
        "billing.usage",
        [
            usage(None, "8.00000000000000123", sku=ALL_PURPOSE, metadata=shared),
            # An hour in which no job ran is nobody's here: people used the cluster, or nobody.
            usage(None, "8", sku=ALL_PURPOSE, metadata=shared, start=HOUR + timedelta(hours=1)),
            usage(1, "1", metadata={"cluster_id": "1122-own"}),
        ],
    )
    workspace.seed("lakeflow.job_run_timeline", [ran(1), ran(2, minutes=30), ran(3, minutes=15)])
    workspace.seed(
        "lakeflow.job_task_run_timeline",
        [
            task(1, "1122-own"),
            task(2, "1122-shared", minutes=30),
            task(3, "1122-shared", minutes=15),
        ],
    )
    report = run(workspace, tmp_path, all=True)
    assert report.failed == ""
    found = charges_in(tmp_path)
    assert (found["1"].basis, found["1"].amount) == ("metered", "0.150000000000000")
    half, quarter = found["2"], found["3"]
    assert (half.basis, quarter.basis) == ("allocated", "allocated")
    assert half.usage["all_purpose_seconds"] == 1800
    hour = Decimal("8.00000000000000123") * Decimal("0.55")
    assert Decimal(half.amount or 0) == pytest.approx(hour / 3, rel=Decimal("1e-9"))
    assert Decimal(quarter.amount or 0) == pytest.approx(hour / 6, rel=Decimal("1e-9"))
    assert Decimal(found["IDLE"].amount or 0) == pytest.approx(hour / 2, rel=Decimal("1e-9"))
    assert total(found) == Decimal("0.15") + Decimal("4.400000000000001")  # exact to 10⁻¹⁵
    assert half.price is not None
    assert half.price.source == f"system.billing.list_prices: {ALL_PURPOSE}"


def test_a_run_on_its_own_and_on_a_shared_cluster_costs_both(
    workspace: Workspace, tmp_path: Path
) -> None:
    shared = {"job_id": None, "cluster_id": "1122-shared"}
    workspace.seed(
        "billing.usage",
        [usage(1, "1"), usage(None, "4", sku=ALL_PURPOSE, metadata=shared)],
    )
    workspace.seed("lakeflow.job_run_timeline", [ran(1, minutes=60), ran(2, minutes=60)])
    later = HOUR + timedelta(minutes=45)
    workspace.seed(
        "lakeflow.job_task_run_timeline",
        [
            task(1, "1122-own", minutes=30),
            task(1, "1122-shared", later, 15, number=2),
            task(2, "1122-shared", minutes=20),
            task(2, "1122-other", minutes=20, number=2),
        ],
    )
    workspace.seed(
        "billing.usage",
        [usage(None, "4", sku=ALL_PURPOSE, metadata={"job_id": None, "cluster_id": "1122-other"})],
    )
    run(workspace, tmp_path, all=True)
    found = charges_in(tmp_path)
    both = Decimal(found["1"].amount or 0)
    assert found["1"].basis == "allocated"
    assert both == pytest.approx(Decimal("0.15") + Decimal("0.55"), rel=Decimal("1e-9"))
    assert (found["2"].amount, found["2"].basis) == (None, "unknown")
    assert "several all-purpose clusters" in str(found["2"].usage["unpriced"])


# --- what is not known yet --------------------------------------------------------------------------


def test_the_bill_is_late_and_the_next_run_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    before = charges_in(tmp_path)[str(run_id)]
    young = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    workspace.seed("lakeflow.job_run_timeline", [ran(run_id, young, 40)])
    workspace.seed("billing.usage", [usage(run_id, "1", start=young)])
    report = run(workspace, tmp_path, reader=DatabricksJobsHistory)
    assert report.settled == 0
    assert report.left == {"the system may still charge for its time": 1}
    assert charges_in(tmp_path)[str(run_id)] == before
    assert report.next_since is not None
    assert report.next_since <= young
    assert run(workspace, tmp_path).settled == 1
    assert charges_in(tmp_path)[str(run_id)].amount == "0.150000000000000"


def test_a_run_that_goes_on_has_cost_so_much_so_far(workspace: Workspace, tmp_path: Path) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    workspace.seed("lakeflow.job_run_timeline", [ran(run_id, minutes=60, result=None)])
    workspace.seed("billing.usage", [usage(run_id, "2")])
    report = run(workspace, tmp_path)
    charge = charges_in(tmp_path)[str(run_id)]
    assert (charge.partial, charge.amount, report.running) == (True, "0.300000000000000", 1)
    later = HOUR + timedelta(hours=1)
    workspace.seed("lakeflow.job_run_timeline", [ran(run_id, later, 30)])
    workspace.seed("billing.usage", [usage(run_id, "1", start=later)])
    run(workspace, tmp_path)
    charge = charges_in(tmp_path)[str(run_id)]
    assert (charge.partial, charge.amount) == (False, "0.450000000000000")


def test_without_lakeflow_there_is_the_bill_alone(workspace: Workspace, tmp_path: Path) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    workspace.refuses |= {
        f"lakeflow.{name}_timeline" for name in ("job_run", "job_task_run", "pipeline_update")
    }
    workspace.seed("billing.usage", [usage(run_id, "2")])
    report = run(workspace, tmp_path)
    assert charges_in(tmp_path)[str(run_id)].amount == "0.300000000000000"
    assert any("without job_run_timeline" in why for why in report.incomplete)
    assert any("GRANT SELECT ON TABLE system.lakeflow" in why for why in report.incomplete)


def test_a_schema_that_is_not_enabled_is_as_one_that_may_not_be_read(
    workspace: Workspace, tmp_path: Path
) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    workspace.database.execute("DROP TABLE system_lakeflow.job_run_timeline")
    workspace.seed("billing.usage", [usage(run_id, "2")])
    report = run(workspace, tmp_path)
    assert charges_in(tmp_path)[str(run_id)].amount == "0.300000000000000"
    assert any("without job_run_timeline" in why for why in report.incomplete)


def test_many_ids_at_once_may_be_too_much(workspace: Workspace, tmp_path: Path) -> None:
    workspace.most_rows = 7
    waiting(workspace, tmp_path, range(100_000, 100_020))
    workspace.seed("billing.usage", [usage(one, "1") for one in range(100_000, 100_020)])
    workspace.seed("lakeflow.job_run_timeline", [ran(one) for one in range(100_000, 100_020)])
    report = run(workspace, tmp_path, since=HOUR + timedelta(hours=10))
    assert (report.settled, report.incomplete) == (20, [])


def test_without_the_bill_nothing_changes(workspace: Workspace, tmp_path: Path) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    before = charges_in(tmp_path)[str(run_id)]
    workspace.refuses.add("billing.usage")
    with pytest.raises(SettlementError, match="no permission") as refused:
        run(workspace, tmp_path)
    assert "GRANT SELECT ON TABLE system.billing.usage" in refused.value.grant
    assert charges_in(tmp_path)[str(run_id)] == before


def test_a_sku_without_a_list_price_is_named(workspace: Workspace, tmp_path: Path) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    workspace.seed(
        "billing.usage", [usage(run_id, "2"), usage(run_id, "1", sku="PREMIUM_NEW_THING")]
    )
    report = run(workspace, tmp_path)
    assert any("PREMIUM_NEW_THING" in why for why in report.incomplete)
    charge = charges_in(tmp_path)[str(run_id)]
    assert (charge.amount, charge.usage["dbus"]) == (None, 3)


@pytest.mark.parametrize("broken", [{"currency_code": None}, {"pricing": {"default": None}}])
def test_a_price_that_says_nothing_is_not_free(
    workspace: Workspace, tmp_path: Path, broken: dict[str, object]
) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    workspace.seed("billing.list_prices", [{**price("PREMIUM_NEW_THING", "1"), **broken}])
    workspace.seed("billing.usage", [usage(run_id, "2", sku="PREMIUM_NEW_THING")])
    report = run(workspace, tmp_path)
    assert any("has no price of PREMIUM_NEW_THING" in why for why in report.incomplete)
    assert charges_in(tmp_path)[str(run_id)].amount is None


def test_the_price_before_offers_where_there_is_no_other(
    workspace: Workspace, tmp_path: Path
) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    pricing = {"default": Decimal("0.5"), "effective_list": {"default": None}}
    workspace.seed("billing.list_prices", [price("PREMIUM_NEW_THING", "1", pricing=pricing)])
    workspace.seed("billing.usage", [usage(run_id, "2", sku="PREMIUM_NEW_THING")])
    run(workspace, tmp_path)
    assert charges_in(tmp_path)[str(run_id)].amount == "1.000000000000000"


def test_a_record_without_a_quantity_is_not_nothing(workspace: Workspace, tmp_path: Path) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    hole = {**usage(run_id, "1", start=HOUR + timedelta(hours=1)), "usage_quantity": None}
    workspace.seed("billing.usage", [usage(run_id, "2"), hole])
    run(workspace, tmp_path)
    charge = charges_in(tmp_path)[str(run_id)]
    assert (charge.amount, charge.basis, charge.usage["dbus"]) == (None, "unknown", 2)
    assert "has no quantity" in str(charge.usage["unpriced"])


def test_a_run_that_databricks_does_not_know_is_lost(workspace: Workspace, tmp_path: Path) -> None:
    known, gone = start_some(workspace, tmp_path, 2)
    del workspace.jobs.runs[gone]
    later: dict[str, Any] = {"now": NOW + timedelta(days=3), "since": NOW}
    report = run(workspace, tmp_path, **later)
    assert report.lost == 1
    found = charges_in(tmp_path)
    assert "does not know it" in str(found[str(gone)].usage)
    assert "does not know it" not in str(found[str(known)].usage)
    assert all(found[str(one)].partial for one in (known, gone))


# --- how it asks ------------------------------------------------------------------------------------


def waiting(workspace: Workspace, ledger: Path, ids: range) -> None:
    """Put runs that wait into the ledger, as they were started an hour after `HOUR`."""
    start_some(workspace, ledger)
    (one,) = charges_in(ledger).values()
    moment = text_of(HOUR + timedelta(hours=1))
    charges = [
        msgspec.structs.replace(
            one, charge_id=f"run-{id_}", vendor_id=str(id_), started_at=moment, ended_at=moment
        )
        for id_ in ids
    ]
    assert write(str(ledger), charges) == len(ids)


MANY = 2500
"""With 10,000 it is the same number of requests, and takes four times as long."""


def test_thousands_of_runs_take_a_handful_of_requests(workspace: Workspace, tmp_path: Path) -> None:
    ids = range(100_000, 100_000 + MANY)
    waiting(workspace, tmp_path, ids)
    workspace.seed("billing.usage", [usage(one, "1") for one in ids])
    workspace.seed("lakeflow.job_run_timeline", [ran(one) for one in ids])
    report = run(workspace, tmp_path)
    assert (report.settled, report.found) == (MANY, {"id": MANY})
    assert total(charges_in(tmp_path)) == MANY * Decimal("0.15")
    assert len(workspace.statements) <= 9  # and four for the one that no table has heard of


def test_runs_of_before_are_asked_for_by_their_ids(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databricks_jobs, "IDS", 25)
    ids = range(100_000, 100_060)
    waiting(workspace, tmp_path, ids)
    workspace.seed("billing.usage", [usage(one, "1") for one in ids])
    workspace.seed("lakeflow.job_run_timeline", [ran(one) for one in ids])
    report = run(workspace, tmp_path, since=HOUR + timedelta(hours=10))
    assert report.settled == 60
    assert len(workspace.statements) == 4 + 3 * 4 + 1  # of the time; three batches; the prices


def test_an_answer_that_is_too_large_is_asked_for_in_parts(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.most_rows = 7
    runs = [(n, HOUR + timedelta(minutes=2 * n)) for n in range(25)]
    workspace.seed("lakeflow.job_run_timeline", [ran(n, start, 1) for n, start in runs])
    workspace.seed(
        "billing.usage",
        [
            {**usage(n, "1"), "usage_start_time": plain(at), "usage_end_time": plain(at + timedelta(minutes=1))}
            for n, at in runs
        ],
    )  # fmt: skip
    report = run(workspace, tmp_path, all=True, until=HOUR + timedelta(hours=1))
    assert (report.figures, report.added, report.failed) == (25, 25, "")
    assert total(charges_in(tmp_path)) == Decimal("3.75")


def test_throttling_and_a_passing_error_are_lived_through(
    workspace: Workspace, tmp_path: Path
) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    workspace.seed("billing.usage", [usage(run_id, "2")])
    path = "/api/2.0/sql/statements"
    workspace.faults += [(path, 429, "TOO_MANY_REQUESTS"), (path, 503, "TEMPORARILY_UNAVAILABLE")]
    report = run(workspace, tmp_path)
    assert workspace.faults == []
    assert (report.settled, report.failed) == (1, "")


def test_a_login_that_expires_half_way_loses_nothing(workspace: Workspace, tmp_path: Path) -> None:
    (run_id,) = start_some(workspace, tmp_path)
    workspace.seed("billing.usage", [usage(run_id, "2")])
    workspace.faults.append(("/api/2.0/sql/statements", 401, "UNAUTHENTICATED"))
    with pytest.raises(SettlementError, match="does not accept the login"):
        run(workspace, tmp_path)
    assert run(workspace, tmp_path).settled == 1
    assert charges_in(tmp_path)[str(run_id)].amount == "0.300000000000000"


def test_a_warehouse_that_sleeps_is_not_woken(workspace: Workspace, tmp_path: Path) -> None:
    workspace.warehouses["abc123"].update(state="STOPPED", auto_stop_mins=10)
    with pytest.raises(WouldWake, match=r"abc123 \(Small\) is stopped"):
        run(workspace, tmp_path)
    assert workspace.statements == []


def test_its_own_queries_are_marked_and_bounded(workspace: Workspace, tmp_path: Path) -> None:
    start_some(workspace, tmp_path)
    run(workspace, tmp_path, all=True)
    assert len(workspace.statements) >= 5
    for statement in workspace.statements:
        assert MARK in statement.text
        assert statement.tags == {MARK: "1"}
        assert "TIMESTAMP '" in statement.text or "DATE '" in statement.text
    assert TOKEN not in Charges(tmp_path).text()


def test_a_program_that_dies_is_settled_by_another_process(
    workspace: Workspace, tmp_path: Path
) -> None:
    script = f"""
import os, costinsights
costinsights.instrument("databricks_sdk", ledger={str(tmp_path)!r}, exporters=[])
from databricks.sdk import WorkspaceClient
client = WorkspaceClient(host="http://127.0.0.1:{workspace.port}", token="x")
with costinsights.attribute(job="nightly"):
    client.jobs.run_now({NIGHTLY})
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    (run_id,) = workspace.jobs.runs
    started = int(HOUR.timestamp() * 1000)
    workspace.jobs.end(run_id, "SUCCESS", started=started, seconds=5400)
    workspace.jobs.record(run_id)
    workspace.seed("billing.usage", [usage(run_id, "4")])
    assert run(workspace, tmp_path).settled == 1
    charge = charges_in(tmp_path)[str(run_id)]
    assert (charge.amount, charge.usage["run_seconds"]) == ("0.600000000000000", 5400)
    assert charge.attribution["job"] == "nightly"
