"""Assets of every kind that spend something, for tests of the exporter ``dagster``.

``dagster_costs.py SCENARIO...`` runs them, with the instance of ``DAGSTER_HOME``; ``told`` prints
what Dagster's event log tells of costs, as JSON.
"""
# Dagster's decorators leave much untyped.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownParameterType=false
# pyright: reportMissingTypeArgument=false

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import costinsights

costinsights.instrument("sqlite3", exporters=["dagster"])

import dagster as dg  # noqa: E402  the order that a program has which wants to lose nothing

CHILD = "import sqlite3; sqlite3.connect(':memory:').execute('SELECT 1 AS child').fetchall()"
PIPED = """
import sqlite3
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    sqlite3.connect(":memory:").execute("SELECT 1 AS piped").fetchall()
    pipes.report_asset_materialization()
"""
LETTERS = dg.StaticPartitionsDefinition(["a", "b", "c"])
BOTH = dg.MultiPartitionsDefinition(
    {"letter": LETTERS, "number": dg.StaticPartitionsDefinition(["1", "2"])}
)


def spend(times: int = 1) -> None:
    """Run statements."""
    connection = sqlite3.connect(":memory:")
    for number in range(times):
        connection.execute(f"SELECT {number} AS spent").fetchall()
    connection.close()


@dg.asset(key_prefix="mart")
def plain() -> int:
    """Three statements."""
    spend(3)
    return 1


@dg.asset_check(asset=plain)
def is_fine() -> dg.AssetCheckResult:
    """A check that costs something."""
    spend()
    return dg.AssetCheckResult(passed=True)


@dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right")])
def several() -> Iterator[dg.MaterializeResult[Any]]:
    """One statement before each of two assets."""
    spend()
    yield dg.MaterializeResult("left")
    spend()
    yield dg.MaterializeResult("right")


@dg.op
def fetched() -> int:
    """One statement."""
    spend()
    return 1


@dg.op
def loaded(number: int) -> int:
    """One statement."""
    spend()
    return number


@dg.graph_asset
def graphed() -> int:
    """Two ops, of which the last makes the asset."""
    return loaded(fetched())  # type: ignore[no-any-return]  # a call of an op draws


@dg.op(out=dg.DynamicOut())
def spread() -> Iterator[dg.DynamicOutput[int]]:
    """Fan out."""
    for key in ("x", "y"):
        yield dg.DynamicOutput(1, mapping_key=key)


@dg.op
def gathered(numbers: list[int]) -> int:
    """Fan in."""
    spend()
    return sum(numbers)


@dg.graph_asset
def dynamic() -> int:
    """Two dynamic steps between two others."""
    return gathered(spread().map(loaded).collect())  # type: ignore[no-any-return]  # as above


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
def flaky(context: dg.AssetExecutionContext) -> None:
    """Fail twice, and spend each time."""
    spend(2)
    if context.op_execution_context.retry_number < 2:
        raise ValueError("not yet")


@dg.asset
def failing() -> None:
    """Spend, and fail."""
    spend(2)
    raise ValueError("for good")


@dg.asset
def child() -> None:
    """Spend in another process."""
    subprocess.run([sys.executable, "-c", CHILD], check=True)


@dg.asset
def piped(context: dg.AssetExecutionContext) -> dg.MaterializeResult[object]:
    """Spend in a process that speaks Dagster's Pipes."""
    client = dg.PipesSubprocessClient()
    done = client.run(command=[sys.executable, "-c", PIPED], context=context)
    return done.get_materialize_result()


@dg.asset
def killed() -> None:
    """Spend, and be killed, unless it is the second time."""
    spend(2)
    if not os.environ.get("SPARE"):
        os.kill(os.getpid(), signal.SIGKILL)


@dg.asset(partitions_def=LETTERS, backfill_policy=dg.BackfillPolicy.single_run())
def ranged() -> None:
    """One statement for a range of partitions."""
    spend()


@dg.asset(partitions_def=BOTH)
def crossed() -> None:
    """One statement for a partition in two dimensions."""
    spend()


