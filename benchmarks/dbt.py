"""dbt by hand: what a whole ``dbt build`` takes under us, ÷ the same bare.

    python -m benchmarks.dbt [duckdb|postgresql] [ROUNDS]

It is no part of `make bench`: it takes its minutes. The project is the tests' (`tests/servers/dbt_shop`,
35 models and what belongs to them) with four threads, built anew in each round; bare and under us
take turns, the order of the two alternates, and figures are medians. Wall time is what the user
waits for, CPU what it takes where other programs are busy beside it: both are from the start of the
command to its end, with `costinsights run`, the table and ``costs.json``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.outcome import Table, plain
from tests.servers.dbt_runs import Shop, priced, shop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROUNDS = 7
TARGET = 1.02
BARE, OURS = "bare", "costinsights"
FAILED = 1
"""The exit code of the project's build, in which a model and a test fail."""


class Taken(NamedTuple):
    """Seconds that a build took."""

    wall: float
    cpu: float


def build(one: Shop) -> Taken:
    """Build the project once."""
    began = time.perf_counter()
    process = one.begin("build", quiet=True)
    # Not `communicate`: what the process took is only told to who waits for it himself.
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != FAILED:
        raise SystemExit(f"dbt build ended with {process.returncode} in {one.directory}")
    return Taken(wall, used.ru_utime + used.ru_stime)


def measure(
    kind: str, targets: Mapping[str, Mapping[str, Any]], clear: Callable[[Shop], None], rounds: int
) -> Table:
    """Build bare and under us in turn."""
    taken: dict[str, list[Taken]] = {BARE: [], OURS: []}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        shops = {
            name: shop(Path(folder) / name, target, measured=name == OURS, prices=priced(kind))
            for name, target in targets.items()
        }
        for number in range(-1, rounds):
            for name in (BARE, OURS) if number % 2 else (OURS, BARE):
                clear(shops[name])
                found = build(shops[name])
                if number >= 0:  # the first round parses the project
                    taken[name].append(found)
        statements = len(shops[OURS].charges()) // (rounds + 1)
    rows = [
        (
            name,
            *(f"{median(figures):.2f}" for figures in zip(*times, strict=True)),
            *(f"{min(figures):.2f}" for figures in zip(*times, strict=True)),
        )
        for name, times in taken.items()
    ]
    rows.append(
        (
            "÷ bare",
            *(f"{ratio(taken, field, median):.3f}" for field in Taken._fields),
            *(f"{ratio(taken, field, min):.3f}" for field in Taken._fields),
        )
    )
    paired = [ours.wall / bare.wall for bare, ours in zip(taken[BARE], taken[OURS], strict=True)]
    return Table(
        f"dbt build on {kind}: {rounds} rounds",
        ("", "wall s", "CPU s", "least wall s", "least CPU s"),
        rows,
        f"{statements} statements a build; wall ÷ bare, round by round: "
        f"{' '.join(f'{one:.2f}' for one in sorted(paired))} (median {median(paired):.3f}); "
        f"target ≤ {TARGET}",
    )


def ratio(
    taken: Mapping[str, list[Taken]], field: str, of: Callable[[list[float]], float]
) -> float:
    """Return what a build takes under us, ÷ bare."""
    ours, bare = (of([getattr(one, field) for one in taken[name]]) for name in (OURS, BARE))
    return ours / bare


def on_duckdb(rounds: int) -> Table:
    """A database in a file, which is new in each round."""

    def clear(one: Shop) -> None:
        (one.directory / "shop.duckdb").unlink(missing_ok=True)

    target = {"type": "duckdb", "path": "shop.duckdb"}
    return measure("duckdb", {BARE: target, OURS: target}, clear, rounds)


def on_postgresql(rounds: int) -> Table:
    """A real server, and a schema that is new in each round."""
    import psycopg

    from tests import backends
    from tests.servers.test_dbt import account

    with ExitStack() as stack:
        server = stack.enter_context(backends.postgres())
        database = stack.enter_context(psycopg.connect(server.dsn, autocommit=True))
        target = account("postgres", server, server.port)

        def clear(one: Shop) -> None:
            name = one.directory.name
            database.execute(f"DROP SCHEMA IF EXISTS bench_{name} CASCADE".encode())

        targets = {name: target | {"schema": f"bench_{name}"} for name in (BARE, OURS)}
        return measure("postgresql", targets, clear, rounds)


if __name__ == "__main__":
    asked = sys.argv[1] if len(sys.argv) > 1 else "duckdb"
    times = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    print(plain({"duckdb": on_duckdb, "postgresql": on_postgresql}[asked](times)))
