"""Scheduled assets of a settlement: the figures of a system's own history, day by day or by the hour.

::

    from costinsights.dagster import create_settlement_asset_and_schedule

    asset, schedule = create_settlement_asset_and_schedule("aws.athena", start_date="2026-01-01")

A partition is a day or an hour (UTC). Its run settles it (`costinsights.settlement.settle`), which
changes nothing that is settled, takes up what an earlier run has left, and brings what became known
to the assets whose statements these are. docs/dagster/scheduled.md tells all of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

import dagster as dg

from costinsights import config as configuration
from costinsights.dagster.asset_metadata import (
    PREFIX,
    counts,
    failed,
    failure,
    lines,
    money,
    table,
    texts,
)
from costinsights.dagster.functions import of_asset
from costinsights.dagster.late import tell_late
from costinsights.dagster.recurring import (
    COMPLETE,
    FRESH,
    AssetAndSchedule,
    Calendar,
    Granularity,
    Placed,
    Start,
    calendar,
    place,
    placed_of,
    schedule,
)
from costinsights.ledger.writer import LedgerError
from costinsights.settlement.settled import NotAsked, SettlementError, WouldWake
from costinsights.settlement.settling import reader_of, settle, systems
from costinsights.settlement.state import left_off

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from typing_extensions import Unpack

    from costinsights.dagster.asset_metadata import Metadata
    from costinsights.dagster.functions import Said
    from costinsights.settlement.settled import Settled

DAILY_CRON = "45 6 * * *"
HOURLY_CRON = "10 * * * *"
"""In UTC, some minutes after the hour: histories are a little late."""
WINDOW = timedelta(days=1)
_COUNTS = "figures charges settled unchanged outside added running lost without idle requests"
_CONFIG = {
    "window": dg.Field(
        bool,
        default_value=False,
        description="Also settle what came before and may still change, as the schedule does.",
    ),
    "wake": dg.Field(
        bool, is_required=False, description="Ask the system even if that starts it, and costs."
    ),
    "lost": dg.Field(
        bool,
        default_value=False,
        description="Ask again for runs that the system did not know any more.",
    ),
}


class Settling(Placed, total=False):
    """What can be said of a scheduled settlement."""

    granularity: Granularity
    """``daily`` or ``hourly``; daily by default."""
    all: bool
    """Also make charges of queries that no instrumented program ran."""
    wake: bool
    """Ask the system even where it is paused and would be started by that."""
    window: timedelta
    """How far before its partition a scheduled run begins: a day, for histories that are late."""
    fresh_within: timedelta
    """How far behind the settlement may be for the check ``fresh``: two partitions and what the
    system's history is late by."""
    ledger: str | None
    config: Mapping[str, object] | None
    """A configuration in place of the files': ``{"settle": {"aws.athena": {…}}}``."""


def create_settlement_asset_and_schedule(
    system: str, start_date: Start, **more: Unpack[Settling]
) -> AssetAndSchedule:
    """Return an asset that stands for a system's settled charges, and its schedule.

    `system` is one of ``costinsights settle``: ``aws.athena``, ``snowflake``, ``trino`` …

    Raises:
        NotAsked: there is no reader for the history of `system`.
        ValueError: `start_date` is no date.
    """
    known = systems()
    if system not in known:
        near = configuration.nearest(system, known)
        hint = f"did you mean {near}?" if near else f"known are: {', '.join(known)}"
        raise NotAsked(f"there is no reader for the history of {system!r}; {hint}")
    granularity = more.get("granularity", "daily")
    where = place(
        ["settled", system],
        DAILY_CRON if granularity == "daily" else HOURLY_CRON,
        f"The charges of {system}, with the figures of its own history.",
        placed_of(more),
    )
    times = calendar(start_date, granularity)
    make = dg.multi_asset(
        name=where.name,
        specs=[where.spec],
        check_specs=[
            dg.AssetCheckSpec(COMPLETE, asset=where.key, description="Nothing was left."),
            dg.AssetCheckSpec(FRESH, asset=where.key, description="It is not behind."),
        ],
        partitions_def=times.definition,
        # Two settlements of one system do not work on one ledger at the same time.
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=where.placed.get("retry_policy"),
        pool=where.placed.get("pool"),
        config_schema=_CONFIG,
        can_subset=True,  # so that the checks can run alone
    )
    asset = make(of_asset(lambda context: _Run(context, where.key, system, times, more).work()))
    tick = schedule(where, times, asset, {"window": True}, whole_days=False)
    return AssetAndSchedule(asset, tick)


