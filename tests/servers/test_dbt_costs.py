"""A whole dbt project, bare and under us: nothing is another, and every statement has its node.

Real dbt on real PostgreSQL, DuckDB and Trino; the project is in ``dbt_shop``.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pytest

from costinsights import statement
from tests.backends import unavailable
from tests.environments import environment
from tests.processes import Unavailable
from tests.servers import pg_recorder, trino_proxy
from tests.servers.dbt_runs import SECRETS, Run, Shop, alike, priced, shop, total
from tests.servers.test_dbt import account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from costinsights.records import Charge
    from tests.backends import Server
    from tests.servers.trino_server import Coordinator

MODELS = 30
"""The project has at least so many models."""

Rows = dict[str, list[tuple[object, ...]]]


@pytest.fixture(scope="module", autouse=True)
def dbt() -> None:
    """Install dbt, once for all."""
    try:
        environment("dbt")
    except Unavailable as reason:
        unavailable("dbt", reason)


# --- bare and under us ---------------------------------------------------------------------------


def both(bare: Shop, ours: Shop, *words: str, mended: bool = False) -> tuple[Run, Run]:
    """Run a command in both, at once."""
    processes = [one.begin(*words, mended=mended) for one in (bare, ours)]
    first, second = (one.end(done) for one, done in zip((bare, ours), processes, strict=True))
    return first, second


def is_unchanged(bare: Run, ours: Run) -> None:
    """Hold against one another what dbt says became of each node."""
    assert ours.code == bare.code, ours.output
    assert ours.results() == bare.results()


def adds_up(run: Run, charges: Iterable[Charge]) -> dict[str, Any]:
    """Hold ``costs.json`` against the ledger, to the last digit, and each node's charges."""
    costs = run.costs()
    ours = [c for c in charges if c.attribution.get("dbt.invocation_id") == costs["invocation_id"]]
    by_node: dict[str, list[Charge]] = {}
    for charge in ours:
        by_node.setdefault(charge.attribution.get("dbt.node_id", ""), []).append(charge)
    said = {node["unique_id"]: node for node in costs["nodes"]} | {"": costs["other"]}
    assert said.keys() == by_node.keys() | {""}
    for unique_id, found in by_node.items():
        figures = said[unique_id]
        assert figures["calls"] == len(found), unique_id
        assert total(figures["costs"]) == spent(found), unique_id
        assert figures["failed_calls"] == sum(charge.error is not None for charge in found)
    assert total(costs["totals"]) == spent(ours)
    assert costs["calls"] == len(ours)
    everything = [node["costs"] for node in costs["nodes"]] + [costs["other"]["costs"]]
    assert sum(map(total, everything), Decimal(0)) == spent(ours)
    return costs


def spent(charges: Iterable[Charge]) -> Decimal:
    """Return what the ledger says that charges cost."""
    return sum((Decimal(c.amount) for c in charges if c.amount is not None), Decimal(0))


def has_its_node(charges: Iterable[Charge], sent: Iterable[str], system: str) -> None:
    """Hold each statement's node against dbt's comment, and what has none against what it is."""
    named: dict[str, set[str]] = {}
    for text in sent:
        parsed = statement.parse(text, system)
        node = (parsed.comment or {}).get("dbt.node_id")
        if node is not None:
            named.setdefault(parsed.text, set()).add(node)
    for charge in charges:
        assert charge.attribution["rule"] == "dbt", charge
        assert "dbt.invocation_id" in charge.attribution, charge
        node = charge.attribution.get("dbt.node_id", "")
        text = "" if charge.statement is None else charge.statement.text
        if text in named:
            assert node in named[text], charge
        hook = text.endswith(("as run_begins", "as run_ends", "as results_of_the_run"))
        assert hook == node.startswith("operation.shop."), charge


