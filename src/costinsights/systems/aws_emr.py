"""What EMR on EC2 says of its steps, clusters and instances.

Fields and states: botocore's service model of ``emr``. No answer says what a step has cost, nor
which executors were its own: what it bears of the cluster's hours is worked out by settlement.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from costinsights.instrumentor import UNPRICED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Meters = dict[str, int | float | str]

SYSTEM = "aws.emr"
STEP_ENDS = frozenset(("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED"))
STEP_WAITS = frozenset(("PENDING",))
CLUSTER_ENDS = frozenset(("TERMINATED", "TERMINATED_WITH_ERRORS"))
GOOD = frozenset(("COMPLETED", "TERMINATED"))

METERS = (
    "step_seconds",
    "queue_seconds",
    "executor_core_seconds",
    "normalized_instance_hours",
    "requested_instances",
)
"""None of them has a price; `normalized_instance_hours` is AWS's rough size of a cluster, which it
says itself is not what is billed."""

PENDING = {UNPRICED: f"its share of the cluster's hours is not known: settle {SYSTEM}"}
"""What a charge says until settlement has been at it."""

_CLUSTER = re.compile(r"(j-[0-9A-Za-z]+)(?::(\d+))?")


def numbered(cluster: str, number: int) -> str:
    """Return the id of a step that was started together with its cluster: ``j-…:1`` is its first.

    The answer to ``RunJobFlow`` has no ids of steps. They are the cluster's first ones, in order.
    """
    return f"{cluster}:{number}"


def cluster_of(id_: str, namespace: str | None) -> str | None:
    """Return the cluster of a charge, by its vendor's id, or else by its resource."""
    found = _CLUSTER.fullmatch(id_)
    return found[1] if found is not None else namespace


class Times(NamedTuple):
    """When something was created, when it began to work, and when it had ended; as far as known."""

    created: datetime | None
    started: datetime | None
    ended: datetime | None


def state_of(thing: Mapping[str, Any]) -> str:
    """Return the state of a step, a cluster or an instance; empty where there is none."""
    found = _part(thing, "Status").get("State")
    return found if isinstance(found, str) else ""


def times_of(thing: Mapping[str, Any]) -> Times:
    """Return the times of a step, a cluster or an instance: theirs are alike."""
    line = _part(_part(thing, "Status"), "Timeline")
    moments = (
        line.get("CreationDateTime"),
        line.get("StartDateTime", line.get("ReadyDateTime")),
        line.get("EndDateTime"),
    )
    return Times(*(_utc(one) if isinstance(one, datetime) else None for one in moments))


def step_meters(times: Times) -> Meters:
    """Return for how long a step has run, and how long it had waited before."""
    meters: Meters = {}
    created, started, ended = times
    if started is not None and ended is not None:
        meters["step_seconds"] = _seconds(ended - started)
    if created is not None and started is not None:
        meters["queue_seconds"] = _seconds(started - created)
    return meters


def cluster_meters(cluster: Mapping[str, Any]) -> Meters:
    """Return what AWS counts of a whole cluster; never priced."""
    hours = _number(cluster.get("NormalizedInstanceHours"))
    return {} if hours is None else {"normalized_instance_hours": hours}


def requested(request: Mapping[str, Any]) -> Meters:
    """Return how many machines a ``RunJobFlow`` asks for; of fleets, how many units."""
    wanted = _part(request, "Instances")
    counts = [wanted.get("InstanceCount")]
    counts += [group.get("InstanceCount") for group in _list(wanted, "InstanceGroups")]
    for fleet in _list(wanted, "InstanceFleets"):
        counts += [fleet.get("TargetOnDemandCapacity"), fleet.get("TargetSpotCapacity")]
    total = sum(_number(count) or 0 for count in counts)
    return {"requested_instances": total} if total else {}


def applications(step: Mapping[str, Any]) -> Sequence[str]:
    """Return YARN's names of what a step has run: what Spark's event logs are known by."""
    found: Any = _part(step, "AdditionalInfo").get("ResourceManagerApplicationIds")
    names = cast("list[object]", found) if isinstance(found, list) else []
    return [name for name in names if isinstance(name, str)]


def _part(whole: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = whole.get(name)
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _list(whole: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = whole.get(name)
    return cast("list[Mapping[str, Any]]", found) if isinstance(found, list) else []


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        return None
    return value


def _seconds(span: timedelta) -> int | float:
    seconds = max(span.total_seconds(), 0.0)
    return int(seconds) if seconds.is_integer() else seconds


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)
