"""Scheduled assets of a bill: what storage, a service or a whole provider was billed, day by day.

::

    from costinsights.dagster import create_s3_insights_asset_and_schedule

    asset, schedule = create_s3_insights_asset_and_schedule(
        start_date="2024-01-01", bucket_name_filter="my-bucket"
    )

A partition is a day or an hour (UTC). Its run pulls it (`costinsights.billing.pull`), as often as
one likes: what the ledger has of it is replaced. The schedule's runs pull all that the provider
may still change besides, and say which days have changed. docs/dagster/scheduled.md tells all of it.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg

from costinsights import config as configuration
from costinsights.billing.costs import get_cost_data_for_day, get_cost_data_for_hour
from costinsights.billing.delivered import Delivered, restated
from costinsights.billing.pulled import BillingError, NotAsked, OverCap
from costinsights.billing.puller import midnight
from costinsights.billing.pulling import CAP, pull, puller_of, sources
from costinsights.billing.slices import Wanted
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
from costinsights.plugins import PULLERS, find
from costinsights.report.money import exact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Unpack

    from costinsights.billing.delivered import Restated, Sum
    from costinsights.billing.pulled import Pulled
    from costinsights.billing.puller import Puller
    from costinsights.dagster.asset_metadata import Metadata
    from costinsights.dagster.functions import Said

DAILY_CRON = "30 6 * * *"
"""In UTC: by then most of what providers say of yesterday is there."""
_KINDS_SHOWN = 20
_CHANGES_SHOWN = 100


# What one run may be told in the launchpad. No class of Dagster's, for which Dagster would have to
# see the annotation, and not the text that it is here.
_CONFIG = {
    "window": dg.Field(
        bool,
        default_value=False,
        description="Also pull all that may still change, as the schedule does.",
    ),
    "restate": dg.Field(bool, default_value=False, description="Also pull what is final."),
}


class Billed(Placed, total=False):
    """What can be said of any scheduled asset of a bill."""

    granularity: Granularity
    """``daily`` or ``hourly``, where the source has both; daily by default."""
    ledger: str | None
    config: Mapping[str, object] | None
    """A configuration in place of the files': ``{"pull": {"aws.cost_explorer": {…}}}``."""
    cap: Decimal | None
    """What looking may cost in one run: 0.20 unless you say otherwise, None for no limit."""
    window: bool
    """Whether the schedule pulls what may still change; it does by default."""
    fresh_days: int
    """For how many days behind the figures may be: 1, so that yesterday has to be there."""


def create_bill_asset_and_schedule(
    source: str,
    start_date: Start,
    *,
    service: str = "",
    resource: str = "",
    path: str = "",
    **more: Unpack[Billed],
) -> AssetAndSchedule:
    """Return an asset with what `source` bills, from `start_date` on, and its daily schedule.

    Args:
        source: One of ``costinsights pull``: ``aws.s3``, ``gcp``, ``azure.storage``, ``focus`` …
        start_date: The first day.
        service: Only this service, as the provider calls it.
        resource: Only this bucket or storage account, where the source can tell.
        path: The files of ``focus``.
        more: See `Billed` and `costinsights.dagster.recurring.Placed`.

    Raises:
        NotAsked: there is no such source, or it has no figures by the hour.
        ValueError: `start_date` is no date.
    """
    granularity = more.get("granularity", "daily")
    _check(source, granularity)
    about = [service, resource, path.rstrip("/").rpartition("/")[2]]
    where = place(
        [source, *filter(None, about)],
        DAILY_CRON,
        f"What {' '.join(filter(None, [source, *about]))} bills, as costinsights pulls it.",
        placed_of(more),
    )
    asked = _Source(source, granularity, service, resource, path, more)
    days = calendar(start_date, granularity)

    make = dg.multi_asset(
        name=where.name,
        specs=[where.spec],
        check_specs=[
            dg.AssetCheckSpec(COMPLETE, asset=where.key, description="Nothing is missing of it."),
            dg.AssetCheckSpec(FRESH, asset=where.key, description="Yesterday is there."),
        ],
        partitions_def=days.definition,
        # A month is one request for most sources, and not thirty.
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=where.placed.get("retry_policy"),
        pool=where.placed.get("pool"),
        config_schema=_CONFIG,
        can_subset=True,  # so that the checks can run alone
    )
    billed = make(of_asset(lambda context: _Run(context, where.key, asked, days).work()))
    tick = schedule(where, days, billed, {"window": more.get("window", True)}, whole_days=True)
    return AssetAndSchedule(billed, tick)


