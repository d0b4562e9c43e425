"""Azure's bill from Cost Management's exports: FOCUS, actual and amortized, from a storage account.

An export writes a run into a folder: parts, CSV or Parquet, and at last ``manifest.json``, which names
the parts and says how many rows and bytes each has. So the manifests are looked for, and nothing
counts that none of them names. Where a run is written over the last one, its manifest's entity tag
changes; where each has a folder of its own, the newest that reaches furthest counts.

Of a scope's month, a FOCUS export is taken where there is one; else the amortized one, with the
purchases of reservations and savings plans from the actual one; else whichever of these there is.

A slice is a calendar month of a scope. Azure writes a month again until the fifth day after it.

Facts: azure-docs, cost-management-billing/costs/tutorial-improved-exports.md (manifest, partitions,
two runs a day at the beginning of a month); azure-storage-blob 12.31.1.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from costinsights.asking import pages, patiently
from costinsights.billing import azure_classic, focus_files
from costinsights.billing.azure_classic import ACTUAL, AMORTIZED, USAGE
from costinsights.billing.focus_files import File, Group
from costinsights.billing.puller import (
    DAY,
    Plan,
    Puller,
    PullError,
    Slice,
    end_of_month,
    months,
)
from costinsights.ledger.columns import quoted
from costinsights.ledger.live import literal
from costinsights.ledger.store import unglobbed
from costinsights.systems import azure_storage as storage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from costinsights.billing.puller import Loading

FOCUS = "FocusCost"
MANIFEST = "manifest.json"
TIMEOUT_SECONDS = 120
_PERIOD = re.compile(r"(?:^|/)(\d{8})-(\d{8})(?:/|$)")
_EXPORT = re.compile(r"/providers/microsoft\.costmanagement/exports/", re.IGNORECASE)
_PATH_STYLE = re.compile(r"localhost|[\d.]+|\[.*\]")
_PERIOD_END = "date_trunc('day', BillingPeriodEnd + INTERVAL 1 SECOND) AS BillingPeriodEnd"
"""Some exports end a period at 23:59:59.999. [microsoft/finops-toolkit, docs-mslearn/focus/conformance]"""
_NO_METERS = "(NULL::VARCHAR, NULL::VARCHAR, NULL::VARCHAR, NULL::VARCHAR, NULL::VARCHAR)"
_NAMES = ("Storage", "Storage Accounts", "Azure Storage")
"""What FOCUS exports and meters call storage."""


class AzureExportsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[pull."azure.exports"]``. Credentials are azure-identity's `DefaultAzureCredential`."""

    url: str
    """Where exports are: ``https://<account>.blob.core.windows.net/<container>/<folder>``, or a
    folder on this machine that has been copied from there. Several exports may be below it."""
    account_key: str = ""
    """A key of the storage account, in place of a credential."""
    sas_token: str = ""
    """A shared access signature (read and list), in place of a credential."""


class _Blob(msgspec.Struct, rename="camel"):
    blob_name: str
    byte_count: int | None = None
    data_row_count: int | None = None


class _Config(msgspec.Struct, rename="camel"):
    type: str
    export_name: str = ""
    resource_id: str = ""


class _Info(msgspec.Struct, rename="camel"):
    start_date: str
    end_date: str
    submitted_time: str = ""
    run_id: str = ""


class _Manifest(msgspec.Struct, rename="camel"):
    export_config: _Config
    run_info: _Info
    blobs: list[_Blob]
    blob_count: int | None = None
    data_row_count: int | None = None


class Entry(NamedTuple):
    """A file as its place lists it."""

    name: str
    """From the container, or from the folder on this machine."""
    size: int
    tag: str
    """What changes with its contents."""


class _Run(NamedTuple):
    """One run of an export, as its manifest has it."""

    manifest: Entry
    kind: str
    scope: str
    start: datetime
    end: datetime
    """The last day that it has, at midnight."""
    submitted: str
    id: str
    blobs: tuple[_Blob, ...]

    def reaches(self, month: datetime) -> datetime | None:
        """Return the last day that it has of a month; None if it does not have its beginning.

        A run has nothing of days after it was made, whatever its period.
        """
        last = min(self.end, end_of_month(month) - DAY)
        made = _moment(self.submitted)
        if made is not None:
            last = min(last, made)
        return last if self.start <= month <= last else None


