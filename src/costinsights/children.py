"""Lets child processes inherit the current scope through their environment.

Only a program that is started inside a scope, or inside an orchestrator's run, sees any change:
one more environment variable. Where a framework asks for it (`instrument_inside`), what is started
inside its runs is instrumented as well, as ``costinsights run`` does it.
"""

from __future__ import annotations

import os
import sys
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from costinsights.attribution import child_environment, inherited_labels
from costinsights.guard import swallow
from costinsights.imports import forget, when_imported
from costinsights.orchestrators import present

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from costinsights.config import Config

SITE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cli", "site")
"""A folder whose ``sitecustomize`` switches costinsights on in each Python that has it on its path."""

# Where `env` stands among the arguments of ``subprocess.Popen``, counting the object itself.
ENV_POSITION = 11


_original: Any = None
_inside: dict[str, Config] = {}
started: int = 0
"""How many programs have been started inside the runs of a framework that asks for it."""


def instrumented(environment: Mapping[str, str], ledger: str | None) -> dict[str, str]:
    """Return the environment in which every Python is instrumented."""
    child = dict(environment)
    rest = [place for place in child.get("PYTHONPATH", "").split(os.pathsep) if place != SITE]
    child["PYTHONPATH"] = os.pathsep.join([SITE, *filter(None, rest)])
    if ledger is not None:
        child["COSTINSIGHTS_LEDGER"] = os.path.abspath(ledger)
    return child


def instrument_inside(orchestrator: str, config: Config | None) -> None:
    """Instrument what is started inside the orchestrator's runs; with None, no longer."""
    if config is None:
        _inside.pop(orchestrator, None)
    else:
        _inside[orchestrator] = config


def _environment(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of a program that is started here."""
    global started
    child = child_environment(given)
    context = present() if _inside else None
    config = None
    for rule in context.rule.split("+") if context is not None else ():
        config = config or _inside.get(rule)
    if config is None:
        return child
    started += 1
    child = instrumented(child, config.ledger)
    if config.path is not None:  # it may be started elsewhere, and would find another one
        child.setdefault("COSTINSIGHTS_CONFIG", os.path.abspath(config.path))
    return child


def watch_children() -> None:
    """Hand the scope on to what `subprocess` starts, once the program imports it."""
    when_imported("subprocess", _wrap)


def unwatch_children() -> None:
    """Put ``subprocess.Popen.__init__`` back, unless somebody has since wrapped ours."""
    global _original
    forget(_wrap)
    module = sys.modules.get("subprocess")
    if _original is not None and module is not None:
        popen: Any = module.Popen
        if hasattr(popen.__init__, "__costinsights__"):
            popen.__init__ = _original
            _original = None


def _wrap(module: ModuleType) -> None:
    global _original
    popen: Any = module.Popen
    if _original is not None:
        return
    _original = original = popen.__init__

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N807  stands in for the original
        from costinsights.runtime import active

        if active() is not None:
            try:
                if not inherited_labels():
                    pass
                elif len(args) > ENV_POSITION:
                    environment = _environment(args[ENV_POSITION])
                    args = (*args[:ENV_POSITION], environment, *args[ENV_POSITION + 1 :])
                else:
                    kwargs["env"] = _environment(kwargs.get("env"))
            except Exception as error:  # noqa: BLE001  the child is started all the same
                swallow("subprocess", error)
        original(*args, **kwargs)

    update_wrapper(__init__, original)
    __init__.__costinsights__ = True  # type: ignore[attr-defined]
    popen.__init__ = __init__
