"""What the frameworks that programs are written in need, beside the drivers below them.

Dagster wants costs on its own events, dbt a table at the end of its run. A plug-in registers a class
in the entry-point group ``costinsights_framework``; it is made once a process, and told when
costinsights is switched on and off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from costinsights.guard import swallow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.config import Config
    from costinsights.plugins import PlugIn


class Framework(Protocol):
    """What such a plug-in has to have. Programs without the framework must not notice it."""

    def watch(self, config: Config) -> None:
        """Begin: with `costinsights.imports.when_imported`, so that nothing is imported for it."""
        ...

    def unwatch(self) -> None:
        """Put everything back that `watch` has changed."""
        ...


# Kept over switching off, like instrumentors: what is below somebody else's wrapper is used again.
_made: dict[str, Framework] = {}
_watching: dict[str, Framework] = {}


def watch(plugins: Mapping[str, PlugIn], config: Config) -> None:
    """Tell each plug-in that costinsights is on; one that fails is left out, and said so."""
    for name, plugin in plugins.items():
        if name in _watching:
            continue
        try:
            framework = _made.get(name)
            if framework is None:
                framework = _made[name] = plugin.load()()
            framework.watch(config)
        except Exception as error:  # noqa: BLE001  the program and the other plug-ins go on
            swallow(f"framework {name}", error)
        else:
            _watching[name] = framework


def unwatch() -> None:
    """Tell them that it is off."""
    while _watching:
        name, framework = _watching.popitem()
        try:
            framework.unwatch()
        except Exception as error:  # noqa: BLE001  the others are told all the same
            swallow(f"framework {name}", error)
