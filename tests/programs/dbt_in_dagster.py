"""The shop of tests/servers/dbt_shop in Dagster, by dagster-dbt: as assets, and in an op.

``dbt_in_dagster.py assets|op|bare`` runs it, with the instance of ``DAGSTER_HOME``, and prints how it
ended and what Dagster's event log tells of costs, as JSON.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WAY = sys.argv[1]

import dagster as dg  # noqa: E402  all three: after the arguments, for an error to be seen soon
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets  # noqa: E402

from costinsights.dagster import CostInsightsResource, with_costs  # noqa: E402

PROJECT = DbtProject(Path.cwd())
MANIFEST = PROJECT.manifest_path


def streamed(invocation: Any) -> Any:
    """Return dbt's events, whose type checkers know in part only."""
    return invocation.stream()


@dbt_assets(manifest=MANIFEST)
def shop(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[object]:
    """Each model is an asset, and each test a check of one."""
    stream = streamed(dbt.cli(["build"], context=context))
    if WAY != "bare":
        stream = with_costs(stream)
    yield from stream.fetch_row_counts()


@dg.op(out={})
def build(context: dg.OpExecutionContext, dbt: DbtCliResource) -> Iterator[object]:
    """The same, in an op: dbt's events are materialisations and no outputs."""
    invocation = dbt.cli(["build"], manifest=MANIFEST, raise_on_error=False)
    yield from with_costs(streamed(invocation))


@dg.job
def nightly() -> None:
    """One op."""
    build()


RESOURCES: dict[str, object] = {"dbt": DbtCliResource(project_dir=PROJECT)}
if WAY != "bare":
    RESOURCES["costinsights"] = CostInsightsResource()
DEFINITIONS = dg.Definitions(assets=[shop], jobs=[nightly], resources=RESOURCES)


def main() -> None:
    """Run it."""
    with dg.DagsterInstance.get() as instance:
        if WAY == "op":
            job = DEFINITIONS.get_job_def("nightly")
        else:
            job = DEFINITIONS.resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(instance=instance, raise_on_error=False)
        failures = [
            event.step_failure_data.error.cls_name
            for event in done.all_events
            if event.is_step_failure and event.step_failure_data.error is not None
        ]
        print(
            json.dumps(
                {
                    "run": done.run_id,
                    "success": done.success,
                    "failures": failures,
                    "events": sorted(
                        f"{event.event_type_value} {event.asset_key}"
                        for event in done.all_events
                        if event.asset_key is not None and not event.is_asset_observation
                    ),
                }
            )
        )


if __name__ == "__main__":
    os.environ.setdefault("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
    main()
