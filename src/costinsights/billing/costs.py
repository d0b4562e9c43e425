"""What a source cost in one hour or one day: one call, for schedulers and notebooks."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights import config as configuration
from costinsights.billing import slices as manifests
from costinsights.billing.bill import files, open_bill
from costinsights.billing.columns import BY_NAME
from costinsights.billing.pulled import BillingError
from costinsights.billing.puller import DAY, HOUR, midnight
from costinsights.billing.pulling import pull, puller_of
from costinsights.ledger.live import literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.billing.slices import State


class CostData(NamedTuple):
    """What a source cost from `start` to `end`."""

    source: str
    start: datetime
    end: datetime
    rows: tuple[Mapping[str, Any], ...]
    """FOCUS rows whose charge period begins then: names of `costinsights.billing.columns`, money as
    `Decimal`."""
    billed: Mapping[str, Decimal]
    """The sum of BilledCost by currency."""
    state: State
    """How sure it is; see docs/bills.md."""


def get_cost_data_for_hour(source: str, hour: datetime, **more: Any) -> CostData:
    """Return what a source cost in the hour that begins at `hour` (UTC where it has no zone).

    The day of it is pulled, hour by hour, unless the ledger has it already. `more` is what `pull`
    takes as well: `service`, `resource`, `ledger`, `config` …

    Raises:
        BillingError: it cannot be had, or not to its end.
    """
    start = _utc(hour).replace(minute=0, second=0, microsecond=0)
    return _cost(source, start, start + HOUR, "hourly", more)


def get_cost_data_for_day(source: str, day: datetime, **more: Any) -> CostData:
    """Return what a source cost on the UTC day of `day`; as `get_cost_data_for_hour`.

    Raises:
        BillingError: it cannot be had, or not to its end.
    """
    start = midnight(_utc(day))
    return _cost(source, start, start + DAY, None, more)


def _cost(
    source: str,
    start: datetime,
    end: datetime,
    granularity: str | None,
    more: dict[str, Any],
) -> CostData:
    report = pull(source, midnight(start), midnight(start) + DAY, granularity=granularity, **more)
    if report.failed:
        raise BillingError(report.failed, grant=report.grant)
    loaded = configuration.load(ledger=more.get("ledger"), config=more.get("config"))
    puller = more.get("puller") or puller_of(source, loaded)
    service = more.get("service") or puller.answers.get(source, "")
    wanted = [f"ChargePeriodStart >= {_sql(start)}", f"ChargePeriodStart < {_sql(end)}"]
    with open_bill(loaded.ledger) as bill:
        mine = [
            one
            for one in bill.manifest.slices
            if one.slice.source == report.puller and one.slice.start < end and one.slice.end > start
        ]
        if service:
            system = (
                f"(SELECT any_value(x_System) FROM bill WHERE ServiceName = {literal(service)})"
            )
            wanted.append(f"(ServiceName = {literal(service)} OR x_System = {system})")
        elif filled := [one for one in mine if one.last.rows]:
            # All that the provider bills, but nothing of another one's.
            theirs = files(filled, manifests.folder(loaded.ledger))
            wanted.append(f"ProviderName IN (SELECT ProviderName FROM {theirs})")
        if resource := more.get("resource"):
            wanted.append(f"{literal(resource)} IN (ResourceId, ResourceName)")
        names = list(BY_NAME)
        cursor = bill.connection.execute(
            f"SELECT {', '.join(names)} FROM bill WHERE {' AND '.join(wanted)} "
            "ORDER BY ChargePeriodStart, ResourceId, x_UsageType, BilledCost"
        )
        rows = tuple(dict(zip(names, row, strict=True)) for row in cursor.fetchall())
    billed: dict[str, Decimal] = {}
    for row in rows:
        currency = row["BillingCurrency"]
        billed[currency] = billed.get(currency, Decimal(0)) + row["BilledCost"]
    states = {one.state for one in mine}
    state: State = "final" if states == {"final"} else "open"
    if "provisional" in states:
        state = "provisional"
    return CostData(source, start, end, rows, billed, state)


def _sql(moment: datetime) -> str:
    return f"TIMESTAMP '{moment:%Y-%m-%d %H:%M:%S}'"


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)
