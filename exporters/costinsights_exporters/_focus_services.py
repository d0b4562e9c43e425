"""What FOCUS calls the service behind a charge, and the unit of its price.

Systems of providers are those of `costinsights.billing.services`; the rest are engines that somebody
runs themselves, and systems that are billed as part of another. Categories and units: FOCUS 1.2,
columns ServiceCategory, ServiceSubcategory and attribute Unit Format.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from costinsights.billing.services import AWS, AZURE, BY_SYSTEM, DATABRICKS, GOOGLE

SELF_HOSTED = "Self-hosted"
"""The provider of engines that no cloud runs: FOCUS has no NULL there."""

PART_OF = {
    "aws.aurora": "aws.rds",
    "aws.emr_containers": "aws.emr",
    "aws.emr_serverless": "aws.emr",
    "aws.redshift_serverless": "aws.redshift",
    "azure.exports": "azure.cost_management",
    "databricks.jobs": "databricks",
    "gcp.dataproc_serverless": "gcp.dataproc",
}
"""Systems of ours that their provider bills under the name of another."""


class Service(NamedTuple):
    """Names and categories as FOCUS has them."""

    provider: str
    name: str
    category: str
    subcategory: str


_RELATIONAL = ("Databases", "Relational Databases")
_PROCESSING = ("Analytics", "Data Processing")

ENGINES = {
    "duckdb": ("DuckDB", *_RELATIONAL),
    "mariadb": ("MariaDB", *_RELATIONAL),
    "microsoft.sql_server": ("SQL Server", *_RELATIONAL),
    "mysql": ("MySQL", *_RELATIONAL),
    "oracle.db": ("Oracle Database", *_RELATIONAL),
    "postgresql": ("PostgreSQL", *_RELATIONAL),
    "presto": ("Presto", *_PROCESSING),
    "spark": ("Apache Spark", *_PROCESSING),
    "sqlite": ("SQLite", *_RELATIONAL),
    "trino": ("Trino", *_PROCESSING),
}
"""What anybody can run: name, category and subcategory."""

_PROVIDERS = {"aws": AWS, "azure": AZURE, "gcp": GOOGLE, "databricks": DATABRICKS}


def service_of(system: str, managed: str | None) -> Service:
    """Return the service that a charge of `system` is for.

    `managed` is what the host's name says of who runs it (``aws.rds``), where it says that.
    """
    for key in filter(None, (managed, system)):
        known = BY_SYSTEM.get(PART_OF.get(key, key))
        if known is not None:
            return Service(known.provider, known.names[0], known.category, known.subcategory)
    if system in ENGINES:
        name, category, subcategory = ENGINES[system]
        provider = _PROVIDERS.get((managed or "").partition(".")[0], SELF_HOSTED)
        return Service(provider, name, category, subcategory)
    provider = _PROVIDERS.get(system.partition(".")[0], SELF_HOSTED)
    return Service(provider, system, "Other", "Other (Other)")


_SIZES = {name.lower(): name for name in ("MB", "GB", "TB", "PB", "MiB", "GiB", "TiB", "PiB")}
_TIMES = {
    "second": "Seconds",
    "minute": "Minutes",
    "hour": "Hours",
    "day": "Days",
    "month": "Months",
}
_COUNTS = {"request": "Requests", "operation": "Requests"}
_THOUSANDS = {"": 1, "k": 1_000, "m": 1_000_000}


def unit_of(text: str) -> str:
    """Return a unit of the price book as FOCUS writes it.

    What a unit is of, where FOCUS has no word for that (``DPU``), stands in SkuMeter.
    """
    found = re.fullmatch(r"(?:(\d+)([kKmM]?) )?(.+)", text)
    if found is None:
        return "Units"
    number, scale, rest = found.groups()
    unit = _unit(rest.lower())
    if number is None:
        return unit
    quantity = int(number) * _THOUSANDS[scale.lower()]
    return unit if quantity == 1 else f"{quantity} {unit}"


def _unit(word: str) -> str:
    of, _, time = word.rpartition("-")
    of = of.removesuffix("s")
    if time in _TIMES:
        return f"{_SIZES[of]}-{_TIMES[time]}" if of in _SIZES else _TIMES[time]
    return _SIZES.get(word) or _COUNTS.get(word.removesuffix("s")) or "Units"
