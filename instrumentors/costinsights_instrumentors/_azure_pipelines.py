"""What the clients of Data Factory and of Synapse's pipelines have in common: what their calls mean.

The figures of a run come in the pages of its activity runs. They are final when all pages were seen
that a program asked for after it had seen that the run has ended, and when the run has started no
others; what is not final is left to the background and to settlement.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

from costinsights.instrumentor import UNPRICED, Hook, Usage
from costinsights.jobs import Asked, Follow, JobInstrumentor, Operation, Run, Start, State
from costinsights.systems.azure_data_factory import (
    ENDS,
    GOES_ON,
    METERS,
    SUCCEEDED,
    SYNAPSE,
    SYSTEM,
    Bill,
    Pipelines,
    elapsed_of,
    moment,
    version_of,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

    from costinsights.jobs import Place, Waiting

MOST_SEEN = 1024
TIMEOUT_SECONDS = 20

# Where the clients whose models are no mappings keep what the REST API calls so.
RUN = {
    "runId": "run_id",
    "status": "status",
    "runStart": "run_start",
    "runEnd": "run_end",
    "durationInMs": "duration_in_ms",
}
ACTIVITY = {
    "activityRunId": "activity_run_id",
    "activityType": "activity_type",
    "pipelineRunId": "pipeline_run_id",
    "status": "status",
    "input": "input",
    "output": "output",
}
FILTERS = {
    "lastUpdatedAfter": "last_updated_after",
    "lastUpdatedBefore": "last_updated_before",
    "continuationToken": "continuation_token",
    "filters": "filters",
}
PAGE = {"value": "value", "continuationToken": "continuation_token"}


def rest(found: Any, names: Mapping[str, str]) -> Mapping[str, Any]:
    """Return what an answer or a request has, by the names of the REST API.

    The models of newer clients are mappings with just these names. To read them so changes nothing
    in them; their attributes would be made, and kept, when they are first looked at.
    """
    if isinstance(found, Mapping):
        return cast("Mapping[str, Any]", found)
    return {theirs: getattr(found, ours, None) for theirs, ours in names.items()}


class Given(NamedTuple):
    """A call: its arguments by name, and what was seen before it."""

    arguments: Mapping[str, Any]
    seen: Seen


class _Ended(NamedTuple):
    status: str
    started_at: object
    ended_at: object
    """Times as they came: of a long list of runs, few are looked at."""
    elapsed: int | None


class Seen:
    """What answers to the program have told so far of runs; the oldest are forgotten."""

    def __init__(self) -> None:
        self._ended: OrderedDict[str, _Ended] = OrderedDict()
        self._bills: OrderedDict[tuple[str, str], Bill] = OrderedDict()
        """By run and the token of the page that has to come next."""

    def run(self, answer: Any) -> State | None:
        """Take note of a run's state, which has no figures."""
        run = rest(answer, RUN)
        id_, status = run.get("runId"), run.get("status")
        if not isinstance(id_, str):
            return None
        if status in ENDS:
            span = run.get("runStart"), run.get("runEnd")
            _keep(self._ended, id_, _Ended(str(status), *span, elapsed_of(run)))
        return State(id_, False)

    def page(self, id_: str, asked: Any, answer: Any) -> State:
        """Add a page of activity runs; the last one of all completes the run."""
        filters, page = rest(asked, FILTERS), rest(answer, PAGE)
        going = State(id_, False)
        ended = self._ended.get(id_)
        token = filters.get("continuationToken")
        bill = self._bills.pop((id_, token), None) if token else Bill()
        items: object = page.get("value")
        if ended is None or bill is None or not isinstance(items, list):
            return going
        if not _covers(filters, ended):
            return going
        for found in cast("list[object]", items):
            activity = rest(found, ACTIVITY)
            if activity.get("pipelineRunId") in (None, id_):
                bill.add(activity)
        following = page.get("continuationToken")
        if following:
            _keep(self._bills, (id_, following), bill)
            return going
        if bill.going or bill.children or (bill.empty and ended.status == SUCCEEDED):
            return going
        bill.count("pipeline_runs")
        return state(id_, ended.status, bill, ended.elapsed)


def _keep(kept: OrderedDict[Any, Any], key: object, value: object) -> None:
    kept[key] = value
    if len(kept) > MOST_SEEN:
        kept.popitem(last=False)


def _covers(filters: Mapping[str, Any], ended: _Ended) -> bool:
    """Tell whether a question was for all of a run's activities."""
    first = moment(filters.get("lastUpdatedAfter"))
    last = moment(filters.get("lastUpdatedBefore"))
    started_at, ended_at = moment(ended.started_at), moment(ended.ended_at)
    if first is None or last is None or started_at is None or ended_at is None:
        return False
    return not filters.get("filters") and first <= started_at and last >= ended_at


