"""`costinsights settle azure.data_factory` with azure-core, against the local ARM server."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from costinsights import asking
from costinsights.settlement.azure_data_factory import DataFactoryHistory
from costinsights.settlement.settling import SettlementError, settle
from tests.servers.azure_server import (
    FACTORY,
    GROUP,
    HERE,
    SUBSCRIPTION,
    TOKEN,
    WORKSPACE,
    Activity,
    Azure,
    Refusal,
    azure_server,
    batch_2020,
    billed,
    control,
    copy,
    copy_2020,
    data_flow,
    execute,
    lookup,
    notebook,
)
from tests.servers.charges import Charges, instrumented

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from pathlib import Path

    from costinsights.records import Charge
    from costinsights.settlement.settling import Settled

FACTORY_NAME = f"{SUBSCRIPTION}/{GROUP}/{FACTORY}"
# Of West Europe, 2024: infracost's data_factory_integration_runtime_…_test.
RUN = Decimal("0.001")
MINUTE = Decimal(1) / 60


def waited(_: float) -> None:
    """Wait no time at all."""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test, and nobody waits between tries."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setattr(asking, "sleep", waited)


@pytest.fixture
def azure() -> Iterator[Azure]:
    with azure_server() as azure:
        yield azure


@contextmanager
def program(ledger: Path) -> Generator[Charges]:
    """Be a program that starts runs and asks for none."""
    with instrumented(ledger, "azure_datafactory", "azure_synapse") as charges:
        yield charges


def start(azure: Azure, ledger: Path, name: str, count: int = 1) -> list[str]:
    with program(ledger), azure.data_factory() as client:
        return [client.pipelines.create_run(GROUP, FACTORY, name).run_id for _ in range(count)]


def history(azure: Azure, **more: Any) -> DataFactoryHistory:
    options = {"endpoint_url": azure.url, "synapse_endpoint": azure.url, "token": TOKEN}
    return DataFactoryHistory({**options, **more})


def settled(azure: Azure, ledger: Path, *, options: Any = None, **more: Any) -> Settled:
    azure.requests.clear()
    now = more.pop("now", None) or datetime.now(timezone.utc) + timedelta(hours=2)
    return settle(
        "azure.data_factory",
        now - timedelta(hours=6),
        ledger=ledger,
        history=history(azure, **(options or {})),
        now=now,
        **more,
    )


def latest(ledger: Path) -> dict[str | None, Charge]:
    """The charges by run; without those of the settlement itself."""
    return {charge.vendor_id: charge for charge in Charges(ledger).entries() if charge.vendor_id}


def amount(charge: Charge) -> Decimal:
    assert charge.amount is not None, charge
    return round(Decimal(charge.amount), 12)


def test_pending_runs_get_what_they_were_billed_for(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy(), lookup("SelfhostedIR"), control())
    ids = start(azure, tmp_path, "load", 3)
    said: list[str] = []
    report = settled(azure, tmp_path, said=said.extend)
    assert said == ["3 runs by id in 1 factories, with their parts"]
    assert (report.found, report.settled, report.incomplete) == ({"id": 3}, 3, [])
    assert azure.counts() == {"factories": 1, "pipelineruns": 3, "queryActivityruns": 3}
    assert report.requests == 7
    assert report.spent == {"monitoring_entities": str(1 + 3 + 3 * 3)}
    assert report.cost == "0.000065000000000"
    found = latest(tmp_path)
    assert set(found) == set(ids)
    charge = found[ids[0]]
    assert charge.basis == "metered"
    assert not charge.partial
    assert charge.usage["azure_ir_diu_seconds"] == 240
    assert charge.usage["self_hosted_ir_pipeline_activity_seconds"] == 60
    assert (charge.usage["azure_ir_activity_runs"], charge.usage["pipeline"]) == (2, "load")
    assert charge.usage["self_hosted_ir_activity_runs"] == 1
    # Two runs on Azure, one elsewhere; 4 units for a minute; a minute elsewhere.
    expected = 2 * RUN + Decimal("0.0015") + 4 * MINUTE / 4 + MINUTE * Decimal("0.002")
    assert amount(charge) == round(expected, 12)
    again = settled(azure, tmp_path)
    assert (again.settled, again.added) == (0, 0)
    assert azure.counts() == {}


def test_the_end_is_that_of_the_run(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy(), status="Failed")
    (id_,) = start(azure, tmp_path, "load")
    settled(azure, tmp_path)
    charge, run = latest(tmp_path)[id_], azure.runs[id_]
    assert charge.error is not None
    assert charge.error.type == "Failed"
    assert charge.ended_at[:23] == run.ended.strftime("%Y-%m-%dT%H:%M:%S.%f")[:23]
    assert amount(charge) == round(RUN + MINUTE, 12)


ONE_HOUR = {
    "azure": ("AzureIR", "0.005", "0.00025", RUN),
    "managed VNet": ("ManagedVNetIR", "1.00", "1.00", RUN),
    "self-hosted": ("SelfhostedIR", "0.002", "0.0001", Decimal("0.0015")),
}


def start_each(azure: Azure, ledger: Path, names: Iterable[str]) -> dict[str, str]:
    """Start one run of each pipeline, and return their ids."""
    with program(ledger), azure.data_factory() as client:
        create = client.pipelines.create_run
        return {name: create(GROUP, FACTORY, name).run_id for name in names}


def test_each_runtime_has_its_price(azure: Azure, tmp_path: Path) -> None:
    for name, (meter, *_) in ONE_HOUR.items():
        azure.pipeline(name, lookup(meter, minutes=60), notebook(meter))
    ids = start_each(azure, tmp_path, ONE_HOUR)
    settled(azure, tmp_path)
    found = latest(tmp_path)
    for name, (_, pipeline, external, run) in ONE_HOUR.items():
        expected = 2 * run + Decimal(pipeline) + 2 * MINUTE * Decimal(external)
        assert amount(found[ids[name]]) == round(expected, 12), name


def managed_copy() -> Activity:
    return Activity(
        "Copy", {"billingReference": billed("DataMovement", "ManagedVNetIR", 0.5, "DIUHours")}
    )


def local_copy() -> Activity:
    return Activity(
        "Copy", {"billingReference": billed("DataMovement", "SelfhostedIR", 0.5, "Hours")}
    )


def unknown_diu() -> Activity:
    return Activity("Copy", {"billingReference": billed("DataMovement", "FancyIR", 1, "DIUHours")})


FORMS: list[tuple[Activity, Decimal]] = [
    (copy_2020(), RUN + Decimal("11.733333333333") / 4),
    (batch_2020(), RUN + MINUTE * Decimal("0.00025")),
    (data_flow(), RUN + Decimal("0.081761342667") * Decimal("0.268")),
    (data_flow("General"), RUN + Decimal("0.081761342667") * Decimal("0.268")),
    (data_flow("MemoryOptimized", 2), RUN + 2 * Decimal("0.34475")),
    (data_flow("ComputeOptimized", 2), RUN + 2 * Decimal("0.1985")),
    (managed_copy(), RUN + Decimal("0.125")),
    (local_copy(), Decimal("0.0015") + Decimal("0.05")),
    (unknown_diu(), RUN + Decimal("0.25")),  # only Azure counts in units
    (control("ForEach"), RUN),
    # As it came, not a minute more: what is rounded is not rounded again.
    (lookup(minutes=7), RUN + 7 * MINUTE * Decimal("0.005")),
    (
        Activity(
            "Lookup",
            {"billingReference": billed("PipelineActivity", "AzureIR", 0.0167, "Hours")},
        ),
        RUN + Decimal("0.0167") * Decimal("0.005"),
    ),
]


def test_recorded_forms(azure: Azure, tmp_path: Path) -> None:
    for number, (activity, _) in enumerate(FORMS):
        azure.pipeline(str(number), activity)
    ids = start_each(azure, tmp_path, map(str, range(len(FORMS))))
    settled(azure, tmp_path)
    found = latest(tmp_path)
    for number, (activity, expected) in enumerate(FORMS):
        charge = found[ids[str(number)]]
        assert abs(amount(charge) - expected) < Decimal("1e-9"), activity
        assert charge.basis == "metered"


def one(reference: object, kind: str = "Lookup", status: str = "Succeeded") -> Activity:
    return Activity(kind, {"billingReference": reference}, status)


PIPELINE = "PipelineActivity"
MALFORMED = {
    "an unknown runtime": (one(billed(PIPELINE, "FancyIR", 1, "Hours")), "on 'FancyIR'"),
    "an unknown unit": (one(billed(PIPELINE, "AzureIR", 1, "Fortnights")), "1 Fortnights"),
    "an unknown activity": (one(billed("Dance", "AzureIR", 1, "Hours")), "billed as 'Dance'"),
    "text for a number": (one(billed(PIPELINE, "AzureIR", "1", "Hours")), "1 Hours on"),
    "less than nothing": (one(billed(PIPELINE, "AzureIR", -1, "Hours")), "-1 Hours"),
    "no duration": (one({"activityType": PIPELINE}), "billed as 'PipelineActivity'"),
    "no table": (one("{"), "cannot be read"),
    "a list": (one([1]), "billed as 'None'"),
    "none at all": (Activity("Lookup", {}), "has no billing reference"),
    "a failed one without": (Activity("Copy", {}, "Failed"), "Copy: Failed, and has no billing"),
    "no output": (Activity("Copy", None), "has no billing reference"),
    "an unknown status": (Activity("Wait", {}, "Dreaming"), "its status is 'Dreaming'"),
    "flows on what": (
        Activity(
            "ExecuteDataFlow",
            {"billingReference": billed("executedataflow", "Data Flow", 1, "coreHour")},
        ),
        "1 coreHour on 'Data Flow'",
    ),
}


def test_what_cannot_be_read_is_unknown_and_says_why(azure: Azure, tmp_path: Path) -> None:
    for what, (activity, _) in MALFORMED.items():
        azure.pipeline(what, copy(), activity)
    ids = start_each(azure, tmp_path, MALFORMED)
    report = settled(azure, tmp_path)
    found = latest(tmp_path)
    for what, (_, why) in MALFORMED.items():
        charge = found[ids[what]]
        assert (charge.amount, charge.basis, charge.partial) == (None, "unknown", False), what
        assert why in str(charge.usage["unpriced"]), what
        assert charge.usage["azure_ir_diu_seconds"] == 240, what  # the raw figures are there
    assert sum(report.unpriced.values()) == len(MALFORMED)
    # Once the vendor says it as it should, the charge has its price.
    for run in azure.runs.values():
        for each in run.activities:
            each.update(status="Succeeded", output=copy().output)
    assert settled(azure, tmp_path).settled == len(MALFORMED)
    assert not any("unpriced" in charge.usage for charge in latest(tmp_path).values())


NO_RUNS: list[object] = [{}, [], b"<html>", {"runId": 7, "runStart": 7}]
NO_LISTS: list[object] = [
    *({}, [], b"<html>", b""),
    *({"value": None}, {"value": "text"}, {"value": [1]}),
]


def test_answers_that_are_none(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy())
    start(azure, tmp_path, "load", len(NO_RUNS))
    left = list(NO_RUNS)
    azure.edit("pipelineruns", lambda _: left.pop())
    report = settled(azure, tmp_path)
    assert not left
    assert "neither its id nor its start" in report.incomplete[0]
    assert all(charge.partial for charge in latest(tmp_path).values())
    azure.as_before()
    start(azure, tmp_path, "load", len(NO_LISTS) - len(NO_RUNS))
    left = list(NO_LISTS)
    azure.edit("queryActivityruns", lambda _: left.pop())
    settled(azure, tmp_path)
    assert not left
    for charge in latest(tmp_path).values():
        assert (charge.amount, charge.basis) == (None, "unknown")
        assert "queryActivityruns gave" in str(charge.usage["unpriced"])
    azure.as_before()
    assert settled(azure, tmp_path).settled == len(NO_LISTS)


def test_unknown_states(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy(), status="Pondering")
    (id_,) = start(azure, tmp_path, "load")
    settled(azure, tmp_path)
    charge = latest(tmp_path)[id_]
    assert (charge.amount, charge.basis) == (None, "unknown")
    assert "the status of a pipeline run is 'Pondering'" in str(charge.usage["unpriced"])


def test_nested_pipelines_are_a_part_of_their_parent(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("leaf", copy(), lookup())
    azure.pipeline("middle", execute("leaf"), execute("leaf"))
    azure.pipeline("all", execute("middle"), copy())
    (id_,) = start(azure, tmp_path, "all")
    azure.start("leaf")  # one that belongs to nobody
    # Execute Pipeline: 1 + 2, copies: 1 + 2, lookups: 2.
    whole = round(8 * RUN + 3 * MINUTE + 2 * MINUTE * Decimal("0.005"), 12)
    report = settled(azure, tmp_path, all=True, options={"factories": [FACTORY_NAME]})
    assert (report.settled, report.added) == (1, 1)
    assert azure.counts()["pipelineruns"] == 4  # each run of the tree once
    found = latest(tmp_path)
    assert len(found) == 2
    assert amount(found[id_]) == whole
    assert found[id_].usage["pipeline_runs"] == 4
    alone = next(charge for charge in found.values() if charge.vendor_id != id_)
    assert amount(alone) == round(2 * RUN + MINUTE + MINUTE * Decimal("0.005"), 12)
    assert settled(azure, tmp_path, all=True).added == 0


def test_a_child_that_is_listed_alone_leads_to_its_parent(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("leaf", copy())
    azure.pipeline("middle", execute("leaf"))
    azure.pipeline("all", execute("middle"))
    root = azure.start("all", ago=60)
    for run in azure.runs.values():
        if run.name != "leaf":
            run.ended -= timedelta(days=2)
    options = {"factories": [FACTORY_NAME]}
    assert settled(azure, tmp_path, all=True, options=options).added == 1
    (charge,) = latest(tmp_path).values()
    assert (charge.vendor_id, charge.usage["pipeline_runs"]) == (root, 3)


def test_a_child_that_goes_on_keeps_its_parent_open(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("later", copy(), questions=10**6)
    azure.pipeline("all", execute("later"))
    (id_,) = start(azure, tmp_path, "all")
    report = settled(azure, tmp_path)
    assert (report.settled, report.running) == (0, 1)
    so_far = latest(tmp_path)[id_]
    assert so_far.partial
    for run in azure.runs.values():
        run.questions = 0
    assert settled(azure, tmp_path).settled == 1
    assert not latest(tmp_path)[id_].partial


def test_running_runs_are_settled_as_they_go(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("long", copy(), copy(), questions=10**6)
    (id_,) = start(azure, tmp_path, "long")
    second = azure.runs[id_].activities.pop()
    report = settled(azure, tmp_path)
    assert (report.running, report.settled) == (1, 0)
    charge = latest(tmp_path)[id_]
    assert charge.partial
    assert amount(charge) == round(RUN + MINUTE, 12)
    azure.runs[id_].activities.append(second)
    azure.runs[id_].questions = 0
    assert settled(azure, tmp_path).settled == 1
    charge = latest(tmp_path)[id_]
    assert not charge.partial
    assert amount(charge) == round(2 * RUN + 2 * MINUTE, 12)


def test_runs_of_triggers_with_all(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy())
    azure.pipeline("other", lookup())
    azure.fire("nightly", "load", "other", ago=3600)
    azure.fire("hourly", "load", ago=1800)
    azure.start("load", (SUBSCRIPTION, GROUP, "elsewhere"))
    report = settled(azure, tmp_path, all=True, options={"factories": [FACTORY_NAME]})
    assert (report.added, report.incomplete) == (3, [])
    found = list(latest(tmp_path).values())
    # Three activities, and two runs of triggers: one of them has started two pipelines.
    assert sum(int(charge.usage["azure_ir_activity_runs"]) for charge in found) == 5
    assert sum(int(charge.usage.get("trigger_runs", 0)) for charge in found) == 2
    assert sum(map(amount, found)) == round(5 * RUN + 2 * MINUTE + MINUTE * Decimal("0.005"), 12)
    assert {charge.attribution["job"] for charge in found} == {"load", "other"}
    assert {charge.resource.namespace for charge in found} == {FACTORY_NAME}
    again = settled(azure, tmp_path, all=True, options={"factories": [FACTORY_NAME]})
    assert (again.added, again.unchanged) == (0, 3)


def test_retries_are_activity_runs_and_skipped_ones_are_not(azure: Azure, tmp_path: Path) -> None:
    skipped = Activity("Copy", None, "Skipped")
    failed = copy()._replace(status="Failed", attempts=3)
    azure.pipeline("load", failed, copy(), skipped)
    (id_,) = start(azure, tmp_path, "load")
    settled(azure, tmp_path)
    charge = latest(tmp_path)[id_]
    assert amount(charge) == round(4 * RUN + 4 * MINUTE, 12)
    assert charge.usage["failed_activity_runs"] == 3


def test_pages_and_a_token_that_comes_again(azure: Azure, tmp_path: Path) -> None:
    azure.page = 7
    azure.pipeline("load", *(copy() for _ in range(20)))
    (id_,) = start(azure, tmp_path, "load")
    settled(azure, tmp_path)
    assert azure.counts()["queryActivityruns"] == 3
    assert latest(tmp_path)[id_].usage["azure_ir_activity_runs"] == 20
    azure.repeat_tokens = True
    (id_,) = start(azure, tmp_path, "load")
    settled(azure, tmp_path)
    assert azure.counts()["queryActivityruns"] == 3
    assert latest(tmp_path)[id_].usage["azure_ir_activity_runs"] == 20


def test_many_runs_are_read_from_the_list(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy())
    start(azure, tmp_path, "load", 120)
    report = settled(azure, tmp_path)
    assert report.settled == 120
    assert azure.counts() == {"factories": 1, "queryPipelineRuns": 2, "queryActivityruns": 120}


def test_a_list_of_others_is_not_read_to_its_end(azure: Azure, tmp_path: Path) -> None:
    azure.page = 5
    azure.pipeline("load", copy())
    for _ in range(60):
        azure.start("load", ago=30)
    start(azure, tmp_path, "load", 20)
    report = settled(azure, tmp_path)
    assert report.settled == 20
    assert azure.counts()["queryPipelineRuns"] == 3
    assert azure.counts()["pipelineruns"] == 20


def test_what_the_factory_forgot_is_said(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy())
    (id_,) = start(azure, tmp_path, "load")
    azure.runs.clear()
    soon = settled(azure, tmp_path, now=datetime.now(timezone.utc) + timedelta(minutes=5))
    assert soon.lost == 0
    report = settled(azure, tmp_path)
    assert report.lost == 1
    charge = latest(tmp_path)[id_]
    assert charge.partial
    assert "no longer knows it" in str(charge.usage["lost"])
    assert settled(azure, tmp_path).requests == 0


def test_a_factory_that_is_not_there_loses_nothing(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy())
    (id_,) = start(azure, tmp_path, "load")
    azure.refuse("factories", Refusal(404, "SubscriptionNotFound"))
    report = settled(azure, tmp_path)
    assert (report.lost, report.settled) == (0, 0)
    assert FACTORY_NAME in report.incomplete[0]
    assert latest(tmp_path)[id_].partial
    assert settled(azure, tmp_path).settled == 1


REFUSALS = {
    "factories": [Refusal(429, "TooManyRequests", (("Retry-After", "1"),))] * 3,
    "pipelineruns": [Refusal(429, "SubscriptionRequestsThrottled"), Refusal(503), Refusal(408)],
    "queryActivityruns": [
        Refusal(500),
        Refusal(502, body=b"<html>"),
        Refusal(401, "ExpiredAuthenticationToken"),
    ],
}


def test_it_is_patient(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy())
    (id_,) = start(azure, tmp_path, "load")
    for operation, refusals in REFUSALS.items():
        azure.refuse(operation, *refusals)
    report = settled(azure, tmp_path)
    assert report.settled == 1
    assert report.requests == 3 + 9
    assert amount(latest(tmp_path)[id_]) == round(RUN + MINUTE, 12)


def test_what_fails_half_way_is_settled_later(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy())
    start(azure, tmp_path, "load", 3)
    azure.refuse("queryActivityruns", *[Refusal(503)] * 7)
    assert settled(azure, tmp_path).settled == 3
    start(azure, tmp_path, "load", 3)

    def fail_next(answer: dict[str, Any]) -> object:
        azure.refuse("pipelineruns", Refusal(400))
        return answer

    azure.edit("pipelineruns", fail_next)
    report = settled(azure, tmp_path)
    assert report.settled == 1
    assert "Refused" in report.failed
    azure.as_before()
    assert settled(azure, tmp_path).settled == 2


def test_without_permission_it_says_which_and_reads_the_others(
    azure: Azure, tmp_path: Path
) -> None:
    azure.pipeline("load", copy())
    with program(tmp_path), azure.data_factory() as client:
        client.pipelines.create_run(GROUP, "closed", "load")
        client.pipelines.create_run(GROUP, FACTORY, "load")
    azure.refuse("factories", Refusal(403, "AuthorizationFailed"))
    report = settled(azure, tmp_path)
    assert report.settled == 1
    assert "Microsoft.DataFactory/factories/pipelineruns/queryactivityruns/action" in report.grant
    assert settled(azure, tmp_path).settled == 1


def test_a_token_that_is_not_valid(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy())
    (id_,) = start(azure, tmp_path, "load")
    with pytest.raises(SettlementError, match="credentials are not valid"):
        settled(azure, tmp_path, options={"token": "stale"})
    assert latest(tmp_path)[id_].partial


def test_another_region_is_unknown_and_keeps_the_figures(azure: Azure, tmp_path: Path) -> None:
    azure.location = "Mars North"
    azure.pipeline("load", copy())
    (id_,) = start(azure, tmp_path, "load")
    report = settled(azure, tmp_path)
    charge = latest(tmp_path)[id_]
    assert (charge.amount, charge.usage["azure_ir_diu_seconds"]) == (None, 240)
    assert any("marsnorth" in reason for reason in report.unpriced)
    assert settled(azure, tmp_path, options={"region": "westeurope"}).settled == 1


def test_synapse(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy(), lookup("ManagedVNetIR"), execute("leaf"))
    azure.pipeline("leaf", notebook("SelfhostedIR"))
    with program(tmp_path), azure.synapse() as client:
        id_ = client.pipeline.create_pipeline_run("load").run_id
    azure.fire("nightly", "leaf", where=WORKSPACE, ago=600)
    report = settled(azure, tmp_path, all=True, options={"workspaces": ["127.0.0.1"]})
    assert (report.settled, report.added) == (1, 1)
    found = latest(tmp_path)
    charge = found[id_]
    assert (charge.system, charge.resource.service) == ("azure.data_factory", "azure.synapse")
    # infracost's synapse_workspace_test: the same prices, of Synapse's own meters.
    expected = 3 * RUN + Decimal("0.0015") + MINUTE + MINUTE + 2 * MINUTE * Decimal("0.0001")
    assert amount(charge) == round(expected, 12)
    assert charge.price is not None
    assert charge.price.key.startswith("azure.synapse.billed.orchestration.azure_ir/westeurope")
    other = next(one for one in found.values() if one.vendor_id != id_)
    assert other.usage["trigger_runs"] == 1


def test_data_flows_of_synapse_have_no_price_here(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", data_flow())
    with program(tmp_path), azure.synapse() as client:
        id_ = client.pipeline.create_pipeline_run("load").run_id
    report = settled(azure, tmp_path)
    assert latest(tmp_path)[id_].amount is None
    assert any("data_flow_general_vcore_seconds" in reason for reason in report.unpriced)


def test_nothing_secret_is_kept(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy(), status="Failed")
    start(azure, tmp_path, "load")
    azure.fire("nightly", "load")
    settled(azure, tmp_path, all=True, options={"factories": [FACTORY_NAME]})
    text = Charges(tmp_path).text()
    for secret in ("hunter2", "secret message", TOKEN):
        assert secret not in text


def test_without_a_token_there_is_azures_default_credential() -> None:
    """It is made, and let go of, without asking anybody."""
    reader = DataFactoryHistory({})
    reader.open()
    reader.renew()
    reader.close()
    assert reader.requests == 0


def test_a_factory_that_is_misspelt() -> None:
    with pytest.raises(Exception, match="subscription/resource group/factory"):
        DataFactoryHistory({"factories": ["shop"]})


def test_all_without_factories_says_so(azure: Azure, tmp_path: Path) -> None:
    azure.pipeline("load", copy())
    start(azure, tmp_path, "load")
    assert "name others in factories" in settled(azure, tmp_path, all=True).incomplete[0]
    assert HERE == (SUBSCRIPTION, GROUP, FACTORY)
