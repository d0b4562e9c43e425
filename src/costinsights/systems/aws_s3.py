"""Which billed class a request to S3 is of, for who sees requests as they are made.

No client is imported here. What the usage types of a bill mean stands in
`costinsights.systems.aws_s3_usage`: a program that only makes requests need not load it.

Names of operations: botocore 1.44.5, service model of s3; of storage classes: the same, shape
``StorageClass``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

SYSTEM = "aws.s3"
SERVICE = "Amazon Simple Storage Service"
"""S3 as bills call it; `CODE` as their product code."""
CODE = "AmazonS3"
STANDARD = "STANDARD"

# -- requests as they are made ------------------------------------------------------------------

Class = Literal["tier1", "tier2", "restore", "free"]

METERS: Mapping[Class, str] = {
    "tier1": "tier1_requests",
    "tier2": "tier2_requests",
    "restore": "restore_requests",
    "free": "delete_requests",
}
"""The price book's meter of each class."""

OPERATIONS: Mapping[str, Class] = {
    "AbortMultipartUpload": "free",
    "CompleteMultipartUpload": "tier1",
    "CopyObject": "tier1",
    "CreateBucket": "tier1",
    "CreateBucketMetadataConfiguration": "tier1",
    "CreateBucketMetadataTableConfiguration": "tier1",
    "CreateMultipartUpload": "tier1",
    "CreateSession": "tier2",  # of S3 Express; unsourced
    "DeleteBucket": "free",
    "DeleteBucketAnalyticsConfiguration": "free",
    "DeleteBucketCors": "free",
    "DeleteBucketEncryption": "free",
    "DeleteBucketIntelligentTieringConfiguration": "free",
    "DeleteBucketInventoryConfiguration": "free",
    "DeleteBucketLifecycle": "free",
    "DeleteBucketMetadataConfiguration": "free",
    "DeleteBucketMetadataTableConfiguration": "free",
    "DeleteBucketMetricsConfiguration": "free",
    "DeleteBucketOwnershipControls": "free",
    "DeleteBucketPolicy": "free",
    "DeleteBucketReplication": "free",
    "DeleteBucketTagging": "free",
    "DeleteBucketWebsite": "free",
    "DeleteObject": "free",
    "DeleteObjectAnnotation": "free",
    "DeleteObjectTagging": "free",
    "DeleteObjects": "free",  # a POST that deletes; that it is free is unsourced
    "DeletePublicAccessBlock": "free",
    "GetBucketAbac": "tier2",
    "GetBucketAccelerateConfiguration": "tier2",
    "GetBucketAcl": "tier2",
    "GetBucketAnalyticsConfiguration": "tier2",
    "GetBucketCors": "tier2",
    "GetBucketEncryption": "tier2",
    "GetBucketIntelligentTieringConfiguration": "tier2",
    "GetBucketInventoryConfiguration": "tier2",
    "GetBucketLifecycle": "tier2",
    "GetBucketLifecycleConfiguration": "tier2",
    "GetBucketLocation": "tier2",
    "GetBucketLogging": "tier2",
    "GetBucketMetadataConfiguration": "tier2",
    "GetBucketMetadataTableConfiguration": "tier2",
    "GetBucketMetricsConfiguration": "tier2",
    "GetBucketNotification": "tier2",
    "GetBucketNotificationConfiguration": "tier2",
    "GetBucketOwnershipControls": "tier2",
    "GetBucketPolicy": "tier2",
    "GetBucketPolicyStatus": "tier2",
    "GetBucketReplication": "tier2",
    "GetBucketRequestPayment": "tier2",
    "GetBucketTagging": "tier2",
    "GetBucketVersioning": "tier2",
    "GetBucketWebsite": "tier2",
    "GetObject": "tier2",
    "GetObjectAcl": "tier2",
    "GetObjectAnnotation": "tier2",
    "GetObjectAttributes": "tier2",
    "GetObjectLegalHold": "tier2",
    "GetObjectLockConfiguration": "tier2",
    "GetObjectRetention": "tier2",
    "GetObjectTagging": "tier2",
    "GetObjectTorrent": "tier2",
    "GetPublicAccessBlock": "tier2",
    "HeadBucket": "tier2",
    "HeadObject": "tier2",
    "ListBucketAnalyticsConfigurations": "tier1",
    "ListBucketIntelligentTieringConfigurations": "tier1",
    "ListBucketInventoryConfigurations": "tier1",
    "ListBucketMetricsConfigurations": "tier1",
    "ListBuckets": "tier1",
    "ListDirectoryBuckets": "tier1",
    "ListMultipartUploads": "tier1",
    "ListObjectAnnotations": "tier1",
    "ListObjectVersions": "tier1",
    "ListObjects": "tier1",
    "ListObjectsV2": "tier1",
    "ListParts": "tier1",
    "PutBucketAbac": "tier1",
    "PutBucketAccelerateConfiguration": "tier1",
    "PutBucketAcl": "tier1",
    "PutBucketAnalyticsConfiguration": "tier1",
    "PutBucketCors": "tier1",
    "PutBucketEncryption": "tier1",
    "PutBucketIntelligentTieringConfiguration": "tier1",
    "PutBucketInventoryConfiguration": "tier1",
    "PutBucketLifecycle": "tier1",
    "PutBucketLifecycleConfiguration": "tier1",
    "PutBucketLogging": "tier1",
    "PutBucketMetricsConfiguration": "tier1",
    "PutBucketNotification": "tier1",
    "PutBucketNotificationConfiguration": "tier1",
    "PutBucketOwnershipControls": "tier1",
    "PutBucketPolicy": "tier1",
    "PutBucketReplication": "tier1",
    "PutBucketRequestPayment": "tier1",
    "PutBucketTagging": "tier1",
    "PutBucketVersioning": "tier1",
    "PutBucketWebsite": "tier1",
    "PutObject": "tier1",
    "PutObjectAcl": "tier1",
    "PutObjectAnnotation": "tier1",
    "PutObjectLegalHold": "tier1",
    "PutObjectLockConfiguration": "tier1",
    "PutObjectRetention": "tier1",
    "PutObjectTagging": "tier1",
    "PutPublicAccessBlock": "tier1",
    "RenameObject": "tier1",
    "RestoreObject": "restore",
    "SelectObjectContent": "tier2",
    "UpdateBucketMetadataAnnotationTableConfiguration": "tier1",
    "UpdateBucketMetadataInventoryTableConfiguration": "tier1",
    "UpdateBucketMetadataJournalTableConfiguration": "tier1",
    "UpdateObjectEncryption": "tier1",
    "UploadPart": "tier1",
    "UploadPartCopy": "tier1",
    "WriteGetObjectResponse": "tier1",  # a POST, to S3 Object Lambda; unsourced
}
"""The class of each operation of S3 as botocore names it. PUT, COPY, POST and LIST are tier 1, what
deletes or cancels is free, everything else is tier 2."""

