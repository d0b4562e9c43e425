"""The price book: the built-in files, under the user's own, under the user's capacities."""

from __future__ import annotations

import os
from decimal import Context
from typing import TYPE_CHECKING

import msgspec

from costinsights.pricing import builtin
from costinsights.pricing.entries import from_arguments
from costinsights.pricing.errors import PriceBookError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal

    from costinsights.pricing.capacity import Capacity
    from costinsights.pricing.entries import Entry
    from costinsights.pricing.files import PriceFile
    from costinsights.pricing.line import Discount, Meter, PriceLine, Quote
    from costinsights.pricing.rules import Rule

_EXACT = Context(prec=400)
_MOST_RESOURCES = 1024


class PriceBook:
    """Prices by key, quotes for a usage, and the capacities of databases paid for by the hour.

    A book never changes; `reloaded` gives a new one. Every reader is safe in every thread.
    """

    __slots__ = (
        "_capacities",
        "_entries",
        "_files",
        "_found",
        "_given",
        "_merged",
        "_paths",
        "_raw",
        "_version",
    )

    def __init__(
        self,
        files: Sequence[PriceFile] = (),
        raw: Sequence[bytes] = (),
        given: Sequence[Mapping[str, object]] = (),
        before: PriceBook | None = None,
    ) -> None:
        """Use `PriceBook.load`."""
        self._files = tuple(files)
        self._raw = tuple(raw)
        self._paths = tuple(file.path for file in files)
        self._given = tuple(given)
        self._merged: dict[tuple[str, ...], Mapping[str, PriceLine]] = {}
        self._version: str | None = None
        self._entries = (
            *from_arguments(self._given),
            *(entry for file in files for entry in file.entries),
        )
        self._capacities = tuple(self._capacity(entry, before) for entry in self._entries)
        self._found: dict[tuple[str, str | None, int | None, str | None, str | None], int] = {}
        self._check_discounts()

    @classmethod
    def load(
        cls,
        *user_files: str | os.PathLike[str],
        capacities: Sequence[Mapping[str, object]] = (),
    ) -> PriceBook:
        """The built-in prices with the user's files over them, later ones over earlier ones.

        `capacities` are `[[capacity]]` tables as the configuration gives them; they are tried
        before those of the files. Raises PriceBookError, which names file and line or the entry,
        for anything that is missing, malformed or contradictory.
        """
        return cls._load([os.fspath(path) for path in user_files], capacities, None)

    @classmethod
    def _load(
        cls,
        paths: Sequence[str],
        capacities: Sequence[Mapping[str, object]],
        before: PriceBook | None,
    ) -> PriceBook:
        if not paths:
            return cls(given=capacities, before=before)
        from costinsights.pricing.document import read
        from costinsights.pricing.files import parse

        raw = [read(path) for path in paths]
        files = [
            parse(path, content, layer)
            for layer, (path, content) in enumerate(zip(paths, raw, strict=True), start=1)
        ]
        return cls(files, raw, capacities, before)

    def reloaded(self) -> tuple[PriceBook, PriceBookError | None]:
        """The book from the files as they are now, or this very book and what is wrong with them.

        Capacities whose entry did not change keep their clock, so calls that run on them go on
        being shared.
        """
        try:
            book = self._load(self._paths, self._given, self)
        except PriceBookError as error:
            return self, error
        unchanged = book._raw == self._raw  # noqa: SLF001  of another price book
        return (self if unchanged else book), None

    @property
    def version(self) -> str:
        """Newest as-of date and a short hash of all that the book is made of: `2026-10-09+1f2e…`.

        Two programs with the same version have the same prices.
        """
        if self._version is None:
            from hashlib import sha256

            built_in = b"\0".join(builtin.content(name) for name in builtin.PROVIDERS)
            everything = sha256(built_in)
            for content in self._raw:
                everything.update(b"\0\0" + content)
            for entry in self._given:
                everything.update(b"\0\0\0" + repr(sorted(entry.items(), key=str)).encode())
            dates = (builtin.newest_as_of(built_in), *(file.newest for file in self._files))
            self._version = f"{max(dates)}+{everything.hexdigest()[:8]}"
        return self._version

    def get(self, key: str) -> PriceLine | None:
        """The line of that key, the user's before the built-in one, discounts taken off."""
        for position in range(len(self._files) - 1, -1, -1):
            line = self._files[position].lines.get(key)
            if line is not None:
                return self._discounted(line, self._files[position + 1 :])
        line = builtin.line(key)
        return None if line is None else self._discounted(line, self._files)

    def lines(
        self,
        *,
        system: str | None = None,
        region: str | None = None,
        provider: str | None = None,
        text: str | None = None,
    ) -> tuple[PriceLine, ...]:
        """The lines that fit all that is said; `text` is looked for in everything readable."""
        return tuple(
            line
            for line in self._lines_of(_files_with(system, provider)).values()
            if (system is None or line.priced_for(system))
            and (region is None or line.holds_in(region))
            and (provider is None or line.provider == provider)
            and (text is None or _mentions(line, text))
        )

    def systems(self) -> tuple[str, ...]:
        """Every name that `quote` and `meters` understand as a system."""
        names: set[str] = set()
        for line in self._lines_of(builtin.PROVIDERS).values():
            names.update((line.system, *line.also))
            if line.resource_service is not None:
                names.add(line.resource_service)
        return tuple(sorted(names))

    def rules(self, system: str | None = None) -> tuple[Rule, ...]:
        """How meters are made of other meters, the user's rules over the built-in ones by name.

        With a `system`, its own rules and those of the services that host it.
        """
        rules: dict[str, Rule] = {}
        for file in self._layers(_files_with(system, None)):
            rules.update(file.rules)
        if system is None:
            return tuple(rules.values())
        systems = {system, *(line.resource_service for line in self.lines(system=system))}
        return tuple(rule for rule in rules.values() if rule.system in systems)

    def meters(self, system: str) -> tuple[Meter, ...]:
        """What a quote for `system` can be asked in; empty for a system without prices."""
        from costinsights.pricing.quoting import meters

        return meters(self, system)

    def quote(
        self,
        system: str,
        usage: Mapping[str, Decimal | int | float | str],
        region: str | None = None,
        *,
        at: str | None = None,
        **dims: str,
    ) -> Quote:
        """What `usage` costs: meter to quantity, in a region, with whatever else sets the price.

        `at` is the day whose prices hold, today (UTC) by default. Never raises and never guesses:
        where a price, a region or a dimension is missing, or more than one line fits, `amount` is
        None, `basis` is `unknown`, and `reason` says what to do. Amounts are exact, rounded half
        to even at the 15th decimal.
        """
        from costinsights.pricing.quoting import quote

        return quote(self, system, usage, region, dims, at)

    @property
    def capacities(self) -> tuple[Capacity, ...]:
        """One for each `[[capacity]]` entry."""
        return self._capacities

    def capacity_for(
        self,
        system: str,
        address: str | None,
        port: int | None,
        namespace: str | None,
        service: str | None = None,
    ) -> Capacity | None:
        """The first capacity whose entry fits the resource, or None.

        One entry is one thing that is paid for: all that fits it shares one `Capacity`.
        """
        resource = (system, address, port, namespace, service)
        position = self._found.get(resource)
        if position is None:
            position = next(
                (at for at, entry in enumerate(self._entries) if entry.fits(*resource)), -1
            )
            if len(self._found) >= _MOST_RESOURCES:
                self._found.clear()
            self._found[resource] = position
        return self._capacities[position] if position >= 0 else None

    def reset(self) -> None:
        """After a fork: the child begins with no call running on any capacity."""
        for capacity in self._capacities:
            capacity.reset()

    def _capacity(self, entry: Entry, before: PriceBook | None) -> Capacity:
        capacity = entry.capacity(self.get)
        if before is not None:
            here = msgspec.structs.replace(entry, place=0)  # wherever in the file it stands now
            earlier = zip(before._entries, before._capacities, strict=True)  # noqa: SLF001
            for old_entry, old in earlier:
                there = msgspec.structs.replace(old_entry, place=0)
                if there == here and old.line == capacity.line:
                    return old
        return capacity

    def _layers(self, providers: Iterable[str]) -> Iterable[PriceFile]:
        for provider in providers:
            yield builtin.price_file(provider)
        yield from self._files

    def _lines_of(self, providers: tuple[str, ...]) -> Mapping[str, PriceLine]:
        """The built-in lines of these providers, under all of the user's."""
        merged = self._merged.get(providers)
        if merged is None:
            lines: dict[str, PriceLine] = {}
            for file in self._layers(providers):
                if file.discounts:
                    lines = {key: self._discounted(line, (file,)) for key, line in lines.items()}
                lines.update(file.lines)
            merged = self._merged[providers] = lines
        return merged

    def _discounted(self, line: PriceLine, files: Iterable[PriceFile]) -> PriceLine:
        for file in files:
            for discount in file.discounts:
                if _applies(discount, line):
                    line = msgspec.structs.replace(
                        line,
                        price=_EXACT.multiply(line.price, discount.multiplier),
                        list_price=line.price if line.list_price is None else line.list_price,
                        discounts=(*line.discounts, f"{discount.name} × {discount.multiplier}"),
                    )
        return line

    def _check_discounts(self) -> None:
        """A discount that takes nothing off is a mistake in its name, and money is lost by it."""
        for position, file in enumerate(self._files):
            for discount in file.discounts:
                below = (*map(builtin.price_file, builtin.PROVIDERS), *self._files[:position])
                if not any(_applies(discount, line) for f in below for line in f.lines.values()):
                    path, _, place = discount.origin.rpartition(":")
                    raise PriceBookError(
                        path,
                        int(place),
                        f"[[discount]]: {discount.name!r} matches no price line under this file",
                    )


def _files_with(system: str | None, provider: str | None) -> tuple[str, ...]:
    """The built-in files that can hold such lines: `aws.glue` is in `aws.toml` alone."""
    for name in (provider, (system or "").partition(".")[0]):
        if name in builtin.PROVIDERS:
            return (name,)
    return builtin.PROVIDERS


def _applies(discount: Discount, line: PriceLine) -> bool:
    from fnmatch import fnmatchcase

    for field, pattern in discount.match.items():
        if field == "system":
            fits = line.priced_for(pattern)
        elif field == "region":
            fits = line.holds_in(pattern)
        else:
            fits = fnmatchcase(str(getattr(line, field)), pattern)
        if not fits:
            return False
    return True


def _mentions(line: PriceLine, text: str) -> bool:
    wanted = text.casefold()
    return any(
        wanted in part.casefold()
        for part in (line.key, line.provider, line.service, line.sku, line.meter, line.unit)
    )
