"""`sizes`: how large buckets are now, by class, with the price of a month.

    from costinsights.buckets import sizes

    for bucket in sizes(["s3://lake", "gs://logs"]):
        print(bucket.url, bucket.bytes, bucket.amounts)

What a bucket costs is a month of what lies in it now, at the price book's prices, as if it were all
that the account has: tiers are counted from nothing, and free allowances are not taken off.
"""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal, localcontext
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from costinsights.buckets.places import place_of
from costinsights.buckets.source import GIB, Source, StorageError
from costinsights.guard import suppressed
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from costinsights.buckets.places import Place
    from costinsights.buckets.source import Found, Part
    from costinsights.config import Config
    from costinsights.pricing import PriceBook
    from costinsights.pricing.line import Quote

SOURCES: Mapping[str, str] = {
    "aws.s3": "costinsights.buckets.aws_s3:S3Size",
    "gcp.storage": "costinsights.buckets.gcp_storage:GCSSize",
    "azure.storage": "costinsights.buckets.azure_storage:AzureSize",
}
_NO_DIMENSIONS: Mapping[str, str] = {}
MOST_PAGES = 1000
"""Pages that a list takes at most, where nobody says otherwise."""


class Held(msgspec.Struct, frozen=True):
    """What lies in one class of a bucket."""

    name: str
    """The vendor's own word for the class."""
    bytes: int
    objects: int | None
    amount: str | None
    """What a month of it costs, decimal text; None where no price is known: `reason`."""
    currency: str | None
    price: str
    """The keys of the price lines."""
    reason: str


class Sized(msgspec.Struct, frozen=True, kw_only=True):
    """How large a bucket is."""

    url: str
    system: str
    region: str | None = None
    source: str = ""
    """Who says so: ``CloudWatch``, ``Cloud Monitoring``, ``Azure Monitor``, ``a list``."""
    at: datetime | None = None
    """When it was so; None where nobody has a figure."""
    held: tuple[Held, ...] = ()
    objects: int | None = None
    whole: bool = True
    """Whether that is all of it."""
    notes: tuple[str, ...] = ()
    requests: int = 0
    """How many requests the question took, repeated ones among them."""
    cost: str | None = None
    """What they cost, decimal text; None where the price book does not have all their prices."""
    cost_currency: str | None = None
    error: str = ""
    """Why there is nothing; then there is nothing else."""
    grant: str = ""
    """What permission is missing, where one is."""

    @property
    def bytes(self) -> int | None:
        """All of it, in bytes; None where nobody has a figure."""
        return sum(one.bytes for one in self.held) if self.at is not None else None

    @property
    def amounts(self) -> dict[str, Decimal]:
        """What a month of it costs, by currency; what has no price is not in it."""
        found: dict[str, Decimal] = {}
        for one in self.held:
            if one.amount is not None and one.currency is not None:
                found[one.currency] = found.get(one.currency, Decimal(0)) + Decimal(one.amount)
        return found


