"""Asks Azure what the user's databases are: flexible servers, and the databases of Azure SQL.

By Azure Resource Manager's REST API through azure-core and azure-identity, which azure's own
libraries bring along. Needs no more than to read them (`ACTIONS`; the role *Reader* has them all).
The fields are those of https://learn.microsoft.com/rest/api/postgresql, …/mysql and …/sql.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from costinsights.describing import DescribeError, part
from costinsights.hosts import Declared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Found = Mapping[str, Any]
    Get = Callable[[str], Iterator[Found]]

ENDPOINT = "https://management.azure.com"
SCOPE = "https://management.azure.com/.default"
VERSIONS = {
    "Microsoft.DBforPostgreSQL/flexibleServers": "2024-08-01",
    "Microsoft.DBforMySQL/flexibleServers": "2023-12-30",
    "Microsoft.Sql/servers": "2023-08-01",
}
ACTIONS = {
    "azure.database": "Microsoft.DBforPostgreSQL/flexibleServers/read and "
    "Microsoft.DBforMySQL/flexibleServers/read",
    "azure.sql": "Microsoft.Sql/servers/read and Microsoft.Sql/servers/databases/read",
}
_ENGINES = {
    "Microsoft.DBforPostgreSQL/flexibleServers": "postgresql",
    "Microsoft.DBforMySQL/flexibleServers": "mysql",
}
_TIERS = {
    "GeneralPurpose": "general_purpose",
    "BusinessCritical": "business_critical",
    "Hyperscale": "hyperscale",
}
_BY_DTU = ("Basic", "Standard", "Premium")


def ask(
    service: str,
    region: str,
    *,
    account: str = "",
    endpoint_url: str = ENDPOINT,
    credential: Any = None,
) -> Iterator[Declared]:
    """Yield the servers or databases of a subscription in a region (``eastus``).

    `account` is the subscription, that of ``AZURE_SUBSCRIPTION_ID`` by default.

    Raises:
        DescribeError: there is no library, no subscription, or no answer.
    """
    account = account or os.environ.get("AZURE_SUBSCRIPTION_ID", "")
    if not account:
        raise DescribeError(
            f"{service}: say whose they are: --account SUBSCRIPTION, or AZURE_SUBSCRIPTION_ID"
        )
    try:
        from azure.core import PipelineClient
        from azure.core.exceptions import AzureError
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy, RetryPolicy
        from azure.core.rest import HttpRequest

        if credential is None:
            from azure.identity import DefaultAzureCredential

            credential = DefaultAzureCredential()
    except ImportError:
        raise DescribeError("run  pip install azure-identity azure-core requests") from None
    policies: list[Any] = [BearerTokenCredentialPolicy(credential, SCOPE), RetryPolicy()]
    make: Any = PipelineClient  # of types that nobody names
    client = make(endpoint_url, policies=policies)
    read = _sql if service == "azure.sql" else _servers

    def get(path: str) -> Iterator[Found]:
        # Whoever names another endpoint may do without TLS, on this machine.
        secure = {"enforce_https": endpoint_url.startswith("https:")}
        url: str | None = endpoint_url + path
        while url:
            answer = client.send_request(HttpRequest("GET", url), **secure)
            if answer.status_code != 200:
                raise DescribeError(
                    f"{service} in {region} says {answer.status_code}; it needs {ACTIONS[service]}"
                )
            page: Found = answer.json()
            yield from page.get("value") or ()
            url = page.get("nextLink")

    try:
        for one in read(get, account):
            if one.region == region:
                yield one
    except (AzureError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DescribeError(f"{service} in {region}: no answer, {type(error).__name__}") from None
    finally:
        client.close()


def _place(found: Found) -> str:
    """Return the region as the price book has it: ``East US`` is ``eastus``."""
    return str(found["location"]).replace(" ", "").lower()


def _listed(get: Get, account: str, kind: str) -> Iterator[Found]:
    return get(f"/subscriptions/{account}/providers/{kind}?api-version={VERSIONS[kind]}")


def _servers(get: Get, account: str) -> Iterator[Declared]:
    for kind, system in _ENGINES.items():
        for server in _listed(get, account, kind):
            known, sku = part(server, "properties"), part(server, "sku")
            storage = part(known, "storage")
            standby = str(part(known, "highAvailability").get("mode") or "Disabled")
            dimensions = {"instance_class": str(sku["name"])}
            if standby != "Disabled":  # it is billed for two: the book has no line that says so
                dimensions["high_availability"] = standby
            facts = {
                "tier": sku.get("tier"),
                "storage_gb": storage.get("storageSizeGB"),
                "iops": storage.get("iops"),
            }
            if known.get("fullyQualifiedDomainName"):
                yield Declared(
                    server["name"],
                    hosts=(known["fullyQualifiedDomainName"],),
                    system=system,
                    service="azure.database",
                    region=_place(server),
                    dimensions=dimensions,
                    facts={name: str(value) for name, value in facts.items() if value},
                    source=f"{kind}/read",
                )


def _sql(get: Get, account: str) -> Iterator[Declared]:
    kind = "Microsoft.Sql/servers"
    for server in _listed(get, account, kind):
        host: str | None = part(server, "properties").get("fullyQualifiedDomainName")
        for database in get(f"{server['id']}/databases?api-version={VERSIONS[kind]}"):
            if host and database["name"] != "master":
                dimensions, hourly = _size(database)
                yield Declared(
                    f"{server['name']}/{database['name']}",
                    hosts=(host,),
                    database=database["name"],
                    system="azure.sql",
                    service="azure.sql",
                    region=_place(database),
                    dimensions=dimensions,
                    hourly=hourly,
                    source="Microsoft.Sql/servers/databases/read",
                )


def _size(database: Found) -> tuple[dict[str, str], dict[str, str]]:
    """Return what sets a database's price, and how much of it there is for an hour.

    Nothing of one in an elastic pool, which is the pool's, nor of a serverless one, which is billed
    by what it uses.
    """
    sku, facts = part(database, "sku"), part(database, "properties")
    if facts.get("elasticPoolId"):
        return {}, {}
    tier = str(sku.get("tier", ""))
    if tier in _BY_DTU:
        return {"service_objective": str(facts.get("currentServiceObjectiveName", ""))}, {}
    if "_S_" in str(sku["name"]) or tier not in _TIERS:
        return {}, {}
    dimensions = {"tier": _TIERS[tier], "hardware": str(sku.get("family", "")).lower()}
    return dimensions, {"provisioned_vcores": str(sku["capacity"])}
