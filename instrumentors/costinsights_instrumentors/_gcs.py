"""What the two clients of Cloud Storage have in common: what a request was, once it is answered.

An answer says an object's class; a bucket's default class and its place are said by answers about
the bucket, which are remembered. What neither says stays unsaid: a ``[[resource]]`` may say it.
"""

from __future__ import annotations

import re
from _thread import allocate_lock
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from msgspec.structs import replace

from costinsights.instrumentor import address_of
from costinsights.storage import Kind, StorageCall
from costinsights.systems.gcp_storage import SYSTEM
from costinsights.systems.gcp_storage_requests import FAILS, called, is_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from costinsights.storage import Adder
    from costinsights.systems.gcp_storage_requests import Called

MOST_BUCKETS = 4096
MOST_FAILED = 1024
READABLE = 256 * 1024
"""Bytes of an answer that is looked into: a list is longer, and says nothing that matters here."""
PASSING = (408, 429)
SERVERS = 500
"""Answers after which the clients ask once more: these, and from there on."""
TAKEN = 200
"""What a request counts as whose answer nobody waited for: Cloud Storage has it, as a rule."""
STANDARD = "STANDARD"
METERS = {"A": "class_a_operations", "B": "class_b_operations", "free": "delete_operations"}
FIGURES = ("sent_bytes", "received_bytes", "retries", "errors")
"""What is counted beside requests."""
OPERATIONS = {"A": "CLASS_A", "B": "CLASS_B", "free": "FREE"}
COLD = frozenset(("NEARLINE", "COLDLINE", "ARCHIVE"))
"""The classes of which reading costs by the byte as well."""
HIERARCHICAL = "the bucket has a hierarchical namespace, whose operations have prices of their own"
STRANGE = "Cloud Storage's price list does not say in which class this operation is"
_PART = re.compile(rb"^(GET|POST|PUT|PATCH|DELETE) (\S+)", re.MULTILINE)
_SAID = re.compile(rb"HTTP/1\.\d (\d{3})")


class Bucket(NamedTuple):
    """What an answer has told of a bucket."""

    region: str | None = None
    storage_class: str | None = None
    autoclass: bool = False
    hierarchical: bool = False


class Request(NamedTuple):
    """A request that is about to be made."""

    method: str
    url: str
    called: Called | None
    """None of a batch: each request in it is one."""
    host: str
    """The beginning of the address."""


def request_of(method: str, url: str, more: object = None) -> Request | None:
    """Return what a request is; None, quickly, for one that is none of Cloud Storage's."""
    if "/storage/v1" not in url and "upload" not in url:
        return None
    address, _, asked = url.partition("?")
    # The requests in a batch may have a path only.
    at = 0 if address[:1] == "/" else address.find("/", address.find("://") + 3)
    if at < 0:
        return None
    query = {name: value for name, _, value in (one.partition("=") for one in asked.split("&"))}
    if isinstance(more, Mapping):
        query.update(cast("Mapping[str, str]", more))
    path = address[at:]
    found = called(method, path, query)
    if found is None and not is_batch(path):
        return None
    return Request(method, url, found, address[:at])


