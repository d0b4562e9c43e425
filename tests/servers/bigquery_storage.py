"""BigQuery's Storage Read API over gRPC, for the results of the jobs of `bigquery_server`.

One stream a session, in Arrow. What a real one bills for the bytes that are read is not told to the
client, and so is not here.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.servers.bigquery_server import BigQueryServer

pa: Any = import_module("pyarrow")
grpc: Any = import_module("grpc")
types: Any = import_module("google.cloud.bigquery_storage_v1.types")
transports: Any = import_module(
    "google.cloud.bigquery_storage_v1.services.big_query_read.transports"
)
storage: Any = import_module("google.cloud.bigquery_storage")

SERVICE = "google.cloud.bigquery.storage.v1.BigQueryRead"
NAMES = {"BIGINT": pa.int64(), "INTEGER": pa.int64(), "VARCHAR": pa.string()}


class Storage:
    """The service: what was asked of it, and the rows of a job's result."""

    def __init__(self, bigquery: BigQueryServer) -> None:
        self.bigquery = bigquery
        self.asked: list[str] = []

    def create(self, request: Any, _: object) -> Any:
        """Answer CreateReadSession."""
        self.asked.append("CreateReadSession")
        wanted = request.read_session
        schema = self._table(wanted.table).schema
        return types.ReadSession(
            name=f"{request.parent}/locations/us/sessions/1",
            data_format=wanted.data_format,
            table=wanted.table,
            arrow_schema={"serialized_schema": schema.serialize().to_pybytes()},
            streams=[{"name": f"{wanted.table}/streams/1"}],
        )

    def read(self, request: Any, _: object) -> Iterator[Any]:
        """Answer ReadRows."""
        self.asked.append("ReadRows")
        table = self._table(request.read_stream.partition("/streams/")[0])
        for batch in table.to_batches():
            yield types.ReadRowsResponse(
                arrow_schema={"serialized_schema": table.schema.serialize().to_pybytes()},
                arrow_record_batch={"serialized_record_batch": batch.serialize().to_pybytes()},
                row_count=batch.num_rows,
            )

    def _table(self, name: str) -> Any:
        project, id_ = name.split("/")[1], name.rpartition("/anon")[2]
        job = self.bigquery.jobs[project, id_]
        return pa.table(
            {
                column: pa.array([row[at] for row in job.rows], NAMES[kind])
                for at, (column, kind) in enumerate(job.columns)
            }
        )


@contextmanager
def storage_server(bigquery: BigQueryServer) -> Generator[tuple[Storage, Any]]:
    """Run the service, and yield it with an unmodified client."""
    found = Storage(bigquery)
    server = grpc.server(ThreadPoolExecutor(2))
    unary = grpc.unary_unary_rpc_method_handler(
        found.create, types.CreateReadSessionRequest.deserialize, types.ReadSession.serialize
    )
    stream = grpc.unary_stream_rpc_method_handler(
        found.read, types.ReadRowsRequest.deserialize, types.ReadRowsResponse.serialize
    )
    methods = {"CreateReadSession": unary, "ReadRows": stream}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    try:
        transport = transports.BigQueryReadGrpcTransport(channel=channel)
        yield found, storage.BigQueryReadClient(transport=transport)
    finally:
        channel.close()
        server.stop(None).wait()