def create_s3_insights_asset_and_schedule(
    start_date: Start, bucket_name_filter: str = "", **more: Unpack[Billed]
) -> AssetAndSchedule:
    """Return an asset with the costs of Amazon S3, or of one bucket, and its schedule.

    One bucket needs a source that can tell: a Data Export, or Cost Explorer with a cost-allocation
    tag (``tag`` in ``[pull."aws.cost_explorer"]``).
    """
    return create_bill_asset_and_schedule("aws.s3", start_date, resource=bucket_name_filter, **more)


def create_gcs_insights_asset_and_schedule(
    start_date: Start, bucket_name_filter: str = "", **more: Unpack[Billed]
) -> AssetAndSchedule:
    """Return an asset with the costs of Cloud Storage, or of one bucket, and its schedule.

    One bucket needs the detailed export.
    """
    return create_bill_asset_and_schedule(
        "gcp.storage", start_date, resource=bucket_name_filter, **more
    )


def create_adls_insights_asset_and_schedule(
    start_date: Start, account_name_filter: str = "", **more: Unpack[Billed]
) -> AssetAndSchedule:
    """Return an asset with the costs of Azure's storage, or of one account, and its schedule."""
    return create_bill_asset_and_schedule(
        "azure.storage", start_date, resource=account_name_filter, **more
    )


def create_aws_insights_asset_and_schedule(
    start_date: Start, service: str = "", *, resource: str = "", **more: Unpack[Billed]
) -> AssetAndSchedule:
    """Return an asset with the costs of AWS, or of one service (``Amazon Athena``), and its schedule."""
    return create_bill_asset_and_schedule(
        "aws", start_date, service=service, resource=resource, **more
    )


def create_gcp_insights_asset_and_schedule(
    start_date: Start, service: str = "", *, resource: str = "", **more: Unpack[Billed]
) -> AssetAndSchedule:
    """Return an asset with the costs of Google Cloud, or of one service, and its schedule."""
    return create_bill_asset_and_schedule(
        "gcp", start_date, service=service, resource=resource, **more
    )


def create_azure_insights_asset_and_schedule(
    start_date: Start, service: str = "", *, resource: str = "", **more: Unpack[Billed]
) -> AssetAndSchedule:
    """Return an asset with the costs of Azure, or of one service, and its schedule."""
    return create_bill_asset_and_schedule(
        "azure", start_date, service=service, resource=resource, **more
    )


def create_databricks_insights_asset_and_schedule(
    start_date: Start, *, resource: str = "", **more: Unpack[Billed]
) -> AssetAndSchedule:
    """Return an asset with what Databricks bills, from its system tables, and its schedule."""
    return create_bill_asset_and_schedule("databricks", start_date, resource=resource, **more)


def create_focus_insights_asset_and_schedule(
    start_date: Start,
    path: str,
    *,
    service: str = "",
    resource: str = "",
    **more: Unpack[Billed],
) -> AssetAndSchedule:
    """Return an asset with what stands in FOCUS files (a file, a folder, ``s3://`` …), and its schedule."""
    return create_bill_asset_and_schedule(
        "focus", start_date, path=path, service=service, resource=resource, **more
    )


def _check(source: str, granularity: Granularity) -> None:
    """Find out now, and not in the first run, what can never be pulled.

    Which of several pullers will answer is known when the run has its configuration.
    """
    known = sources()
    if source not in known:
        near = configuration.nearest(source, known)
        hint = f"did you mean {near}?" if near else f"known are: {', '.join(sorted(known))}"
        raise NotAsked(f"there is no source {source!r} of a bill; {hint}")
    plugins = find(PULLERS)
    if not any(granularity in plugins[key].load().granularities for key in known[source]):
        raise NotAsked(f"{source} has no {granularity} figures")


# --- one run -------------------------------------------------------------------------------------


class _Source(NamedTuple):
    """What is pulled, and how it is reached."""

    source: str
    granularity: Granularity
    service: str
    resource: str
    path: str
    more: Billed

    @property
    def config(self) -> configuration.Config:
        """The configuration in force, asked for in each run."""
        return configuration.load(ledger=self.more.get("ledger"), config=self.more.get("config"))

    def puller(self, config: configuration.Config) -> Puller:
        """Return who is asked.

        Raises:
            BillingError: its options are wrong.
        """
        return puller_of(self.source, config)

    def wanted(self, puller: Puller) -> Wanted:
        """Return which lines are wanted of it."""
        return Wanted(self.service or puller.answers.get(self.source, ""), self.resource)

    def pull(
        self, puller: Puller, start: datetime | None, end: datetime | None, *, restate: bool
    ) -> Pulled:
        """Pull a time of it.

        Raises:
            BillingError: nothing could be pulled.
        """
        hourly = self.granularity == "hourly" and len(puller.granularities) > 1
        return pull(
            self.source,
            start,
            end,
            service=self.service,
            resource=self.resource,
            path=self.path,
            granularity="hourly" if hourly else None,
            restate=restate,
            cap=self.more.get("cap", CAP),
            ledger=self.more.get("ledger"),
            config=self.more.get("config"),
            puller=puller,
        )


