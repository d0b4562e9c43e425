"""What Cloud Storage bills: which call is which class of operation, and which SKU is for what.

For who watches calls, and for who reads bills. Plain facts: no client is imported here.

Operations: cloud.google.com/storage/pricing, "Operation charges". SKUs have no published list of
kinds; their descriptions do say what they are for, in words that have changed over the years
("GCP Storage egress between NA and EU" is today's "Network Data Transfer GCP Inter Region between
Northern America and Europe"), so words decide and not whole descriptions. Those in the tests are
from bills and from the Cloud Billing Catalog as public sources have them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM = "gcp.storage"
SERVICE = "Cloud Storage"
"""As bills call it: ``service.description``."""
SERVICE_ID = "95FF-2EF5-5EA1"

OperationClass = Literal["A", "B", "free"]

# --- operations ----------------------------------------------------------------------------------

_ACCESS = ("bucketAccessControls", "defaultObjectAccessControls", "objectAccessControls")

OPERATIONS: Mapping[str, OperationClass] = {
    # Of objects.
    "objects.insert": "A",  # a resumable upload is one, however many requests it takes
    "objects.patch": "A",
    "objects.update": "A",
    "objects.compose": "A",
    "objects.copy": "A",
    "objects.rewrite": "A",
    "objects.list": "A",
    "objects.move": "A",
    "objects.restore": "A",
    "objects.watchAll": "A",
    "objects.setIamPolicy": "A",
    "objects.get": "B",  # with or without its media; each range that is asked for is one
    "objects.getIamPolicy": "B",
    "objects.testIamPermissions": "B",
    "objects.delete": "free",
    # Of buckets.
    "buckets.insert": "A",
    "buckets.patch": "A",
    "buckets.update": "A",
    "buckets.list": "A",
    "buckets.setIamPolicy": "A",
    "buckets.lockRetentionPolicy": "A",
    "buckets.get": "B",
    "buckets.getIamPolicy": "B",
    "buckets.testIamPermissions": "B",
    "buckets.delete": "free",
    "buckets.getStorageLayout": "free",
    # Of what belongs to them.
    **{f"{kind}.{verb}": "A" for kind in _ACCESS for verb in ("insert", "patch", "update")},
    **{f"{kind}.delete": "A" for kind in _ACCESS},
    **{f"{kind}.{verb}": "B" for kind in _ACCESS for verb in ("get", "list")},
    "notifications.insert": "A",
    "notifications.delete": "A",
    "notifications.get": "B",
    "notifications.list": "B",
    "channels.stop": "free",
    "folders.list": "A",
    "folders.rename": "A",
    "folders.delete": "free",
    # Of the project.
    "hmacKeys.create": "A",
    "hmacKeys.list": "A",
    "hmacKeys.update": "A",
    "hmacKeys.get": "B",
    "hmacKeys.delete": "free",
}
"""The class of each method of the JSON API, without ``storage.`` before its name. A method that is
not here is in none that is known: it has no price rather than a wrong one."""

VERBS: Mapping[str, OperationClass] = {
    "insert": "A",
    "patch": "A",
    "update": "A",
    "setIamPolicy": "A",
    "get": "B",
    "getIamPolicy": "B",
    "testIamPermissions": "B",
}
"""What Google says of all resources alike (``storage.*.insert``): for those that came later."""


def operation_class(method: str) -> OperationClass | None:
    """Return the class that a method is billed as: ``objects.insert``, ``storage.buckets.get``.

    None where nothing says it.
    """
    name = method.removeprefix("storage.").removeprefix("projects.")
    return OPERATIONS.get(name) or VERBS.get(name.rpartition(".")[2])


# --- storage classes -----------------------------------------------------------------------------

CLASSES: Mapping[str, str] = {
    "durable reduced availability": "DURABLE_REDUCED_AVAILABILITY",
    "nearline": "NEARLINE",
    "coldline": "COLDLINE",
    "archive": "ARCHIVE",
    "rapid": "RAPID",
    "standard": "STANDARD",
    # What Standard was called before 2019.
    "multi-regional": "MULTI_REGIONAL",
    "regional storage": "REGIONAL",
}
"""The words by which descriptions name a class, in the order in which they are looked for; the
class is the API's own word for it."""

