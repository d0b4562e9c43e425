"""What a pipeline run of Data Factory, or of Synapse, is billed for: for all who read its answers.

A run is billed by its activity runs: each counts as one (orchestration), and what it used stands in
the `billingReference` of its output, already rounded up to the minute and already multiplied by the
units of a copy. Those figures are summed up and never worked out again. The run of a trigger counts
as one activity run more, and a run that an Execute Pipeline activity starts is a part of the run
that it belongs to: one charge for the whole tree.

Shapes of `billingReference`, all of which are out there: azure-docs
data-factory/copy-activity-monitoring.md (2020), recorded outputs in public repositories (2021 to
2025). Orchestration by integration runtime, triggers: azure-docs data-factory/plan-manage-costs.md,
pricing-examples-*.md (2024).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    Table = Mapping[str, Any]
    Ask = Callable[[str, str, "Table | None"], "Table | None"]

SYSTEM = "azure.data_factory"
SYNAPSE = "azure.synapse"
"""The service of the resource of a Synapse workspace's pipelines; their system is the same."""

SUCCEEDED = "Succeeded"
ENDS = frozenset((SUCCEEDED, "Failed", "Cancelled", "Canceled"))
GOES_ON = frozenset(("Queued", "InProgress", "Canceling", "Cancelling"))
"""How a pipeline run is; the words for an activity run are the same and `TimedOut`."""
RAN = ENDS | {"TimedOut"}
DID_NOT_RUN = frozenset(("Skipped", "Inactive"))

CONTROL = frozenset(
    (
        "AppendVariable",
        "ExecutePipeline",
        "Fail",
        "Filter",
        "ForEach",
        "IfCondition",
        "SetVariable",
        "Switch",
        "Until",
        "Wait",
    )
)
"""Activities that run nowhere: they count as activity runs, on Azure, and have no billed time."""

AZURE, MANAGED_VNET, SELF_HOSTED = "azure_ir", "managed_vnet_ir", "self_hosted_ir"
# Integration runtimes by what stands in `meterType` and, in the older forms, before the number.
RUNTIMES = {
    "azureir": AZURE,
    "managed": AZURE,
    "selfhostedir": SELF_HOSTED,
    "selfhosted": SELF_HOSTED,
    "managedvnetir": MANAGED_VNET,
    "managedvnet": MANAGED_VNET,
    "azuremanagedvnet": MANAGED_VNET,
    "managedvirtualnetworkir": MANAGED_VNET,
}
UNITS = {
    "diuhours": "diu",
    "diuhour": "diu",
    "hours": "hours",
    "hour": "hours",
    "corehour": "cores",
    "corehours": "cores",
    "vcorehour": "cores",
    "vcorehours": "cores",
}
KINDS = {
    "datamovement": "data_movement",
    "pipelineactivity": "pipeline_activity",
    "externalactivity": "external_activity",
    "executedataflow": "data_flow",
    "dataflow": "data_flow",
}
COMPUTE = {
    "general": "general",
    "generalpurpose": "general",
    "computeoptimized": "compute_optimised",
    "computeoptimised": "compute_optimised",
    "memoryoptimized": "memory_optimised",
    "memoryoptimised": "memory_optimised",
}
# The meters of the price book: what was billed, in seconds that are never rounded again.
TIMES = {
    **{
        (kind, "hours", runtime): f"{runtime}_{kind}_seconds"
        for kind in ("pipeline_activity", "external_activity")
        for runtime in (AZURE, MANAGED_VNET, SELF_HOSTED)
    },
    ("data_movement", "diu", AZURE): "azure_ir_diu_seconds",
    ("data_movement", "diu", MANAGED_VNET): "managed_vnet_ir_diu_seconds",
    ("data_movement", "hours", SELF_HOSTED): "self_hosted_ir_data_movement_seconds",
}
RUNS = {runtime: f"{runtime}_activity_runs" for runtime in (AZURE, MANAGED_VNET, SELF_HOSTED)}
FLOWS = {kind: f"data_flow_{kind}_vcore_seconds" for kind in dict.fromkeys(COMPUTE.values())}
BILLED = (*RUNS.values(), *TIMES.values(), *FLOWS.values())
COUNTS = (
    "pipeline_runs",
    "trigger_runs",
    "failed_activity_runs",
    "data_read_bytes",
    "data_written_bytes",
)
METERS = (*BILLED, *COUNTS)
VERSION, SYNAPSE_VERSION = "2018-06-01", "2020-12-01"
"""Of the REST APIs."""

