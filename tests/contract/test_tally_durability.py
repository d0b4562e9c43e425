"""What a program was told was done is in the ledger, once, however it is killed: added-up calls.

The program's threads write a byte to a pipe after each call. Afterwards the sums in the ledger hold
every one of them, and at most the one call more that each thread had under way.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costinsights.ledger import tallies
from costinsights.ledger.compact import compact
from costinsights.ledger.reader import read_ledger
from costinsights.ledger.store import open_store
from costinsights.ledger.verify import verify

THREADS = 4
SIZE = 10
PRICE = Decimal("0.000005")  # of one PUT to S3 in us-east-1

PROGRAM = """
import os, sys, threading, time, types
import costinsights
from costinsights import runtime
from costinsights.storage import Hook, Kind, StorageCall, StorageInstrumentor

acme = types.ModuleType("acme_storage")
sys.modules["acme_storage"] = acme

class Client:
    def put(self, bucket, size):
        return size

acme.Client = Client

class AcmeInstrumentor(StorageInstrumentor):
    name = "acme_storage"
    system = "aws.s3"
    driver = "acme_storage"
    supports = ("0", "9")
    hooks = (Hook("acme_storage:Client.put", leaf=True),)

    def asked(self, hook, args, kwargs):
        return "tier1"

    def counted(self, asked, args, kwargs, result, error):
        words = (("storage_class", "STANDARD"),)
        kind = Kind("aws.s3", "tier1_requests", "TIER1", args[1], "us-east-1", words=words)
        return StorageCall(kind, sent=args[2])

def switch_on(ledger):
    costinsights.instrument(ledger=ledger, exporters=(), config={"disabled_instrumentors": ["*"]})
    AcmeInstrumentor().instrument(runtime.active().recorder)

def work(bucket, count, acknowledge=b"."):
    client = Client()
    with costinsights.attribute(asset=bucket):
        for _ in range(count):
            client.put(bucket, 10)
            os.write(1, acknowledge)

