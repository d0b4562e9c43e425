"""aiobotocore, below s3fs: operations on Amazon S3.

Measured: what `botocore` measures of S3: requests as they are billed, retries by their answers,
bytes in and out (a streamed body as it is read), time in the client; not a charge a call, but at most
one a second for each bucket, class of requests, storage class, and who they are for. See
docs/storage.md.

Not seen: other services than S3, bodies that are read past their ``read`` (by ``raw_stream``), and
presigned URLs, which somebody else sends.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from costinsights.storage import Hook, StorageInstrumentor
from costinsights_instrumentors import _botocore_s3 as s3

if TYPE_CHECKING:
    from costinsights.storage import StorageCall

under: ContextVar[s3.Operation | None] = ContextVar("costinsights_aiobotocore", default=None)
"""The call that is under way here."""
CALL = Hook("aiobotocore.client:AioBaseClient._make_api_call", kind="async")


class AiobotocoreInstrumentor(StorageInstrumentor):
    name = "aiobotocore"
    system = s3.SYSTEM
    driver = "aiobotocore"
    supports = ("3.10", "4")
    hooks = (
        CALL,
        # What botocore tells of each try, to whoever keeps a history: nothing here need be awaited.
        Hook("botocore.history:HistoryRecorder.record", kind="connect"),
        *(
            Hook(f"aiobotocore.response:{body}.read", kind="async", optional=True)
            for body in ("AioStreamingBody", "AioHttpxStreamingBody")
        ),
    )
    meters = (*s3.METERS.values(), "sent_bytes", "received_bytes")
    verified = "emulator: moto 5"
    under = under

    def __init__(self) -> None:
        super().__init__()
        self.s3 = s3.S3(self.streams)

    def asked(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Tell an operation, or that a body is read."""
        return self.s3.asked(hook, args, kwargs) if hook is CALL else hook

    def counted(
        self,
        asked: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        error: BaseException | None,
    ) -> StorageCall | None:
        """Count an operation, or what was read."""
        if isinstance(asked, s3.Operation):
            return self.s3.counted(asked, args, kwargs, result, error)
        if error is None:
            self.s3.read(args, result)
        return None

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Take note of what botocore tells its history."""
        operation = under.get()
        if operation is not None:
            s3.noted(operation, args[1], args[2])
