"""Slices of a bill: what has been pulled, and is replaced whole, one period of one scope at a time.

A bill changes after it was first seen: late usage, corrections, credits. Rows have no name that
would stay the same, so nothing is ever matched by one. Instead a slice is pulled again and takes
the place of what it was, in one step: its rows lie in a Parquet file of their own, and
``bill/manifest.json`` says which files are part of the bill. A file that it does not name is not.

Beside the ledger's own folders::

    bill/manifest.json
    bill/rows/<slice>-<number>.parquet    one file a slice, as FOCUS rows
    bill/partial/<slice>/                 what an interrupted pull has of a slice: no part of the bill
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from datetime import datetime  # noqa: TC003  msgspec looks at it
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from costinsights.ledger import manifest as manifests
from costinsights.ledger.writer import make_folder

if TYPE_CHECKING:
    from collections.abc import Generator

BILL = "bill"
ROWS = "rows"
PARTIAL = "partial"

State = Literal["provisional", "open", "final"]
STATES: tuple[State, ...] = get_args(State)


class Slice(msgspec.Struct, frozen=True, order=True):
    """What is replaced whole. Two slices with the same fields are the same slice."""

    source: str
    """The puller's key: ``aws.cost_explorer``."""
    scope: str
    """Whose bill: an account, a billing account, a subscription, an export, a folder."""
    start: datetime
    """When the period begins, in UTC: the charge period where the source is asked by time, the
    billing period where it delivers those."""
    end: datetime
    """When it ends; not included."""
    wanted: str = ""
    """What was asked for of it (`Wanted.text`); empty for everything."""

    @property
    def name(self) -> str:
        """A file name for it, always the same."""
        fields = (self.source, self.scope, str(self.start), str(self.end), self.wanted)
        digest = blake2b(repr(fields).encode(), digest_size=8).hexdigest()
        return f"{self.source}-{self.start:%Y%m%dT%H}-{digest}"

    def told(self) -> str:
        """Return it as people read it: ``aws.cost_explorer 123456789012 2026-11-01``."""
        whole = f"{self.start:%Y-%m-%d}"
        if (self.end - self.start).days > 1:
            whole += f" to {self.end:%Y-%m-%d}"
        return " ".join(filter(None, (self.source, self.scope, whole, self.wanted)))


class Wanted(msgspec.Struct, frozen=True):
    """Which lines of a bill are wanted; an empty field wants them all."""

    service: str = ""
    """The service as the provider calls it in this source."""
    resource: str = ""
    """A bucket or storage account, where the source can tell."""

    @property
    def text(self) -> str:
        """What stands in `Slice.wanted`."""
        fields = {"service": self.service, "resource": self.resource}
        return ", ".join(f"{name}={value}" for name, value in fields.items() if value)


class Pull(msgspec.Struct, frozen=True):
    """One time that a slice was published, for its history."""

    at: datetime
    rows: int
    billed: dict[str, str]
    """The sum of BilledCost by currency, as decimal text."""
    state: State


class Published(msgspec.Struct, kw_only=True):
    """A slice as it counts now."""

    slice: Slice
    path: str
    """Relative to the folder of the manifest."""
    size: int
    version: str | None = None
    """What the source says of its version, where it says anything: an entity tag, a delivery id."""
    granularity: str = "daily"
    state: State
    rank: int = 0
    """Of the same money in slices of two sources, that of the higher rank counts."""
    held_back: int = 0
    """Rows of a day that was not over: they are left out until it is pulled again."""
    pulls: list[Pull]
    """Oldest first; the last one is what counts."""

    @property
    def last(self) -> Pull:
        """The pull that counts."""
        return self.pulls[-1]


class Manifest(manifests.Versioned, kw_only=True):
    """What the bill is made of."""

    slices: list[Published] = msgspec.field(default_factory=list[Published])
    incomplete: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    """Why a slice could not be pulled to its end the last time, by `Slice.told`: said until it is."""

    def of(self, wanted: Slice) -> Published | None:
        """Return the slice as it was published; None if it never was."""
        return next((one for one in self.slices if one.slice == wanted), None)


def folder(directory: str) -> str:
    """Return the path of the bill of the ledger at `directory`."""
    return os.path.join(directory, BILL)


def load(directory: str) -> Manifest:
    """Return what the bill of a ledger is made of; nothing at first.

    Raises:
        LedgerError: the manifest cannot be read, or a newer version wrote it.
    """
    return manifests.read(os.path.join(folder(directory), manifests.MANIFEST), Manifest)


@contextmanager
def changing(directory: str) -> Generator[Manifest]:
    """Give the manifest to change, alone, and publish it in one step when the block ends well.

    Raises:
        LedgerError: the manifest cannot be read.
        OSError: the disk refuses; the old manifest then stands.
    """
    place = folder(directory)
    make_folder(place)
    fd = os.open(os.path.join(place, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        manifest = load(directory)
        yield manifest
        manifest.slices.sort(key=lambda one: one.slice)
        manifests.replace(os.path.join(place, manifests.MANIFEST), manifest)
    finally:
        os.close(fd)
