"""Databricks SDK: statements of the Statement Execution API; jobs, their runs, and pipelines.

Measured: each `statement_execution.execute_statement`, with the statement's id, its rows, and how
it ended, if the call waited for that or a `get_statement` of the program asks for it later. Until
then the charge is pending, and `costinsights settle databricks` finds the statement by its id. The
resource's namespace is the id of the warehouse: a ``[[capacity]]`` names it as its ``database``.
With ``tagging = "native"`` a statement carries ``query_tags``, ``ci_asset`` and ``ci_job``, beside
the program's own (SDK 0.86 or newer).

System ``databricks.jobs``: each run that `jobs.run_now`, `submit` or `repair_run` starts, waited for
or not, and each `pipelines.start_update`; also those of `api_client.do` and so of Dagster. The
charge is written at once and completed by the answers of the program's own `get_run`, `list_runs`,
`get_update` and ``Wait.result()``, or in the background: time of the tasks, nodes and node type. No
answer has DBUs: `costinsights settle databricks.jobs` has them, hours later. The namespace is the
id of the job or of the pipeline. A repair of a run that this process has started is that run's.

Not seen: the fetching of further chunks of a result, ``cancel_execution`` (the statement's end is
seen when it is asked for), and whatever Databricks runs by itself: schedules, notebooks, alerts,
Genie; what bundles and the command line start. Settlement with ``--all`` has the jobs among them.
Runs have no tags of their own (neither `run_now` nor `submit` takes any), so none are set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import Hook, Usage
from costinsights.jobs import Asked, JobInstrumentor, Operation, Run, Start, State, place
from costinsights_instrumentors import _databricks_jobs as jobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from costinsights.jobs import Place

API = "databricks.sdk.service.sql:StatementExecutionAPI"
ENDED = {"SUCCEEDED": None, "FAILED": "FAILED", "CANCELED": "CANCELED", "CLOSED": "CLOSED"}
MOST_TAGS = 20


def where(client: Any, request: Mapping[str, Any]) -> Place:
    """Give the workspace's host, and as namespace the warehouse."""
    address, port = jobs.workspace(client._api._cfg.host)
    return place("databricks", address=address, port=port, namespace=request.get("warehouse_id"))


def runs(request: Mapping[str, Any], answer: Any) -> Iterator[Run]:
    """Give the statement that was started."""
    yield Run(answer.statement_id)


def states(request: Mapping[str, Any], answer: Any) -> Iterator[State]:
    """Tell how the statement is, and what it brought."""
    state = answer.status and answer.status.state and answer.status.state.value
    if state in ENDED:
        yield State(answer.statement_id, True, Usage(rows(answer)), ENDED[state])


def rows(answer: Any) -> int | None:
    """Return the rows of the result, or those that a statement changed."""
    manifest, result = answer.manifest, answer.result
    if manifest is None:
        return None
    columns = (manifest.schema and manifest.schema.columns) or ()
    if columns and columns[0].name == "num_affected_rows":
        data = result and result.data_array
        return int(data[0][0]) if data and data[0][0] is not None else None
    total: int | None = manifest.total_row_count
    return total


def text(request: Mapping[str, Any]) -> str | None:
    """Give the statement."""
    return request.get("statement")


OPERATIONS = {
    f"{API}.execute_statement": Operation("databricks", Start(where, runs, text), states),
    f"{API}.get_statement": Operation("databricks", states=states),
}
ARGUMENTS = {
    f"{API}.execute_statement": ("statement", "warehouse_id"),
    f"{API}.get_statement": ("statement_id",),
}


class DatabricksSDKInstrumentor(JobInstrumentor):
    name = "databricks_sdk"
    system = "databricks"
    systems = ("databricks", jobs.SYSTEM)
    driver = "databricks.sdk"
    supports = ("0.40", "1")
    hooks = (
        *(Hook(target, leaf=True, statement=(1, "statement")) for target in OPERATIONS),
        Hook(jobs.DO, leaf=True, statement=None),
        Hook(jobs.GET_RUN, leaf=True, statement=None, optional=True),
    )
    meters = jobs.METERS
    statement_tags = True
    channel = "query_tags of the statement"
    verified = "emulator: unmodified databricks-sdk 0.156"

    def version(self, driver: ModuleType) -> str | None:
        """The package keeps its version in a module of its own."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("databricks-sdk")
        except PackageNotFoundError:
            return None

    def operation(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        if hook.target not in OPERATIONS:
            return jobs.asked(hook.target, args, kwargs)
        given = dict(zip(ARGUMENTS[hook.target], args[1:], strict=False))
        return Asked(OPERATIONS[hook.target], args[0], {**given, **kwargs})

    def takes_tag(self, hook: Hook) -> bool:
        """Runs have no channel for tags."""
        return hook.target in OPERATIONS

    def with_labels(
        self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Put asset and job before the program's own tags, where there is room for both."""
        from databricks.sdk.service import sql

        tag: Any = getattr(sql, "QueryTag", None)
        own: list[Any] = list(kwargs.get("query_tags") or ())
        known = {one.key for one in own}
        ours = {f"ci_{word}": value for word, value in words.items()}
        if tag is None or len(own) + len(ours.keys() - known) > MOST_TAGS:
            return None
        tags = [tag(key=key, value=value) for key, value in ours.items() if key not in known]
        return args, {**kwargs, "query_tags": tags + own}
