"""Pulls a source of a bill into the ledger: which slices, at what cost, and each in one step.

    from costinsights.billing import pull

    report = pull("aws.s3", start=datetime(2026, 11, 1, tzinfo=timezone.utc))

A slice is either as it was or as it is now. What a run cannot finish, it leaves for the next one
and says so. What looking costs is said beforehand, has a limit, and becomes a charge.
"""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from decimal import Decimal
from tempfile import TemporaryDirectory
from threading import Lock
from time import time
from typing import TYPE_CHECKING, cast

from costinsights import config as configuration
from costinsights.billing import slices as manifests
from costinsights.billing.loading import Work
from costinsights.billing.pulled import BillingError, Change, NotAsked, OverCap, Pulled
from costinsights.billing.puller import PullError, midnight
from costinsights.billing.slices import Manifest, Published, Pull, Wanted
from costinsights.guard import suppressed
from costinsights.ledger.store import connect
from costinsights.ledger.writer import make_folder
from costinsights.plugins import PULLERS, find
from costinsights.pricing import PriceBook, PriceBookError
from costinsights.pricing.line import EXACT_PLACES
from costinsights.pricing.pricer import price_of
from costinsights.records import decimal_text
from costinsights.settlement.charging import Charging, plain
from costinsights.settlement.costing import Cost
from costinsights.settlement.writing import write
from costinsights.vendor import VendorError, nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from duckdb import DuckDBPyConnection

    from costinsights.billing.puller import Plan, Puller
    from costinsights.billing.slices import Slice, State
    from costinsights.config import Config
    from costinsights.records import Charge

    Progress = Callable[[str, int, int | None], None]

AT_ONCE = 4
"""So many accounts are pulled beside each other."""
MEMORY = "640MB"
"""What DuckDB may use in all, of an account or of several."""
CAP = Decimal("0.20")
"""What a run may cost where nobody says otherwise: twenty pages of Cost Explorer."""
KEPT_SECONDS = 600
"""For so long a file that has been replaced stays, for those who read the bill as it was."""
SELF = "costinsights.self"


def sources() -> dict[str, list[str]]:
    """Return every SOURCE that can be pulled, with the pullers that answer it, best first."""
    found: dict[str, list[str]] = {}
    kinds = sorted(_kinds().items(), key=lambda item: -item[1].rank)
    for key, kind in kinds:
        for source in (key, *kind.answers):
            found.setdefault(source, []).append(key)
    return found


def pull(
    source: str,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    service: str = "",
    resource: str = "",
    path: str = "",
    granularity: str | None = None,
    restate: bool = False,
    cap: Decimal | None = CAP,
    dry_run: bool = False,
    ledger: str | None = None,
    config: Mapping[str, object] | None = None,
    puller: Puller | None = None,
    now: datetime | None = None,
    said: Callable[[Sequence[str]], None] | None = None,
    progress: Progress | None = None,
) -> Pulled:
    """Bring a source of the bill in, for the days that [`start`, `end`) touches.

    Args:
        source: ``aws.s3``, ``gcp``, ``azure.storage``, ``focus`` …, or a puller's own key.
        start: Where to begin; None for all that the provider may still change.
        end: Where to end, at most the last midnight (UTC): today is never imported.
        service: Only this service, as the provider calls it.
        resource: Only this bucket or storage account, where the source can tell.
        path: What a source needs on the command line: the file or folder of ``focus``.
        granularity: ``hourly`` or ``daily``, where the source has both.
        restate: Also pull slices that are final, and say what has changed.
        cap: What looking may cost, in the currency of its price; None for no limit.
        dry_run: Say what would be read and what that costs, and stop.
        ledger: The ledger's folder; None for the configured one.
        config: A configuration beside the files'.
        puller: Asks in place of the one that is configured.
        now: The moment to take for now, in tests.
        said: Gets the lines that say beforehand what will be read.
        progress: Gets what is being done, how much of it, and of how much.

    Raises:
        NotAsked: there is no such source or time.
        OverCap: it would cost more than `cap`.
        BillingError: nothing could be pulled; what failed for a part is in the report.
    """
    loaded = configuration.load(ledger=ledger, config=config)
    puller = puller or puller_of(source, loaded)
    puller.wanted = Wanted(service or puller.answers.get(source, ""), resource)
    puller.path = path
    if granularity is not None:
        if granularity not in puller.granularities:
            raise NotAsked(f"{puller.system} has {' or '.join(puller.granularities)} figures only")
        puller.granularity = granularity
    run = _Run(source, puller, loaded, now or datetime.now(timezone.utc), progress or nothing)
    with suppressed():
        return run.work(start, end, restate=restate, cap=cap, dry_run=dry_run, said=said)


