"""What every puller must keep, run over every one that there is."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, cast

import msgspec
import pytest

from costinsights.billing.puller import DAY, Puller, PullError
from costinsights.billing.slices import Slice
from costinsights.plugins import PULLERS, find
from tests.contract.plugins import run_python

if TYPE_CHECKING:
    from pathlib import Path

EVERY = pytest.mark.parametrize("key", sorted(find(PULLERS)))

# What importing a puller brings along that is neither the standard library's nor ours.
LOADS = """
import sys
import costinsights.billing.puller
before = {name.partition(".")[0] for name in sys.modules}
module, _, kind = sys.argv[1].partition(":")
__import__(module)
after = {name.partition(".")[0] for name in sys.modules}
print(*sorted(after - before - set(sys.stdlib_module_names)))
"""


def kind_of(key: str) -> type[Puller]:
    return cast("type[Puller]", find(PULLERS)[key].load())


def test_every_provider_of_the_design_has_one() -> None:
    answered = {source for key in find(PULLERS) for source in kind_of(key).answers}
    assert answered >= {
        *("aws", "aws.s3", "gcp", "gcp.storage", "azure", "azure.storage", "databricks", "focus")
    }


@EVERY
def test_it_stands_in_a_file_of_its_keys_name(key: str) -> None:
    module = find(PULLERS)[key].value.partition(":")[0]
    assert module == f"costinsights.billing.{key.replace('.', '_')}"
    assert issubclass(kind_of(key), Puller)
    assert kind_of(key).system == key


@EVERY
def test_its_client_is_imported_when_it_asks_and_not_before(key: str, tmp_path: Path) -> None:
    assert run_python(LOADS, find(PULLERS)[key].value, folder=tmp_path).split() == []


@EVERY
def test_its_options_are_checked(key: str) -> None:
    kind = kind_of(key)
    options = kind.Options
    if options is not None:
        assert issubclass(options, msgspec.Struct)
        assert options.__struct_config__.frozen
        assert options.__struct_config__.forbid_unknown_fields, "a misspelt option would do nothing"
        names = {field.name for field in msgspec.structs.fields(options)}
        assert not kind.configured_by or kind.configured_by in names
    with pytest.raises(PullError, match=re.escape(f'[pull."{key}"]')) as caught:
        kind({"no_such_option": "hunter2"})
    assert "hunter2" not in str(caught.value)


@EVERY
def test_it_says_who_it_asks_and_what_it_needs(key: str) -> None:
    kind = kind_of(key)
    assert kind.provider
    assert kind.answers
    assert kind.grants or key == "focus"
    assert kind.verified.startswith(("emulator", "real"))
    assert set(kind.granularities) <= {"hourly", "daily"}


@EVERY
def test_what_may_change_is_pulled_until_it_is_final(key: str) -> None:
    """A run a day, whatever the day, sees each day for the last time when it is final."""
    kind = kind_of(key)
    puller = kind.__new__(kind)  # its window and state depend on no option
    puller.granularity = "daily"
    day = datetime(2026, 2, 27, tzinfo=timezone.utc)
    slice_ = Slice(key, "scope", day, day + DAY)
    states: list[str] = []
    for later in range(1, 80):
        now = day + timedelta(days=later, hours=9)
        start, end = puller.window(now)
        assert end <= now.replace(hour=0)
        if start <= day < end:
            states.append(puller.state(slice_, now))
    assert states[0] == "provisional"
    assert states[-1] == "final"
    assert states == sorted(states, key=("provisional", "open", "final").index)
