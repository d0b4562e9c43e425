"""Finds plug-ins by their entry points, as it would a stranger's.

The standard library's look-up costs three quarters of importing the whole OpenTelemetry SDK on a
cold interpreter, so the metadata folders are read directly; what lies elsewhere than in a plain
folder (a zip file, an import hook of the user's) is then asked of the standard library.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

INSTRUMENTORS = "costinsights_instrumentor"
DRIVERS = "costinsights_driver"
"""Not plug-ins, but the modules that instrumentors of the same names wait for."""
EXPORTERS = "costinsights_exporter"
HISTORIES = "costinsights_history"
PULLERS = "costinsights_puller"
FRAMEWORKS = "costinsights_framework"


class PlugIn(NamedTuple):
    """One entry point: a name and the ``module:attribute`` behind it."""

    name: str
    value: str

    def load(self) -> Any:
        """Import and return the plug-in.

        Raises:
            ImportError, AttributeError: it is not there.
        """
        from importlib import import_module

        module, _, attribute = self.value.partition(":")
        return getattr(import_module(module), attribute)


def find(group: str) -> dict[str, PlugIn]:
    """Return the plug-ins of an entry-point `group` by name; the first on ``sys.path`` wins."""
    return find_each(group)[0]


def find_each(*groups: str) -> list[dict[str, PlugIn]]:
    """Return the plug-ins of several groups, for one look through the folders."""
    found: list[dict[str, PlugIn]] = [{} for _ in groups]
    elsewhere = False
    for folder in sys.path:
        try:
            with os.scandir(folder or ".") as entries:
                names = [
                    entry.path
                    for entry in entries
                    if entry.name.endswith((".dist-info", ".egg-info"))
                ]
        except NotADirectoryError:
            elsewhere = True
            continue
        except OSError:
            continue
        for name in names:
            try:
                with open(os.path.join(name, "entry_points.txt"), encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError):
                continue
            for group, plugins in zip(groups, found, strict=True):
                if group in text:
                    _parse(text, group, plugins)
    if elsewhere:
        from importlib.metadata import entry_points

        for group, plugins in zip(groups, found, strict=True):
            for point in entry_points(group=group):
                plugins.setdefault(point.name, PlugIn(point.name, point.value))
    return found


def _parse(text: str, group: str, found: dict[str, PlugIn]) -> None:
    inside = False
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            inside = line == f"[{group}]"
        elif inside and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            # Anything in brackets behind the value names extras, which do not concern us.
            value = value.partition("[")[0].strip()
            found.setdefault(name.strip(), PlugIn(name.strip(), value))
