"""How often we have asked vendors for jobs in the background: a line for each question.

A file a day beside the ledger, to which every process appends; `costinsights doctor` adds them up.
"""

from __future__ import annotations

import os
from contextlib import suppress
from time import gmtime, strftime, time
from typing import TYPE_CHECKING

import msgspec

from costinsights.ledger.writer import make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "followed"
KEPT_DAYS = 31
_DAY = 86_400


class Asked(msgspec.Struct, omit_defaults=True):
    """One question, or the sum of several."""

    system: str
    region: str | None = None
    requests: int = 0
    failed: dict[str, int] = {}
    """Those that were answered with an error, by its code."""
    meter: str = ""
    """The price book's meter of a request; empty where they are free."""
    pid: int = 0
    at: float = 0.0
    """Seconds since the epoch; of a sum, the last."""


def note(
    ledger: str,
    system: str,
    region: str | None,
    *,
    requests: int,
    failed: str = "",
    meter: str = "",
) -> None:
    """Count a question. Whatever the disk says, the asking goes on."""
    now = time()
    line = Asked(
        system, region, requests, {failed: 1} if failed else {}, meter, os.getpid(), round(now, 3)
    )
    folder = os.path.join(ledger, FOLDER)
    path = os.path.join(folder, strftime("%Y-%m-%d.jsonl", gmtime(now)))
    with suppress(OSError):
        if not os.path.exists(path):
            make_folder(folder)
            _forget(folder, now)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, msgspec.json.encode(line) + b"\n")  # in one piece, beside other processes
        finally:
            os.close(fd)


def _forget(folder: str, now: float) -> None:
    oldest = strftime("%Y-%m-%d.jsonl", gmtime(now - KEPT_DAYS * _DAY))
    for name in os.listdir(folder):
        if name.endswith(".jsonl") and name < oldest:
            os.unlink(os.path.join(folder, name))


def asked(ledger: str) -> list[Asked]:
    """Return the sums of the last `KEPT_DAYS` days, by system, region and meter."""
    sums: dict[tuple[str, str, str], Asked] = {}
    for line in _lines(os.path.join(ledger, FOLDER)):
        key = (line.system, line.region or "", line.meter)
        found = sums.setdefault(key, Asked(line.system, line.region, meter=line.meter))
        found.requests += line.requests
        found.at = max(found.at, line.at)
        for code, count in line.failed.items():
            found.failed[code] = found.failed.get(code, 0) + count
    return [sums[key] for key in sorted(sums)]


def _lines(folder: str) -> Iterator[Asked]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        if not name.endswith(".jsonl"):
            continue
        with suppress(OSError), open(os.path.join(folder, name), "rb") as file:
            for line in file:
                with suppress(msgspec.MsgspecError):  # torn by a full disk
                    yield msgspec.json.decode(line, type=Asked)
