"""BigQuery's history: ``INFORMATION_SCHEMA.JOBS`` of a project, in each region asked for.

One query a region, of the jobs that were created in the time and up to six hours before it, which
is how long a query may run. It is a query like any other and is billed for the metadata that it
reads, 10 MiB at least and never from the cache: `maximum_bytes_billed` is its cap, beyond which
BigQuery refuses it, and what is said beforehand is that cap's price.

Jobs on demand are priced by the bytes billed. Those on a reservation share its hours by their slot
time: a reservation is billed for the slots that it has, not for those that jobs used. How many
those were is read from ``RESERVATIONS_TIMELINE`` where `admin_project` says whose it is: the
baseline of each minute and the slot-seconds that autoscaling was charged for, at the list price of
the edition. Otherwise an hour's price is that of the ``[[capacity]]`` that names the project. A
script's children are left out, because their parent has their sum. Where row-level security hides
the bytes billed, the price stays unknown.

Columns: cloud.google.com/bigquery/docs/information-schema-jobs and
…/information-schema-reservation-timeline; they are kept for 180 days.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from costinsights.records import Resource
from costinsights.settlement.history import MARK, Figure, History, HistoryError, Plan, Stretch, utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LONGEST = timedelta(hours=6)
LEAST_BYTES = 10 * 2**20
"""What such a query is billed for at least, and what `maximum_bytes_billed` must be at least."""
HOUR = timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)
MILLI = Decimal("0.001")
FREE = frozenset(("LOAD", "EXTRACT", "COPY"))
HOST = "bigquery.googleapis.com"

JOBS = """
SELECT job_id, job_type, statement_type, creation_time, end_time, state, query, user_email,
       total_bytes_processed, total_bytes_billed, total_slot_ms, cache_hit, reservation_id,
       error_result.reason AS reason, labels
FROM `{project}`.`region-{region}`.INFORMATION_SCHEMA.JOBS
WHERE creation_time >= @begin AND creation_time < @until
  AND (end_time IS NULL OR end_time > @since) AND parent_job_id IS NULL
"""

# Minutes that a failover reservation spends in its other region have its baseline there as well,
# and that is billed where it was created.
TIMELINE = """
SELECT reservation_id, edition, TIMESTAMP_TRUNC(period_start, HOUR) AS hour,
       SUM(IF(is_creation_region, slots_assigned, 0)) * 60 AS baseline,
       SUM(period_autoscale_slot_seconds) AS autoscaled
FROM `{project}`.`region-{region}`.INFORMATION_SCHEMA.RESERVATIONS_TIMELINE
WHERE period_start >= @since AND period_start < @until
GROUP BY reservation_id, edition, hour
"""


class BigQueryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[settle."gcp.bigquery"]``. Credentials are Google's own (GOOGLE_APPLICATION_CREDENTIALS)."""

    project: str
    regions: tuple[str, ...] = ("us",)
    """Locations of jobs: ``us``, ``eu``, ``europe-west4``."""
    admin_project: str = ""
    """Whose the reservations are, to read what they had in slots; without it a ``[[capacity]]``
    says what an hour costs."""
    shared: bool = False
    """Whether other projects' jobs run on these reservations too: what this project's did not use
    of the slots is then idle, as far as this project can tell, and never its jobs'."""
    maximum_bytes_billed: int = 2**30
    """Of each of our queries."""
    endpoint_url: str = ""
    """Another host than Google's, without credentials: for tests."""


