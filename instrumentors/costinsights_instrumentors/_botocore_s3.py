"""Amazon S3's part of botocore and aiobotocore: what each request is billed as.

Each try of a request is looked at, because not every one is billed. A body that is streamed counts as
it is read. What s3transfer does in threads of its own is for whoever has called it.
"""

from __future__ import annotations

from collections import OrderedDict
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import msgspec

from costinsights.instrumentor import Remembered, address_of, remember
from costinsights.storage import Hook, Kind, StorageCall
from costinsights.systems.aws_s3 import (
    METERS,
    RETRIEVALS,
    RETRIEVED,
    STANDARD,
    SYSTEM,
    billed_storage_class,
    is_billed,
    request_class,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.storage import Streams

__all__ = [
    "HOOKS",
    "METERS",
    "READS",
    "S3",
    "SYSTEM",
    "TASK",
    "TRY",
    "Operation",
    "noted",
    "tried",
    "under",
]

TRY = Hook("botocore.endpoint:Endpoint._get_response", leaf=True)
READ = Hook("botocore.response:StreamingBody.read", leaf=True)
READ_INTO = Hook("botocore.response:StreamingBody.readinto", leaf=True, optional=True)
TASK = Hook("s3transfer.tasks:Task.__call__", leaf=True, optional=True)
HOOKS = (
    TRY,
    READ,
    READ_INTO,
    Hook("s3transfer.tasks:Task.__init__", kind="connect", optional=True),
    TASK,
)
READS = (READ, READ_INTO)
MOST_UPLOADS = MOST_KINDS = MOST_BUCKETS = 4096
CLIENT = "S3"
"""What botocore calls the class of its clients of this service, and of no other."""
OK = 200
EXPRESS = "--x-s3"
"""How the name of a directory bucket ends."""
UNKNOWN_CLASS = "the storage class of what it is about is not known"

# Of requests about an object: who says which storage class it has.
_IN_REQUEST = frozenset(("PutObject", "CopyObject", "CreateMultipartUpload"))
_IN_ANSWER = frozenset(("GetObject", "HeadObject", "GetObjectAttributes"))
_OF_UPLOAD = frozenset(
    ("UploadPart", "UploadPartCopy", "CompleteMultipartUpload", "AbortMultipartUpload")
)


class Operation(msgspec.Struct):
    """A call under way, and what its tries have come to."""

    client: Any
    name: str
    params: Mapping[str, Any]
    tries: int = 0
    billed: int = 0
    sent: int = 0
    received: int = 0

    def requested(self, body: Any, headers: Mapping[str, Any]) -> None:
        """A try is sent. One that gets no answer may not have reached S3: it counts as not billed."""
        self.tries += 1
        self.received = 0
        if not body:
            self.sent = 0
        elif body.__class__ is bytes:
            self.sent = len(body)
        else:
            length = headers.get("X-Amz-Decoded-Content-Length") or headers.get("Content-Length")
            self.sent = int(length) if length else 0

    def answered(self, status: int, body: Any) -> None:
        """It got an answer; what is streamed is no `body` yet."""
        self.billed += status == OK or is_billed(status)
        if body.__class__ is bytes:
            self.received = len(body)


under: ContextVar[Operation | None] = ContextVar("costinsights_s3", default=None)
"""The call that is under way here."""


def tried(operation: Operation, args: tuple[Any, ...], result: Any) -> None:
    """Look at a try of botocore's: its request, and what came of it or the error."""
    request, (answered, _) = args[1], result
    operation.requested(request.body, request.headers)
    if answered is not None:
        http = answered[0]
        operation.answered(http.status_code, http._content)


def noted(operation: Operation, event: str, payload: Mapping[str, Any]) -> None:
    """Look at what botocore tells its history, as aiobotocore does."""
    if event == "HTTP_REQUEST":
        operation.requested(payload["body"], payload["headers"])
    elif event == "HTTP_RESPONSE":
        operation.answered(payload["status_code"], payload.get("body"))


class Place:
    """Where a client sends its requests, and the kinds of those that it has sent."""

    __slots__ = ("address", "kinds", "port", "region", "regions")

    def __init__(self, meta: Any) -> None:
        self.address, self.port = address_of(meta.endpoint_url)
        self.region: str | None = None if meta.region_name == "aws-global" else meta.region_name
        self.kinds: dict[tuple[str, str | None, str | None], Kind] = {}
        self.regions: dict[str | None, str] = {}
        """Of buckets that turned out to be elsewhere."""


class S3:
    """Tells what calls of S3's clients are. One an instrumentor."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self._places: Remembered[Place] = {}
        self._uploads: OrderedDict[str, str] = OrderedDict()

    def asked(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation | None:
        """Return the operation, where it is one of S3's."""
        if len(args) == 3 and args[0].__class__.__name__ == CLIENT:
            client, name, params = args
            return Operation(client, name, params)
        return None

    def counted(
        self,
        asked: Operation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        error: BaseException | None,
    ) -> StorageCall | None:
        """Return what the call turned out to be; None of one that was refused before it was sent."""
        if not asked.tries:
            return None
        answer: Mapping[str, Any] = result
        billed = asked.billed
        if error is not None:
            said: Any = getattr(error, "response", None)
            answer = cast("Mapping[str, Any]", said if isinstance(said, dict) else {})
            status = _of(answer, "ResponseMetadata").get("HTTPStatusCode", 0)
            if billed and is_billed(status):
                billed -= not is_billed(status, _of(answer, "Error").get("Code"))
        kind = self._kind(asked, answer, failed=error is not None)
        body = tell = None
        if error is None and "Body" in answer:
            body = answer["Body"]
            raw = getattr(body, "_raw_stream", None)
            tell = None if hasattr(body, "__aiter__") else getattr(raw, "tell", None)
        return StorageCall(
            kind, billed, asked.sent, asked.received, asked.tries - 1, error is not None, body, tell
        )

    def read(self, args: tuple[Any, ...], result: Any) -> None:
        """Add what was just read of a body: bytes, or how many there were."""
        self.streams.read(args[0], result if result.__class__ is int else len(result))

    # -- what a request is billed as --------------------------------------------------------------

    def _kind(self, asked: Operation, answer: Mapping[str, Any], *, failed: bool) -> Kind:
        client, name, params = asked.client, asked.name, asked.params
        known = self._places.get(id(client))
        place = known[1] if known is not None and known[0]() is client else self._place(client)
        bucket: str | None = params.get("Bucket")
        if failed or name == "HeadBucket":
            headers = _of(_of(answer, "ResponseMetadata"), "HTTPHeaders")
            self._locate(place, bucket, headers.get("x-amz-bucket-region"))
        says = self._storage_class(name, params, answer, failed=failed)
        if name == "RestoreObject":
            job = _of(_of(params, "RestoreRequest"), "GlacierJobParameters")
            says = RETRIEVALS.get(job.get("Tier", "Standard"))
        found = place.kinds.get((name, bucket, says))
        if found is None:
            if len(place.kinds) >= MOST_KINDS:
                place.kinds.clear()
            found = place.kinds[name, bucket, says] = _kind_of(place, name, bucket, says)
        return found

    def _place(self, client: Any) -> Place:
        return remember(self._places, client, Place(client.meta))

    def _locate(self, place: Place, bucket: str | None, region: str | None) -> None:
        """Note where a bucket is, where an answer tells; it is believed before the client."""
        if region is None or place.regions.get(bucket, place.region) == region:
            return
        if len(place.regions) >= MOST_BUCKETS:
            place.regions.clear()
        place.regions[bucket] = region
        place.kinds = {key: kind for key, kind in place.kinds.items() if key[1] != bucket}

    def _storage_class(
        self, name: str, params: Mapping[str, Any], answer: Mapping[str, Any], *, failed: bool
    ) -> str | None:
        """Return the storage class of what a request is about; None where it cannot be known."""
        bucket: str = params.get("Bucket") or ""
        if bucket.endswith(EXPRESS):
            return "EXPRESS_ONEZONE"
        if name in _IN_REQUEST:
            found: str = params.get("StorageClass") or STANDARD
            if name == "CreateMultipartUpload" and "UploadId" in answer:
                self._uploads[answer["UploadId"]] = found
                if len(self._uploads) > MOST_UPLOADS:
                    self._uploads.popitem(last=False)
            return found
        if name in _IN_ANSWER:  # which has it of every class but the standard one
            return answer.get("StorageClass") or STANDARD
        if name in _OF_UPLOAD:
            return self._uploads.get(params.get("UploadId") or "")
        if failed or name.startswith("List") or "Bucket" in name or "Object" not in name:
            return STANDARD
        return None


def _of(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of an answer; empty where it is not there."""
    return answer.get(name) or {}


def _kind_of(place: Place, name: str, bucket: str | None, says: str | None) -> Kind:
    """Return the kind of requests; `says` is the storage class, or how something is restored."""
    billed = request_class(name)
    words: tuple[tuple[str, str], ...] = ()
    unpriced = retrieval = ""
    if billed == "restore":
        words = (("retrieval", says),) if says else ()
    elif billed != "free":
        if says is None:
            unpriced = UNKNOWN_CLASS
        else:
            words = (("storage_class", billed_storage_class(name, says)),)
        if name == "GetObject" and says in RETRIEVED:
            retrieval = "retrieved_bytes"
    return Kind(
        SYSTEM,
        METERS[billed],
        billed.upper(),
        bucket,
        place.regions.get(bucket, place.region),
        place.address,
        place.port,
        words,
        retrieval,
        unpriced,
    )


# -- s3transfer -----------------------------------------------------------------------------------
