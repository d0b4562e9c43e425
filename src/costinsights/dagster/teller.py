"""A thread of our own that tells Dagster what is left to tell when a step is over.

It is there while there is something to do. A process must not end before it is done, and Dagster's
step workers end without exit handlers, so it is one that Python waits for; but no longer than
`PATIENCE_SECONDS`, however long the event log takes.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from costinsights.guard import say, suppressed
from costinsights.surroundings import untraced

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_SECONDS = 10.0


class Teller:
    """Does one thing after another. What fails is left to ``costinsights export dagster``."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._working = False
        self._failed = False
        self._pid = os.getpid()

    def _forked(self) -> None:
        """Begin anew in a forked child: the thread, and who holds the lock, are the parent's."""
        self._jobs, self._changed = deque(), threading.Condition()
        self._working = False
        self._pid = os.getpid()

    def submit(self, job: Callable[[], None]) -> None:
        """Have it done soon, in order."""
        if self._pid != os.getpid():
            self._forked()
        with self._changed:
            self._jobs.append(job)
            if self._working:
                return
            done = threading.Event()
            try:
                # The one that works is a daemon: should the event log hang, Python does not wait
                # for it, but for the other, which waits so long and no longer.
                threading.Thread(
                    target=self._work, args=(done,), name="costinsights-dagster", daemon=True
                ).start()
                threading.Thread(
                    target=self._wait, args=(done,), name="costinsights-dagster-end", daemon=False
                ).start()
            except RuntimeError:
                return  # the interpreter is shutting down: a later process tells it
            self._working = True

    def wait(self, seconds: float) -> bool:
        """Wait until all is done; False when it is not done by then."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._working, seconds)

    def _wait(self, done: threading.Event) -> None:
        # Only at the end of the program does anybody wait for this thread, and then for so long.
        main = threading.main_thread()
        while not done.wait(0.05):
            if not main.is_alive():
                done.wait(PATIENCE_SECONDS)
                return

    def _work(self, done: threading.Event) -> None:
        try:
            with suppressed(), untraced():
                while (job := self._next()) is not None:
                    self._do(job)
        finally:
            done.set()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            if self._jobs:
                return self._jobs.popleft()
            self._working = False
            self._changed.notify_all()
            return None

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001  the run goes on, and the ledger has it all
            if not self._failed:
                self._failed = True
                say(
                    "costinsights: costs could not be told to Dagster "
                    f"({type(error).__name__}: {error}); they are in the ledger:  "
                    "costinsights export dagster  tells them"
                )
        else:
            self._failed = False
