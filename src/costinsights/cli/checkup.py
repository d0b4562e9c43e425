"""Finds out how costinsights stands here, for ``costinsights doctor``: facts, no opinions.

Drivers are imported and hooked in this process, and let go again, because nothing else tells for
certain whether that works. Nothing is written, and values that may be secrets are left out.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from costinsights import config as configuration
from costinsights import positions, quick
from costinsights.ledger.writer import LedgerError
from costinsights.plugins import EXPORTERS, HISTORIES, INSTRUMENTORS, PULLERS, find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from costinsights.config import Config
    from costinsights.instrumentor import DBAPIInstrumentor
    from costinsights.plugins import PlugIn
    from costinsights.pricing import PriceBook

# Options of exporters, and variables of OpenTelemetry's, whose values are nobody's secret.
_HARMLESS = ("path", "protocol", "compression", "timeout", "insecure", "service", "ledger")
_ADDRESSES = ("endpoint", "url", "host")
# Those who wrap drivers too: the root package of their code, and what they are called.
_OTHERS = {
    "opentelemetry": "OpenTelemetry",
    "ddtrace": "Datadog",
    "sentry_sdk": "Sentry",
    "logfire": "Logfire",
    "newrelic": "New Relic",
    "elasticapm": "Elastic APM",
    "instana": "Instana",
    "scout_apm": "Scout",
}
# Drivers whose instrumentors in OpenTelemetry's registry have another name than ours.
_OTEL_NAMES = {"mysql_connector": "mysql"}
_MAX_CHAIN = 32


class Driver(msgspec.Struct, kw_only=True):
    """One instrumentor, and the client library that it is for."""

    name: str
    state: str
    """``hooked``, ``not installed``, ``disabled``, ``skipped`` or ``broken``."""
    driver: str = ""
    system: str = ""
    version: str | None = None
    supports: str = ""
    reason: str = ""
    hooks: int = 0
    """How many callables are hooked."""
    missing: list[str] = []
    """Callables that this version of the driver does not have."""
    also_wrapped_by: list[str] = []
    """Others that had wrapped its callables here before us."""
    also_measured_by: list[str] = []
    """Others that are installed and would wrap it when they are switched on."""
    not_seen: str = ""


class Setting(msgspec.Struct):
    """One setting in force, and who said so."""

    name: str
    value: Any
    source: str


class ExporterState(msgspec.Struct, kw_only=True):
    """One exporter, and how far it is in this ledger."""

    name: str
    installed: bool
    configured: bool
    exported: int = 0
    rejected: int = 0
    segments_left: int = 0
    bytes_left: int = 0


class ReaderState(msgspec.Struct, kw_only=True):
    """One history reader, with which ``settle`` asks a system."""

    system: str
    state: str
    """``configured``, ``not configured`` or ``broken``."""
    by_id: bool = False
    """Whether it asks for jobs by their ids."""
    verified: str = ""
    """What it was tested on."""
    settled_to: str | None = None
    """Where the next settlement of this ledger begins by itself."""
    reason: str = ""


class PullerState(msgspec.Struct, kw_only=True):
    """One puller, with which ``pull`` brings a source of the bill in, and what is there of it."""

    puller: str
    state: str
    """``configured``, ``not configured`` or ``broken``."""
    sources: list[str] = []
    verified: str = ""
    """What it was tested on."""
    slices: dict[str, int] = {}
    """How many slices of the bill are provisional, open and final."""
    newest: str | None = None
    """When the last of them ends."""
    incomplete: int = 0
    """Slices that could not be pulled to their end the last time."""
    reason: str = ""


class Followed(msgspec.Struct, kw_only=True):
    """How often a system was asked for jobs in the background, in the last days."""

    system: str
    region: str | None
    requests: int
    failed: dict[str, int]
    last: str
    amount: str | None = None
    """What that cost; None where nobody knows."""
    currency: str | None = None


class LedgerState(msgspec.Struct, kw_only=True):
    """The ledger, and what it lacks."""

    path: str
    exists: bool
    problem: str = ""
    bytes: int = 0
    live_segments: int = 0
    ended_segments: int = 0
    left_tallies: int = 0
    """Tally files of processes that have died: they count, and `compact` makes segments of them."""
    compacted_files: int = 0
    entries: int | None = None
    charges: int | None = None
    newest: str | None = None
    torn: int = 0
    lost: dict[str, int] = {}
    expired_charges: int = 0


class Prices(msgspec.Struct, kw_only=True):
    """The price book in force."""

    version: str = ""
    lines: int = 0
    capacities: list[str] = []
    files: list[str] = []
    problem: str = ""


class Checkup(msgspec.Struct, kw_only=True):
    """Everything that ``doctor`` prints."""

    version: str
    python: str
    compiled: bool
    """Whether the part of a call that was built in C runs in C."""
    disabled: bool
    drivers: list[Driver]
    exporters: list[ExporterState]
    histories: list[ReaderState]
    pullers: list[PullerState]
    follow_jobs: bool
    followed: list[Followed]
    """Of the last `costinsights.followed.KEPT_DAYS` days, by every process on this ledger."""
    settings: list[Setting]
    problems: list[str]
    ledger: LedgerState
    prices: Prices
    warnings: list[str]


def examine(
    ledger: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Checkup:
    """Look at everything. Never raises: what cannot be looked at says so in its place."""
    from costinsights import __version__

    # What would be said to the program's log is printed in its place here.
    logger = logging.getLogger("costinsights")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False

    config = configuration.load(ledger=ledger)
    return Checkup(
        version=__version__,
        python=f"{sys.version.split()[0]} ({sys.executable})",
        compiled=quick.COMPILED,
        disabled=configuration.is_disabled(),
        drivers=list(_drivers(config)),
        exporters=list(_exporters(config)),
        histories=list(_histories(config)),
        pullers=list(pullers(config)),
        follow_jobs=config.follow_jobs,
        followed=list(_followed(config)),
        settings=list(_settings(config, ledger)),
        problems=list(config.problems),
        ledger=_ledger(config.ledger, progress),
        prices=_prices(config),
        warnings=list(_warnings()),
    )


# --- drivers --------------------------------------------------------------------------------------


def _drivers(config: Config) -> Iterator[Driver]:
    elsewhere = _instrumentors_of_opentelemetry()
    for name, plugin in sorted(find(INSTRUMENTORS).items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a library says of others when it is imported
            found = _driver(name, plugin, config)
        if found.state not in ("not installed", "broken"):
            found.also_measured_by = [
                f"{_OTHERS['opentelemetry']} ({other})"
                for other in elsewhere
                if other == _OTEL_NAMES.get(name, name)
            ]
        yield found


def _driver(name: str, plugin: PlugIn, config: Config) -> Driver:
    try:
        instrumentor: DBAPIInstrumentor = plugin.load()()
    except Exception as error:  # noqa: BLE001  a stranger's plug-in may do anything
        return Driver(name=name, state="broken", reason=f"{type(error).__name__}: {error}")
    lowest, end = instrumentor.supports
    found = Driver(
        name=name,
        state="not installed",
        driver=instrumentor.driver,
        system=instrumentor.system,
        supports=f">={lowest},<{end}",
        not_seen=_not_seen(sys.modules[type(instrumentor).__module__].__doc__),
    )
    if not instrumentor.available():
        package = instrumentor.package or f"costinsights[{name}]"
        found.reason = f"pip install '{package}'"
        return found
    try:
        module = import_module(instrumentor.driver)
    except Exception as error:  # noqa: BLE001  a driver whose libraries are missing
        found.state, found.reason = "broken", f"{type(error).__name__}: {error}"
        return found
    found.version = instrumentor.version(module)
    found.also_wrapped_by = sorted(_wrapped_by(instrumentor))
    if name in config.disabled_instrumentors or "*" in config.disabled_instrumentors:
        found.state, found.reason = "disabled", "by the configuration"
        return found
    _hook(instrumentor, found, config)
    return found


def _hook(instrumentor: DBAPIInstrumentor, found: Driver, config: Config) -> None:
    """Hook the driver as `instrument` would, see what became of it, and let it go."""
    from costinsights.runtime import Runtime, active

    running = active()  # under ``opentelemetry-instrument`` it is hooked already
    hooked = running.instrumentors.get(instrumentor.name) if running is not None else None
    try:
        if hooked is None:
            instrumentor.instrument(Runtime(config, []).recorder)
        for hook in instrumentor.hooks:
            with suppress(ImportError):  # a part that the driver loads only when it is needed
                import_module(hook.target.partition(":")[0])
        _tell(hooked or instrumentor, found)
    except Exception as error:  # noqa: BLE001  that is what is to be found out
        found.state, found.reason = "broken", f"{type(error).__name__}: {error}"
    finally:
        if hooked is None:
            instrumentor.uninstrument()


def _tell(instrumentor: DBAPIInstrumentor, found: Driver) -> None:
    """Note how an instrumentor that was switched on stands."""
    in_subclasses = sum(len(probes) for probes in instrumentor.factories.probes.values())
    found.hooks = len(instrumentor.patches) + in_subclasses
    found.missing = list(instrumentor.missed)
    if instrumentor.skipped:
        found.state, found.reason = "skipped", instrumentor.skipped
    elif found.hooks:
        found.state = "hooked"
    else:
        found.state, found.reason = "broken", "none of its callables could be hooked"


def _not_seen(documentation: str | None) -> str:
    """Return what an instrumentor's documentation says it does not see, as one line."""
    for paragraph in (documentation or "").split("\n\n"):
        if paragraph.startswith("Not seen:"):
            return " ".join(paragraph.removeprefix("Not seen:").split())
    return ""


