"""Real applications on real servers: each statement is there once, attributed and priced.

Each application of tests/apps runs in three ways: with ``costinsights.instrument()``, with
``opentelemetry-instrument`` and the environment alone, and with a TracerProvider of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from costinsights.ledger.reader import read_ledger
from tests.servers.otlp_sink import OTLPSink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costinsights.records import Charge
    from tests.backends import Server

ROOT = Path(__file__).parents[2]

CAPACITY = "\n".join(
    f'[[capacity]]\nname = "{system}"\nsystem = "{system}"\nprice = "3.60"\ncurrency = "USD"\n'
    for system in ("postgresql", "mariadb", "sqlite", "duckdb")
)

# What each application asks for: system, statement, asset. Frameworks ask more, to set up and to
# look around; that is recorded too, and does not name the application's tables.
SCRIPT = Counter(
    [
        ("postgresql", "CREATE TEMPORARY TABLE script_orders (id integer, cents integer)", "orders"),
        ("postgresql", "INSERT INTO script_orders VALUES (%s, %s)", "orders"),
        ("postgresql", "SELECT id, cents FROM script_orders WHERE cents > ? ORDER BY id", "orders"),
        ("mariadb", "CREATE TEMPORARY TABLE script_orders (id integer, cents integer)", "orders"),
        ("mariadb", "INSERT INTO script_orders VALUES (%s, %s)", "orders"),
        ("mariadb", "SELECT id, cents FROM script_orders", "orders"),
        ("sqlite", "CREATE TABLE script_totals (id INTEGER, cents INTEGER)", "totals"),
        ("sqlite", "INSERT INTO script_totals VALUES (?, ?)", "totals"),
        ("sqlite", "SELECT sum(cents) FROM script_totals", "totals"),
        ("sqlite", "SELECT ? FROM script_missing", "totals"),
        ("duckdb", "CREATE TABLE script_facts (id INTEGER, cents INTEGER)", "facts"),
        ("duckdb", "INSERT INTO script_facts VALUES (?, ?)", "facts"),
        ("duckdb", "SELECT count(*) FROM script_facts WHERE cents < ?", "facts"),
    ]
)
SERVICE = Counter(
    [
        *(
            ("postgresql", text, f"request-{number}")
            for number in range(8)
            for text in (
                "SELECT %s::int + ? AS service_psycopg",
                "SELECT $1::int * ? AS service_asyncpg",
            )
        ),
        ("postgresql", "SELECT ? FROM service_missing", "failing"),
        ("postgresql", "SELECT pg_sleep(?) AS service_slow", "slow"),
    ]
)


class App(NamedTuple):
    """An application, the word that marks its own statements, and whose team it is."""

    module: str
    marker: str
    team: str
    expected: Counter[tuple[str, str, str]]


class Run(NamedTuple):
    """What an application has left behind."""

    charges: list[Charge]
    report: dict[str, Any]
    told: dict[str, tuple[str, str]]
    """The trace and span ids of the application's own spans, by name."""
    spans: list[dict[str, Any]]
    """What the application's own provider exported."""
    stderr: str


def environment(folder: Path, postgres: Server, mariadb: Server) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "APP_POSTGRES": postgres.dsn,
        "APP_MARIADB_HOST": mariadb.host,
        "APP_MARIADB_PORT": str(mariadb.port),
        "APP_MARIADB_USER": mariadb.user,
        "APP_MARIADB_PASSWORD": mariadb.password,
        "APP_MARIADB_DATABASE": mariadb.database,
        "APP_TOLD": str(folder / "told.jsonl"),
        "COSTINSIGHTS_LEDGER": str(folder / "ledger"),
        "COSTINSIGHTS_STRICT": "1",
        "PYTHONWARNINGS": "error::RuntimeWarning",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        # Theirs beside ours is tested apart; here the application's spans are our spans' parents.
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(
            "asyncio asyncpg dbapi django psycopg psycopg2 pymysql sqlalchemy sqlite3".split()
        ),
    }


def run(app: App, folder: Path, env: dict[str, str], *, wrapped: bool) -> Run:
    """Run an application to its end, and read what it left."""
    (folder / "costinsights.toml").write_text(CAPACITY, encoding="utf-8")
    program = str(ROOT / "tests" / "apps" / f"{app.module}.py")
    python = [sys.executable, program]
    command = ["opentelemetry-instrument", *python] if wrapped else [*python, "--instrument"]
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    charges = latest(read_ledger(str(folder / "ledger")))
    told = map(json.loads, (folder / "told.jsonl").read_text(encoding="utf-8").splitlines())
    spans = folder / "spans.jsonl"
    return Run(
        charges,
        reported(folder, "asset"),
        {line["name"]: (line["trace"], line["span"]) for line in told},
        [json.loads(line) for line in spans.read_text("utf-8").splitlines()]
        if spans.exists()
        else [],
        done.stdout + done.stderr,
    )


def latest(entries: Iterator[Charge]) -> list[Charge]:
    """Return each charge once, with its latest figures."""
    found: dict[str, Charge] = {}
    for entry in entries:
        assert entry.charge_id not in found or found[entry.charge_id].revision < entry.revision
        found[entry.charge_id] = entry
    return list(found.values())


