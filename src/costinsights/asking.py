"""How readers and pullers ask a vendor's API: with patience, in batches, page by page.

One says what it asks for and how; what every one of them has to live through stands here once:
throttling with and without a ``Retry-After``, errors that pass, time limits, credentials that expire
half-way, pages that come round again. What remains is an error with the vendor's code and, where a
permission is missing, the grant; what was read before is kept, and the next run goes on.

    answer = patiently(self, "GetJobRun", lambda: self.client.get_job_run(JobName=name, RunId=id_))

The call looks its client up anew each time, because `Vendor.renew` may have made another one.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from costinsights.backoff import Backoff
from costinsights.troubles import trouble_of
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from costinsights.vendor import Vendor

    Sleep = Callable[[float], None]

T = TypeVar("T")
Answer = TypeVar("Answer")

ATTEMPTS = 8
"""How often one request is tried, throttled or with errors that pass: for a minute or two."""
MOST_PAGES = 10_000
"""Of a list that has to be whole: more than any real one has, and fewer than for ever."""
LATER = "What was read is kept, and the next run goes on"
sleep: Sleep = time.sleep


class NoSuchThing(VendorError):
    """The vendor does not know what was asked about; `code` is its word for that."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def patiently(
    vendor: Vendor,
    what: str,
    call: Callable[[], T],
    *,
    grant: str = "",
    unknown: Sequence[str] = (),
) -> T:
    """Make a request until it is answered, and count each try with `Vendor.spend`.

    Args:
        vendor: Who asks.
        what: The operation, as the vendor calls it, with the region or the like; for messages.
        call: Makes the request with the client as it is now, and returns the answer.
        grant: What is missing where a permission is, if it is not the reader's whole `grants`.
        unknown: Further codes by which the vendor says that there is no such thing, where it has
            one of its own: ``InvalidRequestException`` of a service that means just that.

    Raises:
        NoSuchThing: the vendor does not know what was asked about.
        VendorError: the answer is another error, or there is none after `ATTEMPTS`.
    """
    backoff, renewed, tries = Backoff(), False, 0
    name = f"{vendor.system}: {what}"
    while True:
        vendor.spend()
        tries += 1
        try:
            return call()
        except VendorError:
            raise
        except Exception as error:  # noqa: BLE001  every client has its own classes
            trouble = trouble_of(error)
        if trouble.kind == "unknown" or trouble.code in unknown:
            raise NoSuchThing(f"{name}: {trouble.code}", trouble.code)
        if trouble.kind == "denied":
            refused = vendor.denied(what)
            raise vendor.raises(str(refused), grant=grant or refused.grant)
        if trouble.kind == "refused":
            raise vendor.raises(f"{name}: {trouble.code}")
        if trouble.kind == "expired":
            if renewed:
                raise vendor.raises(
                    f"{name}: the credentials are not valid: {trouble.code}. {LATER}"
                )
            renewed = True
            vendor.renew()
        elif tries < ATTEMPTS:
            sleep(backoff.failed(trouble.after))
        else:
            raise vendor.raises(f"{name}: {trouble.code}, {tries} times. {LATER}")


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield items in batches of `size` at most."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def pages(
    vendor: Vendor,
    what: str,
    ask: Callable[[str | None], Answer],
    token: Callable[[Answer], str | None],
    *,
    first: str | None = None,
    whole: bool = False,
) -> Iterator[Answer]:
    """Yield the pages of a list, each asked for with `patiently`.

    `ask` makes the request with the token of a page, None for the first; `token` reads the next
    one from an answer. `first` is the token to begin with. A token that comes again would never
    end: it ends the list, and the report says so; with `whole` it is an error, and so is a list of
    more than `MOST_PAGES`.

    Raises:
        VendorError: as `patiently`.
    """
    before: set[str] = set()
    at = first
    while True:
        answer = patiently(vendor, what, partial(ask, at))
        yield answer
        at = token(answer)
        if not at:
            return
        if at in before or (whole and len(before) >= MOST_PAGES):
            why = f"{what} gave a page for the second time"
            if at not in before:
                why = f"{what} gave {MOST_PAGES:,} pages and was not done"
            if whole:
                raise vendor.raises(f"{vendor.system}: {why}: nothing of it can be relied upon")
            vendor.missing(f"{why}: its list may not be whole")
            return
        before.add(at)