def _wrapped_by(instrumentor: DBAPIInstrumentor) -> set[str]:
    """Return who else has wrapped what we hook, or the driver's ``connect``."""
    root = instrumentor.driver.partition(".")[0]
    targets = [hook.target for hook in instrumentor.hooks]
    targets += [f"{instrumentor.driver}:connect", f"{instrumentor.driver}:Connection.connect"]
    found: set[str] = set()
    for target in targets:
        module, _, path = target.partition(":")
        current: Any = sys.modules.get(module)
        for part in path.split("."):
            current = getattr(current, part, None)
        for origin in _origins(current):
            package = origin.partition(".")[0]
            if package not in ("", root, "builtins", "costinsights", "wrapt", "functools"):
                found.add(_OTHERS.get(package, package))
    return {name for name in found if name in _OTHERS.values()}


def _origins(function: Any) -> Iterator[str]:
    """Yield the modules whose code stands in a chain of wrappers, outermost first."""
    for _ in range(_MAX_CHAIN):
        if function is None:
            return
        function = getattr(function, "__func__", function)
        wrapper = getattr(function, "_self_wrapper", None)  # wrapt keeps the other's code there
        for each in (wrapper, function):
            names = getattr(getattr(each, "__func__", each), "__globals__", None)
            if isinstance(names, dict):
                yield str(names.get("__name__", ""))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        function = getattr(function, "__wrapped__", None)


