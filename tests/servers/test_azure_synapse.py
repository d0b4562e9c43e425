"""Unmodified azure-synapse-artifacts against the local server: a charge a pipeline run."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

import costinsights
from costinsights import background, following
from tests.servers.azure_server import (
    TOKEN,
    Azure,
    Credential,
    Refusal,
    azure_server,
    copy,
    execute,
    lookup,
    notebook,
)
from tests.servers.charges import Charges

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from costinsights.records import Charge

models: Any = import_module("azure.synapse.artifacts.models")
errors: Any = import_module("azure.core.exceptions")

RUN = Decimal("0.001")
MINUTE = Decimal(1) / 60
# A copy, a lookup in a managed VNet, a notebook on a machine of one's own: infracost's
# synapse_workspace_test, West Europe.
LOAD = round(2 * RUN + Decimal("0.0015") + MINUTE + MINUTE + 2 * MINUTE * Decimal("0.0001"), 12)


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
    server.page = 100
    server.pipeline(
        "a load", copy(), lookup("ManagedVNetIR"), notebook("SelfhostedIR"), questions=1
    )
    return server


@pytest.fixture(scope="module")
def client(server: Azure) -> Iterator[Any]:
    with server.synapse() as client:
        yield client


@contextmanager
def switched_on(ledger: Path, **more: Any) -> Generator[Charges]:
    here = {"resource": [{"host": "127.0.0.1", "region": "westeurope"}], **more}
    costinsights.instrument("azure_synapse", ledger=ledger, exporters=[], config=here)
    try:
        yield Charges(ledger)
    finally:
        costinsights.uninstrument()


@pytest.fixture
def charges(tmp_path: Path, azure: Azure) -> Iterator[Charges]:
    with switched_on(tmp_path / "ledger", follow_jobs=False) as charges:
        yield charges


def times(**more: Any) -> Any:
    now = datetime.now(timezone.utc)
    day = timedelta(days=1)
    return models.RunFilterParameters(
        last_updated_after=now - day, last_updated_before=now + day, **more
    )


def wait(client: Any, id_: str) -> str:
    while True:
        run = client.pipeline_run.get_pipeline_run(id_)
        if run.status not in ("Queued", "InProgress"):
            return str(run.status)


def amount(charge: Charge) -> Decimal:
    assert charge.amount is not None, charge
    return round(Decimal(charge.amount), 12)


def test_a_run_from_its_start_to_its_price(client: Any, charges: Charges) -> None:
    id_ = client.pipeline.create_pipeline_run("a load", parameters={"p": "hunter2"}).run_id
    begun = charges.one()
    assert (begun.system, begun.resource.service) == ("azure.data_factory", "azure.synapse")
    assert (begun.vendor_id, begun.partial, begun.amount) == (id_, True, None)
    assert (begun.resource.namespace, begun.usage["pipeline"]) == ("127.0.0.1", "a load")
    assert wait(client, id_) == "Succeeded"
    client.pipeline_run.query_activity_runs("a load", id_, times())
    charge = charges.one()
    assert (charge.charge_id, charge.partial, charge.basis) == (begun.charge_id, False, "metered")
    assert amount(charge) == LOAD
    assert charge.price is not None
    assert "azure.synapse.billed.pipeline_activity.managed_vnet_ir" in charge.price.key
    assert "hunter2" not in charges.text()
    assert TOKEN not in charges.text()


def test_pages_lists_and_positions(client: Any, azure: Azure, charges: Charges) -> None:
    """Older majors of Data Factory's client have the same positions for a rerun."""
    azure.page = 1
    first = client.pipeline.create_pipeline_run("a load").run_id
    second = client.pipeline.create_pipeline_run("a load", first, True).run_id
    assert azure.runs[second].group == first
    wait(client, first)
    wait(client, second)
    client.pipeline_run.query_pipeline_runs_by_workspace(times())
    for id_ in (first, second):
        token = None
        for _ in range(3):
            assert all(charge.partial for charge in charges.new())
            filters = times(continuation_token=token)
            answer = client.pipeline_run.query_activity_runs("a load", id_, filters)
            token = answer.continuation_token
        assert token is None
        assert amount(charges.one()) == LOAD


def test_a_list_of_the_workspace_tells_the_end(client: Any, azure: Azure, charges: Charges) -> None:
    azure.pipeline("quick", copy())
    id_ = client.pipeline.create_pipeline_run("quick").run_id
    azure.page = 1000
    client.pipeline_run.query_pipeline_runs_by_workspace(times())
    client.pipeline_run.query_activity_runs("quick", id_, times())
    assert amount(charges.one()) == round(RUN + MINUTE, 12)


def test_aio(azure: Azure, charges: Charges) -> None:
    async def program() -> str:
        async with azure.synapse(aio=True) as client:
            id_ = (await client.pipeline.create_pipeline_run("a load")).run_id
            while (await client.pipeline_run.get_pipeline_run(id_)).status == "InProgress":
                pass
            await client.pipeline_run.query_activity_runs("a load", id_, times())
            return str(id_)

    id_ = asyncio.run(program())
    charge = charges.one()
    assert (charge.vendor_id, amount(charge)) == (id_, LOAD)


def test_a_start_that_is_refused(client: Any, azure: Azure, charges: Charges) -> None:
    with pytest.raises(errors.ResourceNotFoundError):
        client.pipeline.create_pipeline_run("nothing of the kind")
    charge = charges.one()
    assert charge.error is not None
    assert (charge.vendor_id, charge.partial) == (None, False)
    azure.refuse("createRun", Refusal(429, headers=(("Retry-After", "0"),)))
    client.pipeline.create_pipeline_run("a load")
    assert charges.one().partial


def test_a_workspace_is_known_by_its_name_in_every_cloud() -> None:
    from costinsights_instrumentors._azure_pipelines import Given, Seen
    from costinsights_instrumentors.azure_synapse import where

    library: Any = import_module("azure.synapse.artifacts")
    for suffix in ("net", "azure.cn"):
        with library.ArtifactsClient(
            Credential(), f"https://ws.dev.azuresynapse.{suffix}"
        ) as client:
            place = where(client.pipeline, Given({}, Seen()))
        assert (place.namespace, place.service) == ("ws", "azure.synapse")
        assert place.address == f"ws.dev.azuresynapse.{suffix}"


VOLATILE = ("x-ms-client-request-id", "x-ms-date", "date")


def session(client: Any, azure: Azure) -> list[Any]:
    """Work a while; return what the server saw, and what the program got."""
    azure.requests.clear()
    id_ = client.pipeline.create_pipeline_run("a load", parameters={"a": 1}).run_id
    got: list[Any] = [wait(client, id_)]
    always = datetime(2020, 1, 1, tzinfo=timezone.utc), datetime(2999, 1, 1, tzinfo=timezone.utc)
    filters = models.RunFilterParameters(
        last_updated_after=always[0], last_updated_before=always[1]
    )
    answer = client.pipeline_run.query_activity_runs("a load", id_, filters)
    got += [type(answer).__name__, [activity.output for activity in answer.value]]
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


def test_runs_that_nobody_asks_for_are_asked_for(
    client: Any, azure: Azure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PACE", following.Pace(quiet=0.1, apart=0.01))
    azure.pipeline("all", execute("a load"))
    with switched_on(tmp_path / "ledger") as charges:
        client.pipeline.create_pipeline_run("all")
        entries = charges.entries()
        for _ in range(600):
            if not entries[-1].partial:
                break
            time.sleep(0.05)
            entries += charges.entries()
    assert amount(entries[-1]) == LOAD + RUN
    assert entries[-1].usage["pipeline_runs"] == 2
