"""Throwaway server processes: an account that may run them, a directory, a port, a clean end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Generator, Mapping, Sequence

START_SECONDS = 60
STOP_SECONDS = 30


class Unavailable(Exception):
    """A server cannot be had this way; the message says why."""


@dataclass(frozen=True)
class Account:
    """Who runs a server: ourselves, or somebody harmless when we are root (servers refuse root)."""

    uid: int | None
    gid: int | None

    def run(self, *command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> None:
        """Run `command` to its end; raises `Unavailable` with its last words when it fails."""
        with self._start(command, cwd, env, subprocess.PIPE) as process:
            output, _ = process.communicate()
        if process.returncode:
            name = Path(command[0]).name
            raise Unavailable(f"{name} ended with {process.returncode}: {_tail(output)}")

    def start(
        self, *command: str | Path, cwd: Path, env: Mapping[str, str] | None, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start `command` and return at once; what it says goes to `log`."""
        with log.open("wb") as output:
            return self._start(command, cwd, env, output.fileno())

    def _start(
        self, command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None, output: int
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command,
                cwd=cwd,
                env={**os.environ, "LC_ALL": "C", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self.uid,
                group=self.gid,
                extra_groups=None if self.uid is None else [],
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise Unavailable(f"cannot start {command[0]}: {error}") from error

    def reaches(self, path: Path) -> bool:
        """Whether the account may look into the directory `path`."""
        try:
            self.run("ls", path, cwd=Path("/"))
        except Unavailable:
            return False
        return True

    def own(self, path: Path) -> None:
        """Hand `path`, and all in it, to the account."""
        if self.uid is not None:
            subprocess.run(["chown", "-R", f"{self.uid}:{self.gid}", path], check=True)


def unprivileged(*names: str) -> Account:
    """The first account of `names`, or `nobody`, where we are root; otherwise ourselves."""
    if os.geteuid() != 0:
        return Account(None, None)
    for name in (*names, "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise Unavailable("running as root, and there is no unprivileged account to run a server as")


@contextlib.contextmanager
def workspace(account: Account, prefix: str) -> Generator[Path]:
    """A temporary directory of `account`'s own, where it can reach it. Gone afterwards.

    The path is short, because a Unix socket's path is at most 107 bytes.
    """
    home = next((d for d in (tempfile.gettempdir(), "/tmp") if account.reaches(Path(d))), None)
    if home is None:
        raise Unavailable("no temporary directory that an unprivileged account can reach")
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=home))
    try:
        account.own(directory)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def within_reach(account: Account, directory: Path, tree: Path, *beside: Path) -> Path:
    """`tree`, or a copy of it, with what stands `beside` it, below `directory`.

    An environment below /root is closed to the account that has to run the server in it.
    """
    if account.reaches(tree):
        return tree
    for source in (tree, *filter(Path.is_dir, beside)):
        copy = directory / source.name
        shutil.copytree(source, copy, symlinks=True)
        account.own(copy)
    return directory / tree.name


def free_port() -> int:
    """A port on the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    account: Account,
    *command: str | Path,
    cwd: Path,
    ready: Callable[[], bool],
    stop: signal.Signals,
    env: Mapping[str, str] | None = None,
) -> Generator[None]:
    """A server from when it is `ready` until it has ended after the signal `stop`.

    Raises `Unavailable`, with the end of its log, when it does not come up.
    """
    log = cwd / "log"
    server = account.start(*command, cwd=cwd, env=env, log=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                name = Path(command[0]).name
                raise Unavailable(f"{name} did not come up: {_tail(log.read_bytes())}")
            time.sleep(0.02)
        yield
    finally:
        server.send_signal(stop)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(port: int, greeting: bytes, expected: bytes) -> bool:
    """Whether the server on the loopback `port` answers `greeting` with bytes like `expected`.

    That it accepts a connection is not enough: PostgreSQL does so while it is still starting.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(greeting)
            answer = connection.recv(64)
    except OSError:
        return False
    return bool(answer) and answer.startswith(expected)


def _tail(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return " | ".join(lines[-5:]) or "it said nothing"
