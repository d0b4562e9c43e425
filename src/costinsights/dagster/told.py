"""What Dagster has been told of costs: its own event log is asked, and added to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dagster import AssetKey, AssetObservation, AssetRecordsFilter

from costinsights.dagster.figures import Figures
from costinsights.dagster.metadata import About, described, told
from costinsights.dagster.targets import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from dagster import DagsterInstance, EventLogRecord, EventRecordsResult

    from costinsights.dagster.metadata import Value

PAGE = 1000
# Clocks of several machines stamp the events.
SLACK_SECONDS = 300.0


class Key(NamedTuple):
    """What an event tells the cost of, beside its asset and partition."""

    run: str
    step: str
    day: str = ""


def key_of(asset: str) -> AssetKey:
    """Return the asset's key."""
    return AssetKey.from_user_string(asset)


class Log:
    """The event log of an instance."""

    def __init__(self, instance: DagsterInstance, report_url: str = "") -> None:
        self.instance = instance
        self._report_url = report_url
        self._exists: dict[str, bool] = {}

    def exists(self, asset: str) -> bool:
        """Tell whether Dagster has such an asset."""
        known = self._exists.get(asset)
        if known is None:
            known = self._exists[asset] = self.instance.has_asset_key(key_of(asset))
        return known

    def began(self, run: str) -> float | None:
        """Return when a run began, in seconds of the epoch; 0 where the event log does not tell.

        None is a run that is not there any more. When it was created is no answer: PostgreSQL says it
        in its own time zone, and Dagster takes it for UTC.
        """
        record = self.instance.get_run_record_by_id(run)
        return None if record is None else record.start_time or 0.0

    def told(self, assets: Iterable[str], since: float) -> dict[Key, dict[Target, Figures]]:
        """Return what the events of these assets since then, in seconds of the epoch, tell."""
        found: dict[Key, dict[Target, Figures]] = {}
        for asset in assets:
            for partition, metadata in self._events(asset, since):
                one = told(metadata)
                if one is not None:
                    places = found.setdefault(Key(one.run, one.step, one.day), {})
                    places.setdefault(Target(asset, partition), Figures()).merge(one.figures)
        return found

    def _events(self, asset: str, since: float) -> Iterator[tuple[str | None, Mapping[str, Value]]]:
        wanted = AssetRecordsFilter(
            asset_key=key_of(asset), after_timestamp=max(0.0, since - SLACK_SECONDS)
        )
        for record in _records(self.instance.fetch_materializations, wanted):
            if (made := record.asset_materialization) is not None:
                yield made.partition, made.metadata
        for record in _records(self.instance.fetch_observations, wanted):
            if (seen := record.event_log_entry.asset_observation) is not None:
                yield seen.partition, seen.metadata

    def made(self, asset: str, run: str, since: float) -> list[str]:
        """Return the partitions of an asset that a run has made."""
        wanted = AssetRecordsFilter(
            asset_key=key_of(asset), after_timestamp=max(0.0, since - SLACK_SECONDS)
        )
        found: set[str] = set()
        for record in _records(self.instance.fetch_materializations, wanted):
            if record.run_id == run and record.partition_key is not None:
                found.add(record.partition_key)
        return sorted(found)

    def tell(
        self,
        about: About,
        spent: Mapping[Target, tuple[Figures, int]],
        already: Mapping[Target, Figures],
    ) -> dict[Target, Figures]:
        """Tell what was spent and not told yet, and return that."""
        found: dict[Target, Figures] = {}
        for target in sorted({*spent, *already}, key=_in_order):
            whole, split = spent.get(target, _NOTHING)
            before = already.get(target)
            rest = whole if before is None else whole.less(before)
            if not rest:
                continue
            metadata = described(
                rest,
                about,
                target.asset,
                split=split,
                correction=before is not None,
                report_url=self._report_url,
            )
            self.instance.report_runless_asset_event(
                AssetObservation(
                    asset_key=key_of(target.asset), partition=target.partition, metadata=metadata
                )
            )
            found[target] = rest
        return found


_NOTHING = (Figures(), 1)


def _in_order(target: Target) -> tuple[str, str]:
    return target.asset, target.partition or ""


def _records(
    ask: Callable[[AssetRecordsFilter, int, str | None], EventRecordsResult],
    wanted: AssetRecordsFilter,
) -> Iterator[EventLogRecord]:
    cursor: str | None = None
    while True:
        page = ask(wanted, PAGE, cursor)
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor
