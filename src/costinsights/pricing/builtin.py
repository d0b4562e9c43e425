"""The price files that come with the package, each parsed when one of its lines is first asked for.

A program that prices a database by its own hourly rate never parses any of them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from costinsights.pricing.fields import newest_of

if TYPE_CHECKING:
    from costinsights.pricing.files import PriceFile
    from costinsights.pricing.line import PriceLine

PROVIDERS = ("aws", "azure", "databricks", "dremio", "gcp", "snowflake")
"""A file each; every key in it begins with its name and a dot."""

_FOLDER = os.path.join(os.path.dirname(__file__), "prices")
_AS_OF = b'as_of = "'
_parsed: dict[str, PriceFile] = {}


def content(provider: str) -> bytes:
    """The raw file."""
    with open(os.path.join(_FOLDER, f"{provider}.toml"), "rb") as file:
        return file.read()


def price_file(provider: str) -> PriceFile:
    """The parsed file; parsed once a process."""
    found = _parsed.get(provider)
    if found is None:
        from costinsights.pricing.files import parse

        found = parse(f"{provider}.toml", content(provider), layer=0)
        _parsed[provider] = found  # two threads may both parse; either result will do
    return found


def line(key: str) -> PriceLine | None:
    """The built-in line of that key."""
    provider = key.partition(".")[0]
    return price_file(provider).lines.get(key) if provider in PROVIDERS else None


def newest_as_of(files: bytes) -> str:
    """The newest date in the raw files, without parsing them; a test holds it to the parsed."""
    dates = {line[len(_AS_OF) : -1] for line in files.split(b"\n") if line.startswith(_AS_OF)}
    return max(newest_of(date.decode()) for date in dates)