@dg.op
def scoped() -> None:
    """Say for which asset it is, and for one that nobody knows."""
    with costinsights.attribute(asset="mart/plain"):
        spend()
    with costinsights.attribute(asset="nowhere"):
        spend()
    spend()


@dg.job
def plainly() -> None:
    """A job without assets."""
    scoped()


ASSETS = [
    plain,
    several,
    graphed,
    dynamic,
    flaky,
    failing,
    child,
    piped,
    killed,
    ranged,
    crossed,
]
WHOLE = ["mart/plain", "left", "right", "graphed", "dynamic", "flaky", "child", "piped"]
chosen = dg.AssetSelection.assets(*WHOLE) | dg.AssetSelection.checks(is_fine)
few = dg.AssetSelection.assets("mart/plain", "left", "right", "flaky", "child")
failures = dg.AssetSelection.assets("failing", "left", "right")
deaths = dg.AssetSelection.assets("killed", "mart/plain")
here = dg.in_process_executor
defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=[is_fine],
    jobs=[
        dg.define_asset_job("in_process", chosen, executor_def=here),
        dg.define_asset_job("multiprocess", few),
        dg.define_asset_job("fails", failures, executor_def=here),
        dg.define_asset_job("dies", deaths),
        dg.define_asset_job("range", dg.AssetSelection.assets("ranged"), executor_def=here),
        dg.define_asset_job("cross", dg.AssetSelection.assets("crossed"), executor_def=here),
        plainly,
    ],
)


def in_process() -> dg.JobDefinition:
    return defs.resolve_job_def("in_process")


def multiprocess() -> dg.JobDefinition:
    return defs.resolve_job_def("multiprocess")


def fails() -> dg.JobDefinition:
    return defs.resolve_job_def("fails")


def dies() -> dg.JobDefinition:
    return defs.resolve_job_def("dies")


def range_() -> dg.JobDefinition:
    return defs.resolve_job_def("range")


def cross() -> dg.JobDefinition:
    return defs.resolve_job_def("cross")


def ops() -> dg.JobDefinition:
    return defs.resolve_job_def("plainly")


SCENARIOS: dict[str, tuple[Callable[[], dg.JobDefinition], dict[str, str]]] = {
    "in_process": (in_process, {}),
    "multiprocess": (multiprocess, {}),
    "fails": (fails, {}),
    "dies": (dies, {}),
    "range": (
        range_,
        {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"},
    ),
    "cross": (cross, {"dagster/partition": "b|2"}),
    "ops": (ops, {}),
}


def run(name: str, instance: dg.DagsterInstance, again: str = "") -> None:
    """Run a job; print its run's id."""
    make, tags = SCENARIOS[name]
    options = None
    if again:
        options = dg.ReexecutionOptions.from_failure(again, instance)
    done = dg.execute_job(
        dg.reconstructable(make),
        instance,
        tags=tags,
        raise_on_error=False,
        reexecution_options=options,
    )
    print(json.dumps({"job": name, "run": done.run_id, "success": done.success}))


def told(instance: dg.DagsterInstance) -> Iterator[dict[str, object]]:
    """Yield what each event tells."""
    for key in instance.get_asset_keys():
        for kind, records in (
            ("made", instance.fetch_materializations(key, 1000).records),
            ("seen", instance.fetch_observations(key, 1000).records),
        ):
            for record in records:
                entry = record.event_log_entry
                event = entry.asset_materialization or entry.asset_observation
                if event is not None:
                    yield {
                        "kind": kind,
                        "asset": key.to_user_string(),
                        "partition": event.partition,
                        "metadata": {
                            name: shown(value.value)
                            for name, value in event.metadata.items()
                            if name.startswith("costinsights/")
                        },
                    }


def shown(value: object) -> object:
    """What can be written as JSON; of a table, its length."""
    if isinstance(value, dg.TableMetadataValue):
        return len(value.records)
    return value if isinstance(value, (str, int, float)) else str(value)


def main(words: list[str]) -> None:
    """Do what is asked for."""
    with dg.DagsterInstance.get() as instance:
        for word in words:
            name, _, argument = word.partition(":")
            if name == "told":
                print(json.dumps(list(told(instance))))
            else:
                run(name, instance, argument)


if __name__ == "__main__":
    main(sys.argv[1:])
