"""Scheduled assets, cost checks, budgets, the report and the component in a real Dagster.

Dagster is in an environment of its own; the servers that it talks to are in this process.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from costinsights.billing import open_bill
from costinsights.records import Resource
from tests.backends import unavailable
from tests.environments import environment, lent
from tests.ledgers import UNIT, Program
from tests.processes import Unavailable
from tests.servers.aws_athena import Athena
from tests.servers.aws_server import ACCOUNT, REGION, AWSServer, Refusal, aws_server
from tests.servers.cost_explorer_server import CostExplorer

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    Answer = dict[str, Any]

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "programs" / "dagster_assets.py"
FOCUS = ROOT / "tests" / "data"
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
HOSTILE = "<script>alert(1)</script>"


def variables(folder: Path) -> dict[str, str]:
    """The environment of a program under Dagster."""
    given = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return given | {
        **AWS,
        "PYTHONPATH": str(lent(folder / "packages")),
        "HOME": str(folder),
        "COSTINSIGHTS_LEDGER": str(folder / "ledger"),
        "COSTINSIGHTS_STRICT": "1",
    }


def interpreter(name: str) -> Path:
    try:
        return environment(name) / "bin" / "python"
    except Unavailable as error:
        unavailable(name, error)


class Dagster:
    """A program that takes orders."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, do: str, **order: Any) -> Answer:
        """Have something done, and return what came of it."""
        found = self._ask(do, order)
        assert "error" not in found, found["error"]
        return found

    def _ask(self, do: str, order: Answer) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": do, **order}), file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            kind, _, answer = line.partition(" ")
            if kind == "answer":
                found: Answer = json.loads(answer)
                return found
        raise AssertionError("it is gone")

    def refused(self, do: str, **order: Any) -> str:
        """Have something done that cannot be, and return what is said of it."""
        return str(self._ask(do, order)["error"])

    def made(self, **order: Any) -> Answer:
        """Run it, and it must go well."""
        found = self("run", **order)
        assert found["success"], found["failure"]
        return found


