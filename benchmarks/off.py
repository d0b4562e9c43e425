"""What costinsights costs where it is switched off, or nobody chose the driver.

Three states, and what is looked at in each is the driver's own attribute: disabled by the
environment or not selected, it is never touched; uninstrumented, it is the very object that it was.
What remains is a wrapper that has to stay because somebody else has wrapped it since: it asks one
attribute whether there is anything to do.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from benchmarks import nulldb, peers
from benchmarks.measuring import BARE, BARE_AGAIN, OURS, Lane, interleave
from benchmarks.ours import NULL, recording
from benchmarks.outcome import Figure, Outcome, Table

CALLS = 2000
ROUNDS = 40
QUICK_ROUNDS = 15

# Prints how many attributes of sqlite3's cursors are not what they were.
UNTOUCHED = """
import sqlite3, sys
before = dict(vars(sqlite3.Cursor)), sqlite3.connect
import costinsights
{switch}
after = dict(vars(sqlite3.Cursor)), sqlite3.connect
print(sum(after[0].get(name) is not value for name, value in before[0].items())
      + (after[1] is not before[1]))
"""
STATES = {
    "COSTINSIGHTS_DISABLED=true": ("true", "costinsights.instrument()"),
    "another driver is selected": ("", "costinsights.instrument('pymysql')"),
    "uninstrumented": ("", "costinsights.instrument('sqlite3'); costinsights.uninstrument()"),
}


def measure(*, quick: bool = False) -> Outcome:
    """Count what is not the driver's own, then time the wrapper that is left behind."""
    rows: list[tuple[str, str]] = []
    touched = 0
    for name, (disabled, switch) in STATES.items():
        changed = _changed(disabled, switch)
        touched += changed
        rows.append((name, f"{changed} attributes changed"))
    rounds_of = QUICK_ROUNDS if quick else ROUNDS
    with recording(NULL, NULL) as ours:
        watched = nulldb.connect().cursor()
        wrapper = nulldb.Cursor.execute
        probe = wrapper.__costinsights__  # type: ignore[attr-defined]
        original = wrapper.__wrapped__  # type: ignore[attr-defined]
        recorder, probe.recorder = probe.recorder, None

        def passing_wrapper() -> None:
            wrapper(watched, "SELECT 1", None)

        def passing_none() -> None:
            original(watched, "SELECT 1", None)

        through = peers.wrapped(original)
        lanes = [
            Lane(BARE, passing_none),
            Lane(BARE_AGAIN, lambda: original(watched, "SELECT 1", None)),
            Lane(peers.WRAPT, lambda: through(watched, "SELECT 1", None)),
            Lane(OURS, passing_wrapper),
        ]
        rounds = interleave(lanes, rounds=rounds_of, calls=CALLS)
        probe.recorder = recorder
        assert not ours.writer.made, "a wrapper that is switched off has recorded"
    rows += [
        (f"left below another's wrapper, {name}", f"+{rounds.cost(name):.2f} µs")
        for name in (OURS, peers.WRAPT)
    ]
    note = f"bare call {median(rounds.base()):.2f} µs; noise (A/A) ±{rounds.noise():.2f} µs"
    return Outcome(
        [
            Figure("off", "driver attributes touched: disabled, not selected, uninstrumented",
                   touched, 0, "attributes"),
            Figure("left-behind", f"a wrapper left switched off, ÷ {peers.WRAPT}",
                   rounds.ratio(OURS, peers.WRAPT), 1.0),
        ],
        [Table("switched off", ("state", "what is left"), rows, note)],
    )  # fmt: skip


def _changed(disabled: str, switch: str) -> int:
    environment = {"COSTINSIGHTS_DISABLED": disabled} if disabled else {}
    done = subprocess.run(
        [sys.executable, "-c", UNTOUCHED.format(switch=switch)],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    return int(done.stdout)
