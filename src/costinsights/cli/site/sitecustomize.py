"""Switches costinsights on in each Python that ``costinsights run`` starts, before its program.

Python imports a module of this name when it starts. There may be another one, of the system's or
another tool's, which ours hides: it is run first, as if ours were not there. Nothing here is
printed, and no error of ours reaches the program.
"""  # noqa: INP001  the folder is a place on the path, not a package

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
# Another installation's folder hides the same file as ours does.
_KIN = os.path.join("costinsights", "cli", "site")


def _run_the_hidden_one() -> None:
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    places = [
        place
        for place in sys.path
        if (found := os.path.abspath(place)) != _HERE and not found.endswith(_KIN)
    ]
    spec = PathFinder.find_spec(__name__, places)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules[__name__] = module
        spec.loader.exec_module(module)


def _switch_on() -> None:
    try:
        from costinsights import instrument
        from costinsights.guard import swallow
    except ImportError:
        return  # a Python of its own, in which costinsights is not installed
    try:
        instrument()
    except Exception as error:  # noqa: BLE001  the program runs, whatever becomes of us
        swallow("costinsights run", error)


try:
    _run_the_hidden_one()
finally:
    _switch_on()
