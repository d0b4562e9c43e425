"""What every history reader must keep, run over every one that there is."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from costinsights.plugins import HISTORIES, find
from costinsights.settlement.history import History, HistoryError
from tests.contract.plugins import run_python
from tests.support_table import histories

if TYPE_CHECKING:
    from pathlib import Path

EVERY = pytest.mark.parametrize("system", sorted(histories()))

# What importing a reader brings along that is neither the standard library's nor ours.
LOADS = """
import sys
import costinsights.settlement.history
before = {name.partition(".")[0] for name in sys.modules}
module, _, kind = sys.argv[1].partition(":")
__import__(module)
after = {name.partition(".")[0] for name in sys.modules}
print(*sorted(after - before - set(sys.stdlib_module_names)))
"""


@EVERY
def test_it_stands_in_a_file_of_its_systems_name(system: str) -> None:
    module = find(HISTORIES)[system].value.partition(":")[0]
    assert module == f"costinsights.settlement.{system.replace('.', '_')}"
    assert issubclass(histories()[system], History)
    assert histories()[system].system == system


@EVERY
def test_its_driver_is_imported_when_it_asks_and_not_before(system: str, tmp_path: Path) -> None:
    assert run_python(LOADS, find(HISTORIES)[system].value, folder=tmp_path).split() == []


@EVERY
def test_its_options_are_checked_and_its_times_are_times(system: str) -> None:
    kind = histories()[system]
    assert kind.latency >= timedelta(0)
    assert kind.retention is None or kind.retention > timedelta(0)
    options = kind.Options
    if options is not None:
        assert issubclass(options, msgspec.Struct)
        assert options.__struct_config__.frozen
        assert options.__struct_config__.forbid_unknown_fields, "a misspelt option would do nothing"
    with pytest.raises(HistoryError, match=re.escape(f'[settle."{system}"]')) as caught:
        kind({"no_such_option": "hunter2"})
    assert "hunter2" not in str(caught.value)