class BigQueryHistory(History):
    """Reads the jobs of one project."""

    system = "gcp.bigquery"
    retention = timedelta(days=180)
    grants = (
        "gcloud projects add-iam-policy-binding PROJECT --member=serviceAccount:ACCOUNT "
        "--role=roles/bigquery.resourceViewer\n"
        "gcloud projects add-iam-policy-binding PROJECT --member=serviceAccount:ACCOUNT "
        "--role=roles/bigquery.jobUser"
    )
    meters = ("billed_bytes", "processed_bytes", "slot_ms", "cache_hit", "reservation")
    verified = "emulator: own REST server"
    dependencies = "costinsights[bigquery]"
    Options = BigQueryOptions
    options: BigQueryOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Check the cap."""
        super().__init__(options)
        if self.options.maximum_bytes_billed < LEAST_BYTES:
            raise HistoryError(
                f'[settle."{self.system}"]: maximum_bytes_billed must be {LEAST_BYTES} at least'
            )
        self.place = (self._at(self.options.regions[0]), {})
        self._client: Any = None
        self._library: Any = None
        self._reservations: dict[str, str] = {}
        """Those that jobs were read of, with the region."""
        self._worked: dict[str, list[tuple[datetime, datetime, int]]] = {}
        """What their jobs did: from, until, and the slot-milliseconds."""

    def _at(self, region: str) -> Resource:
        return Resource(HOST, None, self.options.project, None, region.lower())

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what is read, and what it may be billed at most."""
        options = self.options
        reads = tuple(
            f"{options.project}.region-{region}.INFORMATION_SCHEMA.JOBS from "
            f"{since - LONGEST:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC: billed for "
            f"{LEAST_BYTES >> 20} MiB at least, refused beyond "
            f"{options.maximum_bytes_billed >> 20} MiB"
            for region in options.regions
        )
        if options.admin_project:
            reads += tuple(
                f"{options.admin_project}.region-{region}.INFORMATION_SCHEMA.RESERVATIONS_TIMELINE "
                f"from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC, under the same cap"
                for region in options.regions
            )
        return Plan(reads, {"billed_bytes": options.maximum_bytes_billed * len(reads)})

    def open(self) -> None:
        """Make the client."""
        try:
            self._library = import_module("google.cloud.bigquery")
        except ImportError:
            raise HistoryError(f"{self.system}: run  pip install {self.dependencies}") from None
        more: dict[str, Any] = {}
        if self.options.endpoint_url:
            anonymous: Any = import_module("google.auth.credentials")
            more["credentials"] = anonymous.AnonymousCredentials()
            more["client_options"] = {"api_endpoint": self.options.endpoint_url}
        self._client = self._library.Client(project=self.options.project, **more)

    def close(self) -> None:
        """Hang up."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(self, view: str, region: str, text: str, **moments: datetime) -> Any:
        """Run a query under the cap, with our label, and count what it was billed for.

        Raises:
            HistoryError: it may not be run, or would go beyond the cap.
        """
        errors: Any = import_module("google.api_core.exceptions")
        library = self._library
        config = library.QueryJobConfig(
            labels={MARK: "1"},
            maximum_bytes_billed=self.options.maximum_bytes_billed,
            query_parameters=[
                library.ScalarQueryParameter(name, "TIMESTAMP", moment)
                for name, moment in moments.items()
            ],
        )
        self.spend()
        try:
            job = self._client.query(text, job_config=config, location=region)
            rows = list(job.result())
        except errors.Forbidden:
            raise self.denied(f"region-{region}.INFORMATION_SCHEMA.{view}") from None
        except errors.GoogleAPICallError as error:
            raise HistoryError(
                f"{self.system}: {view} of region-{region} cannot be read "
                f"({type(error).__name__}): is it a location, and is maximum_bytes_billed enough?"
            ) from None
        self.spend(0, billed_bytes=job.total_bytes_billed or 0)
        return rows

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the jobs of all users; children of scripts are in their parents."""
        for region in self.options.regions:
            text = JOBS.format(project=self.options.project, region=region.lower()).strip()
            bounds = {"begin": since - LONGEST, "since": since, "until": until}
            for row in self._ask("JOBS", region, text, **bounds):
                yield self._figure(region, row)

    def _figure(self, region: str, row: Any) -> Figure:
        meters: dict[str, int | float | str] = {}
        for column, meter in (
            ("total_bytes_processed", "processed_bytes"),
            ("total_bytes_billed", "billed_bytes"),
            ("total_slot_ms", "slot_ms"),
        ):
            if row[column] is not None:
                meters[meter] = int(row[column])
        if row["cache_hit"]:
            meters["cache_hit"] = 1
        reason, reservation = row["reason"], row["reservation_id"] or None
        if reservation is not None:
            meters["reservation"] = reservation
            meters.pop("billed_bytes", None)
            self._reservations[reservation] = region
        elif row["job_type"] in FREE or (reason is not None and reason != "stopped"):
            meters["billed_bytes"] = 0  # see costinsights_instrumentors.bigquery
        done, ended = row["state"] == "DONE", row["end_time"]
        if reservation is not None and done and ended is not None:
            span = utc(row["creation_time"]), utc(ended), int(meters.get("slot_ms", 0))
            self._worked.setdefault(reservation, []).append(span)
        labels = {pair["key"]: pair["value"] for pair in _pairs(row["labels"])}
        return Figure(
            vendor_id=row["job_id"],
            started_at=utc(row["creation_time"]),
            ended_at=utc(ended) if done and ended is not None else None,
            user=row["user_email"],
            text=row["query"],
            labels=_attribution(labels),
            operation=row["statement_type"] or row["job_type"],
            meters=meters,
            billed=("billed_bytes",) if "billed_bytes" in meters else (),
            error=reason,
            resource=self._at(region),
            group=reservation,
            weight=int(meters.get("slot_ms", 0)) if reservation is not None else 0,
        )

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the hours of the reservations in use, by their timeline or by the user's word."""
        if self.options.admin_project:
            for region in dict.fromkeys(self._reservations.values()):
                yield from self._timeline(region, since, until)
            return
        for name, region in self._reservations.items():
            hour = since
            while hour < until:
                yield Stretch(
                    group=name,
                    started_at=hour,
                    ended_at=hour + HOUR,
                    resource=self._at(region),
                )
                hour += HOUR

    def _timeline(self, region: str, since: datetime, until: datetime) -> Iterator[Stretch]:
        project = self.options.admin_project
        text = TIMELINE.format(project=project, region=region.lower()).strip()
        for row in self._ask("RESERVATIONS_TIMELINE", region, text, since=since, until=until):
            name, hour = row["reservation_id"], utc(row["hour"])
            if name not in self._reservations:
                continue
            slots = Decimal(int(row["baseline"] or 0) + int(row["autoscaled"] or 0))
            yield Stretch(
                group=name,
                started_at=hour,
                ended_at=hour + HOUR,
                quantity=slots,
                meter="slot_seconds",
                idle=max(Decimal(0), slots - self._used(name, hour))
                if self.options.shared
                else None,
                resource=self._at(region),
                dimensions={"edition": str(row["edition"] or "").lower().replace(" ", "_")},
            )

    def _used(self, reservation: str, hour: datetime) -> Decimal:
        """Return the slot-seconds of this project's jobs in an hour, each spread over its time."""
        total = Decimal(0)
        for begun, ended, slot_ms in self._worked.get(reservation, ()):
            inside = min(ended, hour + HOUR) - max(begun, hour)
            if inside > timedelta(0):
                total += (
                    Decimal(slot_ms) * (inside // MICROSECOND) / ((ended - begun) // MICROSECOND)
                )
        return (total / 1000).quantize(MILLI)


def _pairs(labels: Any) -> list[Any]:
    """Return the key and value of each label."""
    return list(labels or ())


def _attribution(labels: Mapping[str, str]) -> dict[str, str]:
    """Return what labels say of who a job is for: ours without their prefix, and our own mark."""
    return {
        key.removeprefix("costinsights_"): value
        for key, value in labels.items()
        if key.startswith("costinsights_") and key != MARK
    } | ({MARK: "1"} if MARK in labels else {})
