"""From a usage to an amount: which lines fit, what they bill, and how it adds up, or why not."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING

from costinsights.pricing.fields import is_day
from costinsights.pricing.line import EXACT_PLACES, Meter, Part, PriceLine, Quote
from costinsights.pricing.rules import Resolved, Resolver, billed, plain, shown
from costinsights.pricing.units import BINARY_SUFFIXES, TIME_SUFFIXES, VENDOR_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from costinsights.pricing.book import PriceBook

_LARGEST_EXPONENT = 30
_MOST_CHOICES = 8
_TIERED = "Tiers are counted from nothing, as if nothing else had been used in the month."


class _Unknown(Exception):
    """The amount cannot be told; the text says why and what to do."""


def quote(
    book: PriceBook,
    system: str,
    usage: Mapping[str, Decimal | int | float | str],
    region: str | None,
    dims: Mapping[str, str],
    at: str | None,
) -> Quote:
    """`PriceBook.quote`."""
    try:
        return _Question(book, system, region, dims, at).answer(usage)
    except _Unknown as unknown:
        return Quote(system, None, None, "unknown", "", "", (), str(unknown), (), book.version)


def meters(book: PriceBook, system: str) -> tuple[Meter, ...]:
    """`PriceBook.meters`."""
    lines = book.lines(system=system)
    found: list[Meter] = []
    for name in dict.fromkeys(line.meter for line in lines):
        own = [line for line in lines if line.meter == name]
        found.append(
            Meter(
                name,
                "priced",
                _once(line.unit for line in own),
                _once(line.region for line in own),
                _once(dim for line in own for dim in line.dims),
                (),
            )
        )
    rules = book.rules(system)
    priced = {meter.name for meter in found}
    for name in dict.fromkeys(term.meter for rule in rules for term in rule.terms if term.meter):
        if name not in priced:
            using = [rule for rule in rules if any(term.meter == name for term in rule.terms)]
            looked_up = _once(
                term.dimension for rule in using for term in rule.terms if term.dimension
            )
            found.append(
                Meter(name, "input", (), (), looked_up, _once(rule.meter for rule in using))
            )
    return tuple(found)


def _once(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


class _Question:
    """A system, a region and dimensions, and what the book has on them."""

    def __init__(
        self,
        book: PriceBook,
        system: str,
        region: str | None,
        dims: Mapping[str, str],
        at: str | None,
    ) -> None:
        self._book = book
        self._system = system
        self._region = region
        self._dims = {name: str(value) for name, value in dims.items()}
        if at is not None and not is_day(at):
            raise _Unknown(f"{at!r} is not a day such as 2026-04-30")
        self._day = at if at is not None else datetime.now(timezone.utc).date().isoformat()
        self._lines = [line for line in book.lines(system=system) if self._in_force(line)]
        if not self._lines:
            raise _Unknown(
                f"the book has no price for the system {system!r}; it has "
                f"{', '.join(book.systems())}. Add a [[price]] to a file of your own"
            )
        self._rules = book.rules(system)
        self._check_dims()

    def _in_force(self, line: PriceLine) -> bool:
        return line.valid_from <= self._day and (not line.valid_to or self._day < line.valid_to)

    def _check_dims(self) -> None:
        known = {"service", *(dim for line in self._lines for dim in line.dims)}
        known.update(
            term.dimension for rule in self._rules for term in rule.terms if term.dimension
        )
        for name in self._dims:
            if name not in known:
                raise _Unknown(
                    f"no price of {self._system} depends on {name!r}; they depend on "
                    f"{', '.join(sorted(known))}"
                )

    def answer(self, usage: Mapping[str, Decimal | int | float | str]) -> Quote:
        given = self._canonical(usage)
        resolver = Resolver(given, self._dims, self._rules)
        resolved = {
            name: found
            for name in _once(line.meter for line in self._lines)
            if (found := resolver.find(name)) is not None
        }
        self._check_all_used(given, resolved)
        parts: list[Part] = []
        words: list[str] = []
        for name, found in resolved.items():
            words.extend(found.steps)
            for part, word in self._price(name, found.quantity):
                parts.append(part)
                words.append(word)
        currencies = _once(part.line.currency for part in parts)
        if len(currencies) > 1:
            raise _Unknown(
                f"the lines are in {' and '.join(currencies)}, which cannot be added; "
                "put a price in one currency into a file of your own"
            )
        currency = parts[0].line.currency
        total = sum((part.amount for part in parts), Decimal(0))
        if len(parts) > 1:
            words.append(
                f"{' + '.join(_money(part.amount) for part in parts)} = {_money(total)} {currency}"
            )
        return Quote(
            self._system,
            _trimmed(total),
            currency,
            "estimated",
            "\n".join(_once(words)),
            "; ".join(_once(rule for found in resolved.values() for rule in found.rules))
            or _line_rules(parts),
            tuple(parts),
            "",
            self._notes(parts),
            self._book.version,
        )

    def _notes(self, parts: Sequence[Part]) -> tuple[str, ...]:
        tiered = any(part.line.tier_from is not None or part.line.tier_to for part in parts)
        notes = [part.line.note for part in parts if part.line.note]
        notes += [_allowance(part.line) for part in parts if part.line.allowance is not None]
        return _once([*notes, _TIERED] if tiered else notes)

    # Usage

    def _canonical(self, usage: Mapping[str, Decimal | int | float | str]) -> dict[str, Fraction]:
        """Quantities by the meters that lines and rules know: `dpu_hours` as `dpu_seconds`."""
        known = {line.meter for line in self._lines}
        known.update(term.meter for rule in self._rules for term in rule.terms if term.meter)
        given: dict[str, Fraction] = {}
        if not usage:
            raise _Unknown("no usage was given")
        for name, value in usage.items():
            quantity = _number(name, value)
            meter, factor = self._meter(name, known)
            if meter in given:
                raise _Unknown(f"{meter} is given twice, the second time as {name}")
            given[meter] = quantity * factor
        return given

    def _meter(self, name: str, known: set[str]) -> tuple[str, Fraction]:
        if name in known:
            return name, Fraction(1)
        stem, _, suffix = name.rpartition("_")
        seconds, size = f"{stem}_seconds", f"{stem}_bytes"
        if suffix in TIME_SUFFIXES and seconds in known:
            return seconds, Fraction(TIME_SUFFIXES[suffix])
        if suffix in BINARY_SUFFIXES and size in known:
            return size, Fraction(BINARY_SUFFIXES[suffix])
        if suffix in VENDOR_SUFFIXES and size in known:
            bases = {
                1000 if line.unit_scale % 1024 else 1024
                for line in self._lines
                if line.meter == size
            }
            if len(bases) == 1:
                return size, Fraction(bases.pop() ** VENDOR_SUFFIXES[suffix])
        raise _Unknown(
            f"the book prices no {name!r} of {self._system}; it knows {', '.join(sorted(known))}. "
            f"Time may be in {', '.join(TIME_SUFFIXES)}, sizes in bytes, gib, tib or gb, tb"
        )

    def _check_all_used(
        self, given: Mapping[str, Fraction], resolved: Mapping[str, Resolved]
    ) -> None:
        used = frozenset[str]().union(*(found.used for found in resolved.values()))
        for name in given:
            if name not in used:
                raise _Unknown(
                    f"{name} alone has no price: {self._recipes(name)}{self._strange_words(name)}"
                )

    def _strange_words(self, name: str) -> str:
        """Say which words the rules that take a meter do not know: a size, a tier."""
        strange = {
            f"; {term.dimension}={word} is not known, only {_some(list(term.table))}": None
            for rule in self._rules
            if any(term.meter == name for term in rule.terms)
            for term in rule.terms
            if (word := self._dims.get(term.dimension or "")) is not None
            and plain(word) not in map(plain, term.table)
        }
        return "".join(strange)

    def _recipes(self, name: str) -> str:
        recipes = [
            f"{rule.meter} takes "
            + " and ".join(
                (term.meter or term.dimension)
                + ("" if term.default is None else f" (or {term.default})")
                for term in rule.terms
            )
            for rule in self._rules
            if any(term.meter == name for term in rule.terms)
        ]
        return "; ".join(recipes) or "another meter that was given stands for it"

    # Lines

    def _price(self, meter: str, quantity: Fraction) -> Iterable[tuple[Part, str]]:
        lines = self._fitting(meter)
        first = lines[0]
        amount_billed = billed(quantity, first.minimum, first.increment)
        word = f"{shown(amount_billed)} {meter}"
        if amount_billed != quantity:
            word += f" ({shown(quantity)} with the minimum and the rounding of the line)"
        units = amount_billed / Fraction(first.unit_scale)
        if first.unit_scale != 1:
            word += f" ÷ {shown(Fraction(first.unit_scale))} = {shown(units)} {first.unit}"
        top = lines[-1].tier_to
        if top is not None and units > Fraction(top):
            raise _Unknown(
                f"the book has no price for {meter} above {shown(Fraction(top))} {first.unit}; "
                f'add a [[price]] with tier_from = "{top}" to a file of your own'
            )
        for line in lines:
            start = Fraction(line.tier_from or 0)
            within = units if line.tier_to is None else min(units, Fraction(line.tier_to))
            if within <= start and line is not first:
                break
            within -= start
            amount = _trimmed(_rounded(within * Fraction(line.price)))
            tier = f"; of these {shown(within)}" if len(lines) > 1 else ""
            sum_ = f"{word}{tier} × {_price_words(line)} = {_money(amount)} {line.currency}"
            yield (
                Part(
                    line, _number_of(within * Fraction(line.unit_scale)), _number_of(within), amount
                ),
                sum_,
            )

    def _fitting(self, meter: str) -> list[PriceLine]:
        """The one line, or the one ladder of tiers, that prices the meter."""
        lines = [line for line in self._lines if line.meter == meter]
        in_region = [line for line in lines if self._in_region(line)]
        if not in_region:
            regions = ", ".join(_once(line.region for line in lines))
            raise _Unknown(
                f"say a region: {meter} has a price in {regions}"
                if self._region is None
                else f"{meter} has no price in {self._region}; the book has {regions}. "
                "Add a [[price]] to a file of your own"
            )
        fitting = [line for line in in_region if self._dims_fit(line)]
        if not fitting:
            raise _Unknown(self._what_is_missing(meter, in_region))
        layer = max(line.layer for line in fitting)
        fitting = [line for line in fitting if line.layer == layer]
        if not all(line.everywhere for line in fitting):
            fitting = [line for line in fitting if not line.everywhere]
        fitting.sort(key=lambda line: line.tier_from or Decimal(0))
        if not _is_ladder(fitting):
            keys = ", ".join(line.key for line in fitting)
            raise _Unknown(f"more than one line prices {meter}: {keys}. Say more of what it ran on")
        for line in fitting:
            if line.unsourced:
                raise _Unknown(
                    f"the line {line.key} has no source, so nothing is priced from it; "
                    "put the price that you pay under the same key into a file of your own"
                )
        return fitting

    def _in_region(self, line: PriceLine) -> bool:
        return line.everywhere if self._region is None else line.holds_in(self._region)

    def _dims_fit(self, line: PriceLine) -> bool:
        return all(self._dim_fits(line, dim) for dim in line.dims) and self._service_fits(line)

    def _dim_fits(self, line: PriceLine, dim: str) -> bool:
        wanted = self._dims.get(dim)
        if wanted is None and dim == "engine" and line.resource_service != self._system:
            wanted = self._system  # PostgreSQL, if nothing is said, is PostgreSQL and not Aurora
        if wanted is None:
            return dim in line.defaults
        return any(plain(wanted) == plain(value) for value in line.dims[dim])

    def _service_fits(self, line: PriceLine) -> bool:
        wanted = self._dims.get("service")
        if line.resource_service is None or line.resource_service == self._system:
            return wanted is None or wanted == (line.resource_service or line.system)
        return wanted == line.resource_service

    def _what_is_missing(self, meter: str, lines: Sequence[PriceLine]) -> str:
        choices: dict[str, list[str]] = {}
        for line in lines:
            if line.resource_service is not None and line.resource_service != self._system:
                choices.setdefault("service", []).append(line.resource_service)
            for dim, values in line.dims.items():
                choices.setdefault(dim, []).extend(values)
        said = ", ".join(f"{name}={value}" for name, value in self._dims.items())
        wanting = {
            dim: values
            for dim, values in choices.items()
            if plain(self._dims.get(dim, self._system)) not in map(plain, values)
        }
        words = [f"{dim} ({_some(_once(values))})" for dim, values in (wanting or choices).items()]
        return f"no line prices {meter} with {said or 'nothing else said'}: say {', '.join(words)}"


def _some(values: Sequence[str]) -> str:
    more = len(values) - _MOST_CHOICES
    return ", ".join(values[:_MOST_CHOICES]) + (f" and {more} more" if more > 0 else "")


def _number(name: str, value: Decimal | float | str) -> Fraction:
    try:
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise _Unknown(f"{name}={_said(value)} is not a number") from None
    if not number.is_finite() or number < 0 or abs(number.adjusted()) > _LARGEST_EXPONENT:
        raise _Unknown(
            f"{name}={_said(value)} is not a quantity, a number of 0 or more and of at most "
            f"{_LARGEST_EXPONENT} digits"
        )
    return Fraction(number)


def _said(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 4 * _LARGEST_EXPONENT:
        return "…"  # Python refuses to write out the largest numbers
    return repr(value)[:60]


def _is_ladder(lines: Sequence[PriceLine]) -> bool:
    """Whether the tiers begin at nothing and each begins where the one before it ends."""
    end: Decimal | None = Decimal(0)
    for line in lines:
        if (line.tier_from or Decimal(0)) != end:
            return False
        end = line.tier_to
    return True


def _line_rules(parts: Sequence[Part]) -> str:
    rules = ["quantity × unit price"]
    first = parts[0].line
    if first.minimum is not None:
        rules.append(f"at least {shown(Fraction(first.minimum))} {first.meter}")
    if first.increment is not None:
        rules.append(f"rounded up to {shown(Fraction(first.increment))} {first.meter}")
    if len(parts) > 1 and first.meter == parts[1].line.meter:
        rules.append("in tiers")
    return ", ".join(rules)


def _price_words(line: PriceLine) -> str:
    if line.list_price is None:
        return f"{line.price_text} {line.currency}"
    discounts = ", ".join(line.discounts)
    return f"{_money(line.price)} {line.currency} (list {line.list_price:f}, {discounts})"


def _rounded(number: Fraction) -> Decimal:
    return Decimal(round(number * 10**EXACT_PLACES)).scaleb(-EXACT_PLACES)


def _allowance(line: PriceLine) -> str:
    return (
        f"The first {shown(Fraction(line.allowance or 0))} {line.unit} of an account's month are "
        "free; a quote does not take them off."
    )


def _number_of(number: Fraction) -> Decimal:
    """A quantity, without needless zeros."""
    text = f"{_rounded(number):f}"
    return Decimal(text.rstrip("0").rstrip(".") if "." in text else text)


def _trimmed(amount: Decimal) -> Decimal:
    """Without needless zeros, but with cents: 15.00, 0.66, 626.875."""
    text = f"{amount:f}"
    if "." not in text:
        return Decimal(text + ".00")
    whole, decimals = text.split(".")
    return Decimal(f"{whole}.{decimals.rstrip('0').ljust(2, '0')}")


def _money(amount: Decimal) -> str:
    return f"{_trimmed(amount):,f}"
