"""Asks the orchestrator in this process who is running: Dagster, Airflow, Prefect, dbt.

They are asked at the time of the call and only where the program has loaded them. All of them
speak the same labels: ``job``, ``run``, ``task`` (the step of the job), ``attempt`` (1 is the
first), and where they know it ``asset``, ``partition`` and ``team``. Parameters, run
configuration and e-mail addresses are never looked at.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from sys import modules
from typing import TYPE_CHECKING, Any
from weakref import ref

from costinsights.attribution import MAX_VALUE, clean_labels
from costinsights.guard import swallow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Dagster's run tags that say why a run came about, and the labels that they become.
_DAGSTER_TAGS = {
    "dagster/schedule_name": "schedule",
    "dagster/sensor_name": "sensor",
    "dagster/backfill": "backfill",
    "dagster/from_automation_condition": "automation",
    "dagster/root_run_id": "root_run",
    "dagster/retry_number": "run_retry",
}
# What tells one Airflow task run from the next; it is put into the environment shortly before the
# task's own code runs, long after everything has been imported.
_AIRFLOW_RUN = (
    "AIRFLOW_CTX_DAG_ID",
    "AIRFLOW_CTX_TASK_ID",
    "AIRFLOW_CTX_DAG_RUN_ID",
    "AIRFLOW_CTX_TRY_NUMBER",
    # Airflow does not say it by itself; a function in airflow_local_settings.py can (the docs do).
    "AIRFLOW_CTX_MAP_INDEX",
)
_AIRFLOW_NOBODY = "airflow"
"""The owner of a task whose author named none."""
_AIRFLOW_UNMAPPED = "-1"
# A run knows its deployment by its id only. What starts a run of a deployment puts the name into
# the process's environment, from where Prefect itself takes it for its logs; a flow that another
# one calls is part of the same deployment's run, and does not even have the id.
_PREFECT_DEPLOYMENT = "PREFECT__DEPLOYMENT_NAME"
_MAX_KNOWN = 1024

_bare: bool = "AIRFLOW_CTX_DAG_ID" not in os.environ
"""This process was not started by an Airflow task (a BashOperator's command is), nor runs dbt."""


class Context:
    """What an orchestrator says of the work under way; `rule` is its name.

    There is one object for one attempt at one piece of work, and it is a dictionary's key by its
    identity.
    """

    __slots__ = ("_laid", "labels", "rule")

    def __init__(self, rule: str, labels: Mapping[str, object]) -> None:
        self.rule = rule
        self.labels: Mapping[str, str] = clean_labels(labels)
        self._laid: tuple[Context, Context] | None = None

    def over(self, outer: Context) -> Context:
        """Return this context laid over the one around it: the same object for the same two."""
        if self._laid is None or self._laid[0] is not outer:
            labels = {**outer.labels, **self.labels}
            self._laid = outer, Context(f"{self.rule}+{outer.rule}", labels)
        return self._laid[1]

    def __repr__(self) -> str:
        return f"Context({self.rule!r}, {self.labels!r})"


carried: ContextVar[Context | None] = ContextVar("costinsights_carried", default=None)
"""Who has handed the work under way to a library's own thread, where nobody can be asked."""

node: ContextVar[Context | None] = ContextVar("costinsights_node", default=None)
"""The dbt node that this thread works for; `costinsights.dbt` sets it."""

begun: list[Callable[[Any, Context], None]] = []
"""Who is told of each new piece of Dagster's work that somebody asks after, on its own thread: its
`OpExecutionContext`, and what it says. `costinsights.dagster` listens."""


def dbt_is_here() -> None:
    """Have `node` asked from now on: every statement's time is too short to ask for dbt as well."""
    global _bare
    _bare = False


def may_be_present() -> bool:
    """Tell whether this process has loaded an orchestrator, or was started by one."""
    return (
        not _bare
        or "dagster_pipes" in modules  # Dagster itself imports it as well
        or "prefect" in modules
        or "airflow" in modules
    )


def present() -> Context | None:
    """Return the context of the work under way here and now, or None outside of any.

    Where several are nested the one that lives in the process is believed before the one that
    started the process: Dagster, Prefect, Airflow. A node of dbt's lies over what runs dbt.
    """
    if not may_be_present():
        return None
    try:
        found = _dagster() if "dagster" in modules else None
        if found is None and "dagster_pipes" in modules:
            found = _pipes()
        if found is None and "prefect.context" in modules:
            found = _prefect()
        if found is None and (not _bare or "airflow" in modules):
            found = _airflow()
        if found is None:
            found = carried.get()
        inner = node.get()
        if inner is None:
            return found
        return inner if found is None else inner.over(found)
    except Exception as error:  # noqa: BLE001  the call is recorded all the same
        swallow("orchestrator", error)
        return None


# --- Dagster ------------------------------------------------------------------------------------

_dagster_contexts: dict[int, tuple[ref[Any], Context]] = {}


def _dagster() -> Context | None:
    dagster: Any = modules["dagster"]
    try:
        outside = dagster.DagsterInvariantViolationError
        contexts = dagster.OpExecutionContext
    except AttributeError:
        return None  # still being imported
    try:
        # Also where the code asked for an AssetExecutionContext, which is made around this one.
        work = contexts.get()
    except outside:
        return None
    key = id(work)
    known = _dagster_contexts.get(key)
    if known is not None and known[0]() is work:
        return known[1]
    context = Context("dagster", _dagster_labels(work))
    _dagster_contexts[key] = ref(work, lambda _: _dagster_contexts.pop(key, None)), context
    for listen in begun:
        try:
            listen(work, context)
        except Exception as error:  # noqa: BLE001  the call is recorded all the same
            swallow("dagster", error)
    return context


def _dagster_labels(work: Any) -> dict[str, object]:
    tags: Mapping[str, str] = work.run.tags
    labels: dict[str, object] = {
        "job": work.job_name,
        "run": work.run_id,
        "task": str(work.op_handle),
        "mapping": work.get_mapping_key(),
        "attempt": work.retry_number + 1,
        "code_location": getattr(work, "location_name", None) or tags.get("dagster/code_location"),
    }
    labels.update((label, tags.get(tag)) for tag, label in _DAGSTER_TAGS.items())
    if work.has_partition_key:
        labels["partition"] = work.partition_key
    elif work.has_partition_key_range:
        labels["partition"] = "{0.start}...{0.end}".format(work.partition_key_range)  # noqa: UP032
    if work.has_assets_def:
        keys = set(work.selected_asset_keys)
        checks = work.selected_asset_check_keys
        if not keys:
            keys = {check.asset_key for check in checks}
            labels["check"] = _joined(check.name for check in checks)
        labels["asset"] = _whole(_joined(key.to_user_string() for key in keys))
        owners = work.assets_def.owners_by_key
        teams = {owner for key in keys for owner in owners.get(key, ()) if _is_team(owner)}
        labels["team"] = _joined(owner.partition(":")[2] for owner in teams)
    return labels


_pipes_known: tuple[object, Context] | None = None


def _pipes() -> Context | None:
    """Ask what Dagster told the external process that it started, once that has opened its Pipes."""
    global _pipes_known
    pipes: Any = modules["dagster_pipes"]
    try:
        context = pipes.PipesContext.get() if pipes.PipesContext.is_initialized() else None
    except AttributeError:
        return None  # still being imported
    if not isinstance(context, pipes.PipesContext):
        return None  # there is none, or the library's stand-in for being run without Dagster
    if _pipes_known is None or _pipes_known[0] is not context:
        _pipes_known = context, Context("pipes", _pipes_labels(context))
    return _pipes_known[1]


def _pipes_labels(context: Any) -> dict[str, object]:
    labels: dict[str, object] = {
        "job": context.job_name,
        "run": context.run_id,
        "attempt": context.retry_number + 1,
    }
    if context.is_asset_step:
        labels["asset"] = _whole(_joined(context.asset_keys))
    if context.is_partition_step:
        keys = context.partition_key_range
        one = keys.start == keys.end
        labels["partition"] = keys.start if one else f"{keys.start}...{keys.end}"
    return labels


def _whole(names: str | None) -> str | None:
    """Return names only where they fit: half of a list would charge the wrong assets."""
    return names if names is None or len(names) <= MAX_VALUE else None


def _is_team(owner: str) -> bool:
    """The other kind of owner is a person's e-mail address."""
    return owner.startswith("team:")


# --- Prefect ------------------------------------------------------------------------------------

_prefect_contexts: dict[object, Context] = {}


def _prefect() -> Context | None:
    # Never ``prefect.runtime``: outside of a run its attributes ask the server.
    prefect: Any = modules["prefect.context"]
    try:
        flow = prefect.FlowRunContext.get()
        task = prefect.TaskRunContext.get()
    except AttributeError:
        return None  # still being imported
    if flow is None and task is None:
        return None
    run = flow.flow_run if flow is not None else None
    key = (
        (run.id, run.run_count) if run is not None else None,
        (task.task_run.id, task.task_run.run_count) if task is not None else None,
    )
    known = _prefect_contexts.get(key)
    if known is None:
        known = Context("prefect", _prefect_labels(prefect, flow, task))
        _remember(_prefect_contexts, key, known)
    return known


def _prefect_labels(prefect: Any, flow: Any, task: Any) -> dict[str, object]:
    labels: dict[str, object] = {}
    run = flow.flow_run if flow is not None else None
    if flow is not None and flow.flow is not None:
        labels["job"] = flow.flow.name
    if run is not None:
        labels["run"] = run.id
        labels["attempt"] = run.run_count
        labels["deployment"] = os.environ.get(_PREFECT_DEPLOYMENT) or run.deployment_id
        labels["deployment_id"] = run.deployment_id
        labels["tags"] = _joined(run.tags)
    if task is not None:
        labels["task"] = task.task.name
        labels["attempt"] = task.task_run.run_count
        labels.setdefault("run", task.task_run.flow_run_id or task.task_run.id)
        # Since Prefect 3.4 a task can say which assets it makes.
        assets = getattr(prefect, "AssetContext", None)
        making = assets.get() if assets is not None else None
        if making is not None:
            labels["asset"] = _joined(asset.key for asset in making.downstream_assets)
    return labels


# --- Airflow ------------------------------------------------------------------------------------

_airflow_contexts: dict[object, Context] = {}


def _airflow() -> Context | None:
    environment = os.environ
    key = tuple([environment.get(name) for name in _AIRFLOW_RUN])
    if not key[0]:
        return None
    known = _airflow_contexts.get(key)
    if known is None:
        dag, task, run, attempt, mapping = key
        owner = environment.get("AIRFLOW_CTX_DAG_OWNER", "")
        if owner == _AIRFLOW_NOBODY or "@" in owner:
            owner = ""
        labels: dict[str, object] = {
            "job": dag,
            "task": task,
            "run": run,
            "attempt": attempt,
            "mapping": mapping if mapping != _AIRFLOW_UNMAPPED else None,
            "team": environment.get("AIRFLOW_CTX_TEAM_NAME") or owner or None,
        }
        known = Context("airflow", labels)
        _remember(_airflow_contexts, key, known)
    return known


def _remember(contexts: dict[object, Context], key: object, context: Context) -> None:
    if len(contexts) >= _MAX_KNOWN:
        contexts.clear()
    contexts[key] = context


def _joined(words: Iterable[str]) -> str | None:
    return ",".join(sorted(words)) or None
