"""A PostgreSQL server with an ear: what clients send passes through unchanged, and is kept."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.backends import Server

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


class Recorder(socketserver.ThreadingTCPServer):
    """Passes every connection on to the server."""

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        self.there = (server.host, server.port)
        self.sent: list[bytearray] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def statements(self) -> list[str]:
        """Return the text of every simple query and every parsed statement, connection by connection."""
        return [text for data in list(self.sent) for text in _texts(bytes(data))]


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        recorder = self.server
        assert isinstance(recorder, Recorder)
        said = bytearray()
        recorder.sent.append(said)
        with socket.create_connection(recorder.there) as upstream:
            back = threading.Thread(target=_pump, args=(upstream, self.request, None))
            back.start()
            _pump(self.request, upstream, said)
            back.join()


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            if kept is not None:
                kept += data
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _texts(data: bytes) -> list[str]:
    found: list[str] = []
    at, started = 0, False
    while at + 8 <= len(data) or (started and at + 5 <= len(data)):
        if not started:
            size, code = struct.unpack(">II", data[at : at + 8])
            started = code not in (SSL_REQUEST, GSS_REQUEST)
            at += size
            continue
        kind, size = struct.unpack(">cI", data[at : at + 5])
        body = data[at + 5 : at + 1 + size]
        if kind == b"Q":
            found.append(body.rstrip(b"\0").decode())
        elif kind == b"P":
            found.append(body.split(b"\0")[1].decode())
        at += 1 + size
    return found


@contextlib.contextmanager
def recording(server: Server) -> Generator[Recorder]:
    """Run the ear before `server`, until the block ends."""
    with Recorder(server) as recorder:
        thread = threading.Thread(target=recorder.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield recorder
        finally:
            recorder.shutdown()
            thread.join()
