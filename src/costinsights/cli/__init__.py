"""The command ``costinsights``.

This module needs nothing beyond the bare package, so that one without the ``cli`` extra can say
what is missing.
"""

from __future__ import annotations

import sys
from importlib import import_module


def main() -> None:
    """Run the command line; without the ``cli`` extra, say how to get it and exit with 2."""
    try:
        import_module("rich")  # some command needs it: better said now than in the middle
        from costinsights.cli.app import cli
        from costinsights.guard import suppressed
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        sys.stderr.write(
            f"costinsights: the command line needs {error.name!r}, which is not installed: "
            "run  pip install 'costinsights[cli]'\n"
        )
        sys.exit(2)
    # What we ask of our own ledger is nobody's cost, also under ``opentelemetry-instrument``.
    with suppressed():
        cli(prog_name="costinsights")