def keeps_secrets(ours: Shop) -> None:
    """Nothing that is nobody's business is in the ledger or in ``costs.json``."""
    files = [path for path in ours.ledger.rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in [*files, ours.directory / "target/costs.json"])
    for secret in SECRETS:
        assert secret.encode() not in kept


def built_twice_and_mended(
    bare: Shop, ours: Shop, rows: Callable[[Shop], Rows], system: str
) -> None:
    """Build, build again (incrementally), and have the failed model repeated: see what there is."""
    begun = both(bare, ours, "build")
    is_unchanged(*begun)
    assert ours.charges()
    first = adds_up(begun[1], ours.charges())
    built = {node["unique_id"]: node for node in first["nodes"]}
    assert sum(unique_id.startswith("model.") for unique_id in built) >= MODELS - 4  # 2 ephemeral
    assert built["model.shop.broken"]["status"] == "error"
    assert built["model.shop.broken"]["failed_calls"] == 1
    assert "model.shop.below_broken" not in built  # skipped
    assert built["model.shop.orders"]["owner"] == "Olga Orders"
    assert built["model.shop.orders"]["team"] == "logistics"
    assert built["model.shop.revenue_daily"]["tags"] == ["daily", "finance"]
    assert built["model.shop.revenue_daily"]["owner"] == "Finance"
    assert built["model.shop.countries"]["owner"] is None  # the group has an address only
    assert built["model.shop.countries"]["team"] == "growth"
    assert {node["resource_type"] for node in first["nodes"]} == {
        *("model", "operation", "seed", "snapshot", "test", "unit_test")
    }
    names = [node["name"] for node in first["nodes"]]
    assert "not_null_orders_order_id" in names
    assert "segments.high_and_low" in names
    dearest = [total(node["costs"]) for node in first["nodes"]]
    assert dearest == sorted(dearest, reverse=True)
    assert not any(node["retried_costs"] for node in first["nodes"])
    shown(begun[1], first)

    again = both(bare, ours, "build")
    is_unchanged(*again)
    second = adds_up(again[1], ours.charges())
    assert second["invocation_id"] != first["invocation_id"]

    mended = both(bare, ours, "retry", mended=True)
    is_unchanged(*mended)
    third = adds_up(mended[1], ours.charges())
    assert third["command"] == "retry", mended[1].output
    repeated = {node["unique_id"]: node for node in third["nodes"]}
    assert repeated["model.shop.broken"]["status"] == "success"
    assert repeated["model.shop.broken"]["retried_costs"] == repeated["model.shop.broken"]["costs"]
    assert repeated["model.shop.below_broken"]["retried_costs"] == []  # it was skipped before

    assert rows(ours) == rows(bare)
    customers = [c for c in ours.charges() if c.attribution.get("asset") == "customers"]
    assert {c.attribution["cost_center"] for c in customers} == {"43"}
    assert {c.attribution["tier"] for c in customers} == {"gold"}
    assert {c.attribution["dbt.materialized"] for c in customers} == {"table"}
    assert all("dbt.owner" not in c.attribution for c in customers)  # it is an address
    keeps_secrets(ours)


def shown(run: Run, costs: dict[str, Any]) -> None:
    """The table is the last that dbt prints, with the dearest nodes first."""
    _, title, table = run.output.partition("Cost of dbt build: shop, target here\n")
    assert title, run.output
    lines = table.strip().splitlines()
    assert lines[0].split() == ["node", "cost", "share", "calls", "time", "rows", "status"]
    names = [line.split()[0] for line in lines[2:22]]
    assert names == [node["name"] for node in costs["nodes"][:20]]
    assert any(line.startswith("total ") and "100 %" in line for line in lines)
    assert "\x1b" not in table


