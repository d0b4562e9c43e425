"""azure-synapse-artifacts: pipeline runs of Azure Synapse, from their start to their price.

Measured: each ``pipeline.create_pipeline_run`` of an ``ArtifactsClient`` or of its ``aio`` twin, as
with the instrumentor ``azure_datafactory``: a pending charge at the start, with the run's id, the
pipeline and the workspace, completed when the program has seen the run's end
(``pipeline_run.get_pipeline_run``, ``query_pipeline_runs_by_workspace``) and then asks for all of its
activity runs (``query_activity_runs``, every page), or in the background, or by ``costinsights settle
azure.data_factory``. The system is Data Factory's, whose service it is; the resource's service is
``azure.synapse``, and so are the prices. The region of the workspace is to be said, ``[[resource]]``
with ``database``; settlement asks the workspace.

Not seen: runs of triggers (settlement finds them, ``--all``), what notebooks and Spark jobs use of a
pool and statements of SQL pools (they have charges of their own), debug sessions of data flows. In
the background: runs of ``aio`` clients, whose credentials belong to the program's loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.instrumentor import address_of
from costinsights.jobs import place
from costinsights.systems.azure_data_factory import SYNAPSE, SYSTEM
from costinsights_instrumentors._azure_pipelines import (
    Given,
    PipelineInstrumentor,
    endpoint,
    hooks_of,
    operations_of,
)

if TYPE_CHECKING:
    from costinsights.jobs import Place

HERE = "azure.synapse.artifacts"
ARGUMENTS = {
    "PipelineOperations.create_pipeline_run": ("pipeline_name",),
    "PipelineRunOperations.get_pipeline_run": ("run_id",),
    "PipelineRunOperations.query_pipeline_runs_by_workspace": ("filter_parameters",),
    "PipelineRunOperations.query_activity_runs": ("pipeline_name", "run_id", "filter_parameters"),
}


def where(client: Any, given: Given) -> Place:
    """Give the workspace, by the name that its host begins with."""
    address, port = address_of(endpoint(client))
    return place(
        SYSTEM,
        address=address,
        port=port,
        namespace=(address or "").partition(".dev.azuresynapse.")[0] or None,
        service=SYNAPSE,
        dimensions=(("service", SYNAPSE),),
    )


class AzureSynapseInstrumentor(PipelineInstrumentor):
    name = "azure_synapse"
    driver = HERE
    supports = ("0.13", "1")
    hooks = hooks_of(HERE, ARGUMENTS)
    arguments = ARGUMENTS
    operations = operations_of(where, *ARGUMENTS)
    verified = "emulator: own server"
