"""An acknowledged call is in the ledger, however the process ends: promise 2 of design.md."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from costinsights.ledger.reader import SegmentReader, is_live, segments

if TYPE_CHECKING:
    from pathlib import Path

# Each statement carries its own name, which redaction keeps, and says so once it has returned.
PROGRAM = """
import os, sys, sqlite3, threading, signal, multiprocessing, concurrent.futures, time
import costinsights

def work(first, count, acknowledge=True):
    connection = sqlite3.connect(":memory:")
    for number in range(first, first + count):
        connection.execute(f"SELECT 'secret' AS c{number}")
        if acknowledge:
            os.write(1, f"c{number}\\n".encode())

if __name__ == "__main__":
    costinsights.instrument("sqlite3", ledger=sys.argv[1])
    exec(sys.argv[2])
"""

ENDINGS = {
    "ends": "work(0, 50)",
    "raises": "work(0, 50); raise RuntimeError",
    "sys.exit": "work(0, 50); sys.exit(3)",
    "os._exit": "work(0, 50); os._exit(0)",
    "sigterm": "work(0, 50); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)",
    "sigkill": "work(0, 50); os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "work(0, 50); os.abort()",
    "atexit": "import atexit; atexit.register(work, 100, 20); work(0, 50)",
    "finaliser": (
        "class Last:\n"
        "    def __del__(self, work=work): work(100, 5)\n"
        "last = Last(); work(0, 50); del last"
    ),
    "exit in a thread": (
        "def leave(): work(0, 50); sys.exit(1)\n"
        "thread = threading.Thread(target=leave); thread.start(); thread.join()"
    ),
    "daemon thread": (
        "thread = threading.Thread(target=work, args=(0, 50), daemon=True)\n"
        "thread.start(); thread.join()"
    ),
    "thread pool": (
        "with concurrent.futures.ThreadPoolExecutor(16) as pool:\n"
        "    list(pool.map(lambda n: work(n * 100, 20), range(16)))"
    ),
    "fork": (
        "work(0, 20)\nif os.fork() == 0:\n    work(100, 20); os._exit(0)\nwork(200, 20); os.wait()"
    ),
    "fork twice": (
        "work(0, 20)\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n        os.closerange(3, 4096); work(300, 20); os._exit(0)\n"
        "    work(100, 20); os.wait(); os._exit(0)\n"
        "work(200, 20); os.wait()"
    ),
    "fork in a thread": (
        "def split():\n"
        "    if os.fork() == 0:\n        work(100, 20); os._exit(0)\n"
        "    os.wait()\n"
        "busy = threading.Thread(target=work, args=(500, 200)); busy.start()\n"
        "thread = threading.Thread(target=split); thread.start(); thread.join(); busy.join()"
    ),
    "multiprocessing fork": (
        "context = multiprocessing.get_context('fork')\n"
        "children = [context.Process(target=work, args=(n * 100, 20)) for n in range(4)]\n"
        "[child.start() for child in children]; [child.join() for child in children]"
    ),
    "process pool": (
        "context = multiprocessing.get_context('fork')\n"
        "with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:\n"
        "    list(pool.map(work, [0, 100, 200, 300], [20] * 4))"
    ),
}


def start(folder: Path, ending: str) -> subprocess.Popen[bytes]:
    """Start the program with its ledger in `folder`."""
    program = folder / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(program), str(folder / "ledger"), ending],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        bufsize=0,  # a line read before `communicate` must not take the next ones along
    )


def found_in(ledger: Path) -> tuple[list[str], int, int]:
    """Return the names of the statements in a ledger, the charge ids and the torn lines."""
    names: list[str] = []
    ids: set[str] = set()
    torn = 0
    for path in segments(str(ledger)):
        assert not is_live(path)
        reader = SegmentReader(path)
        for charge in reader.read(ended=True):
            assert charge.statement is not None
            assert "secret" not in charge.statement.text
            if charge.charge_id not in ids:
                names.append(charge.statement.text.rpartition(" ")[2])
            ids.add(charge.charge_id)
        torn += reader.torn
    return names, len(ids), torn


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_acknowledged_call_is_there_once(ending: str, tmp_path: Path) -> None:
    process = start(tmp_path, ENDINGS[ending])
    output, _ = process.communicate(timeout=60)
    acknowledged = output.decode().split()
    names, ids, torn = found_in(tmp_path / "ledger")
    assert acknowledged
    assert sorted(names) == sorted(acknowledged)
    assert ids == len(acknowledged)
    assert torn == 0


@pytest.mark.parametrize("seed", range(int(os.environ.get("COSTINSIGHTS_KILL_POINTS", "40"))))
def test_killed_at_any_moment(seed: int, tmp_path: Path) -> None:
    """At most the one call that was under way may be missing or torn."""
    process = start(tmp_path, "work(0, 100_000)")
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(random.Random(seed).uniform(0, 0.05))
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=30)
    acknowledged = (first + rest).decode().splitlines()
    names, _, torn = found_in(tmp_path / "ledger")
    whole = [line for line in acknowledged if line in set(names)]
    assert whole == acknowledged[: len(whole)]
    assert len(whole) >= len(acknowledged) - (0 if (first + rest).endswith(b"\n") else 1)
    assert torn <= 1
    assert len(names) - len(whole) <= 1