def _instrumentors_of_opentelemetry() -> list[str]:
    from importlib.metadata import entry_points

    names = {point.name for point in entry_points(group="opentelemetry_instrumentor")}
    return sorted(names - {"costinsights"})


# --- exporters, settings --------------------------------------------------------------------------


def _exporters(config: Config) -> Iterator[ExporterState]:
    installed = find(EXPORTERS)
    states: dict[str, ExporterState] = {
        name: ExporterState(name=name, installed=name in installed, configured=False)
        for name in sorted(installed)
    }
    for name in config.exporters or ():
        states.setdefault(name, ExporterState(name=name, installed=False, configured=True))
        states[name].configured = True
    for status in positions.status(config.ledger):
        state = states.setdefault(
            status.exporter,
            ExporterState(name=status.exporter, installed=False, configured=False),
        )
        position = status.position
        state.exported += position.exported
        state.rejected += position.rejected + position.refused
        if not status.done:
            state.segments_left += 1
            state.bytes_left += max(0, status.size - position.offset)
    yield from states.values()


def _histories(config: Config) -> Iterator[ReaderState]:
    from costinsights.settlement.state import left_off

    for system, plugin in sorted(find(HISTORIES).items()):
        options = config.settlement.get(system)
        found = ReaderState(system=system, state="")
        begins = left_off(config.ledger, system)
        found.settled_to = None if begins is None else f"{begins:%Y-%m-%d %H:%M} UTC"
        kind, found.state, found.reason = _tried(plugin, options)
        if kind is not None:
            found.by_id, found.verified = kind.by_id, kind.verified
        yield found


