"""AWS Data Exports: CUR 2.0 and FOCUS, from S3 or from a folder, by their manifests.

An export is delivered to ``s3://bucket/prefix/export``; a copy of it in a folder is read as well::

    data/BILLING_PERIOD=2026-11/[<execution>/]<export>-00001.snappy.parquet
    metadata/BILLING_PERIOD=2026-11/<export>-Manifest.json

The manifest is written when all files are there, and names them: nothing is ever listed. A slice is
a billing period, and its version that of its manifest, so that what has not changed is asked for by
one HEAD. What a manifest names and is not there, is of another size or has fewer rows, is an error;
so is a file that is newer than its manifest, because then a delivery is under way.

Layout: docs.aws.amazon.com/cur/latest/userguide/dataexports-export-delivery.html. What stands in a
manifest beside the names of files is not documented: sizes and rows are held to where it says them.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime, timezone
from difflib import get_close_matches
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, cast

from costinsights.asking import NoSuchThing, patiently
from costinsights.billing.aws import AWSOptions, AWSPuller
from costinsights.billing.aws_usage_report import is_report, rows, told
from costinsights.billing.focus_files import (
    UNREADABLE,
    File,
    Group,
    duckdb_error,
    explain,
    first_line,
    grouped,
    header_of,
    query,
    source,
)
from costinsights.billing.puller import Plan, Puller, PullError, months
from costinsights.billing.services import AWS, BY_NAME
from costinsights.billing.slices import Slice
from costinsights.ledger.live import literal
from costinsights.systems.aws_s3 import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from duckdb import DuckDBPyConnection

    from costinsights.billing.puller import Loading

PIECE = 1024 * 1024
MOST_MANIFEST = 64 * 1024 * 1024
_PATHS = ("key", "path", "file", "name")
"""What a manifest may call a file's path, where it says more of a file than that."""
_PERIOD = re.compile(r"(?:^|/)(data/BILLING_PERIOD=(\d{4}-\d\d)/.+)$")