def state(id_: str, status: object, bill: Bill, elapsed: int | None) -> State:
    """Return the end of a run, with what it was billed for."""
    meters = bill.meters()
    if bill.reason:
        meters[UNPRICED] = bill.reason
    error = None if status == SUCCEEDED else str(status)
    return State(id_, True, Usage(None, meters), error, elapsed)


def _started(given: Given, answer: Any) -> Iterator[Run]:
    pipeline = given.arguments.get("pipeline_name")
    id_ = rest(answer, {"runId": "run_id"}).get("runId")
    named = {"pipeline": pipeline} if isinstance(pipeline, str) else None
    yield Run(id_ if isinstance(id_, str) else None, operation="PIPELINE", meters=named)


def _run(given: Given, answer: Any) -> Iterator[State]:
    found = given.seen.run(answer)
    if found is not None:
        yield found


def _runs(given: Given, answer: Any) -> Iterator[State]:
    for one in rest(answer, PAGE).get("value") or ():
        yield from _run(given, one)


def _activities(given: Given, answer: Any) -> Iterator[State]:
    id_, asked = given.arguments.get("run_id"), given.arguments.get("filter_parameters")
    if isinstance(id_, str):
        yield given.seen.page(id_, asked, answer)


# --- in the background ---------------------------------------------------------------------------


def endpoint(client: Any) -> str:
    """Return where a client's requests go."""
    config = client._config
    found = getattr(config, "endpoint", None) or getattr(config, "base_url", None)
    return str(found or client._client._base_url)


def _ours(client: Any) -> Any:
    """Make a client with the program's credential and endpoint."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    from costinsights.settlement.azure import client_of, credential_policy

    config = client._config
    lets_in = getattr(config, "authentication_policy", None)
    if not isinstance(lets_in, SansIOHTTPPolicy):
        lets_in = credential_policy(config.credential, *config.credential_scopes)
    return client_of(endpoint(client), lets_in, TIMEOUT_SECONDS)


def _hang_up(client: Any) -> None:
    client.close()


def _same(client: Any) -> Hashable:
    return id(client._config.credential), endpoint(client)


def _ask(client: Any, waiting: Sequence[Waiting]) -> Iterator[State]:
    """Ask how runs are; what has not ended yet, or is not known, is left out."""
    from datetime import datetime, timezone

    from costinsights.settlement.azure import asking

    now = datetime.now(timezone.utc)
    for one in waiting:
        factory = "" if one.service == SYNAPSE else one.namespace or ""
        pipelines = Pipelines(asking(client, version_of(factory)), factory)
        run = pipelines.run(one.id)
        if run is None or run.get("status") in GOES_ON:
            continue
        found = whole(pipelines, run, now)
        if found.done:
            yield state(one.id, run.get("status"), found.bill, elapsed_of(run))


FOLLOW = Follow(_ours, _ask, close=_hang_up, same=_same, requests=2, meter="monitoring_entities")


def operations_of(
    where: Callable[[Any, Given], Place], start: str, run: str, runs: str, activities: str
) -> Mapping[str, Operation]:
    """Return what the calls of a client mean, by their names; those with ``aio`` before are awaited.

    A credential that is awaited belongs to the program's loop: runs of such clients are not asked
    for in the background.
    """
    states = {run: _run, runs: _runs, activities: _activities}
    told = {name: Operation(SYSTEM, states=read) for name, read in states.items()}
    begins = Start(where, _started)
    return {
        **{f"{kind}{name}": one for kind in ("", "aio ") for name, one in told.items()},
        start: Operation(SYSTEM, begins, follow=FOLLOW),
        f"aio {start}": Operation(SYSTEM, begins),
    }


class PipelineInstrumentor(JobInstrumentor):
    """What both clients have in common: `arguments` names what their methods are given by position."""

    system = SYSTEM
    meters = METERS
    basis = "metered"
    arguments: ClassVar[Mapping[str, tuple[str, ...]]]
    operations: ClassVar[Mapping[str, Operation]]

    def __init__(self) -> None:
        super().__init__()
        self._seen = Seen()

    def uninstrument(self) -> None:
        """Forget what was seen of runs."""
        super().uninstrument()
        self._seen = Seen()

    def operation(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        """Tell by the method."""
        name = hook.target.partition(":")[2]
        given = {**dict(zip(self.arguments[name], args[1:], strict=False)), **kwargs}
        key = f"aio {name}" if hook.kind == "async" else name
        return Asked(self.operations[key], args[0], Given(given, self._seen))


def hooks_of(driver: str, names: Iterable[str]) -> tuple[Hook, ...]:
    """Return the hooks on a client's methods, and on those of its ``aio`` twin."""
    return (
        *(Hook(f"{driver}.operations:{name}", leaf=True) for name in names),
        *(Hook(f"{driver}.aio.operations:{name}", "async") for name in names),
    )
