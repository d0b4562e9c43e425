"""FOCUS files of any provider: ``costinsights pull focus PATH``.

PATH is a file or a folder, or a prefix of an object storage: ``s3://``, ``gs://``, ``az://``. The
files are CSV or Parquet, of version 1.0 to 1.3, mixed as they come (`costinsights.billing.focus_files`).

A slice is one billing period of one billing account of one provider, in one path. Its version is made
of names, sizes and times (or entity tags) of the files that it is in, so that what has not changed is
listed and not read. What a path no longer has of a period that it still has is gone from the bill as
well; a period of which no file is left stays as it is.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import msgspec

from costinsights.billing.focus_files import (
    File,
    Period,
    duckdb_error,
    explain,
    files_in,
    first_line,
    grouped,
    load,
    matching,
    periods,
    query,
)
from costinsights.billing.focus_places import Entry, place_of
from costinsights.billing.puller import Plan, Puller, PullError, Slice, midnight
from costinsights.ledger.live import literal
from costinsights.ledger.store import connect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duckdb import DuckDBPyConnection

    from costinsights.billing.focus_files import Group
    from costinsights.billing.focus_places import Place
    from costinsights.billing.puller import Loading
    from costinsights.billing.slices import Published

SEPARATOR = " | "
NOTHING = "nothing"
"""The version of a slice that its path has no more."""
BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)
LOOKING_MEMORY = "256MB"

# From how many of its slices on a file is split up in one reading, and not read once for each.
# CSV has to be read to its end whatever is wanted of it; of Parquet, what is not wanted is skipped,
# which for a dozen slices is less work than writing it all once more (python -m benchmarks bills).
SPLIT_FROM = {"csv": 2, "gzip": 2, "parquet": 12}
# How many rows of a part are kept before they are written: dozens of columns of as many parts as a
# file has slices are open at the same time.
SPLIT_ROWS = 20_000


class FOCUSOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[pull.focus]``; all of it is for object storage, whose credentials are the client's own."""

    profile: str = ""
    """Of AWS's configuration."""
    region: str = ""
    endpoint_url: str = ""
    """Of an S3 that is not AWS's."""
    account_url: str = ""
    """Of Azure: ``https://<account>.blob.core.windows.net``."""
    connection_string: str = ""
    """Of Azure, in place of that: ``${AZURE_STORAGE_CONNECTION_STRING}``."""


class _Part(NamedTuple):
    """What a slice has in one file."""

    entry: Entry
    period: Period
    alone: bool
    """It is all that there is in the file."""


