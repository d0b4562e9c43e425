"""What is done when a command of dbt's has ended: ``costs.json``, and the table on the console."""

from __future__ import annotations

import os
import shutil
import sys
from sys import modules
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights import runtime
from costinsights.dbt import invocations
from costinsights.guard import say

if TYPE_CHECKING:
    from costinsights.config import Config
    from costinsights.dbt.adding import Costs


class _Leaves(NamedTuple):
    """What a command leaves behind."""

    table: bool
    costs: bool


# A command whose output is its result gets no table, one that writes no run_results.json no costs
# beside it.
_COMMANDS = {
    "build": _Leaves(table=True, costs=True),
    "clone": _Leaves(table=True, costs=True),
    "retry": _Leaves(table=True, costs=True),
    "run": _Leaves(table=True, costs=True),
    "run-operation": _Leaves(table=False, costs=True),
    "seed": _Leaves(table=True, costs=True),
    "snapshot": _Leaves(table=True, costs=True),
    "source freshness": _Leaves(table=True, costs=False),
    "test": _Leaves(table=True, costs=True),
}
_TEXT_FORMATS = ("default", "text", "debug")
_TEXT_LEVELS = ("debug", "info")


def end(config: Config, elapsed_seconds: float) -> None:
    """Leave behind what the invocation that has just ended cost, as far as that is wanted."""
    invocation = invocations.leave()
    active = runtime.active()
    if invocation is None or active is None:
        return
    leaves = _COMMANDS.get(invocation.command)
    if leaves is None:
        return
    flags: Any = modules["dbt.flags"].get_flags()
    wanted = _Leaves(
        table=leaves.table and config.dbt.get("table", True) and _shows_text(flags),
        costs=leaves.costs and config.dbt.get("costs", True) and _flag(flags, "WRITE_JSON", True),
    )
    if not any(wanted):
        return
    from costinsights.dbt.asking import of_this_process

    costs = of_this_process(active, invocation, elapsed_seconds)
    if not costs.total.calls:
        return
    if wanted.costs and invocation.target_path is not None:
        _write(costs, invocation.target_path)
    if wanted.table:
        _show(costs, in_colour=_flag(flags, "USE_COLORS", True))


def _write(costs: Costs, target_path: str) -> None:
    from costinsights.dbt.artifact import FILE, write

    try:
        write(costs, target_path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        say(f"costinsights: {FILE} was not written into {target_path}: {why}")


def _show(costs: Costs, *, in_colour: bool) -> None:
    from costinsights.dbt.table import table, text

    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    # dbt colours what it writes into a pipe as well; we do not.
    plain = not in_colour or not terminal or bool(os.environ.get("NO_COLOR"))
    written = text(table(costs, width), in_colour=not plain)
    try:
        sys.stdout.write(written)
        sys.stdout.flush()
    except UnicodeEncodeError:  # the console's encoding has no lines and no dash
        encoding = sys.stdout.encoding or "ascii"
        sys.stdout.write(written.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except OSError:
        return  # nobody reads it any more


def _shows_text(flags: Any) -> bool:
    return (
        _flag(flags, "LOG_FORMAT", "default") in _TEXT_FORMATS
        and _flag(flags, "LOG_LEVEL", "info") in _TEXT_LEVELS
        and not _flag(flags, "QUIET", False)
    )


def _flag(flags: Any, name: str, otherwise: Any) -> Any:
    return getattr(flags, name, otherwise)
