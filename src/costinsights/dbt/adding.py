"""Adds up what an invocation of dbt's cost, node by node, from its charges.

Sums are exact. An amount that is not known is in no sum: it is counted, as a call without a price.
"""

from __future__ import annotations

from collections import Counter
from decimal import Context, Decimal, Inexact
from math import fsum
from typing import TYPE_CHECKING, NamedTuple

from costinsights.comments import asset_of
from costinsights.dbt.invocations import RETRIED
from costinsights.records import BASES, BASIS_RANK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from costinsights.dbt.results import RunResults
    from costinsights.records import Charge

NODE = "dbt.node_id"
INVOCATION = "dbt.invocation_id"
# Said of every charge, and so of the invocation.
COMMAND, TARGET, PROJECT = "dbt.command", "dbt.target", "dbt.project"

_EXACT = Context(prec=100, traps=[Inexact])
_TIME = "time_ns"


class Figures(NamedTuple):
    """Sums over calls: `costs` are the known amounts, by currency.

    `failed_costs` are those of the `failed_calls`, and `retried_costs` of what was sent again: by
    ``dbt retry`` for a node that had failed, in an orchestrator's further attempt, or by the
    adapter after the same statement had failed. `usage` is in the systems' own meters, `rows` None
    where no call told; `bases` counts the calls of each basis.
    """

    costs: Mapping[str, Decimal] = {}
    failed_costs: Mapping[str, Decimal] = {}
    retried_costs: Mapping[str, Decimal] = {}
    calls: int = 0
    unpriced_calls: int = 0
    failed_calls: int = 0
    duration_ns: int = 0
    rows: int | None = None
    usage: Mapping[str, int | float] = {}
    bases: Mapping[str, int] = {}


class NodeCosts(NamedTuple):
    """One node that has sent something; `status` is dbt's, None where dbt has not said it."""

    unique_id: str
    name: str
    resource_type: str | None
    materialized: str | None
    tags: tuple[str, ...]
    owner: str | None
    team: str | None
    status: str | None
    figures: Figures


class Costs(NamedTuple):
    """What an invocation cost: of each node, of `other` work than nodes', and together."""

    invocation_id: str
    command: str | None
    target: str | None
    project: str | None
    branch: str | None
    commit: str | None
    started_at: str | None
    """When it began and ended, RFC 3339 in UTC: as dbt says it, else by its calls."""
    finished_at: str | None
    elapsed_seconds: float | None
    nodes: tuple[NodeCosts, ...]
    """The dearest first; those alike by the time they took, and by name."""
    other: Figures
    total: Figures
    unpriced: Mapping[str, int]
    """How many calls have no price, by system."""


def add(
    charges: Iterable[Charge],
    invocation_id: str,
    results: RunResults | None = None,
    elapsed_seconds: float | None = None,
) -> Costs:
    """Return what the `charges` of this invocation add up to; all others are left out.

    Of several entries of one charge the best counts. `results` are used where they are those of
    the same invocation.
    """
    ours = sorted(_best(charges, invocation_id), key=lambda charge: charge.started_at)
    if results is not None and results.metadata.invocation_id != invocation_id:
        results = None
    statuses = {} if results is None else {r.unique_id: r.status for r in results.results}
    by_node: dict[str | None, list[Charge]] = {}
    for charge in ours:
        by_node.setdefault(charge.attribution.get(NODE), []).append(charge)
    other = _figures(by_node.pop(None, []))
    nodes = [
        _node(unique_id, found, statuses.get(unique_id))
        for unique_id, found in by_node.items()
        if unique_id is not None
    ]
    total = other
    for node in nodes:
        total = _plus(total, node.figures)
    order = [currency for currency, _ in sorted(total.costs.items(), key=lambda item: -item[1])]
    nodes.sort(key=lambda node: _dearest_first(node, order))
    said = _said(ours)
    metadata = None if results is None else results.metadata
    if elapsed_seconds is None and results is not None:
        elapsed_seconds = results.elapsed_time
    return Costs(
        invocation_id=invocation_id,
        command=said.get(COMMAND),
        target=said.get(TARGET),
        project=said.get(PROJECT),
        branch=said.get("branch"),
        commit=said.get("commit"),
        started_at=(metadata and metadata.invocation_started_at)
        or min((charge.started_at for charge in ours), default=None),
        finished_at=(metadata and metadata.generated_at)
        or max((charge.ended_at for charge in ours), default=None),
        elapsed_seconds=elapsed_seconds,
        nodes=tuple(nodes),
        other=other,
        total=total,
        unpriced=Counter(charge.system for charge in ours if charge.amount is None),
    )


def _best(charges: Iterable[Charge], invocation_id: str) -> Iterable[Charge]:
    best: dict[str, Charge] = {}
    for charge in charges:
        if charge.attribution.get(INVOCATION) == invocation_id:
            known = best.get(charge.charge_id)
            if known is None or _rank(charge) >= _rank(known):
                best[charge.charge_id] = charge
    return best.values()


def _rank(charge: Charge) -> tuple[int, int, str]:
    return BASIS_RANK[charge.basis], charge.revision, charge.ended_at


def _said(charges: Iterable[Charge]) -> Mapping[str, str]:
    """Return the labels of a charge that says what the invocation is."""
    return _first(charges, COMMAND)


