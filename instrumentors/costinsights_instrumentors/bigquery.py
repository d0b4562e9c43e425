"""google-cloud-bigquery: every job that a client starts, queries of BigLake tables among them.

Measured: ``query`` by jobs.insert and by jobs.query, ``query_and_wait``, the DB-API, loads from
files, data frames and Cloud Storage, exports and copies, and pandas, SQLAlchemy and dbt above them:
one charge a job, and one for each job that is started again. It is written when BigQuery has given
it its id, and completed by the job's resource that passes by when the program waits for it: bytes
billed and processed, slot time, cache hit, reservation, rows changed or loaded, errors and
cancellation. Nothing is asked of BigQuery that the program does not ask.

- The answer of jobs.query, and so ``query_and_wait`` where it is quick, does not have the bytes
  billed: the charge says the bytes processed, and waits for ``costinsights settle gcp.bigquery``.
- Free, and said to be: dry runs, cache hits, failed queries, loads, exports and copies.
- On a reservation nothing is billed by the byte: give its price as a ``[[capacity]]`` with
  ``database`` = the project. The first free TiB of a month is the billing account's, and not known.
- A script is one charge: its parent's figures are the sum of its children's.

With ``tagging="native"`` a job has the labels ``costinsights_asset`` and ``costinsights_job``
beside the program's own; they show in the job's history and in the billing export.

Not seen: rows of a ``SELECT``, ``insert_rows_json``, the Storage APIs, and jobs of other programs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from costinsights.jobs import Asked, Hook, JobInstrumentor, Operation, Place, Run, Start, State
from costinsights_instrumentors import _bigquery as bq

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CLIENT = "google.cloud.bigquery.client:Client"
# The requests of the REST API that are about a job, and the key of what they mean.
PATHS = (
    ("POST", re.compile(r"/projects/[^/]+/jobs$"), "insert"),
    ("POST", re.compile(r"/projects/[^/]+/queries$"), "query"),
    ("GET", re.compile(r"/projects/[^/]+/jobs/[^/]+$"), "get"),
    ("POST", re.compile(r"/projects/[^/]+/jobs/[^/]+/cancel$"), "cancel"),
)


def _answered(answer: Any) -> Mapping[str, Any]:
    """Return the resource; that of an upload comes as the transport's response."""
    return cast("Mapping[str, Any]", answer if isinstance(answer, dict) else answer.json())


def _inserted(request: Any, answer: Any) -> Iterator[Run]:
    yield bq.job_run(request, _answered(answer))


def _queried(request: Any, answer: Any) -> Iterator[Run]:
    yield bq.query_run(request, answer)


def _job(_: object, answer: Any) -> Iterator[State]:
    yield bq.job_state(_answered(answer))


def _cancelled(_: object, answer: Any) -> Iterator[State]:
    yield bq.job_state(bq.part(answer, "job"))


def _asked_for(client: Any, request: Any) -> Place:
    reference = bq.part(request, "jobReference")
    location = reference.get("location") or request.get("location") or client.location
    return bq.where(client, reference.get("projectId"), location)


def _ran(client: Any, request: Any, answer: Any) -> Place:
    reference = bq.part(_answered(answer), "jobReference")
    if not reference.get("location"):
        return _asked_for(client, request)
    return bq.where(client, reference.get("projectId"), reference["location"])


def _text(request: Any) -> str | None:
    found: str | None = request.get("query") or bq.job_text(request)
    return found


OPERATIONS = {
    "insert": Operation(bq.SYSTEM, Start(_asked_for, _inserted, _text, placed=_ran), _job),
    "query": Operation(bq.SYSTEM, Start(_asked_for, _queried, _text, placed=_ran), bq.query_states),
    "get": Operation(bq.SYSTEM, states=_job),
    "cancel": Operation(bq.SYSTEM, states=_cancelled),
}


class BigQueryInstrumentor(JobInstrumentor):
    name = "bigquery"
    system = bq.SYSTEM
    driver = "google.cloud.bigquery"
    supports = ("3.11", "4")
    # All requests but the uploads go through the first.
    hooks = (
        Hook(f"{CLIENT}._call_api", leaf=True),
        Hook(f"{CLIENT}._do_multipart_upload", leaf=True),
        Hook(f"{CLIENT}._do_resumable_upload", leaf=True),
    )
    meters = bq.METERS
    basis = "metered"
    statement_tags = True
    channel = "job labels"
    verified = "emulator: own REST server"

    def operation(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        """Tell by method and path; an upload is the insert of a job."""
        if not hook.target.endswith("_call_api"):
            return Asked(OPERATIONS["insert"], args[0], args[2])
        method, path = kwargs.get("method"), kwargs.get("path") or ""
        for wanted, pattern, key in PATHS:
            if method == wanted and pattern.match(path):
                return Asked(OPERATIONS[key], args[0], kwargs.get("data") or {})
        return None

    def with_labels(
        self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Give the request's copy the labels; they stand in a job's configuration."""
        request = asked.request
        holder = bq.part(request, "configuration") if "configuration" in request else request
        labels = bq.labelled(holder.get("labels"), words)
        if labels is None:
            return None
        changed = {**holder, "labels": labels}
        if holder is not request:
            changed = {**request, "configuration": changed}
        if "data" in kwargs:
            return args, {**kwargs, "data": changed}
        return (*args[:2], changed, *args[3:]), kwargs
