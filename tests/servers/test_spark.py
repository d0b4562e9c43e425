"""Real Spark, both supported majors: live, from the REST API and from the event log, to the ms."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from costinsights.ledger.reader import read_ledger
from costinsights.settlement.settling import settle
from costinsights.settlement.spark import SparkHistory
from costinsights.systems.spark import COUNTED
from costinsights.systems.spark_rest import BAD_TASKS, STAGE
from tests.backends import unavailable
from tests.processes import Unavailable
from tests.servers.spark_connect import connect_server
from tests.servers.spark_session import MAJORS, SECONDS, prepared, said, spark

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

pytestmark = pytest.mark.slow
ENDINGS = {"3.5": "leaves", "4": "killed"}
RATE = Decimal("0.048") / 3600


@dataclass
class Ran:
    """What is there of one application that has run."""

    folder: Path
    seen: dict[str, Any]
    log: str = ""
    ending: str = ""
    at_server: list[Charge] = field(default_factory=list["Charge"])
    """As the REST API had them, while the application was still there."""

    @property
    def application(self) -> str:
        found: str = self.seen["pages"]["id"]
        return found

    @property
    def live(self) -> dict[str, Charge]:
        """The charges of the application that was stopped as it should be."""
        return of(self.application, latest(self.folder / "ledger"))

    @property
    def second(self) -> dict[str, Charge]:
        """Those of the one that was not."""
        found = latest(self.folder / "ledger")
        return {id_: charge for id_, charge in found.items() if id_ not in self.live}


def of(application: str, charges: Mapping[str, Charge]) -> dict[str, Charge]:
    return {id_: charge for id_, charge in charges.items() if id_.partition("/")[0] == application}


def latest(ledger: Path) -> dict[str, Charge]:
    """Return each charge's last entry, by Spark's id."""
    found: dict[str, Charge] = {}
    for charge in read_ledger(str(ledger)):
        assert charge.vendor_id is not None
        before = found.get(charge.vendor_id)
        if before is None or charge.revision > before.revision:
            assert before is None or before.charge_id == charge.charge_id, "two for one"
            found[charge.vendor_id] = charge
    return found


def settled(
    folder: Path, ledger: Path, options: Mapping[str, Any], *, everything: bool = True
) -> Settled:
    now = datetime.now(timezone.utc)
    history = SparkHistory(options)
    found = settle(
        "spark",
        now - timedelta(hours=3),
        history=history,
        ledger=ledger,
        config=folder / "costinsights.toml",
        all=everything,
    )
    assert not found.failed, found.failed
    return found


@pytest.fixture(scope="module", params=MAJORS)
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One application a major, for all tests: what it did, and what was asked of it meanwhile."""
    folder = prepared(tmp_path_factory.mktemp("spark") / "run")
    try:
        engine = spark(request.param)
    except Unavailable as reason:
        unavailable(f"Spark {request.param}", reason)
    ending = ENDINGS[request.param]
    with engine.program(ending, folder) as process:
        found = Ran(folder, said(process, folder))
        settled(folder, folder / "at_server", {"url": found.seen["url"]})
        found.at_server = list(latest(folder / "at_server").values())
        output, _ = process.communicate("\n", timeout=SECONDS)
        assert "STOPPED, and 1" in output, (folder / "log").read_text(encoding="utf-8")[-8000:]
        assert process.returncode == (-9 if ending == "killed" else 0)
    found.ending = ending
    found.log = (folder / "log").read_text(encoding="utf-8")
    return found


def figures(charge: Charge) -> tuple[Any, ...]:
    """Return all that must be the same, wherever a charge comes from."""
    usage = {name: value for name, value in charge.usage.items() if name != "time_ns"}
    return (
        charge.vendor_id,
        charge.operation,
        charge.started_at,
        charge.ended_at,
        usage,
        charge.amount,
        charge.basis,
        charge.error,
        charge.resource,
    )


