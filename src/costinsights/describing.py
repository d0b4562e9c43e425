"""Asks clouds what the user's databases are: class, nodes, storage. Never on a program's own thread.

At AWS by boto3, with no more than ``rds:DescribeDBInstances`` and ``rds:DescribeDBClusters``,
``redshift:DescribeClusters`` or ``redshift-serverless:ListWorkgroups``; the fields are those of
botocore's models. Google Cloud and Azure have a file each: `describing_gcp`, `describing_azure`.

Storage and I/O are told as `facts` (``storage_gb``, ``storage_type``, ``iops``): no hour's price
depends on them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import msgspec

from costinsights.hosts import Declared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Found = Mapping[str, Any]

# How RDS calls an engine, and how calls to it and the price book do.
_ENGINES = {
    "postgres": ("postgresql", "postgresql"),
    "mysql": ("mysql", "mysql"),
    "mariadb": ("mariadb", "mariadb"),
    "aurora-postgresql": ("postgresql", "aurora_postgresql"),
    "aurora-mysql": ("mysql", "aurora_mysql"),
}
_BY_ACU = "db.serverless"
"""Aurora Serverless v2: what it costs an hour depends on the hour."""


class DescribeError(Exception):
    """The cloud was not asked, or did not answer; the text says what to do."""


def describe(service: str, region: str, **access: Any) -> tuple[Declared, ...]:
    """Ask what resources of `service` there are in a region.

    `access` goes to ``boto3.client``, and at the other clouds to their `ask`; without it the
    cloud's own library looks for credentials where it always does.

    Raises:
        DescribeError: there is no way to ask this service, no library for it, or no answer.
    """
    if service in OTHER_CLOUDS:
        ask: Callable[..., Iterable[Declared]] = import_module(OTHER_CLOUDS[service]).ask
        return tuple(ask(service, region, **access))
    if service not in DESCRIBERS:
        known = ", ".join([*DESCRIBERS, *OTHER_CLOUDS])
        raise DescribeError(
            f"nothing here can describe {service!r}; known are {known}: say in a [[resource]] what "
            "it is"
        )
    name, read = DESCRIBERS[service]
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
    except ImportError:
        raise DescribeError("run  pip install boto3") from None
    try:
        make: Any = boto3  # it is not typed
        client = make.client(name, region_name=region, **access)
        try:
            return tuple(read(client, region))
        finally:
            client.close()
    except ClientError as error:
        response: Found = error.response
        code = response.get("Error", {}).get("Code", "")
        raise DescribeError(
            f"{service} in {region} says {code}; it needs {PERMISSIONS[service]}"
        ) from None
    except (BotoCoreError, ResponseParserError) as error:
        raise DescribeError(f"{service} in {region}: no answer, {type(error).__name__}") from None


# --- RDS and Aurora -----------------------------------------------------------------------------


def _rds(client: Any, region: str) -> Iterator[Declared]:
    instances = {
        instance["DBInstanceIdentifier"]: instance
        for instance in _pages(client, "describe_db_instances", "DBInstances")
        if _address(instance)
    }
    for cluster in _pages(client, "describe_db_clusters", "DBClusters"):
        writers: list[Found] = []
        readers: list[Found] = []
        for member in cluster.get("DBClusterMembers") or ():
            instance = instances.pop(member["DBInstanceIdentifier"], None)
            if instance is not None:
                (writers if member.get("IsClusterWriter") else readers).append(instance)
        endpoint, reader = cluster.get("Endpoint"), cluster.get("ReaderEndpoint")
        name = cluster["DBClusterIdentifier"]
        # Without a reader, the reader's name leads to the writer.
        yield from _together(name, writers, [endpoint] if readers else [endpoint, reader], region)
        yield from _together(f"{name} readers", readers, [reader], region)
    for name, instance in instances.items():
        for found in _together(name, [instance], [], region):
            yield msgspec.structs.replace(found, facts=_storage(instance))


def _storage(instance: Found) -> dict[str, str]:
    """Return what an instance has of storage of its own; a cluster's is not its instances'."""
    named = {"storage_gb": "AllocatedStorage", "storage_type": "StorageType", "iops": "Iops"}
    return {ours: str(instance[theirs]) for ours, theirs in named.items() if instance.get(theirs)}


def _together(
    name: str, instances: list[Found], names: list[str | None], region: str
) -> Iterator[Declared]:
    """Yield what instances that are paid for together are: one where they are of one class.

    Of several classes each stands for itself, and nothing is said of the name that leads to any.
    """
    kinds = {_kind(instance) for instance in instances}
    if len(kinds) > 1:
        for instance in instances:
            one = f"{name}: {instance['DBInstanceIdentifier']}"
            yield from _together(one, [instance], [], region)
    elif kinds:
        engine, size, multi_az = kinds.pop()
        system, word = _ENGINES.get(engine, (None, engine))
        cluster = engine.startswith("aurora")
        priced = size != _BY_ACU
        deployment = "multi_az" if multi_az else "single_az"
        dimensions = {"engine": word, "instance_class": size, "deployment": deployment}
        yield Declared(
            name,
            hosts=tuple(one for one in (*map(_address, instances), *names) if one),
            system=system,
            service="aws.aurora" if cluster else "aws.rds",
            region=region,
            dimensions=dimensions if priced else {},
            hourly={"instances": str(len(instances))} if priced else {},
            source="rds:DescribeDBInstances",
        )


def _kind(instance: Found) -> tuple[str, str, bool]:
    return (
        str(instance.get("Engine", "")),
        str(instance.get("DBInstanceClass", "")),
        bool(instance.get("MultiAZ")),
    )


# --- Redshift -----------------------------------------------------------------------------------


def _redshift(client: Any, region: str) -> Iterator[Declared]:
    for cluster in _pages(client, "describe_clusters", "Clusters"):
        if (address := _address(cluster)) is not None:
            yield Declared(
                cluster["ClusterIdentifier"],
                hosts=(address,),
                system="aws.redshift",
                service="aws.redshift",
                region=region,
                dimensions={"node_type": cluster["NodeType"]},
                hourly={"nodes": str(cluster["NumberOfNodes"])},
                source="redshift:DescribeClusters",
            )


def _serverless(client: Any, region: str) -> Iterator[Declared]:
    for group in _pages(client, "list_workgroups", "workgroups"):
        address: str | None = part(group, "endpoint").get("address")
        if address:
            yield Declared(
                group["workgroupName"],
                hosts=(address,),
                port=group.get("port"),
                system="aws.redshift",
                service="aws.redshift_serverless",
                region=region,
                facts=_capacities(group),
                hourly={"rpus": str(group["baseCapacity"])} if group.get("baseCapacity") else {},
                source="redshift-serverless:ListWorkgroups",
            )


def _capacities(group: Found) -> dict[str, str]:
    """Return how many RPUs it may grow to."""
    return {"max_rpus": str(group["maxCapacity"])} if group.get("maxCapacity") else {}


def _address(found: Found) -> str | None:
    """Return the host's name; what is still being made has none."""
    endpoint: str | None = part(found, "Endpoint").get("Address")
    return endpoint


def part(found: Found, name: str) -> Found:
    """Return what is within an answer; empty where it is not there, or is no table."""
    inner: object = found.get(name)
    return cast("Found", inner) if isinstance(inner, dict) else {}


def _pages(client: Any, operation: str, key: str) -> Iterator[Found]:
    for page in client.get_paginator(operation).paginate():
        yield from page.get(key) or ()


DESCRIBERS: Mapping[str, tuple[str, Callable[[Any, str], Iterator[Declared]]]] = {
    "aws.rds": ("rds", _rds),
    "aws.redshift": ("redshift", _redshift),
    "aws.redshift_serverless": ("redshift-serverless", _serverless),
}
OTHER_CLOUDS = {
    "gcp.cloud_sql": "costinsights.describing_gcp",
    "azure.database": "costinsights.describing_azure",
    "azure.sql": "costinsights.describing_azure",
}
PERMISSIONS = {
    "aws.rds": "rds:DescribeDBInstances and rds:DescribeDBClusters",
    "aws.redshift": "redshift:DescribeClusters",
    "aws.redshift_serverless": "redshift-serverless:ListWorkgroups",
}