def pullers(config: Config) -> Iterator[PullerState]:
    """Yield every puller, and what is there of the bill by it."""
    from costinsights.billing.slices import load

    problem = ""
    try:
        manifest = load(config.ledger)
    except LedgerError as error:
        manifest, problem = None, str(error)
    for key, plugin in sorted(find(PULLERS).items()):
        found = PullerState(puller=key, state="")
        kind, found.state, found.reason = _tried(plugin, config.billing.get(key))
        if kind is not None:
            found.sources, found.verified = sorted(kind.answers), kind.verified
        if manifest is not None:
            mine = [one for one in manifest.slices if one.slice.source == key]
            for one in mine:
                found.slices[one.state] = found.slices.get(one.state, 0) + 1
            if mine:
                found.newest = f"{max(one.slice.end for one in mine):%Y-%m-%d}"
            found.incomplete = sum(name.startswith(f"{key} ") for name in manifest.incomplete)
        found.reason = found.reason or problem
        yield found


def _tried(plugin: PlugIn, options: Mapping[str, object] | None) -> tuple[Any, str, str]:
    """Return the class of a reader or puller, how it is, and why it is broken."""
    from costinsights.vendor import VendorError

    kind: Any = None
    state = "not configured" if options is None else "configured"
    try:
        kind = plugin.load()
        if options is not None:
            kind(options)
    except VendorError as error:
        return kind, "broken", str(error)
    except Exception as error:  # noqa: BLE001  a stranger's plug-in may do anything
        return kind, "broken", f"{type(error).__name__}: {error}"
    return kind, state, ""


def _followed(config: Config) -> Iterator[Followed]:
    from datetime import datetime, timezone

    from costinsights.followed import asked

    sums = asked(config.ledger)
    book = _book(config)[0] if any(one.meter for one in sums) else None
    for one in sums:
        found = Followed(
            system=one.system,
            region=one.region,
            requests=one.requests,
            failed=one.failed,
            last=f"{datetime.fromtimestamp(one.at, timezone.utc):%Y-%m-%d %H:%M} UTC",
        )
        if book is None or not one.meter:
            found.amount = "0"  # the vendor bills no such request
        else:
            quote = book.quote(one.system, {one.meter: one.requests}, one.region)
            if quote.amount is not None:
                found.amount, found.currency = f"{quote.amount:f}", quote.currency
        yield found


def _settings(config: Config, ledger: str | None) -> Iterator[Setting]:
    said = _file(config.path)
    variables = {"price_books": "PRICE_BOOK"}
    for name, value in config._asdict().items():
        if name in ("path", "problems"):
            continue
        variable = f"COSTINSIGHTS_{variables.get(name, name.upper())}"
        if name == "ledger" and ledger is not None:
            source = "--ledger"
        elif os.environ.get(variable):
            source = variable
        elif name in said:
            source = str(config.path)
        else:
            source = "default"
        if name == "exporter_options":
            value = {exporter: _masked(options) for exporter, options in value.items()}  # noqa: PLW2901  what is shown of it
        elif name == "rules":
            value = [rule.name for rule in value]  # noqa: PLW2901  what is shown of it
        yield Setting(name, _plain(value), source)
    for name in sorted(os.environ):
        if name.startswith("OTEL_") and os.environ[name]:
            yield Setting(name, _masked({name: os.environ[name]})[name], "environment")


def _file(path: str | None) -> Mapping[str, object]:
    if path is None:
        return {}
    from costinsights import configfile

    found = configfile.read(path, [])
    return {} if found is None else {**found}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    return msgspec.to_builtins(value, enc_hook=str, str_keys=True)


def _masked(options: Mapping[str, object]) -> dict[str, object]:
    """Return options with every value hidden that may be a secret."""
    return {name: _shown(name.lower(), value) for name, value in options.items()}


def _shown(name: str, value: object) -> object:
    if isinstance(value, (bool, int, float)):
        return value
    if any(name.endswith(word) for word in _ADDRESSES):
        return _address(str(value))
    harmless = any(name.endswith(word) for word in _HARMLESS)
    harmless = harmless or name.startswith(("otel_service", "otel_python"))
    harmless = harmless or (name.startswith("otel_") and name.endswith("_exporter"))
    return str(value) if harmless else "(hidden)"