@contextmanager
def running(name: str, folder: Path) -> Generator[Dagster]:
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(
            [interpreter(name), PROGRAM],
            cwd=folder,
            env=variables(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        yield Dagster(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0, (folder / "said").read_text()[-4000:]


@pytest.fixture(params=["dagster", "dagster111"])
def dagster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Dagster]:
    """The newest Dagster, and the oldest that is supported."""
    with running(request.param, tmp_path) as program:
        yield program


@pytest.fixture
def newest(tmp_path: Path) -> Iterator[Dagster]:
    """The newest Dagster, which has the clouds' clients beside it."""
    with running("dagster", tmp_path) as program:
        yield program


@pytest.fixture(scope="module")
def server() -> Iterator[AWSServer]:
    with aws_server() as aws:
        yield aws


@pytest.fixture
def bill(server: AWSServer) -> Iterator[CostExplorer]:
    """Eight days of two buckets, until yesterday."""
    bill = CostExplorer(server)
    for ago in range(1, 9):
        for bucket in ("my-bucket", "other"):
            bill.add(
                midnight() - ago * DAY,
                "TimedStorage-ByteHrs",
                f"{ago}.10",
                quantity="1",
                unit="GB-Months",
                tags={"bucket": bucket},
            )
    yield bill
    bill.close()


def midnight() -> datetime:
    return datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)


def day(ago: int) -> str:
    return f"{midnight() - ago * DAY:%Y-%m-%d}"


def billed(ledger: Path) -> list[tuple[Any, ...]]:
    with open_bill(str(ledger)) as opened:
        return opened.fetch("SELECT ChargePeriodStart, BilledCost FROM bill ORDER BY ALL")


def reached(server: AWSServer, **options: Any) -> Answer:
    known = {"endpoint_url": server.url, "billing_account": ACCOUNT, "tag": "bucket"}
    return {"pull": {"aws.cost_explorer": {**known, **options}}}


# --- the bill ------------------------------------------------------------------------------------


def test_a_bucket_is_an_asset_and_its_schedule_follows_what_is_restated(
    newest: Dagster, server: AWSServer, bill: CostExplorer, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    made = newest(
        "make",
        factory="create_s3_insights_asset_and_schedule",
        args=[],
        options={
            "start_date": day(8),
            "bucket_name_filter": "my-bucket",
            "config": reached(server),
        },
    )
    assert made == {
        "key": "costinsights/aws_s3/my-bucket",
        "schedule": "costinsights__aws_s3__my_bucket_schedule",
        "checks": ["complete", "fresh"],
    }

    # A partition is a day.
    done = newest.made(partition=day(4))
    told = done["made"][day(4)]
    assert (told["billed_usd"], told["billed_usd_exact"]) == (4.1, "4.1 USD")
    assert (told["dagster/row_count"], told["looking_usd_exact"]) == (1, "0.02 USD")
    assert told["kinds"] == [{"kind": "storage", "billed": "4.1", "currency": "USD", "lines": 1}]
    assert done["checks"]["complete"]["passed"]
    fresh = done["checks"]["fresh"]
    assert (fresh["passed"], fresh["severity"]) == (False, "WARN")
    assert f"up to {day(4)}" in fresh["said"]

    # A backfill is one run, and each of its days has its own figures.
    server.requests.clear()
    done = newest.made(span=[day(8), day(6)])
    assert {key: one["billed_usd"] for key, one in done["made"].items()} == {
        day(8): 8.1,
        day(7): 7.1,
        day(6): 6.1,
    }
    before = billed(ledger)
    again = newest.made(span=[day(8), day(6)])
    assert billed(ledger) == before
    assert {key: one["billed_usd"] for key, one in again["made"].items()} == {
        key: one["billed_usd"] for key, one in done["made"].items()
    }

    # The schedule asks for yesterday, and pulls again what may have changed.
    asked = newest(
        "tick", at=f"{midnight() + timedelta(hours=6, minutes=30):%Y-%m-%dT%H:%M:%S+00:00}"
    )
    (request,) = asked["requests"]
    assert request["partition"] == day(1)
    (config,) = (one["config"] for one in request["config"]["ops"].values())
    assert config == {"window": True}
    bill.add(midnight() - 7 * DAY, "TimedStorage-ByteHrs", "0.05", tags={"bucket": "my-bucket"})
    done = newest.made(partition=request["partition"], config=config)
    assert list(done["made"]) == [day(1)]
    told = done["made"][day(1)]
    assert (told["billed_usd"], told["state"]) == (1.1, "provisional")
    assert (told["restated_days"], told["restated_usd_exact"]) == (1, "0.05 USD")
    change = {
        "day": day(7),
        "currency": "USD",
        "before": "7.1",
        "after": "7.15",
        "difference": "0.05",
    }
    assert told["changes"] == [change]
    assert done["seen"] == {
        day(7): {
            "billed_usd": 7.15,
            "billed_usd_exact": "7.15 USD",
            "billed_change_usd": 0.05,
            "billed_change_usd_exact": "0.05 USD",
            "correction": True,
        }
    }
    assert done["checks"]["fresh"]["passed"]
    assert "provisional" in done["checks"]["fresh"]["said"]
    assert sum(amount for _, amount in billed(ledger)) == Decimal("36.85")

    # A check can be asked alone, and asks nobody.
    server.requests.clear()
    alone = newest.made(check="fresh")
    assert (alone["made"], alone["checks"]["fresh"]["passed"]) == ({}, True)
    assert not server.requests


def test_what_cannot_be_pulled_fails_and_says_why(
    newest: Dagster, server: AWSServer, bill: CostExplorer, tmp_path: Path
) -> None:
    options = {"config": reached(server), "resource": "my-bucket"}
    newest(
        "make", factory="create_bill_asset_and_schedule", args=["aws.s3", day(8)], options=options
    )
    bill.twist = lambda page, answer: Refusal("AccessDeniedException")
    done = newest("run", partition=day(3))
    assert not done["success"]
    assert done["made"] == {}  # a day that lacks something does not look as if it were there
    assert "no permission to read GetCostAndUsage" in done["failure"]
    assert "ce:GetCostAndUsage" in done["grant"]
    complete = done["checks"]["complete"]
    assert (complete["passed"], complete["severity"]) == (False, "ERROR")
    assert list(done["seen"]) == [""]  # what was done before
    bill.begin_anew()
    assert newest.made(partition=day(3))["checks"]["complete"]["passed"]

    assert "Could not find a partition" in newest.refused("run", partition=day(0))
    dear = {**options, "cap": 0}
    newest("make", factory="create_bill_asset_and_schedule", args=["aws.s3", day(8)], options=dear)
    done = newest("run", partition=day(2))
    assert "this would cost up to 0.08 USD, more than the 0.0" in done["failure"]
    assert not done["checks"]["complete"]["passed"]
    wrong = newest.refused(
        "make", factory="create_bill_asset_and_schedule", args=["aws.s4", day(8)], options={}
    )
    assert "did you mean aws.s3?" in wrong
    wrong = newest.refused(
        "make",
        factory="create_adls_insights_asset_and_schedule",
        args=[day(8)],
        options={"granularity": "hourly"},
    )
    assert wrong == "NotAsked: azure.storage has no hourly figures"


def test_hours_come_by_the_day(
    newest: Dagster, server: AWSServer, bill: CostExplorer, tmp_path: Path
) -> None:
    bill.items.clear()
    yesterday = midnight() - DAY
    for hour in range(24):
        at = yesterday + timedelta(hours=hour)
        bill.add(at, "TimedStorage-ByteHrs", f"0.{hour + 1:02}", tags={"bucket": "my-bucket"})
    newest(
        "make",
        factory="create_aws_insights_asset_and_schedule",
        args=[day(2)],
        options={
            "service": "Amazon Simple Storage Service",
            "granularity": "hourly",
            "config": reached(server, tag=""),
        },
    )
    (request,) = newest("tick", at=f"{day(0)}T06:30:00+00:00")["requests"]
    span = [request["tags"][f"dagster/asset_partition_range_{end}"] for end in ("start", "end")]
    assert span == [f"{day(1)}-00:00", f"{day(1)}-23:00"]
    done = newest.made(span=span)
    assert len(done["made"]) == 24
    assert done["made"][f"{day(1)}-09:00"]["billed_usd_exact"] == "0.1 USD"
    assert sum(Decimal(one["billed_usd_exact"].split()[0]) for one in done["made"].values()) == 3


def test_focus_files(dagster: Dagster, tmp_path: Path) -> None:
    options = {"path": str(FOCUS), "key": "bills/focus", "group_name": "finance"}
    made = dagster(
        "make",
        factory="create_focus_insights_asset_and_schedule",
        args=["2024-09-01"],
        options=options,
    )
    assert made["key"] == "bills/focus"
    done = dagster.made(span=["2024-09-01", "2024-09-30"])
    assert len(done["made"]) == 30
    rows = sum(one["dagster/row_count"] for one in done["made"].values())
    sums = sum(
        Decimal(one.get("billed_usd_exact", "0").split()[0]) for one in done["made"].values()
    )
    with open_bill(str(tmp_path / "ledger")) as opened:
        (expected,) = opened.fetch(
            "SELECT count(*), sum(BilledCost) FROM bill WHERE ChargePeriodStart >= "
            "TIMESTAMP '2024-09-01' AND ChargePeriodStart < TIMESTAMP '2024-10-01'"
        )
    assert (rows, sums) == expected
    assert rows > 500
    again = dagster.made(partition="2024-09-18")
    assert (again["made"]["2024-09-18"]["published"], again["checks"]["complete"]["passed"]) == (
        0,
        True,
    )


# --- settlement ----------------------------------------------------------------------------------


def test_settlement(newest: Dagster, server: AWSServer, tmp_path: Path) -> None:
    athena = Athena(server)
    athena.seed("", scanned=2**40, questions=0)
    server.answer("athena", "ListCapacityReservations", lambda _: {"CapacityReservations": []})
    ledger = tmp_path / "ledger"
    hour = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - HOUR
    began = hour + timedelta(minutes=20)
    ago = (datetime.now(timezone.utc) - began).total_seconds()
    program = Program(ledger)
    for number in range(3):
        program.call(
            at=int(began.timestamp()) * 10**9,
            system="aws.athena",
            resource=Resource(region=REGION),
            labels={"asset": "orders"},
            amount=None,
            i=athena.run(f"SELECT {number}", ago=ago),
            l=True,
        )
    program.close()
    reader = {"regions": [REGION], "endpoint_url": server.url}
    made = newest(
        "make",
        factory="create_settlement_asset_and_schedule",
        args=["aws.athena", day(2)],
        options={"config": {"settle": {"aws.athena": reader}}, "granularity": "hourly"},
    )
    assert made["key"] == "costinsights/settled/aws_athena"
    (request,) = newest("tick", at=f"{hour + HOUR:%Y-%m-%dT%H}:10:00+00:00")["requests"]
    key = request["partition"]
    assert key == f"{hour:%Y-%m-%d-%H}:00"

    server.refuse("athena", "BatchGetQueryExecution", Refusal("AccessDeniedException"))
    done = newest("run", partition=key)
    assert (done["success"], done["made"]) == (False, {})
    assert "athena:BatchGetQueryExecution" in done["grant"]
    assert not done["checks"]["complete"]["passed"]

    (config,) = (one["config"] for one in request["config"]["ops"].values())
    assert config == {"window": True}
    done = newest.made(partition=key, config=config)
    told = done["made"][key]
    assert (told["settled"], told["settled_charges_usd_exact"]) == (3, "15 USD")
    assert {name: check["passed"] for name, check in done["checks"].items()} == {
        "complete": True,
        "fresh": True,
    }
    again = newest.made(span=[f"{hour - HOUR:%Y-%m-%d-%H}:00", key])
    assert {one["settled"] for one in again["made"].values()} == {0}
    wrong = newest.refused(
        "make",
        factory="create_settlement_asset_and_schedule",
        args=["aws.atena", day(2)],
        options={},
    )
    assert "did you mean aws.athena?" in wrong


# --- what an asset may cost ----------------------------------------------------------------------


def write(ledger: Path, *charges: tuple[str, str, int | None]) -> None:
    """Write charges: of which run and asset, and how much."""
    program = Program(ledger)
    for run, asset, amount in charges:
        labels = {"run": run, "asset": asset, "task": "step", "job": "spending", "rule": "dagster"}
        program.call(labels=labels, amount=amount)
    program.close()


def runs(count: int) -> list[str]:
    return [f"00000000-0000-4000-8000-{number:012}" for number in range(count)]


def test_cost_checks(dagster: Dagster, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    cheap, usual, dear, unknown, none = runs(5)
    third = UNIT // 3  # of a dollar, which has no last digit
    write(
        ledger,
        (cheap, "orders", third),
        (cheap, "orders", third),
        (usual, "orders", UNIT // 2),
        (usual, "refunds", 9 * UNIT),
        (dear, "orders", 2 * UNIT),
        (unknown, "orders", UNIT // 4),
        (unknown, "orders", None),
    )
    most = {"max_usd": "0.666666666666666", "max_increase": 0.5}
    first = dagster("spent", run_id=cheap, asset="orders", checks=most)["checks"]
    limit, increase = first["cost_within_limit"], first["cost_increase"]
    assert (limit["passed"], limit["metadata"]["cost_usd_exact"]) == (True, "0.666666666666666 USD")
    assert (increase["passed"], "no earlier run" in increase["said"]) == (True, True)
    second = dagster("spent", run_id=usual, asset="orders", checks=most)["checks"]
    assert second["cost_within_limit"]["passed"]
    assert second["cost_within_limit"]["metadata"]["cost_usd_exact"] == "0.5 USD"  # not others'
    assert second["cost_increase"]["passed"]
    severe = {**most, "severity": "ERROR"}
    over = dagster("spent", run_id=dear, asset="orders", checks=severe)["checks"]
    limit, increase = over["cost_within_limit"], over["cost_increase"]
    assert (limit["passed"], limit["severity"]) == (False, "ERROR")
    assert "it cost 2 USD, more than the 0.666666666666666 USD" in limit["said"]
    assert (increase["passed"], increase["severity"]) == (False, "ERROR")
    assert "0.583333333333333 USD is the median of the 2 runs" in increase["said"]
    cost = dagster("spent", run_id=unknown, asset="orders", checks=most)["checks"]
    said = cost["cost_within_limit"]
    assert (said["passed"], said["severity"]) == (False, "WARN")
    assert "at least 0.25 USD; 1 of 2 calls have no price" in said["said"]
    assert not cost["cost_increase"]["passed"]
    nothing = dagster("spent", run_id=none, asset="orders", checks=most)["checks"]
    assert not nothing["cost_within_limit"]["passed"]
    assert "nothing was recorded" in nothing["cost_within_limit"]["said"]


def test_shares_and_other_currencies(dagster: Dagster, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    (run,) = runs(1)
    program = Program(ledger)
    labels = {
        "run": run,
        "asset": "left,right",
        "task": "both",
        "job": "spending",
        "rule": "dagster",
    }
    program.call(labels=labels, amount=3, currency="EUR")
    program.close()
    checks = {"max_amount": "0.000000000000001", "currency": "eur"}
    said = dagster("spent", run_id=run, asset="left", checks=checks)["checks"]["cost_within_limit"]
    assert said["metadata"]["cost_eur_exact"] == "0.000000000000002 EUR"
    assert not said["passed"]


@pytest.mark.parametrize("priced", [True, False])
def test_the_cost_of_the_run_that_is_going_on(dagster: Dagster, priced: bool) -> None:
    capacity = {
        "name": "here",
        "system": "sqlite",
        "price": "3600",
        "currency": "USD",
        "source": "a test",
        "as_of": "2026-11",
    }
    config = {"capacity": [capacity]} if priced else {}
    done = dagster("spending", checks={"max_usd": 100}, config=config)
    assert done["success"], done["failure"]
    said = done["checks"]["cost_within_limit"]
    assert said["passed"] == priced, said
    if not priced:
        assert (said["severity"], "1 of 1 calls have no price" in said["said"]) == ("WARN", True)
    assert not dagster("spending", checks={"max_usd": 0}, config=config)["checks"][
        "cost_within_limit"
    ]["passed"]


# --- budgets -------------------------------------------------------------------------------------


def now() -> int:
    return int(datetime.now(timezone.utc).timestamp()) * 10**9


def test_budgets(dagster: Dagster, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    program = Program(ledger)
    for team, amount in (("growth", 3), ("core", 1), ("growth", None)):
        units = None if amount is None else amount * UNIT
        program.call(labels={"team": team}, amount=units, at=now() - 10**10)
    program.call(labels={"asset": "a,b"}, amount=UNIT, at=now() - 10**10)
    program.call(labels={"team": "core"}, amount=100 * UNIT, at=now() - 40 * 86_400 * 10**9)
    program.close()
    by_team = {"max_usd": {"growth": "2.5", "core": 1}, "by": "team"}
    look = dagster("budget", cursor=None, options=by_team, starts=True)
    (told,) = look["told"]
    assert told.startswith("team growth has cost 3 USD since ")
    assert told.endswith("more than 2.5 USD, and 1 calls have no price")
    (request,) = look["requests"]
    assert request["tags"] == {
        "costinsights/budget": "watch",
        "costinsights/item": "growth",
        "costinsights/spent": "3 USD",
        "costinsights/limit": "2.5 USD",
    }
    again = dagster("budget", cursor=look["cursor"], options=by_team, starts=True)
    assert (again["told"], again["requests"]) == ([], [])
    assert "told of already" in again["skipped"]
    # In the next month it is told again, and so it is where nobody could be told.
    old = look["cursor"].replace(f"{midnight():%Y-%m}", "2020-01")
    assert dagster("budget", cursor=old, options=by_team)["told"] == [told]
    assert "nobody can be told" in dagster.refused(
        "budget", cursor=None, options=by_team, breaks=True
    )
    within = dagster("budget", cursor=None, options={"max_usd": 5})
    assert (within["told"], "within 5 USD a month" in within["skipped"]) == ([], True)
    over = dagster("budget", cursor=None, options={"max_usd": "4.99", "per": "day"})
    assert over["told"][0].startswith("everything has cost 5 USD")
    shared = dagster("budget", cursor=None, options={"max_usd": "0.4", "by": "asset"})
    assert [one.split(" has ")[0] for one in shared["told"]] == ["asset a", "asset b"]
    wrong = dagster.refused("budget", cursor=None, options={"max_usd": 1, "by": "colour"})
    assert "not by 'colour'" in wrong


# --- the report ----------------------------------------------------------------------------------


def test_the_report_shows_text_as_text(dagster: Dagster, tmp_path: Path) -> None:
    program = Program(tmp_path / "ledger")
    program.call(labels={"asset": HOSTILE, "team": "a|b & c"}, amount=2 * UNIT, at=now() - 10**10)
    program.call(labels={"asset": "orders"}, amount=None, at=now() - 10**10)
    program.close()
    done = dagster("report", directory="reports", options={"by": ["asset", "team"], "since": "7d"})
    assert done["success"], done["failure"]
    (told,) = done["made"].values()
    assert (told["report_total_usd"], told["report_total_usd_exact"]) == (2, "2 USD")
    assert (told["report_calls"], told["report_unpriced_calls"]) == (2, 1)
    html = Path(told["html"]).read_text(encoding="utf-8")
    markdown = Path(told["markdown"]).read_text(encoding="utf-8")
    assert told["cost_report"] == markdown
    for text in (html, markdown):
        assert "<script" not in text
        assert "&lt;script&gt;" in text
    assert "a|b &amp; c" in html
    assert "src=" not in html
    assert "href=" not in html
    assert "http://" not in html
    assert "https://" not in html


# --- the component, and the command lines --------------------------------------------------------

DEFS = """
type: costinsights.dagster.CostInsightsComponent

attributes:
  pulls:
    - source: focus
      path: {focus}
      start_date: 2024-09-01
      key: bills/focus
  settlements:
    - system: trino
      start_date: 2026-01-01
      granularity: hourly
  report:
    directory: reports
  budgets:
    - name: monthly
      max_usd: 100
"""


def test_the_component_is_found_scaffolded_and_run(tmp_path: Path) -> None:
    python = interpreter("dagster111")
    project = tmp_path / "project"
    (project / "src" / "shop" / "defs").mkdir(parents=True)
    for module in ("__init__.py", "defs/__init__.py"):
        (project / "src" / "shop" / module).touch()
    (project / "pyproject.toml").write_text(
        '[project]\nname = "shop"\nversion = "0.1"\n[tool.dg]\ndirectory_type = "project"\n'
        '[tool.dg.project]\nroot_module = "shop"\n'
    )
    (project / "src" / "shop" / "definitions.py").write_text(
        "from pathlib import Path\nfrom dagster import definitions, load_from_defs_folder\n\n"
        "@definitions\ndef defs():\n"
        "    return load_from_defs_folder(path_within_project=Path(__file__).parent)\n"
    )
    given = variables(tmp_path)
    given["PATH"] = f"{python.parent}{os.pathsep}{given['PATH']}"
    given["PYTHONPATH"] += f"{os.pathsep}{project / 'src'}"
    given["VIRTUAL_ENV"] = str(python.parents[1])
    given["DAGSTER_HOME"] = str(tmp_path)
    given["COLUMNS"] = "200"

    def ran(*words: str) -> str:
        done = subprocess.run(
            words, cwd=project, env=given, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    component = "costinsights.dagster.CostInsightsComponent"
    assert component in ran("dg", "list", "components", "--package", "costinsights")
    ran("dg", "scaffold", "defs", component, "costs")
    defs = project / "src" / "shop" / "defs" / "costs" / "defs.yaml"
    assert component in defs.read_text()
    defs.write_text(DEFS.format(focus=FOCUS))
    ran(
        *("dagster", "asset", "materialize", "-m", "shop.definitions"),
        *("--select", "bills/focus", "--partition", "2024-09-18"),
    )
    assert billed(tmp_path / "ledger")