class _Run:
    """One run: what it pulls, what it says of it, and whether it fails."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        key: dg.AssetKey,
        source: _Source,
        partitions: Calendar,
    ) -> None:
        self._context = context
        self._key = key
        self._source = source
        self._partitions = partitions
        self._asked: Mapping[str, bool] = context.op_execution_context.op_config
        self._config = source.config
        self._now = datetime.now(timezone.utc)
        self._checks = {one.name for one in context.selected_asset_check_keys}
        self._windows: dict[str, tuple[datetime, datetime]] = {}
        self._changes: Sequence[Restated] = ()

    def work(self) -> Iterator[Said]:
        """Pull, say what came of it, and fail if not all of it came.

        Raises:
            dg.Failure: it could not be pulled, or not to its end.
        """
        try:
            puller = self._source.puller(self._config)
            wanted = self._source.wanted(puller)
            if self._key not in self._context.selected_asset_keys:
                yield from self._look(Delivered(self._config.ledger, puller.system, wanted), [])
                return
            reports = self._pull(puller, wanted)
        except BillingError as error:
            if COMPLETE in self._checks:
                yield self._completed({}, str(error))
            raise failure(error, passing=not isinstance(error, (NotAsked, OverCap))) from error
        tell_late(self._context, self._config.ledger)
        scopes = {scope for report in reports for scope in report.scopes}
        delivered = Delivered(self._config.ledger, puller.system, wanted, scopes)
        whole = {**_together(reports), **_changed(self._changes, reports)}
        wrong = next((report for report in reports if report.failed), None)
        if wrong is None:
            yield self._materialized(delivered, whole)
        else:
            # A partition that lacks something must not look as if it were there.
            self._context.log_event(dg.AssetObservation(self._key, metadata=whole))
        yield from self._look(delivered, reports)
        if wrong is not None:
            raise failed(wrong.failed, wrong.grant)

    # -- pulling --------------------------------------------------------------------------------

    def _pull(self, puller: Puller, wanted: Wanted) -> list[Pulled]:
        self._windows = self._partitions.windows(self._context.partition_keys)
        start = min(start for start, _ in self._windows.values())
        end = max(end for _, end in self._windows.values())
        if end > midnight(self._now):
            raise NotAsked(
                f"{end:%Y-%m-%d %H:%M} is not over: days are pulled, with all their hours, when "
                "they are over (UTC)"
            )
        reports: list[Pulled] = []
        if self._asked["window"]:
            reports.append(self._pull_window(puller, wanted))
        if not reports or not reports[0].start <= start <= end <= reports[0].end:
            asked = self._source.pull(puller, start, end, restate=self._asked["restate"])
            reports.append(asked)
        return reports

    def _pull_window(self, puller: Puller, wanted: Wanted) -> Pulled:
        """Pull all that may still change, and say of each day whose figures have what they were."""
        since, _ = puller.window(self._now)
        ledger = self._config.ledger
        before = Delivered(ledger, puller.system, wanted)
        figures = before.days(since)
        known = before.pulled() | {day for day, _ in figures}
        report = self._source.pull(puller, None, None, restate=self._asked["restate"])
        after = Delivered(ledger, puller.system, wanted)
        self._changes = restated(figures, after.days(since), known)
        for change in self._changes:
            self._observe(change)
        return report

    def _observe(self, change: Restated) -> None:
        """Put a day's new figures where its partition's plot has the old ones."""
        start = datetime.combine(change.day, datetime.min.time(), timezone.utc)
        key = self._partitions.key(start)
        if (
            self._partitions.granularity != "daily"
            or start < self._partitions.start
            or key in self._windows
        ):
            return
        self._context.log_event(
            dg.AssetObservation(
                self._key,
                partition=key,
                metadata={
                    **money("billed", {change.currency: change.after}),
                    **money("billed_change", {change.currency: change.difference}),
                    f"{PREFIX}correction": dg.MetadataValue.bool(value=True),
                },
            )
        )

    # -- what is said ---------------------------------------------------------------------------

    def _materialized(self, delivered: Delivered, whole: Metadata) -> Said:
        figures = {key: delivered.sum(*window) for key, window in self._windows.items()}
        if len(figures) > 1:
            for key, found in figures.items():
                self._context.add_asset_metadata(_billed(found), self._key, key)
            return dg.MaterializeResult(asset_key=self._key, metadata=whole)
        (found,) = figures.values()
        return dg.MaterializeResult(asset_key=self._key, metadata={**whole, **_billed(found)})

    def _look(
        self, delivered: Delivered, reports: Sequence[Pulled]
    ) -> Iterator[dg.AssetCheckResult]:
        if COMPLETE in self._checks:
            yield self._complete(delivered, reports)
        if FRESH in self._checks:
            yield self._fresh(delivered)

    def _complete(self, delivered: Delivered, reports: Sequence[Pulled]) -> dg.AssetCheckResult:
        missing = dict(delivered.incomplete)
        missing.update(item for report in reports for item in report.incomplete.items())
        why = next((report.failed for report in reports if report.failed), "")
        if missing and not why:
            why = f"{len(missing)} could not be pulled to its end"
        return self._completed(missing, why)

    def _completed(self, missing: Mapping[str, str], why: str) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=not why,
            asset_key=self._key,
            check_name=COMPLETE,
            severity=dg.AssetCheckSeverity.ERROR,
            description=why or "all of it is there",
            metadata=table("incomplete", ("what", "why"), sorted(missing.items())),
        )

    def _fresh(self, delivered: Delivered) -> dg.AssetCheckResult:
        days = self._source.more.get("fresh_days", 1)
        newest = delivered.newest()
        wanted = midnight(self._now) - timedelta(days=days - 1)
        provisional = sum(one.state == "provisional" for one in delivered.slices)
        said = "nothing was pulled yet"
        if newest is not None:
            last = newest - timedelta(microseconds=1)
            said = f"there are figures up to {last:%Y-%m-%d}"
            if provisional:
                said += f"; the newest of them are provisional ({provisional} so far)"
        metadata = counts({"provisional": provisional})
        if newest is not None:
            metadata[f"{PREFIX}newest"] = dg.MetadataValue.timestamp(newest)
        return dg.AssetCheckResult(
            passed=newest is not None and newest >= wanted,
            asset_key=self._key,
            check_name=FRESH,
            severity=dg.AssetCheckSeverity.WARN,
            description=said,
            metadata=metadata,
        )


def _billed(found: Sum) -> Metadata:
    """Return the figures of one partition."""
    return {
        "dagster/row_count": dg.MetadataValue.int(found.rows),
        **money("billed", found.billed),
        **texts({"state": found.state or ""}),
        **table(
            "kinds",
            ("kind", "billed", "currency", "lines"),
            [
                (one.kind, exact(one.billed), one.currency, one.lines)
                for one in found.kinds[:_KINDS_SHOWN]
            ],
        ),
    }


def _changed(changes: Sequence[Restated], reports: Sequence[Pulled]) -> Metadata:
    """Return which days have other figures now, and what was final and is not what it was."""
    difference: dict[str, Decimal] = {}
    for change in changes:
        before = difference.get(change.currency, Decimal(0))
        difference[change.currency] = before + change.difference
    return {
        **money("restated", difference),
        **counts({"restated_days": len({change.day for change in changes})}),
        **table(
            "changes",
            ("day", "currency", "before", "after", "difference"),
            [
                (
                    str(one.day),
                    one.currency,
                    exact(one.before),
                    exact(one.after),
                    exact(one.difference),
                )
                for one in changes[:_CHANGES_SHOWN]
            ],
        ),
        **table(
            "changes_of_final",
            ("what", "currency", "before", "after"),
            [
                (one.slice, currency, one.before.get(currency, "0"), one.after.get(currency, "0"))
                for report in reports
                for one in report.changes
                for currency in sorted(one.difference)
            ],
        ),
    }


def _together(reports: Sequence[Pulled]) -> Metadata:
    """Return what a run did, in all of its pulls."""

    def total(name: str) -> int:
        return sum(getattr(report, name) for report in reports)

    names = "slices published unchanged closed provisional held_back requests".split()
    looking: dict[str, Decimal] = {}
    for report in reports:
        if report.cost is not None and report.currency is not None:
            spent = looking.get(report.currency, Decimal(0))
            looking[report.currency] = spent + Decimal(report.cost)
    return {
        **texts({"source": reports[0].source, "puller": reports[0].puller}),
        **counts({name: total(name) for name in names}),
        **money("looking", looking),
        **lines("notes", dict.fromkeys(note for one in reports for note in one.notes)),
        **lines("moved", dict.fromkeys(moved for one in reports for moved in one.moved)),
        **table(
            "incomplete",
            ("what", "why"),
            [item for one in reports for item in sorted(one.incomplete.items())],
        ),
    }


__all__ = [
    "Billed",
    "create_adls_insights_asset_and_schedule",
    "create_aws_insights_asset_and_schedule",
    "create_azure_insights_asset_and_schedule",
    "create_bill_asset_and_schedule",
    "create_databricks_insights_asset_and_schedule",
    "create_focus_insights_asset_and_schedule",
    "create_gcp_insights_asset_and_schedule",
    "create_gcs_insights_asset_and_schedule",
    "create_s3_insights_asset_and_schedule",
    "get_cost_data_for_day",
    "get_cost_data_for_hour",
]
