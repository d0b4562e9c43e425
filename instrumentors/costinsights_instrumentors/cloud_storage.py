"""google-cloud-storage: every request to Google Cloud Storage, by the class that it is billed in.

Measured: requests of class A, class B and free ones, by bucket and by the storage class that counts
(the object's own; for lists and what is about a bucket, the bucket's default class), with the bytes
of their bodies, errors and retries, added up for a second at most. A page of a list is one, each
range of a download is one; a resumable upload and a rewrite are one, whichever number of requests
they take, when they are done. Requests of a batch count one by one. An answer of 307, 4xx or 5xx
is not billed. Reading from Nearline, Coldline and Archive costs by the byte as well.

- The region comes from answers about the bucket (``get_bucket``, ``reload``), and so do its default
  class, Autoclass and a hierarchical namespace. ``client.bucket("…")`` asks nothing, so say it once,
  ``[[resource]]`` with ``database`` = the bucket, ``region`` and ``storage_class``.
- Uploads with ``transfer_manager`` in threads and ``upload_chunks_concurrently`` count.

Not seen: signed URLs, which somebody else uses; gRPC, and what is asynchronous above it; clients
whose ``_http`` is not google-auth's session; ``transfer_manager``'s worker processes, unless they
are instrumented; the bytes that a rewrite or copy reads in a colder class, early deletion, and the
replication between regions: the bill has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from costinsights.storage import Hook, StorageCall, StorageInstrumentor
from costinsights_instrumentors._gcs import (
    FIGURES,
    METERS,
    Answers,
    Request,
    header,
    request_of,
    size_of,
)

if TYPE_CHECKING:
    from costinsights.storage import Adder

SESSION = "google.auth.transport.requests:AuthorizedSession.request"
MEDIA = "google.cloud.storage._media.requests.download"
WRITES = tuple(
    Hook(f"{MEDIA}:{name}._write_to_stream", leaf=True, optional=True)
    for name in ("Download", "RawDownload")
)
"""What reads a streamed body to its end, or as far as it comes."""
ATTEMPT = "gccl-invocation-id/"


class CloudStorageInstrumentor(StorageInstrumentor):
    name = "cloud_storage"
    system = "gcp.storage"
    driver = "google.cloud.storage"
    supports = ("3.0", "4")
    hooks = (Hook(SESSION), *WRITES)
    meters = (*METERS.values(), *FIGURES)
    verified = "emulator: fake-gcs-server"

    def __init__(self) -> None:
        super().__init__()
        self._answers = Answers()
        self._bodies: WeakKeyDictionary[Any, Adder] = WeakKeyDictionary()

    def uninstrument(self) -> None:
        """Forget what was learnt of buckets."""
        super().uninstrument()
        self._answers = Answers()
        self._bodies = WeakKeyDictionary()

    def asked(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Tell by the address."""
        if hook.target != SESSION:
            return self._bodies.get(args[1])
        method = args[1] if len(args) > 1 else kwargs.get("method")
        url = args[2] if len(args) > 2 else kwargs.get("url")
        if not isinstance(method, str) or not isinstance(url, str):
            return None
        return request_of(method.upper(), url)

    def counted(
        self,
        asked: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        error: BaseException | None,
    ) -> StorageCall | None:
        """Count an answer; the bytes of a body that is streamed, once they have come."""
        if not isinstance(asked, Request):
            asked.add(received=args[1].raw.tell())
            return None
        said = header(kwargs.get("headers"), "X-Goog-API-Client", "x-goog-api-client")
        mark = said.partition(ATTEMPT)[2].partition(" ")[0] or (asked.method, asked.url)
        again = self._answers.again(mark)
        data = args[3] if len(args) > 3 else kwargs.get("data")
        streamed = bool(kwargs.get("stream"))
        status = 0 if result is None else result.status_code
        body = None if result is None or streamed else result.content
        self._answers.failed(mark, status)
        if asked.called is None:
            return self._answers.batch(asked, data, body or b"", self.adder)
        sent, received = size_of(data), len(body or b"")
        if result is not None:  # an answer may come compressed, and a body be a stream
            sent = int(result.request.headers.get("Content-Length") or sent)
            received = int(result.headers.get("Content-Length") or received) if body else 0
        call = self._answers.call(
            asked,
            status,
            {} if result is None else result.headers,
            body,
            sent=sent,
            received=received,
            retried=again,
        )
        if streamed and result is not None:
            adder = self.adder(call.kind)
            if adder is not None:
                self._bodies[result] = adder
        return call
