"""Switches costinsights on the way a program does: with attribution, a price and a ledger on disk."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import costinsights
from costinsights import runtime
from costinsights.instrumentor import DBAPIInstrumentor, Hook
from costinsights.patching import here, owner_of
from costinsights.unlocked import unlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from costinsights.ledger.writer import Writer

NULL = "nulldb"
# Two small instances' worth of money an hour: every statement gets an amount.
PRICE_AN_HOUR = "0.178"
LABELS = {"asset": "orders", "job": "nightly", "team": "growth"}


# Owner and name of an attribute: whether it is the owner's own, and what it is.
Places = dict[tuple[Any, str], tuple[bool, Any]]


class NullInstrumentor(DBAPIInstrumentor):
    """The instrumentor of the driver that does nothing."""

    name = NULL
    system = NULL
    driver = "benchmarks.nulldb"
    supports = ("0", "9")
    hooks = (Hook("benchmarks.nulldb:Cursor.execute", leaf=True),)
    facts: ClassVar = {"address": "host", "port": "port", "namespace": "db"}


class Recording:
    """costinsights at work on one driver; `on` and `off` put its hooks in place and away.

    Away means that each hooked attribute is the driver's own again, so that a peer that wraps the
    same class is measured without us below it.
    """

    def __init__(self, instrumentor: DBAPIInstrumentor, before: Places, ledger: str) -> None:
        self.instrumentor = instrumentor
        self.ledger = ledger
        self._hooked = {place: here(*place) for place in before}
        self._before = {
            place: (own, value)
            for place, (own, value) in before.items()
            if place[1] in vars(place[0]) and self._hooked[place] is not value
        }

    def off(self) -> None:
        """Put the driver's own callables back."""
        for (owner, name), (own, value) in self._before.items():
            with unlocked(owner):
                if own:
                    setattr(owner, name, value)
                else:
                    delattr(owner, name)

    def on(self) -> None:
        """Put the hooks in place again."""
        for owner, name in self._before:
            with unlocked(owner):
                setattr(owner, name, self._hooked[owner, name])

    def around(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put `wrap` around each of our hooks."""
        for place in self._before:
            self._hooked[place] = wrap(self._hooked[place])

    @property
    def writer(self) -> Writer:
        """The writer of the ledger."""
        active = runtime.active()
        assert active is not None
        return active.recorder().writer


@contextmanager
def recording(
    name: str,
    system: str,
    *,
    exporters: Iterable[Any] = (),
    exporter_options: dict[str, dict[str, object]] | None = None,
    ledger: str | None = None,
    options: dict[str, object] | None = None,
) -> Generator[Recording]:
    """Record the calls of the driver of that name, each with labels and an amount."""
    config = {
        "capacity": [
            {"system": each, "price": PRICE_AN_HOUR, "currency": "USD"}
            for each in {system, _twin(system)}
        ],
        "disabled_instrumentors": ["*"],
        **({"exporter": exporter_options} if exporter_options else {}),
        **(options or {}),
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = ledger or folder
        given: dict[str, Any] = {"ledger": place, "exporters": exporters, "config": config}
        if name == NULL:
            instrumentor: DBAPIInstrumentor = NullInstrumentor()
        else:
            instrumentor = instrumentor_of(name)
        before = places(instrumentor)
        if name == NULL:
            costinsights.instrument(**given)
            active = runtime.active()
            assert active is not None, "COSTINSIGHTS_DISABLED or OTEL_SDK_DISABLED is set"
            instrumentor.instrument(active.recorder)
        else:
            costinsights.instrument(name, **given)
        try:
            with costinsights.attribute(**LABELS):
                yield Recording(instrumentor, before, place)
        finally:
            if name == NULL:
                instrumentor.uninstrument()
            costinsights.uninstrument()


def _twin(system: str) -> str:
    """MariaDB speaks MySQL's protocol: one instrumentor, two systems."""
    return "mariadb" if system == "mysql" else system


def instrumentor_of(name: str) -> DBAPIInstrumentor:
    """Make our instrumentor of that name."""
    from costinsights.plugins import INSTRUMENTORS, find

    made: DBAPIInstrumentor = find(INSTRUMENTORS)[name].load()()
    return made


def places(instrumentor: DBAPIInstrumentor) -> Places:
    """Return what stands where the hooks of an instrumentor will be placed."""
    from importlib import import_module

    found: Places = {}
    for hook in instrumentor.hooks:
        try:
            import_module(hook.target.partition(":")[0])
            owner, name = owner_of(hook.target)
            found[owner, name] = name in vars(owner), here(owner, name)
        except (ImportError, AttributeError):  # not in this version of the driver
            continue
    return found
