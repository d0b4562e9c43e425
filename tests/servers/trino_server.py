"""Real Trino and Presto servers for tests: the one named in the environment, or one of our own.

Our own is the distribution from Maven Central, held to a pinned SHA-256 and kept in the cache
directory without the plug-ins that nothing here needs (which are nine tenths of it). Java 11 to 17
runs it, with 1 GB of heap, on loopback. What its event listener reports of each query is kept, for
that has the figures to the last byte; the coordinator's own pages round them.

To start one by hand, and keep it until Ctrl-C: `python -m tests.servers.trino_server trino`; with
`presto`, Presto's 1.9 GB are fetched as well, which no test does of its own accord.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from tests.debian import CACHE, ENVIRONMENT
from tests.processes import Account, Unavailable, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    Source = Callable[[], contextlib.AbstractContextManager["Coordinator"]]

# Read on import, because conftest.py takes every COSTINSIGHTS_ variable out of the environment.
TRINO_URL = os.environ.get("COSTINSIGHTS_TRINO_URL")
PRESTO_URL = os.environ.get("COSTINSIGHTS_PRESTO_URL")
MAVEN = "https://repo1.maven.org/maven2"
MODULE = "tests.servers.trino_server"
START_SECONDS = 180  # a JVM on a machine that has other things to do
STOP_SECONDS = 30
JAVA = (11, 17)


class Archive(NamedTuple):
    """A distribution on Maven Central."""

    path: str
    sha256: str
    plugins: tuple[str, ...]
    main: str
    headers: str

    @property
    def name(self) -> str:
        """The directory that it unpacks to."""
        return self.path.rpartition("/")[2].removesuffix(".tar.gz")


TRINO = Archive(
    "io/trino/trino-server/368/trino-server-368.tar.gz",
    "794a7df6faae51895183b52c6d7f36f0a9715140fab317dac5400f71729c05cd",
    ("tpch", "memory", "http-event-listener"),
    "io.trino.server.TrinoServer",
    "X-Trino",
)
PRESTO = Archive(
    "com/facebook/presto/presto-server/0.283/presto-server-0.283.tar.gz",
    "516ae8f47193e3726327f7a7400b0e165956a5e2f1d6ec610fe5ec113accd85c",
    ("tpch", "memory"),
    "com.facebook.presto.server.PrestoServer",
    "X-Presto",
)
# Presto 0.283 came with one that cannot read the classes of Java 17.
ASM = (
    "org/ow2/asm/asm/9.1/asm-9.1.jar",
    "cda4de455fab48ff0bcb7c48b4639447d4de859a7afc30a094a986f0936beba2",
)


@dataclass
class Events:
    """What a server's event listener has reported of the queries that are done."""

    port: int = 0
    found: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def of(self, query_id: str) -> dict[str, Any]:
        """Return what was reported of a query; it comes a moment after the query's end."""
        deadline = time.monotonic() + 20
        while query_id not in self.found:
            assert time.monotonic() < deadline, f"no event of {query_id}"
            time.sleep(0.05)
        return self.found[query_id]


