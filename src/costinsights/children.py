"""Lets child processes inherit the current scope through their environment.

Only a program that is started inside a scope, or inside an orchestrator's run, sees any change:
one more environment variable.
"""

from __future__ import annotations

import sys
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from costinsights.attribution import child_environment, inherited_labels
from costinsights.guard import swallow
from costinsights.imports import forget, when_imported

if TYPE_CHECKING:
    from types import ModuleType

# Where `env` stands among the arguments of ``subprocess.Popen``, counting the object itself.
ENV_POSITION = 11


_original: Any = None


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
                    environment = child_environment(args[ENV_POSITION])
                    args = (*args[:ENV_POSITION], environment, *args[ENV_POSITION + 1 :])
                else:
                    kwargs["env"] = child_environment(kwargs.get("env"))
            except Exception as error:  # noqa: BLE001  the child is started all the same
                swallow("subprocess", error)
        original(*args, **kwargs)

    update_wrapper(__init__, original)
    __init__.__costinsights__ = True  # type: ignore[attr-defined]
    popen.__init__ = __init__