def of_pages(ran: Ran) -> dict[str, list[int]]:
    """Add the stages of the driver's own pages up, by unit: what must come out, to the ms."""
    pages = ran.seen["pages"]
    of_job = {
        job: f"sql/{one['id']}"
        for one in pages["sql"]
        for job in [*one["successJobIds"], *one["failedJobIds"], *one["runningJobIds"]]
    }
    of_stage: dict[int, str] = {}
    for job in sorted(pages["jobs"], key=lambda job: job["jobId"]):
        for stage in job["stageIds"]:
            of_stage.setdefault(stage, of_job.get(job["jobId"], f"job/{job['jobId']}"))
    sums: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTED))
    for stage in pages["stages"]:
        bad = sum(stage[name] for name in BAD_TASKS)
        row = [*(stage[name] for name in STAGE.values()), stage["numCompleteTasks"] + bad, bad]
        unit = sums[of_stage[stage["stageId"]]]
        unit[:] = [had + more for had, more in zip(unit, row, strict=True)]
    return dict(sums)


def test_every_figure_is_that_of_sparks_own_pages(ran: Ran) -> None:
    application = ran.application
    live = ran.live
    pages = of_pages(ran)
    assert len(pages) >= 12
    for unit, sums in pages.items():
        usage = live[f"{application}/{unit}"].usage
        assert [usage.get(name, 0) for name in COUNTED] == sums, unit
        assert usage["core_seconds"] == sums[0] / 1000
    units = {id_ for id_ in live if id_ != application}
    executions = {f"{application}/sql/{one['id']}" for one in ran.seen["pages"]["sql"]}
    assert units == {f"{application}/{unit}" for unit in pages} | executions
    assert sum(usage[0] for usage in pages.values()) > 0


def test_amounts_are_core_seconds_and_idle_is_the_rest(ran: Ran) -> None:
    application = ran.application
    live = ran.live
    for charge in live.values():
        core_seconds = Decimal(str(charge.usage["core_seconds"]))
        assert charge.amount is not None
        assert abs(Decimal(charge.amount) - core_seconds * RATE) < Decimal("1e-14")
        assert (charge.basis, charge.currency, charge.partial) == ("metered", "USD", False)
    idle = live[application]
    assert idle.operation == "IDLE"
    used = sum(
        Decimal(str(charge.usage["core_seconds"])) for charge in live.values() if charge is not idle
    )
    assert Decimal(str(idle.usage["busy_core_seconds"])) == used
    allocated = Decimal(str(idle.usage["allocated_core_seconds"]))
    assert Decimal(str(idle.usage["core_seconds"])) == allocated - used
    pages = ran.seen["pages"]
    assert idle.usage["executors"] == sum(1 for one in pages["allexecutors"] if one["totalCores"])


def test_each_scope_has_its_own_costs(ran: Ran) -> None:
    by_asset: dict[str | None, list[Charge]] = defaultdict(list)
    for charge in ran.live.values():
        by_asset[charge.attribution.get("asset")].append(charge)
        assert charge.attribution["team"] == "core", "of the application's configuration"
    counts = {asset: len(charges) for asset, charges in by_asset.items()}
    assert counts == {
        "orders": 1,
        "totals": 2,
        "files": 2 if counts["files"] == 2 else 3,  # reading a schema may be a job of its own
        "retried": 2,
        "by hand": 1,
        "left": 2,
        "right": 2,
        "broken": 1,
        None: 2,  # the report's job, and what was idle
    }
    (orders,) = by_asset["orders"]
    assert orders.attribution["job"] == "nightly"
    assert int(orders.usage["jobs"]) >= 1
    assert int(orders.usage["stages"]) >= 3
    assert {charge.attribution.get("job") for charge in by_asset["totals"]} == {"nightly"}
    report = next(charge for charge in by_asset[None] if charge.operation == "JOB")
    assert report.attribution["job_group"] == "reports"
    assert report.attribution["description"] == "the weekly report"
    idle = next(charge for charge in by_asset[None] if charge.operation == "IDLE")
    assert idle.attribution["run"] == "1", "the scope in which the session was built"
    assert ran.seen["property"] is None, "nothing is left on the thread behind the last scope"
    assert ran.seen["calls"] >= 3, "the scope knows what came of it"


