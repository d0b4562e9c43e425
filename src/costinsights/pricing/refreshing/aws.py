"""AWS's price list: the file of a service and region, and the query API where that is too large.

Files: ``/offers/v1.0/aws/<service>/current/<region>/index.csv`` of pricing.us-east-1.amazonaws.com,
without credentials. A few lines of metadata, a header, then a row for each price of each SKU; read row
by row. Query: ``pricing:GetProducts`` of boto3, in us-east-1, with the credentials that boto3 finds.
"""

from __future__ import annotations

import csv
import json
import re
from decimal import Decimal, InvalidOperation
from functools import cached_property
from importlib import import_module
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from costinsights.asking import pages
from costinsights.pricing.refreshing.fetching import NotThere, RefreshError, Source
from costinsights.pricing.refreshing.offers import Offer, Tier, plain
from costinsights.systems.aws_s3_usage import REGIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from costinsights.pricing.refreshing.lookup import Lookup
    from costinsights.pricing.refreshing.offers import Wanted

HOME = "us-east-1"
"""Where the query API is asked, and the region whose usage types often have no prefix."""
PATH = "/offers/v1.0/aws/{service}/current/{region}/index.csv"
_COLUMNS = ("sku", "termtype", "startingrange", "unit", "priceperunit", "currency")
_METADATA = 20
"""Lines before the header at most."""
_PREFIX = re.compile(r"(?:([A-Z]{2,4}\d?)-)?")
_PAGE = 100
_FILTERED = ("productFamily", "instanceType", "databaseEngine", "deploymentOption", "operation")
"""Attributes that the query API is told; the others are compared here."""

Rows = dict[str, list[tuple[Tier, str, str]]]
"""By SKU: its prices with unit and currency."""


