"""Programs from Debian's packages without installing them: no root, and the system stays as it is.

apt works on lists and archives of its own in the cache directory, fetches the packages and those of
their dependencies that the machine lacks, and dpkg unpacks them there. Once; later runs find them.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.processes import Unavailable

# Read on import: conftest.py gives tests a home of their own, and no way out to the network.
ENVIRONMENT = dict(os.environ)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "costinsights"
TOOLS = ("apt-get", "dpkg")


def unpacked(*packages: str) -> Path:
    """The directory that `packages` are unpacked in, as if it were `/`.

    Raises `Unavailable` where Debian's packages cannot be had.
    """
    target = CACHE / f"{packages[0]}-{platform.machine()}"
    if _is_there(target):
        return target
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f"this is no Debian: no {' and no '.join(missing)}")
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="apt-", dir=CACHE) as scratch:
            root = Path(scratch, "root")
            for archive in _download(Path(scratch), packages):
                _run("dpkg", "-x", archive, root)
            root.chmod(0o755)
            root.rename(target)
    except OSError as error:
        if not _is_there(target):  # else another run was first
            raise Unavailable(f"cannot unpack packages in {CACHE}: {error}") from error
    return target


def library_path(root: Path) -> str:
    """`LD_LIBRARY_PATH` for programs unpacked in `root`."""
    folders = (*root.glob("lib/*-linux-*"), *root.glob("usr/lib/*-linux-*"))
    return os.pathsep.join(str(folder) for folder in folders)


def _is_there(directory: Path) -> bool:
    try:
        return directory.is_dir()
    except PermissionError:  # below somebody else's home
        return False


def _download(scratch: Path, packages: tuple[str, ...]) -> list[Path]:
    archives = scratch / "cache" / "archives"
    (archives / "partial").mkdir(parents=True)
    (scratch / "state" / "lists" / "partial").mkdir(parents=True)
    apt = [
        "apt-get",
        "--quiet=2",
        *("-o", "Debug::NoLocking=true"),  # the locks are root's, and nothing shared is touched
        *("-o", "APT::Sandbox::User="),
        *("-o", "APT::Update::Error-Mode=any"),  # or a failed update would go unnoticed
        *("-o", f"Dir::State={scratch / 'state'}"),
        *("-o", f"Dir::Cache={scratch / 'cache'}"),
        *("-o", "Dir::State::status=/var/lib/dpkg/status"),
    ]
    _run(*apt, "update")
    _run(
        *apt,
        "install",
        *("--yes", "--download-only", "--reinstall", "--no-install-recommends"),
        *packages,
    )
    found = sorted(archives.glob("*.deb"))
    if len(found) < len(packages):
        raise Unavailable(f"apt-get fetched {len(found)} of {' and '.join(packages)}")
    return found


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"{command[0]}: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
