"""Unmodified azure-mgmt-datafactory against the local ARM server: a charge a pipeline run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import pytest

import costinsights
from costinsights import background, following
from tests.servers.azure_server import (
    FACTORY,
    GROUP,
    SUBSCRIPTION,
    TOKEN,
    Activity,
    Azure,
    Refusal,
    azure_server,
    billed,
    control,
    copy,
    copy_2020,
    data_flow,
    execute,
    lookup,
    notebook,
)
from tests.servers.charges import Charges

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from costinsights.records import Charge

models: Any = import_module("azure.mgmt.datafactory.models")
errors: Any = import_module("azure.core.exceptions")

REGION = {"resource": [{"database": f"*/{FACTORY}", "region": "westeurope"}]}
RUN = Decimal("0.001")
MINUTE = Decimal(1) / 60


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours fails the test instead of being kept from it."""
    monkeypatch.setenv("COSTINSIGHTS_STRICT", "1")
    monkeypatch.setattr(background, "TICK_SECONDS", 0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[Azure]:
    with azure_server() as azure:
        yield azure


@pytest.fixture
def azure(server: Azure) -> Azure:
    server.as_before()
    server.requests.clear()
    server.runs.clear()
    server.page = 100
    server.pipeline("load", copy(), lookup("SelfhostedIR"), control(), questions=1)
    return server


@pytest.fixture(scope="module")
def client(server: Azure) -> Iterator[Any]:
    """One client for all tests: making one, with its thousands of models, takes a while."""
    with server.data_factory() as client:
        yield client


@contextmanager
def switched_on(ledger: Path, **more: Any) -> Generator[Charges]:
    costinsights.instrument(
        "azure_datafactory", ledger=ledger, exporters=[], config={**REGION, **more}
    )
    try:
        yield Charges(ledger)
    finally:
        costinsights.uninstrument()


@pytest.fixture
def charges(tmp_path: Path, azure: Azure) -> Iterator[Charges]:
    with switched_on(tmp_path / "ledger", follow_jobs=False) as charges:
        yield charges


def start(client: Any, name: str = "load", **more: Any) -> str:
    id_: str = client.pipelines.create_run(GROUP, FACTORY, name, **more).run_id
    return id_


def wait(client: Any, id_: str) -> str:
    """Do as programs do: ask until it has ended."""
    while True:
        run = client.pipeline_runs.get(GROUP, FACTORY, id_)
        if run.status not in ("Queued", "InProgress"):
            return str(run.status)


def times(hours: float = 24, **more: Any) -> Any:
    now = datetime.now(timezone.utc)
    return models.RunFilterParameters(
        last_updated_after=now - timedelta(hours=hours),
        last_updated_before=now + timedelta(hours=hours),
        **more,
    )


def ask(client: Any, id_: str, filters: Any = None) -> Any:
    return client.activity_runs.query_by_pipeline_run(
        GROUP, FACTORY, id_, times() if filters is None else filters
    )


def ask_all(client: Any, id_: str) -> int:
    """Ask for all pages; return how many there were."""
    pages, filters = 0, times()
    while True:
        answer = ask(client, id_, filters)
        pages += 1
        if not answer.continuation_token:
            return pages
        filters.continuation_token = answer.continuation_token


def amount(charge: Charge) -> Decimal:
    assert charge.amount is not None, charge
    return round(Decimal(charge.amount), 12)


# One run on Azure and one for the control activity, one elsewhere; 4 units, and a minute elsewhere.
LOAD = round(2 * RUN + Decimal("0.0015") + MINUTE + MINUTE * Decimal("0.002"), 12)


def test_a_run_is_pending_until_its_end_was_seen(client: Any, charges: Charges) -> None:
    id_ = start(client, parameters={"password": "hunter2"})
    begun = charges.one()
    assert (begun.system, begun.instrumentor) == ("azure.data_factory", "azure_datafactory")
    assert (begun.vendor_id, begun.partial, begun.amount) == (id_, True, None)
    assert begun.resource.namespace == f"{SUBSCRIPTION}/{GROUP}/{FACTORY}"
    assert (begun.resource.address, begun.resource.region) == ("127.0.0.1", "westeurope")
    assert (begun.operation, begun.usage["pipeline"]) == ("PIPELINE", "load")
    assert wait(client, id_) == "Succeeded"
    assert charges.new() == []  # that it has ended is known, and not what it was billed for
    answer = ask(client, id_)
    assert answer.value[0].output["billingReference"]["activityType"] == "DataMovement"
    charge = charges.one()
    assert (charge.charge_id, charge.partial, charge.basis) == (begun.charge_id, False, "metered")
    assert amount(charge) == LOAD
    assert charge.usage["azure_ir_diu_seconds"] == 240
    assert charge.usage["pipeline"] == "load"
    assert charge.error is None
    took = datetime.fromisoformat(charge.ended_at) - datetime.fromisoformat(charge.started_at)
    assert took == timedelta(seconds=42)
    ask(client, id_)
    assert charges.new() == []
    for secret in ("hunter2", TOKEN, "secret message"):
        assert secret not in charges.text()


def test_the_forms_of_all_years(client: Any, azure: Azure, charges: Charges) -> None:
    azure.pipeline("years", copy_2020(), data_flow(), notebook())
    id_ = start(client, "years")
    wait(client, id_)
    ask(client, id_)
    flow = Decimal("0.081761342667") * Decimal("0.268")
    expected = 3 * RUN + Decimal("11.733333333333") / 4 + flow + 2 * MINUTE * Decimal("0.00025")
    assert abs(amount(charges.one()) - expected) < Decimal("1e-9")


def test_a_list_of_runs_tells_the_end_as_well(client: Any, azure: Azure, charges: Charges) -> None:
    azure.pipeline("quick", copy())
    ids = [start(client, "quick") for _ in range(3)]
    client.pipeline_runs.query_by_factory(GROUP, FACTORY, times())
    for id_ in ids:
        ask(client, id_)
    assert [amount(charge) for charge in charges.new()] == [round(RUN + MINUTE, 12)] * 3


def test_dictionaries_and_keywords(client: Any, charges: Charges) -> None:
    """Any way of calling that the library has."""
    where = {"resource_group_name": GROUP, "factory_name": FACTORY}
    id_ = client.pipelines.create_run(pipeline_name="load", **where)["runId"]
    while client.pipeline_runs.get(run_id=id_, **where)["status"] == "InProgress":
        pass
    times_ = {
        "lastUpdatedAfter": "2020-01-01T00:00:00.0000000Z",
        "lastUpdatedBefore": "2999-01-01T00:00:00Z",
    }
    client.activity_runs.query_by_pipeline_run(run_id=id_, filter_parameters=times_, **where)
    assert amount(charges.one()) == LOAD


def test_aio(azure: Azure, charges: Charges) -> None:
    async def program() -> str:
        async with azure.data_factory(aio=True) as client:
            run = await client.pipelines.create_run(GROUP, FACTORY, "load")
            while True:
                found = await client.pipeline_runs.get(GROUP, FACTORY, run.run_id)
                if found.status != "InProgress":
                    break
            await client.activity_runs.query_by_pipeline_run(GROUP, FACTORY, run.run_id, times())
            return str(run.run_id)

    id_ = asyncio.run(program())
    charge = charges.one()
    assert (charge.vendor_id, amount(charge)) == (id_, LOAD)


def test_all_pages_are_needed(client: Any, azure: Azure, charges: Charges) -> None:
    azure.page = 2
    azure.pipeline("long", *(copy() for _ in range(5)))
    id_ = start(client, "long")
    wait(client, id_)
    first = ask(client, id_)
    assert charges.one().partial
    second = ask(client, id_, times(continuation_token=first.continuation_token))
    assert charges.new() == []
    ask(client, id_, times(continuation_token="4"))  # the third, and its second was asked for once
    charge = charges.one()
    assert second.continuation_token == "4"
    assert amount(charge) == round(5 * RUN + 5 * MINUTE, 12)
    other = start(client, "long")
    wait(client, other)
    assert ask_all(client, other) == 3
    assert amount(charges.one()) == round(5 * RUN + 5 * MINUTE, 12)


def test_a_page_that_was_left_out(client: Any, azure: Azure, charges: Charges) -> None:
    azure.page = 2
    azure.pipeline("long", *(copy() for _ in range(5)))
    id_ = start(client, "long")
    wait(client, id_)
    ask(client, id_)
    ask(client, id_, times(continuation_token="4"))
    assert charges.one().partial


def test_what_is_not_all_of_it_is_not_the_price(
    client: Any, azure: Azure, charges: Charges
) -> None:
    id_ = start(client)
    ask(client, id_)  # before it has ended, and that was seen
    wait(client, id_)
    only = models.RunQueryFilter(operand="Status", operator="Equals", values_property=["Failed"])
    ask(client, id_, times(filters=[only]))
    ask(client, id_, times(hours=1e-6))
    ask(client, id_, b'{"lastUpdatedAfter": "2020-01-01", "lastUpdatedBefore": "2999-01-01"}')
    assert charges.one().partial
    azure.pipeline("all", execute("load"), copy())
    id_ = start(client, "all")
    wait(client, id_)
    ask(client, id_)  # what it has started is not in this answer
    assert charges.one().partial
    azure.pipeline("slow", copy(), copy()._replace(status="InProgress"))
    id_ = start(client, "slow")
    wait(client, id_)
    ask(client, id_)
    assert charges.one().partial


def test_failed_and_cancelled_runs_cost_what_they_cost(
    client: Any, azure: Azure, charges: Charges
) -> None:
    azure.pipeline("fails", copy()._replace(status="Failed", attempts=2), status="Failed")
    id_ = start(client, "fails")
    assert wait(client, id_) == "Failed"
    ask(client, id_)
    failed = charges.one()
    assert failed.error is not None
    assert (failed.error.type, amount(failed)) == ("Failed", round(2 * RUN + 2 * MINUTE, 12))
    azure.pipeline("endless", copy(), questions=10**6)
    id_ = start(client, "endless")
    client.pipeline_runs.cancel(GROUP, FACTORY, id_)
    assert wait(client, id_) == "Cancelled"
    ask(client, id_)
    cancelled = charges.one()
    assert cancelled.error is not None
    assert (cancelled.error.type, amount(cancelled)) == ("Cancelled", round(RUN + MINUTE, 12))


def test_a_rerun_is_a_run_of_its_own(client: Any, azure: Azure, charges: Charges) -> None:
    first = start(client)
    second = start(client, reference_pipeline_run_id=first, is_recovery=True)
    assert {charge.vendor_id for charge in charges.new()} == {first, second}
    assert azure.runs[second].group == first


def test_what_cannot_be_read_has_no_price_and_says_why(
    client: Any, azure: Azure, charges: Charges
) -> None:
    fancy = billed("PipelineActivity", "FancyIR", 1, "Hours")
    azure.pipeline("odd", copy(), Activity("Lookup", {"billingReference": fancy}))
    id_ = start(client, "odd")
    wait(client, id_)
    ask(client, id_)
    charge = charges.one()
    assert (charge.amount, charge.basis, charge.partial) == (None, "unknown", False)
    assert charge.usage["unpriced"] == "Lookup: 1 Hours on 'FancyIR'"
    assert charge.usage["azure_ir_diu_seconds"] == 240


def test_answers_without_activities(client: Any, azure: Azure, charges: Charges) -> None:
    """A run that went well has some, and so this is not the whole answer, and nothing is free."""
    id_ = start(client)
    wait(client, id_)
    said: list[object] = []
    azure.edit("queryActivityruns", lambda _: said[-1])
    for answer in ({"value": list[int]()}, {"value": None}, dict[str, int]()):
        said.append(answer)
        ask(client, id_)
    charge = charges.one()
    assert (charge.amount, charge.partial) == (None, True)
    azure.pipeline("never", status="Failed")
    said.append({"value": []})
    id_ = start(client, "never")
    wait(client, id_)
    ask(client, id_)
    assert amount(charges.one()) == 0  # it came to no activity, and that is free


def test_another_region_is_unknown(client: Any, azure: Azure, tmp_path: Path) -> None:
    with switched_on(tmp_path / "ledger", resource=[], follow_jobs=False) as charges:
        id_ = start(client)
        wait(client, id_)
        ask(client, id_)
        charge = charges.one()
    assert (charge.amount, charge.usage["azure_ir_diu_seconds"]) == (None, 240)
    assert azure.counts()["queryActivityruns"] == 1


def test_a_start_that_is_refused(client: Any, azure: Azure, charges: Charges) -> None:
    with pytest.raises(errors.ResourceNotFoundError):
        start(client, "nothing of the kind")
    charge = charges.one()
    assert charge.error is not None
    assert charge.error.type == "azure.core.exceptions.ResourceNotFoundError"
    assert (charge.vendor_id, charge.partial) == (None, False)
    azure.refuse("createRun", Refusal(429, headers=(("Retry-After", "0"),)), Refusal(503))
    start(client)
    assert len(azure.asked("createRun")) == 4
    assert charges.one().partial


def test_a_mistake_of_the_program_is_its_own(client: Any, charges: Charges) -> None:
    with pytest.raises(TypeError, match="pipeline_name"):
        client.pipelines.create_run(GROUP)
    charge = charges.one()
    assert charge.error is not None
    assert charge.vendor_id is None


def test_a_caller_that_makes_something_else_of_the_answer(client: Any, charges: Charges) -> None:
    """`cls` is documented: what it returns is what the call returns."""

    def mine(response: object, answer: object, headers: object) -> tuple[str, object]:
        return "mine", answer

    assert client.pipelines.create_run(GROUP, FACTORY, "load", cls=mine)[0] == "mine"
    charge = charges.one()
    assert (charge.vendor_id, charge.partial) == (None, False)


VOLATILE = ("x-ms-client-request-id", "x-ms-date", "date")


def session(client: Any, azure: Azure) -> list[Any]:
    """Work a while; return what the server saw, and what the program got."""
    azure.requests.clear()
    got: list[Any] = []
    id_ = start(client, parameters={"a": 1})
    got.append(wait(client, id_))
    fixed = {
        "lastUpdatedAfter": "2020-01-01T00:00:00Z",
        "lastUpdatedBefore": "2999-01-01T00:00:00Z",
    }
    answer: Any = ask(client, id_, dict(fixed))
    # What was read has not been made into attributes: the model is as it came.
    got += [
        type(answer).__module__,
        sorted(cast("dict[str, Any]", vars(answer))),
        len(answer.value),
    ]
    got.append(answer.value[0].activity_run_start.tzinfo is not None)
    with pytest.raises(errors.HttpResponseError) as refused:
        start(client, "nothing")
    got.append(type(refused.value))
    for request in azure.requests:
        headers = {k: v for k, v in request.headers.items() if k not in VOLATILE}
        path = request.path.replace(id_, "ID")
        got.append((request.method, path, request.query, request.body, headers))
    return got


def test_the_vendor_and_the_program_see_no_difference(
    client: Any, azure: Azure, tmp_path: Path
) -> None:
    bare = session(client, azure)
    with switched_on(tmp_path / "ledger"):
        assert session(client, azure) == bare


def test_many_at_once(client: Any, azure: Azure, charges: Charges) -> None:
    azure.page = 2

    def work() -> None:
        id_ = start(client)
        wait(client, id_)
        ask_all(client, id_)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = charges.new()
    assert len({charge.vendor_id for charge in found}) == 16
    assert {amount(charge) for charge in found} == {LOAD}


def test_switched_off_again(client: Any, charges: Charges) -> None:
    id_ = start(client)
    costinsights.uninstrument()
    wait(client, id_)
    ask(client, id_)
    start(client)
    assert charges.one().partial


# --- in the background ---------------------------------------------------------------------------


def eventually(charges: Charges, count: int) -> list[Charge]:
    """Wait until so many charges are complete."""
    latest: dict[str, Charge] = {}
    for _ in range(600):
        latest.update((charge.charge_id, charge) for charge in charges.entries())
        if sum(not charge.partial for charge in latest.values()) >= count:
            break
        time.sleep(0.05)
    return list(latest.values())


def test_runs_that_nobody_asks_for_are_asked_for(
    client: Any, azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PACE", following.Pace(quiet=0.1, apart=0.01))
    azure.pipeline("all", execute("load"), copy())
    with switched_on(tmp_path / "ledger") as charges:
        ids = {start(client), start(client, "all")}
        asked = len(azure.requests)
        found = eventually(charges, 2)
    assert {charge.vendor_id for charge in found} == ids
    assert sorted(map(amount, found)) == [LOAD, round(LOAD + 2 * RUN + MINUTE, 12)]
    agents = {request.headers["user-agent"] for request in azure.requests[asked:]}
    assert agents
    assert all("costinsights" in agent for agent in agents)  # on a client of ours


def test_follow_jobs_can_be_switched_off(
    client: Any, azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PACE", following.Pace(quiet=0.01, apart=0.01))
    with switched_on(tmp_path / "ledger", follow_jobs=False) as charges:
        start(client)
        time.sleep(0.5)
        assert charges.one().partial
    assert azure.counts() == {"createRun": 1}


def test_our_client_leaves_the_programs_policies_alone() -> None:
    """A policy that knows its next one would tear the program's pipeline out of its client."""
    from costinsights_instrumentors import _azure_pipelines as ours
    from tests.servers.azure_server import Credential

    library: Any = import_module("azure.mgmt.datafactory")
    client = library.DataFactoryManagementClient(Credential(), SUBSCRIPTION)
    policy = client._config.authentication_policy
    following_one = policy.next
    follow: Any = ours.FOLLOW
    own = follow.client(client.pipelines)
    assert policy.next is following_one
    assert follow.same(client.pipelines) == follow.same(client.pipeline_runs)
    follow.close(own)
    client.close()


SCRIPT = """
import json, sys
import costinsights
from tests.servers.azure_server import Azure, FACTORY, GROUP
url, ledger = sys.argv[1:]
costinsights.instrument(ledger=ledger, exporters=[])
azure = Azure()
azure.url = url
client = azure.data_factory()
print(client.pipelines.create_run(GROUP, FACTORY, "load").run_id, flush=True)
sys.stdin.read()
"""


def test_a_killed_program_leaves_its_run_pending(azure: Azure, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, azure.url, str(ledger)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COSTINSIGHTS_STRICT": "1"},
    )
    assert program.stdout is not None
    assert program.stdin is not None
    id_ = program.stdout.readline().strip()
    program.send_signal(signal.SIGKILL)
    program.wait()
    program.stdout.close()
    program.stdin.close()
    charge = Charges(ledger).one()
    assert (charge.vendor_id, charge.partial, charge.amount) == (id_, True, None)
    assert json.loads(json.dumps(charge.usage))["pipeline"] == "load"
