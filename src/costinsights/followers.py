"""All that follows the ledger: one thread an exporter, so that none waits for another.

The threads are daemons. They are there from the first entry on, because a program that ends at
once could not start them any more, and they sleep until there is something to export. While an
exporter fails, its thread waits longer and longer and says so once; the charges stay on disk.
"""

from __future__ import annotations

import atexit
import os
import threading
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights import positions
from costinsights.backoff import Backoff, spread
from costinsights.exporter import ExportError, ExporterUnavailable
from costinsights.guard import say, suppressed, swallow
from costinsights.provider import tracer_provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from costinsights.config import Config
    from costinsights.exporter import Exporter
    from costinsights.follower import Follower
    from costinsights.ledger.writer import Writer

# Seconds between two looks for segments of processes that have died meanwhile.
SCAN_SECONDS = 15.0
# For how long, at exit, such a process's charges are exported when our own are done.
ORPHANS_AT_EXIT_SECONDS = 0.2
# What is kept of the time at exit for those who must finish before other libraries' exit handlers.
LAST_WORDS_SECONDS = 0.4
# How often in a row `export_all` lets an exporter fail when it has no deadline.
TRIES = 6

# The exporter that is used where nobody names one and the application has a TracerProvider.
OTEL = "otel"


def make_exporter(name: str, config: Config) -> Exporter:
    """Load and make the exporter of that name, with its options from the configuration.

    Raises:
        ExporterUnavailable: there is no such exporter, it cannot work here, or an option is
            wrong; the text says what to do.
    """
    from costinsights.plugins import EXPORTERS, find

    known = find(EXPORTERS)
    if name not in known:
        names = ", ".join(sorted(known)) or "none is installed"
        raise ExporterUnavailable(f"there is no exporter {name!r}; known are: {names}")
    try:
        exporter: Exporter = _make(
            known[name].load(), config.exporter_options.get(name, {}), config
        )
    except Exception as error:
        text = str(error) if isinstance(error, ExporterUnavailable) else _named(error)
        raise ExporterUnavailable(f"the exporter {name!r} cannot be used: {text}") from error
    return exporter


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _make(kind: Any, given: Mapping[str, object], config: Config) -> Any:
    import msgspec

    shape = getattr(kind, "Options", None)
    if shape is None:
        if given:
            raise ExporterUnavailable(f"it has no options, but {', '.join(given)} is set")
        return kind()
    ours = {"ledger": config.ledger, "service": config.service}
    fields: tuple[str, ...] = shape.__struct_fields__
    for name in given:
        if name not in fields:
            known = ", ".join(field for field in fields if field not in ours) or "none"
            raise ExporterUnavailable(f"it has no option {name!r}; it has: {known}")
    values = {**{name: value for name, value in ours.items() if name in fields}, **given}
    try:
        return kind(msgspec.convert(values, shape, strict=False))
    except msgspec.ValidationError as error:
        raise ExporterUnavailable(f"wrong option: {error}") from error


