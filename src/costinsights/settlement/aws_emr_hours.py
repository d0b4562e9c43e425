"""The hours of an EMR cluster: which machines were there, and what they are billed for.

Machines come and go; a step must not bear those that came for another one. So a cluster's time is
cut where its fleet changes, to the minute, and each piece is split over the steps in it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.systems.aws_emr import state_of, times_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Machine(NamedTuple):
    """An instance of a cluster: what it is, and from when to when it was there."""

    type: str
    market: str
    started_at: datetime
    ended_at: datetime | None


def machine_of(instance: Mapping[str, Any], cluster_ended: datetime | None) -> Machine | str | None:
    """Return an instance; None for one that never came to be; why not, where that cannot be told.

    It counts from its creation, start-up and bootstrap included, as EC2 bills it.
    """
    times = times_of(instance)
    if not instance.get("Ec2InstanceId"):
        return None
    kind, market = instance.get("InstanceType"), instance.get("Market")
    if not isinstance(kind, str) or not kind:
        return "an instance without its type"
    if times.created is None:
        return "an instance without the time of its creation"
    ended = times.ended or cluster_ended
    if ended is None and state_of(instance) == "TERMINATED":
        return "an instance without the time of its end"
    return Machine(
        kind,
        "spot" if market == "SPOT" else "on_demand",
        times.created,
        None if ended is None else max(ended, times.created),
    )


HOUR = timedelta(hours=1)
CELL = timedelta(minutes=1)
"""Changes of a fleet are followed that closely: within a cell all steps share what ran in it."""
MINIMUM = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


class Slice(NamedTuple):
    """A time in which a fleet was the same, or one cell in which it changed."""

    started_at: datetime
    ended_at: datetime
    used: dict[tuple[str, str], timedelta]
    """Instance time that is billed for it, by type and market."""


def slices(machines: Sequence[Machine], since: datetime, until: datetime) -> Iterator[Slice]:
    """Yield what a fleet is billed for from `since` to `until`, both whole hours.

    The same hour gives the same slices whenever it is asked for. Each machine is billed by the
    second, and for a minute at least (AWS EMR pricing page); what that adds lies at its beginning.
    """
    hour = since
    while hour < until:
        here = [
            one
            for one in machines
            if one.started_at < hour + HOUR and (one.ended_at is None or one.ended_at >= hour)
        ]
        if here:
            yield from _hour(here, hour)
        hour += HOUR


def _hour(machines: Sequence[Machine], hour: datetime) -> Iterator[Slice]:
    if all(_is_there(one, hour, hour + HOUR) for one in machines):
        used: dict[tuple[str, str], timedelta] = {}
        for one in machines:
            kind = one.type, one.market
            used[kind] = used.get(kind, timedelta(0)) + HOUR
        yield Slice(hour, hour + HOUR, used)
        return
    open_: Slice | None = None
    fleet: tuple[int, ...] = ()
    for number in range(HOUR // CELL):
        begin = hour + number * CELL
        found, whole = _cell(machines, begin)
        if found is not None and open_ is not None and whole and whole == fleet:
            open_ = _joined(open_, found)
            continue
        if open_ is not None:
            yield open_
        open_, fleet = found, whole
    if open_ is not None:
        yield open_


def _is_there(one: Machine, begin: datetime, end: datetime) -> bool:
    return one.started_at < begin and (one.ended_at is None or one.ended_at >= end)


def _cell(machines: Sequence[Machine], begin: datetime) -> tuple[Slice | None, tuple[int, ...]]:
    """Return what ran in a cell, and which machines, if all of them were there for all of it."""
    end = begin + CELL
    used: dict[tuple[str, str], timedelta] = {}
    first, last, changed = end, begin, False
    there: list[int] = []
    for number, one in enumerate(machines):
        start, stop = max(one.started_at, begin), min(one.ended_at or end, end)
        began = begin <= one.started_at < end
        if stop < start or (stop == start and not began):
            continue
        there.append(number)
        changed = changed or began or (start, stop) != (begin, end)
        first, last = min(first, start), max(last, stop)
        kind = one.type, one.market
        used[kind] = used.get(kind, timedelta(0)) + (stop - start)
        if began and one.ended_at is not None:
            used[kind] += _added(one.ended_at - one.started_at)
    if not there:
        return None, ()
    last = max(last, first + timedelta(microseconds=1))
    return Slice(first, last, used), () if changed else tuple(there)


def _joined(one: Slice, other: Slice) -> Slice:
    kinds = one.used.keys() | other.used.keys()
    nothing = timedelta(0)
    used = {
        kind: one.used.get(kind, nothing) + other.used.get(kind, nothing) for kind in sorted(kinds)
    }
    return Slice(one.started_at, other.ended_at, used)


def _added(ran: timedelta) -> timedelta:
    """Return what is billed above the time itself: whole seconds, and a minute at least."""
    return max(-(-ran // SECOND) * SECOND, MINIMUM) - ran
