"""Which assets and partitions a call is for, of the labels that its charge has.

A step says what it makes when it begins (`Facts`), and leaves that in the ledger's folder, so that
a later process knows as much as the step did. Nothing here knows Dagster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from costinsights.attribution import MAX_VALUE
from costinsights.dagster.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from costinsights.records import Charge

MARKER = "costinsights"
"""The first part of the keys of assets that stand for what belongs to no asset."""

# Who says an asset that need not be one of Dagster's: a scope of the user's, a comment.
_OTHERS = frozenset({"scope", "dbt", "sqlcommenter"})
_RANGE = "..."


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step of a run is about: written when the step first asks for anything that costs."""

    run: str
    step: str
    job: str
    attempt: int = 1
    assets: dict[str, list[str]] = {}
    """The assets that it makes or checks, each with the partitions of it that it makes."""
    partition: str = ""
    """The label of all its calls: the run's partition, or its range."""
    nodes: dict[str, str] = {}
    """dbt's nodes and the assets that they are, or that they test."""
    instance: str = ""

    @property
    def label(self) -> str:
        """The assets as calls have them for a label."""
        return ",".join(sorted(self.assets))

    @property
    def are_labels(self) -> bool:
        """Whether the labels of its calls say as much, so that a later process needs no more."""
        own = [self.partition] if self.partition and _RANGE not in self.partition else []
        return (
            not self.nodes
            and len(self.label) <= MAX_VALUE
            and all(partitions == own for partitions in self.assets.values())
        )


class Who(NamedTuple):
    """The labels of a charge that decide where its cost goes; all calls alike are added up."""

    run: str
    step: str
    attempt: str
    job: str
    asset: str
    partition: str
    node: str
    dbt: bool
    check: str
    sensor: str
    schedule: str
    foreign: bool
    """Somebody else than Dagster may have named the asset."""
    day: str
    """Of work outside of runs, which never ends, the day."""


class Target(NamedTuple):
    """Where a cost is shown: a partition of an asset, an asset, or a marker."""

    asset: str
    partition: str | None = None


def who(charge: Charge) -> Who | None:
    """Return whom a charge is for, or None for one that is none of Dagster's."""
    labels = charge.attribution
    get = labels.get
    run, sensor, schedule = get("run", ""), get("sensor", ""), get("schedule", "")
    if not run and not sensor and not schedule:
        return None
    task, mapping = get("task", ""), get("mapping")
    if run:
        sensor = schedule = ""  # what has launched the run is not whom it is for
    return Who(
        run,
        f"{task}[{mapping}]" if mapping else task,
        get("attempt", ""),
        get("job", ""),
        get("asset", ""),
        get("partition", ""),
        get("dbt.node_id", ""),
        "dbt.invocation_id" in labels or "dbt.node_id" in labels,
        get("check", ""),
        sensor,
        schedule,
        not _OTHERS.isdisjoint(get("rule", "").split("+")),
        "" if run else charge.started_at[:10],
    )


def marker(one: Who) -> str:
    """Return the key of the asset that stands for what belongs to no asset."""
    if one.sensor:
        return f"{MARKER}/sensor/{_part(one.sensor)}"
    if one.schedule:
        return f"{MARKER}/schedule/{_part(one.schedule)}"
    return f"{MARKER}/job/{_part(one.job or 'unknown')}"


def _part(name: str) -> str:
    return name.replace("/", "_")


def targets(
    one: Who,
    facts: Facts | None,
    exists: Callable[[str], bool],
    made: Callable[[str], Iterable[str]] = lambda _: (),
) -> list[Target]:
    """Return the targets that a cost is shared out over, in order.

    Args:
        one: Whom it is for.
        facts: What its step is about; None where that is no longer known.
        exists: Tells whether Dagster has an asset of that key.
        made: Gives the partitions of an asset that the run has made, for want of facts.
    """
    names = _assets(one, facts, exists)
    if not names:
        return [Target(marker(one))]
    found: list[Target] = []
    for name in sorted(names):
        found += [Target(name, part) for part in _partitions(name, one, facts, made)]
    return found


def _assets(one: Who, facts: Facts | None, exists: Callable[[str], bool]) -> list[str]:
    own: Mapping[str, list[str]] = facts.assets if facts is not None else {}
    if one.dbt:
        if facts is not None and one.node in facts.nodes:
            return [facts.nodes[one.node]]
        if one.asset in own or (one.node and one.asset and exists(one.asset)):
            return [one.asset]
        return []  # dbt's own questions, hooks, nodes that are no assets: the job's
    if own and one.asset in ("", facts.label if facts is not None else ""):
        return list(own)
    if not one.asset:
        return []
    names = one.asset.split(",")
    if facts is None and not one.foreign:
        return names
    return names if all(name in own or exists(name) for name in names) else []


def _partitions(
    name: str, one: Who, facts: Facts | None, made: Callable[[str], Iterable[str]]
) -> list[str | None]:
    if facts is not None and name in facts.assets:
        own = facts.assets[name]
        if one.partition in own:
            return [one.partition]
        return [*sorted(own)] if own else [None]
    if one.partition and _RANGE not in one.partition:
        return [one.partition]
    return [*sorted(made(name))] if facts is None and made(name) else [None]


def share_out(sums: Iterable[tuple[Figures, list[Target]]]) -> dict[Target, tuple[Figures, int]]:
    """Return what each target has of all sums, and of how many equal shares that is at most one."""
    found: dict[Target, tuple[Figures, int]] = {}
    for figures, places in sums:
        count = len(places)
        share, first = figures.shares(count)
        for place in places:
            part = first if place is places[0] else share
            known = found.get(place)
            if known is None:
                mine = Figures()
                found[place] = mine, count
            else:
                mine = known[0]
                if count > known[1]:
                    found[place] = mine, count
            mine.merge(part)
    return found
