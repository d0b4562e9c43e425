"""Queries of Google Cloud's billing export: run once, paid once, and read to their end.

The unmodified client, without any of its own retries: `costinsights.asking` has the patience, and
counts. A result is read by ``tabledata.list``, whose pages each say how many rows there are in all;
so many have to come.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast
from uuid import uuid4

import msgspec

from costinsights import asking
from costinsights.asking import pages, patiently
from costinsights.billing.puller import PullError
from costinsights.settlement.history import MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from costinsights.billing.gcp_billing_table import Column
    from costinsights.vendor import Vendor

T = TypeVar("T")

TIMEOUT_SECONDS = 60
"""Of one request."""
MIB = 2**20
LEAST_BYTES = 10 * MIB
"""What a query is billed for at least."""
ATTEMPTS = 3
"""How often a query is started which fails, after it was accepted, of what passes."""
PAUSE_SECONDS = (0.2, 5.0)
"""Between two looks at a query that runs: at first, and at most."""
PASSING = frozenset(
    (
        "rateLimitExceeded",
        "jobRateLimitExceeded",
        "backendError",
        "internalError",
        "jobBackendError",
    )
)
"""Reasons of a query's end that are worth another one (cloud.google.com/bigquery, error-messages)."""


class Said(Exception):
    """An error of BigQuery's by its reason: 403 is a missing permission and a full quota alike."""

    def __init__(self, reason: str, status: int | None, headers: Mapping[str, str]) -> None:
        """Take it as `costinsights.troubles` looks at errors."""
        super().__init__(reason)
        self.error_code = reason
        self.status_code = None if reason and status == 403 else status
        self.response = Answered(headers)


class Answered:
    """What `costinsights.troubles` looks for a ``Retry-After`` in."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        """Take the headers of an answer."""
        self.headers = headers


class TornError(PullError):
    """What came of a query's result is not what it has."""


class Page(NamedTuple):
    """A page of a query's result."""

    rows: Sequence[Any]
    total: int
    """Of all pages, as each of them says."""
    token: str | None


class Left(msgspec.Struct):
    """Where the reading of a result was broken off."""

    job: str
    row: int
    token: str


class Jobs:
    """Runs queries in one project, under a cap of bytes for each."""

    def __init__(
        self, vendor: Vendor, table: str, *, most: int, page_rows: int, seconds: int
    ) -> None:
        """Ask for `vendor`, which counts; `table` is for messages.

        Args:
            vendor: Who asks.
            table: What is asked about.
            most: Bytes that a query may be billed for; BigQuery refuses what would read more.
            page_rows: Rows that are asked for at once.
            seconds: For so long a query may run.
        """
        self._vendor = vendor
        self._table = table
        self._most = most
        self._page_rows = page_rows
        self._seconds = seconds
        self.location: str | None = None
        self._client: Any = None
        self._library: Any = None
        self._errors: Any = None

    def connect(self, project: str, endpoint_url: str) -> None:
        """Make the client; `endpoint_url` is another host than Google's, without credentials.

        Raises:
            PullError: it is not installed.
        """
        try:
            self._library = import_module("google.cloud.bigquery")
        except ImportError:
            vendor = self._vendor
            raise PullError(f"{vendor.system}: run  pip install {vendor.dependencies}") from None
        self._errors = import_module("google.api_core.exceptions")
        more: dict[str, Any] = {}
        if endpoint_url:
            anonymous: Any = import_module("google.auth.credentials")
            more["credentials"] = anonymous.AnonymousCredentials()
            more["client_options"] = {"api_endpoint": endpoint_url}
        self._client = self._library.Client(project=project, **more)

    def close(self) -> None:
        """Hang up."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def table(self) -> Any:
        """Return what ``tables.get`` says of the table, which is free."""
        name = self._table
        return self._ask(
            "tables.get",
            lambda: self._client.get_table(name, retry=None, timeout=TIMEOUT_SECONDS),
        )

    def measured(self, sql: str, words: Mapping[str, str]) -> int:
        """Return what a query will be billed for, by a dry run, which is free."""
        config = self._config(words, dry_run=True, use_query_cache=False)
        job = self._ask("jobs.insert (dry run)", lambda: self._insert(sql, config, None))
        return max(LEAST_BYTES, -(-int(job.total_bytes_processed or 0) // MIB) * MIB)

    def run(self, sql: str, words: Mapping[str, str]) -> Any:
        """Run a query to its end, count what it is billed for, and return its job.

        Raises:
            PullError: it fails, would read more than it may, or takes too long.
        """
        system = self._vendor.system
        for attempt in range(ATTEMPTS):
            job = self._finished(sql, words)
            if job.error_result is None:
                self._vendor.spend(0, billed_bytes=int(job.total_bytes_billed or 0))
                return job
            reason = str(job.error_result.get("reason") or "unknown")
            if reason == "accessDenied":
                raise self._vendor.denied("rows")
            if reason == "bytesBilledLimitExceeded":
                raise PullError(
                    f"{system}: a query of {self._table} would read more than "
                    f"maximum_bytes_billed = {self._most}: raise it, or ask for less"
                )
            if reason not in PASSING or attempt + 1 == ATTEMPTS:
                raise PullError(f"{system}: a query of {self._table} ended as {reason}")
            asking.sleep(PAUSE_SECONDS[1])
        raise AssertionError(sql)  # pragma: no cover  the last attempt returns or raises

    def known(self, id_: str) -> Any:
        """Return a job by its id.

        Raises:
            NoSuchThing: there is none any more.
        """
        return self._ask("jobs.get", lambda: self._get(id_))

    def page(self, table: Any, columns: Sequence[Column], token: str | None) -> Page:
        """Make the request for a page of a result, once."""
        return self._said(lambda: self._list(table, columns, token))

    # -- requests -------------------------------------------------------------------------------

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        return patiently(self._vendor, what, partial(self._said, call))

    def _said(self, call: Callable[[], T]) -> T:
        """Make a call, and have its error by Google's reason instead of its status."""
        try:
            return call()
        except self._errors.GoogleAPICallError as error:
            raise said(error) from None

    def _config(self, words: Mapping[str, str], **more: Any) -> Any:
        parameter = self._library.ScalarQueryParameter
        return self._library.QueryJobConfig(
            labels={MARK: "1"},
            query_parameters=[parameter(name, "STRING", word) for name, word in words.items()],
            **more,
        )

    def _insert(self, sql: str, config: Any, id_: str | None) -> Any:
        return self._client.query(
            sql,
            job_config=config,
            job_id=id_,
            location=self.location,
            retry=None,
            job_retry=None,
            timeout=TIMEOUT_SECONDS,
        )

    def _get(self, id_: str) -> Any:
        return self._client.get_job(
            id_, location=self.location, retry=None, timeout=TIMEOUT_SECONDS
        )

    def _list(self, table: Any, columns: Sequence[Column], token: str | None) -> Page:
        field = self._library.SchemaField
        found = self._client.list_rows(
            table,
            selected_fields=[field(one.name, one.kind) for one in columns],
            page_token=token,
            page_size=self._page_rows,
            retry=None,
            timeout=TIMEOUT_SECONDS,
        )
        rows = list(next(found.pages, ()))
        return Page(rows, int(found.total_rows or 0), found.next_page_token or None)

    def _finished(self, sql: str, words: Mapping[str, str]) -> Any:
        config = self._config(words, maximum_bytes_billed=self._most)
        # A name of ours: an insert whose answer got lost is not made, and paid, a second time.
        id_ = f"costinsights-{uuid4()}"

        def start() -> Any:
            try:
                return self._insert(sql, config, id_)
            except self._errors.Conflict:
                return self._get(id_)

        job = self._ask("jobs.insert", start)
        waited, pause = 0.0, PAUSE_SECONDS[0]
        while job.state != "DONE":
            if waited > self._seconds:
                self._ask("jobs.cancel", lambda: self._cancel(id_))
                raise PullError(
                    f"{self._vendor.system}: no answer of {self._table} in {self._seconds} s"
                )
            asking.sleep(pause)
            waited += pause
            pause = min(pause * 2, PAUSE_SECONDS[1])
            job = self.known(id_)
        return job

    def _cancel(self, id_: str) -> None:
        self._client.cancel_job(id_, location=self.location, retry=None, timeout=TIMEOUT_SECONDS)


