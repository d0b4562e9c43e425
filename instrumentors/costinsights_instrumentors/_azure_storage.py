"""What Azure's two clients of storage have in common: what an HTTP request was, once it is answered.

Each attempt passes the policy that is nearest to the wire, and so is seen by itself. The operation
is told by method, query and headers. What else sets its price an answer says at times, and it is
remembered: a hierarchical namespace, the account's redundancy and default access tier. What nobody
says stays unsaid: a ``[[resource]]`` may say it.
"""

from __future__ import annotations

import re
from _thread import allocate_lock
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from costinsights.storage import Counting, Hook, Kind, StorageCall, StorageInstrumentor
from costinsights.systems.azure_storage import LAKE_BLOCK, SYSTEM, Operation, operation
from costinsights.tasks import Entered, Tasks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from costinsights.patching import Probe
    from costinsights.recorder import Recorder

MOST_ACCOUNTS = 1024
METERS: Mapping[str, str] = {
    "write": "write_operations",
    "read": "read_operations",
    "list": "list_and_create_container_operations",
    "other": "other_operations",
    "free": "delete_operations",
    "iterative_write": "iterative_write_operations",
    "iterative_read": "iterative_read_operations",
}
FIGURES = ("sent_bytes", "received_bytes", "retries", "errors")
"""What is counted beside requests."""
COLD = frozenset(("cool", "cold", "archive"))
"""The tiers of which reading costs by the byte as well."""
STRANGE = "Microsoft's table does not say how this operation is priced: "
UNAUTHENTICATED = 401
FORBIDDEN = 403
FAILS = 400
NOT_LET_IN = frozenset(
    (
        "AuthenticationFailed",
        "NoAuthenticationInformation",
        "InvalidAuthenticationInfo",
        "InvalidAuthenticationInformation",
    )
)
"""Codes of requests that are free; whoever is known and not allowed to pays for asking."""
_PART = re.compile(rb"^(DELETE|PUT) \S+ HTTP/1", re.MULTILINE)
_LOCAL = re.compile(r"(\d+\.){3}\d+|localhost|\[.*\]|azurite.*")
"""Hosts whose accounts stand in the path: emulators."""


class Account(NamedTuple):
    """What answers have told of an account."""

    hierarchical: bool | None = None
    v1: bool = False
    redundancy: str | None = None
    tier: str | None = None
    """Where blobs are that nobody gave one."""


class Request(NamedTuple):
    """A request that is about to be made."""

    http: Any
    """azure-core's."""
    operation: Operation
    account: str
    container: str | None
    address: str | None
    port: int | None
    lake: bool
    parts: int = 0
    """Of a batch: how many requests it carries, all of the same operation."""


class Accounts:
    """What has been learnt of accounts in this process, by either client."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Account] = OrderedDict()
        self._lock = allocate_lock()

    def get(self, name: str) -> Account:
        """Return what is known."""
        return self._known.get(name, _NOTHING)

    def learn(self, name: str, answer: Mapping[str, str], *, lake: bool) -> Account:
        """Remember what an answer says, and return what is known now."""
        before = self.get(name)
        hierarchical = before.hierarchical
        said = answer.get("x-ms-is-hns-enabled")
        if said is not None:
            hierarchical = said.lower() == "true"
        elif hierarchical is None and (
            lake or "x-ms-resource-type" in answer or "x-ms-owner" in answer
        ):
            hierarchical = True
        kind, sku = answer.get("x-ms-account-kind"), answer.get("x-ms-sku-name")
        tier = answer.get("x-ms-access-tier") if answer.get("x-ms-access-tier-inferred") else None
        now = Account(
            hierarchical,
            before.v1 if kind is None else kind == "Storage",
            before.redundancy if sku is None else sku.partition("_")[2].lower(),
            before.tier if tier is None else tier.lower(),
        )
        if now != before:
            with self._lock:
                self._known[name] = now
                if len(self._known) > MOST_ACCOUNTS:
                    self._known.popitem(last=False)
        return now

    def forget(self) -> None:
        """Know nothing any more."""
        with self._lock:
            self._known.clear()


_NOTHING = Account()
accounts = Accounts()


def request_of(http: Any, *, lake: bool) -> Request:
    """Return what a request of azure-core's is; `lake` says whose client makes it."""
    from urllib.parse import unquote, urlsplit  # not for programs that have no account

    url = urlsplit(str(http.url))
    query = {one.partition("=")[0]: one.partition("=")[2] for one in url.query.split("&")}
    host = url.hostname or ""
    rest = [unquote(one) for one in url.path.split("/") if one]
    account = host.partition(".")[0].removesuffix("-secondary")
    if _LOCAL.fullmatch(host) and rest:
        account = rest.pop(0)
        lake = lake and "restype" not in query and "comp" not in query
    else:  # Data Lake's client asks the Blob endpoint for some things
        lake = ".dfs." in host
    parts = 0
    if query.get("comp") == "batch":
        body = getattr(http, "body", None) or getattr(http, "content", None)
        methods = _PART.findall(body if isinstance(body, bytes) else b"")
        parts = len(methods)
        deletes = methods[:1] == [b"DELETE"]
        what = Operation("DeleteBlob", "free") if deletes else Operation("SetBlobTier", "other")
    else:
        v1 = accounts.get(account).v1
        known = operation(http.method, query, http.headers, lake=lake, v1=v1)
        what = known or Operation(f"{http.method} {query.get('comp', '')}".strip(), None)
    return Request(http, what, account, rest[0] if rest else None, host, url.port, lake, parts)


