"""Runs CPython's own tests of sqlite3 in this process, and writes how each came out.

    python cpython_sqlite3.py OUTCOME.json [LEDGER]        # with a ledger: under us

Started by its path, in a process that knows nothing of our tests.
"""

from __future__ import annotations

import json
import pkgutil
import sys
import unittest
from importlib import import_module
from pathlib import Path
from typing import Any


class Outcomes(unittest.TestResult):
    """How each test came out; of several subtests the last that did not pass."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802  unittest's name
        self.found.setdefault(test.id(), "passed")

    def addError(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self.found[test.id()] = f"error: {err[0].__name__}"

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:  # noqa: N802
        self.found[test.id()] = f"failed: {err[0].__name__}"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        self.found[test.id()] = f"skipped: {reason}"

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:  # noqa: N802
        if err is not None:
            self.found[test.id()] = f"failed in a subtest: {err[0].__name__}"


def package() -> str:
    """Return where this Python keeps the tests; raises ImportError where they are not installed."""
    name = "test.test_sqlite3" if sys.version_info >= (3, 11) else "sqlite3.test"
    import_module(name)
    return name


def run() -> dict[str, str]:
    """Run every test and return how it came out."""
    name = package()
    suite = unittest.TestSuite()
    for module in pkgutil.iter_modules(import_module(name).__path__, f"{name}."):
        if not module.name.endswith("__main__"):
            suite.addTests(
                unittest.defaultTestLoader.loadTestsFromModule(import_module(module.name))
            )
    outcomes = Outcomes()
    suite.run(outcomes)
    return outcomes.found


def main(out: str, ledger: str = "") -> None:
    """Run the tests and write their outcomes, our calls and our errors to `out`."""
    calls, swallowed = 0, {}
    if ledger:
        import costinsights
        from costinsights import guard, runtime

        costinsights.instrument("sqlite3", ledger=ledger, exporters=[])
        found = run()
        running = runtime.active()
        if running is not None and running.made is not None:
            calls = running.made.writer.made
        swallowed = dict(guard.swallowed)
        costinsights.uninstrument()
    else:
        found = run()
    outcome = {"found": found, "calls": calls, "swallowed": swallowed}
    Path(out).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