_MICROS = 3600 * 10**6
_MOST_HOURS = 10**6
_MOST_REASONS = 5
_MOST_TEXT = 60


class Bill:
    """What activity runs were billed for, summed up as they come; each counts once."""

    def __init__(self) -> None:
        self.children: list[str] = []
        """Ids of pipeline runs that were started by what was added, and wait to be looked at."""
        self.going = False
        """Whether an activity still runs."""
        self.empty = True
        """Whether there was no activity run at all, which a run that went well cannot have."""
        self._seen: set[str] = set()
        self._micros: dict[str, int] = {}
        self._counts: dict[str, int] = {RUNS[AZURE]: 0}  # what ran nothing was free
        self._unread: dict[str, None] = {}

    def add(self, activity: Table) -> None:
        """Take an activity run, as the REST API has it."""
        self.empty = False
        id_ = activity.get("activityRunId")
        if isinstance(id_, str):
            if id_ in self._seen:
                return
            self._seen.add(id_)
        status, kind = activity.get("status"), _text(activity.get("activityType"))
        if status in DID_NOT_RUN:
            return
        output = _table(activity.get("output"))
        if kind == "ExecutePipeline" and isinstance(child := output.get("pipelineRunId"), str):
            self.children.append(child)
        if status in GOES_ON:
            self.going = True
            return
        if status not in RAN:
            self.unread(f"{kind}: its status is {_text(status)!r}")
        if status != SUCCEEDED:
            self.count("failed_activity_runs")
        for theirs, ours in (
            ("dataRead", "data_read_bytes"),
            ("dataWritten", "data_written_bytes"),
        ):
            size = output.get(theirs)
            if isinstance(size, int) and not isinstance(size, bool) and size > 0:
                self.count(ours, size)
        self.count(RUNS[self._billed(kind, activity, output)])

    def count(self, meter: str, quantity: int = 1) -> None:
        """Count pipeline runs, activity runs and the like."""
        self._counts[meter] = self._counts.get(meter, 0) + quantity

    def triggered(self) -> None:
        """Count the run of a trigger, which is billed like an activity run on Azure."""
        self.count("trigger_runs")
        self.count(RUNS[AZURE])

    def unread(self, why: str) -> None:
        """Say that something is billed that cannot be told, so that nothing is priced."""
        if len(self._unread) < _MOST_REASONS:
            self._unread[why] = None

    @property
    def reason(self) -> str:
        """Why the run cannot be priced; empty where it can."""
        return "; ".join(self._unread)

    def meters(self) -> dict[str, int | float | str]:
        """Return the sums: counts, bytes, and seconds; they are all of it where there is no reason."""
        found: dict[str, int | float | str] = dict(self._counts)
        for meter, micros in self._micros.items():
            whole, rest = divmod(micros, 10**6)
            found[meter] = micros / 10**6 if rest else whole
        return found

    # -- one billing reference ------------------------------------------------------------------

    def _billed(self, activity: str, run: Table, output: Table) -> str:
        """Add what an activity run was billed for, and return the runtime that it counts on."""
        reference = output.get("billingReference")
        if isinstance(reference, str):
            try:
                reference = cast("object", json.loads(reference))
            except ValueError:
                reference = None
            if not _table(reference):
                self.unread(f"{activity}: its billing reference cannot be read")
                return AZURE
        if reference is None:
            if activity not in CONTROL:
                self.unread(f"{activity}: {_text(run.get('status'))}, and has no billing reference")
            return AZURE
        billing = _table(reference)
        kind = KINDS.get(_plain(billing.get("activityType")), "")
        durations = billing.get("billableDuration")
        parts = list(_durations(durations, kind))
        if not kind or (not parts and durations != []):
            self.unread(
                f"{activity}: billed as {_text(billing.get('activityType'))!r}, "
                f"{_text(durations)!r}"
            )
            return AZURE
        runtimes = [
            self._part(activity, kind, part, lambda: _compute(run, output)) for part in parts
        ]
        return runtimes[0] if runtimes else AZURE

    def _part(
        self, activity: str, kind: str, part: _Duration, compute: Callable[[], str | None]
    ) -> str:
        """Add one duration; the runtime is sure for some units even where its name is not known."""
        unit = UNITS.get(_plain(part.unit), "")
        runtime = RUNTIMES.get(_plain(part.meter_type))
        if kind == "data_flow":
            flow = COMPUTE.get(_plain(part.meter_type)) or compute()
            meter = FLOWS.get(flow or "") if unit == "cores" else None
            runtime = AZURE
        else:
            if runtime is None and unit == "diu":
                runtime = AZURE  # a self-hosted runtime has no data integration units
            meter = TIMES.get((kind, unit, runtime or ""))
        hours = part.duration
        if meter is None or not _is_quantity(hours):
            self.unread(
                f"{activity}: {_text(hours)} {_text(part.unit)} on {_text(part.meter_type)!r}"
            )
        else:
            # Whole millionths of a second take the noise of binary fractions away, and no more.
            self._micros[meter] = self._micros.get(meter, 0) + round(hours * _MICROS)
        return runtime or AZURE