def test_what_failed_and_was_repeated_counts(ran: Ran) -> None:
    live = ran.live
    report = next(one for one in live.values() if one.attribution.get("job_group") == "reports")
    assert (report.usage["tasks"], report.usage["failed_tasks"]) == (3, 1)
    assert report.error is None
    attempts = [
        str(one.usage["run_time_ms_by_stage"])
        for one in live.values()
        if one.attribution.get("asset") == "retried"
    ]
    assert any(".1=" in text for text in attempts), f"no stage was repeated: {attempts}"
    assert any(int(one.usage.get("failed_tasks", 0)) for one in live.values())
    broken = next(one for one in live.values() if one.attribution.get("asset") == "broken")
    assert broken.error is not None
    assert broken.error.type == "FAILED"
    assert int(broken.usage["failed_tasks"]) >= 2


def test_the_event_log_alone_gives_the_same_charges(ran: Ran, tmp_path: Path) -> None:
    options = {"logs": [str(ran.folder / "events0")]}
    first = settled(ran.folder, tmp_path / "ledger", options)
    assert (first.added, first.incomplete) == (len(ran.live), [])
    read = latest(tmp_path / "ledger")
    assert {id_: figures(charge) for id_, charge in read.items()} == {
        id_: figures(charge) for id_, charge in ran.live.items()
    }
    for id_, charge in ran.live.items():
        asset = charge.attribution.get("asset")
        assert read[id_].attribution.get("asset") == asset
        assert read[id_].charge_id == f"spark:{id_}"
    again = settled(ran.folder, tmp_path / "ledger", options)
    assert (again.added, again.unchanged) == (0, first.added)


def test_settling_a_live_ledger_changes_nothing(ran: Ran) -> None:
    before = ran.live
    options = {"logs": [str(ran.folder / "events0")]}
    found = settled(ran.folder, ran.folder / "ledger", options, everything=False)
    assert (found.settled, found.added) == (0, 0)
    found = settled(ran.folder, ran.folder / "ledger", options)
    assert (found.settled, found.added, found.unchanged) == (0, 0, len(before))
    assert found.found == {"id": len(before)}
    assert ran.live == before


def test_the_rest_api_gives_the_same_charges(ran: Ran) -> None:
    live = ran.live
    assert len(ran.at_server) == len(live)
    for charge in ran.at_server:
        if charge.operation == "IDLE":
            assert charge.partial, "the application was still running"
            continue
        assert charge.vendor_id is not None
        assert figures(charge) == figures(live[charge.vendor_id])


def test_the_program_sees_nothing_of_it(ran: Ran) -> None:
    seen = ran.seen
    assert (seen["joined"], seen["cached"], seen["read"]) == (6, [6, 6], 1000)
    assert (seen["retried task"], seen["retried stage"], seen["by hand"]) == (8, 5, 5)
    assert seen["error"] in ("SparkRuntimeException", "Py4JJavaError")
    assert seen["their jobs"] == len(seen["pages"]["jobs"]), "a listener of its own hears all"
    for word in (
        "costinsights does",
        "costinsights' own",
        "costinsights.Listener",
        "py4j.clientserver",
    ):
        assert word not in ran.log, ran.log[-8000:]


def test_no_secret_and_no_path_is_kept(ran: Ran) -> None:
    kept = "".join(
        path.read_text(encoding="utf-8") for path in (ran.folder / "ledger").rglob("*.jsonl")
    )
    assert kept
    for word in (str(ran.folder), "assert_true", "the first attempt fails", "id % 10"):
        assert word not in kept, word


