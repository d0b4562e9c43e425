"""Finds every plug-in by walking the packages, so that a new one is tested the day it appears."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import costinsights_exporters
import costinsights_instrumentors
from costinsights.instrumentor import DBAPIInstrumentor

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

INSTRUMENTOR_MODULES = sorted(
    module.name
    for module in pkgutil.iter_modules(costinsights_instrumentors.__path__)
    if not module.name.startswith("_")
)
EXPORTER_MODULES = sorted(
    module.name
    for module in pkgutil.iter_modules(costinsights_exporters.__path__)
    if not module.name.startswith("_")
)


def module_of(name: str) -> ModuleType:
    """Return the module of an instrumentor."""
    return import_module(f"costinsights_instrumentors.{name}")


def instrumentor_of(name: str) -> type[DBAPIInstrumentor]:
    """Return the one instrumentor class that a plug-in module defines."""
    module = module_of(name)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, DBAPIInstrumentor)
        and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{name}: one file, one instrumentor; found {found}"
    return found[0]


def run_python(script: str, *arguments: str, folder: Path) -> str:
    """Run `script` in an interpreter of its own and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout
