"""Runs many partitioned assets in this process: ``dagster_steps.py bare|off|on ASSETS RANGE``.

Prints the seconds that the run's thread took, by its CPU and by the clock. ``off`` is costinsights
without an exporter, ``on`` with ``dagster``. RANGE is how many partitions a step makes.
"""
# Dagster's decorators leave much untyped.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownParameterType=false

import json
import logging
import sqlite3
import sys
import time

MODE, ASSETS, RANGE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
PARTITIONS = 100

if MODE != "bare":
    import costinsights

    costinsights.instrument("sqlite3", exporters=["dagster"] if MODE == "on" else [])

import dagster as dg  # noqa: E402  what is switched on first sees all

days = dg.StaticPartitionsDefinition([f"p{number:03d}" for number in range(PARTITIONS)])
connection = sqlite3.connect(":memory:")


def asset(number: int) -> dg.AssetsDefinition:
    """One statement."""

    @dg.asset(
        name=f"asset_{number}",
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def made() -> dg.MaterializeResult:  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument]
        connection.execute("SELECT 1").fetchall()
        return dg.MaterializeResult()

    return made


def main() -> None:
    """Run them all, once."""
    logging.disable(logging.INFO)
    defs = dg.Definitions(
        assets=[asset(number) for number in range(ASSETS)],
        jobs=[dg.define_asset_job("all", executor_def=dg.in_process_executor)],
    )
    job = defs.get_job_def("all")
    tags = {
        "dagster/asset_partition_range_start": "p000",
        "dagster/asset_partition_range_end": f"p{RANGE - 1:03d}",
    }
    with dg.DagsterInstance.get() as instance:
        cpu, wall = time.thread_time(), time.perf_counter()
        if RANGE == 1:
            done = job.execute_in_process(instance=instance, partition_key="p042")
        else:
            done = job.execute_in_process(instance=instance, tags=tags)
        taken = {"cpu": time.thread_time() - cpu, "wall": time.perf_counter() - wall}
        steps = sum(event.is_step_success for event in done.all_events)
    assert done.success
    assert steps == ASSETS
    print(json.dumps(taken))


main()
