"""How large Cloud Storage's buckets are: Cloud Monitoring has it once a day, by class.

Metrics ``storage.googleapis.com/storage/v2/total_bytes`` and ``…/total_count``, with the labels
``storage_class`` and ``type`` (live, noncurrent and soft-deleted objects, parts of uploads), of the
resource ``gcs_bucket``, which says the location: docs.cloud.google.com/monitoring/api/metrics_gcp.
Asked by REST through google-auth; credentials are Google's own.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import msgspec

from costinsights.asking import NoSuchThing, pages, patiently
from costinsights.buckets.source import ASKED, Counted, Found, Part, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costinsights.buckets.places import Place

    Table = Mapping[str, Any]

TIMEOUT_SECONDS = 60
LOOK_BACK = timedelta(days=2)
SCOPES = (
    "https://www.googleapis.com/auth/monitoring.read",
    "https://www.googleapis.com/auth/devstorage.read_only",
)
METRICS = "storage.googleapis.com/storage/v2/"
SIZE, COUNT = f"{METRICS}total_bytes", f"{METRICS}total_count"
LIVE = "live-object"


class GCSSizeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[storage."gcp.storage"]``. Credentials are google-auth's default ones."""

    project: str = ""
    """Whose buckets they are; by default the project of the credentials."""
    monitoring_url: str = "https://monitoring.googleapis.com"
    storage_url: str = "https://storage.googleapis.com"
    token: str = ""
    """A bearer token to use in place of the credentials."""


