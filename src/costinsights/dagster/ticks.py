"""Whom a call is for that a sensor or a schedule makes when it is evaluated.

The evaluation is wrapped on the public classes, in place and reversibly. It is no run, and has no end
at which all is known: what was spent is told, by day, by ``costinsights export dagster``.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.attribution import attribute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_METHOD = "evaluate_tick"


class Place(NamedTuple):
    """A class whose evaluations are wrapped, and the label that they get."""

    kind: type
    label: str


class Ticks:
    """The evaluations of these classes; `end` puts them back."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        self._changed: list[tuple[type, Any, Any]] = []

    def begin(self) -> None:
        """Wrap them."""
        for place in self._places:
            original = vars(place.kind).get(_METHOD)
            if original is not None:
                ours = _labelled(original, place.label)
                setattr(place.kind, _METHOD, ours)
                self._changed.append((place.kind, original, ours))

    def end(self) -> None:
        """Put back what was there, unless somebody has since put something else."""
        for kind, original, ours in self._changed:
            if vars(kind).get(_METHOD) is ours:
                setattr(kind, _METHOD, original)
        self._changed.clear()


def _labelled(original: Callable[..., Any], label: str) -> Callable[..., Any]:
    @wraps(original)
    def evaluate_tick(definition: Any, *args: Any, **kwargs: Any) -> Any:
        name = str(definition.name)
        with attribute(job=name, **{label: name}):
            return original(definition, *args, **kwargs)

    return evaluate_tick
