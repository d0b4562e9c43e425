"""Runs a function when a module is imported, without importing it ourselves.

A driver that the program never imports costs nothing. The finder steps aside at once: the loader,
the spec and the module are the ones that Python would have made without us.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from costinsights.guard import swallow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_watched: dict[str, list[Callable[[ModuleType], None]]] = {}


class _Loader:
    """Stands in for the real loader for the one moment in which the module is executed."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _notify(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _Finder:
    """First on ``sys.meta_path``; answers only for watched names, by asking the others."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _watched:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module") and hasattr(spec.loader, "create_module"):
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None


_finder = _Finder()


def _notify(module: ModuleType) -> None:
    told: list[Callable[[ModuleType], None]] = []
    # One that is told may bring others to be told of the same module.
    while fresh := [each for each in _watched.get(module.__name__, ()) if each not in told]:
        for function in fresh:
            told.append(function)
            try:
                function(module)
            except Exception as error:  # noqa: BLE001  the program's import must succeed
                swallow(f"import of {module.__name__}", error)


def when_imported(name: str, function: Callable[[ModuleType], None]) -> None:
    """Call `function` with the module `name`: now if it is loaded, and each time that it is."""
    watchers = _watched.setdefault(name, [])
    if function not in watchers:
        watchers.append(function)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    module = sys.modules.get(name)
    # One that is still being executed reports itself when it is done.
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        function(module)


def forget(function: Callable[[ModuleType], None]) -> None:
    """Take `function` back; with the last one the finder leaves ``sys.meta_path``."""
    for name, watchers in list(_watched.items()):
        if function in watchers:
            watchers.remove(function)
        if not watchers:
            del _watched[name]
    if not _watched and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
