"""What each call does, by the compiled twin where it was built, else by the same in Python.

``COSTINSIGHTS_PURE=1`` asks for Python where both are there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

__all__ = ["COMPILED", "Clock", "entry", "sealed"]

COMPILED = False
"""Whether the compiled twins run."""

if TYPE_CHECKING or os.environ.get("COSTINSIGHTS_PURE") == "1":
    from costinsights.clock import Clock
    from costinsights.ledger.lines import entry
    from costinsights.ledger.seal import sealed
else:
    try:
        from costinsights._quick import Clock, entry, sealed

        COMPILED = True
    except ImportError:
        from costinsights.clock import Clock
        from costinsights.ledger.lines import entry
        from costinsights.ledger.seal import sealed
