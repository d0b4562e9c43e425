"""A small S3 for unmodified boto3: lists in pages, objects with entity tags, and faults on request.

moto's S3 does everything right; what a puller has to live through is what goes wrong.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Generator


class Trouble(NamedTuple):
    """An answer in place of the right one: status 0 resets the connection, ``cut`` breaks it off."""

    status: int
    code: str
    after: str | None = None


class S3Pages:
    """What is stored, and what goes wrong."""

    def __init__(self, page: int) -> None:
        self.page = page
        self.url = ""
        self.objects: dict[str, bytes] = {}
        self.troubles: dict[str, list[Trouble | None]] = {}
        """What the next requests get, by ``list`` and ``get``; None is the right answer."""
        self.tokens: list[str] = []
        """The tokens of the next pages, in place of the right ones."""
        self.empty_first = False
        """The first page has nothing but a token."""
        self.changing = ""
        """The key of an object that becomes another one when it was listed."""
        self.methods: list[str] = []
        self.seen: list[str] = []
        self.lock = threading.Lock()

    def operations(self) -> dict[str, int]:
        """How many requests of each kind there were."""
        return dict(Counter(self.seen))

    def listed(self, prefix: str, token: str) -> str:
        """Return a page of the list, as XML."""
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        first = int(token) if token.isdigit() else 0
        last = first + self.page
        if self.empty_first and not token:
            last = first
        following = str(last) if last < len(keys) else ""
        truncated = bool(following)
        if self.tokens:
            following, truncated = self.tokens.pop(0), True
        contents = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(self.objects[key])}</Size>"
            f"<ETag>{etag(self.objects[key])}</ETag></Contents>"
            for key in keys[first:last]
        )
        if self.changing and not following:
            self.objects[self.changing] = self.objects[self.changing].replace(b"\n3,", b"\n4.5,")
            self.changing = ""
        after = f"<NextContinuationToken>{following}</NextContinuationToken>" if following else ""
        return (
            '<?xml version="1.0"?><ListBucketResult>'
            f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{after}{contents}"
            "</ListBucketResult>"
        )


def etag(data: bytes) -> str:
    """Return what S3 calls contents by."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


@contextmanager
def s3_pages(page: int = 1000) -> Generator[S3Pages]:
    """Serve an empty S3 on a port of its own, until the block ends."""
    store = S3Pages(page)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002  the base's word
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            _, _, key = parts.path.lstrip("/").partition("/")
            kind = "get" if key else "list"
            with store.lock:
                store.seen.append(kind)
                waiting = store.troubles.get(kind)
                trouble = waiting.pop(0) if waiting else None
                if kind == "list":
                    body = store.listed(
                        query.get("prefix", ""), query.get("continuation-token", "")
                    ).encode()
                else:
                    body = store.objects[key]
            if trouble is not None:
                self._fail(trouble, body)
            elif key and self.headers.get("If-Match") not in (None, etag(body)):
                self._fail(Trouble(412, "PreconditionFailed"), body)
            else:
                self._send(200, body, {"ETag": etag(body)} if key else {})

        def _fail(self, trouble: Trouble, body: bytes) -> None:
            if not trouble.status:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()
            elif trouble.code == "cut":
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                text = f"<Error><Code>{trouble.code}</Code><Message>no</Message></Error>"
                more = {} if trouble.after is None else {"Retry-After": trouble.after}
                self._send(trouble.status, text.encode(), more)

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def parse_request(self) -> bool:
            found = super().parse_request()
            if found:
                store.methods.append(self.command)
            return found

        def handle(self) -> None:
            with suppress(OSError, ValueError):  # of a connection that we have closed ourselves
                super().handle()

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="s3-pages", daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