class _Run:
    """One run: what it settles, what it says of it, and whether it fails."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        key: dg.AssetKey,
        system: str,
        partitions: Calendar,
        more: Settling,
    ) -> None:
        self._context = context
        self._key = key
        self._system = system
        self._partitions = partitions
        self._more = more
        self._asked: Mapping[str, bool] = context.op_execution_context.op_config
        self._config = configuration.load(ledger=more.get("ledger"), config=more.get("config"))
        self._checks = {one.name for one in context.selected_asset_check_keys}

    def work(self) -> Iterator[Said]:
        """Settle, say what came of it, and fail if the history could not be read to its end.

        Raises:
            dg.Failure: it could not be settled, or not all of it.
        """
        if self._key not in self._context.selected_asset_keys:
            yield from self._look(None)
            return
        try:
            report = self._settle()
        except (SettlementError, LedgerError) as error:
            if COMPLETE in self._checks:
                yield self._check(COMPLETE, str(error), passed=False, severe=True)
            raise failure(error, passing=not isinstance(error, (NotAsked, WouldWake))) from error
        tell_late(self._context, self._config.ledger)
        said = _said(report)
        if report.failed:
            # A partition that lacks something must not look as if it were there.
            self._context.log_event(dg.AssetObservation(self._key, metadata=said))
        else:
            yield dg.MaterializeResult(asset_key=self._key, metadata=said)
        yield from self._look(report)
        if report.failed:
            raise failed(report.failed, report.grant)

    def _settle(self) -> Settled:
        windows = self._partitions.windows(self._context.partition_keys)
        since = min(start for start, _ in windows.values())
        if self._asked["window"]:
            since -= self._more.get("window", WINDOW)
        return settle(
            self._system,
            since,
            max(end for _, end in windows.values()),
            all=self._more.get("all", False),
            wake=self._asked.get("wake", self._more.get("wake", False)),
            lost=self._asked["lost"],
            ledger=self._more.get("ledger"),
            config=self._more.get("config"),
        )

    def _look(self, report: Settled | None) -> Iterator[dg.AssetCheckResult]:
        if COMPLETE in self._checks:
            yield self._complete(report)
        if FRESH in self._checks:
            yield self._fresh()

    def _complete(self, report: Settled | None) -> dg.AssetCheckResult:
        if report is None:
            return self._check(
                COMPLETE, "whether anything was left is known when it is settled", passed=False
            )
        missing = [*report.incomplete, report.failed] if report.failed else report.incomplete
        left = [f"{count:,} left: {why}" for why, count in report.left.items()]
        return self._check(
            COMPLETE,
            "; ".join([*missing, *left]) or "nothing was left",
            passed=not missing and not left,
            # What is only left, the next run has.
            severe=bool(missing),
            metadata=table("left", ("why", "charges"), report.left.items()),
        )

    def _fresh(self) -> dg.AssetCheckResult:
        reached = left_off(self._config.ledger, self._system)
        if reached is None:
            return self._check(FRESH, "nothing was settled yet", passed=False)
        behind = datetime.now(timezone.utc) - reached
        late = reader_of(self._system, self._config).latency
        return self._check(
            FRESH,
            f"settled up to {reached:%Y-%m-%d %H:%M} UTC",
            passed=behind <= self._more.get("fresh_within", 2 * self._partitions.length + late),
            metadata={f"{PREFIX}settled_up_to": dg.MetadataValue.timestamp(reached)},
        )

    def _check(
        self,
        name: str,
        description: str,
        *,
        passed: bool,
        severe: bool = False,
        metadata: Metadata | None = None,
    ) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=passed,
            asset_key=self._key,
            check_name=name,
            severity=dg.AssetCheckSeverity.ERROR if severe else dg.AssetCheckSeverity.WARN,
            description=description,
            metadata=metadata or {},
        )


def _said(report: Settled) -> Metadata:
    """Return the figures of a settlement."""
    said: Metadata = {
        **texts({"system": report.system}),
        f"{PREFIX}since": dg.MetadataValue.timestamp(report.since),
        f"{PREFIX}until": dg.MetadataValue.timestamp(report.until),
        **counts({name: getattr(report, name) for name in _COUNTS.split()}),
    }
    kinds = sorted({kind for amounts in report.amounts.values() for kind in amounts})
    for kind in kinds:
        amounts = {
            currency: Decimal(found[kind])
            for currency, found in report.amounts.items()
            if kind in found
        }
        said |= money(f"settled_{kind}", amounts)
    if report.cost is not None and report.currency is not None:
        said |= money("looking", {report.currency: Decimal(report.cost)})
    said |= table("found", ("how", "charges"), report.found.items())
    said |= table("left", ("why", "charges"), report.left.items())
    said |= table("unpriced", ("why", "charges"), report.unpriced.items())
    return said | lines("incomplete", report.incomplete)
