"""Two Spark applications, one after the other, run by `spark_session` in an interpreter of its own.

The first is what a program of a user's is, and at its end the driver's own pages are written down:
what they say is what our figures are held against. The second ends badly: it `leaves` without
stopping Spark, or is `killed`. Arguments: how it ends, and a folder for all that is written.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
import time
import urllib.request
from operator import add
from pathlib import Path
from typing import Any

import costinsights

FOLDER = Path(sys.argv[2])
CODECS = {"leaves": ("lz4", "snappy"), "killed": ("zstd", "lz4")}


def session(number: int) -> Any:
    """Build a session as programs do, with everything that it writes in one folder."""
    from pyspark.sql import SparkSession

    settings = {
        "spark.app.name": "nightly",
        "spark.costinsights.team": "core",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.eventLog.compression.codec": CODECS[sys.argv[1]][number],
        "spark.eventLog.compress": "true",
        "spark.eventLog.dir": (FOLDER / f"events{number}").as_uri(),
        "spark.eventLog.enabled": "true",
        "spark.local.dir": str(FOLDER / "local"),
        "spark.sql.shuffle.partitions": "3",
        "spark.sql.warehouse.dir": str(FOLDER / "warehouse"),
        "spark.ui.port": "0",
        "spark.ui.showConsoleProgress": "false",
    }
    builder: Any = SparkSession.builder
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.master("local[2,2]").getOrCreate()


def everything(spark: Any) -> dict[str, Any]:
    """Run what the issue names: stages, a skewed join, a cache, failures, scopes, threads."""
    sc = spark.sparkContext
    seen: dict[str, Any] = {}
    theirs = their_listener(sc)
    with costinsights.attribute(asset="orders", job="nightly") as scope:
        # Nine tenths of the left side have one key.
        skewed = spark.range(0, 60_000, 1, 4).selectExpr("if(id % 10 < 9, 0, id % 50) k", "id v")
        right = spark.range(0, 50, 1, 2).selectExpr("id k", "id * 2 w")
        joined = skewed.join(right.hint("merge"), "k").groupBy("k").sum("w")
        seen["joined"] = len(joined.collect())
        with costinsights.attribute(asset="totals"):
            kept = skewed.groupBy("k").count().cache()
            seen["cached"] = [kept.count(), kept.count()]
            kept.unpersist()
    with costinsights.attribute(asset="files"):
        spark.range(0, 1000, 1, 2).write.mode("overwrite").parquet(str(FOLDER / "table"))
        seen["read"] = spark.read.parquet(str(FOLDER / "table")).count()
    sc.setJobGroup("reports", "the weekly report")
    seen["retried task"] = sc.parallelize(range(8), 2).mapPartitionsWithIndex(fails_once).count()
    sc.setLocalProperty("spark.jobGroup.id", None)
    sc.setLocalProperty("spark.job.description", None)
    with costinsights.attribute(asset="retried"):
        seen["retried stage"] = retried_stage(sc)
    sc.setLocalProperty("spark.costinsights.asset", "by hand")
    seen["by hand"] = spark.range(5).count()
    sc.setLocalProperty("spark.costinsights.asset", None)
    threads = [
        threading.Thread(target=in_a_scope, args=(spark, name)) for name in ("left", "right")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with costinsights.attribute(asset="broken"):
        try:
            spark.range(3).selectExpr("assert_true(id > 5)").collect()
        except Exception as error:  # noqa: BLE001  of which kind is what is looked at
            seen["error"] = type(error).__name__
    seen["property"] = sc.getLocalProperty("spark.costinsights.scope")
    sc._jsc.sc().listenerBus().waitUntilEmpty(30_000)
    seen["their jobs"] = theirs()
    seen["pages"] = pages(sc)
    # The charges are written moments later.
    deadline = time.monotonic() + 30
    while scope.cost().calls < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    seen["calls"] = scope.cost().calls
    seen["url"] = sc.uiWebUrl
    return seen


def their_listener(sc: Any) -> Any:
    """Have a listener in Python as a program may have one, with py4j's callback server."""
    gateways: Any = importlib.import_module("pyspark.java_gateway")
    jobs: list[int] = []

    class Jobs:
        def onJobEnd(self, event: Any) -> None:  # noqa: N802  Spark's name
            jobs.append(event.jobId())

        def __getattr__(self, name: str) -> Any:
            if name.startswith("on"):
                return ignored
            raise AttributeError(name)

        class Java:
            implements = ("org.apache.spark.scheduler.SparkListenerInterface",)

    gateways.ensure_callback_server_started(sc._gateway)
    listener = Jobs()
    sc._jsc.sc().addSparkListener(listener)

    def ended() -> int:
        sc._jsc.sc().removeSparkListener(listener)
        return len(jobs)

    return ended


def ignored(*_: object) -> None:
    pass


def in_a_scope(spark: Any, name: str) -> None:
    with costinsights.attribute(asset=name):
        for _ in range(2):
            spark.sparkContext.parallelize(range(4), 2).count()


def fails_once(index: int, rows: Any) -> Any:
    from pyspark import TaskContext

    context = TaskContext.get()
    if index == 1 and context is not None and context.attemptNumber() == 0:
        raise ValueError("the first attempt fails")
    return rows


def remainder(number: int) -> tuple[int, int]:
    return number % 5, number


def retried_stage(sc: Any) -> int:
    """Lose what a shuffle wrote, so that the stage which reads it fails, and both run again."""
    pairs = sc.parallelize(range(100), 2).map(remainder).reduceByKey(add)
    before: int = pairs.count()
    for path in (FOLDER / "local").rglob("shuffle_*"):
        path.unlink()
    assert pairs.count() == before
    return before


def pages(sc: Any) -> dict[str, Any]:
    """Return what the driver's own pages say."""
    base = f"{sc.uiWebUrl}/api/v1/applications/{sc.applicationId}"
    found: dict[str, Any] = {"id": sc.applicationId}
    for name in ("jobs", "stages", "sql?details=false&length=1000", "allexecutors"):
        with urllib.request.urlopen(f"{base}/{name}", timeout=30) as answer:
            found[name.partition("?")[0]] = json.load(answer)
    return found


def switch_on() -> None:
    costinsights.instrument(
        "pyspark", ledger=FOLDER / "ledger", exporters=[], config=FOLDER / "costinsights.toml"
    )


def main() -> None:
    for number in (0, 1):
        (FOLDER / f"events{number}").mkdir()
    switch_on()
    with costinsights.attribute(run="1"):
        spark = session(0)
    print("DONE", json.dumps(everything(spark)), flush=True)
    with contextlib.suppress(EOFError):
        input()  # until the tests have asked the application what they want to know
    spark.stop()
    spark = session(1)
    if sys.argv[1] == "killed":  # after it was switched off and on again
        costinsights.uninstrument()
        spark.range(3).count()
        switch_on()
    with costinsights.attribute(asset="orders"):
        rows = spark.range(0, 1000, 1, 2).groupBy().sum("id").count()
    print("STOPPED, and", rows, flush=True)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
