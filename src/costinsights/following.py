"""Asks in the background how runs are that their program has started and does not ask about.

A run is left to its program first. When it has not been asked for in a while, `Following` asks,
with `Follow.ask`, on a client of our own, and again, less and less often, until it has ended. None
of it happens on a thread of the program's, nothing of it is priced or traced, and there is neither a
thread nor a client while there is nothing to ask. So many requests a minute are made at most, and
each is counted (`costinsights.followed`).

Where asking is not allowed, or no client can be made, that is said once, and the charges stay
pending until `costinsights settle`.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.backoff import Backoff, spread
from costinsights.followed import note
from costinsights.guard import say, suppressed, swallow
from costinsights.jobs import Waiting
from costinsights.surroundings import untraced
from costinsights.troubles import trouble_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from costinsights.jobs import Begun, Follow, Key, Runs, State
    from costinsights.troubles import Trouble


class Pace(NamedTuple):
    """How often runs are asked for, in seconds."""

    quiet: float = 30.0
    """For so long the program has not asked for a run before we do."""
    slower: float = 1.5
    """After each question the next one is so many times as far away."""
    longest: float = 600.0
    apart: float = 1.0
    """Between two questions of this process, whatever they are about: 60 a minute at most."""
    patience: float = 7 * 86_400.0
    """For so long a run is asked for. What has not ended then is settlement's."""


PACE = Pace()
POLLS = 3
"""A program that asks every minute is given the time of so many of its questions."""
MOST_CLIENTS = 16
"""Of our own, at the same time; the runs of further places are settlement's."""
STRIKES = 3
"""So often in a row a place may fail for good, or a run be unknown, before we let it be."""
EXIT_SECONDS = 0.3


class _Run:
    """A run that is followed."""

    __slots__ = ("begun", "due", "first", "gap", "last", "strikes", "waiting")

    def __init__(self, begun: Begun, now: float) -> None:
        place = begun.span.target.resource
        extra: dict[str, Any] = begun.span.extra or {}
        self.begun = begun
        self.first = now
        self.last = 0.0  # when the program asked
        self.gap = PACE.quiet
        self.due = now + spread(self.gap)
        self.strikes = 0
        self.waiting = Waiting(
            begun.key[2] or "",
            begun.key[1],
            place.namespace,
            place.region,
            _moment(begun.span.started_at),
            place.address,
            place.service,
            dict(extra.get("u") or {}),
        )

    def heard(self, asked: float) -> None:
        """The program has asked for it itself: leave it to the program for longer."""
        if asked > self.last:
            between = asked - (self.last or self.first)
            self.last = asked
            self.due = max(self.due, asked + min(max(PACE.quiet, POLLS * between), PACE.longest))

    def goes_on(self, now: float) -> None:
        """It has not ended yet."""
        self.gap = min(self.gap * PACE.slower, PACE.longest)
        self.due = now + spread(self.gap)


class _Place:
    """Runs that are asked for through one client."""

    def __init__(self, system: str, region: str | None, follow: Follow, client: Any) -> None:
        self.system = system
        self.region = region
        self.follow = follow
        self.programs = client
        self.own: Any = None
        self.runs: dict[Key, _Run] = {}
        self.until = 0.0
        self.backoff = Backoff()
        self.strikes = 0

    def hang_up(self) -> None:
        own, self.own = self.own, None
        if own is not None:
            try:
                self.follow.close(own)
            except Exception as error:  # noqa: BLE001  it is no longer needed
                swallow(f"the client for jobs of {self.system}", error)


