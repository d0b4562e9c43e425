"""Brings later figures to Dagster, in any process: of settlement, and of steps that were killed.

What the ledger has now is compared with what Dagster's event log tells, and the difference is told.
So it is right after whatever has happened, doing it again does nothing, and what is remembered
between two times (`State`) only spares looking at runs that have not changed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from dagster import DagsterInstance

from costinsights.config import load
from costinsights.dagster.figures import Figures
from costinsights.dagster.metadata import About
from costinsights.dagster.places import (
    KEPT_SECONDS,
    alone,
    facts_of,
    forget_old,
    is_held,
    state_path,
)
from costinsights.dagster.targets import Target, Who, share_out, targets, who
from costinsights.dagster.told import Key, Log
from costinsights.exporter import ExporterUnavailable
from costinsights.guard import suppressed
from costinsights.ledger.live import literal
from costinsights.ledger.store import open_store
from costinsights.surroundings import untraced

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from dagster import DagsterRun

    from costinsights.dagster.targets import Facts
    from costinsights.ledger.store import Store

    Progress = Callable[[str, int, int | None], None]

RUNS_AT_ONCE = 200
_DAY = 86_400
# What runs outside of runs, and is nevertheless Dagster's.
_OUTSIDE = ("sensor", "schedule")
# A charge changes by a further entry, which has a better basis, a later revision or a later end.
_ENTRY = "hash(charge_id, revision, basis, amount, currency, ended_at)"


class State(msgspec.Struct):
    """What the runs had when Dagster was told of them last."""

    runs: dict[str, str] = {}


class Reported(NamedTuple):
    """What `report_costs` has done."""

    runs: int
    """Runs that were looked at: they have charges that Dagster may not have been told of."""
    events: int
    """Observations that were added to Dagster's event log."""
    going_on: int
    """Runs that have not ended: they tell it themselves, and what they leave is for the next time."""
    unknown: int
    """Runs that this instance of Dagster does not have."""

    def __str__(self) -> str:
        parts = [f"{self.runs:,} runs compared, {self.events:,} observations added"]
        if self.going_on:
            parts.append(f"{self.going_on:,} still going on")
        if self.unknown:
            parts.append(f"{self.unknown:,} of another instance")
        return ", ".join(parts)


def report_costs(
    instance: DagsterInstance | None = None,
    ledger: str | os.PathLike[str] | None = None,
    *,
    runs: Collection[str] | None = None,
    everything: bool = False,
    report_url: str = "",
    progress: Progress | None = None,
) -> Reported:
    """Tell Dagster what it does not know yet of what finished runs have cost.

    Args:
        instance: Where to; that of ``DAGSTER_HOME`` by default.
        ledger: The folder of the ledger; that of the configuration by default.
        runs: Only these runs, changed or not.
        everything: Look at all runs, and not only at those that have changed since the last time.
        report_url: As in the exporter's options.
        progress: Gets what is being done, how much of it, and of how much.

    Raises:
        ExporterUnavailable: there is no instance, or DuckDB is not installed; the text says what
            to do.
        LedgerError: the ledger is damaged.
    """
    place = os.fspath(ledger) if ledger is not None else load().ledger
    with suppressed(), untraced():
        where = DagsterInstance.get() if instance is None and _has_home() else instance
        if where is None:
            raise ExporterUnavailable(
                "DAGSTER_HOME is not set: without it nobody knows which Dagster is meant"
            )
        if not os.path.isdir(place):
            return Reported(0, 0, 0, 0)
        try:
            with alone(place), open_store(place) as store:
                late = _Late(store, place, Log(where, report_url), progress or _nothing)
                return late.work(runs, everything=everything)
        except ImportError as error:
            raise ExporterUnavailable(str(error)) from error
        finally:
            if instance is None:
                where.dispose()


def _has_home() -> bool:
    return bool(os.environ.get("DAGSTER_HOME"))


