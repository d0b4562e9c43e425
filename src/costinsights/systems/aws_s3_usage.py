"""What S3's usage types mean in a bill: kind, storage class, class of requests, regions.

Used by the pullers. Usage types: AWS's page "Understanding your AWS billing and usage reports for
Amazon S3" (docs.aws.amazon.com/AmazonS3/latest/userguide/aws-usage-report-understand.html).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from costinsights.systems.aws_s3 import CODE, SERVICE, STANDARD

if TYPE_CHECKING:
    from collections.abc import Mapping

REGIONS: Mapping[str, str] = {
    "AFS1": "af-south-1",
    "APE1": "ap-east-1",
    "APN1": "ap-northeast-1",
    "APN2": "ap-northeast-2",
    "APN3": "ap-northeast-3",
    "APS1": "ap-southeast-1",
    "APS2": "ap-southeast-2",
    "APS3": "ap-south-1",
    "APS4": "ap-southeast-3",
    "APS5": "ap-south-2",
    "APS6": "ap-southeast-4",
    "CAN1": "ca-central-1",
    "CAN2": "ca-west-1",
    "CNN1": "cn-north-1",
    "CNW1": "cn-northwest-1",
    "CPT": "af-south-1",
    "EU": "eu-west-1",
    "EUC1": "eu-central-1",
    "EUC2": "eu-central-2",
    "EUN1": "eu-north-1",
    "EUS1": "eu-south-1",
    "EUS2": "eu-south-2",
    "EUW1": "eu-west-1",
    "EUW2": "eu-west-2",
    "EUW3": "eu-west-3",
    "ILC1": "il-central-1",
    "MEC1": "me-central-1",
    "MES1": "me-south-1",
    "SAE1": "sa-east-1",
    "UGE1": "us-gov-east-1",
    "UGW1": "us-gov-west-1",
    "USE1": "us-east-1",
    "USE2": "us-east-2",
    "USW1": "us-west-1",
    "USW2": "us-west-2",
}
"""Regions by the code that usage types begin with; us-east-1 often has none."""

CLASSES: Mapping[str, str] = {
    "SIA": "STANDARD_IA",
    "ZIA": "ONEZONE_IA",
    "INT": "INTELLIGENT_TIERING",
    "GIR": "GLACIER_IR",
    "GLACIER": "GLACIER",
    "Glacier": "GLACIER",
    "GDA": "DEEP_ARCHIVE",
    "RRS": "REDUCED_REDUNDANCY",
    "XZ": "EXPRESS_ONEZONE",
    "STANDARD": STANDARD,
}
"""S3's storage classes by what stands for them in a usage type; without any it is STANDARD."""

ACCESS_TIERS: Mapping[str, str] = {
    "FA": "frequent",
    "IA": "infrequent",
    "AIA": "archive_instant",
    "AA": "archive",
    "DAA": "deep_archive",
}
"""Tiers of Intelligent-Tiering: ``TimedStorage-INT-FA-ByteHrs``. The words are the price book's."""


class UsageType(NamedTuple):
    """What a usage type says."""

    kind: str
    """One of `costinsights.billing.columns.USAGE_KINDS`."""
    storage_class: str | None = None
    """S3's own word for it; None where the line is not of one."""
    request_class: str | None = None
    """``Tier1`` and so on, of requests."""
    access_tier: str | None = None
    """Of Intelligent-Tiering."""
    region: str | None = None
    """Where it was used; None where the usage type does not say."""
    other_region: str | None = None
    """The other end of a transfer between regions."""


