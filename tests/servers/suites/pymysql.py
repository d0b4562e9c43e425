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
from tests.servers.suites.comparing import Comparison, Outcome, compared, read, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.backends import Server

PLUGIN = Path(__file__).parent / "plugin"
LEAST = 100
# What the suite asks for, and the server's account may make.
DATABASES = ("test1", "test2")


def compare(source: Path, server: Server, *arguments: str) -> Comparison:
    """Run the suite both ways, and what differs again."""
    return compared(lambda chosen, ours: run(source, server, chosen, ours=ours), arguments)


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
        return read(Path(environment["SUITE_OUT"]), done)


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
    return tell(result, 0 if rest else LEAST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
