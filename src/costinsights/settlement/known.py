"""What the ledger knows already of a system: its charges of a time, and the runs that wait."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from costinsights.settlement.charging import LOST, waiting_of
from costinsights.settlement.moments import naive

if TYPE_CHECKING:
    from costinsights.jobs import Waiting
    from costinsights.records import Charge

MONTH = timedelta(days=31)
"""For so long a charge whose figures are known is asked for again because it has no price yet."""
YEAR = timedelta(days=366)
"""For so long a run may wait for its end, where the system keeps its history for as good as ever."""


class Known(NamedTuple):
    """Charges of a time."""

    programs: list[Charge]
    """Those that instrumented programs made."""
    ours: dict[str, Charge]
    """Those that settlement made, by their ids."""


def charges(ledger: str, system: str, lowest: datetime, highest: datetime) -> Known:
    """Return the charges of a system that overlap a time."""
    from costinsights.ledger.live import literal
    from costinsights.ledger.store import open_store

    name = literal(system)
    found = Known([], {})
    with open_store(ledger) as store:
        for charge in store.charges(
            f"(system = {name} OR resource_service = {name}) "
            f"AND ended_at >= TIMESTAMP '{naive(lowest)}' "
            f"AND started_at < TIMESTAMP '{naive(highest)}'"
        ):
            if charge.charge_id.startswith(f"{system}:"):
                found.ours[charge.charge_id] = charge
            else:
                found.programs.append(charge)
    return found


class Open(NamedTuple):
    """The runs whose charges have no final figures yet, oldest first, each once."""

    waiting: tuple[Waiting, ...]
    """Those that the system can be asked for."""
    expired: tuple[Charge, ...]
    """Those that it has kept for as long as it keeps anything."""


def open_runs(
    ledger: str,
    system: str,
    now: datetime,
    end: datetime,
    retention: timedelta | None,
    *,
    lost: bool,
) -> Open:
    """Return the runs that were started before `end` and wait; with `lost` also lost ones."""
    from costinsights.ledger.live import literal
    from costinsights.ledger.store import open_store

    oldest = naive(now - min(retention or MONTH, MONTH))
    kept = now - (retention or YEAR)
    waiting: dict[tuple[str, str | None, str | None], Waiting] = {}
    expired: list[Charge] = []
    with open_store(ledger) as store:
        for charge in store.charges(
            f"system = {literal(system)} AND vendor_id IS NOT NULL "
            f"AND (partial OR (basis IN ('unknown', 'estimated') "
            f"AND ended_at >= TIMESTAMP '{oldest}')) AND started_at < TIMESTAMP '{naive(end)}'"
        ):
            if LOST in charge.usage and not lost:
                continue
            run = waiting_of(charge)
            if charge.partial and run.started_at is not None and run.started_at < kept:
                if charge.amount is None and LOST not in charge.usage:
                    expired.append(charge)
            else:
                waiting.setdefault((run.id, run.namespace, run.region), run)
    order = sorted(
        waiting.values(),
        key=lambda run: (run.started_at or now, run.id, run.namespace or "", run.region or ""),
    )
    return Open(tuple(order), tuple(expired))