def call_of(request: Request, response: Any, *, retried: bool, given_up: bool) -> StorageCall:
    """Return what a request turned out to be; `response` is None where there was none."""
    headers: Mapping[str, str] = {} if response is None else response.headers
    status = 0 if response is None else int(response.status_code)
    account = accounts.learn(request.account, headers, lake=request.lake)
    sent = int(request.http.headers.get("Content-Length") or 0)
    received = 0
    if response is not None and request.http.method not in ("HEAD", "PUT", "DELETE", "PATCH"):
        received = int(headers.get("Content-Length") or 0)
    billed = 1
    if status in (UNAUTHENTICATED, FORBIDDEN):
        code = headers.get("x-ms-error-code", "")
        billed = int(status == FORBIDDEN and bool(code) and code not in NOT_LET_IN)
    elif not status and not given_up:
        billed = 0
    if request.parts and billed:
        billed = request.parts
    kind = _kind(request, account, headers, billed=bool(billed))
    if account.hierarchical and request.operation.type in ("read", "write") and billed:
        billed = max(1, -(-max(sent, received) // LAKE_BLOCK))
    return StorageCall(kind, billed, sent, received, int(retried), status >= FAILS or not status)


def _kind(request: Request, account: Account, headers: Mapping[str, str], *, billed: bool) -> Kind:
    what = request.operation
    kind = Kind(
        SYSTEM, METERS["free"], "FREE", request.container, None, request.address, request.port
    )
    if what.type == "free" or not billed:
        return kind
    if what.type is None:
        return kind._replace(
            meter="operations", operation=what.name, unpriced=f"{STRANGE}{what.name}"
        )
    words: dict[str, str] = {}
    if account.hierarchical is not None:
        words["namespace"] = "hierarchical" if account.hierarchical else "flat"
    tier = _tier(request, account, headers)
    if tier:
        words["access_tier"] = tier
    if account.redundancy:
        words["redundancy"] = account.redundancy
    return kind._replace(
        meter=METERS[what.type],
        operation=what.type.upper(),
        words=tuple(words.items()),
        retrieval="retrieved_bytes" if what.type == "read" and tier in COLD else "",
    )


def _tier(request: Request, account: Account, headers: Mapping[str, str]) -> str | None:
    """Return the access tier that counts; None where nobody has said it."""
    said = headers.get("x-ms-access-tier") or request.http.headers.get("x-ms-access-tier")
    if said:
        return str(said).lower()
    # What is written without a tier gets the account's; what is read may have been given another.
    return account.tier if request.operation.type in ("write", "list") else None


def hooks_of(package: str, *transfers: str) -> tuple[Hook, ...]:
    """Return the hooks on a client: where attempts pass, and on `transfers` that it makes in threads."""
    where = [f"{package}.{one}" for one in transfers]
    return (
        Hook(f"{package}._shared.policies:StorageResponseHook.send"),
        Hook(f"{package}._shared.policies_async:AsyncStorageResponseHook.send", "async"),
        *(Hook(f"{one}.__init__", "connect", optional=True) for one in where),
        *(
            Hook(f"{one}.{method}", leaf=True, optional=True)
            for one in where
            for method in (CHUNK, BLOCK)
        ),
    )


UPLOADS, DOWNLOADS = "_shared.uploads:_ChunkUploader", "_download:_ChunkDownloader"
CHUNK, BLOCK = "process_chunk", "process_substream_block"


class Chunks(Counting):
    """Has the chunks of a transfer, each perhaps in a thread of its own, be for who has asked for it."""

    def __init__(self, recorder: Recorder, instrumentor: AzureStorageInstrumentor) -> None:
        super().__init__(recorder, instrumentor.name, instrumentor.asked, instrumentor.counted)
        self._tasks = instrumentor.tasks

    def begin(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Be who a transfer was made for, while a chunk of it is."""
        if probe.hook.target.endswith((CHUNK, BLOCK)):
            return self._tasks.enter(args[0], self)
        return super().begin(probe, args, kwargs)

    def end(self, call: Any, result: Any, error: BaseException | None) -> None:
        """Be nobody again, or count what came of a call."""
        if isinstance(call, Entered):
            call.leave()
        else:
            super().end(call, result, error)


class AzureStorageInstrumentor(StorageInstrumentor):
    """What both clients' instrumentors do."""

    system = SYSTEM
    meters = (*METERS.values(), *FIGURES)
    lake = False
    """Whether that is Data Lake's client."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks = Tasks()
        self._failed: WeakSet[Any] = WeakSet()

    def _counting_for(self, recorder: Recorder) -> Counting:
        if self._counting is None or self._counting.recorder is not recorder:
            self._counting = Chunks(recorder, self)
        return self._counting

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Take note of a new transfer."""
        self.tasks.made(args[0])

    def uninstrument(self) -> None:
        """Forget what was learnt of accounts."""
        super().uninstrument()
        accounts.forget()

    def asked(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request | None:
        """Tell by method, address and headers."""
        if not hook.target.endswith(".send"):
            return None  # a chunk, whose requests come by themselves
        return request_of(args[1].http_request, lake=self.lake)

    def counted(
        self,
        asked: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        error: BaseException | None,
    ) -> StorageCall | None:
        """Count an attempt, answered or not."""
        response = None if result is None else result.http_response
        again = asked.http in self._failed
        call = call_of(asked, response, retried=again, given_up=_given_up(error))
        if call.failed:
            self._failed.add(asked.http)
        return call


def _given_up(error: BaseException | None) -> bool:
    """Tell whether a request may have been carried out though no answer came: it then counts."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"CancelledError", "ServiceResponseError"})
