"""The functions that Dagster calls, with annotations that it can read.

Dagster takes a context's annotation for the class itself, so this module alone of ours does without
``from __future__ import annotations``.
"""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

Said = dg.MaterializeResult[Any] | dg.AssetCheckResult


def of_asset(
    work: Callable[[dg.AssetExecutionContext], Iterator[Said]],
) -> Callable[[dg.AssetExecutionContext], Iterator[Said]]:
    """Return `work` as Dagster wants the function of an asset."""

    def run(context: dg.AssetExecutionContext) -> Iterator[Said]:
        yield from work(context)

    return run


def of_check(
    work: Callable[[dg.AssetCheckExecutionContext], dg.AssetCheckResult],
) -> Callable[[dg.AssetCheckExecutionContext], dg.AssetCheckResult]:
    """Return `work` as Dagster wants the function of an asset check."""

    def run(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return work(context)

    return run
