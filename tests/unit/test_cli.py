"""The command line, as people and scripts use it: in processes of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from costinsights.cli.app import cli
from costinsights.followed import note
from tests.ledgers import NOON, UNIT, Program, aged, segments_of

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "costinsights.cli"]
STEERING = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    ledger = tmp_path / "ledger"
    program = Program(ledger)
    for number in range(3):
        program.call(labels={"asset": f"asset-{number}"}, amount=(number + 1) * UNIT)
    program.close()
    return ledger


def run(*words: str | Path, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def on_a_terminal(*words: str | Path, columns: int = 80, **environment: str) -> str:
    """What a command shows on a terminal, colours and all."""
    master, slave = pty.openpty()
    settings = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns), **environment}
    with subprocess.Popen(
        [*COMMAND, *map(str, words)], stdin=slave, stdout=slave, stderr=slave, env=settings
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
    return shown.decode().replace("\r\n", "\n")


def commands(group: click.Group, *above: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*above, name)
        if isinstance(command, click.Group):
            yield from commands(command, *above, name)


# --- help, usage, missing packages ----------------------------------------------------------------


@pytest.mark.parametrize("words", [(), *commands(cli)], ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...]) -> None:
    command: click.Command = cli
    context = click.Context(cli, info_name="costinsights")
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(context, word)
        assert found is not None
        command = found
    assert command.help
    assert command.get_short_help_str()
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in ("style", "help"):
            assert option.help, option.name
    assert "Usage:" in command.get_help(context)


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in cli.list_commands(click.Context(cli)):
        assert f"`costinsights {name}" in page, name


@pytest.mark.parametrize(
    "words",
    [
        ("nonesuch",),
        ("report", "--by", "price"),
        ("report", "--since", "some day"),
        ("report", "--since", "today", "--until", "yesterday"),
        ("report", "--compare", "previous"),
        ("report", "--fail-over", "nan"),
        ("report", "--fail-over", "-1"),
        ("report", "--limit", "-1"),
        ("report", "--format", "xml"),
        ("diff",),
        ("diff", "run=1"),
        ("diff", "run=1", "run=2"),
        ("diff", "none.json", "run=2"),
        ("diff", "asset=asset-0", "asset=asset-1", "--by", "price"),
        ("diff", "asset=asset-0", "asset=asset-1", "--fail-over-percent", "-1"),
        ("explain", "ffffff"),
        ("export",),
        ("export", "nonesuch"),
        ("run",),
        ("run", "--limit", "much", "--", "true"),
        ("ledger", "compact", "--keep-days", "0"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_says_why(words: tuple[str, ...], ledger: Path) -> None:
    environment = {**os.environ, "COSTINSIGHTS_LEDGER": str(ledger)}
    done = run(*words, code=2, env=environment)
    assert done.stdout == ""
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", [("report",), ("explain",), ("ledger", "cat"), ("export", "null")]
)
def test_no_ledger_is_said(words: tuple[str, ...], tmp_path: Path) -> None:
    done = run(*words, "--ledger", tmp_path / "none", code=2)
    assert "there is no ledger at" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_line_names_the_pip_command(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom costinsights.cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'costinsights[cli]'" in done.stderr


def test_without_duckdb_the_report_names_the_pip_command(ledger: Path) -> None:
    code = (
        "import sys; sys.modules['duckdb'] = None\n"
        f"sys.argv = ['costinsights', 'report', '--ledger', {str(ledger)!r}]\n"
        "from costinsights.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'costinsights[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


# --- report ---------------------------------------------------------------------------------------


def test_a_limit_is_held(ledger: Path) -> None:
    words = ("report", "--ledger", ledger, "--format", "csv", "--fail-over")
    assert run(*words, "6").stderr == ""
    done = run(*words, "5.99", code=3)
    assert done.stdout.startswith("asset,")  # the report is there all the same
    assert done.stderr == ("costinsights: 6.000000000000000 USD is over the limit of 5.99\n")


def test_a_dearer_run_is_held_against_a_limit(ledger: Path) -> None:
    sides = ("diff", "--ledger", ledger, "asset=asset-0", "asset=asset-2", "--by", "system")
    for limit in ("--fail-over=2", "--fail-over-percent=200%", "--fail-over-percent=200.0"):
        assert run(*sides, limit).stderr == ""
    for limit, said in (("--fail-over=1.99", "1.99"), ("--fail-over-percent=199.9", "199.9 %")):
        done = run(*sides, limit, code=3)
        assert "total USD" in done.stdout
        assert done.stderr == (
            f"costinsights: 2 USD more than the base (+200 %) is over the limit of {said}\n"
        )
    cheaper = ("diff", "--ledger", ledger, "asset=asset-2", "asset=asset-0", "--by", "system")
    assert run(*cheaper, "--fail-over=0", "--fail-over-percent=0").stderr == ""


def test_more_than_nothing_is_over_any_share_of_it(ledger: Path) -> None:
    sides = ("diff", "--ledger", ledger, "asset=asset-0", "asset=asset-1", "--by", "query")
    assert "+100 %" in run(*sides, "--fail-over-percent=1000").stdout
    program = Program(ledger)
    program.call(labels={"asset": "free"}, amount=0)
    program.call(labels={"asset": "unknown"}, amount=None)
    program.close()
    free = ("diff", "--ledger", ledger, "asset=free", "asset=asset-1", "--by", "system")
    assert "which cost nothing" in run(*free, "--fail-over-percent=1000", code=3).stderr
    unknown = ("diff", "--ledger", ledger, "asset=unknown", "asset=asset-1", "--by", "system")
    done = run(*unknown, "--fail-over=1")
    assert done.stderr == "costinsights: 1 call has no price and cannot be held against a limit\n"


def test_costs_of_dbt_are_compared_without_a_ledger(tmp_path: Path) -> None:
    sides: list[Path] = []
    for folder, amount in (("main", "1.5"), ("target", "2")):
        (tmp_path / folder).mkdir()
        sides.append(tmp_path / folder / "costs.json")
        total = [{"currency": "USD", "amount": amount}]
        node = {"unique_id": "model.shop.orders", "costs": total, "calls": 1}
        document: dict[str, Any] = {
            "version": 1,
            "totals": total,
            "nodes": [node],
            "other": {"costs": []},
        }
        sides[-1].write_text(json.dumps(document))
    done = run("diff", *sides, "--format", "md", env={**os.environ, "COSTINSIGHTS_LEDGER": "none"})
    assert r"\$1.50 → \$2.00 (+\$0.50, +33.3 %)" in done.stdout
    assert "model.shop.orders" in done.stdout
    sides[0].write_text('{"version": 7}')
    said = run("diff", *sides, code=1).stderr
    assert said == (
        f"Error: {sides[0]} is of version 7, and this costinsights reads version 1: update it\n"
    )


def test_a_pipe_gets_plain_text_and_all_of_it(ledger: Path) -> None:
    done = run("report", "--ledger", ledger, env={**os.environ, "COLUMNS": "20"})
    assert "\x1b" not in done.stdout
    assert "asset-2" in done.stdout
    assert "total USD" in done.stdout
    assert done.stderr == ""


def test_a_terminal_gets_colour_and_its_width(ledger: Path) -> None:
    shown = on_a_terminal("report", "--ledger", ledger, columns=70)
    assert "\x1b[" in shown
    plain = STEERING.sub("", shown).splitlines()
    rows = plain[2 : plain.index("", 2)]
    assert rows[0].startswith("asset")
    assert all(len(row) <= 70 for row in rows)


def test_no_color_means_none(ledger: Path) -> None:
    assert "\x1b" not in on_a_terminal("report", "--ledger", ledger, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("report", "--ledger", ledger, TERM="dumb")


def test_a_terminal_and_a_pipe_say_the_same(ledger: Path) -> None:
    shown = on_a_terminal("explain", "--ledger", ledger, columns=200)
    assert STEERING.sub("", shown).split() == run("explain", "--ledger", ledger).stdout.split()


# --- ledger ---------------------------------------------------------------------------------------


def test_cat_verify_compact_where(ledger: Path) -> None:
    assert run("ledger", "where", "--ledger", ledger).stdout == f"{ledger}\n"
    before = run("ledger", "cat", "--ledger", ledger).stdout
    charges = [json.loads(line) for line in before.splitlines()]
    assert [charge["amount"][:4] for charge in charges] == ["1.00", "2.00", "3.00"]
    one = run("ledger", "cat", "--ledger", ledger, "--charge", charges[1]["charge_id"]).stdout
    assert one == before.splitlines(keepends=True)[1]
    aged(ledger)
    done = run("ledger", "compact", "--ledger", ledger)
    assert done.stdout == "1 segments with 3 entries are now 3 charges in Parquet.\n"
    assert segments_of(ledger) == []
    after = run("ledger", "cat", "--ledger", ledger).stdout
    assert [json.loads(line) for line in after.splitlines()] == charges
    assert "3 entries of 3 charges are whole" in run("ledger", "verify", "--ledger", ledger).stdout


def test_verify_exits_with_0_for_torn_lines_and_1_for_damage(ledger: Path) -> None:
    (path,) = segments_of(ledger)
    with open(path, "ab") as file:
        file.write(b'{"k":"e","n":9')
    done = run("ledger", "verify", "--ledger", ledger)
    assert "14 bytes at" in done.stdout
    assert "torn; copied to" in done.stdout
    found = json.loads(run("ledger", "verify", "--ledger", ledger, "--format", "json").stdout)
    assert (found["sound"], len(found["torn"])) == (True, 1)
    aged(ledger)
    run("ledger", "compact", "--ledger", ledger)
    next((ledger / "parquet" / "charges").rglob("*.parquet")).unlink()
    assert "is missing" in run("ledger", "verify", "--ledger", ledger, code=1).stderr


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Programs that are started can be interrupted, though these tests may run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_follow_prints_what_is_written_from_now_on(ledger: Path) -> None:
    with subprocess.Popen(
        [*COMMAND, "ledger", "cat", "--follow", "--ledger", str(ledger)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        program = Program(ledger)
        made: list[str] = []
        end = time.monotonic() + 60
        try:
            assert process.stdout is not None
            while not select.select([process.stdout], [], [], 0.5)[0]:  # until it has begun
                assert time.monotonic() < end
                made.append(program.call())
            first = json.loads(process.stdout.readline())["charge_id"]
            made = [*made[made.index(first) :], program.call(), program.call()]
            for charge_id in made[1:]:
                assert json.loads(process.stdout.readline())["charge_id"] == charge_id
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
            program.close()


# --- run ------------------------------------------------------------------------------------------

QUERY = "import sqlite3; print(sqlite3.connect(':memory:').execute('SELECT 42').fetchall())"


def entries(ledger: Path) -> list[dict[str, Any]]:
    lines = run("ledger", "cat", "--ledger", ledger).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_run_measures_and_prints_nothing_itself(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    done = run("run", "--ledger", ledger, "--", sys.executable, "-c", QUERY)
    assert (done.stdout, done.stderr) == ("[(42,)]\n", "")
    assert {entry["statement"]["text"] for entry in entries(ledger)} == {"SELECT ?"}


def test_run_measures_child_processes(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {QUERY!r}], check=True)"
    done = run("run", "--ledger", ledger, "--", sys.executable, "-c", code)
    assert done.stdout == "[(42,)]\n"
    assert entries(ledger)


@pytest.mark.parametrize("limit", [(), ("--limit", "5")])
def test_the_exit_code_is_the_programs(tmp_path: Path, limit: tuple[str, ...]) -> None:
    (tmp_path / "ledger").mkdir(mode=0o700)
    program = (sys.executable, "-c", "raise SystemExit(7)")
    run("run", *limit, "--ledger", tmp_path / "ledger", "--", *program, code=7)


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    done = run("run", "--", "no-such-command", code=127)
    assert done.stderr == "costinsights: no-such-command: No such file or directory\n"
    script = tmp_path / "script"
    script.write_text("")
    run("run", "--", script, code=126)


def test_a_sitecustomize_that_was_there_runs_too(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('theirs')")
    done = run(
        "run", "--ledger", tmp_path / "ledger", "--", sys.executable, "-c", QUERY,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    # Once in the Python of our own command, and once in the program's.
    assert done.stdout == "theirs\ntheirs\n[(42,)]\n"
    assert entries(tmp_path / "ledger")


def test_switched_off_run_only_runs(tmp_path: Path) -> None:
    done = run(
        "run", "--ledger", tmp_path / "ledger", "--", sys.executable, "-c", QUERY,
        env={**os.environ, "COSTINSIGHTS_DISABLED": "true"},
    )  # fmt: skip
    assert done.stdout == "[(42,)]\n"
    assert not (tmp_path / "ledger").exists()


def test_a_run_that_costs_too_much_exits_with_3(tmp_path: Path) -> None:
    (tmp_path / "costinsights.toml").write_text(
        '[[capacity]]\nname = "dear"\nsystem = "sqlite"\nprice = "1000000"\ncurrency = "USD"\n'
    )
    words = ("run", "--ledger", tmp_path / "ledger", "--limit")
    program = ("--", sys.executable, "-c", QUERY)
    done = run(*words, "0.0000001", *program, code=3, cwd=tmp_path)
    assert done.stdout == "[(42,)]\n"
    assert done.stderr.count("\n") == 1
    assert "over the limit of 0.0000001" in done.stderr
    # What an earlier run cost is not held against this one.
    assert run(*words, "1000", *program, cwd=tmp_path).stderr == ""


def test_calls_without_a_price_are_said_when_a_limit_is_held(tmp_path: Path) -> None:
    done = run(
        "run", "--ledger", tmp_path / "ledger", "--limit", "1", "--", sys.executable, "-c", QUERY
    )
    assert "1 of 1 calls have no price" in done.stderr


# --- export, doctor, demo -------------------------------------------------------------------------


def test_export_brings_what_is_left(ledger: Path) -> None:
    assert "null: 3 charges" in run("export", "null", "--ledger", ledger).stderr
    assert "null: 0 charges" in run("export", "null", "--ledger", ledger).stderr


@pytest.mark.slow
def test_doctor_says_how_things_stand(ledger: Path) -> None:
    note(str(ledger), "aws.glue", "us-east-1", requests=12)
    note(str(ledger), "aws.glue", "us-east-1", requests=1, failed="ThrottlingException")
    text = run("doctor", "--ledger", ledger).stdout
    assert re.search(r"aws.glue us-east-1 +13 requests, free; the last .*failed: 1\s+Thr", text)
    assert re.search(r"aws.athena +not configured", text)
    assert re.search(r"✓ sqlite3 +\d+\.\d+\.\d+ .* callables hooked", text)
    assert "3 entries of 3 charges" in text
    assert "Not seen" in text
    found = json.loads(run("doctor", "--ledger", ledger, "--format", "json").stdout)
    assert [one["requests"] for one in found["followed"]] == [13]
    assert {one["state"] for one in found["histories"]} == {"not configured"}
    states = {driver["name"]: driver["state"] for driver in found["drivers"]}
    assert states["sqlite3"] == states["duckdb"] == "hooked"
    assert found["ledger"]["charges"] == 3
    assert len(segments_of(ledger)) == 1  # looking writes nothing


@pytest.mark.slow
def test_doctor_keeps_secrets(tmp_path: Path) -> None:
    secrets = {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=canary-1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:canary-2@collector.invalid:4318/v1?k=canary-3",
        "OTEL_RESOURCE_ATTRIBUTES": "x=canary-4",
    }
    for style in ("table", "json"):
        done = run(
            "doctor",
            "--ledger",
            tmp_path / "none",
            "--format",
            style,
            env={**os.environ, **secrets},
        )
        assert "canary" not in done.stdout + done.stderr
        assert "https://collector.invalid:4318/v1" in done.stdout


@pytest.mark.slow
def test_doctor_lists_what_is_disabled_and_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "costinsights.toml").write_text(
        'disabled_instrumentors = ["sqlite3"]\nledgr = "x"\n'
    )
    text = run("doctor", cwd=tmp_path).stdout
    assert re.search(r"sqlite3 +disabled", text)
    assert "ledgr" in text


@pytest.mark.slow
def test_the_demo_runs_twice_and_touches_nothing_else(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("demo", cwd=tmp_path)
        for part in ("Cost by asset", "Cost by team", "Cost by query", "What to try next"):
            assert part in done.stdout
        assert "attempt 2" in done.stdout  # the retried one
        assert os.listdir(tmp_path) == ["costinsights-demo"]
    found = json.loads(run("report", "--format", "json", cwd=tmp_path / "costinsights-demo").stdout)
    assert found["totals"][0]["errors"] == 2
    assert found["coverage"]["priced_calls"] == found["coverage"]["calls"]


def test_the_demo_leaves_a_folder_that_is_not_its_own_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = run("demo", "--directory", tmp_path, code=2)
    assert "is not empty" in done.stderr
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_our_own_queries_are_nobodys_cost(ledger: Path) -> None:
    code = (
        "import sys, costinsights; costinsights.instrument()\n"
        f"sys.argv = ['costinsights', 'report', '--ledger', {str(ledger)!r}]\n"
        "from costinsights.cli import main\nmain()"
    )
    elsewhere = ledger.parent / "elsewhere"
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        env={**os.environ, "COSTINSIGHTS_LEDGER": str(elsewhere)},
    )
    assert not elsewhere.exists()


def test_the_moment_of_the_examples() -> None:
    assert time.gmtime(NOON // 10**9)[:4] == (2026, 11, 22, 12)
