"""How a usage becomes a billed quantity: minimum, rounding, and meters made of other meters.

The rules themselves are data, `[[rule]]` tables and fields of price lines; this is the whole of
the arithmetic. Everything is exact: fractions in, fractions out.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """One operand of a rule: a meter of the usage, or a table looked up by a dimension."""

    meter: str = ""
    dimension: str = ""
    table: Mapping[str, Decimal] = {}
    default: Decimal | None = None
    minimum: Decimal | None = None
    increment: Decimal | None = None
    times: Decimal = Decimal(1)
    divide: Decimal = Decimal(1)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """`meter` is the product, the sum or the largest of the terms."""

    name: str
    system: str
    meter: str
    combine: str
    terms: tuple[Term, ...]
    source: str
    origin: str = ""


class Resolved(msgspec.Struct, frozen=True):
    """A meter's quantity, how it came about, and what of the usage went into it."""

    quantity: Fraction
    steps: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    used: frozenset[str] = frozenset()


def billed(quantity: Fraction, minimum: Decimal | None, increment: Decimal | None) -> Fraction:
    """At least `minimum` and rounded up to a multiple of `increment`; nothing stays nothing."""
    if not quantity:
        return quantity
    if increment is not None:
        step = Fraction(increment)
        quantity = -(-quantity // step) * step
    return quantity if minimum is None else max(quantity, Fraction(minimum))


def plain(value: str) -> str:
    """A dimension's value as it is compared: `X-Small`, `XSMALL` and `x_small` are the same."""
    return value.casefold().replace("-", "").replace("_", "").replace(" ", "")


class Resolver:
    """Finds meters in a usage: given as they are, or made by the rules that apply."""

    def __init__(
        self, given: Mapping[str, Fraction], dims: Mapping[str, str], rules: Iterable[Rule]
    ) -> None:
        self._given = given
        self._dims = dims
        self._rules: dict[str, list[Rule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.meter, []).append(rule)

    def find(self, meter: str, above: frozenset[str] = frozenset()) -> Resolved | None:
        """The quantity of `meter`, or None where the usage does not hold what it takes."""
        if meter in self._given:
            return Resolved(self._given[meter], used=frozenset((meter,)))
        if meter in above:  # a rule that leads back to itself gives nothing
            return None
        for rule in self._rules.get(meter, ()):
            found = self._apply(rule, above | {meter})
            if found is not None:
                return found
        return None

    def _apply(self, rule: Rule, above: frozenset[str]) -> Resolved | None:
        values: list[Fraction] = []
        words: list[str] = []
        parts: list[Resolved] = []
        for term in rule.terms:
            found = self._term(term, above)
            if found is None:
                if term.default is None:
                    return None
                values.append(Fraction(term.default))
                continue
            raw = found.quantity
            value = billed(raw, term.minimum, term.increment)
            word = f"{shown(value)} {self._named(term)}"
            if value != raw:
                word += f" ({shown(raw)} rounded by the rule)"
            if term.times != 1:
                word = f"{shown(Fraction(term.times))} × {word}"
            if term.divide != 1:
                word += f" ÷ {shown(Fraction(term.divide))}"
            values.append(value * Fraction(term.times) / Fraction(term.divide))
            words.append(word)
            parts.append(found)
        if not parts:
            return None
        quantity, formula = _COMBINE[rule.combine](values, words)
        step = f"{rule.meter} = {formula}"
        if formula != f"{shown(quantity)} {rule.terms[0].meter}":
            step += f" = {shown(quantity)}"
        return Resolved(
            quantity,
            (*(step for part in parts for step in part.steps), step),
            (*(name for part in parts for name in part.rules), rule.name),
            frozenset[str]().union(*(part.used for part in parts)),
        )

    def _named(self, term: Term) -> str:
        return term.meter or f"({term.dimension} {self._dims.get(term.dimension)})"

    def _term(self, term: Term, above: frozenset[str]) -> Resolved | None:
        if term.meter:
            return self.find(term.meter, above)
        wanted = self._dims.get(term.dimension)
        if wanted is None:
            return None
        for value, number in term.table.items():
            if plain(value) == plain(wanted):
                return Resolved(Fraction(number), used=frozenset((term.dimension,)))
        return None


def _product(values: list[Fraction], words: list[str]) -> tuple[Fraction, str]:
    result = Fraction(1)
    for value in values:
        result *= value
    return result, " × ".join(words)


def _sum(values: list[Fraction], words: list[str]) -> tuple[Fraction, str]:
    return sum(values, Fraction(0)), " + ".join(words).replace("+ -", "- ")


def _largest(values: list[Fraction], words: list[str]) -> tuple[Fraction, str]:
    return max(values), f"largest of ({', '.join(words)})"


_COMBINE = {"product": _product, "sum": _sum, "max": _largest}
COMBINATIONS = tuple(_COMBINE)


def shown(number: Fraction) -> str:
    """A number for people: exact where it ends within 15 decimals, otherwise with an `≈`."""
    scaled = number * 10**15
    if scaled.denominator == 1:
        whole, rest = divmod(abs(scaled.numerator), 10**15)
        sign = "-" if scaled < 0 else ""
        return f"{sign}{whole:,}.{rest:015d}".rstrip("0").rstrip(".")
    return f"≈ {float(number):,.6f}"
