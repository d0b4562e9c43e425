"""Jobs and pipelines of databricks-sdk: which requests start a run, which answers tell of its end.

They are told by the path of `ApiClient.do`, through which every method of the SDK goes, of whatever
version, and whoever asks the API by hand: ``run_now_and_wait`` is one start, as is a start that
Dagster makes. A run of more than 100 tasks comes in pages, which `JobsExt.get_run` puts together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.instrumentor import Usage
from costinsights.jobs import Asked, Follow, Operation, Place, Run, Start, State, Waiting, place
from costinsights.systems.databricks_jobs import (
    METERS,
    SYSTEM,
    elapsed,
    ended,
    figures,
    size,
    update_ended,
    update_figures,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["DO", "GET_RUN", "METERS", "SYSTEM", "asked", "workspace"]

DO = "databricks.sdk.core:ApiClient.do"
GET_RUN = "databricks.sdk.mixins.jobs:JobsExt.get_run"
VERSIONED = len("/api/2.x/")


class Sent(NamedTuple):
    """A request: its workspace, what it asks, and the ids in its path."""

    host: str
    body: Mapping[str, Any]
    paged: bool = False
    path: Sequence[str] = ()


def workspace(host: str) -> tuple[str, int]:
    """Return address and port of a workspace, of its URL."""
    scheme, _, rest = host.partition("://")
    name, _, port = rest.rstrip("/").partition(":")
    return name, int(port) if port.isdigit() else 80 if scheme == "http" else 443


def _place(client: Any, sent: Sent) -> Place:
    """Give the workspace's host, and as namespace the job or the pipeline."""
    address, port = workspace(sent.host)
    job = sent.path[1] if sent.path else sent.body.get("job_id")
    namespace = None if job is None else str(job)
    return place(SYSTEM, address=address, port=port, namespace=namespace, service=SYSTEM)


def _run(operation: str) -> Any:
    def started(sent: Sent, answer: Mapping[str, Any]) -> Iterator[Run]:
        id_ = answer.get("run_id")
        meters = size(sent.body.get("tasks"))
        yield Run(None if id_ is None else str(id_), None, operation, meters, sent.host)

    return started


def _repaired(sent: Sent, _: object) -> Iterator[Run]:
    """A repair goes on with a run: what it costs is the run's, whose charge may be ours already."""
    yield Run(str(sent.body.get("run_id")), operation="REPAIR RUN", within=sent.host)


def _updated(sent: Sent, answer: Mapping[str, Any]) -> Iterator[Run]:
    yield Run(answer.get("update_id"), operation="UPDATE PIPELINE", within=sent.host)


def _one(sent: Sent, answer: Any) -> Iterator[State]:
    """A page of several is left to who puts them together."""
    run: Mapping[str, Any] = answer.as_dict() if hasattr(answer, "as_dict") else answer
    if not sent.paged and not run.get("next_page_token"):
        yield _state(run, sent.host)


def _many(sent: Sent, answer: Mapping[str, Any]) -> Iterator[State]:
    """A list that was not asked for tasks tells too little: such runs are left to `get_run`."""
    for run in answer.get("runs") or ():
        if run.get("tasks") and not run.get("has_more"):
            yield _state(run, sent.host)


def _state(run: Mapping[str, Any], host: str) -> State:
    over, error = ended(run)
    usage = Usage(None, figures(run)) if over else None
    return State(str(run.get("run_id")), over, usage, error, elapsed(run), host)


def _updates(sent: Sent, answer: Mapping[str, Any]) -> Iterator[State]:
    """Of `get_update`, of `list_updates`, and of a pipeline, which names its latest ones."""
    one: Any = answer.get("update")
    several: Any = answer.get("updates") or answer.get("latest_updates") or ()
    for found in (one,) if one else several:
        over, error = update_ended(found)
        usage = Usage(None, update_figures(found)) if over else None
        yield State(str(found.get("update_id")), over, usage, error, within=sent.host)


def _ours(client: Any) -> Any:
    """Return a client with the program's configuration, and connections of its own."""
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient(config=client._cfg)


def _ask(client: Any, waiting: Sequence[Waiting]) -> Iterator[State]:
    from databricks.sdk.errors import NotFound

    for one in waiting:
        try:
            if one.id.isdigit():
                yield _state(client.jobs.get_run(int(one.id)).as_dict(), one.within)
            else:
                found = client.pipelines.get_update(one.namespace, one.id).as_dict()
                yield from _updates(Sent(one.within, {}), found)
        except NotFound:
            continue


FOLLOW = Follow(_ours, _ask)
GET = Operation(SYSTEM, states=_one)
UPDATES = Operation(SYSTEM, states=_updates)
CALLS: Mapping[tuple[str, str], Operation] = {
    ("POST", "jobs/run-now"): Operation(SYSTEM, Start(_place, _run("RUN JOB")), follow=FOLLOW),
    ("POST", "jobs/runs/submit"): Operation(
        SYSTEM, Start(_place, _run("SUBMIT RUN")), follow=FOLLOW
    ),
    ("POST", "jobs/runs/repair"): Operation(SYSTEM, Start(_place, _repaired), follow=FOLLOW),
    ("GET", "jobs/runs/get"): GET,
    ("GET", "jobs/runs/list"): Operation(SYSTEM, states=_many),
    # Of a pipeline, by how many parts the path has: pipelines/{id}/updates/{id}.
    ("POST", "3"): Operation(SYSTEM, Start(_place, _updated), follow=FOLLOW),
    **dict.fromkeys((("GET", parts) for parts in "234"), UPDATES),
}


def asked(target: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Asked | None:
    """Tell what a call means; nearly all of them end at the first look at their path."""
    if target == GET_RUN:
        paged = kwargs.get("page_token") is not None
        return Asked(GET, args[0], Sent(args[0]._api._cfg.host, {}, paged))
    path = args[2] if len(args) > 2 else kwargs.get("path")
    if not isinstance(path, str) or not path.startswith(("jobs/r", "pipelines/"), VERSIONED):
        return None
    client = args[0]
    method = args[1] if len(args) > 1 else kwargs.get("method")
    what, parts = path[VERSIONED:], path[VERSIONED:].split("/")
    if parts[0] == "pipelines":
        what = str(len(parts)) if parts[2:3] in ([], ["updates"]) else ""
    operation = CALLS.get((str(method), what))
    if operation is None:
        return None
    paged = "page_token" in (kwargs.get("query") or {})
    ids = parts if parts[0] == "pipelines" else ()
    return Asked(operation, client, Sent(client._cfg.host, kwargs.get("body") or {}, paged, ids))
