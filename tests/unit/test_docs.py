"""Every code block of the documentation runs, so that it cannot rot.

```python``` blocks of a page run one after the other in one namespace and one folder; ```toml```
blocks are read as what their first line names; the commands of ```console``` blocks are looked up
among those that exist, with their options. docs/prices.md is executed in full by its own test, and
what imports Dagster in Dagster's environment (tests/servers/test_dagster_docs.py).
"""

from __future__ import annotations

import gc
import re
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

import costinsights
from costinsights import config
from costinsights.cli.app import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")],
    key=lambda page: page.name,
)
PROGRAMS = [page for page in PAGES if page.name == "dagster.md" or page.parent.name == "dagster"]
"""Pages that are a program each, and want Dagster."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own for each page, in which costinsights keeps its ledger."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COSTINSIGHTS_LEDGER", str(tmp_path / "ledger"))
    yield tmp_path
    costinsights.uninstrument()


def check_command(line: str) -> None:
    """The command and every option of it exist."""
    words = shlex.split(line, comments=True)
    if words[:1] != ["costinsights"]:
        return
    command: click.Command = cli
    context = click.Context(cli, info_name="costinsights")
    for word in words[1:]:
        if isinstance(command, click.Group):
            found = command.get_command(context, word)
            assert found is not None, f"no such command: {line}"
            command = found
        elif word == "--":
            break
        elif word.startswith("--"):
            known = {name for option in command.params for name in option.opts}
            assert word.partition("=")[0] in known | {"--help"}, f"no such option: {line}"


# A page shows what it is about and leaves its connection to the end of the program, of which
# sqlite3 warns from Python 3.13 on.
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_runs(page: Path, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run_blocks(page, folder)
        gc.collect()


def run_blocks(page: Path, folder: Path) -> None:
    """Run the blocks of a page one after the other."""
    names: dict[str, object] = {"__name__": "page"}
    for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python" and page not in PROGRAMS:
            exec(compile(text, str(page), "exec", dont_inherit=True), names)
        elif language == "toml":
            tomllib.loads(text)
            if text.startswith("# costinsights.toml"):
                (folder / "costinsights.toml").write_text(text, encoding="utf-8")
                assert config.load().problems == ()
        elif language == "console":
            for line in text.splitlines():
                if line.startswith("$ "):
                    check_command(line[2:])
        elif language == "json":
            import json

            for line in text.splitlines() if text.startswith("{") and "\n{" in text else [text]:
                json.loads(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), link


def test_the_readme_names_every_plugin() -> None:
    from costinsights.plugins import EXPORTERS, INSTRUMENTORS, find

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in [*find(INSTRUMENTORS), *find(EXPORTERS)]:
        assert f"`{name}`" in readme, name