def in_threads(count, each=None):
    threads = [
        threading.Thread(target=work, args=(f"bucket-{n % 2}", count)) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

switch_on(sys.argv[1])
exec(sys.argv[2])
"""

ENDINGS = {
    "ends": "in_threads(500)",
    "raises": "in_threads(500); raise RuntimeError",
    "os._exit": "in_threads(500); os._exit(0)",
    "sigkill": "in_threads(500); os.kill(os.getpid(), 9)",
    "atexit": "import atexit; atexit.register(work, 'late', 20); in_threads(20)",
    "uninstrumented": "in_threads(20); costinsights.uninstrument(); os.kill(os.getpid(), 9)",
    "closes all files": "work('raw', 20); os.closerange(3, 4096); work('raw', 20); os._exit(0)",
    "slowly": "work('raw', 5); time.sleep(2.2); work('raw', 5); os.kill(os.getpid(), 9)",
    "fork": "work('raw', 20)\nif os.fork() == 0:\n    work('child', 20); os._exit(0)\n"
    "work('raw', 20); os.wait(); os.kill(os.getpid(), 9)",
    "fork in a thread": "busy = threading.Thread(target=in_threads, args=(300,)); busy.start()\n"
    "if os.fork() == 0:\n    work('child', 20); os.kill(os.getpid(), 9)\nos.wait(); busy.join()",
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
        bufsize=0,
    )


def counted(ledger: Path) -> tuple[int, int, Decimal]:
    """Return the calls, bytes and amount that count."""
    calls = sent = 0
    amount = Decimal(0)
    ids: set[str] = set()
    with open_store(str(ledger)) as store:
        for charge in store.charges():
            usage: dict[str, Any] = dict(charge.usage)
            assert usage["tier1_requests"] == usage["calls"]
            assert charge.attribution["asset"] == charge.resource.namespace
            assert charge.charge_id not in ids
            ids.add(charge.charge_id)
            calls += usage["calls"]
            sent += usage["sent_bytes"]
            amount += Decimal(charge.amount or 0)
        assert not store.torn
    return calls, sent, amount


def holds(ledger: Path, acknowledged: int, most: int) -> int:
    """Hold the ledger against what was acknowledged, at each step of what becomes of a tally."""
    calls, sent, amount = counted(ledger)
    assert acknowledged <= calls <= acknowledged + most
    assert (sent, amount) == (calls * SIZE, calls * PRICE)
    tallies.settle(str(ledger))
    assert not list(tallies.dead(str(ledger)))
    assert counted(ledger) == (calls, sent, amount)
    for path in (ledger / "segments").iterdir():
        os.utime(path, (1, 1))  # so that a compaction takes it
    compact(str(ledger))
    assert counted(ledger) == (calls, sent, amount)
    assert verify(str(ledger)).sound
    return calls


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_acknowledged_call_is_added_up_once(ending: str, tmp_path: Path) -> None:
    process = start(tmp_path, ENDINGS[ending])
    output, _ = process.communicate(timeout=60)
    assert output
    holds(tmp_path / "ledger", len(output), 0)


@pytest.mark.parametrize("seed", range(int(os.environ.get("COSTINSIGHTS_KILL_POINTS", "6"))))
def test_killed_at_any_moment(seed: int, tmp_path: Path) -> None:
    process = start(tmp_path, "in_threads(10**9)")
    assert process.stdout is not None
    first = process.stdout.read(1)
    # Around the second in which aggregates become entries, and anywhere else.
    time.sleep(random.Random(seed).choice((0.0, 0.05, 0.4, 0.98, 1.0, 1.02, 1.1)))
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=30)
    holds(tmp_path / "ledger", len(first + rest), THREADS)


def test_an_entry_that_was_written_before_its_slot_was_freed_counts_once(tmp_path: Path) -> None:
    """Killed between the two: the same charge stands in a segment and in a tally."""
    ending = "import costinsights.tally as t; t.Tally._release = lambda self, one: None\n"
    process = start(tmp_path, f"{ending}work('raw', 50); time.sleep(1.5); os.kill(os.getpid(), 9)")
    output, _ = process.communicate(timeout=60)
    ledger = tmp_path / "ledger"
    ids = [charge.charge_id for charge in read_ledger(str(ledger))]
    assert len(ids) > len(set(ids))
    assert holds(ledger, len(output), 0) == 50


def test_compacted_before_its_slot_is_found_again(tmp_path: Path) -> None:
    """The slot of a charge that has long been compacted: it is not taken for a new one."""
    ending = "import costinsights.tally as t; t.Tally._release = lambda self, one: None\n"
    process = start(tmp_path, f"{ending}work('raw', 50); time.sleep(1.5); os.kill(os.getpid(), 9)")
    output, _ = process.communicate(timeout=60)
    ledger = tmp_path / "ledger"
    put_by = tmp_path / "put by"
    (ledger / "tallies").rename(put_by)
    holds(ledger, len(output), 0)
    put_by.rename(ledger / "tallies")
    holds(ledger, len(output), 0)


def test_what_a_killed_process_left_is_exported(tmp_path: Path) -> None:
    process = start(tmp_path, "work('raw', 50); os.kill(os.getpid(), 9)")
    output, _ = process.communicate(timeout=60)
    ledger = tmp_path / "ledger"
    assert list(tallies.dead(str(ledger)))
    ours = str(Path(sys.executable).parent / "costinsights")
    command = [ours, "export", "jsonl", "--ledger", str(ledger)]
    config = tmp_path / "costinsights.toml"
    config.write_text(f'[exporter.jsonl]\npath = "{tmp_path / "out.jsonl"}"\n')
    environment = {**os.environ, "COSTINSIGHTS_CONFIG": str(config)}
    for _ in range(2):  # the second time nothing goes
        subprocess.run(command, check=True, env=environment, capture_output=True, timeout=60)
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert json.loads(line)["usage"]["calls"] == len(output) == 50


def test_the_next_program_settles_what_a_killed_one_has_left(tmp_path: Path) -> None:
    process = start(tmp_path, "work('raw', 50); os.kill(os.getpid(), 9)")
    output, _ = process.communicate(timeout=60)
    ledger = tmp_path / "ledger"
    assert list(tallies.dead(str(ledger)))
    following = start(tmp_path, "work('raw', 1); time.sleep(1.5)")
    more, _ = following.communicate(timeout=60)
    assert not list(tallies.dead(str(ledger)))
    assert holds(ledger, len(output + more), 0) == 51
