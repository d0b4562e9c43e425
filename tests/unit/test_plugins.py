"""Entry points are found as the standard library finds them, only sooner."""

from __future__ import annotations

import sys
import zipfile
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from costinsights import DBAPIInstrumentor
from costinsights.plugins import EXPORTERS, INSTRUMENTORS, PlugIn, find

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ENTRY_POINTS = """\
[console_scripts]
stranger = stranger:main

[costinsights_instrumentor]
# a comment
stranger = stranger.plugin:Instrumentor [extra1, extra2]
other=stranger.plugin : Other
"""


def stranger(folder: Path, text: str = ENTRY_POINTS) -> None:
    """Put a distribution's metadata into `folder`."""
    info = folder / "stranger-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(text, encoding="utf-8")


def test_agrees_with_the_standard_library() -> None:
    for group in (INSTRUMENTORS, EXPORTERS, "console_scripts", "pytest11"):
        # Behind a value there may be extras in brackets, which are not our business.
        expected = {
            point.name: point.value.partition("[")[0].strip() for point in entry_points(group=group)
        }
        assert expected
        assert {name: plugin.value for name, plugin in find(group).items()} == expected


def test_a_strangers_plugin_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = find(INSTRUMENTORS)
    assert found["stranger"] == PlugIn("stranger", "stranger.plugin:Instrumentor")
    assert found["other"] == PlugIn("other", "stranger.plugin : Other")
    assert "psycopg" in found


def test_the_first_on_the_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        text = f"[costinsights_instrumentor]\npsycopg = mine{number}:Mine\n"
        stranger(tmp_path / str(number), text)
        monkeypatch.setattr(sys, "path", [str(tmp_path / str(number)), *sys.path])
    assert find(INSTRUMENTORS)["psycopg"].value == "mine2:Mine"


def test_a_broken_neighbour_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_bytes(b"[costinsights_instrumentor]\nx = \xff\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), *sys.path])
    assert "psycopg" in find(INSTRUMENTORS)


def test_a_zip_file_is_asked_through_the_standard_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "stranger.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("stranger-1.0.dist-info/METADATA", "Name: stranger\nVersion: 1.0\n")
        file.writestr("stranger-1.0.dist-info/entry_points.txt", ENTRY_POINTS)
    monkeypatch.setattr(sys, "path", [str(archive), *sys.path])
    assert "stranger" in find(INSTRUMENTORS)


def test_a_driver_below_a_package_that_others_share_may_be_missing() -> None:
    class Below(DBAPIInstrumentor):
        driver = "opentelemetry.no_such_client.api"

    class There(DBAPIInstrumentor):
        driver = "opentelemetry.sdk"

    assert not Below().available()
    assert There().available()
