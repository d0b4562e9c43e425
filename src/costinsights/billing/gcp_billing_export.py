"""Google Cloud's bill: the billing export in BigQuery, standard, detailed and FOCUS.

Google has no API that says what was spent: it appends rows to a table, and this asks that table.
Which of the three forms it has is read from its columns, never from its name; columns that are
not there are not asked for, and new ones do not matter.

Rows are appended and never changed: late usage, corrections and credits are new rows with a later
``export_time``. So one query says, for each day of usage, when its last row came and how many
there are, which is the day's `version`: a day that has not moved is not read again. It reads the
partitions from the first day on and without an end, for a row of any day may come on any later one.
It also says in which partitions a day's rows lie, and a day is then read from these alone and up to
that last row: so many rows have to come as it has counted, or the day is not whole.

Slices are days of usage (UTC). An invoice's month is another one, Pacific time and by when Google
got to know of the usage: it is the billing period, and ``x_InvoiceMonth``.

Costs are binary floating point in the export. They are asked for as text of 17 digits, which says
exactly which number it is, and its shortest text is the amount; BigQuery's NUMERIC would cut at the
ninth decimal.

What is asked stands in `costinsights.billing.gcp_billing_table`, how in `…gcp_billing_jobs`, and
what is made of the lines in `…gcp_billing_lines`.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from costinsights.asking import NoSuchThing
from costinsights.billing.gcp_billing_jobs import LEAST_BYTES, MIB, Jobs, Left, Reader, TornError
from costinsights.billing.gcp_billing_lines import focus_rows, in_days, native_rows, number
from costinsights.billing.gcp_billing_table import FOCUS, LOOKED, Found, Shape, utc
from costinsights.billing.puller import (
    DAY,
    Plan,
    Puller,
    PullError,
    Slice,
    days,
    midnight,
    start_of_month,
)
from costinsights.records import Resource
from costinsights.systems import gcp_storage
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from costinsights.billing.puller import Loading, Row

HOST = "bigquery.googleapis.com"
LOOK_BACK = timedelta(days=40)
"""How far back days are looked at for what has changed, though they are final: corrections of one
month are on the invoice of the next. To look is one query, whatever its span."""

TABLE = re.compile(r"[A-Za-z0-9:._-]+\.[A-Za-z0-9_]+\.[A-Za-z0-9_$-]+")
ACCOUNT = re.compile(r"gcp_billing_export_\w*?([0-9A-F]{6})_([0-9A-F]{6})_([0-9A-F]{6})$")


class BillingExportOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[pull."gcp.billing_export"]``. Credentials are Google's own (GOOGLE_APPLICATION_CREDENTIALS)."""

    tables: tuple[str, ...]
    """``project.dataset.table`` of each billing account; one form of each."""
    project: str
    """Where the queries run, and what is billed for them."""
    location: str = ""
    """Of the datasets; asked for where it is not said."""
    maximum_bytes_billed: int = 10 * 2**30
    """Of each of our queries: a day is one."""
    final_after_days: int = 10
    """Days after a month's end until its days are final; Google promises none (billing.md 12.6)."""
    page_rows: int = 10_000
    """Rows that are asked for at once."""
    timeout: int = 900
    """Seconds that one of our queries may take."""
    endpoint_url: str = ""
    """Another host than Google's, without credentials: for tests."""


