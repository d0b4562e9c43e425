"""A Spark Connect server of the Spark that is installed: a driver of its own, with an event log."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.processes import Unavailable, free_port
from tests.servers.spark_session import SECONDS, Spark

if TYPE_CHECKING:
    from collections.abc import Generator


@contextlib.contextmanager
def connect_server(engine: Spark, folder: Path) -> Generator[int]:
    """Run a server on loopback, and give its port; its log is in ``events`` when it has ended."""
    found = importlib.util.find_spec("pyspark")
    assert found is not None
    home = Path(str(found.origin)).parent
    port = free_port()
    (folder / "events").mkdir()
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.eventLog.dir": (folder / "events").as_uri(),
        "spark.eventLog.enabled": "true",
        "spark.local.dir": folder / "local",
        "spark.sql.warehouse.dir": folder / "warehouse",
        "spark.ui.enabled": "false",
    }
    command: list[str | Path] = [home / "bin" / "spark-submit", "--master", "local[2]"]
    for name, value in settings.items():
        command += ["--conf", f"{name}={value}"]
    command += [
        "--class",
        "org.apache.spark.sql.connect.service.SparkConnectServer",
        "spark-internal",
    ]
    quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    environment = {
        **os.environ,
        "JAVA_TOOL_OPTIONS": quick,
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    if engine.java_home is not None:
        environment["JAVA_HOME"] = engine.java_home
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder) as server,
    ):
        try:
            _wait(server, port, folder / "log")
            yield port
        finally:
            server.terminate()  # Spark stops, and writes its last event
            server.wait(SECONDS)


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise Unavailable(f"Spark Connect does not start: {log.read_text(encoding='utf-8')[-2000:]}")
