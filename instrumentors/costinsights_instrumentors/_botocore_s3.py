"""Amazon S3's part of botocore and aiobotocore: what each request is billed as.

How often a call was tried, and what it sent and got, is read from what botocore tells its own history
(`HistoryRecorder.record`): the same in both libraries, and whether anybody keeps a history or not. A
body that is streamed counts as it is read. What s3transfer does in threads of its own is for whoever
has called it.
"""

from __future__ import annotations

from collections import OrderedDict
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast
from weakref import ref

from costinsights import orchestrators
from costinsights.attribution import active_scope, root, within
from costinsights.guard import SUPPRESSED, busy
from costinsights.instrumentor import address_of
from costinsights.storage import Hook, Kind, StorageCall, Streams
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
    from collections.abc import Callable, Mapping
    from contextvars import Token

    from costinsights.attribution import Scope
    from costinsights.storage import Adder

__all__ = ["HISTORY", "HOOKS", "METERS", "S3", "SYSTEM", "TASK", "Operation", "Tasks", "under"]

HISTORY = Hook("botocore.history:HistoryRecorder.record", kind="connect")
TASK = Hook("s3transfer.tasks:Task.__call__", leaf=True, optional=True)
HOOKS = (
    HISTORY,
    Hook("botocore.response:StreamingBody.read", kind="connect"),
    Hook("botocore.response:StreamingBody.readinto", kind="connect", optional=True),
    Hook("s3transfer.tasks:Task.__init__", kind="connect", optional=True),
    TASK,
)
MOST_UPLOADS = MOST_KINDS = MOST_BUCKETS = 4096
EXPRESS = "--x-s3"
"""How the name of a directory bucket ends."""
UNKNOWN_CLASS = "the storage class of what it is about is not known"

# Of requests about an object: who says which storage class it has.
_IN_REQUEST = frozenset(("PutObject", "CopyObject", "CreateMultipartUpload"))
_IN_ANSWER = frozenset(("GetObject", "HeadObject", "GetObjectAttributes"))
_OF_UPLOAD = frozenset(
    ("UploadPart", "UploadPartCopy", "CompleteMultipartUpload", "AbortMultipartUpload")
)


class Operation:
    """A call under way, and what its tries have come to."""

    __slots__ = ("billed", "client", "name", "params", "received", "seen", "sent", "tries")

    def __init__(self, client: Any, name: str, params: Mapping[str, Any]) -> None:
        self.client = client
        self.name = name
        self.params = params
        self.tries = self.billed = self.sent = self.received = 0
        self.seen: object = None

    def requested(self, payload: Mapping[str, Any]) -> None:
        """A try is about to be sent."""
        headers = payload["headers"]
        length = headers.get("X-Amz-Decoded-Content-Length") or headers.get("Content-Length")
        self.tries += 1
        self.sent = int(length) if length else 0
        self.received = 0

    def answered(self, payload: Mapping[str, Any]) -> None:
        """A try got an answer. One that got none may not have reached S3: it counts as not billed."""
        body = payload.get("body")
        self.billed += is_billed(payload["status_code"])
        self.received = len(body) if isinstance(body, bytes) else 0


under: ContextVar[Operation | None] = ContextVar("costinsights_s3", default=None)
"""The call that is under way here."""


