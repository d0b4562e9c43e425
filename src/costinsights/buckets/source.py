"""What says how large a bucket is: the base of the three clouds' sources.

A source asks its cloud's own monitoring, which counts every bucket once a day or once an hour
whether anybody asks or not. Only `Source.listed` asks the bucket itself, a page at a time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from costinsights.vendor import Vendor, VendorError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from costinsights.buckets.places import Place

GIB = 2**30
ASKED = "requests"
"""The price book's meter of a question to a cloud's monitoring."""
PAGE = 1000
"""Objects in one page of a list, where `Source.page_size` says nothing else."""


class StorageError(VendorError):
    """A bucket cannot be asked about; the text says why, without any secret."""


class Part(NamedTuple):
    """What lies in one class, in the vendor's own words."""

    name: str
    """As the vendor's monitoring calls it: ``StandardIAStorage``, ``NEARLINE``, ``Cool``."""
    dimensions: Mapping[str, str]
    """By what it is priced, in the price book's words."""
    bytes: int
    objects: int | None = None
    """None where nobody counts them by class."""


class Found(NamedTuple):
    """What a source says of a bucket."""

    source: str
    """Who says it: ``CloudWatch``, ``Cloud Monitoring``, ``a list``."""
    at: datetime | None
    """When it was so, in UTC; None where there is no figure."""
    region: str | None
    parts: tuple[Part, ...]
    objects: int | None = None
    """All of them, where they are counted."""
    notes: tuple[str, ...] = ()
    whole: bool = True
    """Whether it is all of the bucket: a list may have been cut off by its cap."""


class Source(Vendor):
    """Says how large buckets of one cloud are."""

    table = "storage"
    page = "docs/storage.md"
    raises = StorageError
    meter: ClassVar[str] = "storage_gib_months"
    """The price book's meter of a GiB that is kept for a month."""
    monitoring: ClassVar[str]
    """The system under whose key a price book has what asking the monitoring costs, for `ASKED`."""
    list_meter: ClassVar[str]
    """The price book's meter of one page of a list."""
    list_dimensions: ClassVar[Mapping[str, str]] = {}
    """By what requests to a bucket are priced beside its region."""
    page_size: ClassVar[int] = PAGE

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self.billed: Counter[tuple[str, str]] = Counter()
        """Requests that are billed, by system and meter of the price book."""

    @abstractmethod
    def measured(self, place: Place, now: datetime) -> Found:
        """Ask the monitoring.

        Raises:
            VendorError: it cannot be asked, or there is no such bucket.
        """

    @abstractmethod
    def listed(self, place: Place, cap: int, now: datetime) -> Found:
        """List the bucket, in at most `cap` pages.

        Raises:
            VendorError: it cannot be listed.
        """


class Counted:
    """Sums objects by class while a list is read."""

    def __init__(self) -> None:
        self._sizes: dict[str, list[int]] = {}

    def add(self, name: str, size: int) -> None:
        """Count one object."""
        found = self._sizes.setdefault(name, [0, 0])
        found[0] += size
        found[1] += 1

    def items(self) -> list[tuple[str, int, int]]:
        """Return class, bytes and objects, in the order of the names."""
        return [(name, size, count) for name, (size, count) in sorted(self._sizes.items())]
