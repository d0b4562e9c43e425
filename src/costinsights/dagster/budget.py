"""Budgets: a sensor that looks at the ledger and says when more was spent than should be.

::

    from costinsights.dagster import create_budget_sensor

    sensor = create_budget_sensor("team_budgets", max_usd={"growth": 200, "core": 90}, by="team")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, get_args

import dagster as dg
import msgspec

from costinsights import config as configuration
from costinsights.dagster.late import tell_late
from costinsights.dagster.limits import Amount, Limit, amount
from costinsights.ledger.store import Period
from costinsights.records import DECIMALS
from costinsights.report.money import exact
from costinsights.report.summary import DIMENSIONS, EXACT, LABEL, make

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from costinsights.report.summary import Report

Per = Literal["day", "week", "month"]
Limits: TypeAlias = "Amount | Mapping[str, Amount]"

EVERYTHING = "everything"
SECONDS = 600
LATE_SECONDS = 300


class Breach(NamedTuple):
    """More was spent than should be."""

    budget: str
    """The sensor's name."""
    by: str | None
    """What budgets are for: ``team``, ``job`` …; None for everything."""
    item: str
    """Whose budget it is."""
    amount: Decimal
    """What was spent so far, in `currency`."""
    limit: Decimal
    currency: str
    since: datetime
    """When the day, the week or the month began, in UTC."""
    unpriced: int
    """Calls without a price, which come on top."""

    def __str__(self) -> str:
        besides = f", and {self.unpriced:,} calls have no price" if self.unpriced else ""
        whose = self.item if self.by is None else f"{self.by} {self.item}"
        return (
            f"{whose} has cost {exact(self.amount)} {self.currency} since {self.since:%Y-%m-%d}, "
            f"more than {exact(self.limit)} {self.currency}{besides}"
        )


class _Told(msgspec.Struct):
    """The sensor's cursor: who was told of in this period."""

    since: str = ""
    items: list[str] = []


