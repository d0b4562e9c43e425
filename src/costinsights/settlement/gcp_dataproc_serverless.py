"""Dataproc Serverless: what each batch and session used, by its name.

A few runs are asked for one by one; where many wait, and with ``--all``, the lists are read, which
have whole batches, back to the oldest that waits. Asking is free. Google fills `approximate_usage`
when a run has ended; while it runs there is a snapshot, of which a figure *so far* is made.

Fields: google-cloud-dataproc 5.32; how long Google keeps a batch is not stated.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from costinsights.asking import NoSuchThing
from costinsights.settlement.gcp import (
    FEW,
    PAGE,
    DataprocHistory,
    attribution,
    stamp,
    time_of,
)
from costinsights.settlement.history import Figure, Plan
from costinsights.systems.gcp_dataproc import kind_of, moment, name_of
from costinsights.systems.gcp_dataproc_serverless import (
    BATCH_ENDS,
    BILLED,
    GOOD,
    METERS,
    SESSION_ENDS,
    SYSTEM,
    began,
    dimensions,
    so_far,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from costinsights.jobs import Waiting

LONGEST = timedelta(days=7)
"""A batch that was created so long before the time to settle may have run into it."""
BEFORE = timedelta(hours=1)
"""Clocks of programs may be wrong by so much."""

# By the kind of a name: client, methods, field of the list.
KINDS = {
    "batches": ("BatchController", "get_batch", "list_batches"),
    "sessions": ("SessionController", "get_session", "list_sessions"),
}


class DataprocServerlessHistory(DataprocHistory):
    """Reads batches and sessions of the projects and regions in which runs wait."""

    system = SYSTEM
    meters = METERS
    grants = (
        "gcloud iam roles create costinsightsSettlement --project=PROJECT --permissions="
        "dataproc.batches.get,dataproc.batches.list,dataproc.sessions.get,dataproc.sessions.list\n"
        "gcloud projects add-iam-policy-binding PROJECT --member=serviceAccount:ACCOUNT "
        "--role=projects/PROJECT/roles/costinsightsSettlement"
    )

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what will be asked for; all of it is free."""
        if self.everything:
            where = ", ".join(
                f"{project}/{region}"
                for project in self.options.projects
                for region in self.options.regions
            )
            return Plan((f"batches and sessions of {where} since {since:%Y-%m-%d %H:%M} UTC",))
        return Plan((f"{len(self.waiting)} batches and sessions by their names",))

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the runs that wait or, with ``--all``, all that ran in the time."""
        for (project, region), runs in self.places().items():
            for kind in KINDS:
                waiting = [run for run in runs if (name := name_of(run.id)) and name.kind == kind]
                yield from self._kind(project, region, kind, waiting, since)
            others = [
                run.id for run in runs if (name := name_of(run.id)) and name.kind not in KINDS
            ]
            if others:
                self.missing(f"{len(others)} runs are known by their operation only: {others[0]} …")

    def _kind(
        self, project: str, region: str, kind: str, waiting: Sequence[Waiting], since: datetime
    ) -> Iterator[Figure]:
        client, get, list_ = KINDS[kind]
        left = {run.id: run for run in waiting}
        if self.everything or len(left) > FEW:
            oldest = [run.started_at for run in waiting if run.started_at is not None]
            begin = min([since - LONGEST if self.everything else since, *oldest]) - BEFORE
            request = {
                "parent": f"projects/{project}/locations/{region}",
                "page_size": PAGE,
                "filter": f'create_time >= "{stamp(begin)}"',
            }
            for page in self.pages(client, region, list_, request):
                for found in getattr(page, kind):
                    left.pop(found.name, None)
                    yield from self._figure(region, kind, found)
                for name in getattr(page, "unreachable", ()):
                    self.missing(f"{list_} in {region} could not reach {name}")
        for id_ in left:
            try:
                yield from self._figure(region, kind, self.ask(client, region, get, {"name": id_}))
            except NoSuchThing:
                self.gone(id_)

    def _figure(self, region: str, kind: str, found: Any) -> Iterator[Figure]:
        started, name = began(found), name_of(found.name)
        if not started or name is None:
            self.missing(f"{found.name or 'a run'}: its answer has no time in it")
            return
        session = kind == "sessions"
        word = (SESSION_ENDS if session else BATCH_ENDS).get(found.state)
        meters, until = usage(found), 0
        if word is None:
            until, meters = so_far(found)
        elif not meters:
            self.missing("ended runs of which Google does not say what they used stay unknown")
        dims = dimensions(found.runtime_config.properties, session=session)
        if "accelerator_type" in meters:
            dims["accelerator_type"] = str(meters["accelerator_type"])
        yield Figure(
            vendor_id=found.name,
            started_at=time_of(started),
            ended_at=time_of(max(moment(found.state_time), started)) if word else None,
            so_far=time_of(until) if until else None,
            user=found.creator or None,
            labels=attribution(found.labels),
            operation="SESSION" if session else kind_of(found, "batch"),
            meters=meters,
            billed=tuple(meter for meter in BILLED if meter in meters),
            error=None if word is None or word in GOOD else word,
            resource=self.at(region, name.project),
            dimensions=dims,
        )