class Worker:
    """The thread of one exporter. It is asked to work, and tells how far it has come."""

    def __init__(self, name: str, make: Callable[[], Follower]) -> None:
        self.name = name
        self.last_words = False
        """It must finish before the exit handlers that other libraries have registered."""
        self._make = make
        self._follower: Follower | None = None
        self._unusable = False
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._asked = self._done = 0
        self._urgent = False
        self._closing = self._closed = False
        self._backoff = Backoff()
        self._retry_at = self._scan_at = 0.0

    # -- for other threads ----------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, unless it runs, or no thread can be started now.

        Asked by whoever opens a segment and, every second, by the background thread: one at a time,
        or there would be two threads on one follower.
        """
        with self._changed:
            if self._thread is not None or self._closing:
                return
            thread = threading.Thread(
                target=self._run, name=f"costinsights-{self.name}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                return  # the next second is another chance, and after that another process
            self._thread = thread

    def wake(self, *, urgent: bool = False) -> int:
        """Have everything written so far exported; return the number to wait for.

        A destination that is being left alone is tried again at once if it is `urgent`.
        """
        with self._changed:
            self._asked += 1
            self._urgent |= urgent
            self._changed.notify_all()
            return self._asked

    def wait(self, asked: int, deadline: float) -> bool:
        """Wait until that is done; False when the monotonic `deadline` comes first."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._done >= asked or self._unusable, _until(deadline)
            )

    def close(self) -> None:
        """Have it try once more to export everything, and then let go."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self, deadline: float) -> None:
        """Wait until it has let go, until the monotonic `deadline` at most."""
        if self._thread is not None:
            with self._changed:
                self._changed.wait_for(lambda: self._closed, _until(deadline))

    def is_due(self) -> bool:
        """Tell whether it is time to look for dead processes' segments."""
        return monotonic() >= self._scan_at

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        with suppressed():
            closing = False
            while not closing and not self._unusable:
                asked, closing = self._sleep()
                if self._work():
                    with self._changed:
                        self._done = max(self._done, asked)
                        self._changed.notify_all()
            self._end()

    def _sleep(self) -> tuple[int, bool]:
        """Wait until there is work; return what was asked for, and whether it is the last."""
        with self._changed:
            while not self._closing and not self._urgent:
                if self._asked <= self._done:
                    self._changed.wait()
                elif (left := self._retry_at - monotonic()) > 0:
                    self._changed.wait(left)
                else:
                    break
            self._urgent = False
            return self._asked, self._closing

    def _work(self) -> bool:
        """Export until nothing is left; False when it stopped short of that."""
        try:
            if self._follower is None:
                self._follower = self._make()
            self._export(self._follower)
        except ExporterUnavailable as error:
            say(f"costinsights: {error}")
            with self._changed:
                self._unusable = True
                self._changed.notify_all()
            return False
        except (ExportError, OSError) as error:
            self._failed(error)
            return False
        except BaseException as error:  # noqa: BLE001  nothing may end this thread
            self._failed(error)
            swallow(f"exporter {self.name}", error)
            return False
        self._succeeded()
        return True

    def _export(self, follower: Follower) -> None:
        follower.look_for_own()
        self._look_for_orphans(follower)
        while follower.advance(own=self._closing):
            self._succeeded()
        if self._closing:
            end = monotonic() + ORPHANS_AT_EXIT_SECONDS
            while monotonic() < end and follower.advance():
                continue

    def _look_for_orphans(self, follower: Follower) -> None:
        if self.is_due():
            self._scan_at = monotonic() + spread(SCAN_SECONDS)
            follower.look_for_orphans()

    def _failed(self, error: BaseException) -> None:
        asked = error.retry_after if isinstance(error, ExportError) else None
        first = not self._backoff.failures
        self._retry_at = monotonic() + self._backoff.failed(asked)
        if first:
            text = str(error) if isinstance(error, ExportError) else _named(error)
            say(
                f"costinsights: the exporter {self.name} does not get through ({text}); "
                "it goes on trying, and the charges wait in the ledger"
            )

    def _succeeded(self) -> None:
        self._retry_at = 0.0
        if self._backoff.succeeded():
            say(f"costinsights: the exporter {self.name} gets through again")

    def _end(self) -> None:
        try:
            if self._follower is not None:
                self._follower.release()
                self._follower.exporter.shutdown()
        except BaseException as error:  # noqa: BLE001  as above
            swallow(f"exporter {self.name}", error)
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()


def _until(deadline: float) -> float:
    return max(0.0, deadline - monotonic())


class Followers:
    """The exporters of this process. Made and called by `costinsights.background`."""

    def __init__(self, config: Config, exporters: Sequence[Exporter], writer: Writer) -> None:
        self._config = config
        self._writer = writer
        self._pid = os.getpid()
        self._workers: list[Worker] = []
        self._started = self._closed = False
        self._seen = 0
        self._exits = False
        names = dict.fromkeys(config.exporters or ())
        # The provider may be set after us, so `otel` begins when it is there.
        self._automatic = config.exporters is None and not exporters
        self._named = OTEL in names
        for name in names:
            if name != OTEL:
                self._add_named(name)
        for exporter in exporters:
            self._add(exporter.name, _given(exporter))
            if getattr(exporter, "last_words", False):
                self._speak_last(self._workers[-1])

    # -- called by the writer, on the thread whose entry opened a segment -----------------------

    def begun(self) -> None:
        """Note that the segment just opened is owed to every exporter, and start their threads.

        Raises:
            OSError: that could not be written.
        """
        self._look_for_provider()
        segment = self._writer.segment
        for worker in self._workers:
            self._owe(worker.name, segment)
        if self._named:
            self._owe(OTEL, segment)
        self._started = True
        for worker in self._workers:
            worker.start()

    def _owe(self, exporter: str, number: int) -> None:
        writer = self._writer
        segment = f"{writer.process}-{number}"
        positions.register(writer.directory, exporter, segment, self._config.service)

    # -- called by the background thread --------------------------------------------------------

    def step(self) -> None:
        """Wake those that have something to do. Returns at once."""
        self._look_for_provider()
        written, seen = self._writer.written, self._seen
        self._seen = written
        for worker in self._workers:
            worker.start()
            if written != seen or worker.is_due():
                worker.wake()

    def close(self, deadline: float) -> None:
        """Export the rest and let go, by the monotonic `deadline`."""
        self._closed = True
        if self._exits:
            atexit.unregister(self._last_words)
        if self._named and self._writer.written:
            say(
                "costinsights: the exporter otel found no TracerProvider; "
                "the charges wait in the ledger for a process that has one"
            )
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.join(deadline)

    # -- called by anyone -----------------------------------------------------------------------

    def wait(self, deadline: float) -> bool:
        """Have everything written so far exported; False when the monotonic `deadline` is over."""
        self._look_for_provider()
        asked = [(worker, worker.wake(urgent=True)) for worker in self._workers]
        done = [worker.wait(number, deadline) for worker, number in asked]
        return all(done)

    # -- which exporters ------------------------------------------------------------------------

    def _add_named(self, name: str) -> None:
        self._add(name, lambda: make_exporter(name, self._config))

    def _add(self, name: str, make: Callable[[], Exporter]) -> None:
        known = {worker.name for worker in self._workers}
        unique, count = name, 1
        while unique in known:
            count += 1
            unique = f"{name}-{count}"
        self._workers.append(Worker(unique, lambda: self._follower(unique, make())))

    def _follower(self, name: str, exporter: Exporter) -> Follower:
        from costinsights.follower import Follower, Own

        return Follower(
            self._config.ledger,
            name,
            exporter,
            service=self._config.service,
            own=lambda: Own(self._writer.process, self._writer.segment),
            say=say,
        )

    def _look_for_provider(self) -> None:
        if self._closed or not (self._automatic or self._named) or tracer_provider() is None:
            return
        self._automatic = self._named = False
        self._add_named(OTEL)
        worker = self._workers[-1]
        self._speak_last(worker)
        for number in range(1, self._writer.segment + 1):
            if os.path.exists(
                positions.segment_path(self._writer.directory, f"{self._writer.process}-{number}")
            ):
                self._owe(OTEL, number)
        if self._started:
            worker.start()

    # -- before other libraries' exit handlers --------------------------------------------------

    def _speak_last(self, worker: Worker) -> None:
        """Have it finish early at exit.

        Exit handlers run in the reverse order of their registration. A provider that is there now
        has registered its own already, so ours comes before it.
        """
        worker.last_words = True
        if not self._exits:
            self._exits = True
            atexit.register(self._last_words)

    def _last_words(self) -> None:
        if self._pid != os.getpid():
            return
        deadline = monotonic() + LAST_WORDS_SECONDS
        early = [worker for worker in self._workers if worker.last_words]
        for worker in early:
            worker.close()
        for worker in early:
            worker.join(deadline)