class _Late:
    """One time that Dagster is brought up to date."""

    def __init__(self, store: Store, ledger: str, log: Log, progress: Progress) -> None:
        self._store = store
        self._ledger = ledger
        self._log = log
        self._progress = progress
        self._events = 0

    def work(self, runs: Collection[str] | None, *, everything: bool) -> Reported:
        """See `report_costs`."""
        state = self._load()
        digests = self._digests()
        if runs is not None:
            digests = {run: digest for run, digest in digests.items() if run in runs}
        elif not everything:
            digests = {run: d for run, d in digests.items() if state.runs.get(run) != d}
        ready: dict[str, DagsterRun] = {}
        going_on = unknown = 0
        for run in digests:
            if run in _OUTSIDE:
                continue
            found = self._log.instance.get_run_by_id(run)
            if found is None:
                unknown += 1
                state.runs[run] = digests[run]
            elif not found.is_finished or is_held(self._ledger, run):
                going_on += 1
            else:
                ready[run] = found
        names = list(ready)
        for at in range(0, len(names), RUNS_AT_ONCE):
            some = names[at : at + RUNS_AT_ONCE]
            self._progress("comparing runs", at, len(names))
            self._tell_of_runs(some)
            state.runs.update((run, digests[run]) for run in some)
            self._save(state)
        for outside in _OUTSIDE:
            if outside in digests:
                self._tell_of_days(outside)
                state.runs[outside] = digests[outside]
        self._save(state)
        forget_old(self._ledger)
        return Reported(len(ready), self._events, going_on, unknown)

    # -- what has changed -----------------------------------------------------------------------

    def _load(self) -> State:
        path = state_path(self._ledger)
        with suppress(FileNotFoundError, msgspec.MsgspecError), open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=State)
        return State()

    def _save(self, state: State) -> None:
        path = state_path(self._ledger)
        new = f"{path}.new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(state))
        os.replace(new, path)

    def _digests(self) -> dict[str, str]:
        """Return what each run has now, in a word; and what sensors and schedules have."""
        relation = self._store.relation()
        if relation is None:
            return {}
        outside = " ".join(f"WHEN {_labelled(name)} THEN '{name}'" for name in _OUTSIDE)
        kind = f"CASE WHEN coalesce(run, '') <> '' THEN run {outside} END"
        query = f"SELECT {kind} AS kind, count(*), sum({_ENTRY}) FROM {relation}"  # noqa: S608  our own
        rows = self._store.connection.execute(
            f"{query} GROUP BY 1 HAVING kind IS NOT NULL"
        ).fetchall()
        return {kind: f"{count}-{total:x}" for kind, count, total in rows}

    # -- telling --------------------------------------------------------------------------------

    def _tell_of_runs(self, runs: Sequence[str]) -> None:
        """Tell what is left of these runs, with one look at each of their assets."""
        wanted = ", ".join(literal(run) for run in runs)
        sums = self._sums(f"run IN ({wanted})")
        began = self._began(runs)
        plan: dict[Key, tuple[dict[Target, tuple[Figures, int]], About]] = {}
        for run in runs:
            facts = facts_of(self._ledger, run)
            steps: dict[str, list[tuple[Who, Figures]]] = {}
            for one, figures in sums.items():
                if one.run == run:
                    steps.setdefault(one.step, []).append((one, figures))
            for step, parts in steps.items():
                spent = self._spent(parts, facts.get(step), run, began)
                first = parts[0][0]
                plan[Key(run, step)] = spent, About(run, step, first.job, first.check)
        self._tell(plan, began)

    def _spent(
        self,
        parts: Iterable[tuple[Who, Figures]],
        facts: Facts | None,
        run: str,
        began: float,
    ) -> dict[Target, tuple[Figures, int]]:
        def made(asset: str) -> list[str]:
            return self._log.made(asset, run, began)

        return share_out(
            (figures, targets(one, facts, self._log.exists, made)) for one, figures in parts
        )

    def _tell_of_days(self, outside: str) -> None:
        """Tell what is left of what sensors or schedules have cost, by day."""
        since = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(seconds=KEPT_SECONDS)
        day = f"{since:%Y-%m-%d}"
        sums = self._sums(
            f"coalesce(run, '') = '' AND {_labelled(outside)} AND started_at >= '{day}'"
        )
        plan: dict[Key, tuple[dict[Target, tuple[Figures, int]], About]] = {}
        days: dict[tuple[str, str], list[tuple[Who, Figures]]] = {}
        for one, figures in sums.items():
            days.setdefault((one.day, one.sensor or one.schedule), []).append((one, figures))
        for (day, name), parts in days.items():
            spent = self._spent(parts, None, "", 0.0)
            plan[Key("", name, day)] = spent, About("", name, "", day=day)
        self._tell(plan, since.replace(tzinfo=timezone.utc).timestamp() - _DAY)

    def _tell(
        self,
        plan: Mapping[Key, tuple[dict[Target, tuple[Figures, int]], About]],
        since: float,
    ) -> None:
        assets = {target.asset for spent, _ in plan.values() for target in spent}
        already = self._log.told(sorted(assets), since)
        for key, (spent, about) in plan.items():
            self._events += len(self._log.tell(about, spent, already.get(key, {})))

    def _sums(self, where: str) -> dict[Who, Figures]:
        found: dict[Who, Figures] = {}
        for charge in self._store.charges(where):
            one = who(charge)
            if one is not None:
                found.setdefault(one, Figures()).add(charge)
        return found

    def _began(self, runs: Iterable[str]) -> float:
        moments = [moment for run in runs if (moment := self._log.began(run)) is not None]
        return min(moments, default=0.0)


def _labelled(name: str) -> str:
    return f"json_extract_string(labels, '$.{name}') IS NOT NULL"


def _nothing(_what: str, _done: int, _total: int | None) -> None:
    """Nobody watches."""
