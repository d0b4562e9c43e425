"""How far a system is settled in a ledger, and who is at it now."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import msgspec

from costinsights.ledger.writer import make_folder

if TYPE_CHECKING:
    from collections.abc import Generator

FOLDER = "settlement"
"""Where a ledger notes it: a file and a lock for each system."""


class Busy(Exception):
    """Another settlement of the system is at work on the ledger."""


@contextmanager
def alone(ledger: str, system: str) -> Generator[None]:
    """Let no two settlements of one system work on one ledger at the same time.

    Raises:
        Busy: another one is at work.
    """
    path = _place_of(ledger, system, ".lock")
    make_folder(os.path.dirname(path))
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another settlement of {system} is at work on {ledger}") from None
        except OSError:
            pass  # a file system without locks: there is no better than to believe we are alone
        yield
    finally:
        os.close(fd)


def left_off(ledger: str, system: str) -> datetime | None:
    """Return where an earlier run left off; None where there was none."""
    try:
        with open(_place_of(ledger, system, ".json"), "rb") as file:
            return msgspec.json.decode(file.read(), type=_State).since.astimezone(timezone.utc)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:
        return None  # emptied by a power failure: the next run is told since when


def leave_off(ledger: str, system: str, since: datetime) -> None:
    """Note where the next run has to begin, in one step."""
    path = _place_of(ledger, system, ".json")
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(_State(since)))
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{path}.new", path)


class _State(msgspec.Struct):
    since: datetime


def _place_of(ledger: str, system: str, end: str) -> str:
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in system)
    return os.path.join(ledger, FOLDER, f"{safe.lstrip('.')}{end}")
