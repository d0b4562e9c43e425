"""Where FOCUS files lie: a file or folder on this machine, or a prefix of an object storage.

    place = place_of(puller, "s3://bucket/focus")
    for entry in place.entries():
        path = place.fetch(entry, folder)

Clients are the providers' own, imported when they are asked. What is fetched is what was listed: an
object that has changed in between is an error. Nothing is ever written.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from costinsights.asking import pages, patiently
from costinsights.billing.focus_files import SUFFIXES
from costinsights.billing.puller import Puller, PullError

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_SECONDS = 60
CHUNK = 4 * 1024 * 1024


class Entry(NamedTuple):
    """A file as its place lists it."""

    address: str
    """Its path, or ``s3://bucket/key``."""
    size: int
    tag: str
    """What changes with its contents: an entity tag, a generation, a time."""

    @property
    def digest(self) -> str:
        """Short text that stands for this very file with these very contents."""
        return blake2b(repr(tuple(self)).encode(), digest_size=6).hexdigest()


class Place(Protocol):
    """A path and the files in it."""

    def entries(self) -> list[Entry]:
        """List the FOCUS files, by name.

        Raises:
            PullError: they cannot be listed.
        """
        ...

    def fetch(self, entry: Entry, folder: str) -> str:
        """Return where the file is on this machine, once it is there; `folder` may be used for it.

        Raises:
            PullError: it cannot be had, or is not what was listed.
        """
        ...

    def now(self, entry: Entry) -> Entry:
        """Return what the file is now, where that is free to ask; else what was listed."""
        ...

    def renew(self) -> None:
        """Make the client anew: the credentials have expired."""
        ...

    def close(self) -> None:
        """Let go of the client."""
        ...


def place_of(puller: Puller, path: str) -> Place:
    """Return the place that a path of the command line means.

    Raises:
        PullError: there is no such place, or its client is not installed.
    """
    scheme, found, rest = path.partition("://")
    if not found:
        return Here(path)
    if scheme not in _SCHEMES:
        raise PullError(f"{scheme}:// cannot be read: write {', '.join(_SCHEMES)} or a path")
    bucket, _, prefix = rest.partition("/")
    kind, library, extra = _SCHEMES[scheme]
    try:
        return kind(puller, f"{scheme}://{bucket}/", bucket, prefix, import_module(library))
    except ImportError:
        raise PullError(f"{path}: run  pip install {extra}") from None