class Answers:
    """What has been learnt from answers, in one process."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._failed: OrderedDict[object, None] = OrderedDict()
        self._lock = allocate_lock()

    def call(
        self,
        request: Request,
        status: int,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        sent: int,
        received: int,
        retried: bool = False,
    ) -> StorageCall:
        """Return what an answered request was; `body` is None where it is a stream."""
        what = cast("Called", request.called)
        table = _table(body if status < FAILS else None)
        billed = bool(status) and what.billed(status)
        if what.name == "objects.rewrite" and table.get("done") is False:
            billed = False  # it goes on: the last request of it is the operation
        self._learn(table)
        kind = self._kind(request, headers, table, billed=billed)
        return StorageCall(
            kind, int(billed), sent, received, int(retried), status >= FAILS or not status
        )

    def batch(
        self, request: Request, data: object, answer: bytes, adder: Callable[[Kind], Adder | None]
    ) -> StorageCall | None:
        """Return what the first request of a batch was; the others are added with their `adder`."""
        sent = data.encode() if isinstance(data, str) else bytes(cast("bytes", data or b""))
        found = list(self._parts(request, sent, answer))
        for one in found[1:]:
            adds = adder(one.kind)
            if adds is not None:
                adds.add(requests=one.requests, errors=int(one.failed))
        if not found:
            return None
        return replace(found[0], sent=len(sent), received=len(answer))

    def _parts(self, request: Request, sent: bytes, answer: bytes) -> Iterator[StorageCall]:
        asked = _PART.findall(sent)
        said = _SAID.split(answer)[1:]
        for number, (method, url) in enumerate(asked):
            one = request_of(method.decode(), url.decode("utf-8", "replace"))
            if one is not None and one.called is not None and 2 * number + 1 < len(said):
                said_so = b"{" + said[2 * number + 1].partition(b"{")[2].rpartition(b"}")[0] + b"}"
                where = one._replace(host=request.host)
                yield self.call(where, int(said[2 * number]), {}, said_so, sent=0, received=0)

    def _kind(
        self,
        request: Request,
        headers: Mapping[str, str],
        table: Mapping[str, Any],
        *,
        billed: bool,
    ) -> Kind:
        what = cast("Called", request.called)
        address, port = address_of(request.host)
        name = table.get("name") if what.name == "buckets.insert" else what.bucket
        bucket = self._buckets.get(name or "", Bucket())
        letter = what.letter
        kind = Kind(SYSTEM, METERS["free"], OPERATIONS["free"], name, bucket.region, address, port)
        if letter == "free" or not billed:
            return kind
        if letter is None:
            return kind._replace(meter="operations", operation=what.name, unpriced=STRANGE)
        found = self._class(what, bucket, headers, table)
        return kind._replace(
            meter=METERS[letter],
            operation=OPERATIONS[letter],
            words=(("storage_class", found),) if found else (),
            retrieval="retrieved_bytes"
            if letter == "B" and what.of_object and found in COLD
            else "",
            unpriced=HIERARCHICAL if bucket.hierarchical else "",
        )

    def _class(
        self, what: Called, bucket: Bucket, headers: Mapping[str, str], table: Mapping[str, Any]
    ) -> str | None:
        """Return the class that counts; None where nobody has said it."""
        if bucket.autoclass or what.name == "buckets.list":
            return STANDARD
        if what.of_object:
            inner = table.get("resource")
            said = headers.get("x-goog-storage-class") or table.get("storageClass")
            if not said and isinstance(inner, dict):
                said = cast("dict[str, Any]", inner).get("storageClass")
            return said if isinstance(said, str) else None
        return bucket.storage_class

    def _learn(self, table: Mapping[str, Any]) -> None:
        """Remember what an answer says of a bucket."""
        name, location = table.get("name"), table.get("location")
        if not isinstance(name, str) or not isinstance(location, str):
            return
        found = Bucket(
            location.lower(),
            table.get("storageClass"),
            _enabled(table.get("autoclass")),
            _enabled(table.get("hierarchicalNamespace")),
        )
        with self._lock:
            self._buckets[name] = found
            if len(self._buckets) > MOST_BUCKETS:
                self._buckets.popitem(last=False)

    # -- what is tried again ----------------------------------------------------------------------

    def again(self, mark: object) -> bool:
        """Tell whether a request is one that has failed before."""
        if not self._failed:
            return False
        with self._lock:
            return self._failed.pop(mark, self) is None

    def failed(self, mark: object, status: int) -> None:
        """Remember a request that has failed: the next one that is the same tries it again."""
        if status and status not in PASSING and status < SERVERS:
            return
        with self._lock:
            self._failed[mark] = None
            if len(self._failed) > MOST_FAILED:
                self._failed.popitem(last=False)


def _table(body: bytes | None) -> Mapping[str, Any]:
    if not body or len(body) > READABLE or not body.lstrip().startswith(b"{"):
        return {}
    from json import loads  # not for programs that have no bucket

    try:
        found: object = loads(body)
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _enabled(setting: object) -> bool:
    return isinstance(setting, Mapping) and bool(cast("Mapping[str, Any]", setting).get("enabled"))


def header(given: object, *names: str) -> str:
    """Return the first of these that a call's headers have; empty where they have none."""
    if not isinstance(given, Mapping):
        return ""
    table = cast("Mapping[str, object]", given)
    return next((str(table[name]) for name in names if name in table), "")


def size_of(data: object) -> int:
    """Return how many bytes a request's body has; 0 where it does not tell."""
    if isinstance(data, (bytes, bytearray)):
        return len(data)
    return len(data.encode()) if isinstance(data, str) else 0
