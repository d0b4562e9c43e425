"""What this exporter keeps in the ledger's folder: what steps are about, and who is at them.

``exporters/dagster/runs/<run>/<step>.json`` says what a step makes, for as long as later figures
may come. Whoever works on the step holds a lock on the file, which goes with the process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager, suppress
from hashlib import blake2b
from time import monotonic, sleep, time
from typing import TYPE_CHECKING

import msgspec

from costinsights import positions
from costinsights.dagster.targets import Facts
from costinsights.ledger.reader import is_live
from costinsights.ledger.writer import make_folder, raise_high

if TYPE_CHECKING:
    from collections.abc import Generator

NAME = "dagster"
RUNS = "runs"
KEPT_SECONDS = 62 * 86_400
"""A bill of last month may still bring later figures."""
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
_WAIT_SECONDS = 0.05


def home(ledger: str) -> str:
    """Return the exporter's folder."""
    return positions.folder(ledger, NAME)


def state_path(ledger: str) -> str:
    """Return the file of what the instance that is meant here has been told of."""
    instance = os.environ.get("DAGSTER_HOME", "")
    digest = blake2b(instance.encode(), digest_size=6).hexdigest()
    return os.path.join(home(ledger), f"told-{digest}.json")


def _run_folder(ledger: str, run: str) -> str:
    safe = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in run)
    return os.path.join(home(ledger), RUNS, safe or "_")


def _step_file(ledger: str, run: str, step: str) -> str:
    digest = blake2b(step.encode(), digest_size=12).hexdigest()
    return os.path.join(_run_folder(ledger, run), f"{digest}.json")


class Hold:
    """A step's file, with what the step is about in it, and the lock on it."""

    def __init__(self, ledger: str, facts: Facts) -> None:
        path = _step_file(ledger, facts.run, facts.step)
        try:
            fd = os.open(path, _FLAGS, 0o600)
        except FileNotFoundError:
            make_folder(os.path.dirname(path))
            fd = os.open(path, _FLAGS, 0o600)
        self._path = path
        self._fd = raise_high(fd)
        self.locked = self._lock()
        self.note(facts)
        _holds.add(self)

    def note(self, facts: Facts) -> None:
        """Write what the step is about."""
        data = msgspec.json.encode(facts)
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def wait(self, seconds: float) -> None:
        """Have the lock, or have waited so long: an earlier attempt may still be telling."""
        end = monotonic() + seconds
        while not self.locked and monotonic() < end:
            sleep(_WAIT_SECONDS)
            self.locked = self._lock()

    def release(self, *, forget: bool = False) -> None:
        """Let go of the step; with `forget`, nobody needs to know any more what it was about."""
        if self in _holds:
            _holds.discard(self)
            with suppress(OSError):
                if forget:
                    os.unlink(self._path)
                    os.rmdir(os.path.dirname(self._path))  # unless other steps are in it
            with suppress(OSError):
                os.close(self._fd)


_holds: set[Hold] = set()


def _forked() -> None:
    """Let go of the parent's steps in a child, or they would outlive the parent there."""
    for hold in list(_holds):
        hold.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def facts_of(ledger: str, run: str) -> dict[str, Facts]:
    """Return what is known of a run's steps."""
    found: dict[str, Facts] = {}
    for path in _files(ledger, run):
        with suppress(OSError, msgspec.MsgspecError), open(path, "rb") as file:
            facts = msgspec.json.decode(file.read(), type=Facts)
            found[facts.step] = facts
    return found


def is_held(ledger: str, run: str) -> bool:
    """Tell whether some process is still at a step of the run."""
    return any(is_live(path) for path in _files(ledger, run))


def _files(ledger: str, run: str) -> list[str]:
    folder = _run_folder(ledger, run)
    with suppress(OSError):
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return []


def forget_old(ledger: str) -> None:
    """Remove what is known of runs of long ago."""
    folder = os.path.join(home(ledger), RUNS)
    oldest = time() - KEPT_SECONDS
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False) and entry.stat().st_mtime < oldest:
                shutil.rmtree(entry.path, ignore_errors=True)


@contextmanager
def alone(ledger: str) -> Generator[None]:
    """Keep other processes from telling of the same ledger, and wait for one that does."""
    folder = home(ledger)
    make_folder(folder)
    fd = os.open(os.path.join(folder, ".lock"), _FLAGS, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
