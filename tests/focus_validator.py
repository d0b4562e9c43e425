"""FOCUS's own validator, 2.2.1, in an environment of its own.

It wants Python 3.12 and an older NumPy than ours (`tests.environments`). Its exit code says nothing,
and it looks for its list of currencies below the working directory; what counts is its JUnit report.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.debian import ENVIRONMENT
from tests.environments import environment
from tests.processes import Unavailable

PYTHONS = ("3.12", "3.13")
RUN_SECONDS = 300

NOT_INVOICED = {"InvoiceId-C-005-C"}
"""What fails in a file of which nothing is on an invoice: one arm of an OR, which passes as a whole."""
PARTLY_INVOICED = {*NOT_INVOICED, "InvoiceId-C-004-C", "InvoiceId-C-003-C", "InvoiceId-C-000-O"}
"""What fails where some rows are on an invoice and some are not, as FOCUS says they may be: the
validator looks whether the whole column is NULL, or none of it, and not at one row after another."""


def failures(path: Path, *criteria: str) -> set[str]:
    """Return the rules of FOCUS 1.2 that a Parquet file fails; raises `Unavailable`.

    `criteria` are those of the provider that apply, beside what holds for everybody.
    """
    place = installed()
    (packages,) = place.glob("lib/python*/site-packages")
    report = path.with_suffix(".report.xml")
    command: list[str | Path] = [
        *(place / "bin" / "focus-validator", "--data-file", path.resolve()),
        *("--validate-version", "1.2", "--block-download"),
        *("--output-type", "unittest", "--output-destination", report.resolve()),
    ]
    if criteria:
        command += ["--applicability-criteria", ",".join(criteria)]
    done = subprocess.run(
        command,
        cwd=packages,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert report.exists(), done.stdout[-3000:]
    suites = ET.parse(report).getroot()
    found = {case.get("name", "") for case in suites.iter("failure")}
    assert int(suites.get("failures", "-1")) == len(found), sorted(found)
    assert int(suites.get("tests", "0")) > 500, suites.attrib
    return found


def installed() -> Path:
    """Return the directory of the validator's environment; raises `Unavailable` without one."""
    return environment("focus_validator", interpreter())


def interpreter() -> str:
    """Return a Python that the validator runs on; raises `Unavailable` without one."""
    if sys.version_info[:2] in {tuple(map(int, each.split("."))) for each in PYTHONS}:
        return sys.executable
    pyenv = Path(ENVIRONMENT.get("PYENV_ROOT") or Path(ENVIRONMENT.get("HOME", "/")) / ".pyenv")
    for version in PYTHONS:
        candidates = [*sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python")))]
        candidates += filter(None, [shutil.which(f"python{version}")])
        for candidate in candidates:
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            done = subprocess.run(
                [candidate, "-c", code], capture_output=True, text=True, check=False
            )
            if done.stdout.strip() == version:
                return candidate
    raise Unavailable(f"FOCUS's validator needs Python {' or '.join(PYTHONS)}")
