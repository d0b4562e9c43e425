"""A proxy that clients reach an HTTPS address through, and that leads to a server of ours instead.

For clients that know their service by its real name only: they get ``HTTPS_PROXY``, and an authority
that vouches for the name. What they say within the tunnel goes to a plain HTTP server.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@contextmanager
def https_tunnel(
    folder: Path, port: int, *names: str, prefix: str = ""
) -> Generator[dict[str, str]]:
    """Lead `names` to the HTTP server at `port`, below `prefix`; gives the variables for clients."""
    chain = _certificate(folder, names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_CONNECT(self) -> None:
            if self.path.partition(":")[0] not in names:
                self.send_error(502)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            self.request = context.wrap_socket(self.request, server_side=True)
            self.setup()
            self.close_connection = False  # though it was asked for as HTTP/1.0

        def finish(self) -> None:
            super().finish()
            self.request.close()  # the server knows of the plain one only

        def passed(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            upstream.request(self.command, prefix + self.path, body, dict(self.headers.items()))
            answer = upstream.getresponse()
            content = answer.read()
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in _NOT_PASSED_ON:
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()
            upstream.close()

        do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = passed  # noqa: N815  the base's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield {
                "HTTPS_PROXY": f"http://127.0.0.1:{server.server_port}",
                "REQUESTS_CA_BUNDLE": str(chain),
                "SSL_CERT_FILE": str(chain),
            }
        finally:
            server.shutdown()
            thread.join()


def _certificate(folder: Path, names: tuple[str, ...]) -> Path:
    """Write a key and a certificate that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "costinsights' tests")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    chain = folder / "tunnel.pem"
    pem = serialization.Encoding.PEM
    form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    chain.write_bytes(key.private_bytes(pem, form, secret) + certificate.public_bytes(pem))
    return chain
