"""A proxy in front of a coordinator: what a client sends, request by request."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.servers.trino_server import Coordinator

# What belongs to one connection of the proxy's, and not to what is passed on.
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Request(NamedTuple):
    """What came of a client."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on to the coordinator, and the pages' own addresses back through itself."""

    daemon_threads = True

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.requests: list[Request] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def port(self) -> int:
        return self.server_address[1]

    def posts(self) -> list[Request]:
        """Return the statements that came."""
        return [request for request in self.requests if request.method == "POST"]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body go together, or the client's kernel waits for 40 ms

    def _pass_on(self) -> None:
        proxy = self.server
        assert isinstance(proxy, Proxy)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = dict(self.headers.items())
        proxy.requests.append(Request(self.command, self.path, headers, body))
        there = proxy.coordinator
        upstream = http.client.HTTPConnection(there.host, there.port, timeout=60)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in HOP}
            kept["Accept-Encoding"] = "identity"
            upstream.request(self.command, self.path, body or None, kept)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        content = content.replace(
            f"http://{there.host}:{there.port}/".encode(),
            f"http://127.0.0.1:{proxy.port}/".encode(),
        )
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815  the base's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        pass


@contextlib.contextmanager
def recording(coordinator: Coordinator) -> Generator[Proxy]:
    """Put a proxy in front of a coordinator."""
    with Proxy(coordinator) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.1,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


def path_of(url: str) -> str:
    """Return a page's path without the query's id and what is random in it."""
    return "/".join(urlsplit(url).path.split("/")[:4])
