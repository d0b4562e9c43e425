"""What holds the project together: the lock, the extras, and the line that sums up a CI run."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from pathlib import Path

LOCKS = ("dbt", "dev", "mysqlclient", "uv")


@pytest.fixture
def root(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.rootpath


@pytest.fixture
def project(root: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return table


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_place(root: Path, name: str) -> None:
    text = (root / "requirements" / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9.-]+==[0-9][\w.]* ", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert "://" not in text
    assert not re.search(r"^ *-+(index|extra|find|trusted|i|f)\b", text, flags=re.MULTILINE)


def test_the_lock_holds_what_the_project_asks_for(root: Path) -> None:
    asked = tomllib.loads((root / "pyproject.toml").read_text())
    groups = asked["dependency-groups"]
    wanted = [
        line
        for name in ("dev", "drivers", "peers", "servers")
        for line in groups[name]
        if isinstance(line, str)
    ]
    wanted += asked["project"]["dependencies"]
    lock = (root / "requirements" / "dev.txt").read_text()
    locked = set(re.findall(r"^([a-z0-9.-]+)==", lock, flags=re.MULTILINE))
    names = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in wanted}
    names = {re.sub(r"[-_.]+", "-", name) for name in names}  # as PyPI and the lock have them
    assert names <= locked, "run make lock"


def test_every_plug_in_has_an_extra_and_all_has_every_extra(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    plugins = project["entry-points"]["costinsights_instrumentor"]
    assert plugins.keys() <= extras.keys()
    (everything,) = extras["all"]
    named = re.fullmatch(r"costinsights\[(.*)\]", everything)
    assert named is not None
    # mysqlclient has to be compiled, and nobody's install of "all" may fail for that; pyspark comes
    # with the cluster, and is 400 MB; aiobotocore holds boto3 back; who has Dagster, has chosen it.
    left_out = {"aiobotocore", "dagster", "mysqlclient", "pyspark"}
    assert set(named[1].split(",")) == extras.keys() - {"all", *left_out}
    # OpenTelemetry's loader takes such extras for what all plug-ins need.
    assert not [extra for extra in extras if "instruments" in extra]


@pytest.mark.parametrize(
    ("steps", "suite", "closing", "code"),
    [
        ("passed\t3\tlint\n", "", "1 passed, 0 failed, 0 skipped", 0),
        ("passed\t3\tlint\nfailed\t1\ttypes\n", "", "1 passed, 1 failed, 0 skipped", 1),
        (
            "failed\t9\ttests\n",
            '<testsuite tests="9" failures="2" errors="1" skipped="1"/>',
            "5 passed, 4 failed, 1 skipped",
            1,
        ),
        ("skipped\t0\tPython 3.10\n", "", "0 passed, 0 failed, 1 skipped", 1),
    ],
    ids=["all well", "a step failed", "tests failed", "nothing ran"],
)
def test_a_ci_run_closes_with_what_passed_and_failed(
    root: Path, tmp_path: Path, steps: str, suite: str, closing: str, code: int
) -> None:
    (tmp_path / "steps").write_text(steps)
    if suite:
        (tmp_path / "tests.xml").write_text(f"<testsuites>{suite}</testsuites>")
    done = subprocess.run(
        [sys.executable, root / ".ci" / "summary.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == closing
    assert done.returncode == code