def test_duckdb(tmp_path: Path) -> None:
    bare, ours = (
        shop(
            tmp_path / name,
            {"type": "duckdb", "path": str(tmp_path / name / "shop.duckdb")},
            measured=name == "ours",
            prices=priced("duckdb"),
        )
        for name in ("bare", "ours")
    )

    def rows(one: Shop) -> Rows:
        with duckdb.connect(str(one.directory / "shop.duckdb"), read_only=True) as database:
            return contents(lambda text: database.execute(text).fetchall(), "main")

    built_twice_and_mended(bare, ours, rows, "duckdb")
    assert alike(ours.said()) == alike(bare.said())
    has_its_node(ours.charges(), ours.said(), "duckdb")
    forecast = [c for c in ours.charges() if c.attribution.get("asset") == "forecast"]
    assert forecast
    assert {c.attribution["dbt.resource_type"] for c in forecast} == {"model"}


def test_postgresql(postgres: Server, tmp_path: Path) -> None:
    with (
        psycopg.connect(postgres.dsn, autocommit=True) as database,
        pg_recorder.recording(postgres) as heard_bare,
        pg_recorder.recording(postgres) as heard_ours,
    ):
        recorders = {"bare": heard_bare, "ours": heard_ours}
        for name in recorders:
            database.execute(f"DROP SCHEMA IF EXISTS shop_{name} CASCADE".encode())
        bare, ours = (
            shop(
                tmp_path / name,
                account("postgres", postgres, recorder.port) | {"schema": f"shop_{name}"},
                measured=name == "ours",
                prices=priced("postgresql"),
            )
            for name, recorder in recorders.items()
        )

        def rows(one: Shop) -> Rows:
            schema = f"shop_{one.directory.name}"
            return contents(lambda text: database.execute(text.encode()).fetchall(), schema)

        built_twice_and_mended(bare, ours, rows, "postgresql")
        # What reaches the server is the same, byte for byte, and so is its number.
        assert alike(heard_ours.statements()) == alike(heard_bare.statements())
        has_its_node(ours.charges(), heard_ours.statements(), "postgresql")
        for name in recorders:
            database.execute(f"DROP SCHEMA shop_{name} CASCADE".encode())


def contents(ask: Callable[[str], list[tuple[Any, ...]]], schema: str) -> Rows:
    """Return the rows of every table and view, in no order."""
    names = ask(
        "SELECT table_name FROM information_schema.tables "
        f"WHERE table_schema = '{schema}' ORDER BY table_name"
    )
    found: Rows = {}
    for (name,) in names:
        taken = ask(f'SELECT * FROM "{schema}"."{name}"')
        if name == "customer_history":  # it has the moment of each row
            taken = [row[:2] for row in taken]
        found[name] = sorted(taken, key=repr)
    assert len(found) > MODELS
    return found


def test_trino(trino_coordinator: Coordinator, tmp_path: Path) -> None:
    words = (
        *("build", "--select", "tag:raw", "tag:staging", "tag:core"),
        *("int_first_orders", "revenue_daily"),
    )
    runs: dict[str, tuple[Shop, Run, list[str]]] = {}
    for name in ("bare", "ours"):
        with trino_proxy.recording(trino_coordinator) as proxy:
            target = {"type": "trino", "method": "none", "user": "dbt", "host": "127.0.0.1"}
            place = {"database": "memory", "schema": f"shop_{name}", "http_scheme": "http"}
            one = shop(
                tmp_path / name,
                {**target, **place, "port": proxy.port},
                measured=name == "ours",
            )
            done = one.run(*words)
            runs[name] = one, done, [post.body.decode() for post in proxy.posts()]
    (_, bare, sent_bare), (ours, under_us, sent) = runs["bare"], runs["ours"]
    assert under_us.code == 0, under_us.output
    assert {r["status"] for r in under_us.results().values()} == {"success", "pass"}
    assert under_us.results().keys() == bare.results().keys()
    assert alike(sent) == alike(sent_bare)
    has_its_node(ours.charges(), sent, "trino")
    costs = adds_up(under_us, ours.charges())
    # No price is known of a Trino of one's own: nothing is called free.
    assert costs["totals"] == []
    # The client's own, around a statement with parameters, and what it asks for that once.
    own = ("PREPARE ", "DEALLOCATE ", "EXECUTE IMMEDIATE 'SELECT 1'")
    asked = [text for text in sent if not text.startswith(own)]
    assert costs["unpriced_calls"] == costs["calls"] == len(asked)
    assert "No statement has a price yet" in under_us.output


