"""What a framework's plug-in is promised: told once, asked to put back, and never a program's harm."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import costinsights
from costinsights import frameworks, guard
from costinsights.plugins import EXPORTERS, FRAMEWORKS, find, find_each

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PROGRAM = """
said = []

class Good:
    def watch(self, config):
        said.append(("on", config.service))

    def unwatch(self):
        said.append("off")

class Bad:
    def watch(self, config):
        raise RuntimeError("no")

    def unwatch(self):
        said.append("never")
"""
POINTS = "[costinsights_framework]\ngood = framework_of_tests:Good\nbad = framework_of_tests:Bad\n"


def test_a_strangers_framework_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "framework_of_tests.py").write_text(PROGRAM)
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setattr(guard, "swallowed", type(guard.swallowed)())
    try:
        costinsights.instrument(ledger=tmp_path / "ledger", exporters=[])
        costinsights.instrument()
        said = sys.modules["framework_of_tests"].said
        assert said == [("on", "shop")]
        costinsights.uninstrument()
        assert said == [("on", "shop"), "off"]
        costinsights.instrument(ledger=tmp_path / "ledger", exporters=[])
        assert said == [("on", "shop"), "off", ("on", "shop")]
        assert guard.swallowed["framework bad: RuntimeError"]
    finally:
        costinsights.uninstrument()
        for made in ("good", "bad"):
            frameworks._made.pop(made, None)  # pyright: ignore[reportPrivateUsage]
        sys.modules.pop("framework_of_tests", None)


def test_several_groups_are_found_in_one_look() -> None:
    assert find_each(FRAMEWORKS, EXPORTERS) == [find(FRAMEWORKS), find(EXPORTERS)]
