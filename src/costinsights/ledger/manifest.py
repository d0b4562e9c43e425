"""The list of what has been compacted. A file that it does not name is no part of the ledger.

Compaction publishes its work by replacing ``parquet/manifest.json`` in one step, so that whoever
reads the ledger sees all of it or nothing, wherever the compaction was when it died: segments that
the manifest says are consumed are ignored even while they still lie there, and so are Parquet files
that it does not name.
"""

from __future__ import annotations

import os
from typing import Literal, TypeVar, get_args

import msgspec

from costinsights.ledger.writer import LedgerError

PARQUET = "parquet"
MANIFEST = "manifest.json"
FORMAT = 1

Kind = Literal["charges", "revisions", "superseded", "totals"]

KINDS: tuple[Kind, ...] = get_args(Kind)


class File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One Parquet file. `path` is relative to the folder of the manifest.

    ``charges`` hold one row a charge; ``revisions`` what came later for charges that were
    compacted before, each with a row that takes the earlier figure back; ``superseded`` the
    entries that better ones replaced; ``totals`` the sums of a file of charges, `of` which they are.
    """

    path: str
    kind: Kind
    day: str
    """UTC day on which the calls ended, ``YYYY-MM-DD``."""
    rows: int
    size: int
    of: str | None = None
    later: int = 0
    """How many of `costinsights.ledger.columns.LATER` it has, unless it holds totals."""


class Versioned(msgspec.Struct, kw_only=True):
    """What every list of files has: those of the ledger, and those of the bill."""

    format: int = FORMAT
    generation: int = 0
    """Counts up with each publication."""


M = TypeVar("M", bound=Versioned)


class Manifest(Versioned, kw_only=True):
    """What has been compacted so far."""

    files: list[File] = []
    consumed: list[str] = []
    """Names of segments whose entries are in `files`; they may still lie there."""
    newest: str | None = None
    """When the last of the compacted calls ended."""
    torn: int = 0
    """Lines of consumed segments that were set aside."""
    lost: dict[str, int] = {}
    """What the writers of consumed segments said that they had lost, per reason."""
    expired_charges: int = 0
    expired_until: str | None = None
    """The newest day that retention has deleted."""

    def of_kind(self, *kinds: Kind) -> list[File]:
        """Return the files of these kinds, in the order of their publication."""
        return [file for file in self.files if file.kind in kinds]


def folder(directory: str) -> str:
    """Return the path of a ledger's folder of Parquet files."""
    return os.path.join(directory, PARQUET)


def load(directory: str) -> Manifest:
    """Return what has been compacted of the ledger at `directory`; an empty list at first.

    Raises:
        LedgerError: the manifest cannot be read, or a newer version wrote it.
    """
    return read(os.path.join(folder(directory), MANIFEST), Manifest)


def read(path: str, kind: type[M]) -> M:
    """Return a manifest as it stands at `path`; an empty one where there is none.

    Raises:
        LedgerError: it cannot be read, or a newer version wrote it.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return kind()
    try:
        manifest = msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise LedgerError(f"{path} is damaged: {error}") from error
    if manifest.format != FORMAT:
        raise LedgerError(
            f"{path} has format {manifest.format}, this version reads {FORMAT}: update costinsights"
        )
    return manifest


def publish(directory: str, manifest: Manifest) -> None:
    """Replace the manifest in one step; it is on the disk when this returns.

    Raises:
        OSError: the disk refuses; the old manifest then stands.
    """
    replace(os.path.join(folder(directory), MANIFEST), manifest)


def replace(path: str, manifest: Versioned) -> None:
    """Put a manifest in the place of the one at `path`, in one step; it is then on the disk.

    Raises:
        OSError: the disk refuses; the old manifest then stands.
    """
    manifest.generation += 1
    temporary = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(os.path.dirname(path))


def sync_folder(path: str) -> None:
    """Bring the names in a folder to the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
