"""Athena's figures over moto: a test says of a statement what it scans and how it ends.

moto ends each query at once, with all of its figures at zero, and knows neither
`BatchGetQueryExecution` nor pages nor idempotent starts. The overlay therefore keeps the executions
itself: a query takes as many questions as the test wants until it has ended, with the figures of the
test, and its rows come by `GetQueryResults` as well as in the CSV file, in moto's S3, that some of
PyAthena's cursors read.
"""

from __future__ import annotations

import csv
import io
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.servers.aws_server import ACCOUNT, REGION, Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.servers.aws_server import AWSServer

    Answer = dict[str, Any]

BUCKET = "results"
LARGEST_BATCH = 50
PAGE = 50


@dataclass
class Figures:
    """What one statement is to use, and how it is to end."""

    scanned: int | None = 0
    state: str = "SUCCEEDED"
    engine_ms: int = 900
    queue_ms: int = 40
    planning_ms: int = 120
    dpus: float | None = None
    reused: bool = False
    kind: str | None = None
    substatement: str | None = None
    questions: int = 1
    """How many answers say that it is still running, before the one that says it has ended."""
    columns: Sequence[tuple[str, str]] = (("n", "integer"),)
    rows: Sequence[Sequence[object]] = ((1,),)
    answered: int = field(default=0)

    def statistics(self) -> Answer:
        """Return `QueryExecutionStatistics`."""
        found: Answer = {
            "EngineExecutionTimeInMillis": self.engine_ms,
            "TotalExecutionTimeInMillis": self.engine_ms + self.queue_ms + 10,
            "QueryQueueTimeInMillis": self.queue_ms,
            "QueryPlanningTimeInMillis": self.planning_ms,
            "ServiceProcessingTimeInMillis": 10,
            "ResultReuseInformation": {"ReusedPreviousResult": self.reused},
        }
        if self.scanned is not None:
            found["DataScannedInBytes"] = self.scanned
        if self.dpus is not None:
            found["DpuCount"] = self.dpus
        return found


