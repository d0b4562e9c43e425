"""Runs CPython's own tests of sqlite3 bare and under us, and tells every difference.

python -m tests.servers.suites.sqlite3
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.processes import Unavailable
from tests.servers.suites.comparing import Comparison, Outcome, compared, read, tell

SCRIPT = Path(__file__).parent / "plugin" / "cpython_sqlite3.py"
LEAST = 300
"""Tests that must pass, so that a suite that does not run at all is not taken for a success."""


def compare() -> Comparison:
    """Run the tests both ways, each in a process of its own.

    Raises `Unavailable` where this Python was installed without its tests.
    """
    return compared(lambda _, ours: run(ours=ours), (), again=0)


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
        return read(out, done)


def main() -> int:
    """Compare and say what differs; 0 when nothing does."""
    try:
        result = compare()
    except Unavailable as reason:
        print(reason)
        return 2
    return tell(result, LEAST)


if __name__ == "__main__":
    sys.exit(main())