class Following:
    """Follows the runs of one process. `tend` is called about every second."""

    def __init__(self, runs: Runs, ledger: str) -> None:
        self._runs = runs
        self._ledger = ledger
        self._places: dict[Hashable, _Place] = {}
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._tending = threading.Lock()
        self._next = 0.0
        self._refused: set[Hashable] = set()
        self._told: set[str] = set()

    def tend(self) -> None:
        """Take up new runs and let go of ended ones; start to ask where something is due."""
        with self._tending:
            if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
                return  # a round is under way: all that is here belongs to its thread
            now = monotonic()
            self._take_up(now)
            self._let_go(now)
            if not any(self._due(place, now) for place in self._places.values()):
                return
            thread = threading.Thread(target=self._round, name="costinsights-jobs", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:
                self._thread = None  # the interpreter is shutting down: settlement has the rest

    def close(self) -> None:
        """Stop: what is not known now is settlement's."""
        self._stop.set()
        # `tend` may be at it on another thread; it begins nothing any more.
        if not self._tending.acquire(timeout=EXIT_SECONDS):
            return
        try:
            thread = self._thread
            if thread is not None and thread is not threading.current_thread():
                thread.join(EXIT_SECONDS)
            if thread is None or not thread.is_alive():
                for place in self._places.values():
                    place.hang_up()
                self._places.clear()
        finally:
            self._tending.release()

    # -- what is to be asked --------------------------------------------------------------------

    def _take_up(self, now: float) -> None:
        begun = self._runs.begun
        while begun:
            new = begun.popleft()
            if not self._runs.is_open(new.key):
                continue  # it has ended
            key = (id(new.follow), new.key[0], new.follow.same(new.client))
            place = self._places.get(key)
            if key in self._refused:
                continue
            if place is None:
                if len(self._places) >= MOST_CLIENTS:
                    continue
                region = new.span.target.resource.region
                place = self._places[key] = _Place(new.key[0], region, new.follow, new.client)
            place.runs[new.key] = _Run(new, now)

    def _let_go(self, now: float) -> None:
        for key, place in list(self._places.items()):
            for name, run in list(place.runs.items()):
                asked = self._runs.asked.get(name)
                if asked is None or now - run.first > PACE.patience:
                    del place.runs[name]
                else:
                    run.heard(asked)
            if not place.runs:
                place.hang_up()
                del self._places[key]

    def _due(self, place: _Place, now: float) -> bool:
        return place.until <= now and any(run.due <= now for run in place.runs.values())

    # -- asking, on a thread of its own ---------------------------------------------------------

    def _round(self) -> None:
        """Ask for all that is due now."""
        with suppressed(), untraced():
            for key, place in list(self._places.items()):
                try:
                    while not self._stop.is_set() and self._due(place, monotonic()):
                        if self._stop.wait(max(0.0, self._next - monotonic())):
                            return
                        self._next = monotonic() + PACE.apart
                        self._ask(key, place)
                except Exception as error:  # noqa: BLE001  ours must not reach the program
                    swallow(f"following jobs of {place.system}", error)
                    self._give_up(key, place, type(error).__name__)

    def _ask(self, key: Hashable, place: _Place) -> None:
        now = monotonic()
        some = self._some(place, now)
        if not some:
            return
        try:
            if place.own is None:
                place.own = place.follow.client(place.programs)
            states = list(place.follow.ask(place.own, [run.waiting for run in some]))
        except Exception as error:  # noqa: BLE001  every client has its own classes
            trouble = trouble_of(error)
            requests = place.follow.requests if place.own is not None else 0
            self._note(place, requests, trouble.code)
            self._failed(key, place, some, trouble)
            return
        self._note(place, place.follow.requests)
        place.backoff.succeeded()
        place.strikes = 0
        begun = {run.begun.key: run for run in some}
        for run in some:
            run.goes_on(now)
        for state in states:
            found = begun.get((place.system, state.within, state.id))
            if found is not None:
                self._tell(place, found, state)

    def _note(self, place: _Place, requests: int, failed: str = "") -> None:
        note(
            self._ledger,
            place.system,
            place.region,
            requests=requests,
            failed=failed,
            meter=place.follow.meter,
        )

    def _some(self, place: _Place, now: float) -> Sequence[_Run]:
        """Return as many as one request takes: what is due, and what soon would be."""
        for name, run in list(place.runs.items()):
            asked = self._runs.asked.get(name)
            if asked is None:
                del place.runs[name]  # the program has seen its end meanwhile
            else:
                run.heard(asked)
        soon = now + PACE.quiet / 2
        found = sorted((run for run in place.runs.values() if run.due <= soon), key=_by_due)
        return found[: place.follow.batch] if found and found[0].due <= now else ()

    def _tell(self, place: _Place, run: _Run, state: State) -> None:
        run.strikes = 0
        watch = run.begun.watch
        if state.done and (state.usage is not None or state.error is not None):
            watch.ends(place.system, state)
            place.runs.pop(run.begun.key, None)
        elif state.done:
            place.runs.pop(run.begun.key, None)  # it has no figures: settlement may have
        elif state.usage is not None:
            watch.goes_on(place.system, state)

    def _failed(self, key: Hashable, place: _Place, some: Sequence[_Run], trouble: Trouble) -> None:
        """Decide what an error means."""
        now = monotonic()
        if trouble.kind in ("throttled", "passing"):
            place.until = now + place.backoff.failed(trouble.after)
        elif trouble.kind == "unknown" and len(some) == 1:
            (run,) = some
            run.strikes += 1
            run.goes_on(now)
            if run.strikes >= STRIKES:
                place.runs.pop(run.begun.key, None)
        elif trouble.kind == "expired" and place.strikes < STRIKES and place.own is not None:
            place.strikes += 1
            place.hang_up()  # the next client may get credentials that are valid
            place.until = now + place.backoff.failed(trouble.after)
        else:
            self._give_up(key, place, trouble.code)

    def _give_up(self, key: Hashable, place: _Place, code: str) -> None:
        """Ask no more here, and say so once."""
        self._refused.add(key)
        self._places.pop(key, None)
        place.runs.clear()
        place.hang_up()
        if place.system not in self._told:
            self._told.add(place.system)
            say(
                f"costinsights: {place.system} does not let us ask how jobs are ({code}); those that "
                f"the program does not ask for stay pending until  costinsights settle "
                f"{place.system}  (follow_jobs = false ends the asking)"
            )


def _by_due(run: _Run) -> float:
    return run.due


def _moment(nanoseconds: int) -> Any:
    from datetime import datetime, timedelta, timezone

    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=nanoseconds // 1000)
