"""Beside ddtrace's own wrappers, whichever of the two came first: one charge a call, one span."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from costinsights.ledger.reader import read_ledger
from tests.contract.plugins import run_python

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import json, os, sys
os.environ |= {
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
    "DD_TRACE_STARTUP_LOGS": "false",
    "COSTINSIGHTS_STRICT": "1",
}
first, ledger = sys.argv[1:]
import costinsights

def ours():
    costinsights.instrument("sqlite3", ledger=ledger, exporters=[])

def theirs():
    import ddtrace
    ddtrace.patch(sqlite3=True)

for switch in (ours, theirs) if first == "ours" else (theirs, ours):
    switch()

from ddtrace.trace import TraceFilter, tracer
spans = []

class Kept(TraceFilter):
    def process_trace(self, trace):
        spans.extend(span.resource for span in trace if span.name == "sqlite.query")
        return None

tracer.configure(trace_processors=[Kept()])

import sqlite3
connection = sqlite3.connect(":memory:")
cursor = connection.cursor()
cursor.execute("CREATE TABLE t (a)")
cursor.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
rows = connection.execute("SELECT a FROM t").fetchall()
try:
    cursor.execute("SELECT * FROM nowhere")
except sqlite3.OperationalError as error:
    failed = str(error)
connection.close()
tracer.flush()
print(json.dumps({"rows": rows, "failed": failed, "spans": spans}))
"""


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_beside_ddtraces_own_wrappers(first: str, tmp_path: Path) -> None:
    if find_spec("ddtrace") is None:  # an import of it here would watch all imports of the tests
        pytest.skip("ddtrace is not installed")
    said = run_python(SCRIPT, first, str(tmp_path / "ledger"), folder=tmp_path)
    told = json.loads(said.splitlines()[-1])
    assert told["rows"] == [[1], [2]]
    assert told["failed"] == "no such table: nowhere"
    assert [span.split()[0] for span in told["spans"]] == ["CREATE", "INSERT", "SELECT", "SELECT"]
    latest = {charge.charge_id: charge for charge in read_ledger(str(tmp_path / "ledger"))}
    assert [
        (charge.operation, charge.rows, charge.error and charge.error.type)
        for charge in latest.values()
    ] == [
        ("CREATE TABLE", None, None),
        ("BATCH INSERT", 2, None),
        ("SELECT", 2, None),
        ("SELECT", None, "sqlite3.OperationalError"),
    ]
