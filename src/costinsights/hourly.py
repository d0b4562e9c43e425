"""What an hour of a resource costs by the price book, where its size is declared or described.

A ``[[resource]]`` with ``dimensions`` (an instance class, a node type) or ``hourly`` (how many nodes,
RPUs, vCPUs) becomes a ``[[capacity]]`` behind those that the user has written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from costinsights.hosts import host_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.config import Config
    from costinsights.hosts import Declared
    from costinsights.pricing import PriceBook, Quote

AN_HOUR = "3600"
WAREHOUSE = "warehouse"
"""The dimension that sets no price: which of an account's warehouses it is, in calls the service."""
_ENGINES = ("postgresql", "mysql", "mariadb")


class Hour(NamedTuple):
    """How the price book counts an hour of a service."""

    system: str
    """Whose meters they are."""
    time: str
    """The meter of the time that it is there, in seconds."""
    given: Mapping[str, str] = {}
    """What there is one of, if nothing is said."""
    engines: Mapping[str, str] = {}
    """The system of calls by the price book's word for the engine."""


_AURORA = {f"aurora_{engine}": engine for engine in _ENGINES[:2]}
HOURS: Mapping[str, tuple[Hour, ...]] = {
    "aws.redshift": (Hour("aws.redshift", "running_seconds"),),
    "aws.redshift_serverless": (Hour("aws.redshift", "serverless_seconds"),),
    "aws.rds": (
        Hour("aws.rds", "running_seconds", {"instances": "1"}, {one: one for one in _ENGINES}),
    ),
    "aws.aurora": (Hour("aws.rds", "running_seconds", {"instances": "1"}, _AURORA),),
    "gcp.cloud_sql": (Hour("gcp.cloud_sql", "instance_seconds"),),
    "databricks": (Hour("databricks", "warehouse_seconds", {"clusters": "1"}),),
    "snowflake": (Hour("snowflake", "warehouse_seconds", {"clusters": "1"}),),
    "azure.synapse_dedicated": (Hour("azure.synapse", "online_seconds"),),
    "azure.sql": (Hour("azure.sql", "database_seconds"),),
    "azure.database": (
        Hour("azure.postgresql", "instance_seconds", engines={"postgresql": "postgresql"}),
        Hour("azure.mysql", "instance_seconds", engines={"mysql": "mysql"}),
    ),
}
"""By service. Cloud SQL's machines of one's own size, and Aurora's ACUs, are below."""

_BY_METER = {
    "vcpus": Hour("gcp.cloud_sql", "running_seconds"),
    "acus": Hour("aws.rds", "running_seconds"),
    "provisioned_vcores": Hour("azure.sql", "existing_seconds"),
}
"""By a meter in ``hourly`` that says how the hour is counted."""


class Derived(NamedTuple):
    """``[[capacity]]`` tables, and why there is none for what is sized all the same."""

    capacities: tuple[Mapping[str, object], ...]
    problems: tuple[str, ...]


def price_book(
    files: Sequence[str | os.PathLike[str]],
    capacities: Sequence[Mapping[str, object]],
    resources: Sequence[Declared],
) -> tuple[PriceBook, tuple[str, ...]]:
    """Load the price book with the hours of `resources` behind the user's own capacities.

    Also returns which resources have no price, and why. Raises PriceBookError like `PriceBook.load`.
    """
    from costinsights.pricing import PriceBook

    book = PriceBook.load(*files, capacities=capacities)
    found = derived(resources, book)
    if found.capacities:
        book = PriceBook.load(*files, capacities=[*capacities, *found.capacities])
    return book, found.problems


def resources_of(config: Config) -> tuple[Declared, ...]:
    """Return what the configuration declares, and behind it what clouds were allowed to describe."""
    if not config.describe:
        return config.resources
    from costinsights.described import resources

    return (*config.resources, *resources(config.describe))


def derived(declared: Sequence[Declared], book: PriceBook) -> Derived:
    """Price an hour of each resource whose size is known."""
    capacities: list[Mapping[str, object]] = []
    problems: list[str] = []
    for number, one in enumerate(declared, 1):
        if not one.hourly and (not one.dimensions or _is_metered(one)):
            continue
        found, reason = _of(one, number, book)
        capacities += found
        if not found:
            problems.append(f"{one.source or 'resource'} {one.name!r} has no price: {reason}")
    return Derived(tuple(capacities), tuple(problems))


def _is_metered(one: Declared) -> bool:
    """Tell whether what is said sets the price of meters, and of no hour: a job's architecture."""
    return one.service is None and one.system is not None and one.system not in HOURS


def _of(one: Declared, number: int, book: PriceBook) -> tuple[list[Mapping[str, object]], str]:
    service, region = _place(one)
    found: list[Mapping[str, object]] = []
    reason = f"say a service: {', '.join(HOURS)}"
    for hour, engine, system in _ways(one, service):
        dims = {
            **{name: one.dimensions[name] for name in one.dimensions if name != WAREHOUSE},
            **({"engine": engine} if engine and hour.system == "aws.rds" else {}),
        }
        usage = {**hour.given, **one.hourly, hour.time: AN_HOUR}
        quote = book.quote(hour.system, usage, region, **dims)
        if quote.amount:
            found.append(_capacity(one, number, system, quote))
        else:
            reason = quote.reason
    return found, reason


def _place(one: Declared) -> tuple[str | None, str | None]:
    """Return service and region, from the host's name where nothing else says them."""
    service, region = one.service, one.region
    for name in one.hosts:
        if (known := host_of(name)) is not None:
            service, region = service or known[0].service, region or known[1]
    return service or one.system, region


def _ways(one: Declared, service: str | None) -> Iterator[tuple[Hour, str | None, str | None]]:
    """Yield how the hour may be counted, with the engine's name there and the system of calls."""
    for meter, hour in _BY_METER.items():
        if meter in one.hourly:
            yield hour, None, one.system
            return
    wanted = one.dimensions.get("engine")
    for hour in HOURS.get(service or "", ()):
        if not hour.engines:
            yield hour, None, one.system
        for engine, system in hour.engines.items():
            if wanted in (None, engine) and one.system in (None, system):
                yield hour, engine, system


def _capacity(one: Declared, number: int, system: str | None, quote: Quote) -> Mapping[str, object]:
    table: dict[str, object] = {
        "name": f"{one.name} ({number}{f', {system}' if system else ''})",
        "price": f"{quote.amount:f}",
        "currency": quote.currency,
        "source": "; ".join(dict.fromkeys(f"{line.key}: {line.source}" for line in quote.lines)),
        "as_of": quote.lines[0].as_of,
    }
    said = {"host": list(one.hosts), "port": one.port, "database": one.database, "system": system}
    said["service"] = one.dimensions.get(WAREHOUSE)
    table.update({key: value for key, value in said.items() if value})
    return table
