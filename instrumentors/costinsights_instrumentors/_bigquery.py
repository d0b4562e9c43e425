"""What BigQuery's REST resources say of a job: its place, its text, its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from costinsights.instrumentor import Usage, address_of
from costinsights.jobs import Place, Run, State, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Resource = Mapping[str, Any]

SYSTEM = "gcp.bigquery"

# BigQuery's figures, by the part of a job's `statistics` that they stand in, and our names. In JSON
# they are texts.
STATISTICS = {
    "": {"totalSlotMs": "slot_ms", "totalBytesProcessed": "processed_bytes"},
    "query": {
        "totalBytesBilled": "billed_bytes",
        "totalBytesProcessed": "processed_bytes",
        "totalSlotMs": "slot_ms",
    },
    "load": {"inputFileBytes": "input_bytes", "outputBytes": "output_bytes"},
    "extract": {"inputBytes": "input_bytes"},
    "copy": {"copiedLogicalBytes": "copied_bytes"},
}
ROWS = (("query", "numDmlAffectedRows"), ("load", "outputRows"), ("copy", "copiedRows"))
METERS = (
    "billed_bytes",
    "processed_bytes",
    "slot_ms",
    "cache_hit",
    "dry_run",
    "reservation",
    "input_bytes",
    "output_bytes",
    "copied_bytes",
)
FREE = ("load", "extract", "copy")
KINDS = ("query", *FREE)

MOST_LABELS = 64
LONGEST_LABEL = 63


def part(whole: Resource, *names: str) -> Resource:
    """Return what lies within a resource, or an empty one."""
    for name in names:
        found = whole.get(name)
        whole = cast("Resource", found) if isinstance(found, dict) else {}
    return whole


def number(value: object) -> int | None:
    """Return a figure of BigQuery's, which is a text where it is one of 64 bits."""
    if isinstance(value, str):
        return int(value) if value.isdecimal() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def where(client: Any, project: str | None, location: str | None) -> Place:
    """Return the place of a project's jobs; a location is a region, or ``US`` or ``EU``."""
    return place(
        SYSTEM,
        address=address_of(client._connection.API_BASE_URL)[0],
        namespace=project or client.project,
        region=location.lower() if location else None,
    )


# --- a job, as jobs.insert and jobs.get have it -------------------------------------------------


def job_text(resource: Resource) -> str | None:
    """Return the statement of a job that is a query."""
    return part(resource, "configuration", "query").get("query")


def job_run(request: Resource, answer: Resource) -> Run:
    """Return what jobs.insert has started."""
    configuration = part(request, "configuration")
    kind = next((kind for kind in KINDS if kind in configuration), None)
    operation = None if kind == "query" else (kind or "job").upper()
    if configuration.get("dryRun"):  # nothing runs
        return Run(None, operation=operation)
    reference = part(answer, "jobReference")
    return Run(reference.get("jobId"), None, operation, within=reference.get("projectId") or "")


def job_state(resource: Resource) -> State:
    """Return how a job is."""
    reference, status = part(resource, "jobReference"), part(resource, "status")
    statistics, configuration = part(resource, "statistics"), part(resource, "configuration")
    reason = part(status, "errorResult").get("reason")
    meters: dict[str, int | float | str] = {}
    for within, names in STATISTICS.items():
        figures = part(statistics, within) if within else statistics
        for theirs, ours in names.items():
            value = number(figures.get(theirs))
            if value is not None:
                meters[ours] = value
    rows = next(
        (found for of, name in ROWS if (found := number(part(statistics, of).get(name)))), None
    )
    if part(statistics, "query").get("cacheHit"):
        meters["cache_hit"] = 1
    _bill(meters, configuration, statistics, reason)
    if configuration.get("dryRun"):
        return State("", True, Usage(None, {**meters, "billed_bytes": 0, "dry_run": 1}))
    begun, ended = number(statistics.get("creationTime")), number(statistics.get("endTime"))
    return State(
        reference.get("jobId") or "",
        status.get("state") == "DONE",
        Usage(rows, meters),
        reason,
        (ended - begun) * 10**6 if begun and ended else None,
        reference.get("projectId") or "",
    )


def _bill(
    meters: dict[str, int | float | str],
    configuration: Resource,
    statistics: Resource,
    reason: str | None,
) -> None:
    """Say what is billed by the byte, where BigQuery leaves that to its price list.

    Loads, exports and copies are free, and so are queries that failed, other than by being stopped,
    and those that were answered from the cache. On a reservation nothing is billed by the byte, and
    the figure is BigQuery's information only. Source: https://cloud.google.com/bigquery/pricing
    """
    reservation = statistics.get("reservation_id")
    if isinstance(reservation, str) and reservation:
        meters["reservation"] = reservation
        meters.pop("billed_bytes", None)
    elif (
        any(kind in configuration for kind in FREE)
        or (reason is not None and reason != "stopped")
        or "cache_hit" in meters
    ):
        meters["billed_bytes"] = 0


# --- a query, as jobs.query has it --------------------------------------------------------------


def query_run(request: Resource, answer: Resource) -> Run:
    """Return what jobs.query has started, with all that its answer knows: not the bytes billed.

    Without a job, as ``JOB_CREATION_OPTIONAL`` may have it, there is the id of the query, which
    stands for the job's in ``INFORMATION_SCHEMA.JOBS``.
    """
    if request.get("dryRun"):
        return Run(None)
    reference = part(answer, "jobReference")
    id_ = reference.get("jobId") or answer.get("queryId")
    meters = {
        ours: value
        for theirs, ours in STATISTICS["query"].items()
        if (value := number(answer.get(theirs))) is not None
    }
    rows = number(answer.get("numDmlAffectedRows")) or number(answer.get("totalRows"))
    return Run(id_, None, None, meters, reference.get("projectId") or "", rows)


def query_states(request: Resource, answer: Resource) -> Iterator[State]:
    """Yield the end of a query, where its cost is known: a dry run, a cached or a billed one."""
    run = query_run(request, answer)
    meters = dict(run.meters or {})
    if request.get("dryRun"):
        yield State("", True, Usage(None, {**meters, "billed_bytes": 0, "dry_run": 1}))
    elif answer.get("jobComplete") and answer.get("cacheHit"):
        meters.update(cache_hit=1, billed_bytes=0)
        yield State(run.id or "", True, Usage(run.rows, meters), within=run.within)


# --- labels -------------------------------------------------------------------------------------


def labelled(labels: Mapping[str, str] | None, words: Mapping[str, str]) -> dict[str, str] | None:
    """Return the program's labels and ours, as BigQuery takes them; None where there is no room.

    Keys and values: lower case letters, digits, ``_`` and ``-``, 63 of them; 64 labels a job.
    """
    found = dict(labels or {})
    for key, value in words.items():
        plain = value.lower().replace(".", "_")[:LONGEST_LABEL]
        found.setdefault(f"costinsights_{key}", plain)
    return found if len(found) <= MOST_LABELS else None
