"""Azure Blob Storage for unmodified clients: Azurite from npm, behind our proxy.

Azurite is installed into the cache directory, once, at a pinned version; it needs Node 18 or newer.
Its answers to Data Lake's own endpoint are incomplete: that is `tests.servers.lake_server`.

Emulator: it proves which requests the clients make and what we make of them; that Azure bills them
so it cannot prove.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.debian import CACHE, ENVIRONMENT
from tests.processes import Account, Unavailable, free_port, running
from tests.servers.storage_proxy import storage_proxy

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.servers.storage_proxy import Proxy

VERSION = "3.37.0"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The well-known key of Azurite's only account."""
INSTALL_SECONDS = 600


def azurite() -> Path:
    """Return Azurite's program; raises `Unavailable` with the reason where it cannot be had."""
    node, npm = (shutil.which(name, path=ENVIRONMENT.get("PATH")) for name in ("node", "npm"))
    if node is None or npm is None:
        raise Unavailable("there is no node and npm on PATH: apt-get install nodejs npm")
    target = CACHE / f"azurite-{VERSION}"
    main = Path("node_modules", "azurite", "dist", "src", "blob", "main.js")
    if (target / main).is_file():
        return target / main
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="npm-", dir=CACHE) as scratch:
            root = Path(scratch, "root")
            root.mkdir()
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
            done = subprocess.run(
                [*command, "--prefix", root, f"azurite@{VERSION}"],
                env=ENVIRONMENT,
                cwd=root,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
            if done.returncode or not (root / main).is_file():
                last = f"{done.stdout}\n{done.stderr}".strip().splitlines()[-3:]
                raise Unavailable(f"npm cannot install azurite: {' | '.join(last)}")
            root.chmod(0o755)
            root.rename(target)
    except (OSError, subprocess.TimeoutExpired) as error:
        if not (target / main).is_file():  # else another run was first
            raise Unavailable(f"cannot install azurite in {CACHE}: {error}") from error
    return target / main


@contextmanager
def azurite_server() -> Generator[Proxy]:
    """Run it for the length of the block; the account's address is ``{proxy.url}/{ACCOUNT}``."""
    program, port = azurite(), free_port()
    node = shutil.which("node", path=ENVIRONMENT.get("PATH"))
    assert node is not None

    def ready() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    with (
        storage_proxy(port) as proxy,
        tempfile.TemporaryDirectory(prefix="azurite-") as directory,
        running(
            Account(None, None),
            node,
            program,
            *("--silent", "--skipApiVersionCheck", "--disableTelemetry"),
            *("--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"),
            cwd=Path(directory),
            ready=ready,
            stop=signal.SIGTERM,
            env={"HOME": directory},
        ),
    ):
        yield proxy
