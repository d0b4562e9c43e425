"""How large S3's buckets are: CloudWatch has it once a day, by class (``AWS/S3``).

Metrics and storage types: docs.aws.amazon.com/AmazonS3/latest/userguide/metrics-dimensions.html.
They are those of the midnight (UTC) before, and come up to a day later. Credentials are boto3's own.
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

TIMEOUT_SECONDS = 60
DAY = timedelta(days=1)
LOOK_BACK = 4 * DAY
"""A metric of one day may come late on the next; one that is older is of a bucket that was emptied."""
SIZE, COUNT = "BucketSizeBytes", "NumberOfObjects"


def _tier(name: str) -> Mapping[str, str]:
    return {"storage_class": "INTELLIGENT_TIERING", "access_tier": name}


def _class(name: str) -> Mapping[str, str]:
    return {"storage_class": name}


STANDARD = _class("STANDARD")
TYPES: Mapping[str, Mapping[str, str]] = {
    "StandardStorage": STANDARD,
    "IntelligentTieringFAStorage": _tier("frequent"),
    "IntelligentTieringIAStorage": _tier("infrequent"),
    "IntelligentTieringAIAStorage": _tier("archive_instant"),
    "IntelligentTieringAAStorage": _tier("archive"),
    "IntelligentTieringDAAStorage": _tier("deep_archive"),
    "StandardIAStorage": _class("STANDARD_IA"),
    "StandardIASizeOverhead": _class("STANDARD_IA"),
    "OneZoneIAStorage": _class("ONEZONE_IA"),
    "OneZoneIASizeOverhead": _class("ONEZONE_IA"),
    "ReducedRedundancyStorage": _class("REDUCED_REDUNDANCY"),
    "GlacierIRStorage": _class("GLACIER_IR"),
    "GlacierInstantRetrievalStorage": _class("GLACIER_IR"),
    "GlacierInstantRetrievalSizeOverhead": _class("GLACIER_IR"),
    "GlacierStorage": _class("GLACIER"),
    "GlacierObjectOverhead": _class("GLACIER"),
    "DeepArchiveStorage": _class("DEEP_ARCHIVE"),
    "DeepArchiveObjectOverhead": _class("DEEP_ARCHIVE"),
    "ExpressOneZone": _class("EXPRESS_ONEZONE"),
    # Billed at Standard's rate, whatever they belong to: names and parts of archived objects.
    "GlacierS3ObjectOverhead": STANDARD,
    "DeepArchiveS3ObjectOverhead": STANDARD,
    "GlacierStagingStorage": STANDARD,
    "DeepArchiveStagingStorage": STANDARD,
}
"""By what each storage type of CloudWatch is priced. Small objects of some classes are billed as
128 KB, archived ones for 40 KB more: those are the types called Overhead."""


class S3SizeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[storage."aws.s3"]``."""

    profile: str = ""
    region: str = ""
    """Where a bucket is that does not let us ask; by default the region of boto3."""
    endpoint_url: str = ""