COLD_DAYS: Mapping[str, int] = {"NEARLINE": 30, "COLDLINE": 90, "ARCHIVE": 365}
"""Days that an object is billed for at least, by class (cloud.google.com/storage/pricing)."""

# --- SKUs ----------------------------------------------------------------------------------------

_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(words, re.IGNORECASE))
    for kind, words in (
        ("early_delete", r"early delet"),
        ("retrieval", r"retrieval"),
        ("requests", r"\boperations?\b|\bops\b"),
        ("replication", r"replication"),
        ("management", r"\bfee\b|management|tagging|\btags?\b|inventory|insights|notification"),
    )
)
_NETWORK = re.compile(r"network|data transfer|egress|ingress|download|upload", re.IGNORECASE)
_WAYS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(words, re.IGNORECASE))
    for kind, words in (
        ("transfer_in", r"ingress|data transfer in\b|upload"),
        ("transfer_zone", r"(inter|intra|cross)[- ]?zone"),
        (
            "transfer_region",
            (
                r"(inter|intra|cross)[- ]?region|multi-?region"
                r"|storage (egress|data transfer) (between|within)"
            ),
        ),
        ("transfer_service", r"cdn|cache fill|interconnect|peering|google[- ]api|google services"),
        ("transfer_internet", r"download|internet|worldwide|premium|standard tier"),
    )
)
_STORAGE = re.compile(r"\bstorage\b", re.IGNORECASE)
_LETTER = re.compile(r"\bclass ([ab])\b", re.IGNORECASE)

SKUS: Mapping[str, str] = {
    "22EB-AAE8-FBCD": "Download Worldwide Destinations (excluding Asia & Australia)",
    "1F8B-71B0-3D1B": "Download APAC",
    "4980-950B-BDA6": "Download China",
    "9B2D-2B7D-FA5C": "Download Australia",
    "8878-37D4-D2AC": "Network Data Transfer GCP Inter Region within Northern America",
    "68F8-91DC-CFA9": "Network Data Transfer GCP Inter Region within Europe",
    "4DBF-185F-A415": "Regional Standard Class A Operations",
    "7870-010B-2763": "Regional Standard Class B Operations",
}
"""What some SKUs that every bill has are called, for lines that have the id only."""


class Sku(NamedTuple):
    """What a SKU is for."""

    kind: str
    """A word of `costinsights.billing.columns.USAGE_KINDS`."""
    storage_class: str | None = None
    """``STANDARD``; None where it depends on none: data transfer costs the same for all."""
    operation: OperationClass | None = None


def sku(description: str | None, sku_id: str | None = None) -> Sku:
    """Return what a SKU of Cloud Storage is for, by its description, or its id where it has none."""
    text = description or SKUS.get(sku_id or "", "")
    letter = _LETTER.search(text)
    return Sku(
        _kind(text),
        None if _NETWORK.search(text) else storage_class(text),
        None if letter is None else "A" if letter[1] in "aA" else "B",
    )


def _kind(text: str) -> str:
    found = next((kind for kind, words in _KINDS if words.search(text)), None) or transfer(text)
    if found is None and _STORAGE.search(text) and not _NETWORK.search(text):
        return "storage"
    return found or "other"


def storage_class(text: str) -> str | None:
    """Return the class that a description names."""
    plain = text.lower()
    return next((name for words, name in CLASSES.items() if words in plain), None)


def transfer(text: str) -> str | None:
    """Return the kind of data transfer that a description of any service names; None for others.

    Google names the two ends, and no description says "cross-region" of one that goes out: whether
    a transfer stays with Google is in the words Inter Region, Multi-region, Inter Zone.
    """
    if not _NETWORK.search(text):
        return None
    return next((kind for kind, words in _WAYS if words.search(text)), None)
