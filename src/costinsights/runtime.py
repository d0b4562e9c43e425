"""The one place that knows whether costinsights is switched on in this process, and with what."""

from __future__ import annotations

import os
import sys
from _thread import RLock
from time import monotonic
from typing import TYPE_CHECKING, Any

from costinsights import config as configuration
from costinsights.attribution import unlock_after_fork
from costinsights.children import unwatch_children, watch_children
from costinsights.frameworks import unwatch, watch
from costinsights.guard import say, swallow
from costinsights.imports import forget, when_imported
from costinsights.plugins import DRIVERS, FRAMEWORKS, INSTRUMENTORS, find_each

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType

    from costinsights.background import Background
    from costinsights.config import Config
    from costinsights.following import Following
    from costinsights.hosts import Declared
    from costinsights.instrumentor import DBAPIInstrumentor
    from costinsights.ledger.writer import Writer
    from costinsights.plugins import PlugIn
    from costinsights.pricing import PriceBook
    from costinsights.recorder import Recorder


SETTLE_SECONDS = 60.0
"""Seconds between two looks for what processes that have died left in their tallies."""


class Runtime:
    """What is switched on: made by `instrument`, ended by `uninstrument`."""

    def __init__(self, config: Config, exporters: Sequence[Any]) -> None:
        self.config = config
        self.exporters = list(exporters)
        self.process = os.urandom(10).hex()
        self.pid = os.getpid()
        self.instrumentors: dict[str, DBAPIInstrumentor] = {}
        self.waiting: dict[str, Callable[[ModuleType], None]] = {}
        """What loads the plug-ins whose drivers the program has not imported yet."""
        self.skipped: dict[str, str] = {}
        """Plug-ins that could not be loaded, and why."""
        self._lock = RLock()
        self._recorder: Recorder | None = None
        self._background: Background | None = None
        self._following: Following | None = None
        self._settle_at = 0.0

    def recorder(self) -> Recorder:
        """Return the recorder; it is made when the first driver is hooked."""
        with self._lock:
            if self._recorder is None:
                self._recorder = self._make()
            return self._recorder

    @property
    def made(self) -> Recorder | None:
        """The recorder, if a driver has been hooked yet."""
        return self._recorder

    def _make(self) -> Recorder:
        from costinsights.recorder import Recorder
        from costinsights.tagging import tagger_for

        config = self.config
        book = _price_book(config)
        return Recorder(
            self._writer(),
            book,
            labels=config.labels,
            rules=config.rules,
            tagger=tagger_for(config.tagging, config.service),
            resources=_resources(config),
            header=self._header,
            awake=self._awake,
        )

    def _awake(self) -> None:
        if self._background is not None:
            self._background.awake()

    def add_up(self) -> None:
        """Make entries of what calls have been added up to so far."""
        recorder = self._recorder
        if recorder is not None and recorder.tally is not None:
            recorder.tally.tick()

    def _add_up(self) -> None:
        """Do so about every second, and now and then with what a dead process has left."""
        self.add_up()
        if monotonic() >= self._settle_at:
            self._settle_at = monotonic() + SETTLE_SECONDS
            if os.path.isdir(os.path.join(self.config.ledger, "tallies")):
                from costinsights.ledger import tallies

                tallies.settle(self.config.ledger)

    def _writer(self) -> Writer:
        from costinsights.background import Background
        from costinsights.followers import Followers
        from costinsights.ledger.writer import Writer

        writer = Writer(
            self.config.ledger,
            self.process,
            self._header,
            say,
            lambda: background.start(),  # noqa: PLW0108  it is made just below
        )
        self._background = background = Background(
            writer,
            lambda: Followers(self.config, self.exporters, writer),
            self._tend_jobs,
            self._add_up,
        )
        return writer

    def _tend_jobs(self) -> None:
        """Have jobs asked after that the program does not ask for, if there are any."""
        following = self._following
        if following is None:
            jobs = sys.modules.get("costinsights.jobs")
            runs = None
            if jobs is not None and self._recorder is not None:
                runs = jobs.runs_known(self._recorder)
            if runs is None or not runs.begun:
                return
            from costinsights.following import Following

            following = self._following = Following(runs, self.config.ledger)
        following.tend()

    def _header(self) -> bytes:
        from time import time_ns

        import msgspec

        from costinsights import __version__
        from costinsights.ledger.seal import seal
        from costinsights.records import HeaderLine

        line = HeaderLine(
            1,
            self.process,
            self.config.service,
            # Not `socket`: a child forked while a thread imports it here would wait for ever.
            os.uname().nodename,
            os.getpid(),
            time_ns(),
            __version__,
        )
        return seal(msgspec.json.encode(line))

    def flush(self, timeout: float) -> bool:
        """Sync the ledger and have it exported; tell whether that was done in time."""
        background = self._background
        return True if background is None else background.flush(timeout)

    def close(self) -> None:
        """End the background work and the segment. What comes later opens a new one."""
        if self._following is not None:
            self._following.close()
        if self._recorder is not None and self._recorder.tally is not None:
            self._recorder.tally.close()
        if self._background is not None:
            self._background.close()
        if self._recorder is not None:
            self._recorder.writer.close()

    def forked(self) -> None:
        """Begin anew in a forked child, as a process of its own."""
        self.process = os.urandom(10).hex()
        self.pid = os.getpid()
        self._lock = RLock()
        self._following = None  # what the parent has started it follows itself
        if self._recorder is not None:
            self._recorder.writer.abandon()
            self._recorder.forked(self._writer())


