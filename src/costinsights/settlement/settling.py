"""`settle`: from a system's own history to later, better figures for the charges in the ledger.

The order of work makes it safe to be interrupted at any point: everything is read and worked out
first, the entries are then appended one by one under ids that do not change, and an entry that says
what the ledger says already is not written. So settling again writes what is missing and nothing
else, and settling twice changes nothing.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from costinsights import config as configuration
from costinsights.guard import suppressed
from costinsights.plugins import HISTORIES, find
from costinsights.pricing import PriceBook, PriceBookError
from costinsights.pricing.line import EXACT_PLACES
from costinsights.pricing.pricer import price_of
from costinsights.records import (
    BASIS_RANK,
    Charge,
    decimal_text,
)
from costinsights.settlement.allocation import MICROSECOND
from costinsights.settlement.charging import LOST, Charging, is_open, plain, text_of, waiting_of
from costinsights.settlement.costing import (
    PASSING,
    Cost,
    Costing,
    Pool,
    costs,
    is_own,
    joined,
)
from costinsights.settlement.history import Figure, History, HistoryError, Plan, Stretch, utc
from costinsights.settlement.matching import Matches, match
from costinsights.settlement.state import Busy, alone, leave_off, left_off
from costinsights.settlement.writing import write

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from costinsights.config import Config
    from costinsights.jobs import Waiting
    from costinsights.pricing.line import Price

IDLE = "IDLE"
SELF = "costinsights.self"
"""The label of what settlement itself costs."""

HOUR = timedelta(hours=1)
MONTH = timedelta(days=31)
"""How long a charge may wait to be asked for by its id, where the system keeps it so long."""
GRACE = timedelta(hours=1)
"""A run that is younger is not taken for lost: the system may not know it yet."""
LONGEST = timedelta(days=7)
"""For so long an open end is looked after by itself, and so long a query may have run to be split
over its hours."""

BETTER = "the charge has a better figure already"
NOT_KNOWN_YET = "the system does not know it yet"
DOUBTFUL = "several calls fit it, and nothing tells which"


class SettlementError(Exception):
    """Nothing can be settled; the text says why and what to do. `grant` is what is missing."""

    def __init__(self, message: str, *, grant: str = "") -> None:
        super().__init__(message)
        self.grant = grant


class NotAsked(SettlementError):
    """What was asked for cannot be: there is no such reader, or no such time."""


class WouldWake(SettlementError):
    """The system sleeps, and asking it would start it."""


class Settled(msgspec.Struct, kw_only=True):
    """What a settlement did, or with `dry_run` would do."""

    system: str
    since: datetime
    until: datetime
    dry_run: bool = False
    resumed: datetime | None = None
    """From where an earlier run had left something, before `since`."""
    plan: tuple[str, ...] = ()
    figures: int = 0
    """Queries in the history, our own not counted."""
    charges: int = 0
    """Charges of the ledger in this time that instrumented programs made."""
    found: dict[str, int] = {}
    """How the charges of figures were found: by id, tag or statement."""
    settled: int = 0
    """Charges that got a later figure now."""
    unchanged: int = 0
    """Charges that had this very figure already."""
    outside: int = 0
    """Queries that no instrumented program made."""
    added: int = 0
    """Those of them that became charges now."""
    running: int = 0
    """Charges of runs that go on, which got what they have used so far."""
    lost: int = 0
    """Charges of runs that the system no longer knows: they say so now, and are not asked for."""
    without: int = 0
    """Charges that the history has nothing about."""
    idle: int = 0
    """Rows of idle capacity, and of our own share of it, that are new or changed."""
    amounts: dict[str, dict[str, str]] = {}
    """What all of this comes to: by currency, of ``charges``, ``outside``, ``idle``, ``self``."""
    left: dict[str, int] = {}
    """Why figures were left for later or for good, and how many."""
    unpriced: dict[str, int] = {}
    """What the price book could not tell."""
    incomplete: list[str] = []
    """What the reader says of its history."""
    failed: str = ""
    """Why the history could not be read to its end."""
    grant: str = ""
    requests: int = 0
    spent: dict[str, str] = {}
    cost: str | None = None
    """What the requests of this run cost; None where nobody knows."""
    currency: str | None = None
    next_since: datetime | None = None
    """Where the next run begins by itself."""


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
    except HistoryError as error:
        raise SettlementError(str(error), grant=error.grant) from None
    except Exception as error:
        raise SettlementError(
            f"the reader for the history of {system!r} does not load: "
            f"{type(error).__name__}: {error}"
        ) from error


class _History(NamedTuple):
    """What was read, in an order that does not depend on the reader's."""

    figures: list[Figure]
    stretches: list[Stretch]
    known_from: datetime
    """Where the capacity that was read begins."""
    failed: str
    grant: str


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
        self._again = lost
        self._progress: Callable[[str, int, int | None], None] = progress or _nothing
        self._book = _price_book(config)
        self._charging = Charging(self._system, self._book.version, config.rules)
        self._oldest = now - min(reader.retention or MONTH, MONTH)
        self._sums: dict[str, dict[str, int]] = {}
        self._new: dict[str, Charge] = {}
        """What is to be written, by charge id."""

    def work(
        self,
        since: datetime | None,
        until: datetime | None,
        *,
        wake: bool,
        said: Callable[[Sequence[str]], None] | None,
    ) -> Settled:
        begin, end, resumed = self._period(since, until)
        self._reader.everything = self._everything
        if self._reader.by_id:
            self._reader.waiting = self._pending(begin, end)
            self._reader.pending = tuple(run.id for run in self._reader.waiting)
        plan = self._plan(begin, end)
        report = Settled(
            system=self._system, since=begin, until=end, resumed=resumed, dry_run=self._dry_run
        )
        report.plan = tuple(self._told(plan))
        if said is not None:
            said(report.plan)
        if plan.wakes is not None and not wake:
            raise WouldWake(
                f"{plan.wakes} Nothing was asked of it: say --wake if that is all right"
            )
        history = self._read(begin, end)
        horizon = min(end, self._now - self._reader.latency)
        costing = costs(
            history.figures,
            history.stretches,
            self._book,
            self._system,
            since=history.known_from,
            horizon=horizon,
            cut_off=bool(history.failed),
        )
        self._settle(report, history, costing)
        self._account(report)
        if not self._dry_run:
            if self._new:
                self._write()
            report.next_since = self._note(report, history, costing, horizon)
        report.failed, report.grant = history.failed, history.grant
        report.unpriced = costing.unpriced
        report.incomplete = [*self._reader.incomplete]
        report.amounts = {
            currency: {kind: decimal_text(units) for kind, units in kinds.items()}
            for currency, kinds in self._sums.items()
        }
        return report

    # -- what is to be read ---------------------------------------------------------------------

    def _period(
        self, since: datetime | None, until: datetime | None
    ) -> tuple[datetime, datetime, datetime | None]:
        """Return whole hours from begin to end, and where an earlier run had left off."""
        left = left_off(self._ledger, self._system)
        begin = since or left
        if begin is None:
            raise NotAsked(
                f"nothing of {self._system} has been settled in this ledger yet: say since when, "
                "--since 7d"
            )
        resumed = left if left is not None and left < begin else None
        begin = _hour(resumed or begin)
        if self._reader.retention is not None and begin < self._now - self._reader.retention:
            # An hour of which some has gone cannot be split any more.
            begin = _hour_after(self._now - self._reader.retention)
            self._reader.missing(
                f"the system keeps its history for {_days(self._reader.retention)}: what is older "
                "stays as it is"
            )
        end = min(_hour_after(until or self._now), self._now)
        if begin >= end:
            raise NotAsked(f"the time ends before it begins: since {begin}, until {end}")
        return begin, end, resumed

    def _plan(self, begin: datetime, end: datetime) -> Plan:
        try:
            return self._reader.plan(begin, end)
        except HistoryError as error:
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

    def _read(self, begin: datetime, end: datetime) -> _History:
        """Read the figures, those that ran beside them, and the capacity of all their time."""
        reader = self._reader
        figures: dict[object, Figure] = {}
        stretches: list[Stretch] = []
        failed = grant = ""
        known_from = begin
        try:
            reader.open()
            self._collect(figures, begin, end)
            first = min(
                (
                    figure.started_at
                    for figure in figures.values()
                    if figure.group is not None and figure.ended_at is not None
                ),
                default=begin,
            )
            first = max(_hour(first), begin - LONGEST)
            if reader.retention is not None:
                first = max(first, _hour_after(self._now - reader.retention))
            if first < begin:
                # What began before has its shares in hours that others ran in as well.
                self._collect(figures, first, begin)
            known_from = min(first, begin)
            stretches += reader.capacity(known_from, _hour_after(end))
        except HistoryError as error:
            failed, grant = str(error), error.grant
        except Exception as error:  # noqa: BLE001  a driver's: what was read is of use without it
            failed = reader.without_secrets(f"{type(error).__name__}: {error}".splitlines()[0])
        finally:
            reader.close()
        if failed and not figures:
            raise SettlementError(failed, grant=grant)
        return _History(sorted(figures.values(), key=_place), stretches, known_from, failed, grant)

    def _collect(self, figures: dict[object, Figure], begin: datetime, end: datetime) -> None:
        self._progress("reading the history", len(figures), None)
        for figure in self._reader.read(begin, end):
            key: object = figure.vendor_id or _place(figure)
            known = figures.get(key)
            if known is None or _is_later(figure, known):
                figures[key] = figure
            if not len(figures) % 1000:
                self._progress("reading the history", len(figures), None)

    # -- what becomes of the charges ------------------------------------------------------------

    def _settle(self, report: Settled, history: _History, costing: Costing) -> None:
        begin, end = report.since, report.until
        wanted = [
            at
            for at, figure in enumerate(history.figures)
            if not is_own(figure)
            and figure.started_at < end
            and (figure.ended_at is None or figure.ended_at > begin or figure.started_at >= begin)
        ]
        figures = [history.figures[at] for at in wanted]
        prices = [costing.costs[at] for at in wanted]
        programs, ours = self._charges(begin, end, figures)
        found = match(figures, programs, self._system, self._reader.skew)
        report.figures = len(figures)
        self._programs(report, figures, prices, found, ours)
        self._lost(report, programs, {one.charge.charge_id for one in found.of.values()})
        self._outside(report, figures, prices, found, ours)
        for pool in costing.pools:
            if pool.stretch.started_at < end and pool.stretch.ended_at > begin:
                self._pool(report, pool, ours)
        matched = {one.charge.charge_id for one in found.of.values()}
        within = [
            charge
            for charge in programs
            if text_of(begin) <= charge.ended_at and charge.started_at < text_of(end)
        ]
        report.charges = len(within)
        report.without = sum(charge.charge_id not in matched for charge in within)

    def _charges(
        self, begin: datetime, end: datetime, figures: Sequence[Figure]
    ) -> tuple[list[Charge], dict[str, Charge]]:
        """Return the charges of programs around this time, and those that settlement made, by id."""
        from costinsights.ledger.live import literal
        from costinsights.ledger.store import open_store

        first = min((figure.started_at for figure in figures), default=begin)
        if self._reader.lost:
            known = [run.started_at for run in self._reader.waiting if run.id in self._reader.lost]
            first = min([first, *(moment for moment in known if moment is not None)])
        lowest = min(first, begin) - HOUR - self._reader.skew
        highest = end + HOUR + self._reader.skew
        name = literal(self._system)
        programs: list[Charge] = []
        ours: dict[str, Charge] = {}
        self._progress("reading the ledger", 0, None)
        with open_store(self._ledger) as store:
            for charge in store.charges(
                f"(system = {name} OR resource_service = {name}) "
                f"AND ended_at >= TIMESTAMP '{_naive(lowest)}' "
                f"AND started_at < TIMESTAMP '{_naive(highest)}'"
            ):
                if charge.charge_id.startswith(f"{self._system}:"):
                    ours[charge.charge_id] = charge
                else:
                    programs.append(charge)
        return programs, ours

    def _pending(self, begin: datetime, end: datetime) -> tuple[Waiting, ...]:
        """Return the runs whose charges have no metered figure yet, oldest first, each once."""
        from costinsights.ledger.live import literal
        from costinsights.ledger.store import open_store

        with open_store(self._ledger) as store:
            found = {
                charge.vendor_id: waiting_of(charge)
                for charge in store.charges(
                    f"system = {literal(self._system)} AND vendor_id IS NOT NULL "
                    "AND (partial OR basis IN ('unknown', 'estimated')) "
                    # One that has run since long before may have come to its end now.
                    f"AND ended_at >= TIMESTAMP '{_naive(min(begin, self._oldest))}' "
                    f"AND started_at < TIMESTAMP '{_naive(end)}'"
                )
                if charge.vendor_id and (self._again or LOST not in charge.usage)
            }
        return tuple(sorted(found.values(), key=lambda run: (run.started_at or begin, run.id)))

    def _programs(
        self,
        report: Settled,
        figures: Sequence[Figure],
        prices: Sequence[Cost],
        found: Matches,
        ours: Mapping[str, Charge],
    ) -> None:
        """Give the charges of instrumented programs their later figures."""
        of: dict[str, list[int]] = {}
        for at, one in found.of.items():
            of.setdefault(one.charge.charge_id, []).append(at)
            report.found[one.how] = report.found.get(one.how, 0) + 1
        if found.doubtful:
            report.left[DOUBTFUL] = len(found.doubtful)
        for places in of.values():
            charge = found.of[places[0]].charge
            cost = _together([prices[at] for at in places])
            later = self._charging.later(charge, [figures[at] for at in places], cost)
            if cost.reason:
                _count(report.left, cost.reason)
            if later is None:
                continue
            if BASIS_RANK[later.basis] < BASIS_RANK[charge.basis]:
                _count(report.left, BETTER)
                continue
            self._sum(cost, "charges")
            report.running += later.partial
            if later == charge:
                report.unchanged += 1
            else:
                self._put(later)
                report.settled += not later.partial
            for at in places:
                self._take_back(ours.get(f"{self._system}:{figures[at].vendor_id}"))

    def _lost(self, report: Settled, programs: Sequence[Charge], matched: Collection[str]) -> None:
        """Have the charges of runs say so that the system does not know any more."""
        lost = self._reader.lost
        for charge in programs:
            why = lost.get(charge.vendor_id or "")
            if why is None or charge.charge_id in matched or not is_open(charge):
                continue
            if self._now - utc(charge.started_at) < GRACE:
                _count(report.left, NOT_KNOWN_YET)
                continue
            report.lost += 1
            self._put(msgspec.structs.replace(charge, usage={**charge.usage, LOST: why}))

    def _take_back(self, charge: Charge | None) -> None:
        """Leave nothing on a charge of `--all` whose query has since come to a program's charge."""
        if charge is not None and charge.amount is not None and Decimal(charge.amount):
            self._put(msgspec.structs.replace(charge, amount=decimal_text(0), usage={"time_ns": 0}))

    def _outside(
        self,
        report: Settled,
        figures: Sequence[Figure],
        prices: Sequence[Cost],
        found: Matches,
        ours: Mapping[str, Charge],
    ) -> None:
        """Write charges for queries that no instrumented program made, or say what they come to."""
        for at, (figure, cost) in enumerate(zip(figures, prices, strict=True)):
            # What is in doubt is probably a program's, and would count twice.
            if at in found.of or at in found.doubtful:
                continue
            report.outside += 1
            if cost.reason in PASSING:
                if self._everything:
                    _count(report.left, cost.reason)
                continue
            self._sum(cost, "outside")
            if not self._everything or figure.vendor_id is None:
                continue
            if cost.reason:
                _count(report.left, cost.reason)
            charge_id = f"{self._system}:{figure.vendor_id}"
            known = ours.get(charge_id)
            charge = self._charging.of_query(figure, charge_id, cost, known)
            if charge == known:
                report.unchanged += 1
            else:
                self._put(charge, first=known is None)
                report.added += 1

    # -- what is nobody's call ------------------------------------------------------------------

    def _pool(self, report: Settled, pool: Pool, ours: Mapping[str, Charge]) -> None:
        """Write what of a stretch was idle, and what we used of it ourselves."""
        stretch = pool.stretch
        seconds = (stretch.ended_at - stretch.started_at) // timedelta(seconds=1)
        number = f"#{pool.number}" if pool.number > 1 else ""
        when = f"{stretch.group}:{stretch.started_at:%Y-%m-%dT%H:%M:%SZ}/{seconds}{number}"
        length = (stretch.ended_at - stretch.started_at) // MICROSECOND * 10**9
        for kind, operation, amount, labels in (
            ("idle", IDLE, pool.idle, {"rule": "idle"}),
            ("self", "SETTLE", pool.own, {SELF: "settle", "rule": "self"}),
        ):
            charge_id = f"{self._system}:{kind}:{when}"
            known = ours.get(charge_id)
            if not amount and known is None:
                continue
            capacity = length * amount // pool.units if pool.units else 0
            cost = Cost(amount, pool.price, "allocated", capacity)
            self._sum(cost, kind)
            usage: dict[str, int | float | str] = {}
            if capacity:
                usage["capacity_seconds"] = decimal_text(capacity)
            charge = self._charging.made(
                charge_id,
                stretch.started_at,
                stretch.ended_at,
                stretch.resource,
                operation,
                labels,
                usage,
                cost,
                known,
            )
            if charge != known:
                self._put(charge, first=known is None)
                report.idle += 1

    def _account(self, report: Settled) -> None:
        """Price our own requests; where they are billed each, they are a charge like any other."""
        reader = self._reader
        report.requests = reader.requests
        report.spent = {name: str(quantity) for name, quantity in reader.spent.items()}
        if not reader.spent:
            return
        place, dimensions = reader.place
        day = self._now.date().isoformat()
        found = self._book.quote(self._system, reader.spent, place.region, at=day, **dimensions)
        cost = Cost(reason=found.reason)
        if found.amount is not None:
            amount = int(found.amount.scaleb(EXACT_PLACES))
            report.cost, report.currency = decimal_text(amount), found.currency
            cost = Cost(amount, price_of(found), "metered")
        self._sum(cost, "self")
        charge_id = f"{self._system}:settle:{os.urandom(10).hex()}"
        usage: dict[str, int | float | str] = {"requests": reader.requests}
        usage.update((name, plain(quantity)) for name, quantity in reader.spent.items())
        self._put(
            self._charging.made(
                charge_id,
                self._now,
                self._now,
                place,
                "SETTLE",
                {SELF: "settle", "rule": "self"},
                usage,
                cost,
                None,
                service=self._config.service,
            ),
            first=True,
        )

    # -- the end --------------------------------------------------------------------------------

    def _put(self, charge: Charge, *, first: bool = False) -> None:
        """Have a charge written: as its `first` entry, or as a later one."""
        self._new[charge.charge_id] = (
            charge if first else msgspec.structs.replace(charge, revision=charge.revision + 1)
        )

    def _sum(self, cost: Cost, kind: str) -> None:
        if cost.amount is not None and cost.price is not None:
            kinds = self._sums.setdefault(cost.price.currency, {})
            kinds[kind] = kinds.get(kind, 0) + cost.amount

    def _write(self) -> None:
        total = len(self._new)
        write(
            self._ledger,
            self._new.values(),
            exporters=self._config.exporters or (),
            progress=lambda done: self._progress("writing", done, total),
        )

    def _note(
        self, report: Settled, history: _History, costing: Costing, horizon: datetime
    ) -> datetime | None:
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


