"""S3's words: usage types of a bill, and the billed class of each request."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from costinsights.billing.columns import USAGE_KINDS
from costinsights.systems.aws_s3 import (
    METERS,
    OPERATIONS,
    STANDARD,
    billed_storage_class,
    request_class,
)
from costinsights.systems.aws_s3_usage import UsageType, usage_type

# Usage type, kind, storage class, class of request.
SEEN = """
TimedStorage-ByteHrs               storage            STANDARD             -
USE2-TimedStorage-SIA-ByteHrs      storage            STANDARD_IA          -
TimedStorage-SIA-SmObjects         storage            STANDARD_IA          -
EU-TimedStorage-INT-FA-ByteHrs     storage            INTELLIGENT_TIERING  -
TimedStorage-GlacierByteHrs        storage            GLACIER              -
EUC1-TimedStorage-GlacierStaging   storage            GLACIER              -
TimedStorage-GDA-Staging           storage            DEEP_ARCHIVE         -
TimedStorage-GIR-ByteHrs           storage            GLACIER_IR           -
TimedStorage-RRS-ByteHrs           storage            REDUCED_REDUNDANCY   -
TimedStorage-XZ-ByteHrs            storage            EXPRESS_ONEZONE      -
Tables-TimedStorage-ByteHrs        storage            -                    -
Requests-Tier1                     requests           STANDARD             Tier1
USW2-Requests-ZIA-Tier2            requests           ONEZONE_IA           Tier2
USW2-Requests-GLACIER-Tier2        requests           GLACIER              Tier2
Requests-GDA-Tier3                 requests           DEEP_ARCHIVE         Tier3
Requests-Tier3                     requests           -                    Tier3
APN1-Requests-Tier5                requests           -                    Tier5
Tables-Requests-Tier1              requests           -                    Tier1
Upload-XZ                          requests           EXPRESS_ONEZONE      -
Retrieval-SIA                      retrieval          STANDARD_IA          -
Standard-Retrieval-Bytes           retrieval          -                    -
Select-Scanned-Bytes               retrieval          STANDARD             -
Select-Returned-INT-Bytes          retrieval          INTELLIGENT_TIERING  -
EarlyDelete-ByteHrs                early_delete       GLACIER              -
EarlyDelete-GDA                    early_delete       DEEP_ARCHIVE         -
EarlyDelete-GIR-SmObjects          early_delete       GLACIER_IR           -
USE1-EU-S3RTC-Out-Bytes            replication        -                    -
Monitoring-Automation-INT          management         -                    -
Inventory-ObjectsListed            management         -                    -
StorageLens-ObjCount               management         -                    -
TagStorage-TagHrs                  management         -                    -
Global-Bucket-Hrs                  management         -                    -
DataTransfer-Out-Bytes             transfer_internet  -                    -
USE1-DataTransfer-Out-ABytes       transfer_internet  -                    -
NA-EU--MRAP-Out-Bytes              transfer_internet  -                    -
DataTransfer-In-Bytes              transfer_in        -                    -
USE1-USW2-AWS-Out-Bytes            transfer_region    -                    -
USE1-USW2-AWS-In-ABytes-T1         transfer_region    -                    -
C3DataTransfer-Out-Bytes           transfer_service   -                    -
EUC1-DataTransfer-Regional-Bytes   transfer_service   -                    -
S3G-DataTransfer-In-Bytes          transfer_service   -                    -
CloudFront-Out-Bytes               transfer_service   -                    -
BytesDeleted-SIA                   other              -                    -
Something-New                      other              -                    -
"""


@pytest.mark.parametrize("line", SEEN.strip().splitlines())
def test_usage_types_say_what_was_used(line: str) -> None:
    text, *expected = line.split()
    found = usage_type(text)
    assert [found.kind, found.storage_class or "-", found.request_class or "-"] == expected
    assert found.kind in USAGE_KINDS


@pytest.mark.parametrize(
    ("text", "region", "other"),
    [
        ("TimedStorage-ByteHrs", "us-east-1", None),
        ("USE1-TimedStorage-ByteHrs", "us-east-1", None),
        ("EU-TimedStorage-ByteHrs", "eu-west-1", None),
        ("APS3-Requests-SIA-Tier1", "ap-south-1", None),
        ("USE1-USW2-AWS-Out-Bytes", "us-east-1", "us-west-2"),
        ("USW2-XXX9-AWS-Out-Bytes", "us-west-2", None),
        ("XXX9-TimedStorage-ByteHrs", None, None),
        ("EU-EU--MRAP-Out-Bytes", None, None),
        ("Global-Bucket-Hrs", None, None),
    ],
)
def test_usage_types_say_where(text: str, region: str | None, other: str | None) -> None:
    found = usage_type(text)
    assert (found.region, found.other_region) == (region, other)


def test_replication_is_told_by_the_operation() -> None:
    for operation in ("UploadPartForRepl", "PutObjectReplTime"):
        assert usage_type("Requests-Tier1", operation=operation).kind == "replication"
        found = usage_type("USE1-USW2-AWS-Out-Bytes", operation=operation)
        assert (found.kind, found.region) == ("replication", "us-east-1")
    assert usage_type("Requests-Tier1", operation="PutObject").kind == "requests"
    assert usage_type("TimedStorage-ByteHrs", operation="GetObjectForRepl").kind == "storage"


@pytest.mark.parametrize(
    ("text", "kind", "region"),
    [
        ("DataTransfer-Regional-Bytes", "transfer_zone", None),
        ("USE1-DataTransfer-xAZ-Out-Bytes", "transfer_zone", "us-east-1"),
        ("EU-DataTransfer-Out-Bytes", "transfer_internet", "eu-west-1"),
        ("USE1-EUC1-AWS-Out-Bytes", "transfer_region", "us-east-1"),
        ("EU-BoxUsage:t3.micro", "compute", "eu-west-1"),
        ("USE2-ETL-DPU-Hour", "compute", "us-east-2"),
        ("EBS:VolumeUsage.gp3", "storage", None),
        ("APIRequest", "other", None),
        ("Requests-Tier1", "other", None),
    ],
)
def test_other_services_transfers_are_told_apart(text: str, kind: str, region: str | None) -> None:
    assert usage_type(text, "AmazonEC2") == UsageType(kind, region=region)._replace(
        other_region="eu-central-1" if "EUC1" in text else None
    )


def test_every_operation_of_the_client_has_a_class() -> None:
    session: Any = import_module("botocore.session").get_session()
    names = set(session.get_service_model("s3").operation_names)
    assert set(OPERATIONS) == names
    assert set(OPERATIONS.values()) == set(METERS)


def test_the_table_agrees_with_the_rule() -> None:
    # Those that the verb alone would get wrong.
    exceptions = {
        "CompleteMultipartUpload": "tier1",
        "CopyObject": "tier1",
        "CreateSession": "tier2",
        "RenameObject": "tier1",
        "RestoreObject": "restore",
        "UploadPart": "tier1",
        "UploadPartCopy": "tier1",
        "WriteGetObjectResponse": "tier1",
    }
    for name, found in OPERATIONS.items():
        by_rule = request_class(f"{name}V9")  # not in the table
        assert found == exceptions.get(name, by_rule), name


@pytest.mark.parametrize(
    ("operation", "given", "billed"),
    [
        ("PutObject", "STANDARD_IA", "STANDARD_IA"),
        ("PutObject", None, STANDARD),
        ("GetObject", "GLACIER_IR", "GLACIER_IR"),
        ("ListObjectsV2", "STANDARD_IA", STANDARD),
        ("UploadPart", "GLACIER", STANDARD),
        ("UploadPart", "STANDARD_IA", "STANDARD_IA"),
        ("CompleteMultipartUpload", "GLACIER", "GLACIER"),
        ("PutObject", "REDUCED_REDUNDANCY", STANDARD),
    ],
)
def test_the_rate_of_a_request(operation: str, given: str | None, billed: str) -> None:
    assert billed_storage_class(operation, given) == billed
