"""gcsfs, also below pandas, dask and fsspec: every request to Google Cloud Storage, by its class.

Measured: as with google-cloud-storage: requests of class A, class B and free ones, by bucket and
storage class, bytes, errors and retries, added up for a second at most. gcsfs makes its requests
with aiohttp, and each is seen there: a page of a list, a range of a file, a part of an upload.

- What nobody says has to be said once, in a ``[[resource]]``: see google-cloud-storage's.

Not seen: what gcsfs does over gRPC (zonal buckets, the layout of buckets, which is free), signed
URLs, retrieval by rewrites and copies, early deletion and replication: the bill has them.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import ref

from msgspec.structs import replace

from costinsights.storage import Hook, StorageCall, StorageInstrumentor
from costinsights_instrumentors._gcs import (
    FIGURES,
    METERS,
    TAKEN,
    Answers,
    Request,
    header,
    request_of,
)

REQUEST = "aiohttp.client:ClientSession._request"
READ = "aiohttp.client_reqrep:ClientResponse.read"


class Answered(NamedTuple):
    """A request whose answer has begun to come: its body says more."""

    request: Request
    data: Any
    sent: int
    retried: bool
    answer: ref[Any]


class GCSFSInstrumentor(StorageInstrumentor):
    name = "gcsfs"
    system = "gcp.storage"
    driver = "gcsfs"
    supports = ("2024.2", "2028")
    hooks = (Hook(REQUEST, "async"), Hook(READ, "async"))
    meters = (*METERS.values(), *FIGURES)
    verified = "emulator: fake-gcs-server"

    def __init__(self) -> None:
        super().__init__()
        self._answers = Answers()
        self._waiting: dict[int, Answered] = {}

    def uninstrument(self) -> None:
        """Forget what was learnt of buckets."""
        super().uninstrument()
        self._answers = Answers()
        self._waiting = {}

    def asked(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Tell by the address."""
        if hook.target == READ:
            known = self._waiting.get(id(args[0])) if self._waiting else None
            return known if known is not None and known.answer() is args[0] else None
        return request_of(str(args[1]).upper(), str(args[2]), kwargs.get("params"))

    def counted(
        self,
        asked: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        error: BaseException | None,
    ) -> StorageCall | None:
        """Count an answer when it has been read, or at once where nothing more is to be learnt."""
        if isinstance(asked, Answered):
            self._waiting.pop(id(args[0]), None)
            return self._read(asked, args[0], result)
        mark = asked.method, asked.url, header(kwargs.get("headers"), "Range")
        again = self._answers.again(mark)
        if result is None and asked.called is None:
            return None  # a batch that has had no answer
        if result is None:
            given_up = type(error).__name__ == "CancelledError"
            status = TAKEN if given_up else 0
            self._answers.failed(mark, status)
            call = self._answers.call(asked, status, {}, None, sent=0, received=0, retried=again)
            return replace(call, failed=True)
        self._answers.failed(mark, result.status)
        sent = int(result.request_info.headers.get("Content-Length") or 0)
        if asked.called is None or not asked.called.media:
            self._wait(asked, kwargs.get("data"), sent, again, result)
            return None
        received = int(result.headers.get("Content-Length") or 0)
        return self._answers.call(
            asked, result.status, result.headers, None, sent=sent, received=received, retried=again
        )

    def _wait(self, asked: Request, data: Any, sent: int, retried: bool, answer: Any) -> None:
        """Count an answer when it is read; one that nobody reads, when it is gone."""
        key = id(answer)
        call = adder = None
        if asked.called is not None:
            call = self._answers.call(
                asked, answer.status, answer.headers, None, sent=sent, received=0
            )
            adder = self.adder(call.kind)

        def gone(_: object) -> None:
            if self._waiting.pop(key, None) is not None and call is not None and adder is not None:
                adder.add(requests=call.requests, sent=sent, errors=int(call.failed))

        self._waiting[key] = Answered(asked, data, sent, retried, ref(answer, gone))

    def _read(self, asked: Answered, answer: Any, body: bytes | None) -> StorageCall | None:
        if asked.request.called is None:
            return self._answers.batch(asked.request, asked.data, body or b"", self.adder)
        received = int(answer.headers.get("Content-Length") or len(body or b""))
        return self._answers.call(
            asked.request,
            answer.status,
            answer.headers,
            body,
            sent=asked.sent,
            received=0 if body is None else received,
            retried=asked.retried,
        )
