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

from costinsights.instrumentor import Hook, address_of
from costinsights.jobs import Asked, JobInstrumentor, place
from costinsights.systems.azure_data_factory import METERS, SYNAPSE, SYSTEM
from costinsights_instrumentors._azure_pipelines import Given, Seen, endpoint, operations

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


OPERATIONS = operations(where, *ARGUMENTS)


class AzureSynapseInstrumentor(JobInstrumentor):
    name = "azure_synapse"
    system = SYSTEM
    driver = HERE
    supports = ("0.13", "1")
    hooks = (
        *(Hook(f"{HERE}.operations:{name}", leaf=True) for name in ARGUMENTS),
        *(Hook(f"{HERE}.aio.operations:{name}", "async") for name in ARGUMENTS),
    )
    meters = METERS
    basis = "metered"
    verified = "emulator: own server"

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
        arguments = {**dict(zip(ARGUMENTS[name], args[1:], strict=False)), **kwargs}
        key = f"aio {name}" if hook.kind == "async" else name
        return Asked(OPERATIONS[key], args[0], Given(arguments, self._seen))
