"""How a line of the book is found at its vendor: tables of facts, ``lookups/<vendor>.toml``.

Every line of the shipped book has a lookup, or a reason why it has none; a test holds it to that.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import msgspec

from costinsights.pricing.document import Document, read
from costinsights.pricing.errors import PriceBookError
from costinsights.pricing.fields import FieldError, Fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from costinsights.pricing.line import PriceLine

VENDORS = ("aws", "azure", "databricks", "gcp")
"""Each has lookups; Snowflake and Dremio have no list that a program can read."""
_FIELDS = "keys, service, exactly, like, only, region, priced, query, of"
_PLACE = re.compile(r"\{(\w+)\}")


class Lookup(msgspec.Struct, frozen=True, kw_only=True):
    """One way to find one price, or the tiers of one."""

    keys: tuple[str, ...]
    """The keys of the book without their region; several are tiers, the lowest first."""
    service: str
    """As the vendor calls it: a service code, a display name, a cloud."""
    exactly: Mapping[str, str] = {}
    like: Mapping[str, str] = {}
    only: tuple[str, ...] = ()
    """The book's regions that it is for; empty for all."""
    region: str = ""
    """What the vendor says in place of the region."""
    priced: bool = False
    """Whether a SKU that costs nothing at all is another one, which nothing else tells apart."""
    query: bool = False
    """Whether the vendor's file of the service is too large to read."""
    of: Decimal = Decimal(1)
    """How many of the line's unit the SKU is for."""

    def filled(self, names: Mapping[str, str]) -> Lookup:
        """Return it with names in place of ``{name}``."""

        def put(text: str, *, pattern: bool = False) -> str:
            def name(found: re.Match[str]) -> str:
                value = names.get(found[1], found[0])
                return re.escape(value) if pattern and found[1] in names else value

            return _PLACE.sub(name, text)

        return msgspec.structs.replace(
            self,
            keys=tuple(put(key) for key in self.keys),
            exactly={name: put(value) for name, value in self.exactly.items()},
            like={name: put(value, pattern=True) for name, value in self.like.items()},
        )


class Lookups:
    """The lookups of a vendor, a user's own before the shipped ones."""

    def __init__(self, lookups: Sequence[Lookup], reasons: Sequence[tuple[str, str]]) -> None:
        """Use `load`."""
        self._lookups = [(key, _pattern(key), one) for one in lookups for key in one.keys]
        self._reasons = [(_pattern(key), reason) for key, reason in reasons]

    def of(self, line: PriceLine) -> Lookup | None:
        """Return how a line is found, the names of its key filled in; None where it is not."""
        stem = line.key.partition("/")[0]
        for _, pattern, lookup in self._lookups:
            found = pattern.fullmatch(stem)
            if found and (not lookup.only or line.region in lookup.only):
                return lookup.filled({**found.groupdict(), "sku": line.sku})
        return None

    def reason(self, line: PriceLine) -> str:
        """Return why a line is not found; empty where nobody has said."""
        stem = line.key.partition("/")[0]
        return next((why for pattern, why in self._reasons if pattern.fullmatch(stem)), "")


def load(vendor: str, own: Sequence[str] = ()) -> Lookups:
    """Return the lookups of a vendor; `own` are a user's files, which go first.

    Raises:
        PriceBookError: a file of the user's is not as documented.
    """
    lookups: list[Lookup] = []
    for path in own:
        lookups += _parsed(path, read(path))[0]
    shipped, reasons = _shipped(vendor)
    return Lookups([*lookups, *shipped], reasons)


@cache
def _shipped(vendor: str) -> tuple[list[Lookup], list[tuple[str, str]]]:
    name = f"lookups/{vendor}.toml"
    content = files("costinsights.pricing.refreshing").joinpath(name).read_bytes()
    return _parsed(name, content)


def _parsed(path: str, content: bytes) -> tuple[list[Lookup], list[tuple[str, str]]]:
    document = Document(path, content)
    lookups: list[Lookup] = []
    reasons: list[tuple[str, str]] = []
    for name in document.tables:
        if name not in ("lookup", "none"):
            raise PriceBookError(path, document.line(name), f"unknown table {name!r}")
    for number, table in enumerate(document.of("lookup")):
        try:
            lookups.append(_lookup(table))
        except (FieldError, re.error) as error:
            where = document.line("lookup", number, getattr(error, "field", None))
            raise PriceBookError(path, where, f"[[lookup]]: {error}") from None
    for number, table in enumerate(document.of("none")):
        fields = Fields(table)
        try:
            keys, reason = fields.texts("keys"), fields.text("reason")
            fields.finish("keys, reason")
        except FieldError as error:
            where = document.line("none", number, error.field)
            raise PriceBookError(path, where, f"[[none]]: {error}") from None
        reasons += [(key, reason) for key in keys]
    return lookups, reasons


def _lookup(table: Mapping[str, object]) -> Lookup:
    fields = Fields(table)
    lookup = Lookup(
        keys=fields.texts("keys"),
        service=fields.text("service"),
        exactly=_texts("exactly", fields),
        like=_texts("like", fields),
        only=fields.texts("only"),
        region=fields.text("region", ""),
        priced=fields.flag("priced"),
        query=fields.flag("query"),
        of=fields.positive("of") or Decimal(1),
    )
    fields.finish(_FIELDS)
    if not (lookup.keys and (lookup.exactly or lookup.like)):
        raise FieldError(None, "say keys, and what the vendor has: exactly, like or both")
    for pattern in lookup.like.values():
        re.compile(pattern)
    return lookup


def _texts(name: str, fields: Fields) -> dict[str, str]:
    table = fields.table(name)
    for attribute, value in table.items():
        if not isinstance(value, str):
            raise FieldError(name, f"{name}: {attribute} must be text in quotes")
    return {attribute: str(value) for attribute, value in table.items()}


def _pattern(key: str) -> re.Pattern[str]:
    """Return what fits a key; ``{name}`` in it stands for whatever is there."""
    parts = _PLACE.split(key)
    return re.compile(
        "".join(
            re.escape(part) if number % 2 == 0 else f"(?P<{part}>.+)"
            for number, part in enumerate(parts)
        )
    )
