"""The price files that come with the package, each parsed when one of its lines is first asked for.

A program that prices a database by its own hourly rate never parses any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from costinsights.pricing.files import PriceFile
    from costinsights.pricing.line import PriceLine

PROVIDERS = ("aws", "azure", "databricks", "gcp", "snowflake")
"""A file each; every key in it begins with its name and a dot."""

_parsed: dict[str, PriceFile] = {}


def content(provider: str) -> bytes:
    """The raw file."""
    from pathlib import Path

    return (Path(__file__).parent / "prices" / f"{provider}.toml").read_bytes()


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
    import re

    found = re.findall(rb'^as_of = "(?:[0-9]{4}-(?=[0-9]{4}"))?([0-9-]+)"$', files, re.MULTILINE)
    return max((date.decode() for date in found), default="")
