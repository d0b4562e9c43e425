"""botocore, below boto3 and the AWS command line: queries that run at AWS while the program goes on.

Measured: Amazon Athena (``StartQueryExecution``). The charge is written when the query has been
started: its execution id, time in the client, workgroup and region. It is completed by the first
answer of the program's own ``GetQueryExecution`` or ``BatchGetQueryExecution`` that tells of the
end: bytes scanned, engine, planning, queue and total time, DPUs, whether an earlier result was
used, failure and cancellation. No request of the program's is added or changed, requests and
answers stay as they are, and ``ClientRequestToken`` is never touched: a start that is repeated with
the same one is the same charge.

- A query that the program does not ask about is asked for in the background, on a client of ours,
  or by ``costinsights settle aws.athena``.
- DDL and failed queries are free, cancelled ones pay for what they scanned; a result that is used
  again scans nothing and costs nothing.
- A workgroup on a capacity reservation is not billed by bytes, and no answer says so: give its
  price as a ``[[capacity]]`` with ``database`` = the workgroup.

Amazon Redshift's Data API (``ExecuteStatement``, and each statement of ``BatchExecuteStatement``):
completed by the program's own ``DescribeStatement`` with rows, bytes of the result, the time at
Redshift, and the query's id in ``SYS_QUERY_HISTORY``; by ``GetStatementResult`` with the rows alone.
Its price is a share of the cluster or workgroup, which stands as ``database`` of a ``[[capacity]]``.
With ``tagging="native"`` a statement without a name is named ``ci,asset=…,job=…``.

AWS Glue: ``StartJobRun``, ``CreateSession`` and ``RunStatement``, ``StartCrawler``,
``StartWorkflowRun``, runs of Data Quality. Completed by the program's own ``GetJobRun(s)``, ``GetSession``,
``GetStatement`` or ``ListCrawls``, or in the background: time, workers or DPUs, ``DPUSeconds``,
crawlers' DPU-hours; what failed costs what it used, statements are in the price of their session.
A workflow run is completed by ``costinsights settle aws.glue``: it is the sum of its jobs and
crawls, each with its own minimum. What triggers and schedules start is found there too. A run of
Glue has no tags of its own, and its arguments would change the job: none are added.

Amazon EMR. On EC2: the cluster (``RunJobFlow``) and each step, of it and of ``AddJobFlowSteps``, with
the time that the program's own ``DescribeStep`` or ``ListSteps`` tells; what a step bears of its
cluster's hours is settlement's. Serverless: ``StartJobRun``, completed by ``GetJobRun`` with what was
billed of vCPUs, memory and storage. On EKS: ``StartJobRun`` with what its pods request, completed by
``DescribeJobRun`` with the time; settlement makes an estimate of it. See docs/systems/emr.md.

Amazon S3, all operations: not a charge a call, but at most one a second for each bucket, class of
requests, storage class, and who they are for: requests as they are billed (retries by their answers),
bytes in and out (a streamed body as it is read), time in the client. ``upload_file``,
``download_file`` and ``copy`` are counted by the requests that they come to, in whatever thread, and
are for who has called them; a paginator is a LIST a page. See docs/storage.md.

Not seen: of S3 presigned URLs, which somebody else sends, transfers of the AWS CRT, and what DuckDB,
Spark, Polars and PyArrow read by their own means. Of Athena rows (``GetQueryResults`` has no total), Athena for Apache Spark, aiobotocore (S3 is: `aiobotocore`), and what
S3, the Glue catalog and Lambda connectors bill for the query. All other services pass untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from costinsights.jobs import Asked, Hook, JobInstrumentor, Watch
from costinsights.storage import (
    Counting,
    Streams,
    after_wrapper,
    counting_wrapper,
    under_wrapper,
)
from costinsights.tasks import Entered, Tasks
from costinsights_instrumentors import _botocore_athena as athena
from costinsights_instrumentors import _botocore_emr as emr
from costinsights_instrumentors import _botocore_emr_containers as emr_containers
from costinsights_instrumentors import _botocore_emr_serverless as emr_serverless
from costinsights_instrumentors import _botocore_glue as glue
from costinsights_instrumentors import _botocore_redshift_data as redshift_data
from costinsights_instrumentors import _botocore_s3 as s3

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from costinsights.jobs import Operation
    from costinsights.patching import Probe
    from costinsights.recorder import Recorder

# By what botocore calls the class of a service's clients; a service has a file of its own.
SERVICES: Mapping[str, Mapping[str, Operation]] = {
    "Athena": athena.OPERATIONS,
    "EMR": emr.OPERATIONS,
    "EMRContainers": emr_containers.OPERATIONS,
    "EMRServerless": emr_serverless.OPERATIONS,
    "Glue": glue.OPERATIONS,
    "RedshiftDataAPIService": redshift_data.OPERATIONS,
}
EMR = (emr, emr_serverless, emr_containers)
# Those with a channel of their own for tags, by the system that they start jobs of.
LABELS = {redshift_data.SYSTEM: redshift_data.with_labels}
NAMES = frozenset(name for operations in SERVICES.values() for name in operations)
STARTS = frozenset(
    name
    for operations in SERVICES.values()
    for name, operation in operations.items()
    if operation.start is not None
)
# S3 has an operation of that name as well.
NOT_S3 = NAMES - {"CreateSession"}
_NOTHING: Mapping[str, Operation] = {}
CALL = Hook("botocore.client:BaseClient._make_api_call", leaf=True)


class BotocoreInstrumentor(JobInstrumentor):
    name = "botocore"
    system = "aws.athena"
    systems = ("aws.athena", *(part.SYSTEM for part in (glue, redshift_data, *EMR, s3)))
    driver = "botocore"
    supports = ("1.29", "2")
    # The class is there before any client, and each client's class inherits from it. No call of it
    # calls another one that is about a job.
    hooks = (CALL, *s3.HOOKS)
    meters = tuple(
        dict.fromkeys(
            meter for part in (athena, glue, redshift_data, *EMR) for meter in part.METERS
        )
    )
    basis = "metered"
    verified = "emulator: moto 5"
    statement_tags = True
    channel = "Redshift Data API: StatementName"

    def __init__(self) -> None:
        super().__init__()
        self.s3 = s3.S3(Streams())
        self.tasks = Tasks()

    def watch(self, recorder: Recorder) -> Watch:
        """Look for operations of S3 before jobs are looked for."""
        return Looking(self, recorder)

    def connected(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Take note of a new task of s3transfer's."""
        self.tasks.made(args[0])

    def shortened(
        self, function: Callable[..., Any], probe: Probe, general: Callable[..., Any]
    ) -> Callable[..., Any]:
        """Return the wrapper of a call, or of what calls of S3 consist of."""
        if probe.hook is s3.TRY:
            return under_wrapper(function, probe, s3.under, s3.tried)
        if probe.hook in s3.READS:
            return after_wrapper(function, probe, self.s3.read)
        if probe.hook is CALL:
            general = counting_wrapper(function, probe, general, NOT_S3)
        return super().shortened(function, probe, general)

    def operation(self, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        """Tell by the operation's name, then by the service; nearly all calls end at the first."""
        if len(args) != 3 or args[1] not in NAMES:
            return None
        client, name, request = args
        found = SERVICES.get(client.__class__.__name__, _NOTHING).get(name)
        return None if found is None else Asked(found, client, request)

    def starts(self, hook: Hook) -> frozenset[str]:
        """A client, the name of an operation, and its request: so all calls are made."""
        return STARTS if hook is CALL else frozenset()

    def with_labels(
        self, asked: Asked, args: tuple[Any, ...], kwargs: dict[str, Any], words: Mapping[str, str]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Ask the service's own file; Athena has no such channel."""
        found = LABELS.get(asked.operation.system)
        return None if found is None else found(args, kwargs, words)


class Looking(Watch):
    """Has what counts operations of S3, and has tasks of s3transfer be for who has asked for them."""

    def __init__(self, instrumentor: BotocoreInstrumentor, recorder: Recorder) -> None:
        super().__init__(instrumentor, recorder)
        found = instrumentor.s3
        self.counting = Counting(
            recorder, instrumentor.name, found.asked, found.counted, s3.under, found.streams
        )
        self._tasks = instrumentor.tasks

    def begin(self, probe: Probe, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look at a call before it is made."""
        if probe.hook is s3.TASK:
            return self._tasks.enter(args[0], self)
        return super().begin(probe, args, kwargs)

    def end(self, call: Any, answer: Any, error: BaseException | None) -> None:
        """Look at what came of it."""
        if isinstance(call, Entered):
            call.leave()
        else:
            super().end(call, answer, error)
