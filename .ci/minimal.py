"""What the bare package does without any extra: run by an interpreter that has nothing else.

It imports, it records what sqlite3 costs, and where something is missing it names the pip command.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

# What the bare package may bring along (tomli for Python 3.10), and a name for each missing driver.
ALLOWED = {"costinsights", "msgspec", "wrapt", "tomli"}
WITHOUT_DRIVER = {"sqlite3"}


def main() -> None:
    """Check one thing after the other; the first that is not so ends it."""
    with tempfile.TemporaryDirectory() as home:
        # Nothing of this machine's configuration, and nothing left behind on it.
        for name in [name for name in os.environ if name.startswith(("COSTINSIGHTS_", "OTEL_"))]:
            del os.environ[name]
        os.environ.update(HOME=home, XDG_STATE_HOME=home, XDG_DATA_HOME=home)
        os.chdir(home)
        nothing_else_is_installed()
        missing_drivers_name_the_pip_command()
        sqlite_is_recorded(Path(home, "ledger"))
        the_command_line_names_the_pip_command()
    print(f"the bare package is well on Python {sys.version.split()[0]}")


def nothing_else_is_installed() -> None:
    """No extra's library came along."""
    installed = {distribution.name for distribution in metadata.distributions()}
    assert installed <= ALLOWED, f"installed besides: {sorted(installed - ALLOWED)}"


def missing_drivers_name_the_pip_command() -> None:
    """Asked for by name, a plug-in without its driver raises; asked for all, nothing does."""
    import costinsights

    for plugin in metadata.entry_points(group="costinsights_instrumentor"):
        if plugin.name in WITHOUT_DRIVER:
            continue
        try:
            costinsights.instrument(plugin.name)
        except costinsights.NotEnabled as error:
            assert f"pip install 'costinsights[{plugin.name}]'" in str(error), error
        else:
            raise AssertionError(f"instrument({plugin.name!r}) worked without its driver")
    costinsights.instrument()
    costinsights.uninstrument()


def sqlite_is_recorded(ledger: Path) -> None:
    """A statement on the standard library's driver is in the ledger when the call has returned."""
    import costinsights

    costinsights.instrument("sqlite3", ledger=str(ledger))
    with costinsights.attribute(asset="orders"):
        connection = sqlite3.connect(":memory:")
        assert connection.execute("SELECT 1 + 1").fetchall() == [(2,)]
        connection.close()
    lines = [
        json.loads(line)
        for segment in sorted(ledger.rglob("*.jsonl"))
        for line in segment.read_text().splitlines()
    ]
    assert "orders" in json.dumps(lines), f"not in the ledger: {lines}"
    costinsights.uninstrument()


def the_command_line_names_the_pip_command() -> None:
    """`costinsights` without the libraries of its command line says what to install."""
    command = Path(sys.executable).with_name("costinsights")
    done = subprocess.run([command, "report"], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 2, f"exit code {done.returncode}: {said}"
    assert "pip install 'costinsights[cli]'" in said, said
    assert "Traceback" not in said, said


if __name__ == "__main__":
    main()
