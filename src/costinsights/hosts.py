"""Which cloud service a host name is, and in which region: facts in a table, each with its source.

A name is all that is looked at; nothing is resolved and nobody is asked. A name of the user's own
(a CNAME, a tunnel, an address) says nothing: a ``[[resource]]`` of the configuration says it then,
and goes over what a name says.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  msgspec reads the annotations
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from costinsights.records import Resource

_GLOB = frozenset("*?[")
_NOTHING: Mapping[str, str] = {}


class Host(NamedTuple):
    """A kind of host name.

    `pattern` is compared label by label from the right: ``*`` stands for any text within a label,
    ``**`` at the beginning for one label or more, ``{region}`` for a label that is the region.
    """

    pattern: str
    service: str
    source: str
    system: str | None = None
    """The system's key, where the service is a system of its own and not an engine's host."""
    dimensions: Mapping[str, str] = _NOTHING
    """What else the name says of the price, in the price book's words."""


class Recognised(NamedTuple):
    """What is known of where a connection leads."""

    system: str
    service: str | None = None
    """``aws.rds``, ``aws.redshift_serverless`` …; None where nobody knows."""
    region: str | None = None
    """The region as the price book has it."""
    dimensions: Mapping[str, str] = _NOTHING
    """What else sets the price, in the price book's words."""


