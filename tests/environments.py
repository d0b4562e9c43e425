"""Environments of their own, for what agrees with nothing else that is locked: dbt, orchestrators.

Each is installed once, in the cache directory, from ``requirements/<name>.txt`` with its hashes, by
the uv that ``make`` runs on; ``python -m tests.environments dagster`` says where. The package that
is tested is lent to it (`lent`).
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import costinsights
import costinsights_exporters
import costinsights_instrumentors
from tests.debian import CACHE, ENVIRONMENT
from tests.processes import Unavailable

ROOT = Path(__file__).parents[1]
UV = ROOT / ".cache" / "bootstrap" / "bin" / "uv"
INSTALL_SECONDS = 900  # Dagster's integrations are 1.7 GB


def environment(name: str, python: str = sys.executable) -> Path:
    """The directory of an environment; raises `Unavailable` where it cannot be had."""
    locked = ROOT / "requirements" / f"{name}.txt"
    if not UV.exists():
        raise Unavailable(f"{UV.relative_to(ROOT)} is not here: make install")
    digest = hashlib.sha256(locked.read_bytes() + python.encode()).hexdigest()[:12]
    target = CACHE / f"{name}-{digest}"
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two test sessions, one environment
            if not (target / ".made").exists():
                _uv(name, "venv", "--clear", "--python", python, target)
                within = ("--python", target / "bin" / "python")
                _uv(name, "pip", "sync", *within, "--require-hashes", locked)
                (target / ".made").touch()
    except OSError as error:
        raise Unavailable(f"cannot make an environment in {CACHE}: {error}") from error
    return target


def _uv(name: str, *words: str | Path) -> None:
    try:
        done = subprocess.run(
            [UV, *words, "--quiet"],
            # What the machine's owner set up for uv, which conftest.py keeps from tests.
            env={**ENVIRONMENT, "UV_PYTHON_DOWNLOADS": "never"},
            capture_output=True,
            check=False,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{name} was not installed within {INSTALL_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise Unavailable(f"{name} cannot be installed: {said[0]}")


def lent(folder: Path) -> Path:
    """Return a folder with this package as it is installed, and nothing of what is beside it."""
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    for package in (costinsights, costinsights_instrumentors, costinsights_exporters):
        source = Path(package.__file__ or "").parent
        (folder / source.name).symlink_to(source)
    files = distribution("costinsights").files or ()
    points = next(path for path in files if path.name == "entry_points.txt").locate()
    metadata = Path(str(points)).parent
    shutil.copytree(metadata, folder / metadata.name)
    return folder


if __name__ == "__main__":  # make types: where the environments named are
    try:
        print(*map(environment, sys.argv[1:]))
    except Unavailable as error:
        sys.exit(str(error))
