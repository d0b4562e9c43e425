"""`[[capacity]]`: what a database costs by the hour, and which calls run on it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import msgspec

from costinsights.pricing.capacity import Capacity
from costinsights.pricing.errors import PriceBookError
from costinsights.pricing.fields import FieldError, Fields, exact_decimal
from costinsights.pricing.line import PriceLine
from costinsights.pricing.units import is_hourly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIELDS = (
    "name, system, host, port, database, service, price, currency, unit, line, count, source, as_of"
)
_LARGEST_PORT = 65_535
_GLOB = frozenset("*?[")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is paid for by the hour. `price` is its own, or else `line` names one."""

    name: str
    system: str | None
    host: tuple[str, ...]
    """Patterns; empty fits every host."""
    port: int | None
    database: str | None
    service: str | None
    price: PriceLine | None
    line: str | None
    count: Decimal
    path: str
    place: int
    """Line in `path`, or 0."""

    @property
    def origin(self) -> str:
        """Where the entry stands."""
        return f"{self.path}:{self.place}" if self.place else self.path

    def fits(
        self,
        system: str,
        address: str | None,
        port: int | None,
        namespace: str | None,
        service: str | None,
    ) -> bool:
        """Whether a call on that resource runs on this capacity."""
        return (
            (self.system is None or self.system == system)
            and (self.port is None or self.port == port)
            and (self.service is None or self.service == service)
            and (
                not self.host
                or any(_glob(pattern.lower(), (address or "").lower()) for pattern in self.host)
            )
            and (self.database is None or _glob(self.database, namespace or ""))
        )

    def capacity(self, find: Callable[[str], PriceLine | None]) -> Capacity:
        """Raises PriceBookError where the entry names a line that does not do."""
        return Capacity(self.price if self.price is not None else self._from_book(find))

    def _from_book(self, find: Callable[[str], PriceLine | None]) -> PriceLine:
        key = self.line or ""
        line = find(key)
        if line is None:
            raise self._refused(
                f"no price line has the key {key!r}; `costinsights prices list` shows the keys"
            )
        if line.unsourced:
            raise self._refused(f"the line {key!r} has no source: write the price that you pay")
        if not is_hourly(line.unit):
            raise self._refused(f"the line {key!r} is per {line.unit}, which is not an hour")
        if not line.price:
            raise self._refused(f"the line {key!r} is free, so there is nothing to share")
        if self.count == 1:
            return line
        return msgspec.structs.replace(
            line,
            price=line.price * self.count,
            unit="hour",
            note=f"{self.count} × {line.price} {line.currency} per {line.unit}",
        )

    def _refused(self, message: str) -> PriceBookError:
        return PriceBookError(self.path, self.place, f"[[capacity]] {self.name!r}: {message}")


def from_arguments(tables: Sequence[Mapping[str, object]]) -> tuple[Entry, ...]:
    """Entries given in code or by the configuration. Raises PriceBookError naming the entry."""
    found: dict[str, Entry] = {}
    for number, table in enumerate(tables, start=1):
        where = f"[[capacity]] #{number}"
        if not isinstance(table, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PriceBookError(where, 0, "must be a table")
        name = table.get("name")
        if isinstance(name, str):
            where += f" {name!r}"
        try:
            entry = read_entry(table, number, where, 0)
        except FieldError as error:
            raise PriceBookError(where, 0, str(error)) from None
        if entry.name in found:
            raise PriceBookError(where, 0, f"the name is taken by {found[entry.name].origin}")
        found[entry.name] = entry
    return tuple(found.values())


def read_entry(table: Mapping[str, object], number: int, path: str, place: int) -> Entry:
    """One `[[capacity]]` table. Raises FieldError."""
    fields = Fields(table)
    name = fields.text("name", f"#{number}")
    source = fields.text("source", f"[[capacity]] {name}")
    as_of = fields.as_of("as_of", "unknown")
    line = fields.optional_text("line")
    count = _count(fields)
    entry = Entry(
        name=name,
        system=fields.optional_text("system"),
        host=_hosts(fields),
        port=_port(fields),
        database=fields.optional_text("database"),
        service=fields.optional_text("service"),
        price=None if line is not None else _inline(fields, name, source, as_of, count),
        line=line,
        count=count,
        path=path,
        place=place,
    )
    for alone in ("price", "currency", "unit"):
        if line is not None and alone in fields:
            raise FieldError(alone, f"say either line or {alone}, not both")
    fields.finish(FIELDS)
    if not any((entry.system, entry.host, entry.port, entry.database, entry.service)):
        raise FieldError(
            None, "say what runs on it: system, host, port, database or service, or several"
        )
    return entry


def _inline(fields: Fields, name: str, source: str, as_of: str, count: Decimal) -> PriceLine:
    if "price" not in fields:
        raise FieldError(None, 'say price = "0.178" with a currency, or line = "<price key>"')
    price = fields.number("price")
    if not price:
        raise FieldError("price", "price is 0, so there is nothing to share: leave the entry out")
    unit = fields.text("unit", "hour")
    if not is_hourly(unit):
        raise FieldError("unit", f"unit {unit!r} is not an hour")
    return PriceLine(
        key=f"capacity.{name}",
        provider="own",
        service=name,
        sku=name,
        system="capacity",
        meter="time_seconds",
        region="own",
        unit=unit if count == 1 else "hour",
        unit_scale=Decimal(3600),
        price=price * count,
        currency=fields.currency("currency"),
        as_of=as_of,
        source=source,
        note="" if count == 1 else f"{count} × {price} per {unit}",
    )


def _count(fields: Fields) -> Decimal:
    value = fields.take("count")
    if value is None:
        return Decimal(1)
    try:
        count = Decimal(value) if type(value) is int else exact_decimal(value)
    except ValueError as error:
        raise FieldError("count", f"count {error}") from None
    if not 0 < count < 10**9:
        raise FieldError("count", f"count {value!r} must be more than 0")
    return count


def _hosts(fields: Fields) -> tuple[str, ...]:
    """One pattern, or a list: several names of one thing that is paid for."""
    value = fields.take("host")
    if isinstance(value, list):
        return Fields({"host": cast("list[object]", value)}).texts("host")
    return () if value is None else (Fields({"host": value}).text("host"),)


def _port(fields: Fields) -> int | None:
    value = fields.take("port")
    if value is None or (type(value) is int and 0 < value <= _LARGEST_PORT):
        return value
    raise FieldError("port", f"port {value!r} must be a number from 1 to {_LARGEST_PORT}")


def _glob(pattern: str, value: str) -> bool:
    if _GLOB.isdisjoint(pattern):
        return pattern == value
    from fnmatch import fnmatchcase  # brings `re` along, so only for those who write patterns

    return fnmatchcase(value, pattern)
