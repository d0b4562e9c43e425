"""The Redshift Data API over moto: what moto leaves at zero, and what it does not know.

A test says how a statement ends; moto keeps it until then. `BatchExecuteStatement` is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from tests.servers.aws_server import AWSServer

SERVICE = "redshift-data"


class RedshiftData:
    """Seeds the figures of statements by their text; what is not seeded has no figures yet."""

    def __init__(self, aws: AWSServer) -> None:
        self.ends: dict[str, dict[str, Any]] = {}
        self._batches: dict[str, list[str]] = {}
        self._aws = aws
        aws.edit(SERVICE, "DescribeStatement", self._described)
        aws.answer(SERVICE, "BatchExecuteStatement", self._started)

    def ends_with(self, text: str, **figures: Any) -> None:
        """Have the statement of that text end: `Status`, `Duration`, `ResultRows` …"""
        self.ends[text] = {"Status": "FINISHED", "ResultRows": -1, "ResultSize": -1, **figures}

    def _described(self, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        answer.pop("SubStatements", None)
        return {**answer, **self.ends.get(answer["QueryString"], {})}

    def _started(self, request: dict[str, Any]) -> dict[str, Any]:
        id_ = str(uuid4())
        self._batches[id_] = request["Sqls"]
        self._aws.answer(SERVICE, "DescribeStatement", self._batch)
        return {"Id": id_, "WorkgroupName": request.get("WorkgroupName")}

    def _batch(self, request: dict[str, Any]) -> dict[str, Any]:
        parts = [
            {"Id": f"{request['Id']}:{number}", "QueryString": text, **self.ends.get(text, {})}
            for number, text in enumerate(self._batches[request["Id"]], 1)
        ]
        done = all("Status" in part for part in parts)
        status = "FINISHED" if done else "STARTED"
        return {"Id": request["Id"], "Status": status, "SubStatements": parts}
