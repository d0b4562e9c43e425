"""The example of a third party's package: built, installed, recorded, settled and reported.

Nothing of costinsights knows of it: it is found by its entry points. CONTRIBUTING.md shows its
files as they are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "example_package"
SHOWN = ("__init__.py", "history.py", "prices.toml")
PROGRAM = """
import acmedb, costinsights

costinsights.instrument("acmedb")
connection = acmedb.connect("acme.db", user="etl")
cursor = connection.cursor()
with costinsights.attribute(asset="orders", team="growth"):
    cursor.execute("CREATE TABLE orders (id INTEGER, note TEXT)")
    cursor.execute("INSERT INTO orders VALUES (?, ?), (2, 'two')", (1, "hush"))
    assert cursor.execute("SELECT * FROM orders").fetchall() == [(1, "hush"), (2, "two")]
try:
    cursor.execute("SELECT * FROM nowhere")
except Exception as error:
    print(type(error).__name__)
hooked = acmedb.Cursor.execute
costinsights.uninstrument()
assert acmedb.Cursor.execute is hooked.__wrapped__
cursor.execute("SELECT count(*) FROM orders /* an analyst's */")
connection.close()
"""
CONFIG = """
ledger = "ledger"
price_books = ["installed/costinsights_acmedb/prices.toml"]

[settle.acmedb]
host = "acme.db"
password = "${ACME_PASSWORD}"

[[rule]]
name = "analysts"
match = { system = "acmedb", user = "etl" }
labels = { team = "analysts" }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place in which the built package is installed, beside its driver."""
    folder = tmp_path_factory.mktemp("example")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=PACKAGE,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    driver = PACKAGE / "src" / "acmedb.py"
    (folder / "installed" / driver.name).write_bytes(driver.read_bytes())
    (folder / "costinsights.toml").write_text(CONFIG)
    return folder


def run(folder: Path, *words: str, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder / "installed"), **variables}
    environment.pop("COSTINSIGHTS_LEDGER", None)
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**environment, "ACME_PASSWORD": "hunter2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


@pytest.mark.slow
def test_it_is_recorded_settled_and_reported(folder: Path) -> None:
    assert run(folder, "-c", PROGRAM, COSTINSIGHTS_STRICT="1") == "OperationalError\n"
    command = ("-m", "costinsights.cli")
    settled = json.loads(
        run(folder, *command, "settle", "acmedb", "--since", "1h", "--all", "--format", "json")
    )
    assert (settled["settled"], settled["found"]) == (3, {"id": 3})
    assert (settled["outside"], settled["added"], settled["unpriced"]) == (1, 1, {})
    assert settled["amounts"]["USD"]["charges"] == "0.036000000000000"
    assert settled["requests"] == 1
    again = json.loads(run(folder, *command, "settle", "acmedb", "--all", "--format", "json"))
    assert (again["settled"], again["added"], again["unchanged"]) == (0, 0, 4)
    report = json.loads(run(folder, *command, "report", "--by", "team", "--format", "json"))
    costs = {row["item"]: row["cost"] for row in report["rows"]}
    assert costs == {"growth": "0.036", "analysts": "0.012", None: None}
    entries = run(folder, *command, "ledger", "cat")
    assert "hush" not in entries
    assert "hunter2" not in entries
    assert "acmedb" in run(folder, *command, "doctor")
    assert json.loads(run(folder, *command, "prices", "missing", "--format", "json"))


def test_contributing_shows_its_files_as_they_are() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = PACKAGE / "src" / "costinsights_acmedb"
    for path in (PACKAGE / "pyproject.toml", *map(source.joinpath, SHOWN)):
        text = path.read_text(encoding="utf-8")
        assert text in page, f"{path.name} is not in CONTRIBUTING.md as it is"
