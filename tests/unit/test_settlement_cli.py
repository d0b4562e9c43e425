"""``costinsights settle``, as people and cron use it: in processes of its own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.histories import entry_points, ns, price_file
from tests.ledgers import Program

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "costinsights.cli", "settle"]
SINCE = ("--since", "2026-11-22T12:00", "--until", "2026-11-22T13:00")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place with a ledger of one charge, a configuration, and the reader on the path."""
    program = Program(tmp_path / "ledger")
    program.call(system="acme", at=ns(0), amount=None, i="q0")
    program.close()
    price_file(tmp_path)
    entry_points(tmp_path / "site")
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, options: str = "") -> None:
    (folder / "costinsights.toml").write_text(
        f'ledger = "ledger"\nprice_books = ["acme.toml"]\n[settle.acme]\n{options}\n'
    )


def environment(folder: Path, **more: str) -> dict[str, str]:
    found = {**os.environ, "PYTHONPATH": f"{folder / 'site'}{os.pathsep}{ROOT}", **more}
    found.pop("COSTINSIGHTS_LEDGER", None)
    return found


def run(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def test_it_says_what_it_reads_and_what_became_of_it(folder: Path) -> None:
    done = run(folder, "acme", *SINCE, "--all")
    assert done.stderr == "reads acme.queries from 2026-11-22 12:00 to 2026-11-22 13:00\n"
    assert done.stdout.splitlines() == [
        "acme  2026-11-22 12:00 to 2026-11-22 13:00 UTC",
        "  queries            2  in the history",
        "  charges            1  in the ledger; found 1 by id",
        "  settled            1  got a better figure now",
        "  outside            1  ran in no instrumented program; 1 became charges now",
        "           5.000000000 USD  the programs' charges",
        "           5.000000000 USD  queries outside of them",
        "  requests           1  to the system",
        "  The next run goes on from 2026-11-22 13:00 UTC.",
    ]
    again = run(folder, "acme", *SINCE, "--all")
    assert "  settled            0  got a better figure now\n" in again.stdout
    assert "  unchanged          2  had this figure already\n" in again.stdout


def test_a_dry_run_says_so(folder: Path) -> None:
    done = run(folder, "acme", *SINCE, "--dry-run")
    assert "(dry run: nothing was written)" in done.stdout
    assert "1  would get a better figure now" in done.stdout
    assert "--all makes charges of them" in done.stdout
    assert not (folder / "ledger" / "settlement" / "acme.json").exists()


def test_as_json(folder: Path) -> None:
    found: dict[str, Any] = json.loads(run(folder, "acme", *SINCE, "--format", "json").stdout)
    assert found["system"] == "acme"
    assert found["since"] == "2026-11-22T12:00:00Z"
    assert (found["settled"], found["outside"], found["added"]) == (1, 1, 0)
    assert found["amounts"]["USD"]["charges"] == "5.000000000000000"


def test_without_since_it_goes_on(folder: Path) -> None:
    done = run(folder, "acme", code=2)
    assert "nothing of acme has been settled in this ledger yet" in done.stderr
    run(folder, "acme", *SINCE)
    goes_on = run(folder, "acme", "--until", "2026-11-22T14:00")
    assert goes_on.stdout.startswith("acme  2026-11-22 13:00 to 2026-11-22 14:00 UTC")


def test_usage(folder: Path) -> None:
    assert "did you mean acme?" in run(folder, "acm", *SINCE, code=2).stderr
    assert "not a time" in run(folder, "acme", "--since", "soon", code=2).stderr
    swapped = run(folder, "acme", "--since", "2026-11-22", "--until", "2026-11-21", code=2)
    assert "ends before it begins" in swapped.stderr


def test_a_missing_permission_is_named_with_its_grant(folder: Path) -> None:
    configure(folder, "denied = true")
    done = run(folder, "acme", *SINCE, code=1)
    assert done.stdout == ""
    assert done.stderr.endswith(
        "Error: acme: no permission to read acme.queries\n"
        "It needs:\n\n    GRANT SELECT ON acme.queries\n      TO settlement\n"
    )


def test_a_history_that_breaks_off_is_settled_so_far(folder: Path) -> None:
    configure(folder, "breaks = true")
    done = run(folder, "acme", *SINCE, code=1)
    assert "settled            1  got" in done.stdout
    assert done.stderr.endswith("Error: the connection went away\n")
    configure(folder)
    assert "settled            0  got" in run(folder, "acme").stdout


def test_what_sleeps_is_woken_only_when_told(folder: Path) -> None:
    configure(folder, "sleeps = true")
    done = run(folder, "acme", *SINCE, code=1)
    assert "The warehouse wh is paused." in done.stderr
    assert "--wake" in done.stderr
    assert "settled            1" in run(folder, "acme", *SINCE, "--wake").stdout


def test_a_mistake_in_the_options_names_the_key_and_no_value(folder: Path) -> None:
    configure(folder, 'passwort = "hunter2"')
    done = run(folder, "acme", *SINCE, code=1)
    assert 'Error: [settle."acme"]: Object contains unknown field `passwort`' in done.stderr
    configure(folder, 'password = "${ACME_PASSWORD}"')
    assert "${ACME_PASSWORD}, which is not set" in run(folder, "acme", *SINCE, code=1).stderr
    assert "hunter2" not in done.stdout + done.stderr


def on_a_terminal(folder: Path, *words: str, **more: str) -> str:
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        env=environment(folder, TERM="xterm", **more),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    ) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 65536)
            except OSError:  # how a terminal ends on Linux
                break
            if not part:
                break
            shown += part
    os.close(master)
    assert process.returncode == 0, shown
    return shown.decode()


def test_on_a_terminal_there_is_a_bar_and_colour_unless_not_wanted(folder: Path) -> None:
    configure(folder, "queries = 2500")
    coloured = on_a_terminal(folder, "acme", *SINCE, "--dry-run")
    assert "reading the history" in coloured
    assert "\x1b[1macme" in coloured
    plain = on_a_terminal(folder, "acme", *SINCE, "--dry-run", NO_COLOR="1")
    assert "\x1b[1m" not in plain.partition("acme  ")[2]


def test_a_second_run_waits_for_nobody(folder: Path) -> None:
    import fcntl

    lock = folder / "ledger" / "settlement" / "acme.lock"
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = run(folder, "acme", *SINCE, code=1)
    assert "another settlement of acme is at work" in done.stderr