def puller_of(source: str, config: Config) -> Puller:
    """Make the puller of a source: of those that answer it, the best that is configured.

    Raises:
        NotAsked: there is none.
        BillingError: its options are wrong.
    """
    known = sources()
    if source not in known:
        near = configuration.nearest(source, known)
        hint = f"did you mean {near}?" if near else f"known are: {', '.join(sorted(known))}"
        raise NotAsked(f"there is no source {source!r} of a bill; {hint}")
    kinds = _kinds()
    for key in known[source]:
        kind, options = kinds[key], config.billing.get(key, {})
        if key != known[source][-1] and kind.configured_by and kind.configured_by not in options:
            continue
        try:
            return kind(options)
        except VendorError as error:
            raise BillingError(str(error), grant=error.grant) from None
    raise AssertionError(source)  # pragma: no cover  the last one is always made


def _kinds() -> dict[str, type[Puller]]:
    return {key: cast("type[Puller]", plugin.load()) for key, plugin in find(PULLERS).items()}


class _Run:
    """One pull of one source, over all of its accounts."""

    def __init__(
        self, source: str, puller: Puller, config: Config, now: datetime, progress: Progress
    ) -> None:
        self._puller = puller
        self._source = source
        self._config = config
        self._directory = config.ledger
        self._now = now.astimezone(timezone.utc)
        self._today = midnight(self._now)
        self._progress = progress
        self._lock = Lock()
        self._sums: dict[str, Decimal] = {}
        self._done = self._total = 0
        self._cap: Decimal | None = None
        try:
            self._book = PriceBook.load(*config.price_books, capacities=config.capacities)
        except PriceBookError as error:
            raise BillingError(str(error)) from None

    def work(
        self,
        start: datetime | None,
        end: datetime | None,
        *,
        restate: bool,
        cap: Decimal | None,
        dry_run: bool,
        said: Callable[[Sequence[str]], None] | None,
    ) -> Pulled:
        begin, until = self._window(start, end)
        self._cap = cap
        report = Pulled(
            source=self._source,
            puller=self._puller.system,
            start=begin,
            end=until,
            granularity=self._puller.granularity,
            dry_run=dry_run,
        )
        accounts = self._puller.accounts()
        report.accounts = len(accounts)
        for account in accounts:
            account.wanted, account.granularity = self._puller.wanted, self._puller.granularity
            account.path, account.progress = self._puller.path, self._progress
        try:
            self._pull(
                accounts,
                report,
                (begin, until),
                started=start is not None,
                restate=restate,
                dry_run=dry_run,
                said=said,
            )
        finally:
            for account in accounts:
                with suppress(Exception):
                    account.close()
            self._account(accounts, report, written=not dry_run)
        report.billed = {currency: f"{amount:f}" for currency, amount in sorted(self._sums.items())}
        return report

    # -- what there is to do --------------------------------------------------------------------

    def _window(self, start: datetime | None, end: datetime | None) -> tuple[datetime, datetime]:
        begin, until = self._puller.window(self._now)
        begin = begin if start is None else midnight(_aware(start))
        until = until if end is None else min(_aware(end), self._today)
        if begin >= until:
            raise NotAsked(
                f"there is nothing to pull from {begin:%Y-%m-%d} to {until:%Y-%m-%d}: days are "
                "pulled when they are over (UTC)"
            )
        return begin, until

    def _pull(
        self,
        accounts: Sequence[Puller],
        report: Pulled,
        window: tuple[datetime, datetime],
        *,
        started: bool,
        restate: bool,
        dry_run: bool,
        said: Callable[[Sequence[str]], None] | None,
    ) -> None:
        manifest = manifests.load(self._directory)
        todo: list[tuple[Puller, list[Slice]]] = []
        plans: list[Plan] = []
        for account in accounts:
            account.published = [
                one for one in manifest.slices if one.slice.source == account.system
            ]
            try:
                account.open()
                wanted = self._wanted(account, manifest, window, started=started)
                left = self._left(account, manifest, wanted, report, restate=restate)
                if left:
                    plans.append(account.plan(left))
            except VendorError as error:
                self._failed(report, account, error)
                continue
            todo.append((account, left))
        self._total = sum(len(left) for _, left in todo)
        self._say(report, plans, said)
        if dry_run:
            return
        make_folder(manifests.folder(self._directory))
        _sweep(self._directory, manifest)
        busy = [(account, left) for account, left in todo if left]
        if not busy:
            return
        memory = f"{int(MEMORY.removesuffix('MB')) // min(len(busy), AT_ONCE)}MB"
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="costinsights-pull") as pool:
            waiting = [
                pool.submit(self._account_of, account, left, report, memory)
                for account, left in busy
            ]
            for one in waiting:
                one.result()

    def _wanted(
        self,
        account: Puller,
        manifest: Manifest,
        window: tuple[datetime, datetime],
        *,
        started: bool,
    ) -> list[Slice]:
        """Return the slices of the window, and without a beginning those that are not final yet."""
        begin, until = window
        found = list(account.slices(begin, until))
        if not started:
            mine = {one.scope for one in found}
            found += [
                one.slice
                for one in manifest.slices
                if one.state != "final"
                and one.slice.source == account.system
                and one.slice.scope in mine
                and one.slice.wanted == account.wanted.text
                and one.slice not in found
                and one.slice.end <= begin
            ]
        return sorted(found)

    def _left(
        self,
        account: Puller,
        manifest: Manifest,
        wanted: Sequence[Slice],
        report: Pulled,
        *,
        restate: bool,
    ) -> list[Slice]:
        """Return the slices that have to be pulled, and count the others."""
        report.slices += len(wanted)
        report.scopes = sorted({*report.scopes, *(slice_.scope for slice_ in wanted)})
        left: list[Slice] = []
        settled: list[tuple[Published, State]] = []
        for slice_ in wanted:
            known = manifest.of(slice_)
            version = account.version(slice_)
            same = (
                known is not None
                and version is not None
                and (known.version, known.granularity) == (version, account.granularity)
                and not known.held_back
            )
            if known is not None and known.state == "final" and not restate:
                report.closed += 1
                if version is not None and not same:
                    report.moved.append(slice_.told())
            elif known is not None and same:
                report.unchanged += 1
                state = account.state(slice_, self._now)
                if state != known.state:
                    settled.append((known, state))
            else:
                left.append(slice_)
        if settled:
            with manifests.changing(self._directory) as current:
                for known, state in settled:
                    found = current.of(known.slice)
                    if found is not None:
                        found.state = state
        return left

    def _say(
        self,
        report: Pulled,
        plans: Sequence[Plan],
        said: Callable[[Sequence[str]], None] | None,
    ) -> None:
        """Say what will be read and what that costs, and hold it against the cap."""
        lines = [line for plan in plans for line in plan.reads]
        meters: dict[str, int] = {}
        for plan in plans:
            for name, quantity in plan.meters.items():
                meters[name] = meters.get(name, 0) + quantity
        if meters:
            cost, currency = self._quote(meters)
            if cost is None:
                lines.append("What that costs is not known: the price book has no price for it.")
            else:
                lines.append(f"That costs {cost:f} {currency} at most.")
            if cost is not None and self._cap is not None and cost > self._cap:
                if said is not None:
                    said(lines)
                raise OverCap(
                    f"this would cost up to {cost:f} {currency}, more than the {self._cap:f} that "
                    f"it may: give it more with --cap {cost:f}, or ask for less"
                )
        report.plan = tuple(lines)
        if said is not None and lines:
            said(lines)

    # -- the work -------------------------------------------------------------------------------

    def _account_of(
        self, account: Puller, left: Sequence[Slice], report: Pulled, memory: str
    ) -> None:
        """Pull the slices of one account; what stops it stops no other."""
        with suppressed(), TemporaryDirectory(prefix="costinsights-") as scratch:
            connection = connect(scratch)
            try:
                connection.execute(f"SET memory_limit = '{memory}'")
                connection.execute("SET preserve_insertion_order = false")
                for slice_ in left:
                    try:
                        self._slice(account, slice_, connection, report)
                    except VendorError as error:
                        self._incomplete(account, slice_, error, report)
                        return
            finally:
                connection.close()

    def _slice(
        self, account: Puller, slice_: Slice, connection: DuckDBPyConnection, report: Pulled
    ) -> None:
        version = account.version(slice_)
        folder = os.path.join(
            manifests.folder(self._directory), manifests.PARTIAL, _safe(slice_.name)
        )
        with _alone(folder):
            work = Work(
                slice_,
                folder,
                connection,
                account.provider,
                version,
                lambda: self._hold(account),
            )
            account.pull(slice_, work)
            if account.version(slice_) != version:
                work.restart()
                raise PullError(f"{slice_.told()} has changed while it was read: pull it again")
            self._publish(account, slice_, work, version, report)
            work.forget()

    def _hold(self, account: Puller) -> None:
        """Hold what has been spent against the cap.

        Raises:
            PullError: it is reached.
        """
        if self._cap is None or not account.spent:
            return
        cost, currency = self._quote(account.spent)
        if cost is not None and cost > self._cap:
            raise PullError(
                f"{account.system}: looking has cost {cost:f} {currency} so far, more than the "
                f"{self._cap:f} that it may: give it more with --cap"
            )

    def _publish(
        self, account: Puller, slice_: Slice, work: Work, version: str | None, report: Pulled
    ) -> None:
        """Put the slice in the place of what it was."""
        place = manifests.folder(self._directory)
        make_folder(os.path.join(place, manifests.ROWS))
        name = f"{manifests.ROWS}/{_safe(slice_.name)}-{os.urandom(6).hex()}.parquet"
        path = os.path.join(place, name)
        done = work.finish(path, self._today)
        state = account.state(slice_, self._now)
        if done.provisional:
            state = "provisional"
        _to_the_disk(path)
        entry = Pull(self._now, done.rows, done.billed, state)
        with manifests.changing(self._directory) as manifest:
            known = manifest.of(slice_)
            if known is not None:
                manifest.slices.remove(known)
            manifest.incomplete.pop(slice_.told(), None)
            manifest.slices.append(
                Published(
                    slice=slice_,
                    path=name,
                    size=os.path.getsize(path),
                    version=version,
                    granularity=account.granularity,
                    state=state,
                    rank=2 * account.rank + (not slice_.wanted),
                    held_back=done.held_back,
                    pulls=[*([] if known is None else known.pulls), entry],
                )
            )
        with self._lock:
            report.published += 1
            report.rows += done.rows
            report.held_back += done.held_back
            report.provisional += state == "provisional"
            if known is not None and known.state == "final" and known.last.billed != done.billed:
                report.changes.append(_change(slice_, known.last.billed, done.billed))
            for currency, amount in done.billed.items():
                self._sums[currency] = self._sums.get(currency, Decimal(0)) + Decimal(amount)
            self._done += 1
            self._progress("pulling", self._done, self._total)

    # -- the end --------------------------------------------------------------------------------

    def _incomplete(
        self, account: Puller, slice_: Slice, error: VendorError, report: Pulled
    ) -> None:
        why = account.without_secrets(str(error))
        with manifests.changing(self._directory) as manifest:
            manifest.incomplete[slice_.told()] = why
        with self._lock:
            report.incomplete[slice_.told()] = why
            report.failed = report.failed or why
            report.grant = report.grant or error.grant

    def _failed(self, report: Pulled, account: Puller, error: VendorError) -> None:
        """Note that an account could not be asked at all."""
        report.failed = report.failed or account.without_secrets(str(error))
        report.grant = report.grant or error.grant

    def _quote(self, meters: Mapping[str, int | Decimal]) -> tuple[Decimal | None, str | None]:
        place, dimensions = self._puller.place
        day = self._now.date().isoformat()
        found = self._book.quote(self._puller.system, meters, place.region, at=day, **dimensions)
        return found.amount, found.currency

    def _account(self, accounts: Sequence[Puller], report: Pulled, *, written: bool) -> None:
        """Price our own requests; where they are billed each, they are a charge like any other."""
        spent: dict[str, int | Decimal] = {}
        for account in accounts:
            report.requests += account.requests
            report.notes += [note for note in account.incomplete if note not in report.notes]
            for name, quantity in account.spent.items():
                spent[name] = spent.get(name, 0) + quantity
        report.spent = {name: str(quantity) for name, quantity in spent.items()}
        if not spent:
            return
        place, dimensions = self._puller.place
        day = self._now.date().isoformat()
        found = self._book.quote(self._puller.system, spent, place.region, at=day, **dimensions)
        cost = Cost(reason=found.reason)
        if found.amount is not None:
            amount = int(found.amount.scaleb(EXACT_PLACES))
            report.cost, report.currency = decimal_text(amount), found.currency
            cost = Cost(amount, price_of(found), "metered")
        if written:
            usage: dict[str, int | float | str] = {"requests": report.requests}
            usage.update((name, plain(quantity)) for name, quantity in spent.items())
            charge: Charge = Charging(self._puller.system, self._book.version, ()).made(
                f"{self._puller.system}:pull:{os.urandom(10).hex()}",
                self._now,
                self._now,
                place,
                "PULL",
                {SELF: "pull", "rule": "self"},
                usage,
                cost,
                None,
                service=self._config.service,
            )
            write(self._directory, [charge], exporters=self._config.exporters or ())


