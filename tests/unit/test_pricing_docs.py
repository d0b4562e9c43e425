"""Every block of docs/prices.md is executed, in the order of the page and in one folder."""

from __future__ import annotations

import doctest
import re
import shlex
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from costinsights.cli.prices import prices
from costinsights.pricing import stale

PAGE = Path(__file__).parents[2] / "docs" / "prices.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def same(told: str, expected: str) -> bool:
    """Whether the output is as the page has it; `…` stands for anything, alone for any lines."""
    pattern = re.escape(expected.strip("\n")).replace("…", "(?s:.*)")
    return re.fullmatch(pattern, told.strip("\n")) is not None


def check_console(text: str) -> None:
    for session in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, expected = session.partition("\n")
        words = shlex.split(command)
        assert words[:2] == ["costinsights", "prices"]
        result = CliRunner().invoke(prices, words[2:])
        assert same(result.output, expected), f"$ {command}\n{result.output}"


def check_python(text: str, names: dict[str, object], at: str) -> None:
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    failures: list[str] = []
    test = parser.get_doctest(text, {}, at, at, 0)
    test.globs = names
    runner.run(test, out=failures.append, clear_globs=False)
    assert not failures, "".join(failures)


def test_every_block_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stale, "today", lambda: date(2026, 11, 23))  # the page's
    names: dict[str, object] = {}
    done: dict[str, int] = {}
    for language, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "toml":
            name = text.partition("\n")[0].removeprefix("# ")
            Path(name).write_text(text, encoding="utf-8")
        elif language == "console":
            check_console(text)
        elif language == "text":
            continue  # what a run against a vendor says
        elif language == "pycon":
            check_python(text, names, f"block {len(done)}")
        else:
            pytest.fail(f"nobody executes a block in {language}")
        done[language] = done.get(language, 0) + 1
    assert min(done["toml"], done["console"], done["pycon"]) >= 3


def test_the_page_names_every_field() -> None:
    from costinsights.pricing import entries, files

    page = PAGE.read_text(encoding="utf-8")
    for fields in (
        files.PRICE_FIELDS,
        files.RULE_FIELDS,
        files.TERM_FIELDS,
        files.DISCOUNT_FIELDS,
        entries.FIELDS,
    ):
        for field in fields.split(", "):
            assert f"`{field}`" in page or f"{field} = " in page, field