class DataExportsOptions(AWSOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[pull."aws.data_exports"]``. Credentials are boto3's own."""

    url: str | tuple[str, ...]
    """``s3://bucket/prefix/export``, or the folder of a copy; several are pulled side by side."""


class Found(NamedTuple):
    """A file of an export, as it is now."""

    tag: str
    size: int
    changed: datetime | None
    """When it was written, where that can be compared with the manifest's."""


class Part(NamedTuple):
    """A data file, as the manifest names it."""

    path: str
    """From the export's root: ``data/BILLING_PERIOD=2026-11/…``."""
    size: int | None = None
    rows: int | None = None


class Manifest(NamedTuple):
    """What was delivered of a billing period."""

    parts: tuple[Part, ...]
    columns: tuple[str, ...]
    found: Found


class Place(Protocol):
    """Where an export lies. Paths are from its root."""

    def look(self, path: str) -> Found | None:
        """Return what is there; None for nothing."""
        ...

    def read(self, path: str) -> bytes:
        """Return a small file."""
        ...

    def fetch(self, path: str, target: str) -> tuple[str, Found]:
        """Return where a file is on this machine, `target` where it had to be fetched."""
        ...


class DataExportsPuller(AWSPuller):
    """Pulls one export, or several beside each other."""

    system = "aws.data_exports"
    answers: ClassVar[Mapping[str, str]] = {"aws": "", "aws.s3": SERVICE}
    rank = 1
    configured_by = "url"
    granularities = ("daily", "hourly")
    grants = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", '
        '"Resource": "arn:aws:s3:::BUCKET/PREFIX/EXPORT/*"}, {"Effect": "Allow", "Action": '
        '"s3:ListBucket", "Resource": "arn:aws:s3:::BUCKET", "Condition": {"StringLike": '
        '{"s3:prefix": "PREFIX/EXPORT/*"}}}]}'
    )
    by_resource = "yes"
    verified = "emulator: moto 5; synthetic exports on disk"
    Options = DataExportsOptions
    options: DataExportsOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._place: Place | None = None

    @property
    def scope(self) -> str:
        """The export."""
        url = self.options.url
        one = url if isinstance(url, str) else url[0]
        return one.rstrip("/") if one.startswith("s3://") else os.path.abspath(one)

    def accounts(self) -> tuple[Puller, ...]:
        """Return a puller for each export."""
        url = self.options.url
        if isinstance(url, str):
            return (self,)
        return tuple(self._like(url=one) for one in url)

    def open(self) -> None:
        """Find out where the export is.

        Raises:
            PullError: it is at no such place.
        """
        scope = self.scope
        if not scope.startswith("s3://"):
            if "://" in str(self.options.url):
                raise PullError(f"{self.system}: {self.options.url} is neither s3:// nor a folder")
            if not os.path.isdir(scope):
                raise PullError(f"{self.system}: {scope} is no folder")
            self._place = _Folder(scope)
            return
        bucket, _, prefix = scope.removeprefix("s3://").partition("/")
        if not bucket or not prefix:
            raise PullError(f"{self.system}: url has to be  s3://bucket/prefix/export")
        self.connect()
        self._place = _Bucket(self, bucket, prefix)

    # -- what there is --------------------------------------------------------------------------

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        """Return the billing periods that the export has.

        Raises:
            PullError: it has none of them.
        """
        wanted = [
            Slice(self.system, self.scope, *month, self.wanted.text) for month in months(start, end)
        ]
        there = [one for one in wanted if self._manifest_of(one) is not None]
        if not there:
            raise PullError(
                f"{self.scope} has no manifest of {wanted[0].start:%Y-%m}: is that the export's "
                f"folder, with metadata/{_partition(wanted[0])}/{self._named} in it?"
            )
        for one in wanted:
            if one not in there:
                self.missing(f"{self.scope} has nothing of {one.start:%Y-%m}")
        return there

    def version(self, slice: Slice) -> str | None:  # noqa: A002
        """Return the version of the manifest."""
        found = self._manifest_of(slice)
        return None if found is None else found[1].tag

    def plan(self, slices: Sequence[Slice]) -> Plan:
        """Say which manifests are read."""
        return Plan(
            tuple(
                f"{self.scope}: {one.start:%Y-%m}, the files that its manifest names"
                for one in slices
            )
        )

    @property
    def _lies(self) -> Place:
        if self._place is None:
            raise PullError(f"{self.system} is not open")
        return self._place

    @property
    def _named(self) -> str:
        return f"{self.scope.rpartition('/')[2]}-Manifest.json"

    def _manifest_of(self, slice_: Slice) -> tuple[str, Found] | None:
        for name in (self._named, "Manifest.json"):
            path = f"metadata/{_partition(slice_)}/{name}"
            found = self._lies.look(path)
            if found is not None:
                return path, found
        return None

    def _manifest(self, slice_: Slice) -> Manifest:
        """Read the manifest of a slice.

        Raises:
            PullError: it is none, or names what cannot be of this slice.
        """
        place = self._manifest_of(slice_)
        if place is None:
            raise PullError(f"{self.scope}: the manifest of {slice_.start:%Y-%m} is gone")
        path, found = place
        if found.size > MOST_MANIFEST:
            raise PullError(f"{self.scope}: {path} is no manifest: it has {found.size:,} bytes")
        try:
            said = json.loads(self._lies.read(path))
        except ValueError:
            raise PullError(f"{self.scope}: {path} is no JSON") from None
        if not isinstance(said, dict):
            raise PullError(f"{self.scope}: {path} is no manifest")
        table = cast("dict[str, Any]", said)
        names = table.get("dataFiles") or table.get("reportKeys") or ()
        parts = tuple(self._part(slice_, one) for one in names)
        if not parts:
            raise PullError(f"{self.scope}: {path} names no files")
        paths = [part.path for part in parts]
        if len(set(paths)) < len(paths):
            raise PullError(f"{self.scope}: {path} names a file twice")
        return Manifest(parts, tuple(_names(table.get("columns") or ())), found)

    def _part(self, slice_: Slice, said: object) -> Part:
        """Return a file that the manifest names: by text, or by a table that says more of it."""
        table: dict[str, Any] = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
        name = str(next((table[key] for key in _PATHS if key in table), cast("Any", said)))
        inside = _PERIOD.search(name)
        start = f"{slice_.start:%Y-%m}"
        if inside is None or inside[2] != start or ".." in name.split("/"):
            raise PullError(
                f"{self.scope}: the manifest of {start} names {name}, which is not of it"
            )
        both = name.startswith("s3://") and self.scope.startswith("s3://")
        if both and name != f"{self.scope}/{inside[1]}":
            raise PullError(
                f"{self.scope}: the manifest of {start} names {name}, which is elsewhere"
            )
        size, rows = table.get("size"), table.get("rowCount", table.get("rows"))
        return Part(
            inside[1],
            size if isinstance(size, int) else None,
            rows if isinstance(rows, int) else None,
        )

    # -- rows -----------------------------------------------------------------------------------

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002
        """Fetch what the manifest names, and hand over its rows.

        Raises:
            PullError: something is missing, or is not as the manifest says.
        """
        manifest = self._manifest(slice)
        files: list[File] = []
        for number, part in enumerate(manifest.parts):
            self.progress(f"fetching {slice.start:%Y-%m}", number, len(manifest.parts))
            name = f"{number:05}-{os.path.basename(part.path)}"
            files.append(self._fetched(part, manifest, os.path.join(into.scratch, name)))
        groups = self._grouped(files, manifest)
        for file, part in zip(files, manifest.parts, strict=True):
            _check_rows(into.connection, file, part, groups)
        found = False
        for group in groups:
            found = self._hand_over(into, group) or found
        if not found and self.wanted.text:
            self._make_sure(into.connection, groups)

    def _fetched(self, part: Part, manifest: Manifest, target: str) -> File:
        name = f"{self.scope}/{part.path}"
        path, found = self._lies.fetch(part.path, target)
        if part.size is not None and found.size != part.size:
            raise PullError(
                f"{name} has {found.size:,} bytes, and the manifest says {part.size:,}: pull again "
                "when the delivery is over"
            )
        newest = manifest.found.changed
        if found.changed is not None and newest is not None and found.changed > newest:
            raise PullError(
                f"{name} is newer than its manifest: a delivery is under way, pull again later"
            )
        return File(path, name)

    def _grouped(self, files: Sequence[File], manifest: Manifest) -> list[Group]:
        """Put files together that have the same columns: usage reports, or FOCUS."""
        reports: dict[tuple[Any, tuple[str, ...]], list[File]] = {}
        others: list[File] = []
        for file in files:
            try:
                form, header = header_of(file.path)
            except UNREADABLE as error:
                raise PullError(f"{file.told} cannot be read: {type(error).__name__}") from None
            lacking = [name for name in manifest.columns if name not in header]
            if lacking:
                raise PullError(
                    f"{file.told} has no {', '.join(lacking)}, and the manifest says that it has"
                )
            if is_report(header):
                reports.setdefault((form, header), []).append(file)
            else:
                others.append(file)
        found = [Group(form, header, tuple(same)) for (form, header), same in reports.items()]
        return [*found, *grouped(others)]

    def _selected(self, connection: DuckDBPyConnection, group: Group) -> str:
        """Return the SELECT of a group's rows, all of them."""
        if is_report(group.header):
            plain, service = rows(connection, group, self.options.record_types), "x_ServiceCode"
        else:
            plain = query(connection, group)
            service = "x_ServiceCode" if "x_ServiceCode" in group.names else "ServiceName"
        names = [row[0] for row in connection.execute(f"DESCRIBE {plain}").fetchall()]
        return f"SELECT * FROM ({told(connection, plain, names, service)}) WHERE {self._where()}"

    def _where(self) -> str:
        service, resource = self.wanted.service, self.wanted.resource
        conditions: list[str] = []
        if service:
            conditions.append(f"ServiceName = {literal(service)}")
        if resource:
            ids = (resource, f"arn:aws:s3:::{resource}")
            conditions.append(f"ResourceId IN ({', '.join(map(literal, ids))})")
        return " AND ".join(conditions) or "true"

    def _hand_over(self, into: Loading, group: Group) -> bool:
        """Hand over the rows of a group; return whether there are any."""
        try:
            selected = self._selected(into.connection, group)
            self._check_hours(into.connection, selected)
            into.select(selected)
            if not self.wanted.text:
                return True
            return into.connection.execute(f"{selected} LIMIT 1").fetchone() is not None
        except (PullError, duckdb_error()) as error:
            if not is_report(group.header):
                explain(group)
            why = str(error) if isinstance(error, PullError) else first_line(error)
            raise PullError(f"{group.files[0].told}: {why}") from None

    def _check_hours(self, connection: DuckDBPyConnection, selected: str) -> None:
        if self.granularity != "hourly":
            return
        found = connection.execute(
            "SELECT bool_or(ChargePeriodEnd - ChargePeriodStart <= INTERVAL 1 HOUR) "
            f"FROM ({selected}) WHERE ChargeCategory = 'Usage'"
        ).fetchone()
        if found is not None and found[0] is False:
            raise PullError("it has days, and no hours: they are chosen when an export is made")

    def _make_sure(self, connection: DuckDBPyConnection, groups: Sequence[Group]) -> None:
        """Find out whether nothing is true: of a name that is misspelt there is nothing either.

        Raises:
            PullError: the export knows no such service.
        """
        service = self.wanted.service
        known = BY_NAME.get(service)
        if not service or (known is not None and known.provider == AWS):
            return
        names: set[str] = set()
        for group in groups:
            everything = (
                rows(connection, group, {}) if is_report(group.header) else query(connection, group)
            )
            found = connection.execute(
                f"SELECT DISTINCT ServiceName FROM ({everything})"
            ).fetchall()
            names.update(str(name) for (name,) in found)
        if service not in names:
            near = get_close_matches(service, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else "it may have cost nothing in that time"
            raise PullError(f"{self.scope}: there is no service {service!r}; {hint}")


def _partition(slice_: Slice) -> str:
    return f"BILLING_PERIOD={slice_.start:%Y-%m}"


def _names(columns: Sequence[object]) -> Iterator[str]:
    """Yield the columns that a manifest says the files have."""
    for column in columns:
        table = cast("dict[str, Any]", column) if isinstance(column, dict) else {}
        name = table.get("name", column)
        if isinstance(name, str):
            yield name


def _check_rows(
    connection: DuckDBPyConnection, file: File, part: Part, groups: Sequence[Group]
) -> None:
    """Make sure that a file has as many rows as the manifest says, where it does.

    Raises:
        PullError: it has more or fewer.
    """
    if part.rows is None:
        return
    group = next(one for one in groups if file in one.files)
    found = connection.execute(
        f"SELECT count(*) FROM {source(group._replace(files=(file,)))}"
    ).fetchone()
    count = found[0] if found else 0
    if count != part.rows:
        raise PullError(f"{file.told} has {count:,} rows, and the manifest says {part.rows:,}")


class _Folder:
    """A copy of an export on this machine."""

    def __init__(self, root: str) -> None:
        self._root = root

    def look(self, path: str) -> Found | None:
        """Look at a file. What it is known by is its contents: it is a manifest that is looked at."""
        try:
            with open(os.path.join(self._root, path), "rb") as file:
                data = file.read(MOST_MANIFEST + 1)
                changed = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PullError(f"{self._root}: {path} cannot be read: {error.strerror}") from None
        digest = blake2b(data, digest_size=12).hexdigest()
        return Found(f"{digest}-{changed}", len(data), None)

    def read(self, path: str) -> bytes:
        """Read a file."""
        with open(os.path.join(self._root, path), "rb") as file:
            return file.read()

    def fetch(self, path: str, target: str) -> tuple[str, Found]:
        """Return where the file lies; `target` is not needed."""
        del target
        there = os.path.join(self._root, path)
        try:
            size = os.stat(there).st_size
        except OSError:
            raise PullError(f"{there} is not there, and the manifest names it") from None
        return there, Found("", size, None)


class _Bucket:
    """An export in S3."""

    def __init__(self, puller: AWSPuller, bucket: str, prefix: str) -> None:
        self._puller = puller
        self._bucket = bucket
        self._prefix = prefix

    def _key(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}/{path}"}

    def look(self, path: str) -> Found | None:
        """Ask for an object's head."""
        try:
            answer = patiently(
                self._puller,
                f"HeadObject {path}",
                lambda: self._puller.client("s3").head_object(**self._key(path)),
            )
        except NoSuchThing:
            return None
        # A manifest that says the same again has the same entity tag, and its files have changed.
        changed = answer["LastModified"].astimezone(timezone.utc)
        tag = f"{answer['ETag']} {changed:%Y-%m-%dT%H:%M:%SZ}"
        return Found(tag, answer["ContentLength"], changed)

    def read(self, path: str) -> bytes:
        """Read a small object."""

        def read() -> bytes:
            answer = self._puller.client("s3").get_object(**self._key(path))
            data: bytes = answer["Body"].read()
            return data

        return patiently(self._puller, f"GetObject {path}", read)

    def fetch(self, path: str, target: str) -> tuple[str, Found]:
        """Bring an object here, piece by piece."""

        def fetch() -> Found:
            answer = self._puller.client("s3").get_object(**self._key(path))
            size: int = answer["ContentLength"]
            got = 0
            with open(target, "wb") as file:
                for piece in answer["Body"].iter_chunks(PIECE):
                    got += file.write(piece)
            if got != size:
                raise _BrokenOff
            return Found(answer["ETag"], size, answer["LastModified"].astimezone(timezone.utc))

        try:
            return target, patiently(self._puller, f"GetObject {path}", fetch)
        except NoSuchThing:
            raise PullError(
                f"s3://{self._bucket}/{self._prefix}/{path} is not there, and the manifest names it"
            ) from None


class _BrokenOff(Exception):
    """An object came in part only."""

    error_code = "IncompleteRead"