def _address(text: str) -> str:
    """Return an address without a user, a password or a query."""
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(hidden)"
    if not parts.hostname:
        return text if "@" not in text and "?" not in text else "(hidden)"
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path}"


# --- the ledger, the prices -----------------------------------------------------------------------


def _ledger(path: str, progress: Callable[[int, int], None] | None) -> LedgerState:
    from costinsights.ledger import tallies
    from costinsights.ledger.reader import is_live, segments
    from costinsights.ledger.writer import prepare

    state = LedgerState(path=path, exists=os.path.isdir(path))
    if not state.exists:
        return state
    try:
        if os.path.isdir(os.path.join(path, "segments")):
            prepare(path)
        state.bytes = _size(path)
        for segment in segments(path):
            if is_live(segment):
                state.live_segments += 1
            else:
                state.ended_segments += 1
        state.left_tallies = sum(1 for _ in tallies.dead(path))
        _count(state, progress)
    except Exception as error:  # noqa: BLE001  whatever is wrong with it is to be said
        state.problem = str(error) or type(error).__name__
    return state


def _count(state: LedgerState, progress: Callable[[int, int], None] | None) -> None:
    from costinsights.ledger.store import Period, open_store

    with open_store(state.path, progress=progress) as store:
        store.post(Period())
        row = store.connection.execute("SELECT sum(calls) FROM postings").fetchone()
        state.charges = int(row[0] or 0) if row else 0
        kept = store.manifest.of_kind("charges", "revisions", "superseded")
        state.entries = sum(file.rows for file in kept)
        if store.live is not None:
            row = store.connection.execute("SELECT count(*) FROM entries").fetchone()
            state.entries += int(row[0]) if row else 0
        state.newest = store.newest()
        state.torn = store.torn
        state.lost = store.lost
        state.compacted_files = len(store.manifest.files)
        state.expired_charges = store.manifest.expired_charges


def _size(path: str) -> int:
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total


def _book(config: Config) -> tuple[PriceBook, str]:
    """Return the price book in force, and what is wrong with it."""
    from costinsights.hourly import price_book, resources_of
    from costinsights.pricing import PriceBook, PriceBookError

    try:
        resources = resources_of(config)
        book, problems = price_book(config.price_books, config.capacities, resources)
    except PriceBookError as error:
        return PriceBook.load(), str(error)
    return book, "; ".join(problems)


def _prices(config: Config) -> Prices:
    found = Prices(files=list(config.price_books))
    book, found.problem = _book(config)
    found.version = book.version
    found.lines = len(book.lines())
    found.capacities = [
        f"{capacity.line.key}: {capacity.line.price:f} {capacity.currency} per {capacity.line.unit}"
        for capacity in book.capacities
    ]
    return found


# --- what will not be seen ------------------------------------------------------------------------


def _warnings() -> Iterator[str]:
    if configuration.is_disabled():
        yield "costinsights is switched off by the environment: no program is measured"
    disabled = os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "")
    if {"costinsights", "*"} & {name.strip() for name in disabled.split(",")}:
        yield (
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS keeps opentelemetry-instrument from switching "
            "costinsights on"
        )
    flags = [
        flag for flag, is_set in (("-I", sys.flags.isolated), ("-S", sys.flags.no_site)) if is_set
    ]
    flags += ["-E"] if sys.flags.ignore_environment and not sys.flags.isolated else []
    for flag in flags:
        yield f"this Python runs with {flag}: costinsights run does not reach programs run like it"
    site = os.path.join("cli", "site")
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    for place in places:
        if place.endswith(site):
            break
        if os.path.exists(os.path.join(place, "sitecustomize.py")):
            yield (
                f"{place} has a sitecustomize.py of its own, first on PYTHONPATH: under "
                "costinsights run ours comes before it and runs it"
            )


GENERAL_LIMITS = (
    (
        "A name imported before instrument() is called, from X import connect, stays what it was, "
        "where the driver's connect is what is hooked (C types: psycopg2, sqlite3)."
    ),
    (
        "costinsights run does not reach a python -I, -E or -S, nor a Python in which costinsights "
        "is not installed."
    ),
)
