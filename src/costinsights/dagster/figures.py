"""Sums of what calls have cost and used, that can be shared out and compared to the last digit.

Nothing here knows Dagster. Money is counted in whole 10⁻¹⁵ of a currency, as the ledger counts it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from costinsights.records import BASIS_RANK, DECIMALS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from costinsights.records import Basis, Charge

# How many kinds of statement are kept apart; what is cheaper than these is in the sums all the same.
MOST_STATEMENTS = 128
# Sums of parts of a second or a byte may differ in the last bit, depending on their order.
SAME = Decimal("1e-9")

_BASES: dict[int, Basis] = {rank: basis for basis, rank in BASIS_RANK.items()}
_NOT_METERS = ("time_ns",)  # it is the duration


class Dear(NamedTuple):
    """One kind of statement: what a table of the dearest has a row of."""

    summary: str
    system: str
    calls: int
    units: int
    currency: str
    basis: Basis
    duration_ns: int

    @property
    def weight(self) -> tuple[int, int]:
        """By cost, and where that is unknown by time."""
        return self.units, self.duration_ns

    def plus(self, other: Dear) -> Dear:
        """Return both together."""
        return self._replace(
            calls=self.calls + other.calls,
            units=self.units + other.units,
            duration_ns=self.duration_ns + other.duration_ns,
            basis=min(self.basis, other.basis, key=_rank),
        )


class Figures:
    """What a set of calls has cost and used."""

    __slots__ = (
        "attempts",
        "bases",
        "calls",
        "duration_ns",
        "failed",
        "sources",
        "statements",
        "units",
        "unpriced",
        "usage",
    )

    def __init__(self) -> None:
        self.units: dict[str, int] = {}
        self.calls = 0
        self.unpriced = 0
        self.failed = 0
        self.duration_ns = 0
        self.usage: dict[str, int | Decimal] = {}
        self.bases: dict[Basis, int] = {}
        self.sources: set[str] = set()
        self.attempts: set[str] = set()
        self.statements: dict[tuple[str, str, str], Dear] = {}

    def __bool__(self) -> bool:
        return bool(
            self.calls
            or self.unpriced
            or self.failed
            or self.duration_ns
            or any(self.units.values())
            or any(self.usage.values())
        )

    # -- adding up ------------------------------------------------------------------------------

    def add(self, charge: Charge, sign: int = 1) -> None:
        """Add a charge, or with a `sign` of -1 take one back that was added."""
        self.calls += sign
        self.duration_ns += sign * charge.duration_ns
        self.failed += sign * (charge.error is not None)
        units = 0
        if charge.amount is None or charge.currency is None:
            self.unpriced += sign
        else:
            units = sign * units_of(charge.amount)
            self.units[charge.currency] = self.units.get(charge.currency, 0) + units
            if charge.price is not None and sign > 0:
                self.sources.add(charge.price.source)
        self.bases[charge.basis] = self.bases.get(charge.basis, 0) + sign
        for meter, value in charge.usage.items():
            number = None if meter in _NOT_METERS else number_of(value)
            if number is not None:
                self.usage[meter] = self.usage.get(meter, 0) + sign * number
        if (attempt := charge.attribution.get("attempt")) is not None:
            self.attempts.add(attempt)
        self._add_statement(charge, sign, units)

    def _add_statement(self, charge: Charge, sign: int, units: int) -> None:
        info = charge.statement
        summary = (info.summary if info is not None else "") or charge.operation
        currency = charge.currency or ""
        key = (info.fingerprint if info is not None else summary, charge.system, currency)
        known = self.statements.get(key)
        calls, duration = sign, sign * charge.duration_ns
        basis = charge.basis
        if known is not None:
            calls, units = calls + known.calls, units + known.units
            duration += known.duration_ns
            basis = min(basis, known.basis, key=_rank) if sign > 0 else basis
        if calls <= 0:
            self.statements.pop(key, None)
            return
        self.statements[key] = Dear(summary, charge.system, calls, units, currency, basis, duration)
        if len(self.statements) > MOST_STATEMENTS:
            self._forget_statements()

    def _forget_statements(self) -> None:
        dearest = sorted(self.statements.items(), key=_weight, reverse=True)
        self.statements = dict(dearest[: MOST_STATEMENTS // 2])

    def merge(self, other: Figures, sign: int = 1) -> None:
        """Add other sums, or with a `sign` of -1 take them off; statements are only ever added."""
        self.calls += sign * other.calls
        self.unpriced += sign * other.unpriced
        self.failed += sign * other.failed
        self.duration_ns += sign * other.duration_ns
        for currency, units in other.units.items():
            self.units[currency] = self.units.get(currency, 0) + sign * units
        for meter, value in other.usage.items():
            self.usage[meter] = self.usage.get(meter, 0) + sign * value
        if sign < 0:
            return
        for basis, calls in other.bases.items():
            self.bases[basis] = self.bases.get(basis, 0) + calls
        self.sources |= other.sources
        self.attempts |= other.attempts
        for key, dear in other.statements.items():
            known = self.statements.get(key)
            self.statements[key] = dear if known is None else dear.plus(known)
        if len(self.statements) > MOST_STATEMENTS:
            self._forget_statements()

    def less(self, told: Figures) -> Figures:
        """Return what is here and was not told; nothing where only roundings differ."""
        rest = Figures()
        rest.merge(self)
        rest.merge(told, -1)
        for meter, value in list(rest.usage.items()):
            if abs(Decimal(value)) <= SAME * (1 + abs(Decimal(self.usage.get(meter, 0)))):
                rest.usage[meter] = 0
        return rest

    # -- sharing out ----------------------------------------------------------------------------

    def shares(self, count: int) -> tuple[Figures, Figures]:
        """Return one of `count` equal shares, and the first, which has the rest of the division.

        The first and ``count - 1`` of the others are together what is here, to the last digit.
        """
        if count == 1:
            return self, self
        share, first = Figures(), Figures()
        for part in (share, first):
            part.bases = dict(self.bases)
            part.sources, part.attempts = self.sources, self.attempts
            part.statements = self.statements
        for name in ("calls", "unpriced", "failed", "duration_ns"):
            each, rest = divmod(getattr(self, name), count)
            setattr(share, name, each)
            setattr(first, name, each + rest)
        for currency, units in self.units.items():
            each, rest = divmod(units, count)
            share.units[currency], first.units[currency] = each, each + rest
        for meter, value in self.usage.items():
            if isinstance(value, int):
                whole, left = divmod(value, count)
                share.usage[meter], first.usage[meter] = whole, whole + left
            else:
                part_ = round(value / count, DECIMALS)
                share.usage[meter] = part_
                first.usage[meter] = value - part_ * (count - 1)
        return share, first

    # -- in words -------------------------------------------------------------------------------

    @property
    def basis(self) -> Basis:
        """The weakest basis of all that is in the sums."""
        ranks = [BASIS_RANK[basis] for basis, calls in self.bases.items() if calls > 0]
        return _BASES[min(ranks, default=0)]

    def dearest(self, count: int) -> list[Dear]:
        """Return the dearest kinds of statement."""
        return sorted(self.statements.values(), key=_weight_of, reverse=True)[:count]


def total(parts: Iterable[Figures]) -> Figures:
    """Add up."""
    found = Figures()
    for part in parts:
        found.merge(part)
    return found


def _rank(basis: Basis) -> int:
    return BASIS_RANK[basis]


def _weight(item: tuple[object, Dear]) -> tuple[int, int]:
    return item[1].weight


def _weight_of(dear: Dear) -> tuple[int, int]:
    return dear.weight


def units_of(amount: str) -> int:
    """Return a decimal as whole 10⁻¹⁵: ``0.000000003955555`` is 3955555."""
    whole, point, rest = amount.partition(".")
    if point and len(rest) == DECIMALS:
        return int(whole + rest)
    return int(Decimal(amount).scaleb(DECIMALS))


def number_of(value: object) -> int | Decimal | None:
    """Return a meter's figure as an exact number; None for a word, and for what is no number."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value
    if not isinstance(value, (str, float)):
        return None
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        return None
    return number if number.is_finite() else None
