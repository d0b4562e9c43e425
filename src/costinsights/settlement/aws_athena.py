"""Athena's history: what each query scanned, by its execution id.

The ledger says which queries wait for their figures, and those are asked for, 50 at a time; with
``--all`` each workgroup's list is read, from its newest query back to the time that is settled.
Athena keeps a query for 45 days, and asking costs nothing. Where a workgroup is assigned to a
capacity reservation its queries are not billed by bytes: they share the reservation's hours by DPUs
and time, at the price of the ``[[capacity]]`` that names the workgroup.

Calls and fields: docs.aws.amazon.com/athena/latest/APIReference.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from costinsights.asking import batches
from costinsights.records import Resource
from costinsights.settlement.aws import AWSHistory, AWSOptions
from costinsights.settlement.history import Figure, Plan, Stretch, utc
from costinsights.systems.aws_athena import ENDS, METERS, figures, forgotten, part, state_of
from costinsights.vendor import VendorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

BATCH = 50
"""Ids that BatchGetQueryExecution takes at most."""
PAGES_BEHIND = 2
"""Pages of a list that may lie before the time asked for: a list goes back by its ends, not starts,
and a query may run for long."""
HOUR = timedelta(hours=1)


class AthenaOptions(AWSOptions, frozen=True, forbid_unknown_fields=True):
    """``[settle."aws.athena"]``. Credentials are boto3's own."""

    workgroups: tuple[str, ...] = ()
    """Those that ``--all`` reads; by default all of a region."""


class AthenaHistory(AWSHistory):
    """Reads one account, in one region or several."""

    system = "aws.athena"
    client_name = "athena"
    by_id = True
    retention = timedelta(days=45)
    grants = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": ['
        '"athena:BatchGetQueryExecution", "athena:ListQueryExecutions", "athena:ListWorkGroups", '
        '"athena:ListCapacityReservations", "athena:GetCapacityAssignmentConfiguration"]}]}'
    )
    meters = METERS
    Options = AthenaOptions
    options: AthenaOptions

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        """Take the options."""
        super().__init__(options)
        self._asked: set[str] = set()
        """Regions whose reservations are known."""
        self._reserved: dict[tuple[str, str], str] = {}
        """By region and workgroup: the reservation that it is assigned to."""
        self._shared: dict[str, Resource] = {}
        """Reservations that queries were read of, with the place of one of their workgroups."""

    def plan(self, since: datetime, until: datetime) -> Plan:
        """Say what will be asked for; all of it is free."""
        where = ", ".join(self.options.regions) or "the default region"
        if self.everything:
            groups = ", ".join(self.options.workgroups) or "each workgroup"
            return Plan((f"queries of {groups} back to {since:%Y-%m-%d %H:%M} UTC, in {where}",))
        asked = -(-len(self.pending) // BATCH)
        return Plan((f"{len(self.pending)} queries by id in {where}, in {asked} calls",))

    # -- reservations ---------------------------------------------------------------------------

    def _ask_for_reservations(self, region: str) -> None:
        try:
            for page in self.pages(region, "list_capacity_reservations"):
                for found in page.get("CapacityReservations", ()):
                    self._assigned(region, found["Name"])
        except VendorError as error:
            self.missing(
                f"reservations are not known ({error}): all queries are priced by what they scanned"
            )

    def _assigned(self, region: str, name: str) -> None:
        answer = self.ask(
            region, "get_capacity_assignment_configuration", CapacityReservationName=name
        )
        configuration = answer.get("CapacityAssignmentConfiguration", {})
        for assignment in configuration.get("CapacityAssignments", ()):
            for group in assignment.get("WorkGroupNames", ()):
                self._reserved[region, group] = name

    # -- queries --------------------------------------------------------------------------------

    def read(self, since: datetime, until: datetime) -> Iterator[Figure]:
        """Yield the queries that charges wait for or, with ``--all``, all queries of the time."""
        for region in self.regions:
            if region not in self._asked:
                self._asked.add(region)
                self._ask_for_reservations(region)
        if self.everything:
            for region in self.regions:
                yield from self._everything(region, since)
            return
        for region, waiting in self.by_region(self.waiting).items():
            for some in batches([run.id for run in waiting], BATCH):
                yield from self._batch(region, some)

    def _batch(self, region: str, ids: Sequence[str]) -> Iterator[Figure]:
        answer = self.ask(region, "batch_get_query_execution", QueryExecutionIds=list(ids))
        for execution in answer.get("QueryExecutions") or ():
            figure = self._figure(region, execution)
            if figure is not None:
                yield figure
        for id_ in forgotten(answer):
            self.gone(id_)

    def _everything(self, region: str, since: datetime) -> Iterator[Figure]:
        groups = self.options.workgroups or [
            group["Name"]
            for page in self.pages(region, "list_work_groups")
            for group in page.get("WorkGroups", ())
        ]
        for group in groups:
            behind = 0
            for page in self.pages(region, "list_query_executions", WorkGroup=group):
                ids = page.get("QueryExecutionIds", ())
                found = list(self._batch(region, ids)) if ids else []
                yield from found
                old = all((figure.ended_at or figure.started_at) < since for figure in found)
                behind = behind + 1 if old else 0
                if behind >= PAGES_BEHIND:
                    break

    def _figure(self, region: str, execution: Mapping[str, Any]) -> Figure | None:
        status = part(execution, "Status")
        started, word = status.get("SubmissionDateTime"), state_of(execution)
        if not isinstance(started, datetime):
            return None
        done = word in ENDS
        ended = status.get("CompletionDateTime")
        meters = figures(execution)
        group = execution.get("WorkGroup") or "primary"
        reservation = self._reserved.get((region, group))
        place = Resource(f"athena.{region}.amazonaws.com", None, group, None, region)
        weight = Decimal(0)
        if reservation is not None:
            self._shared.setdefault(reservation, place)
            time = Decimal(str(meters.get("engine_time_ms", 0)))
            weight = Decimal(str(meters.get("dpu_count", 1))) * time
        billed = () if reservation is not None else ("data_scanned_bytes",)
        return Figure(
            vendor_id=execution.get("QueryExecutionId"),
            started_at=utc(started),
            ended_at=utc(ended if isinstance(ended, datetime) else started) if done else None,
            text=execution.get("Query"),
            meters=meters,
            billed=tuple(meter for meter in billed if meter in meters),
            error=None if word == "SUCCEEDED" or not done else word,
            resource=place,
            group=reservation,
            weight=weight,
        )

    def capacity(self, since: datetime, until: datetime) -> Iterator[Stretch]:
        """Yield the hours of the reservations in use; the user's ``[[capacity]]`` says their price."""
        for name, place in self._shared.items():
            hour = since
            while hour < until:
                yield Stretch(group=name, started_at=hour, ended_at=hour + HOUR, resource=place)
                hour += HOUR
