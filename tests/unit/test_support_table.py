"""README's tables of what is supported say what the plug-ins say."""

from __future__ import annotations

import pytest

from tests.support_table import (
    README,
    clients,
    expected,
    histories,
    instrumentors,
    systems,
    systems_of,
)


def test_the_readme_says_what_the_plugins_say() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == expected(text), "run  python -m tests.support_table"


@pytest.mark.parametrize("name", instrumentors())
def test_every_instrumentor_says_what_it_was_verified_on(name: str) -> None:
    kind = instrumentors()[name]
    assert kind.verified, f"{name}: verified is empty"
    assert kind.system in systems_of(kind)


@pytest.mark.parametrize("system", histories())
def test_every_history_reader_says_what_it_needs(system: str) -> None:
    kind = histories()[system]
    assert kind.system == system
    assert kind.verified, f"{system}: verified is empty"
    assert kind.meters, f"{system}: meters is empty"
    assert kind.grants, f"{system}: grants is empty"


def test_the_tables_are_tables() -> None:
    for table in (clients(), systems()):
        widths = {line.count("|") for line in table.splitlines()}
        assert len(widths) == 1
        assert "None" not in table
