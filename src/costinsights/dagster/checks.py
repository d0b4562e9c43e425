"""Asset checks on what an asset has cost: `build_cost_checks`.

The cost is that of the last run that made the asset, from the ledger: all of the asset's charges in
that run, to the last digit, with its share of those that are for several assets.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg

from costinsights import config as configuration
from costinsights.dagster.asset_metadata import PREFIX, counts, money
from costinsights.dagster.figures import Figures
from costinsights.dagster.functions import of_check
from costinsights.dagster.limits import Amount, Limit, amount, limit
from costinsights.dagster.places import facts_of
from costinsights.dagster.targets import Facts, Who, targets, who
from costinsights.dagster.told import Log
from costinsights.ledger.live import literal
from costinsights.ledger.store import open_store
from costinsights.records import DECIMALS
from costinsights.report.money import exact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costinsights.dagster.asset_metadata import Metadata

LIMIT, INCREASE = "cost_within_limit", "cost_increase"
PREVIOUS = 7
_PAGE = 500
_PAGES = 20


class Spent(NamedTuple):
    """What an asset has cost in one run."""

    amounts: Mapping[str, Decimal]
    calls: int
    unpriced: int
    partitions: int
    """How many of its partitions the run has made, or 1."""

    def known(self, currency: str) -> Decimal | None:
        """Return all of it, or None where a part of it is not known in this currency."""
        if not self.calls or self.unpriced or set(self.amounts) - {currency}:
            return None
        return self.amounts.get(currency)

    def why_unknown(self, currency: str) -> str:
        """Say what is missing of it."""
        if not self.calls:
            return "nothing was recorded of this run: was costinsights on in it?"
        reasons: list[str] = []
        if self.unpriced:
            reasons.append(f"{self.unpriced:,} of {self.calls:,} calls have no price")
        reasons += [
            f"it cost {exact(amount)} {other} besides"
            for other, amount in sorted(self.amounts.items())
            if other != currency
        ]
        at_least = self.amounts.get(currency)
        known = "" if at_least is None else f"at least {exact(at_least)} {currency}; "
        return f"the cost is not known: {known}{', '.join(reasons)}"


Asset = dg.AssetsDefinition | dg.AssetKey | str


def build_cost_checks(
    asset: Asset | Sequence[Asset],
    *,
    max_usd: Amount | None = None,
    max_amount: Amount | None = None,
    currency: str = "USD",
    max_increase: Amount | None = None,
    previous: int = PREVIOUS,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
    blocking: bool = False,
    ledger: str | None = None,
) -> list[dg.AssetChecksDefinition]:
    """Return checks on what each run of an asset costs.

    A cost that is not known is a warning that says so, and never a pass.

    Args:
        asset: The asset, its key, or several of them.
        max_usd: What a run may cost, in USD: the check ``cost_within_limit``.
        max_amount: The same in another `currency`.
        currency: Of `max_amount`, and of what `max_increase` compares.
        max_increase: How much more a run may cost than the median of those before it, as a ratio:
            ``0.5`` is half as much again. The check ``cost_increase``; it compares the cost of a
            partition where runs make several.
        previous: How many runs are compared with.
        severity: Of a limit that is broken.
        blocking: Whether a limit that is broken keeps what comes after the asset from running;
            with the severity ``ERROR`` only.
        ledger: The ledger's folder; that of the configuration by default.

    Raises:
        ValueError: no limit was given, or one is no number.
    """
    most = limit(max_usd, max_amount, currency)
    more = None if max_increase is None else amount(max_increase)
    if most is None and more is None:
        raise ValueError("say what it may cost: max_usd, max_amount or max_increase")
    found: list[dg.AssetChecksDefinition] = []
    for key in _keys(asset):
        if most is not None:
            found.append(_limit_check(_Costs(key, ledger), most, severity, blocking=blocking))
        if more is not None:
            costs = _Costs(key, ledger)
            found.append(
                _increase_check(
                    costs, more, currency.upper(), previous, severity, blocking=blocking
                )
            )
    return found


def _keys(asset: Asset | Sequence[Asset]) -> list[dg.AssetKey]:
    if isinstance(asset, str):
        return [dg.AssetKey.from_user_string(asset)]
    if isinstance(asset, dg.AssetsDefinition):
        return sorted(asset.keys)
    if isinstance(asset, dg.AssetKey):
        return [asset]
    return [key for one in asset for key in _keys(one)]


def _limit_check(
    costs: _Costs, most: Limit, severity: dg.AssetCheckSeverity, *, blocking: bool
) -> dg.AssetChecksDefinition:
    def work(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        runs = costs.runs(context.instance, 1)
        if not runs:
            return _not_made(costs.key)
        (spent,) = costs.of(context.instance, runs).values()
        now = spent.amounts.get(most.currency)
        metadata = _figures(spent) | {f"{PREFIX}limit": dg.MetadataValue.text(str(most))}
        if now is not None and now > most.amount:
            said = f"it cost {exact(now)} {most.currency}, more than the {most} that it may"
            if spent.unpriced:
                said += f"; and {spent.unpriced:,} of {spent.calls:,} calls have no price"
            return _result(said, metadata, severity)
        if spent.known(most.currency) is None:
            return _result(spent.why_unknown(most.currency), metadata)
        return _result(f"it cost {exact(now)} of {most}", metadata, passed=True)

    make = dg.asset_check(
        asset=costs.key,
        name=LIMIT,
        description=f"A run costs {most} at most.",
        blocking=blocking,
    )
    return make(of_check(work))


def _increase_check(
    costs: _Costs,
    more: Decimal,
    currency: str,
    previous: int,
    severity: dg.AssetCheckSeverity,
    *,
    blocking: bool,
) -> dg.AssetChecksDefinition:
    def work(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        runs = costs.runs(context.instance, previous + 1)
        if not runs:
            return _not_made(costs.key)
        last, *earlier = costs.of(context.instance, runs).values()
        metadata = _figures(last)
        now = _each(last, currency)
        if now is None:
            return _result(last.why_unknown(currency), metadata)
        before = [one for spent in earlier if (one := _each(spent, currency)) is not None]
        if not before:
            said = "there is no earlier run of known cost to compare with"
            return _result(said, metadata, passed=True)
        with localcontext() as exactly:
            exactly.prec = 60
            usual = median(before)
            most = usual * (1 + more)
        metadata |= money("median_cost", {currency: usual})
        said = (
            f"it cost {_short(now)} {currency}, and {_short(usual)} {currency} is the median of the "
            f"{len(before)} runs before it"
        )
        return _result(said, metadata, severity, passed=now <= most)

    make = dg.asset_check(
        asset=costs.key,
        name=INCREASE,
        description=f"A run costs at most {more * 100:f} % more than those before it.",
        blocking=blocking,
    )
    return make(of_check(work))


def _each(spent: Spent, currency: str) -> Decimal | None:
    """Return what a partition has cost in a run."""
    whole = spent.known(currency)
    if whole is None:
        return None
    with localcontext() as exactly:
        exactly.prec = 60
        return whole / spent.partitions


def _short(value: Decimal) -> str | None:
    """Leave out what a division by the number of partitions gives beyond the ledger's digits."""
    with localcontext() as exactly:
        exactly.prec = 60
        return exact(value.quantize(Decimal(1).scaleb(-DECIMALS)))