class AzureExportsPuller(Puller):
    """Reads what exports have written."""

    system = "azure.exports"
    provider = "Microsoft"
    answers: ClassVar[Mapping[str, str]] = {"azure": "", storage.SYSTEM: storage.STORAGE}
    rank = 1
    configured_by = "url"
    restated = timedelta(days=5)
    grants = (
        'az role assignment create --role "Storage Blob Data Reader" --assignee … --scope '
        "/subscriptions/…/resourceGroups/…/providers/Microsoft.Storage/storageAccounts/<account>"
        "/blobServices/default/containers/<container>"
    )
    by_resource = "yes"
    verified = "emulator: Azurite 3; files in the documented layout"
    dependencies = "costinsights[azure_storage_blob]"
    Options = AzureExportsOptions
    options: AzureExportsOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._place: _Place | None = None
        self._entries: list[Entry] = []
        self._known: dict[Entry, _Run | None] = {}
        self._chosen: dict[Slice, tuple[_Run, ...]] = {}

    # -- coming and going -----------------------------------------------------------------------

    def open(self) -> None:
        """Find the place. Nothing is read yet.

        Raises:
            PullError: it is no address, or azure-storage-blob is missing.
        """
        if "://" not in self.options.url:
            self._place = _Folder(self.options.url)
            return
        try:
            self._place = _Container(self)
        except ImportError:
            raise PullError(f"{self.system}: run  pip install {self.dependencies}") from None

    def close(self) -> None:
        """Hang up."""
        if self._place is not None:
            self._place.close()
            self._place = None

    def renew(self) -> None:
        """Connect anew, to the same place."""
        self._at.renew()

    @property
    def _at(self) -> _Place:
        if self._place is None:
            raise PullError(f"{self.system}: it is not open")
        return self._place

    # -- which slices there are -----------------------------------------------------------------

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        """Return a slice for each month of each scope that a run has.

        Raises:
            PullError: there is no manifest, or one cannot be read.
        """
        self._entries = self._at.manifests()
        if not self._entries:
            raise PullError(f"{self.system}: there is no {MANIFEST} below {self._at.told}")
        wanted = months(start, end)
        runs = list(self._runs(wanted[0][0], wanted[-1][1]))
        found: list[Slice] = []
        for scope in sorted({run.scope for run in runs}):
            mine = [run for run in runs if run.scope == scope]
            for month in wanted:
                slice_ = Slice(self.system, scope, *month, self.wanted.text)
                self._chosen[slice_] = _choose(mine, slice_.start)
                if self._chosen[slice_]:
                    found.append(slice_)
                elif any(run.start < slice_.end and run.end >= slice_.start for run in mine):
                    self.missing(
                        f"{scope}: no run of an export has {slice_.start:%Y-%m} from its first day on"
                    )
        return found

    def _of(self, slice_: Slice) -> tuple[_Run, ...]:
        """Return the runs that a slice is made of; it may be one of the ledger, of another time."""
        if slice_ not in self._chosen:
            runs = self._runs(slice_.start, slice_.end)
            mine = [run for run in runs if run.scope == slice_.scope]
            self._chosen[slice_] = _choose(mine, slice_.start)
        return self._chosen[slice_]

    def _runs(self, start: datetime, end: datetime) -> Iterator[_Run]:
        """Yield the runs that may have something of a time."""
        for entry in self._entries:
            period = _PERIOD.search(entry.name)
            if period is not None:
                first, last = _moment(period[1]), _moment(period[2])
                if first is not None and last is not None and (last < start or first >= end):
                    continue
            if entry not in self._known:
                self._known[entry] = self._run(entry)
            run = self._known[entry]
            if run is not None and run.start < end and run.end >= start:
                yield run

    def _run(self, entry: Entry) -> _Run | None:
        """Return the run of a manifest; None for an export of something else."""
        try:
            manifest = msgspec.json.decode(self._at.read(entry), type=_Manifest)
        except msgspec.MsgspecError as error:
            raise PullError(f"{entry.name} cannot be read: {error}") from None
        config, info = manifest.export_config, manifest.run_info
        if config.type not in (FOCUS, ACTUAL, AMORTIZED, USAGE):
            return None  # price sheets, reservations
        start, end = _moment(info.start_date), _moment(info.end_date)
        if start is None or end is None:
            raise PullError(f"{entry.name}: its period is none")
        counts = [blob.data_row_count for blob in manifest.blobs]
        if manifest.blob_count not in (None, len(manifest.blobs)):
            raise PullError(
                f"{entry.name} names {len(manifest.blobs)} files and says {manifest.blob_count}"
            )
        if manifest.data_row_count is not None and None not in counts:
            total = sum(count for count in counts if count is not None)
            if total != manifest.data_row_count:
                raise PullError(
                    f"{entry.name}: its files have {total:,} rows, and in all it says "
                    f"{manifest.data_row_count:,}"
                )
        scope = _EXPORT.split(config.resource_id, maxsplit=1)[0] or self.options.url
        return _Run(
            entry,
            config.type,
            scope,
            start,
            end,
            info.submitted_time,
            info.run_id,
            tuple(manifest.blobs),
        )

    def version(self, slice: Slice) -> str | None:  # noqa: A002  the word of the design
        """Return which runs a slice is made of; of one that is gone from here, what it was."""
        runs = self._of(slice)
        if not runs:
            return next((one.version for one in self.published if one.slice == slice), None)
        return " ".join(f"{run.kind}:{run.id or run.submitted}:{run.manifest.tag}" for run in runs)

    def plan(self, slices: Sequence[Slice]) -> Plan:
        """Say which runs will be read, and how large they are."""
        reads: list[str] = []
        for slice_ in slices:
            for run in self._of(slice_):
                size = sum(blob.byte_count or 0 for blob in run.blobs)
                reads.append(
                    f"{run.kind} of {run.scope}, {slice_.start:%Y-%m}: {len(run.blobs)} files, "
                    f"{size / 1e6:,.1f} MB"
                )
        return Plan(tuple(reads))

    # -- one slice ------------------------------------------------------------------------------

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002
        """Hand over the rows of a month.

        Raises:
            PullError: a file is not there, is not as long as the manifest says, has changed while it
                was read, or has what it cannot have.
        """
        runs = self._of(slice)
        if not runs:
            raise PullError(f"{slice.told()}: no run of an export has it from its first day on")
        both = len(runs) > 1
        if [run.kind for run in runs] == [AMORTIZED]:
            self.missing(
                f"{slice.scope}: there is an export of amortized costs alone: what was paid for "
                "reservations and savings plans is not in the bill"
            )
        for run in runs:
            for blob in run.blobs:
                file = self._staged(into, self._fetch(run, blob, into.scratch))
                self._count(into, file, blob)
                if run.kind == FOCUS:
                    self._focus(slice, into, file)
                else:
                    self._classic(slice, into, run, file, purchases=both)
                if file.path.startswith(into.scratch):
                    os.unlink(file.path)
            if self._at.now(run.manifest) != run.manifest:
                raise PullError(f"{slice.told()} has changed while it was read: pull it again")

    def _fetch(self, run: _Run, blob: _Blob, scratch: str) -> File:
        entry = self._at.find(run.manifest, blob.blob_name.strip())
        if blob.byte_count is not None and entry.size != blob.byte_count:
            raise PullError(
                f"{entry.name} has {entry.size:,} bytes, and its manifest says {blob.byte_count:,}"
            )
        return File(self._at.fetch(entry, scratch), entry.name)

    def _staged(self, into: Loading, file: File) -> File:
        """Return a file as Parquet: CSV is parsed once, and not once for each look at it."""
        try:
            form, header = focus_files.header_of(file.path)
        except focus_files.UNREADABLE as error:
            raise PullError(f"{file.told} cannot be read: {type(error).__name__}") from None
        if form == "parquet":
            return file
        if len({name.lower() for name in header}) != len(header):
            raise PullError(f"{file.told}: a column comes twice")
        path = os.path.join(into.scratch, f"{os.path.basename(file.path)[-100:]}.parquet")
        source = focus_files.source(Group(form, header, (file,)))
        self._execute(
            into,
            file,
            f"COPY (SELECT * FROM {source}) TO {literal(path)} (FORMAT parquet, COMPRESSION snappy)",
        )
        if file.path.startswith(into.scratch):
            os.unlink(file.path)
        return File(path, file.told)

    def _count(self, into: Loading, file: File, blob: _Blob) -> None:
        """Hold the number of rows against the manifest's.

        Raises:
            PullError: it is another.
        """
        path = literal(unglobbed(file.path))
        [(rows,)] = self._execute(into, file, f"SELECT count(*) FROM read_parquet([{path}])")
        if blob.data_row_count not in (None, rows):
            raise PullError(
                f"{file.told} has {rows:,} rows, and its manifest says {blob.data_row_count:,}"
            )

    def _focus(self, slice_: Slice, into: Loading, file: File) -> None:
        for group in focus_files.grouped([file], provider=self.provider):
            selected = focus_files.query(into.connection, group)
            names = {name.lower(): quoted(name) for name in group.names}
            category, below, meter, resource = (
                names.get(name, "CAST(NULL AS VARCHAR)")
                for name in (
                    "x_skumetercategory",
                    "x_skumetersubcategory",
                    "skumeter" if "skumeter" in names else "x_skumetername",
                    "resourceid",
                )
            )
            try:
                self._select(
                    slice_,
                    into,
                    file,
                    f"SELECT * REPLACE ({_PERIOD_END}), {meter} AS x_UsageType FROM ({selected})",
                    (category, below, meter, resource),
                )
            except PullError:
                focus_files.explain(group)
                raise

    def _classic(
        self, slice_: Slice, into: Loading, run: _Run, file: File, *, purchases: bool
    ) -> None:
        source, have = azure_classic.source(file)
        selected = azure_classic.rows(file, source, have, run.kind)
        if purchases and run.kind == ACTUAL:
            selected = azure_classic.purchases(selected)
        category, below, meter, resource = (
            column if name in have else "CAST(NULL AS VARCHAR)"
            for name, column in (
                ("metercategory", "x_SkuMeterCategory"),
                ("metersubcategory", "x_SkuMeterSubcategory"),
                ("metername", "SkuMeter"),
                ("resourceid", "ResourceId"),
            )
        )
        self._select(slice_, into, file, selected, (category, below, meter, resource))

    def _select(
        self,
        slice_: Slice,
        into: Loading,
        file: File,
        query: str,
        columns: tuple[str, str, str, str],
    ) -> None:
        """Hand over rows, with what their meters count.

        `columns` are the meter's category, subcategory and name, and the resource.
        """
        category, below, meter, resource = columns
        both = ", ".join(literal(name) for name in (storage.STORAGE, storage.BANDWIDTH))
        found = self._execute(
            into,
            file,
            f"SELECT DISTINCT {category}, {below}, {meter} FROM ({query}) "
            f"WHERE {category} IN ({both}) AND {meter} IS NOT NULL",
        )
        kinds = [
            (
                one,
                two,
                three,
                storage.usage_kind(one, two or "", three),
                storage.storage_class(two or "", three),
            )
            for one, two, three in found
        ]
        values = ", ".join(f"({', '.join(map(_word, row))})" for row in kinds) or _NO_METERS
        system = (
            f"CASE WHEN contains(lower({resource}), {literal(storage.ACCOUNTS)}) AND {category} "
            f"IN ({both}) THEN {literal(storage.SYSTEM)} END"
        )
        try:
            into.select(
                "SELECT f.* EXCLUDE (c, b, m, system), k.kind AS x_UsageKind, k.class AS x_StorageClass, "
                f"f.system AS x_System FROM (SELECT *, {category} AS c, {below} AS b, {meter} AS m, "
                f"{system} AS system FROM ({query}) WHERE {self._where(slice_, category, resource)}) f "
                f"LEFT JOIN (VALUES {values}) k(c, b, m, kind, class) ON f.c = k.c AND f.m = k.m "
                "AND f.b IS NOT DISTINCT FROM k.b"
            )
        except PullError as error:
            raise PullError(f"{file.told}: {error}") from None

    def _execute(self, into: Loading, file: File, query: str) -> list[tuple[Any, ...]]:
        try:
            return into.connection.execute(query).fetchall()
        except focus_files.duckdb_error() as error:
            raise PullError(f"{file.told}: {focus_files.first_line(error)}") from None

    def _where(self, slice_: Slice, category: str, resource: str) -> str:
        """Return the condition that a row is of this month, and wanted."""
        bounds = (f"TIMESTAMP '{moment:%Y-%m-%d}'" for moment in (slice_.start, slice_.end))
        conditions = ["ChargePeriodStart >= {} AND ChargePeriodStart < {}".format(*bounds)]
        service = self.wanted.service
        if service == storage.STORAGE:
            conditions.append(
                f"(ServiceName IN ({', '.join(map(literal, _NAMES))}) "
                f"OR {category} = {literal(storage.STORAGE)} "
                f"OR ({category} = {literal(storage.BANDWIDTH)} "
                f"AND contains(lower({resource}), {literal(storage.ACCOUNTS)})))"
            )
        elif service:
            conditions.append(f"{literal(service)} IN (ServiceName, {category})")
        if self.wanted.resource:
            name = literal(self.wanted.resource.lower())
            conditions.append(f"{name} IN (lower({resource}), lower(ResourceName))")
        return " AND ".join(conditions)


