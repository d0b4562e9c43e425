"""What a puller is: it brings one source of a provider's bill in, slice by slice, as FOCUS rows.

A puller is a plug-in in the entry-point group ``costinsights_puller``, under its key::

    "acme.bills" = "costinsights.billing.acme_bills:AcmePuller"

and one flat file. It knows its provider's API and nothing of ledgers or Parquet: it says which
slices there are (`Slice`), what looking at them costs (`Plan`), and hands over their rows
(`Loading`). `costinsights.billing.pulling` decides what is pulled, types the columns, and puts a
slice in the place of what it was, in one step, when all of it is there.

A whole puller::

    class AcmeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        account: str
        token: str                          # in the file: "${ACME_TOKEN}"

    class AcmePuller(Puller):
        system = "acme.bills"
        provider = "Acme"
        answers = {"acme": "", "acme.storage": "Acme Object Store"}
        restated = timedelta(days=14)
        grants = '{"bills": "read"}'
        Options = AcmeOptions
        options: AcmeOptions

        def slices(self, start, end):
            return [Slice(self.system, self.options.account, *day, self.wanted.text)
                    for day in days(start, end)]

        def plan(self, slices):
            return Plan((f"{len(slices)} days of {self.options.account}",), {"requests": len(slices)})

        def pull(self, slice, into):
            for answer in pages(self, "ListBills", self._ask, lambda answer: answer.next):
                into.rows(map(focus, answer.lines))

What is raised half-way leaves the slice as it was, and marked as incomplete: nothing of it counts,
and the next run takes it up. So let every doubt be an error: a page that comes again, a list that is
shorter than it says, a manifest that names a file which is not there.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from costinsights.billing.slices import Slice, State, Wanted
from costinsights.vendor import Vendor, VendorError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from decimal import Decimal

    from duckdb import DuckDBPyConnection

    from costinsights.billing.slices import Published

    Value = str | int | float | Decimal | datetime | Mapping[str, str] | None
    Row = Mapping[str, Value]

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


class PullError(VendorError):
    """A source cannot be asked now; the text says why and what to do, without any secret."""


class Plan(NamedTuple):
    """What a pull is about to do, said before it does anything."""

    reads: tuple[str, ...]
    """A line for each thing that will be read."""
    meters: Mapping[str, int] = {}
    """What that uses at most, in the price book's meters of the puller's key: ``{"requests": 31}``,
    ``{"billed_bytes": …}``. Priced and said beforehand, and held against the cap."""


class Loading(Protocol):
    """Where a puller puts what it finds of one slice; nothing of it counts before the slice is whole."""

    @property
    def resumed(self) -> str | None:
        """Where an earlier pull of this slice broke off: the `next` of its last page.

        None: from the beginning. The pages before it are still there. A source whose tokens do not
        live that long starts anew with `restart`.
        """
        ...

    def restart(self) -> None:
        """Throw away what an earlier pull left of this slice."""
        ...

    def provisional(self) -> None:
        """Note that the source itself calls these figures estimated."""
        ...

    def rows(self, rows: Iterable[Row], next: str | None = None) -> None:  # noqa: A002
        """Take a page: rows by names of `costinsights.billing.columns`, and further ones ``x_…``.

        Money and quantities are `Decimal`, or the text that the provider has them in, never binary
        floating point where it has text; moments are `datetime` or ISO 8601. Missing columns are
        NULL, or follow from others (see `costinsights.billing.loading`). `next` is how to go on after this
        page, where that can be done in another process.
        """
        ...

    def select(self, query: str) -> None:
        """Take what a query of DuckDB gives, on `connection`: columns by the same names."""
        ...

    @property
    def connection(self) -> DuckDBPyConnection:
        """A DuckDB of the run's own, with bounded memory, that reaches files and nothing else."""
        ...

    @property
    def scratch(self) -> str:
        """A folder for what has to be fetched first; it is gone when the slice is done."""
        ...


