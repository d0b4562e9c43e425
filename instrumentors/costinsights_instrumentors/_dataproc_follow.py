"""How Dataproc's runs are asked for in the background, on a client of our own."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Usage
from costinsights.jobs import Follow
from costinsights.systems.gcp_dataproc import name_of, raw
from costinsights.systems.gcp_dataproc_serverless import so_far
from costinsights_instrumentors._dataproc import job_state, serverless_state

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from costinsights.jobs import State, Waiting

TIMEOUT_SECONDS = 20


def _ours(client: Any) -> Any:
    """Make a client like the program's: the same credentials and host, tries nothing twice.

    Where a program made the channel itself, its credentials are in the channel: it is used by a
    client of ours too. That of an async client lives in the program's loop, and cannot be.

    Raises:
        RuntimeError: there is no way to ask beside the program.
    """
    theirs = client.transport
    kind: Any = getattr(client, "_client", client).__class__  # an async client has one of this kind
    if theirs.kind == "rest":
        transport = theirs.__class__(host=theirs.host, credentials=theirs._credentials)
        return kind(transport=transport)
    if theirs._credentials is not None:
        endpoint = import_module("google.api_core.client_options").ClientOptions(
            api_endpoint=theirs.host
        )
        return kind(credentials=theirs._credentials, client_options=endpoint)
    if theirs.kind != "grpc":
        raise RuntimeError("the channel of an async client is the program's alone")
    return kind(transport=theirs.__class__(channel=theirs.grpc_channel))


def _close(client: Any) -> None:
    """Hang up, unless the channel is the program's."""
    if client.transport.kind == "rest" or client.transport._credentials is not None:
        client.transport.close()


def _same(client: Any) -> Hashable:
    theirs = client.transport
    return f"{type(client)}", theirs.host, id(theirs._credentials or theirs)


def _jobs(client: Any, runs: Sequence[Waiting]) -> Iterator[State]:
    for run in runs:
        name = name_of(run.id)
        if name is not None and name.kind == "jobs":
            request = {"project_id": name.project, "region": name.region, "job_id": name.id}
            yield job_state(
                run.id, raw(client.get_job(request=request, retry=None, timeout=TIMEOUT_SECONDS))
            )


def _batches(client: Any, runs: Sequence[Waiting]) -> Iterator[State]:
    yield from _workloads(client.get_batch, runs)


def _sessions(client: Any, runs: Sequence[Waiting]) -> Iterator[State]:
    yield from _workloads(client.get_session, runs)


def _workloads(get: Any, runs: Sequence[Waiting]) -> Iterator[State]:
    """Yield ends, and of those that run what they have used so far."""
    for run in runs:
        if "/operations/" in run.id:
            continue
        found = raw(get(request={"name": run.id}, retry=None, timeout=TIMEOUT_SECONDS))
        state = serverless_state(found)
        meters = so_far(found)[1] if not state.done else None
        yield state._replace(usage=Usage(None, meters)) if meters else state


JOBS = Follow(_ours, _jobs, close=_close, same=_same)
BATCHES = Follow(_ours, _batches, close=_close, same=_same)
SESSIONS = Follow(_ours, _sessions, close=_close, same=_same)