class S3Size(Source):
    """Asks the bucket for its region, CloudWatch for its metrics, and each metric for a figure."""

    system = "aws.s3"
    meter = "storage_gb_months"
    monitoring = "aws.cloudwatch"
    list_meter = "tier1_requests"
    list_dimensions = STANDARD  # lists are at Standard's rate, whatever the class
    grants = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": '
        '["cloudwatch:ListMetrics", "cloudwatch:GetMetricStatistics", "s3:ListBucket"], '
        '"Resource": "*"}]}'
    )
    verified = "emulator: moto 5"
    dependencies = "costinsights[botocore] boto3"
    Options = S3SizeOptions
    options: S3SizeOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}

    def open(self) -> None:
        """Find boto3.

        Raises:
            StorageError: it is missing, or nobody has said which region.
        """
        try:
            library: Any = import_module("boto3")
        except ImportError:
            raise self.raises(f"{self.system}: run  pip install {self.dependencies}") from None
        self._session = library.Session(profile_name=self.options.profile or None)

    def close(self) -> None:
        """Hang up."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def measured(self, place: Place, now: datetime) -> Found:
        """Ask CloudWatch, in the bucket's own region."""
        region = self._region(place.name)
        named = [{"Name": "BucketName", "Value": place.name}]
        metrics: list[Mapping[str, Any]] = []

        def ask(token: str | None) -> Any:
            self.billed[self.monitoring, ASKED] += 1
            more = {"NextToken": token} if token else {}
            cloudwatch = self._client("cloudwatch", region)
            return cloudwatch.list_metrics(Namespace="AWS/S3", Dimensions=named, **more)

        what = f"ListMetrics in {region}"
        for answer in pages(self, what, ask, lambda answer: answer.get("NextToken"), whole=True):
            metrics += answer["Metrics"]
        figures = [
            (metric["MetricName"], _type_of(metric), *figure)
            for metric in metrics
            if metric["MetricName"] in (SIZE, COUNT)
            and (figure := self._figure(region, metric, now)) is not None
        ]
        at = max((moment for *_, moment, _ in figures), default=None)
        sizes = sorted(
            (kind, size) for name, kind, moment, size in figures if (name, moment) == (SIZE, at)
        )
        counts = [size for name, _, moment, size in figures if (name, moment) == (COUNT, at)]
        parts = tuple(
            Part(kind, TYPES.get(kind, {"storage_class": kind}), size) for kind, size in sizes
        )
        notes = (
            () if figures else ("CloudWatch has no figure: the bucket is empty, or not a day old",)
        )
        return Found("CloudWatch", at, region, parts, sum(counts) if counts else None, notes)

    def _figure(
        self, region: str, metric: Mapping[str, Any], now: datetime
    ) -> tuple[datetime, int] | None:
        def ask() -> Any:
            self.billed[self.monitoring, ASKED] += 1
            return self._client("cloudwatch", region).get_metric_statistics(
                Namespace="AWS/S3",
                MetricName=metric["MetricName"],
                Dimensions=metric["Dimensions"],
                StartTime=now - LOOK_BACK,
                EndTime=now,
                Period=int(DAY.total_seconds()),
                Statistics=["Average"],
            )

        answer = patiently(self, f"GetMetricStatistics in {region}", ask)
        points = [(point["Timestamp"], point["Average"]) for point in answer["Datapoints"]]
        if not points:
            return None
        moment, size = max(points)
        return cast("datetime", moment).astimezone(timezone.utc), int(size)

    def listed(self, place: Place, cap: int, now: datetime) -> Found:
        """List the bucket's current objects: older versions and uploads under way are not in it."""
        region, counted = self._region(place.name), Counted()
        done = False
        for answer in self._pages(place.name, region, cap):
            for found in answer.get("Contents", ()):
                counted.add(found.get("StorageClass", "STANDARD"), found["Size"])
            done = not answer.get("IsTruncated")
        parts = tuple(
            Part(
                name,
                _tier("frequent") if name == "INTELLIGENT_TIERING" else _class(name),
                size,
                count,
            )
            for name, size, count in counted.items()
        )
        notes = ["older versions and unfinished uploads are not in a list"]
        if any(part.name == "INTELLIGENT_TIERING" for part in parts):
            notes.append("a list does not say the access tier: INTELLIGENT_TIERING as if frequent")
        if not done:
            notes.insert(0, f"cut off after {cap:,} pages: the bucket is larger")
        return Found(
            "a list",
            now,
            region,
            parts,
            sum(part.objects or 0 for part in parts),
            tuple(notes),
            done,
        )

    def _pages(self, bucket: str, region: str, cap: int) -> Iterator[Any]:
        def ask(token: str | None) -> Any:
            self.billed[self.system, self.list_meter] += 1
            more = {"ContinuationToken": token} if token else {}
            return self._client("s3", region).list_objects_v2(
                Bucket=bucket, MaxKeys=self.page_size, **more
            )

        found = pages(
            self,
            f"ListObjectsV2 of {bucket}",
            ask,
            lambda answer: answer.get("NextContinuationToken"),
            whole=True,
        )
        for number, answer in enumerate(found, start=1):
            yield answer
            self.progress(f"pages of {bucket}", number, None)
            if number >= cap:
                return

    def _region(self, bucket: str) -> str:
        """Ask where a bucket is; one that does not tell is where the options say."""
        fallback = self.options.region or self._session.region_name

        def ask() -> Any:
            self.billed[self.system, "tier2_requests"] += 1
            return self._client("s3", fallback or "us-east-1").head_bucket(Bucket=bucket)

        try:
            answer = patiently(self, f"HeadBucket of {bucket}", ask)
        except NoSuchThing as error:
            raise self.raises(f"there is no bucket {bucket}") from error
        except self.raises as error:
            if not error.grant or not fallback:
                raise
            self.missing(f"{bucket} does not say where it is: taken to be in {fallback}")
            return cast("str", fallback)
        return cast("str", answer.get("BucketRegion") or fallback or "us-east-1")

    def _client(self, service: str, region: str) -> Any:
        """Return a client that tries nothing again by itself: `patiently` does, and counts."""
        key = service, region
        if key not in self._clients:
            config: Any = import_module("botocore.config")
            self._clients[key] = self._session.client(
                service,
                region_name=region,
                endpoint_url=self.options.endpoint_url or None,
                config=config.Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=TIMEOUT_SECONDS,
                    read_timeout=TIMEOUT_SECONDS,
                ),
            )
        return self._clients[key]


def _type_of(metric: Mapping[str, Any]) -> str:
    return next((one["Value"] for one in metric["Dimensions"] if one["Name"] == "StorageType"), "")
