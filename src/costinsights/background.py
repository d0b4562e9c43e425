"""The one thread of ours: it brings the ledger to the disk and lets exporters follow it.

It starts with the first entry and never before. It is a daemon, and whatever an exporter waits
for, the program's exit waits at most `EXIT_SECONDS` for it.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from costinsights.guard import suppressed, swallow

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.ledger.writer import Writer

TICK_SECONDS = 1.0
EXIT_SECONDS = 1.5


class Followers(Protocol):
    """Everything that follows the ledger."""

    def begun(self) -> None:
        """Note that a segment has been opened; called on the thread whose entry it is for."""
        ...

    def wait(self, deadline: float) -> bool:
        """Have what is written exported; False when the monotonic `deadline` comes first."""
        ...

    def step(self) -> None:
        """Export what is new."""
        ...

    def close(self, deadline: float) -> None:
        """Export the rest and let go, by the monotonic `deadline`."""
        ...


class Background:
    """Runs `before`, `writer.tick`, the followers and `tend` about every second until it is closed.

    `before` writes what is to be seen by the others. `tend` is quick: what waits for somebody does
    that on a thread of its own.
    """

    def __init__(
        self,
        writer: Writer,
        followers: Callable[[], Followers],
        tend: Callable[[], None] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._writer = writer
        self._before = before
        self._make = followers
        self._tend = tend
        self._followers: Followers | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._closing = False
        self._flushed = threading.Condition()
        self._asked = self._done = 0
        self._deadline = 0.0

    def start(self) -> None:
        """Start the thread, unless it runs or the interpreter no longer allows one.

        Called with each segment that is opened.
        """
        try:
            self._follow().begun()
        except Exception as error:  # noqa: BLE001  the entry that is being written goes first
            swallow("exporters", error)
        self.awake()

    def awake(self) -> None:
        """Start the thread, where there is no segment yet, only something to come into one."""
        if self._thread is not None or self._closing:
            return
        thread = threading.Thread(target=self._run, name="costinsights", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            self._thread = None  # the interpreter is shutting down: the entries are on disk

    def flush(self, timeout: float) -> bool:
        """Have everything written so far exported; tell whether that was done in time."""
        if self._thread is None:
            return True
        deadline = monotonic() + timeout
        with self._flushed:
            self._asked += 1
            asked = self._asked
            self._wake.set()
            if not self._flushed.wait_for(lambda: self._done >= asked, timeout):
                return False
        return self._followers is None or self._followers.wait(deadline)

    def close(self) -> None:
        """Bring the ledger to the disk, give exporters their last chance, and stop."""
        thread = self._thread
        if self._closing or thread is None:
            return
        self._deadline = monotonic() + EXIT_SECONDS
        self._closing = True
        self._wake.set()
        if thread is not threading.current_thread():
            thread.join(EXIT_SECONDS)

    def _run(self) -> None:
        with suppressed():
            while not self._closing:
                self._wake.wait(TICK_SECONDS)
                self._wake.clear()
                if not self._closing:
                    self._step()
            try:
                self._follow().close(self._deadline)
            except Exception as error:  # noqa: BLE001  ours must not reach the program
                swallow("exporters", error)

    def _follow(self) -> Followers:
        if self._followers is None:
            self._followers = self._make()
        return self._followers

    def _step(self) -> None:
        with self._flushed:
            asked = self._asked
        try:
            if self._before is not None:
                self._before()
            self._writer.tick()
            self._follow().step()
        except Exception as error:  # noqa: BLE001  the next second is another chance
            swallow("background", error)
        try:
            if self._tend is not None:
                self._tend()
        except Exception as error:  # noqa: BLE001  as above
            swallow("jobs in the background", error)
        with self._flushed:
            self._done = asked
            self._flushed.notify_all()
