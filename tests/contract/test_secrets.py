"""2,000 secrets in every place where a dialect lets one stand, and none of them comes out anywhere.

Each statement goes through a real driver call: sqlite3 where it is SQLite's, and a DB-API driver
made for this test, which speaks to every system and fails with the statement in its error's text.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.ledger.reader import read_ledger, segments
from tests.secrets import leaks, secrets
from tests.servers.otlp_sink import OTLPSink

if TYPE_CHECKING:
    from pathlib import Path

SECRETS = list(secrets())


class AnySystem:
    """A connection to whatever system it is told."""

    def __init__(self, system: str) -> None:
        self.system = system
        self.dsn = "anysystem://user:Hushpassword@db.example:1234/shop"

    def execute(self, query: str) -> None:
        raise RuntimeError(f"error near {query!r}, connecting to {self.dsn}")


class AnySystemInstrumentor(DBAPIInstrumentor):
    name = "anysystem"
    system = "other_sql"
    driver = "anysystem"
    supports = ("1", "2")
    connection = ""
    hooks = (Hook("anysystem:AnySystem.execute"),)


def instrumentor_of(system: str) -> DBAPIInstrumentor:
    """Return an instrumentor of the driver that says it speaks to `system`."""
    kind = type("OfSystem", (AnySystemInstrumentor,), {"system": system})
    made: DBAPIInstrumentor = kind()
    return made


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Everything that any part of the package has said of the statements, by where it said it."""
    folder = tmp_path_factory.mktemp("secrets")
    ledger = folder / "ledger"
    found: dict[str, str] = {}
    with OTLPSink() as sink:
        program = folder / "program.py"
        program.write_text(PROGRAM, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(program)],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "COSTINSIGHTS_LEDGER": str(ledger),
                "COSTINSIGHTS_EXPORTERS": "jsonl,console,otlp",
                "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
                "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Hushheader",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found["console and log"] = done.stdout + done.stderr
        found["otlp"] = "".join(str(span.message) for span in (*sink.spans, *sink.logs))
        assert len(sink.spans) >= len(SECRETS)
    assert found["console and log"].count("\n") >= len(SECRETS)
    found["ledger"] = "".join(_read(path) for path in segments(str(ledger)))
    found["jsonl"] = _read(str(folder / "charges.jsonl"))
    charges = list(read_ledger(str(ledger)))
    assert len(charges) >= len(SECRETS)
    for style in ("table", "json", "csv", "md"):
        for by in ("query", "asset", "system"):
            found[f"report {style} {by}"] = _command(
                folder, "report", "--by", by, "--format", style, "--limit", "0"
            )
    for charge in charges[:: len(charges) // 5]:
        found[f"explain {charge.charge_id}"] = _command(folder, "explain", charge.charge_id)
    found["ledger cat"] = _command(folder, "ledger", "cat")
    found["ledger verify"] = _command(folder, "ledger", "verify")
    for style in ("table", "json"):
        found[f"doctor {style}"] = _command(folder, "doctor", "--format", style)
    return found


PROGRAM = """
import sys, logging, contextlib, sqlite3
logging.basicConfig(level=logging.DEBUG)
import costinsights
from tests.contract.test_secrets import SECRETS, AnySystem, instrumentor_of
from types import ModuleType

module = ModuleType("anysystem")
module.AnySystem = AnySystem
sys.modules["anysystem"] = module
costinsights.instrument("sqlite3")
from costinsights.runtime import active
one = sqlite3.connect(":memory:")
plugin = None
for secret in sorted(SECRETS, key=lambda secret: secret.system):
    if plugin is None or plugin.system != secret.system:
        if plugin is not None:
            plugin.uninstrument()
        plugin = instrumentor_of(secret.system)
        plugin.instrument(active().recorder)
    with contextlib.suppress(RuntimeError):
        AnySystem(secret.system).execute(secret.text)
    if secret.system == "sqlite":
        with contextlib.suppress(sqlite3.Error, sqlite3.Warning, ValueError):
            one.execute(secret.text).fetchall()
plugin.uninstrument()
assert costinsights.flush(60)
"""


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _command(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["costinsights", *arguments],
        cwd=folder,
        env={
            **os.environ,
            "COSTINSIGHTS_LEDGER": str(folder / "ledger"),
            "COSTINSIGHTS_EXPORTERS": "otlp",
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Hushheader",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:Hushendpoint@127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert done.stdout
    return done.stdout + done.stderr


def test_there_are_enough() -> None:
    assert len(SECRETS) >= 2_000


def test_no_statements_secret_comes_out(outputs: dict[str, str]) -> None:
    for where, text in outputs.items():
        found = leaks(_without_ids(text), SECRETS)
        assert [(where, secret) for secret in found] == []


def test_no_password_comes_out(outputs: dict[str, str]) -> None:
    for where, text in outputs.items():
        for word in ("Hushpassword", "Hushheader", "Hushendpoint", "error near"):
            assert word not in text, where


def test_the_outputs_speak_of_the_statements(outputs: dict[str, str]) -> None:
    """Otherwise there would be nothing to find in them."""
    assert outputs["ledger"].count("SELECT") > 100, "each shape's definition stands there once"
    for where in ("jsonl", "otlp", "ledger cat", "console and log"):
        assert outputs[where].count("SELECT") > 1_000, where
    for where in ("report csv query", "report json query", "report md query"):
        assert "SELECT" in outputs[where], where


def _without_ids(text: str) -> str:
    """Drop hexadecimal and decimal numbers of 16 digits and more: ids, times and seals."""
    return re.sub(r"[0-9a-f]{14,}|\d{2}:\d{2}:\d{2}\.\d+|\d+\.\d{9,}", "", text)