def test_an_application_that_nobody_stopped_is_settled_from_its_log(
    ran: Ran, tmp_path: Path
) -> None:
    """Its program has left without a word, or was killed; what it has done is known, or pending."""
    died = ran.second
    (application,) = (id_ for id_ in died if "/" not in id_)
    assert died[application].partial, "the JVM ends after its program: only the log knows when"
    if ran.ending == "leaves":
        (execution,) = (charge for id_, charge in died.items() if "/sql/" in id_)
        assert (execution.partial, execution.basis) == (False, "metered")
        assert execution.usage["tasks"] == 3
        assert float(died[application].usage["core_seconds"]) > 0
    # The JVM outlives its program for a moment, and writes its last event.
    log = ran.folder / "events1"
    deadline = time.monotonic() + 60
    while any(log.rglob("*.inprogress")) and time.monotonic() < deadline:
        time.sleep(0.2)
    ledger = tmp_path / "ledger"
    shutil.copytree(ran.folder / "ledger", ledger)
    # --all: of one that was killed the last moments may not have come to the ledger.
    everything = ran.ending == "killed"
    found = settled(ran.folder, ledger, {"logs": [str(log)]}, everything=everything)
    assert found.settled >= 1
    alive = of(application, latest(ledger))
    # One of them ran while costinsights was switched off.
    assert [one.attribution.get("asset") for one in alive.values() if one.operation == "SQL"] == (
        ["orders"] if ran.ending == "leaves" else ["orders", None]
    )
    assert sum(charge.operation == "IDLE" for charge in alive.values()) == 1
    for charge in alive.values():
        assert (charge.partial, charge.basis) == (False, "metered")
    settled(ran.folder, tmp_path / "fresh", {"logs": [str(log)]})
    assert {id_: figures(charge) for id_, charge in latest(tmp_path / "fresh").items()} == {
        id_: figures(charge) for id_, charge in alive.items()
    }


# --- Spark Connect -------------------------------------------------------------------------------

CLIENT = """
import sys
import costinsights
costinsights.instrument("pyspark", ledger=sys.argv[1], exporters=[])
from pyspark.sql import SparkSession
spark = SparkSession.builder.remote(sys.argv[2]).getOrCreate()
with costinsights.attribute(asset="remote"):
    print("SUM", spark.range(0, 1000, 1, 2).groupBy().sum("id").collect()[0][0])
spark.stop()
"""


def test_what_a_connect_client_asked_for_is_in_its_servers_log(tmp_path: Path) -> None:
    try:
        engine = spark("4")
    except Unavailable as reason:
        unavailable("Spark Connect 4", reason)
    folder = prepared(tmp_path / "run")
    with connect_server(engine, folder) as port:
        client = subprocess.run(
            [engine.python, "-c", CLIENT, str(folder / "ledger"), f"sc://127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            env={**os.environ, "COSTINSIGHTS_STRICT": "1"},
            timeout=SECONDS,
            check=False,
        )
    assert "SUM 499500" in client.stdout, client.stderr
    (asked,) = latest(folder / "ledger").values()
    assert (asked.operation, asked.partial, asked.amount) == ("CONNECT", True, None)
    assert (asked.resource.address, asked.resource.port) == ("127.0.0.1", port)
    assert asked.attribution["asset"] == "remote"
    found = settled(folder, folder / "ledger", {"logs": [str(folder / "events")]})
    assert (found.settled, found.added) == (1, 1)
    done = latest(folder / "ledger")
    assert sorted(charge.operation for charge in done.values()) == ["CONNECT", "IDLE"]
    charge = done[asked.vendor_id or ""]
    assert (charge.partial, charge.basis) == (False, "metered")
    assert int(charge.usage["tasks"]) == 3
    assert charge.usage["core_seconds"] == int(charge.usage["executor_run_time_ms"]) / 1000