def _first(charges: Iterable[Charge], label: str) -> Mapping[str, str]:
    """Return the labels of the first charge that has this one."""
    for charge in charges:
        if label in charge.attribution:
            return charge.attribution
    return {}


def _node(unique_id: str, charges: list[Charge], status: str | None) -> NodeCosts:
    # The query comment alone says less than dbt itself.
    labels = _first(charges, "dbt.resource_type")
    return NodeCosts(
        unique_id=unique_id,
        name=asset_of(unique_id),
        resource_type=labels.get("dbt.resource_type") or unique_id.partition(".")[0],
        materialized=labels.get("dbt.materialized"),
        tags=tuple(filter(None, labels.get("dbt.tags", "").split(","))),
        owner=labels.get("dbt.owner"),
        team=labels.get("team"),
        status=status,
        figures=_figures(charges),
    )


def _figures(charges: Iterable[Charge]) -> Figures:
    costs: dict[str, Decimal] = {}
    failed: dict[str, Decimal] = {}
    retried: dict[str, Decimal] = {}
    bases: Counter[str] = Counter()
    meters: dict[str, list[int | float | Decimal]] = {}
    rows: list[int] = []
    in_vain: set[str] = set()
    calls = unpriced = failures = duration = 0
    for charge in charges:
        calls += 1
        bases[charge.basis] += 1
        duration += charge.duration_ns
        if charge.rows is not None:
            rows.append(charge.rows)
        again = _is_again(charge, in_vain)
        failures += charge.error is not None
        if charge.amount is None or charge.currency is None:
            unpriced += 1
        else:
            amount = Decimal(charge.amount)
            _add(costs, charge.currency, amount)
            if charge.error is not None:
                _add(failed, charge.currency, amount)
            if again:
                _add(retried, charge.currency, amount)
        for meter, quantity in charge.usage.items():
            if meter != _TIME and (number := _number(quantity)) is not None:
                meters.setdefault(meter, []).append(number)
    return Figures(
        costs=costs,
        failed_costs=failed,
        retried_costs=retried,
        calls=calls,
        unpriced_calls=unpriced,
        failed_calls=failures,
        duration_ns=duration,
        rows=sum(rows) if rows else None,
        usage={meter: _sum(meters[meter]) for meter in sorted(meters)},
        bases={basis: bases[basis] for basis in reversed(BASES) if bases[basis]},
    )


def _is_again(charge: Charge, in_vain: set[str]) -> bool:
    """Tell whether the same was sent before, in vain; remember this one if it is in vain."""
    labels = charge.attribution
    shape = "" if charge.statement is None else charge.statement.fingerprint
    again = RETRIED in labels or labels.get("attempt", "1") not in ("0", "1") or shape in in_vain
    if charge.error is not None and shape:
        in_vain.add(shape)
    return again


def _plus(one: Figures, other: Figures) -> Figures:
    rows = [figures.rows for figures in (one, other) if figures.rows is not None]
    return Figures(
        costs=_both(one.costs, other.costs),
        failed_costs=_both(one.failed_costs, other.failed_costs),
        retried_costs=_both(one.retried_costs, other.retried_costs),
        calls=one.calls + other.calls,
        unpriced_calls=one.unpriced_calls + other.unpriced_calls,
        failed_calls=one.failed_calls + other.failed_calls,
        duration_ns=one.duration_ns + other.duration_ns,
        rows=sum(rows) if rows else None,
        usage={
            meter: one.usage.get(meter, 0) + other.usage.get(meter, 0)
            for meter in sorted({*one.usage, *other.usage})
        },
        bases={
            basis: count
            for basis in reversed(BASES)
            if (count := one.bases.get(basis, 0) + other.bases.get(basis, 0))
        },
    )


def plus(figures: Iterable[Figures]) -> Figures:
    """Return the sum of several."""
    total = Figures()
    for one in figures:
        total = _plus(total, one)
    return total


def _both(one: Mapping[str, Decimal], other: Mapping[str, Decimal]) -> Mapping[str, Decimal]:
    found = dict(one)
    for currency, amount in other.items():
        _add(found, currency, amount)
    return found


def _add(sums: dict[str, Decimal], currency: str, amount: Decimal) -> None:
    sums[currency] = _EXACT.add(sums.get(currency, Decimal(0)), amount)


def _number(quantity: float | str) -> int | float | Decimal | None:
    """Return a meter's figure as a number; text that is none (a state, a name) is no quantity."""
    if isinstance(quantity, bool):
        return None
    if isinstance(quantity, (int, float)):
        return quantity
    try:
        found = Decimal(quantity)
    except ArithmeticError:
        return None
    return found if found.is_finite() else None


def _sum(numbers: list[int | float | Decimal]) -> int | float:
    if all(isinstance(number, int) for number in numbers):
        return sum(int(number) for number in numbers)
    return fsum(float(number) for number in numbers)


def _dearest_first(node: NodeCosts, currencies: list[str]) -> tuple[list[Decimal], int, str]:
    """Order by cost, in the currency of which most was spent first; what is not known comes last."""
    costs = node.figures.costs
    known = [-costs.get(currency, Decimal(0)) for currency in currencies]
    return known, -node.figures.duration_ns, node.unique_id
