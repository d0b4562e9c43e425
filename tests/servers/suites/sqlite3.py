"""Runs CPython's own tests of sqlite3 bare and under us, and tells every difference.

python -m tests.servers.suites.sqlite3
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.processes import Unavailable

SCRIPT = Path(__file__).parent / "plugin" / "cpython_sqlite3.py"
LEAST = 300
"""Tests that must pass, so that a suite that does not run at all is not taken for a success."""


class Outcome(NamedTuple):
    """How each test came out, how many calls we recorded and which errors of ours we swallowed."""

    found: dict[str, str]
    calls: int
    swallowed: dict[str, int]


class Comparison(NamedTuple):
    """Both runs, and the tests that come out differently under us: bare, and ours."""

    bare: Outcome
    ours: Outcome
    differences: dict[str, tuple[str | None, str | None]]


def compare() -> Comparison:
    """Run the tests both ways, each in a process of its own.

    Raises `Unavailable` where this Python was installed without its tests.
    """
    bare, ours = run(ours=False), run(ours=True)
    differences = {
        test: (bare.found.get(test), ours.found.get(test))
        for test in sorted(bare.found.keys() | ours.found.keys())
        if bare.found.get(test) != ours.found.get(test)
    }
    return Comparison(bare, ours, differences)


def run(*, ours: bool) -> Outcome:
    """Run the tests once, in an empty directory."""
    with tempfile.TemporaryDirectory(prefix="suite-") as name:
        out, ledger = Path(name, "outcome.json"), Path(name, "ledger")
        done = subprocess.run(
            [sys.executable, SCRIPT, out, *([ledger] if ours else [])],
            cwd=name,
            capture_output=True,
            text=True,
            check=False,
        )
        if not out.exists():
            if "No module named 'test" in done.stderr or "No module named 'sqlite3." in done.stderr:
                raise Unavailable("this Python was installed without its own tests")
            raise RuntimeError(f"the suite did not run: {done.stderr[-3000:]}")
        return Outcome(**json.loads(out.read_text(encoding="utf-8")))


def main() -> int:
    """Compare and say what differs; 0 when nothing does."""
    try:
        result = compare()
    except Unavailable as reason:
        print(reason)
        return 2
    for label, outcome in (("bare", result.bare), ("ours", result.ours)):
        kinds = [how.partition(":")[0] for how in outcome.found.values()]
        counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
        print(f"{label}: {counts}; {outcome.calls} calls recorded")
    print(f"our own errors, kept from the suite: {result.ours.swallowed or 'none'}")
    for test, (bare, ours) in result.differences.items():
        print(f"{test}: {bare} bare, {ours} under us")
    print(f"{len(result.differences)} differences")
    enough = list(result.ours.found.values()).count("passed") >= LEAST
    return 0 if enough and not result.differences else 1


if __name__ == "__main__":
    sys.exit(main())
