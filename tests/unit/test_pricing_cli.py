"""`costinsights prices` as a person and as a program sees it."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from costinsights.cli.prices import prices
from costinsights.pricing import PriceBook

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from click.testing import Result

GLUE = "aws.glue.etl.standard/us-east-1"
OWN = f"""
[[price]]
key = "{GLUE}"
provider = "aws"
service = "AWS Glue"
system = "aws.glue"
meter = "dpu_seconds"
region = "us-east-1"
unit = "DPU-Hour"
price = "0.40"
currency = "EUR"
as_of = "2026-11-01"
source = "contract [bold]4711[/bold]"
"""


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    return CliRunner().invoke(prices, arguments, env=env)


def test_list_as_a_table() -> None:
    result = run("list", "--system", "aws.glue", "--region", "us-east-1")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[-1] == f"{sum('aws.glue.' in line for line in lines)} price lines"
    rows = [line.split() for line in lines if "aws.glue" in line]
    assert rows[0] == [GLUE, "0.44", "USD", "DPU-Hour", "2024-07-01,", "stale"]
    ends = {line.index(" USD") for line in lines if " USD" in line}
    assert len(ends) == 1  # money is aligned on its right


def test_list_as_json_and_csv_say_the_same() -> None:
    rows = json.loads(run("list", "--provider", "gcp", "--format", "json").output)
    assert len(rows) == len(PriceBook.load().lines(provider="gcp"))
    text = run("list", "--provider", "gcp", "--format", "csv").output
    cells = list(csv.DictReader(io.StringIO(text)))
    assert [row["key"] for row in rows] == [row["key"] for row in cells]
    assert [row["price"] for row in rows] == [row["price"] for row in cells]
    assert all(isinstance(row["price"], str) for row in rows)


def test_list_by_text() -> None:
    assert run("list", "db.t3.micro").output.splitlines()[-1] == "1 price line"
    nothing = run("list", "no such thing")
    assert (nothing.exit_code, nothing.output) == (0, "0 price lines\n")


def test_a_cell_is_never_a_formula(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN.replace('"AWS Glue"', '"=HYPERLINK(1)"'), encoding="utf-8")
    result = run("list", "--prices", str(own), "--system", "aws.glue", "--format", "csv")
    assert "'=HYPERLINK(1)" in result.output


def test_show_tells_every_field_and_no_markup_is_obeyed(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN, encoding="utf-8")
    result = run("show", GLUE, "--prices", str(own))
    assert result.exit_code == 0
    for word in (
        "0.40",
        "EUR",
        "DPU-Hour",
        "2026-11-01",
        "contract [bold]4711[/bold]",
        "own.toml:2",
    ):
        assert word in result.output
    built_in = json.loads(run("show", GLUE, "--format", "json").output)
    assert (built_in["price"], built_in["unit_scale"]) == ("0.44", "3600")


def test_the_environment_names_own_files(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN, encoding="utf-8")
    result = run("show", GLUE, env={"COSTINSIGHTS_PRICE_BOOK": str(own)})
    assert "0.40" in result.output


def test_meters() -> None:
    result = run("meters", "snowflake")
    assert result.exit_code == 0
    assert "→ credits" in result.output
    rows = json.loads(run("meters", "aws.athena", "--format", "json").output)
    assert rows == [
        {
            "name": "data_scanned_bytes",
            "kind": "priced",
            "units": ["TB"],
            "regions": ["us-east-1"],
            "dims": [],
            "gives": [],
        }
    ]


def test_quote_as_a_table() -> None:
    result = run("quote", "aws.glue", "dpus=6", "execution_minutes=15", "--region", "us-east-1")
    assert result.exit_code == 0
    for word in ("0.66 USD", "estimated", "1.5 DPU-Hour × 0.44 USD", "aws.glue.job_run", GLUE):
        assert word in result.output
    same = run("quote", "aws.glue", "dpus=6", "execution_minutes=15", "region=us-east-1")
    assert same.output == result.output


def test_quote_as_json_is_what_python_gives() -> None:
    arguments = ("warehouse_seconds=61", "edition=standard", "warehouse_size=X-Small")
    result = run("quote", "snowflake", *arguments, "--region", "us-east-1", "--format", "json")
    told = json.loads(result.output)
    quote = PriceBook.load().quote(
        "snowflake",
        {"warehouse_seconds": 61},
        "us-east-1",
        edition="standard",
        warehouse_size="X-Small",
    )
    assert Decimal(told["amount"]) == quote.amount
    assert told["formula"] == quote.formula.splitlines()
    assert told["book"] == quote.book
    assert told["parts"][0]["key"] == quote.lines[0].key
    assert told["parts"][0]["unit_price"] == "2.00"


def test_a_number_may_be_a_dimension() -> None:
    arguments = ("aws.rds", "extended_support_vcpu_hours=2", "year=1", "--region", "us-east-1")
    assert "0.20 USD" in run("quote", *arguments).output


def test_an_unknown_amount_is_an_answer() -> None:
    result = run("quote", "aws.glue", "dpu_hours=1")
    assert result.exit_code == 0
    assert "amount  —\n" in result.output
    assert "say a region" in result.output
    told = json.loads(run("quote", "aws.glue", "dpu_hours=1", "--format", "json").output)
    assert (told["amount"], told["basis"]) == (None, "unknown")
    assert "system='x'" not in run("quote", "aws.glue", "system=x").output
    assert "depends on 'system'" in run("quote", "aws.glue", "system=x").output


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("show", "aws.glue.etl.standrd/us-east-1"), f"Did you mean {GLUE}"),
        (("meters", "nonsense"), "the book has no price for 'nonsense'"),
        (("quote", "aws.glue"), "Missing argument"),
        (("quote", "aws.glue", "dpus"), "is not METER=QUANTITY or KEY=VALUE"),
        (("quote", "aws.glue", "dpus=1", "dpus=2"), "dpus is given twice"),
        (("list", "--format", "xml"), "'xml' is not one of"),
        (("list", "--prices", "missing.toml"), "missing.toml: cannot be read"),
        (("check", "missing.toml"), "missing.toml: cannot be read"),
        (("nonsense",), "No such command"),
    ],
)
def test_usage_errors(arguments: tuple[str, ...], word: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert word in " ".join(result.output.split())


def test_check(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(OWN, encoding="utf-8")
    good = run("check", str(own))
    assert good.exit_code == 0
    assert "good: 1 price line (1 of them over built-in ones), 0 rules" in good.output
    own.write_text(OWN.replace('"0.40"', "0.40"), encoding="utf-8")
    bad = run("check", str(own))
    assert bad.exit_code == 2
    assert f"{own}:10: [[price]]: price must be text in quotes" in bad.output


def in_a_terminal(columns: int, **environment: str) -> str:
    """What `prices list` writes to a terminal of that width."""
    script = "from costinsights.cli.prices import prices; prices(['list', '--system', 'snowflake'])"
    main, other = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment}
    child = subprocess.Popen([sys.executable, "-c", script], stdout=other, env=env)
    os.close(other)
    output = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not part:
            break
        output += part
    os.close(main)
    assert child.wait() == 0
    return output.decode()


def test_colours_are_for_terminals_that_want_them() -> None:
    assert "\x1b[1m" in in_a_terminal(120)
    plain = in_a_terminal(120, NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert "\x1b" not in run("list").output


def test_a_narrow_terminal_folds_and_a_pipe_does_not() -> None:
    narrow = re.sub(r"\x1b\[[0-9;]*m|\r", "", in_a_terminal(50, NO_COLOR="1"))
    assert max(map(len, narrow.splitlines())) <= 50
    key = "snowflake.credit.business_critical/aws-us-east-1-us-west-2"
    assert key not in narrow
    assert key in run("list", "--system", "snowflake").output
    assert all(line == line.rstrip() for line in run("list").output.splitlines())