def _change(slice_: Slice, before: dict[str, str], after: dict[str, str]) -> Change:
    difference = {
        currency: f"{Decimal(after.get(currency, '0')) - Decimal(before.get(currency, '0')):f}"
        for currency in sorted({*before, *after})
    }
    return Change(slice_.told(), before, after, difference)


@contextmanager
def _alone(folder: str) -> Generator[None]:
    """Keep another run off the same slice.

    Raises:
        PullError: one is at it.
    """
    make_folder(os.path.dirname(folder))
    path = f"{folder}.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.stat(path).st_ino == os.fstat(fd).st_ino
        except OSError:
            held = False
        if not held:
            raise PullError("another run is pulling this very slice: let it finish")
        yield
        os.unlink(path)
    finally:
        os.close(fd)


def _sweep(directory: str, manifest: Manifest) -> None:
    """Remove files that are no part of the bill any more."""
    folder = os.path.join(manifests.folder(directory), manifests.ROWS)
    named = {os.path.basename(one.path) for one in manifest.slices}
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        for entry in found:
            if entry.name not in named and entry.stat().st_mtime < time() - KEPT_SECONDS:
                with suppress(FileNotFoundError):
                    os.unlink(entry.path)


def _to_the_disk(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _safe(name: str) -> str:
    return "".join(char if char.isalnum() or char in "._-" else "_" for char in name)


def _aware(moment: datetime) -> datetime:
    """Take a moment without a zone for UTC, as all of the ledger is."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)
