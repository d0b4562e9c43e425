"""A server of the tests' in a process of its own.

In ours it would take turns with the caller for the interpreter: whoever lets go of that while it
writes a file would wait for the server's thread, and no program of a user's has such a one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator


@contextmanager
def elsewhere(opening: str, *args: str) -> Generator[Any]:
    """Run ``module:function`` there, a context manager that gives a dict; have that as attributes.

    Raises:
        ImportError: there is no such server here; what went wrong is on standard error.
    """
    command = [sys.executable, "-m", "benchmarks.elsewhere", opening, *args]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            said = server.stdout.readline()
            if not said:
                raise ImportError(f"{opening} did not start")
            yield SimpleNamespace(**json.loads(said))
        finally:
            server.communicate()


def main(opening: str, *args: str) -> None:
    """Serve until standard input is closed."""
    module, _, function = opening.partition(":")
    with getattr(import_module(module), function)(*args) as facts:
        sys.stdout.write(f"{json.dumps(facts)}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