class Reader:
    """Reads a query's result page by page, and holds what came against what it is to have."""

    def __init__(self, vendor: Vendor, jobs: Jobs, job: Any, columns: Sequence[Column]) -> None:
        """Begin with the first row of a job's result, which has these columns."""
        self._vendor = vendor
        self._jobs = jobs
        self._job = str(job.job_id)
        self._table = job.destination
        self._columns = columns
        self._row = 0
        self._first: str | None = None

    def go_on(self, left: Left) -> Reader:
        """Begin where another one was broken off."""
        self._row, self._first = left.row, left.token
        return self

    def left(self, token: str) -> str:
        """Return how another process goes on, at the page of a token."""
        return msgspec.json.encode(Left(self._job, self._row, token)).decode()

    def pages(self, expected: int | None = None) -> Iterator[tuple[Sequence[Any], str | None]]:
        """Yield the rows of each page, and the token of the next one.

        Raises:
            TornError: there are more or fewer than BigQuery says, or than the `expected`, or there
                is no end of them.
        """
        total, seen = 0, {self._first}
        for page in pages(self._vendor, "tabledata.list", self._page, _token, first=self._first):
            total = page.total
            self._row += len(page.rows)
            if page.token is not None and page.token in seen:
                raise self._torn("gave a page for the second time")
            if len(seen) > asking.MOST_PAGES:
                raise self._torn(f"gave {asking.MOST_PAGES:,} pages and was not done")
            seen.add(page.token)
            if expected is not None and total != expected:
                raise self._torn(f"has {total:,} rows where {expected:,} were counted")
            if self._row > total:
                raise self._torn(f"gave {self._row:,} rows of {total:,}: some have come twice")
            yield page.rows, page.token
        if self._row != total:
            raise self._torn(f"gave {self._row:,} rows of {total:,}, and no more")

    def _page(self, token: str | None) -> Page:
        return self._jobs.page(self._table, self._columns, token)

    def _torn(self, how: str) -> TornError:
        return TornError(f"{self._vendor.system}: tabledata.list {how}; the next run reads it anew")


def _token(page: Page) -> str | None:
    return page.token


def said(error: Any) -> Said:
    """Return an error of Google's client by its reason, with what it says of when to come back."""
    listed = cast("list[Mapping[str, Any]]", error.errors or [])
    reason = next((str(one["reason"]) for one in listed if one.get("reason")), "")
    headers = cast("Mapping[str, str]", getattr(getattr(error, "response", None), "headers", {}))
    status = None if error.code is None else int(error.code)
    return Said(reason or type(error).__name__, status, headers)
