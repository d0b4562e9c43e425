"""What Azure Storage bills: operations from requests, kinds and classes from meters."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from azure.core.rest import HttpRequest

from costinsights.billing.columns import USAGE_KINDS
from costinsights.systems import azure_storage as storage

BLOB = "https://acme.blob.core.windows.net/"
LAKE = "https://acme.dfs.core.windows.net/"
COPIED = {"x-ms-copy-source": BLOB + "c/other"}


def sent(method: str, path: str, headers: dict[str, str] | None = None) -> storage.Operation | None:
    """Return what a request of azure-core's is, looked at as an instrumentor does."""
    request = HttpRequest(method, BLOB + path, headers=headers)
    query = dict(parse_qsl(path.partition("?")[2]))
    return storage.operation(request.method, query, request.headers)


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("PUT", "c/b", {"x-ms-blob-type": "BlockBlob"}, ("PutBlob", "write")),
        ("PUT", "c/b?comp=block&blockid=1", {}, ("PutBlock", "write")),
        ("PUT", "c/b?comp=blocklist", {}, ("PutBlockList", "write")),
        ("GET", "c/b?comp=blocklist", {}, ("GetBlockList", "other")),
        ("PUT", "c/b?comp=block&blockid=1", COPIED, ("PutBlockFromURL", "write")),
        ("PUT", "c/b", COPIED, ("CopyBlob", "write")),
        (
            "PUT",
            "c/b",
            {**COPIED, "x-ms-requires-sync": "true"},
            ("CopyBlobFromURL", "write"),
        ),
        ("PUT", "c/b", {**COPIED, "x-ms-blob-type": "BlockBlob"}, ("PutBlobFromURL", "write")),
        ("PUT", "c/b", {"x-ms-blob-type": "PageBlob"}, ("PutBlob", None)),
        ("GET", "c/b", {}, ("GetBlob", "read")),
        ("HEAD", "c/b", {}, ("GetBlobProperties", "other")),
        ("DELETE", "c/b", {}, ("DeleteBlob", "free")),
        ("GET", "c?restype=container&comp=list", {}, ("ListBlobs", "list")),
        ("GET", "?comp=list", {}, ("ListContainers", "list")),
        ("PUT", "c?restype=container", {}, ("CreateContainer", "list")),
        ("PUT", "c/b?comp=lease", {"X-Ms-Lease-Action": "acquire"}, ("AcquireBlobLease", "other")),
        ("PUT", "c/b?comp=tier", {"x-ms-access-tier": "Archive"}, ("SetBlobTier", "write")),
        ("PUT", "c/b?comp=tier", {"x-ms-access-tier": "Hot"}, ("SetBlobTier", "read")),
        ("PUT", "c/b?comp=tier", {"x-ms-access-tier": "Cool"}, ("SetBlobTier", None)),
        ("PUT", "c/b?comp=page", {}, None),
        ("POST", "?comp=batch", {}, None),
    ],
)
def test_what_a_request_to_the_blob_endpoint_is(
    method: str, path: str, headers: dict[str, str], expected: tuple[str, str | None] | None
) -> None:
    assert sent(method, path, headers) == expected


@pytest.mark.parametrize(
    ("method", "query", "headers", "expected"),
    [
        ("PUT", {"resource": "file"}, {}, ("CreatePathFile", "write")),
        ("PUT", {"mode": "legacy"}, {"x-ms-rename-source": "/f/a"}, ("RenamePathFile", "iterative_write")),
        ("PATCH", {"action": "append", "position": "0"}, {}, ("AppendFile", "write")),
        ("PATCH", {"action": "flush", "position": "3"}, {}, ("FlushFile", "write")),
        ("PATCH", {"action": "setAccessControlRecursive"}, {}, ("SetPathAccessControlRecursive", "iterative_write")),
        ("GET", {"resource": "filesystem", "recursive": "true"}, {}, ("ListFilesystemDir", "iterative_read")),
        ("GET", {}, {}, ("ReadFile", "read")),
        ("HEAD", {}, {}, ("GetFileProperties", "read")),
        ("HEAD", {"action": "getAccessControl"}, {}, ("GetPathAccessControl", "read")),
        ("DELETE", {"recursive": "true"}, {}, ("DeleteFile", "free")),
        ("PUT", {"comp": "expiry"}, {}, ("SetBlobExpiry", "other")),
        ("PATCH", {"action": "somethingNew"}, {}, None),
    ],
)  # fmt: skip
def test_what_a_request_to_the_lake_endpoint_is(
    method: str,
    query: dict[str, str],
    headers: dict[str, str],
    expected: tuple[str, str] | None,
) -> None:
    assert storage.operation(method, query, headers, lake=True) == expected


