"""Asks the ledger what an invocation of dbt's cost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from costinsights import runtime
from costinsights.dbt import invocations
from costinsights.dbt.adding import INVOCATION, Costs, add
from costinsights.dbt.results import read
from costinsights.ledger.reader import SegmentReader, read_ledger, segments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from costinsights.dbt.invocations import Invocation
    from costinsights.records import Charge
    from costinsights.runtime import Runtime

TARGET = "target"
_MANIFEST = os.path.join("parquet", "manifest.json")


def costs(
    invocation_id: str | None = None,
    target_path: str | os.PathLike[str] | None = None,
    ledger: str | os.PathLike[str] | None = None,
) -> Costs:
    """Return what an invocation of dbt's cost, as far as the ledger knows it now.

    Args:
        invocation_id: Which one. Default: the last one of this process, if it had one and no
            `target_path` is given, else that of ``run_results.json``.
        target_path: The folder of ``run_results.json``, which says what became of each node.
            Default: that of this process's invocation, else ``target``.
        ledger: The ledger's folder. Default: that in use, else that of the configuration.

    Raises:
        LookupError: no invocation is given, and none is known.
        LedgerError: the ledger is damaged or of a newer version.
        ImportError: the ledger has been compacted, which only DuckDB can read.
    """
    last = invocations.present()
    if target_path is not None:
        folder = os.fspath(target_path)
    else:
        folder = TARGET if last is None or last.target_path is None else last.target_path
    results = read(folder)
    if invocation_id is None and last is not None and target_path is None:
        invocation_id = last.id
    if invocation_id is None and results is not None:
        invocation_id = results.metadata.invocation_id
    if invocation_id is None:
        raise LookupError(
            f"no dbt has run in this process, and there is no run_results.json in {folder}: "
            "name the invocation, or the folder with target_path"
        )
    active = runtime.active()
    if active is not None:
        active.add_up()
    return add(_charges(_ledger(active, ledger), invocation_id), invocation_id, results)


def of_this_process(
    active: Runtime, invocation: Invocation, elapsed_seconds: float | None = None
) -> Costs:
    """Return what this process's invocation cost, from the entries that it has written itself."""
    active.add_up()
    results = None if invocation.target_path is None else read(invocation.target_path)
    return add(_written_by(active), invocation.id, results, elapsed_seconds)


def _written_by(active: Runtime) -> Iterator[Charge]:
    own = f"{active.process}-"
    for path in segments(active.config.ledger):
        if os.path.basename(path).startswith(own):
            yield from SegmentReader(path).read()


def _ledger(active: Runtime | None, given: str | os.PathLike[str] | None) -> str:
    if given is not None:
        return os.fspath(given)
    if active is not None:
        return active.config.ledger
    from costinsights import config

    return config.load().ledger


def _charges(ledger: str, invocation_id: str) -> Iterator[Charge]:
    if not os.path.exists(os.path.join(ledger, _MANIFEST)):
        yield from read_ledger(ledger)
        return
    from costinsights.ledger.live import literal
    from costinsights.ledger.store import open_store

    label = f"json_extract_string(labels, '$.\"{INVOCATION}\"')"
    with open_store(ledger) as store:
        yield from store.charges(f"{label} = {literal(invocation_id)}")
