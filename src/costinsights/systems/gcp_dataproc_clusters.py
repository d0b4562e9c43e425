"""When Dataproc's clusters were up, and how large: of themselves, and of their operations.

A cluster that is there says it itself. One that is gone is known by what created, changed and
deleted it: the answers of those operations hold the cluster as it then was. Messages are those
below google-cloud-dataproc's classes; times are in nanoseconds since the epoch.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from costinsights.systems.gcp_dataproc import STOPPED, Size, Uptime, moment, uptimes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CREATING, UPDATING, STARTING = 1, 5, 8
"""ClusterStatus.State."""
DONE = 3
"""ClusterOperationStatus.State."""
HOUR = 3600 * 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)

RESIZED = "it was resized, and no operation says any more how large it was before"
FORGOTTEN = "it is gone, and so is the operation that created it"


class Life:
    """One cluster, from its creation to its end."""

    def __init__(
        self, name: str, region: str, sizes: list[tuple[int, Size]], times: list[Uptime]
    ) -> None:
        """Take since when it was how large, and when it was up; no time: only jobs tell."""
        self.name = name
        self.region = region
        self.sizes = sorted(sizes, key=lambda each: each[0])
        self.times = times
        self._by_jobs = not times

    def saw(self, started: int, ended: int) -> None:
        """Learn from a job when it must have been up, if nothing else says so."""
        if self._by_jobs and ended > started:
            before = self.times[0] if self.times else Uptime(started, ended)
            self.times = [
                Uptime(min(before.start, started), max(before.end or ended, ended)),
            ]

    def stretches(self, since: datetime, until: datetime) -> Iterator[tuple[int, int, Size]]:
        """Yield the hours in which it was up, or their parts, with its size in each."""
        first, last = _nanoseconds(since), _nanoseconds(until)
        for up in self.times:
            start, end = max(up.start, first), min(last if up.end is None else up.end, last)
            cuts = {start, end}
            cuts.update(range((start // HOUR + 1) * HOUR, end, HOUR))
            cuts.update(at for at, _ in self.sizes if start < at < end)
            for begin, stop in pairwise(sorted(cuts)) if start < end else ():
                yield begin, stop, self._size(begin)

    def _size(self, at: int) -> Size:
        found = self.sizes[0][1]
        for since, size in self.sizes:
            if since <= at:
                found = size
        return found


class _Notes:
    """What is found out about one cluster."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.states: set[tuple[int, int]] = set()
        self.sizes: dict[int, Size] = {}
        self.deleted: int | None = None
        self.there = False

    def life(self, region: str) -> Life:
        sizes = self.sizes or {0: Size(0, FORGOTTEN)}
        over = self.there or self.deleted is not None
        times = uptimes(self.states, None if self.there else self.deleted) if over else []
        return Life(self.name, region, list(sizes.items()), times)


def group_of(region: str, name: str, uuid: str) -> str:
    """Return what tells clusters apart: a name may be given again."""
    return f"{region}/{name}/{uuid}"


def lives(
    region: str,
    clusters: Iterable[Any],
    operations: Iterable[tuple[Any, Any]],
    size: Callable[[Any], Size],
) -> dict[str, Life]:
    """Return clusters by group, of those that are there and of operations.

    An operation is its `ClusterOperationMetadata`, and the cluster as it was then, or None.
    """
    notes: dict[str, _Notes] = {}

    def of(name: str, uuid: str) -> _Notes:
        return notes.setdefault(group_of(region, name, uuid), _Notes(name))

    for metadata, after in operations:
        _operation(of(metadata.cluster_name, metadata.cluster_uuid), metadata, after, size)
    for cluster in clusters:
        _cluster(of(cluster.cluster_name, cluster.cluster_uuid), cluster, size)
    return {group: each.life(region) for group, each in notes.items()}


def _operation(found: _Notes, metadata: Any, after: Any, size: Callable[[Any], Size]) -> None:
    every = [moment(status.state_start_time) for status in metadata.status_history]
    ended = moment(metadata.status.state_start_time) if metadata.status.state == DONE else 0
    begun = min((at for at in (*every, ended) if at), default=0)
    kind = metadata.operation_type.upper()
    if after is not None and kind in ("CREATE", "UPDATE"):
        found.sizes[0 if kind == "CREATE" else ended] = size(after)
        found.states.update(_states(after))
    if kind == "CREATE":
        found.states.add((begun, CREATING))
    elif kind == "DELETE" and ended:
        found.deleted = ended
    elif kind == "STOP" and ended:
        found.states.add((ended, STOPPED))
    elif kind == "START" and begun:
        found.states.add((begun, STARTING))


def _cluster(found: _Notes, cluster: Any, size: Callable[[Any], Size]) -> None:
    states = sorted(_states(cluster))
    found.there = True
    found.states.update(states)
    # How large it is now it has been since it was last changed.
    changed = max(
        (next_ for (_, state), (next_, _) in pairwise(states) if state == UPDATING), default=0
    )
    if changed and not any(at < changed for at in found.sizes):
        found.sizes[0] = Size(0, RESIZED)
    found.sizes = {at: each for at, each in found.sizes.items() if at < changed} | {
        changed: size(cluster)
    }


def _states(cluster: Any) -> Iterator[tuple[int, int]]:
    for status in (*cluster.status_history, cluster.status):
        at = moment(status.state_start_time)
        if at:
            yield at, status.state


def _nanoseconds(at: datetime) -> int:
    return (at - EPOCH) // MICROSECOND * 1000
