"""`costinsights prices refresh`: the book's lines as the vendors have them today.

Only lines that the book has are looked for, in the regions that are used. What is found is held
against the book line by line; what is in doubt is left out and said. The result is a new price file
beside the old ones; it counts when ``price_books`` of the configuration names it.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple, Protocol

from costinsights.pricing.book import PriceBook
from costinsights.pricing.fields import region_slug
from costinsights.pricing.refreshing.fetching import RefreshError
from costinsights.pricing.refreshing.findings import TAKEN, Finding, findings
from costinsights.pricing.refreshing.lookup import VENDORS, load
from costinsights.pricing.refreshing.offers import Offer, Wanted, in_region
from costinsights.pricing.refreshing.writing import content, is_ours, write

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from costinsights.ledger.store import Store
    from costinsights.pricing.line import PriceLine
    from costinsights.pricing.refreshing.lookup import Lookup

__all__ = ["VENDORS", "Place", "RefreshError", "Refreshed", "refresh", "used", "wanted_of"]

FOLDER = "prices"
VERSIONS = "versions.json"


class Place(NamedTuple):
    """Something that is used somewhere. An empty system is any."""

    region: str
    system: str = ""


class Prices(Protocol):
    """What brings a vendor's offers."""

    def offers(self, wanted: Sequence[Wanted]) -> Iterable[tuple[Wanted, list[Offer]]]:
        """Yield each wanted price with all that fits it."""
        ...


class Refreshed(NamedTuple):
    """What a refresh of one vendor has found."""

    vendor: str
    findings: tuple[Finding, ...]
    unfound: Mapping[str, tuple[str, ...]]
    """Why some lines cannot be looked for, with their keys."""
    day: str
    written: bytes
    """A price file of what is taken."""

    @property
    def lines(self) -> tuple[PriceLine, ...]:
        """The lines of the file."""
        return _taken(self.findings)


def used(store: Store) -> tuple[Place, ...]:
    """Return the systems and regions of the ledger's charges."""
    sources = [store.parquet("charges", "revisions")]
    if store.live is not None:
        sources += ["live", "reversals"]
    rows = " UNION ".join(
        f"SELECT DISTINCT region, system, resource_service FROM {source}"  # noqa: S608  our own
        for source in sources
        if source
    )
    if not rows:
        return ()
    found: dict[Place, None] = {}
    for region, system, service in store.connection.execute(rows).fetchall():
        for name in (system, service):
            if name and not name.startswith("capacity"):
                found[Place(region or "", name)] = None
    return tuple(found)


def base(price_books: Iterable[str]) -> PriceBook:
    """Return the shipped book under what earlier refreshes have written: nobody's own rates.

    Raises:
        PriceBookError: one of the files is not as documented.
    """
    return PriceBook.load(*(path for path in price_books if is_ours(path)))


def wanted_of(
    book: PriceBook, vendor: str, places: Collection[Place], own: Sequence[str] = ()
) -> tuple[list[Wanted], dict[str, tuple[str, ...]]]:
    """Return the prices to look for, and why some lines cannot be: by reason, with their keys.

    Raises:
        PriceBookError: a lookup file of the user's is not as documented.
    """
    lookups = load(vendor, own)
    lines = [line for line in book.lines() if line.key.partition(".")[0] == vendor]
    by_key = {line.key: line for line in lines}
    wanted: dict[tuple[tuple[str, ...], str], Wanted] = {}
    unfound: dict[str, list[str]] = {}
    for line in lines:
        regions = _regions(line, places)
        if not regions:
            continue
        lookup = lookups.of(line)
        if lookup is None:
            why = lookups.reason(line) or "nobody has said how it is found"
            unfound.setdefault(why, []).append(line.key)
            continue
        for region in _named(line, lookup, vendor, regions):
            one = _wanted(line, lookup, region, lines, by_key)
            wanted.setdefault((lookup.keys, one.lines[0].key), one)
    return list(wanted.values()), {why: tuple(keys) for why, keys in unfound.items()}


def _regions(line: PriceLine, places: Collection[Place]) -> list[str]:
    """Return the regions in which a line is used, each once."""
    found: dict[str, None] = {}
    for place in places:
        if not place.system or line.priced_for(place.system):
            found[place.region] = None
    return list(found)


def _named(line: PriceLine, lookup: Lookup, vendor: str, regions: Sequence[str]) -> list[str]:
    """Return the regions to look in; an empty one is the line's own, whatever it is called."""
    if line.everywhere or vendor == "databricks":
        return [""]
    if lookup.only:
        return [""] if any(line.holds_in(region) for region in regions) else []
    return [region for region in regions if region and _is_of(vendor, region)]


def _wanted(
    line: PriceLine,
    lookup: Lookup,
    region: str,
    lines: Sequence[PriceLine],
    by_key: Mapping[str, PriceLine],
) -> Wanted:
    ending = line.key.partition("/")[2]
    here: list[PriceLine] = []
    for stem in lookup.keys:
        if not region:
            here.append(by_key.get(f"{stem}/{ending}", line))
            continue
        known = by_key.get(f"{stem}/{region_slug(region)}")
        if known is None:
            there = [one for one in lines if one.key.partition("/")[0] == stem]
            holding = [one for one in there if one.holds_in(region)]
            known = in_region((holding or there or [line])[0], region)
        here.append(known)
    kept = [one for at, one in enumerate(here) if one.key not in {o.key for o in here[:at]}]
    asked = lookup.region or region or line.region
    known_keys = frozenset(one.key for one in kept if one.key in by_key)
    return Wanted(lookup, asked, tuple(kept), known_keys)