# --- figures -------------------------------------------------------------------------------------


def _place(figure: Figure) -> tuple[datetime, str, str, str]:
    """Return what puts figures in an order, and tells those without an id apart."""
    what = f"{figure.ended_at}|{figure.group}|{figure.user}|{figure.tag}|{figure.text}"
    return figure.started_at, figure.vendor_id or "", what, repr(sorted(figure.meters.items()))


def _is_later(figure: Figure, other: Figure) -> bool:
    """Tell which of two figures of one query to believe: the one that ended, later."""
    if figure.ended_at is None or other.ended_at is None:
        return figure.ended_at is not None
    return figure.ended_at >= other.ended_at


def _together(several: Sequence[Cost]) -> Cost:
    """Return what the figures of one charge cost; the first that is not known decides."""
    if len(several) == 1:
        return several[0]
    unknown = next((cost for cost in several if cost.amount is None), None)
    if unknown is not None:
        return Cost(reason=unknown.reason)
    prices: list[Price] = list(
        dict.fromkeys(cost.price for cost in several if cost.price is not None)
    )
    if len({price.currency for price in prices}) != 1:
        return Cost(reason="its parts are priced in several currencies")
    return Cost(
        sum(cost.amount or 0 for cost in several),
        joined(prices),
        "allocated" if any(cost.basis == "allocated" for cost in several) else "metered",
        sum(cost.capacity for cost in several),
    )


def _nothing(_what: str, _done: int, _total: int | None) -> None:
    pass


def _count(reasons: dict[str, int], reason: str) -> None:
    reasons[reason] = reasons.get(reason, 0) + 1


# --- time ----------------------------------------------------------------------------------------


def _aware(moment: datetime | None) -> datetime | None:
    """Take a moment without a zone for UTC, as all of the ledger is."""
    return None if moment is None else utc(moment)


def _hour(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def _hour_after(moment: datetime) -> datetime:
    whole = _hour(moment)
    return whole if whole == moment else whole + HOUR


def _naive(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(" ")


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span.days != 1 else "a day"
