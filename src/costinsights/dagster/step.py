"""A step of a run that is under way in this process: what it makes, and what it has told."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING
from weakref import ref

from costinsights.dagster.figures import Figures
from costinsights.dagster.tail import Budget
from costinsights.dagster.targets import Facts, Target, share_out, targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dagster import DagsterInstance, OpExecutionContext

    from costinsights.dagster.metadata import Told
    from costinsights.dagster.places import Hold
    from costinsights.dagster.tail import Tail
    from costinsights.dagster.targets import Who

DBT_NODE = "dagster_dbt/unique_id"
"""Where dagster-dbt says, in the metadata of its specs, which node an asset or a check is."""
TAIL_SECONDS = 0.003
"""For so much CPU the run's own thread reads the ledger."""


class Step:
    """What this process knows of one step, over all its attempts here."""

    def __init__(self, work: OpExecutionContext, facts: Facts) -> None:
        self.instance: DagsterInstance = work.instance
        self.facts = facts
        self.work = ref(work)
        self.attempt = facts.attempt
        self.since = time()
        self.alone = facts.attempt == 1
        """All that was ever told of the step was told by this process."""
        self.told: dict[Target, Figures] = {}
        """By events of the run itself."""
        self.observed: dict[Target, Figures] = {}
        """By us, when an attempt was over."""
        self.hold: Hold | None = None
        self.check = ""

    def again(self, work: OpExecutionContext, attempt: int) -> None:
        """Note the next attempt."""
        self.alone &= attempt == self.attempt + 1
        self.work = ref(work)
        self.attempt = attempt

    def note(self, target: Target, told: Told) -> None:
        """Note what an event of the step's has told."""
        self.told.setdefault(target, Figures()).merge(told.figures)

    def spent(
        self, tail: Tail, attempts: int, exists: Callable[[str], bool]
    ) -> dict[Target, tuple[Figures, int]]:
        """Return what the step has cost in its first `attempts`, by where it is to be told."""
        facts = self.facts
        return share_out(
            (figures, targets(one, facts, exists))
            for one, figures in tail.of(facts.run, facts.step).items()
            if _attempt(one) <= attempts
        )

    def spent_on(self, asset: str, tail: Tail) -> tuple[Figures, dict[str, Figures], int]:
        """Return what this attempt has cost for an asset.

        First what each of the partitions has alike, then what some have in its place, and of how
        many shares these are one.
        """
        facts = self.facts
        own = facts.assets[asset]
        alike, apart, split = Figures(), dict[str, Figures](), 1
        for one, figures in tail.of(facts.run, facts.step).items():
            if _attempt(one) != self.attempt:
                continue
            places = targets(one, facts, _nobody)
            mine = [place for place in places if place.asset == asset]
            if not mine:
                continue
            share, first = figures.shares(len(places))
            split = max(split, len(places))
            rest = first.less(share) if mine[0] is places[0] and len(places) > 1 else None
            if len(mine) == len(own) or not own:
                alike.merge(share)
                if rest:
                    _at(apart, mine[0], alike if not own else None).merge(rest)
            else:
                for place in mine:
                    _at(apart, place, None).merge(first if place is places[0] else share)
        return alike, apart, split


def add_to(sums: dict[Target, Figures], more: Mapping[Target, Figures]) -> dict[Target, Figures]:
    """Add to `sums`, and return them."""
    for target, figures in more.items():
        sums.setdefault(target, Figures()).merge(figures)
    return sums


def _at(apart: dict[str, Figures], place: Target, whole: Figures | None) -> Figures:
    """Return where the figures of a partition are added up; of an asset without any, `whole`."""
    return whole if whole is not None else apart.setdefault(place.partition or "", Figures())


def _nobody(_: str) -> bool:
    """Nobody is asked on the run's thread: what is not the step's own is told when it is over."""
    return False


def _attempt(one: Who) -> int:
    return int(one.attempt) if one.attempt.isdecimal() else 0


def budget() -> Budget:
    """Return how long the run's own thread may read, from now on."""
    return Budget(TAIL_SECONDS)


def facts_of(work: OpExecutionContext, labels: Mapping[str, str]) -> Facts:
    """Return what a step is about, of the context that it has."""
    mapping = labels.get("mapping")
    task = labels.get("task", "")
    assets: dict[str, list[str]] = {}
    nodes: dict[str, str] = {}
    if work.has_assets_def:
        definition = work.assets_def
        keys = set(work.selected_asset_keys)
        checks = work.selected_asset_check_keys
        keys = keys or {check.asset_key for check in checks}
        specs = definition.specs_by_key
        partitions = _partitions(work)
        for key in keys:
            name = key.to_user_string()
            spec = specs.get(key)
            whole = spec is not None and spec.partitions_def is None
            assets[name] = [] if whole else partitions
            node = None if spec is None else spec.metadata.get(DBT_NODE)
            if isinstance(node, str):
                nodes[node] = name
        for check in definition.check_specs:
            node = (check.metadata or {}).get(DBT_NODE)
            if isinstance(node, str):
                nodes[node] = check.asset_key.to_user_string()
    return Facts(
        run=work.run_id,
        step=f"{task}[{mapping}]" if mapping else task,
        job=work.job_name,
        attempt=work.retry_number + 1,
        assets=assets,
        partition=labels.get("partition", ""),
        nodes=nodes,
    )


def _partitions(work: OpExecutionContext) -> list[str]:
    if work.has_partition_key:
        return [str(work.partition_key)]
    if work.has_partition_key_range:
        return sorted(map(str, work.partition_keys))
    return []
