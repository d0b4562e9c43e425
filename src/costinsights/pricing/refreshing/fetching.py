"""Fetches what vendors publish: asked for only when it has changed, kept, bounded, over TLS.

What is fetched goes to a file in the user's cache folder, as it comes, and is read from there: a list
of hundreds of megabytes needs no memory. The next run asks with ``If-None-Match`` and
``If-Modified-Since`` and reads the file again where nothing has changed. A redirect to another host is
refused, and so is plain HTTP to anything but this machine; proxies are those of the environment.
"""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request
from hashlib import sha256
from http.client import HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import msgspec

from costinsights import __version__
from costinsights.asking import NoSuchThing, patiently
from costinsights.vendor import Vendor, VendorError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = "prices"
TIMEOUT_SECONDS = 60
CHUNK = 1 << 18
MOST_BYTES = 4 * 2**30
"""Of one run, if nobody says otherwise: Amazon EC2's file of one region has some hundred MB."""
_LOOPBACK = frozenset(("localhost", "127.0.0.1", "::1"))


class RefreshError(VendorError):
    """The vendor's prices cannot be had now; the text says why, without any secret."""


class NotThere(RefreshError):
    """There is nothing at this address."""


class TooMuch(RefreshError):
    """The run's limit of bytes is reached."""


class HTTPFault(Exception):
    """An answer that is an error, in the words that `costinsights.troubles` understands."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.status_code = status
        self.error_code = f"HTTP {status}"
        self.headers = headers
        self.response = self  # that is where the headers are looked for


class Kept(msgspec.Struct, frozen=True):
    """What is known of a file in the cache."""

    url: str
    size: int
    etag: str = ""
    modified: str = ""


class Source(Vendor):
    """Asks one vendor for its prices."""

    table = "prices"
    page = "docs/prices.md"
    raises = RefreshError
    host: ClassVar[str]
    """Where it is asked: a URL without a path."""

    def __init__(
        self,
        *,
        endpoint: str = "",
        most_bytes: int = MOST_BYTES,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Ask at `endpoint` in place of the vendor's own; for tests, and for mirrors."""
        super().__init__()
        self.base = (endpoint or self.host).rstrip("/")
        self.read = 0
        """Bytes that came over the wire."""
        self.unchanged = 0
        """Requests that were answered with "not modified"."""
        self._most = most_bytes
        self._show = progress
        self._opener = urllib.request.build_opener(_NoOtherHost())
        _checked(self.base)

    def fetch(self, url: str, headers: Callable[[], Mapping[str, str]] = dict) -> str:
        """Return the path of a file with what stands at `url` now; `headers` say who asks.

        Raises:
            NotThere: there is nothing.
            TooMuch: the run has read more than it may.
            RefreshError: it cannot be had.
        """
        _checked(url)
        what = urlsplit(url)._replace(query="", fragment="").geturl()
        try:
            return patiently(self, what, lambda: self._fetched(url, what, headers()))
        except NoSuchThing as error:
            raise NotThere(str(error)) from None

    def _fetched(self, url: str, what: str, headers: Mapping[str, str]) -> str:
        path = os.path.join(folder(), sha256(url.encode()).hexdigest()[:32])
        kept = _kept(path, url)
        request = urllib.request.Request(  # noqa: S310  `_checked` has seen its scheme
            url, headers={"User-Agent": f"costinsights/{__version__}", **headers}
        )
        if kept is not None and kept.etag:
            request.add_header("If-None-Match", kept.etag)
        if kept is not None and kept.modified:
            request.add_header("If-Modified-Since", kept.modified)
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                return self._stored(answer, path, url)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 304 and kept is not None:
                self.unchanged += 1
                return path
            raise HTTPFault(error.code, dict(error.headers.items())) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLError):
                raise RefreshError(
                    f"{what}: the certificate is not valid: {error.reason}"
                ) from None
            raise ConnectionError(str(error.reason)) from None
        except HTTPException as error:
            raise ConnectionError(type(error).__name__) from None

    def _stored(self, answer: Any, path: str, url: str) -> str:
        """Write an answer to its file, which is there whole or not at all."""
        said = answer.headers.get("Content-Length")
        total = int(said) if said and said.isdecimal() else None
        if total is not None and self.read + total > self._most:
            raise TooMuch(self._too_much(url))
        fresh = f"{path}.{os.getpid()}"
        size = 0
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                while chunk := answer.read(CHUNK):
                    size += len(chunk)
                    self.read += len(chunk)
                    if self.read > self._most:
                        raise TooMuch(self._too_much(url))
                    file.write(chunk)
                    if self._show is not None:
                        self._show(size, total or 0)
            if total is not None and size != total:
                raise IncompleteRead(b"", total - size)
            note = Kept(
                url,
                size,
                answer.headers.get("ETag") or "",
                answer.headers.get("Last-Modified") or "",
            )
            if os.path.exists(
                f"{path}.json"
            ):  # never a new file under what is known of the old one
                os.unlink(f"{path}.json")
            os.replace(fresh, path)
            _write(f"{path}.json", msgspec.json.encode(note))
        finally:
            if os.path.exists(fresh):
                os.unlink(fresh)
        return path

    def _too_much(self, url: str) -> str:
        return (
            f"{urlsplit(url).netloc}: more than {self._most:,} bytes in one run: say --max-bytes for "
            "more, or fewer regions or systems"
        )


class _NoOtherHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect on the same host only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Refuse what leads elsewhere."""
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if (before.scheme, before.netloc) != (after.scheme, after.netloc):
            raise RefreshError(f"{before.netloc} sends us to another host, {after.netloc}: refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _checked(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise RefreshError(f"{parts.scheme}://{parts.netloc}: prices are fetched over https only")


def same_host(url: str, base: str) -> bool:
    """Tell whether an address is on the host that was asked."""
    one, other = urlsplit(url), urlsplit(base)
    return (one.scheme, one.netloc) == (other.scheme, other.netloc)


def folder() -> str:
    """Return the cache's folder; it is made where it is not there."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # the specification says to ignore one that is relative
        cache = os.path.expanduser("~/.cache")
    path = os.path.join(cache, "costinsights", FOLDER)
    os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def _kept(path: str, url: str) -> Kept | None:
    """Return what is known of a file, if it is whole and of that address."""
    try:
        with open(f"{path}.json", "rb") as file:
            kept = msgspec.json.decode(file.read(), type=Kept)
        if kept.url == url and os.path.getsize(path) == kept.size:
            return kept
    except (OSError, msgspec.DecodeError):
        pass
    return None


def _write(path: str, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