class _Duration(NamedTuple):
    meter_type: object
    duration: Any
    unit: object


def _durations(found: object, kind: str) -> Iterator[_Duration]:
    """Yield the parts of a `billableDuration`, of its newer form and of the two older ones."""
    for item in cast("list[object]", found) if isinstance(found, list) else [found]:
        part = _table(item)
        if "duration" in part or "meterType" in part:
            yield _Duration(part.get("meterType"), part.get("duration"), part.get("unit"))
            continue
        for name, hours in part.items():  # {"Managed": 0.0166}: hours, of a copy on Azure DIU-hours
            copy = kind == "data_movement" and RUNTIMES.get(_plain(name)) != SELF_HOSTED
            yield _Duration(name, hours, "DIUHours" if copy else "Hours")


def _compute(run: Table, output: Table) -> str | None:
    """Return a data flow's compute type, where the meter's name is no more than ``Data Flow``."""
    asked = _table(_table(run.get("input")).get("compute")).get("computeType")
    named = _table(output.get("runStatus")).get("integrationRuntimeName")
    first = named.partition("-")[0] if isinstance(named, str) else None  # "General-8-1-0dd0…"
    return COMPUTE.get(_plain(asked)) or COMPUTE.get(_plain(first))


def _is_quantity(value: object) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _MOST_HOURS
    )