_BY_VERB: tuple[tuple[str, Class], ...] = (
    ("Delete", "free"),
    ("Abort", "free"),
    ("Put", "tier1"),
    ("Create", "tier1"),
    ("Update", "tier1"),
    ("List", "tier1"),
)


def request_class(operation: str) -> Class:
    """Return the class of an operation; of one that is not in `OPERATIONS`, by its verb."""
    known = OPERATIONS.get(operation)
    if known is not None:
        return known
    for verb, found in _BY_VERB:
        if operation.startswith(verb):
            return found
    return "tier2"


ARCHIVES = frozenset(("GLACIER", "DEEP_ARCHIVE"))
PARTS = frozenset(("CreateMultipartUpload", "UploadPart", "UploadPartCopy"))


def billed_storage_class(operation: str, storage_class: str | None) -> str:
    """Return the storage class whose rate a request is billed at, given that of its object.

    A LIST is billed at the standard rate whatever it lists, and so are the parts of an upload to an
    archive: only its CompleteMultipartUpload is billed at the archive's rate. So are requests about
    buckets, and ``REDUCED_REDUNDANCY``, which has no requests of its own.
    """
    if not storage_class or operation.startswith("List") or "Bucket" in operation:
        return STANDARD
    if storage_class == "REDUCED_REDUNDANCY":
        return STANDARD
    return STANDARD if storage_class in ARCHIVES and operation in PARTS else storage_class


RETRIEVALS: Mapping[str, str] = {
    "Standard": "standard",
    "Bulk": "bulk",
    "Expedited": "expedited",
}
"""``RestoreRequest.GlacierJobParameters.Tier`` of RestoreObject, and the price book's word for it in
the dimension ``retrieval``; Standard is what a request without one gets."""

RETRIEVED = frozenset(("STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"))
"""Storage classes whose reading is billed by the byte as well, when it happens; the archives' bytes
are billed when they are restored."""

UNBILLED_STATUS = frozenset((301, 307))
"""Answers that are not billed, beside those of 500 and above."""

UNBILLED = frozenset(
    (
        "PermanentRedirect",
        "PermanentRedirectControlError",
        "TemporaryRedirect",
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "ConnectionClosedByRequester",
        "DeviceNotActiveError",
        "EndpointNotFound",
        "ExpiredToken",
        "IllegalLocationConstraintException",
        "InvalidArgument",
        "InvalidBucketOwnerAWSAccountID",
        "InvalidDigest",
        "InvalidEncryptionAlgorithmError",
        "InvalidHostHeader",
    )
)
"""Error codes that are not billed: the beginning of the table of AWS's page "Billing for Amazon S3
error responses" (userguide/ErrorCodeBilling.html); its end was not to be had, and what is missing
here counts as billed."""


def is_billed(status: int, code: str | None = None) -> bool:
    """Tell whether a request is billed that got such an answer.

    Successes and the client's errors are, the server's are not. An ``AccessDenied`` (403) is, unless
    it was sent from outside of the bucket's account and organisation, which cannot be seen here.
    """
    return status < 500 and status not in UNBILLED_STATUS and code not in UNBILLED