class S3:
    """Tells what calls of S3's clients are. One an instrumentor."""

    def __init__(self, adder: Callable[[Kind], Adder | None]) -> None:
        self.streams = Streams()
        self._adder = adder
        self._kinds: dict[tuple[Any, ...], Kind] = {}
        self._uploads: OrderedDict[str, str] = OrderedDict()
        self._regions: dict[tuple[str, str], str] = {}

    def asked(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation | None:
        """Return the operation, where it is one of S3's."""
        if len(args) != 3 or args[0].meta.service_model.service_name != "s3":
            return None
        client, name, params = args
        return Operation(client, name, params)

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
        said: Any = result if error is None else getattr(error, "response", None)
        answer = cast("Mapping[str, Any]", said if isinstance(said, dict) else {})
        kind = self._kind(asked, answer, failed=error is not None)
        billed = asked.billed
        if error is not None and billed:
            status = _of(answer, "ResponseMetadata").get("HTTPStatusCode", 0)
            code = _of(answer, "Error").get("Code")
            billed -= is_billed(status) and not is_billed(status, code)
        elif (body := answer.get("Body")) is not None:
            raw = getattr(body, "_raw_stream", None)
            tell = None if hasattr(body, "__aiter__") else getattr(raw, "tell", None)
            self.streams.follow(body, self._adder(kind), tell)
        return StorageCall(
            kind, billed, asked.sent, asked.received, asked.tries - 1, error is not None
        )

    def noted(self, event: str, payload: Any) -> None:
        """Take note of what botocore tells its history. Two hooks may tell of the same."""
        operation = under.get()
        if operation is None or payload is operation.seen:
            return
        if event == "HTTP_REQUEST":
            operation.seen = payload
            operation.requested(payload)
        elif event == "HTTP_RESPONSE":
            operation.seen = payload
            operation.answered(payload)

    def read(self, body: object, count: int) -> None:
        """Add bytes that were read of a body."""
        self.streams.read(body, count)

    # -- what a request is billed as --------------------------------------------------------------

    def _kind(self, asked: Operation, answer: Mapping[str, Any], *, failed: bool) -> Kind:
        name, params, meta = asked.name, asked.params, asked.client.meta
        bucket: str | None = params.get("Bucket")
        headers = _of(_of(answer, "ResponseMetadata"), "HTTPHeaders")
        region = self._region(meta, bucket, headers.get("x-amz-bucket-region"))
        storage_class = self._storage_class(name, params, answer, failed=failed)
        retrieval = ""
        if name == "RestoreObject":
            job = _of(_of(params, "RestoreRequest"), "GlacierJobParameters")
            retrieval = RETRIEVALS.get(job.get("Tier", "Standard"), "")
        key = (name, bucket, region, storage_class, retrieval, meta.endpoint_url)
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= MOST_KINDS:
                self._kinds.clear()
            found = self._kinds[key] = _kind_of(*key)
        return found

    def _region(self, meta: Any, bucket: str | None, told: str | None) -> str | None:
        """Return where a bucket is; an answer that tells is believed before the client."""
        key = (meta.endpoint_url, bucket or "")
        if told is not None:
            if len(self._regions) >= MOST_BUCKETS:
                self._regions.clear()
            self._regions[key] = told
            return told
        known = self._regions.get(key) or meta.region_name
        return None if known == "aws-global" else known

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
        if name in _OF_UPLOAD:
            return self._uploads.get(params.get("UploadId") or "")
        if name in _IN_ANSWER:  # which has it of every class but the standard one
            return answer.get("StorageClass") or STANDARD
        if failed or name.startswith("List") or "Bucket" in name or "Object" not in name:
            return STANDARD
        return None


def _of(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a part of an answer; empty where it is not there."""
    return answer.get(name) or {}


def _kind_of(
    name: str,
    bucket: str | None,
    region: str | None,
    storage_class: str | None,
    retrieval: str,
    endpoint: str,
) -> Kind:
    billed = request_class(name)
    address, port = address_of(endpoint)
    words: dict[str, str] = {}
    if storage_class is not None:
        words["storage_class"] = billed_storage_class(name, storage_class)
    if retrieval:
        words["retrieval"] = retrieval
    return Kind(
        SYSTEM,
        METERS[billed],
        billed.upper(),
        bucket,
        region,
        address,
        port,
        () if billed == "free" else tuple(words.items()),
        "retrieved_bytes" if name == "GetObject" and storage_class in RETRIEVED else "",
        UNKNOWN_CLASS if storage_class is None and billed != "free" else "",
    )


# -- s3transfer -----------------------------------------------------------------------------------


class Tasks:
    """What s3transfer does in its threads, and for whom: tasks are made where they are asked for."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[ref[Any], Scope, orchestrators.Context | None, bool]] = {}

    def made(self, task: object) -> None:
        """Remember for whom a task is made."""
        scope, context = active_scope(), orchestrators.present()
        silent = busy.get() is SUPPRESSED
        if scope is root and context is None and not silent:
            return
        key = id(task)
        gone = ref(task, lambda _: self._made.pop(key, None))
        self._made[key] = gone, scope, context, silent

    def enter(self, task: object, recorder: Any) -> Entered | None:
        """Be who a task was made for, until it is done."""
        known = self._made.get(id(task))
        if known is None or known[0]() is not task:
            return None
        return Entered(recorder, *known[1:])


class Entered:
    """One task at work."""

    __slots__ = ("_busy", "_context", "_scope", "recorder")

    def __init__(
        self,
        recorder: Any,
        scope: Scope,
        context: orchestrators.Context | None,
        silent: bool,
    ) -> None:
        self.recorder = recorder
        self._scope = within(scope)
        self._scope.__enter__()
        self._context = orchestrators.carried.set(context)
        self._busy: Token[str | None] | None = busy.set(SUPPRESSED) if silent else None

    def leave(self) -> None:
        """Be nobody again."""
        self._scope.__exit__()
        orchestrators.carried.reset(self._context)
        if self._busy is not None:
            busy.reset(self._busy)
