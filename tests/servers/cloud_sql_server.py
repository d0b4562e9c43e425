"""Cloud SQL for its unmodified connector: the Admin API over HTTP, and the instance's TLS proxy.

The proxy listens at port 3307, which the connector has for granted, of a loopback address of its
own, takes the certificate that the API has just signed, and passes everything on to a real server.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import socketserver
import ssl
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.backends import Server

PROJECT, REGION, INSTANCE = "shop-prod", "europe-west4", "orders"
NAME = f"{PROJECT}:{REGION}:{INSTANCE}"
PORT = 3307
VERSIONS = {"postgresql": "POSTGRES_17", "mysql": "MYSQL_8_4"}


class CloudSQL:
    """An instance before a server, and what its connector has asked for."""

    def __init__(self, server: Server) -> None:
        self.server = server
        pick = random.SystemRandom()
        self.address = f"127.{pick.randint(2, 254)}.{pick.randint(0, 254)}.{pick.randint(2, 254)}"
        self.asked: list[str] = []
        self.endpoint = ""
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Google Cloud SQL Server CA")])
        self._ca = self._signed(name, name, self._key.public_key(), authority=True)

    def _signed(self, subject: Any, issuer: Any, key: Any, *, authority: bool = False) -> Any:
        now = datetime.now(timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    def certificate(self, name: str, key: Any) -> str:
        """Return a certificate for somebody's key, signed by this instance's authority."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return _pem(self._signed(subject, self._ca.subject, key))

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer connectSettings and generateEphemeralCert."""
        self.asked.append(path.rpartition("/")[2])
        if path.endswith(":generateEphemeralCert"):
            key = serialization.load_pem_public_key(body["public_key"].encode())
            return {"ephemeralCert": {"cert": self.certificate("client", key)}}
        return {
            "region": REGION,
            "databaseVersion": VERSIONS[self.server.scheme],
            "ipAddresses": [{"type": "PRIMARY", "ipAddress": self.address}],
            "serverCaCert": {"cert": _pem(self._ca)},
        }

    def context(self, folder: Path) -> ssl.SSLContext:
        """Return what the proxy speaks: TLS with a certificate of the client's."""
        key = ec.generate_private_key(ec.SECP256R1())
        chain, authority = folder / "server.pem", folder / "ca.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        name = f"{PROJECT}:{INSTANCE}"
        chain.write_text(private.decode() + self.certificate(name, key.public_key()))
        authority.write_text(_pem(self._ca))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def _pem(certificate: Any) -> str:
    text: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return text.decode()


@contextlib.contextmanager
def cloud_sql(server: Server) -> Generator[CloudSQL]:
    """Run the API and the proxy before `server`, until the block ends."""
    found = CloudSQL(server)

    class API(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve({})

        def do_POST(self) -> None:
            self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _serve(self, body: dict[str, Any]) -> None:
            text = json.dumps(found.answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
            pass

    with TemporaryDirectory(prefix="cloud-sql-") as folder, contextlib.ExitStack() as stack:
        context = found.context(Path(folder))

        class Proxy(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with (
                    contextlib.suppress(OSError),
                    context.wrap_socket(self.request, server_side=True) as client,
                    socket.create_connection((server.host, server.port)) as upstream,
                ):
                    _both_ways(client, upstream)

        class Listening(socketserver.ThreadingTCPServer):
            daemon_threads = True

        for one in (
            ThreadingHTTPServer(("127.0.0.1", 0), API),
            Listening((found.address, PORT), Proxy),
        ):
            stack.enter_context(one)
            thread = threading.Thread(target=one.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(one.shutdown)
            if isinstance(one, ThreadingHTTPServer):
                found.endpoint = f"http://127.0.0.1:{one.server_port}"
        yield found


def _both_ways(client: ssl.SSLSocket, upstream: socket.socket) -> None:
    """Pass bytes on in one thread: a TLS socket is not for two."""
    client.settimeout(0.005)
    upstream.settimeout(0.005)
    while True:
        for source, sink in ((client, upstream), (upstream, client)):
            try:
                data = source.recv(65536)
            except TimeoutError:
                continue
            if not data:
                return
            sink.settimeout(5)
            sink.sendall(data)
            sink.settimeout(0.005)