class Puller(Vendor):
    """Pulls one source of a provider's bill. Subclass it; see the module's docstring."""

    table = "pull"
    page = "docs/bills.md"
    raises = PullError
    provider: ClassVar[str]
    """The provider by the name that FOCUS rows of it have (``AWS``, ``Google Cloud``)."""
    answers: ClassVar[Mapping[str, str]]
    """The SOURCES of the command line that it answers, and which service each is, as it calls it;
    empty text for all services: ``{"aws": "", "aws.s3": "Amazon Simple Storage Service"}``."""
    rank: ClassVar[int] = 0
    """Of several that answer the same source, the highest that is configured is taken. Where the
    same money is in slices of two, that of the higher rank counts."""
    configured_by: ClassVar[str] = ""
    """The option without which it cannot be used; empty for one that needs none."""
    by_resource: ClassVar[str] = ""
    """What tells buckets and storage accounts apart, in a word or two; empty where nothing does."""
    restated: ClassVar[timedelta] = timedelta(days=14)
    """How long after the end of its *month* a slice may still change. Then it is final."""
    granularities: ClassVar[tuple[str, ...]] = ("daily",)
    """Of ``hourly`` and ``daily``, the default first."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options as the configuration has them. Nothing is opened yet.

        Raises:
            PullError: an option is missing, unknown or of the wrong kind, or a variable of the
                environment that one refers to is not set.
        """
        super().__init__(options)
        self.wanted = Wanted()
        """Which lines are wanted; set before `slices`."""
        self.granularity = self.granularities[0]
        """``hourly`` or ``daily``; set before `slices`."""
        self.path = ""
        """What stands behind the source on the command line (``pull focus PATH``)."""
        self.published: Sequence[Published] = ()
        """What the ledger has of this source, for one that would have to look into its files to know
        its slices; set before `slices`."""

    # -- what a puller overrides ----------------------------------------------------------------

    def accounts(self) -> Sequence[Puller]:
        """Return a puller for each account that can be pulled beside the others; by default itself.

        Each is opened, pulled and closed on a thread of its own; an error of one is no other's.
        """
        return (self,)

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        """Return the slices that [`start`, `end`) touches, whole; called when it is open."""
        raise NotImplementedError

    def version(self, slice: Slice) -> str | None:  # noqa: A002  the word of the design
        """Return what the source says of a slice's version, where that is free; None: it does not.

        The same as what was published means that nothing has to be pulled.
        """
        return None

    def plan(self, slices: Sequence[Slice]) -> Plan:
        """Say what pulling these will read, and cost at most; changes nothing."""
        raise NotImplementedError

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002
        """Hand over all rows of a slice.

        Raises:
            PullError: it cannot be had to its end; with `grant` where a permission is missing.
        """
        raise NotImplementedError

    def state(self, slice: Slice, now: datetime) -> State:  # noqa: A002
        """Return how sure a slice is if it is pulled now.

        ``provisional``: yesterday, or what the source itself calls estimated; ``open``: may still be
        restated; ``final``: its month has been over for `restated`.
        """
        if now >= end_of_month(slice.end - timedelta(microseconds=1)) + self.restated:
            return "final"
        return "provisional" if slice.end > midnight(now) - DAY else "open"

    def window(self, now: datetime) -> tuple[datetime, datetime]:
        """Return what a run without ``--start`` pulls: all that may have changed; never today.

        On the day on which a month becomes final it is pulled for the last time.
        """
        return start_of_month(midnight(now) - self.restated - DAY), midnight(now)


def midnight(moment: datetime) -> datetime:
    """Return when the UTC day of a moment began."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def start_of_month(moment: datetime) -> datetime:
    """Return when the month of a moment began."""
    return midnight(moment).replace(day=1)


def end_of_month(moment: datetime) -> datetime:
    """Return when the month of a moment ends: the first moment of the next."""
    return start_of_month(start_of_month(moment) + timedelta(days=32))


def days(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Return the UTC days that [`start`, `end`) touches, each as beginning and end."""
    found: list[tuple[datetime, datetime]] = []
    at = midnight(start)
    while at < end:
        found.append((at, at + DAY))
        at += DAY
    return found


def months(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    """Return the months that [`start`, `end`) touches, each as beginning and end."""
    found: list[tuple[datetime, datetime]] = []
    at = start_of_month(start)
    while at < end:
        found.append((at, end_of_month(at)))
        at = end_of_month(at)
    return found


__all__ = [
    "DAY",
    "HOUR",
    "Loading",
    "Plan",
    "PullError",
    "Puller",
    "Slice",
    "State",
    "Wanted",
    "days",
    "end_of_month",
    "midnight",
    "months",
    "start_of_month",
]