def sizes(
    urls: Sequence[str],
    *,
    listing: bool = False,
    cap: int = MOST_PAGES,
    book: PriceBook | None = None,
    config: Config | None = None,
    now: datetime | None = None,
    said: Callable[[str], None] = lambda _text: None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Iterator[Sized]:
    """Yield how large each bucket is, in the order of `urls`; one that cannot be told has `error`.

    Args:
        urls: ``s3://lake``, ``gs://logs``, ``az://account``, ``abfss://container@account…``.
        listing: List them, instead of asking the monitoring; `said` is told before what that takes.
        cap: How many pages a list of one bucket takes at most.
        book: Prices; by default those of the configuration.
        config: By default the one in force.
        now: The time that it is.
        said: Is told what will be asked.
        progress: Is told how far a list is.

    Raises:
        VendorError: an address is none, or an option of the configuration is wrong.
    """
    places = [place_of(url) for url in urls]
    if config is None:
        from costinsights.config import load

        config = load()
    if book is None:
        from costinsights.pricing import PriceBook

        book = PriceBook.load(*config.price_books)
    now = now or datetime.now(timezone.utc)
    for place in places:
        source = _source(place, config)
        if progress is not None:
            source.progress = progress
        with suppressed():
            try:
                source.open()
                found = (
                    _listed(source, place, cap, book, now, said)
                    if listing
                    else source.measured(place, now)
                )
            except VendorError as error:
                yield _failed(source, place, error, book)
                continue
            finally:
                source.close()
        yield _sized(source, place, found, book)


def _source(place: Place, config: Config) -> Source:
    module, _, name = SOURCES[place.system].partition(":")
    kind: type[Source] = getattr(import_module(module), name)
    return kind(config.storage.get(place.system, {}))


def _listed(
    source: Source,
    place: Place,
    cap: int,
    book: PriceBook,
    now: datetime,
    said: Callable[[str], None],
) -> Found:
    """List a bucket, after it was said what that may take."""
    objects, region = _expected(source, place, now)
    pages = cap if objects is None else max(1, -(-objects // source.page_size))
    known = "how many objects it has is not known" if objects is None else f"{objects:,} objects"
    said(
        f"{place.url}: {known}; a list takes {_requests(min(pages, cap))}"
        f"{_worth(source, min(pages, cap), region, book)}"
        + (f" and is cut off there: whole it takes {pages:,}" if pages > cap else "")
    )
    return source.listed(place, cap, now)


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


def _expected(source: Source, place: Place, now: datetime) -> tuple[int | None, str | None]:
    """Return how many objects there are and where, if the monitoring knows it."""
    try:
        found = source.measured(place, now)
    except VendorError:
        return None, None
    return found.objects, found.region


def _worth(source: Source, pages: int, region: str | None, book: PriceBook) -> str:
    quote = book.quote(source.system, {source.list_meter: pages}, region, **source.list_dimensions)
    if quote.amount is None:
        return ", whose price the price book does not have"
    return f", for {quote.amount:f} {quote.currency}"


def _sized(source: Source, place: Place, found: Found, book: PriceBook) -> Sized:
    cost, currency = _cost(source, found.region, book)
    return Sized(
        url=place.url,
        system=place.system,
        region=found.region,
        source=found.source,
        at=found.at,
        held=tuple(_held(source, part, found.region, book) for part in found.parts),
        objects=found.objects,
        whole=found.whole,
        notes=(*found.notes, *source.incomplete),
        requests=source.requests,
        cost=cost,
        cost_currency=currency,
    )


def _failed(source: Source, place: Place, error: VendorError, book: PriceBook) -> Sized:
    cost, currency = _cost(source, None, book)
    return Sized(
        url=place.url,
        system=place.system,
        whole=False,
        requests=source.requests,
        cost=cost,
        cost_currency=currency,
        error=source.without_secrets(str(error)),
        grant=error.grant,
    )


def _held(source: Source, part: Part, region: str | None, book: PriceBook) -> Held:
    with localcontext() as context:
        context.prec = 60  # a whole number of bytes is an exact number of GiB, of 30 decimals
        quantity = Decimal(part.bytes) / GIB
    quote: Quote = book.quote(source.system, {source.meter: quantity}, region, **part.dimensions)
    return Held(
        part.name,
        part.bytes,
        part.objects,
        None if quote.amount is None else f"{quote.amount:f}",
        quote.currency,
        " + ".join(line.key for line in quote.lines),
        quote.reason,
    )


def _cost(source: Source, region: str | None, book: PriceBook) -> tuple[str | None, str | None]:
    """Return what the question cost; None where a price is missing."""
    total, currencies = Decimal(0), set[str]()
    for (system, meter), count in source.billed.items():
        own = system == source.system
        dimensions = source.list_dimensions if own else _NO_DIMENSIONS
        quote = book.quote(system, {meter: count}, region if own else None, **dimensions)
        if quote.amount is None or quote.currency is None:
            return None, None
        total += quote.amount
        currencies.add(quote.currency)
    return (f"{total:f}", currencies.pop()) if len(currencies) == 1 else (None, None)


__all__ = ["Held", "Sized", "StorageError", "sizes"]
