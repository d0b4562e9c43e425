"""Units as providers write them, and as FOCUS wants them written.

``GB-Mo``, ``1 GB/Month`` and ``gibibyte month`` are ``GB-Months`` and ``GiB-Months``. A unit that FOCUS has no word for is
taken for a count of what it names (``DBU``, ``Lambda Requests``), which its format allows.

FOCUS 1.2, attribute "Unit Format": data sizes (GB decimal, GiB binary), times in words, counts;
``<unit>-<times>``, ``<unit>/<time>``, ``<number> <units>``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from costinsights.ledger.live import literal

if TYPE_CHECKING:
    from collections.abc import Iterable

_SIZES = "|".join(f"[KMGTPE]?i?{unit}" for unit in ("b", "B"))
_COUNT = "[A-Za-z][A-Za-z0-9]*(?: +[A-Za-z][A-Za-z0-9]*)*"
_TIMES = {
    "Years": "yr|yrs|year|years",
    "Months": "mo|mos|month|months",
    "Days": "day|days",
    "Hours": "hr|hrs|hour|hours",
    "Minutes": "min|mins|minute|minutes",
    "Seconds": "sec|secs|second|seconds",
}
_WORDS = {
    "KiB": "kibibyte",
    "MiB": "mebibyte",
    "GiB": "gibibyte",
    "TiB": "tebibyte",
    "PiB": "pebibyte",
    "B": "byte",
    "KB": "kilobyte",
    "MB": "megabyte",
    "GB": "gigabyte",
    "TB": "terabyte",
}

# Pattern and replacement; the first that fits counts.
RULES: tuple[tuple[str, str], ...] = (
    # Google's words, with a time and without.
    *(
        (f"(?i)^{word}s?[ -](?:{said})$", f"{size}-{time}")
        for size, word in _WORDS.items()
        for time, said in _TIMES.items()
    ),
    *((f"(?i)^{word}s?$", size) for size, word in _WORDS.items()),
    # Azure's: what a price is for. "1 GB/Month" is a month of it, "10K" are ten thousand.
    *((f"(?i)^1 ?/ ?(?:{said})$", f"Units-{time}") for time, said in _TIMES.items()),
    *((f"(?i)^1 ([A-Za-z]+) ?/ ?(?:{said})$", f"\\1-{time}") for time, said in _TIMES.items()),
    *((f"(?i)^1 (?:{said})$", time) for time, said in _TIMES.items()),
    (r"^1$", "Units"),
    (r"^([0-9]+) ?[Kk]$", r"\g<1>000 Units"),
    (r"^([0-9]+) ?M$", r"\g<1>000000 Units"),
    (f"^1 ({_COUNT})$", r"\1"),
    (r"^([0-9]+)$", r"\1 Units"),
    # As FOCUS has them already.
    (f"^({_SIZES})$", r"\1"),
    (f"^([0-9]+ {_COUNT})$", r"\1"),
    *((f"^({_SIZES}|{_COUNT})-{time}$", f"\\1-{time}") for time in _TIMES),
    # Amazon's: short times.
    *((f"(?i)^(?:{said})$", time) for time, said in _TIMES.items()),
    *((f"(?i)^({_SIZES}|{_COUNT})-(?:{said})$", f"\\1-{time}") for time, said in _TIMES.items()),
    (f"^({_COUNT})$", r"\1"),
)


def unit(text: str | None) -> str | None:
    """Return a provider's unit as FOCUS writes it; None for none."""
    if not text:
        return None
    for pattern, replacement in RULES:
        if re.search(pattern, text):
            return re.sub(pattern, replacement, text)
    words = " ".join(re.findall("[A-Za-z][A-Za-z0-9]*", text))
    return unit(words) or "Units"


AMAZON = (
    *("GB-Mo", "GB-month", "GB-Month", "GB-Hour", "GB-hours", "IOPS-Mo", "MiBps-Mo"),
    *("Hrs", "hours", "Hour", "Second", "seconds", "minute", "DPU-Hour", "M-DPU-Hour"),
    *("vCPU-Hour", "vCPU-hour", "ACU-Hr", "RPU-Hr", "LCU-Hrs", "Tag-Mo", "Obj-Month", "Key-Mo"),
    *("Lambda-GB-Second", "Lambda-Provisioned-GB-Second", "Fargate-vCPU-Hours", "Node-Hour"),
)
"""Units of AWS's price list that are not as FOCUS has them (prices.csv, and the service codes there)."""
MICROSOFT = (
    *("1 Hour", "1/Hour", "1 GB", "1 GB/Month", "1 GB/Hour", "1 TB/Month", "1 GiB/Hour"),
    *("1", "10", "100", "1000", "1K", "10K", "100K", "1M", "10M", "1/Month", "1/Day", "1 Day"),
    *("1 Minute", "1 Second", "1 Month", "1 Unit", "1 vCore/Hour"),
)
"""Units of measure of Azure's that are not (Azure Retail Prices: billing.md 14.2)."""


def unit_sql(expression: str, known: Iterable[str]) -> str:
    """Return the SQL that does the same with an expression: with those that are `known`.

    Others stay as they are: rows are many, and no pattern is held against each.
    """
    cases = " ".join(f"WHEN {literal(text)} THEN {literal(unit(text) or '')}" for text in known)
    return f"CASE {expression} {cases} ELSE {expression} END"
