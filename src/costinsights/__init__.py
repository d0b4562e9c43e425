"""costinsights: a price on every statement and job that a data program sends.

::

    import costinsights

    costinsights.instrument()

    with costinsights.attribute(asset="orders", team="growth"):
        cursor.execute("SELECT ...")
        print(costinsights.current().amount)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.attribution import Cost, attribute, carry, child_environment, current
from costinsights.runtime import flush, instrument, uninstrument

if TYPE_CHECKING:
    from costinsights.instrumentor import DBAPIInstrumentor, Hook, NotEnabled, Usage
    from costinsights.jobs import JobInstrumentor
    from costinsights.pricing import PriceBook, PriceBookError
    from costinsights.records import Charge

__version__ = "0.1.0"

__all__ = [
    "Charge",
    "Cost",
    "DBAPIInstrumentor",
    "Hook",
    "JobInstrumentor",
    "NotEnabled",
    "PriceBook",
    "PriceBookError",
    "Usage",
    "attribute",
    "carry",
    "child_environment",
    "current",
    "flush",
    "instrument",
    "uninstrument",
]

# What a program seldom needs is imported when it is first asked for: starting up costs nothing.
_LATER = {
    "Charge": "costinsights.records",
    "DBAPIInstrumentor": "costinsights.instrumentor",
    "Hook": "costinsights.instrumentor",
    "JobInstrumentor": "costinsights.jobs",
    "NotEnabled": "costinsights.instrumentor",
    "PriceBook": "costinsights.pricing",
    "PriceBookError": "costinsights.pricing",
    "Usage": "costinsights.instrumentor",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'costinsights' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value
