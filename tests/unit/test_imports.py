"""Waiting for a driver's import must not be visible to anybody."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from costinsights.imports import forget, when_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType


class Seen:
    """Notes the modules that it is told of."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, module: ModuleType) -> None:
        self.names.append(f"{module.__name__}: {module.VALUE}")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package that nobody has imported yet."""
    name = "costinsights_test_driver"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from costinsights_test_driver import cursor\nVALUE = 1\n", encoding="utf-8"
    )
    (folder / "cursor.py").write_text("VALUE = 2\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield name
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(name)]:
        del sys.modules[loaded]


@pytest.fixture
def watch() -> Iterator[Callable[[str], Seen]]:
    """Watch a module; afterwards nothing of ours is left on ``sys.meta_path``."""
    before = list(sys.meta_path)
    watchers: list[Seen] = []

    def begin(name: str) -> Seen:
        seen = Seen()
        watchers.append(seen)
        when_imported(name, seen)
        return seen

    yield begin
    for seen in watchers:
        forget(seen)
    assert sys.meta_path == before


def test_is_told_when_the_module_is_whole(driver: str, watch: Callable[[str], Seen]) -> None:
    package, cursor = watch(driver), watch(f"{driver}.cursor")
    assert package.names == []
    importlib.import_module(driver)
    assert package.names == [f"{driver}: 1"]
    assert cursor.names == [f"{driver}.cursor: 2"]


def test_is_told_at_once_of_a_loaded_module(driver: str, watch: Callable[[str], Seen]) -> None:
    importlib.import_module(driver)
    assert watch(driver).names == [f"{driver}: 1"]


def test_is_told_again_of_a_reload_and_of_a_fresh_import(
    driver: str, watch: Callable[[str], Seen]
) -> None:
    seen = watch(driver)
    module = importlib.import_module(driver)
    importlib.reload(module)
    del sys.modules[driver]
    importlib.import_module(driver)
    assert seen.names == [f"{driver}: 1"] * 3


def test_the_module_looks_as_it_would_without_us(driver: str, watch: Callable[[str], Seen]) -> None:
    bare = importlib.import_module(f"{driver}.cursor")
    loader = type(bare.__loader__)
    for loaded in (driver, f"{driver}.cursor"):
        del sys.modules[loaded]
    watch(f"{driver}.cursor")
    module = importlib.import_module(f"{driver}.cursor")
    assert module.__spec__ is not None
    assert type(module.__loader__) is loader
    assert type(module.__spec__.loader) is loader
    assert vars(module).keys() == vars(bare).keys()


def test_a_failing_import_fails_as_it_would(driver: str, watch: Callable[[str], Seen]) -> None:
    seen = watch(f"{driver}.missing")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'costinsights_test_driver\.m"):
        importlib.import_module(f"{driver}.missing")
    assert seen.names == []


def test_an_error_of_ours_does_not_stop_the_import(
    driver: str, watch: Callable[[str], Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COSTINSIGHTS_STRICT", raising=False)

    def fails(module: ModuleType) -> None:
        raise RuntimeError("ours")

    when_imported(driver, fails)
    seen = watch(driver)
    assert importlib.import_module(driver).VALUE == 1
    assert seen.names == [f"{driver}: 1"]
    forget(fails)
