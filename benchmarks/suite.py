"""All benchmarks by name, in the order of the README's table, each in an interpreter of its own.

One that is over leaves nothing behind for the next: no patched class, no thread, no warm cache.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from importlib import import_module
from os import environ
from typing import TYPE_CHECKING

import msgspec

from benchmarks.drivers import NAMES, SERVER, WAREHOUSES, pack
from benchmarks.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Generator

# The module whose `measure` it is; a driver's name stands for that driver's overhead.
BENCHMARKS = {
    **dict.fromkeys(NAMES, "overhead"),
    **dict.fromkeys(WAREHOUSES, "overhead"),
    "jobs": "jobs",
    "storage": "storage",
    "texts": "texts",
    "off": "off",
    "server": "server_side",
    "export": "export",
    "startup": "startup",
    "memory": "memory",
    "report": "scale",
    "bills": "bills",
}


def run(name: str, *, quick: bool) -> Outcome:
    """Run a benchmark in an interpreter of its own.

    Raises:
        subprocess.CalledProcessError: it failed; its traceback is on standard error.
    """
    command = [sys.executable, "-m", "benchmarks.suite", name, *(["--quick"] if quick else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Outcome)


def measure(name: str, *, quick: bool) -> Outcome:
    """Run a benchmark here. One that needs a server or a driver that cannot be had is skipped."""
    from tests.processes import Unavailable

    try:
        if BENCHMARKS[name] == "overhead":
            from benchmarks import overhead

            return overhead.measure(name, quick=quick)
        outcome: Outcome = import_module(f"benchmarks.{BENCHMARKS[name]}").measure(quick=quick)
        return outcome
    except (Unavailable, ImportError) as error:
        return Outcome(skipped=str(error))


@contextmanager
def servers() -> Generator[None]:
    """Start the servers once for all benchmarks within; one that cannot be had is left to them."""
    from tests import backends
    from tests.processes import Unavailable

    ways = {"psycopg": backends.postgres, "pymysql": backends.mariadb}
    with ExitStack() as stack:
        for name, start in ways.items():
            if SERVER + name in environ:
                continue
            try:
                environ[SERVER + name] = pack(stack.enter_context(start()))
            except Unavailable:
                continue
            stack.callback(environ.pop, SERVER + name)
        yield


if __name__ == "__main__":
    found = measure(sys.argv[1], quick="--quick" in sys.argv)
    sys.stdout.write(f"\n{msgspec.json.encode(found).decode()}\n")
