"""Azure Data Lake Storage over HTTP for unmodified clients: as much of both endpoints as tests need.

Files are kept by file system and path, in memory. The ``dfs`` endpoint creates, appends, flushes,
renames, lists, deletes and sets; the Blob endpoint, which azure-storage-file-datalake asks for
downloads, properties and file systems, answers to those. Requests and answers have the form of
learn.microsoft.com/rest/api/storageservices (data-lake-storage-gen2, blob-service-rest-api).

Emulator: it proves which requests the client makes and what we make of them. It stands behind
`tests.servers.storage_proxy`, which keeps the requests.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from tests.servers.storage_proxy import storage_proxy

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tests.servers.storage_proxy import Proxy

ACCOUNT = "lakeaccount"
KEY = "bm90IGEgc2VjcmV0"
DATE = "Mon, 23 Nov 2026 08:00:00 GMT"
RESOURCES = {"x-ms-version": "2021-06-08", "Last-Modified": DATE, "ETag": '"1"', "Date": DATE}

Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Lake:
    """What there is."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])

    def answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        """Answer one request."""
        _, _, rest = path.strip("/").partition("/")  # without the account
        name, _, file = rest.partition("/")
        there = self.files.get(name)
        if not name:
            listed = [{"name": one} for one in self.files]
            return 200, {}, json.dumps({"filesystems": listed}).encode()
        if query.get("restype") == "container":
            return self._container(method, name, query)
        if there is None:
            return _error(404, "FilesystemNotFound")
        if not file:
            return self._listed(method, name, query)
        return self._file(method, there, file, query, headers, body)

    def _container(self, method: str, name: str, query: Mapping[str, str]) -> Answer:
        if method == "PUT" and "comp" not in query:
            if name in self.files:
                return _error(409, "ContainerAlreadyExists")
            self.files[name] = {}
            return 201, {}, b""
        if name not in self.files:
            return _error(404, "ContainerNotFound")
        if method == "DELETE":
            del self.files[name]
            return 202, {}, b""
        return 200, {}, b""

    def _listed(self, method: str, name: str, query: Mapping[str, str]) -> Answer:
        if method == "DELETE":
            del self.files[name]
            return 202, {}, b""
        if method != "GET":
            return 200, {}, b""
        paths = sorted(self.files[name].items())
        size = int(query.get("maxResults", "5000"))
        first = int(query.get("continuation", "0"))
        page = [
            {"name": path, "contentLength": str(len(content)), "lastModified": DATE}
            for path, content in paths[first : first + size]
        ]
        more = {"x-ms-continuation": str(first + size)} if first + size < len(paths) else {}
        return (
            200,
            {"Content-Type": "application/json", **more},
            json.dumps({"paths": page}).encode(),
        )

    def _file(
        self,
        method: str,
        there: dict[str, bytes],
        file: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
    ) -> Answer:
        source = unquote(headers.get("x-ms-rename-source", "")).partition("?")[0]
        if method == "PUT" and source:
            there[file] = there.pop(source.strip("/").partition("/")[2])
            return 201, {}, b""
        if method == "PUT" and "resource" in query:
            there[file] = b""
            return 201, {}, b""
        if file not in there:
            return _error(404, "PathNotFound")
        content = there[file]
        if method == "PATCH":
            if query["action"] == "append":
                there[file] = content + body
                return 202, {}, b""
            done = {"directoriesSuccessful": 1, "filesSuccessful": 2, "failureCount": 0}
            if query["action"] == "setAccessControlRecursive":
                return 200, {}, json.dumps(done).encode()
            return 200, {}, b""
        if method == "DELETE":
            del there[file]
            return 200, {}, b""
        about = {
            "x-ms-blob-type": "BlockBlob",
            "x-ms-resource-type": "file",
            "x-ms-access-tier": "Hot",
            "x-ms-creation-time": DATE,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        if query.get("action") == "getAccessControl":
            return 200, {**about, "x-ms-acl": "user::rw-", "x-ms-permissions": "rw-r-----"}, b""
        if method == "HEAD":
            return 200, {**about, "Content-Length": str(len(content))}, b""
        found = re.fullmatch(
            r"bytes=(\d+)-(\d*)", headers.get("x-ms-range", headers.get("range", ""))
        )
        if found is None or not content:
            return 200, about, content
        start, end = int(found[1]), min(int(found[2] or len(content)), len(content) - 1)
        ranged = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        return 206, {**about, **ranged}, content[start : end + 1]


def _error(status: int, code: str) -> Answer:
    said = json.dumps({"error": {"code": code, "message": "refused"}}).encode()
    return status, {"x-ms-error-code": code, "Content-Type": "application/json"}, said


@contextmanager
def lake_server() -> Generator[Proxy]:
    """Run it for the length of the block; the account's address is ``{proxy.url}/{ACCOUNT}``."""
    lake = Lake()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def answered(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            status, given, content = lake.answer(
                self.command, unquote(parts.path), query, headers, body
            )
            self.send_response(status)
            given = {"Content-Length": str(len(content)), **RESOURCES, **given}
            for name, value in given.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
            """Say nothing."""

    for method in ("GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.answered)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        with storage_proxy(server.server_address[1]) as proxy:
            yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