def _choose(runs: Sequence[_Run], month: datetime) -> tuple[_Run, ...]:
    """Return the runs that a month is made of."""
    best: dict[str, _Run] = {}
    for run in runs:
        reach = run.reaches(month)
        if reach is None:
            continue
        known = best.get(run.kind)
        if known is None or (reach, run.submitted) > (known.reaches(month), known.submitted):
            best[run.kind] = run
    if FOCUS in best:
        return (best[FOCUS],)
    if AMORTIZED in best:
        return tuple(best[kind] for kind in (AMORTIZED, ACTUAL) if kind in best)
    return tuple(best[kind] for kind in (ACTUAL, USAGE) if kind in best)[:1]


def _word(value: str | None) -> str:
    return "NULL" if value is None else literal(value)


def _moment(text: str) -> datetime | None:
    """Return the day that a text of Azure's begins with, at midnight."""
    digits = text[:10].replace("-", "")[:8]
    try:
        return datetime.strptime(digits, "%Y%m%d").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


# -- where exports are ----------------------------------------------------------------------------


class _Place(Protocol):
    """A folder on this machine, or one in a container."""

    @property
    def told(self) -> str:
        """Its address, for messages."""
        ...

    def manifests(self) -> list[Entry]:
        """List the manifests in it."""
        ...

    def read(self, entry: Entry) -> bytes:
        """Return what is in a small file."""
        ...

    def find(self, manifest: Entry, name: str) -> Entry:
        """Return the file that a manifest names."""
        ...

    def fetch(self, entry: Entry, folder: str) -> str:
        """Return where the file is on this machine; `folder` may be used for it."""
        ...

    def now(self, entry: Entry) -> Entry:
        """Return what the file is now."""
        ...

    def renew(self) -> None:
        """Connect anew."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def _beside(manifest: Entry, name: str) -> str:
    """Return the name of a file in the manifest's own folder."""
    folder = manifest.name.rpartition("/")[0]
    return f"{folder}/{name.rpartition('/')[2]}" if folder else name.rpartition("/")[2]