class BillingExportPuller(Puller):
    """Pulls one table a billing account."""

    system = "gcp.billing_export"
    provider = "Google Cloud"
    answers: ClassVar[Mapping[str, str]] = {"gcp": "", gcp_storage.SYSTEM: gcp_storage.SERVICE}
    configured_by = "tables"
    restated = timedelta(days=10)
    granularities = ("hourly", "daily")
    by_resource = "in the detailed and the FOCUS export"
    grants = (
        "bq query --nouse_legacy_sql 'GRANT `roles/bigquery.dataViewer` ON TABLE `TABLE` TO "
        '"serviceAccount:ACCOUNT"\'\n'
        "gcloud projects add-iam-policy-binding PROJECT --member=serviceAccount:ACCOUNT "
        "--role=roles/bigquery.jobUser"
    )
    verified = "emulator: own REST server, SQL on DuckDB; unmodified google-cloud-bigquery 3.47"
    dependencies = "costinsights[bigquery]"
    Options = BillingExportOptions
    options: BillingExportOptions

    def __init__(
        self,
        options: Mapping[str, object] | None = None,
        parent: BillingExportPuller | None = None,
    ) -> None:
        """Check the tables; `parent` is whose account this is, of several.

        Raises:
            PullError: an option is missing or wrong, or one bill would be read twice.
        """
        super().__init__(options)
        self.restated = timedelta(days=self.options.final_after_days)  # type: ignore[misc]  # an option says otherwise
        self._check()
        self._given = dict(options or {})
        self._parent = parent
        self._table = self.options.tables[0]
        self._jobs = Jobs(
            self,
            self._table,
            most=self.options.maximum_bytes_billed,
            page_rows=self.options.page_rows,
            seconds=self.options.timeout,
        )
        self._shape: Shape | None = None
        self._days: dict[datetime, Found] = {}
        self._known: tuple[datetime, datetime] | None = None
        self._at(self.options.location)

    def _check(self) -> None:
        place = f'[{self.table}."{self.system}"]'
        tables = self.options.tables
        if not tables:
            raise PullError(f'{place}: say where the bill is: tables = ["project.dataset.table"]')
        seen: dict[str, str] = {}
        for table in tables:
            if TABLE.fullmatch(table) is None:
                raise PullError(f"{place}: {table!r} is no project.dataset.table")
            first = seen.setdefault(_account(table), table)
            if first != table:
                raise PullError(
                    f"{place}: {first} and {table} have the same bill, which would count twice: "
                    "keep one of them"
                )
        if self.options.maximum_bytes_billed < LEAST_BYTES:
            raise PullError(f"{place}: maximum_bytes_billed must be {LEAST_BYTES} at least")

    def _at(self, location: str) -> None:
        self._jobs.location = location or None
        region = location.lower() or None
        self.place = (Resource(HOST, None, self.options.project, None, region), {})
        if self._parent is not None and self._parent.place[0].region is None:
            self._parent.place = self.place

    # -- what the engine asks -------------------------------------------------------------------

    def accounts(self) -> Sequence[Puller]:
        """Return a puller for each table."""
        if len(self.options.tables) == 1:
            return (self,)
        return [
            type(self)({**self._given, "tables": (table,)}, self) for table in self.options.tables
        ]

    def open(self) -> None:
        """Make the client, and look at the table's columns, which is free.

        Raises:
            PullError: the client is not installed, or the table is no export of the bill.
        """
        self.renew()
        try:
            table = self._jobs.table()
        except NoSuchThing:
            raise PullError(f"{self.system}: there is no table {self._table}") from None
        self._shape = Shape(self._table, table)
        self._at(self._shape.location or self.options.location)

    def renew(self) -> None:
        """Make the client anew, and keep what is known of the table."""
        self.close()
        self._jobs.connect(self.options.project, self.options.endpoint_url)

    def close(self) -> None:
        """Hang up."""
        self._jobs.close()

    def slices(self, start: datetime, end: datetime) -> Sequence[Slice]:
        """Return a slice for each day of usage, but for those from before there was an export."""
        shape = self._its()
        if self.wanted.resource and not shape.resources:
            raise PullError(
                f"{self.system}: {self._table} has no resources: a bucket's lines are in the "
                "detailed and in the FOCUS export only"
            )
        self._look(start, end)
        found: list[Slice] = []
        before: list[datetime] = []
        for begin, until in days(start, end):
            if not self._days[begin].rows and shape.created and until <= shape.created:
                before.append(begin)
            else:
                bill = _account(self._table)
                found.append(Slice(self.system, bill, begin, until, self.wanted.text))
        if before:
            self.missing(
                f"{self._table} was made on {shape.created:%Y-%m-%d} and has nothing of "
                f"{len(before)} days from {before[0]:%Y-%m-%d} on: what they cost is not known here"
            )
        if self.wanted.text and not any(one.rows for one in self._days.values()):
            self.missing(
                f"{self._table} has no line of {self.wanted.text} in this time: services are "
                "called as in its column service.description"
            )
        return found

    def version(self, slice: Slice) -> str | None:  # noqa: A002  the word of the design
        """Return when a day's last row came, and how many it has."""
        found = self._of(slice)
        last = "never" if found.exported is None else f"{found.exported:%Y-%m-%dT%H:%M:%S.%fZ}"
        return f"{self._its().told} {last} {found.rows}"

    def plan(self, slices: Sequence[Slice]) -> Plan:
        """Say how many bytes each day's query reads, by dry runs, which are free."""
        shape, most = self._its(), self.options.maximum_bytes_billed
        filled = [one for one in slices if self._of(one).rows]
        read, guessed = 0, False
        for at, one in enumerate(filled):
            self.progress("planning", at, len(filled))
            try:
                read += min(most, self._jobs.measured(self._day(one), self._words()))
            except VendorError:
                guessed = True
                read += most
        lines = [
            (
                f"{self._table} ({shape.told}): {len(slices)} days of usage in {len(filled)} "
                f"queries, {read // MIB:,} MiB{' at most' if guessed else ''}; each is refused "
                f"beyond {most // MIB:,} MiB"
            )
        ]
        if shape.partition is None:
            lines.append(
                f"{self._table} is a view, or not partitioned by when its rows came: each query "
                "reads all of its time"
            )
        return Plan(tuple(lines), {"billed_bytes": read})

    def pull(self, slice: Slice, into: Loading) -> None:  # noqa: A002
        """Read a day's rows.

        Raises:
            PullError: not all of them came.
        """
        expected = self._of(slice).rows
        if not expected:
            into.restart()
            into.rows(())
            return
        sql = self._day(slice)
        reader = self._resumed(into, sql)
        if reader is None:
            into.restart()
            job = self._jobs.run(sql, self._words())
            reader = Reader(self, self._jobs, job, self._its().selected)
        try:
            for rows, token in reader.pages(expected):
                into.rows(self._rows(rows), None if token is None else reader.left(token))
        except TornError:
            into.restart()
            raise

    def window(self, now: datetime) -> tuple[datetime, datetime]:
        """Return what is looked at without ``--start``: also days that are final, for changes."""
        back = max(LOOK_BACK, self.restated + DAY)
        return start_of_month(midnight(now) - back), midnight(now)

    def denied(self, what: str) -> VendorError:
        """Return the error for a missing permission, with the grants for this table and project."""
        grant = self.grants.replace("`TABLE`", f"`{self._table}`")
        grant = grant.replace("PROJECT", self.options.project)
        return PullError(f"{self.system}: no permission for {what} of {self._table}", grant=grant)

    # -- which days have moved ------------------------------------------------------------------

    def _its(self) -> Shape:
        if self._shape is None:
            raise PullError(f"{self.system}: {self._table} is not open")
        return self._shape

    def _of(self, slice_: Slice) -> Found:
        if slice_.start not in self._days:
            self._look(slice_.start, slice_.end)
        return self._days[slice_.start]

    def _look(self, start: datetime, end: datetime) -> None:
        """Find out what there is of each day: one query for all that is not known yet."""
        start, end = midnight(start), days(start, end)[-1][1]
        if self._known is not None:
            first, last = self._known
            if start < first and last < end:
                self._look(start, first)
            elif first <= start and end <= last:
                return
            start, end = (start, first) if start < first and end <= last else (last, end)
        found = {begin: Found() for begin, _ in days(start, end)}
        sql = self._its().looking(start, end, self._only())
        job = self._jobs.run(sql, self._words())
        for rows, _ in Reader(self, self._jobs, job, LOOKED).pages():
            for row in rows:
                parts = tuple(sorted(int(part) for part in (row["parts"] or "").split(",") if part))
                last_row = None if row["last"] is None else utc(row["last"])
                found[utc(row["day"])] = Found(int(row["found"]), last_row, parts)
        self._days.update(found)
        known = self._known or (start, end)
        self._known = min(start, known[0]), max(end, known[1])

    def _words(self) -> dict[str, str]:
        """Return the parameters of every query: what the lines are to be of."""
        words = {"service": self.wanted.service, "resource": self.wanted.resource}
        return {name: word for name, word in words.items() if word}

    def _only(self) -> str:
        """Return the condition for the lines that are wanted."""
        shape = self._its()
        columns = {"service": shape.services, "resource": shape.resources}
        return "".join(
            f"\n  AND ({' OR '.join(f'{column} = @{name}' for column in columns[name])})"
            for name in self._words()
        )

    def _day(self, slice_: Slice) -> str:
        return self._its().reading(slice_.start, slice_.end, self._of(slice_), self._only())

    # -- rows -----------------------------------------------------------------------------------

    def _resumed(self, into: Loading, sql: str) -> Reader | None:
        """Go on where an earlier pull was, if its query's result is still there: it is paid for."""
        if not into.resumed:
            return None
        left = msgspec.json.decode(into.resumed, type=Left)
        try:
            job = self._jobs.known(left.job)
        except NoSuchThing:
            return None
        if job.query != sql or job.state != "DONE" or job.error_result is not None:
            return None
        return Reader(self, self._jobs, job, self._its().selected).go_on(left)

    def _rows(self, rows: Iterable[Any]) -> Iterator[Row]:
        shape = self._its()
        made = focus_rows if shape.form is FOCUS else native_rows
        daily = self.granularity == "daily"
        for row in rows:
            told = dict(row.items())
            for column in shape.selected:
                if column.number:
                    told[column.name] = number(told[column.name])
            for one in made(told):
                yield in_days(one) if daily else one


def _account(table: str) -> str:
    """Return whose bill a table has: the billing account, where the name says it."""
    found = ACCOUNT.search(table)
    return table if found is None else "-".join(found.groups())
