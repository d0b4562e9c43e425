"""`costinsights.dagster`: what is named there is there, and looking costs nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import costinsights.dagster as ours

ROOT = Path(ours.__file__).parent


def test_the_three_lists_of_names_are_one() -> None:
    tree = ast.parse(Path(ours.__file__).read_text(encoding="utf-8"))
    imported = {
        name.name: (node.module or "").removeprefix(f"{ours.__name__}.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(ours.__name__)
        for name in node.names
    }
    assert imported == ours._PLACES  # pyright: ignore[reportPrivateUsage]
    assert sorted(imported) == sorted(ours.__all__)


def test_every_name_is_defined_where_it_is_said_to_be() -> None:
    places: dict[str, str] = ours._PLACES  # pyright: ignore[reportPrivateUsage]
    for name, place in places.items():
        tree = ast.parse(
            ROOT.joinpath(*f"{place}.py".split(".")[:-1]).with_suffix(".py").read_text()
        )
        named = {
            found
            for node in tree.body
            for found in (
                [getattr(node, "name", "")]
                + [target.id for target in getattr(node, "targets", ()) if hasattr(target, "id")]
                + [alias.asname or alias.name for alias in getattr(node, "names", ())]
            )
        }
        assert name in named, f"{place} has no {name}"


def test_looking_imports_neither_dagster_nor_a_client() -> None:
    program = (
        "import sys, costinsights.dagster as ours; dir(ours); "
        "assert 'S3Resource' in ours.__all__; "
        "print(*{name.partition('.')[0] for name in sys.modules} & "
        "{'dagster', 'pydantic', 'boto3', 'duckdb', 'psycopg'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