class Athena:
    """Athena on an `AWSServer`."""

    def __init__(self, aws: AWSServer) -> None:
        self.aws = aws
        self._seeds: list[tuple[str, dict[str, Any]]] = []
        self._executions: dict[str, tuple[Answer, Figures, float]] = {}
        self._tokens: dict[str, str] = {}
        self._lock = threading.Lock()
        for operation in (
            "StartQueryExecution",
            "GetQueryExecution",
            "BatchGetQueryExecution",
            "ListQueryExecutions",
            "StopQueryExecution",
            "GetQueryResults",
        ):
            aws.answer("athena", operation, getattr(self, f"_{operation}"))
        self.workgroups = ["primary"]
        aws.client("s3").create_bucket(Bucket=BUCKET)
        aws.requests.clear()

    @property
    def staging(self) -> str:
        """Where results go."""
        return f"s3://{BUCKET}/out/"

    def seed(self, words: str, **figures: Any) -> None:
        """Say what each statement that has `words` in it will use; the last that fits counts."""
        self._seeds.append((words, figures))

    def run(self, text: str, *, workgroup: str = "primary", ago: float = 0) -> str:
        """Have a query run that no program of ours has started; return its id."""
        started = self._StartQueryExecution({"QueryString": text, "WorkGroup": workgroup})
        id_: str = started["QueryExecutionId"]
        execution, figures, begun = self._executions[id_]
        figures.answered = figures.questions
        self._executions[id_] = execution, figures, begun - ago
        return id_

    def remember(self, ids: Sequence[str], *, ago: float = 3600, **figures: Any) -> None:
        """Know queries that have ended a while ago, very many at once: without their results."""
        begun = time.time() - ago
        for id_ in ids:
            request = {"QueryString": "SELECT 1", "WorkGroup": "primary"}
            self._executions[id_] = request, Figures(questions=0, **figures), begun

    # -- operations, named as they are ----------------------------------------------------------

    def _StartQueryExecution(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        with self._lock:
            token = request.get("ClientRequestToken") or uuid4().hex
            if token not in self._tokens:
                text: str = request["QueryString"]
                if "syntax error" in text:
                    return Refusal("InvalidRequestException", "line 1:1: mismatched input")
                figures = Figures()
                for words, seeded in self._seeds:
                    if words in text:
                        figures = Figures(**seeded)
                id_ = self._tokens[token] = str(uuid4())
                self._executions[id_] = request, figures, time.time()
                self._store(id_, figures)
            return {"QueryExecutionId": self._tokens[token]}

    def _GetQueryExecution(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        id_ = request["QueryExecutionId"]
        if id_ not in self._executions:
            return Refusal("InvalidRequestException", f"QueryExecution {id_} was not found")
        return {"QueryExecution": self._execution(id_)}

    def _BatchGetQueryExecution(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        ids = request["QueryExecutionIds"]
        if len(ids) > LARGEST_BATCH:
            return Refusal("InvalidRequestException", "at most 50 ids")
        missing = {"ErrorCode": "INVALID_INPUT", "ErrorMessage": "not found"}
        return {
            "QueryExecutions": [self._execution(id_) for id_ in ids if id_ in self._executions],
            "UnprocessedQueryExecutionIds": [
                {"QueryExecutionId": id_, **missing} for id_ in ids if id_ not in self._executions
            ],
        }

    def _ListQueryExecutions(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        group = request.get("WorkGroup", "primary")
        found = [
            id_
            for id_, (started, _, _) in reversed(self._executions.items())
            if started.get("WorkGroup", "primary") == group
        ]
        start = int(request.get("NextToken") or 0)
        end = start + min(request.get("MaxResults", PAGE), PAGE)
        more = {"NextToken": str(end)} if end < len(found) else {}
        return {"QueryExecutionIds": found[start:end], **more}

    def _StopQueryExecution(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        figures = self._executions[request["QueryExecutionId"]][1]
        figures.state, figures.questions = "CANCELLED", 0
        return {}

    def _GetQueryResults(self, request: Answer) -> Any:  # noqa: N802  the operation's name
        figures = self._executions[request["QueryExecutionId"]][1]
        header = [[name for name, _ in figures.columns]]
        rows = [*header, *figures.rows]
        start = int(request.get("NextToken") or 0)
        end = start + min(request.get("MaxResults", 1000), 1000)
        more = {"NextToken": str(end)} if end < len(rows) else {}
        described = [
            {
                "CatalogName": "hive",
                "SchemaName": "",
                "TableName": "",
                "Name": name,
                "Label": name,
                "Type": kind,
                "Precision": 10,
                "Scale": 0,
                "Nullable": "UNKNOWN",
                "CaseSensitive": False,
            }
            for name, kind in figures.columns
        ]
        return {
            "UpdateCount": 0,
            "ResultSet": {
                "Rows": [
                    {"Data": [{"VarCharValue": str(value)} for value in row]}
                    for row in rows[start:end]
                ],
                "ResultSetMetadata": {"ColumnInfo": described},
            },
            **more,
        }

    # -- one execution --------------------------------------------------------------------------

    def _execution(self, id_: str) -> Answer:
        request, figures, begun = self._executions[id_]
        with self._lock:
            running = figures.answered < figures.questions
            figures.answered += 1
        text: str = request["QueryString"]
        status: Answer = {"State": "RUNNING" if running else figures.state}
        status["SubmissionDateTime"] = begun
        if not running:
            status["CompletionDateTime"] = (
                begun + figures.statistics()["TotalExecutionTimeInMillis"] / 1000
            )
            if figures.state == "FAILED":
                status["StateChangeReason"] = "GENERIC_USER_ERROR: secret 'reason'"
                status["AthenaError"] = {"ErrorCategory": 2, "ErrorType": 1301, "Retryable": False}
        ddl = text.lstrip().upper().startswith(("CREATE", "DROP", "ALTER", "MSCK"))
        found: Answer = {
            "QueryExecutionId": id_,
            "Query": text,
            "StatementType": figures.kind or ("DDL" if ddl else "DML"),
            "ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}/out/{id_}.csv"},
            "QueryExecutionContext": request.get("QueryExecutionContext", {}),
            "Status": status,
            "WorkGroup": request.get("WorkGroup", "primary"),
            "Statistics": {"DataScannedInBytes": 1} if running else figures.statistics(),
        }
        if figures.substatement:
            found["SubstatementType"] = figures.substatement
        return found

    def _store(self, id_: str, figures: Figures) -> None:
        """Put the result where Athena puts it."""
        from moto.backends import get_backend

        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow([name for name, _ in figures.columns])
        writer.writerows(figures.rows)
        get_backend("s3")[ACCOUNT]["aws"].put_object(
            BUCKET, f"out/{id_}.csv", text.getvalue().encode()
        )


__all__ = ["BUCKET", "REGION", "Athena", "Figures"]