# Of S3. The first that matches the usage type without its region counts.
_S3: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"(Tables-)?TimedStorage-", "storage"),
        (r"(Tables-)?Requests-", "requests"),
        (r"Upload-XZ", "requests"),  # what a PUT to S3 Express has above 512 KB
        (r"EarlyDelete-", "early_delete"),
        (
            r"Retrieval-|(Standard|Bulk|Expedited)-Retrieval-|Select-(Scanned|Returned)-",
            "retrieval",
        ),
        (r"(S3RTC|.*-S3RTC)-", "replication"),
        (r"Monitoring-|Inventory-|StorageAnalytics-|StorageLens|TagStorage-", "management"),
        (r"BatchOperations-|Metadata-|Tables-|Bucket-Hrs", "management"),
        (r"(C3|S3G-)DataTransfer-|DataTransfer-Regional-", "transfer_service"),
    )
)
# Of every service.
_ANY: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"DataTransfer-Out-", "transfer_internet"),
        (r"DataTransfer-In-", "transfer_in"),
        (r"DataTransfer-(Regional|AZ|xAZ)-|VpcPeering-(In|Out)-", "transfer_zone"),
        (r"AWS-(In|Out)-A?Bytes", "transfer_region"),
        (r"-MRAP-Out-", "transfer_internet"),  # two hyphens: to clients outside of AWS
        (r"-MRAP-In-", "transfer_in"),
        (r"MRAP-(In|Out)-|CloudFront-(In|Out)-|VpcEndpoint-Bytes", "transfer_service"),
        (r"(Box|Spot|Host|Dedicated)Usage|InstanceUsage|Lambda-GB-Second|Fargate-", "compute"),
        (r".*DPU-Hour", "compute"),
        (r"EBS:(Volume|Snapshot)Usage", "storage"),
    )
)
_REGION = re.compile(r"([A-Z]{2,4}\d?)-")
_GROUP = re.compile(r"(AP|AU|EU|IN|NA|SA)-(AP|AU|EU|IN|NA|SA)-(?=-MRAP-)")
_MARK = re.compile(rf"(?:^|-)({'|'.join(CLASSES)})(?=-|$|ByteHrs|Staging)")
_TIER = re.compile(r"-(Tier\d+)$")
_INTELLIGENT = re.compile(r"-INT-([A-Z]+)-ByteHrs$")
_COPIES = re.compile(r"(ReplTime|ForRepl)$")
"""``UploadPartForRepl``, and with Replication Time Control ``UploadPartReplTime``."""
_OF_A_CLASS = frozenset(("storage", "requests", "retrieval", "early_delete"))
_COPIED = frozenset(("requests", "transfer_region", "transfer_service", "other"))


def usage_type(text: str, service: str = SERVICE, operation: str = "") -> UsageType:
    """Return what a usage type of AWS says: ``USE2-Requests-SIA-Tier1``.

    Args:
        text: The usage type.
        service: Whose it is, as the bill calls it: by name or by product code.
        operation: The operation of the line, where the bill has it: it tells replication apart.
    """
    is_s3 = service in (SERVICE, CODE)
    word, region, other = _without_region(text)
    kind = _kind(word, is_s3)
    if not is_s3 and word == text:
        region = None  # that of S3 without a prefix is us-east-1; elsewhere it may be global
    if is_s3 and kind in _COPIED and _COPIES.search(operation):
        kind = "replication"
    if not is_s3:
        return UsageType(kind, region=region, other_region=other)
    tier = _TIER.search(word)
    return UsageType(
        kind,
        _storage_class(word, kind),
        tier[1] if tier and word.partition("-")[0] in ("Requests", "Tables") else None,
        _access_tier(word),
        region,
        other,
    )


def _kind(word: str, is_s3: bool) -> str:
    rules = (*_S3, *_ANY) if is_s3 else _ANY
    return next((kind for pattern, kind in rules if pattern.match(word)), "other")


def _without_region(text: str) -> tuple[str, str | None, str | None]:
    """Return a usage type without what says where, and its regions: what has no prefix is us-east-1's."""
    if text.startswith("Global-"):
        return text.removeprefix("Global-"), None, None
    groups = _GROUP.match(text)
    if groups:
        return text[groups.end() :], None, None
    found: list[str] = []
    while len(found) < 2:
        prefix = _REGION.match(text)
        if prefix is None or (prefix[1] not in REGIONS and not prefix[1][-1].isdigit()):
            break
        found.append(prefix[1])
        text = text[prefix.end() :]
    if not found:
        return text, REGIONS["USE1"], None
    regions = [REGIONS.get(code) for code in found]  # a region that is new has none
    return text, regions[0], regions[1] if len(regions) > 1 else None


def _storage_class(word: str, kind: str) -> str | None:
    if kind not in _OF_A_CLASS or word.startswith("Tables-"):
        return None
    mark = _MARK.search(word)
    if mark:
        return CLASSES[mark[1]]
    if word == "EarlyDelete-ByteHrs":
        return "GLACIER"
    if "-Retrieval-Bytes" in word:
        return None  # of one of the two archives: the usage type does not say which
    if re.search(r"Requests-Tier[3-9]", word):
        return None  # restores and transitions: of several classes
    return STANDARD


def _access_tier(word: str) -> str | None:
    found = _INTELLIGENT.search(word)
    return ACCESS_TIERS.get(found[1]) if found else None