def _is_of(vendor: str, region: str) -> bool:
    """Tell whether a region may be of a vendor: `us-east-1`, `us-east1`, `westeurope`."""
    dashes, digit = region.count("-"), region[-1:].isdigit()
    if vendor == "aws":
        return dashes >= 2 and digit
    if vendor == "azure":
        return not dashes
    return not (dashes >= 2 and digit) and (dashes > 0 or len(region) <= 4)


def refresh(
    vendor: str,
    prices: Prices,
    book: PriceBook,
    places: Collection[Place],
    *,
    accepted: Collection[str] = (),
    own: Sequence[str] = (),
    now: datetime | None = None,
) -> Refreshed:
    """Ask a vendor for the book's lines.

    Args:
        vendor: One of `VENDORS`.
        prices: Its reader.
        book: What there is; see `base`.
        places: What is used where; see `used`.
        accepted: Keys of lines that are to be taken although they are in doubt.
        own: Files with lookups of the user's.
        now: The present.

    Raises:
        RefreshError: the vendor cannot be asked, or its answers are not as they were.
        PriceBookError: a file of the user's is not as documented.
    """
    moment = now or datetime.now(timezone.utc)
    day = moment.date().isoformat()
    wanted, unfound = wanted_of(book, vendor, places, own)
    found: list[Finding] = []
    for one, offers in prices.offers(wanted) if wanted else ():
        found += findings(one, offers, vendor, day, accepted)
    found.sort(key=lambda finding: finding.key)
    lines = (*_taken(found), *_carried(book, vendor, _taken(found)))
    written = content(lines, vendor, f"{moment:%Y-%m-%dT%H:%M:%SZ}") if _taken(found) else b""
    return Refreshed(vendor, tuple(found), unfound, day, written)


def _taken(found: Iterable[Finding]) -> tuple[PriceLine, ...]:
    lines = {one.key: one.new for one in found if one.kind in TAKEN and one.new is not None}
    return tuple(lines.values())


def _carried(book: PriceBook, vendor: str, taken: Sequence[PriceLine]) -> Iterator[PriceLine]:
    """Yield what earlier refreshes have of the vendor and this one has not: the new file is whole."""
    fresh = {_identity(line) for line in taken}
    for line in book.lines():
        ours = line.layer and line.key.partition(".")[0] == vendor
        if ours and _identity(line) not in fresh:
            yield line


def _identity(line: PriceLine) -> tuple[object, ...]:
    """Return what a line is the price of."""
    dims = tuple(sorted(line.dims.items()))
    return (line.system, line.resource_service, line.meter, dims, line.region, line.regions)


# -- files ------------------------------------------------------------------------------------------


def default_folder() -> str:
    """Return where refreshed prices are kept: in the user's configuration folder."""
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):  # the specification says to ignore one that is relative
        config = os.path.expanduser("~/.config")
    return os.path.join(config, "costinsights", FOLDER)


def keep(refreshed: Refreshed, folder: str) -> str:
    """Write the file under a name that no file has yet, and return its path.

    Raises:
        OSError: it cannot be written.
    """
    for name in _names(refreshed.vendor, refreshed.day):
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            write(path, refreshed.written)
            return path
    raise FileExistsError(folder)  # pragma: no cover  there is always another name


def _names(vendor: str, day: str) -> Iterator[str]:
    yield f"{vendor}-{day}.toml"
    number = 2
    while True:
        yield f"{vendor}-{day}.{number}.toml"
        number += 1


def reader(
    vendor: str,
    *,
    endpoint: str = "",
    most_bytes: int,
    currency: str = "USD",
    query: bool = False,
    settlement: Mapping[str, Mapping[str, object]] | None = None,
    now: datetime | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prices:
    """Return the reader of a vendor's prices.

    Raises:
        RefreshError: it cannot be made: an option is missing.
    """
    if vendor == "databricks":
        from costinsights.pricing.refreshing.databricks import DatabricksPrices

        return DatabricksPrices((settlement or {}).get("databricks", {}), now)
    if vendor == "aws":
        from costinsights.pricing.refreshing.aws import AWSPrices

        aws = AWSPrices(endpoint=endpoint, most_bytes=most_bytes, progress=progress)
        aws.query = query
        return aws
    if vendor == "azure":
        from costinsights.pricing.refreshing.azure import AzurePrices

        azure = AzurePrices(endpoint=endpoint, most_bytes=most_bytes, progress=progress)
        azure.currency, azure.now = currency, now
        return azure
    from costinsights.pricing.refreshing.gcp import GooglePrices

    google = GooglePrices(endpoint=endpoint, most_bytes=most_bytes, progress=progress)
    google.currency = currency
    return google
