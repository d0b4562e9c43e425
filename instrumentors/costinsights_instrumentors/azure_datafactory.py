"""azure-mgmt-datafactory: pipeline runs of Azure Data Factory, from their start to their price.

Measured: each ``pipelines.create_run``, also one that runs an earlier run again, with the client or
with its ``aio`` twin. The charge is written when the run has been started: its id, the pipeline, the
factory with its subscription and resource group. It is completed with what its activity runs were
billed for (``billingReference``, by meter and integration runtime), when the program itself has seen
the run's end (``pipeline_runs.get``, ``query_by_factory``) and then asks for all of its activity runs
(``activity_runs.query_by_pipeline_run``, every page). Nothing is asked of Azure in the program's
calls that it does not ask, and requests and answers stay as they are.

- A run that the program does not ask about is asked for in the background, on a client of our own
  with the same credential, or settled by ``costinsights settle azure.data_factory``.
- Pipelines that a run starts (Execute Pipeline) are a part of its charge. The program's own answers
  do not have them all, so such a run is left to the background and to settlement.
- Failed and cancelled runs, retries and each turn of a loop cost what they cost.
- No answer here says where the factory is, and prices depend on it: say so once, ``[[resource]]``
  with ``database = "*/factory"`` and ``region``; settlement asks the factory.

Not seen: runs of triggers (settlement finds them, ``--all``), SSIS runtimes, debug sessions of data
flows, inactive pipelines, reading and writing of artefacts, and what other services bill for the
work. In the background: runs of ``aio`` clients, whose credentials belong to the program's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import address_of
from costinsights.jobs import place
from costinsights.systems.azure_data_factory import SYSTEM
from costinsights_instrumentors._azure_pipelines import (
    Given,
    PipelineInstrumentor,
    endpoint,
    hooks_of,
    operations_of,
)

if TYPE_CHECKING:
    from costinsights.jobs import Place

HERE = "azure.mgmt.datafactory"
# The names of the arguments that may be given by position, in all majors.
ARGUMENTS = {
    "PipelinesOperations.create_run": ("resource_group_name", "factory_name", "pipeline_name"),
    "PipelineRunsOperations.get": ("resource_group_name", "factory_name", "run_id"),
    "PipelineRunsOperations.query_by_factory": ("resource_group_name", "factory_name"),
    "ActivityRunsOperations.query_by_pipeline_run": (
        "resource_group_name",
        "factory_name",
        "run_id",
        "filter_parameters",
    ),
}


def where(client: Any, given: Given) -> Place:
    """Give the factory, in words by which it can be found again."""
    address, port = address_of(endpoint(client))
    group, factory = map(given.arguments.get, ("resource_group_name", "factory_name"))
    found = f"{client._config.subscription_id}/{group}/{factory}"
    return place(SYSTEM, address=address, port=port, namespace=found)


class AzureDataFactoryInstrumentor(PipelineInstrumentor):
    name = "azure_datafactory"
    driver = HERE
    supports = ("1.0", "11")
    hooks = hooks_of(HERE, ARGUMENTS)
    arguments = ARGUMENTS
    operations = operations_of(where, *ARGUMENTS)
    verified = "emulator: own ARM server"
