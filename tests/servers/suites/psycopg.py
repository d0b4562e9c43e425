"""Runs a PostgreSQL driver's own test suite bare and under us, and tells every difference.

    python -m tests.servers.suites.psycopg DRIVER [DIRECTORY [pytest's arguments]]

`DIRECTORY` holds the suite, in a folder `tests`. psycopg's is in its repository only; those of
psycopg2 and asyncpg are fetched from PyPI, of the version that is installed, if none is given. A test
that came out differently is run again by itself, both ways, before it counts: each suite has some
that do not always pass.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests import backends, debian
from tests.processes import Unavailable
from tests.servers.suites.comparing import Comparison, Outcome, compared, read, tell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.backends import Server

# Apart from this file, whose name would hide the driver.
PLUGIN = Path(__file__).parent / "plugin"
# Tests of psycopg's that depend on the machine, or on tools beside the server.
LEFT_OUT = "slow flakey timing mypy proxy subprocess crdb".split()


@dataclass(frozen=True)
class Suite:
    """How the suite of a driver is run, and what may differ under us, with the reason."""

    driver: str
    imports: str
    least: int
    """Tests that must pass, so that a suite that does not run at all is not taken for a success."""
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    known: Mapping[str, str] = field(default_factory=dict[str, str])


SUITES = {
    "psycopg": Suite(
        "psycopg",
        "psycopg psycopg_pool",
        1_000,
        ("-m", " and ".join(f"not {mark}" for mark in LEFT_OUT)),
        {"PSYCOPG_IMPL": "python"},
    ),
    "psycopg2": Suite("psycopg2", "psycopg2", 700),
    "asyncpg": Suite(
        "asyncpg",
        "asyncpg",
        250,
        # These look at the driver's own source code, and at Kerberos.
        ("--ignore=tests/test__sourcecode.py", "--ignore=tests/test_connect.py"),
    ),
}


# On PyPI, and as it is installed.
DISTRIBUTIONS = {"psycopg2": ("psycopg2", "psycopg2-binary"), "asyncpg": ("asyncpg", "asyncpg")}


def compare(suite: Suite, source: Path, server: Server, *arguments: str) -> Comparison:
    """Run a suite both ways, and what differs again."""
    return compared(
        lambda chosen, ours: run(suite, source, server, chosen, ours=ours),
        arguments,
        known=suite.known,
    )


def run(
    suite: Suite, source: Path, server: Server, arguments: Sequence[str], *, ours: bool
) -> Outcome:
    """Run a suite once, on a copy of its own and in a database of its own."""
    with tempfile.TemporaryDirectory(prefix="suite-") as name:
        directory = Path(name, "suite")
        # The tests alone: the driver that is tested is the one that is installed.
        shutil.copytree(source / "tests", directory / "tests")
        database = "suite_ours" if ours else "suite_bare"
        _make(server, database)
        environment = {
            **os.environ,
            **suite.environment,
            "PYTHONPATH": str(PLUGIN),
            "SUITE_IMPORTS": suite.imports,
            "SUITE_OUT": str(Path(name, "outcome.json")),
            "SUITE_LEDGER": str(Path(name, "ledger")),
            "SUITE_INSTRUMENT": suite.driver if ours else "",
            "PGHOST": server.host,
            "PGPORT": str(server.port),
            "PGUSER": server.user,
            "PGPASSWORD": server.password,
            "PGDATABASE": database,
            "PSYCOPG2_TESTDB": database,
            "PSYCOPG_TEST_DSN": f"host={server.host} port={server.port} user={server.user}"
            f" password={server.password} dbname={database}",
        }
        chosen = [argument for argument in arguments if argument.startswith("tests")]
        rest = [argument for argument in arguments if argument not in chosen]
        done = subprocess.run(
            [
                *(sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-m", "pytest"),
                *("-q", "-c", os.devnull, "--rootdir=.", "--import-mode=prepend"),
                *("-p", "outcomes", "-p", "no:randomly"),
                *suite.arguments,
                *rest,
                *(chosen or ["tests"]),
            ],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return read(Path(environment["SUITE_OUT"]), done)


def download(driver: str, target: Path) -> Path:
    """Fetch a driver's source distribution, of the installed version; return where its tests are.

    Raises `Unavailable` where PyPI cannot be reached, or the distribution has no tests.
    """
    if driver not in DISTRIBUTIONS:
        raise Unavailable(f"{driver}'s tests are in its repository only")
    name, installed = DISTRIBUTIONS[driver]
    # psycopg2 asks for PostgreSQL's headers before it says what it is called.
    fake = target / "bin" / "pg_config"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 15\n", encoding="utf-8")
    fake.chmod(0o755)
    venv.create(target / "venv", with_pip=True)
    path = f"{fake.parent}{os.pathsep}{debian.ENVIRONMENT.get('PATH', os.defpath)}"
    done = subprocess.run(
        [
            *(target / "venv" / "bin" / "python", "-m", "pip", "download", "--quiet", "--no-deps"),
            *("--no-binary", ":all:", "--dest", target, f"{name}=={version(installed)}"),
        ],
        env={**debian.ENVIRONMENT, "PATH": path},  # tests themselves have no way to the network
        capture_output=True,
        text=True,
        check=False,
    )
    archive = next(target.glob("*.tar.gz"), None)
    if archive is None:
        raise Unavailable(f"pip download: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
    shutil.unpack_archive(archive, target, filter="data")
    tests = next(target.glob("*/tests"), None)
    if tests is None:
        raise Unavailable(f"{archive.name} has no tests")
    return tests.parent


def _make(server: Server, database: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        name = sql.Identifier(database)
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))


def main(arguments: list[str]) -> int:
    """Compare and say what differs; 0 when nothing does."""
    if not arguments or arguments[0] not in SUITES:
        print(__doc__)
        return 2
    name, *rest = arguments
    with backends.postgres() as server, tempfile.TemporaryDirectory(prefix="sdist-") as scratch:
        source = Path(rest.pop(0)) if rest else download(name, Path(scratch))
        result = compare(SUITES[name], source, server, *rest)
    return tell(result, 0 if rest else SUITES[name].least)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
