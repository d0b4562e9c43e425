"""What all scheduled assets have in common: partitions, a schedule, and their place in Dagster.

Each is an asset that is partitioned by the day or the hour (UTC), a backfill of which is one run,
and a schedule that asks for the last day or hours that are over.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict, cast

import dagster as dg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Granularity = Literal["daily", "hourly"]
Start = str | date | datetime

GROUP = "costinsights"
COMPLETE, FRESH = "complete", "fresh"
"""The names of its checks."""
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
# How Dagster marks a run over several partitions; documented for single-run backfills.
_RANGE_START = "dagster/asset_partition_range_start"
_RANGE_END = "dagster/asset_partition_range_end"


class AssetAndSchedule(NamedTuple):
    """An asset and its schedule: unpack it, or hand it over by its names.

    ::

        storage = create_s3_insights_asset_and_schedule("2026-01-01", "my-bucket")
        defs = dg.Definitions(assets=[storage.asset], schedules=[storage.schedule])
        defs = dg.Definitions.merge(defs, storage.definitions)
    """

    asset: dg.AssetsDefinition
    schedule: dg.ScheduleDefinition

    @property
    def definitions(self) -> dg.Definitions:
        """Both of them, to be merged into others."""
        return dg.Definitions(assets=[self.asset], schedules=[self.schedule])


class Placed(TypedDict, total=False):
    """Where an asset of ours stands in Dagster; each has a default."""

    key: dg.AssetKey | Sequence[str] | str
    """By default ``costinsights/`` and what it is about."""
    group_name: str
    description: str
    owners: Sequence[str]
    tags: Mapping[str, str]
    cron_schedule: str
    """When it runs, in UTC."""
    default_status: dg.DefaultScheduleStatus
    """Whether the schedule runs without being switched on; it does not by default."""
    retry_policy: dg.RetryPolicy
    pool: str


class Place(NamedTuple):
    """The place that an asset has: what was said of it, and the defaults."""

    key: dg.AssetKey
    name: str
    """Of the op; the job and the schedule are named after it."""
    cron: str
    placed: Placed

    @property
    def spec(self) -> dg.AssetSpec:
        """The asset, without its partitions."""
        return dg.AssetSpec(
            self.key,
            group_name=self.placed.get("group_name", GROUP),
            description=self.placed.get("description"),
            owners=self.placed.get("owners"),
            tags=self.placed.get("tags"),
            kinds={"costinsights"},
        )


def place(default_key: Sequence[str], cron: str, description: str, placed: Placed) -> Place:
    """Return where an asset stands."""
    # Dagster makes a name of a key, which may have no other characters.
    default = [GROUP, *(re.sub(r"[^A-Za-z0-9_-]+", "_", part) for part in default_key)]
    key = key_of(placed.get("key", default))
    name = re.sub(r"\W+", "_", "__".join(key.path), flags=re.ASCII)
    return Place(
        key,
        name,
        placed.get("cron_schedule", cron),
        {**placed, "description": placed.get("description", description)},
    )


def key_of(said: dg.AssetKey | Sequence[str] | str) -> dg.AssetKey:
    """Return a key of whatever stands for one: text has a / between its parts."""
    if isinstance(said, str):
        return dg.AssetKey.from_user_string(said)
    return said if isinstance(said, dg.AssetKey) else dg.AssetKey(said)


def placed_of(more: Placed) -> Placed:
    """Return what is said of an asset's place among everything that is said of it."""
    names = Placed.__optional_keys__
    kept = {name: value for name, value in more.items() if name in names}
    return cast("Placed", kept)


class Calendar(NamedTuple):
    """The partitions of an asset: days or hours from a moment on, in UTC."""

    granularity: Granularity
    start: datetime

    @property
    def definition(self) -> dg.PartitionsDefinition[str]:
        """The same for Dagster."""
        form = _FORMATS[self.granularity]
        if self.granularity == "hourly":
            return dg.HourlyPartitionsDefinition(start_date=self.start, timezone="UTC", fmt=form)
        return dg.DailyPartitionsDefinition(start_date=self.start, timezone="UTC", fmt=form)

    @property
    def length(self) -> timedelta:
        """How long a partition is."""
        return DAY if self.granularity == "daily" else HOUR

    def key(self, at: datetime) -> str:
        """Return the key of the partition that begins at a moment."""
        return at.strftime(_FORMATS[self.granularity])

    def windows(self, keys: Sequence[str]) -> dict[str, tuple[datetime, datetime]]:
        """Return when each partition begins and ends."""
        found: dict[str, tuple[datetime, datetime]] = {}
        for key in keys:
            start = datetime.strptime(key, _FORMATS[self.granularity]).replace(tzinfo=timezone.utc)
            found[key] = start, start + self.length
        return found


_FORMATS = {"daily": "%Y-%m-%d", "hourly": "%Y-%m-%d-%H:%M"}


def calendar(start: Start, granularity: Granularity) -> Calendar:
    """Return the days or hours from `start` on.

    Raises:
        ValueError: `start` is no date, or `granularity` none of the two.
    """
    if granularity not in _FORMATS:
        raise ValueError(f"granularity is daily or hourly, not {granularity!r}")
    return Calendar(granularity, moment(start))


def moment(start: Start) -> datetime:
    """Return a date or moment in UTC; one that says no zone is taken for UTC."""
    if isinstance(start, str):
        start = datetime.fromisoformat(start)
    if not isinstance(start, datetime):
        start = datetime.combine(start, time())
    if start.tzinfo is None:
        return start.replace(tzinfo=timezone.utc)
    return start.astimezone(timezone.utc)


def schedule(
    where: Place,
    partitions: Calendar,
    asset: dg.AssetsDefinition,
    config: Mapping[str, object],
    *,
    whole_days: bool,
) -> dg.ScheduleDefinition:
    """Return the schedule of an asset: each tick asks for the last day or hour that is over.

    With `whole_days` it asks for all hours of the last day, in one run.
    """
    job = dg.define_asset_job(
        f"{where.name}_job",
        selection=dg.AssetSelection.assets(asset),
        description=where.placed.get("description"),
    )
    long = DAY if whole_days else partitions.length

    @dg.schedule(
        cron_schedule=where.cron,
        job=job,
        name=f"{where.name}_schedule",
        execution_timezone="UTC",
        default_status=where.placed.get("default_status", dg.DefaultScheduleStatus.STOPPED),
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        at = moment(context.scheduled_execution_time)
        end = at.replace(minute=0, second=0, microsecond=0)
        if long == DAY:
            end = end.replace(hour=0)
        if end - long < partitions.start:
            first = partitions.key(partitions.start)
            return dg.SkipReason(f"nothing is over yet of what begins with {first}")
        request = {"ops": {where.name: {"config": dict(config)}}}
        first, last = partitions.key(end - long), partitions.key(end - partitions.length)
        if first == last:
            return dg.RunRequest(at.isoformat(), request, partition_key=first)
        span = {_RANGE_START: first, _RANGE_END: last}
        return dg.RunRequest(at.isoformat(), request, tags=span)

    return tick
