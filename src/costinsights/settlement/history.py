"""What a history reader is: it asks one system what its queries used, and what its hours cost.

A reader is a plug-in in the entry-point group ``costinsights_history``, under the system's key::

    "aws.redshift" = "costinsights.settlement.aws_redshift:RedshiftHistory"

and one flat file. It knows its system's tables and nothing of ledgers, prices or shares: it says
what *happened* (`Figure`) and what was *paid for by the hour* (`Stretch`). `costinsights.settle`
matches figures with charges, prices them, splits the hours, and writes what is new.

A whole reader::

    class AcmeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        host: str
        user: str
        password: str = ""          # in the file: "${ACME_PASSWORD}"

    class AcmeHistory(History):
        system = "acme"
        latency = timedelta(minutes=45)
        retention = timedelta(days=7)
        grants = "GRANT SELECT ON sys.queries TO settlement"
        Options = AcmeOptions
        options: AcmeOptions

        def open(self):
            import acme                             # the driver: here, and never above
            self.connection = acme.connect(self.options.host, …)

        def close(self):
            self.connection.close()

        def plan(self, since, until):
            return Plan((f"sys.queries from {since:%F %R} to {until:%F %R}",))

        def read(self, since, until):
            for row in self._ask("SELECT … /* " + MARK + " */", since, until):
                yield Figure(vendor_id=row.id, started_at=utc(row.begun), …)

Whatever a reader sends carries `MARK`, so that the next settlement knows its own queries. Every
request to the system is counted with `spend`, and its costs are a charge like any other.

A reader of jobs asks for the runs that wait, by their ids (`by_id`, `waiting`), through
`costinsights.asking`, which knows about throttling, time limits, credentials and pages
(`costinsights.settlement.aws` is that for boto3)::

    class AcmeJobs(History):
        system = "acme.jobs"
        by_id = True

        def read(self, since, until):
            for some in batches(self.waiting, 100):
                answer = patiently(self, "GetRuns", lambda: self.client.get_runs(ids_of(some)))
                yield from map(self._figure, answer.runs)        # running ones with `so_far`
                for id_ in answer.unknown:
                    self.gone(id_)                               # and never for a mere error
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias

import msgspec

from costinsights.records import Resource
from costinsights.vendor import Vendor, VendorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from decimal import Decimal

    from costinsights.jobs import Waiting
    from costinsights.records import Basis

MARK = "costinsights_settlement"
"""Stands in every query of ours: as a comment, a tag or a label, whichever the system keeps. Safe
in all of them: letters and an underscore."""

Meters: TypeAlias = "Mapping[str, int | float | str]"


class Stated(NamedTuple):
    """A part of what a query or job cost, where the system itself states the price of it."""

    what: str
    """What was billed, in the system's own word: a SKU."""
    quantity: Decimal
    """How much of it, in `unit`; less than nothing where more was taken back than billed."""
    unit_price: Decimal
    currency: str
    unit: str
    source: str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One query or job, as the system's own history has it.

    Give what the history knows and leave out what it does not: an unknown figure is None, never 0.
    """

    started_at: datetime
    """When the system began to work on it, with a time zone (see `utc`)."""
    ended_at: datetime | None
    """When it was done; None while it still runs: its charge is then left as it is, unless there
    is `so_far`."""
    so_far: datetime | None = None
    """Of one that still runs: up to when `meters` tell what it has used. Its charge gets that now,
    as ``partial``, and the later figures with the next runs. Only what is `billed` has a price so
    far; shares of capacity wait for the end."""
    vendor_id: str | None = None
    """The system's own id: by it the charge is found, and the charge of a query that ran outside
    of any instrumented program gets its name. None where the history has totals of many calls
    only; such a figure takes its share of an hour and becomes no charge with ``--all``."""
    also: tuple[str, ...] = ()
    """Further ids by which its charge may be known: what the start could say, before it had one."""
    tag: str | None = None
    """What it was marked with in the system's own channel, as it stands there."""
    user: str | None = None
    """Who ran it: held against the rules of the configuration, and never kept."""
    program: str | None = None
    """What its client called itself: the service of a charge that nobody here recorded."""
    text: str | None = None
    """The statement, comments and all. It is redacted before anything of it is kept."""
    labels: Mapping[str, str] = {}
    """Further attribution that the system keeps itself: ``{"job": …}`` of Databricks' own jobs."""
    operation: str | None = None
    """``SELECT``, ``COPY`` …, where the text does not tell."""
    meters: Meters = {}
    """All that it used, in the price book's names (``costinsights prices meters SYSTEM``)."""
    billed: tuple[str, ...] = ()
    """Those of `meters` by which the system bills this very query: they are priced by the book, and
    the charge is then ``metered``. Empty where it only takes its share of capacity; ``0`` in such a
    meter is a query that was free (a cache hit)."""
    basis: Basis = "metered"
    """How what is `billed` is known: ``estimated`` where the system counts nothing of it, and its
    meters were worked out from what it says of the size and the time."""
    problem: str = ""
    """Why nothing can be said of its price, where the answer is not as it should be: a field that
    is missing, a word that nobody knows. The charge is then ``unknown`` and says this; give all of
    `meters` that there are, as they came."""
    stated: tuple[Stated, ...] = ()
    """What the system itself says that it cost, part by part (Databricks' ``list_prices``): like
    `billed`, with no need of the price book."""
    final: bool = True
    """False while the system may still bill more for it: its charge is then left for a later run."""
    parts: tuple[Figure, ...] = ()
    """What it is made of, where one run starts several that are billed each (the jobs of a
    workflow): each has its own minimum and its own price, and the charge is their sum. Of a part
    only `billed` and what sets its price counts; `meters` of the whole are yours to give."""
    becomes: str | None = None
    """The system's id, where `vendor_id` is one that the start had to make up because the system
    told none: the charge has this one from now on."""
    rows: int | None = None
    """Rows returned or changed."""
    error: str | None = None
    """The kind of error (a code or a name, never a message); None for a query that went well."""
    resource: Resource = Resource()
    """Where it ran: host, database, service, region. Only used for ``--all`` and for prices."""
    dimensions: Mapping[str, str] = {}
    """What else sets the price, in the price book's words: ``{"edition": "enterprise"}``."""
    group: str | None = None
    """The capacity that it ran on (warehouse, cluster, reservation), None for none of them."""
    weight: int | Decimal = 0
    """Its work on that capacity, over all of its time: task or CPU time, slot-ms, run time; the
    same unit within a group. An hour is split by it, in proportion to the part of the query's time
    that lies in the hour. 0 is right for what did no work there, such as a cache hit."""
    worked_from: datetime | None = None
    """From when it took its share of that capacity, where it had waited in a queue before."""


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of capacity that was paid for: an hour of a warehouse, a minute of RPUs.

    Its price is exact to 10⁻¹⁵, and its shares, idle included, sum to it exactly. Stretches of one
    group may overlap (a second cluster for ten minutes): each is split on its own.
    """

    group: str
    started_at: datetime
    ended_at: datetime
    quantity: int | Decimal = 0
    """How much was billed for it, in `meter`."""
    meter: str | None = None
    """A meter of the price book. None: the user says the price of an hour, in the ``[[capacity]]``
    that fits `resource` (a Trino cluster of one's own has no price list)."""
    amount: Decimal | None = None
    """The price in `currency`, where the system itself states it (Databricks' ``list_prices``);
    `quantity`, `unit_price`, `unit` and `source` then say how it came about."""
    currency: str | None = None
    unit_price: Decimal | None = None
    unit: str = ""
    source: str = ""
    idle: int | Decimal | None = None
    """The part of `quantity` in which nothing ran, where the system says so itself. Otherwise it
    is the part of the time without any query (of `uptime`, where that is known)."""
    uptime: timedelta | None = None
    """How long it was switched on and paid for within the stretch; None: all of it."""
    final: bool = True
    """False while the system may still charge more for it: it is then left for a later run."""
    apart: bool = False
    """Whether the rest of the group is split even where this has no price, which the report then
    says: what a machine on the spot market cost, beside what is known of it."""
    resource: Resource = Resource()
    dimensions: Mapping[str, str] = {}


class Plan(NamedTuple):
    """What a run is about to do, said before it does anything."""

    reads: tuple[str, ...]
    """A line for each thing that will be read, with its bounds in time."""
    meters: Meters = {}  # noqa: RUF012  nobody changes a default of a tuple's
    """What that costs at most, in the price book's meters; priced and said beforehand."""
    wakes: str | None = None
    """What is paused and would be started by asking it, with what that costs. Nothing is asked of
    it without ``--wake``. To find out must not wake it: ask the management API, not the database."""


class HistoryError(VendorError):
    """The history cannot be read now; the text says why and what to do, without any secret."""


class History(Vendor):
    """Reads the history of one system. Subclass it; see the module's docstring.

    `system` is the system's key, as it stands in charges. Charges whose resource has it as its
    `service` count as well: ``aws.rds`` settles those of ``postgresql`` that ran there.
    """

    table = "settle"
    page = "docs/settlement.md"
    raises = HistoryError
    latency: ClassVar[timedelta] = timedelta(0)
    """How long the system takes until its history is whole. What is younger is left for later."""
    retention: ClassVar[timedelta | None] = None
    """How long it keeps its history; None for as good as ever."""
    skew: ClassVar[timedelta] = timedelta(seconds=5)
    """How far its clock and a program's may be apart when a call is found by its time."""
    meters: ClassVar[tuple[str, ...]] = ()
    """The meters that figures carry, for the table of the README."""
    by_id: ClassVar[bool] = False
    """Whether it asks for queries by their ids: it then gets `pending`."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options as the configuration has them. Nothing is opened yet.

        Raises:
            HistoryError: an option is missing, unknown or of the wrong kind, or a variable of the
                environment that one refers to is not set.
        """
        super().__init__(options)
        self.everything = False
        """Whether queries are wanted that no instrumented program ran; set before `plan`."""
        self.pending: tuple[str, ...] = ()
        """With `by_id`, the system's ids of the charges of the time to settle that wait for their
        figures, oldest first; set before `plan`."""
        self.waiting: tuple[Waiting, ...] = ()
        """The same, with where each went and when, for those who need more than the id."""
        self.lost: dict[str, str] = {}
        """What `gone` was said of: why, by id."""

    # -- what a reader overrides ----------------------------------------------------------------

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what reading from `since` to `until` will scan, cost and wake; changes nothing."""
        raise NotImplementedError

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield every query whose time overlaps [`since`, `until`), in any order.

        Also those that still run, those without a tag and those of other programs: what ran beside
        a query decides about its share. An error in the middle loses nothing: what was read is
        settled where it is whole, and the next run goes on.

        Raises:
            HistoryError: with `grant` where a permission is missing.
        """
        raise NotImplementedError

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield every stretch that overlaps [`since`, `until`). By default there is none.

        `since` and `until` are whole hours.
        """
        return iter(())

    # -- what a reader uses ---------------------------------------------------------------------

    def gone(self, vendor_id: str, why: str = "") -> None:
        """Say that the system does not know a run any more that waits: for good, not for an error.

        Its charge stays, says so, and is not asked for again (``settle --lost`` does). A run that
        was started within the last hour is left alone: what a system does not know *yet* is not
        gone. So that it is not left out of an error by mistake, call this only for an answer that
        says in so many words that there is no such run.
        """
        self.lost[vendor_id] = why or f"{self.system} no longer knows it"


def utc(value: datetime | str | float) -> datetime:
    """Return a moment in UTC, of whatever a driver gives for one.

    That is a `datetime` (without a zone it is taken for UTC), ISO 8601 text, or seconds since the
    epoch.

    Raises:
        ValueError: the text is no moment.
    """
    if isinstance(value, (int, float)):
        return _EPOCH + timedelta(seconds=value)
    if isinstance(value, str):
        text = value.strip().replace(" ", "T", 1)
        # A date alone has no zone that its last part could be taken for.
        value = datetime.fromisoformat(_ISO.sub(_python_310, text) if "T" in text else text)
    if value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    return value.astimezone(timezone.utc)


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Python 3.10 reads three or six decimals and +00:00 only.
_ISO = re.compile(r"(?:\.(\d{1,9}))?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?$", re.IGNORECASE)


def _python_310(found: re.Match[str]) -> str:
    decimals, zone = found[1], (found[2] or "").upper()
    if zone in ("Z", "UTC"):
        zone = "+00:00"
    elif zone:
        digits = zone[1:].replace(":", "").ljust(4, "0")
        zone = f"{zone[0]}{digits[:2]}:{digits[2:]}"
    return f".{decimals[:6].ljust(6, '0')}{zone}" if decimals else zone
