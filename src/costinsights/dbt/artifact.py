"""Writes ``costs.json`` beside dbt's ``run_results.json``; docs/dbt.md says what is in it.

It is read by who may read ``run_results.json``, and says less: CI hands both on.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from costinsights.dbt.results import FILE as RUN_RESULTS
from costinsights.report.money import exact

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from costinsights.dbt.adding import Costs, Figures, NodeCosts

FILE = "costs.json"
VERSION = 1
"""Counts up when a field changes its meaning or goes."""

_NANOSECONDS = 1e9


def as_json(costs: Costs) -> str:
    """Return the content of the file: amounts are decimal text, exact, and unknown ones absent."""
    return json.dumps(_document(costs), indent=1) + "\n"


def write(costs: Costs, target_path: str) -> str:
    """Write the file, whole or not at all, as open as ``run_results.json`` is; return its path.

    Raises:
        OSError: it cannot be written.
    """
    path = os.path.join(target_path, FILE)
    draft = f"{path}.{os.getpid()}"
    try:
        mode = stat.S_IMODE(os.stat(os.path.join(target_path, RUN_RESULTS)).st_mode)
    except OSError:
        mode = 0o600
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(as_json(costs))
            os.fchmod(fd, mode)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
    return path


def _document(costs: Costs) -> dict[str, object]:
    return {
        "version": VERSION,
        "invocation_id": costs.invocation_id,
        "command": costs.command,
        "target": costs.target,
        "project": costs.project,
        "branch": costs.branch,
        "commit": costs.commit,
        "started_at": costs.started_at,
        "finished_at": costs.finished_at,
        "elapsed_seconds": costs.elapsed_seconds,
        "totals": _amounts(costs.total.costs),
        "calls": costs.total.calls,
        "unpriced_calls": costs.total.unpriced_calls,
        "failed_calls": costs.total.failed_calls,
        "nodes": [_node(node) for node in costs.nodes],
        "other": _figures(costs.other),
    }


def _node(node: NodeCosts) -> dict[str, object]:
    return {
        "unique_id": node.unique_id,
        "name": node.name,
        "resource_type": node.resource_type,
        "materialized": node.materialized,
        "tags": list(node.tags),
        "owner": node.owner,
        "team": node.team,
        "status": node.status,
        **_figures(node.figures),
    }


def _figures(figures: Figures) -> dict[str, object]:
    return {
        "costs": _amounts(figures.costs),
        "failed_costs": _amounts(figures.failed_costs),
        "retried_costs": _amounts(figures.retried_costs),
        "calls": figures.calls,
        "unpriced_calls": figures.unpriced_calls,
        "failed_calls": figures.failed_calls,
        "duration_seconds": figures.duration_ns / _NANOSECONDS,
        "rows": figures.rows,
        "usage": dict(figures.usage),
        "bases": dict(figures.bases),
    }


def _amounts(costs: Mapping[str, Decimal]) -> list[dict[str, str | None]]:
    return [{"currency": name, "amount": exact(costs[name])} for name in sorted(costs)]
