"""What an error of a vendor's client library means for us: wait, renew, give up, or "no such run".

Every client has its own classes. What they have in common is a code, an HTTP status and the names
of their classes, and these say enough: `trouble_of` looks at them and imports no client.
"""

from __future__ import annotations

from math import isfinite
from time import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal["throttled", "passing", "expired", "denied", "unknown", "refused"]


class Trouble(NamedTuple):
    """What has gone wrong with a request."""

    kind: Kind
    """``throttled`` and ``passing``: worth another try, later; ``expired``: worth one with new
    credentials; ``denied``: a permission is missing; ``unknown``: what was asked about is not known
    to the vendor; ``refused``: anything else, and it will be so again."""
    code: str
    """The vendor's word for it, or the name of the error's class; never its message."""
    after: float | None = None
    """Seconds that the vendor wants to be left alone, where it says so."""


# Parts of codes and of names of classes, in the order in which they are looked for.
_WORDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (
        "throttled",
        (
            "throttl",
            "toomanyrequests",
            "requestlimitexceeded",
            "rateexceeded",
            "ratelimit",
            "slowdown",
            "resourceexhausted",
            "bandwidthlimit",
            "provisionedthroughput",
            "quotaexceeded",
        ),
    ),
    (
        "expired",
        (
            "expiredtoken",
            "tokenexpired",
            "requestexpired",
            "tokenrefreshrequired",
            "unrecognizedclient",
            "invalidclienttoken",
            "invalidaccesskey",
            "credential",
            "tokenretrieval",
            "ssotoken",
            "refresherror",
            "unauthenticated",
            "authenticationerror",
            "authenticationfailed",
            "expiredauthenticationtoken",
            "invalidauthenticationtoken",
        ),
    ),
    (
        "denied",
        (
            "accessdenied",
            "permissiondenied",
            "unauthori",
            "authorizationfailed",
        ),
    ),
    (
        "unknown",
        ("entitynotfound", "resourcenotfound", "notfound", "nosuch", "doesnotexist"),
    ),
    (
        "passing",
        (
            "internalserver",
            "internalservice",
            "internalfailure",
            "internalerror",
            "serviceunavailable",
            "temporarilyunavailable",
            "serverbusy",
            "timeout",
            "timedout",
            "deadlineexceeded",
            "connectionerror",
            "connectionclosed",
            "connectionreset",
            "servicerequesterror",
            "serviceresponseerror",
            "incompleteread",
            "protocolerror",
            "remotedisconnected",
            "retryerror",
        ),
    ),
)
_STATUSES: Mapping[int, Kind] = {
    401: "expired",
    403: "denied",
    404: "unknown",
    408: "passing",
    410: "unknown",
    425: "passing",
    429: "throttled",
}


def trouble_of(error: BaseException) -> Trouble:
    """Return what an error means, by its code, then its status, then its class."""
    code, status = _code(error), _status(error)
    after = _after(error)
    names = [kind.__name__ for kind in type(error).__mro__[:-1]]
    word = code or names[0]
    found: Kind | None = kind_of(code)
    if found is None and status is not None:
        found = _STATUSES.get(status)
        if found is None and status >= 500:
            found = "passing"
    for name in names:
        found = found or kind_of(name)
    if found is None and isinstance(error, OSError) and status is None and not code:
        return Trouble("passing", word, after)  # a socket's: sockets of all clients raise these
    return Trouble(found or "refused", word, after)


def kind_of(word: str) -> Kind | None:
    """Return what a vendor's code, or the name of a class, means; None where it says nothing."""
    plain = word.lower().replace(" ", "").replace("_", "")
    for kind, parts in _WORDS:
        if plain and any(part in plain for part in parts):
            return kind
    return None


def _code(error: Any) -> str:
    """Return the vendor's word: of botocore, azure-core, databricks-sdk, google-api-core."""
    response = _table(getattr(error, "response", None))
    said = _table(response.get("Error")).get("Code")  # botocore's ClientError
    for each in (said, getattr(error, "error_code", None), _azure(error), _google(error)):
        if isinstance(each, str) and each:
            return str(getattr(each, "value", each))  # azure-storage has enumerations of text
    return ""


def _azure(error: Any) -> object:
    return getattr(getattr(error, "error", None), "code", None)


def _google(error: Any) -> object:
    return getattr(getattr(error, "grpc_status_code", None), "name", None)


def _status(error: Any) -> int | None:
    response = getattr(error, "response", None)
    meta = _table(_table(response).get("ResponseMetadata"))
    for each in (
        meta.get("HTTPStatusCode"),
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
    ):
        if isinstance(each, int):  # an `HTTPStatus` is one
            return int(each)
    return None


def _after(error: Any) -> float | None:
    asked = getattr(error, "retry_after_secs", None)
    if isinstance(asked, (int, float)):
        return max(0.0, float(asked))
    response = getattr(error, "response", None)
    meta = _table(_table(response).get("ResponseMetadata"))
    for headers in (meta.get("HTTPHeaders"), getattr(response, "headers", None)):
        # Azure has one for each of its limits (x-ms-ratelimit-…-retry-after): all of them count.
        waits = [seconds(value) for name, value in _pairs(headers) if _asks(name.lower())]
        known = [one for one in waits if one is not None]
        if known:
            return max(known)
    return None


def _asks(name: str) -> bool:
    return name == "retry-after" or (
        name.startswith("x-ms-ratelimit-") and name.endswith("-retry-after")
    )


def seconds(text: str) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for, whichever of its two forms."""
    try:
        found = float(text)
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            found = parsedate_to_datetime(text).timestamp() - time()
        except (TypeError, ValueError, OverflowError):
            return None
    return max(0.0, found) if isfinite(found) else None


def _table(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _pairs(headers: Any) -> Iterator[tuple[str, str]]:
    if hasattr(headers, "items"):
        for name, value in headers.items():
            yield str(name), str(value)
