"""`settle`: from a system's own history to later, better figures for the charges in the ledger.

The order of work makes it safe to be interrupted at any point: everything is read (`reading`) and
worked out (`costing`, `deciding`) first, the entries are then appended one by one (`writing`) under
ids that do not change, and an entry that says what the ledger says already is not written. So
settling again writes what is missing and nothing else, and settling twice changes nothing.
"""

from __future__ import annotations

import os
from contextlib import closing
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

from costinsights import config as configuration
from costinsights.guard import suppressed
from costinsights.plugins import HISTORIES, find
from costinsights.pricing import PriceBook, PriceBookError
from costinsights.records import decimal_text
from costinsights.settlement.allocation import MICROSECOND
from costinsights.settlement.costing import PASSING, costs, is_own
from costinsights.settlement.deciding import SELF, Decisions
from costinsights.settlement.history import History, Plan, utc
from costinsights.settlement.known import Open, open_runs
from costinsights.settlement.moments import days, hour, hour_after
from costinsights.settlement.reading import LONGEST, read
from costinsights.settlement.settled import NotAsked, Settled, SettlementError, WouldWake
from costinsights.settlement.state import Busy, alone, leave_off, left_off
from costinsights.settlement.writing import write
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from costinsights.config import Config
    from costinsights.settlement.costing import Costing
    from costinsights.settlement.reading import Read

__all__ = [
    "SELF",
    "NotAsked",
    "Settled",
    "SettlementError",
    "WouldWake",
    "reader_of",
    "settle",
    "systems",
]