def _is_one(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _hidden(name: str) -> bool:
    return any(part[:1] in ("_", ".") for part in name.split("/"))


class Here:
    """A file or folder on this machine."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)

    def entries(self) -> list[Entry]:
        """List the files; hidden ones, and those in hidden folders, are left out."""
        if os.path.isfile(self._path):
            return [_entry(self._path)]
        if not os.path.isdir(self._path):
            raise PullError(f"{self._path} is not there")
        return sorted(map(_entry, self._walk()))

    def _walk(self) -> Iterator[str]:
        for folder, folders, names in os.walk(self._path):
            folders[:] = [name for name in folders if not _hidden(name)]
            for name in names:
                if _is_one(name) and not _hidden(name):
                    yield os.path.join(folder, name)

    def fetch(self, entry: Entry, folder: str) -> str:
        """Return its path, if it is still what it was."""
        if self.now(entry) != entry:
            raise PullError(f"{entry.address} has changed while it was read: pull it again")
        return entry.address

    def now(self, entry: Entry) -> Entry:
        """Look again."""
        return _entry(entry.address)

    def renew(self) -> None:
        """There are no credentials."""

    def close(self) -> None:
        """Nothing is held."""


def _entry(path: str) -> Entry:
    try:
        found = os.stat(path)
    except OSError as error:
        raise PullError(f"{path} cannot be read: {error.strerror}") from None
    return Entry(path, found.st_size, str(found.st_mtime_ns))


class _Objects:
    """What the object storages share."""

    def __init__(self, puller: Puller, root: str, bucket: str, prefix: str, library: Any) -> None:
        self._puller = puller
        self._root = root
        self._bucket = bucket
        # "focus" is a folder and not also "focus-old"; a whole name is that one object.
        self._prefix = prefix if not prefix or _is_one(prefix) else f"{prefix.rstrip('/')}/"
        self._library = library
        self._client: Any = self._connect()

    def _connect(self) -> Any:
        raise NotImplementedError

    def _listed(self) -> Iterator[tuple[str, int, str]]:
        """Yield key, size and tag of every object below the prefix."""
        raise NotImplementedError

    def _get(self, key: str, tag: str, path: str) -> None:
        """Write an object to a file, if its tag is this."""
        raise NotImplementedError

    def entries(self) -> list[Entry]:
        """List the files; hidden ones, and those in hidden folders, are left out."""
        length = len(self._prefix) if self._prefix.endswith("/") else 0
        return sorted(
            Entry(f"{self._root}{key}", size, tag)
            for key, size, tag in self._listed()
            if _is_one(key) and not _hidden(key[length:])
        )

    def fetch(self, entry: Entry, folder: str) -> str:
        """Fetch it, once."""
        path = os.path.join(folder, entry.digest)
        if not os.path.exists(path):
            partial = f"{path}.part"
            key = entry.address.removeprefix(self._root)
            patiently(
                self._puller,
                f"reading {entry.address}",
                lambda: self._get(key, entry.tag, partial),
            )
            size = os.path.getsize(partial)
            if size != entry.size:
                raise PullError(
                    f"{entry.address} gave {size:,} bytes, and its list says {entry.size:,}"
                )
            os.replace(partial, path)
        return path

    def now(self, entry: Entry) -> Entry:
        """Return it as it was listed: it is fetched with its tag as the condition."""
        return entry

    def renew(self) -> None:
        """Make the client anew."""
        self.close()
        self._client = self._connect()

    def close(self) -> None:
        """Let go of the client."""
        close = getattr(self._client, "close", None)
        if close is not None:
            close()


class _S3(_Objects):
    def _connect(self) -> Any:
        options = self._puller.options
        session = self._library.Session(
            profile_name=options.profile or None, region_name=options.region or None
        )
        config: Any = import_module("botocore.config")
        return session.client(
            "s3",
            endpoint_url=options.endpoint_url or None,
            config=config.Config(
                retries={"total_max_attempts": 1},
                connect_timeout=TIMEOUT_SECONDS,
                read_timeout=TIMEOUT_SECONDS,
            ),
        )

    def _listed(self) -> Iterator[tuple[str, int, str]]:
        def ask(token: str | None) -> Any:
            more = {} if token is None else {"ContinuationToken": token}
            return self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, **more)

        def following(answer: Any) -> str | None:
            found: str | None = answer.get("NextContinuationToken")
            if answer.get("IsTruncated") and not found:
                raise PullError(f"the list of {self._root} breaks off")
            return found

        for answer in pages(
            self._puller, f"ListObjectsV2 of {self._root}", ask, following, whole=True
        ):
            for one in answer.get("Contents", ()):
                yield one["Key"], one["Size"], one["ETag"]

    def _get(self, key: str, tag: str, path: str) -> None:
        answer = self._client.get_object(Bucket=self._bucket, Key=key, IfMatch=tag)
        with open(path, "wb") as file:
            file.writelines(answer["Body"].iter_chunks(CHUNK))


class _Google(_Objects):
    def _connect(self) -> Any:
        return self._library.Client()

    def _listed(self) -> Iterator[tuple[str, int, str]]:
        def ask(token: str | None) -> Any:
            found = self._client.list_blobs(
                self._bucket,
                prefix=self._prefix,
                page_token=token,
                retry=None,
                timeout=TIMEOUT_SECONDS,
            )
            page = next(found.pages, ())
            return [
                (one.name, one.size, str(one.generation)) for one in page
            ], found.next_page_token

        for found, _ in pages(
            self._puller, f"listing {self._root}", ask, lambda answer: answer[1], whole=True
        ):
            yield from found

    def _get(self, key: str, tag: str, path: str) -> None:
        blob = self._client.bucket(self._bucket).blob(key, generation=int(tag))
        blob.download_to_filename(path, retry=None, timeout=TIMEOUT_SECONDS, raw_download=True)


class _Azure(_Objects):
    def _connect(self) -> Any:
        options = self._puller.options
        service: Any = self._library.BlobServiceClient
        if options.connection_string:
            account = service.from_connection_string(options.connection_string, retry_total=0)
        elif options.account_url:
            identity: Any = import_module("azure.identity")
            account = service(
                options.account_url, credential=identity.DefaultAzureCredential(), retry_total=0
            )
        else:
            raise PullError(
                "say which storage account az:// is in: "
                'account_url = "https://<account>.blob.core.windows.net" in [pull.focus]'
            )
        return account.get_container_client(self._bucket)

    def _listed(self) -> Iterator[tuple[str, int, str]]:
        def ask(token: str | None) -> Any:
            found = self._client.list_blobs(name_starts_with=self._prefix).by_page(token)
            page = list(next(found, ()))
            return [(one.name, one.size, one.etag) for one in page], found.continuation_token

        for found, _ in pages(
            self._puller, f"listing {self._root}", ask, lambda answer: answer[1], whole=True
        ):
            yield from found

    def _get(self, key: str, tag: str, path: str) -> None:
        core: Any = import_module("azure.core")
        reading = self._client.download_blob(
            key, etag=tag, match_condition=core.MatchConditions.IfNotModified
        )
        with open(path, "wb") as file:
            reading.readinto(file)


_SCHEMES: dict[str, tuple[type[_Objects], str, str]] = {
    "s3": (_S3, "boto3", "boto3"),
    "gs": (_Google, "google.cloud.storage", "google-cloud-storage"),
    "az": (_Azure, "azure.storage.blob", "azure-storage-blob azure-identity"),
}
"""The class, the library that it needs, and what brings that."""