def _resources(config: Config) -> tuple[Declared, ...]:
    """Return what is declared of hosts, and what clouds have described of them."""
    if not config.resources and not config.describe:
        return ()
    from costinsights.hourly import resources_of

    return resources_of(config)


def _price_book(config: Config) -> PriceBook:
    """Load the user's prices. A file or capacity that is refused is said once and left out."""
    from costinsights.pricing import PriceBook, PriceBookError

    files, capacities = list(config.price_books), list(config.capacities)
    while True:
        try:
            if not config.resources and not config.describe:
                return PriceBook.load(*files, capacities=capacities)
            from costinsights.hourly import price_book

            book, problems = price_book(files, capacities, _resources(config))
            for problem in problems:
                say(f"costinsights: {problem}")
            return book
        except PriceBookError as error:
            say(f"costinsights: {error}; what it gives is left out until that is mended")
            refused = [file for file in files if os.fspath(file) == str(error.path)]
            if refused:
                files.remove(refused[0])
            elif capacities:
                capacities = []
            else:
                files = []


_lock = RLock()
_runtime: Runtime | None = None
_registered = False


def active() -> Runtime | None:
    """Return what is switched on in this process, or None."""
    return _runtime


def instrument(
    *names: str,
    ledger: str | os.PathLike[str] | None = None,
    exporters: Iterable[Any] | str | None = None,
    attribution: Any = None,
    tagging: str | None = None,
    price_book: Any = None,
    config: Any = None,
) -> None:
    """Switch costinsights on: every statement of the drivers becomes a durable, priced record.

    Args:
        names: The instrumentors to use; none means every installed one whose driver the program
            imports, now or later.
        ledger: The folder of the ledger. Default: ``COSTINSIGHTS_LEDGER``, the configuration
            file, or ``~/.local/state/costinsights/ledger``.
        exporters: Names of exporters, or exporter objects. Default: the configuration, else
            ``otel`` where the program has an OpenTelemetry provider, else none.
        attribution: Labels for every call of this process, and rules (docs/attribution.md).
        tagging: ``"off"`` (the default), ``"native"`` or ``"comment"`` (docs/attribution.md).
        price_book: A price file, or several, that override and add to the built-in prices.
        config: A configuration file, or a mapping like one. Default: ``COSTINSIGHTS_CONFIG``,
            ``costinsights.toml`` or ``[tool.costinsights]`` in ``pyproject.toml``.

    Calling it again changes nothing but to add the named instrumentors. With
    ``COSTINSIGHTS_DISABLED=true`` or ``OTEL_SDK_DISABLED=true`` it does nothing at all.

    Raises:
        costinsights.NotEnabled: an instrumentor named here cannot work; the text says what to do.
            Mistakes in the configuration are never raised, but logged once.
    """
    if configuration.is_disabled():
        return
    global _runtime
    with _lock:
        runtime = _runtime
        if runtime is None:
            names_of, objects = _sorted_out(exporters)
            settings = configuration.load(
                ledger=None if ledger is None else os.fspath(ledger),
                exporters=names_of,
                attribution=attribution,
                tagging=tagging,
                price_book=price_book,
                config=config,
            )
            for problem in settings.problems:
                say(f"costinsights: {problem}")
            runtime = Runtime(settings, objects)
            _register()
        _switch_on(runtime, names)
        watch_children()
        _runtime = runtime