class _Folder:
    """A folder on this machine: a container's, or one of those in it."""

    def __init__(self, path: str) -> None:
        self._root = os.path.abspath(path)
        self.told = self._root

    def manifests(self) -> list[Entry]:
        found: list[Entry] = []
        for folder, folders, names in os.walk(self._root):
            folders.sort()
            if MANIFEST in names:
                path = os.path.join(folder, MANIFEST)
                found.append(self._entry(os.path.relpath(path, self._root)))
        return found

    def read(self, entry: Entry) -> bytes:
        with open(self._path(entry.name), "rb") as file:
            return file.read()

    def find(self, manifest: Entry, name: str) -> Entry:
        for one in (name, _beside(manifest, name)):
            path = os.path.normpath(self._path(one))
            # A name may lead nowhere else.
            if path.startswith(f"{self._root}{os.sep}") and os.path.isfile(path):
                return self._entry(one)
        raise PullError(f"{manifest.name} names {name}, which is not there")

    def fetch(self, entry: Entry, folder: str) -> str:
        return self._path(entry.name)

    def now(self, entry: Entry) -> Entry:
        return self._entry(entry.name)

    def renew(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _entry(self, name: str) -> Entry:
        try:
            found = os.stat(self._path(name))
        except OSError as error:
            raise PullError(f"{name} cannot be read: {error.strerror}") from None
        return Entry(name.replace(os.sep, "/"), found.st_size, str(found.st_mtime_ns))


class _Container:
    """A container of a storage account, or a folder in it."""

    def __init__(self, puller: AzureExportsPuller) -> None:
        self._puller = puller
        options = puller.options
        parts = urlsplit(options.url)
        path = [unquote(part) for part in parts.path.split("/") if part]
        host = parts.netloc.replace(".dfs.", ".blob.", 1)
        account = f"{parts.scheme}://{host}"
        if path and _PATH_STYLE.fullmatch(parts.hostname or ""):
            account += f"/{path.pop(0)}"  # an emulator's address has the account behind the host
        if parts.scheme not in ("http", "https") or not path:
            raise PullError(
                f'[pull."{puller.system}"]: url is no https://<account>.blob.core.windows.net/'
                "<container>/<folder>, and no folder"
            )
        self._prefix = "".join(f"{part}/" for part in path[1:])
        self.told = f"{account}/{path[0]}/{self._prefix}"
        self._where = account, path[0]
        self._core: Any = import_module("azure.core")
        self._connect()

    def _connect(self) -> None:
        library: Any = import_module("azure.storage.blob")
        options = self._puller.options
        self._credential: Any = None
        if options.account_key:
            given: Any = options.account_key
        elif options.sas_token:
            credentials: Any = import_module("azure.core.credentials")
            given = credentials.AzureSasCredential(options.sas_token.lstrip("?"))
        else:
            identity: Any = import_module("azure.identity")
            given = self._credential = identity.DefaultAzureCredential()
        self._client: Any = library.ContainerClient(
            *self._where,
            credential=given,
            retry_total=0,  # `patiently` does that
            connection_timeout=TIMEOUT_SECONDS,
            read_timeout=TIMEOUT_SECONDS,
            user_agent="costinsights",
        )

    def manifests(self) -> list[Entry]:
        def ask(token: str | None) -> tuple[list[Entry], str | None]:
            found = self._client.list_blobs(name_starts_with=self._prefix or None).by_page(token)
            page = [Entry(one.name, one.size, one.etag.strip('"')) for one in next(found, ())]
            return page, found.continuation_token

        listed = pages(
            self._puller, f"list of {self.told}", ask, lambda answer: answer[1], whole=True
        )
        return [
            entry
            for page, _ in listed
            for entry in page
            if entry.name.rpartition("/")[2] == MANIFEST
        ]

    def read(self, entry: Entry) -> bytes:
        def get() -> bytes:
            return bytes(self._client.download_blob(entry.name, **self._only(entry)).readall())

        return patiently(self._puller, f"reading {entry.name}", get)

    def find(self, manifest: Entry, name: str) -> Entry:
        for one in dict.fromkeys((name, _beside(manifest, name))):
            found = self._look(one)
            if found is not None:
                return found
        raise PullError(f"{manifest.name} names {name}, which is not there")

    def fetch(self, entry: Entry, folder: str) -> str:
        path = os.path.join(folder, re.sub(r"[^\w.-]", "_", entry.name)[-200:])

        def get() -> None:
            with open(path, "wb") as file:
                self._client.download_blob(entry.name, **self._only(entry)).readinto(file)

        patiently(self._puller, f"reading {entry.name}", get)
        if os.path.getsize(path) != entry.size:
            raise PullError(f"{entry.name} gave fewer bytes than it has")
        return path

    def now(self, entry: Entry) -> Entry:
        return self._look(entry.name) or entry._replace(tag="")

    def renew(self) -> None:
        self.close()
        self._connect()

    def close(self) -> None:
        self._client.close()
        if self._credential is not None:
            self._credential.close()

    def _look(self, name: str) -> Entry | None:
        def get() -> Entry | None:
            exceptions: Any = import_module("azure.core.exceptions")
            try:
                found = self._client.get_blob_client(name).get_blob_properties()
            except exceptions.ResourceNotFoundError:
                return None
            return Entry(name, int(found.size), str(found.etag).strip('"'))

        return patiently(self._puller, f"looking at {name}", get)

    def _only(self, entry: Entry) -> dict[str, Any]:
        """Return what asks for a file only as it was listed."""
        condition = self._core.MatchConditions.IfNotModified
        return {"etag": f'"{entry.tag}"', "match_condition": condition}