class AWSPrices(Source):
    """Reads the price list."""

    system = "aws.price_list"
    host = "https://pricing.us-east-1.amazonaws.com"
    grants = """\
{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": "pricing:GetProducts", "Resource": "*"}]}"""
    dependencies = "boto3"
    query = False
    """Whether the query API is asked for everything."""

    def offers(self, wanted: Sequence[Wanted]) -> Iterator[tuple[Wanted, list[Offer]]]:
        """Yield each wanted price with all that fits it.

        Raises:
            RefreshError: the list cannot be had, or is not as it was.
        """
        for (service, region), same in groupby(sorted(wanted, key=_place), key=_place):
            together = list(same)
            asked = [one for one in together if self.query or one.lookup.query]
            for one in asked:
                yield one, list(self._queried(service, region, one.lookup))
            left = [one for one in together if one not in asked]
            if left:
                yield from self._filed(service, region, left)

    # -- files ----------------------------------------------------------------------------------

    def _filed(
        self, service: str, region: str, wanted: Sequence[Wanted]
    ) -> Iterator[tuple[Wanted, list[Offer]]]:
        url = self.base + PATH.format(service=service, region=region)
        try:
            path = self.fetch(url)
        except NotThere:  # the service is not offered there
            yield from ((one, []) for one in wanted)
            return
        _checked_end(path, url)
        found: list[Rows] = [{} for _ in wanted]
        names: dict[str, str] = {}
        version = ""
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file, strict=True)
            try:
                version, header = _header(rows, url)
                tests = [_Test(one.lookup, region, header) for one in wanted]
                select = _selection(tests, found, header.get("usagetype"))
                at = [header[name] for name in _COLUMNS]
                last = max(header.values())
                for row in rows:
                    if len(row) <= last:
                        raise RefreshError(f"{url}: line {rows.line_num} is not whole")
                    sku, term, start, unit, price, currency = (row[column] for column in at)
                    if term != "OnDemand":
                        continue
                    for test, into in select(row):
                        if test(row):
                            tier = Tier(_number(start, url), _number(price, url))
                            into.setdefault(sku, []).append((tier, unit, currency))
                            names.setdefault(sku, test.name(row))
            except csv.Error as error:
                raise RefreshError(f"{url}: line {rows.line_num}: {error}") from None
            except UnicodeDecodeError:
                raise RefreshError(f"{url}: is not UTF-8 text") from None
        source = f"{url} of {version}" if version else url
        for one, rows_of in zip(wanted, found, strict=True):
            yield one, [_offer(names[sku], rows_, source) for sku, rows_ in rows_of.items()]

    # -- query ----------------------------------------------------------------------------------

    @cached_property
    def _client(self) -> Any:
        try:
            library: Any = import_module("boto3")
        except ImportError:
            raise RefreshError(
                "the price list is asked with boto3: run  pip install boto3"
            ) from None
        config: Any = import_module("botocore.config")
        ours = self.base != self.host
        return library.client(
            "pricing",
            region_name=HOME,
            endpoint_url=self.base if ours else None,
            config=config.Config(retries={"total_max_attempts": 1}),
        )

    def _queried(self, service: str, region: str, lookup: Lookup) -> Iterator[Offer]:
        filters = [("regionCode", region)]
        filters += [
            (name, lookup.exactly[name]) for name in _FILTERED if lookup.exactly.get(name, "")
        ]

        def ask(token: str | None) -> Any:
            more = {"NextToken": token} if token else {}
            return self._client.get_products(
                ServiceCode=service,
                Filters=[
                    {"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in filters
                ],
                FormatVersion="aws_v1",
                MaxResults=_PAGE,
                **more,
            )

        def following(answer: Any) -> str | None:
            token: str | None = answer.get("NextToken")
            return token

        what = f"GetProducts of {service} in {region}"
        for page in pages(self, what, ask, following, whole=True):
            for text in page.get("PriceList", ()):
                offer = _product(text, region, lookup, what)
                if offer is not None:
                    yield offer


def _place(wanted: Wanted) -> tuple[str, str]:
    return wanted.lookup.service, wanted.region


def _product(text: str, region: str, lookup: Lookup, what: str) -> Offer | None:
    """Return a product as an offer, if it is the one that is meant."""
    try:
        document = json.loads(text)
        product = document["product"]
        attributes = {plain(name): str(value) for name, value in product["attributes"].items()}
        attributes["productfamily"] = str(product.get("productFamily", ""))
        if not _usage_fits(lookup, region, attributes.get("usagetype", "")):
            return None
        if not _attributes_fit(lookup, attributes):
            return None
        rows: list[tuple[Tier, str, str]] = []
        for term in document.get("terms", {}).get("OnDemand", {}).values():
            for dimension in term["priceDimensions"].values():
                for currency, price in dimension["pricePerUnit"].items():
                    tier = Tier(_number(dimension["beginRange"], what), _number(price, what))
                    rows.append((tier, dimension["unit"], currency))
        name = f"SKU {product['sku']} ({attributes.get('usagetype', '')})"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefreshError(f"{what}: its answer is not as it was: {type(error).__name__}") from None
    return _offer(name, rows, "the AWS Price List query API") if rows else None


def _offer(name: str, rows: Sequence[tuple[Tier, str, str]], source: str) -> Offer:
    units = sorted({unit for _, unit, _ in rows})
    currencies = sorted({currency for _, _, currency in rows})
    return Offer(
        name, " and ".join(units), " and ".join(currencies), tuple(row[0] for row in rows), source
    )


# -- what a row says --------------------------------------------------------------------------------


class _Test:
    """Tells whether a row is of the SKU that a lookup means; made for the columns of one file."""

    def __init__(self, lookup: Lookup, region: str, header: Mapping[str, int]) -> None:
        self._lookup = lookup
        self._region = region
        self.usage = lookup.exactly.get("usagetype")
        """The usage type that the row must have, without its region."""
        self._usage = header.get("usagetype")
        self._operation = header.get("operation")
        self._where = header.get("regioncode")
        self._exactly = [
            (header.get(plain(name)), value)
            for name, value in lookup.exactly.items()
            if plain(name) != "usagetype"
        ]
        self._like = [
            (header.get(plain(name)), re.compile(pattern)) for name, pattern in lookup.like.items()
        ]

    def __call__(self, row: Sequence[str]) -> bool:
        for column, value in self._exactly:
            if (row[column] if column is not None else "") != value:
                return False
        for column, pattern in self._like:
            if not pattern.fullmatch(row[column] if column is not None else ""):
                return False
        if self._where is not None and row[self._where] not in ("", self._region):
            return False
        usage = row[self._usage] if self._usage is not None else ""
        return _usage_fits(self._lookup, self._region, usage)

    def name(self, row: Sequence[str]) -> str:
        """Return what a message calls the row's SKU."""
        words = [row[at] for at in (self._usage, self._operation) if at is not None and row[at]]
        return f"SKU {row[0]} ({', '.join(words)})"


def _selection(
    tests: Sequence[_Test], found: Sequence[Rows], column: int | None
) -> Callable[[Sequence[str]], Sequence[tuple[_Test, Rows]]]:
    """Return what gives the tests that a row may pass: a file has a million rows, most not ours.

    Most tests name the usage type, and are found by it, with its region's code and without.
    """
    pairs = list(zip(tests, found, strict=True))
    anyhow = [pair for pair in pairs if pair[0].usage is None]
    by_usage: dict[str, list[tuple[_Test, Rows]]] = {}
    for pair in pairs:
        if pair[0].usage is not None:
            by_usage.setdefault(pair[0].usage, []).append(pair)

    def select(row: Sequence[str]) -> Sequence[tuple[_Test, Rows]]:
        if column is None:
            return pairs
        usage = row[column]
        named = by_usage.get(usage) or by_usage.get(usage.partition("-")[2])
        return anyhow if named is None else [*named, *anyhow]

    return select


def _usage_fits(lookup: Lookup, region: str, usage: str) -> bool:
    """Tell whether a usage type is the lookup's, behind the code of this region or none."""
    wanted = lookup.exactly.get("usagetype")
    if wanted is None:
        return True
    if not usage.endswith(wanted):
        return False
    prefix = _PREFIX.fullmatch(usage[: len(usage) - len(wanted)])
    if prefix is None:
        return False
    code = prefix[1]
    if code is None:
        return True  # the file, or the filter, is of one region
    return REGIONS.get(code, region) == region


def _attributes_fit(lookup: Lookup, attributes: Mapping[str, str]) -> bool:
    exactly = all(
        attributes.get(plain(name), "") == value
        for name, value in lookup.exactly.items()
        if plain(name) != "usagetype"
    )
    return exactly and all(
        re.fullmatch(pattern, attributes.get(plain(name), ""))
        for name, pattern in lookup.like.items()
    )


def _header(rows: Iterator[list[str]], url: str) -> tuple[str, dict[str, int]]:
    """Return the list's version, and the columns by their plain names."""
    version = ""
    for row, _ in zip(rows, range(_METADATA), strict=False):
        if row and row[0] == "Version":
            version = row[1] if len(row) > 1 and row[1].isprintable() else ""
        if row and row[0] == "SKU":
            header = {plain(name): at for at, name in reversed(list(enumerate(row)))}
            missing = [name for name in _COLUMNS if name not in header]
            if missing:
                raise RefreshError(f"{url}: its columns have changed: there is no {missing[0]}")
            return version, header
    raise RefreshError(f"{url}: its form has changed: there is no line that begins with SKU")


def _checked_end(path: str, url: str) -> None:
    """Refuse a file whose last line has no end: it was cut off."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        if not file.tell():
            raise RefreshError(f"{url}: is empty")
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            raise RefreshError(f"{url}: ends in the middle of a line")


def _number(text: object, url: str) -> Decimal:
    try:
        return Decimal(cast("str", text))
    except (InvalidOperation, TypeError, ValueError):
        raise RefreshError(f"{url}: {str(text)[:40]!r} is no number") from None
