"""Keeps what Dagster asks of its own storage out of the ledger: it is no asset's.

Dagster writes its event log with the drivers that the user's code uses, and in the middle of a
step: each asset would be charged for the events about it. All of it goes through the public methods
of `DagsterInstance`, or of the storages that its properties hand out, as Dagster's telemetry does at
each step; inside them nothing is recorded.
"""

from __future__ import annotations

from functools import wraps
from inspect import getattr_static, isfunction
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from costinsights.guard import suppressed

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

# They may run a whole run, in process.
_BEGIN_RUNS = ("launch", "submit", "resume")
_STORAGE = "_storage"
"""How properties are called that hand one out."""


class Quiet:
    """The methods of a class, silenced; `end` puts them back."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._own: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}
        self._storages: dict[type, Quiet] = {}

    def begin(self) -> None:
        """Silence them."""
        for name in dir(self._kind):
            if name.startswith(("_", *_BEGIN_RUNS)):
                continue
            found: Any = getattr_static(self._kind, name)
            if isinstance(found, staticmethod):  # those that make an instance
                making: Callable[..., Any] = found.__func__
                ours: Any = staticmethod(_silent(making))
            elif isfunction(found):
                ours = _silent(found)
            elif isinstance(found, property) and name.endswith(_STORAGE):
                ours = property(self._silencing(found), doc=found.__doc__)
            else:
                continue
            if name in vars(self._kind):
                self._own[name] = found
            self._ours[name] = ours
            setattr(self._kind, name, ours)

    def _silencing(self, found: property) -> Callable[[Any], Any]:
        def storage(instance: Any) -> Any:
            storage: object = found.__get__(instance)
            kind: type[object] = type(storage)
            if kind not in self._storages and storage is not None:
                self._storages[kind] = Quiet(kind)
                self._storages[kind].begin()
            return storage

        return storage

    def end(self) -> None:
        """Put back what was there, unless somebody has since put something else."""
        while self._storages:
            self._storages.popitem()[1].end()
        for name, ours in self._ours.items():
            if vars(self._kind).get(name) is not ours:
                continue
            if name in self._own:
                setattr(self._kind, name, self._own[name])
            else:
                delattr(self._kind, name)
        self._own.clear()
        self._ours.clear()


def _silent(function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with suppressed():
            return function(*args, **kwargs)

    return call
