"""Off means off, and on means no network: nothing is there that nobody asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SWITCHES = [
    {"COSTINSIGHTS_DISABLED": "true"},
    {"COSTINSIGHTS_DISABLED": "1"},
    {"OTEL_SDK_DISABLED": "true"},
]

# Notes, from before costinsights is imported, all that it could do to a process.
PROGRAM = """
import json, os, sys, threading

opened, sockets = [], []
def audit(event, args):
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
        opened.append(str(args[0]))
    elif event.startswith("socket.") and event != "socket.gethostname":
        sockets.append(event)
    elif event in ("os.mkdir", "subprocess.Popen", "os.fork"):
        opened.append(f"{event} {args[0]}")

import asyncpg, duckdb, psycopg, pymysql, sqlite3, psycopg2, mysql.connector, aiomysql
import subprocess

def attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in DRIVERS:
            for key, value in list(vars(module).items()):
                found[f"{name}:{key}"] = value
                if isinstance(value, type):
                    for inner, method in list(vars(value).items()):
                        found[f"{name}:{key}.{inner}"] = method
    return found

DRIVERS = {"asyncpg", "duckdb", "psycopg", "pymysql", "sqlite3", "psycopg2", "mysql", "aiomysql"}
DRIVERS |= {"threading", "subprocess", "os", "socket", "logging"}
before, threads, fds = attributes(), threading.enumerate(), sorted(os.listdir("/proc/self/fd"))
finders, handlers = list(sys.meta_path), sorted(sys.modules)
sys.addaudithook(audit)

import costinsights
costinsights.instrument(*sys.argv[1:])

with costinsights.attribute(asset="orders") as scope:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (id INTEGER)")
    connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
    assert connection.cursor().execute("SELECT id FROM t").fetchall() == [(1,), (2,)]
    assert duckdb.connect().execute("SELECT 1").fetchall() == [(1,)]
    worker = threading.Thread(target=connection.interrupt)
    worker.start(); worker.join()

after = attributes()
print(json.dumps({
    "changed": [name for name in before if after.get(name) is not before[name]],
    "threads": [thread.name for thread in threading.enumerate() if thread not in threads],
    "fds": sorted(set(os.listdir("/proc/self/fd")) - set(fds)),
    "finders": len(sys.meta_path) - len(finders),
    "opened": opened,
    "sockets": sockets,
    "heavy": sorted({"msgspec", "wrapt"} & set(sys.modules) - set(handlers)),
}))
"""
NOTHING: dict[str, Any] = {
    "changed": [],
    "threads": [],
    "fds": [],
    "finders": 0,
    "opened": [],
    "sockets": [],
    "heavy": [],
}


def run(folder: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    """Run the program in an empty folder and return what it noted."""
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    home = folder / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-B", str(program), *arguments],
        cwd=home,
        env={**os.environ, "HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    noted: dict[str, Any] = json.loads(done.stdout)
    return noted


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: "=".join(*switch.items()))
@pytest.mark.parametrize("names", [(), ("sqlite3",), ("no such thing",)], ids=repr)
def test_off_means_off(switch: dict[str, str], names: tuple[str, ...], tmp_path: Path) -> None:
    noted = run(tmp_path, *names, **switch, COSTINSIGHTS_EXPORTERS="jsonl,otlp")
    assert noted == NOTHING
    assert list((tmp_path / "home").iterdir()) == []


def test_the_program_above_sees_what_is_switched_on(tmp_path: Path) -> None:
    """Otherwise the test before this one would prove nothing."""
    noted = run(tmp_path)
    assert "sqlite3:Cursor.execute" in noted["changed"]
    assert noted["threads"] == ["costinsights"]
    assert noted["fds"] != []
    assert any(path.endswith(".jsonl") for path in noted["opened"])
    assert noted["heavy"] != []


def test_by_default_no_socket_is_ever_made(tmp_path: Path) -> None:
    noted = run(tmp_path)
    assert noted["sockets"] == []
    assert all(str(tmp_path / "home") in path for path in noted["opened"]), noted["opened"]


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: "=".join(*switch.items()))
def test_off_under_opentelemetry_instrument(switch: dict[str, str], tmp_path: Path) -> None:
    """The loader meets our entry point, and nothing comes of it."""
    script = (
        "import sqlite3, sys, os, threading\n"
        "sqlite3.connect(':memory:').cursor().execute('SELECT 1')\n"
        "assert not [t for t in threading.enumerate() if t.name.startswith('costinsights')]\n"
        "assert not hasattr(sqlite3.Cursor.execute, '__costinsights__')\n"
        "print('fine')\n"
    )
    done = subprocess.run(
        ["opentelemetry-instrument", sys.executable, "-B", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            **switch,
            "HOME": str(tmp_path),
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "fine\n", done.stderr
    assert list(tmp_path.iterdir()) == []
