"""Scheduled assets, checks, sensors and the report in a real Dagster, one order at a time.

A line of JSON on standard input is an order, and gets a line of JSON as its answer, so that the
test can restate a bill or write charges between two runs of one instance.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from datetime import datetime
from typing import Any

import dagster as dg

import costinsights
from costinsights import dagster as ours

Answer = dict[str, Any]


@dg.asset
def orders() -> None:
    """An asset whose charges the test writes, or that runs a statement where that is priced."""
    if costinsights.current().calls == 0 and State.spends:
        sqlite3.connect(":memory:").execute("SELECT 1 AS orders").fetchall()


@dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right")])
def both() -> Any:
    """Two assets of one step."""
    yield dg.MaterializeResult(asset_key="left")
    yield dg.MaterializeResult(asset_key="right")


@dg.job
def stop_everything() -> None:
    """What a budget may start."""


class State:
    """What the orders before have made."""

    instance = dg.DagsterInstance.ephemeral()
    spends = False
    asset: dg.AssetsDefinition
    schedule: dg.ScheduleDefinition
    told: list[str] = []


def plain(metadata: Any) -> Answer:
    """Return metadata as JSON has it."""
    found: Answer = {}
    for name, one in metadata.items():
        value = getattr(one, "value", one)
        if isinstance(one, dg.TableMetadataValue):
            value = [record.data for record in one.records]
        found[name.removeprefix("costinsights/")] = value
    return found


def make(factory: str, args: list[Any], options: Answer) -> Answer:
    """Make a scheduled asset."""
    State.asset, State.schedule = getattr(ours, factory)(*args, **options)
    (key,) = State.asset.keys
    return {
        "key": key.to_user_string(),
        "schedule": State.schedule.name,
        "checks": sorted(one.name for one in State.asset.check_specs),
    }


def run(
    partition: str | None = None,
    span: list[str] | None = None,
    config: Answer | None = None,
    check: str | None = None,
) -> Answer:
    """Make the asset, a partition of it or several, or evaluate one of its checks alone."""
    (key,) = State.asset.keys
    named: Any = None
    if check is not None:
        named = dg.AssetSelection.checks(dg.AssetCheckKey(key, check))
    tags: dict[str, str] = {}
    if span is not None:
        tags["dagster/asset_partition_range_start"] = span[0]
        tags["dagster/asset_partition_range_end"] = span[1]
    done = dg.materialize(
        [State.asset],
        instance=State.instance,
        partition_key=partition,
        tags=tags,
        selection=named,
        run_config={"ops": {State.asset.op.name: {"config": config or {}}}},
        raise_on_error=False,
    )
    return result(done)


def result(done: dg.ExecuteInProcessResult) -> Answer:
    """Return what a run did."""
    made, seen, checks, failure, grant = {}, {}, {}, "", ""
    for event in done.all_events:
        if event.is_step_materialization:
            one = event.step_materialization_data.materialization
            made[one.partition or ""] = plain(one.metadata)
        elif event.is_asset_observation:
            look = event.asset_observation_data.asset_observation
            seen[look.partition or ""] = plain(look.metadata)
        elif event.is_step_failure:
            data = event.step_failure_data
            failure = (data.user_failure_data.description if data.user_failure_data else "") or str(
                data.error
            )
            if data.user_failure_data:
                grant = plain(data.user_failure_data.metadata).get("grant", "")
    for evaluation in done.get_asset_check_evaluations():
        checks[evaluation.check_name] = {
            "passed": evaluation.passed,
            "severity": evaluation.severity.value,
            "said": evaluation.description,
            "metadata": plain(evaluation.metadata),
        }
    return {
        "success": done.success,
        "made": made,
        "seen": seen,
        "checks": checks,
        "failure": failure,
        "grant": grant,
    }


def tick(at: str) -> Answer:
    """Evaluate the schedule."""
    context = dg.build_schedule_context(scheduled_execution_time=datetime.fromisoformat(at))
    said: Any = State.schedule(context)
    if isinstance(said, dg.SkipReason):
        return {"requests": [], "skipped": said.skip_message}
    request = {"partition": said.partition_key, "tags": said.tags, "config": said.run_config}
    return {"requests": [request], "skipped": None}


def spent(run_id: str, asset: str, checks: Answer) -> Answer:
    """Make an asset in a run with that id, whose charges the test has written, and check its cost."""
    made: Any = {"orders": orders, "left": both}[asset]
    if "severity" in checks:
        checks["severity"] = dg.AssetCheckSeverity[checks["severity"]]
    found: Any = ours.build_cost_checks(dg.AssetKey(asset), **checks)
    job = dg.define_asset_job("spending", selection=dg.AssetSelection.all())
    defs = dg.Definitions(assets=[made], asset_checks=found, jobs=[job])
    whole: Any = defs
    resolved = (
        whole.resolve_job_def("spending")
        if hasattr(whole, "resolve_job_def")
        else whole.get_job_def("spending")
    )
    return result(
        resolved.execute_in_process(instance=State.instance, run_id=run_id, raise_on_error=False)
    )


def spending(checks: Answer, config: Answer) -> Answer:
    """Run a statement that is priced, or is not, and check its cost in the same run."""
    costinsights.instrument("sqlite3", exporters=[], config=config)
    State.spends = True
    found: Any = ours.build_cost_checks([orders], **checks)
    done = dg.materialize([orders, *found], instance=State.instance, raise_on_error=False)
    return result(done)


def budget(
    cursor: str | None, options: Answer, starts: bool = False, breaks: bool = False
) -> Answer:
    """Look once, as the daemon does."""

    def on_breach(breach: Any) -> None:
        if breaks:
            raise RuntimeError("nobody can be told")
        State.told.append(str(breach))

    State.told = []
    job = stop_everything if starts else None
    sensor = ours.create_budget_sensor("watch", on_breach=on_breach, job=job, **options)
    context = dg.build_sensor_context(instance=State.instance, cursor=cursor)
    data: Any = sensor(context)
    return {
        "cursor": data.cursor,
        "skipped": data.skip_reason.skip_message if data.skip_reason else None,
        "told": State.told,
        "requests": [
            {"key": one.run_key, "tags": {k: v for k, v in one.tags.items() if "costins" in k}}
            for one in data.run_requests or ()
        ],
    }


def report(directory: str, options: Answer) -> Answer:
    """Make the report."""
    asset = ours.create_cost_report_asset(directory, **options)
    done = dg.materialize([asset], instance=State.instance, raise_on_error=False)
    return result(done)


ORDERS = {one.__name__: one for one in (make, run, tick, spent, spending, budget, report)}


def main() -> None:
    """Do as one is told."""
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = ORDERS[order.pop("do")](**order)
        except Exception as error:  # noqa: BLE001  the test looks at it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print("answer", json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()
