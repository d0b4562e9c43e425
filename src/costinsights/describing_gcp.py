"""Asks Google Cloud what the user's Cloud SQL instances are, by ``instances.list`` of its Admin API.

Needs google-auth with requests, and no more than ``cloudsql.instances.list`` (`ROLE` has it). The
fields are those of the API's v1: https://cloud.google.com/sql/docs/postgres/admin-api/rest/v1/instances
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from costinsights.describing import DescribeError, part
from costinsights.hosts import Declared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Found = Mapping[str, Any]

ENDPOINT = "https://sqladmin.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/sqlservice.admin"
ROLE = "roles/cloudsql.viewer"
SECONDS = 60.0
_CUSTOM = re.compile(r"db-custom-(\d+)-(\d+)")
"""A machine of one's own size: vCPUs, and MB of memory."""
_ENGINES = {"POSTGRES": "postgresql", "MYSQL": "mysql"}


def ask(
    service: str,
    region: str,
    *,
    account: str = "",
    endpoint_url: str = ENDPOINT,
    session: Any = None,
) -> Iterator[Declared]:
    """Yield the instances of a project in a region.

    `account` is the project, that of the credentials by default; `session` is one of requests'.

    Raises:
        DescribeError: there is no library, no project, or no answer.
    """
    if session is None:
        session, found = _session()
        account = account or found
    if not account:
        raise DescribeError(f"{service}: say whose they are: --account PROJECT")
    url = f"{endpoint_url}/v1/projects/{account}/instances"
    asked: dict[str, str] = {"filter": f"region={region}"}
    try:
        while True:
            answer = session.get(url, params=asked, timeout=SECONDS)
            if answer.status_code != 200:
                raise DescribeError(
                    f"{service} in {region} says {answer.status_code}; it needs "
                    f"cloudsql.instances.list, which {ROLE} has"
                )
            page: Found = answer.json()
            for instance in page.get("items") or ():
                if instance.get("region") == region:
                    yield described(instance)
            if not page.get("nextPageToken"):
                return
            asked["pageToken"] = page["nextPageToken"]
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:  # of requests', and of the answer
        raise DescribeError(f"{service} in {region}: no answer, {type(error).__name__}") from None
    finally:
        session.close()


def _session() -> tuple[Any, str]:
    try:
        import google.auth
        from google.auth.exceptions import DefaultCredentialsError
        from google.auth.transport.requests import AuthorizedSession
    except ImportError:
        raise DescribeError("run  pip install google-auth requests") from None
    library: Any = google.auth  # it is not typed
    try:
        credentials, project = library.default(scopes=[SCOPE])
    except DefaultCredentialsError:
        raise DescribeError(
            "Google's credentials are not set up: gcloud auth application-default login, or "
            "GOOGLE_APPLICATION_CREDENTIALS"
        ) from None
    session: Any = AuthorizedSession
    return session(credentials), project or ""


def described(instance: Found) -> Declared:
    """Return what one instance is.

    Of another edition than Enterprise the machine's class says so (``db-perf-optimized-N-2``), and
    the price book prices what it knows by that. Of SQL Server nothing is said of an hour, for its
    licence is a part of it that the price book has not.
    """
    settings = part(instance, "settings")
    tier = str(settings.get("tier", ""))
    dimensions = {"availability": str(settings.get("availabilityType", "ZONAL")).lower()}
    facts = {
        "storage_type": str(settings.get("dataDiskType", "")).lower().removeprefix("pd_"),
        "storage_gb": str(settings.get("dataDiskSizeGb", "")),
        "edition": str(settings.get("edition", "")).lower(),
    }
    hourly: dict[str, str] = {}
    if (custom := _CUSTOM.fullmatch(tier)) is not None:
        memory = int(custom[2]) / 1024
        hourly = {"vcpus": custom[1], "memory_gb": f"{memory:g}"}
    elif tier:
        dimensions["instance_class"] = tier
    named = [str(one.get("ipAddress", "")) for one in instance.get("ipAddresses") or ()]
    names = [str(one.get("name", "")) for one in instance.get("dnsNames") or ()]
    names.append(str(instance.get("dnsName") or ""))
    engine = _ENGINES.get(str(instance.get("databaseVersion", "")).partition("_")[0])
    return Declared(
        instance["name"],
        hosts=tuple(
            dict.fromkeys(
                filter(
                    None,
                    [
                        f"/cloudsql/{instance['connectionName']}",
                        *(name.rstrip(".") for name in names),
                        *named,
                    ],
                )
            )
        ),
        system=engine,
        service="gcp.cloud_sql",
        region=instance["region"],
        dimensions=dimensions if engine else {},
        hourly=hourly if engine else {},
        facts={name: value for name, value in facts.items() if value},
        source="cloudsql.instances.list",
    )
