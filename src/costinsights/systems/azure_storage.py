"""What Azure Storage bills: which request is which operation, and what a meter of the bill is for.

Two tables of Microsoft's, and no client. `operation` says what a request is, from its HTTP method,
query and headers, for those who see requests go out; `usage_kind` and `storage_class` say what a
line of the bill is for, from its meter.

Operations and their types: azure-docs storage/blobs/map-rest-apis-transaction-categories.md
(2025-05-14); methods, queries and headers: azure-storage-blob 12.31.1, azure-storage-file-datalake
12.26.1. Names of meters: Azure Retail Prices as cited in public sources (2023 to 2026), the public
FOCUS sample, infracost's golden files (2024-07); Microsoft gives no list of them, so that what is
not in the table has no kind.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM = "azure.storage"

Type = Literal["write", "read", "list", "other", "free", "iterative_write", "iterative_read"]
"""How an operation is priced; ``list`` is "List and create container"."""

PRICED_PER: Mapping[Type, int] = {
    "write": 10_000,
    "read": 10_000,
    "list": 10_000,
    "other": 10_000,
    "iterative_write": 100,
    "iterative_read": 10_000,
}
"""Of how many operations the list price of a type is. [Public copies of Microsoft's price tables.]"""
LAKE_BLOCK = 4 * 2**20
"""Bytes. With a hierarchical namespace, a read or write of more counts once for every such block.
[Public copies of Microsoft's price tables.]"""

# -- operations --------------------------------------------------------------------------------

BLOB_TYPES: Mapping[str, Type] = {
    "AbortCopyBlob": "other",
    "AcquireBlobLease": "other",
    "AcquireContainerLease": "other",
    "AppendBlock": "write",
    "AppendBlockThroughCopy": "write",
    "BlobPreflightRequest": "other",
    "BreakBlobLease": "other",
    "BreakContainerLease": "other",
    "ChangeBlobLease": "other",
    "ChangeContainerLease": "other",
    "CopyBlob": "write",
    "CopyBlobFromURL": "write",
    "CreateContainer": "list",
    "DeleteBlob": "free",
    "DeleteContainer": "free",
    "FindBlobsByTags": "list",
    "GetAccountInformation": "other",
    "GetBlob": "read",
    "GetBlobMetadata": "other",
    "GetBlobProperties": "other",
    "GetBlobServiceProperties": "other",
    "GetBlobServiceStats": "other",
    "GetBlobTags": "other",
    "GetBlockList": "other",
    "GetContainerACL": "other",
    "GetContainerMetadata": "other",
    "GetContainerProperties": "other",
    "GetUserDelegationKey": "other",
    "IncrementalCopyBlob": "other",
    "ListBlobs": "list",
    "ListContainers": "list",
    "PutBlob": "write",
    "PutBlobFromURL": "write",
    "PutBlock": "write",
    "PutBlockFromURL": "write",
    "PutBlockList": "write",
    "QueryBlobContents": "read",  # and what is scanned and returned, which are meters of their own
    "ReleaseBlobLease": "other",
    "ReleaseContainerLease": "other",
    "RenewBlobLease": "other",
    "RenewContainerLease": "other",
    "RestoreContainer": "list",
    "SealBlob": "write",
    "SetBlobExpiry": "other",
    "SetBlobMetadata": "other",
    "SetBlobProperties": "other",
    "SetBlobServiceProperties": "other",
    "SetBlobTags": "other",
    "SetContainerACL": "other",
    "SetContainerMetadata": "other",
    "SetContainerServiceMetadata": "other",  # an immutability policy, a legal hold
    "SnapshotBlob": "other",
    "UndeleteBlob": "write",
}
"""Standard general-purpose v2 and premium block blobs, by the name that Storage's logs have.
``SetBlobTier`` is not here: see `tier_type`."""

_OTHERWISE_IN_V1: Mapping[Type, str] = {
    "read": (
        "AcquireBlobLease AcquireContainerLease BlobPreflightRequest GetAccountInformation "
        "GetBlobMetadata GetBlobProperties GetBlobServiceProperties GetBlobServiceStats "
        "GetBlobTags GetBlockList GetContainerACL GetContainerMetadata GetContainerProperties "
        "GetUserDelegationKey ReleaseBlobLease ReleaseContainerLease RenewBlobLease "
        "RenewContainerLease SnapshotBlob"
    ),
    "write": (
        "AbortCopyBlob BreakBlobLease BreakContainerLease ChangeBlobLease ChangeContainerLease "
        "IncrementalCopyBlob SetBlobExpiry SetBlobMetadata SetBlobProperties "
        "SetBlobServiceProperties SetBlobTags SetContainerACL SetContainerMetadata"
    ),
    "other": "DeleteBlob DeleteContainer",
}
BLOB_TYPES_V1: Mapping[str, Type] = {
    **BLOB_TYPES,
    **{name: type_ for type_, names in _OTHERWISE_IN_V1.items() for name in names.split()},
}
"""Standard general-purpose v1, which knows no tiers."""

LAKE_TYPES: Mapping[str, Type] = {
    "AppendFile": "write",
    "CreateFilesystem": "write",
    "CreatePathDir": "write",
    "CreatePathFile": "write",
    "DeleteDirectory": "free",
    "DeleteFile": "free",
    "DeleteFilesystem": "free",
    "FlushFile": "write",
    "GetFileProperties": "read",
    "GetFilesystemProperties": "other",
    "GetPathAccessControl": "read",
    "GetPathStatus": "read",
    "LeaseFile": "other",
    "ListFilesystemDir": "iterative_read",
    "ListFilesystems": "iterative_read",
    "ReadFile": "read",
    "RenamePathFile": "iterative_write",
    "SetFileProperties": "write",
    "SetFilesystemProperties": "write",
    "SetPathAccessControl": "write",
    "SetPathAccessControlRecursive": "iterative_write",
}
"""Requests to the endpoint of Data Lake Storage (``….dfs.core.windows.net``)."""

# Method, restype and comp of a request to the Blob endpoint.
_BLOB: Mapping[tuple[str, str, str], str] = {
    ("DELETE", "", ""): "DeleteBlob",
    ("DELETE", "", "immutabilitypolicies"): "SetContainerServiceMetadata",
    ("DELETE", "container", ""): "DeleteContainer",
    ("GET", "", ""): "GetBlob",
    ("GET", "", "blobs"): "FindBlobsByTags",
    ("GET", "", "blocklist"): "GetBlockList",
    ("GET", "", "list"): "ListContainers",
    ("GET", "", "metadata"): "GetBlobMetadata",
    ("GET", "", "tags"): "GetBlobTags",
    ("GET", "account", "properties"): "GetAccountInformation",
    ("GET", "container", ""): "GetContainerProperties",
    ("GET", "container", "acl"): "GetContainerACL",
    ("GET", "container", "blobs"): "FindBlobsByTags",
    ("GET", "container", "list"): "ListBlobs",
    ("GET", "container", "metadata"): "GetContainerMetadata",
    ("GET", "service", "properties"): "GetBlobServiceProperties",
    ("GET", "service", "stats"): "GetBlobServiceStats",
    ("HEAD", "", ""): "GetBlobProperties",
    ("HEAD", "", "metadata"): "GetBlobMetadata",
    ("HEAD", "account", "properties"): "GetAccountInformation",
    ("HEAD", "container", ""): "GetContainerProperties",
    ("HEAD", "container", "acl"): "GetContainerACL",
    ("HEAD", "container", "metadata"): "GetContainerMetadata",
    ("OPTIONS", "", ""): "BlobPreflightRequest",
    ("POST", "", "query"): "QueryBlobContents",
    ("POST", "service", "userdelegationkey"): "GetUserDelegationKey",
    ("PUT", "", ""): "PutBlob",
    ("PUT", "", "appendblock"): "AppendBlock",
    ("PUT", "", "block"): "PutBlock",
    ("PUT", "", "blocklist"): "PutBlockList",
    ("PUT", "", "copy"): "AbortCopyBlob",
    ("PUT", "", "expiry"): "SetBlobExpiry",
    ("PUT", "", "immutabilitypolicies"): "SetContainerServiceMetadata",
    ("PUT", "", "incrementalcopy"): "IncrementalCopyBlob",
    ("PUT", "", "lease"): "BlobLease",
    ("PUT", "", "legalhold"): "SetContainerServiceMetadata",
    ("PUT", "", "metadata"): "SetBlobMetadata",
    ("PUT", "", "properties"): "SetBlobProperties",
    ("PUT", "", "seal"): "SealBlob",
    ("PUT", "", "snapshot"): "SnapshotBlob",
    ("PUT", "", "tags"): "SetBlobTags",
    ("PUT", "", "tier"): "SetBlobTier",
    ("PUT", "", "undelete"): "UndeleteBlob",
    ("PUT", "container", ""): "CreateContainer",
    ("PUT", "container", "acl"): "SetContainerACL",
    ("PUT", "container", "lease"): "ContainerLease",
    ("PUT", "container", "metadata"): "SetContainerMetadata",
    ("PUT", "container", "undelete"): "RestoreContainer",
    ("PUT", "service", "properties"): "SetBlobServiceProperties",
}
# What a request becomes when it names a source to copy from.
_FROM_URL = {
    "AppendBlock": "AppendBlockThroughCopy",
    "PutBlob": "PutBlobFromURL",
    "PutBlock": "PutBlockFromURL",
}
# Method, resource and action of a request to the Data Lake endpoint.
_LAKE: Mapping[tuple[str, str, str], str] = {
    ("DELETE", "", ""): "DeleteFile",
    ("DELETE", "filesystem", ""): "DeleteFilesystem",
    ("GET", "", ""): "ReadFile",
    ("GET", "account", ""): "ListFilesystems",
    ("GET", "filesystem", ""): "ListFilesystemDir",
    ("HEAD", "", ""): "GetFileProperties",
    ("HEAD", "", "getaccesscontrol"): "GetPathAccessControl",
    ("HEAD", "", "getstatus"): "GetPathStatus",
    ("HEAD", "filesystem", ""): "GetFilesystemProperties",
    ("PATCH", "", "append"): "AppendFile",
    ("PATCH", "", "flush"): "FlushFile",
    ("PATCH", "", "setaccesscontrol"): "SetPathAccessControl",
    ("PATCH", "", "setaccesscontrolrecursive"): "SetPathAccessControlRecursive",
    ("PATCH", "", "setproperties"): "SetFileProperties",
    ("PATCH", "filesystem", ""): "SetFilesystemProperties",
    ("POST", "", ""): "LeaseFile",
    ("PUT", "directory", ""): "CreatePathDir",
    ("PUT", "file", ""): "CreatePathFile",
    ("PUT", "filesystem", ""): "CreateFilesystem",
}
_LEASES = ("acquire", "break", "change", "release", "renew")
TIERS = ("hot", "cool", "cold", "archive")
"""The access tiers, from the dearest capacity to the cheapest."""
_ONLY_WAY: Mapping[str, Type] = {TIERS[0]: "read", TIERS[-1]: "write"}


class Operation(NamedTuple):
    """What a request is."""

    name: str
    """As Storage's logs have it."""
    type: Type | None
    """How it is priced; None where the table does not say: page blobs, a batch (each request in it
    is an operation of its own, a change of tier there of the type ``other``), and a change of tier
    without what it was before."""


def operation(
    method: str,
    query: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
    *,
    lake: bool = False,
    v1: bool = False,
) -> Operation | None:
    """Return what a request is billed as; None for one that is not known.

    Args:
        method: Of HTTP, in capitals.
        query: The parameters of the address (``comp``, ``restype``, ``resource``, ``action``).
        headers: Of the request, their names in lower case or in whatever case if the mapping does
            not mind, as azure-core's does not.
        lake: It goes to the endpoint of Data Lake Storage.
        v1: To an account of the kind general-purpose v1.
    """
    headers = headers or {}
    comp = query.get("comp", "").lower()
    if lake and not comp:
        key = (method, query.get("resource", "").lower(), query.get("action", "").lower())
        name = _LAKE.get(key)
        if method == "PUT" and "x-ms-rename-source" in headers:
            name = "RenamePathFile"  # or RenamePathDir: the request does not tell, nor the price
        return None if name is None else Operation(name, LAKE_TYPES[name])
    name = _BLOB.get((method, query.get("restype", "").lower(), comp))
    if name in {"BlobLease", "ContainerLease"}:
        action = headers.get("x-ms-lease-action", "").lower()
        name = f"{action.capitalize()}{name}" if action in _LEASES else None
    elif name in _FROM_URL and "x-ms-copy-source" in headers:
        name = _FROM_URL[name]
        if name == "PutBlobFromURL" and "x-ms-blob-type" not in headers:
            name = "CopyBlobFromURL" if "x-ms-requires-sync" in headers else "CopyBlob"
    elif name == "PutBlob" and headers.get("x-ms-blob-type", "").lower() == "pageblob":
        return Operation(name, None)
    elif name == "SetBlobTier":
        return Operation(name, tier_type("", headers.get("x-ms-access-tier", "")))
    if name is None:
        return None
    return Operation(name, (BLOB_TYPES_V1 if v1 else BLOB_TYPES)[name])


def tier_type(before: str, after: str) -> Type | None:
    """Return how a change of the access tier is priced: down is a write, up is a read.

    `before` may be empty: then only what can go nowhere else is known, and the rest is None.
    """
    old, new = before.lower(), after.lower()
    if new not in TIERS:
        return None
    if old in TIERS:
        return "write" if TIERS.index(new) >= TIERS.index(old) else "read"
    return _ONLY_WAY.get(new)


# -- meters ------------------------------------------------------------------------------------

STORAGE, BANDWIDTH = "Storage", "Bandwidth"
"""Meter categories, and service names, that storage is billed under."""
ACCOUNTS = "microsoft.storage/"
"""What the type of a resource of storage begins with."""

# Parts of a meter's name, or of its subcategory's, in the order in which they are looked for.
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("early_delete", ("early delete",)),
    ("replication", ("geo-replication", "object replication")),
    ("retrieval", ("data retrieval", "query acceleration")),
    ("transfer_in", ("data transfer in", "ingress")),
    ("transfer_zone", ("availability zone",)),
    (
        "transfer_region",
        (
            "inter-region",
            "inter-continent",
            "inter continent",
            "intra-continent",
            "intra continent",
        ),
    ),
    ("transfer_internet", ("data transfer out", "egress")),
    (
        "management",
        ("inventory", "tags", "change feed", "monitoring", "sftp", "encryption scope", "defender"),
    ),
    ("requests", ("operation", "transactions")),
    ("storage", ("data stored", "metadata", "index", "snapshot", "disk", "provisioned", "deleted")),
)
_TIER = re.compile(r"\b(hot|cool|cold|archive|premium)\b", re.IGNORECASE)
_DISKS = re.compile(r"(.+) managed disks?\b", re.IGNORECASE)


def usage_kind(category: str, subcategory: str, meter: str) -> str | None:
    """Return what a meter counts, one of `costinsights.billing.columns.USAGE_KINDS`.

    None for a category that is neither storage nor bandwidth, where the source has one.
    """
    if category and category.lower() not in {STORAGE.lower(), BANDWIDTH.lower()}:
        return None
    for text in (meter.lower(), subcategory.lower()):
        for kind, parts in _KINDS:
            if any(part in text for part in parts):
                if kind == "transfer_internet" and "inter-region" in subcategory.lower():
                    return "transfer_region"
                return kind
    return "other"


def storage_class(subcategory: str, meter: str) -> str | None:
    """Return the access tier of a meter as Azure writes it (``Hot``), or which disks; None: neither.

    Redundancy (LRS, GRS …) is the account's, and stands in the meter's name.
    """
    disks = _DISKS.match(subcategory)
    if disks:
        return disks[1]
    found = _TIER.search(meter) or _TIER.search(subcategory)
    return found[1].capitalize() if found else None


def of_storage(resource: str) -> bool:
    """Whether a resource, by its id or its type, is an account of storage."""
    return ACCOUNTS in resource.lower()
