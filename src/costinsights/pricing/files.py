"""A price file read, checked line by line, and refused with file and line if anything is wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from costinsights.pricing.document import Document
from costinsights.pricing.entries import Entry, read_entry
from costinsights.pricing.errors import PriceBookError
from costinsights.pricing.fields import FieldError, Fields, newest_of, region_slug
from costinsights.pricing.line import Discount, PriceLine
from costinsights.pricing.rules import COMBINATIONS, Rule, Term
from costinsights.pricing.units import unit_scale

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TABLES = ("price", "rule", "discount", "capacity")
PRICE_FIELDS = (
    "key, provider, service, sku, system, also, resource_service, meter, dims, defaults, region, "
    "regions, unit, unit_scale, price, currency, minimum, increment, tier_from, tier_to, "
    "allowance, valid_from, valid_to, free, unsourced, as_of, source, note"
)
RULE_FIELDS = "name, system, meter, combine, terms, source"
TERM_FIELDS = "meter, dimension, table, default, minimum, increment, times, divide"
DISCOUNT_FIELDS = (
    "name, multiplier, key, system, provider, service, region, currency, source, as_of"
)
_DISCOUNT_MATCH = ("key", "system", "provider", "service", "region", "currency")
_LARGEST_MULTIPLIER = 10


class PriceFile(msgspec.Struct, frozen=True):
    """What one file holds."""

    path: str
    lines: Mapping[str, PriceLine]
    rules: Mapping[str, Rule]
    discounts: tuple[Discount, ...]
    entries: tuple[Entry, ...]
    newest: str
    """The newest as-of date of its lines."""


def parse(path: str, content: bytes, layer: int) -> PriceFile:
    """Raises PriceBookError, naming file and line, for anything that is not as documented."""
    document = Document(path, content)
    for name in document.tables:
        if name not in _TABLES:
            known = ", ".join(f"[[{table}]]" for table in _TABLES)
            raise PriceBookError(
                path, document.line(name), f"unknown table {name!r}; the tables are {known}"
            )
    reader = _Reader(document, layer)
    lines = reader.lines()
    return PriceFile(
        path,
        lines,
        reader.rules(),
        reader.discounts(),
        reader.entries(),
        max((newest_of(line.as_of) for line in lines.values()), default=""),
    )


class _Reader:
    def __init__(self, document: Document, layer: int) -> None:
        self._document = document
        self._layer = layer

    def _refused(self, table: str, number: int, error: FieldError) -> PriceBookError:
        line = self._document.line(table, number, error.field)
        return PriceBookError(self._document.path, line, f"[[{table}]]: {error}")

    def lines(self) -> Mapping[str, PriceLine]:
        lines: dict[str, PriceLine] = {}
        places: dict[str, int] = {}
        for number, table in enumerate(self._document.of("price")):
            try:
                line = read_line(table, self._origin("price", number), self._layer)
                _refuse_second("key", line.key, lines)
            except FieldError as error:
                raise self._refused("price", number, error) from None
            lines[line.key] = line
            places[line.key] = number
        for earlier, later in _overlaps(lines.values()):
            overlap = FieldError(
                "key",
                f"{later.key!r} overlaps {earlier.key!r} ({earlier.origin}): both price "
                f"{later.meter} of {later.system} in {later.region} at the same time",
            )
            raise self._refused("price", places[later.key], overlap)
        return lines

    def rules(self) -> Mapping[str, Rule]:
        rules: dict[str, Rule] = {}
        for number, table in enumerate(self._document.of("rule")):
            try:
                rule = _read_rule(table, self._origin("rule", number))
                _refuse_second("name", rule.name, rules)
            except FieldError as error:
                raise self._refused("rule", number, error) from None
            rules[rule.name] = rule
        return rules

    def discounts(self) -> tuple[Discount, ...]:
        found: dict[str, Discount] = {}
        for number, table in enumerate(self._document.of("discount")):
            try:
                discount = _read_discount(table, self._origin("discount", number))
                _refuse_second("name", discount.name, found)
            except FieldError as error:
                raise self._refused("discount", number, error) from None
            found[discount.name] = discount
        return tuple(found.values())

    def entries(self) -> tuple[Entry, ...]:
        found: dict[str, Entry] = {}
        for number, table in enumerate(self._document.of("capacity")):
            line = self._document.line("capacity", number)
            try:
                entry = read_entry(table, number + 1, self._document.path, line)
                _refuse_second("name", entry.name, found)
            except FieldError as error:
                raise self._refused("capacity", number, error) from None
            found[entry.name] = entry
        return tuple(found.values())

    def _origin(self, table: str, number: int) -> str:
        return f"{self._document.path}:{self._document.line(table, number)}"


def _refuse_second(
    field: str, name: str, known: Mapping[str, PriceLine | Rule | Discount | Entry]
) -> None:
    if name in known:
        raise FieldError(field, f"the {field} {name!r} is taken by {known[name].origin}")


def read_line(table: Mapping[str, object], origin: str, layer: int) -> PriceLine:
    """One `[[price]]` table. Raises FieldError."""
    fields = Fields(table)
    key = fields.key("key")
    meter = fields.word("meter")
    unit = fields.text("unit")
    region = fields.text("region")
    line = PriceLine(
        key=key,
        provider=fields.text("provider"),
        service=fields.text("service"),
        sku=fields.text("sku", meter),
        system=fields.word("system"),
        also=fields.texts("also"),
        resource_service=fields.optional_text("resource_service"),
        meter=meter,
        dims=fields.dims("dims"),
        defaults=fields.texts("defaults"),
        region=region,
        regions=fields.texts("regions"),
        unit=unit,
        unit_scale=_scale(unit, meter, fields.positive("unit_scale")),
        price=fields.number("price"),
        currency=fields.currency("currency"),
        minimum=fields.positive("minimum"),
        increment=fields.positive("increment"),
        tier_from=fields.optional_number("tier_from"),
        tier_to=fields.positive("tier_to"),
        allowance=fields.positive("allowance"),
        valid_from=fields.day("valid_from"),
        valid_to=fields.day("valid_to"),
        free=fields.flag("free"),
        unsourced=fields.flag("unsourced"),
        as_of=fields.as_of("as_of"),
        source=fields.text("source"),
        note=fields.text("note", ""),
        origin=origin,
        layer=layer,
    )
    fields.finish(PRICE_FIELDS)
    _check_line(line)
    return line


def _scale(unit: str, meter: str, stated: Decimal | None) -> Decimal:
    try:
        return unit_scale(unit, meter, stated)
    except ValueError as error:
        raise FieldError("unit", str(error)) from None


def _check_line(line: PriceLine) -> None:
    _, slash, ending = line.key.partition("/")
    if slash and ending != region_slug(line.region):
        raise FieldError(
            "key",
            f"the key {line.key!r} ends in {ending!r}, but its region {line.region!r} is "
            f"written {region_slug(line.region)!r}",
        )
    if line.free == bool(line.price):
        raise FieldError(
            "price",
            "free = true needs price 0"
            if line.free
            else "price is 0: say free = true if it truly costs nothing, or leave the line out",
        )
    if line.tier_to is not None and line.tier_to <= (line.tier_from or 0):
        raise FieldError("tier_to", "tier_to must be more than tier_from")
    if line.valid_to and line.valid_from >= line.valid_to:
        raise FieldError("valid_to", "valid_to, the first day without the price, is too early")
    for dim in line.defaults:
        if len(line.dims.get(dim, ())) != 1:
            raise FieldError("defaults", f"defaults names {dim!r}, which needs one value in dims")


def _overlaps(lines: Iterable[PriceLine]) -> Iterable[tuple[PriceLine, PriceLine]]:
    """Pairs that would both price the same usage on the same day."""
    alike: dict[object, list[PriceLine]] = {}
    for line in lines:
        dims = tuple(sorted(line.dims.items()))
        for region in {name.casefold() for name in (line.region, *line.regions)}:
            what = (line.system, line.resource_service, line.meter, dims, region)
            for other in alike.setdefault(what, []):
                if _same_days(line, other) and _same_tier(line, other):
                    yield other, line
            alike[what].append(line)


def _same_days(one: PriceLine, other: PriceLine) -> bool:
    return (not other.valid_to or one.valid_from < other.valid_to) and (
        not one.valid_to or other.valid_from < one.valid_to
    )


def _same_tier(one: PriceLine, other: PriceLine) -> bool:
    return (other.tier_to is None or (one.tier_from or 0) < other.tier_to) and (
        one.tier_to is None or (other.tier_from or 0) < one.tier_to
    )


def _read_rule(table: Mapping[str, object], origin: str) -> Rule:
    fields = Fields(table)
    rule = Rule(
        name=fields.key("name"),
        system=fields.word("system"),
        meter=fields.word("meter"),
        combine=fields.text("combine", "product"),
        terms=tuple(_read_term(term) for term in fields.tables("terms")),
        source=fields.text("source"),
        origin=origin,
    )
    fields.finish(RULE_FIELDS)
    if rule.combine not in COMBINATIONS:
        raise FieldError("combine", f"combine must be one of {', '.join(COMBINATIONS)}")
    return rule


def _read_term(table: Mapping[str, object]) -> Term:
    try:
        fields = Fields(table)
        numbers = Fields(fields.table("table"))
        term = Term(
            meter=fields.word("meter", ""),
            dimension=fields.word("dimension", ""),
            table={name: numbers.number(name) for name in numbers.names()},
            default=fields.optional_number("default"),
            minimum=fields.positive("minimum"),
            increment=fields.positive("increment"),
            times=_or_one(fields.optional_number("times", signed=True)),
            divide=_or_one(fields.positive("divide")),
        )
        fields.finish(TERM_FIELDS)
    except FieldError as error:
        raise FieldError("terms", f"a term: {error}") from None
    if bool(term.meter) == bool(term.dimension) or bool(term.dimension) != bool(term.table):
        raise FieldError("terms", "a term has a meter, or a dimension with a table")
    return term


def _or_one(number: Decimal | None) -> Decimal:
    return Decimal(1) if number is None else number


def _read_discount(table: Mapping[str, object], origin: str) -> Discount:
    fields = Fields(table)
    multiplier = fields.number("multiplier")
    match = {name: fields.text(name) for name in _DISCOUNT_MATCH if name in fields}
    discount = Discount(
        fields.text("name"),
        multiplier,
        match,
        fields.text("source", "the user's own agreement"),
        fields.as_of("as_of", "unknown"),
        origin,
    )
    fields.finish(DISCOUNT_FIELDS)
    if not 0 < multiplier <= _LARGEST_MULTIPLIER:
        raise FieldError(
            "multiplier",
            f"multiplier must be more than 0 and at most {_LARGEST_MULTIPLIER}; "
            'a discount of 12 % is "0.88"',
        )
    if not match:
        raise FieldError(None, f"say what it applies to: one of {', '.join(_DISCOUNT_MATCH)}")
    return discount