class Declared(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the user, or the cloud when it was asked, says of the resources that fit the patterns.

    A pattern is a shell glob that does not mind capitals; None fits everything. `hourly` is what
    is there for an hour, in the meters of the price book: ``{"nodes": "6"}``.
    """

    name: str
    hosts: tuple[str, ...] = ()
    port: int | None = None
    database: str | None = None
    system: str | None = None
    service: str | None = None
    region: str | None = None
    dimensions: Mapping[str, str] = {}
    hourly: Mapping[str, str] = {}
    source: str = ""
    facts: Mapping[str, str] = {}
    """What else its cloud says of it, and no hour's price depends on: storage, I/O."""

    def fits(self, resource: Resource) -> bool:
        """Tell whether it speaks of this resource."""
        address, namespace = (resource.address or "").lower(), (resource.namespace or "").lower()
        return (
            (not self.hosts or any(_glob(pattern, address) for pattern in self.hosts))
            and (self.port is None or self.port == resource.port)
            and (self.database is None or _glob(self.database, namespace))
        )


def recognise(system: str, resource: Resource, declared: Iterable[Declared] = ()) -> Recognised:
    """Say what is known of a resource; each fact is that of the first of `declared` that says it.

    `system`, and the resource's own service and region, are what the instrumentor says: they go
    over what the name says, and what is declared goes over them.
    """
    service, region = resource.service, resource.region
    dimensions: dict[str, str] = {}
    socket = _cloud_sql_socket(resource.address)
    if socket is not None:
        service, region = service or "gcp.cloud_sql", region or socket
    elif (found := host_of(resource.address)) is not None:
        host, there = found
        if host.system is not None and not system.startswith(f"{host.system}."):
            system = host.system  # Databricks' jobs have the same host as its warehouses
        service, region = service or host.service, region or there
        dimensions.update(host.dimensions)
    for one in reversed([one for one in declared if one.fits(resource)]):
        system, service = one.system or system, one.service or service
        region = one.region or region
        dimensions.update(one.dimensions)
    return Recognised(system, service, region, dimensions)


_MOST_LED = 4096
_led: dict[str, str] = {}


def leads(address: str, name: str) -> None:
    """Note that what connects to `address` in this process reaches what is called `name`.

    For proxies and connectors, whose addresses say nothing. Of more than 4,096 the oldest is
    forgotten.
    """
    if len(_led) >= _MOST_LED and address not in _led:
        _led.pop(next(iter(_led)), None)
    _led[address] = name


def led(address: str | None) -> str | None:
    """Return the name of what an address leads to: itself, where nobody has said another."""
    return _led.get(address, address) if _led and address is not None else address


def host_of(name: str | None) -> tuple[Host, str | None] | None:
    """Return the kind of a host name and its region; None where it is of no kind that is known."""
    labels = (name or "").lower().rstrip(".").split(".")
    if len(labels) > 2:
        for pattern, host in _PATTERNS:
            region = _region_if_fits(pattern, labels)
            if region is not None:
                return host, region or None
    return None


def _region_if_fits(pattern: Sequence[str], labels: Sequence[str]) -> str | None:
    """Return the region, empty where the pattern has none; None where it does not fit."""
    if pattern[0] == "**":
        labels = labels[len(labels) - len(pattern) :] if len(labels) > len(pattern) else labels
    if len(pattern) != len(labels):
        return None
    region = ""
    for expected, label in zip(pattern, labels, strict=True):
        if expected == "{region}":
            region = "" if label == "global" else label  # of a name that moves between regions
        else:
            head, star, tail = expected.partition("*")
            if not star:
                if label != head:
                    return None
            elif expected != "**" and not (
                len(label) > len(head + tail) - 1
                and label.startswith(head)
                and label.endswith(tail)
            ):
                return None
    return region


def _cloud_sql_socket(address: str | None) -> str | None:
    """Return the region of Cloud SQL's Unix socket, ``/cloudsql/project:region:instance``.

    A project may itself have a colon in it: ``example.com:project``.
    """
    if address is None or not address.startswith("/cloudsql/"):
        return None
    parts = address.removeprefix("/cloudsql/").partition("/")[0].split(":")
    return parts[-2] if len(parts) > 2 else None


def _glob(pattern: str, value: str) -> bool:
    pattern = pattern.lower()
    if _GLOB.isdisjoint(pattern):
        return pattern == value
    from fnmatch import fnmatchcase  # brings `re` along, so only for those who write patterns

    return fnmatchcase(value, pattern)


# --- the facts ----------------------------------------------------------------------------------

_AWS_WRAPPER = "https://github.com/aws/aws-advanced-python-wrapper: utils/rds_utils.py"
_RDS_ENDS = (
    "{region}.rds.amazonaws.com",
    "{region}.rds.amazonaws.com.cn",
    "rds.{region}.amazonaws.com.cn",
    "rds.{region}.amazonaws.com",
    "rds.{region}.c2s.ic.gov",
    "rds.{region}.sc2s.sgov.gov",
)
# An instance's own name does not tell RDS from Aurora, and RDS's Multi-AZ clusters of three have
# names like Aurora's: whoever has them declares them, or lets them be described.
_RDS_KINDS = (
    ("cluster-*", "aws.aurora"),  # writer; cluster-ro- and cluster-custom- begin like it
    ("shardgrp-*", "aws.aurora"),
    ("*", "aws.rds"),  # an instance; proxy- is RDS Proxy
)
_AIRFLOW = "https://github.com/apache/airflow/pull/65483"
_SERVERLESS = "https://repost.aws/questions/QUi3uYY3i3Qd-Rq32F2EG3-A"
_PRIVATE_LINK = "https://learn.microsoft.com/azure/private-link/private-endpoint-dns"
_ON_DEMAND = "engines.md 13.1, unsourced; the zone: " + _PRIVATE_LINK
_CLOUD_SQL = "cloud-sql-python-connector 1.23.0: instance DNS names"
_DATABRICKS = "databricks-sdk: databricks/sdk/environments.py"
_DREMIO = "https://pypi.org/project/dremio-simple-query: data.dremio.cloud, data.eu.dremio.cloud"
_SNOWFLAKE = "engines.md 13.1, unsourced"
_STARBURST = "unsourced"

HOSTS: tuple[Host, ...] = (
    Host("*.global-*.global.rds.amazonaws.com", "aws.aurora", _AWS_WRAPPER),
    *(
        Host(f"*.{kind}.{end}", service, _AWS_WRAPPER)
        for kind, service in _RDS_KINDS
        for end in _RDS_ENDS
    ),
    *(
        Host(f"*.*.{{region}}.{product}.{end}", f"aws.{service}", source, "aws.redshift")
        for product, service, source in (
            ("redshift", "redshift", _AIRFLOW),
            ("redshift-serverless", "redshift_serverless", _SERVERLESS),
        )
        for end in ("amazonaws.com", "amazonaws.com.cn")
    ),
    *(
        Host(f"*.*.{{region}}.{zone}.goog", "gcp.cloud_sql", _CLOUD_SQL)
        for zone in ("sql", "sql-psa", "sql-psc")
    ),
    *(
        Host(f"*.{engine}.{zone}", "azure.database", _PRIVATE_LINK)
        for engine in ("postgres", "mysql", "mariadb")
        for zone in ("database.azure.com", "database.chinacloudapi.cn")
    ),
    # A host of this zone may also be a stand-alone dedicated pool, or a managed instance, which
    # has a label more: a `[[resource]]` says so.
    *(
        Host(f"**.{zone}", "azure.sql", _PRIVATE_LINK, "azure.sql")
        for zone in ("database.windows.net", "database.chinacloudapi.cn")
    ),
    Host(
        "*-ondemand.sql.azuresynapse.net", "azure.synapse_serverless", _ON_DEMAND, "azure.synapse"
    ),
    Host("*.sql.azuresynapse.net", "azure.synapse_dedicated", _PRIVATE_LINK, "azure.synapse"),
    *(
        Host(f"**.{zone}", "databricks", _DATABRICKS, "databricks", {"cloud": cloud})
        for zone, cloud in (
            ("cloud.databricks.com", "aws"),
            ("cloud.databricks.us", "aws"),
            ("azuredatabricks.net", "azure"),
            ("databricks.azure.us", "azure"),
            ("databricks.azure.cn", "azure"),
            ("gcp.databricks.com", "gcp"),
        )
    ),
    Host("**.dremio.cloud", "dremio", _DREMIO, "dremio"),
    Host("**.snowflakecomputing.com", "snowflake", _SNOWFLAKE, "snowflake"),
    Host("**.galaxy.starburst.io", "starburst.galaxy", _STARBURST),
)
"""Every kind of host name that is recognised; the first that fits a name is taken."""

_PATTERNS = tuple((host.pattern.split("."), host) for host in HOSTS)