def create_budget_sensor(
    name: str,
    *,
    max_usd: Limits | None = None,
    max_amount: Limits | None = None,
    currency: str = "USD",
    per: Per = "month",
    by: str | None = None,
    job: dg.JobDefinition | dg.UnresolvedAssetJobDefinition | None = None,
    on_breach: Callable[[Breach], object] | None = None,
    ledger: str | None = None,
    minimum_interval_seconds: int = SECONDS,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Return a sensor that tells of each budget that is used up, once a day, week or month.

    The cost is that of ``costinsights report``: each charge once, at its best basis, of the UTC day,
    week (from Monday on) or month so far. A call for several assets counts for each with its share.

    Args:
        name: The sensor's.
        max_usd: What may be spent, in USD: one amount, or one for each item of `by`. One amount with
            `by` is for each item alike.
        max_amount: The same in another `currency`.
        currency: Of `max_amount`.
        per: ``day``, ``week`` or ``month``.
        by: Whose budgets: ``asset``, ``job``, ``team``, ``system``, ``label:NAME``; None for all of
            the ledger.
        job: What to run for each breach; it finds the breach in the tags ``costinsights/…``.
        on_breach: What to call. Where it raises, the tick fails and the next one tells again.
        ledger: The ledger's folder; that of the configuration by default.
        minimum_interval_seconds: How often to look.
        default_status: Whether it looks without being switched on.

    Raises:
        ValueError: there is no limit, or no such `by` or `per`.
    """
    limits = _limits(max_usd, max_amount, currency)
    _check(limits, per, by)
    budget = _Budget(name, limits, per, by, ledger)

    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        since = _beginning(per, datetime.now(timezone.utc))
        told = _told(context.cursor, since)
        breaches = list(budget.breaches(since))
        new = [breach for breach in breaches if breach.item not in told.items]
        for breach in new:
            context.log.warning("%s", breach)
            if on_breach is not None:
                on_breach(breach)
        told.items += [breach.item for breach in new]
        cursor = msgspec.json.encode(told).decode()
        if new and job is not None:
            return dg.SensorResult([_request(breach) for breach in new], cursor=cursor)
        said = "\n".join(map(str, new)) or _quiet(breaches, budget, since)
        return dg.SensorResult(skip_reason=said, cursor=cursor)

    make = dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description=f"Tells when {budget.told} is used up, once a {per}.",
    )
    return make(look)


def create_cost_observations_sensor(
    name: str = "costinsights_observations",
    *,
    ledger: str | None = None,
    minimum_interval_seconds: int = LATE_SECONDS,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Return a sensor that brings later figures to the assets they are for.

    Also of steps that were killed, and of what was settled by another program: what the ledger
    knows of finished runs and Dagster does not, becomes observations.
    """

    def look(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        said = tell_late(context, configuration.load(ledger=ledger).ledger)
        return dg.SkipReason(said)

    make = dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Brings costs that became known late to the assets that they are for.",
    )
    return make(look)


# --- limits --------------------------------------------------------------------------------------


class _Budget(NamedTuple):
    name: str
    limits: Limit | Mapping[str, Limit]
    per: Per
    by: str | None
    ledger: str | None

    @property
    def told(self) -> str:
        """What may be spent, in words."""
        if isinstance(self.limits, Limit):
            return f"{self.limits} a {self.per}" + (f" of each {self.by}" if self.by else "")
        return f"the budget of {', '.join(self.limits)}"

    def limit_of(self, item: str) -> Limit | None:
        """Return what an item may cost."""
        return self.limits if isinstance(self.limits, Limit) else self.limits.get(item)

    def breaches(self, since: datetime) -> Iterator[Breach]:
        """Yield the budgets that are used up now."""
        ledger = configuration.load(ledger=self.ledger).ledger
        period = Period(since.replace(tzinfo=None), None)
        report = make(ledger, self.by or "system", period)
        for (item, currency), spent in sorted(_sums(report, self.by).items()):
            most = self.limit_of(item)
            if most is not None and most.currency == currency and spent > most.amount:
                yield Breach(
                    self.name,
                    self.by,
                    item,
                    spent,
                    most.amount,
                    currency,
                    since,
                    report.calls - report.priced,
                )


def _limits(
    max_usd: Limits | None, max_amount: Limits | None, currency: str
) -> Limit | Mapping[str, Limit]:
    given = max_amount if max_usd is None else max_usd
    if given is None or (max_usd is not None and max_amount is not None):
        raise ValueError("say what may be spent: max_usd, or max_amount and its currency")
    unit = "USD" if max_usd is not None else currency.upper()
    if isinstance(given, Mapping):
        return {item: Limit(amount(most), unit) for item, most in given.items()}
    return Limit(amount(given), unit)


def _check(limits: Limit | Mapping[str, Limit], per: Per, by: str | None) -> None:
    if per not in get_args(Per):
        raise ValueError(f"a budget is per {', '.join(get_args(Per))}, not per {per!r}")
    if by is None and not isinstance(limits, Limit):
        raise ValueError("say with `by` what these budgets are for: asset, job, team …")
    if by is not None and by not in DIMENSIONS and not by.startswith(LABEL):
        raise ValueError(f"budgets are by {', '.join(DIMENSIONS)} or label:NAME, not by {by!r}")


def _sums(report: Report, by: str | None) -> dict[tuple[str, str], Decimal]:
    """Return what each item has cost by currency; a call for several assets is shared out."""
    sums: dict[tuple[str, str], Decimal] = {}
    for row in report.rows:
        if row.now.amount is None or row.currency is None or (by is not None and row.item is None):
            continue
        items = [row.item or ""] if by is not None else [EVERYTHING]
        if by == "asset":
            items = sorted(items[0].split(","))
        for item, part in zip(items, _shares(row.now.amount, len(items)), strict=True):
            key = item, row.currency
            sums[key] = EXACT.add(sums.get(key, Decimal(0)), part)
    return sums


def _shares(whole: Decimal, count: int) -> list[Decimal]:
    """Return equal shares to the ledger's last digit, the first with the rest of the division."""
    each, rest = divmod(int(EXACT.scaleb(whole, DECIMALS)), count)
    return [EXACT.scaleb(Decimal(each if at else each + rest), -DECIMALS) for at in range(count)]


# --- one look ------------------------------------------------------------------------------------


def _beginning(per: Per, now: datetime) -> datetime:
    """Return when the day, the week or the month of a moment began, in UTC."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if per == "month" else day


def _told(cursor: str | None, since: datetime) -> _Told:
    """Return who was told of in this period: of an earlier one nothing counts."""
    try:
        told = msgspec.json.decode(cursor or "{}", type=_Told)
    except msgspec.MsgspecError:
        told = _Told()  # of another version, or set by hand
    return told if told.since == since.isoformat() else _Told(since.isoformat())


def _request(breach: Breach) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{breach.budget} {breach.item} {breach.since:%Y-%m-%d}",
        tags={
            "costinsights/budget": breach.budget,
            "costinsights/item": breach.item,
            "costinsights/spent": f"{exact(breach.amount)} {breach.currency}",
            "costinsights/limit": f"{exact(breach.limit)} {breach.currency}",
        },
    )


def _quiet(breaches: Sequence[Breach], budget: _Budget, since: datetime) -> str:
    if breaches:
        items = ", ".join(breach.item for breach in breaches)
        return f"told of already since {since:%Y-%m-%d}: {items}"
    return f"within {budget.told} since {since:%Y-%m-%d}"
