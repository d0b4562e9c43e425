"""What a cloud's machines ask for who they are: Azure's managed identity, and Google's metadata.

Emulator: clients with default credentials get a token from it as they do in the cloud, over HTTP.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Generator

ACCOUNT = "robot@shop.iam.gserviceaccount.com"


@contextmanager
def identity_server(token: str) -> Generator[dict[str, str]]:
    """Run it for the length of the block; gives the variables that lead clients to it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.endswith("/universe-domain"):
                self._say(404, "text/plain", b"")
            elif path.endswith("/project-id"):
                self._say(200, "text/plain", b"shop")
            elif path.endswith("/token") or path == "/msi":
                later = int(time.time()) + 3600
                found = {
                    "access_token": token,
                    "expires_in": 3600,
                    "expires_on": str(later),
                    "resource": "https://management.azure.com/",
                    "token_type": "Bearer",
                }
                self._say(200, "application/json", json.dumps(found).encode())
            elif "/service-accounts/" in path:
                found = {"email": ACCOUNT, "scopes": ["cloud-platform"], "aliases": ["default"]}
                self._say(200, "application/json", json.dumps(found).encode())
            else:  # is anybody there?
                self._say(200, "text/plain", b"")

        def _say(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.server_port}"
        try:
            yield {
                "IDENTITY_ENDPOINT": f"http://{address}/msi",
                "IDENTITY_HEADER": "x",
                "GCE_METADATA_HOST": address,
                "GCE_METADATA_IP": address,
            }
        finally:
            server.shutdown()
            thread.join()