# --- in a program, and what is left behind -------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "dbt.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_says_what_happens(tmp_path: Path) -> None:
    """Run the page's very command on the project, with the page's price, and its program."""
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    prices = next(text for kind, text in blocks if kind == "toml" and "capacity" in text)
    page = next(text for kind, text in blocks if kind == "console" and "Cost of dbt" in text)
    program = next(text for kind, text in blocks if kind == "py")
    command, _, shown_there = page.partition("\n")
    target = {"type": "duckdb", "path": str(tmp_path / "shop" / "shop.duckdb")}
    one = shop(tmp_path / "shop", target, prices=prices)
    assert command.startswith("$ costinsights run -- dbt build")
    done = one.run(*command.split()[5:])
    there, here = (shape(text) for text in (shown_there, done.output))
    assert here == there
    said = one.program(program)
    assert re.match(r"\d+ statements, \{'USD': Decimal\('0\.\d+'\)\}\n", said), said
    assert re.search(r"^stg_orders success \{'USD': Decimal", said, re.MULTILINE), said


def shape(output: str) -> list[str]:
    """Return the table without what depends on the machine: figures, widths, and who is dear."""
    _, title, table = output.partition("Cost of dbt build")
    assert title, output
    head, *rows = (title + table).strip().splitlines()
    names = [row.split("  ")[0] for row in rows]
    return [
        head.partition(", target ")[0],
        " ".join(rows[1].split()),
        str(names.index("total")),
        *(name for name in names if re.match(r"total|of it |\(no node|\d+ others", name)),
        *(re.sub(r"[\d,]+", "n", row) for row in rows[-2:]),
    ]


PROGRAM = """
import io, json, sys
from contextlib import redirect_stdout

import costinsights
from costinsights.dbt import costs
from dbt.adapters.base.impl import BaseAdapter
from dbt.cli.main import dbtRunner
from dbt.task.run import RunTask

original = BaseAdapter.connection_named, RunTask.get_hook_sql
costinsights.instrument("duckdb")
assert BaseAdapter.connection_named is not original[0]

def run(*words, **settings):
    said = io.StringIO()
    with redirect_stdout(said):
        result = dbtRunner().invoke(list(words))
    return result, said.getvalue()

events = []
def count(event):
    events.append(event.info.name)

result, text = run("seed")
seeded = costs()
assert result.success and "Cost of dbt seed" in text, text
with costinsights.attribute(team="growth", job="nightly"):
    ran = dbtRunner(callbacks=[count]).invoke(["--quiet", "run", "--select", "tag:staging"])
    assert ran.success
    assert costinsights.current().calls == costs().total.calls  # dbt's threads are in the scope
assert events.count("CommandCompleted") == 1
found = costs()
assert found.invocation_id != seeded.invocation_id
assert (found.command, found.target, found.project) == ("run", "here", "shop")
assert [node.unique_id for node in found.nodes if node.status != "success"] == []
assert {node.name for node in found.nodes if node.resource_type == "model"} == {
    "stg_customers", "stg_items", "stg_orders", "stg_payments", "stg_products", "stg_stores"}
assert costs(seeded.invocation_id).total == seeded.total
assert costs(target_path="target").total == found.total
document = json.load(open("target/costs.json"))
assert document["calls"] == found.total.calls and document["invocation_id"] == found.invocation_id

result, text = run("--log-format", "json", "run", "--select", "stg_stores")
assert result.success and all(json.loads(line)["info"] for line in text.splitlines()), text
result, text = run("--quiet", "run", "--select", "stg_stores")
assert text == "", text
result, text = run("--log-level", "error", "run", "--select", "stg_stores")
assert text == "", text
result, text = run("run-operation", "clean_up")
assert result.success and "Cost of" not in text
assert [node.unique_id for node in costs().nodes] == ["macro.shop.clean_up"], costs().nodes
assert costs().nodes[0].status == "success"
result, text = run("show", "--select", "stg_stores", "--output", "json", "--quiet")
assert result.success and json.loads(text)["show"], text
assert "stg_stores" in [node.name for node in costs().nodes]
before = open("target/costs.json").read()
result, text = run("compile", "--inline", "select 1 as one")
assert result.success and "Cost of" not in text
result, text = run("--no-write-json", "run", "--select", "stg_stores")
assert "Cost of dbt run" in text and open("target/costs.json").read() == before
result, text = run("docs", "generate")
assert result.success and costs().command == "docs generate"
assert not dbtRunner().invoke(["run", "--select", "nothing of that name"]).exception
result, text = run("run", "--no-such-option")
assert not result.success

costinsights.uninstrument()
assert (BaseAdapter.connection_named, RunTask.get_hook_sql) == original
result, text = run("run", "--select", "stg_stores")
assert result.success and "Cost of" not in text

costinsights.instrument("duckdb", config={"dbt": {"table": False}})
result, text = run("run", "--select", "stg_stores")
assert result.success and "Cost of" not in text
assert json.load(open("target/costs.json"))["invocation_id"] == costs().invocation_id
costinsights.uninstrument()
print("all of it")
"""