def test_v1_accounts_price_properties_and_deletes_differently() -> None:
    assert storage.operation("DELETE", {}, v1=True) == ("DeleteBlob", "other")
    assert storage.operation("HEAD", {}, v1=True) == ("GetBlobProperties", "read")
    assert storage.operation("GET", {}, v1=True) == ("GetBlob", "read")
    assert set(storage.BLOB_TYPES_V1) == set(storage.BLOB_TYPES)


def test_a_change_of_tier_is_priced_by_its_direction() -> None:
    assert storage.tier_type("Hot", "Cool") == "write"
    assert storage.tier_type("Cold", "Cool") == "read"
    assert storage.tier_type("", "P10") is None


METERS = [
    ("General Block Blob v2", "Hot LRS Data Stored", "storage", "Hot"),
    ("Tiered Block Blob", "Cool GRS Write Operations", "requests", "Cool"),
    ("Tiered Block Blob", "All Other Operations", "requests", None),
    ("Tiered Block Blob", "LRS List and Create Container Operations", "requests", None),
    ("Azure Data Lake Storage Gen2 Hierarchical Namespace", "Hot LRS Iterative Write Operations", "requests", "Hot"),
    ("Azure Data Lake Storage Gen2 Hierarchical Namespace", "Hot LRS Index", "storage", "Hot"),
    ("Azure Data Lake Storage Gen2 Flat Namespace", "Cold LRS Early Delete", "early_delete", "Cold"),
    ("General Block Blob v2", "Archive Priority Data Retrieval", "retrieval", "Archive"),
    ("General Block Blob v2", "Archive Priority Read Operations", "requests", "Archive"),
    ("General Block Blob v2", "Hot Query Acceleration - Data Scanned", "retrieval", "Hot"),
    ("General Block Blob v2", "Hot LRS Blob Inventory", "management", "Hot"),
    ("Premium Block Blob v2 Hierarchical Namespace", "LRS Data Stored", "storage", "Premium"),
    ("Bandwidth", "Geo-Replication v2 Data Transfer", "replication", None),
    ("Standard HDD Managed Disks", "S4 LRS Disk Operations", "requests", "Standard HDD"),
    ("Premium SSD Managed Disks", "P10 LRS Disk", "storage", "Premium SSD"),
    ("Rtn Preference: MGN", "Standard Data Transfer Out", "transfer_internet", None),
    ("Rtn Preference: MGN", "Standard Data Transfer In", "transfer_in", None),
    ("Inter-Region", "Intra Continent Data Transfer Out", "transfer_region", None),
    ("Inter-Region", "Standard Data Transfer Out", "transfer_region", None),
    ("", "Standard Inter-Availability Zone Data Transfer Out", "transfer_zone", None),
    ("A new product", "A new meter", "other", None),
]  # fmt: skip


@pytest.mark.parametrize(("subcategory", "meter", "kind", "tier"), METERS)
def test_what_a_meter_counts(subcategory: str, meter: str, kind: str, tier: str | None) -> None:
    assert storage.usage_kind("", subcategory, meter) == kind
    assert storage.storage_class(subcategory, meter) == tier
    assert kind in USAGE_KINDS


def test_the_meters_of_other_services_have_no_kind() -> None:
    assert storage.usage_kind("Virtual Machines", "Dsv3", "D4s v3") is None
    assert storage.usage_kind("Storage", "Files v2", "Hot LRS Data Stored") == "storage"


def test_a_resource_is_known_as_storage_by_its_id_and_by_its_type() -> None:
    assert storage.of_storage(
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acme"
    )
    assert storage.of_storage("microsoft.storage/storageaccounts")
    assert not storage.of_storage("Microsoft.Compute/disks")
