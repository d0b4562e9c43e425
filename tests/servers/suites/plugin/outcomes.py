"""A pytest plug-in that runs inside a driver's own suite: it instruments, and notes each outcome.

It is loaded by its path into a process that knows nothing of our tests.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# A driver's folder in a checkout would hide the installed one: what is imported now stays.
for module in os.environ["SUITE_IMPORTS"].split():
    import_module(module)

found: dict[str, str] = {}


def pytest_configure() -> None:
    if driver := os.environ.get("SUITE_INSTRUMENT"):
        import costinsights

        costinsights.instrument(driver, ledger=os.environ["SUITE_LEDGER"], exporters=[])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or (report.outcome != "passed" and report.nodeid not in found):
        found[report.nodeid] = (
            f"x{report.outcome}" if hasattr(report, "wasxfail") else report.outcome
        )
    elif report.outcome == "failed":
        found[report.nodeid] = f"failed in {report.when}"


def pytest_sessionfinish() -> None:
    calls, swallowed = 0, {}
    if os.environ.get("SUITE_INSTRUMENT"):
        import costinsights
        from costinsights import guard, runtime

        running = runtime.active()
        if running is not None and running.made is not None:
            calls = running.made.writer.made
        swallowed = dict(guard.swallowed)
        costinsights.uninstrument()
    outcome = {"found": found, "calls": calls, "swallowed": swallowed}
    Path(os.environ["SUITE_OUT"]).write_text(json.dumps(outcome), encoding="utf-8")
