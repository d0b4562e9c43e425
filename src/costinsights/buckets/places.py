"""What a user means by a bucket: ``s3://lake``, ``gs://lake``, ``az://account``, ``abfss://…``.

Azure's metrics know storage accounts, so an address of Azure's is that of an account; a container
matters only where it is listed.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from costinsights.vendor import VendorError

FORMS = (
    "s3://BUCKET, gs://BUCKET, az://ACCOUNT, az://CONTAINER@ACCOUNT, "
    "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net"
)
SYSTEMS = {
    "s3": "aws.s3",
    "s3a": "aws.s3",
    "gs": "gcp.storage",
    "gcs": "gcp.storage",
    "az": "azure.storage",
    "abfs": "azure.storage",
    "abfss": "azure.storage",
    "wasb": "azure.storage",
    "wasbs": "azure.storage",
    "https": "azure.storage",
}
"""What an address begins with, and whose it is. Of ``https`` only Azure's hosts."""
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
"""The name of a storage account (learn.microsoft.com: storage-account-overview)."""
_ZONES = (".blob.core.", ".dfs.core.")


class Place(NamedTuple):
    """A bucket, or a storage account and perhaps one container of it."""

    url: str
    """As the user wrote it."""
    system: str
    name: str
    container: str = ""


def place_of(url: str) -> Place:
    """Return what is meant.

    Raises:
        VendorError: it is no such address; the text says which there are.
    """
    parts = urlsplit(url)
    system = SYSTEMS.get(parts.scheme)
    if system is None or not parts.netloc:
        raise VendorError(f"{url!r} is no bucket: write {FORMS}")
    if system != "azure.storage":
        return Place(url, system, parts.netloc)
    container, at, host = parts.netloc.rpartition("@")
    account, dot, _ = host.partition(".")
    if dot and not any(zone in host for zone in _ZONES):
        raise VendorError(f"{url!r} is at no storage account's host: write {FORMS}")
    if not at and dot:
        container = parts.path.strip("/").partition("/")[0]
    if not _ACCOUNT.fullmatch(account):
        raise VendorError(f"{url!r} names no storage account: write {FORMS}")
    return Place(url, system, account, container)