def _figures(spent: Spent) -> Metadata:
    return money("cost", spent.amounts) | counts(
        {"calls": spent.calls, "unpriced_calls": spent.unpriced}
    )


def _not_made(key: dg.AssetKey) -> dg.AssetCheckResult:
    return _result(f"{key.to_user_string()} was not made yet", {})


def _result(
    said: str,
    metadata: Metadata,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN,
    *,
    passed: bool = False,
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed, severity=severity, description=said, metadata=metadata
    )


# --- what the ledger says ------------------------------------------------------------------------


class _Costs:
    """What one asset has cost in its runs."""

    def __init__(self, key: dg.AssetKey, ledger: str | None) -> None:
        self.key = key
        self._name = key.to_user_string()
        self._ledger = ledger

    def runs(self, instance: dg.DagsterInstance, most: int) -> dict[str, int]:
        """Return the last runs that made the asset, newest first, with how many partitions."""
        found: dict[str, int] = {}
        cursor: str | None = None
        for _ in range(_PAGES):
            page = instance.fetch_materializations(self.key, limit=_PAGE, cursor=cursor)
            for record in page.records:
                run = record.run_id
                if not run:
                    continue  # somebody has reported it by hand
                if run not in found and len(found) == most:
                    return found
                found[run] = found.get(run, 0) + 1
            if not page.has_more:
                break
            cursor = page.cursor
        return found

    def of(self, instance: dg.DagsterInstance, runs: Mapping[str, int]) -> dict[str, Spent]:
        """Return what the asset has cost in each of these runs."""
        ledger = configuration.load(ledger=self._ledger).ledger
        sums: dict[str, dict[Who, Figures]] = {run: {} for run in runs}
        wanted = ", ".join(map(literal, runs))
        with open_store(ledger) as store:
            for charge in store.charges(f"run IN ({wanted})"):
                one = who(charge)
                if one is not None:
                    sums[one.run].setdefault(one, Figures()).add(charge)
        log = Log(instance)
        found: dict[str, Spent] = {}
        for run, made in runs.items():
            found[run] = self._spent(log, facts_of(ledger, run), sums[run], made)
        return found

    def _spent(
        self, log: Log, facts: Mapping[str, Facts], parts: Mapping[Who, Figures], made: int
    ) -> Spent:
        """Add up the asset's shares; a call that it shares with others is a call of its."""
        units: dict[str, int] = {}
        calls = unpriced = 0
        for one, figures in parts.items():
            places = targets(one, facts.get(one.step), log.exists)
            mine = [place for place in places if place.asset == self._name]
            if not mine:
                continue
            share, first = figures.shares(len(places))
            calls += figures.calls
            unpriced += figures.unpriced
            for place in mine:
                for currency, part in (first if place is places[0] else share).units.items():
                    units[currency] = units.get(currency, 0) + part
        amounts = {name: Decimal(part).scaleb(-DECIMALS) for name, part in units.items()}
        return Spent(amounts, calls, unpriced, made)
