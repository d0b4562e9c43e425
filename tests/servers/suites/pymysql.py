"""Runs PyMySQL's own test suite bare and under us, and tells every difference.

    python -m tests.servers.suites.pymysql CHECKOUT [pytest's arguments]

`CHECKOUT` is a copy of its repository, for the source distributions have no tests: they are in
`pymysql/tests`, and it is that PyMySQL which is tested. A test that came out differently is run
again by itself, both ways, before it counts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests import backends
from tests.servers.suites.sqlite3 import Comparison, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.backends import Server

PLUGIN = Path(__file__).parent / "plugin"
AGAIN = 3
LEAST = 100
# What the suite asks for, and the server's account may make.
DATABASES = ("test1", "test2")


def compare(source: Path, server: Server, *arguments: str) -> Comparison:
    """Run the suite both ways, and what differs again."""
    bare = run(source, server, arguments, ours=False)
    ours = run(source, server, arguments, ours=True)
    suspects = [
        test
        for test in sorted(bare.found.keys() | ours.found.keys())
        if bare.found.get(test) != ours.found.get(test)
    ]
    differences: dict[str, tuple[str | None, str | None]] = {}
    for test in suspects:
        pair = bare.found.get(test), ours.found.get(test)
        for _ in range(AGAIN):
            pair = (
                run(source, server, (test,), ours=False).found.get(test),
                run(source, server, (test,), ours=True).found.get(test),
            )
            if pair[0] == pair[1]:
                break
        else:
            differences[test] = pair
    return Comparison(bare, ours, differences)


def run(source: Path, server: Server, arguments: Sequence[str], *, ours: bool) -> Outcome:
    """Run the suite once, on a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="suite-") as name:
        directory = Path(name, "suite")
        shutil.copytree(source / "pymysql", directory / "pymysql")
        _make(server)
        account: dict[str, Any] = {
            "host": server.host,
            "port": server.port,
            "user": server.user,
            "password": server.password,
            "local_infile": True,
        }
        (directory / "pymysql" / "tests" / "databases.json").write_text(
            json.dumps([{**account, "database": database} for database in DATABASES]),
            encoding="utf-8",
        )
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(directory), str(PLUGIN)]),
            "SUITE_IMPORTS": "pymysql",
            "SUITE_OUT": str(Path(name, "outcome.json")),
            "SUITE_LEDGER": str(Path(name, "ledger")),
            "SUITE_INSTRUMENT": "pymysql" if ours else "",
        }
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir=."),
                *("--import-mode=prepend", "-p", "outcomes", "-p", "no:randomly"),
                *(arguments or ["pymysql/tests"]),
            ],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            return Outcome(**json.loads(Path(environment["SUITE_OUT"]).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise RuntimeError(
                f"the suite did not run: {done.stdout[-3000:]}{done.stderr}"
            ) from None


def _make(server: Server) -> None:
    import pymysql

    connection = pymysql.connect(
        host=server.host, port=server.port, user=server.user, password=server.password
    )
    with connection, connection.cursor() as cursor:
        for database in DATABASES:
            cursor.execute(f"DROP DATABASE IF EXISTS {database}")
            cursor.execute(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")


def main(arguments: list[str]) -> int:
    """Compare and say what differs; 0 when nothing does."""
    if not arguments:
        print(__doc__)
        return 2
    source, *rest = arguments
    with backends.mariadb() as server:
        result = compare(Path(source), server, *rest)
    for label, outcome in (("bare", result.bare), ("ours", result.ours)):
        outcomes = list(outcome.found.values())
        counts = {kind: outcomes.count(kind) for kind in sorted(set(outcomes))}
        print(f"{label}: {counts}; {outcome.calls} calls recorded")
    print(f"our own errors, kept from the suite: {result.ours.swallowed or 'none'}")
    for test, (bare, ours) in result.differences.items():
        print(f"{test}: {bare} bare, {ours} under us")
    print(f"{len(result.differences)} differences")
    enough = list(result.ours.found.values()).count("passed") >= LEAST or bool(rest)
    return 0 if enough and not result.differences else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
