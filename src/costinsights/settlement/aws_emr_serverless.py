"""EMR Serverless's history: what each job run was billed for, by its id.

A run is asked for by itself, there is no call for several; its application once, for the
architecture, which sets the price. Of a run that was tried again each attempt is asked for, and what
they were billed for is added up. With ``--all`` the applications' lists say which runs there were.

Calls and fields: docs.aws.amazon.com/emr-serverless/latest/APIReference. Two things AWS does not
say: whether the figures of the last attempt hold those of the earlier ones (`attempts`), and how
long after its end a run may still be without figures (`LATE`).
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

from costinsights.asking import NoSuchThing
from costinsights.records import Resource
from costinsights.settlement.aws import AWSHistory, AWSOptions
from costinsights.settlement.history import Figure, Plan, utc
from costinsights.systems.aws_emr_serverless import (
    BILLED,
    ENDS,
    METERS,
    STATES,
    SYSTEM,
    architecture_of,
    attempt_of,
    billed,
    dimensions,
    problem,
    summed,
    used,
)
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Key = tuple[str, str, str]

LATE = timedelta(minutes=15)
"""So long after its end a run without figures is left for a later settlement."""
NEXT = "nextToken"
LONGEST = timedelta(days=7)
"""A batch job runs for a week at most (service model: `executionTimeoutMinutes`)."""


class EMRServerlessOptions(AWSOptions, frozen=True, forbid_unknown_fields=True):
    """``[settle."aws.emr_serverless"]``. Credentials are boto3's own."""

    applications: tuple[str, ...] = ()
    """Ids of those that ``--all`` reads; by default all of a region."""
    attempts: Literal["each", "last"] = "each"
    """``last``: the figures of a run's last attempt are believed to be the whole run's."""


class EMRServerlessHistory(AWSHistory):
    """Reads one account, in one region or several."""

    system = SYSTEM
    client_name = "emr-serverless"
    by_id = True
    grants = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": ['
        '"emr-serverless:GetJobRun", "emr-serverless:GetApplication", '
        '"emr-serverless:ListJobRuns", "emr-serverless:ListApplications"]}]}'
    )
    meters = METERS
    Options = EMRServerlessOptions
    options: EMRServerlessOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._architectures: dict[tuple[str, str], str | None] = {}
        self._read: set[Key] = set()

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what will be asked for; all of it is free."""
        where = ", ".join(self.options.regions) or "the default region"
        count = len(self.pending)
        reads = [f"{count} job runs by id in {where}, in {count} calls and one an application"]
        if self.everything:
            which = ", ".join(self.options.applications) or "each application"
            reads.append(f"job runs of {which} back to {since:%Y-%m-%d %H:%M} UTC, in {where}")
        return Plan(tuple(reads))

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the runs that charges wait for and, with ``--all``, all runs of the time."""
        for region, waiting in self.by_region(self.waiting).items():
            for run in waiting:
                if run.namespace is None:
                    self.missing(f"of {run.id} nobody has noted the application")
                else:
                    yield from self._one(region, run.namespace, run.id)
        for region in self.regions if self.everything else ():
            for application in self._applications(region):
                yield from self._all(region, application, since, until)

    # -- one run --------------------------------------------------------------------------------

    def _one(self, region: str, application: str, id_: str) -> Iterator[Figure]:
        if (region, application, id_) in self._read:
            return
        self._read.add((region, application, id_))
        try:
            run = self._attempt(region, application, id_)
        except NoSuchThing as error:
            self.gone(id_, f"{self.system} no longer knows it ({error.code})")
            return
        if isinstance(run.get("createdAt"), datetime):
            yield self._figure(region, application, id_, run)
        else:
            self.missing(f"the answer about {id_} does not say when it was created")

    def _attempt(self, region: str, application: str, id_: str, number: int = 0) -> Any:
        request: dict[str, Any] = {"applicationId": application, "jobRunId": id_}
        if number:
            request["attempt"] = number
        return self.ask(region, "get_job_run", **request).get("jobRun") or {}

    def _figure(self, region: str, application: str, id_: str, run: Mapping[str, Any]) -> Figure:
        word = run.get("state")
        trouble = problem(run)
        meters = billed(run)
        if word not in STATES:
            trouble = "a state that nobody knows"
        if attempt_of(run) > 1 and self.options.attempts == "each":
            meters, before = self._with_earlier(region, application, id_, run)
            trouble = trouble or before
        now = datetime.now(timezone.utc)
        ended, seen = _moment(run, "endedAt", "updatedAt"), _moment(run, "updatedAt")
        done = word in ENDS or word not in STATES
        architecture = self._architecture(region, application)
        sets = dimensions(run, architecture)
        tried = {"attempts": attempt_of(run)} if attempt_of(run) > 1 else {}
        return Figure(
            vendor_id=id_,
            started_at=utc(run["createdAt"]),
            ended_at=(ended or now) if done else None,
            so_far=None if done or trouble else seen or now,
            final=not (done and trouble and now - (ended or now) < LATE),
            operation="JOB",
            meters={**meters, **used(run), **tried, **sets},
            billed=tuple(name for name in BILLED if name in meters),
            problem=trouble,
            error=None if word == "SUCCESS" or not done else str(word),
            resource=_place(region, application),
            dimensions=sets,
        )

    def _with_earlier(
        self, region: str, application: str, id_: str, run: Mapping[str, Any]
    ) -> tuple[dict[str, int | float | str], str]:
        """Return what all attempts were billed for, and why that is not known where it is not."""
        several, trouble = [billed(run)], ""
        for number in range(1, attempt_of(run)):
            try:
                earlier = self._attempt(region, application, id_, number)
            except NoSuchThing:
                trouble = trouble or f"attempt {number} is not known any more"
                continue
            several.append(billed(earlier))
            found = problem(earlier)
            trouble = trouble or (found and f"attempt {number}: {found}")
        return summed(several), trouble

    def _architecture(self, region: str, application: str) -> str | None:
        key = region, application
        if key not in self._architectures:
            self._architectures[key] = None
            try:
                answer = self.ask(region, "get_application", applicationId=application)
                self._architectures[key] = architecture_of(answer.get("application") or {})
            except VendorError as error:
                self.missing(f"the architecture of {application} is not known: {error}")
        return self._architectures[key]

    # -- all runs -------------------------------------------------------------------------------

    def _applications(self, region: str) -> Iterator[str]:
        if self.options.applications:
            yield from self.options.applications
            return
        for page in self.pages(region, "list_applications", token=NEXT):
            for one in page.get("applications") or ():
                self._architectures.setdefault((region, one["id"]), architecture_of(one))
                yield one["id"]

    def _all(
        self, region: str, application: str, since: datetime, until: datetime
    ) -> Iterator[Figure]:
        for page in self.pages(
            region,
            "list_job_runs",
            token=NEXT,
            applicationId=application,
            createdAtAfter=since - LONGEST,
            createdAtBefore=until,
        ):
            for one in page.get("jobRuns") or ():
                seen = _moment(one, "updatedAt")
                if one.get("state") in ENDS and seen is not None and seen < since:
                    continue  # it ended before
                yield from self._one(region, application, one["id"])


def _moment(run: Mapping[str, Any], *names: str) -> datetime | None:
    for name in names:
        value = run.get(name)
        if isinstance(value, datetime):
            return utc(value)
    return None


def _place(region: str, application: str) -> Resource:
    return Resource(f"emr-serverless.{region}.amazonaws.com", None, application, None, region)
