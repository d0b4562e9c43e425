"""Event logs made quickly, line by line as Spark 4.3 writes them: for what real ones cannot show.

A log of a size that a real application takes hours for, one that is torn, one with what no Spark
writes. Their shapes are held against real logs by `test_spark.py`, which reads those.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION = "app-20261123040000-0007"
START = 1_795_400_000_000
SQL = "org.apache.spark.sql.execution.ui.SparkListenerSQLExecution"
RUN_MS = 20


def line(event: str, **fields: Any) -> str:
    named = {name.replace("_", " "): value for name, value in fields.items()}
    return json.dumps({"Event": event, **named}, separators=(",", ":"))


def beginning(cores: int = 8) -> Iterator[str]:
    yield line("SparkListenerLogStart", Spark_Version="4.3.0")
    conf = {"spark.master": "spark://master.example:7077", "spark.app.name": "synthetic"}
    yield line(
        "SparkListenerExecutorAdded",
        Timestamp=START,
        **{"Executor ID": "1", "Executor Info": {"Host": "10.0.0.1", "Total Cores": cores}},
    )
    yield line("SparkListenerEnvironmentUpdate", Spark_Properties=conf)
    yield line(
        "SparkListenerApplicationStart",
        Timestamp=START,
        User="spark",
        **{"App Name": "synthetic", "App ID": APPLICATION},
    )


def task(stage: int, index: int, at: int, *, run: Any = RUN_MS, plan: str = "") -> Iterator[str]:
    info = {
        "Task ID": index,
        "Index": index,
        "Attempt": 0,
        "Launch Time": at,
        "Executor ID": "1",
        "Host": "10.0.0.1",
        "Locality": "PROCESS_LOCAL",
        "Finish Time": at + RUN_MS,
        "Failed": False,
        "Killed": False,
        # A real one has two KB of these.
        "Accumulables": [
            {"ID": number, "Name": f"internal.metrics.{number}", "Update": number, "Value": number}
            for number in range(20)
        ],
    }
    yield line(
        "SparkListenerTaskStart", **{"Stage ID": stage, "Stage Attempt ID": 0, "Task Info": info}
    )
    yield line(
        "SparkListenerTaskEnd",
        **{
            "Stage ID": stage,
            "Stage Attempt ID": 0,
            "Task Type": "ResultTask",
            "Task End Reason": {"Reason": "Success"},
            "Task Info": info,
            "Task Metrics": {
                "Executor Run Time": run,
                "Executor CPU Time": 15_000_000,
                "Executor Deserialize Time": 1,
                "JVM GC Time": 0,
                "Input Metrics": {"Bytes Read": 1000, "Records Read": 10},
                "Shuffle Read Metrics": {"Remote Bytes Read": 20, "Local Bytes Read": 3},
            },
        },
    )


def execution(number: int, tasks: int, *, run: Any = RUN_MS, ends: bool = True) -> Iterator[str]:
    """One SQL execution with one job of one stage."""
    at = START + number * 1000
    yield line(f"{SQL}Start", executionId=number, time=at, description="x" * 2000)
    scope = {"asset": f"table_{number % 10}"}
    yield line(
        "SparkListenerJobStart",
        **{"Job ID": number, "Submission Time": at, "Stage IDs": [number]},
        Properties={
            "spark.sql.execution.id": str(number),
            "spark.costinsights.scope": json.dumps(scope),
        },
    )
    for index in range(tasks):
        yield from task(number, index, at, run=run if not index else RUN_MS)
    if ends:
        result = {"Result": "JobSucceeded"}
        yield line(
            "SparkListenerJobEnd",
            **{"Job ID": number, "Completion Time": at + 900, "Job Result": result},
        )
        yield line(f"{SQL}End", executionId=number, time=at + 900, errorMessage="")


def ending(executions: int) -> Iterator[str]:
    yield line("SparkListenerApplicationEnd", Timestamp=START + executions * 1000 + 1000)


def whole(executions: int, tasks: int) -> Iterator[str]:
    yield from beginning()
    for number in range(executions):
        yield from execution(number, tasks)
    yield from ending(executions)


def written(path: Path, lines: Iterator[str]) -> Path:
    with path.open("w", encoding="utf-8") as log:
        for one in lines:
            log.write(one + "\n")
    return path


def large(path: Path, size: int) -> int:
    """Write a log of `size` bytes at least, from one execution repeated; return how many tasks."""
    tasks = written_tasks = number = 0
    with path.open("w", encoding="utf-8") as log:
        log.writelines(f"{one}\n" for one in beginning())
        while log.tell() < size:
            written_tasks = 2000
            log.write("\n".join(execution(number, written_tasks)) + "\n")
            tasks += written_tasks
            number += 1
        log.writelines(f"{one}\n" for one in ending(number))
    return tasks