class GCSSize(Source):
    """Asks Cloud Monitoring for both metrics, of the whole bucket at once."""

    system = "gcp.storage"
    monitoring = "gcp.monitoring"
    list_meter = "class_a_operations"
    grants = (
        "gcloud projects add-iam-policy-binding PROJECT --member=… "
        "--role=roles/monitoring.viewer; for --list also roles/storage.legacyBucketReader"
    )
    verified = "emulator: own REST server"
    dependencies = "costinsights[cloud_storage]"
    Options = GCSSizeOptions
    options: GCSSizeOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._session: Any = None
        self._project = ""

    def open(self) -> None:
        """Find the credentials.

        Raises:
            StorageError: google-auth is missing, or there are no credentials or no project.
        """
        try:
            transport: Any = import_module("google.auth.transport.requests")
            auth: Any = import_module("google.auth")
        except ImportError:
            raise self.raises(f"{self.system}: run  pip install '{self.dependencies}'") from None
        found = ""
        if self.options.token:
            credentials = import_module("google.oauth2.credentials").Credentials(self.options.token)
        else:
            try:
                credentials, found = auth.default(scopes=SCOPES)
            except auth.exceptions.DefaultCredentialsError as error:
                raise self.raises(f"{self.system}: {type(error).__name__}") from None
        self._project = self.options.project or found or ""
        if not self._project:
            raise self.raises(
                f'{self.system}: say whose the buckets are: project = "…" in '
                f'[storage."{self.system}"]'
            )
        # It renews a token by itself when it is told that it has expired; `patiently` does the rest.
        self._session = transport.AuthorizedSession(credentials)

    def close(self) -> None:
        """Hang up."""
        if self._session is not None:
            self._session.close()

    def measured(self, place: Place, now: datetime) -> Found:
        """Ask Cloud Monitoring."""
        sizes = list(self._series(place.name, SIZE, now))
        counts = (
            {_key(one): _latest(one) for one in self._series(place.name, COUNT, now)}
            if sizes
            else {}
        )
        at = max((_latest(one)[0] for one in sizes), default=None)
        location = next((_labels(one, "resource").get("location") for one in sizes), None)
        parts: list[Part] = []
        for one in sorted(sizes, key=_key):
            moment, size = _latest(one)
            name, kind = _key(one)
            number = counts.get((name, kind))
            if moment == at:
                said = name if kind in ("", LIVE) else f"{name} ({kind})"
                parts.append(
                    Part(said, {"storage_class": name}, size, None if number is None else number[1])
                )
        objects = (
            None
            if not counts
            else sum(number for moment, number in counts.values() if moment == at)
        )
        nothing = (
            f"Cloud Monitoring has no figure in {self._project}: the bucket is empty, not a day "
            "old, or another project's"
        )
        notes = () if parts else (nothing,)
        return Found("Cloud Monitoring", at, location, tuple(parts), objects, notes)

    def _series(self, bucket: str, metric: str, now: datetime) -> Iterator[Table]:
        path = f"{self.options.monitoring_url}/v3/projects/{self._project}/timeSeries"
        asked = {
            "filter": (
                f'metric.type="{metric}" AND resource.type="gcs_bucket" '
                f'AND resource.labels.bucket_name="{bucket}"'
            ),
            "interval.startTime": _stamp(now - LOOK_BACK),
            "interval.endTime": _stamp(now),
        }
        what = f"timeSeries.list of {bucket}"
        for answer in self._pages(what, path, asked):
            for one in answer.get("timeSeries", ()):
                if one.get("points"):
                    yield one

    def listed(self, place: Place, cap: int, now: datetime) -> Found:
        """List the bucket's live objects."""
        bucket = self._get(
            f"buckets.get of {place.name}",
            f"{self.options.storage_url}/storage/v1/b/{place.name}",
            {"fields": "location"},
        )
        counted, done, number = Counted(), False, 0
        asked = {
            "maxResults": str(self.page_size),
            "fields": "nextPageToken,items(size,storageClass)",
        }
        path = f"{self.options.storage_url}/storage/v1/b/{place.name}/o"
        for number, answer in enumerate(
            self._pages(f"objects.list of {place.name}", path, asked, listing=True), 1
        ):
            for found in answer.get("items", ()):
                counted.add(found.get("storageClass", "STANDARD"), int(found["size"]))
            self.progress(f"pages of {place.name}", number, None)
            done = not answer.get("nextPageToken")
            if number >= cap:
                break
        parts = tuple(
            Part(name, {"storage_class": name}, size, count)
            for name, size, count in counted.items()
        )
        notes = ["noncurrent and soft-deleted objects and unfinished uploads are not in a list"]
        if not done:
            notes.insert(0, f"cut off after {number:,} pages: the bucket is larger")
        location = str(bucket.get("location", "")).lower() or None
        return Found(
            "a list",
            now,
            location,
            parts,
            sum(part.objects or 0 for part in parts),
            tuple(notes),
            done,
        )

    def _pages(
        self, what: str, url: str, asked: Mapping[str, str], *, listing: bool = False
    ) -> Iterator[Table]:
        def ask(token: str | None) -> Table:
            self.billed[
                (self.system, self.list_meter) if listing else (self.monitoring, ASKED)
            ] += 1
            return self._answer(url, {**asked, **({"pageToken": token} if token else {})})

        try:
            yield from pages(
                self, what, ask, lambda answer: answer.get("nextPageToken"), whole=True
            )
        except NoSuchThing as error:
            raise self.raises(f"{what}: there is no such bucket or project") from error

    def _get(self, what: str, url: str, asked: Mapping[str, str]) -> Table:
        def ask() -> Table:
            self.billed[self.system, "class_b_operations"] += 1
            return self._answer(url, asked)

        try:
            return patiently(self, what, ask)
        except NoSuchThing as error:
            raise self.raises(f"{what}: there is no such bucket") from error

    def _answer(self, url: str, asked: Mapping[str, str]) -> Table:
        answer = self._session.get(url, params=asked, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
        return cast("Table", answer.json())


def _labels(one: Table, of: str) -> Mapping[str, str]:
    return cast("Mapping[str, str]", one.get(of, {}).get("labels", {}))


def _key(one: Table) -> tuple[str, str]:
    """Return storage class and type."""
    labels = _labels(one, "metric")
    return labels.get("storage_class", ""), labels.get("type", "")


def _latest(one: Table) -> tuple[datetime, int]:
    """Return the newest figure and when it was so."""
    points = [
        (_moment(point["interval"]["endTime"]), _number(point["value"])) for point in one["points"]
    ]
    return max(points)


def _number(value: Mapping[str, Any]) -> int:
    return int(value["int64Value"]) if "int64Value" in value else int(value["doubleValue"])


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text.partition(".")[0].removesuffix("Z"))
    return found.replace(tzinfo=timezone.utc)


def _stamp(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
