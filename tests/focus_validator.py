"""FOCUS's own validator, 2.2.1, in an environment of its own.

It wants Python 3.12 and an older NumPy than ours, so it is installed apart: once, in the cache
directory, from ``requirements/focus_validator.txt`` with its hashes. Its exit code says nothing, and
it looks for its list of currencies below the working directory (billing.md 13.3); what counts is the
JUnit report.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.debian import CACHE, ENVIRONMENT
from tests.processes import Unavailable

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "focus_validator.txt"
UV = ROOT / ".cache" / "bootstrap" / "bin" / "uv"
PYTHONS = ("3.12", "3.13")
INSTALL_SECONDS = 400
RUN_SECONDS = 300

FALSE_ALARMS = {
    "InvoiceId-C-004-C": "one arm of an OR, whose other arm and whole pass",
    "InvoiceId-C-005-C": "the other arm",
}
"""Rules that fail for files that are right, and why (billing.md 13.3)."""


def failures(path: Path, *criteria: str) -> set[str]:
    """Return the rules of FOCUS 1.2 that a Parquet file fails; raises `Unavailable`.

    `criteria` are those of the provider that apply, beside what holds for everybody.
    """
    environment = installed()
    (packages,) = environment.glob("lib/python*/site-packages")
    report = path.with_suffix(".report.xml")
    command: list[str | Path] = [
        *(environment / "bin" / "focus-validator", "--data-file", path.resolve()),
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
    python = interpreter()
    name = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    target = CACHE / f"focus-validator-{name}"
    if (target / ".made").exists():
        return target
    if not UV.exists():
        raise Unavailable(f"{UV.relative_to(ROOT)} is not here: make install")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "focus-validator.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test sessions, one environment
        if not (target / ".made").exists():
            _uv("venv", "--quiet", "--clear", "--python", python, str(target))
            within = ("--python", str(target / "bin" / "python"))
            _uv("pip", "sync", "--quiet", *within, "--require-hashes", str(LOCK))
            (target / ".made").touch()
    return target


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


def _uv(*command: str) -> None:
    # What the machine's owner set up for uv, which conftest.py keeps from tests.
    environment = {**ENVIRONMENT, "UV_PYTHON_DOWNLOADS": "never"}
    try:
        done = subprocess.run(
            [UV, *command],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} took longer than {INSTALL_SECONDS} s") from None
    if done.returncode:
        raise Unavailable(f"uv {' '.join(command[:2])}: {done.stderr[-500:]}")