def _plain(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return "".join(letter for letter in value.lower() if letter.isalpha())


def _text(value: object) -> str:
    return (value if isinstance(value, str) else repr(value))[:_MOST_TEXT]


def _table(value: object) -> Table:
    return cast("Table", value) if isinstance(value, dict) else {}


# --- pipeline runs -------------------------------------------------------------------------------


def moment(value: object) -> datetime | None:
    """Return a time of an answer, which clients give as text or as `datetime`; None where it is none."""
    from costinsights.settlement.history import utc

    try:
        return utc(cast("Any", value)) if value else None
    except (TypeError, ValueError, AttributeError):
        return None


def elapsed_of(run: Table) -> int | None:
    """Return how long a run took, in nanoseconds."""
    took = run.get("durationInMs")
    return took * 10**6 if isinstance(took, int) and took > 0 else None


def version_of(factory: str) -> str:
    """Return the version of the API of a factory, or of a workspace where there is none."""
    return VERSION if factory else SYNAPSE_VERSION


def parent_of(run: Table) -> str | None:
    """Return the run that an Execute Pipeline activity of it has started this one."""
    found = _table(run.get("invokedBy")).get("pipelineRunId")
    return found if isinstance(found, str) and found else None


def is_child(run: Table) -> bool:
    """Tell whether an Execute Pipeline activity has started a run."""
    by = _plain(_table(run.get("invokedBy")).get("invokedByType"))
    return parent_of(run) is not None or by == "pipelineactivity"


def trigger_of(run: Table) -> str | None:
    """Return the id of the trigger's run that has started a pipeline run; None for none.

    A run that a program or a person has started (``Manual``) is no run of a trigger: Microsoft's
    examples count one for each trigger instance, and say nothing of others.
    """
    by = _table(run.get("invokedBy"))
    found = by.get("id")
    named = _plain(by.get("invokedByType")).endswith("trigger")
    return found if named and isinstance(found, str) and found else None


def started_by(trigger: Table) -> list[str]:
    """Return the ids of the pipeline runs that a trigger's run has started."""
    found = _table(trigger.get("triggeredPipelines")).values()
    return [id_ for id_ in found if isinstance(id_, str) and id_]


class Malformed(Exception):
    """An answer is not what it should be; the text says which."""


def _quoted(part: object) -> str:
    from urllib.parse import quote

    return quote(str(part), safe="")


class Pipelines:
    """The runs of a factory or of a workspace, by the REST API.

    `ask` takes a method, a path and a body, and returns the answer; None where the vendor says that
    there is no such thing.
    """

    def __init__(self, ask: Ask, factory: str = "") -> None:
        """Take ``subscription/resource group/factory``; nothing for a workspace."""
        self._ask = ask
        self._synapse = not factory
        self.base = ""
        if factory:
            parts = [_quoted(part) for part in factory.split("/")]
            self.base = (
                "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.DataFactory/factories/{}"
            ).format(*parts)

    def region(self) -> str | None:
        """Return where it is, as the price book has it: ``westeurope``; empty where it does not say.

        None where there is no such factory or workspace.
        """
        answer = self._ask("GET", self.base or "/workspace", None)
        if answer is None:
            return None
        found = answer.get("location")
        return found.lower().replace(" ", "") if isinstance(found, str) else ""

    def run(self, id_: str) -> Table | None:
        """Return a pipeline run; None where it is not known, or not known any more."""
        return self._ask("GET", f"{self.base}/pipelineruns/{_quoted(id_)}", None)

    def runs(self, since: datetime, until: datetime) -> Iterator[list[Table]]:
        """Yield the pipeline runs that something happened to, page by page.

        Raises:
            Malformed: the answer is no list of runs.
        """
        yield from self._pages(f"{self.base}/queryPipelineRuns", since, until)

    def triggers(self, since: datetime, until: datetime) -> Iterator[list[Table]]:
        """Yield the runs of triggers."""
        yield from self._pages(f"{self.base}/queryTriggerRuns", since, until)

    def activities(self, run: Table, since: datetime, until: datetime) -> Iterator[Table]:
        """Yield the activity runs of a pipeline run that something happened to."""
        path = f"{self.base}/pipelineruns/{_quoted(run.get('runId'))}/queryActivityruns"
        if self._synapse:
            path = f"/pipelines/{_quoted(run.get('pipelineName'))}{path}"
        for page in self._pages(path, since, until):
            for activity in page:
                # A rerun's list may have the activities of the run that it goes on with.
                if activity.get("pipelineRunId") in (None, run.get("runId")):
                    yield activity

    def _pages(self, path: str, since: datetime, until: datetime) -> Iterator[list[Table]]:
        body = {"lastUpdatedAfter": since.isoformat(), "lastUpdatedBefore": until.isoformat()}
        before: set[str] = set()
        while True:
            answer = self._ask("POST", path, body) or {}
            found = answer.get("value")
            if not isinstance(found, list):
                raise Malformed(f"{path.rpartition('/')[2]} gave no list")
            items = [_table(item) for item in cast("list[object]", found)]
            if not all(items):
                raise Malformed(f"{path.rpartition('/')[2]} gave something that is no run")
            yield items
            token = answer.get("continuationToken")
            if not isinstance(token, str) or not token or token in before:
                return  # one that comes again would bring what was read
            before.add(token)
            body["continuationToken"] = token


class Whole(NamedTuple):
    """A pipeline run with all runs that it has started."""

    done: bool
    bill: Bill
    ended_at: datetime | None
    """The end of the last of them, where they have ended."""


def whole(pipelines: Pipelines, run: Table, now: datetime) -> Whole:
    """Read the activity runs of a pipeline run, and of those that it has started, to the end."""
    from datetime import timedelta

    bill, done, ends = Bill(), True, list["datetime"]()
    known, waiting = {run.get("runId")}, [run]
    for one in waiting:
        bill.count("pipeline_runs")
        status = one.get("status")
        end = moment(one.get("runEnd"))
        if status not in ENDS | GOES_ON:
            bill.unread(f"the status of a pipeline run is {_text(status)!r}")
        if status in GOES_ON or (end is None and status not in ENDS):
            done = False
        ends += [end] if end is not None else []
        since = moment(one.get("runStart")) or now - timedelta(days=45)
        margin = timedelta(days=1)  # what happens to an activity is noted when it has happened
        until = max(end or now, now) + margin
        before, bill.empty = bill.empty, True
        try:
            for activity in pipelines.activities(one, since - margin, until):
                bill.add(activity)
        except Malformed as error:
            bill.unread(str(error))
        if bill.empty and status == SUCCEEDED:
            bill.unread("a pipeline run without any activity run")
        bill.empty = bill.empty and before
        while bill.children:
            child = bill.children.pop()
            if child not in known:
                known.add(child)
                found = pipelines.run(child)
                if found is None:
                    bill.unread("a run that it has started is not known any more")
                else:
                    waiting.append(found)
    return Whole(done and not bill.going, bill, max(ends, default=None))
