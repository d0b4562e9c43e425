"""What the runs of drivers' own suites have in common: outcomes, and what differs under us."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Container
    from pathlib import Path

AGAIN = 3
"""How often a test is run again that came out differently: some fail now and then by themselves."""


class Outcome(NamedTuple):
    """How each test came out, how many calls we recorded and which errors of ours we swallowed."""

    found: dict[str, str]
    calls: int
    swallowed: dict[str, int]


class Comparison(NamedTuple):
    """Both runs, and the tests that come out differently under us each time: bare, and ours."""

    bare: Outcome
    ours: Outcome
    differences: dict[str, tuple[str | None, str | None]]


def compared(
    run: Callable[[tuple[str, ...], bool], Outcome],
    arguments: tuple[str, ...],
    *,
    known: Container[str] = (),
    again: int = AGAIN,
) -> Comparison:
    """Run a suite both ways, and each test that came out differently again, up to `again` times.

    `run` takes pytest's arguments and whether we look on; `known` tests may differ.
    """
    bare, ours = run(arguments, False), run(arguments, True)
    differences: dict[str, tuple[str | None, str | None]] = {}
    for test in sorted(bare.found.keys() | ours.found.keys()):
        pair = bare.found.get(test), ours.found.get(test)
        if pair[0] == pair[1] or test in known:
            continue
        for _ in range(again):
            pair = run((test,), False).found.get(test), run((test,), True).found.get(test)
            if pair[0] == pair[1]:
                break
        else:
            differences[test] = pair
    return Comparison(bare, ours, differences)


def read(path: Path, done: subprocess.CompletedProcess[str]) -> Outcome:
    """Return what the plug-in of a suite has written; raises where the suite did not run."""
    try:
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise RuntimeError(f"the suite did not run: {done.stdout[-3000:]}{done.stderr}") from None


def tell(result: Comparison, least: int) -> int:
    """Say what differs; 0 when nothing does and at least so many tests passed."""
    for label, outcome in (("bare", result.bare), ("ours", result.ours)):
        kinds = [how.partition(":")[0] for how in outcome.found.values()]
        counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
        print(f"{label}: {counts}; {outcome.calls} calls recorded")
    print(f"our own errors, kept from the suite: {result.ours.swallowed or 'none'}")
    for test, (bare, ours) in result.differences.items():
        print(f"{test}: {bare} bare, {ours} under us")
    print(f"{len(result.differences)} differences")
    enough = list(result.ours.found.values()).count("passed") >= least
    return 0 if enough and not result.differences else 1