def uninstrument() -> None:
    """Switch costinsights off: every patched attribute is again what it was."""
    global _runtime
    with _lock:
        runtime, _runtime = _runtime, None
        if runtime is None:
            return
        for waiting in runtime.waiting.values():
            forget(waiting)
        for instrumentor in runtime.instrumentors.values():
            instrumentor.uninstrument()
        unwatch()
        unwatch_children()
        runtime.close()


def flush(timeout: float = 10.0) -> bool:
    """Bring the ledger to the disk and have it exported; False when `timeout` seconds are over."""
    runtime = _runtime
    return True if runtime is None else runtime.flush(timeout)


# One instrumentor object a plug-in and process, kept over switching off: one of its wrappers may
# have to stay below somebody else's, and is then used again.
_instrumentors: dict[str, DBAPIInstrumentor] = {}


def _switch_on(runtime: Runtime, names: Sequence[str]) -> None:
    from costinsights.instrumentor import NotEnabled

    plugins, drivers, frameworks = find_each(INSTRUMENTORS, DRIVERS, FRAMEWORKS)
    disabled = runtime.config.disabled_instrumentors
    for name in names:
        if name not in plugins:
            known = ", ".join(sorted(plugins)) or "none is installed"
            raise NotEnabled(f"there is no instrumentor {name!r}; known are: {known}")
    for name in names or plugins:
        if name in runtime.instrumentors:
            continue
        if names:
            _load(runtime, plugins[name], explicit=True)
        elif name in disabled or "*" in disabled:
            runtime.skipped[name] = "disabled by the configuration"
        elif name not in drivers:
            _load(runtime, plugins[name])
        elif name not in runtime.waiting:
            _load_later(runtime, plugins[name], drivers[name].value)
    watch(frameworks, runtime.config)


def _load_later(runtime: Runtime, plugin: PlugIn, driver: str) -> None:
    """Load a plug-in with its driver: a program does not pay for drivers that it has not."""

    def load(module: ModuleType) -> None:
        forget(load)
        if plugin.name not in runtime.instrumentors:
            _load(runtime, plugin)

    runtime.waiting[plugin.name] = load
    when_imported(driver, load)


def _load(runtime: Runtime, plugin: PlugIn, *, explicit: bool = False) -> None:
    from costinsights.instrumentor import NotEnabled

    name = plugin.name
    try:
        instrumentor = _instrumentors.get(name)
        if instrumentor is None:
            instrumentor = _instrumentors[name] = plugin.load()()
        instrumentor.instrument(runtime.recorder, explicit=explicit)
    except NotEnabled:
        raise
    except Exception as error:
        runtime.skipped[name] = f"{type(error).__name__}: {error}"
        if explicit:
            raise NotEnabled(f"the instrumentor {name!r} does not load: {error}") from error
        swallow(f"instrumentor {name}", error)
    else:
        runtime.instrumentors[name] = instrumentor


def _sorted_out(
    exporters: Iterable[Any] | str | None,
) -> tuple[tuple[str, ...] | None, list[Any]]:
    """Separate exporters given by name from those given as objects."""
    if exporters is None:
        return None, []
    given = [exporters] if isinstance(exporters, str) else list(exporters)
    names = tuple(item for item in given if isinstance(item, str))
    return names, [item for item in given if not isinstance(item, str)]


def _register() -> None:
    global _registered
    if _registered:
        return
    _registered = True
    import atexit

    atexit.register(_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def _at_exit() -> None:
    if _runtime is not None:
        try:
            _runtime.close()
        except Exception as error:  # noqa: BLE001  the program's exit goes on
            swallow("exit", error)


def _after_fork() -> None:
    global _lock
    _lock = RLock()
    unlock_after_fork()
    if _runtime is not None:
        try:
            _runtime.forked()
        except Exception as error:  # noqa: BLE001  the child must live
            swallow("fork", error)
