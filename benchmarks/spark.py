"""Spark by hand: the listener's share of the driver's CPU, and a large event log as a stream.

`python -m benchmarks.spark listener [TASKS]` and `python -m benchmarks.spark log [BYTES]`. Neither is
a part of `make bench`: 100,000 tasks and a gigabyte take their minutes.

The driver of a local master runs the tasks as well: their threads are left out of its CPU. What
listens is the listener in the JVM, which is made to clock itself here, and all of Python.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from costinsights.runtime import active
from costinsights.systems.spark_log import EventLog, logs_in
from costinsights_instrumentors import _pyspark_listener
from tests.servers.spark_events import RUN_MS, large

TASKS = 100_000
GIGABYTE = 1 << 30
TARGET = 0.02
EXECUTOR = "Executor task "
CLOCKED = """
    static final java.lang.management.ThreadMXBean CLOCK =
        java.lang.management.ManagementFactory.getThreadMXBean();
    public long spent = 0L;

    public void onTaskStart(SparkListenerTaskStart event) {
        long before = CLOCK.getCurrentThreadCpuTime();
        this.taskStarted(event);
        spent += CLOCK.getCurrentThreadCpuTime() - before;
    }

    public void onTaskEnd(SparkListenerTaskEnd event) {
        long before = CLOCK.getCurrentThreadCpuTime();
        this.taskEnded(event);
        spent += CLOCK.getCurrentThreadCpuTime() - before;
    }

    public long spent() {
        return spent;
    }

    // ---- what is asked of it
"""


def clocked() -> None:
    """Have the listener add up what CPU its calls for tasks take, the clock's own included."""
    source = _pyspark_listener.SOURCE.replace("void onTaskStart(", "void taskStarted(")
    source = source.replace("void onTaskEnd(", "void taskEnded(")
    _pyspark_listener.SOURCE = source.replace("    // ---- what is asked of it\n", CLOCKED)


def listener(tasks: int) -> float:
    """Return the listener's share of the driver's CPU in a job of so many tasks."""
    import costinsights

    clocked()
    with tempfile.TemporaryDirectory() as folder:
        costinsights.instrument("pyspark", ledger=f"{folder}/ledger", exporters=[])
        from pyspark.sql import SparkSession

        builder: Any = SparkSession.builder
        settings = {
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.memory": "2g",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
        }
        for name, value in settings.items():
            builder = builder.config(name, value)
        spark = builder.master("local[2]").getOrCreate()
        found: Any = active()
        inside: Any = found.instrumentors["pyspark"].listening._listener
        spark.range(0, 1000, 1, 1000).count()  # what is compiled on its way is no task's
        before, listening, ours = threads(spark), inside.spent(), time.process_time()
        started = time.perf_counter()
        spark.range(0, tasks, 1, tasks).count()
        spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty(600_000)
        after, ours = threads(spark), time.process_time() - ours
        listening = (inside.spent() - listening) / 1e9
        took = time.perf_counter() - started
        spark.stop()
    used = {name: after[name] - before.get(name, 0.0) for name in after}
    executors = sum(spent for name, spent in used.items() if name.startswith(EXECUTOR))
    driver = sum(used.values()) - executors
    share: float = (listening + ours) / (driver + ours)
    for name, spent in sorted(used.items(), key=lambda item: -item[1])[:6]:
        print(f"  {spent:8.2f} s  {name}")
    print(
        f"{tasks:,} tasks in {took:.1f} s: driver {driver:.1f} s of CPU without its tasks "
        f"({executors:.1f} s), listener {listening:.2f} s ({listening / tasks * 1e6:.1f} µs a task), "
        f"Python {ours:.2f} s: share {share:.2%} (target {TARGET:.0%})"
    )
    return share


def threads(spark: Any) -> dict[str, float]:
    """Return the CPU seconds of the JVM's Java threads, by name; those of one name together."""
    bean = spark._jvm.java.lang.management.ManagementFactory.getThreadMXBean()
    found: dict[str, float] = {}
    for id_ in bean.getAllThreadIds():
        info = bean.getThreadInfo(id_)
        if info is not None:
            name = str(info.getThreadName())
            name = EXECUTOR if name.startswith(EXECUTOR) else name
            found[name] = found.get(name, 0.0) + max(0, bean.getThreadCpuTime(id_)) / 1e9
    return found


def log(size: int) -> None:
    """Read a log of so many bytes, and say how long that took and how much memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "app-large"
        tasks = large(path, size)
        command = [sys.executable, "-m", "benchmarks.spark", "read", str(path), str(tasks)]
        subprocess.run(command, check=True)


def read(path: str, tasks: int) -> None:
    """Read a log in a process of its own, whose memory is nobody else's."""
    from rich.progress import Progress

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (found,) = logs_in(path)
    units = ran = 0
    started, cpu = time.perf_counter(), time.process_time()
    with Progress() as bar:
        task = bar.add_task("reading", total=found.size)
        for unit in EventLog(found).units(lambda count: bar.advance(task, count)):
            units += 1
            ran += unit.sums[0]
    took, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert ran == tasks * RUN_MS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{found.size / 1e6:,.0f} MB, {tasks:,} tasks, {units:,} executions in {took:.1f} s "
        f"({cpu:.1f} s of CPU, {found.size / 1e6 / cpu:.0f} MB/s); memory {peak // 1024} MB at most, "
        f"{before // 1024} MB before"
    )


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "read":
        read(rest[0], int(rest[1]))
    elif what == "log":
        log(int(rest[0]) if rest else GIGABYTE)
    else:
        sys.exit(listener(int(rest[0]) if rest else TASKS) > TARGET)