def _given(exporter: Exporter) -> Callable[[], Exporter]:
    return lambda: exporter


class Summary(NamedTuple):
    """What `export_all` has done for one exporter."""

    exporter: str
    exported: int
    """Charges that the destination has taken."""
    rejected: int
    """Charges that it has refused; they are in ``rejected.jsonl``."""
    finished: bool
    """Nothing is left of what dead processes have written."""
    problem: str = ""
    """Why something is left."""


def export_all(
    directory: str, exporters: Iterable[Exporter], deadline: float | None = None
) -> list[Summary]:
    """Export everything that dead processes have left in a ledger and an exporter does not have.

    Segments of living processes are left to these.

    Args:
        directory: The ledger's directory.
        exporters: Where to, as `make_exporter` makes them. They are shut down at the end.
        deadline: When to stop, on the clock of `time.monotonic`; None: when all is done, or when
            an exporter has failed six times in a row.
    """
    from costinsights.follower import Follower

    rounds = [
        _Round(
            Follower(directory, exporter.name, exporter, service=None, own=lambda: None, say=say),
            deadline,
        )
        for exporter in exporters
    ]
    for one in rounds:
        one.start()
    for one in rounds:
        one.join(None if deadline is None else _until(deadline))
    return [one.summary() for one in rounds]


class _Round(threading.Thread):
    """One exporter's part of `export_all`."""

    def __init__(self, follower: Follower, deadline: float | None) -> None:
        super().__init__(name=f"costinsights-{follower.name}", daemon=True)
        self._follower = follower
        self._deadline = deadline
        self._finished = False
        self._problem = "it did not come to its end in time"

    def run(self) -> None:
        """Export, with patience, and then shut the exporter down."""
        backoff = Backoff()
        with suppressed():
            try:
                while not self._over():
                    try:
                        self._export(backoff)
                        break
                    except (ExportError, OSError) as error:
                        self._problem = str(error)
                        asked = error.retry_after if isinstance(error, ExportError) else None
                        wait = backoff.failed(asked)
                        if self._deadline is None and backoff.failures >= TRIES:
                            break
                        sleep(wait if self._deadline is None else min(wait, _until(self._deadline)))
                self._follower.release()
                self._follower.exporter.shutdown()
            except BaseException as error:  # noqa: BLE001  said in the summary
                self._problem = _named(error)
                self._finished = False

    def _export(self, backoff: Backoff) -> None:
        self._follower.look_for_orphans()
        while self._follower.advance():
            backoff.succeeded()
            if self._over():
                return
        self._finished, self._problem = True, ""

    def _over(self) -> bool:
        return self._deadline is not None and monotonic() >= self._deadline

    def summary(self) -> Summary:
        """Return how far it has come by now."""
        follower = self._follower
        return Summary(
            follower.name,
            follower.exported,
            follower.set_aside,
            self._finished and not self.is_alive(),
            self._problem,
        )