def settle(
    system: str,
    since: datetime | None = None,
    until: datetime | None = None,
    *,
    all: bool = False,  # noqa: A002  as it is called on the command line
    dry_run: bool = False,
    wake: bool = False,
    lost: bool = False,
    ledger: str | os.PathLike[str] | None = None,
    config: Any = None,
    history: History | None = None,
    now: datetime | None = None,
    said: Callable[[Sequence[str]], None] | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Settled:
    """Settle the charges of a system from its own history, from `since` to `until`.

    Args:
        system: The system's key, ``aws.redshift``.
        since: Where to begin; None goes on from where the last run left off.
        until: Where to end; None is now. Both in UTC, and widened to whole hours.
        all: Also write charges for queries that ran outside of any instrumented program.
        dry_run: Read and work out everything, and write nothing.
        wake: Ask the system even where it is paused and would be started by that.
        lost: Ask again for runs that the system did not know any more when it was last asked.
        ledger: The ledger's folder; the configuration's by default.
        config: A configuration file, or a mapping like one.
        history: A reader to use in place of the one that is installed for the system.
        now: The moment that counts as now.
        said: Gets the plan, line by line, before anything is asked of the system.
        progress: Gets what is being done, how much of it is done, and of how much (None: unknown).

    Raises:
        SettlementError: there is no reader for the system, its options are wrong, a permission is
            missing, another run is at work, or it sleeps (`WouldWake`).
        costinsights.ledger.writer.LedgerError: the ledger cannot be read or written.
        ImportError: DuckDB is not installed.
    """
    loaded = configuration.load(ledger=None if ledger is None else os.fspath(ledger), config=config)
    at = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    reader = history or reader_of(system, loaded)
    try:
        with suppressed(), alone(loaded.ledger, system):
            run = _Run(
                reader, loaded, at, everything=all, dry_run=dry_run, lost=lost, progress=progress
            )
            return run.work(_aware(since), _aware(until), wake=wake, said=said)
    except Busy as error:
        raise SettlementError(str(error)) from None


def systems() -> dict[str, str]:
    """Return the systems that can be settled, with the place of each one's reader."""
    return {name: plugin.value for name, plugin in sorted(find(HISTORIES).items())}


def reader_of(system: str, config: Config) -> History:
    """Make the reader of a system, with its options.

    Raises:
        SettlementError: there is none, or its options are wrong.
    """
    plugins = find(HISTORIES)
    if system not in plugins:
        nearest = configuration.nearest(system, plugins)
        known = ", ".join(sorted(plugins)) or "none"
        hint = f"did you mean {nearest}?" if nearest else f"known are: {known}"
        raise NotAsked(f"there is no reader for the history of {system!r}; {hint}")
    try:
        kind = cast("type[History]", plugins[system].load())
        return kind(config.settlement.get(system, {}))
    except VendorError as error:
        raise SettlementError(str(error), grant=error.grant) from None
    except Exception as error:
        raise SettlementError(
            f"the reader for the history of {system!r} does not load: "
            f"{type(error).__name__}: {error}"
        ) from error


class _Run:
    """One settlement."""

    def __init__(
        self,
        reader: History,
        config: Config,
        now: datetime,
        *,
        everything: bool,
        dry_run: bool,
        lost: bool,
        progress: Callable[[str, int, int | None], None] | None,
    ) -> None:
        self._reader = reader
        self._system = reader.system
        self._config = config
        self._ledger = config.ledger
        self._now = now
        self._everything = everything
        self._dry_run = dry_run
        self._lost = lost
        self._progress: Callable[[str, int, int | None], None] = progress or _nothing
        reader.progress = self._progress
        self._book = _price_book(config)
        self._decisions = Decisions(
            reader, self._book, config.rules, now, everything=everything, service=config.service
        )

    def work(
        self,
        since: datetime | None,
        until: datetime | None,
        *,
        wake: bool,
        said: Callable[[Sequence[str]], None] | None,
    ) -> Settled:
        reader = self._reader
        end = min(hour_after(until or self._now), self._now)
        runs = self._open_runs(end)
        begin, resumed = self._begin(since, end, runs)
        reader.everything = self._everything
        reader.waiting = runs.waiting
        reader.pending = tuple(dict.fromkeys(run.id for run in runs.waiting))
        report = Settled(
            system=self._system, since=begin, until=end, resumed=resumed, dry_run=self._dry_run
        )
        with closing(reader):  # also where nothing is asked of it
            plan = self._plan(begin, end)
            report.plan = tuple(self._told(plan))
            if said is not None:
                said(report.plan)
            if plan.wakes is not None and not wake:
                raise WouldWake(
                    f"{plan.wakes} Nothing was asked of it: say --wake if that is all right"
                )
            history = read(reader, begin, end, self._now, self._progress)
        horizon = min(end, self._now - reader.latency)
        costing = costs(
            history.figures,
            history.stretches,
            self._book,
            self._system,
            since=history.known_from,
            horizon=horizon,
            cut_off=bool(history.failed),
        )
        self._progress("reading the ledger", 0, None)
        self._decisions.settle(report, history.figures, costing, self._ledger)
        self._decisions.expire(report, runs.expired)
        self._decisions.account(report)
        if not self._dry_run:
            if self._decisions.new:
                self._write()
            report.next_since = self._note(report, history, costing, horizon)
        report.failed, report.grant = history.failed, history.grant
        report.unpriced = costing.unpriced
        report.incomplete = [*reader.incomplete]
        report.amounts = {
            currency: {kind: decimal_text(units) for kind, units in kinds.items()}
            for currency, kinds in self._decisions.sums.items()
        }
        return report

    # -- what is to be read ---------------------------------------------------------------------

    def _open_runs(self, end: datetime) -> Open:
        if not self._reader.by_id:
            return Open((), ())
        retention = self._reader.retention
        return open_runs(self._ledger, self._system, self._now, end, retention, lost=self._lost)

    def _begin(
        self, since: datetime | None, end: datetime, runs: Open
    ) -> tuple[datetime, datetime | None]:
        """Return the hour to begin with, and where an earlier run had left off."""
        left = left_off(self._ledger, self._system)
        begin = since or left
        if begin is None and self._reader.by_id and not self._everything:
            begin = min([run.started_at or end for run in runs.waiting], default=end)
        if begin is None:
            raise NotAsked(
                f"nothing of {self._system} has been settled in this ledger yet: say since when, "
                "--since 7d"
            )
        resumed = left if left is not None and left < begin else None
        begin = hour(resumed or begin)
        if since is None and begin >= end:
            begin = hour(end - MICROSECOND)  # a run on the hour, after one on the hour
        retention = self._reader.retention
        if retention is not None and begin < self._now - retention:
            # An hour of which some has gone cannot be split any more.
            begin = hour_after(self._now - retention)
            self._reader.missing(
                f"the system keeps its history for {days(retention)}: what is older stays as it is"
            )
        if begin >= end:
            raise NotAsked(f"the time ends before it begins: since {begin}, until {end}")
        return begin, resumed

    def _plan(self, begin: datetime, end: datetime) -> Plan:
        try:
            return self._reader.plan(begin, end)
        except VendorError as error:
            raise SettlementError(str(error), grant=error.grant) from None

    def _told(self, plan: Plan) -> Iterator[str]:
        yield from plan.reads
        if plan.meters:
            place, dimensions = self._reader.place
            found = self._book.quote(self._system, plan.meters, place.region, **dimensions)
            yield (
                f"That costs {found.amount:f} {found.currency} at most."
                if found.amount is not None
                else f"What that costs is not known: {found.reason}"
            )

    # -- the end ------------------------------------------------------------------------------------

    def _write(self) -> None:
        total = len(self._decisions.new)
        write(
            self._ledger,
            self._decisions.new.values(),
            exporters=self._config.exporters or (),
            progress=lambda done: self._progress("writing", done, total),
        )

    def _note(
        self, report: Settled, history: Read, costing: Costing, horizon: datetime
    ) -> datetime:
        """Note where the next run has to begin, and return it."""
        left = left_off(self._ledger, self._system)
        reached = report.since if history.failed else horizon
        open_since = [
            figure.started_at
            for figure, cost in zip(history.figures, costing.costs, strict=True)
            if (cost.reason in PASSING or figure.ended_at is None)
            and not is_own(figure)
            and figure.started_at >= report.since
        ]
        oldest = self._now - min(self._reader.retention or LONGEST, LONGEST)
        following = max(min([max(reached, left or reached), *open_since]), oldest)
        leave_off(self._ledger, self._system, following)
        return following


def _price_book(config: Config) -> PriceBook:
    try:
        if not config.resources and not config.describe:
            return PriceBook.load(*config.price_books, capacities=config.capacities)
        from costinsights.hourly import price_book, resources_of

        return price_book(config.price_books, config.capacities, resources_of(config))[0]
    except PriceBookError as error:
        raise SettlementError(str(error)) from None


def _nothing(_what: str, _done: int, _total: int | None) -> None:
    pass


def _aware(moment: datetime | None) -> datetime | None:
    """Take a moment without a zone for UTC, as all of the ledger is."""
    return None if moment is None else utc(moment)