def reported(folder: Path, by: str) -> dict[str, Any]:
    """Ask the command line what it all cost."""
    done = subprocess.run(
        [
            *("costinsights", "report", "--format", "json", "--limit", "0", "--by", by),
            *("--ledger", str(folder / "ledger")),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def own(app: App, charges: list[Charge]) -> list[Charge]:
    """Those of the application's own statements."""
    return [
        charge
        for charge in charges
        if charge.statement is not None and app.marker in charge.statement.text
    ]


def asked(charges: list[Charge]) -> Counter[tuple[str, str, str]]:
    return Counter(
        (charge.system, charge.statement.text, charge.attribution.get("asset", ""))
        for charge in charges
        if charge.statement is not None
    )


def check(app: App, result: Run, folder: Path) -> None:
    """Hold the ledger and the report against what the application asked for."""
    assert asked(own(app, result.charges)) == app.expected
    for charge in result.charges:
        assert charge.amount is not None, charge
        assert charge.currency == "USD"
        assert charge.basis == "estimated"
        assert charge.price is not None
        assert Decimal(charge.price.unit_price) == Decimal("3.60")
        # A call alone bears its whole time: 3.60 an hour is 10⁻¹² of a dollar a nanosecond.
        assert 0 <= Decimal(charge.amount) <= charge.duration_ns * Decimal("1e-12")
        assert "correct-horse-battery" not in repr(charge)
    for charge in own(app, result.charges):
        assert charge.attribution["team"] == app.team
        assert charge.attribution["rule"] == "scope"
        assert charge.duration_ns > 0
    totals = result.report["coverage"]
    assert totals["calls"] == totals["priced_calls"] == len(result.charges)
    assert result.report["lost"] == {}
    assert result.report["torn_lines"] == 0
    assets = Counter(charge.attribution.get("asset") for charge in result.charges)
    rows = {row["item"]: row for row in result.report["rows"]}
    assert {name: row["calls"] for name, row in rows.items()} == dict(assets)
    for name, row in rows.items():
        assert Decimal(row["cost"]) == cost(result.charges, "asset", name)
    teams = {row["item"]: row for row in reported(folder, "team")["rows"]}
    assert Decimal(teams[app.team]["cost"]) == cost(result.charges, "team", app.team)
    queries = {row["fingerprint"]: row["calls"] for row in reported(folder, "query")["rows"]}
    for fingerprint, calls in Counter(
        charge.statement.fingerprint for charge in result.charges if charge.statement is not None
    ).items():
        assert queries[fingerprint] == calls


def cost(charges: list[Charge], label: str, name: str | None) -> Decimal:
    return sum(
        (Decimal(str(c.amount)) for c in charges if c.attribution.get(label) == name), Decimal(0)
    )


APPS = [
    App("script", "script_", "sales", SCRIPT),
    App("service", "service_", "web", SERVICE),
]
EACH = pytest.mark.parametrize("app", APPS, ids=[app.module for app in APPS])


@EACH
def test_with_one_line(app: App, tmp_path: Path, postgres: Server, mariadb: Server) -> None:
    env = environment(tmp_path, postgres, mariadb)
    result = run(app, tmp_path, env, wrapped=False)
    check(app, result, tmp_path)
    assert {charge.parent_span_id for charge in result.charges} == {None}
    assert result.stderr == ""


@EACH
def test_with_opentelemetry_instrument(
    app: App, tmp_path: Path, postgres: Server, mariadb: Server
) -> None:
    with OTLPSink() as sink:
        env = environment(tmp_path, postgres, mariadb) | {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
        }
        result = run(app, tmp_path, env, wrapped=True)
    check(app, result, tmp_path)
    arrived = {
        str(span.attributes["costinsights.charge_id"]): span.message
        for span in sink.spans
        if "costinsights.charge_id" in span.attributes
    }
    ours = [span for span in sink.spans if "costinsights.charge_id" in span.attributes]
    assert len(ours) == len(arrived), "a span arrived twice"
    assert sorted(arrived) == sorted(charge.charge_id for charge in result.charges)
    theirs = {span.message.name for span in sink.spans} & set(result.told)
    assert theirs == set(result.told), "the application's own spans arrive as before"
    for charge in result.charges:
        span = arrived[charge.charge_id]
        assert span.trace_id.hex() == charge.trace_id
        assert span.span_id.hex() == charge.span_id
        assert span.parent_span_id.hex() == (charge.parent_span_id or "")
    check_parents(app, result)


@EACH
def test_with_a_provider_of_its_own(
    app: App, tmp_path: Path, postgres: Server, mariadb: Server
) -> None:
    env = environment(tmp_path, postgres, mariadb) | {"APP_SPANS": str(tmp_path / "spans.jsonl")}
    result = run(app, tmp_path, env, wrapped=False)
    check(app, result, tmp_path)
    check_parents(app, result)
    found = {
        span["attributes"]["costinsights.charge_id"]: span
        for span in result.spans
        if "costinsights.charge_id" in span["attributes"]
    }
    assert sorted(found) == sorted(charge.charge_id for charge in result.charges)
    assert len(result.spans) == len(found) + len(result.told)
    for charge in result.charges:
        span = found[charge.charge_id]
        assert span["context"]["trace_id"] == f"0x{charge.trace_id}"
        assert span["context"]["span_id"] == f"0x{charge.span_id}"


def check_parents(app: App, result: Run) -> None:
    """Every statement made within a span of the application's has it for its parent."""
    told = result.told
    for charge in own(app, result.charges):
        asset = charge.attribution["asset"]
        name = next((name for name in (asset, f"GET {asset}", app.module) if name in told), None)
        if name is None or asset in ("failing", "slow", "schema"):
            assert charge.parent_span_id is None
        else:
            assert (charge.trace_id, charge.parent_span_id) == told[name]
