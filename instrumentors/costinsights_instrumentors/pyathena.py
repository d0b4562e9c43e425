"""PyAthena: the queries of all its cursors, whichever way they read their rows.

Measured: one charge a query, written when Athena has given it its execution id and completed by
PyAthena's own question that finds it ended: bytes scanned, engine, planning, queue and total time,
DPUs, whether an earlier result was used, failure and cancellation; workgroup and region. Of
``Cursor``, ``DictCursor``, those for pandas, Arrow, Polars and S3, with ``UNLOAD`` too, their
``Async`` and ``Aio`` twins, and SQLAlchemy, pandas and dbt above them. An ``executemany`` is a
query for each set of parameters, as it is to Athena. With the instrumentor ``botocore``, below,
switched on as well it is the same one charge.

- A result that PyAthena finds itself (``cache_size``) is no query, and no charge.
- Where nobody waits for a query, or the program ends first, its charge stays pending until
  ``costinsights settle aws.athena``.
- Prices, free queries and reserved workgroups: as with the instrumentor ``botocore``, which also sees
  the queries of PyAthena before 4.2, by itself.

Not seen: rows (Athena's answer has no total), ``SparkCursor`` (calculations, paid for by the DPU),
and what S3, the Glue catalog and Lambda connectors bill for the query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.jobs import Asked, Hook, JobInstrumentor, Operation, Run, Start, State
from costinsights_instrumentors import _botocore_athena as athena

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from costinsights.patching import Kind

# Where PyAthena keeps what Athena calls so.
STATISTICS = {
    "DataScannedInBytes": "data_scanned_in_bytes",
    "EngineExecutionTimeInMillis": "engine_execution_time_in_millis",
    "QueryPlanningTimeInMillis": "query_planning_time_in_millis",
    "QueryQueueTimeInMillis": "query_queue_time_in_millis",
    "ServicePreProcessingTimeInMillis": "service_pre_processing_time_in_millis",
    "ServiceProcessingTimeInMillis": "service_processing_time_in_millis",
    "TotalExecutionTimeInMillis": "total_execution_time_in_millis",
    "DpuCount": "dpu_count",
}


def execution(found: Any) -> Mapping[str, Any]:
    """Return Athena's `QueryExecution` of what PyAthena has made of it."""
    statistics = {theirs: getattr(found, name, None) for theirs, name in STATISTICS.items()}
    reuse = {"ReusedPreviousResult": getattr(found, "reused_previous_result", None)}
    return {
        "QueryExecutionId": found.query_id,
        "Query": found.query,
        "StatementType": found.statement_type,
        "SubstatementType": getattr(found, "substatement_type", None),
        "Status": {"State": found.state},
        "Statistics": {**statistics, "ResultReuseInformation": reuse},
    }


def _started(_: object, answer: str) -> Iterator[Run]:
    yield Run(answer)


def _one(_: object, answer: Any) -> Iterator[State]:
    yield athena.state(execution(answer))


def _many(_: object, answer: Any) -> Iterator[State]:
    yield from (athena.state(execution(found)) for found in answer)


OPERATIONS = {
    "_start_query_execution": Operation(
        athena.SYSTEM, Start(athena.place_of, _started, athena.text, athena.rewritten)
    ),
    "_get_query_execution": Operation(athena.SYSTEM, states=_one),
    "_batch_get_query_execution": Operation(athena.SYSTEM, states=_many),
}


def hooks(owner: str, kind: Kind) -> tuple[Hook, ...]:
    """Return the hooks of a base of cursors: each of its requests has one method there."""
    return tuple(Hook(f"{owner}.{name}", kind) for name in OPERATIONS)


class PyAthenaInstrumentor(JobInstrumentor):
    name = "pyathena"
    system = athena.SYSTEM
    driver = "pyathena"
    supports = ("4.2", "5")
    hooks = (
        *hooks("pyathena.common:BaseCursor", "call"),
        *hooks("pyathena.aio.common:AioBaseCursor", "async"),
    )
    meters = athena.METERS
    basis = "metered"
    verified = "emulator: moto 5"

    def operation(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        """Tell by the method; the request is that of Athena's own API."""
        cursor, request = args[0], args[1] if len(args) > 1 else None
        name = hook.target.rpartition(".")[2]
        return Asked(OPERATIONS[name], cursor.connection.client, request)