def test_a_program_that_runs_dbt(tmp_path: Path) -> None:
    target = {"type": "duckdb", "path": str(tmp_path / "shop" / "shop.duckdb")}
    one = shop(tmp_path / "shop", target, prices=priced("duckdb"))
    assert one.program(PROGRAM).endswith("all of it\n")
    labels = [charge.attribution for charge in one.charges()]
    inside = [found for found in labels if found.get("job") == "nightly"]
    assert {found["team"] for found in inside} == {"growth"}
    assert {found["rule"] for found in inside} == {"scope+dbt"}
    assert {"stg_orders", "stg_stores"} <= {found.get("asset") for found in inside}
    commands = {found.get("dbt.command") for found in labels}
    expected = {"seed", "run", "run-operation", "show", "docs generate"}
    assert expected <= commands, commands


def test_a_killed_dbt_loses_nothing(tmp_path: Path) -> None:
    target = {"type": "duckdb", "path": str(tmp_path / "shop" / "shop.duckdb")}
    one = shop(tmp_path / "shop", target, prices=priced("duckdb"))
    one.program(
        "import os, costinsights\n"
        "from dbt.cli.main import dbtRunner\n"
        "costinsights.instrument('duckdb')\n"
        "def kill(event):\n"
        "    if event.info.name == 'NodeFinished' and event.data.node_info.node_name == 'raw_stores':\n"
        "        print(costinsights.current().calls, flush=True)\n"
        "        os._exit(0)\n"
        "dbtRunner(callbacks=[kill]).invoke(['--quiet', 'seed', '--threads', '1'])\n"
        "raise SystemExit('it was not killed')\n"
    )
    assert not (one.directory / "target" / "costs.json").exists()
    nodes = {charge.attribution.get("dbt.node_id") for charge in one.charges()}
    assert "seed.shop.raw_stores" in nodes
    invocation = {charge.attribution["dbt.invocation_id"] for charge in one.charges()}.pop()
    program = (
        "import json, costinsights\n"
        "from costinsights.dbt import costs\n"
        f"found = costs('{invocation}')\n"
        "print(json.dumps([found.total.calls, str(found.total.costs['USD'])]))\n"
    )
    calls, amount = json.loads(one.program(program))
    assert calls == len(one.charges())
    assert Decimal(amount) == spent(one.charges())