class FOCUSPuller(Puller):
    """Reads FOCUS files, whoever delivers them."""

    system = "focus"
    provider = "FOCUS"
    answers: ClassVar[Mapping[str, str]] = {"focus": ""}
    grants = (
        "s3:ListBucket and s3:GetObject; storage.objects.list and .get; Storage Blob Data Reader"
    )
    by_resource = "as the files have it"
    verified = "real files: FOCUS 1.0 sample data; emulators: moto 5, fake-gcs-server, Azurite"
    dependencies = "costinsights[cli]"
    Options = FOCUSOptions
    options: FOCUSOptions

    def open(self) -> None:
        """Find the place.

        Raises:
            PullError: there is no path, or no client for it.
        """
        if not self.path:
            raise PullError(
                "name the files: costinsights pull focus PATH (a file, a folder, s3://…)"
            )
        self._scratch = TemporaryDirectory(prefix="costinsights-", ignore_cleanup_errors=True)
        self._place: Place = place_of(self, self.path)
        self._parts: dict[Slice, list[_Part]] = {}
        self._todo: set[Slice] = set()
        self._split: set[Entry] = set()

    def close(self) -> None:
        """Let go of the place, and remove what was fetched from it."""
        place = self.__dict__.pop("_place", None)
        if place is not None:
            place.close()
        scratch = self.__dict__.pop("_scratch", None)
        if scratch is not None:
            scratch.cleanup()

    def renew(self) -> None:
        """Have the place make its client anew; what was listed and fetched stays."""
        self._place.renew()

    def window(self, now: datetime) -> tuple[datetime, datetime]:
        """Return all of the past: what has not changed costs nothing."""
        return BEGINNING, midnight(now)

    # -- which slices there are -----------------------------------------------------------------

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        """Return what the files have of this time; those that are in the ledger are not opened."""
        entries = self._place.entries()
        if not entries:
            raise PullError(f"{self.path}: there is no FOCUS file (.csv, .csv.gz, .parquet)")
        known = self._known()
        found: dict[Slice, list[_Part]] = {}
        connection: DuckDBPyConnection | None = None
        try:
            for number, entry in enumerate(entries):
                there = known.get(entry.digest)
                if there is None:
                    self.progress("looking into files", number, len(entries))
                    if connection is None:
                        connection = connect(self._scratch.name)
                        connection.execute(f"SET memory_limit = '{LOOKING_MEMORY}'")
                    there = self._look(connection, entry)
                for period in there:
                    part = _Part(entry, period, alone=len(there) == 1)
                    found.setdefault(self._slice(period), []).append(part)
        finally:
            if connection is not None:
                connection.close()
        self._parts = found
        for slice_ in self._gone():
            found[slice_] = []
        self._warn()
        return [one for one in found if one.start < end and one.end > start]

    def _slice(self, period: Period) -> Slice:
        scope = SEPARATOR.join(
            part.replace("|", "%7C") for part in (self._root, period.provider, period.account)
        )
        return Slice(self.system, scope, period.start, period.end, self.wanted.text)

    @property
    def _root(self) -> str:
        return self.path.rstrip("/") if "://" in self.path else os.path.abspath(self.path)

    def _known(self) -> dict[str, list[Period]]:
        """Return what is in the files that the ledger has, by their digests.

        A version says of each file how many slices it has: where one of them is not in the ledger,
        nobody knows which that is, and the file has to be looked into.
        """
        counted: dict[str, int] = {}
        found: dict[str, list[Period]] = {}
        for one in self._mine():
            for token in (one.version or NOTHING).split():
                digest, _, count = token.partition("/")
                if count:
                    counted[digest] = int(count)
                    found.setdefault(digest, []).append(_period(one.slice))
        return {digest: there for digest, there in found.items() if len(there) == counted[digest]}

    def _mine(self) -> list[Published]:
        prefix = self._root.replace("|", "%7C") + SEPARATOR
        return [
            one
            for one in self.published
            if one.slice.scope.startswith(prefix) and one.slice.wanted == self.wanted.text
        ]

    def _look(self, connection: DuckDBPyConnection, entry: Entry) -> list[Period]:
        file = self._file(entry)
        return [period for group in grouped([file]) for period in periods(connection, group)]

    def _gone(self) -> list[Slice]:
        """Return slices of the ledger that the files lack, of periods that they have."""
        there = {slice_.start for slice_ in self._parts}
        return [
            one.slice
            for one in self._mine()
            if one.slice.start in there and one.slice not in self._parts
        ]

    def _warn(self) -> None:
        """Say where another path has brought the same account's period: it would count twice."""
        here = {_period(slice_): slice_ for slice_ in self._parts}
        for one in self.published:
            slice_ = here.get(_period(one.slice))
            if slice_ is not None and slice_.scope != one.slice.scope and one.last.rows:
                self.missing(
                    f"{slice_.told()} was also pulled from "
                    f"{one.slice.scope.partition(SEPARATOR)[0]}: both count, so they have to be "
                    "different deliveries"
                )

    # -- one slice ------------------------------------------------------------------------------

    def version(self, slice: Slice) -> str | None:  # noqa: A002  the word of the design
        """Return which files it is made of, as they are now."""
        parts = self._parts.get(slice)
        if not parts:
            return NOTHING
        counts: dict[Entry, int] = {}
        for others in self._parts.values():
            for part in others:
                counts[part.entry] = counts.get(part.entry, 0) + 1
        return " ".join(
            sorted(f"{self._place.now(part.entry).digest}/{counts[part.entry]}" for part in parts)
        )

    def plan(self, slices: Sequence[Slice]) -> Plan:
        """Say how many files will be read, and how large they are."""
        self._todo = set(slices)
        files = {part.entry for slice_ in slices for part in self._parts[slice_]}
        size = sum(entry.size for entry in files)
        return Plan((f"{len(files):,} files of {self.path}, {size / 1e6:,.1f} MB",))

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002  the word of the design
        """Hand over a slice's rows.

        Raises:
            PullError: a file cannot be had, has changed, or is not as FOCUS says.
        """
        parts = self._parts[slice]
        whole = [self._file(part.entry) for part in parts if part.alone]
        load(into, whole, where=self._where())
        shared = [part for part in parts if not part.alone]
        for part in shared:
            file = self._file(part.entry)
            (group,) = grouped([file])
            waiting = self._todo & self._slices_of(part.entry)
            if len(waiting) < SPLIT_FROM[group.form]:
                load(into, [file], where=f"{_is(part.period)} AND {self._where()}")
                continue
            if part.entry not in self._split:
                self._split_up(into.connection, part.entry, group, sorted(waiting))
            try:
                load(into, files_in(self._place_of(part.entry, slice)), where=self._where())
            except PullError:
                explain(group)
                raise

    def _where(self) -> str:
        service, resource = self.wanted.service, self.wanted.resource
        where = matching({"ServiceName": service} if service else {})
        if resource:
            where += f" AND {literal(resource)} IN (ResourceId, ResourceName)"
        return where

    def _file(self, entry: Entry) -> File:
        return File(self._place.fetch(entry, self._scratch.name), entry.address)

    def _slices_of(self, entry: Entry) -> set[Slice]:
        return {
            slice_
            for slice_, parts in self._parts.items()
            if any(part.entry == entry for part in parts)
        }

    # -- files of several slices ----------------------------------------------------------------

    def _place_of(self, entry: Entry, slice_: Slice) -> str:
        return os.path.join(self._scratch.name, f"{entry.digest}.split", f"part={slice_.name}")

    def _split_up(
        self, connection: DuckDBPyConnection, entry: Entry, group: Group, slices: Sequence[Slice]
    ) -> None:
        """Write what a file has of each of these slices to a folder of its own, in one reading.

        Raises:
            PullError: the file is not as FOCUS says.
        """
        self.progress(f"splitting {os.path.basename(entry.address)}", 0, None)
        keys = ", ".join(
            f"({', '.join(map(literal, (one.name, period.provider, period.account)))}, "
            f"TIMESTAMP '{period.start:%Y-%m-%d %H:%M:%S}')"
            for one in slices
            for period in [_period(one)]
        )
        connection.execute(f"SET partitioned_write_flush_threshold = {SPLIT_ROWS}")
        selected = query(connection, group)
        try:
            connection.execute(
                f"COPY (SELECT f.*, k.part FROM ({selected}) f JOIN (VALUES {keys}) "
                "k(part, provider, account, start) ON f.ProviderName = k.provider "
                "AND f.BillingAccountId = k.account AND f.BillingPeriodStart = k.start) "
                f"TO {literal(os.path.join(self._scratch.name, f'{entry.digest}.split'))} "
                "(FORMAT parquet, PARTITION_BY (part), COMPRESSION snappy)"
            )
        except duckdb_error() as error:
            explain(group)
            raise PullError(f"{entry.address}: {first_line(error)}") from None
        self._split.add(entry)


def _period(slice_: Slice) -> Period:
    """Return whose and which period a slice is, from its scope."""
    _, provider, account = (part.replace("%7C", "|") for part in slice_.scope.split(SEPARATOR))
    return Period(provider, account, slice_.start, slice_.end)


def _is(period: Period) -> str:
    """Return the condition that a row is of this period."""
    whose = matching({"ProviderName": period.provider, "BillingAccountId": period.account})
    return f"{whose} AND BillingPeriodStart = TIMESTAMP '{period.start:%Y-%m-%d %H:%M:%S}'"
