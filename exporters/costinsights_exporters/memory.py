"""Keeps charges in a list, for programs that look at their own costs as they go, and for tests.

::

    memory = MemoryExporter()
    costinsights.instrument(exporters=[memory])
    ...
    costinsights.flush()
    print(memory.charges)

Only what this process records comes here. The list holds the newest `limit` charges and counts in
`forgotten` those that had to make room. For tests there is `costinsights.testing.capture`, which
needs no flush.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from costinsights.records import Charge


class MemoryOptions(msgspec.Struct, frozen=True):
    """Options of the memory exporter."""

    limit: int = 10_000
    """Charges to keep; older ones are forgotten first."""


class MemoryExporter:
    """Keeps the newest charges in `charges`; a later figure takes the place of the earlier one."""

    name = "memory"
    follows = "process"
    Options = MemoryOptions

    def __init__(self, options: MemoryOptions | None = None) -> None:
        self._limit = (options or MemoryOptions()).limit
        self._charges: dict[str, Charge] = {}
        self._order: deque[str] = deque()
        self.forgotten = 0

    @property
    def charges(self) -> list[Charge]:
        """The charges, oldest first, each with its latest figures."""
        return list(self._charges.values())

    def export(self, batch: Sequence[Charge]) -> None:
        """Keep the charges."""
        for charge in batch:
            if charge.charge_id not in self._charges:
                self._order.append(charge.charge_id)
            self._charges[charge.charge_id] = charge
            if len(self._order) > self._limit:
                del self._charges[self._order.popleft()]
                self.forgotten += 1

    def clear(self) -> None:
        """Forget all charges."""
        self._charges.clear()
        self._order.clear()

    def shutdown(self) -> None:
        """Keep what is there: it is wanted after the end."""