@dataclass(frozen=True)
class Coordinator:
    """A running server that lets anybody in."""

    host: str
    port: int
    headers: str
    source: str  # how it was had
    events: Events | None = None
    real: bool = True

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def page(self, path: str) -> Any:
        """Return what the server says at `path`."""
        request = urllib.request.Request(
            f"{self.url}{path}", headers={f"{self.headers}-User": "costinsights"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def trino() -> contextlib.AbstractContextManager[Coordinator]:
    """A Trino server; raises `Unavailable` with the reason when there is no way to one."""
    if TRINO_URL:
        return _given(TRINO_URL, TRINO)
    return _started(TRINO, download=True)


def presto(*, download: bool = False) -> contextlib.AbstractContextManager[Coordinator]:
    """A Presto server, where one is named or was fetched before."""
    if PRESTO_URL:
        return _given(PRESTO_URL, PRESTO)
    return _started(PRESTO, download=download)


@contextlib.contextmanager
def _given(url: str, archive: Archive) -> Generator[Coordinator]:
    parts = urlsplit(url)
    assert parts.hostname, f"not like http://host:8080: {url}"
    yield Coordinator(parts.hostname, parts.port or 8080, archive.headers, url)


@contextlib.contextmanager
def _started(archive: Archive, *, download: bool) -> Generator[Coordinator]:
    java = _java()
    tree = _unpacked(archive, download=download)
    port = free_port()
    with contextlib.ExitStack() as stack:
        scratch = tempfile.TemporaryDirectory(prefix="trino-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(scratch))
        events = stack.enter_context(_listening()) if archive is TRINO else None
        _configure(directory, port, archive, tree, events)
        classes = [*sorted(tree.glob("first/*.jar")), tree / "lib" / "*"]
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED]
        command: list[str | Path] = [
            java,
            *("-Xmx1G", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),  # quick to start
            *(opened if archive is PRESTO else ()),
            "-Djdk.attach.allowAttachSelf=true",
            *("-Dnode.environment=test", "-Dnode.id=test", f"-Dnode.data-dir={directory / 'data'}"),
            # It listens there, and finds itself there: by its host's name it may not.
            *("-Dnode.bind-ip=127.0.0.1", "-Dnode.internal-address=127.0.0.1"),
            f"-Dconfig={directory / 'config.properties'}",
            *("-cp", os.pathsep.join(map(str, classes)), archive.main),
        ]
        log = directory / "log"
        server = Account(None, None).start(*command, cwd=directory, env=None, log=log)
        stack.callback(_stop, server)
        found = Coordinator("127.0.0.1", port, archive.headers, archive.name, events)
        _wait(found, server, log)
        yield found


OPENED = (
    *("java.io", "java.lang", "java.lang.ref", "java.lang.reflect", "java.net", "java.nio"),
    *("java.security", "java.text", "java.util", "java.util.concurrent", "java.util.regex"),
    "sun.nio.ch",
)


def _configure(
    directory: Path, port: int, archive: Archive, tree: Path, events: Events | None
) -> None:
    catalogs = directory / "catalog"
    catalogs.mkdir()
    for name in ("tpch", "memory"):
        (catalogs / f"{name}.properties").write_text(f"connector.name={name}\n")
    settings = {
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        "http-server.http.port": port,
        "discovery.uri": f"http://127.0.0.1:{port}",
        "plugin.dir": tree / "plugin",
        "catalog.config-dir": catalogs,
        "query.max-memory": "300MB",
        "query.max-memory-per-node": "300MB",
        "query.max-total-memory-per-node": "400MB",
        "query.max-history": "1000",
        "query.min-expire-age": "30m",
        "task.max-worker-threads": "4",
    }
    if archive is PRESTO:
        settings["discovery-server.enabled"] = "true"
    if events is not None:
        listener = directory / "listener.properties"
        listener.write_text(
            "event-listener.name=http\n"
            "http-event-listener.log-completed=true\n"
            f"http-event-listener.connect-ingest-uri=http://127.0.0.1:{events.port}/\n"
            "http-event-listener.connect-retry-count=5\n"  # without it, an event is tried once
        )
        settings["event-listener.config-files"] = listener
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    (directory / "config.properties").write_text(lines)


def _wait(coordinator: Coordinator, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        time.sleep(0.5)
        with contextlib.suppress(OSError):
            if not coordinator.page("/v1/info")["starting"] and _works(coordinator):
                return
        if server.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise Unavailable(f"{coordinator.source} did not come up: {' | '.join(last)}")


def _works(coordinator: Coordinator) -> bool:
    """Tell whether a query comes to its end: one that is earlier than the news of its own node's
    catalogs waits for a worker for ever."""
    user = {f"{coordinator.headers}-User": "costinsights"}
    deadline = time.monotonic() + 10
    text = b"select count(*) from tpch.tiny.region"
    url, method = f"{coordinator.url}/v1/statement", "POST"
    while True:
        request = urllib.request.Request(
            url, text if method == "POST" else None, user, method=method
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            page: dict[str, Any] = json.loads(answer.read() or b"{}")
        if method == "DELETE" or "error" in page:
            return False
        if "nextUri" not in page:
            return True
        url, method = page["nextUri"], "GET"
        if time.monotonic() > deadline:
            method = "DELETE"


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


# -- what the event listener reports --------------------------------------------------------------


@contextlib.contextmanager
def _listening() -> Generator[Events]:
    events = Events()

    class Sink(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self._body())
            events.found[event["metadata"]["queryId"]] = event
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _body(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            chunks: list[bytes] = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
            pass

    class Listening(http.server.ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128  # of 5, a kernel turns the events of 32 queries at once away

    with Listening(("127.0.0.1", 0), Sink) as server:
        events.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.2,))
        thread.start()
        try:
            yield events
        finally:
            server.shutdown()
            thread.join()


# -- the distribution ------------------------------------------------------------------------------


def _java() -> str:
    home = ENVIRONMENT.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java", path=ENVIRONMENT.get("PATH"))
    hint = "apt-get install openjdk-17-jre-headless"
    if found is None:
        raise Unavailable(f"there is no java on PATH: {hint}")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or not JAVA[0] <= int(version[1]) <= JAVA[1]:
        raise Unavailable(f"{found} is not Java {JAVA[0]} to {JAVA[1]}: {hint}")
    return found


def _unpacked(archive: Archive, *, download: bool) -> Path:
    """The distribution's directory in the cache."""
    target = CACHE / archive.name
    if target.is_dir():
        return target
    if not download:
        raise Unavailable(f"{archive.name} is not in {CACHE}; see {MODULE}")
    # In a process of its own: this one may have no way out to the network.
    name = "TRINO" if archive is TRINO else "PRESTO"
    code = f"from {MODULE} import fetch, {name}; fetch({name})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if not target.is_dir():
        said = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise Unavailable(f"{archive.name} cannot be fetched: {said[0]}")
    return target


def fetch(archive: Archive) -> None:
    """Put the distribution into the cache, without the plug-ins that are not needed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trino-", dir=CACHE) as scratch:
        packed = _downloaded(archive.path, archive.sha256, Path(scratch))
        with tarfile.open(packed) as tar:
            # Whole, because the jars that are kept are links to those of plug-ins that are not.
            tar.extractall(scratch, filter="data")
        tree = Path(scratch, archive.name)
        for plugin in (tree / "plugin").iterdir():
            if plugin.name not in archive.plugins:
                shutil.rmtree(plugin)
        if archive is PRESTO:
            (tree / "first").mkdir()
            shutil.move(_downloaded(*ASM, Path(scratch)), tree / "first")
        try:
            tree.rename(CACHE / archive.name)
        except OSError:
            if not (CACHE / archive.name).is_dir():  # else another run was first
                raise


def _downloaded(path: str, sha256: str, directory: Path) -> Path:
    target = directory / path.rpartition("/")[2]
    digest = hashlib.sha256()
    with (
        urllib.request.urlopen(f"{MAVEN}/{path}", timeout=60) as source,
        target.open("wb") as copy,
    ):
        while block := source.read(1 << 20):
            digest.update(block)
            copy.write(block)
    if digest.hexdigest() != sha256:
        raise Unavailable(f"{path} is not what it was: SHA-256 {digest.hexdigest()}")
    return target


def main(names: list[str]) -> int:
    """Start the servers named, say how to reach them, and keep them until interrupted."""
    known: dict[str, Source] = {"trino": trino, "presto": lambda: presto(download=True)}
    if not names or not set(names) <= set(known):
        print(f"usage: python -m {MODULE} {' | '.join(known)} …", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or the servers would outlive us
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        for name in names:
            try:
                server = stack.enter_context(known[name]())
            except Unavailable as reason:
                print(f"{name} cannot be had here: {reason}", file=sys.stderr)
                return 1
            variable = f"COSTINSIGHTS_{name.upper()}_URL"
            print(f"export {variable}={server.url}  # {server.source}", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
