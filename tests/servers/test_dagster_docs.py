"""The pages on Dagster run as they stand: a page is a program, in Dagster's own environment.

Its ```toml``` block is the configuration, its ```python``` blocks come one after the other, and the
servers that it wants are named to it by environment variables.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.backends import unavailable
from tests.environments import environment, lent
from tests.processes import Unavailable
from tests.servers.aws_glue import Glue
from tests.servers.aws_server import aws_server
from tests.servers.cost_explorer_server import CostExplorer
from tests.unit.test_docs import BLOCK, PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager

    from tests.backends import Server

    Servers = Callable[[pytest.FixtureRequest], AbstractContextManager[dict[str, str]]]


@contextmanager
def nothing(request: pytest.FixtureRequest) -> Generator[dict[str, str]]:
    yield {}


@contextmanager
def postgresql(request: pytest.FixtureRequest) -> Generator[dict[str, str]]:
    server: Server = request.getfixturevalue("postgres")
    yield {
        "POSTGRES_HOST": server.host,
        "POSTGRES_PORT": str(server.port),
        "POSTGRES_USER": server.user,
        "POSTGRES_PASSWORD": server.password,
    }


@contextmanager
def glue(request: pytest.FixtureRequest) -> Generator[dict[str, str]]:
    with aws_server() as server:
        jobs = Glue(server)
        jobs.job("my_job")
        jobs.seed("my_job", questions=0)  # it has ended when somebody asks
        yield {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        jobs.close()


@contextmanager
def cost_explorer(request: pytest.FixtureRequest) -> Generator[dict[str, str]]:
    with aws_server() as server:
        bill = CostExplorer(server)
        yesterday = datetime.now(timezone.utc) - timedelta(days=1)
        for bucket, amount in (("my-bucket", "3.25"), ("another", "8")):
            tags = {"bucket": bucket}
            bill.add(f"{yesterday:%Y-%m-%d}", "TimedStorage-ByteHrs", amount, tags=tags)
        yield {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        bill.close()


@contextmanager
def focus(request: pytest.FixtureRequest) -> Generator[dict[str, str]]:
    yield {"FOCUS_FILES": str(Path(__file__).parents[1] / "data")}


SERVERS: dict[str, Servers] = {
    "glue.md": glue,
    "postgresql.md": postgresql,
    "s3.md": cost_explorer,
    "scheduled.md": focus,
}


@pytest.mark.parametrize("page", PROGRAMS, ids=lambda page: page.name)
def test_every_block_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    try:
        interpreter = environment("dagster") / "bin" / "python"
    except Unavailable as error:
        unavailable("dagster", error)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    for language, text in blocks:
        if language == "toml" and text.startswith("# costinsights.toml"):
            (home / "costinsights.toml").write_text(text, encoding="utf-8")
    program = home / "page.py"
    program.write_text("\n".join(text for language, text in blocks if language == "python"))
    variables = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with SERVERS.get(page.name, nothing)(request) as servers:
        done = subprocess.run(
            [interpreter, program],
            cwd=home,
            env={
                **variables,
                "COSTINSIGHTS_LEDGER": str(tmp_path / "ledger"),
                "COSTINSIGHTS_STRICT": "1",
                "DAGSTER_HOME": str(home),
                "HOME": str(home),
                "PYTHONPATH": str(lent(tmp_path / "packages")),
                **servers,
            },
            capture_output=True,
            check=False,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    for name, value in servers.items():
        if "PASSWORD" in name:
            assert value not in done.stdout + done.stderr
    # A page that shows costs in Dagster has shown them, and nothing was kept from the program.
    assert not re.search(r"costinsights: .* was kept from the program", done.stderr)
