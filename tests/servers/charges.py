"""What a test looks at: the entries that have come to a ledger since it last looked."""

from __future__ import annotations

from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

import costinsights
from costinsights.ledger.reader import read_ledger

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from costinsights.records import Charge


STORAGE = frozenset(("aws.s3", "gcp.storage", "azure.storage"))


class Charges:
    """The ledger of this process, read while it is written.

    Operations on object storage, which clients of other things make as well, are left out: they are
    added up, and have tests of their own.
    """

    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger
        self._seen = 0

    def entries(self) -> list[Charge]:
        """Return the entries since the last look, revisions and all."""
        found = read_ledger(str(self.ledger))
        every = [charge for charge in found if charge.system not in STORAGE]
        fresh, self._seen = every[self._seen :], len(every)
        return fresh

    def new(self) -> list[Charge]:
        """Return the charges since the last look, each with its latest figures."""
        latest: dict[str, Charge] = {}
        for entry in self.entries():
            before = latest.get(entry.charge_id)
            assert before is None or entry.revision == before.revision + 1
            latest[entry.charge_id] = entry
        return list(latest.values())

    def one(self) -> Charge:
        """Return the one charge since the last look; there must be exactly one."""
        found = self.new()
        assert len(found) == 1, [(charge.operation, charge.statement) for charge in found]
        return found[0]

    def text(self) -> str:
        """Return every byte of the ledger, for looking for what must not be there."""
        return "".join(
            path.read_text(encoding="utf-8") for path in self.ledger.rglob("*") if path.is_file()
        )


@contextmanager
def instrumented(ledger: Path, *names: str) -> Generator[Charges]:
    """Switch costinsights on for a test, with nothing exported."""
    costinsights.instrument(*names, ledger=ledger, exporters=[])
    try:
        yield Charges(ledger)
    finally:
        costinsights.uninstrument()


def text_of(charge: Charge) -> str:
    """Return the statement's text; there must be one."""
    assert charge.statement is not None
    return charge.statement.text


def since(began: float) -> float:
    """Return how long ago `time.perf_counter` said that, ms.

    A charge that leaves out what the program slept is shorter by that, however busy the machine is.
    """
    return (perf_counter() - began) * 1000


def milliseconds(charge: Charge) -> float:
    """Return the time inside the driver."""
    return charge.duration_ns / 1e6
