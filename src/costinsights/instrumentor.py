"""The base of every instrumentor: facts about one client library, and how to ask it for more.

An instrumentor is one flat file. Its docstring is its user documentation; its class holds data
(name, system, driver, hooks, where a connection keeps its host) and at most a small pure function
`usage`. It knows nothing of prices, ledgers or exporters.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast
from weakref import ref

from costinsights.factories import Factories, Makes
from costinsights.guard import say, swallow
from costinsights.imports import forget, when_imported
from costinsights.later import later
from costinsights.patching import Hook, Patch, Probe, here, owner_of, probe_of, resolve
from costinsights.unlocked import can_unlock, is_immutable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType

    from costinsights.recorder import Recorder
    from costinsights.records import Basis, Resource
    from costinsights.tagging import TagInText
    from costinsights.usage import Usage

# MySQL's drivers say 2**64 - 1 for "not known yet".
UNKNOWN_ROWS = 1 << 63

# It is made for each call, quickly, by what takes 10 ms to import: with the first driver.
__getattr__ = later("costinsights", {"Usage": "usage"})

__all__ = ["DBAPIInstrumentor", "Hook", "Makes", "NotEnabled", "Usage"]

T = TypeVar("T")
Remembered = dict[int, tuple[ref[Any], T]]
"""What is known of objects, by their identity: see `remember` and `recall`."""


class NotEnabled(Exception):
    """An instrumentor cannot work here; the text says what to do.

    It is quiet for instrumentors found automatically and raised for those asked for by name.
    """


UNPRICED = "unpriced"
"""The word among the meters of a `Usage` that says why it has no price, in place of one."""


class DBAPIInstrumentor:
    """Wraps one DB-API-like client library in place."""

    name: ClassVar[str]
    """The plug-in's name: also its file, its extra, its entry point."""
    system: ClassVar[str]
    """OpenTelemetry's ``db.system.name``, or the key of design.md."""
    systems: ClassVar[tuple[str, ...]] = ()
    """All that its calls may go to, where `system_of` or `operation` tells of more than `system`."""
    driver: ClassVar[str]
    """The module whose import brings this instrumentor to life."""
    supports: ClassVar[tuple[str, str]]
    """The versions it was tested with: from (included) and to (not included)."""
    hooks: ClassVar[tuple[Hook, ...]]
    connection: ClassVar[str] = "connection"
    """Dotted path from the hooked object to its connection; empty when it is the connection."""
    last_statement: ClassVar[str] = ""
    """The attribute of a cursor that stands for its last statement at the server, if there is one. A
    call that fails and leaves the same there has sent nothing: `source` is not asked then."""
    facts: ClassVar[Mapping[str, str]] = {}
    """Where a connection keeps its ``address``, ``port`` and ``namespace``: dotted paths."""
    application: ClassVar[str | None] = None
    """The keyword of the library's connect that tells the server the program's name."""
    naming: ClassVar[tuple[Hook, ...]] = ()
    """Hooks of kind "connect" where connections are made, placed only for ``tagging="native"``."""
    unlocks: ClassVar[bool] = False
    """Whether its C types are hooked in place, where this Python lets us."""
    usual: ClassVar[bool] = True
    """Whether its calls are statements on connections, for which there is a short way."""
    package: ClassVar[str | None] = None
    """What to ask pip for, where that is not the plug-in's extra."""
    meters: ClassVar[tuple[str, ...]] = ()
    """What `usage` or `final` can report beside rows; what of it the price book knows is priced."""
    basis: ClassVar[Basis] = "estimated"
    """How an amount made of `meters` is known: "metered" where the system itself counts them."""
    statement_tags: ClassVar[bool] = False
    """Whether `with_tag` gives single statements a tag, for ``tagging="native"``."""
    channel: ClassVar[str] = ""
    """The system's own tag channel, in words for the support table."""
    verified: ClassVar[str] = ""
    """What it was run on, for the support table: "PostgreSQL 18, real engine", "emulator: …"."""

    def __init__(self) -> None:
        self.patches: list[Patch] = []
        self.factories = Factories()
        self._recorder: Callable[[], Recorder] | None = None
        self.skipped: str | None = None
        """Why the driver that is there was left alone; `doctor` prints it."""
        self.missed: list[str] = []
        """Targets that this version of the driver does not have."""
        self._watching: list[Callable[[ModuleType], None]] = []
        kind = type(self)
        self.counts_rows = kind.usage is DBAPIInstrumentor.usage
        """Whether `usage` is the default, which the recorder then need not call."""
        self.follows = kind.final is not DBAPIInstrumentor.final
        """Whether there are figures that are final only when a result is."""
        if kind.connection_of is DBAPIInstrumentor.connection_of and self.connection:
            self.connection_of = attrgetter(self.connection)  # type: ignore[method-assign,assignment]

    def recorder(self) -> Recorder | None:
        """Return the recorder that hooks report to, or None when switched off."""
        return None if self._recorder is None else self._recorder()

    # -- switching on and off -------------------------------------------------------------------

    def available(self) -> bool:
        """Tell whether the driver could be imported; at most the packages above it are."""
        if self.driver in sys.modules:
            return True
        from importlib.util import find_spec

        try:
            return (
                find_spec(self.driver) is not None
            )  # `azure` alone is there for any of its clients
        except (ImportError, ValueError):
            return False

    def instrument(self, recorder: Callable[[], Recorder], *, explicit: bool = False) -> None:
        """Hook the driver now if it is loaded, and whenever the program imports it.

        `recorder` is asked for the recorder when the first hook is placed, and not before.

        Raises:
            NotEnabled: only when asked for by name: the driver is missing or outside `supports`.
        """
        if explicit and not self.available():
            package = self.package or f"costinsights[{self.name}]"
            raise NotEnabled(
                f"{self.name} was asked for, but its driver {self.driver!r} is not installed: "
                f"run  pip install '{package}'"
            )
        self._recorder = recorder
        for patch in self.patches:
            patch.probe.recorder = recorder()
        self._watch(self.driver, self._driver_imported)
        if explicit and self.skipped:
            reason, self.skipped = self.skipped, None
            self.uninstrument()
            raise NotEnabled(f"{self.name} was asked for, but {reason}")

    def uninstrument(self) -> None:
        """Put every attribute back to what it was, and watch for the driver no more."""
        for function in self._watching:
            forget(function)
        self._watching.clear()
        self._recorder = None
        self.factories.report_to(None)
        # Last on, first off: a hook of a subclass may have wrapped what its base inherited.
        kept = [patch for patch in reversed(self.patches) if not patch.remove()]
        self.patches = kept[::-1]

    def _watch(self, module: str, function: Callable[[ModuleType], None]) -> None:
        self._watching.append(function)
        when_imported(module, function)

    def _driver_imported(self, driver: ModuleType) -> None:
        reason = self.unsupported(driver)
        if reason is not None:
            self.skipped = reason
            say(f"costinsights leaves {self.name} alone: {reason}")
            return
        self.skipped = None
        modules = dict.fromkeys(hook.target.partition(":")[0] for hook in self._wanted())
        for module in modules:
            if module in sys.modules:
                self._apply(sys.modules[module])
            else:
                self._watch(module, self._apply)

    def _wanted(self) -> tuple[Hook, ...]:
        recorder = self.recorder()
        naming = recorder is not None and recorder.tagger is not None and recorder.tagger.native
        return (*self.hooks, *self.naming) if naming else self.hooks

    def _apply(self, module: ModuleType) -> None:
        name = module.__name__
        for hook in self._wanted():
            if hook.target.partition(":")[0] == name:
                try:
                    self._hook(hook)
                except Exception as error:  # noqa: BLE001  the other hooks must still be placed
                    self.missed.append(hook.target)
                    if not (hook.optional and isinstance(error, AttributeError)):
                        swallow(hook.target, error)

    def _hook(self, hook: Hook) -> None:
        owner, name = owner_of(hook.target)
        makes = hook.makes
        if makes is not None and makes.fetches is None and self._opens(resolve(makes.base)):
            return  # what it makes is hooked in place
        in_place = not is_immutable(owner) or self._opens(owner)
        if hook.fetch is not None and self._seldom_fetches(owner):
            in_place = False  # so that a row of all the others costs nothing
        if in_place:
            probe = probe_of(here(owner, name), self.name)
        else:
            probe = self.factories.probes.get(owner, {}).get(name)
        if probe is not None and probe.hook == hook:
            probe.recorder = self.recorder()  # ours is there already: a reload, or a second tool
            return
        probe = Probe(hook, self)
        probe.recorder = self.recorder()
        if in_place:
            self.patches.append(Patch(probe))
        else:
            self.factories.place(owner, name, probe)

    def _seldom_fetches(self, owner: object) -> bool:
        """Tell whether only some objects of this C type, made for it, leave rows on the server."""
        return is_immutable(owner) and any(
            makes.fetches is not None and resolve(makes.base) is owner
            for hook in self.hooks
            if (makes := hook.makes) is not None
        )

    def _opens(self, owner: object) -> bool:
        return self.unlocks and can_unlock(owner)

    def unsupported(self, driver: ModuleType) -> str | None:
        """Say why this version of the driver is not hooked, or None when it is.

        The module's own version counts, not a distribution's: one driver may come in several
        distributions (psycopg, psycopg-binary).
        """
        version = self.version(driver)
        lowest, end = self.supports
        if version is None or _parts(lowest) <= _parts(version) < _parts(end):
            return None
        return (
            f"{self.driver} {version} is outside the tested range >={lowest},<{end}: "
            f"run  pip install '{self.driver}>={lowest},<{end}'  or update costinsights"
        )

    def version(self, driver: ModuleType) -> str | None:
        """Return the driver's version, or None where it does not tell."""
        found = getattr(driver, "__version__", None)
        return found if isinstance(found, str) else None

    def shortened(
        self, function: Callable[..., Any], probe: Probe, general: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return the wrapper of calls: `general`, or one with a short way for the usual ones."""
        from costinsights.usual import may_be_usual, usual_wrapper

        return usual_wrapper(function, probe, general) if may_be_usual(probe) else general

    # -- asking the driver ----------------------------------------------------------------------

    def connection_of(self, instance: Any) -> Any:
        """Return the connection behind the object whose method was called."""
        return attrgetter(self.connection)(instance) if self.connection else instance

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Take note of a call of a hook of kind "connect": where the new connection leads."""

    def own_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Return what the program calls itself on a new connection. By default the keyword says."""
        return kwargs.get(self.application or "")

    def known_as(self, connection: Any) -> str | None:
        """Return the program's name as a connection gave it to the server; None if it cannot say."""
        return None

    def system_of(self, connection: Any) -> str:
        """Return the system; one driver may speak to several (MySQL and MariaDB)."""
        return self.system

    def resource(self, connection: Any) -> Resource:
        """Return where the connection leads; what cannot be told is None."""
        from costinsights.hosts import led
        from costinsights.records import Resource

        found = {name: follow(connection, path) for name, path in self.facts.items()}
        address, port, namespace = (
            found.get("address"),
            found.get("port"),
            found.get("namespace"),
        )
        return Resource(
            address=led(_text(address)) or None,
            port=int(port) if isinstance(port, (int, str)) and str(port).isdigit() else None,
            namespace=_text(namespace) or None,
        )

    def region(self, connection: Any) -> str | None:
        """Return the region that the connection leads to, as the price book names it."""
        return None

    def dimensions(self, connection: Any) -> Mapping[str, str]:
        """Return what else sets the price there, in the price book's words."""
        return {}

    def usage(self, cursor: Any, result: Any) -> Usage | None:
        """Return what the finished call used, or None. By default the cursor's ``rowcount``."""
        from costinsights.usage import Usage

        rows = rowcount(cursor)
        return None if rows is None else Usage(rows)

    def source(self, cursor: Any, result: Any) -> object | None:
        """Return what `final` will be asked of: it must not keep the cursor alive.

        Asked of a lazy call that left rows to fetch, and of a call that failed.
        """
        return None

    def final(self, source: Any) -> Usage | None:
        """Return the figures that hold once a result is exhausted, closed or dropped.

        Rows may be None: those that were counted while they were fetched then stand.
        """
        return None

    def takes_tag(self, hook: Hook) -> bool:
        """Tell whether calls of `hook` have such a channel. By default all have, or none."""
        return self.statement_tags

    def with_tag(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return a call's arguments with `words` in the system's own channel for a statement.

        `words` are ``asset`` and ``job``, in characters that are safe everywhere. The program's own
        tags stay. None leaves the call as it is.
        """
        return None

    def tag_in_text(self, connection: Any) -> TagInText | None:
        """Return what writes a tag into a statement's text there; None: a comment behind it."""
        return None

    def has_rows(self, cursor: Any, result: Any) -> bool:
        """Tell whether a lazy call left rows to fetch. By default: the cursor is described."""
        unread = self.unread(cursor)
        return getattr(cursor, "description", None) is not None if unread is None else unread

    def prepared(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
        """Tell of a call whose hook `prepares` whether its result has not been run yet."""
        return False

    def unread(self, cursor: Any) -> bool | None:
        """Tell whether the server still has rows, or results, of the call; None if nobody says."""
        return None

    def owed(self, cursor: Any) -> Iterable[object]:
        """Return what stands for answers that a deferred call did not wait for, last one first."""
        return ()

    def next_answer(self, source: Any) -> object:
        """Return what stands for the answer that comes next to a method of fetch "waiting"."""
        return None

    def sqlstate(self, error: BaseException) -> str | None:
        """Return the SQLSTATE of an error of the driver's, or None where it has none."""
        state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
        return state if isinstance(state, str) else None

    def text(self, query: Any, cursor: Any) -> str | None:
        """Return the text of a query that is not a plain `str`; None when there is none."""
        if isinstance(query, str):
            return str.__str__(query)
        if isinstance(query, (bytes, bytearray)):
            return bytes(query[:65536]).decode("utf-8", "replace")
        return None


def remember(known: Remembered[T], thing: Any, value: T) -> T:
    """Keep what is known of an object, by its identity and for as long as it lives; return that."""
    key = id(thing)
    known[key] = ref(thing, lambda _: known.pop(key, None)), value
    return value


def recall(known: Remembered[T], thing: Any) -> T | None:
    """Return what is known of an object; in half the time that a `WeakKeyDictionary` takes."""
    found = known.get(id(thing))
    return None if found is None or found[0]() is not thing else found[1]


def rowcount(cursor: Any) -> int | None:
    """Return a cursor's ``rowcount``, or None where it knows none."""
    rows = getattr(cursor, "rowcount", -1)
    return rows if rows.__class__ is int and 0 <= rows < UNKNOWN_ROWS else None


def size_of(sequence: Any) -> int | None:
    """Return the length of a sequence, or None where it does not tell."""
    try:
        return len(sequence)
    except Exception:  # noqa: BLE001  an iterator, or something of the program's own
        return None


def rows_of(result: Any) -> int | None:
    """Return how many rows there are in what a fetch brought; None where one has to read to know.

    A dictionary holds columns, as arrays, by their names; a text is no row.
    """
    if isinstance(result, str):
        return None
    if isinstance(result, dict):
        result = next(iter(cast("dict[str, Any]", result).values()), ())
    return size_of(result)


def file_name(path: str | bytes | os.PathLike[Any]) -> str:
    """Return the last part of a database file's path, in characters that a record can hold."""
    return os.path.basename(os.fsencode(path)).decode("utf-8", "replace")


@lru_cache(maxsize=256)
def address_of(url: str) -> tuple[str | None, int | None]:
    """Return a URL's host and port; nothing else of it is anybody's business."""
    from urllib.parse import urlsplit  # not for programs whose drivers have no URLs

    parts = urlsplit(url)
    return parts.hostname, parts.port


def follow(start: Any, path: str) -> Any:
    """Follow a dotted path of attributes; None where it breaks off, or a property fails."""
    for name in path.split("."):
        try:
            start = getattr(start, name, None)
        except Exception:  # noqa: BLE001  a connection that is lost has nothing to say about itself
            return None
        if start is None:
            return None
    return start


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _parts(version: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
