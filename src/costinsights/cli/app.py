"""The commands, each loaded when it is used: ``costinsights run`` must not pay for the report."""

from __future__ import annotations

from importlib import import_module
from typing import cast

import click

from costinsights import __version__

# In the order in which ``--help`` lists them.
_COMMANDS = {
    "run": "costinsights.cli.run:run",
    "report": "costinsights.cli.report:report",
    "diff": "costinsights.cli.diff:diff",
    "bill": "costinsights.cli.bill:bill",
    "explain": "costinsights.cli.explain:explain",
    "demo": "costinsights.cli.demo:demo",
    "doctor": "costinsights.cli.doctor:doctor",
    "export": "costinsights.cli.export:export",
    "jobs": "costinsights.cli.jobs:jobs",
    "ledger": "costinsights.cli.ledger:ledger",
    "prices": "costinsights.cli.prices:prices",
    "pull": "costinsights.cli.pull:pull",
    "settle": "costinsights.cli.settle:settle",
    "storage": "costinsights.cli.storage:storage",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        return cast("click.Command", getattr(import_module(module), attribute))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 good, 1 it did not work, 2 usage, 3 a limit was exceeded.",
)
@click.version_option(__version__, prog_name="costinsights")
def cli() -> None:
    """See what every statement of your data programs costs.

    \b
      costinsights demo                      a small pipeline, measured; then its report
      costinsights run -- python app.py      measure a program without changing it
      costinsights report --by team          what it cost, and for whom
    """  # noqa: D301  \b is click's mark for a block that keeps its lines
