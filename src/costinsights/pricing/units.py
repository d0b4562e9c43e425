"""The units that a price may be per, and how many of a meter make one.

Sources: the units of the price list itself; GB in S3 billing is 2^30 bytes (AWS usage report
guide); whether a TB of Athena or Synapse is 2^40 or 10^12 bytes is not stated by the vendors, so a
line in MB, GB or TB over a meter in bytes has to say its own `unit_scale`.
"""

from __future__ import annotations

from decimal import Decimal

HOUR = 3600

_HOURS = (
    "ACU-hour", "core-hour", "CPU-hour", "database-hour", "DCU-hour", "DIU-hour", "DPU-Hour",
    "DWU-hour", "GB-hour", "GB-Hour", "hour", "instance-hour", "M-DPU-Hour", "node-hour",
    "RPU-Hour", "server-hour", "slot-hour", "vCore-hour", "vCPU-hour", "vCPU-Hour",
)  # fmt: skip
_SECONDS = ("instance-second", "node-second", "second", "vCore-second", "vCPU-second")
_BYTES = {
    "MiB": (2**20,),
    "GiB": (2**30,),
    "TiB": (2**40,),
    "MB": (2**20, 10**6),
    "GB": (2**30, 10**9),
    "TB": (2**40, 10**12),
}
_COUNTS = {
    "100 operations": 100,
    "10k operations": 10_000,
    "operation": 1,
    "request": 1,
    "Request": 1,
    "1k requests": 1000,
    "1M requests": 1_000_000,
    "1k runs": 1000,
    "50k entities": 50_000,
    "1k objects-month": 1000,
    "100k objects-month": 100_000,
    "GB-month": 1,
    "GiB-month": 1,
    "IOPS-month": 1,
    "usage record-day": 1,
    "credit": 1,
    "DBU": 1,
    "DBU-hour": 1,
    "DCU": 1,
}
UNITS = frozenset((*_HOURS, *_SECONDS, *_BYTES, *_COUNTS))

TIME_SUFFIXES = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "seconds": Decimal(1),
    "minutes": Decimal(60),
    "hours": Decimal(HOUR),
}
BINARY_SUFFIXES = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "pib": 2**50}
VENDOR_SUFFIXES = {"kb": 1, "mb": 2, "gb": 3, "tb": 4, "pb": 5}
"""Powers of the base that the vendor counts in: 1000, or 1024."""


def is_hourly(unit: str) -> bool:
    """Whether a price per `unit` is a price per hour of something."""
    return unit in _HOURS


def unit_scale(unit: str, meter: str, stated: Decimal | None) -> Decimal:
    """How many of `meter` make one `unit`. Raises ValueError where they do not fit together."""
    if unit in _HOURS:
        _need_suffix(unit, meter, "_seconds")
        if stated is not None and stated % HOUR:
            raise ValueError(f"unit_scale of {unit!r} must be a multiple of {HOUR} seconds")
        return Decimal(HOUR) if stated is None else stated
    if unit in _SECONDS:
        _need_suffix(unit, meter, "_seconds")
        return _fixed(unit, 1, stated)
    if unit in _BYTES:
        _need_suffix(unit, meter, "_bytes")
        possible = _BYTES[unit]
        if len(possible) == 1:
            return _fixed(unit, possible[0], stated)
        if stated is None or stated not in possible:
            choices = " or ".join(f'"{size}"' for size in possible)
            raise ValueError(f"unit {unit!r} is ambiguous: say unit_scale = {choices} bytes")
        return stated
    if unit in _COUNTS:
        if meter.endswith(("_seconds", "_bytes")):
            raise ValueError(f"unit {unit!r} does not count the meter {meter!r}")
        return _fixed(unit, _COUNTS[unit], stated)
    raise ValueError(f"unknown unit {unit!r}{_nearest(unit)}")


def _need_suffix(unit: str, meter: str, suffix: str) -> None:
    if not meter.endswith(suffix):
        raise ValueError(f"unit {unit!r} needs a meter that ends in {suffix!r}, not {meter!r}")


def _fixed(unit: str, size: int, stated: Decimal | None) -> Decimal:
    if stated is not None and stated != size:
        raise ValueError(f"unit_scale of {unit!r} is {size}, not {stated}")
    return Decimal(size)


def _nearest(unit: str) -> str:
    import difflib

    near = difflib.get_close_matches(unit, UNITS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; the units are {', '.join(sorted(UNITS))}"
