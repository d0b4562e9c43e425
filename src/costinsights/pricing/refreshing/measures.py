"""The units of vendors' lists in terms of the book's, and the price that goes from one to another.

A unit is so much of something: `1K` is a thousand of what is counted, `1/Day` a day of what is used
by the hour. A vendor's unit that is not in its table is refused: a wrong factor is a wrong price.

Sources: units as the public price lists and quotations of them have them (AWS: GB-Mo, Requests, Hrs,
Terabytes; Azure: unitOfMeasure; Google: usageUnit, codes of UCUM). A GB of AWS's storage and transfer
is 2^30 bytes ("Understanding your AWS billing and usage reports for Amazon S3").
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from costinsights.pricing.units import HOUR, is_hourly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.pricing.line import PriceLine

DAY = 24 * HOUR
_PLACES = 18
"""Decimals that a price of the book may have."""


class Measure(NamedTuple):
    """So much of something."""

    kind: str
    size: Fraction
    of: str = ""
    """What an hour is of (``dpu``), in small letters; empty where the vendor does not say."""


class MeasureError(ValueError):
    """A vendor's unit is not known, or does not measure what the line does."""


def _count(size: int) -> Measure:
    return Measure("count", Fraction(size))


def _hour(of: str = "", hours: int = 1) -> Measure:
    return Measure("time", Fraction(HOUR * hours), of)


def _month(kind: str = "gb", size: int = 1) -> Measure:
    return Measure(f"{kind}-month", Fraction(size))


def _bytes(power: int) -> Measure:
    return Measure("bytes", Fraction(1024**power))


UNITS: Mapping[str, Mapping[str, Measure]] = {
    "aws": {
        "Requests": _count(1),
        "Request": _count(1),
        "API Requests": _count(1),
        "API Calls": _count(1),
        "GB": _bytes(3),
        "TB": _bytes(4),
        "Terabytes": _bytes(4),
        "GB-Mo": _month(),
        "GB-month": _month(),
        "Objects": _month("objects"),
        "Obj-Month": _month("objects"),
        "IOPS-Mo": _month("iops"),
        "Hrs": _hour(),
        "hours": _hour(),
        "hour": _hour(),
        "Second": Measure("time", Fraction(1)),
        "seconds": Measure("time", Fraction(1)),
        "DPU-Hour": _hour("dpu"),
        "M-DPU-Hour": _hour("m-dpu"),
        "RPU-Hr": _hour("rpu"),
        "RPU-Hour": _hour("rpu"),
        "RPU-Hours": _hour("rpu"),
        "ACU-Hr": _hour("acu"),
        "ACU-Hour": _hour("acu"),
        "vCPU-Hours": _hour("vcpu"),
        "vCPU-Hour": _hour("vcpu"),
        "GB-Hours": _hour("gb"),
        "GB-Hour": _hour("gb"),
    },
    "azure": {
        "1": _count(1),
        "10": _count(10),
        "100": _count(100),
        "1K": _count(1000),
        "10K": _count(10_000),
        "50K": _count(50_000),
        "100K": _count(100_000),
        "1M": _count(1_000_000),
        "1 Hour": _hour(),
        "1/Hour": _hour(),
        "100 Hours": _hour(hours=100),
        "1/Day": Measure("time", Fraction(DAY)),
        "1 GB": _bytes(3),
        "1 TB": _bytes(4),
        "1 GB/Month": _month(),
        "100 GB/Month": _month(size=100),
        "1 TB/Month": _month(size=1024),
        "1 GiB/Month": _month(),
    },
    "gcp": {
        "count": _count(1),
        "By": _bytes(0),
        "KiBy": _bytes(1),
        "MiBy": _bytes(2),
        "GiBy": _bytes(3),
        "TiBy": _bytes(4),
        "GiBy.mo": _month(),
        "TiBy.mo": _month(size=1024),
        "h": _hour(),
        "s": Measure("time", Fraction(1)),
        "GiBy.h": _hour("gb"),
    },
    "databricks": {"DBU": _count(1)},
}
"""By vendor: what its units are of the book's."""

_MONTHS = {
    "GB-month": _month(),
    "GiB-month": _month(),
    "IOPS-month": _month("iops"),
    "1k objects-month": _month("objects", 1000),
    "100k objects-month": _month("objects", 100_000),
}


def known(vendor: str, unit: str) -> Measure:
    """Return what a vendor's unit is.

    Raises:
        MeasureError: it is not known.
    """
    found = UNITS[vendor].get(unit.strip())
    if found is None:
        raise MeasureError(f"the unit {unit!r} is not known")
    return found


def of_line(line: PriceLine) -> Measure:
    """Return what a line's unit is."""
    scale = Fraction(line.unit_scale)
    if line.unit in _MONTHS:
        return _MONTHS[line.unit]
    if line.meter.endswith("_seconds"):
        # An hour of the unit, of however many things it is: 100 DWUs are one.
        time = Fraction(HOUR) if is_hourly(line.unit) else scale
        return Measure("time", time, line.unit.rpartition("-")[0].lower())
    return Measure("bytes" if line.meter.endswith("_bytes") else "count", scale)


def factor(vendor: str, unit: str, line: PriceLine) -> Fraction:
    """Return how many of the vendor's unit make one unit of the line.

    Raises:
        MeasureError: the vendor's unit is not known, or is of something else.
    """
    theirs, ours = known(vendor, unit), of_line(line)
    if theirs.kind != ours.kind or (theirs.of and theirs.of != ours.of):
        raise MeasureError(f"the unit {unit!r} does not measure what the line does, {line.unit!r}")
    return ours.size / theirs.size


def exact(number: Fraction) -> Decimal:
    """Return a number as the book keeps it: to the 18th decimal, without needless zeros."""
    text = f"{Decimal(round(number * 10**_PLACES)).scaleb(-_PLACES):f}"
    return Decimal(text.rstrip("0").rstrip(".") or "0") if "." in text else Decimal(text)
