"""What each call does, by the compiled twin where it was built, else by the same in Python.

``COSTINSIGHTS_PURE=1`` asks for Python where both are there.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from costinsights.clock import Clock
from costinsights.ledger.lines import entry
from costinsights.ledger.seal import sealed
from costinsights.ledger.segment import Segment
from costinsights.ledger.sums import Sums

__all__ = ["COMPILED", "Clock", "Segment", "Sums", "entry", "sealed"]

COMPILED = False
"""Whether the compiled twins run."""

if not TYPE_CHECKING and os.environ.get("COSTINSIGHTS_PURE") != "1":
    with suppress(ImportError):
        from costinsights._quick import Clock, Segment, Sums, entry, sealed

        COMPILED = True
