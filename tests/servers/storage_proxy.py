"""A proxy before a server of object storage: what went over the wire, and faults on the way.

Each request is kept with its answer's status and both lengths, so that a test can hold what was
counted against what the server has seen. The next requests may be answered with an error, or hung
up on before or in the middle of the answer.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

Answer: TypeAlias = "tuple[int, list[tuple[str, str]], bytes]"
"""Status, headers, body."""
Forward: TypeAlias = "Callable[[str, str, list[tuple[str, str]], bytes], Answer]"
"""Asks the server: by method, address, headers and body."""
_NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Seen(NamedTuple):
    """A request, and what became of it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """With names in lower case."""
    body: bytes
    status: int
    answered: int
    """Bytes of the answer's body."""


class Fault(NamedTuple):
    """An answer in the server's stead."""

    status: int = 503
    """0 hangs up without a word."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    passed: bool = False
    """The server gets the request all the same, and its answer is cut off in the middle."""


@dataclass
class Proxy:
    """What a test sees and says."""

    url: str = ""
    port: int = 0
    seen: list[Seen] = field(default_factory=list[Seen])
    edit: Callable[[Seen, list[tuple[str, str]]], list[tuple[str, str]]] | None = None
    """Changes the headers of an answer: for what the server leaves out and the cloud does not."""
    slow: float = 0
    """Seconds that the next answer takes, once its request has been seen."""
    instead: Callable[[str, Mapping[str, str], bytes, Forward], Answer | None] | None = None
    """Answers a POST in the server's stead, by its path, headers and body: for what the server does
    badly. It may ask the server itself."""
    _faults: list[tuple[str, str, deque[Fault]]] = field(
        default_factory=list["tuple[str, str, deque[Fault]]"]
    )

    def fail(self, method: str, part: str, *faults: Fault) -> None:
        """Have the next requests of a method, with this in their address, meet these, one each."""
        self._faults.append((method, part, deque(faults)))

    def fault(self, method: str, address: str) -> Fault | None:
        for wanted, part, waiting in self._faults:
            if wanted == method and part in address and waiting:
                return waiting.popleft()
        return None

    def arrived(self) -> None:
        """Wait until a request has been seen."""
        deadline = time.monotonic() + 20
        while not self.seen:
            assert time.monotonic() < deadline, "no request came"
            time.sleep(0.005)

    def clear(self) -> None:
        """Forget what was seen, and what was to fail."""
        self.seen.clear()
        self._faults.clear()


@contextmanager
def storage_proxy(port: int) -> Generator[Proxy]:
    """Run a proxy before the server on the loopback `port`."""
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer's head and body leave in one piece
        disable_nagle_algorithm = True

        def passed(self) -> None:
            body = self._body()
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            fault = proxy.fault(self.command, self.path)
            status, answered, sent = 0, b"", list[tuple[str, str]]()
            if fault is None or fault.passed:
                status, sent, answered = self._answered(parts.path, headers, body)
            else:
                status, sent, answered = fault.status, list(fault.headers), fault.body
            seen = Seen(
                self.command,
                parts.path,
                dict(parse_qsl(parts.query, keep_blank_values=True)),
                headers,
                body,
                status,
                0 if self.command == "HEAD" else len(answered),
            )
            proxy.seen.append(seen)
            slow, proxy.slow = proxy.slow, 0
            if slow:
                time.sleep(slow)
            if proxy.edit is not None:
                sent = proxy.edit(seen, sent)
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            length = next((value for name, value in sent if name.lower() == "content-length"), None)
            for name, value in sent:
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            if self.command == "HEAD" and length is not None:
                self.send_header("Content-Length", length)
            elif self.command != "HEAD" and status not in (204, 304):
                self.send_header("Content-Length", str(len(answered)))
            self.end_headers()
            if self.command != "HEAD":
                cut = fault is not None and fault.passed
                self.wfile.write(answered[: len(answered) // 2] if cut else answered)
                if cut:
                    self.close_connection = True
            self.wfile.flush()

        def _answered(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
            if proxy.instead is not None and self.command == "POST":
                found = proxy.instead(path, headers, body, self._forwarded)
                if found is not None:
                    return found
            return self._forwarded(self.command, self.path, self.headers.items(), body)

        def _forwarded(
            self, method: str, address: str, headers: list[tuple[str, str]], body: bytes
        ) -> Answer:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                connection.putrequest(method, address, skip_host=True, skip_accept_encoding=True)
                for name, value in headers:
                    if name.lower() not in _NOT_PASSED_ON:
                        connection.putheader(name, value)
                connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        def _body(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return b""
            chunks: list[bytes] = []
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
            """Say nothing."""

    for method in ("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.passed)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    proxy.port = server.server_address[1]
    proxy.url = f"http://127.0.0.1:{proxy.port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
